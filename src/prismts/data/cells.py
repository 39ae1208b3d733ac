"""From the cells of one column to one channel: numbers, with NaN where nothing was observed."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported, where the checker cannot see them)

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from prismts.data.series import Finding
from prismts.errors import DataError

__all__ = ["MISSING_SPELLINGS", "MISSING_CODES", "channel_of", "mark_missing", "constant", "is_number"]

# what people write where a number is missing, in lower case
MISSING_SPELLINGS = (
    "",
    *["-", "--", ".", "?", "na", "n/a", "#n/a", "#na", "<na>", "nan", "nil", "none", "null", "missing"],
)

# numbers that loggers and archives write where one is missing
MISSING_CODES = (
    -999.0, -999.9, -9999.0, -9999.9, -99999.0, -999999.0,
    999.0, 999.9, 9999.0, 9999.9, 99999.0, 999999.0,
    -1e20, 1e20, -1e30, 1e30, 9.969209968386869e36, 3.4028234663852886e38, -2147483648.0, 2147483647.0,
    9.999e20, 1e35, 1e36, -1.07374182e9,  # of weather and ocean models
)  # fmt: skip
_ROUNDING = 2.0**-24  # of a number in single precision, which archives have and tables widen

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?(?i:inf|infinity)$"
_MARKED = re.compile(r"^[+-]?\d+([.,'’\s]\d+)+$")  # 1,234.5 or 1 234,5
_FEWEST = 8  # genuine values a search for codes needs to know a channel's range


def channel_of(
    column: pa.ChunkedArray,
    name: str,
    source: str,
    missing_codes: Sequence[float] | None,
    *,
    may_be_empty: bool = False,
) -> tuple[NDArray[np.floating], list[Finding]]:
    """One channel [n_rows] and what was noticed on the way; ``missing_codes`` as in ``read``."""
    values, findings = _numbers(column, name, source)
    values, coded = mark_missing(values, name, source, missing_codes, may_be_empty=may_be_empty)
    return values, findings + coded


def mark_missing(
    values: NDArray[np.floating],
    name: str,
    source: str,
    missing_codes: Sequence[float] | None,
    *,
    may_be_empty: bool = False,
) -> tuple[NDArray[np.floating], list[Finding]]:
    """The channel with codes for missing values turned into NaN, and how much of it is missing.

    The array is copied only where something changes. An infinite value is refused, and so is a channel without any
    value, unless it ``may_be_empty``. Without ``missing_codes`` (None) the usual ones are looked for, and believed only
    where they stand far outside the channel's other values; an empty list turns the search off.
    """
    # fmax and fmin pass over NaN, make no array on the way, and tell in one look that most channels are harmless
    low, high = float(np.fmin.reduce(values)), float(np.fmax.reduce(values))
    if np.isinf(low) or np.isinf(high):
        row = int(np.flatnonzero(np.isinf(values))[0])
        raise DataError(
            f"{source}: column {name!r} holds an infinite value in row {row}. "
            "Replace it by a number, or leave it empty to say it was not observed."
        )
    findings: list[Finding] = []
    searched = missing_codes is None
    for code in MISSING_CODES if searched else missing_codes:
        near = abs(code) * _ROUNDING
        if not low - near <= code <= high + near:  # also where everything is NaN
            continue
        hits = _are(values, code) if searched else values == values.dtype.type(code)
        if hits.any() and (not searched or _stands_apart(values, hits, code)):
            n, row = int(hits.sum()), int(hits.argmax())
            values = np.where(hits, values.dtype.type(np.nan), values)
            message = (
                f"Column {name!r}: {_count(n, 'value')} {code:g}, a code for missing, read as missing (first: row "
                f"{row})."
            )
            findings.append(Finding("sentinel", message, name, row))
    empty = np.isnan(values)
    if empty.all() and not may_be_empty:
        raise DataError(
            f"{source}: column {name!r} has no observed value in {values.size} rows. "
            "Leave it out: name the columns to read with values=[...]."
        )
    n_coded = sum(finding.kind == "sentinel" for finding in findings)
    if empty.any() and not n_coded:
        n, row = int(empty.sum()), int(empty.argmax())
        message = f"Column {name!r}: {_count(n, 'value')} of {values.size} missing (first: row {row})."
        findings.append(Finding("missing", message, name, row))
    return values, findings


def constant(values: NDArray[np.floating], name: str) -> Finding | None:
    """A note on a channel that never moves."""
    low = np.fmin.reduce(values)
    if low != np.fmax.reduce(values):
        return None
    message = f"Column {name!r} is constant ({low:g}); it was kept."
    if abs(low) >= 2**53:
        message += (
            " Double precision does not tell neighboring whole numbers of that size apart: if it moves, subtract its "
            "first value before."
        )
    return Finding("constant", message, name)


def _numbers(column: pa.ChunkedArray, name: str, source: str) -> tuple[NDArray[np.floating], list[Finding]]:
    """float32 where the column has it, otherwise float64."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    findings: list[Finding] = []
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        column, findings = _numbers_in_text(column, name, source)
    if pa.types.is_float16(column.type):
        column = column.cast(pa.float32())
    elif not pa.types.is_floating(column.type):
        try:
            column = column.cast(pa.float64(), safe=False)
        except pa.ArrowException as error:
            raise DataError(
                f"{source}: column {name!r} holds {column.type}, where numbers are expected. "
                "Name the columns to read with values=[...]."
            ) from error
    return column.to_numpy(zero_copy_only=False), findings


