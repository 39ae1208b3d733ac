"""The one way in: files, tables of any library and arrays become a Series or a Collection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from prismts.data.arrays import of_array, of_arrays, read_npz, read_numbers
from prismts.data.assemble import Options, assemble
from prismts.data.columns import Columns
from prismts.data.delimited import columns_of_csv
from prismts.data.files import existing_file, stem
from prismts.data.layout import Duplicates, Gaps
from prismts.data.parquet import columns_of_parquet
from prismts.data.series import Collection, Series
from prismts.data.tables import TableKind, columns_of_frame, is_frame
from prismts.data.ts_format import read_ts
from prismts.errors import DataError, unknown_name

__all__ = ["read", "read_with_kind"]

TABLE_FILES: dict[str, Callable[[Path], Columns]] = {
    ".csv": columns_of_csv,
    ".csv.gz": columns_of_csv,
    ".parquet": columns_of_parquet,
}
ARRAY_FILES: dict[str, Callable[[Path, Sequence[float] | None], Series | Collection]] = {
    ".npz": read_npz,
    ".txt": read_numbers,
    ".txt.gz": read_numbers,
    ".ts": lambda path, _: read_ts(path),
    ".ts.gz": lambda path, _: read_ts(path),
}


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
) -> Series | Collection:
    """Read a file, a table or an array; everything noticed on the way is in ``findings``.

    ``source`` is a path (.csv, .parquet, .npz, .ts, .txt with one number a line; text also as .gz), a table of pandas,
    polars or pyarrow with time down the rows, an array [channel, time] or [case, channel, time], a list of arrays
    [channel, time], or a Series or Collection, which comes back as it is.

    Of a table:

    - ``time`` names the time column. Without it: a column named date, time, timestamp, datetime or ds, or a pandas
      index of times, or else the only column that holds times. A table may have none.
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
    .npz with train and test) are taken as published.

    Rows are counted from 0 without the header, as in pandas. Values are kept in single precision, unless a channel's
    movement would be lost in it.
    """
    data, _ = read_with_kind(
        source, time=time, series=series, values=values, frequency=frequency, duplicates=duplicates, gaps=gaps,
        missing_codes=missing_codes,
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
) -> tuple[Series | Collection, TableKind]:
    """As ``read``, and what kind of table it was, so that ``to_table`` can answer in kind; files count as pandas."""
    for what, choice, choices in (("way with duplicates", duplicates, Duplicates), ("way with gaps", gaps, Gaps)):
        if choice not in get_args(choices):
            raise unknown_name(what, choice, get_args(choices))
    options = Options(time, series, values, frequency, duplicates, gaps, missing_codes)
    if isinstance(source, Series):
        return source, TableKind("pandas", None if source.timestamps is None else "time")
    if isinstance(source, Collection):
        return source, TableKind("pandas", None if source.timestamps is None else "time", "series")
    if isinstance(source, str | Path):
        return _read_file(Path(source).expanduser(), options)
    if is_frame(source):
        columns, kind = columns_of_frame(source, time, series)
        data, found = assemble(columns, options, "series" if series is None else "collection")
        return data, replace(kind, time=found, series=series)
    if isinstance(source, np.ndarray):
        return of_array(source, missing_codes=missing_codes), TableKind("array")
    if isinstance(source, list | tuple) and source and all(isinstance(case, np.ndarray) for case in source):
        return of_arrays(source, missing_codes), TableKind("array")
    raise DataError(
        f"Cannot read a {type(source).__name__}. Pass a path, a table of pandas, polars or pyarrow, an array "
        "[channel, time] "
        "or [case, channel, time], or a list of arrays [channel, time]."
    )


def _read_file(path: Path, options: Options) -> tuple[Series | Collection, TableKind]:
    existing_file(path)
    ending = next((ending for ending in (*TABLE_FILES, *ARRAY_FILES) if path.name.lower().endswith(ending)), None)
    if ending is None:
        known = ", ".join(sorted((*TABLE_FILES, *ARRAY_FILES)))
        raise DataError(f"{path.name}: the ending tells no format that is read. Known: {known}.")
    if ending in ARRAY_FILES:
        return ARRAY_FILES[ending](path, options.missing_codes), TableKind("pandas")
    data, time = assemble(TABLE_FILES[ending](path), options, stem(path))
    return data, TableKind("pandas", time, options.series)
