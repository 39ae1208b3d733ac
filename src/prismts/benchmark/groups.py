"""One group of cells of a benchmark, those of one training: what runs it, and what became of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
import traceback
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prismts.benchmark.locks import holding
from prismts.benchmark.results import cell_file, content_if_done, write_failed, write_records
from prismts.benchmark.spec import BenchSpec, Cell

__all__ = ["ONE_THREAD", "Event", "Group", "Load", "Tell", "at_work", "finished", "run_group", "scored"]

_PATIENCE = 0.5  # seconds in which the processes of a run that was just killed end themselves
Group = tuple[Cell, ...]  # cells of one training, which differ in their protocol
Load = Callable[[str], Any]
# of every process that runs cells: what numerical libraries read when they are imported
ONE_THREAD: dict[str, str] = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)


@dataclass(frozen=True)
class Event:
    """What became of a group of cells: "started", "done", "failed", or "lost" when its process died.

    Of several runs into one folder: "held" where another one is at it, "there" where another one has done it since.
    """

    cells: Group
    kind: str
    told: str = ""  # the score, the error, or who holds it
    seconds: float = 0.0
    process: int | None = None  # number of the process it runs in

    def __str__(self) -> str:
        return f"{self.cells[0].name if len(self.cells) == 1 else self.cells[0].training.name.rstrip('-')}: {self.told}"


Tell = Callable[[Event], None]


@contextlib.contextmanager
def at_work(spec: BenchSpec, group: Group, folder: Path) -> Generator[Event | None]:
    """Hold the cells of a group while the block runs them: several runs may share a folder, and none does them twice.

    The block gets what is to be told where nothing is to be run, else None.
    """
    with contextlib.ExitStack() as held:
        for cell in group:
            holder = held.enter_context(holding(folder / "unfinished" / f"{cell.name}.lock", _PATIENCE))
            if holder is not None:
                yield Event(group, "held", holder)
                return
        there = [content_if_done(folder, spec, cell) for cell in group]
        yield None if None in there else Event(group, "there", scored(there[0] or {}))


def run_group(spec: BenchSpec, group: Group, folder: Path, *, load: Load | None = None) -> Event:
    """Run one group and write its cells, or the error it ended with; leave it to another run that is at it."""
    with at_work(spec, group, folder) as event:
        return event or _run(spec, group, folder, load)


def _run(spec: BenchSpec, group: Group, folder: Path, load: Load | None) -> Event:
    from prismts.benchmark.cells import run_cells

    began = time.perf_counter()
    # checkpoints, from which a killed training goes on; other settings have another place
    mark = hashlib.sha256(json.dumps(spec.made_with(group[0]), sort_keys=True).encode()).hexdigest()[:8]
    unfinished = folder / "unfinished" / f"{group[0].name}-{mark}"
    try:
        records = run_cells(spec, group, load=load, run_folder=unfinished)
        write_records(folder, records)
    except Exception as error:  # one cell that fails must not end the others
        told = f"{type(error).__name__}: {error}"
        shutil.rmtree(unfinished, ignore_errors=True)
        write_failed(folder, spec, group, told, traceback.format_exc())
        return Event(group, "failed", told, time.perf_counter() - began)
    shutil.rmtree(unfinished, ignore_errors=True)
    return Event(group, "done", scored(records[0].content), time.perf_counter() - began)


def scored(content: Mapping[str, Any]) -> str:
    """The first measure of a finished cell, in words."""
    name, value = next(iter(content["measures"].items()))
    return f"{name} {value:.4f}"


def finished(folder: Path, group: Group, since: float) -> bool:
    """Whether all cells of a group were written after a moment; a process may die after its work is done."""
    files = [cell_file(folder, cell) for cell in group]
    return all(file.exists() and file.stat().st_mtime >= since for file in files)
