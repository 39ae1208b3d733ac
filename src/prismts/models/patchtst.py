"""PatchTST: each channel by itself, cut into patches, which are the words of a small transformer.

Source: Nie, Nguyen, Sinthong, Kalagnanam, "A Time Series is Worth 64 Words", ICLR 2023, arXiv 2211.14730, in the
supervised form of the authors' code: the end of the window is repeated for one stride more, learned positions, batch
normalization behind every residual, attention scores added up from layer to layer (RealFormer), one linear map of all
tokens. 64 patches is context 512 (PatchTST/64), 42 is 336 (PatchTST/42).

Parameters with patches of P = 16 every 8 steps, N tokens, width D, hidden width F, L layers:
P * D + D + N * D + L * (4 * (D * D + D) + 2 * D * F + F + D + 4 * D), and D * N * H + H of the head. The authors'
setting for ETTh and ILI (3 layers, width 16, 4 heads, 128), which is the default here: 81,728 at context 336, 115,872
at 512 (horizon 96). Their setting for the larger sets (``LARGE``: 128, 16 heads, 256): 921,184 and 1,194,336; 8,706,256
at context and horizon 720, which others report as 8.71M. All are the authors' counts less the 3 fixed scales of their
attention, which they register as parameters.

Where we differ from the authors' code:

- tokens that saw nothing are read by no other token, and do not count in the statistics of normalization;
- one dropout behind the attention, where they have two in a row;
- no dropout behind the head (theirs is 0 throughout); ``head_dropout`` of the task stands before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from prismts.errors import ShapeError
from prismts.layers.dropout import Dropout
from prismts.layers.features import Features
from prismts.layers.missing import bridge
from prismts.layers.normalize import InstanceNorm, norm_weighed
from prismts.layers.patch import n_patches_within, pad_end
from prismts.layers.paths import is_written_out
from prismts.models.contract import Encoder
from prismts.ranges import expect_counts, expect_heads, expect_shares
from prismts.shapes import expect

__all__ = ["LARGE", "PatchTST", "PatchTSTConfig"]


@dataclass(frozen=True, kw_only=True)
class PatchTSTConfig:
    """Settings of the encoder; lengths in time steps. The defaults are the authors' for small sets (ETTh, ILI)."""

    patch_length: int = 16
    stride: int = 8
    width: int = 16
    n_heads: int = 4
    feed_forward: int = 128  # width inside the pointwise pair
    n_layers: int = 3
    dropout: float = 0.3

    def __post_init__(self) -> None:
        expect_counts(self, "patch_length", "stride", "width", "n_heads", "feed_forward", "n_layers")
        expect_heads(self.width, self.n_heads)
        expect_shares(self, "dropout")

    def n_tokens(self, n_timepoints: int) -> int:
        """N for windows of this length, with one stride more at the end."""
        return n_patches_within(n_timepoints, self.patch_length, self.stride, padding=self.stride)


# the authors' setting for ETTm, Weather, Electricity and Traffic
LARGE = PatchTSTConfig(width=128, n_heads=16, feed_forward=256, dropout=0.2)


class TokenNorm(nn.BatchNorm1d):
    """Batch normalization of tokens [M, N, D]; where some did not see anything, statistics are those of the others."""

    def forward(self, input: Tensor, valid: Tensor | None = None) -> Tensor:
        """[M, N, D], and which tokens count [M, N], to the same shape."""
        rows = input.flatten(0, 1)  # [M*N, D]
        if valid is not None and self.training and is_written_out():
            weight = valid.flatten().to(rows.dtype)
            weight = torch.where(weight.sum() < 2, torch.ones_like(weight), weight)
            return norm_weighed(self, rows, weight).view_as(input)
        if valid is None or not self.training or int(valid.sum()) < 2:
            return super().forward(rows).view_as(input)
        counted = rows[valid.flatten()]
        super().forward(counted)  # moves the running statistics
        var, mean = torch.var_mean(counted, dim=0, correction=0)
        return ((rows - mean) * (var + self.eps).rsqrt() * self.weight + self.bias).view_as(input)


