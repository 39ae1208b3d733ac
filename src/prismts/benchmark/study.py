"""Run a study of the cross learner: cell after cell, each a file of its own, so that a broken run goes on where it was.

A folder of results holds ``NAME.json`` for each finished cell, ``NAME.failed.json`` for each that failed, with the
error, and ``data-NAME.json`` for each data set: its alignment and the four conditions of the profile. Cells that failed
are tried again when the study is run again.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from prismts.benchmark.json_files import read_json, write_json
from prismts.benchmark.lengths import duration
from prismts.benchmark.study_cells import run_cell
from prismts.benchmark.study_spec import Cell, StudySpec
from prismts.data.alignment import day_lags
from prismts.data.catalog import load_dataset
from prismts.data.profile import profile
from prismts.data.series import Series
from prismts.errors import DataError, SettingsError

__all__ = ["Progress", "Study", "plan", "read_study", "run_study"]

Load = Callable[[str], Series]


@dataclass(frozen=True)
class Progress:
    """What became of a cell: "done", "there already" or "failed"."""

    cell: Cell
    outcome: str
    told: str = ""  # the score, or the error
    seconds: float = 0.0


@dataclass(frozen=True)
class Study:
    """What was found so far, as it was written."""

    spec: StudySpec
    cells: Mapping[Cell, Mapping[str, Any]]
    failed: Mapping[Cell, str]  # the error
    data: Mapping[str, Mapping[str, Any]]  # by name

    @property
    def missing(self) -> tuple[Cell, ...]:
        """Cells of the specification without a result."""
        return tuple(cell for cell in self.spec.cells if cell not in self.cells)

    def values(self, data: str, horizon: int, arrangement: str, *place: str) -> dict[int, float]:
        """A number of every finished cell by seed, such as ``values("ETTh2", 96, "both", "test", "rmse")``.

        Cells that have no such number are left out.
        """
        found: dict[int, float] = {}
        for cell, result in self.cells.items():
            if (cell.data, cell.horizon, cell.arrangement) == (data, horizon, arrangement):
                value: Any = result
                for name in place:
                    value = value.get(name) if isinstance(value, Mapping) else None
                if value is not None:
                    found[cell.seed] = float(value)
        return dict(sorted(found.items()))

    def seeds_of_all(self, data: str, horizon: int, arrangements: Sequence[str]) -> dict[str, list[float]]:
        """RMSE by arrangement over the seeds that all of these have; empty lists where there is none."""
        by_name = {name: self.values(data, horizon, name, "test", "rmse") for name in arrangements}
        seeds = sorted(set.intersection(*(set(found) for found in by_name.values())))
        return {name: [found[seed] for seed in seeds] for name, found in by_name.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """Data sets, in the order of the specification."""
        return tuple(dict.fromkeys(cell.data for cell in self.spec.cells))

    @property
    def horizons(self) -> tuple[int, ...]:
        """Horizons, rising."""
        return tuple(sorted({cell.horizon for cell in self.spec.cells}))


def plan(spec: StudySpec, folder: str | Path) -> str:
    """The cells of a study, what of them is done, and how long the rest will take, in words."""
    study = read_study(spec, folder)
    lines: list[str] = []
    known = [float(result["seconds"]) for result in study.cells.values()]
    total = 0.0
    for cell in spec.cells:
        if cell in study.cells:
            lines.append(f"  done     {cell}")
            continue
        alike = [float(result["seconds"]) for other, result in study.cells.items()
                 if (other.arrangement, other.data, other.horizon) == (cell.arrangement, cell.data, cell.horizon)
                 ] or [float(result["seconds"]) for other, result in study.cells.items()
                       if (other.data, other.horizon) == (cell.data, cell.horizon)] or known  # fmt: skip
        if alike:
            total += float(np.mean(alike))
        lines.append(f"  {'failed ' if cell in study.failed else 'to run '}  {cell}")
    n = len(study.missing)
    head = f"{len(spec.cells)} cells, {len(spec.cells) - n} done, {n} to run"
    if not n:
        told = ""
    elif known:
        told = f": about {duration(total)} at the pace of those done, one after the other"
    else:
        told = ": none is done yet, so there is no pace to go by; stop the study after a few cells and ask again"
    return "\n".join([head + told, *lines])


def run_study(
    spec: StudySpec,
    folder: str | Path,
    *,
    load: Load | None = None,
    tell: Callable[[Progress], None] = lambda progress: None,
    only: str = "",
) -> Study:
    """Run what is missing, cell by cell, and return everything that was found.

    Args:
        spec: what to run.
        folder: where results lie; those made by other settings are an error, never mixed in.
        load: gives a series for a name; the catalog if None.
        tell: called after every cell.
        only: run only cells whose name contains this text.

    A cell that fails is written down with its error and the rest go on; Ctrl-C ends the study after the last finished
    cell.
    """
    folder = Path(folder)
    study = read_study(spec, folder)
    loaded: dict[str, Series] = {}
    source = load or _from_catalog
    for cell in spec.cells:
        if only not in str(cell):
            continue
        if cell in study.cells or (folder / f"{cell}.json").exists():  # or another process was quicker
            tell(Progress(cell, "there already"))
            continue
        began = time.perf_counter()
        try:
            if cell.data not in loaded:
                loaded[cell.data] = source(cell.data)
                write_json(folder / f"data-{cell.data}.json", _about(loaded[cell.data]))
            result = run_cell(cell, loaded[cell.data], spec.made_with(cell))
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            content = {"error": told, "made_with": spec.made_with(cell), "traceback": traceback.format_exc()}
            write_json(folder / f"{cell}.failed.json", content)
            tell(Progress(cell, "failed", told, time.perf_counter() - began))
            continue
        write_json(folder / f"{cell}.json", result)
        (folder / f"{cell}.failed.json").unlink(missing_ok=True)
        tell(Progress(cell, "done", f"RMSE {result['test']['rmse']:.4f}", time.perf_counter() - began))
    return read_study(spec, folder)


def read_study(spec: StudySpec, folder: str | Path) -> Study:
    """What a folder holds of a study.

    Raises:
        SettingsError: if a cell there was made by other settings than the specification has now.
        DataError: if a file is damaged.
    """
    folder = Path(folder)
    cells: dict[Cell, Mapping[str, Any]] = {}
    failed: dict[Cell, str] = {}
    for cell in spec.cells:
        if (file := folder / f"{cell}.json").exists():
            cells[cell] = read_json(file)
            _compare(file, cells[cell].get("made_with"), spec.made_with(cell))
        elif (file := folder / f"{cell}.failed.json").exists():
            failed[cell] = str(read_json(file).get("error", "unknown"))
    data = {name: read_json(file) for name in dict.fromkeys(cell.data for cell in spec.cells)
            if (file := folder / f"data-{name}.json").exists()}  # fmt: skip
    return Study(spec, cells, failed, data)


def _compare(file: Path, there: Any, now: Mapping[str, Any]) -> None:
    """Refuse a cell that is not of this study."""
    plain = json.loads(json.dumps(now))
    if there == plain:
        return
    before = cast(Mapping[str, Any], there) if isinstance(there, Mapping) else {}
    name = next(name for name in plain if before.get(name) != plain[name])
    raise SettingsError(
        f"{file} was made with {name} {before.get(name)!r}, but the study now says {plain[name]!r}. Give the study "
        "another folder (--out), or delete what it is to make anew."
    )


def _about(series: Series) -> dict[str, Any]:
    """The alignment of the days of the last channel, and the four conditions of the profile."""
    found = profile(series)
    about: dict[str, Any] = {
        "conditions": {condition.name: condition.holds for condition in found.conditions},
        "sentences": [condition.sentence for condition in found.conditions], "suggestion": list(found.suggestion),
        "channel": series.channels[-1],
    }  # fmt: skip
    if series.timestamps is not None:
        try:
            days = day_lags(series.values[-1], series.timestamps)
        except DataError as error:
            return {**about, "alignment": str(error)}
        about["alignment"] = {
            "phase_drift": days.phase_drift, "spai": days.spai, "samples_per_day": days.samples_per_day,
            "dates": np.datetime_as_string(days.dates.astype("datetime64[D]")).tolist(), "lags": days.lags.tolist(),
        }  # fmt: skip
    return about


def _from_catalog(name: str) -> Series:
    data = load_dataset(name)
    if not isinstance(data, Series):
        raise DataError(f"{name} is a collection of cases, not a series with a test part in time.")
    return data
