"""Which observed points to hide: drawn for training, or laid out so that every point is hidden once.

A mask is bool [B, C, T], True where a point is hidden. Only observed points are hidden, and of every window with an
observed point at least one stays. Shares are met in expectation over the observed points of all windows, not exactly in
each: every draw below hides each point with this probability, whatever it does to its neighbors.

All draws are made on the CPU, from a generator or from torch's own, so that the same seed hides the same points on any
device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Protocol

import torch
from torch import Tensor

from prismts.errors import SettingsError

__all__ = ["MASKS", "Blocks", "Channels", "Hide", "OneOf", "Points", "Stretches", "complementary"]

Share = float | tuple[float, float]


class Hide(Protocol):
    """A way to hide observed points."""

    def __call__(self, observed: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The hidden points [B, C, T] of windows whose observed points are given."""
        ...


@dataclass(frozen=True)
class Points:
    """Single points, each by its own coin.

    ``share`` of the points that are hidden, or two of them, between which every window draws its own.
    """

    share: Share = (0.1, 0.6)

    def __post_init__(self) -> None:
        _check_share(self.share)

    def __call__(self, observed: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The hidden points [B, C, T] of windows whose observed points are given."""
        share = _shares(self.share, len(observed), generator)
        return _only_observed(_uniform(observed.shape, generator) < share, observed, generator)


@dataclass(frozen=True)
class Blocks:
    """Spans of neighboring points, drawn for every channel by itself, or for all channels at once with ``together``.

    ``length`` is the mean number of steps of a span; the lengths are geometric: at each step a hidden span ends with
    the same chance. (Spans shorter on average than a coin per point would give are not possible and become just that.)
    """

    share: Share = (0.1, 0.6)
    length: float = 12.0
    together: bool = False

    def __post_init__(self) -> None:
        _check_share(self.share)
        if not isinstance(self.length, Real) or not self.length >= 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise SettingsError(f"length counts the steps of a hidden span and is at least 1, but got {self.length}.")

    def __call__(self, observed: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The hidden points [B, C, T] of windows whose observed points are given."""
        batch, n_channels, n = observed.shape
        share = _shares(self.share, batch, generator)  # [B, 1, 1]
        shape = (batch, 1 if self.together else n_channels, n)
        # A chain of two states: at a renewal the state is drawn anew with its share, else it stays. A hidden span then
        # ends with the chance (renewal) * (1 - share) per step, which is one over its mean length.
        renewal = (1 / (self.length * (1 - share))).clamp(max=1.0)
        renewed = _uniform(shape, generator) < renewal
        renewed[..., 0] = True
        latest = torch.where(renewed, torch.arange(n), 0).cummax(-1).values
        hidden = (_uniform(shape, generator) < share).gather(-1, latest)
        return _only_observed(hidden.expand(batch, n_channels, n), observed, generator)


@dataclass(frozen=True)
class Stretches(Blocks):
    """Spans over which every channel is hidden at once: nothing but the past and the future is left to judge by."""

    together: bool = True


@dataclass(frozen=True)
class Channels:
    """Whole channels; of several channels at least one stays, so that there is something to judge them by.

    A window of one channel keeps a single point of it.
    """

    share: Share = (0.1, 0.6)

    def __post_init__(self) -> None:
        _check_share(self.share)

    def __call__(self, observed: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The hidden points [B, C, T] of windows whose observed points are given."""
        share = _shares(self.share, len(observed), generator)
        key = _uniform((*observed.shape[:2], 1), generator)  # [B, C, 1]
        seen = observed.cpu().any(-1, keepdim=True)
        hidden = (key < share) & seen
        stays = torch.where(seen, key, -1.0)
        stays = stays == stays.amax(1, keepdim=True)  # the channel that would be hidden last
        return _only_observed((hidden & ~stays if observed.shape[1] > 1 else hidden).expand(observed.shape), observed,
                              generator)  # fmt: skip


@dataclass(frozen=True)
class OneOf:
    """Several ways to hide, of which every window draws one, all with the same chance."""

    kinds: Sequence[Hide]

    def __post_init__(self) -> None:
        if not self.kinds:
            raise SettingsError("OneOf draws among ways to hide points, but got none. Give at least one.")

    def __call__(self, observed: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The hidden points [B, C, T] of windows whose observed points are given."""
        which = torch.randint(len(self.kinds), (len(observed),), generator=generator).to(observed.device)
        hidden = torch.zeros_like(observed)
        for k, hide in enumerate(self.kinds):
            rows = (which == k).nonzero()[:, 0]
            if len(rows):
                hidden[rows] = hide(observed[rows], generator)
        return hidden


MASKS: dict[str, type[Points | Blocks | Channels]] = {
    "points": Points,
    "blocks": Blocks,
    "stretches": Stretches,
    "channels": Channels,
}


def complementary(
    n_channels: int, n_timepoints: int, *, n_parts: int = 4, length: int = 8, together: bool = True
) -> Tensor:
    """Masks that hide every point exactly once between them: [M, C, T] bool, M = ``n_parts``.

    Time is cut into blocks of ``length`` steps, and part m hides every ``n_parts``-th of them, beginning with number m.
    Together, all channels of a block are hidden at once; else channel c is shifted by c blocks, so that a point is
    judged while some of the other channels are seen at its time. Nothing here is random.
    """
    if n_parts < 2 or length < 1:
        raise SettingsError(
            f"Complementary masks need n_parts >= 2, or a part would hide everything, and blocks of length >= 1, but "
            f"got {n_parts} and {length}."
        )
    block = torch.arange(n_timepoints) // length  # [T]
    shift = torch.zeros(n_channels, dtype=torch.long) if together else torch.arange(n_channels)
    turn = (block + shift[:, None]) % n_parts  # [C, T]
    return turn == torch.arange(n_parts)[:, None, None]


def _check_share(share: Share) -> None:
    low, high = share if isinstance(share, tuple | list) else (share, share)
    if not all(isinstance(one, Real) for one in (low, high)) or not 0 < low <= high < 1:
        raise SettingsError(
            f"share is the part of the observed points to hide, above 0 and below 1, or a rising pair of such, but got "
            f"{share}."
        )


def _shares(share: Share, n: int, generator: torch.Generator | None) -> Tensor:
    """The share of each of n windows: [n, 1, 1]."""
    if not isinstance(share, tuple | list):
        return torch.full((n, 1, 1), float(share))
    low, high = share
    return low + (high - low) * _uniform((n, 1, 1), generator)


def _uniform(shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
    return torch.rand(tuple(shape), generator=generator)


def _only_observed(hidden: Tensor, observed: Tensor, generator: torch.Generator | None) -> Tensor:
    """What of ``hidden`` was observed, less one point, drawn at random, in windows that would lose them all."""
    hidden = hidden.to(observed.device) & observed
    bare = ~(observed & ~hidden).flatten(1).any(1) & observed.flatten(1).any(1)  # [B]
    # drawn in any case, so that one window's mask does not depend on what happened to another
    key = _uniform((len(observed), observed[0].numel()), generator).to(observed.device)  # [B, C*T]
    kept = torch.where(observed.flatten(1), key, -1.0).argmax(1)  # [B]
    spared = torch.zeros_like(hidden).flatten(1)
    spared[torch.arange(len(spared), device=spared.device), kept] = bare
    return hidden & ~spared.view_as(hidden)
