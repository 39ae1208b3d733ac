"""What a folder of results notices by itself: changed files, damage, failures, and settings that cannot be."""

import json
import re
import sys

import numpy as np
import pandas as pd
import pytest

from prismts.benchmark import groups
from prismts.benchmark.counted import counted
from prismts.benchmark.lengths import estimate
from prismts.benchmark.lines import read_lined
from prismts.benchmark.predictions import read_predictions
from prismts.benchmark.results import cell_file, failed_file, frame, predictions_file, read_results, write_failed
from prismts.benchmark.runner import failures, pending, plan, run_bench
from prismts.benchmark.spec import BenchSpec, read_spec
from prismts.benchmark.tables import table as bench_table
from prismts.cli.app import main
from prismts.data.synthetic import simulated_plant
from prismts.errors import DataError, SettingsError, unknown_name
from prismts.training.fit import FitConfig

OWN = """
task: forecast
data: [{name: mine, file: mine.csv, time: date}]
horizons: [12]
context_lengths: [48]
seeds: [0]
floors: [last_value]
models: [ridge]
"""
DLINEAR = "models: [{{name: dlinear, fit_settings: {{{}}}}}]"
PART = "data: [{name: mine, file: mine.csv, time: date}]"


def table(seed=0, n=400):
    times = pd.date_range("2026-01-01", periods=n, freq="h", name="date")
    values = np.sin(np.arange(n)[:, None] / 4) + np.random.default_rng(seed).normal(size=(n, 2))
    return pd.DataFrame(values, index=times, columns=["a", "b"])


@pytest.fixture
def own(tmp_path):
    table().to_csv(tmp_path / "mine.csv")
    (tmp_path / "spec.yaml").write_text(OWN)
    return tmp_path / "spec.yaml"


def changed(file, before, after):
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


def small(**changes):
    content = {"task": "forecast", "data": ["ETTh1"], "horizons": [12], "context_lengths": [48], "seeds": [0],
               "models": ["ridge"], "floors": [], **changes}  # fmt: skip
    return BenchSpec.of(**content)


def plant(name):
    return simulated_plant(700, seed=len(name))


# ---- other data, other settings, damage


def test_a_file_whose_content_changes_makes_its_cells_stale_and_redo_makes_them_anew(own):
    out = own.parent / "out"
    before = run_bench(read_spec(own), out, jobs=0)
    assert len(before.cells) == 2
    table(seed=1).to_csv(own.parent / "mine.csv")
    spec = read_spec(own)
    with pytest.raises(SettingsError, match=r"2 finished cells .* the content of mine.csv is not what it was"):
        run_bench(spec, out, jobs=0)
    after = run_bench(spec, out, jobs=0, redo=True)
    assert len(after.cells) == 2 and not after.changed
    scores = [{cell.name: content["measures"]["mse"] for cell, content in one.cells.items()} for one in (before, after)]
    assert all(scores[0][name] != scores[1][name] for name in scores[0])


def test_a_table_needs_no_file_of_the_data(own):
    out = own.parent / "out"
    run_bench(read_spec(own), out, jobs=0)
    (own.parent / "mine.csv").unlink()
    assert len(read_results(out).cells) == 2


