"""What commands read and write: tables, data sets by name, model folders."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import sys
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.markup import escape

from prismts.errors import DataError, PrismError, SettingsError, unknown_name
from prismts.writing import whole, write_whole

if TYPE_CHECKING:
    from rich.console import Console

    from prismts.data.series import Collection, Finding
    from prismts.data.splits import Borders
    from prismts.data.tables import TableKind

__all__ = [
    "clear_run", "free_file", "free_place", "goes_on", "is_dataset", "run_beside", "table_for", "table_or_dataset",
    "tell_findings", "typed", "write_json", "write_table",
]  # fmt: skip

_TABLES = (".csv", ".csv.gz", ".parquet")
_PAGES = (".html", ".htm")


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
    missing_codes: Sequence[float] | None = None,
) -> tuple[Collection, TableKind, Borders | None]:
    """The data as a collection, what kind of table they were, and official borders where they are known by name.

    ``empty_channels="keep"`` is for answers of a model that knows the channels: one of them may have no value today.
    ``exact`` keeps values in double precision, for commands that give them back. ``missing_codes`` as in
    ``prismts.read``.
    """
    from prismts.data.catalog import load_dataset
    from prismts.data.readers import read_with_kind
    from prismts.data.series import Collection, Series

    values = None if values is None else [values] if isinstance(values, str) else list(values)
    known = is_dataset(data)
    found, kind = read_with_kind(
        load_dataset(data) if known else data, time=time, series=series, values=values, frequency=frequency,
        duplicates=duplicates, empty_channels=empty_channels, exact=exact, missing_codes=missing_codes,
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


def table_for(
    estimator: Any,
    data: str,
    duplicates: Literal["refuse", "first", "last", "mean", "keep"] = "refuse",
    empty_channels: Literal["refuse", "keep"] = "keep",
    exact: bool = False,
    missing_codes: Sequence[float] | None = None,
    **columns: Any,
) -> tuple[Collection, TableKind, Borders | None]:
    """The data as a fitted estimator reads them: where a column that it never learned cannot be read, without it.

    ``columns`` that are not None take the place of what the estimator was fitted with: time, series, values, frequency.
    """

    def told(name: str) -> Any:
        return getattr(estimator, name) if columns.get(name) is None else columns[name]

    def read(values: Any) -> tuple[Collection, TableKind, Borders | None]:
        return table_or_dataset(
            data, told("time"), told("series"), values, told("frequency"), duplicates, empty_channels, exact,
            missing_codes,
        )  # fmt: skip

    try:
        return read(told("values"))
    except DataError:
        if told("values") is None:
            with contextlib.suppress(PrismError):
                return read(list(estimator.channels_))
        raise


def tell_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Print what was noticed when data were read: a line each."""
    for finding in findings:
        console.print(f"  note: {escape(str(finding))}")


def typed() -> str:
    """The command as it was typed."""
    return shlex.join(["prism", *sys.argv[1:]])


def write_table(table: Any, path: Path) -> None:
    """Write a frame atomically, in the format that the ending names."""
    _check_ending(path)
    with whole(path) as partial:
        if path.name.lower().endswith(".parquet"):
            table.to_parquet(partial, index=False)
        else:
            table.to_csv(partial, index=False)


def write_json(value: Any, path: Path) -> None:
    """Write plain values atomically."""
    write_whole(path, json.dumps(value, indent=1) + "\n")


def free_file(path: Path | None, *sources: object, table: bool = False, page: bool = False) -> None:
    """An error before hours of work where a file cannot be written, or would take the place of one that is read.

    ``sources`` are what the command reads: files, names of known data sets, or None. A ``table`` has one of three
    endings, and a ``page`` one of two.
    """
    if path is None:
        return
    if table:
        _check_ending(path)
    if path.is_dir():
        raise SettingsError(f"{path} is a folder. Name a file to write, such as one in it.")
    for source in sources:
        read = None if source is None else Path(str(source)).expanduser()
        if read is not None and read.exists() and path.exists() and path.samefile(read):
            raise SettingsError(f"{path} is what this command reads, and would be written over. Choose another place.")
    if page and path.suffix and not path.name.lower().endswith(_PAGES):
        raise SettingsError(
            f"{path}: what is drawn is written as a page, .html or .htm, and no picture of another kind."
        )
    _check_writable(path)


def _check_ending(path: Path) -> None:
    if not path.name.lower().endswith(_TABLES):
        raise SettingsError(f"{path}: a table is written as .csv, .csv.gz or .parquet.")


def _check_writable(path: Path) -> None:
    """Folders that are missing are made when it is written; the nearest one there is has to let us."""
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise SettingsError(f"{path} cannot be written: {folder} is a file, not a folder. Choose another place.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SettingsError(f"{path} cannot be written: nothing may be written into {folder}. Choose another place.")


def free_place(out: Path, may_replace: bool) -> Path:
    """The folder to write a model to, or an error before hours of training."""
    from prismts.estimators.saved import read_config

    out = Path(os.path.abspath(out)) if out.name in ("", "..") else out  # noqa: PTH100 - resolve() would follow links
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        read_config(out)  # a folder that is not ours gets that error
        if not may_replace:
            raise SettingsError(f"{out} already holds a model. Add --replace to overwrite it, or choose another --out.")
    _check_writable(out)
    return out


@contextlib.contextmanager
def goes_on(where: str) -> Generator[None]:
    """Let who stops the command be told that the same one goes on, and ``where``."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.add_note(f"The same command goes on {where}.")
        raise


@contextlib.contextmanager
def run_beside(out: Path) -> Generator[Path]:
    """The folder of checkpoints beside what will be written: gone at the end, and told of where it is stopped."""
    run = out.with_name(f"{out.name}.run")
    try:
        yield run
    except KeyboardInterrupt as stop:
        if any(run.rglob("last.safetensors")):  # an epoch was finished
            stop.add_note("The same command goes on after the last finished epoch.")
        raise
    clear_run(run)


def clear_run(run: Path) -> None:
    """Remove the checkpoints of a run that has ended; what others put there stays."""
    for part in run.glob("*"):
        if (part / "run.json").exists():  # written by us
            shutil.rmtree(part, ignore_errors=True)
    if run.is_dir() and not any(run.iterdir()):
        run.rmdir()
