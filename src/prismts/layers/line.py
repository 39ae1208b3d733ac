"""The straight line that suits the data, chosen among a few by rolling folds; seconds on one core."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, product
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prismts.layers.linear import RidgeMap, rows, thinned
from prismts.layers.reading import Reading, last_steps
from prismts.windows import Windows

__all__ = [
    "WEIGHTINGS", "Candidate", "ChosenLine", "Moments", "RevertingLine", "ahead_in_all", "by_steps", "folds_of",
    "gain_over_folds", "lines_of", "mean_gains", "plain_line", "windows_of_folds",
]  # fmt: skip

PENALTIES = (1e-4, 1e-2, 1e-1, 0.3)  # as shares of the mean square of an input step
REVERSIONS = (0.0, 1 / 3)  # shares of the regression of what is missed on the level of the window
WEIGHTINGS = {"plain": None, "relative": 0.3}  # relative: rows count with 1 / (variance of the context + this)
REACHES = (1.0, 4 / 7, 2 / 7)  # of the context: the mean of lines that read it all, and the first two or all three
CUTS = (1 / 2, 3 / 4)  # of the training part: a fold learns before a cut and is judged from there to the next
NOTHING = 1e-9  # a mean squared error, in standard deviations, that counts as none


class ChosenLine(RidgeMap):
    """A line that may do what the plain ridge cannot, where every fold of the past says that it helps.

    Candidates are all combinations of: rows that count alike, or by the scale of their window; one line, or the mean of
    those that read the whole context, its last 4/7 and perhaps its last 2/7; four penalties. Each is solved on the
    first half of the training part and judged on the next quarter, on the first three quarters and the last one, and on
    all of it and validation. The lowest mean log ratio to the errors of the plain ridge wins, among those ahead of it
    in every fold; where none is, or where there are not two folds, it is the plain ridge.

    Like the ridge, it moves along with a series that is shifted; ``RevertingLine`` does not.

    Unobserved targets count as what the ridge says of them, in solving and in judging, so that they speak for no line.
    One validation part alone chose lines that lost afterwards; ``docs/log.md`` says what was tried on which data.
    """

    reversions: tuple[float, ...] = (0.0,)

    def __init__(self, context_length: int, horizon: int) -> None:
        super().__init__(context_length, horizon)
        self.reversion = nn.Parameter(torch.zeros(horizon))  # [H]
        self._chosen: Chosen | None = None  # None: the plain ridge

    def forward(self, x: Tensor, scale: Tensor | float = 1.0, level: Tensor | None = None) -> Tensor:
        """As the ridge, plus what depends on the standardized ``level`` [..., 1] of the window."""
        y = super().forward(x, scale)
        return y if level is None else y + self.reversion * level / scale

    @torch.no_grad()
    def solve(self, train: Windows, validation: Windows | None) -> str:
        """Set the weights, and return what was chosen, in words."""
        said = super().solve(train, validation)
        ridge, penalty = self.full().double(), self.penalty
        self._chosen = None
        candidates, lines, errors = _judged(train, validation, ridge, penalty, self.reversions)
        if len(errors) < 2:
            return f"{said} (the training part is too short for folds that could choose another line)"
        best = ahead_in_all(errors)
        if best is None:
            return f"{said} (no other line was ahead of it in all of {len(errors)} folds)"
        self._take(lines[best])
        self._chosen = candidates[best]
        return f"{self._chosen}, {gain_over_folds(errors, best):.1%} ahead of the ridge over {len(errors)} folds"

    def _take(self, line: Tensor) -> None:
        """Set weights, bias and reversion from [H, T+2]."""
        line = line.to(self.weight)
        self.weight.copy_(line[:, :-2])
        self.bias.copy_(line[:, -2])
        self.reversion.copy_(line[:, -1])

    def learned_from(self, moments: Mapping[str, Moments], reference: Tensor) -> Tensor:
        """The line of the chosen kind that these moments make, relative to a reference: [H, T+2]."""
        if self._chosen is not None:
            return self._chosen.line(moments, reference)
        return plain_line(moments, reference, self.penalty)

    @property
    def weighting(self) -> str:
        """How rows counted for the line that was chosen: a name of ``WEIGHTINGS``."""
        return "plain" if self._chosen is None else self._chosen.weighting

    def full(self) -> Tensor:
        """Weights, bias and reversion side by side: [H, T+2]."""
        return torch.cat([self.weight, self.bias[:, None], self.reversion[:, None]], dim=1)


class RevertingLine(ChosenLine):
    """A chosen line that may also pull towards the mean of the training part.

    Half of the candidates add a third of the regression of what is missed on the level of the window. Such a line knows
    the mean of the training part: where the level comes back it wins, and a series that is shifted or drifts is pulled
    to its old level (on exchange rates it lost 4 %).
    """

    reversions = REVERSIONS


class Chosen(Protocol):
    """What was chosen: a line that other moments make another one of."""

    @property
    def weighting(self) -> str:
        """How rows count: a name of ``WEIGHTINGS``."""
        ...

    def line(self, moments: Mapping[str, Moments], reference: Tensor) -> Tensor:
        """Its weights, bias and reversion [H, T+2]."""
        ...


@dataclass(frozen=True)
class Moments:
    """Sums over rows: all that solving and judging lines need, so that folds are sums of stretches.

    Rows are contexts less their mean, a one, and the mean [R, T+2]; what is missed is relative to a line that is nearly
    as good (the plain ridge, say), so that differences between good lines are not lost in rounding.
    """

    xx: Tensor  # [T+2, T+2]
    xr: Tensor  # [T+2, H] with what that line misses
    rr: Tensor  # [] its sum of squares
    n: int  # values summed over in rr

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.xx + other.xx, self.xr + other.xr, self.rr + other.rr, self.n + other.n)

    def errors(self, beyond: Tensor) -> Tensor:
        """Mean squared errors [n] of lines that differ from that line by these [n, H, T+2]."""
        crossed = (beyond * self.xr.T).sum((1, 2))
        squared = torch.stack([((line @ self.xx) * line).sum() for line in beyond])
        return (self.rr - 2 * crossed + squared).clamp(min=0.0) / max(self.n, 1) + NOTHING


def ahead_in_all(errors: Tensor) -> int | None:
    """Which candidate has the lowest mean log ratio to the first column, of those ahead of it in every fold.

    ``errors`` are [n_folds, 1+n], what is to be beaten first; None where no candidate is ahead everywhere.
    """
    gains = mean_gains(errors)
    best = int(gains.argmin())
    return None if gains[best] == torch.inf else best


def mean_gains(errors: Tensor) -> Tensor:
    """Mean log ratios [n] to the first column of ``errors`` [n_folds, 1+n]; infinite where a fold is not ahead."""
    gains = (errors[:, 1:] / errors[:, :1]).log()  # [n_folds, n]
    return gains.mean(0).masked_fill((gains >= 0).any(0), torch.inf)


def gain_over_folds(errors: Tensor, best: int) -> float:
    """By how much, as a share, a candidate is ahead of the first column of ``errors`` [n_folds, 1+n]."""
    return 1 - float((errors[:, 1 + best] / errors[:, 0]).log().mean().exp())


def folds_of(
    train: Windows,
    validation: Windows | None,
    reference: Tensor,
    weightings: Collection[str] = tuple(WEIGHTINGS),
    channels: slice = slice(None),
) -> tuple[dict[str, Moments], list[tuple[dict[str, Moments], Moments]]]:
    """Moments of all of train, and for each fold those to learn from and those to be judged by.

    What is missed is relative to the ``reference`` [H, T+2]; ``weightings`` are those to learn by, and ``channels``
    those whose rows count.
    """
    index = thinned(train)
    stretch = _stretches(train, index)
    weightings = [name for name in WEIGHTINGS if name == "plain" or name in weightings]  # what is judged counts alike
    parts = [_moments(train, index[stretch == k], reference, weightings, channels) for k in range(2 * len(CUTS) + 1)]
    folds: list[tuple[dict[str, Moments], Moments]] = []
    known = parts[0]
    for k in range(len(CUTS)):
        folds.append((known, parts[2 * k + 2]["plain"]))
        known = {name: known[name] + parts[2 * k + 1][name] + parts[2 * k + 2][name] for name in weightings}
    if validation is not None:
        folds.append((known, _moments(validation, thinned(validation), reference, ["plain"], channels)["plain"]))
    return known, [(learned, judge) for learned, judge in folds if learned["plain"].n and judge.n]


def windows_of_folds(
    train: Windows, validation: Windows | None
) -> list[tuple[NDArray[np.int64], Windows, NDArray[np.int64]]]:
    """The folds of :func:`folds_of`: windows of train to learn from, and the windows of some data to be judged by."""
    index = thinned(train)
    stretch = _stretches(train, index)
    folds = [(index[stretch <= 2 * k], train, index[stretch == 2 * k + 2]) for k in range(len(CUTS))]
    if validation is not None:
        folds.append((index, validation, thinned(validation)))
    return [(learned, data, judge) for learned, data, judge in folds if len(learned) and len(judge)]


def _judged(
    train: Windows, validation: Windows | None, ridge: Tensor, penalty: float, reversions: Sequence[float] = REVERSIONS
) -> tuple[list[Candidate], Tensor, Tensor]:
    """The candidates, their lines [n, H, T+2] on all of train, and errors [n_folds, 1+n], the ridge first."""
    known, folds = folds_of(train, validation, ridge)
    candidates, lines = _candidates(known, ridge, reversions)
    errors: list[Tensor] = []
    for learned, judge in folds:
        plain = plain_line(learned, ridge, penalty)
        there = lines if learned is known else _candidates(learned, ridge, reversions)[1]
        errors.append(judge.errors(torch.cat([plain[None], there]) - ridge))
    return candidates, lines, torch.stack(errors) if errors else torch.zeros(0, 1 + len(candidates))


def _stretches(train: Windows, index: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each window, 0, 2, 4 ...: its future lies before the first cut of its series, before the second ...; or 1, 3
    ...: it crosses one. The part of a series that is cut begins with its first future and ends with its last."""
    series, begin = train.locate(index)
    first = train.first_future[series]
    steps = (train.counts[series] - 1) * train.stride + train.horizon
    stretch = np.zeros(len(index), dtype=np.int64)
    for k, share in enumerate(CUTS):
        cut = first + np.round(share * steps).astype(np.int64)
        stretch[begin + train.horizon > cut] = 2 * k + 1
        stretch[begin >= cut] = 2 * k + 2
    return stretch


