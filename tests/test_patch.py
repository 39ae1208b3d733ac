"""Patches: fixed ones are slices, movable ones lie where the predictor says and never outside the window."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from prismts.errors import SettingsError
from prismts.layers.patch import DePatch, UniformPatch, n_patches, pad_end, sample_linear


def grid_sample(x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The plain twin of sample_linear: x [B, C, T] as a picture of one column per channel."""
    n_batch, n_channels, n_timepoints = x.shape
    grid = places.reshape(n_batch * n_channels, 1, -1) / max(n_timepoints - 1, 1) * 2 - 1  # [B*C, 1, M]
    grid = torch.stack([grid, torch.zeros_like(grid)], dim=-1)
    picture = x.reshape(n_batch * n_channels, 1, 1, n_timepoints)
    return F.grid_sample(picture, grid, align_corners=True).reshape(n_batch, n_channels, -1)


def moved(seed: int = 0, **changes) -> DePatch:
    """A DePatch whose patches have moved, as if it had been trained."""
    torch.manual_seed(seed)
    return DePatch(**{"patch_length": 8, "stride": 4, "zero_init": "none", **changes})


# ---- counts, padding, fixed patches


@pytest.mark.parametrize(("n_timepoints", "expected"), [(8, 1), (11, 1), (12, 2), (352, 87), (7, 0)])
def test_the_number_of_patches_by_hand(n_timepoints, expected):
    assert n_patches(n_timepoints, 8, 4) == expected


def test_the_end_is_padded_with_the_last_value():
    assert pad_end(torch.tensor([[1.0, 2.0]]), 3).tolist() == [[1, 2, 2, 2, 2]]
    assert pad_end(torch.tensor([[1.0, 2.0]]), 0).tolist() == [[1, 2]]


def test_uniform_patches_are_slices():
    x = torch.arange(10.0).expand(2, 3, 10)
    patches = UniformPatch(4, 3)(x)
    assert patches.shape == (2, 3, 3, 4)
    assert patches[1, 2].tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    bounds = UniformPatch(4, 3).bounds(x)
    assert bounds.left[0, 0].tolist() == [0, 3, 6]
    assert bounds.right[0, 0].tolist() == [3, 6, 9]


def test_length_and_stride_of_one_make_every_point_a_patch():
    x = torch.randn(2, 3, 5)
    assert torch.equal(UniformPatch(1, 1)(x)[..., 0], x)


# ---- sampling


def test_between_two_and_four_lies_three():
    x = torch.tensor([[[2.0, 4.0, 10.0]]])
    assert sample_linear(x, torch.tensor([[[0.0, 0.5, 1.0, 1.25, 2.0]]])).flatten().tolist() == [2, 3, 4, 5.5, 10]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 9999), st.integers(1, 30), st.integers(1, 12))
def test_sampling_equals_the_interpolation_of_numpy(seed, n_timepoints, n_places):
    rng = np.random.default_rng(seed)
    x, places = rng.standard_normal((2, 3, n_timepoints)), rng.random((2, 3, n_places)) * (n_timepoints - 1)
    places[rng.random(places.shape) < 0.3] = n_timepoints - 1  # the last point has no right neighbor
    got = sample_linear(torch.tensor(x), torch.tensor(places))
    for row in np.ndindex(2, 3):
        np.testing.assert_allclose(got[row], np.interp(places[row], np.arange(n_timepoints), x[row]), atol=1e-12)


def test_sampling_equals_grid_sample_forward_and_backward():
    torch.manual_seed(0)
    answers = []
    x, places = torch.randn(2, 3, 20, dtype=torch.float64), torch.rand(2, 3, 40, dtype=torch.float64) * 19
    weight = torch.randn(2, 3, 40, dtype=torch.float64)
    for sample in (sample_linear, grid_sample):
        inputs = x.clone().requires_grad_(), places.clone().requires_grad_()
        y = sample(*inputs)
        answers.append((y, *torch.autograd.grad((y * weight).sum(), inputs)))
    torch.testing.assert_close(*answers, rtol=1e-8, atol=1e-10)


# ---- movable patches


