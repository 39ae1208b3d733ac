"""Tables and comparisons of a benchmark, on cells whose scores are made up so that every number can be checked."""

import numpy as np
import pandas as pd
import pytest

from prismts.benchmark.cells import Record
from prismts.benchmark.compare import compare
from prismts.benchmark.counted import direction
from prismts.benchmark.published import Published, read_published
from prismts.benchmark.results import keep_spec, read_results, write_failed, write_records
from prismts.benchmark.spec import BenchSpec
from prismts.benchmark.tables import render, table
from prismts.errors import DataError, SettingsError


def made_up(folder, spec, scores, validation=None, skip=(), **changes):
    """A folder in which every cell has the score that a function of the cell gives, and else what ``changes`` say."""
    for cell in spec.cells:
        if cell in skip or (value := scores(cell)) is None:
            continue
        content = {
            "cell": cell.name, "task": spec.task, "made_with": spec.made_with(cell),
            "measures": {{"forecast": "mse", "classify": "accuracy", "detect": "vus_pr"}[spec.task]: value},
            "validation": None if validation is None else {"mse": validation(cell)},
            "n_scored": 7, "counted": "windows", "n_parameters": 1234567, "n_macs": 10, "seconds": 2.0,
            "cpu_seconds": 1.5, "chosen": {"fit_seconds": 1.0},
            "trained_with": cell.name, "data_hash": f"hash of {cell.data}", "device": "cpu", "threads": 1,
            "versions": {"prismts_files": "one state"}, "finished": "now", "settings": {},
            **{name: of(cell) for name, of in changes.items()},
        }  # fmt: skip
        write_records(folder, [Record(cell, content)])
    keep_spec(folder, spec)
    return read_results(folder)


def forecasts(**changes):
    content = {"task": "forecast", "data": ["ETTh1", "ETTh2"], "horizons": [96, 192], "seeds": [0, 1, 2],
               "models": ["convtimenet"], **changes}  # fmt: skip
    return BenchSpec.of(**content)


SCORES = {"convtimenet": 0.4, "last_value": 1.3, "seasonal_naive": 0.6, "ridge": 0.405}


def by_seed(cell):
    """0.39, 0.40, 0.41 by seed, and a bit more at the longer horizon."""
    shift = (cell.seed - 1) * 0.01 if cell.model == "convtimenet" else 0.0
    return SCORES[cell.model] + shift + (0.1 if cell.horizon == 192 else 0.0)


def entry(view, row, column):
    names = list(view.columns)
    return dict(view.rows)[row][names.index(column)]


# ---- numbers


def test_a_row_holds_the_mean_and_the_deviation_over_seeds(tmp_path):
    """0.39, 0.40, 0.41: mean 0.400, standard deviation 0.010."""
    view = table(made_up(tmp_path, forecasts(), by_seed))
    assert entry(view, ("ETTh1", "96"), "convtimenet").text == "0.400 ± 0.010"
    assert entry(view, ("ETTh1", "96"), "ridge (floor)").text == "0.405"
    assert "Mean ± standard deviation over 3 seeds; without ± there is one." in view.notes


def test_the_mean_over_horizons_follows_them(tmp_path):
    view = table(made_up(tmp_path, forecasts(), by_seed))
    assert [key for key, _ in view.rows] == [
        ("ETTh1", "96"), ("ETTh1", "192"), ("ETTh1", "avg"), ("ETTh2", "96"), ("ETTh2", "192"), ("ETTh2", "avg"),
    ]  # fmt: skip
    assert entry(view, ("ETTh2", "avg"), "convtimenet").text == "0.450 ± 0.010"


def test_a_network_that_failed_quietly_is_named_once_for_each_training(tmp_path):
    spec = forecasts(protocols=["honest", "published"])

    def signs(cell):
        return {"residual weights stayed at zero": "The blocks add nothing."} if cell.model == "convtimenet" else {}

    view = table(made_up(tmp_path, spec, by_seed, signs_of_failure=signs))
    told = [note for note in view.notes if "Sign of failure" in note]
    assert told == ["Sign of failure, residual weights stayed at zero, in so many trainings: convtimenet (12)."]


def test_floors_are_always_there_and_the_best_is_marked(tmp_path):
    view = table(made_up(tmp_path, forecasts(), by_seed))
    assert view.columns == ("convtimenet", "last_value (floor)", "seasonal_naive (floor)", "ridge (floor)")
    assert [e.best for e in dict(view.rows)["ETTh1", "96"]] == [True, False, False, False]


def test_a_model_that_loses_to_a_floor_is_marked(tmp_path):
    view = table(made_up(tmp_path, forecasts(), lambda cell: by_seed(cell) + (0.1 if cell.data == "ETTh2" else 0) * (
        cell.model == "convtimenet")))  # fmt: skip
    assert not entry(view, ("ETTh1", "96"), "convtimenet").below_floor
    lost = entry(view, ("ETTh2", "96"), "convtimenet")
    assert lost.below_floor and lost.whole == "0.500 ± 0.010 ↓" and not lost.best
    assert "↓ worse than the best floor of its row." in view.notes


def test_a_mean_over_what_is_not_all_there_is_no_mean(tmp_path):
    spec = forecasts()
    skip = [cell for cell in spec.cells if cell.model == "convtimenet" and cell.data == "ETTh2" and cell.horizon == 192]
    view = table(made_up(tmp_path, spec, by_seed, skip=skip))
    assert entry(view, ("ETTh2", "avg"), "convtimenet").text == "1 of 2"
    assert entry(view, ("ETTh2", "192"), "convtimenet").text == "–"
    assert "'n of m' stands where a model has no number for all that the row covers." in view.notes
    assert f"{len(spec.cells) - 3} of {len(spec.cells)} cells are done." in view.notes


