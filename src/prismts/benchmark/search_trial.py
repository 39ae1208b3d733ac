"""Train one candidate of a search and judge it on validation; read the test part once, on request.

The part of the data that a search sees ends where validation ends: what lies behind is cut off when the data are read,
so that nothing in a search can look at it. Only :meth:`Ground.test` reads the data again, whole.
"""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prismts.analysis.proposal import period_of, period_of_cases
from prismts.analysis.shape import Site
from prismts.benchmark.search_space import Candidate, Place
from prismts.benchmark.search_spec import SearchSpec
from prismts.cases import Cases, scaler_of_cases
from prismts.data.catalog import load_dataset
from prismts.data.readers import read
from prismts.data.series import Collection, Series
from prismts.data.splits import Borders, by_fraction
from prismts.errors import DataError, SettingsError
from prismts.estimators.case_recipes import find_case_recipe, patched
from prismts.estimators.classifier import Classifier
from prismts.estimators.forecaster import Forecaster
from prismts.estimators.recipes import find_recipe, patches_for_context, with_patches
from prismts.evaluation.protocols import data_hash
from prismts.models import make_settings
from prismts.models.convtimenet import ConvTimeNet, ConvTimeNetConfig

__all__ = ["Ground", "Judged", "ground", "latency"]

_SHARE = 0.125  # of several series before their test part that is validation: 70 / 10 / 20
_PASSES, _WARMUP = 7, 2


@dataclass(frozen=True)
class Judged:
    """What a part of the data says of a candidate."""

    scores: Mapping[str, float]
    n_scored: int
    counted: str  # what is counted: windows or cases
    seconds: float  # of training and judging
    best_epoch: int  # of the first network


class Ground(ABC):
    """The data of a search without their test part, and what is known of them."""

    place: Place
    data_hash: str  # of the part that the search sees

    @abstractmethod
    def arguments(self, one: Candidate) -> dict[str, Any]:
        """What the estimator is made with: plain values that YAML can hold."""

    @abstractmethod
    def judge(self, one: Candidate, *, run_folder: Path | None = None) -> Judged:
        """Train on the training part and score the validation part."""

    @abstractmethod
    def test(self, one: Candidate) -> Judged:
        """Train as :meth:`judge` does and score the test part, which is read for it."""


