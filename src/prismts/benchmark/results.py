"""The folder of a benchmark: a file per cell, written whole or not at all, and all of them as one table.

results.parquet              every finished cell as a row: SELECT model, avg(mse) FROM 'results.parquet' GROUP BY model
spec.json                    the specification the folder was last run with
cells/NAME.json              a finished cell: scores, settings in full, versions, hash of the data, cost
cells/NAME.failed.json       a cell that failed, with its error; it is tried again by the next run
predictions/NAME.npz         what it predicted, if the specification keeps that
published/NAME               the published numbers that stand beside ours
logs/                        what worker processes said
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from prismts.benchmark.json_files import read_json, write_json
from prismts.benchmark.spec import BenchSpec, Cell
from prismts.errors import DataError
from prismts.writing import whole, write_whole

if TYPE_CHECKING:
    import pandas as pd

    from prismts.benchmark.cells import Record

__all__ = [
    "Results", "cell_file", "clear", "failed_file", "frame", "gather", "keep_spec", "predictions_file", "read_results",
    "write_failed", "write_records",
]  # fmt: skip

_ALWAYS = (  # what no cell is without
    "task", "made_with", "measures", "n_scored", "counted", "n_parameters", "n_macs", "seconds", "cpu_seconds",
    "chosen", "trained_with", "data_hash", "device", "threads", "versions", "settings", "finished",
)  # fmt: skip
_STALE = 3600  # seconds after which a half-written file is nobody's


@dataclass(frozen=True)
class Results:
    """What a folder holds of a specification."""

    spec: BenchSpec
    folder: Path
    cells: Mapping[Cell, Mapping[str, Any]]  # as they were written
    failed: Mapping[Cell, str]  # the error of the last try; a cell that was there before it stays among the others
    changed: Mapping[Cell, str]  # cells that other settings or data made, in words, or damaged; not among ``cells``
    foreign: tuple[str, ...]  # files of cells that the specification does not name

    @property
    def missing(self) -> tuple[Cell, ...]:
        """Cells of the specification without a result that counts."""
        return tuple(cell for cell in self.spec.cells if cell not in self.cells)

    @property
    def without_predictions(self) -> tuple[Cell, ...]:
        """Finished cells whose predictions the specification wants, but that were made without."""
        if not self.spec.keep_predictions:
            return ()
        return tuple(
            cell for cell, content in self.cells.items()
            if not content.get("predictions") or not predictions_file(self.folder, cell).exists()
        )  # fmt: skip


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
    from prismts.benchmark.predictions import write_predictions

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


def clear(folder: Path) -> None:
    """Remove what a killed run left half written, an hour after it."""
    for place, names, _ in os.walk(folder):  # passes over what another process moves away meanwhile
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
    known: set[str] = set()
    for cell in spec.cells:
        known.add(cell.name)
        if (file := cell_file(folder, cell)).exists():
            content, told = _read_cell(file, spec.made_with(cell))
            if told:
                changed[cell] = told
            else:
                cells[cell] = content
        if (file := failed_file(folder, cell)).exists():
            failed[cell] = _error_in(file)
    there = {file.name.removesuffix(".json").removesuffix(".failed") for file in (folder / "cells").glob("*.json")
             if not file.name.startswith(".")}  # fmt: skip
    return Results(spec, folder, cells, failed, changed, tuple(sorted(there - known)))


def frame(results: Results) -> pd.DataFrame:
    """One row per finished cell: what it is, its measures, what it cost, and its settings as JSON."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for cell, content in results.cells.items():
        made: Mapping[str, Any] = content["made_with"]
        validation: Mapping[str, float] = content.get("validation") or {}
        versions: Mapping[str, str] = content["versions"]
        spent = (content["seconds"], content["cpu_seconds"], content["chosen"]["fit_seconds"])
        # of a training that was broken off only the rest was timed
        seconds, cpu_seconds, fit_seconds = (None, None, None) if content.get("resumed") else spent
        rows.append({
            "cell": cell.name, "task": content["task"], "data": cell.data, "model": cell.model,
            "architecture": made["model"], "is_floor": cell.model in results.spec.floor_names, "seed": cell.seed,
            "protocol": cell.protocol, "context_length": cell.context_length, "horizon": cell.horizon,
            "resample": cell.resample, "train_share": cell.train_share, **content["measures"],
            **{f"validation_{name}": value for name, value in validation.items()},
            "n_scored": content["n_scored"], "counted": content["counted"], "n_parameters": content["n_parameters"],
            "n_macs": content["n_macs"], "seconds": seconds, "cpu_seconds": cpu_seconds, "fit_seconds": fit_seconds,
            "trained_with": content["trained_with"],
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


def _read_cell(file: Path, now: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """A cell, and why it does not count, in words; "" if it does."""
    try:
        content = read_json(file)
    except DataError as error:
        return {}, f"its file is damaged ({error.__cause__})"
    if absent := [name for name in _ALWAYS if name not in content]:
        return {}, f"its file is damaged (it has no {absent[0]})"
    return content, _difference(content["made_with"], now)


def _error_in(file: Path) -> str:
    try:
        return str(read_json(file).get("error", "unknown"))
    except DataError:
        return "unknown: what tells it is damaged"


def _difference(there: Any, now: Mapping[str, Any]) -> str:
    """The first thing a cell was made with that is not so now, in words; "" where there is none."""
    before = cast(Mapping[str, Any], there) if isinstance(there, Mapping) else {}
    for name, value in now.items():
        if before.get(name) != value:
            if name in ("file_digest", "test_file_digest"):
                return f"the content of {now[name.removesuffix('_digest')]} is not what it was"
            return f"it was made with {name} {before.get(name)!r}, and the specification now says {value!r}"
    return ""
