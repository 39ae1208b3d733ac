"""Which steps of some data are learned from, which choose, and which nobody looks at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prismts.data.series import Collection
from prismts.data.splits import Borders
from prismts.errors import DataError, SettingsError
from prismts.estimators.match import in_steps_of, reordered

__all__ = ["Parts", "parts_of"]

Step = int | NDArray[np.int64]  # the same one of every series, or one for each


@dataclass(frozen=True, eq=False)
class Parts:
    """Where training ends in each series, what validation reads, and where the part begins that neither has read."""

    train_ends: NDArray[np.int64]  # [n]
    test_begins: NDArray[np.int64]  # [n]
    held_out: Collection | None  # what validation is read from: the data themselves, or others
    begin: Step = 0  # of validation, in held_out
    end: Step | None = None


def parts_of(
    data: Collection, validation: Any, read: Callable[[Any], Collection], *, test: float = 0.0, horizon: int = 0
) -> Parts:
    """Cut data by ``validation`` (a fraction, ``Borders``, other data, or None or 0 for none) and a fraction for test.

    ``read`` makes a collection of other data. Validation must have room for ``horizon`` steps in some series; where
    there is no horizon, its windows end there, so that the first of them ends one step after the training part.
    """
    if not isinstance(test, Real) or not 0 <= test < 1:
        raise SettingsError(f"test is a fraction from 0 to below 1, but got {test!r}.")
    test = float(test)
    if isinstance(validation, Real):
        validation = float(validation)
        if not 0 <= validation < 1:
            raise SettingsError(f"validation is a fraction from 0 to below 1, but got {validation}.")
        if validation + test >= 1:
            raise SettingsError(
                f"validation and test leave nothing to learn from: {validation} and {test} of the data."
            )
    first = int(horizon == 0)
    lengths = data.lengths - np.round(data.lengths * test).astype(np.int64)
    if isinstance(validation, Borders):
        ends, begins = np.minimum(validation.train_end, lengths), np.minimum(validation.validation_end, lengths)
        some = validation.validation_end > validation.train_end
        return Parts(ends, begins, data if some else None, validation.train_end + first, validation.validation_end)
    if validation is None or (isinstance(validation, float) and not validation):
        return Parts(lengths, lengths, None)
    if not isinstance(validation, float):
        held_out = reordered(read(validation), data.channels, "validation")
        remedy = "Validate on data of that step, or give a fraction."
        return Parts(lengths, lengths, in_steps_of(held_out, data.frequency, remedy))
    ends = lengths - np.round(data.lengths * validation).astype(np.int64)
    if not (lengths - ends >= horizon).any():
        raise DataError(
            f"A validation part of {validation:.0%} has at most {int((lengths - ends).max())} steps, fewer than the "
            f"horizon of {horizon}. Give a larger fraction, a shorter horizon, or validation=0 for none."
        )
    return Parts(ends, lengths, data, ends + first, lengths)
