"""The command ``prism``: each subcommand is a few lines over the library."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from prismts import __version__
from prismts.errors import PrismError, SettingsError, unknown_name

if TYPE_CHECKING:
    from prismts.data.series import Collection
    from prismts.data.splits import Borders
    from prismts.data.tables import TableKind
    from prismts.estimators.forecaster import Forecaster
    from prismts.evaluation.scores import Scores

__all__ = ["app", "main"]

app = App(
    name="prism",
    version=__version__,
    help="""Forecast tables of time series, and measure it honestly.

    A first look, then a model, then what comes next:

        prism check data.csv
        prism fit forecast data.csv --horizon 96 --out model/
        prism predict model/ --out next.csv --plot next.html
        prism evaluate model/ data.csv

    A table has time down the rows: wide, with one column per channel, or long, with a column that tells the series
    apart (--series). Files: .csv, .csv.gz, .parquet, .npz, .ts. Empty cells mean "not observed".
    """,
    suppress_keyboard_interrupt=False,
)
fit_app = App(name="fit", help="Learn from a table and write a model folder.")
app.command(fit_app)

Quiet = Annotated[bool, Parameter(name=["--quiet", "-q"], negative="", help="Print nothing but errors, no bar.")]
TimeColumn = Annotated[str | None, Parameter(name="--time", help="The time column; found by itself if not given.")]
SeriesColumn = Annotated[
    str | None, Parameter(name="--series", help="The column that tells the series of a long table apart.")
]
Values = Annotated[
    list[str] | None,
    Parameter(
        name="--values", consume_multiple=True, negative="", help="The columns to read; all numeric ones if not given."
    ),
]


@app.command
def check(file: Path, *, time: TimeColumn = None, series: SeriesColumn = None, values: Values = None) -> None:
    """Read a table and print what was found: channels, times, gaps, duplicates, sentinel values, constant channels.

    Parameters
    ----------
    file: The table to read.
    """
    from prismts.data.describe import describe
    from prismts.data.readers import read

    sys.stdout.write(f"{describe(read(file, time=time, series=series, values=values))}\n")


@app.command
def datasets(*, task: str | None = None, names: Annotated[bool, Parameter(negative="")] = False) -> None:
    """List the data sets known by name, and where each would come from on this machine.

    Parameters
    ----------
    task: Only those for this task: forecast, classify, detect or other.
    names: Print only the names, one a line.
    """
    from prismts.data.catalog import list_datasets, where

    found = list_datasets(task)  # type: ignore[arg-type]
    if names:
        sys.stdout.write("".join(f"{entry.name}\n" for entry in found))
        return
    table = Table("name", "task", "found in", "what it is", box=None)
    for entry in found:
        table.add_row(escape(entry.name), entry.task, where(entry.name), escape(entry.description))
    Console().print(table)


@fit_app.command(name="forecast")
def fit_forecast(
    data: str,
    *,
    out: Path,
    horizon: int = 96,
    context_length: int = 512,
    model: str = "convtimenet",
    setting: str = "default",
    quantiles: Annotated[list[float] | None, Parameter(consume_multiple=True, negative="")] = None,
    time: TimeColumn = None,
    series: SeriesColumn = None,
    values: Values = None,
    frequency: str | None = None,
    validation: float | None = None,
    test: float | None = None,
    epochs: int | None = None,
    seed: int = 0,
    report: Path | None = None,
    replace: Annotated[bool, Parameter(negative="")] = False,
    quiet: Quiet = False,
) -> None:
    """Train a forecaster on a table, score it beside the floors on the part it has not seen, and save it.

    A run that was killed goes on after its last finished epoch when the same command is given again.

    Parameters
    ----------
    data: The table, or the name of a known data set (see: prism datasets).
    out: The model folder to write.
    horizon: Steps to forecast.
    context_length: Steps of past to read.
    model: A model by name, such as convtimenet, ridge, seasonal_naive or last_value.
    setting: A named recipe: default, chosen_line, published (the authors' form), or published/NAME for a data set.
    quantiles: Levels to forecast besides the middle, such as 0.1 0.5 0.9.
    frequency: The step of the table, such as h or 15min; found by itself if not given.
    validation: Share of every series, before the test part, that decides when to stop; 0.1 if not given.
    test: Share at the end of every series that is kept for the score; 0.2 if not given, 0 to learn from everything.
    epochs: At most so many epochs.
    seed: Of everything random.
    report: Also write a page with figures.
    replace: Whether a model that is already there may be replaced.
    """
    from prismts.estimators.forecaster import Forecaster
    from prismts.estimators.saved import read_config

    console = Console(stderr=True, quiet=quiet)
    out = Path(os.path.abspath(out)) if out.name in ("", "..") else out  # noqa: PTH100 - resolve() would follow links
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        read_config(out)  # a folder that is not ours gets that error, before hours of training
        if not replace:
            raise SettingsError(f"{out} already holds a model. Add --replace to overwrite it, or choose another --out.")
    table, kind, borders = _table_or_dataset(data, time, series, values, frequency)
    if borders is not None and (validation is not None or test is not None):
        raise SettingsError(f"{data} has official borders ({borders}); leave out --validation and --test.")
    for finding in table.findings:
        console.print(f"  note: {escape(str(finding))}")
    run = out.with_name(f"{out.name}.run")
    forecaster = Forecaster(
        model,
        context_length=context_length,
        horizon=horizon,
        quantiles=quantiles,
        setting=setting,
        fit_settings=None if epochs is None else {"max_epochs": epochs},
        time=time,
        series=series,
        values=values,
        frequency=frequency,
        random_state=seed,
        progress=not quiet,
        run_folder=run,
    )
    if borders is not None:
        forecaster.fit((table, kind), validation=borders)
    else:
        shares = {"validation": 0.1 if validation is None else validation, "test": 0.2 if test is None else test}
        forecaster.fit((table, kind), **shares)
    result = forecaster.fit_result_
    if result.history:
        resumed = f", resumed after epoch {result.resumed_from}" if result.resumed_from else ""
        console.print(f"best epoch {result.best_epoch} of {len(result.history)}, {result.seconds:.0f} s{resumed}")
    forecaster.save(out)
    for member in run.glob("member-*"):
        if (member / "run.json").exists():  # written by us
            shutil.rmtree(member, ignore_errors=True)
    if run.is_dir() and not any(run.iterdir()):
        run.rmdir()
    end = None if borders is None else borders.test_end
    scores, floors, part = _scores_beside_floors(forecaster, table, end)
    console.print(_score_table(scores, part))
    if report is not None:
        page = _report(report, forecaster, table, scores, floors, end)
        console.print(f"report: {page}")
    console.print(f"saved: {out}   next: prism predict {out} --out next.csv --plot next.html")


@app.command
def predict(
    model: Path, data: Path | None = None, *, out: Path | None = None, plot: Path | None = None, quiet: Quiet = False
) -> None:
    """Continue every series beyond its end with a saved model.

    Parameters
    ----------
    model: A model folder.
    data: The table to continue; the end of the training data if not given.
    out: Where to write the forecast: .csv, .csv.gz or .parquet. Printed as CSV if neither out nor plot is given.
    plot: Where to write a page with the forecast as a picture.
    """
    from prismts.estimators.load import load

    forecaster = load(model)
    table = forecaster.predict(None if data is None else str(data))
    if out is not None:
        _write_table(table, out)
    elif plot is None:
        sys.stdout.write(table.to_csv(index=False))
    if plot is not None:
        from prismts.report.forecast import forecast_page

        forecast_page(plot, forecaster, forecaster.tails_ if data is None else str(data), command=_command())
    console = Console(stderr=True, quiet=quiet)
    for path in (out, plot):
        if path is not None:
            console.print(f"written: {path}")


@app.command
def evaluate(
    model: Path,
    data: str,
    *,
    begin: int | None = None,
    end: int | None = None,
    out: Path | None = None,
    quiet: Quiet = False,
) -> None:
    """Score a saved model beside the floors, on every window of the part it has not learned from.

    On the table it was trained with, that is what training and validation left alone; on a longer one, what comes after
    its end; on another, all of it.

    Parameters
    ----------
    model: A model folder.
    data: The table, or the name of a known data set.
    begin: First step to score, counted from 0.
    end: The step after the last one to score.
    out: Where to write the scores as JSON.
    """
    from prismts.errors import DataError
    from prismts.estimators.load import load

    forecaster = load(model)

    def read(values: list[str] | None) -> tuple[Collection, TableKind, Borders | None]:
        return _table_or_dataset(data, forecaster.time, forecaster.series, values, forecaster.frequency)

    try:
        table, _, borders = read(forecaster.values)
    except DataError:  # a column that the model does not know may be what cannot be read
        if forecaster.values is not None:
            raise
        try:
            table, _, borders = read(list(forecaster.channels_))
        except DataError:
            table, _, borders = read(None)
    if end is None and borders is not None:
        end = borders.test_end
    scores, _, part = _scores_beside_floors(forecaster, table, end, begin)
    if out is not None:
        text = json.dumps({name: one.as_dict() for name, one in scores.items()}, indent=1)
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = out.with_name(f".{out.name}.partial")
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(out)
    Console(quiet=quiet).print(_score_table(scores, part))


@app.command
def demo(*, out: Path = Path("demo"), seed: int = 0, quiet: Quiet = False) -> None:
    """Train ConvTimeNet on ETTh2, score it beside the floors, forecast, and write it all into one page.

    Where ETTh2 is neither in PRISMTS_DATA nor in the cache and cannot be downloaded, a simulated plant takes its place.

    Parameters
    ----------
    out: The folder for the model, the forecast and the report.
    seed: Of everything random.
    """
    from prismts.data.catalog import load_dataset
    from prismts.data.series import Collection, Series
    from prismts.data.splits import by_fraction
    from prismts.data.synthetic import simulated_plant
    from prismts.errors import DataError
    from prismts.estimators.forecaster import Forecaster

    console = Console(stderr=True, quiet=quiet)
    try:
        series = load_dataset("ETTh2")
        assert isinstance(series, Series)
        console.print("ETTh2: a power transformer in China, hourly, 2016-2018")
    except DataError as error:
        series = simulated_plant()
        console.print(f"[bold]SIMULATED DATA[/bold]: ETTh2 is not to be had here ({escape(str(error))})")
    borders = series.borders or by_fraction(len(series))
    forecaster = Forecaster(random_state=seed, progress=not quiet).fit(series, validation=borders)
    table = Collection.of(series)
    scores, floors, part = _scores_beside_floors(forecaster, table, borders.test_end)
    console.print(_score_table(scores, part))
    out.mkdir(parents=True, exist_ok=True)
    forecaster.save(out / "model")
    _write_table(forecaster.predict(), out / "forecast.csv")
    page = _report(out / "report.html", forecaster, table, scores, floors, borders.test_end)
    console.print(f"model: {out / 'model'}   forecast: {out / 'forecast.csv'}   report: {page}")


def main() -> None:
    """Run the command; bad input ends with one clear line and exit code 2."""
    try:
        app(sys.argv[1:], exit_on_error=False, print_error=False)
    except (PrismError, CycloptsError) as error:
        sys.stderr.write(f"prism: {' '.join(str(error).split())}\n")
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output has seen enough, as in: prism predict m | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:  # a folder that cannot be written, a full disk
        place = f"{error.filename}: " if error.filename is not None else ""
        sys.stderr.write(f"prism: {place}{error.strerror or error}.\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("prism: stopped. The same command goes on after the last finished epoch.\n")
        sys.exit(130)


def _table_or_dataset(
    data: str, time: str | None, series: str | None, values: list[str] | None, frequency: str | None
) -> tuple[Collection, TableKind, Borders | None]:
    """The data as a collection, what kind of table they were, and official borders where they are known by name."""
    from prismts.data.catalog import DATASETS, load_dataset
    from prismts.data.readers import read_with_kind
    from prismts.data.series import Collection, Series

    known = not Path(data).exists() and data.lower() in {name.lower() for name in DATASETS}
    found, kind = read_with_kind(
        load_dataset(data) if known else data, time=time, series=series, values=values, frequency=frequency
    )
    if known and values is not None:
        for name in values:
            if name not in found.channels:
                raise unknown_name("channel", name, found.channels)
        order = [found.channels.index(name) for name in values]
        found = replace(found, values=found.values[order], channels=tuple(values))
    if isinstance(found, Series):
        return Collection.of(found), kind, found.borders
    return found, kind, None


def _scores_beside_floors(
    forecaster: Forecaster, data: Collection, end: int | None, begin: int | None = None
) -> tuple[dict[str, Scores], dict[str, Forecaster], str]:
    """Scores of the model and the floors on the same windows, the floors, and words for which windows these are."""
    from prismts.estimators.floors import fit_floors
    from prismts.evaluation.protocols import data_hash

    where: Any = begin
    part, protocol, digest = "steps as given", "", data_hash(data)
    if begin is None:
        where, part = _after_training(forecaster, data)
        if digest == forecaster.data_hash_:
            where, part, protocol = forecaster.test_begins_, "test: not looked at before", "honest"
            if ((data.lengths if end is None else end) - where < forecaster.horizon).all():
                where, protocol = forecaster.train_ends_, ""
                part = "validation: it chose the epoch, so expect worse on new data"
                if (forecaster.test_begins_ - where < forecaster.horizon).all():
                    where, part = 0, "training data: says nothing about new data"
    floors = fit_floors(forecaster, data)
    contestants = {forecaster.model: forecaster, **floors}
    found = {name: one.backtest(data, begin=where, end=end).scores for name, one in contestants.items()}
    told = {name: replace(scores, protocol=protocol, data_hash=digest) for name, scores in found.items()}
    return told, floors, part


def _after_training(forecaster: Forecaster, data: Collection) -> tuple[Any, str]:
    """First step of another table to score, and which part that is: what comes after training, where times tell."""
    last, times = forecaster.tails_.timestamps, data.timestamps
    if last is not None and times is not None and len(data) == 1 and times[0] <= last.max() < times[-1]:
        where = int((times <= last.max()).sum())
        if len(times) - where >= forecaster.horizon:
            return where, "what comes after the end of the training table"
    return 0, "all of another table, which may share rows with training"


def _report(
    path: Path,
    forecaster: Forecaster,
    data: Collection,
    scores: Mapping[str, Scores],
    floors: Mapping[str, Forecaster],
    end: int | None,
) -> str:
    """Write the full page about a forecaster and its first series; what was written, and how large it is."""
    from prismts.data.splits import Borders
    from prismts.report.forecast import forecast_report

    series = data[0]
    borders = Borders(int(forecaster.train_ends_[0]), int(forecaster.test_begins_[0]), end or len(series))
    return str(forecast_report(path, forecaster, series, borders, scores, rivals=floors, command=_command()))


def _command() -> str:
    return shlex.join(["prism", *sys.argv[1:]])


def _score_table(scores: Mapping[str, Scores], part: str) -> Table:
    first = next(iter(scores.values()))
    columns = {
        "mse": "MSE", "mae": "MAE", "rmse_own": "RMSE (own units)", "mae_own": "MAE (own units)", "mase": "MASE",
        "coverage": "coverage",
    }  # fmt: skip
    shown = [name for name in columns if name in first]
    table = Table(
        "model",
        *(columns[name] for name in shown),
        box=None,
        title=f"{first.data}, {part}: {first.n_scored:,} windows, MSE and MAE on standardized values",
        title_justify="left",
    )
    for name, one in scores.items():
        table.add_row(escape(name), *(f"{one[measure]:.4f}" if measure in one else "" for measure in shown))
    return table


def _write_table(table: Any, path: Path) -> None:
    """Write a frame atomically, in the format that the ending names."""
    name = path.name.lower()
    if not name.endswith((".csv", ".csv.gz", ".parquet")):
        raise SettingsError(f"{path}: a forecast is written as .csv, .csv.gz or .parquet.")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial.{path.name}")
    try:
        if name.endswith(".parquet"):
            table.to_parquet(partial, index=False)
        else:
            table.to_csv(partial, index=False)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
