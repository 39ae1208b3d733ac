"""The estimators of single tasks on an encoder they share: each plans its training, and answers after it.

A task of a universal model is one of our estimators as it stands, with its reading, its scales, its validation, its
calibration and its answers; only the network is another: the shared encoder under a head of the task's own, which is
not trained by the task alone. So ``fit`` of each is called twice: the first call ends where training would begin, with
a ``Plan``; the second goes on from there with what was trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from prismts.cases import Cases
from prismts.data.series import Collection
from prismts.errors import SettingsError
from prismts.estimators.base import Estimator
from prismts.estimators.case_recipes import CaseRecipe
from prismts.estimators.classifier import Classifier
from prismts.estimators.detector import AnomalyDetector
from prismts.estimators.forecaster import Forecaster
from prismts.estimators.imputer import Imputer, ImputeRecipe
from prismts.estimators.recipes import Recipe
from prismts.layers.decode import DecodeHead
from prismts.layers.heads import FlattenHead
from prismts.layers.horizon import HorizonHead
from prismts.layers.products import quick_products
from prismts.layers.token_heads import CaseHead, RecentHead
from prismts.models.multitask import CaseReader, MultiTask, WithHead, n_tokens_of
from prismts.tasks.classify import Classify, Judge
from prismts.tasks.forecast import LINES, Forecast
from prismts.tasks.reconstruct import Reconstruct
from prismts.training.batches import Source
from prismts.training.fit import FitConfig, FitResult, Task
from prismts.windows import Windows

__all__ = [
    "FORECAST_HEADS", "Plan", "SharedClassifier", "SharedDetector", "SharedForecaster", "SharedImputer", "Slot",
    "solve_cases",
]  # fmt: skip

FORECAST_HEADS = ("flatten", "recent", "any_horizon")
_STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0)  # one over the penalty, of inputs of unit length or so
_MOST_STEPS = 300


class Plan(NamedTuple):
    """What one task would train."""

    task: Task
    view: WithHead
    train: Source
    check: Source | None


class Planned(Exception):
    """A plan is made: see ``Slot.plan``."""


@dataclass
class Slot:
    """The place of one task on the shared model."""

    model: MultiTask
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)  # of the head
    view: WithHead | None = None
    plan: Plan | None = None
    result: FitResult | None = None  # what training gave; None before it
    words: str | None = None  # what was solved before training

    def put(self, head: nn.Module, reader: Callable[..., WithHead] = WithHead, **how: Any) -> WithHead:
        """Put a head on the shared encoder."""
        self.model.add(self.name, head)
        self.view = reader(self.model.encoder, head, **how)
        return self.view


class _OnShared(Estimator):
    """What the estimators below have in common."""

    slot: Slot

    def plan(self, *data: Any, **how: Any) -> Plan:
        """The first call of ``fit``: all that comes before training."""
        try:
            self.fit(*data, **how)  # type: ignore[attr-defined]
        except Planned:
            assert self.slot.plan is not None
            return self.slot.plan
        raise AssertionError("fit trains a network, and so comes by _train_one")

    def save(self, path: Any, **how: Any) -> None:
        """Never alone: its network belongs to all tasks."""
        raise SettingsError(
            f"{self.slot.name!r} is one head on an encoder that several tasks share. Save the universal model; "
            "prismts.load gives every task back."
        )

    def _train_one(
        self,
        model: nn.Module,
        task: Task,
        train: Source,
        check: Source | None,
        config: FitConfig,
        mark: str,
        title: str,
        part: str,
        member: int,
        n_members: int,
    ) -> FitResult:
        if self.slot.result is not None:
            return self.slot.result
        assert isinstance(model, WithHead)
        self.slot.plan = Plan(task, model, train, check)
        raise Planned


class _ForecastOnShared(Forecast):
    def __init__(self, slot: Slot, like: Forecast) -> None:
        super().__init__(
            like.horizon, quantiles=like.quantiles, loss=cast(Any, like.loss_name), gamma=like.gamma, line=like.line,
            head_dropout=like.head_dropout, head=like.head,
        )  # fmt: skip
        self.slot = slot

    def build(self, name: str, settings: Mapping[str, Any], *, n_channels: int, context_length: int) -> nn.Module:
        """The shared encoder under the head of this task."""
        if self.slot.view is not None:
            return self.slot.view
        encoder = self.slot.model.encoder
        if self.head == "any_horizon":
            free = HorizonHead(
                encoder.width, encoder.patch_length, encoder.stride, self.horizon,
                n_quantiles=len(self.quantiles) if self.quantiles else None, dropout=self.head_dropout,
            )  # fmt: skip
            return self.slot.put(free, context_length=context_length)
        common: dict[str, Any] = {
            "n_quantiles": len(self.quantiles) if self.quantiles else None, "dropout": self.head_dropout,
            "line": None if self.line is None else LINES[self.line](context_length, self.horizon),
        }  # fmt: skip
        if self.slot.options["head"] == "recent":
            head: nn.Module = RecentHead(encoder.width, self.horizon, **common)
        else:
            head = FlattenHead(encoder.width, n_tokens_of(encoder, context_length), self.horizon, **common)
        return self.slot.put(head, context_length=context_length)

    def prepare(
        self, model: nn.Module, train: Windows, validation: Windows | None, *, solved: nn.Module | None = None
    ) -> str:
        """Solve the line once, before training."""
        if self.slot.words is None:
            self.slot.words = super().prepare(model, train, validation, solved=solved)
        return self.slot.words


class _ClassifyOnShared(Classify):
    def __init__(self, slot: Slot, like: Classify) -> None:
        super().__init__(
            like.n_classes, pooling=like.pooling, label_smoothing=like.label_smoothing, head_dropout=like.head_dropout,
            augmentation=like.augmentation, judge=cast(Any, like.judge),
        )  # fmt: skip
        self.class_weight, self.slot = like.class_weight, slot

    def build(self, name: str, settings: Mapping[str, Any], *, n_channels: int, context_length: int) -> nn.Module:
        """The shared encoder under the head of this task; short cases are drawn out to what it was built for."""
        if self.slot.view is not None:
            return self.slot.view
        encoder, options = self.slot.model.encoder, self.slot.options
        head = CaseHead(
            encoder.width, self.n_classes, n_channels=n_channels if options["channels"] == "apart" else None,
            pooling=options["pooling"], dropout=self.head_dropout,
        )  # fmt: skip
        factor = max(1.0, (encoder.context_length - 1) / max(1, context_length - 1)) if options["stretch"] else 1.0
        return self.slot.put(head, CaseReader, context_length=context_length, factor=factor)


class _ReconstructOnShared(Reconstruct):
    def __init__(self, slot: Slot, like: Reconstruct) -> None:
        super().__init__(loss=cast(Any, like.loss_name), head_dropout=like.head_dropout, seed=like.seed)
        self.masks, self.slot = like.masks, slot

    def build(self, name: str, settings: Mapping[str, Any], *, n_channels: int, context_length: int) -> nn.Module:
        """The shared encoder under the head of this task."""
        if self.slot.view is not None:
            return self.slot.view
        encoder = self.slot.model.encoder
        head = DecodeHead(encoder.width, encoder.patch_length, encoder.stride, dropout=self.head_dropout)
        return self.slot.put(head, context_length=context_length)


class SharedForecaster(_OnShared, Forecaster):
    """A forecaster on the shared encoder."""

    def _recipe(self, data: Collection, train_ends: NDArray[np.int64], proposal: Any = None) -> Recipe:
        options, recipe = self.slot.options, super()._recipe(data, train_ends, proposal)
        loss = "relative_mse" if self.loss is None else self.loss
        return replace(recipe, line=options["line"], loss=loss, head_dropout=options["dropout"], n_members=1)

    def _task(self, recipe: Recipe) -> Forecast:
        return _ForecastOnShared(self.slot, super()._task(recipe))


class SharedClassifier(_OnShared, Classifier):
    """A classifier on the shared encoder."""

    def _task(self, recipe: CaseRecipe, per_class: NDArray[np.float64] | None, judge: Judge = "loss") -> Classify:
        pooling = self.slot.options["pooling"]
        plain = replace(recipe, pooling="both" if pooling == "attention" else pooling)
        return _ClassifyOnShared(self.slot, super()._task(plain, per_class, judge))

    def restored(self) -> None:
        """Weigh the network as it was when it was saved."""
        with torch.no_grad():
            self.model_.weights.copy_(torch.tensor(self.weights_))  # type: ignore[operator]


class SharedDetector(_OnShared, AnomalyDetector):
    """A detector on the shared encoder: by what it makes of steps that are hidden from it."""

    def _choose_context(self, n_timepoints: int) -> int:
        if self.context_length is not None:
            return super()._choose_context(n_timepoints)
        return max(8, min(self.slot.model.encoder.context_length, n_timepoints // 4) // 8 * 8)

    def _task(self, name: str) -> Reconstruct:
        like = super()._task(name)
        assert isinstance(like, Reconstruct)
        return _ReconstructOnShared(self.slot, like)


class SharedImputer(_OnShared, Imputer):
    """An imputer on the shared encoder."""

    def _task(self, recipe: ImputeRecipe) -> Reconstruct:
        return _ReconstructOnShared(self.slot, super()._task(recipe))


def solve_cases(
    view: WithHead,
    cases: Cases,
    *,
    seed: int,
    class_weight: NDArray[np.floating] | None = None,
    batch_values: int = 2**22,
) -> None:
    """The linear map of a head for classes, solved instead of trained: logistic regression on what it reads.

    The encoder stays as it is, so its tokens are computed once. The penalty is chosen by likelihood over stratified
    folds of these cases, five or as many as the smallest class has; where it has one case, none is chosen and it is 1.
    ``class_weight`` [K] lets classes count more or less.
    """
    head = view.head
    assert isinstance(head, CaseHead)
    _, once = np.unique(cases.index, return_index=True)  # a few cases stand in an epoch several times
    cases = Cases(cases.data, cases.labels, scaler=cases.scaler, index=cases.index[np.sort(once)])
    labels = cases.labels[cases.index]
    size = max(1, batch_values // (cases.n_channels * int(cases.lengths.max()) * 64))
    found: list[NDArray] = []
    numbers: list[NDArray[np.int64]] = []
    view.eval()
    place = head.linear.weight.device
    with torch.no_grad(), quick_products():
        for index, batch in cases.by_length(size):
            seen = None if batch.context_observed is None else batch.context_observed.to(place)
            found.append(head.embedding(view.encode(batch.context.to(place), seen)).cpu().numpy())
            numbers.append(index)
    x = np.concatenate(found)[np.argsort(np.concatenate(numbers))].astype(np.float64)  # [n, F]
    middle, spread = x.mean(0), x.std(0)
    spread = np.where(spread > 1e-6, spread, 1.0)
    # a ridge penalty does not change under rotation, and n cases lie in n - 1 directions
    u, s, v = np.linalg.svd((x - middle) / spread, full_matrices=False)
    kept = s > 1e-9 * max(float(s[0]), 1e-30) if len(s) else s > 0
    inputs = (u * s)[:, kept] / np.sqrt(x.shape[1])
    case_weight = np.ones(len(labels)) if class_weight is None else np.asarray(class_weight, dtype=np.float64)[labels]
    solver = _likeliest(inputs, labels, case_weight, seed)
    weight = solver.coef_ @ v[kept] / np.sqrt(x.shape[1]) / spread  # [K, F], or [1, F] of two classes
    bias = solver.intercept_ - weight @ middle
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    with torch.no_grad():
        head.linear.weight.copy_(torch.from_numpy(weight))
        head.linear.bias.copy_(torch.from_numpy(bias))


def _likeliest(inputs: NDArray[np.float64], labels: NDArray[np.int64], weight: NDArray[np.float64], seed: int) -> Any:
    """Logistic regression of labels [n] on inputs [n, r] with the penalty under which left-out cases are likeliest."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    chosen, fewest = 1.0, int(np.unique(labels, return_counts=True)[1].min())
    if fewest > 1:
        folds = list(StratifiedKFold(min(5, fewest), shuffle=True, random_state=seed).split(inputs, labels))
        losses: list[float] = []
        for strength in _STRENGTHS:
            lost = 0.0
            for learned, left in folds:
                solver = LogisticRegression(C=strength, max_iter=_MOST_STEPS)
                solver.fit(inputs[learned], labels[learned], sample_weight=weight[learned])
                told: Any = solver.predict_log_proba(inputs[left])
                truth = np.searchsorted(solver.classes_, labels[left])
                lost -= float((weight[left] * told[np.arange(len(left)), truth]).sum())
            losses.append(lost)
        chosen = _STRENGTHS[int(np.argmin(losses))]
    return LogisticRegression(C=chosen, max_iter=_MOST_STEPS).fit(inputs, labels, sample_weight=weight)
