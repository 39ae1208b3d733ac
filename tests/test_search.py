"""A search: what its file may say, that no trial is ever lost, that the test part stays shut, what the page shows."""

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import yaml

pytest.importorskip("optuna")

from prismts.analysis.shape import Site, macs_of
from prismts.benchmark import search as running
from prismts.benchmark import search_results, search_trial
from prismts.benchmark.search import run_search
from prismts.benchmark.search_lost import alive, put_back
from prismts.benchmark.search_results import estimator_of, importances, pareto, read_found, write_best
from prismts.benchmark.search_results import test_best as score_the_test_part
from prismts.benchmark.search_space import (
    DEFAULT_SPACE,
    Choice,
    Place,
    Range,
    candidate,
    dimension,
    first_points,
    rule_candidate,
)
from prismts.benchmark.search_spec import Budget, SearchSpec, read_search
from prismts.benchmark.search_study import count_trials, open_study, shown
from prismts.benchmark.search_trial import Ground, Judged, ground, latency
from prismts.benchmark.search_work import Watch
from prismts.cli.app import main
from prismts.data.synthetic import labeled_motions
from prismts.errors import DataError, MissingExtraError, SettingsError
from prismts.estimators.classifier import Classifier
from prismts.estimators.forecaster import Forecaster
from prismts.models.convtimenet import ConvTimeNetConfig
from prismts.report.search import search_page
from prismts.training.fit import FitConfig
from prismts.training.watch import tell_watchers, watching

ROOT = Path(__file__).parent.parent
PLACE = Place(
    site=Site(n_timepoints=96, n_channels=2, n_outputs=24), n_values=10_000, period=24,
    base={"feed_forward": 0, "dropout": 0.3}, fit=FitConfig(learning_rate=1e-3), fixed={},
    own={"patch_length": 16, "stride": 8, "kernel_sizes": (3, 6), "width": 48, "feed_forward": 96},
)  # fmt: skip
SPACE = {
    "learning_rate": Range(low=1e-5, high=1e-1, log=True),
    "tokens": Range(low=4, high=32, log=True, whole=True),
    "patches": Choice(options=("deformable", "uniform")),
}


def plain(model):
    return {name: list(value) if isinstance(value, tuple) else value for name, value in model.items()}


class Pretended(Ground):
    """Scores by formula: best at a learning rate of 1e-3 and 16 tokens. Epochs are told as a training would."""

    epochs = 3

    def __init__(self, spec, place=PLACE):
        self.spec, self.place, self.data_hash = spec, place, "abc"
        self.judged, self.tested = [], 0

    def arguments(self, one):
        model = {k: list(v) if isinstance(v, tuple) else v for k, v in one.model.items()}
        return {"model": "convtimenet", "context_length": 96, "horizon": 24, "model_settings": model,
                "fit_settings": dict(one.fit)}  # fmt: skip

    def judge(self, one, *, run_folder=None):
        self.judged.append(run_folder)
        rate = one.fit.get("learning_rate", 1e-3)
        score = 1 + math.log10(rate / 1e-3) ** 2 + 0.1 * math.log2(one.n_tokens / 16) ** 2
        for epoch in range(1, self.epochs + 1):
            tell_watchers({"epoch": epoch, "train_loss": score, "val_loss": score + 1 / epoch, "seconds": 0.0})
        return Judged({"mse": score, "mae": score**0.5}, 100, "windows", 0.5, 3)

    def test(self, one):
        self.tested += 1
        return Judged({"mse": 9.0, "mae": 3.0}, 50, "windows", 0.5, 3)


@pytest.fixture
def pretended(monkeypatch):
    """Every search of the test trains nothing; the grounds that were opened are returned."""
    opened = []

    def open_one(spec, kind=Pretended):
        opened.append(kind(spec))
        return opened[-1]

    monkeypatch.setattr(running, "ground", open_one)
    monkeypatch.setattr(search_results, "ground", open_one)
    return opened


def specification(tmp_path=None, **changes):
    """A journal file in the place of SQLite, where many small trials are to be quick."""
    storage = None if tmp_path is None else str(tmp_path / "study.log")
    given = {"data": "ETTh2", "space": SPACE, "trials": 6, "n_random": 3, "prune": "none", "storage": storage}
    return SearchSpec(**{**given, **changes})


def values_of(study):
    kept = [one for one in study.get_trials() if not one.user_attrs.get("lost")]
    return [(one.params, one.value) for one in kept]


# ---- the file


def write(folder, text):
    file = folder / "search.yaml"
    file.write_text(text)
    return file


