"""The universal model: one encoder, pre-trained once, under light heads for any number of tasks."""

# pyright: reportPrivateUsage=false
# the estimators of single tasks read data for this one
from __future__ import annotations

import copy
import json
import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self, cast, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from prismts.cases import Cases
from prismts.data.series import Collection, Series
from prismts.data.tables import TableKind
from prismts.errors import DataError, SettingsError, a_or_an, unknown_name
from prismts.estimators.answer import forecast_table
from prismts.estimators.base import Estimator, as_json, from_json, weights_hash
from prismts.estimators.classifier import Classifier
from prismts.estimators.detector import AnomalyDetector
from prismts.estimators.embedder import Embedder
from prismts.estimators.forecaster import Forecaster
from prismts.estimators.imputer import Imputer
from prismts.estimators.shared import (
    Plan,
    SharedClassifier,
    SharedDetector,
    SharedForecaster,
    SharedImputer,
    Slot,
    solve_cases,
)
from prismts.estimators.universal_tasks import KINDS, ClassifyOn, DetectOn, ForecastOn, ImputeOn, On
from prismts.evaluation.protocols import data_hash, detector_scores
from prismts.evaluation.scores import Scores
from prismts.evaluation.transfer import WAYS, TransferReport, TransferRow
from prismts.models import find_model, make_settings
from prismts.models.contract import Encoder
from prismts.models.multitask import MultiTask
from prismts.tasks.classify import Classify
from prismts.tasks.mixture import Balance, Balanced, LossBalance, Mixture
from prismts.training.batches import Batches
from prismts.training.fit import FitConfig, FitResult, fit
from prismts.training.mixed import MixedSource

__all__ = ["ClassifyOn", "DetectOn", "ForecastOn", "ImputeOn", "UniversalModel"]

Shared = SharedForecaster | SharedClassifier | SharedDetector | SharedImputer
_MOST_ITEMS, _FEWEST_ITEMS = 8192, 512  # of each task in one epoch
_MOST_CHECKED = 600  # validation items of each task, evenly spaced
_DEFAULT_FIT = FitConfig(
    max_epochs=3, min_steps=300, patience=50, batch_size=64, learning_rate=1e-3, weight_decay=0.01, schedule="one_cycle"
)


