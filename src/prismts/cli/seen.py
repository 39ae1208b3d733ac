"""What of the data that are scored a saved model has learned from already, in words that stand beside the scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from prismts.data.series import Collection, Series
    from prismts.estimators.forecaster import Forecaster

__all__ = ["told_if_learned", "told_of_steps"]


def told_of_steps(
    forecasters: Sequence[Forecaster], data: Collection, begins: int | NDArray[np.int64], who: str
) -> str:
    """What is to be said where one of ``forecasters`` has learned from steps ``begins`` and later, or may have."""
    verdicts = [_unseen(one, data, np.broadcast_to(begins, len(data))) for one in forecasters]
    if False in verdicts:
        return f", which {who} has learned from, so expect worse on new data"
    return f", which {who} may have learned from" if None in verdicts else ""


def _unseen(forecaster: Forecaster, data: Collection, begins: NDArray[np.int64]) -> bool | None:
    """Whether nothing was learned from these steps of each series; None where nothing tells."""
    from prismts.evaluation.protocols import data_hash

    unseen: bool | None = None
    times, known = data.timestamps, forecaster.tails_.timestamps
    if data_hash(data) == forecaster.data_hash_:
        unseen = bool((forecaster.test_begins_ <= begins).all())
    elif times is not None and known is not None:
        first = (data.offsets[:-1] + begins)[begins < data.lengths]
        unseen = True if (times[first] > known.max()).all() else None
    # of what it was adapted from, only the last step is known
    return None if unseen and forecaster.adaptation_ is not None else unseen


def told_if_learned(estimator: Any, data: Series | Collection) -> str:
    """What is to be said where the very cases or steps that are scored were learned from."""
    from prismts.evaluation.protocols import data_hash

    digest, before = data_hash(data), estimator.adaptation_
    if digest == estimator.data_hash_:
        return ", which it has learned from, so this says nothing about new data"
    if before is not None and before.learned_before == digest:
        return ", which the model before it has learned from, so expect worse on new data"
    return ""
