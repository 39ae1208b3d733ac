"""Tables of any library: their columns on the way in, and the same kind of table on the way out."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import narwhals as nw
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from prismts.data.columns import Columns, Kind, kind_of
from prismts.data.times import Clock, looks_like_times
from prismts.errors import DataError

__all__ = ["TableKind", "columns_of_frame", "is_frame", "to_table"]

Backend = Literal["pandas", "polars", "pyarrow", "array"]
_FRAMES = {"pandas": "pandas", "polars": "polars", "pyarrow": "pyarrow"}


@dataclass(frozen=True)
class TableKind:
    """What a table was when it came in, so that what goes out can be the same."""

    backend: Backend
    time: str | None = None  # name of the time column, or of the index
    series: str | None = None  # name of the column that tells series apart
    time_is_index: bool = False  # pandas only
    zone: str | None = None  # of the times: "Europe/Berlin", "+01:00"
    local: bool = False  # whether times inside are those of the clock of the zone; else they are in UTC
    counted: bool | None = None  # whether a time column of numbers was read as mere counts, and not as times
    series_type: str | None = None  # of the names of series where they are no text, as numpy calls it: "int64"

    @classmethod
    def of_columns(
        cls, backend: Backend, columns: Columns, time: str | None, told: Clock, series: str | None
    ) -> TableKind:
        """The kind of a table whose time column, how its times are told, and series column are known."""
        return cls(
            backend, time, series, zone=told.zone, local=told.local, counted=told.counted,
            series_type=None if series is None else _plain_type(columns.one(series).type),
        )  # fmt: skip


def is_frame(source: object) -> bool:
    """Whether an object is a table (or column) of pandas, polars or pyarrow."""
    return type(source).__module__.partition(".")[0] in _FRAMES


def to_table(kind: TableKind, columns: Mapping[str, NDArray]) -> Any:
    """A table of the given kind from columns of equal length: [n_rows] each.

    The kind "array" gives [n_channels, n_rows] and leaves the time and series columns out. Times get the zone of the
    kind, and names of series their type.
    """
    if kind.backend == "array":
        return np.stack([column for name, column in columns.items() if name not in (kind.time, kind.series)])
    table: dict[str, Any] = dict(columns)
    if kind.series is not None and kind.series in columns and kind.series_type is not None:
        table[kind.series] = _typed(columns[kind.series], kind.series_type)
    times = None if kind.time is None else columns.get(kind.time)
    if kind.time is not None and kind.zone is not None and isinstance(times, np.ndarray) and times.dtype.kind == "M":
        table[kind.time] = _zoned(times, kind.time, kind.zone, kind)
    if kind.backend == "pandas":
        frame = pd.DataFrame(table)
        return frame.set_index(kind.time) if kind.time_is_index and kind.time in columns else frame
    return nw.from_dict(table, backend=kind.backend).to_native()


def _plain_type(kind: pa.DataType) -> str | None:
    """What numpy calls a type of numbers or truth values; None of all others."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return np.dtype(kind.to_pandas_dtype()).name
    return None


def _typed(names: NDArray, kind: str) -> NDArray:
    return names == "True" if kind == "bool" else names.astype(str).astype(kind)


def _zoned(times: NDArray[np.datetime64], name: str, zone: str, kind: TableKind) -> Any:
    """A column of times as instants in a zone; where its clock is put forward over a time, the first one after it."""
    if kind.local:
        first = np.ones(len(times), dtype=bool)  # of two hours that the clock tells alike
        there = pd.Series(times).dt.tz_localize(zone, ambiguous=first, nonexistent="shift_forward")
        times = there.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
    if kind.backend == "pandas":
        return pd.Series(times).dt.tz_localize("UTC").dt.tz_convert(zone)
    column = pa.array(times.astype("datetime64[ns]")).cast(pa.timestamp("ns", "UTC")).cast(pa.timestamp("ns", zone))
    if kind.backend == "polars" and zone[0] in "+-":  # which knows no offsets, only names of zones
        column = column.cast(pa.timestamp("ns", "UTC"))
    return nw.from_arrow(pa.table({name: column}), backend=cast(Any, kind.backend))[name]


