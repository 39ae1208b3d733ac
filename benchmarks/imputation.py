"""The imputation table: windows of 96 steps, hidden points told from the rest, one file per cell; a killed run resumes.

python benchmarks/imputation.py run            # what is missing; see --only
python benchmarks/imputation.py table          # Markdown from the cells

The protocol of the Time-Series-Library: official borders, every test window at stride 1, single points hidden at
random, errors on the hidden points in standard units (its published runs drop the last, partial batch; here every
window counts). One network per seed is fitted once, on a mixture of single points, spans, stretches and whole channels,
and judged on every kind; published runs train one network per share. An epoch reads every k-th training window, so that
it has 10 000 at most; of the test windows of Weather every 4th is read, and the table says how many.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch

import prismts
from prismts.data.splits import by_fraction
from prismts.estimators.imputer import Imputer
from prismts.writing import write_whole

CELLS = Path(__file__).parent / "results" / "imputation"
SEEDS = (0, 1, 2)
HIDDEN = (
    ("points", 0.125), ("points", 0.25), ("points", 0.375), ("points", 0.5),
    ("blocks", 0.25), ("stretches", 0.125), ("channels", 0.25),
)  # fmt: skip
TEST_STRIDE = {"ETTh1": 1, "Weather": 4}


def specification() -> list[dict]:
    """Every cell: data set, seed. Floors stand beside ours in each of them."""
    return [{"data": name, "context_length": 96, "setting": "default", "seed": seed}
            for seed in SEEDS for name in TEST_STRIDE]  # fmt: skip


def name_of(cell: dict) -> str:
    """A file name that says what the cell is."""
    return f"{cell['data']}-{cell['context_length']}-{cell['setting']}-{cell['seed']}.json"


def run(cell: dict) -> None:
    """Fit, score on every kind and share, write."""
    target = CELLS / name_of(cell)
    if target.exists():
        return
    series = prismts.load_dataset(cell["data"])
    borders = series.borders or by_fraction(len(series))
    imputer = Imputer(
        context_length=cell["context_length"], setting=cell["setting"], random_state=cell["seed"], progress=False
    )
    began = time.perf_counter()
    imputer.fit(series, validation=borders)
    seconds = time.perf_counter() - began
    begin, end = borders.test
    scores = {}
    for kind, share in HIDDEN:
        found = imputer.evaluate_windows(
            series, share, kind, begin=begin, end=end, stride=TEST_STRIDE[cell["data"]], seed=cell["seed"]
        )
        scores[f"{kind} {share:.1%}"] = found.as_dict()
    fitted = imputer.fit_result_
    result = {
        **cell, "scores": scores, "fit_seconds": seconds, "best_epoch": fitted.best_epoch,
        "validation_loss": fitted.best_loss, "history": fitted.history, "n_windows": imputer.n_windows_,
        "borders": str(borders), "data_hash": imputer.data_hash_, "test_stride": TEST_STRIDE[cell["data"]],
        "n_parameters": sum(p.numel() for p in imputer.model_.parameters()),
        "versions": {"prismts": prismts.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    write_whole(target, json.dumps(result, indent=1) + "\n")
    told = {name: (round(s["measures"]["mse"], 4), round(s["measures"]["mse_line"], 4)) for name, s in scores.items()}
    print(target.name, told, f"{seconds:.0f} s", flush=True)


def table() -> str:
    """One row per data set and kind of gap: MSE / MAE on hidden points in standard units, mean and spread over seeds.

    The masks differ between seeds too, so the floors have a mean as well.
    """
    groups: dict[str, list[dict]] = {}
    for file in sorted(CELLS.glob("*.json")):
        cell = json.loads(file.read_text())
        groups.setdefault(cell["data"], []).append(cell)
    lines = [
        "| data | hidden | seeds | ours: MSE / MAE | linear interpolation | last value | hidden points |",
        "|---|---|---|---|---|---|---|",
    ]
    for data, cells in sorted(groups.items()):
        for hidden in cells[0]["scores"]:
            columns = []
            for answer in ("", "_line", "_last"):
                found = {
                    m: np.array([c["scores"][hidden]["measures"][m + answer] for c in cells]) for m in ("mse", "mae")
                }
                spread = f" ± {found['mse'].std(ddof=1):.4f}" if len(cells) > 1 and not answer else ""
                columns.append(f"{found['mse'].mean():.4f}{spread} / {found['mae'].mean():.4f}")
            n = cells[0]["scores"][hidden]["n_scored"]
            lines.append(f"| {data} | {hidden} | {len(cells)} | {' | '.join(columns)} | {n} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--only", default="", help="run only cells whose file name contains this text")
    arguments = parser.parse_args()
    if arguments.what == "run":
        for one in specification():
            if arguments.only in name_of(one):
                run(one)
    else:
        print(table())
