"""Whether two directions of exchange are worth more together than apart: gains, win rates and a regression over seeds.

Each function takes RMSE (or any error, less is better) by mode: ``{"none": [...], "cnn_to_gru": [...], "gru_to_cnn":
[...], "both": [...]}``, one number per seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from prismts.errors import DataError, SettingsError, ShapeError, unknown_name

__all__ = ["MODES", "Estimate", "Interaction", "gains", "interaction", "seed_win_rate"]

MODES = ("none", "cnn_to_gru", "gru_to_cnn", "both")


@dataclass(frozen=True)
class Estimate:
    """A coefficient, in units of the error, and its interval."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside the interval."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.value:+.4g} [{self.low:+.4g}, {self.high:+.4g}]"


@dataclass(frozen=True)
class Interaction:
    """RMSE = b0 + b1 [CNN->GRU] + b2 [GRU->CNN] + b12 [both], with intervals."""

    b0: Estimate  # error without exchange
    b1: Estimate  # what CNN->GRU alone changes
    b2: Estimate  # what GRU->CNN alone changes
    b12: Estimate  # what both change beyond the sum of the two; below 0: worth more than the halves
    n_runs: int  # over all modes
    confidence: float  # of the intervals

    @property
    def degrees_of_freedom(self) -> int:
        """Runs less the four coefficients."""
        return self.n_runs - 4


def interaction(errors: Mapping[str, ArrayLike], *, confidence: float = 0.95) -> Interaction:
    """Fit the regression by ordinary least squares, with t intervals.

    Four modes and four coefficients: the fit goes through the four means, and all that is left is the spread of seeds
    around the mean of their mode, taken to be equal for the modes. Seeds are counted as independent runs, as on the
    slides; numbers of seeds may differ from mode to mode.

    Raises:
        SettingsError: if a mode is missing or unknown.
        DataError: if no mode has a second seed, so that nothing tells how far a mean can be trusted.
    """
    if not 0 < confidence < 1:
        raise SettingsError(f"confidence is a share between 0 and 1, such as 0.95, but got {confidence}.")
    cells = _by_mode(errors, MODES)
    n = np.array([len(cell) for cell in cells.values()])
    mean = np.array([cell.mean() for cell in cells.values()])
    free = int(n.sum()) - 4
    if free < 1:
        raise DataError(
            "Intervals come from the spread between seeds, but every mode has one run only. Run at least one mode "
            "with a second seed; three seeds of each are a start."
        )
    variance = sum(float(((cell - cell.mean()) ** 2).sum()) for cell in cells.values()) / free
    # rows b0, b1, b2, b12 over the means of none, cnn_to_gru, gru_to_cnn, both
    contrast = np.array([[1, 0, 0, 0], [-1, 1, 0, 0], [-1, 0, 1, 0], [1, -1, -1, 1]])
    value = contrast @ mean
    half = student.ppf((1 + confidence) / 2, free) * np.sqrt(variance * (contrast**2 / n).sum(axis=1))
    b0, b1, b2, b12 = (Estimate(float(v), float(v - h), float(v + h)) for v, h in zip(value, half, strict=True))
    return Interaction(b0, b1, b2, b12, int(n.sum()), confidence)


def gains(errors: Mapping[str, ArrayLike]) -> dict[str, NDArray[np.float64]]:
    """By how many percent each mode's error is below that of none, seed by seed: [n_seeds] for every mode but none.

    (none - mode) / none * 100, above 0 where the exchange helps. Number i of every mode must be of one seed.
    """
    cells = _paired(errors, tuple(dict.fromkeys(("none", *errors))))
    none = cells.pop("none")
    if (none <= 0).any():
        raise DataError("A percentage of the error without exchange needs errors above 0, but one of them is not.")
    return {mode: 100 * (none - cell) / none for mode, cell in cells.items()}


def seed_win_rate(errors: Mapping[str, ArrayLike]) -> float:
    """Share of seeds, 0 to 1, in which both directions beat each one-way mode; a tie is no win.

    Number i of every mode must be of one seed; ``none`` is not needed.
    """
    cells = _paired(errors, MODES[1:])
    return float((cells["both"] < np.minimum(cells["cnn_to_gru"], cells["gru_to_cnn"])).mean())


def _by_mode(errors: Mapping[str, ArrayLike], wanted: tuple[str, ...]) -> dict[str, NDArray[np.float64]]:
    """The errors [n_seeds] of the wanted modes."""
    for mode in errors:
        if mode not in MODES:
            raise unknown_name("mode of exchange", mode, MODES)
    cells: dict[str, NDArray[np.float64]] = {}
    for mode in wanted:
        if mode not in errors:
            raise SettingsError(f"The errors of mode {mode!r} are missing; got {', '.join(errors) or 'none at all'}.")
        cell = np.asarray(errors[mode], dtype=np.float64)
        if cell.ndim != 1 or not cell.size:
            raise ShapeError(f"Mode {mode!r} needs one error per seed, [n_seeds], but got shape {list(cell.shape)}.")
        if not np.isfinite(cell).all():
            raise DataError(f"Mode {mode!r} has an error that is not a finite number: {cell.tolist()}.")
        cells[mode] = cell
    return cells


def _paired(errors: Mapping[str, ArrayLike], wanted: tuple[str, ...]) -> dict[str, NDArray[np.float64]]:
    """The same, of equally many seeds."""
    cells = _by_mode(errors, wanted)
    for (one, first), (other, second) in pairwise(cells.items()):
        if len(first) != len(second):
            raise ShapeError(
                f"Seeds are compared one by one, but {one!r} has {len(first)} and {other!r} {len(second)}. "
                "Pass the seeds that all modes have, in one order."
            )
    return cells
