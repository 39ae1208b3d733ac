"""Run cells: fit once, score by each protocol, and write down everything there is to tell.

:func:`prismts.evaluation.protocols.evaluate` is the only way a score comes about here. Cells that differ only in a
protocol that does not touch training (forecasting) share one training.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from prismts.analysis.macs import count
from prismts.benchmark.build import build, labels_of
from prismts.benchmark.data import load_data
from prismts.benchmark.predictions import CasePredictions, Forecasts, Kept, StepScores
from prismts.benchmark.spec import BenchSpec, Cell
from prismts.data.resample import resampled
from prismts.data.scaling import StandardScaler
from prismts.data.series import Collection, Series
from prismts.data.splits import Borders, by_fraction
from prismts.errors import DataError
from prismts.estimators.base import on_device
from prismts.evaluation.detection_vus import vus_buffer
from prismts.evaluation.protocols import data_hash, evaluate, score
from prismts.evaluation.scores import Scores
from prismts.models.failure import signs_of_failure

__all__ = ["FORMAT", "Load", "Record", "run_cells", "versions"]

FORMAT = 1  # of the files of cells
Load = Callable[[str], "Series | Collection"]
Array = NDArray[Any]


@dataclass(frozen=True)
class Record:
    """What a cell found: plain values for its file, and what it predicted if that is kept."""

    cell: Cell
    content: Mapping[str, Any]
    kept: Kept | None = None


def run_cells(
    spec: BenchSpec, cells: Sequence[Cell], *, load: Load | None = None, run_folder: Path | None = None
) -> list[Record]:
    """Fit once and score by the protocol of each cell; all cells must be of one training.

    ``load`` replaces the catalog and the files of the specification; ``run_folder`` keeps checkpoints of a training
    that is broken off.
    """
    first = cells[0]
    assert all(cell.training == first.training for cell in cells)
    data = load_data(spec, first.data) if load is None else load(first.data)
    part, borders = _part(data, first, spec)
    began, cpu = time.perf_counter(), time.process_time()
    seen = _Seen(spec.keep_predictions)
    watched = _Watched(build(spec, first, run_folder), seen)
    scores = evaluate(watched, part, protocol=first.protocol, seed=first.seed, borders=borders)
    assert seen.fitted is not None
    spent = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
    spent["score_seconds"] = spent["seconds"] - seen.fit_took
    shares = spec.entry(first.model).train_shares or spec.train_shares
    shared = min(shares) < 1
    common = {
        "format": FORMAT, "task": spec.task, "data_hash": data_hash(data), "n_channels": data.n_channels,
        "n_timepoints": int(np.max(data.lengths)) if isinstance(data, Collection) else len(data),
        "settings": _settings(seen.fitted), "chosen": _chosen(seen.fitted),
        "validation": _validated(seen.fitted, part, borders), **_size(seen.fitted),
        "signs_of_failure": signs_of_failure(*_members(seen.fitted)),
        "n_learned": _learned(seen.fitted), "resumed": _resumed(seen.fitted), **_circumstances(),
    }  # fmt: skip
    records: list[Record] = []
    for cell in cells:
        if cell is not first:
            began, cpu = time.perf_counter(), time.process_time()
            scores = _score_again(seen, part, borders, cell.protocol)
            spent = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
            spent["score_seconds"] = spent["seconds"]
        content = {
            "cell": cell.name, **dataclasses.asdict(cell), "made_with": spec.made_with(cell),
            "measures": _measured(scores, part, data if shared else None),
            "n_scored": scores.n_scored, "counted": scores.counted,
            "per_step": {name: array.tolist() for name, array in scores.per_step.items()},
            "per_channel": {name: array.tolist() for name, array in scores.per_channel.items()},
            "channels": list(scores.channels), **common, **spent, "trained_with": first.name,
            "predictions": f"predictions/{cell.name}.npz" if spec.keep_predictions else None,
            "finished": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        }  # fmt: skip
        records.append(Record(cell, content, _kept(seen, part, borders) if spec.keep_predictions else None))
    return records


def versions() -> dict[str, str]:
    """Packages that decide numbers, and which state of our own files made them (no version control is needed)."""
    found = {"python": platform.python_version(), "prismts_files": _files_hash()}
    for name in ("prismts", "torch", "numpy", "scipy", "scikit-learn", "lightning", "aeon", "numba"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@functools.cache
def _files_hash() -> str:
    """Twelve hexadecimal digits of the package's own source files."""
    digest = hashlib.sha256()
    root = Path(str(resources.files("prismts")))
    for file in sorted(root.rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


# ---- watching an evaluation


@dataclass
class _Seen:
    """The fitted copy that an evaluation made, and what it said."""

    keep: bool
    fitted: Any = None
    fit_took: float = 0.0  # seconds
    backtest: Any = None
    probabilities: Array | None = None
    labels: Array | None = None
    step_scores: Array | None = None


class _Watched:
    """An estimator whose copy can be looked at after it was evaluated; it does what the estimator does, and no more."""

    def __init__(self, estimator: Any, seen: _Seen) -> None:
        self.estimator, self.seen = estimator, seen

    def get_params(self, deep: bool = False) -> dict[str, Any]:
        """What a copy is made from: the same estimator unfitted, watched by the same eyes."""
        fresh = self.estimator.__class__(**self.estimator.get_params(deep=False))
        return {"estimator": fresh, "seen": self.seen}

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.estimator, name)
        watch = _WATCHES.get(name)
        return method if watch is None else functools.partial(watch, self.seen, self.estimator)


