"""The one way in: files, tables of any library and arrays become a Series or a Collection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from prismts.data.arrays import of_array, of_arrays, read_npz, read_numbers
from prismts.data.assemble import Options, assemble
from prismts.data.columns import Columns
from prismts.data.delimited import columns_of_csv
from prismts.data.files import existing_file, stem
from prismts.data.frequency import lies_on
from prismts.data.layout import Duplicates, Gaps
from prismts.data.parquet import columns_of_parquet
from prismts.data.series import Collection, Series
from prismts.data.tables import TableKind, columns_of_frame, is_frame
from prismts.data.ts_format import read_ts
from prismts.errors import DataError, ShapeError, unknown_name

__all__ = ["columns_of", "read", "read_with_kind"]

TABLE_FILES: dict[str, Callable[[Path, Sequence[str]], Columns]] = {
    ".csv": columns_of_csv,
    ".csv.gz": columns_of_csv,
    ".parquet": lambda path, _: columns_of_parquet(path),
}
ARRAY_FILES: dict[str, Callable[[Path, Options], Series | Collection]] = {
    ".npz": lambda path, how: read_npz(path, how.missing_codes, may_be_empty=how.may_be_empty, exact=how.exact),
    ".txt": lambda path, how: read_numbers(path, how.missing_codes, may_be_empty=how.may_be_empty, exact=how.exact),
    ".txt.gz": lambda path, how: read_numbers(path, how.missing_codes, may_be_empty=how.may_be_empty, exact=how.exact),
    ".ts": lambda path, _: read_ts(path),
    ".ts.gz": lambda path, _: read_ts(path),
}
EmptyChannels = Literal["refuse", "keep"]


def read(
    source: Any,
    *,
    time: str | None = None,
    series: str | None = None,
    values: Sequence[str] | None = None,
    frequency: str | None = None,
    duplicates: Duplicates = "refuse",
    gaps: Gaps = "fill",
    missing_codes: Sequence[float] | None = None,
    empty_channels: EmptyChannels = "refuse",
) -> Series | Collection:
    """Read a file, a table or an array; everything noticed on the way is in ``findings``.

    ``source`` is a path (.csv, .parquet, .npz, .ts, .txt with one number a line; text also as .gz), a table of pandas,
    polars or pyarrow with time down the rows, an array [channel, time] or [case, channel, time], a list of arrays
    [channel, time], or a Series or Collection, which comes back as it is.

    Of a table:

    - ``time`` names the time column. Without it: a column named date, time, timestamp, datetime or ds, or a pandas
      index of times, or else the only column that holds times. A table may have none. Where it holds days, a column
      called time, time_of_day, clock or hour that holds times of day is read with it.
    - ``series`` names the column that tells the series of a long table apart; they become a Collection.
    - ``values`` names the columns to read as channels; without it, all others, and one that holds text is refused.
    - ``frequency`` is the true step, as a pandas offset alias. Without it: the most common step, or the calendar's.
      Rows that lie off it are refused, or moved to the nearest step where a frequency is given.
    - ``duplicates`` says what becomes of rows with equal times but other values: "refuse" them, or use the "first", the
      "last" or their "mean". Rows that are equal throughout are dropped. "keep" leaves all rows in, also these, and the
      series without a frequency unless one is given.
    - ``gaps`` says what becomes of missing rows: "fill" them with NaN, "refuse" them, or "keep" the rows as they are,
      which leaves an irregular series without a frequency unless one is given.

    ``missing_codes`` are numbers that stand for a missing value. Without them, -9999 and its like are looked for and
    believed where they stand far outside a channel's other values; ``()`` turns the search off. Labeled sets (.ts, and
    .npz with train and test) are taken as published. A channel without any value is refused, or kept as it is with
    ``empty_channels="keep"``, as fits new data for a model that has learned the channel from others.

    Rows are counted from 0 without the header, as in pandas. Values are kept in single precision, unless a channel's
    movement would be lost in it.
    """
    data, _ = read_with_kind(
        source, time=time, series=series, values=values, frequency=frequency, duplicates=duplicates, gaps=gaps,
        missing_codes=missing_codes, empty_channels=empty_channels,
    )  # fmt: skip
    return data


def read_with_kind(
    source: Any,
    *,
    time: str | None = None,
    series: str | None = None,
    values: Sequence[str] | None = None,
    frequency: str | None = None,
    duplicates: Duplicates = "refuse",
    gaps: Gaps = "fill",
    missing_codes: Sequence[float] | None = None,
    empty_channels: EmptyChannels = "refuse",
    exact: bool = False,
) -> tuple[Series | Collection, TableKind]:
    """As ``read``, and what kind of table it was, so that ``to_table`` can answer in kind; files count as pandas.

    Times with a zone are instants: inside they are in UTC, and a table of answers shows them in the zone they came in.
    Text with one offset throughout keeps that offset, text with several comes back in UTC. Days are another matter:
    rows that all stand at one time of the day in their zone, or have a frequency of whole days, are read by the clock
    there, and come back by it; text with several offsets then comes back without any.

    ``exact`` keeps the values of tables and files in double precision.
    """
    for what, choice, choices in (
        ("way with duplicates", duplicates, Duplicates),
        ("way with gaps", gaps, Gaps),
        ("way with empty channels", empty_channels, EmptyChannels),
    ):
        if choice not in get_args(choices):
            raise unknown_name(what, choice, get_args(choices))
    options = Options(
        _name(time), _name(series), _names(values), frequency, duplicates, gaps, missing_codes,
        may_be_empty=empty_channels == "keep", exact=exact,
    )  # fmt: skip
    data, kind = _read(source, options)
    if options.may_be_empty and data is not source and bool(np.isnan(data.values).all()):
        raise DataError("Nothing was observed: every value is missing. Pass data with a value at least.")
    return data, kind


def _read(source: Any, options: Options) -> tuple[Series | Collection, TableKind]:
    if isinstance(source, Series | Collection):
        source = _timed(source, on_grid=options.gaps == "fill")
    if isinstance(source, Series):
        return source, TableKind("pandas", None if source.timestamps is None else "time")
    if isinstance(source, Collection):
        return source, TableKind("pandas", None if source.timestamps is None else "time", "series")
    if isinstance(source, str | Path):
        return _read_file(Path(source).expanduser(), options)
    if is_frame(source):
        columns, kind = columns_of_frame(source, options.time, options.series)
        data, time, told = assemble(columns, options, "series" if options.series is None else "collection")
        whole = TableKind.of_columns(kind.backend, columns, time, told, options.series)
        return data, replace(whole, time_is_index=kind.time_is_index)
    if isinstance(source, np.ndarray):
        return of_array(source, missing_codes=options.missing_codes, may_be_empty=options.may_be_empty), TableKind(
            "array"
        )
    if isinstance(source, list | tuple) and not source:
        raise ShapeError("The list holds no case. Pass one array [channel, time] for each case.")
    if isinstance(source, list | tuple) and all(isinstance(case, np.ndarray) for case in source):
        return of_arrays(source, options.missing_codes, may_be_empty=options.may_be_empty), TableKind("array")
    raise DataError(
        f"Cannot read a {type(source).__name__}. Pass a path, a table of pandas, polars or pyarrow, an array "
        "[channel, time] "
        "or [case, channel, time], or a list of arrays [channel, time]."
    )


def _timed(source: Series | Collection, *, on_grid: bool) -> Series | Collection:
    """The same with times as datetime64; on the grid they have to be the steps of the frequency they came with.

    Data that report steps of other lengths themselves, as sets do whose rows count as steps, are taken at their word.
    """
    if source.timestamps is None:
        return source
    times = np.asarray(source.timestamps)
    who = f"{type(source).__name__} {source.name!r}"
    if times.dtype.kind != "M" or np.isnat(times).any():
        raise DataError(f"{who} has timestamps of {times.dtype}, where datetime64 without NaT is expected.")
    offsets = source.offsets if isinstance(source, Collection) else np.array([0, len(times)])
    reported = any(finding.kind == "frequency" for finding in source.findings)
    if on_grid and source.frequency is not None and not reported and not lies_on(source.frequency, times, offsets):
        raise DataError(
            f"{who} says frequency={source.frequency!r}, but its timestamps are not one step of it apart, each later "
            "than the one before. Correct them, or pass a table to prismts.read, which sorts rows and fills gaps."
        )
    return source if times is source.timestamps else replace(source, timestamps=times)


def columns_of(source: Any, time: Any = None, series: Any = None, label: Any = None) -> tuple[Columns, str] | None:
    """The columns of a table or of a path to one, and what the table is called; None of anything else.

    Series and classes in text are called as they are written there: 007 is not 7.
    """
    if is_frame(source):
        return columns_of_frame(source, time, series)[0], "collection"
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        ending = next((ending for ending in TABLE_FILES if path.name.lower().endswith(ending)), None)
        if ending is not None:
            names = [str(name) for name in (series, label) if name is not None]
            return TABLE_FILES[ending](existing_file(path), names), stem(path)
    return None


def _read_file(path: Path, options: Options) -> tuple[Series | Collection, TableKind]:
    existing_file(path)
    found = columns_of(path, series=options.series)
    if found is not None:
        data, time, told = assemble(found[0], options, found[1])
        return data, TableKind.of_columns("pandas", found[0], time, told, options.series)
    ending = next((ending for ending in ARRAY_FILES if path.name.lower().endswith(ending)), None)
    if ending is None:
        known = ", ".join(sorted((*TABLE_FILES, *ARRAY_FILES)))
        raise DataError(f"{path.name}: the ending tells no format that is read. Known: {known}.")
    return ARRAY_FILES[ending](path, options), TableKind("pandas")


def _name(name: Any) -> str | None:
    """The name of a column as tables are read: pandas may call a column by a number."""
    return None if name is None else str(name)


def _names(names: Any) -> list[str] | None:
    """Names of columns; a single one may come alone."""
    if names is None:
        return None
    return [str(name) for name in ([names] if isinstance(names, str) else names)]
