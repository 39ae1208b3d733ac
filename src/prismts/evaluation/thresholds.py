"""From scores to alarms: scores made comparable between channels, a threshold from training scores, events.

Nothing here sees a label or a test score. An alarm is a score above the threshold, never one equal to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prismts.errors import DataError, SettingsError, ShapeError
from prismts.evaluation.detection_input import runs

__all__ = ["Threshold", "quantile_threshold", "tail_threshold", "Event", "events", "RobustScale"]

Floats = NDArray[np.float64]
MIN_TAIL = 20  # training scores a tail fit has to see; fewer say next to nothing about its shape
SHAPES = -0.5, 1.0  # from a tail with an end (where the estimate is still regular) to one without a mean


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A value that scores of normal steps exceed at the false alarm rate asked for, and how it was found.

    The rate is per time step. Alarms come in bursts, so there are fewer false events than false steps.
    """

    value: float  # units of the scores
    method: Literal["quantile", "tail"]
    false_alarm_rate: float  # share of normal steps above the value, as asked for
    n_scores: int  # training scores seen
    n_tail: int | None = None  # of these, how many lie above ``start``: the tail that was fitted
    start: float | None = None  # where the tail starts, units of the scores
    shape: float | None = None  # of the generalized Pareto tail: above 0 heavier than exponential, below 0 with an end
    scale: float | None = None  # of the tail, units of the scores
    words: str = ""  # what a reader should know about this value

    def alarms(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """True where a score, of any shape, is above the value; NaN, a step that was not judged, raises no alarm."""
        return np.asarray(scores, dtype=np.float64) > self.value

    def __str__(self) -> str:
        return f"{self.value:.6g} ({self.words})"


def quantile_threshold(scores: ArrayLike, false_alarm_rate: float) -> Threshold:
    """The lowest of the training scores [n] that at most a share ``false_alarm_rate`` of them exceeds.

    It cannot look past the highest training score: for a rate below 1 / n that score is the threshold, and ``words``
    says so; ``tail_threshold`` looks further. Anomalies among the training scores count as normal here.
    """
    s = _read_training(scores)
    _check_rate(false_alarm_rate)
    n_above = int(false_alarm_rate * s.size + 1e-9)
    value = float(np.sort(s)[s.size - 1 - n_above])
    words = f"the {1 - false_alarm_rate:.6g} quantile of {s.size} training scores"
    if not n_above:
        words = (
            f"the highest of {s.size} training scores, too few to tell a rate of {false_alarm_rate:g} from a lower one"
        )
    return Threshold(value=value, method="quantile", false_alarm_rate=false_alarm_rate, n_scores=s.size, words=words)


def tail_threshold(
    scores: ArrayLike, false_alarm_rate: float, *, tail_share: float = 0.05, suspect_share: float = 0.005
) -> Threshold:
    """A threshold by extreme value theory: fit the tail of the training scores [n], and read the rate off the fit.

    Peaks over threshold: whatever the scores follow, the top ``tail_share`` of them, less the score they start at,
    nearly follow a generalized Pareto distribution, so that rates well below 1 / n can be reached.

    Training data may contain anomalies. Of the top ``suspect_share`` of all scores we use only that they are at least
    as high as the lowest of them, not how high (a censored likelihood), so that a few enormous scores cannot drag the
    threshold up; in a clean sample this costs spread but adds no drift. Raise it to the share of anomalies you expect;
    at 0 each score counts in full, as in the source.

    The shape is kept between -0.5 and 1, and ``words`` says where that bound was met. A rate of ``tail_share`` or more
    lies in front of the tail: the method is then "quantile", as ``method`` and ``words`` say. Fewer than 20 distinct
    scores in the tail are an error, not a reason to fall back.

    Source: Siffer et al., KDD 2017 (SPOT), the start at initialization; the stream that updates it is not part of this.
    Unlike there, the fit is by bounded numerical search with censoring, and the tail starts at .95 instead of .98.
    """
    s = _read_training(scores)
    _check_rate(false_alarm_rate)
    if not 0 <= suspect_share < tail_share / 2 <= 0.25:
        raise SettingsError(
            "tail_share is a share of the scores of at most 0.5, and suspect_share from 0 to less than half of it, but "
            f"got tail_share={tail_share} and suspect_share={suspect_share}."
        )
    if false_alarm_rate >= tail_share:
        body = quantile_threshold(s, false_alarm_rate)
        words = f"{body.words}; a rate of {false_alarm_rate:g} lies in front of the tail of the top {tail_share:g}"
        return Threshold(
            value=body.value, method="quantile", false_alarm_rate=false_alarm_rate, n_scores=s.size, words=words
        )
    start = float(np.quantile(s, 1 - tail_share, method="higher"))
    tail = np.sort(s[s > start]) - start
    n_suspect = int(suspect_share * s.size)
    n_distinct = len(np.unique(tail[: max(0, len(tail) - n_suspect)]))  # ties may leave fewer than the suspects
    if n_distinct < MIN_TAIL:
        raise DataError(
            f"The tail of the top {tail_share:g} of {s.size} training scores holds {n_distinct} distinct scores below "
            f"the top {suspect_share:g}, but fitting its shape takes at least {MIN_TAIL}. "
            "Pass more training scores, raise tail_share, or use quantile_threshold."
        )
    shape, scale = _fit_tail(tail, n_suspect)
    # the chance to exceed start + z is (tail share) * (1 + shape * z / scale) ** (-1 / shape)
    growth = -np.log(false_alarm_rate * s.size / len(tail))
    excess = scale * (growth if abs(shape) < 1e-9 else np.expm1(shape * growth) / shape)
    words = f"a rate of {false_alarm_rate:g} by the tail of {len(tail)} among {s.size} training scores"
    if n_suspect:
        words += f", the top {n_suspect} of unknown height"
    if not SHAPES[0] + 1e-6 < shape < SHAPES[1] - 1e-6:
        words += f"; the shape met its bound of {shape:g}, so judge it with care"
    return Threshold(
        value=start + float(max(excess, 0.0)), method="tail", false_alarm_rate=false_alarm_rate, n_scores=s.size,
        n_tail=len(tail), start=start, shape=shape, scale=scale, words=words,
    )  # fmt: skip


@dataclass(frozen=True)
class Event:
    """A stretch of alarms: steps ``start`` to ``end``, end exclusive, so that it lasts end - start steps."""

    start: int
    end: int
    peak: int  # the step of the highest score, the first where several are equal
    score: float  # the score there
    channels: tuple[str, ...] = ()  # those to blame, the most to blame first


def events(
    prediction: ArrayLike,
    scores: ArrayLike,
    contributions: ArrayLike | None = None,
    channels: Sequence[str] | None = None,
    *,
    merge_gap: int = 0,
    blame_share: float = 0.8,
) -> list[Event]:
    """The alarms [T] of 0 and 1 as a list of events in order of time, with the peak of scores [T] in each.

    Alarms with at most ``merge_gap`` steps between them are one event, the steps between included. With
    ``contributions`` [C, T], what each channel adds to each score, an event names the ``channels`` [C] to blame: as few
    as hold ``blame_share`` of what was added over the event; less than 0 counts as 0. Channels without names are
    numbered "0", "1", ...
    """
    alarm, s = np.asarray(prediction), np.asarray(scores, dtype=np.float64)
    if alarm.ndim != 1 or alarm.shape != s.shape:
        raise ShapeError(
            f"events reads prediction [time] and scores [time] of one length, but got shapes {list(alarm.shape)} and "
            f"{list(s.shape)}."
        )
    if not ((alarm == 0) | (alarm == 1)).all():
        raise DataError("prediction must hold 0 and 1 only. Turn scores into alarms first: threshold.alarms(scores).")
    if np.isnan(s[alarm == 1]).any():
        raise DataError("scores hold NaN at a step of alarm, which has no height. Clear the alarm, or score the step.")
    if not isinstance(merge_gap, Integral) or merge_gap < 0 or not 0 < blame_share <= 1:
        raise SettingsError(
            "merge_gap is a whole number of steps, at least 0, and blame_share a share above 0 and up to 1, but got "
            f"merge_gap={merge_gap} and blame_share={blame_share}."
        )
    blame, names = _read_blame(contributions, channels, s.size)
    starts, ends = runs(alarm == 1)
    if len(starts):
        apart = starts[1:] - ends[:-1] > merge_gap
        starts, ends = starts[np.r_[True, apart]], ends[np.r_[apart, True]]
    found: list[Event] = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        peak = start + int(np.nanargmax(s[start:end]))
        to_blame = _to_blame(blame[:, start:end].sum(axis=1), names, blame_share)
        found.append(Event(start, end, peak, float(s[peak]), to_blame))
    return found


@dataclass(frozen=True, eq=False)
class RobustScale:
    """Median and interquartile range of each channel's training scores, which outliers among them hardly move.

    Where a channel's range is 0 (most of its scores are equal) ``scale`` is the mean distance from the median; where
    that is 0 too (all are equal) it is the median scale of the other channels, or 1 where none has any. ``guarded``
    names these channels by number, so that no substitute goes unseen.
    """

    center: Floats  # [C], units of the scores
    scale: Floats  # [C], units of the scores, above 0
    guarded: tuple[int, ...] = ()

    @classmethod
    def fit(cls, reference: ArrayLike) -> RobustScale:
        """Read training scores [C, R], NaN where a step was not judged."""
        s = np.asarray(reference, dtype=np.float64)
        if s.ndim != 2 or not s.size:
            raise ShapeError(f"reference must be training scores [channel, time], but has shape {list(s.shape)}.")
        if np.isinf(s).any() or np.isnan(s).all(axis=1).any():
            bad = np.flatnonzero(np.isinf(s).any(axis=1) | np.isnan(s).all(axis=1)).tolist()
            raise DataError(f"Training scores of channels {bad} are infinite or all NaN. Leave these channels out.")
        low, center, high = np.nanquantile(s, [0.25, 0.5, 0.75], axis=1)
        rounding = 1e-12 * np.nanmax(np.abs(s), axis=1)  # a range no larger comes from rounding
        scale = high - low
        flat = scale <= rounding
        scale = np.where(flat, np.nanmean(np.abs(s - center[:, None]), axis=1), scale)
        constant = scale <= rounding
        scale[constant] = np.median(scale[~constant]) if not constant.all() else 1.0
        return cls(center, scale, tuple(np.flatnonzero(flat).tolist()))

    def apply(self, scores: ArrayLike) -> Floats:
        """Scores [C, T] as a number of interquartile ranges above the median of their channel."""
        s = np.asarray(scores, dtype=np.float64)
        if s.ndim != 2 or len(s) != len(self.center):
            raise ShapeError(
                f"scores must be [channel={len(self.center)}, time], as the training scores, but have shape "
                f"{list(s.shape)}."
            )
        return (s - self.center[:, None]) / self.scale[:, None]


def _read_training(scores: ArrayLike) -> Floats:
    s = np.asarray(scores, dtype=np.float64)
    if s.ndim != 1 or not s.size:
        raise ShapeError(f"Training scores must be [time] with at least one step, but have shape {list(s.shape)}.")
    if not np.isfinite(s).all():
        raise DataError(
            f"Training scores are NaN or infinite at {(~np.isfinite(s)).sum()} of {s.size} steps. "
            "Leave out the steps that were not judged: scores[np.isfinite(scores)]."
        )
    return s


def _check_rate(false_alarm_rate: float) -> None:
    if not 0 < false_alarm_rate < 1:
        raise SettingsError(
            f"false_alarm_rate is a share of the steps between 0 and 1, such as 0.001, but got {false_alarm_rate}."
        )


def _fit_tail(tail: Floats, n_suspect: int) -> tuple[float, float]:
    """Shape and scale of a generalized Pareto distribution of sorted excesses [n], the highest of unknown height."""
    from scipy.optimize import minimize

    unit = float(np.median(tail))  # the fit is the same in any unit
    known, limit = tail[: len(tail) - n_suspect] / unit, 0.0
    if n_suspect:
        limit = float(tail[len(tail) - n_suspect] / unit)

    def loss(parameters: Floats) -> float:
        shape, log_scale = parameters
        rate = np.exp(-log_scale)
        if 1 + shape * rate * max(float(known[-1]), limit) <= 1e-9:
            return 1e9  # the tail would end before the highest score
        both = np.r_[known, limit] * rate
        hazard = both if abs(shape) < 1e-9 else np.log1p(shape * both) / shape  # -log of the chance to exceed
        return float(len(known) * log_scale + (1 + shape) * hazard[:-1].sum() + n_suspect * hazard[-1]) / len(tail)

    starts = [np.array([shape, np.log(known.mean())]) for shape in (0.05, 0.4)]
    fits = [
        minimize(loss, start, method="Nelder-Mead", bounds=[SHAPES, (-20, 20)], options={"xatol": 1e-7, "fatol": 1e-10})
        for start in starts
    ]
    shape, log_scale = min(fits, key=lambda fit: float(fit.fun)).x
    return float(shape), float(np.exp(log_scale)) * unit


def _read_blame(
    contributions: ArrayLike | None, channels: Sequence[str] | None, n_timepoints: int
) -> tuple[Floats, tuple[str, ...]]:
    if contributions is None:
        return np.zeros((0, n_timepoints)), ()
    blame = np.asarray(contributions, dtype=np.float64)
    if blame.ndim != 2 or blame.shape[1] != n_timepoints:
        raise ShapeError(
            f"contributions must be [channel, time={n_timepoints}], one column for each score, but have shape "
            f"{list(blame.shape)}."
        )
    names = tuple(str(c) for c in range(len(blame))) if channels is None else tuple(channels)
    if len(names) != len(blame):
        raise ShapeError(f"channels holds {len(names)} names, but contributions have {len(blame)} channels.")
    return np.nan_to_num(np.maximum(blame, 0)), names


def _to_blame(totals: Floats, names: tuple[str, ...], share: float) -> tuple[str, ...]:
    """The fewest channels that hold this share of the total, the largest first; equal ones in their own order."""
    if totals.sum() <= 0:
        return ()
    order = np.argsort(-totals, kind="stable")
    held = np.cumsum(totals[order]) / totals.sum()
    n = int(np.searchsorted(held, share - 1e-12)) + 1
    return tuple(names[c] for c in order[:n])
