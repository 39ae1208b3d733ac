"""Soft dynamic time warping as a loss: a peak that comes a step late costs little, and the gradient moves it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from prismts.errors import SettingsError, ShapeError

__all__ = ["soft_dtw", "soft_dtw_divergence"]


def soft_dtw(x: Tensor, y: Tensor, gamma: float = 1.0) -> Tensor:
    """Soft-DTW of each pair of series: x [B, C, H] and y [B, C, H2] give [B], in squared units of the series.

    The sum of squared differences along a warping path (all channels on one path) is taken over every path, and the
    soft minimum of these sums, ``-gamma * log(sum(exp(-sum / gamma)))``, is returned. ``gamma`` is in squared units
    too: near 0 the value tends to the DTW sum from below; far above the squared differences of single steps it only
    counts paths. To warp each channel by itself, pass [B*C, 1, H].

    The value is below 0 for series that are nearly equal, and it is not least at equality: as a loss, take
    ``soft_dtw_divergence``. aeon's ``soft_dtw_distance`` returns the absolute value, and plain DTW for equal series.

    Gradients reach x and y, once (no second derivatives). A value that is not a number makes its pair's result not a
    number. float16 and bfloat16 are computed in float32.
    Source: Cuturi and Blondel, ICML 2017. The recursions run over anti-diagonals, so that 2H-1 steps serve all pairs
    at once, and the backward one is written with the soft minimum's own weights, which cannot overflow.
    """
    _check(x, y, gamma)
    dtype = torch.promote_types(x.dtype, y.dtype)
    work = torch.promote_types(dtype, torch.float32)
    result: Tensor = _SoftDtw.apply(x.to(work), y.to(work), float(gamma))  # type: ignore[assignment]
    return result.to(dtype)


def soft_dtw_divergence(x: Tensor, y: Tensor, gamma: float = 1.0) -> Tensor:
    """Soft-DTW without its bias: x [B, C, H] and y [B, C, H2] give [B], at least 0, and 0 at equality.

    ``soft_dtw(x, y) - soft_dtw(x, x) / 2 - soft_dtw(y, y) / 2``: three times the work, and the gradient is 0 where
    forecast and target agree.
    Source: Blondel, Mensch and Vert, AISTATS 2021.
    """
    _check(x, y, gamma)
    if x.shape == y.shape:
        both, own, other = soft_dtw(torch.cat([x, x, y]), torch.cat([y, x, y]), gamma).chunk(3)
    else:
        both, own, other = soft_dtw(x, y, gamma), soft_dtw(x, x, gamma), soft_dtw(y, y, gamma)
    return both - (own + other) / 2


def _check(x: Tensor, y: Tensor, gamma: float) -> None:
    if x.ndim != 3 or y.ndim != 3 or x.shape[:2] != y.shape[:2] or not x.shape[2] or not y.shape[2]:
        raise ShapeError(
            "soft_dtw compares x [batch, channel, time] with y of the same batch and channels, with at least one step "
            f"each, but got {list(x.shape)} and {list(y.shape)}. Pass one channel as x[:, None, :]."
        )
    if not gamma > 0:
        raise SettingsError(
            f"gamma softens the minimum and is above 0 (squared units of the series), but got {gamma}. For the hard "
            "minimum, which has no useful gradient, see prismts.analysis.similarity."
        )


class _SoftDtw(torch.autograd.Function):
    """The value by one walk over the anti-diagonals, the gradient by one walk back.

    Row k, column i of a skewed matrix holds cell (i, j = k - i). ``minima`` are the soft minima over the paths that
    arrive at a cell, ``sums`` add the cell's own cost, both in units of gamma. ``sums`` have two rows and a column
    before the first cell, ``minima`` two rows and a column behind the last, so that no step asks where the border is.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, gamma: float) -> Tensor:  # type: ignore[override]
        """[B]."""
        cost = _skew(_squares(x, y) / gamma)  # [K, B, H]
        n, m = x.shape[2], y.shape[2]
        sums = cost.new_full((n + m + 1, x.shape[0], n + 1), torch.inf)  # [K+2, B, H+1]
        sums[0, :, 0] = 0.0  # every path begins at no cost
        minima = torch.full_like(sums, -torch.inf)  # what lies outside the matrix takes nothing from any cell
        for k in range(n + m - 1):
            first, last = _inside(k, n, m)
            up, left = sums[k + 1, :, first:last], sums[k + 1, :, first + 1 : last + 1]
            before = sums[k, :, first:last]  # diagonally
            least = torch.minimum(torch.minimum(up, left), before)
            weight = (least - up).exp_().add_((least - left).exp_()).add_((least - before).exp_())
            minimum = least.sub_(weight.log_())
            minima[k, :, first:last] = minimum
            sums[k + 2, :, first + 1 : last + 1] = minimum.add_(cost[k, :, first:last])
        ctx.save_for_backward(x, y, sums, minima)
        return sums[-1, :, n] * gamma

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # pyright: ignore
        """How much of the paths' weight passes each cell, spread over the points that meet there."""
        x, y, sums, minima = ctx.saved_tensors
        n, m = x.shape[2], y.shape[2]
        passed = torch.zeros_like(sums)  # as minima: row k, column i is cell (i, k - i)
        passed[n + m - 2, :, n - 1] = 1.0  # every path ends here
        for k in range(n + m - 3, -1, -1):
            first, last = _inside(k, n, m)
            here = sums[k + 2, :, first + 1 : last + 1]
            share = passed[k, :, first:last]
            # a cell hands back what the soft minima of (i, j+1), (i+1, j) and (i+1, j+1) took from it
            for row, shift in ((k + 1, 0), (k + 1, 1), (k + 2, 1)):
                place = slice(first + shift, last + shift)
                share.addcmul_((minima[row, :, place] - here).exp_(), passed[row, :, place])
        through = _unskew(passed[:-2, :, :-1], m) * (2 * grads[0])[:, None, None]  # [B, H, H2]
        level = y.mean(-1, keepdim=True)  # differences of large numbers would lose digits
        x, y = x - level, y - level
        grad_x = x * through.sum(2)[:, None] - y @ through.mT if ctx.needs_input_grad[0] else None
        grad_y = y * through.sum(1)[:, None] - x @ through if ctx.needs_input_grad[1] else None
        return grad_x, grad_y, None


