"""Two trained models of one task on the same windows, cases or steps."""

# the sections of the forecast report are those of this page
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prismts.data.series import Collection, Series
from prismts.data.splits import Borders
from prismts.errors import DataError, SettingsError
from prismts.report.page import Block, Drawing, Facts, Section, Table, Text, write_report
from prismts.serving.jobs import Tell
from prismts.serving.studio_source import Loaded, load_source, scored_cases
from prismts.serving.studio_values import write_sections

__all__ = ["compare"]


def compare(request: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """Two trained models of one task on the same windows, cases or steps."""
    from prismts.estimators.load import load

    tell({"stage": "reading"})
    loaded = load_source(request["source"], request.get("options") or {})
    a, b = (load(Path(one["folder"]) / "model") for one in (request["a"], request["b"]))
    names = [request[which]["title"] for which in "ab"]
    if names[0] == names[1]:
        names = [f"{name} ({number})" for number, name in enumerate(names, start=1)]
    comparers = {"forecast": _two_forecasts, "classify": _two_classes, "detect": _two_detectors, "impute": _two_fills}
    if request["task"] not in comparers:
        raise SettingsError("Two embedders have no error to compare; look at their maps one after the other.")
    tell({"stage": "scoring", "what": "both on the same data"})
    sections = comparers[request["task"]](dict(zip(names, (a, b), strict=True)), loaded)
    folder = Path(request["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    title = f"{names[0]} and {names[1]}"
    write_report(folder / "report.html", title, sections, subtitle="on the same data")
    write_sections(folder / "sections.json", sections)
    return {"title": title, "task": "compare", "headline": [], "files": ["report.html"]}


def _two_forecasts(models: Mapping[str, Any], loaded: Loaded) -> list[Section]:
    from prismts.evaluation.protocols import data_hash
    from prismts.report import forecast as report
    from prismts.report.figures import forecast_figure

    data = loaded.collection
    (name_a, a), (name_b, b) = models.items()
    if a.horizon != b.horizon:
        raise SettingsError(
            f"{name_a} forecasts {a.horizon} steps and {name_b} {b.horizon}: their windows differ. Train one of them "
            "again with the horizon of the other."
        )
    begin = np.maximum(a.test_begins_, b.test_begins_)
    end = None if loaded.borders is None else loaded.borders.test_end
    ends = data.lengths if end is None else np.minimum(end, data.lengths)
    if not (ends - begin >= a.horizon).any():
        raise DataError(
            f"No series has {a.horizon} steps that neither model has learned from. Give a larger test part."
        )
    digest = data_hash(data)
    scores = {
        name: replace(one.backtest(data, begin=begin, end=end).scores, protocol="honest", data_hash=digest)
        for name, one in models.items()
    }
    series = report._in_order(data[0], a)
    borders = Borders(int(min(a.train_ends_[0], b.train_ends_[0])), int(begin[0]), int(ends[0]))
    facts = [(f"MSE {name}", f"{score['mse']:.4f}") for name, score in scores.items()]
    better = min(scores, key=lambda name: scores[name]["mse"])
    words = f"{better} has the lower error on {scores[better].n_scored:,} windows that neither has learned from."
    middle = {name: report._point(report._predicted(one, series), one.quantiles) for name, one in models.items()}
    ahead = Drawing(forecast_figure(series, middle), "What both say comes after the last row.", "Beyond the end")
    return [
        Section("", [Facts(facts, large=True), Text(words)]), Section("Forecasts", [ahead]),
        Section("Test windows", report._test_windows(models, series, borders)),
        Section("Errors", report._errors(scores)), Section("Scores", report._scores(scores)),
    ]  # fmt: skip


def _two_classes(models: Mapping[str, Any], loaded: Loaded) -> list[Section]:
    from prismts.report.classification import confusion_figure

    cases = loaded.data
    assert isinstance(cases, Collection)
    _, test, part = scored_cases(cases)
    truth = np.asarray(test.labels)
    rows: list[list[str]] = []
    drawings: list[Block] = []
    answers: list[NDArray[Any]] = []
    for name, one in models.items():
        scores = one.evaluate(test)
        rows.append([name, *(f"{scores[key]:.4f}" for key in ("accuracy", "balanced_accuracy", "log_loss"))])
        answers.append(one.predict(test))
        drawings.append(
            Drawing(confusion_figure(truth, answers[-1], one.classes_), f"{name}: rows are the truth.", name)
        )
    same = float((answers[0] == answers[1]).mean())
    table = Table(["model", "accuracy", "balanced accuracy", "log loss"], rows, f"{len(test):,} cases: {part}.")
    words = f"The two say the same of {same:.1%} of these cases."
    return [Section("", [table, Text(words)]), Section("Which is taken for which", drawings)]


def _two_detectors(models: Mapping[str, Any], loaded: Loaded) -> list[Section]:
    from prismts.evaluation.protocols import detector_scores
    from prismts.report.detection import detection_figure

    rows: list[list[str]] = []
    drawings: list[Block] = []
    alarms: list[NDArray[Any]] = []
    series = loaded.collection[0]
    for name, one in models.items():
        scores, found = one.score_samples(series), one.events(series)
        alarms.append(one.threshold_.alarms(scores))
        row = [name, f"{len(found):,}", f"{int(alarms[-1].sum()):,}"]
        if isinstance(loaded.data, Series) and loaded.data.labels is not None and loaded.borders is not None:
            row.append(f"{detector_scores(one, loaded.data)['vus_pr']:.3f}")
        rows.append(row)
        figure = detection_figure(series, scores, one.threshold_, found, one.contributions(series))
        drawings.append(Drawing(figure, f"Stretches of alarm of {name}.", name))
    both = int((alarms[0] & alarms[1]).sum())
    columns = ["model", "events", "steps of alarm", "VUS-PR"][: len(rows[0])]
    words = f"Both alarm at {both:,} of the {len(series):,} steps of {series.name}."
    return [Section("", [Table(columns, rows), Text(words)]), Section("What was found", drawings)]


def _two_fills(models: Mapping[str, Any], loaded: Loaded) -> list[Section]:
    rows: list[list[str]] = []
    for name, one in models.items():
        scores = one.evaluate_removed(loaded.collection, 0.1, seed=0)
        rows.append([name, *(f"{scores[key]:.4f}" for key in ("mse", "mae", "mse_line"))])
    caption = "A tenth of the observed values, the same for both, was hidden and filled again; in units of the scaler."
    return [Section("", [Table(["model", "MSE", "MAE", "MSE of a straight line"], rows, caption)])]