def test_a_file_is_read_as_it_is_written(tmp_path):
    text = """
    data: ETTh2
    horizon: 24
    trials: 4
    budget: {macs: 1e6}
    fit: {max_epochs: 2}
    model: {norm: layer}
    space:
      learning_rate: {low: 1e-4, high: 1e-2, log: true}
      stages: {low: 1, high: 4}
      kernel_sizes: [[3, 5], [7, 13, 19]]
    """.replace("      stages: {low: 1, high: 4}\n", "")
    spec = read_search(write(tmp_path, text))
    assert spec.space["learning_rate"] == Range(low=1e-4, high=1e-2, log=True)  # YAML reads 1e-4 as text
    assert spec.space["kernel_sizes"] == Choice(options=([3, 5], [7, 13, 19]))
    assert "fill" in spec.space  # what a budget brings
    assert (spec.score, spec.direction, spec.name, spec.budget.most) == ("mse", "minimize", "ETTh2-24", 1e6)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "data: ETTh2\ntrails: 3\n",
            "search.yaml, line 2: There is no entry of a search named 'trails'. Did you mean 'trials'",
        ),
        ("data: ETTh3\n", "data set named 'ETTh3'. Did you mean 'ETTh"),
        ("horizon: 3\n", "needs data: the name of a data set"),
        ("data: ETTh2\ntask: forcast\n", "task of a search named 'forcast'. Did you mean 'forecast'"),
        ("data: ETTh2\ntask: classify\n", "ETTh2 is a data set to forecast, but the task is to classify"),
        ("data: ETTh2\nscore: accuracy\n", "score for forecast named 'accuracy'"),
        ("data: ETTh2\nlabel: a\n", "label does not belong to task: forecast"),
        ("data: ETTh2\ntrials: 0\n", "trials is at least 1, but got 0"),
        ("data: ETTh2\nprune: hyperband\n", "way to prune named 'hyperband'"),
        ("data: ETTh2\nspace: {learning_rat: [1, 2]}\n", "'learning_rat'. Did you mean 'learning_rate'"),
        ("data: ETTh2\nspace: {stages: {lo: 1, high: 3}}\n", "range of stages named 'lo'. Did you mean 'low'"),
        ("data: ETTh2\nspace: {stages: {low: 3, high: 1}}\n", "runs from low to a larger high"),
        ("data: ETTh2\nspace: {stages: {low: 1.5, high: 3}}\n", "stages is a whole number"),
        ("data: ETTh2\nspace: {reach: {low: 0, high: 1, log: true}}\n", "from above 0 where log is true"),
        ("data: ETTh2\nspace: {reach: {low: 0.1}}\n", "needs the numbers low and high, but high is None"),
        ("data: ETTh2\nspace: {stages: {low: 1, high: 3, step: 0}}\n", "step of the range of stages is above 0"),
        ("data: ETTh2\nspace: {dropout: {low: 0, high: 0.5, step: -1}}\n", "step of the range of dropout is above 0"),
        ("data: ETTh2\nspace: {dropout: {low: 0, high: 0.5, step: 1}}\n", "at most its length, but got 1 from 0"),
        ("data: ETTh2\nname: 5\n", "name is text .a number in quotes., but got 5"),
        ("data: ETTh2\nstorage: 5\n", "storage is text .a number in quotes., but got 5"),
        ("data: ETTh2\ntime: date\n", "time tells how a file is read, and ETTh2 is a data set of the catalog"),
        ("data: ETTh2\nvalues: [OT]\n", "values tells how a file is read, and ETTh2 is a data set of the catalog"),
        ("data: ETTh2\nseed: 4294967296\n", "seed is a whole number from 0 to 4294967295"),
        ("data: ETTh2\nn_members: 0\n", "n_members is at least 1, but got 0"),
        ("data: ETTh2\nspace: {norm: {low: 1, high: 2}}\n", "norm is no number, so it has no range"),
        ("data: ETTh2\nspace: {dropout: 0.3}\n", "stands under model: or fit:"),
        ("data: ETTh2\nspace: {dropout: [0.3]}\n", "dropout lists 1 value"),
        (
            "data: ETTh2\nspace: {fill: {low: 0.1, high: 1}}\n",
            "fill is the share of a budget to spend, and there is no",
        ),
        ("data: ETTh2\nspace: {tokens: [8, 16], patch_length: [8, 16]}\n", "patch_length and tokens, but one follows"),
        ("data: ETTh2\nspace: {dropout: [0, 0.1]}\nmodel: {dropout: 0.2}\n", "dropout is fixed and in the space"),
        ("data: ETTh2\nspace: {tokens: [8, 16]}\nmodel: {patch_length: 8}\n", "leaves nothing to decide of it"),
        ("data: ETTh2\nspace: {stride: [8, 16]}\nmodel: {patches: points}\n", "leaves nothing to decide of it"),
        ("data: ETTh2\nspace: {tokens: {low: -3, high: 9}}\n", "tokens cannot be -3.*a whole number from 1"),
        ("data: ETTh2\nspace: {reach: {low: -1, high: 1}}\n", "reach cannot be -1.*numbers above 0"),
        ("data: ETTh2\nspace: {width: [64, wide]}\n", 'width cannot be "wide".*It is a number'),
        ("data: ETTh2\nspace: {norm: [batch, lyaer]}\n", 'norm cannot be "lyaer".*Did you mean .layer'),
        ("data: ETTh2\nspace: {dropout: {low: 0, high: 2}}\n", "dropout cannot be 2.*a share from 0 to below 1"),
        ("data: ETTh2\nspace: {patch_length: [0, 8]}\n", "patch_length cannot be 0.*at least 1"),
        ("data: ETTh2\nspace: {schedule: [constant, warm_cosin]}\n", "Did you mean 'warm_cosine'"),
        ("data: ETTh2\nbudget: {macs: 1e6}\nspace: {fill: [0.5, 2]}\n", "fill cannot be 2.*at most 1"),
        ("data: ETTh2\nmodel: {widht: 3}\n", "no setting 'widht'. Did you mean 'width'"),
        ("data: ETTh2\nfit: {epochs: 3}\n", "training setting named 'epochs'"),
        ("data: ETTh2\nbudget: {mac: 3}\n", "budget named 'mac'. Did you mean 'macs'"),
        ("data: ETTh2\nbudget: {macs: -3}\n", "A budget is one finite number above 0"),
        ("data: ETTh2\nbudget: {macs: .inf}\n", "A budget is one finite number above 0"),
        ("data: ETTh2\nsetting: defualt\n", "setting named 'defualt'. Did you mean 'default'"),
        ("- a\n", "holds names and values"),
        ("a: [\n", "is no YAML"),
    ],
)
def test_a_file_that_cannot_work_says_why(tmp_path, text, words):
    with pytest.raises(SettingsError, match=words):
        read_search(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("data: ETTh3\n", 1),
        ("data: ETTh2\n\nhorizon: 96\ntrials: 0\n", 4),
        ("data: ETTh2\ntrials: 3\nscore: accuracy\n", 3),
        ("data: ETTh2\nsetting: defualt\n", 2),
        ("data: ETTh2\nlabel: a\n", 2),
        ("data: ETTh2\nspace:\n  dropout: [0, 0.1]\n  learning_rat: [1, 2]\n", 4),
        ("data: ETTh2\nspace:\n  dropout: [0, 0.1]\n  tokens: {low: -3, high: 9}\n", 4),
        ("data: ETTh2\nbudget:\n  mac: 3\n", 2),
        ("data: ETTh2\nmodel: {dropout: 0.2}\nspace: {dropout: [0, 0.1]}\n", 3),
    ],
)
def test_the_line_of_what_cannot_work_is_told(tmp_path, text, line):
    with pytest.raises(SettingsError, match=rf"^search\.yaml, line {line}: "):
        read_search(write(tmp_path, text))


