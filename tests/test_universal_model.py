"""One encoder for every task: each task answers as its own estimator does, and heads come and go alone."""

import copy
import inspect

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

import prismts
from prismts.data.series import Series
from prismts.data.splits import Borders
from prismts.data.synthetic import labeled_motions, planted_anomalies
from prismts.errors import DataError, NotFittedError, SavedModelError, SettingsError, ShapeError
from prismts.estimators.shared import SharedForecaster
from prismts.estimators.universal import ClassifyOn, DetectOn, ForecastOn, ImputeOn, UniversalModel
from prismts.evaluation.detection_vus import vus_buffer, vus_pr
from prismts.layers import paths

NETWORK = {"width": 8, "feed_forward": 0, "kernel_sizes": (3,), "patch_length": 8, "stride": 4}
QUICK = {"max_epochs": 1, "accelerator": "cpu"}
TINY = {"encoder_settings": NETWORK, "fit_settings": QUICK, "items_per_epoch": 32, "progress": False}


def waves(n_timepoints: int = 240) -> np.ndarray:
    t = np.arange(n_timepoints)
    noise = 0.05 * np.random.default_rng(0).standard_normal((2, n_timepoints))
    return np.stack([3 + np.sin(t / 3), np.cos(t / 5)]) + noise


def gappy() -> np.ndarray:
    x = waves()
    x[:, 60:68] = np.nan
    return x


def motions(n_cases: int = 24) -> tuple[np.ndarray, np.ndarray]:
    cases = labeled_motions(n_cases, n_classes=2, n_channels=3, n_timepoints=40, noise=0.1)
    return np.stack([case.values for case in cases]), np.where(cases.labels == 0, "slow", "fast")


def make(encoder: str = "convtimenet", **changes) -> UniversalModel:
    return UniversalModel(encoder, **{"context_length": 32, **TINY, **changes})


def tasks() -> list:
    return [
        ForecastOn(waves(), horizon=4, line="ridge"), ClassifyOn(*motions()[:1], y=motions()[1]), DetectOn(waves()),
        ImputeOn(gappy()),
    ]  # fmt: skip


@pytest.mark.parametrize("smallest", [1, 2000])
def test_tasks_train_together_where_only_some_of_their_batches_are_large(smallest, monkeypatch):
    monkeypatch.setattr(paths, "SMALLEST", smallest)
    assert np.isfinite(list(make().fit(tasks()).validation_errors_.values())).all()


def answers(model: UniversalModel) -> dict[str, np.ndarray]:
    return {
        "forecast": model.forecast(waves()), "classify": model.classify_proba(motions()[0]),
        "detect": model.detect_scores(waves()), "impute": model.impute(gappy()), "embed": model.embed(motions()[0]),
    }  # fmt: skip


def weights(model: UniversalModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.model_.state_dict().items()}


@pytest.fixture(scope="module")
def fitted() -> UniversalModel:
    return make().fit(tasks())


# ---- scikit-learn's manner


def test_the_constructor_stores_what_it_is_given_and_a_clone_has_learned_nothing(fitted):
    given = {name: object() for name in list(inspect.signature(UniversalModel.__init__).parameters)[1:]}
    made = UniversalModel(**given)
    assert vars(made) == given
    twin = clone(fitted)
    assert twin.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError, match="Call fit"):
        twin.forecast()


def test_equal_seeds_give_equal_answers_and_other_seeds_others(fitted):
    again, other = make().fit(tasks()), make(random_state=1).fit(tasks())
    for name, answer in answers(fitted).items():
        np.testing.assert_array_equal(answers(again)[name], answer)
        assert not np.array_equal(answers(other)[name], answer)


def test_a_second_fit_begins_anew_and_a_copy_answers_alike(fitted):
    twin = copy.deepcopy(fitted)
    first = answers(twin)
    assert twin.fit(tasks()) is twin
    for name, answer in answers(twin).items():
        np.testing.assert_array_equal(answer, first[name])


# ---- answers


def test_every_task_answers_in_the_units_and_the_form_of_its_data(fitted):
    found = answers(fitted)
    assert found["forecast"].shape == (2, 4)
    assert found["forecast"][0].mean() == pytest.approx(3, abs=1.0)
    assert found["classify"].shape == (24, 2)
    np.testing.assert_allclose(found["classify"].sum(1), 1, atol=1e-6)
    assert set(fitted.classify(motions()[0])) <= {"slow", "fast"}
    assert fitted.classes().tolist() == ["fast", "slow"]
    assert np.isfinite(found["detect"]).all()
    assert set(fitted.detect(waves())) <= {0, 1}
    seen = ~np.isnan(gappy())
    np.testing.assert_array_equal(found["impute"][seen], gappy()[seen])
    assert not np.isnan(found["impute"]).any()