class _Forecasts(Ground):
    def __init__(self, spec: SearchSpec) -> None:
        self.spec = spec
        whole = _load(spec)
        self.data, self.validation = _before_test(whole)
        self.data_hash = data_hash(self.data)
        recipe = find_recipe(spec.setting, None, None)
        fixed = dict(spec.model)
        n_read = recipe.network_reads(spec.context_length)
        site = Site(
            n_timepoints=n_read, n_channels=self.data.n_channels, n_outputs=spec.horizon,
            channels=fixed.get("channels", recipe.model.get("channels", "independent")),
        )  # fmt: skip
        lengths = self.data.lengths
        ends = (
            np.minimum(lengths, self.validation.train_end) if isinstance(self.validation, Borders)
            else lengths - np.round(lengths * self.validation).astype(np.int64)
        )  # fmt: skip
        reader = Forecaster(context_length=spec.context_length, horizon=spec.horizon)
        for part in ({"end": ends}, {"begin": ends}):  # training and validation: told before any trial
            reader.windows_(self.data, None, **part)
        self.place = Place(
            site=site, n_values=int(ends.sum()) * self.data.n_channels, period=period_of(self.data, ends),
            base=recipe.model, fit=recipe.fit.changed(spec.fit), fixed=fixed,
            own=with_patches({**recipe.model, **fixed}, patches_for_context(n_read)),
        )  # fmt: skip

    def arguments(self, one: Candidate) -> dict[str, Any]:
        return {
            "model": "convtimenet", "context_length": self.spec.context_length, "horizon": self.spec.horizon,
            "setting": self.spec.setting, "model_settings": _beyond(one.model, self.place.base),
            "fit_settings": {**self.spec.fit, **one.fit}, "n_members": self.spec.n_members,
            "random_state": self.spec.seed,
        }  # fmt: skip

    def judge(self, one: Candidate, *, run_folder: Path | None = None) -> Judged:
        return self._judged(one, self.data, self.validation, run_folder, "validation")

    def test(self, one: Candidate) -> Judged:
        whole = _load(self.spec)
        if isinstance(self.validation, Borders):
            assert isinstance(whole, Series) and whole.borders is not None
            return self._judged(one, Collection.of(whole), whole.borders, None, "test")
        return self._judged(one, Collection.of(whole) if isinstance(whole, Series) else whole, None, None, "test")

    def _judged(
        self, one: Candidate, data: Collection, validation: Borders | float | None, folder: Path | None, part: str
    ) -> Judged:
        began = time.perf_counter()
        forecaster = Forecaster(**self.arguments(one), progress=False, run_folder=folder)
        if part == "test" and validation is None:  # learned from the same part as in the search
            forecaster.fit(self.data, validation=_SHARE)
            begin, end = np.asarray(self.data.lengths), None
        else:
            forecaster.fit(data, validation=validation)
            begin, end = forecaster.train_ends_, forecaster.test_begins_
            if part == "test":
                assert isinstance(validation, Borders)
                begin, end = forecaster.test_begins_, validation.test_end
        scores = forecaster.backtest(data, begin=begin, end=end).scores
        kept = {name: float(scores[name]) for name in ("mse", "mae")}
        seconds = time.perf_counter() - began
        return Judged(kept, scores.n_scored, "windows", seconds, forecaster.fit_result_.best_epoch)


class _Classes(Ground):
    def __init__(self, spec: SearchSpec) -> None:
        self.spec = spec
        whole = _load(spec)
        if not isinstance(whole, Collection) or (whole.labels is None and spec.label is None):
            raise DataError(f"{spec.data} holds no labeled cases. For a long table name the columns series and label.")
        self.data = whole if spec.is_file else whole.train
        self.data_hash = data_hash(self.data)
        recipe = find_case_recipe(spec.setting, None, None)
        cases = Cases(
            self.data, np.zeros(len(self.data), dtype=np.int64), scaler=scaler_of_cases(self.data, recipe.scaling)
        )
        n_classes = len(set(np.asarray(self.data.labels).tolist()))
        n_pooled = 2 if recipe.pooling == "both" else 1
        site = Site(
            n_timepoints=int(cases.lengths.max()), n_channels=self.data.n_channels, n_outputs=n_classes,
            n_pooled=n_pooled, channels=spec.model.get("channels", recipe.model.get("channels", "mixed")),
        )  # fmt: skip
        self.place = Place(
            site=site, n_values=int(cases.lengths.sum()) * self.data.n_channels, period=period_of_cases(self.data),
            base=recipe.model, fit=recipe.fit.changed(spec.fit), fixed=dict(spec.model),
            own=patched({**recipe.model, **spec.model}, site.n_timepoints),
        )  # fmt: skip

    def arguments(self, one: Candidate) -> dict[str, Any]:
        return {
            "model": "convtimenet", "setting": self.spec.setting,
            "model_settings": _beyond(one.model, self.place.base), "fit_settings": {**self.spec.fit, **one.fit},
            "n_members": self.spec.n_members, "validation": self.spec.validation, "random_state": self.spec.seed,
        }  # fmt: skip

    def judge(self, one: Candidate, *, run_folder: Path | None = None) -> Judged:
        began = time.perf_counter()
        classifier = self._fit(one, run_folder)
        scores = classifier.validation_scores_
        if scores is None:
            raise SettingsError(
                "Nothing was left out to judge by: a search needs validation. Set validation: auto, a share or a "
                "number of folds, and give every class at least two cases."
            )
        n, epoch = classifier.n_cases_["validation"], classifier.fit_results_[0].best_epoch
        return Judged(dict(scores), n, "cases", time.perf_counter() - began, epoch)

    def test(self, one: Candidate) -> Judged:
        began = time.perf_counter()
        if self.spec.is_file:
            if self.spec.test_data is None:
                raise SettingsError("There are no test cases. Name a file of labeled ones: test_data: FILE.")
            cases = _cases(replace(self.spec, data=self.spec.test_data))
        else:
            whole = _load(self.spec)
            assert isinstance(whole, Collection)
            cases = whole.test
        classifier = self._fit(one, None)
        scores = classifier.evaluate(cases)
        kept = {name: float(scores[name]) for name in ("accuracy", "balanced_accuracy", "f1_macro", "log_loss")}
        epoch = classifier.fit_results_[0].best_epoch
        return Judged(kept, scores.n_scored, "cases", time.perf_counter() - began, epoch)

    def _fit(self, one: Candidate, run_folder: Path | None) -> Classifier:
        return Classifier(**self.arguments(one), progress=False, run_folder=run_folder).fit(self.data)


