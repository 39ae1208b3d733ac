"""A classifier learns from cases of any form, says calibrated probabilities, and comes back from disk as it was."""

import copy
import json
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone

import prismts
from prismts.data.series import Collection, Series
from prismts.data.synthetic import labeled_motions
from prismts.errors import DataError, NotFittedError, SettingsError, ShapeError
from prismts.estimators.case_recipes import CLASSIFY_SETTINGS
from prismts.estimators.classifier import Classifier, _stacking
from prismts.evaluation.classification import calibration_error, classification_scores
from prismts.tasks.decoupled_masking import DecoupledMasking

TINY = {
    "model_settings": {"width": 8, "feed_forward": 8, "kernel_sizes": (5,)},
    "fit_settings": {"max_epochs": 6, "batch_size": 16},
    "validation": 2,
    "progress": False,
}


ONCE = {**TINY, "setting": "network", "validation": None, "fit_settings": {"max_epochs": 1, "batch_size": 16}}


@pytest.fixture(scope="module")
def motions() -> Collection:
    return labeled_motions(60, n_channels=2, n_timepoints=40)


@pytest.fixture(scope="module")
def fitted(motions) -> Classifier:
    return Classifier(**TINY).fit(motions.train)


def arrays(cases: Collection) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([case.values for case in cases]), np.asarray(cases.labels)


# ---- learning and answering


def test_motions_are_told_apart_with_probabilities_that_add_up(motions, fitted):
    X, y = arrays(motions.test)
    probabilities = fitted.predict_proba(X)
    assert probabilities.shape == (20, 3) and np.allclose(probabilities.sum(1), 1)
    assert (fitted.predict(X) == y).mean() > 0.8
    assert fitted.score(X, y) == (fitted.predict(X) == y).mean()


def test_what_is_left_out_in_one_fold_is_learned_from_in_the_other(fitted, motions):
    folds = fitted._folds(np.unique(motions.train.labels, return_inverse=True)[1])
    (a, b), (c, d) = folds
    assert sorted([*b, *d]) == list(range(40)) and not set(a) & set(b) and not set(c) & set(d)
    assert len(fitted.members_) == 2 and fitted.n_cases_ == {"train": 40, "validation": 40}
    assert fitted.validation_scores_["accuracy"] > 0.5


@pytest.mark.parametrize("labels", [["a", "b", "c"], [10, 20, 30], [1.5, 2.5, 3.5], [True, False, True]])
def test_labels_may_be_of_any_type(motions, labels, tmp_path):
    X, y = arrays(motions.train)
    named = np.array([labels[k] for k in y])
    model = Classifier(**{**TINY, "validation": None, "fit_settings": {"max_epochs": 1}}).fit(X, named)
    assert set(model.predict(X).tolist()) <= set(labels) and model.classes_.tolist() == sorted(set(labels))
    model.save(tmp_path / "m")
    assert prismts.load(tmp_path / "m").predict(X[:3]).tolist() == model.predict(X[:3]).tolist()


def test_labels_of_numpy_inside_objects_are_plain_ones_and_can_be_saved(motions, tmp_path):
    X, y = arrays(motions.train)
    objects = np.empty(len(y), dtype=object)
    objects[:] = [np.int64(label) for label in y]
    model = Classifier(**ONCE).fit(X, objects)
    assert [type(label) for label in model.classes_.tolist()] == [int, int, int]
    model.save(tmp_path / "m")
    assert prismts.load(tmp_path / "m").predict(X[:5]).tolist() == model.predict(X[:5]).tolist()


@pytest.mark.parametrize("make", [pd.Series, pd.Categorical, list, lambda y: pd.array(y, dtype="string")])
def test_labels_may_come_in_any_kind_of_column_and_any_script(motions, make):
    X, y = arrays(motions.train)
    words = np.array(["läuft", "停", 'a,"b"'])[y]
    model = Classifier(**ONCE).fit(X, make(words.tolist()))
    assert model.classes_.tolist() == sorted({"läuft", "停", 'a,"b"'})


