"""The text format of the UEA and UCR archive: one case a line, channels between colons, the label last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
from numpy.typing import NDArray

from prismts.data.cells import is_number
from prismts.data.files import as_utf8, read_bytes, stem
from prismts.data.series import Collection, Finding, storage_dtype
from prismts.errors import DataError

__all__ = ["read_ts"]

_MISSING = ("?", "nan", "NaN", "NAN")


@dataclass(frozen=True, eq=False)
class _Cases:
    """The lines behind @data."""

    numbers: list[bytes]  # values of a case: channels between ':', steps between ','
    labels: list[str]
    lines: list[int]  # of the file, counted from 1


def read_ts(path: Path) -> Collection:
    """Read a .ts or .ts.gz file: cases of equal or unequal length, '?' or NaN where nothing was observed.

    Labels are text for ``@classLabel true`` and numbers for ``@targetLabel true``. What the header says about sizes is
    compared with the data, never trusted; where they disagree, the data win and the findings tell.
    """
    source = path.name
    data, findings = as_utf8(read_bytes(path), source)
    header, cases = _split(data, source)
    n_channels, lengths = _shape(cases, source)
    flat = _parse_numbers(cases, source)

    ends = np.cumsum(n_channels * lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = np.empty((n_channels, int(offsets[-1])))  # [C, total]
    for i, (begin, end) in enumerate(zip(ends - n_channels * lengths, ends, strict=True)):
        values[:, offsets[i] : offsets[i + 1]] = flat[begin:end].reshape(n_channels, lengths[i])
    if np.isinf(values).any():
        channel, step = np.argwhere(np.isinf(values))[0]
        line = cases.lines[int(np.searchsorted(offsets, step, side="right")) - 1]
        raise DataError(
            f"{source}: line {line} holds an infinite value in channel {channel}. Write ? where nothing was observed."
        )
    channels = tuple(f"channel_{i}" for i in range(n_channels))
    name = header.get("problemname", "") or stem(path)
    return Collection(
        values.astype(storage_dtype(values), copy=False), offsets, tuple(str(i) for i in range(len(lengths))), channels,
        labels=_labels(header, cases, source), name=name, numbered=True,
        findings=(*findings, *_disagreements(header, cases, n_channels, lengths), *_missing(values, channels, offsets)),
    )  # fmt: skip


def _split(data: bytes, source: str) -> tuple[dict[str, str], _Cases]:
    """The header's settings by lower-case name, and the cases."""
    lines = data.splitlines()
    at = next((i for i, line in enumerate(lines) if line.strip().lower() == b"@data"), None)
    if at is None:
        raise DataError(f"{source} has no line @data, behind which a .ts file holds its cases.")
    header: dict[str, str] = {}
    for number, line in enumerate(lines[:at], start=1):
        text = line.decode().strip()
        if text.startswith("@"):
            key, _, value = text[1:].partition(" ")
            header[key.lower()] = value.strip()
        elif text and not text.startswith("#"):
            raise DataError(
                f"{source}: line {number} ({text[:40]!r}) stands before @data but begins with neither @ nor #."
            )
    if _says(header, "timestamps"):
        raise DataError(f"{source} gives every value a time (@timeStamps true), which is not read. Write plain values.")
    labelled = _says(header, "classlabel") or _says(header, "targetlabel")
    numbers: list[bytes] = []
    labels: list[str] = []
    kept: list[int] = []
    for number, line in enumerate(lines[at + 1 :], start=at + 2):
        line = line.strip()
        if not line or line.startswith((b"#", b"%")):
            continue
        if labelled:
            line, colon, label = line.rpartition(b":")
            if not colon or b"," in label:
                raise DataError(
                    f"{source}: line {number} has no label behind its last colon, but the header promises one."
                )
            labels.append(label.decode().strip())
        numbers.append(line)
        kept.append(number)
    if not numbers:
        raise DataError(f"{source} has a header but no cases behind @data.")
    return header, _Cases(numbers, labels, kept)


