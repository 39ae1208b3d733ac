"""The profile: planted gaps, cycles, lags, correlations and changes come back; what has no number says why."""

import numpy as np
import pytest

from prismts.data import profile as module
from prismts.data.catalog import load_dataset
from prismts.data.profile import Limits, profile
from prismts.data.series import Collection, Series
from prismts.data.splits import Borders
from prismts.data.synthetic import labeled_motions, random_walk, simulated_plant, sine_mixture
from prismts.errors import SettingsError


def hours(n):
    return np.datetime64("2024-01-01T00", "h") + np.arange(n)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


# ---- gaps


def test_gaps_are_counted_and_the_longest_is_given():
    values = np.ones((2, 100))
    values[0, [3, 10, 11, 12]] = np.nan
    values[1, 97:] = np.nan
    gaps = profile(Series(values)).gaps
    assert (gaps.share, gaps.n_gaps, gaps.longest) == (7 / 200, 3, 3)


def test_a_gap_at_the_end_of_one_series_does_not_go_on_in_the_next():
    first, second = np.ones((1, 40)), np.ones((1, 40))
    first[0, 38:], second[0, :3] = np.nan, np.nan
    gaps = profile(Collection.of([Series(first, name="a"), Series(second, name="b")])).gaps
    assert (gaps.n_gaps, gaps.longest) == (2, 3)


# ---- cycle and slow movements


@pytest.mark.parametrize("period", [7.0, 24.0, 36.5])
def test_a_planted_cycle_is_found_under_noise_and_a_trend(period):
    step = np.arange(2000)
    values = np.sin(2 * np.pi * step / period) + 0.7 * noise(2000) + 0.002 * step
    cycle = profile(Series(values[None])).cycle
    assert cycle is not None
    assert cycle.period == pytest.approx(period, rel=0.005)


def test_of_two_cycles_the_stronger_one_is_named_and_its_strength_is_its_share():
    cycle = profile(sine_mixture(4000, periods=(24.0, 168.0), amplitudes=(1.0, 0.5), noise=0.0)).cycle
    assert cycle is not None and cycle.season == 24
    assert cycle.strength == pytest.approx(1 / (1 + 0.25), abs=0.01)


def test_a_cycle_whose_overtone_is_stronger_is_still_the_cycle():
    cycle = profile(sine_mixture(2000, periods=(24.0, 8.0), amplitudes=(0.5, 1.0), noise=0.3)).cycle
    assert cycle is not None and cycle.season == 24
    assert cycle.strength == pytest.approx(0.625 / (0.625 + 0.09), abs=0.02)  # both sines, over them and the noise


def test_a_cycle_of_four_steps_has_nothing_faster_to_be_measured():
    found = profile(sine_mixture(1000, periods=(4.0,), amplitudes=(1.0,), noise=0.3))
    assert found.low_frequency.told() == (
        "not measurable: a cycle of 4 steps leaves nothing that is faster than its third overtone"
    )


@pytest.mark.parametrize("seed", range(5))
def test_neither_noise_nor_a_random_walk_has_a_cycle(seed):
    assert profile(Series(noise(1, 3000, seed=seed))).cycle is None
    assert profile(random_walk(3000, seed=seed)).cycle is None


def test_the_residual_is_the_share_of_the_noise_above_the_third_overtone():
    # a sine of variance 1/2 and noise of variance 1/2, of which the lowest 4/24 of 1/2 cycles a step counts as slow
    found = profile(sine_mixture(20000, periods=(24.0,), amplitudes=(1.0,), noise=0.5**0.5))
    assert found.residual.value == pytest.approx(0.5 * (1 - 8 / 24), abs=0.02)
    assert found.low_frequency.value == pytest.approx(1 - found.residual.value)


def test_without_a_cycle_slow_cannot_be_told_from_fast():
    low = profile(random_walk(1000)).low_frequency
    assert low.value is None
    assert low.told() == "not measurable: no cycle stands out by which fast could be told from slow"
    assert profile(random_walk(1000)).residual == low


# ---- days


def test_days_are_compared_before_the_test_part_only():
    step = np.arange(24 * 50)
    values = np.sin(2 * np.pi * step / 24)
    values[24 * 40 :] = noise(240)  # the last fifth is the test part
    found = profile(Series(values[None], timestamps=hours(1200), frequency="h"))
    assert found.spai.value == pytest.approx(1)
    assert found.phase_drift.value == 0


