"""Dropout from cheap bytes: the right share, the right scale, the right gradient."""

import pytest
import torch

from prismts.layers.dropout import Dropout, draw


def mask_of(x, p):
    return draw((p, x.numel()))[0].mask(x)


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.9])
def test_the_kept_share_is_one_minus_p_and_what_is_kept_is_scaled_up(p):
    torch.manual_seed(0)
    mask = mask_of(torch.empty(200_000), p)
    assert sorted(set(mask.tolist())) == pytest.approx([0, 1 / (1 - round(256 * p) / 256)])  # one byte decides
    assert float((mask > 0).float().mean()) == pytest.approx(1 - p, abs=0.005)  # 4 standard errors


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_dropped_is_exactly_zero_and_what_is_kept_all_equal(dtype):
    mask = mask_of(torch.empty(1000, dtype=dtype), 0.2)  # 256 / 205 is no number of bf16
    assert set(mask.tolist()) == {0.0, torch.tensor(256 / 205, dtype=dtype).item()}


def test_the_mean_is_preserved():
    torch.manual_seed(0)
    assert float(Dropout(0.3)(torch.full((1000, 500), 2.0)).mean()) == pytest.approx(2, abs=0.01)


def test_neighbors_are_dropped_independently():
    torch.manual_seed(0)
    kept = (mask_of(torch.empty(400_000), 0.5) > 0).float().view(-1, 8)  # eight values share one draw
    together = kept.T @ kept / len(kept)
    torch.testing.assert_close(together, 0.25 + 0.25 * torch.eye(8), atol=0.01, rtol=0)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (2, 3, 4), (0, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_mask_has_the_shape_and_type_of_what_it_masks(shape, dtype):
    mask = mask_of(torch.empty(shape, dtype=dtype), 0.5)
    assert (mask.shape, mask.dtype) == (shape, dtype)


def test_a_transposed_input_is_masked_value_by_value():
    y = Dropout(0.5)(torch.ones(6, 4).T)
    assert y.shape == (4, 6)
    assert set(y.flatten().tolist()) <= {0, 2}


def test_equal_seeds_give_equal_masks_and_other_seeds_others():
    x = torch.ones(1000)
    masks = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        masks.append(Dropout(0.5)(x))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_evaluation_and_p_zero_return_the_very_same_tensor_and_draw_nothing():
    x, state = torch.randn(10), torch.get_rng_state()
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x
    assert torch.equal(torch.get_rng_state(), state)


def test_the_gradient_is_the_mask():
    x = torch.full((1000,), 3.0, requires_grad=True)
    y = Dropout(0.4)(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad, (y / 3).detach())


def test_p_so_near_one_that_a_byte_rounds_it_up_still_drops():
    torch.manual_seed(0)
    assert float((mask_of(torch.empty(10_000), 1 - 1e-7) > 0).float().mean()) < 0.01


def test_p_one_drops_everything():
    assert (Dropout(1.0)(torch.ones(100)) == 0).all()
