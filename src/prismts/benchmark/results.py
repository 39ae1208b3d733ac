"""The folder of a benchmark: a file per cell, written whole or not at all, and all of them as one table.

results.parquet              every finished cell as a row: SELECT model, avg(mse) FROM 'results.parquet' GROUP BY model
spec.json                    the specification the folder was last run with
cells/NAME.json              a finished cell: scores, settings in full, versions, hash of the data, cost
cells/NAME.failed.json       a cell that failed, with its error; it is tried again by the next run
predictions/NAME.npz         what it predicted, if the specification keeps that
published/*.yaml             the published numbers that stand beside ours
logs/                        what worker processes said
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from prismts.benchmark.spec import BenchSpec, Cell
from prismts.errors import DataError, PrismError, SettingsError

if TYPE_CHECKING:
    import pandas as pd

    from prismts.benchmark.cells import Record

__all__ = [
    "Results", "cell_file", "clear", "failed_file", "frame", "gather", "keep_spec", "predictions_file", "read_results",
    "write_failed", "write_records",
]  # fmt: skip

_STALE = 3600  # seconds after which a half-written file is nobody's


@dataclass(frozen=True)
class Results:
    """What a folder holds of a specification."""

    spec: BenchSpec
    folder: Path
    cells: Mapping[Cell, Mapping[str, Any]]  # as they were written
    failed: Mapping[Cell, str]  # the error
    changed: Mapping[Cell, str]  # cells that other settings made: which, in words; not among ``cells``
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
        return tuple(cell for cell in self.cells if not predictions_file(self.folder, cell).exists())


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
        _write_json(cell_file(folder, record.cell), record.content)
        failed_file(folder, record.cell).unlink(missing_ok=True)


def write_failed(folder: Path, spec: BenchSpec, cells: Sequence[Cell], error: str, trace: str = "") -> None:
    """Record that cells failed, how often by now, and why."""
    for cell in cells:
        file = failed_file(folder, cell)
        times = int(_read_json(file).get("times", 0)) if file.exists() else 0
        _write_json(file, {
            "cell": cell.name, "error": error, "traceback": trace, "times": times + 1,
            "made_with": spec.made_with(cell), "finished": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        })  # fmt: skip


def keep_spec(folder: Path, spec: BenchSpec) -> None:
    """Write down what the folder is run with, and copy the published numbers beside it."""
    import shutil

    _write_json(folder / "spec.json", json.loads(spec.model_dump_json(exclude={"folder"})))
    for name in spec.published:
        source = Path(spec.folder) / name
        if not source.exists():
            raise SettingsError(f"There is no file {name!r} of published numbers beside the specification.")
        target = folder / "published" / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.resolve() != target.resolve():
            shutil.copyfile(source, partial := target.with_name(f".{target.name}.partial"))
            partial.replace(target)


def clear(folder: Path) -> None:
    """Remove what a killed run left half written, an hour after it."""
    for file in folder.glob("*/.*.partial"):
        if time.time() - file.stat().st_mtime > _STALE:
            file.unlink(missing_ok=True)


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
        spec = BenchSpec.model_validate_json(file.read_text(encoding="utf-8"))
    cells: dict[Cell, Mapping[str, Any]] = {}
    failed: dict[Cell, str] = {}
    changed: dict[Cell, str] = {}
    known: set[str] = set()
    for cell in spec.cells:
        known.add(cell.name)
        if (file := cell_file(folder, cell)).exists():
            content = _read_json(file)
            if told := _difference(content.get("made_with"), spec.made_with(cell)):
                changed[cell] = told
            else:
                cells[cell] = content
        elif (file := failed_file(folder, cell)).exists():
            failed[cell] = str(_read_json(file).get("error", "unknown"))
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
        rows.append({
            "cell": cell.name, "task": content["task"], "data": cell.data, "model": cell.model,
            "architecture": made["model"], "is_floor": cell.model in results.spec.floor_names, "seed": cell.seed,
            "protocol": cell.protocol, "context_length": cell.context_length, "horizon": cell.horizon,
            "resample": cell.resample, "train_share": cell.train_share, **content["measures"],
            **{f"validation_{name}": value for name, value in validation.items()},
            "n_scored": content["n_scored"], "counted": content["counted"], "n_parameters": content["n_parameters"],
            "n_macs": content["n_macs"], "seconds": content["seconds"], "cpu_seconds": content["cpu_seconds"],
            "fit_seconds": content["chosen"]["fit_seconds"], "trained_with": content["trained_with"],
            "data_hash": content["data_hash"], "device": content["device"], "threads": content["threads"],
            "prismts": versions.get("prismts"), "prismts_files": versions.get("prismts_files"),
            "torch": versions.get("torch"), "finished": content["finished"], "made_with": json.dumps(made),
            "settings": json.dumps(content["settings"]), "chosen": json.dumps(content["chosen"]),
        })  # fmt: skip
    table = pd.DataFrame(rows)
    for name in ("context_length", "horizon", "n_parameters", "n_macs"):
        if name in table:
            table[name] = table[name].astype("Int64")
    return table


def gather(results: Results) -> Path:
    """Write every finished cell as a row of ``results.parquet``, which DuckDB, pandas and polars read."""
    path = results.folder / "results.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        frame(results).to_parquet(partial, index=False)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _difference(there: Any, now: Mapping[str, Any]) -> str:
    """The first thing a cell was made with that is not so now, in words; "" where there is none."""
    before = cast(Mapping[str, Any], there) if isinstance(there, Mapping) else {}
    for name, value in now.items():
        if before.get(name) != value:
            return f"it was made with {name} {before.get(name)!r}, and the specification now says {value!r}"
    return ""


def _read_json(file: Path) -> dict[str, Any]:
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds no mapping")
        return cast(dict[str, Any], found)
    except PrismError:
        raise
    except ValueError as error:
        raise DataError(f"{file} is damaged ({error}). Delete it, and the next run makes it anew.") from error


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write beside the place and move there, so that a killed run never leaves half a cell."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=f".{file.name}.", suffix=".partial", dir=file.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as target:
            target.write(json.dumps(_finite(content), separators=(",", ":"), allow_nan=False) + "\n")
            target.flush()
            os.fsync(target.fileno())
        Path(partial).chmod(0o644)
        Path(partial).replace(file)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def _finite(value: Any) -> Any:
    """The same without NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {str(name): _finite(one) for name, one in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in cast(Sequence[Any], value)]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