def ground(spec: SearchSpec) -> Ground:
    """The data of a search, read, and cut where their test part begins."""
    return _Forecasts(spec) if spec.task == "forecast" else _Classes(spec)


def latency(settings: Mapping[str, Any], site: Site) -> float:
    """Milliseconds that one window by itself needs on this machine's processor, kernels merged, without a head.

    The median of seven passes after two for warming up, on as many threads as torch has. It is a measurement: it
    differs a little every time, and between machines a lot.
    """
    with torch.random.fork_rng():
        config = make_settings(ConvTimeNetConfig, settings)
        model = ConvTimeNet(config, n_channels=site.n_channels, context_length=site.n_timepoints).merged()
        x = torch.randn(1, site.n_channels, site.n_timepoints)
    passes: list[float] = []
    with torch.inference_mode():
        for _ in range(_WARMUP + _PASSES):
            began = time.perf_counter()
            model(x)
            passes.append(time.perf_counter() - began)
    return 1000 * float(np.median(passes[_WARMUP:]))


def _beyond(model: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the recipe does not bring by itself, lists in the place of tuples."""
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in model.items()}
    known = {name: list(value) if isinstance(value, tuple) else value for name, value in base.items()}
    return {name: value for name, value in plain.items() if name not in known or known[name] != value}


def _before_test(whole: Series | Collection) -> tuple[Collection, Borders | float]:
    """The data up to the end of validation, and what of them is validation."""
    if isinstance(whole, Series):
        borders = whole.borders or by_fraction(len(whole))
        end = borders.validation_end
        known = replace(whole.part(0, end), borders=None)
        known = replace(known, values=known.values.copy())
        return Collection.of(known), Borders(borders.train_end, end, end)
    parts = [case.part(0, len(case) - int(len(case) * 0.2)) for case in whole]
    return replace(Collection.of(parts, name=whole.name), frequency=whole.frequency), _SHARE


def _load(spec: SearchSpec) -> Series | Collection:
    if not spec.is_file:
        return load_dataset(spec.data)
    if spec.label is not None:
        return _cases(spec)
    values = None if spec.values is None else list(spec.values)
    found = read(spec.data, time=spec.time, series=spec.series, values=values)
    if isinstance(found, Series) and found.borders is None:
        with contextlib.suppress(SettingsError):  # a series too short to cut fails where it is used
            found = replace(found, borders=by_fraction(len(found)))
    return found


def _cases(spec: SearchSpec) -> Collection:
    """Labeled cases of a file: a .ts file brings its labels, of a long table they are a column."""
    reader = Classifier(time=spec.time, series=spec.series, values=spec.values, label=spec.label)
    data, labels = reader._labeled(spec.data, None)  # pyright: ignore[reportPrivateUsage]
    return replace(data, labels=labels)
