"""Detection: how far each step lies from what a model says while it does not see it.

A step is the future of a forecast, a hidden part of a window, or the middle that a line tells from both sides. Each
scores a step by windows that lie at fixed places of the series, so that a series that grows gets the scores of the
whole, after a fixed delay.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor, nn

from prismts.data.bridging import bridged
from prismts.tasks.reconstruct import Reconstruct

__all__ = ["TwoSidedLine", "box_mean", "forecast_errors", "reconstruction_delay", "reconstruction_errors"]

Array = NDArray[np.float64]
Read = Callable[[Tensor, Tensor | None], Tensor]
_ROWS = 4096  # windows times channels that go through the model at once


class TwoSidedLine:
    """Tells each step from those on both sides of it, by one line per channel: masked reconstruction in closed form.

    A span around the step is hidden, so that an anomaly of a few steps does not tell itself: ``gap`` steps on either
    side of it. Beyond them, up to 32 steps on each side are read, fewer where the training part is short, all relative
    to their mean. Ridge regression over at most 20,000 training steps, evenly spaced; the penalty is a hundredth of the
    mean square of an input.
    """

    def __init__(self, train: Array, *, n_read: int = 32, gap: int = 8) -> None:
        x = bridged(train)  # [C, T]
        half = max(1, min(n_read, x.shape[1] // 12))
        gap = min(gap, x.shape[1] // 12)
        self.reach = gap + half  # steps on each side that a verdict depends on
        self.offsets = np.r_[-self.reach : -gap, gap + 1 : self.reach + 1]
        place = np.arange(self.reach, x.shape[1] - self.reach)
        place = place[np.linspace(0, len(place) - 1, min(len(place), 20_000)).astype(np.int64)]
        weights: list[Array] = []
        for row in x:
            around, level = self._around(row, place)
            inputs = np.c_[around, np.ones(len(around))]
            moments = inputs.T @ inputs
            shrink = np.full(len(moments), 0.01 * max(float(np.trace(moments)) / len(moments), 1e-9))
            shrink[-1] = 1e-9 * len(place)
            weights.append(np.linalg.solve(moments + np.diag(shrink), inputs.T @ (row[place] - level)))
        self.weights = np.stack(weights)  # [C, 2 * half + 1]

    def errors(self, values: Array) -> Array:
        """Distance of each step of values [C, T] to what the line tells: [C, T].

        NaN at the first and last ``reach`` steps, and where a step was not observed.
        """
        x, errors = bridged(values), np.full(values.shape, np.nan)
        for begin in range(self.reach, x.shape[1] - self.reach, 20_000):
            place = np.arange(begin, min(begin + 20_000, x.shape[1] - self.reach))
            for c, row in enumerate(x):
                around, level = self._around(row, place)
                errors[c, place] = np.abs(row[place] - level - around @ self.weights[c, :-1] - self.weights[c, -1])
        return np.where(np.isnan(values), np.nan, errors)

    def _around(self, row: Array, place: NDArray[np.int64]) -> tuple[Array, Array]:
        """Steps around each place [n, W] relative to their mean, and this mean [n]."""
        around = row[place[:, None] + self.offsets]
        level = around.mean(axis=1)
        return around - level[:, None], level


def forecast_errors(model: nn.Module, values: Array, context_length: int) -> Array:
    """Distance of each step to the forecast of the steps before it: [C, T], NaN where there is no verdict.

    ``values`` [C, T] are scaled, NaN where not observed. ``model`` forecasts at least one step; only the first counts.
    No verdict on the first ``context_length`` steps, nor on what was not observed. The error of a step depends on
    nothing that comes after it.
    """
    errors = np.full(values.shape, np.nan)
    if values.shape[1] > context_length:
        windows = sliding_window_view(values[:, :-1], context_length, axis=1).transpose(1, 0, 2)  # [n, C, L]
        told = _through(lambda x, seen: model(x, seen)[..., 0], windows, _device(model))  # [n, C]
        errors[:, context_length:] = np.abs(values[:, context_length:] - told.T)
    return errors


def reconstruction_errors(
    model: nn.Module, values: Array, context_length: int, *, n_parts: int = 4, block: int = 8
) -> Array:
    """Distance of each step to what the model makes of it while it is hidden: [C, T], NaN where there is no verdict.

    Windows of ``context_length`` steps begin at every half of it; each judges its middle half, the first also its
    beginning. Until its own window is complete, a step at the end of the series is judged by the window of the last
    ``context_length`` steps: see ``reconstruction_delay``. Within a window, every ``n_parts``-th block of ``block``
    steps of all channels is hidden at once. No verdict on a series shorter than a window, nor on what was not observed.
    """
    length, hop = context_length, context_length // 2
    n = values.shape[1]
    errors = np.full(values.shape, np.nan)
    if n < length:
        return errors
    starts = np.arange(0, n - length + 1, hop)
    starts = np.append(starts, n - length)  # the last one for the end, where it may stand twice
    windows = sliding_window_view(values, length, axis=1).transpose(1, 0, 2)[starts]  # [w, C, L]
    told = _through(
        lambda x, seen: Reconstruct.judge(model, x, seen, n_parts=n_parts, length=block), windows, _device(model)
    )
    missed = np.abs(windows - told)
    errors[:, n - length :] = missed[-1]
    for start, one in zip(starts[:-1].tolist(), missed[:-1], strict=True):
        first, end = (0 if start == 0 else hop - hop // 2), hop - hop // 2 + hop
        errors[:, start + first : start + end] = one[:, first:end]
    return errors


def reconstruction_delay(context_length: int) -> int:
    """After so many further steps an error of ``reconstruction_errors`` stays as it is."""
    hop = context_length // 2
    return context_length - 1 - (hop - hop // 2)


def box_mean(x: Array, length: int) -> Array:
    """Mean of x [C, T] over the ``length`` steps around each, ``length // 2`` of them ahead and fewer at both ends.

    NaN does not count; where all are NaN, so is the mean. Direct sums, not differences of running sums: after one huge
    value the small ones behind it keep their digits.
    """
    if length <= 1 or not x.shape[1]:
        return x
    box, part = np.ones(length), slice(length // 2, length // 2 + x.shape[1])
    known = ~np.isnan(x)
    sums = np.stack([np.convolve(row, box)[part] for row in np.where(known, x, 0.0)])
    counts = np.stack([np.convolve(row, box)[part] for row in known.astype(np.float64)])
    return np.where(counts > 0.5, sums / np.maximum(counts, 1.0), np.nan)


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _through(read: Read, windows: NDArray[np.float64], device: torch.device) -> Array:
    """What a model, in double precision, says of windows [n, C, L], batch by batch; answers [n, ...].

    Double, because the rounding of single precision differs from batch size to batch size, and a stream makes batches
    of its own.
    """
    size = max(1, _ROWS // windows.shape[1])
    parts: list[NDArray[np.float64]] = []
    with torch.inference_mode():
        for begin in range(0, len(windows), size):
            x = torch.from_numpy(np.ascontiguousarray(windows[begin : begin + size])).to(device)
            seen = ~x.isnan()
            mask = None if bool(seen.all()) else seen
            parts.append(read(x.masked_fill(~seen, 0.0), mask).cpu().numpy())
    return np.concatenate(parts)
