"""The data of a job of the studio: a file, a data set or a simulation, and which cases are scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prismts.data import synthetic
from prismts.data.catalog import load_dataset
from prismts.data.readers import read_with_kind
from prismts.data.series import Collection, Series
from prismts.data.splits import Borders
from prismts.data.tables import TableKind
from prismts.errors import DataError, unknown_name

__all__ = ["SIMULATED", "Loaded", "load_source", "scored_cases"]

SIMULATED: dict[str, str] = {
    "simulated_plant": "a transformer station of seven channels, hourly: to forecast",
    "labeled_motions": "90 short recordings of three motions: to classify",
    "planted_anomalies": "three channels with six stretches that are not as usual: to detect",
}
_HELD_OUT = 0.2  # of labeled cases without an official test part, kept for the score
_FEWEST_OF_A_CLASS = 5  # cases, or nothing is held out


@dataclass(frozen=True)
class Loaded:
    """Data as a job reads them."""

    data: Series | Collection
    kind: TableKind
    borders: Borders | None = None

    @property
    def collection(self) -> Collection:
        """The same as a collection."""
        return Collection.of(self.data) if isinstance(self.data, Series) else self.data


def load_source(source: Mapping[str, Any], options: Mapping[str, Any]) -> Loaded:
    """The data of a source: {"file": path}, {"dataset": name} or {"simulated": name}."""
    if "simulated" in source:
        if source["simulated"] not in SIMULATED:
            raise unknown_name("simulated data set", source["simulated"], SIMULATED)
        data: Series | Collection = getattr(synthetic, source["simulated"])()
        kind = TableKind("pandas", "time" if data.timestamps is not None else None)
        return Loaded(data, kind, data.borders if isinstance(data, Series) else None)
    if "dataset" in source:
        data = load_dataset(source["dataset"])
        kind = TableKind("pandas", "time" if data.timestamps is not None else None)
        return Loaded(data, kind, data.borders if isinstance(data, Series) else None)
    path = Path(source["file"])
    told: dict[str, Any] = {name: options.get(name) or None for name in ("time", "series", "values", "frequency")}
    duplicates = options.get("duplicates") or "refuse"
    if column := options.get("label"):
        from prismts.estimators.labels import read_labeled

        told.pop("frequency")  # cases of a classifier need none
        cases = read_labeled(path, column, **told, duplicates=duplicates)
        if cases is None or cases.labels is None:
            raise DataError(f"{path.name} has no column {column!r} with classes.")
        data, kind = cases, TableKind("pandas", told["time"], told["series"])
    else:
        data, kind = read_with_kind(path, **told, duplicates=duplicates)
    return Loaded(data, kind, data.borders if isinstance(data, Series) else None)


def scored_cases(cases: Collection) -> tuple[Collection, Collection, str]:
    """Cases to learn from, cases to score, and words for the latter."""
    if cases.n_train is not None:
        return cases.train, cases.test, "official test part"
    labels = np.asarray(cases.labels)
    if np.unique(labels, return_counts=True)[1].min() < _FEWEST_OF_A_CLASS:
        few = f"the training cases, as a class has fewer than {_FEWEST_OF_A_CLASS}: says nothing about new ones"
        return cases, cases, few
    from sklearn.model_selection import StratifiedShuffleSplit

    cut = StratifiedShuffleSplit(1, test_size=_HELD_OUT, random_state=0)
    train, test = next(cut.split(np.zeros(len(labels)), labels))
    return _some(cases, np.sort(train)), _some(cases, np.sort(test)), "a fifth of the cases, which was held out"


def _some(cases: Collection, index: NDArray[np.int64]) -> Collection:
    labels = None if cases.labels is None else np.asarray(cases.labels)[index]
    return Collection.of([cases[int(i)] for i in index], labels=labels, name=cases.name)