DAMAGES = {  # of a cell, and what is said of it
    "truncated": (lambda cell: json.dumps(cell)[:40], "Unterminated string|Expecting"),
    "no versions": (lambda cell: json.dumps({k: v for k, v in cell.items() if k != "versions"}), "it has no versions"),
    "no fit": (lambda cell: json.dumps({**cell, "chosen": {}}), "chosen has no fit_seconds"),
    "null": (lambda cell: json.dumps({**cell, "measures": None}), "measures cannot be null"),
    "list": (lambda cell: json.dumps({**cell, "measures": [1]}), r"measures cannot be \[1\]"),
    "text": (lambda cell: json.dumps({**cell, "measures": {"mse": "hello"}}), 'measures.mse cannot be "hello"'),
    "empty": (lambda cell: json.dumps({**cell, "measures": {}}), "measures cannot be {}"),
    "unmeasured": (lambda cell: json.dumps({**cell, "measures": {"mse": None}}), 'measures cannot be {"mse": null}'),
    "time": (lambda cell: json.dumps({**cell, "seconds": "long"}), 'seconds cannot be "long"'),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_cell_is_called_so_counts_nowhere_and_is_made_again(tmp_path, kind):
    spec = small(data=["ETTh1", "ETTh2"])
    before = run_bench(spec, tmp_path, load=plant)
    cell, (damaged, words) = spec.cells[0], DAMAGES[kind]
    cell_file(tmp_path, cell).write_text(damaged(dict(before.cells[cell])))
    found = read_results(tmp_path)
    assert list(found.cells) == [spec.cells[1]] and not found.changed
    assert re.match(f"its file is damaged .*({words})", found.damaged[cell])
    notes = " ".join(bench_table(found).notes)
    assert (
        f"1 of 2 cells are done. Left out as damaged: {cell.name} (its file" in notes and "other settings" not in notes
    )
    assert f"damaged       {cell.name}" in plan(spec, tmp_path)
    after = run_bench(spec, tmp_path, load=plant)
    assert not after.damaged and after.cells[cell]["measures"] == before.cells[cell]["measures"]


def test_where_every_cell_is_damaged_a_table_says_that_and_not_that_none_was_run(tmp_path):
    run_bench(small(), tmp_path, load=plant)
    cell_file(tmp_path, small().cells[0]).write_text("[]")
    with pytest.raises(DataError, match=r"no finished cell of its specification \(1 damaged\)"):
        bench_table(read_results(tmp_path))


def test_a_damaged_record_of_the_run_says_what_writes_it_anew(tmp_path):
    run_bench(small(), tmp_path, load=plant)
    (tmp_path / "spec.json").write_text("{")
    with pytest.raises(DataError, match=r"spec.json is damaged. The next run writes it anew"):
        read_results(tmp_path)


def test_predictions_of_another_training_do_not_pass_for_those_of_a_cell(tmp_path):
    first = small(models=[{"name": "dlinear", "fit_settings": {"max_epochs": 1}}], keep_predictions=True)
    run_bench(first, tmp_path, load=plant)
    longer = [{"name": "dlinear", "fit_settings": {"max_epochs": 2}}]
    run_bench(small(models=longer), tmp_path, load=plant, redo=True)
    assert not predictions_file(tmp_path, first.cells[0]).exists()
    wants = small(models=longer, keep_predictions=True)
    assert len(pending(read_results(tmp_path, wants))) == 1
    results = run_bench(wants, tmp_path, load=plant)
    kept = read_predictions(predictions_file(tmp_path, wants.cells[0]))
    assert kept.measures()["mse"] == pytest.approx(results.cells[wants.cells[0]]["measures"]["mse"], rel=1e-5)
    with pytest.raises(SettingsError, match="n_windows counts windows, at least 1, but got 0"):
        kept.measures(0)


@pytest.mark.parametrize("size", [0, 300, -10])
def test_broken_predictions_are_called_damaged_and_made_again(tmp_path, size):
    spec = small(keep_predictions=True)
    run_bench(spec, tmp_path, load=plant)
    file = predictions_file(tmp_path, spec.cells[0])
    whole = file.read_bytes()
    file.write_bytes(whole[:size])
    with pytest.raises(DataError, match="is damaged, or no file of predictions: it is no archive of arrays"):
        read_predictions(file)
    assert pending(read_results(tmp_path)) == [(spec.cells[0],)]
    run_bench(spec, tmp_path, load=plant)
    assert len(file.read_bytes()) == len(whole) and not pending(read_results(tmp_path))


def test_what_is_no_file_of_predictions_is_told_in_our_words(tmp_path):
    (tmp_path / "text.npz").write_text("not an archive at all")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    np.savez(tmp_path / "objects.npz", kind=np.array("steps"), scores=np.array([{}]), labels=0, alarms=0, buffer=0)
    np.savez(tmp_path / "foreign.npz", kind=np.array("songs"), scores=0, labels=0, alarms=0, buffer=0)
    for name, words in {
        "text": "it is no archive of arrays", "other": "it holds x, which are not the arrays of any predictions",
        "objects": "the bytes of its arrays are not", "foreign": "it tells no kind of them",
    }.items():  # fmt: skip
        with pytest.raises(DataError, match=f"{name}.npz is damaged, or no file of predictions: {words}") as told:
            read_predictions(tmp_path / f"{name}.npz")
        assert "pickle" not in str(told.value) and "delete it" in str(told.value)


def test_published_files_of_one_name_do_not_overwrite_each_other(own):
    (own.parent / "other").mkdir()
    for place in (own.parent, own.parent / "other"):
        (place / "numbers.yaml").write_text("task: forecast\nnumbers: []\n")
    changed(own, "models: [ridge]", "models: [ridge]\npublished: [numbers.yaml, other/numbers.yaml]")
    with pytest.raises(SettingsError, match=r"line 9: two files of published numbers are called 'numbers.yaml'"):
        run_bench(read_spec(own), own.parent / "out", jobs=0)
    assert not (own.parent / "out" / "spec.json").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{task: forecast, numbers: [{model: A}]}", r"numbers.yaml, line 1: a column lacks protocol"),
        ("{task: classify, numbers: [{model: A, protocol: honest, source: s, told: t, measures: [accuracy], "
         "values: {AWR: 0.9}}]}", "spec.yaml, line 9: 'numbers.yaml' holds numbers of the task 'classify'"),
    ],
)  # fmt: skip
def test_published_numbers_that_cannot_be_shown_are_told_before_anything_runs(own, text, words):
    (own.parent / "numbers.yaml").write_text(text)
    changed(own, "models: [ridge]", "models: [ridge]\npublished: [numbers.yaml]")
    with pytest.raises(SettingsError, match=words):
        read_spec(own)


