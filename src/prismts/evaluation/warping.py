"""How far a forecast lies from the truth when a peak that comes a little early or late is forgiven."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from prismts.errors import MissingExtraError, SettingsError, ShapeError
from prismts.evaluation.observed import read_forecast, read_target

__all__ = ["dtw"]


def dtw(target: ArrayLike, forecast: ArrayLike, window: float | None = 0.1) -> float:
    """Mean dynamic time warping distance over pairs of target and forecast, [n, H] or [n, C, H]; units of the series.

    The distance of a pair is the root of the least sum of squared differences over all warping paths (aeon returns
    the sum; the root is ours, as in tslearn and dtaidistance). It grows as the root of H. The channels of [n, C, H]
    are warped together on one path; pass [n*C, H] to warp each on its own.

    ``window`` is the largest shift, as a fraction of H rounded down to steps: at 0.1 and H=96 a step may meet any that
    is at most 9 steps away; 0 is the Euclidean distance, and so is 0.1 below H=10; None lets any two steps meet.

    A step at which the target was not observed (in any channel) is taken out of both series before they are warped; a
    pair without any other step is not counted. NaN where no pair is left.
    Needs aeon. Source: Sakoe and Chiba, IEEE Transactions on Acoustics, Speech, and Signal Processing 1978.
    """
    y = read_target(target)
    f = read_forecast(forecast, y.shape)
    if y.ndim not in (2, 3):
        raise ShapeError(
            f"dtw compares pairs of series [case, time] or [case, channel, time], but got shape {list(y.shape)}. "
            "Pass one pair as target[None, :], forecast[None, :]."
        )
    if window is not None and not 0 <= window <= 1:
        raise SettingsError(f"window is a fraction of the horizon from 0 to 1, or None for no limit, but got {window}.")
    try:
        from aeon.distances import dtw_distance
    except ImportError as error:
        raise MissingExtraError("dtw needs aeon, which is not installed. Run: pip install 'prismts[bench]'") from error
    band = 1.0 if window is None else float(window)  # None would be a second type for numba to compile
    distances: list[float] = []
    for one_y, one_f in zip(y, f, strict=True):  # aligned pairs: aeon's own batch calls do all pairs
        observed = ~np.isnan(one_y if y.ndim == 2 else one_y.sum(axis=0))  # [H]
        if observed.any():
            # compress copies into one layout, so numba compiles once and its fast math meets no NaN
            pair = (np.atleast_2d(one.compress(observed, axis=-1)) for one in (one_y, one_f))
            distances.append(float(np.sqrt(dtw_distance(*pair, window=band))))
    return float(np.mean(distances)) if distances else float("nan")
