"""How two paths of a model move together, and how a model moves with the time of day: plain arrays in, numbers out.

A path's outputs are [n, D, N]: n windows, width D, N tokens. ``step_changes`` turns them into how much the path moves
from token to token, [n, N-1], and the measures below compare such changes of a CNN and a GRU path, window by window.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist
from scipy.stats import rankdata

from prismts.errors import DataError, SettingsError, ShapeError

__all__ = [
    "distance_correlation",
    "lead",
    "lead_gain",
    "peak_response",
    "rank_correlation",
    "response_at_peaks",
    "spearman_rise",
    "step_changes",
    "time_of_day_circle",
    "time_of_day_dependence",
]

BLOCK_BYTES = 32 * 2**20  # of one block of pairwise distances


def distance_correlation(x: ArrayLike, y: ArrayLike) -> float:
    """How far y depends on x in any way, straight or not: 0 to 1; x and y are [n] or [n, d], d may differ.

    This is the biased V-statistic dCor_n (not its square): for independent data it is above 0 by about the order of
    n**-0.25, so compare values of equal n only. It is 0 where one side never changes. It does not change when either
    side is shifted, rotated or multiplied by one number; columns of other units must be scaled by the caller.

    Time grows as n squared. Memory does not: the n x n distances are made in blocks of rows of at most 32 MiB each,
    and only sums and row means are kept.
    Source: Szekely, Rizzo and Bakirov, Annals of Statistics 2007 (the sums S1 + S2 - 2 S3 of their appendix).
    """
    a, b = _points(x, "x"), _points(y, "y")
    if len(a) != len(b):
        raise ShapeError(f"x has {len(a)} rows and y {len(b)}. Row i of both must be one observation.")
    if len(a) < 2:
        raise DataError(f"A distance correlation needs at least two observations, but got {len(a)}.")
    a, b = _unit_size(a), _unit_size(b)
    n = len(a)
    rows = max(1, BLOCK_BYTES // (8 * n))
    products = np.zeros(3)  # sums over all pairs of ab, aa, bb
    mean_a, mean_b = np.empty(n), np.empty(n)  # of each row
    for begin in range(0, n, rows):
        block = slice(begin, begin + rows)
        far_a, far_b = cdist(a[block], a), cdist(b[block], b)  # [rows, n]
        mean_a[block], mean_b[block] = far_a.mean(axis=1), far_b.mean(axis=1)
        products += [np.vdot(far_a, far_b), np.vdot(far_a, far_a), np.vdot(far_b, far_b)]

    def covariance(product: float, one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
        return float(product / n**2 + one.mean() * other.mean() - 2 * (one @ other) / n)

    with_itself = covariance(products[1], mean_a, mean_a) * covariance(products[2], mean_b, mean_b)
    if with_itself <= 0:
        return 0.0
    share = max(0.0, covariance(products[0], mean_a, mean_b)) / np.sqrt(with_itself)
    return float(min(1.0, np.sqrt(share)))


def time_of_day_circle(timestamps: ArrayLike) -> NDArray[np.float64]:
    """Each time as a point on a circle that is turned once a day: timestamps [n] to cosine and sine [n, 2].

    Midnight is (1, 0), six in the morning (0, 1); so 23:50 and 00:10 are neighbors.
    """
    times = np.asarray(timestamps).astype("datetime64[ns]")
    since_midnight = (times - times.astype("datetime64[D]")).astype(np.int64)
    angle = 2 * np.pi * since_midnight / 86_400_000_000_000
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)  # [n, 2]


def time_of_day_dependence(x: ArrayLike, timestamps: ArrayLike) -> float:
    """Distance correlation of what a model made of n windows, [n, ...], with the time of day of the windows, [n].

    With generated kernels [n, D, k] it is the slides' dCor of kernel coefficients, with :func:`step_changes` of the
    CNN path [n, N-1] that of the CNN output's change. The slides do not say which time a window has; pass that of its
    last step, the one from which it forecasts.
    """
    array = np.asarray(x, dtype=np.float64)
    return distance_correlation(array.reshape(len(array), -1), time_of_day_circle(timestamps))


def step_changes(outputs: ArrayLike) -> NDArray[np.float64]:
    """How far a path moves from each token to the next: outputs [n, D, N] to Euclidean lengths [n, N-1]."""
    h = np.asarray(outputs, dtype=np.float64)
    if h.ndim != 3 or h.shape[-1] < 2:
        raise ShapeError(
            f"The outputs of a path are [window, width, token] with at least two tokens, but got {list(h.shape)}."
        )
    return np.linalg.norm(np.diff(h, axis=-1), axis=1)


def rank_correlation(cnn: ArrayLike, gru: ArrayLike) -> float:
    """Spearman's rank correlation of two series of changes [n, M] or [M]: within each window, then the mean, -1 to 1.

    Ranks are taken within a window, so that restless windows, in which both paths move more, do not raise it. Windows
    in which a path moves evenly have no ranks and do not count; NaN where no window is left.
    """
    one, other = _pair(cnn, gru)
    one, other = _centered(rankdata(one, axis=1)), _centered(rankdata(other, axis=1))
    size = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    return _mean_where((one * other).sum(axis=1), size)


def spearman_rise(cnn: ArrayLike, gru: ArrayLike, cnn_none: ArrayLike, gru_none: ArrayLike) -> float:
    """How much more the two paths move at the same steps than without exchange: the difference of rank correlations.

    All are changes [n, M] as of :func:`step_changes`; the last two are those of the model without exchange.
    """
    return rank_correlation(cnn, gru) - rank_correlation(cnn_none, gru_none)


def peak_response(
    cnn: ArrayLike, gru: ArrayLike, cnn_none: ArrayLike, gru_none: ArrayLike, *, share: float = 0.1,
    relative: bool = False,
) -> float:  # fmt: skip
    """How many percent more the GRU path moves where the CNN path moves most than it does without exchange.

    All are changes [n, M] as of :func:`step_changes`; the last two are those of the model without exchange. The peaks
    of a window are its ``share`` of steps (at least one) with the largest changes of the CNN path of the same model.

    ``relative=True`` first divides by the GRU path's mean change over all steps, so that a model whose states are
    larger throughout shows no response by that alone; the slides do not say that they did.
    """
    moved = response_at_peaks(cnn, gru, share=share, relative=relative)
    moved_none = response_at_peaks(cnn_none, gru_none, share=share, relative=relative)
    if moved_none == 0:
        raise DataError("Without exchange the GRU path does not move at the peaks: there is nothing to compare with.")
    return 100 * (moved / moved_none - 1)


def response_at_peaks(cnn: ArrayLike, gru: ArrayLike, *, share: float = 0.1, relative: bool = False) -> float:
    """How far the GRU path moves, on average, at the steps where the CNN path moves most.

    One side of :func:`peak_response`, for who keeps a number of each model and not its changes [n, M].
    """
    if not 0 < share <= 1:
        raise SettingsError(f"share is the fraction of steps that are peaks, above 0 and at most 1, but got {share}.")
    one, other = _pair(cnn, gru)
    n_peaks = max(1, round(share * one.shape[1]))
    peaks = np.argsort(-one, axis=1, kind="stable")[:, :n_peaks]
    moved = np.take_along_axis(other, peaks, axis=1).mean()
    overall = other.mean() if relative else 1.0
    if overall == 0:
        raise DataError("The GRU path does not move at all, so its response has no size to be compared with.")
    return float(moved / overall)


def lead(cnn: ArrayLike, gru: ArrayLike, *, max_lag: int | None = None) -> float:
    """By how many steps the GRU path's changes run ahead of the CNN path's (above 0) or behind them, [n, M] or [M].

    In each window the lag of the largest cross-correlation of the two centered series, at most ``max_lag`` steps (a
    quarter of the window if None) either way; then the mean over windows. Terms beyond the ends count as 0, which
    favors short lags a little, and of equal fits the shortest is taken. Windows in which a path moves evenly do not
    count; NaN where no window is left.
    """
    one, other = (_centered(x) for x in _pair(cnn, gru))
    n_steps = one.shape[1]
    reach = max(1, n_steps // 4) if max_lag is None else max_lag
    if not 0 < reach < n_steps:
        raise SettingsError(f"max_lag must be from 1 to {n_steps - 1} for series of {n_steps} steps, but is {max_lag}.")
    size = 2 * n_steps  # room enough that nothing wraps around
    r = np.fft.irfft(np.fft.rfft(one, size).conj() * np.fft.rfft(other, size), size)  # at GRU behind CNN by 0, 1, ...
    lags = np.array(sorted(range(-reach, reach + 1), key=abs))
    scale = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    at = r[:, lags]
    first = (at >= at.max(axis=1, keepdims=True) - 1e-9 * scale[:, None]).argmax(axis=1)
    return _mean_where(-lags[first] * scale, scale)


def lead_gain(
    cnn: ArrayLike, gru: ArrayLike, cnn_none: ArrayLike, gru_none: ArrayLike, *, max_lag: int | None = None
) -> float:
    """By how many steps the GRU path reacts sooner than it does without exchange: the difference of two leads."""
    return lead(cnn, gru, max_lag=max_lag) - lead(cnn_none, gru_none, max_lag=max_lag)


def _points(x: ArrayLike, name: str) -> NDArray[np.float64]:
    """[n] or [n, d] as [n, d]."""
    array = np.asarray(x, dtype=np.float64)
    if array.ndim not in (1, 2):
        raise ShapeError(f"{name} must be [n] or [n, d], but has shape {list(array.shape)}. Flatten what is behind n.")
    if not np.isfinite(array).all():
        raise DataError(f"{name} holds NaN or an infinite value. Leave those observations out of both x and y.")
    return array[:, None] if array.ndim == 1 else array


def _unit_size(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The points about their mean, the largest coordinate at 1: what is measured stays, and no square overflows."""
    points = points - points.mean(axis=0)
    size = np.abs(points).max(initial=0.0)
    return points / size if size > 0 else points


def _pair(cnn: ArrayLike, gru: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two series of changes as [n, M] of one shape."""
    one, other = (np.atleast_2d(np.asarray(x, dtype=np.float64)) for x in (cnn, gru))
    if one.shape != other.shape or one.ndim != 2 or one.shape[1] < 2:
        raise ShapeError(
            "Changes of the CNN and the GRU path are two arrays [window, step] of one shape with at least two steps, "
            f"but got {list(np.shape(cnn))} and {list(np.shape(gru))}. Outputs [window, width, token] become changes "
            "by step_changes."
        )
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise DataError("Changes hold NaN or an infinite value. Leave those windows out of both paths.")
    return one, other


def _centered(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n, M] less each row's mean; a row that is constant but for rounding becomes exactly 0."""
    level = x.mean(axis=1, keepdims=True)
    even = np.ptp(x, axis=1, keepdims=True) <= 1e-12 * np.abs(level)
    return np.where(even, 0.0, x - level)


def _mean_where(sums: NDArray[np.float64], sizes: NDArray[np.float64]) -> float:
    """The mean of sums / sizes over those of a size above 0."""
    counted = sizes > 0
    return float((sums[counted] / sizes[counted]).mean()) if counted.any() else float("nan")
