"""Named settings: how a model is built and trained, as one value that can be printed, compared and overridden."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from prismts.errors import SettingsError, unknown_name
from prismts.models import MODELS, Architecture
from prismts.training.fit import FitConfig

__all__ = [
    "FORECAST_SETTINGS",
    "NETWORK_FIT",
    "Member",
    "Recipe",
    "find_recipe",
    "gentle",
    "patches_for_context",
    "with_patches",
]


@dataclass(frozen=True, kw_only=True)
class Member:
    """What sets a network of an ensemble apart from the others, beside its seed."""

    context_length: int | None = None  # the last steps of the context, which it and its line are given; None: all
    model: str | None = None  # an architecture in place of the forecaster's
    settings: Mapping[str, Any] = field(default_factory=dict)  # of that architecture


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything about a forecaster that is not its data, its context or its horizon."""

    title: str
    model: Mapping[str, Any] = field(default_factory=dict)  # settings of the architecture
    fit: FitConfig = field(default_factory=FitConfig)
    line: str | None = "chosen"  # the straight line beside the network: a name of LINES, or None
    network_context: int | None = None  # steps at the end of the context that the network reads; None: as the line, all
    loss: str = "mse"
    head_dropout: float = 0.0
    n_members: int = 1  # networks whose mean is the forecast
    members: tuple[Member, ...] = (Member(),)  # what they are, in turn

    def member(self, i: int) -> Member:
        """What the network of this number is."""
        return self.members[i % len(self.members)]

    def context_of(self, i: int, context_length: int) -> int:
        """How many steps at the end of such a context the network of this number, and its line, is given."""
        return min(context_length, self.member(i).context_length or context_length)

    def network_reads(self, context_length: int) -> int:
        """How many steps of such a context the network reads."""
        return min(context_length, self.network_context or context_length)


def _published(dataset: str, kernels: tuple[int, ...], dropout: float, batch: int, rate: float) -> Recipe:
    """The authors' recipe for one data set, from their scripts, with blocks as their code builds them today.

    What they published belongs to blocks without the feed-forward pair (``feed_forward=0``): see ``convtimenet``.
    """
    return Recipe(
        title=f"the ConvTimeNet authors' setting for {dataset}",
        model={"patch_length": 32, "stride": 16, "kernel_sizes": kernels, "dropout": dropout, "zero_init": "all"},
        fit=FitConfig(
            max_epochs=10, patience=3, batch_size=batch, learning_rate=rate, schedule="paper", gradient_clip=None,
            drop_last=True,
        ),
        line=None,
    )  # fmt: skip


_SIX = (9, 11, 15, 21, 29, 39)
_PUBLISHED = {
    "ETTh1": _published("ETTh1", _SIX, 0.2, 256, 5e-4),
    "ETTh2": _published("ETTh2", (5, 7, 9, 11, 13, 15), 0.1, 256, 5e-4),
    "ETTm1": _published("ETTm1", _SIX, 0.2, 256, 5e-4),
    "ETTm2": _published("ETTm2", (11, 15, 19, 25, 33, 43, 55), 0.5, 256, 3e-4),
    "Weather": _published("Weather", (9, 11, 15, 19, 25, 33, 43), 0.5, 256, 5e-3),
    "Exchange": _published("Exchange", _SIX, 0.4, 16, 1e-4),
    "ILI": _published("ILI", _SIX, 0.5, 64, 5e-3),
}

_PATIENCE = 10  # epochs, where a number of epochs was asked for
_DEFAULT = Recipe(
    title="ConvTimeNet beside the lines that rolling folds choose, weighed on validation",
    model={"kernel_sizes": (7, 13, 19), "feed_forward": 128, "dropout": 0.3},
    fit=FitConfig(
        max_epochs=5,
        min_steps=250,
        patience=2,  # where the line is all there is to learn, validation says so after two epochs
        batch_size=64,
        learning_rate=1e-3,
        weight_decay=0.01,
        schedule="one_cycle",
    ),
    line="seasonal",
    loss="relative_mse",
    head_dropout=0.5,
)
_CHOSEN = replace(_DEFAULT, title="the default beside one line that rolling folds choose", line="chosen")
_GENTLE: Mapping[str, Any] = {"max_epochs": 2, "patience": 250, "learning_rate": 1e-4, "weight_decay": 1.0}
NETWORK_FIT: Mapping[str, Any] = {  # how a network learns that has no line beside it
    "max_epochs": 10, "patience": 3, "batch_size": 64, "learning_rate": 1e-3, "schedule": "one_cycle",
}  # fmt: skip

