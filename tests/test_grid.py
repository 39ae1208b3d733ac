"""Convolutions over grids of any period: both forms say the same, forward and backward."""

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prismts.layers import grid
from prismts.layers.grid import conv_grid, conv_grid_plain
from prismts.layers.paths import written_out


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("by_taps", [True, False], ids=["taps", "waves"])
@settings(deadline=None, max_examples=25)
@given(n_steps=st.integers(2, 40), reach=st.integers(0, 5), data=st.data())
def test_waves_and_taps_say_what_gathered_neighbors_say_forward_and_backward(by_taps, n_steps, reach, data):
    periods = torch.tensor(data.draw(st.lists(st.integers(1, n_steps), min_size=1, max_size=6)))
    x, kernel = drawn(len(periods), n_steps, 3), drawn(2, 3, 2 * reach + 1, 2 * reach + 1, seed=1)
    weight = drawn(len(periods), n_steps, 2, seed=2)
    found = []
    for form in (conv_grid, conv_grid_plain):
        inputs = [one.clone().requires_grad_() for one in (x, kernel)]
        with mock.patch.object(grid, "_is_sooner_by_taps", lambda *_: by_taps):
            y = form(inputs[0], periods, inputs[1])
        found.append((y, *torch.autograd.grad((y * weight).sum(), inputs)))
    for fast, plain in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain)


def test_a_kernel_that_moves_one_step_moves_within_rows_and_one_that_moves_a_row_moves_a_period():
    x = torch.arange(1.0, 7.0)[None, :, None]  # 1 2 3 / 4 5 6
    right, below = torch.zeros(2, 1, 1, 3, 3)
    right[..., 1, 2] = 1.0
    below[..., 2, 1] = 1.0
    torch.testing.assert_close(conv_grid(x, torch.tensor([3]), right).flatten(), torch.tensor([2.0, 3, 0, 5, 6, 0]))
    torch.testing.assert_close(conv_grid(x, torch.tensor([3]), below).flatten(), torch.tensor([4.0, 5, 6, 0, 0, 0]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_comes_out_has_the_type_of_what_went_in(dtype):
    x, kernel, periods = drawn(2, 12, 3).to(dtype), drawn(4, 3, 5, 5, seed=1).to(dtype), torch.tensor([4, 5])
    y = conv_grid(x, periods, kernel)
    assert y.dtype == dtype
    with written_out():
        torch.testing.assert_close(
            conv_grid(x, periods, kernel), y, rtol=0.05, atol=0.3 if dtype != torch.float32 else 1e-4
        )


def test_square_grids_of_many_steps_go_through_waves_and_flat_ones_through_taps():
    taps = torch.empty(32, 16, 11, 11)
    assert not grid._is_sooner_by_taps(taps, 18, 24)
    assert grid._is_sooner_by_taps(taps[:, :, 5:6], 1, 432)


def test_what_a_forecast_left_behind_serves_a_training():
    x, kernel, periods = drawn(2, 60, 3), drawn(4, 3, 5, 5, seed=1), torch.tensor([7, 9])
    grid._waves.cache_clear()
    with torch.inference_mode():
        conv_grid(x, periods, kernel)
    inputs = x.requires_grad_(), kernel.requires_grad_()
    torch.autograd.grad(conv_grid(x, periods, kernel).sum(), inputs)


def test_windows_too_long_for_waves_are_gathered(monkeypatch):
    x, kernel, periods = drawn(2, 60, 3), drawn(4, 3, 5, 5, seed=1), torch.tensor([7, 9])
    waves = conv_grid(x, periods, kernel)
    monkeypatch.setattr(grid, "LONGEST", 59)
    monkeypatch.delattr(grid, "_conv_of_period")
    torch.testing.assert_close(conv_grid(x, periods, kernel), waves)
