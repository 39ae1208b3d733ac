"""What two paths say to each other: messages by kernels made for the moment, their fixed rivals, and attention.

States are laid out [B, D, N]: batch, width, tokens. A message is made from the sender's tokens and, where its kernel is
dynamic, from the state of the path that will hear it. Source: the slides "1D CNN-GRU Cross Learning for Multivariate
TSF", questions 1 and 4; what they leave open is said where it is decided.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from prismts.errors import SettingsError

__all__ = [
    "AverageMessage",
    "CrossModalAttention",
    "DynamicMessage",
    "FullMessage",
    "StaticMessage",
    "dynamic_depthwise",
    "moving_average",
]


def dynamic_depthwise(x: Tensor, kernel: Tensor) -> Tensor:
    """Every row of x [B, D, N] convolved with a kernel of its own, zero-padded to N tokens: [B, D, N].

    ``kernel`` is [B, D, k], one per case and width, or [B, D, N, k], one per token too. Padding is torch's "same":
    (k-1)//2 on the left. The first form is one convolution of B*D groups, however many cases there are. On one CPU
    thread, forward and backward, it took a quarter to a half of the time of unfolding and summing the products
    (k = 3; [32, 64, 14]: 0.41 against 0.89 ms; [32, 256, 20]: 1.1 against 4.2 ms; [32, 64, 336]: 6 against 23 ms). The
    second form is no convolution, and unfolds; so does an exported or compiled model, since a number of groups that
    changes with the batch cannot be written in ONNX.
    """
    k = kernel.shape[-1]
    left = (k - 1) // 2
    padded = F.pad(x, (left, k - 1 - left))  # [B, D, N+k-1]
    if kernel.ndim == 4:
        return torch.einsum("bdnk,bdnk->bdn", padded.unfold(-1, k, 1), kernel)
    if torch.compiler.is_compiling():
        return torch.einsum("bdnk,bdk->bdn", padded.unfold(-1, k, 1), kernel)
    n_rows = x.shape[0] * x.shape[1]
    y = F.conv1d(padded.reshape(1, n_rows, padded.shape[-1]), kernel.reshape(n_rows, 1, k), groups=n_rows)
    return y.view_as(x)


def moving_average(x: Tensor, decay: Tensor) -> Tensor:
    """Exponential moving average of x [..., N] from its first token on: y_n = decay * y_(n-1) + (1 - decay) * x_n.

    y_0 is x_0, so the weights of every token sum to 1. ``decay`` is one number between 0 and 1. All tokens are one
    product with a triangular N x N matrix.
    """
    place = torch.arange(x.shape[-1], device=x.device)
    age = place[None, :] - place[:, None]  # [N, N]: how long before token n (column) token j (row) was
    weight = decay ** age.clamp(min=0) * torch.where(place[:, None] == 0, 1.0, 1 - decay)
    return x @ (weight * (age >= 0)).to(x.dtype)


class DynamicMessage(nn.Module):
    """The sender's tokens through depthwise kernels that the state of the receiver generates, anew for every case.

    One linear map D -> D*k makes the kernels, as the operation count of the slides fixes. The state is layer-normalized
    before, because the states of a residual stack grow with depth; the slides do not say. The map's bias is the kernel
    all cases share, so a static kernel is the special case of a map whose weight is zero.
    """

    def __init__(self, width: int, kernel_size: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.norm = nn.LayerNorm(width)
        self.generate = nn.Linear(width, width * kernel_size)

    def forward(self, sender: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Sender [B, D, N] and a state [B, D] (or [B, D, N], one per token) to a message [B, D, N] and its kernels.

        The kernels are [B, D, k], or [B, D, N, k].
        """
        generated = self.generate(self.norm(state.transpose(1, -1)))  # [B, D*k], or [B, N, D*k]
        pattern = "b (d k) -> b d k" if state.ndim == 2 else "b n (d k) -> b d n k"
        kernel = rearrange(generated, pattern, k=self.kernel_size)
        return dynamic_depthwise(sender, kernel.to(sender.dtype)), kernel


class StaticMessage(nn.Module):
    """The sender's tokens through learned depthwise kernels, the same for all cases: "Static-DW" of the slides."""

    def __init__(self, width: int, kernel_size: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(kernel_size)  # torch's initialization of a depthwise Conv1d
        self.kernel = nn.Parameter(torch.empty(width, kernel_size).uniform_(-bound, bound))  # [D, k]

    def forward(self, sender: Tensor) -> Tensor:
        """[B, D, N] to [B, D, N]."""
        k = self.kernel.shape[-1]
        left = (k - 1) // 2
        return F.conv1d(F.pad(sender, (left, k - 1 - left)), self.kernel[:, None], groups=len(self.kernel))


class AverageMessage(nn.Module):
    """The sender's exponential moving average over tokens, whose decay is learned from one half ("EMA" of the slides).

    One decay for the whole width; the slides do not say how many, nor whether it is learned.
    """

    def __init__(self) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.zeros(()))

    def forward(self, sender: Tensor) -> Tensor:
        """[B, D, N] to [B, D, N]."""
        return moving_average(sender, self.logit.sigmoid())


class FullMessage(nn.Conv1d):
    """The sender's tokens through an ordinary convolution over the whole width: the "standard Conv1D" of the slides."""

    def __init__(self, width: int, kernel_size: int) -> None:
        super().__init__(width, width, kernel_size, padding="same")


class CrossModalAttention(nn.Module):
    """What of one path matters in the context of the other: queries from the context, keys and values from the shape.

    Both are layer-normalized before; the result is added to the context by whoever calls. Keys have no bias, since a
    constant added to all of them changes no attention.
    """

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        if width % n_heads:
            raise SettingsError(
                f"Attention shares the width out among its heads, but {width} is no multiple of n_heads={n_heads}. "
                "Change one of them."
            )
        self.n_heads = n_heads
        self.norm_context, self.norm_shape = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, context: Tensor, shape: Tensor, counts: Tensor | None = None) -> Tensor:
        """Context [B, D, N] and shape [B, D, M] to [B, D, N].

        ``counts`` [B, M] bool marks the tokens of the shape that may be attended to; None for all of them.
        """
        context = self.norm_context(context.transpose(1, 2))  # [B, N, D]
        shape = self.norm_shape(shape.transpose(1, 2))  # [B, M, D]
        query, key, value = (
            rearrange(y, "b n (h d) -> b h n d", h=self.n_heads)
            for y in (self.query(context), self.key(shape), self.value(shape))
        )
        mask = None if counts is None else counts[:, None, None]
        y = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(rearrange(y, "b h n d -> b n (h d)")).transpose(1, 2)