def _fit(seen: _Seen, estimator: Any, *data: Any, **named: Any) -> Any:
    began = time.perf_counter()
    seen.fitted = estimator.fit(*data, **named)
    seen.fit_took += time.perf_counter() - began
    return seen.fitted


def _backtest(seen: _Seen, estimator: Any, data: Any, **part: Any) -> Any:
    seen.backtest = estimator.backtest(data, **part, keep_forecasts=seen.keep)
    return seen.backtest


def _judge(seen: _Seen, estimator: Any, cases: Collection) -> Any:
    if seen.keep:
        seen.probabilities, seen.labels = estimator.predict_proba(cases), cases.labels
    return estimator.evaluate(cases)


def _score_steps(seen: _Seen, estimator: Any, data: Any) -> Any:
    seen.step_scores = estimator.score_samples(data)
    return seen.step_scores


_WATCHES: dict[str, Callable[..., Any]] = {
    "fit": _fit, "backtest": _backtest, "evaluate": _judge, "score_samples": _score_steps,
}  # fmt: skip


def _part(data: Series | Collection, cell: Cell, spec: BenchSpec) -> tuple[Series | Collection, Borders | None]:
    """The data of a cell and where they are cut: another draw of cases, or less to learn from; test stays whole."""
    if spec.task == "classify":
        if not isinstance(data, Collection):
            raise DataError(f"{cell.data} is a series, not labeled cases; a classifier cannot be scored on it.")
        drawn = resampled(data, cell.resample)
        return (drawn if cell.train_share == 1 else _fewer_cases(drawn, cell)), None
    if not isinstance(data, Series):
        raise DataError(f"{cell.data} is a collection of cases, not a series with a test part in time.")
    borders = data.borders or by_fraction(len(data))
    skipped = round((1 - cell.train_share) * borders.train_end)
    if not skipped:
        return data, borders
    if skipped >= borders.train_end:
        raise DataError(
            f"A share of {cell.train_share:g} of the {borders.train_end} training steps of {data.name!r} leaves none. "
            "Give a larger one."
        )
    borders = Borders(*(border - skipped for border in dataclasses.astuple(borders)))
    return replace(data.part(skipped, len(data)), borders=borders), borders


