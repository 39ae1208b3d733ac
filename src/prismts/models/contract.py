"""What every encoder-based model gives: tokens, what of them is valid, and what is needed to find the way back."""

from __future__ import annotations

import copy
from typing import Any, Protocol, Self, runtime_checkable

from torch import Tensor, nn

from prismts.layers.features import Features
from prismts.layers.missing import bridge

__all__ = ["Borrower", "Encoder", "Features", "Mergeable"]


@runtime_checkable
class Mergeable(Protocol):
    """A part that has a quicker form for inference, with the same answers in evaluation."""

    def merged(self) -> nn.Module:
        """The quicker form; the part itself is left as it is."""
        ...


@runtime_checkable
class Borrower(Protocol):
    """A part with weights that are not its own: those of a pretrained network, which its ``source`` finds again."""

    source: str  # a name of the hub, or a folder
    form: dict[str, Any]  # in JSON: what the network can be built from, without its weights

    def borrowed(self) -> list[str]:
        """The names of these weights, as they stand in the part's ``state_dict``."""
        ...


class Encoder(nn.Module):
    """A model that embeds windows, and carries the head a task has chosen for it.

    Subclasses set the sizes and write ``encode``; a head receives ``Features`` through :meth:`forward`. Token n covers
    the ``patch_length`` steps from ``n * stride`` on, of the window padded at its end.
    """

    n_groups_of: str  # "channels": G = C; "window": G = 1
    n_tokens: int  # N at the context length it was built for
    width: int  # D
    context_length: int
    patch_length: int  # steps of a token
    stride: int  # from token to token
    stacks: bool = True  # whether the weights of several can run as one, see training.together
    heeds_end: bool = False  # whether steps behind the last observed one change nothing, in training either
    reads_last: int | None = None  # only so many steps at the end of a window become tokens; None: all of them

    head: nn.Module
    _n_channels: int | None = None

    @property
    def n_channels(self) -> int | None:
        """C the model is bound to, by itself or by a head with something for each channel; None: any number will do."""
        if self._n_channels is not None:
            return self._n_channels
        return getattr(self._modules.get("head"), "n_channels", None)

    @n_channels.setter
    def n_channels(self, n: int | None) -> None:
        self._n_channels = n

    def encode(self, x: Tensor, observed: Tensor | None = None) -> Features:
        """[B, C, T] and its mask (None: all observed) to Features."""
        raise NotImplementedError

    def features(self, x: Tensor, observed: Tensor | None = None) -> Features:
        """What the head is given: the tokens of the last ``reads_last`` steps, and the whole window in their units.

        So a line in the head may read a longer past than the tokens do.
        """
        n = self.reads_last
        if n is None or n >= x.shape[-1]:
            return self.encode(x, observed)
        tokens, valid, _, stats = self.encode(x[..., -n:], None if observed is None else observed[..., -n:])
        return Features(tokens, valid, (bridge(x, observed) - stats.mean) / stats.scale, stats)

    def forward(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """What the head says about the windows x [B, C, T]."""
        return self.head(self.features(x, observed))

    def merged(self) -> Self:
        """A copy for inference in which every part that can be merged is; the trained model is untouched."""
        model = copy.deepcopy(self).eval()
        for module in list(model.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, Mergeable):
                    setattr(module, name, child.merged())
        return model.requires_grad_(False)
