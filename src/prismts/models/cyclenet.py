"""CycleNet: a learned cycle of each channel is taken away, the rest is forecast by a line, and the cycle comes back.

Source: Lin, Lin, Hu, Wu, Mo, Zhong, "CycleNet: Enhancing Time Series Forecasting through Modeling Periodic Patterns",
NeurIPS 2024, arXiv 2409.18479. The recurrent cycle Q holds W values per channel, learned from zero together with the
rest; where a window begins in the cycle is known from the clock.

Parameters: C * W, and T * H + H for the linear backbone or T * D + D + D * H + H for the MLP (D = 512). On Electricity
(C = 321, W = 168, T = 96, H = 720) that is 123,768 and 472,952, the paper's 123.7K and 472.9K; the authors' own
checkpoints at horizon 96 hold 63,240 (Electricity) and 9,984 (ETTm1, C = 7, W = 96) values, as ours do. On ETTh
(W = 24, T = 336, H = 96): 32,520 and 221,960.

The position of a window is the number of its first step on a clock that all data of one frequency share (``Windows``
counts it: since 1970 where there are timestamps, else since the first step of the series). Where nobody knows it - a
call without ``start``, as from an exported model - it is found: the place at which the learned cycle fits what was
observed of the window best, in least squares over all channels. Training never needs that.

Where we differ from the authors' code:

- the window's own scale divides by T, not by T - 1;
- they count positions from the first row of the file, and name the end of the context the beginning of its cycle: the
  same table, turned;
- what is missing is bridged after the cycle was taken away, so that a gap is filled by the cycle and a straight line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prismts.errors import unknown_name
from prismts.layers.missing import bridge
from prismts.layers.normalize import InstanceNorm
from prismts.ranges import expect_counts
from prismts.shapes import expect

__all__ = ["CycleNet", "CycleNetConfig", "RecurrentCycle"]


@dataclass(frozen=True, kw_only=True)
class CycleNetConfig:
    """Settings of the forecaster; the cycle in time steps.

    The authors take the lag of the highest autocorrelation: 24 on ETTh, 96 on ETTm, 144 on Weather, 168 on Electricity
    and Traffic.
    """

    cycle: int = 24  # W
    backbone: Literal["linear", "mlp"] = "linear"
    width: int = 512  # D, between the two maps of the MLP

    def __post_init__(self) -> None:
        if self.backbone not in ("linear", "mlp"):
            raise unknown_name("backbone", self.backbone, ("linear", "mlp"))
        expect_counts(self, "cycle", "width")


class RecurrentCycle(nn.Module):
    """One cycle of every channel, W steps long, that can be read from any place on for any number of steps."""

    def __init__(self, n_channels: int, length: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(n_channels, length))  # [C, W]

    def forward(self, start: Tensor, n_steps: int) -> Tensor:
        """The steps from ``start`` [B] on, whole numbers of any sign: [B, C, n_steps]."""
        length = self.values.shape[1]
        step = (start[:, None] + torch.arange(length, device=start.device)) % length  # [B, W]
        turned = self.values[:, step].transpose(0, 1)  # [B, C, W]
        return turned.repeat(1, 1, -(-n_steps // length))[..., :n_steps]  # cheaper than a gather of all steps

    def place(self, x: Tensor, observed: Tensor | None) -> Tensor:
        """Where windows [B, C, T] begin in the cycle, as it fits what was observed of them best: [B].

        Squared errors of all W places at once: sums of the window by its steps modulo W, correlated with the cycle.
        """
        length = self.values.shape[1]
        seen = torch.ones_like(x) if observed is None else observed.to(x.dtype)
        padding = -x.shape[-1] % length
        sums = F.pad(x * seen, (0, padding)).unflatten(-1, (-1, length)).sum(-2)  # [B, C, W]
        counts = F.pad(seen, (0, padding)).unflatten(-1, (-1, length)).sum(-2)  # [B, C, W]
        cycle = self.values.detach()
        error = _correlation(cycle.square(), counts) - 2 * _correlation(cycle, sums)  # less the sum of squares of x
        return error.argmin(-1)


def _correlation(cycle: Tensor, x: Tensor) -> Tensor:
    """For each place s, the sum over channels c and steps w of cycle [C, W] at s + w times x [B, C, W] at w: [B, W]."""
    spectrum = (torch.fft.rfft(cycle) * torch.fft.rfft(x).conj()).sum(-2)
    return torch.fft.irfft(spectrum, n=x.shape[-1])


class CycleNet(nn.Module):
    """normalize -> less the cycle -> line or MLP -> plus the cycle, further on -> back to the units: [B, C, H]."""

    reads_start = True
    stacks = True

    def __init__(self, config: CycleNetConfig, *, n_channels: int, context_length: int, horizon: int) -> None:
        super().__init__()
        self.config, self.n_channels = config, n_channels
        self.context_length, self.horizon = context_length, horizon
        self.normalize = InstanceNorm()
        self.cycle = RecurrentCycle(n_channels, config.cycle)
        self.backbone: nn.Module = (
            nn.Linear(context_length, horizon)
            if config.backbone == "linear"
            else nn.Sequential(
                nn.Linear(context_length, config.width), nn.ReLU(), nn.Linear(config.width, horizon)
            )
        )  # fmt: skip

    def forward(self, x: Tensor, observed: Tensor | None = None, start: Tensor | None = None) -> Tensor:
        """[B, C, T], its mask (None: all observed) and the number of its first step [B] (None: found) to [B, C, H]."""
        expect(x, "B C T", who="CycleNet", C=self.n_channels, T=self.context_length)
        x, stats = self.normalize(x, observed)
        if start is None:
            start = self.cycle.place(x.detach(), observed)
        rest = bridge(x - self.cycle(start, self.context_length), observed)
        y = self.backbone(rest) + self.cycle(start + self.context_length, self.horizon)
        return self.normalize.inverse(y, stats)
