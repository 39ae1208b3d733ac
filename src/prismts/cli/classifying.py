"""Classifiers on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from prismts.cli.app import fit_app
from prismts.cli.files import free_place, is_dataset, run_beside, tell_findings
from prismts.cli.options import Duplicates, Quiet, Replace, Seed, SeriesColumn, TimeColumn, Values, Whole
from prismts.cli.seen import told_if_learned
from prismts.errors import DataError, SettingsError

if TYPE_CHECKING:
    from prismts.data.series import Collection
    from prismts.estimators.classifier import Classifier
    from prismts.evaluation.scores import Scores

__all__ = ["classes_of", "evaluate_classes", "fit_classify"]

_TITLES = {
    "accuracy": "accuracy", "balanced_accuracy": "balanced", "f1_macro": "F1 (macro)", "log_loss": "log loss",
    "calibration_error": "calibration error",
}  # fmt: skip


@fit_app.command(name="classify")
def fit_classify(
    data: str,
    *,
    out: Path,
    test: str | None = None,
    model: str = "convtimenet",
    setting: str = "default",
    label: str | None = None,
    time: TimeColumn = None,
    series: SeriesColumn = None,
    values: Values = None,
    duplicates: Duplicates = "refuse",
    balanced: Annotated[bool, Parameter(negative="")] = False,
    members: Whole | None = None,
    epochs: Whole | None = None,
    refit: Annotated[bool, Parameter(negative="")] = False,
    seed: Seed = 0,
    replace: Replace = False,
    quiet: Quiet = False,
) -> None:
    """Train a classifier on labeled cases, calibrate its probabilities, and save it.

    A run that was killed goes on after its last finished epoch when the same command is given again.

    Args:
        data: A .ts file with labels, a long table (see --series and --label), or the name of a known data set.
        out: The model folder to write.
        test: Other labeled cases to score the model on; the test part of a known data set if not given.
        model: A model with an encoder, such as convtimenet, cross_learner or formertime; auto lets the cases choose the
            sizes of a ConvTimeNet, and says why.
        setting: A named recipe: default, network, published (the authors' form), or published/NAME for a data set.
        label: The column of a long table that holds the class of each case.
        balanced: Let every class count alike, however few cases it has.
        members: Networks that differ in their seed and answer together.
        epochs: At most so many epochs.
        refit: Train once more on all cases, for as many epochs as validation chose.
        seed: Of everything random.
    """
    from prismts.data.series import Collection
    from prismts.estimators.classifier import Classifier
    from prismts.estimators.match import reordered

    console = Console(stderr=True, quiet=quiet)
    out = free_place(out, replace)
    cases = _known(data)
    train: Any = None
    if isinstance(cases, Collection):
        train = cases if cases.n_train is None else cases.train
        test = data if test is None and cases.n_train is not None else test
    with run_beside(out) as run:
        classifier = Classifier(
            model, setting=setting, fit_settings=None if epochs is None else {"max_epochs": epochs}, n_members=members,
            class_weight="balanced" if balanced else None, refit=refit, time=time, series=series, values=values,
            label=label, random_state=seed, progress=not quiet, run_folder=run,
        )  # fmt: skip
        if train is None:
            train = classifier.read_(data, labeled=True, duplicates=duplicates, empty_channels=False)
        tell_findings(console, train.findings)
        judged = None if test is None else _to_score(classifier, test, duplicates)
        if judged is not None:
            tell_findings(console, reordered(judged[0], train.channels, "the test").findings)
        classifier.fit(train)
        if classifier.proposal_ is not None:
            console.print(escape(str(classifier.proposal_)))
        classifier.save(out)
    n_cases = classifier.n_cases_
    console.print(
        f"{n_cases['train']} cases, {len(classifier.classes_)} classes, {classifier.n_channels_} channels, up to "
        f"{classifier.n_timepoints_} steps"
    )
    if classifier.validation_scores_ is not None:
        title = f"validation: {n_cases['validation']} cases while they were left out"
        console.print(_table({"": classifier.validation_scores_}, title))
    if judged is not None:
        console.print(_scored(classifier, *judged)[1])
    console.print(f"saved: {out}   next: prism predict {out} NEW.ts --out classes.csv")


def evaluate_classes(
    classifier: Classifier, data: str, duplicates: Duplicates, console: Console
) -> tuple[dict[str, Any], Table]:
    """Scores on labeled cases, of a known data set on its test part: as plain values, and to print."""
    cases, part = _to_score(classifier, data, duplicates)
    tell_findings(console, cases.findings)
    return _scored(classifier, cases, part)


def _to_score(classifier: Classifier, data: str, duplicates: Duplicates) -> tuple[Collection, str]:
    """Labeled cases, and words for which these are."""
    cases = _known(data)
    if cases is not None:
        return (cases, "all cases") if cases.n_train is None else (cases.test, "test part")
    cases = classifier.read_(data, labeled=True, duplicates=duplicates)
    if cases.labels is None:
        raise DataError(f"{data} brings no labels, so nothing can be scored on it. Give cases with labels.")
    return cases, "all cases"


def _scored(classifier: Classifier, cases: Collection, part: str) -> tuple[dict[str, Any], Table]:
    scores: Scores = classifier.evaluate(cases)
    title = f"{scores.data}, {part}{told_if_learned(classifier, cases)}: {scores.n_scored:,} cases"
    return scores.as_dict(), _table({scores.data: scores}, title)


def classes_of(classifier: Classifier, data: str, duplicates: Duplicates, console: Console) -> Any:
    """A frame with the class of each case and the probability of every class."""
    import pandas as pd

    cases = _known(data)
    if cases is None:
        cases = classifier.read_(data, duplicates=duplicates)
    tell_findings(console, cases.findings)
    probabilities = classifier.predict_proba(cases)
    names = list(cases.names)
    columns: dict[str, Any] = {"case": names, "class": classifier.classes_[probabilities.argmax(1)]}
    for k, name in enumerate(classifier.classes_.tolist()):
        columns[f"p({name})"] = probabilities[:, k]
    return pd.DataFrame(columns)


def _known(data: str) -> Collection | None:
    """A known data set of cases by its name; None where this is no such name."""
    from prismts.data.catalog import load_dataset
    from prismts.data.series import Collection

    if not is_dataset(data):
        return None
    cases = load_dataset(data)
    if not isinstance(cases, Collection):
        raise SettingsError(f"{data} is a series, not labeled cases. See: prism datasets --task classify.")
    return cases


def _table(rows: dict[str, Any], title: str) -> Table:
    table = Table("", *_TITLES.values(), box=None, title=escape(title), title_justify="left")
    for name, scores in rows.items():
        table.add_row(escape(name), *(f"{scores[measure]:.4f}" for measure in _TITLES))
    return table
