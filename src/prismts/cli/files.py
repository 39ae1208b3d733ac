"""What commands read and write: tables, data sets by name, model folders."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prismts.errors import SettingsError, unknown_name
from prismts.writing import whole, write_whole

if TYPE_CHECKING:
    from prismts.data.series import Collection
    from prismts.data.splits import Borders
    from prismts.data.tables import TableKind

__all__ = ["clear_run", "free_place", "is_dataset", "table_or_dataset", "typed", "write_json", "write_table"]


def is_dataset(data: str) -> bool:
    """Whether this is the name of a known data set; a file of that name comes first."""
    from prismts.data.catalog import DATASETS

    return not Path(data).exists() and data.lower() in {name.lower() for name in DATASETS}


def table_or_dataset(
    data: str,
    time: str | None,
    series: str | None,
    values: Sequence[str] | str | None,
    frequency: str | None,
    duplicates: Literal["refuse", "first", "last", "mean", "keep"] = "refuse",
    empty_channels: Literal["refuse", "keep"] = "refuse",
    exact: bool = False,
) -> tuple[Collection, TableKind, Borders | None]:
    """The data as a collection, what kind of table they were, and official borders where they are known by name.

    ``empty_channels="keep"`` is for answers of a model that knows the channels: one of them may have no value today.
    ``exact`` keeps values in double precision, for commands that give them back.
    """
    from prismts.data.catalog import load_dataset
    from prismts.data.readers import read_with_kind
    from prismts.data.series import Collection, Series

    values = None if values is None else [values] if isinstance(values, str) else list(values)
    known = is_dataset(data)
    found, kind = read_with_kind(
        load_dataset(data) if known else data, time=time, series=series, values=values, frequency=frequency,
        duplicates=duplicates, empty_channels=empty_channels, exact=exact,
    )  # fmt: skip
    if known and values is not None:
        for name in values:
            if name not in found.channels:
                raise unknown_name("channel", name, found.channels)
        order = [found.channels.index(name) for name in values]
        found = replace(found, values=found.values[order], channels=tuple(values))
    if isinstance(found, Series):
        return Collection.of(found), kind, found.borders
    return found, kind, None


def typed() -> str:
    """The command as it was typed."""
    return shlex.join(["prism", *sys.argv[1:]])


def write_table(table: Any, path: Path) -> None:
    """Write a frame atomically, in the format that the ending names."""
    name = path.name.lower()
    if not name.endswith((".csv", ".csv.gz", ".parquet")):
        raise SettingsError(f"{path}: a table is written as .csv, .csv.gz or .parquet.")
    with whole(path) as partial:
        if name.endswith(".parquet"):
            table.to_parquet(partial, index=False)
        else:
            table.to_csv(partial, index=False)


def write_json(value: Any, path: Path) -> None:
    """Write plain values atomically."""
    write_whole(path, json.dumps(value, indent=1) + "\n")


def free_place(out: Path, may_replace: bool) -> Path:
    """The folder to write a model to, or an error before hours of training."""
    from prismts.estimators.saved import read_config

    out = Path(os.path.abspath(out)) if out.name in ("", "..") else out  # noqa: PTH100 - resolve() would follow links
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        read_config(out)  # a folder that is not ours gets that error
        if not may_replace:
            raise SettingsError(f"{out} already holds a model. Add --replace to overwrite it, or choose another --out.")
    return out


def clear_run(run: Path) -> None:
    """Remove the checkpoints of a run that has ended; what others put there stays."""
    for part in run.glob("*"):
        if (part / "run.json").exists():  # written by us
            shutil.rmtree(part, ignore_errors=True)
    if run.is_dir() and not any(run.iterdir()):
        run.rmdir()
