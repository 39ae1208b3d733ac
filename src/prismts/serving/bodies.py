"""What comes in: the body of a request as series, whatever its format, and never more of it than the limits allow.

JSON, delimited text, Parquet and Arrow streams all become an Arrow table, and from there on the library reads them as
it reads files, so an answer does not depend on the format. Nested arrays are read as arrays.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported, where the checker cannot see them)

from __future__ import annotations

import codecs
import contextlib
import json
import logging
import re
import struct
import tempfile
from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.message import Message
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from prismts.data.arrays import of_array, of_arrays
from prismts.data.assemble import Options, assemble
from prismts.data.columns import Columns, columns_of_arrow
from prismts.data.delimited import columns_of_csv
from prismts.data.layout import Duplicates
from prismts.data.series import Collection, Finding, Series, storage_dtype
from prismts.data.tables import TableKind
from prismts.errors import DataError, PrismError, unknown_name
from prismts.serving.refusals import Refused

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["BODY_FORMATS", "Body", "Given", "Limits", "Reading", "asked_of", "receive", "rows_of", "series_of"]

Format = Literal["json", "csv", "parquet", "arrow"]
BODY_FORMATS: dict[str, Format] = {
    "application/json": "json",
    "text/csv": "csv",
    "application/vnd.apache.parquet": "parquet",
    "application/vnd.apache.arrow.stream": "arrow",
}
_ALSO: dict[str, Format] = {"application/x-parquet": "parquet", "application/parquet": "parquet"}
_ENDINGS: dict[str, Format] = {".json": "json", ".csv": "csv", ".parquet": "parquet", ".arrows": "arrow"}
_MULTIPART = "multipart/form-data"
# not every codec of Python is one of text: some unpack archives
_TEXT = re.compile(
    r"utf-8|utf-8-sig|utf-16|utf-16-[bl]e|ascii|iso8859-\d+|cp125\d|koi8-r|gbk|gb18030|big5|shift_jis|euc_jp|euc_kr"
)
_DECODED = 8  # a body may be so many times as large once it is decoded
_log = logging.getLogger("prismts.serving")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most that one request may bring."""

    max_body_bytes: int = 16 * 2**20
    max_rows: int = 200_000  # time steps, of all series together, gaps included
    max_series: int = 1_000  # a series that was not in training is scaled by itself, which takes milliseconds
    max_columns: int = 10_000

    @property
    def max_decoded_bytes(self) -> int:
        """Of a table in memory; Parquet can hold far more than its own size."""
        return _DECODED * self.max_body_bytes

    def check_rows(self, n_rows: int) -> None:
        """Refuse too many rows before they are decoded."""
        if n_rows > self.max_rows:
            raise DataError(
                f"The body has {n_rows:,} rows, but a request may bring {self.max_rows:,}. Send the end of the series "
                "only, or several requests."
            )

    def check_columns(self, n_columns: int) -> None:
        """Refuse a table so wide that its header alone takes seconds."""
        if n_columns > self.max_columns:
            raise DataError(f"The body has {n_columns:,} columns, but a request may bring {self.max_columns:,}.")

    def check_decoded(self, n_bytes: int) -> None:
        """Refuse a small body that grows beyond measure."""
        if n_bytes > self.max_decoded_bytes:
            raise Refused(
                413,
                f"Decoded, the body takes {n_bytes:,} bytes, but a request may bring {self.max_decoded_bytes:,}. Send "
                "fewer rows or columns at once.",
            )


@dataclass(frozen=True, kw_only=True)
class Body:
    """The bytes of a table and what they are."""

    data: bytes = field(repr=False)
    format: Format
    name: str = "body"  # what errors call it
    charset: str | None = None


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a table is to be read: what the model was fitted with, and what the request says instead."""

    time: str | None = None
    series: str | None = None
    values: tuple[str, ...] | None = None
    frequency: str | None = None
    duplicates: Duplicates = "refuse"
    label: str | None = None  # a column that is left out where it is there
    channels: tuple[str, ...] = ()  # of the model: read alone where another column cannot be read
    rows_are_cases: bool = False  # whether an array [., .] is [case, time] of one channel, not [channel, time]
    exact: bool = False  # whether values are given back, and so kept in double precision beside what the model reads
    local: bool | None = None  # whether times are read by the clock of their zone; None: as their rows say
    missing_codes: tuple[float, ...] | None = None  # as ``prismts.read`` has them


@dataclass(frozen=True, eq=False, kw_only=True)
class Given:
    """The series of one request."""

    data: Collection
    kind: TableKind  # "array" for nested arrays, "pandas" for every kind of table
    single: bool = False  # an array of one series: the answer has no axis of cases
    arrays: tuple[NDArray[np.float64], ...] = ()  # the values as they came, [C, T] each; of tables where asked for

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was noticed while they were read."""
        return self.data.findings


