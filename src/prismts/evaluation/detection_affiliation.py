"""Affiliation: how near alarms lie to events, in time, against what alarms thrown at random would reach."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prismts.evaluation.detection_f1 import best_over_thresholds, harmonic_mean
from prismts.evaluation.detection_input import read_labels, read_prediction, runs

__all__ = ["Affiliation", "affiliation", "affiliation_f1", "best_affiliation_f1"]

Times = NDArray[np.float64]


@dataclass(frozen=True)
class Affiliation:
    """Affiliation precision and recall, 0 to 1, higher is better; precision is NaN where no alarm was raised."""

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """Their harmonic mean, 0 where no alarm was raised."""
        return 0.0 if np.isnan(self.precision) else harmonic_mean(self.precision, self.recall)


def affiliation(labels: ArrayLike, prediction: ArrayLike) -> Affiliation:
    """Precision and recall by distance in time, for labels [T] and alarms [T] of 0 and 1.

    Time is cut half way between events into one zone per event. In a zone of length Z, an alarm at distance d from the
    event is worth the chance that a point thrown into the zone at random lies at least as far away, and 1 inside the
    event: precision is the mean worth over the alarmed time. A moment of the event at distance d from the nearest alarm
    of the zone is worth the chance that one random point lies at least that far from it: recall is the mean over the
    event, 0 without an alarm. Both are averaged over zones, precision over zones with an alarm only. Step t is the
    interval from t to t + 1, and all integrals are exact. No unit and no setting: repeating each step k times changes
    nothing.

    Mere chance gives about .5 to .7 (published tables hold .8 to .9 for every method), so read it beside another score.
    Source: Huet, Navarro and Rossi, KDD 2022, arXiv 2206.13167.
    """
    truth = read_labels(labels)
    alarm = read_prediction(prediction, truth.size)
    if not alarm.any():
        return Affiliation(float("nan"), 0.0)
    starts, ends = (border.astype(np.float64) for border in runs(truth))
    cuts = (ends[:-1] + starts[1:]) / 2
    zones = _Zones(starts, ends, np.r_[0.0, cuts], np.r_[cuts, float(truth.size)])
    alarm_starts, alarm_ends = (border.astype(np.float64) for border in runs(alarm))
    first, last = _cut(alarm_starts, alarm_ends, zones.left)  # an alarm that reaches into two zones is two
    return Affiliation(_precision(zones, first, last), _recall(zones, first, last))


def affiliation_f1(labels: ArrayLike, prediction: ArrayLike) -> float:
    """Harmonic mean of ``affiliation`` precision and recall, 0 where no alarm was raised."""
    return affiliation(labels, prediction).f1


def best_affiliation_f1(labels: ArrayLike, scores: ArrayLike) -> float:
    """The highest ``affiliation_f1`` over the thresholds of ``best_over_thresholds``."""
    return best_over_thresholds(labels, scores, affiliation_f1)


@dataclass(frozen=True, eq=False)
class _Zones:
    """Events [n] and the zones [n] around them, in steps from the start of the series."""

    start: Times
    end: Times
    left: Times
    right: Times

    def of(self, time: Times) -> NDArray[np.int64]:
        """The zone in which each moment lies."""
        return np.searchsorted(self.left, time, side="right") - 1


def _precision(zones: _Zones, first: Times, last: Times) -> float:
    """Mean worth of the alarmed time, averaged over zones with an alarm."""
    before, after = zones.start - zones.left, zones.right - zones.end  # [n], room on either side of the event
    # between these moments every worth is a straight line
    kinks = np.r_[zones.start, zones.end, zones.start - after, zones.end + before]
    at, width = _pieces(first, last, kinks)
    zone = zones.of(at)
    distance = np.maximum(np.maximum(zones.start[zone] - at, at - zones.end[zone]), 0)
    farther = np.maximum(before[zone] - distance, 0) + np.maximum(after[zone] - distance, 0)
    worth = np.where(distance > 0, farther / (zones.right - zones.left)[zone], 1.0)
    n_zones = len(zones.start)
    alarmed = np.bincount(zone, weights=width, minlength=n_zones)
    total = np.bincount(zone, weights=width * worth, minlength=n_zones)
    return float((total[alarmed > 0] / alarmed[alarmed > 0]).mean())


def _recall(zones: _Zones, first: Times, last: Times) -> float:
    """Mean worth of the time within events, averaged over all zones."""
    zone_of_alarm = zones.of((first + last) / 2)
    kinks = np.r_[
        first, last, (last[:-1] + first[1:]) / 2,  # where another alarm becomes the nearest
        (zones.left[zone_of_alarm] + first) / 2, (zones.right[zone_of_alarm] + last) / 2,  # where a zone's end is met
    ]  # fmt: skip
    at, width = _pieces(zones.start, zones.end, kinks)
    zone = zones.of(at)
    left, right = zones.left[zone], zones.right[zone]
    k = np.searchsorted(first, at)  # alarm k - 1 begins before the moment, alarm k after it
    since = at - np.r_[-np.inf, last][k]  # below 0 within an alarm
    until = np.r_[first, np.inf][k] - at
    since = np.where(np.r_[-1, zone_of_alarm][k] == zone, np.maximum(since, 0), np.inf)
    until = np.where(np.r_[zone_of_alarm, -1][k] == zone, until, np.inf)
    distance = np.minimum(since, until)
    farther = np.maximum(at - distance - left, 0) + np.maximum(right - at - distance, 0)
    total = np.bincount(zone, weights=width * farther / (right - left), minlength=len(zones.start))
    return float((total / (zones.end - zones.start)).mean())


def _pieces(starts: Times, ends: Times, kinks: Times) -> tuple[Times, Times]:
    """Middle and width of the pieces into which ``kinks`` cut the intervals.

    On a piece where a function is a straight line, its value at the middle times the width is its exact integral.
    """
    first, last = _cut(starts, ends, kinks)
    return (first + last) / 2, last - first


def _cut(starts: Times, ends: Times, at: Times) -> tuple[Times, Times]:
    """Disjoint intervals in order, cut at given moments: first and last moment of each part."""
    edges = np.unique(np.r_[starts, ends, at])
    middle = (edges[1:] + edges[:-1]) / 2
    inside = np.searchsorted(starts, middle) > np.searchsorted(ends, middle)
    return edges[:-1][inside], edges[1:][inside]
