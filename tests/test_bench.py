"""A benchmark from its file to its cells: what is checked before, what is written, and what a second run does."""

import json
import os
import socket
import subprocess
import sys
import threading
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from prismts.analysis.macs import count
from prismts.benchmark import cells as running
from prismts.benchmark.known import FLOORS, models_of
from prismts.benchmark.lines import read_lined
from prismts.benchmark.locks import holding
from prismts.benchmark.predictions import Forecasts, read_predictions, write_predictions
from prismts.benchmark.results import failed_file, frame, gather, read_results
from prismts.benchmark.runner import pending, plan, run_bench
from prismts.benchmark.spec import BenchSpec, read_spec
from prismts.data.series import Collection
from prismts.data.synthetic import simulated_plant
from prismts.errors import DataError, SettingsError
from prismts.estimators.forecaster import Forecaster
from prismts.evaluation.protocols import evaluate
from prismts.models import MODELS
from prismts.tasks.classify import Classify
from prismts.tasks.forecast import Forecast

SPEC = "task: forecast\ndata: [ETTh2, ILI]\nhorizons: [24]\nseeds: [0, 1]\nmodels: [convtimenet]\n"
TINY = {"patch_length": 8, "stride": 4, "width": 8, "feed_forward": 0, "kernel_sizes": [5]}


def written(folder, text):
    file = folder / "spec.yaml"
    file.write_text(text)
    return file


def plant(name):
    return simulated_plant(700, seed=len(name))


def small(**changes):
    """Ridge and the floors on data that a test brings: seconds for all of it."""
    content = {"task": "forecast", "data": ["ETTh1", "ETTh2"], "horizons": [12], "context_lengths": [48], "seeds": [0],
               "models": ["ridge"], **changes}  # fmt: skip
    return BenchSpec.of(**content)


# ---- the file


def test_cells_are_every_combination_once_and_floors_are_added(tmp_path):
    spec = read_spec(written(tmp_path, SPEC))
    assert {cell.model for cell in spec.cells} == {"convtimenet", *FLOORS["forecast"]}
    assert len([cell for cell in spec.cells if cell.model == "convtimenet"]) == 4  # two sets, two seeds
    assert len([cell for cell in spec.cells if cell.model == "ridge"]) == 2  # it draws nothing: one seed
    assert len({cell.name for cell in spec.cells}) == len(spec.cells)


def test_every_seed_runs_for_everything_before_the_next_begins(tmp_path):
    seeds = [cell.seed for cell in read_spec(written(tmp_path, SPEC)).cells]
    assert seeds == sorted(seeds)


def test_data_sets_and_models_may_differ_from_the_rest(tmp_path):
    text = """
task: forecast
data: [ETTh2, {name: ILI, horizons: [24, 36], context_lengths: [104]}]
horizons: [96]
context_lengths: [96, 336]
seeds: [0]
fit_settings: {max_epochs: 2}
models:
  - {name: a, model: convtimenet, data: [ETTh2], context_lengths: [336]}
  - {name: b, model: convtimenet, horizons: [24, 96], fit_settings: {patience: 1},
     for_data: {ILI: {setting: published}}}
"""
    spec = read_spec(written(tmp_path, text))
    assert [cell.name for cell in spec.cells if cell.model == "a"] == ["ETTh2-a-c336-h96-s0-honest"]
    assert [(c.data, c.context_length, c.horizon) for c in spec.cells if c.model == "b"] == [
        ("ETTh2", 96, 96), ("ETTh2", 336, 96), ("ILI", 104, 24),
    ]  # fmt: skip
    made = {cell.data: spec.made_with(cell) for cell in spec.cells if cell.model == "b"}
    assert (made["ILI"]["setting"], made["ETTh2"]["setting"]) == ("published", None)
    assert made["ILI"]["fit_settings"] == {"max_epochs": 2, "patience": 1}
    assert spec.made_with(next(c for c in spec.cells if c.model == "ridge"))["fit_settings"] == {}


