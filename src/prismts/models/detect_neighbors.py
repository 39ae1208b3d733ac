"""Windows far from all windows of the training part: centers of clusters, and nearest neighbors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prismts.errors import DataError, SettingsError
from prismts.models.detect_windows import Array, Stacked, StackedConfig, in_batches, spread, windows_of

__all__ = ["KMeans", "KMeansConfig", "Neighbors", "NeighborsConfig"]


@dataclass(frozen=True, kw_only=True)
class KMeansConfig(StackedConfig):
    """Equal ``random_state``, equal clusters."""

    n_clusters: int = 20
    random_state: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_clusters < 1:
            raise SettingsError(f"n_clusters must be at least 1, but got {self.n_clusters}.")


class KMeans(Stacked[KMeansConfig]):
    """KMeansAD: the distance of a window to the nearest of 20 centers of training windows.

    Source: TSB-AD's KMeansAD_U (after TimeEval, Schmidl et al., PVLDB 2022), which also averages over the windows that
    cover a step. As there, windows keep their level and size. Fitted on the training part only; with many channels the
    window is what ``max_features`` allows, where the source takes 20 steps. Fewer windows than centers: a center each.
    """

    def _fit_windows(self, windows: NDArray[Any]) -> None:
        from sklearn.cluster import KMeans as Clusters

        rows = np.concatenate(list(in_batches(windows)))
        n_clusters = min(self.config.n_clusters, len(np.unique(rows, axis=0)))
        clusters: Any = Clusters  # its stubs know n_init only as a word
        found = clusters(n_clusters, n_init=1, random_state=self.config.random_state).fit(rows)
        self.centers_: Array = found.cluster_centers_  # [K, C * window]

    def _score_windows(self, windows: Array) -> Array:
        return np.sqrt(_squares(windows, self.centers_).min(axis=1))

    def contributions(self, values: ArrayLike) -> Array:
        """Each channel's share of the squared distance to the nearest center, averaged over windows: [C, T]."""
        x = self._read(values)
        parts: list[Array] = []
        for batch in in_batches(windows_of(x, self.window_)):
            gap = batch - self.centers_[_squares(batch, self.centers_).argmin(axis=1)]
            parts.append((gap**2).reshape(len(gap), len(x), self.window_).sum(axis=-1))  # [b, C]
        squares = np.concatenate(parts)
        return np.stack([spread(column, self.window_) for column in squares.T])


@dataclass(frozen=True, kw_only=True)
class NeighborsConfig(StackedConfig):
    """Windows to compare with are few, because every window meets all of them."""

    n_neighbors: int = 10
    max_windows: int = 5_000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_neighbors < 1:
            raise SettingsError(f"n_neighbors must be at least 1, but got {self.n_neighbors}.")


class Neighbors(Stacked[NeighborsConfig]):
    """Sub-KNN: the distance of a window to the tenth nearest of the training windows.

    Source: Ramaswamy et al., SIGMOD 2000, with the settings of TSB-AD's Sub-KNN. Windows keep their level and size.
    Ours differs: the neighbors are searched in the training part, among at most 5,000 windows spaced evenly.
    """

    def _fit_windows(self, windows: NDArray[Any]) -> None:
        if len(windows) < self.config.n_neighbors:
            raise DataError(
                f"n_neighbors={self.config.n_neighbors} needs as many training windows of {self.window_} steps, but "
                f"the training part has {len(windows)}. Pass a longer one, or set fewer n_neighbors."
            )
        self.known_ = np.concatenate(list(in_batches(windows)))  # [n, C * window]

    def _score_windows(self, windows: Array) -> Array:
        k = self.config.n_neighbors - 1
        parts = (windows[begin : begin + 1000] for begin in range(0, len(windows), 1000))  # [1000, n] at a time
        return np.sqrt(np.concatenate([np.partition(_squares(part, self.known_), k, axis=1)[:, k] for part in parts]))


def _squares(x: Array, y: Array) -> Array:
    """Squared distances [n, k] of rows [n, W] and [k, W]."""
    square = x @ (-2 * y.T)
    square += np.einsum("nw,nw->n", x, x)[:, None]
    square += np.einsum("kw,kw->k", y, y)
    return np.maximum(square, 0, out=square)
