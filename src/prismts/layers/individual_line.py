"""A chosen line for each channel, where every fold of the past says that channels differ; in closed form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from prismts.errors import ShapeError
from prismts.layers.line import ChosenLine, Moments, ahead_in_all, folds_of, gain_over_folds
from prismts.windows import Windows

__all__ = ["IndividualLine"]

PENALTIES = (1e-2, 1e-1, 1.0, 3.0)  # on what sets a channel apart, as shares of the mean square of its input steps
MAX_CHANNELS = 64  # of a wider table the model would read all channels at once
MAX_WEIGHTS = 2**24  # of the lines of all channels together: 64 MB


class IndividualLine(ChosenLine):
    """A chosen line that each channel may bend its own way.

    First the line for all channels is chosen. Then each channel gets a line of its own: the least-squares solution over
    its own rows, drawn towards the common line by one of four penalties. These are judged on the same folds as the
    common line was, each learned from what lies before it; the penalty of lowest mean log ratio to the error of the
    common line wins, if it is ahead of it in every fold. Else, of one channel, of more than 64, and where the lines
    would have more than 16.8 million weights, it is the chosen line.

    DLinear (arXiv 2205.13504) calls linear layers of each channel's own individual; there nothing draws them together
    and nobody asks whether they help. ``docs/log.md`` says what they gave on stretches after the ones that chose.
    """

    least_gain = 0.0  # of the error of the common line: where folds say less, it serves all channels

    def __init__(self, context_length: int, horizon: int) -> None:
        super().__init__(context_length, horizon)
        self.individual = nn.Parameter(torch.zeros(0, horizon, context_length + 1))  # [C, H, T+1], or C = 0: in common
        self.register_load_state_dict_pre_hook(_made_room)

    def forward(self, x: Tensor, scale: Tensor | float = 1.0, level: Tensor | None = None) -> Tensor:
        """[..., C, T] relative to its mean to [..., C, H], as the ridge; each channel by its own line if it has one."""
        if not len(self.individual):
            return super().forward(x, scale, level)
        if x.ndim < 2 or x.shape[-2] != len(self.individual):
            raise ShapeError(
                f"This model has a line for each of {len(self.individual)} channels, but got windows of shape "
                f"{list(x.shape)}. Pass all channels it was trained with, in their order, as [batch, channel, time]."
            )
        y = torch.einsum("...ct,cht->...ch", x, self.individual[..., :-1])
        return y + self.individual[..., -1] / scale

    @property
    def n_channels(self) -> int | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """How many channels the line is bound to; None where one line is for all."""
        return len(self.individual) or None

    @torch.no_grad()
    def solve(self, train: Windows, validation: Windows | None) -> str:
        """Set the weights, and return what was chosen, in words."""
        return self.solve_by_folds(train, validation, keep=False)[0]

    def solve_alike(self, train: Windows, validation: Windows | None) -> str:
        """Set the weights of the line for all channels, and return what was chosen, in words."""
        return super().solve(train, validation)

    @torch.no_grad()
    def solve_by_folds(
        self, train: Windows, validation: Windows | None, *, keep: bool = True
    ) -> tuple[str, list[Tensor]]:
        """Set the weights; what was chosen, in words, and the lines [C, H, T+1] that the past of each fold makes.

        C is 1 where one line is for all. There are no folds where lines of each channel's own were not asked for, or
        where they are not to be kept: they take 48 bytes for each weight of the lines.
        """
        said = self.solve_alike(train, validation)
        self.individual.data = self.individual.new_zeros(0, *self.individual.shape[1:])
        n_channels, (horizon, size) = train.n_channels, self.individual.shape[1:]
        if not 1 < n_channels <= MAX_CHANNELS or n_channels * horizon * size > MAX_WEIGHTS:
            return said, []
        lines, alike, apart, errors = self._judged_apart(train, validation, keep)
        best = ahead_in_all(errors) if len(errors) > 1 else None
        gain = 0.0 if best is None else gain_over_folds(errors, best)
        if best is None or gain < self.least_gain:
            return f"{said}, for all channels alike", [line[None, :, :-1] for line in alike]
        chosen = lines[best]  # [C, H, T+1]
        chosen[..., :-1] -= chosen[..., :-1].mean(-1, keepdim=True)  # contexts sum to nothing
        self.individual.data = chosen.to(self.individual)
        return (
            f"{said}; each channel its own, penalty {PENALTIES[best]:g}, {gain:.1%} ahead of one for all over "
            f"{len(errors)} folds"
        ), [known[best] for known in apart]

    def _judged_apart(
        self, train: Windows, validation: Windows | None, keep: bool
    ) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor]:
        """Lines [n, C, H, T+1] of each penalty on all of train, and errors [n_folds, 1+n], the common line first.

        Between them, for each fold, the common line [H, T+2] of its past, and lines [n, C, H, T+1] if they are to be
        kept.
        """
        common = self.full().double()
        kinds = [self.weighting]
        _, folds = folds_of(train, validation, common, kinds)
        alike = [self.learned_from(learned, common) for learned, _ in folds]  # the common line of each fold
        size = train.n_channels, *self.individual.shape[1:]
        lines = torch.empty(len(PENALTIES), *size, dtype=torch.float64)
        apart = [torch.empty(len(PENALTIES), *size) for _ in folds if keep]
        total = torch.zeros(len(folds), 1 + len(PENALTIES), dtype=torch.float64)
        n = torch.zeros(len(folds), 1, dtype=torch.float64)
        for channel in range(train.n_channels):
            known, own = folds_of(train, validation, common, kinds, slice(channel, channel + 1))
            lines[:, channel] = _drawn(known[self.weighting], common, common)[..., :-1]
            for k, (learned, judge) in enumerate(own):
                own_lines = _drawn(learned[self.weighting], alike[k], common)
                each = torch.cat([alike[k][None], own_lines])
                if keep:
                    apart[k][:, channel] = own_lines[..., :-1]
                total[k] += judge.errors(each - common) * judge.n
                n[k] += judge.n
        return lines, alike, apart, total / n


def _drawn(found: Moments, common: Tensor, reference: Tensor) -> Tensor:
    """For each penalty the line [n, H, T+2] that is best over some rows and close to the common one [H, T+2].

    What ``found`` says is missed is relative to the ``reference``. The constant is free.
    """
    xx = found.xx[:-1, :-1]
    missed = found.xr[:-1] + found.xx[:-1] @ (reference - common).T  # [T+1, H] by the common line
    mean_square = xx.diagonal()[:-1].mean().clamp(min=1e-12)
    shrink = torch.tensor(PENALTIES, dtype=torch.float64)[:, None].repeat(1, len(xx)) * mean_square  # [n, T+1]
    shrink[:, -1] = 0.0
    bent = torch.linalg.solve(xx + torch.diag_embed(shrink + 1e-10 * mean_square), missed)  # [n, T+1, H]
    return common + nn.functional.pad(bent.mT, (0, 1))


def _made_room(module: IndividualLine, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Take the shape of the lines that are about to be loaded: before they were solved there were none."""
    lines = state.get(f"{prefix}individual")
    if isinstance(lines, Tensor) and lines.shape[1:] == module.individual.shape[1:]:
        module.individual.data = module.individual.new_zeros(lines.shape)
