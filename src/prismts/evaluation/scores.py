"""What an evaluation found: a mapping of measures that also knows what was counted, and how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Scores"]


@dataclass(frozen=True, eq=False)
class Scores(Mapping[str, float]):
    """Measures by name, ``scores["mse"]``; ``n_scored`` windows (or cases, or points) were counted.

    ``per_step`` and ``per_channel`` hold the same measures along the horizon [H] and for each channel [C].
    """

    measures: Mapping[str, float]
    n_scored: int
    seconds: float = 0.0
    protocol: str = ""
    data: str = ""  # name of the data
    data_hash: str = ""
    seed: int | None = None
    per_step: Mapping[str, NDArray[np.float64]] = field(default_factory=dict, repr=False)
    per_channel: Mapping[str, NDArray[np.float64]] = field(default_factory=dict, repr=False)
    channels: tuple[str, ...] = ()
    counted: str = "windows"  # what n_scored counts: windows, cases or steps

    def __getitem__(self, name: str) -> float:
        return self.measures[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.measures)

    def __len__(self) -> int:
        return len(self.measures)

    def __str__(self) -> str:
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in self.measures.items())
        told = f"{self.n_scored} {self.counted}" + (f", protocol {self.protocol}" if self.protocol else "")
        return f"{self.data}: {numbers}  ({told}, {self.seconds:.1f} s)"

    def as_dict(self) -> dict[str, object]:
        """Everything as plain values, for a file."""
        return {
            "measures": dict(self.measures), "n_scored": self.n_scored, "seconds": self.seconds,
            "protocol": self.protocol, "data": self.data, "data_hash": self.data_hash, "seed": self.seed,
            "per_step": {name: array.tolist() for name, array in self.per_step.items()},
            "per_channel": {name: array.tolist() for name, array in self.per_channel.items()},
            "channels": list(self.channels), "counted": self.counted,
        }  # fmt: skip