def test_a_collection_stands_for_its_series_and_an_alias_for_its_name(tmp_path):
    spec = read_spec(written(tmp_path, "task: detect\ndata: [asd]\nmodels: [knn]\n"))
    assert len(spec.data) == 8 and all(one.name.startswith("ASD/") for one in spec.data)
    left = read_spec(written(tmp_path, "task: detect\ndata: [{name: asd, without: [ASD/omi-1]}]\nmodels: [knn]\n"))
    assert [one.name for one in left.data] == [one.name for one in spec.data if one.name != "ASD/omi-1"]
    text = (
        "task: classify\ndata: [EP]\nmodels: [{name: m, model: convtimenet, for_data: {EP: {setting: published/EP}}}]\n"
    )
    spec = read_spec(written(tmp_path, text))
    assert spec.made_with(spec.cells[0])["setting"] == "published/EP"
    assert spec.cells[0].data == "Epilepsy"


def test_numbers_with_an_exponent_are_numbers_however_they_are_written(tmp_path):
    text = "a: [1e-4, 1.0e-4, 1E+3, .5e1, -2e0, 12, 0x10]\nb: ['1e-4', 1e, e4, 1-e4, 2026-11-20]\n"
    (tmp_path / "spec.yaml").write_text(text)
    content = read_lined(tmp_path / "spec.yaml").content
    assert content["a"] == [1e-4, 1e-4, 1000.0, 5.0, -2.0, 12, 16]
    assert isinstance(content["a"][5], int)
    assert content["b"] == ["1e-4", "1e", "e4", "1-e4", date(2026, 11, 20)]


DETECT = "task: detect\ndata: [{name: MBA_ECG, without: WHAT}]\nmodels: [knn]\n"


