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