# ---- failures


@pytest.mark.long
def test_a_cell_that_fails_when_it_is_made_anew_is_told_and_ends_the_command_with_1(own, capsys, monkeypatch):
    out = own.parent / "out"
    run_bench(read_spec(own), out, jobs=0)
    unobserved = table()
    unobserved.iloc[300:] = np.nan
    unobserved.to_csv(own.parent / "mine.csv")
    words = ["prism", "bench", "run", str(own), "--out", str(out), "--redo", "--only", "ridge", "-q"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    assert "1 cells failed" in capsys.readouterr().err
    spec = read_spec(own)
    cell = next(one for one in spec.cells if one.model == "ridge")
    assert cell_file(out, cell).exists() and failed_file(out, cell).exists()
    assert cell in read_results(out, spec).failed
    assert failures(read_results(out, spec), "last_value") == []


def test_what_failed_before_it_was_done_after_all_is_no_failure_any_more(tmp_path):
    spec = small(data=["ETTh1", "ETTh2"])
    run_bench(spec, tmp_path, load=plant)
    write_failed(tmp_path, spec, spec.cells[:1], "another run has taken its checkpoints away")
    assert not read_results(tmp_path).failed
    run_bench(spec, tmp_path, load=plant)
    assert not list((tmp_path / "cells").glob("*.failed.json"))


def test_what_lacks_its_predictions_still_has_failed(tmp_path):
    run_bench(small(), tmp_path, load=plant)
    wants = small(keep_predictions=True)
    write_failed(tmp_path, wants, wants.cells, "the disk is full")
    assert list(read_results(tmp_path, wants).failed) == list(wants.cells)
    assert failed_file(tmp_path, wants.cells[0]).exists()


@pytest.mark.long
def test_the_command_points_to_no_results_where_there_are_none(own, capsys, monkeypatch):
    unobserved = table()
    unobserved.iloc[300:] = np.nan  # nothing to score
    unobserved.to_csv(own.parent / "mine.csv")
    monkeypatch.setattr(sys, "argv", ["prism", "bench", "run", str(own), "--out", str(own.parent / "out")])
    with pytest.raises(SystemExit) as stopped:
        main()
    told = capsys.readouterr().err
    assert stopped.value.code == 1 and "cells: 0 of 2 done" in told
    assert "results.parquet" not in told and "next:" not in told


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_file_in_the_place_of_the_folder_is_refused_before_anything_runs(own, capsys, monkeypatch, more):
    monkeypatch.setattr(sys, "argv", ["prism", "bench", "run", str(own), "--out", str(own), *more])
    with pytest.raises(SystemExit) as stopped:
        main()
    out, told = capsys.readouterr()
    assert stopped.value.code == 2 and out == "" and own.read_text() == OWN
    assert "spec.yaml is a file, not a folder. Choose another place." in told and "cells" not in told


def test_what_cannot_be_written_fails_alone(tmp_path, monkeypatch):
    written = groups.write_records

    def full(folder, records):
        if records[0].cell.data == "ETTh1":
            raise OSError("no space left")
        written(folder, records)

    monkeypatch.setattr(groups, "write_records", full)
    results = run_bench(small(data=["ETTh1", "ETTh2"]), tmp_path, load=plant)
    assert [cell.data for cell in results.cells] == ["ETTh2"]
    assert list(results.failed.values()) == ["OSError: no space left"]


def test_a_test_part_without_an_observed_value_fails_instead_of_scoring_nan(own):
    data = table()
    data.iloc[300:] = np.nan
    data.to_csv(own.parent / "mine.csv")
    results = run_bench(read_spec(own), own.parent / "out", jobs=0)
    assert not results.cells and len(results.failed) == 2
    assert all("nothing observed to score by" in told for told in results.failed.values())


def test_a_share_that_leaves_no_step_is_refused_in_words(tmp_path):
    results = run_bench(small(data=["ETTm1"], train_shares=[0.001]), tmp_path, load=plant)
    assert "leaves none. Give a larger one" in next(iter(results.failed.values()))


def test_seconds_of_a_training_that_was_broken_off_are_no_cost(tmp_path):
    spec = small(data=["ETTh1", "ETTh2"])
    results = run_bench(spec, tmp_path, load=plant)
    file = cell_file(tmp_path, spec.cells[0])
    file.write_text(json.dumps({**json.loads(file.read_text()), "resumed": True}))
    results = read_results(tmp_path)
    costs = frame(results)[["seconds", "cpu_seconds", "fit_seconds"]]
    assert costs.iloc[0].isna().all() and costs.iloc[1].notna().all()
    assert list(counted(results, "seconds").values) == [spec.cells[1]]
    seconds = results.cells[spec.cells[1]]["seconds"]
    assert estimate(results, [(spec.cells[0],)]).most == pytest.approx(seconds)


def test_a_training_that_two_protocols_share_is_timed_in_one_row_and_each_scoring_in_its_own(tmp_path):
    spec = small(protocols=["honest", "published"])
    results = run_bench(spec, tmp_path, load=plant)
    for earlier in (False, True):
        for cell in spec.cells if earlier else ():  # an earlier version told no time of scoring alone
            content = {name: value for name, value in results.cells[cell].items() if name != "score_seconds"}
            cell_file(tmp_path, cell).write_text(json.dumps(content))
        rows = frame(read_results(tmp_path)).set_index("protocol")
        honest, published = rows.loc["honest"], rows.loc["published"]
        assert published["trained_with"] == honest["cell"]
        assert np.isnan(published["seconds"]) and np.isnan(published["cpu_seconds"])
        assert rows["seconds"].mean() == results.cells[spec.cells[0]]["seconds"]
        assert published["fit_seconds"] == honest["fit_seconds"]
        assert published["score_seconds"] == results.cells[spec.cells[1]]["seconds"]
        assert np.isnan(honest["score_seconds"]) if earlier else 0 < honest["score_seconds"] < honest["seconds"]


# ---- what is refused before anything runs


@pytest.mark.parametrize(
    ("only", "hint"), [("ridgge", "Did you mean 'ridge'"), ("nothing at all", "they read like ETTh1")]
)
def test_a_text_that_no_cell_contains_is_an_error(tmp_path, only, hint):
    for how in (run_bench, plan):
        with pytest.raises(SettingsError, match=hint):
            how(small(), tmp_path, only=only)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (PART, "data: [{name: ILI, values: [OT]}]", "line 3: values tells how a file is read, and ILI is a data set"),
        (PART, "data: [{name: ILI, time: date}]", "line 3: time tells how a file is read"),
        (PART, "data: [{name: ' ', file: mine.csv}]", "line 3: a data set is called something of at most 100"),
        (PART, f"data: [{{name: {'x' * 101}, file: mine.csv}}]", "line 3: a data set is called something of at most"),
        (PART, 'data: [{name: "a\\nb", file: mine.csv}]', "line 3: a data set is called something of at most 100"),
        ("models: [ridge]", "models: [{name: ridge, horizons: [24]}]", "line 8: ridge shares no horizon with any data"),
        ("models: [ridge]", "models: [{name: ridge, seeds: []}]", "line 8: models.0.seeds is an empty list. Name at"),
        ("models: [ridge]", "models: [{name: ridge, data: []}]", "line 8: models.0.data is an empty list. Name at"),
        ("context_lengths: [48]", "context_lengths: []", "line 5: context_lengths is an empty list. .*, or leave it"),
        ("models: [ridge]", "models: [{name: dlinear, arguments: {loss: maee}}]", "line 8: .*maee"),
        ("models: [ridge]", "models: [{name: dlinear, arguments: {quantiles: [0.1, 2]}}]", "line 8: .*quantile"),
        ("models: [ridge]", DLINEAR.format("gradient_clip: .inf"), "line 8: .* a finite number"),
        ("models: [ridge]", "models: [{name: dlinear, arguments: {loss: 2020-01-01}}]", "line 8: .*2020"),
        ("models: [ridge]", DLINEAR.format("max_epochs: 2.5"), "max_epochs is a whole number"),
        ("models: [ridge]", DLINEAR.format("max_epochs: ten"), "max_epochs is a whole number"),
        ("models: [ridge]", DLINEAR.format("precision: flot32"), "Did you mean 'float32'"),
        ("seeds: [0]", "seeds: [4294967296]", "line 6: seeds.0: it should be less than 4294967296"),
        ("file: mine.csv", "file: .", "line 3: there is no file '.' beside"),
        ("models: [ridge]", f"models: [{{name: {'x' * 200}, model: ridge}}]", "a shorter name"),
        ("models: [ridge]", "models: [{name: last_value, model: ridge}]", "line 8: 'last_value' is the name of a"),
        ("models: [ridge]", "models: [ridge]\npublished: [none.yaml]", "line 9: there is no file 'none.yaml' of publ"),
        ("models: [ridge]", "models: [ridge]\nfolder: there", "line 9: There is no entry named 'folder'"),
        ("models: [ridge]", "models: &m [*m]", "an alias .* stands inside what it names"),
        ("models: [ridge]", "models: []", r"line 8: models is an empty list. Name at least one\.$"),
        ("seeds: [0]", "seeds: [0, 0]", "line 6: seeds names 0 twice. Keep one of them"),
        ("horizons: [12]", "horizons: [12, 24, 12]", "line 4: horizons names 12 twice"),
        ("models: [ridge]", "models: [ridge]\nprotocols: [honest, honest]", "line 9: protocols names 'honest' twice"),
        ("models: [ridge]", "models: [{name: ridge, data: [mine, mine]}]", "line 8: data names 'mine' twice"),
        ("models: [ridge]", "models: [{name: ridge, seeds: [1, 1]}]", "line 8: seeds names 1 twice"),
        (PART, f"{PART[:-1]},\n  ILI,\n  {{name: m, file: mine.csv, values: [a, a]}}]",
         "line 5: values names 'a' twice"),
        (PART, "data:\n  - {name: a/b, file: mine.csv}\n  - {name: a_b, file: mine.csv}",
         "line 5: two cells would be called 'a_b-ridge-.*', as 'a/b' and 'a_b' look alike"),
        ("seeds: [0]", "seeds: [0]\ntrain_shares: [0.5,\n  0.5000001]", "line 8: two cells .*, as 0.5 and 0.5000001"),
        ("models: [ridge]", "models: [{name: ridge, for_data: {Mine: {}}}]",
         "line 8: .*named 'Mine'. Did you mean 'mine'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_with_its_line_before_anything_runs(own, before, after, words):
    changed(own, before, after)
    with pytest.raises(SettingsError, match=words):
        read_spec(own)


def test_a_model_names_data_sets_as_the_data_do_however_they_are_capitalized_or_abbreviated():
    spec = small(data=["Ili"], horizons=[24], models=[{"name": "ridge", "data": ["ILI"], "for_data": {"ili": {}}}])
    assert spec.models[0].data == ["ILI"] and list(spec.models[0].for_data) == ["ILI"]
    changes = {"epilepsy": {"setting": "published"}}
    spec = BenchSpec.of(task="classify", data=["EP"], models=[{"name": "convtimenet", "for_data": changes}])
    assert spec.made_with(spec.cells[0])["setting"] == "published"
    with pytest.raises(SettingsError, match="for_data names 'ILI' twice"):
        small(data=["ILI"], models=[{"name": "ridge", "for_data": {"ili": {}, "ILI": {}}}])


def test_lines_are_those_of_the_file_where_a_collection_stands_for_many_series(tmp_path):
    (tmp_path / "s.yaml").write_text("task: detect\ndata:\n  - ASD\n  - MBA_ECG/805\n  - ILI\nmodels: [knn]\n")
    with pytest.raises(SettingsError, match="line 5: ILI is a data set of the task 'forecast'"):
        read_spec(tmp_path / "s.yaml")


@pytest.mark.parametrize(("name", "near"), [("ILII", "ILI"), ("Mine", "mine"), ("Solar", None), ("mine", None)])
def test_a_slip_in_a_published_file_is_told_and_a_set_that_is_not_here_is_none(own, name, near):
    text = "{task: forecast, numbers: [{model: A, protocol: honest, source: s, told: t, measures: [mse],\n values: "
    (own.parent / "numbers.yaml").write_text(f"{text} {{{name}: 1}}}}]}}")
    changed(own, "models: [ridge]", "models: [ridge]\npublished: [numbers.yaml]")
    if near is None:
        assert read_spec(own).published == ["numbers.yaml"]
        return
    with pytest.raises(SettingsError, match=f"numbers.yaml, line 2: .*'{name}'. Did you mean '{near}'"):
        read_spec(own)


CONV = "models: [{name: c, model: convtimenet, setting: network, model_settings: {patch_length: 500}}]"


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("horizons: [12]", "horizons: [12,\n 41]", "line 5: mine has no room for horizon 41: .* its validation part "
         "has room for 40 steps. Name horizons of at most 40, for this set alone as {name: mine, horizons: .40.}"),
        ("horizons: [12]", "horizons: [24]\ntrain_shares: [1.0, 0.1]", "line 4: .* its training part has room for 20 "),
        ("[48]", "[4]\ntrain_shares: [0.05]", "line 4: .* its training part has room for 10 "),
        (PART, "data:\n - ILI\n - {name: ETTh1, horizons: [5000]}", "line 5: ETTh1 .* at most 2880, for this"),
        (PART, PART.replace("date}", "whn}"), "line 3: mine: mine.csv has no column 'whn'. It has 'date', 'a', 'b'"),
        (PART, PART.replace("date}", "dat}"), "line 3: mine: mine.csv has no column 'dat'. Did you mean 'date'"),
        (PART, PART.replace("date}", "date,\n  values: [a, ab]}"), "line 4: mine: mine.csv has no column 'ab'"),
        ("models: [ridge]", CONV, "line 8: c on mine at context 48: A window of 48 steps has no room for a patch of 5"),
        ("models: [ridge]", CONV.replace("convtimenet", "auto"), "line 8: c on mine at context 48: .* a patch of 500"),
        ("models: [ridge]", "models: [{name: c, model: convtimenet, setting: two_contexts, n_members: 1}]",
         "line 8: c on mine at context 48: setting='two_contexts' is the mean of 2 kinds of network"),
        ("models: [ridge]", "models:\n- name: c\n  model: patchtst\n  for_data:\n    mine:\n"
         "      model_settings: {patch_length: 500}", "line 13: c on mine at context 48: .*no room for a patch of 500"),
    ],
)  # fmt: skip
def test_what_data_have_no_room_for_is_told_before_anything_runs(own, before, after, words):
    changed(own, before, after)
    with pytest.raises(SettingsError, match=words):
        read_spec(own)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("date,a\n2026-01-01,1\n", "line 3: mine: A series of 1 step cannot be cut"),
        ("date,a\n2026-01-01,1\n2026-01-02,2\n2026-01-03,2\n", "no room for horizon 12: .* 0 steps. Give more data"),
        ("date,site,a\n2026-01-01,x,1\n2026-01-02,x,2\n", "line 3: mine: .* Name the columns to read with values: .*, "
         "or write each series that 'site' tells apart into a file of its own"),
        ("", "line 3: mine: "),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_a_data_set_is_told_in_the_words_of_a_specification(own, content, words):
    (own.parent / "mine.csv").write_text(content)
    with pytest.raises(SettingsError, match=words):
        read_spec(own)


