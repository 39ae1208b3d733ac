"""Parts of exported graphs: units of the series, straight lines over gaps, windows and sums over them.

Everything here works on any number of time steps, and only with operations that ONNX has: running maxima, by which the
layers find the observed neighbors of a gap, are written as running counts. Arithmetic on values is in double precision,
as in the estimators.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prismts.data.scaling import StandardScaler
from prismts.models.contract import Encoder
from prismts.models.ensemble import Ensemble
from prismts.models.stacked import Stacked
from prismts.serving.graph import TOLERANCE

__all__ = [
    "SeriesUnits",
    "bridged",
    "merged_copy",
    "numbers",
    "own_statistics",
    "precision_for",
    "spread",
    "starts_with_the_end",
    "window_maxima",
    "window_sums",
    "windows_at",
    "windows_of",
]


def numbers(x: NDArray[np.generic] | float) -> Tensor:
    """An array as a tensor that a graph may keep: double precision, copied."""
    return torch.from_numpy(np.array(x, dtype=np.float64))


def precision_for(level: NDArray[np.floating], scale: NDArray[np.floating]) -> Literal["float32", "float64"]:
    """The type of values that a graph reads for channels of these levels and scales (deviations), both in their units.

    float64 where the numbers next to each other in float32 lie further apart than ``TOLERANCE`` of a scale.
    """
    with np.errstate(over="ignore"):  # what is too large for single precision has no neighbors there: NaN
        step = np.spacing(np.maximum(np.abs(level), scale).astype(np.float32))
    return "float32" if bool((step <= TOLERANCE * scale).all()) else "float64"


def merged_copy(model: nn.Module) -> nn.Module:
    """A copy for inference on the CPU, in which every pair of kernels is one."""
    one = model.merged() if isinstance(model, Encoder | Ensemble | Stacked) else deepcopy(model)
    return one.cpu().eval().requires_grad_(False)


def bridged(x: Tensor, seen: Tensor) -> Tensor:
    """Join observed neighbors by straight lines, and continue the first and last of them to the ends: [..., T].

    The twin of ``prismts.layers.missing.bridge``, equal for every mask: the k-th observed step is looked up by its
    rank, since ONNX has running sums and no running maxima. Where nothing was observed, the result is 0.
    """
    place = torch.arange(x.shape[-1], device=x.device)
    rank = seen.long().cumsum(-1)  # observed steps at or before each one
    total = rank[..., -1:]
    slots = torch.cat([torch.zeros_like(total), torch.zeros_like(rank)], dim=-1)  # slot k holds the k-th; 0 is scrap
    slots = slots.scatter(-1, torch.where(seen, rank, 0), place.expand_as(rank))
    after = torch.where(seen, rank, torch.minimum(rank + 1, total)).clamp(min=1)
    left, right = slots.gather(-1, rank.clamp(min=1)), slots.gather(-1, after)
    x = x.masked_fill(~seen, 0.0)
    before, behind = x.gather(-1, left), x.gather(-1, right)
    share = (place - left).to(x.dtype) / (right - left).clamp(min=1).to(x.dtype)
    return torch.where(seen, x, before + share * (behind - before))


def own_statistics(x: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and deviation of what was observed of x [B, C, T], as ``StandardScaler`` has them, and where there is any.

    Three of [B, C, 1]. A channel that never moves has a deviation of 1.
    """
    count = seen.sum(-1, keepdim=True)
    x = x.masked_fill(~seen, 0.0)
    mean = x.sum(-1, keepdim=True) / count.clamp(min=1)
    spread = ((x - mean).masked_fill(~seen, 0.0).square().sum(-1, keepdim=True) / count.clamp(min=1)).sqrt()
    flat = spread <= 1e-12 * x.abs().amax(-1, keepdim=True)
    return mean, torch.where(flat, torch.ones_like(spread), spread), count > 0


class SeriesUnits(nn.Module):
    """Level and scale of each channel of each series: those of training, or its own where it was not in training.

    A scaler of one row serves every series. Of several rows, ``series`` names the one to take, and -1 stands for a
    series that is not among them: it is scaled by its own observed values, and a channel it lacks as in training on
    average.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, scaler: StandardScaler) -> None:
        super().__init__()
        self.n_rows = len(scaler.mean)
        self.register_buffer("mean", numbers(scaler.mean)[..., None])  # [n, C, 1]
        self.register_buffer("scale", numbers(scaler.scale)[..., None])

    def forward(self, x: Tensor, seen: Tensor, series: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and scale [B or 1, C, 1] for values x [B, C, T]."""
        if series is None:
            return self.mean, self.scale
        mean, scale, some = own_statistics(x, seen)
        mean = torch.where(some, mean, self.mean.mean(0, keepdim=True))
        scale = torch.where(some, scale, self.scale.mean(0, keepdim=True))
        known, row = (series >= 0)[:, None, None], series.clamp(min=0)
        return torch.where(known, self.mean[row], mean), torch.where(known, self.scale[row], scale)


def windows_of(x: Tensor, length: int) -> Tensor:
    """All windows of x [B, C, T], one per first step: [B, C, T - length + 1, length]."""
    return windows_at(x, torch.arange(x.shape[-1] - length + 1, device=x.device), length)


def windows_at(x: Tensor, starts: Tensor, length: int) -> Tensor:
    """The windows of x [B, C, T] that begin at ``starts`` [n]: [B, C, n, length]."""
    place = starts[:, None] + torch.arange(length, device=x.device)  # [n, length]
    return x[:, :, place]


def starts_with_the_end(n_timepoints: int, length: int, step: int) -> Tensor:
    """Where windows begin that lie at whole steps of a series, and one at its end, perhaps again: [n]."""
    starts = torch.arange((n_timepoints - length) // step + 2) * step
    return torch.minimum(starts, torch.zeros_like(starts) + (n_timepoints - length))


def window_sums(x: Tensor, length: int) -> Tensor:
    """Sums of ``length`` neighbors of x [..., T]: [..., T - length + 1].

    Sums of 1, 2, 4 ... neighbors are put together, so that nothing is ever subtracted: after one huge value the small
    ones behind it keep their digits.
    """
    n = x.shape[-1] - length + 1
    total, begin, power = None, 0, 1
    part = x  # sums of ``power`` neighbors
    while True:
        if length & power:
            piece = part[..., begin : begin + n]
            total = piece if total is None else total + piece
            begin += power
        if 2 * power > length:
            break
        part = part[..., :-power] + part[..., power:]
        power *= 2
    assert total is not None
    return total


def window_maxima(x: Tensor, length: int) -> Tensor:
    """The largest of ``length`` neighbors of x [..., T]: [..., T - length + 1]."""
    n, power = x.shape[-1] - length + 1, 1
    while 2 * power <= length:
        x = torch.maximum(x[..., :-power], x[..., power:])
        power *= 2
    return torch.maximum(x[..., :n], x[..., length - power : length - power + n])


def spread(scores: Tensor, window: int) -> Tensor:
    """Scores of windows [..., n] to scores of steps [..., n + window - 1]: the mean over the windows that cover a step.

    The twin of ``prismts.models.detect_windows.spread``.
    """
    if window == 1:
        return scores
    beside = scores.new_zeros(*scores.shape[:-1], window - 1)
    padded = torch.cat([beside, scores, beside], dim=-1)
    known = torch.cat([torch.zeros_like(beside), torch.ones_like(scores), torch.zeros_like(beside)], dim=-1)
    return window_sums(padded, window) / window_sums(known, window)
