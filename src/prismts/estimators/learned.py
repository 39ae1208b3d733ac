"""A note of what an estimator has learned from, which a student keeps of its teachers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from prismts.data.series import Collection
from prismts.evaluation.protocols import data_hash

__all__ = ["Learned"]


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What data an estimator has learned from: enough to tell later whether others were among them."""

    data_hash: str
    before: str | None = None  # hash of what the model was trained on that it was adapted from
    test_begins: tuple[int, ...] | None = None  # of each series, the first step that was not read; None of cases
    last: str | None = None  # the time of its last row; None of cases, and of rows without times

    @classmethod
    def of(cls, estimator: Any) -> Self:
        """The note about a fitted estimator."""
        begins: Any = getattr(estimator, "test_begins_", None)
        times = estimator.tails_.timestamps if hasattr(estimator, "tails_") else None
        lineage = estimator.adaptation_
        return cls(
            data_hash=estimator.data_hash_, before=None if lineage is None else lineage.learned_before,
            test_begins=None if begins is None else tuple(int(step) for step in begins),
            last=None if times is None else str(times.max()),
        )  # fmt: skip

    @classmethod
    def from_dict(cls, kept: dict[str, Any]) -> Self:
        """The twin of ``dataclasses.asdict``, also after JSON."""
        begins = kept["test_begins"]
        whole: dict[str, Any] = {**kept, "test_begins": None if begins is None else tuple(begins)}
        return cls(**whole)

    def unseen(self, data: Collection, begins: NDArray[np.int64]) -> bool | None:
        """Whether nothing was learned from steps ``begins`` and later of each series; None where nothing tells."""
        unseen: bool | None = None
        if data_hash(data) == self.data_hash:
            unseen = bool((np.asarray(self.test_begins) <= begins).all())
        elif data.timestamps is not None and self.last is not None:
            first = (data.offsets[:-1] + begins)[begins < data.lengths]
            unseen = True if (data.timestamps[first] > np.datetime64(self.last)).all() else None
        # of what it was adapted from, only the last step is known
        return None if unseen and self.before is not None else unseen
