"""What a run writes for its next one: mappings as JSON files, whole or not at all."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from prismts.errors import DataError
from prismts.writing import write_whole

__all__ = ["read_json", "write_json"]


def read_json(file: Path) -> dict[str, Any]:
    """The mapping in a file.

    Raises:
        DataError: the file is damaged.
    """
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds no mapping")
        return cast(dict[str, Any], found)
    except ValueError as error:
        raise DataError(f"{file} is damaged ({error}). Delete it, and the next run makes it anew.") from error


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping whole or not at all, null in the place of NaN and infinity."""
    write_whole(file, json.dumps(_finite(content), separators=(",", ":"), allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    """The same without NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {str(name): _finite(one) for name, one in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in cast(Sequence[Any], value)]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
