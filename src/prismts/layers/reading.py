"""What a line reads of a context: steps one by one, or the past before them as the mean of its seasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Reading", "last_steps", "seasonal_readings"]

RECENT = 2  # of the first season: what is read step by step
NEAR = 14  # of the first season: a near past, where the context holds twice as much


@dataclass(frozen=True, eq=False)
class Reading:
    """Inputs that are sums over the context, and the steps whose mean they and the future stand relative to."""

    inputs: Tensor  # [T, D]: single steps first
    n_steps: int
    middle: Tensor  # [T], sums to 1
    means: tuple[tuple[int, int], ...] = ()  # (season, how many of them) of the inputs behind the steps

    def __str__(self) -> str:
        told = [f"{self.n_steps} steps", *(_told(season, n) for season, n in self.means)]
        center = f" around the mean of {int((self.middle > 0).sum())}" if self.means else ""
        return " and ".join(told) + center

    def relative(self) -> tuple[Tensor, Tensor]:
        """Maps [T+1, D+1] of a context and its one to inputs relative to the middle and a one, and [T+1, 1] to it."""
        cut = torch.zeros(len(self.inputs) + 1, self.inputs.shape[1] + 1, dtype=torch.float64)
        cut[:-1, :-1] = self.inputs - self.middle[:, None] * self.inputs.sum(0)
        cut[-1, -1] = 1.0
        return cut, torch.nn.functional.pad(self.middle, (0, 1))[:, None]


def last_steps(context_length: int, length: int) -> Reading:
    """The last steps of a context, one by one, relative to their own mean."""
    steps = torch.eye(context_length, dtype=torch.float64)[:, context_length - length :]
    return Reading(steps, length, _mean_of_last(context_length, length))


def seasonal_readings(context_length: int, seasons: Sequence[int]) -> dict[int, list[Reading]]:
    """By season, readings of the last two of the first ``seasons``, and of what lies before them in the mean.

    The mean season has an input for each of its steps: the mean of that step over all whole seasons before the recent
    steps, times the root of their number, so that it is penalized as equal weights on all of them would be. Where the
    context holds twice the near past, of 14 seasons, there are means over the near past, over all, and over both.
    Inputs are relative to the mean of the recent steps, or of the near past. Seasons that the context does not hold
    twice have none.
    """
    first = seasons[0] if seasons else 0
    recent, near = RECENT * first, NEAR * first
    if context_length < 2 * near:
        near = context_length
    found: dict[int, list[Reading]] = {}
    for season in seasons:
        if season < 2 or context_length < recent + RECENT * first or context_length < 2 * season:
            continue
        plans = [((season, near),)]
        if near < context_length:
            plans += [((season, context_length),), ((first, near), (season, context_length))]
        whole = [tuple((each, (reach - recent) // each) for each, reach in plan) for plan in plans]
        found[season] = [
            _reading(context_length, recent, means, center)
            for means in whole
            if all(n for _, n in means)
            for center in (recent, near)
        ]
    return {season: readings for season, readings in found.items() if readings}


def _reading(context_length: int, recent: int, means: tuple[tuple[int, int], ...], center: int) -> Reading:
    begin = context_length - recent
    inputs = [torch.eye(context_length, dtype=torch.float64)[:, begin:]]
    for season, n in means:
        steps = torch.arange(begin - n * season, begin)
        each = torch.zeros(context_length, season, dtype=torch.float64)
        each[steps, (steps - begin) % season] = n**-0.5
        inputs.append(each)
    middle = _mean_of_last(context_length, center)
    return Reading(torch.cat(inputs, 1), recent, middle, means)


def _told(season: int, n: int) -> str:
    return f"the mean of {n} seasons of {season}" if n > 1 else f"a season of {season}"


def _mean_of_last(context_length: int, length: int) -> Tensor:
    mean = torch.zeros(context_length, dtype=torch.float64)
    mean[context_length - length :] = 1 / length
    return mean
