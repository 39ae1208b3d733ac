"""Lines, and what all channels did lately, where every fold of the past says that it helps; in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prismts.errors import ShapeError
from prismts.layers.individual_line import MAX_WEIGHTS, IndividualLine
from prismts.layers.line import NOTHING, ahead_in_all, gain_over_folds, windows_of_folds
from prismts.layers.linear import rows, thinned
from prismts.windows import Windows

__all__ = ["CoupledLine"]

SPANS = (1, 4, 16, 64, 256)  # steps at the end of a context whose mean is read, of those that are shorter than it
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0)  # as shares of the mean square of each of these means


class CoupledLine(IndividualLine):
    """The lines of each channel, corrected by what all channels did lately.

    First the lines are chosen, one for all or one for each. What they miss, of all channels at once, is then regressed
    on the means of every channel over its last 1, 4, 16, 64 and 256 steps, less its mean over the context: humidity
    follows from pressure and wind as well as from its own past. Five penalties are judged on the same folds as the
    lines were, lines and correction learned from what lies before each; the penalty of lowest mean log ratio to the
    error of the lines alone wins, if it is ahead of them in every fold, and channels of which that mean says that they
    lose by it are left as they were. Else, where the correction would have more than 16.8 million weights, and where
    lines of each channel's own are not asked for, the lines stand alone.

    Nothing here knows a level, so the answer moves along with channels that are shifted. What channels say of each
    other may change with the season, and folds cannot see beyond the stretches they have: ``docs/log.md`` says what
    this gave on stretches after the ones that chose.
    """

    def __init__(self, context_length: int, horizon: int) -> None:
        super().__init__(context_length, horizon)
        self.spans = tuple(n for n in SPANS if n < context_length)
        self.coupling = nn.Parameter(torch.zeros(0, horizon, 1))  # [C, H, C*S+1], or C = 0: the lines stand alone
        self.register_load_state_dict_pre_hook(_made_room)

    def forward(self, x: Tensor, scale: Tensor | float = 1.0, level: Tensor | None = None) -> Tensor:
        """[..., C, T] relative to its mean to [..., C, H], as the ridge."""
        y = super().forward(x, scale, level)
        if not len(self.coupling):
            return y
        if x.ndim < 2 or x.shape[-2] != len(self.coupling):
            raise ShapeError(
                f"The line of this model reads {len(self.coupling)} channels together, but got windows of shape "
                f"{list(x.shape)}. Pass all channels it was trained with, in their order, as [batch, channel, time]."
            )
        said = torch.einsum("...p,chp->...ch", self._lately(x * scale), self.coupling)
        return y + said / scale

    def _lately(self, x: Tensor) -> Tensor:
        """Means of all channels over the last steps, and a one: [..., C, T] to [..., C*S+1], in units of the series."""
        means = torch.stack([x[..., -n:].mean(-1) for n in self.spans], dim=-1).flatten(-2)  # [..., C*S]
        return torch.cat([means, torch.ones_like(means[..., :1])], dim=-1)

    @property
    def n_channels(self) -> int | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """How many channels the line is bound to; None where one line is for all and reads each by itself."""
        return len(self.coupling) or super().n_channels

    @torch.no_grad()
    def solve(self, train: Windows, validation: Windows | None) -> str:
        """Set the weights, and return what was chosen, in words."""
        said, before = self.solve_by_folds(train, validation)
        n_channels, horizon = train.n_channels, len(self.bias)
        self.coupling.data = self.coupling.new_zeros(0, horizon, n_channels * len(self.spans) + 1)
        if not before or not self.spans or n_channels * horizon * self.coupling.shape[-1] > MAX_WEIGHTS:
            return said
        couplings, errors = self._judged_together(train, validation, before)
        total = errors.mean(-1)
        best = ahead_in_all(total) if len(errors) > 1 else None
        if best is None:
            return f"{said}; each channel by its own past alone"
        helped = (errors[:, 1 + best] / errors[:, 0]).log().mean(0) < 0  # [C]
        kept = torch.where(helped, errors[:, 1 + best], errors[:, 0]).mean(-1)
        couplings = couplings[best].unflatten(0, (n_channels, horizon)) * helped[:, None, None]
        self.coupling.data = couplings.to(self.coupling)
        gain = gain_over_folds(torch.stack([total[:, 0], kept], dim=1), 0)
        return (
            f"{said}; {int(helped.sum())} of {n_channels} channels by what all did lately, "
            f"penalty {PENALTIES[best]:g}, {gain:.1%} ahead of the lines alone over {len(errors)} folds"
        )

    def _judged_together(
        self, train: Windows, validation: Windows | None, before: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Corrections [n, C*H, C*S+1] of each penalty on all of train; errors [n_folds, 1+n, C], the lines first."""
        lines = self.individual if len(self.individual) else torch.cat([self.weight, self.bias[:, None]], 1)[None]
        index = thinned(train)
        known = self._missed(train, index, lines)
        errors: list[Tensor] = []
        for (learned, data, judge), then in zip(windows_of_folds(train, validation), before, strict=True):
            found = known
            if len(learned) < len(index):
                found = self._missed(train, learned, then)
            else:
                then = lines
            errors.append(self._missed(data, judge, then).errors(found.regressed()))
        return known.regressed(), torch.stack(errors)

    def _missed(self, windows: Windows, index: NDArray[np.int64], lines: Tensor) -> _Missed:
        """What the lines [C or 1, H, T+1] miss of some windows, beside what all channels did."""
        n_channels, horizon = windows.n_channels, windows.horizon
        size = n_channels * len(self.spans) + 1
        xx = torch.zeros(size, size, dtype=torch.float64)
        xr = torch.zeros(size, n_channels * horizon, dtype=torch.float64)
        rr, n = torch.zeros(n_channels, dtype=torch.float64), 0
        lines = lines.float().expand(n_channels, -1, -1)
        for x, _, y, seen in rows(windows, index):
            x, y = x.unflatten(0, (-1, n_channels)), y.unflatten(0, (-1, n_channels))  # [B, C, T+1], [B, C, H]
            missed = y - torch.einsum("bct,cht->bch", x, lines)
            if seen is not None:
                missed = missed.masked_fill(~seen.unflatten(0, (-1, n_channels)), 0.0)
            lately, missed = self._lately(x[..., :-1]), missed.flatten(1)  # [B, C*S+1], [B, C*H]
            xx += (lately.T @ lately).double()
            xr += (lately.T @ missed).double()
            rr += missed.square().unflatten(1, (n_channels, horizon)).sum((0, 2), dtype=torch.float64)
            n += len(x) * horizon
        return _Missed(xx, xr, rr, n)


