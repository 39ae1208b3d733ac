"""Distances by hand and by their laws; aeon's own names; what cannot be compared is refused in words."""

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from prismts.analysis.similarity import DISTANCES, distance, nearest, pairwise, path
from prismts.data.series import Collection, Series
from prismts.errors import DataError, MissingExtraError, SettingsError, ShapeError
from prismts.evaluation import warping

pytest.importorskip("aeon")
# numba compiles each of them once, for seconds; two stand for all in the fast half
FAST = ["euclidean", "dtw"]
EVERY = [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in DISTANCES if name not in FAST)]
SERIES = [name for name, kind in DISTANCES.items() if not kind.reads_words]
of_series = [one for one in EVERY if (one if isinstance(one, str) else one.values[0]) in SERIES]


@pytest.fixture(autouse=True)
def _numba_may_warn():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="unsafe cast")
        yield


def cases(n: int = 4, n_channels: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, n_channels, 18)).cumsum(-1)


def plain_dtw(a: np.ndarray, b: np.ndarray) -> float:
    """The recursion as it stands in the books."""
    total = np.full((a.shape[1] + 1, b.shape[1] + 1), np.inf)
    total[0, 0] = 0
    for i in range(a.shape[1]):
        for j in range(b.shape[1]):
            best = min(total[i, j], total[i, j + 1], total[i + 1, j])
            total[i + 1, j + 1] = best + ((a[:, i] - b[:, j]) ** 2).sum()
    return total[-1, -1]


# ---- by hand


def test_our_names_are_those_of_aeon():
    from aeon.distances import get_distance_function_names

    assert set(DISTANCES) == set(get_distance_function_names())
    assert len(DISTANCES) == 23


def test_a_peak_that_comes_a_step_late_costs_dtw_nothing():
    assert distance([0, 1, 0, 0], [0, 0, 1, 0]) == 0
    assert distance([0, 1, 0, 0], [0, 0, 1, 0], window=0) == 2
    assert distance([0, 1, 0, 0], [0, 0, 1, 0], "euclidean") == pytest.approx(2**0.5)


def test_the_path_of_a_late_peak_waits_for_it():
    steps, length = path([0, 5, 0], [0, 0, 5, 0])
    assert steps.tolist() == [[0, 0], [0, 1], [1, 2], [2, 3]]
    assert length == 0


def test_dtw_is_the_sum_whose_root_scores_forecasts():
    a, b = cases(2)
    assert distance(a, b) == pytest.approx(plain_dtw(a, b))
    assert distance(a, b) ** 0.5 == pytest.approx(warping.dtw(a[None], b[None], window=None))
    assert distance(a, b, window=0.2) ** 0.5 == pytest.approx(warping.dtw(a[None], b[None], window=0.2))


@given(
    arrays(float, st.tuples(st.just(2), st.integers(1, 7)), elements=st.floats(-9, 9, width=32)),
    arrays(float, st.tuples(st.just(2), st.integers(1, 7)), elements=st.floats(-9, 9, width=32)),
)
@settings(max_examples=40, deadline=None)
def test_dtw_of_any_two_lengths_is_what_the_books_say(a, b):
    assert distance(a, b) == pytest.approx(plain_dtw(a, b), abs=1e-9)
    steps, length = path(a, b)
    assert length == pytest.approx(plain_dtw(a, b), abs=1e-9)
    assert sum(((a[:, i] - b[:, j]) ** 2).sum() for i, j in steps) == pytest.approx(length, abs=1e-9)


# ---- laws of all


@pytest.mark.parametrize("method", of_series)
def test_a_series_is_at_no_distance_from_itself(method):
    (a,) = cases(1)
    assert distance(a, a, method) == pytest.approx(0, abs=1e-9)


@pytest.mark.long
@pytest.mark.parametrize("method", of_series)
def test_all_distances_at_once_are_the_distances_one_by_one(method):
    x = cases()
    expected = [[distance(a, b, method) for b in x] for a in x]
    np.testing.assert_allclose(pairwise(x, method=method), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(pairwise(x[:2], x, method), expected[:2], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", of_series)
def test_lengths_are_compared_as_the_table_says(method):
    (a,) = cases(1)
    b = a[:, 7:] + 0.1  # alike as a whole, unlike from the first step on
    support = DISTANCES[method].unequal_length
    if support is None:
        with pytest.raises(ShapeError, match=r"series of one length, but these have 11 to 18 steps\. Resample"):
            distance(a, b, method)
        return
    both = distance(a, b, method)
    assert pairwise([a, b, a], method=method)[1, 2] == pytest.approx(distance(b, a, method))
    assert (both == pytest.approx(distance(a[:, :11], b, method))) == (support == "common")


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name, kind in DISTANCES.items() if kind.warps])
def test_every_path_leads_forward_and_to_the_distance(method):
    a, b = cases(2)
    steps, length = path(a, b[:, :11], method)
    assert (np.diff(steps, axis=0) >= 0).all() and (steps.max(0) < (18, 11)).all()
    assert length == pytest.approx(distance(a, b[:, :11], method))


