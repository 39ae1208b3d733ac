"""The straight line that suits the data, chosen among a few on validation; seconds on one core."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prismts.layers.linear import RidgeMap, error_sums, rows
from prismts.windows import Windows

__all__ = ["ChosenLine"]

PENALTIES = (1e-4, 1e-2, 1e-1, 0.3)  # as shares of the mean square of an input step
REVERSIONS = (0.0, 1 / 3)  # shares of the regression of what is missed on the level of the window
WEIGHTINGS = {"plain": None, "relative": 0.3}  # relative: rows count with 1 / (variance of the context + this)
SHORTER = 4 / 7  # of the context: the second of two lines that are averaged
ROWS_PER_PASS = 200_000


class ChosenLine(RidgeMap):
    """A line that may do what the plain ridge cannot, where validation says that it helps.

    Candidates are the plain ridge and all combinations of: rows that count alike, or by the scale of their window; one
    line, or its average with one that reads only the last 4/7 of the context; no pull towards the mean of the training
    part, or a third of the regression of what is missed on the level of the window; four penalties. The best of them
    on validation is then trained for a few passes on absolute and on Huber loss, and the best of the three is kept.
    Without validation it is the plain ridge.

    Each of these was tried inside the training and validation parts of eleven data sets; see ``docs/log.md``.
    """

    def __init__(self, context_length: int, horizon: int) -> None:
        super().__init__(context_length, horizon)
        self.reversion = nn.Parameter(torch.zeros(horizon))  # [H]

    def forward(self, x: Tensor, scale: Tensor | float = 1.0, level: Tensor | None = None) -> Tensor:
        """As the ridge, plus what depends on the standardized ``level`` [..., 1] of the window."""
        y = super().forward(x, scale)
        return y if level is None else y + self.reversion * level / scale

    @torch.no_grad()
    def solve(self, train: Windows, validation: Windows | None) -> str:
        """Set the weights, and return what was chosen, in words."""
        said = super().solve(train, validation)
        if validation is None:
            return said
        ridge = self.full()
        names, lines = _candidates(train, ridge)
        names, lines = [said, *names], torch.cat([ridge[None].double(), lines])
        errors = error_sums(lines, validation)
        best = int(errors.argmin())
        name, line, least = names[best], lines[best].float(), float(errors[best])
        start = line
        for loss in ("absolute", "Huber"):
            trained, error = _trained(start, train, validation, loss)
            if error < least:
                name, line, least = f"{names[best]}, trained on {loss} loss", trained, error
        self.weight.copy_(line[:, : self.weight.shape[1]])
        self.bias.copy_(line[:, -2])
        self.reversion.copy_(line[:, -1])
        return name

    def full(self) -> Tensor:
        """Weights, bias and reversion side by side: [H, T+2]."""
        return torch.cat([self.weight, self.bias[:, None], self.reversion[:, None]], dim=1)


@dataclass
class _Moments:
    """Sums over rows, from which every candidate of one weighting is solved."""

    size: int
    horizon: int
    short: int
    sums: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        n, h, s = self.size, self.horizon, self.short + 1
        shapes = {"xx": (n, n), "xy": (n, h), "ss": (s, s), "sy": (s, h), "zx": (n,), "zy": (h,), "zz": ()}
        self.sums = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}

    def add(self, x: Tensor, level: Tensor, y: Tensor, weight: Tensor | None) -> None:
        """Rows x [R, T+1] with a last column of ones, levels [R, 1], targets [R, H], row weights [R, 1]."""
        recent = x[:, -1 - self.short : -1]
        middle = recent.mean(1, keepdim=True)
        s, ys = torch.cat([recent - middle, x[:, -1:]], dim=1), y - middle
        if weight is not None:
            x, level, y, s, ys = (part * weight for part in (x, level, y, s, ys))
        new = {
            "xx": x.T @ x, "xy": x.T @ y, "ss": s.T @ s, "sy": s.T @ ys,
            "zx": x.T @ level[:, 0], "zy": y.T @ level[:, 0], "zz": level.square().sum(),
        }  # fmt: skip
        for name, value in new.items():
            self.sums[name] += value.double()


def _candidates(train: Windows, ridge: Tensor) -> tuple[list[str], Tensor]:
    """Names of all candidates, and their weights, bias and reversion [n, H, T+2]."""
    size = train.context_length
    short = min(size, max(2, round(SHORTER * size)))
    moments = {name: _Moments(size + 1, train.horizon, short) for name in WEIGHTINGS}
    for x, level, y, seen in rows(train):
        if seen is not None:  # an unobserved target counts as what the ridge says of it, and so pulls nowhere
            y = torch.where(seen, y, x @ ridge[:, :-1].T)
        for name, offset in WEIGHTINGS.items():
            weight = None if offset is None else (x[:, :-1].var(1, correction=0, keepdim=True) + offset).rsqrt()
            moments[name].add(x, level, y, weight)
    names: list[str] = []
    lines: list[Tensor] = []
    for weighting, found in moments.items():
        m = found.sums
        for penalty in PENALTIES:
            whole = _ridge(m["xx"], m["xy"], penalty)  # [H, T+1]
            part = _ridge(m["ss"], m["sy"], penalty)
            # the shorter line as a map of the longer context: its own mean is one of its inputs
            spread = torch.zeros_like(whole)
            core = part[:, :-1]
            spread[:, size - short : size] = core - core.mean(1, keepdim=True) + 1 / short
            spread[:, -1] = part[:, -1]
            for reach, line in ((f"{size} steps", whole), (f"{short} and {size} steps", (whole + spread) / 2)):
                slope = (m["zy"] - line @ m["zx"]) / m["zz"].clamp(min=1e-12)  # [H]
                for reversion in REVERSIONS:
                    lines.append(torch.cat([line, reversion * slope[:, None]], dim=1))
                    names.append(
                        f"{weighting} rows, {reach}, penalty {penalty:g}" + (", with reversion" if reversion else "")
                    )
    return names, torch.stack(lines)


def _ridge(xx: Tensor, xy: Tensor, share: float) -> Tensor:
    """Penalized least squares from moments, the last column (of ones) unpenalized: [H, T+1]."""
    mean_square = xx.diagonal()[:-1].mean().clamp(min=1e-12)
    shrink = torch.full((len(xx),), share, dtype=xx.dtype) * mean_square
    shrink[-1] = 0.0
    return torch.linalg.solve(xx + torch.diag(shrink + 1e-10 * mean_square), xy).T


@torch.enable_grad()
def _trained(
    line: Tensor, train: Windows, validation: Windows, loss: str, n_passes: int = 4, batch_size: int = 2048
) -> tuple[Tensor, float]:
    """The line after a few passes on another loss, at the pass validation likes best, and its error there."""
    generator = np.random.default_rng(0)
    weights = line.clone().requires_grad_()
    optimizer = torch.optim.Adam([weights], lr=1e-4)
    n_windows = max(1, batch_size // max(train.n_channels, 8))  # what ``rows`` gives in one block, for one step
    per_pass = max(1, min(len(train) // n_windows, ROWS_PER_PASS // (n_windows * train.n_channels)))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_passes * per_pass)
    best, least = line, float("inf")
    for _ in range(n_passes):
        order = generator.permutation(len(train))[: n_windows * per_pass]
        for index in np.array_split(order, per_pass):
            for x, level, y, seen in rows(train, index):
                error = x @ weights[:, :-1].T + level * weights[:, -1] - y
                if seen is not None:
                    error = error.masked_fill(~seen, 0.0)
                value = error.abs() if loss == "absolute" else F.huber_loss(error, torch.zeros_like(error), delta=0.5)
                optimizer.zero_grad()
                value.mean().backward()
                optimizer.step()
                schedule.step()
        error = float(error_sums(weights.detach()[None], validation)[0])
        if error < least:
            best, least = weights.detach().clone(), error
    return best, least
