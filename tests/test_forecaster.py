"""The forecaster as a user holds it: tables and arrays in, the same kind out, saved and loaded, never poisoned."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from sklearn.base import clone
from torch.nn.utils import parameters_to_vector

import prismts
from prismts.data.scaling import StandardScaler
from prismts.data.series import Collection, Series
from prismts.data.splits import Borders
from prismts.data.synthetic import simulated_plant, sine_mixture
from prismts.errors import DataError, NotFittedError, SavedModelError, SettingsError
from prismts.estimators.floors import fit_floors
from prismts.estimators.forecaster import Forecaster
from prismts.estimators.recipes import FORECAST_SETTINGS, find_recipe
from prismts.evaluation.protocols import data_hash, evaluate, score
from prismts.models import MODELS
from prismts.tasks.forecast import Forecast
from prismts.training.fit import span_of
from prismts.windows import Windows

TINY = {
    "context_length": 48,
    "horizon": 12,
    "model_settings": {"patch_length": 8, "stride": 4, "width": 8, "feed_forward": 16, "kernel_sizes": (3, 5)},
    "fit_settings": {"max_epochs": 2, "batch_size": 64, "channels_at_once": 2},
    "n_members": 1,
    "progress": False,
}

pytestmark = pytest.mark.usefixtures("networks_speak")


def plant(n: int = 700) -> Series:
    return simulated_plant(n, seed=1)


def wide(n: int = 700) -> pd.DataFrame:
    series = plant(n)
    frame = pd.DataFrame(series.values.T, columns=list(series.channels))
    frame.insert(0, "when", series.timestamps)
    return frame


def long(lengths: tuple[int, ...] = (300, 200, 90)) -> pd.DataFrame:
    frame = wide(max(lengths))[["when", "feeder_1", "feeder_2"]]
    parts = [frame.iloc[:n].assign(plant=name) for n, name in zip(lengths, "abc", strict=False)]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def fitted() -> Forecaster:
    return Forecaster(**TINY).fit(wide(), validation=0.2)


# ---- what comes back


@pytest.mark.long
def test_a_long_line_reads_all_of_a_context_of_which_the_network_reads_the_end(tmp_path):
    data = plant(900)
    forecaster = Forecaster(**TINY | {"setting": "long_line", "context_length": 360}).fit(data)
    member = forecaster.members_[0]
    assert (member.context_length, member.reads_last, member.head.line.weight.shape[1]) == (336, 336, 360)
    forecaster.save(tmp_path / "m")
    np.testing.assert_array_equal(prismts.load(tmp_path / "m").predict(data.values), forecaster.predict(data.values))


def expect_the_mean_of_its_members(both, data, borders, folder):
    """Members that were given 336 and 360 steps: each by itself in a forecaster of that context, and after loading."""
    said = []
    for member, n in zip(both.members_, (336, 360), strict=True):
        alone = Forecaster(**TINY | {"setting": "long_line", "context_length": n}).fit(data, validation=borders)
        alone.model_, alone._inference = member, None
        said.append(alone.predict(data.values[:, :900]))
    np.testing.assert_allclose(both.predict(data.values[:, :900]), np.mean(said, axis=0), rtol=1e-4)
    both.save(folder)
    np.testing.assert_array_equal(prismts.load(folder).predict(data.values), both.predict(data.values))


@pytest.mark.long
def test_two_contexts_are_two_forecasters_whose_mean_is_the_forecast(tmp_path):
    data, borders = plant(1000), Borders(600, 800, 1000)
    settings = TINY | {"n_members": None}
    both = Forecaster(**settings | {"setting": "two_contexts", "context_length": 360}).fit(data, validation=borders)
    assert [m.head.line.weight.shape[1] for m in both.members_] == [336, 360]
    assert [m.context_length for m in both.members_] == [336, 336]  # the line reads more, the network does not
    assert both.line_.startswith("of 336 steps: ") and "; of 360 steps: " in both.line_
    assert len(both.network_shares_) == 2
    expect_the_mean_of_its_members(both, data, borders, tmp_path / "m")
    gaps = data.values.copy()
    gaps[0, -200:-100] = np.nan
    assert np.isfinite(both.predict(gaps)).all()


@pytest.mark.long
def test_two_encoders_are_a_convtimenet_and_a_cross_learner_whose_mean_is_the_forecast(tmp_path):
    data, borders = plant(1000), Borders(600, 800, 1000)
    settings = TINY | {"setting": "two_encoders", "context_length": 360, "n_members": None}
    both = Forecaster(**settings).fit(data, validation=borders)
    ours, other = both.members_
    assert (type(ours).__name__, type(other).__name__) == ("ConvTimeNet", "CrossLearner")
    assert [m.head.line.weight.shape[1] for m in both.members_] == [336, 360]
    alone = Forecaster(**TINY | {"model": "cross_learner", "model_settings": None, "setting": "long_line",
                                 "context_length": 360}).fit(data, validation=borders)  # fmt: skip
    assert sum(p.numel() for p in other.parameters()) == sum(p.numel() for p in alone.model_.parameters())
    expect_the_mean_of_its_members(both, data, borders, tmp_path / "m")
    with pytest.raises(DataError, match="channel"):
        both.predict(data.values[:2])


@pytest.mark.long
def test_floors_read_all_of_the_context_whatever_the_networks_read():
    data, borders = Collection.of(plant(1000)), Borders(600, 800, 1000)
    settings = TINY | {"setting": "two_encoders", "context_length": 360, "n_members": None}
    both = Forecaster(**settings, line="ridge", loss="mae").fit(plant(1000), validation=borders)
    ridge = Forecaster("ridge", context_length=360, horizon=12).fit(plant(1000), validation=borders)
    floor = fit_floors(both, data)["ridge"]
    assert floor.backtest(data, begin=800).scores["mse"] == pytest.approx(ridge.backtest(data, begin=800).scores["mse"])


@pytest.mark.long
@pytest.mark.parametrize("model", ["cyclenet", "dlinear", "itransformer"])
def test_a_cross_learner_stands_beside_a_rival_too(model):
    settings = {"setting": "two_encoders", "context_length": 350, "n_members": None, "model_settings": None}
    both = Forecaster(**TINY | settings, model=model).fit(plant(1000))
    assert len(both.members_) == 2 and np.isfinite(both.predict(plant(1000).values)).all()


@pytest.mark.long
def test_a_line_can_be_named_beside_any_setting():
    same = Forecaster(**TINY | {"setting": "ridge_line"}).fit(plant())
    named = Forecaster(**TINY, line="ridge").fit(plant())
    assert named.line_ == same.line_
    np.testing.assert_array_equal(named.predict(plant().values), same.predict(plant().values))
    for more, words in (
        ({"line": "ridgy"}, "no line named 'ridgy'. Did you mean 'ridge'"),
        ({"line": "ridge", "model": "dlinear", "model_settings": None}, "dlinear' forecasts in a form"),
        (
            {"line": "ridge", "model": "ridge", "fit_settings": None, "n_members": None},
            "line='ridge' tells how networks",
        ),
        ({"line": "ridge", "head": "any_horizon"}, "has the length of one horizon"),
    ):
        with pytest.raises(SettingsError, match=words):
            Forecaster(**TINY | more).fit(plant())


@pytest.mark.long
def test_two_contexts_of_a_short_one_are_two_seeds_beside_one_line():
    both = Forecaster(**TINY | {"setting": "two_contexts", "n_members": 2}).fit(plant())
    one, two = (member.head.line.weight for member in both.members_)
    assert torch.equal(one, two) and one.shape[1] == 48 and not both.line_.startswith("of ")
    with pytest.raises(SettingsError, match="mean of 2 kinds of network, but n_members=1"):
        Forecaster(**TINY | {"setting": "two_contexts"}).fit(plant())


@pytest.mark.long
def test_going_on_goes_on_with_both_contexts():
    settings = TINY | {"setting": "two_contexts", "context_length": 360, "n_members": None}
    both = Forecaster(**settings, warm_start=True).fit(plant(1000))
    with pytest.raises(SettingsError, match="a setting of the model has changed"):
        both.set_params(setting="long_line", n_members=2).fit(plant(1000))
    both.set_params(setting="two_contexts", n_members=None)
    members, line = both.members_, both.line_
    before = [parameters_to_vector(m.blocks.parameters()).clone() for m in members]
    both.fit(plant(1000))
    assert both.line_ == line
    for member, first, weights in zip(both.members_, members, before, strict=True):
        assert member is first and not torch.equal(parameters_to_vector(member.blocks.parameters()), weights)


@pytest.mark.parametrize(
    ("named", "expected"),
    [({"patch_length": 8}, (8, 4)), ({"patch_length": 2}, (2, 1)), ({"patch_length": 8, "stride": 3}, (8, 3)),
     ({}, (16, 8))],
)  # fmt: skip
def test_a_patch_without_a_stride_overlaps_by_half_and_skips_no_step(named, expected):
    settings = {"width": 8, "feed_forward": 0, "kernel_sizes": (3,), **named}
    forecaster = Forecaster(context_length=96, horizon=4, model_settings=settings, fit_settings={"max_epochs": 1},
                            progress=False).fit(simulated_plant(400))  # fmt: skip
    config = forecaster.members_[0].config
    assert (config.patch_length, config.stride) == expected


def test_a_wide_table_is_continued_with_the_right_times_and_the_same_columns(fitted):
    forecast = fitted.predict(wide())
    assert list(forecast.columns) == list(wide().columns)
    last = wide()["when"].iloc[-1]
    assert list(forecast["when"]) == list(pd.date_range(last, periods=13, freq="h")[1:])
    pd.testing.assert_frame_equal(fitted.predict(), forecast)  # the end of the training data is remembered


def test_polars_and_pyarrow_come_back_as_what_they_were(fitted):
    expected = fitted.predict(wide())
    for table in (pl.from_pandas(wide()), pa.Table.from_pandas(wide(), preserve_index=False)):
        forecast = fitted.predict(table)
        assert type(forecast) is type(table)
        values = forecast.to_pandas()["feeder_1"].to_numpy()
        np.testing.assert_allclose(values, expected["feeder_1"].to_numpy(), rtol=1e-6)


@pytest.mark.long
def test_an_array_gives_an_array_of_the_same_axes():
    x = plant().values
    one = Forecaster(**TINY).fit(x)
    assert one.predict(x).shape == (7, 12) and one.predict().shape == (7, 12)
    cases = np.stack([x[:, :300], x[:, 300:600]])
    many = Forecaster(**TINY).fit(cases)
    assert many.predict(cases).shape == (2, 7, 12) and many.predict().shape == (2, 7, 12)


def test_a_long_table_of_series_of_different_length_gets_one_global_model():
    forecaster = Forecaster(**TINY, series="plant").fit(long())
    forecast = forecaster.predict(long())
    assert list(forecast.columns) == ["plant", "when", "feeder_1", "feeder_2"]
    assert forecast["plant"].value_counts().to_dict() == {"a": 12, "b": 12, "c": 12}
    for name, n in zip("abc", (300, 200, 90), strict=True):
        begin = forecast.loc[forecast["plant"] == name, "when"].iloc[0]
        assert begin == wide(n)["when"].iloc[-1] + pd.Timedelta("1h")


def test_a_series_the_model_has_never_met_is_forecast_in_its_own_units():
    forecaster = Forecaster("ridge", context_length=48, horizon=12, series="plant").fit(long())
    known = long()
    unknown = known[known["plant"] == "a"].assign(plant="new")
    unknown[["feeder_1", "feeder_2"]] = unknown[["feeder_1", "feeder_2"]] * 1000 + 5e4
    here = forecaster.predict(known[known["plant"] == "a"])
    there = forecaster.predict(unknown)
    np.testing.assert_allclose(there["feeder_1"], here["feeder_1"] * 1000 + 5e4, rtol=1e-4)


def test_channels_are_matched_by_name_not_by_place(fitted):
    shuffled = wide()[["when", *reversed(list(wide().columns)[1:])]]
    pd.testing.assert_frame_equal(fitted.predict(shuffled), fitted.predict(wide()))
    with pytest.raises(DataError, match="lack channel 'feeder_1'"):
        fitted.predict(wide().drop(columns="feeder_1"))


def test_series_shorter_than_the_context_are_forecast_with_the_missing_past_masked(fitted):
    forecast = fitted.predict(wide().tail(20))
    assert len(forecast) == 12 and np.isfinite(forecast["feeder_1"]).all()


def test_scaling_and_shifting_a_series_scales_and_shifts_its_forecast():
    x = plant().values
    forecaster = Forecaster(**TINY).fit(x)
    one, two = forecaster.predict(x * 10 + 3), forecaster.predict(x) * 10 + 3
    # not exactly: the small number that keeps flat windows finite does not scale along
    assert np.abs(one - two).max() < 0.005 * two.std()


# ---- seeds, clones, warm starts


@pytest.mark.long
def test_equal_seeds_give_equal_forecasts_and_other_seeds_do_not():
    x = plant().values
    a, b, c = (Forecaster(**TINY, random_state=seed).fit(x) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a.predict(), b.predict())
    assert not torch.equal(a.model_.embed.weight, c.model_.embed.weight)
    assert not np.array_equal(a.predict(), c.predict())


def test_it_is_a_scikit_learn_estimator(fitted):
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params() and not hasattr(copy, "model_")
    assert copy.set_params(horizon=3).horizon == 3
    with pytest.raises(NotFittedError, match="Call fit"):
        copy.predict()


@pytest.mark.long
def test_fit_again_goes_on_from_the_weights_only_when_asked():
    x = plant().values
    forecaster = Forecaster(**TINY, warm_start=True).fit(x)
    first = forecaster.fit_result_.history[-1]["train_loss"]
    weights = {name: value.clone() for name, value in forecaster.model_.state_dict().items()}
    forecaster.fit(x)
    assert forecaster.fit_result_.history[0]["train_loss"] < first * 1.05
    fresh = Forecaster(**TINY).fit(x)
    for name, value in fresh.model_.state_dict().items():
        assert torch.equal(value, weights[name]), name
    with pytest.raises(DataError, match="channel"):
        Forecaster(**{**TINY, "model_settings": {**TINY["model_settings"], "channels": "mixed"}}, warm_start=True).fit(
            x
        ).fit(x[:3])


@pytest.mark.long
def test_one_that_goes_on_remembers_what_it_had_learned_from(tmp_path):
    first, second = plant(), plant(650)
    forecaster = Forecaster(**TINY, warm_start=True).fit(first)
    assert forecaster.taught_by_ == ()
    forecaster.fit(second).fit(second)
    assert [note.data_hash for note in forecaster.taught_by_] == [
        forecaster.data_hash_,
        data_hash(Collection.of(first)),
    ]
    forecaster.save(tmp_path / "m")
    assert prismts.load(tmp_path / "m").taught_by_ == forecaster.taught_by_
    assert forecaster.set_params(warm_start=False).fit(second).taught_by_ == ()


@pytest.mark.long
def test_a_forecaster_that_was_loaded_goes_on_as_the_one_that_was_saved(tmp_path):
    x = plant().values
    settings = {
        name: one for name, one in TINY["model_settings"].items() if name != "kernel_sizes"
    }  # those of a recipe
    forecaster = Forecaster(**{**TINY, "model_settings": settings}, warm_start=True).fit(x)
    forecaster.save(tmp_path / "model")
    loaded = prismts.load(tmp_path / "model").fit(x)
    assert loaded.fit_result_.history[0]["train_loss"] == forecaster.fit(x).fit_result_.history[0]["train_loss"]
    np.testing.assert_array_equal(loaded.predict(x), forecaster.predict(x))


def as_if_trained(model: torch.nn.Module, *, well: bool = True) -> None:
    """Put the line off by a third and let the network say so, in all windows, or the contrary."""
    torch.manual_seed(0)
    head = model.head
    head.kept = 1.0
    torch.nn.init.normal_(head.linear.weight, std=1e-3)
    torch.nn.init.constant_(head.linear.bias, -0.3 if well else 0.3)
    head.line.bias.data.add_(0.3)


@pytest.mark.usefixtures("networks_are_judged")
def test_fitting_again_and_again_from_the_weights_does_not_wear_the_network_down(tmp_path):
    settings = {"max_epochs": 1, "batch_size": 64, "learning_rate": 1e-12}
    x = plant(300).values[:2]
    forecaster = Forecaster(**{**TINY, "fit_settings": settings, "n_members": 2}, warm_start=True).fit(x)
    for member in forecaster.members_:
        as_if_trained(member)
    forecaster.fit(x)
    shares, weights = forecaster.network_shares_, [m.head.linear.weight.detach().norm() for m in forecaster.members_]
    assert all(0 < share <= 1 for share in shares) and forecaster.network_share_ == pytest.approx(np.mean(shares))
    forecaster.fit(x)
    forecaster.save(tmp_path / "m")
    again = prismts.load(tmp_path / "m").fit(x)
    for one in (forecaster, again):  # the running means of the blocks still move a little
        assert one.network_shares_ == pytest.approx(shares, rel=0.4)
        for member, weight in zip(one.members_, weights, strict=True):
            assert float(member.head.linear.weight.detach().norm() / weight) == pytest.approx(1, rel=0.4)


@pytest.mark.parametrize(
    ("shares", "how", "expected"),
    [
        ([0.4], {}, ["member 0.001"]),
        ([0.0, 0.2], {}, ["member 0.001", "gentle 0.0001"]),
        ([0.0, 0.0], {"fit_settings": {"learning_rate": 0.01}}, ["member 0.01", "gentle 0.01"]),
        ([0.0], {"fit_settings": {"max_epochs": 1}}, ["member 0.001"]),
        ([0.3, 0.0, 0.1], {"n_members": 2}, ["member 0.001", "member 0.001", "gentle 0.0001"]),
        ([None], {"validation": 0}, ["member 0.0001"]),
    ],
)
def test_a_network_of_which_validation_wants_nothing_is_trained_once_more_and_gently(
    monkeypatch, shares, how, expected
):
    """Where nothing can be validated it is trained gently at once, and who names the epochs gets no others."""
    told, left, real = [], list(shares), Forecaster._train_one

    def train_one(self, model, task, train, check, config, mark, title, part, *which):
        told.append(f"{part} {config.learning_rate:g}")
        return real(
            self, model, task, train, check, replace(config, min_steps=0, max_epochs=1), mark, title, part, *which
        )

    monkeypatch.setattr(Forecaster, "_train_one", train_one)
    monkeypatch.setattr(Forecast, "finish", lambda self, *_, **__: left.pop(0))
    how = {"context_length": 48, "horizon": 12, "progress": False, "validation": 0.2} | how
    validation = how.pop("validation")
    forecaster = Forecaster(model_settings=TINY["model_settings"], **how).fit(
        plant(300).values[:2], validation=validation
    )
    assert told == expected and not left
    assert len(forecaster.members_) == how.get("n_members", 1) == len(forecaster.network_shares_)
    assert forecaster.network_shares_[-1] == shares[-1]


@pytest.mark.usefixtures("networks_are_judged")
@pytest.mark.parametrize("fortune", ["well", "ill", "untrained"])
def test_finishing_twice_is_finishing_once(fortune):
    data = Collection.of(Series(plant(300).values[:2]))
    windows = Windows(data, 48, 12, scaler=StandardScaler.fit(data))
    task = Forecast(12, line="ridge")
    model = task.build("convtimenet", TINY["model_settings"], n_channels=2, context_length=48)
    task.prepare(model, windows, None)
    if fortune != "untrained":
        as_if_trained(model, well=fortune == "well")
    share = task.finish(model, windows)
    assert (share == 0) == (fortune == "ill")
    once = {name: value.clone() for name, value in model.state_dict().items()}
    assert task.finish(model, windows) == pytest.approx(share, rel=1e-3)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, once[name], rtol=1e-3, atol=1e-9)


# ---- honest scores


@pytest.mark.parametrize("name", ["begin", "end"])
def test_a_backtest_counts_no_steps_from_the_end(fitted, name):
    with pytest.raises(SettingsError, match=f"{name} is the number of a time step, counted from 0, but got -20. Steps"):
        fitted.backtest(plant(), **{name: -20})


def test_evaluate_reads_what_is_no_name_of_the_catalog(tmp_path):
    frame = wide(300)
    frame.to_csv(tmp_path / "ab.csv", index=False)
    ridge = Forecaster("ridge", context_length=48, horizon=12, progress=False)
    expected = evaluate(ridge, plant(300))["mse"]
    for data in (frame, tmp_path / "ab.csv", str(tmp_path / "ab.csv"), plant(300).values):
        assert evaluate(ridge, data)["mse"] == pytest.approx(expected, rel=1e-5)
    assert evaluate(Forecaster("last_value", context_length=4, horizon=2, values=["feeder_1"]), frame).channels == (
        "feeder_1",
    )
    with pytest.raises(DataError, match=r"no file nowhere\.csv"):
        evaluate(ridge, "nowhere.csv")
    with pytest.raises(SettingsError, match="no data set named 'ETTh9'"):
        evaluate(ridge, "ETTh9")
    for what in ("ridge", Forecaster, None):
        with pytest.raises(SettingsError, match="evaluate fits a copy of an estimator, such as"):
            evaluate(what, frame)


def test_a_backtest_equals_predict_at_the_same_place(fitted):
    series = plant()
    result = fitted.backtest(series, begin=600, end=620, keep_forecasts=True)
    assert result.scores.n_scored == 9 and list(result.origins) == list(range(600, 609))
    cut = fitted.predict(wide().iloc[:605])
    np.testing.assert_allclose(result.forecasts[5], cut.iloc[:, 1:].to_numpy().T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(result.targets[5], series.values[:, 605:617], rtol=1e-5)
    own = np.abs(result.forecasts - result.targets).mean()
    assert result.scores["mae_own"] == pytest.approx(own, rel=1e-5)


def test_the_score_does_not_depend_on_how_many_windows_go_through_at_once(fitted, monkeypatch):
    series = plant()
    whole = fitted.backtest(series, begin=560).scores
    for rows in (7, 200):
        monkeypatch.setattr("prismts.estimators.forecast_batches._ROWS", rows)
        part = fitted.backtest(series, begin=560).scores
        assert part.n_scored == whole.n_scored
        for name in whole:
            assert part[name] == pytest.approx(whole[name], rel=1e-5), name


@pytest.mark.long
def test_what_lies_behind_the_borders_cannot_change_what_is_learned():
    series = plant()
    borders = Borders(400, 500, 700)
    changed = series.values.copy()
    changed[:, 500:] = 1e6
    one = Forecaster(**TINY).fit(series, validation=borders)
    two = Forecaster(**TINY).fit(Series(changed, series.channels, series.timestamps, "h"), validation=borders)
    for name, value in one.model_.state_dict().items():
        assert torch.equal(value, two.model_.state_dict()[name]), name
    np.testing.assert_array_equal(one.scaler_.mean, two.scaler_.mean)


def test_protocols_differ_in_the_windows_they_count():
    series = plant()
    borders = Borders(400, 500, 700)
    forecaster = Forecaster("ridge", context_length=48, horizon=12).fit(series, validation=borders)
    assert score(forecaster, series, borders).n_scored == 189
    assert score(forecaster, series, borders, protocol="published", batch_size=50).n_scored == 150
    with pytest.raises(SettingsError, match="honest"):
        score(forecaster, series, borders, protocol="honset")


def test_evaluate_fits_a_copy_and_says_what_it_counted():
    forecaster = Forecaster("ridge", context_length=48, horizon=12)
    scores = evaluate(forecaster, plant(), borders=Borders(400, 500, 700))
    assert not hasattr(forecaster, "model_")
    assert (scores.protocol, scores.n_scored, scores.seed) == ("honest", 189, 0) and len(scores.data_hash) == 16
    assert set(scores) >= {"mse", "mae", "mase", "smape"} and scores.per_step["mse"].shape == (12,)


def test_floors_stand_beside_a_model_on_the_same_windows_and_scale(fitted):
    data = Collection.of(plant())
    own = Forecaster(**TINY).fit(data, validation=Borders(400, 500, 700))
    floors = fit_floors(own, data)
    assert list(floors) == ["last value", "last season", "ridge"]
    target = own.backtest(data, begin=500, keep_forecasts=True).targets
    naive = floors["last value"].backtest(data, begin=500, keep_forecasts=True)
    assert naive.scores.n_scored == 189
    np.testing.assert_allclose(naive.forecasts[0], np.repeat(data.values[:, 499:500], 12, axis=1), rtol=1e-5)
    by_hand = (((naive.forecasts - target) / own.scaler_.scale[0][:, None]) ** 2).mean()
    assert naive.scores["mse"] == pytest.approx(by_hand, rel=1e-4)
    assert floors["ridge"].backtest(data, begin=500).scores["mse"] < naive.scores["mse"]


def test_ridge_gives_its_known_score_on_real_data(data_root):
    for name, expected in (("ETTh1", 0.370), ("ETTh2", 0.271)):
        scores = evaluate(Forecaster("ridge", context_length=336), name)
        assert scores["mse"] == pytest.approx(expected, abs=0.001) and scores.n_scored == 2785


# ---- quantiles


@pytest.mark.long
def test_quantiles_are_in_order_and_cover_what_they_promise_on_data_like_the_training_data():
    series = sine_mixture(3000, seed=2)
    noisy = Series(series.values + np.random.default_rng(0).normal(0, 0.5, series.values.shape).astype("f4"))
    for model in ("ridge", "convtimenet"):
        settings = {} if model == "ridge" else {k: TINY[k] for k in ("model_settings", "fit_settings", "n_members")}
        forecaster = Forecaster(
            model, context_length=48, horizon=12, quantiles=(0.1, 0.5, 0.9), progress=False, **settings
        ).fit(noisy, validation=Borders(2000, 2500, 3000))
        scores = forecaster.backtest(noisy, begin=2500).scores
        assert scores["coverage"] == pytest.approx(0.8, abs=0.04), model
        forecast = forecaster.predict()
        low, mid, high = (forecast[f"channel_0_q{q}"] for q in ("0.1", "0.5", "0.9"))
        assert (low <= mid).all() and (mid <= high).all() and (forecast["channel_0"] == mid).all()
        array = (
            Forecaster(model, context_length=48, horizon=12, quantiles=(0.1, 0.9), progress=False, **settings)
            .fit(noisy.values)
            .predict()
        )
        assert array.shape == (2, noisy.n_channels, 12)


# ---- missing values


def test_missing_values_are_masked_and_never_poison():
    series = plant()
    holes = series.values.copy()
    holes[np.random.default_rng(0).random(holes.shape) < 0.05] = np.nan
    borders = Borders(400, 500, 700)
    full = Forecaster("ridge", context_length=48, horizon=12).fit(series, validation=borders)
    part = Forecaster("ridge", context_length=48, horizon=12).fit(
        Series(holes, series.channels, series.timestamps, "h"), validation=borders
    )
    one, two = (f.backtest(series, begin=500).scores["mse"] for f in (full, part))
    assert two < 1.05 * one
    net = Forecaster(**TINY).fit(Series(holes, series.channels), validation=borders)
    assert np.isfinite(net.predict(Series(holes, series.channels)).iloc[:, 1:].to_numpy()).all()
    assert np.isfinite(net.fit_result_.best_loss)


def test_a_channel_that_never_moves_is_forecast_as_it_is(fitted):
    frame = wide().assign(feeder_1=3.25)
    forecast = Forecaster("ridge", context_length=48, horizon=12).fit(frame).predict()
    np.testing.assert_allclose(forecast["feeder_1"], 3.25, atol=0.02)


# ---- errors


def test_errors_name_the_place_and_the_remedy(fitted):
    with pytest.raises(DataError, match="60 steps"):
        Forecaster(**TINY).fit(wide(18), validation=0)
    with pytest.raises(DataError, match="validation part"):
        Forecaster(**TINY).fit(wide(200), validation=0.02)
    with pytest.raises(SettingsError, match="'convtimenet'"):
        Forecaster("convtimnet").fit(wide())
    with pytest.raises(SettingsError, match="'patch_length'"):
        Forecaster(model_settings={"patchlength": 8}).fit(wide())
    with pytest.raises(SettingsError, match="'learning_rate'"):
        Forecaster(fit_settings={"learning_rat": 1}).fit(wide())
    with pytest.raises(SettingsError, match="'published'"):
        Forecaster(setting="publshed").fit(wide())
    with pytest.raises(SettingsError, match="quantiles are rising"):
        Forecaster(quantiles=(0.9, 0.1)).fit(wide())
    with pytest.raises(SettingsError, match="no room for a patch"):
        Forecaster(context_length=12, horizon=4, model_settings={"patch_length": 64}).fit(wide())


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_forecast_that_is_no_finite_number_is_refused_with_its_series_and_channel():
    x = np.ones((2, 2, 30))
    x[:, :, ::2] = 2.0
    found = Forecaster("ridge", context_length=8, horizon=2, progress=False).fit(x.copy())
    x[1, 1, -1] = 1e200
    with pytest.raises(DataError, match=r"no finite number. .* 1e\+200, in channel 'channel_1' of series '1'"):
        found.predict(x)


def test_what_a_floor_cannot_use_is_refused_and_default_values_are_not():
    sizes = {"context_length": 48, "horizon": 12}
    for name, value in (("fit_settings", {"max_epochs": 3}), ("n_members", 3), ("setting", "published")):
        for model in ("ridge", "last_value", "seasonal_naive"):
            with pytest.raises(
                SettingsError, match=rf"(?s){name}=.*'{model}' is computed without training.*convtimenet"
            ):
                Forecaster(model, **sizes, **{name: value}).fit(wide())
    Forecaster("ridge", **sizes, setting="default", fit_settings={}, n_members=None, progress=False).fit(wide())


@pytest.mark.parametrize("n", [0, -1, 2.0, True, "3"])
def test_the_number_of_members_is_a_whole_number_from_one(n):
    with pytest.raises(SettingsError, match=f"n_members counts .* at least 1, but got {n!r}"):
        Forecaster(n_members=n).fit(wide())


@pytest.mark.parametrize("n_steps", [1, 7, 249, 250, 10_000])
def test_few_steps_per_epoch_never_end_a_default_run_before_its_least_number_of_steps(n_steps):
    """Patience counts epochs: where an epoch is one step, it must last as many epochs as there are steps to make."""
    for recipe in FORECAST_SETTINGS.values():
        _, patience = span_of(recipe.fit, n_steps)
        assert patience * n_steps >= recipe.fit.min_steps, recipe.title
    asked = find_recipe("default", None, {"max_epochs": 40}).fit
    assert (asked.max_epochs, asked.min_steps, asked.patience) == (40, 0, 10)
    assert find_recipe("default", None, {"max_epochs": 40, "patience": 3}).fit.patience == 3
    assert find_recipe("published", None, {"max_epochs": 40}).fit.patience == 3


@pytest.mark.parametrize("name", ["default", "published"])
def test_a_rival_is_trained_as_by_its_authors_unless_another_training_is_asked_for(name):
    """The published training of ConvTimeNet is no rival's own: DLinear learns ten times as fast."""
    own, other = (
        find_recipe(name, None, None, MODELS["dlinear"]),
        find_recipe("published/ILI", None, None, MODELS["dlinear"]),
    )
    assert (own.fit.learning_rate, own.fit.batch_size, own.line) == (1e-3, 32, None)
    assert "as by its authors" in own.title and "DLinear" in own.title
    assert (other.fit.learning_rate, other.fit.batch_size) == (5e-3, 64)
    assert "DLinear" in other.title and "ConvTimeNet authors' setting for ILI" in other.title
    assert find_recipe("published", None, None, MODELS["convtimenet"]).title == FORECAST_SETTINGS["published"].title
    assert find_recipe(name, None, None, MODELS["cross_learner"]).fit == FORECAST_SETTINGS[name].fit


