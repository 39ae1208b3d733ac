"""Our estimators as sktime's: classifier, forecaster, detector and transformer to a table.

Panels come from sktime as lists of tables with time down the rows, series as one such table; we read their values, with
the channels in the order of the columns. Periods that an index of times leaves out are steps without an observation.
sktime counts the horizon in units of a whole-number index, so of an index 0, 2, 4 ... the next row is fh=2.
"""

# pyright: reportIncompatibleMethodOverride=false
# the names and hints of the base classes' hooks differ from class to class

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from prismts.adapters import seed_of
from prismts.adapters.arguments import ClassifierArguments, DetectorArguments, EmbedderArguments
from prismts.data.frequency import infer_grid
from prismts.errors import DataError, MissingExtraError, SettingsError
from prismts.estimators.forecaster import Forecaster

try:
    from sktime.classification.base import BaseClassifier
    from sktime.datatypes import update_data
    from sktime.detection.base import BaseDetector
    from sktime.forecasting.base import BaseForecaster
    from sktime.transformations.base import BaseTransformer
except ImportError as error:
    raise MissingExtraError(
        "prismts.adapters.sktime needs sktime, which is not installed. Run: pip install 'prismts[sktime]'"
    ) from error

__all__ = ["PrismClassifier", "PrismForecaster", "PrismDetector", "PrismEmbedder"]

_TINY: dict[str, Any] = {  # what sktime's own checks train: a real network, of one small block for one epoch
    "model_settings": {"width": 8, "kernel_sizes": (3,)},
    "fit_settings": {"max_epochs": 1},
}
_COMMON: dict[str, Any] = {
    "authors": ["PrismTS developers"],
    "maintainers": ["PrismTS developers"],
    "python_dependencies": "torch",
    "capability:multivariate": True,
    "capability:unequal_length": True,
    "capability:missing_values": True,
    "capability:random_state": True,
    "property:randomness": "derandomized",
}
_MOST_FILLED = 4  # times as long as it is may a table become by its gaps, as in ``prismts.read``
_EDGE = 1e-9  # 0.5 - 0.9 / 2 is not quite 0.05


def _arrays(tables: Sequence[pd.DataFrame]) -> list[NDArray[np.float64]]:
    """Tables [T, C] as cases [C, T]."""
    return [_placed(table)[0] for table in tables]