def _fewer_cases(data: Collection, cell: Cell) -> Collection:
    """The same share of the training cases of every class, at least one; drawn by the number of the resample."""
    labels, generator = labels_of(data)[: data.n_train], np.random.default_rng([cell.resample, 2026])
    kept: list[int] = []
    for value in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == value))
        kept += members[: max(1, round(cell.train_share * len(members)))].tolist()
    cases = [data[i] for i in [*sorted(kept), *range(len(labels), len(data))]]
    chosen = np.array([*sorted(kept), *range(len(labels), len(data))])
    return replace(Collection.of(cases, labels=labels_of(data)[chosen], name=data.name), n_train=len(kept))


def _score_again(seen: _Seen, part: Series | Collection, borders: Borders | None, protocol: str) -> Scores:
    """The fitted forecaster under another protocol."""
    assert isinstance(part, Series) and borders is not None
    watched: Any = _Watched(seen.fitted, seen)
    return score(watched, part, borders, protocol=protocol)


def _validated(fitted: Any, part: Series | Collection, borders: Borders | None) -> dict[str, float] | None:
    """What validation says of the finished estimator: settings are chosen by this, never by the test part."""
    if hasattr(fitted, "backtest") and isinstance(part, Series) and borders is not None:
        begin, end = borders.validation
        if end - begin < fitted.horizon:
            return None
        return dict(score(fitted, part, Borders(begin, begin, end)).measures)
    found: dict[str, float] | None = getattr(fitted, "validation_scores_", None)
    return found


def _measured(scores: Scores, part: Series | Collection, whole: Series | Collection | None) -> dict[str, float]:
    """The measures of a cell, and where shares of training are compared, those on the scale of the whole.

    Raises:
        DataError: nothing was there to be measured.
    """
    name, value = next(iter(scores.measures.items()))
    if not np.isfinite(value):
        raise DataError(
            f"{name} is {value} over {scores.n_scored} {scores.counted}: the test part of {part.name!r} has nothing "
            "observed to score by."
        )
    return {**scores.measures, **({} if whole is None else _on_all_of_train(scores, whole))}


def _on_all_of_train(scores: Scores, data: Series | Collection) -> dict[str, float]:
    """MSE and MAE on values standardized by the whole training part, whatever share of it was learned from.

    The mean over channels of squared own units over the variance: comparable over shares, which mse itself is not.
    """
    if not isinstance(data, Series) or "rmse_own" not in scores.per_channel:
        return {}
    end = (data.borders or by_fraction(len(data))).train_end
    scale = StandardScaler.fit(Collection.of(data), np.array([end])).scale[0]
    return {
        "mse_whole_scale": float(np.mean((scores.per_channel["rmse_own"] / scale) ** 2)),
        "mae_whole_scale": float(np.mean(scores.per_channel["mae_own"] / scale)),
    }


def _kept(seen: _Seen, part: Series | Collection, borders: Borders | None) -> Kept:
    fitted = seen.fitted
    if seen.backtest is not None:
        assert isinstance(part, Series)
        found, horizon = seen.backtest, fitted.horizon
        first, last = int(found.origins[0]), int(found.origins[-1]) + horizon
        return Forecasts(
            found.forecasts, np.asarray(part.values[:, first:last]), found.origins, first, fitted.scaler_.mean[0],
            fitted.scaler_.scale[0], fitted.season_scale_[0],
            None if fitted.quantiles is None else tuple(float(q) for q in fitted.quantiles),
        )  # fmt: skip
    if seen.probabilities is not None:
        assert seen.labels is not None
        return CasePredictions(seen.probabilities, seen.labels, np.asarray(fitted.classes_))
    assert isinstance(part, Series) and part.labels is not None and seen.step_scores is not None
    end = 0 if borders is None else borders.train_end
    scores = np.asarray(seen.step_scores)[end:]
    buffer = vus_buffer(part.values[:, : end or None])
    return StepScores(scores, part.labels[end:], fitted.threshold_.alarms(scores), buffer)


# ---- what there is to tell of a fitted estimator