# ---- series that training has not met


def strange(values: np.ndarray) -> Collection:
    """A series of two feeders that no training has seen."""
    return Collection.of(Series(values, ("feeder_1", "feeder_2"), name="strange"))


@pytest.fixture(scope="module")
def of_three() -> Forecaster:
    return Forecaster("ridge", context_length=48, horizon=12, series="plant").fit(long())


@pytest.mark.parametrize("begin", [0, 30, 100])
def test_a_backtest_of_a_new_series_scales_it_by_the_steps_before_the_first_scored_one(of_three, begin):
    values = plant(200).values[:2]
    first = max(begin, 48)
    changed = values.copy()
    changed[:, 100:] *= 50
    one, two = (of_three.backtest(strange(v), begin=begin, n_windows=1, keep_forecasts=True) for v in (values, changed))
    np.testing.assert_array_equal(one.forecasts, two.forecasts)  # what comes later changed nothing
    scale = values[:, :first].astype(np.float64).std(1)
    by_hand = (((one.forecasts - one.targets)[0] / scale[:, None]) ** 2).mean()
    assert one.scores["mse"] == pytest.approx(by_hand, rel=1e-4)


def test_a_prediction_of_a_new_series_is_scaled_by_all_of_it(of_three):
    values = plant(200).values[:2]
    end = of_three.backtest(strange(values), begin=188, keep_forecasts=True).forecasts[0]
    frame = pd.DataFrame(values.T[:188], columns=["feeder_1", "feeder_2"]).assign(plant="strange")
    frame["when"] = wide(188)["when"]
    forecast = of_three.predict(frame)[["feeder_1", "feeder_2"]].to_numpy().T
    np.testing.assert_allclose(forecast, end, rtol=1e-5)