@pytest.mark.parametrize("name", ["ETTh2", "ILI", "AWR", "EP"])
def test_the_searches_of_the_benchmarks_can_be_read(name):
    spec = read_search(ROOT / "benchmarks" / "specs" / f"search_{name}.yaml")
    assert spec.data == name
    assert spec.budget is not None


def test_the_search_in_the_documentation_can_be_read(tmp_path):
    page = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
    spec = read_search(write(tmp_path, page.partition("```yaml\n")[2].partition("```")[0]))
    assert list(spec.space) == ["learning_rate", "dropout", "stages", "tokens", "width", "reach", "fill"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"There is no file .*nothing\.yaml"):
        read_search(tmp_path / "nothing.yaml")


def test_what_is_fixed_leaves_the_space_that_was_not_written():
    assert {"stages", "reach", "tokens"} <= set(SearchSpec(data="ETTh2").space)
    fixed = SearchSpec(data="ETTh2", model={"kernel_sizes": (3, 5)}, fit={"learning_rate": 1e-3})
    assert not {"stages", "reach", "learning_rate"} & set(fixed.space)
    assert "tokens" not in SearchSpec(data="ETTh2", model={"patches": "points"}).space


def test_a_value_that_only_another_choice_makes_possible_may_be_searched():
    space = {"patch_length": Choice(options=(1, 8)), "patches": Choice(options=("deformable", "uniform"))}
    assert SearchSpec(data="ETTh2", space=space).space == space
    with pytest.raises(SettingsError, match=r"patch_length cannot be 1.*needs patch_length >= 2"):
        SearchSpec(data="ETTh2", space={"patch_length": Choice(options=(1, 8))})


# ---- points of the space


def test_a_point_becomes_settings_and_what_it_leaves_out_is_the_rules():
    one = candidate({"tokens": 16, "stages": 2, "learning_rate": 0.01}, PLACE)
    assert one.fit == {"learning_rate": 0.01}
    assert (one.model["stride"], one.model["patch_length"]) == (6, 12)  # a quarter of the period of 24
    assert len(one.model["kernel_sizes"]) == 2
    assert candidate({}, PLACE).model == rule_candidate(PLACE).model


def test_under_a_budget_proportions_are_scaled_to_spend_it():
    large, small = (candidate({"stages": 3, "fill": fill}, PLACE, budget=2e5) for fill in (1.0, 0.3))
    assert small.macs <= 0.3 * 2e5 < large.macs <= 2e5
    assert candidate({}, PLACE, budget=2e6).macs > large.macs  # a larger budget is spent too


def test_a_budget_of_another_kind_is_kept_by_its_own_measure():
    asked = []

    def price(settings):
        asked.append(settings)
        return settings["width"] / 10  # "milliseconds"

    one = candidate({"width": 128}, PLACE, budget=5.0, cost=price, unit="milliseconds")
    assert one.cost == one.model["width"] / 10 <= 5.0
    assert asked


def test_the_milliseconds_of_a_window_are_measured():
    assert 0 < latency(rule_candidate(PLACE).model, PLACE.site) < 60_000


def test_a_search_begins_as_near_to_the_rule_and_to_the_recipe_as_the_space_allows():
    space = {
        **SPACE,
        "dropout": Range(low=0.0, high=0.2),
        "width": Choice(options=(16, 48, 256)),
        "stages": dimension("stages", {"low": 4, "high": 6}),
        "residual": Choice(options=(None, 0.5)),
    }
    points = {name: point for name, (point, _) in first_points(space, PLACE).items()}
    assert points["rule"] == {"learning_rate": 1e-3, "tokens": 32, "patches": '"deformable"', "dropout": 0.2,
                              "width": "48", "stages": 4, "residual": "null"}  # fmt: skip
    assert points["recipe"] == {**points["rule"], "tokens": 12, "dropout": 0.1}