def _placed(table: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """A table [N, C] on the steps of its times [C, T], NaN where it has no row, and the step of each row [N]."""
    values = table.to_numpy(dtype=np.float64).T
    place = _places(table.index.get_level_values(-1))
    if place is None or len(place) == place[-1] + 1:
        return values, np.arange(len(table))
    whole = np.full((len(values), place[-1] + 1), np.nan)
    whole[:, place] = values
    return whole, place


def _places(index: pd.Index) -> NDArray[np.int64] | None:
    """The step of each time [N], counted from the first; None where these are no times, or lie on no regular steps."""
    if len(index) < 2 or not isinstance(index, pd.PeriodIndex | pd.DatetimeIndex):
        return None
    if isinstance(index, pd.PeriodIndex):
        place, off = np.divmod(index.asi8 - index.asi8[0], cast(Any, index.freq).n)
    else:
        ticks = index.as_unit("ns").asi8
        grid = infer_grid(ticks, np.ones(len(ticks) - 1, dtype=bool), clock=True)
        if grid is None or grid.step <= 0:
            return None
        place, off = grid.nearest(ticks, np.full_like(ticks, ticks[0]))
    if off.any() or (np.diff(place) <= 0).any():
        return None
    place = place - place[0]
    if place[-1] >= _MOST_FILLED * len(index) + 100:
        raise DataError(
            f"At the usual step of its index, the {len(index):,} rows of this table would become {place[-1] + 1:,}, "
            "nearly all of them empty. Correct the times, or leave out what stands far apart."
        )
    return place


def _stride(index: pd.Index) -> int:
    """How far whole numbers of an index lie apart, where all do alike; 1 for any other index."""
    if len(index) < 2 or not pd.api.types.is_integer_dtype(index.dtype):
        return 1
    apart = np.diff(index.to_numpy())
    return int(apart[0]) if apart[0] > 0 and (apart == apart[0]).all() else 1


class PrismClassifier(ClassifierArguments, BaseClassifier):
    """``prismts.estimators.classifier.Classifier`` as a classifier of sktime.

    Args:
        model, setting, model_settings, fit_settings, n_members, class_weight, validation, refit: as there.
        random_state: a seed, a ``RandomState``, or None for another result at every fit.
        verbose: whether to show a bar.

    Attributes:
        estimator_: the fitted ``Classifier``.

    Examples:
        >>> import numpy as np
        >>> from prismts.adapters.sktime import PrismClassifier
        >>> steps = np.arange(40)
        >>> X = np.stack([np.sin(steps * speed + start)[None] for start in range(8) for speed in (0.2, 0.9)])
        >>> y = np.array(["slow", "fast"] * 8)
        >>> classifier = PrismClassifier(fit_settings={"max_epochs": 2}).fit(X, y)
        >>> [str(label) for label in classifier.predict(X[:4])]
        ['slow', 'fast', 'slow', 'fast']
    """

    _tags = {**_COMMON, "X_inner_mtype": "df-list", "capability:predict_proba": True}  # noqa: RUF012

    def _fit(self, X: list[pd.DataFrame], y: NDArray) -> PrismClassifier:
        self.estimator_ = self._new().fit(_arrays(X), y)
        return self

    def _predict(self, X: list[pd.DataFrame]) -> NDArray:
        return self.estimator_.predict(_arrays(X))

    def _predict_proba(self, X: list[pd.DataFrame]) -> NDArray[np.float64]:
        return self.estimator_.predict_proba(_arrays(X))

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Two sets: one network on all cases, and two folds with the closed-form classifier beside it."""
        return [{**_TINY, "setting": "network", "validation": None}, {**_TINY, "validation": 2}]


class PrismForecaster(BaseForecaster):
    """``prismts.estimators.forecaster.Forecaster`` as a forecaster of sktime.

    It writes all steps up to the last one that is asked for at once, so the horizon is to be known when it is fitted:
    by ``horizon``, or by ``fh``. All channels of ``y`` are learned together. ``pretrain`` learns from many series, and
    the ``fit`` that follows goes on from those weights. Forecasts of the past, which need steps that the model has
    read, are not offered. After ``update`` it forecasts from the new rows; with ``update_params`` learning goes on too,
    from the weights there are, on all rows seen so far.

    Args:
        model, context_length, setting, model_settings, fit_settings, n_members, loss, line: as there.
        horizon: steps of future the model writes; None takes the last step of ``fh``.
        quantiles: levels to learn and calibrate; intervals and quantiles then lie on the lines between them, and none
            is offered outside the outermost. The point forecast is the median. None forecasts points alone.
        validation: the share at the end of every series that decides when to stop and calibrates quantiles; None or 0
            for none.
        random_state: a seed, a ``RandomState``, or None for another result at every fit.
        verbose: whether to show a bar.

    Attributes:
        estimator_: the fitted ``Forecaster``.
        pretrained_: the one that ``pretrain`` left, if it was called.

    Examples:
        >>> import numpy as np
        >>> import pandas as pd
        >>> from prismts.adapters.sktime import PrismForecaster
        >>> y = pd.Series(np.sin(np.arange(200) * 2 * np.pi / 10), pd.period_range("2024-01-01", periods=200, freq="D"))
        >>> forecaster = PrismForecaster(context_length=20, fit_settings={"max_epochs": 1}).fit(y, fh=[1, 2, 3])
        >>> forecaster.predict().abs().round(1)
        2024-07-19    0.0
        2024-07-20    0.6
        2024-07-21    1.0
        Freq: D, dtype: float64
    """

    _tags = {  # noqa: RUF012
        **_COMMON,
        "y_inner_mtype": "pd.DataFrame",
        "capability:exogenous": False,
        "capability:insample": False,
        "capability:pred_int": True,
        "capability:pred_int:insample": False,
        "capability:update": True,
        "capability:pretrain": True,
        "pretrain:fitted_params": ["pretrained_"],
        "requires-fh-in-fit": True,
    }
    _config = {"remember_data": False}  # noqa: RUF012  what is forecast from, we keep ourselves

    def __init__(
        self,
        model: str = "convtimenet",
        *,
        context_length: int = 512,
        horizon: int | None = None,
        quantiles: Sequence[float] | None = None,
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
        self.horizon = horizon
        self.quantiles = quantiles
        self.setting = setting
        self.model_settings = model_settings
        self.fit_settings = fit_settings
        self.n_members = n_members
        self.loss = loss
        self.line = line
        self.validation = validation
        self.random_state = random_state
        self.verbose = verbose
        super().__init__()
        self._y = self._X = None  # sktime expects them of a forecaster that is told to remember data later
        self.set_tags(**{"capability:pred_int": quantiles is not None, "requires-fh-in-fit": horizon is None})

    # ---- learning

    def _pretrain(self, y: pd.DataFrame, X: Any = None, fh: Any = None) -> PrismForecaster:
        self.pretrained_ = self._new(self._steps(fh, y.index)).fit(_series_of(y), validation=self.validation)
        return self

    def _pretrain_update(self, y: pd.DataFrame, X: Any = None, fh: Any = None) -> PrismForecaster:
        self.pretrained_.set_params(warm_start=True).fit(_series_of(y), validation=self.validation)
        return self

    def _fit(self, y: pd.DataFrame, X: Any = None, fh: Any = None) -> PrismForecaster:
        if hasattr(self, "pretrained_"):
            self.estimator_ = copy.deepcopy(self.pretrained_).set_params(warm_start=True)
        else:
            self.estimator_ = self._new(self._steps(fh, y.index))
        return self._learn(y)

    def _update(self, y: pd.DataFrame, X: Any = None, update_params: bool = True) -> PrismForecaster:
        past: Any = update_data(self._cur_y, y)
        if update_params:
            self.estimator_.set_params(warm_start=True)
            return self._learn(past)
        self._cur_y = past
        return self

    def _learn(self, y: pd.DataFrame) -> PrismForecaster:
        self._cur_y = y
        self.estimator_.fit(_arrays([y])[0], validation=self.validation)
        return self

    def _new(self, horizon: int) -> Forecaster:
        return Forecaster(
            self.model, context_length=self.context_length, horizon=horizon, quantiles=self.quantiles,
            setting=self.setting, model_settings=self.model_settings, fit_settings=self.fit_settings,
            n_members=self.n_members, loss=self.loss, line=self.line, random_state=seed_of(self.random_state),
            progress=self.verbose,
        )  # fmt: skip

    def _steps(self, fh: Any, index: pd.Index) -> int:
        """How many steps of future the model is to write."""
        if self.horizon is not None:
            return self.horizon
        if fh is None:
            raise SettingsError(
                "The forecaster has to know how many steps it is to write. Pass fh=, or build it with horizon=."
            )
        return max(1, int(self._rows(fh, index).max()))

    def _rows(self, fh: Any, index: pd.Index) -> NDArray[np.int64]:
        """The steps of fh, counted in rows after the last one of the index."""
        units = np.asarray(fh.to_relative(self.cutoff).to_pandas(), dtype=np.int64)
        stride = _stride(index)
        between = units[units % stride != 0]
        if between.size:
            raise SettingsError(
                f"The index has a row every {stride}, and sktime counts fh in its units, so step {between[0]} lies "
                f"between two rows. Ask for multiples of {stride}: the next two rows are fh=[{stride}, {2 * stride}]."
            )
        return units // stride

    # ---- forecasting

    def _predict(self, fh: Any, X: Any = None) -> pd.DataFrame:
        forecast = self._forecast(fh)
        if self.quantiles is not None:
            forecast = _between(forecast, self.quantiles, 0.5)
        return pd.DataFrame(forecast.T, fh.to_absolute_index(self.cutoff), self._get_columns("predict"))

    def _predict_quantiles(self, fh: Any, X: Any, alpha: Sequence[float]) -> pd.DataFrame:
        forecast = self._forecast(fh)
        assert self.quantiles is not None  # else the tag says that there are none
        levels = np.stack([_between(forecast, self.quantiles, level) for level in alpha])  # [A, C, h]
        columns: Any = self._get_columns("predict_quantiles", alpha=alpha)
        return pd.DataFrame(
            levels.swapaxes(0, 1).reshape(len(columns), -1).T, fh.to_absolute_index(self.cutoff), columns
        )

    def _forecast(self, fh: Any) -> NDArray[np.float64]:
        """The steps that are asked for, after everything seen so far: [C, h], or [Q, C, h] with quantiles."""
        steps = self._rows(fh, self._cur_y.index)
        if steps.min() < 1:
            raise NotImplementedError(
                f"{type(self).__name__} makes no in-sample forecasts: steps begin with 1, but fh has {steps.min()}. "
                "For forecasts of known stretches see estimator_.backtest."
            )
        if steps.max() > self.estimator_.horizon:
            raise SettingsError(
                f"This forecaster writes {self.estimator_.horizon} steps, but fh asks for step {steps.max()}. Fit it "
                f"with horizon={steps.max()}, or with the whole fh."
            )
        return self.estimator_.predict(_arrays([self._cur_y])[0])[..., steps - 1].astype(np.float64)

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Two sets: points as far as fh asks, and quantiles of a fixed horizon."""
        tiny = {**_TINY, "context_length": 4, "validation": None}  # no patience for series of ten steps
        return [tiny, {**tiny, "horizon": 5, "quantiles": (0.05, 0.25, 0.5, 0.75, 0.95)}]


class PrismDetector(DetectorArguments, BaseDetector):
    """``prismts.estimators.detector.AnomalyDetector`` as a detector of sktime, of one series of any channels.

    ``predict`` tells the places of alarms, ``transform_scores`` the score of each step, ``predict_scores`` those of the
    alarms. What it learns from may hold some anomalies, and no label is read.

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
        >>> import pandas as pd
        >>> from prismts.adapters.sktime import PrismDetector
        >>> X = pd.DataFrame({"load": np.sin(np.arange(600) * 2 * np.pi / 20)})
        >>> detector = PrismDetector().fit(X[:400])
        >>> X.loc[500, "load"] += 3
        >>> bool(abs(int(detector.transform_scores(X[400:])["score"].argmax()) - 100) <= 20)
        True
    """

    _tags = {  # noqa: RUF012
        **{name: tag for name, tag in _COMMON.items() if name != "capability:unequal_length"},
        "task": "anomaly_detection",
        "learning_type": "unsupervised",
        "X_inner_mtype": "pd.DataFrame",
        "fit_is_empty": False,
    }

    def _fit(self, X: pd.DataFrame, y: Any = None) -> PrismDetector:
        self.estimator_ = self._new().fit(_arrays([X])[0], validation=self.validation)
        return self

    def _predict(self, X: pd.DataFrame | pd.Series) -> pd.DataFrame:
        row, place = _row(X)
        return pd.DataFrame({"ilocs": np.flatnonzero(self.estimator_.predict(row)[place])})

    def _transform_scores(self, X: pd.DataFrame | pd.Series) -> pd.DataFrame:
        row, place = _row(X)
        return pd.DataFrame({"score": self.estimator_.score_samples(row)[place]}, index=X.index)

    def _predict_scores(self, X: pd.DataFrame | pd.Series) -> pd.DataFrame:
        found = self._predict(X)["ilocs"].to_numpy()
        return self._transform_scores(X).iloc[found].reset_index(drop=True)

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Two sets: networks beside closed forms, and one closed form alone."""
        tiny = {**_TINY, "setting": "combined", "context_length": 8, "validation": None}
        often = {"threshold": "quantile", "false_alarm_rate": 0.1}
        return [tiny, {"model": "sub_pca", "model_settings": {"window": 5}, "validation": None, **often}]


class PrismEmbedder(EmbedderArguments, BaseTransformer):
    """``prismts.estimators.embedder.Embedder`` as a transformer of sktime from series to one row of numbers each.

    Args:
        model, context_length, pooling, channels, model_settings, fit_settings: as there.
        random_state: a seed, a ``RandomState``, or None for another result at every fit.
        verbose: whether to show a bar.

    Attributes:
        estimator_: the fitted ``Embedder``.

    Examples:
        >>> import numpy as np
        >>> from prismts.adapters.sktime import PrismEmbedder
        >>> X = np.random.default_rng(0).normal(size=(6, 2, 40))
        >>> embedder = PrismEmbedder(fit_settings={"max_epochs": 1}).fit(X)
        >>> embedder.transform(X).shape == (6, embedder.estimator_.n_features_)
        True
    """

    _tags = {  # noqa: RUF012
        **_COMMON,
        "scitype:transform-input": "Series",
        "scitype:transform-output": "Primitives",
        "scitype:instancewise": False,
        "X_inner_mtype": "df-list",
        "fit_is_empty": False,
        "capability:unequal_length:removes": True,
        "capability:missing_values:removes": True,
        "capability:categorical_in_X": False,
    }

    def _fit(self, X: list[pd.DataFrame], y: Any = None) -> PrismEmbedder:
        self.estimator_ = self._new().fit(_arrays(X))
        return self

    def _transform(self, X: list[pd.DataFrame], y: Any = None) -> pd.DataFrame:
        return pd.DataFrame(self.estimator_.transform(_arrays(X)))

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Two sets: channels pooled, and side by side."""
        return [_TINY, {**_TINY, "channels": "apart", "pooling": "mean"}]


def _row(X: pd.DataFrame | pd.Series) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """One series as [C, T], and the step of each of its rows; some methods of a detector are handed a single column."""
    return _placed(X.to_frame() if isinstance(X, pd.Series) else X)


def _series_of(y: pd.DataFrame) -> list[NDArray[np.float64]]:
    """The series of a panel or a hierarchy, whose last level is time."""
    above = list(range(y.index.nlevels - 1))
    parts: list[Any] = [series for _, series in y.groupby(level=above, sort=False)]
    return _arrays(parts)


def _between(forecast: NDArray[np.float64], levels: Sequence[float], level: float) -> NDArray[np.float64]:
    """The forecast [C, h] at a level, on the line between its neighbors among the learned ones of [Q, C, h]."""
    known = np.asarray(levels, dtype=np.float64)
    if not known.min() - _EDGE <= level <= known.max() + _EDGE:
        raise SettingsError(
            f"This forecaster learned levels from {known.min():g} to {known.max():g} and does not guess beyond them, "
            f"but {level:g} is asked for. Build it with quantiles that reach there."
        )
    order = np.argsort(known)
    place = np.interp(level, known[order], np.arange(len(known)))
    below = int(np.floor(place))
    above = min(below + 1, len(known) - 1)
    share = place - below
    return (1 - share) * forecast[order[below]] + share * forecast[order[above]]
