"""Several tasks at once, on one encoder: their losses beside each other, on one scale, in one sum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor, nn

from prismts.cases import CaseBatch
from prismts.errors import SettingsError, unknown_name
from prismts.models.multitask import MultiTask

__all__ = ["Balance", "Balanced", "LossBalance", "Mixture", "labeled"]

Balance = Literal["fixed", "scale", "uncertainty"]


class OneTask(Protocol):
    """What a mixture needs of each of its tasks."""

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Mean loss of a batch, to follow downhill."""
        ...

    def errors(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Sum of what validation judges by, and how many values it counts."""
        ...


class LossBalance(nn.Module):
    """The weighted sum of the losses of several tasks.

    - "fixed": the sum of weight times loss;
    - "scale": each loss is first divided by its running magnitude, so that a task does not count more because its loss
      is a larger number. The magnitude is a moving average over the training batches, counted from the first batch with
      this task; it has no gradient;
    - "uncertainty": each task has a learned logarithm s of its variance, and its loss enters as exp(-s) * loss + s / 2
      for a class and exp(-s) * loss / 2 + s / 2 for a squared error.
      Source: Kendall, Gal, Cipolla, CVPR 2018, equation 10. Theirs is for likelihoods; a robust or relative loss here
      takes the form of the squared error.

    Args:
        names: of the tasks.
        weights: by name; 1 where none is given.
        balance: "fixed", "scale" or "uncertainty".
        likelihoods: names of tasks whose loss is a cross entropy.
        decay: of the running magnitudes, per batch that holds the task.
    """

    log_magnitude: Tensor
    n_seen: Tensor

    def __init__(
        self,
        names: tuple[str, ...],
        *,
        weights: Mapping[str, float] | None = None,
        balance: Balance = "scale",
        likelihoods: frozenset[str] = frozenset(),
        decay: float = 0.99,
    ) -> None:
        super().__init__()
        if balance not in get_args(Balance):
            raise unknown_name("balance", balance, get_args(Balance))
        for name in weights or {}:
            if name not in names:
                raise unknown_name("task", name, names)
        found = [float((weights or {}).get(name, 1.0)) for name in names]
        if not all(weight >= 0 for weight in found) or not any(found):
            raise SettingsError(f"weights of tasks are 0 or more, and one is above 0, but got {dict(weights or {})}.")
        if not 0 <= decay < 1:
            raise SettingsError(f"decay is from 0 to below 1, but got {decay}.")
        self.names, self.balance, self.decay = names, balance, decay
        self.weights = dict(zip(names, found, strict=True))
        self.likelihoods = likelihoods
        self.register_buffer("log_magnitude", torch.zeros(len(names)))
        self.register_buffer("n_seen", torch.zeros(len(names)))
        self.log_variance = nn.Parameter(torch.zeros(len(names)), requires_grad=balance == "uncertainty")

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The losses of the tasks that a batch holds, by name, in one sum."""
        parts: list[Tensor] = []
        for i, name in enumerate(self.names):
            if name not in losses:
                continue
            loss = losses[name]
            if self.balance == "scale":
                loss = loss / self._magnitude(i, loss.detach())
            elif self.balance == "uncertainty":
                s = self.log_variance[i]
                loss = (1.0 if name in self.likelihoods else 0.5) * torch.exp(-s) * loss + s / 2
            parts.append(self.weights[name] * loss)
        return torch.stack(parts).sum()

    def _magnitude(self, i: int, loss: Tensor) -> Tensor:
        """The running magnitude of task i, after this loss where training goes on."""
        if self.training:
            share = torch.clamp(1 / (self.n_seen[i] + 1), min=1 - self.decay)  # a plain mean until the decay is longer
            before = self.log_magnitude[i].exp() * (self.n_seen[i] > 0)
            now = before + share * (loss.abs().to(before) - before)
            self.log_magnitude[i] = now.clamp(min=1e-12).log()
            self.n_seen[i] += 1
        return self.log_magnitude[i].exp()


class Balanced(nn.Module):
    """What training moves: the encoder with its heads, and the balance of their losses."""

    def __init__(self, model: MultiTask, balance: LossBalance) -> None:
        super().__init__()
        self.model, self.balance = model, balance


class Mixture:
    """The task of doing several tasks: a batch is a mapping from names of tasks to batches of each.

    A part of a batch whose cases have no label has no loss, and moves no weight of the head for classes, nor the
    statistics of an encoder; of a part with some labels, only the labeled cases are read.

    Validation judges by the mean over the tasks, weighted, of the error relative to that before training, since errors
    of different tasks have different units: call ``prepare`` before training, and the same numbers come out of a run
    that was broken and goes on.

    Args:
        tasks: by name.
        views: the model as each task trains it (``WithHead``), by name; they share their weights with the model.
        balance: how the losses are put together.
    """

    def __init__(self, tasks: Mapping[str, OneTask], views: Mapping[str, nn.Module]) -> None:
        if not tasks:
            raise SettingsError("A mixture needs at least one task, but got none.")
        lacking = [name for name in tasks if name not in views]
        if lacking:
            raise unknown_name("view", lacking[0], views)
        self.tasks, self.views = dict(tasks), dict(views)
        self.before: dict[str, float] = {}  # the error of each task before training
        self.totals: dict[str, float] = {}  # how many values validation counts of each
        self.n_items = 0.0

    def loss(self, model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        """The balanced sum of the losses of the tasks in this batch."""
        assert isinstance(model, Balanced)
        losses = {name: self.tasks[name].loss(self.views[name], part) for name, part in self._parts(batch)}
        if not losses:  # nothing to learn from: a sum of nothing that still has a gradient, of 0
            moved = [weight for weight in model.parameters() if weight.requires_grad]
            return torch.stack([weight.sum() * 0.0 for weight in moved]).sum()
        return model.balance(losses)

    def errors(self, model: nn.Module, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Relative errors of this batch, so that the sum over all batches is the weighted mean over the tasks."""
        assert isinstance(model, Balanced)
        if not self.before:
            raise SettingsError("A mixture needs to know the errors before training: call prepare(model, validation).")
        total = torch.zeros((), dtype=torch.float64)
        weights = {name: model.balance.weights[name] for name in self.before}
        for name, part in self._parts(batch):
            if self.before.get(name):
                error, _ = self.tasks[name].errors(self.views[name], part)
                share = weights[name] / sum(weights.values())
                total += share * float(error.detach()) / (self.totals[name] * self.before[name])
        return total, torch.tensor(_n_items(batch) / self.n_items, dtype=torch.float64)

    @torch.no_grad()
    def prepare(self, batches: Iterator[Mapping[str, Any]]) -> None:
        """Note the error of every task before training over these validation batches."""
        sums = dict.fromkeys(self.tasks, 0.0)
        totals, n_items = dict.fromkeys(self.tasks, 0.0), 0.0
        for view in self.views.values():
            view.eval()
        for batch in batches:
            n_items += _n_items(batch)
            for name, part in self._parts(batch):
                error, count = self.tasks[name].errors(self.views[name], part)
                sums[name] += float(error)
                totals[name] += float(count)
        self.before = {name: sums[name] / totals[name] for name in sums if totals[name]}
        self.totals, self.n_items = totals, n_items

    @torch.no_grad()
    def judged(self, batches: Iterator[Mapping[str, Any]]) -> dict[str, float]:
        """The error of every task over these batches, in its own units."""
        sums = {name: [0.0, 0.0] for name in self.tasks}
        for view in self.views.values():
            view.eval()
        for batch in batches:
            for name, part in self._parts(batch):
                error, count = self.tasks[name].errors(self.views[name], part)
                sums[name][0] += float(error)
                sums[name][1] += float(count)
        return {name: total / count for name, (total, count) in sums.items() if count}

    def _parts(self, batch: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for name, part in batch.items():
            known = labeled(part) if isinstance(part, CaseBatch) else part
            if known is not None:
                yield name, known


def labeled(batch: CaseBatch) -> CaseBatch | None:
    """The cases of a batch whose class is known; None where there is none."""
    known = batch.label >= 0
    if bool(known.all()):
        return batch
    if not bool(known.any()):
        return None
    observed = batch.context_observed
    return CaseBatch(batch.context[known], None if observed is None else observed[known], batch.label[known])


def _n_items(batch: Mapping[str, Any]) -> float:
    return float(sum(len(part.context) for part in batch.values()))
