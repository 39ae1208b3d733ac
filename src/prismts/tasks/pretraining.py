"""What pre-training tasks share: an encoder beside what each task needs of its own, and draws that validation repeats.

A pre-training task has a ``name``, makes its ``part`` for an encoder, and finds both again in a :class:`Pretraining`
model. So several tasks train one encoder at once, and the encoder leaves as it came, with other weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from prismts.errors import SettingsError
from prismts.layers.features import Features
from prismts.models.contract import Encoder

__all__ = ["PretrainTask", "Pretraining", "encoder_of", "observed_of", "reader_of", "window_marks"]


class PretrainTask(Protocol):
    """A task without labels; batches are windows without a future, or cases.

    One whose truth is learned too says ``comparable = False``: validation errors of two epochs then mean two things.
    """

    name: str

    def part(self, encoder: Encoder) -> nn.Module:
        """What the task needs beside this encoder: a head, a projection, a slow copy."""
        ...

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Mean loss of a batch, to follow downhill."""
        ...

    def errors(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Sum of what validation judges by, and how many values it counts."""
        ...


class _Batch(Protocol):
    @property
    def context(self) -> Tensor: ...  # [B, C, T]
    @property
    def context_observed(self) -> Tensor | None: ...


class Pretraining(nn.Module):
    """An encoder beside the part of each of some tasks. The encoder's own head is neither asked nor trained."""

    def __init__(self, encoder: Encoder, tasks: Sequence[PretrainTask]) -> None:
        super().__init__()
        self.encoder = encoder
        self.parts = nn.ModuleDict()
        for task in tasks:
            if task.name in self.parts:
                raise SettingsError(f"Two tasks are called {task.name!r}. Keep one of them.")
            self.parts[task.name] = task.part(encoder)

    @property
    def n_channels(self) -> int | None:
        """C the encoder is bound to, or None where any number will do."""
        return self.encoder.n_channels


def encoder_of(model: nn.Module) -> Encoder:
    """The encoder that is being pre-trained."""
    assert isinstance(model, Pretraining)
    return model.encoder


def reader_of(model: nn.Module, name: str) -> Callable[[Tensor, Tensor | None], Tensor]:
    """What answers windows x [B, C, T] and their mask: encoder and part of a task, or a model with its own head."""
    if not isinstance(model, Pretraining):
        return model
    encoder, head = model.encoder, model.parts[name]

    def read(x: Tensor, observed: Tensor | None = None) -> Tensor:
        features: Features = encoder.encode(x, observed)
        return head(features)

    return read


def observed_of(batch: _Batch) -> Tensor:
    """The mask of a batch [B, C, T], also where all was observed."""
    seen = batch.context_observed
    return torch.ones_like(batch.context, dtype=torch.bool) if seen is None else seen


def window_marks(x: Tensor) -> list[int]:
    """A number for each window of x [B, C, T] that its values alone give: what validation draws from."""
    bits = x.detach().float().cpu().contiguous().view(torch.int32)
    return (bits.sum((1, 2), dtype=torch.int64) % 2**31).tolist()
