"""What a trained model says of many windows: batch by batch, and a wide table in groups of its channels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from prismts.layers.normalize import InstanceNorm
from prismts.layers.products import quick_products
from prismts.tasks.forecast import answer_batch
from prismts.windows import Batch, Windows

__all__ = ["forecast_batches", "in_order"]

_ROWS = 8192  # windows times channels that go through the model at once


def forecast_batches(
    model: nn.Module, windows: Windows, index: NDArray[np.int64], groups: Sequence[slice], *, numbered: bool
) -> Iterator[tuple[Batch, NDArray[np.float32]]]:
    """Batches of the windows ``index`` with scaled forecasts: [B, C, H], or [B, Q, C, H].

    A wide table goes through in ``groups`` of channels, where the model does not need to see all of them. Where the
    steps of the windows are not ``numbered`` as those of training, a model that reads these numbers finds its place by
    itself.
    """
    place = next((p.device for p in model.parameters()), torch.device("cpu"))
    size = max(1, _ROWS // windows.n_channels)
    with torch.inference_mode():
        for begin in range(0, len(index), size):
            batch = windows.batch(index[begin : begin + size])
            there = Batch(*(None if one is None else one.to(place) for one in batch))  # type: ignore[arg-type]
            with quick_products():
                told = [answer_batch(model, _channels_of(there, group), numbered=numbered) for group in groups]
            yield batch, torch.cat(told, dim=-2).float().cpu().numpy()


def in_order(
    told: Iterable[tuple[Batch, NDArray[np.float32]]], offsets: NDArray[np.float64] | None
) -> Iterator[tuple[Batch, NDArray[np.float32]]]:
    """Quantile forecasts [B, Q, C, H] with their levels in order, moved by each round of ``conformal_offsets``."""
    rounds = [] if offsets is None else offsets.reshape(-1, *offsets.shape[-3:])  # older folders have one
    for batch, forecast in told:
        forecast = np.sort(forecast, axis=1)
        scale = InstanceNorm()(batch.context, batch.context_observed)[1].scale[:, None].numpy()  # [B, 1, C, 1]
        for moved in rounds:
            forecast = np.sort(forecast + scale * moved.astype(np.float32), axis=1)
        yield batch, forecast


def _channels_of(batch: Batch, group: slice) -> Batch:
    """Some channels of a batch, whose futures are left out."""
    return batch._replace(
        context=batch.context[:, group],
        context_observed=None if batch.context_observed is None else batch.context_observed[:, group],
        rows=None if batch.rows is None else batch.rows[:, group],
        rows_observed=None if batch.rows_observed is None else batch.rows_observed[:, group],
    )