class UniversalModel(Estimator):
    """One encoder for every task: pre-train it once without labels, then put light heads on it.

        model = prismts.UniversalModel().pretrain(corpus)
        model.fit([ForecastOn(loads, horizon=24), ClassifyOn(cases, labels), DetectOn(sensors)])
        model.forecast(); model.classify(new_cases); model.detect(new_rows)

    Each task is one of our estimators as it stands (``estimators_``), with its reading of data, its scales, validation,
    calibration and answers; the network is shared. What a task learns from is scaled by its own training part, and a
    threshold of detection comes from training alone. Data of different tasks need not have the same channels, steps or
    lengths.

    Args:
        encoder: a name of ``prismts.models.MODELS`` whose encoder reads any number of channels, such as "universal",
            "convtimenet" or "patchtst".
        context_length: steps of a window, unless a task says otherwise.
        encoder_settings: settings of the architecture.
        fit_settings: settings of ``FitConfig`` that replace those of joint training.
        balance: how the losses of several tasks are put together: "scale", "fixed" or "uncertainty" (see
            ``prismts.tasks.mixture.LossBalance``).
        items_per_epoch: windows or cases of each task that an epoch reads: smaller sets are read several times, of
            larger ones every k-th item. None takes as many as the largest set has, from 512 to 8192.
        random_state: seed of everything random.
        progress: whether to show a bar.
        run_folder: keeps checkpoints, so that a killed ``pretrain`` or ``fit`` resumes when it is called again.

    Attributes:
        encoder_: the encoder as ``pretrain`` left it, from which every ``fit`` begins; after loading, the saved one.
        model_: the encoder with its heads, a ``MultiTask``.
        estimators_: the estimator of each task by name: everything it can do on its own, it can do here.
        fit_result_: best epoch and losses by epoch of the last training; validation judges by the mean over tasks of
            the error relative to that before training.
        validation_errors_: of each task by name, in its own units, for the tasks with a validation part.
        pretrain_result_: best epoch and losses by epoch of pre-training; None without.
        corpus_: what pre-training learned from, one row per set; empty without. A number on a set that stands here is
            not zero-shot.
    """

    _bound = ("encoder", "context_length", "encoder_settings")

    def __init__(
        self,
        encoder: str = "universal",
        *,
        context_length: int = 256,
        encoder_settings: Mapping[str, Any] | None = None,
        fit_settings: Mapping[str, Any] | None = None,
        balance: Balance = "scale",
        items_per_epoch: int | None = None,
        random_state: int = 0,
        progress: bool = True,
        run_folder: str | Path | None = None,
    ) -> None:
        self.encoder = encoder
        self.context_length = context_length
        self.encoder_settings = encoder_settings
        self.fit_settings = fit_settings
        self.balance = balance
        self.items_per_epoch = items_per_epoch
        self.random_state = random_state
        self.progress = progress
        self.run_folder = run_folder

    # ---- learning

    def pretrain(
        self, corpus: Any, *, tasks: Any = None, fit_settings: Mapping[str, Any] | None = None, **settings: Any
    ) -> Self:
        """Train the encoder without labels on a corpus; see ``prismts.training.pretrain.pretrain``.

        Heads that were fitted before are gone: they belong to the encoder as it was. ``tasks`` names what is learned
        ("masked", "contrastive", "next_patch", ...), ``fit_settings`` replace those of pre-training, and other
        ``settings`` go on to ``pretrain`` as they are.
        """
        from prismts.training.pretrain import as_corpus, pretrain

        encoder, corpus = self._new_encoder(), as_corpus(corpus)
        if tasks is not None:
            settings["tasks"] = tasks
        if fit_settings is not None:
            settings["config"] = _as_config(settings.get("config"), fit_settings)
        self.pretrain_result_: FitResult | None = pretrain(
            encoder, corpus, seed=self.random_state, progress=self.progress,
            folder=None if self.run_folder is None else Path(self.run_folder) / "pretrain", **settings,
        )  # fmt: skip
        self.corpus_: list[dict[str, Any]] = corpus.describe()
        self._begin_with(encoder)
        return self

    def fit(self, tasks: On | Sequence[On], *, freeze: bool = False) -> Self:
        """Learn all tasks at once, from the pre-trained encoder or, where there is none, from a new one.

        freeze: whether the encoder stays as it is and only the heads learn; a head for classes is then solved in closed
            form (logistic regression) instead of trained.
        """
        tasks = _checked(tasks)
        config = self._config()
        if not hasattr(self, "encoder_") or not self._same_encoder():
            self._begin_with(self._new_encoder())
            self.pretrain_result_, self.corpus_ = None, []
        self.model_ = MultiTask(copy.deepcopy(self.encoder_))
        self.estimators_: dict[str, Shared] = {}
        self.tasks_: dict[str, dict[str, Any]] = {}
        self._learn(tasks, config, freeze=freeze, title="joint training")
        return self

    def add_head(self, task: On) -> Self:
        """Learn one more task on the encoder as it is; every weight there was stays as it was, bit for bit."""
        self._check_fitted()
        (task,) = _checked(task)
        if task.name in self._many:
            raise SettingsError(
                f"There is a head named {task.name!r} already. Give this task another name, or call remove_head first."
            )
        self._learn([task], self._config(), freeze=True, title=f"head {task.name}")
        return self

    def remove_head(self, name: str) -> Self:
        """Forget one task; the rest stays as it is."""
        self._check_fitted()
        self._estimator(name)
        self._many.remove(name)
        del self.estimators_[name], self.tasks_[name]
        return self

    # ---- answering

    def forecast(self, data: Any = None, *, head: str | None = None, horizon: int | None = None) -> Any:
        """Continue every series of ``data`` (None: of the training data): see ``Forecaster.predict``.

        Another ``horizon`` than that of training may be asked for: a shorter one of every head, a longer one of one for
        any horizon.
        """
        name, estimator = self._for("forecast", head)
        assert isinstance(estimator, Forecaster)
        if self.tasks_[name]["channels"] == "named" or (data is None and "apart" not in self.tasks_[name]):
            return estimator.predict(data, horizon=horizon)  # older folders do not know what came in
        if data is None:
            collection, kind, first = _together(estimator, **self.tasks_[name]["apart"])
            answer = estimator.predict(horizon=horizon)
        else:
            collection, kind = estimator._read(data, empty_channels=True)
            first = np.zeros(len(collection), dtype=np.int64)
            answer = estimator.predict((_apart(collection), TableKind("array")), horizon=horizon)
        levels = None if estimator.quantiles is None else [float(q) for q in estimator.quantiles]
        n_levels = () if levels is None else (len(levels),)
        told = answer.reshape(len(collection), collection.n_channels, *n_levels, answer.shape[-1])
        if levels is not None:
            told = told.swapaxes(1, 2)  # [n, Q, C, H]
        if kind.backend == "array":
            return told[0] if estimator._single(collection, data) or isinstance(data, Series) else told
        return forecast_table(told, collection, kind, first, collection.channels, levels)

    def classify(self, X: Any, *, head: str | None = None) -> NDArray[Any]:
        """The likeliest class of each case: [n]."""
        return self._classifier(head).predict(X)

    def classify_proba(self, X: Any, *, head: str | None = None) -> NDArray[np.float64]:
        """The probability of every class for each case [n, K], in the order of ``classes``."""
        return self._classifier(head).predict_proba(X)

    def classes(self, head: str | None = None) -> NDArray[Any]:
        """The classes a head tells apart: [K]."""
        return self._classifier(head).classes_

    def detect(self, data: Any, *, head: str | None = None) -> Any:
        """Alarms: see ``AnomalyDetector.predict``."""
        return self._detector(head).predict(data)

    def detect_scores(self, data: Any, *, head: str | None = None) -> Any:
        """How unusual each step is: see ``AnomalyDetector.score_samples``."""
        return self._detector(head).score_samples(data)

    def impute(self, data: Any, *, head: str | None = None) -> Any:
        """The data with every gap filled: see ``Imputer.transform``."""
        estimator = self._for("impute", head)[1]
        assert isinstance(estimator, Imputer)
        return estimator.transform(data)

    def embed(self, X: Any, *, pooling: str = "both", channels: str = "pooled") -> NDArray[np.float32]:
        """One vector per case, from the encoder alone: [n, d]; see ``embedder``."""
        return self.embedder(pooling=pooling, channels=channels).transform(X)

    def embedder(self, *, pooling: str = "both", channels: str = "pooled") -> Embedder:
        """The encoder as an ``Embedder``, of cases and of windows.

        Mean and logarithm of the deviation of a case stand at the end of each vector in the units of the case: without
        a task there are no training series to measure them by. It is kept with this model, and not on its own.
        """
        self._check_fitted()
        embedder = _Vectors(self.encoder, pooling=pooling, channels=cast(Any, channels), progress=False)
        embedder._check_choices()
        embedder.level_, embedder.spread_ = np.zeros(2), np.ones(2)
        embedder.model_, embedder._inference = self._many.encoder, None
        embedder.context_length_ = int(self.context_length)
        embedder.channels_, embedder.n_channels_ = (), 0
        embedder._fitted()
        return embedder

    def evaluate(self, data: Any, y: Any = None, *, head: str, **how: Any) -> Scores:
        """How well a task is done on known data.

        A forecast by ``Forecaster.backtest`` (``begin``, ``end``, ``stride``), classes by ``Classifier.evaluate``,
        detection by the labels of a ``Series``, on the test part (of ``borders``), and imputation
        by ``Imputer.evaluate_removed`` (``share``, ``kind``).
        """
        self._check_fitted()
        estimator = self._estimator(head)
        if isinstance(estimator, Forecaster):
            if self.tasks_[head]["channels"] == "apart":
                data = (_apart(estimator._read(data)[0]), TableKind("array"))
            return estimator.backtest(data, **how).scores
        if isinstance(estimator, Classifier):
            return estimator.evaluate(data, y, **how)
        if isinstance(estimator, AnomalyDetector):
            return detector_scores(estimator, data, **how)
        return estimator.evaluate_removed(data, **how)

    def transfer_report(
        self,
        tasks: Sequence[On],
        tests: Mapping[str, Any],
        *,
        seeds: Sequence[int] = (0, 1, 2),
        ways: Sequence[str] | None = None,
    ) -> TransferReport:
        """Train the tasks jointly, separately, on the frozen encoder and from scratch, and score each on its test.

        This model stays as it is: every number comes from a copy that begins with the encoder pre-training left, and
        "scratch" from a new one. Without pre-training, "separate" is from scratch, and "frozen" a random encoder.

        Args:
            tasks: what ``fit`` learns.
            tests: by the name of each task, what ``evaluate`` reads: data, or a mapping of its arguments such as
                ``{"data": X, "y": labels}`` or ``{"data": series, "begin": 900}``.
            seeds: of heads, batches and, from scratch, encoders; one pre-trained encoder is shared by all of them.
            ways: some of ``prismts.evaluation.transfer.WAYS``; None takes all that differ.
        """
        tasks = _checked(tasks)
        pretrained = getattr(self, "pretrain_result_", None) is not None
        known = list(WAYS) if pretrained else [way for way in WAYS if way != "scratch"]
        for way in ways or ():
            if way not in known:
                raise unknown_name("way of training", way, known)
        lacking = [task.name for task in tasks if task.name not in tests]
        if lacking:
            raise SettingsError(f"Task {lacking[0]!r} has no test to be scored on. tests names: {', '.join(tests)}.")
        rows: list[TransferRow] = []
        for seed in seeds:
            for way in ways or known:
                for group in [tasks] if way == "joint" else [[task] for task in tasks]:
                    began = clock.perf_counter()
                    twin = self._twin(seed, pretrained=pretrained and way != "scratch")
                    twin.fit(group, freeze=way == "frozen")
                    seconds = clock.perf_counter() - began
                    for task in group:
                        test = tests[task.name]
                        scores = twin.evaluate(head=task.name, **(test if isinstance(test, dict) else {"data": test}))
                        measure, higher = _MEASURES[task.kind]
                        rows.append(
                            TransferRow(
                                task=task.name,
                                way=way,
                                seed=seed,
                                measure=measure,
                                value=scores[measure],
                                higher_is_better=higher,
                                seconds=seconds,
                            )
                        )
        return TransferReport(tuple(rows))

    def _twin(self, seed: int, *, pretrained: bool) -> UniversalModel:
        """The same arguments with another seed, and the pre-trained encoder or none."""
        params: dict[str, Any] = {**self.get_params(deep=False), "random_state": seed, "run_folder": None}
        twin = UniversalModel(**params)
        if pretrained:
            self._check_fitted()
            twin.pretrain_result_, twin.corpus_ = self.pretrain_result_, self.corpus_
            twin._begin_with(copy.deepcopy(self.encoder_))
        return twin

    # ---- keeping

    def _to_save(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        heads: list[dict[str, Any]] = []
        arrays: dict[str, NDArray] = {}
        for name, estimator in self.estimators_.items():
            fitted, own = estimator._to_save()
            arrays |= {f"{name}/{key}": value for key, value in own.items()}
            heads.append({
                "name": name, "task": as_json(self.tasks_[name]), "options": as_json(estimator.slot.options),
                "params": estimator._arguments, "fitted": fitted,
            })  # fmt: skip
        results = {
            "fit_result": None if self.fit_result_ is None else asdict(self.fit_result_),
            "pretrain_result": None if self.pretrain_result_ is None else asdict(self.pretrain_result_),
        }
        told = {"heads": heads, "validation_errors": self.validation_errors_, "corpus": self.corpus_}
        return {**told, **results}, arrays

    def _restore(self, fitted: dict[str, Any], arrays: dict[str, NDArray]) -> None:
        self.model_ = MultiTask(self._new_encoder())
        self.estimators_, self.tasks_ = {}, {}
        for head in fitted["heads"]:
            name = head["name"]
            self.tasks_[name] = from_json(head["task"])
            slot = Slot(self._many, name, from_json(head["options"]))
            estimator = _ESTIMATORS[self.tasks_[name]["kind"]](**from_json(head["params"]))
            estimator.slot = slot
            prefix = f"{name}/"
            own = {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
            estimator._restore(head["fitted"], own)
            estimator._fitted()
            if isinstance(estimator, SharedClassifier):
                estimator.restored()
            self.estimators_[name] = estimator
        self.validation_errors_, self.corpus_ = dict(fitted["validation_errors"]), list(fitted["corpus"])
        self.fit_result_, self.pretrain_result_ = (
            None if fitted[which] is None else _result(fitted[which]) for which in ("fit_result", "pretrain_result")
        )
        self.encoder_ = self._many.encoder  # which the weights that follow go to

    # ---- inside

    @property
    def _many(self) -> MultiTask:
        return cast(MultiTask, self.model_)

    def _new_encoder(self) -> Encoder:
        architecture = find_model(self.encoder)
        if not architecture.is_encoder:
            raise SettingsError(
                f"{self.encoder!r} is a direct forecaster and has no tokens that tasks could share. Choose an encoder, "
                "such as 'universal'."
            )
        length: Any = self.context_length
        if not isinstance(length, int | np.integer) or isinstance(length, bool) or length < 8:
            raise SettingsError(f"context_length is a whole number of time steps, at least 8, but got {length!r}.")
        settings = make_settings(architecture.config, self.encoder_settings or {})
        with torch.random.fork_rng():
            torch.manual_seed(self._seed(0))
            encoder = architecture.build(settings, n_channels=1, context_length=int(length))
        assert isinstance(encoder, Encoder)
        if encoder.n_channels is not None or encoder.n_groups_of != "channels":
            raise SettingsError(
                f"A universal model needs an encoder that keeps channels apart and reads any number of them, but "
                f"{self.encoder!r} with these settings mixes them. Choose 'universal', 'convtimenet' or 'patchtst'."
            )
        return encoder

    def _begin_with(self, encoder: Encoder) -> None:
        """The encoder from which tasks begin, and no task yet."""
        self.encoder_ = encoder.requires_grad_(True).eval()
        self.model_ = MultiTask(encoder)
        self.estimators_, self.tasks_ = {}, {}
        self.fit_result_: FitResult | None = None
        self.validation_errors_: dict[str, float] = {}
        self._fitted()

    def _same_encoder(self) -> bool:
        """Whether the encoder there is has the form that the arguments name, as a pre-trained one must."""
        same = all(as_json(getattr(self, name)) == self._arguments[name] for name in self._bound)
        if not same and getattr(self, "pretrain_result_", None) is not None:
            self._check_fitted()  # says which argument has changed since pre-training
        return same and (self.pretrain_result_ is not None or self._arguments["random_state"] == self.random_state)

    def _config(self) -> FitConfig:
        if self.balance not in get_args(Balance):
            raise unknown_name("balance", self.balance, get_args(Balance))
        items: Any = self.items_per_epoch
        if items is not None and (not isinstance(items, int | np.integer) or isinstance(items, bool) or items < 1):
            raise SettingsError(f"items_per_epoch counts windows or cases, at least 1, but got {items!r}.")
        return _DEFAULT_FIT.changed(self.fit_settings)

    def _learn(self, tasks: Sequence[On], config: FitConfig, *, freeze: bool, title: str) -> None:
        """Plan every task, train all of them at once, and let each go on."""
        held = self._many.names
        slots: dict[str, Slot] = {}
        estimators: dict[str, Shared] = {}
        fits: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        plans: dict[str, Plan] = {}
        told: dict[str, dict[str, Any]] = {}  # what was found out about the data of each task
        try:
            for task in tasks:
                slots[task.name] = slot = Slot(self._many, task.name, _options(task))
                estimators[task.name] = estimator = self._make(task, slot)
                fits[task.name], told[task.name] = _arguments(task, estimator, freeze=freeze)
                plans[task.name] = estimator.plan(*fits[task.name][0], **fits[task.name][1])
            self._many.hold(encoder=freeze, heads=held)
            with torch.random.fork_rng():
                torch.manual_seed(self._seed(0))
                result = self._train_plans(tasks, plans, config, freeze=freeze, title=title)
            self.model_.eval()
            for name, estimator in estimators.items():
                slots[name].result = result
                args, how = fits[name]
                estimator.fit(*args, **how)
                slots[name].plan = None
        except BaseException:
            for name in slots:
                if name in self._many:
                    self._many.remove(name)
            raise
        self.fit_result_ = result
        self.estimators_ |= estimators
        self.tasks_ |= {task.name: {**task.as_dict(), **told[task.name]} for task in tasks}
        self._fitted()

    def _train_plans(
        self, tasks: Sequence[On], plans: Mapping[str, Plan], config: FitConfig, *, freeze: bool, title: str
    ) -> FitResult:
        trained = dict(plans)
        for name, plan in plans.items():
            if freeze and isinstance(plan.task, Classify):
                assert isinstance(plan.train, Cases)
                weight = plan.task.class_weight
                solve_cases(
                    plan.view, plan.train, seed=self._seed(0), class_weight=None if weight is None else weight.numpy()
                )
                del trained[name]
        mixture = Mixture({n: p.task for n, p in plans.items()}, {n: p.view for n, p in plans.items()})
        checks = {name: plan.check for name, plan in plans.items() if plan.check is not None}
        n_checked = {name: min(len(check), _MOST_CHECKED) for name, check in checks.items()}
        result = FitResult(0, float("nan"), ())
        if trained:
            result = self._train_mixture(tasks, trained, config, title)
        self.model_.eval()
        if checks:
            judged = MixedSource(checks, n_items=n_checked)
            self.validation_errors_ |= mixture.judged(iter(Batches(judged, config.batch_size)))
        return result

    def _train_mixture(
        self, tasks: Sequence[On], plans: Mapping[str, Plan], config: FitConfig, title: str
    ) -> FitResult:
        mixture = Mixture({n: p.task for n, p in plans.items()}, {n: p.view for n, p in plans.items()})
        n_items = self.items_per_epoch
        if n_items is None:
            n_items = min(max(_FEWEST_ITEMS, *(len(plan.train) for plan in plans.values())), _MOST_ITEMS)
        apart = frozenset(name for name, plan in plans.items() if not isinstance(plan.task, Classify))
        loose = frozenset(name for name in apart if getattr(plans[name].view, "n_channels", None) is None)
        grouped: dict[str, Any] = {"channels_at_once": config.channels_at_once, "apart": loose}
        train = MixedSource({name: plan.train for name, plan in plans.items()}, n_items=n_items, **grouped)
        checks = {name: plan.check for name, plan in plans.items() if plan.check is not None}
        check = None
        if checks:
            n_checked = {name: min(len(one), _MOST_CHECKED) for name, one in checks.items()}
            check = MixedSource(checks, n_items=n_checked, **grouped)
            mixture.prepare(iter(Batches(check, config.batch_size)))
        names = tuple(plans)
        balance = LossBalance(
            names, weights={task.name: task.weight for task in tasks if task.name in plans},
            balance=cast(Any, self.balance), likelihoods=frozenset(names) - apart,
        )  # fmt: skip
        mark = [
            weights_hash(self.model_),
            [task.as_dict() for task in tasks],
            *(_hash_of(source) for plan in plans.values() for source in (plan.train, plan.check)),
        ]
        return fit(
            Balanced(self._many, balance).train(), mixture, train, check, config=config, seed=self._seed(0),
            folder=None if self.run_folder is None else Path(self.run_folder) / title.replace(" ", "-"),
            **self._fingerprint(json.dumps(as_json(mark), sort_keys=True)), progress=self.progress,
            title=f"{self.encoder}, {title}: {', '.join(names)}",
        )  # fmt: skip

    def _make(self, task: On, slot: Slot) -> Shared:
        common: dict[str, Any] = {
            **task.reading(), "random_state": self.random_state, "progress": False,
        }  # fmt: skip
        length = getattr(task, "context_length", None)
        if isinstance(task, ForecastOn):
            made: Shared = SharedForecaster(
                self.encoder, context_length=self.context_length if length is None else length, horizon=task.horizon,
                head="any_horizon" if task.head == "any_horizon" else "flatten", quantiles=task.quantiles,
                loss=task.loss, **common,
            )  # fmt: skip
        elif isinstance(task, ClassifyOn):
            del common["frequency"]
            made = SharedClassifier(
                self.encoder, setting="network", class_weight=task.class_weight, label=task.label, **common
            )
        elif isinstance(task, DetectOn):
            made = SharedDetector(
                self.encoder, setting="network", score="reconstruct", context_length=length, threshold=task.threshold,
                false_alarm_rate=task.false_alarm_rate, **common,
            )  # fmt: skip
        else:
            assert isinstance(task, ImputeOn)
            made = SharedImputer(
                self.encoder, context_length=self.context_length if length is None else length, setting=task.setting,
                **common,
            )  # fmt: skip
        made.slot = slot
        return made

    def _estimator(self, name: str) -> Shared:
        if name not in self.estimators_:
            raise unknown_name("head", name, self.estimators_)
        return self.estimators_[name]

    def _for(self, kind: str, head: str | None) -> tuple[str, Shared]:
        """The head of this name, or the only one of this kind."""
        self._check_fitted()
        if head is not None:
            estimator = self._estimator(head)
            if self.tasks_[head]["kind"] != kind:
                raise SettingsError(f"Head {head!r} was learned to {self.tasks_[head]['kind']}, not to {kind}.")
            return head, estimator
        known = [name for name, task in self.tasks_.items() if task["kind"] == kind]
        if not known:
            there = ", ".join(repr(name) for name in self.tasks_) or "none"
            raise SettingsError(
                f"This model has no head to {kind}; its heads: {there}. Fit {a_or_an(KINDS[kind].__name__)}, or "
                "add one with add_head."
            )
        if len(known) > 1:
            raise SettingsError(f"Several heads {kind}: {', '.join(known)}. Name one with head=.")
        return known[0], self.estimators_[known[0]]

    def _classifier(self, head: str | None) -> Classifier:
        estimator = self._for("classify", head)[1]
        assert isinstance(estimator, Classifier)
        return estimator

    def _detector(self, head: str | None) -> AnomalyDetector:
        estimator = self._for("detect", head)[1]
        assert isinstance(estimator, AnomalyDetector)
        return estimator


_MEASURES = {
    "forecast": ("mse", False), "classify": ("accuracy", True), "detect": ("vus_pr", True), "impute": ("mse", False),
}  # fmt: skip
_ESTIMATORS: dict[str, Any] = {
    "forecast": SharedForecaster, "classify": SharedClassifier, "detect": SharedDetector, "impute": SharedImputer,
}  # fmt: skip


class _Vectors(Embedder):
    """An embedder on the encoder of a universal model, which is what is saved."""

    def _to_save(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        raise SettingsError("This embedder is the encoder of a universal model. Save that model: it embeds as well.")


def _checked(tasks: Any) -> list[On]:
    found: list[Any] = [tasks] if isinstance(tasks, On) else list(tasks) if isinstance(tasks, Sequence) else [tasks]
    for task in found:
        if not isinstance(task, On):
            raise SettingsError(
                f"fit learns tasks such as ForecastOn(data, horizon=24) or ClassifyOn(X, y), or a list of them, but "
                f"got a {type(task).__name__}."
            )
    if not found:
        raise SettingsError("fit needs at least one task, such as ForecastOn(data, horizon=24), but got none.")
    names = [task.name for task in found]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise SettingsError(
            f"{names.count(twice[0])} tasks are called {twice[0]!r}. Give each a name: "
            f"{type(found[names.index(twice[0])]).__name__}(..., name='another')."
        )
    return found


def _options(task: On) -> dict[str, Any]:
    """What the head of a task looks like."""
    kept = {"forecast": ("head", "line", "dropout"), "classify": ("channels", "pooling", "stretch")}.get(task.kind, ())
    return {name: getattr(task, name) for name in kept}


def _arguments(
    task: On, estimator: Shared, *, freeze: bool
) -> tuple[tuple[tuple[Any, ...], dict[str, Any]], dict[str, Any]]:
    """What ``fit`` of the estimator is called with, and what is to be kept of data whose channels stand apart."""
    if isinstance(task, ClassifyOn):
        share = (None if freeze else 0.2) if task.validation == "auto" else task.validation
        estimator.set_params(validation=share)
        return (_with_labels(task, estimator), {}), {}
    if isinstance(task, ForecastOn) and task.channels == "apart":
        assert isinstance(estimator, Forecaster)
        data, kind = estimator._read(task.data)
        whole = {"names": list(data.names), "channels": list(data.channels), "kind": asdict(kind)}
        return (((_apart(data), TableKind("array")),), {"validation": task.validation}), {"apart": whole}
    return ((task.data,), {"validation": task.validation}), {}


def _with_labels(task: ClassifyOn, estimator: Shared) -> tuple[Any, Any]:
    """Cases and labels, without the cases that have no label."""
    if task.y is None:
        return task.data, None
    given = list(task.y)
    missing = [np.ndim(one) == 0 and (bool(pd.isna(one)) or (isinstance(one, str) and not one)) for one in given]
    if not any(missing):
        return task.data, task.y
    if all(missing):
        raise DataError(f"No case of task {task.name!r} has a label, so there is nothing to tell apart.")
    assert isinstance(estimator, Classifier)
    data = estimator.read_(task.data, empty_channels=False, n_labels=len(given))
    if len(data) != len(given):
        return data, task.y  # which fit refuses, in its own words
    kept = [i for i, lacks in enumerate(missing) if not lacks]
    cases = Collection.of([data[i] for i in kept], name=data.name)
    return replace(cases, names=tuple(data.names[i] for i in kept)), [given[i] for i in kept]


def _apart(data: Collection) -> Collection:
    """Every channel of every series as a series of its own."""
    cases = [
        replace(
            case, values=case.values[c : c + 1], channels=("value",), name=f"{case.name}, {channel}", labels=None,
            findings=(),
        )
        for case in data
        for c, channel in enumerate(data.channels)
    ]  # fmt: skip
    found = Collection.of(cases, name=data.name)
    return replace(found, frequency=data.frequency)


def _together(
    estimator: Forecaster, names: Sequence[str], channels: Sequence[str], kind: Mapping[str, Any]
) -> tuple[Collection, TableKind, NDArray[np.int64]]:
    """The ends of the training series with their channels put together again, their kind, and where each begins."""
    tails, width = estimator.tails_, len(channels)
    cases = [
        replace(
            tails[i * width], name=name, channels=tuple(channels),
            values=np.concatenate([tails[i * width + c].values for c in range(width)]),
        )
        for i, name in enumerate(names)
    ]  # fmt: skip
    found = replace(Collection.of(cases, name=tails.name), frequency=tails.frequency)
    return found, TableKind(**kind), estimator._tail_starts[::width]


def _as_config(config: Any, changes: Mapping[str, Any]) -> FitConfig:
    from prismts.training.pretrain import PRETRAIN_FIT

    return (config or PRETRAIN_FIT).changed(changes)


def _hash_of(source: Any) -> str:
    return "" if source is None else f"{data_hash(source.data)} {len(source)}"


def _result(value: Mapping[str, Any]) -> FitResult:
    """A result as it was saved: JSON has no NaN."""
    kept = dict(value)
    if kept["best_loss"] is None:
        kept["best_loss"] = float("nan")
    return FitResult(**kept)
