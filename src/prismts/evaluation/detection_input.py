"""What every measure of detection agrees on: labels of 0 and 1, one finite score per step, events as runs of ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prismts.errors import DataError, ShapeError

__all__ = ["DetectionUndefined", "Flags", "read_labels", "read_scores", "read_prediction", "runs"]

Flags = NDArray[np.bool_]


class DetectionUndefined(DataError):
    """A series on which detection cannot be scored, for want of an anomaly or of a normal step.

    A table over many series catches this one error, leaves the series out and says how many it left out.
    """


def read_labels(labels: ArrayLike, *, needs_normal: bool = False) -> Flags:
    """Labels [T] as booleans; a series without any anomaly (or, if asked, any normal step) is DetectionUndefined."""
    truth = _read_flags(labels, "labels")
    if not truth.any():
        raise DetectionUndefined(
            f"None of the {truth.size} labels is 1, so there is nothing to find and no recall. "
            "Leave this series out of the table, and say so there."
        )
    if needs_normal and truth.all():
        raise DetectionUndefined(
            f"All {truth.size} labels are 1, so no score can rank an anomaly above a normal step. "
            "Leave this series out of the table, and say so there."
        )
    return truth


def read_scores(scores: ArrayLike, n_timepoints: int) -> NDArray[np.float64]:
    """Anomaly scores [T] in float64, finite, one for each label; higher means more anomalous."""
    s = np.asarray(scores, dtype=np.float64)
    _same_length(s.shape, n_timepoints, "scores")
    missing = ~np.isfinite(s)
    if missing.any():
        raise DataError(
            f"scores are NaN or infinite at {missing.sum()} of {s.size} steps, the first at step {missing.argmax()}. "
            "A detector has to score every step: where it cannot judge (the first steps of a series), let it say how."
        )
    return s


def read_prediction(prediction: ArrayLike, n_timepoints: int) -> Flags:
    """Alarms [T] as booleans, one for each label."""
    alarm = _read_flags(prediction, "prediction")
    _same_length(alarm.shape, n_timepoints, "prediction")
    return alarm


def runs(flags: Flags) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Start and end of each run of True in [T], end exclusive: 0 1 1 0 1 has the runs 1 to 3 and 4 to 5."""
    step = np.diff(flags.astype(np.int8), prepend=0, append=0)
    return np.flatnonzero(step == 1), np.flatnonzero(step == -1)


def _read_flags(flags: ArrayLike, name: str) -> Flags:
    array = np.asarray(flags)
    if array.ndim != 1 or not array.size:
        raise ShapeError(f"{name} must be [time] with at least one step, but have shape {list(array.shape)}.")
    known = (array == 0) | (array == 1)
    if not known.all():
        first = int((~known).argmax())
        raise DataError(
            f"{name} must be 0 (normal) or 1 (anomaly), but step {first} holds {array[first]!r}. "
            "Turn scores into alarms first: scores > threshold."
        )
    return array == 1


def _same_length(shape: tuple[int, ...], n_timepoints: int, name: str) -> None:
    if shape != (n_timepoints,):
        raise ShapeError(
            f"{name} must be [time={n_timepoints}], one for each label, but have shape {list(shape)}. "
            "A detector that scores windows has to spread its scores over the steps first."
        )
