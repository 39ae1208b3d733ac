"""The forecasting rivals against their papers: sizes by hand, parts against a second answer, clocks, and all tasks."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import prismts
from prismts.data.series import Collection, Series
from prismts.errors import SettingsError, ShapeError
from prismts.estimators.classifier import Classifier
from prismts.estimators.forecaster import Forecaster
from prismts.estimators.imputer import Imputer
from prismts.layers.heads import FlattenHead
from prismts.models import itransformer, patchtst
from prismts.models.cyclenet import CycleNet, CycleNetConfig, RecurrentCycle
from prismts.models.dlinear import DLinear, DLinearConfig, decompose
from prismts.models.itransformer import ITransformer, ITransformerConfig
from prismts.models.patchtst import Attention, PatchTST, PatchTSTConfig, TokenNorm
from prismts.models.timesnet import Inception, TimesBlock, TimesNetConfig, TimesNetForecaster, strongest_periods
from prismts.tasks.classify import Classify
from prismts.tasks.forecast import Forecast, answer
from prismts.tasks.reconstruct import Reconstruct
from prismts.windows import Windows

T, H, C = 40, 6, 3


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def n_parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def with_head(model, horizon: int):
    model.head = FlattenHead(model.width, model.n_tokens, horizon)
    return model


def stirred(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """None of its parameters is where it began."""
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            parameter.add_(0.2 * random(*parameter.shape, seed=seed + i))
    return model.eval()


# ---- DLinear


@pytest.mark.parametrize(
    ("length", "horizon", "published"), [(96, 720, 139_700), (336, 96, None), (720, 720, 1_040_000)]
)
def test_dlinear_has_two_lines_of_the_papers_size(length, horizon, published):
    one = DLinear(DLinearConfig(), n_channels=7, context_length=length, horizon=horizon)
    own = DLinear(DLinearConfig(individual=True), n_channels=7, context_length=length, horizon=horizon)
    assert n_parameters(one) == 2 * (length * horizon + horizon)
    assert n_parameters(own) == 7 * n_parameters(one)
    if published:
        assert n_parameters(one) == pytest.approx(published, rel=0.002)  # as rounded in print


def test_the_trend_is_the_average_of_the_steps_around_with_the_edges_repeated():
    x = torch.tensor([[[3.0, 0, 3, 6, 9]]])
    rest, trend = decompose(x, 3)
    assert trend.flatten().tolist() == [2, 2, 3, 6, 8]  # (3+3+0)/3, ..., (6+9+9)/3
    assert (rest + trend).tolist() == x.tolist()


def test_dlinear_is_two_products_that_anyone_can_repeat():
    model = DLinear(DLinearConfig(kernel_size=5, individual=True), n_channels=C, context_length=T, horizon=H)
    x = random(2, C, T).numpy()
    padded = np.pad(x, ((0, 0), (0, 0), (2, 2)), mode="edge")
    trend = np.stack([padded[..., i : i + 5].mean(-1) for i in range(T)], axis=-1)
    parts = [(x - trend, model.remainder), (trend, model.trend)]
    expected = sum(
        np.stack([part[:, c] @ m.weight.detach().numpy()[c].T + m.bias.detach().numpy()[c] for c in range(C)], axis=1)
        for part, m in parts
    )
    np.testing.assert_allclose(model(torch.from_numpy(x)).detach(), expected, rtol=1e-4, atol=1e-5)


def test_lines_of_their_own_read_no_other_channel():
    model = DLinear(DLinearConfig(individual=True), n_channels=C, context_length=T, horizon=H)
    x = random(2, C, T)
    changed = x.clone()
    changed[:, 1] += 5
    moved = (model(changed) - model(x)).abs().amax((0, 2)) > 1e-6
    assert moved.tolist() == [False, True, False]


def test_an_even_average_is_refused_with_its_neighbors():
    with pytest.raises(SettingsError, match=r"kernel_size is odd.*got 24\. Use 23 or 25"):
        DLinearConfig(kernel_size=24)


# ---- CycleNet


@pytest.mark.parametrize(
    ("n_channels", "cycle", "length", "horizon", "backbone", "n"),
    [
        (321, 168, 96, 720, "linear", 123_768),  # the paper's 123.7K
        (321, 168, 96, 720, "mlp", 472_952),  # the paper's 472.9K
        (321, 168, 96, 96, "linear", 63_240),  # what the authors' checkpoint of Electricity holds
        (7, 96, 96, 96, "linear", 9_984),  # and that of ETTm1
        (7, 24, 336, 96, "linear", 32_520),
        (7, 24, 336, 96, "mlp", 221_960),
    ],
)
def test_cyclenet_has_a_cycle_per_channel_and_a_shared_backbone(n_channels, cycle, length, horizon, backbone, n):
    config = CycleNetConfig(cycle=cycle, backbone=backbone)
    model = CycleNet(config, n_channels=n_channels, context_length=length, horizon=horizon)
    linear = length * horizon + horizon
    mlp = length * 512 + 512 + 512 * horizon + horizon
    assert n_parameters(model) == n_channels * cycle + (linear if backbone == "linear" else mlp) == n


@given(st.integers(-500, 500), st.integers(1, 9), st.integers(1, 30))
def test_a_cycle_is_read_around_from_any_step(start, length, n_steps):
    cycle = RecurrentCycle(2, length)
    torch.nn.init.normal_(cycle.values)
    read = cycle(torch.tensor([start, 0]), n_steps)
    assert read.shape == (2, 2, n_steps)
    for i in range(n_steps):
        assert torch.equal(read[0, :, i], cycle.values[:, (start + i) % length])
        assert torch.equal(read[1, :, i], cycle.values[:, i % length])


def cyclic(start: int, n_steps: int, period: int = 8) -> torch.Tensor:
    """Two channels that repeat themselves exactly: [1, 2, n_steps]."""
    shape = random(2, period, seed=3)
    return shape[:, (start + torch.arange(n_steps)) % period][None]


def that_knows(cycle: torch.Tensor) -> CycleNet:
    """A network that has learned this cycle [C, W] in the window's own scale, and that nothing is left to forecast."""
    period = cycle.shape[1]
    model = CycleNet(CycleNetConfig(cycle=period), n_channels=2, context_length=4 * period, horizon=11)
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.zero_()
        model.cycle.values.copy_(model.normalize(cycle[None])[0][0])
    return model


