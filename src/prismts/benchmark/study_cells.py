"""One cell of a study: train once, score every test window, and look at why.

The protocol is the honest one: the scaler and the weights see the training part, validation chooses the epoch, and all
test windows (stride 1) are scored once. Windows to learn from may be strided, test windows never are. There is no line
beside the networks: what is scored is the pure model.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prismts import __version__
from prismts.analysis.coupling import lead, rank_correlation, response_at_peaks, step_changes, time_of_day_dependence
from prismts.analysis.gradients import gradient_norms
from prismts.analysis.macs import count
from prismts.benchmark.study_spec import Cell
from prismts.data.calendar import season_length
from prismts.data.scaling import StandardScaler
from prismts.data.series import Collection, Series
from prismts.data.splits import by_fraction
from prismts.evaluation.protocols import data_hash
from prismts.models import MODELS
from prismts.models.cross_learner import CrossLearner
from prismts.tasks.forecast import Forecast
from prismts.training.fit import FitConfig, fit
from prismts.windows import Windows

__all__ = ["PATHS", "run_cell"]

PATHS = {"cnn": "blocks.*.cnn.*", "gru": "blocks.*.gru.*"}  # parameters of the two paths
BATCH = 256  # windows scored at once; no score depends on it
N_GRADIENT = 128  # training windows, evenly spread, on which gradients are measured
N_SHUFFLES = 5  # of the times, to see what distance correlation chance gives
N_BINS = 24  # parts of the day


def run_cell(cell: Cell, series: Series, made_with: Mapping[str, Any]) -> dict[str, Any]:
    """Run a cell and return all there is to tell of it, as plain values for a file."""
    began = time.perf_counter()
    data = Collection.of(series)
    borders = series.borders or by_fraction(len(series))
    ends = np.array([borders.train_end])
    scaler = StandardScaler.fit(data, ends)
    context, stride = int(made_with["context_length"]), int(made_with["stride"])

    def windows(part: tuple[int, int], stride: int) -> Windows:
        return Windows(data, context, cell.horizon, scaler=scaler, begin=part[0], end=part[1], stride=stride)

    train, check = windows(borders.train, stride), windows(borders.validation, stride)
    test = windows(borders.test, 1)
    architecture = MODELS[made_with["model"]]
    settings = dict(made_with["settings"])
    if made_with["model"] == "seasonal_naive":
        settings.setdefault("season", season_length(series.frequency))
    task = Forecast(cell.horizon, line=None)
    with torch.random.fork_rng():
        torch.manual_seed(cell.seed)
        model = task.build(made_with["model"], settings, n_channels=data.n_channels, context_length=context)
    task.prepare(model, train, check)
    shape = torch.zeros(1, data.n_channels, context)
    result: dict[str, Any] = {
        "data": cell.data, "horizon": cell.horizon, "arrangement": cell.arrangement, "seed": cell.seed,
        "made_with": dict(made_with), "data_hash": data_hash(series),
        "n_windows": {"train": len(train), "validation": len(check), "test": len(test)},
        "n_parameters": sum(p.numel() for p in model.parameters()), "n_macs": count(model, shape).total,
    }  # fmt: skip
    crosses = isinstance(model, CrossLearner)
    if crosses:
        result["gradients"] = {"start": _gradients(model, task, train)}
    if architecture.is_trained:
        config = FitConfig().changed(made_with["fit"])
        fitted = fit(model, task, train, check, config=config, seed=cell.seed, progress=False)
        result |= {"best_epoch": fitted.best_epoch, "validation_mse": fitted.best_loss,
                   "history": [dict(entry) for entry in fitted.history], "fit_seconds": fitted.seconds}  # fmt: skip
    model.eval()
    if (accelerator := torch.accelerator.current_accelerator(check_available=True)) is not None:
        model.to(accelerator)
    result["test"] = _scores(model, test)
    if crosses:
        result["gradients"]["end"] = _gradients(model, task, train)
        result["diagnostics"] = _diagnostics(model, test, series, int(made_with["n_trace"]))
    result |= {
        "seconds": time.perf_counter() - began, "threads": torch.get_num_threads(),
        "device": _device(model).type,
        "versions": {"prismts": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }  # fmt: skip
    return result


@torch.no_grad()
def _scores(model: nn.Module, windows: Windows) -> dict[str, Any]:
    """Errors over all windows on standardized values; sums are kept in float64, so no batch size shows."""
    squared = absolute = 0.0
    n = 0
    device = _device(model)
    for batch in windows.in_order(BATCH):
        seen = None if batch.context_observed is None else batch.context_observed.to(device)
        error = model(batch.context.to(device), seen).cpu().double() - batch.target
        if batch.target_observed is not None:
            error = error[batch.target_observed]
        squared += float(error.square().sum())
        absolute += float(error.abs().sum())
        n += error.numel()
    mse = squared / n
    return {"mse": mse, "rmse": mse**0.5, "mae": absolute / n, "n_windows": len(windows), "n_values": n}


def _gradients(model: nn.Module, task: Forecast, train: Windows) -> dict[str, list[dict[str, Any]]]:
    """Gradient of the training loss by path and layer, on training windows spread over the part, without dropout."""
    device = _device(model)
    batch = train.batch(_spread(len(train), N_GRADIENT))
    batch = batch._replace(**{name: value.to(device) for name, value in batch._asdict().items() if value is not None})
    was = model.training
    model.eval()
    with torch.backends.cudnn.flags(enabled=False):  # cuDNN gives no gradient of a GRU in evaluation mode
        rows = gradient_norms(model, lambda: task.loss(model, batch), paths=PATHS)
    model.train(was)
    found: dict[str, list[dict[str, Any]]] = {path: [] for path in PATHS}
    for row in rows:
        if row.path in found:
            found[row.path].append({"layer": row.layer, "norm": row.norm, "rms": row.rms})
    return found


@torch.no_grad()
def _diagnostics(model: CrossLearner, test: Windows, series: Series, n_trace: int) -> dict[str, Any]:
    """How the two paths of the trained model move, together and with the time of day, on windows spread over the test.

    Kernels are those of all blocks side by side; changes are those of the last block. A window's time is that of the
    last step of its context.
    """
    index = _spread(len(test), n_trace)
    device = _device(model)
    traces = []
    for part in np.array_split(index, max(1, len(index) // BATCH)):
        batch = test.batch(part)
        seen = None if batch.context_observed is None else batch.context_observed.to(device)
        traces.append(model.trace(batch.context.to(device), seen))

    def joined(block: int, name: str) -> NDArray[np.float64] | None:
        parts: list[Tensor | None] = [getattr(trace[block], name) for trace in traces]
        if any(part is None for part in parts):
            return None
        return torch.cat([part for part in parts if part is not None]).cpu().double().numpy()

    last = model.config.n_blocks - 1
    cnn, gru = joined(last, "cnn"), joined(last, "gru")
    assert cnn is not None and gru is not None
    cnn, gru = step_changes(cnn), step_changes(gru)
    found: dict[str, Any] = {
        "n": len(index), "token_length": model.config.token_length,
        "rank_correlation": rank_correlation(cnn, gru), "lead": lead(cnn, gru),
        "peak": response_at_peaks(cnn, gru), "peak_relative": response_at_peaks(cnn, gru, relative=True),
    }  # fmt: skip
    if series.timestamps is None:
        return found
    times = series.timestamps[test.locate(index)[1] - 1]
    measured: dict[str, NDArray[np.float64]] = {"cnn_change": cnn, "gru_change": gru}
    over_day: dict[str, Any] = {}
    for name in ("kernels_to_cnn", "kernels_to_gru"):
        blocks = [kernels for block in range(last + 1) if (kernels := joined(block, name)) is not None]
        if not blocks:
            continue
        # a kernel per token: their mean over the tokens
        blocks = [kernels.mean(axis=2) if kernels.ndim == 4 else kernels for kernels in blocks]
        measured[name] = np.concatenate([kernels.reshape(len(index), -1) for kernels in blocks], axis=1)
        over_day[name] = _over_day(blocks[-1].mean(axis=1), times)
    found["dcor"] = {name: time_of_day_dependence(x, times) for name, x in measured.items()}
    found["dcor_by_chance"] = {name: _by_chance(x, times) for name, x in measured.items()}
    found["over_day"] = over_day
    return found


def _by_chance(x: NDArray[np.float64], times: NDArray[np.datetime64]) -> float:
    """The distance correlation with the times shuffled: what this measure, biased upward, gives where nothing is."""
    rng = np.random.default_rng(0)
    return float(np.mean([time_of_day_dependence(x, rng.permutation(times)) for _ in range(N_SHUFFLES)]))


def _over_day(taps: NDArray[np.float64], times: NDArray[np.datetime64]) -> dict[str, Any]:
    """Mean and deviation of taps [n, k] in each part of the day [bins, k]; None where no window falls."""
    since = (times - times.astype("datetime64[D]")).astype("timedelta64[s]").astype(np.int64)
    part = since * N_BINS // 86_400
    mean: list[list[float] | None] = []
    deviation: list[list[float] | None] = []
    for number in range(N_BINS):
        here = taps[part == number]
        mean.append([round(float(v), 6) for v in here.mean(axis=0)] if len(here) else None)
        deviation.append([round(float(v), 6) for v in here.std(axis=0)] if len(here) else None)
    return {"mean": mean, "deviation": deviation}


def _spread(n: int, most: int) -> NDArray[np.int64]:
    """At most ``most`` of n numbers, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))


def _device(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
