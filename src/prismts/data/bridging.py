"""Straight lines over what was not observed, for readers of whole series."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prismts.errors import DataError, ShapeError

__all__ = ["bridged"]


def bridged(values: ArrayLike) -> NDArray[np.float64]:
    """Join observed neighbors by straight lines, and continue the first and last of them to the ends.

    values [C, T] with NaN where nothing was observed give [C, T] in float64; a channel without any observation is 0.
    The twin of ``prismts.layers.missing.bridge`` for arrays. Infinite values are refused.
    """
    x = np.array(values, dtype=np.float64)  # a copy: the caller's values stay as they are
    if x.ndim != 2:
        raise ShapeError(
            f"A series is [channel, time], but got shape {list(x.shape)}. One channel is values[None, :]; "
            "a table with time down the rows is table.T."
        )
    if np.isinf(x).any():
        c, t = np.argwhere(np.isinf(x))[0]
        raise DataError(
            f"Values must be finite, or NaN where nothing was observed, but channel {c} has {x[c, t]} at step {t}. "
            "Replace infinite values by NaN."
        )
    place = np.arange(x.shape[1])
    for row in x:
        observed = ~np.isnan(row)
        if not observed.all():
            row[:] = np.interp(place, place[observed], row[observed]) if observed.any() else 0.0
    return x
