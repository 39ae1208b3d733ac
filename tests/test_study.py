import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from prismts.benchmark import study as running
from prismts.benchmark.study import plan, read_study, run_study
from prismts.benchmark.study_cells import run_cell
from prismts.benchmark.study_spec import Arrangement, Cell, Grid, StudySpec, read_spec
from prismts.benchmark.study_tables import markdown, tables
from prismts.data.synthetic import simulated_plant
from prismts.errors import DataError, SettingsError

SMALL = {"width": 4, "n_blocks": 2, "n_heads": 1, "patch_length": 12}
FIT = {"max_epochs": 1, "batch_size": 64, "learning_rate": 1e-3}


def specification(**changes):
    grid = Grid(arrangements=("both", "none"), data=("plant",), horizons=(12,), seeds=(0, 1))
    return StudySpec(**{"context_length": 48, "grids": (grid,), "model": SMALL, "fit": FIT, "n_trace": 40, **changes})


def plant(name):
    return simulated_plant(800)


def write(folder, text):
    file = folder / "study.yaml"
    file.write_text(text)
    return file


GRIDS = "grids: [{arrangements: [both], data: [ETTh2], horizons: [96], seeds: [0]}]\n"


# ---- the specification


def test_a_specification_is_read_as_it_is_written(tmp_path):
    text = GRIDS + "context_length: 72\nmodel: {width: 8}\nstrides: {ETTh2: 3}\nalso: {big: {settings: {width: 16}}}\n"
    spec = read_spec(write(tmp_path, text))
    assert spec.cells == (Cell("ETTh2", 96, "both", 0),)
    made = spec.made_with(spec.cells[0])
    assert (made["context_length"], made["settings"], made["stride"]) == (72, {"width": 8}, 3)
    assert spec.settings_of("big") == {"width": 16}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GRIDS + "modle: {}\n", "entry of .*study.yaml named 'modle'. Did you mean 'model'"),
        (GRIDS.replace("both", "botth"), "arrangement named 'botth'. Did you mean 'both'"),
        (GRIDS.replace("[ETTh2]", "[ETTh]"), "data set named 'ETTh'. Did you mean 'ETTh"),
        (GRIDS.replace("seeds", "seed"), "entry of a grid named 'seed'. Did you mean 'seeds'"),
        (GRIDS.replace(", seeds: [0]", ""), "A grid lacks seeds"),
        (GRIDS.replace("[96]", "[0]"), "horizons of a grid are whole numbers from 1, but one is 0"),
        (GRIDS.replace("[0]", "zero"), "names its seeds in a list"),
        (GRIDS + "model: {widht: 3}\n", "no setting 'widht'. Did you mean 'width'"),
        (GRIDS + "fit: {epochs: 3}\n", "training setting named 'epochs'"),
        (GRIDS + "also: {both: {}}\n", "'both' is an arrangement of its own"),
        (GRIDS + "also: {big: {setings: {}}}\n", "Did you mean 'settings'"),
        (GRIDS + "strides: {ETTh2: 0}\n", "strides are whole numbers from 1"),
        (GRIDS + "context_length: long\n", "context_length is a whole number"),
        ("context_length: 96\n", "A study needs grids"),
        ("- a\n- b\n", "holds names and values"),
        ("a: [\n", "is no YAML"),
    ],
)
def test_a_specification_that_cannot_work_says_why(tmp_path, text, words):
    with pytest.raises(SettingsError, match=words):
        read_spec(write(tmp_path, text))


def test_a_missing_specification_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"There is no file .*nothing\.yaml"):
        read_spec(tmp_path / "nothing.yaml")


def test_every_seed_is_run_for_everything_before_the_next_begins():
    seeds = [cell.seed for cell in specification().cells]
    assert seeds == sorted(seeds)


def test_a_cell_of_two_grids_runs_once():
    grid = specification().grids[0]
    assert len(specification(grids=(grid, grid)).cells) == 4


