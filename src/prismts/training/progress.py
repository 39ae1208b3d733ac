"""A bar over a whole training: which epoch, windows or cases a second, the losses, how long it will still take."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, Self, cast

import lightning.pytorch as pl
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["Bar", "TrainingBar", "waiting"]


class Bar:
    """One bar on standard error over a number of steps that is known; silent where it is not ``shown``."""

    def __init__(self, title: str, total: int, *, done: int = 0, shown: bool = True) -> None:
        self.title, self.n_items, self.began = title, 0, time.perf_counter()
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=16), TaskProgressColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[pace]}"), TextColumn("{task.fields[losses]}"), console=Console(stderr=True),
            disable=not shown,
        )  # fmt: skip
        self._task = self._bar.add_task(title, total=total, completed=done, pace="", losses="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def move(self, n_steps: int, *, n_items: int = 0, more: str = "") -> None:
        """So many steps on, which read ``n_items`` windows or cases; ``more`` stands behind the title."""
        self.n_items += n_items
        pace = self.n_items / max(time.perf_counter() - self.began, 1e-9)
        self._bar.update(self._task, advance=n_steps, pace=f"{pace:,.0f}/s", description=f"{self.title}{more}")

    def say(self, losses: str) -> None:
        """Show the newest losses."""
        self._bar.update(self._task, losses=losses)


@contextmanager
def waiting(title: str, *, shown: bool = True) -> Generator[None]:
    """Inside, a line on standard error says what takes how long already; for work whose end is not known."""
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown) as told:
        told.add_task(title, total=None)
        yield


class TrainingBar(pl.Callback):
    """One bar for all epochs of one training together; it ends early when training does."""

    def __init__(self, title: str, batches_per_epoch: int, max_epochs: int) -> None:
        self.title, self.per_epoch, self.total = title, batches_per_epoch, batches_per_epoch * max_epochs
        self._bar: Bar | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar, at the place a resumed run has reached."""
        if trainer.is_global_zero:
            self._bar = Bar(self.title, self.total, done=trainer.current_epoch * self.per_epoch).__enter__()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """One step on."""
        if self._bar is not None:
            self._bar.move(1, n_items=_n_items(batch), more=f", epoch {trainer.current_epoch + 1}")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the newest losses."""
        if self._bar is not None and "val_loss" in trainer.callback_metrics:
            self._bar.say(f"val {float(trainer.callback_metrics['val_loss']):.4f}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the bar, so that the message stands on a line of its own."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.__exit__()
            self._bar = None


def _n_items(batch: Any) -> int:
    """Windows or cases of a batch: of all its tasks, and of what stands in one beside the answers of a teacher."""
    if isinstance(batch, Mapping):
        return sum(_n_items(one) for one in cast(Mapping[str, Any], batch).values())
    first = batch[0]
    return _n_items(first) if isinstance(first, tuple) else len(first)