def test_a_row_covers_what_the_specification_names_even_where_no_model_has_been_run(tmp_path):
    """Else the mean over the one horizon that is done would stand beside published means over all of them."""
    spec = forecasts()
    skip = [cell for cell in spec.cells if cell.data == "ETTh2" and cell.horizon == 192]
    results = made_up(tmp_path, spec, by_seed, skip=skip)
    view = table(results, by=["data"])
    assert {entry(view, ("ETTh2",), name).text for name in ("convtimenet", "ridge (floor)")} == {"1 of 2"}
    assert entry(view, ("mean",), "ridge (floor)").text == "3 of 4"
    assert entry(view, ("ETTh1",), "ridge (floor)").text == "0.455"
    assert entry(table(results), ("ETTh2", "96"), "ridge (floor)").text == "0.405"


def test_protocols_are_told_apart_by_a_column(tmp_path):
    spec = forecasts(protocols=["honest", "published"])
    view = table(made_up(tmp_path, spec, lambda cell: by_seed(cell) - (0.05 if cell.protocol == "published" else 0)))
    assert view.keys == ("data", "horizon", "protocol")
    assert entry(view, ("ETTh1", "96", "honest"), "convtimenet").text == "0.400 ± 0.010"
    assert entry(view, ("ETTh1", "96", "published"), "convtimenet").text == "0.350 ± 0.010"
    assert view.notes[0].startswith("Rows are of two protocols")
    assert "protocol" not in view.title


def test_validation_chooses_the_context_of_every_model_and_never_the_test(tmp_path):
    """On test 96 is better everywhere; validation says 336 for the network and 96 for the ridge."""
    spec = forecasts(context_lengths=[96, 336], horizons=[96])

    def test_score(cell):
        return by_seed(cell) + (0.0 if cell.context_length == 96 else 0.05)

    def validation(cell):
        prefers = 336 if cell.model == "convtimenet" else 96
        return 0.1 if cell.context_length == prefers else 0.2

    results = made_up(tmp_path, spec, test_score, validation)
    view = table(results)
    assert entry(view, ("ETTh1", "96"), "convtimenet").text == "0.450 ± 0.010"
    assert entry(view, ("ETTh1", "96"), "ridge (floor)").text == "0.405"
    assert any(note.startswith("Context: of 96, 336 steps, validation chose one") for note in view.notes)
    every = table(results, by=["data", "horizon", "context"])
    assert entry(every, ("ETTh1", "96", "96"), "convtimenet").text == "0.400 ± 0.010"


def test_contexts_without_a_validation_score_cannot_be_chosen_among(tmp_path):
    results = made_up(tmp_path, forecasts(context_lengths=[96, 336]), by_seed)
    with pytest.raises(
        DataError, match=r"no validation score tells which one 'convtimenet' .*--by data,horizon,context"
    ):
        table(results)


def test_a_context_is_chosen_among_all_that_were_planned_or_not_at_all(tmp_path):
    """Of 96, 192 and 336 one is missing for the ridge on ETTh2: the better of the two others is no choice of three."""
    spec = forecasts(context_lengths=[96, 192, 336], horizons=[96], seeds=[0])
    skip = [cell for cell in spec.cells if (cell.model, cell.data, cell.context_length) == ("ridge", "ETTh2", 336)]
    results = made_up(tmp_path, spec, by_seed, lambda cell: 0.1, skip=skip)
    view = table(results, by=["data"])
    assert entry(view, ("ETTh1",), "ridge (floor)").text == "0.405"
    assert entry(view, ("ETTh2",), "ridge (floor)").text == "–"
    assert entry(view, ("mean",), "ridge (floor)").text == "1 of 2"
    told = "Without a number until all of their contexts have been run: ridge on ETTh2 96."
    assert told in view.notes
    found = compare(results, n_draws=50)
    assert found.blocks.names == ("ETTh1",) and told in found.summary()
    write_failed(tmp_path, spec, skip, "too long")  # what cannot be run cannot be chosen, and holds nothing up
    assert entry(table(read_results(tmp_path), by=["data"]), ("ETTh2",), "ridge (floor)").text == "0.405"


def test_detectors_of_several_contexts_are_compared_at_the_one_that_is_asked_for(tmp_path):
    spec = BenchSpec.of(task="detect", data=["MBA_ECG"], models=["knn"], seeds=[0], context_lengths=[16, 32])
    results = made_up(tmp_path, spec, lambda cell: (0.5 if cell.model == "knn" else 0.4) + cell.context_length / 100)
    with pytest.raises(DataError, match=r"--by collection,context\), a comparison takes one of them \(--context 16\)"):
        compare(results)
    found = compare(results, context=32, n_draws=50)
    np.testing.assert_allclose(found.blocks.table.mean(axis=0), [0.82, 0.72])
    assert "All at a context of 32 steps." in found.summary()
    assert entry(table(results, by=["collection", "context"]), ("MBA_ECG", "16"), "knn").text == "0.660"
    with pytest.raises(SettingsError, match="no context of this benchmark named 33"):
        compare(results, context=33)


def test_where_nothing_learned_from_the_whole_training_part_rows_are_of_shares(tmp_path):
    spec = forecasts(horizons=[96], data=["ETTh1"], train_shares=[0.1, 0.5])
    results = made_up(tmp_path, spec, lambda cell: by_seed(cell) + cell.train_share)
    view = table(results)
    assert view.keys == ("data", "horizon", "share") and not any("No result yet" in note for note in view.notes)
    assert entry(view, ("ETTh1", "96", "50 %"), "ridge (floor)").text == "0.905"
    with pytest.raises(DataError, match="Show shares: --by data,horizon,share"):
        table(results, by=["data"])


def test_a_measure_that_a_model_does_not_have_is_not_called_a_missing_result(tmp_path):
    def measures(cell):
        return {"mse": 0.4} if cell.model == "last_value" else {"mse": 0.4, "coverage": 0.7}

    results = made_up(tmp_path, forecasts(seeds=[0]), by_seed, measures=measures)
    view = table(results, measure="coverage")
    assert "No coverage there: last_value." in view.notes
    assert not any("No result yet" in note for note in view.notes)


