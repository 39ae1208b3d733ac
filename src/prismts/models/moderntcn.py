"""ModernTCN: every variable in patches of its own, one large depthwise kernel, then features and variables in turn.

Source: Luo & Wang, "ModernTCN: A Modern Pure Convolution Structure for General Time Series Analysis", ICLR 2024, and
the authors' code (luodhhh/ModernTCN). A block is: a depthwise convolution over tokens with weights of its own for every
variable and feature (a large and a small kernel, each with a batch norm, that merge into one), a batch norm, ConvFFN1
over the features of each variable, ConvFFN2 over the variables of each feature, and a residual around all of it. So
tokens keep their variable (G = C), but the model is bound to C variables. Where we differ:

- kernels and their norms merge once, on request, into a new model; the authors' ``structural_reparam`` changes the
  trained one (and passes an argument that torch does not know);
- the convolution of the stem has no bias, since the batch norm behind it takes it away;
- a window whose length is no whole number of strides is filled up with its last value, so that no step is lost;
- unobserved points are bridged by straight lines and marked; a window ends with the last step at which any channel was
  observed, and what lies behind changes no token and no statistic;
- left out: fusing the stages (``use_multi_scale``), the decomposition into two models, features of the calendar and
  RevIN's affine map, none of which the authors' settings use. Their code still allocates layers for the first and the
  third, so its counts are larger than what it computes with: ``tests/test_rivals_convolution.py`` counts the latter;
- the head belongs to the task. The authors' classifier does not normalize the window (``normalize=False``) and reads
  all tokens of all variables side by side. Ours pools over time; with ``joined`` the variables of a time stand side by
  side in one token (G = 1, D = C * width), so that they are told apart. The task of classification sets both.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from prismts.errors import SettingsError
from prismts.layers.batch_norm import BatchNorm
from prismts.layers.convolve import DepthwiseConv, conv_depthwise
from prismts.layers.dropout import Dropout
from prismts.layers.ends import hold, n_slices, n_steps, seen_by_tokens, within
from prismts.layers.features import Features
from prismts.layers.missing import read_window
from prismts.layers.normalize import InstanceNorm
from prismts.layers.patch import pad_end
from prismts.layers.paths import worth_slicing
from prismts.models.contract import Encoder
from prismts.ranges import expect_shares, expect_stages
from prismts.shapes import expect

__all__ = ["Block", "GroupedPair", "LargeKernel", "ModernTCN", "ModernTCNConfig"]

_SLICE = 2**19  # values that go through both pairs at once


@dataclass(frozen=True, kw_only=True)
class ModernTCNConfig:
    """Settings of the encoder; lengths in time steps, kernels in tokens. One number per stage in every tuple."""

    patch_length: int = 8
    stride: int = 4
    widths: tuple[int, ...] = (64,)
    n_blocks: tuple[int, ...] = (1,)
    kernel_sizes: tuple[int, ...] = (51,)
    small_kernels: tuple[int, ...] = (5,)  # beside each large one; 0 for none
    expansion: int = 1  # of the pointwise pairs: width or variables times this inside
    downsampling: int = 2  # tokens that become one between two stages
    dropout: float = 0.3
    normalize: bool = True  # take each window's level and scale away
    joined: bool = False  # one token for all variables of a time, side by side

    def __post_init__(self) -> None:
        expect_stages(self, "widths", "n_blocks", "kernel_sizes", "small_kernels")
        if min(*self.widths, *self.n_blocks, *self.kernel_sizes, self.expansion, self.downsampling, self.stride) < 1:
            raise SettingsError("widths, n_blocks, kernel_sizes, expansion, downsampling and stride are at least 1.")
        for large, small in zip(self.kernel_sizes, self.small_kernels, strict=True):
            if large % 2 == 0 or (small and (small < 1 or small % 2 == 0 or small > large)):
                raise SettingsError(
                    f"Kernels are odd, so that a token stands in their middle, and a small one is no larger than the "
                    f"large one beside it (0 for none), but got {large} and {small}."
                )
        if self.stride > self.patch_length:
            raise SettingsError(
                f"stride={self.stride} leaves out steps between patches of {self.patch_length}. Set it to at most that."
            )
        expect_shares(self, "dropout")

    @property
    def total_stride(self) -> int:
        """Steps from one token of the last stage to the next."""
        return self.stride * self.downsampling ** (len(self.widths) - 1)

    @property
    def total_length(self) -> int:
        """Steps that a token of the last stage is made of, kernels aside."""
        return self.patch_length + self.total_stride - self.stride

    def n_tokens(self, n_timepoints: int) -> int:
        """N of the last stage, for windows of this length."""
        return n_slices(n_timepoints, self.total_stride, self.total_stride)


class Branch(nn.Module):
    """A depthwise kernel without bias, and the batch norm that belongs to it."""

    def __init__(self, n_rows: int, kernel_size: int) -> None:
        super().__init__()
        bound = 1 / sqrt(kernel_size)  # torch's initialization of a depthwise Conv1d
        self.weight = nn.Parameter(torch.empty(n_rows, kernel_size).uniform_(-bound, bound))  # [R, k]
        self.norm = BatchNorm(n_rows)

    def forward(self, x: Tensor, alive: Tensor | None) -> Tensor:
        """[R, B, N] to the same."""
        return self.norm(conv_depthwise(x, self.weight, None), alive)

    def kernel(self) -> tuple[Tensor, Tensor]:
        """The kernel [R, k] and bias [R] that do the same with the statistics of training."""
        norm = self.norm
        assert norm.running_mean is not None and norm.running_var is not None
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        return self.weight * gain[:, None], norm.bias - norm.running_mean * gain


class LargeKernel(nn.Module):
    """A large and a small kernel for every variable and feature, each with its own norm, summed."""

    def __init__(self, n_rows: int, large: int, small: int) -> None:
        super().__init__()
        self.long = Branch(n_rows, large)
        self.short = Branch(n_rows, small) if small else None

    def forward(self, x: Tensor, alive: Tensor | None = None) -> Tensor:
        """[R, B, N] to the same; R = C * D rows."""
        y = self.long(x, alive)
        return y if self.short is None else y + self.short(x, alive)

    @torch.no_grad()
    def merged(self) -> DepthwiseConv:
        """A single convolution with the same output in evaluation; this one is left as it is."""
        weight, bias = self.long.kernel()
        if self.short is not None:
            small, more = self.short.kernel()
            margin = (weight.shape[1] - small.shape[1]) // 2
            weight, bias = weight + F.pad(small, (margin, margin)), bias + more
        with torch.random.fork_rng(devices=[]):  # what is drawn here is replaced at once
            one = DepthwiseConv(*weight.shape)
        one.weight, one.bias = nn.Parameter(weight), nn.Parameter(bias)
        return one.eval()


class GroupedPair(nn.Module):
    """The pointwise pair D -> F -> D with weights of its own for each of G groups: a grouped 1x1 convolution, twice."""

    def __init__(self, n_groups: int, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        # torch's initialization of a grouped Conv1d with one tap
        rise, fall = 1 / sqrt(width), 1 / sqrt(hidden)
        self.rise = nn.Parameter(torch.empty(n_groups, hidden, width).uniform_(-rise, rise))  # [G, F, D]
        self.rise_bias = nn.Parameter(torch.empty(n_groups, hidden, 1).uniform_(-rise, rise))
        self.fall = nn.Parameter(torch.empty(n_groups, width, hidden).uniform_(-fall, fall))  # [G, D, F]
        self.fall_bias = nn.Parameter(torch.empty(n_groups, width, 1).uniform_(-fall, fall))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[G, D, M] to the same."""
        hidden = self.dropout(torch.baddbmm(self.rise_bias, self.rise, x))  # [G, F, M]
        return self.dropout(torch.baddbmm(self.fall_bias, self.fall, F.gelu(hidden)))


