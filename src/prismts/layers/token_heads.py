"""Light heads that are bound to no number of tokens: they weigh tokens by age or by content, then map linearly."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from prismts.errors import SettingsError, ShapeError, unknown_name
from prismts.layers.dropout import Dropout
from prismts.layers.features import Features
from prismts.layers.heads import POOLINGS, FlattenHead
from prismts.layers.linear import RidgeMap

__all__ = ["CASE_POOLINGS", "CaseHead", "RecentHead"]

CASE_POOLINGS = (*POOLINGS, "attention")
_FADE = 1.0  # what the weight of a token loses with each step of its age before training, as a logarithm


class RecentHead(FlattenHead):
    """The last tokens of a channel to its future: a mean of tokens that weighs each by its age, then one linear map.

    The weights are learned, the same for every window: a softmax of one logit per age, of which the last one stands for
    all older tokens too. Before training a token counts e times as much as the one before it. So any number of tokens
    will do, and the head has N times fewer weights than a ``FlattenHead``. The rest is as there: the line beside the
    tokens, quantiles, the way back to the units of the series.
    """

    def __init__(
        self,
        width: int,
        horizon: int,
        *,
        n_ages: int = 8,
        n_series: int = 1,
        n_quantiles: int | None = None,
        dropout: float = 0.0,
        line: RidgeMap | None = None,
    ) -> None:
        if n_ages < 1:
            raise SettingsError(f"n_ages counts the tokens with a weight of their own, at least 1, but got {n_ages}.")
        super().__init__(width, 1, horizon, n_series=n_series, n_quantiles=n_quantiles, dropout=dropout, line=line)
        self.age = nn.Parameter(-_FADE * torch.arange(n_ages, dtype=torch.float32))  # [A] logits, the last token first

    def weights(self, n_tokens: int) -> Tensor:
        """How much each of so many tokens counts, the oldest first: [N], with sum 1."""
        age = torch.arange(n_tokens - 1, -1, -1, device=self.age.device).clamp(max=len(self.age) - 1)
        return self.age[age].softmax(0)

    def network(self, features: Features) -> Tensor:
        """What the tokens say, in units of the normalized window: [B, Q, C, H], with Q = 1 for points."""
        tokens = self.dropout(features.tokens)  # [B, G, N, D]
        x = torch.einsum("bgnd,n->bgd", tokens, self.weights(tokens.shape[2]).to(tokens.dtype))
        return rearrange(self.linear(x), "b g (q c h) -> b q (g c) h", q=self.n_quantiles or 1, c=self.n_series)


class CaseHead(nn.Module):
    """Tokens of a whole case to class scores [B, K]: pooled over time, beside level and scale, and mapped linearly.

    What normalization took away is often what tells classes apart, so mean and logarithm of the scale of each channel
    stand beside its tokens.

    Args:
        width: D.
        n_classes: K.
        n_channels: C where the channels stand side by side, each with weights of its own (bound to their number); None
            pools over channels too, by mean and largest value, so that any number will do.
        pooling: over time: "max", "mean", "both", or "attention": a mean whose weights a learned query gives.
        dropout: on the pooled tokens.
    """

    def __init__(
        self, width: int, n_classes: int, *, n_channels: int | None, pooling: str = "both", dropout: float = 0.0
    ) -> None:
        super().__init__()
        if pooling not in CASE_POOLINGS:
            raise unknown_name("pooling", pooling, CASE_POOLINGS)
        self.pooling, self.n_channels = pooling, n_channels
        self.query = nn.Parameter(torch.zeros(width)) if pooling == "attention" else None  # begins as the mean
        self.dropout = Dropout(dropout)
        of_one = width * (2 if pooling == "both" else 1) + 2
        self.linear = nn.Linear(of_one * (2 if n_channels is None else n_channels), n_classes)

    def forward(self, features: Features) -> Tensor:
        """Features to [B, K]; tokens that saw nothing do not count."""
        return self.linear(self.dropout(self.embedding(features)))

    def embedding(self, features: Features) -> Tensor:
        """What the linear map reads: [B, F]."""
        tokens, valid, _, stats = features
        seen = valid[..., None]  # [B, G, N, 1]
        found: list[Tensor] = []
        if self.query is not None:
            scores = (tokens @ self.query * tokens.shape[-1] ** -0.5).masked_fill(~valid, torch.finfo(tokens.dtype).min)
            found.append(torch.einsum("bgn,bgnd->bgd", scores.softmax(-1) * valid, tokens))
        if self.pooling in ("max", "both"):
            largest = tokens.masked_fill(~seen, torch.finfo(tokens.dtype).min).amax(2)
            found.append(largest * seen.any(2))
        if self.pooling in ("mean", "both"):
            found.append((tokens * seen).sum(2) / seen.sum(2).clamp(min=1))
        together = torch.cat(found, dim=-1)  # [B, G, E]
        levels = torch.cat([stats.mean, stats.scale.log()], dim=-1)  # [B, C, 2]
        if together.shape[1] != levels.shape[1]:
            raise ShapeError(
                f"A case head reads an encoder that keeps {levels.shape[1]} channels apart, but got tokens of "
                f"{together.shape[1]} groups. Choose an encoder with channels='independent'."
            )
        by_channel = torch.cat([together, levels], dim=-1)  # [B, C, E+2]
        if self.n_channels is None:
            return torch.cat([by_channel.mean(1), by_channel.amax(1)], dim=-1)
        if by_channel.shape[1] != self.n_channels:
            raise ShapeError(
                f"This head tells classes by {self.n_channels} channels, but got cases of {by_channel.shape[1]}: cases "
                "are [case, channel, time]."
            )
        return by_channel.flatten(1)