# ---- from the wire


async def receive(request: Request, limits: Limits) -> Body:
    """Read the body of a request, no further than its limit; of a form, the one file in it.

    Raises:
        Refused: 413 for a body over the limit (also of unknown length), 415 for a format that is not read.
        DataError: there is nothing in it.
    """
    kind, parameters = _content_type(request.headers.get("content-type"))
    formats: dict[str, Format] = {**BODY_FORMATS, **_ALSO}
    if kind not in formats and kind != _MULTIPART:
        raise Refused(
            415,
            f"A body of type {kind or 'unknown'} is not read. Set Content-Type to one of {', '.join(BODY_FORMATS)}, or "
            f"to {_MULTIPART} for a file.",
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "A compressed body is not read. Send it without Content-Encoding; Parquet packs tables.")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.max_body_bytes:
        raise _too_large(limits)
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > limits.max_body_bytes:
            raise _too_large(limits)
    if kind == _MULTIPART:
        return await _file_of(request, bytes(data), formats)
    if not data.strip():
        raise DataError("The body is empty. Send a table or nested arrays; GET /openapi.json has examples.")
    return Body(data=bytes(data), format=formats[kind], charset=parameters.get("charset"))


def _too_large(limits: Limits) -> Refused:
    return Refused(
        413,
        f"The body is larger than the {limits.max_body_bytes:,} bytes a request may bring. Send the end of the series "
        "only, send Parquet, or start the service with a larger --max-body.",
        {"Connection": "close"},
    )


def _content_type(header: str | None) -> tuple[str, dict[str, str]]:
    message = Message()
    message["content-type"] = header or ""
    parameters = message.get_params() or []
    named = {name.lower(): value for name, value in parameters[1:]}
    return (header or "").partition(";")[0].strip().lower(), named


async def _file_of(request: Request, data: bytes, formats: Mapping[str, Format]) -> Body:
    from starlette.datastructures import UploadFile
    from starlette.formparsers import MultiPartException, MultiPartParser

    async def stream() -> AsyncIterator[bytes]:
        yield data

    try:
        parser = MultiPartParser(request.headers, stream(), max_files=1, max_fields=8)  # type: ignore[arg-type]
        form = await parser.parse()
    except (MultiPartException, ValueError, LookupError) as error:
        words = getattr(error, "message", str(error)).strip("\"'. ")
        raise DataError(f"The form cannot be read ({words}). Send one file, as the field 'file'.") from error
    file = form.get("file")
    if not isinstance(file, UploadFile) or len(form.multi_items()) != 1:
        raise DataError("A form holds one file, as the field 'file', and nothing else; say the rest in the address.")
    content = await file.read()
    name = _safe(file.filename)
    kind, parameters = _content_type(file.content_type)
    by_name: list[Format | None] = [form for ending, form in _ENDINGS.items() if name.lower().endswith(ending)]
    found = formats.get(kind) or next(iter(by_name), None)
    if found is None:
        raise Refused(
            415, f"The file {name!r} is of no type that is read. Give it one of the endings {', '.join(_ENDINGS)}."
        )
    if not content.strip():
        raise DataError(f"The file {name!r} is empty.")
    return Body(data=content, format=found, name=name, charset=parameters.get("charset"))


def _safe(filename: str | None) -> str:
    """A name that is harmless in a path, in a log and in a sentence."""
    name = re.sub(r"[^A-Za-z0-9_. ()-]", "_", (filename or "").replace("\\", "/").rpartition("/")[2])[-80:]
    return name.strip(". ") or "body"


def asked_of(query: Sequence[tuple[str, str]], known: Sequence[str]) -> dict[str, str]:
    """The parameters of an address, each known and given once.

    Raises:
        SettingsError: one is unknown; the nearest known one is offered.
        DataError: one is given twice.
    """
    found: dict[str, str] = {}
    for name, value in query:
        if name not in known:
            raise unknown_name("parameter", name, known) if known else DataError("No parameters are read here.")
        if name in found:
            raise DataError(f"The parameter {name!r} is given twice. Give it once.")
        found[name] = value
    if found.get("duplicates", "refuse") not in get_args(Duplicates):
        raise unknown_name("way with duplicates", found["duplicates"], get_args(Duplicates))
    return found


