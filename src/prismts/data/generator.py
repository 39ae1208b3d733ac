"""An endless supply of series of many kinds, for pre-training: series number i depends on the seed and on i alone.

    from prismts.data.generator import GeneratorConfig, generate, generate_many, write_generated
    series = generate(7, GeneratorConfig(n_channels=(1, 4)), seed=0)
    write_generated("corpus/", 10_000, n_jobs=8)

Sources of the idea: KernelSynth of Ansari et al. (Chronos, arXiv 2403.07815: random sums and products of kernels),
ForecastPFN (Dooley et al., arXiv 2311.01933: trend x season x noise), and the structural causal models of TabPFN. What
is ours: kernels are stationary, so that a sample costs one Fourier transform instead of a matrix factorization; several
channels come of mixtures of shared processes or of random graphs with delays; and every series may be cut into regimes,
and carry spikes and steps.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.signal import lfilter

from prismts.data.series import Series
from prismts.errors import SavedModelError, SettingsError, unknown_name
from prismts.writing import whole, write_whole

__all__ = ["KERNELS", "KINDS", "GeneratorConfig", "generate", "generate_many", "sample_process", "write_generated"]

Array = NDArray[np.float64]
Kernel = Callable[[Array], Array]

# steps of cycles that calendars make: hours, quarters of an hour, days, months, minutes
_PERIODS = (4, 7, 12, 24, 30, 48, 52, 60, 90, 96, 144, 168, 288, 336, 365, 672)


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """What is generated. Pairs are the smallest and the largest, between which every series draws."""

    n_timepoints: int | tuple[int, int] = (512, 1536)
    n_channels: int | tuple[int, int] = (1, 6)
    kinds: Mapping[str, float] = field(  # names of KINDS with their shares
        default_factory=lambda: {"gaussian_process": 1.0, "trend_season": 1.0, "causal_graph": 1.0, "regimes": 0.5}
    )
    spikes: float = 0.15  # share of series that carry them
    steps: float = 0.15  # share of series whose level jumps

    def __post_init__(self) -> None:
        for name, least in (("n_timepoints", 8), ("n_channels", 1)):
            given = getattr(self, name)
            low, high = _pair(given)
            if not least <= low <= high:
                raise SettingsError(f"{name} is at least {least}, or a rising pair of such, but got {given!r}.")
            if not isinstance(given, int):
                object.__setattr__(self, name, (low, high))
        for kind in self.kinds:
            if kind not in KINDS:
                raise unknown_name("kind of generated series", kind, KINDS)
        if not self.kinds or min(self.kinds.values()) < 0 or sum(self.kinds.values()) <= 0:
            raise SettingsError(
                f"kinds gives shares that are not negative, one at least above 0, but got {self.kinds}."
            )
        for name in ("spikes", "steps"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"{name} is a share of the series, from 0 to 1, but got {getattr(self, name)}.")


def generate(i: int, config: GeneratorConfig | None = None, *, seed: int = 0) -> Series:
    """Series number ``i``: values [C, T] of about unit scale, without gaps."""
    if i < 0:
        raise SettingsError(f"Generated series are numbered from 0, but got {i}.")
    config = config or GeneratorConfig()
    rng = np.random.default_rng((seed, i))
    n, n_channels = (
        int(rng.integers(low, high + 1)) for low, high in map(_pair, (config.n_timepoints, config.n_channels))
    )
    shares = np.array(list(config.kinds.values()), dtype=np.float64)
    kind = list(config.kinds)[int(rng.choice(len(shares), p=shares / shares.sum()))]
    values = _unit(KINDS[kind](rng, n_channels, n))
    if rng.random() < config.steps:
        values = values + _steps(rng, n_channels, n)
    if rng.random() < config.spikes:
        values = values + _spikes(rng, n_channels, n)
    return Series(values.astype(np.float32), name=f"generated_{i}")


def generate_many(
    numbers: Iterable[int], config: GeneratorConfig | None = None, *, seed: int = 0, n_jobs: int = 1
) -> list[Series]:
    """The series of these numbers, in their order; ``n_jobs`` processes share the work, and give the same series."""
    numbers = list(numbers)
    if n_jobs == 1 or len(numbers) < 2:
        return [generate(i, config, seed=seed) for i in numbers]
    from sklearn.utils.parallel import Parallel, delayed

    parts = np.array_split(numbers, min(len(numbers), 4 * (os.cpu_count() or 1) if n_jobs < 1 else 4 * n_jobs))
    work = (delayed(generate_many)(part.tolist(), config, seed=seed) for part in parts)
    made = cast("list[list[Series]]", Parallel(n_jobs=n_jobs)(work))
    return [series for part in made for series in part]


def write_generated(
    folder: Path | str,
    n_series: int,
    config: GeneratorConfig | None = None,
    *,
    seed: int = 0,
    n_jobs: int = 1,
    per_file: int = 1000,
) -> list[Path]:
    """Series 0 to ``n_series`` as Parquet files in ``folder``; files that are there already are kept, so it resumes.

    Each file is a long table of series with equally many channels: columns ``series`` (the number), ``step`` and
    ``channel_0`` on, which ``read(path, series="series", time="step")`` takes. The names tell channels and place:
    ``c3-00002.parquet``. ``generator.json`` says what made them.

    Raises:
        SavedModelError: the folder holds series of other settings.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    config, folder = config or GeneratorConfig(), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"seed": seed, "per_file": per_file, "config": asdict(config)}, sort_keys=True)
    note = folder / "generator.json"
    if note.exists() and note.read_text(encoding="utf-8") != text:
        raise SavedModelError(f"{folder} holds series of another seed or other settings. Name another folder.")
    write_whole(note, text)
    written: list[Path] = []
    for block, begin in enumerate(range(0, n_series, per_file)):
        numbers = range(begin, min(begin + per_file, n_series))
        done, files = folder / f".{block:05d}-{numbers.stop}.done", f"c*-{block:05d}.parquet"
        if done.exists():
            written += folder.glob(files)
            continue
        for old in (*folder.glob(f".{block:05d}-*.done"), *folder.glob(files)):  # of another number of series
            old.unlink()
        by_width: dict[int, list[tuple[int, Series]]] = {}
        for i, series in zip(numbers, generate_many(numbers, config, seed=seed, n_jobs=n_jobs), strict=True):
            by_width.setdefault(series.n_channels, []).append((i, series))
        for n_channels, some in sorted(by_width.items()):
            columns: dict[str, Any] = {
                "series": np.concatenate([np.full(len(one), i, dtype=np.int64) for i, one in some]),
                "step": np.concatenate([np.arange(len(one), dtype=np.int64) for _, one in some]),
            }
            for c in range(n_channels):
                columns[f"channel_{c}"] = np.concatenate([one.values[c] for _, one in some])
            with whole(folder / f"c{n_channels}-{block:05d}.parquet") as partial:
                pq.write_table(pa.table(columns), partial)
        done.touch()
        written += folder.glob(files)
    return sorted(written)


