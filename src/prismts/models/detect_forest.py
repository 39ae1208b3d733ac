"""Windows that few random cuts set apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prismts.errors import SettingsError
from prismts.models.detect_windows import Array, Stacked, StackedConfig, in_batches

__all__ = ["Forest", "ForestConfig"]


@dataclass(frozen=True, kw_only=True)
class ForestConfig(StackedConfig):
    """Equal ``random_state``, equal trees."""

    n_trees: int = 100
    random_state: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_trees < 1:
            raise SettingsError(f"n_trees must be at least 1, but got {self.n_trees}.")


class Forest(Stacked[ForestConfig]):
    """Isolation forest on windows: 100 trees of 256 training windows each; the score lies between 0 and 1.

    Source: Liu et al., ICDM 2008, as scikit-learn has it, on windows as TSB-AD's Sub-IForest. That one reads single
    channels, draws one feature per tree, and is fitted on the series it scores; here all channels and features of the
    training part are drawn from.
    """

    def _fit_windows(self, windows: NDArray[Any]) -> None:
        from sklearn.ensemble import IsolationForest

        rows = np.concatenate(list(in_batches(windows))).astype(np.float32)  # what the trees read
        self.forest_: Any = IsolationForest(
            n_estimators=self.config.n_trees, random_state=self.config.random_state
        ).fit(rows)

    def _score_windows(self, windows: Array) -> Array:
        return -np.asarray(self.forest_.score_samples(windows.astype(np.float32)), dtype=np.float64)
