"""Answers on their way out: whether they are numbers at all, and forecasts as the kind of table that came in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prismts.data.series import Collection
from prismts.data.tables import TableKind, to_table
from prismts.errors import DataError
from prismts.evaluation.probabilistic import median_of

__all__ = ["check_finite", "forecast_table", "free_name"]


def check_finite(answers: Iterable[NDArray[np.floating]], data: Collection, *, first: int = 0) -> None:
    """Refuse answers, one for each series of ``data`` from the ``first`` on, that are no finite numbers.

    Raises:
        DataError: one is not, which values far outside single precision lead to.
    """
    for i, answer in enumerate(answers, first):
        if np.isfinite(answer).all():
            continue
        values = data[i].values
        channel, step = np.unravel_index(int(np.nan_to_num(np.abs(values)).argmax()), values.shape)
        where = f" of series {data.names[i]!r}" if len(data) > 1 else ""
        raise DataError(
            f"The model's answer to these data is no finite number. Their largest value is "
            f"{values[channel, step]:g}, in channel {data.channels[int(channel)]!r}{where}: check its unit, or leave "
            "out (NaN, null) what was not observed."
        )


def forecast_table(
    forecast: NDArray[np.floating],
    data: Collection,
    kind: TableKind,
    start: NDArray[np.int64],
    channels: tuple[str, ...],
    levels: Sequence[float] | None,
) -> Any:
    """A table of forecasts [n, C, H], or [n, Q, C, H] with levels [Q], of the series of ``data``.

    ``start`` [n] is the number of the first step of each series, where steps are counted instead of timed.
    """
    horizon = forecast.shape[-1]
    series = kind.series or free_name("series", channels)
    time = kind.time or free_name("step", channels)
    times = []
    for case, first in zip(data, start, strict=True):
        future = case.future_timestamps(horizon)
        times.append(future + first if case.timestamps is None else future)
    columns: dict[str, NDArray] = {}
    if len(data) > 1 or kind.series is not None:
        columns[series] = np.repeat(np.array(data.names, dtype=object), horizon)
    columns[time] = np.concatenate(times)
    told = [f"{level:g}" for level in levels or ()]
    if len(set(told)) < len(told):  # .999999 and .9999999 would share a name
        told = [repr(level) for level in levels or ()]
    for c, channel in enumerate(channels):
        if levels is None:
            columns[channel] = forecast[:, c].reshape(-1)
            continue
        columns[channel] = median_of(forecast[:, :, c], levels).reshape(-1)
        for q, level in enumerate(levels):
            name = f"{channel}_q{told[q]}"
            if name in channels or name in columns:
                raise DataError(
                    f"The quantile {level:g} of channel {channel!r} would be called {name!r}, as another column "
                    "is. Rename that column."
                )
            columns[name] = forecast[:, q, c].reshape(-1)
    return to_table(replace(kind, time=time, series=series), columns)


def free_name(name: str, taken: Sequence[str]) -> str:
    """The name, with a line behind it for as long as a channel is called so."""
    while name in taken:
        name += "_"
    return name
