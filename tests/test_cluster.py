"""Benchmarks and searches on a Ray cluster of two nodes on this machine: a worker that dies takes nothing with it."""

import os
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import ray
from ray.cluster_utils import Cluster

from prismts.benchmark import search
from prismts.benchmark.nodes import connected
from prismts.benchmark.results import read_results
from prismts.benchmark.runner import run_bench
from prismts.benchmark.search import run_search
from prismts.benchmark.search_results import read_found
from prismts.benchmark.search_spec import read_search
from prismts.benchmark.search_study import count_trials
from prismts.benchmark.spec import read_spec
from prismts.data.synthetic import simulated_plant
from prismts.errors import SettingsError


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one core each."""
    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    nodes = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    nodes.add_node(**small)
    try:
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()


@pytest.fixture(scope="module")
def connection(cluster):
    """A connection that stays, so that processes of the nodes load torch once for several tests."""
    with connected(cluster.address):
        yield cluster.address


@pytest.fixture
def folder(tmp_path):
    """A folder with a table of one's own."""
    series = simulated_plant(600)
    table = pd.DataFrame(series.values.T, columns=list(series.channels))
    table.insert(0, "date", series.timestamps)
    table.to_csv(tmp_path / "plant.csv", index=False)
    return tmp_path


def bench_of(folder, n_models):
    names = ", ".join(f"{{name: m{i}, model: ridge}}" for i in range(n_models))
    text = (
        "task: forecast\ndata: [{name: plant, file: plant.csv}]\nhorizons: [12]\ncontext_lengths: [48]\n"
        f"models: [{names}]\nkeep_predictions: true\n"
    )
    (folder / "bench.yaml").write_text(text)
    return folder / "bench.yaml"


def search_of(folder, trials=4, rates="[1.0e-4, 1.0e-3, 1.0e-2]", **entries):
    told = "".join(f"{name}: {value}\n" for name, value in {"prune": "none", **entries}.items())
    text = (
        f"data: plant.csv\nsetting: network\ncontext_length: 48\nhorizon: 8\ntrials: {trials}\n{told}"
        "fit: {max_epochs: 4, batch_size: 64}\nmodel: {width: 8, kernel_sizes: [5]}\n"
        f"space: {{learning_rate: {rates}}}\n"
    )
    (folder / "search.yaml").write_text(text)
    return folder / "search.yaml"


def kill_one_at(task, cluster):
    """Kill a process of this cluster that computes such a task; whether one was there."""
    ours = {node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()}
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    at_it = [int(pid) for pid, parent, args in (line.split(maxsplit=2) for line in listed.splitlines())
             if int(parent) in ours and f"ray::{task}" in args]  # fmt: skip
    if at_it:
        os.kill(at_it[0], signal.SIGKILL)
    return bool(at_it)


@pytest.mark.long
def test_a_benchmark_whose_worker_is_killed_loses_no_cell(cluster, folder):
    killed, heard = [], []

    def tell(event):
        heard.append(event.kind)
        if event.kind == "done" and not any(killed):
            assert len(ray.nodes()) == 2
            killed.append(kill_one_at("_compute", cluster))

    results = run_bench(read_spec(bench_of(folder, 40)), folder / "out", cluster=cluster.address, tell=tell)
    assert any(killed), "no worker was seen at work"
    assert not results.missing and not results.failed and len(results.cells) == 43
    assert heard.count("done") == 43
    kept = np.load(folder / "out" / "predictions" / "plant-m7-c48-h12-s0-honest.npz")
    assert len(kept["forecasts"]) == next(iter(results.cells.values()))["n_scored"]
    assert not (folder / "out" / "unfinished").exists()


