"""The anomaly detector: what is planted is found, a stream tells what the whole tells, and labels are never read."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from prismts.data.series import Collection, Series
from prismts.data.splits import Borders
from prismts.data.synthetic import planted_anomalies
from prismts.errors import DataError, NotFittedError, SettingsError, ShapeError
from prismts.estimators.detect_recipes import DETECT_SETTINGS, DetectRecipe
from prismts.estimators.detector import AnomalyDetector
from prismts.evaluation.detection import auc_roc
from prismts.evaluation.protocols import detector_scores
from prismts.tasks.detect import TwoSidedLine, box_mean, forecast_errors, reconstruction_delay, reconstruction_errors

TINY = {"patch_length": 4, "stride": 2, "width": 8, "feed_forward": 0, "kernel_sizes": (3,), "dropout": 0.0}
QUICK = {"max_epochs": 2, "batch_size": 64, "learning_rate": 5e-3, "accelerator": "cpu"}
BY_ONE = 0.6  # a judge alone may miss two of the five: a value that stands still is easily told from both sides
PLANTED = planted_anomalies(1600, n_anomalies=5, length=30)
TRAIN, TEST, LABELS = PLANTED.values[:, :800], PLANTED.values[:, 800:], PLANTED.labels[800:]


def detector(model="convtimenet", **others) -> AnomalyDetector:
    given = {
        "context_length": 24,
        "setting": "combined",
        "model_settings": TINY,
        "fit_settings": QUICK,
        "progress": False,
        **others,
    }
    return AnomalyDetector(model, **given)


def closed(model="sub_pca_mahalanobis", **others) -> AnomalyDetector:
    return AnomalyDetector(model, model_settings={"window": 20}, progress=False, **others)


@pytest.fixture(scope="module")
def fitted() -> AnomalyDetector:
    return detector().fit(TRAIN)


def table(x=TEST, names=("a", "b", "c")) -> pd.DataFrame:
    times = pd.date_range("2024-03-01", periods=x.shape[1], freq="h")
    return pd.DataFrame({"when": times, **dict(zip(names, x, strict=True))})


def with_gaps(x, seed=0):
    rng = np.random.default_rng(seed)
    holes = rng.random(x.shape) < 0.05
    holes[0, 100:140], holes[1, 300:309] = True, True
    return np.where(holes, np.nan, x)


# ---- scores


def test_planted_anomalies_score_higher_than_the_rest_by_every_judge_and_together(fitted):
    assert set(fitted.judges_) == {"forecast", "reconstruct", "line", *DETECT_SETTINGS["default"].beside}
    scores = fitted.score_samples(TEST)
    assert scores.shape == (800,) and np.isfinite(scores).all()
    assert auc_roc(LABELS, scores) > 0.9
    for name, verdict in fitted.panel_.judged(fitted._scaled(Series(TEST))).items():
        assert auc_roc(LABELS, verdict.mean(0)) > BY_ONE, name


@pytest.mark.slow
@pytest.mark.parametrize("score", ["forecast", "reconstruct"])
def test_one_network_alone_judges_where_it_is_asked_for(score):
    found = detector(score=score, setting="network").fit(TRAIN)
    assert list(found.judges_) == list(found.model_) == [score]
    assert auc_roc(LABELS, found.score_samples(TEST)) > BY_ONE


def test_the_usual_scores_zero_in_the_middle_of_the_part_that_set_the_scale(fitted):
    held_out = fitted.score_samples(TRAIN)[640:]
    assert abs(np.median(held_out)) < 0.5
    assert "160 steps" in fitted.calibrated_on_


def test_scores_do_not_depend_on_the_unit_of_a_channel():
    x, y = closed(), closed()
    unit = np.array([[1000.0], [0.01], [1.0]])
    np.testing.assert_allclose(
        x.fit(TRAIN.astype(float)).score_samples(TEST.astype(float)),
        y.fit(unit * TRAIN).score_samples(unit * TEST), rtol=1e-4, atol=1e-5,
    )  # fmt: skip


def test_contributions_name_the_channel_that_was_disturbed(fitted):
    lifted = TEST.copy()
    lifted[2, 50:60] += 4.0
    found = fitted.contributions(lifted)
    assert found.shape == lifted.shape
    assert found[:, 50:60].mean(1).argmax() == 2


def test_contributions_of_a_judge_alone_add_up_to_its_score_up_to_a_constant():
    found = closed().fit(TRAIN)
    left = found.score_samples(TEST) - found.contributions(TEST).sum(0)
    np.testing.assert_allclose(left, left[0], atol=1e-9)


def test_an_isolation_forest_tells_no_channels_apart_and_shares_equally():
    found = closed("iforest").fit(TRAIN)
    contributions = found.contributions(TEST)
    np.testing.assert_allclose(contributions.sum(0), found.score_samples(TEST))
    np.testing.assert_allclose(contributions[0], contributions[2])


@pytest.mark.parametrize("model", ["sub_pca", "iforest", "kmeans", "knn", "matrix_profile", "window_pca"])
def test_a_baseline_has_the_same_interface(model, tmp_path):
    found = closed(model).fit(TRAIN)
    scores = found.score_samples(TEST)
    assert scores.shape == (800,) and np.isfinite(scores).all() and list(found.judges_) == [model]
    found.save(tmp_path / "m")
    assert np.array_equal(AnomalyDetector.load(tmp_path / "m").score_samples(TEST), scores)


def test_missing_values_get_finite_scores_and_networks_do_not_judge_them(fitted):
    x = with_gaps(TEST)
    assert np.isfinite(fitted.score_samples(x)).all()
    scaled = fitted._scaled(Series(x))
    from prismts.estimators.panel import _in_double

    errors = forecast_errors(_in_double(fitted.model_["forecast"]), scaled, 24)
    assert np.isnan(errors[np.isnan(x)]).all() and np.isnan(errors[:, :24]).all()
    assert np.isfinite(errors[:, 24:][~np.isnan(x[:, 24:])]).all()


@pytest.mark.slow
def test_training_may_hold_missing_values_and_an_anomaly():
    x = with_gaps(TRAIN)
    x[0, 200:210] += 20.0
    assert auc_roc(LABELS, detector(setting="network").fit(x).score_samples(TEST)) > BY_ONE


# ---- alarms


def test_alarms_are_scores_above_the_threshold_and_events_are_their_runs(fitted):
    scores, alarms = fitted.score_samples(TEST), fitted.predict(TEST)
    assert np.array_equal(alarms, (scores > fitted.threshold_.value).astype(int))
    found = fitted.events(TEST)
    assert sum(e.end - e.start for e in found) == alarms.sum() > 0
    assert all(e.score == scores[e.start : e.end].max() == scores[e.peak] and e.channels for e in found)


def test_a_tail_that_cannot_be_fitted_leaves_a_quantile_and_says_why_in_few_words():
    found = closed(threshold="tail").fit(TRAIN[:, :300])
    assert found.threshold_.method == "quantile"
    why = "no tail was fitted, which takes at least 20 distinct scores in it"
    assert found.threshold_.words.endswith(f"; {why}") and "Pass" not in found.threshold_.words


def test_a_long_training_part_gets_a_tail_and_a_quantile_where_asked_for():
    noise = np.random.default_rng(0).normal(size=(1, 4000))
    assert closed().fit(noise).threshold_.method == "tail"
    assert closed(threshold="quantile").fit(noise).threshold_.method == "quantile"
    rate = closed(false_alarm_rate=0.01).fit(noise).predict(np.random.default_rng(1).normal(size=(1, 20_000))).mean()
    assert 0.002 < rate < 0.04


def test_a_table_comes_back_with_time_score_threshold_and_alarm(fitted):
    given = table()
    found = fitted.predict(given)
    assert list(found.columns) == ["when", "score", "threshold", "alarm"]
    assert (found["when"] == given["when"]).all()
    np.testing.assert_allclose(found["score"], fitted.score_samples(given))
    assert isinstance(fitted.predict(pl.from_pandas(given)), pl.DataFrame)


def test_many_series_give_a_list_and_a_long_table_tells_them_apart(fitted):
    cases = Collection.of([Series(TEST, name="x"), Series(TEST[:, :300], name="y")])
    scores = fitted.score_samples(cases)
    assert [len(one) for one in scores] == [800, 300]
    np.testing.assert_array_equal(scores[0], fitted.score_samples(TEST))
    long = pd.concat([table().assign(who="x"), table(TEST[:, :300]).assign(who="y")])
    found = AnomalyDetector(series="who", progress=False).fit(long).predict(long)
    assert list(found.columns[:2]) == ["who", "when"] and len(found) == 1100


# ---- streams


def walk(found, x, sizes):
    """A stream over x, with what ``score_samples`` must equal after every update."""
    stream, at = found.stream(), 0
    while at < x.shape[1]:
        size = next(sizes)
        new = x[:, at : at + size]
        before, final = stream.scores.copy(), stream.n_final
        scores = stream.update(new[:, 0] if size == 1 else new)
        at += new.shape[1]
        assert len(stream) == at and np.array_equal(scores, stream.scores[-new.shape[1] :])
        np.testing.assert_allclose(stream.scores[:final], before[:final], rtol=0, atol=0)
        yield stream, at


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000), gaps=st.booleans())
def test_a_stream_in_any_pieces_tells_what_the_whole_series_so_far_tells(fitted, seed, gaps):
    rng = np.random.default_rng(seed)
    x = (with_gaps(TEST, seed) if gaps else TEST)[:, :260]
    sizes = iter(lambda: int(rng.choice([1, 3, 17, 60])), None)
    for stream, at in walk(fitted, x, sizes):
        if at >= 60:
            np.testing.assert_allclose(stream.scores, fitted.score_samples(x[:, :at]), rtol=1e-6, atol=1e-6)


def test_a_stream_of_single_rows_tells_what_the_whole_tells_and_ends_after_the_delay():
    found = closed("knn").fit(TRAIN)
    for stream, at in walk(found, TEST[:, :120], iter(lambda: 1, None)):
        if at >= 20:
            np.testing.assert_allclose(stream.scores, found.score_samples(TEST[:, :at]), rtol=1e-6, atol=1e-9)
            assert stream.n_final == max(0, at - found.delay_)
    assert found.delay_ == 19


def test_what_is_final_never_changes_whatever_comes_after(fitted):
    stream = fitted.stream()
    stream.update(TEST[:, :300])
    n_final = stream.n_final
    assert n_final == 300 - fitted.delay_ > 150
    wild = np.concatenate([TEST[:, :300], 100 + TEST[:, :200]], axis=1)
    np.testing.assert_allclose(fitted.score_samples(wild)[:n_final], stream.scores[:n_final], rtol=1e-9)
    assert not np.allclose(fitted.score_samples(wild)[n_final:300], stream.scores[n_final:])


def test_a_missing_end_keeps_steps_provisional_until_a_value_comes():
    stream = closed().fit(TRAIN).stream()
    x = TEST[:, :200].copy()
    x[1, 150:] = np.nan
    stream.update(x)
    assert stream.n_final == 150 - 19


def test_update_goes_on_with_a_stream_of_its_own_and_fit_begins_anew():
    found = closed().fit(TRAIN)
    pieces = np.concatenate([found.update(TEST[:, :100]), found.update(TEST[:, 100:200])])
    assert pieces.shape == (200,)
    np.testing.assert_allclose(pieces[100:], found.score_samples(TEST[:, :200])[100:])
    found.fit(TRAIN)
    assert len(found.update(TEST[:, :30])) == 30 == len(found._own_stream)


@pytest.mark.parametrize("code, rows", [(-999.0, [400]), (999.0, [200, 401]), (1e6, [400])])
def test_what_is_scored_is_read_as_it_is_whatever_looks_like_a_code_for_missing(code, rows):
    found = AnomalyDetector(progress=False).fit(table(TRAIN[:, :600]))
    x = TEST.astype(np.float64)
    x[1, rows] = code
    scores = found.score_samples(x)
    assert (scores[rows] > found.threshold_.value).all()
    for same in (table(x), pl.from_pandas(table(x)), Series(x)):
        np.testing.assert_allclose(found.score_samples(same), scores, rtol=1e-9)
    assert {row for row in rows for event in found.events(table(x)) if event.start <= row < event.end} == set(rows)
    stream = found.stream()
    for first in (0, 300):
        stream.update(table(x).iloc[first : first + 300 if not first else None])
    np.testing.assert_allclose(stream.scores, scores, rtol=1e-9)


def test_training_still_looks_for_codes_for_missing_values():
    train = TRAIN.astype(np.float64)
    train[1, 100:110] = -9999.0
    found = AnomalyDetector(progress=False).fit(train)
    assert np.isnan(found.training_[1, 100:110]).all()


@pytest.mark.parametrize("train", [table(TRAIN), TRAIN], ids=["of hours", "without times"])
def test_steps_missing_between_the_tables_of_a_stream_are_steps_without_an_observation(train):
    found, frame = AnomalyDetector(progress=False).fit(train), table(TEST[:, :300])
    left = frame.drop(index=range(150, 162))
    stream = found.stream()
    stream.update(left.iloc[:150])
    assert stream.update(left.iloc[150:151]).shape == (13,)
    for rows in (left.iloc[151:200], left.iloc[200:]):
        stream.update(rows)
    assert len(stream) == 300
    np.testing.assert_allclose(stream.scores, found.score_samples(left), rtol=1e-9)


def test_rows_of_a_stream_come_once_in_order_and_alike_or_change_nothing():
    found, frame = AnomalyDetector(progress=False).fit(table(TRAIN)), table(TEST)
    stream = found.stream()
    stream.update(frame.iloc[100:200])
    before = stream.scores.copy()
    for rows, words in (
        (frame.iloc[150:250], "begin at 2024-03-07 06:00:00, but the stream already reaches 2024-03-09 07:00:00"),
        (frame.iloc[:50], "Send rows once, in order of time"),
        (frame.iloc[200:202].assign(when=frame["when"].iloc[200:202] + pd.Timedelta("7min")), "no whole number of st"),
        (frame.iloc[200:201].assign(when=pd.Timestamp("2099-01-01")), "more than 100,000 steps of h are missing"),
        (TEST[:, 200:210], "The rows before had times, but these have none. Send all rows of a stream alike"),
        ([TEST[:, 200:210], TEST[:, 210:220]], "New rows of a stream are of one series, but got 2"),
    ):
        with pytest.raises(DataError, match=words):
            stream.update(rows)
    np.testing.assert_array_equal(stream.scores, before)
    stream.update(frame.iloc[200:])
    np.testing.assert_allclose(stream.scores, found.score_samples(frame.iloc[100:]), rtol=1e-9)


def test_steps_of_another_length_than_those_of_training_are_refused(tmp_path):
    found = AnomalyDetector(progress=False).fit(table(TRAIN))
    days = table(TEST[:, :100]).assign(when=pd.date_range("2024", periods=100))
    found.save(tmp_path / "model")
    for one in (found, AnomalyDetector.load(tmp_path / "model")):
        with pytest.raises(DataError, match="learned steps of h, but these data have steps of D"):
            one.score_samples(days)

    found.frequency_ = None  # as in a folder of before
    assert len(found.score_samples(days)) == 100


# ---- how a step is judged


class Repeats(torch.nn.Module):
    """Forecasts the last value; reconstructs by 0."""

    def forward(self, x, observed=None):
        return x[..., -1:]


class Nothing(torch.nn.Module):
    def forward(self, x, observed=None):
        return torch.zeros_like(x)


def test_the_forecast_error_of_a_step_is_its_distance_to_the_forecast():
    x = np.array([[0.0, 1.0, 3.0, 3.0, 7.0]])
    np.testing.assert_array_equal(forecast_errors(Repeats(), x, 2), [[np.nan, np.nan, 2, 0, 4]])


@pytest.mark.parametrize("length", [8, 10, 11, 24])
def test_reconstruction_judges_every_step_and_is_final_after_its_delay(length):
    x = np.random.default_rng(0).normal(size=(2, 70))
    np.testing.assert_allclose(reconstruction_errors(Nothing(), x, length), np.abs(x))

    class Mean(torch.nn.Module):  # tells which window a verdict came from
        def forward(self, x, observed=None):
            return x.mean(-1, keepdim=True).expand_as(x)

    whole = reconstruction_errors(Mean(), x, length)
    delay = reconstruction_delay(length)
    for n in range(length, 70):
        part = reconstruction_errors(Mean(), x[:, :n], length)
        final = max(0, n - delay)
        np.testing.assert_allclose(part[:, :final], whole[:, :final])


def test_a_line_from_both_sides_tells_what_repeats_and_misses_what_does_not():
    t = np.arange(600)
    x = np.stack([np.sin(t / 5), 0.01 * t])
    line = TwoSidedLine(x)
    y = x.copy()
    y[0, 300] += 1.0
    errors = line.errors(y)
    assert np.isnan(errors[:, : line.reach]).all() and np.isnan(errors[:, -line.reach :]).all()
    assert errors[0, 300] == pytest.approx(1.0, abs=0.1)  # the span of 8 steps on either side does not see it
    assert np.nanmax(errors[0, 292:300]) < 0.1 and np.nanmax(errors[1]) < 0.1
    y[0, 310] = np.nan
    assert np.isnan(line.errors(y)[0, 310]) and np.isfinite(line.errors(y)[0, 311])


def test_a_box_mean_is_that_of_the_steps_around_and_missing_ones_do_not_count():
    x = np.array([[1.0, 2.0, np.nan, 6.0, 0.0]])
    np.testing.assert_allclose(box_mean(x, 3), [[1.5, 1.5, 4.0, 3.0, 3.0]])
    np.testing.assert_allclose(box_mean(x, 2), [[1.5, 2.0, 6.0, 3.0, 0.0]])  # itself and the next
    assert np.isnan(box_mean(np.full((1, 4), np.nan), 3)).all()


# ---- the estimator


def test_a_saved_detector_answers_as_before_and_holds_no_pickle(fitted, tmp_path):
    fitted.save(tmp_path / "m")
    again = AnomalyDetector.load(tmp_path / "m")
    assert {file.suffix for file in (tmp_path / "m").iterdir()} == {".json", ".safetensors"}
    np.testing.assert_array_equal(again.score_samples(TEST), fitted.score_samples(TEST))
    assert again.threshold_ == fitted.threshold_ and again.delay_ == fitted.delay_
    assert again.get_params() == {**fitted.get_params(), "model_settings": {**TINY, "kernel_sizes": [3]}}


def test_equal_seeds_give_equal_scores_and_a_clone_forgets_what_was_learned():
    one, other = (detector(setting="network", score="forecast").fit(TRAIN).score_samples(TEST) for _ in range(2))
    assert np.array_equal(one, other)
    copy = clone(detector(random_state=3))
    assert copy.random_state == 3 and not hasattr(copy, "threshold_")


def test_labels_are_never_read_and_the_part_behind_the_borders_is_left_alone():
    borders = Borders(600, 800, 1600)
    wild = PLANTED.values.copy()
    wild[:, 800:] = 99.0
    plain = closed().fit(PLANTED, validation=borders)
    other = closed().fit(Series(wild, labels=1 - PLANTED.labels), validation=borders)
    assert np.array_equal(plain.score_samples(TEST), other.score_samples(TEST))


def test_without_a_validation_part_all_of_training_sets_the_scale_and_it_says_so():
    found = closed().fit(TRAIN, validation=None)
    assert "all 800 steps" in found.calibrated_on_ and "have learned" in found.calibrated_on_


@pytest.mark.parametrize("n", [240, 1000])
def test_the_threshold_is_that_of_steps_the_judges_have_not_learned(n):
    noise = np.random.default_rng(0).normal(size=(2, 2 * n))
    found = AnomalyDetector(progress=False).fit(noise[:, :n])
    before = found.panel_.closed, found.panel_.line
    assert found.predict(noise[:, :n]).mean() < 0.01 and found.predict(noise[:, n:]).mean() < 0.01
    known, learned = found.panel_.of_others([found.scaler_.transform(noise[:, :n])])
    assert (
        found.panel_.closed,
        found.panel_.line,
    ) == before and not learned  # judges on four fifths have come and gone
    assert np.median(known["knn"]) > np.median(found.panel_.raw("knn", found.scaler_.transform(noise[:, :n])))


def test_a_training_part_too_short_to_leave_a_fifth_out_is_judged_whole_and_it_says_so():
    noise = np.random.default_rng(0).normal(size=(1, 24))
    found = AnomalyDetector(progress=False).fit(noise)
    assert found.predict(noise).sum() == 0 and "four fifths are too short" in found.threshold_.words


def test_series_that_hardly_move_beside_the_distances_between_them_are_refused():
    small, large = TRAIN, 1e6 * (5 + TRAIN)
    with pytest.raises(DataError, match=r"'1' moves by .* Fit a detector for each series"):
        closed().fit(Collection.of([Series(large, name="0"), Series(small, name="1")]))
    closed().fit(Collection.of([Series(TRAIN, name="0"), Series(2 + 3 * TRAIN, name="1")]))


# ---- errors


def test_errors_teach():
    with pytest.raises(SettingsError, match="Did you mean 'forecast'"):
        detector(score="forcast").fit(TRAIN)
    with pytest.raises(SettingsError, match="Did you mean 'tail'"):
        detector(threshold="tails").fit(TRAIN)
    with pytest.raises(SettingsError, match="Did you mean 'sub_pca'"):
        detector("sub_pcaa").fit(TRAIN)
    with pytest.raises(SettingsError, match="has no tokens to judge by"):
        detector("ridge").fit(TRAIN)
    with pytest.raises(SettingsError, match="Did you mean 'default'"):
        detector(setting="defualt").fit(TRAIN)
    with pytest.raises(SettingsError, match="share of the steps between 0 and 1"):
        detector(false_alarm_rate=1.0).fit(TRAIN)
    with pytest.raises(SettingsError, match="at least 8"):
        detector(context_length=4).fit(TRAIN)
    with pytest.raises(SettingsError, match="Borders or None"):
        closed().fit(TRAIN, validation=2.0)
    with pytest.raises(SettingsError, match="closed form beside them"):
        DetectRecipe(title="", networks=False)
    with pytest.raises(DataError, match="16 steps at least"):
        closed().fit(TRAIN[:, :15])
    with pytest.raises(DataError, match="needs a longer training part"):
        detector(context_length=700).fit(TRAIN)
    with pytest.raises(DataError, match="all 3 channels are constant"):
        closed().fit(np.ones((3, 400)))
    with pytest.raises(NotFittedError, match="Call fit first"):
        closed().score_samples(TEST)


@pytest.mark.parametrize(
    ("model", "about"),
    [
        ("patchtst", {}),
        ("convtimenet", {"context_length": 64}),
        ("convtimenet", {"score": "forecast"}),
        ("convtimenet", {"model_settings": {"width": 8}}),
        ("convtimenet", {"fit_settings": {"max_epochs": 1}}),
        ("convtimenet", {"n_members": 3}),
        ("knn", {"n_members": 3}),
        ("knn", {"context_length": 64}),
    ],
)
def test_what_only_networks_have_is_refused_where_none_are_trained(model, about):
    """The closed forms of the default read no model, context or training settings; nothing is ignored in silence."""
    name = next(iter(about), "model")
    who = "'knn'" if model == "knn" else "setting='default'"
    with pytest.raises(SettingsError, match=f"{name}=.* is about networks, and {who} trains none"):
        AnomalyDetector(model, progress=False, **about).fit(TRAIN)


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2"])
@pytest.mark.parametrize("model", ["convtimenet", "sub_pca"])
def test_a_number_of_members_that_cannot_be_one_is_refused_also_where_closed_forms_judge_alone(model, n):
    with pytest.raises(SettingsError, match=f"n_members counts .* at least 1, but got {n!r}"):
        AnomalyDetector(model, n_members=n, progress=False).fit(np.sin(np.arange(400.0) / 4)[None])


def test_errors_of_data_that_are_not_those_of_training(fitted):
    with pytest.raises(ShapeError, match="learned 3 channels"):
        fitted.score_samples(TEST[:2])
    with pytest.raises(DataError, match="reads windows of"):
        fitted.score_samples(TEST[:, :5])
    with pytest.raises(ShapeError, match="value for each of 3 channels"):
        fitted.stream().update(np.zeros(2))
    with pytest.raises(ShapeError, match="time comes first"):
        fitted.stream().update(np.zeros((5, 3)))
    with pytest.raises(DataError, match="infinite"):
        fitted.stream().update(np.full((3, 2), np.inf))


@pytest.mark.filterwarnings("ignore:overflow")
def test_values_of_which_no_finite_score_can_be_told_are_refused_and_leave_a_stream_as_it_was():
    found = AnomalyDetector(progress=False).fit(TRAIN)
    x = TEST.astype(np.float64)
    x[1, 200] = 1e200
    for ask in (found.score_samples, found.contributions, found.predict, found.events):
        with pytest.raises(
            DataError, match=r"no finite number. Their largest value is 1e\+200, in channel 'channel_1': "
        ):
            ask(x)
        with pytest.raises(DataError, match="in channel 'channel_1' of series '1'"):
            ask([TEST, x])
    stream = found.stream()
    stream.update(x[:, :200])
    before, n_final = stream.scores.copy(), stream.n_final
    with pytest.raises(DataError, match="no finite number"):
        stream.update(x[:, 200:300])
    np.testing.assert_array_equal(stream.scores, before)
    assert stream.n_final == n_final
    stream.update(TEST[:, 200:])
    np.testing.assert_allclose(stream.scores, found.score_samples(TEST), rtol=1e-9)


def test_a_constant_channel_in_training_is_watched_without_a_warning():
    x = np.concatenate([TRAIN, np.full((1, 800), 7.0)])
    y = np.concatenate([TEST, np.full((1, 800), 7.0)])
    y[3, 400:410] = 9.0
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        found = closed("sub_pca_mahalanobis").fit(x)
        lifted, quiet = (found.contributions(one)[3, 405] for one in (y, np.concatenate([TEST, y[3:, :1] + 0 * y[3:]])))
        assert np.isfinite(found.score_samples(y)).all() and lifted > quiet + 0.1


@pytest.mark.parametrize("model", ["convtimenet", "sub_pca", "iforest"])
@pytest.mark.parametrize("jump", [0.01, 50.0])
def test_a_channel_that_stood_still_in_training_is_blamed_first_where_it_moves(model, jump, tmp_path):
    x = np.concatenate([TRAIN, np.full((1, 800), 7.1)])
    y = np.concatenate([TEST, np.full((1, 800), 7.1)])
    found = AnomalyDetector(model, progress=False).fit(x.astype(np.float32))
    calm = found.contributions(y)
    y[3, 200:215] += jump
    y[1, 203:207] += 3.0  # another one moves, too, but has a scale
    moved = found.contributions(y)
    assert (moved[:, 200:215].argmax(0) == 3).all()
    assert (moved[3, 200:215] > calm[3, 200:215]).all() and np.array_equal(moved[:3, :150], calm[:3, :150])
    found.save(tmp_path / "m")
    again = AnomalyDetector.load(tmp_path / "m")
    np.testing.assert_array_equal(again.contributions(y), moved)
    again.threshold_ = replace(found.threshold_, value=float(found.score_samples(y)[200:215].min()) - 1e-6)
    (event,) = (e for e in again.events(y) if e.start <= 200 < e.end)
    assert event.channels[0] == "channel_3"


def test_a_still_channel_of_rounding_alone_does_not_drown_the_score_of_a_baseline():
    x = np.concatenate([TRAIN, np.full((1, 800), 7.1)]).astype(float)
    y = np.concatenate([TEST, np.full((1, 800), 7.1)]).astype(float)
    found = closed("sub_pca").fit(x)
    before = found.score_samples(y)
    y[3, 200:230] += 0.001
    assert np.abs(found.score_samples(y) - before).max() < 1.0


def test_a_series_with_a_dead_channel_gets_the_same_scores_alone_and_among_others(fitted):
    x = TEST[:, :200].astype(float)
    x[1] = np.nan
    among = fitted.score_samples(Collection.of([Series(TEST), Series(x, name="dead")]))[1]
    for alone in (
        x,
        Series(x),
        table(x).drop(columns="when").set_axis(["channel_0", "channel_1", "channel_2"], axis=1),
    ):
        np.testing.assert_allclose(fitted.score_samples(alone), among, rtol=1e-6)
    with pytest.raises(DataError, match="no observed value"):
        closed().fit(x)


def test_reading_changes_nothing_of_the_detector(fitted):
    before = dict(vars(fitted))
    fitted.score_samples(np.stack([TEST, TEST]))
    fitted.predict(TEST)
    assert vars(fitted) == before


@pytest.mark.parametrize(
    "later", [{"model": "knn"}, {"setting": "network"}, {"threshold": "quantile"}, {"false_alarm_rate": 0.5}]
)
def test_what_shapes_the_answers_cannot_be_set_after_fit_and_a_folder_holds_what_was_fitted(later, tmp_path):
    found = closed().fit(TRAIN)
    expected = found.score_samples(TEST)
    found.set_params(**later)
    for ask in (found.score_samples, found.predict, found.events, found.contributions, found.update):
        with pytest.raises(
            SettingsError, match=f"{next(iter(later))} was .* when this AnomalyDetector was fitted, and"
        ):
            ask(TEST)
    found.save(tmp_path / "m")
    again = AnomalyDetector.load(tmp_path / "m")
    assert again.get_params() == {**closed().get_params(), "run_folder": None}
    np.testing.assert_array_equal(again.score_samples(TEST), expected)


def test_what_a_detector_learned_as_validation_is_not_scored():
    borders = Borders(600, 800, 1600)
    known = replace(PLANTED, borders=borders)
    found = closed().fit(known.part(0, 800), validation=borders)
    assert detector_scores(found, known).n_scored == 800
    assert detector_scores(found, known, Borders(600, 600, 1600)).n_scored == 1000
