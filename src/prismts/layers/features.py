"""What an encoder gives and a head receives."""

from typing import NamedTuple

from torch import Tensor

from prismts.layers.normalize import Stats

__all__ = ["Features"]


class Features(NamedTuple):
    """The shared embedding of some windows. G is C where channels stay apart, and 1 where they are mixed."""

    tokens: Tensor  # [B, G, N, D]
    valid: Tensor  # [B, G, N] bool: the token saw at least one observed point
    window: Tensor  # [B, C, T] the normalized window the tokens were made from
    stats: Stats  # what normalization took away, [B, C, 1] each
