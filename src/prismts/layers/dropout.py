"""Dropout whose masks come cheap: one random byte per value instead of one draw of torch's generator.

A value is kept with probability 1 - round(256 p) / 256 and scaled up by exactly its inverse, so the mean stays.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prismts.layers.paths import is_written_out

__all__ = ["Dropout", "Dropped", "draw"]


class Dropped:
    """Which values are dropped: one byte each, 1 or 0; none where there are no flags."""

    def __init__(self, p: float, flags: Tensor | None) -> None:
        self.scale = 256 / (256 - _level(p))
        self.flags = flags

    def sink(self, z: Tensor, begin: int) -> float:
        """Flags of a slice into z, and the factor that sinks them so deep that GELU and its gradient are 0 there.

        Flag ``begin`` decides about the first value of z. Dropping before the GELU what is dropped behind it takes no
        product with a mask, neither forward nor backward.
        """
        if self.flags is None:
            return 0.0
        z.copy_(self.flags[begin : begin + z.numel()].view(z.shape))
        return torch.finfo(z.dtype).min / 4

    def drop(self, y: Tensor, begin: int, buffer: Tensor) -> None:
        """Put zeros into a slice y, by flags that are written to a buffer like it."""
        if self.flags is not None:
            y.addcmul_(y, buffer.copy_(self.flags[begin : begin + y.numel()].view(y.shape)), value=-1)

    def mask(self, x: Tensor) -> Tensor:
        """Factors for all of x, like it: 0 or ``scale``. Of its type, as a product of two types is far slower."""
        if self.flags is None:
            return torch.full_like(x, self.scale)
        mask = torch.empty_like(x, memory_format=torch.contiguous_format)
        return mask.copy_(self.flags[: x.numel()].view(x.shape)).sub_(1).mul_(-self.scale)


def draw(*wanted: tuple[float, int]) -> list[Dropped]:
    """What is dropped of n values at rate p each, all from one seed; nothing is drawn where nothing is dropped.

    The bytes come from numpy's SFC64, seeded by one draw of torch's generator: on a CPU they cost a fraction of
    torch's own, which are drawn value by value.
    """
    if not any(_level(p) for p, _ in wanted):
        return [Dropped(p, None) for p, _ in wanted]
    generator = np.random.Generator(np.random.SFC64(int(torch.randint(2**63 - 1, ()))))
    found: list[Dropped] = []
    for p, n in wanted:
        flags = None
        if level := _level(p):
            draws = generator.integers(0, 2**64, -(-n // 8), dtype=np.uint64).view(np.uint8)
            np.less(draws, level, out=draws.view(bool))  # numpy compares many bytes at once, torch one by one
            flags = torch.from_numpy(draws)
        found.append(Dropped(p, flags))
    return found


def _level(p: float) -> int:
    """Bytes below it are dropped; at most 255, however near to 1 p is."""
    return min(round(256 * p), 255)


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
        return input * draw((self.p, input.numel()))[0].mask(input)
