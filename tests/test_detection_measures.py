"""Every measure of detection has numbers to check by hand, an independent second answer, and laws that always hold."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from prismts.errors import DataError, SettingsError, ShapeError
from prismts.evaluation.detection import (
    DETECTION_METRICS,
    DetectionUndefined,
    affiliation,
    affiliation_f1,
    auc_pr,
    auc_roc,
    best_event_f1,
    best_f1,
    best_point_adjusted_f1,
    best_range_f1,
    detection_scores,
    event_f1,
    f1,
    median_anomaly_length,
    point_adjusted_f1,
    range_f1,
    vus,
    vus_buffer,
    vus_pr,
    vus_roc,
)
from prismts.evaluation.detection_f1 import best_over_thresholds

FROM_SCORES = [name for name, metric in DETECTION_METRICS.items() if metric.reads == "scores"]
FROM_ALARMS = [name for name, metric in DETECTION_METRICS.items() if metric.reads == "prediction"]


AEON = {"n_thresholds": 250, "variant": "aeon"}


def bits(n, *intervals):
    """[n] of 0 and 1, with ones in the intervals, end exclusive."""
    flags = np.zeros(n, dtype=int)
    for start, end in intervals:
        flags[start:end] = 1
    return flags


def some_case(seed, n_timepoints=None, ties=False):
    """Labels with a few events (both borders of the series may hold one) and scores that know a little about them."""
    rng = np.random.default_rng(seed)
    n = n_timepoints or int(rng.integers(20, 300))
    labels = np.zeros(n, dtype=int)
    for start in rng.integers(0, n, rng.integers(1, 9)):
        labels[start : start + rng.integers(1, 12)] = 1
    labels[: rng.integers(0, 3)] = 1
    labels[n // 2] = 0
    scores = rng.normal(size=n) + labels
    return labels, np.round(scores) if ties else scores


def events_of(flags):
    """Runs of ones as (start, end), end exclusive, found one step at a time."""
    places = [i for i, flag in enumerate(flags) if flag]
    groups = itertools.groupby(enumerate(places), lambda pair: pair[1] - pair[0])
    return [(run[0][1], run[-1][1] + 1) for run in (list(group) for _, group in groups)]


labels_and_alarms = st.integers(2, 40).flatmap(
    lambda n: st.tuples(*(st.lists(st.integers(0, 1), min_size=n, max_size=n).map(np.array) for _ in range(2)))
)


# Volume under the surface


def aeon_volumes(labels, scores, buffer):
    from aeon.benchmarking.metrics.anomaly_detection import range_pr_vus_score, range_roc_vus_score

    return range_pr_vus_score(labels, scores, buffer), range_roc_vus_score(labels, scores, buffer)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_vus_equals_aeon_on_events_that_overlap_touch_and_stand_at_the_borders(seed, ties):
    pytest.importorskip("aeon")
    labels, scores = some_case(seed, ties=ties)
    buffer = int(np.random.default_rng(seed).integers(0, 12))
    assert vus(labels, scores, buffer, **AEON) == pytest.approx(aeon_volumes(labels, scores, buffer), abs=1e-9)


def test_vus_equals_aeon_where_ramps_reach_over_whole_events_and_series():
    pytest.importorskip("aeon")
    labels, scores = some_case(5, n_timepoints=40)
    assert vus(labels, scores, 90, **AEON) == pytest.approx(aeon_volumes(labels, scores, 90), abs=1e-9)


def test_vus_of_scores_that_never_change_is_zero_as_in_aeon():
    pytest.importorskip("aeon")
    labels = bits(30, (4, 9))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert vus(labels, np.ones(30), 10, **AEON) == aeon_volumes(labels, np.ones(30), 10) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["SMAP/A-1.npz", "WSD/10.npz"])
def test_vus_equals_aeon_on_real_labels(data_root, file):
    pytest.importorskip("aeon")
    path = data_root / "anomaly" / file
    if not path.exists():
        pytest.skip(f"{path} is not there")
    labels = np.load(path)["test_label"].astype(int)
    values = np.load(path)["test"].reshape(len(labels), -1)[:, 0]
    scores = np.abs(values - np.median(values)) + 1e-3 * np.random.default_rng(0).random(len(labels))
    assert vus(labels, scores, 20, **AEON) == pytest.approx(aeon_volumes(labels, scores, 20), abs=1e-6)


def slow_tsb_volumes(labels, scores, buffer, n_thresholds):
    """The definition of TSB-AD step by step: ramps added to a copy of the labels, one threshold after the other."""
    n, true_events = len(labels), events_of(labels)
    thresholds = np.sort(scores)[::-1][np.linspace(0, n - 1, n_thresholds).astype(int)]
    areas = []
    for b in range(buffer + 1):
        half = b // 2
        soft = labels.astype(float)
        for start, end in true_events:
            for k in range(1, half + 1):
                for t in (start - k, end - 1 + k):
                    if 0 <= t < n:
                        soft[t] = min(soft[t] + np.sqrt(1 - k / b), 1)
        wide = [[true_events[0][0] - half, true_events[0][1] - 1 + half]]
        for start, end in true_events[1:]:
            if wide[-1][1] < start - half:
                wide.append([start - half, end - 1 + half])
            else:
                wide[-1][1] = end - 1 + half
        curve = [(0.0, 0.0, 1.0)]
        for threshold in thresholds:
            alarm = scores >= threshold
            hits = (soft * alarm).sum()
            counted = np.where(labels == 1, 1, soft * alarm).sum()
            wanted = (labels.sum() + counted) / 2
            found = np.mean([alarm[max(start, 0) : end + 1].any() for start, end in wide])
            curve.append(
                (min(hits / wanted, 1) * found, (alarm.sum() - hits) / (n - wanted), hits / alarm.sum())
            )  # fmt: skip
        recall, false_rate, precision = np.array(curve).T
        pr = (np.diff(recall) * precision[1:]).sum()
        roc = np.trapezoid(np.r_[recall, 1], np.r_[false_rate, 1])
        areas.append((pr, roc))
    return np.mean(areas, axis=0)


@pytest.mark.parametrize("seed", range(6))
def test_the_variant_of_the_leaderboard_equals_its_definition_written_out(seed):
    labels, scores = some_case(seed, n_timepoints=80, ties=seed % 2 == 0)
    slow = slow_tsb_volumes(labels, scores, buffer=14, n_thresholds=50)
    assert vus(labels, scores, 14, n_thresholds=50, variant="tsb-ad") == pytest.approx(tuple(slow), abs=1e-12)


def test_one_event_of_one_step_has_the_areas_one_reads_off():
    # scores 3 1 2 0 with the event at step 1 and no buffer. The thresholds 3, 2, 1, 0 have recall 0 0 1 1 and precision
    # 0 0 1/3 1/4, and false alarms of 1/3 2/3 2/3 3/3: one trapezoid of height (0 + 1/3) / 2, one of 1 x 1/3
    labels, scores = [0, 1, 0, 0], [3.0, 1.0, 2.0, 0.0]
    assert vus(labels, scores, 0, n_thresholds=None, variant="aeon") == pytest.approx((1 / 6, 1 / 3))
    assert vus(labels, scores, 0, n_thresholds=None, variant="tsb-ad") == pytest.approx((1 / 3, 1 / 3))


def test_without_buffer_and_with_one_event_the_volumes_are_the_plain_areas():
    labels = bits(120, (50, 51))
    scores = np.random.default_rng(1).normal(size=120) + labels
    exact = vus(labels, scores, 0, n_thresholds=None, variant="tsb-ad")
    assert exact == pytest.approx((auc_pr(labels, scores), auc_roc(labels, scores)))


@pytest.mark.parametrize("variant", ["aeon", "tsb-ad"])
def test_a_score_with_one_low_step_is_flattered_by_straight_lines_and_not_by_steps(variant):
    labels, scores = bits(10_000, (500, 520)), np.ones(10_000)
    scores[0] = 0.0  # all other steps share the highest score
    assert vus(labels, scores, 20, variant=variant).pr == pytest.approx(
        {"aeon": 0.5, "tsb-ad": 0.002}[variant], abs=2e-3
    )


def test_250_thresholds_overlook_the_order_of_the_highest_scores_and_all_of_them_do_not():
    labels = bits(5000, (1000, 1010))
    rank = np.arange(5000) + 10.0  # the rank of each step's score, 0 the highest
    rank[1000:1010] = np.arange(10)  # good: the event holds ranks 0 to 9
    rank[:1000] += 10  # ranks 20 and on: every normal step lies behind rank 20
    good = -rank
    bad = good.copy()
    bad[1001:1010], bad[2000:2009] = -np.arange(11, 20), -np.arange(1, 10)  # bad: it holds ranks 0 and 11 to 19
    good[2000:2009] = -np.arange(11, 20)
    few = {"n_thresholds": 250}  # at ranks 0, 20, 40, ...
    assert vus(labels, good, 0, **few) == vus(labels, bad, 0, **few)
    assert vus(labels, good, 0, n_thresholds=None).pr == pytest.approx(1.0)
    assert vus(labels, bad, 0, n_thresholds=None).pr < 0.6


@pytest.mark.parametrize("variant", ["aeon", "tsb-ad"])
def test_vus_asks_for_order_only(variant):
    labels, scores = some_case(3)
    assert vus(labels, np.exp(3 * scores), 20, variant=variant) == vus(labels, scores, 20, variant=variant)


@pytest.mark.parametrize("variant", ["aeon", "tsb-ad"])
def test_a_near_miss_is_worth_more_with_a_buffer_than_without(variant):
    labels = bits(400, (200, 210))
    late = bits(400, (206, 216)) + 1e-3 * np.random.default_rng(0).random(400)
    assert vus(labels, late, 40, variant=variant).pr > vus(labels, late, 0, variant=variant).pr + 0.1


def test_vus_reads_the_same_series_backwards_alike_only_where_ramps_are_of_one_length():
    labels, scores = some_case(4)
    forwards, backwards = (vus(labels[::k], scores[::k], 12, variant="tsb-ad") for k in (1, -1))
    assert forwards == pytest.approx(backwards)


def test_vus_refuses_settings_without_a_meaning():
    labels, scores = some_case(0)
    with pytest.raises(SettingsError, match="at least 0"):
        vus(labels, scores, -1)
    with pytest.raises(SettingsError, match="None for every distinct score"):
        vus(labels, scores, n_thresholds=1)
    with pytest.raises(SettingsError, match="'aeon' or 'tsb-ad'"):
        vus(labels, scores, variant="paper")  # pyright: ignore


@pytest.mark.parametrize("period", [7, 24, 96])
def test_the_buffer_is_the_period_of_the_series(period):
    t = np.arange(3000)
    wave = np.sin(2 * np.pi * t / period) + 0.1 * np.random.default_rng(0).normal(size=3000)
    assert vus_buffer(wave) == period
    assert vus_buffer(5 + 1000 * wave) == period
    assert vus_buffer(np.stack([np.full(3000, 0.1), wave])) == period  # a constant first channel says nothing
    wave[100:110] = np.nan
    assert vus_buffer(wave) == period


def test_the_buffer_falls_on_the_highest_peak_of_a_plain_autocorrelation():
    x = np.random.default_rng(3).normal(size=900).cumsum() % 17
    centered = x - x.mean()
    plain = np.array([(centered[: len(x) - k] * centered[k:]).sum() for k in range(401)])
    peaks = [k for k in range(4, 400) if plain[k] > plain[k - 1] and plain[k] > plain[k + 1]]
    best = max(peaks, key=lambda k: plain[k])
    assert vus_buffer(x) == (best if 6 <= best <= 303 else 125)


def test_a_series_without_a_period_has_the_default_buffer():
    assert vus_buffer(np.arange(1000.0)) == vus_buffer(np.full(1000, 0.1)) == vus_buffer(np.full(1000, np.nan)) == 125
    with pytest.raises(ShapeError, match="two steps or more"):
        vus_buffer([1.0])
    with pytest.raises(DataError, match="infinite"):
        vus_buffer([1.0, np.inf, 2.0])


def test_the_median_anomaly_length_is_a_number_of_steps():
    assert median_anomaly_length(bits(40, (2, 5), (10, 14), (20, 39))) == 4


# Areas under plain curves


@given(labels_and_alarms)
def test_auc_roc_is_the_chance_that_an_anomaly_scores_higher(case):
    labels, coarse = case
    assume(0 < labels.sum() < len(labels))
    pairs = [(a > b) + (a == b) / 2 for a in coarse[labels == 1] for b in coarse[labels == 0]]
    assert auc_roc(labels, coarse) == pytest.approx(np.mean(pairs))


def test_auc_pr_is_the_mean_precision_at_each_anomaly_found():
    # falling scores meet anomalies at ranks 1, 3 and 6
    assert auc_pr([1, 0, 1, 0, 0, 1], [6, 5, 4, 3, 2, 1]) == pytest.approx((1 / 1 + 2 / 3 + 3 / 6) / 3)


# F1 by steps, events and ranges


def test_one_alarm_half_right_has_the_scores_one_reads_off():
    labels, alarms = bits(20, (4, 8), (12, 16)), bits(20, (6, 10))
    assert f1(labels, alarms) == pytest.approx(2 * 2 / (8 + 4))
    assert event_f1(labels, alarms) == pytest.approx(0.5)  # precision 2/4, one of two events
    assert range_f1(labels, alarms, existence_weight=0) == pytest.approx(2 * 0.5 * 0.25 / 0.75)  # recall (1/2 + 0) / 2
    assert point_adjusted_f1(labels, alarms) == pytest.approx(2 * 4 / (8 + 4 + 2))  # hits become 4, false alarms 2


def test_an_alarm_in_two_pieces_is_worth_half_of_its_range_recall():
    labels = bits(20, (4, 12))
    # overlap 4 of 8, in one piece and in two; precision 1 both times
    assert range_f1(labels, bits(20, (4, 8)), existence_weight=0) == pytest.approx(2 * 0.5 / 1.5)
    assert range_f1(labels, bits(20, (4, 6), (8, 10)), existence_weight=0) == pytest.approx(2 * 0.25 / 1.25)


def test_an_alarm_over_everything_is_no_way_to_find_events():
    labels = bits(1000, (100, 110), (500, 510))
    everything = np.ones(1000, dtype=int)
    assert event_f1(labels, everything) == pytest.approx(2 * 0.02 / 1.02)
    assert f1(labels, everything) == pytest.approx(2 * 20 / 1020)
    assert range_f1(labels, everything) < 0.05


@settings(max_examples=60, deadline=None)
@given(labels_and_alarms, st.sampled_from([0.0, 0.2, 0.5]))
def test_range_f1_equals_aeon(case, weight):
    pytest.importorskip("aeon")
    from aeon.benchmarking.metrics.anomaly_detection import range_f_score

    labels, alarms = case
    assume(labels.any() and 0 < alarms.sum() < len(alarms))  # aeon gives 0 to an alarm over everything
    assert range_f1(labels, alarms, weight) == pytest.approx(range_f_score(labels, alarms, r_alpha=weight))


@given(labels_and_alarms)
def test_f1_scores_equal_counts_made_one_event_at_a_time(case):
    from sklearn.metrics import f1_score

    labels, alarms = case
    assume(labels.any())
    adjusted, found = alarms.copy(), []
    for start, end in events_of(labels):
        found.append(alarms[start:end].any())
        if found[-1]:
            adjusted[start:end] = 1
    assert f1(labels, alarms) == pytest.approx(f1_score(labels, alarms, zero_division=0))
    assert point_adjusted_f1(labels, alarms) == pytest.approx(f1_score(labels, adjusted, zero_division=0))
    precision = labels[alarms == 1].mean() if alarms.any() else 0
    recall = np.mean(found)
    expected = 2 * precision * recall / (precision + recall) if precision + recall else 0
    assert event_f1(labels, alarms) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("best", "at_alarms"), [(best_f1, f1), (best_event_f1, event_f1), (best_point_adjusted_f1, point_adjusted_f1)]
)
@pytest.mark.parametrize("seed", range(8))
def test_the_best_score_is_the_highest_over_every_threshold(best, at_alarms, seed):
    labels, scores = some_case(seed, ties=seed % 2 == 0)
    assert best(labels, scores) == pytest.approx(max(at_alarms(labels, scores >= t) for t in scores))


def test_sampled_thresholds_are_all_of_them_where_the_series_is_short():
    labels, scores = some_case(1, n_timepoints=10)
    assert best_range_f1(labels, scores) == max(range_f1(labels, scores >= t) for t in scores)
    tried = []
    best_over_thresholds(bits(10_000, (5, 9)), np.arange(10_000.0), lambda y, alarm: tried.append(alarm.sum()) or 0.0)
    assert min(tried) == 1 and max(tried) == 10_000 and np.median(tried) < 300  # dense where anomalies are rare
    with pytest.raises(SettingsError, match="at least 1"):
        best_over_thresholds(labels, scores, f1, n_thresholds=0)


def test_point_adjustment_lets_random_scores_win_which_is_why_it_stays_in_the_appendix():
    labels = bits(5000, (1000, 1400), (3000, 3500))
    rng = np.random.default_rng(0)
    random, detector = rng.random(5000), rng.normal(size=5000) + 1.5 * labels
    assert best_point_adjusted_f1(labels, random) > 0.9
    assert best_f1(labels, random) < 0.35 < best_f1(labels, detector)
    for name in ("point_adjusted_f1", "best_point_adjusted_f1"):
        assert DETECTION_METRICS[name].appendix and "appendix" in str(DETECTION_METRICS[name])
        assert "Only ever for an appendix" in DETECTION_METRICS[name].function.__doc__


def test_range_f1_refuses_a_weight_that_is_no_share():
    with pytest.raises(SettingsError, match="from 0 to 1"):
        range_f1([0, 1], [0, 1], existence_weight=2)


# Affiliation


def test_affiliation_of_the_example_in_the_paper():
    # minutes of three hours; the second event has precision .672222 and recall .944444 in the authors' own tests
    labels = bits(180, (0, 10), (50, 70), (170, 175))
    alarms = bits(180, (5, 6), (7, 10), (11, 12), (40, 60), (115, 130), (135, 140), (165, 170))
    # first zone [0, 30): 4 of 5 minutes inside, the fifth at distance 1 to 2, where (20 - d) / 30 are farther
    first = (4 + (20 - 1.5) / 30) / 5
    # third zone [120, 180): room of 50 before and 5 after the event
    left = sum((50 - (170 - t)) + max(5 - (170 - t), 0) for t in np.arange(120, 130, 0.01) + 0.005)
    left += sum((50 - (170 - t)) + max(5 - (170 - t), 0) for t in np.arange(135, 140, 0.01) + 0.005)
    left += sum((50 - (170 - t)) + max(5 - (170 - t), 0) for t in np.arange(165, 170, 0.01) + 0.005)
    third = left * 0.01 / 60 / 20
    second = 0.672222222
    assert affiliation(labels, alarms).precision == pytest.approx((first + second + third) / 3, abs=1e-6)


def test_affiliation_recall_of_the_example_in_the_paper():
    labels, alarms = bits(90, (20, 40)), bits(90, (10, 30), (85, 90))  # its second zone alone, from minute 30 to 120
    found = affiliation(labels, alarms)
    assert found.precision == pytest.approx(0.672222222, abs=1e-8)
    assert found.recall == pytest.approx(0.944444444, abs=1e-8)


def test_affiliation_of_an_alarm_beside_a_short_event_is_computed_by_hand():
    # one zone [0, 10), event [4, 5), alarm [6, 7): distances 1 to 2, room of 4 before and 5 after
    # precision: mean of ((4 - d) + (5 - d)) / 10 = .6; recall: a moment y in [4, 5) at 6 - y from the alarm,
    # y - (6 - y) = 2 y - 6 lie farther before it and 10 - 6 = 4 after it: mean of (2 y - 2) / 10 = .7
    found = affiliation(bits(10, (4, 5)), bits(10, (6, 7)))
    assert (found.precision, found.recall) == pytest.approx((0.6, 0.7))
    assert found.f1 == pytest.approx(2 * 0.6 * 0.7 / 1.3)


def affiliation_on_a_grid(labels, alarms, k):
    """Each step in k cells; every integral a mean over cells, every chance a count of cells."""
    n = len(labels)
    grid = (np.arange(n * k) + 0.5) / k
    true_events, on = events_of(labels), np.repeat(np.asarray(alarms) == 1, k)
    cuts = [0.0] + [(a[1] + b[0]) / 2 for a, b in itertools.pairwise(true_events)] + [float(n)]
    precisions, recalls = [], []
    for j, (start, end) in enumerate(true_events):
        zone = grid[(grid > cuts[j]) & (grid < cuts[j + 1])]
        alarmed = grid[on & (grid > cuts[j]) & (grid < cuts[j + 1])]
        inside = zone[(zone > start) & (zone < end)]
        if not len(alarmed):
            recalls.append(0.0)
            continue
        away = np.maximum(np.maximum(start - zone, zone - end), 0)
        own = np.maximum(np.maximum(start - alarmed, alarmed - end), 0)
        precisions.append(np.mean([(away >= d - 1e-9).mean() for d in own]))
        gaps = np.abs(inside[:, None] - alarmed).min(axis=1)
        recalls.append(np.mean([(np.abs(zone - y) >= gap - 1e-9).mean() for y, gap in zip(inside, gaps, strict=True)]))
    return np.mean(precisions) if precisions else np.nan, np.mean(recalls)


@settings(max_examples=40, deadline=None)
@given(labels_and_alarms)
def test_affiliation_equals_counting_cells_of_a_fine_grid(case):
    labels, alarms = case
    assume(labels.any())
    k = 40
    found = affiliation(labels, alarms)
    slow = affiliation_on_a_grid(labels, alarms, k)
    assert (found.precision, found.recall) == pytest.approx(slow, abs=2.5 / k, nan_ok=True)


@given(labels_and_alarms, st.integers(2, 5))
def test_affiliation_knows_no_unit_of_time(case, k):
    labels, alarms = case
    assume(labels.any() and alarms.any())
    once, often = affiliation(labels, alarms), affiliation(np.repeat(labels, k), np.repeat(alarms, k))
    assert (often.precision, often.recall) == pytest.approx((once.precision, once.recall))


@given(labels_and_alarms)
def test_affiliation_is_a_share_and_the_same_backwards(case):
    labels, alarms = case
    assume(labels.any() and alarms.any())
    found, backwards = affiliation(labels, alarms), affiliation(labels[::-1], alarms[::-1])
    assert 0 <= found.precision <= 1 + 1e-12 and 0 <= found.recall <= 1 + 1e-12
    assert (found.precision, found.recall) == pytest.approx((backwards.precision, backwards.recall))


def test_alarms_a_little_late_cost_little_and_more_the_later_they_are():
    labels = bits(1000, (300, 320), (700, 720))
    late = [affiliation_f1(labels, np.roll(labels, shift)) for shift in (0, 2, 10, 50, 150)]
    assert late[0] == 1.0 and late[1] > 0.98
    assert late == sorted(late, reverse=True) and late[-1] < 0.6


def test_an_alarm_in_one_zone_only_is_precise_and_misses_the_other_event():
    found = affiliation(bits(100, (20, 25), (70, 75)), bits(100, (20, 25)))
    assert (found.precision, found.recall) == (1.0, 0.5)


def test_without_alarms_affiliation_has_no_precision_and_every_score_is_zero():
    labels, none = bits(30, (4, 9)), np.zeros(30)
    assert np.isnan(affiliation(labels, none).precision) and affiliation(labels, none).recall == 0
    assert [DETECTION_METRICS[name].function(labels, none) for name in FROM_ALARMS] == [0.0] * len(FROM_ALARMS)


# All of them


@settings(max_examples=40, deadline=None)
@given(labels_and_alarms)
def test_perfect_alarms_have_every_score_at_one(case):
    labels, _ = case
    assume(labels.any())
    for name in FROM_ALARMS:
        assert DETECTION_METRICS[name].function(labels, labels) == pytest.approx(1.0), name
    for name in FROM_SCORES:
        if name.startswith("best_"):
            assert DETECTION_METRICS[name].function(labels, labels * 2.5 - 7) == pytest.approx(1.0), name


@pytest.mark.parametrize("name", FROM_SCORES)
def test_a_monotone_change_of_the_scores_changes_nothing(name):
    labels, scores = some_case(2)
    measure = DETECTION_METRICS[name].function
    assert measure(labels, 10 * np.exp(scores) - 3) == pytest.approx(measure(labels, scores), abs=1e-12)


@pytest.mark.parametrize("name", FROM_SCORES)
def test_scores_that_know_the_anomalies_beat_scores_that_do_not(name):
    labels = bits(2000, (300, 330), (900, 910), (1500, 1560))
    noise = np.random.default_rng(0).normal(size=2000)
    if not DETECTION_METRICS[name].appendix:
        assert DETECTION_METRICS[name].function(labels, noise + 3 * labels) > DETECTION_METRICS[name].function(
            labels, noise
        )


def test_all_scores_come_by_name_with_vus_pr_first_and_the_appendix_last():
    labels, scores = some_case(6)
    found = detection_scores(labels, scores, scores > 1, buffer=10)
    assert list(found) == list(DETECTION_METRICS)
    assert next(iter(found)) == "vus_pr"
    assert [name for name in found if DETECTION_METRICS[name].appendix] == list(found)[-2:]
    for name, metric in DETECTION_METRICS.items():
        if not name.startswith("vus"):
            assert found[name] == metric.function(labels, scores if metric.reads == "scores" else scores > 1)
    assert (found["vus_pr"], found["vus_roc"]) == (vus_pr(labels, scores, 10), vus_roc(labels, scores, 10))
    assert list(detection_scores(labels, scores)) == FROM_SCORES
    assert detection_scores(labels, scores)["vus_pr"] == vus_pr(labels, scores, 100)
    assert detection_scores(labels, scores, **AEON)["vus_pr"] == vus(labels, scores, **AEON).pr
    assert vus(labels, scores, **AEON) == (vus_pr(labels, scores, **AEON), vus_roc(labels, scores, **AEON))


def test_without_a_word_vus_is_that_of_the_public_leaderboard_at_every_distinct_score():
    labels, scores = some_case(7)
    assert vus(labels, scores, 10) == vus(labels, scores, 10, variant="tsb-ad", n_thresholds=None)
    assert vus(labels, scores, 10) != vus(labels, scores, 10, variant="aeon", n_thresholds=None)


def test_every_metric_tells_what_it_says():
    for metric in DETECTION_METRICS.values():
        assert "higher is better" in str(metric) and metric.function.__doc__


# What cannot be scored


@pytest.mark.parametrize("name", list(DETECTION_METRICS))
def test_a_series_without_anomaly_is_undefined_and_says_what_to_do(name):
    with pytest.raises(DetectionUndefined, match=r"None of the 5 labels is 1.*Leave this series out"):
        DETECTION_METRICS[name].function(np.zeros(5), np.array([0, 1, 0, 1, 0]))
    assert issubclass(DetectionUndefined, DataError)


@pytest.mark.parametrize("name", ["vus_pr", "vus_roc", "auc_pr", "auc_roc"])
def test_a_series_without_a_normal_step_has_no_ranking(name):
    with pytest.raises(DetectionUndefined, match="All 5 labels are 1"):
        DETECTION_METRICS[name].function(np.ones(5), np.arange(5.0))


@pytest.mark.parametrize("name", FROM_SCORES)
def test_scores_that_are_missing_or_too_few_are_refused(name):
    measure = DETECTION_METRICS[name].function
    with pytest.raises(DataError, match="NaN or infinite at 1 of 3 steps, the first at step 1"):
        measure([0, 1, 0], [0.0, np.nan, 1.0])
    with pytest.raises(ShapeError, match=r"scores must be \[time=3\].*have shape \[2\]"):
        measure([0, 1, 0], [0.0, 1.0])


@pytest.mark.parametrize("name", FROM_ALARMS)
def test_alarms_that_are_scores_or_too_few_are_refused(name):
    measure = DETECTION_METRICS[name].function
    with pytest.raises(DataError, match=r"prediction must be 0 .* step 1 holds .*0.4.* scores > threshold"):
        measure([0, 1, 0], [0.0, 0.4, 1.0])
    with pytest.raises(ShapeError, match=r"prediction must be \[time=3\]"):
        measure([0, 1, 0], [0, 1])
    with pytest.raises(ShapeError, match=r"labels must be \[time\].*\[1, 3\]"):
        measure([[0, 1, 0]], [0, 1, 0])


@pytest.mark.parametrize("name", FROM_SCORES)
def test_constant_scores_get_what_the_docstrings_say(name):
    labels = bits(40, (4, 8))
    by_name = {"auc_pr": 0.1, "auc_roc": 0.5, "best_f1": 2 * 4 / 44, "vus_pr": 0.0, "vus_roc": 0.0}
    score = DETECTION_METRICS[name].function(labels, np.ones(40))
    if name in by_name:
        assert score == pytest.approx(by_name[name])
    else:  # the one threshold there is raises an alarm at every step
        at_alarms = DETECTION_METRICS[name.removeprefix("best_")].function
        assert score == pytest.approx(at_alarms(labels, np.ones(40)))
