"""F1 of alarms against labels, counted by steps, by events or by ranges; at given alarms, or at the best threshold.

A ``best_`` score tries thresholds on the very labels it is scored by. It says what a detector could reach with a
perfectly chosen threshold, not what its own threshold reached; scores taken at given alarms say that.
Alarms are [T] of 0 and 1, labels [T] of 0 and 1 with at least one event; every score is 0 to 1, higher is better, and
0 where no alarm was raised.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prismts.errors import SettingsError
from prismts.evaluation.detection_input import Flags, read_labels, read_prediction, read_scores, runs

__all__ = [
    "f1", "best_f1", "event_f1", "best_event_f1", "range_f1", "best_range_f1", "point_adjusted_f1",
    "best_point_adjusted_f1", "best_over_thresholds", "harmonic_mean",
]  # fmt: skip


def f1(labels: ArrayLike, prediction: ArrayLike) -> float:
    """F1 step by step: the harmonic mean of the share of alarms that are right and of the share of anomalies found."""
    truth = read_labels(labels)
    alarm = read_prediction(prediction, truth.size)
    hits = (truth & alarm).sum()
    return float(2 * hits / (truth.sum() + alarm.sum()))


def best_f1(labels: ArrayLike, scores: ArrayLike) -> float:
    """The highest ``f1`` over all thresholds on scores [T], every distinct score tried ("Standard-F1" of TSB-AD)."""
    truth = read_labels(labels)
    s = read_scores(scores, truth.size)
    thresholds = np.unique(s)
    hits, alarms = _count_reaching(s[truth], thresholds), _count_reaching(s, thresholds)
    return float((2 * hits / (truth.sum() + alarms)).max())


def event_f1(labels: ArrayLike, prediction: ArrayLike) -> float:
    """Harmonic mean of the share of events found and of the share of alarmed steps that are right.

    An event is found when any of its steps is alarmed: one alarm in time is what an operator needs. Precision stays
    with steps, so that length has its price: were false alarms counted as whole alarms that touch no event, one alarm
    from the first step to the last would find every event, raise no false alarm and score 1.
    Source: Garg et al., IEEE TNNLS 2021 (composite F-score); TSB-AD calls it Event-based-F1.
    """
    truth = read_labels(labels)
    alarm = read_prediction(prediction, truth.size)
    if not alarm.any():
        return 0.0
    return harmonic_mean((truth & alarm).sum() / alarm.sum(), _any_in_runs(truth, alarm).mean())


def best_event_f1(labels: ArrayLike, scores: ArrayLike) -> float:
    """The highest ``event_f1`` over all thresholds on scores [T], every distinct score tried."""
    truth = read_labels(labels)
    s = read_scores(scores, truth.size)
    thresholds = np.unique(s)
    precision = _count_reaching(s[truth], thresholds) / _count_reaching(s, thresholds)
    peaks = _peaks(truth, s)
    recall = _count_reaching(peaks, thresholds) / len(peaks)
    return float(_harmonic_means(precision, recall).max())


def range_f1(labels: ArrayLike, prediction: ArrayLike, existence_weight: float = 0.2) -> float:
    """Harmonic mean of range-based precision and recall: how well alarms and events cover each other, piece by piece.

    Each event counts the same however long it is. It is recalled by the share of its steps that is alarmed, divided by
    the number of alarms that share it out among them (cardinality factor 1/n); ``existence_weight`` of the recall is
    given for being touched at all. Precision is the same with alarms and events exchanged and no such gift. All
    positions within an event weigh the same (flat bias).
    Source: Tatbul et al., NeurIPS 2018; the existence weight of .2 as in TSB-AD (aeon: .5).
    """
    truth = read_labels(labels)
    alarm = read_prediction(prediction, truth.size)
    if not 0 <= existence_weight <= 1:
        raise SettingsError(f"existence_weight is a share of the recall from 0 to 1, but got {existence_weight}.")
    if not alarm.any():
        return 0.0
    return harmonic_mean(_range_share(alarm, truth, 0.0), _range_share(truth, alarm, existence_weight))


def best_range_f1(labels: ArrayLike, scores: ArrayLike, existence_weight: float = 0.2) -> float:
    """The highest ``range_f1`` over the thresholds of ``best_over_thresholds``."""
    return best_over_thresholds(labels, scores, lambda y, alarm: range_f1(y, alarm, existence_weight))


def point_adjusted_f1(labels: ArrayLike, prediction: ArrayLike) -> float:
    """F1 after every event touched by one alarm is taken as alarmed from its first step to its last.

    Only ever for an appendix: one lucky alarm is paid for the whole event, so that on long events random scores beat
    real detectors (Kim et al., AAAI 2022, arXiv 2109.05257), and the order of methods is turned around.
    """
    truth = read_labels(labels)
    alarm = read_prediction(prediction, truth.size)
    starts, ends = runs(truth)
    hits = int((ends - starts)[_any_in_runs(truth, alarm)].sum())
    return float(2 * hits / (truth.sum() + hits + (alarm & ~truth).sum()))


def best_point_adjusted_f1(labels: ArrayLike, scores: ArrayLike) -> float:
    """The highest ``point_adjusted_f1`` over all thresholds on scores [T], every distinct score tried.

    Only ever for an appendix, as ``point_adjusted_f1`` says; choosing the threshold by the labels flatters it further.
    """
    truth = read_labels(labels)
    s = read_scores(scores, truth.size)
    thresholds = np.unique(s)
    starts, ends = runs(truth)
    peaks = _peaks(truth, s)
    order = np.argsort(peaks)
    below = np.r_[0, np.cumsum((ends - starts)[order])]  # steps in the k events of the lowest peaks
    hits = truth.sum() - below[np.searchsorted(peaks[order], thresholds)]
    false = _count_reaching(s[~truth], thresholds)
    return float((2 * hits / (truth.sum() + hits + false)).max())


def best_over_thresholds(
    labels: ArrayLike, scores: ArrayLike, measure: Callable[[Flags, Flags], float], n_thresholds: int = 100
) -> float:
    """The highest ``measure(labels, alarms)`` over thresholds on scores [T]: an alarm where the score reaches one.

    The thresholds are scores, their ranks from 1 to T spaced evenly on a logarithmic scale, so that most lie among the
    highest scores, where anomalies are, and a monotone change of the scores changes nothing. TSB-AD spaces 100 evenly
    between lowest and highest score, of which a single outlier may leave one to choose from.
    """
    truth = read_labels(labels)
    s = read_scores(scores, truth.size)
    if n_thresholds < 1:
        raise SettingsError(f"n_thresholds is at least 1, but got {n_thresholds}.")
    ranks = np.unique(np.geomspace(1, s.size, n_thresholds).round().astype(np.int64)) - 1
    return max(measure(truth, s >= threshold) for threshold in np.unique(-np.sort(-s)[ranks]))


def harmonic_mean(precision: float, recall: float) -> float:
    """F1 of a precision and a recall, 0 where both are 0."""
    total = precision + recall
    return float(2 * precision * recall / total) if total > 0 else 0.0


def _harmonic_means(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> NDArray[np.float64]:
    total = precision + recall
    return 2 * precision * recall / np.where(total > 0, total, 1)


def _count_reaching(values: NDArray[np.float64], thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many values are at least each threshold."""
    return values.size - np.searchsorted(np.sort(values), thresholds)