def _moments(
    windows: Windows,
    index: NDArray[np.int64],
    ridge: Tensor,
    weightings: Collection[str] = tuple(WEIGHTINGS),
    channels: slice = slice(None),
) -> dict[str, Moments]:
    """Moments of some windows and channels, by weighting."""
    size, horizon = windows.context_length + 2, windows.horizon
    xx = {name: torch.zeros(size, size, dtype=torch.float64) for name in weightings}
    xr = {name: torch.zeros(size, horizon, dtype=torch.float64) for name in weightings}
    rr = dict.fromkeys(weightings, torch.zeros((), dtype=torch.float64))
    n = 0
    line = ridge[:, :-1].float().T  # [T+1, H]
    for x, level, y, seen in rows(windows, index, channels=channels):
        missed = y - x @ line
        if seen is not None:
            missed = missed.masked_fill(~seen, 0.0)
        n += missed.numel()
        x = torch.cat([x, level], dim=1)
        for name in weightings:
            offset = WEIGHTINGS[name]
            weight = 1.0 if offset is None else (x[:, :-2].var(1, correction=0, keepdim=True) + offset).rsqrt()
            a, b = x * weight, missed * weight
            xx[name] += (a.T @ a).double()
            xr[name] += (a.T @ b).double()
            rr[name] = rr[name] + b.square().sum(dtype=torch.float64)
    return {name: Moments(xx[name], xr[name], rr[name], n) for name in weightings}


