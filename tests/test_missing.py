"""Bridging: straight lines between observed neighbors, as numpy draws them."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prismts.layers.missing import bridge


def test_a_gap_between_two_and_eight_is_bridged_by_four_and_six():
    x = torch.tensor([torch.nan, 2.0, torch.nan, torch.nan, 8.0, torch.nan])
    assert bridge(x, ~x.isnan()).tolist() == [2, 2, 4, 6, 8, 8]


def test_without_a_mask_the_very_same_tensor_returns():
    x = torch.randn(3, 4)
    assert bridge(x, None) is x


def test_where_nothing_was_observed_the_result_is_zero():
    x = torch.full((2, 5), torch.nan)
    assert (bridge(x, torch.zeros(2, 5, dtype=torch.bool)) == 0).all()


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 10_000), st.integers(1, 20), st.floats(0, 1), st.sampled_from([np.nan, np.inf, -1e30]))
def test_every_row_equals_the_interpolation_of_numpy(seed, n, share, hidden):
    rng = np.random.default_rng(seed)
    values, observed = rng.standard_normal((2, 3, n)), rng.random((2, 3, n)) < share
    got = bridge(torch.tensor(np.where(observed, values, hidden)), torch.tensor(observed)).numpy()
    for place in np.ndindex(2, 3):
        seen = np.flatnonzero(observed[place])
        expected = np.interp(np.arange(n), seen, values[place][seen]) if seen.size else np.zeros(n)
        np.testing.assert_allclose(got[place], expected, atol=1e-12)


def test_the_gradient_of_a_bridged_value_goes_to_its_two_neighbors():
    x = torch.tensor([1.0, 0.0, 0.0, 0.0, 5.0], requires_grad=True)
    bridge(x, torch.tensor([True, False, False, False, True]))[1].backward()
    assert x.grad.tolist() == [0.75, 0, 0, 0, 0.25]
