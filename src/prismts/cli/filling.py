"""Gaps and vectors on the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from prismts.cli.app import app
from prismts.cli.files import free_file, free_place, is_dataset, table_for, table_or_dataset, tell_findings, write_table
from prismts.cli.options import Count, Duplicates, Quiet, Replace, Seed, SeriesColumn, TimeColumn, Values, Whole
from prismts.cli.saved import Head, saved
from prismts.errors import SettingsError, a_or_an

if TYPE_CHECKING:
    from prismts.data.series import Collection
    from prismts.estimators.embedder import Embedder

__all__ = ["cases_of", "embed", "impute", "vectors_of"]


@app.command
def impute(
    data: str,
    *,
    out: Path | None = None,
    model: Path | None = None,
    save: Path | None = None,
    time: TimeColumn = None,
    series: SeriesColumn = None,
    values: Values = None,
    frequency: str | None = None,
    duplicates: Duplicates = "refuse",
    epochs: Whole | None = None,
    seed: Seed = 0,
    replace: Replace = False,
    quiet: Quiet = False,
) -> None:
    """Fill what is missing of a table, with an imputer that learns from the table itself or a saved one.

    Observed values come back as they were.

    Args:
        data: The table with gaps, or the name of a known data set.
        out: Where to write the filled table: .csv, .csv.gz or .parquet. Printed as CSV if not given.
        model: A saved imputer to fill with, instead of learning anew.
        save: A folder to save the imputer that was learned to.
        frequency: The step of the table, such as h or 15min; found by itself if not given.
        epochs: At most so many epochs of training.
        seed: Of everything random.
    """
    from prismts.estimators.imputer import Imputer
    from prismts.estimators.load import load

    free_file(out, data, table=True)
    console = Console(stderr=True, quiet=quiet)
    if model is not None and save is not None:
        raise SettingsError("--model fills with a saved imputer, so there is nothing new to --save. Leave one out.")
    imputer: Any
    if model is not None:
        imputer = load(model)
        if not isinstance(imputer, Imputer):
            raise SettingsError(f"{model} holds {a_or_an(type(imputer).__name__)}, not an imputer.")
        found = table_for(
            imputer, data, duplicates, exact=True, time=time, series=series, values=values, frequency=frequency
        )
        tell_findings(console, found[0].findings)
    else:
        place = None if save is None else free_place(save, replace)
        found = table_or_dataset(data, time, series, values, frequency, duplicates, exact=True)
        tell_findings(console, found[0].findings)
        imputer = Imputer(
            time=time, series=series, values=values, frequency=frequency, random_state=seed, progress=not quiet,
            fit_settings=None if epochs is None else {"max_epochs": epochs},
        )  # fmt: skip
        imputer.fit(found[:2])
        if place is not None:
            imputer.save(place)
    table = imputer.transform(found[:2])
    if out is None:
        sys.stdout.write(table.to_csv(index=False))
    else:
        write_table(table, out)
        console.print(f"written: {out}")


@app.command
def embed(
    data: str,
    *,
    out: Path | None = None,
    model: Path | None = None,
    head: Head = None,
    save: Path | None = None,
    window: Count | None = None,
    stride: Count | None = None,
    time: TimeColumn = None,
    series: SeriesColumn = None,
    values: Values = None,
    duplicates: Duplicates = "refuse",
    epochs: Whole | None = None,
    seed: Seed = 0,
    replace: Replace = False,
    quiet: Quiet = False,
) -> None:
    """Turn cases into vectors, with an embedder that learns from them, without labels, or a saved one.

    Each case of a .ts file, each series of a long table, becomes a row; with --window, each window of a series does.

    Args:
        data: The cases, or the name of a known data set.
        out: Where to write the vectors: .csv, .csv.gz or .parquet. Printed as CSV if not given.
        model: A saved embedder or pre-trained universal model, instead of learning anew.
        save: A folder to save the embedder that was learned to.
        window: Embed windows of so many steps instead of whole cases.
        stride: Steps from one window to the next; half a window if not given.
        epochs: At most so many epochs of training.
        seed: Of everything random.
    """
    from prismts.estimators.embedder import Embedder
    from prismts.windows import Windows

    free_file(out, data, table=True)
    if stride is not None and window is None:
        raise SettingsError("--stride is the way from one window to the next. Give --window, or leave it out.")
    console = Console(stderr=True, quiet=quiet)
    if model is not None and save is not None:
        raise SettingsError("--model embeds with a saved embedder, so there is nothing new to --save. Leave one out.")
    embedder: Any
    if model is None and head is not None:
        raise SettingsError("--head names a task of a saved universal model. Give it with --model, or leave it out.")
    if model is not None:
        embedder, kind = saved(model, head)
        if kind != "Embedder":
            raise SettingsError(f"{model} holds {a_or_an(kind)}, not an embedder.")
        cases = cases_of(embedder, data, duplicates, console)
    else:
        place = None if save is None else free_place(save, replace)
        embedder = Embedder(
            time=time, series=series, values=values, random_state=seed, progress=not quiet,
            fit_settings=None if epochs is None else {"max_epochs": epochs},
        )  # fmt: skip
        cases = cases_of(embedder, data, duplicates, console)
        if window is not None:  # one that cannot be embedded is refused before there is anything to embed it with
            first = Windows(cases, window, 0, stride=stride or 1).batch(np.zeros(1, dtype=np.int64))
            embedder.read_(first.context.numpy())
        embedder.fit(cases)
        if place is not None:
            embedder.save(place)
    table = vectors_of(embedder, cases, window, stride)
    if out is None:
        sys.stdout.write(table.to_csv(index=False))
    else:
        write_table(table, out)
        console.print(f"written: {out}")


def cases_of(embedder: Embedder, data: str, duplicates: Duplicates, console: Console) -> Collection:
    """The cases of a file or a known data set, as an embedder reads them; what was noticed is printed."""
    from prismts.data.catalog import load_dataset

    cases = embedder.read_(load_dataset(data) if is_dataset(data) else data, duplicates=duplicates)
    tell_findings(console, cases.findings)
    return cases


def vectors_of(embedder: Embedder, cases: Collection, window: int | None = None, stride: int | None = None) -> Any:
    """A frame with one row per case, or per window: what it is, then its vector."""
    import pandas as pd

    if window is None:
        vectors = embedder.transform(cases)
        told: dict[str, Any] = {"case": list(cases.names)}
    else:
        places, vectors = embedder.transform_windows(cases, length=window, stride=stride)
        told = {"case": [cases.names[i] for i in places[:, 0]], "begin": places[:, 1]}
    numbers = {f"e{i}": vectors[:, i] for i in range(vectors.shape[1])}
    return pd.DataFrame(told | numbers)
