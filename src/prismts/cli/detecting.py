"""Detectors on the command line: learn what is usual, then tell what is not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from prismts.cli.app import fit_app
from prismts.cli.files import free_place, run_beside, table_for, table_or_dataset, tell_findings, typed, write_table
from prismts.cli.options import Duplicates, Quiet, Replace, Seed, SeriesColumn, TimeColumn, Values, Whole
from prismts.cli.seen import told_if_learned

if TYPE_CHECKING:
    from prismts.estimators.detector import AnomalyDetector

__all__ = ["evaluate_anomalies", "fit_detect", "predict_anomalies"]


@fit_app.command(name="detect")
def fit_detect(
    data: str,
    *,
    out: Path,
    model: str = "convtimenet",
    setting: str = "default",
    context_length: Whole | None = None,
    score: str = "both",
    threshold: str = "tail",
    false_alarm_rate: float = 0.001,
    time: TimeColumn = None,
    series: SeriesColumn = None,
    values: Values = None,
    frequency: str | None = None,
    duplicates: Duplicates = "refuse",
    validation: float = 0.2,
    seed: Seed = 0,
    replace: Replace = False,
    quiet: Quiet = False,
) -> None:
    """Learn what is usual in a table, and save a detector of what is not.

    Args:
        data: The table, or the name of a known data set (of which the part before its test part is read).
        out: The model folder to write.
        model: A model with an encoder, or a baseline such as sub_pca, iforest, kmeans, knn, matrix_profile.
        setting: A named recipe: default (closed forms, no training), combined (networks beside them), or network.
        context_length: Steps the networks read at once; two dominant periods if not given.
        score: Which networks judge: reconstruct, forecast or both.
        threshold: tail (extreme-value fit) or quantile.
        false_alarm_rate: Share of usual steps that may exceed the threshold.
        frequency: The step of the table, such as h or 15min; found by itself if not given.
        validation: Share at the end of every series that sets scales.
        seed: Of everything random.
    """
    from prismts.data.series import Collection
    from prismts.estimators.detector import AnomalyDetector

    console = Console(stderr=True, quiet=quiet)
    out = free_place(out, replace)
    collection, _, borders = table_or_dataset(data, time, series, values, frequency, duplicates)
    tell_findings(console, collection.findings)
    learned: Any = collection
    if borders is not None:  # the official test part is left alone
        learned = Collection.of([case.part(0, borders.validation_end) for case in collection], name=collection.name)
    own = borders is None or borders.train_end == borders.validation_end
    with run_beside(out) as run:
        detector = AnomalyDetector(
            model, setting=setting, context_length=context_length, score=score, threshold=threshold,  # type: ignore[arg-type]
            false_alarm_rate=false_alarm_rate, time=time, series=series, values=values, frequency=frequency,
            random_state=seed, progress=not quiet, run_folder=run,
        )  # fmt: skip
        detector.fit(learned, validation=validation if own else borders)
        detector.save(out)
    console.print(f"judges: {', '.join(detector.judges_)}; scales from {detector.calibrated_on_}")
    console.print(f"threshold: {detector.threshold_}")
    console.print(f"saved: {out}   next: prism predict {out} NEW.csv --out scores.csv --plot scores.html")


def predict_anomalies(
    detector: AnomalyDetector, data: str, duplicates: Duplicates, out: Path | None, plot: Path | None, quiet: bool
) -> None:
    """Scores, threshold and alarm of every step as a table; the events are printed; a page with both."""
    read, kind, _ = table_for(detector, data, duplicates, missing_codes=())  # scored as they are
    scores: list[NDArray[np.float64]] = []
    console = Console(stderr=True, quiet=quiet)
    tell_findings(console, read.findings)
    for case in read:
        scores.append(detector.score_samples(case))
        found = detector.events(case)
        for event in found:
            steps = range(len(case)) if case.timestamps is None else pd.DatetimeIndex(case.timestamps)
            begin, end = steps[event.start], steps[event.end - 1]
            where = f"{case.name}: " if len(read) > 1 else ""
            console.print(f"{where}{begin} to {end}, score {event.score:.4g}, channels {', '.join(event.channels)}")
        if not found:
            console.print(f"{case.name}: no step is above the threshold")
    table = detector._table(read, kind, np.concatenate(scores))  # pyright: ignore[reportPrivateUsage], as of predict
    if out is not None:
        write_table(table, out)
    elif plot is None:
        sys.stdout.write(table.to_csv(index=False))
    if plot is not None:
        from prismts.report.detection import detection_page

        detection_page(plot, detector, read, command=typed())


def evaluate_anomalies(detector: AnomalyDetector, data: str) -> tuple[dict[str, Any], Table]:
    """Scores on a labeled data set known by name, after its training part: as plain values, and to print."""
    from prismts.data.catalog import load_dataset
    from prismts.data.series import Series
    from prismts.errors import DataError
    from prismts.evaluation.protocols import detector_scores

    series = load_dataset(data)
    if not isinstance(series, Series) or series.labels is None:
        raise DataError(f"{data} has no labels of anomalies. See: prism datasets --task detect.")
    scores = detector_scores(detector, series)
    title = f"{escape(series.name)}{told_if_learned(detector, series)}: {scores.n_scored:,} steps"
    table = Table("measure", "value", box=None, title=title)
    for name, value in scores.items():
        table.add_row(name, f"{value:.4f}")
    return scores.as_dict(), table
