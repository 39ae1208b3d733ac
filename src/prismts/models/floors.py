"""The floors: forecasts that cost nothing, which everything else has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prismts.errors import SettingsError
from prismts.layers.coupled_line import CoupledLine
from prismts.layers.individual_line import IndividualLine
from prismts.layers.linear import RidgeMap
from prismts.layers.missing import bridge
from prismts.layers.seasonal_line import SeasonalLine

__all__ = [
    "ChosenLines", "CoupledLines", "LastValue", "LastValueConfig", "Ridge", "RidgeConfig", "SeasonalLines",
    "SeasonalNaive", "SeasonalNaiveConfig",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LastValueConfig:
    """Nothing to set."""


class LastValue(nn.Module):
    """Repeat the last observed value: [B, C, T] to [B, C, H]."""

    def __init__(self, config: LastValueConfig, *, n_channels: int, context_length: int, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon

    def forward(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """[B, C, T] to [B, C, H]."""
        return bridge(x, observed)[..., -1:].expand(*x.shape[:-1], self.horizon)


@dataclass(frozen=True, kw_only=True)
class SeasonalNaiveConfig:
    """``season`` in time steps: 24 for the day of hourly data."""

    season: int = 1

    def __post_init__(self) -> None:
        if self.season < 1:
            raise SettingsError(f"A season has at least one step, but got {self.season}.")


class SeasonalNaive(nn.Module):
    """Repeat the last season: [B, C, T] to [B, C, H]."""

    def __init__(self, config: SeasonalNaiveConfig, *, n_channels: int, context_length: int, horizon: int) -> None:
        super().__init__()
        if context_length < config.season:
            raise SettingsError(
                f"Seasonal naive repeats a season of {config.season} steps, but context_length is {context_length}. "
                f"Set context_length to at least {config.season}, or a shorter season."
            )
        self.season, self.horizon = config.season, horizon

    def forward(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """[B, C, T] to [B, C, H]."""
        last = bridge(x, observed)[..., -self.season :]
        return last[..., torch.arange(self.horizon, device=x.device) % self.season]


@dataclass(frozen=True, kw_only=True)
class RidgeConfig:
    """Nothing to set: validation chooses the penalty, and rolling folds the line where there are several."""


class Ridge(nn.Module):
    """One linear map from the mean-subtracted context to the mean-subtracted future, shared by all channels.

    Closed form, seconds on one core, and ahead of many published networks on the usual sets.
    """

    kind: type[RidgeMap] = RidgeMap

    def __init__(self, config: RidgeConfig, *, n_channels: int, context_length: int, horizon: int) -> None:
        super().__init__()
        self.line = self.kind(context_length, horizon)

    def forward(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """[B, C, T] to [B, C, H]."""
        x = bridge(x, observed)
        level = x.mean(-1, keepdim=True)
        return self.line(x - level) + level


class ChosenLines(Ridge):
    """The lines of ``setting="individual_line"`` without the network beside them: [B, C, T] to [B, C, H].

    The ridge, a line that was ahead of it in every fold, or one for each channel where that was.
    """

    kind = IndividualLine

    @property
    def n_channels(self) -> int | None:
        """How many channels it is bound to; None where one line is for all."""
        return self.line.n_channels


class SeasonalLines(ChosenLines):
    """The lines of the default forecaster without the network beside them: [B, C, T] to [B, C, H].

    The ridge, or the mean of lines that read the past in different ways, where that was ahead of it in every fold, and
    one for each channel where that was clearly ahead again.
    """

    kind = SeasonalLine


class CoupledLines(ChosenLines):
    """The lines of ``setting="coupled_line"`` without the network beside them: [B, C, T] to [B, C, H].

    The chosen lines, and what all channels did lately where every fold says that it helps.
    """

    kind = CoupledLine
