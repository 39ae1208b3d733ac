"""Labeled cases of any length to batches: a case is a number, and a batch is one gather.

A case ends with its last step at which anything was observed; what is behind it is padding. Shorter cases of a batch
are padded at their end and marked, so what a model that heeds the mask says of a case does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prismts.data.scaling import StandardScaler
from prismts.data.series import Collection
from prismts.errors import DataError, unknown_name

__all__ = ["CaseBatch", "Cases", "scaler_of_cases"]


class CaseBatch(NamedTuple):
    """Some cases, scaled, each beginning at step 0. The mask is None where everything was observed."""

    context: Tensor  # [B, C, T], T the longest of the batch
    context_observed: Tensor | None  # [B, C, T] bool
    label: Tensor  # [B] class numbers; -1 where the class is not known


class Cases:
    """The cases ``index`` of a collection (None: all), with their class numbers ``labels`` [n].

    Raises:
        DataError: a case has no observed value.
    """

    def __init__(
        self,
        data: Collection,
        labels: NDArray[np.int64] | None = None,
        *,
        scaler: StandardScaler,
        index: NDArray[np.int64] | None = None,
    ) -> None:
        self.data, self.scaler = data, scaler
        self.index = np.arange(len(data)) if index is None else np.asarray(index)
        self.labels = np.full(len(data), -1) if labels is None else np.asarray(labels)
        self._complete = not bool(np.isnan(data.values).any())
        self.lengths = data.lengths if self._complete else _observed_lengths(data)  # [n] of the whole collection

    @property
    def n_channels(self) -> int:
        """C."""
        return self.data.n_channels

    def __len__(self) -> int:
        return len(self.index)

    def batch(self, index: NDArray[np.int64], channels: slice = slice(None)) -> CaseBatch:
        """The cases of these numbers [B] as one batch, padded to the longest of them."""
        case = self.index[index]
        lengths = self.lengths[case]
        step = np.arange(lengths.max())
        inside = step < lengths[:, None]  # [B, T]
        place = self.data.offsets[case][:, None] + np.minimum(step, lengths[:, None] - 1)
        values = self.data.values[channels][:, place].swapaxes(0, 1)  # [B, C, T]
        mean, scale = self.scaler.mean[0, channels, None], self.scaler.scale[0, channels, None]
        x = torch.from_numpy(((values - mean) / scale).astype(np.float32))
        observed = None
        if not self._complete or not inside.all():
            observed = torch.from_numpy(inside[:, None] & ~np.isnan(values))
            x = x.masked_fill(~observed, 0.0)
        return CaseBatch(x, observed, torch.from_numpy(self.labels[case]))

    def by_length(self, batch_size: int) -> Iterator[tuple[NDArray[np.int64], CaseBatch]]:
        """All cases in batches of equal length, so that none is padded: their numbers [B], and the batch."""
        lengths = self.lengths[self.index]
        order = np.argsort(lengths, kind="stable")
        starts = np.flatnonzero(np.diff(lengths[order], prepend=-1))
        for same in np.split(order, starts[1:]):
            for begin in range(0, len(same), batch_size):
                part = same[begin : begin + batch_size]
                yield part, self.batch(part)


def scaler_of_cases(data: Collection, scaling: str = "standard") -> StandardScaler:
    """One level and scale per channel, over all steps of all cases.

    ``"standard"`` takes mean and standard deviation; ``"range"`` maps smallest to largest value to -1..1, as the
    ConvTimeNet authors do for classification.
    """
    if scaling not in ("standard", "range"):
        raise unknown_name("scaling", scaling, ("standard", "range"))
    total = np.array([0, data.values.shape[1]])
    whole = Collection(data.values, total, ("the training cases",), data.channels, name=data.name)
    scaler = StandardScaler.fit(whole)  # refuses a channel without any value
    if scaling == "standard":
        return scaler
    low, high = np.nanmin(data.values, axis=1), np.nanmax(data.values, axis=1)
    half = np.where(high > low, (high - low) / 2, 1.0).astype(np.float64)
    return StandardScaler(((high + low) / 2).astype(np.float64)[None], half[None])


def _observed_lengths(data: Collection) -> NDArray[np.int64]:
    """Steps of each case up to the last one at which anything was observed: [n]."""
    seen: NDArray[np.bool_] = np.any(~np.isnan(data.values), axis=0, keepdims=False)  # type: ignore[assignment]
    step = np.arange(1, data.values.shape[1] + 1) * seen  # [total]
    # an empty case has no step of its own, and reduceat would read its neighbor's
    last = np.maximum.reduceat(np.append(step, 0), data.offsets[:-1])
    lengths = np.where(data.lengths > 0, last - data.offsets[:-1], 0)
    if (lengths <= 0).any():
        empty = int(np.argmax(lengths <= 0))
        raise DataError(
            f"Case {data.names[empty]!r} (number {empty}) has no observed value, so there is nothing to judge it by. "
            "Leave it out."
        )
    return lengths.astype(np.int64)