# ---- Gaussian processes


def _squared_exponential(rng: Generator, n: int) -> Kernel:
    length = _between(rng, 2, n / 2)
    return lambda lag: np.exp(-0.5 * (lag / length) ** 2)


def _ornstein_uhlenbeck(rng: Generator, n: int) -> Kernel:
    length = _between(rng, 2, n)
    return lambda lag: np.exp(-lag / length)


def _matern(rng: Generator, n: int) -> Kernel:
    """Of smoothness 3/2: its samples have one derivative."""
    length = _between(rng, 2, n / 2)
    return lambda lag: (1 + np.sqrt(3) * lag / length) * np.exp(-np.sqrt(3) * lag / length)


def _rational_quadratic(rng: Generator, n: int) -> Kernel:
    length, mix = _between(rng, 2, n / 4), _between(rng, 0.3, 3)
    return lambda lag: (1 + (lag / length) ** 2 / (2 * mix)) ** -mix


def _periodic(rng: Generator, n: int) -> Kernel:
    """A cycle that slowly forgets itself: a pure one has no honest sample on a circle of another length."""
    period, sharp = _period(rng, n), _between(rng, 0.4, 2)
    memory = period * _between(rng, 4, 60)
    return lambda lag: np.exp(-2 * np.sin(np.pi * lag / period) ** 2 / sharp**2) * np.exp(-0.5 * (lag / memory) ** 2)


