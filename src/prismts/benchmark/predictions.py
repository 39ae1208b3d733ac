"""What an estimator said of every test window, case or step, kept in a file, and any measure taken from it later.

kept = read_predictions("results/predictions/ETTh2-ridge-c336-h96-s0-honest.npz")
kept.measures()["mse"]                                        # what the cell says
np.median(np.abs(kept.forecasts - kept.targets))              # what nobody had asked for
"""

from __future__ import annotations

import dataclasses
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prismts.errors import DataError, SettingsError
from prismts.writing import whole

__all__ = ["CasePredictions", "Forecasts", "Kept", "StepScores", "damage", "read_predictions", "write_predictions"]

Floats = NDArray[np.floating]
_BATCH = 512  # windows that are measured at once


@dataclass(frozen=True, eq=False)
class Forecasts:
    """Forecasts of every scored window of one series, in its own units."""

    forecasts: Floats  # [W, C, H], or [W, Q, C, H]
    values: Floats  # [C, n] of the stretch the windows lie in, NaN where not observed
    origins: NDArray[np.int64]  # [W] step at which each future begins
    first: int  # the step of the series that values[:, 0] is
    mean: Floats  # [C] of the training part, as the scores were standardized
    scale: Floats  # [C]
    season_scale: Floats  # [C] error of the seasonal naive forecast in the training part
    quantiles: tuple[float, ...] | None = None

    @property
    def targets(self) -> Floats:
        """What came: [W, C, H], a view into the values where windows follow each other step by step."""
        windows = np.lib.stride_tricks.sliding_window_view(self.values, self.forecasts.shape[-1], axis=1)  # [C, n', H]
        begin = int(self.origins[0]) - self.first if len(self.origins) else 0
        if np.array_equal(self.origins, np.arange(len(self.origins)) + self.first + begin):
            return windows[:, begin : begin + len(self.origins)].swapaxes(0, 1)
        return windows[:, self.origins - self.first].swapaxes(0, 1)

    def measures(self, n_windows: int | None = None) -> dict[str, float]:
        """Every measure of a forecast over the first ``n_windows`` windows (None: all), as a cell tells them."""
        from prismts.evaluation.running import RunningForecastScores

        if n_windows is not None and n_windows < 1:
            raise SettingsError(f"n_windows counts windows, at least 1, but got {n_windows}.")
        n = len(self.forecasts) if n_windows is None else min(n_windows, len(self.forecasts))
        running = RunningForecastScores(len(self.values), self.forecasts.shape[-1], self.quantiles)
        mean, scale = self.mean.astype(np.float64), self.scale.astype(np.float64)
        targets = self.targets
        for begin in range(0, n, _BATCH):
            part = slice(begin, min(begin + _BATCH, n))
            count = part.stop - part.start
            target = (targets[part] - mean[:, None]) / scale[:, None]
            forecast = (self.forecasts[part] - mean[:, None]) / scale[:, None]
            running.add(target, forecast, *(np.tile(x, (count, 1)) for x in (scale, mean, self.season_scale)))
        return running.values()


@dataclass(frozen=True, eq=False)
class CasePredictions:
    """Probabilities of every test case."""

    probabilities: Floats  # [n, K]
    labels: NDArray[Any]  # [n]
    classes: NDArray[Any]  # [K]

    def measures(self) -> dict[str, float]:
        """Every measure of classification, as a cell tells them."""
        from prismts.evaluation.classification import classification_scores

        return classification_scores(self.labels, self.probabilities, self.classes)


@dataclass(frozen=True, eq=False)
class StepScores:
    """How unusual a detector found every scored step."""

    scores: Floats  # [T]
    labels: NDArray[np.integer]  # [T]
    alarms: NDArray[np.bool_]  # [T]
    buffer: int  # steps, of VUS

    def measures(self) -> dict[str, float]:
        """Every measure of detection, as a cell tells them."""
        from prismts.evaluation.detection import detection_scores

        return detection_scores(self.labels, self.scores, self.alarms, self.buffer)


Kept = Forecasts | CasePredictions | StepScores
_KINDS: dict[str, type] = {"forecasts": Forecasts, "cases": CasePredictions, "steps": StepScores}


def write_predictions(path: Path, kept: Kept) -> None:
    """Write one .npz file whole or not at all; arrays only, no objects."""
    kind = next(name for name, one in _KINDS.items() if isinstance(kept, one))
    arrays = {name: np.asarray(value) for name, value in vars(kept).items() if value is not None}
    for name, array in arrays.items():
        if array.dtype == object:  # labels of text that came as objects
            arrays[name] = array.astype(str)
    with whole(path) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, kind=np.array(kind), **arrays)


def read_predictions(path: str | Path) -> Kept:
    """What a file of predictions holds.

    Raises:
        DataError: there is no such file, or it is none of ours.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(
            f"There are no predictions at {path}. A specification with keep_predictions: true keeps them; a cell that "
            "was made without has to be run again (--redo)."
        )
    told = damage(path)
    arrays: dict[str, Any] = {}
    try:
        if not told:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error):
        told = "the bytes of its arrays are not those that were written"
    kind = _KINDS.get(str(arrays.pop("kind", "")))
    if told or kind is None:
        raise DataError(
            f"{path} is damaged, or no file of predictions: {told or 'it tells no kind of them'}. If it is of a "
            "benchmark, delete it, and the next run makes it anew."
        )
    plain: dict[str, Any] = {name: array if array.ndim else array.item() for name, array in arrays.items()}
    if "quantiles" in plain:
        plain["quantiles"] = tuple(float(q) for q in plain["quantiles"])
    return kind(**plain)


def damage(path: Path) -> str:
    """What is wrong with a file of predictions, in words; "" where its table of contents is whole and as it should be.

    The arrays themselves, which may be gigabytes, are not read.
    """
    try:
        with zipfile.ZipFile(path) as file:
            names = {name.removesuffix(".npy") for name in file.namelist()}
    except FileNotFoundError:
        return "there is none"
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return "it is no archive of arrays (.npz), or the end of one is missing"
    for kind in _KINDS.values():
        fields = dataclasses.fields(kind)
        needed = {field.name for field in fields if field.default is dataclasses.MISSING}
        if needed <= names - {"kind"} <= {field.name for field in fields} and "kind" in names:
            return ""
    return f"it holds {', '.join(sorted(names)) or 'nothing'}, which are not the arrays of any predictions"
