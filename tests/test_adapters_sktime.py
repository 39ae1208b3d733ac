"""Our estimators under sktime's interface: all of its checks, and the same answers as without it."""

import sys
from importlib import import_module

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("sktime", reason="needs the extra sktime")

from sktime.forecasting.base import ForecastingHorizon
from sktime.utils.estimator_checks import check_estimator, parametrize_with_checks

from prismts.adapters.sktime import PrismClassifier, PrismDetector, PrismEmbedder, PrismForecaster
from prismts.data.synthetic import labeled_motions
from prismts.errors import DataError, MissingExtraError, SettingsError
from prismts.estimators.classifier import Classifier
from prismts.estimators.detector import AnomalyDetector
from prismts.estimators.embedder import Embedder
from prismts.estimators.forecaster import Forecaster

TINY = {"model_settings": {"width": 8, "kernel_sizes": (3,)}, "fit_settings": {"max_epochs": 1, "accelerator": "cpu"}}
SHORT = {**TINY, "context_length": 16}
LONG = {  # checks that fit dozens of times: three quarters of the time of all of them
    "test_deepcopy_fitted", "test_deepcopy_fitted_predict", "test_fit_does_not_overwrite_hyper_params",
    "test_fit_idempotent", "test_fit_updates_state", "test_hierarchical_with_exogenous",
    "test_methods_have_no_side_effects", "test_multioutput", "test_non_state_changing_method_contract",
    "test_persistence_via_pickle", "test_predict_interval", "test_predict_time_index", "test_predict_time_index_with_X",
    "test_save_estimators_to_file", "test_update_predict_predicted_index",
}  # fmt: skip
CHECKS = parametrize_with_checks([PrismClassifier, PrismForecaster, PrismDetector, PrismEmbedder]).args[1]


def marks_of(check: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] if check in LONG else []


@pytest.mark.long
@pytest.mark.parametrize(
    ("adapter", "check"), [pytest.param(adapter, check, marks=marks_of(check)) for adapter, check in CHECKS]
)
@pytest.mark.filterwarnings("ignore:.*predict_proba requires skpro", "ignore:Sorting by default")
def test_sktime_finds_nothing_to_complain_of(adapter, check):
    results = check_estimator(adapter, tests_to_run=check, raise_exceptions=True, verbose=False)
    assert results
    assert set(results.values()) == {"PASSED"}


def test_every_check_that_is_called_long_is_one():
    assert {check for _, check in CHECKS} >= LONG


# ---- the same answers


def motions(n_cases: int = 16) -> tuple[np.ndarray, np.ndarray]:
    cases = labeled_motions(n_cases, n_classes=2, n_channels=2, n_timepoints=40, noise=0.1)
    return np.stack([case.values for case in cases]).astype(float), np.where(cases.labels == 0, "slow", "fast")


def waves(n: int = 120) -> pd.DataFrame:
    t = np.arange(n)
    values = {"load": np.sin(t / 3), "price": 5 + np.cos(t / 5)}
    table = pd.DataFrame(values, pd.period_range("2024-01-01", periods=n, freq="D"))
    return table + 0.05 * np.random.default_rng(0).standard_normal(table.shape)


def test_the_classifier_answers_as_ours_does():
    X, y = motions()
    adapter = PrismClassifier(**TINY, validation=2).fit(X, y)
    ours = Classifier(**TINY, validation=2, progress=False).fit(X, y)
    np.testing.assert_array_equal(adapter.predict_proba(X), ours.predict_proba(X))
    np.testing.assert_array_equal(adapter.predict(X), ours.predict(X))


def test_the_classifier_takes_cases_of_any_length_with_gaps():
    X, y = motions()
    ragged = [case[:, : 40 - i % 4].copy() for i, case in enumerate(X)]
    ragged[3][0, 5] = np.nan
    tables = [pd.DataFrame(case.T, columns=["a", "b"]) for case in ragged]
    adapter = PrismClassifier(**TINY, validation=None).fit(tables, y)
    ours = Classifier(**TINY, validation=None, progress=False).fit(ragged, y)
    np.testing.assert_array_equal(adapter.predict_proba(tables), ours.predict_proba(ragged))


def test_the_embedder_answers_as_ours_does():
    X, _ = motions()
    found = PrismEmbedder(**TINY).fit_transform(X)
    assert isinstance(found, pd.DataFrame)
    np.testing.assert_array_equal(found, Embedder(**TINY, progress=False).fit_transform(X))


def test_the_detector_tells_the_places_of_alarms():
    table = waves(300)
    table.iloc[250, 0] += 20
    adapter = PrismDetector(setting="combined", **SHORT).fit(table[:200])
    ours = AnomalyDetector(setting="combined", **SHORT, progress=False).fit(table[:200].to_numpy().T)
    row = table.to_numpy().T
    scores = adapter.transform_scores(table)
    np.testing.assert_array_equal(scores["score"], ours.score_samples(row))
    assert scores.index.equals(table.index)
    places = adapter.predict(table)["ilocs"].to_numpy()
    np.testing.assert_array_equal(places, np.flatnonzero(ours.predict(row)))
    assert len(places)
    np.testing.assert_array_equal(adapter.predict_scores(table)["score"], scores["score"].to_numpy()[places])


