"""Contrast: two disturbed views of a window are to be told from all views of other windows.

Source: InfoNCE of van den Oord et al., arXiv 1807.03748, in the two-sided form of Chen et al. (SimCLR), ICML 2020, over
views a and b of M windows, here between the views only (not among the views of one side):
``-log(exp(s(a_i, b_i) / t) / sum_j exp(s(a_i, b_j) / t))``, averaged over i and over both sides, s the cosine.
What is ours:

- every group of tokens (a channel, where channels stay apart) is a thing of its own, so that few windows of many
  channels give many comparisons; but other channels of the same window are never held against it, since they show the
  same event, nor are windows of the same series that overlap in time, where the batch tells series and start;
- a view is a crop, stretched back to the full length, with noise; points that were not observed stay so.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prismts.errors import SettingsError
from prismts.layers.features import Features
from prismts.layers.missing import bridge
from prismts.layers.patch import sample_linear
from prismts.models.contract import Encoder
from prismts.tasks.pretraining import Pretraining, observed_of, window_marks

__all__ = ["Contrast", "Projection", "info_nce", "stretched_crop"]


def info_nce(a: Tensor, b: Tensor, temperature: float, excluded: Tensor | None = None) -> Tensor:
    """The loss of each of M pairs, seen from both sides: [M] from vectors a and b [M, K] of length 1.

    ``excluded`` [M, M] marks pairs (i, j) that do not count as different; the diagonal always counts.
    """
    scores = (a @ b.T) / temperature  # [M, M]
    if excluded is not None:
        alone = torch.eye(len(a), dtype=torch.bool, device=a.device)
        scores = scores.masked_fill(excluded & ~alone, float("-inf"))
    true = scores.diagonal()
    return (scores.logsumexp(1) + scores.logsumexp(0)) / 2 - true


def stretched_crop(x: Tensor, observed: Tensor, begin: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """A crop of each window x [B, C, T], read at T places between its points; and what of it was observed.

    ``share`` [B] of the window remains, above 0 and at most 1; ``begin`` [B] from 0 (at the left end) to 1 (at the
    right end) says where it lies. A place counts as observed where both of its neighbors are.
    """
    batch, n_channels, n = x.shape
    span = (n - 1) * share  # [B]
    first = (n - 1 - span) * begin
    places = first[:, None] + span[:, None] * torch.linspace(0, 1, n, device=x.device)  # [B, T]
    places = places.clamp(0, n - 1)[:, None].expand(batch, n_channels, n)
    left, right = places.floor().long(), places.ceil().long()
    seen = observed.gather(-1, left) & observed.gather(-1, right)
    return sample_linear(bridge(x, observed), places).masked_fill(~seen, 0.0), seen


class Projection(nn.Module):
    """From tokens to the place where views are compared: mean over tokens that saw something, then two layers."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.rise, self.fall = nn.Linear(width, width), nn.Linear(width, size)

    def forward(self, features: Features) -> Tensor:
        """Features of [B, G, N, D] to vectors of length 1: [B, G, K]."""
        counts = features.valid[..., None].to(features.tokens.dtype)  # [B, G, N, 1]
        mean = (features.tokens * counts).sum(2) / counts.sum(2).clamp(min=1)
        return F.normalize(self.fall(F.gelu(self.rise(mean))), dim=-1)


class Contrast:
    """The task of finding the other view of a window among the views of all windows of a batch.

    Its loss depends on what else is in the batch, so validation losses compare for equal batch sizes only; a batch of
    B windows that says nothing has a loss near log(B * G).

    Args:
        crop: smallest and largest share of the window that a view shows. From 0.5 on, two views always meet in time.
        jitter: noise on a view, in units of the standard deviation of each channel's window.
        temperature: how sharply likeness is judged.
        size: K, of the vectors that are compared.
        seed: of the views of validation.
    """

    name = "contrastive"

    def __init__(
        self,
        *,
        crop: tuple[float, float] = (0.5, 1.0),
        jitter: float = 0.1,
        temperature: float = 0.1,
        size: int = 64,
        seed: int = 0,
    ) -> None:
        low, high = crop
        if not 0 < low <= high <= 1:
            raise SettingsError(f"crop is a rising pair of shares above 0 and up to 1, but got {crop}.")
        if jitter < 0 or temperature <= 0 or size < 1:
            raise SettingsError(
                f"jitter is not negative, temperature above 0 and size at least 1, but got {jitter}, {temperature}, "
                f"{size}."
            )
        self.crop, self.jitter, self.temperature, self.size, self.seed = (low, high), jitter, temperature, size, seed

    def part(self, encoder: Encoder) -> Projection:
        """The projection."""
        return Projection(encoder.width, self.size)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Mean loss over the pairs of a batch; views are drawn from torch's own generator."""
        return self._each(model, batch, None).mean()

    def errors(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Sum of the losses of all pairs, and how many there are; equal batches have equal views in every epoch."""
        generator = torch.Generator().manual_seed((self.seed + 1) * 1_000_003 + sum(window_marks(batch.context)))
        each = self._each(model, batch, generator)
        return each.sum(), torch.tensor(len(each))

    def views(self, batch: Any, generator: torch.Generator | None = None) -> list[tuple[Tensor, Tensor]]:
        """Two views of each window, [B, C, T] with their masks; draws are made on the CPU, so devices agree."""
        x, observed = batch.context, observed_of(batch)
        count = observed.sum(-1, keepdim=True).clamp(min=1)
        mean = x.masked_fill(~observed, 0.0).sum(-1, keepdim=True) / count
        scale = ((x - mean).masked_fill(~observed, 0.0).square().sum(-1, keepdim=True) / count).sqrt()  # [B, C, 1]
        found: list[tuple[Tensor, Tensor]] = []
        low, high = self.crop
        for _ in range(2):
            begin, share = torch.rand(2, len(x), generator=generator).to(x.device)
            noise = torch.randn(x.shape, generator=generator).to(x.device)
            view, seen = stretched_crop(x, observed, begin, low + (high - low) * share)
            found.append(((view + self.jitter * scale * noise).masked_fill(~seen, 0.0), seen))
        return found

    def _each(self, model: nn.Module, batch: Any, generator: torch.Generator | None) -> Tensor:
        """The loss of each pair that has something to see: [M]."""
        assert isinstance(model, Pretraining)
        project = model.parts[self.name]
        vectors: list[Tensor] = []
        alive: Tensor | None = None
        for view, seen in self.views(batch, generator):
            features = model.encoder.encode(view, None if bool(seen.all()) else seen)
            vectors.append(project(features).float())  # [B, G, K]
            some = features.valid.any(-1)  # [B, G]
            alive = some if alive is None else alive & some
        assert alive is not None
        rows = alive.flatten().nonzero()[:, 0]
        a, b = (vector.flatten(0, 1)[rows] for vector in vectors)  # [M, K]
        if not len(rows):
            return vectors[0].sum()[None] * 0.0
        window = rows // vectors[0].shape[1]
        return info_nce(a, b, self.temperature, _same_event(batch, window))


def _same_event(batch: Any, window: Tensor) -> Tensor:
    """Pairs [M, M] of the same window, or of windows of one series that overlap in time."""
    same = window[:, None] == window
    series, start = getattr(batch, "series", None), getattr(batch, "start", None)
    if series is None or start is None:
        return same
    series, start = series.to(window.device)[window], start.to(window.device)[window]
    near = (start[:, None] - start).abs() < batch.context.shape[-1]
    return same | ((series[:, None] == series) & near)
