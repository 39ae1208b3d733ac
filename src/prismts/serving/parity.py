"""Does a file answer as the estimator it was made of? Windows with and without gaps, asked of both.

The estimator is asked in the precision in which its data are stored, or in double, and the file in the precision that
it reads: where that is too coarse for the data, the answers differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prismts.data.series import Collection, Series
from prismts.data.tables import TableKind
from prismts.estimators.classifier import Classifier
from prismts.estimators.detector import AnomalyDetector
from prismts.estimators.embedder import Embedder
from prismts.estimators.forecaster import Forecaster
from prismts.estimators.imputer import Imputer
from prismts.serving.graph import Graph

__all__ = ["Answer", "differences"]

Values = NDArray[np.floating]
Answer = Callable[[Values, NDArray[np.int64] | None], dict[str, NDArray[Any]]]
_STRANGER = "a series that was not in training"


def differences(estimator: Any, graph: Graph, answer: Answer) -> Iterator[tuple[str, float]]:
    """What was asked, in words, and how far both answers lie apart at most, in units of the answer's scale.

    Forecasts and filled values are measured by the scale of their series and channel, scores and vectors by their own
    size where that is above 1, probabilities as they are. Alarms may differ where a score lies at the threshold.
    """
    if isinstance(estimator, Forecaster | Imputer):
        yield from _in_units_of_the_series(estimator, graph, answer)
    elif isinstance(estimator, Classifier):
        yield from _of_classes(estimator, graph, answer)
    elif isinstance(estimator, AnomalyDetector):
        yield from _of_scores(estimator, graph, answer)
    else:
        assert isinstance(estimator, Embedder)
        yield from _of_vectors(estimator, graph, answer)


def _in_units_of_the_series(
    estimator: Forecaster | Imputer, graph: Graph, answer: Answer
) -> Iterator[tuple[str, float]]:
    scaler, names = estimator.scaler_, estimator.series_names_
    several = len(scaler.mean) > 1
    rows = list(range(min(2, len(names)))) + ([-1] if several else [])
    length = int(estimator.context_length)
    lengths = (
        (length, length + 7, max(1, length // 2)) if isinstance(estimator, Forecaster) else (length, 2 * length + 7)
    )
    for row in rows:
        known = row >= 0
        mean, scale = (scaler.mean[row], scaler.scale[row]) if known else (scaler.mean.mean(0), scaler.scale.mean(0))
        name = names[row] if known and names.count(names[row]) == 1 else _STRANGER
        number = np.array([row if name != _STRANGER or not several else -1])
        for n in lengths:
            whole = _waves(mean, scale, n)
            if isinstance(estimator, Forecaster):
                real = estimator.tails_[row].values[:, -n:] if known else whole
                whole = real if real.shape[1] == n else whole
                whole = whole.astype(estimator.tails_.values.dtype)
            for what, values in _with_gaps(whole):
                series = Series(values.copy(), estimator.channels_, name=name)
                found = answer(values[None], number if several else None)
                ours = np.asarray(next(iter(found.values())))[0]
                if isinstance(estimator, Forecaster):
                    live = np.asarray(estimator.predict((Collection.of(series), TableKind("array"))))[0]
                else:
                    live = np.asarray(estimator.transform(series).values)
                unit = scale if known else np.where(np.isnan(values).all(1), scale, _spread(values))
                yield f"{n} steps {what}", _largest(live, ours, unit[:, None])


def _of_classes(estimator: Classifier, graph: Graph, answer: Answer) -> Iterator[tuple[str, float]]:
    longest = estimator.n_timepoints_
    for n in (longest,) if graph.time.exact else (longest, longest // 2 + 1):
        # of kernels that compete over a flat stretch rounding makes one win: both are to read the very same values
        whole = _waves(estimator.scaler_.mean[0], estimator.scaler_.scale[0], n).astype(graph.example[0].numpy().dtype)
        for what, values in _with_gaps(whole):
            live = estimator.predict_proba(_collection([values], estimator.channels_))[0]
            behind = np.full((len(values), longest - n), np.nan)
            found = answer(np.concatenate([values, behind], axis=1)[None], None)
            yield f"cases of {n} steps {what}", _largest(live, found["probability"][0], np.ones(1))


def _of_scores(estimator: AnomalyDetector, graph: Graph, answer: Answer) -> Iterator[tuple[str, float]]:
    for n in (graph.time.min, 2 * graph.time.min + 50):
        known = estimator.training_[:, -n:]
        if known.shape[1] < n:
            known = _waves(estimator.scaler_.mean[0], estimator.scaler_.scale[0], n).astype(known.dtype)
        for what, values in _with_gaps(known):
            series = Series(values.copy(), estimator.channels_)
            found = answer(values[None], None)
            score = estimator.score_samples(series)
            yield f"{n} steps {what}", _largest(score, found["score"][0], np.maximum(1.0, np.abs(score)))
            added = estimator.contributions(series)
            unit = np.maximum(1.0, np.abs(added).max())
            yield f"contributions of {n} steps {what}", _largest(added, found["contribution"][0], unit)
            threshold = estimator.threshold_.value
            other = found["alarm"][0] != estimator.threshold_.alarms(score)
            clear = np.abs(score - threshold) > 1e-4 * max(1.0, abs(threshold))
            yield f"alarms of {n} steps {what}", float((other & clear).sum())


def _of_vectors(estimator: Embedder, graph: Graph, answer: Answer) -> Iterator[tuple[str, float]]:
    n_channels = estimator.n_channels_
    mean, scale = np.full(n_channels, estimator.level_[0]), np.full(n_channels, np.exp(estimator.level_[1]))
    for n in (graph.time.min, 2 * graph.time.min + 3):
        for what, values in _with_gaps(_waves(mean, scale, n)):
            live = np.asarray(estimator.transform(_collection([values], ())))[0]
            found = answer(values[None], None)["vector"][0]
            yield f"cases of {n} steps {what}", _largest(live, found, np.maximum(1.0, np.abs(live)))


def _waves(mean: NDArray[np.float64], scale: NDArray[np.float64], n: int) -> Values:
    """Something like a series [C, n] on these levels and scales [C]: cycles and a wandering level; always the same."""
    rng = np.random.default_rng(n)
    step = np.arange(n)
    period = rng.uniform(8, 40, (len(mean), 1))
    shape = np.sin(2 * np.pi * step / period) + 0.1 * rng.standard_normal((len(mean), n)).cumsum(axis=1)
    return mean[:, None] + scale[:, None] * (shape + 0.3 * rng.standard_normal(shape.shape))


def _with_gaps(whole: Values) -> Iterator[tuple[str, Values]]:
    """A window [C, T] as it is, with points and a stretch taken out, and without its first half and one channel.

    The last step of the first channel stays, so that the window ends where it ends.
    """
    yield "as they are", whole
    n_channels, n = whole.shape
    if n < 4:
        return
    holes = whole.copy()
    holes[np.random.default_rng(0).random(whole.shape) < 0.15] = np.nan
    holes[:, n // 3 : n // 3 + n // 6] = np.nan
    holes[0, -1] = whole[0, -1] if np.isfinite(whole[0, -1]) else 0.0
    yield "with gaps", holes
    late = holes.copy()
    late[:, : n // 2] = np.nan
    if n_channels > 1:
        late[-1] = np.nan
    yield "without their first half" + (" and the last channel" if n_channels > 1 else ""), late


def _collection(cases: Sequence[Values], channels: tuple[str, ...]) -> Collection:
    return Collection.of([Series(case.copy(), channels, name=str(i)) for i, case in enumerate(cases)])


def _spread(values: Values) -> NDArray[np.float64]:
    """The deviation of the observed values of each channel [C]; 1 where they never move, or are not there."""
    some = ~np.isnan(values)
    count = np.maximum(some.sum(1), 1)
    x = np.where(some, values, 0.0).astype(np.float64)
    mean = x.sum(1) / count
    spread = np.sqrt((np.where(some, x - mean[:, None], 0.0) ** 2).sum(1) / count)
    return np.where(spread > 0, spread, 1.0)


def _largest(live: NDArray[Any], ours: NDArray[Any], unit: NDArray[Any] | float) -> float:
    """The largest difference of two answers in these units, beyond what each is rounded by; inf for NaN."""
    if live.shape != ours.shape:
        return np.inf
    rounding = sum(np.finfo(one.dtype).eps / 2 for one in (live, ours))
    live, ours = live.astype(np.float64), ours.astype(np.float64)
    apart = np.maximum(np.abs(live - ours) - rounding * np.abs(live), 0.0) / unit
    return float(np.where(np.isnan(apart), np.inf, apart).max(initial=0.0))
