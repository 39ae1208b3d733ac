"""Dropout whose masks come cheap: sixteen random bits per value instead of one draw of the generator."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prismts.layers.paths import is_written_out

__all__ = ["Dropout", "drop_mask"]


def drop_mask(x: Tensor, p: float) -> Tensor:
    """A mask like x: 0 with probability round(p * 2^16) / 2^16, else 1 / (1 - p).

    Four values share one 64-bit draw, so on a CPU, where drawing is serial, a mask costs a fraction of torch's. It
    follows torch's seed. The mask is kept in the type of x because a product of two types is many times slower.
    """
    n = x.numel()
    draws = torch.empty(-(-n // 4), dtype=torch.int64, device=x.device).random_(-(2**63), None)
    bits = draws.view(torch.int16)[:n].view(x.shape)
    lowest = min(round(p * 2**16), 2**16 - 1) - 2**15  # within 16 bits, however near to 1 p is
    keep = torch.ge(bits, lowest, out=torch.empty_like(x, memory_format=torch.contiguous_format))
    return keep.mul_(1 / (1 - p))


class Dropout(nn.Dropout):
    """torch's dropout, with cheap masks on a CPU; elsewhere it is torch's own, which is fast there."""

    @property
    def rate(self) -> float:
        """The share that is dropped now: none in evaluation."""
        return self.p if self.training else 0.0

    def forward(self, input: Tensor) -> Tensor:
        """Any shape to the same shape."""
        if not self.training or self.p == 0:
            return input
        if input.device.type != "cpu" or self.p == 1 or torch.compiler.is_compiling() or is_written_out():
            return F.dropout(input, self.p, True)
        return input * drop_mask(input, self.p)