# ---- to series


def series_of(body: Body, how: Reading, limits: Limits) -> Given:
    """The series in a body.

    Raises:
        DataError: in the library's words, what is wrong with them and where.
    """
    with _in_words(body):
        whole = _parsed(body) if body.format == "json" else None
        if whole is not None and "values" in whole:
            given = _of_arrays(_arrays_of(whole["values"], limits), how, limits)
        else:
            names = [] if how.series is None else [how.series]
            given = _of_table(_table(body, whole, limits, names), how, limits)
    if bool(np.isnan(given.data.values).all()):
        raise DataError("Nothing was observed: every value is missing. Send data with a value at least.")
    return given


def rows_of(body: Body, how: Reading, limits: Limits) -> tuple[Series, TableKind]:
    """New rows of one growing series, with the channels ``how.channels``, and how they tell their times.

    With ``how.frequency``, missing rows between them are steps without an observation; without it, rows follow each
    other as they stand. Codes for missing values are not looked for: a few rows do not show what stands apart.
    """
    with _in_words(body):
        whole = _parsed(body) if body.format == "json" else None
        if whole is not None and "values" in whole:
            arrays, single = _arrays_of(whole["values"], limits)
            if not single:
                raise DataError("New rows of a stream are values [channel][time]. Open a stream for each series.")
            return Series(arrays[0], how.channels if len(arrays[0]) == len(how.channels) else ()), TableKind("array")
        table = _table(body, whole, limits)
        lacking = [name for name in how.channels if name not in table.arrow.column_names]
        if lacking:
            raise DataError(
                f"New rows lack channel {lacking[0]!r} ({len(lacking)} of {len(how.channels)} are missing). Send every "
                "channel with every row; null says that nothing was observed."
            )
        gaps = "fill" if how.frequency else "keep"
        options = Options(
            how.time, None, how.channels, how.frequency, how.duplicates, gaps, (), may_be_empty=True, local=how.local
        )
        columns = columns_of_arrow(table.arrow, table.source)
        found, time, told = assemble(columns, options, "series")
        assert isinstance(found, Series)
        limits.check_rows(len(found))
        return found, TableKind.of_columns("pandas", columns, time, told, None)


@contextlib.contextmanager
def _in_words(body: Body) -> Generator[None]:
    """What other libraries raise about a body, as a sentence; their own words go to the log as well."""
    with np.errstate(all="ignore"):  # a number too large for single precision is refused in words further on
        try:
            yield
        except PrismError:
            raise
        except (ArithmeticError, LookupError, TypeError, ValueError, pa.ArrowException) as error:
            _log.warning("a body was refused for an unforeseen reason", exc_info=error)
            words = str(error).partition("\n")[0].rstrip(".")
            raise DataError(f"The {body.format} body cannot be read ({type(error).__name__}: {words}).") from error


# ---- tables


class _Table(NamedTuple):
    arrow: pa.Table
    source: str  # what errors call it
    findings: tuple[Finding, ...] = ()


def _of_table(table: _Table, how: Reading, limits: Limits) -> Given:
    arrow = table.arrow
    if how.label is not None and how.label in arrow.column_names:
        arrow = arrow.drop_columns([how.label])
    columns = columns_of_arrow(arrow, table.source, table.findings)
    options = Options(
        how.time, how.series, how.values, how.frequency, how.duplicates, missing_codes=how.missing_codes,
        may_be_empty=True, exact=how.exact,
    )  # fmt: skip
    try:
        found, time, told = assemble(columns, options, "series")
    except DataError:
        # a column beside those of the model, such as a remark, is no reason to refuse: a forecaster does likewise
        if how.values is not None or not set(how.channels) <= set(columns.kinds) - {how.time, how.series}:
            raise
        found, time, told = assemble(columns, options._replace(values=how.channels), "series")
    data = Collection.of(found) if isinstance(found, Series) else found
    limits.check_rows(int(data.offsets[-1]))
    if len(data) > limits.max_series:
        raise DataError(f"The body has {len(data):,} series, but a request may bring {limits.max_series:,}.")
    arrays: tuple[NDArray[np.float64], ...] = ()
    if how.exact:
        arrays = tuple(case.values.astype(np.float64, copy=False) for case in data)
        data = replace(data, values=data.values.astype(storage_dtype(data.values), copy=False))
    return Given(data=data, kind=TableKind.of_columns("pandas", columns, time, told, how.series), arrays=arrays)


