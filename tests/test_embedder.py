"""An embedder turns cases of any length and any number of channels into vectors of one length."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import prismts
from prismts.data.series import Collection, Series
from prismts.data.synthetic import labeled_motions
from prismts.errors import DataError, NotFittedError, SettingsError, ShapeError
from prismts.estimators.embedder import Embedder

TINY = {
    "model_settings": {"width": 8, "feed_forward": 8, "kernel_sizes": (5,)},
    "fit_settings": {"max_epochs": 2, "batch_size": 16},
    "context_length": 32,
    "progress": False,
}


@pytest.fixture(scope="module")
def motions() -> Collection:
    return labeled_motions(60, n_channels=2, n_timepoints=40)


@pytest.fixture(scope="module")
def fitted(motions) -> Embedder:
    return Embedder(**TINY).fit(motions.train)


def test_cases_become_vectors_of_one_length_whatever_their_channels_and_steps(fitted):
    rng = np.random.default_rng(0)
    assert fitted.transform(rng.normal(size=(4, 2, 40))).shape == (4, fitted.n_features_)
    assert fitted.transform(rng.normal(size=(3, 7, 100))).shape == (3, fitted.n_features_)
    assert fitted.transform([rng.normal(size=(1, 9)), rng.normal(size=(1, 300))]).shape == (2, fitted.n_features_)
    assert fitted.n_features_ == 2 * (2 * 8 + 2)  # mean and maximum over channels of pooled tokens, level and scale


def test_the_vector_of_a_case_does_not_depend_on_the_cases_beside_it(fitted):
    rng = np.random.default_rng(0)
    cases = [rng.normal(size=(2, n)) for n in (20, 45, 45, 33)]
    together = fitted.transform(cases)
    for i, case in enumerate(cases):
        np.testing.assert_allclose(fitted.transform([case])[0], together[i], atol=1e-5)


def test_the_order_of_the_channels_changes_no_pooled_vector(fitted):
    x = np.random.default_rng(0).normal(size=(3, 4, 40))
    np.testing.assert_allclose(fitted.transform(x[:, ::-1]), fitted.transform(x), atol=1e-5)


def test_level_and_scale_stand_in_the_last_numbers_only(fitted):
    x = np.random.default_rng(0).normal(size=(3, 1, 40))
    before, after = fitted.transform(x), fitted.transform(5 * x + 100)
    shape, level = np.r_[0:16, 18:34], [16, 17, 34, 35]
    np.testing.assert_allclose(after[:, shape], before[:, shape], atol=1e-3)
    assert (np.abs(after[:, level] - before[:, level]) > 0.1).all()


def test_apart_sets_named_channels_in_the_order_in_which_they_were_learned(tmp_path):
    values = np.random.default_rng(0).normal(size=(2, 60)).cumsum(1)
    model = Embedder(**TINY, channels="apart").fit(Series(values, ("a", "b")))
    model.save(tmp_path / "m")
    turned = Series(values[::-1].copy(), ("b", "a"))
    for one in (model, prismts.load(tmp_path / "m")):
        np.testing.assert_array_equal(one.transform(turned), one.transform(Series(values, ("a", "b"))))


@pytest.mark.long
def test_apart_sets_the_channels_side_by_side_and_is_bound_to_their_number(motions):
    embedder = Embedder(**TINY, channels="apart").fit(motions.train)
    x = np.random.default_rng(0).normal(size=(3, 2, 40))
    vectors = embedder.transform(x)
    assert vectors.shape == (3, 2 * (2 * 8 + 2))
    np.testing.assert_allclose(embedder.transform(x[:, ::-1]), np.roll(vectors, 18, axis=1), atol=1e-5)
    with pytest.raises(ShapeError, match="bound to 2 channels, but these cases have 3"):
        embedder.transform(np.zeros((1, 3, 40)))


def test_gaps_are_read_over(fitted):
    x = np.sin(np.arange(40) / 3) * np.ones((1, 2, 1))
    holed = x.copy()
    holed[0, :, ::7] = np.nan
    whole, gaps = fitted.transform(x), fitted.transform(holed)
    assert np.isfinite(gaps).all() and np.abs(gaps - whole).mean() < 0.2 * np.abs(whole).mean()


def test_a_linear_classifier_on_the_vectors_tells_motions_apart(motions, fitted):
    model = LogisticRegression(max_iter=2000).fit(fitted.transform(motions.train), motions.train.labels)
    assert model.score(fitted.transform(motions.test), motions.test.labels) > 0.8


def test_windows_along_a_series_are_the_vectors_of_these_windows(fitted):
    series = Series(np.random.default_rng(0).normal(size=(2, 100)))
    places, vectors = fitted.transform_windows(series, length=40, stride=20)
    assert places.tolist() == [[0, 0], [0, 20], [0, 40], [0, 60]]
    np.testing.assert_allclose(vectors[1], fitted.transform(series.values[None, :, 20:60])[0], atol=1e-5)


def test_a_saved_embedder_gives_the_same_vectors(fitted, motions, tmp_path):
    fitted.save(tmp_path / "m")
    again = prismts.load(tmp_path / "m")
    np.testing.assert_array_equal(again.transform(motions.test), fitted.transform(motions.test))


def test_equal_seeds_give_equal_vectors(motions, fitted):
    again = Embedder(**TINY).fit(motions.train)
    np.testing.assert_array_equal(again.transform(motions.test), fitted.transform(motions.test))


@pytest.mark.long
def test_what_cannot_be_embedded_is_refused(motions):
    with pytest.raises(NotFittedError, match="Call fit first"):
        Embedder().transform(np.zeros((1, 1, 40)))
    with pytest.raises(DataError, match="has 3 steps, too few"):
        Embedder(**TINY).fit(np.zeros((2, 1, 3)))
    with pytest.raises(SettingsError, match="Did you mean 'pooled'"):
        Embedder(**TINY, channels="poold").fit(motions.train)
    with pytest.raises(SettingsError, match="direct forecaster"):
        Embedder("ridge", progress=False).fit(motions.train)
    with pytest.raises(SettingsError, match="reads channels apart"):
        Embedder(**{**TINY, "model_settings": {"channels": "mixed", "width": 8}}).fit(motions.train)


def test_a_case_with_a_dead_channel_gets_the_same_vector_alone_and_among_others(fitted):
    x = np.random.default_rng(0).normal(size=(3, 2, 40))
    x[1, 1] = np.nan
    among = fitted.transform(x)[1]
    for alone in (x[1:2], [x[1]], Series(x[1])):
        np.testing.assert_allclose(fitted.transform(alone)[0], among, atol=1e-6)


def test_a_case_of_hardly_any_observed_step_is_refused_and_one_of_four_is_embedded(fitted):
    x = np.random.default_rng(0).normal(size=(2, 2, 40))
    x[1, :, 1:] = np.nan
    with pytest.raises(DataError, match=r"Case '1' has 1 step up to its last observed value.*at least 4.*Leave it out"):
        fitted.transform(x)
    x[1] = np.random.default_rng(1).normal(size=(2, 40))
    x[1, :, 4:] = np.nan
    np.testing.assert_allclose(fitted.transform(x)[1], fitted.transform([x[1, :, :4]])[0], atol=1e-6)
    x[1, :, :-1], x[1, :, -1] = np.nan, 1.0  # forty steps up to the one that is known
    assert np.isfinite(fitted.transform(x)).all()


def test_windows_in_which_nothing_was_observed_are_left_out(fitted):
    x = np.random.default_rng(0).normal(size=(2, 80))
    x[:, 20:42] = np.nan
    places, vectors = fitted.transform_windows(Series(x), length=20, stride=20)
    assert places[:, 1].tolist() == [0, 40, 60] and len(vectors) == 3  # of 40 to 59, two are missing
    with pytest.raises(DataError, match="No window of 20 steps"):
        fitted.transform_windows(Series(np.where(np.isin(np.arange(80), (0, 60)), x, np.nan)), length=20, stride=20)


def test_an_argument_that_shapes_the_vector_cannot_be_changed_after_fit(motions):
    embedder = Embedder(**TINY).fit(motions.train).set_params(pooling="max")
    with pytest.raises(SettingsError, match="pooling was 'both' when this Embedder was fitted, and is 'max' now"):
        embedder.transform(motions.test)


@pytest.mark.parametrize("length", ["long", 2.5, 3])
def test_a_context_length_that_is_no_number_of_steps_is_refused(motions, length):
    with pytest.raises(SettingsError, match="a whole number of steps, at least 4"):
        Embedder(**{**TINY, "context_length": length}).fit(motions.train)


@pytest.mark.parametrize("level", [0.0, 1e9])
def test_windows_have_the_vectors_of_the_same_steps_as_cases_at_any_level(fitted, level):
    x = level + np.sin(np.arange(200) / 5)[None]
    places, vectors = fitted.transform_windows(x, length=40, stride=20)
    cases = np.stack([x[:, begin : begin + 40] for begin in places[:, 1]])
    np.testing.assert_allclose(vectors, fitted.transform(cases), rtol=1e-6)
    with pytest.raises(SettingsError, match=r"length is a whole number of steps, but got 1\.5"):
        fitted.transform_windows(x, length=1.5)


def test_windows_of_named_channels_apart_stand_in_the_order_learned():
    values = np.random.default_rng(0).normal(size=(2, 60)).cumsum(1)
    model = Embedder(**TINY, channels="apart").fit(Series(values, ("a", "b")))
    turned = Series(values[::-1].copy(), ("b", "a"))
    expected = model.transform_windows(Series(values, ("a", "b")))[1]
    np.testing.assert_array_equal(model.transform_windows(turned)[1], expected)


def test_after_one_training_case_level_and_scale_are_told_in_its_own_units():
    x = 100 + 3 * np.sin(np.arange(200) * 2 * np.pi / 20)[None]  # deviation 3 / sqrt(2)
    model = Embedder(**TINY, channels="apart").fit(x[:, None])
    level, scale = model.transform((x + 6)[:, None])[0, -2:]
    assert level == pytest.approx(6 / (3 / np.sqrt(2)), rel=1e-4) and scale == pytest.approx(0, abs=1e-6)
