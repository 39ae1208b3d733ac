"""What a data set is like, in numbers: gaps, the cycle that stands out, and the four conditions of the cross learner.

The four are those the slides of the CNN-GRU cross learner name: a daily skeleton that wobbles, channels that move
together, slow movements that dominate, and a level or spread that changes over time. What is measured decides what is
suggested, so no value of the test part is read for it: how far the test part itself has moved is told and not used.
Gaps alone, which are no values, are counted everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from prismts.data.alignment import day_lags, full_days
from prismts.data.series import Collection, Series
from prismts.data.splits import Borders, by_fraction
from prismts.errors import DataError, PrismError, unknown_name

__all__ = ["Condition", "Cycle", "Gaps", "Limits", "Measure", "Profile", "profile"]

MOST_SERIES = 16  # of a collection that are measured, spread evenly
MOST_CHANNELS = 64  # of a series that are measured, spread evenly: pairs of channels grow with the square
MOST_STEPS = 2**18  # of a series that are measured, the last ones
FEWEST_STEPS = 32  # for a spectrum
STANDS_OUT = 8.0  # times the spectrum around it; of 300 random walks of 200 to 5000 steps, one showed such a peak
OVERTONES = 4  # the cycle and its next three; what is faster is called residual


@dataclass(frozen=True)
class Measure:
    """A number, or why there is none."""

    value: float | None
    reason: str = ""  # a sentence, where value is None

    def told(self, form: str = ".3f") -> str:
        """The number as a text, or "not measurable" with the reason."""
        return f"not measurable: {self.reason}" if self.value is None else f"{self.value:{form}}"


@dataclass(frozen=True)
class Gaps:
    """What was not observed, over all series and channels and all their steps."""

    share: float  # of all values
    n_gaps: int  # stretches of unobserved steps of one channel
    longest: int  # steps


@dataclass(frozen=True)
class Cycle:
    """The cycle that stands out most of the spectrum around it."""

    period: float  # steps, not rounded; right to about a tenth of a turn in half the series
    strength: float  # share of the energy at the cycle and its first three overtones, 0 to 1

    @property
    def season(self) -> int:
        """The period in whole steps, as a seasonal naive forecast takes it."""
        return round(self.period)


@dataclass(frozen=True)
class Limits:
    """From where on a condition is said to hold; our reading, the slides give no limits but name two sets.

    Round numbers, of which ETTh2 and ETTm2 pass all, as the slides say; no forecast error was looked at to choose them.
    ETTh1 and ETTm1 miss the last one by a hair (0.24 and 1.24): near a limit, read the number and not the word.
    """

    spai: float = 0.7  # at least; with a phase drift above 0
    co_movement: float = 0.3  # at least
    low_frequency: float = 0.8  # at least
    mean_shift: float = 0.25  # at least, in standard deviations of train; or
    scale_change: float = 1.25  # the standard deviation grows or shrinks by at least this factor


@dataclass(frozen=True)
class Condition:
    """One of the four conditions: whether it holds, and the numbers that say so."""

    name: str
    holds: bool | None  # None where it could not be measured
    sentence: str


@dataclass(frozen=True)
class Profile:
    """What :func:`profile` found; ``str`` of it is what ``prism check`` shows."""

    name: str
    n_steps: int  # of the longest series, before its test part
    gaps: Gaps
    cycle: Cycle | None
    channel: str  # whose days are compared
    phase_drift: Measure  # fraction of a day, of that channel
    spai: Measure  # 0 to 1, of that channel
    median_phase_drift: Measure  # the same, median over channels: told, not used
    median_spai: Measure
    co_movement: Measure  # mean absolute correlation of pairs of channels, 0 to 1
    low_frequency: Measure  # share of spectral energy in the cycle's first overtones and all that is slower, 0 to 1
    mean_shift: Measure  # from train to validation, in standard deviations of train, median over channels
    scale_ratio: Measure  # standard deviation of validation over that of train, median over channels
    test_mean_shift: Measure  # the same from train to test: told, never used for a suggestion
    test_scale_ratio: Measure
    notes: tuple[str, ...] = ()  # what was left out of the measuring
    limits: Limits = Limits()

    @property
    def residual(self) -> Measure:
        """Share of spectral energy in all that is faster than the cycle's third overtone, 0 to 1."""
        low = self.low_frequency
        return low if low.value is None else Measure(1 - low.value)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The four conditions, in the order of the slides."""
        limits, drift, spai = self.limits, self.phase_drift, self.spai
        wobbles = None
        if drift.value is not None and spai.value is not None:
            wobbles = spai.value >= limits.spai and drift.value > 0
        low = self.low_frequency
        return (
            Condition(
                "a daily skeleton that wobbles", wobbles,
                spai.told() if wobbles is None else
                f"{self.channel} has SPAI {spai.told()} (at least {limits.spai:g}) and Phase-Drift "
                f"{drift.told('.4f')} of a day (above 0); median over channels {self.median_spai.told()} and "
                f"{self.median_phase_drift.told('.4f')}",
            ),
            Condition(
                "channels that move together", _at_least(self.co_movement, limits.co_movement),
                _compared("mean absolute correlation", self.co_movement, limits.co_movement),
            ),
            Condition(
                "slow movements dominate", _at_least(low, limits.low_frequency),
                _compared("share of low frequencies", low, limits.low_frequency)
                + (f", residual {self.residual.told()}" if low.value is not None else ""),
            ),
            self._shifts(),
        )  # fmt: skip

    def _shifts(self) -> Condition:
        name, shift, ratio = "level or spread changes", self.mean_shift, self.scale_ratio
        if shift.value is None or ratio.value is None:
            return Condition(name, None, shift.told())
        factor = max(ratio.value, 1 / ratio.value) if ratio.value > 0 else float("inf")
        holds = shift.value >= self.limits.mean_shift or factor >= self.limits.scale_change
        return Condition(
            name, holds,
            f"from train to validation the mean moves by {shift.told('.2f')} standard deviations (at least "
            f"{self.limits.mean_shift:g}), the standard deviation times {ratio.told('.2f')} (or by a factor of "
            f"{self.limits.scale_change:g})",
        )  # fmt: skip

    @property
    def suggestion(self) -> tuple[str, ...]:
        """What the numbers suggest, one sentence each, with the numbers. Suggestions are to be tried on validation."""
        conditions = self.conditions
        holding = [condition.name for condition in conditions if condition.holds]
        unknown = [condition.name for condition in conditions if condition.holds is None]
        told = f"{len(holding)} of the 4 conditions under which the slides expect cross_learner to gain hold"
        told += f" ({', '.join(holding)})" if holding else ""
        told += f"; not measurable: {', '.join(unknown)}" if unknown else ""
        told += ": try it beside convtimenet." if len(holding) >= 3 else ": too few to try it before convtimenet."
        lines = [told]
        together = self.co_movement.value
        if together is not None and together >= self.limits.co_movement:
            lines.append(
                f"Channels correlate at {together:.2f} on average: a model that mixes them (cross_learner, or "
                'convtimenet with channels="mixed") has something to mix.'
            )
        elif together is not None:
            lines.append(
                f"Channels correlate at only {together:.2f} on average: keep them apart (convtimenet as it comes)."
            )
        if self.cycle is not None:
            lines.append(
                f"A cycle of {self.cycle.season} steps carries {self.cycle.strength:.0%} of the energy: seasonal_naive "
                f"with that season is the floor to beat, and a context of {2 * self.cycle.season} steps sees it twice."
            )
        else:
            lines.append(
                f"No cycle stands out {STANDS_OUT:g} times above the spectrum around it: last_value is the floor."
            )
        if conditions[3].holds:
            lines.append(
                f"From train to validation the mean moves by {self.mean_shift.told('.2f')} standard deviations and the "
                f"standard deviation changes to {self.scale_ratio.told('.2f')} times its size: keep the normalization "
                "of each window, which takes level and scale away."
            )
        if self.gaps.share > 0:
            lines.append(
                f"{self.gaps.share:.2%} of the values were not observed, at most {self.gaps.longest} steps in a row: "
                f"a context well above {self.gaps.longest} steps always sees something."
            )
        return tuple(lines)

    def __str__(self) -> str:
        gaps = self.gaps
        lines = [f"{self.name}: profile of the first {self.n_steps:,} steps, before the test part"]
        lines.append(
            f"  gaps           {gaps.share:.2%} not observed, {gaps.n_gaps:,} gaps, the longest {gaps.longest:,} steps"
            if gaps.n_gaps
            else "  gaps           none"
        )
        cycle = self.cycle
        lines.append(
            "  cycle          none stands out"
            if cycle is None
            else f"  cycle          {cycle.season} steps, {cycle.strength:.0%} of the energy"
        )
        marks = {True: "yes", False: "no ", None: "?  "}
        lines += [f"  [{marks[c.holds]}] {c.name}: {c.sentence}" for c in self.conditions]
        if self.test_mean_shift.value is not None:
            lines.append(
                f"  test part (told, not used): mean {self.test_mean_shift.told('.2f')} standard deviations from "
                f"train, standard deviation times {self.test_scale_ratio.told('.2f')}"
            )
        lines += [f"  - {note}" for note in self.notes]
        lines += [f"  > {line}" for line in self.suggestion]
        return "\n".join(lines)


def profile(
    data: Series | Collection,
    *,
    channel: str | None = None,
    borders: Borders | None = None,
    limits: Limits | None = None,
) -> Profile:
    """Measure a series or a collection; what cannot be measured says why.

    - Gaps: runs of NaN, over everything, the test part too: they are no values.
    - Cycle: the peak of the averaged spectrum (Welch, halves that overlap) that holds most energy above the spectrum
      around it, at least four turns in half the series; if it is an overtone of another peak, that one.
    - Phase-Drift and SPAI: see ``data.alignment``; of one channel, as on the slides, and the median over channels.
    - Co-movement: correlation of pairs of channels over the steps where both were observed; channels that never move
      have none.
    - Low frequencies: share of the spectral energy at a fourth of the cycle's period and slower, mean over channels.
      For the two spectra only, gaps are bridged by lines and channels observed in less than half of the steps left out.
    - Change: median over channels of the mean's move and of the ratio of standard deviations.

    Of more than 64 channels, 64 spread evenly are measured, of more than 16 series 16, and of more than 262,144 steps
    the last ones; the notes say so. Of several series the median is given, where at least half can be measured. Cases
    for classification with an official train part are measured there, and have no change from train to validation.

    Args:
        data: what to measure.
        channel: whose days are compared; the last one, as on the slides, if None.
        borders: where train, validation and test lie; those of the series, or 70/10/20, if None.
        limits: from where on a condition is said to hold.
    """
    whole = Collection.of(data) if isinstance(data, Series) else data
    official = data.borders if isinstance(data, Series) and borders is None else borders
    cases = whole.train if whole.n_train else whole
    notes: list[str] = []
    picks = _spread(len(cases), MOST_SERIES)
    if len(picks) < len(cases):
        notes.append(f"Measured were {len(picks)} of {len(cases):,} series, spread evenly.")
    channels = _spread(cases.n_channels, MOST_CHANNELS)
    if len(channels) < cases.n_channels:
        notes.append(f"Measured were {len(channels)} of {cases.n_channels:,} channels and their pairs, spread evenly.")
    if channel is not None and channel not in cases.channels:
        raise unknown_name("channel", channel, cases.channels)
    chosen = cases.n_channels - 1 if channel is None else cases.channels.index(channel)
    longest = 0
    found: list[_Found] = []
    for i in picks:
        series = cases[int(i)]
        cuts = _borders(series, official, cut=not whole.n_train)
        end = len(series) if cuts is None else cuts.validation_end
        longest = max(longest, end)
        found.append(_measured(series, channels, chosen, cuts, end))
    if longest > MOST_STEPS:
        notes.append(f"Spectra, correlations and days are those of the last {MOST_STEPS:,} steps before the test part.")
    cycles = [one.cycle for one in found if one.cycle is not None]
    cycle = None
    if 2 * len(cycles) >= len(found):
        cycle = sorted(cycles, key=lambda c: c.period)[len(cycles) // 2]
    together: dict[str, Measure] = {}
    for each in fields(_Found):
        if each.name != "cycle":
            together[each.name] = _median([getattr(one, each.name) for one in found])
    return Profile(
        name=whole.name, channel=cases.channels[chosen], n_steps=longest, gaps=_gaps(whole), cycle=cycle,
        notes=tuple(notes), limits=limits or Limits(), **together,
    )  # fmt: skip


# ---- one series


@dataclass(frozen=True)
class _Found:
    """What one series showed."""

    cycle: Cycle | None
    phase_drift: Measure
    spai: Measure
    median_phase_drift: Measure
    median_spai: Measure
    co_movement: Measure
    low_frequency: Measure
    mean_shift: Measure
    scale_ratio: Measure
    test_mean_shift: Measure
    test_scale_ratio: Measure


def _measured(series: Series, channels: NDArray[np.int64], chosen: int, borders: Borders | None, end: int) -> _Found:
    begin = max(0, end - MOST_STEPS)
    x = series.values[channels, begin:end].astype(np.float64)  # [M, T]
    times = None if series.timestamps is None else series.timestamps[begin:end]
    drift, spai = _alignment(series.values[chosen : chosen + 1, begin:end], times)
    median_drift, median_spai = _alignment(x, times)
    energy = _usable(x)
    cycle = _cycle(energy)
    if borders is None:
        reason = Measure(None, "too few steps, or cases without a validation part")
        shift = ratio = test_shift = test_ratio = reason
    else:
        values = series.values
        shift, ratio = _change(values, channels, borders.train, borders.validation)
        test_shift, test_ratio = _change(values, channels, borders.train, borders.test)
    return _Found(
        cycle, drift, spai, median_drift, median_spai, _co_movement(x), _low_frequency(energy, cycle), shift, ratio,
        test_shift, test_ratio,
    )  # fmt: skip


def _alignment(x: NDArray[np.floating], times: NDArray[np.datetime64] | None) -> tuple[Measure, Measure]:
    if times is None:
        nothing = Measure(None, "the series has no timestamps, so its days are unknown")
        return nothing, nothing
    try:
        days = full_days(times)
    except DataError as error:
        return Measure(None, _first_sentence(error)), Measure(None, _first_sentence(error))
    drifts: list[float] = []
    spais: list[float] = []
    reason = "nothing in it ever moves"
    for channel in x:
        if np.nanmax(channel, initial=-np.inf) <= np.nanmin(channel, initial=np.inf):
            continue  # never moves, or was never observed
        try:
            lags = day_lags(channel, times, days)
        except DataError as error:
            reason = _first_sentence(error)
            continue
        drifts.append(lags.phase_drift)
        spais.append(lags.spai)
    if not drifts:
        return Measure(None, reason), Measure(None, reason)
    return Measure(float(np.median(drifts))), Measure(float(np.median(spais)))


def _co_movement(x: NDArray[np.float64]) -> Measure:
    """Mean absolute correlation over pairs of the channels [M, T], each pair where both were observed."""
    if len(x) < 2:
        return Measure(None, "there is one channel only")
    seen = ~np.isnan(x)
    n_seen = seen.sum(axis=1, keepdims=True).clip(min=1)
    centered = np.where(seen, x, 0.0)
    centered -= centered.sum(axis=1, keepdims=True) / n_seen
    centered *= seen
    size = np.sqrt((centered**2).sum(axis=1, keepdims=True) / n_seen)
    level = np.abs(np.where(seen, x, 0.0)).max(axis=1, keepdims=True, initial=0.0)
    moves = (size > 1e-12 * level)[:, 0]
    centered, seen = (centered / np.where(size > 0, size, 1.0))[moves], seen[moves].astype(np.float64)
    if len(centered) < 2:
        return Measure(None, "fewer than two channels ever move")
    n = seen @ seen.T  # [M, M], steps at which both were observed
    total = centered @ seen.T  # of the row's channel, where the column's was observed too
    squares = centered**2 @ seen.T
    n_safe = n.clip(min=1)
    covariance = centered @ centered.T / n_safe - total * total.T / n_safe**2
    variance = (squares / n_safe - (total / n_safe) ** 2).clip(min=0)
    scale = np.sqrt(variance * variance.T)
    pairs = np.triu((n >= 3) & (scale > 1e-12), k=1)
    if not pairs.any():
        return Measure(None, "no two channels were observed at the same steps")
    return Measure(float(np.minimum(np.abs(covariance[pairs] / scale[pairs]), 1).mean()))


def _usable(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Channels [m, T] at mean 0 and variance 1 with gaps bridged by lines, less those that are flat or mostly gaps."""
    usable: list[NDArray[np.float64]] = []
    for channel in x:
        seen = ~np.isnan(channel)
        if 2 * seen.sum() < max(len(channel), 2):
            continue
        if not seen.all():
            step = np.arange(len(channel))
            channel = np.interp(step, step[seen], channel[seen])
        spread = channel.std()
        if spread > 1e-12 * np.abs(channel).max():
            usable.append((channel - channel.mean()) / spread)
    return np.stack(usable) if usable else np.empty((0, x.shape[1]))


