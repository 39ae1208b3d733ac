"""Every metric has a second answer that shares no code with it, and laws that hold for any data."""

import sys
from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import mean_absolute_error, mean_pinball_loss, mean_squared_error

from prismts.errors import DataError, SettingsError, ShapeError
from prismts.evaluation.metrics import (
    METRICS,
    ErrorSums,
    bias,
    coverage,
    crossing_rate,
    crps_from_quantiles,
    dtw,
    interval_score,
    interval_width,
    mae,
    mase,
    mse,
    pinball,
    rmse,
    seasonal_scale,
    smape,
)

DECILES = np.arange(1, 10) / 10
POINT = {"mse": mse, "mae": mae, "rmse": rmse, "bias": bias, "smape": smape}


def some_pair(shape=(5, 3, 8), seed=0, missing=0.0):
    rng = np.random.default_rng(seed)
    target, forecast = rng.normal(2, 3, shape), rng.normal(2, 3, shape)
    target[rng.random(shape) < missing] = np.nan
    return target, forecast


def every_score(target, forecast):
    """Each metric of METRICS on one pair [B, C, H], its other arguments made so that they scale along."""
    quantiles = forecast + np.linspace(-1, 1, 9)[:, None, None, None] * np.abs(forecast).mean()
    lower, upper = quantiles[0], quantiles[-1]
    history = np.cumsum(forecast, axis=0)
    return {
        **{name: metric(target, forecast) for name, metric in POINT.items()},
        "mase": mase(target, forecast, history, season=2),
        "pinball": pinball(target, quantiles, DECILES),
        "crps": crps_from_quantiles(target, quantiles, DECILES),
        "crossing_rate": crossing_rate(quantiles, DECILES),
        "coverage": coverage(target, lower, upper),
        "interval_width": interval_width(lower, upper),
        "interval_score": interval_score(target, lower, upper, nominal=0.8),
        "dtw": dtw(target, forecast),
    }


# Numbers to check by hand


def test_errors_of_one_and_three_have_the_scores_one_reads_off():
    target, forecast = [10.0, 20.0], [11.0, 17.0]
    assert (mse(target, forecast), mae(target, forecast), bias(target, forecast)) == (5.0, 2.0, -1.0)
    assert rmse(target, forecast) == pytest.approx(5**0.5)


def test_smape_of_100_against_50_is_two_thirds_of_a_hundred_and_nothing_against_nothing_is_zero():
    assert smape([100.0], [50.0]) == pytest.approx(200 * 50 / 150)
    assert smape([0.0], [0.0]) == 0.0
    assert smape([0.0, -1.0], [3.0, 1.0]) == 200.0


def test_mase_divides_by_the_mean_step_from_season_to_season():
    # history 1 3 2 6 at season 2 moves by |2-1| and |6-3|, a scale of 2; errors are 1 and 3
    assert seasonal_scale([1.0, 3.0, 2.0, 6.0], 2) == 2.0
    assert mase([10.0, 20.0], [11.0, 17.0], [1.0, 3.0, 2.0, 6.0], season=2) == 1.0


def test_mase_counts_only_pairs_of_observed_steps():
    # pairs one step apart: (1, 4), (4, nan), (nan, 5), (5, 6): steps of 3 and 1
    assert seasonal_scale([1.0, 4.0, np.nan, 5.0, 6.0], 1) == 2.0


def test_one_training_part_serves_all_windows_with_a_scale_per_channel():
    history = np.array([[0.0, 1.0, 2.0], [0.0, 10.0, 20.0]])  # [C=2, T]: scales 1 and 10
    target, forecast = np.zeros((4, 2, 3)), np.full((4, 2, 3), 5.0)
    np.testing.assert_allclose(mase(target, forecast, history, 1, axis=(0, 2)), [5.0, 0.5])
    assert mase(target, forecast, history, 1) == pytest.approx(2.75)


