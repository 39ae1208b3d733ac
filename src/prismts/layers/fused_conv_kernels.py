"""The Triton programs of ``fused_conv``; importing this file needs Triton.

A program holds ROWS rows of one width d, each with all its N tokens in COLUMNS places. Sizes in capitals are fixed when
a program is compiled. z is the convolution with its bias, computed tap by tap from shifted reads, which the cache
serves.
"""

# pyright: basic, reportMissingImports=false
# ruff: noqa: ANN001, ANN201, ANN202
# Triton's language has no types that a checker could follow: programs are compiled from their source
import triton
import triton.language as tl

__all__ = ["backward_conv", "backward_inside", "forward"]


@triton.jit
def _place(m, n, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Where a program reads: its width, the numbers of its values [ROWS, COLUMNS], and which of them exist."""
    d = tl.program_id(0)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    inside = (row < m)[:, None] & (column < n)[None, :]
    return d, (d * m + row[:, None]) * n + column[None, :], column, inside


@triton.jit
def _convolved(x, kernel, bias, d, place, column, inside, n, K: tl.constexpr, LEFT: tl.constexpr):
    """z of a program's rows."""
    z = tl.load(bias + d).to(tl.float32) + tl.zeros(place.shape, dtype=tl.float32)
    for t in range(K):
        source = column + (t - LEFT)
        seen = inside & ((source >= 0) & (source < n))[None, :]
        tap = tl.load(kernel + d * K + t).to(tl.float32)
        z += tap * tl.load(x + place + (t - LEFT), mask=seen, other=0.0).to(tl.float32)
    return z


@triton.jit
def forward(
    x, kernel, bias, alpha, y, seed, m, n,
    P: tl.constexpr, K: tl.constexpr, LEFT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """y = x + drop(alpha * gelu(z))."""
    d, place, column, inside = _place(m, n, ROWS, COLUMNS)
    z = _convolved(x, kernel, bias, d, place, column, inside, n, K, LEFT)
    branch = tl.load(alpha).to(tl.float32) * 0.5 * z * (1 + tl.erf(z * 0.7071067811865476))
    if P > 0:
        branch = tl.where(tl.rand(seed, place) >= P, branch / (1 - P), 0.0)
    tl.store(y + place, tl.load(x + place, mask=inside, other=0.0).to(tl.float32) + branch, mask=inside)


@triton.jit
def backward_inside(
    x, kernel, bias, alpha, g, g_z, g_kernel, g_bias, g_alpha, seed, m, n,
    P: tl.constexpr, K: tl.constexpr, LEFT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The gradient of z, and this program's share of those of kernel, bias and alpha."""
    d, place, column, inside = _place(m, n, ROWS, COLUMNS)
    z = _convolved(x, kernel, bias, d, place, column, inside, n, K, LEFT)
    arrived = tl.load(g + place, mask=inside, other=0.0).to(tl.float32)
    if P > 0:
        arrived = tl.where(tl.rand(seed, place) >= P, arrived / (1 - P), 0.0)
    below = 0.5 * (1 + tl.erf(z * 0.7071067811865476))  # of the normal distribution
    density = tl.exp(-0.5 * z * z) * 0.3989422804014327
    inner = arrived * tl.load(alpha).to(tl.float32) * (below + z * density)
    tl.store(g_z + place, inner, mask=inside)
    own = d * tl.num_programs(1) + tl.program_id(1)
    tl.store(g_bias + own, tl.sum(inner))
    tl.store(g_alpha + own, tl.sum(arrived * z * below))
    for t in range(K):
        source = column + (t - LEFT)
        seen = inside & ((source >= 0) & (source < n))[None, :]
        met = tl.load(x + place + (t - LEFT), mask=seen, other=0.0).to(tl.float32)
        tl.store(g_kernel + own * K + t, tl.sum(inner * met))


@triton.jit
def backward_conv(
    kernel, g, g_z, g_x, m, n,
    K: tl.constexpr, LEFT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The gradient of x: what arrived, and the gradient of z through the mirrored kernel."""
    d, place, column, inside = _place(m, n, ROWS, COLUMNS)
    total = tl.load(g + place, mask=inside, other=0.0).to(tl.float32)
    for t in range(K):
        source = column - (t - LEFT)
        seen = inside & ((source >= 0) & (source < n))[None, :]
        tap = tl.load(kernel + d * K + t).to(tl.float32)
        total += tap * tl.load(g_z + place - (t - LEFT), mask=seen, other=0.0)
    tl.store(g_x + place, total, mask=inside)
