"""Benchmarks in several processes: what dies takes nothing with it. Slow: each process loads torch."""

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from prismts.benchmark.locks import holding
from prismts.benchmark.results import read_results
from prismts.benchmark.runner import run_bench
from prismts.benchmark.spec import read_spec
from prismts.data.synthetic import simulated_plant

pytestmark = pytest.mark.slow


@pytest.fixture
def spec(tmp_path):
    """Floors on a table of one's own; four cells, each a fraction of a second."""
    series = simulated_plant(600)
    table = pd.DataFrame(series.values.T, columns=list(series.channels))
    table.insert(0, "date", series.timestamps)
    table.to_csv(tmp_path / "plant.csv", index=False)
    text = (
        "task: forecast\ndata: [{name: plant, file: plant.csv}]\nhorizons: [12]\ncontext_lengths: [48]\n"
        "models: [ridge, {name: other, model: ridge}]\nkeep_predictions: true\n"
    )
    (tmp_path / "spec.yaml").write_text(text)
    return tmp_path / "spec.yaml"


def test_processes_find_what_one_process_finds(spec, tmp_path):
    alone = run_bench(read_spec(spec), tmp_path / "alone", jobs=0)
    together = run_bench(read_spec(spec), tmp_path / "together", jobs=2)
    assert not together.missing and len(together.cells) == 4
    for cell, content in alone.cells.items():
        assert together.cells[cell]["measures"] == pytest.approx(content["measures"], rel=1e-6)
        assert together.cells[cell]["threads"] == 1


def test_a_killed_process_loses_nothing_and_one_that_always_dies_is_recorded(spec, tmp_path):
    """The first cell's process is killed once, the second's twice; everything else is done."""
    kills = {"plant-ridge-c48-h12-s0-honest": 1, "plant-other-c48-h12-s0-honest": 2}
    heard = []

    def tell(event):
        heard.append((event.kind, event.cells[0].name, event.told))
        name = event.cells[0].name
        if event.kind == "started" and kills.get(name, 0):
            kills[name] -= 1
            os.kill(event.process, signal.SIGKILL)

    results = run_bench(read_spec(spec), tmp_path / "out", jobs=1, tell=tell)
    assert {cell.model for cell in results.cells} == {"ridge", "last_value", "seasonal_naive"}
    assert [cell.model for cell in results.failed] == ["other"]
    assert "signal 9 (SIGKILL), 2 times" in next(iter(results.failed.values()))
    assert len([one for one in heard if one[0] == "lost"]) == 2
    results = run_bench(read_spec(spec), tmp_path / "out", jobs=1)  # nobody kills it now
    assert not results.failed and not results.missing


def start(spec, folder):
    """The command in a process of its own."""
    hears = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # a background job ignores Ctrl-C
    code = f"{hears}; import sys; from prismts.cli import main; sys.argv[0] = 'prism'; main()"
    return subprocess.Popen([sys.executable, "-c", code, "bench", "run", str(spec), "--out", str(folder)],
                            stderr=subprocess.PIPE, text=True, start_new_session=True)  # fmt: skip


def until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def long(spec):
    """The same with many more cells, so that there is something to break."""
    names = ", ".join(f"{{name: m{i}, model: ridge}}" for i in range(40))
    spec.write_text(spec.read_text().replace("{name: other, model: ridge}", names))
    return spec


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_killed_or_stopped_leaves_whole_cells_and_goes_on(spec, tmp_path, how):
    process = start(long(spec), tmp_path / "out")
    until(lambda: len(list((tmp_path / "out").glob("cells/*.json"))) >= 3)
    process.send_signal(how)
    process.wait(60)
    assert process.returncode in (-signal.SIGKILL, 130)
    time.sleep(1.0)  # processes that lost their parent end themselves
    files = sorted((tmp_path / "out" / "cells").glob("*.json"))
    assert all(json.loads(file.read_text())["measures"]["mse"] > 0 for file in files)
    assert len(files) < 43
    time.sleep(1.0)
    assert sorted((tmp_path / "out" / "cells").glob("*.json")) == files  # nobody is still at it
    results = run_bench(read_spec(spec), tmp_path / "out", jobs=0)
    assert not results.missing and len(results.cells) == 43


def test_two_runs_at_once_share_the_cells_of_one_folder(spec, tmp_path):
    """Each cell is computed once, by either; what the first leaves to the second is done when both have ended."""
    runs = [start(long(spec), tmp_path / "out"), start(spec, tmp_path / "out")]
    told = [process.communicate(timeout=200)[1] for process in runs]
    assert all(process.returncode in (0, 1) for process in runs)
    results = read_results(tmp_path / "out")
    assert len(results.cells) == 43 and not results.failed and not list((tmp_path / "out").glob("cells/*.failed.json"))
    assert sum(one.count("done: plant") for one in told) == 43
    assert len(pd.read_parquet(tmp_path / "out" / "results.parquet")) == 43
    assert not (tmp_path / "out" / "unfinished").exists()


def test_the_command_tells_who_is_at_what_it_has_left(spec, tmp_path):
    name = "plant-ridge-c48-h12-s0-honest"
    with holding(tmp_path / "out" / "unfinished" / f"{name}.lock"):
        process = start(spec, tmp_path / "out")
        told = process.communicate(timeout=120)[1]
    assert process.returncode == 1 and f"left to another run: {name}: process {os.getpid()} on" in told
    assert "1 cells are left to another run into" in told and "the same command runs what it has not done" in told
    assert len(read_results(tmp_path / "out").cells) == 3
