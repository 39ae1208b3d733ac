"""Several models that differ in their seed, their kind or how far back they look, and answer with their mean.

The squared error of a mean is never larger than the mean of the squared errors; the difference is how far the members
disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Self

import torch
from torch import Tensor, nn

from prismts.models.contract import Encoder

__all__ = ["Ensemble"]


class Ensemble(nn.Module):
    """The mean of its members' answers, each about the last ``contexts[i]`` steps of a window; None: about all."""

    def __init__(self, members: Sequence[nn.Module], contexts: Sequence[int | None] | None = None) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.contexts = (None,) * len(members) if contexts is None else tuple(contexts)

    @property
    def n_channels(self) -> int | None:
        """C the members are bound to, or None where any number will do."""
        bound = [getattr(member, "n_channels", 0) for member in self.members]
        return next((n for n in bound if n is not None), None)

    @property
    def reads_start(self) -> bool:
        """Whether some member reads the numbers of the first steps of its windows."""
        return any(getattr(member, "reads_start", False) for member in self.members)

    def forward(self, x: Tensor, observed: Tensor | None = None, start: Tensor | None = None) -> Tensor:
        """What the members say about the windows x [B, C, T], on average; ``start`` [B] is for those that read it."""
        answers: list[Tensor] = []
        for i, member in enumerate(self.members):
            window, seen = self.given(i, x, observed)
            if getattr(member, "reads_start", False):
                first = None if start is None else start + (x.shape[-1] - window.shape[-1])
                answers.append(member(window, seen, first))
            else:
                answers.append(member(window, seen))
        return torch.stack(answers).mean(0)

    def given(self, i: int, x: Tensor, observed: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The part of windows x [B, C, T], and of their mask, that member ``i`` is given."""
        n = self.contexts[i] or x.shape[-1]
        return x[..., -n:], None if observed is None else observed[..., -n:]

    def merged(self) -> Self:
        """A copy for inference, each member with its kernels merged."""
        members = [m.merged() if isinstance(m, Encoder) else deepcopy(m) for m in self.members]
        return type(self)(members, self.contexts)
