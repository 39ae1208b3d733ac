"""Squared and absolute errors added up block by block, so that no score depends on how the windows were batched."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prismts.errors import ShapeError
from prismts.evaluation.observed import read_forecast, read_target

__all__ = ["ErrorSums"]


@dataclass(eq=False)
class ErrorSums:
    """Sums of the errors of forecasts [B, C, H], kept per channel and step, from which every mean can be read.

    Windows are added one by one in float64: the same windows in the same order give the same sums bit for bit, whatever
    the batch size, and another order changes them by rounding only (1e-12). Parts computed apart add up: ``a + b``.

        sums = ErrorSums(n_channels=7, horizon=96)
        for target, forecast in batches:
            sums.add(target, forecast)
        print(sums.mse, sums.mae_per_step, sums.n)
    """

    n_channels: int
    horizon: int
    squared: NDArray[np.float64] = field(init=False, repr=False)  # [C, H], squared units of the series
    absolute: NDArray[np.float64] = field(init=False, repr=False)  # [C, H], units of the series
    count: NDArray[np.int64] = field(init=False, repr=False)  # [C, H], values observed

    def __post_init__(self) -> None:
        shape = self.n_channels, self.horizon
        self.squared, self.absolute, self.count = np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=np.int64)

    def add(self, target: ArrayLike, forecast: ArrayLike) -> None:
        """Count a block of windows [B, C, H], of any number; NaN in the target was not observed and is not counted."""
        targets, forecasts = np.asarray(target), np.asarray(forecast)
        if targets.shape[1:] != (self.n_channels, self.horizon) or targets.shape != forecasts.shape:
            raise ShapeError(
                f"These sums add up windows [batch, channel={self.n_channels}, horizon={self.horizon}], but got target "
                f"{list(targets.shape)} and forecast {list(forecasts.shape)}."
            )
        y, f = read_target(targets), read_forecast(forecasts, targets.shape)
        for error in map(np.subtract, f, y):  # [C, H]
            observed = ~np.isnan(error)
            np.add(self.squared, error * error, out=self.squared, where=observed)
            np.add(self.absolute, np.abs(error), out=self.absolute, where=observed)
            self.count += observed

    def __add__(self, other: ErrorSums) -> ErrorSums:
        """The sums over the windows of both; neither is changed."""
        if (self.n_channels, self.horizon) != (other.n_channels, other.horizon):
            raise ShapeError(
                f"Sums of [channel={self.n_channels}, horizon={self.horizon}] cannot be added to sums of "
                f"[channel={other.n_channels}, horizon={other.horizon}]: they score different tasks."
            )
        return self._with(self.squared + other.squared, self.absolute + other.absolute, self.count + other.count)

    def scaled(self, scale: ArrayLike) -> ErrorSums:
        """The sums as if each channel's errors had been multiplied by its ``scale`` [C], > 0.

        With the scale of a StandardScaler, scores of standardized windows turn into the units of the series; with
        ``1 / seasonal_scale(history, season)``, ``mae`` turns into MASE.
        """
        factor = np.asarray(scale, dtype=np.float64)
        if factor.shape != (self.n_channels,) or not (np.isfinite(factor) & (factor > 0)).all():
            raise ShapeError(
                f"scale must hold one finite number above 0 per channel, [{self.n_channels}], but has shape "
                f"{list(factor.shape)} and values {np.array2string(factor, threshold=6)}."
            )
        factor = factor[:, None]  # [C, 1]
        return self._with(self.squared * factor**2, self.absolute * factor, self.count.copy())

    @property
    def n(self) -> int:
        """How many observed values were counted, over all windows, channels and steps."""
        return int(self.count.sum())

    @property
    def mse(self) -> float:
        """Mean squared error over everything, in squared units; NaN before anything was counted."""
        return float(_ratio(self.squared.sum(), self.count.sum()))

    @property
    def mae(self) -> float:
        """Mean absolute error over everything."""
        return float(_ratio(self.absolute.sum(), self.count.sum()))

    @property
    def rmse(self) -> float:
        """Root of ``mse``."""
        return float(np.sqrt(self.mse))

    @property
    def mse_per_step(self) -> NDArray[np.float64]:
        """[H]; NaN at a step that was never observed."""
        return _ratio(self.squared.sum(axis=0), self.count.sum(axis=0))

    @property
    def mae_per_step(self) -> NDArray[np.float64]:
        """[H]; NaN at a step that was never observed."""
        return _ratio(self.absolute.sum(axis=0), self.count.sum(axis=0))

    @property
    def rmse_per_step(self) -> NDArray[np.float64]:
        """[H]; root of ``mse_per_step``."""
        return np.sqrt(self.mse_per_step)

    @property
    def mse_per_channel(self) -> NDArray[np.float64]:
        """[C]; NaN for a channel that was never observed."""
        return _ratio(self.squared.sum(axis=1), self.count.sum(axis=1))

    @property
    def mae_per_channel(self) -> NDArray[np.float64]:
        """[C]; NaN for a channel that was never observed."""
        return _ratio(self.absolute.sum(axis=1), self.count.sum(axis=1))

    @property
    def rmse_per_channel(self) -> NDArray[np.float64]:
        """[C]; root of ``mse_per_channel``."""
        return np.sqrt(self.mse_per_channel)

    def _with(self, squared: NDArray[np.float64], absolute: NDArray[np.float64], count: NDArray[np.int64]) -> ErrorSums:
        sums = ErrorSums(self.n_channels, self.horizon)
        sums.squared, sums.absolute, sums.count = squared, absolute, count
        return sums


def _ratio(total: NDArray[np.float64], count: NDArray[np.int64]) -> NDArray[np.float64]:
    return total / np.where(count, count, np.nan)
