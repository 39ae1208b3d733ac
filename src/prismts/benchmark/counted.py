"""Which cells of a benchmark count for a measure, what they say, and what a reader must know about them.

Tables and comparisons both start here, so that neither shows what the other leaves out.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from prismts.benchmark.results import Results
from prismts.benchmark.spec import Cell
from prismts.errors import DataError, unknown_name

__all__ = [
    "COSTS",
    "HEADLINES",
    "Counted",
    "check_measure",
    "counted",
    "direction",
    "draws",
    "lacking",
    "mean",
    "state",
    "unit",
]

HEADLINES = {"forecast": "mse", "classify": "accuracy", "detect": "vus_pr"}
COSTS = ("seconds", "cpu_seconds", "fit_seconds", "n_parameters", "n_macs")
_MOST_TOLD = 5  # names in one note
Direction = Literal["lower", "higher", "zero", "nominal"]


@dataclass(frozen=True)
class Counted:
    """The cells that count for one measure."""

    measure: str
    planned: tuple[Cell, ...]  # all that the specification names, done or not
    contents: Mapping[Cell, Mapping[str, Any]]  # of those that are finished
    values: Mapping[Cell, float]  # one context for each configuration, data set and horizon, unless all were asked for
    notes: tuple[str, ...]


def direction(task: str, measure: str) -> Direction:
    """Which value is best: the lowest, the highest, zero, or (of a coverage) the one that is claimed."""
    from prismts.evaluation.classification import CLASSIFICATION_METRICS
    from prismts.evaluation.detection import DETECTION_METRICS
    from prismts.evaluation.metrics import METRICS

    if measure in COSTS:
        return "lower"
    if task == "forecast":
        return METRICS[measure].best if measure in METRICS else "lower"
    if task == "classify":
        return "higher" if "higher is better" in CLASSIFICATION_METRICS.get(measure, "") else "lower"
    return "higher" if measure in DETECTION_METRICS else "lower"


def value_of(content: Mapping[str, Any], measure: str) -> float | None:
    """A measure, or a cost, of a finished cell; None where it has none, as of the time of a broken training."""
    if measure in ("seconds", "cpu_seconds", "fit_seconds") and content.get("resumed"):
        return None
    found = content["measures"].get(measure, content.get(measure) if measure in COSTS else None)
    if measure == "fit_seconds":
        found = content["chosen"]["fit_seconds"]
    return None if found is None else float(found)


def check_measure(results: Results, measure: str | None) -> str:
    """The measure asked for, or the headline of the task; an unknown one is an error that offers a neighbor."""
    if not results.cells:
        states = {"failed": results.failed, "damaged": results.damaged, "made with other settings": results.changed}
        told = ", ".join(f"{len(cells)} {state}" for state, cells in states.items() if cells)
        raise DataError(
            f"{results.folder} has no finished cell of its specification{f' ({told})' if told else ''}. Run it first: "
            "prism bench run."
        )
    headline = HEADLINES[results.spec.task]
    known = dict.fromkeys([headline])
    for content in results.cells.values():
        known.update(dict.fromkeys(content["measures"]))
    if (measure or headline) not in (*known, *COSTS):
        raise unknown_name("measure", measure, [*known, *COSTS])
    return measure or headline


def counted(results: Results, measure: str, *, every_context: bool = False, context: int | None = None) -> Counted:
    """The cells that count for a measure.

    Where several contexts were run, the one with the best mean validation score over seeds is taken, for every
    configuration by the same rule, once all contexts are there: a choice among some of them is another choice.

    Args:
        results: what a folder holds.
        measure: one that ``check_measure`` returned.
        every_context: choose none, count all.
        context: count this one alone.

    Raises:
        DataError: cells of several contexts have no validation score to choose by.
    """
    planned, contents, notes = list(results.spec.cells), dict(results.cells), list[str]()
    if measure in COSTS and results.spec.task == "forecast" and len(results.spec.protocols) > 1:
        first = results.spec.protocols[0]
        contents = {}
        for cell, content in results.cells.items():
            if content.get("trained_with", cell.name) == cell.name:
                contents.setdefault(replace(cell, protocol=first), content)
        planned = [cell for cell in planned if cell.protocol == first]
        notes.append("All protocols share one training: its cost is told once, and not again in rows of the others.")
    if context is not None:
        known = {cell.context_length for cell in planned}
        if context not in known:
            raise unknown_name("context of this benchmark", context, [str(one) for one in known if one is not None])
        planned = [cell for cell in planned if cell.context_length == context]
    counting: Iterable[Cell] = [cell for cell in planned if cell in contents]
    if not every_context:
        counting, told = _chosen(results, contents, planned, measure)
        notes += told
    values = {cell: value for cell in counting if (value := value_of(contents[cell], measure)) is not None}
    return Counted(measure, tuple(planned), contents, values, tuple(notes))


def _chosen(
    results: Results, contents: Mapping[Cell, Mapping[str, Any]], planned: Sequence[Cell], measure: str
) -> tuple[list[Cell], list[str]]:
    """Finished cells with the context that validation chose, and what was done, in words."""
    groups: dict[Cell, dict[int | None, list[Cell]]] = {}
    for cell in planned:
        alike = replace(cell, seed=0, context_length=None)
        groups.setdefault(alike, {}).setdefault(cell.context_length, []).append(cell)
    kept: list[Cell] = []
    waiting: dict[str, None] = {}
    several: set[int] = set()
    for alike, contexts in groups.items():
        done = {context: [cell for cell in cells if cell in contents] for context, cells in contexts.items()}
        done = {context: cells for context, cells in done.items() if cells}
        left = [context for context, cells in contexts.items()
                if context not in done and not any(cell in results.failed for cell in cells)]  # fmt: skip
        if done and left:
            waiting[f"{alike.model} on {alike.data}{f' {alike.horizon}' if alike.horizon else ''}"] = None
        elif len(done) == 1:
            kept += next(iter(done.values()))
        elif done:
            kept += done[_best(results, contents, done, measure)]
            several |= {context or 0 for context in done}
    notes: list[str] = []
    if several:
        notes.append(
            f"Context: of {', '.join(map(str, sorted(several)))} steps, validation chose one for each model, data set "
            "and horizon."
        )
    if waiting:
        notes.append(f"Without a number until all of their contexts have been run: {_few(waiting)}.")
    return kept, notes


def _best(
    results: Results,
    contents: Mapping[Cell, Mapping[str, Any]],
    done: Mapping[int | None, Sequence[Cell]],
    measure: str,
) -> int | None:
    """The context with the best mean validation score over the seeds that all have, or over their own."""
    task, headline = results.spec.task, HEADLINES[results.spec.task]
    scores = {cell: contents[cell].get("validation") or {} for cells in done.values() for cell in cells}
    ranks = direction(task, measure) in ("lower", "higher")
    judge = measure if ranks and all(measure in one for one in scores.values()) else headline
    if any(one.get(judge) is None for one in scores.values()):
        first = next(iter(scores))
        by = "collection" if task == "detect" else "data,horizon"
        raise DataError(
            f"{first.data} was run with several contexts, and no validation score tells which one {first.model!r} "
            f"should have. A table shows them all (--by {by},context), a comparison takes one of them (--context "
            f"{next(iter(done))})."
        )
    shared = set.intersection(*({cell.seed for cell in cells} for cells in done.values()))
    means = {
        context: mean([scores[cell][judge] for cell in cells if not shared or cell.seed in shared])
        for context, cells in done.items()
    }
    return (max if direction(task, judge) == "higher" else min)(means, key=lambda context: means[context])


def unit(cell: Cell) -> tuple[object, ...]:
    """What a mean is over; seeds are draws of the same unit."""
    return cell.data, cell.horizon, cell.resample, cell.train_share


def draws(values: Mapping[Cell, float]) -> tuple[tuple[float, ...], str]:
    """The mean of one configuration's cells by each draw, and what a draw is: "seeds" or "resamples".

    A mean is over data sets, each the mean over its horizons. Seeds that lack a part of it are no draw; where every one
    does, there is a single draw, over all. Another draw of cases says more than another seed on the same, so resamples
    are the draws where there are several.
    """
    kind = "resamples" if len({cell.resample for cell in values}) > 1 else "seeds"
    drawn: dict[int, dict[tuple[str, object], list[float]]] = {}
    for cell, value in values.items():
        of_draw = drawn.setdefault(cell.resample if kind == "resamples" else cell.seed, {})
        of_draw.setdefault((cell.data, (cell.horizon, cell.train_share)), []).append(value)
    parts = {part for one in drawn.values() for part in one}
    whole = [one for _, one in sorted(drawn.items()) if set(one) == parts]
    if not whole:
        whole = [{part: [value for one in drawn.values() for value in one.get(part, [])] for part in parts}]
    return tuple(map(_mean_over_data, whole)), kind


def _mean_over_data(values: Mapping[tuple[str, object], Sequence[float]]) -> float:
    by_data: dict[str, list[float]] = {}
    for (data, _), found in values.items():
        by_data.setdefault(data, []).append(mean(found))
    return mean([mean(found) for found in by_data.values()])


def mean(values: Sequence[float]) -> float:
    """The mean, the same in whatever order the values come, so that equal scores tie."""
    return math.fsum(values) / len(values)


# ---- what a reader must know


def lacking(results: Results, found: Counted, planned: Sequence[Cell], names: Sequence[str]) -> list[str]:
    """Why configurations have no number among the cells that were planned."""
    without: list[str] = []
    not_run: list[str] = []
    for name in names:
        cells = [cell for cell in planned if cell.model == name]
        done = [cell for cell in cells if cell in found.contents]
        if done and all(value_of(found.contents[cell], found.measure) is None for cell in done):
            without.append(name)
        elif cells and not done:
            not_run.append(f"{name} (failed)" if any(cell in results.failed for cell in cells) else name)
    notes = [f"No result yet: {', '.join(not_run)}."] if not_run else []
    return [*notes, f"No {found.measure} there: {', '.join(without)}."] if without else notes


def state(results: Results, found: Counted, cells: Collection[Cell]) -> list[str]:
    """How far the run is, and whether the cells that are shown were made alike."""
    notes: list[str] = []
    hashes: dict[str, set[str]] = {}
    for cell in cells:
        hashes.setdefault(cell.data, set()).add(str(found.contents[cell].get("data_hash")))
    notes += [f"Cells of {data} were made from different data: {', '.join(sorted(several))}."
              for data, several in hashes.items() if len(several) > 1]  # fmt: skip
    states = {str((found.contents[cell].get("versions") or {}).get("prismts_files")) for cell in cells}
    if len(states) > 1:
        notes.append(f"Cells were made by {len(states)} states of the package's files; results.parquet tells which.")
    notes += _signs(found, cells)
    n = len(results.spec.cells)
    if len(results.cells) < n:
        failed = f", {len(results.failed)} failed" if results.failed else ""
        notes.append(f"{len(results.cells)} of {n} cells are done{failed}.")
    if results.changed:
        notes.append(
            f"{len(results.changed)} cells were made with other settings and are left out (prism bench run --redo)."
        )
    if results.damaged:
        cell, told = next(iter(results.damaged.items()))
        more = f" and {len(results.damaged) - 1} more" if len(results.damaged) > 1 else ""
        notes.append(f"Left out as damaged: {cell.name}{more} ({told}). The next prism bench run makes them anew.")
    if results.foreign:
        notes.append(f"{len(results.foreign)} cells in the folder are not of its specification and are left out.")
    return notes


def _signs(found: Counted, cells: Collection[Cell]) -> list[str]:
    """Which models show a sign of failure, and in how many of their trainings."""
    by_sign: dict[str, dict[str, set[Cell]]] = {}
    for cell in cells:
        for sign in found.contents[cell].get("signs_of_failure") or ():  # cells of earlier versions tell none
            by_sign.setdefault(sign, {}).setdefault(cell.model, set()).add(cell.training)
    told = {sign: [f"{model} ({len(ones)})" for model, ones in models.items()] for sign, models in by_sign.items()}
    return [f"Sign of failure, {sign}, in so many trainings: {', '.join(models)}." for sign, models in told.items()]


def _few(names: Iterable[str]) -> str:
    told = list(names)
    more = f" and {len(told) - _MOST_TOLD} more" if len(told) > _MOST_TOLD else ""
    return ", ".join(told[:_MOST_TOLD]) + more