def test_what_the_space_holds_begins_exactly_as_it_is_and_the_rest_as_near_as_can_be():
    space = {**DEFAULT_SPACE["forecast"], "fill": Range(low=0.1, high=1.0, log=True)}
    macs = macs_of(ConvTimeNetConfig(**PLACE.own), PLACE.site)
    point, model = first_points(space, PLACE, 2 * macs)["recipe"]
    assert model == PLACE.own and point["fill"] == pytest.approx(0.5)
    assert (point["stages"], point["width"], point["expansion"]) == (2, 48, "2")
    assert first_points(space, PLACE, macs / 2)["recipe"][1] is None  # it costs more than there is
    narrow = {**space, "width": Range(low=8, high=32, whole=True)}
    assert first_points(narrow, PLACE, 2 * macs)["recipe"][1] is None  # nobody wanted networks of this width
    rule = rule_candidate(PLACE)
    assert first_points(DEFAULT_SPACE["forecast"], PLACE)["rule"][1] == dict(rule.model)


def test_a_recipe_that_windows_have_no_room_for_is_no_beginning():
    tight = replace(PLACE, own={**PLACE.own, "patch_length": 200})
    assert list(first_points(SPACE, tight)) == ["rule"]


@pytest.mark.parametrize("name", ["ETTh2", "ILI", "AWR", "EP"])
def test_searches_of_the_benchmark_begin_with_the_very_networks_they_are_compared_with(name):
    if not os.environ.get("PRISMTS_DATA"):
        pytest.skip("needs the data")
    spec = read_search(ROOT / "benchmarks" / "specs" / f"search_{name}.yaml")
    data = ground(spec)
    points = first_points(spec.space, data.place, spec.budget.macs)
    assert points["recipe"][1] == dict(data.place.own)
    assert points["rule"][1] == dict(rule_candidate(data.place).model)


def told(watch, *losses, first=1):
    for number, loss in enumerate(losses):
        watch({"epoch": first + number, "val_loss": loss})


@pytest.mark.parametrize("broken_after", [1, 2, 3, 4, 5])
def test_a_trial_that_is_put_back_is_watched_as_if_it_had_never_been_broken_off(broken_after):
    """Two networks of three epochs: the mean of their lowest losses is 5, 3, 3, then (3 + 8) / 2, (3 + 4) / 2, 3.5."""
    import optuna

    study = optuna.create_study(pruner=optuna.pruners.NopPruner())
    losses = [(1, 5.0), (2, 3.0), (3, 4.0), (1, 8.0), (2, 4.0), (3, 6.0)]
    watch = Watch(study.ask(), specification(prune="median"))
    for epoch, loss in losses[:broken_after]:
        told(watch, loss, first=epoch)
    put_back(study, 0)
    watch = Watch(study.ask(), specification(prune="median"))
    for epoch, loss in losses[broken_after:]:
        told(watch, loss, first=epoch)
    found = study.get_trials()[1].intermediate_values
    assert found == {1: 5.0, 2: 3.0, 3: 3.0, 4: 5.5, 5: 3.5, 6: 3.5}


# ---- running


def test_every_trial_is_run_and_the_first_two_are_the_rules_and_the_recipes(tmp_path, pretended):
    told = []
    spec = specification()
    study = run_search(spec, tmp_path, tell=told.append)
    assert (tmp_path / "study.db").exists()  # SQLite is the default
    assert count_trials(study) == {"complete": 6, "pruned": 0, "failed": 0, "running": 0}
    assert [one.n_done for one in told] == [1, 2, 3, 4, 5, 6]
    found = read_found(spec, tmp_path)
    assert [trial.is_rule for trial in found.trials] == [True] + [False] * 5
    assert [trial.values["learning_rate"] for trial in found.trials[:2]] == [1e-3, 1e-3]
    assert [trial.values["tokens"] for trial in found.trials[:2]] == [32, 12]
    begun = [trial.arguments["model_settings"] for trial in found.trials[:2]]
    assert begun[0] == plain(rule_candidate(PLACE).model) and begun[1] == plain(PLACE.own)
    assert found.best.value == min(trial.value for trial in found.complete) == told[-1].best
    assert pretended[0].tested == 0


def test_a_finished_search_runs_nothing_and_more_trials_go_on(tmp_path, pretended):
    spec = specification(tmp_path)
    run_search(spec, tmp_path)
    run_search(spec, tmp_path)
    assert sum(len(one.judged) for one in pretended) == 6
    run_search(specification(tmp_path, trials=8), tmp_path)
    assert sum(len(one.judged) for one in pretended) == 8


def broken(at, error):
    class Broken(Pretended):
        def judge(self, one, *, run_folder=None):
            if len(self.judged) == at:
                self.judged.append(run_folder)
                raise error
            return super().judge(one, run_folder=run_folder)

    return Broken


