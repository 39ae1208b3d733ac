"""Several pre-training tasks at once: the weighted sum of their losses, on one encoder."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from prismts.errors import SettingsError, unknown_name
from prismts.models.contract import Encoder
from prismts.tasks.causal_patch import CausalPatch
from prismts.tasks.contrast import Contrast
from prismts.tasks.hidden_tokens import HiddenTokens
from prismts.tasks.next_patch import NextPatch
from prismts.tasks.pretraining import Pretraining, PretrainTask
from prismts.tasks.reconstruct import Reconstruct

__all__ = ["PRETRAIN_TASKS", "Combined", "make_pretrain_task"]

PRETRAIN_TASKS: dict[str, Callable[..., PretrainTask]] = {
    "masked": Reconstruct.for_pretraining,
    "decoupled": HiddenTokens,
    "contrastive": Contrast,
    "next_patch": NextPatch,
    "causal_patch": CausalPatch,  # of encoders that do not look ahead
}

Tasks = str | PretrainTask | Sequence[str | PretrainTask] | Mapping[str, Any]


class Combined:
    """A weighted sum of tasks. Validation judges by the same sum, each task's part being its mean over a batch.

    Args:
        tasks: each with its own name.
        weights: of their losses, above 0; None weighs all the same. The losses have different units: a reconstruction
            is a share of the variance (at most about 1), InfoNCE is up to the logarithm of the batch.
    """

    name = "combined"

    def __init__(self, tasks: Sequence[PretrainTask], weights: Sequence[float] | None = None) -> None:
        weights = [1.0] * len(tasks) if weights is None else list(weights)
        if not tasks or len(weights) != len(tasks) or min(weights) <= 0:
            raise SettingsError(
                f"Combined takes at least one task and one weight above 0 for each, but got {len(tasks)} tasks and the "
                f"weights {weights}."
            )
        names = [task.name for task in tasks]
        if len(set(names)) < len(names):
            raise SettingsError(f"Every task is named once, but got {', '.join(names)}.")
        self.tasks, self.weights = tuple(tasks), tuple(float(weight) for weight in weights)
        self.comparable = all(getattr(task, "comparable", True) for task in tasks)

    def build(self, encoder: Encoder) -> Pretraining:
        """The encoder, which is shared and not copied, beside what the tasks need."""
        return Pretraining(encoder, self.tasks)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The weighted sum of the tasks' losses."""
        parts = [weight * task.loss(model, batch) for task, weight in zip(self.tasks, self.weights, strict=True)]
        return torch.stack(parts).sum()

    def errors(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """The weighted sum of the tasks' mean errors on this batch, as many times as it has windows; and these."""
        n = len(batch.context)
        means = self.means(model, batch)
        whole = sum(weight * mean for weight, mean in zip(self.weights, means, strict=True))
        return torch.as_tensor(whole) * n, torch.tensor(n)

    def means(self, model: nn.Module, batch: Any) -> list[Tensor]:
        """Each task's mean error on a batch, without weights."""
        found: list[Tensor] = []
        for task in self.tasks:
            total, count = task.errors(model, batch)
            found.append(total.detach().cpu().double() / count.cpu().clamp(min=1))
        return found

    def __str__(self) -> str:
        return " + ".join(f"{weight:g} * {task.name}" for task, weight in zip(self.tasks, self.weights, strict=True))

    def __repr__(self) -> str:
        parts = (
            f"{weight:g} * {task.name}{_settings(task)}" for task, weight in zip(self.tasks, self.weights, strict=True)
        )
        return " + ".join(parts)


def make_pretrain_task(tasks: Tasks) -> Combined:
    """Tasks by name, as objects, or as names with weights or settings.

        make_pretrain_task("masked")
        make_pretrain_task(["masked", Contrast(jitter=0.2)])
        make_pretrain_task({"masked": 1.0, "contrastive": {"weight": 0.1, "temperature": 0.2}})

    Raises:
        SettingsError: a name or a setting that there is not, with the nearest one.
    """
    if isinstance(tasks, Combined):
        return tasks
    if isinstance(tasks, Mapping):
        made = [_named(name, value) for name, value in tasks.items()]
        return Combined([task for task, _ in made], [weight for _, weight in made])
    listed = list(tasks) if isinstance(tasks, list | tuple) else [cast("str | PretrainTask", tasks)]
    return Combined([_named(one, 1.0)[0] if isinstance(one, str) else one for one in listed])


def _named(name: str, given: Any) -> tuple[PretrainTask, float]:
    """A task and its weight, from a weight, from settings, or from both."""
    if name not in PRETRAIN_TASKS:
        raise unknown_name("pre-training task", name, PRETRAIN_TASKS)
    make = PRETRAIN_TASKS[name]
    if given is None or isinstance(given, int | float):
        return make(), 1.0 if given is None else float(given)
    if not isinstance(given, Mapping):
        raise SettingsError(f"The task {name!r} takes a weight, or settings by name, but got {given!r}.")
    settings = dict(cast(Mapping[str, Any], given))
    weight = settings.pop("weight", 1.0)
    known = list(inspect.signature(make).parameters)
    for setting in settings:
        if setting not in known:
            raise unknown_name(f"setting of {name!r}", setting, [*known, "weight"])
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    try:
        return make(**settings), float(weight)
    except (TypeError, ValueError) as error:
        if isinstance(error, SettingsError):
            raise
        raise SettingsError(f"A setting of {name!r} has a value of the wrong type: {error}.") from error


def _settings(task: PretrainTask) -> str:
    """What decides a task's numbers, for a fingerprint: its plain attributes."""
    plain = {name: value for name, value in sorted(vars(task).items()) if not callable(value)}
    others = {name: repr(value) for name, value in sorted(vars(task).items()) if callable(value)}
    return repr({**plain, **others})
