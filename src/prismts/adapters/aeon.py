"""Our estimators as aeon's: classifier, anomaly detector, collection transformer and forecaster.

Cases are [n_cases, n_channels, n_timepoints] or a list of [n_channels, n_timepoints], as everywhere in aeon and here.
"""

# pyright: reportIncompatibleMethodOverride=false
# the names and hints of the base classes' hooks differ from class to class

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prismts.adapters import seed_of
from prismts.adapters.arguments import ClassifierArguments, DetectorArguments, EmbedderArguments
from prismts.errors import MissingExtraError, SettingsError
from prismts.estimators.forecaster import Forecaster

try:
    from aeon.anomaly_detection.series.base import BaseSeriesAnomalyDetector
    from aeon.classification.base import BaseClassifier
    from aeon.forecasting.base import (
        BaseForecaster,
        DirectForecastingMixin,
        IterativeForecastingMixin,
        SeriesToSeriesForecastingMixin,
    )
    from aeon.transformations.collection.base import BaseCollectionTransformer
except ImportError as error:
    raise MissingExtraError(
        "prismts.adapters.aeon needs aeon, which is not installed. Run: pip install 'prismts[bench]'"
    ) from error

__all__ = ["PrismClassifier", "PrismAnomalyDetector", "PrismEmbedder", "PrismForecaster"]

_TINY: dict[str, Any] = {  # what aeon's own checks train: a real network, of one small block for one epoch
    "model_settings": {"width": 8, "kernel_sizes": (3,)},
    "fit_settings": {"max_epochs": 1},
}
_COLLECTION: dict[str, Any] = {
    "X_inner_type": ["np-list", "numpy3D"],
    "capability:multivariate": True,
    "capability:unequal_length": True,
    "capability:missing_values": True,
    "algorithm_type": "deeplearning",
    "python_dependencies": "torch",
}


class PrismClassifier(ClassifierArguments, BaseClassifier):
    """``prismts.estimators.classifier.Classifier`` as a classifier of aeon.

    Args:
        model, setting, model_settings, fit_settings, n_members, class_weight, validation, refit: as there.
        random_state: a seed, a ``RandomState``, or None for another result at every fit.
        verbose: whether to show a bar.

    Attributes:
        estimator_: the fitted ``Classifier``.

    Examples:
        >>> import numpy as np
        >>> from prismts.adapters.aeon import PrismClassifier
        >>> steps = np.arange(40)
        >>> X = np.stack([np.sin(steps * speed + start)[None] for start in range(8) for speed in (0.2, 0.9)])
        >>> y = np.array(["slow", "fast"] * 8)
        >>> classifier = PrismClassifier(fit_settings={"max_epochs": 2}).fit(X, y)
        >>> [str(label) for label in classifier.predict(X[:4])]
        ['slow', 'fast', 'slow', 'fast']
    """

    _tags = _COLLECTION

    def _fit(self, X: Any, y: NDArray) -> PrismClassifier:
        self.estimator_ = self._new().fit(X, y)
        return self

    def _predict(self, X: Any) -> NDArray:
        return self.estimator_.predict(X)

    def _predict_proba(self, X: Any) -> NDArray[np.float64]:
        return self.estimator_.predict_proba(X)

    @classmethod
    def _get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Two sets: one network on all cases, and two folds with the closed-form classifier beside it."""
        return [{**_TINY, "setting": "network", "validation": None}, {**_TINY, "validation": 2}]


class PrismAnomalyDetector(DetectorArguments, BaseSeriesAnomalyDetector):
    """``prismts.estimators.detector.AnomalyDetector`` as an anomaly detector of aeon, of one series of any channels.

    ``predict`` is the score of each step, 0 where it is usual; ``estimator_.predict`` raises alarms above a threshold
    from training scores, and ``estimator_.events`` names the stretches. What it learns from may hold some anomalies, so
    ``fit_predict`` on the series in question is allowed too.

    Args:
        model, setting, context_length, score, threshold, false_alarm_rate, model_settings, fit_settings, n_members: as
            there.
        validation: the share at the end of the series that sets scales; None or 0 for none.
        random_state: a seed, a ``RandomState``, or None for another result at every fit.
        verbose: whether to show a bar.

    Attributes:
        estimator_: the fitted ``AnomalyDetector``.

    Examples:
        >>> import numpy as np
        >>> from prismts.adapters.aeon import PrismAnomalyDetector
        >>> X = np.sin(np.arange(600) * 2 * np.pi / 20)
        >>> detector = PrismAnomalyDetector().fit(X[:400])
        >>> X[500] += 3
        >>> bool(abs(int(detector.predict(X[400:]).argmax()) - 100) <= 20)
        True
    """

    _tags = {  # noqa: RUF012
        "X_inner_type": "np.ndarray",
        "capability:multivariate": True,
        "capability:missing_values": True,
        "fit_is_empty": False,
        "learning_type:unsupervised": True,
        "learning_type:semi_supervised": True,
        "anomaly_output_type": "anomaly_scores",
        "algorithm_type": "deeplearning",
        "python_dependencies": "torch",
    }
    _base = {"axis": 1}  # noqa: RUF012

    def _fit(self, X: NDArray, y: Any = None) -> PrismAnomalyDetector:
        self.estimator_ = self._new().fit(X, validation=self.validation)
        return self

    def _predict(self, X: NDArray) -> NDArray[np.float64]:
        return self.estimator_.score_samples(X)

    @classmethod
    def _get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Two sets: networks beside closed forms, and one closed form alone."""
        tiny = {**_TINY, "setting": "combined", "context_length": 8, "validation": None}
        return [tiny, {"model": "sub_pca", "model_settings": {"window": 5}, "validation": None}]