def _shape(cases: _Cases, source: str) -> tuple[int, NDArray[np.int64]]:
    """Number of channels, and steps of each case [n]; every channel of a case has as many."""
    n_channels = cases.numbers[0].count(b":") + 1
    for line, case in zip(cases.lines, cases.numbers, strict=True):
        if case.count(b":") + 1 != n_channels:
            raise DataError(
                f"{source}: line {line} has {case.count(b':') + 1} channels, but line {cases.lines[0]} has "
                f"{n_channels}."
            )
    joined = np.frombuffer(b":".join(cases.numbers) + b":", np.uint8)
    marks = np.flatnonzero((joined == ord(",")) | (joined == ord(":")))
    n_values = np.diff(np.flatnonzero(joined[marks] == ord(":")), prepend=-1).reshape(-1, n_channels)  # [n, C]
    uneven = (n_values != n_values[:, :1]).any(axis=1)
    if uneven.any():
        i = int(uneven.argmax())
        channel = int((n_values[i] != n_values[i, 0]).argmax())
        raise DataError(
            f"{source}: line {cases.lines[i]} has {n_values[i, 0]} values in channel 0 but {n_values[i, channel]} in "
            f"channel {channel}."
        )
    return n_channels, n_values[:, 0]


def _parse_numbers(cases: _Cases, source: str) -> NDArray[np.float64]:
    """All values behind each other: case by case, channel by channel."""
    column = b"\n".join(cases.numbers).translate(bytes.maketrans(b",:", b"\n\n"))
    options = pc.ConvertOptions(column_types={"x": pa.float64()}, null_values=list(_MISSING), strings_can_be_null=True)
    try:
        table = pc.read_csv(
            pa.py_buffer(column), pc.ReadOptions(column_names=["x"]), pc.ParseOptions(ignore_empty_lines=False), options
        )
        return table.column("x").to_numpy(zero_copy_only=False)
    except pa.ArrowException as error:
        # Slower, but it knows lines, and spellings of numbers that Arrow does not
        parts: list[NDArray[np.float64]] = []
        for line, case in zip(cases.lines, cases.numbers, strict=True):
            cells = case.replace(b"?", b"nan").replace(b":", b",").split(b",")
            try:
                parts.append(np.array(cells, dtype=np.float64))
            except ValueError:
                cell = next(cell for cell in cells if not is_number(cell)).decode()
                raise DataError(
                    f"{source}: line {line} holds {cell!r}, where a number is expected. Write ? where nothing was "
                    "observed."
                ) from error
        return np.concatenate(parts)


def _says(header: Mapping[str, str], key: str) -> bool:
    return header.get(key, "").lower().startswith("true")


def _labels(header: Mapping[str, str], cases: _Cases, source: str) -> NDArray | None:
    if not cases.labels:
        return None
    if not _says(header, "targetlabel"):
        return np.array(cases.labels)
    for line, label in zip(cases.lines, cases.labels, strict=True):
        if not is_number(label.encode()):
            raise DataError(
                f"{source}: line {line} has the target {label!r}, which is not a number (@targetLabel true)."
            )
    return np.array(cases.labels, dtype=np.float64)


def _disagreements(
    header: Mapping[str, str], cases: _Cases, n_channels: int, lengths: NDArray[np.int64]
) -> tuple[Finding, ...]:
    """Where the header says other than the data."""
    equal = bool((lengths == lengths[0]).all())
    found = {
        "dimensions": str(n_channels),
        "univariate": str(n_channels == 1).lower(),
        "equallength": str(equal).lower(),
        "serieslength": str(lengths[0]) if equal else f"{lengths.min()} to {lengths.max()}",
    }
    findings = [
        Finding("header", f"The header says @{key} {header[key]}, but the data say {held}; the data were believed.")
        for key, held in found.items()
        if key in header
        and header[key].lower() != held
        and (key != "serieslength" or header[key] != str(lengths.max()))
    ]
    promised = header.get("classlabel", "").split()[1:]
    unknown = sorted(set(cases.labels) - set(promised)) if _says(header, "classlabel") else []
    if unknown:
        message = (
            f"The header does not list the class{'es' * (len(unknown) > 1)} {', '.join(unknown)}, which the data hold."
        )
        findings.append(Finding("header", message))
    return tuple(findings)


def _missing(values: NDArray[np.floating], channels: tuple[str, ...], offsets: NDArray[np.int64]) -> list[Finding]:
    findings: list[Finding] = []
    for name, channel in zip(channels, values, strict=True):
        empty = np.isnan(channel)
        if empty.any():
            n, case = int(empty.sum()), int(np.searchsorted(offsets, empty.argmax(), side="right")) - 1
            message = f"Channel {name!r}: {n:,} of {empty.size:,} values missing (first: case {case})."
            findings.append(Finding("missing", message, name, case))
    return findings