def test_labels_of_several_types_are_refused_in_words(motions):
    X, y = arrays(motions.train)
    mixed = pd.Series(["a" if label else 1 for label in y], dtype=object)
    with pytest.raises(DataError, match=r"Labels are of one type.*int, str"):
        Classifier(**ONCE).fit(X, mixed)


@pytest.mark.parametrize(
    ("labels", "key"),
    [
        ([0, 1, 2], int), ([0, 1, 2], np.int64), ([0, 1, 2], np.float32), (["a", "b", "c"], np.str_),
        ([1.5, 2.5, 3.5], float), ([False, True, True], np.bool_),
    ],
)  # fmt: skip
def test_classes_of_any_type_are_weighed_and_the_weights_survive_saving(motions, labels, key, tmp_path):
    X, y = arrays(motions.train)
    named = np.array(labels)[y]
    weights = {key(label): float(k + 1) for k, label in enumerate(sorted(set(labels)))}
    model = Classifier(**ONCE, class_weight=weights, run_folder=tmp_path / "run").fit(X, named)
    model.save(tmp_path / "m")
    again = prismts.load(tmp_path / "m")
    assert again.class_weight == weights
    np.testing.assert_array_equal(again.fit(X, named).predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("heavy", "class_weight is None, 'balanced'"), ([1, 2, 3], "a mapping from each class"),
        ({0: 1, 1: "2", 2: 3}, "class 1 has '2'"), ({0: 1, 1: 0, 2: 3}, "numbers above 0"),
        ({"0": 1, "1": 2, "2": 3}, "no weight for class 0. Its keys are the labels"),
    ],
)  # fmt: skip
def test_class_weights_that_mean_nothing_are_refused(motions, weights, words):
    with pytest.raises(SettingsError, match=words):
        Classifier(**ONCE, class_weight=weights).fit(motions.train)


def test_arrays_lists_and_collections_of_the_same_cases_get_the_same_answer(motions, fitted):
    X, _ = arrays(motions.test)
    expected = fitted.predict_proba(X)
    np.testing.assert_array_equal(fitted.predict_proba(motions.test), expected)
    np.testing.assert_array_equal(fitted.predict_proba(list(X)), expected)


def test_the_answer_for_a_case_does_not_depend_on_the_cases_beside_it(motions, fitted):
    cases = [case.values[:, : 12 + 4 * (i % 5)] for i, case in enumerate(motions.test)]
    together = fitted.predict_proba(cases)
    for i in (0, 3, 11):
        np.testing.assert_allclose(fitted.predict_proba([cases[i]])[0], together[i], atol=1e-5)


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_case_without_a_finite_answer_is_named_and_gets_no_class(motions, fitted):
    x = arrays(motions)[0][:4].astype(np.float64)
    x[2, 0, 5] = 1e200
    for ask in (fitted.predict_proba, fitted.predict):
        with pytest.raises(DataError, match=r"largest value is 1e\+200, in channel 'channel_0' of series '2'"):
            ask(x)


def test_what_shapes_the_answers_cannot_be_set_after_fit(motions, fitted):
    later = copy.copy(fitted).set_params(class_weight="balanced")
    with pytest.raises(SettingsError, match="class_weight was None when this Classifier was fitted"):
        later.predict(motions.test)


def test_labels_of_another_type_than_those_of_training_are_refused_when_they_judge(motions, fitted):
    x, y = arrays(motions.test)
    assert fitted.score(x, y) == (fitted.predict(x) == y).mean() == fitted.score(motions.test)
    for ask in (fitted.score, fitted.evaluate):
        with pytest.raises(DataError, match="learned classes such as 0, but these labels are such as '"):
            ask(x, y.astype(str))