def test_a_table_comes_back_as_a_table_with_times():
    table = pd.DataFrame(waves().T, columns=["load", "wind"], index=pd.date_range("2024-01-01", periods=240, freq="h"))
    table.index.name = "time"
    model = make().fit(ForecastOn(table, horizon=4, line=None, quantiles=(0.1, 0.5, 0.9)))
    found = model.forecast()
    assert list(found.columns) == ["load", "load_q0.1", "load_q0.5", "load_q0.9", *found.columns[4:]]
    assert found.index[0] == pd.Timestamp("2024-01-11")
    assert (found["load_q0.1"] <= found["load_q0.9"]).all()


def test_a_head_learned_on_channels_apart_forecasts_any_channels_of_any_data():
    model = make().fit(ForecastOn(waves(), horizon=4, line=None, channels="apart", head="recent"))
    five = np.concatenate([waves(), waves() * 10, waves()[:1]])
    found = model.forecast(five)
    assert found.shape == (5, 4)
    np.testing.assert_allclose(found[4], model.forecast(waves()[:1])[0], rtol=1e-4)
    np.testing.assert_allclose(found[2], 10 * found[0], rtol=1e-3)
    table = pd.DataFrame(five.T, columns=list("abcde"))
    np.testing.assert_allclose(model.forecast(table)[list("abcde")].to_numpy().T, found, rtol=1e-4)


@pytest.mark.parametrize("quantiles", [None, (0.1, 0.5, 0.9)])
def test_channels_apart_are_put_together_again_when_the_training_data_are_continued(quantiles, tmp_path):
    times = pd.date_range("2024-01-01", periods=240, freq="h")
    wide = pd.DataFrame(waves().T, columns=["a", "b"], index=times)
    both = pd.concat([wide.assign(id=7), (wide * 3).assign(id=3)]).rename_axis("time").reset_index()
    how = {"horizon": 4, "line": None, "channels": "apart", "quantiles": quantiles}
    for data, series in ((wide, None), (both, "id"), (waves(), None), (np.stack([waves()] * 3), None)):
        model = make().fit(ForecastOn(data, series=series, **how))
        model.save(tmp_path / "m")
        given = model.forecast(data)
        for told in (model.forecast(), prismts.load(tmp_path / "m").forecast()):
            assert type(told) is type(given)
            if isinstance(given, np.ndarray):
                np.testing.assert_allclose(told, given, rtol=1e-4)
            else:
                pd.testing.assert_frame_equal(told, given, rtol=1e-4)
        if data is wide:
            assert model.forecast(horizon=2).shape == (2, given.shape[1])


def test_a_head_for_any_horizon_is_asked_for_more_steps_than_it_was_trained_for(tmp_path):
    model = make().fit(ForecastOn(waves(), horizon=8, head="any_horizon"))
    assert model.forecast().shape == (2, 8)
    np.testing.assert_allclose(model.forecast(horizon=20)[:, :8], model.forecast(), rtol=1e-4, atol=1e-5)
    model.save(tmp_path / "m")
    np.testing.assert_array_equal(prismts.load(tmp_path / "m").forecast(horizon=20), model.forecast(horizon=20))
    with pytest.raises(SettingsError, match="none stands beside head='any_horizon'"):
        ForecastOn(waves(), head="any_horizon", line="ridge")


def test_a_shorter_horizon_may_be_asked_of_any_head_and_a_longer_one_may_not(fitted):
    np.testing.assert_array_equal(fitted.forecast(horizon=2), fitted.forecast()[:, :2])
    with pytest.raises(SettingsError, match="horizon=5 was asked for"):
        fitted.forecast(horizon=5)