def _in_runs(flags: Flags) -> NDArray[np.int64]:
    """Borders [2n] for a ``reduceat`` whose every other part is a run; the array reduced needs one more element."""
    return np.stack(runs(flags), axis=1).ravel()


def _any_in_runs(truth: Flags, alarm: Flags) -> Flags:
    return np.logical_or.reduceat(np.r_[alarm, False], _in_runs(truth))[::2]


def _peaks(truth: Flags, s: NDArray[np.float64]) -> NDArray[np.float64]:
    """The highest score within each event."""
    return np.maximum.reduceat(np.r_[s, s[-1]], _in_runs(truth))[::2]


def _range_share(of: Flags, by: Flags, existence_weight: float) -> float:
    """How well the runs in ``of`` are covered by runs in ``by``, on average over the runs in ``of``."""
    starts, ends = runs(of)
    borders = _in_runs(of)
    shared = of & by
    n_shared = np.add.reduceat(np.r_[shared, False].astype(np.int64), borders)[::2]
    # two shared pieces within one run are parted by a step that is not in ``by``: each belongs to another run of ``by``
    begins = shared & ~np.r_[False, shared[:-1]]
    n_pieces = np.add.reduceat(np.r_[begins, False].astype(np.int64), borders)[::2]
    covered = n_shared / (ends - starts) / np.maximum(n_pieces, 1)
    return float((existence_weight * (n_pieces > 0) + (1 - existence_weight) * covered).mean())
