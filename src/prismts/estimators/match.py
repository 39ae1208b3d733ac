"""New data beside what was learned: which series is which, which channel is which, and on which scale errors stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from prismts.data.frequency import alike, lies_on
from prismts.data.series import Collection
from prismts.errors import DataError

__all__ = ["by_name", "in_steps_of", "reordered", "season_scales"]


def by_name(names: Sequence[str]) -> dict[str, int]:
    """The place of each name that only one series bears."""
    return {name: i for i, name in enumerate(names) if names.count(name) == 1}


def reordered(data: Collection, channels: tuple[str, ...], what: str) -> Collection:
    """The channels in the order of training; by name where names were given, else by number."""
    if data.channels == channels:
        return data
    unnamed = all(name == f"channel_{i}" for i, name in enumerate(data.channels))
    if data.n_channels == len(channels) and (unnamed or all(n == f"channel_{i}" for i, n in enumerate(channels))):
        return replace(data, channels=channels)
    lacking = [name for name in channels if name not in data.channels]
    if lacking:
        raise DataError(
            f"The data for {what} lack channel {lacking[0]!r} ({len(lacking)} of {len(channels)} are missing). The "
            f"model learned: {', '.join(channels)}."
        )
    order = [data.channels.index(name) for name in channels]
    return replace(data, values=data.values[order], channels=channels)


def in_steps_of(data: Collection, frequency: str | None, remedy: str) -> Collection:
    """The data with the steps of training, which are not asked for where they or the times are unknown."""
    if frequency is None or data.timestamps is None:
        return data
    if data.frequency is not None and alike(data.frequency, frequency):
        return data
    if lies_on(frequency, data.timestamps, data.offsets):  # a few rows may look like another step
        return replace(data, frequency=frequency)
    if data.frequency is not None:
        raise DataError(
            f"The model learned steps of {frequency}, but these data have steps of {data.frequency}. {remedy}"
        )
    return data


def season_scales(data: Collection, ends: NDArray[np.int64], season: int) -> NDArray[np.float64]:
    """Mean absolute error of the seasonal naive forecast within each training part, for MASE: [n, C], own units."""
    scales = np.full((len(data), data.n_channels), np.nan)
    for i, case in enumerate(data):
        for c, channel in enumerate(case.values):
            history = channel[: ends[i]].astype(np.float64)
            if len(history) > season:
                step = np.abs(history[season:] - history[:-season])
                seen = step[~np.isnan(step)]
                if seen.size and seen.mean() > 0:
                    scales[i, c] = seen.mean()
    return scales
