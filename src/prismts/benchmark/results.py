"""The folder of a benchmark: a file per cell, written whole or not at all, and all of them as one table.

results.parquet              every finished cell as a row: SELECT model, avg(mse) FROM 'results.parquet' GROUP BY model
spec.json                    the specification the folder was last run with
cells/NAME.json              a finished cell: scores, settings in full, versions, hash of the data, cost
cells/NAME.failed.json       a cell that failed, with its error; it is tried again by the next run
predictions/NAME.npz         what it predicted, if the specification keeps that
published/NAME               the published numbers that stand beside ours
logs/                        what worker processes said
unfinished/                  checkpoints of trainings that were broken off, and NAME.lock while a run is at a cell
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from prismts.benchmark.json_files import read_json, write_json
from prismts.benchmark.predictions import damage, write_predictions
from prismts.benchmark.spec import BenchSpec, Cell
from prismts.errors import DataError
from prismts.writing import whole, write_whole

if TYPE_CHECKING:
    import pandas as pd

    from prismts.benchmark.cells import Record

__all__ = [
    "Results", "cell_file", "clear", "content_if_done", "failed_file", "frame", "gather", "keep_spec",
    "predictions_file", "read_results", "write_failed", "write_records",
]  # fmt: skip

_STALE = 3600  # seconds after which a half-written file is nobody's
_MOST_SHOWN = 60  # characters of a value that is not what it should be


class _Chosen(BaseModel):
    """What is read of a cell's choices."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)
    fit_seconds: float


