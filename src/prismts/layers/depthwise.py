"""How a depthwise convolution is computed: by one banded product, by products of blocks, or by Fourier transforms.

A form is made of kernels [D, k] for rows of N tokens, zero-padded as torch's "same" does it: (k-1)//2 zeros on the
left. It convolves, goes back to what the input receives, and sums up what each tap receives; all three forms give the
same numbers. A banded product costs N products a token, one over blocks of S tokens S + k - 1, transforms the logarithm
of N + k whatever the kernel.
"""

from __future__ import annotations

from typing import Protocol

import scipy.fft
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["MAX_TOEPLITZ_TOKENS", "Blocks", "Form", "Fourier", "Whole", "form_for", "toeplitz"]

MAX_TOEPLITZ_TOKENS = 128  # beyond this the N x N products waste too much on taps that are zero
FOURIER_TAPS = 64  # from here on, and beyond that many tokens, transforms are quicker than blocks
_BLOCK = 64  # tokens of a block where they are cut, or a little more


class Form(Protocol):
    """A depthwise convolution with given kernels."""

    def __init__(self, kernel: Tensor, n_tokens: int) -> None: ...

    def apply(self, x: Tensor) -> Tensor:
        """[D, M, N] to [D, M, N]."""
        ...

    def back(self, g: Tensor) -> Tensor:
        """What the input receives, [D, M, N], where the output receives g [D, M, N]."""
        ...

    def taps(self, x: Tensor, g: Tensor) -> Tensor:
        """What the kernels receive, [D, k], where the output of x receives g, both [D, M, N]."""
        ...


def form_for(n_tokens: int, kernel_size: int) -> type[Form]:
    """The quickest form on a CPU."""
    if n_tokens <= MAX_TOEPLITZ_TOKENS:
        return Whole
    return Fourier if kernel_size >= FOURIER_TAPS else Blocks


def toeplitz(kernel: Tensor, n_tokens: int) -> Tensor:
    """The matrices [D, N, N] by which a row of N tokens is convolved with its kernel [D, k], zero-padded to N tokens.

    Column n holds the kernel around token n, so that ``x @ toeplitz(kernel, N)`` is the convolution. Taps that can
    never meet a token are left out of the product.
    """
    k, n = kernel.shape[-1], n_tokens
    left = (k - 1) // 2
    # row m is the mirrored kernel, m places further to the right: many copies of it, 2N long, read as rows of 2N - 1
    mirrored = F.pad(kernel.flip(-1), (n + left - k, n - left))  # [D, 2N]; negative padding cuts off
    rows = mirrored[:, None].expand(-1, n, -1).flatten(1)[:, : n * (2 * n - 1)]
    return rows.unflatten(1, (n, 2 * n - 1))[..., n - 1 :]


class Whole:
    """All tokens in one product with a banded Toeplitz matrix."""

    def __init__(self, kernel: Tensor, n_tokens: int) -> None:
        self.kernel_size = kernel.shape[-1]
        self.matrix = toeplitz(kernel, n_tokens)  # [D, N, N]

    def apply(self, x: Tensor) -> Tensor:
        """[D, M, N] to [D, M, N]."""
        return torch.bmm(x, self.matrix)

    def back(self, g: Tensor) -> Tensor:
        """What the input receives."""
        return torch.bmm(g, self.matrix.mT)

    def taps(self, x: Tensor, g: Tensor) -> Tensor:
        """What the kernels receive: sums along the diagonals of what the matrix does."""
        met = torch.bmm(g.mT, x)  # [D, N, N]: output token, input token
        left = (self.kernel_size - 1) // 2
        return _diagonals(F.pad(met, (left, self.kernel_size - 1 - left)), self.kernel_size)


class Blocks:
    """Many tokens cut into blocks that overlap by k - 1 tokens, each convolved by one small banded product."""

    def __init__(self, kernel: Tensor, n_tokens: int) -> None:
        self.n_tokens, self.kernel_size = n_tokens, kernel.shape[-1]
        # a block is no shorter than k - 1, so that only neighbors overlap
        self.n_blocks = max(1, n_tokens // max(_BLOCK, self.kernel_size))
        self.size = max(-(-n_tokens // self.n_blocks), self.kernel_size - 1)
        self.left = (self.kernel_size - 1) // 2  # zeros before the first token
        self.matrix = self.band(kernel)  # [D, S+k-1, S]

    def apply(self, x: Tensor) -> Tensor:
        """[D, M, N] to [D, M, N]."""
        return self.joined(torch.bmm(self.cut(x), self.matrix))

    def back(self, g: Tensor) -> Tensor:
        """What the input receives."""
        return self.added(torch.bmm(self.apart(g), self.matrix.mT))

    def taps(self, x: Tensor, g: Tensor) -> Tensor:
        """What the kernels receive."""
        return _diagonals(torch.bmm(self.apart(g).mT, self.cut(x)), self.kernel_size)

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


class Fourier:
    """Products of real Fourier transforms, so long that nothing meets itself around the end; at least in float32."""

    def __init__(self, kernel: Tensor, n_tokens: int) -> None:
        self.n_tokens, self.kernel_size = n_tokens, kernel.shape[-1]
        self.size = scipy.fft.next_fast_len(n_tokens + self.kernel_size - 1, real=True)
        self.left = (self.kernel_size - 1) // 2
        self.kernel = self._of(kernel)[:, None]  # [D, 1, W]

    def apply(self, x: Tensor) -> Tensor:
        """[D, M, N] to [D, M, N]."""
        return self._at(self._of(x) * self.kernel.conj(), -self.left, self.n_tokens).to(x.dtype)

    def back(self, g: Tensor) -> Tensor:
        """What the input receives."""
        return self._at(self._of(g) * self.kernel, self.left, self.n_tokens).to(g.dtype)

    def taps(self, x: Tensor, g: Tensor) -> Tensor:
        """What the kernels receive."""
        return self._at((self._of(x) * self._of(g).conj()).sum(1), -self.left, self.kernel_size).to(x.dtype)

    def _of(self, x: Tensor) -> Tensor:
        return torch.fft.rfft(x if x.dtype == torch.float64 else x.float(), self.size)

    def _at(self, spectrum: Tensor, begin: int, n: int) -> Tensor:
        """``n`` values from place ``begin`` on; those before 0 stand at the end."""
        values = torch.fft.irfft(spectrum, self.size)
        if begin >= 0:
            return values[..., begin : begin + n]
        return torch.cat([values[..., begin:], values[..., : max(n + begin, 0)]], dim=-1)[..., :n]


def _diagonals(met: Tensor, n: int) -> Tensor:
    """Sums of met[:, c, c + o] over c, for o from 0 to n - 1: [D, C, R], where R >= C + n - 1, to [D, n]."""
    width, columns, rows = met.shape
    return met.contiguous().as_strided((width, columns, n), (columns * rows, rows + 1, 1)).sum(1)
