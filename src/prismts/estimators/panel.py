"""The judges of a detector: what each says of every step, on one scale, and their weighted mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import nn

from prismts.errors import DataError
from prismts.estimators.base import on_device
from prismts.estimators.detect_recipes import DetectRecipe
from prismts.evaluation.thresholds import RobustScale
from prismts.models.detectors import Detector, make_detector
from prismts.tasks.detect import TwoSidedLine, box_mean, forecast_errors, reconstruction_delay, reconstruction_errors

__all__ = ["Array", "Panel"]

Array = NDArray[np.float64]
_FOLDS = 5  # blocks of training, each judged for the threshold by closed forms that have learned the others
_BLOCKS = (4, 8)  # parts of a window that are hidden in turn, and the steps of one block
_CHANNEL_WISE = ("SubPCA", "SpectralResidual", "MatrixProfile")  # closed forms that score each channel by itself
_SEEDED = ("iforest", "kmeans")
_ALL_STEPS = 2**40  # more than any series has


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """Networks and closed forms that look at scaled values x [C, T], and how their verdicts become one score.

    Networks are trained before; ``solved`` and ``calibrated`` return a panel that has learned the closed forms, and one
    that has the scales, as values: nothing changes in the one they are asked of.
    """

    recipe: DetectRecipe
    networks: nn.ModuleDict  # "forecast", "reconstruct", or none
    n_channels: int
    context_length: int  # steps the networks read at once
    period: int  # steps, over a share of which errors of networks and line are averaged
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the closed forms
    random_state: int = 0
    closed: Mapping[str, Detector] = field(default_factory=dict)  # closed forms by name
    line: TwoSidedLine | None = None
    scales: Mapping[str, tuple[RobustScale, RobustScale]] = field(default_factory=dict)  # of channels, and over them
    _inference: dict[str, nn.Module] = field(default_factory=dict, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Without the copies for inference, which the first answer makes anew."""
        return {**vars(self), "_inference": {}}

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each judge."""
        weights = dict.fromkeys(self.networks, self.recipe.weight)
        if self.recipe.line:
            weights["line"] = self.recipe.line
        return {**weights, **{name: float(weight) for name, weight in self.recipe.beside.items()}}

    @property
    def box(self) -> int:
        """Steps over which errors of networks and line are averaged."""
        return round(self.recipe.smooth * self.period)

    def reach(self, name: str) -> tuple[int, int]:
        """How many steps before it, and after it, the verdict of a judge on a step depends on."""
        if name in self.closed:
            if name == "spectral_residual":
                return _ALL_STEPS, _ALL_STEPS
            return self.closed[name].window_ - 1, self.closed[name].window_ - 1
        box = max(self.box, 1)
        if name == "line":
            assert self.line is not None
            return self.line.reach + box - 1 - box // 2, self.line.reach + box // 2
        ahead = reconstruction_delay(self.context_length) if name == "reconstruct" else 0
        return self.context_length + box - 1 - box // 2, ahead + box // 2

    def needed(self, name: str) -> int:
        """Steps that a judge needs to judge at all."""
        if name in self.closed:
            return self.closed[name].window_
        if name == "line":
            assert self.line is not None
            return 2 * self.line.reach + 1
        return self.context_length + (name == "forecast")

    @property
    def shortest(self) -> int:
        """Steps of a series that some judge can judge."""
        return min(self.needed(name) for name in self.weights)

    @property
    def delay(self) -> int:
        """After so many further steps a score is final."""
        return max(self.reach(name)[1] for name in self.weights)

    # ---- learning

    def solved(self, train: Array, windows: Mapping[str, int] | None = None) -> Self:
        """With closed forms from scaled values [C, total], with windows of their own choice or these."""
        given = {name: {"window": window} for name, window in (windows or {}).items()}
        seeded = {name: {"random_state": self.random_state} for name in _SEEDED}
        closed = {
            name: make_detector(name, **{**seeded.get(name, {}), **self.settings, **given.get(name, {})}).fit(train)
            for name in self.recipe.beside
        }
        return replace(self, closed=closed, line=TwoSidedLine(train) if self.recipe.line else None)

    def calibrated(self, verdicts: Mapping[str, Array], still: NDArray[np.bool_]) -> Self:
        """With the scales of every judge, from what it says of steps of training [C or 1, R].

        ``still`` [C] are the channels that never moved in training.
        """
        scales: dict[str, tuple[RobustScale, RobustScale]] = {}
        for name, raw in verdicts.items():
            parts = np.where(np.isnan(raw).all(axis=1, keepdims=True), 0.0, raw)  # no verdict
            if len(parts) == self.n_channels:
                parts[_only_rounding(parts, still)] = 0.0
            channels = RobustScale.fit(parts)
            whole = RobustScale.fit(self._over_channels(np.nan_to_num(channels.apply(parts)))[None])
            scales[name] = channels, whole
        return replace(self, scales=scales)

    def of_others(self, train: Sequence[Array]) -> tuple[dict[str, Array], bool]:
        """What each closed form, solved on all but one block of training, says of that block: [C or 1, total].

        And whether it was solved on that block too, where the rest alone is too short for it.
        """
        whole = np.concatenate(train, axis=1)  # [C, total]
        windows = {name: judge.window_ for name, judge in self.closed.items()}
        found: dict[str, list[Array]] = {name: [] for name in self.weights if name not in self.networks}
        begins = np.cumsum([0, *(x.shape[1] for x in train)])
        try:
            for first, last in pairwise(np.linspace(0, whole.shape[1], _FOLDS + 1).astype(int)):
                others = self.solved(np.concatenate([whole[:, :first], whole[:, last:]], axis=1), windows)
                for x, begin in zip(train, begins, strict=False):
                    a, b = max(0, first - begin), min(x.shape[1], last - begin)  # the steps of this series in the block
                    for name in found if a < b else ():
                        before, after = others.reach(name)
                        start = max(0, a - before)
                        found[name].append(others.raw(name, x[:, start : b + after])[:, a - start : b - start])
            learned = False
        except DataError:
            found, learned = {name: [self.raw(name, x) for x in train] for name in found}, True
        return {name: np.concatenate(verdicts, axis=1) for name, verdicts in found.items()}, learned

    # ---- judging

    def raw(self, name: str, x: Array) -> Array:
        """What a judge says of scaled values x [C, T]: [C, T], or [1, T] where it tells no channels apart.

        NaN where it has no verdict.
        """
        if name in self.closed:
            judge = self.closed[name]
            if x.shape[1] < judge.window_:
                return np.full((1, x.shape[1]), np.nan)
            if judge.__class__.__name__ in _CHANNEL_WISE:
                found = judge.contributions(x)
                assert found is not None
                return found
            return judge.score(x)[None]
        if name == "line":
            assert self.line is not None
            return box_mean(self.line.errors(x), self.box)
        if name not in self._inference:
            self._inference[name] = _in_double(self.networks[name])
        model = self._inference[name]
        if name == "forecast":
            errors = forecast_errors(model, x, self.context_length)
        else:
            errors = reconstruction_errors(model, x, self.context_length, n_parts=_BLOCKS[0], block=_BLOCKS[1])
        return box_mean(errors, self.box)

    def judged(self, x: Array) -> dict[str, Array]:
        """Every judge's verdict by channel [C or 1, T], on the scale of each channel; 0 where there is none."""
        return self.on_scale({name: self.raw(name, x) for name in self.weights})

    def on_scale(self, verdicts: Mapping[str, Array]) -> dict[str, Array]:
        """Raw verdicts on the scale of each channel; 0 where there is none."""
        found: dict[str, Array] = {}
        for name, raw in verdicts.items():
            scale = self.scales[name][0]
            found[name] = np.nan_to_num(scale.apply(np.broadcast_to(raw, (len(scale.center), raw.shape[1]))))
        return found

    def combined(self, judged: Mapping[str, Array]) -> Array:
        """The score [T], from the verdicts of all judges by channel."""
        weights = self.weights
        total = sum(
            weights[name] * self.scales[name][1].apply(self._over_channels(verdict)[None])[0]
            for name, verdict in judged.items()
        )
        return np.asarray(total) / sum(weights.values())

    def by_channel(self, judged: Mapping[str, Array]) -> Array:
        """What each channel adds to the score [C, T], from the verdicts of all judges by channel."""
        weights = self.weights
        telling = {name: one for name, one in judged.items() if len(one) == self.n_channels}
        if not telling:
            score = self.combined(judged)
            return np.broadcast_to(score / self.n_channels, (self.n_channels, len(score))).copy()
        total = sum(weights[name] for name in telling)
        found = np.zeros(next(iter(telling.values())).shape)
        for name, one in telling.items():
            found += weights[name] / total * one / float(self.scales[name][1].scale[0]) / self.n_channels
        return found

    def _over_channels(self, x: Array) -> Array:
        return x.max(axis=0) if self.recipe.over_channels == "max" else x.mean(axis=0)


def _only_rounding(verdicts: Array, still: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of the verdicts [C, T] on channels that stood ``still`` [C] are nothing but rounding beside the others."""
    size = np.nanmax(np.abs(verdicts), axis=1)
    usual = float(np.median(size[~still])) if not still.all() else 0.0
    return still & (size <= 1e-9 * usual)


def _in_double(model: nn.Module) -> nn.Module:
    """A copy for inference in double precision, where the device has it."""
    copy = on_device(model)
    place = next((p.device.type for p in copy.parameters()), "cpu")
    return (copy.cpu() if place == "mps" else copy).double()