class _Content(BaseModel):
    """What no cell is without, and the kinds of all that tables, comparisons and estimates read of one."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)
    task: str
    made_with: dict[str, Any]
    measures: dict[str, float | None]  # the first one is what the cell was run for
    validation: dict[str, float | None] | None = None
    n_scored: int
    counted: str
    n_parameters: int | None
    n_macs: int | None
    seconds: float
    cpu_seconds: float
    score_seconds: float | None = None  # cells of earlier versions tell none
    chosen: _Chosen
    trained_with: str
    data_hash: str
    device: str
    threads: int
    versions: dict[str, Any] | None
    settings: dict[str, Any]
    finished: str
    resumed: bool = False
    signs_of_failure: dict[str, Any] | None = None
    predictions: str | None = None

    @field_validator("measures")
    @classmethod
    def _is_measured(cls, measures: dict[str, float | None]) -> dict[str, float | None]:
        if next(iter(measures.values()), None) is None:
            raise ValueError("nothing is measured")
        return measures


@dataclass(frozen=True)
class Results:
    """What a folder holds of a specification."""

    spec: BenchSpec
    folder: Path
    cells: Mapping[Cell, Mapping[str, Any]]  # as they were written
    failed: Mapping[Cell, str]  # the error of the last try, of cells that are not done since
    changed: Mapping[Cell, str]  # cells that other settings or data made, in words; not among ``cells``
    damaged: Mapping[Cell, str]  # cells whose file cannot be used, in words; not among ``cells``
    foreign: tuple[str, ...]  # files of cells that the specification does not name

    @property
    def missing(self) -> tuple[Cell, ...]:
        """Cells of the specification without a result that counts."""
        return tuple(cell for cell in self.spec.cells if cell not in self.cells)

    @property
    def without_predictions(self) -> tuple[Cell, ...]:
        """Finished cells whose predictions the specification wants, but that have none, or damaged ones."""
        if not self.spec.keep_predictions:
            return ()
        return tuple(cell for cell, one in self.cells.items() if not _has_predictions(self.folder, cell, one))

    @property
    def done(self) -> tuple[Cell, ...]:
        """Finished cells that lack nothing."""
        lacking = {*self.without_predictions}
        return tuple(cell for cell in self.cells if cell not in lacking)


def cell_file(folder: Path, cell: Cell) -> Path:
    """Where a finished cell is written."""
    return folder / "cells" / f"{cell.name}.json"


def failed_file(folder: Path, cell: Cell) -> Path:
    """Where a cell that failed is written."""
    return folder / "cells" / f"{cell.name}.failed.json"


def predictions_file(folder: Path, cell: Cell) -> Path:
    """Where its predictions are written."""
    return folder / "predictions" / f"{cell.name}.npz"


def write_records(folder: Path, records: Sequence[Record]) -> None:
    """Write finished cells; predictions first, so that a cell that is there has them."""
    for record in records:
        if record.kept is not None:
            write_predictions(predictions_file(folder, record.cell), record.kept)
        else:  # those of another training are not this cell's
            predictions_file(folder, record.cell).unlink(missing_ok=True)
        write_json(cell_file(folder, record.cell), record.content)
        failed_file(folder, record.cell).unlink(missing_ok=True)


def write_failed(folder: Path, spec: BenchSpec, cells: Sequence[Cell], error: str, trace: str = "") -> None:
    """Record that cells failed, how often by now, and why."""
    for cell in cells:
        file, times = failed_file(folder, cell), 0
        with contextlib.suppress(DataError):
            times = int(read_json(file).get("times", 0)) if file.exists() else 0
        write_json(file, {
            "cell": cell.name, "error": error, "traceback": trace, "times": times + 1,
            "made_with": spec.made_with(cell), "finished": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        })  # fmt: skip


def keep_spec(folder: Path, spec: BenchSpec) -> None:
    """Write down what the folder is run with, and copy the published numbers beside it."""
    for name in spec.published:
        source = Path(spec.folder) / name
        target = folder / "published" / source.name
        if source.resolve() != target.resolve():
            write_whole(target, source.read_bytes())
    write_json(folder / "spec.json", json.loads(spec.model_dump_json(exclude={"folder"})))


def clear(results: Results) -> None:
    """Remove what a killed run left half written, an hour after it, and what failed before it was done after all."""
    for cell in results.done:
        failed_file(results.folder, cell).unlink(missing_ok=True)
    for place, names, _ in os.walk(results.folder):  # passes over what another process moves away meanwhile
        for name in [one for one in names if one.startswith(".") and one.endswith(".partial")]:
            names.remove(name)
            left = Path(place, name)
            with contextlib.suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > _STALE:
                    shutil.rmtree(left, ignore_errors=True)


def read_results(folder: str | Path, spec: BenchSpec | None = None) -> Results:
    """What a folder holds, of the given specification or of the one it was last run with.

    Raises:
        DataError: the folder holds no benchmark, or a file in it is damaged.
    """
    folder = Path(folder)
    if spec is None:
        file = folder / "spec.json"
        if not file.exists():
            raise DataError(f"{folder} holds no benchmark. Run one first: prism bench run SPEC.yaml --out {folder}.")
        try:
            spec = BenchSpec.model_validate_json(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(
                f"{file} is damaged. The next run writes it anew: prism bench run SPEC.yaml --out {folder}."
            ) from error
    cells: dict[Cell, Mapping[str, Any]] = {}
    failed: dict[Cell, str] = {}
    changed: dict[Cell, str] = {}
    damaged: dict[Cell, str] = {}
    known: set[str] = set()
    for cell in spec.cells:
        known.add(cell.name)
        if cell_file(folder, cell).exists():
            try:
                content = _read_cell(folder, cell)
            except DataError as error:
                damaged[cell] = str(error)
            else:
                if told := _difference(content["made_with"], spec.made_with(cell)):
                    changed[cell] = told
                else:
                    cells[cell] = content
        if (file := failed_file(folder, cell)).exists():
            failed[cell] = _error_in(file)
    there = {file.name.removesuffix(".json").removesuffix(".failed") for file in (folder / "cells").glob("*.json")
             if not file.name.startswith(".")}  # fmt: skip
    found = Results(spec, folder, cells, failed, changed, damaged, tuple(sorted(there - known)))
    done = {*found.done} if failed else set()
    return replace(found, failed={cell: told for cell, told in failed.items() if cell not in done})


def content_if_done(folder: Path, spec: BenchSpec, cell: Cell) -> Mapping[str, Any] | None:
    """A cell as it stands in the folder by now, if it is finished and lacks nothing."""
    with contextlib.suppress(DataError, FileNotFoundError):
        content = _read_cell(folder, cell)
        changed = _difference(content["made_with"], spec.made_with(cell))
        if not changed and (not spec.keep_predictions or _has_predictions(folder, cell, content)):
            return content
    return None


def frame(results: Results) -> pd.DataFrame:
    """One row per finished cell: what it is, its measures, what it cost, and its settings as JSON."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for cell, content in results.cells.items():
        made: Mapping[str, Any] = content["made_with"]
        validation: Mapping[str, float] = content.get("validation") or {}
        versions: Mapping[str, str] = content["versions"] or {}
        spent = (content["seconds"], content["cpu_seconds"], content["chosen"]["fit_seconds"])
        # of a training that was broken off only the rest was timed
        seconds, cpu_seconds, fit_seconds = (None, None, None) if content.get("resumed") else spent
        score_seconds = content.get("score_seconds")
        if content["trained_with"] != cell.name:  # what its training took is told once, in the row of that cell
            score_seconds = content["seconds"]
            seconds = cpu_seconds = None
        rows.append({
            "cell": cell.name, "task": content["task"], "data": cell.data, "model": cell.model,
            "architecture": made["model"], "is_floor": cell.model in results.spec.floor_names, "seed": cell.seed,
            "protocol": cell.protocol, "context_length": cell.context_length, "horizon": cell.horizon,
            "resample": cell.resample, "train_share": cell.train_share, **content["measures"],
            **{f"validation_{name}": value for name, value in validation.items()},
            "n_scored": content["n_scored"], "counted": content["counted"], "n_parameters": content["n_parameters"],
            "n_macs": content["n_macs"], "seconds": seconds, "cpu_seconds": cpu_seconds, "fit_seconds": fit_seconds,
            "score_seconds": score_seconds, "trained_with": content["trained_with"],
            "data_hash": content["data_hash"], "device": content["device"], "threads": content["threads"],
            "prismts": versions.get("prismts"), "prismts_files": versions.get("prismts_files"),
            "torch": versions.get("torch"), "finished": content["finished"], "made_with": json.dumps(made),
            "settings": json.dumps(content["settings"]), "chosen": json.dumps(content["chosen"]),
            "signs_of_failure": "; ".join(content.get("signs_of_failure") or ()),
        })  # fmt: skip
    table = pd.DataFrame(rows)
    for name in ("context_length", "horizon", "n_parameters", "n_macs"):
        if name in table:
            table[name] = table[name].astype("Int64")
    return table


