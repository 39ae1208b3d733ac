"""What a search may change: named ranges and choices, and how a point among them becomes settings.

Three kinds of names stand side by side:

- the shape of the network: ``tokens``, ``stages`` (blocks), ``width``, ``reach`` (of the longest kernel, in shares of
  the tokens), ``expansion`` (of the width in the pointwise pair), and under a budget ``fill``, the share to spend;
- settings of ConvTimeNet, such as ``dropout``, ``patch_length``, ``kernel_sizes``, ``patches``;
- settings of training, such as ``learning_rate``, ``batch_size``, ``weight_decay``.

Under a budget the numbers of the shape are proportions: the largest network of these proportions within the budget is
what is trained.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, cast

from prismts.analysis.proposal import proportions, propose
from prismts.analysis.shape import Shape, Site, TapUse, fitted, macs_of, settings_of, shape_of, tap_use
from prismts.errors import SettingsError, unknown_name
from prismts.models import make_settings
from prismts.models.convtimenet import ConvTimeNetConfig
from prismts.training.fit import FitConfig

__all__ = [
    "DEFAULT_SPACE", "DIMENSIONS", "Candidate", "Choice", "Dimension", "Place", "Range", "candidate", "candidate_of",
    "dimension", "first_points", "follows_from", "rule_candidate",
]  # fmt: skip

SHAPE = {"tokens": "int", "stages": "int", "width": "int", "reach": "float", "expansion": "float", "fill": "float"}
_FIELD_OF = {"tokens": "n_tokens", "stages": "depth", "width": "width", "reach": "reach", "expansion": "expansion"}
_MODEL = {one.name: str(one.type) for one in fields(ConvTimeNetConfig) if one.name not in ("channels", *SHAPE)}
_FIT = {one.name: str(one.type) for one in fields(FitConfig)}
DIMENSIONS: dict[str, str] = {**SHAPE, **_MODEL, **_FIT}  # every name a space may have, and its type
_EITHER = (("patch_length", "tokens"), ("stride", "tokens"), ("kernel_sizes", "stages"), ("kernel_sizes", "reach"),
           ("feed_forward", "expansion"))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers from ``low`` to ``high``, both included."""

    low: float
    high: float
    log: bool = False  # drawn by order of magnitude
    step: float | None = None
    whole: bool = False

    def nearest(self, value: Any) -> float | int:
        """The number of the range that is nearest to a value."""
        value = min(max(float(value), self.low), self.high)
        if self.step:
            value = min(self.low + round((value - self.low) / self.step) * self.step, self.high)
        return round(value) if self.whole else value

    def suggest(self, trial: Any, name: str) -> Any:
        """Ask Optuna for a number."""
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return trial.suggest_float(name, self.low, self.high, log=self.log, step=self.step)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of several values of any kind."""

    options: tuple[Any, ...]

    def nearest(self, value: Any) -> str:
        """The option that equals a value, else the nearest number, else the first; as Optuna keeps it."""
        told = [json.dumps(option) for option in self.options]
        if (text := json.dumps(value)) in told:
            return text
        numbers = [one for one in self.options if isinstance(one, int | float) and not isinstance(one, bool)]
        if len(numbers) == len(told) and isinstance(value, int | float):
            return json.dumps(min(numbers, key=lambda one: abs(one - value)))
        return told[0]

    def suggest(self, trial: Any, name: str) -> Any:
        """Ask Optuna for one; lists and None travel as JSON."""
        return json.loads(trial.suggest_categorical(name, [json.dumps(option) for option in self.options]))


Dimension = Range | Choice

_SHAPES: dict[str, Dimension] = {
    "tokens": Range(low=8, high=64, log=True, whole=True),
    "stages": Range(low=1, high=6, whole=True),
    "width": Range(low=16, high=128, log=True, whole=True),
    "reach": Range(low=0.1, high=2.0, log=True),
    "expansion": Choice(options=(0, 2, 4)),
}
DEFAULT_SPACE: dict[str, dict[str, Dimension]] = {
    "forecast": {
        "learning_rate": Range(low=3e-5, high=3e-3, log=True), "dropout": Range(low=0.0, high=0.6), **_SHAPES,
    },
    "classify": {
        "learning_rate": Range(low=1e-4, high=5e-3, log=True), "dropout": Range(low=0.0, high=0.5), **_SHAPES,
    },
}  # fmt: skip
FILL = Range(low=0.1, high=1.0, log=True)  # joins the space where there is a budget


def dimension(name: str, content: Any) -> Dimension:
    """A dimension as YAML writes it: ``{low, high, log, step}``, or a list of choices.

    Raises:
        SettingsError: the name is unknown (the nearest is offered), or the content is no range and no list.
    """
    if name not in DIMENSIONS:
        raise unknown_name("dimension of a space", name, DIMENSIONS)
    kind = DIMENSIONS[name]
    if isinstance(content, list):
        options = tuple(cast(list[Any], content))
        if kind.startswith("tuple") and not all(isinstance(one, list) for one in options):
            raise SettingsError(
                f"Each value of {name} is a list, such as {name}: [[7, 13], [5, 9]], but got {content}."
            )
        if len(options) < 2:
            raise SettingsError(f"{name} lists {len(options)} value; list several, or fix it under model: or fit:.")
        return Choice(options=options)
    if not isinstance(content, Mapping):
        raise SettingsError(
            f"{name} is a range such as {{low: 1, high: 4}} or a list such as [1, 2, 4], but got {content!r}. A value "
            "that stays fixed stands under model: or fit:."
        )
    given = {str(key): value for key, value in cast(Mapping[Any, Any], content).items()}
    for key in given:
        if key not in ("low", "high", "log", "step"):
            raise unknown_name(f"entry of the range of {name}", key, ("low", "high", "log", "step"))
    if kind.partition(" ")[0] not in ("int", "float"):
        raise SettingsError(f"{name} is no number, so it has no range. List its values: {name}: [a, b].")
    for key in ("low", "high"):
        if not _is_number(given.get(key)):
            raise SettingsError(f"The range of {name} needs the numbers low and high, but {key} is {given.get(key)!r}.")
    if given.get("step") is not None and not _is_number(given["step"]):
        raise SettingsError(f"The step of the range of {name} is a number, but got {given['step']!r}.")
    whole = kind.startswith("int")
    if whole and any(float(given[key]) % 1 for key in ("low", "high", "step") if given.get(key) is not None):
        raise SettingsError(f"{name} is a whole number, so its range is of whole numbers, but got {given}.")
    log = given.get("log", False)
    if not isinstance(log, bool):
        raise SettingsError(f"log of the range of {name} is true or false, but got {log!r}.")
    if not given["low"] < given["high"] or (log and given["low"] <= 0):
        raise SettingsError(
            f"The range of {name} runs from low to a larger high, and from above 0 where log is true, but got "
            f"{given['low']} to {given['high']}."
        )
    if given.get("step") is not None and not 0 < given["step"] <= given["high"] - given["low"]:
        raise SettingsError(
            f"The step of the range of {name} is above 0 and at most its length, but got {given['step']} from "
            f"{given['low']} to {given['high']}."
        )
    if log and given.get("step") is not None:
        raise SettingsError(f"The range of {name} has a step or is drawn by magnitude (log), not both.")
    return Range(low=given["low"], high=given["high"], log=log, step=given.get("step"), whole=whole)


def follows_from(model: Mapping[str, Any]) -> set[str]:
    """The dimensions that fixed settings of the network leave nothing to decide of."""
    void = {dimension for fixed, dimension in _EITHER if fixed in model}
    return void | {"tokens", "patch_length", "stride"} if model.get("patches") == "points" else void


def check_space(
    space: Mapping[str, Dimension], *, model: Mapping[str, Any], fit: Mapping[str, Any], budgeted: bool
) -> None:
    """Whether the dimensions can stand beside each other and beside what is fixed, and each of their values can work.

    Raises:
        SettingsError: names the dimension, and the value.
    """
    for one, other in _EITHER:
        if one in space and other in space:
            raise SettingsError(f"The space has {one} and {other}, but one follows from the other. Leave one out.")
    void = follows_from(model)
    for name in space:
        if name in (*model, *fit):
            raise SettingsError(f"{name} is fixed and in the space. Leave it out of one of them.")
        if name in void:
            raise SettingsError(
                f"{name} is in the space, but what is fixed under model: ({', '.join(model)}) leaves nothing to decide "
                "of it. Leave one of them out."
            )
    if "fill" in space and not budgeted:
        raise SettingsError(
            "fill is the share of a budget to spend, and there is none. Name a budget, or leave it out."
        )
    for name, one in space.items():
        for value in (one.low, one.high) if isinstance(one, Range) else one.options:
            if told := _why_not(name, value, space, model=model, fit=fit):
                raise SettingsError(f"{name} cannot be {json.dumps(value)}, which is in its space. {told}")


def _why_not(
    name: str, value: Any, space: Mapping[str, Dimension], *, model: Mapping[str, Any], fit: Mapping[str, Any]
) -> str:
    """Why no network can have this value, or nothing."""
    if name in SHAPE:
        return _why_no_shape(name, value)
    try:
        if name in _FIT:
            FitConfig().changed({**fit, name: value})
            return ""
        make_settings(ConvTimeNetConfig, {**model, name: value})
    except SettingsError as error:
        told = str(error)
    else:
        return ""
    for other, one in space.items():  # what cannot stand beside the defaults may stand beside another choice
        for option in one.options if isinstance(one, Choice) and other in _MODEL and other != name else ():
            with contextlib.suppress(SettingsError):
                make_settings(ConvTimeNetConfig, {**model, other: option, name: value})
                return ""
    return told


def _why_no_shape(name: str, value: Any) -> str:
    if not _is_number(value):
        return "It is a number."
    if name == "fill":
        return "" if 0 < value <= 1 else "It is a share of the budget, above 0 and at most 1."
    if SHAPE[name] == "int" and (value < 1 or value % 1):
        return "It is a whole number from 1."
    try:
        Shape(**{_FIELD_OF[name]: float(value)})
    except SettingsError as error:
        return str(error)
    return ""


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a search knows of the data before it trains anything."""

    site: Site
    n_values: int  # observed values of the training part
    period: int | None  # steps
    base: Mapping[str, Any]  # model settings of the recipe that the search starts from
    fit: FitConfig  # its training settings
    fixed: Mapping[str, Any]  # model settings that the specification fixes
    own: Mapping[str, Any]  # settings of the network that the recipe trains by itself: base, fixed, and its patches


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Settings that can be trained."""

    model: Mapping[str, Any]  # all settings of ConvTimeNet
    fit: Mapping[str, Any]  # training settings that replace those of the recipe
    n_tokens: int
    macs: int  # of one window, without the line beside the network
    taps: TapUse
    cost: float | None = None  # in the unit of the budget, where there is one


def candidate(
    values: Mapping[str, Any],
    place: Place,
    *,
    budget: float | None = None,
    cost: Callable[[Mapping[str, Any]], float] | None = None,
    unit: str = "multiply-accumulates",
) -> Candidate:
    """The settings at a point of the space; what the point does not name is the rule's.

    Args:
        values: by dimension.
        place: the data.
        budget: largest ``cost``; the shape is then scaled, up or down, to spend the share ``fill`` of it.
        cost: of model settings; multiply-accumulates if None.
        unit: of the cost.
    """
    shape = replace(
        proportions(place.site, place.n_values, base=place.base),
        **{_FIELD_OF[name]: float(values[name]) for name in _FIELD_OF if name in values},
    )
    fixed = {**place.fixed, **{name: values[name] for name in _MODEL if name in values}}
    if "kernel_sizes" in fixed:
        fixed["kernel_sizes"] = tuple(fixed["kernel_sizes"])
    price = cost or (lambda settings: float(macs_of(settings, place.site)))

    def build(one: Shape) -> dict[str, Any]:
        return settings_of(one, place.site, period=place.period, base=place.base, fixed=fixed)

    if budget is not None:
        prices: dict[str, float] = {}

        def remembered(one: Shape) -> float:
            settings = build(one)
            key = json.dumps(settings, default=list)
            if key not in prices:
                prices[key] = price(settings)
            return prices[key]

        shape, _ = fitted(shape, remembered, budget * float(values.get("fill", 1.0)), unit=unit)
        return _candidate(build(shape), values, place, remembered(shape))
    return _candidate(build(shape), values, place, None)


def rule_candidate(place: Place) -> Candidate:
    """What the rule proposes, with the training settings of the recipe."""
    proposed = propose(place.site, place.n_values, period=place.period, base=place.base, fixed=place.fixed)
    return _candidate(dict(proposed.settings), {}, place, None)


def first_points(
    space: Mapping[str, Dimension], place: Place, budget_macs: float | None = None
) -> dict[str, tuple[dict[str, Any], dict[str, Any] | None]]:
    """Where a search begins: with the rule and with the recipe's own network, each as near as the space allows.

    Beside each point stand the settings it came from, where the space and the budget hold them: what a point says in
    proportions is only nearly them. A network that the windows have no room for is left out.
    """
    shapes: dict[str, tuple[Mapping[str, Any], Shape]] = {
        "rule": (rule_candidate(place).model, proportions(place.site, place.n_values, base=place.base))
    }
    with contextlib.suppress(SettingsError):
        shapes["recipe"] = (place.own, shape_of(make_settings(ConvTimeNetConfig, place.own), place.site))
    found: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {}
    for name, (model, shape) in shapes.items():
        values = _values(space, place, model, shape, budget_macs)
        point = {key: space[key].nearest(value) for key, value in values.items()}
        affordable = values.get("fill", 0.0) <= 1  # a network may be cheaper than any the space would scale up
        is_inside = affordable and all(_is_in(space[key], value) for key, value in values.items() if key != "fill")
        found[name] = (point, dict(model) if is_inside else None)
    return found


def _values(
    space: Mapping[str, Dimension], place: Place, model: Mapping[str, Any], shape: Shape, budget_macs: float | None
) -> dict[str, Any]:
    """What a network is in every dimension of a space."""
    config = make_settings(ConvTimeNetConfig, model)
    found: dict[str, Any] = {}
    for name, one in space.items():
        if name == "fill":
            value: Any = 1.0 if budget_macs is None else macs_of(config, place.site) / budget_macs
        elif name in _FIELD_OF:
            value = getattr(shape, _FIELD_OF[name])
        elif name in _MODEL:
            value = getattr(config, name)
        else:
            value = getattr(place.fit, name)
        value = list(cast(Sequence[Any], value)) if isinstance(value, tuple) else value
        if isinstance(one, Range) and not _is_number(value):
            continue  # such as residual: None; Optuna draws it
        found[name] = value
    return found


def _is_in(one: Dimension, value: Any) -> bool:
    if isinstance(one, Choice):
        return json.dumps(value) in [json.dumps(option) for option in one.options] or value in one.options
    return one.low <= value <= one.high


def candidate_of(model: Mapping[str, Any], values: Mapping[str, Any], place: Place, cost: float | None) -> Candidate:
    """Settings as they are, with the training settings of a point."""
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in model.items()}
    return _candidate(plain, values, place, cost)


def _candidate(model: dict[str, Any], values: Mapping[str, Any], place: Place, cost: float | None) -> Candidate:
    config = make_settings(ConvTimeNetConfig, model)
    n_tokens = config.n_tokens(place.site.n_timepoints)
    changed = {name: values[name] for name in _FIT if name in values}
    place.fit.changed(changed)  # an impossible value is an error here, before anything is trained
    return Candidate(
        model=model, fit=changed, n_tokens=n_tokens, macs=macs_of(config, place.site),
        taps=tap_use(config.kernel_sizes, n_tokens), cost=cost,
    )  # fmt: skip


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
