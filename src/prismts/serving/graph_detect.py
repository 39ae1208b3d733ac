"""A detector as one graph: scaling, gaps, every judge, their scales, the score, the threshold and the alarms.

Each judge is the twin of one in ``prismts.models`` or ``prismts.tasks.detect``, for batches and any number of steps.
Arithmetic is in double precision; the networks run in single.
"""

# pyright: reportPrivateUsage=false
# a graph is the other form of its estimator
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prismts.errors import SettingsError
from prismts.estimators.detector import AnomalyDetector
from prismts.estimators.panel import Panel
from prismts.evaluation.thresholds import RobustScale
from prismts.models.detect_neighbors import KMeans, Neighbors
from prismts.models.detect_pca import PCA, Axes, SubPCA
from prismts.serving.graph import Graph, Port, TimeRange
from prismts.serving.graph_parts import (
    SeriesUnits,
    bridged,
    merged_copy,
    numbers,
    precision_for,
    spread,
    starts_with_the_end,
    window_maxima,
    window_sums,
    windows_at,
    windows_of,
)
from prismts.tasks.detect import TwoSidedLine
from prismts.tasks.reconstruct import Reconstruct

__all__ = ["DetectGraph", "detect_graph", "refused_judges"]

_REFUSED = {
    "iforest": "walks through the trees of a forest",
    "spectral_residual": "reads the spectrum of a whole series of any length",
    "matrix_profile": "searches the training part for the most similar window of each",
}
_BLOCKS = (4, 8)  # parts of a window that are hidden in turn, and the steps of one block, as in the estimator


def refused_judges(judges: Iterable[str] | None = None) -> dict[str, str]:
    """Of these judges (None: of all there are) those that no graph can hold, and what they do that none can."""
    return {name: _REFUSED[name] for name in (_REFUSED if judges is None else judges) if name in _REFUSED}


