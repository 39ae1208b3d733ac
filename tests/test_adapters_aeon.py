"""Our estimators under aeon's interface: all of its checks, and the same answers as without it."""

import doctest
import sys
from importlib import import_module

import numpy as np
import pytest

pytest.importorskip("aeon", reason="needs the extra bench")

from aeon.testing.estimator_checking import check_estimator, parametrize_with_checks

from prismts.adapters import aeon as adapters
from prismts.adapters.aeon import PrismAnomalyDetector, PrismClassifier, PrismEmbedder, PrismForecaster
from prismts.data.synthetic import labeled_motions
from prismts.errors import MissingExtraError, SettingsError
from prismts.estimators.classifier import Classifier
from prismts.estimators.detector import AnomalyDetector
from prismts.estimators.embedder import Embedder
from prismts.estimators.forecaster import Forecaster

TINY = {"model_settings": {"width": 8, "kernel_sizes": (3,)}, "fit_settings": {"max_epochs": 1, "accelerator": "cpu"}}


def motions(n_cases: int = 16) -> tuple[np.ndarray, np.ndarray]:
    cases = labeled_motions(n_cases, n_classes=2, n_channels=2, n_timepoints=40, noise=0.1)
    return np.stack([case.values for case in cases]), np.where(cases.labels == 0, "slow", "fast")


def wave(n: int = 120) -> np.ndarray:
    return np.sin(np.arange(n) / 3) + 0.05 * np.random.default_rng(0).standard_normal(n)


# ---- aeon's own checks


@pytest.mark.long
@parametrize_with_checks([PrismClassifier, PrismEmbedder, PrismForecaster, PrismAnomalyDetector])
def test_aeon_finds_nothing_to_complain_of(check):
    check()


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [PrismClassifier, PrismEmbedder, PrismForecaster, PrismAnomalyDetector])
def test_no_check_of_aeon_is_skipped(adapter):
    results = check_estimator(adapter)
    assert len(results) > 15
    assert set(results.values()) == {"PASSED"}


def test_the_examples_of_the_adapters_run():
    done = doctest.testmod(adapters)
    assert done.attempted >= 4 * 4
    assert done.failed == 0


# ---- the same answers


def test_the_classifier_answers_as_ours_does():
    X, y = motions()
    adapter = PrismClassifier(**TINY, validation=2).fit(X, y)
    ours = Classifier(**TINY, validation=2, progress=False).fit(X, y)
    np.testing.assert_array_equal(adapter.predict_proba(X), ours.predict_proba(X))
    np.testing.assert_array_equal(adapter.predict(X), ours.predict(X))
    assert adapter.classes_.tolist() == ours.classes_.tolist()


def test_the_classifier_takes_cases_of_any_length_with_gaps():
    X, y = motions()
    ragged = [case[:, : 40 - i % 4] for i, case in enumerate(X)]
    ragged[3][0, 5] = np.nan
    adapter = PrismClassifier(**TINY, validation=None).fit(ragged, y)
    ours = Classifier(**TINY, validation=None, progress=False).fit(ragged, y)
    np.testing.assert_array_equal(adapter.predict_proba(ragged), ours.predict_proba(ragged))


def test_the_embedder_answers_as_ours_does_and_leaves_no_gap():
    X, _ = motions()
    X[0, 1, 3:9] = np.nan
    X[1, 0] = np.nan  # a channel of which nothing was observed
    adapter = PrismEmbedder(**TINY).fit(X)
    ours = Embedder(**TINY, progress=False).fit(X)
    np.testing.assert_array_equal(adapter.transform(X), ours.transform(X))
    assert np.isfinite(adapter.transform(X)).all()


def test_the_forecaster_answers_with_the_last_of_the_steps_that_ours_writes():
    y = wave()
    adapter = PrismForecaster(horizon=4, context_length=16, **TINY).fit(y)
    ours = Forecaster(horizon=4, context_length=16, **TINY, progress=False).fit(y[None])
    steps = ours.predict(y[None])[0]
    assert adapter.predict(y) == steps[-1]
    np.testing.assert_array_equal(adapter.series_to_series_forecast(y, 3), steps[:3])
    other = wave(60)
    assert adapter.predict(other) == ours.predict(other[None])[0, -1]
    with pytest.raises(SettingsError, match="writes 4 steps, but prediction_horizon is 5"):
        adapter.series_to_series_forecast(y, 5)


