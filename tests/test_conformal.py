"""Conformal offsets: by hand on a few numbers, and as often right as they claim on data like those they have seen."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prismts.estimators.conformal import conformal_offsets
from prismts.layers.normalize import InstanceNorm
from prismts.windows import Batch


def batch_of(context: np.ndarray, target: np.ndarray, seen: np.ndarray | None = None) -> Batch:
    """Contexts [B, C, T] and targets [B, C, H] as a batch."""
    tensors = (torch.tensor(part, dtype=torch.float32) for part in (context, target))
    return Batch(*tensors, None, None if seen is None else torch.tensor(seen), torch.zeros(len(target)))


def swings(scale: np.ndarray) -> np.ndarray:
    """Contexts [B, C, 2] of the given scales [B, C]."""
    return scale[..., None] * np.array([-1.0, 1.0])


def test_the_offset_is_the_quantile_of_what_was_missed_by_hand():
    target = np.array([1.0, 2, 3, 4, 5])[:, None, None]  # five windows of one channel and one step
    forecast = np.concatenate([0 * target, 0 * target + 10], axis=1)[:, :, None]  # levels at 0 and 10
    offsets = conformal_offsets([(batch_of(swings(np.ones((5, 1))), target), forecast)], np.array([0.25, 0.75]))
    assert offsets.shape == (1, 2, 1, 1)
    np.testing.assert_allclose(offsets[0, :, 0, 0], [2, 4 - 10], rtol=1e-4)  # of 1 to 5, a quarter lies below 2


def test_offsets_are_in_units_of_the_scale_of_the_window():
    scale = np.array([1.0, 10, 100])[:, None]
    target = 2 * scale[..., None]  # every target is two scales above the forecast of zero
    offsets = conformal_offsets([(batch_of(swings(scale), target), np.zeros((3, 1, 1, 1)))], np.array([0.5]))
    np.testing.assert_allclose(offsets, [[[[2]]]], rtol=1e-4)


def test_each_channel_has_its_own_offsets_and_one_that_was_never_observed_none():
    target = np.stack([np.full((4, 3), 1.0), np.full((4, 3), -7.0), np.full((4, 3), 99.0)], axis=1)
    seen = np.ones_like(target, dtype=bool)
    seen[:, 2] = False
    target[0, 1], seen[0, 1] = 1e6, False  # what was not observed does not count
    batch = batch_of(swings(np.ones((4, 3))), target, seen)
    offsets = conformal_offsets([(batch, np.zeros((4, 2, 3, 3)))], np.array([0.1, 0.9]))
    np.testing.assert_allclose(offsets[0, ..., 0], [[1, -7, 0], [1, -7, 0]], rtol=1e-4)


def test_offsets_do_not_depend_on_how_the_windows_were_batched():
    rng = np.random.default_rng(0)
    context, target = rng.standard_normal((9, 2, 20)), rng.standard_normal((9, 2, 4))
    forecast = rng.standard_normal((9, 3, 2, 4))
    levels = np.array([0.1, 0.5, 0.9])
    parts = [(batch_of(context[cut], target[cut]), forecast[cut]) for cut in (slice(0, 4), slice(4, 9))]
    np.testing.assert_array_equal(
        conformal_offsets(parts, levels), conformal_offsets([(batch_of(context, target), forecast)], levels)
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_on_fresh_data_of_the_same_kind_every_level_lies_above_its_share(seed):
    rng, levels = np.random.default_rng(seed), np.array([0.05, 0.2, 0.5, 0.8, 0.95])

    def draw(n: int) -> tuple[Batch, np.ndarray]:
        """Skewed noise on windows of every scale, and quantiles that are off by far and in the wrong places."""
        scale = 10 ** rng.uniform(-1, 2, (n, 2))
        context = scale[..., None] * rng.standard_normal((n, 2, 50))
        own = InstanceNorm()(torch.tensor(context))[1].scale.numpy()  # [n, C, 1]
        target = own * (rng.gamma(2.0, size=(n, 2, 1)) + np.array([[0], [5]]))
        forecast = own[:, None] * np.linspace(-0.3, 0.3, 5)[:, None, None] + np.zeros((n, 5, 2, 1))
        return batch_of(context, target), forecast

    n = 2000
    rounds = conformal_offsets([draw(n)], levels)  # [R, Q, C, 1]
    batch, forecast = draw(n)
    scale = InstanceNorm()(batch.context)[1].scale[:, None].numpy()
    for offsets in rounds:
        forecast = np.sort(forecast + scale * offsets, axis=1)
    below = (batch.target.numpy()[:, None] <= forecast).mean((0, 3))  # [Q, C]
    error = np.sqrt(2 * levels * (1 - levels) / n)[:, None]  # of the quantile, and of the count
    assert (np.abs(below - levels[:, None]) < 4 * error).all()


@given(st.integers(0, 10_000))
def test_levels_keep_their_shares_of_what_they_were_calibrated_on_also_where_forecasts_cross(seed):
    """Offsets that move levels past each other, which are then put in order, would leave each with another's share."""
    rng, levels = np.random.default_rng(seed), np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    context, target = rng.standard_normal((400, 1, 50)), rng.standard_normal((400, 1, 1))
    forecast = np.sort(rng.standard_normal((400, 5, 1, 1)) * rng.uniform(0.01, 1), axis=1)
    scale = InstanceNorm()(torch.tensor(context))[1].scale[:, None].numpy()
    for offsets in conformal_offsets([(batch_of(context, target), forecast)], levels):
        forecast = np.sort(forecast + scale * offsets, axis=1)
    below = (target[:, None] <= forecast).mean((0, 2, 3))
    np.testing.assert_allclose(below, levels, atol=0.02)
