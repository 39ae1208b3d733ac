"""What a universal model is asked to learn: one value per task, with its data and what its head looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, fields
from numbers import Real
from typing import Any, ClassVar, Literal, cast

from prismts.data.splits import Borders
from prismts.errors import SettingsError, unknown_name
from prismts.estimators.shared import FORECAST_HEADS
from prismts.layers.token_heads import CASE_POOLINGS
from prismts.tasks.forecast import LINES

__all__ = ["KINDS", "ClassifyOn", "DetectOn", "ForecastOn", "ImputeOn", "On"]


@dataclass(frozen=True, eq=False)
class On:
    """What all tasks have.

    Args:
        data: as the estimator of this task reads them.
        name: of the head; of several tasks of one kind, all but one need a name of their own.
        weight: of the loss in joint training.
        validation: as in ``fit`` of the estimator of this task.
        time, series, values, frequency: columns of a table, as for ``prismts.read``.
    """

    kind: ClassVar[str] = ""

    data: Any
    _: KW_ONLY
    name: str = ""
    weight: float = 1.0
    validation: Any = 0.2
    time: str | None = None
    series: str | None = None
    values: Sequence[str] | None = None
    frequency: str | None = None

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.kind)
        weight: Any = self.weight
        if not isinstance(weight, Real) or not float(cast(float, weight)) > 0:
            raise SettingsError(f"weight of task {self.name!r} is a number above 0, but got {weight!r}.")

    def as_dict(self) -> dict[str, Any]:
        """Everything but the data, as plain values."""
        left_out = ("data", "y", "validation")
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}
        return {"kind": self.kind, **kept}

    def reading(self) -> dict[str, Any]:
        """The arguments that say how a table is read."""
        return {name: getattr(self, name) for name in ("time", "series", "values", "frequency")}


@dataclass(frozen=True, eq=False)
class ForecastOn(On):
    """Continue each series by ``horizon`` steps; see ``Forecaster``.

    Args:
        horizon: steps of future.
        context_length: steps of past; None takes that of the model.
        quantiles: levels, calibrated on validation; None forecasts points.
        head: "flatten", one map of all tokens; "recent", the last tokens weighed by age (N times fewer weights); or
            "any_horizon", which may be asked for more steps than training did.
        line: the straight line beside the head, solved before training: "chosen", "individual", "coupled",
            "seasonal", "ridge", "reverting", or None; "auto" is "chosen", and None beside a head for any horizon, which
            can have none.
        loss: in training: "relative_mse", "mse", "mae", "huber" or "soft_dtw".
        dropout: on the tokens before the head.
        channels: "named": the channels of the data, which new data must have; "apart": every channel is a series of
            its own, so that the head forecasts any channel of any data.
    """

    kind: ClassVar[str] = "forecast"

    horizon: int = 96
    _: KW_ONLY
    context_length: int | None = None
    quantiles: Sequence[float] | None = None
    head: Literal["flatten", "recent", "any_horizon"] = "flatten"
    line: str | None = "auto"
    loss: str = "relative_mse"
    dropout: float = 0.1
    channels: Literal["named", "apart"] = "named"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head not in FORECAST_HEADS:
            raise unknown_name("head for forecasts", self.head, FORECAST_HEADS)
        if self.line == "auto":
            object.__setattr__(self, "line", None if self.head == "any_horizon" else "chosen")
        if self.line is not None and self.line not in LINES:
            raise unknown_name("line", self.line, LINES)
        if self.line is not None and self.head == "any_horizon":
            raise SettingsError(
                f"A straight line has one horizon, so none stands beside head='any_horizon', but line={self.line!r}. "
                "Leave line out."
            )
        _one_of("way with channels", self.channels, ("named", "apart"))
        if self.channels == "apart" and isinstance(self.validation, Borders):
            raise SettingsError("With channels='apart' several series may be learned from: give validation a share.")


@dataclass(frozen=True, eq=False)
class ClassifyOn(On):
    """Tell the classes of whole cases apart; see ``Classifier``.

    Cases without a label (None, NaN or "") are left out: they cannot teach this head anything. Let ``pretrain`` or an
    ``ImputeOn`` of the same cases learn from them.

    Args:
        y: labels, one per case; None takes those that the data bring.
        label: the column of labels in a long table.
        pooling: of tokens over time: "max", "mean", "both" or "attention".
        channels: "apart" sets channels side by side, each with weights of its own; "pooled" takes mean and maximum
            over channels, where they are many and alike.
        stretch: whether cases shorter than the context of the model are drawn out to it.
        class_weight: as of ``Classifier``.
        validation: a share of the cases, stratified; None learns from all; "auto" is 0.2, or None where the encoder is
            frozen, since the penalty of the head is then chosen by folds.
    """

    kind: ClassVar[str] = "classify"

    y: Any = None
    _: KW_ONLY
    validation: Any = "auto"
    label: str | None = None
    pooling: Literal["max", "mean", "both", "attention"] = "both"
    channels: Literal["apart", "pooled"] = "apart"
    stretch: bool = True
    class_weight: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of("pooling", self.pooling, CASE_POOLINGS)
        _one_of("way with channels", self.channels, ("apart", "pooled"))
        share: Any = self.validation
        if share not in (None, "auto", 0) and not (isinstance(share, Real) and 0 < float(cast(float, share)) < 1):
            raise SettingsError(
                f"validation of cases is a share between 0 and 1, None or 'auto', but got {share!r}: one head is "
                "trained, so there are no folds."
            )


@dataclass(frozen=True, eq=False)
class DetectOn(On):
    """Say how unusual each step is, by what the model makes of it while it is hidden; see ``AnomalyDetector``.

    Args:
        context_length: steps of a window; None takes that of the model, or a quarter of the training part.
        threshold: "tail" or "quantile".
        false_alarm_rate: share of usual steps that may exceed the threshold.
    """

    kind: ClassVar[str] = "detect"

    _: KW_ONLY
    context_length: int | None = None
    threshold: Literal["tail", "quantile"] = "tail"
    false_alarm_rate: float = 0.001


@dataclass(frozen=True, eq=False)
class ImputeOn(On):
    """Fill what is missing; see ``Imputer``.

    Args:
        context_length: steps of a window; None takes that of the model.
        setting: of the imputer: which points are hidden in training.
    """

    kind: ClassVar[str] = "impute"

    _: KW_ONLY
    context_length: int | None = None
    setting: str = "default"


KINDS: dict[str, type[On]] = {one.kind: one for one in (ForecastOn, ClassifyOn, DetectOn, ImputeOn)}


def _one_of(what: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise unknown_name(what, value, known)