class PrismEmbedder(EmbedderArguments, BaseCollectionTransformer):
    """``prismts.estimators.embedder.Embedder`` as a transformer of aeon from collections to tables.

    aeon wants as many channels as in training; the estimator itself embeds any number.

    Args:
        model, context_length, pooling, channels, model_settings, fit_settings: as there.
        random_state: a seed, a ``RandomState``, or None for another result at every fit.
        verbose: whether to show a bar.

    Attributes:
        estimator_: the fitted ``Embedder``.

    Examples:
        >>> import numpy as np
        >>> from prismts.adapters.aeon import PrismEmbedder
        >>> X = np.random.default_rng(0).normal(size=(6, 2, 40))
        >>> embedder = PrismEmbedder(fit_settings={"max_epochs": 1}).fit(X)
        >>> embedder.transform(X).shape == (6, embedder.estimator_.n_features_)
        True
    """

    _tags = {  # noqa: RUF012
        **_COLLECTION,
        "fit_is_empty": False,
        "output_data_type": "Tabular",
        "removes_unequal_length": True,
        "removes_missing_values": True,
    }

    def _fit(self, X: Any, y: Any = None) -> PrismEmbedder:
        self.estimator_ = self._new().fit(X)
        return self

    def _transform(self, X: Any, y: Any = None) -> NDArray[np.float32]:
        return self.estimator_.transform(X)

    @classmethod
    def _get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        return [_TINY, {**_TINY, "channels": "apart", "pooling": "mean"}]


class PrismForecaster(
    DirectForecastingMixin, IterativeForecastingMixin, SeriesToSeriesForecastingMixin, BaseForecaster
):
    """``prismts.estimators.forecaster.Forecaster`` as a forecaster of aeon, for one channel.

    aeon's ``predict`` is the single value ``horizon`` steps after the series; our forecaster writes all steps up to
    there at once, and ``series_to_series_forecast`` returns them.

    Args:
        horizon: steps of future the model writes.
        model, context_length, setting, model_settings, fit_settings, n_members, loss, line: as there.
        validation: the share at the end of the series that decides when to stop; None for none.
        random_state: a seed, a ``RandomState``, or None for another result at every fit.
        verbose: whether to show a bar.

    Attributes:
        estimator_: the fitted ``Forecaster``.

    Examples:
        >>> import numpy as np
        >>> from prismts.adapters.aeon import PrismForecaster
        >>> y = np.sin(np.arange(200) * 2 * np.pi / 10)
        >>> forecaster = PrismForecaster(horizon=5, context_length=20, fit_settings={"max_epochs": 1}).fit(y)
        >>> forecaster.series_to_series_forecast(y, 3).round(1).tolist()
        [0.0, 0.6, 1.0]
        >>> round(forecaster.predict(y), 1)  # the fifth step alone
        0.6
    """

    _tags = {  # noqa: RUF012
        "X_inner_type": "np.ndarray",
        "capability:missing_values": True,
        "capability:horizon": True,
        "algorithm_type": "deeplearning",
        "python_dependencies": "torch",
    }

    def __init__(
        self,
        horizon: int = 1,
        *,
        model: str = "convtimenet",
        context_length: int = 512,
        setting: str = "default",
        model_settings: Mapping[str, Any] | None = None,
        fit_settings: Mapping[str, Any] | None = None,
        n_members: int | None = None,
        loss: str | None = None,
        line: str | None = None,
        validation: float | None = 0.2,
        random_state: Any = 0,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.context_length = context_length
        self.setting = setting
        self.model_settings = model_settings
        self.fit_settings = fit_settings
        self.n_members = n_members
        self.loss = loss
        self.line = line
        self.validation = validation
        self.random_state = random_state
        self.verbose = verbose
        super().__init__(horizon=horizon, axis=1)

    def _fit(self, y: NDArray, exog: Any = None) -> PrismForecaster:
        self.estimator_ = Forecaster(
            self.model, context_length=self.context_length, horizon=self.horizon, setting=self.setting,
            model_settings=self.model_settings, fit_settings=self.fit_settings, n_members=self.n_members,
            loss=self.loss, line=self.line, random_state=seed_of(self.random_state), progress=self.verbose,
        ).fit(y, validation=self.validation)  # fmt: skip
        return self

    def _predict(self, y: NDArray, exog: Any = None) -> float:
        return float(self.estimator_.predict(y)[0, -1])

    def _series_to_series_forecast(self, y: Any, prediction_horizon: int, exog: Any = None) -> NDArray[np.float64]:
        """The next ``prediction_horizon`` steps [h], of a forecaster that was fitted or, if it was not, is now."""
        if prediction_horizon > self.horizon:
            raise SettingsError(
                f"This forecaster writes {self.horizon} steps, but prediction_horizon is {prediction_horizon}. Build "
                f"it with horizon={prediction_horizon}."
            )
        if not self.is_fitted:
            self.fit(y, exog)
        series, _ = self._preprocess_forecasting_input(y, exog, 1, False)
        return self.estimator_.predict(series)[0, :prediction_horizon].astype(np.float64)

    @classmethod
    def _get_test_params(cls, parameter_set: str = "default") -> dict[str, Any]:
        return {**_TINY, "horizon": 2, "context_length": 8, "validation": None}