def test_labels_that_come_twice_are_refused(motions):
    found = Classifier(**TINY, series="id", label="kind")
    with pytest.raises(SettingsError, match="label='kind' names the column of the labels, but y brings labels too"):
        found.fit(long_table(motions), motions.train.labels)


def test_padding_a_case_with_nan_changes_nothing(motions, fitted):
    X, _ = arrays(motions.test)
    padded = np.concatenate([X, np.full((20, 2, 17), np.nan)], axis=2)
    np.testing.assert_allclose(fitted.predict_proba(padded), fitted.predict_proba(X), atol=1e-6)


def test_cases_of_unequal_length_with_gaps_are_learned(motions):
    rng = np.random.default_rng(0)
    cases = []
    for case in motions.train:
        values = case.values[:, : rng.integers(20, 41)].copy()
        values[rng.random(values.shape) < 0.1] = np.nan
        cases.append(values)
    model = Classifier(**TINY).fit(cases, motions.train.labels)
    assert np.isfinite(model.predict_proba(cases)).all() and model.n_timepoints_ <= 40
    assert model.score(cases, motions.train.labels) > 0.6


@pytest.mark.long
def test_cases_of_one_channel_may_come_as_rows(motions):
    X, y = arrays(motions.train)
    rows = Classifier(**TINY).fit(X[:, 0], y)
    cases = Classifier(**TINY).fit(X[:, :1], y)
    np.testing.assert_array_equal(rows.predict_proba(X[:, 0]), cases.predict_proba(X[:, :1]))


def test_a_long_table_brings_cases_and_labels(motions, tmp_path):
    rows = [
        {"id": f"case {i}", "t": t, "x": case.values[0, t], "y": case.values[1, t], "kind": f"k{motions.labels[i]}"}
        for i, case in enumerate(motions.train)
        for t in range(len(case))
    ]
    frame = pd.DataFrame(rows)
    frame.to_csv(tmp_path / "cases.csv", index=False)
    how = {**TINY, "series": "id", "label": "kind", "time": "t"}
    model = Classifier(**how).fit(tmp_path / "cases.csv")
    assert model.classes_.tolist() == ["k0", "k1", "k2"] and model.channels_ == ("x", "y")
    np.testing.assert_array_equal(model.predict(frame), model.predict(frame.drop(columns="kind")))
    frame.loc[3, "kind"] = "other"
    with pytest.raises(DataError, match="'case 0' has more than one label"):
        Classifier(**how).fit(frame)


def long_table(motions: Collection) -> pd.DataFrame:
    rows = [
        (f"case {i}", t, case.values[0, t], case.values[1, t], f"k{motions.labels[i]}")
        for i, case in enumerate(motions.train)
        for t in range(len(case))
    ]
    return pd.DataFrame(rows, columns=["id", "t", "x", "y", "kind"])


def test_a_labeled_table_is_read_by_the_rules_of_every_other_table(motions, tmp_path):
    frame = long_table(motions)
    frame["id"] = frame["id"].replace("case 0", "NA")
    frame["kind"] = frame["kind"].replace({"k0": "NA", "k1": "null"})
    how = {**ONCE, "series": "id", "label": "kind", "time": "t"}
    expected = Classifier(**how).fit(frame)
    for name, style in (("a", {}), ("b", {"sep": ";", "decimal": ","}), ("c", {"sep": "\t"})):
        frame.to_csv(tmp_path / f"{name}.csv", index=False, **style)
        model = Classifier(**how).fit(tmp_path / f"{name}.csv")
        assert model.classes_.tolist() == ["NA", "k2", "null"]
        assert model.names_of(tmp_path / f"{name}.csv")[:2] == ["NA", "case 1"]
        np.testing.assert_allclose(model.predict_proba(frame), expected.predict_proba(frame), atol=1e-6)
    frame.to_parquet(tmp_path / "d.parquet", index=False)
    assert Classifier(**how).fit(tmp_path / "d.parquet").classes_.tolist() == ["NA", "k2", "null"]


