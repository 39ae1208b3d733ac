"""Windows: counts one can do by hand, batches that equal slicing, and not a byte of the series copied."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prismts.data.scaling import StandardScaler
from prismts.data.series import Collection, Series
from prismts.data.splits import ett_borders
from prismts.errors import DataError, SettingsError, ShapeError
from prismts.windows import Windows

EVERYTHING = slice(None)


def counting(n: int, n_channels: int = 1) -> Collection:
    """Channel c counts 0, 1, 2, ... from 1000 * c, so that a value tells its place."""
    return Collection.of(
        Series(np.arange(n, dtype=np.float32) + 1000 * np.arange(n_channels, dtype=np.float32)[:, None])
    )


def random_series(lengths: list[int], n_channels: int = 2, missing: float = 0.0, seed: int = 0) -> Collection:
    rng = np.random.default_rng(seed)
    cases = []
    for n in lengths:
        values = rng.standard_normal((n_channels, n)) * 3 + 5
        values[rng.random(values.shape) < missing] = np.nan
        cases.append(Series(values.astype(np.float32)))
    return Collection.of(cases)


def places(
    lengths, context_length, horizon, *, begin=0, end=10**9, stride=1, min_context=None
) -> list[tuple[int, int]]:
    """Series and first future step of every window, found by walking."""
    found = []
    for series, n in enumerate(lengths):
        last = min(n, end)
        step = max(begin, context_length)
        if min_context is not None and step + horizon > last:
            step = max(begin, min(min_context, context_length))
        while step + horizon <= last:
            found.append((series, step))
            step += stride
    return found


def cut(data: Collection, series: int, future: int, context_length: int, horizon: int) -> np.ndarray:
    """One window [C, T+H] by slicing, NaN where there is nothing."""
    values = data[series].values
    window = np.full((len(values), context_length + horizon), np.nan)
    there = values[:, max(0, future - context_length) : future + horizon]
    window[:, window.shape[1] - there.shape[1] :] = there
    return window


# ---- counts


def test_ten_steps_hold_six_windows_of_three_and_two():
    windows = Windows(counting(10), 3, 2)
    assert len(windows) == 6
    first, last = windows.batch(np.array([0, 5]))[:2]
    assert first[0, 0].tolist() == [0, 1, 2]
    assert last[0, 0].tolist() == [3, 4]
    assert windows.batch(np.array([5])).target[0, 0].tolist() == [8, 9]


def test_the_ett_borders_give_the_counts_of_the_protocol():
    data, borders = counting(17_420, n_channels=2), ett_borders()
    counts = [
        len(Windows(data, 336, 96, begin=begin, end=end))
        for begin, end in (borders.train, borders.validation, borders.test)
    ]
    assert counts == [8209, 2785, 2785]


def test_the_first_test_window_reads_the_end_of_the_validation_part_and_the_last_ends_with_the_test_part():
    begin, end = ett_borders().test
    windows = Windows(counting(17_420), 336, 96, begin=begin, end=end)
    first, last = windows.batch(np.array([0])), windows.batch(np.array([len(windows) - 1]))
    assert first.context[0, 0, [0, -1]].tolist() == [begin - 336, begin - 1]
    assert first.target[0, 0, 0] == begin
    assert last.target[0, 0, -1] == end - 1


def test_a_stride_of_four_takes_every_fourth_window():
    every, fourth = Windows(counting(30), 5, 3), Windows(counting(30), 5, 3, stride=4)
    numbers = np.arange(0, len(every), 4)
    assert len(fourth) == len(numbers)
    torch.testing.assert_close(fourth.batch(np.arange(len(numbers))).context, every.batch(numbers).context)


def test_a_horizon_of_zero_gives_contexts_alone():
    windows = Windows(counting(5), 3, 0)
    assert len(windows) == 3
    batch = windows.batch(np.arange(3))
    assert batch.target.shape == (3, 1, 0)
    assert batch.context[-1, 0].tolist() == [2, 3, 4]


def test_series_without_room_give_no_windows():
    windows = Windows(random_series([20, 4, 9, 10]), 6, 3)
    assert windows.counts.tolist() == [12, 0, 1, 2]
    assert windows.locate(np.arange(15))[0].tolist() == [0] * 12 + [2, 3, 3]


@pytest.mark.parametrize("rules", [{}, {"min_context": 2}, {"begin": 7, "stride": 2}])
def test_shortened_windows_have_the_same_futures_behind_the_end_of_the_same_contexts(rules):
    data = random_series([20, 8, 30], missing=0.1)
    windows = Windows(data, 6, 3, **rules)
    short, index = windows.shortened(4), np.arange(len(windows))
    whole, cut_off = windows.batch(index), short.batch(index)
    assert torch.equal(cut_off.context, whole.context[..., 2:]) and torch.equal(cut_off.target, whole.target)
    for mine, seen in ((cut_off.context_observed, whole.context_observed[..., 2:]),
                       (cut_off.target_observed, whole.target_observed)):  # fmt: skip
        assert torch.equal(mine, seen)
    assert torch.equal(cut_off.start, whole.start + 2) and windows.context_length == 6
    with pytest.raises(SettingsError, match="at least one of them, not to 7"):
        windows.shortened(7)


def test_shortened_windows_that_no_longer_reach_behind_their_series_are_complete():
    windows = Windows(counting(5), 4, 2, min_context=2)
    assert not windows.complete and windows.shortened(2).complete


def test_another_scaler_changes_the_values_and_nothing_else():
    data = random_series([20, 30], missing=0.1)
    plain, scaler = Windows(data, 6, 3), StandardScaler.fit(data)
    index = np.arange(len(plain))
    for mine, expected in zip(
        plain.scaled(scaler).batch(index), Windows(data, 6, 3, scaler=scaler).batch(index), strict=True
    ):
        assert mine is expected is None or torch.equal(mine, expected)
    assert torch.equal(plain.batch(index).context, Windows(data, 6, 3).batch(index).context)  # and not the old ones
    with pytest.raises(ShapeError, match="Fit it on these"):
        plain.scaled(StandardScaler.identity(5))


def test_all_windows_come_once_and_in_order_with_the_last_partial_batch():
    windows = Windows(counting(20), 4, 2)
    batches = list(windows.in_order(6))
    assert [len(batch.context) for batch in batches] == [6, 6, 3]
    assert torch.cat([batch.target[:, 0, 0] for batch in batches]).tolist() == list(range(4, 19))


# ---- batches


@st.composite
def cases(draw):
    lengths = draw(st.lists(st.integers(1, 25), min_size=1, max_size=5))
    context_length, horizon = draw(st.integers(1, 10)), draw(st.integers(0, 5))
    rules = {"stride": draw(st.integers(1, 3)), "begin": draw(st.integers(0, 8))}
    if draw(st.booleans()):
        rules["min_context"] = draw(st.integers(1, 12))
    if draw(st.booleans()):
        rules["end"] = draw(st.integers(1, 25))
    return lengths, context_length, horizon, rules, draw(st.sampled_from([0.0, 0.3])), draw(st.integers(0, 9))


def test_a_horizon_longer_than_its_part_is_told_from_a_series_that_is_too_short():
    data = random_series([40], 1, 0.0, 0)
    with pytest.raises(DataError, match=r"horizon=12 steps.*this part has 10 of the 40 steps"):
        Windows(data, 8, 12, begin=30)
    with pytest.raises(DataError, match=r"context_length=32 and horizon=12 need 44 steps"):
        Windows(data, 32, 12)


@settings(deadline=None, max_examples=150)
@given(cases(), st.sampled_from([EVERYTHING, slice(0, 1), slice(1, 3)]), st.booleans())
def test_a_batch_equals_slicing_whatever_the_series_and_the_rules(case, channels, scaler_per_series):
    lengths, context_length, horizon, rules, missing, seed = case
    data = random_series(lengths, 3, missing, seed)
    rng = np.random.default_rng(seed)
    n_rows = len(data) if scaler_per_series else 1
    scaler = StandardScaler(rng.standard_normal((n_rows, 3)), rng.random((n_rows, 3)) + 0.5)
    expected = places(lengths, context_length, horizon, **rules)
    if not expected:
        with pytest.raises(DataError, match="No window fits"):
            Windows(data, context_length, horizon, scaler=scaler, **rules)
        return
    windows = Windows(data, context_length, horizon, scaler=scaler, **rules)
    assert len(windows) == len(expected)
    index = rng.integers(0, len(windows), size=7)
    batch = windows.batch(index, channels)
    for row, number in enumerate(index):
        series, future = expected[number]
        window = cut(data, series, future, context_length, horizon)
        window = scaler.transform(window, series if scaler_per_series else 0)[channels]
        seen = ~np.isnan(window)
        values = torch.cat([batch.context, batch.target], dim=-1)[row]
        np.testing.assert_allclose(values, np.where(seen, window, 0), atol=1e-5)
        parts = (batch.context_observed, seen[:, :context_length]), (batch.target_observed, seen[:, context_length:])
        for mask, truth in parts:
            assert truth.all() if mask is None else (mask[row].numpy() == truth).all()
        assert batch.series[row] == series


def test_a_mask_is_none_exactly_where_a_batch_is_complete():
    data = counting(20)
    data.values[0, 12] = np.nan
    windows = Windows(data, 4, 2)
    early, late = windows.batch(np.array([0, 1])), windows.batch(np.array([7, 8]))
    assert early.context_observed is None and early.target_observed is None
    assert late.context_observed is None
    assert late.target_observed[:, 0].tolist() == [[True, False], [False, True]]
    assert late.target[~late.target_observed].tolist() == [0, 0]


def test_a_short_series_gives_windows_with_an_unobserved_past():
    windows = Windows(counting(5), 4, 2, min_context=2)
    assert len(windows) == 2
    batch = windows.batch(np.arange(2))
    assert batch.context[:, 0].tolist() == [[0, 0, 0, 1], [0, 0, 1, 2]]
    assert batch.context_observed[:, 0].tolist() == [[False, False, True, True], [False, True, True, True]]
    assert batch.target[:, 0].tolist() == [[2, 3], [3, 4]]


def test_the_past_of_a_short_series_never_shows_its_neighbor():
    data = random_series([30, 5])
    # the last window of the first series, and the first of the second
    batch = Windows(data, 10, 2, min_context=1).batch(np.array([18, 19]))
    assert batch.series.tolist() == [0, 1]
    assert batch.context_observed[1].sum(-1).tolist() == [1, 1]
    assert (batch.context[1, :, :-1] == 0).all()


def test_values_near_a_billion_keep_their_tiny_movements():
    values = 1e9 + 0.01 * np.sin(np.arange(200.0))[None]
    data = Collection.of(Series(values))
    scaler = StandardScaler.fit(data)
    context = Windows(data, 24, 0, scaler=scaler).batch(np.arange(5)).context
    assert context.dtype == torch.float32
    expected = np.stack([scaler.transform(values[:, i : i + 24]) for i in range(5)])
    np.testing.assert_allclose(context, expected, atol=1e-5)


def test_half_precision_series_are_scaled_in_single_precision():
    values = np.linspace(1000, 1010, 50, dtype=np.float16)[None]
    data = Collection.of(Series(values))
    scaler = StandardScaler(np.array([[1005.3]]), np.array([[3.3]]))
    context = Windows(data, 50, 0, scaler=scaler).batch(np.array([0])).context
    np.testing.assert_allclose(context[0], scaler.transform(values.astype(float)), atol=1e-4)


# ---- memory


@pytest.mark.parametrize("layout", ["rows", "columns", "part of a table", "read-only"])
def test_the_series_is_shared_and_not_copied(layout):
    table = np.zeros((2, 100), dtype=np.float32) if layout != "columns" else np.zeros((100, 2), dtype=np.float32).T
    values = table[:, 20:60] if layout == "part of a table" else table.view()
    values.flags.writeable = layout != "read-only"
    windows = Windows(Collection.of(Series(values)), 8, 2)
    table[1, 25] = 7
    assert (windows.batch(np.arange(30)).context == 7).any()


def test_a_series_that_runs_backwards_in_memory_is_read_forwards():
    windows = Windows(Collection.of(Series(np.arange(6.0)[None, ::-1])), 3, 1)
    assert windows.batch(np.array([0])).context.flatten().tolist() == [5, 4, 3]


def test_a_batch_can_be_changed_without_changing_the_series():
    data = counting(10)
    Windows(data, 4, 2).batch(np.array([0])).context.fill_(-1)
    assert data.values[0, 0] == 0
    assert (data.values >= 0).all()


# ---- the end of each series


def test_at_the_end_there_is_one_window_per_series_with_its_last_steps():
    data = random_series([10, 3, 6])
    windows = Windows.at_the_end(data, 6)
    assert len(windows) == 3
    batch = windows.batch(np.arange(3))
    assert batch.series.tolist() == [0, 1, 2]
    assert batch.target.shape == (3, 2, 0)
    np.testing.assert_array_equal(batch.context[0], data[0].values[:, -6:])
    np.testing.assert_array_equal(batch.context[1, :, 3:], data[1].values)
    np.testing.assert_array_equal(batch.context[2], data[2].values)
    assert batch.context_observed[:, 0].sum(-1).tolist() == [6, 3, 6]


def test_a_series_too_short_for_a_forecast_is_named():
    with pytest.raises(DataError, match=r"Series 'series' has 3 steps, fewer than the 4"):
        Windows.at_the_end(random_series([10, 3]), 6, min_context=4)


# ---- errors


def test_no_room_for_a_window_is_explained_in_steps():
    with pytest.raises(DataError, match=r"context_length=8 and horizon=4 need 12 steps, but the longest series has 10"):
        Windows(counting(10), 8, 4)


@pytest.mark.parametrize(("context_length", "horizon", "stride"), [(0, 1, 1), (1, -1, 1), (1, 1, 0)])
def test_impossible_sizes_are_refused(context_length, horizon, stride):
    with pytest.raises(SettingsError, match="context_length >= 1, horizon >= 0 and stride >= 1"):
        Windows(counting(10), context_length, horizon, stride=stride)


@pytest.mark.parametrize("number", [-1, 6])
def test_a_window_that_does_not_exist_is_an_index_error(number):
    with pytest.raises(IndexError, match="numbered 0 to 5"):
        Windows(counting(10), 3, 2).batch(np.array([0, number]))


def test_a_scaler_of_other_series_is_refused():
    data = random_series([20, 20])
    with pytest.raises(ShapeError, match=r"\(1 or 2, 2\), but this one has \(3, 2\)"):
        Windows(data, 4, 2, scaler=StandardScaler.fit(random_series([20, 20, 20])))
