"""A small model from a large one, on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from prismts.cli.app import app
from prismts.cli.files import (
    clear_run,
    free_file,
    free_place,
    is_dataset,
    run_beside,
    table_or_dataset,
    tell_findings,
    typed,
)
from prismts.cli.options import Duplicates, Quiet, Replace, Seed, Whole
from prismts.cli.seen import told_if_learned, told_of_steps
from prismts.errors import SettingsError, a_or_an

if TYPE_CHECKING:
    from prismts.data.series import Collection
    from prismts.estimators.forecaster import Forecaster

__all__ = ["distill"]


@app.command
def distill(
    teacher: Path,
    data: str,
    *,
    out: Path,
    more_teachers: Annotated[list[Path] | None, Parameter(consume_multiple=True, negative="")] = None,
    share: float = 0.1,
    context_length: Whole | None = None,
    weight: float = 0.5,
    temperature: float = 2.0,
    features: float = 0.0,
    cache: Path | None = None,
    alone: Annotated[bool, Parameter(negative="")] = False,
    test: str | None = None,
    duplicates: Duplicates = "refuse",
    epochs: Whole | None = None,
    learning_rate: float | None = None,
    seed: Seed = 0,
    report: Path | None = None,
    replace: Replace = False,
    quiet: Quiet = False,
) -> None:
    """Teach a small model what a large one says, and tell what it keeps and what it costs.

    A forecaster learns from the training part of the table and is scored on its test part beside its teacher. The parts
    are those of the teacher where the table is the same, the borders of a known data set, or 70, 10 and 20 % of each
    series. A classifier is scored on --test, or on the test part of a known data set.

        prism distill teacher/ data.csv --out student/ --share 0.1 --alone --report distilled.html

    Args:
        teacher: The model folder of a forecaster or a classifier.
        data: The table or labeled cases to learn from, or the name of a known data set.
        out: The model folder to write.
        more_teachers: Further model folders; all teachers answer with their mean.
        share: Of the teacher's numbers that the student may hold.
        context_length: Steps of past the student reads; those of the teacher if not given.
        weight: Of the teacher beside the truth, from 0 to 1.
        temperature: By which class scores are divided.
        features: Above 0, the student's tokens are drawn to the teacher's by this weight.
        cache: A folder that keeps the teacher's answers; beside --out if not given, and removed with the run.
        alone: Also train the same student without a teacher, to compare.
        test: Labeled cases to score a classifier on.
        epochs: At most so many epochs.
        learning_rate: In place of the student's own.
        seed: Of everything random.
        report: Also write a page.
    """
    from sklearn.base import clone

    from prismts.estimators.classifier import Classifier
    from prismts.estimators.distilling import distill as learn
    from prismts.estimators.distilling import measured, smaller
    from prismts.estimators.forecaster import Forecaster
    from prismts.estimators.load import load
    from prismts.report.distill import distill_report, distill_rows

    console = Console(stderr=True, quiet=quiet)
    out = free_place(out, replace)
    free_file(report, data, test, page=True)
    teachers: list[Any] = [load(folder) for folder in (teacher, *(more_teachers or ()))]
    first = teachers[0]
    if not isinstance(first, Forecaster | Classifier):
        raise SettingsError(
            f"{teacher} holds {a_or_an(type(first).__name__)}; forecasters and classifiers are distilled."
        )
    changes: dict[str, Any] = {"random_state": seed, "progress": not quiet}
    if context_length is not None:
        if isinstance(first, Classifier):
            raise SettingsError("A classifier reads whole cases. Leave --context-length out.")
        changes["context_length"] = context_length
    student: Any = smaller(cast(Forecaster, first), share=share, **changes)
    fitting: dict[str, Any] = dict(student.fit_settings or {})
    fitting |= {} if epochs is None else {"max_epochs": epochs}
    fitting |= {} if learning_rate is None else {"learning_rate": learning_rate}
    source, arguments, judge, part = _parts(teachers, data, test, duplicates, console)
    if judge is None and report is not None:
        raise SettingsError("There is nothing to score the student on for the page of --report. Give --test.")
    contestants: dict[str, Any] = {"teacher": first, "student": student}
    with run_beside(out) as run:
        student.set_params(fit_settings=fitting or None, run_folder=run / "student")
        other: Any = cast(Any, clone(student)).set_params(run_folder=run / "alone")
        keep = run / "teacher" if cache is None else cache
        learn(
            teachers if len(teachers) > 1 else first, student, source, weight=weight, temperature=temperature,
            features=features, cache=keep, **arguments,
        )  # fmt: skip
        student.save(out)
        if alone:
            contestants["student alone"] = other.fit(source, **arguments)
        for one in (run / "student", run / "alone"):
            clear_run(one)
        if cache is None:
            _forget(keep)
    if judge is not None:
        where: dict[str, Any] = {}
        if isinstance(student, Forecaster):
            where, part = _test_part(teachers, student, judge, getattr(arguments["validation"], "test_end", None))
        found = {name: measured(one, judge, **where) for name, one in contestants.items()}
        columns, rows = distill_rows(found)
        table = Table(*columns, box=None, title=escape(part), title_justify="left")
        for row in rows:
            table.add_row(*(escape(text) for text in row))
        console.print(table)
        if report is not None:
            written = distill_report(report, found, title=f"{out.name} from {teacher.name}", part=part, command=typed())
            console.print(f"report: {written}")
    console.print(f"saved: {out}   next: prism predict {out} --help")


def _parts(
    teachers: Sequence[Any], data: str, test: str | None, duplicates: Duplicates, console: Console
) -> tuple[Any, dict[str, Any], Any, str]:
    """What to learn from, arguments of ``fit``, what to score on (None: nothing), and words for it where it is cases.

    Of a table, which of its steps are scored is known when the student has cut it: see ``_test_part``.
    """
    from prismts.data.catalog import load_dataset
    from prismts.data.splits import Borders
    from prismts.estimators.forecaster import Forecaster
    from prismts.evaluation.protocols import data_hash

    teacher = teachers[0]
    if isinstance(teacher, Forecaster):
        if test is not None:
            raise SettingsError("--test names cases for a classifier; a forecaster is scored on the end of its table.")
        columns = (teacher.time, teacher.series, teacher.values, teacher.frequency)
        table, kind, borders = table_or_dataset(data, *columns, duplicates)
        tell_findings(console, table.findings)
        if borders is None and len(table) == 1 and data_hash(table) == teacher.data_hash_:
            ends = int(teacher.train_ends_[0]), int(teacher.test_begins_[0]), int(table.lengths[0])
            borders = Borders(*ends) if ends[2] - ends[1] >= teacher.horizon else None  # it may have kept no test part
        arguments = {"validation": 0.1, "test": 0.2} if borders is None else {"validation": borders}
        return (table, kind), arguments, table, ""
    whole: Any = load_dataset(data) if is_dataset(data) else None
    if whole is None:
        cases = teacher.read_(data, labeled=True, duplicates=duplicates, empty_channels=False)
    else:
        cases = whole if whole.n_train is None else whole.train
    tell_findings(console, cases.findings)
    judge, part = None, ""
    if test is not None:
        judge, part = teacher.read_(test, labeled=True, duplicates=duplicates), f"the cases of {test}"
        tell_findings(console, judge.findings)
    elif whole is not None and whole.n_train is not None:
        judge, part = whole.test, f"{whole.name}, test part"
    if judge is not None and any(told_if_learned(one, judge) for one in teachers if isinstance(one, type(teacher))):
        part += f", which {_who(teachers)} has learned from, so expect worse on new data"
    return cases, {}, judge, part


def _test_part(
    teachers: Sequence[Any], student: Forecaster, table: Collection, end: int | None
) -> tuple[dict[str, Any], str]:
    """Where a student is scored that has learned from a table, and words for it; without ``end``, to the last step."""
    begins, steps = student.test_begins_, "the last fifth of each series"
    if end is not None or len(table) == 1:
        steps = f"steps {(int(begins.max()), int(table.lengths.max()) if end is None else end)}"
    learned = told_of_steps(teachers, table, begins, _who(teachers))
    return {"begin": begins, "end": end}, f"{table.name}, test: {steps}{learned}"


def _who(teachers: Sequence[Any]) -> str:
    return "the teacher" if len(teachers) == 1 else "a teacher"


def _forget(cache: Path) -> None:
    """Remove the answers that were kept for this run."""
    for note in cache.glob("*/note.json"):
        for file in [*note.parent.glob("*.npy"), note]:
            file.unlink()
        if not any(note.parent.iterdir()):
            note.parent.rmdir()
    if cache.is_dir() and not any(cache.iterdir()):
        cache.rmdir()