def _table(body: Body, whole: dict[str, Any] | None, limits: Limits, named: Sequence[str] = ()) -> _Table:
    """The table in a body, every column a flat one; those ``named`` hold names, as ``columns_of_csv`` reads them."""
    if whole is not None:
        found = _Table(_of_lists(whole["columns"], limits), "The body")
    elif body.format == "csv":
        found = _of_csv(body, limits, named)
    elif body.format == "parquet":
        found = _Table(_of_parquet(body, limits), _called(body))
    else:
        found = _Table(_of_stream(body, limits), _called(body))
    names = [name.strip() for name in found.arrow.column_names]
    repeated = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if repeated is not None:
        raise DataError(f"{found.source} has two columns named {repeated!r}. Rename one.")
    if not found.arrow.num_rows:
        raise DataError(f"{found.source} has no rows.")
    limits.check_rows(found.arrow.num_rows)
    return found._replace(arrow=found.arrow.rename_columns(names))


def _called(body: Body) -> str:
    return "The body" if body.name == "body" else body.name


def _of_csv(body: Body, limits: Limits, named: Sequence[str]) -> _Table:
    data = body.data
    if body.charset is not None:
        try:
            known = bool(_TEXT.fullmatch(codecs.lookup(body.charset).name))
            data = data.decode(body.charset).encode() if known else b""
        except (LookupError, ValueError) as error:
            if isinstance(error, UnicodeDecodeError):
                where = f"byte {error.start}: {error.reason}"
                raise DataError(f"The body is no {body.charset} text, as its charset says ({where}).") from error
            known = False
        if not known:
            raise Refused(415, f"The charset {body.charset[:40]!r} is not read. Send UTF-8.")
    first = data.lstrip(b"\r\n").partition(b"\n")[0]
    limits.check_columns(1 + max(map(first.count, (b",", b";", b"\t", b"|"))))
    limits.check_rows(data.count(b"\n") - 1)
    with tempfile.TemporaryDirectory(prefix="prism-") as folder:  # the reader of the library takes files
        path = Path(folder) / (body.name if body.name.lower().endswith(".csv") else f"{body.name}.csv")
        path.write_bytes(data)
        columns: Columns = columns_of_csv(path, named)
    names = list(columns.kinds)
    return _Table(pa.table(dict(zip(names, columns.fetch(names), strict=True))), columns.source, columns.findings)


