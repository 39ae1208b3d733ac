"""What of the data that are scored a saved model has learned from already, in words that stand beside the scores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from prismts.data.series import Collection, Series
    from prismts.estimators.forecaster import Forecaster
    from prismts.estimators.learned import Learned

__all__ = ["told_if_learned", "told_of_steps", "told_of_teachers"]

Step = int | NDArray[np.int64]  # the same one of every series, or one for each


def told_of_steps(forecasters: Sequence[Forecaster], data: Collection, begins: Step, who: str) -> str:
    """What is to be said where one of ``forecasters``, or a model before it, has learned from such steps.

    Steps are ``begins`` and those after it. Also where it may have.
    """
    from prismts.estimators.learned import Learned

    told = _told(map(Learned.of, forecasters), data, begins, who)
    return told or told_of_teachers(forecasters, data, begins)


def told_of_teachers(forecasters: Sequence[Forecaster], data: Collection, begins: Step) -> str:
    """The same of those alone that these forecasters were taught by, or went on from."""
    return _told((note for one in forecasters for note in one.taught_by_), data, begins, "a model before it")


def _told(notes: Iterable[Learned], data: Collection, begins: Step, who: str) -> str:
    verdicts = [note.unseen(data, np.broadcast_to(begins, len(data))) for note in notes]
    if False in verdicts:
        return f", which {who} has learned from, so expect worse on new data"
    return f", which {who} may have learned from" if None in verdicts else ""


def told_if_learned(estimator: Any, data: Series | Collection) -> str:
    """What is to be said where the very cases or steps that are scored were learned from."""
    from prismts.estimators.learned import Learned
    from prismts.evaluation.protocols import data_hash

    digest, own = data_hash(data), Learned.of(estimator)
    if digest == own.data_hash:
        return ", which it has learned from, so this says nothing about new data"
    if digest == own.before:
        return ", which the model before it has learned from, so expect worse on new data"
    if any(digest in (note.data_hash, note.before) for note in estimator.taught_by_):
        return ", which a model before it has learned from, so expect worse on new data"
    return ""
