"""The dominant period: known where it is known, the fallback where there is none."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prismts.data.bridging import bridged
from prismts.data.period import dominant_period
from prismts.data.synthetic import random_walk, sine_mixture
from prismts.errors import DataError, ShapeError
from prismts.layers.missing import bridge

T = np.arange(2000)


@pytest.mark.parametrize("period", [7, 24, 50, 144, 288])
def test_the_period_of_a_noisy_sine_is_found(period):
    noise = 0.2 * np.random.default_rng(0).standard_normal(T.size)
    assert abs(dominant_period((np.sin(2 * np.pi * T / period) + noise)[None]) - period) <= 0.04 * period


def test_of_two_cycles_the_shorter_counts_where_it_is_the_stronger():
    assert dominant_period(sine_mixture(3000, periods=(24.0, 168.0), amplitudes=(1.0, 0.3), noise=0.1).values) == 24


@pytest.mark.parametrize("seed", range(8))
def test_noise_a_random_walk_and_a_noisy_one_have_no_period(seed):
    """The wiggles of a slow decay are none, and stand out of it less than those of white noise may."""
    noise = np.random.default_rng(seed).standard_normal((1, 2000))
    walk = random_walk(2000, seed=seed).values
    for values in (noise, walk, walk + 0.5 * noise):
        assert dominant_period(values) == 125
        assert dominant_period(values, fallback=77) == 77


def test_a_constant_and_a_straight_line_have_no_period():
    assert dominant_period(np.full((2, 500), 3.0), fallback=77) == 77
    assert dominant_period(np.zeros((2, 500))) == dominant_period(0.1 * T[None]) == 125


@pytest.mark.parametrize(("period", "expected"), [(4, 125), (5, 125), (6, 6), (303, 303), (304, 125), (350, 125)])
def test_a_period_is_from_6_to_303_steps(period, expected):
    assert dominant_period(np.sin(2 * np.pi * np.arange(100 * period) / period)[None]) == expected


def test_a_trend_does_not_hide_the_period():
    x = np.sin(2 * np.pi * T / 48)
    assert dominant_period(x[None]) == dominant_period((x + 0.1 * T)[None]) == 48


def test_units_gaps_and_constant_channels_change_nothing():
    x = np.sin(2 * np.pi * T / 36)[None]
    assert dominant_period(1e6 * x - 5e7) == dominant_period(1e-20 * x) == 36
    assert dominant_period(np.concatenate([x, np.full_like(x, 4.0)])) == 36
    holed = x.copy()
    holed[:, 500:510] = np.nan
    assert dominant_period(holed) == 36


def test_the_period_is_at_most_half_the_series():
    assert dominant_period(np.random.default_rng(0).standard_normal((1, 60))) == 30


def test_channels_vote_with_their_autocorrelations():
    rng = np.random.default_rng(0)
    x = np.stack([np.sin(2 * np.pi * T / 30 + phase) for phase in (0, 1, 2)] + [rng.standard_normal(T.size)])
    assert dominant_period(x) == dominant_period(x[::-1]) == 30


def test_a_series_of_three_steps_is_too_short():
    with pytest.raises(DataError, match="at least 4 steps, but got 3"):
        dominant_period(np.zeros((1, 3)))


def test_a_single_axis_and_infinite_values_are_refused():
    with pytest.raises(ShapeError, match=r"\[channel, time\], but got shape \[2000\].*values\[None, :\]"):
        dominant_period(T)
    with pytest.raises(DataError, match="channel 1 has inf at step 2"):
        bridged([[0.0, 1.0, 2.0], [0.0, 1.0, np.inf]])


def test_a_gap_is_bridged_by_hand():
    x = [[np.nan, 1.0, np.nan, np.nan, 4.0, np.nan], [np.nan] * 6]
    np.testing.assert_array_equal(bridged(x), [[1, 1, 2, 3, 4, 4], [0] * 6])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(-100, 100)), min_size=1, max_size=30))
def test_arrays_are_bridged_as_tensors_are(row):
    x = np.array([[np.nan if v is None else v for v in row]])
    as_tensor = torch.from_numpy(x)
    np.testing.assert_allclose(bridged(x), bridge(as_tensor, ~torch.isnan(as_tensor)).numpy(), atol=1e-9)


def test_the_callers_values_stay_as_they_are():
    x = np.array([[1.0, np.nan, 3.0]])
    bridged(x)
    assert np.isnan(x[0, 1])
