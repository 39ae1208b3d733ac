"""Benchmarks: a specification file becomes cells, cells a table, and a table a comparison."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter
from rich.console import Console
from rich.markup import escape

from prismts.cli.app import app
from prismts.cli.files import free_file, goes_on, typed
from prismts.cli.options import Quiet, Whole
from prismts.errors import SettingsError
from prismts.writing import write_whole

if TYPE_CHECKING:
    from prismts.benchmark.compare import Comparison
    from prismts.benchmark.groups import Event
    from prismts.benchmark.lengths import Lengths
    from prismts.benchmark.spec import BenchSpec, Cell

__all__ = ["bench_app", "bench_compare", "bench_run", "bench_table"]

bench_app = App(name="bench", help="Run many models on many data sets, honestly; tables and tests of the results.")
app.command(bench_app)


@bench_app.command(name="run")
def bench_run(
    spec: Path,
    *,
    out: Path | None = None,
    jobs: Whole = 1,
    only: str = "",
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    probe: Annotated[bool, Parameter(negative="")] = False,
    redo: Annotated[bool, Parameter(negative="")] = False,
    cluster: str | None = None,
    quiet: Quiet = False,
) -> None:
    """Run every cell of a specification that has no result yet.

    Every cell is a file of its own, written whole, so the same command goes on after a break; cells that failed are
    tried again. Several runs may share a folder, such as two with another --only: each leaves the cells that another
    one is at to it. Exit code 1 says that some failed, or are left to another run.

    Args:
        spec: The YAML file that says what to run, such as benchmarks/specs/forecasting.yaml.
        out: The folder of the results; that of the file with the ending .results if not given.
        jobs: Processes, each with one thread; a process that dies takes only its cell with it.
        only: Run only cells whose name contains this text, such as ETTh2-convtimenet.
        dry_run: Print the cells and about how long they will take, and run nothing.
        probe: As --dry-run, but where no finished cell of a model tells its length, time a few steps of it on each data
            set. Nothing is kept.
        redo: Make cells anew that other settings made; without it they are an error.
        cluster: The address of a Ray cluster to run on, such as auto or ray://host:10001.
    """
    from prismts.benchmark.results import read_results
    from prismts.benchmark.room import notes
    from prismts.benchmark.runner import failures, pending, plan, run_bench
    from prismts.benchmark.spec import read_spec

    if jobs < 1:
        raise SettingsError(f"--jobs counts processes, at least 1, but got {jobs}.")
    specification = read_spec(spec)
    out = spec.with_suffix(".results") if out is None else out
    free_file(out / "results.parquet")
    console = Console(stderr=True, quiet=quiet)
    if dry_run or probe:
        probed = _probed(specification, out, jobs, only, redo, console) if probe else None
        sys.stdout.write(f"{plan(specification, out, jobs=jobs, only=only, redo=redo, probed=probed)}\n")
        return
    for told in notes(specification):
        console.print(f"note: {told}", highlight=False, markup=False, soft_wrap=True)
    before = read_results(out, specification)
    waiting = pending(before, only=only, redo=redo)
    with goes_on("with the cells that are not done"), _Bar(console, before, waiting, jobs) as bar:
        results = run_bench(specification, out, jobs=jobs, cluster=cluster, only=only, redo=redo, tell=bar.hear)
    done = f"cells: {len(results.cells)} of {len(specification.cells)} done"
    if results.cells:
        done += f"   results: {out / 'results.parquet'}   next: prism bench table {out}"
    console.print(done, highlight=False, soft_wrap=True)
    told = failures(results, only)
    for one in told[:10]:
        console.print(f"failed: {escape(one)}", highlight=False, soft_wrap=True)
    if told:
        sys.stderr.write(f"prism: {len(told)} cells failed; {out}/cells/*.failed.json tell all. The same command tries "
                         "them again.\n")  # fmt: skip
    lacking = {*results.missing, *results.without_predictions}
    if left := {cell: holder for cell, holder in bar.held.items() if cell in lacking}:
        sys.stderr.write(f"prism: {len(left)} cells are left to another run into {out} ({next(iter(left.values()))}). "
                         "Once it has ended, the same command runs what it has not done.\n")  # fmt: skip
    if told or left:
        sys.exit(1)


@bench_app.command(name="table")
def bench_table(
    folder: Path,
    *,
    format: Literal["terminal", "markdown", "latex", "html"] = "terminal",
    measure: str | None = None,
    by: str | None = None,
    published: Path | None = None,
    all_published: Annotated[bool, Parameter(negative="")] = False,
    columns: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    digits: Whole | None = None,
    out: Path | None = None,
) -> None:
    """Print the table of a benchmark: mean ± spread over seeds, floors beside ours, the best in bold.

    Args:
        folder: The folder of the results.
        format: How the table is set.
        measure: Such as mse, mae, mase, accuracy, vus_pr, or a cost: seconds, n_parameters, n_macs.
        by: What a row is, separated by commas: data, collection, horizon, context, share, resample.
        published: A file of published numbers, in place of those of the specification.
        all_published: Show published numbers of another protocol than the row's too, marked.
        columns: Show only these configurations and published models, and the floors; all if not given.
        digits: After the point.
        out: Where to write the table; it is printed if not given.
    """
    from prismts.benchmark.published import read_published
    from prismts.benchmark.results import read_results
    from prismts.benchmark.tables import render, table

    free_file(out, published)
    view = table(
        read_results(folder),
        measure=measure,
        by=None if by is None else [part.strip() for part in by.split(",")],
        published=None if published is None else read_published(published),
        all_published=all_published,
        columns=columns,
        digits=digits,
    )
    plain = out is not None or not sys.stdout.isatty()
    text = render(view, format, width=200 if plain else None)
    if out is None:
        sys.stdout.write(text)
    else:
        write_whole(out, text)


@bench_app.command(name="compare")
def bench_compare(
    folder: Path,
    *,
    measure: str | None = None,
    over: Literal["data", "data,horizon"] = "data",
    protocol: str | None = None,
    models: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    context: Whole | None = None,
    level: float = 0.05,
    out: Path | None = None,
    quiet: Quiet = False,
) -> None:
    """Test which configuration is better: ranks, Friedman, Wilcoxon with Holm's correction, intervals.

    A page with the critical-difference diagram is written beside the results.

    Args:
        folder: The folder of the results.
        measure: The measure to compare by; the headline of the task if not given.
        over: What counts as one draw: a data set, or each of its horizons (no independent draws).
        protocol: The protocol to compare under; the first of the specification if not given.
        models: The configurations to compare; all if not given.
        context: Steps of past to compare at, of those that were run; validation chooses if not given.
        level: Of the tests.
        out: Where to write the page; compare.html in the folder if not given.
    """
    from prismts.benchmark.compare import compare
    from prismts.benchmark.results import read_results

    free_file(out)
    found = compare(
        read_results(folder), measure=measure, over=over, protocol=protocol, models=models, context=context, level=level
    )
    page = _page(out or folder / "compare.html", found)
    console = Console(quiet=quiet, width=None if sys.stdout.isatty() else 160)
    for sentence in found.summary():
        console.print(escape(sentence), highlight=False)
    console.print(_grid(_rank_columns(found), found.rank_rows()))
    console.print(_grid(_PAIR_COLUMNS, found.pair_rows()))
    Console(stderr=True, quiet=quiet).print(f"page: {page}", highlight=False)


_PAIR_COLUMNS = ("pair", "wins/ties/losses", "Wilcoxon p", "after Holm", "difference, interval", "so")


def _rank_columns(found: Comparison) -> tuple[str, ...]:
    return ("configuration", "average rank", f"mean {found.measure}", f"{1 - found.level:.0%} interval over seeds")


def _grid(columns: tuple[str, ...], rows: list[Any]) -> Any:
    from rich.table import Table

    grid = Table()
    for number, name in enumerate(columns):
        grid.add_column(name, justify="right" if number else "left")
    for row in rows:
        grid.add_row(*(escape(part) for part in row))
    return grid


def _page(path: Path, found: Comparison) -> Any:
    from prismts.report.compare import critical_difference_figure
    from prismts.report.page import Drawing, Facts, Section, Table, Text, write_report

    figure = critical_difference_figure(
        found.blocks.models, found.ranks, found.critical_difference, n_blocks=len(found.blocks.names), level=found.level
    )
    scores = found.blocks.table
    best = (scores.argmax if found.higher_is_better else scores.argmin)(axis=1)
    ranks = Table(
        _rank_columns(found), found.rank_rows(),
        caption="Intervals are Student's, of the mean over blocks, by seed: what another training would change.",
    )  # fmt: skip
    pairs = Table(
        _PAIR_COLUMNS, found.pair_rows(),
        caption="Differences are first minus second, in percent of the second, with a bootstrap interval over data "
        "sets and seeds.",
    )  # fmt: skip
    sections = [
        Section("", [*(Text(sentence) for sentence in found.summary()), Facts([("made by", typed())])]),
        Section("Ranks", [Drawing(figure, "Critical-difference diagram."), ranks]),
        Section("Pairs", [pairs]),
        Section("Scores", [Table(
            ("block", *found.blocks.models), found.score_rows(),
            caption=f"{found.measure}: mean over seeds ± standard deviation.",
            strong=frozenset((row, int(column) + 1) for row, column in enumerate(best)),
        )]),
    ]  # fmt: skip
    return write_report(path, "Comparison", sections, subtitle=found.measure)


def _probed(spec: BenchSpec, out: Path, jobs: int, only: str, redo: bool, console: Console) -> Lengths:
    """A few steps of every model that no finished cell tells anything of, with a line for each."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from prismts.benchmark.lengths import probe, to_probe
    from prismts.benchmark.results import read_results
    from prismts.benchmark.runner import pending

    results = read_results(out, spec)
    groups = to_probe(results, pending(results, only=only, redo=redo))
    columns = TextColumn("a few steps of each"), BarColumn(bar_width=24), MofNCompleteColumn()
    with Progress(*columns, console=console, disable=console.quiet) as bar:
        task = bar.add_task("probe", total=len(groups))

        def hear(event: Event) -> None:
            if event.kind in ("done", "failed"):
                bar.console.print(escape(str(event)), highlight=False, soft_wrap=True)
                bar.update(task, advance=1)

        return probe(spec, groups, jobs=jobs, tell=hear)