@pytest.mark.parametrize("n_channels", [1, 3])
def test_patches_begin_uniform(n_channels):
    x = torch.randn(2, 3, 40)
    start, uniform = DePatch(8, 4, n_channels=n_channels), UniformPatch(8, 4)
    torch.testing.assert_close(start(x), uniform(x), atol=1e-5, rtol=0)
    bounds, fixed = start.bounds(x), uniform.bounds(x)
    torch.testing.assert_close(bounds.left, fixed.left[:, : 3 // n_channels])
    torch.testing.assert_close(bounds.right, fixed.right[:, : 3 // n_channels])


def test_a_shift_of_two_and_a_widening_of_one_by_hand():
    patch, x = DePatch(5, 5), torch.arange(20.0)[None, None]
    with torch.no_grad():
        patch.move.bias.copy_(torch.tensor([2.0, 1.0]))
    bounds = patch.bounds(x)
    assert bounds.left.flatten().tolist() == [1, 6, 11, 16]
    assert bounds.right.flatten().tolist() == [7, 12, 17, 19]  # the last one is cut at the end of the window
    assert patch(x)[0, 0, 0].tolist() == [1, 2.5, 4, 5.5, 7]


def test_the_predictor_is_the_strided_convolution_of_the_paper():
    patch, x = moved(n_channels=3), torch.randn(2, 3, 40)
    shift, widen = patch.offsets(x)
    theirs = patch.move(F.gelu(patch.look(x)))  # [B, 2, N]
    torch.testing.assert_close(shift[:, 0], theirs[:, 0])
    torch.testing.assert_close(widen[:, 0], theirs[:, 1])


def test_samples_are_spread_evenly_between_the_bounds():
    patch, x = moved(), torch.randn(2, 3, 40)
    with torch.no_grad():
        patch.move.bias.copy_(torch.tensor([-3.0, 5.0]))
    left, right = (b.detach().numpy() for b in patch.bounds(x))
    for b, c, n in np.ndindex(2, 3, 9):
        places = np.linspace(left[b, c, n], right[b, c, n], 8)
        expected = np.interp(places, np.arange(40), x[b, c])
        np.testing.assert_allclose(patch(x)[b, c, n].detach(), expected, atol=1e-4)


def test_channels_apart_are_read_by_the_same_weights_and_channels_together_move_together():
    x = torch.randn(2, 3, 40)
    apart, together = moved(), moved(n_channels=3)
    torch.testing.assert_close(apart(x)[:, [1]], apart(x[:, [1]]))
    assert together.bounds(x).left.shape == (2, 1, 9)
    ramp = torch.arange(40.0).expand(2, 3, 40)
    places = together(torch.cat([ramp[:, :1], x[:, 1:]], dim=1))[:, 0]  # a ramp tells where it was read
    left, right = together.bounds(torch.cat([ramp[:, :1], x[:, 1:]], dim=1))
    torch.testing.assert_close(places[..., 0], left[:, 0])
    torch.testing.assert_close(places[..., -1], right[:, 0])


EXTREMES = st.sampled_from([0.0, 1.0, -1.0, 1e30, -1e30, 1e-30, 3e38, np.nan, np.inf, -np.inf])


@settings(deadline=None, max_examples=150)
@given(
    st.lists(EXTREMES, min_size=1, max_size=4),
    st.lists(EXTREMES, min_size=1, max_size=4),
    st.sampled_from([1, 3]),
    st.integers(2, 6),
    st.integers(1, 7),
    st.integers(0, 999),
)
def test_no_input_and_no_weight_can_make_a_patch_empty_or_move_it_out_of_the_window(
    odd_inputs, odd_weights, n_channels, patch_length, stride, seed
):
    rng = np.random.default_rng(seed)
    patch = moved(seed, patch_length=patch_length, stride=stride, n_channels=n_channels)
    with torch.no_grad():
        for parameter in patch.parameters():
            chosen = torch.tensor(rng.random(parameter.shape) < 0.3)
            parameter[chosen] = torch.tensor(rng.choice(odd_weights, int(chosen.sum())), dtype=torch.float32)
    x = rng.standard_normal((2, 3, 15)).astype(np.float32)
    chosen = rng.random(x.shape) < 0.3
    x[chosen] = rng.choice(odd_inputs, chosen.sum())
    x = torch.from_numpy(x)
    left, right = patch.bounds(x)
    assert (left >= 0).all() and (left <= right).all() and (right <= 14).all()  # false for NaN as well
    if x.isfinite().all() and x.abs().max() <= 1e30:
        assert patch(x).isfinite().all()


# ---- learning


def trained_one_step(patch: DePatch, x: torch.Tensor) -> DePatch:
    patch = copy.deepcopy(patch)
    optimizer = torch.optim.SGD(patch.parameters(), lr=0.01)
    patch(x).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    patch(x).square().sum().backward()
    return patch


def test_with_only_the_last_layer_at_zero_both_layers_learn():
    patch = trained_one_step(DePatch(8, 4), torch.randn(2, 3, 40))
    assert all(parameter.grad.abs().sum() > 0 for parameter in patch.parameters())


def test_with_all_layers_at_zero_only_one_shift_and_one_width_are_ever_learned():
    patch = trained_one_step(DePatch(8, 4, zero_init="all"), torch.randn(2, 3, 40))
    assert patch.move.bias.grad.abs().sum() > 0
    stuck = patch.look.weight, patch.look.bias, patch.move.weight
    assert all((parameter == 0).all() and (parameter.grad == 0).all() for parameter in stuck)
    shift, _ = patch.offsets(torch.randn(5, 3, 40))
    assert (shift == shift[0, 0, 0]).all()


def test_an_unknown_start_offers_its_neighbor():
    with pytest.raises(SettingsError, match=r"no zero_init named 'lasst'\. Did you mean 'last'\?"):
        DePatch(8, 4, zero_init="lasst")
