"""Checkpoints without pickle: tensors in one safetensors file, everything else as JSON in its header.

A checkpoint holds what Lightning puts into it (weights, optimizer, schedule, callbacks, progress), so a run resumes
exactly; opening a foreign file cannot run code. Writing is atomic: a killed save leaves the last one whole.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from prismts.errors import SavedModelError
from prismts.writing import whole

__all__ = ["SafeCheckpointIO", "read_tree", "write_tree"]

_KEY = "prismts"


def write_tree(tree: Any, path: Path) -> None:
    """Write nested dictionaries, lists, tuples, numbers, texts and tensors to one file, atomically."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_pack(tree, tensors))
    with whole(path) as partial:
        save_file(tensors, partial, metadata={_KEY: text})


def read_tree(path: Path) -> Any:
    """What :func:`write_tree` wrote."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise SavedModelError(f"{path} is no readable checkpoint ({error}). Delete it to begin anew.") from error
    if _KEY not in metadata:
        raise SavedModelError(f"{path} holds tensors but was not written by PrismTS. Delete it to begin anew.")
    return _unpack(json.loads(metadata[_KEY]), tensors)


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()  # safetensors refuses shared memory
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[_pack(k, tensors), _pack(v, tensors)] for k, v in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_pack(v, tensors) for v in value]}
    if isinstance(value, list):
        return [_pack(v, tensors) for v in value]
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"A checkpoint holds plain values and tensors, but a {type(value).__name__} came.")


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "tuple" in value:
        return tuple(_unpack(v, tensors) for v in value["tuple"])
    return {_unpack(k, tensors): _unpack(v, tensors) for k, v in value["dict"]}


class SafeCheckpointIO(CheckpointIO):
    """Lightning's checkpoints in our format."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write atomically."""
        write_tree(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read back; there is nothing in the format that could run."""
        checkpoint = read_tree(Path(path))
        device = map_location if isinstance(map_location, str | torch.device) else None
        return _to(checkpoint, device) if device is not None else checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        """Delete, if it is there."""
        Path(path).unlink(missing_ok=True)


def _to(value: Any, device: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {k: _to(v, device) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_to(v, device) for v in value)
    return value
