"""iTransformer: a channel is a word. Its whole window is one token, and attention goes from channel to channel.

Source: Liu, Hu, Zhang, Wu, Wang, Ma, Long, "iTransformer: Inverted Transformers Are Effective for Time Series
Forecasting", ICLR 2024, arXiv 2310.06625, and the authors' code.

Parameters at width D, hidden width F, L layers: T * D + D + L * (4 * (D * D + D) + 2 * D * F + F + D + 4 * D) + 2 * D,
and D * H + H of the head; the number of channels plays no part. The authors' setting for ETTh2 and ETTm (2 layers, 128,
8 heads, 128), which is the default here: 224,224 at context 96 and horizon 96, 254,944 at 336 and 96. Their setting for
Electricity (``LARGE``: 3 layers, 512, 512) at 96 and 720: 5,154,000, reported as 5.15M.

A token holds a whole window, so windows have exactly the steps the model was built for: cases of unequal length cannot
be classified. There is nothing to pool over time: classes are told, and hidden points written, from one token per
channel. It reads any order of channels alike, but all of them at once, and only as many as in training; an
``Embedder``, which wants channels apart, refuses it. With a single channel there is nothing to attend to, and what is
left is an MLP.

Where we differ from the authors' code:

- no tokens of the calendar beside those of the channels;
- unobserved points are bridged by straight lines, and a channel of which nothing was observed is read by no other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from prismts.layers.dropout import Dropout
from prismts.layers.features import Features
from prismts.layers.missing import bridge
from prismts.layers.normalize import InstanceNorm
from prismts.models.contract import Encoder
from prismts.ranges import expect_counts, expect_heads, expect_shares
from prismts.shapes import expect

__all__ = ["LARGE", "ITransformer", "ITransformerConfig"]


@dataclass(frozen=True, kw_only=True)
class ITransformerConfig:
    """Settings of the encoder. The defaults are the authors' for ETTh2, ETTm1 and ETTm2."""

    width: int = 128
    n_heads: int = 8
    feed_forward: int = 128  # width inside the pointwise pair
    n_layers: int = 2
    dropout: float = 0.1

    def __post_init__(self) -> None:
        expect_counts(self, "width", "n_heads", "feed_forward", "n_layers")
        expect_heads(self.width, self.n_heads)
        expect_shares(self, "dropout")


# the authors' setting for Electricity (and, with a layer more, Traffic)
LARGE = ITransformerConfig(width=512, feed_forward=512, n_layers=3)


class ChannelAttention(nn.Module):
    """Every channel asks all channels."""

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """[B, C, D] to the same; only channels that are ``valid`` [B, C] are read."""
        q, k, v = (rearrange(f(x), "b c (h d) -> b h c d", h=self.n_heads) for f in (self.query, self.key, self.value))
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # [B, heads, C, C]
        if valid is not None:
            readable = valid | ~valid.any(-1, keepdim=True)  # where nothing was seen, all are as good
            scores = scores.masked_fill(~readable[:, None, None], torch.finfo(scores.dtype).min)
        y = self.dropout(scores.softmax(-1).to(v.dtype)) @ v  # [B, heads, C, D/heads]
        return self.out(rearrange(y, "b h c d -> b c (h d)"))


class Block(nn.Module):
    """Attention over channels, then the pointwise pair of each, added to what came in and normalized by layer."""

    def __init__(self, config: ITransformerConfig) -> None:
        super().__init__()
        self.attention = ChannelAttention(config.width, config.n_heads, config.dropout)
        self.norm_attention = nn.LayerNorm(config.width)
        self.rise = nn.Linear(config.width, config.feed_forward)
        self.fall = nn.Linear(config.feed_forward, config.width)
        self.norm_forward = nn.LayerNorm(config.width)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """[B, C, D] to the same."""
        x = self.norm_attention(x + self.dropout(self.attention(x, valid)))
        y = self.fall(self.dropout(F.gelu(self.rise(x))))
        return self.norm_forward(x + self.dropout(y))


class ITransformer(Encoder):
    """normalize -> embed each channel's window -> attention over channels -> head."""

    n_groups_of = "channels"
    n_tokens = 1

    def __init__(self, config: ITransformerConfig, *, n_channels: int, context_length: int) -> None:
        super().__init__()
        self.config, self.context_length, self.width = config, context_length, config.width
        self.n_channels = n_channels
        self.patch_length = self.stride = context_length
        self.normalize = InstanceNorm()
        self.embed = nn.Linear(context_length, config.width)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Identity()

    def encode(self, x: Tensor, observed: Tensor | None = None) -> Features:
        """[B, C, T] to one token per channel [B, C, 1, D]; T is the context_length it was built for."""
        expect(x, "B C T", who="iTransformer", C=self.n_channels, T=self.context_length)
        x, stats = self.normalize(x, observed)
        window = bridge(x, observed)
        seen = None if observed is None else observed.any(-1)  # [B, C]
        tokens = self.dropout(self.embed(window))  # [B, C, D]
        for block in self.blocks:
            tokens = block(tokens, seen)
        if seen is None:
            seen = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return Features(self.norm(tokens)[:, :, None], seen[..., None], window, stats)
