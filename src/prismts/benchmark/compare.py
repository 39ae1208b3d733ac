"""Which configuration of a benchmark is better: its scores as blocks, and the tests of ``evaluation.compare``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from prismts.benchmark.counted import (
    COSTS,
    Counted,
    check_measure,
    counted,
    direction,
    draws,
    lacking,
    mean,
    state,
    unit,
)
from prismts.benchmark.results import Results
from prismts.benchmark.spec import Cell
from prismts.errors import DataError, SettingsError, unknown_name
from prismts.evaluation.compare import (
    Difference,
    Friedman,
    PairTest,
    average_ranks,
    bootstrap_difference,
    critical_difference,
    friedman,
    indistinguishable,
    pairwise_tests,
)

__all__ = ["Blocks", "Comparison", "blocks_of", "compare"]

Over = Literal["data", "data,horizon"]


@dataclass(frozen=True)
class Blocks:
    """Scores of several configurations on the same blocks, complete."""

    models: tuple[str, ...]
    names: tuple[str, ...]  # of the blocks
    seeds: Mapping[tuple[str, str], tuple[float, ...]]  # (block, model): one score per seed
    notes: tuple[str, ...] = ()

    @property
    def table(self) -> NDArray[np.float64]:
        """Means over seeds, [block, model]."""
        rows = [[mean(self.seeds[name, model]) for model in self.models] for name in self.names]
        return np.array(rows, dtype=np.float64)

    def interval(self, model: str, level: float) -> tuple[float, float] | None:
        """Student's interval of the mean over blocks, seeds being the draws; None unless all blocks have equally many.

        It says what another training would change, and nothing about other data.
        """
        drawn = [self.seeds[name, model] for name in self.names]
        n = len(drawn[0])
        if n < 2 or any(len(one) != n for one in drawn):
            return None
        means = np.array(drawn).mean(axis=0)  # [seed]
        half = float(stats.t.ppf((1 + level) / 2, n - 1) * means.std(ddof=1) / np.sqrt(n))
        return float(means.mean()) - half, float(means.mean()) + half


@dataclass(frozen=True)
class Comparison:
    """What the tests say."""

    measure: str
    higher_is_better: bool
    protocol: str
    blocks: Blocks
    ranks: tuple[float, ...]  # average, one per model
    friedman: Friedman | None  # None of a single block, or a single pair
    critical_difference: float
    level: float
    pairs: tuple[PairTest, ...]
    differences: tuple[Difference, ...]  # one per pair, first minus second, in percent of the second

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Models that Nemenyi's test cannot tell apart."""
        found = indistinguishable(self.ranks, self.critical_difference)
        return tuple(tuple(self.blocks.models[i] for i in group) for group in found)

    @property
    def order(self) -> list[int]:
        """Places of the models, best first."""
        return [int(i) for i in np.argsort(self.ranks, kind="stable")]

    def rank_rows(self) -> list[tuple[str, str, str, str]]:
        """Model, average rank, mean score, and its interval over seeds: best first."""
        mean = self.blocks.table.mean(axis=0)
        rows: list[tuple[str, str, str, str]] = []
        for i in self.order:
            model = self.blocks.models[i]
            found = self.blocks.interval(model, 1 - self.level)
            told = "–" if found is None else f"{found[0]:.4f} to {found[1]:.4f}"
            rows.append((model, f"{self.ranks[i]:.2f}", f"{mean[i]:.4f}", told))
        return rows

    def score_rows(self) -> list[tuple[str, ...]]:
        """Block, and the mean of every model there with its standard deviation over seeds."""
        return [
            (name, *(_spread(self.blocks.seeds[name, model]) for model in self.blocks.models))
            for name in self.blocks.names
        ]

    def pair_rows(self) -> list[tuple[str, str, str, str, str, str]]:
        """Pair, wins/ties/losses of the first, p, p after Holm, difference with interval, and what that says."""
        rows: list[tuple[str, str, str, str, str, str]] = []
        for test, difference in zip(self.pairs, self.differences, strict=True):
            first, second = self.blocks.models[test.first], self.blocks.models[test.second]
            said = "no clear difference"
            if test.corrected < self.level:
                said = f"{first if test.balance > 0 else second} is better"
            rows.append((
                f"{first} against {second}", f"{test.wins}/{test.ties}/{test.losses}", f"{test.p_value:.4f}",
                f"{test.corrected:.4f}", _percent(difference, len(self.blocks.names)), said,
            ))  # fmt: skip
        return rows

    def summary(self) -> list[str]:
        """What the whole comparison says, in sentences."""
        n, k = len(self.blocks.names), len(self.blocks.models)
        blocks = f"{n} block{'' if n == 1 else 's'}"
        said = [f"{k} configurations on {blocks} ({', '.join(self.blocks.names)}), {self.measure}, "
                f"{'higher' if self.higher_is_better else 'lower'} is better, {self.protocol} protocol."]  # fmt: skip
        if self.friedman is not None:
            said.append(
                f"Friedman: chi-square {self.friedman.chi_square:.3f}, p {self.friedman.p_value:.4f}; Iman-Davenport "
                f"F {self.friedman.f_statistic:.3f}, p {self.friedman.f_p_value:.4f}."
            )
        said.append(f"Nemenyi: average ranks {self.critical_difference:.2f} apart differ at the level {self.level:g}.")
        least = min(1.0, len(self.pairs) * 2.0 ** (1 - n))  # of the smallest p-value, times the number of pairs
        if least >= self.level:
            fewer = ", or compare fewer configurations (--models)" if len(self.pairs) > 1 else ""
            said.append(
                f"With {blocks} Wilcoxon's test, corrected for the number of pairs ({len(self.pairs)}), cannot give "
                f"a p-value below {least:.3f}: no pair can differ at {self.level:g}, however large the difference. The "
                f"intervals say more; add data sets{fewer}."
            )
        if any(one.n_left_out for one in self.differences):
            said.append(
                "Where the second of a pair scores 0 there is no percentage: differences in percent leave such blocks "
                "out, and say on how many they are."
            )
        return [*said, *self.blocks.notes]


