"""A table as its columns: what each is called, what it holds, and a way to fetch it when it is needed.

Whatever a table came in (a frame, delimited text, Parquet), the steps behind see only this, one Arrow column at a
time, so that a table on disk is never held whole.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import narwhals as nw
import pyarrow as pa

from prismts.data.series import Finding
from prismts.errors import DataError

__all__ = ["Columns", "Kind", "kind_of", "columns_of_arrow"]

Kind = Literal["number", "time", "text", "other"]


@dataclass(frozen=True, eq=False)
class Columns:
    """A table, column by column; rows are counted from 0."""

    source: str  # what errors call the table: "weather.csv.gz"
    n_rows: int
    kinds: Mapping[str, Kind]  # by name, in the table's order
    fetch: Callable[[Sequence[str]], Iterator[pa.ChunkedArray]]  # in the order of the names asked for
    findings: tuple[Finding, ...] = ()

    def one(self, name: str) -> pa.ChunkedArray:
        """One column."""
        self.require(name)
        return next(self.fetch([name]))

    def require(self, name: str) -> None:
        """Refuse the name of a column that is not there."""
        if name not in self.kinds:
            near = difflib.get_close_matches(name, list(self.kinds), n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(map(repr, self.kinds))}."
            raise DataError(f"{self.source} has no column {name!r}. {hint}")


def columns_of_arrow(table: pa.Table, source: str, findings: tuple[Finding, ...] = ()) -> Columns:
    """The columns of an Arrow table, which stay where they are."""
    kinds: dict[str, Kind] = {name: kind_of(dtype) for name, dtype in nw.from_native(table).schema.items()}
    return Columns(source, table.num_rows, kinds, lambda names: (table.column(name) for name in names), findings)


def kind_of(dtype: nw.dtypes.DType) -> Kind:
    """What a column of this type can be used for."""
    if dtype.is_numeric() or dtype == nw.Boolean:
        return "number"
    if dtype == nw.Datetime or dtype == nw.Date:
        return "time"
    if dtype == nw.String or dtype == nw.Categorical or dtype == nw.Enum:
        return "text"
    return "other"
