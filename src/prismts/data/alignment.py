"""How far the days of one channel look alike, and by how much they slide: Phase-Drift and SPAI.

Both compare each full day with the next full day that follows it. They stand in ``data`` because ``data.profile`` needs
them; ``analysis.alignment`` offers the same names to those who look for a diagnostic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prismts.errors import DataError, ShapeError

__all__ = ["DayLags", "FullDays", "day_lags", "full_days", "phase_drift", "spai"]

_DAY = np.timedelta64(1, "D").astype("timedelta64[ns]").astype(np.int64)
_TIE = 1e-9  # correlations closer than this are equal but for rounding


@dataclass(frozen=True, eq=False)
class FullDays:
    """Which steps of a series make up the calendar dates that have a full day of samples."""

    dates: NDArray[np.datetime64]  # [n], rising
    steps: NDArray[np.int64]  # [n, P], the steps of each date in the order of the series

    @property
    def samples_per_day(self) -> int:
        """P."""
        return self.steps.shape[1]


@dataclass(frozen=True, eq=False)
class DayLags:
    """How each kept day compares with the kept day before it; the first day has none before it."""

    dates: NDArray[np.datetime64]  # [n-1], of the later day of each pair
    lags: NDArray[np.int64]  # [n-1], steps by which the later day comes later (above 0) or sooner
    similarity: NDArray[np.float64]  # [n-1], the correlation at that lag, 0 to 1
    samples_per_day: int  # P

    @property
    def phase_drift(self) -> float:
        """Median size of the lags, as a fraction of a day."""
        return float(np.median(np.abs(self.lags)) / self.samples_per_day)

    @property
    def spai(self) -> float:
        """Mean similarity."""
        return float(self.similarity.mean())


def phase_drift(values: ArrayLike, timestamps: ArrayLike) -> float:
    """By what fraction of a day the daily shape typically slides from one day to the next: 0 (never) to 0.5.

    The median over pairs of neighboring full days of the size of the lag at which they agree best, divided by the
    samples of a day. values [T] in any unit, timestamps [T]; :func:`day_lags` tells how days, gaps and NaN are treated.
    Source: the Phase-Drift of the CNN-GRU cross learner's slides, formula recovered from their table.
    """
    return day_lags(values, timestamps).phase_drift


def spai(values: ArrayLike, timestamps: ArrayLike) -> float:
    """How well neighboring days agree once slid onto each other: 0 (not at all) to 1 (one shape every day).

    The mean over pairs of neighboring full days of their largest circular correlation; the size of a day's swing does
    not count, only its shape. values [T] in any unit, timestamps [T]; :func:`day_lags` tells how days, gaps and NaN
    are treated. Source: the SPAI of the CNN-GRU cross learner's slides, formula recovered from their table.
    """
    return day_lags(values, timestamps).spai


def day_lags(values: ArrayLike, timestamps: ArrayLike, days: FullDays | None = None) -> DayLags:
    """Compare each full day of one channel [T] with the one before it.

    A calendar date counts if it has a full day of samples, that is, as many as the most common step puts into a day.
    Each day's mean is taken away; two neighboring kept days are compared by their circular cross-correlation, divided
    by the product of their norms. A day that never moves has correlation 0 at lag 0. Days on both sides of a date that
    was left out are neighbors too. Of lags that fit equally well the shortest is taken.

    NaN means not observed: a date with any NaN is no full day and is left out; nothing is filled. The slides' 0.7675 of
    Weather was measured with the file's -9999 still in place as if they were measurements; without those two dates
    it is 0.7702.

    Args:
        values: [T] in any unit.
        timestamps: [T] datetime64 or what numpy can read as such, one step apart as a rule.
        days: what :func:`full_days` says of these timestamps, where many channels share them.

    Raises:
        DataError: if steps are no shorter than a day, do not divide a day, or fewer than two full days were observed.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1:
        raise ShapeError(f"Alignment is measured on one channel [time], but values have shape {list(x.shape)}.")
    if days is None:
        days = full_days(timestamps)
    if (n := np.size(timestamps)) != len(x):
        raise ShapeError(f"values have {len(x)} steps, but timestamps {n}. Each step needs its time.")
    shapes = x[days.steps]  # [n, P]
    observed = ~np.isnan(shapes).any(axis=1)
    shapes, dates = shapes[observed], days.dates[observed]
    if len(shapes) < 2:
        raise DataError(
            f"Alignment compares neighboring full days, but only {len(shapes)} of {len(days.dates)} dates with "
            f"{days.samples_per_day} samples are observed throughout. Pass a longer series, or fill its gaps first."
        )
    level = shapes.mean(axis=1, keepdims=True)
    spread = shapes - level
    norm = np.linalg.norm(spread, axis=1)
    flat = norm <= 1e-12 * np.abs(level[:, 0]) * np.sqrt(days.samples_per_day)  # nothing but rounding is left
    unit = np.where(flat[:, None], 0.0, spread / np.where(flat, 1.0, norm)[:, None])
    spectrum = np.fft.rfft(unit)
    r = np.fft.irfft(spectrum[1:] * spectrum[:-1].conj(), n=days.samples_per_day)  # [n-1, P], at lags 0 to P-1
    lag = np.arange(days.samples_per_day)
    lag = np.where(lag > days.samples_per_day // 2, lag - days.samples_per_day, lag)
    by_size = np.argsort(np.abs(lag), kind="stable")
    best = r.max(axis=1, keepdims=True)
    first = (r[:, by_size] >= best - _TIE).argmax(axis=1)
    compared = ~(flat[1:] | flat[:-1])
    lags = np.where(compared, lag[by_size][first], 0)
    similarity = np.where(compared, best[:, 0].clip(0.0, 1.0), 0.0)
    return DayLags(dates[1:], lags, similarity, days.samples_per_day)


def full_days(timestamps: ArrayLike) -> FullDays:
    """The calendar dates of timestamps [T] that have a full day of samples, whatever their order in the file.

    Raises:
        DataError: if there are no times, or their most common step is no whole fraction of a day.
    """
    times = np.asarray(timestamps).astype("datetime64[ns]")
    if times.ndim != 1 or len(times) < 2:
        raise DataError(f"Alignment needs the times [time] of at least two steps, but got shape {list(times.shape)}.")
    sizes, counts = np.unique(np.diff(times).astype(np.int64), return_counts=True)
    step = int(sizes[counts.argmax()])
    if step <= 0 or step >= _DAY or _DAY % step:
        raise DataError(
            f"Alignment compares days, so the step must be a whole fraction of a day such as 10min or h, but the most "
            f"common step is {np.timedelta64(step, 'ns').astype('timedelta64[us]').item()}."
        )
    samples = int(_DAY // step)
    dates, owner, n = np.unique(times.astype("datetime64[D]"), return_inverse=True, return_counts=True)
    order = np.argsort(owner, kind="stable")
    full = n == samples
    begins = (np.cumsum(n) - n)[full]
    return FullDays(dates[full], order[begins[:, None] + np.arange(samples)])
