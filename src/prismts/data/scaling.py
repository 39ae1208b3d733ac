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

    Unobserved values do not count. A channel that never moves keeps its scale of 1, so that it maps to 0 and back.
    """

    mean: NDArray[np.float64]  # [n, C]
    scale: NDArray[np.float64]  # [n, C], > 0

    @classmethod
    def fit(cls, data: Collection, ends: NDArray[np.int64] | None = None) -> StandardScaler:
        """One row per series from its steps before ``ends`` [n]; all of them where no ends are given.

        Works channel by channel in float64, so that no second copy of the table comes into being.
        """
        ends = data.lengths if ends is None else np.asarray(ends)
        mean = np.empty((len(data), data.n_channels))
        scale = np.empty_like(mean)
        for i, (begin, end) in enumerate(zip(data.offsets[:-1], data.offsets[:-1] + ends, strict=True)):
            for c in range(data.n_channels):
                seen = data.values[c, begin:end].astype(np.float64)
                seen = seen[~np.isnan(seen)]
                if not seen.size:
                    raise DataError(
                        f"Channel {data.channels[c]!r} of series {data.names[i]!r} has no observed value in its "
                        f"training part (steps 0 to {int(ends[i])}), so it has no scale. Leave the channel out, or "
                        "train on more."
                    )
                spread = seen.std()
                flat = spread <= 1e-12 * max(1.0, np.abs(seen).max())
                mean[i, c], scale[i, c] = seen.mean(), 1.0 if flat else spread
        return cls(mean, scale)

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