def test_series_that_chose_our_settings_are_in_no_table_of_detection():
    root = Path(__file__).parents[1] / "benchmarks"
    known = pd.read_csv(root / "results" / "detection.csv")
    known = known[known["collection"] != "AIOPS_KPI"]
    judged = set(known[known["part"] == "evaluation"]["series"])
    scored = {one.name for one in read_spec(root / "specs" / "detection.yaml").data}
    assert not scored & set(known[known["part"] == "tuning"]["series"])
    assert judged - scored == {"SKAB/anomaly-free", "SMAP/D-12", "SMAP/D-13"} and not scored - judged


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (DETECT.replace("WHAT", "MBA_ECG/805"), r"line 2: MBA_ECG: without is a list of series"),
        (DETECT.replace("WHAT", "[MBA_ECG/80]"), r"no series of the collection named 'MBA_ECG/80'. Did you mean 'MBA"),
        (DETECT.replace("WHAT", "[MBA_ECG/805, MBA_ECG/806]"), r"without leaves out all of its series"),
        (DETECT.replace("MBA_ECG", "ASD/omi-1").replace("WHAT", "[a]"), r"line 2: without .* ASD/omi-1 is a single"),
        (SPEC.replace("ETTh2", "ETTh"), r"line 2: There is no data set named 'ETTh'. Did you mean 'ETTh"),
        (SPEC.replace("convtimenet", "convtimnet"), r"line 5: There is no model named 'convtimnet'. Did you mean 'co"),
        (SPEC + "sedes: [1]\n", r"line 6: There is no entry named 'sedes'. Did you mean 'seeds'"),
        (SPEC + "fit_settings:\n  max_epoch: 3\n", r"line 7: There is no training setting named 'max_epoch'. Did"),
        (SPEC + "fit_settings: {max_epochs: 0}\n", "line 6: max_epochs is at least 1"),
        (SPEC + "protocols: [honst]\n", "line 6: There is no protocol named 'honst'. Did you mean 'honest'"),
        (SPEC.replace("[24]", "[24, x]"), r"line 3: horizons.1: it should be a valid integer, but got 'x'"),
        (SPEC.replace("[24]", "[0]"), r"line 3: horizons.0: .*greater than or equal to 1, but got 0"),
        (SPEC.replace("forecast", "forcast"), "line 1: task: it should be 'forecast', 'classify' or 'detect'"),
        (SPEC.replace("horizons: [24]\n", ""), "line 2: ETTh2 has no horizons"),
        (SPEC + "seeds: [2]\n", "line 6: 'seeds' stands twice, first in line 4"),
        (SPEC + "resamples: [0]\n", "line 6: resamples means nothing to the task 'forecast'"),
        (SPEC + "floors: [rigde]\n", "line 6: There is no model named 'rigde'. Did you mean 'ridge'"),
        (SPEC.replace("ILI", "EP"), "line 2: Epilepsy is a data set of the task 'classify'"),
        (SPEC.replace("ILI", "ETTh2"), "line 2: 'ETTh2' stands among the data twice"),
        (SPEC.replace("[convtimenet]", "\n - {name: a, model: convtimenet, model_settings: {widht: 8}}"),
         "line 6: There is no setting of 'convtimenet' named 'widht'. Did you mean 'width'"),
        (SPEC.replace("[convtimenet]", "\n - {name: a, model: convtimenet, model_settings: {dropout: 2}}"),
         "line 6: dropout is a share"),
        (SPEC.replace("[convtimenet]", "\n - {name: a, model: convtimenet, setting: publisht}"),
         "line 6: There is no setting named 'publisht'. Did you mean 'published'"),
        (SPEC.replace("[convtimenet]", "\n - {name: a, model: convtimenet, arguments: {los: mae}}"),
         "line 6: There is no argument named 'los'. Did you mean 'loss'"),
        (SPEC.replace("[convtimenet]", "\n - {name: a, model: convtimenet, for_data: {ETTh1: {}}}"),
         "line 6: There is no data set in this file named 'ETTh1'. Did you mean 'ETTh2'"),
        (SPEC.replace("[convtimenet]", "\n - {name: a, model: ridge, fit_settings: {max_epochs: 3}}"),
         "line 6: fit_settings tells how networks are trained, and 'ridge' is none"),
        (SPEC.replace("[convtimenet]", "\n - convtimenet\n - convtimenet"), "line 7: two configurations are called"),
        (SPEC.replace("[convtimenet]", "\n - {name: a/b, model: convtimenet}"), "line 6: names of configurations are"),
        (SPEC.replace("[ETTh2, ILI]", "[{name: mine, file: mine.csv}]"), "line 2: there is no file 'mine.csv' beside"),
        ("task: detect\ndata: [ASD]\nmodels: [knn]\nprotocols: [published]\n", "line 4: detection has one protocol"),
        (SPEC + "protocols: honest\n", "line 6: protocols: it should be a list, but got 'honest'"),
        (SPEC + "fit_settings: [1]\n", r"line 6: fit_settings: it should be names and values \(name: value\), but got"),
        ("task: forecast\n", "data is missing"),
        ("- a\n", "holds names and values"),
        ("a: [\n", "is no YAML"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_work_says_where_and_what_is_nearest(tmp_path, text, words):
    with pytest.raises(SettingsError, match=words):
        read_spec(written(tmp_path, text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"There is no file .*none\.yaml"):
        read_spec(tmp_path / "none.yaml")


def test_names_of_models_are_those_there_are_when_the_file_is_read(monkeypatch, tmp_path):
    monkeypatch.setitem(MODELS, "brand_new", MODELS["ridge"])
    assert "brand_new" in models_of("forecast")
    assert read_spec(written(tmp_path, SPEC.replace("convtimenet", "brand_new"))).cells[0].model == "brand_new"


# ---- cells


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole small benchmark with a trained network, both protocols, and predictions."""
    spec = small(
        models=[{"name": "tiny", "model": "convtimenet", "setting": "published", "model_settings": TINY}],
        fit_settings={"max_epochs": 1, "batch_size": 64}, seeds=[0, 1], protocols=["honest", "published"],
        keep_predictions=True,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("bench")
    heard = []
    return spec, folder, run_bench(spec, folder, load=plant, tell=heard.append), heard


def test_every_cell_becomes_a_file_that_says_how_it_was_made(finished):
    _, folder, results, _ = finished
    assert not results.missing and not results.failed
    cell = json.loads((folder / "cells" / "ETTh2-tiny-c48-h12-s1-honest.json").read_text())
    assert cell["made_with"]["model_settings"] == TINY and cell["made_with"]["seed"] == 1
    assert cell["settings"]["architecture"]["width"] == 8
    assert cell["settings"]["recipe"]["fit"]["max_epochs"] == 1  # what was filled in, too
    assert cell["versions"]["torch"] == torch.__version__ and len(cell["versions"]["prismts_files"]) == 12
    assert cell["n_parameters"] > 0 and cell["n_macs"] > 0 and cell["seconds"] > 0 and cell["cpu_seconds"] > 0
    assert cell["chosen"]["best_epochs"] == [1] and cell["validation"]["mse"] > 0
    assert not list(folder.glob("*/.*partial"))


def test_the_scores_are_those_of_evaluate(finished):
    _, _, results, _ = finished
    cell = next(cell for cell in results.cells if cell.name == "ETTh2-ridge-c48-h12-s0-honest")
    scores = evaluate(Forecaster("ridge", context_length=48, horizon=12, progress=False), plant("ETTh2"))
    assert results.cells[cell]["measures"] == pytest.approx(dict(scores.measures))
    assert results.cells[cell]["n_scored"] == scores.n_scored == 129
    assert results.cells[cell]["data_hash"] == scores.data_hash


def test_a_score_is_that_of_a_plain_loop_over_the_windows(finished):
    """The last season again, computed here by slicing."""
    _, _, results, _ = finished
    series = plant("ETTh1")
    begin, end = series.borders.test if series.borders else (560, 700)
    train = series.values[:, : series.borders.train_end].astype(np.float64)
    x = (series.values - train.mean(1, keepdims=True)) / train.std(1, keepdims=True)  # [C, T]
    errors = [x[:, t : t + 12] - x[:, t - 24 : t - 12] for t in range(begin, end - 11)]
    told = next(c for cell, c in results.cells.items() if cell.name == "ETTh1-seasonal_naive-c48-h12-s0-honest")
    assert told["measures"]["mse"] == pytest.approx(np.mean(np.square(errors)), rel=1e-5)


def test_one_training_serves_both_protocols(finished):
    _, _, results, heard = finished
    assert len([event for event in heard if event.kind == "done"]) == len(results.cells) / 2
    honest, published = (
        next(c for cell, c in results.cells.items() if cell.name == f"ETTh1-tiny-c48-h12-s0-{protocol}")
        for protocol in ("honest", "published")
    )
    assert published["trained_with"] == honest["cell"]
    assert published["chosen"] == honest["chosen"]


def test_predictions_give_every_measure_again(finished):
    _, folder, results, _ = finished
    for cell, content in results.cells.items():
        kept = read_predictions(folder / "predictions" / f"{cell.name}.npz")
        assert kept.measures() == pytest.approx(content["measures"], rel=1e-4)
        assert len(kept.forecasts) == content["n_scored"]


def test_predictions_answer_what_nobody_had_asked_for(finished):
    """The mean absolute error of the first step alone; and the targets are those of the series."""
    _, folder, results, _ = finished
    kept = read_predictions(folder / "predictions" / "ETTh2-ridge-c48-h12-s0-honest.npz")
    series = plant("ETTh2")
    np.testing.assert_array_equal(kept.targets[5], series.values[:, kept.origins[5] : kept.origins[5] + 12])
    first = np.abs(kept.forecasts - kept.targets)[..., 0].mean(axis=0) / kept.scale  # [C]
    content = next(c for cell, c in results.cells.items() if cell.name == "ETTh2-ridge-c48-h12-s0-honest")
    assert first.mean() == pytest.approx(content["per_step"]["mae"][0], rel=1e-4)


def test_a_strided_set_of_windows_has_its_own_targets():
    values = np.arange(20.0)[None]  # [C, n]
    one = np.ones(1)
    kept = Forecasts(np.zeros((3, 1, 2)), values, np.array([105, 109, 112]), 100, one, one, one)
    assert kept.targets[:, 0].tolist() == [[5, 6], [9, 10], [12, 13]]


def test_quantile_forecasts_are_kept_with_their_levels(tmp_path):
    spread = {"name": "spread", "model": "ridge", "arguments": {"quantiles": [0.1, 0.5, 0.9]}}
    spec = small(data=["ETTh2"], floors=[], keep_predictions=True, models=[spread])
    results = run_bench(spec, tmp_path, load=plant)
    kept = read_predictions(tmp_path / "predictions" / f"{spec.cells[0].name}.npz")
    assert kept.quantiles == (0.1, 0.5, 0.9) and kept.forecasts.shape[1] == 3
    assert kept.measures()["crps"] == pytest.approx(results.cells[spec.cells[0]]["measures"]["crps"], rel=1e-4)


def test_predictions_that_are_not_there_say_how_to_get_them(tmp_path):
    with pytest.raises(DataError, match="keep_predictions: true keeps them"):
        read_predictions(tmp_path / "none.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="is damaged"):
        read_predictions(tmp_path / "broken.npz")


def test_a_smaller_share_learns_from_the_end_of_training_and_tests_on_all_windows(tmp_path):
    spec = small(data=["ETTh2"], floors=[], models=[{"name": "ridge", "train_shares": [0.5, 1.0]}])
    results = run_bench(spec, tmp_path, load=plant)
    half, whole = (results.cells[cell] for cell in spec.cells)
    assert half["n_scored"] == whole["n_scored"]
    assert half["n_learned"]["train"] < whole["n_learned"]["train"]
    assert half["measures"]["mse_whole_scale"] != pytest.approx(half["measures"]["mse"], rel=1e-3)
    assert whole["measures"]["mse_whole_scale"] == pytest.approx(whole["measures"]["mse"], rel=1e-5)


def test_where_nothing_but_all_of_training_is_learned_from_there_is_one_scale(tmp_path):
    results = run_bench(small(data=["ETTh2"], floors=[]), tmp_path, load=plant)
    assert all("mse_whole_scale" not in content["measures"] for content in results.cells.values())


def test_the_whole_scale_makes_shares_comparable(tmp_path):
    """The last value again learns nothing, so every share has the same error on the scale of all of training."""
    spec = small(data=["ETTh2"], floors=[], models=[{"name": "last_value", "train_shares": [0.25, 1.0]}])
    results = run_bench(spec, tmp_path, load=plant)
    quarter, whole = (results.cells[cell]["measures"] for cell in spec.cells)
    assert quarter["mse_whole_scale"] == pytest.approx(whole["mse"], rel=1e-5)
    assert quarter["mse"] != pytest.approx(whole["mse"], rel=1e-3)


def cases(name, n=24):
    """Labeled cases of two classes that a slope tells apart."""
    generator = np.random.default_rng(0)
    values = generator.normal(scale=0.1, size=(n, 2, 20)) + np.linspace(0, 1, 20) * (np.arange(n) % 2)[:, None, None]
    labels = np.array(["up" if i % 2 else "flat" for i in range(n)])
    whole = np.concatenate(list(values), axis=1)  # [C, n*T]
    return Collection(whole, np.arange(0, 20 * n + 1, 20), tuple(map(str, range(n))), ("a", "b"), labels=labels,
                      name=name, n_train=16)  # fmt: skip


def test_floors_of_classification_are_scored_by_the_same_protocol(tmp_path):
    spec = BenchSpec.of(task="classify", data=["BasicMotions"], models=["majority"], floors=[], seeds=[0, 1],
                        resamples=[0, 1], train_shares=[0.5, 1.0], keep_predictions=True)  # fmt: skip
    results = run_bench(spec, tmp_path, load=cases)
    assert not results.failed
    assert {(c.seed, c.resample, c.train_share) for c in results.cells} == {
        (0, 0, 0.5),
        (0, 0, 1),
        (0, 1, 0.5),
        (0, 1, 1),
    }
    for cell, content in results.cells.items():
        assert content["measures"]["accuracy"] == 0.5 and content["n_scored"] == 8 and content["counted"] == "cases"
        assert content["n_learned"]["train"] == 16 * cell.train_share
        kept = read_predictions(tmp_path / "predictions" / f"{cell.name}.npz")
        assert kept.measures() == content["measures"]


def test_detectors_are_scored_on_the_labeled_steps(tmp_path):
    series = simulated_plant(700)
    labels = np.zeros(700, dtype=np.int8)
    labels[600:610] = 1

    def watched(name):
        from dataclasses import replace

        return replace(series, labels=labels)

    spec = BenchSpec.of(task="detect", data=["ASD/omi-1"], models=["pca"], floors=[], seeds=[0], keep_predictions=True)
    results = run_bench(spec, tmp_path, load=watched)
    content = results.cells[spec.cells[0]]
    assert 0 <= content["measures"]["vus_pr"] <= 1 and content["counted"] == "steps"
    assert content["n_scored"] == 700 - series.borders.train_end
    kept = read_predictions(tmp_path / "predictions" / f"{spec.cells[0].name}.npz")
    assert kept.measures() == pytest.approx(content["measures"])


def test_a_model_that_cannot_be_counted_keeps_its_scores(tmp_path, monkeypatch):
    def cannot(*_):
        raise RuntimeError("looks at values")

    monkeypatch.setattr(running, "count", cannot)
    results = run_bench(small(floors=[]), tmp_path, load=plant)
    content = next(iter(results.cells.values()))
    assert content["n_macs"] is None and content["macs_told"] == "not counted: RuntimeError"
    assert content["measures"]["mse"] > 0


@pytest.mark.parametrize("task", ["forecast", "classify"])
def test_a_proposed_network_stands_in_a_cell_with_the_size_it_was_trained_in(task, tmp_path):
    """Its parameters and products are those of a network that is built here with the settings that the cell tells."""
    auto = {"name": "auto", "setting": "network", "fit_settings": {"max_epochs": 1}, "model_settings": {"width": 8}}
    if task == "forecast":
        spec, load = small(data=["ETTh2"], floors=[], models=[auto]), plant
    else:
        auto["arguments"] = {"validation": 0.2}  # one network, not one for each fold
        spec, load = BenchSpec.of(task=task, data=["BasicMotions"], floors=[], models=[auto], seeds=[0]), cases
    assert "auto" in plan(spec, tmp_path)
    results = run_bench(spec, tmp_path, load=load)
    content = results.cells[spec.cells[0]]
    settings, recipe = content["settings"]["architecture"], content["settings"]["recipe"]
    if task == "forecast":
        built = Forecast(12, line=None).build("convtimenet", settings, n_channels=content["n_channels"],
                                              context_length=48)  # fmt: skip
        window = torch.zeros(1, content["n_channels"], 48)
    else:
        built = Classify(2, pooling=recipe["pooling"]).build("convtimenet", settings, n_channels=2, context_length=20)
        window = torch.zeros(1, 2, 20)
    assert settings["width"] == 8 and settings["patch_length"] < 32
    assert content["n_macs"] == count(built, window).total
    assert content["n_parameters"] == sum(one.numel() for one in built.parameters())


# ---- a second run


def test_a_finished_benchmark_runs_nothing_again(finished):
    spec, folder, _, _ = finished
    heard = []
    run_bench(spec, folder, load=plant, tell=heard.append)
    assert heard == []


def test_a_broken_run_goes_on_where_it_was(tmp_path):
    spec = small()
    heard = []

    def stop(event):
        heard.append(event)
        if len([one for one in heard if one.kind == "done"]) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_bench(spec, tmp_path, load=plant, tell=stop)
    assert len(read_results(tmp_path).cells) == 2
    assert len(pd.read_parquet(tmp_path / "results.parquet")) == 2  # gathered on the way out
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "cells").iterdir()}
    results = run_bench(spec, tmp_path, load=plant)
    assert not results.missing
    assert all(file.stat().st_mtime_ns == time for file, time in before.items())


def test_a_cell_that_fails_is_recorded_and_the_rest_goes_on_and_it_is_tried_again(tmp_path):
    broken = [True]

    def load(name):
        if name == "ETTh1" and broken:
            raise DataError("the disk has eaten it")
        return plant(name)

    spec = small()
    results = run_bench(spec, tmp_path, load=load)
    assert {cell.data for cell in results.failed} == {"ETTh1"} and {cell.data for cell in results.cells} == {"ETTh2"}
    assert set(results.failed.values()) == {"DataError: the disk has eaten it"}
    record = json.loads(failed_file(tmp_path, next(iter(results.failed))).read_text())
    assert "Traceback" in record["traceback"] and record["times"] == 1
    run_bench(spec, tmp_path, load=load)
    assert json.loads(failed_file(tmp_path, next(iter(results.failed))).read_text())["times"] == 2
    broken.clear()
    results = run_bench(spec, tmp_path, load=load)
    assert not results.failed and not results.missing
    assert not list((tmp_path / "cells").glob("*.failed.json"))


def test_a_cell_of_other_settings_is_refused_and_made_anew_on_demand(tmp_path):
    run_bench(small(floors=[]), tmp_path, load=plant)
    other = small(floors=[], models=[{"name": "ridge", "model": "seasonal_naive"}])
    with pytest.raises(
        SettingsError, match=r"2 finished cells .* with model 'ridge', and the specification now says 's"
    ):
        run_bench(other, tmp_path, load=plant)
    before = read_results(tmp_path, other)
    assert not before.cells and len(before.changed) == 2
    results = run_bench(other, tmp_path, load=plant, redo=True)
    assert not results.changed and len(results.cells) == 2


def test_predictions_that_are_wanted_later_are_made_later(tmp_path):
    run_bench(small(floors=[]), tmp_path, load=plant)
    wants = small(floors=[], keep_predictions=True)
    assert len(pending(read_results(tmp_path, wants))) == 2
    run_bench(wants, tmp_path, load=plant)
    assert len(list((tmp_path / "predictions").glob("*.npz"))) == 2


def test_only_cells_whose_name_holds_the_text_run(tmp_path):
    results = run_bench(small(), tmp_path, load=plant, only="ETTh2-ridge")
    assert [cell.name for cell in results.cells] == ["ETTh2-ridge-c48-h12-s0-honest"]


def test_what_a_killed_run_left_half_written_counts_as_nothing(tmp_path):
    spec = small(floors=[])
    run_bench(spec, tmp_path, load=plant, only="ETTh1")
    left = tmp_path / "cells" / ".ETTh2-ridge-c48-h12-s0-honest.json.abc.partial"
    left.mkdir()
    (left / "ETTh2-ridge-c48-h12-s0-honest.json").write_text('{"measures": ')
    assert len(read_results(tmp_path).cells) == 1
    os.utime(left, (0, 0))
    run_bench(spec, tmp_path, load=plant)
    assert not list((tmp_path / "cells").glob(".*"))


def test_a_write_that_breaks_leaves_no_file(tmp_path, monkeypatch):
    kept = Forecasts(np.zeros((1, 1, 2)), np.zeros((1, 3)), np.zeros(1, int), 0, np.ones(1), np.ones(1), np.ones(1))

    def full(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="no space"):
        write_predictions(tmp_path / "p.npz", kept)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_benchmark_says_how_to_begin(tmp_path):
    with pytest.raises(DataError, match=r"holds no benchmark. Run one first: prism bench run SPEC.yaml"):
        read_results(tmp_path)


# ---- several runs into one folder


def lock_of(folder, cell):
    return folder / "unfinished" / f"{cell.name}.lock"


def test_a_cell_that_another_run_is_at_is_left_to_it(tmp_path):
    spec, heard = small(floors=[]), []
    with holding(lock_of(tmp_path, spec.cells[0])):
        results = run_bench(spec, tmp_path, load=plant, tell=heard.append)
        assert list(results.cells) == [spec.cells[1]] and not results.failed
    assert [event.kind for event in heard] == ["started", "held", "started", "done"]
    assert f"process {os.getpid()} on {socket.gethostname()}, since 20" in str(heard[1])
    assert not run_bench(spec, tmp_path, load=plant).missing
    assert not (tmp_path / "unfinished").exists()


def test_one_protocol_that_another_run_is_at_holds_the_training_that_they_share(tmp_path):
    spec = small(data=["ETTh1"], floors=[], protocols=["honest", "published"])
    with holding(lock_of(tmp_path, spec.cells[1])):
        assert not run_bench(spec, tmp_path, load=plant).cells
    assert len(run_bench(spec, tmp_path, load=plant).cells) == 2


def test_what_another_run_has_done_meanwhile_is_not_done_again(tmp_path):
    spec, heard = small(floors=[]), []

    def tell(event):
        heard.append(event)
        if len(heard) == 1:  # this run is about to begin with the first cell
            run_bench(spec, tmp_path, load=plant, only="ETTh2")

    results = run_bench(spec, tmp_path, load=plant, tell=tell)
    assert [event.kind for event in heard] == ["started", "done", "started", "there"]
    assert heard[3].told.startswith("mse") and len(results.cells) == 2
    assert len(pd.read_parquet(tmp_path / "results.parquet")) == 2


def test_a_killed_process_holds_nothing(tmp_path):
    spec = small(data=["ETTh1"], floors=[])
    file = lock_of(tmp_path, spec.cells[0])
    code = (
        "import pathlib, sys, time; from prismts.benchmark.locks import holding\n"
        "with holding(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    with holding(file) as holder:
        assert holder.startswith(f"process {process.pid} on")
    process.kill()
    process.wait()
    assert file.exists()
    assert not run_bench(spec, tmp_path, load=plant).missing
    assert not file.exists()


def test_who_waits_for_a_lock_gets_it_when_it_is_given_back(tmp_path):
    """The file that the waiting one had opened is removed then: it must hold the lock of the file that stands there."""
    file, found = tmp_path / "a.lock", []

    def wait():
        with holding(file, patience=60) as holder, holding(file) as other:
            found.append((holder, other))

    waiting = threading.Thread(target=wait)
    with holding(file):
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive() and not found
    waiting.join(60)
    assert found[0][0] is None and found[0][1].startswith("process")
    assert not file.exists()


# ---- all cells as one table


def test_the_parquet_file_has_a_row_for_every_cell(finished):
    _, folder, results, _ = finished
    table = pd.read_parquet(folder / "results.parquet")
    assert len(table) == len(results.cells) and table["mse"].notna().all()
    assert set(table.loc[table["is_floor"], "model"]) == set(FLOORS["forecast"])
    assert json.loads(table["made_with"].iloc[0])["context_length"] == 48
    pd.testing.assert_series_equal(table["mse"], frame(results)["mse"])


def test_duckdb_reads_it_as_pandas_does(finished):
    duckdb = pytest.importorskip("duckdb")
    _, folder, results, _ = finished
    rows = duckdb.sql(
        f"SELECT model, avg(mse) FROM '{folder}/results.parquet' GROUP BY model ORDER BY model"
    ).fetchall()
    expected = frame(results).groupby("model")["mse"].mean()
    assert dict(rows) == pytest.approx(expected.to_dict())


def test_gathering_is_whole_or_not_at_all(finished, monkeypatch):
    _, folder, results, _ = finished
    before = (folder / "results.parquet").read_bytes()

    def breaks(self, path, **_):
        path.write_bytes(b"half")
        raise OSError("full")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", breaks)
    with pytest.raises(OSError, match="full"):
        gather(results)
    assert (folder / "results.parquet").read_bytes() == before
    assert not list(folder.glob(".*partial"))


# ---- what is to be run


def test_the_plan_tells_what_is_done_what_failed_and_what_is_left_out(finished, tmp_path):
    spec, folder, _, _ = finished
    assert plan(spec, folder).startswith(
        f"{len(spec.cells)} cells, {len(spec.cells)} done, 0 to run in 0 trainings: no"
    )

    def load(name):
        if name == "ETTh1":
            raise DataError("gone")
        return plant(name)

    run_bench(small(), tmp_path, load=load, only="ridge")
    told = plan(small(), tmp_path, only="ridge")
    assert "failed before ETTh1-ridge" in told and "done          ETTh2-ridge" in told
    n_others = sum("ridge" not in cell.name for cell in small().cells)
    assert f"{n_others} cells whose names do not contain 'ridge' are left out" in told and " s)" in told
    assert "last_value" not in told
    here = [cell.name for cell in spec.cells if "ETTh2-ridge" in cell.name]
    lines = plan(spec, folder, only="ETTh2-ridge").splitlines()
    assert [line.split()[-1] for line in lines[1:-1]] == here  # finished cells of others are left out too
