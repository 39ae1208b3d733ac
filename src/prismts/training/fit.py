"""Train a model at a task: one loop for all of them, on Lightning.

A run with a folder writes a checkpoint after every epoch and, called again, goes on after the last one it finished;
the order of the data and the dropout masks depend on seed and epoch alone, so the result is that of a run without a
break.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass, field, replace
from numbers import Real
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Protocol

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ModelCheckpoint
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from prismts.errors import PrismError, SavedModelError, SettingsError, unknown_name
from prismts.layers.products import quick_products
from prismts.models.failure import signs_of_failure
from prismts.ranges import expect_counts
from prismts.training.batches import EpochBatches, Source, Stream, batches_of
from prismts.training.brief import Stopwatch, lengths
from prismts.training.checkpoint import SafeCheckpointIO, read_tree, write_tree
from prismts.training.memory import keep_pages
from prismts.training.progress import TrainingBar
from prismts.training.schedules import SCHEDULES, make_schedule
from prismts.training.watch import tell_watchers
from prismts.writing import write_whole

__all__ = [
    "FitConfig", "FitResult", "Task", "TrainingDiverged", "claim", "fit", "make_optimizer", "require_finite", "span_of",
]  # fmt: skip


_LAST = "last.safetensors"
_FEW_WORDS = 60  # characters of a part of a fingerprint that are kept as they are; a hash has more
_HASH = "sha256 "
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune")
PRECISIONS = ("float32", "bf16")


class Task(Protocol):
    """What training needs to know of a task: what to follow downhill, and what validation judges by."""

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Mean loss of a batch, to follow downhill."""
        ...

    def errors(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Sum of what validation judges by, and how many values it counts."""
        ...


class TrainingDiverged(PrismError, ArithmeticError):
    """The loss is no number any more."""


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How a model is trained. Lengths are in epochs unless the name says otherwise."""

    max_epochs: int = 10
    min_steps: int = 0  # more epochs than max_epochs where the data are so few that they would make fewer steps
    patience: int = 3  # epochs without a better validation loss before training stops
    batch_size: int = 256  # windows, over all processes together
    learning_rate: float = 5e-4
    line_rate: float = 0.0  # share of the learning rate for the solved line beside the network; 0 keeps it as solved
    weight_decay: float = 0.0
    schedule: str = "paper"
    gradient_clip: float | None = 4.0  # largest norm of the gradient
    averaging: float | None = None  # decay per step of a moving average of the weights, which is what is kept
    drop_last: bool = False  # leave the last partial batch of an epoch out of training
    channels_at_once: int = 64  # of a wide table in one batch, for models that read channels apart
    precision: Literal["float32", "bf16"] = "float32"
    compile_mode: str | None = None  # of torch.compile: "default", or "reduce-overhead" for CUDA graphs; None: as it is
    accelerator: str = "auto"
    devices: int | str = "auto"
    n_nodes: int = 1
    strategy: str = "auto"

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            make_schedule(self.schedule, 1, 1)
        expect_counts(self, "max_epochs", "patience", "batch_size", "channels_at_once", "n_nodes")
        for name in ("learning_rate", "weight_decay", "line_rate", "min_steps", "gradient_clip"):
            value: Any = getattr(self, name)
            if value is None and name == "gradient_clip":
                continue
            if not isinstance(value, Real) or value is True:
                raise SettingsError(f"{name} is a number, but got {value!r}.")
            if not 0 <= float(value) < math.inf:
                raise SettingsError(f"{name} is a finite number of at least 0, but got {value!r}.")
        if self.learning_rate <= 0:
            raise SettingsError(f"learning_rate is above 0, but got {self.learning_rate}.")
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)
        if self.averaging is not None and not 0 < self.averaging < 1:
            raise SettingsError(f"averaging is a decay between 0 and 1, or None, but got {self.averaging}.")
        if self.compile_mode not in (None, *COMPILE_MODES):
            raise unknown_name("compile_mode", self.compile_mode, COMPILE_MODES)

    def changed(self, changes: Mapping[str, Any] | None) -> FitConfig:
        """These settings with some replaced; an unknown one is an error that offers its nearest neighbor."""
        for key in changes or {}:
            if key not in self.__dataclass_fields__:
                raise unknown_name("training setting", key, self.__dataclass_fields__)
        changes = dict(changes or {})
        if "max_epochs" in changes:
            changes.setdefault("min_steps", 0)  # who names the epochs wants no more of them
        try:
            return replace(self, **changes)
        except TypeError as error:
            raise SettingsError(f"A training setting has a value of the wrong type: {error}.") from error


