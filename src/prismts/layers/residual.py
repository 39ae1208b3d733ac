"""A block's two residual branches, each in slices that stay in the cache: x + dropout(alpha * branch(x)).

Written out operation by operation, a branch reads and writes every large tensor a dozen times, and keeps four of them
for the backward pass. Here a branch runs from its input to its sum slice by slice, in buffers that are used again for
the next slice; of each only the input and one random byte per dropped value are kept, and the backward pass computes
the inside once more. Both functions are the plain composition's numbers and gradients (``Block`` holds the twin).

The pointwise pair is sliced along its tokens, and its biases ride along as one more column of the matrices. The
convolution is sliced along its width; a slice then holds whole rows, so that the batch normalization behind it is
measured and applied while the slice is at hand, and its input is not kept either.
"""

# pyright: reportIncompatibleMethodOverride=false
# torch's Function takes any arguments; ours have names
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from prismts.layers.batch_norm import BatchNorm, normalize_rows, through_norm
from prismts.layers.convolve import conv_depthwise_plain
from prismts.layers.depthwise import Form, form_for
from prismts.layers.dropout import Dropped, draw

__all__ = ["conv_branch", "pair_branch"]

SLICE = 2**20  # values of one buffer


def pair_branch(
    x: Tensor, rise: tuple[Tensor, Tensor], fall: tuple[Tensor, Tensor], alpha: Tensor | None, p: float, q: float
) -> Tensor:
    """x + drop_q(alpha * (fall(drop_p(gelu(rise(x)))))) for x [D, L]; rise and fall are weight [F, D] and bias [F].

    ``alpha`` is None where it is fixed at 1; p drops inside the pair, q behind it.
    """
    return _Pair.apply(x, *rise, *fall, alpha, p, q)  # type: ignore[no-any-return]


def conv_branch(
    x: Tensor, kernel: Tensor, bias: Tensor, alpha: Tensor | None, p: float, norm: BatchNorm | None = None
) -> Tensor:
    """x + drop_p(alpha * gelu(conv(x) + bias)) for x [D, M, N], kernel [D, k], bias [D], and then through ``norm``.

    ``norm`` must be one that measures these rows (``BatchNorm.measures``); it remembers what it measured.
    """
    if norm is None:
        return _Conv.apply(x, kernel, bias, alpha, p, None, None, 0.0)[0]  # type: ignore[index]
    y, mean, inverse = _Conv.apply(x, kernel, bias, alpha, p, norm.weight, norm.bias, norm.eps)  # type: ignore[misc]
    norm.track(mean, inverse, x[0].numel())
    return y


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
        inside, behind = draw((p, len(rise) * x.shape[1]), (q, x.numel()))
        ctx.save_for_backward(x, rise, rise_bias, fall, fall_bias, alpha, inside.flags, behind.flags)
        ctx.p, ctx.q, ctx.kind = p, q, _kind(x)
        up, down = _joined(rise, rise_bias, ctx.kind), _joined(fall * inside.scale, fall_bias, ctx.kind)
        weight = (1.0 if alpha is None else float(alpha)) * behind.scale
        result, work = torch.empty_like(x), _PairBuffers(x, len(rise), ctx.kind)
        for part in work.slices():
            work.raise_(x[:, part], up, work.hidden, inside, part.start)
            y = torch.mm(down, work.with_ones, out=work.narrow)
            behind.drop(y, part.start * len(x), work.flags)
            torch.add(x[:, part], y, alpha=weight, out=result[:, part])
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, rise, rise_bias, fall, fall_bias, alpha, *drawn = ctx.saved_tensors
        g = gradients[0].contiguous()
        inside, behind = Dropped(ctx.p, drawn[0]), Dropped(ctx.q, drawn[1])
        up, down = _joined(rise, rise_bias, ctx.kind), _joined(fall * inside.scale, fall_bias, ctx.kind)
        weight = (1.0 if alpha is None else float(alpha)) * behind.scale
        wide, back = down[:, :-1].T, rise.to(ctx.kind).T
        g_rise, g_rise_bias, g_fall, g_fall_bias = (torch.zeros(m.shape, dtype=g.dtype) for m in (
            rise, rise_bias, fall, fall_bias))  # fmt: skip
        g_x, work = torch.empty_like(g), _PairBuffers(x, len(rise), ctx.kind)
        for part in work.slices():
            work.raise_(x[:, part], up, work.raised, inside, part.start)
            arrived = work.narrow.copy_(g[:, part])
            behind.drop(arrived, part.start * len(x), work.flags)
            _add_product(g_fall, arrived, work.hidden.T)
            g_fall_bias += arrived.sum(1)
            g_hidden = torch.mm(wide, arrived, out=work.spare)
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
        rows = (len(x) + 1, n_hidden + 1, n_hidden, n_hidden, len(x), len(x))
        self.buffers = [torch.empty(n * self.size, dtype=kind) for n in rows]
        self.rows = rows

    def slices(self) -> Iterator[slice]:
        """Columns of x, part by part, the last one shorter; the views on the buffers go along."""
        for begin in range(0, self.n, self.size):
            size = min(self.size, self.n - begin)
            if begin == 0 or size < self.size:
                cut = [b[: n * size].view(n, size) for b, n in zip(self.buffers, self.rows, strict=True)]
                self.x_with_ones, self.with_ones, self.raised, self.spare, self.narrow, self.flags = cut
                self.x_with_ones[-1], self.with_ones[-1] = 1.0, 1.0
                self.x, self.hidden = self.x_with_ones[:-1], self.with_ones[:-1]
            yield slice(begin, begin + size)

    def raise_(self, x: Tensor, up: Tensor, raised: Tensor, drop: Dropped, begin: int) -> None:
        """From x [D, S] to what the pair raises it to, and its GELU, ``hidden``: both [F, S], or one in place.

        Tokens are counted from ``begin``; what is dropped is 0 in ``hidden``, and so is its gradient.
        """
        self.x.copy_(x)
        raised.addmm_(up, self.x_with_ones, beta=drop.sink(raised, begin * len(raised)))
        torch.ops.aten.gelu.out(raised, out=self.hidden)


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        kernel: Tensor,
        bias: Tensor,
        alpha: Tensor | None,
        p: float,
        gamma: Tensor | None,
        beta: Tensor | None,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        (drop,) = draw((p, x.numel()))
        ctx.p, ctx.kind, ctx.eps = p, _kind(x), eps
        weight = (1.0 if alpha is None else float(alpha)) * drop.scale
        result = torch.empty_like(x, memory_format=torch.contiguous_format)  # its rows are written through a view
        work = _ConvBuffers(x, ctx.kind)
        mean, inverse = x.new_empty(2, len(x))
        for part in work.slices():
            z, _ = work.convolve(x[part], kernel[part], bias[part], drop, part.start)
            y = torch.ops.aten.gelu.out(z, out=work.spare)
            if gamma is None or beta is None:
                torch.add(x[part], y, alpha=weight, out=result[part])
                continue
            mixed = torch.add(x[part], y, alpha=weight).flatten(1)
            _, mean[part], inverse[part] = normalize_rows(
                mixed, gamma[part], beta[part], eps, out=result[part].flatten(1)
            )
        ctx.save_for_backward(x, kernel, bias, alpha, drop.flags, gamma, mean, inverse)
        ctx.mark_non_differentiable(mean, inverse)
        return result, mean, inverse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, kernel, bias, alpha, drawn, gamma, mean, inverse = ctx.saved_tensors
        g = gradients[0].contiguous()
        drop = Dropped(ctx.p, drawn)
        weight = (1.0 if alpha is None else float(alpha)) * drop.scale
        g_x, work = torch.empty_like(g), _ConvBuffers(x, ctx.kind)
        g_kernel, g_bias, g_alpha = torch.empty_like(kernel), torch.empty_like(bias), torch.zeros((), dtype=g.dtype)
        g_gamma, g_beta = (None, None) if gamma is None else torch.empty(2, len(x), dtype=g.dtype)
        for part in work.slices():
            z, form = work.convolve(x[part], kernel[part], bias[part], drop, part.start)
            y, g_mixed = torch.ops.aten.gelu.out(z, out=work.spare), g[part]
            if gamma is not None and g_gamma is not None and g_beta is not None:
                mixed = torch.add(x[part], y, alpha=weight)
                back = through_norm(
                    g_mixed.flatten(1), mixed.flatten(1), gamma[part], mean[part], inverse[part], ctx.eps
                )
                g_mixed, g_gamma[part], g_beta[part] = back[0].view_as(z), *back[1:]
            arrived = g_mixed.to(ctx.kind)
            if alpha is not None:
                g_alpha += y.mul_(arrived).sum(dtype=g.dtype)
            g_z = torch.ops.aten.gelu_backward.grad_input(arrived, z, grad_input=work.spare)
            g_bias[part] = g_z.sum((1, 2))
            g_kernel[part] = form.taps(x[part].to(ctx.kind), g_z)
            torch.add(g_mixed, form.back(g_z), alpha=weight, out=g_x[part])
        found = None if alpha is None else (g_alpha * drop.scale).to(alpha.dtype)
        return g_x, g_kernel.mul_(weight), g_bias.mul_(weight), found, None, g_gamma, g_beta, None


