"""Train several networks of one form at once: their weights stacked, each step one pass through all of them.

A small network leaves most of an accelerator idle: each of its steps is a few hundred short launches. Stacked, K
networks make one launch where one network makes one. Networks are of one form if nothing but their weights, their
seeds, their data and what only the optimizer reads (rates, decay, schedule, patience, epochs) tells them apart. Each
keeps its own order of batches, optimizer, schedule, clipping, patience and best epoch, so it learns what it would have
learned alone; only dropout and augmentation draw other numbers.
"""

from __future__ import annotations

import contextlib
import copy
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.utils import clip_grad_norm_

from prismts.layers.paths import written_out
from prismts.layers.products import quick_products
from prismts.training.batches import Source, Stream, batches_of
from prismts.training.checkpoint import read_tree, write_tree
from prismts.training.fit import FitConfig, FitResult, Task, claim, fit, make_optimizer, require_finite, span_of
from prismts.training.progress import Bar
from prismts.training.watch import tell_watchers

__all__ = ["Stack", "Training", "fit_together"]

CHECKPOINT = "together.safetensors"
_SHARED = ("batch_size", "drop_last", "precision", "channels_at_once", "accelerator")  # what networks must agree on


@dataclass(frozen=True, kw_only=True)
class Training:
    """One network to train; the fields are the arguments of :func:`prismts.training.fit.fit`."""

    model: nn.Module
    task: Task
    train: Source | Stream
    validation: Source | Stream | None = None
    config: FitConfig = field(default_factory=FitConfig)
    seed: int = 0
    folder: Path | str | None = None
    fingerprint: str = ""
    parts: Mapping[str, Any] | None = None
    progress: bool = True
    title: str = "training"
    keep: Literal["best", "last"] = "best"

    def alone(self) -> FitResult:
        """Train it by itself."""
        names = ("config", "seed", "folder", "fingerprint", "parts", "progress", "title", "keep")
        how = {name: getattr(self, name) for name in names}
        return fit(self.model, self.task, self.train, self.validation, **how)


def fit_together(trainings: Sequence[Training]) -> list[FitResult]:
    """Train networks in place, those of one form as one, the others one after another; results in the order given.

    What can be stacked: models and tasks whose class says ``stacks = True``, on one device, without averaged weights.
    A network with a ``folder`` resumes there after its last whole epoch.

    Raises:
        TrainingDiverged: the loss of a network became infinite or no number.
        SavedModelError: a folder holds a run with other settings or other data.
    """
    groups: dict[str, list[int]] = {}
    for i, one in enumerate(trainings):
        groups.setdefault(_form(one) if _can_stack(one) else f"alone {i}", []).append(i)
    results: dict[int, FitResult] = {}
    for numbers in groups.values():
        group = [trainings[i] for i in numbers]
        begun = any(one.folder is not None and (Path(one.folder) / CHECKPOINT).exists() for one in group)
        found = _fit_stacked(group) if len(group) > 1 or begun else [group[0].alone()]
        results |= dict(zip(numbers, found, strict=True))
    return [results[i] for i in range(len(trainings))]


def _can_stack(one: Training) -> bool:
    if one.folder is not None and (Path(one.folder) / "last.safetensors").exists():
        return False  # begun alone, and so it goes on
    config = one.config
    one_device = config.devices in ("auto", 1) and config.n_nodes == 1 and config.strategy == "auto"
    plain = (
        one_device and config.averaging is None and config.compile_mode is None and not isinstance(one.train, Stream)
    )
    return plain and bool(getattr(one.model, "stacks", False)) and bool(getattr(one.task, "stacks", False))


def _form(one: Training) -> str:
    """What must be equal for networks to be stacked, as text."""
    parts: list[Any] = [(name, getattr(one.config, name)) for name in _SHARED]
    parts += [one.keep, len(cast(Source, one.train)), one.train.n_channels]
    parts += [None if one.validation is None else len(cast(Source, one.validation))]
    parts += [_settings(one.task)]
    for name, module in one.model.named_modules():
        weights = [(n, tuple(p.shape), p.dtype, p.requires_grad) for n, p in module.named_parameters(recurse=False)]
        buffers = [(n, tuple(b.shape), b.dtype) for n, b in module.named_buffers(recurse=False)]
        parts.append((name, _settings(module), weights, buffers))
    return repr(parts)


