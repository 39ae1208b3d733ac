"""Days that slide: planted lags are found, and the slides' ten numbers come out of the real files."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prismts.analysis.alignment import day_lags, full_days, phase_drift, spai
from prismts.data.catalog import load_dataset
from prismts.errors import DataError, ShapeError

SLIDES = {
    "ETTh2": (0.0417, 0.8193), "ETTm2": (0.0208, 0.8221), "ETTh1": (0.0833, 0.6530), "ETTm1": (0.0885, 0.6496),
    "Weather": (0.0486, 0.7675),
}  # fmt: skip


def hours(n_days):
    return np.datetime64("2024-01-01T00", "h") + np.arange(24 * n_days)


def one_bump():
    return np.exp(-0.5 * ((np.arange(24) - 12) / 2) ** 2)


def by_a_plain_loop(days):
    """Median lag as a fraction of a day and mean correlation, by the definition, one pair and one lag at a time."""
    n_samples = days.shape[1]
    lags, similarities = [], []
    for before, after in pairwise(days):
        a, b = before - before.mean(), after - after.mean()
        size = np.sqrt((a * a).sum() * (b * b).sum())
        r = [sum(a[t] * b[(t + lag) % n_samples] for t in range(n_samples)) / size for lag in range(n_samples)]
        lag = int(np.argmax(r))
        lags.append(min(lag, n_samples - lag))
        similarities.append(max(r))
    return np.median(lags) / n_samples, np.mean(similarities)


@pytest.mark.parametrize("name", SLIDES)
def test_the_real_sets_give_the_ten_numbers_of_the_slides(name, data_root):
    series = load_dataset(name)
    values = np.nan_to_num(series.values[-1], nan=-9999.0)  # the slides took the file's missing code for a measurement
    assert round(phase_drift(values, series.timestamps), 4) == SLIDES[name][0]
    assert round(spai(values, series.timestamps), 4) == SLIDES[name][1]


def test_without_the_missing_codes_weather_is_slightly_better_aligned_than_the_slides_say(data_root):
    series = load_dataset("Weather")
    found = day_lags(series.values[-1], series.timestamps)
    assert len(found.lags) == 360  # 363 full dates, two of them with values that were not observed
    assert round(found.phase_drift, 4) == 0.0486
    assert round(found.spai, 4) == 0.7702


def test_a_planted_slide_is_found_in_steps_and_with_its_sign():
    planted = [0, 3, -2, 5]
    position = np.cumsum([0, *planted])
    values = np.concatenate([7 + (i + 1) * np.roll(one_bump(), p) for i, p in enumerate(position)])
    found = day_lags(values, hours(5))
    assert found.lags.tolist() == planted
    np.testing.assert_allclose(found.similarity, 1.0)
    assert found.phase_drift == pytest.approx(2.5 / 24)  # the median of 0, 2, 3, 5
    assert found.dates.tolist() == (np.datetime64("2024-01-02") + np.arange(4)).tolist()


def test_days_that_repeat_exactly_do_not_drift_and_agree_fully():
    values = np.tile([0.0, 1.0] * 12, 10)  # every second lag fits as well: the shortest counts
    assert phase_drift(values, hours(10)) == 0
    assert spai(values, hours(10)) == pytest.approx(1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 100), st.floats(-1000, 1000))
def test_the_vectorized_answer_is_that_of_a_plain_loop_in_any_unit(seed, scale, level):
    days = np.random.default_rng(seed).standard_normal((5, 24))
    drift, similarity = by_a_plain_loop(days)
    assert phase_drift(scale * days.ravel() + level, hours(5)) == pytest.approx(drift)
    assert spai(scale * days.ravel() + level, hours(5)) == pytest.approx(similarity)


def test_a_day_that_never_moves_counts_as_no_agreement_without_a_slide():
    values = np.concatenate([one_bump(), np.full(24, 0.3), one_bump()])
    found = day_lags(values, hours(3))
    assert found.similarity.tolist() == [0, 0]
    assert found.lags.tolist() == [0, 0]


def test_a_date_with_an_unobserved_step_is_left_out_and_its_neighbors_are_compared():
    values = np.concatenate([one_bump(), np.full(24, np.nan), np.roll(one_bump(), 2)])
    values[24:47] = 1.0  # one NaN is enough
    assert day_lags(values, hours(3)).lags.tolist() == [2]


def test_only_dates_with_a_full_day_of_samples_count():
    times = hours(4)
    without = np.delete(np.arange(96), [30])  # the second day lacks an hour
    days = full_days(times[without][5:])  # and the first begins late
    assert days.dates.tolist() == (np.datetime64("2024-01-03") + np.arange(2)).tolist()
    assert (times[without][5:][days.steps[0]] == times[48:72]).all()


def test_steps_of_a_day_are_refused_and_the_error_says_which_steps_would_do():
    times = np.datetime64("2024-01-01") + np.arange(30)
    with pytest.raises(DataError, match=r"whole fraction of a day such as 10min or h, .* 1 day, 0:00:00"):
        phase_drift(np.arange(30.0), times)


def test_too_few_full_days_are_refused():
    with pytest.raises(DataError, match="only 1 of 1 dates with 24 samples"):
        spai(np.arange(24.0), hours(1))


def test_a_table_is_refused_where_one_channel_is_read():
    with pytest.raises(ShapeError, match=r"one channel \[time\], but values have shape \[2, 48\]"):
        spai(np.zeros((2, 48)), hours(2))
