"""Where training ends and testing begins: borders in time, as values one can print."""

from collections.abc import Sequence
from dataclasses import dataclass

from prismts.errors import SettingsError

__all__ = ["Borders", "by_fraction", "ett_borders"]


@dataclass(frozen=True)
class Borders:
    """Three numbers of time steps that cut a series into train, validation and test, in this order of time.

    A step with number ``i`` belongs to train if ``i < train_end``, to validation if
    ``train_end <= i < validation_end``, to test if ``validation_end <= i < test_end``. What lies behind is unused.
    """

    train_end: int
    validation_end: int
    test_end: int

    def __post_init__(self) -> None:
        if not 0 < self.train_end <= self.validation_end <= self.test_end:
            raise SettingsError(
                "Borders must satisfy 0 < train_end <= validation_end <= test_end, but got "
                f"{self.train_end}, {self.validation_end}, {self.test_end}."
            )

    @property
    def train(self) -> tuple[int, int]:
        """First step of train, and the step after its last."""
        return 0, self.train_end

    @property
    def validation(self) -> tuple[int, int]:
        """First step of validation, and the step after its last."""
        return self.train_end, self.validation_end

    @property
    def test(self) -> tuple[int, int]:
        """First step of test, and the step after its last."""
        return self.validation_end, self.test_end

    def __str__(self) -> str:
        parts: Sequence[tuple[str, tuple[int, int]]] = (
            ("train", self.train), ("validation", self.validation), ("test", self.test)
        )  # fmt: skip
        return ", ".join(f"{name} [{begin}, {end})" for name, (begin, end) in parts)


def by_fraction(n_timepoints: int, train: float = 0.7, test: float = 0.2) -> Borders:
    """Borders at fractions of a series; what is neither train nor test is validation.

    Train and test are rounded down, as in the usual 70/10/20 protocol of long-term forecasting.
    """
    if not (0 < train < 1 and 0 <= test < 1 and train + test <= 1):
        raise SettingsError(f"train and test are fractions that sum to at most 1, but got {train} and {test}.")
    n_train, n_test = int(n_timepoints * train), int(n_timepoints * test)
    if not n_train:
        raise SettingsError(
            f"A series of {n_timepoints} step{'s' * (n_timepoints != 1)} cannot be cut: the {train:.0%} of it that are "
            "for training hold no step. Give more data."
        )
    return Borders(n_train, n_timepoints - n_test, n_timepoints)


def ett_borders(steps_per_hour: int = 1) -> Borders:
    """Train, validation and test of 12, 4 and 4 months of 30 days: the protocol of the ETT sets.

    Source: Zhou et al., AAAI 2021 (Informer). What follows the first 20 months is not used.
    """
    month = 30 * 24 * steps_per_hour
    return Borders(12 * month, 16 * month, 20 * month)