def _settings(thing: Any) -> list[Any]:
    """The class of an object and what it was set to; tensors by their values."""
    own = {name: value for name, value in vars(thing).items() if not name.startswith("_") and name != "training"}
    seen = [(n, v.tolist() if isinstance(v, Tensor) else v) for n, v in sorted(own.items())]
    return [type(thing).__qualname__, *seen]


class _Member:
    """One network of a stack on its way."""

    def __init__(self, one: Training, place: torch.device) -> None:
        self.given, self.place = one, place
        self.model, self.config = one.model.to(place), one.config
        self.channels_at_once = one.config.channels_at_once if getattr(one.model, "n_channels", 0) is None else None
        self.epoch = 0  # epochs that are done
        self.n_batches = len(self.batches(one.train, training=True))
        self.n_epochs, self.patience = span_of(one.config, max(1, self.n_batches))
        self.optimizer, self.schedule = make_optimizer(
            self.model, one.config, steps_per_epoch=max(1, self.n_batches), n_epochs=self.n_epochs, fused=True
        )
        self.history: list[dict[str, float]] = []
        self.best_loss, self.best_epoch, self.waited = float("inf"), 0, 0
        self.best: dict[str, Tensor] = {}
        self.seconds = 0.0
        self.resumed_from: int | None = None
        if one.folder is not None:
            claim(Path(one.folder), one.config, one.seed, one.fingerprint, one.parts)
            self._resume(Path(one.folder) / CHECKPOINT)

    @property
    def is_done(self) -> bool:
        """Whether no epoch is left, or patience is over."""
        return self.epoch >= self.n_epochs or (self.given.validation is not None and self.waited >= self.patience)

    def batches(self, source: Source | Stream, *, training: bool) -> Any:
        """The batches of the current epoch, as ``fit`` puts them together."""
        return batches_of(
            source, self.config.batch_size, seed=self.given.seed if training else None, epoch=self.epoch,
            drop_last=training and self.config.drop_last, channels_at_once=self.channels_at_once, whole=not training,
        )  # fmt: skip

    def step(self) -> None:
        """Follow the gradients that are there."""
        if self.config.gradient_clip:
            clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)

    def close_epoch(self, train_loss: float, val_loss: float | None, seconds: float) -> None:
        """Write the epoch down, and keep the weights where it is the best."""
        self.epoch += 1
        entry = {"epoch": self.epoch, "train_loss": train_loss}
        if val_loss is not None:
            entry["val_loss"] = val_loss
        entry["seconds"] = seconds
        require_finite(entry, self.config, self.model)
        self.history.append(entry)
        tell_watchers(entry)
        self.seconds += seconds
        better = val_loss is None or val_loss < self.best_loss
        self.waited = 0 if better else self.waited + 1
        if better:
            self.best_loss = train_loss if val_loss is None else val_loss
        if better or self.given.keep == "last":
            self.best_epoch = self.epoch
            self.best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        if self.given.folder is not None:
            self._save(Path(self.given.folder) / CHECKPOINT)

    def close(self) -> FitResult:
        """Leave the network with its best weights, where it was, and say how it went."""
        self.model.load_state_dict(self.best)
        self.model.eval()
        which = "train_loss" if self.given.validation is None else "val_loss"
        loss = next(entry[which] for entry in self.history if entry["epoch"] == self.best_epoch)
        return FitResult(self.best_epoch, loss, tuple(self.history), self.seconds, self.resumed_from)

    _KEPT = ("epoch", "history", "best_loss", "best_epoch", "waited", "best", "seconds")

    def _save(self, path: Path) -> None:
        tree = {name: getattr(self, name) for name in self._KEPT}
        tree |= {"weights": dict(self.model.state_dict()), "optimizer": self.optimizer.state_dict()}
        write_tree({**tree, "steps": self.schedule.last_epoch, "rates": self.schedule.get_last_lr()}, path)

    def _resume(self, path: Path) -> None:
        if not path.exists():
            return
        tree = read_tree(path)
        for name in self._KEPT:
            setattr(self, name, tree[name])
        self.model.load_state_dict(tree["weights"])
        self.optimizer.load_state_dict(tree["optimizer"])
        self.schedule.last_epoch, self.schedule._last_lr = tree["steps"], tree["rates"]  # type: ignore[attr-defined]
        self.resumed_from = self.epoch