KERNELS: dict[str, Callable[[Generator, int], Kernel]] = {
    "squared_exponential": _squared_exponential,
    "ornstein_uhlenbeck": _ornstein_uhlenbeck,
    "matern": _matern,
    "rational_quadratic": _rational_quadratic,
    "periodic": _periodic,
}


def sample_process(rng: Generator, kernel: Kernel, n_samples: int, n: int) -> Array:
    """Samples [S, n] of the Gaussian process of mean 0 with a stationary kernel, by embedding it into a circle.

    ``kernel`` gives the covariance at a lag in steps. On a circle of eight times as many steps the covariance matrix is
    diagonal in Fourier space. Where the kernel does not fit on the circle some eigenvalues are negative: they are taken
    as 0, and the sample is of the kernel that is left, at the same variance.
    Source: Dietrich and Newsam, 1997.
    """
    size = 2 ** int(np.ceil(np.log2(8 * n)))
    lag = np.minimum(np.arange(size), size - np.arange(size)).astype(np.float64)
    told = kernel(lag)
    power = np.maximum(np.fft.rfft(told).real, 0.0)  # [size/2 + 1]
    power *= told[0] / np.fft.irfft(power, n=size)[0]  # the variance stays, also where something was cut off
    half = size // 2 + 1
    draws = rng.standard_normal((2, n_samples, half))
    wave = (draws[0] + 1j * draws[1]) * np.sqrt(power * size / 2)
    wave[:, [0, -1]] = draws[0][:, [0, -1]] * np.sqrt(power[[0, -1]] * size)  # these two are real
    return np.fft.irfft(wave, n=size)[:, :n]


def _kernel_mixture(rng: Generator, n: int) -> Kernel:
    """One to four kernels, each added to or multiplied with what came before."""
    names = list(KERNELS)
    kernel = KERNELS[names[int(rng.integers(len(names)))]](rng, n)
    for _ in range(int(rng.integers(0, 4))):
        weight, other = _between(rng, 0.2, 2), KERNELS[names[int(rng.integers(len(names)))]](rng, n)
        kernel = _product(kernel, other) if rng.random() < 0.4 else _sum(kernel, other, weight)
    return kernel


def _product(a: Kernel, b: Kernel) -> Kernel:
    return lambda lag: a(lag) * b(lag)


def _sum(a: Kernel, b: Kernel, weight: float) -> Kernel:
    return lambda lag: a(lag) + weight * b(lag)


def _gaussian_process(rng: Generator, n_channels: int, n: int) -> Array:
    """Channels that share some processes and have some of their own, with a little white noise."""
    n_shared = int(rng.integers(1, n_channels + 1))
    shared = np.concatenate([_unit(sample_process(rng, _kernel_mixture(rng, n), 1, n)) for _ in range(n_shared)])
    mixing = rng.standard_normal((n_channels, n_shared)) * (rng.random((n_channels, n_shared)) < 0.7)
    own = _unit(sample_process(rng, _kernel_mixture(rng, n), n_channels, n))
    values = mixing @ shared + _between(rng, 0.2, 2) * own
    return _unit(values) + _between(rng, 0.005, 0.3) * rng.standard_normal(values.shape)


# ---- trend x season x noise


def _trend(rng: Generator, n: int) -> Array:
    """Straight, bent at a few places, saturating, or none: [n], about within -1..1."""
    time = np.linspace(0, 1, n)
    which = int(rng.integers(4))
    if which == 0:
        return np.zeros(n)
    if which == 1:
        return rng.standard_normal() * time
    if which == 2:
        places = np.concatenate([[0], np.sort(rng.random(int(rng.integers(1, 5)))), [1]])
        return np.interp(time, places, rng.standard_normal(len(places)).cumsum() / 2)
    return rng.choice([-1.0, 1.0]) / (1 + np.exp(-(time - rng.random()) * _between(rng, 3, 30)))


