"""How long the cells of a benchmark will take: by finished ones, or by a few steps of each model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from prismts.benchmark.groups import Event, Group, Load, Tell
from prismts.benchmark.local import run_in_processes
from prismts.benchmark.results import Results
from prismts.benchmark.spec import BenchSpec, Cell
from prismts.training.brief import Length, cut_short

__all__ = [
    "Estimate",
    "Lengths",
    "Timed",
    "duration",
    "estimate",
    "in_words",
    "probe",
    "probe_group",
    "to_probe",
    "told_by",
]


@dataclass(frozen=True)
class Timed(Event):
    """What a few steps of a group tell of its length; None where they failed."""

    length: Length | None = None


Lengths = Mapping[Cell, Timed]  # by what :func:`told_by` makes of a cell


@dataclass(frozen=True)
class Estimate:
    """About how long groups of cells will take, one after the other."""

    least: float  # seconds, if patience ends all trainings that were timed as soon as it can
    most: float  # seconds, if those make all their epochs
    n_known: int
    n_unknown: int  # of which no cell of the same model is finished yet, and no step was timed

    def told(self, jobs: int = 1) -> str:
        """In words, for so many processes."""
        if not self.n_known and not self.n_unknown:
            return "nothing to run"
        unknown = (
            f"{self.n_unknown} of unknown length: none of their model is finished yet (--probe times a few steps of "
            "each)"
        )
        if not self.n_known:
            return unknown
        about = _between(self.least / max(1, jobs), self.most / max(1, jobs))
        return about if not self.n_unknown else f"{about}, and {unknown}"


def estimate(results: Results, groups: Iterable[Group], probed: Lengths | None = None) -> Estimate:
    """How long groups will take, by finished cells, or else by steps that were timed.

    What finished cells of the same model, data, horizon, context and share of training took on average; where there are
    none, what the model takes elsewhere, times how much longer others take on this data set and horizon. A group whose
    model has never finished, and was not timed, is counted as unknown.
    """
    told = _length_of(results, probed)
    each = [told(group[0]) for group in groups]
    known = [length for length in each if length is not None]
    return Estimate(
        sum(length.least for length in known), sum(length.most for length in known), len(known), len(each) - len(known)
    )


def in_words(results: Results, probed: Lengths | None = None) -> Callable[[Cell], str]:
    """What says about how long a cell will take; ``probed`` is what :func:`probe` returned."""
    length_of = _length_of(results, probed)

    def told(cell: Cell) -> str:
        if (length := length_of(cell)) is not None:
            return _between(length.least, length.most)
        timed = (probed or {}).get(told_by(cell))
        return "unknown" if timed is None else f"fails: {timed.told}"

    return told


def _length_of(results: Results, probed: Lengths | None = None) -> Callable[[Cell], Length | None]:
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

    def told(cell: Cell) -> Length | None:
        seconds = float(np.mean(alike[_kind(cell)])) if _kind(cell) in alike else by_factors(cell)
        if seconds is not None:
            return Length(seconds, seconds)
        timed = (probed or {}).get(told_by(cell))
        return None if timed is None else timed.length

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


# ---- a few steps of each


def to_probe(results: Results, groups: Iterable[Group]) -> list[Group]:
    """Those to time, one for each model, data set, context and share of which no finished cell tells anything."""
    told = _length_of(results)
    first: dict[Cell, Group] = {}
    for group in groups:
        if told(group[0]) is None:
            first.setdefault(told_by(group[0]), group[:1])  # its protocols share the training
    return list(first.values())


def probe(spec: BenchSpec, groups: Sequence[Group], *, jobs: int = 1, tell: Tell = lambda event: None) -> Lengths:
    """Run each group with trainings of a few steps, in processes of one thread, and keep nothing but how long it takes.

    What has no training by steps, such as a closed form, takes as long as it takes. So does all that comes before and
    after training, which counts as well.
    """
    found: dict[Cell, Timed] = {}

    def heard(event: Event) -> None:
        if event.kind in ("done", "failed"):
            timed = event if isinstance(event, Timed) else Timed(event.cells, event.kind, event.told, event.seconds)
            found[told_by(event.cells[0])] = timed
        tell(event)

    with TemporaryDirectory() as nothing:
        run_in_processes(spec, groups, Path(nothing), jobs, heard, run=probe_group)
    return found


def probe_group(spec: BenchSpec, group: Group, folder: Path, *, load: Load | None = None) -> Timed:
    """How long the first cell of a group takes, by a few steps of each of its trainings; nothing is written."""
    from prismts.benchmark.cells import run_cells

    began = time.perf_counter()
    try:
        with cut_short() as trainings:
            run_cells(spec, group[:1], load=load)
    except Exception as error:  # as one cell that fails does not end the others
        return Timed(group, "failed", f"{type(error).__name__}: {error}", time.perf_counter() - began)
    took = time.perf_counter() - began
    rest = took - sum(one.spent for one in trainings)
    length = Length(rest + sum(one.least for one in trainings), rest + sum(one.most for one in trainings), took)
    return Timed(group, "done", _between(length.least, length.most), took, length=length)


def told_by(cell: Cell) -> Cell:
    """Cells whose length one of them tells."""
    return replace(cell.training, seed=0, resample=0, horizon=None)


def _between(least: float, most: float) -> str:
    """Two lengths of time in words, or one where they are about the same."""
    least_told, most_told = duration(least), duration(most)
    return f"about {most_told}" if most < 1.25 * least or least_told == most_told else f"{least_told} to {most_told}"


def duration(seconds: float) -> str:
    """A length of time in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
