"""From the cells of a time column to whole numbers: nanoseconds since 1970, or steps that are only counted."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported, where the checker cannot see them)

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pandas.tseries.api import guess_datetime_format
from pandas.tseries.frequencies import to_offset
from pandas.tseries.offsets import BusinessHour

from prismts.data.series import Finding
from prismts.errors import DataError

__all__ = ["Clock", "Times", "times_of", "looks_like_times"]

_DAY_OR_MONTH_FIRST = re.compile(r"^(\d{1,2})([/.\-])(\d{1,2})\2(\d{4}|\d{2})(?P<clock>\D.*)?$")
_YEAR_FIRST = re.compile(r"^\d{4}([/.\-])\d{1,2}\1\d{1,2}(?P<clock>\D.*)?$")
_CLOCK = re.compile(r"^(?P<gap>T|,? +)\d{1,2}:\d{2}(?P<second>:\d{2})?(?P<fraction>\.\d+)?(?P<half> ?[AaPp][Mm])?$")
_OFFSET = r"(?P<offset>[+-]\d{2}(?::?\d{2})?|[Zz])$"
_QUARTER = re.compile(r"^\d{4}-?[Qq][1-4]$")
# times that are written as one whole number, by its number of digits
_WRITTEN = {
    6: ("%Y%m", "months written YYYYMM"),
    8: ("%Y%m%d", "dates written YYYYMMDD"),
    10: ("%Y%m%d%H", "times written YYYYMMDDHH"),
    12: ("%Y%m%d%H%M", "times written YYYYMMDDHHMM"),
    14: ("%Y%m%d%H%M%S", "times written YYYYMMDDHHMMSS"),
}
_HOUR, _DAY = 3_600 * 10**9, 86_400 * 10**9
_MILLION = 10**6  # ticks in one unit of elapsed time
_MOST_SHIFT = 3 * _HOUR  # between the clocks of a zone in the course of a year, and room to spare


@dataclass(frozen=True)
class Clock:
    """How times are told that have a zone, or that are numbers."""

    zone: str | None = None  # "Europe/Berlin", "+01:00"; None where there is none, or where it is not to be told
    local: bool = False  # whether times inside are those of the clock there; else they are in UTC
    counted: bool | None = None  # whether numbers were read as mere counts, and not as times; None of what is no number


@dataclass(frozen=True, eq=False)
class Times:
    """When each row was taken."""

    ticks: NDArray[np.int64]  # [n_rows]
    clock: bool = True  # nanoseconds since 1970; False: numbers that only order and space the rows
    findings: tuple[Finding, ...] = ()
    per_unit: int = 1  # ticks in one unit of the column, where they are no nanoseconds
    told: Clock = Clock()

    def show(self, tick: int) -> str:
        """A tick as a person writes it."""
        return str(pd.Timestamp(tick)) if self.clock else self.show_step(tick)

    def show_step(self, ticks: int) -> str:
        """A length of time as a person writes it."""
        return str(pd.Timedelta(ticks)).removeprefix("0 days ") if self.clock else f"{ticks / self.per_unit:g}"


def times_of(
    column: pa.ChunkedArray, name: str, source: str, *, frequency: str | None = None, local: bool | None = None
) -> Times:
    """Read a time column: timestamps, dates, text in one format throughout, or numbers.

    Numbers are dates written 20160701 (or 201607, 2016070100, 201607010000, 20160701000000), weeks written 201627, as
    ISO 8601 counts them, seconds, milliseconds, microseconds or nanoseconds since 1970 (told by their size), years, or
    else counts of steps. Every cell must hold a time.

    Times with a zone become UTC, unless they are days: rows that all stand at one time of the day by the clock of
    their zone, on two days or more, or any with a ``frequency`` of whole days. These are read by that clock, which
    is a whole day apart also where it is put forward. ``local`` says what was found before of the same table.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    _refuse_empty(column, name, source)
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        zone = kind.tz if pa.types.is_timestamp(kind) else None
        try:
            ticks = column.cast(pa.timestamp("ns", zone)).cast(pa.int64()).to_numpy()
        except pa.ArrowInvalid as error:
            raise _out_of_range(name, source) from error
        if zone is None:
            return Times(ticks)
        return _in_a_zone(ticks, lambda: _by_the_clock(ticks, zone), zone, name, frequency, local)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _from_numbers(column, name, source)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return _from_text(column, name, source, frequency, local)
    raise DataError(f"{source}: column {name!r} holds {kind}, which is not a time. Name the time column with time=...")


def looks_like_times(column: pa.ChunkedArray, n_cells: int = 20) -> bool:
    """Whether a text column begins with times: all of its first ``n_cells`` cells."""
    try:
        times_of(column.drop_null()[:n_cells], "", "")
    except DataError as error:
        return "day or month" in str(error)  # times, if not clear ones: times_of will say so
    return column.null_count < len(column)