def test_a_new_series_with_nothing_before_begin_is_an_error_that_offers_begin(of_three):
    values = plant(200).values[:2].copy()
    values[:, :60] = np.nan
    with pytest.raises(DataError, match=r"'strange' was not in training.*first 48 steps\. Give begin="):
        of_three.backtest(strange(values))
    assert of_three.backtest(strange(values), begin=100).scores.n_scored == 89
    values[0, :] = np.nan  # one channel that it lacks is no reason to refuse the other
    assert np.isfinite(of_three.backtest(strange(values), begin=100).scores["mse"])


def test_a_channel_that_is_dead_in_all_new_rows_does_not_stop_the_others(fitted):
    rows = wide().tail(60)
    dead = rows.assign(feeder_2=np.nan)
    forecast = fitted.predict(dead)
    assert np.isfinite(forecast[list(rows.columns)[1:]].to_numpy()).all()
    np.testing.assert_allclose(forecast["feeder_1"], fitted.predict(rows)["feeder_1"], rtol=1e-5)


def test_one_column_may_be_asked_for_by_its_name_alone(tmp_path):
    forecaster = Forecaster("ridge", context_length=48, horizon=12, values="feeder_1").fit(wide(300))
    assert forecaster.channels_ == ("feeder_1",)
    forecaster.save(tmp_path / "m")
    assert list(prismts.load(tmp_path / "m").predict(wide(300)).columns) == ["when", "feeder_1"]


