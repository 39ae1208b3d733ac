"""Decoupled masking: hide slices of a window, encode the others alone, and tell the hidden ones from them.

Source: Cheng et al., "TimeMAE: Self-Supervised Representations of Time Series with Decoupled Masked Autoencoders",
arXiv 2303.00320, and the authors' code (Mingyue-Cheng/TimeMAE). The encoder never meets a mask token. A regressor of
cross-attention asks it for every hidden slice, by a learned token at the position of the slice, and what it answers is
judged twice: by its distance to what a momentum copy of the encoder says of the hidden slices among themselves, and by
whether it tells their code, the word of a learned code book that scores highest on the slice itself. Where we differ:

- every window hides slices of its own; the authors hide the same ones throughout a batch;
- only slices that saw something are hidden, and of a window with two of them at least one is hidden and one stays;
- the copy answers without dropout, and follows the encoder at the beginning of the next step instead of at the end of
  this one, so that no training loop has to know of it; after the last step of all it stays as it is;
- codes are drawn with Gumbel noise in training only, so that validation judges equal models alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, NamedTuple, Protocol, Self, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prismts.errors import SettingsError
from prismts.layers.ends import n_slices, seen_by_tokens, within
from prismts.models import find_model, make_settings
from prismts.models.contract import Encoder
from prismts.models.formertime import AttentionBlock
from prismts.models.timemae import TimeMAE
from prismts.tasks.pretraining import window_marks

__all__ = ["DecoupledAutoencoder", "DecoupledMasking", "Told", "start_from"]


class _Batch(Protocol):
    """Windows without a future, or cases without their labels."""

    @property
    def context(self) -> Tensor: ...  # [B, C, T]
    @property
    def context_observed(self) -> Tensor | None: ...


class Told(NamedTuple):
    """What was told of the hidden slices of some windows, and the truth; M is the most that any window hides."""

    representation: Tensor  # [B, M, D] by the regressor
    truth: Tensor  # [B, M, D] by the momentum copy, without gradient
    scores: Tensor  # [B, M, K] of the codes
    code: Tensor  # [B, M] the true one
    counts: Tensor  # [B, M] bool: the window hides this many


class DecoupledAutoencoder(nn.Module):
    """An encoder beside what pre-trains it: a code book, a regressor, and a copy that follows slowly."""

    def __init__(self, encoder: TimeMAE, *, n_codes: int, n_layers: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.follower = deepcopy(encoder.blocks).requires_grad_(False)
        self.hidden = nn.Parameter(torch.randn(encoder.width))  # stands where a slice was, before its position is added
        self.codes = nn.Linear(encoder.width, n_codes)
        nn.init.xavier_normal_(self.codes.weight)
        how = encoder.config
        self.regressor = nn.ModuleList(
            AttentionBlock(how.width, how.n_heads, how.expansion, how.dropout, how.residual) for _ in range(n_layers)
        )

    @property
    def n_channels(self) -> int | None:
        """C the encoder is bound to."""
        return self.encoder.n_channels

    def train(self, mode: bool = True) -> Self:
        """As ever, but the copy never drops anything out."""
        super().train(mode)
        self.follower.eval()
        return self

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Draw the copy towards the encoder: momentum * copy + (1 - momentum) * encoder."""
        for copy, leader in zip(self.follower.parameters(), self.encoder.blocks.parameters(), strict=True):
            copy.lerp_(leader, 1 - momentum)

    def forward(self, x: Tensor, observed: Tensor | None, hidden: Tensor, noise: Tensor | None = None) -> Told:
        """What is told of the ``hidden`` slices [B, N] of windows x [B, C, T]; ``noise`` [B, N, K] moves codes."""
        slices, n, _, _ = self.encoder.embed(x, observed)  # [B, N, D]
        position = self.encoder.positions(slices.shape[1]).expand_as(slices)
        code = self.codes(slices).detach()
        code = (code if noise is None else code + noise).argmax(-1)  # [B, N]
        alive = torch.ones_like(hidden) if n is None else within(n, slices.shape[1])
        seen, n_seen = _first(alive & ~hidden)
        gone, n_gone = _first(hidden)
        visible = _take(slices + position, seen)
        for block in self.encoder.blocks:
            visible = block(visible, n_seen)
        with torch.no_grad():
            truth = _take(slices + position, gone)
            for block in self.follower:
                truth = block(truth, n_gone.clamp(min=1))
        asked = self.hidden + _take(position, gone)
        for block in self.regressor:
            asked = block(asked, n_seen, visible)
        return Told(asked, truth, self.codes(asked), code.gather(1, gone), within(n_gone, gone.shape[1]))


