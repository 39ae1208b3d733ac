"""Floors of classification: what anybody can have with default settings, and what everything else has to beat.

All of them read cases as a list of [C, T_i], answer [n, K], and come from aeon (``prismts[bench]``), but for the
majority, which needs nothing. Their settings are the ones of their authors and are never chosen on data.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from prismts.errors import DataError, NotFittedError, SettingsError, ShapeError, unknown_name
from prismts.layers.missing import bridge
from prismts.models import make_settings
from prismts.models.aeon_calls import needs_aeon, undisturbed

__all__ = [
    "CASE_FLOORS",
    "CaseFloor",
    "Hydra",
    "HydraConfig",
    "Majority",
    "MajorityConfig",
    "MiniRocket",
    "MiniRocketConfig",
    "MultiRocketHydra",
    "MultiRocketHydraConfig",
    "NearestDtw",
    "NearestDtwConfig",
    "case_floor",
]

Cases = Sequence[NDArray[np.floating]]  # n of [C, T_i]


class CaseFloor(ABC):
    """One interface for all floors: ``fit(X, y)``, then ``predict_proba(X)``.

    X is a list of cases [C, T_i], which may differ in length and hold NaN where nothing was observed; y are class
    numbers [n]. Probabilities come in the order of ``classes_``, the sorted values of y.

    What a floor cannot read as it is, it prepares by two rules, and ``prepared`` says in words which of them training
    needed (``preparation(X)`` says it of any cases): values that were not observed are joined by straight lines, as in
    ``layers.missing``; where the kernels need one length for all, every case is stretched or shrunk linearly to the
    longest training length, or to the shortest length the kernels can read if that is longer.
    """

    title: ClassVar[str]
    config_class: ClassVar[type]
    is_random: ClassVar[bool]  # else every seed gives the same answer
    shortest: ClassVar[int | None] = None  # steps the kernels need; None reads any lengths side by side

    classes_: NDArray[Any]  # [K]
    n_channels_: int
    n_timepoints_: int | None  # the one length all cases are brought to, if they are
    prepared: tuple[str, ...]

    def __init__(self, config: Any = None, *, random_state: int = 0) -> None:
        self.config = self.config_class() if config is None else config
        self.random_state = random_state

    def fit(self, X: Cases, y: NDArray[np.integer]) -> Self:
        """Learn from cases X, n of [C, T_i], and their class numbers y [n]."""
        y = np.asarray(y)
        if len(X) == 0 or y.shape != (len(X),):
            raise ShapeError(
                f"fit needs at least one case and one class number for each, y [n], but got {len(X)} cases and y of "
                f"shape {list(y.shape)}."
            )
        self.n_channels_ = int(np.asarray(X[0]).shape[0])
        cases = self._read(X)
        self.n_timepoints_ = None
        if self.shortest is not None:
            self.n_timepoints_ = max(self.shortest, max(case.shape[1] for case in cases))
        self.classes_, codes = np.unique(y, return_inverse=True)
        self.prepared = self.preparation(X)
        self._learn([self._prepare(case) for case in cases], codes)
        return self

    def predict_proba(self, X: Cases) -> NDArray[np.float64]:
        """Probabilities [n, K] of cases X, n of [C, T_i]; all floors but the majority put everything on one class."""
        self._check_fitted()
        return self._judge([self._prepare(case) for case in self._read(X)])

    def preparation(self, X: Cases) -> tuple[str, ...]:
        """What is done to these cases before they are read, in words; empty where they are read as they are."""
        if not hasattr(self, "n_timepoints_"):  # fit asks before it knows the classes
            self._check_fitted()
        said: list[str] = []
        cases = self._read(X)
        n_gaps = sum(bool(np.isnan(case).any()) for case in cases)
        if n_gaps:
            said.append(f"{n_gaps} of {len(cases)} cases have values that were not observed: bridged by straight lines")
        lengths = [case.shape[1] for case in cases if case.shape[1] != self.n_timepoints_]
        if self.n_timepoints_ is not None and lengths:
            said.append(
                f"{len(lengths)} of {len(cases)} cases, which have {min(lengths)} to {max(lengths)} steps, are "
                f"resampled linearly to {self.n_timepoints_} steps"
            )
        return tuple(said)

    def _read(self, X: Cases) -> list[NDArray[np.float64]]:
        cases = [np.asarray(case, dtype=np.float64) for case in X]
        for i, case in enumerate(cases):
            if case.ndim != 2 or case.shape[0] != self.n_channels_ or case.shape[1] == 0:
                raise ShapeError(
                    f"Cases are [channel={self.n_channels_}, time] with at least one step, as the first of training, "
                    f"but case {i} has shape {list(case.shape)}."
                )
            if np.isinf(case).any():
                raise DataError(
                    f"Case {i} holds an infinite value. Replace it by a number, or by NaN to say it was not observed."
                )
        return cases

    def _prepare(self, case: NDArray[np.float64]) -> NDArray[np.float64]:
        seen = ~np.isnan(case)
        if not seen.all():
            case = bridge(torch.from_numpy(case), torch.from_numpy(seen)).numpy()
        n = case.shape[1]
        if self.n_timepoints_ is None or n == self.n_timepoints_:
            return case
        places = np.linspace(0, n - 1, self.n_timepoints_)
        return np.stack([np.interp(places, np.arange(n), channel) for channel in case])

    def _check_fitted(self) -> None:
        if not hasattr(self, "classes_"):
            raise NotFittedError(f"This {type(self).__name__} is not fitted yet. Call fit(X, y) first.")

    def _one_hot(self, codes: NDArray[np.integer]) -> NDArray[np.float64]:
        return np.eye(len(self.classes_))[codes]  # [n, K]

    @abstractmethod
    def _learn(self, cases: list[NDArray[np.float64]], codes: NDArray[np.integer]) -> None: ...

    @abstractmethod
    def _judge(self, cases: list[NDArray[np.float64]]) -> NDArray[np.float64]: ...


# ---- no series read at all


@dataclass(frozen=True, kw_only=True)
class MajorityConfig:
    """Nothing to set."""


class Majority(CaseFloor):
    """The shares of the classes in training, whatever the case; the largest of them is the answer."""

    title = "majority class"
    config_class = MajorityConfig
    is_random = False

    def _learn(self, cases: list[NDArray[np.float64]], codes: NDArray[np.integer]) -> None:
        self.shares_ = np.bincount(codes) / len(codes)  # [K]

    def _judge(self, cases: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.tile(self.shares_, (len(cases), 1))


# ---- the nearest training case


@dataclass(frozen=True, kw_only=True)
class NearestDtwConfig:
    """``window`` is the largest shift as a fraction of the shorter series; None lets any two steps meet."""

    window: float | None = None

    def __post_init__(self) -> None:
        if self.window is not None and not 0 <= self.window <= 1:
            raise SettingsError(f"window is a fraction from 0 to 1, or None for no limit, but got {self.window}.")


class NearestDtw(CaseFloor):
    """The class of the training case at the least DTW distance; the first of them where several are as near.

    All channels are warped on one path, values are compared as they are (no scaling per case), and any lengths are
    read side by side. Answers are those of aeon's KNeighborsTimeSeriesClassifier, which asks for one query at a time
    and converts the training cases again for each.
    Source: Sakoe and Chiba 1978; as a floor of multivariate classification: Ruiz et al., DMKD 2021.
    """

    title = "1-NN DTW"
    config_class = NearestDtwConfig
    is_random = False
    queries_at_once = 512  # rows of the distance matrix held at a time

    def _learn(self, cases: list[NDArray[np.float64]], codes: NDArray[np.integer]) -> None:
        self.cases_, self.codes_ = cases, codes

    def _judge(self, cases: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        with needs_aeon("This floor"):
            from aeon.distances import pairwise_distance
        options: dict[str, Any] = {"method": "dtw", "n_jobs": 1}
        if self.config.window is not None:
            options["window"] = float(self.config.window)
        nearest: list[NDArray[np.integer]] = []
        for first in range(0, len(cases), self.queries_at_once):
            part = cases[first : first + self.queries_at_once]
            with undisturbed():
                distances = pairwise_distance(_together(part), _together(self.cases_), **options)
            nearest.append(np.asarray(distances).argmin(axis=1))
        return self._one_hot(self.codes_[np.concatenate(nearest)])


# ---- many random kernels and a ridge classifier


class _Convolved(CaseFloor):
    """A classifier of aeon's that reads cases of one length and answers with a class."""

    is_random = True

    @abstractmethod
    def _make(self) -> Any: ...

    def _learn(self, cases: list[NDArray[np.float64]], codes: NDArray[np.integer]) -> None:
        with needs_aeon("This floor"):
            self.classifier_ = self._make()
        with undisturbed():
            self.classifier_.fit(np.stack(cases), codes)

    def _judge(self, cases: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        with undisturbed():
            codes = self.classifier_.predict(np.stack(cases))
        return self._one_hot(np.asarray(codes, dtype=np.int64))


@dataclass(frozen=True, kw_only=True)
class MiniRocketConfig:
    """Settings of Dempster et al., KDD 2021."""

    n_kernels: int = 10_000  # features, rounded down to a multiple of the 84 kernels
    max_dilations_per_kernel: int = 32


class MiniRocket(_Convolved):
    """84 fixed kernels of 9 steps at many dilations; the share of positive values of each feeds a ridge classifier.

    Source: Dempster, Schmidt and Webb, KDD 2021, in aeon's implementation.
    """

    title = "MiniRocket"
    config_class = MiniRocketConfig
    shortest = 9

    def _make(self) -> Any:
        from aeon.classification.convolution_based import MiniRocketClassifier

        return MiniRocketClassifier(
            n_kernels=self.config.n_kernels,
            max_dilations_per_kernel=self.config.max_dilations_per_kernel,
            random_state=self.random_state,
            n_jobs=1,
        )


@dataclass(frozen=True, kw_only=True)
class HydraConfig:
    """Settings of Dempster, Schmidt and Webb, DMKD 2023."""

    n_kernels: int = 8  # in a group
    n_groups: int = 64  # for each dilation, half of them on the differences


class Hydra(_Convolved):
    """Groups of random kernels compete for each step; how often each wins feeds a ridge classifier.

    Source: Dempster, Schmidt and Webb, DMKD 2023, in aeon's implementation.
    """

    title = "Hydra"
    config_class = HydraConfig
    shortest = 9

    def _make(self) -> Any:
        from aeon.classification.convolution_based import HydraClassifier

        return HydraClassifier(
            n_kernels=self.config.n_kernels, n_groups=self.config.n_groups, random_state=self.random_state, n_jobs=1
        )


@dataclass(frozen=True, kw_only=True)
class MultiRocketHydraConfig(HydraConfig):
    """Settings of the Hydra part; aeon leaves none of MultiRocket's open (about 50000 features)."""


class MultiRocketHydra(_Convolved):
    """The features of MultiRocket and of Hydra side by side before one ridge classifier.

    Cases have at least 10 steps: MultiRocket puts its kernels of 9 steps on the differences too, and below that
    aeon 1.6 gives them a dilation of 0.
    Source: Dempster, Schmidt and Webb, DMKD 2023 (section 4), in aeon's implementation.
    """

    title = "MultiRocket-Hydra"
    config_class = MultiRocketHydraConfig
    shortest = 10

    def _make(self) -> Any:
        from aeon.classification.convolution_based import MultiRocketHydraClassifier

        return MultiRocketHydraClassifier(
            n_kernels=self.config.n_kernels, n_groups=self.config.n_groups, random_state=self.random_state, n_jobs=1
        )


CASE_FLOORS: dict[str, type[CaseFloor]] = {
    "majority": Majority,
    "nearest_dtw": NearestDtw,
    "minirocket": MiniRocket,
    "hydra": Hydra,
    "multirocket_hydra": MultiRocketHydra,
}


def case_floor(name: str, *, random_state: int = 0, **settings: Any) -> CaseFloor:
    """The floor of this name with these settings; unknown names and settings are errors that offer a neighbor."""
    if name not in CASE_FLOORS:
        raise unknown_name("floor of classification", name, CASE_FLOORS)
    kind = CASE_FLOORS[name]
    return kind(make_settings(kind.config_class, settings), random_state=random_state)


def _together(cases: list[NDArray[np.float64]]) -> Any:
    """[n, C, T] where all have one length, else the list: what aeon reads."""
    return np.stack(cases) if len({case.shape[1] for case in cases}) == 1 else cases
