"""Scores of forecasts that arrive batch by batch, so that no table of all forecasts has to be held."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prismts.evaluation.error_sums import ErrorSums
from prismts.evaluation.metrics import coverage, dtw, interval_width, pinball, smape
from prismts.evaluation.probabilistic import median_of

__all__ = ["RunningForecastScores"]


class _Mean:
    """A mean over all values of all batches."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, mean: float, count: int) -> None:
        if count:
            self.total += mean * count
            self.count += count

    @property
    def value(self) -> float:
        return self.total / self.count if self.count else float("nan")


class RunningForecastScores:
    """Every measure of a forecast, added up over batches; none depends on how the windows were batched.

    Point measures of quantile forecasts are those of their median, between two levels where it is none of them.
    """

    def __init__(
        self, n_channels: int, horizon: int, quantiles: Sequence[float] | None = None, *, dtw: bool = False
    ) -> None:
        self.scaled, self.own = ErrorSums(n_channels, horizon), ErrorSums(n_channels, horizon)
        self.seasonal = ErrorSums(n_channels, horizon)
        self.levels = None if quantiles is None else np.asarray(quantiles, dtype=float)
        names = ["smape"]
        names += ["pinball", "coverage", "width"] if self.levels is not None else []
        names += ["dtw"] if dtw else []
        self.means = {name: _Mean() for name in names}

    def add(
        self,
        target: NDArray[np.floating],
        forecast: NDArray[np.floating],
        scale: NDArray[np.floating],
        mean: NDArray[np.floating],
        season_scale: NDArray[np.floating],
    ) -> None:
        """Standardized targets [B, C, H] and forecasts [B, C, H] or [B, Q, C, H], and the scale to undo: [B, C] each.

        ``season_scale`` is the seasonal naive error in own units; NaN where it is unknown or zero.
        """
        point = forecast if self.levels is None else median_of(forecast, self.levels.tolist())
        self.scaled.add(target, point)
        own_scale, own_mean = scale[..., None], mean[..., None]
        own_target, own_point = target * own_scale + own_mean, point * own_scale + own_mean
        self.own.add(own_target, own_point)
        relative = own_scale / season_scale[..., None]
        self.seasonal.add(target * relative, np.where(np.isnan(relative), 0.0, point * relative))
        n = int((~np.isnan(target)).sum())
        self.means["smape"].add(smape(own_target, own_point), n)
        if self.levels is not None:
            by_level = np.moveaxis(forecast, 1, 0)  # [Q, B, C, H]
            self.means["pinball"].add(pinball(target, by_level, self.levels), n)
            self.means["coverage"].add(coverage(target, by_level[0], by_level[-1]), n)
            self.means["width"].add(interval_width(by_level[0], by_level[-1]), target.size)  # a width needs no target
        if "dtw" in self.means:
            pairs = target.reshape(-1, target.shape[-1]), point.reshape(-1, point.shape[-1])
            self.means["dtw"].add(dtw(*pairs), int((~np.isnan(pairs[0])).any(-1).sum()))

    def values(self) -> dict[str, float]:
        """All measures by name: rmse_own, mae_own and smape of values in own units, the others of standardized ones."""
        values = {
            "mse": self.scaled.mse, "mae": self.scaled.mae, "rmse_own": self.own.rmse, "mae_own": self.own.mae,
            "mase": self.seasonal.mae,
        }  # fmt: skip
        values |= {name: mean.value for name, mean in self.means.items()}
        if "pinball" in values:
            values["crps"] = 2 * values["pinball"]
        return values

    def per_step(self) -> dict[str, NDArray[np.float64]]:
        """Along the horizon, [H] each."""
        return {"mse": self.scaled.mse_per_step, "mae": self.scaled.mae_per_step}

    def per_channel(self) -> dict[str, NDArray[np.float64]]:
        """For each channel, [C] each."""
        return {
            "mse": self.scaled.mse_per_channel, "mae": self.scaled.mae_per_channel,
            "rmse_own": self.own.rmse_per_channel, "mae_own": self.own.mae_per_channel,
        }  # fmt: skip
