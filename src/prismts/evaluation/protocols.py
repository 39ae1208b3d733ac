"""Fit on one part, choose on another, score on a third, once: the rules by which numbers are made.

``honest``: the scaler and the weights see the training part only, validation chooses the epoch, and every test window
(stride 1, the last partial batch too), case or step is scored once. Validation is a part of its own in forecasting; in
classification it is taken from the training cases, and in detection from the training steps.

``published``: as most papers did. In forecasting the last test batch is dropped where it is not full, so that fewer
windows count and the score depends on the batch size; in classification the test cases choose the epoch. It exists to
be compared with published numbers, never to rank.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from prismts.data.catalog import load_dataset
from prismts.data.readers import read
from prismts.data.series import Collection, Series
from prismts.data.splits import Borders, by_fraction
from prismts.errors import DataError, SettingsError, unknown_name
from prismts.evaluation.detection import detection_scores
from prismts.evaluation.detection_vus import vus_buffer
from prismts.evaluation.scores import Scores

__all__ = ["PROTOCOLS", "data_hash", "detector_scores", "evaluate", "score"]

PROTOCOLS: dict[str, str] = {
    "honest": "validation chooses, every test window counts once",
    "published": "the last, partial test batch is dropped (forecasting), the best epoch is read off the test cases "
    "(classification), as in many papers",
}

# test batch of the ConvTimeNet authors' scripts, by data set; 256 where they have none
PUBLISHED_BATCH = {"Exchange": 16, "ILI": 64}


class Estimator(Protocol):
    """What a protocol needs of a forecaster."""

    context_length: int
    horizon: int

    def fit(self, data: Any, *, validation: Any = ...) -> Any:
        """Learn from data, choosing on its validation part."""
        ...

    def backtest(self, data: Any, **part: Any) -> Any:
        """Forecast the windows of one part, and score them."""
        ...


def evaluate(
    estimator: Any, data: Any, *, protocol: str = "honest", seed: int | None = 0, borders: Borders | None = None
) -> Scores:
    """Fit a copy of the estimator on the training part of a data set, and score it on the test part.

    A forecaster is scored on the windows of a series, a classifier on the test cases of a collection, a detector on the
    labeled steps after the training part of a series.

    Args:
        estimator: unfitted, or fitted: a copy with the same arguments is fitted anew.
        data: a name of the catalog; a series, or a collection of labeled cases with official parts; or what
            ``prismts.read`` takes: a path, a table, an array.
        protocol: "honest" or "published".
        seed: replaces ``random_state``; None leaves it.
        borders: of train, validation and test of a series; its official ones, or else 70/10/20.
    """
    _known(protocol)
    if not hasattr(estimator, "get_params") or isinstance(estimator, type):
        raise SettingsError(
            f"evaluate fits a copy of an estimator, such as prismts.Forecaster(model='ridge'), but got {estimator!r}."
        )
    found = _read(estimator, data)
    fresh = estimator.__class__(**estimator.get_params(deep=False))
    if seed is not None:
        fresh.set_params(random_state=seed)
    began = time.perf_counter()
    if hasattr(fresh, "predict_proba"):
        scores = _classified(fresh, found, protocol)
    elif not isinstance(found, Series):
        raise DataError(
            f"{found.name!r} is a collection of cases, not a series with a test part in time. Give it to a classifier, "
            "or take one of its series."
        )
    else:
        borders = borders or found.borders or by_fraction(len(found))
        if hasattr(fresh, "score_samples"):
            scores = _detected(fresh, found, borders, protocol)
        elif not hasattr(fresh, "backtest"):
            raise DataError(
                f"A {type(fresh).__name__} has no protocol here: forecasters, classifiers and detectors have."
            )
        else:
            fresh.fit(found, validation=borders)
            scores = score(fresh, found, borders, protocol=protocol)
    return replace(scores, seconds=time.perf_counter() - began, seed=seed, protocol=protocol)


def _read(estimator: Any, data: Any) -> Series | Collection:
    """A data set by its name; anything else as the estimator reads it, a file before a data set of its name."""
    if isinstance(data, Series | Collection):
        return data
    if isinstance(data, str) and not Path(data).expanduser().exists() and not Path(data).suffix:
        return load_dataset(data)
    how: dict[str, Any] = {name: getattr(estimator, name, None) for name in ("time", "series", "values", "frequency")}
    return read(data, **how)


def _classified(classifier: Any, data: Series | Collection, protocol: str) -> Scores:
    if not isinstance(data, Collection):
        raise DataError(f"{data.name!r} is a series, not labeled cases; a classifier cannot be scored on it.")
    if protocol == "published":
        classifier.fit(data.train, judged_by=data.test)
    else:
        classifier.fit(data.train)
    return classifier.evaluate(data.test)


def _detected(detector: Any, series: Series, borders: Borders, protocol: str) -> Scores:
    """Scores of the steps after training; the detector may look back at the training part when it scores them."""
    if protocol != "honest":
        raise DataError(
            "Detection has one protocol, 'honest': thresholds come from training scores, never from labels."
        )
    detector.fit(series.part(0, borders.train_end))
    return detector_scores(detector, series, replace(borders, validation_end=borders.train_end))


def detector_scores(detector: Any, series: Series, borders: Borders | None = None) -> Scores:
    """Measures of a fitted detector on the labeled steps of the test part; a series without borders as a whole."""
    if series.labels is None:
        raise DataError(f"Series {series.name!r} has no labels of anomalies, so a detector cannot be scored on it.")
    borders = borders or series.borders
    begin = 0 if borders is None else borders.validation_end
    scores = np.asarray(detector.score_samples(series))[begin:]
    buffer = vus_buffer(series.values[:, : begin or None])
    measures = detection_scores(series.labels[begin:], scores, detector.threshold_.alarms(scores), buffer)
    return Scores(measures, len(scores), data=series.name, data_hash=data_hash(series), counted="steps")


def score(
    estimator: Estimator, series: Series, borders: Borders, *, protocol: str = "honest", batch_size: int | None = None
) -> Scores:
    """Score a fitted forecaster on the test part of a series.

    ``batch_size`` only matters under ``published``, where it decides how many windows are dropped.
    """
    _known(protocol)
    begin, end = borders.test
    most = None
    if protocol == "published":
        batch_size = batch_size or PUBLISHED_BATCH.get(series.name, 256)
        n_windows = end - begin - estimator.horizon + 1
        most = n_windows // batch_size * batch_size or n_windows
    result = estimator.backtest(series, begin=begin, end=end, n_windows=most)
    return replace(result.scores, protocol=protocol, data=series.name, data_hash=data_hash(series))


def data_hash(data: Series | Collection) -> str:
    """Sixteen hexadecimal digits of the values, so that a result names the very numbers it was made from.

    Of several series, where each begins counts too: the same values cut elsewhere are other data. A collection of one
    series has the digits of that series.
    """
    digest = hashlib.sha256(str(data.values.shape).encode())
    if isinstance(data, Collection) and len(data) > 1:
        digest.update(np.ascontiguousarray(data.offsets, dtype=np.int64).tobytes())
    for channel in data.values:
        digest.update(np.ascontiguousarray(channel).tobytes())
    return digest.hexdigest()[:16]


def _known(protocol: str) -> None:
    if protocol not in PROTOCOLS:
        raise unknown_name("protocol", protocol, PROTOCOLS)