# ---- running


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole small study: every mode, one data set, two seeds."""
    grid = Grid(arrangements=("both", "gru_to_cnn", "cnn_to_gru", "none", "late", "static", "seasonal_naive"),
                data=("plant",), horizons=(12,), seeds=(0, 1))  # fmt: skip
    spec = specification(grids=(grid,))
    folder = tmp_path_factory.mktemp("study")
    return spec, folder, run_study(spec, folder, load=plant)


def test_every_cell_becomes_a_file_that_says_how_it_was_made(finished):
    _, folder, study = finished
    assert not study.missing
    assert not study.failed
    cell = json.loads((folder / "plant-12-both-0.json").read_text())
    assert cell["made_with"]["settings"] == SMALL
    assert cell["versions"]["torch"] == torch.__version__
    assert cell["n_macs"] > 0
    assert not list(folder.glob(".*partial"))


def test_all_test_windows_count_whatever_the_stride_of_learning():
    spec = specification(strides={"plant": 5})
    result = run_cell(spec.cells[0], plant(""), spec.made_with(spec.cells[0]))
    begin, end = plant("").borders.test
    assert result["test"]["n_windows"] == end - begin - 12 + 1
    assert result["test"]["n_values"] == result["test"]["n_windows"] * 7 * 12
    assert result["n_windows"]["train"] < plant("").borders.train_end / 5


def test_the_score_is_that_of_a_plain_loop_over_the_windows(finished):
    """Seasonal naive, computed here by slicing."""
    _, folder, _ = finished
    series = plant("")
    begin, end = series.borders.test
    train = series.values[:, : series.borders.train_end].astype(np.float64)
    x = (series.values - train.mean(1, keepdims=True)) / train.std(1, keepdims=True)  # [C, T]
    errors = [x[:, t : t + 12] - x[:, t - 24 : t - 12] for t in range(begin, end - 11)]
    told = json.loads((folder / "plant-12-seasonal_naive-0.json").read_text())["test"]
    assert told["mse"] == pytest.approx(np.mean(np.square(errors)), rel=1e-5)
    assert told["rmse"] == pytest.approx(told["mse"] ** 0.5)


def test_a_model_without_exchange_has_no_kernels_and_one_with_it_has(finished):
    _, _, study = finished
    assert study.values("plant", 12, "both", "diagnostics", "dcor", "kernels_to_cnn")
    assert not study.values("plant", 12, "none", "diagnostics", "dcor", "kernels_to_cnn")
    assert study.values("plant", 12, "none", "diagnostics", "dcor", "cnn_change")


def test_gradients_of_both_paths_are_kept_before_and_after_training(finished):
    _, _, study = finished
    gradients = study.cells[Cell("plant", 12, "late", 0)]["gradients"]
    for when in ("start", "end"):
        assert [layer["layer"] for layer in gradients[when]["gru"]] == [0, 1]
        assert all(layer["norm"] > 0 for path in ("cnn", "gru") for layer in gradients[when][path])
    assert gradients["start"] != gradients["end"]


def test_a_finished_study_is_not_run_again(finished, monkeypatch):
    spec, folder, study = finished

    def never(*_):
        raise AssertionError("a cell was run twice")

    monkeypatch.setattr(running, "run_cell", never)
    told = []
    again = run_study(spec, folder, load=plant, tell=lambda progress: told.append(progress.outcome))
    assert set(told) == {"there already"}
    assert again.cells == study.cells


def test_a_killed_study_goes_on_with_the_cell_it_died_in(tmp_path, monkeypatch):
    ran = []

    def cell_that_is_killed_the_third_time(cell, series, made_with):
        ran.append(str(cell))
        if len(ran) == 3:
            raise KeyboardInterrupt
        return {"made_with": made_with, "seconds": 1.0, "test": {"rmse": 1.0}}

    monkeypatch.setattr(running, "run_cell", cell_that_is_killed_the_third_time)
    with pytest.raises(KeyboardInterrupt):
        run_study(specification(), tmp_path, load=plant)
    assert len(read_study(specification(), tmp_path).cells) == 2
    run_study(specification(), tmp_path, load=plant)
    assert ran == [str(cell) for cell in specification().cells[:3]] + [str(cell) for cell in specification().cells[2:]]


def test_a_failed_cell_is_written_down_the_rest_go_on_and_it_is_tried_again(tmp_path, monkeypatch):
    broken = {"is": True}

    def cell_that_fails(cell, series, made_with):
        if cell.arrangement == "both" and broken["is"]:
            raise DataError("nothing to learn from")
        return {"made_with": made_with, "seconds": 1.0, "test": {"rmse": 1.0}}

    monkeypatch.setattr(running, "run_cell", cell_that_fails)
    study = run_study(specification(), tmp_path, load=plant)
    assert {cell.arrangement for cell in study.cells} == {"none"}
    assert set(study.failed.values()) == {"DataError: nothing to learn from"}
    broken["is"] = False
    study = run_study(specification(), tmp_path, load=plant)
    assert len(study.cells) == 4
    assert not list(tmp_path.glob("*.failed.json"))


def test_cells_of_other_settings_are_not_mixed_in(finished):
    spec, folder, _ = finished
    with pytest.raises(SettingsError, match=r"was made with fit .*'max_epochs': 1.* now says .*'max_epochs': 2"):
        read_study(replace(spec, fit={**FIT, "max_epochs": 2}), folder)


def test_a_damaged_cell_is_named(tmp_path):
    (tmp_path / "plant-12-both-0.json").write_text("{")
    with pytest.raises(DataError, match=r"plant-12-both-0\.json is damaged"):
        read_study(specification(), tmp_path)


def test_the_plan_counts_cells_and_reckons_with_the_pace_of_those_done(tmp_path):
    spec = specification()
    assert plan(spec, tmp_path).startswith("4 cells, 0 done, 4 to run: none is done yet")
    cell = spec.cells[0]
    content = {"made_with": spec.made_with(cell), "seconds": 20.0, "test": {"rmse": 1.0}}
    (tmp_path / f"{cell}.json").write_text(json.dumps(content))
    told = plan(spec, tmp_path)
    assert told.startswith("4 cells, 1 done, 3 to run: about 60 s")
    assert f"  done     {cell}" in told
    assert f"  to run   {spec.cells[1]}" in told


# ---- tables


def by_hand(tmp_path, rmse, **more):
    """A study whose cells have the RMSE of a mapping arrangement -> one per seed."""
    n = len(next(iter(rmse.values())))
    grid = Grid(arrangements=tuple(rmse), data=("ETTh2",), horizons=(720,), seeds=tuple(range(n)))
    spec = specification(grids=(grid,), also={"other": Arrangement()})
    for cell in spec.cells:
        value = rmse[cell.arrangement][cell.seed]
        content = {
            "made_with": spec.made_with(cell), "seconds": 1.0, "n_parameters": 10,
            "test": {"rmse": value, "mse": value**2, "mae": value, "n_windows": 5},
            **more.get(cell.arrangement, {}),
        }  # fmt: skip
        (tmp_path / f"{cell}.json").write_text(json.dumps(content))
    return read_study(spec, tmp_path)


def table(study, title):
    return next(one for one in tables(study) if one.title.startswith(title))


def row(one, **of):
    """The row whose columns have these values, as a mapping."""
    for cells in one.rows:
        found = dict(zip(one.columns, cells, strict=False))
        if all(found[name] == value for name, value in of.items()):
            return cells
    raise AssertionError(f"no such row in {one.rows}")


FOUR = {"none": [1.0, 1.0], "cnn_to_gru": [1.0, 1.02], "gru_to_cnn": [0.98, 1.0], "both": [0.9, 0.9]}


def test_gains_stand_beside_those_of_the_slides(tmp_path):
    cells = row(table(by_hand(tmp_path, FOUR), "Gain"), data="ETTh2")
    # cnn_to_gru -1 +- 12.7 * 1.414 / 1.414, gru_to_cnn +1, both +10 in both seeds
    assert cells == ("ETTh2", "720", "2", "-1.00 [-13.71, +11.71]", "+0.9", "+1.00 [-11.71, +13.71]", "+1.8",
                     "+10.00 [+10.00, +10.00]", "+8.3")  # fmt: skip


def test_the_interaction_and_the_win_rate_are_those_of_the_cells(tmp_path):
    cells = row(table(by_hand(tmp_path, FOUR), "Interaction"), data="ETTh2")
    # 0.9 - 1.01 - 0.99 + 1.0
    assert cells[4].startswith("-0.1 [")
    assert cells[5] == "below 0"
    assert cells[6] == "100% of 2"


def test_both_directions_are_compared_with_each_half_seed_by_seed(tmp_path):
    cells = row(table(by_hand(tmp_path, FOUR), "Both directions against"), data="ETTh2")
    # (1 - 0.9) / 1 and (1.02 - 0.9) / 1.02; (0.98 - 0.9) / 0.98 and (1 - 0.9) / 1
    assert cells[2].startswith("+10.88 [")
    assert cells[4].startswith("+9.08 [")


def test_only_seeds_that_both_sides_have_are_compared(tmp_path):
    study = by_hand(tmp_path, {"none": [1.0, 1.0], "both": [0.9, 0.5]})
    (tmp_path / "ETTh2-720-none-1.json").unlink()
    cells = row(table(read_study(study.spec, tmp_path), "Gain"), data="ETTh2")
    assert cells[2] == "1"
    assert cells[7] == "+10.00"


def test_taking_the_dynamics_away_is_told_in_percent_beside_the_slides(tmp_path):
    study = by_hand(tmp_path, {"both": [1.0, 1.0], "static": [1.1, 1.1], "ema": [0.99, 1.01]})
    one = table(study, "Taking parts away")
    assert row(one, instead="static") == (
        "ETTh2", "720", "static", "2", "+10.00 [+10.00, +10.00]", "above 0", "+17.5",
    )  # fmt: skip
    assert row(one, instead="ema")[5] == "not told from 0"


def test_peaks_leads_and_ranks_are_compared_with_the_same_seed_of_none(tmp_path):
    both = {"diagnostics": {"rank_correlation": 0.7, "peak": 3.0, "peak_relative": 1.2, "lead": 0.5}}
    none = {"diagnostics": {"rank_correlation": 0.5, "peak": 2.0, "peak_relative": 1.0, "lead": 0.25}}
    study = by_hand(tmp_path, {"both": [1.0], "none": [1.0]}, both=both, none=none)
    assert row(table(study, "How the two paths"), mode="both")[3:] == (
        "+0.20", "+0.05", "+50.0", "+9.8", "+20.0", "+0.25", "+1.52",
    )  # fmt: skip


def test_starving_paths_show_in_the_ratio_of_gradients(tmp_path):
    one = {"gradients": {when: {"cnn": [{"layer": 0, "norm": 1.0, "rms": 3e-4}],
                                "gru": [{"layer": 0, "norm": 1.0, "rms": ratio * 3e-4}]}
                         for when, ratio in (("start", 2.0), ("end", 0.5))}}  # fmt: skip
    study = by_hand(tmp_path, {"late": [1.0]}, late=one)
    assert row(table(study, "Gradient"), arrangement="late")[3:] == ("3.00", "6.00", "2.00", "3.00", "1.50", "0.50")


def test_scores_tell_mean_spread_and_number_of_windows(tmp_path):
    cells = row(table(by_hand(tmp_path, {"both": [1.0, 2.0]}), "Scores"), arrangement="both")
    assert cells[3:8] == ("2", "2.5000 ± 2.1213", "1.5000", "1.5000", "5")


def test_tables_without_a_number_are_left_out_and_failures_are_told(tmp_path):
    study = by_hand(tmp_path, {"other": [1.0]})
    (tmp_path / "ETTh2-720-other-0.json").unlink()
    (tmp_path / "ETTh2-720-other-0.failed.json").write_text(json.dumps({"error": "DataError: no"}))
    study = read_study(study.spec, tmp_path)
    assert tables(study) == ()
    assert markdown(study) == "0 of 1 cells are done, 1 failed.\n\n- ETTh2-720-other-0: DataError: no\n"


def test_the_page_of_a_study_holds_its_tables_and_loads_nothing(finished, tmp_path):
    from prismts.report.study import study_page

    _, _, study = finished
    page = study_page(tmp_path / "study.html", study).path.read_text()
    for title in ("Gains", "Interaction", "Kernels over the day", "Gradient flow", "Phase wobble"):
        assert f"<h2>{title}</h2>" in page
    assert "Gain of the modes over none" in page
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page


# ---- the command


def prism(*words):
    from prismts.cli import studying  # noqa: F401 - hangs the command on prism
    from prismts.cli.app import app

    app([*words], exit_on_error=False, print_error=False, result_action="return_value")


def test_the_command_runs_a_specification_and_writes_tables_and_a_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(running, "load_dataset", plant)
    file = write(tmp_path, GRIDS.replace("[96]", "[12]") + f"context_length: 48\nmodel: {SMALL}\nfit: {FIT}\n")
    prism("study", "cross-learner", str(file), "--dry-run")
    assert "1 cells, 0 done, 1 to run" in capsys.readouterr().out
    assert not (tmp_path / "study.results").exists()
    prism("study", "cross-learner", str(file))
    assert "1 of 1 done" in capsys.readouterr().err.replace("\n", " ")
    assert {one.name for one in (tmp_path / "study.results").iterdir()} == {
        "ETTh2-12-both-0.json", "data-ETTh2.json", "tables.md", "study.html",
    }  # fmt: skip


def test_the_command_ends_in_failure_where_a_cell_failed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(running, "load_dataset", plant)
    with pytest.raises(SystemExit, match="1"):  # 96 steps of future do not fit into the validation part
        prism("study", "cross-learner", str(write(tmp_path, GRIDS)))
    assert "1 cells failed" in capsys.readouterr().err.replace("\n", " ")
    assert "No window fits" in (tmp_path / "study.results" / "ETTh2-96-both-0.failed.json").read_text()
