"""Series of any length and width behind each other in one row of numbers, so that any windows are one gather."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Packed"]


@dataclass(frozen=True, eq=False)
class Packed:
    """S series in one array: channel c of series s begins at ``begin[s] + c * n_timepoints[s]``.

    Each channel of each series is at mean 0 and scale 1 over its own observed values, so that single precision is
    enough; NaN where nothing was observed.
    """

    values: NDArray[np.float32]  # [total]
    begin: NDArray[np.int64]  # [S]
    n_timepoints: NDArray[np.int64]  # [S]
    n_channels: NDArray[np.int64]  # [S]
    member: NDArray[np.int64]  # [S] which member of the corpus

    def __len__(self) -> int:
        return len(self.begin)

    @classmethod
    def of(cls, series: Sequence[NDArray[np.floating]], member: int) -> Packed:
        """Values [C, T] of several series; steps at both ends at which no channel was observed are left out."""
        kept = [_standard(_trimmed(values)) for values in series]
        kept = [values for values in kept if values.size]
        sizes = np.array([values.size for values in kept], dtype=np.int64)
        return cls(
            np.concatenate([values.ravel() for values in kept]) if kept else np.empty(0, np.float32),
            np.cumsum(sizes) - sizes,
            np.array([values.shape[1] for values in kept], dtype=np.int64),
            np.array([values.shape[0] for values in kept], dtype=np.int64),
            np.full(len(kept), member, dtype=np.int64),
        )

    @classmethod
    def joined(cls, blocks: Sequence[Packed]) -> Packed:
        """Several, one behind the other, or none; a single one is taken as it is."""
        blocks = [block for block in blocks if len(block)] or [cls.of([], 0)]
        if len(blocks) == 1:
            return blocks[0]
        before = np.cumsum([0, *(len(block.values) for block in blocks[:-1])])
        return cls(
            np.concatenate([block.values for block in blocks]),
            np.concatenate([block.begin + n for block, n in zip(blocks, before, strict=True)]),
            np.concatenate([block.n_timepoints for block in blocks]),
            np.concatenate([block.n_channels for block in blocks]),
            np.concatenate([block.member for block in blocks]),
        )

    def gather(
        self, series: NDArray[np.int64], channels: NDArray[np.int64], first: NDArray[np.int64], length: int
    ) -> NDArray[np.float32]:
        """Windows [B, W, length] of channels [B, W] of series [B] from steps ``first`` [B] on; NaN behind their end."""
        step = first[:, None] + np.arange(length)  # [B, L]
        n = self.n_timepoints[series]
        outside = step >= n[:, None]
        row = self.begin[series][:, None] + channels * n[:, None]  # [B, W]
        found = self.values[row[:, :, None] + np.minimum(step, n[:, None] - 1)[:, None, :]]
        if outside.any():
            found[np.broadcast_to(outside[:, None], found.shape)] = np.nan
        return found


def _trimmed(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """[C, T] from the first to the last step at which anything was observed."""
    seen = np.flatnonzero(~np.isnan(values).all(axis=0))
    return values[:, seen[0] : seen[-1] + 1] if seen.size else values[:, :0]


def _standard(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Each row at mean 0 and scale 1, counted in double precision; a flat row is 0."""
    wide = values.astype(np.float64)
    seen = ~np.isnan(wide)
    count = np.maximum(seen.sum(axis=1, keepdims=True), 1)
    wide = wide - np.where(seen, wide, 0.0).sum(axis=1, keepdims=True) / count
    scale = np.sqrt(np.square(np.where(seen, wide, 0.0)).sum(axis=1, keepdims=True) / count)
    flat = scale <= 1e-12
    return np.where(flat & seen, 0.0, wide / np.where(flat, 1.0, scale)).astype(np.float32)
