"""How much gradient reaches each layer of each path of a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prismts.errors import DataError, SettingsError

__all__ = ["GradientNorm", "gradient_norms"]


@dataclass(frozen=True)
class GradientNorm:
    """The gradient of the parameters of one layer of one path."""

    path: str
    layer: int | None  # its number, or None where the names hold none
    norm: float  # Euclidean, over all parameters of the layer
    n_parameters: int

    @property
    def rms(self) -> float:
        """Root mean square over the parameters: compares layers of different size."""
        return self.norm / self.n_parameters**0.5


def gradient_norms(
    model: nn.Module,
    loss: Callable[[], Tensor] | None = None,
    *,
    paths: Mapping[str, str | Sequence[str]] | None = None,
) -> tuple[GradientNorm, ...]:
    """Gradient norms per layer and path, one row each, in the order of the paths and then of the layers.

    Args:
        model: any module; its parameters that are trained are counted, those that received no gradient as 0.
        loss: gives the loss of the model on some batch, a scalar. Its gradient is taken aside: neither the gradients,
            the buffers nor the random state of the model are changed. None reads the gradients that a backward pass
            has left.
        paths: patterns of parameter names by path, such as ``{"cnn": "blocks.*.cnn.*", "gru": "blocks.*.gru.*"}``, or
            several patterns for one path. A ``*`` stands for one part of a name, at the end for all that is left; the
            first number that a ``*`` met is the layer. Parameters of no pattern are the path "other". None takes the
            first part of each name for the path, and the first number in it for the layer.

    Raises:
        SettingsError: if a pattern meets no parameter, or two paths meet the same one.
        DataError: if there is no gradient, or one is not finite.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    owners = _owners(list(named), paths)
    gradients = _left(named) if loss is None else _taken(model, named, loss)
    squares: dict[tuple[str, int | None], float] = {}
    sizes: dict[tuple[str, int | None], int] = {}
    for name, gradient in gradients.items():
        owner = owners[name]
        square = 0.0 if gradient is None else float(gradient.detach().double().square().sum())
        if not square < float("inf"):
            raise DataError(f"The gradient of {name!r} is not finite, so it has no norm. Look for NaN in the batch.")
        squares[owner] = squares.get(owner, 0.0) + square
        sizes[owner] = sizes.get(owner, 0) + named[name].numel()
    met = [path for path, _ in owners.values()]
    order = {path: i for i, path in enumerate(dict.fromkeys([*(paths or ()), *sorted(met, key="other".__eq__)]))}
    rows = sorted(squares, key=lambda owner: (order[owner[0]], -1 if owner[1] is None else owner[1]))
    return tuple(GradientNorm(*owner, squares[owner] ** 0.5, sizes[owner]) for owner in rows)


def _left(named: Mapping[str, Tensor]) -> dict[str, Tensor | None]:
    """The gradients that a backward pass has left."""
    gradients = {name: parameter.grad for name, parameter in named.items()}
    if all(gradient is None for gradient in gradients.values()):
        raise DataError("The model holds no gradients. Call loss.backward() first, or pass loss as a function.")
    return gradients


def _taken(model: nn.Module, named: Mapping[str, Tensor], loss: Callable[[], Tensor]) -> dict[str, Tensor | None]:
    """The gradients of a loss, leaving the model as it was."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    devices = sorted({p.device.index or 0 for p in named.values() if p.device.type == "cuda"})
    with torch.enable_grad(), torch.random.fork_rng(devices=devices):
        value = loss()
        if value.numel() != 1 or not value.requires_grad:
            raise DataError(
                f"loss must return a scalar that depends on the model, but gave shape {list(value.shape)}"
                f"{'' if value.requires_grad else ' without a gradient'}."
            )
        gradients = torch.autograd.grad(value.sum(), list(named.values()), allow_unused=True)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    return dict(zip(named, gradients, strict=True))


def _owners(names: Sequence[str], paths: Mapping[str, str | Sequence[str]] | None) -> dict[str, tuple[str, int | None]]:
    """Path and layer of every parameter."""
    if paths is None:
        return {name: (name.split(".")[0], _first_number(name.split("."))) for name in names}
    owners: dict[str, tuple[str, int | None]] = {}
    for path, patterns in paths.items():
        for pattern in (patterns,) if isinstance(patterns, str) else patterns:
            expression = _expression(pattern)
            met = False
            for name in names:
                if (match := expression.fullmatch(name)) is None:
                    continue
                met = True
                owner = owners.setdefault(name, (path, _first_number(".".join(match.groups()).split("."))))
                if owner[0] != path:
                    raise SettingsError(f"Parameter {name!r} is met by the patterns of {owner[0]!r} and of {path!r}.")
            if not met:
                raise SettingsError(
                    f"Pattern {pattern!r} of path {path!r} meets no parameter that is trained. "
                    f"Their names are like {', '.join(names[:4])}."
                )
    return {name: owners.get(name, ("other", None)) for name in names}


def _expression(pattern: str) -> re.Pattern[str]:
    """A pattern of names as a regular expression; each ``*`` is a group."""
    parts = [re.escape(part) for part in pattern.split("*")]
    whole = "([^.]*)".join(parts)
    return re.compile(whole.removesuffix("([^.]*)") + "(.*)" if pattern.endswith("*") else whole)


def _first_number(parts: Sequence[str]) -> int | None:
    return next((int(part) for part in parts if part.isdecimal()), None)
