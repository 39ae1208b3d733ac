"""Named settings of the classifier, and the rule that proposes patches and kernels from the length of the cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from prismts.errors import SettingsError, unknown_name
from prismts.estimators.recipes import with_patches
from prismts.tasks.classify import Augmentation
from prismts.training.fit import FitConfig

__all__ = ["CLASSIFY_SETTINGS", "CaseRecipe", "find_case_recipe", "fit_for", "patched", "patches_for"]


@dataclass(frozen=True, kw_only=True)
class CaseRecipe:
    """Everything about a classifier that is not its data."""

    title: str
    model: Mapping[str, Any] = field(default_factory=dict)  # settings of the architecture
    fit: FitConfig = field(default_factory=FitConfig)
    scaling: str = "standard"  # of a channel over the training cases, see scaler_of_cases
    line: bool = True  # whether the closed-form classifier stands beside the network
    pooling: str = "both"
    head_dropout: float = 0.2
    label_smoothing: float = 0.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    most_steps: int | None = None  # fewer epochs than the training settings say, but ten, where cases are many
    n_members: int = 1  # networks per fold that differ in their seed
    pretrain: FitConfig | None = None  # first without labels, by decoupled masking: for "timemae" only


_DEFAULT = CaseRecipe(
    title="ConvTimeNet with mixed channels beside competing random kernels",
    model={"channels": "mixed", "kernel_sizes": (7, 13, 19), "dropout": 0.2, "residual": 0.5},
    fit=FitConfig(
        max_epochs=60, min_steps=300, patience=60, batch_size=32, learning_rate=1e-3, weight_decay=0.05,
        schedule="one_cycle",
    ),
    augmentation=Augmentation(jitter=0.05, stretch=0.1, shift=0.1, mix=0.3),
    most_steps=1500,
)  # fmt: skip


def _published(dataset: str, patch: int, kernels: tuple[int, int, int], decay: int) -> CaseRecipe:
    """The authors' recipe for one data set, from their scripts."""
    return CaseRecipe(
        title=f"the ConvTimeNet authors' setting for {dataset}",
        model={
            "channels": "mixed", "patch_length": patch, "stride": patch // 2,
            "kernel_sizes": tuple(k for k in kernels for _ in range(2)), "dropout": 0.1, "residual": 0.5,
            "zero_init": "none",
        },
        fit=FitConfig(
            max_epochs=100, patience=100, batch_size=32, learning_rate=1e-3, schedule=f"paper_every_{decay}",
            gradient_clip=4.0,
        ),
        scaling="range", line=False, pooling="max", head_dropout=0.0,
    )  # fmt: skip


_SMALL, _MIDDLE, _LARGE = (7, 13, 19), (19, 29, 37), (37, 43, 53)
_PUBLISHED = {
    "AWR": _published("AWR", 32, _MIDDLE, 5),
    "EP": _published("EP", 4, _LARGE, 5),
    "FM": _published("FM", 64, _SMALL, 20),
    "JV": _published("JV", 4, _SMALL, 5),
    "SRS2": _published("SRS2", 32, _LARGE, 20),
}

_PRETRAINED = replace(
    _DEFAULT,
    title="TimeMAE, pre-trained on the same cases without their labels, beside competing random kernels",
    pretrain=FitConfig(
        max_epochs=100, patience=100, batch_size=64, learning_rate=1e-3, weight_decay=0.01, schedule="constant"
    ),
)

CLASSIFY_SETTINGS: dict[str, CaseRecipe] = {
    "default": _DEFAULT,
    "network": replace(_DEFAULT, title="the default without the closed-form classifier", line=False),
    "pretrained": _PRETRAINED,
    "pretrained_network": replace(
        _PRETRAINED, title="TimeMAE, pre-trained on the same cases without their labels, alone", line=False
    ),
    "published": replace(_PUBLISHED["AWR"], title="the ConvTimeNet authors' form"),
    **{f"published/{name}": recipe for name, recipe in _PUBLISHED.items()},
}


def find_case_recipe(name: str, model: Mapping[str, Any] | None, fit: Mapping[str, Any] | None) -> CaseRecipe:
    """The named recipe, with some of its settings replaced."""
    if name not in CLASSIFY_SETTINGS:
        raise unknown_name("setting", name, CLASSIFY_SETTINGS)
    recipe = CLASSIFY_SETTINGS[name]
    if "max_epochs" in (fit or {}):
        recipe = replace(recipe, most_steps=None)
    return replace(recipe, model={**recipe.model, **(model or {})}, fit=recipe.fit.changed(fit))


def fit_for(recipe: CaseRecipe, n_cases: int) -> FitConfig:
    """How to train on so many cases."""
    if recipe.most_steps is None:
        return recipe.fit
    steps = -(-n_cases // recipe.fit.batch_size)
    return replace(recipe.fit, max_epochs=min(recipe.fit.max_epochs, max(10, -(-recipe.most_steps // steps))))


def patches_for(n_timepoints: int) -> dict[str, int]:
    """Patch length and stride for cases of this length: about 32 tokens, each at least 4 steps long.

    A kernel longer than 2N-1 over N tokens has taps that never meet a token, so short cases need short patches.
    """
    if n_timepoints < 2:
        raise SettingsError(f"Cases need at least 2 steps to be cut into patches, but the longest has {n_timepoints}.")
    length = min(max(4, n_timepoints // 16), 32, n_timepoints)
    return {"patch_length": length, "stride": max(1, length // 2)}


def patched(model: Mapping[str, Any], n_timepoints: int) -> dict[str, Any]:
    """Settings of a ConvTimeNet for cases of this length, with their patches, named or not; points have none."""
    if model.get("patches") == "points":
        return dict(model)
    return with_patches(model, {} if "patch_length" in model else patches_for(n_timepoints))
