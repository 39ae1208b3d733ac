"""Cases in a long table: the classes stand in one column of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from prismts.data.assemble import Options, assemble
from prismts.data.columns import Columns
from prismts.data.layout import Duplicates
from prismts.data.readers import columns_of
from prismts.data.series import Collection
from prismts.errors import DataError, SettingsError, unknown_name

__all__ = ["read_labeled"]


def read_labeled(
    source: Any,
    label: str,
    *,
    time: str | None = None,
    series: str | None = None,
    values: list[str] | None = None,
    duplicates: Duplicates = "refuse",
    needed: bool = True,
    empty_channels: bool = False,
) -> Collection | None:
    """The cases of a long table or of a path to one, with the class of each in ``labels``; None of anything else.

    The table is read by the rules of ``prismts.read``: separators, decimal commas and encodings are found, and a case
    or a class may be called "NA". Where labels are not ``needed``, as of new cases, their column is not looked at: it
    may be empty, or not there.

    Raises:
        DataError: a series has no label, or more than one.
    """
    found = columns_of(source, time, series, label)
    if found is None:
        return None
    if series is None:
        raise SettingsError("A table with labels needs series=, the column that tells its cases apart.")
    if duplicates not in get_args(Duplicates):
        raise unknown_name("way with duplicates", duplicates, get_args(Duplicates))
    columns, name = found
    columns.require(str(series))
    if needed:
        columns.require(str(label))
    others = {column: kind for column, kind in columns.kinds.items() if column != str(label)}
    named = None if time is None else str(time)
    options = Options(named, str(series), values, duplicates=duplicates, may_be_empty=empty_channels)
    data, _, _ = assemble(replace(columns, kinds=others), options, name)
    assert isinstance(data, Collection)
    if not needed or str(label) not in columns.kinds:
        return data
    return replace(data, labels=_labels(columns, str(series), str(label)))


def _labels(columns: Columns, series: str, label: str) -> NDArray[Any]:
    """The label of each series, in order of first appearance: [n]."""
    cases, names = pd.factorize(columns.one(series).to_pandas())
    codes, classes = pd.factorize(columns.one(label).to_pandas())  # -1 where there is none
    if (codes < 0).any():
        name = names[cases[int(np.argmax(codes < 0))]]
        raise DataError(f"Series {name!r} has rows without a label in column {label!r}. Fill it, or leave it out.")
    known: list[Any] = classes.tolist()
    first = codes[np.unique(cases, return_index=True)[1]]  # [n]
    other = codes != first[cases]
    if other.any():
        row = int(np.argmax(other))
        raise DataError(
            f"Series {names[cases[row]]!r} has more than one label: {known[first[cases[row]]]!r} and "
            f"{known[codes[row]]!r}. A case has one class; cut the series where its class changes."
        )
    return np.array(known)[first]
