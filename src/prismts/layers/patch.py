"""Cut a window into patches: at fixed places, at places the data choose, or one point each."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prismts.errors import SettingsError, unknown_name

__all__ = ["DePatch", "PatchBounds", "UniformPatch", "n_patches", "n_patches_within", "pad_end", "sample_linear"]


class PatchBounds(NamedTuple):
    """First and last place of each patch, in time steps of the padded window, not rounded."""

    left: Tensor  # [B, G, N]
    right: Tensor  # [B, G, N], left <= right


def n_patches(n_timepoints: int, patch_length: int, stride: int) -> int:
    """How many patches lie wholly within a window."""
    return (n_timepoints - patch_length) // stride + 1


def n_patches_within(n_timepoints: int, patch_length: int, stride: int, *, padding: int = 0) -> int:
    """The same for a window with ``padding`` steps more; that there is none is an error for who sets the lengths."""
    n = n_patches(n_timepoints + padding, patch_length, stride)
    if n < 1:
        raise SettingsError(
            f"A window of {n_timepoints} steps has no room for a patch of {patch_length}. Shorten patch_length, or "
            "lengthen context_length."
        )
    return n


def pad_end(x: Tensor, n: int) -> Tensor:
    """[..., T] to [..., T+n] by repeating the last value."""
    return torch.cat([x, x[..., -1:].expand(*x.shape[:-1], n)], dim=-1) if n else x


def sample_linear(x: Tensor, places: Tensor) -> Tensor:
    """Values of x between its points: x [B, C, T] at places [B, C, M] in [0, T-1] give [B, C, M].

    The plain twin of this is grid_sample with align_corners; a gather of the two neighbors needs no detour over
    pictures, and exports.
    """
    last = x.shape[-1] - 1
    left = places.detach().floor().clamp(0, max(last - 1, 0))
    share = places - left
    left = left.long()
    before, after = x.gather(-1, left), x.gather(-1, (left + 1).clamp(max=last))
    return before + share * (after - before)


class UniformPatch(nn.Module):
    """Patches at fixed places: [B, C, T] to [B, C, N, P]. With length and stride 1, every point is a token."""

    def __init__(self, patch_length: int, stride: int) -> None:
        super().__init__()
        self.patch_length, self.stride = patch_length, stride

    def forward(self, x: Tensor, last: Tensor | None = None) -> Tensor:
        """[B, C, T] to [B, C, N, P]; fixed patches need not know where windows end."""
        return x.unfold(-1, self.patch_length, self.stride)

    def bounds(self, x: Tensor, last: Tensor | None = None) -> PatchBounds:
        """Where the patches of x [B, C, T] lie."""
        n = n_patches(x.shape[-1], self.patch_length, self.stride)
        left = torch.arange(n, device=x.device, dtype=x.dtype) * self.stride
        left = left.expand(*x.shape[:2], n)
        return PatchBounds(left, left + (self.patch_length - 1))


class DePatch(nn.Module):
    """Patches at places the data choose: each patch looks at itself, then moves its center and changes its width.

    A small predictor (convolution over the patch, GELU, 1x1) gives a center shift and a half-width change in time
    steps. The bounds are clamped to the window, and the patch is sampled at P places spread evenly between them.

    ``n_channels=1`` reads each channel by itself with shared weights; a larger number reads that many channels at once
    and moves them together.

    ``zero_init="last"`` lets both outputs begin at zero, so that training begins at uniform patches. ``"all"`` repeats
    the authors' forecasting code, which sets both layers of the predictor to zero: then neither layer's weights ever
    receive a gradient, and all that is ever learned is one shift and one width for all patches. ``"none"`` is their
    classification code: patches begin at random places.
    Source: Cheng et al., ConvTimeNet, arXiv 2403.01493, and the authors' code. Unlike it, a shift that is not a number
    or beyond the window is brought back into it first, so that no input can produce NaN or leave the window.
    """

    width = 64  # of the predictor, as in the authors' code

    def __init__(self, patch_length: int, stride: int, *, n_channels: int = 1, zero_init: str = "last") -> None:
        super().__init__()
        self.patch_length, self.stride, self.n_channels = patch_length, stride, n_channels
        self.look = nn.Conv1d(n_channels, self.width, patch_length, stride=stride)
        self.move = nn.Conv1d(self.width, 2, 1)
        zeroed = {"none": [], "last": [self.move], "all": [self.look, self.move]}
        if zero_init not in zeroed:
            raise unknown_name("zero_init", zero_init, zeroed)
        for layer in zeroed[zero_init]:
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def offsets(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Center shift and half-width change of each patch, in time steps: two of [B, G, N] from [B, C, T]."""
        batch, n_channels = x.shape[:2]
        groups = n_channels // self.n_channels
        patches = x.reshape(batch * groups, self.n_channels, -1).unfold(-1, self.patch_length, self.stride)
        # both convolutions as products over rows that lie together: same numbers, and the GELU and its gradient keep
        # one layout, without which torch goes value by value
        rows = patches.transpose(1, 2).flatten(2)  # [B*G, N, C*P]
        seen = F.gelu(F.linear(rows, self.look.weight.flatten(1), self.look.bias))
        moved = F.linear(seen, self.move.weight[..., 0], self.move.bias)  # [B*G, N, 2]
        moved = moved.unflatten(0, (batch, groups))
        return moved[..., 0], moved[..., 1]

    def bounds(self, x: Tensor, last: Tensor | None = None) -> PatchBounds:
        """Where the patches of x [B, C, T] lie after they moved: within the window, or up to ``last`` [B, 1, 1]."""
        shift, widen = self.offsets(x)
        edge = x.shape[-1] - 1
        half = (self.patch_length - 1) / 2
        n = shift.shape[-1]
        center = torch.arange(n, device=x.device, dtype=shift.dtype) * self.stride + half
        reach = 2.0 * x.shape[-1]  # further than any bound can matter
        shift = shift.nan_to_num(0.0, reach, -reach).clamp(-reach, reach)
        widen = widen.nan_to_num(0.0, reach, -reach).clamp(-reach, reach)
        half_width = torch.relu(widen + half)
        center = center + shift
        left, right = (center - half_width).clamp(0, edge), (center + half_width).clamp(0, edge)
        return PatchBounds(left, right) if last is None else PatchBounds(left.minimum(last), right.minimum(last))

    def forward(self, x: Tensor, last: Tensor | None = None) -> Tensor:
        """[B, C, T] to [B, C, N, P]; ``last`` [B, 1, 1] is the last step of windows that end before T."""
        left, right = self.bounds(x, last)  # [B, G, N]
        along = torch.linspace(0, 1, self.patch_length, device=x.device, dtype=left.dtype)
        places = left[..., None] + (right - left)[..., None] * along  # [B, G, N, P]
        n = places.shape[2]
        places = places.flatten(2)  # [B, G, N*P]
        if places.shape[1] != x.shape[1]:
            places = places.repeat_interleave(self.n_channels, dim=1)  # [B, C, N*P]
        return sample_linear(x, places).unflatten(-1, (n, self.patch_length))