def _settings(fitted: Any) -> dict[str, Any]:
    """Every argument, and the recipe with everything that was filled in."""
    params = {
        name: value for name, value in fitted.get_params(deep=False).items() if name not in ("run_folder", "progress")
    }
    recipe = getattr(fitted, "_recipe_", None) or getattr(fitted, "recipe_", None)
    found: dict[str, Any] = {"arguments": params}
    if recipe is not None:
        found["recipe"] = {**dataclasses.asdict(replace(recipe, model={})), "model": dict(recipe.model)}
    config = getattr(_members(fitted)[0], "config", None) if _members(fitted) else None
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        found["architecture"] = dataclasses.asdict(config)
    return json.loads(json.dumps(found, default=_plain))


def _trainings(fitted: Any) -> list[Any]:
    """How each of its networks was trained, as far as it is told."""
    results = getattr(fitted, "fit_results_", None)
    results = [fitted.fit_result_] if hasattr(fitted, "fit_result_") else results
    return list(results.values()) if isinstance(results, Mapping) else list(results or [])


def _resumed(fitted: Any) -> bool:
    """Whether a training was broken off in between, so that its seconds are those of its rest."""
    return any(getattr(result, "resumed_from", None) is not None for result in _trainings(fitted))


def _chosen(fitted: Any) -> dict[str, Any]:
    """What training and validation decided."""
    results = _trainings(fitted)
    found: dict[str, Any] = {
        "best_epochs": [result.best_epoch for result in results],
        "best_losses": [result.best_loss for result in results],
        "history": [list(result.history) for result in results], "fit_seconds": sum(r.seconds for r in results),
    }  # fmt: skip
    for name in ("line_", "network_share_", "weights_", "judges_", "period_", "context_length_", "calibrated_on_"):
        if hasattr(fitted, name):
            found[name.removesuffix("_")] = getattr(fitted, name)
    if hasattr(fitted, "threshold_"):
        found["threshold"] = str(fitted.threshold_)
    if hasattr(fitted, "floor_"):
        found["prepared"] = list(fitted.floor_.prepared)
    return json.loads(json.dumps(found, default=_plain))


def _members(fitted: Any) -> list[Any]:
    return list(fitted.members_) if hasattr(fitted, "model_") else []


def _size(fitted: Any) -> dict[str, Any]:
    """Parameters, and multiply-accumulates of one window or case as it is answered; None with a reason."""
    if not hasattr(fitted, "model_"):
        return {"n_parameters": None, "n_macs": None, "macs_told": "no network"}
    n_parameters = sum(parameter.numel() for parameter in fitted.model_.parameters())
    if not _members(fitted):
        return {"n_parameters": n_parameters, "n_macs": 0, "macs_told": "no network"}
    length = (getattr(fitted, "context_length_", None) or getattr(fitted, "context_length", None)
              or fitted.n_timepoints_)  # fmt: skip
    window = torch.zeros(1, fitted.n_channels_, int(length))
    answering = _members(fitted) if isinstance(fitted.model_, torch.nn.ModuleDict) else [fitted.model_]
    try:
        total = sum(count(on_device(model), window).total for model in answering)
    except Exception as error:
        # a model that looks at values to decide what to compute cannot be counted; its scores are none the worse
        return {"n_parameters": n_parameters, "n_macs": None, "macs_told": f"not counted: {type(error).__name__}"}
    return {
        "n_parameters": n_parameters,
        "n_macs": int(total),
        "macs_told": f"one window [1, {', '.join(map(str, window.shape[1:]))}]",
    }


def _learned(fitted: Any) -> dict[str, Any]:
    """Windows or cases of training and validation."""
    found: dict[str, Any] = getattr(fitted, "n_windows_", None) or getattr(fitted, "n_cases_", None) or {}
    return dict(found)


def _circumstances() -> dict[str, Any]:
    device = torch.accelerator.current_accelerator(check_available=True)
    return {
        "versions": versions(), "threads": torch.get_num_threads(), "device": "cpu" if device is None else device.type,
        "machine": f"{platform.system()} {platform.machine()}",
    }  # fmt: skip


def _plain(value: Any) -> Any:
    """What json does not know: numpy, settings, mappings; anything else by its words."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return dict(cast(Mapping[str, Any], value)) if isinstance(value, Mapping) else str(value)
