"""Run cells in processes of this machine, each with one torch thread.

A process that dies - killed by the system for its memory, or by a fault in native code - takes no more than its cell
with it: the cell is tried once more in a fresh process, then recorded as failed, and the others go on.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from prismts.benchmark.groups import ONE_THREAD, Event, Group, Tell, finished, run_group
from prismts.benchmark.results import write_failed
from prismts.benchmark.spec import BenchSpec
from prismts.errors import SettingsError

__all__ = ["run_in_processes"]

_TRIES = 2  # of a cell whose process died
Run = Callable[[BenchSpec, Group, Path], Event]  # by name in the processes, so a function of a module


@dataclass
class _Worker:
    """A process, the line to it, and what it is at."""

    process: Any
    line: Connection
    group: Group | None = None
    began: float = 0.0


def run_in_processes(
    spec: BenchSpec, groups: Sequence[Group], folder: Path, jobs: int, tell: Tell, *, run: Run = run_group
) -> None:
    """Run every group in one of ``jobs`` processes; each writes its own cells, or what ``run`` writes.

    When this process is interrupted, the others are ended and the interrupt goes on; when it is killed, they end
    themselves. Finished cells are whole in either case.
    """
    if jobs < 1:
        raise SettingsError(f"jobs counts processes, at least 1, but got {jobs}.")
    waiting = deque((group, 1) for group in groups)
    tries: dict[Group, int] = {}
    workers: list[_Worker] = []
    try:
        while waiting or any(worker.group is not None for worker in workers):
            while waiting:
                worker = next((one for one in workers if one.group is None), None)
                if worker is None:
                    if len(workers) == jobs:
                        break
                    worker = _hire(spec, folder, run)
                    workers.append(worker)
                group, number = waiting.popleft()
                tries[group] = number
                worker.group, worker.began = group, time.time()
                with suppress(OSError):  # it died between two cells, which is seen below
                    worker.line.send(group)
                tell(Event(group, "started", process=worker.process.pid))
            busy = [worker for worker in workers if worker.group is not None]
            ready = wait([*(worker.line for worker in busy), *(worker.process.sentinel for worker in busy)])
            for worker in busy:
                if worker.line not in ready and worker.process.sentinel not in ready:
                    continue
                group = worker.group
                assert group is not None
                event = _heard(worker)
                if event is None and worker.process.is_alive():
                    continue
                worker.group = None
                if event is None:
                    workers.remove(worker)
                    event = _lost(worker, spec, group, folder, tries[group])
                    if event.kind == "lost":
                        waiting.appendleft((group, tries[group] + 1))
                tell(event)
    finally:
        for worker in workers:
            if worker.group is not None:
                worker.process.terminate()
            worker.line.close()
        for worker in workers:
            worker.process.join(5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


def _heard(worker: _Worker) -> Event | None:
    """What a process says of its cell, if it says anything."""
    with suppress(EOFError, OSError):
        if worker.line.poll():
            return worker.line.recv()
    return None


def _lost(worker: _Worker, spec: BenchSpec, group: Group, folder: Path, number: int) -> Event:
    """What becomes of the cell of a process that died."""
    worker.process.join()
    code = worker.process.exitcode
    how = f"by signal {-code} ({signal.Signals(-code).name})" if code is not None and code < 0 else f"with code {code}"
    seconds = time.time() - worker.began
    if finished(folder, group, worker.began):
        return Event(group, "done", f"written; its process then ended {how}", seconds)
    if number < _TRIES:
        return Event(group, "lost", f"its process ended {how}; it is tried again", seconds)
    told = f"its process ended {how}, {number} times"
    write_failed(folder, spec, group, told)
    return Event(group, "failed", told, seconds)


def _hire(spec: BenchSpec, folder: Path, run: Run) -> _Worker:
    context = get_context("spawn")  # a forked torch may wait for threads that were not forked with it
    ours, theirs = context.Pipe()
    with _one_thread():
        process = context.Process(target=_work, args=(theirs, spec, folder, run), daemon=True)
        process.start()
    theirs.close()
    return _Worker(process, ours)


@contextmanager
def _one_thread() -> Generator[None]:
    """The environment a process starts with, so that libraries read it before they start threads."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _work(line: Connection, spec: BenchSpec, folder: Path, run: Run) -> None:
    """The life of a process: run the groups that come, until none comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one, which ends it
    if hasattr(os, "setsid"):
        os.setsid()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _speak_into(folder / "logs" / f"worker-{os.getpid()}.txt")
    import torch

    torch.set_num_threads(1)
    while True:
        try:
            group = line.recv()
        except EOFError:
            return
        line.send(run(spec, group, folder))


def _end_with_parent() -> None:
    """Nobody wants the cell any more once the process that asked for it is gone."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _speak_into(path: Path) -> None:
    """Send everything a process prints to a file, where it does not disturb a progress bar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a", encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(file.fileno(), stream.fileno())
