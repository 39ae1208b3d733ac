"""A trained network beside a closed-form classifier, each with its weight."""

from __future__ import annotations

from copy import deepcopy
from typing import Self

import torch
from torch import Tensor, nn

from prismts.models.contract import Encoder
from prismts.models.ensemble import Ensemble

__all__ = ["Stacked"]


class Stacked(nn.Module):
    """Class scores [B, K]: a weighted sum of those of a network and of a ``line`` solved in closed form.

    The weights are temperatures too: the softmax of the sum is the probability.
    """

    weights: Tensor

    def __init__(self, network: nn.Module, line: nn.Module | None) -> None:
        super().__init__()
        self.network, self.line = network, line
        self.register_buffer("weights", torch.ones(2))

    def forward(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """[B, C, T] to [B, K]."""
        y = self.weights[0] * self.network(x, observed)
        return y if self.line is None else y + self.weights[1] * self.line(x, observed)

    def merged(self) -> Self:
        """A copy for inference with the kernels of the network merged."""
        network = self.network.merged() if isinstance(self.network, Encoder | Ensemble) else deepcopy(self.network)
        copy = type(self)(network, deepcopy(self.line))
        copy.weights.copy_(self.weights)
        return copy.eval()