def test_a_search_that_was_stopped_and_resumed_finds_what_an_unbroken_one_finds(tmp_path, pretended, monkeypatch):
    unbroken = values_of(run_search(specification(tmp_path), tmp_path))
    other = tmp_path / "other"
    other.mkdir()
    whole = running.ground
    monkeypatch.setattr(running, "ground", lambda spec: whole(spec, broken(3, KeyboardInterrupt())))
    with pytest.raises(KeyboardInterrupt):
        run_search(specification(other), other)
    monkeypatch.setattr(running, "ground", whole)
    study = run_search(specification(other), other)
    assert values_of(study) == unbroken
    assert len(study.get_trials()) == 7  # the lost one stands there, marked
    stopped, resumed = pretended[-2:]
    assert resumed.judged[0] == stopped.judged[-1]  # who was put back goes on from its checkpoint


def test_trials_never_share_a_folder_of_checkpoints_even_where_their_settings_are_equal(tmp_path, pretended):
    run_search(specification(tmp_path, space={"learning_rate": Choice(options=(1e-3, 2e-3))}), tmp_path)
    folders = [folder for one in pretended for folder in one.judged]
    assert len(folders) == len(set(folders)) == 6


def leave_a_trial_running(study, **attributes):
    """What a process that was killed leaves behind."""
    trial = study.ask()
    for name, one in SPACE.items():
        one.suggest(trial, name)
    for name, value in attributes.items():
        trial.set_user_attr(name, value)
    return trial


def test_the_trial_of_a_dead_process_is_put_back_with_its_values(tmp_path, pretended):
    import socket

    spec = specification(tmp_path, trials=2)
    study = open_study(spec, tmp_path)
    study.set_user_attr("begun", True)
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "gone.lock").write_text("1\n")  # nobody holds it
    lost = leave_a_trial_running(study, worker="gone", host=socket.gethostname())
    study = run_search(spec, tmp_path)
    assert count_trials(study) == {"complete": 2, "pruned": 0, "failed": 0, "running": 0}
    again = [one for one in study.get_trials() if one.user_attrs.get("again") == lost.number]
    assert len(again) == 1
    assert again[0].params == lost.params
    assert again[0].value is not None


def test_the_trial_of_a_living_process_is_left_alone(tmp_path, pretended):
    import socket

    spec = specification(tmp_path, trials=2)
    study = open_study(spec, tmp_path)
    with alive(tmp_path) as worker:
        leave_a_trial_running(study, worker=worker, host=socket.gethostname())
        study = run_search(spec, tmp_path)
        assert count_trials(study) == {"complete": 1, "pruned": 0, "failed": 0, "running": 1}


def test_a_silent_trial_of_another_machine_is_lost_after_an_hour(tmp_path, pretended):
    spec = specification(tmp_path, trials=3)
    study = open_study(spec, tmp_path)
    study.set_user_attr("begun", True)
    now = time.time()
    silent = leave_a_trial_running(study, worker="a", host="elsewhere", sign_of_life=now - 4000)
    lively = leave_a_trial_running(study, worker="b", host="elsewhere", sign_of_life=now - 30)
    study = run_search(spec, tmp_path)
    states = {one.number: one.state.name for one in study.get_trials()}
    assert (states[silent.number], states[lively.number]) == ("FAIL", "RUNNING")
    assert count_trials(study) == {"complete": 2, "pruned": 0, "failed": 0, "running": 1}


def test_a_trial_whose_process_dies_every_time_is_a_failure_in_the_end(tmp_path, pretended):
    spec = specification(tmp_path, trials=1)
    study = open_study(spec, tmp_path)
    study.set_user_attr("begun", True)
    trial = leave_a_trial_running(study, attempt=3)
    put_back(study, trial.number)
    assert count_trials(study)["failed"] == 1
    assert read_found(spec, tmp_path).trials[0].error.startswith("Its process died in each of 3 attempts")


def test_a_trial_that_fails_is_written_down_and_the_others_go_on(tmp_path, pretended, monkeypatch):
    whole = running.ground
    monkeypatch.setattr(running, "ground", lambda spec: whole(spec, broken(1, SettingsError("no room for a patch"))))
    told = []
    spec = specification(tmp_path, trials=3)
    run_search(spec, tmp_path, tell=told.append)
    assert [one.outcome for one in told] == ["complete", "failed", "complete"]
    assert "no room for a patch" in told[1].told
    assert read_found(spec, tmp_path).trials[1].error == told[1].told


def test_where_every_trial_fails_the_search_says_so(tmp_path, pretended, monkeypatch):
    class Hopeless(Pretended):
        def judge(self, one, *, run_folder=None):
            raise SettingsError("too short")

    whole = running.ground
    monkeypatch.setattr(running, "ground", lambda spec: whole(spec, Hopeless))
    with pytest.raises(SettingsError, match="All 2 trials failed; the last one said: SettingsError: too short"):
        run_search(specification(tmp_path, trials=2), tmp_path)


def test_trials_that_do_worse_than_the_median_are_pruned_after_the_warm_up(tmp_path, pretended):
    spec = specification(tmp_path, trials=14, n_random=14, prune="median", warmup_epochs=1)
    study = run_search(spec, tmp_path)
    pruned = [one for one in study.get_trials() if one.state.name == "PRUNED"]
    assert pruned
    assert all(len(one.intermediate_values) == 2 for one in pruned)  # one epoch to warm up, the next one judged
    best = read_found(spec, tmp_path).best
    assert all(min(one.intermediate_values.values()) > best.value for one in pruned)
    assert all(one.state.name == "COMPLETE" for one in study.get_trials()[:3])  # a median needs some


