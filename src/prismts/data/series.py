"""What a time series is here: values [C, T], when, which channels, and what of it was observed.

A value that is not a number was not observed: the mask is read off the values, so the two cannot disagree, and a
complete series costs no memory for a mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from prismts.data.splits import Borders
from prismts.errors import DataError, ShapeError

__all__ = ["Series", "Collection", "Finding", "storage_dtype"]


@dataclass(frozen=True)
class Finding:
    """One thing that was noticed about data while they were read, and what was done about it."""

    kind: str  # gap, duplicate, order, missing, sentinel, constant, text, precision, frequency, short
    message: str  # a sentence for the user: what, where, what was done
    channel: str | None = None
    row: int | None = None  # first row concerned, counted from 0 in the file's data rows

    def __str__(self) -> str:
        return self.message


def storage_dtype(values: NDArray[np.floating]) -> np.dtype:
    """float32, or float64 where a channel's movement would drown in float32 rounding (a price near 1e9, say).

    values: [C, T]. The limit: a standard deviation of less than 1000 rounding steps at the channel's level.
    """
    if values.dtype == np.float32:
        return values.dtype
    for channel in values:
        seen = channel[np.isfinite(channel)]
        if seen.size and float(np.abs(seen).max()) > np.finfo(np.float32).max:
            return np.dtype(np.float64)
        if seen.size and seen.min() < seen.max() and seen.std() < 1000 * np.spacing(np.float32(np.abs(seen).max())):
            return np.dtype(np.float64)
    return np.dtype(np.float32)


def as_values(values: object, who: str) -> NDArray[np.floating]:
    """Numbers in single or double precision, NaN where an array is masked; whole numbers keep what tells them apart."""
    if np.ma.isMaskedArray(values):
        values = np.ma.filled(np.ma.asarray(values).astype(np.float64), np.nan)
    array = np.asarray(values)
    if array.dtype.kind == "f" and array.dtype.itemsize in (4, 8) and array.dtype.isnative:
        return array
    if array.dtype.kind not in "fiubO":
        raise DataError(f"{who} holds {array.dtype}, where numbers are expected. Convert it first.")
    try:
        array = array.astype(np.float32 if array.dtype.kind != "O" and array.dtype.itemsize < 4 else np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{who} holds what is no number ({error}). Pass numbers, and NaN where nothing was observed."
        ) from error
    return array.astype(storage_dtype(array.reshape(-1, array.shape[-1])), copy=False) if array.ndim > 1 else array


@dataclass(frozen=True, eq=False)
class Series:
    """One multivariate series: values [C, T], NaN where nothing was observed.

    ``timestamps`` are the times of the columns of ``values`` (datetime64, regular at ``frequency``) or None, where the
    steps are only counted. ``borders`` are official ones, where the data set has them. ``labels`` [T] mark anomalous
    steps (1) in sets for detection.
    """

    values: NDArray[np.floating]  # [C, T]
    channels: tuple[str, ...] = ()
    timestamps: NDArray[np.datetime64] | None = None  # [T]
    frequency: str | None = None  # pandas offset alias: "h", "15min", "D", "MS"
    name: str = "series"
    borders: Borders | None = None
    labels: NDArray[np.integer] | None = None  # [T]
    findings: tuple[Finding, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        values = as_values(self.values, f"Series {self.name!r}")
        if values.ndim != 2:
            raise ShapeError(
                f"A Series holds values as [channel, time], but got an array of shape {list(values.shape)}. "
                "Pass one channel as values[None, :]."
            )
        channels = tuple(str(c) for c in self.channels) or tuple(f"channel_{i}" for i in range(len(values)))
        if len(channels) != len(values):
            raise ShapeError(
                f"{len(channels)} channel names came with values of {len(values)} channels (shape "
                f"{list(values.shape)}). Values are [channel, time]; pass values.T if time comes first."
            )
        if len(set(channels)) < len(channels):
            twice = next(name for name in channels if channels.count(name) > 1)
            raise DataError(f"Two channels of series {self.name!r} are called {twice!r}. Give each a name of its own.")
        n = values.shape[1]
        for what, array in (("timestamps", self.timestamps), ("labels", self.labels)):
            if array is not None and len(array) != n:
                raise ShapeError(f"{len(array)} {what} came with {n} time steps in series {self.name!r}.")
        # fmax and fmin pass over NaN and need no mask of the table's size to find an infinite value
        if np.isinf((np.fmin.reduce(values, axis=None, initial=0), np.fmax.reduce(values, axis=None, initial=0))).any():
            channel, row = (int(i) for i in np.argwhere(np.isinf(values))[0])
            raise DataError(
                f"Series {self.name!r} holds an infinite value in channel {channels[channel]!r} at step {row}. "
                "Replace it by a number, or by NaN to say it was not observed."
            )
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "channels", channels)

    @property
    def n_channels(self) -> int:
        """C."""
        return self.values.shape[0]

    @property
    def n_timepoints(self) -> int:
        """T."""
        return self.values.shape[1]

    @property
    def observed(self) -> NDArray[np.bool_]:
        """[C, T], False where nothing was observed."""
        return ~np.isnan(self.values)

    def __len__(self) -> int:
        return self.n_timepoints

    def part(self, begin: int, end: int) -> Series:
        """Steps ``begin`` to ``end`` (not included) as a series of their own; nothing is copied.

        Of what was found, only what is said of the clock of the whole stays with a part.
        """
        begin, end, _ = slice(begin, end).indices(self.n_timepoints)
        return replace(
            self,
            values=self.values[:, begin:end],
            timestamps=None if self.timestamps is None else self.timestamps[begin:end],
            labels=None if self.labels is None else self.labels[begin:end],
            borders=None,
            findings=tuple(finding for finding in self.findings if finding.kind == "frequency"),
        )

    def future_timestamps(self, horizon: int) -> NDArray[np.datetime64] | NDArray[np.int64]:
        """The times of the ``horizon`` steps after the last one: [H], or step numbers where the series has no times."""
        if self.timestamps is None:
            return np.arange(self.n_timepoints, self.n_timepoints + horizon)
        if self.frequency is None:
            raise DataError(
                f"Series {self.name!r} has timestamps but no regular frequency, so the times after its end are "
                "unknown. Read it with a frequency, such as frequency='h'."
            )
        last = pd.Timestamp(self.timestamps[-1])
        return pd.date_range(last, periods=horizon + 1, freq=self.frequency)[1:].to_numpy()


@dataclass(frozen=True, eq=False)
class Collection:
    """Many series with the same channels, of any length: the cases of a classifier, or the series of one global model.

    All values lie in one array [C, total], one series behind the other, so that a batch is one gather whatever the
    number of series; ``offsets`` [n+1] say where each begins. ``labels`` [n] are classes, where there are any.
    The first ``n_train`` cases are the official training part, where the data set has one; ``borders`` [n] are those of
    each series, where any has them. ``numbered`` says that the names only count the cases, as those of an array do, so
    that none tells which series it is.
    """

    values: NDArray[np.floating]  # [C, total]
    offsets: NDArray[np.int64]  # [n+1]
    names: tuple[str, ...]
    channels: tuple[str, ...]
    timestamps: NDArray[np.datetime64] | None = None  # [total]
    frequency: str | None = None
    labels: NDArray | None = None  # [n]
    n_train: int | None = None
    name: str = "collection"
    findings: tuple[Finding, ...] = field(default=(), repr=False)
    borders: tuple[Borders | None, ...] = ()  # [n], or none at all
    numbered: bool = False

    @classmethod
    def of(
        cls, cases: Series | Sequence[Series], *, labels: NDArray | None = None, name: str | None = None
    ) -> Collection:
        """Put series behind each other. A single series is taken as it is: its values are shared, not copied."""
        if isinstance(cases, Series):
            one = cases
            return cls(
                one.values, np.array([0, len(one)]), (one.name,), one.channels, one.timestamps, one.frequency,
                labels=labels, name=name or one.name, findings=one.findings, borders=_borders_of([one]),
            )  # fmt: skip
        if not cases:
            raise DataError("A collection needs at least one series, but got none.")
        first = cases[0]
        for case in cases:
            if case.channels != first.channels:
                raise DataError(
                    f"All series of a collection have the same channels, but {case.name!r} has {list(case.channels)} "
                    f"and {first.name!r} has {list(first.channels)}."
                )
        timed = all(case.timestamps is not None for case in cases)
        return cls(
            values=np.concatenate([case.values for case in cases], axis=1),
            offsets=np.concatenate([[0], np.cumsum([len(case) for case in cases])]),
            names=tuple(case.name for case in cases),
            channels=first.channels,
            timestamps=np.concatenate([case.timestamps for case in cases]) if timed else None,  # type: ignore[arg-type]
            frequency=first.frequency if len({case.frequency for case in cases}) == 1 else None,
            labels=labels,
            name=name or "collection",
            findings=tuple(finding for case in cases for finding in case.findings),
            borders=_borders_of(cases),
        )

    @classmethod
    def from_array(cls, x: NDArray, *, labels: NDArray | None = None, name: str = "array") -> Collection:
        """Cases of equal length from [n_cases, n_channels, n_timepoints]."""
        x = as_values(x, "The array")
        if x.ndim != 3:
            raise ShapeError(
                f"An array of cases is [case, channel, time], but got shape {list(x.shape)}. "
                "One series is [channel, time]; cases of one channel are x[:, None, :]."
            )
        n_cases, n_channels, n_timepoints = x.shape
        return cls(
            values=np.ascontiguousarray(x.transpose(1, 0, 2)).reshape(n_channels, -1),  # [C, n*T]
            offsets=np.arange(n_cases + 1) * n_timepoints,
            names=tuple(str(i) for i in range(n_cases)),
            channels=tuple(f"channel_{i}" for i in range(n_channels)),
            labels=labels,
            name=name,
            numbered=True,
        )

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> Series:
        """Series number ``i``; its values are a view."""
        i = range(len(self))[i]
        begin, end = self.offsets[i], self.offsets[i + 1]
        return Series(
            self.values[:, begin:end], self.channels,
            None if self.timestamps is None else self.timestamps[begin:end], self.frequency, self.names[i],
            self.borders[i] if self.borders else None, findings=self.findings if len(self) == 1 else (),
        )  # fmt: skip

    def __iter__(self) -> Iterator[Series]:
        return (self[i] for i in range(len(self)))

    @property
    def n_channels(self) -> int:
        """C."""
        return self.values.shape[0]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Time steps of each series: [n]."""
        return np.diff(self.offsets)

    def cases(self, begin: int, end: int) -> Collection:
        """Series ``begin`` to ``end`` (not included) as a collection; nothing is copied."""
        begin, end, _ = slice(begin, end).indices(len(self))
        lo, hi = self.offsets[begin], self.offsets[end]
        return replace(
            self,
            values=self.values[:, lo:hi],
            offsets=self.offsets[begin : end + 1] - lo,
            names=self.names[begin:end],
            timestamps=None if self.timestamps is None else self.timestamps[lo:hi],
            labels=None if self.labels is None else self.labels[begin:end],
            n_train=None,
            borders=self.borders[begin:end],
        )

    @property
    def train(self) -> Collection:
        """The official training cases."""
        return self.cases(0, self._official())

    @property
    def test(self) -> Collection:
        """The official test cases."""
        return self.cases(self._official(), len(self))

    def _official(self) -> int:
        if self.n_train is None:
            raise DataError(f"Collection {self.name!r} has no official train and test part; take cases(begin, end).")
        return self.n_train


def _borders_of(cases: Sequence[Series]) -> tuple[Borders | None, ...]:
    borders = tuple(case.borders for case in cases)
    return borders if any(one is not None for one in borders) else ()
