"""Tables that come in over a page: received up to a limit, looked through before anything reads them, refused in words.

    path = await received(chunks, folder, "sales.csv")
    table = looked_through(path)
    frame = neutral(table_for_a_spreadsheet)        # on the way out

The readers of ``prismts.data`` say what is wrong with a table; what is here keeps them from being handed one that would
fill the memory (a compressed bomb, a million columns), run code (a pickle) or look like text and be none.
"""

from __future__ import annotations

import codecs
import gzip
import math
import re
import unicodedata
import zipfile
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prismts.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ENDINGS", "Limits", "Table", "looked_through", "neutral", "received", "safe_name"]

ENDINGS = (".csv", ".csv.gz", ".parquet", ".npz", ".ts", ".ts.gz")
_CHUNK = 2**20
_LONGEST_NAME = 80
_MIB = 2**20
# all that a text file has no business with: control signs other than tab and the ends of lines and pages
_CONTROL = re.compile(rb"[\x01-\x08\x0b\x0e-\x1f\x7f]")
_FOREIGN = {
    b"PK\x03\x04": "a ZIP archive (perhaps an Excel workbook). Save the table as .csv",
    b"PAR1": "a Parquet file. Name it .parquet",
    b"\x1f\x8b": "compressed by gzip. Name it .csv.gz or .ts.gz",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook. Save the table as .csv",
    b"%PDF": "a PDF. Save the table as .csv",
    b"\x89PNG": "a picture",
}
# what a spreadsheet takes for a formula at the start of a cell, in the wide forms of East Asian scripts too
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How large an upload may be; every refusal names the limit it met."""

    file_bytes: int = 200 * _MIB
    unpacked_bytes: int = 1024 * _MIB  # of a compressed file, and of the arrays in an .npz
    line_bytes: int = 1 * _MIB  # of a .csv
    case_bytes: int = 64 * _MIB  # one line of a .ts file: a whole case
    columns: int = 5_000
    rows: int = 5_000_000
    values: int = 50_000_000  # rows times columns
    arrays: int = 64  # in an .npz
    session_bytes: int = 2048 * _MIB  # all that one session keeps in its folder

    def told(self) -> dict[str, str]:
        """The limits in words, by what they limit."""
        return {
            "file": _size(self.file_bytes), "unpacked": _size(self.unpacked_bytes),
            "line": _size(self.line_bytes), "columns": f"{self.columns:,}", "rows": f"{self.rows:,}",
            "values": f"{self.values:,}",
        }  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A file that was looked through and may be read."""

    path: Path
    ending: str
    n_bytes: int


def safe_name(name: str) -> str:
    """The name of a file as it may be written to a disk and shown: no folders, no control signs, a known ending.

    Raises:
        DataError: the ending is not one that is read.
    """
    base = unicodedata.normalize("NFKC", str(name)).replace("\\", "/").rsplit("/", 1)[-1]
    base = re.sub(r"[^\w .()+-]", "_", "".join(c for c in base if c.isprintable())).rstrip(" .")
    ending = _ending(base)
    if ending is None:
        raise DataError(
            f"{base[:_LONGEST_NAME] or 'A file without a name'}: the ending tells no format that is read here. Use one "
            f"of {', '.join(ENDINGS)}."
        )
    stem = base[: -len(ending)].strip(" .")[:_LONGEST_NAME] or "table"
    return stem + ending


async def received(
    chunks: AsyncIterator[bytes], folder: Path, name: str, limits: Limits | None = None, *, announced: int | None = None
) -> Path:
    """Write what comes in to ``folder``, under a safe name; nothing is left of what was refused.

    Args:
        chunks: the body of a request, piece by piece.
        folder: where to write; a file of this name there is replaced.
        name: as the sender calls it.
        limits: of the size.
        announced: the length that the sender announced, so that what is too long is refused at once.

    Raises:
        DataError: the ending is unknown, the file is empty or too large.
    """
    limits = limits or Limits()
    path = folder / safe_name(name)
    if announced is not None and announced > limits.file_bytes:
        raise DataError(_too_large(path.name, limits))
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    size = 0
    try:
        with partial.open("wb") as file:
            async for chunk in chunks:
                size += len(chunk)
                if size > limits.file_bytes:
                    raise DataError(_too_large(path.name, limits))
                file.write(chunk)
        if not size:
            raise DataError(f"{path.name} is empty.")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def looked_through(path: Path, limits: Limits | None = None) -> Table:
    """Make sure that a file is what its name says and can be read within the limits; it is not read as a table yet.

    Raises:
        DataError: with what is wrong, the limit where one was met, and what to do.
    """
    limits = limits or Limits()
    ending = _ending(path.name)
    if ending is None:
        raise DataError(f"{path.name}: the ending tells no format that is read here. Use one of {', '.join(ENDINGS)}.")
    try:
        size = path.stat().st_size
        if size > limits.file_bytes:
            raise DataError(_too_large(path.name, limits))
        if not size:
            raise DataError(f"{path.name} is empty.")
        if ending == ".parquet":
            _look_at_parquet(path, limits)
        elif ending == ".npz":
            _look_at_arrays(path, limits)
        else:
            _look_at_text(path, ending, limits)
    except OSError as error:
        raise DataError(f"{path.name} cannot be read ({error.strerror or error}).") from error
    return Table(path, ending, size)


