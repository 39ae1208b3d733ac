"""The convolution branch of a block in one pass over memory on a GPU: x + dropout(alpha * gelu(conv(x) + bias)).

Two Triton kernels: one forward; backward, one that goes back through dropout and GELU and sums the gradients of kernel,
bias and alpha, and one that goes back through the convolution and adds. Nothing is kept but the input and a seed: the
mask is drawn again, z computed again. The plain twin is ``layers.residual.conv_branch_plain``.

Triton comes with torch for CUDA, and is imported only when a branch runs. These kernels were tested in Triton's
interpreter on a CPU and never timed on a GPU, so they run only where ``PRISMTS_TRITON=1`` is set (``docs/gpu-queue.md``
has the command that measures them). A captured CUDA graph would repeat one mask: do not put them into one.
"""

# pyright: reportIncompatibleMethodOverride=false
# torch's Function takes any arguments; ours have names
from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from prismts.layers.paths import is_written_out

__all__ = ["fused_conv_branch", "worth_fusing"]

MAX_TOKENS = 1024  # a program holds whole rows
_VALUES = 2048  # of a tile of rows


def worth_fusing(x: Tensor) -> bool:
    """Whether the fused form is to be taken for x [D, M, N]: on CUDA, in training, where it was asked for."""
    return (
        not torch.compiler.is_compiling()
        and x.device.type == "cuda"
        and os.environ.get("PRISMTS_TRITON") == "1"
        and torch.is_grad_enabled()
        and x.shape[-1] <= MAX_TOKENS
        and x.numel() < 2**31
        and not is_written_out()
    )


def fused_conv_branch(x: Tensor, kernel: Tensor, bias: Tensor, alpha: Tensor | None, p: float) -> Tensor:
    """x + drop_p(alpha * gelu(conv(x) + bias)) for x [D, M, N], kernel [D, k], bias [D]; alpha None is 1.

    Zero-padded to N tokens, (k-1)//2 of the zeros on the left. Masks follow torch's seed.
    """
    return _Fused.apply(x, kernel, bias, alpha, p)  # type: ignore[no-any-return]


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor, alpha: Tensor | None, p: float) -> Tensor:
        x, kernel, bias = x.contiguous(), kernel.contiguous(), bias.contiguous()
        weight = torch.ones((), device=x.device) if alpha is None else alpha
        seed = int(torch.empty((), dtype=torch.int64).random_(2**31)) if p else 0
        ctx.save_for_backward(x, kernel, bias, weight)
        ctx.p, ctx.seed, ctx.learned = p, seed, alpha is not None
        y = torch.empty_like(x)
        grid, sizes = _tiles(x, kernel)
        _kernels().forward[grid](x, kernel, bias, weight, y, seed, *x.shape[1:], P=p, **sizes)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, kernel, bias, weight = ctx.saved_tensors
        g = gradients[0].contiguous()
        grid, sizes = _tiles(x, kernel)
        inside, g_x = torch.empty_like(x, dtype=torch.float32), torch.empty_like(x)
        # every program writes sums of its own, so that adding them up gives the same number every time
        g_kernel = torch.empty(*grid, kernel.shape[1], device=x.device)
        g_bias, g_alpha = torch.empty(2, *grid, device=x.device)
        arguments = (x, kernel, bias, weight, g, inside, g_kernel, g_bias, g_alpha, ctx.seed, *x.shape[1:])
        _kernels().backward_inside[grid](*arguments, P=ctx.p, **sizes)
        _kernels().backward_conv[grid](kernel, g, inside, g_x, *x.shape[1:], **sizes)
        found = g_kernel.sum(1).to(kernel.dtype), g_bias.sum(1).to(bias.dtype)
        return g_x, *found, g_alpha.sum().to(weight.dtype) if ctx.learned else None, None


def _tiles(x: Tensor, kernel: Tensor) -> tuple[tuple[int, int], dict[str, int]]:
    """How many programs, and the sizes they are compiled for."""
    n_columns = 1 << (x.shape[2] - 1).bit_length()
    n_rows = max(1, _VALUES // n_columns)
    k = kernel.shape[1]
    return (x.shape[0], -(-x.shape[1] // n_rows)), {"K": k, "LEFT": (k - 1) // 2, "ROWS": n_rows, "COLUMNS": n_columns}


def _kernels() -> Any:
    """The programs, whose file needs Triton."""
    from prismts.layers import fused_conv_kernels

    return fused_conv_kernels
