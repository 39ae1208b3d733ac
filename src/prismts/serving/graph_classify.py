"""A classifier as one graph: scaling, gaps, the end of each case, networks and closed form, probabilities and class."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prismts.estimators.classifier import Classifier
from prismts.layers.hydra import KERNEL_LENGTH, HydraMap
from prismts.layers.missing import bridge
from prismts.models.contract import Encoder
from prismts.models.stacked import Stacked
from prismts.serving.graph import Graph, Port, TimeRange
from prismts.serving.graph_parts import SeriesUnits, merged_copy, precision_for

__all__ = ["ClassifyGraph", "PaddedHydra", "classify_graph"]


class PaddedHydra(nn.Module):
    """A ``HydraMap`` on cases that end before the window does: equal to it on each case cut to its own length.

    What lies behind the end is zero for the kernels, as the padding around a case is, and no step there is counted.
    Winners are counted by comparing, not by scattering.
    """

    def __init__(self, line: HydraMap) -> None:
        super().__init__()
        self.line = line

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """[B, C, T] and its mask, each case ending with its last observed step, to class scores [B, K]."""
        return self.line.score(self.features(x, seen))

    def features(self, x: Tensor, seen: Tensor) -> Tensor:
        """[B, C, T] to [B, F]."""
        line, n = self.line, x.shape[-1]
        step = torch.arange(n, device=x.device)
        length = torch.where(seen.any(1), step + 1, 0).amax(-1)[:, None, None]  # [B, 1, 1]
        inside = step < length  # [B, 1, T]
        x = bridge(x, seen)
        change = F.pad(x[..., 1:] - x[..., :-1], (1, 0)).masked_fill(~inside, 0.0)
        x = x.masked_fill(~inside, 0.0)
        half, number = line.n_groups // 2, torch.arange(line.n_kernels, device=x.device)[:, None]
        found: list[Tensor] = []
        for d, dilation in enumerate(line.dilations):
            for source, groups in ((x, slice(0, half)), (change, slice(half, line.n_groups))):
                read = torch.matmul(line.mixes[d, groups], source)  # [B, G, T]
                kernels = line.kernels[d, groups].flatten(0, 1)[:, None]  # [G*k, 1, 9]
                padding = (KERNEL_LENGTH // 2) * dilation
                fit = F.conv1d(read, kernels, padding=padding, dilation=dilation, groups=read.shape[1])
                fit = fit.unflatten(1, (read.shape[1], line.n_kernels))  # [B, G, k, T]
                best, worst = fit.argmax(2, keepdim=True), fit.argmin(2, keepdim=True)
                counted = inside[:, None]  # [B, 1, 1, T]
                found.append(fit.masked_fill(~((best == number) & counted), 0.0).sum(-1).flatten(1))
                found.append(((worst == number) & counted).to(x.dtype).sum(-1).flatten(1))
        share = line.n_timepoints / length[..., 0].clamp(min=1).to(x.dtype)  # [B, 1]
        return (torch.cat(found, dim=1) * share).clamp(min=0).sqrt()


class ClassifyGraph(nn.Module):
    """Cases [B, C, T], NaN where not observed and behind their end, to probabilities [B, K] and class numbers [B]."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.units = SeriesUnits(classifier.scaler_)
        stacked = cast(Stacked, merged_copy(classifier.model_))
        if isinstance(stacked.line, HydraMap):
            stacked.line = PaddedHydra(stacked.line)
        self.model, self.n_timepoints = stacked, classifier.n_timepoints_

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, T] to the probability of each class [B, K] and the number of the likeliest [B]."""
        seen = ~values.isnan()
        mean, scale = self.units(values, seen)
        x = ((values.double() - mean) / scale).float().masked_fill(~seen, 0.0)
        x, seen = _first(x, self.n_timepoints), _first(seen, self.n_timepoints)
        probabilities = self.model(x, seen).softmax(1)
        return probabilities, probabilities.argmax(1)


def classify_graph(classifier: Classifier) -> Graph:
    """The graph of a fitted classifier.

    Networks that mix channels heed where a case ends, so cases may be shorter than the longest of training. One that
    reads channels apart does not, and its graph reads cases of that length only.
    """
    n_channels, longest, labels = classifier.n_channels_, classifier.n_timepoints_, classifier.classes_.tolist()
    heeds = all(cast(Encoder, member).n_groups_of == "window" for member in classifier.members_)
    time = TimeRange(1 if heeds else longest, longest)
    steps = "time" if heeds and longest > 1 else longest
    reads = precision_for(classifier.scaler_.mean, classifier.scaler_.scale)
    inputs = {
        "values": Port(
            ("batch", n_channels, steps), reads, "the user's own",
            "cases from their first step on; NaN: not observed, and behind the end of a shorter case",
        )
    }  # fmt: skip
    kind = {bool: "bool", int: "int64", float: "float64"}.get(type(labels[0]), "string")
    outputs = {
        "probability": Port(("batch", len(labels)), "float32", "from 0 to 1", "of each class, in the order of classes"),
        "class": Port(("batch",), "int64", "number in classes", "the likeliest class"),
        "label": Port(("batch",), kind, "a label", "the likeliest class by its name (ONNX only)"),
    }
    example = (torch.randn(2, n_channels, longest, dtype=getattr(torch, reads)),)
    facts = {"classes": labels, "n_timepoints": longest, "weights": list(classifier.weights_)}
    return Graph("classify", ClassifyGraph(classifier).eval(), inputs, outputs, time, example, facts)


def _first(x: Tensor, length: int) -> Tensor:
    """The first ``length`` steps of [B, C, T], with zeros (or False) behind them where there are fewer."""
    behind = torch.zeros_like(x[..., :1]).expand(*x.shape[:-1], length)
    return torch.cat([x, behind], dim=-1)[..., :length]
