"""What a reader must not overlook: each function gives a sentence, or None where there is nothing to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from prismts.evaluation.scores import Scores

__all__ = [
    "behind_a_floor", "different_windows", "hardly_trained", "never_improved", "patches_stayed",
]  # fmt: skip

HARDLY_MOVED = 0.5  # steps


def patches_stayed(shift: NDArray[np.floating], widened: NDArray[np.floating]) -> str | None:
    """Patches that did not move, or by less than half a step; how far each was moved and widened, in steps."""
    most = float(np.abs([shift, widened]).max(initial=0))
    if most < 1e-3:
        return "The patches did not move: every offset is zero, so the model reads uniform patches."
    if most < HARDLY_MOVED:
        return f"The patches hardly moved, by at most {most:.2g} steps: the model reads almost uniform patches."
    return None


def never_improved(history: Sequence[Mapping[str, float]]) -> str | None:
    """A validation loss that was never again as low as after the first epoch."""
    losses = [entry["val_loss"] for entry in history if "val_loss" in entry]
    if len(losses) < 2 or min(losses[1:]) < losses[0]:
        return None
    return (
        f"The validation loss never improved after the first epoch ({len(losses)} were trained): the model learned in "
        "one pass what holds, or the learning rate is too high."
    )


def hardly_trained(history: Sequence[Mapping[str, float]]) -> str | None:
    """A training of a single epoch."""
    if len(history) != 1:
        return None
    return "One epoch was trained, so nothing can be said about when the losses stop falling."


def behind_a_floor(scores: Mapping[str, Scores], measure: str = "mse") -> str | None:
    """A model, the first of the scores, that another one beats."""
    (name, own), *others = scores.items()
    value, best = min(((score.get(measure, np.inf), other) for other, score in others), default=(np.inf, ""))
    if not value < own.get(measure, -np.inf):
        return None
    close = own[measure] < 1.01 * value
    verdict = (
        f"That is within a hundredth: on these data it earns nothing over {best}, which is simpler."
        if close
        else f"On these data {best} is the better choice."
    )
    return f"{name} is behind {best}: {measure.upper()} {own[measure]:.4f} against {value:.4f}. {verdict}"


def different_windows(scores: Mapping[str, Scores]) -> str | None:
    """Scores that must not be compared, because they count different windows or other data."""
    seen = {(score.n_scored, score.protocol, score.data_hash) for score in scores.values()}
    if len(seen) == 1:
        return None
    return "The rows of the score table cannot be compared: they count different windows, protocols or data."
