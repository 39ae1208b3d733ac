"""Which of several models is better, on many data sets: ranks, paired tests, corrections and intervals.

Scores come as a table [N, k] of N blocks (data sets, say) and k models, complete, lower being better unless
``higher_is_better``. Blocks should be independent draws: horizons of one data set are not.

Sources: Demsar, "Statistical comparisons of classifiers over multiple data sets", JMLR 2006; Holm, Scandinavian Journal
of Statistics 1979; Benavoli et al., JMLR 2016, on why pairwise tests should not depend on the other models compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prismts.errors import DataError, SettingsError, ShapeError

__all__ = [
    "Difference", "Friedman", "PairTest", "average_ranks", "bootstrap_difference", "critical_difference", "friedman",
    "holm", "indistinguishable", "pairwise_tests", "ranks", "wilcoxon", "wins_ties_losses",
]  # fmt: skip

Floats = NDArray[np.float64]


def ranks(scores: ArrayLike, *, higher_is_better: bool = False) -> Floats:
    """Rank of each model in each block, [N, k]: 1 is best, equal scores share the mean of their ranks."""
    from scipy.stats import rankdata

    table = _read(scores)
    return np.asarray(rankdata(-table if higher_is_better else table, axis=1), dtype=float)


def average_ranks(scores: ArrayLike, *, higher_is_better: bool = False) -> Floats:
    """Mean rank of each model over the blocks, [k]."""
    return ranks(scores, higher_is_better=higher_is_better).mean(axis=0)


@dataclass(frozen=True)
class Friedman:
    """Whether the models differ at all; both statistics ask the same, the second is less timid (Iman, Davenport)."""

    chi_square: float  # with k - 1 degrees of freedom
    p_value: float
    f_statistic: float  # with k - 1 and (k - 1)(N - 1) degrees of freedom; infinite where every block agrees
    f_p_value: float


def friedman(scores: ArrayLike) -> Friedman:
    """Friedman's test, corrected for ties, and the F statistic of Iman and Davenport.

        chi2 = 12 N / (k (k + 1)) * (sum_j R_j^2 - k (k + 1)^2 / 4) / (1 - sum_ties (t^3 - t) / (N k (k^2 - 1)))
        F    = (N - 1) chi2 / (N (k - 1) - chi2)

    with R_j the mean rank of model j, and t the size of each group of equal scores within a block.
    """
    from scipy.stats import chi2, f

    table = _read(scores)
    n, k = table.shape
    if n < 2 or k < 2:
        raise ShapeError(f"Friedman's test needs at least 2 blocks of at least 2 models, but got {n} of {k}.")
    mean = average_ranks(table)
    groups = np.concatenate([np.unique(row, return_counts=True)[1] for row in table]).astype(float)
    untied = 1 - float((groups**3 - groups).sum()) / (n * k * (k**2 - 1))
    if untied == 0:  # every model scores alike in every block
        return Friedman(0.0, 1.0, 0.0, 1.0)
    statistic = 12 * n / (k * (k + 1)) * (float((mean**2).sum()) - k * (k + 1) ** 2 / 4) / untied
    rest = n * (k - 1) - statistic
    ratio = float("inf") if rest <= 1e-9 * n * k else (n - 1) * statistic / rest
    return Friedman(
        float(statistic), float(chi2.sf(statistic, k - 1)), ratio, float(f.sf(ratio, k - 1, (k - 1) * (n - 1)))
    )


def wilcoxon(first: ArrayLike, second: ArrayLike) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test of paired scores [N]; 1 where all pairs are equal.

    Differences of zero are left out, as Wilcoxon did. The distribution is exact up to 50 pairs, and where absolute
    differences are tied, by counting all signs, up to 16; beyond that it is scipy's normal approximation.
    """
    from scipy import stats

    a, b = _pair(first, second)
    difference = a - b
    difference = difference[difference != 0]
    if not difference.size:
        return 1.0
    tied = len(np.unique(np.abs(difference))) < len(difference)
    if tied and len(difference) <= _EXACT_TIES:
        return _exact_signed_rank(difference)
    method = "approx" if tied or len(difference) > 50 else "exact"
    return float(stats.wilcoxon(difference, method=method).pvalue)  # type: ignore[attr-defined]


_EXACT_TIES = 16  # differences of which all 65,536 signs are counted; scipy's exact form knows no ties