@pytest.mark.parametrize("encoder", ["universal", "patchtst"])
def test_any_encoder_that_reads_channels_apart_will_do(encoder):
    settings = {
        "universal": {"width": 8, "n_heads": 2, "feed_forward": 8, "kernel_sizes": (3,), "patch_lengths": (4, 8),
                      "stride": 4},
        "patchtst": {"width": 8, "n_heads": 2, "feed_forward": 8, "n_layers": 1, "patch_length": 8, "stride": 4},
    }[encoder]  # fmt: skip
    X, y = motions()
    chosen = [ForecastOn(waves(), horizon=4, line=None), ClassifyOn(X[:, :, :30], y), DetectOn(waves())]
    model = make(encoder, encoder_settings=settings).fit(chosen)
    assert model.forecast().shape == (2, 4)
    assert model.classify(X[:, :, :30]).shape == (24,)
    assert np.isfinite(model.detect_scores(waves())).all()


def test_an_encoder_that_mixes_channels_or_has_no_tokens_is_refused():
    with pytest.raises(SettingsError, match="keeps channels apart and reads any number of them"):
        make(encoder_settings={**NETWORK, "channels": "mixed"}).fit(tasks())
    with pytest.raises(SettingsError, match="'dlinear' is a direct forecaster"):
        make("dlinear", encoder_settings=None).fit(tasks())


def test_a_forecast_is_scored_in_every_window_in_units_of_the_training_part(fitted):
    x = waves()
    missed = np.stack([fitted.forecast(x[:, :end]) - x[:, end : end + 4] for end in range(200, 237)])  # [W, C, H]
    units = x[:, :192].std(1)[:, None]  # of 240 steps a fifth is for validation
    scores = fitted.evaluate(x, head="forecast", begin=200)
    assert scores["mse"] == pytest.approx(((missed / units) ** 2).mean(), rel=1e-3)
    assert scores.n_scored == 37


def test_classes_are_scored_by_how_many_are_told(fitted):
    X, y = motions()
    assert fitted.evaluate(X, y, head="classify")["accuracy"] == (fitted.classify(X) == y).mean()
    assert fitted.evaluate(X, y[::-1], head="classify")["accuracy"] == (fitted.classify(X) == y[::-1]).mean()


def test_imputation_is_scored_on_what_was_taken_away(fitted, monkeypatch):
    """Every fifth point of each channel is, in place of those that chance would take."""
    x, gone = waves(), np.arange(240) % 5 == 2
    taken = torch.from_numpy(gone).expand(1, 2, -1)
    monkeypatch.setattr("prismts.estimators.imputer._hide", lambda *_: lambda *_: taken)
    units = np.nanstd(gappy()[:, :192], axis=1)[:, None]
    filled = fitted.impute(np.where(gone, np.nan, x))
    expected = (((filled - x) / units)[:, gone] ** 2).mean()
    assert fitted.evaluate(x, head="impute", share=0.2)["mse"] == pytest.approx(expected, rel=1e-3)


def test_detection_is_scored_on_the_steps_behind_training():
    planted = planted_anomalies(400, n_anomalies=3, seed=1)
    model = make().fit(DetectOn(planted.part(0, 200)))
    scores = model.evaluate(planted, head="detect", borders=Borders(200, 200, 400))
    told = planted.labels[200:], model.detect_scores(planted)[200:]
    assert scores["auc_roc"] == pytest.approx(roc_auc_score(*told))
    assert scores["vus_pr"] == vus_pr(*told, vus_buffer(planted.values[:, :200]))
    assert scores.n_scored == 200


# ---- what is frozen, what is added


def test_frozen_the_encoder_stays_bit_for_bit_and_the_heads_learn():
    model = make().fit(tasks()[:2])
    before = {name: value.clone() for name, value in model.encoder_.state_dict().items()}
    model.fit(tasks(), freeze=True)
    after = model.model_.encoder.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert model.model_["impute"].linear.weight.abs().sum() > 0  # it began at zero


def test_a_frozen_head_for_classes_is_solved_and_tells_the_cases_it_has_seen():
    X, y = motions()
    model = make().fit(ClassifyOn(X, y), freeze=True)
    assert (model.classify(X) == y).mean() == 1.0
    assert model.fit_result_.best_epoch == 0  # nothing was trained


def test_adding_a_head_leaves_every_weight_and_every_answer_as_it_was(fitted):
    model = copy.deepcopy(fitted)
    before, told = weights(model), answers(model)
    X, y = motions()
    model.add_head(ClassifyOn(X[:, :1], np.where(y == "slow", 0, 1), name="one channel"))
    model.add_head(ForecastOn(waves()[:, :200], horizon=7, line=None, name="week"))
    after = weights(model)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    for name, kind in (("forecast", "forecast"), ("classify", "classify_proba"), ("detect", "detect_scores")):
        data = X if kind == "classify_proba" else waves()
        np.testing.assert_array_equal(getattr(model, kind)(data, head=name), told[name])
    assert model.classify(X[:, :1], head="one channel").shape == (24,)
    assert model.forecast(head="week").shape == (2, 7)
    model.remove_head("week").remove_head("one channel")
    assert weights(model).keys() == before.keys()