@dataclass(frozen=True)
class Candidate:
    """One of the lines that folds choose among."""

    weighting: str
    penalty: float
    readings: tuple[Reading, ...]  # of the lines whose mean it is
    reversion: float = 0.0

    def __str__(self) -> str:
        if any(reading.means for reading in self.readings):
            reach = " beside ".join(map(str, self.readings))
        else:
            reach = " and ".join(str(reading.n_steps) for reading in self.readings) + " steps"
        words = f"{self.weighting} rows, {reach}, penalty {self.penalty:g}"
        return f"{words}, with reversion" if self.reversion else words

    def line(self, moments: Mapping[str, Moments], reference: Tensor) -> Tensor:
        """Its weights, bias and reversion [H, T+2]."""
        found = moments[self.weighting]
        return self.mean([_penalized(found, reference, self.penalty, one) for one in self.readings], found, reference)

    def mean(self, parts: Sequence[Tensor], found: Moments, reference: Tensor) -> Tensor:
        """The same from the lines [H, T+1] whose mean it is."""
        line = torch.stack(list(parts)).mean(0)  # [H, T+1]
        missed = found.xr[-1] + (reference[:, :-1] - line) @ found.xx[:-1, -1]  # times the level [H]
        slope = missed / found.xx[-1, -1].clamp(min=1e-12)
        return torch.cat([line, self.reversion * slope[:, None]], dim=1)