def test_a_coverage_has_no_best_and_ranks_nobody(tmp_path):
    """Of .7, .8 and .95 with .8 claimed, neither the lowest nor the highest is best."""
    scores = {"convtimenet": 0.7, "last_value": 0.95, "seasonal_naive": 0.9, "ridge": 0.8}
    results = made_up(tmp_path, forecasts(seeds=[0]), by_seed, measures=lambda cell: {"coverage": scores[cell.model]})
    view = table(results, measure="coverage")
    assert "coverage, nearest to what is claimed is best" in view.title
    assert not any(e.best or e.below_floor for _, row in view.rows for e in row)
    with pytest.raises(SettingsError, match=r"coverage ranks no model: .* such as crps"):
        compare(results, measure="coverage")


def test_the_mean_is_over_data_sets_each_over_its_horizons_in_tables_and_comparisons_alike(tmp_path):
    """ETTh1 at 96 and 192 scores 1 and 2 (1.5), ETTh2 at 96 alone 4: the mean is 2.75, not 7 / 3."""
    spec = forecasts(data=["ETTh1", {"name": "ETTh2", "horizons": [96]}], seeds=[0])
    results = made_up(tmp_path, spec, lambda cell: 4.0 if cell.data == "ETTh2" else cell.horizon / 96)
    view = table(results, by=["data"])
    assert entry(view, ("mean",), "ridge (floor)").text == "2.750"
    assert compare(results, n_draws=50).blocks.table.mean(axis=0) == pytest.approx([2.75] * 4)
    assert entry(table(results, by=["horizon"]), ("avg",), "ridge (floor)").text == "2.750"


def test_rows_over_data_sets_leave_out_what_no_mean_counts_and_say_which_sets_they_cover(tmp_path):
    """At 96 two sets score 1 and 3 (mean 2), at 192 one of them 3; ETTm1 with its 100 is in neither."""
    data = ["ETTh1", {"name": "ETTh2", "horizons": [96]}, {"name": "ETTm1", "in_mean": False}]
    scores = {"ETTh1": 3.0, "ETTh2": 1.0, "ETTm1": 100.0}
    results = made_up(tmp_path, forecasts(data=data, seeds=[0]), lambda cell: scores[cell.data])
    view = table(results, by=["horizon"])
    assert [entry(view, (h,), "ridge (floor)").text for h in ("96", "192")] == ["2.000", "3.000"]
    assert "The mean leaves out ETTm1, as the specification says." in view.notes
    assert "Rows do not cover the same data sets (96: 2, 192: 1); compare numbers within a row only." in view.notes
    assert entry(table(results, by=["context"]), ("336",), "ridge (floor)").text == "2.000"
    assert entry(table(results, by=["collection"]), ("ETTm1",), "ridge (floor)").text == "100.000"


def test_data_on_which_every_model_failed_keep_their_rows_and_are_named_by_a_comparison(tmp_path):
    spec = forecasts(seeds=[0], horizons=[96])
    lost = [cell for cell in spec.cells if cell.data == "ETTh2"]
    made_up(tmp_path, spec, by_seed, skip=lost)
    write_failed(tmp_path, spec, lost, "too short")
    results = read_results(tmp_path)
    view = table(results, by=["data"])
    assert [e.text for e in dict(view.rows)["ETTh2",]] == ["failed"] * 4
    assert {e.text for e in dict(view.rows)["mean",]} == {"1 of 2"}
    assert "ETTh2" in render(view, width=120)
    told = " ".join(compare(results, n_draws=50).summary())
    assert "a result is missing there (and whose): ETTh2 (all)." in told and "4 of 8 cells are done, 4 failed." in told


def test_shares_of_training_are_shown_on_demand_and_never_averaged_with_the_whole(tmp_path):
    spec = forecasts(horizons=[96], data=["ETTh1"], train_shares=[0.1, 1.0])
    results = made_up(tmp_path, spec, lambda cell: by_seed(cell) + (0.2 if cell.train_share < 1 else 0))
    view = table(results)
    assert entry(view, ("ETTh1", "96"), "convtimenet").text == "0.400 ± 0.010"
    assert any("--by data,horizon,share shows the rest" in note for note in view.notes)
    every = table(results, by=["data", "share"])
    assert entry(every, ("ETTh1", "10 %"), "convtimenet").text == "0.600 ± 0.010"


def test_resamples_are_the_draws_where_there_are_any(tmp_path):
    """The archive's split scores .8 and .9 by seed (mean .85), the other resample .95: mean .9, deviation .0707."""
    spec = BenchSpec.of(task="classify", data=["EP"], models=["convtimenet"], seeds=[0, 1], resamples=[0, 1])
    results = made_up(tmp_path, spec, lambda cell: 0.95 if cell.resample else 0.8 + 0.1 * cell.seed)
    view = table(results)
    assert entry(view, ("Epilepsy",), "convtimenet").text == "0.900 ± 0.071"
    assert any("over 2 resamples" in note for note in view.notes)


def test_higher_is_better_turns_the_best_and_the_floor_around(tmp_path):
    spec = BenchSpec.of(task="classify", data=["EP", "AWR"], models=["convtimenet"], seeds=[0])
    scores = {"convtimenet": 0.8, "minirocket": 0.9, "majority": 0.25}
    view = table(made_up(tmp_path, spec, lambda cell: scores[cell.model]))
    assert [key for key, _ in view.rows] == [("Epilepsy",), ("ArticularyWordRecognition",), ("mean",)]
    assert entry(view, ("mean",), "minirocket (floor)").best
    assert entry(view, ("mean",), "convtimenet").below_floor


def test_series_of_a_collection_share_a_row(tmp_path):
    spec = BenchSpec.of(task="detect", data=["ASD", "MBA_ECG"], models=["knn"], seeds=[0])
    view = table(made_up(tmp_path, spec, lambda cell: 0.2 if cell.data.startswith("ASD") else 0.6))
    assert entry(view, ("ASD",), "knn").text == "0.200"
    # the mean is over series, eight of the one and two of the other
    assert entry(view, ("mean",), "knn").text == "0.280"


def test_costs_can_be_tabulated_and_mark_no_floor(tmp_path):
    results = made_up(tmp_path, forecasts(), by_seed)
    view = table(results, measure="n_parameters")
    assert entry(view, ("ETTh1", "96"), "convtimenet").text == "1\u202f234\u202f567 ± 0"
    assert not any(e.below_floor for _, row in view.rows for e in row)
    assert direction("forecast", "seconds") == "lower" and direction("classify", "accuracy") == "higher"
    assert direction("classify", "log_loss") == "lower" and direction("detect", "vus_pr") == "higher"


