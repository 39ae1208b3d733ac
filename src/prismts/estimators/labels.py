"""The classes of the cases of a long table: one column of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import narwhals as nw

from prismts.data.files import existing_file
from prismts.errors import DataError, SettingsError

__all__ = ["is_table", "without_labels"]

_TABLES = (".csv", ".csv.gz", ".parquet")


def is_table(source: Any) -> bool:
    """Whether this is a path to a table with columns."""
    return isinstance(source, str | Path) and str(source).lower().endswith(_TABLES)


def without_labels(source: Any, series: str | None, label: str) -> tuple[Any, dict[str, Any] | None]:
    """The table without its column of labels, and the label of each series by the name of the series.

    A table that lacks the column, as new cases may, comes back as it is, with None.

    Raises:
        DataError: a series has no label, or more than one.
    """
    if series is None:
        raise SettingsError("A table with labels needs series=, the column that tells its cases apart.")
    if is_table(source):
        import pandas as pd

        path = existing_file(Path(source).expanduser())
        source = pd.read_parquet(path) if str(path).lower().endswith(".parquet") else pd.read_csv(path)
    frame = nw.from_native(source, eager_only=True)
    if series not in frame.columns:
        raise DataError(f"The table has no column {series!r}. It has: {', '.join(map(str, frame.columns))}.")
    if label not in frame.columns:
        return source, None
    labels: dict[str, Any] = {}
    pairs = frame.select(series, label).unique(maintain_order=True)
    for name, value in zip(pairs[series].to_list(), pairs[label].to_list(), strict=True):
        if value is None or value != value:
            raise DataError(f"Series {name!r} has rows without a label in column {label!r}. Fill it, or leave it out.")
        if str(name) in labels:
            raise DataError(
                f"Series {name!r} has more than one label: {labels[str(name)]!r} and {value!r}. A case has one class; "
                "cut the series where its class changes."
            )
        labels[str(name)] = value
    return frame.drop(label).to_native(), labels
