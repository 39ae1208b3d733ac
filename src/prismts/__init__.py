"""PrismTS: one encoder, every task, for multivariate time series.

    import prismts

    series = prismts.load_dataset("ETTh2")
    scores = prismts.evaluate(prismts.Forecaster(), series)
    print(scores["mse"], scores.n_scored)

Importing does no work: torch and the rest load when a name is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prismts.data.catalog import list_datasets, load_dataset
    from prismts.data.readers import read
    from prismts.data.series import Collection, Series
    from prismts.data.splits import Borders
    from prismts.estimators.adapting import adapt
    from prismts.estimators.classifier import Classifier
    from prismts.estimators.detector import AnomalyDetector
    from prismts.estimators.distilling import distill
    from prismts.estimators.embedder import Embedder
    from prismts.estimators.forecaster import Forecaster
    from prismts.estimators.imputer import Imputer
    from prismts.estimators.load import load
    from prismts.estimators.many import fit_many
    from prismts.estimators.universal import UniversalModel
    from prismts.estimators.universal_tasks import ClassifyOn, DetectOn, ForecastOn, ImputeOn
    from prismts.evaluation.protocols import evaluate
    from prismts.evaluation.scores import Scores

__version__ = "0.1.0"
__all__ = [
    "Forecaster", "Classifier", "AnomalyDetector", "Imputer", "Embedder", "UniversalModel", "ForecastOn",
    "ClassifyOn", "DetectOn", "ImputeOn", "load", "fit_many", "adapt", "distill", "evaluate", "Scores", "read",
    "load_dataset", "list_datasets", "Series", "Collection", "Borders",
]  # fmt: skip

_HOMES = {
    "Forecaster": "prismts.estimators.forecaster",
    "Classifier": "prismts.estimators.classifier",
    "AnomalyDetector": "prismts.estimators.detector",
    "Imputer": "prismts.estimators.imputer",
    "Embedder": "prismts.estimators.embedder",
    "UniversalModel": "prismts.estimators.universal",
    "ForecastOn": "prismts.estimators.universal_tasks",
    "ClassifyOn": "prismts.estimators.universal_tasks",
    "DetectOn": "prismts.estimators.universal_tasks",
    "ImputeOn": "prismts.estimators.universal_tasks",
    "load": "prismts.estimators.load",
    "fit_many": "prismts.estimators.many",
    "adapt": "prismts.estimators.adapting",
    "distill": "prismts.estimators.distilling",
    "evaluate": "prismts.evaluation.protocols",
    "Scores": "prismts.evaluation.scores",
    "read": "prismts.data.readers",
    "load_dataset": "prismts.data.catalog",
    "list_datasets": "prismts.data.catalog",
    "Series": "prismts.data.series",
    "Collection": "prismts.data.series",
    "Borders": "prismts.data.splits",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'prismts' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
