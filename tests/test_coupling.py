"""Coupling of two paths: planted lags, planted peaks, and distance correlation beside a plain double loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from prismts.analysis import coupling
from prismts.analysis.coupling import (
    distance_correlation,
    lead,
    lead_gain,
    peak_response,
    rank_correlation,
    response_at_peaks,
    spearman_rise,
    step_changes,
    time_of_day_circle,
    time_of_day_dependence,
)
from prismts.errors import DataError, SettingsError, ShapeError


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def by_a_double_loop(x, y):
    """The definition: distances, centered twice, entry by entry."""

    def centered(points):
        n = len(points)
        far = [[float(np.sqrt(np.sum((points[i] - points[j]) ** 2))) for j in range(n)] for i in range(n)]
        row = [sum(far[i]) / n for i in range(n)]
        return [[far[i][j] - row[i] - row[j] + sum(row) / n for j in range(n)] for i in range(n)]

    def covariance(a, b):
        n = len(a)
        return sum(a[i][j] * b[i][j] for i in range(n) for j in range(n)) / n**2

    a, b = centered(x), centered(y)
    return np.sqrt(covariance(a, b) / np.sqrt(covariance(a, a) * covariance(b, b)))


# ---- distance correlation


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 12), st.integers(1, 3), st.integers(1, 3))
def test_distance_correlation_is_that_of_a_plain_double_loop(seed, n, d_x, d_y):
    x, y = noise(n, d_x, seed=seed), noise(n, d_y, seed=seed + 1)
    assert distance_correlation(x, y) == pytest.approx(by_a_double_loop(x, y))


def test_two_points_always_depend_on_each_other_fully():
    assert distance_correlation([0.0, 1.0], [5.0, 3.0]) == pytest.approx(1)


def test_three_points_by_hand():
    # distances of (0, 1, 2) and of (1, 0, 1), centered twice: dCov^2 = 8/81, dVar^2 = 40/81 and 16/81
    assert distance_correlation([0.0, 1, 2], [1.0, 0, 1]) ** 2 == pytest.approx(8 / np.sqrt(40 * 16))


def test_a_parabola_is_seen_where_pearson_sees_nothing():
    x = np.linspace(-1, 1, 201)
    assert abs(np.corrcoef(x, x**2)[0, 1]) < 1e-12
    assert distance_correlation(x, x**2) > 0.45


def test_shifting_rotating_and_scaling_one_side_changes_nothing():
    x, y = noise(40, 2), noise(40, 3, seed=1)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    assert distance_correlation(1e6 + 250 * x @ turn, y) == pytest.approx(distance_correlation(x, y))


def test_blocks_of_rows_give_the_number_of_the_whole(monkeypatch):
    x, y = noise(50, 2), noise(50, seed=1)
    whole = distance_correlation(x, y)
    monkeypatch.setattr(coupling, "BLOCK_BYTES", 50 * 8 * 7)  # seven rows at a time, the last block of one
    assert distance_correlation(x, y) == pytest.approx(whole, rel=1e-12)


def test_a_side_that_never_changes_depends_on_nothing():
    assert distance_correlation(np.full(10, 3.3), noise(10)) == 0


def test_independent_data_come_near_zero_as_they_grow():
    small, large = (distance_correlation(noise(n), noise(n, seed=1)) for n in (50, 2000))
    assert large < 0.06 < small


@pytest.mark.parametrize(
    ("x", "y", "error", "words"),
    [
        (np.zeros(3), np.zeros(4), ShapeError, "x has 3 rows and y 4"),
        (np.zeros((3, 2, 2)), np.zeros(3), ShapeError, r"must be \[n\] or \[n, d\], but has shape \[3, 2, 2\]"),
        (np.array([1.0, np.nan]), np.zeros(2), DataError, "x holds NaN"),
        (np.zeros(1), np.zeros(1), DataError, "at least two observations"),
    ],
)
def test_what_has_no_distance_correlation_is_refused(x, y, error, words):
    with pytest.raises(error, match=words):
        distance_correlation(x, y)


# ---- time of day


def test_the_day_is_a_circle_that_starts_at_midnight():
    times = np.array(["2024-01-01T00:00", "2024-01-01T06:00", "2024-05-03T12:00", "1969-12-31T18:00"], "datetime64")
    np.testing.assert_allclose(time_of_day_circle(times), [[1, 0], [0, 1], [-1, 0], [0, -1]], atol=1e-12)


def test_kernels_that_follow_the_clock_depend_on_it_and_random_ones_do_not():
    times = np.datetime64("2024-01-01T00", "h") + np.arange(24 * 20)
    circle = time_of_day_circle(times)
    kernels = np.einsum("nc,cdk->ndk", circle, noise(2, 4, 3))  # [n, D, k]
    assert time_of_day_dependence(kernels, times) > 0.9
    assert time_of_day_dependence(noise(480, 12), times) < 0.2


# ---- changes


def test_a_step_of_three_and_four_is_a_change_of_five():
    outputs = np.zeros((1, 2, 3))  # [n, D, N]
    outputs[0, :, 1:] = [[3], [4]]
    assert step_changes(outputs).tolist() == [[5, 0]]


def test_outputs_of_another_shape_are_refused():
    with pytest.raises(ShapeError, match=r"\[window, width, token\] with at least two tokens, but got \[3, 4\]"):
        step_changes(np.zeros((3, 4)))


def test_the_rank_correlation_is_the_mean_of_scipys_over_windows():
    cnn, gru = noise(5, 19), noise(5, 19, seed=1)
    gru[:, ::3] = 0.5  # ties
    one_by_one = [spearmanr(a, b).statistic for a, b in zip(cnn, gru, strict=True)]
    assert rank_correlation(cnn, gru) == pytest.approx(np.mean(one_by_one))


def test_restless_windows_alone_do_not_make_the_paths_agree():
    restless = 10.0 ** np.arange(6)[:, None]
    cnn, gru = np.abs(noise(6, 200)), np.abs(noise(6, 200, seed=1))
    assert rank_correlation(restless * cnn, restless * gru) == pytest.approx(rank_correlation(cnn, gru))


def test_windows_in_which_a_path_moves_evenly_do_not_count():
    cnn, gru = noise(2, 10), noise(2, 10, seed=1)
    cnn[1] = 0.1
    assert rank_correlation(cnn, gru) == pytest.approx(spearmanr(cnn[0], gru[0]).statistic)
    assert np.isnan(rank_correlation(cnn[1], gru[1]))


def test_a_planted_agreement_rises_from_its_opposite_by_two():
    cnn = np.abs(noise(3, 19))
    assert spearman_rise(cnn, cnn**3, cnn, -cnn) == pytest.approx(2)


def test_a_planted_response_at_the_peaks_comes_back_in_percent():
    cnn = np.tile(np.arange(10.0), (2, 1))
    quiet = np.ones((2, 10))
    moved = quiet.copy()
    moved[:, 9] = 1.3  # where the CNN path moves most
    assert peak_response(cnn, moved, cnn, quiet) == pytest.approx(30)
    assert peak_response(cnn, moved, cnn, quiet, share=0.2) == pytest.approx(15)


def test_each_model_has_peaks_of_its_own():
    cnn, cnn_none = np.array([[0.0, 0, 9, 0]]), np.array([[9.0, 0, 0, 0]])
    gru, gru_none = np.array([[1.0, 1, 4, 1]]), np.array([[2.0, 7, 7, 7]])
    assert peak_response(cnn, gru, cnn_none, gru_none, share=0.25) == pytest.approx(100)


def test_a_larger_scale_is_a_response_only_if_it_is_not_taken_away():
    cnn, gru = np.abs(noise(4, 20)), np.abs(noise(4, 20, seed=1))
    assert peak_response(cnn, 3 * gru, cnn, gru) == pytest.approx(200)
    assert peak_response(cnn, 3 * gru, cnn, gru, relative=True) == pytest.approx(0)


@pytest.mark.parametrize("by", [-4, -1, 0, 2])
def test_a_planted_lead_is_found_with_its_sign(by):
    longer = noise(8, 60)
    cnn = longer[:, 10:50]
    gru = 5 + 3 * longer[:, 10 + by : 50 + by]  # sooner by so many steps
    assert lead(cnn, gru) == by


def test_windows_that_lead_by_different_steps_average():
    longer = noise(2, 60)
    gru = np.stack([longer[0, 11:51], longer[1, 12:52]])
    assert lead(longer[:, 10:50], gru) == 1.5


def test_sooner_than_without_exchange_is_a_gain():
    longer = noise(5, 60)
    cnn, late, later = longer[:, 10:50], longer[:, 9:49], longer[:, 7:47]
    assert lead_gain(cnn, late, cnn, later) == 2


def test_the_lead_is_that_of_a_plain_loop_over_lags():
    cnn, gru = noise(6, 19), noise(6, 19, seed=1)
    leads = []
    for a, b in zip(cnn - cnn.mean(1, keepdims=True), gru - gru.mean(1, keepdims=True), strict=True):
        behind = {lag: sum(a[t] * b[t + lag] for t in range(19) if 0 <= t + lag < 19) for lag in range(-5, 6)}
        leads.append(-max(behind, key=behind.__getitem__))
    assert lead(cnn, gru, max_lag=5) == pytest.approx(np.mean(leads))


def test_changes_of_different_shapes_are_refused():
    with pytest.raises(ShapeError, match=r"but got \[2, 5\] and \[2, 6\]"):
        lead(np.zeros((2, 5)), np.zeros((2, 6)))


def test_settings_that_cannot_work_are_refused():
    cnn = np.ones((1, 5))
    with pytest.raises(SettingsError, match="max_lag must be from 1 to 4 for series of 5 steps, but is 5"):
        lead(cnn, cnn, max_lag=5)
    with pytest.raises(SettingsError, match="above 0 and at most 1, but got 0"):
        peak_response(cnn, cnn, cnn, cnn, share=0)
    with pytest.raises(DataError, match="nothing to compare with"):
        peak_response(cnn, cnn, cnn, 0 * cnn)


def test_the_response_at_peaks_of_two_models_gives_the_peak_response():
    rng = np.random.default_rng(0)
    cnn, gru, cnn_none, gru_none = rng.exponential(size=(4, 5, 20))
    ratio = response_at_peaks(cnn, gru) / response_at_peaks(cnn_none, gru_none)
    assert peak_response(cnn, gru, cnn_none, gru_none) == pytest.approx(100 * (ratio - 1))
    assert response_at_peaks([[1.0, 5, 2]], [[7.0, 3, 9]]) == 3  # the GRU path's change at the CNN path's largest