def test_a_curve_over_several_networks_is_the_mean_of_their_lowest_losses():
    class Trial:
        user_attrs: ClassVar = {}

        def __init__(self):
            self.told = []

        def report(self, value, step):
            self.told.append((step, value))

        def set_user_attr(self, name, value):
            pass

    trial = Trial()
    watch = Watch(trial, specification(data="AWR", task="classify", score="accuracy"))
    for epoch, loss in ((1, 4.0), (2, 2.0), (3, 3.0), (1, 6.0), (2, 1.0)):
        watch({"epoch": epoch, "val_loss": loss})
    assert trial.told == [(1, -4.0), (2, -2.0), (3, -2.0), (4, -4.0), (5, -1.5)]


def test_another_specification_does_not_mix_with_a_study(tmp_path, pretended):
    run_search(specification(tmp_path, trials=1), tmp_path)
    with pytest.raises(
        SettingsError, match=r"was made with seed 0, but the search now says 1\. Give it another folder"
    ):
        run_search(specification(tmp_path, trials=1, seed=1), tmp_path)


def test_a_folder_keeps_the_best_settings_of_one_search(tmp_path, pretended):
    run_search(specification(tmp_path, trials=1), tmp_path)
    with pytest.raises(SettingsError, match=r"belongs to the search 'ETTh2-96', but this one is called 'ETTh2-192'"):
        run_search(specification(tmp_path, trials=1, name="", horizon=192), tmp_path)


def test_other_data_do_not_mix_with_a_study(tmp_path, pretended):
    study = run_search(specification(tmp_path, trials=1), tmp_path)
    study.set_user_attr("data_hash", "another")
    with pytest.raises(SettingsError, match="The data changed since this search began"):
        run_search(specification(tmp_path, trials=2), tmp_path)


def test_a_search_without_optuna_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'prismts\[search\]'"):
        run_search(specification(tmp_path), tmp_path)


def test_a_storage_that_cannot_be_opened_says_so(tmp_path):
    with pytest.raises(SettingsError, match=r"storage cannot be opened.*It is a URL such as"):
        open_study(specification(storage="nowhere://x"), tmp_path)


def test_reading_a_storage_without_this_search_is_an_error(tmp_path, pretended):
    run_search(specification(tmp_path, trials=1), tmp_path)
    with pytest.raises(SettingsError, match=r"study\.log holds no search named 'other'"):
        read_found(specification(tmp_path, name="other"), tmp_path)


def test_a_file_is_known_by_its_name_wherever_it_is_called_from():
    one, other = (SearchSpec(data=f"{place}load.csv").made_with() for place in ("", "../data/"))
    assert one == other


def test_nobody_reads_the_password_of_a_database():
    assert shown("postgresql://ann:secret@host/studies") == "postgresql://host/studies"
    assert shown("sqlite:///a/study.db") == "sqlite:///a/study.db"


def test_reading_a_folder_without_a_search_is_an_error(tmp_path):
    with pytest.raises(SettingsError, match="holds no search"):
        read_found(specification(), tmp_path)


# ---- results


@pytest.fixture
def finished(tmp_path, pretended):
    spec = specification(tmp_path, trials=12, n_random=8)
    run_search(spec, tmp_path)
    return spec, tmp_path, pretended


def test_best_settings_are_a_file_that_the_estimator_takes(finished):
    spec, folder, _ = finished
    found = read_found(spec, folder)
    content = yaml.safe_load(write_best(folder / "best.yaml", found, folder=folder).read_text())
    assert content["found"]["test"] == "not read"
    assert content["found"]["validation"] == found.best.value
    forecaster = estimator_of(folder / "best.yaml", random_state=5)
    assert isinstance(forecaster, Forecaster)
    assert forecaster.random_state == 5
    assert forecaster.fit_settings == {"learning_rate": found.best.values["learning_rate"]}
    assert Forecaster(**content["arguments"]).get_params()["model_settings"] == forecaster.model_settings


def test_a_file_that_is_no_result_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("a: 1\n")
    with pytest.raises(SettingsError, match="holds no settings of a search"):
        estimator_of(tmp_path / "a.yaml")
    with pytest.raises(SettingsError, match="There is no file"):
        estimator_of(tmp_path / "b.yaml")


def test_the_test_part_is_read_once_for_the_best_and_the_result_says_so(finished):
    spec, folder, opened = finished
    first = score_the_test_part(spec, folder)
    assert score_the_test_part(spec, folder) == first
    assert sum(one.tested for one in opened) == 1
    told = yaml.safe_load(write_best(folder / "best.yaml", read_found(spec, folder), folder=folder).read_text())
    assert told["found"]["test"]["read"] == "once, after the search"
    assert told["found"]["test"]["scores"] == {"mse": 9.0, "mae": 3.0}


def test_reading_the_test_part_for_a_second_best_is_counted(finished):
    spec, folder, _ = finished
    study = open_study(spec, folder)
    best = read_found(spec, folder).best
    study.set_user_attr("tests", [{"trial": best.number + 100, "scores": {"mse": 1.0}, "n_scored": 1,
                                   "counted": "windows", "at": "2026-01-01T00:00:00"}])  # fmt: skip
    score_the_test_part(spec, folder)
    told = yaml.safe_load(write_best(folder / "best.yaml", read_found(spec, folder), folder=folder).read_text())
    assert told["found"]["test"]["read"].startswith("read 2 times in this study")


