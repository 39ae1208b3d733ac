"""A straight line from the past to the future, solved rather than trained."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from prismts.layers.missing import bridge
from prismts.windows import Windows

__all__ = ["RidgeMap"]

PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # as shares of the mean square of an input step, per row
MAX_ROWS = 2_000_000  # rows of the least-squares problem; beyond this every k-th window is read


class RidgeMap(nn.Module):
    """One linear map from context to future for all channels, which begins at the least-squares solution.

    Both sides stand relative to the mean of the context. The penalty is the best of five on the validation windows;
    where there are none, the middle one is taken. Unobserved context is bridged. Unobserved targets do not count: they
    are filled with the map's own prediction and the map is solved again, which converges to the solution over the
    observed ones.
    """

    def __init__(self, context_length: int, horizon: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(horizon, context_length))  # [H, T]
        self.bias = nn.Parameter(torch.zeros(horizon))  # [H]

    def forward(self, x: Tensor) -> Tensor:
        """[..., T] relative to its mean to [..., H] relative to the same mean."""
        return x @ self.weight.T + self.bias

    @torch.no_grad()
    def solve(self, train: Windows, validation: Windows | None) -> float:
        """Set the weights from all training windows, and return the penalty that was chosen."""
        solutions, penalties = _solve(train)
        best = len(penalties) // 2
        if validation is not None:
            losses = _squared_errors(solutions, validation)
            best = int(losses.argmin())
        chosen = solutions[best].to(self.weight)
        self.weight.copy_(chosen[:, :-1])
        self.bias.copy_(chosen[:, -1])
        return penalties[best]


def _rows(windows: Windows, batch_size: int = 256) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Contexts [R, T+1] with a column of ones, targets [R, H], both relative to the context's mean, and the mask."""
    thin = max(1, -(-len(windows) * windows.n_channels // MAX_ROWS))
    index = np.arange(0, len(windows), thin)
    step = max(1, batch_size * 8 // max(windows.n_channels, 8))
    for begin in range(0, len(index), step):
        batch = windows.batch(index[begin : begin + step])
        x = bridge(batch.context, batch.context_observed)
        level = x.mean(-1, keepdim=True)
        x, y = (x - level).flatten(0, 1), (batch.target - level).flatten(0, 1)
        seen = None if batch.target_observed is None else batch.target_observed.flatten(0, 1)
        yield torch.cat([x, torch.ones_like(x[:, :1])], dim=1), y, seen


def _solve(train: Windows, max_rounds: int = 20) -> tuple[Tensor, list[float]]:
    """The solutions [n_penalties, H, T+1] of all penalties over the training windows, in float64."""
    size = train.context_length + 1
    xx = torch.zeros(size, size, dtype=torch.float64)
    xy = torch.zeros(size, train.horizon, dtype=torch.float64)
    n_rows, missing = 0, False
    for x, y, seen in _rows(train):
        xx += (x.T @ x).double()
        xy += (x.T @ (y if seen is None else y.masked_fill(~seen, 0.0))).double()
        n_rows += len(x)
        missing |= seen is not None
    level = float(xx.diagonal()[:-1].mean())
    penalties = [share * level for share in PENALTIES]

    def solutions(moments: Tensor) -> Tensor:
        free = torch.ones(size, dtype=torch.float64)
        free[-1] = 0.0  # the constant is not shrunk
        tiny = 1e-10 * max(level, 1.0)
        stack = torch.stack([xx + torch.diag(free * penalty + tiny) for penalty in penalties])
        return torch.linalg.solve(stack, moments.expand(len(penalties), -1, -1)).mT  # [n, H, T+1]

    found = solutions(xy)
    middle = len(penalties) // 2
    for _ in range(max_rounds if missing else 0):
        filled = torch.zeros_like(xy)
        guess = found[middle].float()
        for x, y, seen in _rows(train):
            filled += (x.T @ (y if seen is None else torch.where(seen, y, x @ guess.T))).double()
        before, found = found[middle], solutions(filled)
        if (found[middle] - before).norm() <= 1e-4 * before.norm():
            break
    return found, penalties


def _squared_errors(solutions: Tensor, windows: Windows) -> Tensor:
    """Mean squared error of each solution [n] over the observed targets of some windows."""
    n, horizon, size = solutions.shape
    flat = solutions.reshape(n * horizon, size).float()
    total = torch.zeros(n, dtype=torch.float64)
    for x, y, seen in _rows(windows):
        error = (x @ flat.T).unflatten(1, (n, horizon)) - y[:, None]  # [R, n, H]
        if seen is not None:
            error = error.masked_fill(~seen[:, None], 0.0)
        total += error.square().sum((0, 2), dtype=torch.float64)
    return total
