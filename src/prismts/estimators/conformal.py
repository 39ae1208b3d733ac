"""Quantiles that keep their word: moved so that on validation each lies above its share of what came."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from prismts.layers.normalize import InstanceNorm
from prismts.windows import Batch

__all__ = ["conformal_offsets"]

_ROUNDS = 10  # at most; one is enough where no level is moved past another


def conformal_offsets(
    forecasts: Iterable[tuple[Batch, NDArray[np.floating]]], levels: NDArray[np.floating]
) -> NDArray[np.float64]:
    """What to add to each quantile, in units of a window's own scale, in rounds [R, Q, C, 1]; after each, put in order.

    ``forecasts`` are validation batches with their quantile forecasts [B, Q, C, H], in order. The offset of a level is
    the quantile of this very level of (target - forecast) / scale, over all windows and steps of a channel. Where
    offsets move levels past each other, putting them in order costs each its share, and a further round gives it back.
    Source: one-sided split conformal prediction (Romano et al., Conformalized Quantile Regression, NeurIPS 2019), with
    the score taken relative to the window's scale. Windows overlap and series drift, so its guarantee holds
    approximately; the coverage on test is reported, not promised.
    """
    told: list[NDArray[np.floating]] = []
    truth: list[NDArray[np.floating]] = []
    for batch, forecast in forecasts:
        target = batch.target.numpy()
        if batch.target_observed is not None:
            target = np.where(batch.target_observed.numpy(), target, np.nan)
        scale = InstanceNorm()(batch.context, batch.context_observed)[1].scale.numpy()  # [B, C, 1]
        middle = forecast[:, forecast.shape[1] // 2]  # differences alone are held, which single precision tells apart
        told.append(((forecast - middle[:, None]) / scale[:, None]).astype(np.float32))  # [B, Q, C, H], in order
        truth.append(((target - middle) / scale).astype(np.float32))  # [B, C, H]
    y, forecast = np.concatenate(truth), np.concatenate(told)
    rounds: list[NDArray[np.float64]] = []
    for _ in range(_ROUNDS):
        offsets = np.empty((len(levels), forecast.shape[2], 1))
        for q, level in enumerate(levels):
            for c in range(forecast.shape[2]):
                seen = y[:, c] - forecast[:, q, c]
                seen = seen[~np.isnan(seen)]
                offsets[q, c] = np.quantile(seen, level) if seen.size else 0.0
        rounds.append(offsets)
        forecast += offsets.astype(np.float32)
        if not (np.diff(forecast, axis=1) < 0).any():
            break
        forecast.sort(axis=1)  # levels that were moved past each other change places, and so lose their shares
    return np.stack(rounds)