class Attention(nn.Module):
    """Every token asks all others; what it asked in the layer before is added to what it asks now."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, before: Tensor | None, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """[M, N, D] and the scores before [M, heads, N, N] to the same; only ``valid`` tokens [M, N] are read."""
        q, k, v = (rearrange(f(x), "m n (h d) -> m h n d", h=self.n_heads) for f in (self.query, self.key, self.value))
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # [M, heads, N, N]
        if before is not None:
            scores = scores + before
        asked = scores
        if valid is not None:
            readable = valid | ~valid.any(-1, keepdim=True)  # where nothing was seen, all are as good
            asked = scores.masked_fill(~readable[:, None, None], torch.finfo(scores.dtype).min)
        y = asked.softmax(-1).to(v.dtype) @ v  # [M, heads, N, D/heads]
        return self.out(rearrange(y, "m h n d -> m n (h d)")), scores


class Block(nn.Module):
    """Attention, then the pointwise pair, each added to what came in and normalized."""

    def __init__(self, config: PatchTSTConfig) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.n_heads)
        self.norm_attention = TokenNorm(config.width)
        self.rise = nn.Linear(config.width, config.feed_forward)
        self.fall = nn.Linear(config.feed_forward, config.width)
        self.norm_forward = TokenNorm(config.width)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, before: Tensor | None, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """[M, N, D] and the scores of the layer before to the same."""
        y, scores = self.attention(x, before, valid)
        x = self.norm_attention(x + self.dropout(y), valid)
        y = self.fall(self.dropout(F.gelu(self.rise(x))))
        return self.norm_forward(x + self.dropout(y), valid), scores


class PatchTST(Encoder):
    """normalize -> pad -> patch -> embed and place -> transformer -> head; channels share all weights."""

    n_groups_of = "channels"

    def __init__(self, config: PatchTSTConfig, *, n_channels: int, context_length: int) -> None:
        super().__init__()
        self.config, self.context_length, self.width = config, context_length, config.width
        self.patch_length, self.stride = config.patch_length, config.stride
        self.n_tokens = config.n_tokens(context_length)
        self.normalize = InstanceNorm()
        self.embed = nn.Linear(config.patch_length, config.width)
        self.position = nn.Parameter(torch.empty(self.n_tokens, config.width).uniform_(-0.02, 0.02))  # [N, D]
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.head = nn.Identity()

    def encode(self, x: Tensor, observed: Tensor | None = None) -> Features:
        """[B, C, T] to tokens [B, C, N, D]; a shorter window has the first positions."""
        expect(x, "B C T", who="PatchTST")
        n_channels = x.shape[1]
        x, stats = self.normalize(x, observed)
        window = bridge(x, observed)
        n = self.config.n_tokens(x.shape[-1])
        if n > self.n_tokens:
            raise ShapeError(
                f"This PatchTST has learned {self.n_tokens} positions, for windows of {self.context_length} steps, but "
                f"got windows of {x.shape[-1]}. Cut them, or build it with a longer context_length."
            )
        patches = self._cut(window)  # [B, C, N, P]
        tokens = rearrange(self.embed(patches), "b c n d -> (b c) n d") + self.position[:n]
        tokens = self.dropout(tokens)  # [B*C, N, D]
        valid = None if observed is None else self._cut(observed).any(-1)  # [B, C, N]
        seen = None if valid is None else valid.flatten(0, 1)
        scores = None
        for block in self.blocks:
            tokens, scores = block(tokens, scores, seen)
        tokens = rearrange(tokens, "(b c) n d -> b c n d", c=n_channels)
        if valid is None:
            valid = torch.ones(tokens.shape[:3], dtype=torch.bool, device=tokens.device)
        return Features(tokens, valid, window, stats)

    def _cut(self, x: Tensor) -> Tensor:
        """[B, C, T] to [B, C, N, P]; the last value fills the stride behind the window."""
        return pad_end(x, self.stride).unfold(-1, self.patch_length, self.stride)
