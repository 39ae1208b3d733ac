"""Whether the fast paths move accuracy: the authors' network on ETTh2, horizon 96, trained with them and without them.

python benchmarks/paths.py run --side fast        # three seeds; each side may have a core of its own
python benchmarks/paths.py run --side plain
python benchmarks/paths.py table

Plain is every layer written out: torch's own depthwise convolution, dropout and residual sums. Both sides train by the
authors' recipe from the same weights on the same batches, cut to four epochs; only the draws of dropout differ. Judged
on the validation part (all 2785 windows), best epoch: the test part is not read. One file
per cell; a killed run resumes.
"""

import argparse
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import prismts
from prismts.layers import convolve
from prismts.layers.paths import written_out
from prismts.writing import write_whole

CELLS = Path(__file__).parent / "results" / "paths"
SIDES, SEEDS, EPOCHS = ("fast", "plain"), (0, 1, 2), 4


@contextlib.contextmanager
def path(side: str) -> Iterator[None]:
    """The layers as they are, or written out."""
    if side == "fast":
        yield
        return
    convolve.MAX_TOEPLITZ_TOKENS = 0
    with written_out():
        yield


def run(side: str) -> None:
    """Fit each seed that is missing, and write its validation errors."""
    series = prismts.load_dataset("ETTh2")
    for seed in SEEDS:
        target = CELLS / f"{side}-{seed}.json"
        if target.exists():
            continue
        forecaster = prismts.Forecaster(
            setting="published/ETTh2", context_length=336, horizon=96, random_state=seed,
            fit_settings={"max_epochs": EPOCHS},
            run_folder=CELLS.parents[2] / "runs" / "paths" / f"{side}-{seed}",
        )  # fmt: skip
        began = time.process_time()
        with path(side):
            fitted = forecaster.fit(series, validation=series.borders).fit_result_
        cell = {"side": side, "seed": seed, "validation": fitted.best_loss, "best_epoch": fitted.best_epoch,
                "cpu_seconds": time.process_time() - began, "history": fitted.history}  # fmt: skip
        write_whole(target, json.dumps(cell, indent=1) + "\n")
        print(target.name, round(fitted.best_loss, 5), fitted.best_epoch, flush=True)


def table() -> str:
    """Validation error of each side, mean and spread over seeds, and seconds of processor time for an epoch."""
    lines = ["| path | seeds | validation MSE | CPU seconds an epoch |", "|---|---|---|---|"]
    for side in SIDES:
        cells = [json.loads(file.read_text()) for file in sorted(CELLS.glob(f"{side}-*.json"))]
        losses = [cell["validation"] for cell in cells]
        cost = np.median([cell["cpu_seconds"] / len(cell["history"]) for cell in cells])
        lines.append(f"| {side} | {len(cells)} | {np.mean(losses):.4f} ± {np.std(losses, ddof=1):.4f} | {cost:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--side", choices=SIDES)
    arguments = parser.parse_args()
    if arguments.what == "table":
        print(table())
    else:
        for one in SIDES if arguments.side is None else (arguments.side,):
            run(one)
