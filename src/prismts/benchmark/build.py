"""The estimator of a cell, unfitted, as the protocols score it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prismts.benchmark.entries import Cell, Spec
from prismts.benchmark.known import estimator_of
from prismts.data.series import Collection
from prismts.errors import DataError
from prismts.evaluation.classification import classification_scores
from prismts.evaluation.protocols import data_hash
from prismts.evaluation.scores import Scores

__all__ = ["build", "labels_of"]


def build(spec: Spec, cell: Cell, run_folder: Path | None = None) -> Any:
    """The unfitted estimator of a cell; ``run_folder`` keeps checkpoints of its training."""
    from prismts.models.case_floors import CASE_FLOORS

    made = spec.made_with(cell)
    if spec.task == "classify" and made["model"] in CASE_FLOORS:
        return _FloorClassifier(made["model"], made["model_settings"])
    known: dict[str, Any] = {
        name: made[name] for name in ("setting", "model_settings", "fit_settings", "n_members") if made[name]
    }
    known |= made["arguments"]
    if cell.horizon is not None:
        known["horizon"] = cell.horizon
    if cell.context_length is not None:
        known["context_length"] = cell.context_length
    return estimator_of(spec.task)(
        made["model"], **known, random_state=cell.seed, progress=False,
        run_folder=None if run_folder is None else str(run_folder),
    )  # fmt: skip


class _FloorClassifier:
    """A floor of ``CASE_FLOORS`` as an estimator that a protocol can score."""

    def __init__(self, floor: str, settings: Mapping[str, Any], random_state: int = 0) -> None:
        self.floor, self.settings, self.random_state = floor, settings, random_state

    def get_params(self, deep: bool = False) -> dict[str, Any]:
        return {"floor": self.floor, "settings": self.settings, "random_state": self.random_state}

    def set_params(self, random_state: int) -> _FloorClassifier:
        self.random_state = random_state
        return self

    def fit(self, data: Collection, *, judged_by: Collection | None = None) -> _FloorClassifier:
        """Learn from labeled cases; a floor chooses no epoch, so there is nothing to be judged by."""
        from prismts.models.case_floors import case_floor

        self.classes_, codes = np.unique(labels_of(data), return_inverse=True)
        self.floor_ = case_floor(self.floor, random_state=self.random_state, **self.settings)
        self.floor_.fit([case.values for case in data], codes)
        self.n_cases_ = {"train": len(data), "validation": 0}
        return self

    def predict_proba(self, data: Collection) -> NDArray[np.float64]:
        return self.floor_.predict_proba([case.values for case in data])

    def evaluate(self, data: Collection) -> Scores:
        measures = classification_scores(labels_of(data), self.predict_proba(data), self.classes_)
        return Scores(measures, len(data), data=data.name, data_hash=data_hash(data), counted="cases")


def labels_of(data: Collection) -> NDArray[Any]:
    """The labels of cases, or an error where they bring none."""
    if data.labels is None:
        raise DataError(f"The cases of {data.name!r} bring no labels, so nothing can be learned or scored.")
    return data.labels
