"""The regular grid that times lie on: a fixed step, or a calendar's months, quarters, years or business days."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.tseries.frequencies import to_offset
from pandas.tseries.offsets import Week

from prismts.errors import SettingsError

__all__ = ["Grid", "alike", "first_days", "infer_grid", "lies_on", "named_grid"]

_DAY = 86_400_000_000_000  # nanoseconds
_HOUR, _MINUTE = _DAY // 24, _DAY // 1440
_UNITS = (("D", _DAY), ("h", _HOUR), ("min", _MINUTE), ("s", 10**9), ("ms", 10**6), ("us", 1000), ("ns", 1))
_WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the steps of a regular series lie: ``step`` ticks apart, or at ``points``."""

    alias: str | None  # pandas offset alias; None where the ticks are no times
    step: int = 1
    points: NDArray[np.int64] | None = None

    def nearest(
        self, ticks: NDArray[np.int64], origin: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Position [n] of the grid step next to each tick, and how far behind that step the tick lies.

        A grid of fixed steps has a step at ``origin``, which each series may have elsewhere.
        """
        if self.points is None:
            place = (ticks - origin + self.step // 2) // self.step
            return place, ticks - origin - place * self.step
        right = np.searchsorted(self.points, ticks).clip(1, len(self.points) - 1)
        place = right - (ticks - self.points[right - 1] < self.points[right] - ticks)
        return place, ticks - self.points[place]

    def at(self, place: NDArray[np.int64], origin: NDArray[np.int64]) -> NDArray[np.int64]:
        """The ticks of positions on the grid."""
        return origin + place * self.step if self.points is None else self.points[place]


def infer_grid(ticks: NDArray[np.int64], same: NDArray[np.bool_], clock: bool) -> Grid | None:
    """The grid of the most common step, as a calendar's where every tick fits it; None where there is no step.

    ticks: [n] in order within each series; same: [n-1], whether a row and the next are of one series.
    """
    steps = np.diff(ticks)[same]
    if not steps.size:
        return None
    sizes, counts = np.unique(steps, return_counts=True)
    step = int(sizes[counts.argmax()])
    if not clock:
        return Grid(None, step)
    for alias in _calendar_candidates(ticks, steps, step):
        grid = _calendar_grid(alias, ticks)
        if not grid.nearest(ticks, ticks)[1].any():
            return grid
    return Grid(_alias(step, ticks), step)


def named_grid(frequency: str, ticks: NDArray[np.int64]) -> Grid:
    """The grid of a pandas offset alias. Weeks start on the day of the data, whatever the alias says."""
    try:
        offset = to_offset(frequency)
    except (TypeError, ValueError) as error:
        raise SettingsError(
            f"frequency={frequency!r} is not a pandas offset alias. Examples: 's', '15min', 'h', 'D', 'B', 'W', 'MS', "
            "'ME', 'QS', 'YS'."
        ) from error
    if offset.n <= 0:
        raise SettingsError(f"frequency={frequency!r} does not run forward. Give a length above 0, such as 'h'.")
    if isinstance(offset, Week):
        step = 7 * _DAY * offset.n
        return Grid(_alias(step, ticks), step)
    try:
        return Grid(offset.freqstr, int(offset.nanos))
    except ValueError:  # no fixed length
        return _calendar_grid(offset.freqstr, ticks)


def lies_on(frequency: str, timestamps: NDArray[np.datetime64], offsets: NDArray[np.int64]) -> bool:
    """Whether the times of every series, from one of the offsets to the next, are all steps of a frequency, gapless."""
    ticks = timestamps.astype("datetime64[ns]").astype(np.int64)
    if not ticks.size:
        return True
    lengths = np.diff(offsets)
    origin = np.repeat(ticks[np.minimum(offsets[:-1], len(ticks) - 1)], lengths)
    place, moved = named_grid(frequency, ticks).nearest(ticks, origin)
    same = np.diff(np.repeat(np.arange(len(lengths)), lengths)) == 0
    return not moved.any() and bool((np.diff(place)[same] == 1).all())


def alike(one: str, other: str) -> bool:
    """Whether the steps of two frequencies are about as long: starts and ends of months are, days and weekdays not."""
    spans = [pd.date_range("2024-01-01", periods=13, freq=frequency) for frequency in (one, other)]
    first, second = ((span[-1] - span[0]) / pd.Timedelta(1, "ns") for span in spans)
    return abs(first - second) < 0.1 * min(first, second)


def _calendar_candidates(ticks: NDArray[np.int64], steps: NDArray[np.int64], step: int) -> list[str]:
    days, rest = divmod(step, _DAY)
    if rest:
        return []
    if days == 1:
        weekday = (ticks // _DAY + 3) % 7  # 1970 began on a Thursday
        return ["B"] if weekday.max() < 5 and (steps == 3 * _DAY).any() else []
    if 13 <= days <= 16:
        return ["SMS-15", "SME-15"]
    if 28 <= days <= 31:
        return ["MS", "ME", "BMS", "BME"]
    if 89 <= days <= 93:
        return [f"{kind}-{month}" for kind in ("QS", "QE", "BQS", "BQE") for month in _MONTHS[:3]]
    if 364 <= days <= 367:
        return [f"{kind}-{month}" for kind in ("YS", "YE", "BYS", "BYE") for month in _MONTHS]
    months = next((n for n in (2, 4, 6) if 29.5 * n - 1 <= days <= 30.7 * n + 1), None)
    return [] if months is None else [f"{months}MS", f"{months}ME"]


def first_days(ticks: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """The first days of the months in which the times stand, at their time of day; None where that would mix days up.

    All have to stand on one day of the month, or on the last one of a month that is shorter, and none on the first.
    ticks: [n].
    """
    days, rest = np.divmod(ticks, _DAY)
    if (rest != rest[0]).any():
        return None
    month = days.astype("datetime64[D]").astype("datetime64[M]")
    day = days - month.astype("datetime64[D]").astype(np.int64)  # [n], counted from 0
    length = (month + 1).astype("datetime64[D]").astype(np.int64) - days + day
    if not day.max() or (day != np.minimum(day.max(), length - 1)).any():
        return None
    return ticks - day * _DAY


def _calendar_grid(alias: str, ticks: NDArray[np.int64]) -> Grid:
    offset = to_offset(alias)
    points = pd.date_range(pd.Timestamp(ticks.min()) - offset, pd.Timestamp(ticks.max()) + offset, freq=offset)
    return Grid(alias, points=points.as_unit("ns").to_numpy().astype(np.int64))


def _alias(step: int, ticks: NDArray[np.int64]) -> str:
    if step == 7 * _DAY:
        weekday = np.unique((ticks // _DAY + 3) % 7)
        if weekday.size == 1:
            return f"W-{_WEEKDAYS[weekday[0]]}"
    unit, length = next((unit, length) for unit, length in _UNITS if step % length == 0)
    n = step // length
    return unit if n == 1 else f"{n}{unit}"