def test_a_training_that_two_protocols_share_costs_once(tmp_path):
    """The honest cell took 2 s with its training, the published one .1 s, which is another scoring."""
    spec = forecasts(protocols=["honest", "published"], seeds=[0])
    results = made_up(
        tmp_path, spec, by_seed, trained_with=lambda cell: cell.name.replace("published", "honest"),
        seconds=lambda cell: 2.0 if cell.protocol == "honest" else 0.1,
    )  # fmt: skip
    view = table(results, measure="seconds", by=["data"])
    assert view.keys == ("data",) and entry(view, ("ETTh1",), "convtimenet").text == "2.000"
    assert any("All protocols share one training" in note for note in view.notes)
    assert compare(results, measure="seconds", protocol="published", n_draws=50).blocks.table.min() == 2
    assert table(results, by=["data"]).keys == ("data", "protocol")


def test_digits_are_counted_from_zero_and_a_cell_without_versions_can_be_shown(tmp_path):
    results = made_up(tmp_path, forecasts(), by_seed, versions=lambda cell: None)
    assert entry(table(results, digits=0), ("ETTh1", "96"), "ridge (floor)").text == "0"
    for digits in (-1, 16):
        with pytest.raises(SettingsError, match=f"from 0 to 15, but got {digits}"):
            table(results, digits=digits)


def test_what_is_wrong_with_the_cells_is_said_below(tmp_path):
    spec = forecasts()
    results = made_up(tmp_path, spec, by_seed)
    failed = spec.cells[0]
    (tmp_path / "cells" / f"{failed.name}.json").unlink()
    write_failed(tmp_path, spec, [failed], "boom")
    first = results.cells[spec.cells[1]]
    write_records(
        tmp_path, [Record(spec.cells[1], {**first, "data_hash": "another", "versions": {"prismts_files": "b"}})]
    )
    (tmp_path / "cells" / "stranger.json").write_text("{}")
    view = table(read_results(tmp_path))
    told = " ".join(view.notes)
    assert f"{len(spec.cells) - 1} of {len(spec.cells)} cells are done, 1 failed." in told
    assert f"Cells of {spec.cells[1].data} were made from different data: another, hash of" in told
    assert "made by 2 states of the package's files" in told and "1 cells in the folder are not of its spec" in told
    other = forecasts(fit_settings={"max_epochs": 3})
    assert any(
        "made with other settings and are left out" in note for note in table(read_results(tmp_path, other)).notes
    )


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"measure": "msee"}, "There is no measure named 'msee'. Did you mean 'mse'"),
        ({"by": ["horizn"]}, "There is no kind of row named 'horizn'. Did you mean 'horizon'"),
        ({"columns": ["rigde"]}, "There is no column named 'rigde'. Did you mean 'ridge'"),
        ({"by": ["data", "data"]}, "each kind once, but got data,data"),
    ],
)
def test_names_that_are_unknown_offer_their_neighbor_and_none_stands_twice(tmp_path, asked, words):
    results = made_up(tmp_path, forecasts(), by_seed)
    with pytest.raises(SettingsError, match=words):
        table(results, **asked)


def test_an_unfinished_benchmark_has_no_table(tmp_path):
    with pytest.raises(DataError, match="has no finished cell of its specification"):
        table(made_up(tmp_path, forecasts(), lambda cell: None))


def test_a_configuration_without_any_result_has_no_column_but_is_named(tmp_path):
    spec = forecasts(models=["convtimenet", "dlinear"])
    view = table(made_up(tmp_path, spec, lambda cell: None if cell.model == "dlinear" else by_seed(cell)))
    assert "dlinear" not in view.columns and "convtimenet" in view.columns
    assert "No result yet: dlinear." in view.notes


def test_a_set_that_cannot_rank_models_is_shown_but_counts_in_no_mean_and_no_comparison(tmp_path):
    spec = forecasts(data=["ETTh1", {"name": "ETTh2", "in_mean": False}])
    results = made_up(tmp_path, spec, lambda cell: by_seed(cell) + (7 if cell.data == "ETTh2" else 0))
    view = table(results, by=["data"])
    mean, only = (entry(view, (name,), "convtimenet").value for name in ("mean", "ETTh1"))
    assert mean == only and entry(view, ("ETTh2",), "convtimenet").value > 7
    assert "The mean leaves out ETTh2, as the specification says." in view.notes
    found = compare(results, n_draws=50)
    assert found.blocks.names == ("ETTh1",)
    assert any("Not compared on ETTh2" in sentence for sentence in found.summary())


# ---- published numbers


DUET = Published("DUET", "forecast", "honest", "DUET, Table 3", "no window dropped",
                 {("ETTh1", 96, "mse"): 0.352, ("ETTh1", 192, "mse"): 0.398})  # fmt: skip
OLD = Published("Old", "forecast", "published", "a paper", "last batch dropped", {("ETTh1", 96, "mse"): 0.3})


def test_published_numbers_stand_in_rows_of_their_protocol_with_their_source(tmp_path):
    results = made_up(tmp_path, forecasts(), by_seed)
    view = table(results, published=[DUET, OLD])
    assert entry(view, ("ETTh1", "96"), "DUET¹").text == "0.352"
    assert entry(view, ("ETTh2", "96"), "DUET¹").text == "–"
    assert "¹ Published, honest protocol: DUET, Table 3. No window dropped." in view.notes
    assert not any("Old" in name for name in view.columns)
    assert any("1 published columns are of another protocol and left out (Old)" in note for note in view.notes)


def test_numbers_of_another_protocol_are_marked_where_they_are_asked_for(tmp_path):
    view = table(made_up(tmp_path, forecasts(), by_seed), published=[DUET, OLD], all_published=True)
    assert entry(view, ("ETTh1", "96"), "Old²").text == "0.300 ‡"
    assert any(note.startswith("‡ made by another protocol") for note in view.notes)


