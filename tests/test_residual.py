"""Residual branches in slices: the numbers and gradients of the plain composition, masks of the right share."""

import copy
import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prismts.layers import paths, residual
from prismts.layers.batch_norm import BatchNorm
from prismts.layers.paths import worth_slicing
from prismts.layers.residual import conv_branch, conv_branch_plain, pair_branch, pair_branch_plain
from prismts.models.convtimenet import Block, ConvTimeNetConfig


def pair(width=4, hidden=6, n=11, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = (width, n), (hidden, width), (hidden,), (width, hidden), (width,), ()
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def conv(width=3, n_rows=4, n_tokens=5, kernel_size=4, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = (width, n_rows, n_tokens), (width, kernel_size), (width,), ()
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def through_pair(x, rise, rise_bias, fall, fall_bias, alpha, p=0.0, q=0.0, how=pair_branch):
    return how(x, (rise, rise_bias), (fall, fall_bias), alpha, p, q)


@pytest.fixture(params=[2**19, 20, 1])
def slice_size(request, monkeypatch):
    """Slices of everything at once, of some columns with a shorter rest, and of one column."""
    monkeypatch.setattr(residual, "SLICE", request.param)


def test_a_branch_with_a_norm_reads_rows_in_any_layout():
    x, kernel, bias, alpha = conv()
    turned = x.detach().transpose(1, 2).contiguous().transpose(1, 2)  # the same numbers, laid out otherwise
    norm = BatchNorm(3).double()
    expected = conv_branch(x.detach(), kernel, bias, alpha, 0.0, norm)
    torch.testing.assert_close(conv_branch(turned, kernel, bias, alpha, 0.0, norm), expected)


def test_a_pair_by_hand():
    one = torch.ones(1, 1)
    got = pair_branch(torch.tensor([[2.0]]), (3 * one, one[0]), (5 * one, one[0]), torch.tensor(0.5), 0.0, 0.0)
    # gelu(3 * 2 + 1) is 7 to ten digits: 2 + .5 * (5 * 7 + 1)
    assert float(got) == pytest.approx(20)


def test_a_convolution_by_hand():
    got = conv_branch(torch.tensor([[[10.0, 20.0]]]), torch.tensor([[0.0, 2.0, 1.0]]), torch.ones(1), None, 0.0)
    assert got.flatten().tolist() == pytest.approx([10 + (2 * 10 + 20 + 1), 20 + (2 * 20 + 1)])


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 40), st.integers(1, 99), st.booleans(), st.integers(0, 99))
def test_pair_outputs_and_every_gradient_equal_the_plain_twin(width, hidden, n, size, weighted, seed):
    inputs, weight = pair(width, hidden, n, seed=seed), torch.randn(width, n)
    if not weighted:
        inputs[-1] = None
    wanted = inputs if weighted else inputs[:-1]
    before, residual.SLICE = residual.SLICE, size
    try:
        answers = [through_pair(*inputs, how=how) for how in (pair_branch, pair_branch_plain)]
        grads = [torch.autograd.grad((y * weight).sum(), wanted) for y in answers]
    finally:
        residual.SLICE = before
    for a, b in zip((answers[0], *grads[0]), (answers[1], *grads[1]), strict=True):
        assert (a - b).norm() <= 1e-10 * (1 + b.norm())


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 5), st.integers(1, 5), st.integers(1, 9), st.integers(1, 30), st.integers(1, 99), st.booleans(),
    st.integers(0, 99),
)  # fmt: skip
def test_convolution_outputs_and_every_gradient_equal_the_plain_twin(width, n_rows, n, taps, size, weighted, seed):
    inputs, weight = conv(width, n_rows, n, taps, seed=seed), torch.randn(width, n_rows, n)
    if not weighted:
        inputs[-1] = None
    wanted = inputs if weighted else inputs[:-1]
    before, residual.SLICE = residual.SLICE, size
    try:
        answers = [how(*inputs, 0.0) for how in (conv_branch, conv_branch_plain)]
        grads = [torch.autograd.grad((y * weight).sum(), wanted) for y in answers]
    finally:
        residual.SLICE = before
    for a, b in zip((answers[0], *grads[0]), (answers[1], *grads[1]), strict=True):
        assert (a - b).norm() <= 1e-10 * (1 + b.norm())


def test_the_gradient_of_a_pair_with_dropout_is_right_to_double_precision(slice_size):
    def answer(*inputs):
        torch.manual_seed(3)  # equal masks
        return through_pair(*inputs, p=0.3, q=0.4)

    assert torch.autograd.gradcheck(answer, pair())