def _exact_signed_rank(difference: Floats) -> float:
    """The share of all sign patterns whose rank sum lies as far from its mean as the one seen."""
    from scipy.stats import rankdata

    rank = np.asarray(rankdata(np.abs(difference)), dtype=float)
    signs = (np.arange(2 ** len(rank))[:, None] >> np.arange(len(rank))) & 1
    sums = signs @ rank
    middle = rank.sum() / 2
    seen = abs(float(rank[difference > 0].sum()) - middle)
    return float(np.mean(np.abs(sums - middle) >= seen - 1e-9))


def holm(p_values: ArrayLike) -> Floats:
    """P-values corrected for how many they are, [m]: the i-th smallest becomes (m - i + 1) times itself.

    Running maximum from the smallest on, and at most 1; holds the chance of any false alarm below the level, whatever
    the dependence between the tests.
    """
    p = np.atleast_1d(np.asarray(p_values, dtype=float))
    if p.ndim != 1 or not np.all((p >= 0) & (p <= 1)):
        raise DataError(f"P-values are numbers from 0 to 1 in one row, but got {p.tolist()}.")
    order = np.argsort(p, kind="stable")
    corrected = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    found = np.empty_like(p)
    found[order] = np.minimum(corrected, 1)
    return found


def wins_ties_losses(first: ArrayLike, second: ArrayLike, *, higher_is_better: bool = False) -> tuple[int, int, int]:
    """In how many blocks the first is better, equal, and worse."""
    a, b = _pair(first, second)
    ahead = a - b if higher_is_better else b - a
    wins, losses = int((ahead > 0).sum()), int((ahead < 0).sum())
    return wins, len(a) - wins - losses, losses


@dataclass(frozen=True)
class PairTest:
    """Two models over all blocks, by their places in the table."""

    first: int
    second: int
    p_value: float  # of Wilcoxon's test
    balance: float  # its sum of signed ranks: above 0 where the first is ahead, whoever wins more often
    corrected: float  # after Holm, over all pairs
    wins: int  # blocks in which the first is better
    ties: int
    losses: int


def pairwise_tests(scores: ArrayLike, *, higher_is_better: bool = False) -> list[PairTest]:
    """Wilcoxon's test of every pair of models, corrected by Holm, with wins, ties and losses."""
    table = _read(scores)
    pairs = list(itertools.combinations(range(table.shape[1]), 2))
    p = [wilcoxon(table[:, i], table[:, j]) for i, j in pairs]
    corrected = holm(p) if p else np.zeros(0)
    return [
        PairTest(
            i,
            j,
            p[number],
            _balance(table[:, i] - table[:, j], higher_is_better=higher_is_better),
            float(corrected[number]),
            *wins_ties_losses(table[:, i], table[:, j], higher_is_better=higher_is_better),
        )
        for number, (i, j) in enumerate(pairs)
    ]


def _balance(difference: Floats, *, higher_is_better: bool) -> float:
    """The sum of the ranks of absolute differences [N], each with the sign of who is ahead; zeros are left out."""
    from scipy.stats import rankdata

    some = difference[difference != 0] * (1 if higher_is_better else -1)
    return float((np.sign(some) * rankdata(np.abs(some))).sum())


def critical_difference(n_models: int, n_blocks: int, *, level: float = 0.05) -> float:
    """How far two average ranks must lie apart to differ by Nemenyi's test.

        CD = q / sqrt(2) * sqrt(k (k + 1) / (6 N))

    with q the upper ``level`` point of the studentized range of k values with infinite degrees of freedom.
    """
    from scipy.stats import studentized_range

    if n_models < 2 or n_blocks < 1:
        raise ShapeError(f"A critical difference is of 2 models at least, but got {n_models} on {n_blocks} blocks.")
    if not 0 < level < 1:
        raise SettingsError(f"level is a share between 0 and 1, such as 0.05, but got {level}.")
    q = float(studentized_range.ppf(1 - level, n_models, np.inf))
    return q / np.sqrt(2) * float(np.sqrt(n_models * (n_models + 1) / (6 * n_blocks)))


def indistinguishable(average: ArrayLike, difference: float) -> list[tuple[int, ...]]:
    """Groups of models whose average ranks [k] lie within the critical difference: the bars of its diagram.

    As places in ``average``, best first; groups within larger ones, and models alone, are left out.
    """
    values = np.asarray(average, dtype=float)
    order = np.argsort(values, kind="stable")
    groups: list[tuple[int, ...]] = []
    for begin in range(len(order)):
        end = begin
        while end + 1 < len(order) and values[order[end + 1]] - values[order[begin]] <= difference:
            end += 1
        group = tuple(int(i) for i in order[begin : end + 1])
        if len(group) > 1 and not any(set(group) <= set(other) for other in groups):
            groups.append(group)
    return groups


