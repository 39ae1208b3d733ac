"""LwConvTimeNet: deformable patches before a short stack of plain convolutions.

A light variant of ConvTimeNet by this name is in the proceedings of SPIE (volume 13806); its text could not be had.
What is known of it second-hand is that it keeps the deformable patches and simplifies the blocks behind them. So this
is our reading, and no published number belongs to it:

- deformable patches, normalization, padding and the treatment of gaps are those of ``ConvTimeNet``, unchanged;
- a block is one ordinary convolution over tokens and width (k taps, D x D weights each), GELU, a plain residual and a
  norm: no depthwise large kernel, no second kernel that is merged, no pointwise pair, no learned residual weight;
- three such blocks of three taps see as far as 7 tokens, and have a fifth of the parameters of six ConvTimeNet blocks.

It answers the question whether ConvTimeNet's gain lies in where its patches lie, or in what reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from prismts.errors import SettingsError
from prismts.layers.batch_norm import BatchNorm
from prismts.models.convtimenet import ConvTimeNet, ConvTimeNetConfig, LayerNorm, Residual

__all__ = ["LwConvTimeNet", "LwConvTimeNetConfig", "PlainBlock"]


@dataclass(frozen=True, kw_only=True)
class LwConvTimeNetConfig:
    """Settings of the encoder; lengths in time steps, kernels in tokens."""

    patch_length: int | None = None  # None: 32, or a sixth of a shorter context
    stride: int | None = None  # None: half of the patch
    patches: Literal["deformable", "uniform", "points"] = "deformable"
    width: int = 64
    kernel_sizes: tuple[int, ...] = (3, 3, 3)  # one plain convolution per block
    dropout: float = 0.1
    norm: Literal["batch", "layer"] = "batch"
    channels: Literal["independent", "mixed"] = "independent"

    def __post_init__(self) -> None:
        object.__setattr__(self, "kernel_sizes", tuple(self.kernel_sizes))
        if self.kernel_sizes and any(k % 2 == 0 for k in self.kernel_sizes):
            raise SettingsError(
                f"kernel_sizes are odd, so that a token stands in the middle of its kernel, but got "
                f"{self.kernel_sizes}."
            )
        self.outside(192)  # raises what else is wrong, in the words of ConvTimeNet

    def outside(self, context_length: int) -> ConvTimeNetConfig:
        """The ConvTimeNet whose patches and normalization these are, for windows of this length."""
        length = min(32, max(2, context_length // 6)) if self.patch_length is None else self.patch_length
        stride = max(1, length // 2) if self.stride is None else self.stride
        return ConvTimeNetConfig(
            patch_length=length, stride=stride, patches=self.patches, width=self.width, feed_forward=0,
            kernel_sizes=self.kernel_sizes, small_kernel=0, dropout=self.dropout, residual=None, norm=self.norm,
            channels=self.channels,
        )  # fmt: skip


class PlainBlock(nn.Module):
    """One convolution over tokens and width, beside what it read."""

    def __init__(self, config: LwConvTimeNetConfig, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(config.width, config.width, kernel_size, padding=kernel_size // 2)
        self.join_conv = Residual(None, config.dropout)
        self.norm = (BatchNorm if config.norm == "batch" else LayerNorm)(config.width)

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """[D, M, N] to the same; tokens that ``kept`` [M, N] leaves out are 0 before and after."""
        y = self.conv(x.transpose(0, 1)).transpose(0, 1)
        return self.norm(self.join_conv(x, F.gelu(y)), kept)


class LwConvTimeNet(ConvTimeNet):
    """normalize -> pad -> patch -> embed -> plain blocks -> head."""

    def __init__(self, config: LwConvTimeNetConfig, *, n_channels: int, context_length: int) -> None:
        super().__init__(config.outside(context_length), n_channels=n_channels, context_length=context_length)
        self.blocks = nn.ModuleList(PlainBlock(config, kernel_size) for kernel_size in config.kernel_sizes)