class Block(nn.Module):
    """Tokens by depthwise kernels, features of each variable, variables of each feature; a residual around it all."""

    def __init__(self, config: ModernTCNConfig, stage: int, n_channels: int) -> None:
        super().__init__()
        width = config.widths[stage]
        self.conv: nn.Module = LargeKernel(n_channels * width, config.kernel_sizes[stage], config.small_kernels[stage])
        self.norm = BatchNorm(width)
        self.over_features = GroupedPair(n_channels, width, config.expansion * width, config.dropout)
        self.over_channels = GroupedPair(width, n_channels, config.expansion * n_channels, config.dropout)

    def forward(self, x: Tensor, alive: Tensor | None = None) -> Tensor:
        """[C, D, B, N] to the same; tokens that are not ``alive`` [B, N] are 0 before and after."""
        rows = x.flatten(0, 1)  # [C*D, B, N]
        rows = self.conv(rows, alive) if isinstance(self.conv, LargeKernel) else self.conv(rows)
        y = over_features(self.norm, rows.view_as(x), alive).flatten(2)  # [C, D, B*N]
        # tokens do not meet here: where there are many, a slice at a time stays in the cache, forward and backward
        n = max(1, _SLICE // (y.shape[0] * y.shape[1])) if worth_slicing(y) else y.shape[2]
        y = torch.cat([self.pairs(part) for part in y.split(n, dim=2)], dim=2) if n < y.shape[2] else self.pairs(y)
        return x + only(y.view_as(x), alive)

    def pairs(self, x: Tensor) -> Tensor:
        """Features of each variable, then variables of each feature: [C, D, M] to the same, each token by itself."""
        return self.over_channels(self.over_features(x).transpose(0, 1)).transpose(0, 1)


class Downsample(nn.Module):
    """A batch norm, then every few tokens become one: the way from one stage to the next."""

    def __init__(self, width: int, next_width: int, ratio: int) -> None:
        super().__init__()
        self.ratio = ratio
        self.norm = BatchNorm(width)
        self.conv = nn.Conv1d(width, next_width, ratio, stride=ratio)

    def forward(self, x: Tensor, n: Tensor | None) -> Tensor:
        """[C, D, B, N] to [C, E, B, N/ratio], the last group filled up with the last token; n [B] of them count."""
        n_tokens = x.shape[-1]
        y = over_features(self.norm, x, None if n is None else within(n, n_tokens))
        y = pad_end(y, -n_tokens % self.ratio)
        if n is not None:
            y = hold(y, n)
        y = self.conv(rearrange(y, "c d b n -> (c b) d n"))
        return rearrange(y, "(c b) e n -> c e b n", c=x.shape[0])


class ModernTCN(Encoder):
    """normalize -> patch each variable -> stages of blocks -> head. Tokens keep their variable, or join all."""

    heeds_end = True

    def __init__(self, config: ModernTCNConfig, *, n_channels: int, context_length: int) -> None:
        super().__init__()
        self.config, self.context_length = config, context_length
        self.n_channels = n_channels
        self.n_groups_of = "window" if config.joined else "channels"
        self.width = config.widths[-1] * (n_channels if config.joined else 1)
        self.n_tokens = config.n_tokens(context_length)
        self.patch_length, self.stride = config.total_length, config.total_stride
        self.normalize = InstanceNorm() if config.normalize else None
        self.stem = nn.Linear(config.patch_length, config.widths[0], bias=False)
        self.norm_stem = BatchNorm(config.widths[0])
        self.downsample = nn.ModuleList(
            Downsample(config.widths[i], config.widths[i + 1], config.downsampling)
            for i in range(len(config.widths) - 1)
        )
        self.stages = nn.ModuleList(
            nn.ModuleList(Block(config, stage, n_channels) for _ in range(n)) for stage, n in enumerate(config.n_blocks)
        )
        self.head = nn.Identity()

    def encode(self, x: Tensor, observed: Tensor | None = None) -> Features:
        """[B, C, T] to tokens [B, G, N, D]; tokens after the last observed step are zero, and not valid."""
        expect(x, "B C T", who="ModernTCN", C=self.n_channels)
        window, stats = read_window(x, observed, self.normalize)
        length, stride = self.config.patch_length, self.config.stride
        n_first = n_slices(window.shape[-1], stride, stride)
        x = pad_end(window, (n_first - 1) * stride + length - window.shape[-1]).unfold(-1, length, stride)
        x = torch.einsum("bcnp,dp->cdbn", x, self.stem.weight)  # [C, D, B, N]
        n = None if observed is None else n_slices(n_steps(observed), stride, stride)  # [B] tokens that count
        x = over_features(self.norm_stem, x, None if n is None else within(n, n_first))
        for i, stage in enumerate(self.stages):
            if i:
                x = self.downsample[i - 1](x, n)
                n = None if n is None else n_slices(n, self.config.downsampling, self.config.downsampling)
            alive = None if n is None else within(n, x.shape[-1])
            x = only(x, alive)
            for block in stage.children():
                x = block(x, alive)
        tokens = rearrange(x, "c d b n -> b 1 n (c d)" if self.config.joined else "c d b n -> b c n d")
        if observed is None:
            seen = torch.ones(tokens.shape[:3], dtype=torch.bool, device=tokens.device)
        else:
            seen = observed.any(1, keepdim=True) if self.config.joined else observed
            seen = seen_by_tokens(seen, tokens.shape[2], self.patch_length, self.stride)
        return Features(tokens, seen, window, stats)


def over_features(norm: BatchNorm, x: Tensor, alive: Tensor | None) -> Tensor:
    """Batch normalization of x [C, D, B, N] whose statistics are those of a feature, over all variables."""
    if alive is None:  # to torch's own form variables are cases: nothing is transposed
        return nn.BatchNorm1d.forward(norm, x.flatten(2)).view_as(x)
    kept = alive.repeat(x.shape[0], 1)  # [C*B, N]
    return rearrange(norm(rearrange(x, "c d b n -> d (c b) n"), kept), "d (c b) n -> c d b n", c=x.shape[0])


def only(x: Tensor, alive: Tensor | None) -> Tensor:
    """X [C, D, B, N] with zeros where a token is not alive [B, N]."""
    return x if alive is None else x.masked_fill(~alive, 0.0)