def _spread(scores: Sequence[float]) -> str:
    """The mean of a score, and where there are several its standard deviation."""
    return f"{mean(scores):.4f}" + (f" ± {np.std(scores, ddof=1):.4f}" if len(scores) > 1 else "")


def _percent(difference: Difference, n_blocks: int) -> str:
    """With its interval, and on how many blocks it is, where these are not all."""
    n = n_blocks - difference.n_left_out
    if not n:
        return "–"
    told = f"{difference.mean:+.1f} % [{difference.low:+.1f}, {difference.high:+.1f}]"
    return told if n == n_blocks else f"{told} on {n} of {n_blocks}"


def compare(
    results: Results,
    *,
    measure: str | None = None,
    over: Over = "data",
    protocol: str | None = None,
    models: Sequence[str] | None = None,
    context: int | None = None,
    level: float = 0.05,
    n_draws: int = 10_000,
) -> Comparison:
    """Rank and test the configurations of a benchmark.

    Args:
        results: what a folder holds.
        measure: of the scores; the headline of the task if None.
        over: what a block is: a data set (the mean over its horizons), or each horizon of each data set, which are no
            independent draws.
        protocol: the one to compare under; the first of the specification if None.
        models: configurations to compare; all that have results, floors among them, if None.
        context: steps, the one to compare at; the one that validation chose if None.
        level: of the tests.
        n_draws: of the bootstrap.
    """
    if not 0 < level < 1:
        raise SettingsError(f"level is a share between 0 and 1, such as 0.05, but got {level:g}.")
    blocks, measure, protocol = blocks_of(
        results, measure=measure, over=over, protocol=protocol, models=models, context=context
    )
    upward = direction(results.spec.task, measure) == "higher"
    table = blocks.table
    n, k = table.shape
    pairs = pairwise_tests(table, higher_is_better=upward)
    differences = [
        bootstrap_difference(
            [blocks.seeds[name, blocks.models[test.first]] for name in blocks.names],
            [blocks.seeds[name, blocks.models[test.second]] for name in blocks.names],
            relative=True,
            level=1 - level,
            n_draws=n_draws,
        )
        for test in pairs
    ]
    return Comparison(
        measure, upward, protocol, blocks, tuple(average_ranks(table, higher_is_better=upward).tolist()),
        friedman(table) if n > 1 and k > 2 else None, critical_difference(k, n, level=level), level, tuple(pairs),
        tuple(differences),
    )  # fmt: skip


