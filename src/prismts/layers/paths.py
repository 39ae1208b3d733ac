"""Which form of a layer runs where it has two: the fast one, or the one written out operation by operation."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

__all__ = ["is_written_out", "worth_slicing", "written_out"]

SMALLEST = 2**17  # values of a tensor from which the sliced forms pay

_written_out: ContextVar[bool] = ContextVar("written_out", default=False)


@contextmanager
def written_out() -> Generator[None]:
    """Inside, layers run in their plain form, which torch can transform: stack over several networks, for one.

    A fast form that reuses buffers, or draws random bytes by itself, gives the same numbers but is opaque to such a
    transformation.
    """
    token = _written_out.set(True)
    try:
        yield
    finally:
        _written_out.reset(token)


def is_written_out() -> bool:
    """Whether the plain form was asked for."""
    return _written_out.get()


def worth_slicing(x: Tensor) -> bool:
    """Whether a form made for large training steps is to be taken: on a CPU, where gradients are wanted of much."""
    return (
        not torch.compiler.is_compiling()  # asked first: the size of an exported batch is not known
        and not is_written_out()
        and torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.numel() >= SMALLEST
    )
