"""Find what is unusual in a table: fit, score every step, raise alarms, follow a growing series."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, Self, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d
from torch import nn

from prismts.data.period import dominant_period
from prismts.data.readers import read_with_kind
from prismts.data.scaling import StandardScaler
from prismts.data.series import Collection, Series
from prismts.data.splits import Borders
from prismts.data.tables import TableKind, to_table
from prismts.errors import DataError, SettingsError, ShapeError, unknown_name
from prismts.estimators.answer import check_finite, free_name
from prismts.estimators.base import Estimator, joined, refuse_given
from prismts.estimators.detect_recipes import DetectRecipe, find_detect_recipe
from prismts.estimators.detect_stream import DetectStream
from prismts.estimators.match import in_steps_of, reordered
from prismts.estimators.panel import Array, Panel
from prismts.evaluation.protocols import data_hash
from prismts.evaluation.thresholds import (
    MIN_TAIL,
    Event,
    RobustScale,
    Threshold,
    events,
    quantile_threshold,
    tail_threshold,
)
from prismts.models import MODELS
from prismts.models.detectors import DETECTORS
from prismts.tasks.forecast import Forecast
from prismts.tasks.reconstruct import Reconstruct
from prismts.training.fit import FitConfig, FitResult
from prismts.windows import Windows

__all__ = ["AnomalyDetector"]

ScoreKind = Literal["reconstruct", "forecast", "both"]
ThresholdKind = Literal["tail", "quantile"]
_MIXED = 64  # channels up to which they are mixed; a wider table is read channel by channel, which needs less memory
_MOST_WINDOWS = 5_000  # of an epoch; of more, every k-th is read
_MOST_CHECKED = 300  # validation windows
_HELD_OUT = 100  # steps that a validation part needs, or scores are put on one scale by all of the training part
_SHORTEST = 16  # steps of training
_TOO_SMALL = 0.01  # standard deviations of all series together that the channels of one may move by
_FOLDS = 5  # blocks of training, each judged for the threshold by closed forms that have learned the others
_OTHER_STEPS = "Bring them to steps of that length first, or fit a detector on such data."
_BLOCKS = (4, 8)  # parts of a window that are hidden in turn, and the steps of one block


class AnomalyDetector(Estimator):
    """Says of each time step how unusual it is, by what a model makes of the step while it does not see it.

    Several judges look at every step, and the score is their weighted mean:

    - closed forms: sliding-window PCA, the distance to the nearest training windows, and a "line" that tells a step
      from those on both sides of it, hidden from them: masked reconstruction by ridge regression;
    - with ``setting="combined"`` or ``"network"``, "forecast": the distance to a forecast of one step, by a closed-form
      line and a network that learns what the line cannot;
    - and "reconstruct": the distance to what a network writes where blocks of a window are hidden in turn.

    Every judge is put on a scale of its own first. Errors of networks and of the line are averaged over a quarter of a
    period around each step; then each channel is scaled by the median and the interquartile range of its errors on the
    validation part, which the judge has not learned, and the mean over channels likewise: 0 is usual, 1 is one
    interquartile range above it. Where the validation part has fewer than 100 steps, all of the training part is taken.
    After that, closed forms are solved once more, on both parts together.

    The threshold is that of scores on the training part. Closed forms are asked there about each fifth after they were
    solved on the other four, so that scores are as high as those of new steps; networks are asked about the validation
    part alone, unless it has fewer than 100 steps (they look better than they are then, and alarms come more often).

    ``model`` may also be the name of a baseline in ``prismts.models.detectors.DETECTORS`` ("sub_pca", "iforest", ...):
    then it alone judges, with the same scaling, threshold and events.

    The training part may hold some anomalies: networks are trained by a robust loss, scales are robust, and the tail
    fit takes the highest scores for suspects. Data may be a table (wide, or long with ``series``), a path to one, a
    ``Series``, a ``Collection``, or an array [n_channels, n_timepoints] or [n_cases, n_channels, n_timepoints]. NaN
    means not observed: such a point is never judged by the networks, and the closed forms read a straight line there.
    Only training looks for codes of missing values, such as -9999 (see ``prismts.read``): what is scored is read as it
    is, since a value far outside all others is what a detector is asked about.
    Of several series one detector is learned, on one scale for all; the closed forms read them end to end. Series that
    hardly move beside the distances between them are refused: each needs a detector of its own.

    A score may change while the next ``delay_`` steps come in (longer where values were missing at the end), and is
    final then: ``stream`` and ``update`` give the scores of the whole series so far, step by step.

    Args:
        model: a name of ``prismts.models.MODELS`` that is an encoder, or a baseline.
        setting: a named recipe of ``DETECT_SETTINGS``: "default" (the closed forms, which need no training and did best
            on the series the setting was chosen on), "combined" (networks beside them), or "network" (networks alone).
        context_length: steps the networks read at once; None takes two dominant periods, from 32 to 192.
        score: which networks judge: "reconstruct", "forecast" or "both".
        threshold: "tail", an extreme-value fit to training scores, or "quantile".
        false_alarm_rate: share of usual steps that may exceed the threshold.
        model_settings: settings of the architecture (or of the baseline) that replace those of the recipe.
        fit_settings: settings of ``FitConfig`` that replace those of the recipe.
        n_members: networks that differ in their seed, whose mean is the answer; None takes the number of the recipe.
        time: name of the time column; found by itself if None.
        series: name of the column that tells the series of a long table apart.
        values: names of the columns to read; all numeric ones if None.
        frequency: of the timestamps; found by itself if None.
        random_state: seed of everything random.
        progress: whether to show a bar.
        run_folder: keeps checkpoints, so that a killed ``fit`` resumes when it is called again.

    Attributes:
        threshold_: a ``Threshold``; its ``words`` say how it was found, and what stood against the tail fit.
        period_, context_length_, delay_: in steps.
        channels_, n_channels_, frequency_: what was learned from.
        model_: the trained networks by name, none for a baseline.
        judges_, networks_: the names of all judges with their weights, and which of them are networks.
        panel_: the judges with what they learned and their scales, a ``Panel``.
        calibrated_on_: which steps the scales and the threshold come from, in words.
        fit_results_: losses by epoch of each network.
    """

    _bound = ("model", "setting", "context_length", "score", "threshold", "false_alarm_rate", "model_settings")

    def __init__(
        self,
        model: str = "convtimenet",
        *,
        setting: str = "default",
        context_length: int | None = None,
        score: ScoreKind = "both",
        threshold: ThresholdKind = "tail",
        false_alarm_rate: float = 0.001,
        model_settings: Mapping[str, Any] | None = None,
        fit_settings: Mapping[str, Any] | None = None,
        n_members: int | None = None,
        time: str | None = None,
        series: str | None = None,
        values: Sequence[str] | None = None,
        frequency: str | None = None,
        random_state: int = 0,
        progress: bool = True,
        run_folder: str | Path | None = None,
    ) -> None:
        self.model = model
        self.setting = setting
        self.context_length = context_length
        self.score = score
        self.threshold = threshold
        self.false_alarm_rate = false_alarm_rate
        self.model_settings = model_settings
        self.fit_settings = fit_settings
        self.n_members = n_members
        self.time = time
        self.series = series
        self.values = values
        self.frequency = frequency
        self.random_state = random_state
        self.progress = progress
        self.run_folder = run_folder

    # ---- learning

    def fit(self, data: Any, y: Any = None, *, validation: float | Borders | None = 0.2) -> Self:
        """Learn what is usual. ``y`` is ignored: no label is read, also where the data bring some.

        validation: the fraction at the end of every series that decides which epoch is kept and sets scales;
        ``Borders``, of which train and validation are read and the rest is left alone; or None or 0.
        """
        self._check_arguments()
        read, _, _ = self._read(data)
        recipe = self._recipe(read.n_channels)
        known, ends = _split(read, validation)
        self._check_training(known, ends)
        self.channels_, self.n_channels_, self.recipe_ = known.channels, known.n_channels, recipe
        self.frequency_ = known.frequency
        self.networks_ = self._networks()
        self.scaler_, self.still_ = _scaler_of(known, ends), _still(known)
        train = [self._scaled(case) for case in known]
        _refuse_unlike(train, known.names)
        parts = [x[:, :end] for x, end in zip(train, ends.tolist(), strict=True)]
        longest = max(parts, key=lambda x: x.shape[1])
        self.period_ = dominant_period(longest)
        self.context_length_ = self._choose_context(longest.shape[1]) if recipe.networks else 1
        self.data_hash_ = data_hash(known)
        self._train_networks(known, ends)
        panel = self._untried().solved(np.concatenate(parts, axis=1))
        n_held = int((known.lengths - ends).sum())
        self.calibrated_on_ = f"the validation part, {n_held} steps"
        if n_held < _HELD_OUT:
            ends = np.zeros_like(ends)
            self.calibrated_on_ = f"all {int(known.lengths.sum())} steps of training, which the judges have learned"
        held = np.concatenate([np.arange(n) >= end for n, end in zip(known.lengths, ends, strict=True)])
        verdicts = {name: np.concatenate([panel.raw(name, x) for x in train], axis=1) for name in panel.weights}
        panel = panel.calibrated({name: raw[:, held] for name, raw in verdicts.items()}, ~np.isnan(self.still_))
        self.training_ = np.concatenate([case.values for case in known], axis=1)  # [C, total], in the data's own units
        self.panel_ = panel.solved(self._scaled(Series(self.training_)))
        others, learned = self.panel_.of_others(train)
        scores = self.panel_.combined(self.panel_.on_scale(verdicts | others))
        self.threshold_ = self._find_threshold(scores[held] if self.networks_ else scores)
        if learned:
            words = (
                f"{self.threshold_.words}; of steps the closed forms have learned: four fifths are too short for them"
            )
            self.threshold_ = replace(self.threshold_, words=words)
        self._own_stream: DetectStream | None = None
        self._fitted()
        return self

    # ---- answering

    def score_samples(self, data: Any) -> Any:
        """How unusual each step is: [n_timepoints], or a list of such for several series. Always finite.

        0 is usual, higher is more unusual. A step on which no judge has a verdict gets 0. Values so large that no score
        of them is finite are refused, with their channel.
        """
        self._check_fitted()
        read, _, single = self._read_like_training(data)
        scores = [scores for _, _, scores in self._judged(read)]
        return scores[0] if single else scores

    def contributions(self, data: Any) -> Any:
        """What each channel adds to the scores: [n_channels, n_timepoints], or a list of such for several series.

        The weighted mean over the judges that tell channels apart, each channel on its own scale. Where none does (an
        isolation forest), channels share the score equally. A channel that stood still in training left no scale to
        measure it by: where it moves, it is blamed before all others, with what the most unusual of them adds and more.
        """
        self._check_fitted()
        read, _, single = self._read_like_training(data)
        found = [self._blame(x, judged) for x, judged, _ in self._judged(read)]
        return found[0] if single else found

    def predict(self, data: Any) -> Any:
        """Alarms. Of an array, a Series or several: 0 or 1 for each step [n_timepoints], a list for several.

        Of a table: a table of the same kind with time, score, threshold and alarm.
        """
        self._check_fitted()
        read, kind, single = self._read_like_training(data)
        scores = [scores for _, _, scores in self._judged(read)]
        if kind.backend == "array" or isinstance(data, Series | Collection):
            alarms = [self.threshold_.alarms(one).astype(np.int64) for one in scores]
            return alarms[0] if single else alarms
        return self._table(read, kind, np.concatenate(scores))

    def events(self, data: Any, *, merge_gap: int = 0) -> Any:
        """The stretches of alarms, with their peak and the channels to blame; a list of lists for several series.

        Alarms with at most ``merge_gap`` usual steps between them are one event.
        """
        self._check_fitted()
        read, _, single = self._read_like_training(data)
        found: list[list[Event]] = []
        for x, judged, scores in self._judged(read):
            alarms = self.threshold_.alarms(scores)
            blame = self._blame(x, judged) if alarms.any() else None
            found.append(events(alarms, scores, blame, self.channels_ if blame is not None else None,
                                merge_gap=merge_gap))  # fmt: skip
        return found[0] if single else found

    def stream(self) -> DetectStream:
        """Follow a new series that grows: see ``DetectStream``. Several may run beside each other."""
        self._check_fitted()
        return DetectStream(
            self.panel_, self.channels_, self.scaler_, self.threshold_, self._new_rows,
            self.frequency or self.frequency_,
        )  # fmt: skip

    def update(self, new_rows: Any) -> Array:
        """Scores of new rows of this detector's own stream: [n_new]; a new ``fit`` begins a new one."""
        self._check_fitted()
        if self._own_stream is None:
            self._own_stream = self.stream()
        return self._own_stream.update(new_rows)

    @property
    def judges_(self) -> dict[str, float]:
        """The weight of each judge."""
        return self.panel_.weights

    @property
    def members_(self) -> Sequence[nn.Module]:
        """The trained networks."""
        return list(self.model_.children())

    @property
    def delay_(self) -> int:
        """After so many further steps a score is final, where nothing is missing at the end of the series."""
        self._check_fitted()
        return self.panel_.delay

    # ---- keeping

    def _to_save(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        fitted = {
            "channels": list(self.channels_), "frequency": self.frequency_, "period": self.period_,
            "context_length": self.context_length_, "calibrated_on": self.calibrated_on_, "data_hash": self.data_hash_,
            "threshold": asdict(self.threshold_),
            "fit_results": {name: asdict(result) for name, result in self.fit_results_.items()},
            "recipe": asdict(self.recipe_),
            "guarded": {name: [list(scale.guarded) for scale in scales] for name, scales in self.panel_.scales.items()},
        }  # fmt: skip
        arrays: dict[str, NDArray] = {
            "scaler.mean": self.scaler_.mean, "scaler.scale": self.scaler_.scale, "still": self.still_,
        }  # fmt: skip
        for name, scales in self.panel_.scales.items():
            for which, scale in zip(("channels", "whole"), scales, strict=True):
                arrays[f"{name}.{which}.center"], arrays[f"{name}.{which}.scale"] = scale.center, scale.scale
        if self.recipe_.beside or self.recipe_.line:
            arrays["training"] = (
                self.training_
            )  # closed forms are solved again when they are loaded: no pickle, no copy
        return fitted, arrays

    def _restore(self, fitted: dict[str, Any], arrays: dict[str, NDArray]) -> None:
        recipe: dict[str, Any] = dict(fitted["recipe"])
        recipe["fit"] = FitConfig(**recipe["fit"])
        self.recipe_ = DetectRecipe(**recipe)
        self.networks_ = self._networks()
        self.channels_, self.n_channels_ = tuple(fitted["channels"]), len(fitted["channels"])
        self.frequency_ = fitted.get("frequency")  # folders of before lack it
        self.period_, self.context_length_ = fitted["period"], fitted["context_length"]
        self.calibrated_on_, self.data_hash_ = fitted["calibrated_on"], fitted["data_hash"]
        self.threshold_ = Threshold(**fitted["threshold"])
        self.fit_results_ = {name: FitResult(**result) for name, result in fitted["fit_results"].items()}
        self.scaler_ = StandardScaler(arrays["scaler.mean"], arrays["scaler.scale"])
        self.still_ = arrays.get("still", np.full(self.n_channels_, np.nan))  # folders of before lack it
        scales: dict[str, tuple[RobustScale, RobustScale]] = {}
        for name, guarded in fitted["guarded"].items():
            first, second = (
                RobustScale(arrays[f"{name}.{which}.center"], arrays[f"{name}.{which}.scale"], tuple(numbers))
                for which, numbers in zip(("channels", "whole"), guarded, strict=True)
            )
            scales[name] = first, second
        with torch.random.fork_rng():  # what is drawn here is replaced at once
            n = self.recipe_.n_members
            self.model_ = nn.ModuleDict(
                {name: joined([self._untrained(name) for _ in range(n)]) for name in self.networks_}
            )
        self.training_ = arrays.get("training", np.zeros((self.n_channels_, 0)))
        self.panel_ = replace(self._untried(), scales=scales)
        if self.recipe_.beside or self.recipe_.line:
            self.panel_ = self.panel_.solved(self._scaled(Series(self.training_)))
        self._own_stream = None

    # ---- inside: reading

    def _check_arguments(self) -> None:
        if self.score not in get_args(ScoreKind):
            raise unknown_name("score", self.score, get_args(ScoreKind))
        if self.threshold not in get_args(ThresholdKind):
            raise unknown_name("threshold", self.threshold, get_args(ThresholdKind))
        if self.model not in MODELS and self.model not in DETECTORS:
            raise unknown_name("detector", self.model, [*MODELS, *DETECTORS])
        if self.model in MODELS:
            self._encoder_only("judge by")
        rate: Any = self.false_alarm_rate
        if not isinstance(rate, Real) or not 0 < float(cast(float, rate)) < 1:
            raise SettingsError(
                f"false_alarm_rate is a share of the steps between 0 and 1, such as 0.001, but got {rate!r}."
            )
        length = self.context_length
        if length is not None and (not isinstance(length, Integral) or length < 8):
            raise SettingsError(f"context_length is a whole number of time steps, at least 8, but got {length!r}.")
        baseline = self.model in DETECTORS
        if not baseline and find_detect_recipe(self.setting, None, None).networks:
            return
        who = f"{self.model!r}" if baseline else f"setting={self.setting!r}"
        given = {
            "model": None if baseline or self.model == "convtimenet" else self.model,
            "context_length": length,
            "score": None if self.score == "both" else self.score,
            "model_settings": None if baseline else self.model_settings or None,
            "fit_settings": self.fit_settings or None,
            "n_members": self.n_members,
        }
        refuse_given(
            given,
            f"is about networks, and {who} trains none",
            "choose setting='combined' or 'network' with a model that has an encoder, such as 'convtimenet'",
        )

    def _check_training(self, data: Collection, ends: NDArray[np.int64]) -> None:
        if int(ends.max()) < _SHORTEST:
            raise DataError(
                f"A detector learns from {_SHORTEST} steps at least, but the longest training part has "
                f"{int(ends.max())}. Pass a longer series, or a smaller validation part."
            )
        seen = [data.values[:, a : a + n] for a, n in zip(data.offsets[:-1], ends, strict=True)]
        varies = [bool((np.nanmax(x, axis=1) > np.nanmin(x, axis=1)).any()) for x in seen if (~np.isnan(x)).any()]
        if not any(varies):
            raise DataError(
                f"Nothing ever changes in the training part: all {data.n_channels} channels are constant, so there is "
                "no telling what is usual. Pass a training part in which something happens."
            )

    def _read(
        self,
        data: Any,
        *,
        empty_channels: bool = False,
        missing_codes: Sequence[float] | None = None,
        frequency: str | None = None,
    ) -> tuple[Collection, TableKind, bool]:
        """The data, what kind of table they were, and whether they are one series that stands alone."""
        read, kind = read_with_kind(
            data, time=self.time, series=self.series, values=self.values, frequency=frequency or self.frequency,
            empty_channels="keep" if empty_channels else "refuse", missing_codes=missing_codes,
        )  # fmt: skip
        return (Collection.of(read), kind, True) if isinstance(read, Series) else (read, kind, False)

    def _read_like_training(self, data: Any, *, frequency: str | None = None) -> tuple[Collection, TableKind, bool]:
        read, kind, single = self._read_new(
            data, missing_codes=(), frequency=frequency
        )  # what stands far outside is what is asked about
        if read.n_channels != self.n_channels_ and all(name.startswith("channel_") for name in read.channels):
            hint = " If time is the first axis, pass its transpose." if read.n_channels > 4 * self.n_channels_ else ""
            raise ShapeError(
                f"This detector learned {self.n_channels_} channels and reads [channel={self.n_channels_}, time], but "
                f"these data have {read.n_channels} channels.{hint}"
            )
        read = reordered(read, self.channels_, "detection")
        return in_steps_of(read, self.frequency_, _OTHER_STEPS), kind, single

    def _new_rows(self, data: Any, frequency: str | None) -> Series:
        read, _, _ = self._read_like_training(data, frequency=frequency)
        if len(read) > 1:
            raise DataError(f"New rows of a stream are of one series, but got {len(read)}. Call stream() for each.")
        return read[0]

    def _scaled(self, case: Series) -> Array:
        return self.scaler_.transform(case.values.astype(np.float64))

    # ---- inside: learning

    def _recipe(self, n_channels: int) -> DetectRecipe:
        if self.model in DETECTORS:
            find_detect_recipe(self.setting, None, None)
            title = DETECTORS[self.model].title
            return DetectRecipe(
                title=title, networks=False, beside={self.model: 1.0}, model=dict(self.model_settings or {})
            )
        recipe = find_detect_recipe(self.setting, None, self.fit_settings)
        settings: dict[str, Any] = {}
        if self.model == "convtimenet":
            settings = {**recipe.model, "channels": "mixed" if n_channels <= _MIXED else "independent"}
        n_members = recipe.n_members if self.n_members is None else self.n_members
        return replace(recipe, model={**settings, **(self.model_settings or {})}, n_members=n_members)

    def _choose_context(self, n_timepoints: int) -> int:
        if self.context_length is not None:
            if self.context_length >= n_timepoints:
                raise DataError(
                    f"context_length={self.context_length} needs a longer training part than the {n_timepoints} steps "
                    "there are. Shorten context_length, or give more data."
                )
            return int(self.context_length)
        wanted = min(max(2 * self.period_, 32), 192)
        return max(8, min(wanted, n_timepoints // 4) // 8 * 8)

    def _networks(self) -> tuple[str, ...]:
        if not self.recipe_.networks:
            return ()
        return ("forecast", "reconstruct") if self.score == "both" else (self.score,)

    def _train_networks(self, data: Collection, ends: NDArray[np.int64]) -> None:
        self.fit_results_: dict[str, FitResult] = {}
        found: dict[str, nn.Module] = {}
        length = self.context_length_
        for name in self.networks_:
            horizon = 1 if name == "forecast" else 0
            train = _thinned(data, length, horizon, self.scaler_, _MOST_WINDOWS, end=ends)
            check = None
            if (data.lengths - ends).sum() >= _HELD_OUT and (data.lengths > np.maximum(ends, length)).any():
                check = _thinned(data, length, horizon, self.scaler_, _MOST_CHECKED, begin=ends + (horizon == 0))
            task = self._task(name)

            def build(name: str = name, task: Any = task, train: Windows = train, check: Windows | None = check) -> Any:
                model = self._untrained(name)
                if isinstance(task, Forecast):
                    task.prepare(model, train, check)
                return model

            members, results = self._train(
                build, task, train, check, self.recipe_.fit, n_members=self.recipe_.n_members,
                mark=f"{self.data_hash_} {ends.tolist()} {name}", title=f"{self.model} on {data.name}, {name}",
                part=name,
            )  # fmt: skip
            if isinstance(task, Forecast):
                for member in members:
                    task.finish(member, check)
            found[name] = joined(members)
            self.fit_results_[name] = replace(results[0], seconds=sum(result.seconds for result in results))
        self.model_ = nn.ModuleDict(found)

    def _task(self, name: str) -> Forecast | Reconstruct:
        if name == "forecast":
            return Forecast(1, loss="huber", line="ridge", head_dropout=0.1)
        return Reconstruct(["blocks", "stretches"], loss="huber", head_dropout=0.1)

    def _untrained(self, name: str) -> nn.Module:
        return self._task(name).build(
            self.model, self._fitting_model(), n_channels=self.n_channels_, context_length=self.context_length_
        )

    def _fitting_model(self) -> dict[str, Any]:
        """Settings of the architecture, with patches that fit into the context."""
        settings = dict(self.recipe_.model)
        if "patch_length" in settings:
            settings["patch_length"] = min(settings["patch_length"], max(2, self.context_length_ // 3))
            settings["stride"] = min(settings.get("stride", 4), max(1, settings["patch_length"] // 2))
        return settings

    def _untried(self) -> Panel:
        """The judges before the closed forms among them have learned anything, without their scales."""
        return Panel(
            recipe=self.recipe_, networks=cast(nn.ModuleDict, self.model_), n_channels=self.n_channels_,
            context_length=self.context_length_, period=self.period_, random_state=self.random_state,
            settings=self.recipe_.model if self.model in DETECTORS else {},
        )  # fmt: skip

    def _find_threshold(self, scores: Array) -> Threshold:
        if self.threshold == "quantile":
            return quantile_threshold(scores, self.false_alarm_rate)
        try:
            return tail_threshold(scores, self.false_alarm_rate)
        except DataError:  # too few scores: any other fault of theirs is one of the quantile, too
            found = quantile_threshold(scores, self.false_alarm_rate)
            why = f"no tail was fitted, which takes at least {MIN_TAIL} distinct scores in it"
            return replace(found, words=f"{found.words}; {why}")

    # ---- inside: judging

    def _judged(self, data: Collection) -> Iterator[tuple[Array, dict[str, Array], Array]]:
        """Of each series, scaled values [C, T], every judge's verdict on them, and scores [T]."""
        shortest = self.panel_.shortest
        for i, case in enumerate(data):
            if len(case) < shortest:
                raise DataError(
                    f"Series {case.name!r} has {len(case)} steps, but this detector reads windows of {shortest} at "
                    "least. Pass a longer series, or fit with a shorter context_length."
                )
            with np.errstate(over="ignore", invalid="ignore"):  # refused in words below
                x = self._scaled(case)
                judged = self.panel_.judged(x)
                scores = self.panel_.combined(judged)
            check_finite([scores], data, first=i)
            yield x, judged, scores

    def _blame(self, x: Array, judged: Mapping[str, Array]) -> Array:
        return self._blaming_the_still(self.panel_.by_channel(judged), x)

    def _blaming_the_still(self, found: Array, x: Array) -> Array:
        """Contributions [C, T] with channels first that stood still in training and move in scaled values x [C, T].

        Windows of the closed forms carry a move to the steps around it, and so is the blame.
        """
        away = np.abs(x - self.scaler_.transform(self.still_[:, None]))
        rounding = np.maximum(1e-6 * np.abs(self.still_), 1e-12) / self.scaler_.scale[0]
        away = np.where(away > rounding[:, None], away, 0.0)  # 0 for NaN, of this channel or of this step
        moved = np.flatnonzero(away.any(axis=1))
        if not moved.size:
            return found
        windows = [judge.window_ for name, judge in self.panel_.closed.items() if name != "spectral_residual"]
        away = maximum_filter1d(away[moved], 2 * max(windows, default=1) - 1, axis=1, mode="constant")
        most = np.maximum(found.max(axis=0), 0.0)  # [T]
        first = most + np.maximum(found[moved], 0.0) + away / (1.0 + away)
        found[moved] = np.where(away > 0, first, found[moved])
        return found

    def _table(self, data: Collection, kind: TableKind, scores: Array) -> Any:
        columns: dict[str, NDArray] = {}
        taken = ("score", "threshold", "alarm")
        series, time = kind.series or free_name("series", taken), kind.time or free_name("step", taken)
        score, threshold, alarm = (free_name(name, (series, time)) for name in taken)
        if len(data) > 1 or kind.series is not None:
            columns[series] = np.repeat(np.array(data.names, dtype=object), data.lengths)
        steps = np.concatenate([np.arange(n) for n in data.lengths])
        columns[time] = steps if data.timestamps is None else data.timestamps
        columns[score] = scores
        columns[threshold] = np.full(len(scores), self.threshold_.value)
        columns[alarm] = self.threshold_.alarms(scores).astype(np.int64)
        return to_table(replace(kind, time=time, series=series), columns)


def _split(data: Collection, validation: Any) -> tuple[Collection, NDArray[np.int64]]:
    """What is learned from, validation part and all, and where the training part ends in each series."""
    if isinstance(validation, Borders):
        cases = [case.part(0, validation.validation_end) for case in data]
        return Collection.of(cases, name=data.name), np.array([min(validation.train_end, len(c)) for c in cases])
    if validation is None or validation == 0:
        return data, data.lengths.copy()
    share = float(cast(float, validation)) if isinstance(validation, Real) else float("nan")
    if not 0 < share < 1:
        raise SettingsError(f"validation is a fraction from 0 to below 1, Borders or None, but got {validation!r}.")
    return data, data.lengths - np.round(data.lengths * share).astype(np.int64)


def _scaler_of(data: Collection, ends: NDArray[np.int64]) -> StandardScaler:
    """One row for all series; a channel that was never observed in training keeps its unit."""
    parts = [data.values[:, a : a + n] for a, n in zip(data.offsets[:-1], ends, strict=True)]
    whole = np.concatenate(parts, axis=1).astype(np.float64)
    mean, scale = np.zeros(len(whole)), np.ones(len(whole))
    some = ~np.isnan(whole).all(axis=1)
    fitted = StandardScaler.fit(Collection.of(Series(whole[some])))
    mean[some], scale[some] = fitted.mean[0], fitted.scale[0]
    return StandardScaler(mean[None], scale[None])


def _refuse_unlike(scaled: Sequence[Array], names: Sequence[str]) -> None:
    """An error where all that moves in one series is nothing beside the distances between series."""
    for x, name in zip(scaled, names, strict=True):
        spread = x[(~np.isnan(x)).any(axis=1)]
        most = float(np.nanstd(spread, axis=1).max(initial=0.0))
        if 0 < most < _TOO_SMALL:
            raise DataError(
                f"Series {name!r} moves by {most:.1g} of the standard deviation of all series together in its "
                "liveliest channel, so nothing that happens there could be seen on one scale with the others. Fit a "
                "detector for each series, or bring the series to one scale before."
            )


def _still(data: Collection) -> Array:
    """The value of each channel that never moved in these data, NaN of the others: [C]."""
    values = data.values.astype(np.float64)
    low, high = np.fmin.reduce(values, axis=1), np.fmax.reduce(values, axis=1)
    return np.where(low == high, low, np.nan)


def _thinned(
    data: Collection, context_length: int, horizon: int, scaler: StandardScaler, most: int, **part: Any
) -> Windows:
    windows = Windows(data, context_length, horizon, scaler=scaler, **part)
    if len(windows) > most:
        stride = -(-len(windows) // most)
        return Windows(data, context_length, horizon, scaler=scaler, stride=stride, **part)
    return windows
