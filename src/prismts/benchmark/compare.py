"""Which configuration of a benchmark is better: its scores as blocks, and the tests of ``evaluation.compare``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from prismts.benchmark.results import Results
from prismts.benchmark.spec import Cell
from prismts.benchmark.tables import check_measure, chosen, higher_is_better
from prismts.errors import DataError, unknown_name
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
        rows = [[float(np.mean(self.seeds[name, model])) for model in self.models] for name in self.names]
        return np.array(rows, dtype=np.float64)


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

    def rank_rows(self) -> list[tuple[str, str, str]]:
        """Model, average rank, mean score: best first."""
        mean = self.blocks.table.mean(axis=0)
        return [(self.blocks.models[i], f"{self.ranks[i]:.2f}", f"{mean[i]:.4f}") for i in self.order]

    def pair_rows(self) -> list[tuple[str, str, str, str, str, str]]:
        """Pair, wins/ties/losses of the first, p, p after Holm, difference with interval, and what that says."""
        rows: list[tuple[str, str, str, str, str, str]] = []
        for test, difference in zip(self.pairs, self.differences, strict=True):
            first, second = self.blocks.models[test.first], self.blocks.models[test.second]
            said = "no clear difference"
            if test.corrected < self.level:
                said = f"{first if (test.wins > test.losses) else second} is better"
            rows.append((
                f"{first} against {second}", f"{test.wins}/{test.ties}/{test.losses}", f"{test.p_value:.4f}",
                f"{test.corrected:.4f}",
                f"{difference.mean:+.1f} % [{difference.low:+.1f}, {difference.high:+.1f}]", said,
            ))  # fmt: skip
        return rows

    def summary(self) -> list[str]:
        """What the whole comparison says, in sentences."""
        n, k = len(self.blocks.names), len(self.blocks.models)
        said = [f"{k} configurations on {n} blocks ({', '.join(self.blocks.names)}), {self.measure}, "
                f"{'higher' if self.higher_is_better else 'lower'} is better, {self.protocol} protocol."]  # fmt: skip
        if self.friedman is not None:
            said.append(
                f"Friedman: chi-square {self.friedman.chi_square:.3f}, p {self.friedman.p_value:.4f}; Iman-Davenport "
                f"F {self.friedman.f_statistic:.3f}, p {self.friedman.f_p_value:.4f}."
            )
        said.append(f"Nemenyi: average ranks {self.critical_difference:.2f} apart differ at the level {self.level:g}.")
        if (least := 2.0 ** (1 - n)) > self.level:
            said.append(
                f"With {n} blocks Wilcoxon's test cannot give a p-value below {least:.3f}: no pair can differ at "
                f"{self.level:g}, however large the difference. The intervals say more; add data sets."
            )
        return [*said, *self.blocks.notes]


def compare(
    results: Results,
    *,
    measure: str | None = None,
    over: Over = "data",
    protocol: str | None = None,
    models: Sequence[str] | None = None,
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
        level: of the tests.
        n_draws: of the bootstrap.
    """
    blocks, measure, protocol = blocks_of(results, measure=measure, over=over, protocol=protocol, models=models)
    upward = higher_is_better(results.spec.task, measure)
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
) -> tuple[Blocks, str, str]:
    """The scores that are compared, with the measure and the protocol they are of.

    Raises:
        DataError: fewer than two configurations share a complete block.
    """
    measure = check_measure(results, measure)
    if over not in get_args(Over):
        raise unknown_name("kind of block", over, get_args(Over))
    known = [one.name for one in results.spec.all_models]
    for name in models or ():
        if name not in known:
            raise unknown_name("configuration", name, known)
    protocol = protocol or results.spec.protocols[0]
    if protocol not in results.spec.protocols:
        raise unknown_name("protocol of this benchmark", protocol, results.spec.protocols)
    values, told = chosen(results, measure)
    outside = {one.name for one in results.spec.data if not one.in_mean}
    values = {cell: value for cell, value in values.items()
              if cell.protocol == protocol and cell.train_share == 1 and cell.data not in outside}  # fmt: skip
    wanted = [name for name in models or known if any(cell.model == name for cell in values)]
    by_block: dict[str, dict[str, list[Cell]]] = {}
    for cell in values:
        name = cell.data if over == "data" or cell.horizon is None else f"{cell.data} {cell.horizon}"
        by_block.setdefault(name, {}).setdefault(cell.model, []).append(cell)
    seeds: dict[tuple[str, str], tuple[float, ...]] = {}
    names: list[str] = []
    left_out: list[str] = []
    for name, by_model in by_block.items():
        units = {_unit(cell) for cells in by_model.values() for cell in cells}
        if any({_unit(cell) for cell in by_model.get(model, [])} != units for model in wanted):
            left_out.append(name)
            continue
        names.append(name)
        for model in wanted:
            seeds[name, model] = _by_seed(by_model[model], values)
    notes = [told] if told else []
    if outside:
        notes.append(f"Not compared on {', '.join(sorted(outside))}, as the specification says (in_mean: false).")
    if left_out:
        notes.append(f"Left out, because a configuration lacks a result there: {', '.join(left_out)}.")
    if over == "data,horizon":
        notes.append(
            "Blocks are horizons of the same data sets, no independent draws: the tests look surer than they are."
        )
    if len(wanted) < 2 or not names:
        raise DataError(
            f"A comparison needs two configurations with results on a common data set, but {results.folder} has "
            f"{', '.join(wanted) or 'none'}" + (f"; incomplete: {', '.join(left_out)}" if left_out else "")
            + ". Run what is missing, or name the configurations to compare (--models)."
        )  # fmt: skip
    return Blocks(tuple(wanted), tuple(names), seeds, tuple(notes)), measure, protocol


def _unit(cell: Cell) -> tuple[object, ...]:
    return cell.data, cell.horizon, cell.resample


def _by_seed(cells: Sequence[Cell], values: Mapping[Cell, float]) -> tuple[float, ...]:
    """One score per seed that every unit has; where none is common to all, the mean of the units' means.

    Resamples of cases are draws like seeds, each by its mean over seeds.
    """
    by_unit: dict[tuple[object, ...], dict[int, float]] = {}
    for cell in cells:
        by_unit.setdefault(_unit(cell), {})[cell.seed] = values[cell]
    if len({unit[2] for unit in by_unit}) > 1:
        return tuple(float(np.mean(list(seeds.values()))) for seeds in by_unit.values())
    common = sorted(set.intersection(*(set(seeds) for seeds in by_unit.values())))
    if not common:
        return (float(np.mean([np.mean(list(seeds.values())) for seeds in by_unit.values()])),)
    return tuple(float(np.mean([seeds[seed] for seeds in by_unit.values()])) for seed in common)
