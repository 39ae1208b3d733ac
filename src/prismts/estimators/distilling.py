"""Distill a large model, or several, into a small one of ours: the student is fitted as ever, with the teacher beside.

``distill`` fits a forecaster or a classifier by its own ``fit``, with one difference: each training batch brings what
the teacher says of it, and the loss is that of ``prismts.tasks.distill``. The teacher answers once for every training
window or case; with a ``cache`` its answers outlive the call. Validation judges the student by the truth alone.
"""

# pyright: reportPrivateUsage=false
# the other half of Estimator._train_one, and of Forecaster._forecasts
from __future__ import annotations

import hashlib
import json
import tempfile
import time as clock
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from prismts.cases import Cases
from prismts.data.scaling import StandardScaler
from prismts.errors import DataError, NotFittedError, SettingsError, ShapeError, a_or_an
from prismts.estimators.base import Estimator, on_device, weights_hash
from prismts.estimators.classifier import Classifier
from prismts.estimators.forecaster import Forecaster
from prismts.estimators.learned import Learned
from prismts.estimators.match import scaler_for
from prismts.evaluation.protocols import data_hash
from prismts.layers.heads import pooled
from prismts.models import find_model
from prismts.models.contract import Encoder
from prismts.models.ensemble import Ensemble
from prismts.models.teachers import Teacher
from prismts.tasks.distill import AnswerCache, Distill, Projecting, Taught
from prismts.tasks.forecast import Forecast
from prismts.training.fit import FitResult, fit
from prismts.windows import Batch, Windows

__all__ = ["Measured", "distill", "measured", "n_numbers", "smaller"]

S = TypeVar("S", Forecaster, Classifier)
AnyTeacher = Estimator | Teacher | str | Path

_CONTEXT = 512  # steps that a foreign teacher is given, where it does not say how many it reads
_TIMED = 20  # single answers that the latency is the median of


def distill(
    teacher: AnyTeacher | Sequence[AnyTeacher],
    student: S,
    data: Any,
    y: Any = None,
    *,
    weight: float = 0.5,
    temperature: float = 2.0,
    features: float = 0.0,
    teacher_context: int | None = None,
    cache: str | Path | None = None,
    told: Callable[[int, int], None] | None = None,
    **fit_arguments: Any,
) -> S:
    """Fit ``student`` to ``data`` with a teacher beside, and return it: an estimator like any other.

        teacher = prismts.Forecaster(horizon=24, n_members=5).fit(table)
        student = prismts.Forecaster(horizon=24, model_settings={"width": 16})
        prismts.distill(teacher, student, table, weight=0.5)

    Args:
        teacher: a fitted forecaster or classifier, the folder of a saved one, or anything that continues windows it has
            never seen (``prismts.models.teachers.Teacher``: levels, fingerprint, predict); several answer with their
            mean.
        student: a forecaster or a classifier with the settings it is to have; it may be of another model than the
            teacher, and read less of the past.
        data, y: as for the student's ``fit``; best what the teacher has learned from, and no test part.
        weight: of the teacher beside the truth, from 0 (the student alone) to 1.
        temperature: by which class scores of both are divided.
        features: above 0, the student's tokens are also drawn to the teacher's by this weight; for teachers of ours.
        teacher_context: steps of past a foreign teacher is given; 512 if it does not say itself.
        cache: a folder that keeps the teacher's answers, filed under the hashes of teacher and data: the teacher runs
            once, and a killed run goes on. None keeps them in memory for this call.
        told: is called as ``told(done, n)`` while the teacher answers.
        **fit_arguments: for the student's ``fit``, such as ``validation``.

    Raises:
        SettingsError: the teacher cannot teach this student: another task, a shorter horizon, other levels.
        DataError: the classes or the channels of both differ.
    """
    if not isinstance(student, Forecaster | Classifier):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise SettingsError(
            f"Forecasters and classifiers are taught, but the student is {a_or_an(type(student).__name__)}."
        )
    Distill(cast(Any, None), weight=weight, temperature=temperature, features=features)  # refuses wrong settings now
    plan = _Plan(_teachers(teacher, student), student, weight, temperature, features, teacher_context, cache, told)
    with student._trained_by(plan.fit):
        learner: Any = student
        fitted = learner.fit(data, **fit_arguments) if y is None else learner.fit(data, y, **fit_arguments)
    fitted.taught_by_ = plan.notes()
    return fitted


