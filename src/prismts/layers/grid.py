"""A square convolution over steps that are laid out in rows of one period, of another period for every window.

In a row of p steps, the neighbor a rows below and b steps to the right is the step t + a * p + b; it counts if it
stands in the row of t + a * p and within the window.

On a CPU all windows of one period are laid out as grids, and kernels of K x K taps become one product for each
frequency of the grid: the work no longer grows with the K * K taps. Elsewhere the neighbors are gathered, since periods
that are only known at run time would make many small launches.
"""

from __future__ import annotations

import math

import scipy.fft
import torch
from torch import Tensor
from torch.nn import functional as F

from prismts.layers.paths import is_written_out

__all__ = ["conv_grid", "conv_grid_plain"]


def conv_grid(x: Tensor, period: Tensor, kernel: Tensor) -> Tensor:
    """Windows x [M, T, D], each with its period [M], and a kernel [D', D, K, K] of odd sides give [M, T, D']."""
    if x.device.type != "cpu" or torch.compiler.is_compiling() or is_written_out():
        return conv_grid_plain(x, period, kernel)
    order = period.argsort()
    periods, counts = period[order].unique_consecutive(return_counts=True)
    exact = x if x.dtype == torch.float64 else x.float()  # no transform of bfloat16
    kernel = kernel.to(exact.dtype)
    alike = exact.index_select(0, order).split(counts.tolist())
    with torch.autocast("cpu", enabled=False):
        y = [_conv_of_period(part, p, kernel) for part, p in zip(alike, periods.tolist(), strict=True)]
    return torch.cat(y).index_select(0, order.argsort()).to(x.dtype)


def conv_grid_plain(x: Tensor, period: Tensor, kernel: Tensor) -> Tensor:
    """The plain twin of :func:`conv_grid`: grids are never built, all neighbors of a step are gathered."""
    m, n_steps, width = x.shape
    side = kernel.shape[-1]
    reach = side // 2
    step = torch.arange(-reach, n_steps + reach, device=x.device)  # r more on either side, as neighbors
    move = torch.arange(-reach, reach + 1, device=x.device)
    # the steps a rows above and below, or the zeros that stand behind every window
    place = step[:, None] + move * period[:, None, None]  # [M, r+T+r, K]
    place = torch.where((place >= 0) & (place < n_steps), place, n_steps)
    place = place + torch.arange(m, device=x.device)[:, None, None] * (n_steps + 1)
    rows = F.pad(x, (0, 0, 0, 1)).flatten(0, 1)  # [M*(T+1), D]
    rows = rows.index_select(0, place.flatten()).view(m, n_steps + 2 * reach, side * width)
    weight = kernel.permute(2, 1, 3, 0)  # [K rows, D, K columns, D']
    y = rows @ weight.reshape(side * width, -1)  # what each column of the kernel makes of a step
    columns = y.unflatten(-1, (side, -1)).unbind(2)  # K of [M, r+T+r, D']
    step = torch.arange(n_steps, device=x.device)
    column = (step % period[:, None])[..., None] + move  # [M, T, K] where the neighbors stand in the row
    beside = (column >= 0) & (column < period[:, None, None])
    total = torch.zeros((), dtype=y.dtype, device=x.device)
    for i, y in enumerate(columns):
        total = total + y[:, i : i + n_steps].masked_fill(~beside[..., i, None], 0.0)
    return total  # [M, T, D']


def _conv_of_period(x: Tensor, period: int, kernel: Tensor) -> Tensor:
    """[M, T, D] that share one period to [M, T, D'], through transforms of grids of R rows and p columns.

    Grids are so padded that no kernel reaches around the edge: a tap further than the grid is high or wide meets only
    what lies outside, and is left out.
    """
    m, n_steps, width = x.shape
    n_rows = -(-n_steps // period)
    reach = kernel.shape[-1] // 2
    high, wide = min(reach, n_rows - 1), min(reach, period - 1)
    size = _padded(n_rows + high), _padded(period + wide)
    grid = F.pad(x, (0, 0, 0, n_rows * period - n_steps)).view(m, n_rows, period, width).permute(1, 2, 0, 3)
    waves = torch.view_as_real(torch.fft.rfft2(grid, s=size, dim=(0, 1)))  # [S, S'/2+1, M, D, 2]
    half = waves.shape[1]
    parts = waves.permute(0, 1, 4, 2, 3).reshape(size[0] * half, 2 * m, width)  # [F, real and then imaginary, D]
    taps = kernel[:, :, reach - high : reach + high + 1, reach - wide : reach + wide + 1]
    real, imaginary = _spectrum(taps, size)  # [F, D, D'] each
    by_real, by_imaginary = parts @ real, parts @ imaginary  # [F, 2M, D']
    y = torch.complex(by_real[:, :m] - by_imaginary[:, m:], by_imaginary[:, :m] + by_real[:, m:])
    y = torch.fft.irfft2(y.view(size[0], half, m, -1), s=size, dim=(0, 1))[:n_rows, :period]  # [R, p, M, D']
    return y.permute(2, 0, 1, 3).reshape(m, n_rows * period, -1)[:, :n_steps]


def _spectrum(taps: Tensor, size: tuple[int, int]) -> Tensor:
    """Conjugate spectrum of taps [D', D, A, B], as numbers [2, F, D, D'], real and then imaginary.

    F are the S * (S'/2+1) frequencies of real grids [S, S']. A few taps are transformed by two products, columns and
    then rows, in less time than fast transforms of grids that are mostly zeros.
    """
    n_rows, n_columns = taps.shape[2:]
    half = size[1] // 2 + 1
    by_column = torch.cat(_turns(half, size[1], n_columns, taps))  # [2*S'/2+1, B]
    y = by_column @ taps.permute(2, 3, 1, 0).flatten(2)  # [A, 2*(S'/2+1), D*D']
    y = y.unflatten(1, (2, half)).transpose(0, 1).reshape(2 * n_rows, -1)
    cosine, sine = _turns(size[0], size[0], n_rows, taps)  # [S, A]
    by_row = torch.cat([torch.cat([cosine, -sine], 1), torch.cat([sine, cosine], 1)])  # [2S, 2A]
    return (by_row @ y).view(2, size[0] * half, taps.shape[1], taps.shape[0])


def _turns(n: int, size: int, n_taps: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines [n, taps] of the first frequencies of ``size`` steps, at taps around the middle one."""
    frequency = torch.arange(n, device=like.device)
    place = torch.arange(n_taps, device=like.device) - n_taps // 2
    angle = (frequency[:, None] * place % size).to(like.dtype) * (2 * math.pi / size)
    return angle.cos(), angle.sin()


def _padded(n: int) -> int:
    """The next length whose transform is quick."""
    quick = scipy.fft.next_fast_len(n, real=True)
    assert quick is not None
    return quick
