"""TimeMAE: a transformer over slices of the series, made to be pre-trained by telling hidden slices.

Source: Cheng, Liu, Liu, Zhang, Zhang, Chen, "TimeMAE: Self-Supervised Representations of Time Series with Decoupled
Masked Autoencoders", arXiv 2303.00320, and the authors' code (Mingyue-Cheng/TimeMAE). The encoder: a convolution whose
kernel is its stride cuts the window into slices that do not overlap, a learned position is added, and blocks of
attention and a pointwise pair follow, post-norm, with residual weights that begin at 1e-8. They are the blocks of
``FormerTime``, by the same authors. How it is pre-trained stands in ``prismts.tasks.decoupled_masking``. Where we
differ:

- the last slice is filled up with the last value, so that no observed step is lost, and a window ends with its last
  observed step: what lies behind changes no token before it. Unobserved points are bridged by straight lines;
- windows longer than the model was built for give their further slices its last position;
- keys have no bias, a branch has one dropout, and a window can be normalized: see ``FormerTime``;
- slices are shorter than the authors' 8 steps in short windows, where no length is named;
- the head belongs to the task; the authors' is the mean of the tokens and a linear map.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from prismts.layers.ends import n_slices, n_steps
from prismts.layers.features import Features
from prismts.layers.missing import read_window
from prismts.layers.normalize import InstanceNorm, Stats
from prismts.layers.patch import pad_end
from prismts.models.contract import Encoder
from prismts.models.formertime import AttentionBlock, as_features
from prismts.ranges import expect_counts, expect_heads, expect_numbers, expect_shares
from prismts.shapes import expect

__all__ = ["TimeMAE", "TimeMAEConfig"]


@dataclass(frozen=True, kw_only=True)
class TimeMAEConfig:
    """Settings of the encoder."""

    slice_length: int | None = None  # steps of a token; None: 8, or an eighth of a context shorter than 64
    width: int = 64
    n_layers: int = 8
    n_heads: int = 4
    expansion: int = 4  # of the pointwise pair: width times this inside
    dropout: float = 0.2
    residual: float | None = 1e-8  # learned weight of each branch at the start; None fixes it at 1
    normalize: bool = True  # take each window's level and scale away; not where classes are told apart

    def __post_init__(self) -> None:
        expect_counts(self, "width", "n_layers", "n_heads", "expansion", or_none=("slice_length",))
        expect_heads(self.width, self.n_heads)
        expect_shares(self, "dropout")
        expect_numbers(self, or_none=("residual",))

    def sized(self, context_length: int) -> TimeMAEConfig:
        """These settings with slices that suit windows of this length, where none are named."""
        return replace(self, slice_length=self.slice_length or min(8, max(2, context_length // 8)))


class TimeMAE(Encoder):
    """slice -> add positions -> attend -> head. All channels are sliced together: G = 1."""

    heeds_end = True

    n_groups_of = "window"

    def __init__(self, config: TimeMAEConfig, *, n_channels: int, context_length: int) -> None:
        super().__init__()
        config = config.sized(context_length)
        assert config.slice_length is not None
        self.config, self.context_length, self.width = config, context_length, config.width
        self.n_channels = n_channels
        self.patch_length = self.stride = config.slice_length
        self.n_tokens = n_slices(context_length, self.stride, self.stride)
        self.normalize = InstanceNorm() if config.normalize else None
        self.slice = nn.Conv1d(n_channels, config.width, self.stride, stride=self.stride)
        self.position = nn.Parameter(torch.randn(self.n_tokens, config.width))  # [N, D]
        self.blocks = nn.ModuleList(
            AttentionBlock(config.width, config.n_heads, config.expansion, config.dropout, config.residual)
            for _ in range(config.n_layers)
        )
        self.head = nn.Identity()

    def encode(self, x: Tensor, observed: Tensor | None = None) -> Features:
        """[B, C, T] to tokens [B, 1, N, D]; tokens after the last observed step are zero, and not valid."""
        x, n, window, stats = self.embed(x, observed)
        x = x + self.positions(x.shape[1])
        for block in self.blocks:
            x = block(x, n)
        return as_features(x, n, window, stats, observed, self.patch_length, self.stride)

    def embed(self, x: Tensor, observed: Tensor | None = None) -> tuple[Tensor, Tensor | None, Tensor, Stats]:
        """Windows [B, C, T] to slices that know neither their place nor each other.

        Returns the slices [B, N, D], how many of them count [B] (None: all), the window without gaps [B, C, T] and what
        normalization took away.
        """
        expect(x, "B C T", who="TimeMAE", C=self.n_channels)
        window, stats = read_window(x, observed, self.normalize)
        n_tokens = n_slices(window.shape[-1], self.stride, self.stride)
        x = self.slice(pad_end(window, n_tokens * self.stride - window.shape[-1])).transpose(1, 2)
        return x, None if observed is None else n_slices(n_steps(observed), self.stride, self.stride), window, stats

    def positions(self, n_tokens: int) -> Tensor:
        """Where each of so many slices stands: [N, D]."""
        place = torch.arange(n_tokens, device=self.position.device).clamp(max=self.n_tokens - 1)
        return self.position[place]
