"""Forecasting: from the past of a window to its future."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prismts.errors import SettingsError, unknown_name
from prismts.layers.coupled_line import CoupledLine
from prismts.layers.heads import FlattenHead
from prismts.layers.horizon import HorizonHead
from prismts.layers.individual_line import IndividualLine
from prismts.layers.line import ChosenLine, RevertingLine
from prismts.layers.linear import RidgeMap
from prismts.layers.normalize import InstanceNorm
from prismts.layers.products import quick_products
from prismts.layers.seasonal_line import SeasonalLine
from prismts.layers.soft_dtw import soft_dtw_divergence
from prismts.models import find_model, make_settings
from prismts.models.contract import Encoder, Features
from prismts.models.ensemble import Ensemble
from prismts.models.universal import UniversalEncoder
from prismts.windows import Batch, Windows

__all__ = ["HEADS", "LINES", "Forecast", "answer", "answer_batch", "channel_groups", "reads_times"]

HEADS = ("flatten", "any_horizon")
Loss = Literal["mse", "mae", "huber", "relative_mse", "soft_dtw"]
_ROWS_TO_WEIGH = 100_000  # windows times channels from which the share of the network is computed
_ROWS_PER_PASS = 256
_CHANNELS_TO_WEIGH = 64
_STRETCHES = 6  # of validation: how far they disagree about the network is how little its share is known
LINES = {
    "ridge": RidgeMap, "chosen": ChosenLine, "individual": IndividualLine, "coupled": CoupledLine,
    "reverting": RevertingLine, "seasonal": SeasonalLine,
}  # fmt: skip


class Forecast:
    """The task of forecasting ``horizon`` steps, as points or as quantiles.

    Args:
        horizon: steps of future.
        quantiles: levels such as (0.1, 0.5, 0.9); None forecasts one point per step.
        loss: of point forecasts in training; quantiles use the pinball loss. "relative_mse" divides squared errors by
            the variance of the window plus 0.3, so that calm windows count as much as wild ones. "soft_dtw" forgives a
            peak that comes early or late: the soft-DTW divergence of each channel by itself, 0 at equality.
        gamma: how soft "soft_dtw" is, in squared units of the scaled series.
        line: the straight line that runs beside the network, solved before training: the plain "ridge", one "chosen" by
            rolling folds among several, an "individual" one for each channel where folds say that channels differ, the
            same "coupled" by what all channels did lately where folds say that it helps, a "seasonal" one that may read
            days and weeks in the mean and differ between channels of different kinds, one that may be "reverting" to
            the mean of training, or None for no line.
        network_context: how many steps at the end of the context the tokens are made of; None: all. The line reads all
            of it; docs/log.md says where a network that reads less of a long context learns better, and quicker.
        head_dropout: on the tokens before the head.
        head: "flatten" maps all tokens to the horizon at once, beside the line; "any_horizon" lets each stretch of the
            future ask the tokens (``HorizonHead``), so that other horizons and contexts than those of training can be
            asked for. No line runs beside that one: a line has a length.
    """

    def __init__(
        self,
        horizon: int,
        *,
        quantiles: Sequence[float] | None = None,
        loss: Loss = "mse",
        gamma: float = 0.1,
        line: str | None = "ridge",
        network_context: int | None = None,
        head_dropout: float = 0.0,
        head: str = "flatten",
    ) -> None:
        if horizon < 1:
            raise SettingsError(f"horizon counts the steps to forecast and is at least 1, but got {horizon}.")
        if quantiles is not None:
            try:
                levels = tuple(float(q) for q in quantiles)
            except (TypeError, ValueError) as error:
                raise SettingsError(
                    f"quantiles are numbers, such as (0.1, 0.5, 0.9), but got {quantiles!r}."
                ) from error
            if not levels or not all(0 < q < 1 for q in levels) or list(levels) != sorted(set(levels)):
                raise SettingsError(f"quantiles are rising levels between 0 and 1, but got {tuple(quantiles)}.")
            quantiles = levels
        if loss not in get_args(Loss):
            raise unknown_name("loss", loss, get_args(Loss))
        if not gamma > 0:
            raise SettingsError(f"gamma softens the minimum of soft-DTW and is above 0, but got {gamma}.")
        if line is not None and line not in LINES:
            raise unknown_name("line", line, LINES)
        if head not in HEADS:
            raise unknown_name("head", head, HEADS)
        if head == "any_horizon" and line is not None:
            raise SettingsError(
                f"A line from {line!r} has the length of one horizon, and head='any_horizon' has none. Set line=None."
            )
        self.horizon, self.quantiles, self.loss_name, self.line = horizon, quantiles, loss, line
        self.network_context = network_context
        self.head = head
        self.head_dropout, self.gamma = head_dropout, gamma

    @property
    def stacks(self) -> bool:
        """Whether several networks can be trained at it as one, see training.together."""
        return self.loss_name != "soft_dtw"

    def build(self, name: str, settings: Mapping[str, Any], *, n_channels: int, context_length: int) -> nn.Module:
        """The model of this name with the head of this task: [B, C, T] to [B, C, H], or [B, Q, C, H]."""
        architecture = find_model(name)
        config = make_settings(architecture.config, settings)
        direct = architecture.forecaster if architecture.is_encoder else architecture.build
        if direct is not None and self.head != "flatten":
            raise SettingsError(
                f"head={self.head!r} asks the tokens of an encoder, and {name!r} forecasts in a form of its own. "
                "Choose an encoder, such as 'universal'."
            )
        if direct is not None:
            center = direct(config, n_channels=n_channels, context_length=context_length, horizon=self.horizon)
            return center if self.quantiles is None else SpreadAround(center, len(self.quantiles), self.horizon)
        reads_last = min(context_length, self.network_context or context_length)
        model = architecture.build(config, n_channels=n_channels, context_length=reads_last)
        assert isinstance(model, Encoder)
        model.reads_last = reads_last if reads_last < context_length else None
        if self.head == "any_horizon":
            model.head = HorizonHead(
                model.width,
                model.patch_length,
                model.stride,
                self.horizon,
                n_series=n_channels if model.n_groups_of == "window" else 1,
                n_quantiles=len(self.quantiles) if self.quantiles else None,
                dropout=self.head_dropout,
            )
            return model
        model.head = FlattenHead(
            model.width,
            model.n_tokens,
            self.horizon,
            n_series=n_channels if model.n_groups_of == "window" else 1,
            n_quantiles=len(self.quantiles) if self.quantiles else None,
            dropout=self.head_dropout,
            line=None if self.line is None else LINES[self.line](context_length, self.horizon),
        )
        return model

    @quick_products()
    def prepare(
        self, model: nn.Module, train: Windows, validation: Windows | None, *, solved: nn.Module | None = None
    ) -> str:
        """Solve what can be solved before the first gradient step: the line, and the spread of quantiles around it.

        ``solved`` is a model of the same form, fitted to the same windows, whose frozen line is taken instead of
        solving it again. Returns what line was chosen, in words.
        """
        said = ""
        lines = [module for module in model.modules() if isinstance(module, RidgeMap)]
        if solved is not None:
            theirs = [module for module in solved.modules() if isinstance(module, RidgeMap)]
            for line, other in zip(lines, theirs, strict=True):
                line.load_state_dict(other.state_dict())
        else:
            for line in lines:
                said = line.solve(train, validation)
        for module in model.modules():
            if self.quantiles and isinstance(module, SpreadAround | FlattenHead) and module.starts_at_a_line:
                module.spread(self._residual_quantiles(model, train))
        return said

    @torch.no_grad()
    @quick_products()
    def finish(
        self, model: nn.Module, validation: Windows | None, *, channels_at_once: int = _CHANNELS_TO_WEIGH
    ) -> float | None:
        """Let as much of the network count beside its line as validation is sure of.

        Validation has a share of the network that lowers its squared error most, and each of six stretches of it would
        move that share: the standard error is the jackknife's over the stretches, and what counts is the share less
        its standard error, from none to all of the network. A network on which all stretches agree counts almost as
        much as validation says; one that helps here and harms there does not count (``docs/log.md``: on eleven
        stretches that came later it gained more than half of the share did, and none of them was behind the line).

        Of many windows every k-th is read; of a single one, half of its share counts. Of quantiles the one nearest to
        the median is judged, by how much its tokens say of what the line misses, and the others follow it. Returns the
        share, or None where there is nothing to weigh: no line, or no validation. The share is of the network as it was
        trained, so finishing twice is finishing once. ``channels_at_once`` is that of training, for channels that
        exchange.
        """
        head = _weighed(model)
        if validation is None or head is None:
            return None
        assert isinstance(model, Encoder)
        model.eval()
        levels = self.quantiles or (0.5,)
        middle = min(range(len(levels)), key=lambda k: abs(levels[k] - 0.5))
        device = next(model.parameters()).device
        n_channels = validation.n_channels
        # models that read channels apart need not see them all at once, and so many rows tell the share well enough
        groups = channel_groups(model, n_channels, channels_at_once, apart=_CHANNELS_TO_WEIGH)
        n_together = groups[0].stop
        index = np.arange(0, len(validation), max(1, len(validation) * n_channels // _ROWS_TO_WEIGH))
        stretches = np.array_split(index, min(_STRETCHES, len(index)))
        agree, power = np.zeros((2, len(stretches)))
        for k, stretch in enumerate(stretches):
            for some in np.array_split(stretch, max(1, len(stretch) * n_together // _ROWS_PER_PASS)):
                for group in groups:
                    batch = validation.batch(some, group)
                    features = _encoded(model, batch, device)
                    network, line = (part.cpu() for part in head.beside_the_line(features, middle))  # [B, C, H]
                    missed = batch.target - line
                    if batch.target_observed is not None:
                        network = network.masked_fill(~batch.target_observed, 0.0)
                    agree[k] += float((missed * network).sum(dtype=torch.float64))
                    power[k] += float(network.square().sum(dtype=torch.float64))
        share = 1.0 if head.kept else 0.0  # of a network that says nothing, or of which nothing was kept
        if power.sum() > 0:
            share = float(np.clip(_sure_share(agree, power) * head.kept, 0.0, 1.0))
        head.weaken(share)
        return share

    def begin_again(self, model: nn.Module) -> None:
        """Give a finished network its full say back, so that training goes on with what training left."""
        head = _weighed(model)
        if head is not None:
            head.weaken(1.0)

    def finished(self, model: nn.Module, share: float | None) -> None:
        """Say of a network that was loaded with its weights weakened, which share of it that left (None: all)."""
        head = _weighed(model)
        if head is not None and share is not None:
            head.kept = share

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean loss over the observed future of a batch."""
        total, count = self.losses(model, batch)
        return total / count.clamp(min=1)

    def errors(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """What validation judges by, whatever the training loss: squared errors of points, pinball of quantiles."""
        return self._sums(model, batch, "mse")

    def losses(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum of training losses, and how many values it counts: sums can be added over batches, means cannot."""
        return self._sums(model, batch, self.loss_name)

    def _sums(self, model: nn.Module, batch: Batch, loss: str) -> tuple[Tensor, Tensor]:
        forecast = answer_batch(model, batch)
        seen = batch.target_observed
        error = batch.target - forecast if self.quantiles is None else batch.target[:, None] - forecast
        if self.quantiles is not None:
            level = torch.tensor(self.quantiles, device=error.device, dtype=error.dtype)[:, None, None]
            each = torch.maximum(level * error, (level - 1) * error)  # [B, Q, C, H]
            seen = None if seen is None else seen[:, None].expand_as(each)
        elif loss == "soft_dtw":
            return self._warped(forecast, batch.target, seen)
        elif loss == "mse":
            each = error.square()
        elif loss == "mae":
            each = error.abs()
        elif loss == "relative_mse":
            scale = _window_scale(batch.context, batch.context_observed)  # [B, C, 1]
            each = error.square() / (scale.square() + 0.3)
        else:
            each = nn.functional.huber_loss(error, torch.zeros_like(error), reduction="none")
        if seen is None:
            return each.sum(), torch.tensor(each.numel(), device=each.device)
        return each.masked_fill(~seen, 0.0).sum(), seen.sum()

    def _warped(self, forecast: Tensor, target: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
        """Soft-DTW divergences of all channels [B, C, H], summed, and how many values were observed.

        Where the target was not observed the forecast stands in for it, on both sides of the gradient: a forecast that
        is right wherever it can be judged costs nothing, whatever it says elsewhere.
        """
        if seen is not None:
            target = torch.where(seen, target, forecast)
        count = torch.tensor(forecast.numel(), device=forecast.device) if seen is None else seen.sum()
        divergence = soft_dtw_divergence(forecast.flatten(0, 1)[:, None], target.flatten(0, 1)[:, None], self.gamma)
        return divergence.sum(), count

    @torch.no_grad()
    def _residual_quantiles(self, model: nn.Module, train: Windows, n_rows: int = 200_000) -> Tensor:
        """Quantiles [Q, H] of what the model's point forecast misses, in units of the scale the model takes away."""
        # a wide table needs fewer windows for as many rows, and torch sorts no more than 2^24 of them
        n_windows = min(2000, max(1, n_rows // train.n_channels), len(train))
        index = np.unique(np.linspace(0, len(train) - 1, n_windows).astype(int))
        misses: list[Tensor] = []
        model.eval()
        for part in np.array_split(index, min(len(index), 1 + len(index) * train.n_channels // 4000)):
            batch = train.batch(part)
            forecast = answer_batch(model, batch)
            error = batch.target - forecast[:, 0]  # [B, C, H]
            if isinstance(model, Encoder):
                scale = _encoded(model, batch, torch.device("cpu")).stats.scale
            else:
                scale = _window_scale(batch.context, batch.context_observed)
            error = error / scale  # [B, C, H]
            if batch.target_observed is not None:
                error = error.masked_fill(~batch.target_observed, torch.nan)
            misses.append(error.flatten(0, 1))
        model.train()
        levels = torch.tensor(self.quantiles)
        return torch.nanquantile(torch.cat(misses), levels, dim=0).nan_to_num(0.0)  # [Q, H]


def _sure_share(agree: NDArray[np.float64], power: NDArray[np.float64]) -> float:
    """The least-squares share over all stretches [K], less its jackknife standard error."""
    share, k = agree.sum() / power.sum(), len(agree)
    if k == 1:
        return float(share / 2)
    rest = power.sum() - power
    without = np.where(rest > 0, (agree.sum() - agree) / np.where(rest > 0, rest, 1.0), 0.0)  # [K], each left out
    return float(share - np.sqrt((k - 1) / k * ((without - without.mean()) ** 2).sum()))


def _weighed(model: nn.Module) -> FlattenHead | None:
    """The head of a network that stands beside a line; None where there is nothing to weigh it by."""
    head = getattr(model, "head", None)
    return head if isinstance(head, FlattenHead) and head.line is not None else None


def channel_groups(model: nn.Module, n_channels: int, at_once: int, *, apart: int | None = None) -> list[slice]:
    """Which channels of a wide table a model reads together: all of them, or groups of at most ``at_once``.

    A model bound to its channels reads all. Where channels exchange, groups are as even as those of training
    (``Batches``), so that a channel meets the same others; where they stay apart, groups are of ``apart`` channels
    (None: ``at_once``), and change nothing but memory.
    """
    if getattr(model, "n_channels", None) is not None:
        return [slice(0, n_channels)]
    if any(getattr(module, "exchanges", False) for module in model.modules()):
        edges = np.linspace(0, n_channels, -(-n_channels // at_once) + 1).astype(int).tolist()
    else:
        edges = [*range(0, n_channels, apart or at_once), n_channels]
    return [slice(begin, end) for begin, end in itertools.pairwise(edges)]


def answer(model: nn.Module, x: Tensor, observed: Tensor | None, start: Tensor | None) -> Tensor:
    """What a model says of the windows x [B, C, T]; one that reads it is told the number of their first steps [B]."""
    return model(x, observed, start) if getattr(model, "reads_start", False) else model(x, observed)


def reads_times(model: nn.Module) -> bool:
    """Whether a model, or every member of an ensemble, reads when each row was measured."""
    if isinstance(model, Ensemble):
        return all(reads_times(member) for member in model.members)
    return bool(getattr(model, "reads_times", False))


def answer_batch(model: nn.Module, batch: Batch, *, numbered: bool = True) -> Tensor:
    """What a model says of a batch: of its measurements and their times, where both know them, else of its context.

    Where the steps are not ``numbered`` as in training, a model that reads their numbers finds its place by itself.
    """
    if batch.rows is None or batch.times is None or not reads_times(model):
        return answer(model, batch.context, batch.context_observed, batch.start if numbered else None)
    if isinstance(model, Ensemble):
        return torch.stack([answer_batch(member, batch) for member in model.members]).mean(0)
    return model(batch.rows, batch.rows_observed, batch.times)


def _encoded(model: Encoder, batch: Batch, device: torch.device) -> Features:
    """The features of a batch, of its measurements where both know their times."""
    if batch.rows is not None and batch.times is not None and isinstance(model, UniversalEncoder):
        observed = None if batch.rows_observed is None else batch.rows_observed.to(device)
        return model.encode(batch.rows.to(device), observed, batch.times.to(device))
    observed = None if batch.context_observed is None else batch.context_observed.to(device)
    return model.features(batch.context.to(device), observed)


def _window_scale(x: Tensor, observed: Tensor | None) -> Tensor:
    return InstanceNorm()(x, observed)[1].scale


class SpreadAround(nn.Module):
    """Quantiles around a direct forecaster: its forecast plus an offset per level and step, in units of the window."""

    starts_at_a_line = True

    def __init__(self, center: nn.Module, n_quantiles: int, horizon: int) -> None:
        super().__init__()
        self.center, self.n_quantiles = center, n_quantiles
        self.reads_start = getattr(center, "reads_start", False)
        self.stacks = getattr(center, "stacks", False)
        self.offsets = nn.Parameter(torch.zeros(n_quantiles, horizon))  # [Q, H]

    @property
    def n_channels(self) -> int | None:
        """C the center is bound to, or None where any number will do."""
        return getattr(self.center, "n_channels", None)

    def forward(self, x: Tensor, observed: Tensor | None = None, start: Tensor | None = None) -> Tensor:
        """[B, C, T] to [B, Q, C, H]."""
        scale = _window_scale(x, observed)[:, None]  # [B, 1, C, 1]
        return answer(self.center, x, observed, start)[:, None] + scale * self.offsets[:, None]

    @torch.no_grad()
    def spread(self, offsets: Tensor) -> None:
        """Set the offsets [Q, H]."""
        self.offsets.copy_(offsets)
