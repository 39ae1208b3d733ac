"""What a saved model says of data, and how good it is: one command each, whatever the model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from prismts.cli.app import app
from prismts.cli.files import free_file, table_for, tell_findings, write_json, write_table
from prismts.cli.options import Duplicates, Quiet, Whole
from prismts.cli.saved import Head, saved
from prismts.errors import SettingsError, a_or_an

__all__ = ["evaluate", "predict"]


@app.command
def predict(
    model: Path,
    data: Path | None = None,
    *,
    head: Head = None,
    horizon: Whole | None = None,
    duplicates: Duplicates = "refuse",
    out: Path | None = None,
    plot: Path | None = None,
    quiet: Quiet = False,
) -> None:
    """Ask a saved model: what comes next, which class, what is anomalous, what stood in the gaps.

    A forecaster continues every series beyond its end, with the end of the training data if no data are given. A
    classifier names the class of each case with the probability of every class. A detector gives each step a score
    beside its threshold. An imputer fills the gaps, and an embedder gives each case a vector. A universal model does
    each of this by the task that --head names.

    Args:
        model: A model folder.
        data: The table or cases to answer for.
        horizon: Steps to forecast, if not those of training: fewer of any forecaster, more of one with --head
            any_horizon.
        out: Where to write the answer: .csv, .csv.gz or .parquet. Printed as CSV if neither out nor plot is given.
        plot: Where to write a page (.html) with the answer as a picture, of a forecaster or a detector.
    """
    free_file(out, data, table=True)
    free_file(plot, data, page=True)
    console = Console(stderr=True, quiet=quiet)
    estimator, kind = saved(model, head)
    if data is None and kind != "Forecaster":
        raise SettingsError(f"{model} holds {a_or_an(kind)}, which answers for data: prism predict {model} DATA.")
    if horizon is not None and kind != "Forecaster":
        raise SettingsError(f"--horizon is for forecasters, but {model} holds {a_or_an(kind)}. Leave it out.")
    if kind == "Forecaster":
        from prismts.cli.forecasting import predict_forecast

        predict_forecast(estimator, data, duplicates, out, plot, horizon, quiet=quiet)
    elif kind == "AnomalyDetector":
        from prismts.cli.detecting import predict_anomalies

        predict_anomalies(estimator, str(data), duplicates, out, plot, quiet)
    else:
        if plot is not None:
            raise SettingsError(f"{model} holds {a_or_an(kind)}, of which there is no plot. Leave --plot out.")
        table = _answers(estimator, kind, str(data), duplicates, console)
        if out is not None:
            write_table(table, out)
        else:
            sys.stdout.write(table.to_csv(index=False))
    for path in (out, plot):
        if path is not None:
            console.print(f"written: {path}")


@app.command
def evaluate(
    model: Path,
    data: str,
    *,
    head: Head = None,
    begin: Whole | None = None,
    end: Whole | None = None,
    duplicates: Duplicates = "refuse",
    out: Path | None = None,
    quiet: Quiet = False,
) -> None:
    """Score a saved model on data it has not learned from.

    A forecaster is scored beside the floors, on every window: on the table it was trained with, of the part that
    training and validation left alone; on a longer one, of what comes after its end; on another, of all of it. A
    classifier is scored on labeled cases; of a known data set, on its test part. A detector is scored on a labeled
    series, such as a known data set, after its training part.

    Args:
        model: A model folder.
        data: The table or cases, or the name of a known data set.
        begin: First step to score, counted from 0.
        end: The step after the last one to score.
        out: Where to write the scores as JSON.
    """
    free_file(out, data)
    console = Console(stderr=True, quiet=quiet)
    estimator, kind = saved(model, head)
    if kind != "Forecaster" and not (begin is None and end is None):
        raise SettingsError(
            f"--begin and --end are for forecasters, but {model} holds {a_or_an(kind)}. Leave them out."
        )
    scores: dict[str, Any]
    table: Table
    if kind == "Forecaster":
        from prismts.cli.forecasting import evaluate_forecast

        scores, table = evaluate_forecast(estimator, data, begin, end, duplicates, console)
    elif kind == "Classifier":
        from prismts.cli.classifying import evaluate_classes

        scores, table = evaluate_classes(estimator, data, duplicates, console)
    elif kind == "AnomalyDetector":
        from prismts.cli.detecting import evaluate_anomalies

        if duplicates != "refuse":
            raise SettingsError(
                f"--duplicates settles rows of a table, but {model} holds a detector, which is scored on a known data "
                "set. Leave it out."
            )
        scores, table = evaluate_anomalies(estimator, data)
    else:
        raise SettingsError(f"{model} holds {a_or_an(kind)}; evaluate scores forecasters, classifiers and detectors.")
    if out is not None:
        write_json(scores, out)
    Console(quiet=quiet).print(table)


def _answers(estimator: Any, kind: str, data: str, duplicates: Duplicates, console: Console) -> Any:
    """The answer of a classifier, an imputer or an embedder, as a frame."""
    if kind == "Classifier":
        from prismts.cli.classifying import classes_of

        return classes_of(estimator, data, duplicates, console)
    if kind == "Embedder":
        from prismts.cli.filling import cases_of, vectors_of

        cases = cases_of(estimator, data, duplicates, console)
        return vectors_of(estimator, cases)
    found = table_for(estimator, data, duplicates, exact=True)
    tell_findings(console, found[0].findings)
    return estimator.transform(found[:2])
