"""What the page of ``prism studio`` has done for it in a process of its own: read a table, train, compare.

Every answer is a list of the sections that reports are made of (``prismts.report.page``), as plain values: the page
shows what a report would show, and the report is there to be taken along.
"""

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
from numpy.typing import NDArray

from prismts.data import synthetic
from prismts.data.calendar import season_length
from prismts.data.catalog import load_dataset
from prismts.data.describe import describe
from prismts.data.profile import Profile, profile
from prismts.data.readers import TABLE_FILES, read_with_kind
from prismts.data.series import Collection, Series
from prismts.data.splits import Borders
from prismts.data.tables import TableKind
from prismts.errors import DataError, PrismError, SettingsError, unknown_name
from prismts.report.figures import thinned
from prismts.report.page import Block, Drawing, Facts, Note, Section, Table, Text, write_report
from prismts.report.theme import OBSERVED, PALETTE, label
from prismts.serving.jobs import Tell, listening
from prismts.serving.uploads import looked_through, neutral

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

__all__ = ["SIMULATED", "as_values", "work"]

SIMULATED: dict[str, str] = {
    "simulated_plant": "a transformer station of seven channels, hourly: to forecast",
    "labeled_motions": "90 short recordings of three motions: to classify",
    "planted_anomalies": "three channels with six stretches that are not as usual: to detect",
}
_QUANTILES = (0.1, 0.5, 0.9)
_MOST_POINTS = 2_000  # of a line in a preview; a longer one is drawn by the ends of each stretch
_MOST_PANELS = 6
_POINTS_OF_A_MAP = 200  # about so many windows of a single series
_MOST_CHANNELS_TOLD = 40
_MOST_SERIES = 12
_HELD_OUT = 0.2  # of labeled cases without an official test part, kept for the score
_FEWEST_OF_A_CLASS = 5  # cases, or nothing is held out


@dataclass(frozen=True)
class Loaded:
    """Data as a job reads them."""

    data: Series | Collection
    kind: TableKind
    borders: Borders | None = None

    @property
    def collection(self) -> Collection:
        """The same as a collection."""
        return Collection.of(self.data) if isinstance(self.data, Series) else self.data


