"""Arrays come in: as they are, from .npz files, and from text with one number a line."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from prismts.data.cells import constant, is_number, mark_missing
from prismts.data.files import as_utf8, read_bytes, stem
from prismts.data.frequency import infer_grid
from prismts.data.series import Collection, Finding, Series, storage_dtype
from prismts.data.splits import Borders
from prismts.data.times import Times, times_of
from prismts.errors import DataError, ShapeError

__all__ = ["of_array", "of_arrays", "read_npz", "read_numbers"]


def of_array(
    x: NDArray,
    source: str = "The array",
    name: str = "series",
    missing_codes: Sequence[float] | None = None,
    *,
    may_be_empty: bool = False,
    exact: bool = False,
) -> Series | Collection:
    """A Series from [C, T], a Collection from [n, C, T]. The numbers are copied only where something changes."""
    x = _floating(x, source)
    if not x.size:
        raise ShapeError(f"{source} has shape {list(x.shape)}, that is, no values.")
    if x.ndim == 3:
        whole = Collection.from_array(x, name=name)
        values, findings = _checked(whole.values, whole.channels, source, missing_codes, may_be_empty, exact)
        return replace(whole, values=values, findings=findings)
    if x.ndim != 2:
        raise ShapeError(
            f"{source} has shape {list(x.shape)}, but one series is [channel, time] and several are [case, channel, "
            "time]. "
            "One channel alone is x[None, :]."
        )
    channels = tuple(f"channel_{i}" for i in range(len(x)))
    values, findings = _checked(x, channels, source, missing_codes, may_be_empty, exact)
    return Series(values, channels, name=name, findings=findings)


def of_arrays(
    cases: Sequence[NDArray], missing_codes: Sequence[float] | None = None, *, may_be_empty: bool = False
) -> Collection:
    """A Collection from arrays [C, T_i] of any lengths."""
    if not all(np.size(x) for x in cases):
        raise ShapeError(f"Case {next(i for i, x in enumerate(cases) if not np.size(x))} of the list has no values.")
    whole = Collection.of([Series(_floating(x, f"Case {i}"), name=str(i)) for i, x in enumerate(cases)])
    values, findings = _checked(whole.values, whole.channels, "The list of arrays", missing_codes, may_be_empty)
    return replace(whole, values=values, findings=findings, numbered=True)


def read_numbers(
    path: Path, missing_codes: Sequence[float] | None = None, *, may_be_empty: bool = False, exact: bool = False
) -> Series:
    """One channel from text with one number a line, or all numbers in one line."""
    data, findings = as_utf8(read_bytes(path), path.name)
    cells = data.split()
    n_lines = sum(bool(line.strip()) for line in data.splitlines())
    if n_lines not in (1, len(cells)):
        raise DataError(
            f"{path.name} holds {len(cells):,} words in {n_lines:,} lines, but text files hold one number a line. "
            "A table of several columns is read as .csv."
        )
    try:
        values = np.array(cells, dtype=np.float64)
    except ValueError as error:
        row = next(i for i, cell in enumerate(cells) if not is_number(cell))
        raise DataError(f"{path.name}: row {row} holds {cells[row].decode()!r}, where a number is expected.") from error
    checked, noted = _checked(values[None, :], ("value",), path.name, missing_codes, may_be_empty, exact)
    return Series(checked, ("value",), name=stem(path), findings=(*findings, *noted))


def read_npz(
    path: Path, missing_codes: Sequence[float] | None = None, *, may_be_empty: bool = False, exact: bool = False
) -> Series | Collection:
    """Read an .npz file by the names of its arrays; pickled objects are never opened.

    - ``train`` and ``test``, [time] or [time, variable], with ``test_label`` [time], perhaps ``train_label`` and
      ``train_timestamp`` with ``test_timestamp``: a Series, train followed by test, with its borders and labels. Codes
      for missing values are not looked for here, as an outlier may be what the set is about.
    - ``values`` [channel, time]: a Series.
    - ``X`` [case, channel, time], perhaps with ``y`` [case]: a Collection.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(f"{path.name} holds a single array; save it with numpy.savez(path, values=array).")
            names = set(file.files)
            generic = {"values"} & names or ({"X", "y"} & names if "X" in names else set())
            wanted = generic or {name for name in names if name.startswith(("train", "test"))}
            arrays = {name: file[name] for name in wanted}
            shapes = {name: file[name].shape for name in names} if not arrays else {}
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, KeyError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path.name} is no .npz file of plain arrays, or a damaged one ({error}).") from error
    if "values" in arrays:
        source = f"{path.name}: values"
        return of_array(arrays["values"], source, stem(path), missing_codes, may_be_empty=may_be_empty, exact=exact)
    if "X" in arrays:
        if arrays["X"].ndim != 3:
            raise ShapeError(
                f"{path.name}: X has shape {list(arrays['X'].shape)}, but cases are [case, channel, time]."
            )
        cases = of_array(
            arrays["X"], f"{path.name}: X", stem(path), missing_codes, may_be_empty=may_be_empty, exact=exact
        )
        assert isinstance(cases, Collection)
        labels = arrays.get("y")
        if labels is not None and labels.shape != (len(cases),):
            raise ShapeError(f"{path.name}: y has shape {list(labels.shape)}, but X has {len(cases)} cases.")
        return replace(cases, labels=labels)
    if not {"train", "test"} <= set(arrays):
        held = ", ".join(f"{name} {list(shape)}" for name, shape in sorted(shapes.items())) or ", ".join(sorted(names))
        raise DataError(
            f"{path.name} holds {held or 'nothing'}. Expected train and test, [time] or [time, variable]; "
            "or values, [channel, time]; or X, [case, channel, time], with y."
        )
    return _train_then_test(arrays, path, missing_codes, exact)


