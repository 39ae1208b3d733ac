"""Pretrained networks of the Hugging Face hub: read from this machine, and downloaded only when somebody asks.

Nothing here runs at import: ``transformers`` (the extra ``adapt``) is imported by the functions that need it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Generator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from prismts.errors import MissingExtraError, SavedModelError

_WITHOUT_WEIGHTS = ("AutoConfig", "AutoTokenizer")

__all__ = ["digest", "digest_of", "from_hub", "quiet", "transformers"]


def transformers(who: str) -> ModuleType:
    """The library of that name; ``who`` needs it and is named where it is missing.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import transformers as library
    except ImportError as error:
        raise MissingExtraError(
            f"{who} needs transformers, which is not installed. Run: pip install 'prismts[adapt]'"
        ) from error
    return library


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Without the notes of ``transformers`` about weights that are left out on purpose, and without its bars."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def from_hub(class_name: str, name: str | Path, *, download: bool = False, who: str, **how: Any) -> Any:
    """What ``from_pretrained`` of the class ``class_name`` of ``transformers`` gives; networks in evaluation mode.

    Weights are read from safetensors alone: a pickle, such as an older ``pytorch_model.bin``, may run code.

    Args:
        class_name: such as "AutoModel" or "AutoConfig".
        name: a name on the hub, or a local folder that ``save_pretrained`` wrote.
        download: whether the net may be asked for what this machine lacks; without it nothing is fetched.
        who: is named in errors.
        how: more arguments of ``from_pretrained``.

    Raises:
        MissingExtraError: ``transformers`` is not installed.
        SavedModelError: it is neither in a folder of this name nor among what was downloaded before, is damaged, or has
            no weights in safetensors.
    """
    kind = getattr(transformers(who), class_name)
    folder = Path(name).expanduser()
    place = str(folder) if folder.is_dir() else str(name)
    if class_name not in _WITHOUT_WEIGHTS:
        how = {**how, "use_safetensors": True}
    try:
        with quiet():
            found = kind.from_pretrained(place, local_files_only=not download, **how)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        first = (str(error).splitlines() or ["no reason told"])[0]
        remedy = (
            "Check the name and the net."
            if download
            else "Give a folder that save_pretrained wrote, or allow the download with download=True."
        )
        if "safetensors" in first and not isinstance(error, SafetensorError):
            remedy = (
                "Weights are read from .safetensors files alone, since a pickle such as a .bin file may run code. "
                "Name one that has them, or load this one where you trust it and write it anew with save_pretrained."
            )
        raise SavedModelError(f"{who} cannot read the pretrained {str(name)!r} ({first}). {remedy}") from error
    return found.eval() if isinstance(found, nn.Module) else found


def digest(model: nn.Module) -> str:
    """Tells two networks apart: see ``digest_of``."""
    return digest_of(model.state_dict())


def digest_of(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over the name, shape, type and bytes of every weight, in order of their names."""
    found = hashlib.sha256()
    for name, value in sorted(weights.items()):
        found.update(f"{name}{list(value.shape)}{value.dtype}".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        if flat.numel():
            found.update(flat.view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