def test_columns_called_by_numbers_are_forecast():
    frame = wide(300).set_axis(range(8), axis=1)
    forecast = Forecaster("ridge", context_length=48, horizon=12, time=0, values=[1, 2]).fit(frame).predict(frame)
    assert list(forecast.columns) == ["0", "1", "2"]


def test_the_page_scales_a_series_it_has_not_met_by_what_lies_before_the_part_it_looks_at(of_three):
    values = plant(200).values[:2]
    later = values.copy()
    later[:, 100:] *= 50
    one, two = (of_three.scaled_windows_(strange(v), begin=100, end=150).scaler for v in (values, later))
    np.testing.assert_array_equal(one.mean, two.mean)
    np.testing.assert_allclose(one.mean[0], values[:, :100].mean(1), rtol=1e-4)


def test_a_channel_that_one_series_lacks_does_not_stop_the_others():
    table = long()
    table.loc[table["plant"] == "b", "feeder_2"] = np.nan
    forecaster = Forecaster("ridge", context_length=48, horizon=12, series="plant").fit(table)
    (finding,) = (f for f in forecaster.findings_ if "scaled there as in the other series" in str(f))
    assert "'feeder_2' has no observed value in the training part of 'b'" in str(finding)
    forecast = forecaster.predict(table)
    assert np.isfinite(forecast[["feeder_1", "feeder_2"]].to_numpy()).all()
    with pytest.raises(DataError, match="'feeder_2' has no observed value"):
        Forecaster("ridge", context_length=48, horizon=12, series="plant").fit(table.assign(feeder_2=np.nan))