def _inside(k: int, n: int, m: int) -> tuple[int, int]:
    """First column within an n x m matrix on anti-diagonal k, and the one after the last."""
    return max(0, k - m + 1), min(k, n - 1) + 1


def _squares(x: Tensor, y: Tensor) -> Tensor:
    """Squared differences of all pairs of steps, summed over channels: [B, H, H2]."""
    total = x.new_zeros(x.shape[0], x.shape[2], y.shape[2])
    for channel in range(x.shape[1]):
        difference = x[:, channel, :, None] - y[:, channel, None, :]
        total.addcmul_(difference, difference)
    return total


def _skew(cells: Tensor) -> Tensor:
    """[B, H, H2] to [K, B, H], K = H + H2 - 1: cell (i, j) moves to row i + j. Other places hold infinity."""
    n, m = cells.shape[1:]
    # each row is padded to K + 1 and read again as rows of K, which shifts row i by i
    wide = torch.nn.functional.pad(cells, (0, n), value=torch.inf).flatten(1)
    return wide[:, : n * (n + m - 1)].unflatten(1, (n, n + m - 1)).permute(2, 0, 1).contiguous()


def _unskew(skewed: Tensor, m: int) -> Tensor:
    """[K, B, H] back to [B, H, H2]."""
    n = skewed.shape[2]
    flat = torch.nn.functional.pad(skewed.permute(1, 2, 0).flatten(1), (0, n))
    return flat.unflatten(1, (n, n + m))[:, :, :m]
