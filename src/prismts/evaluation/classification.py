"""How good class probabilities are: plain arrays in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

from prismts.errors import DataError, ShapeError

__all__ = ["CLASSIFICATION_METRICS", "calibration_error", "classification_scores"]

CLASSIFICATION_METRICS: dict[str, str] = {
    "accuracy": "share of cases whose likeliest class is theirs (higher is better)",
    "balanced_accuracy": "mean over classes of the share of their cases that is found (higher is better)",
    "f1_macro": "mean over classes of the harmonic mean of precision and recall (higher is better)",
    "log_loss": "mean of -log of the probability of the true class (lower is better)",
    "calibration_error": "mean distance of confidence from accuracy over ten bins of confidence (lower is better)",
}


def classification_scores(
    labels: NDArray[Any], probabilities: NDArray[np.floating], classes: Sequence[Any] | NDArray[Any]
) -> dict[str, float]:
    """Every measure of ``CLASSIFICATION_METRICS`` from labels [n] and probabilities [n, K] of the ``classes`` [K].

    Raises:
        ShapeError: the arrays do not belong together.
        DataError: a label is none of the classes, or probabilities are not numbers.
    """
    labels, classes = np.asarray(labels), np.asarray(classes)
    probabilities = np.asarray(probabilities, dtype=float)
    if probabilities.shape != (len(labels), len(classes)):
        raise ShapeError(
            f"{len(labels)} labels and {len(classes)} classes need probabilities [{len(labels)}, {len(classes)}], but "
            f"got {list(probabilities.shape)}."
        )
    if not np.isfinite(probabilities).all():
        raise DataError("Probabilities must be finite numbers.")
    code = {value: k for k, value in enumerate(classes.tolist())}
    unknown = [value for value in labels.tolist() if value not in code]
    if unknown:
        raise DataError(
            f"Class {unknown[0]!r} was not among the classes the model learned ({', '.join(map(str, code))}), so its "
            f"{len(unknown)} cases cannot be scored."
        )
    truth = np.array([code[value] for value in labels.tolist()])
    said = probabilities.argmax(1)
    present = np.unique(truth)
    recall = [float((said[truth == k] == k).mean()) for k in present]
    likely = np.clip(probabilities[np.arange(len(truth)), truth], 1e-15, 1.0)
    return {
        "accuracy": float((said == truth).mean()),
        "balanced_accuracy": float(np.mean(recall)),
        "f1_macro": float(sk.f1_score(truth, said, average="macro", labels=present, zero_division=0)),  # type: ignore[arg-type]
        "log_loss": float(-np.log(likely).mean()),
        "calibration_error": calibration_error(truth, probabilities),
    }


def calibration_error(truth: NDArray[np.integer], probabilities: NDArray[np.floating], n_bins: int = 10) -> float:
    """Mean distance of confidence and accuracy over equal bins of confidence, weighted by their cases.

    ``truth`` [n] are class numbers, ``probabilities`` [n, K].
    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    confidence = probabilities.max(1)
    hit = probabilities.argmax(1) == truth
    which = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gaps = [abs(hit[which == b].mean() - confidence[which == b].mean()) * (which == b).mean() for b in np.unique(which)]
    return float(sum(gaps))