def neutral(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy in which no text, and no column name, begins as a formula: a quote stands before it, as spreadsheets do.

    Numbers and times stay as they are.
    """
    import pandas as pd

    changed = frame.copy()
    for place in range(frame.shape[1]):
        column = frame.iloc[:, place]
        if not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_datetime64_any_dtype(column)):
            changed.isetitem(place, [_harmless(value) for value in column])
    changed.columns = [_harmless(name) for name in frame.columns]
    return changed


# ---- inside


def _harmless(value: Any) -> Any:
    """A cell that a spreadsheet shows as it is."""
    return f"'{value}" if isinstance(value, str) and value.lstrip(" \u00a0\ufeff").startswith(_FORMULA) else value


def _ending(name: str) -> str | None:
    return next((ending for ending in sorted(ENDINGS, key=len, reverse=True) if name.lower().endswith(ending)), None)


def _size(n_bytes: int) -> str:
    return f"{n_bytes / _MIB:,.0f} MB" if n_bytes >= _MIB else f"{n_bytes:,} bytes"


def _too_large(name: str, limits: Limits) -> str:
    return (
        f"{name} is larger than {_size(limits.file_bytes)}, the most that is taken here. Save it as .parquet, or work "
        "on it with the command: prism check FILE."
    )


def _look_at_text(path: Path, ending: str, limits: Limits) -> None:
    """Lines, columns and rows counted, and every byte looked at, without holding more than a piece of the file."""
    name, is_case = path.name, ending.startswith(".ts")
    longest = limits.case_bytes if is_case else limits.line_bytes
    rows, line, total = 0, 0, 0  # lines that ended, bytes of the one that is going on, and of all
    head, n_columns = b"", 1 if is_case else 0  # the first line that is not blank, and how many columns it names
    for chunk in _as_eight_bit(_unpacked(path, ending, limits), name):
        if not total:
            _known_signs(chunk, name)
        total += len(chunk)
        _plain(chunk, name, rows)
        pieces = (chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in chunk else chunk).split(b"\n")
        for piece in pieces[:-1]:
            if line + len(piece) > longest:
                raise _long_line(name, rows, longest)
            if not n_columns:
                n_columns, head = _columns_in(head + piece), b""
                _bounded(name, 0, n_columns, limits)
            line = 0
            rows += 1
        line += len(pieces[-1])
        head = head if n_columns else head + pieces[-1]
        if line > longest:
            raise _long_line(name, rows, longest)
        _bounded(name, rows, n_columns, limits)
    if not total:
        raise DataError(f"{name} is empty.")
    _bounded(name, rows, n_columns or _columns_in(head), limits)


def _columns_in(line: bytes) -> int:
    """How many columns a header names, by the separator it has most of; 0 for a blank line."""
    return 1 + max(line.count(separator) for separator in (b",", b";", b"\t", b"|")) if line.strip() else 0


def _plain(chunk: bytes, name: str, rows: int) -> None:
    """Refuse signs that text has no business with; ``rows`` lines came before."""
    if (at := chunk.find(b"\0")) >= 0:
        line = rows + chunk.count(b"\n", 0, at) + 1
        raise DataError(
            f"{name} is no text that can be read: line {line} holds a NUL byte. If it is a table, save it as UTF-8."
        )
    if found := _CONTROL.search(chunk):
        line = rows + chunk.count(b"\n", 0, found.start()) + 1
        raise DataError(
            f"{name} is no text: line {line} holds the control sign 0x{found.group()[0]:02x}. Is it binary under a "
            "wrong name? If it is a table, save it as UTF-8."
        )


def _long_line(name: str, rows: int, longest: int) -> DataError:
    return DataError(
        f"{name}: line {rows + 1} is longer than {_size(longest)}, the most that is read here. Is the whole table on "
        "one line?"
    )


def _known_signs(begin: bytes, name: str) -> None:
    for sign, what in _FOREIGN.items():
        if begin.startswith(sign):
            raise DataError(f"{name} is no text but {what}.")


def _bounded(name: str, rows: int, columns: int, limits: Limits) -> None:
    """Refuse a table of too many rows, columns or values."""
    for n, what, most in (
        (columns, "columns", limits.columns), (rows, "rows", limits.rows), (rows * columns, "values", limits.values),
    ):  # fmt: skip
        if n > most:
            raise DataError(
                f"{name} has more than {most:,} {what}, the most that are read here. Keep the "
                f"{'columns' if what == 'columns' else 'part'} you need."
            )


def _unpacked(path: Path, ending: str, limits: Limits) -> Iterator[bytes]:
    """The bytes of a file piece by piece, unpacked where it is compressed, up to the limit."""
    total = 0
    with gzip.open(path, "rb") if ending.endswith(".gz") else path.open("rb") as file:
        while True:
            try:
                chunk = file.read(_CHUNK)
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise DataError(
                    f"{path.name} is no gzip file, or a truncated one ({error}). Fetch it again."
                ) from error
            if not chunk:
                return
            total += len(chunk)
            if total > limits.unpacked_bytes:
                raise DataError(
                    f"{path.name} unpacks to more than {_size(limits.unpacked_bytes)}, the most that is read here. If "
                    "the table is really so large, work on it with the command: prism check FILE."
                )
            yield chunk


def _as_eight_bit(chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """The same, with UTF-16 (known by its mark) brought to UTF-8, so that a NUL is one and a line ends in one byte."""
    decode: codecs.IncrementalDecoder | None = None
    for number, chunk in enumerate(chunks):
        if number == 0 and chunk.startswith((b"\xff\xfe", b"\xfe\xff")):
            decode = codecs.getincrementaldecoder("utf-16")()
        if decode is None:
            yield chunk
            continue
        try:
            yield decode.decode(chunk).encode()
        except UnicodeError as error:
            raise DataError(f"{name} begins as UTF-16 text but is none. Save it as UTF-8.") from error


def _look_at_parquet(path: Path, limits: Limits) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, memory_map=False, pre_buffer=False) as file:
            about = file.metadata
            rows, columns = about.num_rows, len(file.schema_arrow.names)
            sizes = [about.row_group(i).total_byte_size for i in range(about.num_row_groups)]
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise DataError(f"{path.name} is no Parquet file, or a damaged one ({reason}).") from error
    _bounded(path.name, rows, columns, limits)
    if sum(sizes) > limits.unpacked_bytes or min(sizes, default=0) < 0:
        raise DataError(
            f"{path.name} unpacks to more than {_size(limits.unpacked_bytes)}, the most that is read here. Keep the "
            "part you need."
        )


def _look_at_arrays(path: Path, limits: Limits) -> None:
    """An .npz: the header of every array is read, its numbers are not, and a pickle is never opened."""
    from numpy.lib import format as npy

    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    total = 0
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > limits.arrays:
                raise DataError(f"{path.name} holds more than {limits.arrays} arrays, the most that are read here.")
            for entry in entries:
                name = entry.filename[:_LONGEST_NAME]
                if not name.endswith(".npy"):
                    raise DataError(f"{path.name} holds {name!r}, which is no array. Write it with numpy.savez.")
                with archive.open(entry) as file:
                    reader = readers.get(npy.read_magic(file))
                    if reader is None:
                        raise DataError(f"{path.name}: {name} has a format of arrays that is not read here.")
                    shape, _, kind = reader(file)
                if kind.hasobject:
                    raise DataError(
                        f"{path.name}: {name} holds pickled objects, which could run code when they are opened. Save "
                        "plain numbers: array.astype(float)."
                    )
                n_bytes = math.prod(shape) * kind.itemsize
                total += max(n_bytes, entry.file_size)
                if total > limits.unpacked_bytes:
                    raise DataError(
                        f"{path.name} unpacks to more than {_size(limits.unpacked_bytes)}, the most that is read here. "
                        "Keep the part you need."
                    )
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path.name} is no .npz file of plain arrays, or a damaged one ({error}).") from error