def test_the_same_values_cut_elsewhere_are_other_data():
    values = np.arange(12.0)[None]
    one = Collection.of([Series(values[:, :4]), Series(values[:, 4:])])
    other = Collection.of([Series(values[:, :5]), Series(values[:, 5:])])
    assert len({data_hash(one), data_hash(other), data_hash(Series(values))}) == 3
    assert data_hash(Collection.of(Series(values))) == data_hash(Series(values))


# ---- saved folders


def test_a_saved_model_predicts_the_same_after_loading(fitted, tmp_path):
    fitted.save(tmp_path / "m")
    back = prismts.load(tmp_path / "m")
    pd.testing.assert_frame_equal(back.predict(), fitted.predict())
    pd.testing.assert_frame_equal(back.predict(wide()), fitted.predict(wide()))
    assert back.get_params() == {
        **fitted.get_params(),
        "model_settings": json.loads(json.dumps(TINY["model_settings"])),
    }
    assert dict(back.backtest(plant(), begin=600).scores) == dict(fitted.backtest(plant(), begin=600).scores)
    assert back.fit_result_.best_epoch == fitted.fit_result_.best_epoch
    back.save(tmp_path / "m")  # over the old one
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m"]
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == [
        "arrays.safetensors",
        "config.json",
        "model.safetensors",
    ]


