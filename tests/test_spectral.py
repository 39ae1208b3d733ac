"""Bands of frequency share out the variance of a window, and mean the same in windows of any length."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prismts.layers.spectral import LOWEST, SpectrumBranch, band_energies


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 90), st.integers(2, 12), st.integers(0, 99))
def test_the_bands_sum_to_the_variance(n_timepoints, n_bands, seed):
    x = torch.randn(2, 3, n_timepoints, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(band_energies(x, n_bands).sum(-1), x.var(-1, correction=0))


@pytest.mark.parametrize("n_timepoints", [64, 128, 192, 1024])
def test_a_wave_at_the_center_of_a_band_is_in_that_band_whatever_the_length(n_timepoints):
    n_bands = 10  # octaves: 1/1024, 1/512 ... 1/2 cycles per step
    x = math.sqrt(2) * torch.sin(2 * math.pi * torch.arange(n_timepoints, dtype=torch.float64) / 16)
    energy = band_energies(x[None, None], n_bands)[0, 0]
    assert energy.argmax() == round(math.log2(1 / 16 / LOWEST)) == 6
    torch.testing.assert_close(energy[6], torch.ones((), dtype=torch.float64))


def test_a_wave_between_two_centers_counts_for_both():
    n = 1024
    between = 91  # cycles: the octaves 64 and 128 are almost equally far
    x = math.sqrt(2) * torch.sin(2 * math.pi * between * torch.arange(n, dtype=torch.float64) / n)
    energy = band_energies(x[None, None], 10)[0, 0]
    share = math.log2(between / 64)
    torch.testing.assert_close(energy[6:8], torch.tensor([1 - share, share], dtype=torch.float64))


def test_a_single_step_has_no_rhythm():
    assert band_energies(torch.ones(1, 1, 1), 4).tolist() == [[[0.0] * 4]]


def test_a_new_branch_changes_no_token():
    tokens = torch.randn(2, 3, 5, 8)
    assert torch.equal(SpectrumBranch(4, 8)(tokens, torch.randn(2, 3, 40)), tokens)


def test_every_token_is_told_the_same_of_its_window_and_nothing_of_other_channels():
    torch.manual_seed(0)
    branch = SpectrumBranch(4, 8)
    torch.nn.init.normal_(branch.tell.weight)
    tokens, window = torch.ones(1, 2, 5, 8), torch.randn(1, 2, 40)
    told = branch(tokens, window)
    assert torch.equal(told, told[:, :, :1].expand_as(told))
    window[:, 1] *= 3
    assert torch.equal(branch(tokens, window)[:, 0], told[:, 0])
    assert not torch.allclose(branch(tokens, window)[:, 1], told[:, 1])
