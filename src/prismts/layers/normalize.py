"""Take a window's own level and scale away, and give them back."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["InstanceNorm", "Stats", "norm_weighed"]


class Stats(NamedTuple):
    """What normalization took away: it travels with the data."""

    mean: Tensor  # [B, C, 1]
    scale: Tensor  # [B, C, 1], > 0


class InstanceNorm(nn.Module):
    """Take each window's own level and scale away; give them back on the return trip.

    The statistics travel with the data, so one instance serves interleaved batches. Only observed values count; a
    window in which nothing was observed keeps mean 0 and scale 1.
    Source: Kim et al., ICLR 2022 (RevIN). Unlike the paper, no affine map is learned, as in the authors' ConvTimeNet.
    """

    eps = 1e-5  # keeps a flat window finite

    def forward(self, x: Tensor, observed: Tensor | None = None) -> tuple[Tensor, Stats]:
        """[B, C, T] to the same shape at mean 0 and scale 1, with Stats of [B, C, 1]; unobserved places become 0."""
        if observed is None:
            var, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
            stats = Stats(mean, scale=(var + self.eps).sqrt())
            return (x - stats.mean) / stats.scale, stats
        x = x.masked_fill(~observed, 0.0)
        count = observed.sum(-1, keepdim=True)
        mean = x.sum(-1, keepdim=True) / count.clamp(min=1)
        centered = (x - mean).masked_fill(~observed, 0.0)
        var = centered.square().sum(-1, keepdim=True) / count.clamp(min=1)
        scale = torch.where(count > 0, (var + self.eps).sqrt(), torch.ones_like(var))
        return centered / scale, Stats(mean, scale)

    @staticmethod
    def inverse(y: Tensor, stats: Stats) -> Tensor:
        """[B, C, H] back in the units of the series."""
        return y * stats.scale + stats.mean


def norm_weighed(norm: nn.BatchNorm1d, rows: Tensor, weight: Tensor) -> Tensor:
    """Batch normalization of rows [L, D] in training, by the statistics of those whose ``weight`` [L] is 1 and not 0.

    The same as picking these rows out, running statistics too, but without a shape that depends on how many they are,
    which torch could not stack over several networks.
    """
    assert norm.running_mean is not None and norm.running_var is not None
    assert norm.num_batches_tracked is not None and norm.momentum is not None
    count = weight.sum()
    mean = (rows * weight[:, None]).sum(0) / count  # [D]
    centered = rows - mean
    var = (centered.square() * weight[:, None]).sum(0) / count
    with torch.no_grad():
        norm.num_batches_tracked.add_(1)
        unbiased = var * count / (count - 1).clamp(min=1)
        for running, new in ((norm.running_mean, mean), (norm.running_var, unbiased)):
            running.mul_(1 - norm.momentum).add_(norm.momentum * new.to(running))
    return centered * (var + norm.eps).rsqrt() * norm.weight + norm.bias