def _cycle(x: NDArray[np.float64]) -> Cycle | None:
    """The cycle of channels [m, T] that holds most energy above the spectrum around it, if any stands out."""
    n_segment = x.shape[1] // 2
    if not len(x) or x.shape[1] < FEWEST_STEPS:
        return None
    window = np.hanning(n_segment + 1)[:-1]
    energy = np.zeros(n_segment // 2 + 1)  # at k turns in half the series
    for begin in (0, n_segment // 2, x.shape[1] - n_segment):
        for channel in x[:, begin : begin + n_segment]:
            energy += np.abs(np.fft.rfft((channel - channel.mean()) * window)) ** 2
    k = np.arange(len(energy))
    peaks = np.flatnonzero((energy[1:-1] > energy[:-2]) & (energy[1:-1] >= energy[2:])) + 1
    peaks = peaks[(peaks >= 4) & (peaks <= n_segment // 3)]  # four turns at least, three steps at least
    likely = {*peaks[np.argsort(-energy[peaks])[:40]], *peaks[np.argsort(-(energy * k)[peaks])[:40]]}
    standing: dict[int, float] = {}  # energy above what is around, by peak
    for peak in sorted(int(p) for p in likely):
        # the geometric mean of both sides is exact for every power law, so a random walk shows no peak
        slower, faster = energy[max(1, peak // 3) : peak - 1], energy[peak + 2 : 3 * peak + 3]
        if not len(faster):
            continue
        around = float(np.sqrt(np.median(slower) * np.median(faster)))
        above = float(energy[peak - 1 : peak + 2].sum()) - 3 * around
        if energy[peak] > STANDS_OUT * around:
            standing[peak] = above
    if not standing:
        return None
    best = max(standing, key=lambda peak: standing[peak])
    for overtone in range(OVERTONES, 1, -1):  # a cycle whose overtone is stronger than itself is still the cycle
        base = [peak for peak in standing if abs(peak * overtone - best) <= overtone / 2]
        if base:
            best = base[0]
            break
    left, middle, right = np.log(energy[best - 1 : best + 2] + 1e-300)
    bend = left - 2 * middle + right
    place = best + (0.5 * (left - right) / bend if bend < 0 else 0.0)  # of the parabola through the three
    near = np.zeros(len(energy), dtype=bool)
    for overtone in range(1, OVERTONES + 1):
        at = round(overtone * place)
        near[at - 1 : at + 2] = True
    return Cycle(float(n_segment / place), float(energy[near].sum() / energy[1:].sum()))


def _low_frequency(x: NDArray[np.float64], cycle: Cycle | None) -> Measure:
    """Share of the energy of channels [m, T] at the cycle's first overtones and slower, mean over channels."""
    if not len(x):
        return Measure(None, "no channel moves and was observed in half of its steps")
    if x.shape[1] < FEWEST_STEPS:
        return Measure(None, f"a spectrum needs {FEWEST_STEPS} steps, but there are {x.shape[1]}")
    if cycle is None:
        return Measure(None, "no cycle stands out by which fast could be told from slow")
    if cycle.period <= 2 * OVERTONES:
        return Measure(None, f"a cycle of {cycle.season} steps leaves nothing that is faster than its third overtone")
    cut = int(OVERTONES / cycle.period * x.shape[1] * (1 + 1e-3)) + 1  # with the bin next to the last overtone
    shares: list[float] = []
    for channel in x:
        energy = np.abs(np.fft.rfft(channel)) ** 2
        shares.append(float(energy[1 : cut + 1].sum() / energy[1:].sum()))
    return Measure(float(np.mean(shares)))


def _change(
    values: NDArray[np.floating], channels: NDArray[np.int64], before: tuple[int, int], after: tuple[int, int]
) -> tuple[Measure, Measure]:
    """By how many standard deviations the mean moves from one stretch to another, and the ratio of their deviations."""
    shifts: list[float] = []
    ratios: list[float] = []
    for c in channels:
        one, other = (values[c, slice(*stretch)].astype(np.float64) for stretch in (before, after))
        one, other = one[~np.isnan(one)], other[~np.isnan(other)]
        if not one.size or not other.size or (spread := one.std()) <= 1e-12 * np.abs(one).max():
            continue
        shifts.append(abs(float(other.mean() - one.mean())) / float(spread))
        ratios.append(float(other.std() / spread))
    if not shifts:
        nothing = Measure(None, "no channel moves in train and was observed in both parts")
        return nothing, nothing
    return Measure(float(np.median(shifts))), Measure(float(np.median(ratios)))


# ---- parts


def _borders(series: Series, official: Borders | None, cut: bool) -> Borders | None:
    """Where to cut a series in time; None where it cannot be cut."""
    if not cut:
        return None
    if official is not None and official.test_end <= len(series):
        return official
    try:
        borders = by_fraction(len(series))
    except PrismError:
        return None
    return borders if borders.validation_end > borders.train_end else None


def _gaps(data: Collection) -> Gaps:
    n_missing = n_gaps = longest = 0
    filled = data.lengths > 0
    first, last = data.offsets[:-1][filled], data.offsets[1:][filled] - 1
    for channel in data.values:
        missing = np.isnan(channel)
        if not missing.any():
            continue
        n_missing += int(missing.sum())
        starts, ends = missing.copy(), missing.copy()
        starts[1:] &= ~missing[:-1]
        ends[:-1] &= ~missing[1:]
        starts[first], ends[last] = missing[first], missing[last]  # a gap does not go on in the next series
        n_gaps += int(starts.sum())
        longest = max(longest, int((np.flatnonzero(ends) - np.flatnonzero(starts)).max()) + 1)
    return Gaps(n_missing / max(1, data.values.size), n_gaps, longest)


def _spread(n: int, most: int) -> NDArray[np.int64]:
    """At most ``most`` of n numbers, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))


def _median(measures: Sequence[Measure]) -> Measure:
    """The median of those that could be measured, or the first reason where that is less than half of them."""
    values = [one.value for one in measures if one.value is not None]
    if 2 * len(values) >= len(measures):
        return Measure(float(np.median(values)))
    return next(one for one in measures if one.value is None)


def _at_least(measure: Measure, limit: float) -> bool | None:
    return None if measure.value is None else measure.value >= limit


def _compared(name: str, measure: Measure, limit: float) -> str:
    return measure.told() if measure.value is None else f"{name} {measure.told()} (at least {limit:g})"


def _first_sentence(error: Exception) -> str:
    return str(error).split(". ")[0].rstrip(".")
