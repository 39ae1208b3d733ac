"""The data of a specification: how a set is loaded, and how much of it there is before any of it is learned from."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from prismts.benchmark.entries import Spec
from prismts.data.catalog import BORDERS, dataset
from prismts.data.series import Collection, Series
from prismts.data.splits import Borders, by_fraction
from prismts.errors import DataError

__all__ = ["Extent", "extent_of", "load_data"]


@functools.lru_cache(maxsize=2)
def _loaded(name: str, file: str | None, test_file: str | None, columns: str, state: str) -> Series | Collection:
    """Read data; ``state`` tells one content of the files from another."""
    from prismts.data.catalog import load_dataset
    from prismts.data.readers import read

    if file is None:
        return load_dataset(name)
    found = read(file, **json.loads(columns))
    if test_file is None:
        return replace(found, name=name)
    test = read(test_file)
    if not isinstance(found, Collection) or not isinstance(test, Collection):
        raise DataError(f"{name}: {file} and {test_file} hold labeled cases each, as .ts files do.")
    if found.labels is None or test.labels is None:
        raise DataError(f"{name}: cases need labels, but {file if found.labels is None else test_file} has none.")
    return replace(
        found, values=np.concatenate([found.values, test.values], axis=1),
        offsets=np.concatenate([found.offsets, found.offsets[-1] + test.offsets[1:]]),
        names=tuple(f"{part}/{i}" for part, cases in (("train", found), ("test", test)) for i in range(len(cases))),
        labels=np.concatenate([found.labels, test.labels]), n_train=len(found), name=name,
    )  # fmt: skip


def load_data(spec: Spec, name: str) -> Series | Collection:
    """A data set of the specification; the last two stay in memory."""
    entry = spec.data_entry(name)
    columns = {"time": entry.time, "values": entry.values, "frequency": entry.frequency}
    given = {key: value for key, value in columns.items() if value is not None}
    files = [None if file is None else str(Path(spec.folder) / file) for file in (entry.file, entry.test_file)]
    state = json.dumps(spec.digests(entry))
    return _loaded(name, files[0], files[1], json.dumps(given, default=list), state)


@dataclass(frozen=True)
class Extent:
    """How much there is of a data set."""

    n_channels: int
    n_timepoints: int  # steps of the series, or of the longest case
    frequency: str | None = None
    borders: Borders | None = None  # of a series, where they are known


def extent_of(spec: Spec, name: str) -> Extent:
    """How much there is of a data set: what the catalog says, or the file, which is read for it once.

    Raises:
        DataError: the file cannot be read, or does not hold what the task needs.
        SettingsError: its series is too short to be cut.
    """
    entry = spec.data_entry(name)
    if entry.file is not None:
        return _of_file(spec, name)
    known = dataset(name)
    borders = None
    if spec.task == "forecast":
        empty = Series(np.zeros((1, known.n_timepoints), np.float32), frequency=known.frequency)
        borders = BORDERS[known.borders](empty) if known.borders in BORDERS else by_fraction(len(empty))
    return Extent(known.n_channels, known.n_timepoints, known.frequency, borders)


def _of_file(spec: Spec, name: str) -> Extent:
    data, task, file = load_data(spec, name), spec.task, spec.data_entry(name).file
    if isinstance(data, Collection):
        if task != "classify":
            raise DataError(f"{file} holds {len(data)} cases, and the task {task!r} needs one series with a test part.")
        return Extent(data.n_channels, int(data.lengths.max()))
    if task == "detect" and data.labels is None:
        raise DataError(
            f"{file} has no labels of anomalies, so no detector can be scored on it. Give an .npz with train, test and "
            "test_label."
        )
    return Extent(data.n_channels, len(data), data.frequency, data.borders or by_fraction(len(data)))
