"""Read a series at any moment between its measurements, whenever these were taken."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["read_at", "seen_at"]

_HALF = 0.5 + 1e-4  # steps; the least bit more than a half, so that rounding never makes a regular series look gapped


def read_at(x: Tensor, observed: Tensor | None, times: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """What x [B, C, R], measured at ``times`` [B, R], was at ``places`` [B, C, M], and whether it was seen.

    Two of [B, C, M]. Times and places are in steps of the series, not rounded; times rise or stay within a window.
    Between the last observed point at or before a place and the first one behind it runs a straight line; before the
    first and behind the last one their values go on; where a channel was never observed, the value is 0. A place counts
    as seen where a measurement lies within half a step of it, so that every place of a regular series does.

    ``observed`` [B, C, R] marks the rows that count (None: all); values behind it do not matter. At times 0, 1, 2 ...
    this is ``sample_linear`` of the bridged window.
    """
    n_rows = x.shape[-1]
    observed = torch.ones_like(x, dtype=torch.bool) if observed is None else observed
    row = torch.arange(n_rows, device=x.device)
    before = torch.where(observed, row, -1).cummax(-1).values  # [B, C, R] last observed row at or before
    behind = torch.where(observed, row, n_rows).flip(-1).cummin(-1).values.flip(-1)  # first one at or after
    where = places.detach()
    # rows at or before each place: 0 to R
    at = torch.searchsorted(times.to(where.dtype).contiguous(), where.flatten(1).contiguous(), right=True)
    at = at.view(where.shape)
    left = torch.where(at > 0, before.gather(-1, (at - 1).clamp(min=0)), -1)
    right = torch.where(at < n_rows, behind.gather(-1, at.clamp(max=n_rows - 1)), n_rows)
    has_left, has_right = left >= 0, right < n_rows
    i = torch.where(has_left, left, right).clamp(max=n_rows - 1)
    j = torch.where(has_right, right, left).clamp(min=0)
    clock = times.to(where.dtype)[:, None].expand(*x.shape[:2], n_rows)
    start, end = clock.gather(-1, i), clock.gather(-1, j)
    x = x.masked_fill(~observed, 0.0)
    first, last = x.gather(-1, i), x.gather(-1, j)
    between = has_left & has_right
    share = torch.where(between, (places - start) / torch.where(between, end - start, torch.ones_like(end)), 0.0)
    near = (has_left & (where - start <= _HALF)) | (has_right & (end - where <= _HALF))
    return first + share * (last - first), near


def seen_at(observed: Tensor, places: Tensor) -> Tensor:
    """Whether a measurement lies within half a step of ``places`` [B, C, M], on a grid with a mask [B, C, T].

    The plain twin of what ``read_at`` says of the same points at times 0, 1, 2 ...
    """
    last = observed.shape[-1] - 1
    left = places.detach().floor().clamp(0, max(last - 1, 0))
    share = places.detach() - left
    left = left.long()
    before, behind = observed.gather(-1, left), observed.gather(-1, (left + 1).clamp(max=last))
    return (before & (share <= _HALF)) | (behind & (1 - share <= _HALF))