def test_a_column_of_labels_that_is_not_there_is_named(motions):
    with pytest.raises(DataError, match=r"has no column 'kin'. Did you mean 'kind'"):
        Classifier(**ONCE, series="id", label="kin", time="t").fit(long_table(motions))


def test_classes_of_a_csv_are_called_as_they_are_written_there(motions, tmp_path):
    frame = long_table(motions)
    frame["kind"] = frame["kind"].replace({"k0": "01", "k1": "1", "k2": "10"})
    frame.to_csv(tmp_path / "cases.csv", index=False)
    frame[frame["kind"] == "10"].to_csv(tmp_path / "ten.csv", index=False)  # a file that could be of numbers
    model = Classifier(**ONCE, series="id", label="kind", time="t").fit(tmp_path / "cases.csv")
    assert model.classes_.tolist() == ["01", "1", "10"]
    assert model.evaluate(tmp_path / "ten.csv").n_scored == len(frame[frame["kind"] == "10"]["id"].unique())


@pytest.mark.parametrize("labels", [np.nan, None, ""])
def test_new_cases_may_have_an_empty_column_of_labels(motions, labels):
    frame = long_table(motions)
    model = Classifier(**ONCE, series="id", label="kind", time="t").fit(frame)
    expected = model.predict_proba(frame.drop(columns="kind"))
    np.testing.assert_array_equal(model.predict_proba(frame.assign(kind=labels)), expected)
    some = frame.assign(kind=frame["kind"].where(frame["id"] != "case 3"))
    np.testing.assert_array_equal(model.predict_proba(some), expected)
    with pytest.raises(DataError, match="'case 3' has rows without a label"):
        model.evaluate(some)


def test_tables_of_other_libraries_bring_labels_and_columns_may_be_called_by_numbers(motions):
    import polars as pl
    import pyarrow as pa

    frame = long_table(motions)
    model = Classifier(**ONCE, series="id", label="kind", time="t").fit(pl.from_pandas(frame).lazy())
    table = pa.Table.from_pandas(frame, preserve_index=False)
    np.testing.assert_array_equal(model.predict_proba(table), model.predict_proba(frame))
    numbered = frame.set_axis(range(5), axis=1)
    other = Classifier(**ONCE, series=0, time=1, values=[2, 3], label=4).fit(numbered)
    np.testing.assert_array_equal(other.predict_proba(numbered), model.predict_proba(frame))


def test_a_case_with_a_dead_channel_gets_the_same_answer_alone_and_among_others(motions, fitted):
    X, _ = arrays(motions.test)
    X = X.copy()
    X[1, 1] = np.nan
    among = fitted.predict_proba(X)[1]
    for alone in (X[1:2], X[1], [X[1]], Series(X[1])):
        np.testing.assert_allclose(fitted.predict_proba(alone)[0], among, atol=1e-6)
    np.testing.assert_allclose(fitted.embed(X[1:2])[0], fitted.embed(X)[1], atol=1e-5)
    assert fitted.evaluate(X[1:2], [0]).n_scored == 1
    with pytest.raises(DataError, match="'channel_1' has no observed value"):
        Classifier(**ONCE).fit(X[[1, 1, 1, 1]], [0, 1, 0, 1])  # learned from, it is still refused


