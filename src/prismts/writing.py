"""Files and folders that are there as a whole or not at all.

What is written goes beside its place first, is flushed to the disk, and is moved there when it is complete, so a killed
or failed write leaves what was there before, and nobody reads half a file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

__all__ = ["recover", "whole", "whole_folder", "write_whole"]


@contextlib.contextmanager
def whole(path: Path | str) -> Generator[Path]:
    """Where to write the file that shall stand at ``path``.

    The block writes a file of the same name in a folder of its own, ``.NAME.….partial`` beside the place. What stood at
    ``path`` is replaced when the block ends, and stays when it fails.
    """
    path = _named(path)
    with _beside(path) as folder:
        partial = folder / path.name
        yield partial
        _finish(partial)
        partial.replace(path)


def write_whole(path: Path | str, content: str | bytes) -> None:
    """Write one file, text as UTF-8."""
    with whole(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def whole_folder(path: Path | str) -> Generator[Path]:
    """Where to write the files that shall stand in the folder ``path``; the block gets an empty folder.

    An old folder at ``path`` is replaced as a whole. Between two renames it is ``.NAME.old``: :func:`recover` brings it
    back where a process was killed in that moment, so readers call it first.
    """
    path = _named(path)
    with _beside(path) as folder:
        recover(path)
        partial = folder / path.name
        partial.mkdir()
        yield partial
        for file in list(partial.iterdir()):
            _finish(file)
        old = _old(path)
        for tries_left in (2, 1, 0):
            try:
                if path.exists():
                    path.rename(old)
                partial.rename(path)
                break
            except BaseException as error:
                recover(path)
                if not (tries_left and isinstance(error, OSError)):  # a reader may have brought the old one back
                    raise
        shutil.rmtree(old, ignore_errors=True)


def recover(path: Path | str) -> None:
    """Bring back the old folder, where a write was killed in the one moment between two renames."""
    path = _named(path)
    old = _old(path)
    if old.is_dir() and not path.exists():
        old.rename(path)
    elif old.is_dir():
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _beside(path: Path) -> Generator[Path]:
    """A folder on the same disk, gone at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    except OSError as error:
        error.filename = str(path)  # nobody asked for the hidden folder beside it
        raise
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _finish(file: Path) -> None:
    """Give a file the rights that the user's new files have (safetensors lets only the owner read), and flush it."""
    new = file.with_name(".rights")  # asking for the mask would set it, for all threads
    os.close(os.open(new, os.O_CREAT | os.O_EXCL, 0o666))
    file.chmod(new.stat().st_mode)
    new.unlink()
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())


def _named(path: Path | str) -> Path:
    """The path as it was told; "." and what ends with "..", which have no name, as a whole one. No link is followed."""
    path = Path(path)
    return path if path.name not in ("", "..") else Path(os.path.abspath(path))  # noqa: PTH100


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")
