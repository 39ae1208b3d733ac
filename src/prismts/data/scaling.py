"""Put channels on one scale with numbers taken from the training part only, and take them back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prismts.data.series import Collection
from prismts.errors import DataError

__all__ = ["StandardScaler"]


@dataclass(frozen=True, eq=False)
class StandardScaler:
    """Mean and standard deviation of each channel: [n, C], one row for all series, or one row per series.

    Unobserved values do not count. A channel that never moves keeps its scale of 1, so that it maps to 0 and back. A
    channel without an observed value in one series is scaled as all observed values of the other series together.
    """

    mean: NDArray[np.float64]  # [n, C]
    scale: NDArray[np.float64]  # [n, C], > 0
    borrowed: tuple[tuple[int, int], ...] = ()  # pairs of series and channel that are scaled as the other series are

    @classmethod
    def fit(cls, data: Collection, ends: NDArray[np.int64] | None = None) -> StandardScaler:
        """One row per series from its steps before ``ends`` [n]; all of them where no ends are given.

        Works channel by channel in float64, so that no second copy of the table comes into being.

        Raises:
            DataError: a channel has no observed value in any series.
        """
        ends = data.lengths if ends is None else np.asarray(ends)
        mean = np.full((len(data), data.n_channels), np.nan)
        scale, count = np.full_like(mean, np.nan), np.zeros_like(mean)
        for i, (begin, end) in enumerate(zip(data.offsets[:-1], data.offsets[:-1] + ends, strict=True)):
            for c in range(data.n_channels):
                seen = data.values[c, begin:end].astype(np.float64)
                seen = seen[~np.isnan(seen)]
                if seen.size:
                    mean[i, c], scale[i, c], count[i, c] = seen.mean(), _scale_of(seen), seen.size
        borrowed: list[tuple[int, int]] = []
        for c in range(data.n_channels):
            empty, known = np.flatnonzero(count[:, c] == 0), count[:, c] > 0
            if not known.any():
                steps = f"steps 0 to {int(ends[0])}" if len(data) == 1 else f"{len(data)} series"
                whose = f" of series {data.names[0]!r}" if len(data) == 1 else ""
                raise DataError(
                    f"Channel {data.channels[c]!r}{whose} has no observed value in its training part ({steps}), so it "
                    "has no scale. Leave the channel out, or train on more."
                )
            if empty.size:
                share = count[known, c] / count[known, c].sum()
                middle = share @ mean[known, c]
                # a flat series has a scale of 1 here, which says more than 0 about how far another one may move
                spread = np.sqrt(share @ (scale[known, c] ** 2 + (mean[known, c] - middle) ** 2))
                mean[empty, c], scale[empty, c] = middle, spread
                borrowed += [(int(i), c) for i in empty]
        return cls(mean, scale, tuple(borrowed))

    @classmethod
    def identity(cls, n_channels: int) -> StandardScaler:
        """The scaler that leaves values as they are."""
        return cls(np.zeros((1, n_channels)), np.ones((1, n_channels)))

    def transform(self, x: NDArray[np.floating], series: NDArray[np.int64] | int = 0) -> NDArray[np.float64]:
        """[..., C, T] in units of the series to the standard scale; ``series`` says which row to use (one, or [B])."""
        return (x - self.mean[series][..., None]) / self.scale[series][..., None]

    def inverse(self, y: NDArray[np.floating], series: NDArray[np.int64] | int = 0) -> NDArray[np.float64]:
        """[..., C, T] back in units of the series."""
        return y * self.scale[series][..., None] + self.mean[series][..., None]


def _scale_of(seen: NDArray[np.float64]) -> float:
    size = float(np.abs(seen).max())
    with np.errstate(over="ignore"):
        spread = float(seen.std())
    if not np.isfinite(spread):  # squares of such numbers are beyond the largest one
        spread = float((seen / size).std()) * size
    return 1.0 if spread <= 1e-12 * size else spread
