"""Data sets known by name: where their files lie, what they must hash to, how they are read and where they are cut.

    from prismts.data.catalog import DATASETS, load_dataset
    print(DATASETS["ETTh2"])
    series = load_dataset("ETTh2")

The entries are written in ``catalog.yaml``. Every url there names one commit of a public repository, so that its bytes
stay what they are.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset

from prismts.data.dataset_files import PLACES, DatasetFile, Place, find_dataset_file, place_of
from prismts.data.layout import Duplicates
from prismts.data.readers import read
from prismts.data.series import Collection, Finding, Series
from prismts.data.splits import Borders, by_fraction, ett_borders
from prismts.errors import DataError, unknown_name

__all__ = [
    "BORDERS", "DATASETS", "LAYOUTS", "Dataset", "DatasetFile", "Task", "dataset", "find_dataset_file", "list_datasets",
    "load_dataset", "where",
]  # fmt: skip

Task = Literal["forecast", "classify", "detect", "other"]

if TYPE_CHECKING:
    DATASETS: dict[str, Dataset]  # every data set by its name; read from catalog.yaml on first use, see __getattr__


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What is known of a data set before it is read."""

    name: str
    task: Task
    description: str
    n_channels: int
    n_timepoints: int  # of the series, or of the longest case
    n_cases: int = 1  # train and test together
    frequency: str | None = None  # pandas offset alias
    borders: str = "none"  # a name in BORDERS; "of the source" where the files themselves are train and test
    layout: str  # a name in LAYOUTS: how the files are read
    time: tuple[str, ...] = ()  # the column with the time, or the columns of its parts
    channels: tuple[str, ...] = ()  # the columns that are read; empty: all but the time
    duplicates: Duplicates = "refuse"  # what is done with a time that occurs twice
    missing_codes: tuple[float, ...] = ()  # numbers that stand for a missing value
    license: str
    source: str
    collection: str | None = None  # the collection a series for detection belongs to
    aliases: tuple[str, ...] = ()
    files: tuple[DatasetFile, ...]


def list_datasets(task: Task | None = None, *, collection: str | None = None) -> list[Dataset]:
    """All data sets, or those for one task, or those of one collection, such as "SMD"."""
    tasks, collections = get_args(Task), _collections()
    if task is not None and task not in tasks:
        raise unknown_name("task", task, tasks)
    if collection is not None and collection not in collections:
        raise unknown_name("collection", collection, collections)
    return [
        entry for entry in _catalog().values()
        if task in (None, entry.task) and collection in (None, entry.collection)
    ]  # fmt: skip


def dataset(name: str) -> Dataset:
    """The entry of a name or an alias ("EP" is Epilepsy); capitals do not matter."""
    known = {key.casefold(): entry for entry in _catalog().values() for key in (entry.name, *entry.aliases)}
    if (entry := known.get(str(name).casefold())) is not None:
        return entry
    collections = {key.casefold(): key for key in _collections()}
    first, _, rest = str(name).partition("/")
    if (collection := collections.get(first.casefold())) is None:
        singles = [k for e in _catalog().values() if e.collection is None for k in (e.name, *e.aliases)]
        raise unknown_name("data set", name, [*singles, *collections.values()])
    series = [entry.name for entry in list_datasets(collection=collection)]
    if rest:
        raise unknown_name("data set", f"{collection}/{rest}", series)
    raise DataError(
        f"{collection!r} is a collection of {len(series)} series; a data set is one of them, such as {series[0]!r}. "
        f"list_datasets(collection={collection!r}) lists them all."
    )


def load_dataset(name: str) -> Series | Collection:
    """Read a data set by its name: a Series with its official borders, or a Collection with its official train part.

    Three things to know of single sets:

    - Weather: all 52,696 rows are kept in the order of the file, as the usual protocol counts them, though one time
      stamp occurs twice and one step is of 100 minutes. -9999 becomes NaN, that is, not observed.
    - Exchange: the file's dates run day by day without weekends left out, so they are not the true trading days.
    - NAB and SKAB: all rows in the order of the file, whatever their time stamps do, because labels count rows.

    In sets for detection, steps without a label of their own (an unlabeled training part) count as normal.
    """
    entry = dataset(name)
    paths = [find_dataset_file(file) for file in entry.files]
    loaded = LAYOUTS[entry.layout](entry, paths)
    if isinstance(loaded, Series) and entry.borders in BORDERS:
        loaded = replace(loaded, borders=BORDERS[entry.borders](loaded))
    return replace(loaded, name=entry.name)


