"""A block's two residual branches, each in slices that stay in the cache: x + dropout(alpha * branch(x)).

Written out operation by operation, a branch reads and writes every large tensor a dozen times, and keeps four of them
for the backward pass. Here a branch runs from its input to its sum slice by slice, in buffers that are used again for
the next slice; of each only the input and one random byte per dropped value are kept, and the backward pass computes
the inside once more. Both functions are the plain composition's numbers and gradients (``Block`` holds the twin).

The pointwise pair is sliced along its tokens, the convolution along its width. Biases ride along as one more column of
the matrices, so that their gradients come out of the same products; so does the gradient of alpha, which is the sum of
the weights times their raw gradient.

A mask keeps a value with probability 1 - round(256 p) / 256, from one byte each, and follows torch's seed.
"""

# pyright: reportIncompatibleMethodOverride=false
# torch's Function takes any arguments; ours have names
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from prismts.layers.convolve import Blocks
from prismts.layers.paths import is_written_out

__all__ = ["conv_branch", "pair_branch", "worth_slicing"]

SMALLEST = 2**17  # values of x from which slices pay
SLICE = 2**20  # values of one buffer


def worth_slicing(x: Tensor) -> bool:
    """Whether the sliced form is to be taken: on a CPU, where gradients are wanted of something large."""
    return (
        not torch.compiler.is_compiling()  # asked first: the size of an exported batch is not known
        and not is_written_out()
        and torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.numel() >= SMALLEST
    )


def pair_branch(
    x: Tensor, rise: tuple[Tensor, Tensor], fall: tuple[Tensor, Tensor], alpha: Tensor | None, p: float, q: float
) -> Tensor:
    """x + drop_q(alpha * (fall(drop_p(gelu(rise(x)))))) for x [D, L]; rise and fall are weight [F, D] and bias [F].

    ``alpha`` is None where it is fixed at 1; p drops inside the pair, q behind it.
    """
    return _Pair.apply(x, *rise, *fall, alpha, p, q)  # type: ignore[no-any-return]


def conv_branch(
    x: Tensor, matrices: Tensor, bias: Tensor, alpha: Tensor | None, p: float, blocks: Blocks | None = None
) -> Tensor:
    """x + drop_p(alpha * gelu(x @ matrices + bias)) for x [D, M, N], matrices [D, N, N], bias [D].

    With ``blocks``, tokens are convolved block by block, and ``matrices`` are theirs: see ``Blocks.band``.
    """
    return _Conv.apply(x, matrices, bias, alpha, p, blocks)  # type: ignore[no-any-return]


