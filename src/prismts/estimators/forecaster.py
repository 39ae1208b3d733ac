"""Forecast tables and arrays: fit, predict beyond the end, backtest, save."""

from __future__ import annotations

import json
import time as clock
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from prismts.analysis.proposal import Proposal, propose_windows
from prismts.data.calendar import season_length
from prismts.data.irregular import Measurements, on_grid
from prismts.data.readers import read_with_kind
from prismts.data.scaling import StandardScaler
from prismts.data.series import Collection, Finding, Series
from prismts.data.splits import Borders
from prismts.data.tables import TableKind
from prismts.errors import DataError, SettingsError
from prismts.estimators.answer import check_finite, forecast_table
from prismts.estimators.base import Estimator, joined, on_device, weights_hash
from prismts.estimators.conformal import conformal_offsets
from prismts.estimators.forecast_arguments import check_forecaster
from prismts.estimators.forecast_batches import forecast_batches, in_order
from prismts.estimators.learned import Learned
from prismts.estimators.match import check_times, in_steps_of, reordered, rows_of, scaler_for, season_scales
from prismts.estimators.parts import parts_of
from prismts.estimators.recipes import (
    NETWORK_FIT,
    Member,
    Recipe,
    find_recipe,
    gentle,
    patches_for_context,
    with_patches,
)
from prismts.estimators.sizes import sized
from prismts.evaluation.protocols import data_hash
from prismts.evaluation.running import RunningForecastScores
from prismts.evaluation.scores import Scores
from prismts.layers.horizon import with_horizon
from prismts.models import Architecture, find_model
from prismts.tasks.forecast import Forecast, channel_groups
from prismts.training.fit import FitConfig, FitResult
from prismts.training.progress import waiting
from prismts.windows import Batch, Windows

__all__ = ["Backtest", "Forecaster"]

SHORTEST_CONTEXT = 8  # observed steps that a window of a series shorter than the context needs
_CHANNELS = 64  # of a wide table that go through a model which reads them apart at once
_ROWS_PER_STEP = 256  # in training on a wide table on a CPU, where what a step holds lies beside the table in memory
_CALIBRATED = 2**25  # misses that calibration reads; of a wide table's windows, every k-th
_FEWEST_CALIBRATED = 50  # windows that it reads in any case


@dataclass(frozen=True, eq=False)
class Backtest:
    """Forecasts of known stretches, and how far they were off."""

    scores: Scores
    forecasts: NDArray[np.float32] | None = field(default=None, repr=False)  # [W, C, H] or [W, Q, C, H], own units
    targets: NDArray[np.float32] | None = field(default=None, repr=False)  # [W, C, H], NaN where unobserved
    origins: NDArray[np.int64] | None = field(default=None, repr=False)  # [W] step at which each future begins