@pytest.mark.long
def test_a_search_whose_worker_is_killed_loses_no_trial(cluster, connection, folder):
    """The killed trial is marked as lost, and its values are tried again; a rate has the score that it has here."""
    spec = read_search(search_of(folder, trials=6))
    heard, killed = [], []

    def tell(told):
        heard.append(told)
        if not any(killed):
            killed.append(kill_one_at("_judge", cluster))

    study = run_search(spec, folder / "there", cluster=connection, tell=tell)
    assert any(killed), "no worker was seen at work"
    assert count_trials(study) == {"complete": 6, "pruned": 0, "failed": 0, "running": 0}
    trials = study.get_trials()
    (lost,) = [one for one in trials if one.user_attrs.get("lost")]
    (again,) = [one for one in trials if one.user_attrs.get("again") == lost.number]
    assert again.params == lost.params and again.value is not None
    assert [one.outcome for one in heard].count("lost") == 1
    assert heard[-1].n_done == 6 and heard[-1].best == study.best_value
    assert not (folder / "there" / "workers").exists()
    here = run_search(spec, folder / "here")
    scores = {one.params["learning_rate"]: one.value for one in here.get_trials()}
    shared = [one for one in trials if one.value is not None and one.params["learning_rate"] in scores]
    assert len(shared) >= 2
    assert [one.value for one in shared] == pytest.approx(
        [scores[one.params["learning_rate"]] for one in shared], rel=1e-4
    )


@pytest.mark.long
def test_a_search_on_a_cluster_prunes_by_the_curves_that_nodes_tell(connection, folder):
    """Networks that learn nothing end early: their epochs are told while they train."""
    file = search_of(folder, trials=9, rates="{low: 1.0e-9, high: 1.0e-2, log: true}", prune="median", n_random=9)
    study = run_search(read_search(file), folder / "out", cluster=connection)
    assert count_trials(study)["failed"] == 0 and len(study.get_trials()) == 9
    whole = [one for one in study.get_trials() if one.state.name == "COMPLETE"]
    pruned = [one for one in study.get_trials() if one.state.name == "PRUNED"]
    assert all(sorted(one.intermediate_values) == [1, 2, 3, 4] for one in whole)
    assert pruned and all(len(one.intermediate_values) >= 2 for one in pruned)  # one epoch to warm up
    assert min(one.value for one in whole) < min(min(one.intermediate_values.values()) for one in pruned)


@pytest.mark.long
def test_a_search_that_is_stopped_on_a_cluster_goes_on_here(connection, folder):
    spec = read_search(search_of(folder))

    def stop(told):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_search(spec, folder / "out", cluster=connection, tell=stop)
    study = run_search(spec, folder / "out")
    assert count_trials(study) == {"complete": 4, "pruned": 0, "failed": 0, "running": 0}
    assert not [one for one in study.get_trials() if one.state.name in ("RUNNING", "WAITING")]
    assert read_found(spec, folder / "out").counts["complete"] == 4


@pytest.mark.long
def test_a_node_with_other_data_ends_a_search_in_words(connection, folder, monkeypatch):
    spec = read_search(search_of(folder))
    whole = search.ground

    def other(spec):
        data = whole(spec)
        data.data_hash = "another"
        return data

    monkeypatch.setattr(search, "ground", other)
    with pytest.raises(SettingsError, match="cannot work at this search: its data are not those that are here"):
        run_search(spec, folder / "out", cluster=connection)


def test_a_search_runs_in_processes_or_on_a_cluster(folder):
    with pytest.raises(SettingsError, match="give one of both"):
        run_search(read_search(search_of(folder)), folder / "out", jobs=2, cluster="auto")


@pytest.mark.long
@pytest.mark.parametrize("what", ["bench run", "search"])
def test_an_address_where_no_cluster_answers_is_told(folder, what):
    file = bench_of(folder, 1) if what == "bench run" else search_of(folder)
    command = [sys.executable, "-m", "prismts", *what.split(), str(file), "--out", str(folder / "o")]
    done = subprocess.run([*command, "--cluster", "localhost:1"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "No Ray cluster answers at 'localhost:1'" in done.stderr
    if what == "bench run":
        assert read_results(folder / "o").missing