def test_of_several_heads_of_a_kind_one_is_named(fitted):
    model = copy.deepcopy(fitted).add_head(ForecastOn(waves(), horizon=2, line=None, name="soon"))
    with pytest.raises(SettingsError, match="Several heads forecast: forecast, soon"):
        model.forecast()
    with pytest.raises(SettingsError, match="Head 'soon' was learned to forecast, not to detect"):
        model.detect(waves(), head="soon")
    with pytest.raises(SettingsError, match="Did you mean 'soon'"):
        model.forecast(head="son")
    with pytest.raises(SettingsError, match="already"):
        model.add_head(ForecastOn(waves(), horizon=2, name="soon"))


# ---- keeping


def test_a_saved_model_gives_every_task_back_and_goes_on(fitted, tmp_path):
    fitted.save(tmp_path / "m")
    assert sorted(file.suffix for file in (tmp_path / "m").iterdir()) == [".json", ".safetensors", ".safetensors"]
    loaded = prismts.load(tmp_path / "m")
    assert isinstance(loaded, UniversalModel)
    for name, answer in answers(fitted).items():
        np.testing.assert_array_equal(answers(loaded)[name], answer)
    assert loaded.validation_errors_ == fitted.validation_errors_
    np.testing.assert_array_equal(loaded.forecast(), fitted.forecast())  # of the tails that were saved
    loaded.add_head(ForecastOn(waves(), horizon=2, line=None, name="soon"))
    np.testing.assert_array_equal(loaded.forecast(head="forecast"), fitted.forecast())
    loaded.save(tmp_path / "m")
    assert prismts.load(tmp_path / "m").forecast(head="soon").shape == (2, 2)


def test_quantiles_channels_apart_and_other_heads_come_back_too(tmp_path):
    X, y = motions()
    model = make().fit([
        ForecastOn(waves(), horizon=4, line="chosen", quantiles=(0.1, 0.5, 0.9), channels="apart", head="recent"),
        ClassifyOn(X, y, pooling="attention", channels="pooled", stretch=False),
    ])  # fmt: skip
    model.save(tmp_path / "m")
    loaded = prismts.load(tmp_path / "m")
    np.testing.assert_array_equal(loaded.forecast(waves()), model.forecast(waves()))
    np.testing.assert_array_equal(loaded.classify_proba(X), model.classify_proba(X))


def test_a_single_task_is_not_saved_without_the_encoder_it_shares(fitted, tmp_path):
    assert isinstance(fitted.estimators_["forecast"], SharedForecaster)
    with pytest.raises(SettingsError, match="Save the universal model"):
        fitted.estimators_["forecast"].save(tmp_path / "f")
    (tmp_path / "m").mkdir()
    with pytest.raises(SavedModelError, match="no model folder"):
        prismts.load(tmp_path / "m")


# ---- what cannot be used


def test_gaps_and_cases_of_unequal_length_are_read():
    X, y = motions()
    ragged = [case[:, : 40 - i % 7] for i, case in enumerate(X)]
    ragged[3] = ragged[3].copy()
    ragged[3][1, 5:9] = np.nan
    model = make().fit([ClassifyOn(ragged, y), ForecastOn(gappy(), horizon=4, line=None), DetectOn(gappy())])
    assert model.classify(ragged).shape == (24,)
    assert np.isfinite(model.forecast()).all()
    assert np.isfinite(model.detect_scores(gappy())).all()


def test_cases_without_a_label_are_left_out():
    X, y = motions()
    some = [None if i % 3 == 0 else label for i, label in enumerate(y)]
    model = make().fit(ClassifyOn(X, some), freeze=True)
    kept = [i for i in range(24) if i % 3]
    other = make().fit(ClassifyOn(X[kept], y[kept]), freeze=True)
    np.testing.assert_array_equal(model.classify_proba(X), other.classify_proba(X))
    with pytest.raises(DataError, match="No case of task 'classify' has a label"):
        make().fit(ClassifyOn(X, [None] * 24))
    with pytest.raises(ShapeError, match="24 cases need 24 labels"):
        make().fit(ClassifyOn(X, some[:-1]))


