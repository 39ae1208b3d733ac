"""Series to windows without copying: a window is a number, and a batch is one gather.

All series of a collection lie behind each other in one array [C, total]. Window number ``i`` is the stretch of
``context_length + horizon`` steps that begins at one place of it, so a batch of any windows of any series is one
indexing operation on a strided view, followed by scaling. Nothing else is ever held in memory.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prismts.data.frequency import named_grid
from prismts.data.irregular import Measurements
from prismts.data.scaling import StandardScaler
from prismts.data.series import Collection
from prismts.errors import DataError, SettingsError, ShapeError

__all__ = ["Batch", "Windows"]


class Batch(NamedTuple):
    """Some windows, scaled. A mask is None where everything was observed; unobserved values are 0 behind their mask."""

    context: Tensor  # [B, C, T]
    target: Tensor  # [B, C, H]
    context_observed: Tensor | None  # [B, C, T] bool
    target_observed: Tensor | None  # [B, C, H] bool
    series: Tensor  # [B] which series of the collection
    start: Tensor | None = None  # [B] number of the first step of the context, see ``first_steps`` of Windows
    rows: Tensor | None = None  # [B, C, R] the measurements within the context, where Windows know when they were taken
    rows_observed: Tensor | None = None  # [B, C, R] bool; False before the first of a window with fewer than R
    times: Tensor | None = None  # [B, R] when: steps since the first one of the context, not rounded, rising


class Windows:
    """Every cut of ``context_length`` steps of past and ``horizon`` steps of future whose future lies in one part.

    The future of a window lies within ``[begin, end)`` of its series; its past may reach back before ``begin`` (so the
    first test window reads the end of the validation part) but never before the series' own start. The one exception:
    a series too short for a single full window gives windows whose past is shorter and marked as unobserved on the
    left, down to ``min_context`` steps, if ``min_context`` is given.

    Args:
        data: the series.
        context_length, horizon: in time steps. A horizon of 0 gives contexts alone.
        scaler: one row for all series, or one row per series.
        begin, end: the part, the same for all series or one per series [n]; counted from 0.
        stride: steps from one window to the next of the same series.
        min_context: shortest past of a window of a short series; None refuses short series silently (they give no
            windows).
        first_steps: [n] numbers of the first steps of the series, on a clock that all data of one frequency share, so
            that a model can know where in a cycle a window stands. None counts the steps since the beginning of 1970
            where there are times, else from 0.
        measured: the rows of the series as they were taken (``prismts.data.irregular``); batches then carry, beside the
            context on the grid, the measurements next to its steps, and when each was taken.

    Raises:
        DataError: no series has room for a single window.
    """

    def __init__(
        self,
        data: Collection,
        context_length: int,
        horizon: int,
        *,
        scaler: StandardScaler | None = None,
        begin: int | NDArray[np.int64] = 0,
        end: int | NDArray[np.int64] | None = None,
        stride: int = 1,
        min_context: int | None = None,
        first_steps: NDArray[np.int64] | None = None,
        measured: Measurements | None = None,
    ) -> None:
        for name, count in (("context_length", context_length), ("horizon", horizon), ("stride", stride)):
            if not isinstance(count, Integral) or count is True:  # pyright: ignore[reportUnnecessaryIsInstance]
                raise SettingsError(f"{name} is a whole number of time steps, but got {count!r}.")
        if context_length < 1 or horizon < 0 or stride < 1:
            raise SettingsError(
                f"A window needs context_length >= 1, horizon >= 0 and stride >= 1, but got {context_length}, "
                f"{horizon} and {stride}."
            )
        self.data, self.context_length, self.horizon, self.stride = data, context_length, horizon, stride
        self._scale_by(scaler or StandardScaler.identity(data.n_channels))
        lengths = data.lengths
        begins = _steps("begin", begin, len(data))
        ends = np.minimum(lengths if end is None else _steps("end", end, len(data)), lengths)
        first = np.maximum(begins, context_length)  # first step of the first future
        if min_context is not None:
            short = first + horizon > ends
            first = np.where(short, np.maximum(begins, min(min_context, context_length)), first)
        self.counts = np.maximum((ends - horizon - first) // stride + 1, 0)  # [n]
        self.first_future = first
        self.first_steps = _first_steps(data) if first_steps is None else np.asarray(first_steps)  # [n]
        self._cumulative = np.concatenate([[0], np.cumsum(self.counts)])
        if not len(self):
            longest = int((ends - np.minimum(begins, ends)).max(initial=0))
            n_steps = int(lengths.max(initial=0))
            if longest < horizon <= n_steps - context_length:
                raise DataError(
                    f"No window fits: a forecast of horizon={horizon} steps lies in one part of the data as a whole, "
                    f"but this part has {longest} of the {n_steps} steps. Shorten horizon, or give "
                    "more data, or cut them otherwise."
                )
            raise DataError(
                f"No window fits: context_length={context_length} and horizon={horizon} need "
                f"{context_length + horizon} steps, but the longest series has {n_steps} "
                f"({longest} of them in this part). Shorten context_length or horizon, or give more data."
            )
        values = data.values if min(data.values.strides) >= 0 else np.ascontiguousarray(data.values)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch warns of read-only arrays; nothing here writes
            self._values = torch.from_numpy(values)
        self.measured = measured
        if measured is not None:
            base = np.repeat(data.offsets[:-1], np.diff(measured.offsets))
            self._row_cells = measured.cells + base  # [n] steps of the table on the grid, rising
            self._row_places = measured.places + base
            self._row_values = torch.from_numpy(np.ascontiguousarray(measured.values))
        self._find_gaps()

    def __len__(self) -> int:
        return int(self._cumulative[-1])

    @property
    def n_channels(self) -> int:
        """C."""
        return self.data.n_channels

    def locate(self, index: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which series [B] each window is of, and at which of its steps the future begins [B]."""
        series = np.searchsorted(self._cumulative, index, side="right") - 1
        return series, self.first_future[series] + (index - self._cumulative[series]) * self.stride

    def batch(self, index: NDArray[np.int64], channels: slice = slice(None)) -> Batch:
        """The windows of these numbers [B], all channels or a slice of them, in one gather."""
        index = np.asarray(index)
        if index.size and not (index.min() >= 0 and index.max() < len(self)):
            raise IndexError(f"Windows are numbered 0 to {len(self) - 1}, but got {index.min()} to {index.max()}.")
        series, future = self.locate(index)
        start = torch.from_numpy(self.data.offsets[series] + future - self.context_length)
        size = self.context_length + self.horizon
        values = self._values[channels]
        inside = None
        if self._padded:
            steps = start[:, None] + torch.arange(size)  # [B, T+H]
            lower = torch.from_numpy(self.data.offsets[series])[:, None]
            inside = (steps >= lower)[:, None]  # [B, 1, T+H]
            cut = values[:, torch.maximum(steps, lower)]  # [C, B, T+H]
        else:
            cut = values.unfold(-1, size, 1)[:, start]  # [C, B, T+H]
        row = torch.from_numpy(series if len(self._mean) > 1 else np.zeros_like(series))
        mean = self._mean[row][:, channels, None]  # [B, C, 1]
        scale = self._scale[row][:, channels, None]
        # scaled in the precision the values are stored in, which is float64 where float32 would lose the movement
        dtype = torch.promote_types(values.dtype, torch.float32)
        cut = ((cut.transpose(0, 1) - mean.to(dtype)) / scale.to(dtype)).float()  # [B, C, T+H]
        context, target = cut[..., : self.context_length], cut[..., self.context_length :]
        rows = (None, None, None)
        if self.measured is not None:
            begin = self.data.offsets[series] + future - self.context_length
            rows = self._rows(series, begin, channels, mean, scale)
        which = torch.from_numpy(series)
        number = torch.from_numpy(self.first_steps[series] + future - self.context_length)
        if self.complete:
            return Batch(context, target, None, None, which, number, *rows)
        observed = ~cut.isnan()
        if inside is not None:
            observed &= inside
        cut = cut.masked_fill(~observed, 0.0)
        seen_context, seen_target = observed[..., : self.context_length], observed[..., self.context_length :]
        return Batch(
            cut[..., : self.context_length],
            cut[..., self.context_length :],
            None if seen_context.all() else seen_context,
            None if seen_target.all() else seen_target,
            which,
            number,
            *rows,
        )

    def _rows(
        self, series: NDArray[np.int64], begin: NDArray[np.int64], channels: slice, mean: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """The measurements [B, C, R] next to the context's steps, which count, and when they were taken [B, R].

        begin: [B] first step of each context in the table on the grid; mean, scale: [B, C, 1].
        """
        first = np.searchsorted(self._row_cells, np.maximum(begin, self.data.offsets[series]))
        last = np.searchsorted(self._row_cells, begin + self.context_length)  # the row behind the last one
        n_rows = max(1, int((last - first).max(initial=1)))
        row = last[:, None] - n_rows + np.arange(n_rows)  # [B, R]
        inside = row >= first[:, None]
        row = row.clip(0, max(0, len(self._row_cells) - 1))
        times = np.where(inside, self._row_places[row] - begin[:, None], -1.0)
        values = self._row_values[channels][:, torch.from_numpy(row)].transpose(0, 1)  # [B, C, R]
        dtype = torch.promote_types(values.dtype, torch.float32)
        values = ((values - mean.to(dtype)) / scale.to(dtype)).float()
        observed = ~values.isnan() & torch.from_numpy(inside)[:, None]
        when = torch.from_numpy(times).float()
        return values.masked_fill(~observed, 0.0), None if observed.all() else observed, when

    def in_order(self, batch_size: int, channels: slice = slice(None)) -> Iterator[Batch]:
        """All windows once, in order, the last partial batch too."""
        for begin in range(0, len(self), batch_size):
            yield self.batch(np.arange(begin, min(begin + batch_size, len(self))), channels)

    def scaled(self, scaler: StandardScaler) -> Windows:
        """The same windows, scaled by another scaler."""
        windows = copy.copy(self)
        windows._scale_by(scaler)
        return windows

    def shortened(self, context_length: int) -> Windows:
        """The same futures behind the last steps of the same contexts."""
        if not 0 < context_length <= self.context_length:
            raise SettingsError(
                f"A context of {self.context_length} steps can be cut to at least one of them, not to {context_length}."
            )
        if context_length == self.context_length:
            return self
        windows = copy.copy(self)
        windows.context_length = context_length
        windows._find_gaps()
        return windows

    def _find_gaps(self) -> None:
        """Whether a context begins before its series, or a value is missing."""
        self._padded = bool((self.first_future[self.counts > 0] < self.context_length).any())
        self.complete = not self._padded and not any(bool(np.isnan(channel).any()) for channel in self.data.values)

    def _scale_by(self, scaler: StandardScaler) -> None:
        n_rows, n_scaled = scaler.mean.shape
        if n_rows not in (1, len(self.data)) or n_scaled != self.data.n_channels:
            raise ShapeError(
                "A scaler has one row for all series or one for each, and one column per channel: (1 or "
                f"{len(self.data)}, {self.data.n_channels}), but this one has {(n_rows, n_scaled)}. Fit it on these "
                "series."
            )
        self.scaler = scaler
        self._mean, self._scale = torch.from_numpy(scaler.mean), torch.from_numpy(scaler.scale)

    @classmethod
    def at_the_end(
        cls,
        data: Collection,
        context_length: int,
        *,
        scaler: StandardScaler | None = None,
        min_context: int = 1,
        first_steps: NDArray[np.int64] | None = None,
        measured: Measurements | None = None,
    ) -> Windows:
        """One window per series: its last ``context_length`` steps, as much of them as there is, and no future."""
        lengths = data.lengths
        if (lengths < min_context).any():
            i = int(np.argmax(lengths < min_context))
            raise DataError(
                f"Series {data.names[i]!r} has {int(lengths[i])} steps, fewer than the {min_context} a forecast needs."
            )
        return cls(
            data, context_length, 0, scaler=scaler, begin=lengths, end=lengths, min_context=min_context,
            first_steps=first_steps, measured=measured,
        )  # fmt: skip


def _steps(name: str, given: Any, n: int) -> NDArray[np.int64]:
    """A step of each of n series [n], given as one for all or one for each."""
    steps = np.asarray(given)
    if steps.dtype.kind not in "iu" or steps.shape not in ((), (1,), (n,)):
        each = f" (or one for each of the {n} series)" if n > 1 else ""
        raise SettingsError(f"{name} is the number of a time step{each}, counted from 0, but got {given!r}.")
    if steps.min(initial=0) < 0:
        raise SettingsError(
            f"{name} is the number of a time step, counted from 0, but got {steps.min()}. Steps are not counted from "
            "the end: the last 20 of 100 begin at step 80."
        )
    return np.broadcast_to(steps, n)


def _first_steps(data: Collection) -> NDArray[np.int64]:
    """How many steps of its frequency each series [n] begins after 1970; 0 where times or their frequency are unknown.

    Months, business days and their like are counted on the calendar, all others by their length.
    """
    if data.timestamps is None or data.frequency is None or not len(data.timestamps):
        return np.zeros(len(data), dtype=np.int64)
    ticks = data.timestamps[np.minimum(data.offsets[:-1], len(data.timestamps) - 1)]
    ticks = ticks.astype("datetime64[ns]").astype(np.int64)  # [n]
    grid = named_grid(data.frequency, ticks)
    if grid.points is None:
        return ticks // grid.step
    since = np.array([0, *ticks])  # the calendar from 1970 to the last of the series, or from the first one
    points = named_grid(data.frequency, since).points
    assert points is not None
    place = np.searchsorted(points, since, side="right")
    return place[1:] - place[0]