def test_the_dimension_that_decides_is_the_most_important(finished):
    spec, folder, _ = finished
    found = importances(spec, folder)
    assert next(iter(found)) == "learning_rate"
    assert sum(found.values()) == pytest.approx(1)


def test_nothing_beats_a_trial_of_the_front_in_both(finished):
    spec, folder, _ = finished
    found = read_found(spec, folder)
    front = pareto(found)
    assert found.best in front
    for trial in front:
        others = [one for one in found.complete if (one.value, one.macs) != (trial.value, trial.macs)]
        assert not any(one.value <= trial.value and one.macs <= trial.macs for one in others)


def test_the_page_shows_history_importance_slices_and_the_front(finished):
    spec, folder, _ = finished
    found = read_found(spec, folder)
    page = search_page(folder / "search.html", found, importances(spec, folder), best_yaml="a: 1")
    text = page.path.read_text(encoding="utf-8")
    for words in ("best so far", "What mattered", "What each setting did", "Score against cost", "Best settings",
                  "never reads the test part", "the rule's proposal"):  # fmt: skip
        assert words in text or words.replace("'", "&#39;") in text, words


def test_the_command_goes_on_and_writes_settings_and_page(tmp_path, pretended, monkeypatch, capsys):
    space = "{learning_rate: {low: 1e-5, high: 0.1, log: true}, tokens: [8, 16]}"
    file = write(tmp_path, f"data: ETTh2\ntrials: 4\nprune: none\nspace: {space}\n")
    for n, test in ((2, ()), (3, ("--test",))):
        monkeypatch.setattr(sys, "argv", ["prism", "search", str(file), "--trials", str(n), *test])
        with pytest.raises(SystemExit) as end:
            main()
            raise SystemExit(0)
        assert not end.value.code
    said = capsys.readouterr().err
    assert "trial 2: complete mse" in said
    assert "test, for trial" in said
    out = tmp_path / "search.search"
    assert yaml.safe_load((out / "best.yaml").read_text())["found"]["trials"] == {"complete": 3}
    assert (out / "search.html").exists()


