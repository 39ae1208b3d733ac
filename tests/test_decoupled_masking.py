"""Decoupled masking: what is hidden is not seen, what is told is judged by hand, and the copy follows slowly."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedShuffleSplit

import prismts
from prismts.cases import CaseBatch, Cases, scaler_of_cases
from prismts.data.synthetic import labeled_motions
from prismts.errors import SettingsError
from prismts.models.timemae import TimeMAE, TimeMAEConfig
from prismts.tasks.classify import Classify
from prismts.tasks.decoupled_masking import DecoupledMasking, start_from
from prismts.training.fit import FitConfig, fit

C, T, STRIDE = 2, 40, 4
SMALL = {"slice_length": STRIDE, "width": 8, "n_heads": 2, "n_layers": 2, "dropout": 0.0, "residual": 0.5}


def built(task: DecoupledMasking | None = None, seed: int = 0, **changes):
    torch.manual_seed(seed)
    task = task or DecoupledMasking(n_codes=6, n_layers=2)
    return task, task.build("timemae", SMALL | changes, n_channels=C, context_length=T)


def batch(n: int = 4, seed: int = 0, observed: torch.Tensor | None = None) -> CaseBatch:
    x = torch.randn(n, C, T, generator=torch.Generator().manual_seed(seed)).cumsum(-1)
    return CaseBatch(x if observed is None else x.masked_fill(~observed, 0.0), observed, torch.zeros(n))


# ---- what is hidden


@given(st.integers(1, 12), st.integers(1, 12), st.floats(0.05, 0.95), st.integers(0, 999))
def test_a_share_of_the_slices_seen_is_hidden_and_one_of_them_stays(n_seen, n_unseen, share, seed):
    rng = np.random.default_rng(seed)
    seen = torch.from_numpy(rng.permutation([True] * n_seen + [False] * n_unseen))[None]
    hidden = DecoupledMasking(share=share)._hide(seen, torch.from_numpy(rng.random((1, n_seen + n_unseen))))
    assert not (hidden & ~seen).any()
    assert int(hidden.sum()) == min(max(1, int(share * n_seen)), n_seen - 1)


def test_six_of_ten_slices_are_hidden_as_in_the_paper():
    task, model = built()
    told = model(batch().context, None, task._hide(torch.ones(4, 10, dtype=torch.bool), torch.rand(4, 10)))
    assert told.counts.sum(1).tolist() == [6, 6, 6, 6]
    assert told.representation.shape == told.truth.shape == (4, 6, 8) and told.scores.shape == (4, 6, 6)


def test_what_is_told_does_not_depend_on_what_is_hidden():
    _, model = built()
    model.eval()
    hidden = torch.zeros(4, 10, dtype=torch.bool)
    hidden[:, [2, 3, 7]] = True
    x = batch().context
    changed = torch.where(hidden.repeat_interleave(STRIDE, 1)[:, None], 100 * torch.randn(4, C, T), x)
    before, after = model(x, None, hidden), model(changed, None, hidden)
    assert torch.equal(before.representation, after.representation) and torch.equal(before.scores, after.scores)
    assert not torch.allclose(before.truth, after.truth)


def test_the_encoder_sees_the_others_as_if_there_were_no_more():
    """Hide the last slices: then the rest is encoded as a shorter window is."""
    _, model = built()
    model.eval()
    hidden = torch.arange(10).expand(3, 10) >= 6
    x, kept = batch(3).context, []
    handle = model.encoder.blocks[-1].register_forward_hook(lambda _, __, y: kept.append(y))
    model(x, None, hidden)
    handle.remove()
    torch.testing.assert_close(kept[0], model.encoder.encode(x[..., :24]).tokens[:, 0])


def test_windows_that_hide_more_or_fewer_slices_are_told_as_if_alone():
    _, model = built()
    model.eval()
    hidden = torch.zeros(2, 10, dtype=torch.bool)
    hidden[0, [1, 5]] = hidden[1, [0, 2, 4, 6, 8]] = True
    x = batch(2).context
    both, alone = model(x, None, hidden), model(x[:1], None, hidden[:1])
    assert both.counts.tolist() == [[True, True, False, False, False], [True] * 5]
    for part in ("representation", "truth", "scores"):
        torch.testing.assert_close(getattr(both, part)[:1, :2], getattr(alone, part))
    assert torch.equal(both.code[:1, :2], alone.code)


def test_only_slices_that_saw_something_are_hidden():
    task, model = built()
    observed = torch.ones(3, C, T, dtype=torch.bool)
    observed[0, :, 8:20] = False  # slices 2, 3 and 4
    observed[1, :, 13:] = False  # a shorter case, of four slices
    observed[2, 0] = False  # the other channel was seen
    seen = task._seen(model, batch(3, observed=observed))
    assert (
        seen.sum(1).tolist() == [7, 4, 10] and not seen[0, 2:5].any() and seen[1].tolist() == [True] * 4 + [False] * 6
    )
    total, count = task.errors(model.eval(), batch(3, observed=observed))
    assert total.isfinite() and int(count) == 4 + 2 + 6


def test_a_window_of_a_single_slice_has_nothing_to_tell():
    task, model = built()
    observed = torch.zeros(2, C, T, dtype=torch.bool)
    observed[..., :3] = True
    assert task.loss(model.train(), batch(2, observed=observed)).item() == 0


# ---- how it is judged


def test_the_loss_is_the_distance_and_the_entropy_of_the_smoothed_code():
    task, model = built()
    model.eval()
    x = batch()
    total, count = task.errors(model, x)
    seen = torch.ones(4, 10, dtype=torch.bool)
    marks = x.context.contiguous().view(torch.int32).sum((1, 2), dtype=torch.int64) % 2**31
    draws = np.stack([np.random.default_rng((0, mark)).random(10) for mark in marks.tolist()])
    told = model(x.context, None, task._hide(seen, torch.from_numpy(draws)))
    expected = 0.0
    for b in range(4):
        for m in range(6):
            gap = (told.representation[b, m] - told.truth[b, m]).square().mean()
            log = told.scores[b, m].log_softmax(-1)
            truth = torch.full((6,), 0.2 / 6)
            truth[told.code[b, m]] += 0.8
            expected += (5 * gap - (truth * log).sum()).item()
    assert int(count) == 24 and total.item() == pytest.approx(expected, rel=1e-5)


def test_validation_hides_the_same_slices_whatever_stands_beside_a_window():
    task, model = built()
    model.eval()
    x = batch(6)
    whole, n = task.errors(model, x)
    parts = [task.errors(model, CaseBatch(x.context[i : i + 1], None, x.label[:1])) for i in range(6)]
    assert whole.item() == pytest.approx(sum(total.item() for total, _ in parts), rel=1e-5)
    assert int(n) == sum(int(count) for _, count in parts)
    assert torch.equal(task.errors(model, x)[0], whole)


def test_training_hides_others_every_time_and_draws_on_nothing_but_the_seed():
    task, model = built()
    torch.manual_seed(5)
    first, second = task.loss(model, batch()), task.loss(model, batch())
    torch.manual_seed(5)
    assert torch.equal(task.loss(model, batch()), first) and not torch.equal(first, second)


# ---- the copy


def test_the_copy_follows_by_a_hundredth_of_the_way():
    task, model = built()
    with torch.no_grad():
        for parameter in model.encoder.blocks.parameters():
            parameter.add_(1.0)
    before = copy.deepcopy(model.follower)
    task.loss(model, batch())
    pairs = zip(before.parameters(), model.follower.parameters(), model.encoder.blocks.parameters(), strict=True)
    for old, new, leader in pairs:
        torch.testing.assert_close(new, 0.99 * old + 0.01 * leader)


def test_the_copy_begins_as_the_encoder_answers_without_dropout_and_learns_nothing_itself():
    task, model = built(dropout=0.5)
    model.train()
    assert not model.follower.training and model.encoder.blocks[0].training
    for ours, theirs in zip(model.follower.parameters(), model.encoder.blocks.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    task.loss(model, batch()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert all(grad is None for name, grad in gradients.items() if name.startswith("follower."))
    unmoved = [n for n, g in gradients.items() if not n.startswith("follower.") and (g is None or not g.any())]
    assert unmoved == []


def test_evaluation_leaves_the_copy_and_every_weight_as_they_were():
    task, model = built()
    model.eval()
    before = copy.deepcopy(model.state_dict())
    task.errors(model, batch())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# ---- what comes after


def test_a_classifier_begins_with_the_encoder_that_was_pretrained():
    _, pretrained = built(seed=1)
    model = Classify(3).build("timemae", SMALL, n_channels=C, context_length=T).eval()
    head = copy.deepcopy(model.head)
    assert start_from(model, pretrained) == ()
    pretrained.eval()
    assert torch.equal(model.encode(batch().context).tokens, pretrained.encoder.encode(batch().context).tokens)
    assert torch.equal(model.head.linear.weight, head.linear.weight)


def test_other_channels_and_lengths_take_over_what_does_not_depend_on_them():
    _, pretrained = built()
    model = TimeMAE(TimeMAEConfig(**SMALL), n_channels=5, context_length=60)
    assert start_from(model, pretrained) == ("position", "slice.weight")
    assert torch.equal(model.blocks[1].rise.weight, pretrained.encoder.blocks[1].rise.weight)


def test_an_encoder_of_another_form_is_refused():
    _, pretrained = built()
    deeper = TimeMAE(TimeMAEConfig(**SMALL | {"n_layers": 3}), n_channels=C, context_length=T)
    with pytest.raises(SettingsError, match=r"of another form: 'blocks\.2\..*\(\d+ in all\)"):
        start_from(deeper, pretrained)


def test_a_model_without_slices_is_refused():
    with pytest.raises(SettingsError, match=r"'convtimenet' does not\. Choose 'timemae', or the task Reconstruct"):
        DecoupledMasking().build("convtimenet", {}, n_channels=C, context_length=T)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"share": 1.0}, "the part of the slices to hide.* but got 1.0"),
        ({"momentum": 1.5}, "momentum is a share"),
        ({"n_codes": 0}, "at least 1"),
        ({"regression": -1}, "not negative"),
    ],
)
def test_settings_that_cannot_work_say_so(changes, words):
    with pytest.raises(SettingsError, match=words):
        DecoupledMasking(**changes)


@settings(deadline=None, max_examples=15)
@given(st.floats(0.05, 1), st.sampled_from([float("nan"), float("inf"), 12345.0]), st.integers(0, 999))
def test_values_behind_the_mask_do_not_matter(share, hidden, seed):
    task, model = built()
    model.eval()
    observed = torch.rand(3, C, T, generator=torch.Generator().manual_seed(seed)) < share
    x = batch(3, seed, observed)
    asked = task._hide(task._seen(model, x), torch.rand(3, 10))
    a = model(x.context, observed, asked)
    b = model(torch.where(observed, x.context, hidden), observed, asked)
    assert torch.equal(a.representation, b.representation) and torch.equal(a.truth, b.truth)
    assert torch.equal(a.code, b.code) and a.representation.isfinite().all()


def test_the_one_training_loop_pretrains():
    motions = labeled_motions(40, n_channels=C, n_timepoints=T)
    cases = Cases(motions.train, scaler=scaler_of_cases(motions.train))
    how = {"batch_size": 16, "learning_rate": 3e-3, "patience": 20, "schedule": "constant"}
    task, model = built()
    result = fit(model, task, cases, cases, config=FitConfig(max_epochs=6, **how), progress=False)
    assert result.history[-1]["val_loss"] < result.history[0]["val_loss"]
    assert not torch.equal(model.follower[0].rise.weight, model.encoder.blocks[0].rise.weight)


@pytest.mark.slow
def test_japanese_vowels_with_four_labels_a_speaker_are_told_apart_better_after_pretraining(data_root):
    """36 labels, 180 cases without them, judged on 90 other training cases; the test cases are not read."""
    data = prismts.load_dataset("JapaneseVowels").train
    codes = np.unique(np.asarray(data.labels), return_inverse=True)[1]
    scaler, length = scaler_of_cases(data), int(data.lengths.max())
    free, judged = next(StratifiedShuffleSplit(1, test_size=90, random_state=0).split(codes, codes))
    few, _ = next(StratifiedShuffleSplit(1, train_size=36, random_state=0).split(free, codes[free]))

    def train(model, task, index, epochs, batch_size):
        cases = Cases(data, codes, scaler=scaler, index=np.tile(index, 4))
        how = FitConfig(max_epochs=epochs, batch_size=batch_size, learning_rate=1e-3, schedule="constant")
        fit(model, task, cases, config=how, progress=False)

    torch.manual_seed(0)
    hiding, telling = DecoupledMasking(), Classify(9, pooling="mean")
    pretrained = hiding.build("timemae", {"n_layers": 3}, n_channels=12, context_length=length)
    train(pretrained, hiding, free, 20, 64)
    accuracy = []
    for begin in (True, False):
        torch.manual_seed(0)
        model = telling.build("timemae", {"n_layers": 3}, n_channels=12, context_length=length)
        if begin:
            assert start_from(model, pretrained) == ()
        train(model, telling, free[few], 8, 32)
        batch = Cases(data, codes, scaler=scaler, index=judged).batch(np.arange(90))
        with torch.inference_mode():
            scores = model.eval()(batch.context, batch.context_observed)
        accuracy.append(float((scores.argmax(1) == batch.label).float().mean()))
    assert accuracy[0] > accuracy[1] + 0.03 and accuracy[0] > 0.8
