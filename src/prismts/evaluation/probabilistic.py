"""How good a forecast of quantiles or of an interval is: sharp, and right as often as it claims.

``target`` is [..., H]; quantile forecasts are [Q, ..., H] with their levels [Q]; ``lower`` and ``upper`` are [..., H].
A target of NaN was not observed and is not counted; where nothing is left to count the score is NaN. ``axis`` names the
axes of the target that are averaged away, as in numpy; levels are always averaged.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prismts.errors import SettingsError
from prismts.evaluation.observed import Axis, Score, observed_mean, read_forecast, read_quantiles, read_target

__all__ = [
    "pinball", "crps_from_quantiles", "crossing_rate", "coverage", "interval_width", "interval_score",
    "median_of"]  # fmt: skip


def pinball(target: ArrayLike, quantile_forecasts: ArrayLike, levels: ArrayLike, axis: Axis = None) -> Score:
    """Mean quantile loss over all levels, in units of the series: q (y - f) where y > f, else (1 - q) (f - y).

    At level 0.5 it is half the absolute error. Pass one level, ``quantile_forecasts[i : i + 1]``, for its own score.
    Source: Koenker and Bassett, Econometrica 1978.
    """
    y = read_target(target)
    forecasts, q = read_quantiles(quantile_forecasts, levels, y.shape)
    total = np.zeros_like(y)
    for level, forecast in zip(q, forecasts, strict=True):
        error = y - forecast
        total += np.maximum(level * error, (level - 1) * error)
    return observed_mean(total / len(q), axis)


def crps_from_quantiles(
    target: ArrayLike, quantile_forecasts: ArrayLike, levels: ArrayLike, axis: Axis = None
) -> Score:
    """Continuous ranked probability score, approximated by twice the mean pinball loss; in units of the series.

    The CRPS is twice the integral of the pinball loss over all levels from 0 to 1, so the mean stands for it only where
    the levels are evenly spread: k / (Q + 1), or better (k - 1/2) / Q. The tails beyond the outer levels are missing:
    for a normal law forecast perfectly, nine deciles give 9.4 % more than the true score, 99 percentiles 1.0 % more.
    Compare models on equal levels only.
    Source: Gneiting and Ranjan, Journal of Business & Economic Statistics 2011.
    """
    return 2 * pinball(target, quantile_forecasts, levels, axis)


def crossing_rate(quantile_forecasts: ArrayLike, levels: ArrayLike, axis: Axis = None) -> Score:
    """Share of steps, 0 to 1, at which some quantile lies below the quantile of the next lower level."""
    forecasts, q = read_quantiles(quantile_forecasts, levels)
    forecasts = forecasts[np.argsort(q)]
    falls = (forecasts[1:] < forecasts[:-1]).any(axis=0)
    return observed_mean(np.where(falls, 1.0, 0.0), axis)


def coverage(target: ArrayLike, lower: ArrayLike, upper: ArrayLike, axis: Axis = None) -> Score:
    """Share of observed targets, 0 to 1, that lie inside the interval, its ends included."""
    y = read_target(target)
    lo, hi = read_forecast(lower, y.shape, "lower"), read_forecast(upper, y.shape, "upper")
    return observed_mean(np.where(np.isnan(y), np.nan, (lo <= y) & (y <= hi)), axis)


def interval_width(lower: ArrayLike, upper: ArrayLike, axis: Axis = None) -> Score:
    """Mean of upper minus lower, in units of the series; there is no target, so every step counts."""
    lo = read_forecast(lower, np.shape(lower), "lower")
    return observed_mean(read_forecast(upper, lo.shape, "upper") - lo, axis)


def interval_score(target: ArrayLike, lower: ArrayLike, upper: ArrayLike, nominal: float, axis: Axis = None) -> Score:
    """Width of the interval plus 2 / (1 - nominal) times how far the target lies outside, in units of the series.

    ``nominal`` is the coverage that the interval claims, such as 0.8. Unlike coverage and width taken alone, nothing is
    won by an interval that is wider or narrower than it should be.
    Source: Gneiting and Raftery, Journal of the American Statistical Association 2007.
    """
    if not 0 < nominal < 1:
        raise SettingsError(f"nominal is the coverage claimed, a fraction such as 0.8, but got {nominal}.")
    y = read_target(target)
    lo, hi = read_forecast(lower, y.shape, "lower"), read_forecast(upper, y.shape, "upper")
    outside = np.maximum(lo - y, 0) + np.maximum(y - hi, 0)  # NaN where y is
    return observed_mean(hi - lo + 2 / (1 - nominal) * outside, axis)


def median_of(forecast: NDArray, levels: Sequence[float]) -> NDArray:
    """The median [n, ...] of quantiles [n, Q, ...]; between two levels, on the straight line that joins them."""
    right = int(np.searchsorted(levels, 0.5).clip(0, len(levels) - 1))
    left = max(0, right - 1)
    if levels[right] <= 0.5 or left == right:
        return forecast[:, right]
    share = (0.5 - levels[left]) / (levels[right] - levels[left])
    return forecast[:, left] + forecast.dtype.type(share) * (forecast[:, right] - forecast[:, left])