def gather(results: Results) -> Path:
    """Write every finished cell as a row of ``results.parquet``, which DuckDB, pandas and polars read."""
    path = results.folder / "results.parquet"
    with whole(path) as partial:
        frame(results).to_parquet(partial, index=False)
    return path


def _read_cell(folder: Path, cell: Cell) -> Mapping[str, Any]:
    """The content of a cell.

    Raises:
        DataError: its file is damaged; what is wrong, in words.
        FileNotFoundError: there is none.
    """
    try:
        content = read_json(cell_file(folder, cell))
        _Content.model_validate(content)
    except DataError as error:
        raise DataError(f"its file is damaged ({error.__cause__})") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        *place, name = (str(part) for part in first["loc"])
        if first["type"] == "missing":
            told = f"{'.'.join(place) or 'it'} has no {name}"
        else:
            value = json.dumps(first["input"])
            value = value if len(value) <= _MOST_SHOWN else f"{value[:_MOST_SHOWN]}…"
            told = f"{'.'.join([*place, name])} cannot be {value}"
        raise DataError(f"its file is damaged ({told})") from error
    return content


def _has_predictions(folder: Path, cell: Cell, content: Mapping[str, Any]) -> bool:
    return bool(content.get("predictions")) and not damage(predictions_file(folder, cell))


def _error_in(file: Path) -> str:
    try:
        return str(read_json(file).get("error", "unknown"))
    except DataError:
        return "unknown: what tells it is damaged"


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first thing a cell was made with that is not so now, in words; "" where there is none."""
    for name, value in now.items():
        if before.get(name) != value:
            if name in ("file_digest", "test_file_digest"):
                return f"the content of {now[name.removesuffix('_digest')]} is not what it was"
            return f"it was made with {name} {before.get(name)!r}, and the specification now says {value!r}"
    return ""