def where(name: str) -> Place:
    """Where ``load_dataset`` would take a data set from; nothing is read or downloaded.

    Of a set of several files, the place that is tried last: "missing" if one of them is.
    """
    return PLACES[max(PLACES.index(place_of(file)) for file in dataset(name).files)]


# --- how files are read ----------------------------------------------------------------------------------------------


def _table(entry: Dataset, paths: list[Path]) -> Series:
    """A table with regular times, or with none."""
    source: Path | pd.DataFrame = paths[0]
    time = entry.time[0] if entry.time else None
    if len(entry.time) > 1:  # year, month, day, hour in columns of their own
        source = pd.read_csv(paths[0])
        source.insert(0, time := "time", pd.to_datetime(source[list(entry.time)]))
    series = read(
        source, time=time, values=list(entry.channels) or None, frequency=entry.frequency,
        duplicates=entry.duplicates, missing_codes=list(entry.missing_codes),
    )  # fmt: skip
    return cast(Series, series)


def _rows(entry: Dataset, paths: list[Path]) -> Series:
    """A table whose rows are kept in the order of the file, whatever their times do: a row is a step.

    Where the times are irregular, the frequency is the one of the entry, if it names one.
    """
    table = _csv(paths[0])
    times = pd.to_datetime(table.pop(entry.time[0])).astype("datetime64[ns]")
    channels = list(entry.channels) or list(table.columns)
    series = cast(Series, read(table[channels], missing_codes=list(entry.missing_codes)))
    steps = times.diff().iloc[1:]
    usual = steps.mode().iloc[0]
    frequency, findings = entry.frequency or to_offset(usual).freqstr, series.findings
    if odd := int((steps != usual).sum()):
        frequency, row = entry.frequency, int(np.flatnonzero(steps != usual)[0]) + 1
        findings += (
            Finding(
                "frequency",
                f"{odd} of {len(steps)} steps are not of the usual {usual} (the first leads to row {row}, "
                f"{times.iloc[row]}). All rows are kept in the order of the file.",
                row=row,
            ),
        )
    return replace(series, timestamps=times.to_numpy(), frequency=frequency, findings=findings)


def _labeled_rows(entry: Dataset, paths: list[Path]) -> Series:
    """SKAB: rows of a table with a column ``anomaly``; the anomaly-free file has none."""
    series, table = _rows(entry, paths), _csv(paths[0])
    labels = table["anomaly"].to_numpy() if "anomaly" in table else np.zeros(len(table))
    return replace(series, labels=labels.astype(np.int8))


def _labeled_windows(entry: Dataset, paths: list[Path]) -> Series:
    """NAB: rows of a table, and a file that tells the first and last time of each anomaly."""
    series = _rows(entry, paths)
    assert series.timestamps is not None
    key = entry.files[0].path.removeprefix("anomaly/NAB/").removesuffix(".gz")
    windows = json.loads(paths[1].read_text(encoding="utf-8"))[key]
    labels = np.zeros(len(series), dtype=np.int8)
    for first, last in windows:
        labels |= (series.timestamps >= np.datetime64(first)) & (series.timestamps <= np.datetime64(last))
    return replace(series, labels=labels)


def _train_and_test(entry: Dataset, paths: list[Path]) -> Series:
    """Arrays ``train``, ``test`` and their labels; the reader puts one behind the other and cuts between them."""
    return cast(Series, read(paths[0]))