@pytest.mark.parametrize(
    "later", [{"n_members": 3}, {"horizon": 6}, {"quantiles": (0.1, 0.9)}, {"setting": "published"}]
)
def test_what_is_saved_is_what_was_fitted_whatever_was_set_since(later, tmp_path):
    forecaster = Forecaster(**TINY).fit(wide(300))
    expected = forecaster.predict()
    forecaster.set_params(**later).save(tmp_path / "m")
    back = prismts.load(tmp_path / "m")
    pd.testing.assert_frame_equal(back.predict(), expected)
    (name,) = later
    assert getattr(back, name) == {**Forecaster().get_params(), **TINY}[name]


@pytest.mark.parametrize("later", [{"horizon": 6}, {"quantiles": (0.1, 0.9)}, {"context_length": 24}])
def test_an_argument_that_shapes_a_forecast_cannot_be_changed_after_fit(later):
    forecaster = Forecaster("ridge", context_length=48, horizon=12).fit(wide(300)).set_params(**later)
    (name,) = later
    with pytest.raises(SettingsError, match=f"{name} was .* when this Forecaster was fitted.*Call fit again"):
        forecaster.predict()
    assert forecaster.fit(wide(300)).predict() is not None
    with pytest.raises(SettingsError, match="setting was 'default' when"):
        forecaster.set_params(setting="network").predict()