def work(request: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """Do what is asked: ``{"do": "about" | "read" | "train" | "compare", ...}``."""
    doers = {"about": _about, "read": _read, "train": _train, "compare": _compare}
    if request["do"] not in doers:
        raise unknown_name("job", request["do"], doers)
    return doers[request["do"]](request, tell)


def as_values(sections: Sequence[Section]) -> list[dict[str, Any]]:
    """Sections as plain values: texts as they are, figures as plotly takes them."""
    return [{"title": section.title, "blocks": [_block(block) for block in section.blocks]} for section in sections]


def _block(block: Block) -> dict[str, Any]:
    if isinstance(block, Drawing):
        figure = json.loads(str(block.figure.to_json(engine="json")))
        layout: dict[str, Any] = figure["layout"]
        layout.pop("template", None)  # the page brings its own, light or dark
        note = (layout.pop("meta", None) or {}).get("note", "")
        return {
            "kind": "drawing", "title": block.title, "caption": block.caption, "note": note, "data": figure["data"],
            "layout": layout,
        }  # fmt: skip
    if isinstance(block, Table):
        return {
            "kind": "table", "columns": list(block.columns), "rows": [list(map(str, row)) for row in block.rows],
            "caption": block.caption, "strong": sorted(map(list, block.strong)), "lead": block.lead,
        }  # fmt: skip
    if isinstance(block, Facts):
        return {"kind": "facts", "items": [list(map(str, item)) for item in block.items], "large": block.large}
    if isinstance(block, Note):
        return {"kind": "note", "text": block.text, "level": block.level}
    return {"kind": block.kind, "text": block.text}


# ---- what there is to choose from


def _about(request: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """Tasks with their models and settings, and the data sets that are on this machine."""
    from prismts.data.catalog import list_datasets, where
    from prismts.estimators.case_recipes import CLASSIFY_SETTINGS
    from prismts.estimators.detect_recipes import DETECT_SETTINGS
    from prismts.estimators.imputer import IMPUTE_SETTINGS
    from prismts.estimators.recipes import FORECAST_SETTINGS
    from prismts.models import MODELS
    from prismts.models.detectors import DETECTORS
    from prismts.report.theme import TEMPLATES

    every = [{"name": name, "title": entry.title, "trained": entry.is_trained} for name, entry in MODELS.items()]
    encoders = [one for one in every if MODELS[str(one["name"])].is_encoder]
    closed = [{"name": name, "title": entry.title, "trained": False} for name, entry in DETECTORS.items()]
    recipes: dict[str, Mapping[str, Any]] = {
        "forecast": FORECAST_SETTINGS, "classify": CLASSIFY_SETTINGS, "detect": DETECT_SETTINGS,
        "impute": IMPUTE_SETTINGS, "embed": {},
    }  # fmt: skip
    models = {"forecast": every, "detect": [*encoders, *closed]}
    tasks = {
        task: {
            "models": models.get(task, encoders),
            "settings": [{"name": name, "title": recipe.title} for name, recipe in named.items()],
        }
        for task, named in recipes.items()
    }
    here = ("PRISMTS_DATA", "cache")  # nothing is downloaded from this page
    known = [
        {"name": entry.name, "task": entry.task, "description": entry.description}
        for entry in list_datasets() if where(entry.name) in here
    ]  # fmt: skip
    return {
        "tasks": tasks, "datasets": known, "templates": TEMPLATES,
        "simulated": [{"name": name, "description": words} for name, words in SIMULATED.items()],
    }  # fmt: skip


# ---- reading


def _load(source: Mapping[str, Any], options: Mapping[str, Any]) -> Loaded:
    """The data of a source: {"file": path}, {"dataset": name} or {"simulated": name}."""
    if "simulated" in source:
        if source["simulated"] not in SIMULATED:
            raise unknown_name("simulated data set", source["simulated"], SIMULATED)
        data: Series | Collection = getattr(synthetic, source["simulated"])()
        kind = TableKind("pandas", "time" if data.timestamps is not None else None)
        return Loaded(data, kind, data.borders if isinstance(data, Series) else None)
    if "dataset" in source:
        data = load_dataset(source["dataset"])
        kind = TableKind("pandas", "time" if data.timestamps is not None else None)
        return Loaded(data, kind, data.borders if isinstance(data, Series) else None)
    path = Path(source["file"])
    told: dict[str, Any] = {name: options.get(name) or None for name in ("time", "series", "values", "frequency")}
    duplicates = options.get("duplicates") or "refuse"
    if column := options.get("label"):
        from prismts.estimators.labels import read_labeled

        told.pop("frequency")  # cases of a classifier need none
        cases = read_labeled(path, column, **told, duplicates=duplicates)
        if cases is None or cases.labels is None:
            raise DataError(f"{path.name} has no column {column!r} with classes.")
        data, kind = cases, TableKind("pandas", told["time"], told["series"])
    else:
        data, kind = read_with_kind(path, **told, duplicates=duplicates)
    return Loaded(data, kind, data.borders if isinstance(data, Series) else None)


def _read(request: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    source, options = request["source"], request.get("options") or {}
    if "file" in source:
        tell({"stage": "looking through the file"})
        table = looked_through(Path(source["file"]))
        if table.ending in TABLE_FILES:  # told before it is read as a series: who must choose, sees what there is
            columns = TABLE_FILES[table.ending](table.path)
            tell({"columns": [{"name": name, "kind": kind} for name, kind in list(columns.kinds.items())[:500]]})
    tell({"stage": "reading"})
    loaded = _load(source, options)
    data = loaded.data
    tell({"stage": "measuring gaps and cycles"})
    try:
        measured, why = profile(data), ""
    except PrismError as error:
        measured, why = None, str(error)
    sections = _look(loaded, measured, why)
    return {
        "name": data.name, "sections": as_values(sections), "proposal": _proposal(loaded, measured),
        "findings": [str(finding) for finding in data.findings],
    }  # fmt: skip


def _look(loaded: Loaded, measured: Profile | None, why: str) -> list[Section]:
    """What was read, as sections: sizes and a picture, what was noticed, each channel, the profile."""
    data, whole = loaded.data, loaded.collection
    told = describe(data)
    missing = sum(int(np.isnan(channel).sum()) for channel in whole.values)
    shortest, longest = told.n_timepoints
    facts = [
        ("time steps", f"{longest:,}" if shortest == longest else f"{shortest:,} to {longest:,}"),
        ("channels", f"{len(told.channels):,}"),
        *([("series" if whole.labels is None else "cases", f"{told.n_series:,}")] if told.n_series > 1 else []),
        ("not observed", f"{missing / max(1, whole.values.size):.2%}" if missing else "none"),
    ]
    more = [("frequency", told.frequency or "none: steps are counted" if told.span is None else told.frequency or "?")]
    if told.span:
        more.append(("time", f"{told.span[0]} to {told.span[1]}"))
    if told.classes:
        more.append(("classes", ", ".join(f"{name} ({n})" for name, n in told.classes[:20])))
    if loaded.borders is not None:
        more.append(("official borders", str(loaded.borders)))
    blocks: list[Block] = [Facts(facts, large=True), Facts(more)]
    if data.name in synthetic.__all__:
        blocks.insert(0, Note("These data are simulated, not measured.", "alarm"))
    blocks.append(Drawing(_preview(loaded), "", "A first look"))
    findings: list[Block] = [Note(str(finding), "flag") for finding in told.findings[:50]]
    if len(told.findings) > len(findings):
        findings.append(Text(f"and {len(told.findings) - len(findings)} more findings."))
    if not findings:
        findings.append(Text("Nothing to report: no gaps, no doubled rows, no odd values, no constant channels."))
    rows = [
        [c.name, f"{c.observed:.2%}", *(f"{x:.5g}" for x in (c.minimum, c.median, c.maximum))]
        for c in told.channels[:_MOST_CHANNELS_TOLD]
    ]
    caption = ""
    if len(told.channels) > len(rows):
        caption = f"The first {len(rows)} of {len(told.channels):,} channels."
    channels = Table(["channel", "observed", "minimum", "median", "maximum"], rows, caption)
    sections = [Section("", blocks), Section("Findings", findings)]
    sections.append(Section("What the data are like", _profiled(measured, why)))
    sections.append(Section("Channels", [channels]))
    return sections


def _profiled(measured: Profile | None, why: str) -> list[Block]:
    if measured is None:
        return [Text(f"The profile could not be measured: {why}")]
    gaps, cycle = measured.gaps, measured.cycle
    gap_words = f"{gaps.n_gaps:,} ({gaps.share:.2%} of the values), the longest {gaps.longest:,} steps"
    facts = Facts([
        ("gaps", gap_words if gaps.n_gaps else "none"),
        ("cycle", f"{cycle.season} steps, {cycle.strength:.0%} of the energy" if cycle else "none stands out"),
    ])  # fmt: skip
    words = {True: "yes", False: "no", None: "not measurable"}
    rows = [[c.name, words[c.holds], c.sentence] for c in measured.conditions]
    conditions = Table(
        ["condition", "holds", "measured"], rows,
        "The four conditions under which the slides of the cross learner expect it to gain; the test part is not read.",
    )  # fmt: skip
    told: list[Block] = [Text(line) for line in (*measured.notes, *measured.suggestion)]
    return [facts, *told, conditions]


def _proposal(loaded: Loaded, measured: Profile | None) -> dict[str, Any]:
    """What the form begins with: a task that suits, and sizes that fit into the series."""
    whole = loaded.collection
    longest = int(whole.lengths.max())
    usable = loaded.borders.train_end if loaded.borders is not None else int(0.7 * longest)
    season = measured.cycle.season if measured is not None and measured.cycle is not None else 0
    season = season or season_length(whole.frequency)
    horizon = season if 6 <= season <= 168 else 24
    horizon = max(1, min(horizon, usable // 10, int(0.1 * longest)))
    context = min(512, max(3 * horizon, 2 * season if season <= 256 else 0, 96), max(8, usable // 3))
    anomalies = isinstance(loaded.data, Series) and loaded.data.labels is not None
    labeled = isinstance(loaded.data, Collection) and loaded.data.labels is not None
    missing = any(bool(np.isnan(channel).any()) for channel in whole.values)
    return {
        "task": "classify" if labeled else "detect" if anomalies else "forecast",
        "labeled": labeled, "missing": missing, "n_series": len(whole), "n_steps": longest,
        "n_channels": whole.n_channels, "horizon": horizon, "context_length": context,
        "official": loaded.borders is not None or (labeled and cast(Collection, loaded.data).n_train is not None),
    }  # fmt: skip


# ---- training


def _train(request: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    trainers = {
        "forecast": _forecast, "classify": _classify, "detect": _detect, "impute": _impute, "embed": _embed,
    }  # fmt: skip
    if request["task"] not in trainers:
        raise unknown_name("task", request["task"], trainers)
    tell({"stage": "reading"})
    loaded = _load(request["source"], request.get("options") or {})
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
    _write(folder / "sections.json", as_values(trained.sections))
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


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, allow_nan=False), encoding="utf-8")


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
    train, test, part = _parts(cases)
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


def _parts(cases: Collection) -> tuple[Collection, Collection, str]:
    """Cases to learn from, cases to score, and words for the latter."""
    if cases.n_train is not None:
        return cases.train, cases.test, "official test part"
    labels = np.asarray(cases.labels)
    if np.unique(labels, return_counts=True)[1].min() < _FEWEST_OF_A_CLASS:
        few = f"the training cases, as a class has fewer than {_FEWEST_OF_A_CLASS}: says nothing about new ones"
        return cases, cases, few
    from sklearn.model_selection import StratifiedShuffleSplit

    cut = StratifiedShuffleSplit(1, test_size=_HELD_OUT, random_state=0)
    train, test = next(cut.split(np.zeros(len(labels)), labels))
    return _some(cases, np.sort(train)), _some(cases, np.sort(test)), "a fifth of the cases, which was held out"


def _some(cases: Collection, index: NDArray[np.int64]) -> Collection:
    labels = None if cases.labels is None else np.asarray(cases.labels)[index]
    return Collection.of([cases[int(i)] for i in index], labels=labels, name=cases.name)


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
        gaps.append(Drawing(_filled_figure(data, filled), caption, "What was filled"))
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


# ---- comparing


def _compare(request: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """Two trained models of one task on the same windows, cases or steps."""
    from prismts.estimators.load import load

    tell({"stage": "reading"})
    loaded = _load(request["source"], request.get("options") or {})
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
    _write(folder / "sections.json", as_values(sections))
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
    _, test, part = _parts(cases)
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


# ---- figures that no report has


def _preview(loaded: Loaded) -> Figure:
    """The first channels of a series, or the first channel of a few cases."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    whole = loaded.collection
    if len(whole) > 1:
        picks = _spread_over(whole)
        figure = go.Figure(layout={"height": 320})
        for k, i in enumerate(picks):
            case = whole[i]
            name = case.name if whole.labels is None else f"{whole.labels[i]}: {case.name}"
            at, y = thinned(case.values[0], _MOST_POINTS)
            figure.add_trace(
                go.Scatter(x=at, y=y, mode="lines", name=label(name, 24), line={"color": PALETTE[k % len(PALETTE)]})
            )
        note = f"Channel {whole.channels[0]} of {len(picks)} of {len(whole):,}."
        figure.update_layout(showlegend=True, meta={"note": note})
        figure.update_xaxes(title_text="step")
        return figure
    series = whole[0]
    shown = list(range(min(_MOST_PANELS, series.n_channels)))
    figure = make_subplots(
        rows=len(shown), cols=1, shared_xaxes=True, subplot_titles=[label(series.channels[c]) for c in shown],
        vertical_spacing=0.16 / max(1, len(shown)) + 0.02,
    )  # fmt: skip
    figure.update_annotations(x=0, xanchor="left", font_size=13)
    for row, c in enumerate(shown, start=1):
        at, y = thinned(series.values[c], _MOST_POINTS)
        figure.add_trace(
            go.Scatter(
                x=_when(series, at), y=y, mode="lines", name=label(series.channels[c]), showlegend=False,
                line={"color": PALETTE[0], "width": 1.2},
            ),
            row=row, col=1,
        )  # fmt: skip
    note = f"The first {len(shown)} of {series.n_channels:,} channels." if len(shown) < series.n_channels else ""
    figure.update_layout(height=90 + 110 * max(2, len(shown)), meta={"note": note})
    return figure


def _spread_over(whole: Collection) -> list[int]:
    """A few series: one of each class, where there are classes."""
    if whole.labels is None:
        return list(range(min(_MOST_PANELS, len(whole))))
    _, first = np.unique(np.asarray(whole.labels), return_index=True)
    return sorted(first[:_MOST_PANELS].tolist())


def _filled_figure(data: Collection, filled: Collection) -> Figure:
    """What was observed and what was put into the gaps, of the channels that had some."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    holes = np.isnan(data.values)
    channels = [int(c) for c in np.argsort(-holes.sum(1), kind="stable") if holes[c].any()][:_MOST_PANELS]
    figure = make_subplots(
        rows=len(channels), cols=1, subplot_titles=[label(data.channels[c]) for c in channels],
        vertical_spacing=0.3 / max(1, len(channels)),
    )  # fmt: skip
    figure.update_annotations(x=0, xanchor="left", font_size=13)
    for row, c in enumerate(channels, start=1):
        counts = [int(holes[c, lo:hi].sum()) for lo, hi in zip(data.offsets[:-1], data.offsets[1:], strict=True)]
        i = int(np.argmax(counts))
        case, missing = data[i], holes[c, data.offsets[i] : data.offsets[i + 1]]
        begin, end = _around_longest(missing)
        at = np.arange(begin, end)
        x = _when(case, at)
        seen = _plain(case.values[c, begin:end])
        # a line of what was filled joins what is observed on both sides
        near = missing | np.roll(missing, 1) | np.roll(missing, -1)
        values = filled.values[c, data.offsets[i] : data.offsets[i + 1]][begin:end]
        put_in = _plain(np.where(near[begin:end], values, np.nan))
        for name, y, color, mode in (
            ("filled", put_in, PALETTE[0], "lines+markers"), ("observed", seen, OBSERVED, "lines"),
        ):  # fmt: skip
            figure.add_trace(
                go.Scatter(
                    x=x, y=y, name=name, mode=mode, line={"color": color, "width": 1.6}, marker={"size": 4},
                    legendgroup=name, showlegend=row == 1,
                ),
                row=row, col=1,
            )  # fmt: skip
    return figure.update_layout(height=110 + 170 * len(channels))


def _around_longest(missing: NDArray[np.bool_]) -> tuple[int, int]:
    """A stretch of at most so many steps as are drawn, around the longest gap."""
    n = len(missing)
    if n <= _MOST_POINTS:
        return 0, n
    edges = np.flatnonzero(np.diff(np.concatenate([[0], missing.astype(np.int8), [0]])))
    starts, ends = edges[::2], edges[1::2]
    longest = int((ends - starts).argmax())
    begin = int(starts[longest] + ends[longest] - _MOST_POINTS // 4) // 2
    begin = min(max(0, begin), n - _MOST_POINTS // 4)
    return begin, begin + _MOST_POINTS // 4


def _when(series: Series, at: NDArray[np.int64]) -> list[Any]:
    if series.timestamps is None:
        return at.tolist()
    return np.datetime_as_string(series.timestamps[at].astype("datetime64[s]")).tolist()


def _plain(y: NDArray[np.floating]) -> list[float | None]:
    return [None if np.isnan(one) else float(one) for one in y]
