"""The cross learner: paths that are apart where they should be, padding that changes nothing, ablations as they say."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import prismts
from prismts.data.synthetic import simulated_plant
from prismts.errors import SettingsError, ShapeError
from prismts.estimators.forecaster import Forecaster
from prismts.layers.heads import FlattenHead, PoolHead
from prismts.models.cross_learner import HP2, HP2_CONTEXT_LENGTH, CrossLearner, CrossLearnerConfig

C, T, P, D = 3, 60, 8, 8
SMALL = CrossLearnerConfig(patch_length=P, width=D, n_blocks=3, dropout=0.0)
FORMS = {
    "both": SMALL,
    "gru_to_cnn": replace(SMALL, exchange="gru_to_cnn"),
    "cnn_to_gru": replace(SMALL, exchange="cnn_to_gru"),
    "none": replace(SMALL, exchange="none"),
    "late": replace(SMALL, fusion="late"),
    "no fusion": replace(SMALL, fusion="none", exchange="none"),
    "static": replace(SMALL, kernels="static"),
    "ema": replace(SMALL, kernels="ema"),
    "standard": replace(SMALL, kernels="standard"),
    "per token": replace(SMALL, kernel_per="token"),
    "lift": replace(SMALL, front="lift"),
}
every_form = pytest.mark.parametrize("form", FORMS)


def build(config: CrossLearnerConfig, *, context_length: int = T, seed: int = 0) -> CrossLearner:
    """A model none of whose parameters is where it began: messages are loud, biases are not zero."""
    torch.manual_seed(seed)
    model = CrossLearner(config, n_channels=C, context_length=context_length)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model.eval()


def windows(n: int = 4, length: int = T, seed: int = 0) -> torch.Tensor:
    return 5 + torch.randn(n, C, length, generator=torch.Generator().manual_seed(seed)).cumsum(-1)


def with_weights_of(config: CrossLearnerConfig, other: CrossLearner) -> CrossLearner:
    model = build(config)
    model.load_state_dict({name: value for name, value in other.state_dict().items() if name in model.state_dict()})
    return model


# ---- the paths


def test_without_exchange_the_paths_are_two_that_run_alone():
    model, x = build(FORMS["none"]), windows()
    tokens = model.front(torch.cat([model.normalize(x)[0]] + 4 * [model.normalize(x)[0][..., -1:]], -1))
    cnn = gru = tokens
    traced = model.trace(x)
    for block, after in zip(model.blocks, traced, strict=True):
        cnn = block.cnn(cnn)
        assert torch.equal(after.cnn, cnn)
    for block, after in zip(model.blocks, traced, strict=True):
        gru = block.gru(gru)
        assert torch.equal(after.gru, gru)
        assert after.kernels_to_cnn is after.kernels_to_gru is None


@pytest.mark.parametrize("kernels", ["dynamic", "static", "ema", "standard"])
def test_messages_of_no_weight_are_no_exchange(kernels):
    both, x = build(replace(SMALL, kernels=kernels)), windows()
    none = with_weights_of(FORMS["none"], both)
    assert not torch.allclose(both.encode(x).tokens, none.encode(x).tokens)
    with torch.no_grad():
        for block in both.blocks:
            block.to_cnn.alpha.zero_()
            block.to_gru.alpha.zero_()
    assert torch.equal(both.encode(x).tokens, none.encode(x).tokens)


@pytest.mark.parametrize("token", [0, 3, 7])
def test_without_exchange_the_gru_path_never_sees_what_comes_after(token):
    model = build(FORMS["none"])
    tokens = torch.randn(2, D, 8)
    changed = tokens.clone()
    changed[..., token] += torch.randn(2, D)  # not a constant, which the norm would take away
    before, after = tokens, changed
    for block in model.blocks:
        before, after = block.gru(before), block.gru(after)
        assert torch.equal(before[..., :token], after[..., :token])
        assert ((before - after).abs().amax((0, 1)) > 0)[token:].all()


def test_a_changed_patch_changes_no_gru_state_before_it():
    model, x = build(FORMS["none"]), windows(length=T)
    x = model.normalize(x)[0]
    changed = x.clone()
    changed[..., 3 * P] += 1
    for before, after in zip(model._through(x, None), model._through(changed, None), strict=True):
        assert torch.equal(before.gru[..., :3], after.gru[..., :3])
        assert not torch.equal(before.cnn[..., :3], after.cnn[..., :3])  # the CNN path looks both ways


@pytest.mark.parametrize(
    ("exchange", "silent", "hears"), [("gru_to_cnn", "gru", "cnn"), ("cnn_to_gru", "cnn", "gru"), ("none", "gru", None)]
)
def test_a_path_that_hears_nothing_owes_nothing_to_the_other(exchange, silent, hears):
    model, x = build(replace(SMALL, exchange=exchange)), windows()
    getattr(model.trace(x)[-1], silent).square().sum().backward()
    other = "cnn" if silent == "gru" else "gru"
    touched = {name.split(".")[2] for name, p in model.named_parameters() if p.grad is not None and "blocks" in name}
    assert touched == {silent}
    if hears:
        model.zero_grad()
        getattr(model.trace(x)[-1], hears).square().sum().backward()
        assert any(p.grad is not None and p.grad.any() for n, p in model.named_parameters() if f".{silent}." in n)
        assert other == hears


def test_the_receptive_field_of_the_cnn_path_grows_by_two_tokens_a_block():
    model = build(FORMS["none"], context_length=9 * P)
    tokens = torch.randn(1, D, 9, requires_grad=True)
    x = tokens
    for i, block in enumerate(model.blocks, start=1):
        x = block.cnn(x)
        (reach,) = torch.autograd.grad(x[..., 4].sum(), tokens, retain_graph=True)
        assert reach.abs().amax((0, 1)).nonzero().flatten().tolist() == list(range(4 - i, 5 + i))


# ---- ablations


def test_late_fusion_is_no_exchange_until_the_last_block():
    late, x = build(FORMS["late"]), windows()
    none = with_weights_of(FORMS["none"], late)
    *early, last = zip(late.trace(x), none.trace(x), strict=True)
    for ours, theirs in early:
        assert torch.equal(ours.cnn, theirs.cnn)
        assert torch.equal(ours.gru, theirs.gru)
        assert ours.kernels_to_cnn is None
    assert not torch.allclose(last[0].cnn, last[1].cnn)
    assert not torch.allclose(last[0].gru, last[1].gru)
    assert last[0].kernels_to_cnn is not None


def test_without_fusion_the_forecast_is_the_mean_of_the_forecasts_of_the_two_paths():
    model, x = build(FORMS["no fusion"]), windows()
    head = FlattenHead(D, model.n_tokens, 6, n_series=C)
    seen, last = model.encode(x), model.trace(x)[-1]
    alone = [head(seen._replace(tokens=path.transpose(1, 2)[:, None])) for path in (last.cnn, last.gru)]
    torch.testing.assert_close(head(seen), (alone[0] + alone[1]) / 2)


def test_the_tokens_are_the_gru_path_and_what_its_queries_find():
    model, x = build(SMALL), windows()
    last = model.trace(x)[-1]
    expected = last.gru + model.attention(last.gru, last.cnn)
    assert torch.equal(model.encode(x).tokens[:, 0], expected.transpose(1, 2))


def test_messages_are_made_from_the_states_before_either_is_heard():
    model, x = build(SMALL), windows()
    block, traced = model.blocks[1], model.trace(x)
    cnn, gru = block.cnn(traced[0].cnn), block.gru(traced[0].gru)
    to_gru, _ = block.to_gru.message(cnn, gru[..., -1])
    to_cnn, _ = block.to_cnn.message(gru, cnn.mean(-1))
    torch.testing.assert_close(traced[1].gru, gru + block.to_gru.alpha * to_gru)
    torch.testing.assert_close(traced[1].cnn, cnn + block.to_cnn.alpha * to_cnn)


@every_form
def test_kernels_are_traced_where_they_are_generated(form):
    config, x = FORMS[form], windows()
    model = build(config)
    n_tokens = T if form == "lift" else 8
    shape = (4, D, n_tokens, 3) if form == "per token" else (4, D, 3)
    traced = model.trace(x)
    assert len(traced) == 3
    for i, block in enumerate(traced):
        assert block.cnn.shape == block.gru.shape == (4, D, n_tokens)
        now = config.kernels == "dynamic" and (config.fusion == "layerwise" or (config.fusion == "late" and i == 2))
        for kernels, way in ((block.kernels_to_cnn, "gru_to_cnn"), (block.kernels_to_gru, "cnn_to_gru")):
            assert (kernels is not None) == (now and config.exchange in ("both", way))
            assert kernels is None or kernels.shape == shape


def test_every_window_speaks_by_kernels_of_its_own():
    kernels = build(SMALL).trace(windows())[0].kernels_to_cnn
    assert all(not torch.allclose(kernels[0], kernels[i]) for i in (1, 2, 3))


def test_kernels_that_are_not_generated_are_not_allocated():
    names = {name for name, _ in build(FORMS["ema"]).named_parameters()}
    assert not [name for name in names if "generate" in name or "kernel" in name]
    assert not [name for name, _ in build(FORMS["none"]).named_parameters() if "to_cnn" in name or "to_gru" in name]
    assert not [name for name, _ in build(FORMS["no fusion"]).named_parameters() if "attention" in name]


# ---- tokens, gaps and lengths


def test_no_step_is_lost_where_the_length_is_no_whole_number_of_patches():
    model, x = build(SMALL), windows()
    assert model.n_tokens == 8  # 60 steps in patches of 8: seven whole ones, and one of four steps
    assert model.encode(x).tokens.shape == (4, 1, 8, D)
    for step in (0, 31, 56, 59):
        moved = x.clone()
        moved[..., step] += 3
        assert not torch.allclose(model.encode(moved).tokens, model.encode(x).tokens)


def test_a_filled_up_patch_repeats_the_last_value():
    model, x = build(SMALL), windows()
    normalized = model.normalize(x)[0]
    whole = torch.cat([normalized, normalized[..., -1:].expand(-1, -1, 4)], -1)
    assert torch.equal(model._through(normalized, None)[-1].gru, model._through(whole, None)[-1].gru)


LAW = {
    **FORMS,
    "even patches": replace(SMALL, patch_length=12, n_heads=2),
    "wide kernels": replace(SMALL, kernel_size=5),
}


@settings(deadline=None, max_examples=50)
@given(
    st.sampled_from(sorted(LAW)),
    st.integers(1, T - 1),
    st.integers(1, 40),
    st.sampled_from(["max", "mean"]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 999),
)
def test_unobserved_steps_at_the_end_change_nothing(form, length, n_padding, pooling, holes, training, seed):
    """Whatever the amount of padding, whatever it holds, beside longer cases, and in training too.

    In double precision: other sizes of batch sum in another order, which single precision shows in the fifth digit.
    """
    model = build(LAW[form]).train(training)
    model.head = PoolHead(D, 4, pooling=pooling)
    model = model.double()
    case = windows(1, length, seed).double()
    observed = None
    if holes:
        observed = torch.rand(case.shape, generator=torch.Generator().manual_seed(seed)) < 0.5
        observed[..., -1] = True
    alone, answer = model.encode(case, observed), model(case, observed)
    total = length + n_padding
    batch, seen = windows(3, total, seed + 1).double(), torch.ones(3, C, total, dtype=torch.bool)
    batch[1, :, :length], batch[1, :, length:] = case[0], 1e6
    seen[1, :, :length], seen[1, :, length:] = True if observed is None else observed[0], False
    padded = model.encode(batch, seen)
    n = alone.tokens.shape[2]
    torch.testing.assert_close(padded.tokens[1:2, :, :n], alone.tokens, rtol=1e-5, atol=1e-5)
    assert torch.equal(padded.valid[1:2, :, :n], alone.valid)
    assert not padded.valid[1, :, n:].any()
    assert not padded.tokens[1, :, n:].any()
    torch.testing.assert_close(model(batch, seen)[1:2], answer, rtol=1e-5, atol=1e-5)


def test_padding_changes_no_answer_by_a_millionth_in_double_precision():
    for form, config in LAW.items():
        model = build(config).double()
        model.head = PoolHead(D, 4).double()
        case = windows(2, 29).double()
        for n_padding in (1, 3, 8, 31):
            batch = torch.cat([case, torch.full((2, C, n_padding), torch.nan, dtype=torch.float64)], -1)
            torch.testing.assert_close(model(batch, ~batch.isnan()), model(case), rtol=0, atol=1e-6, msg=form)


def test_a_hole_in_the_middle_is_bridged_and_its_token_is_not_valid():
    model, x = build(SMALL), windows()
    observed = torch.ones_like(x, dtype=torch.bool)
    observed[0, :, 2 * P : 3 * P] = False
    valid = model.encode(x, observed).valid
    assert valid[0, 0].tolist() == [True, True, False, True, True, True, True, True]
    assert valid[1:].all()
    straight = x.clone()
    for step in range(P):
        before, after = x[0, :, 2 * P - 1], x[0, :, 3 * P]
        straight[0, :, 2 * P + step] = before + (step + 1) / (P + 1) * (after - before)
    window, bridged = model.encode(x, observed).window[0], straight[0]
    torch.testing.assert_close(
        window,
        (bridged - x[0][observed[0]].view(C, -1).mean(-1, keepdim=True))
        / (x[0][observed[0]].view(C, -1).var(-1, correction=0, keepdim=True) + 1e-5).sqrt(),
        rtol=1e-4,
        atol=1e-4,
    )


def test_a_hole_in_the_middle_is_read_on_as_it_was_bridged():
    model, x = build(SMALL), windows()
    observed = torch.ones_like(x, dtype=torch.bool)
    observed[:, :, 2 * P : 3 * P] = False
    bridged = model.encode(x, observed).window
    for ours, plain in zip(model.trace(x, observed), model._through(bridged, None), strict=True):
        torch.testing.assert_close(ours, plain)


def test_one_observed_channel_keeps_a_token_valid():
    model, x = build(SMALL), windows()
    observed = torch.zeros_like(x, dtype=torch.bool)
    observed[:, 1, :20] = True
    assert model.encode(x, observed).valid[0, 0].tolist() == [True, True, True] + 5 * [False]


@pytest.mark.parametrize("length", [1, 5, P, 41])
def test_shorter_windows_are_embedded_and_pooled(length):
    model = build(SMALL)
    model.head = PoolHead(D, 4)
    assert model.encode(windows(2, length)).tokens.shape == (2, 1, -(-length // P), D)
    assert model(windows(2, length)).shape == (2, 4)


def test_a_forecasting_head_says_that_a_window_is_too_short():
    model = build(SMALL)
    model.head = FlattenHead(D, model.n_tokens, 6, n_series=C)
    with pytest.raises(ShapeError, match="built for 8 tokens, but a window of 41 steps gives 6"):
        model(windows(2, 41))


def test_a_trace_keeps_nothing_on_the_model():
    model, x = build(SMALL), windows()
    before = {name: sorted(vars(module)) for name, module in model.named_modules()}
    weights, first = copy.deepcopy(model.state_dict()), model.trace(x)
    model.trace(windows(seed=1))
    assert torch.equal(model.trace(x)[-1].cnn, first[-1].cnn)
    assert {name: sorted(vars(module)) for name, module in model.named_modules()} == before
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


# ---- settings


def test_the_setting_of_the_slides():
    assert (HP2.width, HP2.n_blocks, HP2.kernel_size, HP2.patch_length) == (256, 7, 3, 36)
    assert HP2.n_tokens(HP2_CONTEXT_LENGTH) == 20
    assert replace(HP2, front="lift").n_tokens(HP2_CONTEXT_LENGTH) == 720


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"exchange": "gru_to_cn"}, "no exchange named 'gru_to_cn'. Did you mean 'gru_to_cnn'"),
        ({"fusion": "lately"}, "no fusion named 'lately'. Did you mean 'late'"),
        ({"kernels": "statik"}, "Did you mean 'static'"),
        ({"kernel_per": "step"}, "Known: token, window"),
        ({"front": "mix"}, "Did you mean 'mixing'"),
        ({"n_blocks": 0}, "n_blocks is at least 1, but got 0"),
        ({"kernel_size": 4}, "odd.*but got 4. Use 3 or 5"),
        ({"width": 10}, "n_heads=4 heads share the width out evenly, but 10 is no multiple"),
        ({"fusion": "none"}, "keeps the paths apart, but exchange='both'. Set exchange='none' too"),
        ({"fusion": "late", "exchange": "none"}, "exchanges once, after the last block.*Name a direction"),
        ({"kernel_per": "token", "kernels": "ema"}, "but kernels='ema' are not. Use kernels='dynamic'"),
        ({"dropout": 1.0}, "share from 0 to below 1, but got 1.0"),
    ],
)
def test_settings_that_cannot_work_say_so(changes, words):
    with pytest.raises(SettingsError, match=words):
        CrossLearnerConfig(**changes)


def test_a_context_shorter_than_a_patch_is_refused():
    with pytest.raises(SettingsError, match=r"20 steps is shorter than a patch of 24\. Shorten patch_length"):
        CrossLearner(CrossLearnerConfig(), n_channels=2, context_length=20)
    assert CrossLearner(CrossLearnerConfig(front="lift"), n_channels=2, context_length=20).n_tokens == 20


# ---- learning


def test_it_learns_a_channel_from_the_past_of_another():
    """White noise forecasts nothing of itself: whoever finds the next steps of one channel has read the other."""
    model = build(replace(SMALL, width=16, n_blocks=2), context_length=32)
    model.head = FlattenHead(16, model.n_tokens, 4, n_series=C)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(1)

    def missed(n: int) -> torch.Tensor:
        x = torch.randn(n, C, 32, generator=generator)
        return (model(x)[:, 0] - x[:, 1, -4:]).square().mean()

    model.train()
    for _ in range(100):
        optimizer.zero_grad()
        missed(64).backward()
        optimizer.step()
    with torch.no_grad():
        assert missed(500) < 0.3  # of a variance of 1


# ---- in a forecaster


@pytest.mark.usefixtures("networks_speak")
def test_a_forecaster_learns_with_it_and_is_loaded_as_it_was_saved(tmp_path):
    data = simulated_plant(700, seed=1).values
    forecaster = Forecaster(
        "cross_learner",
        context_length=48,
        horizon=12,
        model_settings={"patch_length": 8, "width": 8, "n_blocks": 2},
        fit_settings={"max_epochs": 2, "batch_size": 64, "channels_at_once": 2},  # it reads all seven nonetheless
        n_members=1,
        progress=False,
    ).fit(data)
    assert len(forecaster.fit_result_.history) == 2
    forecaster.save(tmp_path / "model")
    again = prismts.load(tmp_path / "model")
    assert isinstance(again.model_, CrossLearner)
    forecast = forecaster.predict()
    assert forecast.shape == (7, 12)
    assert np.isfinite(forecast).all()
    assert np.array_equal(again.predict(), forecast)
