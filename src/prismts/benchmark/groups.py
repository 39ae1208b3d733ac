"""One group of cells of a benchmark, those of one training: what runs it, and what became of it."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prismts.benchmark.results import cell_file, write_failed, write_records
from prismts.benchmark.spec import BenchSpec, Cell

__all__ = ["ONE_THREAD", "Event", "Group", "Load", "Tell", "finished", "run_group", "scored"]

Group = tuple[Cell, ...]  # cells of one training, which differ in their protocol
Load = Callable[[str], Any]
# of every process that runs cells: what numerical libraries read when they are imported
ONE_THREAD: dict[str, str] = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)


@dataclass(frozen=True)
class Event:
    """What became of a group of cells: "started", "done", "failed", or "lost" when its process died."""

    cells: Group
    kind: str
    told: str = ""  # the score, or the error
    seconds: float = 0.0
    process: int | None = None  # number of the process it runs in

    def __str__(self) -> str:
        return f"{self.cells[0].name if len(self.cells) == 1 else self.cells[0].training.name.rstrip('-')}: {self.told}"


Tell = Callable[[Event], None]


def run_group(spec: BenchSpec, group: Group, folder: Path, *, load: Load | None = None) -> Event:
    """Run one group and write its cells, or the error it ended with."""
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