def test_the_days_of_the_last_channel_decide_and_another_can_be_chosen():
    day = np.sin(2 * np.pi * np.arange(24 * 50) / 24)
    series = Series(np.stack([day, noise(1200), day]), ("a", "b", "c"), hours(1200), "h")
    found = profile(series)
    assert found.channel == "c" and found.spai.value == pytest.approx(1) == found.median_spai.value
    assert profile(series, channel="b").spai.value < 0.7
    with pytest.raises(SettingsError, match="no channel named 'd'"):
        profile(series, channel="d")


@pytest.mark.parametrize(
    ("series", "reason"),
    [
        (random_walk(200), "the series has no timestamps"),
        (Series(noise(1, 200), timestamps=np.datetime64("2020-01-01") + np.arange(200)), "a whole fraction of a day"),
        (Series(noise(1, 40), timestamps=hours(40), frequency="h"), "only 1 of 1 dates with 24 samples"),
        (Series(np.ones((1, 200)), timestamps=hours(200), frequency="h"), "nothing in it ever moves"),
    ],
)
def test_days_that_cannot_be_compared_say_why(series, reason):
    found = profile(series)
    assert found.spai.value is None and reason in found.spai.reason
    assert found.conditions[0].holds is None
    assert "not measurable: a daily skeleton that wobbles" in found.suggestion[0]


# ---- channels


def test_the_mean_absolute_correlation_is_numpys_over_pairs():
    x = noise(4, 500)
    x[1] += 2 * x[0]
    x[2] -= x[0]
    r = np.corrcoef(x[:, :400])  # before the test part
    expected = np.abs(r[np.triu_indices(4, k=1)]).mean()
    assert profile(Series(x)).co_movement.value == pytest.approx(expected)


def test_pairs_are_compared_where_both_were_observed():
    x = noise(3, 500)
    x[1] += x[0]
    x[0, 10:200], x[1, 150:300] = np.nan, np.nan
    pairs = []
    for a, b in ((0, 1), (0, 2), (1, 2)):
        both = ~np.isnan(x[a, :400] + x[b, :400])
        pairs.append(abs(np.corrcoef(x[a, :400][both], x[b, :400][both])[0, 1]))
    assert profile(Series(x)).co_movement.value == pytest.approx(np.mean(pairs))


def test_flat_and_unobserved_channels_do_not_count():
    x = np.stack([noise(300), np.full(300, 1e6), np.full(300, np.nan)])
    found = profile(Series(x)).co_movement
    assert found.told() == "not measurable: fewer than two channels ever move"
    assert profile(Series(np.stack([x[0], 2 * x[0], *x[1:]]))).co_movement.value == pytest.approx(1)


def test_of_many_channels_a_sample_is_measured_and_the_notes_say_so(monkeypatch):
    monkeypatch.setattr(module, "MOST_CHANNELS", 5)
    found = profile(Series(noise(30, 200)))
    assert found.notes == ("Measured were 5 of 30 channels and their pairs, spread evenly.",)
    assert found.co_movement.value == pytest.approx(
        profile(Series(noise(30, 200)[[0, 7, 14, 22, 29]])).co_movement.value
    )


def test_of_a_long_series_the_last_steps_before_the_test_part_are_measured(monkeypatch):
    monkeypatch.setattr(module, "MOST_STEPS", 300)
    x = noise(2, 1000)
    x[1, 500:] = x[0, 500:]  # together only lately: the last 300 before step 800
    found = profile(Series(x))
    assert found.co_movement.value == pytest.approx(1)
    assert "the last 300 steps before the test part" in found.notes[0]


# ---- change


def test_a_planted_change_of_level_and_spread_comes_back():
    wave = np.tile([1.0, -1.0], 500)  # mean 0 and standard deviation 1, wherever it is cut at even steps
    values = np.concatenate([wave[:600], 3 + 2 * wave[600:800], -5 + 0.5 * wave[800:]])[None]
    found = profile(Series(values, borders=Borders(600, 800, 1000)))
    assert (found.mean_shift.value, found.scale_ratio.value) == pytest.approx((3, 2))
    assert (found.test_mean_shift.value, found.test_scale_ratio.value) == pytest.approx((5, 0.5))
    assert found.conditions[3].holds
    assert "the mean moves by 3.00 standard deviations" in found.conditions[3].sentence


