"""Scores that arrive batch by batch: those of all forecasts at once, however the windows were batched."""

from itertools import pairwise

import numpy as np
import pytest

from prismts.evaluation.metrics import (
    coverage,
    crps_from_quantiles,
    dtw,
    interval_width,
    mae,
    mase,
    mse,
    pinball,
    rmse,
    smape,
)
from prismts.evaluation.probabilistic import median_of
from prismts.evaluation.running import RunningForecastScores

N, N_CHANNELS, HORIZON, LEVELS = 12, 3, 5, (0.1, 0.4, 0.9)


def made(missing: float = 0.2, quantiles: bool = False) -> dict[str, np.ndarray]:
    """Forecasts of two series, whose channels have their own scale, mean and seasonal error."""
    rng = np.random.default_rng(0)
    series = np.arange(N) % 2
    target = rng.standard_normal((N, N_CHANNELS, HORIZON)).astype(np.float32)
    target[rng.random(target.shape) < missing] = np.nan
    forecast = np.sort(rng.standard_normal((N, len(LEVELS), N_CHANNELS, HORIZON)), axis=1).astype(np.float32)
    scale, mean, season = np.array([[1, 10, 0.1], [2, 30, 0.5]]), np.array([[0, 50, 3], [-7, 0, 9]]), np.ones((2, 3))
    season[:] = [[0.5, 20, 0.3], [4, 7, 0.1]]
    return {
        "target": target, "forecast": forecast if quantiles else forecast[:, 1],
        "scale": scale[series], "mean": mean[series], "season_scale": season[series],
    }  # fmt: skip


def run(data: dict[str, np.ndarray], sizes: tuple[int, ...] = (N,), **how) -> RunningForecastScores:
    running = RunningForecastScores(N_CHANNELS, HORIZON, **how)
    edges = np.cumsum([0, *sizes])
    assert edges[-1] == N
    for begin, end in pairwise(edges):
        running.add(**{name: array[begin:end] for name, array in data.items()})
    return running


def own_units(data: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    scale, mean = data["scale"][..., None], data["mean"][..., None]
    return data["target"] * scale + mean, data["forecast"] * scale + mean


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_point_scores_are_those_of_all_forecasts_at_once(missing):
    data = made(missing)
    running, (target, forecast) = run(data, (5, 6, 1)), own_units(data)
    relative = np.abs(target - forecast) / data["season_scale"][..., None]
    expected = {
        "mse": mse(data["target"], data["forecast"]), "mae": mae(data["target"], data["forecast"]),
        "rmse_own": rmse(target, forecast), "mae_own": mae(target, forecast), "smape": smape(target, forecast),
        "mase": np.nanmean(relative),
    }  # fmt: skip
    assert running.values() == pytest.approx(expected, rel=1e-6)
    for axis, found, names in (((0, 1), running.per_step(), {"mse", "mae"}),
                               ((0, 2), running.per_channel(), {"mse", "mae", "rmse_own", "mae_own"})):  # fmt: skip
        assert set(found) == names
        np.testing.assert_allclose(found["mse"], mse(data["target"], data["forecast"], axis), rtol=1e-6)
        np.testing.assert_allclose(found["mae"], mae(data["target"], data["forecast"], axis), rtol=1e-6)
    np.testing.assert_allclose(running.per_channel()["rmse_own"], rmse(target, forecast, (0, 2)), rtol=1e-6)
    np.testing.assert_allclose(running.per_channel()["mae_own"], mae(target, forecast, (0, 2)), rtol=1e-6)


def test_mase_is_the_metric_where_all_windows_share_one_history():
    data, history = made(), np.random.default_rng(1).standard_normal((N_CHANNELS, 100)).cumsum(1)
    for name in ("scale", "mean"):
        data[name] = np.broadcast_to(data[name][:1], data[name].shape)
    data["season_scale"] = np.broadcast_to(np.abs(history[:, 4:] - history[:, :-4]).mean(1), (N, N_CHANNELS))
    assert run(data, (7, 5)).values()["mase"] == pytest.approx(mase(*own_units(data), history, season=4), rel=1e-6)


def test_a_channel_without_a_seasonal_scale_is_left_out_of_mase_alone():
    data = made()
    data["season_scale"] = data["season_scale"].copy()
    data["season_scale"][:, 1] = np.nan
    target, forecast = (part[:, [0, 2]] for part in own_units(data))
    expected = np.nanmean(np.abs(target - forecast) / data["season_scale"][:, [0, 2], None])
    values = run(data, (4, 8)).values()
    assert values["mase"] == pytest.approx(expected, rel=1e-6)
    assert values["mse"] == pytest.approx(mse(data["target"], data["forecast"]), rel=1e-6)
    data["season_scale"][:] = np.nan
    assert np.isnan(run(data).values()["mase"])


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_quantile_scores_are_those_of_all_forecasts_at_once_and_points_those_of_the_median(missing):
    data = made(missing, quantiles=True)
    values, by_level = run(data, (5, 6, 1), quantiles=LEVELS).values(), np.moveaxis(data["forecast"], 1, 0)
    middle = {**made(missing), "forecast": median_of(data["forecast"], LEVELS)}
    points = run(middle, (5, 6, 1)).values()
    expected = points | {
        "pinball": pinball(data["target"], by_level, LEVELS),
        "crps": crps_from_quantiles(data["target"], by_level, LEVELS),
        "coverage": coverage(data["target"], by_level[0], by_level[-1]),
        "width": interval_width(by_level[0], by_level[-1]),
    }
    assert values == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("sizes", [(1,) * N, (1, 11), (6, 6)])
def test_no_score_depends_on_how_the_windows_were_batched(sizes):
    data = made(quantiles=True)
    data["target"][0] = np.nan  # a batch of which nothing was observed
    data["target"][6:, 0] = np.nan
    assert run(data, sizes, quantiles=LEVELS).values() == pytest.approx(run(data, quantiles=LEVELS).values(), rel=1e-9)


@pytest.mark.long
def test_warping_distances_are_averaged_over_the_pairs_that_were_observed():
    data = made()
    data["target"][:4, 1] = np.nan
    expected = dtw(data["target"].reshape(-1, HORIZON), data["forecast"].reshape(-1, HORIZON))
    assert run(data, (2, 10), dtw=True).values()["dtw"] == pytest.approx(expected)


def test_where_nothing_was_observed_errors_are_nan_and_the_width_is_known():
    data = made(missing=1.1, quantiles=True)
    values = run(data, (4, 8), quantiles=LEVELS).values()
    assert values.pop("width") == pytest.approx(float((data["forecast"][:, -1] - data["forecast"][:, 0]).mean()))
    assert np.isnan(list(values.values())).all()
