"""Classify cases of any length: fit, predict, calibrated probabilities, embeddings, save."""

from __future__ import annotations

import json
import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
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

from prismts.cases import Cases, scaler_of_cases
from prismts.data.readers import read
from prismts.data.scaling import StandardScaler
from prismts.data.series import Collection, Series
from prismts.data.tables import is_frame
from prismts.errors import DataError, SettingsError, ShapeError
from prismts.estimators.base import Estimator, joined, on_device
from prismts.estimators.case_recipes import CaseRecipe, find_case_recipe, fit_for, patches_for
from prismts.estimators.labels import is_table, without_labels
from prismts.estimators.match import reordered
from prismts.evaluation.classification import classification_scores
from prismts.evaluation.protocols import data_hash
from prismts.evaluation.scores import Scores
from prismts.layers.heads import PoolHead, pooled
from prismts.layers.hydra import HydraMap
from prismts.models.contract import Encoder
from prismts.models.stacked import Stacked
from prismts.tasks.classify import Augmentation, Classify, Judge
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
        model: a name of ``prismts.models.MODELS`` with an encoder.
        setting: a named recipe of ``CLASSIFY_SETTINGS``: "default", "network" (without the closed-form classifier), or
            "published" (the authors' form).
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
        model_: scores of the networks and of the closed-form classifier, weighed; ``members_`` are the networks.
        weights_: of the networks and of the closed-form classifier, as temperatures.
        validation_scores_: of cases while they were left out, or None without validation.
        fit_results_: best epoch and losses by epoch, one per network.
        n_channels_, channels_, n_timepoints_: what was learned from; ``n_timepoints_`` is the longest case.
    """

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
        self._encoder_only("classify")
        data, labels = self._labeled(X, y)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(
                f"A classifier needs cases of at least two classes, but all are {self.classes_.tolist()[0]!r}."
            )
        recipe = find_case_recipe(self.setting, self.model_settings, self.fit_settings)
        self.channels_, self.n_channels_ = data.channels, data.n_channels
        self.scaler_ = scaler_of_cases(data, recipe.scaling)
        cases = Cases(data, codes, scaler=self.scaler_)
        self.n_timepoints_ = int(cases.lengths.max())
        if (
            self.model == "convtimenet"
            and "patch_length" not in recipe.model
            and recipe.model.get("patches") != "points"
        ):
            recipe = replace(recipe, model={**recipe.model, **patches_for(self.n_timepoints_)})
        elif self.model != "convtimenet":
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
                self._network, self.task_, known, check, config, n_members=n_members, mark=mark,
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
        return self

    # ---- answering

    def predict(self, X: Any) -> NDArray[Any]:
        """The likeliest class of each case: [n]."""
        likeliest = self.predict_proba(X).argmax(1)
        return self.classes_[likeliest]

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """The probability of every class for each case: [n, K], in the order of ``classes_``."""
        self._check_fitted()
        cases = Cases(self._like_training(X), scaler=self.scaler_)
        if self._inference is None:
            self._inference = on_device(self.model_)
        return self._score(self._inference, cases).double().softmax(1).numpy()

    def names_of(self, X: Any) -> list[str]:
        """What the cases are called, in the order of the answers: their number, or the name of their series."""
        self._check_fitted()
        return list(self._read(X, None, self.n_channels_).names)

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
        data, labels = self._labeled(X, y)
        measures = classification_scores(labels, self.predict_proba(data), self.classes_)
        seconds = clock.perf_counter() - began
        return Scores(measures, len(labels), seconds, data=data.name, data_hash=data_hash(data), counted="cases")

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
        self._recipe_ = CaseRecipe(**recipe)
        self.task_ = self._task(self._recipe_, None)
        with torch.random.fork_rng():  # what is drawn here is replaced at once
            networks = [self._network() for _ in range(fitted["n_members"])]
            line = self._new_line() if self._recipe_.line else None
        self.model_ = Stacked(joined(networks), line)

    # ---- inside

    def _labeled(self, X: Any, y: Any) -> tuple[Collection, NDArray[Any]]:
        data = self._read(X, None if y is None else len(y), getattr(self, "n_channels_", None))
        if y is not None:
            given = list(y)
            lost = [i for i, value in enumerate(given) if np.ndim(value) == 0 and bool(pd.isna(value))]
            if lost:
                raise DataError(f"Case {lost[0]} has no label ({len(lost)} of {len(given)} have none). Leave it out.")
        labels = data.labels if y is None else np.asarray(y)
        if labels is None:
            hint = "" if self.label is None else f", or in a column {self.label!r} of a table"
            raise DataError(f"These cases bring no labels. Pass them as y, one for each case{hint}.")
        if labels.ndim != 1 or len(labels) != len(data):
            raise ShapeError(
                f"{len(data)} cases need {len(data)} labels, but y has shape {list(np.shape(labels))}. Cases are "
                "[case, channel, time]."
            )
        missing = [i for i, value in enumerate(labels.tolist()) if value is None or value != value]
        if missing:
            raise DataError(
                f"Case {missing[0]} has no label ({len(missing)} of {len(labels)} have none). Leave it out."
            )
        return data, labels

    def _read(self, X: Any, n_labels: int | None, n_channels: int | None) -> Collection:
        """Cases of any form as a collection, with their labels where they bring any."""
        if isinstance(X, np.ndarray) and X.ndim != 3:
            if X.ndim == 2 and (n_labels == len(X) if n_labels is not None else n_channels == 1):
                return self._read(X[:, None], n_labels, n_channels)
            if X.ndim != 2:
                raise ShapeError(f"Cases are [case, channel, time], but X has shape {list(X.shape)}.")
        values = None if self.values is None else list(self.values)
        columns: dict[str, Any] = {"time": self.time, "series": self.series, "values": values}
        source, labels = X, None
        if self.label is not None and (is_frame(X) or is_table(X)):
            source, labels = without_labels(X, self.series, self.label)
        found = read(source, **columns)
        data = Collection.of(found) if isinstance(found, Series) else found
        return data if labels is None else replace(data, labels=np.array([labels[name] for name in data.names]))

    def _like_training(self, X: Any) -> Collection:
        data = self._read(X, None, self.n_channels_)
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
        data, labels = self._labeled(cases, None)
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

    def _network(self) -> nn.Module:
        return self.task_.build(
            self.model, self._recipe_.model, n_channels=self.n_channels_, context_length=self.n_timepoints_
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
            lacking = [label for label in self.classes_.tolist() if label not in self.class_weight]
            if lacking:
                raise SettingsError(f"class_weight names no weight for class {lacking[0]!r}.")
            per_class = np.array([float(self.class_weight[label]) for label in self.classes_.tolist()])
        if not (np.isfinite(per_class) & (per_class > 0)).all():
            raise SettingsError("class_weight holds numbers above 0. Leave a class out of the data to ignore it.")
        return per_class[codes], per_class

    def _folds(self, codes: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Cases to learn from and cases to judge by, for each fold; nothing to judge by without validation."""
        n, fewest = len(codes), int(np.bincount(codes).min())
        asked = self.validation
        if asked is None or asked == 0:
            return [_all(codes)]
        if asked == "auto":
            asked = _FOLDS if n <= _FEW else _SHARE
            if fewest < 2:  # a class with a single case cannot be learned and judged at once
                return [_all(codes)]
            asked = min(asked, max(2, fewest)) if asked == _FOLDS else asked
        if isinstance(asked, str) or asked < 0 or (asked > 1 and asked % 1):
            raise SettingsError(
                f"validation is 'auto', a share between 0 and 1, a number of folds, or None, but got {asked!r}."
            )
        if fewest < 2:
            single = self.classes_.tolist()[int(np.bincount(codes).argmin())]
            raise DataError(
                f"Class {single!r} has a single case, which cannot both be learned from and judge. Add cases of it, "
                "leave it out, or set validation=None."
            )
        if asked >= 1:
            if int(asked) < 2 or int(asked) > n:
                raise SettingsError(f"Validation in folds needs from 2 to {n} of them here, but got {asked!r}.")
            splitter = StratifiedKFold(int(asked), shuffle=True, random_state=self.random_state)
        else:
            n_checked = max(len(self.classes_), round(float(asked) * n))
            splitter = StratifiedShuffleSplit(1, test_size=n_checked, random_state=self.random_state)
        return [(np.sort(a), np.sort(b)) for a, b in splitter.split(np.zeros(n), codes)]

    def _score(self, model: Any, cases: Cases) -> Tensor:
        """What ``model`` says of every case, [n, ...], in batches of equal length."""
        parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
        place = parameters[0].device if parameters else torch.device("cpu")
        size = max(1, _VALUES // (cases.n_channels * int(cases.lengths.max()) * 64))
        answers: list[Tensor] = []
        numbers: list[NDArray[np.int64]] = []
        with torch.no_grad():
            for index, batch in cases.by_length(size):
                observed = None if batch.context_observed is None else batch.context_observed.to(place)
                answers.append(model(batch.context.to(place), observed).float().cpu())
                numbers.append(index)
        order = torch.from_numpy(np.argsort(np.concatenate(numbers)))
        return torch.cat(answers)[order]


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
    bounds = [(0.0, 10.0), (0.0, 10.0) if line is not None else (0.0, 0.0)]
    found = [minimize(loss, np.array(start), bounds=bounds, method="L-BFGS-B") for start in starts]
    best = min(found, key=lambda result: float(result.fun)).x
    return float(best[0]), float(best[1])
