"""Principal components of windows: what does not move along the usual directions is unusual."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from prismts.errors import SettingsError, unknown_name
from prismts.models.detect_windows import (
    Array,
    ChannelWise,
    Stacked,
    StackedConfig,
    WindowConfig,
    in_batches,
    spread,
    windows_of,
)

__all__ = ["Axes", "PCA", "PCAConfig", "SubPCA", "SubPCAConfig"]

Measure = Literal["vectors", "mahalanobis", "reconstruction"]
MEASURES = ("vectors", "mahalanobis", "reconstruction")
FLOOR = 1e-12  # share of the variance below which a direction's eigenvalue is rounding


@dataclass(frozen=True, kw_only=True)
class SubPCAConfig(WindowConfig):
    """Windows of one channel.

    ``n_components``: all directions (None), a number of them, or the fewest that explain more than a share of the
    variance. ``measure``, of a standardized window z, directions v of unit length and their shares r of the variance:

    - "vectors": the mean of the distances |z - v|, weighted by 1 / r, as in the source;
    - "mahalanobis": the root of the mean of (z v)^2 / r (Shyu et al., 2003);
    - "reconstruction": the length of what the directions do not explain.
    """

    n_components: int | float | None = None
    measure: Measure = "vectors"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.n_components, self.measure)


@dataclass(frozen=True, kw_only=True)
class PCAConfig(StackedConfig):
    """As ``SubPCAConfig``, for windows of all channels; a window of one step is the source's form for many channels."""

    n_components: int | float | None = 0.75
    measure: Measure = "vectors"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.n_components, self.measure)


def _check(n_components: int | float | None, measure: str) -> None:
    if measure not in MEASURES:
        raise unknown_name("measure", measure, MEASURES)
    whole = isinstance(n_components, int) and n_components >= 1
    if not (n_components is None or whole or (isinstance(n_components, float) and 0 < n_components < 1)):
        raise SettingsError(
            "n_components is a number of directions from 1, a share of the variance between 0 and 1, or None for all, "
            f"but got {n_components}."
        )
    if measure == "reconstruction" and n_components is None:
        raise SettingsError(
            "All directions together explain everything, so no reconstruction error is left. "
            "Set n_components, such as n_components=0.9."
        )


class Axes:
    """The principal directions of standardized vectors, and how far a vector lies from what is usual.

    Each number of the vectors is standardized over the training vectors, then the directions are the eigenvectors of
    their correlation matrix; the largest entry of each is positive, because "vectors" depends on the sign.
    """

    def __init__(self, batches: Iterable[Array], n_components: int | float | None, measure: Measure) -> None:
        n, total, square = 0, np.zeros(0), np.zeros((0, 0))
        for batch in batches:  # [b, W]
            if not n:
                total, square = np.zeros(batch.shape[1]), np.zeros((batch.shape[1],) * 2)
            n, total, square = n + len(batch), total + batch.sum(axis=0), square + batch.T @ batch
        self.mean = total / n  # [W]
        covariance = square / n - np.outer(self.mean, self.mean)
        variance = np.diag(covariance)
        self.deviation = np.sqrt(np.where(variance > FLOOR, variance, 1.0))
        values, vectors = np.linalg.eigh(covariance / np.outer(self.deviation, self.deviation))
        values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]  # largest first
        share = values / values.sum() if values.sum() > FLOOR else np.zeros_like(values)
        kept = len(share)
        if isinstance(n_components, float):
            kept = min(int(np.searchsorted(np.cumsum(share), n_components, side="right")) + 1, kept)
        elif n_components is not None:
            kept = min(n_components, kept)
        vectors = vectors[:, :kept]
        largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)
        self.vectors = vectors * np.where(largest < 0, -1.0, 1.0)  # [W, K]
        weight = 1 / np.maximum(share[:kept], FLOOR)
        self.weight = weight / weight.sum()  # [K]
        self.measure = measure

    def distances(self, x: Array) -> Array:
        """Vectors [b, W] to scores [b]."""
        z = (x - self.mean) / self.deviation
        along = z @ self.vectors  # [b, K]
        length = np.einsum("bw,bw->b", z, z)
        if self.measure == "vectors":
            square = along  # reuse the largest array
            square *= -2
            square += length[:, None] + 1
            return np.sqrt(np.maximum(square, 0, out=square), out=square) @ self.weight
        if self.measure == "mahalanobis":
            return np.sqrt(along**2 @ self.weight)
        return np.sqrt(np.maximum(length - np.einsum("bk,bk->b", along, along), 0))


class SubPCA(ChannelWise[SubPCAConfig, Axes]):
    """Sub-PCA: principal components of the windows of one channel; several channels one by one, and their mean.

    Source: TSB-AD (Liu and Paparrizos, NeurIPS 2024), which took its form from PyOD (Zhao et al., 2019) after Shyu et
    al., 2003. With ``measure="vectors"`` and all directions, weights 1 / r are so steep that the score is nearly the
    length of the standardized window. Ours differs: fitted on the training part, not on the series that is scored;
    shares r below 1e-12 are taken as 1e-12 and weights sum to 1 (the order of windows is the same); constant positions
    stay in the window instead of being dropped; a step gets the mean over its windows, not the one it is the center
    of.
    """

    def _fit_channel(self, x: Array) -> Axes:
        return Axes(in_batches(windows_of(x[None], self.window_)), self.config.n_components, self.config.measure)

    def _score_channel(self, state: Axes, x: Array) -> Array:
        batches = in_batches(windows_of(x[None], self.window_))
        return spread(np.concatenate([state.distances(batch) for batch in batches]), self.window_)


class PCA(Stacked[PCAConfig]):
    """The principal components of all channels together.

    With ``window=1`` this is TSB-AD's PCA for many channels, whose tuned share of .75 is the default; longer windows
    are ours. It differs from the source as ``SubPCA`` does.
    """

    def _fit_windows(self, windows: NDArray[Any]) -> None:
        self.axes_ = Axes(in_batches(windows), self.config.n_components, self.config.measure)

    def _score_windows(self, windows: Array) -> Array:
        return self.axes_.distances(windows)
