"""How far one forecast lies from the truth: squared, absolute, in percent, or against a naive forecast.

All take ``target`` and ``forecast`` of one shape [..., H]. A target of NaN was not observed and is not counted; where
nothing is left to count the score is NaN. ``axis`` names the axes that are averaged away, as in numpy: for [B, C, H],
``axis=(0, 1)`` gives one score per step of the horizon; without it the score is one float.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prismts.errors import DataError, SettingsError, ShapeError
from prismts.evaluation.observed import Axis, Score, observed_mean, read_forecast, read_target

__all__ = ["mse", "mae", "rmse", "bias", "smape", "mase", "seasonal_scale"]


def mse(target: ArrayLike, forecast: ArrayLike, axis: Axis = None) -> Score:
    """Mean squared error, in squared units of the series."""
    return observed_mean(_error(target, forecast) ** 2, axis)


def mae(target: ArrayLike, forecast: ArrayLike, axis: Axis = None) -> Score:
    """Mean absolute error, in units of the series."""
    return observed_mean(np.abs(_error(target, forecast)), axis)


def rmse(target: ArrayLike, forecast: ArrayLike, axis: Axis = None) -> Score:
    """Root of the mean squared error, in units of the series; one root of one mean, not a mean of roots."""
    root = np.sqrt(mse(target, forecast, axis))
    return float(root) if axis is None else root


def bias(target: ArrayLike, forecast: ArrayLike, axis: Axis = None) -> Score:
    """Mean of forecast minus target, in units of the series: above zero where forecasts are too high."""
    return observed_mean(_error(target, forecast), axis)


def smape(target: ArrayLike, forecast: ArrayLike, axis: Axis = None) -> Score:
    """Symmetric mean absolute percentage error, 0 to 200: the mean of 200 |y - f| / (|y| + |f|), where 0 / 0 is 0.

    Source: Makridakis and Hibon 2000 (M3), with absolute values in the denominator as in M4.
    """
    y = read_target(target)
    f = read_forecast(forecast, y.shape)
    size = np.abs(y) + np.abs(f)
    return observed_mean(200 * np.abs(y - f) / np.where(size == 0, 1.0, size), axis)


def mase(target: ArrayLike, forecast: ArrayLike, history: ArrayLike, season: int, axis: Axis = None) -> Score:
    """Mean absolute scaled error: absolute errors divided by ``seasonal_scale`` of the series' own history; no unit.

    Below 1 means better than the seasonal naive forecast does one season ahead inside the history.

    ``history`` [..., T], in the units of the target [..., H], has the target's leading axes or the last of them:
    one training part [C, T] serves all windows [B, C, H]. A series whose history never changes from season to season,
    or shows no such pair of steps, has no scale and is refused.
    Source: Hyndman and Koehler, International Journal of Forecasting 2006.
    """
    error = _error(target, forecast)
    scale = seasonal_scale(history, season)
    n_leading = error.ndim - 1
    if scale.shape != error.shape[:-1][n_leading - scale.ndim :]:
        raise ShapeError(
            f"history must be [..., time] with the leading axes of target {list(error.shape)}, or the last of them, "
            f"but has shape {list(np.shape(history))}."
        )
    without = ~(scale > 0)
    if without.any():
        first = np.argwhere(without)[:5].tolist()
        raise DataError(
            f"{without.sum()} of {without.size} series in history have no scale at season={season}: they never "
            f"change from one season to the next, or too little was observed. The first: {first}. "
            "Leave these series out (seasonal_scale tells which they are), or score them by mae."
        )
    return observed_mean(np.abs(error) / scale[..., None], axis)


def seasonal_scale(history: ArrayLike, season: int) -> NDArray[np.float64]:
    """Mean absolute difference between steps one ``season`` apart in history [..., T]: [...], in units of the series.

    This is the in-sample error of the seasonal naive forecast (season=1: of the last value). Pairs with a step that was
    not observed do not count; the scale is NaN where no pair is left, and 0 where the history repeats itself exactly.
    """
    past = read_target(history, "history")
    if season < 1:
        raise SettingsError(f"season is a number of steps, at least 1 (the last value), but got {season}.")
    if past.ndim == 0 or past.shape[-1] <= season:
        raise ShapeError(
            f"history must be [..., time] with more than season={season} steps, but has shape {list(past.shape)}. "
            "Pass a longer history or a shorter season."
        )
    return np.asarray(observed_mean(np.abs(past[..., season:] - past[..., :-season]), axis=-1))


def _error(target: ArrayLike, forecast: ArrayLike) -> NDArray[np.float64]:
    """Forecast minus target, NaN where the target was not observed."""
    y = read_target(target)
    return read_forecast(forecast, y.shape) - y
