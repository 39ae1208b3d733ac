"""Series measured at any moment: the grid they are counted on, and every measurement where it was taken."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from prismts.data.frequency import Grid, infer_grid, named_grid
from prismts.data.series import Collection
from prismts.errors import DataError

__all__ = ["Measurements", "on_grid"]

_MOST_EMPTY = 20  # steps of the grid for each row, beyond which the frequency is taken for a mistake


@dataclass(frozen=True, eq=False)
class Measurements:
    """The rows of some series as they were taken, one series behind the other."""

    values: NDArray[np.floating]  # [C, n], NaN where a channel was not observed
    places: NDArray[np.float64]  # [n] steps since the first step of the row's own series, not rounded, rising
    offsets: NDArray[np.int64]  # [n_series + 1]

    @property
    def cells(self) -> NDArray[np.int64]:
        """The step of the grid next to each row [n]; a row halfway between two belongs to the later one."""
        return np.floor(self.places + 0.5).astype(np.int64)

    def since(self, begins: NDArray[np.int64]) -> Measurements:
        """The rows of each series from step ``begins`` [n_series] on, in steps since then, with values of their own."""
        of = np.repeat(np.arange(len(begins)), np.diff(self.offsets))  # [n] which series
        kept = self.cells >= begins[of]
        counts = np.bincount(of[kept], minlength=len(begins))
        places = self.places[kept] - begins[of[kept]]
        return Measurements(self.values[:, kept], places, np.concatenate([[0], np.cumsum(counts)]))


def on_grid(data: Collection) -> tuple[Collection, Measurements]:
    """The same series on the grid of their frequency, and their rows where they were measured.

    Each step of the grid takes the row next to it, if one lies within half a step, and is not observed otherwise; of
    several, the nearest, and of equally near ones the first. Where all rows lie on steps, the grid begins at the first
    row; else where a clock would show a whole step. On a calendar (months, business days) a row between two of its
    points lies between them by its share of the way.

    Raises:
        DataError: there is no frequency and none can be found, or nearly all steps would be empty.
    """
    if data.timestamps is None:
        steps = np.concatenate([np.arange(n) for n in data.lengths]) if len(data) else np.zeros(0)
        return data, Measurements(data.values, steps.astype(np.float64), data.offsets)
    ticks = data.timestamps.astype("datetime64[ns]").astype(np.int64)  # [n]
    of = np.repeat(np.arange(len(data)), data.lengths)  # [n] which series
    same = np.diff(of) == 0
    if (np.diff(ticks)[same] < 0).any():
        raise DataError("Rows must be in order of time within each series. Sort them, or read the table from its file.")
    grid = infer_grid(ticks, same, clock=True) if data.frequency is None else named_grid(data.frequency, ticks)
    if grid is None:
        raise DataError(
            "The frequency of these series is not known, and so not how long a step is. Give it, such as frequency='h'."
        )
    places, origin = _places(grid, ticks, data)
    measured = Measurements(data.values, places, data.offsets)
    cells = measured.cells
    ends = np.array([cells[end - 1] + 1 if end > begin else 0 for begin, end in zip(*_edges(data), strict=True)])
    offsets = np.concatenate([[0], np.cumsum(ends)])
    if offsets[-1] > _MOST_EMPTY * len(ticks) + 1000:
        raise DataError(
            f"In steps of {grid.alias}, {len(ticks):,} rows would be spread over {offsets[-1]:,} steps, nearly all of "
            "them empty. Give the step that forecasts are to have, such as frequency='h'."
        )
    column = offsets[of] + cells  # [n] in the table on the grid
    nearest = np.lexsort((np.arange(len(ticks)), np.abs(places - cells), column))
    first = np.concatenate([[True], np.diff(column[nearest]) != 0]) if len(nearest) else np.zeros(0, bool)
    rows = nearest[first]
    values = np.full((data.n_channels, int(offsets[-1])), np.nan, dtype=data.values.dtype)
    values[:, column[rows]] = data.values[:, rows]
    along = np.concatenate([np.arange(end) for end in ends])
    base = np.repeat(origin, ends)
    stamps = grid.at(along + base, np.zeros_like(base)) if grid.points is not None else base + along * grid.step
    laid = replace(
        data, values=values, offsets=offsets, timestamps=stamps.view("datetime64[ns]"), frequency=grid.alias, borders=()
    )  # fmt: skip
    return laid, measured


def _places(grid: Grid, ticks: NDArray[np.int64], data: Collection) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Steps since the first step of its series [n], and where that is [n_series]: in ticks, or a point's number."""
    places, origins = np.empty(len(ticks)), np.zeros(len(data), dtype=np.int64)
    for i, (begin, end) in enumerate(zip(*_edges(data), strict=True)):
        own = ticks[begin:end]
        if not own.size:
            continue
        if grid.points is not None:
            along = np.interp(own, grid.points, np.arange(len(grid.points)))
            origins[i] = int(np.floor(along[0] + 0.5))
            places[begin:end] = along - origins[i]
            continue
        origin = int(own[0])
        if ((own - origin) % grid.step).any():
            origin = (origin + grid.step // 2) // grid.step * grid.step
        origins[i] = origin
        places[begin:end] = (own - origin) / grid.step
    return places, origins


def _edges(data: Collection) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return data.offsets[:-1], data.offsets[1:]
