"""Two promises of the default forecaster, measured on ETTh2, 96 steps: bands cover what they say, and gaps cost little.

python benchmarks/promises.py run            # six cells of about a minute on one core; a killed run resumes
python benchmarks/promises.py table

``band``: levels .1, .5 and .9, calibrated on the validation part; the share of test values between the outer two.
``gaps``: 5 % of all values of the table removed at random, one by one, from training, validation and contexts; beside
the same forecaster on the whole table. Both are judged on all test values, the removed ones too, in units of the whole
training part. Official borders, context 512, every test window; each cell reads the test part once.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np

import prismts
from prismts.writing import write_whole

CELLS = Path(__file__).parent / "results" / "promises"
SEEDS, LEVELS, REMOVED = (0, 1, 2), (0.1, 0.5, 0.9), 0.05


def run(what: str, seed: int) -> None:
    """Fit, read the test part, write."""
    target = CELLS / f"{what}-{seed}.json"
    if target.exists():
        return
    series = prismts.load_dataset("ETTh2")
    begin, end = series.borders.test
    cell = {"what": what, "seed": seed, "version": prismts.__version__}
    removed = np.random.default_rng(seed).random(series.values.shape) < REMOVED
    gappy = dataclasses.replace(series, values=np.where(removed, np.nan, series.values))
    given = {"band": {"band": series}, "gaps": {"gaps": gappy, "whole": series}}[what]
    for name, table in given.items():
        forecaster = prismts.Forecaster(
            horizon=96, quantiles=LEVELS if what == "band" else None, random_state=seed, progress=False
        )
        forecaster.fit(table, validation=series.borders)
        found = forecaster.backtest(table, begin=begin, end=end, keep_forecasts=True)
        if what == "band":
            cell |= {measure: found.scores[measure] for measure in ("coverage", "pinball", "crps", "mse")}
        else:
            cell[name] = whole_error(series, found.forecasts, found.origins)
        cell["n_scored"] = found.scores.n_scored
    write_whole(target, json.dumps(cell, indent=1) + "\n")
    print(cell, flush=True)


def whole_error(series: prismts.Series, forecasts: np.ndarray, origins: np.ndarray) -> float:
    """Mean squared error over all values of the windows, standardized by the whole training part."""
    scale = series.values[:, : series.borders.train_end].astype(np.float64).std(axis=1)[:, None]
    truth = np.stack([series.values[:, o : o + forecasts.shape[-1]] for o in origins])
    return float((((forecasts - truth) / scale) ** 2).mean())


def table() -> str:
    """Every number with its mean and spread over seeds."""
    lines = ["| what | number | mean ± spread | seeds |", "|---|---|---|---|"]
    for what, names in (("band", ("coverage", "pinball", "crps", "mse")), ("gaps", ("gaps", "whole"))):
        cells = [json.loads(file.read_text()) for file in sorted(CELLS.glob(f"{what}-*.json"))]
        for name in names if cells else ():
            values = [cell[name] for cell in cells]
            spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
            lines.append(f"| {what} | {name} | {np.mean(values):.4f}{spread} | {len(values)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    if parser.parse_args().what == "table":
        print(table())
    else:
        for seed in SEEDS:
            for what in ("band", "gaps"):
                run(what, seed)
