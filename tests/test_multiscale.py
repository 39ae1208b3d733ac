"""Patches of several lengths stand on one grid of tokens, in windows of any length."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prismts.layers.multiscale import MultiScalePatch, Points


def patch(lengths=(4, 10), stride: int = 3, *, deformable: bool = True, moved: bool = False) -> MultiScalePatch:
    torch.manual_seed(0)
    layer = MultiScalePatch(lengths, stride, 6, deformable=deformable)
    if moved:
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape))
    return layer.eval()


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 9))
@settings(deadline=None, max_examples=60)
def test_the_tokens_cover_every_step_and_none_is_left_over(n_timepoints, length, stride):
    layer = patch((length, 2 * length), stride, deformable=False)
    n = layer.n_tokens(n_timepoints)
    assert (n - 1) * stride + length >= n_timepoints
    assert n == 1 or (n - 2) * stride + length < n_timepoints
    assert layer(torch.randn(1, 2, n_timepoints)).shape == (1, 2, n, 6)


def test_patches_of_all_lengths_have_the_same_middle():
    short, long = patch(deformable=False).bounds(torch.randn(1, 1, 16))
    assert short.left.flatten().tolist() == [0, 3, 6, 9, 12]
    assert short.right.flatten().tolist() == [3, 6, 9, 12, 15]
    torch.testing.assert_close(long.left + long.right, short.left + short.right)
    torch.testing.assert_close(long.right - long.left, short.right - short.left + 6)


def test_before_training_deformable_patches_lie_where_uniform_ones_do():
    x, layer = torch.randn(2, 3, 16), patch()
    uniform = patch(deformable=False)
    uniform.load_state_dict({k: v for k, v in layer.state_dict().items() if not k.startswith("cuts.")})
    torch.testing.assert_close(layer(x), uniform(x))


def test_before_training_a_token_is_the_mean_of_its_patches():
    x, layer = torch.randn(1, 1, 16), patch(deformable=False)
    middle = layer(x)[0, 0, 2]
    short = layer.embed[0](x[0, 0, 6:10]) + layer.bias[0]
    long = layer.embed[1](x[0, 0, 3:13]) + layer.bias[1]
    torch.testing.assert_close(middle, (short + long) / 2)


def test_a_single_length_has_nothing_to_choose_from():
    layer = patch((4,))
    assert layer.weigh is None
    x = torch.randn(1, 1, 16)
    torch.testing.assert_close(layer(x)[0, 0, 0], layer.embed[0](x[0, 0, :4]) + layer.bias[0])


def test_the_bias_counts_by_the_share_that_was_observed():
    layer = patch((4,), deformable=False)
    with torch.no_grad():
        layer.embed[0].weight.zero_()
    observed = torch.ones(1, 1, 16, dtype=torch.bool)
    observed[..., 1:4] = False
    tokens = layer(torch.zeros(1, 1, 16), observed)[0, 0]
    shares = torch.tensor([0.25, 0.75, 1.0, 1.0, 1.0])  # of steps 0-3, 3-6, 6-9 ...
    torch.testing.assert_close(tokens, shares[:, None] * layer.bias[0])


@pytest.mark.parametrize("deformable", [True, False])
def test_measurements_on_the_grid_give_the_tokens_of_the_window(deformable):
    x, layer = torch.randn(3, 2, 16), patch(deformable=deformable, moved=True)
    points = Points(x, None, torch.arange(16.0).expand(3, -1))
    torch.testing.assert_close(layer(x, None, points), layer(x), rtol=1e-5, atol=1e-6)
    whole = torch.ones(x.shape, dtype=torch.bool)
    torch.testing.assert_close(layer(x, whole), layer(x), rtol=1e-5, atol=1e-6)


def test_deformable_patches_read_the_measurements_and_uniform_ones_the_grid():
    window, raw = torch.zeros(1, 1, 16), torch.zeros(1, 1, 17)
    times = torch.cat([torch.arange(8.0), torch.tensor([7.5]), torch.arange(8.0, 16.0)])[None]
    raw[..., 8] = 5.0  # between two steps of the grid
    points = Points(raw, None, times)
    seen = torch.ones(1, 1, 16, dtype=torch.bool)
    deformable, uniform = patch(moved=True), patch(deformable=False, moved=True)
    assert torch.equal(uniform(window, seen, points), uniform(window, seen))
    assert not torch.allclose(deformable(window, seen, points), deformable(window, seen))
