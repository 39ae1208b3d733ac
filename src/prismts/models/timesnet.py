"""TimesNet: a window is folded along its own strongest periods, and read as pictures.

Source: Wu, Hu, Liu, Zhou, Wang, Long, "TimesNet: Temporal 2D-Variation Modeling for General Time Series Analysis",
ICLR 2023, arXiv 2210.02186, and the authors' code. Each block finds the k strongest frequencies of its input, lays the
steps out in rows of one period, convolves these grids with an inception of square kernels, and adds what comes out by
the softmax of the amplitudes, through which gradients reach the spectrum.

Forecasting carries the embedded window on by a linear map over time, from T to T + H steps, before the blocks, and maps
the last H of them back to channels: ``TimesNetForecaster``. All other tasks use ``TimesNet``, an encoder with a token
for every step.

Parameters at C channels, width D, hidden width F, L blocks, kernels 1, 3 ... 2n - 1 (n = 6: 286 taps):
3 * C * D of the embedding, L * (2 * 286 * D * F + 6 * (D + F)) of the blocks and 2 * D of the one norm they share; a
forecaster has T * (T + H) + (T + H) and D * C + C besides. The authors' settings at context and horizon 96 on 7
channels: 1,191,815 for ETTh2 (width and hidden width 32, the default here) and 605,415 for ETTh1 (16 and 32). Theirs
have 4 * D more, for the calendar.

Where we differ from the authors' code:

- every window has its own k periods. Theirs are those of the mean spectrum of the batch, so that a forecast depends on
  which windows stand beside it;
- the six kernels are added into one before they meet the data: the same numbers at 42 % of the products. What is left
  of these is done by ``layers.grid``, on a CPU as waves over the grids;
- behind the last step a grid is empty for both layers of an inception pair. Theirs lets the second read what the first
  wrote into the rest of the last row;
- no embedding of the calendar;
- unobserved points are bridged by straight lines, and the encoder reads zeros behind the end of a shorter case;
- the encoder's tokens are pooled, where their classifier flattens all of them behind a GELU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prismts.errors import SettingsError
from prismts.layers.dropout import Dropout
from prismts.layers.features import Features
from prismts.layers.grid import conv_grid
from prismts.layers.missing import bridge
from prismts.layers.normalize import InstanceNorm, Stats
from prismts.models.contract import Encoder
from prismts.ranges import expect_counts, expect_shares
from prismts.shapes import expect

__all__ = ["TimesNet", "TimesNetConfig", "TimesNetForecaster", "strongest_periods"]


@dataclass(frozen=True, kw_only=True)
class TimesNetConfig:
    """Settings of both forms. The defaults are the authors' for ETTh2."""

    width: int = 32
    feed_forward: int = 32  # width between the two inceptions of a block
    n_layers: int = 2
    n_periods: int = 5  # k
    n_kernels: int = 6  # sides 1, 3 ... 2n - 1
    dropout: float = 0.1  # behind the embedding

    def __post_init__(self) -> None:
        expect_counts(self, "width", "feed_forward", "n_layers", "n_periods", "n_kernels")
        expect_shares(self, "dropout")


