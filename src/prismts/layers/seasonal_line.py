"""A line that reads the steps of today one by one and the days and weeks before in the mean; in closed form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import torch
from torch import Tensor

from prismts.data.calendar import season_lengths
from prismts.data.period import period_of_longest
from prismts.layers.individual_line import IndividualLine
from prismts.layers.line import (
    WEIGHTINGS,
    Candidate,
    Moments,
    ahead_in_all,
    by_steps,
    folds_of,
    gain_over_folds,
    lines_of,
    mean_gains,
    plain_line,
)
from prismts.layers.linear import RidgeMap
from prismts.layers.reading import seasonal_readings
from prismts.windows import Windows

__all__ = ["MeanLine", "SeasonalLine"]

PENALTIES = (1e-2, 1e-1, 1.0)  # of lines that read seasons, as shares of the mean square of an input step
LEVEL = 0.01  # of the error: lines whose folds are that close to the best ones are level with it


class SeasonalLine(IndividualLine):
    """The mean of lines that read the past in different ways, where every fold of the past says that it helps.

    One way is that of the chosen line: step by step. The others have an input for each step of a season: the last two
    days step by step, and of the days before, or of the weeks, each hour in the mean. That is a quarter of the weights
    or less, so that eight weeks of hours can be read where a line of 1344 steps would learn their noise. Seasons are
    those of the frequency, the day and the week of hours, or the period of the training part where it is unknown.

    Of each way the candidate of lowest mean error over the folds of ``ChosenLine`` is kept, and the mean of some or all
    of these is what counts: of those ahead of the plain ridge in every fold, the one of lowest mean log ratio to its
    error, or one of more ways that is level with it within 1 %, because lines that miss different things are better in
    the mean than folds can tell. Where none is ahead in every fold it is the plain ridge.

    Each channel then bends that line its own way, as in ``IndividualLine``, where folds say that this takes 5 % off the
    error or more: channels of different kinds, a price and a wind forecast, are worth that; those of one kind are told
    apart by a network as well. ``docs/log.md`` says what all this gave on stretches after those that chose.
    """

    least_gain = 0.05

    @torch.no_grad()
    def solve_alike(self, train: Windows, validation: Windows | None) -> str:
        """Set the weights of the line for all channels, and return what was chosen, in words."""
        said = RidgeMap.solve(self, train, validation)
        ridge, penalty = self.full().double(), self.penalty
        self._chosen = None
        known, folds = folds_of(train, validation, ridge)
        if len(folds) < 2:
            return f"{said} (the training part is too short for folds that could choose another line)"
        ways = _ways(self.weight.shape[1], _seasons(train))
        best = [_best_of(way, folds, ridge) for way in ways]
        mixes = [mix for n in range(1, len(best) + 1) for mix in combinations(range(len(best)), n)]
        errors: list[Tensor] = []
        for learned, judge in folds:
            parts = torch.stack(list(lines_of(best, learned, ridge)))
            means = [parts[list(mix)].mean(0) for mix in mixes]
            errors.append(judge.errors(torch.stack([plain_line(learned, ridge, penalty), *means]) - ridge))
        kept = _most_ways([len(mix) for mix in mixes], torch.stack(errors))
        if kept is None:
            return f"{said} (no other line was ahead of it in all of {len(folds)} folds)"
        self._chosen = MeanLine(tuple(best[k] for k in mixes[kept]))
        self._take(self._chosen.line(known, ridge))
        gain = gain_over_folds(torch.stack(errors), kept)
        return f"{self._chosen}, {gain:.1%} ahead of the ridge over {len(folds)} folds"


@dataclass(frozen=True)
class MeanLine:
    """The mean of several lines."""

    parts: tuple[Candidate, ...]

    @property
    def weighting(self) -> str:
        """How rows count for some of them: relative where any are, so that moments by it hold all that is needed."""
        return next((part.weighting for part in self.parts if part.weighting != "plain"), "plain")

    def __str__(self) -> str:
        return "; ".join(map(str, self.parts))

    def line(self, moments: Mapping[str, Moments], reference: Tensor) -> Tensor:
        """Weights, bias and reversion [H, T+2]."""
        return torch.stack([part.line(moments, reference) for part in self.parts]).mean(0)


def _seasons(train: Windows) -> tuple[int, ...]:
    """The seasons of the frequency; where there are none, the period of the longest training part, if it has one."""
    if seasons := season_lengths(train.data.frequency):
        return seasons
    ends = train.first_future + (train.counts - 1) * train.stride + train.horizon
    period = period_of_longest(train.data, ends)
    return (period,) if period > 1 else ()


def _ways(context_length: int, seasons: Sequence[int]) -> list[list[Candidate]]:
    """Candidates by the way in which they read the past."""
    by_season = seasonal_readings(context_length, seasons).values()
    return [
        by_steps(context_length),
        *([Candidate(*one) for one in product(WEIGHTINGS, PENALTIES, [(reading,) for reading in readings])]
          for readings in by_season),
    ]  # fmt: skip


def _best_of(way: Sequence[Candidate], folds: Sequence[tuple[dict[str, Moments], Moments]], ridge: Tensor) -> Candidate:
    """The candidate of lowest mean log error over the folds."""
    errors = [
        torch.cat([judge.errors((line - ridge)[None]) for line in lines_of(way, learned, ridge)])
        for learned, judge in folds
    ]
    return way[int(torch.stack(errors).log().sum(0).argmin())]


def _most_ways(n_ways: Sequence[int], errors: Tensor) -> int | None:
    """Of the means ahead of the ridge in every fold and level with the best of them, the best one of most ways."""
    best = ahead_in_all(errors)
    if best is None:
        return None
    gains = mean_gains(errors)
    level = [k for k in range(len(n_ways)) if gains[k] <= gains[best] + LEVEL]
    return min(level, key=lambda k: (-n_ways[k], float(gains[k])))
