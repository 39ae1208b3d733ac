"""Train what the studio is asked for, score it, and keep model, answer and report in a folder."""

# the sections of the forecast report are those of this page
# pyright: reportPrivateUsage=false

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from prismts.data import synthetic
from prismts.data.series import Collection, Series
from prismts.data.splits import Borders
from prismts.data.tables import TableKind
from prismts.errors import DataError, SettingsError, unknown_name
from prismts.report.page import Block, Drawing, Facts, Note, Section, Table, Text, write_report
from prismts.serving.jobs import Tell, listening
from prismts.serving.studio_figures import filled_figure
from prismts.serving.studio_source import Loaded, load_source, scored_cases
from prismts.serving.studio_values import write_sections
from prismts.serving.uploads import neutral

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["train"]

_QUANTILES = (0.1, 0.5, 0.9)
_POINTS_OF_A_MAP = 200  # about so many windows of a single series
_MOST_SERIES = 12


def train(request: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """Train one model; its folder then holds the model, its answer as a table, and the report."""
    trainers = {
        "forecast": _forecast, "classify": _classify, "detect": _detect, "impute": _impute, "embed": _embed,
    }  # fmt: skip
    if request["task"] not in trainers:
        raise unknown_name("task", request["task"], trainers)
    tell({"stage": "reading"})
    loaded = load_source(request["source"], request.get("options") or {})
    folder = Path(request["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    run = folder.parent / "runs" / _fingerprint(request)  # stopped and asked for again: it goes on there
    tell({"stage": "preparing"})
    with listening(tell):
        trained = trainers[request["task"]](request, loaded, tell, run)
    tell({"stage": "saving"})
    trained.estimator.set_params(run_folder=None)
    trained.estimator.save(folder / "model")
    shutil.rmtree(run, ignore_errors=True)
    shutil.make_archive(str(folder / "model"), "zip", folder, "model")
    neutral(trained.table).to_csv(folder / f"{trained.table_name}.csv", index=False)
    subtitle = f"{request['model']}, seed {request['seed']}, made by prism studio"
    write_report(folder / "report.html", trained.title, trained.sections, subtitle=subtitle)
    write_sections(folder / "sections.json", trained.sections)
    return {
        "title": trained.title, "task": request["task"], "headline": [list(pair) for pair in trained.headline],
        "files": [f"{trained.table_name}.csv", "model.zip", "report.html"],
    }  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """What a training leaves: the estimator, its answer as a table, and what is to be seen."""

    estimator: Any
    title: str
    sections: Sequence[Section]
    table: pd.DataFrame
    table_name: str
    headline: Sequence[tuple[str, str]] = ()


def _fingerprint(request: Mapping[str, Any]) -> str:
    told = {name: value for name, value in request.items() if name not in ("folder", "title")}
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _columns(request: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of the table as the estimators take them, so that a saved model reads the next file alike."""
    options = request.get("options") or {}
    return {name: options.get(name) or None for name in ("time", "series", "values")}


def _common(request: Mapping[str, Any], run: Path) -> dict[str, Any]:
    fit = {"max_epochs": request["epochs"]} if request.get("epochs") else None
    return {"fit_settings": fit, "random_state": request["seed"], "progress": True, "run_folder": run}


def _forecast(request: Mapping[str, Any], loaded: Loaded, tell: Tell, run: Path) -> Trained:
    from prismts.estimators.floors import fit_floors
    from prismts.estimators.forecaster import Forecaster
    from prismts.evaluation.protocols import data_hash
    from prismts.report import forecast as report
    from prismts.report.figures import with_menu

    data, name = loaded.collection, request["model"]
    forecaster = Forecaster(
        name, context_length=request["context_length"], horizon=request["horizon"],
        quantiles=_QUANTILES if request.get("intervals") else None, setting=request["setting"], **_columns(request),
        frequency=(request.get("options") or {}).get("frequency") or None, **_common(request, run),
    )  # fmt: skip
    pair = (data, loaded.kind)
    if loaded.borders is not None:
        forecaster.fit(pair, validation=loaded.borders)
    else:
        forecaster.fit(pair, validation=request["validation"], test=request["test"])
    begin, end = forecaster.test_begins_, None if loaded.borders is None else loaded.borders.test_end
    ends = data.lengths if end is None else np.minimum(end, data.lengths)
    series = report._in_order(data[0], forecaster)
    borders = Borders(int(forecaster.train_ends_[0]), int(begin[0]), int(ends[0]))
    simulated = series.name in synthetic.__all__
    headline: list[tuple[str, str]] = []
    sections: list[Section] = []
    drawn = {
        case.name: report._forecast_drawn(name, forecaster, report._in_order(case, forecaster))
        for case in list(data)[:_MOST_SERIES]
    }
    caption = f"{report._bands(forecaster)}The {forecaster.horizon} steps after the last row, in their own units."
    ahead = Section("Forecast", [Drawing(with_menu(drawn, "Series"), caption, "Beyond the end of the data")])
    if (ends - begin >= forecaster.horizon).any():
        tell({"stage": "scoring", "what": "on the test part, beside the floors"})
        floors = fit_floors(forecaster, data)
        digest = data_hash(data)
        scores = {
            each: replace(one.backtest(data, begin=begin, end=end).scores, protocol="honest", data_hash=digest)
            for each, one in {name: forecaster, **floors}.items()
        }
        tell({"stage": "drawing"})
        sections += [
            Section("", report._summary(name, forecaster, scores, simulated)), ahead,
            Section("Test windows", report._test_windows({name: forecaster, **floors}, series, borders)),
            Section("Errors", report._errors(scores)), Section("Scores", report._scores(scores)),
        ]  # fmt: skip
        headline += [(key.upper(), f"{scores[name][key]:.4f}") for key in ("mse", "mae")]
    else:
        why = "No series has a test part as long as the horizon, so nothing was scored."
        sections += [Section("", [Note(why)]), ahead]
    sections += [
        Section("Inside the model", report._inside(forecaster, series, borders)),
        Section("Training", report._training(forecaster)),
        Section("Data", report._data(series, borders, forecaster, simulated)),
        Section("How this was made", report._made(forecaster, "prism studio")),
    ]
    headline += [("steps ahead", str(forecaster.horizon))]
    sections = [section for section in sections if section.blocks]
    return Trained(forecaster, f"{name} on {data.name}", sections, forecaster.predict(), "forecast", headline)


def _classify(request: Mapping[str, Any], loaded: Loaded, tell: Tell, run: Path) -> Trained:
    import pandas as pd

    from prismts.estimators.classifier import Classifier
    from prismts.report.classification import classification_sections

    cases = loaded.data
    if not isinstance(cases, Collection) or cases.labels is None:
        raise DataError(
            "To classify, every case needs a class: a .ts file with labels, an .npz with X and y, or a long table of "
            "which the columns of series and of classes are chosen under 'Columns of the table'."
        )
    train, test, part = scored_cases(cases)
    classifier = Classifier(request["model"], setting=request["setting"], **_common(request, run))
    classifier.fit(train)
    tell({"stage": "scoring", "what": part})
    sections = [*classification_sections(classifier, test, part=part)]
    sections += _histories([
        (f"part {i + 1}", result) for i, result in enumerate(classifier.fit_results_)
    ])  # fmt: skip
    probabilities = classifier.predict_proba(cases)
    columns: dict[str, Any] = {"case": list(cases.names), "class": classifier.classes_[probabilities.argmax(1)]}
    for k, value in enumerate(classifier.classes_.tolist()):
        columns[f"p({value})"] = probabilities[:, k]
    hits = float((classifier.predict(test) == np.asarray(test.labels)).mean())
    rows = [[case, truth, *(f"{p:.3f}" for p in row)] for case, truth, row in zip(
        test.names, np.asarray(test.labels).tolist(), classifier.predict_proba(test), strict=True
    )]  # fmt: skip
    names = ["case", "class", *(f"p({value})" for value in classifier.classes_.tolist())]
    told = Table(names, [list(map(str, row)) for row in rows[:30]], _first(30, len(rows), f"cases ({part})"))
    sections.append(Section("Probabilities", [told]))
    title = f"{request['model']} on {cases.name}"
    headline = [("accuracy", f"{hits:.3f}"), ("cases", f"{len(test):,}")]
    return Trained(classifier, title, sections, pd.DataFrame(columns), "classes", headline)


def _detect(request: Mapping[str, Any], loaded: Loaded, tell: Tell, run: Path) -> Trained:
    from prismts.estimators.detector import AnomalyDetector
    from prismts.evaluation.protocols import detector_scores
    from prismts.report.detection import detection_sections

    data, borders = loaded.collection, loaded.borders
    detector = AnomalyDetector(
        request["model"], setting=request["setting"], false_alarm_rate=request["false_alarm_rate"],
        **_columns(request), frequency=(request.get("options") or {}).get("frequency") or None,
        **_common(request, run),
    )  # fmt: skip
    learned: Any = data
    if borders is not None:  # the official test part is left alone
        learned = Collection.of([case.part(0, borders.validation_end) for case in data], name=data.name)
    own = borders is None or borders.train_end == borders.validation_end
    detector.fit(learned, validation=request["validation"] if own else borders)
    tell({"stage": "judging every step"})
    sections = detection_sections(detector, list(data)[:_MOST_SERIES], n_series=len(data))
    headline = list(cast(Facts, sections[0].blocks[0]).items)
    if isinstance(loaded.data, Series) and loaded.data.labels is not None and borders is not None:
        scores = detector_scores(detector, loaded.data)
        facts = [(name.upper().replace("_", "-"), f"{scores[name]:.3f}") for name in ("vus_pr", "auc_pr")]
        words = f"Against the labels of {scores.n_scored:,} steps of the test part; no label was read in training."
        sections.insert(1, Section("Against the labels", [Facts(facts, large=True), Text(words)]))
        headline = [facts[0], *headline]
    sections += _histories(list(detector.fit_results_.items()))
    table = detector._table(data, loaded.kind, np.concatenate([detector.score_samples(case) for case in data]))
    title = f"{request['model']} on {data.name}: unusual steps"
    return Trained(detector, title, sections, table, "anomalies", headline[:3])


def _impute(request: Mapping[str, Any], loaded: Loaded, tell: Tell, run: Path) -> Trained:
    from prismts.estimators.imputer import Imputer

    data = loaded.collection
    imputer = Imputer(
        request["model"], context_length=request["context_length"], setting=request["setting"], **_columns(request),
        frequency=(request.get("options") or {}).get("frequency") or None, **_common(request, run),
    )  # fmt: skip
    imputer.fit(data, validation=request["validation"] or None)
    tell({"stage": "filling"})
    filled = cast(Collection, imputer.transform(data))
    n_missing = int(np.isnan(data.values).sum())
    tell({"stage": "scoring", "what": "on values hidden from it"})
    scores = imputer.evaluate_removed(data, 0.1, seed=request["seed"])
    line = scores["mse_line"]
    facts = [
        ("values filled", f"{n_missing:,}"), ("MSE on hidden values", f"{scores['mse']:.4f}"),
        ("MSE of a straight line", f"{line:.4f}"),
    ]  # fmt: skip
    words = (
        "A tenth of the observed values was hidden and filled again, beside straight lines through the same gaps; in "
        "units of the scaler. The training part is among them, so expect worse on new data."
    )
    blocks: list[Block] = [Facts(facts, large=True), Text(words)]
    gaps: list[Block] = []
    if n_missing:
        caption = (
            "Gray is what was observed, blue what was filled in. Of a long series, the part around its longest gap."
        )
        gaps.append(Drawing(filled_figure(data, filled), caption, "What was filled"))
    else:
        gaps.append(Note("Nothing is missing in these data: the table comes back as it was.", "note"))
    sections = [Section("", blocks), Section("Gaps", gaps), *_histories([("", imputer.fit_result_)])]
    title = f"{request['model']} on {data.name}: gaps filled"
    return Trained(imputer, title, sections, _steps(filled, loaded.kind), "filled", facts[:2])


def _embed(request: Mapping[str, Any], loaded: Loaded, tell: Tell, run: Path) -> Trained:
    import pandas as pd

    from prismts.estimators.embedder import Embedder
    from prismts.report.classification import embedding_figure

    data = loaded.collection
    embedder = Embedder(request["model"], **_columns(request), **_common(request, run))
    embedder.fit(data)
    tell({"stage": "embedding"})
    if len(data) > 1:
        vectors = embedder.transform(data)
        told: dict[str, Any] = {"case": list(data.names)}
        if data.labels is not None:
            classes, words = np.asarray(data.labels), "colored by class, which training did not see"
        else:
            classes, words = np.array(["a series"] * len(data)), "one point per series"
    else:
        few = max(1, (int(data.lengths[0]) - embedder.context_length_) // _POINTS_OF_A_MAP)
        places, vectors = embedder.transform_windows(data, stride=min(few, max(1, embedder.context_length_ // 2)))
        told = {"case": [data.names[i] for i in places[:, 0]], "begin": places[:, 1]}
        quarter = np.minimum(4 * np.arange(len(vectors)) // max(1, len(vectors)), 3)
        classes = np.array([f"quarter {q + 1}" for q in quarter])
        words = f"one point per window of {embedder.context_length_} steps, colored by where in the series it lies"
    if len(vectors) < 2:
        raise SettingsError("A map of embeddings needs at least two cases, or a series of at least two windows.")
    figure = embedding_figure(vectors, classes)
    caption = f"The vectors along the two directions in which they differ most: {words}."
    facts = [("vectors", f"{len(vectors):,}"), ("numbers in each", f"{vectors.shape[1]:,}")]
    sections = [
        Section("", [Facts(facts, large=True)]), Section("Map", [Drawing(figure, caption, "Who lies near whom")]),
        *_histories([("", embedder.fit_result_)]),
    ]  # fmt: skip
    numbers = {f"e{i}": vectors[:, i] for i in range(vectors.shape[1])}
    title = f"{request['model']} on {data.name}: embeddings"
    return Trained(embedder, title, sections, pd.DataFrame(told | numbers), "vectors", facts)


def _histories(results: Iterable[tuple[str, Any]]) -> list[Section]:
    """Losses by epoch of the networks that were trained."""
    from prismts.report.figures import training_figure, with_menu

    figures = {
        name or "training": training_figure(result.history, result.best_epoch)
        for name, result in results if result.history
    }  # fmt: skip
    if not figures:
        return []
    drawing = Drawing(with_menu(figures, "Network"), "Loss after each epoch; the star is the epoch that was kept.")
    return [Section("Training", [drawing])]


def _steps(data: Collection, kind: TableKind) -> pd.DataFrame:
    """A table of every step of every series: which series, when, and the channels, named as in what was read."""
    import pandas as pd

    from prismts.estimators.answer import free_name

    series = kind.series or free_name("series", data.channels)
    time = kind.time or free_name("step" if data.timestamps is None else "time", data.channels)
    first: dict[str, Any] = {}
    if len(data) > 1 or kind.series is not None:
        first[series] = np.repeat(np.array(data.names, dtype=object), data.lengths)
    counted = np.concatenate([np.arange(n) for n in data.lengths])
    first[time] = counted if data.timestamps is None else data.timestamps
    return pd.DataFrame(first | dict(zip(data.channels, data.values, strict=True)))


def _first(shown: int, n: int, what: str) -> str:
    return f"The first {shown} of {n:,} {what}." if n > shown else f"All {n:,} {what}."
