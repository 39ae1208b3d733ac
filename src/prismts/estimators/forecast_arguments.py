"""Which arguments of a forecaster cannot be meant, or not together, told before anything is read or trained."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np

from prismts.errors import SettingsError, unknown_name
from prismts.estimators.base import refuse_given
from prismts.estimators.recipes import find_recipe
from prismts.models import Architecture
from prismts.tasks.forecast import HEADS, LINES, Forecast

__all__ = ["TIMES", "check_forecaster"]

TIMES = ("grid", "real")


def check_forecaster(one: Any, architecture: Architecture) -> None:
    """Refuse arguments of a forecaster that cannot be meant, or not together.

    Raises:
        SettingsError: what was given, what was expected, and what to give instead.
    """
    for name in ("context_length", "horizon"):
        value = getattr(one, name)
        if not isinstance(value, Integral) or value is True:
            raise SettingsError(f"{name} is a whole number of time steps, but got {value!r}.")
    levels = one.quantiles
    if isinstance(levels, str) or not isinstance(levels, Sequence | np.ndarray | None):
        raise SettingsError(f"quantiles are several levels, such as (0.1, 0.5, 0.9), but got {levels!r}.")
    if one.times not in TIMES:
        raise unknown_name("way to read times", one.times, TIMES)
    recipe = find_recipe(one.setting, None, None)
    if one.times == "real":
        if not getattr(architecture.build, "reads_times", False):
            raise SettingsError(
                f"times='real' needs a model that reads when each row was measured, such as 'universal', but model is "
                f"{one.model!r}."
            )
        reads = recipe.network_reads(one.context_length)
        if reads < one.context_length:
            raise SettingsError(
                f"setting={one.setting!r} lets the network read the last {reads} steps of the grid, and times='real' "
                "has it read rows. Choose setting='default'."
            )
        others = [member.model for member in recipe.members if member.model is not None]
        if others:
            raise SettingsError(
                f"setting={one.setting!r} has a {others[0]} among its networks, which reads steps of the grid, and "
                "times='real' has them read rows. Choose setting='default'."
            )
    if one.n_members is not None and one.n_members < len(recipe.members):
        raise SettingsError(
            f"setting={one.setting!r} is the mean of {len(recipe.members)} kinds of network, but "
            f"n_members={one.n_members}. Leave n_members out, or choose setting='default'."
        )
    if one.head not in HEADS:
        raise unknown_name("head", one.head, HEADS)
    Forecast(one.horizon, quantiles=levels, loss=one.loss or "mse")  # pyright: ignore[reportArgumentType]
    if one.line is not None:
        _check_line(one, architecture)
    if not architecture.is_trained:
        given = {
            "setting": None if one.setting == "default" else one.setting,
            "fit_settings": one.fit_settings or None,
            "n_members": one.n_members,
            "loss": one.loss,
            "line": one.line,
        }
        refuse_given(
            given,
            f"tells how networks are trained, and {one.model!r} is computed without training",
            "choose a model that is trained, such as 'convtimenet'",
        )


def _check_line(one: Any, architecture: Architecture) -> None:
    if one.line not in LINES:
        raise unknown_name("line", one.line, LINES)
    if architecture.is_trained and (not architecture.is_encoder or architecture.forecaster is not None):
        raise SettingsError(
            f"line={one.line!r} runs beside the tokens of an encoder, and {one.model!r} forecasts in a form of its "
            "own. Leave line out, or choose an encoder, such as 'convtimenet'."
        )
    if one.head == "any_horizon":
        raise SettingsError(
            f"line={one.line!r} has the length of one horizon, and head='any_horizon' has none. Leave one of them out."
        )
