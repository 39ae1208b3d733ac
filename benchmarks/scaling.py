"""How time and memory grow with the size of the data: each size in a process of its own, one thread each.

python benchmarks/scaling.py run               # writes results/scaling.json, size by size; a killed run resumes
python benchmarks/scaling.py table

- channels: a pass of training (32 windows of every channel, context 336, the authors' ETTh2 sizes) as ``fit`` does it,
  with at most 64 channels in a step;
- context: a training step of 8 windows of 7 channels, patches of 32 steps, stride 16;
- tokens: the same with 4,000 steps of context cut into more and more patches;
- series: windows drawn from more and more series of 400 steps: seconds to set up, and per batch of 256 windows.

Seconds are medians of several repetitions after a first one. Memory is the peak of the process above what it held
before the first repetition, data left out.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

import prismts
from prismts.estimators.recipes import FORECAST_SETTINGS
from prismts.tasks.forecast import Forecast
from prismts.training.batches import Batches
from prismts.training.memory import keep_pages
from prismts.windows import Windows
from prismts.writing import write_whole

RESULTS = Path(__file__).parent / "results" / "scaling.json"
SIZES = {
    "channels": (7, 21, 64, 128, 321, 862),
    "context": (96, 192, 336, 720, 1440, 2880, 5000),
    "tokens": (20, 50, 100, 200, 500, 1000, 2000),
    "series": (1, 10, 100, 1_000, 10_000, 100_000),
}
HORIZON, AT_ONCE = 96, 64
MODEL = FORECAST_SETTINGS["published/ETTh2"].model


def peak() -> float:
    """MiB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def repeated(work: Callable[[], object], times: int) -> dict:
    """Median seconds after a first call, and how far the peak rose."""
    begun, seconds = peak(), []
    for _ in range(times + 1):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return {"seconds": statistics.median(seconds[1:]), "MiB": peak() - begun}


def walks(n_series: int, n_channels: int, n_timepoints: int) -> prismts.Collection:
    """Random walks."""
    rng = np.random.default_rng(0)
    steps = rng.standard_normal((n_series, n_channels, n_timepoints), dtype=np.float32)
    return prismts.Collection.of([prismts.Series(values) for values in np.cumsum(steps, axis=-1)])


def training_pass(n_channels: int, context: int, n_windows: int, **settings: int) -> Callable[[], None]:
    """One step for each group of channels of the same windows."""
    task = Forecast(horizon=HORIZON)
    windows = Windows(walks(1, n_channels, context + HORIZON + n_windows - 1), context, HORIZON)
    model = task.build("convtimenet", {**MODEL, **settings}, n_channels=n_channels, context_length=context).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def work() -> None:
        for batch in Batches(windows, n_windows, seed=0, channels_at_once=AT_ONCE):
            task.loss(model, batch).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return work


def measure(what: str, size: int) -> dict:
    """Seconds and memory of one size."""
    keep_pages()
    torch.manual_seed(0)
    if what == "channels":
        return repeated(training_pass(size, 336, 32), 3 if size < 300 else 1)
    if what == "context":
        return repeated(training_pass(7, size, 8), 5)
    if what == "tokens":
        stride = 4000 // size
        return repeated(training_pass(7, 4000, 2, patch_length=2 * stride, stride=stride), 3)
    data = walks(size, 1, 400)
    begun, began = peak(), time.perf_counter()
    windows = Windows(data, 192, 48)
    setup = time.perf_counter() - began
    order = np.random.default_rng(0).permutation(len(windows))
    places = iter(np.array_split(order[: 21 * 256], max(1, min(21, len(order) // 256))) * 21)
    found = repeated(lambda: windows.batch(next(places)), 20)
    return {**found, "MiB": peak() - begun, "set-up": setup, "windows": len(windows)}


def run() -> None:
    """Every size that is not written down yet, each in a process of its own."""
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for what, sizes in SIZES.items():
        for size in sizes:
            if str(size) in found.get(what, {}):
                continue
            command = [sys.executable, __file__, "one", "--what", what, "--size", str(size)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found.setdefault(what, {})[str(size)] = json.loads(done.stdout)
            write_whole(RESULTS, json.dumps(found, indent=1) + "\n")
            print(what, size, found[what][str(size)], flush=True)


def table() -> str:
    """Seconds and MiB for each size, and how much more than the smallest."""
    found = json.loads(RESULTS.read_text())
    lines = ["| what grows | size | seconds | MiB above the data |", "|---|---|---|---|"]
    for what, sizes in found.items():
        lines += [f"| {what} | {int(n):,} | {one['seconds']:.4f} | {one['MiB']:.0f} |" for n, one in sizes.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=("run", "table", "one"))
    parser.add_argument("--what", choices=tuple(SIZES))
    parser.add_argument("--size", type=int)
    arguments = parser.parse_args()
    if arguments.do == "one":
        print(json.dumps(measure(arguments.what, arguments.size)))
    elif arguments.do == "run":
        run()
    else:
        print(table())
