"""Exported models where they are used: an ONNX file answers, with numpy and onnxruntime and nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from prismts.errors import DataError, MissingExtraError, SavedModelError, SettingsError, ShapeError, a_or_an

__all__ = ["FORMAT", "FORMAT_VERSION", "OnnxModel"]

FORMAT = "prismts-onnx"
FORMAT_VERSION = 2  # since 2, values may be read in double precision
_ROWS = 256  # series or cases that go through the graph at once
_METHODS = {
    "forecast": ("predict",),
    "classify": ("predict_proba", "predict"),
    "detect": ("score_samples", "predict", "contributions"),
    "impute": ("transform",),
    "embed": ("transform",),
}

Array = NDArray[Any]


class OnnxModel:
    """A model that ``prismts.serving.export`` wrote, ready to answer; torch is never imported.

    Values are an array [C, T] for one series or case, [N, C, T] for several, or a list of arrays [C, T_i] of different
    lengths, in the user's own units, NaN where nothing was observed. They are read in the precision that
    the graph asks for. One [C, T]
    gives one answer, several give their answers stacked, and a list gives a list where answers differ in length.

    One model may be asked from several threads at once.

    Args:
        path: of the .onnx file.
        n_threads: threads of one answer; None leaves it to onnxruntime.

    Raises:
        SavedModelError: the file is missing, damaged, not one of ours, or of a newer format.
        MissingExtraError: onnxruntime is not installed.
    """

    def __init__(self, path: str | Path, *, n_threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError(
                "Running an exported model needs onnxruntime. Install it with: pip install 'prismts[export]'."
            ) from error
        self.path = Path(path)
        if not self.path.is_file():
            what = "is a folder" if self.path.is_dir() else "does not exist"
            raise SavedModelError(f"There is no exported model at {path}: it {what}. Write one with: prism export.")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only
        if n_threads is not None:
            if n_threads < 1:
                raise SettingsError(f"n_threads counts the threads of one answer, at least 1, but got {n_threads}.")
            options.intra_op_num_threads = n_threads
        try:
            session = onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises classes of its own, one for each kind of damage
            raise SavedModelError(
                f"{path} cannot be read as an ONNX model ({_first_line(error)}). Copy the file again, or export the "
                "model anew."
            ) from error
        self._session: Any = session
        self.metadata: dict[str, Any] = _metadata(self.path, session.get_modelmeta().custom_metadata_map)
        self.kind: str = self.metadata["kind"]
        self.channels: tuple[str, ...] = tuple(self.metadata["channels"])
        reads = self.metadata["inputs"]["values"]
        size, self._dtype = reads["axes"][1], np.dtype(reads["dtype"])
        self.n_channels: int | None = size if isinstance(size, int) else None
        self._classes = None if self.metadata["classes"] is None else np.array(self.metadata["classes"])

    def __repr__(self) -> str:
        return f"OnnxModel({str(self.path)!r}: {self.metadata['name']})"

    # ---- answers

    def predict(self, values: Any, *, series: str | Sequence[str | None] | None = None) -> Any:
        """What the estimator's ``predict`` says of arrays.

        Forecasts [C, H], or [Q, C, H] of quantiles, in the user's units; a class label; or alarms [T] of 0 and 1. With
        several series or cases there is one more axis in front. ``series`` names which series of training these are, of
        a forecaster of several (see ``metadata["series_names"]``); one that was not in training is scaled by itself.
        """
        self._only("predict")
        if self.kind == "forecast":
            name = "forecast" if self.metadata["quantiles"] is None else "quantiles"
            return self._answers(values, name, series)
        if series is not None:
            raise SettingsError(f"series names a series of a forecaster, but {self._holds()}. Leave it out.")
        if self.kind == "detect":
            return self._answers(values, "alarm")
        assert self._classes is not None
        likeliest = np.asarray(self.predict_proba(values)).argmax(-1)
        return self._classes[likeliest]

    def predict_proba(self, values: Any) -> NDArray[np.float64]:
        """The probability of every class: [K], or [N, K], in the order of ``metadata["classes"]``."""
        self._only("predict_proba")
        return np.asarray(self._answers(values, "probability"), dtype=np.float64)

    def score_samples(self, values: Any) -> Any:
        """How unusual each step is: [T], or [N, T]; 0 is usual."""
        self._only("score_samples")
        return self._answers(values, "score", dtype=np.float64)

    def contributions(self, values: Any) -> Any:
        """What each channel adds to the scores: [C, T], or [N, C, T]."""
        self._only("contributions")
        return self._answers(values, "contribution", dtype=np.float64)

    def transform(self, values: Any, *, series: str | Sequence[str | None] | None = None) -> Any:
        """The values without gaps, or the vector of each case, as the estimator's ``transform`` has them."""
        self._only("transform")
        if self.kind == "embed":
            return self._answers(values, "vector")
        return self._answers(values, "filled", series)

    @property
    def threshold(self) -> float:
        """The score above which a step is an alarm."""
        if self.kind != "detect":
            raise SettingsError(f"A threshold belongs to a detector, but {self._holds()}.")
        return float(self.metadata["threshold"])

    def run(self, values: Any, **more: Any) -> dict[str, Array]:
        """Everything the graph says of values [N, C, T], by the names of its outputs; nothing is checked or cut."""
        found = self._session.run(None, {"values": np.asarray(values, dtype=self._dtype), **more})
        return dict(zip([output.name for output in self._session.get_outputs()], found, strict=True))

    # ---- inside

    def _answers(
        self, values: Any, output: str, series: str | Sequence[str | None] | None = None, dtype: Any = None
    ) -> Any:
        cases, single, together = self._read(values)
        numbers = self._numbers(series, len(cases))
        answers: list[Array | None] = [None] * len(cases)
        for same in _by_length(cases):
            stacked = np.stack([cases[i] for i in same])  # [n, C, T]
            length = stacked.shape[-1]
            stacked = self._lengthened(stacked)
            more = {} if numbers is None else {"series": numbers[same]}
            found = self._session.run([output], {"values": stacked, **more})[0]
            if self.kind in ("detect", "impute"):
                found = found[..., found.shape[-1] - length :]
            for i, one in zip(same, found, strict=True):
                answers[i] = one if dtype is None else one.astype(dtype)
        whole = cast(list[Array], answers)
        if single:
            return whole[0]
        return np.stack(whole) if together or len({one.shape for one in whole}) == 1 else whole

    def _read(self, values: Any) -> tuple[list[Array], bool, bool]:
        """Cases [C, T_i], whether there is but one, given by itself, and whether they came as one array."""
        if isinstance(values, list | tuple) and not all(np.ndim(one) == 2 for one in cast(Sequence[Any], values)):
            values = np.asarray(values, dtype=np.float64)
        if isinstance(values, list | tuple):
            cases, single, together = [_floats(one, self._dtype) for one in cast(Sequence[Any], values)], False, False
        else:
            x = _floats(values, self._dtype)
            if x.ndim not in (2, 3):
                raise ShapeError(
                    f"Values are [channel, time], or [case, channel, time], but have shape {list(x.shape)}. One "
                    "channel alone is x[None, :]."
                )
            cases, single, together = (list(x[None]), True, True) if x.ndim == 2 else (list(x), False, True)
        if not cases:
            raise ShapeError("There are no series or cases to answer for: the list is empty.")
        return [self._checked(case, i) for i, case in enumerate(cases)], single, together

    def _checked(self, case: Array, number: int) -> Array:
        """One case, if the model can read it; what lies behind the end of a case to classify or embed is cut off."""
        n_channels, n = case.shape
        wanted = "any" if self.n_channels is None else str(self.n_channels)
        if self.n_channels is not None and n_channels != self.n_channels:
            hint = " If time comes first, pass its transpose." if n == self.n_channels else ""
            raise ShapeError(
                f"This model reads [channel={wanted}, time], but number {number} has shape {list(case.shape)}.{hint}"
            )
        if np.isinf(case).any():
            raise DataError(
                f"Number {number} holds an infinite value. Replace it by a number, or by NaN: not observed."
            )
        if self.kind in ("classify", "embed"):
            seen = np.flatnonzero(~np.isnan(case).all(axis=0))
            if not seen.size:
                raise DataError(f"Number {number} has no observed value, so there is nothing to judge it by.")
            case = case[:, : int(seen[-1]) + 1]
        n, least, most = case.shape[1], self.metadata["time"]["min"], self.metadata["time"]["max"]
        if self.kind == "impute" and n:
            least = 1  # a shorter series gets unobserved steps in front of it
        if n < least or (most is not None and n > most):
            if least == most:
                reads = f"exactly {least} steps, the length that the exported network is bound to"
            elif most is None:
                reads = f"at least {least} steps"
            else:
                reads = f"{least} to {most} steps"
            raise ShapeError(f"This model reads {reads}, but number {number} has {n}.")
        return case

    def _lengthened(self, x: Array) -> Array:
        """Series [n, C, T] with unobserved steps in front, where the graph reads more steps than there are."""
        lacking = self.metadata["time"]["min"] - x.shape[-1]
        return x if lacking <= 0 else np.pad(x, ((0, 0), (0, 0), (lacking, 0)), constant_values=np.nan)

    def _numbers(self, series: str | Sequence[str | None] | None, n: int) -> NDArray[np.int64] | None:
        """The number of each series among those of training, -1 for others; None where the graph does not ask."""
        if "series" not in self.metadata["inputs"]:
            return None
        names = [series] * n if series is None or isinstance(series, str) else list(series)
        if len(names) != n:
            raise ShapeError(f"series names each of {n} series, but {len(names)} names came.")
        known: dict[str, int] = {}
        for i, name in enumerate(self.metadata["series_names"]):
            known[name] = -1 if name in known else i  # a name that two series bear tells none of them
        return np.array([-1 if name is None else known.get(name, -1) for name in names], dtype=np.int64)

    def _only(self, method: str) -> None:
        if method not in _METHODS[self.kind]:
            raise SettingsError(f"{method} cannot be asked here: {self._holds()}.")

    def _holds(self) -> str:
        return f"{self.path.name} holds {a_or_an(self.kind)} model, which has {' and '.join(_METHODS[self.kind])}"