@dataclass(frozen=True)
class Difference:
    """A mean difference and the interval it lies in."""

    mean: float
    low: float
    high: float
    level: float = 0.95
    n_left_out: int = 0  # data sets on which the second model scores 0, so that no percent of it exists


def bootstrap_difference(
    first: Sequence[ArrayLike],
    second: Sequence[ArrayLike],
    *,
    relative: bool = False,
    level: float = 0.95,
    n_draws: int = 10_000,
    seed: int = 0,
) -> Difference:
    """First minus second: the mean over data sets of the mean over seeds, and a percentile interval by resampling.

    ``first[i]`` and ``second[i]`` are the scores of both models by each seed on data set i; the numbers of seeds may
    differ. Each draw takes data sets with replacement, and on each of them seeds of each model with replacement, so the
    interval holds both what another choice of data and what another run would change. ``relative`` gives percent of the
    second model's mean on each set; sets on which that model scores 0 with a seed are left out and counted, and where
    none is left all three numbers are NaN.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993 (percentile interval; two stages).
    """
    if len(first) != len(second) or not len(first):
        raise ShapeError(f"Both models need scores on the same data sets, but got {len(first)} and {len(second)} sets.")
    if not 0 < level < 1 or n_draws < 1:
        raise SettingsError(f"level lies between 0 and 1 and n_draws is at least 1, but got {level} and {n_draws}.")
    pairs = [(_seeds(a), _seeds(b)) for a, b in zip(first, second, strict=True)]
    counted = [(a, b) for a, b in pairs if not relative or b.all()]
    n_left_out = len(pairs) - len(counted)
    if not counted:
        return Difference(np.nan, np.nan, np.nan, level, n_left_out)
    generator = np.random.default_rng(seed)

    def between(a: Floats, b: Floats) -> Floats:
        return 100 * (a - b) / b if relative else a - b

    mean = float(np.mean([between(a.mean(), b.mean()) for a, b in counted]))
    # [draws, sets]: one draw of seeds for every set that a draw may take, then the sets that it takes
    drawn = np.stack([between(_redrawn(a, n_draws, generator), _redrawn(b, n_draws, generator))
                      for a, b in counted], axis=1)  # fmt: skip
    n = len(counted)
    chosen = generator.integers(n, size=(n_draws, n))
    # the same set taken twice in a draw brings other seeds the second time
    rows = generator.permuted(np.broadcast_to(np.arange(n_draws)[:, None], (n_draws, n)), axis=0)
    totals = drawn[rows, chosen].mean(axis=1)
    low, high = np.quantile(totals, [(1 - level) / 2, (1 + level) / 2])
    return Difference(mean, float(low), float(high), level, n_left_out)


def _redrawn(scores: Floats, n_draws: int, generator: np.random.Generator) -> Floats:
    """Means of seeds drawn with replacement, [draws]."""
    return scores[generator.integers(len(scores), size=(n_draws, len(scores)))].mean(axis=1)


def _seeds(scores: ArrayLike) -> Floats:
    values = np.atleast_1d(np.asarray(scores, dtype=float))
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise DataError(
            f"Scores of a model on one data set are finite numbers, one per seed, but got {values.tolist()}."
        )
    return values


def _read(scores: ArrayLike) -> Floats:
    table = np.asarray(scores, dtype=float)
    if table.ndim != 2 or 0 in table.shape:
        raise ShapeError(f"Scores are a table [block, model], but got shape {list(table.shape)}.")
    if not np.isfinite(table).all():
        row, column = np.argwhere(~np.isfinite(table))[0].tolist()
        raise DataError(
            f"Every model needs a finite score in every block, but model {column} has {table[row, column]} in block "
            f"{row}. Leave the block or the model out."
        )
    return table


def _pair(first: ArrayLike, second: ArrayLike) -> tuple[Floats, Floats]:
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.ndim != 1 or a.shape != b.shape or not a.size:
        raise ShapeError(
            f"Paired scores are two rows of one length, but got shapes {list(a.shape)} and {list(b.shape)}."
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise DataError("Paired scores are finite numbers. Leave out the blocks in which one is missing.")
    return a, b
