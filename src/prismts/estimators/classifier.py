"""Classify cases of any length: fit, predict, calibrated probabilities, embeddings, save."""

from __future__ import annotations

import json
import time as clock
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.base import ClassifierMixin
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit
from torch import Tensor, nn

from prismts.analysis.proposal import Proposal, propose_cases
from prismts.cases import Cases, scaler_of_cases
from prismts.data.layout import Duplicates
from prismts.data.readers import columns_of, read
from prismts.data.scaling import StandardScaler
from prismts.data.series import Collection, Series
from prismts.errors import DataError, SettingsError, ShapeError
from prismts.estimators.answer import check_finite
from prismts.estimators.base import Estimator, joined, on_device
from prismts.estimators.case_recipes import CaseRecipe, find_case_recipe, fit_for, patched
from prismts.estimators.labels import read_labeled
from prismts.estimators.match import reordered
from prismts.evaluation.classification import classification_scores
from prismts.evaluation.protocols import data_hash
from prismts.evaluation.scores import Scores
from prismts.layers.heads import PoolHead, pooled
from prismts.layers.hydra import HydraMap
from prismts.layers.products import quick_products
from prismts.models.contract import Encoder
from prismts.models.stacked import Stacked
from prismts.tasks.classify import Augmentation, Classify, Judge
from prismts.tasks.decoupled_masking import DecoupledMasking, start_from
from prismts.training.fit import FitConfig, FitResult

__all__ = ["Classifier"]

_FEW = 500  # cases up to which validation goes through all of them in folds
_FOLDS = 4
_SHARE = 0.2  # of more cases than that
_CASES_PER_EPOCH = 160  # fewer are seen several times an epoch, or judging them takes longer than learning from them
_VALUES = 2**22  # values of cases that go through the model at once when predicting


