"""Every measure of detection by name, what it says, and a call that takes them all.

    for name, measure in DETECTION_METRICS.items():
        print(name, measure)
    detection_scores(labels, scores, prediction, buffer=vus_buffer(values))

The measures read plain arrays [T]: labels of 0 and 1, scores (higher is more anomalous), alarms of 0 and 1. VUS-PR
comes first: it needs no threshold and forgives labels that are a few steps off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from numpy.typing import ArrayLike

from prismts.evaluation.detection_affiliation import Affiliation, affiliation, affiliation_f1, best_affiliation_f1
from prismts.evaluation.detection_f1 import (
    best_event_f1,
    best_f1,
    best_point_adjusted_f1,
    best_range_f1,
    event_f1,
    f1,
    point_adjusted_f1,
    range_f1,
)
from prismts.evaluation.detection_input import DetectionUndefined, read_labels, read_scores
from prismts.evaluation.detection_vus import (
    DEFAULT_BUFFER,
    Variant,
    Volumes,
    median_anomaly_length,
    vus,
    vus_buffer,
    vus_pr,
    vus_roc,
)

__all__ = [
    "DETECTION_METRICS", "DetectionMetric", "detection_scores", "DetectionUndefined",
    "Volumes", "vus", "vus_pr", "vus_roc", "vus_buffer", "median_anomaly_length", "auc_pr", "auc_roc",
    "f1", "event_f1", "range_f1", "affiliation", "Affiliation", "affiliation_f1", "point_adjusted_f1",
    "best_f1", "best_event_f1", "best_range_f1", "best_affiliation_f1", "best_point_adjusted_f1",
]  # fmt: skip


def auc_pr(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the precision-recall curve in steps (average precision); chance gives the share of anomalous steps."""
    from sklearn.metrics import average_precision_score

    truth = read_labels(labels, needs_normal=True)
    return float(average_precision_score(truth, read_scores(scores, truth.size)))


def auc_roc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Chance that an anomalous step scores higher than a normal one, ties counted half; .5 by luck."""
    from sklearn.metrics import roc_auc_score

    truth = read_labels(labels, needs_normal=True)
    return float(roc_auc_score(truth, read_scores(scores, truth.size)))


@dataclass(frozen=True)
class DetectionMetric:
    """A measure from 0 to 1, higher is better: one line on what it says, and what it reads beside the labels."""

    function: Callable[..., float]
    description: str
    reads: Literal["scores", "prediction"] = "scores"
    appendix: bool = False  # misleads on its own: never a headline, never a reason to choose a method

    def __str__(self) -> str:
        where = "; for an appendix only" if self.appendix else ""
        return f"{self.description} (from {self.reads}, higher is better{where})"


DETECTION_METRICS: dict[str, DetectionMetric] = {
    "vus_pr": DetectionMetric(vus_pr, "area under precision and recall, over buffers around events"),
    "vus_roc": DetectionMetric(vus_roc, "area under the ROC curve, over buffers around events"),
    "auc_pr": DetectionMetric(auc_pr, "area under precision and recall, step by step"),
    "auc_roc": DetectionMetric(auc_roc, "area under the ROC curve, step by step"),
    "best_f1": DetectionMetric(best_f1, "F1 step by step, at the threshold best for the labels"),
    "best_event_f1": DetectionMetric(best_event_f1, "events found, steps right, at the threshold best for the labels"),
    "best_range_f1": DetectionMetric(best_range_f1, "coverage range by range, at the threshold best for the labels"),
    "best_affiliation_f1": DetectionMetric(
        best_affiliation_f1, "nearness in time against chance, at the threshold best for the labels"
    ),
    "f1": DetectionMetric(f1, "F1 step by step", "prediction"),
    "event_f1": DetectionMetric(event_f1, "share of events found, share of alarmed steps that are right", "prediction"),
    "range_f1": DetectionMetric(range_f1, "how well alarms and events cover each other, range by range", "prediction"),
    "affiliation_f1": DetectionMetric(
        affiliation_f1, "nearness of alarms and events in time, against chance", "prediction"
    ),
    "best_point_adjusted_f1": DetectionMetric(
        best_point_adjusted_f1, "F1 that pays one alarm for a whole event, at the threshold best for the labels",
        appendix=True,
    ),
    "point_adjusted_f1": DetectionMetric(
        point_adjusted_f1, "F1 that pays one alarm for a whole event", "prediction", appendix=True
    ),
}  # fmt: skip


def detection_scores(
    labels: ArrayLike,
    scores: ArrayLike,
    prediction: ArrayLike | None = None,
    buffer: int | None = None,
    *,
    n_thresholds: int | None = None,
    variant: Variant = "tsb-ad",
) -> dict[str, float]:
    """Every measure of DETECTION_METRICS by name, vus_pr first; those of alarms only where a ``prediction`` is given.

    ``labels``, ``scores`` and ``prediction`` are [T]. ``buffer``, ``n_thresholds`` and ``variant`` are those of
    ``vus``; choose the buffer by ``vus_buffer(values)``, else it is DEFAULT_BUFFER=100 steps. A series without an
    anomaly, or without a normal step, raises DetectionUndefined, which a table catches in order to leave the series out
    and to say so.
    """
    buffer = DEFAULT_BUFFER if buffer is None else buffer
    volumes = vus(labels, scores, buffer, n_thresholds=n_thresholds, variant=variant)  # both at the cost of one
    found = {"vus_pr": volumes.pr, "vus_roc": volumes.roc}
    for name, metric in DETECTION_METRICS.items():
        if name in found:
            continue
        if metric.reads == "scores":
            found[name] = metric.function(labels, scores)
        elif prediction is not None:
            found[name] = metric.function(labels, prediction)
    return found
