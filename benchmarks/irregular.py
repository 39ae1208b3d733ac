"""Forecasting from rows of which some are missing: three ways to read them. One file per cell; a killed run resumes.

python benchmarks/irregular.py run             # what is missing; see --only, --seeds
python benchmarks/irregular.py table           # Markdown from the cells

Of ETTh2 and Weather, 10, 30 or 50 % of the rows are removed, all channels of a row at once: single rows at random, or
blocks of 24 rows. The universal encoder with the head of any horizon then learns from what is left and forecasts the
next 24 steps from the last 96, and reads the rows

- "real": where they were measured (``times="real"``): interpolated between observed neighbors, every token carrying how
  much of it was observed;
- "interpolated": interpolated within the window first, and taken for measured (``gaps="bridged"``). No value behind the
  window is looked at, as interpolating the whole table first would do;
- "masked": as zeros, the mean of the window, every token carrying how much of it was observed (``gaps="masked"``).

All else is equal: weights at the start, batches, and a training of ``EPOCHS`` epochs, of which validation (with its
rows removed too) chooses one. Losses count remaining rows only. Errors are squared and absolute errors over *all* steps
of the test part, those removed too, in standard units of the whole training part; the test part is read once, every
``STRIDE``-th window of it, and the table says how many. Of Weather every sixth row is read, so that steps are hours,
and the training part is the last ``WEATHER_ROWS`` of these before validation; its rows count as evenly spaced, as in
published tables (the times in the file hold a duplicate and a leap). A cell takes about 45 s of one core.
"""

import argparse
import json
import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import prismts
from prismts.data.series import Series
from prismts.data.splits import Borders, by_fraction
from prismts.estimators.forecaster import Forecaster
from prismts.writing import write_whole

CELLS = Path(__file__).parent / "results" / "irregular"
SEEDS = (0,)
WAYS = {"real": {}, "interpolated": {"gaps": "bridged"}, "masked": {"gaps": "masked"}}
KINDS, SHARES = ("rows", "blocks"), (0.1, 0.3, 0.5)
CONTEXT, HORIZON, BLOCK, EPOCHS, WEATHER_ROWS = 96, 24, 24, 2, 3000
STRIDE = {"ETTh2": 4, "Weather": 2}
MODEL = {
    "patch_lengths": (8, 16, 32), "stride": 8, "width": 32, "feed_forward": 64, "kernel_sizes": (5, 7),
}  # fmt: skip


def specification(seeds: tuple[int, ...] = SEEDS) -> list[dict]:
    """Every cell: data set, what is removed, how it is read, seed; and nothing removed, which all read alike."""
    cells = []
    for seed in seeds:
        for data in STRIDE:
            cells.append({"data": data, "kind": "none", "share": 0.0, "way": "real", "seed": seed})
            cells += [{"data": data, "kind": kind, "share": share, "way": way, "seed": seed}
                      for kind in KINDS for share in SHARES for way in WAYS]  # fmt: skip
    return cells


def name_of(cell: dict) -> str:
    """A file name that says what the cell is."""
    return f"{cell['data']}-{cell['kind']}-{cell['share']:.1f}-{cell['way']}-{cell['seed']}.json"


