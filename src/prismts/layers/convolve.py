"""Depthwise convolution over tokens, and the pair of kernels that merges into one.

Tokens are laid out [D, M, N]: width first, then rows (batch times channels), then tokens. A depthwise convolution is
then a batch of D products with banded N x N Toeplitz matrices, a pointwise one is a single product, and batch
normalization is a statistic of D contiguous rows: nothing is transposed or copied between them.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prismts.layers.depthwise import MAX_TOEPLITZ_TOKENS, form_for
from prismts.layers.paths import is_written_out

__all__ = ["DepthwiseConv", "TwoKernelConv", "conv_depthwise"]

_SHORT = 14  # taps up to which torch's convolution is quick on a CPU, forward: at 15 it takes seven times as long


def conv_depthwise(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """Same-padded depthwise convolution: x [D, M, N], kernel [D, k], bias [D] give [D, M, N].

    Few tokens go through Toeplitz products everywhere. Many go through products of blocks or through Fourier transforms
    on a CPU (``form_for`` says which), and through torch's convolution elsewhere; all are the same numbers.
    """
    n_tokens, kernel_size = x.shape[-1], kernel.shape[-1]
    if n_tokens > MAX_TOEPLITZ_TOKENS:
        short = kernel_size <= _SHORT and not torch.is_grad_enabled()
        if short or x.device.type != "cpu" or torch.compiler.is_compiling() or is_written_out():
            return conv_depthwise_plain(x, kernel, bias)
    y = form_for(n_tokens, kernel_size)(kernel.to(x.dtype), n_tokens).apply(x)
    return y if bias is None else y + bias[:, None, None].to(y.dtype)


def conv_depthwise_plain(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """The plain twin of :func:`conv_depthwise`, through torch's own convolution."""
    y = F.conv1d(x.transpose(0, 1), kernel[:, None], bias, padding="same", groups=len(kernel))  # [M, D, N]
    return y.transpose(0, 1)


class DepthwiseConv(nn.Module):
    """One kernel per width: [D, M, N] to [D, M, N], zero-padded."""

    def __init__(self, width: int, kernel_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, kernel_size))  # [D, k]
        self.bias = nn.Parameter(torch.empty(width))  # [D]
        bound = 1 / math.sqrt(kernel_size)  # torch's initialization of a depthwise Conv1d
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    @property
    def kernel_size(self) -> int:
        """k."""
        return self.weight.shape[-1]

    def kernel(self) -> tuple[Tensor, Tensor]:
        """Kernel [D, k] and bias [D]."""
        return self.weight, self.bias

    def forward(self, x: Tensor) -> Tensor:
        """[D, M, N] to [D, M, N]."""
        return conv_depthwise(x, self.weight, self.bias)


class TwoKernelConv(nn.Module):
    """A large and a small depthwise kernel side by side, summed: they learn differently and merge into one.

    Since both are linear, their sum is the convolution with the sum of the kernels, the small one centered in the
    large; this is what runs in training too, and gradients split exactly.
    Source: Ding et al., RepVGG (CVPR 2021) and RepLKNet (CVPR 2022); in ConvTimeNet, arXiv 2403.01493.
    """

    def __init__(self, width: int, long: int, short: int) -> None:
        super().__init__()
        self.long = DepthwiseConv(width, max(long, short))
        self.short = DepthwiseConv(width, min(long, short))

    @property
    def kernel_size(self) -> int:
        """k of the one kernel."""
        return self.long.kernel_size

    def kernel(self) -> tuple[Tensor, Tensor]:
        """The one kernel [D, k] and bias [D] that do the work of both."""
        extra = self.long.kernel_size - self.short.kernel_size
        # same padding puts a kernel of k taps (k-1)//2 to the left of its token; align the two there
        left = (self.long.kernel_size - 1) // 2 - (self.short.kernel_size - 1) // 2
        return self.long.weight + F.pad(self.short.weight, (left, extra - left)), self.long.bias + self.short.bias

    def forward(self, x: Tensor) -> Tensor:
        """[D, M, N] to [D, M, N]."""
        return conv_depthwise(x, *self.kernel())

    def merged(self) -> DepthwiseConv:
        """A single convolution with the same output; this one is left as it is."""
        weight, bias = self.kernel()
        one = copy.deepcopy(self.long)  # and not a new one, whose initialization would draw random numbers
        one.weight, one.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
        return one
