"""The command line, run as a user runs it: files go in, files come out, and bad input ends with one clear line."""

import json
import subprocess
import sys
from typing import get_args

import numpy as np
import pandas as pd
import pytest

import prismts
from prismts.cli import app
from prismts.cli.options import Duplicates as Option
from prismts.data.layout import Duplicates
from prismts.data.synthetic import planted_anomalies, simulated_plant
from prismts.estimators.forecaster import Forecaster


@pytest.fixture
def table(tmp_path):
    series = simulated_plant(500, seed=3)
    frame = pd.DataFrame(series.values.T[:, :3], columns=list(series.channels[:3]))
    frame.insert(0, "date", series.timestamps)
    frame.to_csv(tmp_path / "data.csv", index=False)
    return tmp_path / "data.csv"


def test_fit_predict_and_evaluate_carry_a_table_from_end_to_end(table, tmp_path, run):
    model, forecast, plot, report = (tmp_path / name for name in ("m", "next.csv", "next.html", "report.html"))
    code, _, err = run(
        "fit", "forecast", table, "--time", "date", "--horizon", 12, "--context-length", 48, "--model", "ridge",
        "--out", model, "--report", report,
    )  # fmt: skip
    assert code == 0 and "ridge" in err and "last value" in err and "89 windows" in err
    assert report.stat().st_size > 1_000_000
    code, out, _ = run("predict", model, table, "--out", forecast, "--plot", plot)
    assert code == 0 and out == "" and plot.exists()
    frame = pd.read_csv(forecast, parse_dates=["date"])
    assert list(frame.columns) == list(pd.read_csv(table).columns) and len(frame) == 12
    assert frame["date"].iloc[0] == pd.read_csv(table, parse_dates=["date"])["date"].iloc[-1] + pd.Timedelta("1h")
    code, out, _ = run("evaluate", model, table, "--out", tmp_path / "scores.json")
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert code == 0 and "not looked at before" in out and scores["ridge"]["n_scored"] == 89
    assert scores["ridge"]["measures"]["mse"] < scores["last value"]["measures"]["mse"]
    code, out, _ = run("predict", model)
    assert code == 0 and out.splitlines()[0] == "date,feeder_1,feeder_2,feeder_3" and len(out.splitlines()) == 13


def test_the_default_model_trains_saves_and_leaves_no_run_folder(table, tmp_path, run):
    code, _, err = run(
        "fit", "forecast", table, "--horizon", 6, "--context-length", 64, "--epochs", 1, "--out", tmp_path / "m",
        "--quiet",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.csv", "m"]
    assert run("predict", tmp_path / "m", "--out", tmp_path / "f.parquet", "--quiet")[0] == 0
    assert len(pd.read_parquet(tmp_path / "f.parquet")) == 6


def test_a_model_that_is_there_is_not_overwritten_unasked(table, tmp_path, run):
    arguments = ["fit", "forecast", table, "--model", "last_value", "--horizon", 6, "--context-length", 24, "--out"]
    assert run(*arguments, tmp_path / "m", "--quiet")[0] == 0
    code, _, err = run(*arguments, tmp_path / "m")
    assert code == 2 and "--replace" in err
    assert run(*arguments, tmp_path / "m", "--replace", "--quiet")[0] == 0
    assert run(*arguments, tmp_path)[0] == 2  # a folder that holds other things


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fit", "forecast", "nowhere.csv", "--out", "m"), "There is no file nowhere.csv"),
        (("fit", "forecast", "DATA", "--horzon", "3", "--out", "m"), "--horizon"),
        (("fit", "forecast", "DATA", "--model", "convtimnet", "--out", "m"), "convtimenet"),
        (("fit", "forecast", "DATA", "--time", "datum", "--out", "m"), "datum"),
        (("fit", "forecast", "DATA", "--horizon", "400", "--out", "m"), "horizon"),
        (("fit", "forecast", "DATA", "--horizon", "many", "--out", "m"), "many"),
        (("fit", "forecast", "DATA", "--horizon", "6.9", "--out", "m"), "--horizon: '6.9' is no whole number"),
        (("fit", "forecast", "DATA", "--context-length", "24.7", "--out", "m"), "'24.7' is no whole number"),
        (("fit", "detect", "DATA", "--seed", "1.5", "--out", "m"), "--seed: '1.5' is no whole number"),
        (("fit", "classify", "DATA", "--epochs", "nan", "--out", "m"), "--epochs: 'nan' is no whole number"),
        (("predict", "nowhere"), "no model folder at nowhere"),
        (("evaluate", "nowhere", "DATA"), "no model folder"),
        (("check", "nowhere.csv"), "no file nowhere.csv"),
        (("datasets", "--task", "forcast"), "forecast"),
        (("chek", "x"), "check"),
    ],
)
def test_bad_input_ends_with_exit_code_2_and_one_clear_line(arguments, words, table, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*(str(table) if a == "DATA" else a for a in arguments))
    assert code == 2 and out == ""
    lines = [line for line in err.splitlines() if not line.startswith("  note:")]
    assert len(lines) == 1 and lines[0].startswith("prism: ") and words in lines[0], err
    assert not (tmp_path / "m").exists()