@pytest.mark.long
def test_equal_seeds_give_equal_classifiers_and_others_do_not(motions):
    X, y = arrays(motions.train)
    answers = [Classifier(**TINY, random_state=seed).fit(X, y).predict_proba(X) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(answers[0], answers[1])
    assert not np.array_equal(answers[0], answers[2])


@pytest.mark.long
def test_balanced_weights_find_the_rare_class_more_often():
    cases = labeled_motions(120, n_classes=2, n_channels=1, n_timepoints=30, noise=2.0)
    X, y = arrays(cases)
    keep = np.flatnonzero((y == 0) | (np.arange(120) % 12 == 1))
    found = {}
    for weight in (None, "balanced"):
        model = Classifier(**TINY, class_weight=weight).fit(X[keep], y[keep])
        found[weight] = (model.predict(X) == 1).mean()
    assert found["balanced"] > found[None]


def test_refitting_learns_from_all_cases_once_more(motions):
    model = Classifier(**TINY, refit=True).fit(motions.train)
    assert len(model.members_) == 1 and len(model.fit_results_) == 3
    assert model.fit_results_[-1].history[-1]["epoch"] == round(
        np.median([r.best_epoch for r in model.fit_results_[:2]])
    )


def scaled(model: Classifier, cases: Collection) -> torch.Tensor:
    """What a network is given of cases of equal length."""
    return torch.from_numpy(model.scaler_.transform(arrays(cases)[0])).float()


def test_members_of_several_seeds_answer_by_the_mean_of_their_scores(motions):
    model = Classifier(**TINY | {"setting": "network", "fit_settings": {"max_epochs": 2}}, n_members=2).fit(
        motions.train
    )
    assert len(model.members_) == 4 and model.model_.line is None  # two seeds in each of two folds
    with torch.no_grad():
        said = torch.stack([member.eval()(scaled(model, motions.test)) for member in model.members_])  # [M, n, K]
    np.testing.assert_allclose(
        model.predict_proba(motions.test), (model.weights_[0] * said.mean(0)).softmax(1), atol=1e-5
    )
    for member in said:  # none of them says it alone
        assert (member - said.mean(0)).abs().max() > 0.01


def test_an_embedding_is_the_pooled_tokens_of_every_network(motions, fitted):
    with torch.no_grad():
        tokens = [member.eval().encode(scaled(fitted, motions.test)).tokens for member in fitted.members_]
    expected = [part for each in tokens for part in (each.amax((1, 2)), each.mean((1, 2)))]  # of [n, 1, N, D]
    assert len(expected) == 2 * 2
    np.testing.assert_allclose(fitted.embed(motions.test), torch.cat(expected, dim=1), atol=1e-5)


@pytest.mark.long
def test_the_network_alone_can_be_asked_for_and_learns(motions):
    how = TINY | {"setting": "network", "validation": None, "fit_settings": {"max_epochs": 20, "batch_size": 16}}
    model = Classifier(**how).fit(motions.train)
    assert model.model_.line is None
    assert model.score(*arrays(motions.test)) > 0.7  # of three classes


# ---- weighing


def test_stacking_finds_the_temperature_that_makes_probabilities_likeliest():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 4000)
    log_odds = rng.normal(size=4000) * 1.5
    truth = (rng.random(4000) < 1 / (1 + np.exp(-log_odds))).astype(np.int64)
    scores = torch.tensor(np.stack([np.zeros(4000), log_odds / 5], axis=1)).float()  # too timid by a factor of 5
    network, line = _stacking(scores, None, truth, np.ones(4000))
    assert network == pytest.approx(5, rel=0.1) and line == 0


def test_stacking_leaves_out_what_says_nothing():
    torch.manual_seed(0)
    truth = np.arange(600) % 3
    good = torch.nn.functional.one_hot(torch.from_numpy(truth), 3).float() + 0.5 * torch.randn(600, 3)
    network, line = _stacking(torch.randn(600, 3), good, truth, np.ones(600))
    assert network < 0.15 < line


def test_classes_are_told_apart_where_weights_would_be_none_at_all():
    import torch

    torch.manual_seed(0)
    truth = np.arange(90) % 3
    wrong = -torch.nn.functional.one_hot(torch.from_numpy(truth), 3).float()  # worse than saying nothing
    network, line = _stacking(wrong, None, truth, np.ones(90))
    assert network > 0 and line == 0
    network, line = _stacking(wrong, wrong, truth, np.ones(90))
    assert network > 0 and line > 0


# ---- keeping


