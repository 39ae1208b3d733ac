"""Every metric by name, what it says, and which way is better.

    for name, metric in METRICS.items():
        print(name, metric)

Scores are functions of plain arrays: see ``point``, ``probabilistic`` and ``warping`` for their shapes. ``ErrorSums``
adds up squared and absolute errors where the forecasts come in batches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from prismts.evaluation.error_sums import ErrorSums
from prismts.evaluation.point import bias, mae, mase, mse, rmse, seasonal_scale, smape
from prismts.evaluation.probabilistic import (
    coverage,
    crossing_rate,
    crps_from_quantiles,
    interval_score,
    interval_width,
    pinball,
)
from prismts.evaluation.warping import dtw

__all__ = [
    "METRICS", "Metric", "ErrorSums",
    "mse", "mae", "rmse", "bias", "smape", "mase", "seasonal_scale",
    "pinball", "crps_from_quantiles", "crossing_rate", "coverage", "interval_width", "interval_score",
    "dtw",
]  # fmt: skip


@dataclass(frozen=True)
class Metric:
    """A score, one line on what it says, and which value is best."""

    function: Callable[..., Any]
    description: str
    best: Literal["lower", "higher", "zero", "nominal"]  # nominal: as close as possible to the coverage claimed

    def __str__(self) -> str:
        wish = {"lower": "lower is better", "higher": "higher is better",
                "zero": "closest to zero is best", "nominal": "closest to the claimed coverage is best"}  # fmt: skip
        return f"{self.description} ({wish[self.best]})"


METRICS: dict[str, Metric] = {
    "mse": Metric(mse, "mean squared error, squared units", "lower"),
    "mae": Metric(mae, "mean absolute error, units of the series", "lower"),
    "rmse": Metric(rmse, "root of the mean squared error, units of the series", "lower"),
    "bias": Metric(bias, "mean of forecast minus target, units of the series", "zero"),
    "smape": Metric(smape, "symmetric absolute percentage error, 0 to 200 percent", "lower"),
    "mase": Metric(mase, "absolute error over that of the seasonal naive forecast inside the history", "lower"),
    "pinball": Metric(pinball, "mean quantile loss over the levels, units of the series", "lower"),
    "crps": Metric(crps_from_quantiles, "CRPS approximated from quantiles, units of the series", "lower"),
    "crossing_rate": Metric(crossing_rate, "share of steps at which quantiles stand in the wrong order", "lower"),
    "coverage": Metric(coverage, "share of targets inside the interval, 0 to 1", "nominal"),
    "interval_width": Metric(interval_width, "mean width of the interval, units of the series", "lower"),
    "interval_score": Metric(interval_score, "width plus penalty for targets outside, units of the series", "lower"),
    "dtw": Metric(dtw, "mean time warping distance of forecast and target, units of the series", "lower"),
}