# ---- the forecaster


def test_the_forecaster_writes_the_steps_that_are_asked_for_in_the_tables_own_time():
    table = waves()
    adapter = PrismForecaster(**SHORT).fit(table, fh=[2, 4])
    ours = Forecaster(**SHORT, horizon=4, progress=False).fit(table.to_numpy().T)
    found = adapter.predict()
    np.testing.assert_array_equal(found.to_numpy().T, ours.predict(table.to_numpy().T)[:, [1, 3]].astype(float))
    assert found.columns.tolist() == ["load", "price"]
    assert found.index.astype(str).tolist() == ["2024-05-01", "2024-05-03"]  # January 1 and 120 days, and 1, and 3


@pytest.mark.parametrize("frequency", ["D", "MS", "2h"])
@pytest.mark.parametrize("kind", ["periods", "times"])
def test_periods_that_an_index_leaves_out_are_gaps_and_not_closed(frequency, kind):
    times = pd.date_range("2000-01-01", periods=200, freq=frequency)
    if kind == "periods":
        times = times.to_period({"MS": "M"}.get(frequency, frequency))
    whole = pd.Series(np.sin(np.arange(200) * 2 * np.pi / 10), times)
    holed = whole.copy()
    holed.iloc[150:155] = np.nan
    rows = np.r_[0:150, 155:200]
    shorter = whole.iloc[rows]
    if kind == "periods":  # sktime continues no times of which it cannot see the frequency
        new = PrismForecaster("ridge", context_length=40, horizon=3)
        told = [new.clone().fit(y).predict(fh=[1, 2, 3]) for y in (holed, shorter)]
        pd.testing.assert_series_equal(*told)
    detector = PrismDetector().fit(whole.to_frame())
    expected = detector.transform_scores(holed.to_frame()).iloc[rows]
    pd.testing.assert_frame_equal(detector.transform_scores(shorter.to_frame()), expected, check_freq=False)
    spiked = shorter.copy()
    spiked.iloc[170] += 5
    assert 170 in detector.predict(spiked.to_frame())["ilocs"].tolist()


def test_an_index_of_even_numbers_is_continued_by_even_numbers():
    y = pd.Series(np.arange(100.0), pd.RangeIndex(0, 200, 2))  # each value is half its label
    for fh in ([2, 6], ForecastingHorizon([200, 204], is_relative=False)):
        forecast = PrismForecaster("ridge", context_length=20).fit(y, fh=fh).predict()
        assert forecast.index.tolist() == [200, 204]
        np.testing.assert_allclose(forecast, [100.0, 102.0], atol=0.1)
    with pytest.raises(SettingsError, match=r"a row every 2, .* step 1 lies between two rows.* fh=\[2, 4\]"):
        PrismForecaster("ridge", context_length=20).fit(y, fh=[1, 2])


def test_an_index_whose_gaps_would_be_nearly_all_is_refused():
    times = pd.PeriodIndex([*pd.period_range("2000-01-01", periods=50, freq="D"), pd.Period("2040-01-01", "D")])
    with pytest.raises(DataError, match="the 51 rows of this table would become 14,611"):
        PrismDetector().fit(pd.DataFrame({"a": np.arange(51.0) % 7}, index=times))


def test_a_fixed_horizon_answers_any_part_of_it_and_says_where_it_ends():
    adapter = PrismForecaster(**SHORT, horizon=4).fit(waves())
    np.testing.assert_array_equal(adapter.predict(fh=[1, 2, 3, 4])[2:], adapter.predict(fh=[3, 4]))
    with pytest.raises(SettingsError, match="writes 4 steps, but fh asks for step 5"):
        adapter.predict(fh=[5])
    with pytest.raises(NotImplementedError, match="in-sample"):
        adapter.predict(fh=[0, 1])


def test_quantiles_between_the_learned_ones_lie_on_the_line_and_none_beyond():
    table, levels = waves(), (0.1, 0.5, 0.9)
    adapter = PrismForecaster(**SHORT, horizon=3, quantiles=levels).fit(table)
    ours = Forecaster(**SHORT, horizon=3, quantiles=levels, progress=False).fit(table.to_numpy().T)
    low, middle, high = ours.predict(table.to_numpy().T).astype(float)  # [C, H] each
    found = adapter.predict_quantiles(fh=[1, 2, 3], alpha=[0.1, 0.3, 0.9])
    np.testing.assert_array_equal(found["load"], np.stack([low[0], (low[0] + middle[0]) / 2, high[0]], axis=1))
    np.testing.assert_array_equal(adapter.predict(fh=[1, 2, 3]).to_numpy().T, middle)
    interval = adapter.predict_interval(fh=[2], coverage=0.8)
    np.testing.assert_allclose(interval["price"][0.8].to_numpy()[0], [low[1, 1], high[1, 1]], rtol=1e-6)
    with pytest.raises(SettingsError, match=r"levels from 0.1 to 0.9 .* but 0.95 is asked for"):
        adapter.predict_quantiles(fh=[1], alpha=[0.95])