def test_a_saved_classifier_answers_as_before(fitted, motions, tmp_path):
    fitted.save(tmp_path / "m")
    again = prismts.load(tmp_path / "m")
    np.testing.assert_array_equal(again.predict_proba(motions.test), fitted.predict_proba(motions.test))
    assert again.validation_scores_ == fitted.validation_scores_ and again.weights_ == fitted.weights_
    assert json.loads((tmp_path / "m" / "config.json").read_text())["estimator"] == "Classifier"


def test_a_clone_has_the_arguments_and_nothing_that_was_learned(fitted):
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params() and not hasattr(copy, "model_")
    with pytest.raises(NotFittedError, match="Call fit first"):
        copy.predict(np.zeros((1, 2, 40)))


@pytest.mark.long
def test_a_run_folder_resumes_where_a_run_broke_off(motions, tmp_path, monkeypatch):
    whole = Classifier(**TINY).fit(motions.train).predict_proba(motions.test)
    calls = []
    import prismts.estimators.base as base

    original = base.fit

    def broken(*args, **kwargs):
        calls.append(kwargs["folder"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(base.Estimator, "_fit_network", staticmethod(broken))
    with pytest.raises(KeyboardInterrupt):
        Classifier(**TINY, run_folder=tmp_path / "run").fit(motions.train)
    monkeypatch.setattr(base.Estimator, "_fit_network", staticmethod(original))
    model = Classifier(**TINY, run_folder=tmp_path / "run").fit(motions.train)
    assert model.fit_results_[0].resumed_from == 6  # the first fold had ended
    np.testing.assert_array_equal(model.predict_proba(motions.test), whole)


# ---- what is refused


@pytest.mark.parametrize(
    ("X", "y", "words"),
    [
        (np.zeros((4, 2, 10)), None, "bring no labels"),
        (np.zeros((4, 2, 10)), [0, 1], "4 cases need 4 labels"),
        (np.zeros((4, 2, 10)), [0, 0, 0, 0], "at least two classes"),
        (np.zeros((4, 2, 10)), [0, 1, None, 1], "Case 2 has no label"),
        (np.zeros((4, 2, 10)), ["a", "b", "a", np.nan], "Case 3 has no label"),
        (np.zeros((4, 2, 3, 10)), [0, 1, 0, 1], "[case, channel, time]"),
    ],
)
def test_labels_and_cases_that_do_not_fit_are_refused(X, y, words):
    with pytest.raises(DataError, match=words.replace("[", "\\[").replace("]", "\\]")):
        Classifier(**TINY).fit(X, y)


def test_a_class_with_one_case_cannot_both_teach_and_judge(motions):
    X, y = arrays(motions.train)
    y = np.where(np.arange(len(y)) == 5, 9, y)
    with pytest.raises(DataError, match="Class 9 has a single case"):
        Classifier(**TINY).fit(X, y)
    model = Classifier(**{**TINY, "validation": "auto"}).fit(X, y)  # then nothing judges
    assert model.validation_scores_ is None and 9 in model.classes_


def test_cases_of_other_channels_or_exchanged_axes_are_refused(fitted):
    with pytest.raises(ShapeError, match=r"learned cases of 2 channels, but these have 40.*swapaxes"):
        fitted.predict(np.zeros((3, 40, 2)))


@pytest.mark.parametrize(
    ("validation", "words"),
    [
        (-1, "a share between 0 and 1"), (1.5, "a number of folds"), ("often", "got 'often'"), (1, "from 2 to"),
        (float("nan"), "got nan"), (float("inf"), "got inf"), ([2], "got \\[2\\]"), (True, "got True"),
        (15, "from 2 to 14 of them here, as the largest class has 14 cases"), (40, "from 2 to 14"),
        (0.95, "leaves 2 of 40 cases to learn from, fewer than the 3 classes"),
    ],
)  # fmt: skip
def test_a_validation_that_means_nothing_is_refused(motions, validation, words):
    with pytest.raises(SettingsError, match=words):
        Classifier(**{**TINY, "validation": validation}).fit(motions.train)


@pytest.mark.parametrize("validation", [0.7, 5, np.float32(0.5), np.int64(3)])
def test_every_class_is_learned_from_in_every_fold_and_no_other_library_warns(validation):
    codes = np.r_[np.zeros(98, dtype=int), 1, 1]
    model = Classifier(validation=validation)
    model.classes_ = np.arange(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folds = model._folds(codes)
    for learned, judged in folds:
        assert set(codes[learned]) == {0, 1} and sorted([*learned, *judged]) == list(range(100))


def test_a_direct_forecaster_cannot_classify(motions):
    with pytest.raises(SettingsError, match="direct forecaster"):
        Classifier("ridge", progress=False).fit(motions.train)


def test_unknown_settings_offer_their_nearest(motions):
    with pytest.raises(SettingsError, match="Did you mean 'network'"):
        Classifier(setting="netwrk", progress=False).fit(motions.train)
    with pytest.raises(SettingsError, match="class_weight names no weight for class 2"):
        Classifier(**TINY, class_weight={0: 1.0, 1: 2.0}).fit(motions.train)


# ---- scores and protocols


def test_scores_are_those_worked_out_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2], [0.3, 0.7]])
    scores = classification_scores(np.array(["a", "a", "b", "b"]), probabilities, ["a", "b"])
    assert scores["accuracy"] == 0.5 and scores["balanced_accuracy"] == 0.5 and scores["f1_macro"] == 0.5
    assert scores["log_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.2, 0.7]).mean())
    # bins by confidence: .9 right, .8 wrong, .7 right, .6 wrong, a quarter of the cases each
    assert scores["calibration_error"] == pytest.approx((0.1 + 0.8 + 0.3 + 0.6) / 4)


def test_scores_agree_with_scikit_learn():
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss

    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 200)
    probabilities = rng.dirichlet(np.ones(4), 200)
    said, scores = probabilities.argmax(1), classification_scores(truth, probabilities, range(4))
    assert scores["accuracy"] == pytest.approx(accuracy_score(truth, said))
    assert scores["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, said))
    assert scores["f1_macro"] == pytest.approx(f1_score(truth, said, average="macro"))
    assert scores["log_loss"] == pytest.approx(log_loss(truth, probabilities))


def test_perfectly_calibrated_probabilities_have_a_small_calibration_error():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, 20_000)
    truth = (rng.random(20_000) > p).astype(int)
    assert calibration_error(truth, np.stack([p, 1 - p], axis=1)) < 0.02