@pytest.mark.parametrize(("share", "context", "most"), [(1.0, 48, 40), (0.1, 48, 20), (0.05, 4, 10)])
def test_the_longest_horizon_that_is_told_runs_and_the_next_one_would_not(own, share, context, most):
    """Of 400 steps 280, 40 and 80 are train, validation and test."""
    changed(own, "[48]", f"[{context}]\ntrain_shares: [{share}]")
    changed(own, "horizons: [12]", f"horizons: [{most}]")
    spec = read_spec(own)
    assert not run_bench(spec, own.parent / "out", jobs=0, only="ridge").failed
    longer = spec.model_copy(update={"horizons": [most + 1]})
    assert "No window fits" in next(iter(run_bench(longer, own.parent / "two", jobs=0, only="ridge").failed.values()))


@pytest.mark.long
def test_a_context_that_no_training_window_has_is_noted_and_runs(own, capsys, monkeypatch):
    changed(own, "context_lengths: [48]", "context_lengths: [268, 269]")
    told = plan(read_spec(own), own.parent / "out")
    assert told.count("note: ") == 1
    assert "note: no training window of mine has a context of 269 steps, as its training part has 280" in told
    monkeypatch.setattr(sys, "argv", ["prism", "bench", "run", str(own), "--only", "ridge"])
    with pytest.raises(SystemExit):
        main()
    assert "note: no training window of mine has a context of 269" in capsys.readouterr().err


