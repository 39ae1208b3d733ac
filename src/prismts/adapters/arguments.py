"""Arguments that the adapters to aeon and to sktime share; each class stands before the library's own among the bases.

Both libraries read an estimator's parameters from its ``__init__``, which may be inherited.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from prismts.adapters import seed_of
from prismts.estimators.classifier import Classifier
from prismts.estimators.detector import AnomalyDetector, ScoreKind, ThresholdKind
from prismts.estimators.embedder import Channels, Embedder

__all__ = ["ClassifierArguments", "DetectorArguments", "EmbedderArguments"]


class ClassifierArguments:
    """What the classifier of either library takes, and ours with these arguments."""

    def __init__(
        self,
        model: str = "convtimenet",
        *,
        setting: str = "default",
        model_settings: Mapping[str, Any] | None = None,
        fit_settings: Mapping[str, Any] | None = None,
        n_members: int | None = None,
        class_weight: str | Mapping[Any, float] | None = None,
        validation: float | str | None = "auto",
        refit: bool = False,
        random_state: Any = 0,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.setting = setting
        self.model_settings = model_settings
        self.fit_settings = fit_settings
        self.n_members = n_members
        self.class_weight = class_weight
        self.validation = validation
        self.refit = refit
        self.random_state = random_state
        self.verbose = verbose
        super().__init__()

    def _new(self) -> Classifier:
        return Classifier(
            self.model, setting=self.setting, model_settings=self.model_settings, fit_settings=self.fit_settings,
            n_members=self.n_members, class_weight=self.class_weight, validation=self.validation, refit=self.refit,
            random_state=seed_of(self.random_state), progress=self.verbose,
        )  # fmt: skip


class EmbedderArguments:
    """What the embedder of either library takes, and ours with these arguments."""

    def __init__(
        self,
        model: str = "convtimenet",
        *,
        context_length: int | None = None,
        pooling: str = "both",
        channels: Channels = "pooled",
        model_settings: Mapping[str, Any] | None = None,
        fit_settings: Mapping[str, Any] | None = None,
        random_state: Any = 0,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.context_length = context_length
        self.pooling = pooling
        self.channels: Channels = channels
        self.model_settings = model_settings
        self.fit_settings = fit_settings
        self.random_state = random_state
        self.verbose = verbose
        super().__init__()

    def _new(self) -> Embedder:
        return Embedder(
            self.model, context_length=self.context_length, pooling=self.pooling, channels=self.channels,
            model_settings=self.model_settings, fit_settings=self.fit_settings,
            random_state=seed_of(self.random_state), progress=self.verbose,
        )  # fmt: skip


class DetectorArguments:
    """What the anomaly detector of either library takes, and ours with these arguments."""

    _base: ClassVar[Mapping[str, Any]] = {}  # what the library's own base class is given

    def __init__(
        self,
        model: str = "convtimenet",
        *,
        setting: str = "default",
        context_length: int | None = None,
        score: ScoreKind = "both",
        threshold: ThresholdKind = "tail",
        false_alarm_rate: float = 0.001,
        model_settings: Mapping[str, Any] | None = None,
        fit_settings: Mapping[str, Any] | None = None,
        n_members: int | None = None,
        validation: float | None = 0.2,
        random_state: Any = 0,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.setting = setting
        self.context_length = context_length
        self.score: ScoreKind = score
        self.threshold: ThresholdKind = threshold
        self.false_alarm_rate = false_alarm_rate
        self.model_settings = model_settings
        self.fit_settings = fit_settings
        self.n_members = n_members
        self.validation = validation
        self.random_state = random_state
        self.verbose = verbose
        super().__init__(**self._base)

    def _new(self) -> AnomalyDetector:
        return AnomalyDetector(
            self.model, setting=self.setting, context_length=self.context_length, score=self.score,
            threshold=self.threshold, false_alarm_rate=self.false_alarm_rate, model_settings=self.model_settings,
            fit_settings=self.fit_settings, n_members=self.n_members, random_state=seed_of(self.random_state),
            progress=self.verbose,
        )  # fmt: skip