@dataclass(frozen=True)
class FitResult:
    """How a training went."""

    best_epoch: int  # counted from 1
    best_loss: float  # on validation, or on train where there is no validation
    history: tuple[dict[str, float], ...] = field(repr=False)  # one entry per epoch: train_loss, val_loss, seconds
    seconds: float = 0.0
    resumed_from: int | None = None  # epochs that an earlier, broken run had finished


def fit(
    model: nn.Module,
    task: Task,
    train: Source | Stream,
    validation: Source | Stream | None = None,
    *,
    config: FitConfig | None = None,
    seed: int = 0,
    folder: Path | str | None = None,
    fingerprint: str = "",
    parts: Mapping[str, Any] | None = None,
    progress: bool = True,
    title: str = "training",
    keep: Literal["best", "last"] = "best",
) -> FitResult:
    """Train ``model`` in place and leave it with the weights of its best epoch, in evaluation mode.

    Args:
        model: carries the head of the task.
        task: what to minimize, and what validation judges by.
        train: where training batches come from.
        validation: decides which epoch is best; without it, the last one is.
        config: how to train.
        seed: of the order of batches and of dropout.
        folder: keeps checkpoints, so that a killed run resumes when it is called again; None keeps none.
        fingerprint: whatever else must be equal for a resume (the data, the model); the settings are always compared.
        parts: what the fingerprint is made of, by name, so that a refusal can say what differs.
        progress: whether to show a bar.
        title: what the bar says.
        keep: which epoch counts as the best: that of the lowest validation loss, or the last, for losses that cannot be
            compared from epoch to epoch because the truth moves.

    Raises:
        TrainingDiverged: the loss became infinite or no number.
        SavedModelError: the folder holds a run with other settings or other data.
    """
    config = config or FitConfig()
    if train.n_channels <= config.channels_at_once:  # a wide table needs its memory for itself
        keep_pages()
    began = time.perf_counter()
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(TemporaryDirectory())) if folder is None else Path(folder)
        claim(home, config, seed, fingerprint, parts)
        stack.enter_context(_quiet_lightning())
        stack.enter_context(_interruptible())
        stack.enter_context(torch.random.fork_rng())
        stack.enter_context(quick_products() if config.compile_mode is None else _compiled(model, config.compile_mode))
        loop = _Loop(model, task, train, validation, config, seed)
        trainer, kept = _trainer(loop, home, config, progress, title)
        last = home / _LAST
        before = _where_it_is(last) if last.exists() else None
        resumed_from = None if before is None else int(before["epoch"]) + 1
        best_path = None if before is None else _best_of_stopped(before)
        if before is None or best_path is None:
            trainer.fit(loop, ckpt_path=None if before is None else str(last))
            best_path = Path(kept.best_model_path or last)
        else:
            loop.history = list(before["history"])  # patience was over: another epoch would be one too many
        best = read_tree(last if keep == "last" else best_path)
        model.load_state_dict({name.removeprefix("model."): value for name, value in best["state_dict"].items()})
    model.eval()
    history = tuple(loop.history)
    best_epoch = int(best["epoch"]) + 1
    which = "train_loss" if validation is None else "val_loss"
    best_loss = next((entry[which] for entry in history if entry["epoch"] == best_epoch), float("nan"))
    return FitResult(best_epoch, best_loss, history, time.perf_counter() - began, resumed_from)


