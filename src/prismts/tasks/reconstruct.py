"""Masked reconstruction: hide observed points of a window, and tell what stood there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from prismts.errors import SettingsError, unknown_name
from prismts.layers.decode import DecodeHead
from prismts.layers.features import Features
from prismts.layers.masking import MASKS, Blocks, Channels, Hide, OneOf, Points, Stretches, complementary
from prismts.layers.missing import bridge
from prismts.layers.normalize import InstanceNorm
from prismts.models import MODELS, find_model, make_settings
from prismts.models.contract import Encoder
from prismts.shapes import expect
from prismts.tasks.pretraining import observed_of, reader_of, window_marks
from prismts.windows import Batch, Windows

__all__ = ["MIXTURE", "PRETRAIN_MASKS", "ByWidth", "MaskReader", "Reconstruct", "find_mask", "gap_distance"]

Loss = Literal["mse", "mae", "huber"]

MIXTURE = OneOf((Points(), Points(), Blocks(), Stretches(share=(0.05, 0.3)), Channels(share=(0.1, 0.4))))


@dataclass(frozen=True)
class ByWidth:
    """One way to hide points of windows of a single channel, another where a window has several."""

    single: Hide
    several: Hide

    def __call__(self, observed: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The hidden points [B, C, T] of windows whose observed points are given."""
        return (self.single if observed.shape[1] == 1 else self.several)(observed, generator)


_ALONE = (Points(share=(0.1, 0.5)), Blocks(share=(0.2, 0.6), length=12.0), Blocks(share=(0.2, 0.6), length=48.0))
# in pre-training more is hidden, and longer, than a detector or an imputer ever meets: what a line cannot tell
PRETRAIN_MASKS = ByWidth(
    OneOf(_ALONE), OneOf((*_ALONE, Stretches(share=(0.1, 0.4), length=24.0), Channels(share=(0.1, 0.5))))
)


