"""Matrix products of float32 by oneDNN, where that is two to four times as fast: on processors of AMD with AVX-512.

PyTorch's wheels multiply float32 by Intel's MKL, which leaves half of the width of another maker's processor unused.
oneDNN, which the same wheels hold, uses all of it, but torch asks it only where products may be rounded to bfloat16.
That is permitted here where it changes nothing: oneDNN rounds only for Intel's matrix extension, which no processor of
AMD has, and products of all kinds are held against float64 once before any result depends on them.

Measured in ``docs/performance.md``: level at a million multiplications, 2 to 4 times as fast from eight million on;
smaller products pay up to .01 ms each. Torch's blockwise attention for a CPU is made of such small products and takes 5
to 11 times as long with them (docs/log.md), so torch writes its attention out meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

__all__ = ["quick_products"]

_LENGTH = 256  # of the sums of the products that are checked
_OFF = 1e-3  # what they may miss: float32 misses 2e-5 of them, bfloat16 1e-1

_setting: Any = getattr(torch.backends.mkldnn, "matmul", None)  # before torch 2.9 there was none
_attention = torch.backends.cuda  # torch's switches for all devices are there


@contextmanager
def quick_products() -> Generator[None]:
    """Inside, float32 products are oneDNN's where those are quicker and as exact; their sums add up in another order.

    The setting is of the whole process, and other threads have it meanwhile. Nothing changes on other processors, where
    the precision of products was set by hand or the environment variable ``PRISMTS_ONEDNN=0`` is set, and beside a GPU:
    Lightning then asks torch a question that it refuses to answer while the CPU's products have a setting of their own.
    """
    if not (_is_quicker() and _is_exact()):
        yield
        return
    _permission.give()
    try:
        yield
    finally:
        _permission.take_back()


class _Permission:
    """Torch's settings for the process, of products and attention, and how many still need them."""

    def __init__(self) -> None:
        self.lock, self.n_needed, self.before, self.by_blocks = threading.Lock(), 0, "", True

    def give(self) -> None:
        with self.lock:
            if self.n_needed == 0:
                self.before, self.by_blocks = _setting.fp32_precision, _attention.flash_sdp_enabled()
                if self.before in ("none", "ieee"):
                    _setting.fp32_precision = "bf16"
                    _attention.enable_flash_sdp(False)
            self.n_needed += 1

    def take_back(self) -> None:
        with self.lock:
            self.n_needed -= 1
            if self.n_needed == 0:
                _setting.fp32_precision = self.before
                _attention.enable_flash_sdp(self.by_blocks)


_permission = _Permission()


@cache
def _is_quicker() -> bool:
    """Whether this is such a processor, and a torch that can be told."""
    return (
        os.environ.get("PRISMTS_ONEDNN") != "0"
        and torch.backends.mkldnn.is_available()
        and hasattr(_setting, "fp32_precision")
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and not torch.accelerator.is_available()
        and "AuthenticAMD" in _processor()
    )


def _processor() -> str:
    """What the system says of its processor."""
    with contextlib.suppress(OSError):
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return os.environ.get("PROCESSOR_IDENTIFIER", "")  # on Windows


@cache
def _is_exact() -> bool:
    """Whether products keep the digits of float32 with the permission: plain, transposed, added to, and of stacks."""
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 4, _LENGTH, _LENGTH, generator=draw)
    exact = a.double() @ b.double()
    _permission.give()
    try:
        stacked = a @ b, (b.mT @ a.mT).mT
        single = a[0] @ b[0], (b[0].T @ a[0].T).T, torch.addmm(torch.zeros(_LENGTH), a[0], b[0])
    finally:
        _permission.take_back()
    off = [*((y - exact).abs().max() for y in stacked), *((y - exact[0]).abs().max() for y in single)]
    return float(torch.stack(off).max()) < _OFF
