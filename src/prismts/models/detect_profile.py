"""The matrix profile: how far each window is from the most similar one elsewhere, whatever their level and size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.linalg import get_blas_funcs

from prismts.errors import SettingsError, unknown_name
from prismts.models.detect_windows import Array, ChannelWise, WindowConfig, spread

__all__ = ["MatrixProfile", "MatrixProfileConfig", "matrix_profile"]

FLAT = 1e-6  # standard deviation, in that of the training part, below which a window has no shape
N_COLUMNS = 16384  # windows of the reference at a time: their numbers stay in the cache
N_ROWS = 4096  # after so many steps sums are made afresh, so that rounding does not pile up


@dataclass(frozen=True, kw_only=True)
class MatrixProfileConfig(WindowConfig):
    """``reference``: windows are compared with those of the "train" part, or with others of the scored series, "self".

    With "train", the training part itself scores 0: each of its windows finds itself.
    """

    reference: Literal["train", "self"] = "train"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reference not in ("train", "self"):
            raise unknown_name("reference", self.reference, ("train", "self"))
        if self.window is not None and self.window < 3:
            raise SettingsError(
                f"A window needs at least 3 steps to have a shape, but got window={self.window}. Set a longer one."
            )


class MatrixProfile(ChannelWise[MatrixProfileConfig, Array]):
    """The distance of each window, itself standardized, to the nearest one of the training part.

    Scores of all channels are on one scale, so they are averaged as they are. See ``matrix_profile``.
    """

    is_on_one_scale = True

    def _fit_channel(self, x: Array) -> Array:
        return x

    def _choose_window(self, x: Array) -> int:
        return max(super()._choose_window(x), 3)

    def _score_channel(self, state: Array, x: Array) -> Array:
        reference = state if self.config.reference == "train" else None
        return spread(matrix_profile(x, self.window_, reference), self.window_)


def matrix_profile(x: Array, window: int, reference: Array | None = None) -> Array:
    """Distance of each window of x [T] to the nearest window of ``reference`` [R]: [T - window + 1], between 0 and 2.

    Both windows are brought to mean 0 and length 1 first, so the distance is sqrt(2 - 2 r) with their correlation r.
    Without a reference, windows of x itself are compared, but for those that begin less than half a window away (where
    a short series leaves no other, the distance is 0). Flat windows have no shape: two are 0 apart, and one is 1 apart
    from any other window, as if r were .5.

    Exact. Costs T R steps of work and memory for T + R numbers. Source: Zhu et al., ICDM 2016 (STOMP), with the
    centered sums of Zimmerman et al., SoCC 2019 (SCAMP); distances there are larger by the root of the window.
    """
    own = reference is None
    y = x if reference is None else reference
    zone = (window + 1) // 2 if own else 0  # windows that begin fewer steps away do not count
    mean_x, norm_x = _moments(x, window)
    mean_y, norm_y = _moments(y, window)
    n, r = len(mean_x), len(mean_y)
    best = np.full(n, -np.inf)  # largest covariance over length, among references with a shape
    if norm_x.any() and norm_y.any():
        step_x, step_y = _steps(x, mean_x, window), _steps(y, mean_y, window)
        for begin in range(0, r, N_COLUMNS):
            end = min(begin + N_COLUMNS, r)
            if norm_y[begin:end].any():
                _sweep(x, y, step_x, step_y, mean_y, norm_y, window, zone, begin, end, best)
    correlation = np.clip(np.where(norm_x > 0, best, -1.0) * norm_x, -1.0, 1.0)
    flats = np.concatenate([[0], np.cumsum(norm_y == 0)])
    place = np.arange(n)
    n_flat = np.full(n, flats[-1])
    if own:
        n_flat -= flats[np.minimum(place + zone, r)] - flats[np.maximum(place - zone + 1, 0)]
    correlation[(norm_x > 0) & (n_flat > 0)] = np.maximum(correlation[(norm_x > 0) & (n_flat > 0)], 0.5)
    correlation[norm_x == 0] = np.where(n_flat > 0, 1.0, 0.5)[norm_x == 0]
    lonely = np.zeros(n, dtype=np.bool_)
    if own:
        lonely = (place - zone < 0) & (place + zone >= r)
    correlation[lonely] = 1.0
    return np.sqrt(np.maximum(2 - 2 * correlation, 0))


def _moments(x: Array, window: int) -> tuple[Array, Array]:
    """Mean of each window, and one over the length of what is left without it (0 for a flat window): [n], [n]."""
    windows = sliding_window_view(x, window)
    parts = [windows[i : i + 16384] for i in range(0, len(windows), 16384)]
    mean = np.concatenate([part.mean(axis=1) for part in parts])
    deviation = np.concatenate([part.std(axis=1) for part in parts])
    flat = deviation <= FLAT
    return mean, np.where(flat, 0.0, 1 / (np.where(flat, 1.0, deviation) * np.sqrt(window)))


def _steps(x: Array, mean: Array, window: int) -> Array:
    """What a covariance gains when both windows move on: c += a b' + b a', for rows a and b of the answer [2, n]."""
    steps = np.zeros((2, len(mean)))
    steps[0, 1:] = (x[window:] - x[:-window]) / 2
    steps[1, 1:] = (x[window:] - mean[1:]) + (x[:-window] - mean[:-1])
    return steps


def _sweep(
    x: Array, y: Array, step_x: Array, step_y: Array, mean_y: Array, norm_y: Array,
    window: int, zone: int, begin: int, end: int, best: Array,
) -> None:  # fmt: skip
    """Raise ``best`` [n] to the largest covariance over length with reference windows from ``begin`` to ``end``.

    Row i of the table of covariances follows from row i - 1 one place to the left, so the table is kept by its
    diagonals: ``strip`` holds one number per diagonal, and row i is a stretch of it.
    """
    n, width = len(best), end - begin
    first = np.correlate(x, y[begin : begin + window] - mean_y[begin])  # [n]: the first column
    step_a, step_b = np.ascontiguousarray(step_y[:, begin + 1 : end])
    norm, value = norm_y[begin:end], np.empty(width)
    axpy: Any = get_blas_funcs("axpy", dtype=np.float64)  # y += a x in place, in one pass
    flat = np.flatnonzero(norm == 0)
    windows = sliding_window_view(y[begin : end + window - 1], window)
    for top in range(0, n, N_ROWS):
        bottom = min(top + N_ROWS, n)
        strip = np.empty(width + bottom - top)
        row = strip[bottom - top :]
        own = x[top : top + window]
        row[:] = windows @ (own - own.mean())
        for i in range(top, bottom):
            if i > top:
                row = strip[bottom - i : bottom - i + width]
                if width > 1:  # BLAS refuses empty vectors
                    axpy(step_b, row[1:], a=step_x[0, i])
                    axpy(step_a, row[1:], a=step_x[1, i])
                row[0] = first[i]
            np.multiply(row, norm, out=value)
            value[flat] = -np.inf
            if zone:
                value[max(i - zone + 1 - begin, 0) : max(i + zone - begin, 0)] = -np.inf
            best[i] = max(best[i], value.max())
