"""Studies: a specification file becomes many cells, and the cells tables and a page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.markup import escape

from prismts.cli.app import app
from prismts.cli.files import goes_on, typed
from prismts.cli.options import Quiet
from prismts.writing import write_whole

__all__ = ["study_app", "study_cross_learner"]

study_app = App(name="study", help="Run many models on many data sets, and tell what was found.")
app.command(study_app)


@study_app.command(name="cross-learner")
def study_cross_learner(
    spec: Path,
    *,
    out: Path | None = None,
    only: str = "",
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    quiet: Quiet = False,
) -> None:
    """Run the modes and ablations of the CNN-GRU cross learner, and set them beside the numbers of its slides.

    Every cell is a file of its own, so the same command goes on after a break; cells that failed are tried again. At
    the end tables.md and study.html are written beside the cells.

    Args:
        spec: The YAML file that says what to run, such as benchmarks/cross_learner.yaml.
        out: The folder of the results; that of the file with the ending .results if not given.
        only: Run only cells whose name contains this text, such as ETTh2-96; the tables are of all that are done.
        dry_run: Print the cells and about how long they will take, and run nothing.
    """
    from prismts.benchmark.study import Progress, plan, run_study
    from prismts.benchmark.study_spec import read_spec
    from prismts.benchmark.study_tables import markdown
    from prismts.report.study import study_page

    specification = read_spec(spec)
    out = spec.with_suffix(".results") if out is None else out
    if dry_run:
        sys.stdout.write(f"{plan(specification, out)}\n")
        return
    console = Console(stderr=True, quiet=quiet)

    def tell(progress: Progress) -> None:
        if progress.outcome != "there already":
            console.print(f"{progress.cell}: {progress.outcome}, {escape(progress.told)}, {progress.seconds:.0f} s")

    with goes_on("with the cells that are not done"):
        study = run_study(specification, out, tell=tell, only=only)
    tables = out / "tables.md"
    write_whole(tables, markdown(study))
    page = study_page(out / "study.html", study, command=typed())
    console.print(f"cells: {len(study.cells)} of {len(specification.cells)} done   tables: {tables}   page: {page}")
    if study.failed:
        console.print(f"{len(study.failed)} cells failed; the page names them, and the same command tries them again.")
        sys.exit(1)
