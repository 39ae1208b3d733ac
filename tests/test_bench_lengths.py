"""How long a benchmark will take: by cells that are finished, or by a few steps of what never ran."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from prismts.benchmark.lengths import Timed, estimate, in_words, probe_group, to_probe, told_by
from prismts.benchmark.results import read_results
from prismts.benchmark.runner import pending
from prismts.benchmark.spec import BenchSpec, Cell
from prismts.data.synthetic import simulated_plant
from prismts.estimators.forecaster import Forecaster
from prismts.training import brief
from prismts.training.brief import Length, Stopwatch, cut_short

TINY = {"patch_length": 8, "stride": 4, "width": 8, "feed_forward": 0, "kernel_sizes": [5]}


def finished_in(seconds):
    """Results of cells that took so many seconds, and nothing else."""
    return SimpleNamespace(cells={cell: {"trained_with": cell.name, "seconds": s} for cell, s in seconds.items()})


def cell_of(data, model, seed=0, horizon=12, context=48):
    return Cell(data, model, seed, "honest", context, horizon)


def small(**changes):
    content = {"task": "forecast", "data": ["ETTh1"], "horizons": [12, 24], "context_lengths": [48], "seeds": [0, 1],
               "floors": [], **changes}  # fmt: skip
    return BenchSpec.of(**content)


NETWORK = {"name": "net", "model": "convtimenet", "setting": "network", "model_settings": TINY,
           "fit_settings": {"max_epochs": 9, "patience": 2, "batch_size": 16}}  # fmt: skip


@pytest.fixture
def ticking(monkeypatch):
    """A clock on which a second passes whenever somebody looks."""
    ticks = iter(range(10**9))
    monkeypatch.setattr(brief.time, "perf_counter", lambda: float(next(ticks)))


# ---- by finished cells


def test_the_estimate_takes_the_mean_of_finished_cells_of_the_same_kind():
    """Two seeds of ridge on ETTh2 took 10 and 20 s; of another model nothing is known."""
    results = finished_in({cell_of("ETTh2", "ridge", 0): 10.0, cell_of("ETTh2", "ridge", 1): 20.0})
    found = estimate(results, [(cell_of("ETTh2", "ridge", 2),), (cell_of("ETTh2", "other"),)])
    assert (found.n_known, found.n_unknown) == (1, 1)
    assert found.least == found.most == pytest.approx(15)
    assert found.told(jobs=3).startswith("about 5 s, and 1 of unknown length: none of their model is finished yet")


def test_a_model_that_never_ran_on_a_set_takes_what_it_takes_elsewhere_as_others_do_there():
    """Ridge takes three times as long on ETTm2 as on ETTh2, and twice as long at 24 steps: so will DLinear."""
    done = {cell_of("ETTh2", "ridge"): 10.0, cell_of("ETTm2", "ridge"): 30.0, cell_of("ETTh2", "ridge", 0, 24): 20.0}
    results = finished_in({**done, cell_of("ETTh2", "dlinear"): 100.0})
    assert estimate(results, [(cell_of("ETTm2", "dlinear"),)]).most == pytest.approx(300)
    assert estimate(results, [(cell_of("ETTh2", "dlinear", 0, 24),)]).most == pytest.approx(200)
    assert estimate(results, [(cell_of("ETTm2", "dlinear", 0, 24),)]).most == pytest.approx(600)
    assert estimate(finished_in({}), [(cell_of("ETTm2", "dlinear"),)]).n_unknown == 1


# ---- by a few steps


def test_steps_times_epochs_are_the_length_of_a_training(ticking):
    """17 steps of 1 s and 3 checks of 1 s an epoch: 20 s; patience 2 ends it after 3 epochs at the earliest, of 9."""
    found = []
    watch = Stopwatch(found, n_epochs=9, patience=2, n_steps=17, n_checks=3)
    watch.on_train_epoch_start(None, None)
    for _ in range(4):
        watch.on_train_batch_end(None, None, None, None, 0)
    watch.on_validation_epoch_start(None, None)
    watch.on_validation_batch_end(None, None, None, None, 0)
    watch.on_train_end(None, None)
    assert [(one.least, one.most) for one in found] == [(60.0, 180.0)]


def test_without_validation_all_epochs_are_made_and_the_first_step_does_not_count(monkeypatch):
    moments = iter([0.0, 10.0, 15.0, 16.0, 18.0, 19.0, 30.0])  # began, epoch begins, steps of 5, 1, 2, 1, ended
    monkeypatch.setattr(brief.time, "perf_counter", lambda: next(moments))
    found = []
    watch = Stopwatch(found, n_epochs=4, patience=2, n_steps=10, n_checks=0)
    watch.on_train_epoch_start(None, None)
    for _ in range(4):
        watch.on_train_batch_end(None, None, None, None, 0)
    watch.on_train_end(None, None)
    assert found == [Length(40.0, 40.0, spent=30.0)]


def test_every_training_inside_is_cut_short_and_none_behind_it():
    series = simulated_plant(400, seed=1)
    one = Forecaster(
        "convtimenet", horizon=12, context_length=48, setting="network", n_members=2, progress=False,
        model_settings=TINY, fit_settings={"max_epochs": 3, "batch_size": 8},
    )  # fmt: skip
    with cut_short() as trainings:
        one.fit(series)
    assert len(trainings) == 2 and all(0 < length.least <= length.most for length in trainings)
    assert len(one.fit_result_.history) == 1
    one.fit(series)
    assert len(trainings) == 2 and len(one.fit_result_.history) == 3


def test_one_cell_of_each_model_and_set_is_timed_and_tells_of_its_seeds_and_horizons(tmp_path):
    spec = small(models=[NETWORK, "ridge"], data=["ETTh1", "ETTh2"])
    results = read_results(tmp_path, spec)
    groups = to_probe(results, pending(results))
    assert [group[0].name for group in groups] == [
        f"{data}-{model}-c48-h12-s0-honest" for data in ("ETTh1", "ETTh2") for model in ("net", "ridge")
    ]
    timed = Timed(groups[0], "done", length=Length(60.0, 240.0))
    told = in_words(results, {told_by(timed.cells[0]): timed})
    assert told(cell_of("ETTh1", "net", 1, 24)) == "60 s to 4 min"
    assert told(cell_of("ETTh2", "net")) == told(cell_of("ETTh1", "net", context=96)) == "unknown"


def test_a_probe_tells_a_range_and_leaves_nothing_behind(tmp_path, ticking):
    spec = small(models=[NETWORK])
    groups = pending(read_results(tmp_path / "out", spec))
    found = probe_group(spec, groups[0], tmp_path / "out", load=lambda name: simulated_plant(700, seed=1))
    assert found.kind == "done" and found.length is not None
    n_train, n_check = 490 - 48 - 12 + 1, 70 - 12 + 1  # windows of 70 % and 10 % of 700 steps
    epoch = -(-n_train // 16) + -(-n_check // 16)
    assert found.length.most - found.length.least == 6 * epoch  # 9 epochs against 3, a second for each batch
    assert not (tmp_path / "out").exists()


def test_what_cannot_run_is_told_before_it_is_run():
    spec = small(models=["ridge"])
    cell = spec.cells[0]
    found = probe_group(spec, (cell,), Path(), load=lambda name: simulated_plant(700, seed=1)[:20])
    assert found.kind == "failed" and "Error: " in found.told
    assert in_words(finished_in({}), {told_by(cell): found})(cell) == f"fails: {found.told}"
    assert estimate(finished_in({}), [(cell,)], {told_by(cell): found}).n_unknown == 1


@pytest.mark.long
def test_the_command_times_what_never_ran_and_keeps_nothing(tmp_path, run):
    hours = pd.DataFrame({"date": pd.date_range("2020", periods=1200, freq="h"), "OT": np.arange(1200) % 24})
    hours.to_csv(tmp_path / "mine.csv", index=False)
    (tmp_path / "s.yaml").write_text(
        "task: forecast\ndata: [{name: mine, file: mine.csv}]\nhorizons: [12, 24]\ncontext_lengths: [48]\n"
        "models: [ridge]\nfloors: []\n"
    )
    code, out, err = run("bench", "run", tmp_path / "s.yaml", "--dry-run")
    assert code == 0 and "(unknown)" in out and "--probe times a few steps of each" in out
    code, out, err = run("bench", "run", tmp_path / "s.yaml", "--probe")
    assert code == 0 and "unknown" not in out and "mine-ridge-c48-h24-s0-honest  (about" in out
    assert "mine-ridge-c48-h12-s0-honest: about" in err and not (tmp_path / "s.results").exists()
