"""Several models that differ in their seed, and answer with their mean.

The squared error of a mean is never larger than the mean of the squared errors; the difference is how far the members
disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from prismts.models.contract import Encoder

__all__ = ["Ensemble"]


class Ensemble(nn.Module):
    """The mean of its members' answers."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    @property
    def n_channels(self) -> int | None:
        """C the members are bound to, or None where any number will do."""
        return getattr(self.members[0], "n_channels", 0)

    @property
    def reads_start(self) -> bool:
        """Whether the members read the numbers of the first steps of their windows."""
        return getattr(self.members[0], "reads_start", False)

    def forward(self, x: Tensor, observed: Tensor | None = None, start: Tensor | None = None) -> Tensor:
        """What the members say about the windows x [B, C, T], on average; ``start`` [B] is for those that read it."""
        more = (start,) if self.reads_start else ()
        return torch.stack([member(x, observed, *more) for member in self.members]).mean(0)

    def merged(self) -> Self:
        """A copy for inference, each member with its kernels merged."""
        return type(self)([m.merged() if isinstance(m, Encoder) else m for m in self.members])
