"""What stands at the end of a model and turns tokens into the answer of a task."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from prismts.errors import ShapeError, unknown_name
from prismts.layers.dropout import Dropout
from prismts.layers.features import Features
from prismts.layers.linear import RidgeMap
from prismts.layers.normalize import InstanceNorm, Stats

__all__ = ["POOLINGS", "FlattenHead", "PoolHead", "pooled"]


class FlattenHead(nn.Module):
    """All tokens of a channel to its future in one linear map, in the units the model was given.

    With ``line`` a straight line from the context to the future runs beside the tokens. It is solved before training
    and the map of the tokens begins at zero, so that training begins at the best line and the network learns what a
    line cannot.

    With ``n_quantiles`` the answer is [B, Q, C, H].
    """

    def __init__(
        self,
        width: int,
        n_tokens: int,
        horizon: int,
        *,
        n_series: int = 1,
        n_quantiles: int | None = None,
        dropout: float = 0.0,
        line: RidgeMap | None = None,
    ) -> None:
        super().__init__()
        self.horizon, self.n_series, self.n_quantiles = horizon, n_series, n_quantiles
        self.dropout = Dropout(dropout)
        self.linear = nn.Linear(width * n_tokens, n_series * (n_quantiles or 1) * horizon)
        self.line = line
        self.kept = 1.0  # share of what the tokens said when they were trained that counts: see weaken
        if self.line is not None:
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    def forward(self, features: Features) -> Tensor:
        """Features to [B, C, H], or [B, Q, C, H] with quantiles.

        ``n_series`` is C where one group of tokens answers for all channels, 1 where each channel has its own.
        """
        y, stats = self.network(features), features.stats
        if self.line is not None:
            y = y + self._along(self.line, features)[:, None]
        y = InstanceNorm.inverse(y, Stats(stats.mean[:, None], stats.scale[:, None]))  # [B, Q, C, H]
        return y if self.n_quantiles else y[:, 0]

    def network(self, features: Features) -> Tensor:
        """What the tokens say, in units of the normalized window: [B, Q, C, H], with Q = 1 for points."""
        tokens, _, window, _ = features
        x = rearrange(self.dropout(tokens), "b g n d -> b g (d n)")
        if x.shape[-1] != self.linear.in_features:
            raise ShapeError(
                f"This model's head was built for {self.linear.in_features // tokens.shape[-1]} tokens, but a window "
                f"of {window.shape[-1]} steps gives {tokens.shape[2]}. Pass windows of the context_length it was built "
                "with, as [batch, channel, time]; if time is the middle axis, pass x.swapaxes(-1, -2)."
            )
        return rearrange(self.linear(x), "b g (q c h) -> b q (g c) h", q=self.n_quantiles or 1, c=self.n_series)

    def beside_the_line(self, features: Features, level: int = 0) -> tuple[Tensor, Tensor]:
        """What :meth:`weaken` weakens of a point, or of one quantile, and the line alone: [B, C, H] each, own units."""
        assert self.line is not None
        said, stats = self.network(features)[:, level], features.stats
        if self.n_quantiles is not None:
            constants = rearrange(self.linear.bias, "(q c h) -> q c h", q=self.n_quantiles, c=self.n_series)
            said = said - constants[level]
        return said * stats.scale, InstanceNorm.inverse(self._along(self.line, features), stats)

    def _along(self, line: RidgeMap, features: Features) -> Tensor:
        """The line's answer in units of the normalized window: [B, C, H]."""
        window, stats = features.window, features.stats
        # whatever the model normalizes by, the line reads the window relative to its mean, as it was solved
        middle = window.mean(-1, keepdim=True)
        return line(window - middle, stats.scale, InstanceNorm.inverse(middle, stats)) + middle

    @torch.no_grad()
    def weaken(self, share: float) -> None:
        """Let this share of what the tokens said when they were trained count; 1 undoes an earlier share.

        The constants of quantiles stay: they hold the spread around the line, which is there before any training.
        """
        factor = share / self.kept if self.kept else 0.0  # of none there is nothing to bring back
        if factor != 1.0:
            self.linear.weight.mul_(factor)
            if self.n_quantiles is None:
                self.linear.bias.mul_(factor)
        self.kept = share

    @property
    def n_channels(self) -> int | None:
        """How many channels its line is bound to; None where it has none, or one line is for all."""
        return None if self.line is None else self.line.n_channels

    @property
    def starts_at_a_line(self) -> bool:
        """Whether the answer before training is the straight line."""
        return self.line is not None

    @torch.no_grad()
    def spread(self, offsets: Tensor) -> None:
        """Let each quantile begin at the line plus its offset [Q, H], in units of the normalized window."""
        bias = self.linear.bias.view(self.n_quantiles or 1, self.n_series, self.horizon)
        bias.copy_(offsets[:, None].expand_as(bias))


POOLINGS = ("max", "mean", "both")


class PoolHead(nn.Module):
    """Tokens pooled over time and groups, then one linear map to class scores [B, K].

    ``pooling="both"`` sets the largest value and the mean side by side.
    """

    def __init__(self, width: int, n_classes: int, *, pooling: str = "max", dropout: float = 0.0) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise unknown_name("pooling", pooling, POOLINGS)
        self.pooling = pooling
        self.dropout = Dropout(dropout)
        self.linear = nn.Linear(width * (2 if pooling == "both" else 1), n_classes)

    def forward(self, features: Features) -> Tensor:
        """Features to [B, K]; tokens that saw nothing do not count."""
        return self.linear(self.dropout(pooled(features, self.pooling)))


def pooled(features: Features, pooling: str) -> Tensor:
    """What the valid tokens of a window say together: [B, D], or [B, 2D] for "both"; 0 where no token is valid."""
    tokens = features.tokens.flatten(1, 2)  # [B, G*N, D]
    valid = features.valid.flatten(1, 2)[..., None]  # [B, G*N, 1]
    found: list[Tensor] = []
    if pooling in ("max", "both"):
        largest = tokens.masked_fill(~valid, torch.finfo(tokens.dtype).min).amax(1)
        found.append(largest * valid.any(1))
    if pooling in ("mean", "both"):
        found.append((tokens * valid).sum(1) / valid.sum(1).clamp(min=1))
    return torch.cat(found, dim=-1)