class Classifier(ClassifierMixin, Estimator):
    """Learns from labeled cases to tell their class.

    Cases may be an array [n_cases, n_channels, n_timepoints] (or [n_cases, n_timepoints] of one channel), a list of
    arrays [n_channels, n_timepoints] of any lengths, a ``Collection``, or a path to a ``.ts`` file. NaN means not
    observed. Labels may be of any type; a ``Collection`` and a ``.ts`` file bring their own. A long table, or a path to
    one, is read with ``series`` (the column that tells cases apart) and ``label`` (the column of their classes).

    The default sets a ConvTimeNet beside a closed-form classifier on competing random kernels (``HydraMap``), and
    weighs the two on cases neither has learned from; so it is not worse where a network has too little to learn from.

    Args:
        model: a name of ``prismts.models.MODELS`` with an encoder, or "auto": a ConvTimeNet whose patches, kernels,
            depth and width a rule proposes from the cases (see ``proposal_``); ``model_settings`` stay as given.
        setting: a named recipe of ``CLASSIFY_SETTINGS``: "default", "network" (without the closed-form classifier), or
            "published" (the authors' form), "pretrained" (``model="timemae"``, first trained without labels), or
            "pretrained_network" (the same without the closed-form classifier).
        model_settings: settings of the architecture that replace those of the recipe.
        fit_settings: settings of ``FitConfig`` that replace those of the recipe.
        n_members: networks that differ in their seed, whose mean counts; None takes the number of the recipe.
        class_weight: "balanced" lets every class count alike; or a weight for each class.
        validation: a share of the training cases, or a number of folds (the networks of all folds then answer
            together), always stratified; "auto" takes 4 folds of up to 500 cases and a fifth of more; None learns from
            all cases for all epochs, and calibrates nothing.
        refit: whether to train once more on all cases, for as many epochs as validation chose.
        time, series, values, label: columns of a long table; ``values`` are its channels.
        random_state: seed of everything random.
        progress: whether to show a bar.
        run_folder: keeps checkpoints, so that a killed ``fit`` resumes when it is called again.

    Attributes:
        classes_: in the order of the columns of ``predict_proba``.
        proposal_: what the rule of ``model="auto"`` proposed and why, in words when printed; None for other models.
        model_: scores of the networks and of the closed-form classifier, weighed; ``members_`` are the networks.
        weights_: of the networks and of the closed-form classifier, as temperatures.
        validation_scores_: of cases while they were left out, or None without validation.
        fit_results_: best epoch and losses by epoch of every training, fold by fold; with ``refit``, those on all cases
            come last, and only their networks are kept.
        n_channels_, channels_, n_timepoints_: what was learned from; ``n_timepoints_`` is the longest case.
    """

    _bound = ("model", "setting", "model_settings", "class_weight")

    def __init__(
        self,
        model: str = "convtimenet",
        *,
        setting: str = "default",
        model_settings: Mapping[str, Any] | None = None,
        fit_settings: Mapping[str, Any] | None = None,
        n_members: int | None = None,
        class_weight: str | Mapping[Any, float] | None = None,
        validation: float | str | None = "auto",
        refit: bool = False,
        time: str | None = None,
        series: str | None = None,
        values: Sequence[str] | None = None,
        label: str | None = None,
        random_state: int = 0,
        progress: bool = True,
        run_folder: str | Path | None = None,
    ) -> None:
        self.model = model
        self.setting = setting
        self.model_settings = model_settings
        self.fit_settings = fit_settings
        self.n_members = n_members
        self.class_weight = class_weight
        self.validation = validation
        self.refit = refit
        self.time = time
        self.series = series
        self.values = values
        self.label = label
        self.random_state = random_state
        self.progress = progress
        self.run_folder = run_folder

    # ---- learning

    def fit(self, X: Any, y: Any = None, *, judged_by: Collection | None = None) -> Self:
        """Learn from cases ``X`` and their labels ``y`` (None: those that the collection brings).

        ``judged_by`` are other labeled cases whose accuracy chooses the epoch, in place of ``validation``: what papers
        did with the test cases (see ``prismts.evaluation.protocols``). Nothing is calibrated or weighed on them.
        """
        if self.model != "auto":
            self._encoder_only("classify")
        data, labels = self._labeled(X, y)
        self.classes_, codes = _classes(labels)
        if len(self.classes_) < 2:
            raise DataError(
                f"A classifier needs cases of at least two classes, but all are {self.classes_.tolist()[0]!r}."
            )
        recipe = find_case_recipe(self.setting, self.model_settings, self.fit_settings)
        self.channels_, self.n_channels_ = data.channels, data.n_channels
        self.scaler_ = scaler_of_cases(data, recipe.scaling)
        cases = Cases(data, codes, scaler=self.scaler_)
        self.n_timepoints_ = int(cases.lengths.max())
        self.proposal_: Proposal | None = None
        if self.model == "auto":
            self.proposal_ = propose_cases(
                data, self.n_timepoints_, n_classes=len(self.classes_), n_pooled=2 if recipe.pooling == "both" else 1,
                base=find_case_recipe(self.setting, None, None).model, fixed=self.model_settings,
            )  # fmt: skip
            recipe = replace(recipe, model=self.proposal_.settings)
        elif self.model == "convtimenet":
            recipe = replace(recipe, model=patched(recipe.model, self.n_timepoints_))
        else:
            recipe = replace(recipe, model=dict(self.model_settings or {}))
        self._recipe_ = recipe
        case_weight, per_class = self._weights(codes)
        self.task_ = self._task(recipe, per_class, judge="loss" if judged_by is None else "accuracy")
        n_members = recipe.n_members if self.n_members is None else self.n_members
        judges = "" if judged_by is None else data_hash(judged_by)
        mark = json.dumps([data_hash(data), codes.tolist(), judges])
        line, line_scores = self._solve_line(cases, codes, case_weight) if recipe.line else (None, None)

        def train(index: NDArray[np.int64], check: Cases | None, part: str, config: FitConfig) -> list[nn.Module]:
            again = np.tile(index, -(-_CASES_PER_EPOCH // len(index)))
            known = Cases(data, codes, scaler=self.scaler_, index=again)
            members, results = self._train(
                self._beginning(known, mark, part), self.task_, known, check, config, n_members=n_members, mark=mark,
                title=f"{self.model} on {data.name}, {part}", part=part,
            )  # fmt: skip
            self.fit_results_ += results
            return members

        self.fit_results_: list[FitResult] = []
        networks: list[nn.Module] = []
        left_out = torch.full((len(codes), len(self.classes_)), torch.nan)  # [n, K] scores of networks
        other = None if judged_by is None else self._judges(judged_by)
        for number, (index, checked) in enumerate(self._folds(codes) if other is None else [_all(codes)]):
            check = Cases(data, codes, scaler=self.scaler_, index=checked) if len(checked) else None
            part = f"fold {number + 1}" if len(checked) else "all cases"
            config = fit_for(recipe, max(len(index), _CASES_PER_EPOCH))
            members = train(index, other if check is None else check, part, config)
            networks += members
            if check is not None:
                left_out[checked] = self._score(joined(members), check)
        judged = ~left_out[:, 0].isnan()
        if self.refit and judged.any():
            epochs = round(float(np.median([result.best_epoch for result in self.fit_results_])))
            config = replace(recipe.fit, max_epochs=max(1, epochs), min_steps=0)
            networks = train(np.arange(len(codes)), None, "all cases", config)
        self.model_ = Stacked(joined(networks), line).eval()
        self.validation_scores_: dict[str, float] | None = None
        if judged.any():
            seen = judged.numpy()
            others = None if line_scores is None else line_scores[judged]
            weights = _stacking(left_out[judged], others, codes[seen], case_weight[seen])
            self.model_.weights.copy_(torch.tensor(weights))
            scores = weights[0] * left_out[judged] + (0 if others is None else weights[1] * others)
            probabilities = scores.softmax(1).numpy()
            self.validation_scores_ = classification_scores(self.classes_[codes[seen]], probabilities, self.classes_)
        self.weights_ = tuple(float(w) for w in self.model_.weights)
        self.n_cases_ = {"train": len(codes), "validation": int(judged.sum())}
        self.data_hash_, self._inference = data_hash(data), None
        self._fitted()
        return self

    # ---- answering

    def predict(self, X: Any) -> NDArray[Any]:
        """The likeliest class of each case: [n]."""
        likeliest = self.predict_proba(X).argmax(1)
        return self.classes_[likeliest]

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """The probability of every class for each case: [n, K], in the order of ``classes_``."""
        self._check_fitted()
        data = self._like_training(X)
        if self._inference is None:
            self._inference = on_device(self.model_)
        found = self._score(self._inference, Cases(data, scaler=self.scaler_)).double().softmax(1).numpy()
        check_finite(found, data)
        return found

    def names_of(self, X: Any) -> list[str]:
        """What the cases are called, in the order of the answers: their number, or the name of their series."""
        self._check_fitted()
        return list(self.read_(X).names)

    def embed(self, X: Any) -> NDArray[np.float32]:
        """What the networks make of each case before they judge it: [n, d], their pooled tokens side by side."""
        self._check_fitted()
        cases = Cases(self._like_training(X), scaler=self.scaler_)

        def embedding(x: Tensor, observed: Tensor | None) -> Tensor:
            found: list[Tensor] = []
            for member in self.members_:
                assert isinstance(member, Encoder) and isinstance(member.head, PoolHead)
                found.append(pooled(member.encode(x, observed), member.head.pooling))
            return torch.cat(found, dim=1)

        return self._score(embedding, cases).numpy()

    def evaluate(self, X: Any, y: Any = None) -> Scores:
        """Accuracy and its like over labeled cases."""
        began = clock.perf_counter()
        self._check_fitted()
        data, labels = self._truth(X, y)
        measures = classification_scores(labels, self.predict_proba(data), self.classes_)
        seconds = clock.perf_counter() - began
        return Scores(measures, len(labels), seconds, data=data.name, data_hash=data_hash(data), counted="cases")

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """The share of cases whose class is told rightly, as scikit-learn asks for it."""
        self._check_fitted()
        data, labels = self._truth(X, y)
        return float(np.average(self.predict(data) == labels, weights=sample_weight))

    @property
    def members_(self) -> Sequence[nn.Module]:
        """The trained networks whose mean counts."""
        network = cast(Stacked, self.model_).network
        return list(cast(Any, network).members) if hasattr(network, "members") else [network]

    # ---- keeping

    def _to_save(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        labels = self.classes_.tolist()
        if not all(isinstance(label, str | int | float | bool) for label in labels):
            raise SettingsError(
                f"Labels are saved as text, numbers or truth values, but {labels[0]!r} is a "
                f"{type(labels[0]).__name__}. Fit with labels of these types."
            )
        recipe = {**asdict(self._recipe_), "model": dict(self._recipe_.model)}
        fitted = {
            "classes": labels,
            "classes_dtype": self.classes_.dtype.str,
            "channels": list(self.channels_),
            "n_timepoints": self.n_timepoints_,
            "n_members": len(self.members_),
            "weights": list(self.weights_),
            "validation_scores": self.validation_scores_,
            "fit_results": [asdict(result) for result in self.fit_results_],
            "n_cases": self.n_cases_,
            "data_hash": self.data_hash_,
            "recipe": recipe,
            "proposal": None if self.proposal_ is None else self.proposal_.as_dict(),
        }
        return fitted, {"scaler.mean": self.scaler_.mean, "scaler.scale": self.scaler_.scale}

    def _restore(self, fitted: dict[str, Any], arrays: dict[str, NDArray]) -> None:
        self.classes_ = np.array(fitted["classes"], dtype=np.dtype(fitted["classes_dtype"]))
        self.channels_, self.n_channels_ = tuple(fitted["channels"]), len(fitted["channels"])
        self.n_timepoints_, self.n_cases_ = fitted["n_timepoints"], fitted["n_cases"]
        self.weights_, self.validation_scores_ = tuple(fitted["weights"]), fitted["validation_scores"]
        self.fit_results_ = [FitResult(**result) for result in fitted["fit_results"]]
        self.data_hash_, self._inference = fitted["data_hash"], None
        self.scaler_ = StandardScaler(arrays["scaler.mean"], arrays["scaler.scale"])
        recipe: dict[str, Any] = dict(fitted["recipe"])
        recipe["fit"], recipe["augmentation"] = FitConfig(**recipe["fit"]), Augmentation(**recipe["augmentation"])
        recipe["pretrain"] = FitConfig(**recipe["pretrain"]) if recipe.get("pretrain") else None
        self._recipe_ = CaseRecipe(**recipe)
        self.proposal_ = None if fitted.get("proposal") is None else Proposal.from_dict(fitted["proposal"])
        self.task_ = self._task(self._recipe_, None)
        with torch.random.fork_rng():  # what is drawn here is replaced at once
            networks = [self._network() for _ in range(fitted["n_members"])]
            line = self._new_line() if self._recipe_.line else None
        self.model_ = Stacked(joined(networks), line)

    # ---- inside

    def _labeled(self, X: Any, y: Any, *, empty_channels: bool = False) -> tuple[Collection, NDArray[Any]]:
        table = None if y is None or self.label is None else columns_of(X, self.time, self.series)
        if table is not None and str(self.label) in table[0].kinds:
            raise SettingsError(
                f"label={self.label!r} names the column of the labels, but y brings labels too. Leave one of them out."
            )
        data = self.read_(
            X, labeled=y is None, empty_channels=empty_channels, n_labels=None if y is None else np.size(y)
        )
        labels = data.labels if y is None else _as_labels(y)
        if labels is None:
            hint = "" if self.label is None else f", or in a column {self.label!r} of a table"
            raise DataError(f"These cases bring no labels. Pass them as y, one for each case{hint}.")
        if labels.ndim != 1 or len(labels) != len(data):
            raise ShapeError(
                f"{len(data)} cases need {len(data)} labels, but y has shape {list(np.shape(labels))}. Cases are "
                "[case, channel, time]."
            )
        # numpy writes a missing label among words as "nan", so what was given is looked at
        given: list[Any] = labels.tolist() if y is None else list(y)
        missing = [i for i, value in enumerate(given) if np.ndim(value) == 0 and bool(pd.isna(value))]
        if missing:
            raise DataError(
                f"Case {missing[0]} has no label ({len(missing)} of {len(labels)} have none). Leave it out."
            )
        return data, labels

    def _truth(self, X: Any, y: Any) -> tuple[Collection, NDArray[Any]]:
        """New cases, and their labels in the type of those that were learned."""
        data, labels = self._labeled(X, y, empty_channels=True)
        if y is None and self.classes_.dtype.kind == "U" and labels.dtype.kind in "iu":
            labels = labels.astype(str)  # a file that holds 10 and 11 alone, of classes 01 to 12
        told, known = labels[0], self.classes_[0]
        if isinstance(told, str) != isinstance(known, str):
            raise DataError(
                f"This classifier learned classes such as {self.classes_.tolist()[0]!r}, but these labels are such as "
                f"{labels.tolist()[0]!r}: text and numbers are never equal. Pass labels of the type of training."
            )
        return data, labels

    def read_(
        self,
        X: Any,
        *,
        labeled: bool = False,
        duplicates: Duplicates = "refuse",
        empty_channels: bool = True,
        n_labels: int | None = None,
    ) -> Collection:
        """Cases of any form as this classifier reads them, with their labels where they are asked for.

        ``duplicates`` says what becomes of rows of a table with equal times but other values (see ``prismts.read``).
        ``empty_channels`` lets a channel be empty, as one of a new case may be. ``n_labels`` is how many labels came
        beside ``X``, which tells cases of one channel [n_cases, n_timepoints] from one case.
        """
        cases = X
        if isinstance(X, np.ndarray) and X.ndim != 3:
            n_channels = getattr(self, "n_channels_", None)
            if X.ndim == 2 and (n_labels == len(X) if n_labels is not None else n_channels == 1):
                cases = X[:, None]
            elif X.ndim != 2:
                raise ShapeError(f"Cases are [case, channel, time], but X has shape {list(X.shape)}.")
        if self.label is not None:
            values = [self.values] if isinstance(self.values, str) else self.values
            found = read_labeled(
                cases, self.label, time=self.time, series=self.series, duplicates=duplicates, needed=labeled,
                values=None if values is None else [str(name) for name in values], empty_channels=empty_channels,
            )  # fmt: skip
            if found is not None:
                return found
        found = read(
            cases, time=self.time, series=self.series, values=self.values, duplicates=duplicates,
            empty_channels="keep" if empty_channels else "refuse",
        )  # fmt: skip
        return Collection.of(found) if isinstance(found, Series) else found

    def _like_training(self, X: Any) -> Collection:
        data = self.read_(X)
        if data.n_channels != self.n_channels_:
            hint = ""
            if len(set(data.lengths.tolist())) == 1 and data.lengths[0] == self.n_channels_:
                hint = " If time is the middle axis, pass X.swapaxes(1, 2)."
            raise ShapeError(
                f"This classifier learned cases of {self.n_channels_} channels, but these have {data.n_channels}: "
                f"cases are [case, channel, time].{hint}"
            )
        return reordered(data, self.channels_, "predict")

    def _judges(self, cases: Collection) -> Cases:
        data, labels = self._labeled(cases, None, empty_channels=True)
        data = self._like_training(data)
        code = {label: k for k, label in enumerate(self.classes_.tolist())}
        unknown = [label for label in labels.tolist() if label not in code]
        if unknown:
            raise DataError(f"judged_by holds class {unknown[0]!r}, which the training cases lack.")
        return Cases(data, np.array([code[label] for label in labels.tolist()]), scaler=self.scaler_)

    def _task(self, recipe: CaseRecipe, per_class: NDArray[np.float64] | None, judge: Judge = "loss") -> Classify:
        return Classify(
            len(self.classes_), pooling=recipe.pooling, class_weight=per_class, head_dropout=recipe.head_dropout,
            label_smoothing=recipe.label_smoothing, augmentation=recipe.augmentation, judge=judge,
        )  # fmt: skip

    def _beginning(self, known: Cases, mark: str, part: str) -> Callable[[], nn.Module]:
        """What builds a network to train: anew, or from one that has told hidden slices of the same cases before."""
        recipe = self._recipe_
        if recipe.pretrain is None:
            return self._network
        task = DecoupledMasking()
        build = partial(
            task.build, self.model, recipe.model, n_channels=self.n_channels_, context_length=self.n_timepoints_
        )
        (pretrained,), _ = self._train(
            build, task, known, None, recipe.pretrain, mark=mark, title=f"{self.model} without labels, {part}",
            part=f"{part}, without labels",
        )  # fmt: skip

        def begin() -> nn.Module:
            model = self._network()
            assert isinstance(model, Encoder)
            start_from(model, pretrained)
            return model

        return begin

    @property
    def _architecture(self) -> str:
        """The name of the network: "auto" is a ConvTimeNet."""
        return "convtimenet" if self.model == "auto" else self.model

    def _network(self) -> nn.Module:
        return self.task_.build(
            self._architecture, self._recipe_.model, n_channels=self.n_channels_, context_length=self.n_timepoints_
        )

    def _new_line(self) -> HydraMap:
        return HydraMap(self.n_channels_, self.n_timepoints_, len(self.classes_))

    def _solve_line(
        self, cases: Cases, codes: NDArray[np.int64], case_weight: NDArray[np.float64]
    ) -> tuple[HydraMap, Tensor]:
        """The closed-form classifier, and the scores [n, K] that each case gets without itself."""
        with torch.random.fork_rng():
            torch.manual_seed(self.random_state)
            line = self._new_line()
        features = self._score(line.features, cases)
        return line.eval(), line.solve(features, codes, case_weight)

    def _weights(self, codes: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """The weight of each case [n], and of each class [K] or None where all count alike."""
        if self.class_weight is None:
            return np.ones(len(codes)), None
        counts = np.bincount(codes, minlength=len(self.classes_))
        if isinstance(self.class_weight, str):
            if self.class_weight != "balanced":
                raise SettingsError(
                    f"class_weight is None, 'balanced', or a weight for each class, but got {self.class_weight!r}."
                )
            per_class = len(codes) / (len(counts) * counts)
        else:
            if not isinstance(self.class_weight, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise SettingsError(
                    f"class_weight is None, 'balanced', or a mapping from each class to its weight, but got "
                    f"{self.class_weight!r}."
                )
            given = {key.item() if isinstance(key, np.generic) else key: w for key, w in self.class_weight.items()}
            lacking = [label for label in self.classes_.tolist() if label not in given]
            if lacking:
                raise SettingsError(
                    f"class_weight names no weight for class {lacking[0]!r}. Its keys are the labels as they are in y."
                )
            wrong = [label for label in self.classes_.tolist() if not isinstance(given[label], Real)]
            if wrong:
                raise SettingsError(f"class_weight holds numbers, but class {wrong[0]!r} has {given[wrong[0]]!r}.")
            per_class = np.array([float(given[label]) for label in self.classes_.tolist()])
        if not (np.isfinite(per_class) & (per_class > 0)).all():
            raise SettingsError("class_weight holds numbers above 0. Leave a class out of the data to ignore it.")
        return per_class[codes], per_class

    def _folds(self, codes: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Cases to learn from and cases to judge by, for each fold; nothing to judge by without validation."""
        counts = np.bincount(codes)
        n, fewest, most = len(codes), int(counts.min()), int(counts.max())
        asked: Any = self.validation
        if asked is None or (isinstance(asked, Real) and asked == 0):
            return [_all(codes)]
        if isinstance(asked, str) and asked == "auto":
            if fewest < 2:  # a class with a single case cannot be learned and judged at once
                return [_all(codes)]
            asked = min(_FOLDS, max(2, fewest)) if n <= _FEW else _SHARE
        share = float(cast(float, asked)) if isinstance(asked, Real) else float("nan")
        if not 0 < share < np.inf or (share > 1 and share % 1):
            raise SettingsError(
                f"validation is 'auto', a share between 0 and 1, a number of folds, or None, but got {asked!r}."
            )
        if fewest < 2:
            single = self.classes_.tolist()[int(counts.argmin())]
            raise DataError(
                f"Class {single!r} has a single case, which cannot both be learned from and judge. Add cases of it, "
                "leave it out, or set validation=None."
            )
        if share >= 1:
            if not 2 <= share <= most:
                raise SettingsError(
                    f"Validation in folds needs from 2 to {most} of them here, as the largest class has {most} cases, "
                    f"but got {asked!r}."
                )
            splitter = StratifiedKFold(int(share), shuffle=True, random_state=self.random_state)
        else:
            n_checked = max(len(counts), round(share * n))
            if n - n_checked < len(counts):
                raise SettingsError(
                    f"validation={asked} leaves {n - n_checked} of {n} cases to learn from, fewer than the "
                    f"{len(counts)} classes. Give a smaller share, or a number of folds."
                )
            splitter = StratifiedShuffleSplit(1, test_size=n_checked, random_state=self.random_state)
        with warnings.catch_warnings():
            # folds that lack a class of few cases are as they should be: it is judged in the others
            warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
            return [_taught(a, b, codes) for a, b in splitter.split(np.zeros(n), codes)]

    def _score(self, model: Any, cases: Cases) -> Tensor:
        """What ``model`` says of every case, [n, ...], in batches of equal length."""
        parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
        place = parameters[0].device if parameters else torch.device("cpu")
        size = max(1, _VALUES // (cases.n_channels * int(cases.lengths.max()) * 64))
        answers: list[Tensor] = []
        numbers: list[NDArray[np.int64]] = []
        with torch.no_grad(), quick_products():
            for index, batch in cases.by_length(size):
                observed = None if batch.context_observed is None else batch.context_observed.to(place)
                answers.append(model(batch.context.to(place), observed).float().cpu())
                numbers.append(index)
        order = torch.from_numpy(np.argsort(np.concatenate(numbers)))
        return torch.cat(answers)[order]


def _as_labels(y: Any) -> NDArray[Any]:
    """Labels of any kind of list, array or column; those of numpy and pandas inside objects as plain values."""
    labels = np.asarray(y)
    if labels.dtype != object or labels.ndim != 1:
        return labels
    plain = [value.item() if isinstance(value, np.generic) else value for value in labels.tolist()]
    found = np.empty(len(plain), dtype=object)
    found[:] = plain
    return found


def _classes(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The classes in order [K], and the number of that of each case [n]."""
    if labels.dtype.kind in "fc" and np.isinf(labels).any():
        raise DataError(f"Case {int(np.argmax(np.isinf(labels)))} has an infinite label. Give it a name or a number.")
    try:
        classes, codes = np.unique(labels, return_inverse=True)
    except TypeError as error:
        kinds = ", ".join(sorted({type(label).__name__ for label in labels.tolist()}))
        raise DataError(
            f"Labels are of one type, so that the classes have an order, but these are of several: {kinds}. Turn them "
            "all into text: [str(label) for label in y]."
        ) from error
    return classes, codes.astype(np.int64)


def _taught(
    index: NDArray[np.int64], checked: NDArray[np.int64], codes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Both parts in order, with a case of every class to learn from: a large share may take all of a small one."""
    lacking = np.setdiff1d(codes, codes[index])
    moved = np.array([checked[codes[checked] == code].min() for code in lacking], dtype=np.int64)
    return np.union1d(index, moved), np.setdiff1d(checked, moved)


def _all(codes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All cases to learn from, none to judge by."""
    return np.arange(len(codes)), np.arange(0)


def _stacking(
    network: Tensor, line: Tensor | None, codes: NDArray[np.int64], case_weight: NDArray[np.float64]
) -> tuple[float, float]:
    """The weights of both scores [n, K] under which the softmax of their sum is likeliest, drawn a little towards 1."""
    truth = torch.from_numpy(codes)
    weight = torch.from_numpy(case_weight / case_weight.sum())
    scores = [network.double(), torch.zeros_like(network).double() if line is None else line.double()]

    def loss(weights: NDArray[np.float64]) -> float:
        mixed = weights[0] * scores[0] + weights[1] * scores[1]
        entropy = nn.functional.cross_entropy(mixed, truth, reduction="none")
        return float((weight * entropy).sum()) + 0.1 / len(truth) * float(((weights - 1) ** 2).sum())

    starts = [(1.0, 1.0), (1.0, 0.1), (0.1, 1.0)] if line is not None else [(1.0, 0.0)]
    # above 0, so that the order of the classes is known even where neither says anything of use
    bounds = [(1e-3, 10.0), (1e-3, 10.0) if line is not None else (0.0, 0.0)]
    found = [minimize(loss, np.array(start), bounds=bounds, method="L-BFGS-B") for start in starts]
    best = min(found, key=lambda result: float(result.fun)).x
    return float(best[0]), float(best[1])