class DetectGraph(nn.Module):
    """Series [B, C, T], NaN where not observed, to scores [B, T], alarms [B, T] and contributions [B, C, T]."""

    def __init__(self, detector: AnomalyDetector) -> None:
        super().__init__()
        self.units = SeriesUnits(detector.scaler_)
        self.judges = nn.ModuleList()
        self.scales = nn.ModuleList()
        self.weights = [float(weight) for weight in detector.judges_.values()]
        self.largest_channel, self.n_channels = detector.recipe_.over_channels == "max", detector.n_channels_
        self.threshold = float(detector.threshold_.value)
        self.blame = _Still(detector) if np.isfinite(detector.still_).any() else None
        for name in detector.judges_:
            self.judges.append(_judge(detector.panel_, name))
            self.scales.append(_Scales(*detector.panel_.scales[name]))

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, C, T] to scores [B, T], 0 or 1 [B, T], and what each channel adds [B, C, T]."""
        x, seen = values.double(), ~values.isnan()
        mean, scale = self.units(x, seen)
        x = ((x - mean) / scale).masked_fill(~seen, 0.0)
        whole = bridged(x, seen)
        score, added, trusted = torch.zeros_like(x[:, 0]), torch.zeros_like(x), 0.0
        for judge, scales, weight in zip(self.judges, self.scales, self.weights, strict=True):
            scales = cast(_Scales, scales)
            verdict = scales.of_channels(judge(whole, seen))  # [B, C or 1, T]
            together = verdict.amax(1) if self.largest_channel else verdict.mean(1)
            score = score + weight * scales.of_whole(together)
            if scales.n_rows == self.n_channels:
                trusted += weight
                added = added + weight * verdict / scales.unit / self.n_channels
        score = score / sum(self.weights)
        added = added / trusted if trusted else (score[:, None] / self.n_channels).expand_as(x)
        if self.blame is not None:
            added = self.blame(added, x, seen)
        return score.float(), (score > self.threshold).long(), added.float()


def detect_graph(detector: AnomalyDetector) -> Graph:
    """The graph of a fitted detector.

    Raises:
        SettingsError: a judge cannot be written as a graph; the message names it.
    """
    refused = refused_judges(detector.panel_.closed)
    if refused:
        said = "; ".join(f"{name!r} {what}" for name, what in refused.items())
        raise SettingsError(
            f"This detector has a judge that cannot be written as a graph: {said}. Export a detector of the default "
            "setting, of 'sub_pca', 'pca', 'kmeans' or 'knn', or serve the model folder itself."
        )
    n_channels = detector.n_channels_
    panel = detector.panel_
    needed = max(panel.needed(name) for name in panel.weights) + 1  # a single window is no size for the exporter
    reads = precision_for(detector.scaler_.mean, detector.scaler_.scale)
    if detector.recipe_.beside or detector.recipe_.line:  # closed forms tell finer differences than rounding makes
        reads = detector.training_.dtype.name
    inputs = {"values": Port(("batch", n_channels, "time"), reads, "the user's own", "NaN: not observed")}
    units = "interquartile ranges above the usual"
    outputs = {
        "score": Port(("batch", "time"), "float32", units, "how unusual each step is: 0 is usual"),
        "alarm": Port(("batch", "time"), "int64", "0 or 1", "whether the score exceeds the threshold"),
        "contribution": Port(("batch", n_channels, "time"), "float32", units, "what each channel adds"),
    }
    facts: dict[str, Any] = {
        "context_length": detector.context_length_, "threshold": float(detector.threshold_.value),
        "threshold_found_by": detector.threshold_.words, "period": detector.period_, "judges": detector.judges_,
        "delay": detector.delay_, "reach": max(panel.reach(name)[0] for name in panel.weights),
        "networks": list(detector.networks_),
    }  # fmt: skip
    example = (torch.randn(2, n_channels, needed + 37, dtype=getattr(torch, reads)),)
    return Graph("detect", DetectGraph(detector).eval(), inputs, outputs, TimeRange(needed), example, facts)


class _Still(nn.Module):
    """The blame on channels that stood still in training and move now: see ``AnomalyDetector.contributions``."""

    value: Tensor
    rounding: Tensor

    def __init__(self, detector: AnomalyDetector) -> None:
        super().__init__()
        still, scaler = detector.still_[:, None], detector.scaler_
        windows = [judge.window_ for judge in detector.panel_.closed.values()]
        self.reach = int(max(windows, default=1)) - 1  # steps to either side of a move that share the blame
        self.register_buffer("value", numbers(scaler.transform(still)))  # [C, 1], NaN for a channel that moved
        rounding = np.maximum(1e-6 * np.abs(still), 1e-12) / scaler.scale[0][:, None]
        self.register_buffer("rounding", numbers(np.where(np.isnan(still), np.inf, rounding)))

    def forward(self, added: Tensor, x: Tensor, seen: Tensor) -> Tensor:
        """Contributions, scaled values and where they were observed, all [B, C, T], to contributions."""
        away = (x - torch.where(self.value.isnan(), x, self.value)).abs()
        away = away.masked_fill(~(seen & (away > self.rounding)), 0.0)
        if self.reach:
            beside = torch.zeros_like(away[..., :1]).expand(*away.shape[:-1], self.reach)
            away = window_maxima(torch.cat([beside, away, beside], dim=-1), 2 * self.reach + 1)
        most = added.amax(1, keepdim=True).clamp(min=0)
        return torch.where(away > 0, most + added.clamp(min=0) + away / (1 + away), added)


class _Scales(nn.Module):
    """Median and range of a judge's verdicts, by channel and over channels."""

    center: Tensor
    scale: Tensor
    middle: Tensor
    unit: Tensor

    def __init__(self, channels: RobustScale, whole: RobustScale) -> None:
        super().__init__()
        self.n_rows = len(channels.center)
        for name, values in (("center", channels.center), ("scale", channels.scale)):
            self.register_buffer(name, numbers(values)[:, None])  # [C or 1, 1]
        for name, value in (("middle", whole.center[0]), ("unit", whole.scale[0])):
            self.register_buffer(name, numbers(value))

    def of_channels(self, raw: Tensor) -> Tensor:
        """Verdicts [B, C or 1, T] on the scale of each channel; 0 where there is none."""
        verdict = (raw - self.center) / self.scale
        return torch.where(verdict.isnan(), torch.zeros_like(verdict), verdict)

    def of_whole(self, verdict: Tensor) -> Tensor:
        """Verdicts over channels [B, T] on one scale."""
        return (verdict - self.middle) / self.unit


# ---- judges: each reads scaled and bridged values [B, C, T] and where they were observed, and answers [B, C or 1, T]


def _judge(panel: Panel, name: str) -> nn.Module:
    if name in panel.closed:
        judge = panel.closed[name]
        if isinstance(judge, SubPCA):
            return _ChannelAxes(judge)
        if isinstance(judge, PCA):
            return _Windowed(judge, _Distances([judge.axes_]))
        if isinstance(judge, KMeans):
            return _Windowed(judge, _Nearest(judge.centers_, 1))
        assert isinstance(judge, Neighbors)
        return _Windowed(judge, _Nearest(judge.known_, judge.config.n_neighbors))
    if name == "line":
        assert panel.line is not None
        return _Line(panel.line, panel.box)
    network = merged_copy(panel.networks[name])
    if name == "forecast":
        return _Forecast(network, panel.context_length, panel.box)
    return _Reconstruction(network, panel.context_length, panel.box)


