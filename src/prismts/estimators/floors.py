"""The floors beside a fitted forecaster: same data, same scaler, same windows."""

from __future__ import annotations

from dataclasses import replace

from prismts.data.calendar import season_length
from prismts.data.series import Collection
from prismts.estimators.forecaster import Forecaster
from prismts.estimators.recipes import Member
from prismts.evaluation.protocols import data_hash
from prismts.training.fit import FitResult

__all__ = ["fit_floors"]


def fit_floors(forecaster: Forecaster, data: Collection) -> dict[str, Forecaster]:
    """Last value, last season, and ridge, each a forecaster that predicts and backtests like the given one.

    They are scaled by the given forecaster's scaler, so that standardized scores can be compared. Ridge is solved on
    the same training part and needs the data the forecaster was fitted on; other data give the first two only. A
    forecaster that is a floor itself is not repeated.
    """
    floors: dict[str, Forecaster] = {}
    if forecaster.model != "last_value":
        floors["last value"] = _like(forecaster, "last_value", {})
    season = season_length(data.frequency)
    if 1 < season <= forecaster.context_length and forecaster.model != "seasonal_naive":
        floors["last season"] = _like(forecaster, "seasonal_naive", {"season": season})
    if forecaster.model != "ridge" and data_hash(data) == forecaster.data_hash_:
        ridge = _like(forecaster, "ridge", {})
        train = forecaster.windows_(data, forecaster.scaler_, end=forecaster.train_ends_)
        check = None
        if (forecaster.test_begins_ - forecaster.train_ends_ >= forecaster.horizon).any():
            span = {"begin": forecaster.train_ends_, "end": forecaster.test_begins_}
            check = forecaster.windows_(data, forecaster.scaler_, **span)
        ridge.line_ = ridge.task_.prepare(ridge.model_, train, check)
        floors["ridge"] = ridge
    return floors


def _like(forecaster: Forecaster, model: str, settings: dict[str, int]) -> Forecaster:
    floor = Forecaster()  # a plain one: a task of a universal model would build the network that all tasks share
    floor.__dict__.update(forecaster.__dict__)
    floor.set_params(
        model=model, model_settings=settings, quantiles=None, setting="default", fit_settings=None, n_members=None,
        loss=None, line=None, head="flatten",
    )  # fmt: skip
    theirs = forecaster._recipe_  # pyright: ignore[reportPrivateUsage]
    floor._recipe_ = replace(theirs, network_context=None, members=(Member(),))  # pyright: ignore[reportPrivateUsage]
    floor.build_(settings)
    floor._fitted()  # pyright: ignore[reportPrivateUsage]
    floor.fit_result_, floor.line_ = FitResult(0, float("nan"), ()), ""
    floor.network_share_, floor.network_shares_ = None, (None,)
    return floor
