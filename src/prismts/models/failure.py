"""Three ways in which a network fails without an error, read from its weights.

    for sign, told in signs_of_failure(*forecaster.members_).items():
        print(sign, told)

They are those that ConvTimeNet's description names: a patch predictor whose offsets are no numbers, statistics of batch
normalization that grow without end, residual weights that stay at zero. Each goes on quietly. Offsets that are no
numbers count as zero, so patches lie where uniform ones would; normalization by a huge variance leaves nothing to read
in evaluation; and blocks of weight zero hand on what they were given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from prismts.layers.patch import DePatch
from prismts.models.convtimenet import Block, FoldedBlock

__all__ = ["signs_of_failure"]

ALMOST_ZERO = 1e-4  # of a residual weight; training starts at 1e-8
HUGE = 1e6  # of a running variance; windows come standardized, and a network that learned keeps below a hundred or so


def signs_of_failure(*networks: nn.Module) -> dict[str, str]:
    """Each sign that one of these networks shows, in few words, and a sentence about it; empty where all are well."""
    found: dict[str, str] = {}
    for network in networks:
        for sign, look in _SIGNS.items():
            if told := look(network):
                found.setdefault(sign, told)
    return found


def _offsets(network: nn.Module) -> str:
    predictors = [module for module in network.modules() if isinstance(module, DePatch)]
    if all(_are_numbers(predictor.parameters()) for predictor in predictors):
        return ""
    return (
        "The offsets of the patches are no numbers, since the weights that predict them are none: the patches lie "
        "where uniform ones would."
    )


def _statistics(network: nn.Module) -> str:
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    kept = [(one.running_mean, one.running_var) for one in norms]
    known = [(mean, variance) for mean, variance in kept if mean is not None and variance is not None]
    if not all(_are_numbers(pair) for pair in known):
        return "The statistics of batch normalization are no numbers, so no answer of the network is one."
    most = max((float(variance.max()) for _, variance in known), default=0.0)
    if most <= HUGE:
        return ""
    return (
        f"The statistics of batch normalization exploded: the largest running variance is {most:.1g}, where about 1 "
        "comes in. A lower learning_rate, fewer blocks or norm='layer' hold them down."
    )


def _residual_weights(network: nn.Module) -> str:
    blocks = [module for module in network.modules() if isinstance(module, Block | FoldedBlock)]
    weights = [abs(alpha) for block in blocks for alpha in block.alphas.values()]
    if not weights or not all(weight < ALMOST_ZERO for weight in weights):  # one that is no number is none of these
        return ""
    return (
        f"The blocks add nothing to their input: the largest residual weight is {max(weights):.1g}, so what is "
        "answered comes from the embedding and the head alone."
    )


_SIGNS: dict[str, Callable[[nn.Module], str]] = {
    "patch offsets are no numbers": _offsets,
    "batch statistics exploded": _statistics,
    "residual weights stayed at zero": _residual_weights,
}


def _are_numbers(values: Iterable[Tensor]) -> bool:
    return all(bool(torch.isfinite(one.detach()).all()) for one in values)