class _Judged(nn.Module):
    """What a task says of a batch, as the forward pass of a module, so that its weights can be replaced."""

    def __init__(self, model: nn.Module, task: Task) -> None:
        super().__init__()
        self.model, self.task = model, task

    def forward(self, batch: Any, judge: bool) -> Any:
        """The training loss, or the sum and count that validation goes by."""
        return self.task.errors(self.model, batch) if judge else self.task.loss(self.model, batch)


class Stack:
    """The weights of several networks of one form as one; what moves is stacked at each step, what rests once."""

    def __init__(self, models: Sequence[nn.Module], task: Task) -> None:
        self.models = list(models)
        # a hollow copy that gives the stacked weights their form
        self.form = _Judged(copy.deepcopy(self.models[0]).to("meta"), task)
        # the line beside one network may rest where that of another moves
        moving = {name for model in self.models for name, p in model.named_parameters() if p.requires_grad}
        every = [name for name, _ in self.models[0].named_parameters()]
        self.names = [name for name in every if name in moving]
        self.resting = self._stacked([name for name in every if name not in moving])
        self.gather_buffers()

    def _stacked(self, names: Sequence[str]) -> dict[str, Tensor]:
        own = [dict(model.named_parameters()) for model in self.models]
        return {f"model.{name}": torch.stack([weights[name] for weights in own]) for name in names}

    def gather_buffers(self) -> None:
        """Take the running statistics of the networks."""
        own = [dict(model.named_buffers()) for model in self.models]
        self.buffers = {f"model.{name}": torch.stack([one[name] for one in own]) for name in own[0]}

    @torch.no_grad()
    def scatter_buffers(self) -> None:
        """Give the networks their running statistics back."""
        for i, model in enumerate(self.models):
            for name, buffer in model.named_buffers():
                buffer.copy_(self.buffers[f"model.{name}"][i])

    def __call__(self, batches: Sequence[Any], *, judge: bool = False) -> Any:
        """The losses [K] of a batch for each network, or sums and counts [K] each, as validation wants them."""
        kind, present = type(batches[0]), [i for i, field in enumerate(batches[0]) if field is not None]
        fields = [torch.stack([batch[i] for batch in batches]) for i in present]
        weights = self._stacked(self.names) | self.resting
        self.form.train(not judge)

        def one(weights: Mapping[str, Tensor], buffers: Mapping[str, Tensor], *values: Tensor) -> Any:
            given: list[Any] = [None] * len(batches[0])
            for i, value in zip(present, values, strict=True):
                given[i] = value
            return functional_call(self.form, (weights, buffers), (kind(*given), judge))  # type: ignore[arg-type]

        with written_out():
            return vmap(one, randomness="different")(weights, self.buffers, *fields)


def _alike(batches: Sequence[Any]) -> bool:
    """Whether batches have the same fields of the same shapes; those with and without a mask, say, do not."""
    shapes = {tuple(None if value is None else tuple(value.shape) for value in batch) for batch in batches}
    return len(shapes) == 1