def test_a_dry_run_tells_the_space_and_the_proposal_and_writes_nothing(tmp_path, pretended, monkeypatch, capsys):
    file = write(tmp_path, "data: ETTh2\nbudget: {macs: 2e+6}\nspace: {tokens: [8, 16]}\n")
    monkeypatch.setattr(sys, "argv", ["prism", "search", str(file), "--dry-run"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    said = capsys.readouterr().out
    assert "30 trials on ETTh2, judged by mse on validation (minimized)" in said
    assert "tokens: 8, 16" in said
    assert "budget of a window: 2e+06 multiply-accumulates" in said
    assert "Proposed: patch_length" in said
    assert list(tmp_path.iterdir()) == [file]


# ---- real data, tiny


def table(tmp_path, n=500, spoil=False):
    g, t = np.random.default_rng(0), np.arange(n)
    values = np.sin(2 * np.pi * t / 24) + 0.1 * g.normal(size=n)
    if spoil:
        values[int(n * 0.8) :] = 1e6
    frame = pd.DataFrame({"time": pd.date_range("2020-01-01", periods=n, freq="h"), "load": values})
    file = tmp_path / f"load{spoil}.csv"
    frame.to_csv(file, index=False)
    return file


REAL = {"context_length": 48, "horizon": 8, "fit": {"max_epochs": 1}, "n_random": 2,
        "space": {"learning_rate": Range(low=1e-4, high=1e-2, log=True)}}  # fmt: skip


def test_a_search_never_sees_the_test_part(tmp_path):
    scores = []
    for spoil in (False, True):
        data = ground(SearchSpec(data=str(table(tmp_path, spoil=spoil)), **REAL))
        assert np.abs(data.data.values).max() < 10
        assert data.data.lengths.tolist() == [400]
        assert data.place.period == 24
        scores.append(dict(data.judge(candidate({"stages": 1, "width": 8}, data.place)).scores))
    assert scores[0] == scores[1]


def test_the_test_score_is_that_of_a_forecaster_of_the_same_arguments(tmp_path):
    file = table(tmp_path)
    data = ground(SearchSpec(data=str(file), **REAL))
    one = candidate({"stages": 1, "width": 8}, data.place)
    judged = data.test(one)
    assert (judged.n_scored, judged.counted) == (100 - 8 + 1, "windows")
    from prismts.data.readers import read
    from prismts.data.splits import by_fraction

    series, borders = read(file), by_fraction(500)
    forecaster = Forecaster(**data.arguments(one), progress=False).fit(series, validation=borders)
    scores = forecaster.backtest(series, begin=borders.validation_end, end=500).scores
    assert judged.scores["mse"] == pytest.approx(scores["mse"], rel=1e-6)


@pytest.mark.parametrize(("entries", "words"), [("horizon: 100", "horizon=100"), ("context_length: 900", "=900")])
def test_windows_without_room_are_refused_before_any_trial(tmp_path, entries, words):
    file = table(tmp_path)
    spec = read_search(write(tmp_path, f"data: {file.name}\n{entries}\ntrials: 2\n"))
    for run in (lambda: run_search(spec, tmp_path / "out"), lambda: running.plan(spec)):
        with pytest.raises(DataError, match=f"No window fits.*{words}"):
            run()
    assert not (tmp_path / "out").exists()


def test_several_series_of_a_long_table_are_each_cut_before_their_test_part(tmp_path):
    one = pd.read_csv(table(tmp_path, n=200))
    other = one.iloc[:150].assign(load=lambda frame: 3 * frame.load)
    long = pd.concat([one.assign(place="a"), other.assign(place="b")])
    long.to_csv(tmp_path / "long.csv", index=False)
    data = ground(SearchSpec(data=str(tmp_path / "long.csv"), series="place", **REAL))
    assert data.data.lengths.tolist() == [160, 120]
    small = candidate({"stages": 1, "width": 8}, data.place)
    assert data.judge(small).n_scored == (20 - 8 + 1) + (15 - 8 + 1)  # an eighth of each is validation
    assert data.test(small).n_scored == (40 - 8 + 1) + (30 - 8 + 1)


def test_labeled_cases_of_a_table_are_read_and_their_test_cases_only_when_asked(tmp_path):
    rows = [
        {"case": f"{part}{k}", "t": t, "x": math.sin(t * (1 + k % 2)), "kind": "slow" if k % 2 else "fast"}
        for part in ("train", "test") for k in range(8) for t in range(30)
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    for part in ("train", "test"):
        frame[frame.case.str.startswith(part)].to_csv(tmp_path / f"{part}.csv", index=False)
    write(tmp_path, "data: train.csv\ntest_data: gone.csv\ntask: classify\nseries: case\nlabel: kind\n"
          "time: t\nsetting: network\nvalidation: 2\nfit: {max_epochs: 1}\n")  # fmt: skip
    data = ground(read_search(tmp_path / "search.yaml"))
    assert len(data.data) == 8
    assert data.place.site.n_outputs == 2
    with pytest.raises(DataError, match=r"gone\.csv"):
        data.test(candidate({"stages": 1, "width": 8}, data.place))


def test_cases_are_judged_while_they_are_left_out(monkeypatch):
    cases = labeled_motions()
    monkeypatch.setattr(search_trial, "load_dataset", lambda name: cases)
    spec = SearchSpec(data="BasicMotions", task="classify", setting="network", validation=2, fit={"max_epochs": 1})
    data = ground(spec)
    assert len(data.data) == len(cases.train)
    one = candidate({"stages": 1, "width": 8, "tokens": 8, "expansion": 1}, data.place)
    seen = []
    with watching(seen.append):
        judged = data.judge(one)
    assert [entry["epoch"] for entry in seen] == [1, 1]  # two folds
    assert judged.n_scored == len(cases.train)
    assert set(judged.scores) >= {"log_loss", "accuracy"}
    assert data.test(one).n_scored == len(cases.test)
    assert isinstance(Classifier(**data.arguments(one)), Classifier)


def test_a_watcher_ends_a_training_by_its_own_error():
    class Enough(Exception):
        pass

    def watch(entry):
        if entry["epoch"] == 2:
            raise Enough

    series = np.sin(np.arange(300) / 4)[None]
    forecaster = Forecaster(context_length=24, horizon=4, fit_settings={"max_epochs": 5}, progress=False,
                            model_settings={"width": 4, "kernel_sizes": (3,)})  # fmt: skip
    with pytest.raises(Enough), watching(watch):
        forecaster.fit(series)
    assert not hasattr(forecaster, "model_")


def yaml_of(tmp_path, trials):
    file = table(tmp_path)
    return write(tmp_path, f"data: {file.name}\ncontext_length: 48\nhorizon: 8\ntrials: {trials}\n"
                 "fit: {max_epochs: 2, batch_size: 32}\nprune: none\nspace: {learning_rate: [1.0e-4, 1.0e-3], "
                 "stages: {low: 1, high: 3}}\n")  # fmt: skip


def start(*arguments):
    return subprocess.Popen([sys.executable, "-m", "prismts", "search", *map(str, arguments)], stderr=subprocess.PIPE,
                            env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True)  # fmt: skip


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on_and_loses_nothing(tmp_path):
    file = yaml_of(tmp_path, 3)
    process = start(file)
    for line in process.stderr:  # after the first trial is done the second begins at once
        if "trial 0: complete" in line:
            break
    time.sleep(1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = start(file)
    assert done.wait(timeout=900) == 0, done.stderr.read()
    spec, out = read_search(file), Path(tmp_path / "search.search")
    assert read_found(spec, out).counts == {"complete": 3, "pruned": 0, "failed": 0, "running": 0}
    unbroken = tmp_path / "unbroken"
    assert start(file, "--out", unbroken).wait(timeout=900) == 0
    assert values_of(open_study(spec, out)) == values_of(open_study(spec, unbroken))


@pytest.mark.slow
def test_two_processes_share_a_study(tmp_path):
    file = yaml_of(tmp_path, 5)
    assert start(file, "--jobs", 2).wait(timeout=900) == 0
    found = read_found(read_search(file), tmp_path / "search.search")
    assert found.counts == {"complete": 5, "pruned": 0, "failed": 0, "running": 0}
    assert sum(trial.is_rule for trial in found.trials) == 1


def test_an_unknown_number_of_processes_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="jobs counts processes, at least 1, but got 0"):
        run_search(specification(tmp_path), tmp_path, jobs=0)


def test_a_budget_is_one_of_two():
    with pytest.raises(SettingsError, match="A budget is one finite number above 0"):
        Budget(macs=1e6, milliseconds=3.0)
