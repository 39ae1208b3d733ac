"""Which steps of its input a step of a convolutional model can see: from the formula, and measured on the real module.

The formula holds for convolutions in one chain, residual or not. The measurement holds for anything that autograd can
go through, and shows what the formula cannot: normalization over the window, attention, recurrence.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prismts.errors import DataError, SettingsError, ShapeError
from prismts.layers.convolve import DepthwiseConv, TwoKernelConv
from prismts.layers.patch import DePatch, UniformPatch

__all__ = ["Convolution", "Reach", "chained", "convolutions_of", "measured", "undilated"]

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Convolution:
    """What decides how far a convolution (or pooling, or cutting into patches) sees, in steps of its input."""

    kernel_size: int
    stride: int = 1
    dilation: int = 1

    def __post_init__(self) -> None:
        if min(self.kernel_size, self.stride, self.dilation) < 1:
            raise SettingsError(f"kernel_size, stride and dilation are at least 1 step, but got {self}.")


@dataclass(frozen=True, eq=False)
class Reach:
    """Which of the T steps of the input one step of the output depends on."""

    steps: NDArray[np.bool_]  # [T]

    @property
    def first(self) -> int:
        """The first step that is seen."""
        return int(self.steps.argmax())

    @property
    def last(self) -> int:
        """The last step that is seen."""
        return int(len(self.steps) - 1 - self.steps[::-1].argmax())

    @property
    def size(self) -> int:
        """Steps from the first to the last, both counted: the receptive field; 0 where nothing is seen."""
        return self.last - self.first + 1 if self.steps.any() else 0

    @property
    def n_seen(self) -> int:
        """Steps that are seen; less than ``size`` where dilation leaves holes."""
        return int(self.steps.sum())


def chained(convolutions: Sequence[Convolution], *, dilated: bool = True) -> int:
    """Receptive field of convolutions one behind the other, in steps of the input: 1 + sum of (k-1) d times the strides
    before. ``dilated=False`` counts every dilation as 1.

    Source: Araujo, Norris and Sim, Computing Receptive Fields of Convolutional Neural Networks, Distill 2019.
    """
    size, jump = 1, 1
    for convolution in convolutions:
        size += (convolution.kernel_size - 1) * (convolution.dilation if dilated else 1) * jump
        jump *= convolution.stride
    return size


def convolutions_of(model: nn.Module) -> tuple[Convolution, ...]:
    """The convolutions, poolings and cuts into patches of a model, in the order in which they were registered.

    This is right for :func:`chained` where that is the order in which data meet them and none stands beside another;
    of a pair that runs side by side as one (TwoKernelConv) the longer counts. Patches at places that the data choose
    (DePatch) have no formula and are refused. Compare with :func:`measured`.
    """
    found: list[Convolution] = []

    def visit(module: nn.Module) -> None:
        if isinstance(module, nn.Conv1d | nn.MaxPool1d):
            sizes = (module.kernel_size, module.stride, module.dilation)
            found.append(Convolution(*(_one(size) for size in sizes)))
        elif isinstance(module, nn.AvgPool1d):
            found.append(Convolution(_one(module.kernel_size), _one(module.stride)))
        elif isinstance(module, TwoKernelConv):
            found.append(Convolution(module.long.kernel_size))
        elif isinstance(module, DepthwiseConv):
            found.append(Convolution(module.kernel_size))
        elif isinstance(module, UniformPatch):
            found.append(Convolution(module.patch_length, module.stride))
        elif isinstance(module, DePatch):
            raise SettingsError(
                "DePatch cuts patches at places that the data choose, so no formula says how far it sees. "
                "Pass what comes behind it, or use measured, which shows where the patches of one input lie."
            )
        else:
            for child in module.children():
                visit(child)

    visit(model)
    if not found:
        raise SettingsError(f"{type(model).__name__} holds no one-dimensional convolution, so it has no formula.")
    return tuple(found)


def undilated(model: Model) -> Model:
    """A copy of a model in which every convolution reads neighboring steps; the model itself is left as it is.

    Padding given in steps shrinks with the dilation, so that lengths stay what they were; padding by hand, outside of
    the convolution, is not seen.
    """
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv1d) and child.dilation[0] > 1:
                setattr(parent, name, _undilated(child))
    return _undilated(model) if isinstance(model, nn.Conv1d) else model  # type: ignore[return-value]


def measured(
    model: nn.Module | Callable[[Tensor], Tensor],
    shape: Sequence[int],
    output_step: int,
    *,
    n_draws: int = 8,
    seed: int = 0,
) -> Reach:
    """Which input steps a step of the output depends on, by autograd: those at which the gradient is not zero.

    Each draw takes a random input and a random weighing of all outputs at that step; a step counts if any draw meets
    it, because a rectifier may close a way on one input. Whatever carries information counts, normalization over the
    window too; to see the convolutions alone, pass only them. The model is run in evaluation mode and given back in
    the mode it was in.

    Args:
        model: takes [B, C, T] (or any [..., T]) to a tensor with time or tokens last.
        shape: of the input, such as (1, C, T).
        output_step: number of the output's step; negative counts from the end.
        n_draws: random inputs to try.
        seed: of the draws.
    """
    training: list[nn.Module] = []
    example: Tensor | None = None
    if isinstance(model, nn.Module):
        training = [module for module in model.modules() if module.training]
        model.eval()
        example = next(model.parameters(), None)
    generator = torch.Generator().manual_seed(seed)
    seen = np.zeros(shape[-1], dtype=bool)
    try:
        for _ in range(n_draws):
            x = torch.randn(tuple(shape), generator=generator)
            if example is not None:
                x = x.to(example)
            with torch.enable_grad():
                x.requires_grad_()
                y = model(x)
                if not -y.shape[-1] <= output_step < y.shape[-1]:
                    raise ShapeError(f"output_step={output_step} does not exist: the output has {y.shape[-1]} steps.")
                y = y[..., output_step]
                weights = torch.randn(y.shape, generator=generator).to(y)
                gradient = cast(Tensor | None, torch.autograd.grad((y * weights).sum(), x, allow_unused=True)[0])
            if gradient is None:
                continue
            if not bool(torch.isfinite(gradient).all()):
                raise DataError("A gradient is not finite, so it does not tell which steps are seen.")
            seen |= (gradient != 0).flatten(0, -2).any(0).cpu().numpy()
    finally:
        for module in training:
            module.training = True
    return Reach(seen)


def _undilated(conv: nn.Conv1d) -> nn.Conv1d:
    """The same weights over neighboring steps."""
    padding = conv.padding
    lost = (conv.dilation[0] - 1) * (conv.kernel_size[0] - 1)  # steps by which the output would grow
    if not isinstance(padding, str) and lost % 2 == 0 and 2 * padding[0] >= lost:
        padding = padding[0] - lost // 2
    # skip_init: a new layer would draw random numbers for weights that are replaced at once
    plain = cast(nn.Conv1d, nn.utils.skip_init(
        nn.Conv1d, conv.in_channels, conv.out_channels, conv.kernel_size, stride=conv.stride, padding=padding,
        groups=conv.groups, bias=conv.bias is not None, padding_mode=conv.padding_mode,
    ))  # fmt: skip
    plain.weight = conv.weight
    if conv.bias is not None:
        plain.bias = conv.bias
    return plain.train(conv.training)


def _one(size: int | tuple[int, ...]) -> int:
    return size if isinstance(size, int) else size[0]