def _fit_stacked(group: Sequence[Training]) -> list[FitResult]:
    place = _place_of(group[0].config)
    homes = [next((p.device for p in one.model.parameters()), torch.device("cpu")) for one in group]
    with contextlib.ExitStack() as exits:
        exits.enter_context(torch.random.fork_rng())
        exits.enter_context(quick_products())
        exits.enter_context(warnings.catch_warnings())
        # what torch cannot stack in one launch it runs in K; of what is rare here, that is no news
        warnings.filterwarnings("ignore", message="There is a performance drop because we have not yet implemented")
        members = [_Member(one, place) for one in group]
        total = sum(member.n_epochs * member.n_batches for member in members)
        done = sum(member.epoch * member.n_batches for member in members)
        title = f"{group[0].title}, {len(group)} networks"
        bar = exits.enter_context(Bar(title, total, done=done, shown=any(one.progress for one in group)))
        while running := [member for member in members if not member.is_done]:
            torch.manual_seed(running[0].given.seed * 100_003 + running[0].epoch)
            _epoch(running, bar)
        results = [member.close() for member in members]
    for one, home in zip(group, homes, strict=True):
        one.model.to(home)
    return results


def _epoch(running: Sequence[_Member], bar: Bar) -> None:
    """One epoch of every network that is not done, each its own."""
    began = time.perf_counter()
    stack, place = Stack([m.model for m in running], running[0].given.task), running[0].place
    half = running[0].config.precision == "bf16"
    sums = torch.zeros(len(running), device=place)
    for member in running:
        member.model.train()
    n_steps = 0
    for batches in zip(*(m.batches(m.given.train, training=True) for m in running), strict=True):
        there = [_to(batch, place) for batch in batches]
        with torch.autocast(place.type, torch.bfloat16, enabled=half):
            losses = _losses(stack, running, there)
        losses.sum().backward()
        sums += losses.detach()
        for member in running:
            member.step()
        n_steps += 1
        bar.move(len(running), n_items=sum(len(batch[0]) for batch in batches))
    stack.scatter_buffers()
    validated = _validate(running, half)
    train_losses = (sums / max(n_steps, 1)).tolist()
    seconds = (time.perf_counter() - began) / len(running)  # each network's share
    for member, train_loss, val_loss in zip(running, train_losses, validated, strict=True):
        member.close_epoch(train_loss, val_loss, seconds)
    judged = [loss for loss in validated if loss is not None]
    if judged:
        bar.say(f"val {min(judged):.4f} to {max(judged):.4f}")


def _losses(stack: Stack, running: Sequence[_Member], batches: Sequence[Any]) -> Tensor:
    """The training losses [K] of one batch for each network."""
    if _alike(batches):
        return stack(batches)
    stack.scatter_buffers()
    found = [m.given.task.loss(m.model, batch) for m, batch in zip(running, batches, strict=True)]
    stack.gather_buffers()
    return torch.stack(found)


@torch.no_grad()
def _validate(running: Sequence[_Member], half: bool) -> list[float | None]:
    """The validation loss of each network: the mean over every value of every batch."""
    if running[0].given.validation is None:
        return [None] * len(running)
    stack, place = Stack([m.model for m in running], running[0].given.task), running[0].place
    totals, counts = torch.zeros(2, len(running), dtype=torch.float64)
    for member in running:
        member.model.eval()
    sources = [cast(Source, member.given.validation) for member in running]
    for batches in zip(*(m.batches(s, training=False) for m, s in zip(running, sources, strict=True)), strict=True):
        there = [_to(batch, place) for batch in batches]
        with torch.autocast(place.type, torch.bfloat16, enabled=half):
            if _alike(there):
                total, count = stack(there, judge=True)
            else:
                pairs = [m.given.task.errors(m.model, batch) for m, batch in zip(running, there, strict=True)]
                total, count = (torch.stack([pair[i].to(place) for pair in pairs]) for i in range(2))
        totals += total.cpu().double()
        counts += count.cpu().double()
    return (totals / counts.clamp(min=1)).tolist()


def _place_of(config: FitConfig) -> torch.device:
    """The device that ``fit`` would train on."""
    if config.accelerator == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    return torch.device({"gpu": "cuda"}.get(config.accelerator, config.accelerator))


def _to(batch: Any, place: torch.device) -> Any:
    return type(batch)(*(None if value is None else value.to(place) for value in batch))
