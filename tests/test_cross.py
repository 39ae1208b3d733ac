"""Messages between paths: one convolution for a whole batch is the loop over its cases; averages by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from prismts.errors import SettingsError
from prismts.layers.cross import (
    AverageMessage,
    CrossModalAttention,
    DynamicMessage,
    FullMessage,
    StaticMessage,
    dynamic_depthwise,
    moving_average,
)


def randn(*shape: int, seed: int = 0, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def case_by_case(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """The plain twin: every case, row, token and tap in its turn."""
    n_cases, width, n_tokens = x.shape
    k = kernel.shape[-1]
    left = (k - 1) // 2
    rows = []
    for b in range(n_cases):
        for d in range(width):
            for n in range(n_tokens):
                taps = kernel[b, d] if kernel.ndim == 3 else kernel[b, d, n]
                places = [(i, n - left + i) for i in range(k) if 0 <= n - left + i < n_tokens]
                rows.append(sum((taps[i] * x[b, d, place] for i, place in places), torch.zeros((), dtype=x.dtype)))
    return torch.stack(rows).view(x.shape)


# ---- the dynamic depthwise convolution


def test_a_row_meets_its_own_kernel_by_hand():
    x = torch.tensor([[[1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0]]])
    kernel = torch.tensor([[[10.0, 1.0, 100.0]], [[0.0, 2.0, 0.0]]])
    assert dynamic_depthwise(x, kernel).tolist() == [[[201, 312, 23]], [[2, 4, 6]]]


def test_a_token_meets_its_own_kernel_by_hand():
    x = torch.tensor([[[1.0, 2.0, 3.0]]])
    kernel = torch.tensor([[[[0.0, 0, 1], [1, 0, 0], [5, 1, 7]]]])
    assert dynamic_depthwise(x, kernel).tolist() == [[[2, 1, 13]]]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), st.integers(1, 5), st.booleans(), st.integers(0, 999))
def test_one_operation_is_the_loop_over_cases_forward_and_backward(n_cases, width, n_tokens, k, per_token, seed):
    shape = (n_cases, width, n_tokens, k) if per_token else (n_cases, width, k)
    x, kernel = randn(n_cases, width, n_tokens, seed=seed), randn(*shape, seed=seed + 1)
    weight = randn(n_cases, width, n_tokens, seed=seed + 2)
    answers = []
    for f in (dynamic_depthwise, case_by_case):
        a, b = x.clone().requires_grad_(), kernel.clone().requires_grad_()
        y = f(a, b)
        (y * weight).sum().backward()
        answers.append((y, a.grad, b.grad))
    torch.testing.assert_close(*answers, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 3), (2, 3, 5, 3)])
def test_the_gradients_are_those_of_finite_differences(shape):
    x, kernel = randn(2, 3, 5, dtype=torch.float64), randn(*shape, seed=1, dtype=torch.float64)
    assert torch.autograd.gradcheck(dynamic_depthwise, (x.requires_grad_(), kernel.requires_grad_()))


def test_what_an_exported_model_computes_is_the_same(monkeypatch):
    x, kernel = randn(4, 3, 6), randn(4, 3, 3, seed=1)
    expected = dynamic_depthwise(x, kernel)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(dynamic_depthwise(x, kernel), expected)


# ---- messages


@pytest.mark.parametrize("per_token", [False, True])
def test_generated_kernels_follow_the_state_of_their_own_case(per_token):
    torch.manual_seed(0)
    message, sender = DynamicMessage(4, 3), randn(3, 4, 6)
    state = randn(3, 4, 6, seed=1) if per_token else randn(3, 4, seed=1)
    said, kernels = message(sender, state)
    assert kernels.shape == ((3, 4, 6, 3) if per_token else (3, 4, 3))
    torch.testing.assert_close(said, case_by_case(sender, kernels))
    changed = state.clone()
    changed[1] = randn(*state.shape[1:], seed=2)
    again, _ = message(sender, changed)
    assert not torch.allclose(again[1], said[1])
    torch.testing.assert_close(again[[0, 2]], said[[0, 2]])


def test_a_kernel_per_token_of_one_repeated_state_is_the_kernel_of_that_state():
    torch.manual_seed(0)
    message, sender, state = DynamicMessage(4, 3), randn(2, 4, 6), randn(2, 4, seed=1)
    torch.testing.assert_close(message(sender, state[..., None].expand(-1, -1, 6))[0], message(sender, state)[0])


def test_a_generator_without_weight_is_a_static_kernel():
    torch.manual_seed(0)
    dynamic, static, sender = DynamicMessage(4, 3), StaticMessage(4, 3), randn(2, 4, 6)
    with torch.no_grad():
        dynamic.generate.weight.zero_()
        static.kernel.copy_(dynamic.generate.bias.view(4, 3))
    torch.testing.assert_close(static(sender), dynamic(sender, randn(2, 4, seed=1))[0])


def test_a_full_message_with_a_diagonal_kernel_is_a_static_one():
    torch.manual_seed(0)
    full, static, sender = FullMessage(4, 3), StaticMessage(4, 3), randn(2, 4, 6)
    with torch.no_grad():
        full.bias.zero_()
        full.weight.copy_(torch.diag_embed(static.kernel.T).permute(1, 2, 0))  # [D, D, k]
    torch.testing.assert_close(full(sender), static(sender))


def test_a_moving_average_by_hand():
    assert moving_average(torch.tensor([4.0, 0.0, 8.0]), torch.tensor(0.5)).tolist() == [4, 2, 5]


@given(st.integers(1, 30), st.floats(0.01, 0.99), st.integers(0, 999))
def test_a_moving_average_is_its_recursion_and_leaves_a_constant_alone(n, decay, seed):
    x = randn(2, n, seed=seed, dtype=torch.float64)
    expected = [x[:, 0]]
    for i in range(1, n):
        expected.append(decay * expected[-1] + (1 - decay) * x[:, i])
    decay = torch.tensor(decay, dtype=torch.float64)
    torch.testing.assert_close(moving_average(x, decay), torch.stack(expected, -1))
    torch.testing.assert_close(moving_average(torch.full_like(x, 3.0), decay), torch.full_like(x, 3.0))


def test_an_average_message_begins_with_a_decay_of_one_half():
    sender = randn(2, 3, 5)
    torch.testing.assert_close(AverageMessage()(sender), moving_average(sender, torch.tensor(0.5)))


# ---- attention


def attention(width: int = 8, n_heads: int = 2) -> CrossModalAttention:
    torch.manual_seed(0)
    return CrossModalAttention(width, n_heads)


def test_the_attention_is_that_of_torch_between_normalized_paths():
    ours, context, shape = attention(), randn(3, 8, 5), randn(3, 8, 7, seed=1)
    counts = torch.tensor([[True] * 7, [True] * 4 + [False] * 3, [True] + [False] * 6])
    theirs = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, torch.zeros(8), ours.value.bias]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    q, kv = (F.layer_norm(x.transpose(1, 2), (8,)) for x in (context, shape))
    expected, _ = theirs(q, kv, kv, key_padding_mask=~counts)
    torch.testing.assert_close(ours(context, shape, counts), expected.transpose(1, 2))


def test_tokens_that_do_not_count_are_not_attended_to():
    ours, context, shape = attention(), randn(2, 8, 5), randn(2, 8, 7, seed=1)
    counts = torch.arange(7).expand(2, -1) < 4
    torch.testing.assert_close(ours(context, shape, counts), ours(context, shape[..., :4]))


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(SettingsError, match="8 is no multiple of n_heads=3"):
        attention(8, 3)