def test_pinball_weighs_a_miss_from_below_by_the_level():
    assert pinball([10.0], [[8.0]], [0.9]) == pytest.approx(1.8)
    assert pinball([10.0], [[12.0]], [0.9]) == pytest.approx(0.2)


def test_coverage_counts_the_ends_and_leaves_out_what_was_not_observed():
    lower, upper = np.zeros(5), np.ones(5)
    assert coverage([0.0, 1.0, 0.5, 2.0, np.nan], lower, upper) == 0.75
    assert interval_width(lower, upper) == 1.0


def test_crossing_rate_is_the_share_of_steps_with_quantiles_out_of_order():
    forecasts = [[0.0, 0.0, 3.0, 1.0], [1.0, 1.0, 2.0, 1.0], [2.0, 0.5, 4.0, 1.0]]  # [Q=3, H=4]
    assert crossing_rate(forecasts, [0.1, 0.5, 0.9]) == 0.5
    assert crossing_rate(forecasts[::-1], [0.9, 0.5, 0.1]) == 0.5


# A second answer


def test_squared_absolute_and_quantile_losses_are_those_of_scikit_learn():
    target, forecast = some_pair()
    y, f = target.ravel(), forecast.ravel()
    assert mse(target, forecast) == pytest.approx(mean_squared_error(y, f), rel=1e-12)
    assert mae(target, forecast) == pytest.approx(mean_absolute_error(y, f), rel=1e-12)
    for level in (0.1, 0.5, 0.95):
        ours = pinball(target, forecast[None], [level])
        assert ours == pytest.approx(mean_pinball_loss(y, f, alpha=level), rel=1e-12)


@pytest.mark.long
def test_quantile_crps_and_interval_scores_are_those_of_scoringrules():
    import scoringrules

    rng = np.random.default_rng(1)
    target, quantiles = rng.normal(size=(4, 6)), np.sort(rng.normal(size=(9, 4, 6)), axis=0)
    theirs = scoringrules.crps_quantile(target, np.moveaxis(quantiles, 0, -1), DECILES, backend="numpy")
    np.testing.assert_allclose(crps_from_quantiles(target, quantiles, DECILES, axis=()), theirs, rtol=1e-12)
    theirs = scoringrules.quantile_score(target, quantiles[2], 0.3, backend="numpy")
    np.testing.assert_allclose(pinball(target, quantiles[2:3], [0.3], axis=()), theirs, rtol=1e-12)
    theirs = scoringrules.interval_score(target, quantiles[0], quantiles[-1], 0.2, backend="numpy")
    np.testing.assert_allclose(interval_score(target, quantiles[0], quantiles[-1], 0.8, axis=()), theirs, rtol=1e-12)


def test_scores_are_those_of_a_plain_loop_over_what_was_observed():
    target, forecast = some_pair(missing=0.3)
    history = np.random.default_rng(2).normal(size=(5, 3, 20))
    history[history > 1.5] = np.nan
    lower, upper = forecast - 1, forecast + 2
    expected = {name: [] for name in ("bias", "smape", "mase", "coverage", "interval_score")}
    for b, c, h in np.argwhere(~np.isnan(target)):
        y, f = target[b, c, h], forecast[b, c, h]
        steps = [abs(history[b, c, t] - history[b, c, t - 4]) for t in range(4, 20)]
        expected["bias"].append(f - y)
        expected["smape"].append(200 * abs(y - f) / (abs(y) + abs(f)))
        expected["mase"].append(abs(y - f) / np.mean([s for s in steps if s == s]))
        expected["coverage"].append(f - 1 <= y <= f + 2)
        expected["interval_score"].append(3 + 10 * max(f - 1 - y, y - f - 2, 0))
    ours = {
        "bias": bias(target, forecast),
        "smape": smape(target, forecast),
        "mase": mase(target, forecast, history, season=4),
        "coverage": coverage(target, lower, upper),
        "interval_score": interval_score(target, lower, upper, nominal=0.8),
    }
    assert ours == pytest.approx({name: np.mean(values) for name, values in expected.items()}, rel=1e-12)