def _numbers_in_text(column: pa.ChunkedArray, name: str, source: str) -> tuple[pa.ChunkedArray, list[Finding]]:
    """Text as numbers, if spellings of a missing value are the only other thing it holds."""
    text = pc.utf8_trim_whitespace(column.cast(pa.string()))
    missing = pc.is_in(pc.utf8_lower(text), value_set=pa.array(MISSING_SPELLINGS))
    text = pc.if_else(missing, pa.scalar(None, pa.string()), text)
    try:
        numbers = text.cast(pa.float64())
    except pa.ArrowInvalid as error:
        bad = pc.fill_null(pc.invert(pc.match_substring_regex(text, _NUMBER)), False).to_numpy(zero_copy_only=False)
        row = int(bad.argmax())
        cell = text[row].as_py()
        if 2 * bad.sum() > len(text) - text.null_count:
            other = f"say series={name!r} if it tells several series apart"
            if _MARKED.match(cell):
                other = "write its numbers as 1234.5: the marks between these digits can be read in two ways"
            raise DataError(
                f"{source}: column {name!r} holds text ({cell!r} in row {row}), which cannot be a channel. Name the "
                f"columns to read with values=[...], or {other}."
            ) from error
        raise DataError(
            f"{source}: column {name!r} holds {cell!r} in row {row}, where a number is expected. "
            "Correct the cell, or leave it empty to say nothing was observed."
        ) from error
    spelled = pc.fill_null(missing, False).to_numpy(zero_copy_only=False)
    if not spelled.any():
        return numbers, []
    n, row = int(spelled.sum()), int(spelled.argmax())
    cell = column[row].as_py()
    return numbers, [
        Finding(
            "text",
            f"Column {name!r}: {_count(n, 'cell')} such as {cell!r} read as missing (first: row {row}).",
            name,
            row,
        )
    ]


def _are(values: NDArray[np.floating], code: float) -> NDArray[np.bool_]:
    """Which values are this code, as it is or as single precision has it."""
    near = abs(code) * _ROUNDING
    return (values >= np.float64(code - near)) & (values <= np.float64(code + near))


def _stands_apart(values: NDArray[np.floating], hits: NDArray[np.bool_], code: float) -> bool:
    """Whether a code lies where no genuine value of the channel would.

    Either it is farther from all others than ten times their middle half is wide, or it is negative in a channel
    that otherwise never is, and larger than all of it. A positive code must also occur twice: one 9999 may be real.
    """
    others = values[~hits & ~np.isnan(values)]
    for other in MISSING_CODES:  # one code must not hide another
        others = others[~_are(others, other)]
    if others.size < _FEWEST or (0 < code < 1e15 and hits.sum() < 2):
        return False
    low, quarter, three_quarters, high = (float(q) for q in np.quantile(others, [0, 0.25, 0.75, 1]))
    distance = max(low - code, code - high)
    spread = (three_quarters - quarter) or (high - low) or max(1.0, abs(high))
    return distance > 10 * spread or (code < 0 <= low and -code > high)


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" + "s" * (n != 1)


def is_number(cell: bytes) -> bool:
    """Whether a cell of a text file reads as a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True
