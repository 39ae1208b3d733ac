"""Series that grow: one session for each, bounded in number, in length and in idle time."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prismts.data.series import Collection, Series
from prismts.data.tables import TableKind
from prismts.errors import DataError, SettingsError
from prismts.estimators.growing import GrowingTimes
from prismts.estimators.match import reordered
from prismts.serving.batching import Worker
from prismts.serving.refusals import Refused

__all__ = ["Session", "Streams"]


class Session:
    """One growing series: what it held so far, when, and its scores. Use it under its ``lock``."""

    def __init__(self, worker: Worker, stream: Any, frequency: str | None, max_rows: int, now: float) -> None:
        self.grown = GrowingTimes(frequency, max_rows)
        self.id = secrets.token_urlsafe(16)
        self.worker, self.stream, self.max_rows = worker, stream, max_rows
        self.lock, self.used = asyncio.Lock(), now
        self.kind: TableKind | None = None  # how the last rows told their times
        self._precision = _precision(worker.engine.facts.levels)

    def __len__(self) -> int:
        return len(self.stream)

    @property
    def frequency(self) -> str | None:
        """The step of its rows, where one is known."""
        return self.grown.frequency

    @property
    def times(self) -> NDArray[np.datetime64] | None:
        """When its rows were measured, if they tell: [T] in UTC, or by the clock of their zone."""
        return self.grown.times

    def aligned(self, rows: Series) -> tuple[NDArray[np.float64], NDArray[np.datetime64] | None]:
        """New rows [C, n] in the order of the model, with the steps that are missing before them, and their times.

        Raises:
            DataError: they do not come after those before, or the stream would grow too long.
        """
        facts = self.worker.engine.facts
        values = reordered(Collection.of(rows), facts.channels, "detection").values
        values, times = self.grown.following(values, rows.timestamps, self.frequency)
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
        self.grown.keep(values.shape[1], times, self.frequency)
        return first


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


def _precision(levels: tuple[tuple[float, float], ...]) -> type[np.float32] | type[np.float64]:
    """As tables are stored: single precision, unless a channel's movement in training would drown in it.

    The same limit as ``prismts.data.series.storage_dtype``: a deviation of 1000 rounding steps.
    """
    drowns = any(scale < 1000 * float(np.spacing(np.float32(abs(mean)))) for mean, scale in levels)
    return np.float64 if drowns else np.float32