def warped(y, f, reach):
    """Time warping by the textbook recursion, one cell after the other: y and f are [C, H]."""
    n = y.shape[1]
    cost = np.full((n + 1, n + 1), np.inf)
    cost[0, 0] = 0
    for i in range(n):
        for j in range(max(0, i - reach), min(n, i + reach + 1)):
            near = min(cost[i, j], cost[i, j + 1], cost[i + 1, j])
            cost[i + 1, j + 1] = near + ((y[:, i] - f[:, j]) ** 2).sum()
    return cost[n, n] ** 0.5


def test_dtw_is_the_textbook_recursion_for_one_or_more_channels_with_and_without_a_window():
    target, forecast = some_pair((4, 2, 20))
    pairs = list(zip(target, forecast, strict=True))
    for window, reach in ((None, 20), (0.1, 2), (0.25, 5)):
        assert dtw(target, forecast, window) == pytest.approx(np.mean([warped(y, f, reach) for y, f in pairs]))
        first = np.mean([warped(y[:1], f[:1], reach) for y, f in pairs])
        assert dtw(target[:, 0], forecast[:, 0], window) == pytest.approx(first)
    assert dtw(target, forecast, window=0) == pytest.approx(np.mean([np.linalg.norm(y - f) for y, f in pairs]))
    assert dtw(np.float32(target), np.float32(forecast)) == pytest.approx(dtw(target, forecast), rel=1e-6)


def test_dtw_forgives_a_peak_that_comes_two_steps_late_where_squared_errors_do_not():
    early, late = np.zeros((1, 40)), np.zeros((1, 40))
    early[0, 20] = late[0, 22] = 1
    assert dtw(early, late, window=0.1) == 0.0
    assert dtw(early, late, window=0.025) == pytest.approx(2**0.5)


def test_dtw_takes_unobserved_steps_out_of_both_series():
    target, forecast = some_pair((3, 20))
    holes = target.copy()
    holes[0, 5:8] = np.nan
    holes[1] = np.nan  # nothing observed: the pair is not counted
    kept = np.r_[0:5, 8:20]
    reach = 1  # 10 % of 17 steps
    first = warped(target[:1, kept], forecast[:1, kept], reach)
    assert dtw(holes, forecast) == pytest.approx((first + warped(target[2:], forecast[2:], 2)) / 2)
    assert np.isnan(dtw(np.full((2, 20), np.nan), forecast[:2]))


# Laws


def test_a_perfect_forecast_has_an_error_of_zero():
    target, _ = some_pair(missing=0.2)
    forecast = np.where(np.isnan(target), 7.0, target)
    assert {metric(target, forecast) for metric in (*POINT.values(), dtw)} == {0.0}
    assert mase(target, forecast, np.arange(9.0) * np.ones((5, 3, 1)), season=1) == 0.0
    assert pinball(target, np.stack([forecast] * 9), DECILES) == 0.0
    assert interval_score(target, forecast, forecast, nominal=0.9) == 0.0
    assert coverage(target, forecast, forecast) == 1.0


def test_tenfold_units_give_tenfold_scores_hundredfold_squares_and_the_same_ratios():
    target, forecast = some_pair(missing=0.2)
    power = {"mse": 2, "smape": 0, "mase": 0, "coverage": 0, "crossing_rate": 0}
    before, after = every_score(target, forecast), every_score(10 * target, 10 * forecast)
    assert before.keys() == METRICS.keys()
    assert after == pytest.approx({name: score * 10 ** power.get(name, 1) for name, score in before.items()})


def test_the_order_of_cases_changes_no_score():
    target, forecast = some_pair(missing=0.2)
    order = np.random.default_rng(3).permutation(len(target))
    history = np.random.default_rng(4).normal(size=(5, 3, 20))
    for metric in (*POINT.values(), dtw):
        assert metric(target[order], forecast[order]) == pytest.approx(metric(target, forecast), rel=1e-12)
    shuffled = mase(target[order], forecast[order], history[order], season=3)
    assert shuffled == pytest.approx(mase(target, forecast, history, season=3), rel=1e-12)