@dataclass(frozen=True)
class _Missed:
    """Sums over windows: all that a regression of misses on what channels did needs, and to judge one."""

    xx: Tensor  # [C*S+1, C*S+1] of what channels did
    xr: Tensor  # [C*S+1, C*H] with what the lines miss
    rr: Tensor  # [C] the sum of squares of that
    n: int  # values of each channel summed over in rr

    def regressed(self) -> Tensor:
        """For each penalty the correction [n, C*H, C*S+1]; the constant is free."""
        sizes = self.xx.diagonal()
        shrink = torch.tensor(PENALTIES, dtype=torch.float64)[:, None] * sizes + 1e-10 * sizes.mean()  # [n, C*S+1]
        shrink[:, -1] = 1e-10 * sizes[-1]
        return torch.linalg.solve(self.xx + torch.diag_embed(shrink), self.xr).mT

    def errors(self, corrections: Tensor) -> Tensor:
        """Mean squared errors [1+n, C] of the lines alone and of lines corrected by these [n, C*H, C*S+1]."""
        channels = (len(self.rr), -1)
        less = [self.rr]
        for beyond in corrections:
            moved = ((beyond @ self.xx - 2 * self.xr.T) * beyond).sum(1)  # [C*H]
            less.append(self.rr + moved.unflatten(0, channels).sum(1))
        return torch.stack(less).clamp(min=0.0) / max(self.n, 1) + NOTHING


def _made_room(module: CoupledLine, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Take the shape of the correction that is about to be loaded: before it was solved there was none."""
    coupling = state.get(f"{prefix}coupling")
    if isinstance(coupling, Tensor) and coupling.ndim == 3 and coupling.shape[1] == module.coupling.shape[1]:
        module.coupling.data = module.coupling.new_zeros(coupling.shape)
