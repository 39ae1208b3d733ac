"""From a table to a fitted model: ours beside neuralforecast and darts, alternating in one process.

python benchmarks/peers.py --data ETTh2           # or Weather; needs neuralforecast and darts in the same environment

One pass over the training windows (context 336, horizon 96), on the CPU, in float32. Every side starts at a pandas
table in memory and ends at a fitted model; nothing is validated, logged or saved.

- PatchTST: ours and neuralforecast's with equal sizes (patch 16, stride 8, 3 layers, width 16, 4 heads, hidden width
  128). Ours reads windows of all channels, theirs windows of single channels, so batches are matched in channels read,
  and both make the same number of steps.
- ConvTimeNet (ours) beside TSMixer and TiDE of darts with their defaults: other models, so seconds are not a ratio of
  equal work, but what a user waits for; parameters are printed beside them.
"""

import argparse
import contextlib
import io
import json
import logging
import os
import statistics
import time
import warnings
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "2")

import numpy as np
import pandas as pd
import torch

import prismts

CONTEXT, HORIZON, BATCH = 336, 96, 64
QUIET = {"enable_progress_bar": False, "logger": False, "enable_checkpointing": False, "enable_model_summary": False,
         "accelerator": "cpu"}  # fmt: skip


def tables(name: str, n_rows: int | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The training part or its first rows, standardized, wide and long."""
    series = prismts.load_dataset(name)
    end = min(series.borders.train_end, n_rows or series.borders.train_end)
    values = series.values[:, :end].astype(np.float32)
    values = (values - np.nanmean(values, 1, keepdims=True)) / np.nanstd(values, 1, keepdims=True)
    values = np.nan_to_num(values)
    times = pd.to_datetime(series.timestamps[:end])
    wide = pd.DataFrame(values.T, columns=list(series.channels)).assign(date=times)
    long = wide.melt("date", var_name="unique_id", value_name="y").rename(columns={"date": "ds"})
    return wide, long


def n_parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def ours(wide: pd.DataFrame, model: str, settings: dict, batch: int) -> Callable[[], int]:
    def fit() -> int:
        forecaster = prismts.Forecaster(
            model, context_length=CONTEXT, horizon=HORIZON, setting="published", model_settings=settings,
            fit_settings={"max_epochs": 1, "min_steps": 0, "batch_size": batch, "learning_rate": 1e-4,
                          "accelerator": "cpu", "schedule": "constant", "drop_last": False},
            progress=False,
        ).fit(wide, validation=None)  # fmt: skip
        return sum(n_parameters(member) for member in forecaster.members_)

    return fit


def theirs_patchtst(long: pd.DataFrame, n_steps: int, n_windows: int, n_channels: int) -> Callable[[], int]:
    def fit() -> int:
        from neuralforecast import NeuralForecast
        from neuralforecast.losses.pytorch import MSE
        from neuralforecast.models import PatchTST

        model = PatchTST(
            h=HORIZON, input_size=CONTEXT, encoder_layers=3, n_heads=4, hidden_size=16, linear_hidden_size=128,
            dropout=0.3, fc_dropout=0.3, patch_len=16, stride=8, revin=True, loss=MSE(), max_steps=n_steps,
            learning_rate=1e-4, batch_size=n_channels, windows_batch_size=n_windows, scaler_type="identity",
            val_check_steps=10**6, start_padding_enabled=False, **QUIET,
        )  # fmt: skip
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            NeuralForecast([model], freq="h" if n_channels == 7 else "10min").fit(long)
        return n_parameters(model)

    return fit


def theirs_darts(wide: pd.DataFrame, kind: str) -> Callable[[], int]:
    def fit() -> int:
        from darts import TimeSeries
        from darts.models import TiDEModel, TSMixerModel

        series = TimeSeries.from_dataframe(wide, "date").astype(np.float32)
        model = {"TSMixer": TSMixerModel, "TiDE": TiDEModel}[kind](
            input_chunk_length=CONTEXT, output_chunk_length=HORIZON, n_epochs=1, batch_size=BATCH,
            optimizer_kwargs={"lr": 1e-4}, random_state=0, pl_trainer_kwargs=QUIET,
        )  # fmt: skip
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            model.fit(series, verbose=False)
        return n_parameters(model.model)

    return fit


def main() -> None:
    warnings.filterwarnings("ignore")
    for name in ("pytorch_lightning", "lightning", "lightning.pytorch", "darts", "neuralforecast"):
        logging.getLogger(name).setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="ETTh2", choices=["ETTh2", "Weather"])
    parser.add_argument("--rows", type=int, help="only the first so many rows of the training part")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="sides whose name contains this text")
    args = parser.parse_args()
    wide, long = tables(args.data, args.rows)
    n_channels = wide.shape[1] - 1
    n_steps = -(-(len(wide) - CONTEXT - HORIZON + 1) // BATCH)
    patchtst = {"patch_length": 16, "stride": 8, "width": 16, "n_heads": 4, "feed_forward": 128, "n_layers": 3}
    sides = {
        "PatchTST, ours": ours(wide, "patchtst", patchtst, BATCH),
        "PatchTST, neuralforecast": theirs_patchtst(long, n_steps, BATCH * n_channels, n_channels),
        "ConvTimeNet, ours": ours(wide, "convtimenet", {}, BATCH),
        "TSMixer, darts": theirs_darts(wide, "TSMixer"),
        "TiDE, darts": theirs_darts(wide, "TiDE"),
    }
    sides = {name: fit for name, fit in sides.items() if args.only in name}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    sizes: dict[str, int] = {}
    for i in range(args.rounds + 1):
        for name in list(sides) if i % 2 else list(sides)[::-1]:
            began = time.perf_counter()
            sizes[name] = sides[name]()
            seconds[name].append(time.perf_counter() - began)
    said = {
        "data": args.data, "windows": len(wide) - CONTEXT - HORIZON + 1, "steps": n_steps,
        "threads": torch.get_num_threads(), "load": [round(v, 2) for v in os.getloadavg()], "rounds": args.rounds,
        "sides": {
            name: {"seconds": round(statistics.median(found[1:]), 2), "range": [round(min(found[1:]), 2),
                   round(max(found[1:]), 2)], "parameters": sizes[name]}
            for name, found in seconds.items()
        },
    }  # fmt: skip
    if "PatchTST, ours" in seconds and "PatchTST, neuralforecast" in seconds:
        pairs = zip(seconds["PatchTST, neuralforecast"][1:], seconds["PatchTST, ours"][1:], strict=True)
        said["PatchTST, theirs by ours"] = round(statistics.median(t / o for t, o in pairs), 2)
    print(json.dumps(said, indent=1))


if __name__ == "__main__":
    main()
