"""Run what is missing of a benchmark: in this process, in several, or on a cluster; or say what that is."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Sequence
from pathlib import Path

from prismts.benchmark.cluster import run_on_cluster
from prismts.benchmark.groups import Event, Group, Load, Tell, run_group
from prismts.benchmark.lengths import Lengths, estimate, in_words
from prismts.benchmark.local import run_in_processes
from prismts.benchmark.locks import holding
from prismts.benchmark.results import Results, clear, gather, keep_spec, read_results
from prismts.benchmark.room import notes
from prismts.benchmark.spec import BenchSpec, Cell
from prismts.errors import SettingsError

__all__ = ["failures", "pending", "plan", "run_bench"]

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


def _parts(cell: Cell) -> tuple[str, ...]:
    """What somebody who looks for a cell may have meant to write."""
    return cell.data, cell.model, f"{cell.data}-{cell.model}", cell.name


def plan(
    spec: BenchSpec,
    folder: str | Path,
    *,
    jobs: int = 1,
    only: str = "",
    redo: bool = False,
    probed: Lengths | None = None,
) -> str:
    """The cells of a benchmark, what of them is done, and how long the rest will take, in words."""
    results = read_results(folder, spec)
    groups = pending(results, only=only, redo=redo)
    to_run = {cell for group in groups for cell in group}
    length_of = in_words(results, probed)
    lines: list[str] = []
    asked = [cell for cell in spec.cells if only in cell.name]
    for cell in asked:
        if cell in to_run:
            states = {"failed before": results.failed, "changed": results.changed, "damaged": results.damaged}
            why = next((state for state, cells in states.items() if cell in cells), "to run")
            lines.append(f"  {why:<13} {cell.name}  ({length_of(cell)})")
        elif cell in results.cells:
            lines.append(f"  {'done':<13} {cell.name}")
    if n_others := len(spec.cells) - len(asked):
        lines.append(f"  {n_others} cells whose names do not contain {only!r} are left out")
    head = (
        f"{len(spec.cells)} cells, {len(results.cells)} done, {len(to_run)} to run in {len(groups)} trainings: "
        f"{estimate(results, groups, probed).told(jobs)}"
    )
    if jobs > 1:
        head += f" with {jobs} jobs"
    if results.foreign:
        lines.append(f"  {len(results.foreign)} cells in {results.folder} are not of this specification, such as "
                     f"{results.foreign[0]}")  # fmt: skip
    lines += [f"  note: {told}" for told in notes(spec)]
    return "\n".join([head, *lines])


def failures(results: Results, only: str = "") -> Sequence[str]:
    """The errors of cells that failed and whose name contains ``only``, as sentences."""
    return [f"{cell.name}: {told}" for cell, told in results.failed.items() if only in cell.name]
