"""A forecaster as one graph: scaling, gaps, the model, calibrated quantiles and the way back to the user's units."""

# pyright: reportPrivateUsage=false
# a graph is the other form of its estimator
from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prismts.estimators.forecaster import Forecaster
from prismts.layers.normalize import InstanceNorm
from prismts.serving.graph import Graph, Port, TimeRange
from prismts.serving.graph_parts import SeriesUnits, merged_copy, numbers, precision_for

__all__ = ["ForecastGraph", "forecast_graph"]


class ForecastGraph(nn.Module):
    """Past of any length [B, C, T], NaN where not observed, to the future [B, C, H], or [B, Q, C, H] with quantiles.

    The last ``context_length`` steps are read; where there are fewer, the missing past counts as not observed. A series
    that was not in training is scaled by all steps given.
    """

    def __init__(self, forecaster: Forecaster) -> None:
        super().__init__()
        self.units = SeriesUnits(forecaster.scaler_)
        self.model = merged_copy(forecaster.model_)
        self.context_length, self.has_quantiles = int(forecaster.context_length), forecaster.quantiles is not None
        self.normalize = InstanceNorm()
        offsets = forecaster.quantile_offsets_
        self.register_buffer("offsets", None if offsets is None else numbers(offsets).float())  # [Q, C, 1]

    def forward(self, values: Tensor, series: Tensor | None = None) -> Tensor:
        """[B, C, T] and the number of each series [B] to [B, C, H] or [B, Q, C, H], in the user's units."""
        x, seen = values.double(), ~values.isnan()
        mean, scale = self.units(x, seen, series)
        x = ((x - mean) / scale).float().masked_fill(~seen, 0.0)
        x, seen = _last(x, self.context_length), _last(seen, self.context_length)  # [B, C, L]
        y = self.model(x, seen)
        if not self.has_quantiles:
            return (y.double() * scale + mean).to(values.dtype)
        y = y.sort(dim=1).values
        if isinstance(self.offsets, Tensor):
            unit = self.normalize(x, seen)[1].scale[:, None]
            for offsets in self.offsets.reshape(-1, *self.offsets.shape[-3:]):
                y = (y + unit * offsets).sort(dim=1).values
        return (y.double() * scale[:, None] + mean[:, None]).to(values.dtype)


def forecast_graph(forecaster: Forecaster) -> Graph:
    """The graph of a fitted forecaster."""
    n_channels, length = forecaster.n_channels_, int(forecaster.context_length)
    several = len(forecaster.scaler_.mean) > 1
    stored = forecaster.tails_.values.dtype
    reads = "float32" if stored == np.float32 else precision_for(forecaster.scaler_.mean, forecaster.scaler_.scale)
    inputs = {"values": Port(("batch", n_channels, "time"), reads, "the user's own", "past, NaN: not observed")}
    example: tuple[Tensor, ...] = (torch.randn(2, n_channels, length + 3, dtype=getattr(torch, reads)),)
    if several:
        inputs["series"] = Port(("batch",), "int64", "number in series_names", "-1: a series that was not in training")
        example = (*example, torch.tensor([0, -1]))
    if forecaster.quantiles is None:
        levels, axes = None, ("batch", n_channels, int(forecaster.horizon))
        outputs = {"forecast": Port(axes, reads, "the user's own", "the steps after the last one given")}
    else:
        levels = [float(q) for q in forecaster.quantiles]
        axes = ("batch", len(levels), n_channels, int(forecaster.horizon))
        outputs = {"quantiles": Port(axes, reads, "the user's own", "one forecast for each level, rising")}
    facts: dict[str, Any] = {
        "context_length": length, "horizon": int(forecaster.horizon), "quantiles": levels,
        "series_names": list(forecaster.series_names_),
        "line": forecaster.line_, "network_share": forecaster.network_share_,
    }  # fmt: skip
    return Graph("forecast", ForecastGraph(forecaster).eval(), inputs, outputs, TimeRange(1), example, facts)


def _last(x: Tensor, length: int) -> Tensor:
    """The last ``length`` steps of [B, C, T], with zeros (or False) before them where there are fewer."""
    before = torch.zeros_like(x[..., :1]).expand(*x.shape[:-1], length)
    return torch.cat([before, x], dim=-1)[..., -length:]