def _curve(entry: Dataset, paths: list[Path]) -> Series:
    """UCR: one value a line; its file name ends in the length of the training part and the ends of the anomaly."""
    numbers = re.search(r"_(\d+)_(\d+)_(\d+)\.txt", paths[0].name)
    assert numbers is not None
    n_train, first, last = (int(number) for number in numbers.groups())
    series = cast(Series, read(paths[0], missing_codes=()))
    labels = np.zeros(len(series), dtype=np.int8)
    labels[first : last + 1] = 1
    return replace(series, labels=labels, borders=_train_then_test(n_train, series))


def _value_and_label(entry: Dataset, paths: list[Path]) -> Series:
    """MBA_ECG: lines of value and label, with no training part."""
    pairs = np.loadtxt(paths[0], delimiter=",")  # [T, 2]
    series = cast(Series, read(np.ascontiguousarray(pairs[:, :1].T), missing_codes=()))
    return replace(series, labels=pairs[:, 1].astype(np.int8))


def _cases(entry: Dataset, paths: list[Path]) -> Collection:
    """The archive's own training file and test file, one behind the other."""
    train, test = (cast(Collection, read(path)) for path in paths)
    assert train.labels is not None and test.labels is not None
    return replace(
        train,
        values=np.concatenate([train.values, test.values], axis=1),
        offsets=np.concatenate([train.offsets, train.offsets[-1] + test.offsets[1:]]),
        names=tuple(f"{part}/{i}" for part, cases in (("train", train), ("test", test)) for i in range(len(cases))),
        labels=np.concatenate([train.labels, test.labels]),
        n_train=len(train),
        findings=(*train.findings, *test.findings),
    )


def _csv(path: Path) -> pd.DataFrame:
    """A table, its cells separated by whichever of ; and , the header has."""
    table = pd.read_csv(path)
    return table if len(table.columns) > 1 else pd.read_csv(path, sep=";")


LAYOUTS: dict[str, Callable[[Dataset, list[Path]], Series | Collection]] = {
    "table": _table,
    "rows": _rows,
    "labeled rows": _labeled_rows,
    "labeled windows": _labeled_windows,
    "train and test": _train_and_test,
    "curve": _curve,
    "value and label": _value_and_label,
    "cases": _cases,
}


# --- where series are cut --------------------------------------------------------------------------------------------


def _train_then_test(n_train: int, series: Series) -> Borders:
    return Borders(n_train, n_train, len(series))


BORDERS: dict[str, Callable[[Series], Borders]] = {
    "12/4/4 months": lambda series: ett_borders(pd.Timedelta(hours=1) // pd.Timedelta(_one(series.frequency))),
    "70/10/20": lambda series: by_fraction(len(series)),
    "first 400 steps": lambda series: _train_then_test(400, series),  # SKAB's own protocol
    "probation": lambda series: _train_then_test(min(int(0.15 * len(series)), 750), series),  # NAB's: 15 %, at most 750
    "all for training": lambda series: _train_then_test(len(series), series),
}


def _one(frequency: str | None) -> str:
    """An alias with its number: pandas takes "1h" for a duration, but not "h"."""
    return frequency if frequency and frequency[0].isdigit() else f"1{frequency}"


# --- the catalog itself ----------------------------------------------------------------------------------------------


@functools.cache
def _catalog() -> dict[str, Dataset]:
    """Every entry of catalog.yaml by its name; a collection there becomes one entry per series."""
    import yaml

    text = resources.files("prismts.data").joinpath("catalog.yaml").read_text(encoding="utf-8")
    entries: list[dict[str, Any]] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {made.name: made for entry in entries for made in _entries(entry)}


def _entries(entry: dict[str, Any]) -> Iterator[Dataset]:
    if "series" not in entry:
        files = tuple(DatasetFile(**file) for file in entry["files"])
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items() if k != "files"}
        yield Dataset(files=files, **settings)
        return
    collection = entry["name"]
    common = {key: value for key, value in entry.items() if key != "series"}
    for series in entry["series"]:
        yield from _entries(common | series | {"name": f"{collection}/{series['name']}", "collection": collection})


def _collections() -> list[str]:
    return list(dict.fromkeys(entry.collection for entry in _catalog().values() if entry.collection))


def __getattr__(name: str) -> Any:
    if name == "DATASETS":
        return _catalog()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
