"""Our estimators keep scikit-learn's conventions, and work in its pipelines, searches and cross-validation."""

import copy
import inspect
import pickle
import random

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone, is_classifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from prismts.data.synthetic import labeled_motions
from prismts.errors import NotFittedError
from prismts.estimators.classifier import Classifier
from prismts.estimators.detector import AnomalyDetector
from prismts.estimators.embedder import Embedder
from prismts.estimators.forecaster import Forecaster
from prismts.estimators.imputer import Imputer

NETWORK = {"width": 8, "feed_forward": 0, "kernel_sizes": (3,)}
QUICK = {"max_epochs": 1, "accelerator": "cpu"}
TINY = {"model_settings": NETWORK, "fit_settings": QUICK, "progress": False}
GAPPY = np.where(np.arange(120) % 12 < 4, np.nan, np.sin(np.arange(120) / 3))[None]  # [1, T]


def motions(n_cases: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Cases [n, 2, 40] that turn 3 or 5 times, and which of both as text."""
    cases = labeled_motions(n_cases, n_classes=2, n_channels=2, n_timepoints=40, noise=0.1)
    return np.stack([case.values for case in cases]), np.where(cases.labels == 0, "slow", "fast")


def waves() -> np.ndarray:
    t = np.arange(120)
    return np.stack([np.sin(t / 3), np.cos(t / 5)]) + 0.05 * np.random.default_rng(0).standard_normal((2, 120))


# what makes an unfitted estimator, what it learns from, and what it answers: [..] of numbers
KINDS = {
    "classifier": (
        lambda **kw: Classifier(**TINY, validation=0.25, **kw), motions, lambda e: e.predict_proba(motions()[0]),
    ),
    "embedder": (lambda **kw: Embedder(**TINY, **kw), lambda: motions()[:1], lambda e: e.transform(motions()[0])),
    "forecaster": (
        lambda **kw: Forecaster(context_length=16, horizon=4, setting="published", **TINY, **kw),
        lambda: (waves(),),
        lambda e: e.predict(waves()),
    ),
    "detector": (
        lambda **kw: AnomalyDetector(context_length=16, setting="combined", **TINY, **kw),
        lambda: (waves(),),
        lambda e: e.score_samples(waves()),
    ),
    "imputer": (
        lambda **kw: Imputer(context_length=24, **TINY, **kw), lambda: (GAPPY,), lambda e: e.transform(GAPPY),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def fitted():
    """Each estimator, fitted once."""
    return {name: make().fit(*data()) for name, (make, data, _) in KINDS.items()}


every = pytest.mark.parametrize("name", KINDS)


# ---- conventions


@every
def test_the_constructor_stores_what_it_is_given_and_judges_nothing(name):
    kind = type(KINDS[name][0]())
    given = {argument: object() for argument in list(inspect.signature(kind.__init__).parameters)[1:]}
    made = kind(**given)
    assert made.get_params(deep=False) == given
    assert vars(made) == given  # and nothing else is set
    assert kind().get_params() == {a: p.default for a, p in inspect.signature(kind).parameters.items()}


@every
def test_a_clone_of_a_fitted_estimator_has_its_arguments_and_has_learned_nothing(name, fitted):
    twin = clone(fitted[name])
    assert twin.get_params() == fitted[name].get_params()
    assert set(vars(twin)) == set(twin.get_params())
    check_is_fitted(fitted[name])
    with pytest.raises(NotFittedError, match="Call fit"):
        KINDS[name][2](twin)


@every
def test_an_argument_that_is_set_later_counts(name):
    made = KINDS[name][0]().set_params(random_state=5)
    assert made.random_state == 5
    with pytest.raises(ValueError, match="Invalid parameter"):
        made.set_params(random_stat=5)


@every
def test_fit_returns_self_leaves_arguments_and_data_alone_and_marks_what_it_learned(name):
    make, data, _ = KINDS[name]
    made, given = make(), data()
    before = joblib.hash([made.get_params(), given])
    assert made.fit(*given) is made
    assert joblib.hash([made.get_params(), given]) == before
    learned = set(vars(made)) - set(made.get_params())
    assert learned
    assert not {attribute for attribute in learned if not attribute.endswith("_") and not attribute.startswith("_")}


@every
def test_equal_seeds_give_equal_answers_and_other_seeds_others(name, fitted):
    make, data, answer = KINDS[name]
    first = answer(fitted[name])
    np.testing.assert_array_equal(answer(make().fit(*data())), first)
    assert not np.array_equal(answer(make(random_state=1).fit(*data())), first)


@pytest.mark.parametrize("name", ["classifier", "embedder", "detector", "imputer", "forecaster"])
def test_a_seed_may_be_an_integer_of_numpy(name, fitted):
    make, data, answer = KINDS[name]
    np.testing.assert_array_equal(answer(make(random_state=np.int64(0)).fit(*data())), answer(fitted[name]))


@every
def test_a_second_fit_begins_anew(name):
    make, data, answer = KINDS[name]
    made = make().fit(*data())
    first = answer(made)
    np.testing.assert_array_equal(answer(made.fit(*data())), first)


@every
def test_nobody_elses_random_numbers_are_touched(name):
    make, data, answer = KINDS[name]

    def drawn() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    def seeded() -> None:
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)

    seeded()
    untouched = drawn()
    seeded()
    answer(make().fit(*data()))
    assert drawn() == untouched


@every
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))], ids=["deepcopy", "pickle"])
def test_a_copy_of_a_fitted_estimator_answers_alike(name, copied, fitted):
    answer = KINDS[name][2]
    np.testing.assert_array_equal(answer(copied(fitted[name])), answer(fitted[name]))


@pytest.mark.parametrize("name", ["classifier", "embedder", "detector", "imputer", "forecaster"])
def test_an_answer_changes_nothing_that_is_copied(name):
    make, data, answer = KINDS[name]
    made = make().fit(*data())
    before = joblib.hash(made)
    answer(made)
    assert joblib.hash(made) == before


@every
def test_nothing_is_printed_without_progress(name, capsys):
    make, data, answer = KINDS[name]
    answer(make().fit(*data()))
    assert capsys.readouterr() == ("", "")


# ---- in the company of others


def test_a_classifier_says_that_it_is_one_and_scores_accuracy(fitted):
    X, y = motions()
    assert is_classifier(fitted["classifier"])
    assert fitted["classifier"].score(X, y) == (fitted["classifier"].predict(X) == y).mean()


@pytest.mark.long
def test_a_classifier_can_be_cross_validated_by_any_scorer():
    X, y = motions()
    folds = StratifiedKFold(2)
    accuracies = cross_val_score(Classifier(**TINY, validation=0.25), X, y, cv=folds)
    assert accuracies.mean() > 0.9  # the closed-form classifier finds the rate of a motion
    areas = cross_val_score(Classifier(**TINY, validation=0.25), X, y, cv=folds, scoring="roc_auc")
    assert areas.mean() > 0.9


def test_cases_of_unequal_length_can_be_cross_validated_as_a_list():
    X, y = motions()
    ragged = [case[:, : 40 - i % 5] for i, case in enumerate(X)]
    assert cross_val_score(Classifier(**TINY, validation=0.25), ragged, y, cv=StratifiedKFold(2)).mean() > 0.9


@pytest.mark.long
def test_a_grid_goes_over_the_settings_of_a_classifier_and_refits_the_best():
    X, y = motions()
    grid = {"setting": ["default", "network"], "validation": [None, 2]}
    search = GridSearchCV(Classifier(**TINY, validation=0.25), grid, cv=2).fit(X, y)
    assert search.best_params_["setting"] == "default"  # one epoch of a tiny network alone does not tell motions
    assert search.best_score_ > 0.9
    assert set(search.predict(X)) == {"slow", "fast"}
    assert search.best_estimator_.get_params()["model_settings"] == NETWORK


def test_an_embedder_stands_before_a_linear_model_in_a_pipeline():
    X, y = motions()
    pipeline = make_pipeline(Embedder(**TINY), StandardScaler(), LogisticRegression())
    vectors = pipeline[0].fit_transform(X)
    np.testing.assert_array_equal(pipeline.fit(X, y)[:1].transform(X), vectors)
    assert pipeline.predict(X).shape == (24,)
    twin = clone(pipeline)
    assert not hasattr(twin[0], "model_")


def test_an_embedder_names_the_columns_of_a_table_that_a_pipeline_is_set_to_write():
    X, _ = motions()
    pipeline = make_pipeline(Embedder(**TINY), StandardScaler()).set_output(transform="pandas")
    table = pipeline.fit_transform(X)
    n = pipeline[0].n_features_
    assert list(table.columns) == list(pipeline.get_feature_names_out()) == [f"embedder{i}" for i in range(n)]
    assert isinstance(Embedder(**TINY).fit_transform(X), np.ndarray)  # unless it is set so


def test_a_grid_goes_over_an_embedder_in_a_pipeline():
    X, y = motions()
    pipeline = make_pipeline(Embedder(**TINY), StandardScaler(), LogisticRegression())
    grid = {"embedder__pooling": ["mean", "both"], "logisticregression__C": [0.1, 10.0]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, y)
    tried = search.cv_results_["mean_test_score"]
    assert tried.shape == (4,)
    assert np.isfinite(tried).all()
    assert search.best_estimator_[0].pooling == search.best_params_["embedder__pooling"]


@pytest.mark.slow
def test_several_processes_find_what_one_finds():
    X, y = motions()
    alone, together = (
        cross_val_score(Classifier(**TINY, validation=0.25), X, y, cv=2, n_jobs=n, scoring="neg_log_loss")
        for n in (1, 2)
    )
    np.testing.assert_allclose(together, alone, rtol=1e-6)


@pytest.mark.slow
def test_an_embedding_of_real_motions_tells_them_apart():
    datasets = pytest.importorskip("aeon.datasets")
    X, y = datasets.load_basic_motions()  # standing, running, walking, badminton; 80 cases of 6 channels
    quick = Embedder(fit_settings={"max_epochs": 5}, progress=False)
    scores = cross_val_score(make_pipeline(quick, StandardScaler(), LogisticRegression(max_iter=1000)), X, y, cv=4)
    assert scores.mean() > 0.9


@pytest.mark.slow
def test_a_grid_over_real_motions_finds_a_good_classifier():
    datasets = pytest.importorskip("aeon.datasets")
    X, y = datasets.load_basic_motions(split="train")
    quick = Classifier(fit_settings={"max_epochs": 3}, validation=None, progress=False)
    search = GridSearchCV(quick, {"setting": ["default", "network"]}, cv=2).fit(X, y)
    assert search.best_score_ > 0.9
    assert set(search.predict(X)) == set(y)
