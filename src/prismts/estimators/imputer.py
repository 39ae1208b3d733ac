"""Fill what is missing of tables and arrays: fit, transform, judge on points that were taken away."""

from __future__ import annotations

import time as clock
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import narwhals as nw
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prismts.data.readers import read_with_kind
from prismts.data.scaling import StandardScaler
from prismts.data.series import Collection, Series, storage_dtype
from prismts.data.splits import Borders
from prismts.data.tables import TableKind, is_frame, to_table
from prismts.errors import DataError, SettingsError, unknown_name
from prismts.estimators.answer import check_finite, free_name
from prismts.estimators.base import Estimator, joined, on_device
from prismts.estimators.match import in_steps_of, reordered, scaler_for
from prismts.estimators.parts import parts_of
from prismts.evaluation.protocols import data_hash
from prismts.evaluation.scores import Scores
from prismts.layers.masking import MASKS, Hide
from prismts.layers.missing import bridge
from prismts.layers.products import quick_products
from prismts.ranges import expect_seed
from prismts.tasks.reconstruct import Reconstruct
from prismts.training.fit import FitConfig, FitResult
from prismts.windows import Batch, Windows

__all__ = ["IMPUTE_SETTINGS", "ImputeRecipe", "Imputer"]

_SHORTEST_CONTEXT = 8  # steps that a training window of a series shorter than the context needs
_MOST_WINDOWS = 10_000  # of an epoch; of more, every k-th is read, since neighbors differ in one step only
_MOST_CHECKED = 1_500  # validation windows
_MIXED = 64  # channels up to which they are mixed; a wider table is read channel by channel, which needs less memory
_ROWS = 8192  # windows times channels that go through the model at once
_FAINT = 1e-6  # weight of a window in which a channel is missing throughout, beside windows that see some of it


@dataclass(frozen=True, kw_only=True)
class ImputeRecipe:
    """Everything about an imputer that is not its data or its context."""

    title: str
    model: Mapping[str, Any] = field(default_factory=dict)  # settings of the architecture
    fit: FitConfig = field(default_factory=FitConfig)
    masks: tuple[str, ...] | None = None  # names of what is hidden in training; None for the mixture of all
    loss: str = "mse"
    head_dropout: float = 0.0
    n_members: int = 1  # networks that differ in their seed, whose mean is the answer


_DEFAULT = ImputeRecipe(
    title="ConvTimeNet on single steps beside straight lines, told what it sees",
    model={"patches": "points", "kernel_sizes": (7, 25, 49), "feed_forward": 64, "dropout": 0.1},
    fit=FitConfig(max_epochs=4, min_steps=500, patience=20, batch_size=64, learning_rate=2e-3, schedule="one_cycle"),
)
# where channels are read apart, every channel has tokens of its own: fewer and longer ones, and smaller batches
_APART: dict[str, Any] = {"patches": "uniform", "patch_length": 8, "stride": 4}
_ROWS_PER_STEP = 448  # windows times channels in a training step then

IMPUTE_SETTINGS: dict[str, ImputeRecipe] = {
    "default": _DEFAULT,
    "points": replace(_DEFAULT, title="the default, trained for single missing points only", masks=("points",)),
}


