"""Pre-training tasks: what is hidden stays hidden, every loss has a second answer, and validation repeats itself."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prismts.errors import SettingsError, ShapeError
from prismts.layers.decode import DecodeHead
from prismts.models import MODELS, make_settings
from prismts.tasks.combined import PRETRAIN_TASKS, Combined, make_pretrain_task
from prismts.tasks.contrast import Contrast, info_nce, stretched_crop
from prismts.tasks.hidden_tokens import HiddenTokens
from prismts.tasks.next_patch import NextPatch
from prismts.tasks.pretraining import Pretraining
from prismts.tasks.reconstruct import PRETRAIN_MASKS, Reconstruct
from prismts.windows import Batch

T = 48
SETTINGS = {
    "convtimenet": {"patch_length": 8, "stride": 4, "width": 8, "feed_forward": 16, "kernel_sizes": (3, 5),
                    "dropout": 0.0, "residual": 0.5},
    "patchtst": {"patch_length": 8, "stride": 4, "width": 8, "n_heads": 2, "feed_forward": 16, "n_layers": 2,
                 "dropout": 0.0},
    "universal": {"patch_lengths": (8, 16), "stride": 4, "width": 8, "n_heads": 2, "feed_forward": 16, "n_bands": 4,
                  "kernel_sizes": (3,), "dropout": 0.0, "residual": 0.5},
}  # fmt: skip
EVERY = pytest.mark.parametrize("encoder", list(SETTINGS))
AHEAD = [name for name in PRETRAIN_TASKS if name != "causal_patch"]  # for encoders that look ahead, as these do
TASKS = pytest.mark.parametrize("task", AHEAD)


def encoder_named(name: str, seed: int = 0, n_channels: int = 3, **changes):
    torch.manual_seed(seed)
    config = make_settings(MODELS[name].config, SETTINGS[name] | changes)
    return MODELS[name].build(config, n_channels=n_channels, context_length=T)


def built(name: str, tasks, seed: int = 0, **changes) -> tuple[Combined, Pretraining]:
    combined = make_pretrain_task(tasks)
    model = combined.build(encoder_named(name, seed, **changes))
    return combined, model


def batch(n: int = 6, n_channels: int = 3, seed: int = 0, observed: torch.Tensor | None = None) -> Batch:
    x = torch.randn(n, n_channels, T, generator=torch.Generator().manual_seed(seed)).cumsum(-1)
    x = (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True)
    x = x if observed is None else x.masked_fill(~observed, 0.0)
    return Batch(x, x[..., :0], observed, None, torch.arange(n), torch.zeros(n, dtype=torch.long))


def some_gaps(n: int = 6, n_channels: int = 3) -> torch.Tensor:
    return torch.rand(n, n_channels, T, generator=torch.Generator().manual_seed(5)) < 0.8


# ---- what holds for all


@EVERY
@TASKS
def test_every_parameter_of_encoder_and_part_receives_a_gradient_and_the_head_of_the_encoder_none(encoder, task):
    combined, model = built(encoder, task)
    model.encoder.head = DecodeHead(8, 8, 4)
    for name, parameter in model.named_parameters():  # maps that begin at zero would let nothing through
        if parameter.requires_grad and (name.startswith("parts.") or (parameter.dim() > 1 and not parameter.any())):
            torch.nn.init.normal_(parameter, std=0.3)
    model.train()
    for seed in range(3):
        combined.loss(model, batch(seed=seed)).backward()
    for name, parameter in model.named_parameters():
        if ".copy." in name or name.startswith("encoder.head."):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            # of attention, shifting all keys by the same changes nothing
            assert parameter.grad.abs().sum() > 0 or name.endswith("key.bias"), name


@EVERY
@TASKS
@pytest.mark.parametrize("gaps", [False, True])
def test_validation_repeats_itself_whatever_was_drawn_between_and_changes_nothing(encoder, task, gaps):
    combined, model = built(encoder, task)
    model.eval()
    before = copy.deepcopy(model.state_dict())
    some = batch(observed=some_gaps() if gaps else None)
    first = combined.errors(model, some)
    torch.manual_seed(99)
    torch.rand(7)
    again = combined.errors(model, some)
    assert first[0].item() == again[0].item() and int(first[1]) == int(again[1]) == 6
    assert np.isfinite(first[0].item()) and first[0] > 0
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@EVERY
@TASKS
def test_training_draws_from_torch_alone(encoder, task):
    combined, model = built(encoder, task)
    model.eval()
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(combined.loss(model, batch()).item())
    assert losses[0] == losses[1]
    assert task == "next_patch" or losses[0] != losses[2]  # its cuts are few, and may be drawn twice


@EVERY
@TASKS
def test_what_was_not_observed_counts_for_nothing(encoder, task):
    combined, model = built(encoder, task)
    model.eval()
    observed = some_gaps()
    one = batch(observed=observed)
    two = one._replace(context=torch.where(observed, one.context, torch.full_like(one.context, 1e4)))
    torch.manual_seed(0)
    first = combined.loss(model, one)
    torch.manual_seed(0)
    torch.testing.assert_close(combined.loss(model, two), first)


@TASKS
def test_windows_in_which_nothing_was_seen_give_a_finite_loss_and_finite_gradients(task):
    combined, model = built("patchtst", task)
    observed = torch.ones(6, 3, T, dtype=torch.bool)
    observed[:3] = False
    for seen in (observed, torch.zeros_like(observed)):
        model.zero_grad()
        loss = combined.loss(model, batch(observed=seen))
        loss.backward()
        assert torch.isfinite(loss)
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@EVERY
@TASKS
def test_half_precision_gives_finite_gradients_and_nearly_the_same_loss(encoder, task):
    combined, model = built(encoder, task)
    model.train()
    torch.manual_seed(0)
    whole = combined.loss(model, batch()).item()
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = combined.loss(model, batch())
    loss.backward()
    assert loss.item() == pytest.approx(whole, rel=0.05)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


# ---- masked reconstruction beside an encoder


@EVERY
def test_reconstruction_beside_an_encoder_says_what_the_encoder_with_that_head_says(encoder):
    combined, model = built(encoder, "masked")
    task = combined.tasks[0]
    torch.nn.init.normal_(model.parts["masked"].linear.weight)
    model.eval()
    alone = copy.deepcopy(model.encoder)
    alone.head = copy.deepcopy(model.parts["masked"])
    ours, theirs = task.errors(model, batch()), task.errors(alone, batch())
    torch.testing.assert_close(ours[0], theirs[0])
    assert ours[1] == theirs[1] > 0


def test_pretraining_hides_whole_channels_only_where_there_are_several():
    torch.manual_seed(0)
    hidden = PRETRAIN_MASKS(torch.ones(400, 3, T, dtype=torch.bool))
    whole = hidden.all(-1)
    assert 20 < int(whole.any(1).sum()) < 200 and not whole.all(1).any()
    alone = PRETRAIN_MASKS(torch.ones(400, 1, T, dtype=torch.bool))
    assert 0.2 < alone.float().mean() < 0.6 and (~alone).sum(-1).min() >= 1
    assert isinstance(make_pretrain_task("masked").tasks[0], Reconstruct)


# ---- contrast


def slow_info_nce(a, b, temperature, excluded):
    """One number after the other, in numpy."""
    losses = []
    for i in range(len(a)):
        sides = []
        for mine, theirs in ((a, b), (b, a)):
            top = np.exp(mine[i] @ theirs[i] / temperature)
            rest = sum(
                np.exp(mine[i] @ theirs[j] / temperature) for j in range(len(a)) if j != i and not excluded[i][j]
            )
            sides.append(-np.log(top / (top + rest)))
        losses.append(np.mean(sides))
    return losses


@given(st.integers(1, 7), st.integers(0, 99), st.sampled_from([0.1, 0.5, 1.0]))
@settings(max_examples=30, deadline=None)
def test_info_nce_is_what_its_formula_says_in_numpy(n, seed, temperature):
    rng = np.random.default_rng(seed)
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in rng.standard_normal((2, n, 4)))
    excluded = rng.random((n, n)) < 0.3
    excluded |= excluded.T
    ours = info_nce(torch.from_numpy(a), torch.from_numpy(b), temperature, torch.from_numpy(excluded))
    np.testing.assert_allclose(ours.numpy(), slow_info_nce(a, b, temperature, excluded), rtol=1e-9, atol=1e-13)


def test_info_nce_knows_its_two_ends():
    same = torch.eye(4)[:1].expand(4, 4)
    torch.testing.assert_close(info_nce(same, same, 0.1), torch.full((4,), np.log(4.0), dtype=torch.float32))
    assert info_nce(torch.eye(4), torch.eye(4), 0.05).max() < 1e-6


def test_a_crop_of_a_line_stretched_back_is_a_line_of_less_slope():
    x = torch.arange(9.0).expand(2, 1, 9)
    observed = torch.ones_like(x, dtype=torch.bool)
    view, seen = stretched_crop(x, observed, torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(view[0, 0], torch.linspace(0, 4, 9))
    torch.testing.assert_close(view[1, 0], torch.linspace(4, 8, 9))
    assert seen.all()
    whole, _ = stretched_crop(x, observed, torch.zeros(2), torch.ones(2))
    torch.testing.assert_close(whole, x)


def test_a_stretched_crop_is_observed_where_both_neighbors_are():
    x = torch.arange(5.0)[None, None]
    observed = torch.tensor([[[True, True, False, True, True]]])
    view, seen = stretched_crop(x, observed, torch.zeros(1), torch.full((1,), 0.75))  # places 0, 0.75, 1.5, 2.25, 3
    assert seen.flatten().tolist() == [True, True, False, False, True]
    torch.testing.assert_close(view.flatten(), torch.tensor([0.0, 0.75, 0.0, 0.0, 3.0]))


def test_other_channels_of_a_window_and_windows_that_overlap_are_not_held_against_it():
    task = Contrast(jitter=0.0, crop=(1.0, 1.0), temperature=1.0)
    model = Combined([task]).build(encoder_named("convtimenet")).eval()
    two = batch(2, n_channels=2)
    apart = two._replace(series=torch.tensor([0, 0]), start=torch.tensor([0, T]))
    near = two._replace(series=torch.tensor([0, 0]), start=torch.tensor([0, T - 1]))
    # both views are the window itself, so two vectors tell the loss of each pair
    vectors = model.parts["contrastive"](model.encoder.encode(two.context)).detach().double().numpy()  # [2, 2, K]
    flat = vectors.reshape(4, -1)
    same = [[i // 2 == j // 2 for j in range(4)] for i in range(4)]
    expected = slow_info_nce(flat, flat, 1.0, same)
    assert task.loss(model, apart).item() == pytest.approx(np.mean(expected), rel=1e-5)
    assert task.loss(model, near).item() == pytest.approx(0.0, abs=1e-6)  # nothing is left to confuse it with


def test_contrast_learns_to_find_the_other_view():
    task = Contrast(jitter=0.05, temperature=0.2)
    torch.manual_seed(0)
    model = Combined([task]).build(encoder_named("convtimenet", n_channels=1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    some = batch(24, n_channels=1)
    model.eval()
    begin = task.errors(model, some)[0].item()
    model.train()
    for _ in range(60):
        optimizer.zero_grad()
        task.loss(model, some).backward()
        optimizer.step()
    model.eval()
    assert task.errors(model, some)[0].item() < 0.7 * begin


# ---- next patch


@EVERY
def test_before_training_the_next_patch_is_the_last_value_again(encoder):
    combined, model = built(encoder, "next_patch")
    model.eval()
    some = batch()
    x = some.context
    expected = (x[..., -8:] - x[..., -9:-8]).square().mean()
    total, count = combined.tasks[0].errors(model, some)
    assert int(count) == 6 * 3 * 8
    torch.testing.assert_close(total / count, expected, rtol=1e-4, atol=1e-5)


@EVERY
def test_the_encoder_sees_nothing_of_what_it_is_to_tell(encoder):
    combined, model = built(encoder, "next_patch")
    torch.nn.init.normal_(model.parts["next_patch"].linear.weight)
    model.eval()
    some = batch()
    x = some.context.clone().requires_grad_()
    head, told = model.parts["next_patch"], []
    head.register_forward_hook(lambda _, __, out: told.append(out))
    combined.tasks[0].errors(model, some._replace(context=x))
    (gradient,) = torch.autograd.grad(told[0].sum(), x)
    assert gradient[..., -8:].abs().max() == 0 and gradient[..., :-8].abs().max() > 0


def test_a_cut_leaves_at_least_half_of_the_window_and_the_steps_to_tell():
    combined, model = built("convtimenet", {"next_patch": {"n_steps": 4}})
    task, some = combined.tasks[0], batch()
    lengths = []
    encode = model.encoder.encode
    model.encoder.encode = lambda x, observed=None: (lengths.append(x.shape[-1]), encode(x, observed))[1]
    torch.manual_seed(0)
    for _ in range(60):
        task.loss(model, some)
    assert min(lengths) == 24 and max(lengths) == 44 and len(set(lengths)) > 10


def test_a_window_too_short_for_the_next_patch_is_refused_in_words():
    combined, model = built("convtimenet", {"next_patch": {"n_steps": 44}})
    with pytest.raises(ShapeError, match="48 steps has no room for 44 steps to tell behind a past"):
        combined.loss(model, batch())


# ---- hidden tokens


@EVERY
def test_hidden_values_reach_neither_what_is_told_nor_any_gradient_of_it(encoder):
    _, model = built(encoder, "decoupled")
    model.eval()
    x = batch().context.clone().requires_grad_()
    hidden = torch.zeros(6, 3, T, dtype=torch.bool)
    hidden[..., 16:32] = True
    features = model.encoder.encode(x.masked_fill(hidden, 0.0), ~hidden)
    readable = features.valid.flatten(0, 1)
    told = model.parts["decoupled"](features.tokens.flatten(0, 1), readable)
    assert not readable[:, 4:7].any()  # tokens 4 to 6 cover steps 16 to 31 and nothing else
    (gradient,) = torch.autograd.grad(told.square().sum(), x)
    assert gradient[hidden].abs().max() == 0 and gradient[~hidden].abs().max() > 0


def test_attention_that_heeds_the_mask_reads_no_hidden_token():
    encoder = encoder_named("patchtst").eval()
    x = batch().context
    hidden = torch.zeros(6, 3, T, dtype=torch.bool)
    hidden[..., 16:32] = True
    before = encoder.encode(x.masked_fill(hidden, 0.0), ~hidden)
    with torch.no_grad():
        encoder.position[4:7] += 100.0  # whatever stands in hidden tokens
    after = encoder.encode(x.masked_fill(hidden, 0.0), ~hidden)
    torch.testing.assert_close(after.tokens[:, :, 7:], before.tokens[:, :, 7:])


def test_only_hidden_tokens_count_and_the_loss_is_the_distance_to_what_the_copy_says_of_the_whole_window():
    combined, model = built("convtimenet", "decoupled")
    task, part = combined.tasks[0], model.parts["decoupled"]
    model.eval()
    some = batch()
    hidden = torch.zeros(6, 3, T, dtype=torch.bool)
    hidden[..., 16:32] = True
    total, count = task._sums(model, some, hidden)
    assert int(count) == 6 * 3 * 3
    whole = part.copy.encode(some.context).tokens[:, :, 4:7].detach().numpy()
    truth = (whole - whole.mean(-1, keepdims=True)) / np.sqrt(whole.var(-1, keepdims=True) + 1e-5)
    seen = model.encoder.encode(some.context.masked_fill(hidden, 0.0), ~hidden)
    told = part(seen.tokens.flatten(0, 1), seen.valid.flatten(0, 1)).view(6, 3, -1, 8)[:, :, 4:7].detach().numpy()
    assert total.item() == pytest.approx(((told - truth) ** 2).mean(-1).sum(), rel=1e-4)


def test_the_copy_follows_by_its_momentum_in_training_only():
    combined, model = built("convtimenet", {"decoupled": {"momentum": 0.75}})
    task, part = combined.tasks[0], model.parts["decoupled"]
    weight, copied = model.encoder.embed.weight, part.copy.embed.weight
    with torch.no_grad():
        weight.fill_(1.0)
        copied.fill_(0.0)
    model.eval()
    task.loss(model, batch())
    assert copied.unique().tolist() == [0.0]
    model.train()
    task.loss(model, batch())
    assert copied.unique().tolist() == [0.25]
    assert not part.copy.training and part.training
    assert not any(parameter.requires_grad for parameter in part.copy.parameters())


# ---- several at once


def test_a_combination_is_the_weighted_sum_of_its_tasks():
    weights = {"masked": 1.0, "contrastive": 0.1, "next_patch": 2.0}
    combined, model = built("convtimenet", weights)
    model.eval()
    parts = []
    for task, weight in zip(combined.tasks, combined.weights, strict=True):
        total, count = task.errors(model, batch())
        parts.append(weight * total.item() / int(count))
    total, count = combined.errors(model, batch())
    assert total.item() / int(count) == pytest.approx(sum(parts), rel=1e-5)
    means = [mean.item() for mean in combined.means(model, batch())]
    assert sum(w * m for w, m in zip(weights.values(), means, strict=True)) == pytest.approx(sum(parts), rel=1e-5)


def test_a_combination_shares_one_encoder():
    _, model = built("patchtst", ["masked", "decoupled", "contrastive", "next_patch"])
    assert list(model.parts) == ["masked", "decoupled", "contrastive", "next_patch"]
    names = [name for name in model.state_dict() if name.endswith("embed.weight") and ".copy." not in name]
    assert names == ["encoder.embed.weight"]
    assert "0.1 * contrastive" in repr(make_pretrain_task({"contrastive": 0.1}))
    assert repr(make_pretrain_task({"contrastive": {"jitter": 0.3}})) != repr(make_pretrain_task("contrastive"))


def test_tasks_are_asked_for_by_name_weight_settings_or_as_they_are():
    one = make_pretrain_task({"masked": {"weight": 2, "masks": ["points", "blocks"]}, "contrastive": 0.5})
    assert [task.name for task in one.tasks] == ["masked", "contrastive"] and one.weights == (2.0, 0.5)
    mine = HiddenTokens(length=2.0)
    assert make_pretrain_task(["masked", mine]).tasks[1] is mine
    assert make_pretrain_task(mine).tasks == (mine,) and make_pretrain_task(one) is one
    assert make_pretrain_task({"contrastive": {"crop": [0.3, 0.9]}}).tasks[0].crop == (0.3, 0.9)


@pytest.mark.parametrize(("tasks", "words"), [
    ("mask", "no pre-training task named 'mask'. Did you mean 'masked'"),
    ({"contrastive": {"temprature": 1}}, "no setting of 'contrastive' named 'temprature'. Did you mean 'temperature'"),
    ({"contrastive": "much"}, "takes a weight, or settings by name, but got 'much'"),
    ({"contrastive": {"jitter": "a"}}, "a value of the wrong type"),
    ({"masked": 0.0}, "one weight above 0 for each"),
    ([], "at least one task"),
    (["masked", "masked"], "Every task is named once"),
    ({"contrastive": {"crop": [0.9, 0.3]}}, "rising pair of shares"),
    ({"contrastive": {"temperature": 0}}, "temperature above 0"),
    ({"next_patch": {"n_steps": 0}}, "at least 1, but got 0"),
    ({"next_patch": {"shortest": 1.0}}, "above 0 and below 1"),
    ({"decoupled": {"momentum": 2}}, "from 0 .the copy is the encoder. to 1"),
    ({"decoupled": {"length": 0.5}}, "length counts patches"),
    ({"decoupled": {"share": 1.0}}, "above 0 and below 1"),
    ({"masked": {"masks": "block"}}, "Did you mean 'blocks'"),
])  # fmt: skip
def test_tasks_that_cannot_be_are_refused_in_words(tasks, words):
    with pytest.raises(SettingsError, match=words):
        make_pretrain_task(tasks)


@EVERY
def test_what_is_behind_a_token_is_not_asked_of_an_encoder_that_has_seen_it(encoder):
    with pytest.raises(SettingsError, match="have seen the steps behind them"):
        built(encoder, "causal_patch")


def test_an_encoder_that_mixes_channels_is_pretrained_too():
    combined, model = built("convtimenet", AHEAD, channels="mixed")
    model.train()
    loss = combined.loss(model, batch())
    loss.backward()
    assert torch.isfinite(loss) and model.n_channels == 3
    assert model.parts["next_patch"](model.encoder.encode(batch().context)).shape == (6, 3, 8)
    assert isinstance(combined.tasks[-1], NextPatch)