class _Windowed(nn.Module):
    """Scores of windows of all channels side by side, as the mean over the windows that cover a step."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, judge: Any, distance: nn.Module) -> None:
        super().__init__()
        self.window, self.distance = int(judge.window_), distance
        self.register_buffer("mean", numbers(judge.scale_.mean))  # [C, 1]
        self.register_buffer("deviation", numbers(judge.scale_.deviation))

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """[B, C, T] to [B, 1, T]."""
        windows = windows_of((x - self.mean) / self.deviation, self.window)  # [B, C, n, W]
        rows = windows.transpose(1, 2).flatten(2)  # [B, n, C*W]
        return spread(self.distance(rows[:, None]), self.window)


class _ChannelAxes(nn.Module):
    """Sub-PCA: each channel by its own axes."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, judge: SubPCA) -> None:
        super().__init__()
        self.window, self.distance = int(judge.window_), _Distances(judge.channels_)
        self.register_buffer("mean", numbers(judge.scale_.mean))  # [C, 1]
        self.register_buffer("deviation", numbers(judge.scale_.deviation))
        usual = judge.usual_
        self.register_buffer("usual", None if usual is None else numbers(usual)[..., None])  # [2, C, 1]

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """[B, C, T] to [B, C, T]."""
        scores = spread(self.distance(windows_of((x - self.mean) / self.deviation, self.window)), self.window)
        return (scores - self.usual[0]) / self.usual[1] if isinstance(self.usual, Tensor) else scores


