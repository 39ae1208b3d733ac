"""Batch normalization of [D, M, N]: statistics of D rows that lie together, so nothing has to be transposed.

In a training step on a CPU the rows go through torch's layer normalization, which measures and scales them in about
half the time of its batch normalization; the numbers are the same.
"""

# pyright: reportIncompatibleMethodOverride=false
# torch's Function takes any arguments; ours have names
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from prismts.layers.normalize import norm_weighed
from prismts.layers.paths import is_written_out, worth_slicing

__all__ = ["BatchNorm", "normalize_rows", "through_norm"]


class BatchNorm(nn.BatchNorm1d):
    """Batch normalization of [D, M, N]: statistics of D rows."""

    def forward(self, input: Tensor, kept: Tensor | None = None) -> Tensor:
        """[D, M, N] to the same; tokens that ``kept`` [M, N] leaves out do not count and become 0."""
        if self.measures(input, kept) and worth_slicing(input):
            y, mean, inverse = _Norm.apply(input, self.weight, self.bias, self.eps)  # type: ignore[misc]
            self.track(mean, inverse, input[0].numel())
            return y
        if kept is None:
            return super().forward(input.flatten(1)[None])[0].view_as(input)
        if not self.training:
            return self(input).masked_fill(~kept, 0.0)
        if is_written_out():
            rows, weight = input.flatten(1).T, kept.flatten().to(input.dtype)
            return (norm_weighed(self, rows, weight) * weight[:, None]).T.view_as(input)
        places = kept.flatten().nonzero()[:, 0]  # [K]
        counted = super().forward(input.flatten(1)[None, :, places])[0]  # [D, K]
        return torch.zeros_like(input.flatten(1)).index_copy(1, places, counted.to(input.dtype)).view_as(input)

    def measures(self, x: Tensor, kept: Tensor | None) -> bool:
        """Whether it normalizes x [D, M, N] by whole rows of x itself, in one type."""
        return self.training and kept is None and x.dtype == self.weight.dtype and x[0].numel() > 1

    def track(self, mean: Tensor, inverse: Tensor, n: int) -> None:
        """Remember what was measured over n values: mean and 1 / standard deviation of the rows, both [D].

        Behind autograd's back, as torch's own batch normalization does: a network that is asked twice before one
        backward pass, by two tasks for one, may go through torch's form the first time, which holds on to both.
        """
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.data.lerp_(mean, self.momentum)
            self.running_var.data.lerp_((inverse**-2 - self.eps) * (n / (n - 1)), self.momentum)


def normalize_rows(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, out: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows x [D, L] at mean 0 and variance 1, times weight [D], plus bias [D]; their means and 1 / deviations [D]."""
    y, mean, inverse = torch.native_layer_norm(x, x.shape[1:], None, None, eps)
    y.mul_(weight[:, None])
    return torch.add(y, bias[:, None], out=y if out is None else out), mean[:, 0], inverse[:, 0]


def through_norm(
    g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, inverse: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The way back through :func:`normalize_rows`: what x, weight and bias receive where the output receives g."""
    back = torch.ops.aten.native_batch_norm_backward
    g_x, *rest = back(g[None], x[None], weight, None, None, mean, inverse, True, eps, [True] * 3)
    return g_x[0], *rest


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        y, mean, inverse = normalize_rows(x.flatten(1), weight, bias, eps)
        ctx.save_for_backward(x, weight, mean, inverse)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, inverse)
        return y.view(x.shape), mean, inverse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse = ctx.saved_tensors
        g = gradients[0].flatten(1).contiguous()
        g_x, *rest = through_norm(g, x.flatten(1), weight, mean, inverse, ctx.eps)
        return g_x.view(x.shape), *rest, None