FORECAST_SETTINGS: dict[str, Recipe] = {
    "default": _DEFAULT,
    "chosen_line": _CHOSEN,
    "ridge_line": replace(_DEFAULT, title="the default beside the plain ridge", line="ridge"),
    "reverting_line": replace(
        _DEFAULT, title="the default beside a line that may pull to the mean of training", line="reverting"
    ),
    "individual_line": replace(
        _DEFAULT,
        title="the default beside a chosen line, another for each channel where folds say so",
        line="individual",
    ),
    "coupled_line": replace(
        _DEFAULT, title="the default beside such lines that read the other channels where folds say so", line="coupled"
    ),
    "seasonal_line": replace(
        _DEFAULT,
        title="the default, whose network reads the last 336 steps beside lines that read all of the context",
        network_context=336,
    ),
    "long_line": replace(
        _CHOSEN,
        title="a network of the last 336 steps beside one chosen line that reads all of the context",
        network_context=336,
    ),
    "two_contexts": replace(
        _CHOSEN,
        title="the mean of two, each beside one chosen line: all of the last 336 steps, and a line that reads all",
        network_context=336,
        n_members=2,
        members=(Member(context_length=336), Member()),
    ),
    "two_encoders": replace(
        _CHOSEN,
        title="the mean of two: a network of the last 336 steps, and a cross learner beside a line that reads all",
        network_context=336,
        n_members=2,
        members=(Member(context_length=336), Member(model="cross_learner")),
    ),
    "network": replace(
        _DEFAULT, title="the network of the default alone", line=None, loss="mse", fit=FitConfig(**NETWORK_FIT)
    ),
    "published": replace(_PUBLISHED["ETTh1"], title="the ConvTimeNet authors' form"),
    **{f"published/{name}": recipe for name, recipe in _PUBLISHED.items()},
}


def with_patches(model: Mapping[str, Any], patches: Mapping[str, int]) -> dict[str, Any]:
    """Settings with patches: those that are named, else these; a patch without a stride overlaps by half."""
    length = model.get("patch_length")
    if isinstance(length, int):
        patches = {"stride": max(1, length // 2)}
    return {**patches, **model}


def patches_for_context(context_length: int) -> dict[str, int]:
    """Patch length and stride over windows of this length: at least eleven tokens, however short the context."""
    length = min(32, max(2, context_length // 6))
    return {"patch_length": length, "stride": max(1, length // 2)}


def find_recipe(
    name: str, model: Mapping[str, Any] | None, fit: Mapping[str, Any] | None, architecture: Architecture | None = None
) -> Recipe:
    """The named recipe, with some of its settings replaced.

    "default" and "published" are both its authors' training, without a line beside it, for an ``architecture`` whose
    authors' training we follow. The other names, and all of them for an architecture of which none is known, are ways
    to train that belong to ConvTimeNet; the title says so.
    """
    if name not in FORECAST_SETTINGS:
        raise unknown_name("setting", name, FORECAST_SETTINGS)
    recipe = FORECAST_SETTINGS[name]
    if architecture is not None and architecture.fit and name in ("default", "published"):
        title = f"{architecture.title}, trained as by its authors"
        recipe = Recipe(title=title, fit=FitConfig(**architecture.fit), line=None)
    elif architecture is not None and architecture.is_trained and architecture is not MODELS["convtimenet"]:
        recipe = replace(recipe, title=f"{architecture.title}, trained as {recipe.title}")
    known = FitConfig.__dataclass_fields__
    for key in fit or {}:
        if key not in known:
            raise unknown_name("training setting", key, known)
    fit = dict(fit or {})
    if "max_epochs" in fit and recipe.fit.min_steps:  # who names the epochs wants no more of them, nor idle ones
        fit = {"min_steps": 0, "patience": _PATIENCE, **fit}
    try:
        trained = replace(recipe.fit, **fit)
    except TypeError as error:
        raise SettingsError(f"A training setting has a value of the wrong type: {error}.") from error
    return replace(recipe, model={**recipe.model, **(model or {})}, fit=trained)


def gentle(recipe: Recipe, given: Mapping[str, Any] | None) -> Recipe:
    """The recipe for a network that is to stay near its line, in which ``given`` training settings stay.

    It learns slowly and shortly. So it is trained where validation wants nothing of a network trained as usual, and
    where there is no validation to say how much of it should count (on two years of ETTh1 then .2 % ahead of the ridge,
    and 1.6 % behind when trained as usual). Without a line there is nothing to stay near to, and who names the epochs
    is asked for nothing else: then the recipe is left as it is.
    """
    if recipe.line is None or not recipe.fit.min_steps:
        return recipe
    slow = {key: value for key, value in _GENTLE.items() if key not in (given or {})}
    return replace(recipe, fit=replace(recipe.fit, **slow))
