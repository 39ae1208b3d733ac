"""What was read, in numbers a person can check: sizes, times, each channel, and every finding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from prismts.data.series import Collection, Finding, Series

__all__ = ["ChannelSummary", "Description", "describe"]


@dataclass(frozen=True)
class ChannelSummary:
    """One channel over all series; the numbers are NaN where nothing was observed."""

    name: str
    observed: float  # share of all steps
    minimum: float
    median: float
    maximum: float

    @property
    def constant(self) -> bool:
        """Whether it never moves."""
        return self.minimum == self.maximum


@dataclass(frozen=True)
class Description:
    """What ``prism check`` shows."""

    name: str
    n_series: int
    n_timepoints: tuple[int, int]  # shortest and longest series
    frequency: str | None
    span: tuple[str, str] | None  # first and last time
    classes: tuple[tuple[str, int], ...]  # name and number of cases, where the series carry classes
    channels: tuple[ChannelSummary, ...]
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        shortest, longest = self.n_timepoints
        steps = f"{longest:,}" if shortest == longest else f"{shortest:,} to {longest:,}"
        lines = [f"{self.name}: {self.n_series:,} series, {len(self.channels):,} channels, {steps} time steps"]
        if self.span:
            lines.append(f"  {self.span[0]} to {self.span[1]}, {self.frequency or 'no regular frequency'}")
        if self.classes:
            lines.append("  classes: " + ", ".join(f"{name} ({n})" for name, n in self.classes))
        width = max(len(channel.name) for channel in self.channels)
        lines.append(f"  {'channel':<{max(width, 7)}}  observed         min      median         max")
        for c in self.channels:
            numbers = "  ".join(f"{number:>10.5g}" for number in (c.minimum, c.median, c.maximum))
            lines.append(f"  {c.name:<{max(width, 7)}}  {c.observed:>8.2%}  {numbers}{'  constant' * c.constant}")
        lines += [f"  - {finding}" for finding in self.findings] or ["  nothing to report"]
        return "\n".join(lines)


def describe(data: Series | Collection) -> Description:
    """Summarize a series or a collection, channel by channel, without a copy of the whole."""
    whole = Collection.of(data) if isinstance(data, Series) else data
    span = None
    if whole.timestamps is not None and len(whole.timestamps):
        span = str(pd.Timestamp(whole.timestamps.min())), str(pd.Timestamp(whole.timestamps.max()))
    classes: tuple[tuple[str, int], ...] = ()
    if whole.labels is not None and whole.labels.dtype.kind not in "f":
        names, counts = np.unique(whole.labels, return_counts=True)
        classes = tuple((str(name), int(n)) for name, n in zip(names, counts, strict=True))
    return Description(
        name=whole.name,
        n_series=len(whole),
        n_timepoints=(int(whole.lengths.min()), int(whole.lengths.max())),
        frequency=whole.frequency,
        span=span,
        classes=classes,
        channels=tuple(_summary(name, channel) for name, channel in zip(whole.channels, whole.values, strict=True)),
        findings=whole.findings,
    )


def _summary(name: str, channel: np.ndarray) -> ChannelSummary:
    seen = channel[~np.isnan(channel)]
    if not seen.size:
        return ChannelSummary(name, 0.0, np.nan, np.nan, np.nan)
    return ChannelSummary(name, seen.size / channel.size, float(seen.min()), float(np.median(seen)), float(seen.max()))