def _metadata(path: Path, found: dict[str, str]) -> dict[str, Any]:
    """What the file says of itself, as values."""
    if found.get("format") != json.dumps(FORMAT):
        raise SavedModelError(
            f"{path} is an ONNX model, but none that PrismTS exported: its metadata do not say so. Run it with "
            "onnxruntime itself."
        )
    try:
        metadata = {name: json.loads(text) for name, text in found.items()}
    except ValueError as error:
        raise SavedModelError(f"{path} holds metadata that cannot be read ({error}). Export the model anew.") from error
    if int(metadata.get("format_version", 0)) > FORMAT_VERSION:
        raise SavedModelError(
            f"{path} was written by a newer PrismTS (format {metadata['format_version']}, this one reads up to "
            f"{FORMAT_VERSION}). Upgrade: pip install -U prismts."
        )
    lacking = [name for name in _WANTED if name not in metadata]
    if lacking or metadata["kind"] not in _METHODS:
        what = f"lack {lacking[0]!r}" if lacking else f"name the unknown kind {metadata['kind']!r}"
        raise SavedModelError(f"{path} was altered after it was exported: its metadata {what}. Export the model anew.")
    return metadata


_WANTED = (
    "format", "format_version", "prismts_version", "name", "kind", "estimator", "model", "channels", "frequency",
    "series_names", "context_length", "horizon", "quantiles", "classes", "threshold", "data_hash", "time", "inputs",
    "outputs",
)  # fmt: skip


def _by_length(cases: Sequence[Array]) -> list[list[int]]:
    """The numbers of the cases, those of equal length together, so many at a time that memory stays bounded."""
    groups: dict[int, list[int]] = {}
    for i, case in enumerate(cases):
        groups.setdefault(case.shape[1], []).append(i)
    return [same[begin : begin + _ROWS] for same in groups.values() for begin in range(0, len(same), _ROWS)]


def _floats(values: Any, dtype: np.dtype) -> Array:
    try:
        with np.errstate(over="ignore"):  # what is too large for single precision is refused as infinite
            return np.asarray(values, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise DataError(f"Values are numbers, but these cannot be read as such ({error}).") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