def test_data_that_do_not_fit_a_task_are_refused_in_the_words_of_that_task(fitted):
    with pytest.raises(ShapeError, match="learned cases of 3 channels, but these have 2"):
        fitted.classify(motions()[0][:, :2])
    with pytest.raises(DataError, match="lack channel 'channel_1'"):
        fitted.forecast(waves()[:1])
    with pytest.raises(ShapeError, match="learned 2 channels"):
        fitted.detect(np.concatenate([waves()] * 2))
    with pytest.raises(DataError, match="at least two classes"):
        make().fit(ClassifyOn(motions()[0], ["a"] * 24))
    with pytest.raises(DataError, match="fewer than the horizon"):
        make().fit(ForecastOn(waves()[:, :60], horizon=20))
    with pytest.raises(DataError, match="A detector learns from 16 steps"):
        make().fit(DetectOn(waves()[:, :12]))


def test_a_model_that_learned_no_such_task_says_which_it_learned():
    model = make().fit(ForecastOn(waves(), horizon=4, line=None))
    with pytest.raises(SettingsError, match="no head to classify; its heads: 'forecast'"):
        model.classify(motions()[0])
    with pytest.raises(NotFittedError):
        make().forecast()


def test_tasks_that_make_no_sense_are_refused():
    with pytest.raises(SettingsError, match="fit learns tasks such as ForecastOn"):
        make().fit(waves())
    with pytest.raises(SettingsError, match="at least one task"):
        make().fit([])
    with pytest.raises(SettingsError, match=r"2 tasks are called 'forecast'.*name='another'"):
        make().fit([ForecastOn(waves()), ForecastOn(waves())])
    with pytest.raises(SettingsError, match="Did you mean 'flatten'"):
        ForecastOn(waves(), head="flaten")
    with pytest.raises(SettingsError, match="weight of task 'detect' is a number above 0"):
        DetectOn(waves(), weight=0)
    with pytest.raises(SettingsError, match="validation of cases is a share"):
        ClassifyOn(*motions(), validation=4)
    with pytest.raises(SettingsError, match="Did you mean 'scale'"):
        make(balance="scal").fit(ForecastOn(waves(), horizon=4))
    with pytest.raises(SettingsError, match="items_per_epoch counts"):
        make(items_per_epoch=0).fit(ForecastOn(waves(), horizon=4))


def test_an_argument_that_changed_since_fit_is_an_error(fitted):
    model = copy.deepcopy(fitted)
    model.context_length = 64
    with pytest.raises(SettingsError, match="context_length was 32 when this UniversalModel was fitted"):
        model.forecast()


def test_a_failed_fit_leaves_no_half_learned_head():
    model = make().fit(ForecastOn(waves(), horizon=4, line=None))
    told = model.forecast()
    with pytest.raises(DataError):
        model.add_head(ClassifyOn(motions()[0], ["a"] * 24))
    assert model.model_.names == ("forecast",)
    np.testing.assert_array_equal(model.forecast(), told)


def test_detection_takes_scales_and_threshold_from_training_alone():
    x = waves()
    wild = x.copy()
    wild[:, 200:] *= 50
    borders = Borders(160, 200, 240)
    calm, other = (make().fit(DetectOn(Series(values), validation=borders)) for values in (x, wild))
    for model in (calm, other):
        np.testing.assert_allclose(model.estimators_["detect"].scaler_.mean[0], x[:, :160].mean(1), rtol=1e-5)
        np.testing.assert_allclose(model.estimators_["detect"].scaler_.scale[0], x[:, :160].std(1), rtol=1e-5)
    assert calm.estimators_["detect"].threshold_ == other.estimators_["detect"].threshold_
    np.testing.assert_array_equal(calm.detect_scores(wild), other.detect_scores(wild))
    assert other.detect_scores(wild)[210:].max() > other.estimators_["detect"].threshold_.value


def test_a_series_with_borders_is_learned_up_to_them(fitted):
    x = waves()
    wild = x.copy()
    wild[:, 200:] = 99.0
    borders = Borders(160, 200, 240)
    first, second = (make().fit(ForecastOn(Series(v), horizon=4, validation=borders)) for v in (x, wild))
    np.testing.assert_array_equal(first.forecast(x), second.forecast(x))


# ---- pre-training


