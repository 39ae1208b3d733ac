"""DeformableTST: attention that looks at a few places of the series, which each window chooses for itself.

Source: Luo & Wang, "DeformableTST: Transformer for Time Series Forecasting without Over-reliance on Patching", NeurIPS
2024, and the authors' code (luodhhh/DeformableTST). Channels share all weights and are read apart. A convolutional stem
makes tokens of every step (ratio 1) or of a few steps, a pyramid of stages halves them, and a block is: a local
perception unit (a depthwise kernel of 3, residual), deformable attention, and a pointwise pair with a depthwise kernel
of 3 inside; the last two pre-norm, with stochastic depth.

In deformable attention a small network (a strided depthwise kernel, norm, GELU, one number) shifts sampling places that
lie evenly over the tokens; keys and values are made of the tokens sampled there, and a learned table adds a bias for
the distance between a token and a place. Each group of the width has places of its own. Where we differ:

- undisturbed places lie in the middle of equal parts of the series; the authors divide by one part too few, so theirs
  reach beyond the last token, where all are clamped to it. Both are the same unit: a shift of 1 is half the series;
- keys have no bias, since a constant added to all of them changes no attention;
- a window whose length is no whole number of the last stage's strides is filled up with its last value (their code then
  fails), and a series of a single token has a place instead of none;
- distances beyond the table, in windows longer than the model was built for, take its outermost bias;
- unobserved points are bridged by straight lines and marked;
- the dropout of the head (theirs: .1) stands before its linear map and is 0 unless asked for; the norm before the
  head belongs to the encoder.

``stem_ratio=None`` takes the authors' for windows up to their lengths: 1 up to 96 steps, 4 up to 384, 8 beyond.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from prismts.errors import SettingsError
from prismts.layers.dropout import Dropout
from prismts.layers.ends import n_slices, seen_by_tokens
from prismts.layers.features import Features
from prismts.layers.missing import bridge
from prismts.layers.normalize import InstanceNorm
from prismts.layers.patch import pad_end, sample_linear
from prismts.models.contract import Encoder
from prismts.ranges import expect_shares, expect_stages
from prismts.shapes import expect

__all__ = ["Block", "DeformableAttention", "DeformableTST", "DeformableTSTConfig"]


@dataclass(frozen=True, kw_only=True)
class DeformableTSTConfig:
    """Settings of the encoder; one number per stage in every tuple, kernels and strides in tokens of the stage."""

    stem_ratio: int | None = None  # steps of a token of the first stage: 1 or even; None: by the length of the context
    widths: tuple[int, ...] = (16, 32, 64, 128)
    n_blocks: tuple[int, ...] = (1, 1, 1, 1)
    n_heads: tuple[int, ...] = (4, 8, 16, 32)
    n_groups: tuple[int, ...] = (2, 4, 8, 16)  # of the width, each with its own sampling places
    offset_kernels: tuple[int, ...] = (9, 7, 5, 3)
    offset_strides: tuple[int, ...] = (8, 4, 2, 1)  # tokens from one sampling place to the next
    downsampling: int = 2  # tokens that become one between two stages
    expansion: int = 1  # of the pointwise pair: width times this inside
    dropout: float = 0.0  # in attention and pair; the authors use none
    drop_path: float = 0.3  # share of windows for which a branch of the last block is left out; 0 at the first block

    def __post_init__(self) -> None:
        expect_stages(self, "widths", "n_blocks", "n_heads", "n_groups", "offset_kernels", "offset_strides")
        for width, heads, groups in zip(self.widths, self.n_heads, self.n_groups, strict=True):
            if min(width, heads, groups) < 1 or width % heads or heads % groups:
                raise SettingsError(
                    f"A width of {width} cannot be shared out among {heads} heads in {groups} groups. Let n_heads "
                    "divide widths, and n_groups divide n_heads."
                )
        if min(*self.n_blocks, *self.offset_strides, self.expansion, self.downsampling) < 1:
            raise SettingsError("n_blocks, offset_strides, expansion and downsampling are at least 1.")
        if any(k < 1 or k % 2 == 0 for k in self.offset_kernels):
            raise SettingsError(f"offset_kernels are odd, but got {self.offset_kernels}.")
        if self.stem_ratio is not None and self.stem_ratio != 1 and (self.stem_ratio < 2 or self.stem_ratio % 2):
            raise SettingsError(
                f"stem_ratio is 1 or even, since the stem halves the steps first, but got {self.stem_ratio}."
            )
        expect_shares(self, "dropout", "drop_path")

    def sized(self, context_length: int) -> DeformableTSTConfig:
        """These settings with the ratio of the stem that suits windows of this length."""
        if self.stem_ratio is not None:
            return self
        return replace(self, stem_ratio=1 if context_length <= 96 else 4 if context_length <= 384 else 8)

    def total_stride(self, context_length: int) -> int:
        """Steps from one token of the last stage to the next."""
        ratio = self.sized(context_length).stem_ratio
        assert ratio is not None
        return ratio * self.downsampling ** (len(self.widths) - 1)


class TokenNorm(nn.LayerNorm):
    """Layer normalization over the width of [M, D, N]."""

    def forward(self, input: Tensor) -> Tensor:
        """[M, D, N] to the same."""
        return super().forward(input.transpose(1, 2)).transpose(1, 2)


class DropPath(nn.Module):
    """Leave a branch out for a random share of the rows, and let it count more for the others."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """[M, D, N] to the same."""
        if not self.training or self.share == 0:
            return x
        stays = torch.rand(x.shape[0], 1, 1, device=x.device) >= self.share
        return x * stays.to(x.dtype) / (1 - self.share)


class DeformableAttention(nn.Module):
    """Attention from every token to tokens sampled at places that the window shifts for itself."""

    def __init__(
        self, width: int, n_heads: int, n_groups: int, n_tokens: int, kernel: int, stride: int, dropout: float
    ) -> None:
        super().__init__()
        self.n_heads, self.n_groups, self.dropout = n_heads, n_groups, dropout
        in_group = width // n_groups
        self.query = nn.Conv1d(width, width, 1)
        self.key = nn.Conv1d(width, width, 1, bias=False)
        self.value = nn.Conv1d(width, width, 1)
        self.out = nn.Conv1d(width, width, 1)
        padding = 0 if kernel == stride else kernel // 2
        self.look = nn.Conv1d(in_group, in_group, kernel, stride=stride, padding=padding, groups=in_group)
        self.norm = TokenNorm(in_group)
        self.shift = nn.Conv1d(in_group, 1, 1, bias=False)
        self.near = nn.Parameter(torch.empty(n_heads, 2 * n_tokens - 1))  # bias by distance -(N-1)..N-1
        nn.init.trunc_normal_(self.near, std=0.01)

    def places(self, query: Tensor) -> Tensor:
        """Where each group samples, in tokens from 0 to N-1: [M, G, K] from the queries [M, D, N]."""
        n = query.shape[-1]
        groups = rearrange(query, "m (g d) n -> (m g) d n", g=self.n_groups)
        moved = self.shift(F.gelu(self.norm(self.look(groups))))[:, 0]  # [M*G, K]
        k = moved.shape[-1]
        middle = (torch.arange(k, device=query.device, dtype=query.dtype) + 0.5) * (n / k) - 0.5
        return rearrange((middle + moved * ((n - 1) / 2)).clamp(0, n - 1), "(m g) k -> m g k", g=self.n_groups)

    def forward(self, x: Tensor) -> Tensor:
        """[M, D, N] to the same."""
        n = x.shape[-1]
        query = self.query(x)
        places = rearrange(self.places(query), "m g k -> (m g) 1 k")
        tokens = rearrange(x, "m (g d) n -> (m g) d n", g=self.n_groups)
        sampled = sample_linear(tokens, places.expand(-1, tokens.shape[1], -1).to(tokens.dtype))
        sampled = rearrange(sampled, "(m g) d k -> m (g d) k", g=self.n_groups)
        query, key, value = (
            rearrange(y, "m (h d) n -> m h d n", h=self.n_heads)
            for y in (query, self.key(sampled), self.value(sampled))
        )
        key = key * key.shape[2] ** -0.5
        scores = key.transpose(2, 3) @ query + self._bias(places, n).to(query.dtype)  # [M, h, K, N]
        share = F.dropout(scores.softmax(2), self.dropout, self.training)
        return self.out(rearrange(value @ share, "m h d n -> m (h d) n"))

    def _bias(self, places: Tensor, n: int) -> Tensor:
        """What the distance from each place [M*G, 1, K] to each token adds to the attention: [M, h, K, N].

        From one place all tokens lie at whole distances of one another, so that they need n entries of the table in a
        row and the n beside them, mixed by the same share.
        """
        n_heads, furthest = self.n_heads, self.near.shape[1] // 2
        beyond = max(0, n - 1 - furthest)
        table = F.pad(self.near[None], (beyond + 1, beyond), mode="replicate")[0]
        rows = table.unfold(1, n, 1)  # [h, S, n], the first for distances -furthest - beyond - 1 and on
        places = rearrange(places, "(m g) 1 k -> m g k", g=self.n_groups)
        places = places.repeat_interleave(n_heads // self.n_groups, dim=1)  # [M, h, K]
        left = places.detach().floor()
        head = torch.arange(n_heads, device=places.device)[:, None] * rows.shape[1]
        first = (furthest + beyond - left.long() + head).flatten()
        rows = rows.flatten(0, 1)
        far, near = (rows.index_select(0, i).view(*left.shape, n) for i in (first, first + 1))
        return torch.lerp(near, far, (places - left).to(rows.dtype)[..., None])


class ConvPair(nn.Module):
    """The pointwise pair D -> F -> D, with a depthwise kernel of 3 beside the middle."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.rise = nn.Conv1d(width, hidden, 1)
        self.local = nn.Conv1d(hidden, hidden, 3, padding=1, groups=hidden)
        self.fall = nn.Conv1d(hidden, width, 1)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[M, D, N] to the same."""
        x = self.dropout(self.rise(x))
        return self.dropout(self.fall(F.gelu(x + self.local(x))))


class Block(nn.Module):
    """What stands beside a token, what stands elsewhere, and the pointwise pair."""

    def __init__(self, config: DeformableTSTConfig, stage: int, n_tokens: int, drop_path: float) -> None:
        super().__init__()
        width = config.widths[stage]
        self.perceive = nn.Conv1d(width, width, 3, padding=1, groups=width)
        self.norm_attention, self.norm_pair = TokenNorm(width), TokenNorm(width)
        self.attention = DeformableAttention(
            width, config.n_heads[stage], config.n_groups[stage], n_tokens, config.offset_kernels[stage],
            config.offset_strides[stage], config.dropout,
        )  # fmt: skip
        self.pair = ConvPair(width, config.expansion * width, config.dropout)
        self.path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """[M, D, N] to the same."""
        x = x + self.perceive(x)
        x = x + self.path(self.attention(self.norm_attention(x)))
        return x + self.path(self.pair(self.norm_pair(x)))


class DeformableTST(Encoder):
    """normalize -> stem -> stages of blocks, halving the tokens in between -> norm -> head; channels apart."""

    n_groups_of = "channels"

    def __init__(self, config: DeformableTSTConfig, *, n_channels: int, context_length: int) -> None:
        super().__init__()
        config = config.sized(context_length)
        self.config, self.context_length, self.width = config, context_length, config.widths[-1]
        self.patch_length = self.stride = config.total_stride(context_length)
        self.n_tokens = n_slices(context_length, self.stride, self.stride)
        self.normalize = InstanceNorm()
        ratio, first = config.stem_ratio, config.widths[0]
        assert ratio is not None
        self.stem = (
            nn.Sequential(nn.Conv1d(1, first, 1), TokenNorm(first))
            if ratio == 1
            else nn.Sequential(
                nn.Conv1d(1, first // 2, 3, stride=2, padding=1), TokenNorm(first // 2), nn.GELU(),
                nn.Conv1d(first // 2, first, ratio // 2, stride=ratio // 2), TokenNorm(first),
            )
        )  # fmt: skip
        shares = torch.linspace(0, config.drop_path, sum(config.n_blocks)).tolist()
        stages: list[nn.Module] = []
        for i, (width, n_blocks) in enumerate(zip(config.widths, config.n_blocks, strict=True)):
            n_tokens = self.n_tokens * config.downsampling ** (len(config.widths) - 1 - i)
            parts: list[nn.Module] = []
            if i:
                ratio = config.downsampling
                parts += [nn.Conv1d(config.widths[i - 1], width, ratio, stride=ratio), TokenNorm(width)]
            parts += [Block(config, i, n_tokens, shares.pop(0)) for _ in range(n_blocks)]
            stages.append(nn.Sequential(*parts))
        self.stages = nn.ModuleList(stages)
        self.norm = TokenNorm(self.width)
        self.head = nn.Identity()

    def encode(self, x: Tensor, observed: Tensor | None = None) -> Features:
        """[B, C, T] to tokens [B, C, N, D]."""
        expect(x, "B C T", who="DeformableTST")
        n_channels = x.shape[1]
        x, stats = self.normalize(x, observed)
        window = bridge(x, observed)
        n_tokens = n_slices(window.shape[-1], self.stride, self.stride)
        x = pad_end(window, n_tokens * self.stride - window.shape[-1])
        x = self.stem(rearrange(x, "b c t -> (b c) 1 t"))  # [B*C, D, N]
        for stage in self.stages:
            x = stage(x)
        tokens = rearrange(self.norm(x), "(b c) d n -> b c n d", c=n_channels)
        if observed is None:
            seen = torch.ones(tokens.shape[:3], dtype=torch.bool, device=tokens.device)
        else:
            seen = seen_by_tokens(observed, n_tokens, self.patch_length, self.stride)
        return Features(tokens, seen, window, stats)
