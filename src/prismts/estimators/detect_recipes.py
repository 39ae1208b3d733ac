"""Named settings of the anomaly detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from prismts.errors import SettingsError, unknown_name
from prismts.models.detectors import DETECTORS
from prismts.training.fit import FitConfig

__all__ = ["DETECT_SETTINGS", "DetectRecipe", "find_detect_recipe"]


@dataclass(frozen=True, kw_only=True)
class DetectRecipe:
    """Everything about a detector that is not its data or its context."""

    title: str
    networks: bool = True  # whether networks are trained; else only the closed forms judge
    beside: Mapping[str, float] = field(default_factory=dict)  # names of DETECTORS beside the networks, their weights
    line: float = 0.0  # weight of the line that tells a step from both sides; 0 for none
    weight: float = 1.0  # of each network
    smooth: float = 0.25  # dominant periods around a step over which errors of networks and line are averaged; 0: none
    over_channels: Literal["mean", "max"] = "mean"
    model: Mapping[str, Any] = field(default_factory=dict)  # settings of the architecture
    fit: FitConfig = field(default_factory=FitConfig)
    n_members: int = 1  # networks that differ in their seed, whose mean is the answer

    def __post_init__(self) -> None:
        for name, weight in self.beside.items():
            if name not in DETECTORS:
                raise unknown_name("detector", name, DETECTORS)
            if weight <= 0:
                raise SettingsError(f"A weight is above 0, but {name!r} has {weight}. Leave it out instead.")
        if not self.networks and not self.beside and not self.line:
            raise SettingsError("A detector without networks needs a closed form beside them, but got none.")
        if self.over_channels not in ("mean", "max"):
            raise unknown_name("way over channels", self.over_channels, ("mean", "max"))


_COMBINED = DetectRecipe(
    title="ConvTimeNet beside sliding-window PCA, nearest windows and a line from both sides",
    line=1.0,
    weight=0.5,
    beside={"sub_pca_mahalanobis": 1.0, "knn": 1.0},
    model={"patch_length": 8, "stride": 4, "width": 32, "feed_forward": 64, "kernel_sizes": (5, 9, 13), "dropout": 0.1},
    fit=FitConfig(max_epochs=3, min_steps=200, patience=20, batch_size=64, learning_rate=2e-3, schedule="one_cycle"),
)

DETECT_SETTINGS: dict[str, DetectRecipe] = {
    "default": replace(_COMBINED, title="the closed forms alone: no network is trained", networks=False),
    "combined": _COMBINED,
    "network": replace(_COMBINED, title="the networks alone", beside={}, line=0.0),
}


def find_detect_recipe(name: str, model: Mapping[str, Any] | None, fit: Mapping[str, Any] | None) -> DetectRecipe:
    """The named recipe, with some of its settings replaced."""
    if name not in DETECT_SETTINGS:
        raise unknown_name("setting", name, DETECT_SETTINGS)
    recipe = DETECT_SETTINGS[name]
    return replace(recipe, model={**recipe.model, **(model or {})}, fit=recipe.fit.changed(fit))