class _ConvBuffers:
    """What some rows of the width are computed in: used again for every slice of a pass."""

    def __init__(self, x: Tensor, kind: torch.dtype) -> None:
        self.n, self.kind = len(x), kind
        self.size = _even(self.n, SLICE // x[0].numel())
        shape = (self.size, *x.shape[1:])
        self.whole_z, self.whole_spare = torch.empty(2, *shape, dtype=kind)

    def slices(self) -> Iterator[slice]:
        """Rows of the width, part by part."""
        for begin in range(0, self.n, self.size):
            end = min(begin + self.size, self.n)
            self.spare = self.whole_spare[: end - begin]
            yield slice(begin, end)

    def convolve(self, x: Tensor, kernel: Tensor, bias: Tensor, drop: Dropped, begin: int) -> tuple[Tensor, Form]:
        """Some rows of x, from row ``begin`` on, convolved, with their bias, and the form that did it.

        What is dropped lies so deep that its GELU is 0, and the gradient of that.
        """
        form = form_for(x.shape[-1], kernel.shape[-1])(kernel.to(self.kind), x.shape[-1])
        y, z = form.apply(x.to(self.kind)), self.whole_z[: len(x)]
        if depth := drop.sink(z, begin * x[0].numel()):
            y = torch.add(y, z, alpha=depth, out=z)
        return torch.add(y, bias.to(self.kind)[:, None, None], out=z), form


def _even(n: int, most: int) -> int:
    """The size of slices of n, at most so many long, that are as even as can be."""
    return -(-n // -(-n // max(most, 1)))


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


def conv_branch_plain(x: Tensor, kernel: Tensor, bias: Tensor, alpha: Tensor | None, p: float) -> Tensor:
    """The plain twin of :func:`conv_branch` without a norm, with torch's convolution and dropout."""
    y = F.gelu(conv_depthwise_plain(x, kernel, bias))
    return x + F.dropout(y if alpha is None else alpha * y, p)