def strongest_periods(x: Tensor, n_periods: int) -> tuple[Tensor, Tensor]:
    """The periods [B, k] of the strongest frequencies of x [B, T, D], in steps, and their amplitudes [B, k].

    Amplitudes are means over the width; a period is T // frequency, so at least 2. Windows of fewer than 2 * k steps
    have T // 2 periods.
    """
    n_steps = x.shape[1]
    wide = x if x.dtype == torch.float64 else x.float()  # no transform of bfloat16
    amplitude = torch.fft.rfft(wide, dim=1).abs().mean(-1)[:, 1:]  # [B, T//2], without the mean
    strongest, index = amplitude.topk(min(n_periods, n_steps // 2), dim=-1)
    every = torch.full_like(index, n_steps)  # a tensor, since ONNX knows no quotient of a number and a tensor
    return torch.div(every, index + 1, rounding_mode="floor"), strongest


class Inception(nn.Module):
    """The mean of square convolutions of sides 1, 3 ... 2n - 1, over steps laid out in rows of one period."""

    def __init__(self, width: int, out_width: int, n_kernels: int) -> None:
        super().__init__()
        self.reach = n_kernels - 1
        kernels = [torch.empty(out_width, width, 2 * i + 1, 2 * i + 1) for i in range(n_kernels)]
        for kernel in kernels:
            nn.init.kaiming_normal_(kernel, mode="fan_out", nonlinearity="relu")
        self.kernels = nn.ParameterList(nn.Parameter(kernel) for kernel in kernels)  # [D', D, side, side]
        self.biases = nn.Parameter(torch.zeros(n_kernels, out_width))

    def kernel(self) -> Tensor:
        """All kernels in one: [D', D, K, K], K the side of the largest."""
        return torch.stack([F.pad(k, [self.reach - k.shape[-1] // 2] * 4) for k in self.kernels]).mean(0)

    def forward(self, x: Tensor, period: Tensor) -> Tensor:
        """[M, T, D], each with its period [M], to [M, T, D']."""
        return conv_grid(x, period, self.kernel()) + self.biases.mean(0)


class TimesBlock(nn.Module):
    """Fold along k periods, convolve, unfold, add up by amplitude; the input is added to the outcome."""

    def __init__(self, config: TimesNetConfig) -> None:
        super().__init__()
        self.n_periods = config.n_periods
        self.rise = Inception(config.width, config.feed_forward, config.n_kernels)
        self.fall = Inception(config.feed_forward, config.width, config.n_kernels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] to the same."""
        period, amplitude = strongest_periods(x, self.n_periods)  # [B, k]
        k = period.shape[1]
        folded = x.repeat_interleave(k, dim=0)  # [B*k, T, D]
        period = period.flatten()
        y = self.fall(F.gelu(self.rise(folded, period)), period).unflatten(0, (-1, k))  # [B, k, T, D]
        return x + torch.einsum("bktd,bk->btd", y, amplitude.softmax(-1).to(y.dtype))


class Stack(nn.Module):
    """The parts that both forms share: the embedding of steps, and the blocks with the one norm behind each."""

    def __init__(self, config: TimesNetConfig, n_channels: int) -> None:
        super().__init__()
        self.look = nn.Conv1d(n_channels, config.width, 3, padding=1, padding_mode="circular", bias=False)
        nn.init.kaiming_normal_(self.look.weight, mode="fan_in", nonlinearity="leaky_relu")
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(TimesBlock(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.width)

    def embed(self, x: Tensor) -> Tensor:
        """[B, C, T] to [B, T, D], with the sine and cosine of the position added."""
        y = self.look(x).transpose(1, 2)
        return self.dropout(y + _positions(y.shape[1], y.shape[2], y))

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] through all blocks to the same."""
        for block in self.blocks:
            x = self.norm(block(x))
        return x


def _positions(n_steps: int, width: int, like: Tensor) -> Tensor:
    """Sines and cosines in turn [T, D], as in the first transformer."""
    step = torch.arange(n_steps, device=like.device, dtype=like.dtype)
    rate = torch.exp(torch.arange(0, width, 2, device=like.device, dtype=like.dtype) * (-math.log(10_000.0) / width))
    angle = step[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :width]


class TimesNet(Encoder):
    """Window -> embedding -> blocks -> head: a token for every step, in which all channels are mixed.

    The window is read as it comes, scaled by the data set and not by itself, as in the authors' classifier.
    """

    n_groups_of = "window"

    def __init__(self, config: TimesNetConfig, *, n_channels: int, context_length: int) -> None:
        super().__init__()
        _check_length(context_length)
        self.config, self.context_length, self.width = config, context_length, config.width
        self.n_channels, self.n_tokens = n_channels, context_length
        self.patch_length = self.stride = 1
        self.stack = Stack(config, n_channels)
        self.head = nn.Identity()

    def encode(self, x: Tensor, observed: Tensor | None = None) -> Features:
        """[B, C, T] of any length from 2 on to tokens [B, 1, T, D]; a step is valid if a channel was observed there."""
        expect(x, "B C T", who="TimesNet", C=self.n_channels)
        one = torch.ones_like(x[..., :1])
        stats = Stats(torch.zeros_like(one), one)
        seen = torch.ones_like(x[:, 0], dtype=torch.bool) if observed is None else observed.any(1)  # [B, T]
        if observed is not None:
            alive = seen.flip(-1).cummax(-1).values.flip(-1)  # [B, T] up to the last observed step
            x = bridge(x.masked_fill(~observed, 0.0), observed).masked_fill(~alive[:, None], 0.0)
        tokens = self.stack(self.stack.embed(x))  # [B, T, D]
        return Features(tokens[:, None], seen[:, None], x, stats)


class TimesNetForecaster(nn.Module):
    """normalize -> embedding -> line from T to T + H steps -> blocks -> channels of the last H: [B, C, H]."""

    stacks = True

    def __init__(self, config: TimesNetConfig, *, n_channels: int, context_length: int, horizon: int) -> None:
        super().__init__()
        _check_length(context_length)
        self.config, self.n_channels = config, n_channels
        self.context_length, self.horizon = context_length, horizon
        self.normalize = InstanceNorm()
        self.stack = Stack(config, n_channels)
        self.carry_on = nn.Linear(context_length, context_length + horizon)
        self.project = nn.Linear(config.width, n_channels)

    def forward(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """[B, C, T] and its mask (None: all observed) to [B, C, H]."""
        expect(x, "B C T", who="TimesNet", C=self.n_channels, T=self.context_length)
        x, stats = self.normalize(x, observed)
        x = self.stack.embed(bridge(x, observed))  # [B, T, D]
        x = self.carry_on(x.transpose(1, 2)).transpose(1, 2)  # [B, T+H, D]
        y = self.project(self.stack(x)[:, -self.horizon :]).transpose(1, 2)  # [B, C, H]
        return self.normalize.inverse(y, stats)


def _check_length(context_length: int) -> None:
    if context_length < 2:
        raise SettingsError(f"TimesNet finds periods in windows of at least 2 steps, but got {context_length}.")