def blocks_of(
    results: Results,
    *,
    measure: str | None = None,
    over: Over = "data",
    protocol: str | None = None,
    models: Sequence[str] | None = None,
    context: int | None = None,
) -> tuple[Blocks, str, str]:
    """The scores that are compared, with the measure and the protocol they are of.

    A block that lacks a part of what the specification names, such as a horizon, is left out: the mean of the others
    is no mean of it.

    Raises:
        SettingsError: a name is unknown or given twice, or no value of the measure is better than another.
        DataError: fewer than two configurations share a complete block.
    """
    measure = check_measure(results, measure)
    if direction(results.spec.task, measure) not in ("lower", "higher"):
        raise SettingsError(
            f"{measure} ranks no model: neither less nor more of it is better, but what is claimed. Compare by a "
            "measure of which less is better, such as crps, pinball or mse."
        )
    if over not in get_args(Over):
        raise unknown_name("kind of block", over, get_args(Over))
    known = [one.name for one in results.spec.all_models]
    for number, name in enumerate(models or ()):
        if name not in known:
            raise unknown_name("configuration", name, known)
        if models is not None and models.index(name) != number:
            raise SettingsError(f"{name!r} is named twice among the models to compare. Name another one.")
    protocol = protocol or results.spec.protocols[0]
    if protocol not in results.spec.protocols:
        raise unknown_name("protocol of this benchmark", protocol, results.spec.protocols)
    found = counted(results, measure, context=context)
    if measure in COSTS:
        protocol = protocol if any(cell.protocol == protocol for cell in found.planned) else found.planned[0].protocol
    outside = {one.name for one in results.spec.data if not one.in_mean}
    planned = [cell for cell in found.planned
               if cell.protocol == protocol and cell.train_share == 1 and cell.data not in outside]  # fmt: skip
    have = {cell.model for cell in planned if cell in found.values}
    wanted = [name for name in models or known if name in have]
    by_block: dict[str, list[Cell]] = {}
    for cell in planned:
        if cell.model in wanted:
            name = cell.data if over == "data" or cell.horizon is None else f"{cell.data} {cell.horizon}"
            by_block.setdefault(name, []).append(cell)
    missing = {name: _without(cells, wanted, found) for name, cells in by_block.items()}
    names = [name for name in by_block if not missing[name]]
    left_out = [f"{name} ({'all' if len(lacks) == len(wanted) else ', '.join(lacks)})"
                for name, lacks in missing.items() if lacks]  # fmt: skip
    if len(wanted) < 2 or not names:
        smaller = [] if models else ["name the configurations to compare (--models)"]
        if over == "data" and any(cell.horizon is not None for cell in planned):
            smaller.append("compare horizon by horizon (--over data,horizon)")
        smaller = smaller or ["name others (--models)"]
        raise DataError(
            f"A comparison needs two configurations with results on a common data set, but {results.folder} has "
            f"{', '.join(wanted) or 'none'}" + (f"; incomplete: {', '.join(left_out)}" if left_out else "")
            + f". Run what is missing, or {' or '.join(smaller)}."
        )  # fmt: skip
    compared = {cell: found.values[cell] for name in names for cell in by_block[name] if cell in found.values}
    seeds = {
        (name, model): draws({cell: compared[cell] for cell in by_block[name]
                              if cell.model == model and cell in compared})[0]
        for name in names for model in wanted
    }  # fmt: skip
    notes = [*found.notes, *lacking(results, found, planned, [name for name in models or known if name not in have])]
    if context is not None:
        notes.append(f"All at a context of {context} steps.")
    if outside:
        notes.append(f"Not compared on {', '.join(sorted(outside))}, as the specification says (in_mean: false).")
    if left_out:
        notes.append(f"Left out, because a result is missing there (and whose): {', '.join(left_out)}.")
    if over == "data,horizon":
        notes.append(
            "Blocks are horizons of the same data sets, no independent draws: the tests look surer than they are."
        )
    notes += state(results, found, compared)
    return Blocks(tuple(wanted), tuple(names), seeds, tuple(notes)), measure, protocol


def _without(cells: Sequence[Cell], models: Sequence[str], found: Counted) -> list[str]:
    """The models that lack something of what a block covers."""
    units = {unit(cell) for cell in cells}
    have = {model: {unit(cell) for cell in cells if cell.model == model and cell in found.values} for model in models}
    return [model for model in models if have[model] != units]