def test_a_class_that_was_never_learned_cannot_be_scored():
    with pytest.raises(DataError, match="Class 'c' was not among the classes the model learned"):
        classification_scores(np.array(["a", "c"]), np.full((2, 2), 0.5), ["a", "b"])


def test_the_honest_protocol_scores_every_test_case_once(motions):
    scores = prismts.evaluate(Classifier(**TINY), motions, seed=3)
    assert scores.n_scored == 20 and scores.counted == "cases" and scores.seed == 3
    assert scores["accuracy"] > 0.7 and "20 cases, protocol honest" in str(scores)


def test_the_published_protocol_reads_the_best_epoch_off_the_test_cases(motions):
    scores = prismts.evaluate(Classifier(**TINY), motions, protocol="published")
    model = Classifier(**TINY).fit(motions.train, judged_by=motions.test)
    (result,) = model.fit_results_
    mistakes = [entry["val_loss"] for entry in result.history]
    assert result.best_loss == min(mistakes) and scores.protocol == "published"
    assert model.weights_ == (1.0, 1.0)  # nothing is weighed on test cases


def test_a_series_is_no_set_of_cases():
    with pytest.raises(DataError, match="not labeled cases"):
        prismts.evaluate(Classifier(**TINY), Series(np.zeros((2, 50)), name="one"))


