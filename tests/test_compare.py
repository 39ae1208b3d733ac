"""Statistics over many data sets: each with a second answer, from scipy or by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from prismts.benchmark.compare import Blocks
from prismts.errors import DataError, SettingsError, ShapeError
from prismts.evaluation.compare import (
    average_ranks,
    bootstrap_difference,
    critical_difference,
    friedman,
    holm,
    indistinguishable,
    pairwise_tests,
    ranks,
    wilcoxon,
    wins_ties_losses,
)
from prismts.report.compare import critical_difference_figure

# Demsar 2006, Table 2: accuracy of C4.5 and C4.5 with cross-validated m, on 14 data sets
DEMSAR_A = [0.763, 0.599, 0.954, 0.628, 0.882, 0.936, 0.661, 0.583, 0.775, 1.000, 0.940, 0.619, 0.972, 0.957]
DEMSAR_B = [0.768, 0.591, 0.971, 0.661, 0.888, 0.931, 0.668, 0.583, 0.838, 1.000, 0.962, 0.666, 0.981, 0.978]


def tables(most_blocks=8, most_models=5):
    """Small tables of scores with ties."""
    return st.tuples(st.integers(2, most_blocks), st.integers(2, most_models)).flatmap(
        lambda shape: st.lists(
            st.lists(st.integers(0, 4).map(float), min_size=shape[1], max_size=shape[1]),
            min_size=shape[0], max_size=shape[0],
        )
    )  # fmt: skip


# ---- ranks


def test_the_best_has_rank_one_and_equal_scores_share_the_mean_of_their_ranks():
    assert ranks([[0.3, 0.1, 0.2]]).tolist() == [[3, 1, 2]]
    assert ranks([[0.3, 0.1, 0.2]], higher_is_better=True).tolist() == [[1, 3, 2]]
    assert ranks([[1, 1, 2]]).tolist() == [[1.5, 1.5, 3]]
    assert average_ranks([[1, 2], [2, 1], [1, 2]]).tolist() == pytest.approx([4 / 3, 5 / 3])


@given(tables())
def test_ranks_of_a_block_always_sum_to_the_same(table):
    k = len(table[0])
    assert ranks(table).sum(axis=1) == pytest.approx(np.full(len(table), k * (k + 1) / 2))


# ---- Friedman


def test_friedman_by_hand():
    """Three models, four blocks, always in the same order: R = (1, 2, 3), chi2 = 12*4/12 * (14 - 12) = 8."""
    found = friedman([[1, 2, 3], [2, 4, 6], [0, 1, 5], [1, 3, 4]])
    assert found.chi_square == pytest.approx(8)
    assert found.p_value == pytest.approx(np.exp(-4))  # of chi-square with 2 degrees of freedom: exp(-x/2)
    assert found.f_statistic == np.inf
    assert found.f_p_value == 0


def test_iman_and_davenport_by_hand():
    """Ranks (1,2,3), (1,2,3), (2,1,3), (1,3,2): R = 1.25, 2, 2.75; chi2 = 4 * (13.125 - 12) = 4.5; F = 13.5 / 3.5."""
    found = friedman([[1, 2, 3], [1, 2, 3], [2, 1, 3], [1, 3, 2]])
    assert found.chi_square == pytest.approx(4.5)
    assert found.f_statistic == pytest.approx(13.5 / 3.5)
    assert found.f_p_value == pytest.approx(stats.f.sf(13.5 / 3.5, 2, 6))


@given(tables().filter(lambda table: len(table[0]) > 2 and any(len(set(row)) > 1 for row in table)))
def test_friedman_is_that_of_scipy_with_ties_too(table):
    theirs = stats.friedmanchisquare(*np.array(table).T)
    found = friedman(table)
    assert found.chi_square == pytest.approx(theirs.statistic, abs=1e-9)
    assert found.p_value == pytest.approx(theirs.pvalue, abs=1e-9)


def test_models_that_score_alike_everywhere_do_not_differ():
    assert friedman([[1, 1, 1], [2, 2, 2]]).p_value == 1


# ---- Wilcoxon


def by_all_signs(a, b):
    """The exact two-sided p-value, by going through every pattern of signs."""
    difference = np.array(a) - np.array(b)
    difference = difference[difference != 0]
    rank = stats.rankdata(np.abs(difference))
    seen = abs(rank[difference > 0].sum() - rank.sum() / 2)
    patterns = [sum(r for r, s in zip(rank, signs, strict=True) if s)
                for signs in itertools.product([0, 1], repeat=len(rank))]  # fmt: skip
    return np.mean([abs(total - rank.sum() / 2) >= seen - 1e-9 for total in patterns])


def test_the_smallest_p_value_of_n_pairs_is_two_over_two_to_the_n():
    assert wilcoxon([1, 2, 3, 4, 5], [0, 0, 0, 0, 0]) == pytest.approx(2 / 2**5)


def test_pairs_without_any_difference_have_a_p_value_of_one():
    assert wilcoxon([1, 2], [1, 2]) == 1


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=9))
def test_the_p_value_is_that_of_all_patterns_of_signs(pairs):
    a, b = zip(*pairs, strict=True)
    expected = by_all_signs(a, b) if any(x != y for x, y in pairs) else 1.0
    assert wilcoxon(a, b) == pytest.approx(expected)


def test_many_untied_pairs_have_the_p_value_of_scipy():
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=30), generator.normal(0.3, size=30)
    assert wilcoxon(a, b) == pytest.approx(stats.wilcoxon(a, b).pvalue)


def test_the_example_of_demsar_is_significant_at_his_level():
    """He finds T = 12 below the critical value of 21 at .05; on two sets both score alike."""
    assert wilcoxon(DEMSAR_A, DEMSAR_B) < 0.05
    assert wins_ties_losses(DEMSAR_A, DEMSAR_B, higher_is_better=True) == (2, 2, 10)


# ---- Holm


def test_holm_by_hand():
    """Sorted .01 .02 .04 times 3, 2, 1: .03 .04 .04; the order of the input is kept, nothing exceeds one."""
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.6, 0.5]) == pytest.approx([1, 1])
    assert holm([]).size == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_the_stepwise_rule_rejects(p_values):
    """The rule as it is told: go up from the smallest while p(i) < .05 / (m - i + 1), and stop at the first failure."""
    rejected = set()
    for step, i in enumerate(np.argsort(p_values, kind="stable")):
        if not p_values[i] * (len(p_values) - step) < 0.05:
            break
        rejected.add(int(i))
    assert {i for i, p in enumerate(holm(p_values)) if p < 0.05} == rejected


def test_p_values_outside_zero_to_one_are_refused():
    with pytest.raises(DataError, match="numbers from 0 to 1"):
        holm([0.5, 1.5])


# ---- pairs


def test_wins_ties_and_losses_are_counted():
    assert wins_ties_losses([1, 2, 3], [2, 2, 2]) == (1, 1, 1)
    assert wins_ties_losses([1, 2, 3], [2, 2, 2], higher_is_better=True) == (1, 1, 1)


def test_every_pair_is_tested_once_and_corrected_over_all():
    table = np.array([[1, 2, 3], [1, 3, 2], [1, 2, 4], [2, 3, 5], [1, 4, 6]], dtype=float)
    tests = pairwise_tests(table)
    assert [(one.first, one.second) for one in tests] == [(0, 1), (0, 2), (1, 2)]
    assert [one.corrected for one in tests] == pytest.approx(holm([one.p_value for one in tests]))
    assert (tests[0].wins, tests[0].ties, tests[0].losses) == (5, 0, 0)
    assert tests[0].p_value == pytest.approx(by_all_signs(table[:, 0], table[:, 1]))


# ---- Nemenyi


# Demsar 2006, Table 5a: q at .05 divided by the root of two, for 2 to 10 models
DEMSAR_Q = [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]


@pytest.mark.parametrize(("k", "q"), list(zip(range(2, 11), DEMSAR_Q, strict=True)))
def test_the_critical_difference_has_the_printed_constants(k, q):
    n = 14
    assert critical_difference(k, n) == pytest.approx(q * np.sqrt(k * (k + 1) / (6 * n)), rel=1e-3)


def test_the_critical_difference_of_demsars_example():
    """Four models on 14 sets: CD = 2.569 * sqrt(4 * 5 / (6 * 14)) = 1.25."""
    assert round(critical_difference(4, 14), 2) == 1.25


def test_bars_join_models_within_the_critical_difference_and_none_lies_in_another():
    """Ranks 1, 1.5, 2.4, 4 and a difference of 1: {1, 1.5}, {1.5, 2.4}; the last stands alone."""
    assert indistinguishable([2.4, 1.0, 4.0, 1.5], 1.0) == [(1, 3), (3, 0)]
    assert indistinguishable([1.0, 2.0, 3.0], 5.0) == [(0, 1, 2)]
    assert indistinguishable([1.0, 2.0, 3.0], 0.5) == []


# ---- bootstrap


def test_two_sets_of_one_seed_have_the_interval_of_their_three_possible_means():
    """Differences 1 and 3: draws give 1, 2, 3 with chances 1/4, 1/2, 1/4: 95 % are [1, 3] and 40 % are [2, 2]."""
    found = bootstrap_difference([[2.0], [5.0]], [[1.0], [2.0]])
    assert (found.mean, found.low, found.high) == (2.0, 1.0, 3.0)
    inner = bootstrap_difference([[2.0], [5.0]], [[1.0], [2.0]], level=0.4)
    assert (inner.low, inner.high) == (2.0, 2.0)


def test_seeds_widen_the_interval_of_a_single_set():
    """Seeds 0 and 2 against 0: means of two draws are 0, 1, 2 with chances 1/4, 1/2, 1/4."""
    found = bootstrap_difference([[0.0, 2.0]], [[0.0]])
    assert (found.mean, found.low, found.high) == (1.0, 0.0, 2.0)


def test_percent_are_of_the_second_model_on_each_set():
    found = bootstrap_difference([[1.1], [2.0]], [[1.0], [4.0]], relative=True)
    assert found.mean == pytest.approx((10 - 50) / 2)


def test_a_set_on_which_the_second_scores_zero_has_no_percent_and_is_counted_apart():
    """Of 0 nothing is a percentage: 1.1 against 1 is +10 %, and the two sets with a zero among the seeds count not."""
    found = bootstrap_difference([[1.1], [0.0], [3.0]], [[1.0], [0.0], [0.0, 2.0]], relative=True)
    assert (found.mean, found.n_left_out) == (pytest.approx(10), 2)
    assert (found.low, found.high) == (pytest.approx(10), pytest.approx(10))
    nothing = bootstrap_difference([[0.0], [1.0]], [[0.0], [0.0]], relative=True)
    assert np.isnan(nothing.mean) and nothing.n_left_out == 2
    assert bootstrap_difference([[1.0]], [[0.0]]).mean == 1  # a plain difference needs no percent


def test_without_spread_over_seeds_the_interval_is_that_of_scipys_bootstrap():
    difference = np.random.default_rng(1).normal(0.2, 1, size=20)
    found = bootstrap_difference([[d] for d in difference], [[0.0]] * 20, n_draws=20_000)
    theirs = stats.bootstrap((difference,), np.mean, method="percentile", n_resamples=20_000, rng=0).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.03)


def test_the_variance_of_the_two_stage_bootstrap_is_that_of_its_formula():
    """Of a draw's mean: (variance between sets + mean of seed variances / seeds) / sets."""
    generator = np.random.default_rng(2)
    scores = generator.normal(size=(6, 3))
    between = scores.mean(axis=1).var() + (scores.var(axis=1) / 3).mean()
    width = {}
    for level in (0.6827, 0.9545):
        found = bootstrap_difference(list(scores), [[0.0]] * 6, level=level, n_draws=40_000)
        width[level] = (found.high - found.low) / 2
    assert width[0.6827] == pytest.approx(np.sqrt(between / 6), rel=0.05)
    assert width[0.9545] == pytest.approx(2 * np.sqrt(between / 6), rel=0.08)


