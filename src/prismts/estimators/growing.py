"""When the rows of a growing series were measured: new ones come later, on the steps of its frequency."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.tseries.frequencies import to_offset
from pandas.tseries.offsets import Tick, Week

from prismts.errors import DataError, SettingsError

__all__ = ["GrowingTimes"]

Times = NDArray[np.datetime64]


class GrowingTimes:
    """The times of the rows so far, which new rows have to follow.

    Args:
        frequency: of the rows, a pandas offset alias: steps that are missing between them count as rows without an
            observation. None lets rows follow each other as they come.
        most: steps that may be missing between two rows.
    """

    def __init__(self, frequency: str | None, most: int) -> None:
        if frequency is not None and not _runs_forward(frequency):
            raise SettingsError(
                f"frequency={frequency!r} is no length of time. Write it as in '15min', 'h', 'D' or 'MS'."
            )
        self.frequency, self.most = frequency, most
        self.times: Times | None = None  # [T] in UTC, or by the clock of their zone
        self._n_rows = 0

    def following(
        self, values: NDArray[np.floating], times: Times | None, frequency: str | None
    ) -> tuple[NDArray[np.floating], Times | None]:
        """New rows [C, n] and their times [n], with the steps that are missing before them; nothing is kept of them.

        ``frequency`` is that of the rows so far, or what new ones told of it.

        Raises:
            DataError: they do not come after those before, lie off their steps, or have times where those had none.
        """
        if self._n_rows and (times is None) != (self.times is None):
            had, has = ("had", "have none") if times is None else ("had none", "have some")
            raise DataError(f"The rows before {had} times, but these {has}. Send all rows of a stream alike.")
        if times is None or not len(times):
            return values, times
        if (np.diff(times) <= np.timedelta64(0)).any():
            raise DataError("The new rows do not come in order of time. Sort them.")
        if self.times is None:
            return values, times
        last = self.times[-1]
        if times[0] <= last:
            raise DataError(
                f"The new rows begin at {pd.Timestamp(times[0])}, but the stream already reaches {pd.Timestamp(last)}. "
                "Send rows once, in order of time."
            )
        if frequency is None:
            return values, times
        missing = self._between(frequency, last, times[0])
        empty = np.full((len(values), len(missing)), np.nan, dtype=values.dtype)
        return np.concatenate([empty, values], axis=1), np.concatenate([missing, times])

    def keep(self, n_rows: int, times: Times | None, frequency: str | None) -> None:
        """Keep rows that ``following`` gave as those that the next ones follow."""
        self.frequency = frequency
        self._n_rows += n_rows
        if times is not None and n_rows:
            self.times = times if self.times is None else np.concatenate([self.times, times])

    def _between(self, frequency: str, last: np.datetime64, following: np.datetime64) -> Times:
        """The times of the steps between two rows."""
        offset, away = to_offset(frequency), following - last
        week = np.timedelta64(7, "D") * offset.n  # whatever its name says, a week begins on the day of the data
        step = (
            week
            if isinstance(offset, Week)
            else np.timedelta64(offset.nanos, "ns")
            if isinstance(offset, Tick)
            else None
        )
        begin, end = pd.Timestamp(last), pd.Timestamp(following)
        if step is not None and away // step > self.most:
            raise DataError(
                f"Between {begin} and the new rows more than {self.most:,} steps of {frequency} are missing. "
                "Open a new stream."
            )
        steps = pd.date_range(begin, end, freq=offset if step is None else pd.Timedelta(step)).to_numpy()
        if not len(steps) or steps[0] != last or steps[-1] != following:
            raise DataError(
                f"The new rows begin at {end}, which is no whole number of steps of {frequency} after {begin}."
            )
        return steps[1:-1]


def _runs_forward(frequency: str) -> bool:
    try:
        return to_offset(frequency).n > 0
    except ValueError:
        return False