def _train_then_test(
    arrays: dict[str, NDArray], path: Path, missing_codes: Sequence[float] | None, exact: bool
) -> Series:
    parts: list[NDArray] = []
    for part in ("train", "test"):
        x = _floating(arrays[part], f"{path.name}: {part}")
        if x.ndim not in (1, 2):
            raise ShapeError(
                f"{path.name}: {part} has shape {list(x.shape)}, but [time] or [time, variable] was expected."
            )
        parts.append(x[None, :] if x.ndim == 1 else x.T)  # [C, T]
    train, test = parts
    if not train.size or not test.size:
        raise ShapeError(
            f"{path.name}: train has shape {list(train.shape)} and test {list(test.shape)}; both need values."
        )
    if len(train) != len(test):
        raise ShapeError(f"{path.name}: train has {len(train)} variables and test has {len(test)}.")
    n_train, n_test = train.shape[1], test.shape[1]
    channels = tuple(f"channel_{i}" for i in range(len(train)))
    values, findings = _checked(np.concatenate(parts, axis=1), channels, path.name, missing_codes or (), exact=exact)
    labels = None
    if "test_label" in arrays:
        labels = np.concatenate([arrays.get("train_label", np.zeros(n_train)), arrays["test_label"]]).astype(np.int8)
        if len(labels) != n_train + n_test:
            raise ShapeError(f"{path.name}: {len(labels)} labels came with {n_train} + {n_test} time steps.")
    stamps, frequency, noted = None, None, ()
    if {"train_timestamp", "test_timestamp"} <= set(arrays):
        ticks = np.concatenate([arrays["train_timestamp"], arrays["test_timestamp"]])
        times = times_of(pa.chunked_array([pa.array(ticks)]), "timestamp", path.name)
        stamps, frequency, noted = _stamps(times, n_train + n_test)
    return Series(
        values, channels, stamps, frequency, stem(path), Borders(n_train, n_train, n_train + n_test), labels,
        (*noted, *findings),
    )  # fmt: skip


def _stamps(times: Times, n: int) -> tuple[NDArray[np.datetime64] | None, str | None, tuple[Finding, ...]]:
    """Timestamps as they are: where a set has borders and labels, no row may come or go."""
    steps = np.diff(times.ticks)
    if len(times.ticks) != n or not times.clock or (steps <= 0).any():
        return (
            None,
            None,
            (Finding("time", "The timestamps do not run forward, one for each step; they were left out."),),
        )
    stamps = times.ticks.view("datetime64[ns]")
    grid = infer_grid(times.ticks, np.ones(n - 1, bool), clock=True)
    if grid is None or (grid.points is None and (steps != grid.step).any()):
        row = int((steps != np.median(steps)).argmax()) + 1
        message = (
            f"The timestamps are not regular (first: step {row}, {np.datetime64(stamps[row], 's')}), so no frequency "
            "is known."
        )
        return stamps, None, (Finding("frequency", message, row=row),)
    return stamps, grid.alias, times.findings


def _checked(
    values: NDArray[np.floating],
    channels: Sequence[str],
    source: str,
    missing_codes: Sequence[float] | None,
    may_be_empty: bool = False,
    exact: bool = False,
) -> tuple[NDArray[np.floating], tuple[Finding, ...]]:
    """Values [C, T] as they are stored, and what is to be said about them."""
    stored = values.astype(np.float64 if exact else storage_dtype(values), copy=False)
    findings: list[Finding] = []
    for c, name in enumerate(channels):
        channel, noted = mark_missing(values[c], name, source, missing_codes, may_be_empty=may_be_empty)
        if channel is not values[c] and any(finding.kind == "sentinel" for finding in noted):
            stored = stored.copy() if np.shares_memory(stored, values) else stored
            stored[c] = channel
        findings += noted
        if still := constant(channel, name):
            findings.append(still)
    return stored, tuple(findings)


def _floating(x: NDArray, source: str) -> NDArray[np.floating]:
    if np.ma.isMaskedArray(x):
        x = np.ma.filled(x.astype(np.float64), np.nan)
    x = np.asarray(x)
    if x.dtype == np.float32 or x.dtype == np.float64:
        return x
    if x.dtype.kind not in "fiub":
        raise DataError(f"{source} holds {x.dtype}, where numbers are expected.")
    return x.astype(np.float32 if x.dtype.itemsize < 4 else np.float64)
