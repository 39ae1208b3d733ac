"""Any saved estimator, as it was saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prismts.errors import SavedModelError
from prismts.estimators.classifier import Classifier
from prismts.estimators.detector import AnomalyDetector
from prismts.estimators.embedder import Embedder
from prismts.estimators.forecaster import Forecaster
from prismts.estimators.imputer import Imputer
from prismts.estimators.saved import read_config
from prismts.estimators.universal import UniversalModel

__all__ = ["ESTIMATORS", "load"]

ESTIMATORS: dict[str, Any] = {
    "Forecaster": Forecaster, "Classifier": Classifier, "AnomalyDetector": AnomalyDetector, "Imputer": Imputer,
    "Embedder": Embedder, "UniversalModel": UniversalModel,
}  # fmt: skip


def load(path: str | Path) -> Any:
    """The estimator saved in this folder, ready to predict.

    Raises:
        SavedModelError: the folder is missing, foreign, altered, or written by a newer version.
    """
    name = read_config(path).get("estimator")
    if name not in ESTIMATORS:
        raise SavedModelError(
            f"{path} holds a {name!r}, which this version does not know. It knows: {', '.join(ESTIMATORS)}."
        )
    return ESTIMATORS[name].load(path)
