"""Series whose answer is known, made by a seeded generator: for tests, examples, and where no real data can be had.

Equal arguments give equal series. Every function says what a good model must find in it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.signal import lfilter

from prismts.data.series import Collection, Series
from prismts.data.splits import Borders, by_fraction
from prismts.errors import SettingsError

__all__ = ["labeled_motions", "planted_anomalies", "random_walk", "simulated_plant", "sine_mixture"]


def sine_mixture(
    n_timepoints: int = 1008,
    *,
    periods: tuple[float, ...] = (24.0, 168.0),
    amplitudes: tuple[float, ...] = (1.0, 0.5),
    noise: float = 0.1,
    n_channels: int = 1,
    seed: int = 0,
) -> Series:
    """Sines of known periods, at phases of each channel's own, in white noise.

    To be found: the periods (in steps). The best possible forecast has a mean squared error of ``noise`` squared.
    """
    if len(periods) != len(amplitudes):
        raise SettingsError(f"Each period needs an amplitude, but got {len(periods)} periods and {len(amplitudes)}.")
    rng = np.random.default_rng(seed)
    values = noise * rng.standard_normal((n_channels, n_timepoints))
    for period, amplitude in zip(periods, amplitudes, strict=True):
        phase = rng.uniform(0, 2 * np.pi, (n_channels, 1))
        values += amplitude * np.sin(2 * np.pi * np.arange(n_timepoints) / period + phase)  # [C, T]
    return Series(values.astype(np.float32), name="sine_mixture", borders=by_fraction(n_timepoints))


def random_walk(n_timepoints: int = 1000, *, n_channels: int = 1, seed: int = 0) -> Series:
    """Sums of standard normal steps: nothing can be learned.

    The best forecast is the last value; h steps ahead its mean squared error is h.
    """
    steps = np.random.default_rng(seed).standard_normal((n_channels, n_timepoints))
    return Series(steps.cumsum(axis=1).astype(np.float32), name="random_walk", borders=by_fraction(n_timepoints))


def planted_anomalies(
    n_timepoints: int = 4000,
    *,
    n_anomalies: int = 6,
    length: int = 40,
    n_channels: int = 3,
    noise: float = 0.1,
    seed: int = 0,
) -> Series:
    """Sines of period 50; in the second half, ``n_anomalies`` stretches of ``length`` steps are disturbed and labeled.

    The kinds take turns: a lifted level, a value that stands still, a doubled frequency. A disturbance is in one
    channel, drawn anew each time. The first half is the training part and has no anomaly; none touches another.
    """
    begin = n_timepoints // 2
    room = (n_timepoints - begin) // max(n_anomalies, 1)  # each anomaly lies in a slot of its own
    if room < length + 2:
        raise SettingsError(
            f"{n_anomalies} anomalies of {length} steps do not fit into the second half of {n_timepoints} steps. "
            f"Take n_timepoints of at least {2 * n_anomalies * (length + 2)}."
        )
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 2 * np.pi, (n_channels, 1))
    angle = 2 * np.pi * np.arange(n_timepoints) / 50 + phase
    values = np.sin(angle)  # [C, T]
    labels = np.zeros(n_timepoints, dtype=np.int64)
    for i in range(n_anomalies):
        first = begin + i * room + int(rng.integers(1, room - length))
        where = slice(first, first + length)
        c = int(rng.integers(n_channels))
        disturbed = (values[c, where] + 1.5, np.full(length, values[c, first]), np.sin(2 * angle[c, where]))
        values[c, where] = disturbed[i % len(disturbed)]
        labels[where] = 1
    values += noise * rng.standard_normal(values.shape)
    return Series(
        values.astype(np.float32), name="planted_anomalies", labels=labels, borders=Borders(begin, begin, n_timepoints)
    )


def labeled_motions(
    n_cases: int = 90,
    *,
    n_classes: int = 3,
    n_channels: int = 3,
    n_timepoints: int = 100,
    noise: float = 0.3,
    seed: int = 0,
) -> Collection:
    """Cases of a motion whose rate is its class: class k turns ``3 + 2 k`` times a case, at a phase drawn per case.

    The first two thirds are the training part; classes take turns, so both parts hold all of them. To be found: the
    strongest frequency tells the class without an error. The value at one step tells nothing, the phase being random.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(n_cases) % n_classes
    turns = (3 + 2 * labels)[:, None, None]  # [n, 1, 1]
    start = rng.uniform(0, 2 * np.pi, (n_cases, 1, 1))
    lead = np.linspace(0, np.pi, n_channels, endpoint=False)[:, None]  # channels see the same motion from several sides
    x = np.sin(2 * np.pi * turns * np.arange(n_timepoints) / n_timepoints + start + lead)  # [n, C, T]
    x += noise * rng.standard_normal(x.shape)
    cases = Collection.from_array(x.astype(np.float32), labels=labels, name="labeled_motions")
    return replace(cases, n_train=2 * n_cases // 3)


PLANT_CHANNELS = ("feeder_1", "feeder_2", "feeder_3", "feeder_4", "feeder_5", "ambient", "oil")
FOLLOWER_LAG = 4  # hours by which feeder_2 follows feeder_1
FOLLOWER_SHARE = 0.8
OIL_LAG = 2  # hours before the oil of the transformer notices the load
OIL_MEMORY = 8.0  # hours after which the oil has taken on all but 1/e of a change of the load


def simulated_plant(n_timepoints: int = 17420, seed: int = 0, frequency: str = "h") -> Series:
    """A transformer station of seven channels, simulated, not measured: five feeders, the air, the oil.

    What there is to learn:

    - Each feeder's load has a daily cycle of two harmonics, weaker at weekends. Size and phase of the cycle wobble over
      days and weeks, so that yesterday is a fair forecast and a model that weighs several days is a better one.
    - A yearly cycle and a slow growth move the level.
    - Loads and air carry fluctuations that last for hours. Those of ``feeder_2`` follow ``feeder_1`` after 4 hours at
      0.8 of their size: the other channel knows the next 4 hours.
    - ``oil`` is the air's temperature plus the summed load of 2 hours before, smoothed over 8 hours: almost smooth, and
      predictable from the loads.
    - White measurement noise on all, and a spike in about one of 2,000 steps of a feeder, predictable from nothing.

    The unit of load is arbitrary, temperatures are in degrees Celsius. Borders 70/10/20.
    """
    rng = np.random.default_rng(seed)
    hour = pd.Timedelta(hours=1) / pd.Timedelta(frequency if frequency[0].isdigit() else f"1{frequency}")  # in steps
    timestamps = pd.date_range("2020-01-01", periods=n_timepoints, freq=frequency).to_numpy("datetime64[ns]")
    time = np.arange(n_timepoints) / hour  # [T], in hours
    weekday = (2 + time / 24) % 7  # 0 is Monday; the first day is a Wednesday
    weekend = 1 / (1 + np.exp(-20 * (weekday - 5))) - 1 / (1 + np.exp(-20 * (weekday - 6.9)))  # 0..1, without a jump
    year = np.cos(2 * np.pi * (time / 24 - 15) / 365.25)  # 1 in mid January

    def wobble(n_channels: int, memory: float) -> NDArray[np.float64]:
        """A process [n, T] of unit variance that forgets its past within ``memory`` hours."""
        return _slow(rng, n_channels, n_timepoints, memory * hour)

    size = 1 + 0.25 * wobble(5, 24 * 10)
    shift = 1.0 * wobble(5, 24 * 7)  # hours
    angle = 2 * np.pi * (time + shift - np.array([[8], [10], [12], [14], [9]])) / 24  # [5, T]
    daily = np.cos(angle) + 0.4 * np.cos(2 * angle + 0.7)
    fluctuation = 0.4 * wobble(5, 12)
    fluctuation[1] = FOLLOWER_SHARE * _delayed(fluctuation[0], round(FOLLOWER_LAG * hour)) + 0.2 * wobble(1, 12)[0]
    level = 6 + 0.8 * year + 0.4 * time / 8766 + 0.3 * wobble(5, 24 * 30)
    load = level + size * (1 - 0.5 * weekend) * daily + fluctuation  # [5, T]

    ambient = 12 - 10 * year + 4 * np.cos(2 * np.pi * (time - 15) / 24) + 3 * wobble(1, 24 * 4)[0]
    forget = np.exp(-1 / (OIL_MEMORY * hour))
    heat = _delayed(load.sum(axis=0), round(OIL_LAG * hour))
    oil = ambient + lfilter([1 - forget], [1, -forget], heat, zi=[forget * heat[0]])[0]

    values = np.concatenate([load, ambient[None], oil[None]])  # [7, T]
    values += np.array([0.1] * 5 + [0.3, 0.1])[:, None] * rng.standard_normal(values.shape)
    spikes = rng.random((5, n_timepoints)) < 1 / 2000
    values[:5] += spikes * rng.choice([-3.0, 3.0], spikes.shape)
    return Series(
        values.astype(np.float32), PLANT_CHANNELS, timestamps, frequency,
        name="simulated_plant", borders=by_fraction(n_timepoints),
    )  # fmt: skip


def _slow(rng: Generator, n: int, n_timepoints: int, memory: float) -> NDArray[np.float64]:
    """First-order autoregressions [n, T] of unit variance, stationary from the first step; ``memory`` in steps."""
    keep = np.exp(-1 / memory)
    noise = rng.standard_normal((n, n_timepoints))
    start = keep * rng.standard_normal((n, 1))
    return lfilter([np.sqrt(1 - keep**2)], [1, -keep], noise, axis=1, zi=start)[0]


def _delayed(x: NDArray[np.float64], lag: int) -> NDArray[np.float64]:
    """[T] moved ``lag`` steps into the future; the first value stands for what came before."""
    return np.concatenate([np.full(lag, x[0]), x[: len(x) - lag]])