class Imputer(Estimator):
    """Learns how the points of a table depend on each other, and fills those that are missing.

    Trained by hiding observed points (single ones, spans, stretches of all channels, whole channels) and telling them
    from the rest. Before training the answer is linear interpolation; what is learned is added to it.

    Data may be a table (pandas, polars, pyarrow; wide, or long with ``series``), a path to one, a ``Series``, a
    ``Collection``, or an array [n_channels, n_timepoints] or [n_cases, n_channels, n_timepoints]. NaN means missing.
    Windows overlap and their answers are averaged, the middle of a window counting most. Where no window sees a point
    of a channel, or of any channel that may stand in for it, a gap is crossed by a straight line; a channel of which
    nothing at all is known is filled from the other channels or, where channels are read apart, with its mean in
    training. Such a channel is refused in training.

    Args:
        model: a name of ``prismts.models.MODELS`` that is an encoder.
        context_length: steps the model reads at once.
        setting: a named recipe of ``IMPUTE_SETTINGS``.
        model_settings: settings of the architecture that replace those of the recipe. Up to 64 channels are mixed;
            ``{"channels": "independent"}`` reads them apart.
        fit_settings: settings of ``FitConfig`` that replace those of the recipe.
        n_members: networks that differ in their seed, whose mean is the answer; None takes the number of the recipe.
        stride: steps from one training window to the next; None takes the smallest that gives 10 000 windows at most.
        time: name of the time column; found by itself if None.
        series: name of the column that tells the series of a long table apart.
        values: names of the columns to fill; all numeric ones if None.
        frequency: of the timestamps; found by itself if None.
        random_state: seed of everything random.
        progress: whether to show a bar.
        run_folder: keeps checkpoints, so that a killed ``fit`` resumes when it is called again.

    Attributes:
        model_: the trained network, or the ``Ensemble`` of them.
        scaler_: fitted on the training part.
        fit_result_: best epoch and losses by epoch of the first network, seconds of all.
        n_channels_, channels_, frequency_: what was learned from.
    """

    _bound = ("model", "setting", "context_length", "model_settings")

    def __init__(
        self,
        model: str = "convtimenet",
        *,
        context_length: int = 96,
        setting: str = "default",
        model_settings: Mapping[str, Any] | None = None,
        fit_settings: Mapping[str, Any] | None = None,
        n_members: int | None = None,
        stride: int | None = None,
        time: str | None = None,
        series: str | None = None,
        values: Sequence[str] | None = None,
        frequency: str | None = None,
        random_state: int = 0,
        progress: bool = True,
        run_folder: str | Path | None = None,
    ) -> None:
        self.model = model
        self.context_length = context_length
        self.setting = setting
        self.model_settings = model_settings
        self.fit_settings = fit_settings
        self.n_members = n_members
        self.stride = stride
        self.time = time
        self.series = series
        self.values = values
        self.frequency = frequency
        self.random_state = random_state
        self.progress = progress
        self.run_folder = run_folder

    # ---- learning

    def fit(self, data: Any, y: Any = None, *, validation: float | Borders | Any | None = 0.2) -> Self:
        """Learn from data; ``validation`` decides which epoch is kept. ``y`` is ignored, as scikit-learn has it.

        validation: a fraction at the end of every series; ``Borders``, of which train and validation are read and the
        rest is left alone; other data of the same form; or None or 0 for none.
        """
        self._encoder_only("fill gaps from")
        for name in ("context_length", "stride"):
            value = getattr(self, name)
            if (value is not None or name == "context_length") and (not isinstance(value, Integral) or value < 1):
                raise SettingsError(f"{name} is a whole number of time steps, at least 1, but got {value!r}.")
        collection = _as_stored(data, self._read(data)[0])
        recipe = self._recipe(collection.n_channels)
        parts = parts_of(collection, validation, lambda other: self._read(other)[0])
        ends, held_out = parts.train_ends, parts.held_out
        scaler = _scaler_of(collection, ends)
        train = self._windows(collection, scaler, _MOST_WINDOWS, self.stride, end=ends)
        check = None
        if held_out is not None:
            own = (
                scaler if held_out is collection else scaler_for(held_out, scaler, collection.names, may_be_empty=True)
            )
            check = self._windows(held_out, own, _MOST_CHECKED, None, begin=parts.begin, end=parts.end)
        digest = data_hash(collection)
        outside = "" if held_out is None or held_out is collection else data_hash(held_out)
        task = self._task(recipe)
        span = [np.asarray(step).tolist() for step in (parts.begin, parts.end)]
        members, results = self._train(
            lambda: self._build(recipe, collection.n_channels), task, train, check, recipe.fit,
            n_members=recipe.n_members, mark=f"{digest} {ends.tolist()} {span} {outside}",
            title=f"{self.model} on {collection.name}",
        )  # fmt: skip
        for member in members:
            task.finish(member, check)
        self.model_ = joined(members)
        self.fit_result_ = replace(results[0], seconds=sum(result.seconds for result in results))
        self.recipe_, self.scaler_, self.series_names_ = recipe, scaler, collection.names
        self.channels_, self.n_channels_ = collection.channels, collection.n_channels
        self.frequency_ = collection.frequency
        self.n_windows_ = {"train": len(train), "validation": 0 if check is None else len(check)}
        self.data_hash_ = digest
        self._inference: nn.Module | None = None
        self._fitted()
        return self

    def fit_transform(self, data: Any, y: Any = None, *, validation: float | Borders | Any | None = 0.2) -> Any:
        """Learn from data, and fill what is missing of them."""
        return self.fit(data, validation=validation).transform(data)

    # ---- filling

    def transform(self, data: Any) -> Any:
        """The data with every missing value filled, as the kind of table, array or series that came in.

        Observed values come back exactly as they were, and so do timestamps. Rows that were missing from a table of
        regular times come back too, filled. What is filled in a file is rounded to single precision, where that holds
        its movement. A column of a table keeps its type where that can
        hold its values: float32 and float64 always, whole numbers and truth values where there was no gap; else it
        becomes float64. Columns that were not read (see ``values``) are left
        out.
        """
        self._check_fitted()
        read, kind = self._read_new(data, exact=True)
        collection = self._like_training(read, "transform")
        filled = self._filled(_as_stored(data, collection))
        check_finite(np.split(filled, collection.offsets[1:-1], axis=1), collection)
        filled = np.where(np.isnan(collection.values), filled, collection.values)
        if collection.channels != read.channels and set(collection.channels) == set(read.channels):
            filled = filled[[self.channels_.index(name) for name in read.channels]]
            collection = read
        return _in_kind(data, kind, collection, filled)

    # ---- judging

    def evaluate_removed(
        self, data: Any, share: float = 0.25, kind: str = "points", *, length: float = 12.0, seed: int = 0
    ) -> Scores:
        """Take observed points of whole series away, fill them, and tell how far off they are.

        kind: a name of ``MASKS``: "points", "blocks" or "stretches" of ``length`` steps on average, or "channels" over
        the whole length of a series. Scores are in units of the scaler: mse and mae, and the same of linear
        interpolation (``mse_line``) and of the last value (``mse_last``) through the whole series. ``n_scored`` counts
        the points.
        """
        self._check_fitted()
        began = clock.perf_counter()
        collection = self._like_training(self._read_new(data, empty_channels=False)[0], "evaluate_removed")
        hide, generator = _hide(kind, share, length), torch.Generator().manual_seed(expect_seed(seed))
        hidden = np.zeros(collection.values.shape, dtype=bool)  # [C, total]
        for begin, end in zip(collection.offsets[:-1], collection.offsets[1:], strict=True):
            seen = torch.from_numpy(~np.isnan(collection.values[:, begin:end]))
            hidden[:, begin:end] = hide(seen[None], generator)[0].numpy()
        left = replace(collection, values=np.where(hidden, np.nan, collection.values))
        told = {"": self._filled(left), "_line": _per_series(left, bridge), "_last": _per_series(left, _last_value)}
        scaler = scaler_for(collection, self.scaler_, self.series_names_, may_be_empty=True)
        sums = _ErrorSums()
        for i in range(len(collection)):
            part = slice(collection.offsets[i], collection.offsets[i + 1])
            row = i if len(scaler.mean) > 1 else 0
            at = hidden[:, part]
            for name, values in told.items():
                values = np.where(np.isnan(values[:, part]), scaler.mean[row][:, None], values[:, part])
                error = (values - collection.values[:, part]) / scaler.scale[row][:, None]
                sums.add(name, error[at])
        return sums.scores(f"{share:.1%} {kind} removed, seed {seed}", collection.name, clock.perf_counter() - began)

    def evaluate_windows(
        self,
        data: Any,
        share: float = 0.25,
        kind: str = "points",
        *,
        length: float = 12.0,
        begin: int = 0,
        end: int | None = None,
        stride: int = 1,
        seed: int = 0,
    ) -> Scores:
        """Hide points of every window that ends in steps ``begin`` to ``end``, and tell how far off the answers are.

        The protocol of the field's tables: windows of ``context_length`` steps, each with its own hidden points, read
        alone. What is hidden of a window depends on its values and the seed only. Measures as in ``evaluate_removed``,
        lines and last values within the window; ``n_scored`` counts the hidden points.
        """
        self._check_fitted()
        began = clock.perf_counter()
        collection = self._like_training(self._read_new(data, empty_channels=False)[0], "evaluate_windows")
        scaler = scaler_for(collection, self.scaler_, self.series_names_, may_be_empty=True)
        windows = Windows(collection, self.context_length, 0, scaler=scaler, begin=begin, end=end, stride=stride)
        task, sums = Reconstruct(_hide(kind, share, length), seed=expect_seed(seed)), _ErrorSums()
        for batch in windows.in_order(max(1, _ROWS // windows.n_channels)):
            hidden = task.fixed_masks(batch)
            seen = ~hidden if batch.context_observed is None else batch.context_observed & ~hidden
            left = batch.context.masked_fill(~seen, 0.0)
            answers = {"": self._answer(left, seen), "_line": bridge(left, seen), "_last": _last_value(left, seen)}
            for name, answer in answers.items():
                sums.add(name, (answer - batch.context)[hidden].double().numpy())
        protocol = f"{share:.1%} {kind} hidden of {len(windows)} windows, seed {seed}"
        return sums.scores(protocol, collection.name, clock.perf_counter() - began)

    # ---- keeping

    def _to_save(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        fitted = {
            "channels": list(self.channels_), "series_names": list(self.series_names_), "n_windows": self.n_windows_,
            "fit_result": asdict(self.fit_result_), "data_hash": self.data_hash_, "frequency": self.frequency_,
            "recipe": {**asdict(replace(self.recipe_, model={})), "model": dict(self.recipe_.model)},
        }  # fmt: skip
        return fitted, {"scaler.mean": self.scaler_.mean, "scaler.scale": self.scaler_.scale}

    def _restore(self, fitted: dict[str, Any], arrays: dict[str, NDArray]) -> None:
        recipe: dict[str, Any] = dict(fitted["recipe"])
        recipe["fit"] = FitConfig(**recipe["fit"])
        recipe["masks"] = None if recipe["masks"] is None else tuple(recipe["masks"])
        self.recipe_ = ImputeRecipe(**recipe)
        self.channels_, self.n_channels_ = tuple(fitted["channels"]), len(fitted["channels"])
        self.frequency_ = fitted.get("frequency")  # folders of before lack it
        self.series_names_, self.n_windows_ = tuple(fitted["series_names"]), fitted["n_windows"]
        self.fit_result_, self.data_hash_ = FitResult(**fitted["fit_result"]), fitted["data_hash"]
        self.scaler_ = StandardScaler(arrays["scaler.mean"], arrays["scaler.scale"])
        with torch.random.fork_rng():  # what is drawn here is replaced at once
            self.model_ = joined([self._build(self.recipe_, self.n_channels_) for _ in range(self.recipe_.n_members)])
        self._inference = None

    # ---- inside

    def _like_training(self, data: Collection, what: str) -> Collection:
        remedy = "Bring them to steps of that length first, or fit an imputer on such data."
        return in_steps_of(reordered(data, self.channels_, what), self.frequency_, remedy)

    def _read(self, data: Any, *, empty_channels: bool = False, exact: bool = False) -> tuple[Collection, TableKind]:
        if isinstance(data, tuple) and len(data) == 2 and isinstance(data[1], TableKind):  # as read_with_kind gives it
            return Collection.of(data[0]) if isinstance(data[0], Series) else data[0], data[1]
        read, kind = read_with_kind(
            data, time=self.time, series=self.series, values=self.values, frequency=self.frequency,
            empty_channels="keep" if empty_channels else "refuse", exact=exact,
        )  # fmt: skip
        return (Collection.of(read) if isinstance(read, Series) else read), kind

    def _recipe(self, n_channels: int) -> ImputeRecipe:
        if self.setting not in IMPUTE_SETTINGS:
            raise unknown_name("setting", self.setting, IMPUTE_SETTINGS)
        recipe = IMPUTE_SETTINGS[self.setting]
        fitting = dict(self.fit_settings or {})
        settings: dict[str, Any] = dict(self.model_settings or {})
        if self.model == "convtimenet":
            settings = {"channels": "mixed" if n_channels <= _MIXED else "independent", **settings}
            apart = _APART if settings["channels"] == "independent" else {}
            settings = {**recipe.model, **apart, **settings}
            if apart and "batch_size" not in fitting:
                at_once = min(n_channels, fitting.get("channels_at_once", recipe.fit.channels_at_once))
                fitting["batch_size"] = max(1, min(recipe.fit.batch_size, _ROWS_PER_STEP // at_once))
        n_members = recipe.n_members if self.n_members is None else self.n_members
        return replace(recipe, model=settings, fit=recipe.fit.changed(fitting), n_members=n_members)

    def _task(self, recipe: ImputeRecipe) -> Reconstruct:
        masks = None if recipe.masks is None else list(recipe.masks)
        return Reconstruct(masks, loss=recipe.loss, head_dropout=recipe.head_dropout)  # type: ignore[arg-type]

    def _build(self, recipe: ImputeRecipe, n_channels: int) -> nn.Module:
        return self._task(recipe).build(
            self.model, recipe.model, n_channels=n_channels, context_length=self.context_length
        )

    def _windows(self, data: Collection, scaler: StandardScaler, most: int, stride: int | None, **part: Any) -> Windows:
        shortest = min(_SHORTEST_CONTEXT, self.context_length)
        windows = Windows(
            data, self.context_length, 0, scaler=scaler, min_context=shortest, stride=stride or 1, **part
        )  # fmt: skip
        if stride is None and len(windows) > most:
            return self._windows(data, scaler, most, -(-len(windows) // most), **part)
        return windows

    def _answer(self, x: Tensor, observed: Tensor) -> Tensor:
        """What the model makes of scaled windows x [B, C, T], in groups of channels where it reads them apart."""
        if self._inference is None:
            self._inference = on_device(self.model_)
        model = self._inference
        place = next(p.device for p in model.parameters())
        group = _MIXED if getattr(model, "n_channels", None) is None else x.shape[1]
        with torch.inference_mode(), quick_products():
            parts = zip(x.to(place).split(group, dim=1), observed.to(place).split(group, dim=1), strict=True)
            return torch.cat([model(one, seen) for one, seen in parts], dim=1).float().cpu()

    def _filled(self, data: Collection) -> NDArray[np.floating]:
        """The values [C, total] of these data with every gap filled; what was observed is left as it is."""
        gaps = np.isnan(data.values)
        if not gaps.any():
            return data.values
        scaler = scaler_for(data, self.scaler_, self.series_names_, may_be_empty=True)
        total = np.zeros(data.values.shape)
        weight = np.zeros(data.values.shape)
        mixed = getattr(self.model_, "n_channels", None) is not None
        hill = np.minimum(np.arange(1, self.context_length + 1), np.arange(self.context_length, 0, -1)).astype(float)
        for batch, ends in self._windows_with_gaps(data, scaler, np.any(gaps, axis=0)):
            seen = batch.context_observed
            assert seen is not None  # a window without gaps is not read
            answer = self._answer(batch.context, seen).numpy()
            some = seen.any(-1).numpy()  # [B, C]
            trust = some + _FAINT * (~some & (some.any(1, keepdims=True) & mixed))
            for b, (i, end) in enumerate(zip(batch.series.tolist(), ends.tolist(), strict=True)):
                size = min(self.context_length, end)
                into = slice(data.offsets[i] + end - size, data.offsets[i] + end)
                share = trust[b][:, None] * hill[-size:]
                total[:, into] += share * answer[b][:, -size:]
                weight[:, into] += share
        filled = data.values.astype(np.float64)
        lines = _per_series(data, bridge)
        for i in range(len(data)):
            part = slice(data.offsets[i], data.offsets[i + 1])
            row = i if len(scaler.mean) > 1 else 0
            told = total[:, part] / np.where(weight[:, part] > 0, weight[:, part], 1.0)
            told = scaler.inverse(told, row)
            line = np.where(np.isnan(lines[:, part]), scaler.mean[row][:, None], lines[:, part])
            told = np.where(weight[:, part] > 0, told, line)
            filled[:, part] = np.where(gaps[:, part], told, filled[:, part])
        return filled.astype(data.values.dtype)

    def _windows_with_gaps(
        self, data: Collection, scaler: StandardScaler, gap: Any
    ) -> Iterator[tuple[Batch, NDArray[np.int64]]]:
        """Overlapping windows that hold a gap, and the step of the series at which each ends [B]."""
        sources = [Windows.at_the_end(data, self.context_length, scaler=scaler)]
        if (data.lengths > self.context_length).any():
            step = max(1, self.context_length // 4)
            sources.append(Windows(data, self.context_length, 0, scaler=scaler, stride=step))
        counted = np.concatenate([[0], np.cumsum(gap)])
        for windows in sources:
            series, ends = windows.locate(np.arange(len(windows)))
            last = data.offsets[series] + ends
            first = np.maximum(last - self.context_length, data.offsets[series])
            wanted = np.flatnonzero(counted[last] > counted[first])
            size = max(1, _ROWS // windows.n_channels)
            for begin in range(0, len(wanted), size):
                some = wanted[begin : begin + size]
                yield windows.batch(some), ends[some]


class _ErrorSums:
    """Squared and absolute errors of several answers, added up."""

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = {}

    def add(self, name: str, errors: NDArray[np.floating]) -> None:
        """Errors of any shape, in standard units."""
        known = self.sums.setdefault(name, [0.0, 0.0, 0.0])
        for k, value in enumerate((np.square(errors).sum(), np.abs(errors).sum(), errors.size)):
            known[k] += float(value)

    def scores(self, protocol: str, data: str, seconds: float) -> Scores:
        """mse and mae of every answer."""
        n = int(self.sums[""][2])
        if not n:
            raise DataError(
                "No point was taken away, so there is nothing to judge by. Give more data or a larger share."
            )
        measures: dict[str, float] = {}
        for name, (square, absolute, _) in self.sums.items():
            measures[f"mse{name}"], measures[f"mae{name}"] = square / n, absolute / n
        return Scores(measures, n, seconds, protocol=protocol, data=data)


def _as_stored(given: Any, data: Collection) -> Collection:
    """What the network reads: of tables and files as ``prismts.read`` stores them, though they were read exactly."""
    if isinstance(given, Series | Collection | np.ndarray):
        return data
    return replace(data, values=data.values.astype(storage_dtype(data.values), copy=False))


def _hide(kind: str, share: float, length: float) -> Hide:
    if kind not in MASKS:
        raise unknown_name("mask", kind, MASKS)
    if kind in ("blocks", "stretches"):
        return MASKS[kind](share, length=length)  # type: ignore[call-arg]
    return MASKS[kind](share)


def _last_value(x: Tensor, observed: Tensor) -> Tensor:
    """Each missing point takes the last observed value before it, or the first one where there is none: [..., T]."""
    n = x.shape[-1]
    step = torch.arange(n, device=x.device)
    before = torch.where(observed, step, -1).cummax(-1).values
    first = torch.where(observed, step, n - 1).amin(-1, keepdim=True)
    return x.gather(-1, torch.where(before >= 0, before, first))


def _per_series(data: Collection, fill: Any) -> NDArray[np.float64]:
    """Every series filled by itself, channel by channel: [C, total]; NaN where a channel has no observed value."""
    filled = np.full(data.values.shape, np.nan)
    for begin, end in zip(data.offsets[:-1], data.offsets[1:], strict=True):
        x = torch.from_numpy(data.values[:, begin:end].astype(np.float64))
        seen = ~x.isnan()
        told = fill(x.nan_to_num(0.0), seen)
        filled[:, begin:end] = told.masked_fill(~seen.any(-1, keepdim=True), torch.nan).numpy()
    return filled


def _scaler_of(data: Collection, ends: NDArray[np.int64]) -> StandardScaler:
    """A scaler with a row per series; a channel without a value in one series takes the mean row of the others."""
    mean, scale = np.full((len(data), data.n_channels), np.nan), np.full((len(data), data.n_channels), np.nan)
    for i in range(len(data)):
        part = data.values[:, data.offsets[i] : data.offsets[i] + ends[i]]
        for c in np.flatnonzero(~np.isnan(part).all(1)):
            one = Collection.of(Series(part[c : c + 1], (data.channels[c],)))
            row = StandardScaler.fit(one)
            mean[i, c], scale[i, c] = row.mean[0, 0], row.scale[0, 0]
    empty = np.isnan(mean).all(0)
    if empty.any():
        name = data.channels[int(np.argmax(empty))]
        raise DataError(
            f"Channel {name!r} has no observed value in the training part, so there is nothing to learn it from. Leave "
            "the column out (values=...), or train on more."
        )
    return StandardScaler(
        np.where(np.isnan(mean), np.nanmean(mean, 0), mean), np.where(np.isnan(scale), np.nanmean(scale, 0), scale)
    )


def _in_kind(given: Any, kind: TableKind, data: Collection, filled: NDArray[np.floating]) -> Any:
    """Filled values [C, total] as what came in, with the observed values taken from there."""
    if isinstance(given, Series | Collection):
        return replace(given, values=filled, channels=data.channels)
    if isinstance(given, np.ndarray):
        if given.ndim == 2:
            return _keep(given, filled)
        return _keep(given, filled.reshape(filled.shape[0], len(data), -1).transpose(1, 0, 2))
    if kind.backend == "array":
        cases = [filled[:, begin:end] for begin, end in zip(data.offsets[:-1], data.offsets[1:], strict=True)]
        return [_keep(old, new) for old, new in zip(given, cases, strict=True)]
    columns: dict[str, NDArray] = {}
    series, time = kind.series or free_name("series", data.channels), kind.time or free_name("step", data.channels)
    if len(data) > 1 or kind.series is not None:
        columns[series] = np.repeat(np.array(data.names, dtype=object), data.lengths)
    frame = _frame(given)
    if data.timestamps is not None:
        columns[time] = _times(given if frame is None else frame.to_native(), time, data.timestamps)
    for c, channel in enumerate(data.channels):
        old = None if frame is None else frame if isinstance(frame, nw.Series) else _of_name(frame, channel)
        columns[channel] = _column(old, filled[c], data.values[c])
    return to_table(replace(kind, time=time, series=series), columns)


def _times(table: Any, name: str, read: NDArray[np.datetime64]) -> Any:
    """The times as they stand in the table, or as they were read where rows were added or moved."""
    old: Any = None
    if isinstance(table, pd.DataFrame | pd.Series) and name not in getattr(table, "columns", ()):
        level = name if name in table.index.names else 0
        old = table.index.get_level_values(level) if table.index.nlevels == 1 or level == name else None
    elif is_frame(table) and name in getattr(table, "columns", ()):
        old = table[name]
    if old is None or len(old) != len(read):
        return read
    if isinstance(old, pd.PeriodIndex):
        plain = old.to_timestamp()
    else:
        try:
            plain = pd.DatetimeIndex(np.asarray(old) if getattr(old, "dt", None) is None else old)
        except (TypeError, ValueError):
            return read
    plain = plain if plain.tz is None else plain.tz_convert("UTC").tz_localize(None)
    return old if (plain.to_numpy() == read).all() else read


def _frame(given: Any) -> nw.DataFrame[Any] | nw.Series[Any] | None:
    """The table that came in, or the column that stood for one; None of a file."""
    if not is_frame(given):
        return None
    frame: Any = nw.from_native(given, allow_series=True)
    return frame.collect() if isinstance(frame, nw.LazyFrame) else frame


def _of_name(frame: nw.DataFrame[Any], name: str) -> nw.Series[Any] | None:
    """A column by its name as it is read: pandas may call one by a number."""
    places = [i for i, column in enumerate(frame.columns) if str(column).strip() == name]
    return frame[:, places[0]] if len(places) == 1 else None


def _column(old: nw.Series[Any] | None, filled: NDArray[np.floating], read: NDArray[np.floating]) -> NDArray:
    """A column with its gaps filled: as it stands in the table, or as it was read where rows were added or moved."""
    told = filled
    if storage_dtype(filled[None]) == np.float32:  # what is filled is no more exact, and shorter to read
        short = filled.astype(np.float32).astype(str).astype(np.float64)
        told = np.where(np.isnan(read) | (read.dtype == np.float32), short, filled)
    if old is None or not (old.dtype.is_numeric() or old.dtype == nw.Boolean):
        return told
    kind = old.dtype
    if len(old) == len(filled):
        stood = np.asarray(old.cast(nw.Float64).to_numpy(), dtype=np.float64)
        seen = ~np.isnan(read)
        if np.allclose(stood[seen], read[seen], rtol=1e-6, atol=0, equal_nan=False):
            if seen.all() and not kind.is_float():
                return np.asarray(old.to_numpy())
            told = np.where(seen, stood, filled)
    return told.astype(np.float32) if kind == nw.Float32 else told


def _keep(old: NDArray, filled: NDArray[np.floating]) -> NDArray:
    """The filled values where the old ones are missing, in the type of the old ones."""
    if not np.issubdtype(old.dtype, np.floating):
        return old.copy()
    near = np.isclose(old, filled, rtol=1e-5, atol=0)  # a code for a missing value was replaced
    return np.where(np.isnan(old) | ~near, filled.astype(old.dtype), old)