def test_what_the_test_part_does_changes_no_condition_and_no_suggestion():
    series = simulated_plant(3000)
    other = series.values.copy()
    other[:, series.borders.validation_end :] = 50 * noise(7, 3000 - series.borders.validation_end)
    before, after = profile(series), profile(Series(other, series.channels, series.timestamps, "h"))
    assert before.conditions == after.conditions
    assert before.suggestion == after.suggestion
    assert before.test_scale_ratio != after.test_scale_ratio


def test_a_spread_that_only_shrinks_is_a_change_too():
    wave = np.tile([1.0, -1.0], 500)
    wave[700:800] *= 0.5
    assert profile(Series(wave[None], borders=Borders(700, 800, 1000))).conditions[3].holds


# ---- what is said


def test_every_suggestion_carries_the_numbers_it_rests_on():
    found = profile(simulated_plant(4000))
    assert found.suggestion[0].startswith("3 of the 4 conditions")
    assert f"Channels correlate at {found.co_movement.value:.2f} on average" in found.suggestion[1]
    assert f"A cycle of 24 steps carries {found.cycle.strength:.0%} of the energy" in found.suggestion[2]
    assert f"the mean moves by {found.mean_shift.value:.2f} standard deviations" in found.suggestion[3]


def test_limits_decide_and_can_be_given():
    strict = profile(simulated_plant(4000), limits=Limits(spai=0.99, co_movement=0.9, low_frequency=0.999))
    assert [condition.holds for condition in strict.conditions[:3]] == [False, False, False]
    assert "too few to try it before convtimenet" in strict.suggestion[0]
    assert "keep them apart" in strict.suggestion[1]


def test_what_is_printed_shows_every_condition_gaps_and_cycle():
    values = simulated_plant(2000).values.copy()
    values[0, 100:110] = np.nan
    text = str(profile(Series(values, timestamps=hours(2000), frequency="h", name="plant")))
    assert text.splitlines()[0] == "plant: profile of the first 1,600 steps, before the test part"
    assert "0.07% not observed, 1 gaps, the longest 10 steps" in text
    assert "cycle          24 steps" in text
    assert text.count("[yes]") + text.count("[no ]") == 4
    assert "at most 10 steps in a row" in text


def test_cases_are_measured_in_their_train_part_and_say_what_is_missing():
    found = profile(labeled_motions(30))
    assert found.notes == ("Measured were 16 of 20 series, spread evenly.",)
    assert found.mean_shift.value is None
    assert found.n_steps == 100


def test_a_collection_gives_the_median_of_its_series():
    x = noise(2, 3, 300)
    cases = [Series(x[:, i], name=str(i)) for i in range(3)]
    for i, case in enumerate(cases):
        case.values[1] += i * case.values[0]
    each = [profile(case).co_movement.value for case in cases]
    assert profile(Collection.of(cases)).co_movement.value == pytest.approx(np.median(each))


@pytest.mark.parametrize(
    "data",
    [
        Series(np.zeros((1, 0))),
        Series(np.full((2, 50), np.nan), timestamps=hours(50), frequency="h"),
        Collection.of([Series(np.zeros((1, 0)), name="a"), Series(np.ones((1, 9)), name="b")]),
    ],
    ids=["empty", "never observed", "one empty of two"],
)
def test_data_in_which_nothing_can_be_measured_say_so_four_times(data):
    found = profile(data)
    assert [condition.holds for condition in found.conditions] == [None] * 4
    assert str(found).count("not measurable") >= 4


def test_a_handful_of_steps_is_no_error():
    found = profile(Series(np.array([[1.0, 2.0]])))
    assert found.mean_shift.value is None and found.cycle is None
    assert "not measurable" in str(found)


@pytest.mark.parametrize(
    ("name", "season", "n_holding"), [("ETTh2", 24, 4), ("ETTm2", 96, 4), ("ETTh1", 24, 1), ("Weather", 144, 4)]
)
def test_real_sets_show_their_day_and_the_two_of_the_slides_meet_all_four(name, season, n_holding, data_root):
    found = profile(load_dataset(name))
    assert found.cycle.season == season
    assert sum(bool(condition.holds) for condition in found.conditions) == n_holding
