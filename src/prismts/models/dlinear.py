"""DLinear: the trend and what is left of it, each carried on by one straight line.

Source: Zeng, Chen, Zhang, Xu, "Are Transformers Effective for Time Series Forecasting?", AAAI 2023, arXiv 2205.13504.
A moving average over 25 steps is the trend; two linear maps, one of the trend and one of the remainder, are added.

Parameters: 2 * (T * H + H), times the number of channels where each has its own lines. At context 96 and horizon 720
that is 139,680, the paper's 139.7K (table 8); at 336 and 96 it is 64,704.

Where we differ from the authors' code:

- both maps begin as torch begins linear maps (an older state of their code begins at 1/T, which they keep for drawing
  the weights);
- unobserved points are bridged by straight lines;
- the kernel of the moving average is odd: their padding loses a step for an even one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prismts.errors import SettingsError
from prismts.layers.missing import bridge
from prismts.shapes import expect

__all__ = ["DLinear", "DLinearConfig", "decompose"]


@dataclass(frozen=True, kw_only=True)
class DLinearConfig:
    """Settings of the forecaster; the kernel in time steps."""

    kernel_size: int = 25  # of the moving average; odd
    individual: bool = False  # whether every channel has lines of its own

    def __post_init__(self) -> None:
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise SettingsError(
                f"kernel_size is odd, so that a step stands in the middle of its average, but got {self.kernel_size}. "
                f"Use {max(1, self.kernel_size - 1)} or {max(1, self.kernel_size + 1)}."
            )


def decompose(x: Tensor, kernel_size: int) -> tuple[Tensor, Tensor]:
    """What is left and the trend, [B, C, T] each: a moving average over windows continued by their edge values."""
    half = (kernel_size - 1) // 2
    trend = F.avg_pool1d(F.pad(x, (half, half), mode="replicate"), kernel_size, stride=1)
    return x - trend, trend


class Lines(nn.Module):
    """A linear map over time: one for all channels, or one for each of them."""

    def __init__(self, n_lines: int, context_length: int, horizon: int) -> None:
        super().__init__()
        reach = 1 / math.sqrt(context_length)  # as torch begins linear maps
        self.weight = nn.Parameter(torch.empty(n_lines, horizon, context_length).uniform_(-reach, reach))  # [C, H, T]
        self.bias = nn.Parameter(torch.empty(n_lines, horizon).uniform_(-reach, reach))  # [C, H]

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to [B, C, H]."""
        if len(self.weight) == 1:
            return F.linear(x, self.weight[0], self.bias[0])
        return torch.einsum("bct,cht->bch", x, self.weight) + self.bias


class DLinear(nn.Module):
    """Decompose, carry both parts on, add them up: [B, C, T] to [B, C, H]."""

    stacks = True

    def __init__(self, config: DLinearConfig, *, n_channels: int, context_length: int, horizon: int) -> None:
        super().__init__()
        self.config = config
        self.n_channels = n_channels if config.individual else None
        n_lines = n_channels if config.individual else 1
        self.remainder = Lines(n_lines, context_length, horizon)
        self.trend = Lines(n_lines, context_length, horizon)

    def forward(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """[B, C, T] and its mask (None: all observed) to [B, C, H]."""
        expect(x, "B C T", who="DLinear", C=self.n_channels, T=self.trend.weight.shape[-1])
        remainder, trend = decompose(bridge(x, observed), self.config.kernel_size)
        return self.remainder(remainder) + self.trend(trend)
