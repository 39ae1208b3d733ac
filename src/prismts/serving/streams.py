"""Series that grow: one session for each, bounded in number, in length and in idle time."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.tseries.frequencies import to_offset
from pandas.tseries.offsets import Tick, Week

from prismts.data.series import Collection, Series
from prismts.data.tables import TableKind
from prismts.errors import DataError, SettingsError
from prismts.estimators.match import reordered
from prismts.serving.batching import Worker
from prismts.serving.refusals import Refused

__all__ = ["Session", "Streams"]


class Session:
    """One growing series: what it held so far, when, and its scores. Use it under its ``lock``."""

    def __init__(self, worker: Worker, stream: Any, frequency: str | None, max_rows: int, now: float) -> None:
        if frequency is not None and not _runs_forward(frequency):
            raise SettingsError(
                f"frequency={frequency!r} is no length of time. Write it as in '15min', 'h', 'D' or 'MS'."
            )
        self.id = secrets.token_urlsafe(16)
        self.worker, self.stream, self.frequency, self.max_rows = worker, stream, frequency, max_rows
        self.lock, self.used = asyncio.Lock(), now
        self.times: NDArray[np.datetime64] | None = None  # [T] in UTC, or by the clock of their zone
        self.kind: TableKind | None = None  # how the last rows told their times
        self._precision = _precision(worker.engine.facts.levels)

    def __len__(self) -> int:
        return len(self.stream)

    def aligned(self, rows: Series) -> tuple[NDArray[np.float64], NDArray[np.datetime64] | None]:
        """New rows [C, n] in the order of the model, with the steps that are missing before them, and their times.

        Raises:
            DataError: they do not come after those before, or the stream would grow too long.
        """
        facts = self.worker.engine.facts
        values = reordered(Collection.of(rows), facts.channels, "detection").values
        times = rows.timestamps
        if len(self) and (times is None) != (self.times is None):
            had, has = ("had", "have none") if times is None else ("had none", "have some")
            raise DataError(f"The rows before {had} times, but these {has}. Send all rows of a stream alike.")
        if times is not None:
            values, times = self._after_the_last(values, times)
        if len(self) + values.shape[1] > self.max_rows:
            raise DataError(
                f"With these rows the stream would hold {len(self) + values.shape[1]:,}, but one may hold "
                f"{self.max_rows:,}. DELETE it, and open another one with the last rows."
            )
        return values.astype(self._precision).astype(np.float64), times

    def update(self, values: NDArray[np.float64], times: NDArray[np.datetime64] | None) -> int:
        """Score rows that were aligned; the first step whose score is new or may have changed."""
        first = self.stream.n_final
        self.stream.update(values)
        if times is not None:
            self.times = times if self.times is None else np.concatenate([self.times, times])
        return first

    def _after_the_last(
        self, values: NDArray[np.floating], times: NDArray[np.datetime64]
    ) -> tuple[NDArray[np.floating], NDArray[np.datetime64]]:
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
        if self.frequency is None:
            return values, times
        missing = self._between(last, times[0])
        empty = np.full((len(values), len(missing)), np.nan, dtype=values.dtype)
        return np.concatenate([empty, values], axis=1), np.concatenate([missing, times])

    def _between(self, last: np.datetime64, following: np.datetime64) -> NDArray[np.datetime64]:
        """The times of the steps between two rows."""
        assert self.frequency is not None
        offset, away = to_offset(self.frequency), following - last
        week = np.timedelta64(7, "D") * offset.n  # whatever its name says, a week begins on the day of the data
        step = (
            week
            if isinstance(offset, Week)
            else np.timedelta64(offset.nanos, "ns")
            if isinstance(offset, Tick)
            else None
        )
        begin, end = pd.Timestamp(last), pd.Timestamp(following)
        if step is not None and away // step > self.max_rows:
            raise DataError(
                f"Between {begin} and the new rows more than {self.max_rows:,} steps of {self.frequency} are missing. "
                "Open a new stream."
            )
        steps = pd.date_range(begin, end, freq=offset if step is None else pd.Timedelta(step)).to_numpy()
        if not len(steps) or steps[0] != last or steps[-1] != following:
            raise DataError(
                f"The new rows begin at {end}, which is no whole number of steps of {self.frequency} after {begin}."
            )
        return steps[1:-1]


class Streams:
    """The sessions of a service, by their id."""

    def __init__(self, *, most: int, idle_s: float, max_rows: int, clock: Callable[[], float] = time.monotonic) -> None:
        if most < 0 or idle_s <= 0:
            raise SettingsError(
                f"max_streams counts sessions, stream_idle_s is in seconds above 0, but got {most} and {idle_s}."
            )
        self.most, self.idle_s, self.max_rows, self._clock = most, idle_s, max_rows, clock
        self._sessions: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, worker: Worker, stream: Any, frequency: str | None) -> Session:
        """A new session.

        Raises:
            Refused: 429, as many are open as the service keeps.
        """
        self.forget_idle()
        if len(self) >= self.most:
            raise Refused(
                429,
                f"{len(self)} streams are open, as many as this service keeps. DELETE one that is done; one that is "
                f"left alone for {self.idle_s:g} seconds is closed.",
                {"Retry-After": str(max(1, round(self.idle_s)))},
            )
        session = Session(worker, stream, frequency, self.max_rows, self._clock())
        self._sessions[session.id] = session
        return session

    def get(self, name: str) -> Session:
        """The session of this id, which counts as used.

        Raises:
            Refused: 404, there is none, or it was left alone for too long.
        """
        self.forget_idle()
        if name not in self._sessions:
            raise Refused(
                404,
                f"There is no stream {name[:40]!r}. It may have been closed after {self.idle_s:g} seconds without "
                "rows; POST /detect/streams opens one.",
            )
        session = self._sessions[name]
        session.used = self._clock()
        return session

    def close(self, name: str) -> None:
        """Forget a session."""
        del self._sessions[self.get(name).id]

    def forget_idle(self) -> None:
        """Forget the sessions that were left alone for too long; one that is at work is not idle."""
        before = self._clock() - self.idle_s
        for name, session in list(self._sessions.items()):
            if session.used < before and not session.lock.locked():
                del self._sessions[name]


def _runs_forward(frequency: str) -> bool:
    try:
        return to_offset(frequency).n > 0
    except ValueError:
        return False


def _precision(levels: tuple[tuple[float, float], ...]) -> type[np.float32] | type[np.float64]:
    """As tables are stored: single precision, unless a channel's movement in training would drown in it.

    The same limit as ``prismts.data.series.storage_dtype``: a deviation of 1000 rounding steps.
    """
    drowns = any(scale < 1000 * float(np.spacing(np.float32(abs(mean)))) for mean, scale in levels)
    return np.float64 if drowns else np.float32