def _of_parquet(body: Body, limits: Limits) -> pa.Table:
    """A Parquet file whose sizes, once decoded, are told by its footer and checked before a page is read."""
    try:
        file = pq.ParquetFile(pa.BufferReader(body.data))
        _check_types(file.schema_arrow, limits)
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        limits.check_rows(max(file.metadata.num_rows, sum(group.num_rows for group in groups)))
        chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
        limits.check_rows(max((chunk.num_values for chunk in chunks), default=0))
        cells = 8 * file.metadata.num_rows * file.metadata.num_columns
        limits.check_decoded(max(cells, sum(chunk.total_uncompressed_size for chunk in chunks)))
        # text stays as numbers into a dictionary until its decoded size is known
        texts = [f.name for f in file.schema_arrow if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
        file = pq.ParquetFile(pa.BufferReader(body.data), read_dictionary=texts)
        table = file.read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{_called(body)} is no Parquet file, or a damaged one ({_words(error)}).") from error
    return _plain(table, limits)


def _of_stream(body: Body, limits: Limits) -> pa.Table:
    """An Arrow stream, checked batch by batch; what it says of itself is not believed."""
    if body.data.startswith(b"ARROW1"):
        raise DataError("The body is an Arrow file (Feather), but a stream is read: pyarrow.ipc.new_stream writes one.")
    buffer = pa.py_buffer(body.data)
    try:
        for message in pa.ipc.MessageReader.open_stream(buffer):
            if message.type in ("record batch", "dictionary") and _is_packed(message):
                raise DataError("A compressed Arrow stream is not read. Write it without compression, or send Parquet.")
        with pa.ipc.open_stream(buffer) as reader:
            _check_types(reader.schema, limits)
            batches: list[pa.RecordBatch] = []
            n_rows = 0
            for batch in reader:
                n_rows += batch.num_rows
                limits.check_rows(n_rows)
                batch.validate(full=True)
                batches.append(batch)
            table = pa.Table.from_batches(batches, reader.schema)
    except (pa.ArrowException, OSError, struct.error) as error:
        raise DataError(f"{_called(body)} is no Arrow stream, or a damaged one ({_words(error)}).") from error
    return _plain(table, limits)


def _is_packed(message: Any) -> bool:
    """Whether the buffers of a record batch are compressed, which only its metadata (a flatbuffer) can tell.

    Field numbers are those of Apache Arrow's format/Message.fbs.
    """
    data = bytes(message.metadata)

    def field_of(table: int, number: int) -> int:
        """Where a field of a flatbuffer table lies; 0 where it is absent."""
        vtable = table - struct.unpack_from("<i", data, table)[0]
        if 4 + 2 * number >= struct.unpack_from("<H", data, vtable)[0]:
            return 0
        offset = struct.unpack_from("<H", data, vtable + 4 + 2 * number)[0]
        return table + offset if offset else 0

    def table_at(place: int) -> int:
        return place + struct.unpack_from("<I", data, place)[0]

    batch = table_at(field_of(table_at(0), 2))  # Message.header
    if message.type == "dictionary":
        batch = table_at(field_of(batch, 1))  # DictionaryBatch.data
    return bool(field_of(batch, 3))  # RecordBatch.compression


def _check_types(schema: pa.Schema, limits: Limits) -> None:
    limits.check_columns(len(schema))
    for column in schema:
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        flat = (
            pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
            or pa.types.is_decimal(kind) or pa.types.is_timestamp(kind) or pa.types.is_date(kind)
            or pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
        )  # fmt: skip
        if not flat:
            raise DataError(
                f"Column {column.name!r} holds {column.type}, where numbers, times or text are expected. Leave it out."
            )


def _plain(table: pa.Table, limits: Limits) -> pa.Table:
    """Columns that were numbers into a dictionary as what they stand for, once it is known to fit."""
    for place, name in enumerate(table.column_names):
        column = table.column(place)
        if not pa.types.is_dictionary(column.type):
            continue
        if not pa.types.is_integer(column.type.value_type) and not pa.types.is_floating(column.type.value_type):
            total = 0
            for chunk in column.chunks:
                sizes = pc.binary_length(chunk.dictionary.cast(pa.large_string()))
                total += pc.sum(sizes.take(chunk.indices)).as_py() or 0
            limits.check_decoded(total)
        table = table.set_column(place, name, column.cast(column.type.value_type))
    return table


def _words(error: BaseException) -> str:
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__


# ---- JSON


def _parsed(body: Body) -> dict[str, Any]:
    """The object of a JSON body: {"columns": ...} or {"values": ...}."""
    try:
        text = body.data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"The body is no UTF-8 text, as JSON is (byte {error.start}: {error.reason}).") from error
    try:
        whole = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_once)
    except RecursionError as error:
        raise DataError("The body is nested too deeply; values go down to [case][channel][time].") from error
    except json.JSONDecodeError as error:
        raise DataError(f"The body is no JSON: {error.msg} in line {error.lineno}, column {error.colno}.") from error
    except PrismError:
        raise
    except ValueError as error:  # Python's limit on the digits of a whole number
        raise DataError("The body holds a number of thousands of digits. Send numbers as measured.") from error
    if not isinstance(whole, dict) or len(cast(dict[str, Any], whole)) != 1 or set(whole) - {"columns", "values"}:
        what = f"keys {sorted(cast(dict[str, Any], whole))[:5]}" if isinstance(whole, dict) else type(whole).__name__
        raise DataError(
            'A JSON body is {"columns": {name: [...]}}, time among them, or {"values": [channel][time]}, but got '
            f"{what}."
        )
    return cast(dict[str, Any], whole)


def _no_constant(name: str) -> Any:
    raise DataError(f"JSON has no {name}. Write null where nothing was observed, or a number.")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise DataError(f"The body names {name!r} twice. Rename one.")
        found[name] = value
    return found