@given(st.integers(-300, 300))
@settings(deadline=None, max_examples=30)
def test_a_series_that_is_all_cycle_is_continued_exactly_from_any_place(start):
    model = that_knows(cyclic(0, 8)[0])
    y = model(10 + 4 * cyclic(start, 32), start=torch.tensor([start]))
    torch.testing.assert_close(y, 10 + 4 * cyclic(start + 32, 11), rtol=1e-3, atol=1e-3)


def test_the_place_in_the_cycle_is_found_where_nobody_knows_it():
    model = that_knows(cyclic(0, 8)[0])
    x = torch.cat([5 - 2 + 3 * cyclic(s, 32) for s in range(8)]) + 0.3 * random(8, 2, 32)
    assert model.cycle.place(model.normalize(x)[0], None).tolist() == list(range(8))
    torch.testing.assert_close(model(x), model(x, start=torch.arange(8)), rtol=0, atol=0)


@given(st.integers(0, 99), st.integers(1, 7), st.floats(0.1, 1))
@settings(deadline=None, max_examples=40)
def test_the_place_that_is_found_has_the_least_squares_of_all(seed, period, share):
    cycle = RecurrentCycle(C, period)
    with torch.no_grad():
        cycle.values.copy_(random(C, period, seed=seed))
    x = random(1, C, 20, seed=seed + 1)
    observed = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < share
    errors = [float(((x - cycle(torch.tensor([s]), 20))[observed] ** 2).sum().detach()) for s in range(period)]
    found = int(cycle.place(x.masked_fill(~observed, 0.0), observed)[0])
    assert errors[found] == pytest.approx(min(errors), abs=1e-3)


