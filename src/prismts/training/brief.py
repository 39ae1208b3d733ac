"""Cut every training short, and learn how long a whole one would take.

    with cut_short() as trainings:
        Forecaster("patchtst").fit(table)
    print(sum(training.most for training in trainings))

A few steps say what a step takes, and the data how many there are. What is fitted inside has hardly learned anything.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import lightning.pytorch as pl

__all__ = ["Length", "Stopwatch", "cut_short", "lengths"]


@dataclass(frozen=True)
class Length:
    """How long a training takes, in seconds."""

    least: float  # if patience ends it as soon as it can
    most: float  # if all epochs are made
    spent: float = 0.0  # on the few steps that tell it


_asked: ContextVar[list[Length] | None] = ContextVar("asked", default=None)


@contextmanager
def cut_short() -> Generator[Sequence[Length]]:
    """Inside, in this thread, every training ends after a few steps; the list gets one entry for each of them."""
    found: list[Length] = []
    token = _asked.set(found)
    try:
        yield found
    finally:
        _asked.reset(token)


def lengths() -> list[Length] | None:
    """Where trainings are to write how long they take; None where they are not to be cut short."""
    return _asked.get()


class Stopwatch(pl.Callback):
    """Times the steps of a training that is cut short, and writes down how long the whole of it takes.

    Args:
        found: where it is written.
        n_epochs: of the whole training, at most.
        patience: epochs without a better loss after which it ends.
        n_steps: batches of an epoch.
        n_checks: batches of validation.
    """

    n_timed = 8  # steps that are made; the first one allocates, so it takes longer

    def __init__(self, found: list[Length], *, n_epochs: int, patience: int, n_steps: int, n_checks: int) -> None:
        self.found, self.n_steps, self.n_checks = found, n_steps, n_checks
        self.most = n_epochs
        self.least = min(n_epochs, patience + 1) if n_checks else n_epochs
        self.began = time.perf_counter()
        self.steps: list[float] = []  # moments
        self.checks: list[float] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The first batch is gathered from here on."""
        self.steps.append(time.perf_counter())

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A step is made."""
        self.steps.append(time.perf_counter())

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The first batch of validation is gathered from here on."""
        self.checks.append(time.perf_counter())

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """A batch is checked."""
        self.checks.append(time.perf_counter())

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write it down."""
        epoch = self.n_steps * _each(self.steps) + self.n_checks * _each(self.checks)
        self.found.append(Length(self.least * epoch, self.most * epoch, time.perf_counter() - self.began))


def _each(moments: Sequence[float]) -> float:
    """Seconds from one moment to the next, the first time left out where there are more."""
    took = [after - before for before, after in pairwise(moments)]
    return median(took[1:] or took) if took else 0.0
