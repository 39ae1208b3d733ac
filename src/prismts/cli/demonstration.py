"""The main job on real data, end to end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from prismts.cli.app import app
from prismts.cli.files import free_file, free_place, write_table
from prismts.cli.forecasting import score_table, scores_beside_floors, write_page
from prismts.cli.options import Quiet, Seed

if TYPE_CHECKING:
    from prismts.report.page import Section

__all__ = ["demo"]


@app.command
def demo(*, out: Path = Path("demo"), seed: Seed = 0, quiet: Quiet = False) -> None:
    """Forecast, classify and watch, each on real data, and write it all into one page.

    ConvTimeNet forecasts ETTh2 beside the floors, a classifier tells four motions of a smart watch apart
    (BasicMotions), and a detector looks for the one anomaly of a blood pressure (UCR archive). Where a set is neither
    in PRISMTS_DATA nor in the cache and cannot be downloaded, a simulated one takes its place, and the page says so.

    Args:
        out: The folder for the models, the forecast and the report.
        seed: Of everything random.
    """
    from prismts.data.catalog import load_dataset
    from prismts.data.series import Collection, Series
    from prismts.data.splits import by_fraction
    from prismts.data.synthetic import simulated_plant
    from prismts.errors import DataError
    from prismts.estimators.forecaster import Forecaster

    console = Console(stderr=True, quiet=quiet)
    for name in ("model", "classifier", "detector"):
        free_place(out / name, may_replace=True)
    free_file(out / "forecast.csv", table=True)
    free_file(out / "report.html")
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
    scores, floors, part = scores_beside_floors(forecaster, table, borders.test_end)
    console.print(score_table(scores, part))
    out.mkdir(parents=True, exist_ok=True)
    forecaster.save(out / "model")
    write_table(forecaster.predict(), out / "forecast.csv")
    more = [*_motions(out / "classifier", console, seed, quiet), *_signal(out / "detector", console, seed, quiet)]
    page = write_page(out / "report.html", forecaster, table, scores, floors, part, borders.test_end, more)
    console.print(f"models: {out}/model, classifier, detector   forecast: {out / 'forecast.csv'}   report: {page}")


def _motions(place: Path, console: Console, seed: int, quiet: bool) -> list[Section]:
    """Train a classifier on the motions, score it on the test cases, save it, and tell."""
    from prismts.data.catalog import load_dataset
    from prismts.data.series import Collection
    from prismts.data.synthetic import labeled_motions
    from prismts.errors import DataError
    from prismts.estimators.classifier import Classifier
    from prismts.report.classification import classification_sections
    from prismts.report.page import Note, Section

    first: list[Section] = []
    try:
        cases = load_dataset("BasicMotions")
        assert isinstance(cases, Collection)
    except DataError:
        cases = labeled_motions()
        console.print("[bold]SIMULATED DATA[/bold]: BasicMotions is not to be had here")
        first.append(Section("", [Note("The cases below are simulated, not measured.", "alarm")]))
    # one part judges instead of four folds: a demonstration, quicker than the default
    classifier = Classifier(validation=0.25, random_state=seed, progress=not quiet).fit(cases.train)
    classifier.save(place)
    console.print(str(classifier.evaluate(cases.test)))
    return [*first, *classification_sections(classifier, cases.test, part="test part")]


def _signal(place: Path, console: Console, seed: int, quiet: bool) -> list[Section]:
    """Let a detector learn the anomaly-free part of a signal, score it on the rest, save it, and tell."""
    from dataclasses import replace

    from prismts.data.catalog import load_dataset
    from prismts.data.series import Series
    from prismts.data.synthetic import planted_anomalies
    from prismts.errors import DataError
    from prismts.estimators.detector import AnomalyDetector
    from prismts.evaluation.protocols import detector_scores
    from prismts.report.detection import detection_sections
    from prismts.report.page import Facts, Note, Section

    first: list[Section] = []
    try:
        series = load_dataset("UCR/InternalBleeding16")  # of the part that settings were chosen on, not of the table
        assert isinstance(series, Series)
    except DataError:
        series = planted_anomalies()
        console.print("[bold]SIMULATED DATA[/bold]: the pressure signal is not to be had here")
        first.append(Section("", [Note("The signal below is simulated, not measured.", "alarm")]))
    assert series.borders is not None and series.labels is not None
    detector = AnomalyDetector(random_state=seed, progress=not quiet).fit(series.part(0, series.borders.train_end))
    detector.save(place)
    scores = detector_scores(detector, series)
    told = ", ".join(f"{name} {scores[name]:.3f}" for name in ("vus_pr", "auc_pr"))
    console.print(f"{series.name}: {told}  ({scores.n_scored:,} steps after training)")
    steps = series.labels.nonzero()[0]
    facts = Facts([("VUS-PR", f"{scores['vus_pr']:.3f}"), ("labeled", f"steps {steps.min():,} to {steps.max():,}")])
    shown = replace(series, labels=None)
    sections = detection_sections(detector, [shown], title=f"Anomalies: {series.name}")
    return [*first, Section(sections[0].title, [*sections[0].blocks, facts]), *sections[1:]]