class _Distances(nn.Module):
    """The distances of ``Axes``, one set of axes per channel; fewer directions of one are filled up with weight 0."""

    mean: Tensor
    deviation: Tensor
    vectors: Tensor
    weight: Tensor

    def __init__(self, axes: list[Axes]) -> None:
        super().__init__()
        self.measure = axes[0].measure
        most = max(one.vectors.shape[1] for one in axes)

        def filled(x: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.concatenate([x, np.zeros((*x.shape[:-1], most - x.shape[-1]))], axis=-1)

        self.register_buffer("mean", numbers(np.stack([one.mean for one in axes]))[:, None])  # [C, 1, W]
        self.register_buffer("deviation", numbers(np.stack([one.deviation for one in axes]))[:, None])
        self.register_buffer("vectors", numbers(np.stack([filled(one.vectors) for one in axes])))  # [C, W, K]
        self.register_buffer("weight", numbers(np.stack([filled(one.weight) for one in axes]))[..., None])  # [C, K, 1]

    def forward(self, x: Tensor) -> Tensor:
        """Windows [B, C, n, W] to [B, C, n]."""
        z = (x - self.mean) / self.deviation
        along = z @ self.vectors  # [B, C, n, K]
        length = z.square().sum(-1, keepdim=True)
        if self.measure == "vectors":
            return ((length + 1 - 2 * along).clamp(min=0).sqrt() @ self.weight)[..., 0]
        if self.measure == "mahalanobis":
            return (along.square() @ self.weight)[..., 0].sqrt()
        return (length[..., 0] - along.square().sum(-1)).clamp(min=0).sqrt()


class _Nearest(nn.Module):
    """The distance to the k-th nearest of some known rows."""

    known: Tensor
    squares: Tensor

    def __init__(self, known: NDArray[np.float64], k: int) -> None:
        super().__init__()
        self.k = k
        self.register_buffer("known", numbers(known).T.contiguous())  # [W, K]
        self.register_buffer("squares", numbers(np.einsum("kw,kw->k", known, known)))  # [K]

    def forward(self, x: Tensor) -> Tensor:
        """Rows [..., W] to [...]."""
        squares = x @ (-2 * self.known) + x.square().sum(-1, keepdim=True) + self.squares
        if self.k == 1:
            return squares.amin(-1).clamp(min=0).sqrt()
        return squares.topk(self.k, dim=-1, largest=False).values[..., self.k - 1].clamp(min=0).sqrt()


class _Line(nn.Module):
    """The line that tells a step from those on both sides of it."""

    weights: Tensor
    bias: Tensor

    def __init__(self, line: TwoSidedLine, box: int) -> None:
        super().__init__()
        self.reach, self.n_read, self.box = int(line.reach), len(line.offsets) // 2, box
        self.register_buffer("weights", numbers(line.weights[:, :-1])[..., None])  # [C, 2 * half, 1]
        self.register_buffer("bias", numbers(line.weights[:, -1])[:, None])  # [C, 1]

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """[B, C, T] to [B, C, T]."""
        windows = windows_of(x, 2 * self.reach + 1)  # [B, C, n, 2 * reach + 1]
        around = torch.cat([windows[..., : self.n_read], windows[..., -self.n_read :]], dim=-1)
        level = around.mean(-1, keepdim=True)
        told = ((around - level) @ self.weights)[..., 0] + self.bias + level[..., 0]
        errors = (windows[..., self.reach] - told).abs()
        unjudged = torch.full_like(x[..., : self.reach], torch.nan)
        errors = torch.cat([unjudged, errors, unjudged], dim=-1)
        return _box_mean(errors.masked_fill(~seen, torch.nan), self.box)


class _Forecast(nn.Module):
    """The distance of each step to the network's forecast of the steps before it."""

    def __init__(self, network: nn.Module, context_length: int, box: int) -> None:
        super().__init__()
        self.network, self.context_length, self.box = network, context_length, box

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """[B, C, T] to [B, C, T]."""
        length = self.context_length
        told = _through(
            lambda window, mask: self.network(window, mask)[..., 0],
            windows_of(x[..., :-1], length), windows_of(seen[..., :-1], length),
        )  # fmt: skip
        errors = (x[..., length:] - told).abs()
        errors = torch.cat([torch.full_like(x[..., :length], torch.nan), errors], dim=-1)
        return _box_mean(errors.masked_fill(~seen, torch.nan), self.box)


class _Reconstruction(nn.Module):
    """The distance of each step to what the network makes of it while it is hidden."""

    def __init__(self, network: nn.Module, context_length: int, box: int) -> None:
        super().__init__()
        self.network, self.context_length, self.box = network, context_length, box

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """[B, C, T] to [B, C, T]; which window judges a step is as in ``reconstruction_errors``."""
        length, n = self.context_length, x.shape[-1]
        hop = length // 2
        n_windows = (n - length) // hop + 1
        starts = starts_with_the_end(n, length, hop)
        windows = windows_at(x, starts, length)  # [B, C, w, L]
        told = _through(
            lambda window, mask: Reconstruct.judge(self.network, window, mask, n_parts=_BLOCKS[0], length=_BLOCKS[1]),
            windows, windows_at(seen, starts, length),
        )  # fmt: skip
        missed = (windows - told).abs()  # [B, C, w, L]
        step = torch.arange(n, device=x.device)
        first = hop - hop // 2  # step of a window at which it begins to judge
        own = torch.div(step - first, hop, rounding_mode="floor").clamp(min=0)
        at_the_end = own > n_windows - 1
        which = torch.where(at_the_end, n_windows, own)
        errors = missed[:, :, which, torch.where(at_the_end, step - (n - length), step - own * hop)]
        return _box_mean(errors.masked_fill(~seen, torch.nan), self.box)


def _through(read: Callable[[Tensor, Tensor], Tensor], windows: Tensor, seen: Tensor) -> Tensor:
    """What a network, in single precision, says of windows [B, C, n, L]: [B, C, n, ...] in double."""
    batch, n = windows.shape[0], windows.shape[2]
    # copied in order: torch.export cannot tell the order of axes of which one may be of size 1
    windows, seen = (
        x.transpose(1, 2).flatten(0, 1).clone(memory_format=torch.contiguous_format) for x in (windows, seen)
    )
    told = read(windows.float().masked_fill(~seen, 0.0), seen).double()
    return told.unflatten(0, (batch, n)).transpose(1, 2)


def _box_mean(x: Tensor, length: int) -> Tensor:
    """Mean of x [B, C, T] over the ``length`` steps around each that are not NaN: the twin of ``box_mean``."""
    if length <= 1:
        return x
    known = ~x.isnan()
    ahead = length // 2
    before, after = torch.zeros_like(x[..., : length - 1 - ahead]), torch.zeros_like(x[..., :ahead])
    sums = window_sums(torch.cat([before, x.masked_fill(~known, 0.0), after], dim=-1), length)
    counts = window_sums(torch.cat([before, known.to(x.dtype), after], dim=-1), length)
    return torch.where(counts > 0.5, sums / counts.clamp(min=1.0), torch.full_like(sums, torch.nan))
