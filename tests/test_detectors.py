"""Baselines of detection: every step gets a score, planted anomalies rank high, and two answers agree."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA as SklearnPCA
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from prismts.data.catalog import load_dataset
from prismts.data.synthetic import planted_anomalies
from prismts.errors import DataError, NotFittedError, SettingsError, ShapeError
from prismts.models import detect_profile
from prismts.models.detect_pca import Axes
from prismts.models.detect_profile import matrix_profile
from prismts.models.detect_windows import spread, windows_of
from prismts.models.detectors import DETECTORS, make_detector

# measured at seed 0 on three channels: sub_pca .75, pca .58, spectral_residual .58, all others .97 and more. The three
# judge a step by the size of what stands out there, which a value that stands still does not have.
LEAST_AUC = dict.fromkeys(DETECTORS, 0.95) | {"sub_pca": 0.7, "pca": 0.53, "spectral_residual": 0.53}


def planted(n_channels=3, **others):
    series = planted_anomalies(n_channels=n_channels, **others)
    n = series.borders.train_end
    return series.values[:, :n], series.values[:, n:], series.labels[n:]


def every(test):
    return pytest.mark.parametrize("name", DETECTORS)(test)


@every
@pytest.mark.parametrize("n_channels", [1, 3])
def test_planted_anomalies_rank_above_what_is_normal(name, n_channels):
    train, test, labels = planted(n_channels)
    assert roc_auc_score(labels, make_detector(name).fit(train).score(test)) > LEAST_AUC[name]


@every
def test_every_step_gets_a_finite_score_and_nothing_is_changed(name):
    train, test, _ = planted()
    before = train.copy(), test.copy()
    detector = make_detector(name).fit(train)
    scores = detector.score(test)
    assert scores.shape == (test.shape[1],)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(scores, detector.score(test))
    np.testing.assert_array_equal(train, before[0])
    np.testing.assert_array_equal(test, before[1])


@every
def test_gaps_and_constant_channels_leave_finite_scores(name):
    train, test, _ = planted()
    train, test = train.copy(), test.copy()
    train[0, 100:130] = test[1, :20] = test[1, 300:310] = test[2, -5:] = np.nan
    train, test = (np.concatenate([x, np.full((1, x.shape[1]), 7.0)]) for x in (train, test))
    test[3, 500:] = np.nan
    detector = make_detector(name).fit(train)
    assert np.isfinite(detector.score(test)).all()
    test[3, 700] = 9.0  # a channel that was constant in training moves
    assert np.isfinite(detector.score(test)).all()


@every
def test_a_training_part_of_one_value_is_no_error(name):
    scores = make_detector(name).fit(np.full((2, 300), 5.0)).score(np.full((2, 200), 5.0))
    assert np.ptp(scores) <= 1e-9


@pytest.mark.parametrize("name", sorted(set(DETECTORS) - {"iforest"}))  # its trees draw channels by number
def test_the_order_of_channels_does_not_matter(name):
    train, test, _ = planted(n_timepoints=2000, n_anomalies=4)
    order = [2, 0, 1]
    scores = make_detector(name).fit(train).score(test)
    np.testing.assert_allclose(make_detector(name).fit(train[order]).score(test[order]), scores, rtol=1e-6, atol=1e-7)


@every
def test_units_of_a_channel_do_not_matter(name):
    train, test, labels = planted(n_timepoints=2000, n_anomalies=4)
    scale, shift = np.array([[1e3], [1e-12], [4.0]]), np.array([[-50.0], [2e-11], [0.0]])
    scores = make_detector(name).fit(train).score(test)
    other = make_detector(name).fit(train * scale + shift).score(test * scale + shift)
    assert abs(roc_auc_score(labels, other) - roc_auc_score(labels, scores)) < 1e-3


@every
def test_equal_seeds_give_equal_scores(name):
    train, test, _ = planted(n_timepoints=1500, n_anomalies=3)
    np.testing.assert_array_equal(
        make_detector(name).fit(train).score(test), make_detector(name).fit(train).score(test)
    )


@pytest.mark.parametrize("name", ["iforest", "kmeans"])
def test_the_seed_decides_what_is_random(name):
    train, test, _ = planted(n_timepoints=1500, n_anomalies=3)
    other = make_detector(name, random_state=1).fit(train).score(test)
    assert (other != make_detector(name).fit(train).score(test)).any()


@every
def test_one_anomaly_in_training_does_not_hide_the_others(name):
    train, test, labels = planted()
    train = train.copy()
    train[1, 300:320] += 3.0
    assert roc_auc_score(labels, make_detector(name).fit(train).score(test)) > LEAST_AUC[name] - 0.03


@pytest.mark.parametrize("name", ["sub_pca", "sub_pca_reconstruction", "matrix_profile", "spectral_residual", "kmeans"])
def test_contributions_name_the_disturbed_channel(name):
    train, test, _ = planted(n_anomalies=0)
    test = test.copy()
    test[1, 700:740] += 4 * np.sign(np.sin(np.arange(40)))
    parts = make_detector(name).fit(train).contributions(test)
    assert parts.shape == test.shape
    assert parts[:, 700:740].max(axis=1).argmax() == 1


@pytest.mark.parametrize("name", ["sub_pca", "sub_pca_mahalanobis", "matrix_profile", "spectral_residual"])
def test_the_score_is_the_mean_of_the_contributions(name):
    train, test, _ = planted()
    detector = make_detector(name).fit(train)
    np.testing.assert_allclose(detector.contributions(test).mean(axis=0), detector.score(test))


def test_channel_scores_are_standardized_on_the_training_part():
    train, _, _ = planted()
    parts = make_detector("sub_pca").fit(train).contributions(train)
    np.testing.assert_allclose(parts.mean(axis=1), 0, atol=1e-9)
    np.testing.assert_allclose(parts.std(axis=1), 1)


@pytest.mark.parametrize("name", ["pca", "window_pca", "iforest", "knn"])
def test_distances_of_whole_windows_do_not_tell_channels_apart(name):
    train, test, _ = planted(n_timepoints=1000, n_anomalies=2)
    assert make_detector(name).fit(train).contributions(test) is None


# --- windows ---------------------------------------------------------------------------------------------------------


def test_a_step_has_the_mean_score_of_its_windows_by_hand():
    np.testing.assert_allclose(spread(np.array([3.0, 6.0, 0.0]), 2), [3, 4.5, 3, 0])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.integers(1, 12))
def test_spreading_agrees_with_a_loop(scores, window):
    n_steps = len(scores) + window - 1
    slow = [np.mean([s for i, s in enumerate(scores) if i <= t < i + window]) for t in range(n_steps)]
    np.testing.assert_allclose(spread(np.array(scores), window), slow, rtol=1e-9, atol=1e-6)


def test_a_huge_score_leaves_the_digits_of_those_behind_it():
    scores = np.ones(100)
    scores[10] = 1e15
    assert (spread(scores, 5)[20:] == 1).all()


def test_many_channels_shorten_the_window():
    train, _, _ = planted(n_channels=30)
    assert make_detector("kmeans", max_features=300).fit(train).window_ == 10
    assert make_detector("kmeans").fit(train[:1]).window_ == 50  # the period of the series


# --- second answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_components", [None, 0.75, 3])
def test_distances_to_directions_agree_with_scikit_learn_and_scipy(n_components):
    rng = np.random.default_rng(0)
    train, test = (rng.standard_normal((n, 6)) @ rng.standard_normal((6, 6)) + 3 for n in (200, 50))
    scaler = StandardScaler().fit(train)
    pca = SklearnPCA(n_components, svd_solver="full").fit(scaler.transform(train))
    # the score of TSB-AD and PyOD, weights brought to sum 1
    weight = 1 / pca.explained_variance_ratio_
    expected = cdist(scaler.transform(test), pca.components_) @ (weight / weight.sum())
    np.testing.assert_allclose(Axes([train[:90], train[90:]], n_components, "vectors").distances(test), expected)


def test_lengths_in_units_of_the_spread_agree_with_the_inverse_of_the_correlations():
    rng = np.random.default_rng(0)
    train, test = (rng.standard_normal((n, 5)) @ rng.standard_normal((5, 5)) for n in (200, 50))
    z = (test - train.mean(axis=0)) / train.std(axis=0)
    squares = np.einsum("bi,ij,bj->b", z, np.linalg.inv(np.corrcoef(train.T)), z)
    found = Axes([train], None, "mahalanobis").distances(test) ** 2
    np.testing.assert_allclose(found / squares, (found / squares)[0])


def test_reconstruction_errors_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    train, test = (rng.standard_normal((n, 8)) @ rng.standard_normal((8, 8)) for n in (200, 50))
    scaler = StandardScaler().fit(train)
    pca = SklearnPCA(3).fit(scaler.transform(train))
    z = scaler.transform(test)
    expected = np.linalg.norm(z - pca.inverse_transform(pca.transform(z)), axis=1)
    np.testing.assert_allclose(Axes([train], 3, "reconstruction").distances(test), expected)


def test_kmeans_scores_are_distances_to_the_nearest_center():
    train, test, _ = planted(n_timepoints=1200, n_anomalies=2)
    detector = make_detector("kmeans", window=10).fit(train)
    rows = windows_of(detector.scale_(test.astype(np.float64)), 10).reshape(-1, 30)
    np.testing.assert_allclose(detector.score(test), spread(cdist(rows, detector.centers_).min(axis=1), 10))


def test_neighbor_scores_are_distances_to_the_tenth_nearest_window():
    train, test, _ = planted(n_timepoints=3000, n_anomalies=2)
    detector = make_detector("knn", window=10, max_windows=200).fit(train)
    rows = windows_of(detector.scale_(test.astype(np.float64)), 10).reshape(-1, 30)
    expected = np.sort(cdist(rows, detector.known_), axis=1)[:, 9]
    assert detector.known_.shape == (200, 30)
    np.testing.assert_allclose(detector.score(test), spread(expected, 10))


def slow_profile(x, window, reference=None):
    """The double loop over pairs of windows."""

    def shape(w):
        return None if w.std() <= 1e-6 else (w - w.mean()) / np.linalg.norm(w - w.mean())

    y = x if reference is None else reference
    ours, theirs = ([shape(w) for w in np.lib.stride_tricks.sliding_window_view(v, window)] for v in (x, y))
    profile = []
    for i, a in enumerate(ours):
        gaps = [
            float(a is not b and (a is None or b is None)) if a is None or b is None else np.linalg.norm(a - b)
            for j, b in enumerate(theirs)
            if reference is not None or abs(i - j) >= window / 2
        ]
        profile.append(min(gaps, default=0.0))
    return np.array(profile)


@pytest.mark.parametrize("window", [3, 10, 11])
@pytest.mark.parametrize("n_columns", [16384, 37, 1])
def test_the_matrix_profile_agrees_with_a_double_loop(window, n_columns, monkeypatch):
    monkeypatch.setattr(detect_profile, "N_COLUMNS", n_columns)
    monkeypatch.setattr(detect_profile, "N_ROWS", 23)
    rng = np.random.default_rng(window)
    x, y = rng.standard_normal(130).cumsum(), rng.standard_normal(90).cumsum()
    x[30:50], y[20:40], x[100] = 1.0, 2.0, 1e3  # flat stretches and a spike
    np.testing.assert_allclose(matrix_profile(x, window), slow_profile(x, window), atol=1e-5)
    np.testing.assert_allclose(matrix_profile(x, window, y), slow_profile(x, window, y), atol=1e-5)


def test_level_and_size_of_windows_do_not_change_their_distance():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(200), rng.standard_normal(300)
    np.testing.assert_allclose(matrix_profile(7 * x - 3, 20, y), matrix_profile(x, 20, y), atol=1e-7)


def test_the_training_part_finds_itself_and_with_itself_as_reference_it_does_not():
    train, _, _ = planted(1)
    np.testing.assert_allclose(make_detector("matrix_profile").fit(train).score(train), 0, atol=1e-6)
    assert make_detector("matrix_profile", reference="self").fit(train).score(train).min() > 0.05


def test_a_series_too_short_for_a_second_window_has_no_discord():
    np.testing.assert_array_equal(matrix_profile(np.random.default_rng(0).standard_normal(12), 10), [0, 0, 0])


def test_a_spike_stands_out_of_the_spectral_residual_where_it_is():
    t = np.arange(1000)
    x = np.sin(2 * np.pi * t / 50) + 0.05 * np.random.default_rng(0).standard_normal(1000)
    spiked = x.copy()
    spiked[613] += 3
    scores = make_detector("spectral_residual").fit(x[None]).score(spiked[None])
    assert scores.argmax() == 613


def test_a_spectrum_averaged_over_one_frequency_leaves_only_phases():
    x = np.random.default_rng(0).standard_normal(64)
    z = (x - x.mean()) / x.std()
    spectrum = np.fft.fft(z)
    spectrum[1:] /= np.abs(spectrum[1:])
    found = make_detector("spectral_residual", smooth=1).fit(x[None]).score(x[None])
    np.testing.assert_allclose(found, np.abs(np.fft.ifft(np.where(np.arange(64) == 0, 0, spectrum))), atol=1e-9)


# --- errors ----------------------------------------------------------------------------------------------------------


@every
def test_short_series_are_errors_that_teach(name):
    with pytest.raises(DataError, match=r"at least 8 steps, but got 5. Pass a longer one"):
        make_detector(name).fit(np.zeros((1, 5)))


def test_windows_longer_than_the_series_are_errors_that_teach():
    train = np.random.default_rng(0).standard_normal((2, 100))
    with pytest.raises(DataError, match="Windows of 100 steps need a training part of at least 101 steps, but got 100"):
        make_detector("sub_pca", window=100).fit(train)
    with pytest.raises(DataError, match="scores windows of 30 steps, but the series has 20"):
        make_detector("kmeans", window=30).fit(train).score(train[:, :20])
    with pytest.raises(DataError, match=r"n_neighbors=99 needs as many training windows of 5 steps.*has 96"):
        make_detector("knn", window=5, n_neighbors=99).fit(train)


def test_scores_before_fit_and_other_channels_are_refused():
    with pytest.raises(NotFittedError, match="SubPCA has not seen a training part yet"):
        make_detector("sub_pca").score(np.zeros((1, 100)))
    detector = make_detector("sub_pca").fit(np.random.default_rng(0).standard_normal((2, 100)))
    with pytest.raises(ShapeError, match=r"fitted on 2 channels.*but got shape \[3, 100\]"):
        detector.score(np.zeros((3, 100)))
    with pytest.raises(ShapeError, match=r"A series is \[channel, time\], but got shape"):
        detector.score(np.zeros(100))


def test_unknown_names_offer_the_nearest():
    with pytest.raises(SettingsError, match="Did you mean 'kmeans'"):
        make_detector("kmean")
    with pytest.raises(SettingsError, match=r"no setting 'n_cluster'. Did you mean 'n_clusters'"):
        make_detector("kmeans", n_cluster=3)
    with pytest.raises(SettingsError, match="Did you mean 'vectors'"):
        make_detector("sub_pca", measure="vector")
    with pytest.raises(SettingsError, match=r"reference named 'trains'. Did you mean 'train'"):
        make_detector("matrix_profile", reference="trains")


@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        ("sub_pca", {"window": 0}, "at least one step, but got window=0"),
        ("sub_pca", {"n_components": 1.5}, "share of the variance between 0 and 1"),
        ("sub_pca", {"measure": "reconstruction"}, "no reconstruction error is left. Set n_components"),
        ("kmeans", {"n_clusters": 0}, "n_clusters must be at least 1, but got 0"),
        ("knn", {"n_neighbors": 0}, "n_neighbors must be at least 1, but got 0"),
        ("iforest", {"n_trees": 0}, "n_trees must be at least 1, but got 0"),
        ("kmeans", {"max_features": 0}, "max_features must be at least 1"),
        ("matrix_profile", {"window": 2}, "at least 3 steps to have a shape, but got window=2"),
        ("spectral_residual", {"smooth": 0}, "smooth must be at least 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(name, wrong, words):
    with pytest.raises(SettingsError, match=words):
        make_detector(name, **wrong)


@every
def test_a_real_series_of_many_channels_is_scored(name, data_root):
    series = load_dataset("SKAB/other/1")
    n = series.borders.train_end
    scores = make_detector(name).fit(series.values[:, :n]).score(series.values[:, n:])
    assert scores.shape == (len(series) - n,)
    assert np.isfinite(scores).all()
