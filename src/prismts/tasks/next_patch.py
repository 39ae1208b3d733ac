"""Next patch: tell the steps that follow from those before them.

A decoder of language learns this at every place of a text at once, because none of its layers looks ahead. Our
encoders do look ahead: a convolution or an attention over the whole window has seen the answer. So the window is cut,
the encoder sees the part before the cut as a window of its own, and nothing else; each batch is cut at one place. It
costs one pass per place, which is the price of an encoder that reads in both directions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from prismts.errors import SettingsError, ShapeError
from prismts.layers.features import Features
from prismts.layers.normalize import InstanceNorm
from prismts.models.contract import Encoder
from prismts.tasks.pretraining import Pretraining, observed_of

__all__ = ["NextPatch", "NextPatchHead"]


class NextPatchHead(nn.Module):
    """The steps behind a window, from its last token that saw something and from the mean of all of them.

    The map begins at zero and is added to the last value, so that before training the answer is the last value again.
    """

    def __init__(self, width: int, n_steps: int, *, n_series: int = 1) -> None:
        super().__init__()
        self.n_steps, self.n_series = n_steps, n_series
        self.linear = nn.Linear(2 * width, n_series * n_steps)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Features) -> Tensor:
        """Features of windows to the ``n_steps`` behind them: [B, C, P]."""
        tokens, valid = features.tokens, features.valid
        place = torch.arange(valid.shape[-1], device=valid.device)
        last = torch.where(valid, place, 0).amax(-1)  # [B, G]
        newest = tokens.gather(2, last[..., None, None].expand(-1, -1, 1, tokens.shape[-1]))[:, :, 0]  # [B, G, D]
        counts = valid[..., None].to(tokens.dtype)
        mean = (tokens * counts).sum(2) / counts.sum(2).clamp(min=1)
        told = self.linear(torch.cat([newest, mean], dim=-1))  # [B, G, C/G*P]
        told = told.view(told.shape[0], -1, self.n_steps)  # [B, C, P]
        return InstanceNorm.inverse(features.window[..., -1:] + told, features.stats)


class NextPatch:
    """The task of telling the next steps of a window that is cut.

    Args:
        n_steps: how many are told; None takes the encoder's patch length.
        shortest: smallest share of the window that stays before the cut.
    """

    name = "next_patch"

    def __init__(self, *, n_steps: int | None = None, shortest: float = 0.5) -> None:
        if n_steps is not None and n_steps < 1:
            raise SettingsError(f"n_steps counts the steps to tell and is at least 1, but got {n_steps}.")
        if not 0 < shortest < 1:
            raise SettingsError(f"shortest is a share of the window, above 0 and below 1, but got {shortest}.")
        self.n_steps, self.shortest = n_steps, shortest

    def part(self, encoder: Encoder) -> NextPatchHead:
        """The head; an encoder that mixes channels answers for all of them at once."""
        together = encoder.n_channels if encoder.n_groups_of == "window" else 1
        return NextPatchHead(encoder.width, self.n_steps or encoder.patch_length, n_series=together or 1)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Mean squared error of the steps behind a cut that torch's own generator draws for the batch."""
        shortest, longest = self._cuts(model, batch)
        cut = int(torch.randint(shortest, longest + 1, ()))
        total, count = self._sums(model, batch, cut)
        return total / count.clamp(min=1)

    def errors(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Sum of squared errors of the last steps of all windows, and how many of them were observed."""
        return self._sums(model, batch, self._cuts(model, batch)[1])

    def _cuts(self, model: nn.Module, batch: Any) -> tuple[int, int]:
        """Fewest and most steps before the cut."""
        assert isinstance(model, Pretraining)
        head, n = model.parts[self.name], batch.context.shape[-1]
        assert isinstance(head, NextPatchHead)
        longest = n - head.n_steps
        if longest < model.encoder.patch_length:
            raise ShapeError(
                f"A window of {n} steps has no room for {head.n_steps} steps to tell behind a past of at least one "
                f"patch ({model.encoder.patch_length} steps). Take longer windows, or a smaller n_steps."
            )
        return min(longest, max(model.encoder.patch_length, round(self.shortest * n))), longest

    def _sums(self, model: nn.Module, batch: Any, cut: int) -> tuple[Tensor, Tensor]:
        assert isinstance(model, Pretraining)
        head = model.parts[self.name]
        assert isinstance(head, NextPatchHead)
        x, seen = batch.context, observed_of(batch)
        before, after = seen[..., :cut], seen[..., cut : cut + head.n_steps]
        told = head(model.encoder.encode(x[..., :cut], None if bool(before.all()) else before))
        counted = after & before.any(-1, keepdim=True)  # a past in which nothing was seen tells nothing
        error = (told - x[..., cut : cut + head.n_steps]).float().square()
        return error.masked_fill(~counted, 0.0).sum(), counted.sum()
