"""What an architecture takes from the data and the context where its settings do not say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prismts.data.calendar import season_length
from prismts.data.period import period_of_longest
from prismts.data.series import Collection

__all__ = ["sized"]


def sized(
    model: str, settings: Mapping[str, Any], context_length: int, data: Collection, train_ends: NDArray[np.int64]
) -> dict[str, Any]:
    """The settings of a model by name, with what is missing: seasons, cycles, and patches that suit the context."""
    settings = dict(settings)
    if model == "seasonal_naive":
        settings.setdefault("season", season_length(data.frequency))
    elif model == "cyclenet" and "cycle" not in settings:
        settings["cycle"] = season_length(data.frequency)
        if settings["cycle"] == 1:  # nobody knows how long a step is: what the training part says
            settings["cycle"] = period_of_longest(data, train_ends)
    elif model == "patchtst" and "patch_length" not in settings:
        length = min(16, max(2, context_length // 6))  # at least eleven tokens, however short the context
        settings = {"patch_length": length, "stride": max(1, length // 2), **settings}
    elif model == "universal" and "patch_lengths" not in settings:
        length = min(16, max(2, context_length // 6))
        lengths = (length, 2 * length, 4 * length)
        settings = {"patch_lengths": lengths, "stride": settings.get("stride", length), **settings}
    elif model == "cross_learner" and settings.get("front") != "lift":
        settings.setdefault("patch_length", min(24, max(1, context_length // 6)))
    return settings
