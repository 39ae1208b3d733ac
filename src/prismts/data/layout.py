"""Where each row of a table goes: rows in order of time, one for each step of each series, empty ones in the gaps.

The layout is made from the time column alone; the channels are then laid out one at a time, and no sorted copy of the
table ever exists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prismts.data.frequency import Grid, first_days, infer_grid, named_grid
from prismts.data.series import Finding
from prismts.data.times import Times
from prismts.errors import DataError

__all__ = ["Layout", "Duplicates", "Gaps", "lay_out"]

Duplicates = Literal["refuse", "first", "last", "mean", "keep"]
Gaps = Literal["fill", "keep", "refuse"]

_SETTLED = {
    "first": "the first was used",
    "last": "the last was used",
    "mean": "their mean was used",
    "keep": "all were kept",
}
_FEWEST_STEPS = 4  # of a series, that show how far apart its rows are
_SHORTEST_MONTH = 28 * 86_400 * 10**9  # nanoseconds
_MOST_FILLED = 4  # filling gaps may not make a table longer than this many times: the step is wrong then, or a time


@dataclass(frozen=True, eq=False)
class Layout:
    """Which rows of a table are used, and which of the ``offsets[-1]`` steps each one fills; other steps are empty."""

    rows: NDArray[np.int64]  # [n] rows of the table, in order of series and time
    steps: NDArray[np.int64]  # [n] where each goes
    offsets: NDArray[np.int64]  # [n_series + 1] where each series begins
    timestamps: NDArray[np.datetime64] | None = None  # [total]
    frequency: str | None = None
    groups: NDArray[np.int64] | None = None  # [n] where to average: first of each run of ``members`` that is one step
    members: NDArray[np.int64] | None = None  # rows of the table, in order
    findings: tuple[Finding, ...] = ()

    @cached_property
    def straight(self) -> bool:
        """Whether every row stays where it is."""
        n = len(self.rows)
        return self.groups is None and n == self.n_timepoints and bool((self.rows == np.arange(n)).all())

    @property
    def n_timepoints(self) -> int:
        """Steps of all series together."""
        return int(self.offsets[-1])

    def place(self, values: NDArray[np.floating], out: NDArray[np.floating]) -> None:
        """Lay out one channel, from [n_rows] into [total]."""
        if self.straight and len(values) == len(out):
            out[:] = values
            return
        if len(self.rows) < len(out):
            out[:] = np.nan
        if self.groups is None or self.members is None:
            out[self.steps] = values[self.rows]
            return
        members = values[self.members].astype(np.float64)
        seen = ~np.isnan(members)
        n_seen = np.add.reduceat(seen.astype(np.int64), self.groups)
        total = np.add.reduceat(np.where(seen, members, 0), self.groups)
        out[self.steps] = np.where(n_seen > 0, total / np.maximum(n_seen, 1), np.nan)


def lay_out(
    times: Times | None,
    codes: NDArray[np.int64],
    source: str,
    differences: Callable[[NDArray[np.int64], NDArray[np.int64]], tuple[NDArray[np.bool_], list[str]]],
    *,
    names: Sequence[str] = (),
    frequency: str | None = None,
    duplicates: Duplicates = "refuse",
    gaps: Gaps = "fill",
) -> Layout:
    """Order the rows, settle duplicates, find the grid, and leave room for what is missing.

    codes: [n_rows], which series a row belongs to, 0 to n_series-1; they are called ``names``. ``differences(a, b)``
    compares row a[i] with row b[i] and returns whether they differ, and the first column in which each pair does; it is
    called only for rows of one time.

    Raises:
        DataError: rows contradict each other or lie off the grid, or a series has another step than most, and the
            caller did not say what is to become of them.
    """
    if times is None:
        if frequency is not None:
            raise DataError(
                f"{source} has no time column, so frequency={frequency!r} says nothing. Name the time column with "
                "time=..."
            )
        rows = np.argsort(codes, kind="stable")
        return Layout(rows, np.arange(len(rows)), np.concatenate([[0], np.cumsum(np.bincount(codes))]))
    if frequency is not None and not times.clock:
        raise DataError(
            f"{source}: its time column counts steps, so frequency={frequency!r} says nothing. Leave it out."
        )
    rows, findings = _ordered(times, codes)
    findings = list(times.findings) + findings

    ticks = times.ticks[rows]
    again = np.concatenate([[False], (np.diff(ticks) == 0) & (np.diff(codes[rows]) == 0)])
    members = groups = None
    if again.any():
        kept, noted = _settle(rows, again, times, source, differences, duplicates)
        if duplicates == "mean":
            members, groups = rows, np.flatnonzero(kept)
        findings += noted
        rows = rows[kept]
    ticks, codes = times.ticks[rows], codes[rows]
    starts = np.flatnonzero(np.concatenate([[True], np.diff(codes) != 0]))  # [n_series]
    same = np.diff(codes) == 0
    lengths = np.diff(np.append(starts, len(rows)))

    def grid_of(ticks: NDArray[np.int64]) -> Grid | None:
        return infer_grid(ticks, same, times.clock) if frequency is None else named_grid(frequency, ticks)

    grid = grid_of(ticks)
    if grid is not None and (np.diff(ticks)[same] == 0).any():  # duplicates were kept
        grid = None
    place = origin = None
    if grid is not None:
        if times.clock and gaps != "keep" and _on_grid(grid, ticks, starts, lengths, snap=False)[2].any():
            first = first_days(ticks)
            months = None if first is None else grid_of(first)
            if (
                first is not None
                and months is not None
                and not _on_grid(months, first, starts, lengths, snap=False)[2].any()
            ):
                findings.append(_as_months(times, ticks, rows, months))
                ticks, grid = first, months
        ordered = _Ordered(source, times, rows, ticks, same, grid.alias or times.show_step(grid.step))
        place, origin, moved = _on_grid(grid, ticks, starts, lengths, snap=frequency is not None and gaps != "keep")
        if frequency is None and gaps != "keep" and len(starts) > 1:
            _check_steps(ordered, place, starts, lengths, [names[int(code)] for code in codes[starts]])
        if gaps == "keep" and (moved.any() or (np.diff(place)[same] != 1).any()):
            grid = None
        elif moved.any():
            helps = frequency is None and _can_be_moved(grid, ticks, starts, lengths, same)
            findings.append(_moved(ordered, moved, place, given=frequency is not None, helps=helps))
        missing = np.where(same, np.diff(place) - 1, 0)
        if grid is not None and missing.any():
            findings.append(_missing(ordered, missing, gaps))
    if grid is None or place is None or origin is None:
        stamps = ticks.view("datetime64[ns]") if times.clock else None
        offsets = np.append(starts, len(rows))
        return Layout(rows, np.arange(len(rows)), offsets, stamps, frequency, groups, members, tuple(findings))

    first = place[starts]
    spans = place[np.append(starts[1:], len(rows)) - 1] - first + 1
    total = int(spans.sum())
    offsets = np.concatenate([[0], np.cumsum(spans)])
    steps = place + np.repeat(offsets[:-1] - first, lengths)
    stamps = None
    if times.clock:
        along = np.arange(total) + np.repeat(first - offsets[:-1], spans)
        stamps = grid.at(along, np.repeat(origin[starts], spans)).view("datetime64[ns]")
    return Layout(rows, steps, offsets, stamps, grid.alias, groups, members, tuple(findings))


def _ordered(times: Times, codes: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[Finding]]:
    """Rows by series, then time; rows of one time stay as they stood."""
    by_series = np.argsort(codes, kind="stable")
    ticks = times.ticks[by_series]
    back = (np.diff(ticks) < 0) & (np.diff(codes[by_series]) == 0)
    if not back.any():
        return by_series, []
    row = int(by_series[1:][back].min())
    message = (
        f"Rows were not in order of time and were sorted (first: row {row}, {times.show(times.ticks[row])}, "
        "is earlier than the row before it)."
    )
    return np.lexsort((times.ticks, codes)), [Finding("order", message, row=row)]


def _settle(
    rows: NDArray[np.int64],
    again: NDArray[np.bool_],
    times: Times,
    source: str,
    differences: Callable[[NDArray[np.int64], NDArray[np.int64]], tuple[NDArray[np.bool_], list[str]]],
    duplicates: Duplicates,
) -> tuple[NDArray[np.bool_], list[Finding]]:
    """Which rows stay [n], of those that share their time with the row before them (``again``)."""
    later = np.flatnonzero(again)
    first = np.maximum.accumulate(np.where(again, 0, np.arange(len(rows))))[later]
    differ, columns = differences(rows[first], rows[later])
    findings: list[Finding] = []
    if not differ.all():
        row = int(rows[later[~differ]].min())
        done = "kept" if duplicates == "keep" else "dropped"
        message = (
            f"{_rows(int((~differ).sum()))} equal to another one in time and values: {done} (first: row {row}, "
            f"{times.show(times.ticks[row])})."
        )
        findings.append(Finding("duplicate", message, row=row))
    if differ.any():
        i = int(differ.argmax())
        a, b = int(rows[first[i]]), int(rows[later[i]])
        time = times.show(times.ticks[b])
        if duplicates == "refuse":
            raise DataError(
                f"{source}: rows {a} and {b} have the same time ({time}) but differ, first in column {columns[i]!r}. "
                "Say which one counts: prismts.read(..., duplicates='first'), or 'last', 'mean' or 'keep', and pass on "
                "what it gives (commands have --duplicates). If the table holds several series, name the column that "
                "tells them apart with series=... If one tells the hour, write day and hour into one column."
            )
        message = (
            f"{_rows(int(differ.sum()))} equal to another one in time but not in values: {_SETTLED[duplicates]} "
            f"(first: rows {a} and {b}, {time}, column {columns[i]!r})."
        )
        findings.append(Finding("duplicate", message, columns[i], b))
    if duplicates == "keep":
        return np.ones(len(rows), bool), findings
    return (np.append(~again[1:], True) if duplicates == "last" else ~again), findings


def _rows(n: int) -> str:
    return f"{n:,} row{'s' * (n != 1)}"


def _on_grid(
    grid: Grid, ticks: NDArray[np.int64], starts: NDArray[np.int64], lengths: NDArray[np.int64], *, snap: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Positions [n], the grid's origin for each row [n], and how far each row lies behind its step [n].

    A series lies on the grid that begins at its first row; where rows jitter and may be moved (``snap``), on the grid
    a clock would show, as the first row may be off itself.
    """
    origin = np.repeat(ticks[starts], lengths)
    place, moved = grid.nearest(ticks, origin)
    if snap and moved.any() and grid.points is None:
        jitters = np.repeat(np.logical_or.reduceat(moved != 0, starts), lengths)
        origin = np.where(jitters, (origin + grid.step // 2) // grid.step * grid.step, origin)
        place, moved = grid.nearest(ticks, origin)
    return place, origin, moved


@dataclass(frozen=True, eq=False)
class _Ordered:
    """Rows in order of series and time, as messages need them."""

    source: str
    times: Times
    rows: NDArray[np.int64]  # [n] of the table
    ticks: NDArray[np.int64]  # [n]
    same: NDArray[np.bool_]  # [n-1] whether a row and the next are of one series
    usual: str  # the step

    def time(self, i: int) -> str:
        return self.times.show(int(self.ticks[i]))

    def row(self, i: int) -> str:
        return f"row {self.rows[i]} ({self.time(i)})"


def _check_steps(
    ordered: _Ordered, place: NDArray[np.int64], starts: NDArray[np.int64], lengths: NDArray[np.int64],
    names: Sequence[str],
) -> None:  # fmt: skip
    """Refuse series whose rows come at another step than those of most: hours beside days are no gaps.

    place: [n] steps of the table; starts, lengths, names: [n_series].
    """
    of = np.repeat(np.arange(len(starts)), lengths - 1)
    usual = np.bincount(of, np.diff(place)[ordered.same] == 1, minlength=len(starts))  # [n_series]
    others: list[tuple[int, bool]] = []  # which series, and whether its rows are closer than those of the table
    for i in np.flatnonzero((lengths > _FEWEST_STEPS) & (2 * usual < lengths - 1)):
        own = np.diff(place[starts[i] : starts[i] + lengths[i]])
        sizes, counts = np.unique(own, return_counts=True)
        step = int(sizes[counts.argmax()])
        if step != 1 and 2 * counts.max() > len(own) and (step == 0 or not (own % step).any()):
            others.append((int(i), step == 0))
    if not others:
        return
    i, finer = others[0]
    ticks = ordered.ticks[starts[i] : starts[i] + lengths[i]]
    grid = infer_grid(ticks, np.ones(len(ticks) - 1, bool), ordered.times.clock)
    assert grid is not None
    own = grid.alias or ordered.times.show_step(grid.step)
    more = f" ({len(others):,} of {len(names):,} series have others than most)" if len(others) > 1 else ""
    lay = f", or pass frequency={(own if finer else ordered.usual)!r} to leave what lies between their rows empty"
    raise DataError(
        f"{ordered.source}: series {names[i]!r} has a step of {own}, but the usual step of the table is {ordered.usual}"
        f"{more}. Series that are read together share one step. Read those of each step apart, or resample them to one "
        f"before{lay * ordered.times.clock}."
    )


def _as_months(times: Times, ticks: NDArray[np.int64], rows: NDArray[np.int64], grid: Grid) -> Finding:
    """Rows on one day of their months were read as these months, which are told by their first days."""
    message = (
        f"All rows stand on one day of their months ({times.show(int(ticks[0]))}, row {rows[0]}); they were read as "
        f"steps of {grid.alias}, whose times are the first days of these months."
    )
    return Finding("frequency", message, row=int(rows[0]))


def _can_be_moved(
    grid: Grid, ticks: NDArray[np.int64], starts: NDArray[np.int64], lengths: NDArray[np.int64], same: NDArray[np.bool_]
) -> bool:
    """Whether rows can be moved to steps of this length: no two to the same one, and no months to steps of days."""
    place = _on_grid(grid, ticks, starts, lengths, snap=True)[0]
    return grid.step < _SHORTEST_MONTH and not (np.diff(place)[same] == 0).any()


def _moved(
    ordered: _Ordered, moved: NDArray[np.int64], place: NDArray[np.int64], *, given: bool, helps: bool
) -> Finding:
    """Rows that lie off the grid were moved to it, which only a frequency given by the user allows.

    ``helps`` says whether the usual step, given as a frequency, would move them.
    """
    i = int(np.flatnonzero(moved)[0])
    if not given:
        away = ordered.times.show_step(int(ordered.ticks[i] - ordered.ticks[i - 1]))
        snap = f" Pass frequency={ordered.usual!r} to move every row to the nearest step of that length."
        raise DataError(
            f"{ordered.source}: {ordered.row(i)} comes {away} after the row before it, which is not a multiple of the "
            f"usual step, {ordered.usual}.{snap * (helps and ordered.times.clock)} To take the rows as they are, pass "
            "on what prismts.read(..., gaps='keep') gives."
        )
    clash = ordered.same & (np.diff(place) == 0)
    if clash.any():
        j = int(clash.argmax())
        raise DataError(
            f"{ordered.source}: {ordered.row(j)} and {ordered.row(j + 1)} fall on the same step of "
            f"frequency={ordered.usual!r}. Give a finer frequency, or aggregate the table to this one first."
        )
    message = (
        f"{_rows(int((moved != 0).sum()))} lay between two steps of {ordered.usual!r} and were moved to the nearest "
        f"one (first: {ordered.row(i)})."
    )
    return Finding("frequency", message, row=int(ordered.rows[i]))


def _missing(ordered: _Ordered, missing: NDArray[np.int64], gaps: Gaps) -> Finding:
    """Steps without a row are refused, or left empty and reported. missing: [n-1], how many follow each row."""
    i = int((missing > 0).argmax())
    n, n_gaps, n_rows = int(missing.sum()), int((missing > 0).sum()), len(ordered.rows)
    first = f"first: {int(missing[i]):,} between {ordered.time(i)} and {ordered.row(i + 1)}"
    if gaps == "refuse":
        raise DataError(
            f"{ordered.source}: {_rows(n)} missing at a step of {ordered.usual} ({first}). "
            "Pass gaps='fill' to mark them as not observed."
        )
    if n_rows + n > _MOST_FILLED * n_rows + 100:
        raise DataError(
            f"{ordered.source}: at the usual step of {ordered.usual} its {n_rows:,} rows would become {n_rows + n:,}, "
            f"nearly all of them empty ({first}). Correct the times, give the true step with frequency=..., or pass on "
            "what prismts.read(..., gaps='keep') gives."
        )
    where = f"in {n_gaps:,} gaps" if n_gaps > 1 else "in one gap"
    message = f"{_rows(n)} missing {where} at a step of {ordered.usual}, filled as not observed ({first})."
    return Finding("gap", message, row=int(ordered.rows[i + 1]))
