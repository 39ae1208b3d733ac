"""From the columns of a table to a Series or a Collection, one channel at a time."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported, where the checker cannot see them)

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from prismts.data.cells import channel_of, constant
from prismts.data.columns import Columns
from prismts.data.layout import Duplicates, Gaps, Layout, lay_out
from prismts.data.series import Collection, Finding, Series, storage_dtype
from prismts.data.times import Clock, Times, looks_like_times, times_of
from prismts.data.times_of_day import holds_times_of_day, with_times_of_day
from prismts.errors import DataError

__all__ = ["Options", "assemble"]

TIME_NAMES = ("datetime", "timestamp", "date", "time", "ds")
_INDEX_NAMES = ("", "Unnamed: 0", "__index_level_0__", "index")


class Options(NamedTuple):
    """How a table is to be read; what each means is told by ``read``."""

    time: str | None = None
    series: str | None = None
    values: Sequence[str] | None = None
    frequency: str | None = None
    duplicates: Duplicates = "refuse"
    gaps: Gaps = "fill"
    missing_codes: Sequence[float] | None = None
    may_be_empty: bool = False  # whether a channel may have no observed value at all
    exact: bool = False  # whether values are kept in double precision, whatever they need
    local: bool | None = None  # whether times are read by the clock of their zone; None: as times_of finds


def assemble(columns: Columns, options: Options, name: str) -> tuple[Series | Collection, str | None, Clock]:
    """The series in a table, the name of the time column that was found in it, and how its times are told."""
    if not columns.n_rows:
        raise DataError(f"{columns.source} has no rows.")
    codes, names = _find_series(columns, options.series)
    time, times = _find_times(columns, options, codes)
    of_day = None
    if time is not None and times is not None:
        taken = (options.series, *([options.values] if isinstance(options.values, str) else options.values or ()))
        times, of_day = with_times_of_day(columns, time, times, taken)
    told = Clock() if times is None else times.told
    channels, findings = _find_channels(columns, options, time, of_day)

    def differences(a: NDArray[np.int64], b: NDArray[np.int64]) -> tuple[NDArray[np.bool_], list[str]]:
        first = np.full(len(a), len(channels))
        for c, column in enumerate(columns.fetch(channels)):
            values, _ = channel_of(column, channels[c], columns.source, (), may_be_empty=options.may_be_empty)
            unequal = (values[a] != values[b]) & ~(np.isnan(values[a]) & np.isnan(values[b]))
            first = np.where(unequal, np.minimum(first, c), first)
        return first < len(channels), [channels[c] if c < len(channels) else "" for c in first]

    layout = lay_out(
        times, codes, columns.source, differences,
        names=names, frequency=options.frequency, duplicates=options.duplicates, gaps=options.gaps,
    )  # fmt: skip
    values, noted = _fill(columns, channels, layout, options)
    findings = (*columns.findings, *layout.findings, *findings, *noted)
    if options.series is None:
        series = Series(values, tuple(channels), layout.timestamps, layout.frequency, name, findings=findings)
        return series, time if _tells_when(times, layout) else None, told
    collection = Collection(
        values, layout.offsets, names, tuple(channels), layout.timestamps, layout.frequency, name=name,
        findings=findings,
    )  # fmt: skip
    return collection, time if _tells_when(times, layout) else None, told


def _tells_when(times: Times | None, layout: Layout) -> bool:
    """Whether the steps of the answer can be written into the time column: it holds times, or counts 0, 1, 2 ..."""
    if times is None or layout.timestamps is not None:
        return True
    seen = np.unique(times.ticks)
    return times.per_unit == 1 and seen[0] == 0 and bool((np.diff(seen) == 1).all())


def _fill(
    columns: Columns, channels: Sequence[str], layout: Layout, options: Options
) -> tuple[NDArray[np.floating], list[Finding]]:
    """Values [C, T], read straight into their place: in float32, or again in float64 once one channel needs it."""
    needs = ""  # the channel that single precision cannot hold
    for dtype in (np.dtype(np.float32), np.dtype(np.float64))[options.exact :]:
        values = np.empty((len(channels), layout.n_timepoints), dtype)  # [C, T]
        findings: list[Finding] = []
        name = ""
        for name, column, out in zip(channels, columns.fetch(channels), values, strict=True):
            channel, noted = channel_of(
                column, name, columns.source, options.missing_codes, may_be_empty=options.may_be_empty
            )
            if dtype == np.float32 and storage_dtype(channel[None, :]) != np.float32:
                needs = name
                break
            layout.place(channel, out)
            findings += noted
            if still := constant(out, name):
                findings.append(still)
        else:
            if dtype == np.float64 and not options.exact:
                message = (
                    f"Stored in double precision, as the movement of column {needs!r} would drown in rounding "
                    "otherwise."
                )
                findings.append(Finding("precision", message, needs))
            return values, findings
    raise AssertionError("double precision is always enough")


def _find_times(columns: Columns, options: Options, codes: NDArray[np.int64]) -> tuple[str | None, Times | None]:
    """The column named by the caller; else by its name; else the only one that holds times.

    The name alone is no reason where the counts of a series do not rise and another column holds times: a duration may
    be called time as well. codes: [n_rows] which series.
    """
    if options.time is not None:
        return options.time, _times(columns, options.time, options)
    taken = {options.series, *(options.values or ())}
    free = [name for name in columns.kinds if name not in taken]
    found = [name for name in free if name.lower() in TIME_NAMES and _could_be_time(columns, name)]
    numbers_only = all(columns.kinds[name] == "number" for name in found)
    if numbers_only and not any(
        _rises(columns.one(name), codes) or _times(columns, name, options).clock for name in found
    ):
        real = [name for name in free if columns.kinds[name] == "time"]
        real = real or [name for name in free if columns.kinds[name] == "text" and looks_like_times(columns.one(name))]
        found = real or found
    if len(found) > 1:  # a time of day belongs to the days in another column
        found = [name for name in found if not holds_times_of_day(columns, name)] or found
    if len(found) > 1:
        raise DataError(
            f"{columns.source} has several columns that could be the time: {', '.join(map(repr, found))}. "
            f"Name the one that counts, such as time={found[0]!r}."
        )
    if not found:
        return None, None
    return found[0], _times(columns, found[0], options)


def _times(columns: Columns, name: str, options: Options) -> Times:
    return times_of(columns.one(name), name, columns.source, frequency=options.frequency, local=options.local)


def _could_be_time(columns: Columns, name: str) -> bool:
    """Whether a column that is called time holds any: it may also be a measured duration."""
    kind = columns.kinds[name]
    if kind == "text":
        return looks_like_times(columns.one(name), n_cells=1)  # what is wrong further down is told as such
    if kind == "number":
        numbers = columns.one(name).cast(pa.float64(), safe=False).to_numpy()
        return bool(
            np.isfinite(numbers).all() and ((numbers == np.floor(numbers)).all() or (np.diff(numbers) >= 0).all())
        )
    return kind == "time"


def _rises(column: pa.ChunkedArray, codes: NDArray[np.int64]) -> bool:
    """Whether the numbers of each series never fall from one row to the next."""
    rows = np.argsort(codes, kind="stable")
    steps = np.diff(column.cast(pa.float64(), safe=False).to_numpy()[rows])
    return bool((steps[np.diff(codes[rows]) == 0] >= 0).all())


def _find_channels(
    columns: Columns, options: Options, time: str | None, of_day: str | None
) -> tuple[list[str], list[Finding]]:
    """The columns the caller named, or all that can be channels; a column of text is refused when it is read."""
    if options.values is not None:
        names = [options.values] if isinstance(options.values, str) else list(options.values)
        for name in names:
            columns.require(name)
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"values={names} names column {twice!r} twice. Name each column once.")
        if not names or {time, options.series} & set(names):
            raise DataError(f"values={names} must name one or more columns other than the time and series columns.")
        return names, []
    findings: list[Finding] = []
    channels: list[str] = []
    for name, kind in columns.kinds.items():
        if name in (time, of_day, options.series):
            continue
        if kind == "time":
            message = f"Column {name!r} holds times but is not the time column; it was left out."
            findings.append(Finding("time", message, name))
        elif not name and columns.one(name).null_count == columns.n_rows:  # every line ends in a separator
            continue
        elif name in _INDEX_NAMES and kind == "number" and _counts_rows(columns.one(name)):
            message = f"Column {name!r} only counts the rows; it was left out. Name it in values=[...] to keep it."
            findings.append(Finding("index", message, name))
        elif time is not None and holds_times_of_day(columns, name):
            raise DataError(
                f"{columns.source}: column {name!r} holds times of day. If they belong to the days in column {time!r}, "
                "call it time; else name the columns to read with values=[...]."
            )
        else:
            channels.append(name)
    if not channels:
        raise DataError(f"{columns.source} has no column of numbers beside {', '.join(map(repr, columns.kinds))}.")
    return channels, findings


def _counts_rows(column: pa.ChunkedArray) -> bool:
    numbers = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return bool(numbers[0] in (0, 1) and (np.diff(numbers) == 1).all())


def _find_series(columns: Columns, series: str | None) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Which series each row belongs to [n_rows], and their names in order of first appearance."""
    if series is None:
        return np.zeros(columns.n_rows, np.int64), ("series",)
    column = columns.one(series)
    if column.null_count:
        row = int(pc.is_null(column).to_numpy().argmax())
        raise DataError(f"{columns.source}: row {row} has no name in column {series!r}, so its series is unknown.")
    codes, names = pd.factorize(column.to_pandas())
    return codes.astype(np.int64), tuple(str(name) for name in names)
