"""From tokens back to the steps they were made of."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from prismts.errors import SettingsError, ShapeError
from prismts.layers.dropout import Dropout
from prismts.layers.features import Features
from prismts.layers.normalize import InstanceNorm

__all__ = ["DecodeHead", "coverage", "fold"]


def coverage(n_tokens: int, patch_length: int, stride: int, n_timepoints: int, device: torch.device) -> Tensor:
    """How many tokens write each of the first ``n_timepoints`` steps: [T], whole numbers.

    Token i writes the steps from ``i * stride`` to ``i * stride + patch_length - 1``.
    """
    step = torch.arange(n_timepoints, device=device)
    last = torch.div(step, stride, rounding_mode="floor").clamp(max=n_tokens - 1)
    first = torch.div(step - patch_length + stride, stride, rounding_mode="floor").clamp(min=0)  # rounded up
    return (last - first + 1).clamp(min=0)


def fold(patches: Tensor, stride: int, n_timepoints: int) -> Tensor:
    """Lay patches where they were cut and average where they overlap: [B, C, N, P] to [B, C, T].

    The inverse of cutting: patches of a window, cut by ``unfold``, give that window.
    """
    n, length = patches.shape[-2:]
    count = coverage(n, length, stride, n_timepoints, patches.device)
    flat = rearrange(patches, "b c n p -> (b c) p n")
    whole = (n - 1) * stride + length
    summed = F.fold(flat, (1, whole), (1, length), stride=(1, stride))  # [B*C, 1, 1, whole]
    return summed.view(*patches.shape[:2], whole)[..., :n_timepoints] / count


class DecodeHead(nn.Module):
    """Each token writes the steps it covers, beside straight lines between the observed points: [B, C, T].

    Where steps are covered by several tokens, the tokens' answers are averaged. What they say is added to the window as
    it was bridged for the encoder, by a map that begins at zero: before training, the reconstruction is the linear
    interpolation of what was observed. No layer is bound to a length, so that windows of any number of steps work.

    Args:
        width: D.
        patch_length, stride: steps covered by a token, and from one token to the next.
        n_series: C where one group of tokens answers for all channels, 1 where each channel has its own.
        dropout: on the tokens.
    """

    def __init__(self, width: int, patch_length: int, stride: int, *, n_series: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        if stride > patch_length:
            raise SettingsError(
                f"Tokens of {patch_length} steps that begin every {stride} steps leave steps that no token covers, so "
                f"these cannot be reconstructed. Set stride to at most {patch_length}."
            )
        self.patch_length, self.stride, self.n_series = patch_length, stride, n_series
        self.dropout = Dropout(dropout)
        self.linear = nn.Linear(width, n_series * patch_length)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Features) -> Tensor:
        """Features to [B, C, T], in the units the model was given."""
        return InstanceNorm.inverse(features.window + self.network(features), features.stats)

    def network(self, features: Features) -> Tensor:
        """What the tokens add to the straight lines, in units of the normalized window: [B, C, T]."""
        n_timepoints, n = features.window.shape[-1], features.tokens.shape[2]
        if (n - 1) * self.stride + self.patch_length < n_timepoints:
            raise ShapeError(
                f"{n} tokens of {self.patch_length} steps, one every {self.stride}, cover "
                f"{(n - 1) * self.stride + self.patch_length} steps, but the window has {n_timepoints}. Build the head "
                "with the encoder's own patch_length and stride."
            )
        patches = self.linear(self.dropout(features.tokens))  # [B, G, N, C/G*P]
        patches = rearrange(patches, "b g n (c p) -> b (g c) n p", c=self.n_series)
        return fold(patches, self.stride, n_timepoints)