def columns_of_frame(frame: Any, time: str | None, series: str | None) -> tuple[Columns, TableKind]:
    """The columns of a table, which stay where they are. A pandas index counts as columns where it holds the time."""
    backend = cast(Literal["pandas", "polars", "pyarrow"], type(frame).__module__.partition(".")[0])
    index: Mapping[str, Any] = {}
    if backend == "pandas":
        if isinstance(frame, pd.Series):
            frame = frame.to_frame("value") if frame.name is None else frame.to_frame()
        if not isinstance(frame, pd.DataFrame):
            raise DataError(f"A pandas {type(frame).__name__} is no table. Pass a DataFrame.")
        index = _index_columns(frame, time, series)
    if isinstance(frame, pa.RecordBatch):
        frame = pa.table(frame)
    try:
        wrapped = nw.from_native(frame, allow_series=True)
    except nw.exceptions.DuplicateError as error:
        names = [str(name) for name in getattr(frame, "column_names", getattr(frame, "columns", ()))]
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"The table has two columns named {twice!r}. Rename one.") from error
    except TypeError as error:
        raise DataError(f"A {backend} {type(frame).__name__} is no table. Pass a table or a column of one.") from error
    if isinstance(wrapped, nw.Series):
        wrapped = wrapped.alias(wrapped.name or "value").to_frame()
    eager = wrapped.collect() if isinstance(wrapped, nw.LazyFrame) else wrapped

    pick: dict[str, Callable[[], pa.ChunkedArray]] = {}
    kinds: dict[str, Kind] = {}
    for position, column in enumerate([*index.values(), *(eager[:, i] for i in range(eager.shape[1]))]):
        name = list(index)[position] if position < len(index) else str(column.name).strip()
        if name in kinds:
            raise DataError(f"The table has two columns named {name!r}. Rename one.")
        kinds[name], pick[name] = _kind_and_fetch(name, column)

    def fetch(names: Sequence[str]) -> Iterator[pa.ChunkedArray]:
        return (pick[name]() for name in names)

    time_is_index = any(kinds[name] == "time" or name == time for name in index)
    return Columns("The table", len(eager), kinds, fetch), TableKind(backend, time_is_index=time_is_index)


def _index_columns(frame: pd.DataFrame, time: Hashable, series: Hashable) -> dict[str, Any]:
    """The levels of an index that holds times, or what the caller named."""
    index = frame.index
    asked = {str(name) for name in (time, series) if name is not None}
    named = asked & {str(name) for name in index.names if name is not None}
    times = isinstance(index, pd.DatetimeIndex | pd.PeriodIndex)
    if isinstance(index, pd.MultiIndex):
        times = any(isinstance(level, pd.DatetimeIndex | pd.PeriodIndex) for level in index.levels)
    if not times and not named and not any(_holds_times(index.get_level_values(i)) for i in range(index.nlevels)):
        return {}
    levels = [index.get_level_values(i) for i in range(index.nlevels)]
    levels = [level.to_timestamp() if isinstance(level, pd.PeriodIndex) else level for level in levels]
    names = [str(level.name) if level.name is not None else "time" for level in levels]
    return {name: nw.from_native(pd.Series(level), series_only=True) for name, level in zip(names, levels, strict=True)}


def _holds_times(level: pd.Index) -> bool:
    """Whether an index of text, of categories or of objects reads as times."""
    if isinstance(level, pd.CategoricalIndex):
        level = level.categories
    if not (level.dtype == object or isinstance(level.dtype, pd.StringDtype)) or not len(level):
        return False
    try:
        kind, fetch = _kind_and_fetch("index", nw.from_native(pd.Series(level), series_only=True))
    except (pa.ArrowException, TypeError, ValueError):
        return False
    return kind == "time" or (kind == "text" and looks_like_times(fetch()))


def _kind_and_fetch(name: str, column: nw.Series[Any]) -> tuple[Kind, Callable[[], pa.ChunkedArray]]:
    native = column.to_native()
    if isinstance(native, pd.Series) and isinstance(native.dtype, pd.PeriodDtype):
        column = nw.from_native(native.dt.to_timestamp(), series_only=True)
    elif isinstance(native, pd.Series) and (isinstance(native.dtype, pd.SparseDtype) or native.dtype == np.longdouble):
        column = nw.from_native(pd.Series(native.to_numpy(np.float64)), series_only=True)
    if isinstance(column.to_native(), pd.Series) and isinstance(column.to_native().dtype, pd.DatetimeTZDtype):
        return "time", lambda: _arrow(name, column)  # narwhals knows no zone such as America/New_York
    if column.dtype == nw.Object:  # only its cells can tell
        arrow = _arrow_of_objects(column)
        dtype = nw.from_native(pa.table({name: arrow})).schema[name]
        return kind_of(dtype), lambda: arrow
    return kind_of(column.dtype), lambda: _arrow(name, column)


def _arrow(name: str, column: nw.Series[Any]) -> pa.ChunkedArray:
    try:
        return _chunked(column.to_arrow())
    except (pa.ArrowException, TypeError, ValueError) as error:  # complex numbers, whole ones of 128 bits
        raise DataError(
            f"The table: column {name!r} holds {column.to_native().dtype}, which cannot be read. Convert it to "
            "float64, or name the columns to read with values=[...]."
        ) from error


def _arrow_of_objects(column: nw.Series[Any]) -> pa.ChunkedArray:
    native = column.to_native()
    try:
        return _chunked(column.to_arrow())
    except (pa.ArrowException, TypeError, ValueError):  # a mixture, such as numbers and words
        return _chunked(pa.Array.from_pandas(native.astype(str).where(native.notna(), None), type=pa.string()))


def _chunked(column: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    return column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
