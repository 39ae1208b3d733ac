"""What each task of a benchmark knows by name: axes, floors, models, their settings, and arguments."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from prismts.models import Architecture

__all__ = [
    "AUTO", "AXES", "FLOORS", "Task", "architecture_of", "arguments_of", "config_of", "estimator_of", "fields_of",
    "models_of", "settings_of",
]  # fmt: skip

Task = Literal["forecast", "classify", "detect"]

AUTO = "auto"  # a ConvTimeNet whose sizes a rule proposes from the training part
# what stands in every table of a task, so that a reader sees what costs nothing
FLOORS: dict[Task, tuple[str, ...]] = {
    "forecast": ("last_value", "seasonal_naive", "ridge"),
    "classify": ("majority", "minirocket"),
    "detect": ("sub_pca",),
}
AXES: dict[Task, tuple[str, ...]] = {  # what else a task goes through, besides seeds and shares of training
    "forecast": ("horizons", "context_lengths"), "classify": ("resamples",), "detect": ("context_lengths",),
}  # fmt: skip


def models_of(task: Task) -> list[str]:
    """The names a task can be run with: architectures, the rule that proposes one, and the floors of the task."""
    from prismts.models import MODELS
    from prismts.models.case_floors import CASE_FLOORS
    from prismts.models.detectors import DETECTORS

    encoders = [name for name, one in MODELS.items() if one.is_encoder]
    return {
        "forecast": [*MODELS, AUTO], "classify": [*encoders, AUTO, *CASE_FLOORS], "detect": [*encoders, *DETECTORS],
    }[task]  # fmt: skip


def architecture_of(model: str) -> Architecture | None:
    """The network of a name; None of what is no network."""
    from prismts.models import MODELS

    return MODELS.get("convtimenet" if model == AUTO else model)


def config_of(task: Task, model: str) -> type:
    """The class of the settings of a model."""
    from prismts.models.case_floors import CASE_FLOORS
    from prismts.models.detectors import DETECTORS

    if task == "classify" and model in CASE_FLOORS:
        return CASE_FLOORS[model].config_class
    if task == "detect" and model in DETECTORS:
        return type(DETECTORS[model].config)
    architecture = architecture_of(model)
    assert architecture is not None
    return architecture.config


def settings_of(task: Task) -> Iterable[str]:
    """The named recipes of the estimator of a task."""
    from prismts.estimators.case_recipes import CLASSIFY_SETTINGS
    from prismts.estimators.detect_recipes import DETECT_SETTINGS
    from prismts.estimators.recipes import FORECAST_SETTINGS

    return {"forecast": FORECAST_SETTINGS, "classify": CLASSIFY_SETTINGS, "detect": DETECT_SETTINGS}[task]


def arguments_of(task: Task, model: str) -> list[str]:
    """Arguments of the estimator that the file does not set by another name."""
    from prismts.models.case_floors import CASE_FLOORS

    if task == "classify" and model in CASE_FLOORS:
        return []
    set_elsewhere = {
        "self", "model", "context_length", "horizon", "setting", "model_settings", "fit_settings", "n_members", "time",
        "series", "values", "label", "frequency", "warm_start", "random_state", "progress", "run_folder",
    }  # fmt: skip
    return [name for name in inspect.signature(estimator_of(task).__init__).parameters if name not in set_elsewhere]


def estimator_of(task: Task) -> type:
    """The class that does a task."""
    from prismts.estimators.classifier import Classifier
    from prismts.estimators.detector import AnomalyDetector
    from prismts.estimators.forecaster import Forecaster

    return {"forecast": Forecaster, "classify": Classifier, "detect": AnomalyDetector}[task]


def fields_of(config: type) -> list[str]:
    """The names of the settings of a class of them."""
    return [one.name for one in dataclasses.fields(config)]
