"""Options that several commands share."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Annotated, Literal

from cyclopts import Parameter, Token
from cyclopts.validators import Number

__all__ = ["Count", "Duplicates", "Quiet", "Replace", "Seed", "SeriesColumn", "TimeColumn", "Values", "Whole"]


def _whole(kind: object, tokens: Sequence[Token]) -> int:
    """A whole number; where nothing converts it, the command line rounds 6.9 to 7."""
    text = tokens[0].value
    with contextlib.suppress(ValueError):
        return int(text)
    with contextlib.suppress(ValueError):
        if float(text).is_integer():
            return int(float(text))
    raise ValueError(f"{text!r} is no whole number. Write it as in 7.")


Whole = Annotated[int, Parameter(converter=_whole)]

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
Seed = Annotated[Whole, Parameter(validator=Number(gte=0, lt=2**32))]
Count = Annotated[Whole, Parameter(validator=Number(gte=1))]
Replace = Annotated[bool, Parameter(negative="", help="Whether a model that is already there may be replaced.")]
