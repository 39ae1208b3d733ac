"""The regression of errors on the two directions of exchange: numbers by hand, and numpy's least squares."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prismts.analysis.interaction import gains, interaction, seed_win_rate
from prismts.errors import DataError, SettingsError, ShapeError

# means 10, 9, 8, 5: b1 = -1, b2 = -2, and 5 - 9 - 8 + 10 = -2 beyond their sum
PLANTED = {"none": [9.0, 11.0], "cnn_to_gru": [8.0, 10.0], "gru_to_cnn": [7.0, 9.0], "both": [4.0, 6.0]}


def test_a_planted_interaction_comes_back_by_hand():
    found = interaction(PLANTED)
    assert [found.b0.value, found.b1.value, found.b2.value, found.b12.value] == pytest.approx([10, -1, -2, -2])
    assert (found.n_runs, found.degrees_of_freedom) == (8, 4)


def test_the_intervals_by_hand():
    found = interaction(PLANTED)
    # residuals are all 1 or -1: variance 8/4 = 2; b12 sums four means of two runs each: 2 * (4/2) = 4; t(4) = 2.7764
    assert found.b12.high - found.b12.value == pytest.approx(2.776445 * 2, abs=1e-5)
    assert found.b0.value - found.b0.low == pytest.approx(2.776445 * 1, abs=1e-5)
    assert not found.b12.excludes_zero
    assert found.b0.excludes_zero


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 6), min_size=4, max_size=4).filter(lambda n: sum(n) > 4))
def test_the_closed_form_is_least_squares_on_the_design(seed, n):
    rng = np.random.default_rng(seed)
    switches = {"none": (0, 0), "cnn_to_gru": (1, 0), "gru_to_cnn": (0, 1), "both": (1, 1)}
    errors = {mode: rng.uniform(0.5, 1, size) for mode, size in zip(switches, n, strict=True)}
    design = np.array(
        [[1, a, b, a * b] for (a, b), size in zip(switches.values(), n, strict=True) for _ in range(size)]
    )
    y = np.concatenate(list(errors.values()))
    beta = np.linalg.lstsq(design, y, rcond=None)[0]
    variance = ((y - design @ beta) ** 2).sum() / (len(y) - 4)
    error = np.sqrt(variance * np.diag(np.linalg.inv(design.T @ design)))
    found = interaction(errors)
    mine = [found.b0, found.b1, found.b2, found.b12]
    np.testing.assert_allclose([one.value for one in mine], beta, atol=1e-9)
    widths = np.array([(one.high - one.low) / 2 for one in mine])
    np.testing.assert_allclose(widths / widths[0], error / error[0], rtol=1e-6)
    np.testing.assert_allclose(widths[0], error[0] * quantile(len(y) - 4), rtol=1e-3)


def quantile(degrees_of_freedom):
    """Student's t at 0.975, from a table."""
    table = (
        12.706, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788, 2.1604, 2.1448,
        2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
    )  # fmt: skip
    return table[degrees_of_freedom - 1]


def test_intervals_cover_the_truth_as_often_as_they_claim():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        runs = {mode: np.array(level) + rng.normal(0, 0.3, 3) for mode, level in
                (("none", 10), ("cnn_to_gru", 9), ("gru_to_cnn", 8), ("both", 5))}  # fmt: skip
        b12 = interaction(runs, confidence=0.8).b12
        covered += b12.low < -2 < b12.high
    assert covered / 400 == pytest.approx(0.8, abs=0.05)


def test_gains_are_percent_of_the_error_without_exchange_seed_by_seed():
    found = gains({"both": [0.9, 1.5], "none": [1.0, 2.0], "gru_to_cnn": [1.1, 2.0]})
    assert list(found) == ["both", "gru_to_cnn"]
    np.testing.assert_allclose(found["both"], [10, 25])
    np.testing.assert_allclose(found["gru_to_cnn"], [-10, 0])


def test_the_win_rate_counts_seeds_in_which_both_beats_each_half():
    errors = {"cnn_to_gru": [3.0, 3, 3, 1], "gru_to_cnn": [2.0, 2, 1, 3], "both": [1.0, 2, 2, 2]}
    assert seed_win_rate(errors) == 0.25  # won, tied, lost to one half, lost to the other


def test_one_seed_each_has_no_interval():
    with pytest.raises(DataError, match="every mode has one run only"):
        interaction({mode: errors[:1] for mode, errors in PLANTED.items()})


def test_a_missing_mode_is_named():
    with pytest.raises(SettingsError, match="errors of mode 'both' are missing; got none, cnn_to_gru, gru_to_cnn"):
        interaction({mode: errors for mode, errors in PLANTED.items() if mode != "both"})


def test_an_unknown_mode_offers_its_neighbor():
    with pytest.raises(SettingsError, match=r"no mode of exchange named 'gru_to_cn'\. Did you mean 'gru_to_cnn'"):
        gains({"none": [1.0], "gru_to_cn": [1.0]})


def test_unequal_numbers_of_seeds_are_not_compared_seed_by_seed():
    with pytest.raises(ShapeError, match="'none' has 3 and 'both' 2"):
        gains({"none": [1.0, 1, 1], "both": [1.0, 1]})


def test_a_failed_run_is_not_averaged_away():
    with pytest.raises(DataError, match="'both' has an error that is not a finite number"):
        seed_win_rate(PLANTED | {"both": [np.nan, 1.0]})
