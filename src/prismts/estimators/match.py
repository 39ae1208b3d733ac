"""New data beside what was learned: which series is which, which channel is which, and on which scale errors stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from prismts.data.frequency import alike, lies_on
from prismts.data.scaling import StandardScaler
from prismts.data.series import Collection
from prismts.data.tables import TableKind
from prismts.errors import DataError, ShapeError

__all__ = ["check_times", "in_steps_of", "reordered", "rows_of", "scaler_for", "season_scales"]


def rows_of(data: Collection, names: Sequence[str]) -> list[int | None]:
    """Which of the learned series of these names each series of the data is: [n], None where it is a new one.

    A name that several bear tells none of them, and neither does the number of a case of an array.
    """
    if data.names == tuple(names) or (len(names) == 1 and len(data) == 1):
        return list(range(len(data)))
    known = {} if data.numbered else {name: i for i, name in enumerate(names) if names.count(name) == 1}
    return [known.get(name) for name in data.names]


def reordered(data: Collection, channels: tuple[str, ...], what: str) -> Collection:
    """The channels in the order of training; by name where names were given, else by number."""
    if data.channels == channels:
        return data
    unnamed = _numbered(data.channels)
    if set(data.channels) != set(channels):  # else by name, whatever the names
        if data.n_channels == len(channels) and (unnamed or _numbered(channels)):
            return replace(data, channels=channels)
        if unnamed and data.n_channels > len(channels):
            turned = set(data.lengths.tolist()) == {len(channels)}
            hint = " The last two axes look exchanged: pass x.swapaxes(-1, -2)." if turned else ""
            raise ShapeError(
                f"The model learned {len(channels)} channels, but the data for {what} have {data.n_channels} and no "
                f"names to choose by. Pass [channel={len(channels)}, time].{hint}"
            )
    lacking = [name for name in channels if name not in data.channels]
    if lacking:
        raise DataError(
            f"The data for {what} lack channel {lacking[0]!r} ({len(lacking)} of {len(channels)} are missing). The "
            f"model learned: {', '.join(channels)}."
        )
    order = [data.channels.index(name) for name in channels]
    return replace(data, values=data.values[order], channels=channels)


def _numbered(channels: Sequence[str]) -> bool:
    """Whether these are the names that an array without any is given."""
    return all(name == f"channel_{i}" for i, name in enumerate(channels))


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


def check_times(data: Collection, kind: TableKind, learned: TableKind) -> None:
    """Refuse data whose time column of numbers was read in another way than that of training: 1800 is a year alone."""
    if {kind.counted, learned.counted} != {True, False}:
        return
    before, now = ("counts of steps", "times") if learned.counted else ("times", "counts of steps")
    note = next((f" {finding}" for finding in data.findings if finding.kind == "time"), "")
    raise DataError(
        f"The numbers in the time column that the model learned from were read as {before}, but those of these data as "
        f"{now}.{note} Leave the column out where rows are one step apart, or write times as 2016-07-01 00:00:00 in "
        "both."
    )


def scaler_for(
    data: Collection,
    scaler: StandardScaler,
    names: Sequence[str],
    ends: NDArray[np.int64] | None = None,
    *,
    may_be_empty: bool = False,
) -> StandardScaler:
    """Rows of the fitted scaler by the name of the series; a series it has not met is scaled by itself.

    Of such a series only the steps before ``ends`` [n] are read; all of them, where no ends are given. A channel that
    it lacks is scaled as in training on average, and so is a series that holds nothing, if it ``may_be_empty``.
    """
    rows = rows_of(data, names)
    if rows == list(range(len(names))):
        return scaler
    if None not in rows:
        return StandardScaler(scaler.mean[rows], scaler.scale[rows])  # type: ignore[index]
    ends = data.lengths if ends is None else ends
    mean, scale = np.empty((2, len(data), data.n_channels))
    for i, row in enumerate(rows):
        if row is not None:
            mean[i], scale[i] = scaler.mean[row], scaler.scale[row]
            continue
        mean[i], scale[i] = scaler.mean.mean(0), scaler.scale.mean(0)
        past = data[i].part(0, int(ends[i]))
        seen = past.observed.any(1)
        if seen.any():
            own = StandardScaler.fit(Collection.of(replace(past, values=past.values[seen], channels=())))
            mean[i, seen], scale[i, seen] = own.mean[0], own.scale[0]
        elif not may_be_empty:
            raise DataError(
                f"Series {data.names[i]!r} was not in training, so it is scaled by what lies before the first step "
                f"that is scored, but nothing was observed in its first {int(ends[i])} steps. Give begin= a later "
                "step, or leave the series out."
            )
    return StandardScaler(mean, scale)


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