class MaskReader(Encoder):
    """An encoder that mixes channels, told which points it sees, beside straight lines between these points: [B, C, T].

    The encoder inside reads two planes per channel: the window in its own level and scale with straight lines over its
    gaps, and where it was observed. What it adds to the straight lines is weighed by the distance to the nearest
    observed point: one learned weight for each range of distances, since next to an observed point a line is hard to
    beat. A channel that is missing throughout has no level of its own and is told around the mean of training.
    """

    n_planes = 2
    _RANGES = (1, 2, 3, 4, 6, 8, 12, 16, 32, 64)  # steps to the nearest observed point at which a new weight begins

    def __init__(self, encoder: Encoder, n_channels: int, *, head_dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder, self.n_channels, self.n_groups_of = encoder, n_channels, "window"
        self.n_tokens, self.width, self.context_length = encoder.n_tokens, encoder.width, encoder.context_length
        self.patch_length, self.stride = encoder.patch_length, encoder.stride
        self.normalize = InstanceNorm()
        self.head = DecodeHead(self.width, self.patch_length, self.stride, n_series=n_channels, dropout=head_dropout)
        self.weight = nn.Parameter(torch.ones(len(self._RANGES) + 1))
        self.share: Tensor  # [C] of what is added beside observed points: set after training, see Reconstruct.finish
        self.register_buffer("share", torch.ones(n_channels))
        self.register_load_state_dict_pre_hook(_with_shares)

    def encode(self, x: Tensor, observed: Tensor | None = None) -> Features:
        """[B, C, T] and its mask (None: all observed) to tokens [B, 1, N, D]."""
        expect(x, "B C T", who="MaskReader", C=self.n_channels)
        observed = torch.ones_like(x, dtype=torch.bool) if observed is None else observed
        normalized, stats = self.normalize(x, observed)
        window = bridge(normalized, observed)
        planes = torch.cat([window, 2.0 * observed.to(x.dtype) - 1.0], dim=1)  # [B, 2*C, T]
        # nothing is missing of the planes, so that the encoder does not end the window with its last observed step
        tokens, valid, _, _ = self.encoder.encode(planes)
        return Features(tokens, valid, window, stats)

    def forward(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """What stood in the windows x [B, C, T], also where nothing was observed."""
        features = self.encode(x, observed)
        return self.normalize.inverse(features.window + self.added(features, observed), features.stats)

    def added(self, features: Features, observed: Tensor | None = None) -> Tensor:
        """What is added to the straight lines, weighed by distance, in units of the normalized window: [B, C, T]."""
        assert isinstance(self.head, DecodeHead)
        told = self.head.network(features)
        if observed is None:
            return told * self.weight[0]
        distance = gap_distance(observed)
        edges = torch.tensor(self._RANGES, device=observed.device)
        weight = self.weight[torch.bucketize(distance, edges, right=True)]
        return told * torch.where(distance == 1, self.share[:, None] * weight, weight)


def _with_shares(model: nn.Module, weights: dict[str, Any], prefix: str, *_: Any) -> None:
    """Weights that were saved before there were shares: all of what is added counts."""
    assert isinstance(model, MaskReader)
    weights.setdefault(f"{prefix}share", torch.ones_like(model.share))


def gap_distance(observed: Tensor) -> Tensor:
    """Steps from each point to the nearest observed one of its channel: [B, C, T], 0 where it is one itself.

    Where nothing was observed, the distance is the length of the window.
    """
    n = observed.shape[-1]
    step = torch.arange(n, device=observed.device)
    before = step - torch.where(observed, step, -n).cummax(-1).values
    after = torch.where(observed, step, 2 * n).flip(-1).cummin(-1).values.flip(-1) - step
    return torch.minimum(before, after).clamp(max=n)


class Reconstruct:
    """The task of telling hidden points of a window from those that are left.

    Batches are windows without a future (``Windows(data, context_length, 0)``). In training, every batch is hidden
    anew by torch's own generator, which the training loop seeds for each epoch. In validation, what is hidden of a
    window depends on that window alone: not on the epoch, nor on the windows beside it in a batch.

    An encoder that reads channels apart carries a ``DecodeHead``; one that mixes them becomes a ``MaskReader``. Before
    training, either answers with linear interpolation.

    Args:
        masks: what to hide: a name of ``MASKS``, a mask of ``prismts.layers.masking``, or several of them, of which
            each window draws one. None takes ``MIXTURE``: points, blocks, stretches of all channels, whole channels.
        loss: on the hidden points in training; validation always judges by squared errors.
        head_dropout: on the tokens before the head.
        seed: of the masks of validation.
    """

    name = "masked"

    def __init__(
        self,
        masks: str | Hide | Sequence[str | Hide] | None = None,
        *,
        loss: Loss = "mse",
        head_dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        if loss not in get_args(Loss):
            raise unknown_name("loss", loss, get_args(Loss))
        self.masks: Hide = MIXTURE if masks is None else find_mask(masks)
        self.loss_name, self.head_dropout, self.seed = loss, head_dropout, seed

    @classmethod
    def for_pretraining(
        cls,
        masks: str | Hide | Sequence[str | Hide] | None = None,
        *,
        loss: Loss = "mse",
        head_dropout: float = 0.0,
        seed: int = 0,
    ) -> Reconstruct:
        """The same task with the masks of pre-training, ``PRETRAIN_MASKS``, where none are named."""
        return cls(PRETRAIN_MASKS if masks is None else masks, loss=loss, head_dropout=head_dropout, seed=seed)

    def part(self, encoder: Encoder) -> DecodeHead:
        """What this task needs beside an encoder in a ``Pretraining`` model: a head that writes all steps."""
        together = encoder.n_channels if encoder.n_groups_of == "window" else 1
        return DecodeHead(
            encoder.width, encoder.patch_length, encoder.stride, n_series=together or 1, dropout=self.head_dropout
        )

    def build(self, name: str, settings: Mapping[str, Any], *, n_channels: int, context_length: int) -> nn.Module:
        """The encoder of this name with a head that writes all its steps: [B, C, T] and its mask to [B, C, T]."""
        architecture = find_model(name)
        if not architecture.is_encoder:
            encoders = ", ".join(known for known, one in MODELS.items() if one.is_encoder)
            raise SettingsError(
                f"{name!r} maps a past straight to a future and has no tokens to write hidden points from. Choose an "
                f"encoder: {encoders}."
            )
        config = make_settings(architecture.config, settings)
        model = architecture.build(config, n_channels=n_channels, context_length=context_length)
        assert isinstance(model, Encoder)
        if model.n_groups_of == "window":
            planes = MaskReader.n_planes * n_channels
            inner = architecture.build(config, n_channels=planes, context_length=context_length)
            assert isinstance(inner, Encoder)
            return MaskReader(inner, n_channels, head_dropout=self.head_dropout)
        return self.put_head(model)

    def put_head(self, model: Encoder) -> Encoder:
        """Give an encoder that reads channels apart, pre-trained or new, the head of this task."""
        model.head = DecodeHead(model.width, model.patch_length, model.stride, dropout=self.head_dropout)
        return model

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean loss over the points that were hidden of a batch."""
        observed = observed_of(batch)
        total, count = self._sums(model, batch, self.masks(observed), self.loss_name)
        return total / count.clamp(min=1)

    def errors(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum of squared errors over hidden points, and how many there are; the same points in every epoch."""
        return self._sums(model, batch, self.fixed_masks(batch), "mse")

    def fixed_masks(self, batch: Batch) -> Tensor:
        """What validation hides [B, C, T]: drawn from a seed that the values of each window give."""
        observed = observed_of(batch).cpu()
        generator = torch.Generator()
        masks: list[Tensor] = []
        for mark, seen in zip(window_marks(batch.context), observed, strict=True):
            generator.manual_seed((self.seed + 1) * 2_147_483_647 + mark)
            masks.append(self.masks(seen[None], generator))
        return torch.cat(masks).to(batch.context.device)

    @torch.no_grad()
    def finish(self, model: nn.Module, validation: Windows | None, *, batch_size: int = 64) -> Tensor | None:
        """Let no more of what a ``MaskReader`` adds beside observed points count than lowers the validation error most.

        For every channel, on the points next to an observed one, the share that least squares gives over what
        validation hides, from 0 to 1: there a straight line is hard to beat, and what training gains it may lose on
        other data. Farther away all of it counts. Finishing twice is finishing once. Returns the shares [C], or None
        where there is nothing to weigh: another model, or no validation.
        """
        if validation is None or not isinstance(model, MaskReader):
            return None
        model.eval()
        model.share.fill_(1.0)
        device = model.share.device
        agree, power = torch.zeros(2, len(model.share), dtype=torch.float64)
        for batch in validation.in_order(batch_size):
            hidden = self.fixed_masks(batch)
            seen = observed_of(batch) & ~hidden
            features = model.encode(batch.context.masked_fill(~seen, 0.0).to(device), seen.to(device))
            added = (model.added(features, seen.to(device)) * features.stats.scale).cpu()  # [B, C, T]
            missed = batch.context - model.normalize.inverse(features.window, features.stats).cpu()
            added = added.masked_fill(~(hidden & (gap_distance(seen) == 1)), 0.0)
            agree += (missed * added).sum((0, 2), dtype=torch.float64)
            power += added.square().sum((0, 2), dtype=torch.float64)
        model.share.copy_(torch.where(power > 0, agree / power.clamp(min=1e-300), 1.0).clamp(0.0, 1.0))
        return model.share.clone()

    @staticmethod
    def reconstruct(
        model: nn.Module | Callable[..., Tensor], x: Tensor, observed: Tensor | None, hidden: Tensor | None
    ) -> Tensor:
        """What the model makes of the windows x [B, C, T] without their hidden points: [B, C, T].

        ``observed`` and ``hidden`` are masks [B, C, T]; None for all and none. Every point is answered for; those the
        model saw are best kept as they were.
        """
        if hidden is not None:
            observed = ~hidden if observed is None else observed & ~hidden
        if observed is None:
            return model(x)
        return model(x.masked_fill(~observed, 0.0), observed)

    @classmethod
    def judge(
        cls,
        model: nn.Module,
        x: Tensor,
        observed: Tensor | None = None,
        *,
        n_parts: int = 4,
        length: int = 8,
        together: bool = True,
    ) -> Tensor:
        """Each point of the windows x [B, C, T] as told while it was hidden: [B, C, T].

        The windows go through the model ``n_parts`` times, each time without another part of the blocks of ``length``
        steps (see ``complementary``); of each pass, the points it did not see are taken.
        """
        masks = complementary(x.shape[1], x.shape[2], n_parts=n_parts, length=length, together=together).to(x.device)
        told = torch.zeros_like(x)
        for hidden in masks:
            told = torch.where(hidden, cls.reconstruct(model, x, observed, hidden.expand_as(x)), told)
        return told

    def _sums(self, model: nn.Module, batch: Batch, hidden: Tensor, loss: str) -> tuple[Tensor, Tensor]:
        x = batch.context
        error = x - self.reconstruct(reader_of(model, self.name), x, batch.context_observed, hidden)
        if loss == "mse":
            each = error.square()
        elif loss == "mae":
            each = error.abs()
        else:
            each = nn.functional.huber_loss(error, torch.zeros_like(error), reduction="none")
        return each.masked_fill(~hidden, 0.0).sum(), hidden.sum()


def find_mask(masks: str | Hide | Sequence[str | Hide]) -> Hide:
    """A way to hide points from its name, from several names or ways (each window draws one), or as it is."""
    if isinstance(masks, str):
        if masks not in MASKS:
            raise unknown_name("mask", masks, MASKS)
        return MASKS[masks]()
    if isinstance(masks, Sequence):
        return OneOf(tuple(find_mask(one) for one in masks))
    return masks
