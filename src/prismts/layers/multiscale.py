"""Patches of several lengths at once, on one grid of tokens."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from prismts.layers.instants import read_at, seen_at
from prismts.layers.patch import DePatch, PatchBounds, UniformPatch, pad_end, sample_linear

__all__ = ["MultiScalePatch", "Points"]


class Points(NamedTuple):
    """Measurements as they were taken, instead of a window on a grid."""

    values: Tensor  # [B, C, R] normalized
    observed: Tensor | None  # [B, C, R] bool; None where all rows count
    times: Tensor  # [B, R] in steps since the first step of the window, rising


class MultiScalePatch(nn.Module):
    """Around every token a patch of each length, embedded each by itself, and a choice among them for every token.

    Token n covers the shortest patch, from step ``n * stride`` on; the longer ones have the same middle and reach over
    its ends, and over those of the window, whose first and last values go on there. Each patch becomes a vector by a
    linear map of its length, and the token is their mean weighed by a softmax of learned scores of these vectors. (A
    plain sum of linear maps would be one map of the longest patch.) Scores begin equal.

    The bias of each map counts by the share of its patch that was observed: this is how a token carries how much of it
    is interpolated. Deformable patches (``DePatch``) have a predictor for each length.
    """

    def __init__(self, lengths: tuple[int, ...], stride: int, width: int, *, deformable: bool) -> None:
        super().__init__()
        self.lengths, self.stride = lengths, stride
        self.cuts = nn.ModuleList(
            DePatch(length, stride) if deformable else UniformPatch(length, stride) for length in lengths
        )
        self.embed = nn.ModuleList(nn.Linear(length, width, bias=False) for length in lengths)
        bound = 1 / torch.tensor(lengths, dtype=torch.float32).sqrt()[:, None]  # [S, 1], as torch draws a bias
        self.bias = nn.Parameter((2 * torch.rand(len(lengths), width) - 1) * bound)  # [S, D]
        self.weigh = nn.Parameter(torch.zeros(len(lengths), width)) if len(lengths) > 1 else None  # [S, D]

    def n_tokens(self, n_timepoints: int) -> int:
        """N: as many patches as cover every step of a window of this length."""
        return 1 + max(0, math.ceil((n_timepoints - self.lengths[0]) / self.stride))

    def forward(self, window: Tensor, observed: Tensor | None = None, points: Points | None = None) -> Tensor:
        """Windows without gaps [B, C, T], and what of them was observed, to tokens [B, C, N, D].

        With ``points``, deformable patches are read from the measurements themselves, at the moments they chose.
        """
        found: list[Tensor] = []
        for scale, embed in enumerate(self.embed):
            patches, share = self._cut(scale, window, observed, points)
            bias = self.bias[scale] if share is None else share[..., None].to(window.dtype) * self.bias[scale]
            found.append(embed(patches) + bias)
        if self.weigh is None:
            return found[0]
        tokens = torch.stack(found, dim=-2)  # [B, C, N, S, D]
        weight = (tokens * self.weigh).sum(-1, keepdim=True).softmax(-2)
        return (weight * tokens).sum(-2)

    def bounds(self, window: Tensor) -> tuple[PatchBounds, ...]:
        """Where the patches of each length lie in windows [B, C, T], in steps; negative before the first one."""
        found: list[PatchBounds] = []
        for cut, (before, behind) in zip(self.cuts, self._reach(window.shape[-1]), strict=True):
            assert isinstance(cut, DePatch | UniformPatch)
            left, right = cut.bounds(_padded(window, before, behind))
            found.append(PatchBounds(left - before, right - before))
        return tuple(found)

    def _reach(self, n_timepoints: int) -> list[tuple[int, int]]:
        """Steps before and behind the window that the patches of each length need."""
        short = self.lengths[0]
        fill = (self.n_tokens(n_timepoints) - 1) * self.stride + short - n_timepoints  # completes the last patch
        befores = [(length - short) // 2 for length in self.lengths]
        return [(a, length - short - a + fill) for length, a in zip(self.lengths, befores, strict=True)]

    def _cut(
        self, scale: int, window: Tensor, observed: Tensor | None, points: Points | None
    ) -> tuple[Tensor, Tensor | None]:
        """The patches of one length [B, C, N, P], and the share of each that was observed [B, C, N] (None: all)."""
        cut, (before, behind) = self.cuts[scale], self._reach(window.shape[-1])[scale]
        x = _padded(window, before, behind)
        seen = None if observed is None else _padded(observed, before, behind)
        if isinstance(cut, UniformPatch):
            return cut(x), None if seen is None else cut(seen).to(x.dtype).mean(-1)
        assert isinstance(cut, DePatch)
        if seen is None and points is None:
            return cut(x), None
        left, right = cut.bounds(x)  # [B, C, N]
        along = torch.linspace(0, 1, cut.patch_length, device=x.device, dtype=left.dtype)
        places = (left[..., None] + (right - left)[..., None] * along).flatten(2)  # [B, C, N*P]
        if points is None:
            assert seen is not None
            values, near = sample_linear(x, places), seen_at(seen, places)
        else:
            inside = (places - before).clamp(0, window.shape[-1] - 1)
            values, near = read_at(points.values, points.observed, points.times, inside)
        shape = (left.shape[-1], cut.patch_length)
        return values.unflatten(-1, shape), near.unflatten(-1, shape).to(x.dtype).mean(-1)


def _padded(x: Tensor, before: int, behind: int) -> Tensor:
    """[..., T] with its first value repeated before it and its last one behind it."""
    first = x[..., :1].expand(*x.shape[:-1], before)
    return pad_end(torch.cat([first, x], dim=-1) if before else x, behind)
