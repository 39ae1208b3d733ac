"""A straight line from the past to the future, solved rather than trained."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prismts.layers.missing import bridge
from prismts.windows import Windows

__all__ = ["RidgeMap", "error_sums", "rows", "thinned"]

PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # as shares of the mean square of an input step, per row
MAX_ROWS = 2_000_000  # rows of the least-squares problem; beyond this every k-th window is read


class RidgeMap(nn.Module):
    """One linear map from context to future for all channels, which begins at the least-squares solution.

    Both sides stand relative to the mean of the context. The penalty is the best of five on the validation windows;
    where there are none, the middle one is taken. Unobserved context is bridged. Unobserved targets do not count: each
    step of the horizon is solved over the rows in which it was observed, all steps together by conjugate gradients,
    which the solution of the complete problem preconditions.
    """

    n_channels: int | None = None  # of a line that is not one for all

    def __init__(self, context_length: int, horizon: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(horizon, context_length))  # [H, T]
        self.bias = nn.Parameter(torch.zeros(horizon))  # [H]
        self.penalty = float("nan")

    def forward(self, x: Tensor, scale: Tensor | float = 1.0, level: Tensor | None = None) -> Tensor:
        """[..., T] relative to its mean to [..., H] relative to the same mean, both divided by ``scale`` [..., 1].

        ``level`` [..., 1], the mean that was taken away, plays no part here.
        """
        return x @ self.weight.T + self.bias / scale

    @torch.no_grad()
    def solve(self, train: Windows, validation: Windows | None) -> str:
        """Set the weights from all training windows (every k-th of very many); what was chosen, in words."""
        solutions, penalties = _solve(train)
        best = len(penalties) // 2
        if validation is not None:
            best = int(error_sums(solutions, validation).argmin())
        self.penalty = PENALTIES[best]
        chosen = solutions[best].to(self.weight)
        weight = chosen[:, :-1]
        self.weight.copy_(weight - weight.mean(1, keepdim=True))  # contexts sum to nothing: only rounding put it there
        self.bias.copy_(chosen[:, -1])
        return f"ridge, penalty {PENALTIES[best]:g}"


def rows(
    windows: Windows, index: NDArray[np.int64] | None = None, batch_size: int = 256, channels: slice = slice(None)
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
    """Windows as rows of a regression, one per channel, block by block.

    Contexts [R, T+1] with a last column of ones and targets [R, H], both relative to the context's mean, which is the
    level [R, 1], and the mask of the targets [R, H] or None. All windows, thinned where there are very many, or those
    of ``index``; all channels or a slice of them.
    """
    index = thinned(windows) if index is None else index
    n_channels = len(range(*channels.indices(windows.n_channels)))
    step = max(1, batch_size * 8 // max(n_channels, 8))
    for begin in range(0, len(index), step):
        batch = windows.batch(index[begin : begin + step], channels)
        x = bridge(batch.context, batch.context_observed)
        level = x.mean(-1, keepdim=True)
        x, y = (x - level).flatten(0, 1), (batch.target - level).flatten(0, 1)
        seen = None if batch.target_observed is None else batch.target_observed.flatten(0, 1)
        yield torch.cat([x, torch.ones_like(x[:, :1])], dim=1), level.flatten(0, 1), y, seen


def thinned(windows: Windows) -> NDArray[np.int64]:
    """The numbers of all windows, or of every k-th where there are very many."""
    return np.arange(0, len(windows), max(1, -(-len(windows) * windows.n_channels // MAX_ROWS)))


def _solve(train: Windows, max_rounds: int = 20) -> tuple[Tensor, list[float]]:
    """The solutions [n_penalties, H, T+1] of all penalties over the training windows, in float64."""
    size = train.context_length + 1
    xx = torch.zeros(size, size, dtype=torch.float64)
    xy = torch.zeros(size, train.horizon, dtype=torch.float64)
    missing = False
    for x, _, y, seen in rows(train):
        xx += (x.T @ x).double()
        xy += (x.T @ (y if seen is None else y.masked_fill(~seen, 0.0))).double()
        missing |= seen is not None
    level = float(xx.diagonal()[:-1].mean())
    penalties = [share * level for share in PENALTIES]
    shrink = torch.ones(len(penalties), size, 1, dtype=torch.float64)
    shrink *= torch.tensor(penalties, dtype=torch.float64)[:, None, None]
    shrink[:, -1] = 0.0  # the constant is not shrunk
    shrink += 1e-10 * max(level, 1.0)
    systems = torch.linalg.lu_factor(xx + torch.diag_embed(shrink[..., 0]))

    def solve_complete(moments: Tensor) -> Tensor:
        return torch.linalg.lu_solve(*systems, moments.expand(len(penalties), -1, -1))  # [n, T+1, H]

    if not missing:
        return solve_complete(xy).mT, penalties
    residual = xy.expand(len(penalties), -1, -1)
    found = torch.zeros_like(residual)
    nearer = solve_complete(residual)
    direction, size_before = nearer, (residual * nearer).sum(1, keepdim=True)  # [n, T+1, H], [n, 1, H]
    size_first = size_before.sum()
    for _ in range(max_rounds):
        moved = xx @ direction - _unobserved_moments(train, direction) + shrink * direction
        step = size_before / (direction * moved).sum(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
        found, residual = found + step * direction, residual - step * moved
        nearer = solve_complete(residual)
        size_now = (residual * nearer).sum(1, keepdim=True).clamp(min=0.0)
        if size_now.sum() <= 1e-10 * size_first:
            break
        direction = nearer + size_now / size_before.clamp(min=torch.finfo(torch.float64).tiny) * direction
        size_before = size_now
    return found.mT, penalties


def _unobserved_moments(windows: Windows, weights: Tensor) -> Tensor:
    """What rows with unobserved targets would add to X'XW [n, T+1, H] for some weights W of the same shape."""
    n, size, horizon = weights.shape
    flat = weights.transpose(0, 1).reshape(size, n * horizon).float()
    total = torch.zeros(size, n * horizon, dtype=torch.float64)
    for x, _, _, seen in rows(windows):
        if seen is None:
            continue
        some = ~seen.all(1)
        x, seen = x[some], seen[some]
        there = (x @ flat).unflatten(1, (n, horizon)).masked_fill(seen[:, None], 0.0)  # [R, n, H]
        total += (x.T @ there.flatten(1)).double()
    return total.unflatten(1, (n, horizon)).transpose(0, 1)


def error_sums(lines: Tensor, windows: Windows) -> Tensor:
    """Sum of squared errors [n] of lines [n, H, T+1], or [n, H, T+2] with a slope on the level, over some windows."""
    n, horizon, size = lines.shape
    flat = lines.reshape(n * horizon, size).float()
    with_level = size == windows.context_length + 2
    total = torch.zeros(n, dtype=torch.float64)
    for x, level, y, seen in rows(windows):
        x = torch.cat([x, level], dim=1) if with_level else x
        error = (x @ flat.T).unflatten(1, (n, horizon)) - y[:, None]  # [R, n, H]
        if seen is not None:
            error = error.masked_fill(~seen[:, None], 0.0)
        total += error.square().sum((0, 2), dtype=torch.float64)
    return total
