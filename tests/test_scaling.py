"""The standard scaler: a round trip, numbers from train only, and the answer scikit-learn gives."""

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler as Independent

from prismts.data.scaling import StandardScaler
from prismts.data.series import Collection, Series
from prismts.errors import DataError


def collection(*lengths: int, n_channels: int = 3, seed: int = 0) -> Collection:
    rng = np.random.default_rng(seed)
    scale = 10.0 ** np.arange(n_channels)[:, None]
    return Collection.of([Series(scale * (rng.standard_normal((n_channels, n)) + 5)) for n in lengths])


def test_mean_and_scale_of_two_and_four_are_three_and_one():
    scaler = StandardScaler.fit(Collection.of(Series([[2.0, 4.0]])))
    assert scaler.mean.item() == 3
    assert scaler.scale.item() == 1


def test_inverse_undoes_transform_for_every_series_of_a_collection():
    data = collection(50, 20, 30)
    scaler = StandardScaler.fit(data)
    for i, series in enumerate(data):
        np.testing.assert_allclose(scaler.inverse(scaler.transform(series.values, i), i), series.values, rtol=1e-12)


def test_a_batch_of_windows_is_scaled_by_the_row_of_its_own_series():
    data = collection(20, 20)
    scaler = StandardScaler.fit(data)
    series = np.array([1, 0, 1])
    windows = np.stack([data[i].values for i in series])  # [B, C, T]
    together = scaler.transform(windows, series)
    for window, i, scaled in zip(windows, series, together, strict=True):
        np.testing.assert_array_equal(scaler.transform(window, int(i)), scaled)


def test_the_numbers_are_those_of_scikit_learn():
    data = collection(200)
    ours, theirs = StandardScaler.fit(data), Independent().fit(data.values.T)
    np.testing.assert_allclose(ours.mean[0], theirs.mean_, rtol=1e-12)
    np.testing.assert_allclose(ours.scale[0], theirs.scale_, rtol=1e-12)
    np.testing.assert_allclose(ours.transform(data.values), theirs.transform(data.values.T).T, atol=1e-12)


def test_missing_values_count_as_little_as_they_do_in_scikit_learn():
    data = collection(200)
    data.values[:, ::7] = np.nan
    ours, theirs = StandardScaler.fit(data), Independent().fit(data.values.T)
    np.testing.assert_allclose(ours.mean[0], theirs.mean_, rtol=1e-12)
    np.testing.assert_allclose(ours.scale[0], theirs.scale_, rtol=1e-12)


def test_what_lies_behind_the_training_part_changes_nothing():
    data = collection(40, 60)
    ends = np.array([30, 20])
    before = StandardScaler.fit(data, ends)
    data.values[:, 30:40] = 1e6
    data.values[:, 40 + 20 :] = np.nan
    after = StandardScaler.fit(data, ends)
    np.testing.assert_array_equal(before.mean, after.mean)
    np.testing.assert_array_equal(before.scale, after.scale)


@pytest.mark.parametrize("level", [0.0, 5.0, 0.1, 1e9])
def test_a_flat_channel_maps_to_zero_and_back(level):
    data = Collection.of(Series(np.full((1, 1000), level)))
    scaler = StandardScaler.fit(data)
    assert scaler.scale.item() == 1
    np.testing.assert_allclose(scaler.transform(data.values), 0, atol=1e-6)
    np.testing.assert_allclose(scaler.inverse(np.zeros((1, 3))), level, rtol=1e-12)


def test_the_identity_leaves_values_as_they_are():
    x = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(StandardScaler.identity(2).transform(x), x)


def test_a_channel_never_observed_in_train_is_an_error_that_names_it():
    values = np.ones((2, 10))
    values[1, :6] = np.nan
    data = Collection.of(Series(values, ("load", "oil"), name="plant"))
    with pytest.raises(DataError, match=r"'oil' of series 'plant' has no observed value .*steps 0 to 6"):
        StandardScaler.fit(data, np.array([6]))
    both = Collection.of([data[0], data[0]])
    with pytest.raises(DataError, match=r"'oil' has no observed value .*2 series"):
        StandardScaler.fit(both, np.array([6, 5]))


def test_a_channel_that_one_series_lacks_is_scaled_as_all_values_of_the_others_together():
    data = collection(40, 30, 20)
    data.values[1, 40:70] = np.nan
    scaler = StandardScaler.fit(data)
    others = np.concatenate([data.values[1, :40], data.values[1, 70:]])
    assert scaler.borrowed == ((1, 1),)
    assert scaler.mean[1, 1] == pytest.approx(others.mean())
    assert scaler.scale[1, 1] == pytest.approx(others.std())
    assert scaler.mean[0, 1] == pytest.approx(data.values[1, :40].mean())  # and those keep their own


@pytest.mark.parametrize("unit", [1e-30, 1e30, 1e200])
def test_values_of_any_size_have_a_scale(unit):
    small = np.random.default_rng(0).standard_normal((1, 50)) + 3
    scaler, own = (StandardScaler.fit(Collection.of(Series(small * factor))) for factor in (1.0, unit))
    np.testing.assert_allclose(own.scale / unit, scaler.scale)
    np.testing.assert_allclose(own.transform(small * unit), scaler.transform(small))
