"""Classification: from a whole case to the class it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from prismts.cases import CaseBatch
from prismts.errors import SettingsError, unknown_name
from prismts.layers.heads import PoolHead
from prismts.layers.paths import is_written_out
from prismts.models import find_model, make_settings
from prismts.models.contract import Encoder

__all__ = ["Augmentation", "Classify", "Judge", "by_length", "scores_of"]

Judge = Literal["loss", "accuracy"]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training cases are varied, anew in every batch; all zero leaves them as they are."""

    jitter: float = 0.0  # deviation of noise added to every value, in units of the channel's deviation
    stretch: float = 0.0  # deviation of the factor on each channel of a case
    shift: float = 0.0  # largest share of the case by which it is moved, its edge value repeated
    mix: float = 0.0  # a Beta(mix, mix) share of another case of the batch is mixed in, and so is its class

    @property
    def is_none(self) -> bool:
        """Whether cases stay as they are."""
        return not (self.jitter or self.stretch or self.shift or self.mix)


class Classify:
    """The task of telling ``n_classes`` classes apart.

    Args:
        n_classes: K.
        pooling: of the tokens: "max", "mean" or "both".
        class_weight: [K] by which the losses of the classes count; None counts all alike.
        label_smoothing: share of the truth that is spread over all classes.
        head_dropout: on the pooled tokens.
        augmentation: of training cases.
        judge: what validation chooses the epoch by: the "loss", or the "accuracy" as the authors of ConvTimeNet do.
    """

    stacks = True  # whether several networks can be trained at it as one, see training.together

    def __init__(
        self,
        n_classes: int,
        *,
        pooling: str = "max",
        class_weight: NDArray[np.floating] | None = None,
        label_smoothing: float = 0.0,
        head_dropout: float = 0.0,
        augmentation: Augmentation | None = None,
        judge: Judge = "loss",
    ) -> None:
        if n_classes < 2:
            raise SettingsError(f"Classification needs at least 2 classes, but got {n_classes}.")
        self.n_classes, self.pooling, self.head_dropout = n_classes, pooling, head_dropout
        if judge not in get_args(Judge):
            raise unknown_name("judge", judge, get_args(Judge))
        self.judge = judge
        self.label_smoothing, self.augmentation = label_smoothing, augmentation or Augmentation()
        self.class_weight = None if class_weight is None else torch.from_numpy(np.asarray(class_weight)).float()

    def build(self, name: str, settings: Mapping[str, Any], *, n_channels: int, context_length: int) -> nn.Module:
        """The model of this name with the head of this task: [B, C, T] to class scores [B, K]."""
        architecture = find_model(name)
        if not architecture.is_encoder:
            raise SettingsError(
                f"{name!r} is a direct forecaster and has no tokens to tell classes by. Choose a model with an "
                "encoder, such as 'convtimenet'."
            )
        config = make_settings(architecture.config, {**architecture.classify, **settings})
        model = architecture.build(config, n_channels=n_channels, context_length=context_length)
        assert isinstance(model, Encoder)
        model.head = PoolHead(model.width, self.n_classes, pooling=self.pooling, dropout=self.head_dropout)
        model.stacks = model.stacks and model.heeds_end  # else how its cases are grouped depends on the batch
        return model

    def loss(self, model: nn.Module, batch: CaseBatch) -> Tensor:
        """Mean cross entropy of a batch, varied."""
        x, other, share = self._varied(batch)
        scores = scores_of(model, x, batch.context_observed)
        loss = self._entropy(scores, batch.label, self.label_smoothing)
        if share is not None:
            loss = share * loss + (1 - share) * self._entropy(scores, batch.label[other], self.label_smoothing)
        return loss

    def errors(self, model: nn.Module, batch: CaseBatch) -> tuple[Tensor, Tensor]:
        """Sum of cross entropies, or of mistakes, each class by its weight, and the sum of the weights."""
        scores = scores_of(model, batch.context, batch.context_observed)
        if self.judge == "accuracy":
            return (scores.argmax(1) != batch.label).sum(), torch.tensor(float(len(scores)))
        weight = None if self.class_weight is None else self.class_weight.to(scores.device)
        total = F.cross_entropy(scores, batch.label, weight=weight, reduction="sum")
        count = torch.tensor(float(len(scores))) if weight is None else weight[batch.label].sum()
        return total, count

    def _entropy(self, scores: Tensor, label: Tensor, smoothing: float) -> Tensor:
        weight = None if self.class_weight is None else self.class_weight.to(scores.device)
        return F.cross_entropy(scores, label, weight=weight, label_smoothing=smoothing)

    def _varied(self, batch: CaseBatch) -> tuple[Tensor, Tensor, Tensor | None]:
        """The context as training sees it, the partner of each case and the share of the case itself."""
        how, x, observed = self.augmentation, batch.context, batch.context_observed
        order = torch.arange(len(x), device=x.device)
        if how.is_none:
            return x, order, None
        if how.shift and observed is None:  # what was observed where would have to move too
            most = max(1, round(how.shift * x.shape[-1]))
            move = torch.randint(-most, most + 1, (len(x), 1, 1), device=x.device)
            place = (torch.arange(x.shape[-1], device=x.device) + move).clamp(0, x.shape[-1] - 1)
            x = x.gather(-1, place.expand_as(x))
        if how.stretch:
            x = x * (1 + how.stretch * torch.randn(*x.shape[:2], 1, device=x.device))
        if how.jitter:
            x = x + how.jitter * torch.randn_like(x)
        share = None
        if how.mix and observed is None:
            order = torch.randperm(len(x), device=x.device)
            share = _beta(how.mix).to(x)
            x = share * x + (1 - share) * x[order]
        if observed is not None:
            x = x.masked_fill(~observed, 0.0)
        return x, order, share


def scores_of(model: nn.Module, x: Tensor, observed: Tensor | None) -> Tensor:
    """Class scores [B, K] of cases x [B, C, T]: what the model says of each alone, whatever the others are."""
    if getattr(model, "heeds_end", False):
        return model(x, observed)  # type: ignore[no-any-return]
    return by_length(lambda *cases: (model(*cases),), x, observed)[0]


def by_length(
    ask: Callable[[Tensor, Tensor | None], tuple[Tensor, ...]], x: Tensor, observed: Tensor | None
) -> tuple[Tensor, ...]:
    """What ``ask`` answers of cases x [B, C, T], those of one length at a time and without what pads them.

    So are cases read when a model answers. A model that sees what lies behind the end of a case (``Encoder.heeds_end``)
    would else learn from cases in longer company what does not hold for them alone.
    """
    if observed is None:
        return ask(x, None)
    step = torch.arange(1, x.shape[-1] + 1, device=x.device)
    ends = (observed.any(1) * step).amax(-1)  # [B] steps up to the last observed one
    groups = [(ends == end).nonzero()[:, 0] for end in ends.unique()]
    parts: list[tuple[Tensor, ...]] = []
    for rows in groups:
        end = int(ends[rows[0]])
        seen = observed[rows, :, :end]
        parts.append(ask(x[rows, :, :end], None if bool(seen.all()) else seen))
    back = torch.argsort(torch.cat(groups))
    return tuple(torch.cat(one)[back] for one in zip(*parts, strict=True))


def _beta(concentration: float) -> Tensor:
    """A draw of Beta(c, c); written out, as the share of one of two Gamma draws, which torch can stack."""
    if not is_written_out():
        return torch.distributions.Beta(concentration, concentration).sample()
    two = torch.distributions.Gamma(concentration, 1.0).sample((2,))
    return two[0] / two.sum()
