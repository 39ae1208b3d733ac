"""The fused convolution branch in Triton's interpreter: the numbers, gradients and masks of the plain twin."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prismts.layers.depthwise import toeplitz
from prismts.layers.fused_conv import fused_conv_branch, worth_fusing
from prismts.layers.paths import written_out
from prismts.layers.residual import conv_branch_plain

PLACE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="module")
def triton():
    """Without a GPU its programs run in its interpreter: see conftest.py."""
    return pytest.importorskip("triton")


in_triton = pytest.mark.usefixtures("triton")


def inputs(width: int, n_rows: int, n_tokens: int, kernel_size: int, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = (width, n_rows, n_tokens), (width, kernel_size), (width,), ()
    return [torch.randn(shape, generator=generator).to(PLACE).requires_grad_() for shape in shapes]


@in_triton
@settings(deadline=None, max_examples=12)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 40), st.integers(1, 12), st.booleans(), st.integers(0, 99))
def test_outputs_and_every_gradient_equal_the_plain_twin(width, n_rows, n_tokens, kernel_size, weighted, seed):
    x, kernel, bias, alpha = inputs(width, n_rows, n_tokens, kernel_size, seed)
    wanted, alpha = ([x, kernel, bias, alpha], alpha) if weighted else ([x, kernel, bias], None)
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(PLACE)
    ours = fused_conv_branch(x, kernel, bias, alpha, 0.0)
    plain = conv_branch_plain(x, kernel, bias, alpha, 0.0)
    found = [ours, *torch.autograd.grad((ours * weight).sum(), wanted)]
    expected = [plain, *torch.autograd.grad((plain * weight).sum(), wanted)]
    for a, b in zip(found, expected, strict=True):
        assert (a - b).norm() <= 1e-4 * b.norm() + 1e-5


@in_triton
def test_what_is_dropped_forward_is_dropped_backward_and_by_torchs_seed():
    x, kernel, bias, alpha = inputs(2, 30, 20, 3, 0)
    answers = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        y = fused_conv_branch(x, kernel, bias, alpha, 0.25)
        answers.append((y, *torch.autograd.grad(y.sum(), [x, kernel, bias, alpha])))
    assert torch.equal(answers[0][0], answers[1][0]) and not torch.equal(answers[0][0], answers[2][0])
    z = x @ toeplitz(kernel, 20) + bias[:, None, None]
    raw = alpha * torch.nn.functional.gelu(z)
    kept = (answers[0][0] - x).abs() > 0.5 * raw.abs()
    assert float(kept.float().mean()) == pytest.approx(0.75, abs=0.05)  # 4 standard errors
    twin = x + kept / 0.75 * raw
    torch.testing.assert_close(answers[0][0], twin, rtol=1e-4, atol=1e-5)
    for a, b in zip(answers[0][1:], torch.autograd.grad(twin.sum(), [x, kernel, bias, alpha]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@in_triton
def test_sums_do_not_depend_on_how_many_programs_share_them():
    """300 rows of 20 tokens are several tiles, so that the sums of kernel, bias and alpha meet in several places."""
    x, kernel, bias, alpha = inputs(1, 300, 20, 5, 3)
    y = fused_conv_branch(x, kernel, bias, alpha, 0.0)
    plain = conv_branch_plain(x, kernel, bias, alpha, 0.0)
    for a, b in zip(*(torch.autograd.grad(one.sum(), [kernel, bias, alpha]) for one in (y, plain)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


def as_if_on_cuda(*shape: int) -> Any:
    """What the rule asks of a tensor, said by one of this shape on a GPU."""
    return SimpleNamespace(device=torch.device("cuda"), shape=shape, numel=lambda: math.prod(shape))


def test_it_is_taken_on_cuda_in_training_and_only_where_it_was_asked_for(monkeypatch):
    x = as_if_on_cuda(2, 3, 4)
    monkeypatch.delenv("PRISMTS_TRITON", raising=False)
    assert not worth_fusing(x)
    monkeypatch.setenv("PRISMTS_TRITON", "1")
    assert worth_fusing(x)
    assert not any(worth_fusing(torch.zeros(2, 3, 4, device=place)) for place in ("cpu", "meta"))
    with torch.no_grad():
        assert not worth_fusing(x)
    with written_out():
        assert not worth_fusing(x)
    assert worth_fusing(as_if_on_cuda(1, 1, 1024)) and not worth_fusing(as_if_on_cuda(1, 1, 1025))
    assert not worth_fusing(as_if_on_cuda(2**11, 2**10, 2**10))  # more places than 31 bits count
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not worth_fusing(x)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_tensor_on_a_gpu_is_as_the_rule_reads_it(monkeypatch):
    monkeypatch.setenv("PRISMTS_TRITON", "1")
    assert worth_fusing(torch.zeros(2, 3, 4, device="cuda"))
    assert not worth_fusing(torch.zeros(1, 1, 2000, device="cuda"))