@pytest.mark.slow
@pytest.mark.parametrize("method", SERIES)
def test_the_unit_is_what_the_table_says(method):
    a, b = cases(2)
    unit = DISTANCES[method].unit
    free = {"twe": {"lmbda": 0.0, "nu": 0.0}, "msm": {"c": 0.0}, "adtw": {"warp_penalty": 0.0}}.get(method, {})
    if method in ("lcss", "soft_dtw"):  # their thresholds and gamma have units of their own
        name, power = {"lcss": ("epsilon", 1), "soft_dtw": ("gamma", 2)}[method]
        once, scaled = distance(a, b, method, **{name: 0.5}), distance(3 * a, 3 * b, method, **{name: 0.5 * 3**power})
    else:
        once, scaled = distance(a, b, method, **free), distance(3 * a, 3 * b, method, **free)
    factor = 9 if unit.startswith("squared") else 3 if unit.startswith("units") else 1
    assert scaled == pytest.approx(factor * once)


@pytest.mark.slow
def test_words_are_compared_by_their_breakpoints():
    breakpoints = np.array([-0.5, 0.5, np.inf])
    words = np.array([[0, 1, 2], [0, 2, 0]])
    # only letters two apart differ: 1 step between -0.5 and 0.5 for each of 2 steps of a segment
    expected = (2 * 1.0**2) ** 0.5
    assert distance(*words, "sax", breakpoints=breakpoints, n=6) == pytest.approx(expected)
    with pytest.raises(ShapeError, match="compares words"):
        distance(words, words, "sax", breakpoints=breakpoints, n=6)


# ---- the nearest


def test_the_nearest_come_first_and_of_equals_the_first():
    x = np.array([[[5.0, 5]], [[1, 1]], [[0, 0]], [[1, 1]]])
    indices, distances = nearest(np.zeros((1, 2)), x, k=3, method="squared")
    assert indices.tolist() == [2, 1, 3]
    assert distances.tolist() == [0, 2, 2]


def test_several_queries_have_a_row_each_and_any_length():
    x = cases()
    indices, distances = nearest([x[2], x[0][:, :9]], x, k=2)
    assert indices.shape == distances.shape == (2, 2)
    assert indices[0, 0] == 2 and distances[0, 0] == 0
    assert indices[1].tolist() == np.argsort(pairwise([x[0][:, :9]], x)[0])[:2].tolist()


def test_arrays_lists_and_collections_are_read_alike():
    x = cases()
    expected = pairwise(x)
    collection = Collection.of([Series(one) for one in x])
    for form in (list(x), x.astype(np.float32).astype(float), collection):
        np.testing.assert_allclose(pairwise(form), expected, rtol=1e-6)
    assert nearest(Series(x[1]), collection).indices.tolist() == [1]
    assert distance(Series(x[0]), x[1]) == pytest.approx(expected[0, 1])


def test_real_letters_are_nearest_to_their_own_kind(data_root):
    from prismts.data.catalog import load_dataset

    train = load_dataset("BasicMotions").train
    indices, distances = nearest(train, train, k=2)
    assert (distances[:, 0] == 0).all()
    assert np.mean(train.labels[indices[:, 1]] == train.labels) > 0.8  # chance is 9/39


# ---- refused in words


def test_what_was_not_observed_is_refused_with_its_place_and_a_remedy():
    x = cases()
    x[2, 1, 5] = np.nan
    with pytest.raises(DataError, match=r"X\[2\] holds nan in channel 1 at step 5.*bridge"):
        pairwise(x)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: distance([1], [1], "dwt"), SettingsError, "no distance named 'dwt'. Did you mean 'dtw'"),
        (lambda: distance([1], [1], window=10), SettingsError, "fraction of the series from 0 to 1"),
        (lambda: distance([1], [1], "sbd", window=0.1), SettingsError, "'sbd' does not warp"),
        (lambda: path([1], [1], "euclidean"), SettingsError, "has no path. These have one: dtw, dtw_gi"),
        (lambda: distance([1], [1], gama=0.1), SettingsError, "does not take these options"),
        (lambda: distance(np.ones((2, 3)), np.ones((3, 3))), ShapeError, "these have 2 and 3 channels"),
        (lambda: distance(np.ones((2, 3, 4)), [1]), ShapeError, "see pairwise and nearest"),
        (lambda: pairwise(np.ones((2, 3))), ShapeError, r"X\[:, None, :\]"),
        (lambda: pairwise([]), DataError, "X holds no series"),
        (lambda: nearest(np.ones((1, 3)), np.ones((2, 1, 3)), k=3), SettingsError, "from 1 to the 2 cases of X"),
    ],
)
def test_what_cannot_be_compared_is_said(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_without_aeon_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "aeon.distances", None)
    with pytest.raises(MissingExtraError, match=r"prismts\[bench\]"):
        distance([1], [1])


@pytest.mark.long
def test_the_number_of_threads_stays_what_it_was():
    # in a process of its own: only the first parallel loop of numba would set it
    code = (
        "import numpy as np, torch; from prismts.analysis.similarity import pairwise; "
        "before = torch.get_num_threads(); pairwise(np.zeros((3, 1, 9))); print(before, torch.get_num_threads())"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["1", "1"]