class Forecaster(Estimator):
    """Learns from one table, or from many series at once, and continues each of them.

    Data may be a table (pandas, polars, pyarrow; wide, or long with ``series``), a path to one, a ``Series``, a
    ``Collection``, an array [n_channels, n_timepoints] or [n_cases, n_channels, n_timepoints], or the pair that
    ``read_with_kind`` returns. NaN means not observed. Forecasts come back as the kind of table that went in, in its
    own units.

    Args:
        model: a name of ``prismts.models.MODELS``, or "auto": a ConvTimeNet whose patches, kernels, depth and width a
            rule proposes from the training part (see ``proposal_``); ``model_settings`` stay as given.
        context_length: steps of past the model reads.
        horizon: steps of future it writes.
        quantiles: levels to forecast, such as (0.1, 0.5, 0.9), calibrated on validation; None forecasts points.
        setting: a named recipe of ``FORECAST_SETTINGS``: "default" (a network beside lines that read steps, days and
            weeks, and may be others for each channel, where folds say so), "seasonal_line" (the same with a network of
            the last 336 steps of any context), "chosen_line" (the default beside one line that reads step by step),
            "individual_line" (which may be another for each channel, where folds say so), "coupled_line" (such lines,
            corrected by what all channels did lately, where folds say so), "ridge_line" (beside the plain ridge),
            "reverting_line" (beside a line that may pull to the mean of training), "long_line" (a network of the last
            336 steps beside a chosen line that reads all of the context), "two_contexts" (the mean of "chosen_line" on
            the last 336 steps and of "long_line", in the time of both: docs/log.md), "two_encoders" (with a cross
            learner in the place of the latter), "network" (no line beside it), or "published" (the authors' form).
            Rivals whose authors' training we follow have it under "default" and "published".
        model_settings: settings of the architecture that replace those of the recipe; of two, those of the first.
        fit_settings: settings of ``FitConfig`` that replace those of the recipe.
        n_members: networks that differ in their seed, whose mean is the forecast; None takes the number of the recipe.
        loss: of point forecasts in training, in place of that of the recipe: "mse", "mae", "huber", "relative_mse" or
            "soft_dtw"; validation always judges by squared errors.
        line: the straight line beside the network, in place of that of the recipe: "seasonal", as the default has it,
            "chosen", "individual", "coupled", "ridge" or "reverting".
        head: "flatten", one map from all tokens to the horizon, or "any_horizon": each stretch of the future asks the
            tokens, no line runs beside, and ``predict(horizon=...)`` may ask for more steps than training did.
        times: "grid" reads rows on the steps of their frequency; "real" reads each where it was measured, with models
            that can ("universal"): a table whose rows come at any time needs neither to be filled nor moved. Steps,
            horizon and borders are counted in the frequency, which must be given where it cannot be seen.
        time: name of the time column; found by itself if None.
        series: name of the column that tells the series of a long table apart.
        values: names of the columns to forecast; all numeric ones if None.
        frequency: of the timestamps; found by itself if None.
        warm_start: whether ``fit`` on a fitted forecaster goes on from its weights; what these had learned from stays
            noted in ``taught_by_``, so that ``prism evaluate`` can say where scores are of rows that they knew.
        random_state: seed of everything random.
        progress: whether to show a bar.
        run_folder: keeps checkpoints, so that a killed ``fit`` resumes when it is called again.

    Attributes:
        model_: the trained network, or the ``Ensemble`` of them; ``members_`` are the networks in either case.
        scaler_: fitted on the training part.
        fit_result_: best epoch and losses by epoch of the first network, seconds of all. A network of which validation
            wants nothing is trained once more, gently, and what is told is of that training.
        proposal_: what the rule of ``model="auto"`` proposed and why, in words when printed; None for other models.
        line_: which straight line was chosen to run beside the network, in words.
        network_shares_, network_share_: how much of each network counts beside it, and of all on average, from 0 to 1;
            None where there is nothing to weigh.
        n_channels_, channels_, frequency_: what was learned from.
        tails_: the last context of every series, which ``predict()`` continues.
        train_ends_, test_begins_: for each series, the step after its training part, and the first step that neither
            training nor validation has read.
    """

    _bound = ("model", "setting", "context_length", "horizon", "quantiles", "line", "head", "times", "model_settings")

    def __init__(
        self,
        model: str = "convtimenet",
        *,
        context_length: int = 512,
        horizon: int = 96,
        quantiles: Sequence[float] | None = None,
        setting: str = "default",
        model_settings: Mapping[str, Any] | None = None,
        fit_settings: Mapping[str, Any] | None = None,
        n_members: int | None = None,
        loss: str | None = None,
        line: str | None = None,
        head: str = "flatten",
        times: str = "grid",
        time: str | None = None,
        series: str | None = None,
        values: Sequence[str] | None = None,
        frequency: str | None = None,
        warm_start: bool = False,
        random_state: int = 0,
        progress: bool = True,
        run_folder: str | Path | None = None,
    ) -> None:
        self.model = model
        self.context_length = context_length
        self.horizon = horizon
        self.quantiles = quantiles
        self.setting = setting
        self.model_settings = model_settings
        self.fit_settings = fit_settings
        self.n_members = n_members
        self.loss = loss
        self.line = line
        self.head = head
        self.times = times
        self.time = time
        self.series = series
        self.values = values
        self.frequency = frequency
        self.warm_start = warm_start
        self.random_state = random_state
        self.progress = progress
        self.run_folder = run_folder

    # ---- learning

    def fit(self, data: Any, *, validation: float | Borders | Any | None = 0.2, test: float = 0.0) -> Self:
        """Learn from data; ``validation`` decides when to stop and calibrates quantiles.

        validation: a fraction at the end of every series; ``Borders``, of which train and validation are read and the
        rest is left alone; other data of the same form; or None or 0 for none.
        test: a fraction at the very end of every series that is not looked at (see ``test_begins_``).
        """
        self._check_settings()
        rows, kind = self._read(data)
        collection, measured = self._laid_out(rows)
        parts = parts_of(collection, validation, lambda other: self._read(other)[0], test=test, horizon=self.horizon)
        train_ends, test_begins, held_out = parts.train_ends, parts.test_begins, parts.held_out
        held_measured = measured
        if held_out is not None and held_out is not collection:
            held_out, held_measured = self._laid_out(held_out)
        proposal = self._propose(collection, train_ends)
        recipe = self._recipe(collection, train_ends, proposal)
        if held_out is None:
            recipe = gentle(recipe, self.fit_settings)
        scaler = StandardScaler.fit(collection, train_ends)
        train = self.windows_(collection, scaler, end=train_ends, measured=measured)
        check = None
        if held_out is not None:
            own = scaler if held_out is collection else None
            check = self.windows_(held_out, own, begin=parts.begin, end=parts.end, measured=held_measured)
            if held_out is not collection:
                check = check.scaled(scaler_for(held_out, scaler, collection.names, check.first_future))
        task = self._task(recipe)
        is_trained = find_model(self._architecture).is_trained
        go_on = self.warm_start and is_trained and self._fits(collection, recipe)
        begun_with = weights_hash(self.model_) if go_on else ""
        known_before = dict.fromkeys((Learned.of(self), *self.taught_by_)) if go_on else ()
        digest = data_hash(collection)
        mark = json.dumps([
            digest, train_ends.tolist(), test_begins.tolist(),
            "" if held_out is None or held_out is collection else data_hash(held_out), begun_with,
        ])  # fmt: skip
        before = list(self.members_) if go_on else None
        members, results, shares = self._train_members(task, recipe, train, check, mark, collection.name, before)
        self.taught_by_ = tuple(known_before)
        self.model_ = self._joined(members, recipe)
        seconds = sum(result.seconds for result in results)
        self.fit_result_ = replace(results[0], seconds=seconds) if results else FitResult(0, float("nan"), ())
        known = [share for share in shares if share is not None]
        self.network_shares_ = tuple(shares)
        self.network_share_ = sum(known) / len(known) if known else None
        self._form = self._form_of(recipe)
        self._inference: nn.Module | None = None
        self.scaler_, self.series_names_, self.kind_ = scaler, collection.names, kind
        self.train_ends_, self.test_begins_, self._recipe_ = train_ends, test_begins, recipe
        self.proposal_ = proposal
        self.channels_, self.n_channels_ = collection.channels, collection.n_channels
        self.frequency_ = collection.frequency
        self.season_scale_ = season_scales(collection, train_ends, season_length(collection.frequency))
        self.findings_: tuple[Finding, ...] = collection.findings + _borrowed(scaler, collection)
        self.n_windows_ = {"train": len(train), "validation": 0 if check is None else len(check)}
        self.data_hash_ = digest
        self._keep_tails(collection, measured)
        self.quantile_offsets_ = self._calibrate(check) if self.quantiles is not None else None
        self._fitted()
        return self

    # ---- forecasting

    def predict(self, data: Any = None, *, horizon: int | None = None) -> Any:
        """Continue every series of ``data`` (the training data, if None) by ``horizon`` steps.

        Another ``horizon`` than that of training may be asked for: a shorter one of every model, a longer one where
        ``head="any_horizon"``.

        A series shorter than ``context_length`` is read with the missing past marked as unobserved. Returns the kind of
        table that came in: wide or long with the times of the future and one column per channel, and for quantiles one
        more per level (``load_q0.1``), beside the median; an array gives [C, H], [n, C, H], or [(n,) Q, C, H].
        """
        self._check_fitted()
        horizon = self._asked(horizon)
        if data is None:
            collection, kind, start, measured = self.tails_, self.kind_, self._tail_starts, self._tail_rows
        else:
            rows, kind = self._read_new(data)
            collection, measured = self._laid_out(rows)
            start = np.zeros(len(collection), dtype=np.int64)
        scaler = scaler_for(collection, self.scaler_, self.series_names_)
        timed = self._on_the_clock(collection)
        first_steps = None if timed else start
        windows = Windows.at_the_end(
            collection, self.context_length, scaler=scaler, first_steps=first_steps, measured=measured
        )
        told = self._forecasts(windows, numbered=timed or data is None, horizon=horizon)
        parts = [self._own_units(forecast[..., :horizon], scaler, batch, collection.values) for batch, forecast in told]
        forecast = np.concatenate(parts)  # [n, (Q), C, H]
        check_finite(forecast, collection)
        if kind.backend == "array":
            return forecast[0] if self._single(collection, data) else forecast
        levels = None if self.quantiles is None else [float(q) for q in self.quantiles]
        return forecast_table(forecast, collection, kind, start, self.channels_, levels)

    def backtest(
        self,
        data: Any,
        *,
        begin: int | NDArray[np.int64] = 0,
        end: int | NDArray[np.int64] | None = None,
        stride: int = 1,
        n_windows: int | None = None,
        keep_forecasts: bool = False,
        dtw: bool = False,
    ) -> Backtest:
        """Forecast every window whose future lies in steps ``begin`` to ``end`` of known data, and score them.

        Contexts may reach back before ``begin`` (one step for all series, or one for each). Scores: mse, mae on
        standardized values (with the scaler of the training part), and rmse, mae in the series' own units, mase, smape;
        with quantiles also pinball, crps, coverage and width of the outermost pair. A series that was not in training
        is scaled by its steps before the first one that is scored. ``n_windows`` scores only the first so many windows.
        ``keep_forecasts`` returns the forecasts.
        ``dtw`` adds the mean DTW distance (needs the extra ``bench``).
        """
        self._check_fitted()
        n = n_windows
        if n is not None and (not isinstance(n, Integral) or n is True or n < 1):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise SettingsError(f"n_windows counts the windows to score, at least 1, but got {n!r}.")
        began = clock.perf_counter()
        rows, _ = self._read_new(data)
        collection, measured = self._laid_out(rows)
        windows = self.scaled_windows_(collection, begin=begin, end=end, stride=stride, measured=measured)
        scaler = windows.scaler
        most = len(windows) if n_windows is None else min(n_windows, len(windows))
        season_scale = self._season_scale_for(collection)
        running = RunningForecastScores(self.n_channels_, self.horizon, self.quantiles, dtw=dtw)
        kept: list[tuple[NDArray, NDArray]] = []
        for batch, forecast in self._forecasts(windows, np.arange(most), numbered=self._on_the_clock(collection)):
            series = batch.series.numpy()
            target = batch.target.numpy()
            if batch.target_observed is not None:
                target = np.where(batch.target_observed.numpy(), target, np.nan)
            row = series if len(scaler.mean) > 1 else np.zeros_like(series)
            running.add(target, forecast, scaler.scale[row], scaler.mean[row], season_scale[series])
            if keep_forecasts:
                own = self._own_units(forecast, scaler, batch, collection.values)
                kept.append((own, scaler.inverse(target, row).astype(own.dtype)))
        scores = Scores(
            running.values(), most, clock.perf_counter() - began, data=collection.name, channels=self.channels_,
            per_step=running.per_step(), per_channel=running.per_channel(),
        )  # fmt: skip
        if not keep_forecasts:
            return Backtest(scores)
        origins = windows.locate(np.arange(most))[1]
        return Backtest(scores, np.concatenate([f for f, _ in kept]), np.concatenate([t for _, t in kept]), origins)

    # ---- keeping

    def _to_save(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        tails = self.tails_
        fitted = {
            "channels": list(self.channels_),
            "frequency": self.frequency_,
            "series_names": list(self.series_names_),
            "kind": asdict(self.kind_),
            "fit_result": asdict(self.fit_result_),
            "line": self.line_,
            "network_share": self.network_share_,
            "network_shares": list(self.network_shares_),
            "n_windows": self.n_windows_,
            "data_hash": self.data_hash_,
            "data_name": tails.name,
            "findings": [asdict(finding) for finding in self.findings_],
            "recipe": _recipe_as_dict(self._recipe_),
            "proposal": None if self.proposal_ is None else self.proposal_.as_dict(),
        }
        arrays = {
            "scaler.mean": self.scaler_.mean, "scaler.scale": self.scaler_.scale, "season_scale": self.season_scale_,
            "train_ends": self.train_ends_, "test_begins": self.test_begins_, "tails.values": tails.values,
            "tails.offsets": tails.offsets, "tails.starts": self._tail_starts,
        }  # fmt: skip
        if self._tail_rows is not None:
            arrays["tails.rows"], arrays["tails.places"] = self._tail_rows.values, self._tail_rows.places
            arrays["tails.row_offsets"] = self._tail_rows.offsets
        if tails.timestamps is not None:
            arrays["tails.timestamps"] = tails.timestamps.astype("datetime64[ns]").astype(np.int64)
        if self.quantile_offsets_ is not None:
            arrays["quantile_offsets"] = self.quantile_offsets_
        return fitted, arrays

    def _restore(self, fitted: dict[str, Any], arrays: dict[str, NDArray]) -> None:
        self.scaler_ = StandardScaler(arrays["scaler.mean"], arrays["scaler.scale"])
        self.channels_, self.n_channels_ = tuple(fitted["channels"]), len(fitted["channels"])
        self.frequency_, self.series_names_ = fitted["frequency"], tuple(fitted["series_names"])
        self.kind_, self.n_windows_, self.data_hash_ = (
            TableKind(**fitted["kind"]),
            fitted["n_windows"],
            fitted["data_hash"],
        )
        result: dict[str, Any] = dict(fitted["fit_result"])
        if result["best_loss"] is None:  # JSON has no NaN
            result["best_loss"] = float("nan")
        self.fit_result_ = FitResult(**result)
        self.findings_ = tuple(Finding(**finding) for finding in fitted["findings"])
        self.season_scale_ = arrays["season_scale"]
        self.line_, self.network_share_ = fitted["line"], fitted["network_share"]
        self.train_ends_, self.test_begins_ = arrays["train_ends"], arrays["test_begins"]
        self.quantile_offsets_ = arrays.get("quantile_offsets")
        recipe: dict[str, Any] = dict(fitted["recipe"])
        recipe["fit"] = FitConfig(**recipe["fit"])
        recipe["members"] = tuple(Member(**one) for one in recipe.get("members", [{}]))  # older folders have none
        self._recipe_ = Recipe(**recipe)
        self.proposal_ = None if fitted.get("proposal") is None else Proposal.from_dict(fitted["proposal"])
        self._form = self._form_of(self._recipe_)
        self.build_(self._recipe_.model)
        shares = fitted.get("network_shares") or [fitted["network_share"]] * len(self.members_)  # older folders
        self.network_shares_ = tuple(shares)
        for member, share in zip(self.members_, shares, strict=True):
            self.task_.finished(member, share)
        times = arrays.get("tails.timestamps")
        self.tails_ = Collection(
            arrays["tails.values"], arrays["tails.offsets"], self.series_names_, self.channels_,
            None if times is None else times.astype("datetime64[ns]"), self.frequency_, name=fitted["data_name"],
        )  # fmt: skip
        self._tail_starts = arrays["tails.starts"]
        self._tail_rows = None
        if "tails.rows" in arrays:
            self._tail_rows = Measurements(arrays["tails.rows"], arrays["tails.places"], arrays["tails.row_offsets"])

    # ---- inside

    def _n_members(self, recipe: Recipe) -> int:
        return recipe.n_members if self.n_members is None else self.n_members

    def build_(self, settings: Mapping[str, Any]) -> None:
        """An untrained model of this forecaster's name and sizes in the place of the trained one."""
        self._recipe_ = replace(self._recipe_, model=settings)
        self.task_ = self._task(self._recipe_)
        n_members = self._n_members(self._recipe_) if find_model(self._architecture).is_trained else 1
        with torch.random.fork_rng():  # what is drawn here is replaced at once
            members = [self._network(self.task_, self._recipe_, i, self.n_channels_) for i in range(n_members)]
        self.model_ = self._joined(members, self._recipe_)
        self._inference = None
        if self.quantiles is None:
            self.quantile_offsets_ = None

    def untrained_(self, data: Collection, train_ends: NDArray[np.int64]) -> list[nn.Module]:
        """The networks that ``fit`` would train on such data, as they begin; nothing is kept."""
        check_forecaster(self, find_model(self._architecture))
        recipe = self._recipe(data, train_ends, self._propose(data, train_ends))
        n_members = self._n_members(recipe) if find_model(self._architecture).is_trained else 1
        return [self._network(self._task(recipe), recipe, i, data.n_channels) for i in range(n_members)]

    def _asked(self, horizon: int | None) -> int:
        """The horizon that was asked for, if this model can write it."""
        if horizon is None:
            return int(self.horizon)
        if not isinstance(horizon, Integral) or horizon is True or horizon < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise SettingsError(f"horizon counts the steps to forecast and is at least 1, but got {horizon!r}.")
        if horizon > self.horizon and self.head != "any_horizon":
            raise SettingsError(
                f"This {self.model!r} was fitted to write {self.horizon} steps, and its head has no more, but "
                f"horizon={horizon} was asked for. Fit it with horizon={horizon}, or with head='any_horizon'."
            )
        return int(horizon)

    def _check_settings(self) -> None:
        check_forecaster(self, find_model(self._architecture))

    def _read_new(self, data: Any, **how: Any) -> tuple[Collection, TableKind]:
        read, kind = super()._read_new(data, **how)
        check_times(read, kind, self.kind_)
        return self._like_training(read), kind

    def _read(self, data: Any, *, empty_channels: bool = False) -> tuple[Collection, TableKind]:
        if isinstance(data, tuple) and len(data) == 2 and isinstance(data[1], TableKind):
            return Collection.of(data[0]) if isinstance(data[0], Series) else data[0], data[1]
        real = self.times == "real"
        read, kind = read_with_kind(
            data, time=self.time, series=self.series, values=self.values, frequency=self.frequency,
            empty_channels="keep" if empty_channels else "refuse", gaps="keep" if real else "fill",
        )  # fmt: skip
        read = Collection.of(read) if isinstance(read, Series) else read
        if real and read.frequency is None and read.timestamps is not None:
            read = replace(read, frequency=self.frequency or getattr(self, "frequency_", None))
        return read, kind

    def _laid_out(self, rows: Collection) -> tuple[Collection, Measurements | None]:
        """Series on the grid of their frequency, and their rows where they were measured, or None if that is all."""
        return (rows, None) if self.times == "grid" else on_grid(rows)

    @property
    def _architecture(self) -> str:
        """The name of the network: "auto" is a ConvTimeNet."""
        return "convtimenet" if self.model == "auto" else self.model

    def _propose(self, data: Collection, train_ends: NDArray[np.int64]) -> Proposal | None:
        """What the rule proposes; a fitted model that goes on keeps its form."""
        if self.model != "auto":
            return None
        if self.warm_start and getattr(self, "proposal_", None) is not None and self._form[1] == self.context_length:
            return self.proposal_
        n_outputs = self.horizon * len(self.quantiles or (0.5,))
        recipe = find_recipe(self.setting, None, None)
        return propose_windows(
            data, train_ends, context_length=recipe.network_reads(self.context_length), n_outputs=n_outputs,
            base=recipe.model, fixed=self.model_settings,
        )  # fmt: skip

    def _recipe(self, data: Collection, train_ends: NDArray[np.int64], proposal: Proposal | None = None) -> Recipe:
        recipe = find_recipe(self.setting, self.model_settings, self.fit_settings, self._trained_as())
        if self.head == "any_horizon":
            recipe = replace(recipe, line=None, network_context=None)
        if self.loss is not None:
            recipe = replace(recipe, loss=self.loss)
        if self.line is not None:
            recipe = replace(recipe, line=self.line)
        if proposal is not None:
            recipe = replace(recipe, model=proposal.settings)
        elif self.model != "convtimenet":
            settings = sized(self.model, self.model_settings or {}, self.context_length, data, train_ends)
            recipe = replace(recipe, model=settings)
        else:
            patches = patches_for_context(recipe.network_reads(self.context_length))
            recipe = replace(recipe, model=with_patches(recipe.model, patches))
        members = tuple(
            one
            if one.model is None
            else replace(one, settings=sized(one.model, one.settings, self.context_length, data, train_ends))
            for one in recipe.members
        )
        recipe = replace(recipe, members=members)
        if "batch_size" not in (self.fit_settings or {}) and data.n_channels > recipe.fit.channels_at_once:
            on_cpu = torch.accelerator.current_accelerator(check_available=True) is None
            if on_cpu or recipe.fit.accelerator == "cpu":
                few = max(1, _ROWS_PER_STEP // recipe.fit.channels_at_once)
                recipe = replace(recipe, fit=replace(recipe.fit, batch_size=min(few, recipe.fit.batch_size)))
        return recipe

    def _trained_as(self) -> Architecture:
        """The architecture, with the training that suits its head."""
        architecture = find_model(self._architecture)
        if self.head != "any_horizon" or self.setting != "default" or not architecture.is_trained or architecture.fit:
            return architecture
        return replace(architecture, fit=NETWORK_FIT)

    def _train_members(
        self,
        task: Forecast,
        recipe: Recipe,
        train: Windows,
        check: Windows | None,
        mark: str,
        name: str,
        before: list[nn.Module] | None,
    ) -> tuple[list[nn.Module], list[FitResult], list[float | None]]:
        """The networks, how each was trained (all its trainings in one), and the share that validation gives it.

        A network of which validation wants nothing is begun anew and trained gently; ``before`` are networks to go on
        with, once and as they were trained.
        """
        is_trained = find_model(self._architecture).is_trained
        trainings = [("member", recipe.fit)]
        if before is None and (slower := gentle(recipe, self.fit_settings)) != recipe:
            trainings.append(("gentle", slower.fit))
        members: list[nn.Module] = list(before or [])
        results: list[FitResult] = []
        shares: list[float | None] = []
        lines: dict[int, str] = {}  # by the context that they read
        n_members = len(members) or (self._n_members(recipe) if is_trained else 1)
        contexts = [recipe.context_of(i, self.context_length) for i in range(n_members)]
        for i, n_steps in enumerate(contexts):
            seconds, share = 0.0, None
            own = train.shortened(n_steps)
            own_check = None if check is None else check.shortened(n_steps)
            for part, config in trainings:
                with torch.random.fork_rng():
                    torch.manual_seed(self._seed(i))
                    if before is not None:
                        task.begin_again(members[i].requires_grad_(True).train())
                    else:
                        solved = None
                        if n_steps in lines and not config.line_rate:
                            solved = members[contexts.index(n_steps)]
                        model = self._network(task, recipe, i, train.n_channels)
                        with waiting("solving what needs no training", shown=self.progress):
                            said = task.prepare(model, own, own_check, solved=solved)
                        members[i:] = [model]
                        lines[n_steps] = said if solved is None else lines[n_steps]
                    model = members[i]
                    if is_trained:
                        title = f"{recipe.member(i).model or self.model} on {name}"
                        result = self._train_one(model, task, own, own_check, config, mark, title, part, i, n_members)
                        seconds += result.seconds
                        results[i:] = [replace(result, seconds=seconds)]
                    share = task.finish(model, own_check, channels_at_once=config.channels_at_once)
                if share != 0:
                    break
            shares.append(share)
        if len(lines) == 1:
            (self.line_,) = lines.values()
        elif lines:
            told = {n: said for n, said in lines.items() if said}
            self.line_ = "; ".join(f"of {n:,} steps: {said}" for n, said in told.items())
        return members, results, shares

    def _joined(self, members: Sequence[nn.Module], recipe: Recipe) -> nn.Module:
        """The members as one, each given its part of the context; None is all there is."""
        contexts = [recipe.context_of(i, self.context_length) for i in range(len(members))]
        return joined(members, [n if n < self.context_length else None for n in contexts])

    def _network(self, task: Forecast, recipe: Recipe, i: int, n_channels: int) -> nn.Module:
        """The untrained network of this number."""
        member, n_steps = recipe.member(i), recipe.context_of(i, self.context_length)
        settings = recipe.model if member.model is None else member.settings
        return task.build(member.model or self._architecture, settings, n_channels=n_channels, context_length=n_steps)

    def _task(self, recipe: Recipe) -> Forecast:
        return Forecast(
            self.horizon, quantiles=self.quantiles, loss=recipe.loss, line=recipe.line,  # type: ignore[arg-type]
            network_context=recipe.network_context, head_dropout=recipe.head_dropout, head=self.head,
        )  # fmt: skip

    def windows_(self, data: Collection, scaler: StandardScaler | None, **part: Any) -> Windows:
        """The windows of one part of some data, as this forecaster reads them; unscaled without a scaler.

        Where times are real, data are rows as they were measured, or lie on the grid already, with ``measured``.
        """
        if "measured" not in part:
            data, part["measured"] = self._laid_out(data)
        shortest = min(SHORTEST_CONTEXT, self.context_length)
        return Windows(data, self.context_length, self.horizon, scaler=scaler, min_context=shortest, **part)

    def scaled_windows_(self, data: Collection, **part: Any) -> Windows:
        """The windows of one part, each series as in training, or by what lies before the first future of the part."""
        windows = self.windows_(data, None, **part)
        ends = windows.first_future
        return windows.scaled(scaler_for(windows.data, self.scaler_, self.series_names_, ends))

    def _form_of(self, recipe: Recipe) -> list[Any]:
        """What a model must share to go on from: its kind and its sizes."""
        quantiles = None if self.quantiles is None else [float(q) for q in self.quantiles]
        # a file gives lists back where tuples were
        settings = {name: list(one) if isinstance(one, tuple) else one for name, one in recipe.model.items()}
        sizes = [self.model, self.context_length, self.horizon, quantiles, settings, self._n_members(recipe)]
        return [*sizes, self.head, self.times, recipe.line, recipe.network_context, recipe.members]

    def _fits(self, data: Collection, recipe: Recipe) -> bool:
        """Whether a fitted model can go on with these data and settings."""
        if not hasattr(self, "model_"):
            return False
        if self._form != self._form_of(recipe):
            raise SettingsError(
                "warm_start goes on with the weights there are, but the model, context_length, horizon, quantiles, "
                "n_members or a setting of the model has changed since. Set warm_start=False to begin anew."
            )
        if getattr(self.model_, "n_channels", None) not in (None, data.n_channels):
            raise DataError(
                f"warm_start goes on with a model of {self.n_channels_} channels, but the data have {data.n_channels}. "
                "Set warm_start=False to begin anew."
            )
        return True

    def _like_training(self, data: Collection) -> Collection:
        """The data with the channels in the order of training, if they have its steps."""
        data = reordered(data, self.channels_, "predict")
        remedy = f"Bring them to steps of {self.frequency_} first, or fit a model to such data."
        return in_steps_of(data, self.frequency_, remedy)

    def _season_scale_for(self, data: Collection) -> NDArray[np.float64]:
        unknown = np.full(self.n_channels_, np.nan)
        rows = rows_of(data, self.series_names_)
        return np.stack([unknown if row is None else self.season_scale_[row] for row in rows])

    def _on_the_clock(self, data: Collection) -> bool:
        """Whether the steps of these data are numbered as those of training were: by times, on either side."""
        both = (self.tails_.timestamps, self.frequency_, data.timestamps, data.frequency)
        return all(one is not None for one in both)

    def _forecasts(
        self,
        windows: Windows,
        index: NDArray[np.int64] | None = None,
        *,
        numbered: bool = True,
        horizon: int | None = None,
    ) -> Iterator[tuple[Batch, NDArray[np.float32]]]:
        """Batches of the windows ``index`` (None: all) with scaled forecasts: [B, C, H], or [B, Q, C, H] in order.

        Channels that exchange are read in the groups of training, so that each meets the channels it has met there. A
        ``horizon`` beyond that of training is asked of heads that are bound to none.

        Where the steps of the windows are not ``numbered`` as those of training, a model that reads these numbers finds
        its place by itself.
        """
        if self._inference is None:
            self._inference = on_device(self.model_)
        model = self._inference
        if horizon is not None and horizon > self.horizon:
            model = with_horizon(model, horizon)
        index = np.arange(len(windows)) if index is None else index
        groups = channel_groups(self.model_, windows.n_channels, self._recipe_.fit.channels_at_once, apart=_CHANNELS)
        told = forecast_batches(model, windows, index, groups, numbered=numbered)
        return told if self.quantiles is None else in_order(told, getattr(self, "quantile_offsets_", None))

    def _calibrate(self, check: Windows | None) -> NDArray[np.float64] | None:
        self.quantile_offsets_ = None
        if check is None:
            return None
        levels = np.asarray(self.quantiles, dtype=float)
        most = max(_FEWEST_CALIBRATED, _CALIBRATED // (len(levels) * self.n_channels_ * self.horizon))
        index = np.arange(0, len(check), max(1, -(-len(check) // most)))  # all misses are held at once
        return conformal_offsets(self._forecasts(check, index), levels)

    def _own_units(
        self, forecast: NDArray, scaler: StandardScaler, batch: Batch, like: NDArray
    ) -> NDArray[np.floating]:
        """In the precision in which the data are stored, which is double where single would lose the movement."""
        series = batch.series.numpy()
        row = series if len(scaler.mean) > 1 else np.zeros_like(series)
        if forecast.ndim == 3:
            return scaler.inverse(forecast, row).astype(like.dtype)
        mean, scale = scaler.mean[row][:, None, :, None], scaler.scale[row][:, None, :, None]
        return (forecast * scale + mean).astype(like.dtype)

    def _keep_tails(self, data: Collection, measured: Measurements | None) -> None:
        """The last context of every series, so that ``predict()`` works without data."""
        tails = [case.part(max(0, len(case) - self.context_length), len(case)) for case in data]
        self._tail_starts = np.array([len(case) for case in data]) - np.array([len(tail) for tail in tails])
        tails = [replace(tail, values=tail.values.copy()) for tail in tails]
        self.tails_ = replace(Collection.of(tails, name=data.name), frequency=data.frequency)
        self._tail_rows = None if measured is None else measured.since(self._tail_starts)

    def _single(self, data: Collection, given: Any) -> bool:
        if given is None:
            return len(data) == 1 and data.names[0] != "0"
        return isinstance(given, np.ndarray) and given.ndim == 2


def _borrowed(scaler: StandardScaler, data: Collection) -> tuple[Finding, ...]:
    """One finding per channel that some series never observed in training."""
    empty: dict[int, list[str]] = {}
    for series, channel in scaler.borrowed:
        empty.setdefault(channel, []).append(repr(data.names[series]))
    return tuple(
        Finding(
            "missing",
            f"channel {data.channels[channel]!r} has no observed value in the training part of {', '.join(names[:3])}"
            + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            + f": scaled there as in the other series ({len(names)} of {len(data)} series)",
            data.channels[channel],
        )
        for channel, names in empty.items()
    )


def _recipe_as_dict(recipe: Recipe) -> dict[str, Any]:
    return {**asdict(replace(recipe, model={})), "model": json.loads(json.dumps(dict(recipe.model)))}
