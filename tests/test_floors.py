"""Floors beside a forecaster: each says what it is itself, and survives saving."""

from dataclasses import replace

import numpy as np
import pytest

import prismts
from prismts.data.series import Collection
from prismts.data.splits import Borders
from prismts.data.synthetic import sine_mixture
from prismts.estimators.floors import fit_floors
from prismts.estimators.forecaster import Forecaster


@pytest.fixture(scope="module")
def data() -> Collection:
    return replace(Collection.of(sine_mixture(500, seed=0)), frequency="h")


def test_the_ridge_says_its_own_penalty_and_not_what_stands_beside_the_network(data):
    forecaster = Forecaster("last_value", context_length=48, horizon=12).fit(data, validation=Borders(300, 400, 500))
    forecaster.line_, forecaster.network_share_ = "the network's line", 0.7
    ridge = fit_floors(forecaster, data)["ridge"]
    assert ridge.line_.startswith("ridge, penalty") and ridge.network_share_ is None
    assert (forecaster.line_, forecaster.network_share_) == ("the network's line", 0.7)


def test_a_floor_comes_back_from_its_folder_as_it_was(data, tmp_path):
    forecaster = Forecaster("last_value", context_length=48, horizon=12).fit(data, validation=Borders(300, 400, 500))
    floors = fit_floors(forecaster, data)
    assert list(floors) == ["last season", "ridge"]
    for name, floor in floors.items():
        floor.save(tmp_path / name)
        back = prismts.load(tmp_path / name)
        again, before = (one.backtest(data, begin=400, keep_forecasts=True).forecasts for one in (back, floor))
        np.testing.assert_array_equal(again, before, err_msg=name)


def test_a_head_for_any_horizon_and_a_task_of_a_universal_model_have_the_same_floors_as_any_forecaster(data):
    borders, tiny = Borders(300, 400, 500), {"width": 8, "feed_forward": 0, "patch_length": 8, "stride": 8}
    fit_settings, sizes = {"max_epochs": 1}, {"context_length": 48, "horizon": 12}
    any_horizon = Forecaster(
        head="any_horizon", model_settings=tiny, fit_settings=fit_settings, progress=False, **sizes
    ).fit(data, validation=borders)
    universal = prismts.UniversalModel(
        "convtimenet", context_length=48, encoder_settings=tiny, fit_settings=fit_settings, items_per_epoch=32,
        progress=False,
    ).fit([prismts.ForecastOn(data, horizon=12, validation=borders)])  # fmt: skip
    alone = {name: Forecaster(name, **sizes).fit(data, validation=borders) for name in ("last_value", "ridge")}
    wanted = {name.replace("_", " "): one.backtest(data, begin=400).scores["mse"] for name, one in alone.items()}
    for forecaster in (any_horizon, universal.estimators_["forecast"]):
        floors = fit_floors(forecaster, data)
        assert list(floors) == ["last value", "last season", "ridge"]
        for name, mse in wanted.items():
            assert floors[name].backtest(data, begin=400).scores["mse"] == pytest.approx(mse, rel=1e-6), name
