"""Search for settings: a specification file becomes trials, the best of them, and a page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from prismts.cli.app import app
from prismts.cli.files import goes_on, typed
from prismts.cli.options import Quiet, Whole

__all__ = ["search"]


@app.command(name="search")
def search(
    spec: Path,
    *,
    out: Path | None = None,
    jobs: Whole = 1,
    cluster: str | None = None,
    trials: Whole | None = None,
    storage: str | None = None,
    test: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    quiet: Quiet = False,
) -> None:
    """Search for the settings of a ConvTimeNet on one data set, judged on validation alone.

    It begins with the rule's proposal (what model="auto" uses) and with the network of the setting itself. A search
    that was stopped or killed goes on when the same command is given again; others may join in through the same
    storage. At the end best.yaml holds the arguments of the estimator and search.html shows history, importance,
    slices and score against cost.

    Args:
        spec: The YAML file that says what to search, such as benchmarks/specs/search_ETTh2.yaml.
        out: The folder of the study; that of the file with the ending .search if not given.
        jobs: Processes that work at it at once.
        cluster: The address of a Ray cluster to run trials on, such as auto or ray://host:10001.
        trials: As many trials, in place of the number in the file; a larger number goes on with a finished search.
        storage: Optuna's, such as postgresql://user@host/name, in place of that in the file; a SQLite file if not
            given.
        test: At the end train the best trial once more and score the test part, once; best.yaml says so.
        dry_run: Print what would be searched and what the rule proposes, and train nothing.
    """
    from dataclasses import replace

    from prismts.benchmark.search import plan, run_search
    from prismts.benchmark.search_results import importances, read_found, test_best, write_best
    from prismts.benchmark.search_spec import read_search
    from prismts.benchmark.search_work import Told
    from prismts.report.search import search_page

    specification = read_search(spec)
    if trials is not None:
        specification = replace(specification, trials=trials)
    if storage is not None:
        specification = replace(specification, storage=storage)
    out = spec.with_suffix(".search") if out is None else out
    if dry_run:
        sys.stdout.write(f"{plan(specification)}\n")
        return
    console = Console(stderr=True, quiet=quiet)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[best]}"), console=console,
    )  # fmt: skip

    with bar:
        row = bar.add_task(f"search {specification.name}", total=specification.trials, best="")

        def tell(told: Told) -> None:
            best = "" if told.best is None else f"best {told.best:.5g}"
            bar.update(row, completed=told.n_done, best=best)
            value = "" if told.value is None else f" {specification.score} {told.value:.5g}"
            bar.console.print(f"  trial {told.number}: {told.outcome}{value} {escape(told.told)}".rstrip())

        where = "after the last finished epoch of each trial" if cluster is None else "with the trials that are missing"
        with goes_on(where):
            run_search(specification, out, jobs=jobs, cluster=cluster, tell=tell)
        found = read_found(specification, out)
        bar.update(row, completed=sum(found.counts.values()) - found.counts["running"])
    if found.best is None:
        console.print("Every trial was pruned or is still running: there are no best settings yet.")
        return
    if test:
        reading = test_best(specification, out)
        told = ", ".join(f"{name} {value:.5g}" for name, value in reading["scores"].items())
        console.print(f"test, for trial {reading['trial']}: {told} ({reading['n_scored']} {reading['counted']})")
        found = read_found(specification, out)
        assert found.best is not None
    best = write_best(out / "best.yaml", found, folder=out)
    page = search_page(
        out / "search.html", found, importances(specification, out), best_yaml=best.read_text(encoding="utf-8"),
        command=typed(),
    )  # fmt: skip
    console.print(
        f"best {specification.score} on validation: {found.best.value:.5g} (trial {found.best.number})   "
        f"settings: {best}   page: {page}"
    )
