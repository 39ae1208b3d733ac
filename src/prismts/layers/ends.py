"""Windows that end before others of their batch: how many of their tokens count, and what stands behind the last one.

A model that mixes channels reads a window up to its last observed step. Behind it, a padded case and a case that was
never padded must look alike, whatever cuts them into tokens: what a slice needs to be whole is the last value, held.
"""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["hold", "n_slices", "n_steps", "seen_by_tokens", "within"]


@overload
def n_slices(n: int, length: int, stride: int) -> int: ...
@overload
def n_slices(n: Tensor, length: int, stride: int) -> Tensor: ...
def n_slices(n: int | Tensor, length: int, stride: int) -> int | Tensor:
    """How many slices cover ``n`` places (a number, or one for each window), the last one filled up; at least one."""
    more = -((length - n) // stride)  # rounded up
    return more.clamp(min=0) + 1 if isinstance(more, Tensor) else max(0, more) + 1


def n_steps(observed: Tensor) -> Tensor:
    """Steps of each window up to the last one at which any channel was observed: [B] from [B, C, T]; at least one."""
    step = torch.arange(1, observed.shape[-1] + 1, device=observed.device)
    return (observed.any(1) * step).amax(-1).clamp(min=1)


def within(n: Tensor, size: int) -> Tensor:
    """Which of ``size`` places are among the first ``n``: [..., size] bool from n [...]."""
    return torch.arange(size, device=n.device) < n[..., None]


def hold(x: Tensor, n: Tensor) -> Tensor:
    """Let every place behind the first ``n`` repeat the n-th: x [..., N], with n broadcast against x[..., 0]."""
    place = torch.minimum(torch.arange(x.shape[-1], device=x.device), n[..., None] - 1)
    return x.gather(-1, place.expand_as(x))


def seen_by_tokens(observed: Tensor, n_tokens: int, length: int, stride: int) -> Tensor:
    """Which tokens cover an observed step: [..., N] from [..., T]; token i covers ``length`` steps from i * stride."""
    padding = (n_tokens - 1) * stride + length - observed.shape[-1]
    return F.pad(observed, (0, padding)).unfold(-1, length, stride).any(-1)