def test_the_forecaster_goes_by_aeons_other_ways_to_several_steps():
    y = wave(60)
    one = PrismForecaster(context_length=16, **TINY)
    assert one.iterative_forecast(y, 3).shape == (3,)
    assert np.isfinite(PrismForecaster(context_length=16, **TINY).direct_forecast(y, 2)).all()
    assert PrismForecaster(horizon=2, context_length=16, **TINY).series_to_series_forecast(y, 2).shape == (2,)


def test_the_detector_scores_as_ours_does():
    X = np.stack([wave(200), wave(200)[::-1]])
    adapter = PrismAnomalyDetector(setting="combined", context_length=16, **TINY).fit(X)
    ours = AnomalyDetector(setting="combined", context_length=16, **TINY, progress=False).fit(X)
    scores = adapter.predict(X)
    np.testing.assert_array_equal(scores, ours.score_samples(X))
    assert scores.shape == (200,)


# ---- what every adapter keeps


def test_a_seed_may_be_what_scikit_learn_allows():
    X, _ = motions()

    def embedded(seed: object) -> np.ndarray:
        return PrismEmbedder(**TINY, random_state=seed).fit(X).transform(X)

    np.testing.assert_array_equal(embedded(np.random.RandomState(3)), embedded(np.random.RandomState(3)))
    np.testing.assert_array_equal(embedded(np.int64(3)), embedded(3))
    assert not np.array_equal(embedded(np.random.RandomState(3)), embedded(3))


def test_an_adapter_is_quiet_unless_it_is_told(capsys):
    X, _ = motions()
    PrismEmbedder(**TINY).fit(X).transform(X)
    assert capsys.readouterr() == ("", "")
    assert PrismEmbedder(**TINY, verbose=True).fit(X).estimator_.progress


def test_every_argument_of_our_estimators_can_be_set():
    ours_alone = {
        "progress",
        "run_folder",
        "time",
        "series",
        "values",
        "frequency",
        "quantiles",
        "warm_start",
        "label",
        "head",
        "times",
    }  # the horizon of an adapter is known in fit, and its rows are evenly spaced
    for adapter, ours in (
        (PrismClassifier, Classifier), (PrismEmbedder, Embedder), (PrismForecaster, Forecaster),
        (PrismAnomalyDetector, AnomalyDetector),
    ):  # fmt: skip
        defaults, theirs = ours().get_params(), adapter().get_params()
        assert set(defaults) - set(theirs) <= ours_alone
        for name in set(defaults) & set(theirs) - {"horizon"}:
            assert theirs[name] == defaults[name], name


@pytest.mark.parametrize(
    ("adapter", "ours"),
    [(PrismClassifier, Classifier), (PrismEmbedder, Embedder), (PrismForecaster, Forecaster),
     (PrismAnomalyDetector, AnomalyDetector)],
)  # fmt: skip
def test_every_argument_arrives_at_our_estimator(adapter, ours, monkeypatch):
    """Nothing is fitted: each argument is a thing of its own, to be met again as it is."""
    met = {}

    def fit(self, *data, **how):
        met.update(self.get_params(), **how)
        return self

    monkeypatch.setattr(ours, "fit", fit)
    given = {name: object() for name in adapter().get_params()}
    given |= {"random_state": 7, "horizon": 3} if "horizon" in given else {"random_state": 7}
    X, y = motions()
    series = wave()
    data = {PrismClassifier: (X, y), PrismEmbedder: (X,), PrismForecaster: (series,), PrismAnomalyDetector: (series,)}
    adapter(**given).fit(*data[adapter])
    for name, value in given.items():
        assert met["progress" if name == "verbose" else name] is value, name


def test_without_aeon_the_error_names_the_extra(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "aeon"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "prismts.adapters.aeon")
    with pytest.raises(MissingExtraError, match=r"pip install 'prismts\[bench\]'"):
        import_module("prismts.adapters.aeon")