def test_in_a_table_of_both_protocols_each_published_number_stands_in_its_own_rows(tmp_path):
    results = made_up(tmp_path, forecasts(protocols=["honest", "published"]), by_seed)
    view = table(results, published=[DUET, OLD])
    assert entry(view, ("ETTh1", "96", "honest"), "DUET¹").text == "0.352"
    assert entry(view, ("ETTh1", "96", "published"), "DUET¹").text == "–"
    assert entry(view, ("ETTh1", "96", "honest"), "Old²").text == "–"
    assert entry(view, ("ETTh1", "96", "published"), "Old²").text == "0.300"


def test_published_numbers_are_never_the_best_of_a_row(tmp_path):
    view = table(made_up(tmp_path, forecasts(), by_seed), published=[DUET])
    assert not entry(view, ("ETTh1", "96"), "DUET¹").best and entry(view, ("ETTh1", "96"), "convtimenet").best


def test_a_published_mean_is_over_the_same_horizons_or_it_is_not_shown(tmp_path):
    """0.352 and 0.398: 0.375. A mean over four horizons does not stand beside ours over two."""
    only_mean = Published(
        "Mean", "forecast", "honest", "s", "t", {("ETTh1", None, "mse"): 0.4, ("ETTh2", 96, "mse"): 1}
    )
    view = table(made_up(tmp_path, forecasts(), by_seed), published=[DUET, only_mean])
    assert entry(view, ("ETTh1", "avg"), "DUET¹").text == "0.375"
    assert entry(view, ("ETTh1", "avg"), "Mean²").text == "–"
    assert only_mean.value("ETTh1", [96, 192, 336, 720], "mse") == 0.4


def test_a_published_mean_covers_what_the_row_covers_whether_or_not_we_have_run_it(tmp_path):
    """Ours has 96 alone; beside it stands the mean of .352 and .398, and of two sets 'n of m' where one is lacking."""
    spec = forecasts(seeds=[0])
    skip = [cell for cell in spec.cells if cell.horizon == 192]
    results = made_up(tmp_path, spec, by_seed, skip=skip)
    both = Published("Both", "forecast", "honest", "s", "t", {**DUET.values, ("ETTh2", 96, "mse"): 0.2})
    whole = Published("Whole", "forecast", "honest", "s", "t", {**both.values, ("ETTh2", 192, "mse"): 0.3})
    view = table(results, published=[DUET, both, whole], by=["data"])
    assert entry(view, ("ETTh1",), "ridge (floor)").text == "1 of 2"
    assert entry(view, ("ETTh1",), "DUET¹").text == "0.375"
    assert [e.text for e in dict(view.rows)["ETTh2",][-3:]] == ["–", "1 of 2", "0.250"]
    assert [e.text for e in dict(view.rows)["mean",][-3:]] == ["2 of 4", "3 of 4", f"{(0.375 + 0.25) / 2:.3f}"]


def test_each_data_set_of_a_published_mean_has_its_own_horizons(tmp_path):
    """ETTh1 at 96 and 192: .375; ILI at 24 alone: 1.625; the mean is 1."""
    spec = forecasts(data=["ETTh1", {"name": "ILI", "horizons": [24]}], seeds=[0])
    column = Published("P", "forecast", "honest", "s", "t", {**DUET.values, ("ILI", 24, "mse"): 1.625})
    view = table(made_up(tmp_path, spec, by_seed), published=[column], by=["data"])
    assert entry(view, ("mean",), "P¹").text == "1.000"


def test_published_numbers_for_nothing_here_are_named_and_make_no_empty_table(tmp_path):
    wrong = Published("Wrong", "forecast", "honest", "s", "t", {("ETTh1", 97, "mse"): 0.3, ("ETTh9", 96, "mse"): 0.3})
    view = table(made_up(tmp_path, forecasts(), by_seed), published=[wrong])
    assert not view.n_quoted and "**Published numbers**" not in render(view, "markdown")
    assert "Published, but for no whole row of this table: Wrong." in view.notes
    assert any("Wrong are for 'ETTh9', which is no data set" in n and "Is 'ETTh" in n for n in view.notes)


def test_only_the_files_that_the_specification_names_are_shown_whatever_they_end_in(tmp_path):
    (tmp_path / "numbers.yml").write_text(GOOD)
    text = "task: forecast\ndata: [ETTh1]\nhorizons: [96]\nmodels: [ridge]\npublished: [numbers.yml]\n"
    (tmp_path / "spec.yaml").write_text(text)
    from prismts.benchmark.spec import read_spec

    results = made_up(tmp_path / "out", read_spec(tmp_path / "spec.yaml"), lambda cell: 0.4)
    assert "P¹" in table(results).columns
    (tmp_path / "spec.yaml").write_text(text.replace("published: [numbers.yml]\n", ""))
    results = made_up(tmp_path / "out", read_spec(tmp_path / "spec.yaml"), lambda cell: 0.4)
    assert (tmp_path / "out" / "published" / "numbers.yml").exists() and not table(results).n_quoted


