"""Forecasters on the command line: train beside the floors, continue, score."""

from __future__ import annotations

import sys
from bisect import insort
from collections.abc import Mapping, Sequence
from dataclasses import replace as changed
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from prismts.cli.app import fit_app
from prismts.cli.files import (
    free_file,
    free_place,
    run_beside,
    table_for,
    table_or_dataset,
    tell_findings,
    typed,
    write_table,
)
from prismts.cli.options import Duplicates, Quiet, Replace, Seed, SeriesColumn, TimeColumn, Values, Whole
from prismts.cli.seen import told_of_steps, told_of_teachers
from prismts.errors import SettingsError

if TYPE_CHECKING:
    from prismts.data.series import Collection
    from prismts.data.tables import TableKind
    from prismts.estimators.forecaster import Forecaster
    from prismts.evaluation.scores import Scores
    from prismts.report.page import Section

__all__ = ["evaluate_forecast", "fit_forecast", "predict_forecast", "score_table", "scores_beside_floors", "write_page"]


@fit_app.command(name="forecast")
def fit_forecast(
    data: str,
    *,
    out: Path,
    horizon: Whole = 96,
    context_length: Whole = 512,
    model: str = "convtimenet",
    setting: str = "default",
    loss: str | None = None,
    line: str | None = None,
    head: str = "flatten",
    quantiles: Annotated[list[float] | None, Parameter(consume_multiple=True, negative="")] = None,
    time: TimeColumn = None,
    series: SeriesColumn = None,
    values: Values = None,
    frequency: str | None = None,
    duplicates: Duplicates = "refuse",
    validation: float | None = None,
    test: float | None = None,
    epochs: Whole | None = None,
    seed: Seed = 0,
    report: Path | None = None,
    replace: Replace = False,
    quiet: Quiet = False,
) -> None:
    """Train a forecaster on a table, score it beside the floors on the part it has not seen, and save it.

    A run that was killed goes on after its last finished epoch when the same command is given again.

    Args:
        data: The table, or the name of a known data set (see: prism datasets).
        out: The model folder to write.
        horizon: Steps to forecast.
        context_length: Steps of past to read.
        model: A model by name, such as convtimenet, cross_learner, patchtst, dlinear, ridge or last_value; auto lets
            the data choose the sizes of a ConvTimeNet, and says why.
        setting: A named recipe: default, seasonal_line (the same for a long context, such as eight weeks of hours),
            chosen_line (beside one straight line that reads step by step), individual_line (another one for each
            channel), coupled_line (these, corrected by what all channels did lately), ridge_line, reverting_line,
            long_line (a network of the last 336 steps, the line reads all of the context), two_contexts (the mean of
            chosen_line on the last 336 steps and of long_line), two_encoders (with a cross learner in the place of the
            latter), network (no line), published (the authors' form), or published/NAME.
        loss: What training minimizes: mse, mae, huber, relative_mse or soft_dtw; that of the setting if not given.
        line: The straight line beside the network: seasonal, chosen, individual, coupled, ridge or reverting; the
            setting's if not given.
        head: flatten, or any_horizon: predict may then ask for more steps than training did.
        quantiles: Levels to forecast besides the middle, such as 0.1 0.9.
        frequency: The step of the table, such as h or 15min; found by itself if not given.
        validation: Share of every series, before the test part, that decides when to stop; 0.1 if not given.
        test: Share at the end of every series that is kept for the score; 0.2 if not given, 0 to learn from everything.
        epochs: At most so many epochs.
        seed: Of everything random.
        report: Also write a page (.html) with figures.
    """
    from prismts.estimators.forecaster import Forecaster

    console = Console(stderr=True, quiet=quiet)
    out = free_place(out, replace)
    free_file(report, data, page=True)
    if quantiles and 0.5 not in quantiles:
        insort(quantiles, 0.5)  # the column of the channel itself is the median
    table, kind, borders = table_or_dataset(data, time, series, values, frequency, duplicates)
    if borders is not None and (validation is not None or test is not None):
        raise SettingsError(f"{data} has official borders ({borders}); leave out --validation and --test.")
    tell_findings(console, table.findings)
    with run_beside(out) as run:
        forecaster = Forecaster(
            model,
            context_length=context_length,
            horizon=horizon,
            quantiles=quantiles,
            loss=loss,
            line=line,
            head=head,
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
        if forecaster.proposal_ is not None:
            console.print(escape(str(forecaster.proposal_)))
        tell_findings(console, forecaster.findings_[len(table.findings) :])
        result = forecaster.fit_result_
        if result.history:
            resumed = f", resumed after epoch {result.resumed_from}" if result.resumed_from else ""
            console.print(f"best epoch {result.best_epoch} of {len(result.history)}, {result.seconds:.0f} s{resumed}")
        forecaster.save(out)
    end = None if borders is None else borders.test_end
    scores, floors, part = scores_beside_floors(forecaster, table, end)
    console.print(score_table(scores, part))
    if report is not None:
        page = write_page(report, forecaster, table, scores, floors, part, end)
        console.print(f"report: {page}")
    console.print(f"saved: {out}   next: prism predict {out} --out next.csv --plot next.html")


def predict_forecast(
    forecaster: Forecaster,
    data: Path | None,
    duplicates: Duplicates,
    out: Path | None,
    plot: Path | None,
    horizon: int | None = None,
    quiet: bool = False,
) -> None:
    """Continue every series beyond its end, as a table, a page, or both."""
    if plot is not None and horizon is not None:
        raise SettingsError("The page of --plot shows the horizon of training. Leave --horizon or --plot out.")
    source: tuple[Collection, TableKind] | None = None
    if data is not None:
        source = table_for(forecaster, str(data), duplicates)[:2]
    if source is not None:
        tell_findings(Console(stderr=True, quiet=quiet), source[0].findings)
    table = forecaster.predict(source, horizon=horizon)
    if out is not None:
        write_table(table, out)
    elif plot is None:
        sys.stdout.write(table.to_csv(index=False))
    if plot is not None:
        from prismts.report.forecast import forecast_page

        forecast_page(plot, forecaster, forecaster.tails_ if source is None else source[0], command=typed())


def evaluate_forecast(
    forecaster: Forecaster, data: str, begin: int | None, end: int | None, duplicates: Duplicates, console: Console
) -> tuple[dict[str, Any], Table]:
    """Scores of a saved forecaster and the floors on what it has not learned from: as plain values, and to print."""
    for name, step in (("--begin", begin), ("--end", end)):
        if step is not None and step < 0:
            raise SettingsError(f"{name} is a step counted from 0, the first of each series, but got {step}.")

    table, _, borders = table_for(forecaster, data, duplicates, "refuse")
    tell_findings(console, table.findings)
    if end is None and borders is not None:
        end = borders.test_end
    scores, _, part = scores_beside_floors(forecaster, table, end, begin)
    return {name: one.as_dict() for name, one in scores.items()}, score_table(scores, part)


def scores_beside_floors(
    forecaster: Forecaster,
    data: Collection,
    end: int | None,
    begin: int | None = None,
    *,
    before: Forecaster | None = None,
) -> tuple[dict[str, Scores], dict[str, Forecaster], str]:
    """Scores of the model and the floors on the same windows, the floors, and words for which windows these are.

    ``before`` is what the model was adapted from, where it is at hand.
    """
    from prismts.estimators.floors import fit_floors
    from prismts.evaluation.protocols import data_hash

    where: Any = begin
    part, protocol, digest = "steps as given", "", data_hash(data)
    if begin is not None:
        part += told_of_steps([forecaster], data, begin, "it")
    else:
        where, part = _after_training(forecaster, data)
        if digest == forecaster.data_hash_:
            where, part, protocol = forecaster.test_begins_, "test: not looked at before", "honest"
            learned = told_of_steps([before or forecaster], data, where, "the model before it")
            if learned:
                part, protocol = f"test{learned}", ""
            if ((data.lengths if end is None else end) - where < forecaster.horizon).all():
                where, protocol = forecaster.train_ends_, ""
                part = "validation: it chose the epoch, so expect worse on new data"
                if (forecaster.test_begins_ - where < forecaster.horizon).all():
                    where, part = 0, "training data: says nothing about new data"
        else:
            part += told_of_teachers([forecaster], data, where)
    floors = fit_floors(forecaster, data)
    contestants = {forecaster.model: forecaster, **floors}
    found = {name: one.backtest(data, begin=where, end=end).scores for name, one in contestants.items()}
    told = {name: changed(scores, protocol=protocol, data_hash=digest) for name, scores in found.items()}
    return told, floors, part


def _after_training(forecaster: Forecaster, data: Collection) -> tuple[Any, str]:
    """First step of another table to score, and which part that is: what comes after training, where times tell."""
    last, times = forecaster.tails_.timestamps, data.timestamps
    if last is not None and times is not None and len(data) == 1 and times[0] <= last.max() < times[-1]:
        where = int((times <= last.max()).sum())
        if len(times) - where >= forecaster.horizon:
            return where, "what comes after the end of the training table"
    return 0, "all of another table, which may share rows with training"


def write_page(
    path: Path,
    forecaster: Forecaster,
    data: Collection,
    scores: Mapping[str, Scores],
    floors: Mapping[str, Forecaster],
    part: str,
    end: int | None,
    more: Sequence[Section] = (),
) -> str:
    """Write the full page about a forecaster and its first series; what was written, and how large it is.

    ``part`` are the words of ``scores_beside_floors``, which begin with the name of what was scored.
    """
    from prismts.data.splits import Borders
    from prismts.report.forecast import forecast_report

    series = data[0]
    borders = Borders(int(forecaster.train_ends_[0]), int(forecaster.test_begins_[0]), end or len(series))
    notes = [] if part.startswith("test:") else [f"The scores are of {part}."]
    if len(data) > 1:
        notes.append(
            f"The scores are of all {len(data):,} series; drawn, and told of under Data, is the first, {series.name}."
        )
    return str(forecast_report(
        path, forecaster, series, borders, scores, rivals=floors, part=part.split()[0].rstrip(":,"),
        title=f"{forecaster.model} on {data.name}", notes=notes, command=typed(), more=more,
    ))  # fmt: skip


def score_table(scores: Mapping[str, Scores], part: str) -> Table:
    """Scores by model, to print; ``part`` says in words what was scored."""
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