def _season(rng: Generator, period: float, n: int) -> Array:
    """A cycle of several harmonics [n] whose size wobbles, or a sharp one that is mostly flat."""
    angle = 2 * np.pi * (np.arange(n) / period + rng.random())
    if rng.random() < 0.2:
        return _unit(np.exp(_between(rng, 1, 8) * (np.cos(angle) - 1))[None])[0]
    n_harmonics = int(min(rng.integers(1, 7), max(1, period // 2 - 1)))
    order = np.arange(1, n_harmonics + 1)[:, None]
    size = rng.standard_normal((2, n_harmonics, 1)) / order ** _between(rng, 0.5, 2)
    cycle = _unit((size[0] * np.cos(order * angle) + size[1] * np.sin(order * angle)).sum(0)[None])[0]
    wobble = _slow(rng, 1, n, period * _between(rng, 3, 40))[0]
    return cycle * (1 + rng.choice([0.0, 0.3]) * wobble)


def _noise(rng: Generator, n_channels: int, n: int) -> Array:
    """White, lasting, heavy in the tails, or of changing size: [C, n] of about unit scale."""
    which = int(rng.integers(4))
    if which == 0:
        return rng.standard_normal((n_channels, n))
    if which == 1:
        return _slow(rng, n_channels, n, _between(rng, 1, 100))
    if which == 2:
        return rng.standard_t(3, (n_channels, n)) / np.sqrt(3)
    return rng.standard_normal((n_channels, n)) * np.exp(0.7 * _slow(rng, n_channels, n, _between(rng, 20, 400)))


def _trend_season(rng: Generator, n_channels: int, n: int) -> Array:
    """Channels of the same cycles, each with its own phase, trend and share of them; added or multiplied."""
    periods = [_period(rng, n) for _ in range(int(rng.integers(1, 4)))]
    size = np.exp(0.7 * rng.standard_normal((n_channels, len(periods))))
    season = np.stack([sum(a * _season(rng, p, n) for a, p in zip(row, periods, strict=True)) for row in size])
    trend = np.stack([_trend(rng, n) for _ in range(n_channels)]) * _between(rng, 0.3, 5)
    if rng.random() < 0.4:
        season = season * (1 + np.abs(trend))
    return season + trend + _between(rng, 0.02, 1) * _noise(rng, n_channels, n)


# ---- graphs and regimes

_LINKS: tuple[Callable[[Array], Array], ...] = (
    lambda x: x,
    np.tanh,
    lambda x: np.maximum(x, 0.0),
    lambda x: x * np.abs(x) / 2,
    lambda x: np.sign(x),
    lambda x: np.sin(2 * x),
)


def _causal_graph(rng: Generator, n_channels: int, n: int) -> Array:
    """Nodes of a random acyclic graph, of which some are seen; roots are processes, others follow their parents."""
    n_nodes = n_channels + int(rng.integers(1, 4))
    nodes: list[Array] = []
    for k in range(n_nodes):
        parents = [p for p in range(k) if rng.random() < 2.0 / max(k, 2)]
        if not parents:
            make = _gaussian_process if rng.random() < 0.5 else _trend_season
            nodes.append(_unit(make(rng, 1, n))[0])
            continue
        value = np.zeros(n)
        for parent in parents:
            link = _LINKS[int(rng.integers(len(_LINKS)))]
            lag = min(int(_between(rng, 1, 49)) - 1, n - 1)
            effect = link(np.concatenate([np.full(lag, nodes[parent][0]), nodes[parent][: n - lag]]))
            if rng.random() < 0.3:  # what takes up its cause slowly
                forget = np.exp(-1 / _between(rng, 2, 40))
                effect = lfilter([1 - forget], [1, -forget], effect, zi=[forget * effect[0]])[0]
            value += rng.choice([-1.0, 1.0]) * _between(rng, 0.3, 2) * effect
        nodes.append(_unit(value[None] + _between(rng, 0.02, 0.5) * _noise(rng, 1, n))[0])
    seen = np.sort(rng.permutation(n_nodes)[:n_channels])
    return np.stack([nodes[k] for k in seen])


def _regimes(rng: Generator, n_channels: int, n: int) -> Array:
    """Two or three states of one system, each with its own law, level and size, that take turns at random times."""
    n_states = int(rng.integers(2, 4))
    makers = (_gaussian_process, _trend_season)
    states = np.stack([_unit(makers[int(rng.integers(2))](rng, n_channels, n)) for _ in range(n_states)])  # [K, C, n]
    states *= np.exp(0.5 * rng.standard_normal((n_states, n_channels, 1)))
    states += rng.standard_normal((n_states, n_channels, 1))
    changes = rng.random(n) < _between(rng, 2, 12) / n
    state = (int(rng.integers(n_states)) + np.cumsum(changes * rng.integers(1, n_states, n))) % n_states  # [n]
    return np.take_along_axis(states, np.broadcast_to(state, (1, n_channels, n)), axis=0)[0]


KINDS: dict[str, Callable[[Generator, int, int], Array]] = {
    "gaussian_process": _gaussian_process,
    "trend_season": _trend_season,
    "causal_graph": _causal_graph,
    "regimes": _regimes,
}


# ---- what may happen to any series


def _spikes(rng: Generator, n_channels: int, n: int) -> Array:
    """Single steps far off, at random times or at a fixed rhythm: [C, n]."""
    if rng.random() < 0.3:
        period = int(_period(rng, n))
        hit = np.broadcast_to((np.arange(n) + int(rng.integers(period))) % period == 0, (n_channels, n))
    else:
        hit = rng.random((n_channels, n)) < _between(rng, 0.001, 0.02)
        hit[:, int(rng.integers(n))] = True
    return hit * rng.choice([-1.0, 1.0], (n_channels, 1)) * (2 + 2 * rng.exponential(size=(n_channels, n)))


def _steps(rng: Generator, n_channels: int, n: int) -> Array:
    """Levels that jump at a few times, for all channels or for some of them: [C, n]."""
    jumps = np.zeros((n_channels, n))
    times = rng.integers(1, n, int(rng.integers(1, 6)))
    jumps[:, times] = 1.5 * rng.standard_normal((n_channels, len(times)))
    moved = rng.random((n_channels, 1)) < 0.7
    moved[int(rng.integers(n_channels))] = True
    return (jumps * moved).cumsum(1)


# ---- small parts


def _unit(x: Array) -> Array:
    """Rows at mean 0 and scale 1; a flat one stays flat."""
    x = x - x.mean(-1, keepdims=True)
    return x / np.maximum(x.std(-1, keepdims=True), 1e-6)


def _between(rng: Generator, low: float, high: float) -> float:
    """A positive number, evenly on the scale of its logarithm."""
    return float(np.exp(rng.uniform(np.log(low), np.log(max(high, low)))))


def _period(rng: Generator, n: int) -> float:
    """Steps of a cycle that fits at least twice into n steps: of a calendar, or any."""
    fitting = [p for p in _PERIODS if p <= n // 2]
    if fitting and rng.random() < 0.7:
        return float(fitting[int(rng.integers(len(fitting)))])
    return _between(rng, 4, max(n // 2, 4))


def _slow(rng: Generator, n_channels: int, n: int, memory: float) -> Array:
    """First-order autoregressions [C, n] of unit variance that forget within ``memory`` steps."""
    keep = np.exp(-1 / memory)
    start = keep * rng.standard_normal((n_channels, 1))
    noise = rng.standard_normal((n_channels, n))
    return lfilter([np.sqrt(1 - keep**2)], [1, -keep], noise, axis=1, zi=start)[0]


def _pair(given: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(given, int):
        return given, given
    pair = tuple(given)
    if len(pair) != 2:
        raise SettingsError(f"A number, or two of them, the smallest and the largest, but got {given!r}.")
    return pair[0], pair[1]
