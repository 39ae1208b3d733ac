"""FormerTime: a transformer in stages, each of which joins neighboring tokens and so reads a coarser scale.

Source: Cheng, Liu, Liu, Li, Luo, Chen, "FormerTime: Hierarchical Multi-Scale Representations for Multivariate Time
Series Classification", WWW 2023, arXiv 2302.09818, and the authors' code (icantnamemyself/FormerTime). A stage is: a
strided convolution that slices the series (steps of all channels in the first stage, tokens in the others), a layer
norm, a contextual positional generator (a convolution of 5 tokens, added), and blocks of temporal reduction attention,
whose keys and values are made of fewer tokens, and a pointwise pair; post-norm, each branch with a learned residual
weight that begins at 1e-8. Where we differ:

- keys and values are shortened by a convolution over R neighbors, of kernel and stride R, as pyramid transformers for
  pictures do. The authors' code maps all N tokens to N/R with one learned matrix over time, which binds a model to one
  length; ours reads cases of any length (the text of the paper could not be had to compare);
- the heads of attention are joined by an output map; the authors' code allocates one and never applies it;
- keys have no bias, since a constant added to all of them changes no attention;
- the last slice is filled up with what is last, so that no observed step is lost, and a window ends with its last
  observed step: what lies behind changes no token before it. Unobserved points are bridged by straight lines;
- dropout stands once on every branch; the authors' pair has a second one at the same place;
- a window can be read in its own level and scale (``normalize``). The authors' is not, nor is it where the task is
  classification;
- the first slice is shorter for short windows where none is named: the authors choose one for every data set.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from prismts.errors import SettingsError
from prismts.layers.ends import hold, n_slices, n_steps, seen_by_tokens, within
from prismts.layers.features import Features
from prismts.layers.missing import read_window
from prismts.layers.normalize import InstanceNorm, Stats
from prismts.layers.patch import pad_end
from prismts.models.contract import Encoder
from prismts.models.convtimenet import Residual
from prismts.ranges import expect_heads, expect_numbers, expect_shares, expect_stages
from prismts.shapes import expect

__all__ = ["AttentionBlock", "FormerTime", "FormerTimeConfig", "ReducedAttention"]


@dataclass(frozen=True, kw_only=True)
class FormerTimeConfig:
    """Settings of the encoder. One number per stage in every tuple: steps in the first, tokens in the others."""

    slices: tuple[int, ...] | None = None  # None: 16, 2, 2, the first at most an eighth of the context
    strides: tuple[int, ...] | None = None  # None: half of the first slice, the others whole
    n_layers: tuple[int, ...] = (6, 6, 6)
    reductions: tuple[int, ...] = (2, 1, 1)  # tokens that become one key
    width: int = 64
    n_heads: int = 4
    expansion: int = 4  # of the pointwise pair: width times this inside
    dropout: float = 0.1
    residual: float | None = 1e-8  # learned weight of each branch at the start; None fixes it at 1
    normalize: bool = True  # take each window's level and scale away; not where classes are told apart

    def __post_init__(self) -> None:
        stages = [name for name in ("n_layers", "reductions", "slices", "strides") if getattr(self, name) is not None]
        expect_stages(self, *stages)
        if min(min(getattr(self, name)) for name in stages) < 1 or min(self.width, self.n_heads, self.expansion) < 1:
            raise SettingsError("All lengths, strides, layers, heads and widths are at least 1.")
        expect_heads(self.width, self.n_heads)
        if self.strides is not None:
            if self.slices is None:
                raise SettingsError("strides are named, but not slices. Name both, or neither.")
            if any(stride > length for length, stride in zip(self.slices, self.strides, strict=True)):
                raise SettingsError(
                    f"strides {self.strides} leave out what lies between slices of {self.slices}. Set each to at most "
                    "its slice."
                )
        expect_shares(self, "dropout")
        expect_numbers(self, or_none=("residual",))

    def sized(self, context_length: int) -> FormerTimeConfig:
        """These settings with slices and strides that suit windows of this length, where none are named."""
        slices = self.slices or (min(16, max(2, context_length // 8)), *(2,) * (len(self.n_layers) - 1))
        strides = self.strides or (max(1, slices[0] // 2), *slices[1:])
        return replace(self, slices=slices, strides=strides)

    def spans(self) -> tuple[int, int]:
        """Steps that a token of the last stage is made of, and from one such token to the next."""
        assert self.slices is not None and self.strides is not None
        length, stride = 1, 1
        for slice_length, slice_stride in zip(self.slices, self.strides, strict=True):
            length, stride = length + (slice_length - 1) * stride, stride * slice_stride
        return length, stride


class ReducedAttention(nn.Module):
    """Multi-head attention whose keys and values are made of every R neighboring tokens, normalized."""

    def __init__(self, width: int, n_heads: int, dropout: float, reduction: int = 1) -> None:
        super().__init__()
        self.n_heads, self.dropout, self.reduction = n_heads, dropout, reduction
        self.query, self.value, self.out = (nn.Linear(width, width) for _ in range(3))
        self.key = nn.Linear(width, width, bias=False)
        self.shorten = nn.Conv1d(width, width, reduction, stride=reduction) if reduction > 1 else None
        self.norm = nn.LayerNorm(width) if reduction > 1 else None

    def forward(self, x: Tensor, source: Tensor, n: Tensor | None = None) -> Tensor:
        """What x [B, N, D] finds in the first n [B] tokens (None: all) of a source [B, M, D]: [B, N, D]."""
        if self.shorten is not None and self.norm is not None:
            rows = source.transpose(1, 2)  # [B, D, M]
            rows = pad_end(rows, -rows.shape[-1] % self.reduction)
            if n is not None:
                rows, n = hold(rows, n[:, None]), n_slices(n, self.reduction, self.reduction)
            source = self.norm(self.shorten(rows).transpose(1, 2))  # [B, M/R, D]
        query, key, value = (
            rearrange(y, "b n (h d) -> b h n d", h=self.n_heads)
            for y in (self.query(x), self.key(source), self.value(source))
        )
        mask = None if n is None else within(n, source.shape[1])[:, None, None]  # [B, 1, 1, M]
        y = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0
        )
        return self.out(rearrange(y, "b h n d -> b n (h d)"))


class AttentionBlock(nn.Module):
    """Attention, then the pointwise pair; each is weighed, added to what it read, and normalized after that."""

    def __init__(
        self, width: int, n_heads: int, expansion: int, dropout: float, residual: float | None, reduction: int = 1
    ) -> None:
        super().__init__()
        self.attention = ReducedAttention(width, n_heads, dropout, reduction)
        self.rise, self.fall = nn.Linear(width, expansion * width), nn.Linear(expansion * width, width)
        self.join_attention, self.join_pair = Residual(residual, dropout), Residual(residual, dropout)
        self.norm_attention, self.norm_pair = nn.LayerNorm(width), nn.LayerNorm(width)
        for part in self.modules():  # as the authors begin
            if isinstance(part, nn.Linear):
                nn.init.xavier_normal_(part.weight)
                if part.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
                    nn.init.constant_(part.bias, 0.1)

    def forward(self, x: Tensor, n: Tensor | None = None, source: Tensor | None = None) -> Tensor:
        """[B, N, D] to the same; it reads the first n [B] tokens of itself, or of a source [B, M, D]."""
        found = self.attention(x, x if source is None else source, n)
        x = self.norm_attention(self.join_attention(x, found))
        return self.norm_pair(self.join_pair(x, self.fall(F.gelu(self.rise(x)))))


class Stage(nn.Module):
    """Slice, say where a token stands by what stands around it, attend."""

    def __init__(self, config: FormerTimeConfig, number: int, n_inputs: int) -> None:
        super().__init__()
        assert config.slices is not None and config.strides is not None
        self.length, self.stride = config.slices[number], config.strides[number]
        self.slice = nn.Conv1d(n_inputs, config.width, self.length, stride=self.stride)
        self.norm = nn.LayerNorm(config.width)
        self.position = nn.Conv1d(config.width, config.width, 5, padding="same")
        self.blocks = nn.ModuleList(
            AttentionBlock(
                config.width, config.n_heads, config.expansion, config.dropout, config.residual,
                config.reductions[number],
            )
            for _ in range(config.n_layers[number])
        )  # fmt: skip

    def forward(self, x: Tensor, n: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """[B, D, N], of which the first n [B] count, to fewer tokens [B, D, M] and how many of them count."""
        n_tokens = n_slices(x.shape[-1], self.length, self.stride)
        if n is not None:
            x, n = hold(x, n[:, None]), n_slices(n, self.length, self.stride)
        x = pad_end(x, max(0, (n_tokens - 1) * self.stride + self.length - x.shape[-1]))
        x = self.norm(self.slice(x).transpose(1, 2))  # [B, M, D]
        around = x if n is None else x.masked_fill(~within(n, n_tokens)[..., None], 0.0)
        x = x + self.position(around.transpose(1, 2)).transpose(1, 2)
        for block in self.blocks:
            x = block(x, n)
        return x.transpose(1, 2), n


class FormerTime(Encoder):
    """slice -> attend, stage by stage -> head. All channels are sliced together: G = 1."""

    heeds_end = True

    n_groups_of = "window"

    def __init__(self, config: FormerTimeConfig, *, n_channels: int, context_length: int) -> None:
        super().__init__()
        config = config.sized(context_length)
        self.config, self.context_length, self.width = config, context_length, config.width
        self.n_channels = n_channels
        self.patch_length, self.stride = config.spans()
        self.normalize = InstanceNorm() if config.normalize else None
        self.stages = nn.ModuleList(
            Stage(config, i, config.width if i else n_channels) for i in range(len(config.n_layers))
        )
        self.n_tokens = self._n_tokens(context_length)
        self.head = nn.Identity()

    def encode(self, x: Tensor, observed: Tensor | None = None) -> Features:
        """[B, C, T] to tokens [B, 1, N, D]; tokens after the last observed step are zero, and not valid."""
        expect(x, "B C T", who="FormerTime", C=self.n_channels)
        window, stats = read_window(x, observed, self.normalize)
        n = None if observed is None else n_steps(observed)
        x = window
        for stage in self.stages:
            x, n = stage(x, n)
        return as_features(x.transpose(1, 2), n, window, stats, observed, self.patch_length, self.stride)

    def _n_tokens(self, n: int) -> int:
        assert self.config.slices is not None and self.config.strides is not None
        for length, stride in zip(self.config.slices, self.config.strides, strict=True):
            n = n_slices(n, length, stride)
        return n


def as_features(
    x: Tensor, n: Tensor | None, window: Tensor, stats: Stats, observed: Tensor | None, length: int, stride: int
) -> Features:
    """Tokens x [B, N, D], of which the first n [B] count, as the features of one group."""
    if observed is None or n is None:
        seen = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    else:
        alive = within(n, x.shape[1])
        x = x.masked_fill(~alive[..., None], 0.0)
        seen = seen_by_tokens(observed.any(1), x.shape[1], length, stride) & alive  # slices may overlap the end
    return Features(x[:, None], seen[:, None], window, stats)
