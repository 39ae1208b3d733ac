"""Model folders exported to ONNX once, and kept for the next start."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from prismts.estimators.saved import package_version, read_config
from prismts.serving.runtime import FORMAT_VERSION

__all__ = ["cache_folder", "exported_file"]


def cache_folder() -> Path:
    """Where exported models lie: ``PRISMTS_CACHE``, or the user's cache."""
    import pooch

    return Path(os.environ.get("PRISMTS_CACHE") or pooch.os_cache("prismts")) / "onnx"


def exported_file(folder: Path) -> Path:
    """The .onnx file of a model folder, exported now unless it was before.

    The name of the file is a hash of the folder's ``config.json``, which holds the checksums of everything else, and of
    the versions of the package and of the format, so an altered folder is exported anew.
    """
    read_config(folder)  # a missing or foreign folder is told as such
    digest = hashlib.sha256(
        f"{package_version()} {FORMAT_VERSION} ".encode() + (folder / "config.json").read_bytes()
    ).hexdigest()
    file = cache_folder() / f"{digest[:32]}.onnx"
    if not file.exists():
        from prismts.serving.export import export

        export(folder, file)
    return file
