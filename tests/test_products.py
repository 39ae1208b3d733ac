"""Products of float32 on processors of AMD: as exact as before, and torch's setting is as it was afterwards."""

import threading

import pytest
import torch

from prismts.layers import products
from prismts.layers.products import quick_products

SETTING = torch.backends.mkldnn.matmul
# where the permission would round, as on Intel's processors with matrix extensions, it is never given
here = pytest.mark.skipif(not products._is_exact(), reason="oneDNN would round on this processor")


@pytest.fixture
def quicker(monkeypatch):
    """As if this were a processor of AMD."""
    monkeypatch.setattr(products, "_is_quicker", lambda: True)
    before, by_blocks = SETTING.fp32_precision, torch.backends.cuda.flash_sdp_enabled()
    yield
    assert SETTING.fp32_precision == before
    assert torch.backends.cuda.flash_sdp_enabled() == by_blocks


@pytest.fixture
def asked_anew():
    """What was found out about this processor is forgotten, before and afterwards."""
    products._is_quicker.cache_clear()
    yield
    products._is_quicker.cache_clear()


def off_by(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a @ b - a.double() @ b.double()).abs().max())


@pytest.mark.parametrize("shape", [(64, 256, 64), (300, 65, 96), (7, 336, 96), (16, 42, 4, 42)])
def test_inside_products_keep_the_digits_of_float32_on_any_processor(quicker, shape):
    *stack, m, k, n = shape
    a, b = torch.randn(*stack, m, k), torch.randn(*stack, k, n)
    rounded = (a.bfloat16().float() @ b.bfloat16().float() - a @ b).abs().max()
    with quick_products():
        assert off_by(a, b) < 1e-4 < rounded


@here
def test_gradients_inside_are_those_outside(quicker):
    x, weight = torch.randn(128, 64), torch.randn(96, 64, requires_grad=True)

    def gradient() -> torch.Tensor:
        return torch.autograd.grad((torch.nn.functional.linear(x, weight) ** 2).sum(), weight)[0]

    plain = gradient()
    with quick_products():
        torch.testing.assert_close(gradient(), plain, rtol=1e-4, atol=1e-2)


@here
@pytest.mark.parametrize("chosen", [True, False])
def test_attention_inside_is_not_made_of_small_blocks_and_afterwards_as_the_user_chose(quicker, chosen):
    q, k, v = torch.randn(3, 2, 4, 40, 8)
    before = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    torch.backends.cuda.enable_flash_sdp(chosen)
    try:
        with quick_products(), quick_products():
            assert not torch.backends.cuda.flash_sdp_enabled()
            torch.testing.assert_close(torch.nn.functional.scaled_dot_product_attention(q, k, v), before)
        assert torch.backends.cuda.flash_sdp_enabled() == chosen
    finally:
        torch.backends.cuda.enable_flash_sdp(True)


@here
def test_the_setting_is_back_after_the_last_of_several_has_left(quicker):
    first, second = quick_products(), quick_products()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert SETTING.fp32_precision == "bf16"
    second.__exit__(None, None, None)


@here
def test_the_setting_is_back_after_an_error_and_after_threads(quicker):
    with pytest.raises(ValueError, match="inside"), quick_products():
        raise ValueError("inside")
    barrier = threading.Barrier(4)

    def enter() -> None:
        barrier.wait()
        for _ in range(200):
            with quick_products():
                pass

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_precision_set_by_hand_is_left_alone(quicker):
    before = SETTING.fp32_precision
    try:
        SETTING.fp32_precision = "tf32"
        with quick_products():
            assert SETTING.fp32_precision == "tf32"
            assert torch.backends.cuda.flash_sdp_enabled()  # attention too
        assert SETTING.fp32_precision == "tf32"
    finally:
        SETTING.fp32_precision = before


@pytest.mark.parametrize("maker", ["GenuineIntel", ""])
def test_nothing_changes_on_processors_of_others(monkeypatch, asked_anew, maker):
    monkeypatch.setattr(products, "_processor", lambda: maker)
    before = SETTING.fp32_precision
    with quick_products():
        assert SETTING.fp32_precision == before


def test_an_environment_variable_leaves_products_alone(monkeypatch, asked_anew):
    monkeypatch.setenv("PRISMTS_ONEDNN", "0")
    monkeypatch.setattr(products, "_processor", lambda: "AuthenticAMD")
    assert not products._is_quicker()


def test_a_processor_that_would_round_is_found_out(monkeypatch, quicker):
    product = torch.Tensor.__matmul__

    def rounded(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return product(a, b) if a.dtype == torch.float64 else product(a.bfloat16(), b.bfloat16()).float()

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    monkeypatch.setattr(products, "_is_exact", products._is_exact.__wrapped__)
    assert not products._is_exact()
    before = SETTING.fp32_precision
    with quick_products():
        assert SETTING.fp32_precision == before
