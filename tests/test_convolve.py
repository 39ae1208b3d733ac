"""Depthwise convolution as Toeplitz products: the numbers and gradients of torch's own convolution."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prismts.layers import depthwise
from prismts.layers.convolve import DepthwiseConv, TwoKernelConv, conv_depthwise
from prismts.layers.convolve import conv_depthwise_plain as plain
from prismts.layers.depthwise import FOURIER_TAPS, MAX_TOEPLITZ_TOKENS, Blocks, Fourier, Whole, form_for, toeplitz


def inputs(width: int, n_rows: int, n_tokens: int, kernel_size: int, seed: int = 0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    shapes = (width, n_rows, n_tokens), (width, kernel_size), (width,)
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def test_a_kernel_of_three_becomes_a_band():
    assert toeplitz(torch.tensor([[1.0, 2.0, 3.0]]), 4)[0].tolist() == [
        [2, 1, 0, 0],
        [3, 2, 1, 0],
        [0, 3, 2, 1],
        [0, 0, 3, 2],
    ]


def test_the_kernel_one_two_three_over_a_single_pulse_by_hand():
    pulse = torch.tensor([[[0.0, 1.0, 0.0, 0.0]]])
    y = conv_depthwise(pulse, torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([10.0]))
    assert y.flatten().tolist() == [
        13,
        12,
        11,
        10,
    ]  # torch's convolution is a correlation: the pulse mirrors the kernel


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 24), st.integers(1, 60), st.booleans(), st.integers(0, 99))
def test_outputs_and_every_gradient_equal_the_plain_twin(width, n_rows, n_tokens, kernel_size, biased, seed):
    ours, theirs = (
        inputs(width, n_rows, n_tokens, kernel_size, seed),
        inputs(width, n_rows, n_tokens, kernel_size, seed),
    )
    weight = torch.randn(width, n_rows, n_tokens)  # of each output in the loss
    answers = []
    for (x, kernel, bias), convolve in ((ours, conv_depthwise), (theirs, plain)):
        y = convolve(x, kernel, bias if biased else None)
        wanted = (x, kernel, bias) if biased else (x, kernel)
        answers.append([y, *torch.autograd.grad((y * weight).sum(), wanted)])
    for a, b in zip(*answers, strict=True):
        assert (a - b).norm() <= 1e-4 * b.norm() + 1e-6


@pytest.mark.parametrize("kernel_size", [3, 4, 9, 12])
def test_the_gradient_is_right_to_double_precision(kernel_size):
    assert torch.autograd.gradcheck(conv_depthwise, inputs(2, 2, 5, kernel_size, dtype=torch.float64))


def test_blocks_of_three_tokens_by_hand(monkeypatch):
    monkeypatch.setattr(depthwise, "_BLOCK", 3)
    blocks = Blocks(torch.tensor([[1.0, 2.0, 3.0]]), 6)
    assert blocks.matrix[0].tolist() == [[1, 0, 0], [2, 1, 0], [3, 2, 1], [0, 3, 2], [0, 0, 3]]
    x = torch.tensor([[[1.0, 2, 3, 4, 5, 6]]])
    assert blocks.cut(x)[0].tolist() == [[0, 1, 2, 3, 4], [3, 4, 5, 6, 0]]
    assert blocks.joined(blocks.apart(x)).tolist() == x.tolist()


@settings(deadline=None, max_examples=40)
@given(st.integers(129, 400), st.integers(1, 64), st.integers(0, 99))
def test_adding_blocks_is_the_transpose_of_cutting_them(n_tokens, kernel_size, seed):
    x, kernel, _ = inputs(2, 3, n_tokens, kernel_size, seed, torch.float64)
    blocks = Blocks(kernel, n_tokens)
    cut = blocks.cut(x)
    other = torch.randn(cut.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    (expected,) = torch.autograd.grad((cut * other).sum(), x)
    torch.testing.assert_close(blocks.added(other), expected)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([Whole, Blocks, Fourier]), st.integers(1, 200), st.integers(1, 150), st.integers(0, 99))
def test_every_form_convolves_and_goes_back_as_torch_does(form, n_tokens, kernel_size, seed):
    x, kernel, _ = inputs(2, 3, n_tokens, kernel_size, seed, torch.float64)
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    y = plain(x, kernel, None)
    expected = (y, *torch.autograd.grad((y * g).sum(), (x, kernel)))
    with torch.no_grad():
        ours = form(kernel, n_tokens)
        found = (ours.apply(x), ours.back(g), ours.taps(x, g))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_which_form_is_taken_follows_from_the_tokens_and_the_kernel():
    many = MAX_TOEPLITZ_TOKENS + 1
    assert form_for(MAX_TOEPLITZ_TOKENS, 500) is Whole
    assert form_for(many, FOURIER_TAPS - 1) is Blocks
    assert form_for(many, FOURIER_TAPS) is Fourier


def test_transforms_of_half_precision_are_computed_in_float32():
    x, kernel, _ = inputs(2, 3, 150, 70)
    half = Fourier(kernel.bfloat16(), 150).apply(x.bfloat16())
    assert half.dtype == torch.bfloat16
    exact = plain(x, kernel, None)
    assert (half.float() - exact).norm() < 0.01 * exact.norm()


@settings(deadline=None, max_examples=30)
@given(st.integers(129, 400), st.integers(1, 200), st.booleans(), st.integers(0, 99))
def test_many_tokens_have_the_outputs_and_gradients_of_the_plain_twin(n_tokens, kernel_size, biased, seed):
    answers = []
    weight = torch.randn(2, 3, n_tokens)
    for convolve in (conv_depthwise, plain):
        x, kernel, bias = inputs(2, 3, n_tokens, kernel_size, seed)
        y = convolve(x, kernel, bias if biased else None)
        with torch.no_grad():
            assert (convolve(x, kernel, bias if biased else None) - y).norm() <= 1e-5 * y.norm() + 1e-6
        wanted = (x, kernel, bias) if biased else (x, kernel)
        answers.append([y, *torch.autograd.grad((y * weight).sum(), wanted)])
    for a, b in zip(*answers, strict=True):
        assert (a - b).norm() <= 1e-4 * b.norm() + 1e-6


@pytest.mark.parametrize("n_tokens", [MAX_TOEPLITZ_TOKENS, MAX_TOEPLITZ_TOKENS + 1])
def test_both_sides_of_the_switch_give_the_same_numbers(n_tokens):
    x, kernel, bias = inputs(3, 2, n_tokens, 15)
    torch.testing.assert_close(conv_depthwise(x, kernel, bias), plain(x, kernel, bias), rtol=1e-4, atol=1e-5)


def test_taps_beyond_the_tokens_change_nothing_and_receive_no_gradient():
    x, kernel, _ = inputs(1, 2, 3, 11)  # at most 5 = 2N - 1 of 11 taps can meet a token
    y = conv_depthwise(x, kernel, None)
    y.sum().backward()
    assert (kernel.grad[0] != 0).tolist() == [False] * 3 + [True] * 5 + [False] * 3
    torch.testing.assert_close(conv_depthwise(x, kernel[:, 3:8], None), y)


@pytest.mark.parametrize(("long", "short"), [(9, 3), (9, 2), (8, 3), (8, 2), (3, 3), (4, 3), (3, 9), (51, 5), (1, 1)])
@pytest.mark.parametrize("n_tokens", [6, 200])
def test_one_kernel_does_the_work_of_both(long, short, n_tokens):
    torch.manual_seed(0)
    block, x = TwoKernelConv(width=4, long=long, short=short), torch.randn(4, 2, n_tokens)
    torch.testing.assert_close(block(x), block.long(x) + block.short(x), rtol=1e-4, atol=1e-5)


def test_gradients_reach_both_kernels_as_if_they_ran_apart():
    torch.manual_seed(0)
    block, x = TwoKernelConv(width=3, long=7, short=3), torch.randn(3, 2, 10)
    together = torch.autograd.grad(block(x).square().sum(), list(block.parameters()))
    apart = torch.autograd.grad((block.long(x) + block.short(x)).square().sum(), list(block.parameters()))
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("long", "short"), [(9, 3), (8, 3), (9, 4)])
def test_merging_the_two_kernels_leaves_every_output_and_the_block_itself_unchanged(long, short):
    torch.manual_seed(0)
    block = TwoKernelConv(width=4, long=long, short=short).eval()
    before = {name: value.clone() for name, value in block.state_dict().items()}
    x = torch.randn(4, 2, 20)
    merged = block.merged()
    torch.testing.assert_close(merged(x), block(x), rtol=0, atol=1e-5)
    with torch.no_grad():
        merged.weight.zero_()
    assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items())


def test_merging_draws_no_random_numbers():
    block, state = TwoKernelConv(4, 9, 3), torch.get_rng_state()
    block.merged()
    assert torch.equal(torch.get_rng_state(), state)


def test_merging_keeps_precision_and_mode():
    merged = TwoKernelConv(4, 9, 3).double().eval().merged()
    assert merged.weight.dtype == torch.float64
    assert not merged.training
    assert merged.weight.requires_grad


def test_a_depthwise_convolution_starts_as_wide_as_torch_starts_it():
    torch.manual_seed(0)
    weight = DepthwiseConv(2000, 16).weight.detach()
    assert float(weight.abs().max()) == pytest.approx(0.25, rel=0.01)  # 1 / sqrt(16)
