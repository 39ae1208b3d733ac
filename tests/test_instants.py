"""Measurements taken at any moment are joined by straight lines, and only between observed neighbors."""

import numpy as np
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from prismts.layers.instants import read_at, seen_at
from prismts.layers.missing import bridge
from prismts.layers.patch import sample_linear


def test_a_place_between_two_measurements_lies_on_the_line_between_them():
    x, times = torch.tensor([[[10.0, 20.0, 50.0]]]), torch.tensor([[0.0, 2.5, 4.0]])
    places = torch.tensor([[[0.0, 1.0, 2.5, 3.0, 9.0, -1.0]]])
    values, seen = read_at(x, None, times, places)
    torch.testing.assert_close(values.flatten(), torch.tensor([10.0, 14.0, 20.0, 30.0, 50.0, 10.0]))
    assert seen.flatten().tolist() == [True, False, True, True, False, False]


def test_rows_that_were_not_observed_are_read_over():
    x, times = torch.tensor([[[0.0, 7e30, 4.0]]]), torch.tensor([[0.0, 1.0, 2.0]])
    observed = torch.tensor([[[True, False, True]]])
    values, seen = read_at(x, observed, times, torch.tensor([[[1.0, 1.5]]]))
    assert values.flatten().tolist() == [2.0, 3.0]
    assert seen.flatten().tolist() == [False, True]


def test_a_channel_that_was_never_observed_is_zero_and_unseen():
    x, observed = torch.full((1, 2, 3), 9.0), torch.tensor([[[False] * 3, [True] * 3]])
    values, seen = read_at(x, observed, torch.arange(3.0)[None], torch.tensor([[[0.0, 1.3], [0.0, 1.3]]]))
    assert values.tolist() == [[[0.0, 0.0], [9.0, 9.0]]]
    assert seen.tolist() == [[[False, False], [True, True]]]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 9999), st.floats(0, 1))
def test_on_a_grid_it_is_the_linear_sample_of_the_bridged_window(seed, share):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, 12, generator=generator, dtype=torch.float64)
    observed = torch.rand(x.shape, generator=generator) < share
    places = 11 * torch.rand(2, 3, 20, generator=generator, dtype=torch.float64)
    values, seen = read_at(x, observed, torch.arange(12.0).expand(2, -1), places)
    torch.testing.assert_close(values, sample_linear(bridge(x, observed), places), rtol=0, atol=1e-12)
    assert torch.equal(seen, seen_at(observed, places))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999))
@example(6517)  # a place .50007 steps from its measurement
def test_numpy_joins_irregular_measurements_by_the_same_lines(seed):
    rng = np.random.default_rng(seed)
    times, values, places = np.sort(rng.random((2, 9)) * 20), rng.normal(size=(2, 1, 9)), rng.random((2, 1, 15)) * 25
    found, seen = read_at(torch.from_numpy(values), None, torch.from_numpy(times), torch.from_numpy(places))
    for i in range(2):
        np.testing.assert_allclose(found[i, 0], np.interp(places[i, 0], times[i], values[i, 0]), atol=1e-12)
        nearest = np.abs(places[i, 0][:, None] - times[i]).min(1)
        assert (seen[i, 0].numpy() == (nearest <= 0.5 + 1e-4)).all()  # the least bit more than half a step


def test_leaving_a_row_out_is_masking_it():
    x, kept = torch.randn(1, 2, 10), torch.tensor([0, 1, 4, 5, 6, 9])
    places = 9 * torch.rand(1, 2, 30)
    observed = torch.zeros(1, 2, 10, dtype=torch.bool)
    observed[..., kept] = True
    left_out = read_at(x[..., kept], None, kept.float()[None], places)
    masked = read_at(x, observed, torch.arange(10.0)[None], places)
    torch.testing.assert_close(left_out, masked)


def test_a_place_receives_the_slope_of_its_line_as_gradient():
    places = torch.tensor([[[1.0]]], requires_grad=True)
    values, _ = read_at(torch.tensor([[[0.0, 6.0]]]), None, torch.tensor([[0.0, 2.0]]), places)
    values.sum().backward()
    assert places.grad is not None and places.grad.item() == 3.0
