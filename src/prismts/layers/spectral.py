"""What rhythms a window has: the energy of its bands, told to its tokens."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SpectrumBranch", "band_energies"]

LOWEST = 1 / 1024  # cycles per step at the center of the lowest band; the highest lies at 1/2
_LOUDNESS = 100.0  # energies of a window at scale 1 lie between 0 and 1: this spreads them before the logarithm


def band_energies(x: Tensor, n_bands: int) -> Tensor:
    """How the variance of windows [B, C, T] is shared out among bands of frequency: [B, C, K], which sum to it.

    The centers of the bands are spread evenly over the logarithm of the frequency, from ``LOWEST`` to 1/2 cycles per
    step, whatever T is, so that a band means the same in windows of any length. A frequency between two centers counts
    for both, by its distance to each; one below the lowest counts for that one.
    """
    n = x.shape[-1]
    amplitude = torch.fft.rfft(x, dim=-1).abs()[..., 1:] / n  # [B, C, F] without the mean
    place = torch.arange(1, n // 2 + 1, device=x.device, dtype=x.dtype)  # F of them
    both_sides = torch.where(2 * place == n, 1.0, 2.0).to(x.dtype)  # all but the highest stand for two
    height = (place / (n * LOWEST)).log2() * ((n_bands - 1) / -math.log2(2 * LOWEST))
    height = height.clamp(0, n_bands - 1)
    band = torch.arange(n_bands, device=x.device, dtype=x.dtype)
    share = (1 - (height[:, None] - band).abs()).clamp(min=0)  # [F, K], rows sum to 1
    return (amplitude.square() * both_sides) @ share


class SpectrumBranch(nn.Module):
    """The spectrum of the whole window stretches and shifts every token: a patch is read in the light of its rhythm.

    Real Fourier transform, energies of K bands, their logarithms through a small network to a scale and a shift for
    each width (as in FiLM, Perez et al., AAAI 2018), which begin at none. Phases are left to the tokens, which have
    them. Gaps are bridged before, as for the patches. No layer is bound to a length.
    """

    def __init__(self, n_bands: int, width: int) -> None:
        super().__init__()
        self.n_bands = n_bands
        self.read = nn.Linear(n_bands, width)
        self.tell = nn.Linear(width, 2 * width)
        nn.init.zeros_(self.tell.weight)
        nn.init.zeros_(self.tell.bias)

    def forward(self, tokens: Tensor, window: Tensor) -> Tensor:
        """Tokens [B, C, N, D] of windows [B, C, T] without gaps to [B, C, N, D]."""
        bands = torch.log1p(_LOUDNESS * band_energies(window, self.n_bands))  # [B, C, K]
        stretch, shift = self.tell(F.gelu(self.read(bands)))[:, :, None].chunk(2, dim=-1)  # [B, C, 1, D] each
        return tokens * (1 + stretch) + shift