@pytest.fixture(scope="module")
def pretrained() -> UniversalModel:
    model = make(fit_settings={**QUICK, "max_epochs": 2})
    return model.pretrain(
        waves(400), tasks="masked", fit_settings={"max_epochs": 2, "batch_size": 16, "accelerator": "cpu"},
        draws={"steps_per_epoch": 5, "n_validation": 16},
    )  # fmt: skip


def test_pretraining_moves_the_encoder_and_every_fit_begins_with_it(pretrained):
    new = make()._new_encoder().state_dict()
    moved = {name: value.clone() for name, value in pretrained.encoder_.state_dict().items()}
    assert any(not torch.equal(new[name], value) for name, value in moved.items())
    assert pretrained.embed(motions()[0]).shape == (24, 2 * (2 * 8 + 2))
    model = copy.deepcopy(pretrained).fit(ClassifyOn(*motions()), freeze=True)
    for name, value in moved.items():
        assert torch.equal(model.model_.encoder.state_dict()[name], value)
    model.fit(ForecastOn(waves(), horizon=4, line=None))  # this one trains a copy
    for name, value in moved.items():
        assert torch.equal(model.encoder_.state_dict()[name], value)
    assert any(not torch.equal(model.model_.encoder.state_dict()[name], value) for name, value in moved.items())


def test_what_an_embedding_cannot_be_is_told_in_words(fitted):
    with pytest.raises(SettingsError, match="There is no pooling named 'x'"):
        fitted.embed(motions()[0], pooling="x")
    with pytest.raises(SettingsError, match="There is no way with channels named 'x'"):
        fitted.embedder(channels="x")


def test_a_pretrained_model_says_what_it_has_seen_and_comes_back_without_a_task(pretrained, tmp_path):
    assert [row["channels"] for row in pretrained.corpus_] == ["2"]
    pretrained.save(tmp_path / "m")
    loaded = prismts.load(tmp_path / "m")
    assert loaded.corpus_ == pretrained.corpus_
    assert loaded.pretrain_result_.best_epoch == pretrained.pretrain_result_.best_epoch
    np.testing.assert_array_equal(loaded.embed(motions()[0]), pretrained.embed(motions()[0]))
    told = [model.fit(ClassifyOn(*motions()), freeze=True).classify_proba(motions()[0]) for model in (loaded,)]
    other = copy.deepcopy(pretrained).fit(ClassifyOn(*motions()), freeze=True)
    np.testing.assert_array_equal(told[0], other.classify_proba(motions()[0]))


def test_another_form_of_the_encoder_than_was_pretrained_is_refused(pretrained):
    model = copy.deepcopy(pretrained)
    model.encoder_settings = {**NETWORK, "width": 16}
    with pytest.raises(SettingsError, match="encoder_settings was"):
        model.fit(ForecastOn(waves(), horizon=4))


# ---- transfer


def test_a_transfer_report_holds_every_way_and_seed_of_every_task(pretrained):
    X, y = motions()
    x = waves()
    chosen = [ForecastOn(x[:, :200], horizon=4, line=None), ClassifyOn(X, y)]
    tests = {"forecast": {"data": x, "begin": 200}, "classify": {"data": X, "y": y}}
    before = weights(pretrained)
    report = pretrained.transfer_report(chosen, tests, seeds=(0, 1))
    assert len(report) == 2 * 2 * 4
    assert all(torch.equal(value, before[name]) for name, value in weights(pretrained).items())
    assert report.values("classify", "frozen") == {0: 1.0, 1: 1.0}
    alone = make(fit_settings={**QUICK, "max_epochs": 2}, random_state=1).fit(chosen[0])
    assert report.values("forecast", "scratch")[1] == alone.evaluate(x, head="forecast", begin=200)["mse"]
    assert "| forecast | mse (lower is better) | joint | 2 |" in report.table()


def test_a_report_without_pretraining_leaves_out_what_would_be_the_same():
    x = waves()
    report = make().transfer_report(
        [ForecastOn(x[:, :200], horizon=4, line=None)], {"forecast": {"data": x, "begin": 200}}, seeds=(0,)
    )
    assert [row.way for row in report] == ["joint", "separate", "frozen"]
    assert report.values("forecast", "joint") == report.values("forecast", "separate")  # one task is all tasks
    with pytest.raises(SettingsError, match="Task 'forecast' has no test"):
        make().transfer_report([ForecastOn(x, horizon=4)], {})
    with pytest.raises(SettingsError, match="no way of training named 'scratch'"):
        make().transfer_report([ForecastOn(x, horizon=4)], {"forecast": x}, ways=["scratch"])
