"""Delimited text as columns: commas, semicolons, tabs or bars, with a header."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported, where the checker cannot see them)

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pac
import pyarrow.csv as pc

from prismts.data.cells import MISSING_SPELLINGS
from prismts.data.columns import Columns, columns_of_arrow
from prismts.data.files import as_utf8, read_bytes
from prismts.data.series import Finding
from prismts.errors import DataError

__all__ = ["columns_of_csv"]

_DECIMAL_COMMA = re.compile(rb"(?:^|;)\s*\"?[+-]?(?:\d{1,3}(?:\.\d{3})+|\d+),\d+\"?\s*(?=;|$)")
_GROUPED = r"^\s*[+-]?\d{1,3}(\.\d{3})+(,\d+)?\s*$"  # 1.054,91: points stand between thousands
_LINES = 1_000  # that are searched for a decimal comma
_QUOTED = re.compile(rb'"[^"]*"')
_PLAIN = r"^\s*[+-]?\d+(,\d+)?\s*$"
# a number or a time; a table may call its columns 0, 1, 2
_VALUE = re.compile(r"[+-]?\d+([.,]\d+)?([eE][+-]?\d+)?|\d{4}-\d\d-\d\d([ T]\d\d:\d\d.*)?")


def columns_of_csv(path: Path, names: Sequence[str] = ()) -> Columns:
    """The columns of a .csv or .csv.gz file.

    The separator is the one of , ; tab and | that occurs most often in the header, outside of quoted names, and equally
    often in the line below it, if one does. Numbers with a decimal comma are
    read where the separator is a semicolon and one of the first 1000 lines has such a number; points stand between
    thousands then, and 1.010 is a thousand and ten.

    ``names`` are columns whose cells name things, such as series or classes: they are text as it is written, as 007 is
    not 7, unless that is how their numbers are written anyway.
    """
    data, findings = as_utf8(read_bytes(path), path.name)
    lines = data[: 2**20].lstrip(b"\r\n").splitlines()[:_LINES]
    separator = _separator(lines)
    decimal_comma = separator == ord(";") and any(_DECIMAL_COMMA.search(line) for line in lines[1:])
    table, zoned = _parse(data, path.name, chr(separator), "," if decimal_comma else ".", names)
    columns = [name.strip() for name in table.column_names]
    values = [name for name in columns if _VALUE.fullmatch(name)]
    missing = [name for name in columns if name and name.lower() in MISSING_SPELLINGS]
    if len(values) + len(missing) == len(columns) and not all(name.isdigit() for name in values):
        shown = ", ".join(columns[:5]) + ", ..." * (len(columns) > 5)
        raise DataError(
            f"{path.name}: line 1 ({shown}) holds values, where names of columns are expected. Put a line with the "
            "names above it, such as: time,load."
        )
    repeated = next((name for name, n in Counter(columns).items() if n > 1), None)
    if repeated is not None:
        raise DataError(f"{path.name} has two columns named {repeated!r}. Rename one.")
    if not table.num_rows:
        raise DataError(
            f"{path.name} has a header ({', '.join(columns[:5])}{', ...' * (len(columns) > 5)}) but no rows."
        )
    table = table.rename_columns(columns)
    if decimal_comma:
        table, noted = _ungrouped(table, names)
        findings = (*findings, *noted)
    whole = columns_of_arrow(table, path.name, findings)
    return replace(whole, kinds={name: "time" if name in zoned else kind for name, kind in whole.kinds.items()})


def _separator(lines: list[bytes]) -> int:
    """The byte between the cells, as the header and the line below it tell."""
    header, below = (_QUOTED.sub(b"", line) for line in (lines[0], lines[min(1, len(lines) - 1)]))
    agree = [mark for mark in b",;\t|" if header.count(mark) == below.count(mark) > 0]
    return max(agree or b",;\t|", key=header.count)


def _ungrouped(table: pa.Table, names: Sequence[str]) -> tuple[pa.Table, list[Finding]]:
    """Columns of text such as 1.054,91 and 1.010 as numbers, where commas are decimal; none of those of names."""
    findings: list[Finding] = []
    for i, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True)):
        if name in names or not pa.types.is_string(column.type) or column.null_count == len(column):
            continue
        grouped, plain = (pac.match_substring_regex(column, form) for form in (_GROUPED, _PLAIN))
        if pac.any(grouped).as_py() and pac.all(pac.or_(grouped, plain)).as_py():
            text = pac.replace_substring(pac.utf8_trim_whitespace(column), ".", "")
            number = pac.replace_substring(text, ",", ".").cast(pa.float64())
            table = table.set_column(i, name, number)
            row = int(pac.fill_null(grouped, False).to_numpy(zero_copy_only=False).argmax())
            message = f"Column {name!r}: {column[row].as_py()!r} was read as {number[row].as_py():.15g} (row {row})."
            findings.append(Finding("text", message, name, row))
    return table, findings


def _written(column: pa.ChunkedArray, text: pa.ChunkedArray) -> bool:
    """Whether every cell is written as its value is: 7 is, and 007, 1E5 and true are not."""
    return {str(value) for value in pac.unique(column).to_pylist()} == {str(cell) for cell in text.unique().to_pylist()}


def _parse(
    data: bytes, source: str, separator: str, decimal_point: str, names: Sequence[str]
) -> tuple[pa.Table, set[str]]:
    """The table, and the names of columns of times with an offset, which are in it as text."""
    ragged: list[pc.InvalidRow] = []

    def refuse(row: pc.InvalidRow) -> str:
        ragged.append(row)
        return "error"

    parse = pc.ParseOptions(delimiter=separator, invalid_row_handler=refuse)
    how = {"null_values": [""], "strings_can_be_null": True, "decimal_point": decimal_point}
    # Types are guessed from a block. Where a later block contradicts the first, the second try takes all as one block.
    for block_size in (2**20, min(len(data) + 1, 2**31 - 1)):
        try:
            read = pc.ReadOptions(block_size=block_size)
            table = pc.read_csv(pa.py_buffer(data), read, parse, pc.ConvertOptions(**how))
            zoned = [one.name for one in table.schema if pa.types.is_timestamp(one.type) and one.type.tz is not None]
            named = [one.name for one in table.schema if one.name.strip() in names and not pa.types.is_string(one.type)]
            for name in [*zoned, *named]:  # only the text keeps the offset, and the zeros that a name begins with
                if table.column_names.count(name) > 1:
                    continue  # which is refused
                alone = pc.ConvertOptions(**how, column_types={name: pa.string()}, include_columns=[name])
                text = pac.utf8_trim_whitespace(pc.read_csv(pa.py_buffer(data), read, parse, alone).column(0))
                if name in zoned or not _written(table.column(name), text):
                    table = table.set_column(table.column_names.index(name), name, text)
            return table, {name.strip() for name in zoned}
        except (pa.ArrowException, OverflowError) as error:
            failure = error
            if ragged:
                break
    if ragged:
        row = ragged[0]
        line = data.count(b"\n", 0, max(0, data.find(row.text.encode()))) + 1
        raise DataError(
            f"{source}: line {line} has {row.actual_columns} cell{'s' * (row.actual_columns != 1)}, but the header "
            "names "
            f"{row.expected_columns} columns: {row.text[:60]!r}. Correct the line, or quote cells that hold "
            f"{separator!r}."
        ) from failure
    raise DataError(
        f"{source} cannot be read as delimited text ({str(failure).splitlines()[0].rstrip('.')})."
    ) from failure
