"""The page of this machine: ``prism studio``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from prismts.cli.app import app
from prismts.cli.options import Whole

__all__ = ["studio"]


@app.command
def studio(
    file: Path | None = None, *, port: Whole = 0, browser: Annotated[bool, Parameter(negative="--no-browser")] = True
) -> None:
    """Open a local page: drop a table, see what it is like, train a model, look at what it says.

    The page answers to this machine alone, works without a network, and keeps what is uploaded only until it ends.

    Args:
        file: A table to begin with.
        port: The port to listen on; a free one if not given.
        browser: Whether to open the page in the browser; its address is printed in any case.
    """
    from prismts.serving.studio import run_studio

    run_studio(file, port=port, browser=browser)