def test_check_prints_what_was_read_and_every_finding(tmp_path, run):
    frame = pd.DataFrame({"date": pd.date_range("2024-01-01", periods=50, freq="h"), "a": np.arange(50.0), "b": 1.0})
    frame.loc[7, "a"] = -9999
    frame.drop(index=[20, 21]).to_csv(tmp_path / "x.csv", index=False)
    code, out, _ = run("check", tmp_path / "x.csv")
    assert code == 0
    for words in ("1 series, 2 channels, 50 time steps", "2 rows missing", "-9999", "row 7", "constant"):
        assert words in out, words


def test_duplicate_times_are_settled_as_asked_by_every_command_that_reads_a_table(table, tmp_path, run):
    frame = pd.read_csv(table)
    again = frame.iloc[[7, -1]].assign(feeder_1=lambda rows: rows["feeder_1"] + 100)
    twice = tmp_path / "twice.csv"
    pd.concat([frame, again]).to_csv(twice, index=False)
    fit = ("--horizon", 12, "--context-length", 48, "--model", "ridge")
    for words in (("check", twice), ("fit", "forecast", twice, "--out", tmp_path / "m", *fit)):
        code, _, err = run(*words)
        assert code == 2 and "duplicates=" in err
        code, out, err = run(*words, "--duplicates", "first")
        assert code == 0 and "rows equal to another one in time" in (out + err)
    assert run("evaluate", tmp_path / "m", twice)[0] == 2
    assert run("evaluate", tmp_path / "m", twice, "--duplicates", "first")[0] == 0
    run("predict", tmp_path / "m", table, "--out", tmp_path / "once.csv")
    for choice, same in (("first", True), ("last", False)):
        arguments = ("--out", tmp_path / "f.csv", "--plot", tmp_path / "f.html", "--duplicates", choice)
        assert run("predict", tmp_path / "m", twice, *arguments)[0] == 0
        assert (pd.read_csv(tmp_path / "f.csv").equals(pd.read_csv(tmp_path / "once.csv"))) == same
    code, _, err = run("check", twice, "--duplicates", "frist")
    assert code == 2 and "first" in err


def test_the_ways_with_duplicates_are_those_of_the_reader():
    assert get_args(get_args(Option)[0]) == get_args(Duplicates)


def test_settings_of_training_are_refused_where_nothing_is_trained(table, tmp_path, run):
    code, _, err = run("fit", "forecast", table, "--model", "ridge", "--epochs", 3, "--out", tmp_path / "m")
    assert code == 2 and "fit_settings={'max_epochs': 3}" in err and "'ridge' is computed without training" in err


def test_datasets_lists_names(run):
    code, out, _ = run("datasets", "--task", "forecast", "--names")
    known = {"ETTh1", "ETTh2", "ETTm1", "ETTm2", "Exchange", "ILI", "Weather", "Weather_raw"}
    assert code == 0 and set(out.split()) == known


@pytest.mark.parametrize(
    "command", [(), ("fit",), ("fit", "forecast"), ("predict",), ("evaluate",), ("check",), ("demo",)]
)
def test_every_command_has_help(command, run):
    code, out, _ = run(*command, "--help")
    assert code == 0 and "Usage: prism" in out
    if command == ("fit", "forecast"):
        for words in ("goes on after its last finished epoch", "floors", "--horizon INT Steps to forecast."):
            assert words in " ".join(out.replace("│", " ").split()), words


def _commands(group, path=()):
    for name in (name for name in group if not name.startswith("-")):
        yield from _commands(group[name], (*path, name))
        if group[name].default_command is not None:
            yield (*path, name), group[name]


