"""Bytes of a file, unpacked where it is compressed, and text of bytes; every failure in one sentence."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from prismts.data.series import Finding
from prismts.errors import DataError

__all__ = ["existing_file", "stem", "read_bytes", "as_utf8"]


def existing_file(path: Path) -> Path:
    """The path, if a file lies there."""
    if path.is_dir():
        raise DataError(f"{path} is a folder. Name one file in it.")
    if not path.exists():
        raise DataError(f"There is no file {path}.")
    return path


def stem(path: Path) -> str:
    """The name of a data set from its file: ETTh1 for ETTh1.csv.gz."""
    name = path.name.removesuffix(".gz")
    return name.rsplit(".", 1)[0] or name


def read_bytes(path: Path) -> bytes:
    """All bytes of a file, unpacked if its name ends in .gz."""
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" and data else data
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path.name} is no gzip file, or a truncated one ({error}). Fetch it again.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}).") from error
    if not data.strip():
        raise DataError(f"{path.name} is empty.")
    return data


def as_utf8(data: bytes, source: str) -> tuple[bytes, tuple[Finding, ...]]:
    """Text in UTF-8 without byte order mark; bytes that are not UTF-8 are taken as Latin-1, and that is reported."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return data.decode("utf-16").encode(), ()
        except UnicodeDecodeError as error:
            raise DataError(f"{source} begins as UTF-16 text but is none ({error.reason}).") from error
    if (at := data.find(b"\0")) >= 0:
        line = data.count(b"\n", 0, at) + 1
        raise DataError(
            f"{source} is no text: line {line} holds a NUL byte. Is it compressed or binary under a wrong name?"
        )
    data = data.removeprefix(b"\xef\xbb\xbf")
    if data.isascii():
        return data, ()
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = (
            f"Bytes that are not UTF-8 (first: line {line}) were read as Latin-1; names with special signs may look "
            "odd."
        )
        return data.decode("latin-1").encode(), (Finding("encoding", message),)
    return data, ()