def test_the_gradient_of_a_convolution_with_dropout_is_right_to_double_precision(slice_size):
    def answer(*inputs):
        torch.manual_seed(3)
        return conv_branch(*inputs, 0.4)

    assert torch.autograd.gradcheck(answer, conv())


def test_what_drops_behind_the_pair_is_zero_or_scaled_and_of_the_right_share(slice_size):
    torch.manual_seed(0)
    x, zero = torch.zeros(2, 5000), torch.zeros(2, 3)
    y = pair_branch(x, (zero.T, torch.zeros(3)), (zero, torch.ones(2)), None, 0.0, 0.25)
    assert sorted(set(y.flatten().tolist())) == pytest.approx([0, 4 / 3])
    assert float((y > 0).float().mean()) == pytest.approx(0.75, abs=0.02)  # 4.6 standard errors


def test_what_drops_inside_the_pair_keeps_the_mean_and_drops_values_apart():
    torch.manual_seed(0)
    x = torch.zeros(1, 4000)
    # four hidden values of 1, summed: the sum tells how many were kept
    y = pair_branch(x, (torch.zeros(4, 1), torch.full((4,), 1.0)), (torch.ones(1, 4), torch.zeros(1)), None, 0.5, 0.0)
    kept = y / (2 * torch.nn.functional.gelu(torch.ones(())))
    assert float(kept.mean()) == pytest.approx(2, abs=0.07)  # 4.4 standard errors
    assert float(kept.var()) == pytest.approx(1, abs=0.1)  # of a binomial: they are independent


def test_equal_seeds_drop_equally_and_nothing_is_drawn_where_nothing_drops():
    x, m, b, alpha = conv()
    answers = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        answers.append(conv_branch(x, m, b, alpha, 0.5))
    assert torch.equal(answers[0], answers[1]) and not torch.equal(answers[0], answers[2])
    state = torch.get_rng_state()
    conv_branch(x, m, b, alpha, 0.0)
    assert torch.equal(torch.get_rng_state(), state)