def test_the_files_of_published_numbers_are_kept_beside_the_results(tmp_path):
    source = tmp_path / "numbers.yaml"
    source.write_text(
        "task: forecast\nnumbers:\n  - {model: P, protocol: honest, source: s, told: t, measures: [mse, mae],\n"
        "     values: {ETTh1: {96: .5/.6}}}\n"
    )
    text = "task: forecast\ndata: [ETTh1]\nhorizons: [96]\nmodels: [ridge]\npublished: [numbers.yaml]\n"
    (tmp_path / "spec.yaml").write_text(text)
    from prismts.benchmark.spec import read_spec

    results = made_up(tmp_path / "out", read_spec(tmp_path / "spec.yaml"), lambda cell: 0.4)
    assert entry(table(results), ("ETTh1", "96"), "P¹").text == "0.500"
    assert (tmp_path / "out" / "published" / "numbers.yaml").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("task: forcast\nnumbers: []\n", "line 1: There is no task named 'forcast'. Did you mean 'forecast'"),
        ("task: forecast\nnumbers:\n  - {modle: P}\n", "line 3: There is no entry named 'modle'. Did you mean 'model'"),
        ("task: forecast\nnumbers:\n  - {model: P}\n", "line 3: a column lacks protocol, source, told, mea"),
        ("task: forecast\nnumbers:\n  - {model: P, protocol: fair, source: s, told: t, measures: [mse], values: {}}\n",
         "line 3: There is no protocol named 'fair'"),
        ("task: forecast\nnumbers:\n  - {model: P, protocol: honest, source: s, told: t, measures: [mse],\n"
         "     values: {ETTh1: {96: x}}}\n", "line 4: 'x' is no number"),
        ("task: forecast\nnumbers:\n  - {model: P, protocol: honest, source: s, told: t, measures: [mse],\n"
         "     values: {ETTh1: {96: .1/.2}}}\n", "line 4: '.1/.2' holds 2 numbers, but the measures are mse"),
        ("- a\n", "holds `task` and a list of `numbers`"),
        ("task: forecast\nnumbers: 3\n", r"line 2: numbers is a list of columns \(- model: NAME ...\), but got 3"),
        ("task: forecast\nnumbers: [a]\n", "line 2: a column has the entries model, protocol, .* but got 'a'"),
    ],
)  # fmt: skip
def test_a_file_of_published_numbers_that_cannot_be_read_says_where(tmp_path, text, words):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(SettingsError, match=words):
        read_published(tmp_path / "p.yaml")


GOOD = """task: forecast
numbers:
  - model: P
    protocol: honest
    source: s
    told: t
    measures: [mse, mae]
    values:
      ETTh1: {96: .5/.6}
"""


@pytest.mark.parametrize(
    ("there", "instead", "words"),
    [
        ("model: P", "model: 5", r"line 3: model is text \(a number in quotes\), but got 5"),
        ("told: t", "told: 5", r"line 6: told is text \(a number in quotes\), but got 5"),
        ("source: s", "source:", r"line 5: source is text .* but got None"),
        ("protocol: honest", "protocol: [honest]", r"line 4: protocol is text .* but got \['honest'\]"),
        ("[mse, mae]", "mse", r"line 7: measures is a list of names, such as \[mse, mae\], but got 'mse'"),
        ("[mse, mae]", "[mes, mae]", "line 7: There is no measure named 'mes'. Did you mean 'mse'"),
        ("\n      ETTh1: {96: .5/.6}", "", "line 8: values is a number, or numbers by horizon, .* but got None"),
        ("96:", "96h:", "line 9: a horizon is a number of steps, or avg, but got '96h'"),
        ("96:", "0:", "line 9: a horizon is a number of steps, or avg, but got 0"),
        (".5/.6", "nan/.6", "line 9: a score is a number of at least 0, but got 'nan'"),
        (".5/.6", "-5/.6", "line 9: a score is a number of at least 0, but got '-5'"),
        ("{96: .5/.6}", "[.5, .6]", r"line 9: '\[0.5, 0.6\]' is no number"),
    ],
)
def test_a_mistake_in_published_numbers_is_told_with_its_line_and_what_was_expected(tmp_path, there, instead, words):
    (tmp_path / "p.yaml").write_text(GOOD)
    assert read_published(tmp_path / "p.yaml")[0].value("ETTh1", [96], "mse") == 0.5
    (tmp_path / "p.yaml").write_text(GOOD.replace(there, instead))
    with pytest.raises(SettingsError, match=f"p.yaml, {words}"):
        read_published(tmp_path / "p.yaml")


def test_a_published_bias_may_be_below_zero(tmp_path):
    (tmp_path / "p.yaml").write_text(GOOD.replace("[mse, mae]", "[mse, bias]").replace(".5/.6", ".5/-.01"))
    assert read_published(tmp_path / "p.yaml")[0].value("ETTh1", [96], "bias") == -0.01


# ---- setting


def test_markdown_marks_the_best_and_escapes_what_would_break_a_row(tmp_path):
    spec = forecasts(title="a | b")
    text = render(table(made_up(tmp_path, spec, by_seed)), "markdown")
    assert "**a \\| b: mse" in text
    assert "| ETTh1 | 96 | **0.400 ± 0.010** | 1.300 | 0.600 | 0.405 |" in text


def test_published_numbers_stand_in_a_table_of_their_own_and_a_source_is_told_once(tmp_path):
    other = Published("DUET (512)", "forecast", "honest", DUET.source, DUET.told, {("ETTh1", 96, "mse"): 0.345})
    text = render(table(made_up(tmp_path, forecasts(), by_seed), published=[DUET, other]), "markdown")
    ours, quoted = text.split("**Published numbers**")
    assert "| convtimenet |" in ours and "DUET" not in ours and "convtimenet" not in quoted
    assert "| DUET¹ | DUET (512)¹ |" in quoted and quoted.count("DUET, Table 3") == 1


def test_a_table_too_wide_for_a_line_goes_on_below_with_its_rows_named_again(tmp_path):
    view = table(made_up(tmp_path, forecasts(), by_seed))
    text = render(view, "terminal", width=60)
    assert max(map(len, text.splitlines()[: text.index("Mean")])) <= 60
    assert text.count("ETTh1 │ 96") == text.count("┃ data") > 1
    for name in view.columns:
        assert name in text
    assert render(view, "terminal", width=200).count("┃ data") == 1


def test_latex_escapes_names_and_sets_rules(tmp_path):
    text = render(table(made_up(tmp_path, forecasts(), by_seed), published=[DUET]), "latex")
    assert r"last\_value (floor)" in text and r"\textbf{0.400 $\pm$ 0.010}" in text and r"DUET$^1$" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2  # published numbers have their own
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.count("&") for line in rows} == {5, 2}  # two keys and four columns of ours; two and one published


def test_html_is_one_page_that_escapes_everything(tmp_path):
    text = render(table(made_up(tmp_path, forecasts(title="<script>"), by_seed)), "html")
    assert "<script>" not in text and "&lt;script&gt;" in text
    assert "<b>0.400 ± 0.010</b>" in text and text.endswith("</html>\n")


