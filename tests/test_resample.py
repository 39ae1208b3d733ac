"""Resamples keep every case once, the sizes and the classes; the first of them is the official split."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prismts.data.resample import resampled, stratified_resample
from prismts.data.series import Collection, Series
from prismts.errors import DataError, SettingsError, ShapeError


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=2, max_size=40), st.data())
def test_every_class_keeps_its_numbers_of_training_and_test_cases(labels, data):
    y = np.array(labels)
    n_train = data.draw(st.integers(1, len(y) - 1))
    train, test = stratified_resample(y, n_train, data.draw(st.integers(0, 99)))
    assert sorted([*train, *test]) == list(range(len(y)))
    assert sorted(y[train]) == sorted(y[:n_train])
    assert sorted(y[test]) == sorted(y[n_train:])
    assert (np.diff(train) > 0).all() and (np.diff(test) > 0).all()


def test_resample_zero_is_the_official_split():
    train, test = stratified_resample([1, 0, 1, 0, 0], 2, 0)
    assert train.tolist() == [0, 1] and test.tolist() == [2, 3, 4]


def test_a_seed_names_one_draw_and_another_seed_another():
    y = np.arange(60) % 3
    first = stratified_resample(y, 30, 1)[0]
    assert (first == stratified_resample(y, 30, 1)[0]).all()
    assert len({tuple(stratified_resample(y, 30, seed)[0]) for seed in range(10)}) == 10


def test_the_draw_of_a_seed_is_the_same_everywhere():
    # written down once, so that a table made elsewhere is made of the same cases
    assert stratified_resample(list("aabbaabbab"), 4, 7)[0].tolist() == [0, 2, 3, 4]


def test_a_collection_keeps_each_case_with_its_label_and_length():
    cases = [Series(np.full((2, 3 + i), float(i)), name=f"case {i}") for i in range(8)]
    labels = np.array(list("aabbabab"))
    official = Collection.of(cases, labels=labels)
    official = Collection(**{**official.__dict__, "n_train": 4})
    again = resampled(official, 3)
    train, test = stratified_resample(labels, 4, 3)
    for part, index in ((again.train, train), (again.test, test)):
        assert len(part) == len(index)
        for case, label, i in zip(part, part.labels, index, strict=True):
            assert (case.values == cases[i].values).all() and case.values.shape == (2, 3 + i)
            assert label == labels[i] and case.name == f"case {i}"
    assert resampled(official, 0) is official


def test_a_real_collection_keeps_its_values(data_root):
    from prismts.data.catalog import load_dataset

    official = load_dataset("JV")
    again = resampled(official, 1)
    assert again.n_train == official.n_train
    assert sorted(again.lengths) == sorted(official.lengths)
    np.testing.assert_allclose(np.sort(again.values, axis=1), np.sort(official.values, axis=1))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: stratified_resample([0, 1], 2, 1), SettingsError, "leaves a test case of 2 cases, but got 2"),
        (lambda: stratified_resample([0, 1], 0, 1), SettingsError, "n_train is at least 1"),
        (lambda: stratified_resample([0, 1], 1, -1), SettingsError, "counts the resamples from 0"),
        (lambda: stratified_resample([[0, 1]], 1, 0), ShapeError, "one class per case"),
        (lambda: resampled(Collection.from_array(np.zeros((2, 1, 3))), 1), DataError, "no labels or no official"),
    ],
)
def test_what_cannot_be_drawn_is_said(call, error, words):
    with pytest.raises(error, match=words):
        call()