def test_equal_seeds_give_equal_intervals():
    a, b = [[1.0, 2.0], [3.0]], [[1.5], [2.0, 2.5]]
    assert bootstrap_difference(a, b) == bootstrap_difference(a, b)


# ---- errors


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: ranks([1, 2]), ShapeError, r"table \[block, model\]"),
        (lambda: friedman([[1, float("nan")], [1, 2]]), DataError, "model 1 has nan in block 0"),
        (lambda: friedman([[1, 2]]), ShapeError, "at least 2 blocks"),
        (lambda: wilcoxon([1, 2], [1]), ShapeError, "one length"),
        (lambda: wilcoxon([1, np.inf], [1, 2]), DataError, "finite"),
        (lambda: critical_difference(1, 3), ShapeError, "2 models at least"),
        (lambda: critical_difference(3, 3, level=5), SettingsError, "level is a share"),
        (lambda: bootstrap_difference([[1.0]], []), ShapeError, "1 and 0 sets"),
        (lambda: bootstrap_difference([[]], [[1.0]]), DataError, "one per seed"),
    ],
)
def test_what_cannot_be_compared_is_told(call, error, words):
    with pytest.raises(error, match=words):
        call()


# ---- the diagram


def test_the_diagram_places_every_model_at_its_rank_and_draws_a_bar_per_group():
    figure = critical_difference_figure(["a", "b", "c"], [1.2, 1.6, 3.0], 0.9, n_blocks=12)
    places = {trace.name: trace.x[0] for trace in figure.data if trace.name in ("a", "b", "c")}
    assert places == {"a": 1.2, "b": 1.6, "c": 3.0}
    bars = [trace for trace in figure.data if trace.name == "no clear difference"]
    assert len(bars) == 1 and bars[0].x[0] < 1.2 < 1.6 < bars[0].x[1] < 3.0
    assert "12 blocks" in figure.layout.meta["note"]
    assert any("critical difference 0.90" in one.text for one in figure.layout.annotations)


