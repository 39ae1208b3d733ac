"""Cases of any length become batches: padded at their end, marked, and the same numbers whatever the batch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prismts.cases import Cases, scaler_of_cases
from prismts.data.scaling import StandardScaler
from prismts.data.series import Collection, Series
from prismts.errors import DataError, SettingsError


def collection(lengths, n_channels=2, seed=0) -> Collection:
    rng = np.random.default_rng(seed)
    return Collection.of([Series(rng.normal(size=(n_channels, n)), name=str(i)) for i, n in enumerate(lengths)])


IDENTITY = StandardScaler.identity(2)


def test_a_batch_pads_the_shorter_cases_at_their_end_and_marks_it():
    data = collection([3, 5])
    batch = Cases(data, np.array([7, 9]), scaler=IDENTITY).batch(np.array([1, 0]))
    assert batch.context.shape == (2, 2, 5) and batch.label.tolist() == [9, 7]
    assert batch.context_observed[0].all()
    assert batch.context_observed[1].tolist() == [[True] * 3 + [False] * 2] * 2
    np.testing.assert_allclose(batch.context[1, :, :3], data[0].values, rtol=1e-6)
    assert not batch.context[1, :, 3:].any()


def test_cases_of_one_length_without_gaps_need_no_mask():
    assert Cases(collection([4, 4]), scaler=IDENTITY).batch(np.arange(2)).context_observed is None


def test_a_case_ends_with_its_last_step_at_which_anything_was_observed():
    values = np.array([[1.0, np.nan, 3.0, np.nan, np.nan], [np.nan, 2.0, np.nan, np.nan, np.nan]])
    cases = Cases(Collection.of([Series(values)]), scaler=IDENTITY)
    assert cases.lengths.tolist() == [3]
    batch = cases.batch(np.array([0]))
    assert batch.context.tolist() == [[[1, 0, 3], [0, 2, 0]]]
    assert batch.context_observed.tolist() == [[[True, False, True], [False, True, False]]]


def test_a_case_without_any_value_is_refused_by_name():
    data = Collection.of([Series(np.ones((2, 3)), name="good"), Series(np.full((2, 3), np.nan), name="blank")])
    with pytest.raises(DataError, match="Case 'blank' \\(number 1\\) has no observed value"):
        Cases(data, scaler=IDENTITY)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 5))
def test_batches_of_equal_length_hold_every_case_once_and_pad_none(lengths, size):
    data = collection(lengths)
    seen = []
    for index, batch in Cases(data, scaler=IDENTITY).by_length(size):
        assert len(index) <= size and batch.context_observed is None
        assert {lengths[i] for i in index} == {batch.context.shape[-1]}
        seen += index.tolist()
    assert sorted(seen) == list(range(len(lengths)))


def test_the_scaler_counts_all_steps_of_all_cases():
    data = Collection.of([Series(np.array([[0.0, 2.0]])), Series(np.array([[4.0, 6.0, np.nan]]))])
    scaler = scaler_of_cases(data)
    assert scaler.mean.tolist() == [[3.0]] and scaler.scale[0, 0] == pytest.approx(np.sqrt(5))
    x = Cases(data, scaler=scaler).batch(np.arange(2)).context
    assert x[0, 0].tolist() == pytest.approx([-3 / 5**0.5, -1 / 5**0.5])


def test_the_range_scaler_maps_the_smallest_to_minus_one_and_the_largest_to_one():
    data = Collection.of([Series(np.array([[0.0, 2.0], [5.0, 5.0]])), Series(np.array([[np.nan, 6.0], [5.0, 5.0]]))])
    x = Cases(data, scaler=scaler_of_cases(data, "range")).batch(np.arange(2)).context
    assert x[:, 0].flatten().tolist() == pytest.approx([-1, 2 / 3 - 1, 0, 1]) and not x[:, 1].any()


def test_an_unknown_scaling_offers_the_nearest():
    with pytest.raises(SettingsError, match="Did you mean 'standard'"):
        scaler_of_cases(collection([3]), "standart")


def test_a_part_of_the_cases_keeps_their_labels():
    cases = Cases(collection([4, 4, 4]), np.array([0, 1, 2]), scaler=IDENTITY, index=np.array([2, 0]))
    assert len(cases) == 2 and cases.batch(np.arange(2)).label.tolist() == [2, 0]
    assert torch.equal(cases.batch(np.array([0])).context[0], torch.from_numpy(cases.data[2].values.astype(np.float32)))
