"""Days in one column and times of the day in another, as many instruments and spreadsheets write them."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported, where the checker cannot see them)

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from prismts.data.columns import Columns
from prismts.data.series import Finding
from prismts.data.times import Times
from prismts.errors import DataError

__all__ = ["holds_times_of_day", "with_times_of_day"]

_NAMES = ("time", "time_of_day", "clock", "hour")
_FORM = (  # 8:30, 08:30:00.25, 8:30 PM, 08.30.00; 24:00 ends a day
    r"^(?P<hour>[01]?\d|2[0-4])(?::(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d)(?P<fraction>\.\d{1,9})?)?"
    r"|\.(?P<minute_>[0-5]\d)\.(?P<second_>[0-5]\d))(?: ?(?P<half>[AaPp])\.?[Mm]\.?)?$"
)
_SECOND, _DAY = 10**9, 86_400 * 10**9


def with_times_of_day(
    columns: Columns, name: str, times: Times, taken: Collection[str | None]
) -> tuple[Times, str | None]:
    """The times of a column of days, with the times of day that another column tells, and the name of that one.

    Only where every time is midnight without a zone, and a column that is called time, time_of_day, clock or hour, and
    not ``taken``, holds times of day; else the times as they are, and None. The name decides, as a few new rows have to
    be read as many were.

    Raises:
        DataError: a cell holds no time of day.
    """
    if not times.clock or times.told.zone is not None or (times.ticks % _DAY).any():
        return times, None
    free = [other for other in columns.kinds if other.lower() in _NAMES and other != name and other not in taken]
    found = next((other for other in free if holds_times_of_day(columns, other)), None)
    if found is None:
        return times, None
    ticks = times.ticks + _since_midnight(columns.one(found), found, columns.source)
    message = f"Column {found!r} holds times of day; it was read together with the days in column {name!r}."
    return replace(times, ticks=ticks, findings=(*times.findings, Finding("time", message, found))), found


def holds_times_of_day(columns: Columns, name: str, n_cells: int = 20) -> bool:
    """Whether a column holds times of day: by its type, or as text in all of its first cells."""
    if columns.kinds[name] in ("number", "time"):
        return False
    column = _plain(columns.one(name))
    if pa.types.is_time(column.type):
        return True
    begins = column.drop_null()[:n_cells]
    return _is_text(column) and len(begins) > 0 and bool(pc.all(_matches(begins)).as_py())


def _since_midnight(column: pa.ChunkedArray, name: str, source: str) -> NDArray[np.int64]:
    """Nanoseconds since the day began [n_rows]."""
    column = _plain(column)
    if column.null_count:
        row = int(pc.is_null(column).to_numpy().argmax())
        raise DataError(f"{source}: row {row} has no time of day in column {name!r}. Fill it in, or remove the row.")
    if pa.types.is_time(column.type):
        return column.cast(pa.time64("ns")).cast(pa.int64()).to_numpy()
    text = pc.utf8_trim_whitespace(column)
    fits = _matches(text).to_numpy()
    if not fits.all():
        row = int(fits.argmin())
        raise DataError(
            f"{source}: column {name!r} holds {text[row].as_py()!r} in row {row}, which is no time of day. Write them "
            "as 08:30:00."
        )
    parts = pc.extract_regex(text, _FORM)

    def number(*fields: str) -> NDArray[np.float64]:
        """The first of these fields that is there, else 0."""
        told = [pc.struct_field(parts, field) for field in fields]
        there = [pc.if_else(pc.equal(one, ""), None, one).cast(pa.float64()) for one in told]
        return pc.fill_null(pc.coalesce(*there), 0.0).to_numpy()

    half = pc.utf8_lower(pc.struct_field(parts, "half")).to_numpy(zero_copy_only=False)
    hour = np.where(half == "", number("hour"), number("hour") % 12 + 12 * (half == "p"))
    whole = hour * 3_600 + number("minute", "minute_") * 60 + number("second", "second_")
    fraction = np.round(number("fraction") * _SECOND).astype(np.int64)
    return whole.astype(np.int64) * _SECOND + fraction


def _matches(text: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.match_substring_regex(pc.utf8_trim_whitespace(text), _FORM)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _is_text(column: pa.ChunkedArray) -> bool:
    kind = column.type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
