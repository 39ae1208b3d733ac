"""Volume under the surface: how well scores rank anomalies, when a few steps around their borders are forgiven.

The labels are widened by ramps of growing length, and for each length the area under the precision-recall curve
(VUS-PR) or under the ROC curve (VUS-ROC) is taken; the volume is the mean of the areas.
Source: Paparrizos et al., VLDB 2022, doi 10.14778/3551793.3551830.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prismts.errors import DataError, SettingsError, ShapeError
from prismts.evaluation.detection_input import Flags, read_labels, read_scores, runs

__all__ = ["DEFAULT_BUFFER", "NO_PERIOD_BUFFER", "Variant", "Volumes", "vus", "vus_pr", "vus_roc", "vus_buffer",
           "median_anomaly_length"]  # fmt: skip

Variant = Literal["aeon", "tsb-ad"]
DEFAULT_BUFFER = 100  # steps; what TSB-AD's get_metrics takes where no window is given
NO_PERIOD_BUFFER = 125  # steps; what TSB-AD takes for a series without a period of 6 to 303 steps
FAR = np.iinfo(np.int64).max // 4  # steps to an event that is not there


class Volumes(NamedTuple):
    """VUS-PR and VUS-ROC, which come from one surface and cost no more together than apart; higher is better."""

    pr: float
    roc: float


def vus(
    labels: ArrayLike,
    scores: ArrayLike,
    buffer: int = DEFAULT_BUFFER,
    *,
    n_thresholds: int | None = None,
    variant: Variant = "tsb-ad",
) -> Volumes:
    """VUS-PR and VUS-ROC of scores [T] against labels [T] of 0 and 1, over all buffers of 0, 1, ..., ``buffer`` steps.

    A buffer of b adds to each event a ramp of b // 2 steps on either side, worth sqrt(1 - distance / b). Recall is
    multiplied by the share of (widened) events in which any step is found. Choose ``buffer`` by ``vus_buffer``.

    A step enters the count at the first threshold its score reaches, so that one cumulative sum per buffer gives all
    thresholds: hundreds of times faster than aeon, and each distinct score can be a threshold, as is the default.

    ``variant="tsb-ad"``, the default, is the definition behind the public leaderboard: ramps of equal length, precision
    in steps instead of straight lines, and recall relative to events and to that part of the ramps that was found
    (TSB-AD, ``RangeAUC_volume_opt``; there 250 thresholds). With ``variant="aeon"`` and ``n_thresholds=250`` the
    numbers equal aeon's ``range_pr_vus_score`` and ``range_roc_vus_score``. A table says which variant it holds.
    Traits to know:

    - 250 thresholds are scores evenly spaced in rank. In 50,000 steps the second of them is already the 200th highest
      score, so the order among the top 200 does not count, which is where short events are decided. All distinct scores
      take two to three times as long.
    - aeon's ramp after an event is one step shorter than the ramp before it.
    - aeon's precision-recall curve begins at precision 1 and is joined by straight lines, which flatters scores with
      many ties: where most steps share the highest score, VUS-PR comes near .5 however bad that score is.
    - Scores that never change get 0 in both volumes (by chance alone ROC would be .5), in both variants.

    Source: Paparrizos et al., VLDB 2022; Liu and Paparrizos, NeurIPS 2024 (TSB-AD).
    """
    truth = read_labels(labels, needs_normal=True)
    s = read_scores(scores, truth.size)
    if variant not in ("aeon", "tsb-ad"):
        raise SettingsError(f"variant is 'aeon' or 'tsb-ad', but got {variant!r}.")
    if buffer < 0:
        raise SettingsError(f"buffer is a number of steps, at least 0 (no ramp), but got {buffer}.")
    if n_thresholds is not None and n_thresholds < 2:
        raise SettingsError(f"n_thresholds is at least 2, or None for every distinct score, but got {n_thresholds}.")
    if s.min() == s.max():
        return Volumes(0.0, 0.0)
    thresholds, n_flagged = _thresholds(s, n_thresholds)  # both [K], from the highest threshold to the lowest
    level = np.searchsorted(-thresholds, -s)  # [T], the first threshold at which the step is flagged
    n_levels = len(thresholds)
    n_true = int(truth.sum())
    true_flagged = np.cumsum(np.bincount(level[truth], minlength=n_levels)).astype(np.float64)  # [K]
    late_by = 1 if variant == "aeon" else 0  # steps by which aeon's ramp after an event is shorter than before it
    ramps = _Ramps.around(truth, level, reach=buffer // 2, late_by=late_by)

    areas = np.empty((buffer + 1, 2))
    found = np.empty(0)
    for b in range(buffer + 1):
        if b % 2 == 0:
            found = _share_of_events_found(truth, level, n_levels, b // 2, late_by)  # [K]
        ramp_flagged, ramp_total = ramps.at(b, n_levels)
        flagged = true_flagged + ramp_flagged
        wanted = n_true + (ramp_total if variant == "aeon" else ramp_flagged) / 2
        recall = np.minimum(flagged / wanted, 1) * found
        false_rate = np.minimum((n_flagged - flagged) / (truth.size - wanted), 1)
        precision = flagged / n_flagged
        areas[b] = _pr_area(recall, precision, steps=variant == "tsb-ad"), _roc_area(recall, false_rate)
    pr, roc = areas.mean(axis=0)
    return Volumes(float(pr), float(roc))


def vus_pr(
    labels: ArrayLike,
    scores: ArrayLike,
    buffer: int = DEFAULT_BUFFER,
    *,
    n_thresholds: int | None = None,
    variant: Variant = "tsb-ad",
) -> float:
    """VUS-PR alone, 0 to 1, higher is better; see ``vus``. The headline of our tables."""
    return vus(labels, scores, buffer, n_thresholds=n_thresholds, variant=variant).pr


def vus_roc(
    labels: ArrayLike,
    scores: ArrayLike,
    buffer: int = DEFAULT_BUFFER,
    *,
    n_thresholds: int | None = None,
    variant: Variant = "tsb-ad",
) -> float:
    """VUS-ROC alone, 0 to 1, higher is better; see ``vus``. Rare anomalies make it look better than VUS-PR does."""
    return vus(labels, scores, buffer, n_thresholds=n_thresholds, variant=variant).roc


def vus_buffer(values: ArrayLike) -> int:
    """The largest buffer for ``vus``, in steps: the dominant period of the series, as in TSB-AD.

    ``values`` [T] or [C, T], in any unit, NaN where not observed. The period is the highest local maximum of the
    autocorrelation of the first 20,000 steps at lags from 3 to 400; NO_PERIOD_BUFFER=125 where there is none, or none
    between 6 and 303. We prefer it to the median anomaly length (aeon's default for a single buffer), since the period
    is known without labels and the same for every method, and labelled segments may last thousands of steps.

    Source: ``find_length_rank`` of TSB-AD (Liu and Paparrizos, NeurIPS 2024). Unlike there, several channels are judged
    by the mean of their autocorrelations and not by the first channel, which may be constant.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim not in (1, 2) or x.shape[-1] < 2:
        raise ShapeError(f"vus_buffer reads [time] or [channel, time] of two steps or more, but got {list(x.shape)}.")
    if np.isinf(x).any():
        raise DataError("values hold an infinite number. Replace it by a number, or by NaN to say it was not observed.")
    x = np.atleast_2d(x)[:, :20_000]
    n_observed = np.maximum((~np.isnan(x)).sum(axis=-1, keepdims=True), 1)
    mean = np.nansum(x, axis=-1, keepdims=True) / n_observed
    x = np.where(np.isnan(x), 0.0, x - mean)  # what was not observed counts as the mean
    x = x[(x**2).mean(axis=-1) > (1e-12 * np.abs(mean[:, 0])) ** 2]  # constant channels have no period
    if not len(x):
        return NO_PERIOD_BUFFER
    n_lags = min(400, x.shape[-1] - 1)
    power = np.abs(np.fft.rfft(x, n=2 * x.shape[-1])) ** 2  # twice the length, so that the end does not meet the start
    correlation = np.fft.irfft(power)[:, 3 : n_lags + 1]
    correlation = (correlation / (x**2).sum(axis=-1, keepdims=True)).mean(axis=0)  # [lags 3...]
    inner = correlation[1:-1]
    peaks = np.flatnonzero((inner > correlation[:-2]) & (inner > correlation[2:])) + 1
    if not len(peaks):
        return NO_PERIOD_BUFFER
    best = int(peaks[correlation[peaks].argmax()])
    return best + 3 if 3 <= best <= 300 else NO_PERIOD_BUFFER


def median_anomaly_length(labels: ArrayLike) -> int:
    """Median length of the labelled events in steps, rounded down: the other usual buffer, aeon's for a single area."""
    starts, ends = runs(read_labels(labels))
    return int(np.median(ends - starts))


def _thresholds(s: NDArray[np.float64], n: int | None) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Thresholds from high to low, and how many steps score at least as much."""
    if n is None:
        thresholds, counts = np.unique(-s, return_counts=True)
        return -thresholds, np.cumsum(counts)
    falling = -np.sort(-s)
    thresholds = falling[np.linspace(0, s.size - 1, n, dtype=np.int64)]  # as in aeon and TSB-AD
    return thresholds, np.searchsorted(-falling, -thresholds, side="right")


class _Ramps(NamedTuple):
    """The steps outside events that some ramp reaches, sorted by the length at which the first ramp reaches them."""

    level: NDArray[np.int64]  # [M], first threshold at which the step is flagged
    distance: NDArray[np.int64]  # [M], steps to the event whose ramp comes first
    first: NDArray[np.int64]  # [M], ramp length from which one ramp covers the step
    second: NDArray[np.int64]  # [M], ramp length from which two do

    @staticmethod
    def around(truth: Flags, level: NDArray[np.int64], reach: int, late_by: int) -> _Ramps:
        """``late_by``: by how many steps ramps after an event are shorter than those before it."""
        starts, ends = runs(truth)
        steps = np.flatnonzero(~truth)
        k = np.searchsorted(starts, steps)  # events k-2, k-1 lie before the step, k and k+1 after it
        starts, ends = np.r_[starts, FAR, FAR], np.r_[-FAR, -FAR, ends]  # so ends[k + 1] belongs to event k - 1
        distance = np.stack([steps - ends[k + 1] + 1, starts[k] - steps, steps - ends[k] + 1, starts[k + 1] - steps])
        length = distance + np.array([late_by, 0, late_by, 0])[:, None]
        nearest = length[:2].argmin(axis=0)
        first, second = np.partition(length, 1, axis=0)[:2]
        order = np.argsort(first, kind="stable")
        order = order[: np.searchsorted(first[order], reach, side="right")]
        distance = distance[nearest, np.arange(len(steps))]
        return _Ramps(level[steps[order]], distance[order], first[order], second[order])

    def at(self, buffer: int, n_levels: int) -> tuple[NDArray[np.float64], float]:
        """What the ramps of this buffer are worth: the flagged part per threshold [K], and all of it."""
        n = int(np.searchsorted(self.first, buffer // 2, side="right"))
        worth = np.sqrt(1 - self.distance[:n] / max(buffer, 1))
        worth[self.second[:n] <= buffer // 2] = 1  # two ramps, each of sqrt(1/2) or more, add up to more than 1
        flagged = np.bincount(self.level[:n], weights=worth, minlength=n_levels).astype(np.float64)
        return np.cumsum(flagged), float(worth.sum())


def _share_of_events_found(
    truth: Flags, level: NDArray[np.int64], n_levels: int, widened_by: int, late_by: int
) -> NDArray[np.float64]:
    """Share of widened events with any flagged step, per threshold [K]; events whose ramps meet are one."""
    starts, ends = runs(truth)
    starts = np.maximum(starts - widened_by, 0)
    ends = np.minimum(ends + max(widened_by - late_by, 0), truth.size)
    apart = starts[1:] >= ends[:-1] + late_by  # aeon: ramps side by side are one event; TSB-AD: two
    starts, ends = starts[np.r_[True, apart]], ends[np.r_[apart, True]]
    borders = np.stack([starts, ends], axis=1).ravel()
    first = np.minimum.reduceat(np.r_[level, n_levels], borders)[::2]  # every other part lies between two events
    return np.cumsum(np.bincount(first, minlength=n_levels)) / len(starts)


def _pr_area(recall: NDArray[np.float64], precision: NDArray[np.float64], *, steps: bool) -> float:
    before = np.r_[1.0, precision[:-1]]
    height = precision if steps else (precision + before) / 2
    return float(np.diff(recall, prepend=0.0) @ height)


def _roc_area(recall: NDArray[np.float64], false_rate: NDArray[np.float64]) -> float:
    y = np.r_[0.0, recall, 1.0]
    return float(np.diff(np.r_[0.0, false_rate, 1.0]) @ (y[1:] + y[:-1]) / 2)
