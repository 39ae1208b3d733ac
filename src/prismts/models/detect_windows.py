"""What every baseline of anomaly detection is built from: scaled channels, windows, and scores spread to steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from prismts.data.bridging import bridged
from prismts.data.period import dominant_period
from prismts.errors import DataError, NotFittedError, SettingsError, ShapeError

__all__ = ["ChannelWise", "Detector", "Scale", "Stacked", "WindowConfig", "in_batches", "spread", "windows_of"]

Array = NDArray[np.float64]
N_NUMBERS = 1_000_000  # of windows copied at a time: 8 MB


class Detector(Protocol):
    """Learns what is usual from one series, and says of each step of another how unusual it is.

    Values are [C, T], NaN where nothing was observed: gaps are joined by straight lines (``bridged``). The training
    part may contain anomalies. Channels are scaled by the training part; one that was constant there keeps its unit.
    """

    window_: int  # steps of a window, known after fit; 1 where a method has none

    def fit(self, train: ArrayLike) -> Self:
        """Learn from the training part [C, T]."""
        ...

    def score(self, values: ArrayLike) -> Array:
        """One finite number per step of values [C, T]: [T], higher where more unusual. The first and last steps too."""
        ...

    def contributions(self, values: ArrayLike) -> Array | None:
        """What each channel adds to the score, [C, T], or None where the method does not tell channels apart."""
        ...


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """How long a window is."""

    window: int | None = None  # steps; None: the dominant period of the training part

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 1:
            raise SettingsError(f"A window has at least one step, but got window={self.window}.")


class Scale:
    """Mean and standard deviation of each channel of the training part; a constant channel keeps its unit."""

    def __init__(self, train: Array) -> None:
        self.mean = train.mean(axis=1, keepdims=True)  # [C, 1]
        deviation = train.std(axis=1, keepdims=True)
        constant = deviation <= 1e-7 * np.abs(train).max(axis=1, keepdims=True)  # what float32 cannot tell from 0
        self.deviation = np.where(constant, 1.0, deviation)

    def __call__(self, values: Array) -> Array:
        """[C, T] to the same shape."""
        return (values - self.mean) / self.deviation


def windows_of(x: Array, window: int) -> NDArray[Any]:
    """All windows of x [C, T], one per first step, as a view [T - window + 1, C, window]."""
    return sliding_window_view(x, window, axis=1).transpose(1, 0, 2)


def in_batches(windows: NDArray[Any]) -> Iterator[Array]:
    """Windows [n, C, window] as copies [b, C * window], so many at a time that memory stays bounded."""
    n, width = len(windows), windows[0].size
    size = max(N_NUMBERS // width, 1)
    for begin in range(0, n, size):
        part = windows[begin : begin + size]
        yield np.ascontiguousarray(part).reshape(len(part), width)


def spread(scores: Array, window: int) -> Array:
    """Scores of windows [n] to scores of steps [n + window - 1]: the mean over all windows that cover a step.

    Direct sums, not differences of running sums: after one huge score the small ones behind it keep their digits.
    """
    return np.convolve(scores, np.ones(window)) / np.convolve(np.ones(len(scores)), np.ones(window))


Config = TypeVar("Config", bound="WindowConfig")
State = TypeVar("State")


class _Windowed(ABC, Generic[Config]):
    """What reading, scaling and the window's length have in common."""

    def __init__(self, config: Config) -> None:
        self.config = config

    window_: int  # steps

    def _read_train(self, train: ArrayLike) -> Array:
        x = bridged(train)
        if x.shape[1] < 8:
            raise DataError(
                f"{type(self).__name__} needs a training part of at least 8 steps, but got {x.shape[1]}. "
                "Pass a longer one."
            )
        self.scale_ = Scale(x)
        x = self.scale_(x)
        self.window_ = self._choose_window(x)
        if x.shape[1] <= self.window_:
            raise DataError(
                f"Windows of {self.window_} steps need a training part of at least {self.window_ + 1} steps, but got "
                f"{x.shape[1]}. Pass a longer training part or a shorter window."
            )
        return x

    def _choose_window(self, x: Array) -> int:
        return self.config.window or dominant_period(x)

    def _read(self, values: ArrayLike) -> Array:
        if not hasattr(self, "window_"):
            raise NotFittedError(f"{type(self).__name__} has not seen a training part yet. Call fit(train) first.")
        x = bridged(values)
        n_channels = len(self.scale_.mean)
        if len(x) != n_channels:
            raise ShapeError(
                f"{type(self).__name__} was fitted on {n_channels} channels and reads [channel={n_channels}, time], "
                f"but got shape {list(x.shape)}. Pass the same channels in the same order."
            )
        if x.shape[1] < self.window_:
            raise DataError(
                f"{type(self).__name__} scores windows of {self.window_} steps, but the series has {x.shape[1]}. "
                "Pass a longer series, or fit with a shorter window."
            )
        return self.scale_(x)


