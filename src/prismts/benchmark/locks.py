"""Locks that live as long as the process that holds them: the system gives them back however it ends."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Generator
from datetime import datetime
from pathlib import Path
from typing import IO

__all__ = ["holding", "is_held"]

_POLL = 0.05


@contextlib.contextmanager
def holding(file: Path, patience: float = 0.0) -> Generator[str | None]:
    """Hold the lock of a file while the block runs; the block gets None.

    Where somebody else still holds it after ``patience`` seconds, the block gets who that is, in words, and does not
    hold it. A file that a killed process left is nobody's. Where a system has no such locks (Windows, some network
    disks), nobody is seen to hold any.
    """
    until = time.monotonic() + patience
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = file.open("a+", encoding="utf-8")
        except FileNotFoundError:  # its folder was empty, and somebody removed it just now
            continue
        with handle:
            if _lock(handle) is False:
                handle.seek(0)
                holder = handle.read().strip() or "another process"
            elif not _is_at(handle, file):  # who held it before removed the file before the lock was ours
                continue
            else:
                handle.truncate(0)
                now = datetime.now().astimezone()
                handle.write(f"process {os.getpid()} on {socket.gethostname()}, since {now:%Y-%m-%d %H:%M:%S %z}\n")
                handle.flush()
                try:
                    yield None
                finally:
                    with contextlib.suppress(PermissionError):  # Windows: as long as it is open
                        file.unlink(missing_ok=True)
                return
        if time.monotonic() >= until:
            yield holder
            return
        time.sleep(_POLL)


def is_held(file: Path) -> bool:
    """Whether the process that made this lock still lives; a lock that nobody holds is removed."""
    try:
        handle = file.open("r+")
    except FileNotFoundError:
        return False
    with handle:
        if _lock(handle) is not True:
            return True
    file.unlink(missing_ok=True)
    return False


def _lock(handle: IO[str]) -> bool | None:
    """Take the lock of an open file, False where another holds it, None where that cannot be told."""
    try:
        import fcntl
    except ImportError:  # Windows: an open file cannot be deleted there, but a dead process is only seen by its silence
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a disk without locks
        return None
    return True


def _is_at(handle: IO[str], file: Path) -> bool:
    """Whether an open file is the one that stands there now."""
    try:
        return os.path.samestat(os.fstat(handle.fileno()), file.stat())
    except FileNotFoundError:
        return False