_ENDS = {"held": "left to another run", "there": "done by another run"}


class _Bar:
    """A bar on standard error: cells done, how long it will still take, and a line for each that ends."""

    def __init__(self, console: Console, before: Any, groups: list[Any], jobs: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self.console, self.before, self.waiting, self.jobs = console, before, list(groups), jobs
        self.seconds: list[float] = []
        self.held: dict[Cell, str] = {}  # cells that another run is at, and which
        self.bar = Progress(
            TextColumn("cells"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"), console=console, disable=console.quiet,
        )  # fmt: skip
        self.task = self.bar.add_task("cells", total=len(groups), left=self._left())

    def __enter__(self) -> _Bar:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def hear(self, event: Event) -> None:
        """Tell what ended, and how long the rest takes at this pace."""
        if event.kind == "started":
            return
        told = f"{_ENDS.get(event.kind, event.kind)}: {escape(str(event))}"
        if event.kind not in _ENDS:
            told += f", {event.seconds:.1f} s"
        self.bar.console.print(told, highlight=False, soft_wrap=True)
        if event.kind == "held":
            self.held |= dict.fromkeys(event.cells, event.told)
        if event.kind in ("done", "failed"):
            self.seconds.append(event.seconds)
        if event.kind != "lost":
            self.waiting = [group for group in self.waiting if group != event.cells]
            self.bar.update(self.task, advance=1, left=self._left())

    def _left(self) -> str:
        """By finished cells of the same kind where there are any, else by the mean of this run."""
        from prismts.benchmark.lengths import duration, estimate

        if not self.waiting:
            return ""
        about = estimate(self.before, self.waiting)
        if about.n_unknown and not self.seconds:
            return "time left: unknown yet"
        mean = sum(self.seconds) / len(self.seconds) if self.seconds else 0.0
        return f"about {duration((about.most + about.n_unknown * mean) / self.jobs)} left"