class _Drop:
    """Which values are kept: one byte each, 1 or 0; all where nothing is dropped."""

    def __init__(self, p: float, n: int, kept: Tensor | None = None) -> None:
        level = min(round(256 * p), 255)
        self.scale = 256 / (256 - level)
        self.kept = kept
        if level and kept is None:
            seed = int(torch.empty((), dtype=torch.int64).random_())
            draws = np.random.Generator(np.random.SFC64(seed)).integers(0, 2**64, -(-n // 8), dtype=np.uint64)
            # bytes from `level` on are kept; clamped and shifted, since comparing bytes is many times slower
            self.kept = torch.from_numpy(draws.view(np.uint8)).clamp_(level - 1, level).sub_(level - 1)

    def mask(self, like: Tensor, begin: int, buffer: Tensor) -> Tensor | None:
        """The mask of a slice, unscaled, in a buffer; byte ``begin`` decides about its first value."""
        if self.kept is None:
            return None
        n = like.numel()
        return buffer[:n].copy_(self.kept[begin : begin + n]).view(like.shape)


class _Pair(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        rise: Tensor,
        rise_bias: Tensor,
        fall: Tensor,
        fall_bias: Tensor,
        alpha: Tensor | None,
        p: float,
        q: float,
    ) -> Tensor:
        inside, behind = _Drop(p, len(rise) * x.shape[1]), _Drop(q, x.numel())
        ctx.save_for_backward(x, rise, rise_bias, fall, fall_bias, alpha, inside.kept, behind.kept)
        ctx.p, ctx.q, ctx.kind = p, q, _kind(x)
        up, down = _joined(rise, rise_bias, ctx.kind), _joined(fall * inside.scale, fall_bias, ctx.kind)
        weight = (1.0 if alpha is None else float(alpha)) * behind.scale
        result, work = torch.empty_like(x), _PairBuffers(x, len(rise), ctx.kind)
        for part in work.slices():
            work.raise_(x[:, part], up, work.hidden)
            _apply(inside.mask(work.hidden, part.start * len(rise), work.kept), work.hidden)
            y = torch.mm(down, work.with_ones, out=work.narrow)
            _apply(behind.mask(y, part.start * len(x), work.kept), y)
            torch.add(x[:, part], y, alpha=weight, out=result[:, part])
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, rise, rise_bias, fall, fall_bias, alpha, *drawn = ctx.saved_tensors
        g = gradients[0].contiguous()
        inside, behind = _Drop(ctx.p, 0, drawn[0]), _Drop(ctx.q, 0, drawn[1])
        up, down = _joined(rise, rise_bias, ctx.kind), _joined(fall * inside.scale, fall_bias, ctx.kind)
        weight = (1.0 if alpha is None else float(alpha)) * behind.scale
        wide, back = down[:, :-1].T, rise.to(ctx.kind).T
        g_rise, g_rise_bias, g_fall, g_fall_bias = (torch.zeros(m.shape, dtype=g.dtype) for m in (
            rise, rise_bias, fall, fall_bias))  # fmt: skip
        g_x, work = torch.empty_like(g), _PairBuffers(x, len(rise), ctx.kind)
        for part in work.slices():
            work.raise_(x[:, part], up, work.raised)
            arrived = work.narrow.copy_(g[:, part])
            _apply(behind.mask(arrived, part.start * len(x), work.kept), arrived)
            kept = inside.mask(work.hidden, part.start * len(rise), work.kept)
            _apply(kept, work.hidden)
            _add_product(g_fall, arrived, work.hidden.T)
            g_fall_bias += arrived.sum(1)
            g_hidden = torch.mm(wide, arrived, out=work.spare)
            _apply(kept, g_hidden)
            torch.ops.aten.gelu_backward.grad_input(g_hidden, work.raised, grad_input=g_hidden)
            _add_product(g_rise, g_hidden, work.x.T)
            g_rise_bias += g_hidden.sum(1)
            if ctx.kind == g.dtype:
                torch.addmm(g[:, part], back, g_hidden, alpha=weight, out=g_x[:, part])
            else:
                torch.add(g[:, part], back @ g_hidden, alpha=weight, out=g_x[:, part])
        g_fall *= inside.scale
        g_alpha = None
        if alpha is not None:
            g_alpha = (((g_fall * fall).sum() + (g_fall_bias * fall_bias).sum()) * behind.scale).to(alpha.dtype)
        by_weight = (g_rise, g_rise_bias, g_fall, g_fall_bias)
        found = (one.mul_(weight).to(rise.dtype) for one in by_weight)
        return (g_x, *found, g_alpha, None, None)


class _PairBuffers:
    """What one slice of the pair is computed in: used again for every slice of a pass."""

    def __init__(self, x: Tensor, n_hidden: int, kind: torch.dtype) -> None:
        self.n = x.shape[1]
        self.size = _even(self.n, SLICE // n_hidden)
        rows = (len(x) + 1, n_hidden + 1, n_hidden, n_hidden, len(x), n_hidden)
        self.buffers = [torch.empty(n * self.size, dtype=kind) for n in rows]
        self.rows = rows

    def slices(self) -> Iterator[slice]:
        """Columns of x, part by part, the last one shorter; the views on the buffers go along."""
        for begin in range(0, self.n, self.size):
            size = min(self.size, self.n - begin)
            if begin == 0 or size < self.size:
                cut = [b[: n * size].view(n, size) for b, n in zip(self.buffers, self.rows, strict=True)]
                self.x_with_ones, self.with_ones, self.raised, self.spare, self.narrow, kept = cut
                self.x_with_ones[-1], self.with_ones[-1] = 1.0, 1.0
                self.x, self.hidden, self.kept = self.x_with_ones[:-1], self.with_ones[:-1], kept.view(-1)
            yield slice(begin, begin + size)

    def raise_(self, x: Tensor, up: Tensor, raised: Tensor) -> None:
        """From x [D, S] to what the pair raises it to, and its GELU, ``hidden``: both [F, S], or one in place."""
        self.x.copy_(x)
        torch.mm(up, self.x_with_ones, out=raised)
        torch.ops.aten.gelu.out(raised, out=self.hidden)


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, matrices: Tensor, bias: Tensor, alpha: Tensor | None, p: float, blocks: Blocks | None
    ) -> Tensor:
        drop = _Drop(p, x.numel())
        ctx.save_for_backward(x, matrices, bias, alpha, drop.kept)
        ctx.p, ctx.kind, ctx.blocks = p, _kind(x), blocks
        weight = (1.0 if alpha is None else float(alpha)) * drop.scale
        result, work = torch.empty_like(x), _ConvBuffers(x, ctx.kind, blocks)
        for part in work.slices():
            z = work.enter(x[part], matrices[part], bias[part])
            y = torch.ops.aten.gelu.out(z, out=work.spare)
            _apply(drop.mask(y, part.start * x[0].numel(), work.kept), y)
            torch.add(x[part], y, alpha=weight, out=result[part])
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, matrices, bias, alpha, drawn = ctx.saved_tensors
        g = gradients[0].contiguous()
        drop = _Drop(ctx.p, 0, drawn)
        weight = (1.0 if alpha is None else float(alpha)) * drop.scale
        blocks: Blocks | None = ctx.blocks
        g_x, work = torch.empty_like(g), _ConvBuffers(x, ctx.kind, blocks)
        g_matrices, g_bias = torch.empty_like(matrices), torch.empty_like(bias)
        g_alpha = torch.zeros((), dtype=g.dtype)
        for part in work.slices():
            z = work.enter(x[part], matrices[part], bias[part])
            arrived = work.more[: len(z)].copy_(g[part])
            _apply(drop.mask(arrived, part.start * x[0].numel(), work.kept), arrived)
            if alpha is not None:
                torch.ops.aten.gelu.out(z, out=work.spare)
                g_alpha += work.spare.mul_(arrived).sum(dtype=g.dtype)
            g_z = torch.ops.aten.gelu_backward.grad_input(arrived, z, grad_input=work.spare)
            g_bias[part] = g_z.sum((1, 2))
            back = matrices[part].to(ctx.kind).mT
            if blocks is not None:
                g_z = blocks.apart(g_z)
            g_matrices[part] = work.x.mT @ g_z
            if blocks is not None:
                torch.add(g[part], blocks.added(g_z @ back), alpha=weight, out=g_x[part])
            elif ctx.kind == g.dtype:
                torch.baddbmm(g[part], g_z, back, alpha=weight, out=g_x[part])
            else:
                torch.add(g[part], g_z @ back, alpha=weight, out=g_x[part])
        found = None if alpha is None else (g_alpha * drop.scale).to(alpha.dtype)
        return g_x, g_matrices.mul_(weight), g_bias.mul_(weight), found, None, None


class _ConvBuffers:
    """What some rows of the width are computed in: used again for every slice of a pass."""

    def __init__(self, x: Tensor, kind: torch.dtype, blocks: Blocks | None) -> None:
        self.n, self.kind, self.blocks = len(x), kind, blocks
        self.size = _even(self.n, SLICE // x[0].numel())
        shape = (self.size, *x.shape[1:])
        self.z, self.whole_spare, self.more = (torch.empty(shape, dtype=kind) for _ in range(3))
        self.kept = torch.empty(self.z.numel(), dtype=kind)

    def slices(self) -> Iterator[slice]:
        """Rows of the width, part by part."""
        for begin in range(0, self.n, self.size):
            end = min(begin + self.size, self.n)
            self.spare = self.whole_spare[: end - begin]
            yield slice(begin, end)

    def enter(self, x: Tensor, matrices: Tensor, bias: Tensor) -> Tensor:
        """Some rows of x convolved, with their bias."""
        bias, matrices = bias.to(self.kind)[:, None, None], matrices.to(self.kind)
        if self.blocks is None:
            self.x = x.to(self.kind)
            return torch.bmm(self.x, matrices, out=self.z[: len(x)]).add_(bias)
        self.x = self.blocks.cut(x.to(self.kind))
        return torch.add(self.blocks.joined(self.x @ matrices), bias, out=self.z[: len(x)])


def _even(n: int, most: int) -> int:
    """The size of slices of n, at most so many long, that are as even as can be."""
    return -(-n // -(-n // max(most, 1)))


def _apply(mask: Tensor | None, x: Tensor) -> None:
    if mask is not None:
        x.mul_(mask)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


def _kind(x: Tensor) -> torch.dtype:
    """The type the inside is computed in: that of x, or what autocast asks for."""
    if torch.is_autocast_enabled("cpu") and x.dtype == torch.float32:
        return torch.get_autocast_dtype("cpu")
    return x.dtype


def _joined(weight: Tensor, bias: Tensor, kind: torch.dtype) -> Tensor:
    """A weight [O, I] with its bias as one more column: [O, I+1]."""
    return torch.cat([weight, bias[:, None]], dim=1).to(kind)


def pair_branch_plain(
    x: Tensor, rise: tuple[Tensor, Tensor], fall: tuple[Tensor, Tensor], alpha: Tensor | None, p: float, q: float
) -> Tensor:
    """The plain twin of :func:`pair_branch`, with torch's dropout."""
    hidden = F.dropout(F.gelu(rise[0] @ x + rise[1][:, None]), p)
    y = fall[0] @ hidden + fall[1][:, None]
    return x + F.dropout(y if alpha is None else alpha * y, q)


def conv_branch_plain(x: Tensor, matrices: Tensor, bias: Tensor, alpha: Tensor | None, p: float) -> Tensor:
    """The plain twin of :func:`conv_branch`, with torch's dropout."""
    y = F.gelu(x @ matrices + bias[:, None, None])
    return x + F.dropout(y if alpha is None else alpha * y, p)