def by_steps(context_length: int, reversions: Sequence[float] = (0.0,)) -> list[Candidate]:
    """All candidates that read the context step by step."""
    lengths = (min(context_length, max(2, round(share * context_length))) for share in REACHES)
    readings = tuple(last_steps(context_length, length) for length in lengths)
    counts = range(1, len(readings) + 1)
    return [
        Candidate(weighting, penalty, readings[:n], reversion)
        for weighting, penalty, n, reversion in product(WEIGHTINGS, PENALTIES, counts, reversions)
    ]


def lines_of(candidates: Iterable[Candidate], moments: Mapping[str, Moments], reference: Tensor) -> Iterator[Tensor]:
    """The weights, bias and reversion [H, T+2] of each; what neighbors are the mean of is solved once."""
    for (weighting, penalty), alike in groupby(candidates, key=lambda one: (one.weighting, one.penalty)):
        found = moments[weighting]
        parts: dict[Reading, Tensor] = {}
        for one in alike:
            for reading in one.readings:
                if reading not in parts:
                    parts[reading] = _penalized(found, reference, penalty, reading)
            yield one.mean([parts[reading] for reading in one.readings], found, reference)


def _candidates(
    moments: Mapping[str, Moments], ridge: Tensor, reversions: Sequence[float] = REVERSIONS
) -> tuple[list[Candidate], Tensor]:
    """All candidates, and their weights, bias and reversion [n, H, T+2]."""
    candidates = by_steps(ridge.shape[1] - 2, reversions)
    return candidates, torch.stack(list(lines_of(candidates, moments, ridge)))


def plain_line(moments: Mapping[str, Moments], reference: Tensor, penalty: float) -> Tensor:
    """The ridge, with no reversion beside it: [H, T+2]."""
    size = reference.shape[1] - 2
    return nn.functional.pad(_penalized(moments["plain"], reference, penalty, last_steps(size, size)), (0, 1))


def _penalized(moments: Moments, ridge: Tensor, share: float, reading: Reading) -> Tensor:
    """Penalized least squares on what is read of the context, as weights on all of it: [H, T+1].

    The constant is not penalized. All is a linear map of the whole context, and so are its moments.
    """
    cut, middle = reading.relative()
    xx = moments.xx[:-1, :-1]
    xy = moments.xr[:-1] + xx @ (ridge[:, :-1].T - middle)  # [T+1, H]
    xx, xy = cut.T @ xx @ cut, cut.T @ xy
    mean_square = xx.diagonal()[: reading.n_steps].mean().clamp(min=1e-12)
    shrink = torch.full((len(xx),), share, dtype=torch.float64) * mean_square
    shrink[-1] = 0.0
    solved = torch.linalg.solve(xx + torch.diag(shrink + 1e-10 * mean_square), xy)  # [D+1, H]
    return (cut @ solved + middle).T
