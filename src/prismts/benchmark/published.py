"""Numbers that others published, with where they stand and how they were made.

A file of ``benchmarks/published`` holds a task and a list of columns:

    task: forecast
    numbers:
      - model: DUET
        protocol: honest        # which of our protocols it is comparable with: is every test window counted?
        source: DUET, KDD 2025, Table 3
        told: no window dropped; context searched on each set
        measures: [mse, mae]    # what the numbers between slashes are
        values:
          ETTh1: {96: .352/.384, 192: .398/.409, avg: .398}
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from prismts.benchmark.lines import Lined, read_lined
from prismts.errors import PrismError, SettingsError, nearest, unknown_name

__all__ = ["Published", "measure_names", "read_published"]

_STANDARD = ({96, 192, 336, 720}, {24, 36, 48, 60})  # steps
_TASKS = ("forecast", "classify", "detect")
_TEXTS = ("model", "protocol", "source", "told")
_ENTRIES = (*_TEXTS, "measures", "values")
_OWN = ("rmse_own", "mae_own", "width", "mse_whole_scale", "mae_whole_scale")  # of cells, beside METRICS
_A_SLIP = 0.85  # how like a known name one is that was meant to be it: ILII, Wether, but not CR (beside UCR)

Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Published:
    """One column of numbers: a model as one source reports it."""

    model: str
    task: str
    protocol: str  # the one of ours that it is comparable with
    source: str
    told: str  # how the numbers were made
    values: Mapping[tuple[str, int | None, str], float]  # (data set, horizon, measure); horizon None: mean, or none

    def value(self, data: str, horizons: Sequence[int | None], measure: str) -> float | None:
        """The number for one horizon, or the mean over several; None where the source has none."""
        found = [self.values.get((data, horizon, measure)) for horizon in horizons]
        known = [value for value in found if value is not None]
        if known and len(known) == len(found):
            return sum(known) / len(known)
        if set(horizons) not in _STANDARD:  # the mean of a source is over these, and no other ones
            return None
        return self.values.get((data, None, measure))


def measure_names(task: str) -> tuple[str, ...]:
    """The measures that a cell of a task can have."""
    from prismts.evaluation.classification import CLASSIFICATION_METRICS
    from prismts.evaluation.detection import DETECTION_METRICS
    from prismts.evaluation.metrics import METRICS

    known = {"forecast": (*METRICS, *_OWN), "classify": CLASSIFICATION_METRICS, "detect": DETECTION_METRICS}
    return tuple(known[task])


def read_published(path: str | Path, own: Sequence[str] = ()) -> list[Published]:
    """The columns of a file.

    A file may hold data sets that are not here; a name that is all but one of the catalog or of ``own`` is a slip.

    Raises:
        SettingsError: an entry is missing or is not what it should be, a name is unknown, or a number is none; with the
            line, what was expected and what came.
    """
    from prismts.evaluation.protocols import PROTOCOLS

    read = read_lined(path, "of published numbers")
    content: Any = read.content
    if not isinstance(content, dict) or set(cast(dict[Any, Any], content)) != {"task", "numbers"}:
        raise SettingsError(f"{read.path.name} holds `task` and a list of `numbers`, as benchmarks/published does.")
    task, numbers = cast(Any, content["task"]), cast(Any, content["numbers"])
    if task not in _TASKS:
        raise SettingsError(f"{read.at(('task',))}: {unknown_name('task', task, _TASKS)}")
    if not isinstance(numbers, list):
        raise _expected(read, ("numbers",), "a list of columns (- model: NAME ...)", numbers)
    columns: list[Published] = []
    for number, one in enumerate(cast(list[Any], numbers)):
        place: Place = ("numbers", number)
        entries = _entries(read, place, one)
        texts = {name: _text(read, (*place, name), entries[name]) for name in _TEXTS}
        if texts["protocol"] not in PROTOCOLS:
            known = unknown_name("protocol", texts["protocol"], PROTOCOLS)
            raise SettingsError(f"{read.at((*place, 'protocol'))}: {known}")
        measures = _measures(read, (*place, "measures"), entries["measures"], task)
        columns.append(
            Published(task=task, values=_values(read, (*place, "values"), entries["values"], measures, own), **texts)
        )
    return columns


def _expected(read: Lined, place: Place, expected: str, got: object) -> SettingsError:
    """An error that names the file and the line, the entry, what should stand there, and what does."""
    return SettingsError(f"{read.at(place)}: {place[-1]} is {expected}, but got {got!r}.")


def _entries(read: Lined, place: Place, one: Any) -> dict[str, Any]:
    if not isinstance(one, dict):
        raise SettingsError(f"{read.at(place)}: a column has the entries {', '.join(_ENTRIES)}, but got {one!r}.")
    entries = cast(dict[str, Any], one)
    for name in entries:
        if name not in _ENTRIES:
            raise SettingsError(f"{read.at((*place, str(name)))}: {unknown_name('entry', name, _ENTRIES)}")
    if missing := [name for name in _ENTRIES if name not in entries]:
        raise SettingsError(f"{read.at(place)}: a column lacks {', '.join(missing)}.")
    return entries


def _text(read: Lined, place: Place, given: Any) -> str:
    if not isinstance(given, str) or not given.strip():
        raise _expected(read, place, "text (a number in quotes)", given)
    return given


def _measures(read: Lined, place: Place, given: Any, task: str) -> list[str]:
    if not isinstance(given, list) or not given:
        raise _expected(read, place, "a list of names, such as [mse, mae]", given)
    for name in cast(list[Any], given):
        if name not in measure_names(task):
            raise SettingsError(f"{read.at(place)}: {unknown_name('measure', name, measure_names(task))}")
    return cast(list[str], given)


def _values(
    read: Lined, place: Place, given: Any, measures: Sequence[str], own: Sequence[str]
) -> dict[tuple[str, int | None, str], float]:
    if not isinstance(given, dict) or not given:
        raise _expected(read, place, "a number, or numbers by horizon, of each data set (ETTh1: {96: .352})", given)
    found: dict[tuple[str, int | None, str], float] = {}
    signed = _signed()
    for data, numbers in cast(dict[Any, Any], given).items():
        here = (*place, str(data))
        name = _official(read, here, str(data), own)
        by_horizon = cast(dict[Any, Any], numbers) if isinstance(numbers, dict) else {"avg": numbers}
        for horizon, text in by_horizon.items():
            if horizon != "avg" and (type(horizon) is not int or horizon < 1):
                raise SettingsError(f"{read.at(here)}: a horizon is a number of steps, or avg, but got {horizon!r}.")
            parts = str(text).split("/")
            if len(parts) > len(measures):
                raise SettingsError(
                    f"{read.at(here)}: {text!r} holds {len(parts)} numbers, but the measures are {', '.join(measures)}."
                )
            for measure, part in zip(measures, parts, strict=False):
                step = None if horizon == "avg" else horizon
                found[name, step, measure] = _number(read, here, part, signed=measure in signed)
    return found


def _signed() -> set[str]:
    """Measures that may lie on either side of their best value, zero."""
    from prismts.evaluation.metrics import METRICS

    return {name for name, one in METRICS.items() if one.best == "zero"}


def _number(read: Lined, place: Place, text: str, *, signed: bool) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise SettingsError(f"{read.at(place)}: {text!r} is no number.") from error
    if not math.isfinite(value) or (value < 0 and not signed):
        raise SettingsError(f"{read.at(place)}: a score is a number of at least 0, but got {text!r}.")
    return value


def _official(read: Lined, place: Place, name: str, own: Sequence[str]) -> str:
    """The catalog's name; a name it does not know stays, for sets that are not here."""
    from prismts.data.catalog import dataset, list_datasets

    with contextlib.suppress(PrismError):
        return dataset(name).name
    known = {*own, *(one for entry in list_datasets() for one in (entry.name, *entry.aliases, str(entry.collection)))}
    if name not in known and (near := nearest(name, known, cutoff=_A_SLIP)):
        raise SettingsError(f"{read.at(place)}: There is no data set named {name!r}. Did you mean {near[0]!r}?")
    return name
