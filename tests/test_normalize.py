"""Instance normalization: a round trip that only looks at what was observed."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prismts.layers.normalize import InstanceNorm


def test_two_and_four_become_minus_one_and_one():
    x, stats = InstanceNorm()(torch.tensor([[[2.0, 4.0]]]))
    torch.testing.assert_close(x, torch.tensor([[[-1.0, 1.0]]]), atol=1e-4, rtol=0)
    assert stats.mean.item() == 3
    assert abs(stats.scale.item() - 1) < 1e-5


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 1000), st.floats(-1e4, 1e4), st.floats(1e-2, 1e4))
def test_the_way_there_and_back_returns_every_window(seed, level, scale):
    x = level + scale * torch.randn(2, 3, 20, generator=torch.Generator().manual_seed(seed))
    normalized, stats = InstanceNorm()(x)
    torch.testing.assert_close(InstanceNorm.inverse(normalized, stats), x, rtol=1e-4, atol=1e-4 * scale)


def test_normalized_windows_have_mean_zero_and_scale_one():
    x, _ = InstanceNorm()(5 + 3 * torch.randn(4, 2, 50))
    torch.testing.assert_close(x.mean(-1), torch.zeros(4, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.var(-1, correction=0), torch.ones(4, 2), atol=1e-4, rtol=0)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 1000), st.floats(0.05, 0.95))
def test_with_a_mask_only_the_observed_values_count(seed, share):
    rng = np.random.default_rng(seed)
    x, observed = rng.standard_normal((2, 3, 15)), rng.random((2, 3, 15)) < share
    hidden = np.where(observed, x, rng.choice([np.nan, np.inf, 1e30], size=x.shape))
    got, stats = InstanceNorm()(torch.tensor(hidden), torch.tensor(observed))
    for b, c in np.ndindex(2, 3):
        seen = x[b, c, observed[b, c]]
        mean, scale = (seen.mean(), np.sqrt(seen.var() + InstanceNorm.eps)) if seen.size else (0.0, 1.0)
        np.testing.assert_allclose(stats.mean[b, c, 0], mean, atol=1e-12)
        np.testing.assert_allclose(stats.scale[b, c, 0], scale, rtol=1e-12)
        np.testing.assert_allclose(got[b, c][observed[b, c]], (seen - mean) / scale, atol=1e-9)
        assert (got[b, c][~observed[b, c]] == 0).all()


def test_a_mask_that_hides_nothing_changes_nothing():
    x = torch.randn(2, 3, 20)
    bare, masked = InstanceNorm()(x), InstanceNorm()(x, torch.ones_like(x, dtype=torch.bool))
    torch.testing.assert_close(masked[0], bare[0])
    torch.testing.assert_close(tuple(masked[1]), tuple(bare[1]))


def test_a_flat_window_stays_finite_and_comes_back():
    x, stats = InstanceNorm()(torch.full((1, 1, 8), 3.0))
    assert (x == 0).all()
    assert (InstanceNorm.inverse(x, stats) == 3).all()


def test_a_window_of_which_nothing_was_observed_keeps_mean_zero_and_scale_one():
    x, stats = InstanceNorm()(torch.full((1, 1, 8), torch.nan), torch.zeros(1, 1, 8, dtype=torch.bool))
    assert (x == 0).all()
    assert (stats.mean, stats.scale) == (0, 1)


def test_one_instance_serves_two_batches_in_turn_since_it_remembers_neither():
    norm = InstanceNorm()
    small, large = torch.randn(2, 1, 10), 100 + 50 * torch.randn(2, 1, 10)
    x, x_stats = norm(small)
    y, y_stats = norm(large)
    torch.testing.assert_close(norm.inverse(x, x_stats), small)
    torch.testing.assert_close(norm.inverse(y, y_stats), large)
    assert not norm.state_dict()
