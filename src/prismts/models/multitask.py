"""One encoder under several heads: each head is a task, and all tasks read the same tokens."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Mapping
from typing import Self

import torch
from torch import Tensor, nn

from prismts.errors import SettingsError, unknown_name
from prismts.layers.features import Features
from prismts.models.contract import Encoder

__all__ = ["CaseReader", "MultiTask", "WithHead", "n_tokens_of", "stretched"]

_NAME = re.compile(r"[A-Za-z0-9_\- ]+")
_BEHIND = "_head"  # behind a name among the modules, where "keys" or "train" would be taken


class MultiTask(nn.Module):
    """An encoder and its heads by name.

    A head is any module that maps ``Features`` to an answer. Adding one touches no other weight, and what is held (see
    ``hold``) neither learns nor moves the statistics of its normalization.
    """

    encoder: Encoder

    def __init__(self, encoder: Encoder, heads: Mapping[str, nn.Module] | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self._heads = nn.ModuleDict()
        self.encoder_held = False
        for name, head in (heads or {}).items():
            self.add(name, head)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the heads, in the order in which they were added."""
        return tuple(name.removesuffix(_BEHIND) for name in self._heads)

    def add(self, name: str, head: nn.Module) -> None:
        """Put one more head on the encoder."""
        if not _NAME.fullmatch(name):
            raise SettingsError(
                f"A head's name has letters, digits, spaces, '_' and '-', since it becomes part of the names of its "
                f"weights, but got {name!r}."
            )
        if name in self.names:
            raise SettingsError(f"There is a head named {name!r} already. Choose another name, or remove that one.")
        self._heads[f"{name}{_BEHIND}"] = head

    def remove(self, name: str) -> None:
        """Take a head away; the rest stays as it is."""
        self[name]
        del self._heads[f"{name}{_BEHIND}"]

    def __getitem__(self, name: str) -> nn.Module:
        if name not in self.names:
            raise unknown_name("head", name, self.names)
        return self._heads[f"{name}{_BEHIND}"]

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def forward(self, x: Tensor, observed: Tensor | None = None, *, head: str) -> Tensor:
        """What one head says about the windows x [B, C, T]."""
        return self[head](self.encoder.encode(x, observed))

    def hold(self, *, encoder: bool, heads: Collection[str] = ()) -> None:
        """Keep the encoder, or these heads, as they are in training that follows; all else learns."""
        self.encoder_held = encoder
        self.encoder.requires_grad_(not encoder)
        for name in self.names:
            self[name].requires_grad_(name not in heads)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As of any module, but an encoder that is held stays in evaluation: its statistics stand still."""
        super().train(mode)
        if self.encoder_held:
            self.encoder.eval()
        return self


class WithHead(Encoder):
    """An encoder that is shared, seen through one head: what a task trains and answers with."""

    stacks = False  # what is shared has one set of weights

    def __init__(self, encoder: Encoder, head: nn.Module, *, context_length: int | None = None) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.n_channels, self.n_groups_of, self.width = encoder.n_channels, encoder.n_groups_of, encoder.width
        self.patch_length, self.stride, self.heeds_end = encoder.patch_length, encoder.stride, encoder.heeds_end
        self.context_length = encoder.context_length if context_length is None else context_length
        self.n_tokens = n_tokens_of(encoder, self.context_length)

    def encode(self, x: Tensor, observed: Tensor | None = None) -> Features:
        """[B, C, T] and its mask (None: all observed) to Features."""
        with contextlib.ExitStack() as stack:
            if not any(weight.requires_grad for weight in self.encoder.parameters()):
                stack.enter_context(torch.no_grad())  # quicker, and keeps nothing for a backward pass
            return self.encoder.encode(x, observed)


class CaseReader(WithHead):
    """The same for whole cases: those of a set that is short for the encoder are stretched first, all by one factor.

    A patch of an encoder that was trained on long windows may be longer than a whole case. Cases are drawn out by
    straight lines between observed neighbors, as Mantis (Feofanov et al., arXiv 2502.15637) does to one fixed length;
    by one factor for all of them, so that longer cases stay longer.
    """

    def __init__(self, encoder: Encoder, head: nn.Module, *, context_length: int, factor: float = 1.0) -> None:
        if not factor > 0:
            raise SettingsError(f"factor draws cases out and is above 0, but got {factor}.")
        super().__init__(encoder, head, context_length=int((context_length - 1) * factor + 1e-9) + 1)
        self.factor = factor

    def encode(self, x: Tensor, observed: Tensor | None = None) -> Features:
        """[B, C, T], stretched, to Features."""
        return super().encode(*stretched(x, observed, self.factor))


def stretched(x: Tensor, observed: Tensor | None, factor: float) -> tuple[Tensor, Tensor | None]:
    """Windows x [B, C, T] drawn out to floor((T - 1) * factor) + 1 steps along straight lines, and their mask.

    New step i lies at i / factor of the old ones, whatever the length, and is observed where both its neighbors were.
    """
    if factor == 1:
        return x, observed
    n = x.shape[-1]
    n_new = int((n - 1) * factor + 1e-9) + 1
    place = (torch.arange(n_new, device=x.device, dtype=torch.float64) / factor).round(decimals=9)
    left = place.floor().long().clamp(max=n - 1)
    right = (left + 1).clamp(max=n - 1)
    share = (place - left).to(x.dtype)
    y = x[..., left] + share * (x[..., right] - x[..., left])
    if observed is None:
        return y, None
    seen = observed[..., left] & (observed[..., right] | (share == 0))
    return y.masked_fill(~seen, 0.0), seen


@torch.no_grad()
def n_tokens_of(encoder: Encoder, context_length: int) -> int:
    """N for windows of this length, whatever length the encoder was built for."""
    if context_length == encoder.context_length:
        return encoder.n_tokens
    weight = next(encoder.parameters())
    was = encoder.training
    encoder.eval()
    try:
        n_channels = encoder.n_channels or 1
        x = torch.zeros(1, n_channels, context_length, device=weight.device, dtype=weight.dtype)
        return encoder.encode(x).tokens.shape[2]
    finally:
        encoder.train(was)
