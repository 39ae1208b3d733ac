"""normalize -> patch -> encode -> head: one file per architecture, and MODELS is the dictionary of them all."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from prismts.errors import SettingsError, unknown_name
from prismts.models.convtimenet import ConvTimeNet, ConvTimeNetConfig
from prismts.models.cross_learner import CrossLearner, CrossLearnerConfig
from prismts.models.cyclenet import CycleNet, CycleNetConfig
from prismts.models.deformabletst import DeformableTST, DeformableTSTConfig
from prismts.models.dlinear import DLinear, DLinearConfig
from prismts.models.floors import (
    ChosenLines,
    CoupledLines,
    LastValue,
    LastValueConfig,
    Ridge,
    RidgeConfig,
    SeasonalLines,
    SeasonalNaive,
    SeasonalNaiveConfig,
)
from prismts.models.formertime import FormerTime, FormerTimeConfig
from prismts.models.itransformer import ITransformer, ITransformerConfig
from prismts.models.language import LanguageConfig, LanguageEncoder
from prismts.models.language_patchwise import PatchwiseEncoder, PatchwiseForecaster
from prismts.models.language_reprogram import ReprogrammedEncoder, TimeLLMConfig
from prismts.models.lwconvtimenet import LwConvTimeNet, LwConvTimeNetConfig
from prismts.models.moderntcn import ModernTCN, ModernTCNConfig
from prismts.models.patchtst import PatchTST, PatchTSTConfig
from prismts.models.timemae import TimeMAE, TimeMAEConfig
from prismts.models.timesnet import TimesNet, TimesNetConfig, TimesNetForecaster
from prismts.models.universal import UniversalEncoder, UniversalEncoderConfig

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
    forecaster: Callable[..., nn.Module] | None = None  # of an encoder whose paper forecasts in a form of its own
    fit: Mapping[str, Any] = field(default_factory=dict)  # how its authors train it to forecast, where we follow them
    classify: Mapping[str, Any] = field(default_factory=dict)  # settings that differ where classes are told apart


_AUTHORS = {"schedule": "paper", "gradient_clip": None}
_HALVING = {**_AUTHORS, "schedule": "halving", "max_epochs": 10, "patience": 3, "batch_size": 32, "learning_rate": 1e-4}

MODELS: dict[str, Architecture] = {
    "convtimenet": Architecture(
        ConvTimeNet, ConvTimeNetConfig, "ConvTimeNet (2024): deformable patches, large kernels"
    ),
    "cross_learner": Architecture(
        CrossLearner, CrossLearnerConfig, "CNN-GRU cross learner: two paths that correct each other in every block"
    ),
    "lwconvtimenet": Architecture(
        LwConvTimeNet, LwConvTimeNetConfig, "LwConvTimeNet: deformable patches, plain convolutions (our reading)"
    ),
    "moderntcn": Architecture(
        ModernTCN,
        ModernTCNConfig,
        "ModernTCN (2024): large kernels, then features and variables in turn",
        # theirs go on to 100, at less than a twentieth of the rate
        fit={**_AUTHORS, "max_epochs": 30, "patience": 10, "batch_size": 512, "learning_rate": 1e-4},
        classify={"normalize": False, "joined": True},
    ),
    "deformabletst": Architecture(
        DeformableTST,
        DeformableTSTConfig,
        "DeformableTST (2024): attention to places that the window chooses",
        # theirs on ETTh2; on ETTh1 it is "warm_cosine", 50 epochs at 5e-4
        fit={**_HALVING, "patience": 10, "batch_size": 512, "learning_rate": 1e-3, "weight_decay": 0.05},
    ),
    "formertime": Architecture(
        FormerTime,
        FormerTimeConfig,
        "FormerTime (2023): a transformer of several scales, for classification",
        classify={"normalize": False},
    ),
    "timemae": Architecture(
        TimeMAE,
        TimeMAEConfig,
        "TimeMAE (2023): a transformer over slices, to be pre-trained",
        classify={"normalize": False},
    ),
    "patchtst": Architecture(
        PatchTST,
        PatchTSTConfig,
        "PatchTST (2023): a transformer over patches of one channel",
        # theirs go on to 100, at less than a tenth of the rate
        fit={**_AUTHORS, "max_epochs": 30, "patience": 5, "batch_size": 128, "learning_rate": 1e-4},
    ),
    "itransformer": Architecture(
        ITransformer,
        ITransformerConfig,
        "iTransformer (2024): one token per channel, attention over channels",
        fit=_HALVING,
    ),
    "timesnet": Architecture(
        TimesNet,
        TimesNetConfig,
        "TimesNet (2023): windows folded along their strongest periods",
        forecaster=TimesNetForecaster,
        fit=_HALVING,
    ),
    "universal": Architecture(
        UniversalEncoder,
        UniversalEncoderConfig,
        "universal encoder: patches of several lengths, the spectrum, channels that exchange",
    ),
    "gpt4ts": Architecture(
        LanguageEncoder,
        LanguageConfig,
        "GPT4TS (2023): patches read by a pretrained language model",
        fit={**_AUTHORS, "schedule": "one_cycle", "max_epochs": 10, "learning_rate": 1e-4},
    ),
    "allm4ts": Architecture(
        PatchwiseEncoder,
        LanguageConfig,
        "aLLM4TS (2024): a language model that decodes the future patch by patch",
        forecaster=PatchwiseForecaster,
        fit={**_AUTHORS, "max_epochs": 100, "batch_size": 32},
    ),
    "timellm": Architecture(
        ReprogrammedEncoder,
        TimeLLMConfig,
        "Time-LLM (2024): patches told in the words of a frozen language model",
        fit={**_HALVING, "patience": 10, "batch_size": 24, "learning_rate": 4e-4},
    ),
    "dlinear": Architecture(
        DLinear,
        DLinearConfig,
        "DLinear (2023): one line for the trend, one for the rest",
        is_encoder=False,
        fit={**_HALVING, "learning_rate": 1e-3},  # theirs is chosen per set, from 1e-4 to 0.05
    ),
    "cyclenet": Architecture(
        CycleNet,
        CycleNetConfig,
        "CycleNet (2024): a learned cycle and a line for the rest",
        is_encoder=False,
        fit={**_AUTHORS, "max_epochs": 30, "patience": 5, "batch_size": 256, "learning_rate": 5e-3},
    ),
    "chosen_lines": Architecture(ChosenLines, RidgeConfig, "lines that folds choose, no network", False, False),
    "seasonal_lines": Architecture(SeasonalLines, RidgeConfig, "lines of steps, days and weeks", False, False),
    "coupled_lines": Architecture(CoupledLines, RidgeConfig, "these and what all channels did", False, False),
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
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    needed = [f.name for f in dataclasses.fields(config) if f.default is f.default_factory is dataclasses.MISSING]
    try:
        return config(**given)
    except TypeError as error:
        if not set(needed) <= set(given):
            raise
        raise SettingsError(f"A setting of {config.__name__} has a value of the wrong type: {error}.") from error