def _refuse_empty(column: pa.ChunkedArray, name: str, source: str) -> None:
    if column.null_count:
        row = int(pc.is_null(column, nan_is_null=True).to_numpy().argmax())
        raise DataError(f"{source}: row {row} has no time in column {name!r}. Fill it in, or remove the row.")


def _out_of_range(name: str, source: str) -> DataError:
    return DataError(f"{source}: column {name!r} holds times outside the years 1678 to 2261, which cannot be stored.")


def _in_a_zone(
    utc: NDArray[np.int64], there: Callable[[], NDArray[np.int64]], zone: str, name: str, frequency: str | None,
    local: bool | None,
) -> Times:  # fmt: skip
    """Ticks in UTC, or those of the clock ``there`` where rows are days; a zone of "" stands for several offsets."""
    if local is None:
        local = _could_be_days(utc, frequency) and (frequency is not None or _at_one_time_of_the_day(there()))
    if not local:
        message = f"Column {name!r} has time zones; its times are read as the instants they are, in UTC."
        return Times(utc, findings=(Finding("timezone", message, name),), told=Clock(zone or "UTC"))
    message = f"Column {name!r} has time zones and tells days; its times are read by the clock there."
    return Times(there(), findings=(Finding("timezone", message, name),), told=Clock(zone or None, local=True))


def _by_the_clock(utc: NDArray[np.int64], zone: str) -> NDArray[np.int64]:
    there = pd.DatetimeIndex(utc.view("datetime64[ns]")).tz_localize("UTC").tz_convert(zone).tz_localize(None)
    return there.as_unit("ns").to_numpy().astype(np.int64)


