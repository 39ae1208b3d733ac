"""Next patch, causally: at every token of a window at once, tell the patch behind it.

For encoders whose tokens know nothing of what comes behind them (``allm4ts``): one pass teaches as many answers as
there are tokens. ``prismts.tasks.next_patch`` is the same question for encoders that look ahead, one cut of a window at
a time. Source: stage 1 of aLLM4TS; see ``prismts.models.language_patchwise``. As there, a window is normalized by all
of it, so that level and scale of what is to be told are known; the steps themselves are not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from prismts.errors import SettingsError, ShapeError
from prismts.layers.missing import bridge
from prismts.layers.normalize import InstanceNorm, Stats
from prismts.models.contract import Encoder
from prismts.models.language_patchwise import PatchwiseEncoder
from prismts.tasks.pretraining import encoder_of, observed_of

__all__ = ["CausalPatch"]


class CausalPatch:
    """The task of telling the patch behind every token. Its map stays with the encoder, which forecasts by it later."""

    name = "causal_patch"
    comparable = True

    def part(self, encoder: Encoder) -> nn.Module:
        """Nothing beside the encoder, which brings its own map.

        Raises:
            SettingsError: the encoder is not causal.
        """
        if not isinstance(encoder, PatchwiseEncoder):
            raise SettingsError(
                f"The tokens of {type(encoder).__name__} have seen the steps behind them. Take 'allm4ts', or the task "
                "'next_patch', which cuts the window instead."
            )
        return nn.Identity()

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Mean squared error over the observed steps behind the tokens."""
        total, count = self._sums(model, batch)
        return total / count.clamp(min=1)

    def errors(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Sum of squared errors behind all tokens, and how many steps were observed there."""
        return self._sums(model, batch)

    def _sums(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        encoder = encoder_of(model)
        assert isinstance(encoder, PatchwiseEncoder)
        x, seen = batch.context, observed_of(batch)
        length, stride = encoder.patch_length, encoder.stride
        if x.shape[-1] < 2 * length:
            raise ShapeError(
                f"A window of {x.shape[-1]} steps has no room for a patch of {length} steps and the one behind it. "
                f"Take windows of at least {2 * length} steps."
            )
        every = bool(seen.all())
        normal, stats = encoder.normalize(x, None if every else seen)
        tokens, valid = encoder.of_stage(bridge(normal, None if every else seen), None if every else seen)
        target = x[..., length:].unfold(-1, length, stride)  # [B, C, N', P] behind the first N' tokens
        n = target.shape[2]
        told = encoder.decode(encoder.read(tokens[:, :, :n], None if valid is None else valid[:, :, :n]))
        told = InstanceNorm.inverse(told, Stats(stats.mean[..., None], stats.scale[..., None]))
        counted = seen[..., length:].unfold(-1, length, stride)
        if valid is not None:
            counted = counted & valid[:, :, :n, None]  # a token that saw nothing tells nothing
        error = torch.where(counted, told - target, torch.zeros_like(told)).float().square()
        return error.sum(), counted.sum()
