"""Go on from a saved model with new data, on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape

from prismts.cli.app import app
from prismts.cli.files import free_place, is_dataset, run_beside, table_or_dataset, tell_findings
from prismts.cli.options import Duplicates, Quiet, Replace, Seed, SeriesColumn, TimeColumn, Values, Whole
from prismts.cli.seen import told_if_learned
from prismts.errors import DataError, SettingsError, a_or_an

if TYPE_CHECKING:
    from prismts.data.series import Collection
    from prismts.estimators.forecaster import Forecaster

__all__ = ["adapt"]


@app.command
def adapt(
    model: Path,
    data: str | None = None,
    *,
    out: Path | None = None,
    how: Literal["lora", "bottleneck", "probe", "full"] = "lora",
    rank: Whole | None = None,
    new_head: Annotated[bool, Parameter(negative="")] = False,
    save_adapter: Path | None = None,
    with_adapter: Path | None = None,
    label: str | None = None,
    time: TimeColumn = None,
    series: SeriesColumn = None,
    values: Values = None,
    duplicates: Duplicates = "refuse",
    validation: float | None = None,
    test: float | None = None,
    epochs: Whole | None = None,
    learning_rate: float | None = None,
    seed: Seed | None = None,
    replace: Replace = False,
    quiet: Quiet = False,
) -> None:
    """Go on from a saved model with new data, training few of its weights or all of them.

    The whole model, the adapter alone, which is a small folder, and that one back on the model it belongs to:

        prism adapt m/ new.csv --how lora --out m2/
        prism adapt m/ new.csv --save-adapter a/
        prism adapt m/ --with-adapter a/ --out m2/

    The new model is whole, and answers like any other: prism predict m2/. A forecaster is scored beside what it was
    before and the floors, on the last part of the new data, which neither training nor validation has seen; where it is
    known that the model before has learned from that part, or may have, the scores say so.

    Args:
        model: The model folder to begin with; it is left as it is.
        data: A table, labeled cases for a classifier, or the name of a known data set.
        out: The model folder to write.
        how: lora (low-rank differences of the weights), bottleneck (small networks behind the blocks), probe (the head
            alone), or full (all weights).
        rank: Of LoRA; as large as 1 % of the encoder's weights allow if not given.
        new_head: Begin with a new head instead of the one there is.
        save_adapter: A folder for the adapter alone, without the model it belongs to.
        with_adapter: A folder that --save-adapter wrote, to be put on the model instead of training.
        label: The column of a long table that holds the class of each case.
        validation: Share of every series, before the test part, that decides when to stop.
        test: Share at the end of every series that a forecaster keeps for the score; 0.2 if not given.
        epochs: At most so many epochs.
        learning_rate: In place of the model's own.
        seed: Of everything random; the model's own if not given.
    """
    from prismts.estimators import adapting
    from prismts.estimators.load import load

    console = Console(stderr=True, quiet=quiet)
    if out is None and save_adapter is None:
        raise SettingsError("Say where to write to: --out for the whole model, --save-adapter for the adapter alone.")
    out = None if out is None else free_place(out, replace)
    save_adapter = None if save_adapter is None else free_place(save_adapter, replace)
    if save_adapter is not None and how == "full":
        raise SettingsError("With --how full all weights are trained and there is no adapter. Give --out alone.")
    if with_adapter is not None:
        if data is not None or out is None:
            raise SettingsError("--with-adapter puts an adapter on a model without training: give --out, and no data.")
        adapting.load_adapter(with_adapter, model).save(out)
        console.print(f"saved: {out}, {model} with the adapter of {with_adapter}")
        return
    if data is None:
        raise SettingsError(f"{model} is adapted to data: prism adapt {model} DATA --out NEW.")
    base = load(model)
    adapting.check_alone(base)
    kind = type(base).__name__
    if kind != "Forecaster" and test is not None:
        raise SettingsError(
            f"--test keeps a part of a forecaster's data for the score, but {model} holds {a_or_an(kind)}."
        )
    given = {"time": time, "series": series, "values": values, "label": label, "random_state": seed}
    changes = {name: value for name, value in given.items() if value is not None}
    if label is not None and kind != "Classifier":
        raise SettingsError(f"--label tells the classes of cases, but {model} holds {a_or_an(kind)}.")
    source, known, arguments = _read(base, changes, data, duplicates, validation, test)
    tell_findings(console, known.findings)
    fitting: dict[str, Any] = {} if epochs is None else {"max_epochs": epochs}
    if learning_rate is not None:
        fitting["learning_rate"] = learning_rate
    place = out if out is not None else save_adapter
    assert place is not None
    with run_beside(place) as run:
        adapted = adapting.adapt(
            base, source, how=how, rank=rank, keep_head=not new_head, fit_settings=fitting or None, changes=changes,
            progress=not quiet, run_folder=run, **arguments,
        )  # fmt: skip
        console.print(escape(str(adapted.adaptation_)))
        if save_adapter is not None:
            adapting.save_adapter(adapted, save_adapter)
            size = sum(file.stat().st_size for file in save_adapter.iterdir())
            console.print(f"saved: {save_adapter}, the adapter alone ({size / 1e3:,.0f} KB); it belongs to {model}")
        if out is not None:
            adapted.save(out)
    if kind == "Forecaster":
        _score(console, base, adapted, known, arguments["validation"])
    elif getattr(adapted, "validation_scores_", None) is not None:
        scores = adapted.validation_scores_
        told = ", ".join(f"{name} {scores[name]:.4f}" for name in ("accuracy", "f1_macro", "log_loss"))
        learned = told_if_learned(base, known) and ", which the model before has learned from"
        console.print(f"validation, cases while they were left out{learned}: {told}")
    if out is not None:
        console.print(f"saved: {out}   next: prism predict {out} --help")


def _read(
    base: Any, changes: dict[str, Any], data: str, duplicates: Duplicates, validation: float | None, test: float | None
) -> tuple[Any, Any, dict[str, Any]]:
    """What to learn from, the same as a collection where it is series, and arguments of ``fit``."""
    kind = type(base).__name__
    if kind in ("Classifier", "Embedder"):
        from prismts.data.catalog import load_dataset

        if validation is not None:
            raise SettingsError(f"--validation is a part of series; {a_or_an(kind)} reads cases. Leave it out.")
        if is_dataset(data):
            cases: Any = load_dataset(data)
            cases = cases.train if getattr(cases, "n_train", None) is not None else cases
            return cases, cases, {}
        reader = type(base)(**{**base.get_params(deep=False), **changes})
        more: dict[str, Any] = {"labeled": True, "empty_channels": False} if kind == "Classifier" else {}
        cases = reader.read_(data, duplicates=duplicates, **more)
        return cases, cases, {}
    time, series, values = (changes.get(name, getattr(base, name)) for name in ("time", "series", "values"))
    table, found, borders = table_or_dataset(data, time, series, values, base.frequency, duplicates)
    if borders is not None:
        if validation is not None or test is not None:
            raise SettingsError(f"{data} has official borders ({borders}); leave out --validation and --test.")
        arguments: dict[str, Any] = {"validation": borders}
    else:
        arguments = {"validation": 0.1 if validation is None else validation}
        if kind == "Forecaster":
            arguments["test"] = 0.2 if test is None else test
    return (table, found) if kind in ("Forecaster", "Imputer") else table, table, arguments


def _score(console: Console, base: Forecaster, adapted: Forecaster, table: Collection, validation: Any) -> None:
    """Print how the adapted forecaster does beside the one it was and the floors, on steps that nothing has read."""
    from prismts.cli.forecasting import score_table, scores_beside_floors

    end = getattr(validation, "test_end", None)
    scores, _, part = scores_beside_floors(adapted, table, end, before=base)
    shown = {"adapted": scores[adapted.model], **{n: one for n, one in scores.items() if n != adapted.model}}
    console.print(score_table(shown, part))
    if not part.startswith("test") or base.horizon != adapted.horizon:
        return
    try:
        before = base.backtest(table, begin=adapted.test_begins_, end=end).scores
    except DataError:  # it has learned other channels or other steps
        return
    if before.n_scored == shown["adapted"].n_scored:
        now, then = shown["adapted"]["rmse_own"], before["rmse_own"]  # each has a scale of its own
        console.print(f"RMSE in the data's own units: {now:.6g}, before it was adapted {then:.6g}", highlight=False)
