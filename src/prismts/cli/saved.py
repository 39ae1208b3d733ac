"""What a model folder holds, and, of a universal model, the task that is meant."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from prismts.errors import SettingsError, a_or_an, unknown_name

if TYPE_CHECKING:
    from prismts.estimators.universal import UniversalModel

__all__ = ["Head", "saved"]

Head = Annotated[
    str | None,
    Parameter(name="--head", help="Of a universal model, the task by its name; embed for vectors of its encoder."),
]
KINDS = ("Forecaster", "Classifier", "AnomalyDetector", "Imputer", "Embedder")


def saved(model: Path, head: str | None = None) -> tuple[Any, str]:
    """The estimator that a folder holds and its kind, one of ``KINDS``; of a universal model that of one task."""
    from prismts.estimators.load import load
    from prismts.estimators.universal import UniversalModel

    estimator: Any = load(model)
    if isinstance(estimator, UniversalModel):
        estimator = _task_of(estimator, model, head)
    elif head is not None:
        raise SettingsError(
            f"--head is for universal models, but {model} holds {a_or_an(type(estimator).__name__)}. Leave it out."
        )
    return estimator, next(one.__name__ for one in type(estimator).__mro__ if one.__name__ in KINDS)


def _task_of(universal: UniversalModel, model: Path, head: str | None) -> Any:
    names = list(universal.estimators_)
    if head is None and len(names) > 1:
        raise SettingsError(f"{model} holds a universal model of several tasks. Name one with --head: {_told(names)}.")
    head = head or (names[0] if names else "embed")
    if head not in names and head != "embed":
        raise unknown_name("head", head, [*names, "embed"])
    if head not in names:
        return universal.embedder()
    task = universal.tasks_[head]
    if task["kind"] == "forecast" and task["channels"] == "apart":
        raise SettingsError(
            f"Head {head!r} of {model} forecasts every channel of any data apart, which only Python asks for: "
            f"prismts.load({str(model)!r}).forecast(data, head={head!r})."
        )
    return universal.estimators_[head]


def _told(names: list[str]) -> str:
    return ", ".join(names if "embed" in names else [*names, "embed"])