def test_arguments_of_another_form_than_meant_are_refused_in_words(fitted, tmp_path):
    (tmp_path / "file").write_text("")
    for changes, words in (
        ({"fit_settings": ["max_epochs"]}, "fit_settings are names with values, such as"),
        ({"model_settings": 3}, "model_settings are names with values, such as"),
        ({"run_folder": tmp_path / "file"}, "file' is a file. Name a folder to keep checkpoints in"),
    ):
        with pytest.raises(SettingsError, match=words):
            Forecaster(**{**TINY, **changes}).fit(wide(300))
    for many in (Forecaster(**TINY), 3):
        with pytest.raises(SettingsError, match="fit_many fits several estimators, such as"):
            prismts.fit_many(many, wide(300))
    for read in (prismts.load, Forecaster.load):
        with pytest.raises(SavedModelError, match="named by a path, but got None"):
            read(None)
    with pytest.raises(SavedModelError, match=r"/(m{250}) cannot be written \(File name too long\)\. Save to another"):
        fitted.save(tmp_path / ("m" * 250))


def test_a_fit_that_fails_leaves_what_was_fitted_as_it_was(tmp_path):
    forecaster = Forecaster(**TINY).fit(wide(300), test=0.1)
    before = forecaster.test_begins_.copy()
    with pytest.raises(DataError):
        forecaster.fit(wide(40))
    np.testing.assert_array_equal(forecaster.test_begins_, before)
    forecaster.save(tmp_path / "m")
    pd.testing.assert_frame_equal(prismts.load(tmp_path / "m").predict(), forecaster.predict())


def test_a_saved_floor_is_that_floor(fitted, tmp_path):
    for name, floor in fit_floors(fitted, Collection.of(plant())).items():
        floor.save(tmp_path / name)
        back = prismts.load(tmp_path / name)
        assert back.model == floor.model
        np.testing.assert_array_equal(back.predict(plant().values), floor.predict(plant().values))


def test_the_config_of_a_saved_floor_is_json_that_any_reader_takes(tmp_path):
    forecaster = Forecaster("last_value", context_length=48, horizon=12).fit(wide())
    forecaster.save(tmp_path / "m")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    config = json.loads((tmp_path / "m" / "config.json").read_text(), parse_constant=refuse)
    assert config["fitted"]["fit_result"]["best_loss"] is None
    assert np.isnan(prismts.load(tmp_path / "m").fit_result_.best_loss)


def test_quantiles_floors_and_long_tables_survive_saving(tmp_path):
    forecaster = Forecaster("ridge", context_length=48, horizon=12, series="plant", quantiles=(0.2, 0.8)).fit(long())
    forecaster.save(tmp_path / "m")
    back = prismts.load(tmp_path / "m")
    pd.testing.assert_frame_equal(back.predict(), forecaster.predict())
    pd.testing.assert_frame_equal(back.predict(long()), forecaster.predict(long()))


