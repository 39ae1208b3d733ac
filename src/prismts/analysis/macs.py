"""How many multiply-accumulates a model needs, counted on the model itself.

The model runs once on tensors that have a shape but no values (torch's "meta" device), and every product it makes is
seen as it is made: matrix products, convolutions, attention, and a GRU as the matrix products of its steps. So nothing
large is computed, and the count follows the code, not a formula. By custom a convolution counts its padding, and
additions, activations, normalization and Fourier transforms count nothing.

What counts is what runs. ConvTimeNet's depthwise convolutions over up to 128 tokens run as products with banded N x N
matrices, and so cost N*N a row here, not N*k.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from prismts.errors import SettingsError
from prismts.models.cross_learner import HP2, HP2_CONTEXT_LENGTH, CrossLearner, CrossLearnerConfig

__all__ = ["Arrangement", "MacCount", "count", "cross_learner_arrangements"]


@dataclass(frozen=True)
class MacCount:
    """Multiply-accumulates of one pass forward, for the whole batch that was passed.

    A product counts for the modules in whose ``forward`` it is made: where a model multiplies by the weights of a part
    without calling it, as ConvTimeNet does to embed its patches, the part is not listed and the total includes it.
    """

    total: int
    modules: Mapping[str, int]  # by name, as in named_modules(); each includes what lies inside it

    def of(self, *patterns: str) -> int:
        """The sum over the modules whose names match, such as ``of("front", "blocks.*.to_cnn")``; nothing counts twice.

        Raises SettingsError where a pattern matches no module that multiplies.
        """
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in self.modules):
                raise SettingsError(
                    f"No module that multiplies matches {pattern!r}. There are: {', '.join(self.modules) or 'none'}."
                )
        found = [name for name in self.modules if any(fnmatchcase(name, pattern) for pattern in patterns)]
        return sum(self.modules[name] for name in found if not any(name.startswith(f"{outer}.") for outer in found))


def count(model: nn.Module, *inputs: Tensor | None) -> MacCount:
    """The multiply-accumulates of ``model(*inputs)`` in evaluation mode; only the shapes and types of inputs matter.

    The model itself is left as it is. Models that look at values to decide what to compute cannot be counted so.
    Source: torch.utils.flop_counter, whose floating-point operations are two per multiply-accumulate; it does not know
    products with a single vector, which are added here.
    """
    empty = copy.deepcopy(model).to("meta").eval()
    aten: Any = torch.ops.aten
    vectors = {aten.mv: _mv, aten.addmv: _addmv, aten.dot: _dot, aten.vdot: _dot}
    with FlopCounterMode(display=False, custom_mapping=vectors) as counter, torch.no_grad():
        empty(*(None if x is None else x.to("meta") for x in inputs))
    # the counter names modules "Class.inner.name"
    counted = {name.partition(".")[2]: sum(ops.values()) // 2 for name, ops in counter.get_flop_counts().items()}
    named = [name for name, _ in empty.named_modules() if name and counted.get(name)]
    return MacCount(counter.get_total_flops() // 2, {name: counted[name] for name in named})


class Arrangement(NamedTuple):
    """What one way to build the cross learner's front and exchange costs, in multiply-accumulates of one window."""

    name: str
    front: int
    exchange: int

    @property
    def total(self) -> int:
        """Front and exchange together, without the paths, the attention and the head, which the slides leave out."""
        return self.front + self.exchange


def cross_learner_arrangements(
    n_channels: int = 7, *, config: CrossLearnerConfig = HP2, context_length: int = HP2_CONTEXT_LENGTH
) -> list[Arrangement]:
    """The three arrangements that the slides compare, each counted on a model that was built so.

    With the slides' setting and 7 channels the totals are theirs: 4,257,792, 56,340,480 and 1,985,679,360.
    """
    forms = {
        "mixing convolution + dynamic depthwise": config,
        "mixing convolution + standard Conv1d": replace(config, kernels="standard"),
        "per-step channel lift + standard Conv1d": replace(config, kernels="standard", front="lift"),
    }
    x = torch.empty(1, n_channels, context_length, device="meta")
    arrangements: list[Arrangement] = []
    for name, form in forms.items():
        with torch.device("meta"):  # only shapes are needed: no memory, and no random number is drawn
            model = CrossLearner(form, n_channels=n_channels, context_length=context_length)
            for block in model.blocks:
                # not compared here, and a GRU is walked step by step: half a minute for the 720 of the lift
                block.gru = nn.Identity()
        macs = count(model, x)
        arrangements.append(Arrangement(name, macs.of("front"), macs.of("blocks.*.to_cnn", "blocks.*.to_gru")))
    return arrangements


def _mv(matrix: tuple[int, int], vector: tuple[int], *_: Any, **__: Any) -> int:
    return 2 * matrix[0] * matrix[1]


def _addmv(bias: tuple[int], matrix: tuple[int, int], vector: tuple[int], *_: Any, **__: Any) -> int:
    return 2 * matrix[0] * matrix[1]


def _dot(left: tuple[int], right: tuple[int], *_: Any, **__: Any) -> int:
    return 2 * left[0]
