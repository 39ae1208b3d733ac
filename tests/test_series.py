"""What a Series and a Collection promise: views instead of copies, cases in order, errors that name the place."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prismts.data.series import Collection, Series, storage_dtype
from prismts.data.splits import Borders
from prismts.errors import DataError, ShapeError


def hourly(n_timepoints: int = 10, n_channels: int = 2, name: str = "plant") -> Series:
    values = np.arange(n_channels * n_timepoints, dtype=np.float32).reshape(n_channels, n_timepoints)
    times = pd.date_range("2024-02-28", periods=n_timepoints, freq="h").to_numpy()
    return Series(values, timestamps=times, frequency="h", name=name, labels=np.arange(n_timepoints) % 2)


def test_channels_without_names_are_counted():
    assert hourly(n_channels=2).channels == ("channel_0", "channel_1")


def test_integers_become_floats():
    assert Series(np.array([[1, 2, 3]])).values.dtype == np.float32


def test_a_value_that_is_not_a_number_was_not_observed():
    series = Series(np.array([[1.0, np.nan, 3.0]]))
    assert series.observed.tolist() == [[True, False, True]]


def test_a_part_is_a_view_with_its_own_times_and_labels():
    series = hourly()
    part = series.part(3, 7)
    assert np.shares_memory(part.values, series.values)
    assert part.values[0].tolist() == [3, 4, 5, 6]
    assert part.timestamps[0] == np.datetime64("2024-02-28T03:00")
    assert part.labels.tolist() == [1, 0, 1, 0]


def test_parts_follow_the_rules_of_slices():
    series = hourly()
    assert len(series.part(0, 99)) == 10
    assert len(series.part(-3, 10)) == 3


def test_official_borders_do_not_travel_with_a_part():
    series = Series(np.zeros((1, 10)), borders=Borders(6, 8, 10))
    assert series.part(0, 5).borders is None


def test_the_future_begins_one_step_after_the_end():
    assert [str(t)[:16] for t in hourly(10).future_timestamps(2)] == ["2024-02-28T10:00", "2024-02-28T11:00"]


def test_the_future_of_months_knows_that_2024_is_a_leap_year():
    times = pd.date_range("2023-12-01", periods=2, freq="MS").to_numpy()
    series = Series(np.zeros((1, 2)), timestamps=times, frequency="MS")
    assert [str(t)[:10] for t in series.future_timestamps(2)] == ["2024-02-01", "2024-03-01"]


def test_the_future_of_a_series_without_times_is_counted():
    assert Series(np.zeros((1, 5))).future_timestamps(3).tolist() == [5, 6, 7]


def test_times_without_a_frequency_have_no_future():
    times = np.array(["2024-01-01", "2024-01-02", "2024-01-05"], dtype="datetime64[ns]")
    with pytest.raises(DataError, match=r"no regular frequency.*frequency='h'"):
        Series(np.zeros((1, 3)), timestamps=times).future_timestamps(1)


def test_one_channel_without_its_axis_is_an_error_with_the_remedy():
    with pytest.raises(ShapeError, match=r"\[channel, time\].*shape \[5\].*values\[None, :\]"):
        Series(np.zeros(5))


def test_names_that_do_not_fit_the_channels_are_an_error_that_suspects_a_swap_of_axes():
    with pytest.raises(ShapeError, match=r"2 channel names .* 5 channels .*values\.T"):
        Series(np.zeros((5, 2)), ("a", "b"))


@pytest.mark.parametrize("what", ["timestamps", "labels"])
def test_times_and_labels_are_as_long_as_the_values(what):
    with pytest.raises(ShapeError, match=rf"3 {what} came with 4 time steps"):
        Series(np.zeros((1, 4)), **{what: np.zeros(3, dtype="int64")})


def test_an_infinite_value_is_an_error_that_names_channel_and_step():
    values = np.zeros((2, 4))
    values[1, 2] = np.inf
    with pytest.raises(DataError, match="channel 'b' at step 2"):
        Series(values, ("a", "b"))


def test_float32_keeps_loads_and_float64_keeps_small_moves_at_a_high_level():
    load = np.random.default_rng(0).standard_normal((1, 100))
    assert storage_dtype(5 + load) == np.float32
    assert storage_dtype(1e9 + load) == np.float64


def test_a_missing_value_does_not_hide_that_float32_is_too_coarse():
    values = 1e9 + np.random.default_rng(0).standard_normal((1, 100))
    values[0, 3] = np.nan
    assert storage_dtype(values) == np.float64


# --- many series -----------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_every_series_comes_out_of_a_collection_as_it_went_in(lengths):
    cases = [Series(np.full((2, n), i, dtype=np.float32), name=str(i)) for i, n in enumerate(lengths)]
    collection = Collection.of(cases)
    assert collection.lengths.tolist() == lengths
    for case, again in zip(cases, collection, strict=True):
        assert case.name == again.name
        np.testing.assert_array_equal(case.values, again.values)


def test_a_single_series_and_the_cases_of_a_collection_are_shared_and_not_copied():
    series = hourly()
    collection = Collection.of(series)
    assert collection.values is series.values
    assert np.shares_memory(collection[0].values, series.values)
    assert np.shares_memory(collection.cases(0, 1).values, series.values)


def test_an_array_of_cases_is_read_case_by_case():
    x = np.arange(24.0).reshape(3, 2, 4)  # [n, C, T]
    collection = Collection.from_array(x, labels=np.array([0, 1, 0]))
    assert collection.n_channels == 2
    for i in range(3):
        np.testing.assert_array_equal(collection[i].values, x[i])


def test_the_last_case_has_number_minus_one_and_there_is_none_behind_it():
    collection = Collection.from_array(np.arange(6.0).reshape(3, 1, 2))
    assert collection[-1].values.tolist() == [[4.0, 5.0]]
    with pytest.raises(IndexError):
        collection[3]


def test_train_and_test_are_the_first_cases_and_the_rest():
    x = np.arange(5.0)[:, None, None] * np.ones((5, 1, 3))
    whole = Collection.from_array(x, labels=np.arange(5))
    collection = Collection(**{**vars(whole), "n_train": 2})
    assert collection.train.labels.tolist() == [0, 1]
    assert collection.test.labels.tolist() == [2, 3, 4]
    assert collection.test[0].values.tolist() == [[2.0, 2.0, 2.0]]
    assert collection.test.offsets.tolist() == [0, 3, 6, 9]


def test_a_collection_without_official_parts_says_so():
    with pytest.raises(DataError, match="no official train and test part"):
        _ = Collection.from_array(np.zeros((2, 1, 3))).train


def test_series_with_other_channels_are_refused_by_name():
    with pytest.raises(DataError, match=r"'b' has \['x'\] and 'a' has \['y'\]"):
        Collection.of([Series(np.zeros((1, 2)), ("y",), name="a"), Series(np.zeros((1, 2)), ("x",), name="b")])


def test_an_empty_list_is_no_collection():
    with pytest.raises(DataError, match="at least one series"):
        Collection.of([])


def test_an_array_of_two_axes_is_no_collection():
    with pytest.raises(ShapeError, match=r"\[case, channel, time\].*x\[:, None, :\]"):
        Collection.from_array(np.zeros((3, 4)))


def test_times_survive_only_where_every_series_has_them():
    timed, untimed = hourly(3), Series(np.zeros((2, 3)))
    assert Collection.of([timed, timed]).timestamps is not None
    assert Collection.of([timed, untimed]).timestamps is None