def _could_be_days(utc: NDArray[np.int64], frequency: str | None) -> bool:
    """What would rule days out at once: rows at many times of the day, or a step that is no whole day."""
    if frequency is not None:
        return _whole_days(frequency)
    return len(utc) > 1 and int(np.ptp((utc - utc[0] + _DAY // 2) % _DAY)) <= _MOST_SHIFT


def _at_one_time_of_the_day(clock: NDArray[np.int64]) -> bool:
    days, rest = np.divmod(clock, _DAY)
    return bool((rest == rest[0]).all() and (days != days[0]).any())


def _whole_days(frequency: str) -> bool:
    """Whether the steps of a pandas offset alias are days, weeks, months ...; what is no alias is refused elsewhere."""
    try:
        offset = to_offset(frequency)
    except (TypeError, ValueError):
        return False
    try:
        return int(offset.nanos) % _DAY == 0
    except ValueError:  # no fixed length: a calendar's
        return not isinstance(offset, BusinessHour)


def _from_numbers(column: pa.ChunkedArray, name: str, source: str) -> Times:
    if pa.types.is_unsigned_integer(column.type) or pa.types.is_decimal(column.type):
        column = column.cast(pa.float64(), safe=False)
    numbers = column.to_numpy()
    if not np.isfinite(numbers).all():
        row = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise DataError(f"{source}: row {row} has no time in column {name!r}. Fill it in, or remove the row.")
    largest = float(np.abs(numbers.astype(np.float64)).max())
    counts_whole = bool((numbers == np.floor(numbers)).all())
    if largest >= 2**63 / (1 if counts_whole or numbers.min() >= 10**8 else _MILLION):
        raise DataError(f"{source}: column {name!r} holds {largest:g}, which is too large for a time. Correct it.")
    whole = np.floor(numbers).astype(np.int64)
    low, high = int(whole.min()), int(whole.max())

    def noted(ticks: NDArray[np.int64], reading: str, clock: bool = True, per_unit: int = 1) -> Times:
        message = f"Column {name!r} was read as {reading}."
        return Times(ticks, clock, (Finding("time", message, name),), per_unit, Clock(counted=not clock))

    if counts_whole and (found := _written_dates(whole, low, high, name, source)) is not None:
        return noted(*found)
    if counts_whole and low >= 1700 and high <= 2200:
        years = (whole - 1970).astype("datetime64[Y]").astype("datetime64[ns]")
        return noted(years.astype(np.int64), "years")
    if low >= 10**8:
        per_tick, unit = next(
            (scale, unit)
            for below, scale, unit in (
                (10**11, 10**9, "seconds"),
                (10**14, 10**6, "milliseconds"),
                (10**17, 10**3, "microseconds"),
                (2**63, 1, "nanoseconds"),
            )
            if high < below
        )
        if high > (2**63 - 1) // per_tick:
            raise _out_of_range(name, source)
        # parts of a unit are kept to the microsecond, which is what a float of that size can hold
        parts = np.rint((numbers - whole) * per_tick / 1000).astype(np.int64) * 1000 if not counts_whole else 0
        return noted(whole * per_tick + parts, f"{unit} since 1970")
    if counts_whole:
        return noted(whole, "numbers of steps, which order the rows; the series has no timestamps", clock=False)
    numbers, noise = numbers.astype(np.float64), 4 * float(np.finfo(numbers.dtype).eps) * largest
    rate = _rate(np.unique(numbers), noise)
    reading = "elapsed time, which orders the rows; the series has no timestamps"
    return noted(np.rint(numbers * rate).astype(np.int64), reading, clock=False, per_unit=rate)


def _written_dates(
    whole: NDArray[np.int64], low: int, high: int, name: str, source: str
) -> tuple[NDArray[np.int64], str] | None:
    """Ticks of times that are written as one number, such as 201607, and how they were read; None of other numbers."""
    digits = len(str(low))
    years = 10 ** max(0, digits - 4)  # what comes behind the year
    if digits not in _WRITTEN or low < 1900 * years or high >= 2201 * years:
        return None
    form, reading = _WRITTEN[digits]
    dates = pd.to_datetime(pd.Series(whole.astype(str)), format=form, errors="coerce")
    if digits == 6 and dates.isna().any() and bool(((whole % 100 >= 1) & (whole % 100 <= 53)).all()):
        dates = pd.to_datetime(pd.Series((10 * whole + 1).astype(str)), format="%G%V%u", errors="coerce")
        reading = "weeks written YYYYWW, which begin on Monday (ISO 8601)"
        unknown = dates.isna().to_numpy()
        if unknown.any() and low // 100 < high // 100:
            row = int(unknown.argmax())
            year, week = divmod(int(whole[row]), 100)
            raise DataError(
                f"{source}: column {name!r} looks like weeks written YYYYWW, but {year} has no week {week} by ISO 8601 "
                f"(row {row}). Write the day on which each week begins, such as {year}-12-28."
            )
    return None if dates.isna().any() else (_nanoseconds(dates, name, source), reading)


def _rate(moments: NDArray[np.float64], noise: float) -> int:
    """Ticks in one unit of elapsed time: a million, or the steps in it, if the numbers are such steps, rounded.

    moments: [n], rising; steps of 1/30 are written 0.0333, 0.0667, 0.1, and are no whole number of millionths.
    ``noise`` is what a number may be off by itself.
    """
    if len(moments) < 3:
        return _MILLION
    decimals = next((d for d in range(1, 9) if np.abs(moments - moments.round(d)).max() <= noise), 9)
    rounding = 0.5 * 10.0**-decimals + noise
    gaps = np.diff(moments)
    rate = round(float(np.rint(gaps / np.median(gaps)).sum() / gaps.sum()))
    if rate > 1 and 10 * rounding * rate < 1 and np.abs(moments - np.rint(moments * rate) / rate).max() <= rounding:
        return rate
    return _MILLION


def _from_text(
    column: pa.ChunkedArray, name: str, source: str, frequency: str | None, local: bool | None
) -> Times:  # fmt: skip
    """Text in the format of its first cell."""
    for zone in (None, "UTC"):  # the usual cases, many times faster than the rest
        with contextlib.suppress(pa.ArrowInvalid):
            ticks = column.cast(pa.timestamp("ns", zone)).cast(pa.int64()).to_numpy()
            return Times(ticks) if zone is None else _with_offsets(ticks, column, name, frequency, local)
    trimmed = pc.utf8_trim_whitespace(column)
    text = pd.Series(trimmed.to_numpy(zero_copy_only=False))
    if not len(text):
        return Times(np.empty(0, np.int64))
    first = str(text.iloc[0])
    findings: tuple[Finding, ...] = ()
    if match := _DAY_OR_MONTH_FIRST.match(first):
        parsed, findings = _day_or_month_first(text, match, name, source)
    elif _QUARTER.match(first):
        months = text.str.replace("-", "").str.upper()
        for quarter, month in zip("1234", ("-01", "-04", "-07", "-10"), strict=True):
            months = months.str.replace(f"Q{quarter}", month)
        parsed = _parse(months, "ISO8601")
    else:
        parsed = _parse(text, "ISO8601")
        if parsed.isna().any():
            year_first = _YEAR_FIRST.match(first)
            clock = _clock_format(year_first["clock"]) if year_first else None
            if year_first and clock is not None:
                form = f"%Y{year_first[1]}%m{year_first[1]}%d{clock}"
            else:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    form = guess_datetime_format(first)
            again = _parse(text, form) if form else parsed
            parsed = again if again.isna().sum() < parsed.isna().sum() else parsed
    if parsed.isna().any():
        row = int(parsed.isna().to_numpy().argmax())
        raise DataError(
            f"{source}: column {name!r} holds {str(text.iloc[row])!r} in row {row}, which is not a time"
            f"{'' if row == 0 else f' written like {first!r} in row 0'}. "
            "Write times as 2016-07-01 00:00:00, or name another time column with time=..."
        )
    if parsed.dt.tz is None:
        return Times(_nanoseconds(parsed, name, source), findings=findings)
    utc = _nanoseconds(parsed.dt.tz_convert("UTC").dt.tz_localize(None), name, source)
    found = _with_offsets(utc, trimmed, name, frequency, local)
    return replace(found, findings=findings + found.findings)


def _with_offsets(
    utc: NDArray[np.int64], text: pa.ChunkedArray, name: str, frequency: str | None, local: bool | None
) -> Times:
    """Ticks whose text tells how far ahead of UTC it is; of several such offsets none is told again."""
    told = pc.struct_field(pc.extract_regex(text, _OFFSET), "offset")
    found = pc.unique(told).to_pylist()
    plain = [
        "+00:00" if offset in (None, *"Zz") else f"{offset[:3]}:{offset[3:].strip(':') or '00'}" for offset in found
    ]
    only = plain[0] if len(set(plain)) == 1 else ""

    def there() -> NDArray[np.int64]:
        ahead = [int(offset[:3]) * 60 + int(f"{offset[0]}{offset[-2:]}") for offset in plain]  # minutes
        codes = pc.index_in(told, pa.array(found, told.type)).to_numpy()
        return utc + np.array(ahead, dtype=np.int64)[codes] * 60 * 10**9

    return _in_a_zone(utc, there, "UTC" if only[1:] == "00:00" else only, name, frequency, local)


def _parse(text: pd.Series, form: str) -> pd.Series:
    """Times in one format, NaT where a cell has another; mixed zones become UTC."""
    try:
        return pd.to_datetime(text, format=form, errors="coerce")
    except ValueError:  # more than one zone
        return pd.to_datetime(text, format=form, errors="coerce", utc=True)


def _clock_format(clock: str | None) -> str | None:
    """The strptime format of a time of day; None where it is none."""
    if not clock:
        return ""
    match = _CLOCK.match(clock)
    if match is None:
        return None
    hours = "%I:%M" if match["half"] else "%H:%M"
    half = (" " * match["half"].startswith(" ") + "%p") if match["half"] else ""
    return f"{match['gap']}{hours}{':%S' * bool(match['second'])}{'.%f' * bool(match['fraction'])}{half}"


def _day_or_month_first(
    text: pd.Series, match: re.Match[str], name: str, source: str
) -> tuple[pd.Series, tuple[Finding, ...]]:
    """03/04/2020 is read the one way that makes times of all rows, or else the one way that makes them regular."""
    clock = _clock_format(match["clock"])
    if clock is None:
        return _parse(text, "ISO8601"), ()
    mark, year = match[2], "%Y" if len(match[4]) == 4 else "%y"
    if year == "%Y" and "%p" not in clock:  # turned round, these are ISO times, which are parsed many times faster
        parts, cells = rf"^(\d{{1,2}})\{mark}(\d{{1,2}})\{mark}(\d{{4}})", pa.array(text, pa.string())
        day_first, month_first = (
            _parse(pd.Series(pc.replace_substring_regex(cells, parts, order).to_numpy(zero_copy_only=False)), "ISO8601")
            for order in (r"\3-\2-\1", r"\3-\1-\2")
        )
    else:
        day_first = _parse(text, f"%d{mark}%m{mark}{year}{clock}")
        month_first = _parse(text, f"%m{mark}%d{mark}{year}{clock}")
    if month_first.isna().any() or day_first.isna().any():
        return (day_first if day_first.isna().sum() < month_first.isna().sum() else month_first), ()
    if (day_first == month_first).all():
        return day_first, ()
    regular = [
        pd.infer_freq(pd.DatetimeIndex(np.unique(way))) if way.nunique() > 2 else None
        for way in (day_first, month_first)
    ]
    if (regular[0] is None) == (regular[1] is None):
        raise DataError(
            f"{source}: it cannot be told whether the day or month comes first in column {name!r} ({text.iloc[0]!r}). "
            "Write times as 2016-07-01 00:00:00, or parse the column before."
        )
    way, which = (month_first, "month") if regular[0] is None else (day_first, "day")
    message = (
        f"Column {name!r}: dates such as {text.iloc[0]!r} were read with the {which} first, as only so they are "
        "regular."
    )
    return way, (Finding("time", message, name),)


def _nanoseconds(parsed: pd.Series, name: str, source: str) -> NDArray[np.int64]:
    try:
        return parsed.dt.as_unit("ns").to_numpy().astype(np.int64)
    except pd.errors.OutOfBoundsDatetime as error:
        raise _out_of_range(name, source) from error
