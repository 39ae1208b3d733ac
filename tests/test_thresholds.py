"""Thresholds are checked on samples whose quantiles are known, events and scaling by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from prismts.errors import DataError, SettingsError, ShapeError
from prismts.evaluation.thresholds import Event, RobustScale, events, quantile_threshold, tail_threshold

RATES = st.floats(1e-6, 0.5)


# Quantiles


def test_a_quantile_is_the_lowest_score_that_few_enough_exceed():
    scores = np.arange(1, 11.0)  # 1 to 10
    assert quantile_threshold(scores, 0.2).value == 8.0  # two of ten lie above, as many as asked for
    assert quantile_threshold(scores, 0.25).value == 8.0
    assert quantile_threshold(np.arange(100.0), 0.01).value == 98.0
    assert (scores > quantile_threshold(scores, 0.35).value).mean() == pytest.approx(0.3)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), RATES)
def test_no_more_training_scores_than_asked_lie_above_a_quantile(scores, rate):
    threshold = quantile_threshold(scores, rate)
    assert threshold.alarms(scores).mean() <= rate + 1e-12
    assert threshold.value in scores
    lower = [score for score in scores if score < threshold.value]
    assert not lower or (np.array(scores) > max(lower)).mean() > rate - 1e-9


def test_a_quantile_beyond_the_sample_is_its_highest_score_and_says_so():
    threshold = quantile_threshold([3.0, 1.0, 2.0], 0.001)
    assert threshold.value == 3.0 and threshold.method == "quantile" and threshold.n_scores == 3
    assert "the highest of 3 training scores, too few" in str(threshold)


# Tails


@pytest.mark.parametrize(
    ("law", "shape", "tolerance"),
    [(stats.expon(), 0.0, 0.12), (stats.norm(), -0.1, 0.08), (stats.t(4), 0.25, 0.2), (stats.pareto(3), 1 / 3, 0.25)],
    ids=["exponential", "Gaussian", "Student", "Pareto"],
)
@pytest.mark.parametrize("rate", [1e-2, 1e-3, 1e-4])
def test_a_tail_finds_the_known_quantile_of_a_law(law, shape, tolerance, rate):
    scores = [law.rvs(20_000, random_state=seed) for seed in range(5)]
    found = [tail_threshold(s, rate) for s in scores]
    assert np.median([t.value for t in found]) == pytest.approx(law.isf(rate), rel=tolerance)
    assert np.median([t.shape for t in found]) == pytest.approx(shape, abs=0.15)
    assert {t.n_tail for t in found} <= {999, 1000} and {t.method for t in found} == {"tail"}


@pytest.mark.parametrize("suspect_share", [0.0, 0.01])
def test_the_fit_equals_the_maximum_likelihood_of_scipy(suspect_share):
    scores = stats.genpareto(0.2, scale=3.0).rvs(4000, random_state=0)
    found = tail_threshold(scores, 1e-3, suspect_share=suspect_share)
    excess = np.sort(scores[scores > found.start]) - found.start
    n_suspect = int(suspect_share * 4000)
    censored = stats.CensoredData(
        uncensored=excess[: len(excess) - n_suspect], right=np.full(n_suspect, excess[len(excess) - n_suspect])
        if n_suspect else [],
    )  # fmt: skip
    shape, _, scale = stats.genpareto.fit(censored, floc=0)
    assert (found.shape, found.scale) == pytest.approx((shape, scale), abs=5e-3)
    beyond = stats.genpareto(shape, scale=scale).isf(1e-3 * 4000 / len(excess))
    assert found.value == pytest.approx(found.start + beyond, rel=1e-2)


def test_a_few_enormous_scores_in_training_hardly_move_the_threshold():
    rng = np.random.default_rng(0)
    clean = rng.exponential(size=20_000)
    dirty = clean.copy()
    dirty[:60] = rng.uniform(1000, 10_000, 60)  # .3 percent anomalies
    assert quantile_threshold(dirty, 1e-3).value > 1000
    assert tail_threshold(dirty, 1e-3, suspect_share=0).value > 3 * tail_threshold(clean, 1e-3).value
    assert tail_threshold(dirty, 1e-3).value < 1.5 * tail_threshold(clean, 1e-3).value
    assert tail_threshold(dirty, 1e-3).value == tail_threshold(np.minimum(dirty, 900), 1e-3).value


@settings(max_examples=30, deadline=None)
@given(RATES, RATES, st.integers(0, 3))
def test_a_lower_rate_never_lowers_the_threshold(one, other, seed):
    scores = np.random.default_rng(seed).gamma(2, size=800)
    low, high = sorted((one, other))
    for find in (quantile_threshold, tail_threshold):
        assert find(scores, low).value >= find(scores, high).value


@settings(max_examples=30, deadline=None)
@given(RATES, st.floats(0.01, 100), st.floats(-50, 50))
def test_scores_in_another_unit_have_the_threshold_in_that_unit(rate, unit, shift):
    scores = np.random.default_rng(1).gamma(2, size=800)
    for find in (quantile_threshold, tail_threshold):
        expected = unit * find(scores, rate).value + shift
        assert find(unit * scores + shift, rate).value == pytest.approx(expected, rel=1e-3)


def test_order_in_time_has_no_say_in_a_threshold():
    scores = np.random.default_rng(2).normal(size=1000)
    assert tail_threshold(scores, 1e-3) == tail_threshold(scores[::-1], 1e-3)


def test_a_rate_in_front_of_the_tail_is_a_quantile_and_says_so():
    scores = np.random.default_rng(0).normal(size=1000)
    threshold = tail_threshold(scores, 0.1)
    assert threshold.value == quantile_threshold(scores, 0.1).value
    assert threshold.method == "quantile" and threshold.shape is None
    assert "in front of the tail of the top 0.05" in threshold.words


def test_a_threshold_tells_how_it_was_found():
    threshold = tail_threshold(np.random.default_rng(0).exponential(size=1000), 1e-3)
    assert threshold.n_scores == 1000 and threshold.false_alarm_rate == 1e-3 and threshold.start < threshold.value
    assert "a rate of 0.001 by the tail of 49 among 1000 training scores, the top 5 of unknown height" in str(threshold)


def test_a_shape_at_its_bound_is_told():
    scores = np.random.default_rng(0).random(5000)  # a uniform tail ends abruptly: shape -1
    threshold = tail_threshold(scores, 1e-3)
    assert threshold.shape == pytest.approx(-0.5, abs=1e-6) and "met its bound of -0.5" in threshold.words


def test_too_small_a_tail_is_an_error_and_never_a_fallback():
    with pytest.raises(DataError, match=r"holds 5 distinct scores.*at least 20.*or use quantile_threshold"):
        tail_threshold(np.arange(120.0), 1e-3)
    with pytest.raises(DataError, match="holds 0 distinct scores"):
        tail_threshold(np.ones(10_000), 1e-3)


def test_a_tail_of_fewer_scores_than_are_suspected_is_too_small():
    scores = np.r_[np.ones(29_900), 1 + np.arange(1, 101) / 100]  # 100 above the start, 150 suspected
    with pytest.raises(DataError, match="holds 0 distinct scores"):
        tail_threshold(scores, 1e-4)


def test_an_alarm_lies_above_the_threshold_and_a_missing_score_raises_none():
    threshold = quantile_threshold([1.0, 2.0], 0.001)
    assert threshold.alarms([1.0, 2.0, 2.1, np.nan]).tolist() == [False, False, True, False]


@pytest.mark.parametrize("find", [quantile_threshold, tail_threshold])
def test_thresholds_refuse_what_has_no_meaning(find):
    with pytest.raises(SettingsError, match=r"such as 0\.001, but got 0"):
        find([1.0, 2.0], 0)
    with pytest.raises(DataError, match=r"at 1 of 2 steps.*np.isfinite"):
        find([1.0, np.nan], 0.1)
    with pytest.raises(ShapeError, match=r"\[time\].*\[1, 2\]"):
        find([[1.0, 2.0]], 0.1)


def test_a_suspect_share_leaves_most_of_the_tail():
    with pytest.raises(SettingsError, match="suspect_share from 0 to less than half"):
        tail_threshold(np.arange(1000.0), 1e-3, tail_share=0.02, suspect_share=0.01)


# Events


def test_events_have_an_exclusive_end_and_the_peak_of_the_scores():
    alarms, scores = [0, 1, 1, 1, 0, 0, 1], [9.0, 1.0, 3.0, 3.0, 0.0, 0.0, 5.0]
    assert events(alarms, scores) == [Event(1, 4, peak=2, score=3.0), Event(6, 7, peak=6, score=5.0)]
    assert events([0, 0], [1.0, 2.0]) == []


def test_alarms_with_a_short_gap_are_one_event():
    alarms, scores = [1, 0, 0, 1, 0, 0, 0, 1], np.arange(8.0)
    assert [(e.start, e.end) for e in events(alarms, scores, merge_gap=1)] == [(0, 1), (3, 4), (7, 8)]
    assert [(e.start, e.end) for e in events(alarms, scores, merge_gap=2)] == [(0, 4), (7, 8)]
    assert [(e.start, e.end) for e in events(alarms, scores, merge_gap=3)] == [(0, 8)]


def test_an_event_names_the_channels_to_blame_the_most_first():
    contributions = [[1.0, 1.0, 0.0, 9.0], [0.0, 6.0, 0.0, 0.0], [3.0, 0.0, 0.0, 1.0]]  # over steps 0, 1: 2, 6, 3
    alarms, scores, names = [1, 1, 0, 1], [4.0, 7.0, 0.0, 10.0], ["flow", "heat", "load"]
    first, second = events(alarms, scores, contributions, names)
    assert first.channels == ("heat", "load")  # 9 of 11 is .8 or more
    assert second.channels == ("flow",)
    assert events(alarms, scores, contributions, names, blame_share=0.5)[0].channels == ("heat",)
    assert events(alarms, scores, contributions, names, blame_share=1)[0].channels == ("heat", "load", "flow")
    assert events(alarms, scores, contributions)[1].channels == ("0",)
    assert events(alarms, scores, -np.ones((3, 4)), names)[0].channels == ()


@given(st.lists(st.integers(0, 1), min_size=1, max_size=40))
def test_events_give_the_alarms_back(alarms):
    again = np.zeros(len(alarms), dtype=int)
    for event in events(alarms, np.zeros(len(alarms))):
        assert event.start <= event.peak < event.end
        again[event.start : event.end] = 1
    assert again.tolist() == alarms


def test_events_refuse_arrays_that_do_not_belong_together():
    with pytest.raises(ShapeError, match=r"one length, but got shapes \[2\] and \[3\]"):
        events([0, 1], [1.0, 2.0, 3.0])
    with pytest.raises(DataError, match="0 and 1 only"):
        events([0.5, 1], [1.0, 2.0])
    with pytest.raises(DataError, match="NaN at a step of alarm"):
        events([0, 1], [1.0, np.nan])
    with pytest.raises(ShapeError, match=r"\[channel, time=2\].*\[2, 1\]"):
        events([0, 1], [1.0, 2.0], [[1.0], [2.0]])
    with pytest.raises(ShapeError, match="1 names, but contributions have 2 channels"):
        events([0, 1], [1.0, 2.0], [[1.0, 1.0], [2.0, 2.0]], ["flow"])
    with pytest.raises(SettingsError, match="merge_gap=-1"):
        events([0, 1], [1.0, 2.0], merge_gap=-1)


# Scaling


def test_scores_are_counted_in_interquartile_ranges_above_the_median_of_training():
    reference = [[0.0, 1.0, 2.0, 3.0, 4.0], [0.0, 10.0, 20.0, 30.0, 40.0]]  # medians 2 and 20, ranges 2 and 20
    np.testing.assert_allclose(RobustScale.fit(reference).apply([[2.0, 6.0], [0.0, 40.0]]), [[0, 2], [-1, 1]])


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(-100, 100))
def test_the_unit_of_a_channel_is_taken_away(unit, shift):
    rng = np.random.default_rng(0)
    reference, scores = rng.normal(size=(2, 50)), rng.normal(size=(2, 9))
    moved = RobustScale.fit(unit * reference + shift).apply(unit * scores + shift)
    np.testing.assert_allclose(moved, RobustScale.fit(reference).apply(scores), atol=1e-6)


def test_one_enormous_training_score_hardly_moves_the_scale():
    reference = np.random.default_rng(0).normal(size=(1, 1000))
    dirty = reference.copy()
    dirty[0, 0] = 1e9
    assert RobustScale.fit(dirty).scale == pytest.approx(RobustScale.fit(reference).scale, rel=0.02)


def test_a_channel_without_a_range_is_scaled_by_a_substitute_that_is_named():
    reference = np.zeros((3, 8))
    reference[0] = np.arange(8)  # quartiles 1.75 and 5.25
    reference[1, 0] = 4.0  # one of eight differs: mean distance from the median .5
    reference[2] = 7.0  # constant: the median scale of the others
    scale = RobustScale.fit(reference)
    assert scale.scale.tolist() == [3.5, 0.5, 2.0] and scale.guarded == (1, 2)
    assert RobustScale.fit(np.full((2, 5), 0.1)).scale.tolist() == [1.0, 1.0]
    rounding = np.full((1, 5), 0.3) + np.array([0, 1, 2, 3, 4]) * 2.0**-54
    assert RobustScale.fit(rounding).guarded == (0,)


def test_steps_that_were_not_judged_have_no_say_in_the_scale_and_stay_missing():
    reference = np.array([[0.0, 1.0, np.nan, 2.0, 3.0, 4.0]])
    scaled = RobustScale.fit(reference).apply([[4.0, np.nan]])
    assert scaled[0, 0] == 1.0 and np.isnan(scaled[0, 1])


def test_scaling_refuses_what_it_cannot_read():
    with pytest.raises(ShapeError, match=r"\[channel, time\], but has shape \[3\]"):
        RobustScale.fit([1.0, 2.0, 3.0])
    with pytest.raises(DataError, match=r"channels \[1\] are infinite or all NaN"):
        RobustScale.fit([[1.0, 2.0], [np.nan, np.nan]])
    with pytest.raises(ShapeError, match=r"\[channel=1, time\].*\[2, 2\]"):
        RobustScale.fit(np.ones((1, 4))).apply(np.ones((2, 2)))
