"""Quantiles that keep their word: moved so that on validation each lies above its share of what came."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from prismts.layers.normalize import InstanceNorm
from prismts.windows import Batch

__all__ = ["conformal_offsets"]


def conformal_offsets(
    forecasts: Iterable[tuple[Batch, NDArray[np.floating]]], levels: NDArray[np.floating]
) -> NDArray[np.float64]:
    """What to add to each quantile [Q, C, 1], in units of a window's own scale.

    ``forecasts`` are validation batches with their quantile forecasts [B, Q, C, H]. The offset of a level is the
    quantile of this very level of (target - forecast) / scale, over all windows and steps of a channel.
    Source: one-sided split conformal prediction (Romano et al., Conformalized Quantile Regression, NeurIPS 2019), with
    the score taken relative to the window's scale. Windows overlap and series drift, so its guarantee holds
    approximately; the coverage on test is reported, not promised.
    """
    scores: list[NDArray[np.floating]] = []
    for batch, forecast in forecasts:
        target = batch.target.numpy()
        if batch.target_observed is not None:
            target = np.where(batch.target_observed.numpy(), target, np.nan)
        scale = InstanceNorm()(batch.context, batch.context_observed)[1].scale.numpy()  # [B, C, 1]
        scores.append(((target[:, None] - forecast) / scale[:, None]).astype(np.float32))  # [B, Q, C, H]
    missed = np.concatenate(scores)
    offsets = np.empty((len(levels), missed.shape[2], 1))
    for q, level in enumerate(levels):
        for c in range(missed.shape[2]):
            seen = missed[:, q, c]
            seen = seen[~np.isnan(seen)]
            offsets[q, c] = np.quantile(seen, level) if seen.size else 0.0
    return offsets
