"""How the learning rate moves: a function of the step alone, so that a resumed run goes on where it was."""

from __future__ import annotations

import math
from collections.abc import Callable

from prismts.errors import unknown_name

__all__ = ["SCHEDULES", "make_schedule"]


def _paper(step: int, steps_per_epoch: int, n_steps: int) -> float:
    """Constant, then 0.9 times as much after each epoch: the ConvTimeNet authors' forecasting schedule.

    Their condition reads as two constant epochs, but it is asked after an epoch for the next one and begins with a
    power of zero, so the first four run at the full rate. This is what their code does.
    """
    return 0.9 ** max(0, step // steps_per_epoch - 3)


def _one_cycle(step: int, steps_per_epoch: int, n_steps: int) -> float:
    """Up from a tenth to the top within the first 20 % of all steps, then down along a cosine to a thousandth."""
    rise = max(1, round(0.2 * n_steps))
    if step < rise:
        return 0.1 + 0.9 * step / rise
    share = min(1.0, (step - rise) / max(1, n_steps - rise))
    return 0.001 + 0.999 * 0.5 * (1 + math.cos(math.pi * share))


def _warm_cosine(step: int, steps_per_epoch: int, n_steps: int) -> float:
    """Up to the top within the first tenth of all steps, then down along a cosine: DeformableTST's on ETTh1."""
    rise = max(1, round(0.1 * n_steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, n_steps - rise))))


def _every_5(step: int, steps_per_epoch: int, n_steps: int) -> float:
    """0.9 times as much after every fifth epoch: the ConvTimeNet authors' classification schedule."""
    return 0.9 ** (step // steps_per_epoch // 5)


def _every_20(step: int, steps_per_epoch: int, n_steps: int) -> float:
    """0.9 times as much after every twentieth epoch: the same, for the sets on which they decay more slowly."""
    return 0.9 ** (step // steps_per_epoch // 20)


def _halving(step: int, steps_per_epoch: int, n_steps: int) -> float:
    """Constant for two epochs, then half as much after each: "type1" in the code of DLinear, iTransformer, TimesNet."""
    return 0.5 ** max(0, step // steps_per_epoch - 1)


def _constant(step: int, steps_per_epoch: int, n_steps: int) -> float:
    """The same throughout."""
    return 1.0


SCHEDULES: dict[str, Callable[[int, int, int], float]] = {
    "paper": _paper,
    "paper_every_5": _every_5,
    "paper_every_20": _every_20,
    "one_cycle": _one_cycle,
    "warm_cosine": _warm_cosine,
    "halving": _halving,
    "constant": _constant,
}


def make_schedule(name: str, steps_per_epoch: int, max_epochs: int) -> Callable[[int], float]:
    """The factor on the learning rate at each step."""
    if name not in SCHEDULES:
        raise unknown_name("schedule", name, SCHEDULES)
    schedule = SCHEDULES[name]
    return lambda step: schedule(step, steps_per_epoch, steps_per_epoch * max_epochs)
