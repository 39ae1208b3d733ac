"""An embedder as one graph: level and scale of each case, windows, the encoder, pooling and the last numbers."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from prismts.estimators.embedder import Embedder
from prismts.layers.heads import pooled
from prismts.models.contract import Encoder
from prismts.serving.graph import Graph, Port, TimeRange
from prismts.serving.graph_parts import merged_copy, numbers, own_statistics, precision_for, windows_at

__all__ = ["EmbedGraph", "embed_graph"]


class EmbedGraph(nn.Module):
    """Cases [B, C, T] of at least a window, NaN where not observed, to one vector each [B, d]."""

    level: Tensor
    spread: Tensor

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.encoder = cast(Encoder, merged_copy(embedder.model_))
        self.encoder.head = nn.Identity()  # what it was trained with says nothing here
        self.length, self.pooling = int(embedder.context_length_), embedder.pooling
        self.apart = embedder.channels == "apart"
        self.register_buffer("level", numbers(embedder.level_))  # [2]
        self.register_buffer("spread", numbers(embedder.spread_))

    def forward(self, values: Tensor) -> Tensor:
        """[B, C, T] to [B, d]."""
        length, n, n_channels = self.length, values.shape[-1], values.shape[1]
        x, seen = values.double(), ~values.isnan()
        mean, scale, some = own_statistics(x, seen)
        mean = torch.where(some, mean, self.level[0])
        scale = torch.where(some, scale, self.level[1].exp())
        z = ((x - mean) / scale).float().masked_fill(~seen, 0.0)
        hop = max(1, length // 2)
        starts = torch.arange((n - length + hop - 1) // hop + 1, device=x.device) * hop
        starts = torch.minimum(starts, torch.zeros_like(starts) + (n - length))
        windows, masks = windows_at(z, starts, length), windows_at(seen, starts, length)  # [B, C, w, L]
        rows = windows.flatten(0, 2)[:, None]  # [B*C*w, 1, L]: channels are read apart
        features = self.encoder.encode(rows, masks.flatten(0, 2)[:, None])
        tokens = pooled(features, self.pooling).unflatten(0, (values.shape[0], n_channels, starts.shape[0]))
        width = self.encoder.width
        if self.pooling == "max":
            tokens = tokens.amax(2)  # [B, C, d]
        elif self.pooling == "mean":
            tokens = tokens.mean(2)
        else:
            tokens = torch.cat([tokens[..., :width].amax(2), tokens[..., width:].mean(2)], dim=-1)
        levels = (torch.cat([mean, scale.log()], dim=-1) - self.level) / self.spread  # [B, C, 2]
        vectors = torch.cat([tokens, levels.float()], dim=-1)
        return vectors.flatten(1) if self.apart else torch.cat([vectors.mean(1), vectors.amax(1)], dim=1)


def embed_graph(embedder: Embedder) -> Graph:
    """The graph of a fitted embedder."""
    length = embedder.context_length_
    apart = embedder.channels == "apart"
    n_channels: str | int = embedder.n_channels_ if apart else "channel"
    # levels of cases differ by their spread around the mean level
    reads = precision_for(np.abs(embedder.level_[:1]) + embedder.spread_[:1], np.exp(embedder.level_[1:]))
    inputs = {"values": Port(("batch", n_channels, "time"), reads, "the user's own", "cases; NaN: not observed")}
    axes = ("batch", int(embedder.n_features_))
    outputs = {
        "vector": Port(axes, "float32", "none", "the embedding of each case; the last numbers are level and scale")
    }
    example = (torch.randn(2, embedder.n_channels_ if apart else 3, 3 * length + 5, dtype=getattr(torch, reads)),)
    facts = {"context_length": length, "channels_are": embedder.channels, "pooling": embedder.pooling}
    return Graph("embed", EmbedGraph(embedder).eval(), inputs, outputs, TimeRange(length), example, facts)