@dataclass(frozen=True)
class Measured:
    """What a model costs and how far off it is."""

    scores: Mapping[str, float]  # as the estimator gives them
    n_parameters: int  # all numbers that its networks and lines hold, trained or solved
    latency: float  # seconds for one window or case, median of 20 calls of the merged network
    size: int  # bytes of its saved folder


def measured(estimator: Forecaster | Classifier, data: Any, y: Any = None, **where: Any) -> Measured:
    """Scores on some data, and what the estimator costs: parameters, latency on one thread of calls, size on disk.

    ``where`` is for ``backtest`` of a forecaster: ``begin``, ``end``, ``stride``.
    """
    scores = (
        estimator.backtest(data, **where).scores if isinstance(estimator, Forecaster) else estimator.evaluate(data, y)
    )
    with tempfile.TemporaryDirectory() as folder:
        estimator.save(Path(folder) / "m")
        size = sum(file.stat().st_size for file in (Path(folder) / "m").iterdir())
    return Measured(dict(scores), n_numbers(estimator.model_), _latency(estimator), size)


def n_numbers(model: nn.Module) -> int:
    """All numbers that a model holds: weights, solved lines, running statistics."""
    return sum(value.numel() for value in model.state_dict().values() if value.is_floating_point())


def smaller(teacher: S, *, share: float = 0.1, **changes: Any) -> S:
    """An unfitted student for a fitted teacher: the same model in small, with at most this share of its numbers.

    Width, the width inside the pointwise pairs and the number of blocks are scaled down together, and the largest
    student that is small enough is taken. No closed form stands beside it: a line that is solved from the truth would
    hide what the teacher says, and may by itself hold more numbers than the student.

    Args:
        teacher: a fitted forecaster or classifier; of several networks, all count.
        share: of the numbers that the teacher holds.
        **changes: arguments of the student that are to differ, such as ``context_length`` or ``random_state``.

    Raises:
        SettingsError: even the smallest such student holds more.
    """
    if not 0 < share < 1:
        raise SettingsError(f"share is the student's part of the teacher's numbers, between 0 and 1, but got {share}.")
    teacher._check_learned()
    recipe: Any = teacher._recipe_
    params: dict[str, Any] = {
        **teacher.get_params(deep=False), "n_members": 1, "run_folder": None, "model": teacher._architecture,
    }  # fmt: skip
    if isinstance(teacher, Classifier):
        params |= {"setting": "network" if recipe.line else teacher.setting, "validation": 0.2}
    elif recipe.line is not None or len(recipe.members) > 1:
        params |= {"setting": "published", "line": None, "fit_settings": None}
    params |= changes
    architecture = find_model(teacher._architecture)
    defaults = architecture.config()
    full = {name: getattr(defaults, name) for name in _SIZES if hasattr(defaults, name)} | dict(recipe.model)
    most, kind = share * n_numbers(teacher.model_), cast(Any, type(teacher))
    fewest = 0
    for factor in _FACTORS:
        settings = dict(recipe.model) | _scaled_down(full, factor)
        student = cast(S, kind(**{**params, "model_settings": settings}))
        fewest = _n_untrained(teacher, student, settings)
        if fewest <= most:
            return student
    raise SettingsError(
        f"The smallest student of this kind holds {fewest:,} numbers, more than {share:.0%} of the teacher's "
        f"{n_numbers(teacher.model_):,}. Give a larger share, a shorter context_length or longer patches."
    )


_SIZES = ("width", "feed_forward", "kernel_sizes", "n_layers", "n_blocks", "n_heads")
_FACTORS = tuple(round(float(factor), 4) for factor in np.geomspace(0.9, 0.04, 24))


