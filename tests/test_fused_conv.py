"""The fused convolution branch in Triton's interpreter: the numbers, gradients and masks of the plain twin."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prismts.layers.depthwise import toeplitz
from prismts.layers.fused_conv import fused_conv_branch, worth_fusing
from prismts.layers.residual import conv_branch_plain

PLACE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True, scope="module")
def triton():
    """Without a GPU its programs run in its interpreter: see conftest.py."""
    return pytest.importorskip("triton")


def inputs(width: int, n_rows: int, n_tokens: int, kernel_size: int, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = (width, n_rows, n_tokens), (width, kernel_size), (width,), ()
    return [torch.randn(shape, generator=generator).to(PLACE).requires_grad_() for shape in shapes]


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


def test_sums_do_not_depend_on_how_many_programs_share_them():
    """300 rows of 20 tokens are several tiles, so that the sums of kernel, bias and alpha meet in several places."""
    x, kernel, bias, alpha = inputs(1, 300, 20, 5, 3)
    y = fused_conv_branch(x, kernel, bias, alpha, 0.0)
    plain = conv_branch_plain(x, kernel, bias, alpha, 0.0)
    for a, b in zip(*(torch.autograd.grad(one.sum(), [kernel, bias, alpha]) for one in (y, plain)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


def test_it_is_taken_on_cuda_in_training_and_only_where_it_was_asked_for(monkeypatch):
    x = torch.zeros(2, 3, 4, device="meta")
    monkeypatch.setenv("PRISMTS_TRITON", "1")
    assert not worth_fusing(x)
    if torch.cuda.is_available():
        x = torch.zeros(2, 3, 4, device="cuda")
        assert worth_fusing(x)
        with torch.no_grad():
            assert not worth_fusing(x)
        assert not worth_fusing(torch.zeros(1, 1, 2000, device="cuda"))
        monkeypatch.delenv("PRISMTS_TRITON")
        assert not worth_fusing(x)
