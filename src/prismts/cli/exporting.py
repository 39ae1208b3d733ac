"""A trained folder as one file, on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape

from prismts.cli.app import app
from prismts.cli.options import Quiet
from prismts.errors import SettingsError

__all__ = ["export"]


@app.command
def export(
    model: Path,
    *,
    out: Path,
    format: Literal["onnx", "pt2"] | None = None,
    replace: Annotated[bool, Parameter(negative="")] = False,
    quiet: Quiet = False,
) -> None:
    """Write a saved model as one file that answers by itself, scaling, gaps and thresholds included.

    An .onnx file runs wherever ONNX Runtime does; a .pt2 file is loaded by torch.export.load. The file is checked
    against the model before it is kept.

    Args:
        model: A model folder.
        out: The file to write, ending in .onnx or .pt2.
        format: onnx or pt2; told by the ending of the file if not given.
        replace: Whether a file that is already there may be replaced.
    """
    from prismts.serving.export import TOLERANCE, described
    from prismts.serving.export import export as write

    if out.exists() and not replace:
        raise SettingsError(f"{out} exists. Add --replace to write over it, or choose another place.")
    path = write(model, out, format=format)
    console = Console(stderr=True, quiet=quiet)
    found = described(path)
    for name, port in [*found["inputs"].items(), *found["outputs"].items()]:
        axes = ", ".join(str(axis) for axis in port["axes"])
        console.print(escape(f"  {name} [{axes}] {port['dtype']}: {port['meaning']}"), highlight=False)
    console.print(f"checked against {model}: equal to {TOLERANCE:g} of the answer's scale")
    size = path.stat().st_size / 1e6
    console.print(f"saved: {out} ({size:.1f} MB)")
