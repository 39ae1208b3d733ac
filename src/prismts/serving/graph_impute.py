"""An imputer as one graph: scaling, overlapping windows, their weighted mean, straight lines, and what was observed."""

# pyright: reportPrivateUsage=false
# a graph is the other form of its estimator
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from prismts.estimators import imputer as module
from prismts.estimators.imputer import Imputer
from prismts.serving.graph import Graph, Port, TimeRange
from prismts.serving.graph_parts import (
    SeriesUnits,
    bridged,
    merged_copy,
    numbers,
    precision_for,
    starts_with_the_end,
    windows_at,
)

__all__ = ["ImputeGraph", "impute_graph"]


class ImputeGraph(nn.Module):
    """Series [B, C, T] of at least a window, NaN where missing, to the same without gaps.

    Windows lie as in ``Imputer.transform``: one every quarter of a window, and one at the end. All of them are read; in
    those without a gap nothing of the answer is used.
    """

    hill: Tensor

    def __init__(self, imputer: Imputer) -> None:
        super().__init__()
        length = int(imputer.context_length)
        self.units, self.length = SeriesUnits(imputer.scaler_), length
        self.model = merged_copy(imputer.model_)
        self.mixed = getattr(imputer.model_, "n_channels", None) is not None
        hill = np.minimum(np.arange(1, length + 1), np.arange(length, 0, -1)).astype(np.float64)
        self.register_buffer("hill", numbers(hill))  # [L]

    def forward(self, values: Tensor, series: Tensor | None = None) -> Tensor:
        """[B, C, T] and the number of each series [B] to [B, C, T], in the user's units."""
        length, n = self.length, values.shape[-1]
        x, seen = values.double(), ~values.isnan()
        mean, scale = self.units(x, seen, series)
        z = ((x - mean) / scale).float().masked_fill(~seen, 0.0)
        step = max(1, length // 4)
        n_regular = (n - length) // step + 1
        starts = starts_with_the_end(n, length, step)
        windows, masks = windows_at(z, starts, length), windows_at(seen, starts, length)  # [B, C, w, L]
        told = self._told(windows, masks).double()
        share = self._trust(masks) * self.hill  # [B, C, w, L]
        told = told * share
        total, weight = torch.zeros_like(x), torch.zeros_like(x)
        place = torch.arange(n, device=x.device)
        latest = torch.div(
            place, step, rounding_mode="floor"
        )  # the last regular window that begins at or before a step
        for back in [*range(-(-length // step)), None]:  # the windows that cover a step, and the one at the end
            if back is None:
                which, offset = torch.zeros_like(place) + n_regular, place - (n - length)
            else:
                which, offset = latest - back, place - (latest - back) * step
            covers = (which >= 0) & (offset >= 0) & (offset < length)
            if back is not None:
                covers = covers & (which < n_regular)
            which, offset = torch.where(covers, which, 0), torch.where(covers, offset, 0)
            total = total + told[:, :, which, offset] * covers
            weight = weight + share[:, :, which, offset] * covers
        line = torch.where(seen.any(-1, keepdim=True), bridged(x, seen), mean.expand_as(x))
        answer = total / torch.where(weight > 0, weight, 1.0) * scale + mean
        return torch.where(seen, values, torch.where(weight > 0, answer, line).to(values.dtype))

    def _told(self, windows: Tensor, masks: Tensor) -> Tensor:
        """What the model makes of windows [B, C, w, L]: the same shape."""
        batch, n = windows.shape[0], windows.shape[2]
        told = self.model(windows.transpose(1, 2).flatten(0, 1), masks.transpose(1, 2).flatten(0, 1))  # [B*w, C, L]
        return told.unflatten(0, (batch, n)).transpose(1, 2)

    def _trust(self, masks: Tensor) -> Tensor:
        """How much a window says of a channel [B, C, w, 1]: hardly anything where it sees nothing of it."""
        some = masks.any(-1, keepdim=True)
        faint = module._FAINT if self.mixed else 0.0
        return some.double() + faint * (~some & some.any(1, keepdim=True)).double()


def impute_graph(imputer: Imputer) -> Graph:
    """The graph of a fitted imputer."""
    n_channels, length = imputer.n_channels_, int(imputer.context_length)
    reads = precision_for(imputer.scaler_.mean, imputer.scaler_.scale)
    inputs = {"values": Port(("batch", n_channels, "time"), reads, "the user's own", "NaN: missing")}
    example: tuple[Tensor, ...] = (torch.randn(2, n_channels, 2 * length + 5, dtype=getattr(torch, reads)),)
    if len(imputer.scaler_.mean) > 1:
        inputs["series"] = Port(("batch",), "int64", "number in series_names", "-1: a series that was not in training")
        example = (*example, torch.tensor([0, -1]))
    outputs = {
        "filled": Port(("batch", n_channels, "time"), reads, "the user's own", "without gaps; what was observed stays")
    }
    facts = {"context_length": length, "series_names": list(imputer.series_names_)}
    return Graph("impute", ImputeGraph(imputer).eval(), inputs, outputs, TimeRange(length), example, facts)
