"""A loaded model as the service sees it: facts about it, and arrays for the series of one request or of several.

Whatever runs it, PyTorch or ONNX Runtime, what is asked of it is one method, ``compute``. Tables are made elsewhere.
"""

from __future__ import annotations

import os
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from prismts.data.series import Collection, Series
from prismts.data.tables import TableKind
from prismts.errors import SettingsError, a_or_an, unknown_name
from prismts.estimators.match import in_steps_of, reordered, rows_of
from prismts.serving.bodies import Reading

__all__ = [
    "BACKENDS", "TASKS", "Backend", "Engine", "Facts", "OnnxEngine", "TorchEngine", "Verdict", "like_training",
    "load_engines",
]  # fmt: skip

Backend = Literal["torch", "onnx"]
BACKENDS: tuple[Backend, ...] = ("torch", "onnx")
TASKS = {
    "forecast": "forecaster",
    "classify": "classifier",
    "detect": "detector",
    "impute": "imputer",
    "embed": "embedder",
}
_OF_SERIES = {"forecast": "predict", "impute": "transform", "detect": "detection"}  # where steps have a length
_STRANGER = "a series that was not in training"
_TASK_OF = {
    "Forecaster": "forecast",
    "Classifier": "classify",
    "AnomalyDetector": "detect",
    "Imputer": "impute",
    "Embedder": "embed",
}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a model says of itself; what does not apply to its task is None."""

    name: str
    task: str
    estimator: str
    architecture: str
    backend: Backend
    channels: tuple[str, ...]  # as it learned them
    any_channels: bool = False  # whether it also reads another number of them
    frequency: str | None = None
    context_length: int | None = None  # steps
    horizon: int | None = None  # steps
    quantiles: tuple[float, ...] | None = None
    classes: tuple[Any, ...] | None = None
    threshold: float | None = None
    min_timepoints: int = 1  # the shortest series it reads
    reading: Reading = field(default_factory=Reading)
    levels: tuple[tuple[float, float], ...] = ()  # mean and scale of each channel in training, for examples


class Verdict(NamedTuple):
    """What a detector says of one series."""

    scores: NDArray[np.float64]  # [T]
    blame: NDArray[np.float64] | None  # [C, T] what each channel adds; None where nothing exceeds the threshold


class Engine:
    """A model and what runs it; used by one thread at a time."""

    facts: Facts

    def compute(self, parts: Sequence[Collection]) -> list[Any]:
        """The answer to each request: one of any number of series, or several of one series each with equal ``key``.

        Forecasts are [n, C, H] or [n, Q, C, H], probabilities [n, K], vectors [n, d], filled values [C, total] and, of
        a detector, a list of ``Verdict``, one per series.
        """
        found = self._computed(parts[0]) if len(parts) == 1 else self._together(parts)
        if len(parts) == 1:
            return [found]
        return [found[i : i + 1] for i in range(len(parts))]

    def key(self, data: Collection) -> Hashable | None:
        """Requests of one key may be answered together; None is answered alone.

        The key holds everything that decides which operations run on which shapes.
        """
        if len(data) != 1 or self.facts.task not in ("forecast", "classify", "embed"):
            return None
        seen = ~np.isnan(data.values)
        if self.facts.task == "forecast":
            length = self.facts.context_length or 0
            full = data.values.shape[1] >= length and bool(seen[:, -length:].all())
            return data.n_channels, data.values.dtype.str, full
        whole = bool(seen.all())
        steps: NDArray[np.bool_] = np.any(seen, axis=0, keepdims=False)  # type: ignore[assignment]
        length = len(steps) if whole else int(len(steps) - steps[::-1].argmax())  # up to the last observed step
        return data.n_channels, length, data.values.dtype.str, whole

    def exact_sizes(self, template: Collection, largest: int, seconds: float = 2.0) -> frozenset[int]:
        """How many requests like this one may be answered together with the very bits each would get alone.

        A matrix product may sum in another order for another number of rows, which changes the last bit; whether it
        does depends on shapes alone, so it is found out once, on shuffled copies of the template. Sizes that were not
        reached within ``seconds``, as those of a model that takes long, count as changed.
        """
        rng, until = np.random.default_rng(0), time.monotonic() + seconds
        last = self.facts.context_length if self.facts.task == "forecast" else None
        copies: list[Collection] = []
        alone: list[Any] = []
        sizes = {1}
        for n in range(1, largest + 1):
            copies.append(_shuffled(template, rng, last))
            alone.append(self._computed(copies[-1]))
            for part in ([*range(n)], [*reversed(range(n))]) if n > 1 else ():
                found = self._together([copies[i] for i in part])
                if not all(np.array_equal(found[k], alone[i][0], equal_nan=True) for k, i in enumerate(part)):
                    break
            else:
                sizes.add(n)
            if time.monotonic() > until:
                break
        return frozenset(sizes)

    def stream(self) -> Any:
        """A ``DetectStream`` that follows a growing series."""
        raise SettingsError(
            f"Streams are followed by PyTorch, but {self.facts.name!r} runs on ONNX Runtime. Start the service with "
            "--backend torch, or send the whole series to /detect."
        )

    def _computed(self, data: Collection) -> Any:
        raise NotImplementedError

    def _together(self, parts: Sequence[Collection]) -> Any:
        return self._computed(self._merged(parts))

    def _merged(self, parts: Sequence[Collection]) -> Collection:
        values = np.concatenate([part.values for part in parts], axis=1)
        offsets = np.concatenate([[0], np.cumsum([part.values.shape[1] for part in parts])])
        names = tuple(self._name(part) for part in parts)
        return Collection(values, offsets, names, parts[0].channels)

    def _name(self, part: Collection) -> str:
        """What a series that comes alone is called among others, so that it keeps its scale."""
        known = self._series_names()
        (row,) = rows_of(part, known)
        return _STRANGER if row is None else known[row]

    def _series_names(self) -> tuple[str, ...]:
        """The series of training that have scales of their own."""
        return ()


class TorchEngine(Engine):
    """An estimator as it was saved."""

    def __init__(self, name: str, folder: Path) -> None:
        from prismts.estimators.load import load

        self.estimator: Any = load(folder)
        self.facts = _facts_of_estimator(name, self.estimator)

    def stream(self) -> Any:
        """A ``DetectStream``."""
        return self.estimator.stream()

    def _computed(self, data: Collection) -> Any:
        task = self.facts.task
        if task == "forecast":
            return self.estimator.predict((data, TableKind("array")))
        if task == "classify":
            return self.estimator.predict_proba(data)
        if task == "detect":
            return [
                _verdict(self.estimator.score_samples(case), self.facts, lambda case=case: self._blame(case))
                for case in data
            ]
        found = self.estimator.transform(data)
        return found.values if task == "impute" else found

    def _blame(self, case: Series) -> NDArray[np.float64]:
        return self.estimator.contributions(case)

    def _series_names(self) -> tuple[str, ...]:
        return getattr(self.estimator, "series_names_", ())


class OnnxEngine(Engine):
    """A model exported to ONNX, run by ONNX Runtime; everything around the network is inside the graph."""

    def __init__(self, name: str, file: Path, folder: Path | None = None) -> None:
        from prismts.serving.runtime import OnnxModel

        asked = os.environ.get("OMP_NUM_THREADS", "")  # PyTorch heeds it by itself
        self.model: Any = OnnxModel(file, n_threads=int(asked) if asked.isdecimal() and int(asked) else None)
        self.facts = _facts_of_onnx(name, self.model, folder)

    def _computed(self, data: Collection) -> Any:
        task, model = self.facts.task, self.model
        cases = [case.values for case in data]
        if task == "detect":
            return [
                _verdict(
                    model.score_samples(case.values), self.facts, lambda case=case: model.contributions(case.values)
                )
                for case in data
            ]
        if task == "forecast":
            names = self._known(data)
            values = [self._past(case, name) for case, name in zip(cases, names, strict=True)]  # [C, T] each
            return model.predict(values, series=names)
        if task == "impute":
            filled = [model.transform(case, series=name) for case, name in zip(cases, self._known(data), strict=True)]
            return np.concatenate(filled, axis=-1)
        one = model.predict_proba if task == "classify" else model.transform
        if len({case.shape for case in cases}) == 1:
            return one(np.stack(cases))
        return np.stack([one(case) for case in cases])

    def key(self, data: Collection) -> Hashable | None:
        """As that of any engine; a series that is read as a whole goes with others of its length."""
        key = super().key(data)
        whole = key is not None and self.facts.task == "forecast" and self._known(data) == [None]
        return (key, data.values.shape[1]) if whole and self._series_names() else key

    def _series_names(self) -> tuple[str, ...]:
        return tuple(self.model.metadata["series_names"]) if "series" in self.model.metadata["inputs"] else ()

    def _known(self, data: Collection) -> list[str | None]:
        """The name in training of each series, None where it was not in training or the graph does not ask."""
        names = self._series_names()
        if not names:
            return [None] * len(data)
        return [None if row is None else names[row] for row in rows_of(data, names)]

    def _past(self, x: NDArray[np.floating], name: str | None) -> NDArray[np.floating]:
        """The steps that are read: the last ones, and all of a series that is scaled by itself."""
        length = self.facts.context_length or x.shape[1]
        if name is not None or not self._series_names():
            x = x[:, -length:]
        return np.pad(x, ((0, 0), (max(0, length - x.shape[1]), 0)), constant_values=np.nan)


def load_engines(paths: Sequence[Path | str], backend: Backend = "torch") -> dict[str, Engine]:
    """The models of these folders (with ``backend="onnx"`` also of .onnx files), by the names of the folders.

    Raises:
        SettingsError: two models share a name, or there is none.
        SavedModelError: a folder or file is missing, foreign, altered, or written by a newer version.
    """
    if backend not in BACKENDS:
        raise unknown_name("backend", backend, BACKENDS)
    if not paths:
        raise SettingsError("A service needs one model folder at least: prism serve MODEL/.")
    found: dict[str, Engine] = {}
    for path in (Path(path) for path in paths):
        exported = path.suffix == ".onnx" and not path.is_dir()
        name = path.resolve().stem if exported else path.resolve().name
        if name in found:
            raise SettingsError(
                f"Two models are called {name!r}. The service tells them apart by the names of their folders; rename "
                "one."
            )
        if exported and backend != "onnx":
            raise SettingsError(f"{path} is run by ONNX Runtime. Start the service with --backend onnx.")
        if exported:
            found[name] = OnnxEngine(name, path)
        elif backend == "onnx":
            from prismts.serving.exported import exported_file

            found[name] = OnnxEngine(name, exported_file(path), path)
        else:
            found[name] = TorchEngine(name, path)
    return found


def like_training(data: Collection, facts: Facts) -> Collection:
    """The data with the channels in the order of training and its steps, as the library wants them."""
    if facts.task not in _OF_SERIES:
        return data
    if facts.task != "detect":  # whose library counts the channels itself
        data = reordered(data, facts.channels, _OF_SERIES[facts.task])
    remedy = "Bring them to steps of that length first, or choose a model that learned such data."
    return in_steps_of(data, facts.frequency, remedy)


def _verdict(scores: NDArray[np.float64], facts: Facts, blame: Any) -> Verdict:
    assert facts.threshold is not None
    return Verdict(scores, blame() if bool((scores > facts.threshold).any()) else None)


def _shuffled(template: Collection, rng: np.random.Generator, last: int | None) -> Collection:
    """The same shape and the same holes elsewhere: the last steps in another order, a little moved."""
    values = template.values.copy()
    n = values.shape[1] if last is None else min(last, values.shape[1])
    part = values[:, -n:]
    ends = np.flatnonzero(~np.isnan(part).all(axis=0))
    inner = np.arange(n)
    if last is None and len(ends):  # the last observed step stays the last: it decides the length of a case
        inner[: ends[-1]] = rng.permutation(int(ends[-1]))
    else:
        inner = rng.permutation(n)
    spread = np.nan_to_num(np.nanstd(np.where(np.isnan(part).all(axis=1, keepdims=True), 0.0, part), axis=1))
    noise = rng.standard_normal(part.shape) * spread[:, None] * 0.1
    values[:, -n:] = (part[:, inner] + noise).astype(values.dtype)
    return replace(template, values=values)


def _facts_of_estimator(name: str, estimator: Any) -> Facts:
    kind = type(estimator).__name__
    if kind not in _TASK_OF:
        raise SettingsError(
            f"{name} holds {a_or_an(kind)}, which answers more than one task. Serve models of one task: "
            f"{', '.join(_TASK_OF)}."
        )
    task = _TASK_OF[kind]
    channels = tuple(getattr(estimator, "channels_", ())) or tuple(
        f"channel_{i}" for i in range(int(estimator.n_channels_))
    )
    any_channels = task == "embed" and estimator.channels == "pooled"
    quantiles = getattr(estimator, "quantiles", None) if task == "forecast" else None
    threshold = getattr(estimator, "threshold_", None)
    classes: Any = estimator.classes_.tolist() if task == "classify" else None
    context = getattr(estimator, "context_length_", None) or getattr(estimator, "context_length", None)
    return Facts(
        name=name, task=task, estimator=kind, architecture=str(estimator.model), backend="torch", channels=channels,
        any_channels=any_channels, frequency=getattr(estimator, "frequency_", None),
        context_length=None if context is None else int(context),
        horizon=int(estimator.horizon) if task == "forecast" else None,
        quantiles=None if quantiles is None else tuple(float(q) for q in quantiles),
        classes=None if classes is None else tuple(classes),
        threshold=None if threshold is None else float(threshold.value),
        min_timepoints=_shortest(estimator, task), reading=_reading(vars(estimator), task, channels, any_channels),
        levels=_levels(getattr(estimator, "scaler_", None), len(channels)),
    )  # fmt: skip


def _shortest(estimator: Any, task: str) -> int:
    """Steps that a series needs: what the shortest window of a detector reads, the four of an embedder."""
    if task == "detect":
        return int(estimator.panel_.shortest)
    return 4 if task == "embed" else 1


def _levels(scaler: Any, n_channels: int) -> tuple[tuple[float, float], ...]:
    if scaler is None:
        return ((0.0, 1.0),) * n_channels
    return tuple((float(m), float(s)) for m, s in zip(scaler.mean[0], scaler.scale[0], strict=True))


def _reading(params: dict[str, Any], task: str, channels: tuple[str, ...], any_channels: bool) -> Reading:
    values = params.get("values")
    return Reading(
        time=params.get("time"), series=params.get("series"), values=None if values is None else tuple(values),
        frequency=params.get("frequency"), label=params.get("label"), channels=() if any_channels else channels,
        rows_are_cases=task == "embed" or (task == "classify" and len(channels) == 1), exact=task == "impute",
        missing_codes=() if task == "detect" else None,
    )  # fmt: skip


def _facts_of_onnx(name: str, model: Any, folder: Path | None) -> Facts:
    """From the file's metadata; how tables are read stands in the folder alone, where there is one."""
    said = cast(dict[str, Any], model.metadata)
    task = str(said["kind"])
    channels = tuple(str(channel) for channel in said.get("channels") or ())
    any_channels = model.n_channels is None
    params: dict[str, Any] = {}
    if folder is not None:
        from prismts.estimators.saved import read_config

        params = dict(read_config(folder)["params"])
    quantiles, classes = said.get("quantiles"), said.get("classes")
    shortest = (said.get("time") or {}).get("min") or 1
    return Facts(
        name=name, task=task, estimator=str(said.get("estimator")), architecture=str(said.get("model")), backend="onnx",
        channels=channels, any_channels=any_channels, frequency=said.get("frequency"),
        context_length=said.get("context_length"), horizon=said.get("horizon"),
        quantiles=None if quantiles is None else tuple(quantiles), classes=None if classes is None else tuple(classes),
        threshold=said.get("threshold"), min_timepoints=int(shortest),
        reading=_reading(params, task, channels, any_channels), levels=((0.0, 1.0),) * len(channels),
    )  # fmt: skip