def test_autocast_computes_the_inside_in_bfloat16_and_gives_gradients_of_the_parameters_type():
    inputs = pair(8, 16, 300, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = through_pair(*inputs)
    assert y.dtype == torch.float32
    exact = through_pair(*inputs, how=pair_branch_plain)
    grads = [torch.autograd.grad(one.sum(), inputs) for one in (y, exact)]
    for a, b in zip((y, *grads[0]), (exact, *grads[1]), strict=True):
        assert a.dtype == torch.float32
        assert 0 < (a - b).norm() < 0.03 * b.norm()
    x, m, b, alpha = conv(4, 30, 12, 5, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = conv_branch(x, m, b, alpha, 0.0)
    exact = conv_branch_plain(x, m, b, alpha, 0.0)
    assert 0 < (y - exact).norm() < 0.02 * exact.norm()


def test_slices_are_taken_for_large_training_steps_on_a_cpu_alone():
    large = torch.zeros(paths.SMALLEST)
    assert worth_slicing(large)
    assert not worth_slicing(large[:-1])
    with torch.no_grad():
        assert not worth_slicing(large)
    assert not worth_slicing(large.to("meta"))


@pytest.mark.parametrize(
    "changes", [{}, {"small_kernel": 0}, {"residual": None}, {"norm": "layer"}, {"feed_forward": 0}]
)
@pytest.mark.parametrize("n_tokens", [12, 130])
@pytest.mark.parametrize("training", [True, False])
def test_a_block_is_the_same_in_slices_and_written_out(monkeypatch, changes, n_tokens, training):
    torch.manual_seed(0)
    settings = {"width": 8, "feed_forward": 16, "dropout": 0.0, "residual": 0.5, **changes}
    block = Block(ConvTimeNetConfig(**settings), 5).double().train(training)
    start = copy.deepcopy(block.state_dict())
    x = torch.randn(8, 9, n_tokens, dtype=torch.float64, requires_grad=True)
    weight = torch.randn_like(x)
    found = []
    for smallest in (1, 2**60):
        monkeypatch.setattr(paths, "SMALLEST", smallest)
        block.load_state_dict(start)
        y = block(x)
        found.append([y, *torch.autograd.grad((y * weight).sum(), [x, *block.parameters()]), *block.buffers()])
        found[-1] = [one.detach().clone() for one in found[-1]]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@settings(deadline=None, max_examples=30)
@given(st.integers(129, 300), st.integers(1, 400), st.integers(1, 9999), st.integers(0, 99))
def test_a_convolution_over_many_tokens_equals_the_plain_twin_however_it_is_sliced(n_tokens, kernel_size, size, seed):
    inputs = conv(3, 2, n_tokens, kernel_size, seed=seed)
    weight = torch.randn(3, 2, n_tokens, generator=torch.Generator().manual_seed(seed))
    before, residual.SLICE = residual.SLICE, size
    try:
        answers = [how(*inputs, 0.0) for how in (conv_branch, conv_branch_plain)]
        found, expected = ([y, *torch.autograd.grad((y * weight).sum(), inputs)] for y in answers)
    finally:
        residual.SLICE = before
    for a, b in zip(found, expected, strict=True):
        assert (a - b).norm() <= 1e-10 * (1 + b.norm())


@pytest.mark.parametrize("how, plain, inputs", [
    (through_pair, functools.partial(through_pair, how=pair_branch_plain), pair(8, 16, 300, torch.float32)),
    (conv_branch, conv_branch_plain, conv(4, 6, 30, 9, torch.float32)),
    (conv_branch, conv_branch_plain, conv(4, 6, 200, 70, torch.float32)),
])  # fmt: skip
def test_single_precision_is_single_precision_throughout(slice_size, how, plain, inputs):
    answers = [one(*inputs, 0.0) for one in (how, plain)]
    found, expected = ([y, *torch.autograd.grad(y.square().sum(), inputs)] for y in answers)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() <= 1e-5 * b.norm()


@pytest.mark.parametrize("kernel_size", [9, 70])
def test_a_convolution_over_many_tokens_under_autocast_stays_near_the_exact_one(kernel_size):
    x, kernel, bias, _ = conv(4, 6, 200, kernel_size, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = conv_branch(x, kernel, bias, None, 0.0)
    exact = conv_branch_plain(x, kernel, bias, None, 0.0)
    assert y.dtype == torch.float32
    assert 0 < (y - exact).norm() < 0.02 * exact.norm()


def normed(inputs, p, norm, how):
    """A branch and its norm: in one, or one after the other."""
    torch.manual_seed(3)  # equal masks
    return conv_branch(*inputs, p, norm) if how == "one" else norm(conv_branch(*inputs, p))


@pytest.mark.parametrize("p", [0.0, 0.4])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("n_tokens", [7, 140])
def test_a_norm_in_the_slices_of_a_branch_is_the_norm_behind_it(slice_size, p, weighted, n_tokens):
    inputs = conv(3, 4, n_tokens)
    inputs[-1] = inputs[-1] if weighted else None
    weight, found = torch.randn(3, 4, n_tokens, dtype=torch.float64), []
    for how in ("one", "two"):
        norm = BatchNorm(3).double()
        with torch.no_grad():
            norm.weight.copy_(torch.tensor([0.5, -2.0, 3.0]))
            norm.bias.copy_(torch.tensor([1.0, 0.0, -1.0]))
        y = normed(inputs, p, norm, how)
        wanted = [*(one for one in inputs if one is not None), *norm.parameters()]
        found.append([y, *torch.autograd.grad((y * weight).sum(), wanted), *norm.buffers()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_the_gradient_through_a_branch_and_its_norm_is_right_to_double_precision(slice_size):
    norm = BatchNorm(3).double()
    assert torch.autograd.gradcheck(lambda *inputs: normed(inputs, 0.4, norm, "one"), conv())


def test_dropping_before_the_gelu_is_dropping_behind_it_forward_and_backward():
    """Of values sunk to where GELU is 0, its gradient is 0 too: each hidden value is kept or dropped as a whole."""
    torch.manual_seed(0)
    x, rise = torch.full((1, 1000), 0.7, requires_grad=True), torch.tensor([[1.3]], requires_grad=True)
    y = pair_branch(x, (rise, torch.zeros(1)), (torch.ones(1, 1), torch.zeros(1)), None, 0.5, 0.0)
    (g,) = torch.autograd.grad(y.sum(), x)
    kept = (y - x).detach() != 0
    z = torch.tensor(0.7 * 1.3, requires_grad=True)
    torch.nn.functional.gelu(z).backward()
    torch.testing.assert_close(g, 1 + kept * 2 * 1.3 * z.grad)
    assert 400 < int(kept.sum()) < 600
