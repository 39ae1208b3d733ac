"""Classes, gaps and vectors from the command line: files go in, files come out."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from prismts.data.synthetic import labeled_motions, simulated_plant


def ts_file(path, cases, labels) -> None:
    lines = ["@problemName motions", "@timeStamps false", "@univariate false", "@dimensions 2", "@equalLength true",
             "@seriesLength 40", "@classLabel true slow middle fast", "@data"]  # fmt: skip
    names = ("slow", "middle", "fast")
    for case, label in zip(cases, labels, strict=True):
        lines.append(":".join(",".join(f"{v:.4f}" for v in channel) for channel in case.values) + f":{names[label]}")
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def cases(tmp_path):
    motions = labeled_motions(45, n_channels=2, n_timepoints=40)
    for name, part in (("TRAIN", motions.train), ("TEST", motions.test)):
        ts_file(tmp_path / f"{name}.ts", part, part.labels)
    return tmp_path


@pytest.mark.long
def test_fit_evaluate_and_predict_carry_labeled_cases_from_end_to_end(cases, run):
    model = cases / "m"
    code, _, err = run(
        "fit", "classify", cases / "TRAIN.ts", "--test", cases / "TEST.ts", "--epochs", 12, "--out", model
    )
    assert code == 0 and "30 cases, 3 classes, 2 channels" in err and "while they were left out" in err
    code, out, _ = run("evaluate", model, cases / "TEST.ts", "--out", cases / "scores.json")
    scores = json.loads((cases / "scores.json").read_text())
    assert code == 0 and "15 cases" in out and scores["measures"]["accuracy"] > 0.8
    code, out, _ = run("predict", model, cases / "TEST.ts", "--out", cases / "classes.csv")
    answers = pd.read_csv(cases / "classes.csv")
    assert code == 0 and list(answers) == ["case", "class", "p(fast)", "p(middle)", "p(slow)"] and len(answers) == 15
    np.testing.assert_allclose(answers.filter(like="p(").sum(axis=1), 1)
    assert sorted(path.name for path in cases.iterdir()) == ["TEST.ts", "TRAIN.ts", "classes.csv", "m", "scores.json"]


def test_cases_in_a_long_table_are_classified_by_the_name_of_their_series(tmp_path, run):
    motions = labeled_motions(24, n_channels=2, n_timepoints=30)
    rows = [
        (f"run {i}", t, *case.values[:, t], f"k{motions.labels[i]}")
        for i, case in enumerate(motions)
        for t in range(30)
    ]
    pd.DataFrame(rows, columns=["id", "t", "x", "y", "kind"]).to_csv(tmp_path / "runs.csv", index=False)
    columns = ("--series", "id", "--time", "t", "--label", "kind")
    code, _, err = run("fit", "classify", tmp_path / "runs.csv", *columns, "--epochs", 2, "--out", tmp_path / "m")
    assert code == 0, err
    code, out, _ = run("predict", tmp_path / "m", tmp_path / "runs.csv")
    assert code == 0 and out.splitlines()[1].startswith("run 0,k")


def test_impute_fills_the_gaps_and_leaves_the_rest(tmp_path, run):
    series = simulated_plant(400, seed=3)
    frame = pd.DataFrame(np.round(series.values.T[:, :3], 3), columns=list(series.channels[:3]))
    frame["feeder_1"] = np.round(
        12251460.44 + 1e6 * frame["feeder_1"].astype(float), 2
    )  # more digits than single precision has
    frame.insert(0, "date", series.timestamps)
    holed = frame.copy()
    holed.loc[50:60, "feeder_1"] = np.nan
    holed.to_csv(tmp_path / "gaps.csv", index=False)
    code, _, err = run(
        "impute",
        tmp_path / "gaps.csv",
        "--out",
        tmp_path / "full.csv",
        "--save",
        tmp_path / "m",
        "--epochs",
        1,
        "--quiet",
    )
    filled = pd.read_csv(tmp_path / "full.csv", parse_dates=["date"])
    assert (code, err) == (0, "") and not filled.isna().any().any() and list(filled) == list(frame)
    seen = holed["feeder_1"].notna()
    np.testing.assert_array_equal(filled.loc[seen, "feeder_1"], holed.loc[seen, "feeder_1"])
    code, out, _ = run("impute", tmp_path / "gaps.csv", "--model", tmp_path / "m")
    again = pd.read_csv(pd.io.common.StringIO(out))
    np.testing.assert_allclose(again["feeder_1"], filled["feeder_1"], rtol=1e-5)
    np.testing.assert_array_equal(again.loc[seen, "feeder_1"], holed.loc[seen, "feeder_1"])
    code, out, _ = run("predict", tmp_path / "m", tmp_path / "gaps.csv")
    assert code == 0 and len(out.splitlines()) == 401


def test_embed_gives_a_row_per_case_or_per_window(cases, run):
    code, _, err = run("embed", cases / "TRAIN.ts", "--out", cases / "v.csv", "--save", cases / "m", "--epochs", 1)
    vectors = pd.read_csv(cases / "v.csv")
    assert code == 0 and len(vectors) == 30 and list(vectors)[:2] == ["case", "e0"], err
    code, out, _ = run("embed", cases / "TEST.ts", "--model", cases / "m", "--window", 20, "--stride", 10)
    assert code == 0 and len(out.splitlines()) == 1 + 15 * 3 and out.startswith("case,begin,e0")
    assert run("predict", cases / "m", cases / "TEST.ts")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fit", "classify", "nowhere.ts", "--out", "m"), "nowhere.ts"),
        (("fit", "classify", "ETTh2", "--out", "m"), "not labeled cases"),
        (("fit", "classify", "TRAIN", "--setting", "netwrk", "--out", "m"), "network"),
        (("fit", "classify", "TRAIN", "--model", "ridge", "--out", "m"), "direct forecaster"),
        (("impute", "TRAIN", "--model", "a", "--save", "b"), "Leave one out"),
        (("embed", "TRAIN", "--model", "nowhere"), "no model folder"),
    ],
)
def test_bad_input_ends_with_one_clear_line(arguments, words, cases, run, monkeypatch):
    monkeypatch.chdir(cases)
    if "ETTh2" in arguments:
        pytest.importorskip("prismts")
        monkeypatch.setattr("prismts.data.catalog.load_dataset", lambda name: simulated_plant(50))
    code, out, err = run(*(cases / "TRAIN.ts" if a == "TRAIN" else a for a in arguments))
    assert code == 2 and out == "" and words in err and err.count("\n") == 1, err


def test_macs_prints_the_three_numbers_of_the_slides(run):
    code, out, _ = run("macs", "cross_learner")
    assert code == 0
    for number in ("4,257,792", "56,340,480", "1,985,679,360"):
        assert number in out


@pytest.fixture
def twice(tmp_path):
    """Two long tables of labeled cases: one as it should be, one in which a row of a case stands twice, differently."""
    motions = labeled_motions(12, n_channels=2, n_timepoints=30)
    rows = [
        (f"run {i}", t, *case.values[:, t], f"k{motions.labels[i]}")
        for i, case in enumerate(motions)
        for t in range(30)
    ]
    frame = pd.DataFrame(rows, columns=["id", "t", "x", "y", "kind"])
    frame.to_csv(tmp_path / "once.csv", index=False)
    again = frame.iloc[[5]].assign(x=50.0)
    pd.concat([frame, again]).to_csv(tmp_path / "twice.csv", index=False)
    return tmp_path


def test_rows_that_stand_twice_are_settled_as_asked_for_a_classifier(twice, run):
    columns = ("--series", "id", "--time", "t", "--label", "kind")
    fit = (
        "fit",
        "classify",
        twice / "twice.csv",
        *columns,
        "--epochs",
        1,
        "--setting",
        "network",
        "--out",
        twice / "m",
    )
    code, _, err = run(*fit)
    assert code == 2 and "duplicates=" in err
    assert run(*fit, "--duplicates", "first")[0] == 0
    assert run("predict", twice / "m", twice / "twice.csv")[0] == 2
    _, once, _ = run("predict", twice / "m", twice / "once.csv")
    assert run("predict", twice / "m", twice / "twice.csv", "--duplicates", "first")[1] == once
    assert run("predict", twice / "m", twice / "twice.csv", "--duplicates", "last")[1] != once
    assert run("evaluate", twice / "m", twice / "twice.csv")[0] == 2
    assert run("evaluate", twice / "m", twice / "twice.csv", "--duplicates", "first")[0] == 0


def test_rows_that_stand_twice_are_settled_as_asked_for_an_embedder(twice, run):
    columns = ("--series", "id", "--time", "t", "--values", "x", "y", "--epochs", 1)
    assert run("embed", twice / "twice.csv", *columns, "--save", twice / "m")[0] == 2
    code, once, err = run("embed", twice / "once.csv", *columns, "--save", twice / "m")
    assert code == 0, err
    for command in (
        ("embed", twice / "twice.csv", "--model", twice / "m"),
        ("predict", twice / "m", twice / "twice.csv"),
    ):
        assert run(*command)[0] == 2
        assert run(*command, "--duplicates", "first")[1] == once
        assert run(*command, "--duplicates", "last")[1] != once


def test_duplicates_say_nothing_about_a_data_set_a_detector_is_scored_on(tmp_path, run):
    from prismts.estimators.detector import AnomalyDetector

    AnomalyDetector(progress=False).fit(simulated_plant(400, seed=3)).save(tmp_path / "m")
    code, out, err = run("evaluate", tmp_path / "m", "anything", "--duplicates", "first")
    assert code == 2 and out == "" and "--duplicates settles rows of a table" in err


def test_a_classifier_reads_a_table_with_semicolons_and_an_empty_column_of_labels(twice, run):
    frame = pd.read_csv(twice / "once.csv")
    frame.to_csv(twice / "german.csv", index=False, sep=";", decimal=",")
    columns = ("--series", "id", "--time", "t", "--label", "kind")
    code, _, err = run(
        "fit", "classify", twice / "german.csv", *columns, "--epochs", 1, "--setting", "network", "--out", twice / "m"
    )
    assert code == 0, err
    frame.assign(kind="").to_csv(twice / "new.csv", index=False)
    assert run("predict", twice / "m", twice / "new.csv")[1] == run("predict", twice / "m", twice / "once.csv")[1]


@pytest.mark.long
def test_scores_on_the_cases_that_were_learned_from_say_so(cases, run):
    fit = ("fit", "classify", cases / "TRAIN.ts", "--epochs", 1, "--setting", "network", "--out", cases / "m")
    _, _, err = run(*fit, "--test", cases / "TRAIN.ts")
    words = "which it has learned from, so this says nothing about new data: 30 cases"
    assert words in " ".join(err.split())
    assert words in " ".join(run("evaluate", cases / "m", cases / "TRAIN.ts")[1].split())
    assert "learned from" not in run("evaluate", cases / "m", cases / "TEST.ts")[1]
    _, _, err = run("adapt", cases / "m", cases / "TRAIN.ts", "--epochs", 1, "--out", cases / "a")
    assert "while they were left out, which the model before has learned from: accuracy" in " ".join(err.split())
    distill = ("distill", cases / "m", cases / "TEST.ts", "--epochs", 1, "--out", cases / "s")
    _, _, err = run(*distill, "--test", cases / "TRAIN.ts")
    assert "which the teacher has learned from" in " ".join(err.split())
    assert "which a model before it has learned from" in " ".join(
        run("evaluate", cases / "s", cases / "TRAIN.ts")[1].split()
    )


@pytest.mark.long
def test_a_detector_scored_on_all_that_it_has_learned_from_says_so(cases, run, monkeypatch):
    from prismts.data.synthetic import planted_anomalies

    series = planted_anomalies()
    monkeypatch.setattr("prismts.data.catalog.load_dataset", lambda name: series)
    monkeypatch.setattr("prismts.cli.files.is_dataset", lambda name: True)
    assert run("fit", "detect", "known", "--out", cases / "d")[0] == 0
    assert "learned from" not in run("evaluate", cases / "d", "known")[1]
    monkeypatch.setattr("prismts.data.catalog.load_dataset", lambda name: replace(series, borders=None))
    assert run("fit", "detect", "known", "--out", cases / "all")[0] == 0
    assert "which it has learned from" in " ".join(run("evaluate", cases / "all", "known")[1].split())


def test_cases_to_score_on_are_read_before_anything_is_learned(cases, run, monkeypatch):
    def learned(*_, **__):
        raise AssertionError("something was learned before the refusal")

    monkeypatch.setattr("prismts.estimators.classifier.Classifier.fit", learned)
    fit = ("fit", "classify", cases / "TRAIN.ts", "--out", cases / "m")
    motions = labeled_motions(45, n_channels=3, n_timepoints=40)
    ts_file(cases / "wide.ts", motions.test, motions.test.labels)
    pd.DataFrame({"x": np.arange(40.0)}).to_csv(cases / "plain.csv", index=False)
    for test, words in (("nowhere.ts", "no file"), ("wide.ts", "3"), ("plain.csv", "brings no labels")):
        code, _, err = run(*fit, "--test", cases / test)
        assert code == 2 and words in err, err
    code, _, err = run(*fit, "--seed", -1)
    assert code == 2 and "--seed. Must be >= 0" in err


def test_a_page_about_a_student_without_cases_to_score_is_refused_before_anything_is_learned(cases, run):
    run("fit", "classify", cases / "TRAIN.ts", "--epochs", 1, "--setting", "network", "--out", cases / "m")
    code, _, err = run("distill", cases / "m", cases / "TRAIN.ts", "--out", cases / "s", "--report", cases / "s.html")
    assert code == 2 and "Give --test" in err and not (cases / "s").exists()


def test_what_was_noticed_when_cases_were_read_is_told_by_every_command(twice, run):
    frame = pd.read_csv(twice / "once.csv")
    pd.concat([frame, frame.iloc[[5]]]).to_csv(twice / "equal.csv", index=False)
    columns = ("--series", "id", "--time", "t", "--label", "kind")
    fit = ("fit", "classify", twice / "equal.csv", *columns, "--epochs", 1, "--setting", "network")
    for command in (
        (*fit, "--out", twice / "m"),
        ("predict", twice / "m", twice / "equal.csv"),
        ("evaluate", twice / "m", twice / "equal.csv"),
    ):
        code, _, err = run(*command)
        assert code == 0 and err.count("equal to another one in time") == 1, (command, err)
    assert run("predict", twice / "m", twice / "equal.csv", "--quiet")[2] == ""


@pytest.mark.parametrize("settled", [[], ["--duplicates", "first"]])
def test_a_column_of_text_that_no_model_learned_stops_no_answer(tmp_path, run, settled):
    at = pd.date_range("2024-01-01", periods=300, freq="h")
    load = np.sin(np.arange(300) / 4) + 0.1 * np.random.default_rng(0).normal(size=300)
    table, mine = tmp_path / "t.csv", str(tmp_path / "mine.csv")
    pd.DataFrame({"time": at, "load": load}).to_csv(table, index=False)
    for name, fit in {
        "f": ["fit", "forecast", str(table), "--horizon", "3", "--context-length", "24", "--model", "ridge"],
        "d": ["fit", "detect", str(table)],
    }.items():
        assert run(*fit, "--out", str(tmp_path / name), "--quiet")[0] == 0
    fill = ["impute", str(table), "--epochs", "1", "--save", str(tmp_path / "i"), "--out", str(tmp_path / "all.csv")]
    assert run(*fill, "--quiet")[0] == 0
    pd.DataFrame({"time": at, "who": "Ada, in the morning", "load": load}).to_csv(mine, index=False)
    for name in "fdi":
        found = run("predict", str(tmp_path / name), mine, "--out", str(tmp_path / f"{name}.csv"), *settled)
        assert found[0] == 0, found[2]
    assert run("evaluate", str(tmp_path / "f"), mine, *settled)[0] == 0
    assert run("impute", mine, "--model", str(tmp_path / "i"), "--out", str(tmp_path / "g.csv"), *settled)[0] == 0
    assert list(pd.read_csv(tmp_path / "g.csv")["load"]) == list(pd.read_csv(table)["load"])
