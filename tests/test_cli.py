"""The command line, run as a user runs it: files go in, files come out, and bad input ends with one clear line."""

import json
import subprocess
import sys
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from prismts.cli import app
from prismts.cli.options import Duplicates as Option
from prismts.data.layout import Duplicates
from prismts.data.synthetic import simulated_plant


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