@pytest.mark.slow
def test_basic_motions_is_solved(data_root):
    scores = prismts.evaluate(Classifier(progress=False), "BasicMotions")
    assert scores["accuracy"] >= 0.95 and scores.n_scored == 40


@pytest.fixture
def short_pretraining(monkeypatch):
    for name in ("pretrained", "pretrained_network"):
        recipe = CLASSIFY_SETTINGS[name]
        few = replace(recipe.pretrain, max_epochs=3)
        monkeypatch.setitem(CLASSIFY_SETTINGS, name, replace(recipe, pretrain=few))


@pytest.mark.usefixtures("short_pretraining")
def test_a_classifier_is_first_trained_without_labels_and_is_loaded_as_it_was_saved(motions, tmp_path):
    tiny = {"model_settings": {"width": 8, "n_layers": 1}, "fit_settings": {"max_epochs": 2}, "validation": 2}
    plain = Classifier("timemae", setting="network", progress=False, **tiny).fit(motions.train)
    pretrained = Classifier("timemae", setting="pretrained", progress=False, **tiny).fit(motions.train)
    assert len(pretrained.fit_results_) == len(plain.fit_results_) == 2  # the trainings without labels do not count
    assert not np.array_equal(pretrained.predict_proba(motions.test), plain.predict_proba(motions.test))
    pretrained.save(tmp_path / "saved")
    answer = pretrained.predict_proba(motions.test)
    np.testing.assert_array_equal(prismts.load(tmp_path / "saved").predict_proba(motions.test), answer)


@pytest.mark.usefixtures("short_pretraining")
def test_a_pretrained_network_may_stand_alone(motions):
    tiny = {"model_settings": {"width": 8, "n_layers": 1}, "fit_settings": {"max_epochs": 2}, "validation": 2}
    beside = Classifier("timemae", setting="pretrained", progress=False, **tiny).fit(motions.train)
    alone = Classifier("timemae", setting="pretrained_network", progress=False, **tiny).fit(motions.train)
    for one, other in zip(alone.members_, beside.members_, strict=True):  # the same networks
        torch.testing.assert_close(one.slice.weight, other.slice.weight)
    assert not np.array_equal(alone.predict_proba(motions.test), beside.predict_proba(motions.test))


@pytest.mark.usefixtures("short_pretraining")
def test_what_was_learned_without_labels_is_where_networks_begin(motions, monkeypatch):
    """Networks that learn at no rate worth the name stay where they began: fold by fold at what was pre-trained."""
    learned, train = [], Classifier._train

    def noted(self, build, task, *args, **how):
        networks, results = train(self, build, task, *args, **how)
        learned.extend(network.encoder for network in networks if isinstance(task, DecoupledMasking))
        return networks, results

    monkeypatch.setattr(Classifier, "_train", noted)
    how = {"model_settings": {"width": 8, "n_layers": 1}, "fit_settings": {"max_epochs": 1, "learning_rate": 1e-12}}
    model = Classifier("timemae", setting="pretrained", validation=2, progress=False, **how).fit(motions.train)
    for member, encoder in zip(model.members_, learned, strict=True):
        began = member.state_dict()
        for name, value in encoder.state_dict().items():
            torch.testing.assert_close(began[name], value, rtol=1e-6, atol=1e-8, msg=name)
    plain = Classifier("timemae", setting="network", validation=2, progress=False, **how).fit(motions.train)
    apart = [
        float((one.slice.weight - other.slice.weight).detach().abs().max())
        for one, other in zip(model.members_, plain.members_, strict=True)
    ]
    assert min(apart) > 1e-3


def test_only_timemae_is_trained_without_labels_by_hiding_slices(motions):
    with pytest.raises(SettingsError, match=r"Choose 'timemae'"):
        Classifier(setting="pretrained", validation=2, progress=False).fit(motions.train)