class _Loop(pl.LightningModule):
    """What Lightning calls: the model at its task."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        train: Source | Stream,
        validation: Source | Stream | None,
        config: FitConfig,
        seed: int,
    ) -> None:
        super().__init__()
        self.model, self.task, self.config, self.seed = model, task, config, seed
        self.train_source, self.validation_source = train, validation
        self.history: list[dict[str, float]] = []
        self._sums = torch.zeros(2, dtype=torch.float64)  # sum of validation losses, and how many values
        self._train_sum, self._train_steps = torch.zeros(()), 0
        self._clock = 0.0
        apart = getattr(model, "n_channels", 0) is None
        self.channels_at_once = config.channels_at_once if apart else None
        whole = batches_of(
            train, config.batch_size, seed=seed, drop_last=config.drop_last, channels_at_once=self.channels_at_once
        )
        self.steps_per_epoch = max(1, len(whole))
        self.n_epochs, self.patience = span_of(config, self.steps_per_epoch)

    @property
    def n_checks(self) -> int:
        """Batches of validation, over all processes together."""
        if self.validation_source is None:
            return 0
        return len(batches_of(self.validation_source, self.config.batch_size, seed=None,
                              channels_at_once=self.channels_at_once))  # fmt: skip

    def batches(self, source: Source | Stream, *, training: bool) -> EpochBatches:
        """The batches of the current epoch that this process sees."""
        return batches_of(
            source,
            self.config.batch_size,
            seed=self.seed if training else None,
            epoch=self.current_epoch,
            drop_last=training and self.config.drop_last,
            channels_at_once=self.channels_at_once,
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
            whole=not training,
        )

    def train_dataloader(self) -> EpochBatches:
        """Called anew for every epoch, so that the order depends on the epoch."""
        return self.batches(self.train_source, training=True)

    def val_dataloader(self) -> Any:
        """All validation batches, in order."""
        return self.batches(self.validation_source, training=False) if self.validation_source is not None else []

    def on_train_epoch_start(self) -> None:
        """Draw dropout from seed, epoch and process alone, whatever came before."""
        torch.manual_seed((self.seed * 100_003 + self.current_epoch) * 1_009 + self.trainer.global_rank)
        self._train_sum, self._train_steps = torch.zeros((), device=self.device), 0
        self._clock = time.perf_counter()

    def training_step(self, batch: Any, _: int) -> Tensor:
        """The mean loss of a batch."""
        loss = self.task.loss(self.model, batch)
        self._train_sum += loss.detach()
        self._train_steps += 1
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin to count."""
        self._sums = torch.zeros(2, dtype=torch.float64)

    def validation_step(self, batch: Any, _: int) -> None:
        """Add the losses of a batch up."""
        total, count = self.task.errors(self.model, batch)
        self._sums += torch.stack([total.detach().cpu().double(), count.cpu().double()])

    def on_validation_epoch_end(self) -> None:
        """The mean over every value of every batch of every process, whatever the batch size."""
        total, count = self._reduce(self._sums)
        self.log("val_loss", float(total / max(count, 1.0)), sync_dist=False, rank_zero_only=False)

    def on_train_epoch_end(self) -> None:
        """Write the epoch down, and stop where the loss is no number."""
        sums = torch.stack([self._train_sum.cpu().double(), torch.tensor(float(self._train_steps)).double()])
        total, count = self._reduce(sums)
        train_loss = total / max(count, 1.0)
        entry = {"epoch": self.current_epoch + 1, "train_loss": train_loss}
        if self.validation_source is not None:
            entry["val_loss"] = float(self.trainer.callback_metrics["val_loss"])
        entry["seconds"] = time.perf_counter() - self._clock
        self.history = [old for old in self.history if old["epoch"] < entry["epoch"]] + [entry]
        self.log("train_loss", train_loss, sync_dist=False, rank_zero_only=False)
        require_finite(entry, self.config, self.model)
        tell_watchers(entry)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the history with the weights."""
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the history of the broken run."""
        self.history = list(checkpoint["history"])

    def configure_optimizers(self) -> Any:
        """AdamW and its schedule."""
        config = self.config
        # one kernel for all parameters; Lightning refuses to clip the gradients of such an optimizer under autocast
        fused = self.device.type in ("cpu", "cuda") and not (config.precision == "bf16" and config.gradient_clip)
        optimizer, schedule = make_optimizer(
            self.model, config, steps_per_epoch=self.steps_per_epoch, n_epochs=self.n_epochs, fused=fused
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _reduce(self, sums: Tensor) -> tuple[float, float]:
        if self.trainer.world_size > 1:
            sums = self.trainer.strategy.reduce(sums.to(self.device), reduce_op="sum")  # type: ignore[assignment]
        total, count = sums.tolist()
        return total, count


def span_of(config: FitConfig, steps_per_epoch: int) -> tuple[int, int]:
    """How many epochs are made at most, and after how many without a better loss training stops."""
    for_min_steps = -(-config.min_steps // steps_per_epoch)  # which are always made
    return max(config.max_epochs, for_min_steps), max(config.patience, for_min_steps)


def make_optimizer(
    model: nn.Module, config: FitConfig, *, steps_per_epoch: int, n_epochs: int, fused: bool
) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """AdamW and its schedule; the solved line beside a network stays as it is, or moves at its own rate."""
    line = [p for name, p in model.named_parameters() if ".line." in f".{name}"]
    for parameter in line:
        parameter.requires_grad_(config.line_rate > 0)
    slow = {id(p) for p in line}
    rest = [p for p in model.parameters() if id(p) not in slow]
    groups: list[dict[str, Any]] = [{"params": rest, "lr": config.learning_rate}]
    if line and config.line_rate:
        groups.append({"params": line, "lr": config.learning_rate * config.line_rate, "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(
        groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused or None
    )
    return optimizer, LambdaLR(optimizer, make_schedule(config.schedule, steps_per_epoch, n_epochs))


def require_finite(entry: Mapping[str, float], config: FitConfig, model: nn.Module) -> None:
    """Stop where the losses of an epoch are no numbers, and say what of the network is none."""
    if not all(math.isfinite(value) for value in entry.values()):
        told = [
            f"The loss is no number after epoch {entry['epoch']} (train {entry['train_loss']}). Lower learning_rate "
            f"(now {config.learning_rate}), or set gradient_clip (now {config.gradient_clip}).",
            *signs_of_failure(model).values(),
        ]
        raise TrainingDiverged(" ".join(told))


class _Last(Checkpoint):
    """A checkpoint after every epoch, whether it was the best or not.

    ``save_last`` of ModelCheckpoint (Lightning 2.6.6) writes it only where the best one was written too, so that a
    killed run would lose all epochs since. Checkpoints come last among callbacks, and this one behind ModelCheckpoint:
    what is written knows the best epoch and the patience that is left.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write it, in all processes together."""
        trainer.save_checkpoint(self.path)


def _where_it_is(last: Path) -> dict[str, Any]:
    """The last checkpoint of a run; where its folder was moved since, the paths in it are those of today."""
    checkpoint: dict[str, Any] = read_tree(last)
    home = str(last.parent.resolve())
    for key, state in checkpoint.get("callbacks", {}).items():
        if key.startswith("ModelCheckpoint") and state["dirpath"] not in (None, home):
            for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
                state[name] = str(Path(home) / Path(state[name]).name) if state[name] else state[name]
            state["best_k_models"] = {
                str(Path(home) / Path(path).name): score for path, score in state["best_k_models"].items()
            }
            state["dirpath"] = home
            write_tree(checkpoint, last)
    return checkpoint


def _best_of_stopped(checkpoint: Mapping[str, Any]) -> Path | None:
    """The best checkpoint of a run that patience has ended; None of one that was broken off or came to its end."""
    states: Mapping[str, Any] = checkpoint.get("callbacks", {})
    stopped = any(key.startswith("EarlyStopping") and state["stopped_epoch"] for key, state in states.items())
    best = next((state["best_model_path"] for key, state in states.items() if key.startswith("ModelCheckpoint")), "")
    return Path(best) if stopped and best and Path(best).exists() else None


def _trainer(
    loop: _Loop, home: Path, config: FitConfig, progress: bool, title: str
) -> tuple[pl.Trainer, ModelCheckpoint]:
    validated = loop.validation_source is not None
    keep = ModelCheckpoint(
        dirpath=home,
        filename="best-{epoch}",
        monitor="val_loss" if validated else None,
        save_top_k=1,
        save_weights_only=config.averaging is None,  # the last one has the rest; an average is only in a whole one
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    keep.FILE_EXTENSION = ".safetensors"  # type: ignore[misc,assignment]
    callbacks: list[pl.Callback] = [keep, _Last(home / _LAST)]
    if validated:
        callbacks.append(EarlyStopping("val_loss", patience=loop.patience, check_on_train_epoch_end=True))
    if config.averaging is not None:
        from lightning.pytorch.callbacks import EMAWeightAveraging

        callbacks.append(EMAWeightAveraging(decay=config.averaging))
    if progress:
        callbacks.append(TrainingBar(title, loop.steps_per_epoch, loop.n_epochs))
    if (found := lengths()) is not None:
        callbacks.append(Stopwatch(
            found, n_epochs=loop.n_epochs, patience=loop.patience, n_steps=loop.steps_per_epoch, n_checks=loop.n_checks
        ))  # fmt: skip
    brief = None if found is None else Stopwatch.n_timed
    return pl.Trainer(
        accelerator=config.accelerator,
        devices=1 if config.devices == "auto" and config.accelerator in ("auto", "cpu") else config.devices,
        num_nodes=config.n_nodes,
        strategy=config.strategy,
        precision="bf16-mixed" if config.precision == "bf16" else "32-true",
        max_epochs=loop.n_epochs if brief is None else 1,
        limit_train_batches=brief,
        gradient_clip_val=config.gradient_clip,
        callbacks=callbacks,
        plugins=[SafeCheckpointIO()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=brief if validated else 0,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        default_root_dir=home,
    ), keep


@contextlib.contextmanager
def _compiled(model: nn.Module, mode: str) -> Generator[None]:
    """Run a model through torch.compile, and leave it as it was."""
    if not any(shutil.which(name) for name in (os.environ.get("CXX") or "c++", "g++", "clang++", "cl")):
        raise SettingsError(
            f"compile_mode={mode!r} needs a C++ compiler, and none was found. Install one (g++, say), name it in the "
            "environment variable CXX, or set compile_mode=None."
        )
    model.compile(mode=mode)
    try:
        yield
    finally:
        del model._compiled_call_impl  # pyright: ignore[reportPrivateUsage]  # torch has no other way back


def claim(home: Path, config: FitConfig, seed: int, fingerprint: str, parts: Mapping[str, Any] | None = None) -> None:
    """Note whose run this folder holds, or make sure that it is ours; ``parts`` only help to say why it is not."""
    home.mkdir(parents=True, exist_ok=True)
    what = {name: value for name, value in asdict(config).items() if name != "compile_mode"}  # which changes nothing
    text = json.dumps([what, seed, fingerprint], sort_keys=True)
    mark = hashlib.sha256(text.encode()).hexdigest()
    told = {name: _told(value) for name, value in {**what, "seed": seed, **(parts or {})}.items()}
    note = home / "run.json"
    if note.exists():
        try:
            kept = json.loads(note.read_text())
            before = kept["fingerprint"]
        except (ValueError, KeyError) as error:
            raise SavedModelError(f"{note} is damaged. Delete the folder {home} to begin anew.") from error
        if before != mark:
            raise SavedModelError(
                f"{home} holds an unfinished run with other settings or other data{_differing(kept, told)}. Delete it "
                "to begin anew, or give this run another folder."
            )
        return
    write_whole(note, json.dumps({"fingerprint": mark, "parts": told}))


def _told(value: Any) -> str:
    """A part of a fingerprint as it is kept: in words where they are few, else as a hash."""
    text = json.dumps(value, sort_keys=True, default=str)
    return text if len(text) <= _FEW_WORDS else f"{_HASH}{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _differing(kept: Mapping[str, Any], now: Mapping[str, str]) -> str:
    """Which parts of two fingerprints differ, in brackets; nothing where the note is of before there were parts."""
    then: Mapping[str, str] | None = kept.get("parts")
    if then is None:
        return ""
    found: list[str] = []
    for name in dict.fromkeys([*then, *now]):
        a, b = then.get(name, "not there"), now.get(name, "not there")
        if a != b:
            found.append(name if _HASH in a + b else f"{name}: {a} then, {b} now")
    return f" ({'; '.join(found)})" if found else ""


@contextlib.contextmanager
def _interruptible() -> Generator[None]:
    """Let Ctrl-C come through as KeyboardInterrupt: Lightning ends the process, and leaves it deaf to the next one."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from stop
        raise
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _quiet_lightning() -> Generator[None]:
    """No tips, no advertisements, no warnings about worker processes that we do not want."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*(LeafSpec|isinstance.treespec).*")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
