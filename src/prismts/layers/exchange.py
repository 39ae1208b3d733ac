"""What channels tell each other: attention over the other channels of a window, token by token."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from prismts.ranges import expect_heads

__all__ = ["ChannelExchange"]


class ChannelExchange(nn.Module):
    """Each channel asks all others what they show at the same token, and adds the answer: [B, C, N, D] to the same.

    No weight belongs to a channel, so that any number of them may come, and exchanged channels give exchanged tokens.
    A channel never reads itself: alone, or among channels of which nothing was observed, it leaves exactly as it came.
    The last map has no bias and begins at zero, so that training begins with channels that are apart.
    Attention over channels as in iTransformer (Liu et al., ICLR 2024), there over whole windows; that a channel is left
    out of its own attention is ours, and is what makes a single channel an unchanged one.
    """

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        expect_heads(width, n_heads)
        self.n_heads = n_heads
        self.norm = nn.LayerNorm(width)
        self.ask = nn.Linear(width, 3 * width, bias=False)  # queries, keys and values side by side
        self.out = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """Tokens [B, C, N, D], and which of them saw anything [B, C, N], to [B, C, N, D]; invalid ones are not read."""
        n_channels = tokens.shape[1]
        if n_channels == 1:
            return tokens
        asked = rearrange(self.ask(self.norm(tokens)), "b c n (k h d) -> k b n h c d", k=3, h=self.n_heads)
        query, key, value = asked.unbind(0)  # [B, N, heads, C, D/heads] each
        readable = ~torch.eye(n_channels, dtype=torch.bool, device=tokens.device)  # [C asks, C answers]
        if valid is not None:
            readable = readable & valid.transpose(1, 2)[:, :, None, None]  # [B, N, 1, C, C]
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)  # [B, N, heads, C, C]
        weight = scores.masked_fill(~readable, torch.finfo(scores.dtype).min).softmax(-1)
        weight = weight.masked_fill(~readable, 0.0).to(value.dtype)  # where nobody answers, nothing is said
        return tokens + self.out(rearrange(weight @ value, "b n h c d -> b c n (h d)"))
