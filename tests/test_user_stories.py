"""What users meet: odd tables, odd settings, folders that cannot be written, a hand on Ctrl-C."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import prismts
from prismts.data.series import Collection, Series
from prismts.errors import DataError, PrismError, SavedModelError, SettingsError
from prismts.estimators import forecaster as module
from prismts.estimators.base import as_json, from_json
from prismts.estimators.forecaster import Forecaster
from prismts.evaluation.thresholds import events
from prismts.layers.masking import Blocks, Points


def table(n: int = 200, n_channels: int = 2, freq: str = "h", start: str = "2024-01-01") -> pd.DataFrame:
    """Waves of a day, with some noise."""
    steps = np.arange(n)[:, None]
    values = np.sin(steps * np.pi / 12 + np.arange(n_channels))
    values += np.random.default_rng(0).normal(0, 0.1, values.shape)
    frame = pd.DataFrame(values, columns=[f"c{i}" for i in range(n_channels)])
    frame.insert(0, "date", pd.date_range(start, periods=n, freq=freq))
    return frame


def ridge(**settings: object) -> Forecaster:
    return Forecaster("ridge", **{"context_length": 24, "horizon": 6, "progress": False, **settings})


# ---- steps of another length


def test_data_with_other_steps_than_those_learned_are_refused_in_words():
    fitted = ridge().fit(table())
    for freq in ("D", "15min"):
        with pytest.raises(DataError, match=f"learned steps of h, but these data have steps of {freq}"):
            fitted.predict(table(freq=freq))
        with pytest.raises(DataError, match="learned steps of h"):
            fitted.backtest(table(freq=freq))
    with pytest.raises(DataError, match="learned steps of B"):
        ridge().fit(table(freq="B")).predict(table(freq="D"))


@pytest.mark.parametrize(("learned", "met"), [("MS", "ME"), ("W-WED", "W-SUN"), ("QS-JAN", "QS-FEB")])
def test_months_by_their_start_or_end_and_weeks_from_any_day_are_the_same_step(learned, met):
    forecast = ridge().fit(table(freq=learned)).predict(table(60, freq=met))
    assert (forecast["date"] == pd.date_range(table(60, freq=met)["date"].iloc[-1], periods=7, freq=met)[1:]).all()


def test_a_few_rows_go_on_at_the_step_that_was_learned():
    days = table(206, freq="B")  # row 200 is a Monday
    fitted = ridge().fit(days[:200])
    for begin, end in ((0, 1), (0, 5), (4, 6)):  # one day, a week that looks daily, a Friday and a Monday
        rows = days[200 + begin : 200 + end]
        after = pd.date_range(rows["date"].iloc[-1], periods=7, freq="B")[1:]
        assert (fitted.predict(rows)["date"] == after).all(), (begin, end)


# ---- names


def test_series_of_one_name_keep_their_own_scale():
    values = np.random.default_rng(0).standard_normal((1, 100))
    both = Collection.of([Series(values), Series(1000 * values)])
    for forecast in ((fitted := ridge().fit(both)).predict(), fitted.predict(both)):
        small, large = forecast["channel_0"].to_numpy().reshape(2, 6)
        np.testing.assert_allclose(1000 * small, large, rtol=1e-3)
    per_series = fitted.backtest(both).scores["mase"], ridge().fit(both.cases(0, 1)).backtest(both.cases(0, 1)).scores
    assert per_series[0] == pytest.approx(per_series[1]["mase"], rel=0.2)


def test_a_channel_may_be_called_step_or_series():
    frame = table().drop(columns="date").rename(columns={"c0": "step", "c1": "series"})
    forecast = ridge().fit(frame).predict()
    assert list(forecast.columns) == ["step_", "step", "series"]
    assert forecast["step_"].tolist() == list(range(200, 206))


def test_a_channel_called_like_a_quantile_of_another_is_refused_instead_of_lost():
    frame = table().rename(columns={"c0": "load", "c1": "load_q0.5"})
    with pytest.raises(DataError, match=r"quantile 0.5 of channel 'load' would be called 'load_q0.5'"):
        ridge(quantiles=(0.1, 0.5, 0.9)).fit(frame).predict()


def test_a_column_of_text_that_the_model_never_learned_does_not_stop_a_forecast():
    fitted = ridge().fit(table())
    pd.testing.assert_frame_equal(fitted.predict(table().assign(note="calm")), fitted.predict(table()))
    assert fitted.backtest(table().assign(note="calm")).scores["mse"] == fitted.backtest(table()).scores["mse"]
    with pytest.raises(DataError, match="'oops' in row 7"):  # one that it did learn still does
        fitted.predict(table().assign(c0=["oops" if i == 7 else "1" for i in range(200)]))


def test_a_column_of_text_that_was_never_learned_stops_no_other_answer_either(tmp_path):
    few = {"fit_settings": {"max_epochs": 1, "min_steps": 0}, "progress": False}
    holed = table()
    holed.loc[50:60, "c0"] = np.nan
    noted, oops = (holed.assign(**{name: "calm"}) for name in ("note", "c1"))
    models = [
        (prismts.AnomalyDetector(progress=False), lambda model, data: model.predict(data)),
        (prismts.Imputer(context_length=24, **few), lambda model, data: model.transform(data)),
        (prismts.Imputer(context_length=24, **few), lambda model, data: model.evaluate_removed(data)["mse"]),
        (prismts.Embedder(**few), lambda model, data: pd.DataFrame(model.transform(data))),
        (prismts.Embedder(**few), lambda model, data: pd.DataFrame(model.transform_windows(data)[1])),
    ]
    for model, answer in models:
        model.fit(table()).save(tmp_path / "m")
        for one in (model, prismts.load(tmp_path / "m")):
            if isinstance(expected := answer(one, holed), pd.DataFrame):
                pd.testing.assert_frame_equal(answer(one, noted), expected)
            else:
                assert answer(one, noted) == expected
            with pytest.raises(DataError, match="'calm'"):
                answer(one, oops)


# ---- settings


def test_lengths_that_are_no_whole_numbers_and_a_lone_quantile_are_refused_in_words():
    for settings, words in (
        ({"horizon": "6"}, "horizon is a whole number of time steps, but got '6'"),
        ({"context_length": 24.0}, "context_length is a whole number of time steps, but got 24.0"),
        ({"quantiles": 0.9}, "quantiles are several levels"),
    ):
        with pytest.raises(SettingsError, match=words):
            ridge(**settings).fit(table())


def test_settings_from_numpy_work_and_can_be_saved(tmp_path):
    fitted = ridge(
        horizon=np.int64(6), quantiles=np.array([0.1, 0.9]), values=np.array(["c0"]), random_state=np.int64(1)
    ).fit(table())
    fitted.save(tmp_path / "m")
    pd.testing.assert_frame_equal(prismts.load(tmp_path / "m").predict(), fitted.predict())


# ---- quantiles


def test_without_a_median_among_the_quantiles_the_point_forecast_lies_between_the_two_next_to_it():
    forecast = ridge(quantiles=(0.1, 0.2, 0.7, 0.9)).fit(table()).predict()
    between = forecast["c0_q0.2"] + 0.6 * (forecast["c0_q0.7"] - forecast["c0_q0.2"])
    np.testing.assert_allclose(forecast["c0"], between, rtol=1e-5, atol=1e-6)
    assert (ridge(quantiles=(0.8, 0.9)).fit(table()).predict().eval("c0 == `c0_q0.8`")).all()


def test_calibration_of_a_wide_table_reads_some_windows_of_the_whole_validation_part(monkeypatch):
    seen: list[int] = []
    inner = module.conformal_offsets

    def counted(forecasts, levels):
        batches = list(forecasts)
        seen.append(sum(len(forecast) for _, forecast in batches))
        return inner(batches, levels)

    monkeypatch.setattr(module, "conformal_offsets", counted)
    frame = table(1000)
    all_of_them = ridge(quantiles=(0.1, 0.5, 0.9)).fit(frame).quantile_offsets_
    monkeypatch.setattr(module, "_CALIBRATED", 60 * 3 * 2 * 6)  # misses of 60 windows
    some = ridge(quantiles=(0.1, 0.5, 0.9)).fit(frame).quantile_offsets_
    assert seen == [195, 49]
    np.testing.assert_allclose(some, all_of_them, atol=0.05)


# ---- files and folders


def test_a_saved_model_may_be_read_by_whom_the_umask_allows(tmp_path):
    before = os.umask(0o022)
    try:
        ridge().fit(table()).save(tmp_path / "m")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "m").iterdir()} == {0o644}


@pytest.fixture
def prism(run, tmp_path, monkeypatch):
    """The command in an empty folder with data.csv: exit code and error lines but for notes."""
    monkeypatch.chdir(tmp_path)
    table().to_csv("data.csv", index=False)

    def told(*arguments: object) -> tuple[int, list[str]]:
        code, _, err = run(*arguments)
        return code, err.splitlines()

    return told


FIT = ("fit", "forecast", "data.csv", "--horizon", 6, "--context-length", 24, "--quiet", "--out")


def test_a_place_that_cannot_be_written_is_one_clear_line(prism):
    Path("file").write_text("x")
    assert prism(*FIT, "m", "--model", "ridge") == (0, [])
    for arguments in (
        (*FIT, "file/m", "--model", "ridge"),
        (*FIT, "file/m", "--epochs", 1),
        ("predict", "m", "--out", "file/f.csv"),
        ("predict", "m", "--plot", "file/f.html"),
        ("evaluate", "m", "data.csv", "--out", "file/s.json"),
    ):
        code, lines = prism(*arguments)
        assert code == 2 and len(lines) == 1 and lines[0].startswith("prism: file"), (arguments, lines)
    assert prism("evaluate", "m", "data.csv", "--quiet", "--out", "new/folder/s.json") == (0, [])
    assert Path("new/folder/s.json").exists()


def test_another_table_is_scored_by_the_channels_it_shares_with_the_model(prism):
    assert prism(*FIT, "m", "--model", "ridge")[0] == 0
    table().assign(note="calm").to_csv("more.csv", index=False)
    assert prism("evaluate", "m", "more.csv") == (0, [])
    table().drop(columns="c1").assign(note="calm").to_csv("less.csv", index=False)
    code, lines = prism("evaluate", "m", "less.csv")
    assert code == 2 and "'note' holds text" in lines[0]


def test_a_folder_that_is_not_ours_is_refused_before_training_and_not_after(prism, monkeypatch):
    Path("notes").mkdir()
    Path("notes/thesis.txt").write_text("mine")
    monkeypatch.setattr(Forecaster, "fit", lambda *_, **__: pytest.fail("trained in vain"))
    for place in ("notes", ".", "data.csv"):
        for replace in ((), ("--replace",)):
            code, lines = prism(*FIT, place, *replace)
            assert code == 2 and len(lines) == 1 and "model folder" in lines[0], lines
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["data.csv", "notes"]


def test_the_columns_asked_for_are_those_read_from_a_data_set_known_by_name(prism, data_root):
    options = ("--model", "last_value", "--horizon", 6, "--context-length", 24, "--quiet")
    assert prism("fit", "forecast", "ETTh1", "--values", "OT", "HUFL", *options, "--out", "m") == (0, [])
    assert prismts.load("m").channels_ == ("OT", "HUFL")
    assert prism("evaluate", "m", "ETTh1") == (0, [])
    code, lines = prism("fit", "forecast", "ETTh1", "--values", "HUFF", *options, "--out", "n")
    assert code == 2 and "HUFF" in lines[0] and "HUFL" in lines[0]


# ---- a hand on Ctrl-C


def test_ctrl_c_in_training_is_a_keyboard_interrupt_and_leaves_python_listening(monkeypatch):
    from prismts.tasks.forecast import Forecast

    def press(self: Forecast, model: object, batch: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)  # until the signal is handled

    found = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores Ctrl-C
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Forecast, "loss", press)
            with pytest.raises(KeyboardInterrupt):
                Forecaster(context_length=24, horizon=6, progress=False).fit(table())
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, found)


@pytest.mark.slow
def test_a_stopped_command_says_so_and_the_same_command_goes_on(tmp_path):
    table(6000, 5).to_csv(tmp_path / "data.csv", index=False)
    command = [
        sys.executable,
        "-m",
        "prismts",
        *["fit", "forecast", "data.csv", "--horizon", "24", "--context-length", "96", "--out", "m"],
    ]
    stopped = subprocess.Popen(
        [*command, "--epochs", "4"], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores Ctrl-C
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("m.run/*/last.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.1)
    stopped.send_signal(signal.SIGINT)
    _, said = stopped.communicate(timeout=60)
    assert stopped.returncode == 130 and "prism: stopped. The same command goes on" in said
    other = subprocess.run([*command, "--epochs", "5"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert other.returncode == 2 and "unfinished run with other settings" in other.stderr
    again = subprocess.run([*command, "--epochs", "4"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "resumed after epoch" in again.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.csv", "m"]


# ---- wide tables


def test_training_on_a_table_of_many_channels_holds_few_rows_at_once_on_a_cpu():
    sizes: dict[int, tuple[int, int]] = {}
    for n_channels in (64, 65):
        fitted = Forecaster(
            context_length=8, horizon=1, progress=False, fit_settings={"max_epochs": 1, "accelerator": "cpu"}
        ).fit(table(60, n_channels))
        config = fitted._recipe_.fit
        sizes[n_channels] = config.batch_size, config.channels_at_once
    assert sizes == {64: (64, 64), 65: (4, 64)}
    asked = Forecaster(
        context_length=8,
        horizon=1,
        progress=False,
        fit_settings={"max_epochs": 1, "batch_size": 32, "accelerator": "cpu"},
    ).fit(table(60, 65))
    assert asked._recipe_.fit.batch_size == 32


def test_a_resumed_run_is_refused_when_another_part_of_the_data_is_kept_for_the_test(tmp_path):
    settings = {"context_length": 24, "horizon": 6, "progress": False, "fit_settings": {"max_epochs": 1}}
    Forecaster(**settings, run_folder=tmp_path / "run").fit(table(), test=0.0)
    with pytest.raises(SavedModelError, match=r"other settings or other data \(the data or how they are cut\)"):
        Forecaster(**settings, run_folder=tmp_path / "run").fit(table(), test=0.2)
    other = settings | {"context_length": 30, "fit_settings": {"max_epochs": 2}, "random_state": 3}
    with pytest.raises(SavedModelError) as told:
        Forecaster(**other, run_folder=tmp_path / "run").fit(table(), test=0.0)
    for words in ("max_epochs: 1 then, 2 now", "context_length: 24 then, 30 now", "seed: 0 then, 3 now"):
        assert words in str(told.value)
    assert "the data" not in str(told.value)


def test_quantiles_are_in_order_without_a_validation_part_too():
    settings = {"context_length": 24, "horizon": 6, "progress": False, "fit_settings": {"max_epochs": 1}}
    forecaster = Forecaster(**settings, quantiles=(0.1, 0.5, 0.9)).fit(
        table(300).iloc[:, 1:].to_numpy().T, validation=0
    )
    forecast = forecaster.predict()
    assert (np.diff(forecast, axis=0) >= 0).all()


def test_a_warm_start_with_another_horizon_is_refused_and_a_floor_is_solved_anew():
    forecaster = Forecaster(
        context_length=24, horizon=6, progress=False, fit_settings={"max_epochs": 1}, warm_start=True
    ).fit(table())
    with pytest.raises(SettingsError, match="warm_start"):
        forecaster.set_params(horizon=3).fit(table())
    ridge = Forecaster("ridge", context_length=24, horizon=6, warm_start=True).fit(table())
    before = ridge.model_.line.weight.clone()
    ridge.fit(table(900).tail(500))
    assert not np.array_equal(before.detach().numpy(), ridge.model_.line.weight.detach().numpy())


def test_the_points_of_a_quantile_forecast_are_scored_as_they_are_given():
    series = table(600)
    forecaster = Forecaster("ridge", context_length=24, horizon=6, quantiles=(0.1, 0.9)).fit(series, test=0.2)
    scores = forecaster.backtest(series, begin=forecaster.test_begins_).scores
    plain = Forecaster("ridge", context_length=24, horizon=6).fit(series, test=0.2)
    assert scores["mse"] < 1.2 * plain.backtest(series, begin=plain.test_begins_).scores["mse"]


def test_rows_added_to_the_training_table_are_what_is_evaluated(prism, tmp_path):
    whole = table(600)
    whole.iloc[:560].to_csv(tmp_path / "old.csv", index=False)
    whole.to_csv(tmp_path / "new.csv", index=False)
    m = tmp_path / "m"
    learn = ("fit", "forecast", tmp_path / "old.csv", "--model", "ridge", "--horizon", 6, "--context-length", 24)
    assert prism(*learn, "--out", m, "--quiet")[0] == 0
    assert prism("evaluate", m, tmp_path / "new.csv", "--out", tmp_path / "scores.json", "--quiet")[0] == 0
    assert json.loads((tmp_path / "scores.json").read_text())["ridge"]["n_scored"] == 35  # of 40 new rows


def test_a_folder_of_the_users_beside_the_model_is_left_alone(prism, tmp_path):
    table(300).to_csv(tmp_path / "x.csv", index=False)
    (tmp_path / "m.run").mkdir()
    (tmp_path / "m.run" / "notes.txt").write_text("mine")
    learn = ("fit", "forecast", tmp_path / "x.csv", "--model", "ridge", "--horizon", 6, "--context-length", 24)
    code, _ = prism(*learn, "--out", tmp_path / "m", "--quiet")
    assert code == 0 and (tmp_path / "m.run" / "notes.txt").read_text() == "mine"


# ---- what is kept of arguments, and data that hold nothing


@pytest.mark.parametrize(
    "value",
    [
        None, True, 2, 0.5, "é", [1, [2]], {"a": {"b": 1}}, {0: 1.0, 1: 2.0}, {True: 1, False: 2}, {1.5: "x"},
        {0: 1, "0": 2}, {"n": {(1, 2): {3: [4]}}},
    ],
)  # fmt: skip
def test_an_argument_comes_back_from_json_as_what_it_was(value):
    assert from_json(json.loads(json.dumps(as_json(value), sort_keys=True))) == value
    assert as_json(np.array([1, 2])) == [1, 2] and from_json(as_json({np.int64(3): np.float64(1)})) == {3: 1.0}


@pytest.mark.parametrize(
    ("estimator", "data", "words"),
    [
        (prismts.Classifier(n_members=1.5, progress=False), (np.ones((8, 1, 20)), [0, 1] * 4), "n_members counts"),
        (prismts.Classifier(progress=False), (np.ones((8, 1, 20)), 3), "8 cases need 8 labels"),
        (prismts.AnomalyDetector(false_alarm_rate="few", progress=False), (np.eye(2, 99),), "false_alarm_rate is a"),
        (prismts.Imputer(progress=False), ([],), "The list holds no case"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_from_is_told_in_words(estimator, data, words):
    with pytest.raises(PrismError, match=words):
        estimator.fit(*data)


def test_data_in_which_nothing_was_observed_are_refused_whatever_is_asked():
    forecaster = ridge().fit(table())
    detector = prismts.AnomalyDetector(progress=False).fit(table())
    empty = table(60).assign(c0=np.nan, c1=np.nan)
    for answer in (forecaster.predict, detector.score_samples):
        with pytest.raises(DataError, match="Nothing was observed"):
            answer(empty)
        assert answer(empty.assign(c0=1.0)) is not None


@pytest.mark.parametrize("seed", [None, -1, 1.5, "a"])
@pytest.mark.parametrize(
    "estimator", [prismts.Forecaster, prismts.Classifier, prismts.AnomalyDetector, prismts.Imputer, prismts.Embedder]
)
def test_a_seed_that_cannot_be_one_is_refused_with_words(estimator, seed):
    with pytest.raises(SettingsError, match="random_state is a whole number from 0 to"):
        estimator(random_state=seed, progress=False).fit(np.ones((2, 50)))
    with pytest.raises(SettingsError, match="random_state is a whole number from 0 to"):
        prismts.UniversalModel(random_state=seed).pretrain(np.ones((2, 200)))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"n_windows": -3}, "n_windows counts the windows to score, at least 1, but got -3"),
        ({"n_windows": 2.5}, "n_windows counts the windows to score, at least 1, but got 2.5"),
        ({"stride": 1.5}, "stride is a whole number of time steps, but got 1.5"),
        ({"begin": None}, "begin is the number of a time step, counted from 0, but got None"),
        ({"begin": "a"}, "begin is the number of a time step, counted from 0, but got 'a'"),
        ({"begin": np.array([100.0])}, "begin is the number of a time step"),
        ({"begin": np.array([1, 2])}, "begin is the number of a time step"),
        ({"end": 1.5}, "end is the number of a time step"),
    ],
)
def test_what_a_backtest_cannot_cut_by_is_refused_with_words(how, words):
    model = ridge().fit(table())
    with pytest.raises(SettingsError, match=words):
        model.backtest(table(), **how)


@pytest.mark.parametrize("quantiles", [("a",), (None,), {0.1, 0.9}, [[0.1, 0.9]]])
def test_quantiles_that_are_no_numbers_are_refused_with_words(quantiles):
    with pytest.raises(
        SettingsError, match=r"^quantiles are (numbers|several levels), such as \(0.1, 0.5, 0.9\), but got"
    ):
        ridge(quantiles=quantiles).fit(table())


def test_columns_of_one_name_are_refused_with_words():
    values = np.ones((50, 2)).cumsum(0)
    for twice in (pd.DataFrame(values, columns=["a", "a"]), pa.table(list(values.T), names=["a", "a"])):
        with pytest.raises(DataError, match=r"The table has two columns named 'a'\. Rename one\."):
            ridge().fit(twice)


def test_an_infinite_label_is_refused_with_words():
    with pytest.raises(DataError, match=r"Case 1 has an infinite label"):
        prismts.Classifier(progress=False).fit(np.ones((4, 1, 20)), [0.0, np.inf, 0.0, np.inf])


def test_an_error_names_the_function_that_has_the_argument_it_asks_for():
    twice = pd.concat([table(), table().iloc[[5]].assign(c0=9.0)])
    with pytest.raises(DataError, match=r"Say which one counts: prismts\.read\(\.\.\., duplicates='first'\)"):
        ridge().fit(twice)
    assert len(ridge().fit(prismts.read(twice, duplicates="first")).predict()) == 6
    late = table()
    late.loc[7:, "date"] += pd.Timedelta("7min")
    with pytest.raises(DataError, match=r"pass on what prismts\.read\(\.\.\., gaps='keep'\) gives"):
        ridge().fit(late)
    assert ridge().fit(prismts.read(late, gaps="keep")).n_channels_ == 2


def test_what_cannot_be_hidden_or_joined_is_refused_with_words():
    scores, alarms = np.ones(5), np.zeros(5)
    with pytest.raises(SettingsError, match="merge_gap is a whole number of steps"):
        events(alarms, scores, merge_gap=None)
    with pytest.raises(SettingsError, match="share is the part of the observed points"):
        Points("a")
    with pytest.raises(SettingsError, match="length counts the steps"):
        Blocks(0.2, length=float("nan"))