def test_one_cycle_later_is_the_same_place_and_one_step_later_another():
    model = stirred(CycleNet(CycleNetConfig(cycle=7), n_channels=C, context_length=T, horizon=H))
    x, start = random(4, C, T), torch.tensor([0, 3, -5, 100])
    torch.testing.assert_close(model(x, start=start + 7), model(x, start=start), rtol=0, atol=0)
    assert not torch.allclose(model(x, start=start + 1), model(x, start=start), atol=1e-2)


def test_a_gap_is_filled_by_the_cycle_and_not_by_a_straight_line():
    model = that_knows(cyclic(0, 8)[0])
    torch.nn.init.ones_(model.backbone.weight)  # forecasts show what is left of the window
    x, observed = cyclic(3, 32), torch.ones(1, 2, 32, dtype=torch.bool)
    observed[..., 8:24] = False  # two whole cycles, so that level and scale stay
    y = model(x.masked_fill(~observed, torch.nan), observed, torch.tensor([3]))
    torch.testing.assert_close(y, cyclic(35, 11), rtol=1e-3, atol=1e-3)


def test_training_learns_the_cycle_that_is_in_the_data():
    data = cyclic(0, 600)[0] * torch.tensor([[1.0], [-2.0]]) + 0.3 * random(2, 600, seed=1)
    windows = Windows(Collection.of(Series(data.numpy(), channels=("a", "b"))), 32, 11)
    task = Forecast(11)
    torch.manual_seed(0)
    model = task.build("cyclenet", {"cycle": 8}, n_channels=2, context_length=32)
    for parameter in model.backbone.parameters():  # a line over four cycles could tell the same
        torch.nn.init.zeros_(parameter)
    optimizer = torch.optim.Adam(model.cycle.parameters(), lr=0.02)
    for step in range(100):
        optimizer.zero_grad()
        task.loss(model, windows.batch(np.random.default_rng(step).integers(0, len(windows), 64))).backward()
        optimizer.step()
    learned, true = model.cycle.values.detach(), cyclic(0, 8)[0] * torch.tensor([[1.0], [-2.0]])
    for ours, theirs in zip(learned, true, strict=True):
        assert np.corrcoef(ours, theirs)[0, 1] > 0.99


def test_quantiles_and_losses_are_told_where_windows_begin():
    task = Forecast(H, quantiles=(0.1, 0.9))
    model = stirred(task.build("cyclenet", {"cycle": 7}, n_channels=C, context_length=T))
    x, start = random(2, C, T), torch.tensor([1, 2])
    assert torch.equal(answer(model, x, None, start), model(x, None, start))
    assert not torch.allclose(answer(model, x, None, start), answer(model, x, None, start + 3))
    last = Forecast(H).build("last_value", {}, n_channels=C, context_length=T)  # reads no such thing, and is not told
    assert torch.equal(answer(last, x, None, start), last(x))


# ---- where windows begin


def hourly(first: str, n: int, frequency: str = "h") -> Series:
    times = pd.date_range(first, periods=n, freq=frequency).to_numpy()
    return Series(np.zeros((1, n), dtype=np.float32), timestamps=times, channels=("a",), frequency=frequency)


def test_hourly_windows_know_the_hour_of_the_day_they_begin_at():
    windows = Windows(Collection.of(hourly("2016-07-01 05:00", 60)), 10, 2)
    start = windows.batch(np.array([0, 1, 30])).start
    assert (start % 24).tolist() == [5, 6, (5 + 30) % 24]
    assert int(start[0]) == (pd.Timestamp("2016-07-01 05:00") - pd.Timestamp(0)) // pd.Timedelta("1h")


def test_series_that_begin_at_different_times_share_one_clock():
    collection = Collection.of([hourly("2020-01-01 00:00", 30), hourly("2020-01-03 04:00", 30)])
    windows = Windows(collection, 10, 2)
    batch = windows.batch(np.arange(len(windows)))
    first = [int(batch.start[batch.series == i][0]) for i in range(2)]
    assert first[1] - first[0] == 2 * 24 + 4


