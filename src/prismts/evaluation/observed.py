"""What every metric agrees on: NaN in a target was not observed, NaN in a forecast is an error, means count the rest.

A metric turns arrays into one loss per step in float64, NaN where the target was not observed, and ``observed_mean``
averages them. ``axis`` means what it means in numpy: the axes that are averaged away, None for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prismts.errors import DataError, SettingsError, ShapeError

__all__ = ["Axis", "Score", "read_target", "read_forecast", "read_quantiles", "check_levels", "observed_mean"]

Axis = int | tuple[int, ...] | None
Score = Any  # a float where axis is None, else an array of the axes that are left; numpy types its own mean so


def read_target(target: ArrayLike, name: str = "target") -> NDArray[np.float64]:
    """The truth in float64, any shape; NaN says not observed, an infinite value is an error."""
    y = np.asarray(target, dtype=np.float64)
    if np.isinf(y).any():
        raise DataError(
            f"{name} holds an infinite value at index {_first(np.isinf(y))}. "
            "Replace it by a number, or by NaN to say it was not observed."
        )
    return y


def read_forecast(forecast: ArrayLike, shape: Sequence[int], name: str = "forecast") -> NDArray[np.float64]:
    """A forecast in float64, which has to be a number at every step and of the target's ``shape``."""
    f = np.asarray(forecast, dtype=np.float64)
    if f.shape != tuple(shape):
        raise ShapeError(
            f"{name} must have the shape of its target, {list(shape)}, but has {list(f.shape)}. "
            "Nothing is broadcast here: time stands last in both."
        )
    missing = ~np.isfinite(f)
    if missing.any():
        raise DataError(
            f"{name} is NaN or infinite in {missing.sum()} of {f.size} values, the first at index {_first(missing)}. "
            "A forecast has to be a number at every step; only a target may be NaN, where it was not observed."
        )
    return f


def read_quantiles(
    quantile_forecasts: ArrayLike, levels: ArrayLike, shape: Sequence[int] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Quantile forecasts [Q, ..., H] of the target's ``shape`` [..., H], with their levels [Q]."""
    q = check_levels(levels)
    f = np.asarray(quantile_forecasts, dtype=np.float64)
    rest = f.shape[1:] if shape is None else tuple(shape)
    if f.shape != (len(q), *rest):
        raise ShapeError(
            f"quantile_forecasts must be [level={len(q)}, ...target], here {[len(q), *rest]}, but has {list(f.shape)}. "
            "If the levels stand last, pass np.moveaxis(quantile_forecasts, -1, 0)."
        )
    return read_forecast(f, f.shape, "quantile_forecasts"), q


def check_levels(levels: ArrayLike) -> NDArray[np.float64]:
    """Quantile levels [Q]: different fractions strictly between 0 and 1, in any order."""
    q = np.asarray(levels, dtype=np.float64)
    if q.ndim != 1 or not q.size or not ((q > 0) & (q < 1)).all() or len(np.unique(q)) < len(q):
        raise SettingsError(
            f"levels are different fractions between 0 and 1, such as [0.1, 0.5, 0.9], but got {q.tolist()}."
        )
    return q


def observed_mean(losses: NDArray[np.float64], axis: Axis = None) -> Score:
    """Mean of what is not NaN; NaN where nothing was observed."""
    observed = ~np.isnan(losses)
    n_observed = observed.sum(axis=axis)
    mean = np.sum(losses, axis=axis, where=observed) / np.where(n_observed, n_observed, np.nan)
    return float(mean) if axis is None else mean


def _first(where: NDArray[np.bool_]) -> list[int]:
    return [int(i) for i in np.unravel_index(int(where.argmax()), where.shape)]
