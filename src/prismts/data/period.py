"""After how many steps a series repeats itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft
from scipy.signal import find_peaks

from prismts.data.bridging import bridged
from prismts.data.series import Collection
from prismts.errors import DataError

__all__ = ["FALLBACK_PERIOD", "dominant_period", "period_of_longest"]

FALLBACK_PERIOD = 125  # steps, where no period shows itself
SHORTEST, LONGEST = 6, 303  # lags that are taken for a period, as in the source
N_LAGS = 400
N_STEPS_READ = 20_000  # the beginning says enough


def dominant_period(values: ArrayLike, *, fallback: int = FALLBACK_PERIOD) -> int:
    """The lag, in steps, at which the autocorrelation of values [C, T] has its highest peak; NaN is not observed.

    The first 20,000 steps and lags up to 400 are read. Where no peak stands out, or the highest is not at a lag from 6
    to 303, the answer is ``fallback``. It is never more than half the series, so that two periods fit.

    Source: TSB-AD (Liu and Paparrizos, NeurIPS 2024), ``find_length_rank`` with rank 1, which serves single channels.
    Ours differs: a straight line is taken out of each channel first, the autocorrelations of all channels that vary
    are averaged, and a peak counts only if it lies 4 / sqrt(T) above 0, which white noise hardly ever does, and as much
    above the valleys beside it, which the wiggles of a slow decay do not.
    """
    x = bridged(values)[:, :N_STEPS_READ]
    n = x.shape[1]
    if n < 4:
        raise DataError(f"A period needs a series of at least 4 steps, but got {n}. Pass a longer training part.")
    rest = _without_line(x)
    varies = np.abs(rest).max(axis=1) > 1e-9 * np.abs(x).max(axis=1)  # more than rounding
    correlation = _autocorrelation(rest[varies], min(N_LAGS, n - 2))  # [C, L]
    period = fallback
    if len(correlation):
        r = correlation.mean(axis=0)  # [L], lag 0 first
        clear = 4 / np.sqrt(n)
        lags = find_peaks(r, height=clear, prominence=clear)[0]
        if len(lags):
            highest = int(lags[np.argmax(r[lags])])
            period = highest if SHORTEST <= highest <= LONGEST else fallback
    return min(period, n // 2)


def period_of_longest(data: Collection, ends: NDArray[np.int64]) -> int:
    """The dominant period of the longest of some series, each known up to ``ends`` [n_series]; 1 where none shows."""
    longest = int(ends.argmax())
    return dominant_period(data[longest].values[:, : int(ends[longest])], fallback=1)


def _without_line(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each channel [C, T] less its least-squares line."""
    time = np.linspace(-1, 1, x.shape[1])
    x = x - x.mean(axis=1, keepdims=True)
    return x - (x @ time / (time @ time))[:, None] * time


def _autocorrelation(x: NDArray[np.float64], n_lags: int) -> NDArray[np.float64]:
    """[C, T] of mean 0 to [C, n_lags + 1], 1 at lag 0.

    Sums are divided by those of lag 0 and not by the number of pairs, so that of equal multiples the first is highest.
    """
    x = x / np.abs(x).max(axis=1, keepdims=True)
    size = fft.next_fast_len(x.shape[1] + n_lags, real=True)
    power = np.abs(np.asarray(fft.rfft(x, size, axis=1))) ** 2
    sums = np.asarray(fft.irfft(power, size, axis=1))[:, : n_lags + 1]
    return sums / sums[:, :1]
