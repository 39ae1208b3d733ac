"""Fit on one part, choose on another, score on a third, once: the rules by which numbers are made.

``honest``: the scaler and the weights see the training part only, validation chooses the epoch, and every test window
(stride 1, the last partial batch too) is scored once.

``published``: as most papers did, the last test batch is dropped where it is not full, so that fewer windows count and
the score depends on the batch size. It exists to be compared with published numbers, never to rank.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from prismts.data.catalog import load_dataset
from prismts.data.series import Collection, Series
from prismts.data.splits import Borders, by_fraction
from prismts.errors import DataError, unknown_name
from prismts.evaluation.scores import Scores

__all__ = ["PROTOCOLS", "data_hash", "evaluate", "score"]

PROTOCOLS: dict[str, str] = {
    "honest": "validation chooses, every test window counts once",
    "published": "the last, partial test batch is dropped, as in many papers",
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
    estimator: Any,
    data: str | Series,
    *,
    protocol: str = "honest",
    seed: int | None = 0,
    borders: Borders | None = None,
) -> Scores:
    """Fit a copy of the estimator on the training part of a data set, and score it on the test part.

    Args:
        estimator: unfitted, or fitted: a copy with the same arguments is fitted anew.
        data: a name of the catalog, or a series.
        protocol: "honest" or "published".
        seed: replaces ``random_state``; None leaves it.
        borders: of train, validation and test; the series' official ones, or else 70/10/20.
    """
    _known(protocol)
    series = load_dataset(data) if isinstance(data, str) else data
    if not isinstance(series, Series):
        raise DataError(
            f"{series.name!r} is a collection of cases, not a series with a test part in time; it cannot be forecast "
            "under this protocol."
        )
    borders = borders or series.borders or by_fraction(len(series))
    fresh = estimator.__class__(**estimator.get_params(deep=False))
    if seed is not None:
        fresh.set_params(random_state=seed)
    began = time.perf_counter()
    fresh.fit(series, validation=borders)
    scores = score(fresh, series, borders, protocol=protocol)
    return replace(scores, seconds=time.perf_counter() - began, seed=seed)


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
    """Sixteen hexadecimal digits of the values, so that a result names the very numbers it was made from."""
    digest = hashlib.sha256(str(data.values.shape).encode())
    for channel in data.values:
        digest.update(np.ascontiguousarray(channel).tobytes())
    return digest.hexdigest()[:16]


def _known(protocol: str) -> None:
    if protocol not in PROTOCOLS:
        raise unknown_name("protocol", protocol, PROTOCOLS)
