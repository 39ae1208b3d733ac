"""Depthwise convolution over tokens, and the pair of kernels that merges into one.

Tokens are laid out [D, M, N]: width first, then rows (batch times channels), then tokens. A depthwise convolution is
then a batch of D products with banded N x N Toeplitz matrices, a pointwise one is a single product, and batch
normalization is a statistic of D contiguous rows: nothing is transposed or copied between them.
"""

from __future__ import annotations

import copy
import math
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prismts.layers.paths import is_written_out

__all__ = ["Blocks", "DepthwiseConv", "TwoKernelConv", "conv_depthwise", "toeplitz"]

MAX_TOEPLITZ_TOKENS = 128  # beyond this the N x N products waste too much on taps that are zero
_BLOCK = 64  # tokens of a block where they are cut, or a little more
_SHORT = 14  # taps up to which torch's convolution is quick on a CPU, forward: at 15 it takes seven times as long


def toeplitz(kernel: Tensor, n_tokens: int) -> Tensor:
    """The matrices [D, N, N] by which a row of N tokens is convolved with its kernel [D, k], zero-padded to N tokens.

    Column n holds the kernel around token n, so that ``x @ toeplitz(kernel, N)`` is the convolution. Padding follows
    torch's "same": (k-1)//2 on the left. Taps that can never meet a token are left out of the product.
    """
    k, n = kernel.shape[-1], n_tokens
    left = (k - 1) // 2
    # row m is the mirrored kernel, m places further to the right: many copies of it, 2N long, read as rows of 2N - 1
    mirrored = F.pad(kernel.flip(-1), (n + left - k, n - left))  # [D, 2N]; negative padding cuts off
    rows = mirrored[:, None].expand(-1, n, -1).flatten(1)[:, : n * (2 * n - 1)]
    return rows.unflatten(1, (n, 2 * n - 1))[..., n - 1 :]


class Blocks(NamedTuple):
    """Many tokens cut into blocks that overlap by k - 1 tokens, each convolved by one small banded product.

    A Toeplitz product over N tokens costs N products a token, one over blocks of S only S + k - 1.
    """

    n_tokens: int
    kernel_size: int
    n_blocks: int
    size: int  # S >= k - 1, so that only neighbors overlap

    @classmethod
    def of(cls, n_tokens: int, kernel_size: int) -> Self | None:
        """How to cut, or None where there is nothing to gain: few tokens, or a kernel nearly as long as they are."""
        if n_tokens <= MAX_TOEPLITZ_TOKENS or 2 * kernel_size > n_tokens:
            return None
        n_blocks = n_tokens // max(_BLOCK, kernel_size)
        return cls(n_tokens, kernel_size, n_blocks, -(-n_tokens // n_blocks))

    @property
    def left(self) -> int:
        """Zeros before the first token, as torch's "same" has them."""
        return (self.kernel_size - 1) // 2

    def band(self, kernel: Tensor) -> Tensor:
        """The matrices [D, S+k-1, S] by which a block is convolved with its kernel [D, k]."""
        rows, columns = self.size + self.kernel_size - 1, self.size
        # column j is the kernel, j places further down: many copies of it, zeros behind each, read one place short
        long = F.pad(kernel, (0, columns))[:, None].expand(-1, columns, -1).flatten(1)[:, : columns * rows]
        return long.unflatten(1, (columns, rows)).mT

    def cut(self, x: Tensor) -> Tensor:
        """[D, M, N] to blocks with their neighbors' ends, [D, M*n_blocks, S+k-1]."""
        whole = self.n_blocks * self.size + self.kernel_size - 1
        padded = F.pad(x, (self.left, whole - self.left - self.n_tokens))
        return padded.unfold(-1, self.size + self.kernel_size - 1, self.size).flatten(1, 2)

    def apart(self, y: Tensor) -> Tensor:
        """[D, M, N] to blocks without an overlap, zeros behind the last token: [D, M*n_blocks, S]."""
        return F.pad(y, (0, self.n_blocks * self.size - self.n_tokens)).reshape(len(y), -1, self.size)

    def joined(self, y: Tensor) -> Tensor:
        """[D, M*n_blocks, S] to [D, M, N]: what ``apart`` took apart."""
        return y.reshape(len(y), -1, self.n_blocks * self.size)[..., : self.n_tokens]

    def added(self, blocks: Tensor) -> Tensor:
        """[D, M*n_blocks, S+k-1] to [D, M, N], overlaps summed: the transpose of ``cut``."""
        blocks = blocks.unflatten(1, (-1, self.n_blocks))
        total = F.pad(blocks[..., : self.size], (0, 0, 0, 1))  # [D, M, n_blocks+1, S]
        total[:, :, 1:, : self.kernel_size - 1] += blocks[..., self.size :]
        return total.flatten(2)[..., self.left : self.left + self.n_tokens]


def conv_depthwise(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """Same-padded depthwise convolution: x [D, M, N], kernel [D, k], bias [D] give [D, M, N].

    Few tokens go through Toeplitz products, many through products of blocks on a CPU and through torch's convolution
    elsewhere; all are the same numbers.
    """
    if x.shape[-1] <= MAX_TOEPLITZ_TOKENS:
        y = torch.bmm(x, toeplitz(kernel, x.shape[-1]).to(x.dtype))
        return y if bias is None else y + bias[:, None, None].to(y.dtype)
    if x.device.type != "cpu" or torch.compiler.is_compiling() or is_written_out():
        return conv_depthwise_plain(x, kernel, bias)
    blocks = Blocks.of(x.shape[-1], kernel.shape[-1])
    if blocks is None or (kernel.shape[-1] <= _SHORT and not torch.is_grad_enabled()):
        return conv_depthwise_plain(x, kernel, bias)
    y = blocks.joined(torch.bmm(blocks.cut(x), blocks.band(kernel).to(x.dtype)))
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