def test_altered_foreign_newer_and_missing_folders_are_refused_in_words(fitted, tmp_path):
    folder = tmp_path / "m"
    fitted.save(folder)
    weights = (folder / "model.safetensors").read_bytes()
    config = (folder / "config.json").read_text()

    (folder / "model.safetensors").write_bytes(weights[:-4] + b"\0\0\0\1")
    with pytest.raises(SavedModelError, match="altered"):
        prismts.load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(SavedModelError, match="lacks the file"):
        prismts.load(folder)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text(config.replace('"horizon": 12', '"horizon": 13'))
    with pytest.raises(SavedModelError, match="altered"):
        prismts.load(folder)
    (folder / "config.json").write_text(config.replace('"format_version": 1', '"format_version": 99'))
    with pytest.raises(SavedModelError, match="newer PrismTS"):
        prismts.load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(SavedModelError, match="JSON"):
        prismts.load(folder)
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(SavedModelError, match="no model folder"):
        prismts.load(other)
    with pytest.raises(SavedModelError, match="Save to another place"):
        fitted.save(other)
    assert (other / "notes.txt").read_text() == "mine"
    with pytest.raises(SavedModelError, match="no model folder at"):
        prismts.load(tmp_path / "nowhere")


@pytest.mark.long
def test_a_save_killed_at_any_moment_leaves_a_model_that_loads(tmp_path):
    script = tmp_path / "save.py"
    script.write_text(
        textwrap.dedent("""
        import sys
        from prismts.data.synthetic import simulated_plant
        from prismts.estimators.forecaster import Forecaster
        forecaster = Forecaster("ridge", context_length=48, horizon=12).fit(simulated_plant(700, seed=1))
        forecaster.save(sys.argv[1])
        print("ready", flush=True)
        while True:
            forecaster.save(sys.argv[1])
    """)
    )
    place = tmp_path / "place"
    process = subprocess.Popen([sys.executable, str(script), str(place / "m")], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    forecasts = []
    for moment in range(8):
        time.sleep(0.01 + 0.013 * moment)
        process.send_signal(signal.SIGSTOP)  # what lies on the disk now is what a kill would have left
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        shutil.copytree(place, tmp_path / str(moment))
        forecasts.append(prismts.load(tmp_path / str(moment) / "m").predict())
        process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait()
    for forecast in [*forecasts, prismts.load(place / "m").predict()]:
        pd.testing.assert_frame_equal(forecast, forecasts[0])


def test_a_crash_between_the_two_renames_of_a_save_is_mended_on_loading(fitted, tmp_path):
    fitted.save(tmp_path / "m")
    (tmp_path / "m").rename(tmp_path / ".m.old")
    pd.testing.assert_frame_equal(prismts.load(tmp_path / "m").predict(), fitted.predict())


# ---- any horizon

UNIVERSAL = {
    **TINY, "model": "universal", "head": "any_horizon",
    "model_settings": {"patch_lengths": (8, 16), "stride": 8, "width": 8, "feed_forward": 16, "kernel_sizes": (3, 5)},
}  # fmt: skip


@pytest.fixture(scope="module")
def far() -> Forecaster:
    return Forecaster(**UNIVERSAL).fit(wide())


def test_a_head_bound_to_no_horizon_goes_on_as_far_as_it_is_asked(far):
    usual, further = far.predict(), far.predict(horizon=40)
    assert (len(usual), len(further)) == (12, 40)
    pd.testing.assert_frame_equal(further.iloc[:12], usual, atol=1e-5)
    assert (further["when"].diff().dropna() == pd.Timedelta(hours=1)).all()
    assert np.isfinite(further["feeder_1"]).all()
    pd.testing.assert_frame_equal(far.predict(horizon=5), usual.iloc[:5], atol=1e-5)


def test_a_head_bound_to_its_horizon_gives_its_first_steps_and_refuses_more(fitted):
    pd.testing.assert_frame_equal(fitted.predict(horizon=5), fitted.predict().iloc[:5])
    with pytest.raises(SettingsError, match=r"horizon=13 was asked for\. Fit it with horizon=13, or with head='any_ho"):
        fitted.predict(horizon=13)
    with pytest.raises(SettingsError, match="counts the steps to forecast and is at least 1, but got 0"):
        fitted.predict(horizon=0)


def test_a_forecaster_of_any_horizon_is_backtested_saved_and_loaded(far, tmp_path):
    assert far.line_ == "" and far.network_share_ is None
    done = far.backtest(wide(), begin=600, keep_forecasts=True)
    assert done.scores.n_scored == 700 - 600 - 12 + 1
    far.save(tmp_path / "m")
    pd.testing.assert_frame_equal(prismts.load(tmp_path / "m").predict(horizon=40), far.predict(horizon=40))


def test_quantiles_of_any_horizon_stay_in_order():
    levels = Forecaster(**{**UNIVERSAL, "quantiles": (0.1, 0.5, 0.9)}).fit(plant().values[:2])
    told = levels.predict(horizon=30)  # [Q, C, H]
    assert told.shape == (3, 2, 30)
    assert (np.diff(told, axis=0) >= 0).all()


def test_a_model_without_tokens_has_no_such_head():
    with pytest.raises(SettingsError, match="asks the tokens of an encoder, and 'ridge' forecasts in a form"):
        Forecaster("ridge", context_length=48, horizon=12, head="any_horizon").fit(wide())
    with pytest.raises(SettingsError, match=r"no head named 'any_horizont'\. Did you mean 'any_horizon'"):
        Forecaster(head="any_horizont").fit(wide())


def test_channels_that_exchange_meet_the_others_of_their_group_of_training():
    """Three channels in groups of two: 0 alone, 1 and 2 together, in training as in prediction."""
    values = plant().values[:3]
    exchanging = Forecaster(**UNIVERSAL).fit(values)
    with torch.no_grad():
        for name, parameter in exchanging.model_.named_parameters():
            if name.startswith("exchange."):
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    usual = exchanging.predict(values)
    for changed, told in ((0, [0]), (1, [1, 2]), (2, [1, 2])):
        other = values.copy()
        other[changed] = other[changed, ::-1] + 3.0
        moved = np.abs(exchanging.predict(other) - usual).max(-1) > 0
        assert np.flatnonzero(moved).tolist() == told