def test_cases_have_no_room_for_a_patch_that_is_longer_than_they_are():
    settings = {"patch_length": 500}
    with pytest.raises(SettingsError, match=r"c on BasicMotions: .*no room for a patch of 500"):
        BenchSpec.of(
            task="classify", data=["BasicMotions"],
            models=[{"name": "c", "model": "patchtst", "model_settings": settings}],
        )  # fmt: skip


@pytest.mark.parametrize("part", ["data", "models"])
def test_an_axis_that_a_task_does_not_have_is_refused_of_single_entries_too(part):
    content = {"task": "classify", "data": ["AWR"], "models": ["majority"]}
    content[part] = [{"name": content[part][0], "horizons": [24]}]
    with pytest.raises(SettingsError, match="horizons means nothing to the task 'classify'"):
        BenchSpec.of(**content)


def test_an_alias_that_is_used_twice_is_no_circle(tmp_path):
    (tmp_path / "spec.yaml").write_text("a: &x [1, 2]\nb: *x\n")
    assert read_lined(tmp_path / "spec.yaml").content == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize("settings", [{"learning_rate": "fast"}, {"gradient_clip": "hard"}, {"min_steps": None}])
def test_settings_of_training_are_numbers(settings):
    with pytest.raises(SettingsError, match="is a number, but got"):
        FitConfig().changed(settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
        {"weight_decay": -1},
        {"line_rate": float("nan")},
    ],
)
def test_numbers_that_training_cannot_use_are_refused_before_it_begins(settings):
    with pytest.raises(SettingsError, match="is a finite number of at least 0, but got"):
        FitConfig().changed(settings)


def test_where_nothing_is_known_the_list_says_none():
    assert str(unknown_name("setting", "a", [])).endswith("Known: none.")