def test_the_terminal_shows_every_row_and_note(tmp_path):
    view = table(made_up(tmp_path, forecasts(), by_seed))
    text = render(view, "terminal", width=160)
    assert all(" ".join(note.split()) in " ".join(text.split()) for note in view.notes)
    assert text.count("avg") == 2 and "\x1b" not in text
    with pytest.raises(SettingsError, match="There is no format named 'pdf'"):
        render(view, "pdf")


# ---- comparing


def test_a_comparison_ranks_means_over_horizons_on_each_data_set(tmp_path):
    """The network wins on both sets, then ridge, season, last value."""
    found = compare(made_up(tmp_path, forecasts(), by_seed), n_draws=200)
    assert found.blocks.names == ("ETTh1", "ETTh2")
    assert dict(zip(found.blocks.models, found.ranks, strict=True)) == {
        "convtimenet": 1, "last_value": 4, "seasonal_naive": 3, "ridge": 2,
    }  # fmt: skip
    np.testing.assert_allclose(found.blocks.table[0], [0.45, 1.35, 0.65, 0.455])
    assert found.blocks.seeds["ETTh1", "convtimenet"] == pytest.approx((0.44, 0.45, 0.46))
    assert found.friedman is not None and found.friedman.chi_square == pytest.approx(6)  # n (k - 1): all agree
    pair = next(i for i, p in enumerate(found.pairs) if (p.first, p.second) == (0, 3))
    assert (found.pairs[pair].wins, found.pairs[pair].losses) == (2, 0)
    assert found.differences[pair].mean == pytest.approx(100 * -0.005 / 0.455)
    # 6 pairs times 2 / 2**2 is more than 1
    assert any("the number of pairs (6)" in one and "p-value below 1.000" in one for one in found.summary())


def test_every_horizon_can_be_a_block_and_that_is_said_to_be_too_sure(tmp_path):
    found = compare(
        made_up(tmp_path, forecasts(), by_seed), over="data,horizon", models=["convtimenet", "ridge"], n_draws=50
    )
    assert found.blocks.names == ("ETTh1 96", "ETTh1 192", "ETTh2 96", "ETTh2 192")
    assert any("no independent draws" in note for note in found.summary())
    assert found.friedman is None  # of two models Wilcoxon says it


def test_a_block_that_a_model_lacks_is_left_out_and_named(tmp_path):
    spec = forecasts()
    skip = [cell for cell in spec.cells if cell.model == "convtimenet" and cell.data == "ETTh2"]
    found = compare(made_up(tmp_path, spec, by_seed, skip=skip), n_draws=50)
    assert found.blocks.names == ("ETTh1",)
    assert any("a result is missing there (and whose): ETTh2 (convtimenet)" in one for one in found.summary())


def test_a_mean_over_some_horizons_is_not_compared_as_if_it_were_over_all(tmp_path):
    """Nobody has run ETTh2 at 192: means over 96 alone would be compared there."""
    spec = forecasts()
    skip = [cell for cell in spec.cells if cell.data == "ETTh2" and cell.horizon == 192]
    results = made_up(tmp_path, spec, by_seed, skip=skip)
    found = compare(results, n_draws=50)
    assert found.blocks.names == ("ETTh1",)
    told = " ".join(found.summary())
    assert "ETTh2 (all)" in told and f"{len(spec.cells) - len(skip)} of {len(spec.cells)} cells are done." in told
    by_horizon = compare(results, over="data,horizon", n_draws=50)
    assert by_horizon.blocks.names == ("ETTh1 96", "ETTh1 192", "ETTh2 96")


def test_whether_any_pair_can_differ_counts_the_pairs(tmp_path):
    """Six sets give 2 / 2**6 = .03125 for one pair, but for three pairs Holm makes .094 of it."""
    spec = forecasts(data=["ETTh1", "ETTh2", "ETTm1", "ETTm2", "Exchange", "Weather"], horizons=[96], seeds=[0])
    results = made_up(tmp_path, spec, by_seed)
    three = compare(results, models=["convtimenet", "ridge", "last_value"], n_draws=50)
    assert min(pair.corrected for pair in three.pairs) == pytest.approx(0.09375)
    told = [one for one in three.summary() if "cannot give a p-value below 0.094" in one]
    assert len(told) == 1 and "(--models)" in told[0]
    two = compare(results, models=["convtimenet", "ridge"], n_draws=50)
    assert two.pairs[0].corrected == pytest.approx(0.03125)
    assert not any("cannot give" in one for one in two.summary())


def test_blocks_with_a_score_of_zero_have_no_percent_and_are_counted(tmp_path):
    """On ETTh2 all score 0; on ETTh1 the network is 0.4 against 0.405, which is -1.2 %."""
    spec = forecasts(seeds=[0], horizons=[96])
    results = made_up(tmp_path, spec, lambda cell: 0.0 if cell.data == "ETTh2" else SCORES[cell.model])
    found = compare(results, models=["convtimenet", "ridge"], n_draws=50)
    assert found.pair_rows()[0][4] == "-1.2 % [-1.2, -1.2] on 1 of 2"
    assert any("Where the second of a pair scores 0 there is no percentage" in one for one in found.summary())
    nothing = compare(made_up(tmp_path, spec, lambda cell: 0.0), models=["convtimenet", "ridge"], n_draws=50)
    assert nothing.pair_rows()[0][4] == "–"


def test_a_comparison_says_how_its_cells_were_made(tmp_path):
    spec = forecasts()
    results = made_up(tmp_path, spec, by_seed, data_hash=lambda cell: cell.model,
                      versions=lambda cell: {"prismts_files": str(cell.seed)})  # fmt: skip
    told = " ".join(compare(results, n_draws=50).summary())
    assert "Cells of ETTh1 were made from different data: convtimenet, last_value" in told
    assert "made by 3 states of the package's files" in told


