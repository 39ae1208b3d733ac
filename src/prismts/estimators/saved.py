"""A saved model is a folder: weights and arrays as safetensors, everything else as readable JSON, nothing that runs.

``config.json`` says what the folder is and holds the checksums of the other files, so an altered or foreign folder is
an error and never a wrong answer. The folder is written beside its place and moved there whole, so a killed save leaves
the old one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Generator, Mapping
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

from prismts.errors import SavedModelError
from prismts.writing import recover, whole_folder

__all__ = ["FORMAT", "FORMAT_VERSION", "read_config", "read_folder", "write_folder"]

FORMAT = "prismts-model"
FORMAT_VERSION = 1
_WEIGHTS, _ARRAYS, _CONFIG = "model.safetensors", "arrays.safetensors", "config.json"


def write_folder(
    path: Path | str, config: Mapping[str, Any], weights: Mapping[str, torch.Tensor], arrays: Mapping[str, NDArray]
) -> None:
    """Write a model folder, replacing an old one of ours as a whole; nothing else is ever replaced.

    JSON knows no NaN: in ``config`` it becomes null.
    """
    path = Path(path)
    if path.exists() and (path.is_file() or (any(path.iterdir()) and not _is_ours(path))):
        raise SavedModelError(f"{path} exists and is no model folder of PrismTS. Save to another place.")
    with _in_words(path), whole_folder(path) as partial:
        save_file(
            {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}, partial / _WEIGHTS
        )
        save_arrays({name: np.ascontiguousarray(value) for name, value in arrays.items()}, partial / _ARRAYS)
        whole = _without_nan({
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "written_by": {"prismts": package_version(), "torch": torch.__version__},
            **config,
            "sha256": {name: _sha256(partial / name) for name in (_WEIGHTS, _ARRAYS)},
        })  # fmt: skip
        whole["checksum"] = _checksum(whole)
        (partial / _CONFIG).write_text(
            json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
        )


@contextlib.contextmanager
def _in_words(path: Path) -> Generator[None]:
    """What the system says of a folder that cannot be written, by the name that was asked for."""
    try:
        yield
    except OSError as error:
        raise SavedModelError(
            f"{path} cannot be written ({error.strerror or error}). Save to another place."
        ) from error


def read_folder(path: Path | str) -> tuple[dict[str, Any], dict[str, torch.Tensor], dict[str, NDArray]]:
    """Config, weights and arrays of a model folder.

    Raises:
        SavedModelError: the folder is missing, foreign, altered, incomplete, or of a newer format.
    """
    config, path = read_config(path), Path(path)
    for name, expected in config["sha256"].items():
        if not (path / name).is_file():
            raise SavedModelError(f"{path} lacks the file {name}. Save the model again, or copy the whole folder.")
        if _sha256(path / name) != expected:
            raise SavedModelError(
                f"{path / name} was altered after it was saved (its checksum differs). Copy the whole folder again "
                "from where it was saved."
            )
    try:
        return config, load_file(path / _WEIGHTS), load_arrays(path / _ARRAYS)
    except (SafetensorError, OSError, ValueError) as error:
        raise SavedModelError(f"{path} holds weights that cannot be read ({error}).") from error


def read_config(path: Path | str) -> dict[str, Any]:
    """The checked ``config.json`` of a model folder."""
    if not isinstance(path, str | PathLike):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise SavedModelError(f"A model folder is named by a path, but got {path!r}. Pass the one that save wrote.")
    path = Path(path)
    recover(path)
    if not path.is_dir():
        what = "is a file, not a model folder" if path.is_file() else "does not exist"
        raise SavedModelError(f"There is no model folder at {path}: it {what}.")
    file = path / _CONFIG
    if not file.is_file():
        raise SavedModelError(f"{path} is no model folder of PrismTS: it has no {_CONFIG}.")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise SavedModelError(f"{file} cannot be read as JSON ({error}). Save the model again.") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise SavedModelError(f"{path} is no model folder of PrismTS: its {_CONFIG} does not say so.")
    if int(config.get("format_version", 0)) > FORMAT_VERSION:
        raise SavedModelError(
            f"{path} was written by a newer PrismTS (format {config['format_version']}, this one reads up to "
            f"{FORMAT_VERSION}). Upgrade: pip install -U prismts."
        )
    if config.pop("checksum", None) != _checksum(config):
        raise SavedModelError(f"{file} was altered after it was saved (its checksum differs).")
    return config


def package_version() -> str:
    """The version of this package."""
    with contextlib.suppress(PackageNotFoundError):
        return version("prismts")
    return "unknown"


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _is_ours(path: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return json.loads((path / _CONFIG).read_text(encoding="utf-8")).get("format") == FORMAT
    return False


def _checksum(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
