"""Simulated series hold what they say they hold: periods, lags, labels, and a floor that can be beaten."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from prismts.data.series import Collection, Series
from prismts.data.synthetic import (
    FOLLOWER_LAG,
    OIL_LAG,
    OIL_MEMORY,
    labeled_motions,
    planted_anomalies,
    random_walk,
    simulated_plant,
    sine_mixture,
)
from prismts.errors import SettingsError

GENERATORS = [labeled_motions, planted_anomalies, random_walk, simulated_plant, sine_mixture]


@pytest.mark.parametrize("make", GENERATORS)
def test_equal_seeds_give_equal_series_and_other_seeds_do_not(make):
    np.testing.assert_array_equal(make(seed=3).values, make(seed=3).values)
    assert not np.array_equal(make(seed=3).values, make(seed=4).values)


@pytest.mark.parametrize("make", GENERATORS)
def test_everything_is_single_precision_and_observed(make):
    made: Series | Collection = make()
    assert made.values.dtype == np.float32
    assert np.isfinite(made.values).all()


def test_the_spectrum_of_a_sine_mixture_peaks_at_its_two_periods():
    values = sine_mixture(1008, periods=(24, 168), n_channels=2).values  # 1008 steps: 42 days, 6 weeks
    strength = np.abs(np.fft.rfft(values))  # [C, frequency]
    assert [sorted(np.argsort(channel)[-2:]) for channel in strength] == [[6, 42], [6, 42]]


def test_a_sine_without_noise_repeats_itself_after_one_period():
    values = sine_mixture(96, periods=(24,), amplitudes=(2,), noise=0).values
    np.testing.assert_allclose(values[:, 24:], values[:, :-24], atol=1e-5)
    assert np.abs(values).max() == pytest.approx(2, abs=0.02)


def test_a_period_without_an_amplitude_is_refused():
    with pytest.raises(SettingsError, match="2 periods and 1"):
        sine_mixture(periods=(24, 168), amplitudes=(1,))


def test_the_last_value_of_a_random_walk_errs_by_as_many_units_as_there_are_steps():
    walk = random_walk(200_000).values[0].astype(np.float64)
    for horizon in (1, 4, 9):
        assert np.mean((walk[horizon:] - walk[:-horizon]) ** 2) == pytest.approx(horizon, rel=0.02)


def test_planted_anomalies_are_labeled_apart_and_only_after_training():
    series = planted_anomalies(4000, n_anomalies=6, length=40)
    assert series.borders.train == (0, 2000)
    assert series.labels[:2000].sum() == 0
    assert series.labels.sum() == 6 * 40
    assert (np.diff(series.labels) == 1).sum() == 6  # six beginnings: none touches another


def test_outside_the_labels_a_planted_series_repeats_itself_and_inside_it_does_not():
    series = planted_anomalies(4000, noise=0)
    change = np.abs(series.values[:, 50:] - series.values[:, :-50]).max(axis=0)  # [T - 50], from one period to the next
    normal = (series.labels[50:] == 0) & (series.labels[:-50] == 0)
    assert change[normal].max() < 1e-3
    for begin in np.flatnonzero(np.diff(series.labels) == 1) + 1:
        assert change[begin - 50 : begin - 10].max() > 0.5


def test_anomalies_that_do_not_fit_are_refused_with_the_length_that_would():
    with pytest.raises(SettingsError, match="at least 4400"):
        planted_anomalies(4000, n_anomalies=50, length=42)
    planted_anomalies(4400, n_anomalies=50, length=42)


def test_the_strongest_frequency_of_a_motion_tells_its_class_without_an_error():
    motions = labeled_motions(90, n_classes=3, n_timepoints=100)
    x = np.stack([case.values for case in motions])  # [n, C, T]
    turns = np.abs(np.fft.rfft(x)).mean(axis=1).argmax(axis=-1)  # 3, 5 or 7 turns
    np.testing.assert_array_equal((turns - 3) // 2, motions.labels)


def test_both_parts_of_the_motions_hold_every_class_equally_often():
    motions = labeled_motions(90, n_classes=3)
    assert np.bincount(motions.train.labels).tolist() == [20, 20, 20]
    assert np.bincount(motions.test.labels).tolist() == [10, 10, 10]


# --- the plant -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plant() -> Series:
    return simulated_plant()


def test_the_plant_has_seven_channels_and_as_many_hours_as_the_station_it_stands_in_for(plant):
    assert plant.values.shape == (7, 17420)
    assert plant.channels[-1] == "oil"
    assert plant.future_timestamps(1)[0] - plant.timestamps[-1] == np.timedelta64(1, "h")


def test_every_feeder_has_a_daily_cycle(plant):
    days = len(plant) // 24
    strength = np.abs(np.fft.rfft(plant.values[:5, : days * 24] - plant.values[:5, : days * 24].mean(axis=1)[:, None]))
    fastest_month = days // 30  # slower waves are the year and the wandering level
    peak = strength[:, fastest_month:].argmax(axis=1) + fastest_month
    assert (np.abs(peak - days) <= days // 100).all()  # once a day, up to the wobble of its phase


def test_one_feeder_follows_another_after_the_planted_lag(plant):
    moves = np.diff(plant.values[:2].astype(np.float64), n=1)
    moves = moves[:, 168:] - moves[:, :-168]  # without the daily and weekly cycle
    lags = range(-12, 13)
    together = [np.mean(moves[0, 12:-12] * np.roll(moves[1], -lag)[12:-12]) for lag in lags]
    assert lags[int(np.argmax(together))] == FOLLOWER_LAG


def test_oil_is_the_air_plus_the_smoothed_load_of_two_hours_before(plant):
    load, air, oil = plant.values[:5].sum(axis=0), plant.values[5], plant.values[6]
    forget = np.exp(-1 / OIL_MEMORY)
    expected = [load[0]]
    for hour in range(1, 2000):  # the law, one hour after the other
        expected.append(forget * expected[-1] + (1 - forget) * load[max(hour - OIL_LAG, 0)])
    error = oil[:2000] - air[:2000] - np.array(expected)
    assert (
        error[24:].std() < 0.45
    )  # the noise of air (.3) and oil (.1), and the smoothed noise and spikes of the feeders
    assert np.std(oil[:2000]) > 5 * error[24:].std()


def test_the_fluctuations_of_a_plant_of_quarter_hours_last_as_many_hours(plant):
    finer = simulated_plant(4 * 17420, frequency="15min")

    def memory(values, day):
        moves = values[:5, day:] - values[:5, :-day]
        return np.mean(moves[:, 4 * day // 24 :] * moves[:, : -4 * day // 24], axis=1) / moves.var(axis=1)

    np.testing.assert_allclose(memory(finer.values, 96), memory(plant.values, 24), atol=0.1)


def test_a_straight_line_beats_yesterday_and_yesterday_beats_the_last_value(plant):
    context, horizon = 168, 24
    begin = plant.borders.validation_end
    train = plant.values[:, : plant.borders.train_end].astype(np.float64)
    scaled = (plant.values - train.mean(axis=1)[:, None]) / train.std(axis=1)[:, None]

    def windows(first, end):
        both = sliding_window_view(scaled[:, first:end], context + horizon, axis=1)[:, ::7]
        both = both.reshape(-1, context + horizon)
        both = both - both[:, :context].mean(axis=1)[:, None]
        return both[:, :context], both[:, context:]

    x, y = windows(0, plant.borders.train_end)
    weights = np.linalg.solve(x.T @ x + 100 * np.eye(context), x.T @ y)  # [context, horizon]
    x, y = windows(begin - context, plant.borders.test_end)
    line, day, last = (np.mean((guess - y) ** 2) for guess in (x @ weights, x[:, -24:], x[:, -1:]))
    assert line < 0.7 * day < day < 0.5 * last