def test_a_single_data_set_is_one_block_in_words_too(tmp_path):
    said = compare(made_up(tmp_path, forecasts(data=["ETTh1"]), by_seed)).summary()
    assert said[0].startswith("4 configurations on 1 block (ETTh1)")
    assert any(sentence.startswith("With 1 block Wilcoxon's test") for sentence in said)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"models": ["ridge", "ridge"]}, "'ridge' is named twice among the models to compare"),
        ({"level": 2}, "level is a share between 0 and 1, such as 0.05, but got 2"),
        ({"level": 0}, "but got 0"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_the_words_of_who_asked(tmp_path, asked, words):
    results = made_up(tmp_path, forecasts(), by_seed)
    with pytest.raises(SettingsError, match=words):
        compare(results, **asked)


def test_protocols_are_never_compared_with_each_other(tmp_path):
    spec = forecasts(protocols=["honest", "published"])
    results = made_up(tmp_path, spec, lambda cell: by_seed(cell) + (5 if cell.protocol == "published" else 0))
    assert compare(results, n_draws=50).blocks.table.max() < 2
    assert compare(results, protocol="published", n_draws=50).blocks.table.min() > 5
    with pytest.raises(SettingsError, match=r"protocol of this benchmark named 'publishd'. Did you mean 'published'"):
        compare(results, protocol="publishd")


def test_a_single_model_cannot_be_compared(tmp_path):
    results = made_up(tmp_path, forecasts(), by_seed)
    with pytest.raises(DataError, match="needs two configurations"):
        compare(results, models=["ridge"])
    with pytest.raises(SettingsError, match=r"configuration named 'rigde'. Did you mean 'ridge'"):
        compare(results, models=["rigde", "last_value"])


def test_ranks_tell_the_interval_of_each_mean_over_seeds(tmp_path):
    """Means by seed are .44, .45, .46: .45 with Student's 4.3027 times .01 / sqrt(3), which is .0248."""
    found = compare(made_up(tmp_path, forecasts(), by_seed), n_draws=50)
    rows = {row[0]: row[2:] for row in found.rank_rows()}
    assert rows["convtimenet"] == ("0.4500", "0.4252 to 0.4748") and rows["ridge"] == ("0.4550", "–")
    assert found.score_rows()[0][:2] == ("ETTh1", "0.4500 ± 0.0100")


def test_seeds_that_some_block_lacks_give_no_interval(tmp_path):
    spec = forecasts()
    skip = [cell for cell in spec.cells if cell.data == "ETTh2" and cell.seed == 2]
    found = compare(made_up(tmp_path, spec, by_seed, skip=skip), n_draws=50)
    assert all(row[3] == "–" for row in found.rank_rows())


def test_where_horizons_are_missing_their_comparison_one_by_one_is_proposed(tmp_path):
    spec = forecasts()
    results = made_up(tmp_path, spec, by_seed, skip=[c for c in spec.cells if c.horizon == 192])
    with pytest.raises(DataError, match=r"Run what is missing, or compare horizon by horizon \(--over data,horizon\)"):
        compare(results, models=["convtimenet", "ridge"])
    assert compare(results, models=["convtimenet", "ridge"], over="data,horizon", n_draws=50).blocks.names == (
        "ETTh1 96", "ETTh2 96",
    )  # fmt: skip


# ---- the command


def test_the_command_prints_a_table_and_writes_one(tmp_path, run):
    made_up(tmp_path, forecasts(), by_seed)
    code, out, _ = run("bench", "table", tmp_path, "--format", "markdown", "--by", "data")
    assert code == 0 and "| ETTh1 | **0.450 ± 0.010** |" in out
    code, out, _ = run("bench", "table", tmp_path, "--format", "latex", "--out", tmp_path / "t" / "table.tex")
    assert code == 0 and out == "" and r"\toprule" in (tmp_path / "t" / "table.tex").read_text()
    code, _, err = run("bench", "table", tmp_path, "--measure", "maee")
    assert code == 2 and "There is no measure named 'maee'" in err


def test_the_command_compares_and_writes_the_page(tmp_path, run):
    made_up(tmp_path, forecasts(), by_seed)
    code, out, err = run("bench", "compare", tmp_path)
    assert code == 0 and "convtimenet against ridge" in out and "Nemenyi" in out
    assert "compare.html" in err.replace("\n", "")
    page = (tmp_path / "compare.html").read_text()
    assert "critical difference" in page and "convtimenet" in page
    code, out, err = run("bench", "compare", tmp_path, "--out", tmp_path / "spec.json" / "page.html")
    assert code == 2 and out == "" and f"{tmp_path / 'spec.json'} is a file, not a folder" in err


def test_a_dry_run_prints_the_cells_and_runs_nothing(tmp_path, run):
    (tmp_path / "s.yaml").write_text("task: forecast\ndata: [ETTh1]\nhorizons: [96]\nmodels: [ridge]\n")
    code, out, _ = run("bench", "run", tmp_path / "s.yaml", "--dry-run", "--jobs", "2")
    assert code == 0 and out.startswith("3 cells, 0 done, 3 to run in 3 trainings") and "ETTh1-ridge-c336-h96" in out
    assert not (tmp_path / "s.results").exists()
    code, _, err = run("bench", "run", tmp_path / "s.yaml", "--dry-run", "--jobs", "0")
    assert code == 2 and "--jobs counts processes" in err
    code, _, err = run("bench", "table", tmp_path)
    assert code == 2 and "holds no benchmark" in err


@pytest.mark.long
def test_the_specifications_and_published_numbers_of_this_repository_can_be_read(tmp_path):
    import shutil
    from pathlib import Path

    from prismts.benchmark.spec import read_spec

    root = Path(__file__).parents[1] / "benchmarks"
    for part in ("specs", "published"):
        shutil.copytree(root / part, tmp_path / part)
    hours = pd.DataFrame({"date": pd.date_range("2020", periods=7200, freq="h"), "OT": np.arange(7200)})
    for brought in ("electricity.csv", "traffic.csv"):  # beside wide.yaml, by whoever runs it
        hours.to_csv(tmp_path / "specs" / brought, index=False)
    specs = sorted((tmp_path / "specs").glob("*.yaml"))
    assert {file.stem for file in specs} >= {"forecasting", "wide", "classification", "detection", "ablations"}
    for file in specs:
        if file.stem.startswith(("search", "pretrain")):
            continue
        spec = read_spec(file)
        assert len(spec.cells) > 100
        for name in spec.published:
            assert read_published(file.parent / name)