class DecoupledMasking:
    """The task of telling hidden slices: pre-training for classification, without labels.

    Batches are cases (``Cases``), whose labels are not looked at, or windows without a future (``Windows(data,
    context_length, 0)``). After training, ``start_from`` hands what was learned to a model with the head of a task.

    Args:
        share: of the slices that are hidden.
        n_codes: words of the code book, K.
        n_layers: of the regressor.
        momentum: how slowly the copy follows the encoder, per step.
        regression, classification: weights of the squared distance and of the cross entropy of the codes.
        label_smoothing: share of a code that is spread over all codes.
        seed: of what validation hides.
    """

    def __init__(
        self,
        *,
        share: float = 0.6,
        n_codes: int = 192,
        n_layers: int = 4,
        momentum: float = 0.99,
        regression: float = 5.0,
        classification: float = 1.0,
        label_smoothing: float = 0.2,
        seed: int = 0,
    ) -> None:
        if not 0 < share < 1:
            raise SettingsError(f"share is the part of the slices to hide, above 0 and below 1, but got {share}.")
        if not 0 <= momentum <= 1:
            raise SettingsError(f"momentum is a share from 0 (the copy is the encoder) to 1, but got {momentum}.")
        if min(n_codes, n_layers) < 1 or min(regression, classification) < 0 or not 0 <= label_smoothing < 1:
            raise SettingsError(
                "n_codes and n_layers are at least 1, the weights of both losses not negative, and label_smoothing is "
                "a share below 1."
            )
        self.share, self.n_codes, self.n_layers, self.momentum = share, n_codes, n_layers, momentum
        self.regression, self.classification = regression, classification
        self.label_smoothing, self.seed = label_smoothing, seed

    def build(self, name: str, settings: Mapping[str, Any], *, n_channels: int, context_length: int) -> nn.Module:
        """The encoder of this name beside what pre-trains it."""
        architecture = find_model(name)
        if architecture.build is not TimeMAE:
            raise SettingsError(
                f"Decoupled masking hides slices that do not overlap from an encoder that takes any of them, which "
                f"{name!r} does not. Choose 'timemae', or the task Reconstruct, which hides points from any encoder."
            )
        config = make_settings(architecture.config, {**architecture.classify, **settings})
        encoder = TimeMAE(config, n_channels=n_channels, context_length=context_length)
        return DecoupledAutoencoder(encoder, n_codes=self.n_codes, n_layers=self.n_layers)

    def loss(self, model: nn.Module, batch: _Batch) -> Tensor:
        """Mean loss over the hidden slices of a batch; the momentum copy follows first."""
        assert isinstance(model, DecoupledAutoencoder)
        model.follow(self.momentum)
        seen = self._seen(model, batch)
        hidden = self._hide(seen, torch.rand(seen.shape).to(seen.device))
        noise = -torch.empty(*seen.shape, self.n_codes).exponential_().log().to(seen.device)
        total, count = self._sums(model(batch.context, batch.context_observed, hidden, noise))
        return total / count.clamp(min=1)

    def errors(self, model: nn.Module, batch: _Batch) -> tuple[Tensor, Tensor]:
        """Sum of losses over hidden slices, and how many there are; the same slices in every epoch."""
        seen = self._seen(model, batch)
        marks = window_marks(batch.context)
        draws = np.stack([np.random.default_rng((self.seed, mark)).random(seen.shape[1]) for mark in marks])
        hidden = self._hide(seen, torch.from_numpy(draws).to(seen.device))
        return self._sums(model(batch.context, batch.context_observed, hidden))

    def _seen(self, model: nn.Module, batch: _Batch) -> Tensor:
        """Which slices of each window saw anything: [B, N]."""
        encoder = cast(DecoupledAutoencoder, model).encoder
        n_timepoints, observed = batch.context.shape[-1], batch.context_observed
        n_tokens = n_slices(n_timepoints, encoder.stride, encoder.stride)
        if observed is None:
            return torch.ones(len(batch.context), n_tokens, dtype=torch.bool, device=batch.context.device)
        return seen_by_tokens(observed.any(1), n_tokens, encoder.patch_length, encoder.stride)

    def _hide(self, seen: Tensor, draws: Tensor) -> Tensor:
        """The slices to hide among those seen [B, N]: the share of them whose draws are lowest."""
        n = seen.sum(-1, keepdim=True)
        n_hidden = torch.minimum((self.share * n).long().clamp(min=1), n - 1)
        order = draws.masked_fill(~seen, 2.0).argsort(-1)
        return (order.argsort(-1) < n_hidden) & seen

    def _sums(self, told: Told) -> tuple[Tensor, Tensor]:
        distance = (told.representation - told.truth).square().mean(-1)  # [B, M]
        entropy = F.cross_entropy(
            told.scores.transpose(1, 2), told.code, reduction="none", label_smoothing=self.label_smoothing
        )
        each = self.regression * distance + self.classification * entropy
        return each.masked_fill(~told.counts, 0.0).sum(), told.counts.sum()


def start_from(model: Encoder, pretrained: nn.Module) -> tuple[str, ...]:
    """Let a model of any task begin with the encoder that was pre-trained; its head stays as it is.

    What cannot be taken over because the data have another number of channels or steps (the first convolution, the
    positions) also stays as it is, as in the authors' code; the names of these parameters are returned.
    """
    encoder = pretrained.encoder if isinstance(pretrained, DecoupledAutoencoder) else pretrained
    theirs = {name: value for name, value in encoder.state_dict().items() if not name.startswith("head.")}
    ours = {name: value for name, value in model.state_dict().items() if not name.startswith("head.")}
    if set(theirs) != set(ours):
        lacking = sorted(set(ours) ^ set(theirs))
        raise SettingsError(
            f"The pre-trained encoder is of another form: {lacking[0]!r} belongs to one of the two only "
            f"({len(lacking)} in all). Build both with the same settings."
        )
    fitting = {name: value for name, value in theirs.items() if value.shape == ours[name].shape}
    model.load_state_dict(fitting, strict=False)
    return tuple(name for name in ours if name not in fitting)


def _first(mask: Tensor) -> tuple[Tensor, Tensor]:
    """The places where a mask [B, N] is set, in order, as [B, M] with M the most of any row, and how many [B]."""
    n = mask.sum(-1)
    return (~mask).to(torch.int8).argsort(dim=-1, stable=True)[:, : max(1, int(n.max()))], n


def _take(x: Tensor, place: Tensor) -> Tensor:
    """Tokens of x [B, N, D] at places [B, M]: [B, M, D]."""
    return x.gather(1, place[..., None].expand(-1, -1, x.shape[-1]))
