"""Whether tasks that share an encoder help each other: each task joint, separate, frozen and from scratch, over seeds.

Tasks that are trained together may also hurt each other (negative transfer), and a mean over tasks hides it. So each
task is compared with itself: trained alone from the same beginning, on the encoder held still, and from a new encoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from prismts.errors import DataError, unknown_name

__all__ = ["WAYS", "TransferReport", "TransferRow"]

WAYS: dict[str, str] = {
    "joint": "all tasks at once",
    "separate": "this task alone, from the same encoder",
    "frozen": "this task's head alone, on the encoder as it is",
    "scratch": "this task alone, from a new encoder",
}


@dataclass(frozen=True, kw_only=True)
class TransferRow:
    """One number: a task, trained in one way with one seed."""

    task: str
    way: str
    seed: int
    measure: str
    value: float
    higher_is_better: bool
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.way not in WAYS:
            raise unknown_name("way of training", self.way, WAYS)


@dataclass(frozen=True)
class TransferReport:
    """All numbers, and what they say together."""

    rows: tuple[TransferRow, ...]

    def __iter__(self) -> Iterator[TransferRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def tasks(self) -> tuple[str, ...]:
        """In order of first appearance."""
        return tuple(dict.fromkeys(row.task for row in self.rows))

    def values(self, task: str, way: str) -> dict[int, float]:
        """The numbers of one task in one way, by seed."""
        if task not in self.tasks:
            raise unknown_name("task", task, self.tasks)
        return {row.seed: row.value for row in self.rows if (row.task, row.way) == (task, way)}

    def as_rows(self) -> list[dict[str, Any]]:
        """Every number as plain values, for a file or a DataFrame."""
        return [asdict(row) for row in self.rows]

    @classmethod
    def from_rows(cls, rows: Sequence[dict[str, Any]]) -> TransferReport:
        """The twin of ``as_rows``."""
        return cls(tuple(TransferRow(**row) for row in rows))

    def summary(self) -> list[dict[str, Any]]:
        """One entry per task and way: mean, spread over seeds, and the gain over "separate" where both were run.

        ``spread`` is the standard deviation over seeds, None for one seed. ``gain`` is the mean over the seeds of both
        of how much better it is, as a share of the mean of "separate": above 0 is better, whatever the measure.
        ``n_better`` counts the seeds in which it is.
        """
        found: list[dict[str, Any]] = []
        for task in self.tasks:
            first = next(row for row in self.rows if row.task == task)
            alone = self.values(task, "separate")
            for way in WAYS:
                values = self.values(task, way)
                if not values:
                    continue
                numbers = np.array(list(values.values()))
                entry: dict[str, Any] = {
                    "task": task, "way": way, "measure": first.measure, "higher_is_better": first.higher_is_better,
                    "mean": float(numbers.mean()), "n_seeds": len(numbers),
                    "spread": float(numbers.std(ddof=1)) if len(numbers) > 1 else None,
                    "gain": None, "n_better": None, "n_compared": 0,
                }  # fmt: skip
                both = sorted(values.keys() & alone.keys())
                if way != "separate" and both:
                    sign = 1.0 if first.higher_is_better else -1.0
                    gains = sign * np.array([values[seed] - alone[seed] for seed in both])
                    level = abs(float(np.mean([alone[seed] for seed in both])))
                    entry |= {
                        "gain": float(gains.mean()) / level if level else None,
                        "n_better": int((gains > 0).sum()), "n_compared": len(both),
                        "worse_always": bool((gains < 0).all()) and len(both) > 1,
                    }  # fmt: skip
                found.append(entry)
        return found

    def negative(self) -> list[str]:
        """The tasks to which joint training did harm: worse than alone in every seed, of two or more."""
        return [e["task"] for e in self.summary() if e["way"] == "joint" and e.get("worse_always")]

    def table(self) -> str:
        """Markdown: one line per task and way, and a sentence on negative transfer."""
        if not self.rows:
            raise DataError("A transfer report needs at least one number, but has none.")
        lines = [
            "| task | measure | trained | seeds | mean ± spread | better than separate | seeds better |",
            "|---|---|---|---|---|---|---|",
        ]
        for entry in self.summary():
            arrow = "higher is better" if entry["higher_is_better"] else "lower is better"
            spread = "" if entry["spread"] is None else f" ± {entry['spread']:.4f}"
            gain = "" if entry["gain"] is None else f"{entry['gain']:+.1%}"
            better = "" if entry["n_better"] is None else f"{entry['n_better']} of {entry['n_compared']}"
            lines.append(
                f"| {entry['task']} | {entry['measure']} ({arrow}) | {entry['way']} | {entry['n_seeds']} "
                f"| {entry['mean']:.4f}{spread} | {gain} | {better} |"
            )
        harmed = self.negative()
        said = f"Negative transfer: {', '.join(harmed)} (worse together than alone in every seed)." if harmed else ""
        if not harmed and any(entry["way"] == "joint" and entry["n_compared"] > 1 for entry in self.summary()):
            said = "No task is worse together than alone in every seed."
        return "\n".join(lines + (["", said] if said else []))

    def __str__(self) -> str:
        return self.table()
