"""Floors of classification: one interface, aeon's own answers, and no case is changed without a word."""

import sys
import warnings

import numpy as np
import pytest
import torch

from prismts.errors import DataError, MissingExtraError, NotFittedError, SettingsError, ShapeError
from prismts.models.case_floors import CASE_FLOORS, NearestDtw, NearestDtwConfig, case_floor

pytest.importorskip("aeon")
# numba compiles MultiRocket for half a minute; the others answer within seconds
FAST = ["majority", "nearest_dtw", "hydra"]
every_floor = pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in CASE_FLOORS if name not in FAST)]
)
CONVOLVED = ["hydra", *(pytest.param(name, marks=pytest.mark.slow) for name in ("minirocket", "multirocket_hydra"))]


@pytest.fixture(autouse=True)
def _numba_may_warn():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="unsafe cast")
        yield


def cases(lengths: list[int], seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Slow waves (class 3) and quick ones (class 7) in two channels, in turn."""
    generator = np.random.default_rng(seed)
    y = np.where(np.arange(len(lengths)) % 2, 7, 3)
    waves = [
        np.sin(np.linspace(0, label, n) + generator.uniform(0, 0.3, (2, 1)))
        for label, n in zip(y, lengths, strict=True)
    ]
    return [wave + 0.05 * generator.normal(size=wave.shape) for wave in waves], y


EQUAL, UNEQUAL = [24] * 16, [12 + i % 13 for i in range(16)]


@pytest.mark.long
@every_floor
@pytest.mark.parametrize("lengths", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
def test_probabilities_are_shares_of_the_classes_in_order(name, lengths):
    x, y = cases(lengths)
    floor = case_floor(name).fit(x, y)
    other, truth = cases(lengths[::-1], seed=1)
    p = floor.predict_proba(other)
    assert floor.classes_.tolist() == [3, 7]
    assert p.shape == (16, 2)
    np.testing.assert_allclose(p.sum(1), 1)
    if name == "majority":
        assert (p == 0.5).all()
    else:
        assert (floor.classes_[p.argmax(1)] == truth).mean() > 0.8


@every_floor
def test_equal_seeds_give_equal_answers_and_nothing_else_is_touched(name):
    x, y = cases(EQUAL)
    before = [case.copy() for case in x]
    torch.manual_seed(5), np.random.seed(5)  # noqa: NPY002
    drawn = torch.rand(3), np.random.rand(3)  # noqa: NPY002
    torch.manual_seed(5), np.random.seed(5)  # noqa: NPY002
    n_threads = torch.get_num_threads()
    answers = [case_floor(name, random_state=4).fit(x, y).predict_proba(cases(EQUAL, 2)[0]) for _ in range(2)]
    np.testing.assert_array_equal(*answers)
    assert (torch.rand(3) == drawn[0]).all() and (np.random.rand(3) == drawn[1]).all()  # noqa: NPY002
    assert torch.get_num_threads() == n_threads
    assert all((one == other).all() for one, other in zip(x, before, strict=True))


def test_the_majority_answers_with_the_shares_of_training():
    floor = case_floor("majority").fit([np.zeros((1, 4))] * 4, np.array([2, 0, 2, 2]))
    assert floor.predict_proba([np.ones((1, 9))]).tolist() == [[0.25, 0.75]]


def test_the_nearest_case_by_hand_forgives_a_shift():
    early, late, low = ([[0.0, 0, 9, 0, 0, 0]], [[0.0, 0, 0, 0, 9, 0]], [[0.0, 0, 5, 0, 0, 0]])
    train = [np.array(early), np.array(low)]
    free = case_floor("nearest_dtw").fit(train, np.array([0, 1]))
    assert free.predict_proba([np.array(late)]).tolist() == [[1, 0]]
    stiff = case_floor("nearest_dtw", window=0.0).fit(train, np.array([0, 1]))
    assert stiff.predict_proba([np.array(late)]).tolist() == [[0, 1]]


@pytest.mark.parametrize("lengths", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
def test_the_nearest_case_is_the_one_of_aeon(lengths, monkeypatch):
    from aeon.classification.distance_based import KNeighborsTimeSeriesClassifier

    monkeypatch.setattr(NearestDtw, "queries_at_once", 5)
    generator = np.random.default_rng(3)
    x, other = ([generator.normal(size=(2, n)) for n in lengths] for _ in range(2))
    y = np.arange(16) % 3
    theirs = KNeighborsTimeSeriesClassifier(distance="dtw").fit(x, y).predict(other)
    ours = case_floor("nearest_dtw").fit(x, y).predict_proba(other).argmax(1)
    assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize("name", CONVOLVED)
def test_cases_of_one_length_reach_aeon_as_they_are(name):
    from aeon.classification import convolution_based

    kind = {"hydra": "HydraClassifier", "minirocket": "MiniRocketClassifier"}.get(name, "MultiRocketHydraClassifier")
    generator = np.random.default_rng(4)
    x, other = generator.normal(size=(2, 12, 3, 20))
    y = np.arange(12) % 3
    theirs = getattr(convolution_based, kind)(random_state=1).fit(x, y).predict(other)
    ours = case_floor(name, random_state=1).fit(list(x), y)
    assert ours.prepared == () and ours.preparation(list(other)) == ()
    assert ours.predict_proba(list(other)).argmax(1).tolist() == theirs.tolist()


# ---- what is prepared, and how


@pytest.mark.parametrize("name", CONVOLVED)
def test_other_lengths_are_resampled_to_the_longest_of_training_and_that_is_said(name):
    x, y = cases(UNEQUAL)
    floor = case_floor(name).fit(x, y)
    assert floor.prepared == ("15 of 16 cases, which have 12 to 23 steps, are resampled linearly to 24 steps",)
    ramp = [np.arange(13.0)[None].repeat(2, 0)]
    assert floor.preparation(ramp) == ("1 of 1 cases, which have 13 to 13 steps, are resampled linearly to 24 steps",)
    np.testing.assert_allclose(floor._prepare(ramp[0])[0], np.linspace(0, 12, 24))


@pytest.mark.parametrize("name", CONVOLVED)
def test_cases_too_short_for_the_kernels_are_stretched(name):
    x, y = cases([5] * 16)
    floor = case_floor(name).fit(x, y)
    shortest = CASE_FLOORS[name].shortest
    assert floor.prepared == (f"16 of 16 cases, which have 5 to 5 steps, are resampled linearly to {shortest} steps",)
    assert (floor.classes_[floor.predict_proba(x).argmax(1)] == y).mean() > 0.8


@every_floor
def test_what_was_not_observed_is_bridged_by_straight_lines_and_that_is_said(name):
    x, y = cases(EQUAL)
    straight = x[0].copy()
    straight[:, 4:8] = np.linspace(straight[:, 3], straight[:, 8], 6)[1:-1].T
    gaps = straight.copy()
    gaps[:, 4:8] = np.nan
    answers = []
    for first in (straight, gaps):
        floor = case_floor(name).fit([first, *x[1:]], y)
        answers.append(floor.predict_proba([first, *x]))
    assert floor.prepared == ("1 of 16 cases have values that were not observed: bridged by straight lines",)
    np.testing.assert_allclose(*answers)
    assert np.isnan(gaps).any()  # the caller's own


def test_the_nearest_case_needs_no_common_length():
    x, y = cases(UNEQUAL)
    assert case_floor("nearest_dtw").fit(x, y).prepared == ()


@pytest.mark.slow
def test_real_cases_of_unequal_and_of_eight_steps_are_classified(data_root):
    from prismts.data.catalog import load_dataset

    for data, length in (("JV", 24), ("PenDigits", 9)):
        train = load_dataset(data).train
        x, y = [series.values for series in train][:600], np.unique(train.labels, return_inverse=True)[1][:600]
        floor = case_floor("minirocket").fit(x[::2], y[::2])
        assert floor.n_timepoints_ == length  # the longest of every other one is of 24 steps
        assert (floor.classes_[floor.predict_proba(x[1::2]).argmax(1)] == y[1::2]).mean() > 0.85


# ---- errors


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: case_floor("minirokcet"), SettingsError, "Did you mean 'minirocket'"),
        (lambda: case_floor("nearest_dtw", windw=1), SettingsError, "Did you mean 'window'"),
        (lambda: NearestDtwConfig(window=5), SettingsError, "fraction from 0 to 1"),
        (lambda: case_floor("majority").predict_proba([]), NotFittedError, r"Call fit\(X, y\) first"),
        (lambda: case_floor("majority").preparation([]), NotFittedError, r"Call fit\(X, y\) first"),
        (lambda: case_floor("majority").fit([], np.array([])), ShapeError, "at least one case"),
        (lambda: case_floor("majority").fit([np.ones((1, 3))], np.array([1, 2])), ShapeError, "1 cases and y of shape"),
        (
            lambda: case_floor("majority").fit([np.ones((1, 3)), np.ones((2, 3))], np.array([1, 2])),
            ShapeError,
            r"case 1 has shape \[2, 3\]",
        ),
        (lambda: case_floor("majority").fit([np.full((1, 3), np.inf)], np.array([1])), DataError, "infinite value"),
    ],
)
def test_what_cannot_be_fitted_is_said(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("name", [name for name in CASE_FLOORS if name != "majority"])
def test_without_aeon_the_extra_is_named(name, monkeypatch):
    for module in ("aeon.distances", "aeon.classification.convolution_based"):
        monkeypatch.setitem(sys.modules, module, None)
    x, y = cases(EQUAL)
    with pytest.raises(MissingExtraError, match=r"prismts\[bench\]"):
        case_floor(name).fit(x, y).predict_proba(x)
