"""Soft-DTW against a double loop, against aeon and against DTW; the divergence is 0 at equality and nowhere below."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from prismts.errors import SettingsError, ShapeError
from prismts.layers.soft_dtw import soft_dtw, soft_dtw_divergence

LENGTHS = [(7, 7), (5, 9), (9, 4), (1, 4), (4, 1), (1, 1), (2, 2)]


def pair(n: int, m: int, n_channels: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(3, n_channels, length, generator=generator, dtype=torch.float64, requires_grad=True)
        for length in (n, m)
    )


def plain(x: torch.Tensor, y: torch.Tensor, gamma: float) -> torch.Tensor:
    """The recursion cell by cell, left to autograd: [B]."""
    infinity = torch.full_like(x[:, 0, 0], 1e6)
    sums = {(-1, -1): torch.zeros_like(infinity)}
    for i in range(x.shape[2]):
        for j in range(y.shape[2]):
            before = [sums.get(place, infinity) for place in ((i - 1, j), (i, j - 1), (i - 1, j - 1))]
            soft = -gamma * torch.logsumexp(-torch.stack(before) / gamma, dim=0)
            sums[i, j] = (x[:, :, i] - y[:, :, j]).square().sum(1) + soft
    return sums[x.shape[2] - 1, y.shape[2] - 1]


def test_two_steps_by_hand():
    x, y = torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[0.0, 3.0]]])
    # costs [[0, 9], [1, 4]]: the three paths sum to 0+4, 0+9+4 and 0+1+4
    expected = -torch.logsumexp(-torch.tensor([4.0, 13.0, 5.0]), 0)
    torch.testing.assert_close(soft_dtw(x, y), expected[None])


def test_between_equal_flat_series_it_counts_the_paths():
    x = torch.zeros(1, 1, 4)
    n_paths = torch.tensor([63.0])  # through 4 x 4 cells: the Delannoy number of 3
    torch.testing.assert_close(soft_dtw(x, x, 0.5), -0.5 * n_paths.log())


@pytest.mark.parametrize("gamma", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_value_and_gradient_are_those_of_a_double_loop(lengths, gamma):
    x, y = pair(*lengths)
    weight = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    value, expected = soft_dtw(x, y, gamma), plain(x, y, gamma)
    torch.testing.assert_close(value, expected)
    ours = torch.autograd.grad((weight * value).sum(), (x, y))
    theirs = torch.autograd.grad((weight * expected).sum(), (x, y))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_gradients_are_those_of_small_steps(lengths):
    x, y = pair(*lengths)
    assert gradcheck(lambda a, b: soft_dtw(a, b, 0.3), (x, y))
    assert gradcheck(lambda a, b: soft_dtw_divergence(a, b, 0.3), (x, y))


@pytest.mark.parametrize("lengths", LENGTHS)
def test_aeon_gives_the_absolute_value(lengths):
    distances = pytest.importorskip("aeon.distances")
    x, y = (one.detach() for one in pair(*lengths))
    expected = [distances.soft_dtw_distance(a.numpy(), b.numpy(), gamma=0.7) for a, b in zip(x, y, strict=True)]
    torch.testing.assert_close(soft_dtw(x, y, 0.7).abs(), torch.tensor(expected, dtype=torch.float64))


def test_a_small_gamma_gives_dtw_from_below():
    distances = pytest.importorskip("aeon.distances")
    x, y = (one.detach() for one in pair(12, 9))
    hard = [distances.dtw_distance(a.numpy(), b.numpy()) for a, b in zip(x, y, strict=True)]
    hard = torch.tensor(hard, dtype=torch.float64)
    values = torch.stack([soft_dtw(x, y, gamma) for gamma in (1.0, 0.1, 0.01, 1e-6)])
    assert (values[:-1].diff(dim=0) > 0).all() and (values[:-1] <= hard + 1e-9).all()
    torch.testing.assert_close(values[-1], hard)


def test_only_the_order_of_the_pair_differs_and_the_value_does_not():
    x, y = pair(6, 8)
    torch.testing.assert_close(soft_dtw(x, y, 0.2), soft_dtw(y, x, 0.2))
    torch.testing.assert_close(soft_dtw(x.flip(-1), y.flip(-1), 0.2), soft_dtw(x, y, 0.2))


def test_each_pair_of_a_batch_is_by_itself():
    x, y = pair(6, 8)
    torch.testing.assert_close(torch.cat([soft_dtw(x[i : i + 1], y[i : i + 1]) for i in range(3)]), soft_dtw(x, y))


def test_a_value_that_is_not_a_number_spoils_only_its_own_pair():
    x, y = pair(6, 6)
    broken = x.detach().clone()
    broken[1, 0, 2] = torch.nan
    broken.requires_grad_()
    value = soft_dtw(broken, y)
    assert value.isnan().tolist() == [False, True, False]
    value.sum().backward()
    assert broken.grad[[0, 2]].isfinite().all() and broken.grad[1].isnan().any()


def test_a_far_level_costs_no_digits_of_the_gradient():
    x, y = pair(20, 20)
    (expected,) = torch.autograd.grad(soft_dtw(x, y).sum(), x)
    low = [(1000 + one).float().detach().requires_grad_() for one in (x, y)]
    (gradient,) = torch.autograd.grad(soft_dtw(*low).sum(), low[0])
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_what_comes_back_has_the_dtype_that_went_in(dtype):
    x = torch.linspace(0, 1, 12, dtype=dtype).reshape(1, 1, 12).requires_grad_()
    value = soft_dtw_divergence(x, torch.zeros_like(x))
    value.sum().backward()
    assert value.dtype == x.grad.dtype == dtype
    assert value.isfinite().all() and x.grad.isfinite().all()


# ---- the divergence


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 9), st.sampled_from([0.01, 0.3, 5.0]))
@settings(max_examples=60, deadline=None)
def test_the_divergence_is_never_below_zero(seed, n, m, gamma):
    x, y = pair(n, m, seed=seed)
    assert (soft_dtw_divergence(x, y, gamma) > -1e-9).all()


def test_at_equality_the_divergence_is_zero_and_flat_where_soft_dtw_is_not():
    x, _ = pair(9, 9)
    same = x.detach().clone()
    value = soft_dtw_divergence(x, same, 0.5)
    (slope,) = torch.autograd.grad(value.sum(), x)
    torch.testing.assert_close(value, torch.zeros_like(value))
    torch.testing.assert_close(slope, torch.zeros_like(slope))
    assert (soft_dtw(x, same, 0.5) < 0).all()
    assert torch.autograd.grad(soft_dtw(x, same, 0.5).sum(), x)[0].abs().max() > 0.01


def test_descending_the_divergence_finds_the_series_and_soft_dtw_stops_beside_it():
    _, y = pair(10, 10)
    ends = []
    for loss in (soft_dtw_divergence, soft_dtw):
        x = (y.detach() + 0.1).requires_grad_()
        optimizer = torch.optim.Adam([x], lr=0.02)
        for _ in range(150):
            optimizer.zero_grad()
            loss(x, y.detach(), 0.5).sum().backward()
            optimizer.step()
        ends.append(float((x - y).detach().abs().max()))
    assert ends[0] < 0.02
    assert ends[1] > 0.2


# ---- errors


def test_shapes_that_do_not_fit_are_said():
    with pytest.raises(ShapeError, match=r"but got \[2, 3, 4\] and \[2, 1, 4\]"):
        soft_dtw(torch.zeros(2, 3, 4), torch.zeros(2, 1, 4))
    with pytest.raises(ShapeError, match=r"Pass one channel as x\[:, None, :\]"):
        soft_dtw_divergence(torch.zeros(2, 4), torch.zeros(2, 4))


@pytest.mark.parametrize("gamma", [0, -1.0, float("nan")])
def test_gamma_is_above_zero(gamma):
    with pytest.raises(SettingsError, match="gamma softens the minimum and is above 0"):
        soft_dtw(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2), gamma)


@pytest.mark.gpu
def test_another_device_gives_the_same_numbers():
    x, y = pair(30, 20)
    far = [one.detach().cuda().requires_grad_() for one in (x, y)]
    torch.testing.assert_close(soft_dtw(*far).cpu(), soft_dtw(x, y))
    gradients = torch.autograd.grad(soft_dtw_divergence(*far).sum(), far)
    expected = torch.autograd.grad(soft_dtw_divergence(x, y).sum(), (x, y))
    torch.testing.assert_close([one.cpu() for one in gradients], list(expected))