def test_names_in_the_diagram_are_harmless():
    figure = critical_difference_figure(["<b>x</b>", "y"], [1, 2], None, n_blocks=3)
    assert all("<b>" not in (one.text or "") for one in figure.layout.annotations)


def test_a_diagram_needs_a_rank_for_every_name():
    with pytest.raises(ShapeError, match="2 names need as many average ranks"):
        critical_difference_figure(["a", "b"], [1.0], 0.5, n_blocks=3)


def test_who_is_ahead_is_said_by_the_ranks_that_were_tested_and_not_by_the_number_of_wins():
    small, large = [-0.01 * (i + 1) for i in range(14)], [1.0 + 0.1 * i for i in range(16)]
    table = np.array([[2.0 + step, 2.0] for step in [*large, *small]])  # the second: fewer errors where it matters
    (test,) = pairwise_tests(np.concatenate([table, [[1.5, 1.6]] * 4]))
    assert test.balance < 0 and test.wins == 18 and test.losses == 16
    (mirrored,) = pairwise_tests(np.concatenate([table, [[1.5, 1.6]] * 4]), higher_is_better=True)
    assert mirrored.balance == -test.balance > 0


def test_means_of_equal_scores_tie_in_whatever_order_their_seeds_come():
    scores = (0.1, 0.2, 0.3)
    blocks = Blocks(("a", "b"), ("one",), {("one", "a"): scores, ("one", "b"): scores[::-1]})
    assert average_ranks(blocks.table).tolist() == [1.5, 1.5]