def _of_lists(columns: Any, limits: Limits) -> pa.Table:
    """{"columns": {name: [...]}} as a table."""
    if not isinstance(columns, dict) or not columns:
        raise DataError('"columns" are lists by name, such as {"time": ["2026-01-01", ...], "load": [1.5, null, ...]}.')
    limits.check_columns(len(cast(dict[str, Any], columns)))
    arrays: dict[str, pa.Array] = {}
    n_rows, first = -1, ""
    for name, cells in cast(dict[str, Any], columns).items():
        if not isinstance(cells, list):
            raise DataError(f"Column {name!r} is a list of cells, but got {_kind_of(cells)}.")
        found = cast(list[Any], cells)
        if n_rows >= 0 and len(found) != n_rows:
            raise DataError(f"Column {name!r} has {len(found)} cells, but column {first!r} has {n_rows}.")
        n_rows, first = len(found), first or name
        limits.check_rows(n_rows)
        arrays[_encodable(name)] = _column_of(found, name)
    return pa.table(arrays)


def _column_of(cells: list[Any], name: str) -> pa.Array:
    """A column of numbers, or of text, with null where nothing is."""
    if any(isinstance(cell, str) for cell in cells):
        for row, cell in enumerate(cells):
            if not isinstance(cell, str) and cell is not None:
                raise DataError(f"Column {name!r} holds text, but in row {row} {_kind_of(cell)}.")
        return pa.array([None if cell is None else _encodable(cell) for cell in cells], pa.string())
    whole = all(isinstance(cell, int) and -(2**53) < cell < 2**53 for cell in cells)
    numbers = _numbers(cells, f"Column {name!r}")
    return pa.array(numbers.astype(np.int64)) if whole and len(cells) else pa.array(numbers, from_pandas=True)


def _numbers(cells: Sequence[Any], what: str) -> NDArray[np.float64]:
    """A list of numbers and nulls as [T], NaN where nothing was observed."""
    found = np.empty(len(cells))
    for i, cell in enumerate(cells):
        if cell is None:
            found[i] = np.nan
        elif isinstance(cell, int | float) and not isinstance(cell, bool):
            try:
                found[i] = cell
            except OverflowError:
                found[i] = np.inf if cell > 0 else -np.inf  # refused in words, as any infinite value
        else:
            raise DataError(f"{what} holds {_kind_of(cell)} at place {i}, where a number or null is expected.")
    return found


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"The body holds {text[:40]!a}, which is half a character. Send whole ones.") from error
    return text


def _kind_of(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), f"the number {value!r:.40}")


def _arrays_of(values: Any, limits: Limits) -> tuple[list[NDArray[np.float64]], bool]:
    """{"values": ...} as arrays [C, T], and whether it was a single one."""
    if not isinstance(values, list) or not values or not all(isinstance(row, list) for row in cast(list[Any], values)):
        raise DataError('"values" are nested lists: [channel][time] for one series, [case][channel][time] for several.')
    given = cast(list[list[Any]], values)
    single = not isinstance(next((row[0] for row in given if row), None), list)
    cases: list[Any] = [given] if single else given
    if len(cases) > limits.max_series:
        raise DataError(f"The body has {len(cases):,} cases, but a request may bring {limits.max_series:,}.")
    limits.check_rows(sum(len(case[0]) for case in cases if case and isinstance(case[0], list)))
    return [_array_of(case, "" if single else f" of case {i}") for i, case in enumerate(cases)], single


def _array_of(case: Any, where: str) -> NDArray[np.float64]:
    if not isinstance(case, list) or not case or not all(isinstance(row, list) for row in cast(list[Any], case)):
        raise DataError(f'"values"{where} must be lists [channel][time], but are not nested so deeply.')
    rows = cast(list[list[Any]], case)
    lengths = [len(row) for row in rows]
    if len(set(lengths)) > 1:
        i = next(i for i, n in enumerate(lengths) if n != lengths[0])
        raise DataError(f"Channel {i}{where} has {lengths[i]} values, but channel 0 has {lengths[0]}.")
    return np.stack([_numbers(row, f"Channel {i}{where}") for i, row in enumerate(rows)])


def _of_arrays(found: tuple[list[NDArray[np.float64]], bool], how: Reading, limits: Limits) -> Given:
    arrays, single = found
    if single and how.rows_are_cases:
        arrays, single = [row[None] for row in arrays[0]], False
    limits.check_columns(len(arrays[0]))
    same = len({x.shape for x in arrays}) == 1
    if single or same:
        read = of_array(arrays[0] if single else np.stack(arrays), missing_codes=how.missing_codes, may_be_empty=True)
    else:
        read = of_arrays(arrays, how.missing_codes, may_be_empty=True)
    data = Collection.of(read) if isinstance(read, Series) else read
    limits.check_rows(int(data.offsets[-1]))
    return Given(data=data, kind=TableKind("array"), single=single, arrays=tuple(arrays))