class ChannelWise(_Windowed[Config], Generic[Config, State]):
    """A method for one channel, applied to each; the score is the mean over channels.

    Before the mean, scores of a channel are standardized by the mean and standard deviation of its scores on the
    training part (only where there are several channels), so that no channel outshouts the others by its unit.
    """

    is_on_one_scale = False  # True where scores of all channels are comparable as they are: nothing is standardized

    def fit(self, train: ArrayLike) -> Self:
        """Learn each channel of the training part [C, T]."""
        x = self._read_train(train)
        self.channels_ = [self._fit_channel(row) for row in x]
        self.usual_: Array | None = None  # [2, C]: mean and standard deviation of the training scores
        if len(x) > 1 and not self.is_on_one_scale:
            scores = np.stack([self._score_channel(*pair) for pair in zip(self.channels_, x, strict=True)])
            deviation = scores.std(axis=1)
            # a channel whose training scores never change has no scale: its scores keep their unit
            known = deviation > 1e-6 * np.maximum(1.0, np.abs(scores.mean(axis=1)))
            self.usual_ = np.stack([scores.mean(axis=1), np.where(known, deviation, 1.0)])
        return self

    def contributions(self, values: ArrayLike) -> Array:
        """The standardized score of each channel, [C, T]; their mean is the score."""
        x = self._read(values)
        scores = np.stack([self._score_channel(*pair) for pair in zip(self.channels_, x, strict=True)])
        return scores if self.usual_ is None else (scores - self.usual_[0][:, None]) / self.usual_[1][:, None]

    def score(self, values: ArrayLike) -> Array:
        """[C, T] to [T]: the mean over channels."""
        return self.contributions(values).mean(axis=0)

    @abstractmethod
    def _fit_channel(self, x: Array) -> State:
        """What is to be known of one scaled channel [T]."""

    @abstractmethod
    def _score_channel(self, state: State, x: Array) -> Array:
        """Scores [T] of one scaled channel [T]."""


@dataclass(frozen=True, kw_only=True)
class StackedConfig(WindowConfig):
    """Windows of all channels side by side."""

    max_features: int = 512  # channels times window; a window of many channels is cut to so many numbers
    max_windows: int = 20_000  # of the training part, evenly spaced where there are more

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_features < 1 or self.max_windows < 2:
            raise SettingsError(
                f"max_features must be at least 1 and max_windows at least 2, but got {self.max_features} and "
                f"{self.max_windows}."
            )


Vectors = TypeVar("Vectors", bound=StackedConfig)


class Stacked(_Windowed[Vectors]):
    """A method for vectors, applied to windows of all channels at once.

    The window is the dominant period, or shorter where all channels together would exceed ``max_features``. Training
    windows beyond ``max_windows`` are thinned out evenly.
    """

    def fit(self, train: ArrayLike) -> Self:
        """Learn the windows of the training part [C, T]."""
        x = self._read_train(train)
        windows = windows_of(x, self.window_)
        if len(windows) > self.config.max_windows:
            windows = windows[np.linspace(0, len(windows) - 1, self.config.max_windows).astype(np.int64)]
        self._fit_windows(windows)
        return self

    def score(self, values: ArrayLike) -> Array:
        """[C, T] to [T]: the mean over all windows that cover a step."""
        windows = windows_of(self._read(values), self.window_)
        return spread(np.concatenate([self._score_windows(batch) for batch in in_batches(windows)]), self.window_)

    def contributions(self, values: ArrayLike) -> Array | None:
        """None: distances of whole windows do not tell channels apart."""
        return None

    def _choose_window(self, x: Array) -> int:
        room = max(self.config.max_features // len(x), 1)
        return self.config.window or min(dominant_period(x), room)

    @abstractmethod
    def _fit_windows(self, windows: NDArray[Any]) -> None:
        """Learn from windows [n, C, window]."""

    @abstractmethod
    def _score_windows(self, windows: Array) -> Array:
        """Scores [b] of flat windows [b, C * window]."""