@pytest.mark.parametrize("metric", POINT.values(), ids=POINT.keys())
def test_unobserved_targets_count_as_if_they_were_not_there(metric):
    target, forecast = some_pair(missing=0.3)
    seen = ~np.isnan(target)
    assert metric(target, forecast) == pytest.approx(metric(target[seen], forecast[seen]), rel=1e-12)
    forecast[~seen] = 1e6
    assert metric(target, forecast) == pytest.approx(metric(target[seen], forecast[seen]), rel=1e-12)


@pytest.mark.parametrize("metric", POINT.values(), ids=POINT.keys())
def test_an_axis_is_averaged_away_and_the_others_stay(metric):
    target, forecast = some_pair(missing=0.3)
    target[:, :, 2] = np.nan
    per_step = metric(target, forecast, axis=(0, 1))
    assert per_step.shape == (8,)
    expected = [metric(target[..., h], forecast[..., h]) for h in range(8)]
    np.testing.assert_allclose(per_step, expected, rtol=1e-12)
    assert np.flatnonzero(np.isnan(per_step)).tolist() == [2]
    assert isinstance(metric(target, forecast), float)


def test_pinball_at_the_median_is_half_the_absolute_error():
    target, forecast = some_pair(missing=0.1)
    assert pinball(target, forecast[None], [0.5]) == pytest.approx(mae(target, forecast) / 2)


def test_the_order_of_levels_changes_no_score():
    target, _ = some_pair()
    quantiles = np.random.default_rng(5).normal(size=(9, *target.shape))
    order = np.random.default_rng(6).permutation(9)
    for score in (pinball, crps_from_quantiles):
        assert score(target, quantiles[order], DECILES[order]) == pytest.approx(score(target, quantiles, DECILES))


def test_true_quantiles_cover_what_they_claim_and_win_every_proper_score():
    rng = np.random.default_rng(7)
    target = rng.normal(size=(20_000, 5))
    ends = norm.ppf([0.1, 0.9])
    lower, upper = (np.full(target.shape, end) for end in ends)
    assert coverage(target, lower, upper) == pytest.approx(0.8, abs=0.005)  # four standard errors
    true = np.ones((9, *target.shape)) * norm.ppf(DECILES)[:, None, None]
    for spread in (0.7, 1.4):
        assert pinball(target, true, DECILES) < pinball(target, spread * true, DECILES)
        assert interval_score(target, lower, upper, 0.8) < interval_score(target, spread * lower, spread * upper, 0.8)


def test_crps_from_deciles_of_a_normal_law_is_nine_percent_above_the_true_score_as_documented():
    target = norm.ppf((np.arange(20_000) + 0.5) / 20_000)  # an even grid in place of chance
    true_score = np.pi**-0.5
    for levels, excess in ((DECILES, 0.094), (np.arange(1, 100) / 100, 0.010)):
        quantiles = np.ones((len(levels), len(target))) * norm.ppf(levels)[:, None]
        assert crps_from_quantiles(target, quantiles, levels) / true_score - 1 == pytest.approx(excess, abs=0.001)


# Sums over blocks


