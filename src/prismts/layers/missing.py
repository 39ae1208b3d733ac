"""Read over what was not observed."""

from __future__ import annotations

import torch
from torch import Tensor

from prismts.layers.normalize import InstanceNorm, Stats

__all__ = ["bridge", "read_window"]


def bridge(x: Tensor, observed: Tensor | None) -> Tensor:
    """Join observed neighbors by straight lines, and continue the first and last of them to the ends.

    x [..., T] and its mask [..., T] give [..., T]. Where nothing was observed at all, the result is 0. The joined
    values are what a linear reader (a patch sampler, a convolution) sees between two measurements; the mask still says
    which points were measured.
    """
    if observed is None:
        return x
    n = x.shape[-1]
    place = torch.arange(n, device=x.device)
    left = torch.where(observed, place, -1).cummax(-1).values  # last observed place at or before
    right = torch.where(observed, place, n).flip(-1).cummin(-1).values.flip(-1)  # first one at or after
    has_left, has_right = left >= 0, right < n
    left = torch.where(has_left, left, right.clamp(max=n - 1))
    right = torch.where(has_right, right, left)
    x = x.masked_fill(~observed, 0.0)
    before, after = x.gather(-1, left), x.gather(-1, right)
    share = (place - left).to(x.dtype) / (right - left).clamp(min=1).to(x.dtype)
    return torch.where(observed, x, before + share * (after - before))


def read_window(x: Tensor, observed: Tensor | None, normalize: InstanceNorm | None) -> tuple[Tensor, Stats]:
    """The window [B, C, T] without gaps, in its own level and scale where they are taken away."""
    if normalize is not None:
        x, stats = normalize(x, observed)
        return bridge(x, observed), stats
    one = torch.ones_like(x[..., :1])
    x = x if observed is None else x.masked_fill(~observed, 0.0)
    return bridge(x, observed), Stats(torch.zeros_like(one), one)
