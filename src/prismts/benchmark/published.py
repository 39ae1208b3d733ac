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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from prismts.benchmark.lines import Lined, read_lined
from prismts.errors import PrismError, SettingsError, unknown_name

__all__ = ["Published", "read_published"]

_STANDARD = ({96, 192, 336, 720}, {24, 36, 48, 60})  # steps
_ENTRIES = ("model", "protocol", "source", "told", "measures", "values")


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


def read_published(path: str | Path) -> list[Published]:
    """The columns of a file.

    Raises:
        SettingsError: a name is unknown or a number is none, with the line.
    """
    from prismts.evaluation.protocols import PROTOCOLS

    read = read_lined(path)
    content: Any = read.content
    if not isinstance(content, dict) or set(cast(dict[str, Any], content)) != {"task", "numbers"}:
        raise SettingsError(f"{read.path.name} holds `task` and a list of `numbers`, as benchmarks/published does.")
    task = str(content["task"])
    if task not in ("forecast", "classify", "detect"):
        raise SettingsError(f"{read.at(('task',))}: {unknown_name('task', task, ('forecast', 'classify', 'detect'))}")
    columns: list[Published] = []
    for number, one in enumerate(cast(list[dict[str, Any]], content["numbers"])):
        place: tuple[str | int, ...] = ("numbers", number)
        for name in one:
            if name not in _ENTRIES:
                raise SettingsError(f"{read.at((*place, name))}: {unknown_name('entry', name, _ENTRIES)}")
        missing = [name for name in _ENTRIES if name not in one]
        if missing:
            raise SettingsError(f"{read.at(place)}: a column lacks {', '.join(missing)}.")
        if one["protocol"] not in PROTOCOLS:
            raise SettingsError(
                f"{read.at((*place, 'protocol'))}: {unknown_name('protocol', one['protocol'], PROTOCOLS)}"
            )
        values = _values(one["values"], [str(m) for m in one["measures"]], (*place, "values"), read)
        columns.append(Published(str(one["model"]), task, one["protocol"], one["source"], one["told"], values))
    return columns


def _values(
    given: Mapping[Any, Any], measures: Sequence[str], place: tuple[str | int, ...], read: Lined
) -> dict[tuple[str, int | None, str], float]:
    found: dict[tuple[str, int | None, str], float] = {}
    for data, numbers in given.items():
        official = _official(str(data))
        by_horizon = cast(dict[Any, Any], numbers) if isinstance(numbers, dict) else {"avg": numbers}
        for horizon, text in by_horizon.items():
            step = None if horizon == "avg" else int(horizon)
            parts = str(text).split("/")
            if len(parts) > len(measures):
                raise SettingsError(
                    f"{read.at((*place, str(data)))}: {text!r} holds {len(parts)} numbers, but the measures are "
                    f"{', '.join(measures)}."
                )
            for measure, part in zip(measures, parts, strict=False):
                try:
                    found[official, step, measure] = float(part)
                except ValueError as error:
                    raise SettingsError(f"{read.at((*place, str(data)))}: {part!r} is no number.") from error
    return found


def _official(name: str) -> str:
    """The catalog's name; a name it does not know stays, for sets that are not here."""
    from prismts.data.catalog import dataset

    try:
        return dataset(name).name
    except PrismError:
        return name