@pytest.mark.parametrize(
    ("frequency", "first", "later", "n_steps"),
    [
        ("15min", "2020-01-01", "2020-01-02", 96),
        ("MS", "2019-01-01", "2020-03-01", 14),
        ("QS-JAN", "2019-01-01", "2020-04-01", 5),
        ("B", "2024-03-01", "2024-03-11", 6),  # a Friday, and the Monday of the week after next
        ("W-MON", "2024-01-01", "2024-02-05", 5),
        ("MS", "1968-11-01", "1970-02-01", 15),  # across the beginning of the clock
    ],
)
def test_steps_are_counted_on_the_calendar_of_the_frequency(frequency, first, later, n_steps):
    collections = [Collection.of(hourly(day, 12, frequency)) for day in (first, later)]
    begins = [int(Windows(data, 5, 1).batch(np.array([0])).start[0]) for data in collections]
    together = Windows(Collection.of([hourly(first, 12, frequency), hourly(later, 12, frequency)]), 5, 1)
    assert begins[1] - begins[0] == n_steps
    assert together.first_steps.tolist() == begins


def test_without_times_steps_are_counted_from_the_beginning_of_each_series():
    collection = Collection.from_array(np.zeros((2, 1, 20), dtype=np.float32))
    batch = Windows(collection, 5, 1, stride=4).batch(np.arange(8))
    assert batch.start.tolist() == [0, 4, 8, 12] * 2
    assert Windows.at_the_end(collection, 5, first_steps=np.array([100, 7])).batch(np.arange(2)).start.tolist() == [
        115,
        22,
    ]


def test_a_window_that_begins_before_its_series_counts_backwards():
    collection = Collection.from_array(np.zeros((1, 1, 6), dtype=np.float32))
    batch = Windows(collection, 10, 2, min_context=3).batch(np.array([0]))
    assert batch.start.tolist() == [3 - 10]  # three observed steps stand at the end of the context


# ---- PatchTST


@pytest.mark.parametrize(
    ("config", "length", "horizon", "n_tokens", "n"),
    [
        (PatchTSTConfig(), 336, 96, 42, 81_728),
        (PatchTSTConfig(), 512, 96, 64, 115_872),
        (patchtst.LARGE, 336, 96, 42, 921_184),
        (patchtst.LARGE, 512, 96, 64, 1_194_336),
        (patchtst.LARGE, 720, 720, 90, 8_706_256),  # reported as 8.71M
    ],
)
def test_patchtst_has_the_papers_patches_and_parameters(config, length, horizon, n_tokens, n):
    model = with_head(PatchTST(config, n_channels=7, context_length=length), horizon)
    d, f = config.width, config.feed_forward
    block = 4 * (d * d + d) + (d * f + f) + (f * d + d) + 2 * 2 * d
    expected = (16 * d + d) + n_tokens * d + 3 * block + (d * n_tokens * horizon + horizon)
    assert model.n_tokens == n_tokens
    assert n_parameters(model) == expected == n
    assert model.eval().encode(random(2, 7, length)).tokens.shape == (2, 7, n_tokens, d)


def test_attention_is_that_of_torch_and_what_was_asked_before_is_added():
    layer = Attention(8, 2).eval()
    x = random(3, 5, 8)
    q, k, v = (f(x).unflatten(-1, (2, 4)).transpose(1, 2) for f in (layer.query, layer.key, layer.value))
    before = random(3, 2, 5, 5, seed=1)
    for bias in (None, before):
        expected = F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2)
        y, scores = layer(x, bias, None)
        torch.testing.assert_close(y, layer.out(expected))
        torch.testing.assert_close(scores, q @ k.mT / 2 + (0 if bias is None else bias))


def test_a_token_that_saw_nothing_is_read_by_no_other():
    layer, x = Attention(8, 2), random(2, 5, 8)
    valid = torch.ones(2, 5, dtype=torch.bool)
    valid[:, 3] = False
    changed = x.clone()
    changed[:, 3] += 7
    one, two = layer(x, None, valid)[0], layer(changed, None, valid)[0]
    others = [0, 1, 2, 4]
    assert torch.equal(one[:, others], two[:, others])
    assert not torch.allclose(one[:, 3], two[:, 3])  # it reads others, so that it can be told


