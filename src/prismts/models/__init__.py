"""normalize -> patch -> encode -> head: one file per architecture, and MODELS is the dictionary of them all."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from prismts.errors import SettingsError, unknown_name
from prismts.models.convtimenet import ConvTimeNet, ConvTimeNetConfig
from prismts.models.cross_learner import CrossLearner, CrossLearnerConfig
from prismts.models.floors import LastValue, LastValueConfig, Ridge, RidgeConfig, SeasonalNaive, SeasonalNaiveConfig

__all__ = ["MODELS", "Architecture", "find_model", "make_settings"]


@dataclass(frozen=True)
class Architecture:
    """A name's class and settings.

    An encoder is built as ``build(config, n_channels=, context_length=)`` and carries the head of any task; a direct
    forecaster has no tokens and is built with a ``horizon`` besides.
    """

    build: Callable[..., nn.Module]
    config: type
    title: str
    is_encoder: bool = True
    is_trained: bool = True  # by gradient steps; else it is solved in closed form or has nothing to learn


MODELS: dict[str, Architecture] = {
    "convtimenet": Architecture(
        ConvTimeNet, ConvTimeNetConfig, "ConvTimeNet (2024): deformable patches, large kernels"
    ),
    "cross_learner": Architecture(
        CrossLearner, CrossLearnerConfig, "CNN-GRU cross learner: two paths that correct each other in every block"
    ),
    "ridge": Architecture(Ridge, RidgeConfig, "one closed-form line for all channels", False, False),
    "seasonal_naive": Architecture(SeasonalNaive, SeasonalNaiveConfig, "the last season again", False, False),
    "last_value": Architecture(LastValue, LastValueConfig, "the last value again", False, False),
}


def find_model(name: str) -> Architecture:
    """The architecture of this name, or an error that offers the nearest one."""
    if name not in MODELS:
        raise unknown_name("model", name, MODELS)
    return MODELS[name]


def make_settings(config: type, settings: Mapping[str, Any]) -> Any:
    """A frozen settings dataclass from a mapping; an unknown setting is an error that offers its nearest neighbor."""
    known = [f.name for f in dataclasses.fields(config)]
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"It has: {', '.join(known) or 'none'}."
            raise SettingsError(f"{config.__name__} has no setting {name!r}. {hint}")
    return config(**{name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()})