def test_sums_over_blocks_are_the_metrics_of_the_whole_in_total_per_step_and_per_channel():
    target, forecast = some_pair((50, 3, 8), missing=0.2)
    sums = ErrorSums(n_channels=3, horizon=8)
    for begin in range(0, 50, 16):  # the last block is a partial one
        sums.add(target[begin : begin + 16], forecast[begin : begin + 16])
    assert sums.n == np.isfinite(target).sum()
    assert (sums.mse, sums.mae, sums.rmse) == pytest.approx([metric(target, forecast) for metric in (mse, mae, rmse)])
    for name, metric in (("mse", mse), ("mae", mae), ("rmse", rmse)):
        np.testing.assert_allclose(getattr(sums, f"{name}_per_step"), metric(target, forecast, axis=(0, 1)))
        np.testing.assert_allclose(getattr(sums, f"{name}_per_channel"), metric(target, forecast, axis=(0, 2)))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 40),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5)),
    size=st.integers(1, 40),
    magnitude=st.sampled_from([1e-6, 1.0, 1e9]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_batch_size_order_and_merging_change_no_score(seed, n, shape, size, magnitude, dtype):
    rng = np.random.default_rng(seed)
    target = (magnitude * rng.standard_cauchy((n, *shape))).astype(dtype)
    forecast = (magnitude * rng.standard_cauchy((n, *shape))).astype(dtype)
    target[rng.random(target.shape) < 0.2] = np.nan
    target[0, 0, 0] = 1

    def summed(order, size):
        parts = []
        for begin in range(0, n, size):
            parts.append(ErrorSums(*shape))
            parts[-1].add(target[order[begin : begin + size]], forecast[order[begin : begin + size]])
        return parts

    whole = summed(np.arange(n), n)[0]
    streamed = ErrorSums(*shape)
    for begin in range(0, n, size):
        streamed.add(target[begin : begin + size], forecast[begin : begin + size])
    np.testing.assert_array_equal(streamed.squared, whole.squared)  # bit for bit
    np.testing.assert_array_equal(streamed.absolute, whole.absolute)
    assert (streamed.mse, streamed.mae, streamed.n) == (whole.mse, whole.mae, whole.n)

    merged = reduce(add, summed(rng.permutation(n), size))
    assert merged.n == whole.n
    assert (merged.mse, merged.mae, merged.rmse) == pytest.approx((whole.mse, whole.mae, whole.rmse), rel=1e-12)
    np.testing.assert_allclose(merged.mse_per_step, whole.mse_per_step, rtol=1e-12)


def test_merging_leaves_both_parts_as_they_were():
    one, other = ErrorSums(1, 2), ErrorSums(1, 2)
    one.add(np.zeros((1, 1, 2)), np.ones((1, 1, 2)))
    other.add(np.zeros((1, 1, 2)), np.full((1, 1, 2), 3.0))
    both = one + other
    assert (one.mse, other.mse, both.mse, both.mae, both.n) == (1.0, 9.0, 5.0, 2.0, 4)


def test_scaled_sums_are_the_sums_of_scaled_series():
    target, forecast = some_pair((10, 3, 8), missing=0.2)
    sums, expected = ErrorSums(3, 8), ErrorSums(3, 8)
    scale = np.array([0.5, 3.0, 100.0])
    sums.add(target, forecast)
    expected.add(target * scale[:, None], forecast * scale[:, None])
    assert (sums.scaled(scale).mse, sums.scaled(scale).mae) == pytest.approx((expected.mse, expected.mae), rel=1e-12)
    history = np.random.default_rng(8).normal(size=(3, 50))
    by_sums = sums.scaled(1 / seasonal_scale(history, 4)).mae
    assert by_sums == pytest.approx(mase(target, forecast, history, season=4), rel=1e-12)


def test_sums_of_nothing_are_nan_and_count_zero():
    sums = ErrorSums(2, 3)
    sums.add(np.full((4, 2, 3), np.nan), np.zeros((4, 2, 3)))
    sums.add(np.zeros((0, 2, 3)), np.zeros((0, 2, 3)))
    assert sums.n == 0
    assert np.isnan([sums.mse, sums.mae, sums.rmse, *sums.mse_per_step, *sums.mae_per_channel]).all()


# Errors teach


def test_a_forecast_with_nan_is_refused_with_its_place():
    target, forecast = np.zeros((2, 3)), np.zeros((2, 3))
    forecast[1, 2] = np.nan
    quantiles = forecast[None]
    calls = [
        *((metric, (target, forecast)) for metric in (*POINT.values(), dtw)),
        (mase, (target, forecast, np.arange(12.0).reshape(2, 6), 1)),
        (coverage, (target, forecast, target)),
        (interval_width, (target, forecast)),
        (interval_score, (target, target, forecast, 0.9)),
        (pinball, (target, quantiles, [0.5])),
        (crps_from_quantiles, (target, quantiles, [0.5])),
        (crossing_rate, (quantiles, [0.5])),
        (ErrorSums(1, 3).add, (target[:, None], forecast[:, None])),
    ]
    for metric, arguments in calls:
        with pytest.raises(DataError, match=r"is NaN or infinite in 1 of 6 values, the first at index \[.*1.*2\]"):
            metric(*arguments)


def test_an_infinite_target_is_refused():
    with pytest.raises(DataError, match=r"target holds an infinite value at index \[1\]"):
        mae([0.0, np.inf], [0.0, 0.0])
    with pytest.raises(DataError, match=r"history holds an infinite value at index \[2\]"):
        seasonal_scale([0.0, 1.0, np.inf], 1)


def test_shapes_that_would_be_broadcast_are_refused():
    with pytest.raises(ShapeError, match=r"forecast must have the shape of its target, \[2, 3\], but has \[3\]"):
        mse(np.zeros((2, 3)), np.zeros(3))
    with pytest.raises(ShapeError, match=r"quantile_forecasts must be .* \[2, 4, 3\], but has \[4, 3, 2\].*moveaxis"):
        pinball(np.zeros((4, 3)), np.zeros((4, 3, 2)), [0.1, 0.9])
    with pytest.raises(ShapeError, match=r"\[batch, channel=2, horizon=3\], but got target \[5, 3, 2\]"):
        ErrorSums(2, 3).add(np.zeros((5, 3, 2)), np.zeros((5, 3, 2)))
    with pytest.raises(ShapeError, match="they score different tasks"):
        ErrorSums(2, 3) + ErrorSums(2, 4)
    with pytest.raises(ShapeError, match=r"one finite number above 0 per channel, \[2\]"):
        ErrorSums(2, 3).scaled([1.0, 0.0])
    with pytest.raises(ShapeError, match=r"Pass one pair as target\[None, :\]"):
        dtw(np.zeros(4), np.zeros(4))


def test_a_history_without_a_scale_is_refused_with_the_series_named():
    history = np.array([[1.0, 2.0, 1.0, 2.0], [1.0, 2.0, 3.0, 4.0], [np.nan, 1.0, np.nan, np.nan]])
    target = np.zeros((3, 2))
    with pytest.raises(DataError, match=r"2 of 3 series in history have no scale at season=2.*\[\[0\], \[2\]\]"):
        mase(target, target, history, season=2)
    with pytest.raises(ShapeError, match="more than season=4 steps"):
        mase(target, target, history, season=4)
    with pytest.raises(ShapeError, match=r"leading axes of target \[3, 2\]"):
        mase(target, target, history[:2], season=1)
    with pytest.raises(SettingsError, match="season is a number of steps, at least 1"):
        mase(target, target, history, season=0)


def test_levels_windows_and_coverages_outside_their_range_are_refused():
    target = np.zeros((1, 2))
    for levels in ([10, 90], [0.0, 0.5], [0.5, 0.5], [0.5, np.nan]):
        with pytest.raises(SettingsError, match="levels are different fractions between 0 and 1"):
            pinball(target, np.zeros((2, 1, 2)), levels)
    with pytest.raises(SettingsError, match="window is a fraction of the horizon"):
        dtw(target, target, window=10)
    with pytest.raises(SettingsError, match="nominal is the coverage claimed"):
        interval_score(target, target, target, nominal=80)


def test_dtw_without_aeon_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "aeon.distances", None)
    with pytest.raises(ImportError, match=r"pip install 'prismts\[bench\]'"):
        dtw(np.zeros((1, 4)), np.zeros((1, 4)))


def test_the_dictionary_of_metrics_reads_as_a_list():
    assert str(METRICS["mae"]) == "mean absolute error, units of the series (lower is better)"
    assert METRICS["dtw"].function is dtw
