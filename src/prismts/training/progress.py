"""A bar over the whole training: which epoch, windows or cases a second, the losses, how long it will still take."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

__all__ = ["TrainingBar"]


class TrainingBar(pl.Callback):
    """One bar on standard error, for all epochs together; it ends early when training does."""

    def __init__(self, title: str, batches_per_epoch: int, max_epochs: int) -> None:
        self.title, self.per_epoch, self.total = title, batches_per_epoch, batches_per_epoch * max_epochs
        self._bar: Progress | None = None
        self._task: Any = None
        self._began, self._n_items = 0.0, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar, at the place a resumed run has reached."""
        if not trainer.is_global_zero:
            return
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=16), TaskProgressColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[pace]}"), TextColumn("{task.fields[losses]}"), console=Console(stderr=True),
        )  # fmt: skip
        self._bar.start()
        done = trainer.current_epoch * self.per_epoch
        self._task = self._bar.add_task(self.title, total=self.total, completed=done, pace="", losses="")
        self._began, self._n_items = time.perf_counter(), 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """One step on."""
        if self._bar is not None:
            done = trainer.current_epoch * self.per_epoch + batch_idx + 1
            self._n_items += len(batch[0])
            pace = self._n_items / max(time.perf_counter() - self._began, 1e-9)
            self._bar.update(
                self._task, completed=done, pace=f"{pace:,.0f}/s",
                description=f"{self.title}, epoch {trainer.current_epoch + 1}",
            )  # fmt: skip

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the newest losses."""
        if self._bar is not None and "val_loss" in trainer.callback_metrics:
            self._bar.update(self._task, losses=f"val {float(trainer.callback_metrics['val_loss']):.4f}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the bar, so that the message stands on a line of its own."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
