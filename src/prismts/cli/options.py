"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

__all__ = ["Count", "Duplicates", "Quiet", "Replace", "Seed", "SeriesColumn", "TimeColumn", "Values"]

Quiet = Annotated[bool, Parameter(name=["--quiet", "-q"], negative="", help="Print nothing but errors, no bar.")]
TimeColumn = Annotated[str | None, Parameter(name="--time", help="The time column; found by itself if not given.")]
SeriesColumn = Annotated[
    str | None, Parameter(name="--series", help="The column that tells the series of a long table apart.")
]
Values = Annotated[
    list[str] | None,
    Parameter(
        name="--values", consume_multiple=True, negative="", help="The columns to read; all numeric ones if not given."
    ),
]
Duplicates = Annotated[
    Literal["refuse", "first", "last", "mean", "keep"],
    Parameter(name="--duplicates", help="What becomes of rows with equal times but other values."),
]
Seed = Annotated[int, Parameter(validator=Number(gte=0, lt=2**32))]
Count = Annotated[int, Parameter(validator=Number(gte=1))]
Replace = Annotated[bool, Parameter(negative="", help="Whether a model that is already there may be replaced.")]
