"""What every exported graph says of itself: what it reads and writes, in which layout and units, and for what times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

__all__ = ["TOLERANCE", "Graph", "Kind", "Port", "TimeRange"]

TOLERANCE = 1e-4  # largest difference from the estimator that is allowed, relative to the scale of the answer
Kind = Literal["forecast", "classify", "detect", "impute", "embed"]


@dataclass(frozen=True)
class Port:
    """One input or output: an axis is a name where any size will do, and a number where it is fixed."""

    axes: tuple[str | int, ...]
    dtype: str
    units: str
    meaning: str


@dataclass(frozen=True)
class TimeRange:
    """How many steps a graph reads: from ``min`` to ``max`` (None: any number); ``exact`` says that none may lack."""

    min: int
    max: int | None = None

    @property
    def exact(self) -> bool:
        """Whether one number of steps is all that is read."""
        return self.min == self.max


@dataclass(frozen=True)
class Graph:
    """A module of one kind of answer, with everything a reader of its file has to know.

    The first input is ``values`` [batch, channel, time] in the user's own units, NaN where nothing was observed.
    """

    kind: Kind
    module: nn.Module
    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]
    time: TimeRange
    example: tuple[Tensor, ...]  # one tensor per input, of sizes by which no axis is mistaken for another
    facts: Mapping[str, Any] = field(default_factory=dict)  # what else the metadata tell: horizon, classes ...

    def described(self) -> dict[str, Any]:
        """Everything but the module, as plain values."""
        return {
            "kind": self.kind,
            "inputs": {name: asdict(port) for name, port in self.inputs.items()},
            "outputs": {name: asdict(port) for name, port in self.outputs.items()},
            "time": {"min": self.time.min, "max": self.time.max, "exact": self.time.exact},
            **self.facts,
        }