def _scaled_down(full: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """Sizes of a model of which there are fewer: widths by the factor, depth by its root."""
    found: dict[str, Any] = {}
    multiple = int(full.get("n_heads", 1)) if isinstance(full.get("n_heads", 1), int) else 1
    for name in ("width", "feed_forward"):
        if isinstance(full.get(name), int):
            found[name] = max(int(full[name] * factor) // multiple, 1) * multiple if full[name] else 0
    for name in ("n_layers", "n_blocks"):
        if isinstance(full.get(name), int):
            found[name] = max(1, round(full[name] * factor**0.5))
    kernels = full.get("kernel_sizes")
    if isinstance(kernels, list | tuple) and len(kernels) > 1 and "width" in found:
        keep = max(2, round(len(kernels) * factor**0.5))
        places = np.linspace(0, len(kernels) - 1, keep).round().astype(int)
        found["kernel_sizes"] = tuple(kernels[i] for i in places)
    return found


def _n_untrained(teacher: Any, student: Any, settings: Mapping[str, Any]) -> int:
    """How many numbers a student will hold, for data like the teacher's."""
    with torch.random.fork_rng(devices=[]):
        if isinstance(teacher, Forecaster):
            task = Forecast(student.horizon, quantiles=student.quantiles, line=None)
            length = student.context_length
        else:
            task, length = teacher.task_, teacher.n_timepoints_
        model = task.build(teacher._architecture, settings, n_channels=teacher.n_channels_, context_length=length)
    return n_numbers(model)


def _latency(estimator: Forecaster | Classifier) -> float:
    """Seconds for one window of normal noise, median of several."""
    model = on_device(estimator.model_)
    length = estimator.context_length if isinstance(estimator, Forecaster) else estimator.n_timepoints_
    place = next((p.device for p in model.parameters()), torch.device("cpu"))
    x = torch.randn(1, estimator.n_channels_, length, generator=torch.Generator().manual_seed(0)).to(place)
    more = (None, torch.zeros(1, dtype=torch.int64, device=place)) if getattr(model, "reads_start", False) else ()
    seconds: list[float] = []
    with torch.inference_mode():
        for _ in range(_TIMED + 3):  # the first ones warm up
            began = clock.perf_counter()
            model(x, *more).sum().item()  # waits for a device
            seconds.append(clock.perf_counter() - began)
    return float(np.median(seconds[3:]))


class _Plan:
    """What happens around each training of one ``fit``: the teacher's answers are put beside the batches."""

    def __init__(
        self, teachers: Sequence[Any], student: Any, weight: float, temperature: float, features: float,
        context: int | None, cache: str | Path | None, told: Callable[[int, int], None] | None,
    ) -> None:  # fmt: skip
        self.teachers, self.student, self.context = teachers, student, context
        self.weight, self.temperature, self.features = weight, temperature, features
        self.cache, self.told = cache, told
        self.hashes = [_teacher_hash(one) for one in teachers]
        self.known: dict[str, dict[str, NDArray[np.float32]]] = {}

    def fit(
        self, model: nn.Module, task: Any, train: Any, check: Any, *, fingerprint: str, parts: Any, **more: Any
    ) -> FitResult:
        """As ``prismts.training.fit.fit``, with the teachers' answers beside the training batches."""
        if not isinstance(train, Windows | Cases):
            return fit(model, task, train, check, fingerprint=fingerprint, parts=parts, **more)
        taught, n_features = self._taught(train)
        learner = model
        if self.features:
            if not isinstance(model, Encoder):
                raise SettingsError(f"A {type(model).__name__} has no tokens to compare. Set features=0.")
            learner = Projecting(model, n_features)
        distilled = Distill(task, weight=self.weight, temperature=self.temperature, features=self.features)
        how = [self.hashes, self.context, self.weight, self.temperature, self.features]
        named = ("the teacher", "teacher_context", "weight", "temperature", "features")
        return fit(
            learner, distilled, taught, check, fingerprint=f"{fingerprint} taught by {json.dumps(how)}",
            parts={**parts, **dict(zip(named, how, strict=True))}, **more,
        )  # fmt: skip

    def notes(self) -> tuple[Learned, ...]:
        """What the teachers of ours that were asked had learned from, and the teachers before them."""
        if not self.known or not (self.weight or self.features):
            return ()
        ours = [one for one in self.teachers if isinstance(one, Estimator)]
        return tuple(note for one in ours for note in (Learned.of(one), *one.taught_by_))

    def _taught(self, train: Windows | Cases) -> tuple[Taught, int]:
        """The training source with the teachers' answers, and the number of their features."""
        key: dict[str, Any] = {"teachers": self.hashes, "data": data_hash(train.data), "features": self.features > 0}
        if isinstance(train, Windows):
            levels = None if self.student.quantiles is None else [float(q) for q in self.student.quantiles]
            key |= {
                "futures": _digest(train.first_future, train.counts), "stride": train.stride, "horizon": train.horizon,
                "levels": levels, "context": self.context, "scaler": _digest(train.scaler.mean, train.scaler.scale),
            }  # fmt: skip
            asked = [_WindowTeacher(one, train, levels, self.context) for one in self.teachers]
            n, rows = len(train), None
        else:
            labels = self.student.classes_.tolist()
            key |= {"classes": [str(label) for label in labels]}
            asked = [_CaseTeacher(one, train, labels) for one in self.teachers]
            n, rows = len(train.data), train.index
        mark = json.dumps(key, sort_keys=True)

        def ask(index: NDArray[np.int64]) -> dict[str, NDArray[np.floating]]:
            parts = [one.ask(index) for one in asked]
            found: dict[str, NDArray[np.floating]] = {"said": np.mean(np.stack(parts), axis=0)}
            if self.features:
                found["features"] = np.concatenate([one.features(index) for one in asked], axis=1)
            return found

        if mark not in self.known:
            self.known[mark] = AnswerCache(self.cache, key).arrays(n, ask, told=self.told)
        said, features = self.known[mark]["said"], self.known[mark].get("features")
        if isinstance(train, Cases):
            said = np.log(np.clip(said, 1e-9, 1.0))  # scores, for a temperature to divide
        if features is not None:
            features = (features - features.mean(0)) / np.maximum(features.std(0), 1e-6)
        return Taught(train, said, features, rows=rows), 0 if features is None else features.shape[1]


class _WindowTeacher:
    """What a teacher of forecasting says of a student's training windows."""

    def __init__(self, teacher: Any, windows: Windows, levels: list[float] | None, context: int | None) -> None:
        self.teacher, self.windows, self.levels = teacher, windows, levels
        data = windows.data
        if isinstance(teacher, Forecaster):
            if teacher.horizon < windows.horizon:
                raise SettingsError(
                    f"The teacher forecasts {teacher.horizon} steps, fewer than the student's {windows.horizon}. Give "
                    "the student the teacher's horizon, or a shorter one."
                )
            lacking = sorted(set(data.channels) ^ set(teacher.channels_))
            if lacking:
                raise DataError(f"Teacher and student see other channels: {lacking[0]!r} is known to one of them only.")
            self.order = [data.channels.index(name) for name in teacher.channels_]  # of the data, as the teacher reads
            self.back = [teacher.channels_.index(name) for name in data.channels]
            known = teacher._like_training(data)
            self.scaler = scaler_for(known, teacher.scaler_, teacher.series_names_, np.maximum(windows.first_future, 1))
            self.numbered = teacher._on_the_clock(data)
            self.length, theirs = teacher.context_length, teacher.quantiles
            teacher._check_fitted()
        else:
            self.order = self.back = list(range(data.n_channels))
            own = getattr(teacher, "context_length", None)
            self.length = context or own or _CONTEXT
            theirs = teacher.levels if levels is not None and teacher.levels else None  # its mean is a better point
        self.rows = _rows_of_levels(levels, None if theirs is None else [float(q) for q in theirs])

    def ask(self, index: NDArray[np.int64]) -> NDArray[np.float64]:
        """Its forecasts for these windows, in the student's scale: [b, C, H] or [b, Q, C, H]."""
        series, future = self.windows.locate(index)
        if isinstance(self.teacher, Forecaster):
            contexts = _Contexts(self)
            parts = [told for _, told in self.teacher._forecasts(contexts, index, numbered=self.numbered)]  # type: ignore[arg-type]
            said = np.concatenate(parts).astype(np.float64)[..., : self.windows.horizon]
            said = _unscaled(said, self.scaler, series)[..., self.back, :]
            said = said if self.rows is None else said[:, self.rows]
        else:
            x = torch.from_numpy(self.gather(series, future).astype(np.float32))
            answer = self.teacher.predict(x, self.windows.horizon)
            told = answer.mean if self.rows is None else answer.quantiles[:, self.rows]
            said = told.detach().cpu().double().numpy()
        if self.levels is None and said.ndim == 4:
            said = said[:, 0]
        return _scaled(said, self.windows.scaler, series)

    def features(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """The mean of its tokens for these windows, of all its networks: [b, d]."""
        if not isinstance(self.teacher, Forecaster):
            raise SettingsError("features compares tokens, which only teachers of ours give. Set features=0.")
        batch = _Contexts(self).batch(index)
        found: list[NDArray[np.float32]] = []
        with torch.inference_mode():
            model = self.teacher.model_
            for i, member in enumerate(self.teacher.members_):
                if not isinstance(member, Encoder):
                    raise SettingsError(f"A {type(member).__name__} has no tokens to compare. Set features=0.")
                window = batch.context, batch.context_observed
                if isinstance(model, Ensemble):
                    window = model.given(i, *window)
                found.append(pooled(member.eval().features(*window), "mean").numpy())
        return np.concatenate(found, axis=1)

    def gather(self, series: NDArray[np.int64], future: NDArray[np.int64]) -> NDArray[np.float64]:
        """The past of each window [b, C, T] as long as this teacher reads it, NaN where there is none."""
        data, length = self.windows.data, self.length
        x = np.full((len(series), len(self.order), length), np.nan)
        for j, (i, end) in enumerate(zip(series.tolist(), future.tolist(), strict=True)):
            size, stop = min(length, end), data.offsets[i] + end
            x[j, :, length - size :] = data.values[self.order, stop - size : stop]
        return x


class _Contexts:
    """A student's windows as the teacher reads them: its own length of past, its own scale; no future."""

    def __init__(self, asked: _WindowTeacher) -> None:
        self.asked = asked

    @property
    def n_channels(self) -> int:
        """C."""
        return len(self.asked.order)

    def __len__(self) -> int:
        return len(self.asked.windows)

    def batch(self, index: NDArray[np.int64], channels: slice = slice(None)) -> Batch:
        """The windows of these numbers [B]."""
        windows, scaler = self.asked.windows, self.asked.scaler
        series, future = windows.locate(index)
        x = self.asked.gather(series, future)
        row = series if len(scaler.mean) > 1 else np.zeros_like(series)
        x = torch.from_numpy((x - scaler.mean[row][:, :, None]) / scaler.scale[row][:, :, None]).float()[:, channels]
        observed = ~x.isnan()
        number = torch.from_numpy(windows.first_steps[series] + future - self.asked.length)
        return Batch(
            context=x.nan_to_num(0.0), target=x[..., :0], context_observed=None if observed.all() else observed,
            target_observed=None, series=torch.from_numpy(series), start=number,
        )  # fmt: skip


class _CaseTeacher:
    """What a teacher of classification says of a student's training cases."""

    def __init__(self, teacher: Any, cases: Cases, labels: list[Any]) -> None:
        if not isinstance(teacher, Classifier):
            raise SettingsError(
                f"A classifier is taught by classifiers, but the teacher is {a_or_an(type(teacher).__name__)}."
            )
        theirs = teacher.classes_.tolist()
        if set(theirs) != set(labels):
            odd = sorted(set(map(str, theirs)) ^ set(map(str, labels)))[0]
            raise DataError(f"Teacher and student tell other classes apart: {odd!r} is known to one of them only.")
        self.teacher, self.cases = teacher, cases
        self.columns = [theirs.index(label) for label in labels]

    def ask(self, index: NDArray[np.int64]) -> NDArray[np.float64]:
        """The probability of every class for these cases: [b, K]."""
        data = self.cases.data.cases(int(index[0]), int(index[-1]) + 1)
        return self.teacher.predict_proba(data)[:, self.columns]

    def features(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Its embeddings of these cases: [b, d]."""
        return self.teacher.embed(self.cases.data.cases(int(index[0]), int(index[-1]) + 1))


def _teachers(given: Any, student: Estimator) -> list[Any]:
    """One or several teachers as they are asked."""
    several: list[Any] = list(given) if isinstance(given, list | tuple) else [given]
    if not several:
        raise SettingsError("There is no teacher: give a fitted estimator, or several.")
    found: list[Any] = []
    for one in several:
        if isinstance(one, str | Path):
            from prismts.estimators.load import load

            one = load(one)
        if isinstance(one, Estimator):
            if type(one) is not type(student):
                raise SettingsError(
                    f"A {type(student).__name__} is taught by its like, but the teacher is "
                    f"{a_or_an(type(one).__name__)}."
                )
            if one is student:
                raise SettingsError("A model cannot teach itself while it learns. Give the student as a new estimator.")
            if not hasattr(one, "model_"):
                raise NotFittedError("The teacher has not learned anything yet. Call its fit first.")
        elif not isinstance(one, Teacher):
            raise SettingsError(
                f"A teacher is a fitted estimator, a folder of one, or has levels, fingerprint and predict, but got a "
                f"{type(one).__name__}."
            )
        elif not isinstance(student, Forecaster):
            raise SettingsError(f"A {type(one).__name__} continues windows, so it teaches forecasters alone.")
        found.append(one)
    return found


def _teacher_hash(teacher: Any) -> str:
    """Tells the answers of two teachers apart."""
    if not isinstance(teacher, Estimator):
        return str(teacher.fingerprint)
    fitted, arrays = teacher._to_save()
    text = json.dumps([type(teacher).__name__, fitted, weights_hash(teacher.model_)], sort_keys=True, default=str)
    return hashlib.sha256(f"{text} {_digest(*(arrays[name] for name in sorted(arrays)))}".encode()).hexdigest()


def _digest(*arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _rows_of_levels(wanted: list[float] | None, there: list[float] | None) -> list[int] | None:
    """Which of the teacher's quantiles the student learns; its one answer where it has none, None for its mean."""
    if wanted is None:
        if there is None:
            return None
        return [int(np.argmin(np.abs(np.asarray(there) - 0.5)))]
    lacking = [q for q in wanted if there is None or not np.isclose(there, q).any()]
    if lacking:
        told = "points alone" if there is None else f"the levels {', '.join(f'{q:g}' for q in there)}"
        raise SettingsError(
            f"The student forecasts the quantile {lacking[0]:g}, which the teacher does not know: it gives {told}."
        )
    return [int(np.argmin(np.abs(np.asarray(there) - q))) for q in wanted]


def _unscaled(said: NDArray[np.float64], scaler: StandardScaler, series: NDArray[np.int64]) -> NDArray[np.float64]:
    """[b, (Q), C, H] in the units of the data."""
    mean, scale = _of_rows(scaler, series, said.ndim)
    return said * scale + mean


def _scaled(said: NDArray[np.float64], scaler: StandardScaler, series: NDArray[np.int64]) -> NDArray[np.float64]:
    """[b, (Q), C, H] in units of the scaler."""
    mean, scale = _of_rows(scaler, series, said.ndim)
    if said.shape[-2] != mean.shape[-2]:
        raise ShapeError(f"A teacher answers for {mean.shape[-2]} channels, but answered for {said.shape[-2]}.")
    return (said - mean) / scale


def _of_rows(
    scaler: StandardScaler, series: NDArray[np.int64], ndim: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    row = series if len(scaler.mean) > 1 else np.zeros_like(series)
    mean, scale = scaler.mean[row][:, :, None], scaler.scale[row][:, :, None]  # [b, C, 1]
    return (mean, scale) if ndim == 3 else (mean[:, None], scale[:, None])
