"""Run what is missing of a benchmark: in this process, in several, or on a cluster; and say what will take how long."""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prismts.benchmark.cluster import run_on_cluster
from prismts.benchmark.groups import Event, Group, Load, Tell, run_group
from prismts.benchmark.local import run_in_processes
from prismts.benchmark.locks import holding
from prismts.benchmark.results import Results, clear, gather, keep_spec, read_results
from prismts.benchmark.room import notes
from prismts.benchmark.spec import BenchSpec, Cell
from prismts.errors import SettingsError

__all__ = ["Estimate", "duration", "estimate", "failures", "pending", "plan", "run_bench"]

_PATIENCE = 60.0  # seconds that reading all cells and writing them as one table may take another run


def run_bench(
    spec: BenchSpec,
    folder: str | Path,
    *,
    jobs: int = 1,
    cluster: str | None = None,
    only: str = "",
    redo: bool = False,
    load: Load | None = None,
    tell: Tell = lambda event: None,
) -> Results:
    """Run every missing cell, and gather all that are there into ``results.parquet``.

    Several runs may share a folder, also from several machines: each leaves the cells that another one is at to it, and
    tells so (an event "held").

    Args:
        spec: what to run.
        folder: where results are, and go.
        jobs: processes of one torch thread each; 0 runs everything in this process.
        cluster: the address of a Ray cluster, in place of processes here.
        only: run only cells whose name contains this text.
        redo: make cells anew that other settings made; without it they are an error.
        load: replaces the catalog, in this process only.
        tell: hears of everything as it happens.

    Raises:
        SettingsError: cells are there that other settings made.
    """
    folder = Path(folder)
    before = read_results(folder, spec)
    groups = pending(before, only=only, redo=redo)
    folder.mkdir(parents=True, exist_ok=True)
    clear(before)
    keep_spec(folder, spec)
    try:
        if load is not None or (jobs == 0 and cluster is None):
            for group in groups:
                tell(Event(group, "started"))
                tell(run_group(spec, group, folder, load=load))
        elif cluster is not None:
            run_on_cluster(spec, groups, folder, cluster, tell)
        else:
            run_in_processes(spec, groups, folder, jobs, tell)
    finally:  # also when it is stopped: what is finished is finished
        with holding(folder / "unfinished" / "results.lock", _PATIENCE):  # of several runs the last one reads all
            results = read_results(folder, spec)
            if results.cells:
                gather(results)
        with contextlib.suppress(OSError):  # not empty: a training that was broken off goes on from there
            (folder / "unfinished").rmdir()
    return results