def test_normalization_counts_the_tokens_that_saw_something_alone():
    norm, x = TokenNorm(4), random(6, 5, 4)
    torch.testing.assert_close(norm(x), torch.nn.BatchNorm1d(4)(x.flatten(0, 1)).view_as(x))
    norm.reset_running_stats()
    valid = torch.rand(6, 5, generator=torch.Generator().manual_seed(0)) < 0.6
    filled = torch.where(valid[..., None], x, 1e6)
    y = norm(filled, valid)
    torch.testing.assert_close(y[valid].mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(y[valid].var(0, correction=0), torch.ones(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(norm.running_mean, 0.1 * x[valid].mean(0))


def test_without_positions_patches_in_another_order_are_tokens_in_that_order():
    model = stirred(PatchTST(PatchTSTConfig(patch_length=8, stride=8), n_channels=1, context_length=T))
    torch.nn.init.zeros_(model.position)
    x, order = random(2, 1, T), [3, 1, 0, 2, 4, 5]  # the fifth stays, as what follows repeats its last value
    moved = x.unflatten(-1, (5, 8))[:, :, order[:5]].flatten(2)
    torch.testing.assert_close(model.encode(moved).tokens, model.encode(x).tokens[:, :, order], rtol=1e-4, atol=1e-4)


def test_a_shorter_window_has_the_first_positions_and_a_longer_one_is_refused():
    model = stirred(PatchTST(PatchTSTConfig(patch_length=8, stride=4), n_channels=1, context_length=T))
    assert model.encode(random(2, 3, 21)).tokens.shape == (2, 3, (21 - 8) // 4 + 2, 16)
    with pytest.raises(ShapeError, match="learned 10 positions, for windows of 40 steps, but got windows of 48"):
        model.encode(random(1, 1, 48))


def test_a_context_without_room_for_a_patch_is_refused():
    with pytest.raises(SettingsError, match=r"7 steps has no room for a patch of 16\. Shorten patch_length"):
        PatchTST(PatchTSTConfig(), n_channels=1, context_length=7)


# ---- iTransformer


@pytest.mark.parametrize(
    ("config", "length", "horizon", "n"),
    [
        (ITransformerConfig(), 96, 96, 224_224),
        (ITransformerConfig(), 336, 96, 254_944),
        (itransformer.LARGE, 96, 720, 5_154_000),  # reported as 5.15M
    ],
)
def test_itransformer_has_the_papers_parameters_whatever_the_number_of_channels(config, length, horizon, n):
    d, f = config.width, config.feed_forward
    block = 4 * (d * d + d) + (d * f + f) + (f * d + d) + 2 * 2 * d
    expected = (length * d + d) + config.n_layers * block + 2 * d + (d * horizon + horizon)
    for n_channels in (1, 7):
        model = with_head(ITransformer(config, n_channels=n_channels, context_length=length), horizon)
        assert n_parameters(model) == expected == n


def small_itransformer(n_channels: int) -> ITransformer:
    config = ITransformerConfig(width=8, n_heads=2, feed_forward=12)
    return with_head(stirred(ITransformer(config, n_channels=n_channels, context_length=T)), H)


def test_channels_in_another_order_are_forecast_in_that_order():
    model, x, order = small_itransformer(C), random(4, C, T), [2, 0, 1]
    torch.testing.assert_close(model(x[:, order]), model(x)[:, order])


def test_a_channel_of_which_nothing_was_observed_is_as_good_as_not_there():
    wide, narrow = small_itransformer(3), small_itransformer(2)
    narrow.load_state_dict(wide.state_dict())
    x, observed = random(4, 3, T), torch.ones(4, 3, T, dtype=torch.bool)
    observed[:, 1] = False
    torch.testing.assert_close(wide(x, observed)[:, [0, 2]], narrow(x[:, [0, 2]]))
    assert not torch.allclose(wide(x)[:, [0, 2]], narrow(x[:, [0, 2]]), atol=1e-2)


def test_a_token_holds_a_whole_window_and_no_other_length():
    with pytest.raises(
        ShapeError, match=r"iTransformer reads \[batch, channel=3, time=40\], but got shape \[1, 3, 39\]"
    ):
        small_itransformer(C).encode(random(1, C, 39))


# ---- TimesNet


@pytest.mark.parametrize(("width", "hidden", "n"), [(32, 32, 1_191_815), (16, 32, 605_415)])
def test_timesnet_has_the_papers_parameters_less_those_of_the_calendar(width, hidden, n):
    config = TimesNetConfig(width=width, feed_forward=hidden)
    model = TimesNetForecaster(config, n_channels=7, context_length=96, horizon=96)
    taps = sum(side * side for side in (1, 3, 5, 7, 9, 11))
    block = 2 * taps * width * hidden + 6 * hidden + 6 * width
    expected = 3 * 7 * width + 2 * block + 2 * width + (96 * 192 + 192) + (width * 7 + 7)
    assert taps == 286
    assert n_parameters(model) == expected == n


def on_the_grid(x: torch.Tensor, period: int, layer: Inception) -> torch.Tensor:
    """The inception as the paper has it: rows of one period, six square convolutions, their mean. x [T, D]."""
    n_steps, width = x.shape
    n_rows = -(-n_steps // period)
    grid = F.pad(x, (0, 0, 0, n_rows * period - n_steps)).view(1, n_rows, period, width).permute(0, 3, 1, 2)
    each = [F.conv2d(grid, k, b, padding=k.shape[-1] // 2) for k, b in zip(layer.kernels, layer.biases, strict=True)]
    return torch.stack(each).mean(0)[0].flatten(1).T[:n_steps]


def test_convolving_steps_is_convolving_the_grid_whatever_the_period_of_each_window():
    layer = stirred(Inception(3, 5, 6)).double()
    periods = torch.tensor([1, 2, 5, 7, 12, 20, 47, 48])  # some divide 48, some do not
    x = random(len(periods), 48, 3).double()
    y = layer(x, periods)
    for i, period in enumerate(periods.tolist()):
        torch.testing.assert_close(y[i], on_the_grid(x[i], period, layer))


def test_a_block_is_that_of_the_paper_window_by_window():
    config = TimesNetConfig(width=4, feed_forward=3, n_periods=2, n_kernels=3)
    block = stirred(TimesBlock(config)).double()
    x = 0.2 * random(3, 24, 4).double()
    x += (
        torch.sin(2 * np.pi * torch.arange(24) / 6)[:, None]
        + 0.5 * torch.cos(2 * np.pi * torch.arange(24) / 12)[:, None]
    )
    for window, y in zip(x, block(x), strict=True):
        amplitude = np.abs(np.fft.rfft(window.numpy(), axis=0)).mean(1)
        amplitude[0] = 0
        strongest = np.argsort(-amplitude)[:2]
        assert sorted(24 // strongest) == [6, 12]  # both divide 24: nothing stands behind the last row
        weights = torch.softmax(torch.from_numpy(amplitude[strongest]), 0)
        expected = window.clone()
        for frequency, weight in zip(strongest, weights, strict=True):
            hidden = F.gelu(on_the_grid(window, 24 // frequency, block.rise))
            expected += weight * on_the_grid(hidden, 24 // frequency, block.fall)
        torch.testing.assert_close(y, expected)


def test_the_strongest_periods_are_those_that_were_put_in():
    step = torch.arange(48.0)
    x = 3 * torch.sin(2 * torch.pi * step / 8) + torch.cos(2 * torch.pi * step / 3) + 9
    periods, amplitudes = strongest_periods(x[None, :, None].repeat(2, 1, 4), 2)
    assert periods.tolist() == [[8, 3], [8, 3]]
    torch.testing.assert_close(amplitudes, torch.tensor([[3 * 24.0, 24.0]] * 2), rtol=1e-4, atol=1e-3)


def test_a_short_window_has_as_many_periods_as_frequencies():
    periods, _ = strongest_periods(random(2, 5, 3), 7)
    assert periods.shape == (2, 2)
    assert sorted(periods[0].tolist()) == [2, 5]


def test_gradients_reach_the_spectrum():
    x = random(1, 24, 3).requires_grad_()
    strongest_periods(x, 3)[1].sum().backward()
    assert x.grad.abs().sum() > 0


def classifier_of(name: str, options: dict) -> torch.nn.Module:
    torch.manual_seed(0)
    return stirred(Classify(4).build(name, options, n_channels=C, context_length=T))


TINY = {
    "patchtst": {"patch_length": 8, "stride": 4, "width": 8, "n_heads": 2, "feed_forward": 12, "n_layers": 2},
    "itransformer": {"width": 8, "n_heads": 2, "feed_forward": 12},
    "timesnet": {"width": 6, "feed_forward": 8, "n_periods": 2, "n_kernels": 3},
    "dlinear": {},
    "cyclenet": {"cycle": 6},
}
ENCODERS = ["patchtst", "itransformer", "timesnet"]


def test_the_encoder_of_timesnet_has_a_token_for_every_step_of_any_number():
    model = classifier_of("timesnet", TINY["timesnet"])
    for n_steps in (2, 25, T, 61):
        features = model.encode(random(2, C, n_steps))
        assert features.tokens.shape == (2, 1, n_steps, 6)
        assert features.valid.shape == (2, 1, n_steps)
        assert model(random(2, C, n_steps)).shape == (2, 4)


@pytest.mark.slow
def test_the_encoder_of_timesnet_is_merged_and_exported_for_any_batch_size():
    model = classifier_of("timesnet", TINY["timesnet"])
    merged, x = model.merged(), random(3, C, T)
    torch.testing.assert_close(merged(x), model(x))
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},)
    exported = torch.export.export(merged, (x,), dynamic_shapes=shapes).module()
    torch.testing.assert_close(exported(random(7, C, T, seed=1)), merged(random(7, C, T, seed=1)), rtol=1e-4, atol=1e-4)


# ---- tasks


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_tells_classes_and_hidden_points_and_what_is_hidden_does_not_matter(name):
    x = random(4, C, T)
    observed = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.7
    observed[0] = False
    classifier = classifier_of(name, TINY[name])
    filler = stirred(Reconstruct().build(name, TINY[name], n_channels=C, context_length=T))
    for model, shape in ((classifier, (4, 4)), (filler, (4, C, T))):
        y = model(torch.where(observed, x, torch.nan), observed)
        assert y.shape == shape
        assert y.isfinite().all()
        assert torch.equal(y, model(torch.where(observed, x, -1e9), observed))
        torch.testing.assert_close(model(x, torch.ones_like(observed)), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ENCODERS)
def test_before_training_hidden_points_lie_on_straight_lines(name):
    model = Reconstruct().build(name, TINY[name], n_channels=C, context_length=T).eval()
    x = torch.arange(float(T)) * torch.tensor([[1.0], [2.0], [-3.0]]) + random(1, C, 1)
    observed = torch.ones(1, C, T, dtype=torch.bool)
    observed[..., 5:9] = False
    torch.testing.assert_close(model(x, observed), x, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["dlinear", "cyclenet"])
@pytest.mark.parametrize("task", [Classify(3), Reconstruct()])
def test_a_direct_forecaster_says_that_it_has_no_tokens(name, task):
    with pytest.raises(SettingsError, match=f"'{name}' .*no tokens"):
        task.build(name, {}, n_channels=C, context_length=T)


def table(n: int = 300) -> pd.DataFrame:
    step, rng = np.arange(n), np.random.default_rng(0)
    columns = {name: np.sin(2 * np.pi * (step + 2 * i) / 6) + 0.1 * rng.normal(size=n) for i, name in enumerate("abc")}
    return pd.DataFrame({"time": pd.date_range("2020-01-01", periods=n, freq="4h"), **columns})


@pytest.mark.parametrize("name", TINY)
def test_a_forecaster_of_every_rival_learns_forecasts_and_is_saved(name, tmp_path):
    forecaster = Forecaster(
        name, context_length=T, horizon=H, model_settings=TINY[name], progress=False,
        fit_settings={"max_epochs": 2, "batch_size": 64, "learning_rate": 0.01},
    )  # fmt: skip
    forecaster.fit(table())
    forecast = forecaster.predict()
    assert forecast["time"].iloc[0] == pd.Timestamp("2020-01-01") + 300 * pd.Timedelta("4h")
    assert np.isfinite(forecast[["a", "b", "c"]]).all().all()
    forecaster.save(tmp_path / "model")
    again = prismts.load(tmp_path / "model").predict()
    pd.testing.assert_frame_equal(again, forecast)


@pytest.mark.long
@pytest.mark.parametrize("name", ENCODERS)
def test_a_classifier_and_an_imputer_of_every_encoder_learn(name):
    rng = np.random.default_rng(0)
    y = np.arange(24) % 2
    x = rng.normal(size=(24, 2, T)) + np.where(y[:, None, None], np.sin(np.arange(T)), 0) * 3
    quick = {"max_epochs": 1}
    classifier = Classifier(name, model_settings=TINY[name], fit_settings=quick, n_members=1, progress=False)
    assert classifier.fit(x, y).predict_proba(x).shape == (24, 2)
    gappy = table(200)
    gappy.loc[50:55, "a"] = np.nan
    imputer = Imputer(
        name, context_length=T, model_settings=TINY[name], fit_settings=quick, n_members=1, progress=False
    )
    assert imputer.fit(gappy).transform(gappy)[["a", "b", "c"]].notna().all().all()


def test_the_weights_of_a_rival_are_copied_with_it():
    for name in TINY:
        model = Forecast(H, line=None).build(name, TINY[name], n_channels=C, context_length=T).eval()
        copied = copy.deepcopy(model)
        torch.testing.assert_close(copied(random(2, C, T)), model(random(2, C, T)), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "rate"), [("dlinear", 1e-3), ("cyclenet", 5e-3), ("patchtst", 1e-4), ("timesnet", 1e-4)]
)
def test_a_rival_is_trained_as_by_its_authors_and_without_a_line_beside_it(name, rate):
    forecaster = Forecaster(
        name, context_length=T, horizon=H, model_settings=TINY[name], fit_settings={"max_epochs": 1}, progress=False
    ).fit(table(120))
    recipe = forecaster._recipe_
    assert (recipe.fit.learning_rate, recipe.line, recipe.loss) == (rate, None, "mse")
    assert forecaster.line_ == ""


def test_a_cycle_is_the_season_of_the_frequency_or_the_period_of_training_and_patches_fit_a_short_context():
    quick = {"fit_settings": {"max_epochs": 1}, "progress": False}
    of_season = Forecaster("cyclenet", context_length=T, horizon=H, **quick).fit(table())
    assert of_season.model_.config.cycle == 6  # steps of four hours in a day
    waves = np.sin(2 * np.pi * np.arange(400) / 9)[None] + 0.1 * np.random.default_rng(0).normal(size=(1, 400))
    assert Forecaster("cyclenet", context_length=T, horizon=H, **quick).fit(waves).model_.config.cycle == 9
    assert Forecaster("patchtst", context_length=24, horizon=H, **quick).fit(table()).model_.n_tokens == 12


@pytest.fixture(scope="module")
def cyclic_forecasters() -> dict[str, Forecaster]:
    how = {"context_length": T, "horizon": H, "fit_settings": {"max_epochs": 3}, "progress": False, "n_members": 2}
    data = table()
    return {"times": Forecaster("cyclenet", **how).fit(data),
            "array": Forecaster("cyclenet", **how).fit(data[["a", "b", "c"]].to_numpy().T)}  # fmt: skip


def test_new_data_with_times_are_on_the_clock_of_training(cyclic_forecasters):
    forecaster, data = cyclic_forecasters["times"], table()
    expected = forecaster.predict()
    for cut in (1, 2, 7, 100):  # whatever the first row, the last context stands where it stood
        pd.testing.assert_frame_equal(forecaster.predict(data.iloc[cut:]), expected)


def test_without_times_the_tails_are_numbered_on_and_new_data_find_their_place(cyclic_forecasters):
    forecaster, values = cyclic_forecasters["array"], table()[["a", "b", "c"]].to_numpy().T
    expected = forecaster.predict()
    assert forecaster._tail_starts.tolist() == [300 - T]
    for cut in (1, 2, 100):
        np.testing.assert_allclose(forecaster.predict(values[:, cut:]), expected, atol=0.02)
