"""Follow a series that grows: scores of all rows so far, of which only the end is judged anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prismts.data.bridging import bridged
from prismts.data.scaling import StandardScaler
from prismts.data.series import Collection, Series
from prismts.errors import DataError, ShapeError
from prismts.estimators.answer import check_finite
from prismts.estimators.growing import GrowingTimes
from prismts.estimators.panel import Array, Panel
from prismts.evaluation.thresholds import Event, Threshold, events

__all__ = ["DetectStream"]

_MOST_MISSING = 100_000  # steps between two updates, each of which is judged
_TELLING = 3  # rows that tell their frequency


class DetectStream:
    """A series that grows: after every ``update``, ``scores`` is what ``score_samples`` gives for all rows so far.

    Until the series is as long as the shortest window, all scores are 0. Only the end is judged anew: the scores before
    ``n_final`` never change again, those behind it are provisional for want of the steps after them. Where values are
    missing at the end, the straight lines that the closed forms read there are not known yet either, and the steps
    since the last observed ones stay provisional too.

    Args:
        panel: the judges of a detector, which have learned.
        channels: their names.
        scaler: of its channels.
        threshold: of its scores.
        read: one series of anything else than an array: a table, a path, a ``Series``; on the steps of a frequency,
            where it gets one.
        frequency: of rows that bring times; where None, that of the first ones, if there are three or more.
    """

    def __init__(
        self,
        panel: Panel,
        channels: tuple[str, ...],
        scaler: StandardScaler,
        threshold: Threshold,
        read: Callable[[Any, str | None], Series],
        frequency: str | None = None,
    ) -> None:
        self._panel, self._channels, self._scaler, self._threshold, self._read = (
            panel,
            channels,
            scaler,
            threshold,
            read,
        )
        self._grown = GrowingTimes(frequency, _MOST_MISSING)
        self._values = np.zeros((panel.n_channels, 0))  # [C, T] scaled
        self.scores: Array = np.zeros(0)  # [T]
        self.n_final = 0  # steps whose score will not change

    def __len__(self) -> int:
        return self._values.shape[1]

    @property
    def delay(self) -> int:
        """After so many further steps a score is final, where nothing is missing at the end of the series."""
        return self._panel.delay

    @property
    def alarms(self) -> NDArray[np.bool_]:
        """Which of the steps so far are above the threshold: [T]."""
        return self._threshold.alarms(self.scores)

    def update(self, new_rows: Any) -> Array:
        """Read new rows, and return their scores [n_new], which may be provisional.

        ``new_rows`` is an array [n_channels, n_new], one row of values [n_channels], or a table. Rows that bring times
        come in their order, each once; steps that are missing before or between them count as rows in which nothing was
        observed, and get scores too.

        Raises:
            DataError: rows do not follow those before, or their scores are no finite numbers. The stream stays as it
                was.
        """
        n_channels, times, frequency = self._panel.n_channels, None, self._grown.frequency
        if isinstance(new_rows, np.ndarray | list | tuple) and np.ndim(new_rows) == 1:
            rows = np.asarray(new_rows, dtype=np.float64)[:, None]
            if len(rows) != n_channels:
                raise ShapeError(
                    f"One row has a value for each of {n_channels} channels, but got {len(rows)} values. "
                    "Several rows of one channel are rows[None, :]."
                )
        elif isinstance(new_rows, np.ndarray):
            rows = np.asarray(new_rows, dtype=np.float64)
            if rows.ndim != 2 or len(rows) != n_channels:
                raise ShapeError(
                    f"New rows are [channel={n_channels}, time], but got shape {list(rows.shape)}. If time "
                    "comes first, pass rows.T."
                )
        else:
            series = self._read(new_rows, self._grown.frequency)
            rows, times = series.values, series.timestamps
            if frequency is None and len(series) >= _TELLING:
                frequency = series.frequency
        if np.isinf(rows).any():
            raise DataError("New rows hold an infinite value. Replace it by a number, or by NaN: not observed.")
        rows, times = self._grown.following(rows, times, frequency)
        old, before = len(self), (self._values, self.scores, self.n_final)
        with np.errstate(over="ignore", invalid="ignore"):  # refused in words
            new = self._scaler.transform(rows.astype(np.float64))
            self._values = np.concatenate([self._values, new], axis=1)
            self.scores = np.concatenate([self.scores, np.zeros(new.shape[1])])
            try:
                if new.shape[1]:
                    self._judge_anew()
                check_finite([self.scores], Collection.of(Series(rows, self._channels)))
            except BaseException:
                self._values, self.scores, self.n_final = before
                raise
        self._grown.keep(rows.shape[1], times, frequency)
        return self.scores[old:]

    def events(self, *, merge_gap: int = 0) -> list[Event]:
        """The stretches of alarms so far; without the channels to blame."""
        return events(self.alarms, self.scores, merge_gap=merge_gap)

    def _judge_anew(self) -> None:
        panel, x = self._panel, self._values
        n = x.shape[1]
        if n < panel.shortest:
            return
        longest = max(panel.needed(name) for name in panel.weights)
        before, after = max(panel.reach(name)[0] for name in panel.weights), panel.delay
        hop = max(1, panel.context_length // 2)
        first = max(0, self.n_final - before - after)
        first = max(0, min(first, n - longest - before)) // hop * hop  # windows of the networks lie at whole hops
        if first and first < hop + panel.context_length:
            first = 0  # the first window judges its beginning too
        cut = self._bridgeable(first)
        part = x[:, first:].copy()
        part[:, 0] = np.where(np.isnan(part[:, 0]), cut, part[:, 0]) if first else part[:, 0]
        scores = panel.combined(panel.judged(part))
        self.scores[self.n_final :] = scores[self.n_final - first :]
        seen = ~np.isnan(x)
        last = np.where(seen.any(axis=1), n - 1 - seen[:, ::-1].argmax(axis=1), -1)  # [C]
        self.n_final = max(self.n_final, min(int(last.min()) + 1, n) - after, 0)

    def _bridgeable(self, step: int) -> Array:
        """The values of the straight lines at a step: [C]."""
        return bridged(self._values)[:, step] if np.isnan(self._values[:, step]).any() else self._values[:, step]