def pending(results: Results, *, only: str = "", redo: bool = False) -> list[Group]:
    """What is to run, in the order of the specification, grouped by training."""
    if not any(only in cell.name for cell in results.spec.cells):
        near = difflib.get_close_matches(only, [part for cell in results.spec.cells for part in _parts(cell)], n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise SettingsError(f"No name of a cell contains {only!r}; they read like {results.spec.cells[0].name}.{hint}")
    changed = {cell: told for cell, told in results.changed.items() if only in cell.name}
    if changed and not redo:
        cell, told = next(iter(changed.items()))
        raise SettingsError(
            f"{len(changed)} finished cells in {results.folder} were made with other settings or data, so they "
            f"cannot stand beside new ones. Of {cell.name}: {told}. Add --redo to make them anew, or give another "
            "folder (--out)."
        )
    wanted = {*results.missing, *results.without_predictions}
    groups: dict[Cell, list[Cell]] = {}
    for cell in results.spec.cells:
        if cell in wanted and only in cell.name:
            # in classification the published protocol trains differently, so it is a training of its own
            shared = cell.training if results.spec.task == "forecast" else cell
            groups.setdefault(shared, []).append(cell)
    return [tuple(cells) for cells in groups.values()]


@dataclass(frozen=True)
class Estimate:
    """About how long groups of cells will take, one after the other, by finished ones of the same kind."""

    seconds: float
    n_known: int
    n_unknown: int  # of which no cell of the same model is finished yet

    def told(self, jobs: int = 1) -> str:
        """In words, for so many processes."""
        if not self.n_known and not self.n_unknown:
            return "nothing to run"
        unknown = f"{self.n_unknown} of unknown length: none of their model is finished yet"
        if not self.n_known:
            return unknown
        about = f"about {duration(self.seconds / max(1, jobs))}"
        return about if not self.n_unknown else f"{about}, and {unknown}"


def estimate(results: Results, groups: Iterable[Group]) -> Estimate:
    """How long groups will take, by finished cells.

    What finished cells of the same model, data, horizon, context and share of training took on average; where there are
    none, what the model takes elsewhere, times how much longer others take on this data set and horizon. A group whose
    model has never finished is counted as unknown.
    """
    return _sum_of(_seconds_of(results), groups)


def _sum_of(seconds_of: Callable[[Cell], float | None], groups: Iterable[Group]) -> Estimate:
    each = [seconds_of(group[0]) for group in groups]
    known = [seconds for seconds in each if seconds is not None]
    return Estimate(sum(known), len(known), len(each) - len(known))


def _seconds_of(results: Results) -> Callable[[Cell], float | None]:
    """What tells about how long a cell will take, or None."""
    took = [
        (cell, float(content["seconds"]))
        for cell, content in results.cells.items()
        if content.get("trained_with") == cell.name and not content.get("resumed")
    ]
    alike: dict[tuple[Any, ...], list[float]] = {}
    for cell, seconds in took:
        alike.setdefault(_kind(cell), []).append(seconds)
    by_factors = _times_of_factors(took)

    def told(cell: Cell) -> float | None:
        return float(np.mean(alike[_kind(cell)])) if _kind(cell) in alike else by_factors(cell)

    return told


def _times_of_factors(took: Sequence[tuple[Cell, float]]) -> Callable[[Cell], float | None]:
    """Seconds as a product of one factor for the model, one for the data set and one for the rest of a cell's kind.

    Factors are the least-squares solution of the logarithms, the smallest one where cells leave it open; what no
    finished cell has counts as average, but of a model that no cell has, nothing is told. Left out model by set in
    turn, the forecasting table's own times were missed by a factor of 1.7 on average, where the mean of a model's other
    cells missed them by 3.2.
    """
    column: dict[tuple[Any, ...], int] = {}
    for cell, _ in took:
        for factor in _factors(cell):
            column.setdefault(factor, len(column))
    has = np.zeros((len(took), len(column)))  # [cells, factors]
    for i, (cell, _) in enumerate(took):
        has[i, [column[factor] for factor in _factors(cell)]] = 1.0
    logs = [math.log(max(seconds, 1e-6)) for _, seconds in took]
    average = float(np.mean(logs)) if logs else 0.0
    weight = np.asarray(np.linalg.lstsq(has, np.subtract(logs, average), rcond=None)[0], np.float64)

    def told(cell: Cell) -> float | None:
        known = [column[factor] for factor in _factors(cell) if factor in column]
        return math.exp(average + weight[known].sum()) if ("model", cell.model) in column else None

    return told


def _kind(cell: Cell) -> tuple[Any, ...]:
    return cell.model, cell.data, cell.horizon, cell.context_length, cell.train_share


def _factors(cell: Cell) -> tuple[tuple[Any, ...], ...]:
    model, data, *rest = _kind(cell)
    return ("model", model), ("data", data), ("rest", *rest)


def _parts(cell: Cell) -> tuple[str, ...]:
    """What somebody who looks for a cell may have meant to write."""
    return cell.data, cell.model, f"{cell.data}-{cell.model}", cell.name


def plan(spec: BenchSpec, folder: str | Path, *, jobs: int = 1, only: str = "", redo: bool = False) -> str:
    """The cells of a benchmark, what of them is done, and how long the rest will take, in words."""
    results = read_results(folder, spec)
    groups = pending(results, only=only, redo=redo)
    to_run = {cell for group in groups for cell in group}
    seconds_of = _seconds_of(results)
    lines: list[str] = []
    asked = [cell for cell in spec.cells if only in cell.name]
    for cell in asked:
        if cell in to_run:
            seconds = seconds_of(cell)
            told = "unknown" if seconds is None else duration(seconds)
            states = {"failed before": results.failed, "changed": results.changed, "damaged": results.damaged}
            why = next((state for state, cells in states.items() if cell in cells), "to run")
            lines.append(f"  {why:<13} {cell.name}  ({told})")
        elif cell in results.cells:
            lines.append(f"  {'done':<13} {cell.name}")
    if n_others := len(spec.cells) - len(asked):
        lines.append(f"  {n_others} cells whose names do not contain {only!r} are left out")
    head = (
        f"{len(spec.cells)} cells, {len(results.cells)} done, {len(to_run)} to run in {len(groups)} trainings: "
        f"{_sum_of(seconds_of, groups).told(jobs)}"
    )
    if jobs > 1:
        head += f" with {jobs} jobs"
    if results.foreign:
        lines.append(f"  {len(results.foreign)} cells in {results.folder} are not of this specification, such as "
                     f"{results.foreign[0]}")  # fmt: skip
    lines += [f"  note: {told}" for told in notes(spec)]
    return "\n".join([head, *lines])


def duration(seconds: float) -> str:
    """A length of time in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def failures(results: Results, only: str = "") -> Sequence[str]:
    """The errors of cells that failed and whose name contains ``only``, as sentences."""
    return [f"{cell.name}: {told}" for cell, told in results.failed.items() if only in cell.name]