def test_without_quantiles_no_interval_is_offered():
    assert not PrismForecaster().get_tag("capability:pred_int")
    assert PrismForecaster(quantiles=(0.1, 0.9)).get_tag("capability:pred_int")
    with pytest.raises(NotImplementedError, match="interval"):
        PrismForecaster(**SHORT).fit(waves(), fh=[1]).predict_interval()


def test_an_update_without_parameters_forecasts_from_the_new_rows_with_the_same_weights():
    table = waves()
    adapter = PrismForecaster(**SHORT, horizon=2).fit(table[:100])
    weights = [p.clone() for p in adapter.estimator_.model_.parameters()]
    adapter.update(table[100:110], update_params=False).update(table[110:], update_params=False)
    expected = adapter.estimator_.predict(table.to_numpy().T)
    found = adapter.predict(fh=[1, 2])
    np.testing.assert_array_equal(found.to_numpy().T, expected.astype(float))
    assert str(found.index[0]) == "2024-04-30"
    assert all((a == b).all() for a, b in zip(weights, adapter.estimator_.model_.parameters(), strict=True))


def test_an_update_with_parameters_goes_on_learning():
    table = waves()
    adapter = PrismForecaster(**SHORT, horizon=2).fit(table[:100])
    before = [p.clone() for p in adapter.estimator_.model_.parameters()]
    adapter.update(table[100:])
    after = list(adapter.estimator_.model_.parameters())
    assert any((a != b).any() for a, b in zip(before, after, strict=True))
    assert adapter.estimator_.tails_.values.shape[1] == 16
    np.testing.assert_allclose(adapter.estimator_.tails_.values, table[-16:].to_numpy().T)


def test_after_pretraining_on_many_series_fit_goes_on_from_those_weights():
    panel = pd.concat({name: waves(60 + 10 * i) * (i + 1) for i, name in enumerate("abc")})
    still = {**SHORT, "fit_settings": {**SHORT["fit_settings"], "learning_rate": 1e-12}}
    adapter = PrismForecaster(**still, horizon=2).pretrain(panel)
    assert adapter.pretrained_.tails_.n_channels == 2
    assert len(adapter.pretrained_.tails_) == 3
    learned = [p.clone() for p in adapter.pretrained_.model_.parameters()]
    adapter.fit(waves())
    for a, b in zip(learned, adapter.estimator_.model_.parameters(), strict=True):
        np.testing.assert_allclose(b.detach(), a.detach(), atol=1e-8)
    fresh = PrismForecaster(**still, horizon=2, random_state=1).fit(waves()).estimator_.model_.parameters()
    assert any((a != b).any() for a, b in zip(learned, fresh, strict=True))


def test_pretraining_without_a_horizon_asks_for_one():
    panel = pd.concat({"a": waves(60), "b": waves(60)})
    with pytest.raises(SettingsError, match=r"how many steps .* Pass fh=, or build it with horizon="):
        PrismForecaster(**SHORT).pretrain(panel)


# ---- what every adapter keeps


def test_an_adapter_is_quiet_unless_it_is_told(capsys, recwarn):
    PrismForecaster(**SHORT).fit(waves(), fh=[1]).predict()
    assert capsys.readouterr() == ("", "")
    assert not [str(w.message) for w in recwarn if "prismts" in w.filename or "remember_data" in str(w.message)]
    assert PrismForecaster(**SHORT, verbose=True).fit(waves(), fh=[1]).estimator_.progress


def test_every_argument_of_our_estimators_can_be_set():
    ours_alone = {
        "progress",
        "run_folder",
        "time",
        "series",
        "values",
        "frequency",
        "warm_start",
        "label",
        "head",
        "times",
    }  # the horizon of an adapter is known in fit, and its rows are evenly spaced
    for adapter, ours in (
        (PrismClassifier, Classifier), (PrismEmbedder, Embedder), (PrismForecaster, Forecaster),
        (PrismDetector, AnomalyDetector),
    ):  # fmt: skip
        defaults, theirs = ours().get_params(), adapter().get_params()
        assert set(defaults) - set(theirs) <= ours_alone
        for name in set(defaults) & set(theirs) - {"horizon"}:
            assert theirs[name] == defaults[name], name


@pytest.mark.parametrize(
    ("adapter", "ours"),
    [(PrismClassifier, Classifier), (PrismEmbedder, Embedder), (PrismForecaster, Forecaster),
     (PrismDetector, AnomalyDetector)],
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
    data = {PrismClassifier: (X, y), PrismEmbedder: (X,), PrismForecaster: (waves(),), PrismDetector: (waves(),)}
    adapter(**given).fit(*data[adapter])
    for name, value in given.items():
        assert met["progress" if name == "verbose" else name] is value, name


def test_without_sktime_the_error_names_the_extra(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "sktime"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "prismts.adapters.sktime")
    with pytest.raises(MissingExtraError, match=r"pip install 'prismts\[sktime\]'"):
        import_module("prismts.adapters.sktime")
