"""A square convolution over steps that are laid out in rows of one period, of another period for every window.

In a row of p steps, the neighbor a rows below and b steps to the right is the step t + a * p + b; it counts if it
stands in the row of t + a * p and within the window.

On a CPU all windows of one period are laid out as grids and convolved as waves, one small product for each, so that the
work does not grow with the K * K taps. Products with cosines and sines turn rows and columns into waves and back: of
some hundred steps they are sooner done than fast transforms, and any length is as good. Elsewhere the neighbors are
gathered, since periods that are only known at run time would make many small launches.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from prismts.layers.paths import is_written_out

__all__ = ["conv_grid", "conv_grid_plain"]

LONGEST = 1536  # steps of a window; of more, the cosines and sines would fill the memory


def conv_grid(x: Tensor, period: Tensor, kernel: Tensor) -> Tensor:
    """Windows x [M, T, D], each with its period [M], and a kernel [D', D, K, K] of odd sides give [M, T, D']."""
    if x.device.type != "cpu" or x.shape[1] > LONGEST or torch.compiler.is_compiling() or is_written_out():
        return conv_grid_plain(x, period, kernel)
    order = period.argsort()
    periods, counts = period[order].unique_consecutive(return_counts=True)
    exact = x if x.dtype == torch.float64 else x.float()  # sums of some hundred terms, there and back
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
    """[M, T, D] that share one period to [M, T, D'].

    A tap further than the grid is high or wide meets only what lies outside, and is left out.
    """
    m, n_steps, width = x.shape
    n_rows, reach = -(-n_steps // period), kernel.shape[-1] // 2
    high, wide = min(reach, n_rows - 1), min(reach, period - 1)
    taps = kernel[:, :, reach - high : reach + high + 1, reach - wide : reach + wide + 1]
    grid = F.pad(x, (0, 0, 0, n_rows * period - n_steps)).view(m, n_rows, period, width)
    if _is_sooner_by_taps(taps, n_rows, period):
        y = F.conv2d(grid.permute(0, 3, 1, 2), taps, padding=(high, wide)).permute(0, 2, 3, 1)
    else:
        y = _conv_by_waves(grid, taps)
    return y.reshape(m, n_rows * period, -1)[:, :n_steps]


def _conv_by_waves(grid: Tensor, taps: Tensor) -> Tensor:
    """Grids [M, R, p, D] and taps [D', D, A, B] of odd sides give [M, R, p, D'].

    Waves come back after S rows and S' columns, so many that no tap reaches around. Of real grids, G = S'/2+1 waves
    over the columns say all. Complex numbers are two real ones, in a dimension of their own.
    """
    m, n_rows, period, _ = grid.shape
    high, wide = (side // 2 for side in taps.shape[2:])
    n_waves = n_rows + high, period + wide  # S and S'
    # a tap at +b asks for what lies there, as a wave turned back
    reach = range(high, -high - 1, -1), range(wide, -wide - 1, -1)
    response = _to_waves(taps.permute(3, 2, 1, 0), n_waves, *reach)  # [G*S, 2, D, D']
    waves = _to_waves(grid.permute(2, 1, 0, 3), n_waves, range(n_rows), range(period)).flatten(1, 2)  # [G*S, 2*M, D]
    by_real, by_imaginary = waves @ response[:, 0], waves @ response[:, 1]  # [G*S, 2*M, D']
    y = torch.stack([by_real[:, :m] - by_imaginary[:, m:], by_imaginary[:, :m] + by_real[:, m:]], 1)
    return _from_waves(y, n_waves, n_rows, period).permute(2, 1, 0, 3)


def _is_sooner_by_taps(taps: Tensor, n_rows: int, period: int) -> bool:
    """Whether the taps [D', D, A, B] of a grid are fewer multiplications than its waves."""
    out, width, *sides = taps.shape
    size, half = n_rows + sides[0] // 2, (period + sides[1] // 2) // 2 + 1
    there_and_back = half * n_rows * (2 * period + 4 * size) * (width + out)
    return math.prod(taps.shape) * n_rows * period < there_and_back + 4 * half * size * width * out


def _to_waves(x: Tensor, n_waves: tuple[int, int], rows: range, columns: range) -> Tensor:
    """Values [Q, R, A, B] at these columns and rows to waves [G*S, 2, A, B]."""
    size, n_half = n_waves[0], n_waves[1] // 2 + 1
    over_columns = _waves(n_waves[1], n_half, columns, x.dtype)[:, :, 0].flatten(0, 1)  # [G*2, Q], of real values
    over_rows = _waves(size, size, rows, x.dtype).flatten(2).flatten(0, 1)  # [S*2, 2*R]
    y = over_columns @ x.flatten(1)  # [G*2, R*A*B]
    return (over_rows @ y.view(n_half, 2 * len(rows), -1)).view(n_half * size, 2, *x.shape[2:])


def _from_waves(y: Tensor, n_waves: tuple[int, int], n_rows: int, n_columns: int) -> Tensor:
    """Waves [G*S, 2, A, B] back to values [Q, R, A, B] at the first columns and rows."""
    size, n_half = n_waves[0], n_waves[1] // 2 + 1
    over_rows = _waves(size, size, range(n_rows), y.dtype).flatten(2).flatten(0, 1)
    over_columns = _waves(n_waves[1], n_half, range(n_columns), y.dtype)[:, :, 0]  # [G, 2, Q]
    twice = torch.full((n_half, 1, 1), 2.0, dtype=y.dtype)  # the other half of the waves mirrors this one
    twice[0] = 1.0
    if n_waves[1] % 2 == 0:
        twice[-1] = 1.0
    back = (over_columns * (twice / (n_waves[0] * n_waves[1]))).flatten(0, 1)
    x = over_rows.T @ y.view(n_half, 2 * size, -1)  # [G, 2*R, A*B]
    return (back.T @ x.view(2 * n_half, -1)).view(n_columns, n_rows, *y.shape[2:])


@lru_cache(maxsize=512)
def _waves(size: int, n: int, places: range, dtype: torch.dtype) -> Tensor:
    """What the first n of the waves that come back after ``size`` steps make of P places: [n, 2, 2, P].

    Of a real and an imaginary number at a place (the third dimension) each makes a real and an imaginary one.
    """
    with torch.inference_mode(False):  # kept for trainings, whoever asks first
        turn = torch.arange(n)[:, None] * torch.tensor(places) % size
        angle = turn.double() * (2 * math.pi / size)
        cosine, sine = angle.cos(), angle.sin()
        waves = torch.stack([torch.stack([cosine, sine], 1), torch.stack([-sine, cosine], 1)], 1)
        return waves.to(dtype)