def read(name: str) -> tuple[Series, Borders]:
    """The complete series in steps of an hour, and its official borders; of Weather a part of the training rows."""
    series = prismts.load_dataset(name)
    borders = series.borders or by_fraction(len(series))
    if name != "Weather":
        return series.part(0, borders.test_end), borders
    train_end, validation_end, test_end = (
        end // 6 for end in (borders.train_end, borders.validation_end, borders.test_end)
    )
    cut = train_end - WEATHER_ROWS
    hours = series.timestamps[0] + np.arange(len(series) // 6) * np.timedelta64(1, "h")
    hourly = Series(series.values[:, : 6 * len(hours) : 6].copy(), series.channels, hours, "h", name)
    return hourly.part(cut, test_end), Borders(train_end - cut, validation_end - cut, test_end - cut)


def kept_rows(n: int, kind: str, share: float, seed: int) -> np.ndarray:
    """Which of n rows stay; the first and the last always do."""
    rng = np.random.default_rng((seed, int(100 * share), KINDS.index(kind) if kind in KINDS else 9))
    kept = np.ones(n, bool)
    if kind == "rows":
        kept[rng.permutation(n)[: round(share * n)]] = False
    elif kind == "blocks":
        for begin in BLOCK * rng.permutation(n // BLOCK)[: round(share * n / BLOCK)]:
            kept[begin : begin + BLOCK] = False
    kept[[0, -1]] = True
    return np.flatnonzero(kept)


def run(cell: dict, epochs: int = EPOCHS, stride: int = 0) -> None:
    """Remove, fit, score on all steps, write."""
    target = CELLS / name_of(cell)
    if target.exists():
        return
    complete, borders = read(cell["data"])
    kept = kept_rows(len(complete), cell["kind"], cell["share"], cell["seed"])
    if cell["way"] == "real":
        left = replace(complete, values=complete.values[:, kept], timestamps=complete.timestamps[kept])
    else:
        values = np.full_like(complete.values, np.nan)
        values[:, kept] = complete.values[:, kept]
        left = replace(complete, values=values)
    forecaster = Forecaster(
        "universal", context_length=CONTEXT, horizon=HORIZON, head="any_horizon", random_state=cell["seed"],
        times="real" if cell["way"] == "real" else "grid", model_settings={**MODEL, **WAYS[cell["way"]]},
        fit_settings={"max_epochs": epochs, "batch_size": 64}, progress=False,
    )  # fmt: skip
    forecaster.fit(left, validation=borders)
    stride = stride or STRIDE[cell["data"]]
    begin, end = borders.test
    told = forecaster.backtest(left, begin=begin, end=end, stride=stride, keep_forecasts=True)
    known = complete.values[:, : borders.train_end].astype(np.float64)
    scale = np.nanstd(known, 1)[:, None]
    future = told.origins[:, None] + np.arange(HORIZON)  # [W, H]
    truth = complete.values[:, future].transpose(1, 0, 2)  # [W, C, H]
    error = (told.forecasts - truth) / np.where(scale > 0, scale, 1.0)
    fitted = forecaster.fit_result_
    result = {
        **cell, "mse": float(np.nanmean(error**2)), "mae": float(np.nanmean(np.abs(error))), "n_scored": len(error),
        "stride": stride, "epochs": epochs, "best_epoch": fitted.best_epoch, "validation_loss": fitted.best_loss,
        "seconds": fitted.seconds, "n_windows": forecaster.n_windows_, "borders": str(borders),
        "context_length": CONTEXT, "horizon": HORIZON,
        "data_hash": forecaster.data_hash_, "threads": torch.get_num_threads(),
        "versions": {"prismts": prismts.__version__, "torch": torch.__version__, "python": platform.python_version()},
    }  # fmt: skip
    write_whole(target, json.dumps(result, indent=1) + "\n")
    print(target.name, round(result["mse"], 4), round(result["mae"], 4), f"{fitted.seconds:.0f} s", flush=True)


def table() -> str:
    """One row per data set and kind and share of removed rows: MSE / MAE of each way, mean and spread over seeds."""
    cells = [json.loads(file.read_text()) for file in sorted(CELLS.glob("*.json"))]
    lines = [
        "| data | removed | real times: MSE / MAE | interpolated first | masked | windows | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    groups = {(c["data"], c["kind"], c["share"]): None for c in cells}
    for data, kind, share in sorted(groups, key=lambda group: (group[0], group[1] != "none", *group[1:])):
        these = [c for c in cells if (c["data"], c["kind"], c["share"]) == (data, kind, share)]
        columns = []
        for way in WAYS:
            found = [c for c in these if c["way"] == way]
            if not found:
                columns.append("" if kind != "none" else "the same")
                continue
            mse, mae = (np.array([c[measure] for c in found]) for measure in ("mse", "mae"))
            spread = f" ± {mse.std(ddof=1):.4f}" if len(found) > 1 else ""
            columns.append(f"{mse.mean():.4f}{spread} / {mae.mean():.4f}")
        removed = "nothing" if kind == "none" else f"{share:.0%}, {'single rows' if kind == 'rows' else 'blocks'}"
        seeds = len({c["seed"] for c in these})
        lines.append(f"| {data} | {removed} | {' | '.join(columns)} | {these[0]['n_scored']} | {seeds} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--only", default="", help="run only cells whose file name contains this text")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    arguments = parser.parse_args()
    if arguments.what == "run":
        for one in specification(tuple(arguments.seeds)):
            if arguments.only in name_of(one):
                run(one)
    else:
        print(table())
