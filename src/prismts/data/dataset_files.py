"""Where the files of known data sets lie, and whether they are the right ones.

A file is looked for in the folder that the environment variable ``PRISMTS_DATA`` names, then in the cache, then on the
net, and is used only if its sha256 is the known one. ``PRISMTS_OFFLINE=1`` leaves the net alone.
"""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from prismts.errors import DataError

__all__ = ["PLACES", "DatasetFile", "Place", "find_dataset_file", "place_of"]

Place = Literal["PRISMTS_DATA", "cache", "download", "missing"]
PLACES: tuple[Place, ...] = ("PRISMTS_DATA", "cache", "download", "missing")  # in the order they are tried


@dataclass(frozen=True, kw_only=True)
class DatasetFile:
    """One file of a data set.

    A source often keeps the same content in another wrapping (plain where ours is gzipped, or gzipped by another
    program). A download keeps the source's bytes, so it has a hash of its own.
    """

    path: str  # below $PRISMTS_DATA
    sha256: str  # of that file
    url: str | None = None  # None where no single file of the source holds the same content
    url_sha256: str | None = None  # of the bytes behind the url

    @property
    def download_path(self) -> str:
        """Below the cache: the same path, without ``.gz`` where the source is not gzipped."""
        return self.path if self.url is None or self.url.endswith(".gz") else self.path.removesuffix(".gz")


def find_dataset_file(file: DatasetFile) -> Path:
    """The path of a file of the catalog, from $PRISMTS_DATA, the cache, or the net, its sha256 checked."""
    for _, path in _candidates(file):
        if path.is_file():
            return _checked(path, file)
    return _download(file)


def place_of(file: DatasetFile) -> Place:
    """Where ``find_dataset_file`` would take a file from; nothing is read or downloaded."""
    for place, path in _candidates(file):
        if path.is_file():
            return place
    return "missing" if file.url is None or _offline() else "download"


def _folders() -> Iterator[tuple[Place, Path]]:
    if folder := os.environ.get("PRISMTS_DATA"):
        yield "PRISMTS_DATA", Path(folder).expanduser()
    yield "cache", _cache()


def _cache() -> Path:
    import pooch

    return Path(pooch.os_cache("prismts"))


def _candidates(file: DatasetFile) -> Iterator[tuple[Place, Path]]:
    for place, folder in _folders():
        for path in dict.fromkeys((file.path, file.download_path)):
            yield place, folder / path


def _offline() -> bool:
    return os.environ.get("PRISMTS_OFFLINE", "0") not in ("", "0")


def _checked(path: Path, file: DatasetFile) -> Path:
    stat = path.stat()
    found = _sha256(path, stat.st_size, stat.st_mtime_ns)
    if found not in (file.sha256, file.url_sha256):
        raise DataError(
            f"{path} is not the file this package knows by that name: its sha256 is {found}, expected {file.sha256}. "
            "It is incomplete or was changed: put the original in its place, or take it away, so that others are tried."
        )
    return path


@functools.cache
def _sha256(path: Path, size: int, changed: int) -> str:
    """Once per process and version of a file: size and time of change are there to make a changed file a new key."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _download(file: DatasetFile) -> Path:
    if file.url is None:
        reason = "no download is known, because its source keeps another format"
    elif _offline():
        reason = "not tried, because PRISMTS_OFFLINE is set"
    else:
        try:
            return _retrieve(file, file.url)
        except (OSError, ValueError) as error:  # no net, or bytes with another hash
            reason = f"{file.url} failed ({type(error).__name__}: {str(error)[:200]})"
    raise DataError(
        f"The file {file.path} is in none of the three places: PRISMTS_DATA "
        f"({os.environ.get('PRISMTS_DATA') or 'not set'}), the cache ({_cache()}), download ({reason}). "
        f"Set PRISMTS_DATA to a folder that holds {file.path}"
        + (", or connect to the net and try again." if file.url else ".")
    )


def _retrieve(file: DatasetFile, url: str) -> Path:
    import pooch

    if not _has_address(urlsplit(url).hostname or ""):
        raise OSError("the host has no address: there seems to be no network")
    pooch.get_logger().setLevel("WARNING")
    target = _cache() / file.download_path
    # Any, because pooch types the argument unlike its own downloader; seconds to connect, and between two reads
    downloader: Any = pooch.HTTPDownloader(progressbar=False, timeout=(3, 10))
    pooch.retrieve(url, f"sha256:{file.url_sha256}", fname=target.name, path=target.parent, downloader=downloader)
    return target


def _has_address(host: str, patience: float = 3.0) -> bool:
    """Whether a host name resolves within ``patience`` seconds.

    Asked in a thread, because the system's own look-up can hang for a minute on a machine without network. A proxy
    looks names up for us, so with one there is nothing to ask.
    """
    if {"https", "all"} & urllib.request.getproxies().keys():
        return True
    found = threading.Event()

    def look_up() -> None:
        try:
            socket.getaddrinfo(host, 443)
        except OSError:
            return
        found.set()

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(patience)
    return found.is_set()