@pytest.mark.parametrize(("path", "command"), [pytest.param(*one, id=" ".join(one[0])) for one in _commands(app)])
def test_every_parameter_of_every_command_is_explained(path, command):
    arguments = [one for one in command.assemble_argument_collection(parse_docstring=True) if one.show]
    assert arguments and not [one.name for one in arguments if not (one.parameter.help or "").strip()]


def test_the_installed_command_answers():
    done = subprocess.run([sys.executable, "-m", "prismts", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0.1.0"


# ---- what was looked at before


def plain(text):
    """Without the line breaks of a table's title."""
    return " ".join(text.split())


@pytest.fixture
def full(table, tmp_path, run):
    """A model that has learned from every row of the table."""
    assert run(
        "fit", "forecast", table, "--horizon", 6, "--context-length", 48, "--epochs", 1, "--test", 0,
        "--out", tmp_path / "full", "--quiet",
    )[0] == 0  # fmt: skip
    return tmp_path / "full"


def test_an_adapted_model_does_not_call_a_test_part_unseen_that_the_model_before_has_learned_from(
    table, full, tmp_path, run
):
    code, _, err = run("adapt", full, table, "--epochs", 1, "--out", tmp_path / "again")
    assert code == 0 and "test, which the model before it has learned from" in plain(err)
    assert "not looked at before" not in err
    _, out, _ = run("evaluate", tmp_path / "again", table)
    assert "test, which the model before it may have learned from" in plain(out)


def test_rows_after_the_table_of_the_model_before_are_a_test_part_that_nobody_looked_at(table, full, tmp_path, run):
    later = simulated_plant(900, seed=3)
    frame = pd.DataFrame(later.values.T[:, :3], columns=list(later.channels[:3]))
    frame.insert(0, "date", later.timestamps)
    frame.iloc[500:].to_csv(tmp_path / "later.csv", index=False)
    _, _, err = run("adapt", full, tmp_path / "later.csv", "--epochs", 1, "--out", tmp_path / "m")
    assert "test: not looked at before" in err
    frame.assign(date=frame["date"] - pd.Timedelta("300h")).to_csv(tmp_path / "same_times.csv", index=False)
    _, _, err = run("adapt", full, tmp_path / "same_times.csv", "--epochs", 1, "--test", 0.5, "--out", tmp_path / "n")
    assert "test, which the model before it may have learned from" in plain(err)


def test_a_student_is_scored_beside_a_teacher_that_has_learned_from_the_test_part_in_these_words(
    table, full, tmp_path, run
):
    code, _, err = run("distill", full, table, "--epochs", 1, "--out", tmp_path / "small")
    assert code == 0 and "which the teacher has learned from, so expect worse on new data" in plain(err), err
    run("fit", "forecast", table, "--horizon", 6, "--context-length", 48, "--epochs", 1, "--out", tmp_path / "m", "-q")
    _, _, err = run("distill", tmp_path / "m", table, "--epochs", 1, "--out", tmp_path / "other")
    assert "test: steps (400, 500)" in err and "learned from" not in err


def test_a_saved_student_remembers_what_its_teacher_has_learned_from(table, full, tmp_path, run):
    assert run("distill", full, table, "--epochs", 1, "--out", tmp_path / "small")[0] == 0
    words = "which a model before it has learned from, so expect worse on new data"
    assert f"test, {words}" in plain(run("evaluate", tmp_path / "small", table)[1])
    assert words in plain(run("evaluate", tmp_path / "small", table, "--begin", 420)[1])
    _, _, err = run("adapt", tmp_path / "small", table, "--epochs", 1, "--out", tmp_path / "again")
    assert words in plain(err) and "not looked at before" not in err
    run("fit", "forecast", table, "--horizon", 6, "--context-length", 48, "--epochs", 1, "--out", tmp_path / "m", "-q")
    run("distill", tmp_path / "m", table, "--epochs", 1, "--out", tmp_path / "other")
    assert "test: not looked at before" in run("evaluate", tmp_path / "other", table)[1]


def test_a_model_that_went_on_from_its_weights_says_where_they_have_learned_from_what_is_scored(
    table, full, tmp_path, run
):
    other = simulated_plant(600, seed=4)
    frame = pd.DataFrame(other.values.T[:, :3], columns=list(other.channels[:3]), index=other.timestamps)
    Forecaster.load(full).set_params(warm_start=True, progress=False).fit(frame, test=0.2).save(tmp_path / "on")
    told = plain(run("evaluate", tmp_path / "on", table)[1])
    assert "which a model before it has learned from, so expect worse on new data" in told


def test_a_student_of_the_first_rows_says_where_its_teacher_has_learned_from_the_later_ones(table, full, tmp_path, run):
    pd.read_csv(table).iloc[:300].to_csv(tmp_path / "first.csv", index=False)
    assert run("distill", full, tmp_path / "first.csv", "--epochs", 1, "--out", tmp_path / "small")[0] == 0
    words = "what comes after the end of the training table, which a model before it has learned from"
    assert words in plain(run("evaluate", tmp_path / "small", table)[1])


def test_a_student_of_many_series_cuts_each_by_fractions_of_its_own_length(tmp_path, run):
    series = simulated_plant(1200, seed=5)
    long = [
        pd.DataFrame({"id": name, "time": series.timestamps[:n], "y": series.values[0, :n]})
        for name, n in (("a", 1200), ("b", 300))
    ]
    pd.concat(long).to_csv(tmp_path / "two.csv", index=False)
    options = ("--series", "id", "--horizon", 6, "--context-length", 48, "--epochs", 1, "--out", tmp_path / "m", "-q")
    assert run("fit", "forecast", tmp_path / "two.csv", *options)[0] == 0
    how = ("--epochs", 1, "--share", 0.3, "--out", tmp_path / "s")
    code, _, err = run("distill", tmp_path / "m", tmp_path / "two.csv", *how)
    student = Forecaster.load(tmp_path / "s")
    assert code == 0 and "two, test: the last fifth of each series" in plain(err)
    assert student.train_ends_.tolist() == [840, 210]
    assert student.test_begins_.tolist() == Forecaster.load(tmp_path / "m").test_begins_.tolist() == [960, 240]


def test_steps_as_given_are_told_to_be_learned_from_and_none_before_the_first_is_read(table, tmp_path, run):
    run("fit", "forecast", table, "--model", "ridge", "--horizon", 6, "--context-length", 24, "--out", tmp_path / "m")
    _, out, _ = run("evaluate", tmp_path / "m", table, "--begin", 0, "--end", 280)
    assert "steps as given, which it has learned from" in plain(out)
    _, out, _ = run("evaluate", tmp_path / "m", table, "--begin", 400)
    assert "steps as given: 95 windows" in plain(out)
    for option in ("--begin", "--end"):
        code, _, err = run("evaluate", tmp_path / "m", table, option, -50)
        assert code == 2 and f"{option} is a step counted from 0" in err and "-50" in err


def test_a_page_about_a_model_without_a_test_part_speaks_of_the_windows_that_were_scored(table, tmp_path, run):
    fit = ("fit", "forecast", table, "--model", "ridge", "--horizon", 6, "--context-length", 24, "--test", 0)
    for name, validation, part in (("v", 0.2, "validation"), ("t", 0, "training")):
        page = tmp_path / f"{name}.html"
        run(*fit, "--validation", validation, "--out", tmp_path / name, "--report", page, "--quiet")
        text = page.read_text(encoding="utf-8")
        assert f"The scores are of {part}" in text and f"over all {part} windows" in text
        assert "test windows" not in text


def test_a_page_about_a_model_of_many_series_says_that_one_of_them_is_drawn(tmp_path, run):
    long = pd.DataFrame({"id": np.repeat(["a", "b"], 200), "load": np.sin(np.arange(400) / 3.0)})
    long.to_csv(tmp_path / "homes.csv", index=False)
    page = tmp_path / "r.html"
    code, _, err = run(
        "fit", "forecast", tmp_path / "homes.csv", "--series", "id", "--model", "ridge", "--horizon", 6,
        "--context-length", 24, "--out", tmp_path / "m", "--report", page,
    )  # fmt: skip
    text = page.read_text(encoding="utf-8")
    assert code == 0 and "ridge on homes" in text and "ridge on a<" not in text, err
    assert "The scores are of all 2 series; drawn, and told of under Data, is the first, a." in text


def test_the_median_is_always_among_the_quantiles(table, tmp_path, run):
    run(
        "fit", "forecast", table, "--model", "ridge", "--horizon", 6, "--context-length", 24, "--quantiles", 0.9,
        "--values", "feeder_1", "--out", tmp_path / "m",
    )  # fmt: skip
    forecast = pd.read_csv(pd.io.common.StringIO(run("predict", tmp_path / "m")[1]))
    assert list(forecast) == ["date", "feeder_1", "feeder_1_q0.5", "feeder_1_q0.9"]
    assert (forecast["feeder_1"] == forecast["feeder_1_q0.5"]).all()
    assert (forecast["feeder_1"] < forecast["feeder_1_q0.9"]).all()
    code, _, err = run(
        "fit", "forecast", table, "--model", "ridge", "--quantiles", 0.9, 0.1, "--out", tmp_path / "n"
    )  # fmt: skip
    assert code == 2 and "rising levels" in err


# ---- findings


@pytest.mark.long
def test_every_command_tells_what_was_noticed_when_data_were_read(table, tmp_path, run):
    holed = tmp_path / "holed.csv"
    pd.read_csv(table).drop(index=[20, 21]).to_csv(holed, index=False)
    words = "note: 2 rows missing"
    small = ("--horizon", 6, "--context-length", 48, "--epochs", 1)
    for command in (
        ("fit", "forecast", holed, *small, "--out", tmp_path / "m"),
        ("predict", tmp_path / "m", holed),
        ("predict", tmp_path / "m", holed, "--duplicates", "first"),
        ("evaluate", tmp_path / "m", holed),
        ("adapt", tmp_path / "m", holed, "--epochs", 1, "--out", tmp_path / "a"),
        ("distill", tmp_path / "m", holed, "--epochs", 1, "--out", tmp_path / "s"),
        ("fit", "detect", holed, "--out", tmp_path / "d"),
        ("predict", tmp_path / "d", holed),
        ("impute", holed, "--epochs", 1, "--save", tmp_path / "i"),
        ("impute", holed, "--model", tmp_path / "i"),
        ("predict", tmp_path / "i", holed),
        ("embed", holed, "--epochs", 1, "--save", tmp_path / "e"),
        ("predict", tmp_path / "e", holed),
    ):
        code, _, err = run(*command)
        assert code == 0 and err.count(words) == 1, (command, err)
    assert run("predict", tmp_path / "m", holed, "--quiet")[2] == ""


def test_the_page_of_a_forecast_reads_a_table_as_the_forecast_does(table, tmp_path, run):
    run("fit", "forecast", table, "--model", "ridge", "--horizon", 6, "--context-length", 24, "--out", tmp_path / "m")
    pd.read_csv(table).assign(remark="as usual").to_csv(tmp_path / "told.csv", index=False)
    where = ("--out", tmp_path / "f.csv", "--plot", tmp_path / "f.html")
    code, _, err = run("predict", tmp_path / "m", tmp_path / "told.csv", *where)
    assert code == 0 and (tmp_path / "f.html").exists(), err


def test_check_takes_the_frequency_that_it_asks_for(tmp_path, run):
    times = pd.to_datetime(["2024-01-01 00:00", "2024-01-01 01:00", "2024-01-01 02:07", "2024-01-01 03:00"])
    pd.DataFrame({"date": times, "x": np.arange(4.0)}).to_csv(tmp_path / "x.csv", index=False)
    code, _, err = run("check", tmp_path / "x.csv")
    assert code == 2 and "frequency" in err
    code, out, _ = run("check", tmp_path / "x.csv", "--frequency", "h")
    assert code == 0 and "moved" in out


def test_a_detector_answers_by_the_names_of_the_table(tmp_path, run):
    series = simulated_plant(400, seed=3)
    frame = pd.DataFrame({"when": series.timestamps, "load": series.values[0]})
    frame.to_csv(tmp_path / "wide.csv", index=False)
    pd.concat([frame.assign(house=name) for name in "ab"]).to_csv(tmp_path / "long.csv", index=False)
    for name, options, first in (("wide", (), ["when"]), ("long", ("--series", "house"), ["house", "when"])):
        run("fit", "detect", tmp_path / f"{name}.csv", *options, "--out", tmp_path / name)
        _, out, _ = run("predict", tmp_path / name, tmp_path / f"{name}.csv")
        assert out.splitlines()[0].split(",") == [*first, "score", "threshold", "alarm"]


# ---- what is refused before any work


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fit", "forecast", "DATA", "--out", "m", "--report", "DATA"), "would be written over"),
        (("fit", "forecast", "DATA", "--out", "m", "--report", "."), "is a folder"),
        (("fit", "forecast", "DATA", "--out", "m", "--report", "DATA/r.html"), "is a file, not a folder"),
        (("fit", "forecast", "DATA", "--out", "m", "--report", "r.pdf"), "written as a page, .html"),
        (("fit", "forecast", "DATA", "--out", "DATA/m"), "is a file, not a folder"),
        (("fit", "forecast", "DATA", "--out", "m", "--seed", "-1"), "--seed. Must be >= 0"),
        (("fit", "detect", "DATA", "--out", "DATA/m"), "is a file, not a folder"),
        (("fit", "detect", "DATA", "--out", "m", "--seed", "-1"), "--seed. Must be >= 0"),
        (("predict", "m", "DATA", "--out", "DATA"), "would be written over"),
        (("predict", "m", "DATA", "--out", "x.npz"), "written as .csv"),
        (("predict", "m", "DATA", "--plot", "DATA"), "would be written over"),
        (("predict", "m", "DATA", "--plot", "x.png"), "x.png: what is drawn is written as a page, .html"),
        (("evaluate", "m", "DATA", "--out", "DATA"), "would be written over"),
        (("impute", "DATA", "--out", "DATA"), "would be written over"),
        (("impute", "DATA", "--out", "x.npz"), "written as .csv"),
        (("impute", "DATA", "--seed", "-1"), "--seed. Must be >= 0"),
        (("embed", "DATA", "--out", "DATA"), "would be written over"),
        (("embed", "DATA", "--window", "4800"), "No window fits"),
        (("embed", "DATA", "--window", "0"), "--window. Must be >= 1"),
        (("embed", "DATA", "--window", "3"), "3 steps, too few to embed"),
        (("embed", "DATA", "--stride", "3"), "Give --window"),
        (("embed", "DATA", "--window", "30", "--stride", "0"), "--stride. Must be >= 1"),
        (("adapt", "m", "DATA", "--save-adapter", "DATA/a"), "is a file, not a folder"),
        (("adapt", "m", "DATA", "--save-adapter", "a", "--how", "full"), "there is no adapter"),
        (("distill", "m", "DATA", "--out", "s", "--report", "DATA"), "would be written over"),
        (("demo", "--out", "DATA"), "is a file, not a folder"),
        (("macs", "dlinear", "--n-channels", "0"), "--n-channels. Must be >= 1"),
        (("macs", "dlinear", "--context-length", "0"), "--context-length. Must be >= 1"),
        (("macs", "dlinear", "--horizon", "-3"), "--horizon. Must be >= 1"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_learned(arguments, words, table, run, tmp_path, monkeypatch):
    def learned(*_, **__):
        raise AssertionError("something was learned before the refusal")

    for place in ("forecaster.Forecaster", "detector.AnomalyDetector", "imputer.Imputer", "embedder.Embedder"):
        monkeypatch.setattr(f"prismts.estimators.{place}.fit", learned)
    monkeypatch.chdir(tmp_path)
    before = table.read_bytes()
    code, out, err = run(*(a.replace("DATA", table.name) for a in arguments))
    assert code == 2 and out == "" and words in err and err.startswith("prism: "), err
    assert table.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == [table.name]


def test_a_refusal_names_what_a_folder_holds_with_its_article(tmp_path, run):
    detector = prismts.AnomalyDetector("sub_pca", progress=False).fit(planted_anomalies(600, seed=0))
    detector.save(tmp_path / "m")
    code, _, err = run("predict", tmp_path / "m")
    assert code == 2 and "m holds an AnomalyDetector, which answers for data" in err.replace("\n", " ")


def test_only_who_can_go_on_is_told_so_when_a_command_is_stopped(table, tmp_path, run, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("prismts.estimators.imputer.Imputer.fit", stop)
        patch.setattr("prismts.estimators.forecaster.Forecaster.fit", stop)
        assert run("impute", table) == (130, "", "prism: stopped.\n")
        fit = ("fit", "forecast", table, "--out", tmp_path / "m", "--quiet")
        assert run(*fit) == (130, "", "prism: stopped.\n")  # no epoch was finished yet
        (tmp_path / "m.run" / "member-0").mkdir(parents=True)
        (tmp_path / "m.run" / "member-0" / "last.safetensors").touch()
        words = "prism: stopped. The same command goes on after the last finished epoch.\n"
        assert run(*fit) == (130, "", words)
