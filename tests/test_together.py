"""Several networks trained as one: each learns what it learns alone, keeps its own best epoch, and resumes."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

import prismts
from prismts.errors import SettingsError
from prismts.estimators.forecaster import Forecaster
from prismts.estimators.many import fit_many
from prismts.tasks.classify import Augmentation, Classify
from prismts.tasks.forecast import Forecast
from prismts.training import together
from prismts.training.fit import FitConfig, TrainingDiverged
from prismts.training.together import Training, fit_together
from prismts.training.watch import watching
from test_training import SMALL, windows

CONFIG = FitConfig(max_epochs=4, batch_size=64, learning_rate=1e-3, accelerator="cpu", schedule="one_cycle")


def trainings(n: int = 3, *, config: FitConfig = CONFIG, **how) -> list[Training]:
    """Networks without dropout that differ in seed and learning rate."""
    train, validation = windows()
    task, found = Forecast(8), []
    for seed in range(n):
        torch.manual_seed(seed)
        settings = {**SMALL, "dropout": 0.0, "norm": "layer"}
        model = task.build("convtimenet", settings, n_channels=train.n_channels, context_length=32)
        task.prepare(model, train, validation)
        own = replace(config, learning_rate=config.learning_rate * (1 + seed))
        more = {"validation": validation, "seed": seed, "progress": False} | how
        found.append(Training(model=model, task=task, train=train, config=own, **more))
    return found


def twins(those: list[Training]) -> list[Training]:
    return [replace(one, model=copy.deepcopy(one.model)) for one in those]


def assert_equal_outcome(got, expected, those, others) -> None:
    for one, other in zip(got, expected, strict=True):
        assert one.best_epoch == other.best_epoch
        np.testing.assert_allclose(
            [entry["val_loss"] for entry in one.history], [entry["val_loss"] for entry in other.history], rtol=1e-4
        )
    for one, other in zip(those, others, strict=True):
        torch.testing.assert_close(one.model.state_dict(), other.model.state_dict(), rtol=1e-3, atol=1e-4)


@pytest.fixture
def stacked(monkeypatch) -> list[int]:
    """The sizes of the groups that were stacked."""
    sizes, real = [], together._fit_stacked
    monkeypatch.setattr(together, "_fit_stacked", lambda group: sizes.append(len(group)) or real(group))
    return sizes


@pytest.mark.long
def test_networks_trained_as_one_learn_what_each_learns_alone(stacked):
    those, others = trainings(), None
    others = twins(those)
    got = fit_together(those)
    assert stacked == [3]
    assert_equal_outcome(got, [one.alone() for one in others], those, others)


@pytest.mark.long
def test_a_line_may_rest_beside_one_network_and_move_beside_the_next(stacked):
    those = [
        replace(one, config=replace(one.config, line_rate=rate))
        for one, rate in zip(trainings(), (0.0, 2.0, 5.0), strict=True)
    ]
    others = twins(those)
    lines = [one.model.state_dict()["head.line.weight"].clone() for one in those]
    got = fit_together(those)
    assert stacked == [3]
    assert_equal_outcome(got, [one.alone() for one in others], those, others)
    moved = [
        not torch.equal(one.model.state_dict()["head.line.weight"], line)
        for one, line in zip(those, lines, strict=True)
    ]
    assert moved == [False, True, True]


@pytest.mark.long
def test_each_network_stops_when_its_own_patience_is_over():
    wild = replace(CONFIG, max_epochs=8, patience=1, learning_rate=0.02, schedule="constant")
    those = trainings(config=wild)
    others = twins(those)
    got, expected = fit_together(those), [one.alone() for one in others]
    assert [len(one.history) for one in got] == [len(one.history) for one in expected]
    assert len({len(one.history) for one in got}) > 1, "the case tells nothing if all stop together"
    assert [one.best_epoch for one in got] == [one.best_epoch for one in expected]


def test_without_validation_the_last_epoch_is_kept():
    those = trainings(2, validation=None)
    others = twins(those)
    got, expected = fit_together(those), [one.alone() for one in others]
    assert [one.best_epoch for one in got] == [one.best_epoch for one in expected] == [4, 4]
    for one, other in zip(got, expected, strict=True):
        losses, alone = ([entry["train_loss"] for entry in each.history] for each in (one, other))
        np.testing.assert_allclose(losses, alone, rtol=1e-4)
    for one, other in zip(those, others, strict=True):
        torch.testing.assert_close(one.model.state_dict(), other.model.state_dict(), rtol=1e-3, atol=1e-4)


@pytest.mark.long
def test_other_sizes_other_batches_and_averaged_weights_are_not_stacked_with_the_rest(stacked):
    those = trainings(5)
    config = those[2].config
    those[2] = replace(those[2], config=replace(config, batch_size=32))
    those[3] = replace(those[3], config=replace(config, averaging=0.9))
    torch.manual_seed(0)
    wider = those[4].task.build("convtimenet", {**SMALL, "width": 12}, n_channels=those[4].train.n_channels,
                                context_length=32)  # fmt: skip
    those[4] = replace(those[4], model=wider)
    results = fit_together(those)
    assert stacked == [2]
    assert all(len(result.history) == 4 for result in results)


@pytest.mark.long
def test_a_broken_run_goes_on_where_it_was(tmp_path):
    whole = trainings(2)
    broken = [replace(one, folder=tmp_path / str(i)) for i, one in enumerate(twins(whole))]
    expected = fit_together(whole)

    def stop(entry):
        if entry["epoch"] == 3:
            raise KeyboardInterrupt

    fresh = twins(broken)
    with pytest.raises(KeyboardInterrupt), watching(stop):
        fit_together(broken)
    got = fit_together(fresh)
    assert [one.resumed_from for one in got] == [2, 2]
    assert_equal_outcome(got, expected, fresh, whole)


def test_a_finished_run_is_answered_from_its_folder(tmp_path):
    those = [replace(one, folder=tmp_path / str(i)) for i, one in enumerate(trainings(2))]
    again = twins(those)
    first, second = fit_together(those), fit_together(again)
    assert [one.best_loss for one in first] == [one.best_loss for one in second]
    for one, other in zip(those, again, strict=True):
        torch.testing.assert_close(one.model.state_dict(), other.model.state_dict(), rtol=0, atol=0)


def test_a_loss_that_is_no_number_ends_the_training_with_advice():
    config = replace(CONFIG, learning_rate=1e30, gradient_clip=None, schedule="constant")
    with pytest.raises(TrainingDiverged, match="Lower learning_rate"):
        fit_together(trainings(2, config=config))


def test_batches_that_differ_in_their_masks_are_read_one_network_after_another():
    """Cases of unequal length: a batch is as long as its longest case, which differs from order to order."""
    from prismts.cases import Cases, scaler_of_cases

    rng = np.random.default_rng(0)
    cases = [prismts.Series(rng.normal(size=(2, 20 + 3 * (i % 5)))) for i in range(24)]
    data = prismts.Collection.of(cases)
    source = Cases(data, np.arange(24) % 2, scaler=scaler_of_cases(data))
    task, those = Classify(2, pooling="mean"), []
    for seed in range(2):
        torch.manual_seed(seed)
        model = task.build("convtimenet", {**SMALL, "dropout": 0.0, "channels": "mixed"}, n_channels=2,
                           context_length=32)  # fmt: skip
        config = replace(CONFIG, batch_size=5, max_epochs=2)
        those.append(Training(model=model, task=task, train=source, config=config, seed=seed, progress=False))
    others = twins(those)
    got, expected = fit_together(those), [one.alone() for one in others]
    losses = [[entry["train_loss"] for result in side for entry in result.history] for side in (got, expected)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


def test_every_augmentation_and_dropout_can_be_stacked():
    from prismts.cases import Cases, scaler_of_cases

    rng = np.random.default_rng(0)
    data = prismts.Collection.of([prismts.Series(rng.normal(size=(2, 32))) for _ in range(24)])
    source = Cases(data, np.arange(24) % 2, scaler=scaler_of_cases(data))
    task = Classify(2, augmentation=Augmentation(jitter=0.1, stretch=0.1, shift=0.1, mix=0.3), head_dropout=0.3)
    those = []
    for _ in range(2):
        torch.manual_seed(0)  # equal networks: only what is drawn tells them apart
        model = task.build("convtimenet", {**SMALL, "channels": "mixed"}, n_channels=2, context_length=32)
        config = replace(CONFIG, batch_size=24, max_epochs=1)
        those.append(Training(model=model, task=task, train=source, config=config, seed=0, progress=False))
    a, b = fit_together(those)
    assert a.history[0]["train_loss"] != b.history[0]["train_loss"]


# ---- whole estimators


def forecasters(**how) -> list[Forecaster]:
    settings = {**SMALL, "dropout": 0.0}
    fit_settings = {"max_epochs": 2, "batch_size": 64, "accelerator": "cpu"}
    common = {"context_length": 32, "model_settings": settings, "fit_settings": fit_settings, "progress": False}
    return [
        Forecaster(horizon=horizon, random_state=seed, setting="published", **common | how)
        for horizon in (4, 8)
        for seed in range(2)
    ]


def table() -> np.ndarray:
    return windows()[0].data.values.astype(np.float64)


@pytest.mark.long
@pytest.mark.parametrize("how", ["stacked", "in turn"])
def test_estimators_fitted_as_many_forecast_what_they_forecast_fitted_alone(how, stacked):
    many, alone = fit_many(forecasters(), table(), how=how, progress=False), forecasters()
    assert stacked == ([2, 2] if how == "stacked" else [])
    for one, other in zip(many, alone, strict=True):
        other.fit(table())
        np.testing.assert_allclose(one.predict(), other.predict(), rtol=1e-3, atol=1e-3)
        assert one.fit_result_.best_epoch == other.fit_result_.best_epoch


@pytest.mark.slow
def test_processes_side_by_side_give_exactly_what_each_gives_alone():
    many = forecasters()[:2]
    returned = fit_many(many, table(), how="processes", n_jobs=2, progress=False, validation=0.3)
    assert returned[0] is many[0]
    for one, other in zip(many, forecasters()[:2], strict=True):
        np.testing.assert_allclose(one.predict(), other.fit(table(), validation=0.3).predict(), rtol=1e-5)
        assert one.get_params() == other.get_params()


def test_the_seed_of_the_caller_is_left_alone():
    before = torch.get_rng_state()
    fit_many(forecasters()[:2], table(), how="stacked", progress=False)
    assert torch.equal(torch.get_rng_state(), before)


def test_members_and_floors_may_stand_among_the_many():
    several = [Forecaster("ridge", context_length=32, horizon=4), *forecasters(n_members=2)[:2]]
    fit_many(several, table(), how="stacked", progress=False)
    assert [len(one.members_) for one in several] == [1, 2, 2]
    alone = forecasters(n_members=2)[0].fit(table())
    np.testing.assert_allclose(several[1].predict(), alone.predict(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("how", ["stacked", pytest.param("processes", marks=pytest.mark.slow), "in turn"])
def test_the_error_of_one_is_the_error_of_all(how):
    several = forecasters()[:1]
    several.append(Forecaster(context_length=32, horizon=4, loss="mze"))
    with pytest.raises(SettingsError, match="Did you mean 'mse'"):
        fit_many(several, table(), how=how, n_jobs=2, progress=False)
    assert [one.progress for one in several] == [False, True]


def test_what_cannot_be_fitted_at_once_is_refused():
    one = forecasters()[0]
    with pytest.raises(SettingsError, match="given twice"):
        fit_many([one, one], table())
    with pytest.raises(SettingsError, match="share the run_folder 'runs'"):
        fit_many(forecasters(run_folder="runs"), table())
    with pytest.raises(SettingsError, match="Did you mean 'processes'"):
        fit_many([one], table(), how="process")


def test_nothing_to_fit_is_nothing_done():
    assert fit_many([], table()) == []


@pytest.mark.gpu
def test_networks_stacked_on_cuda_learn_what_each_learns_alone():
    those = trainings(config=replace(CONFIG, accelerator="cuda"))
    others = twins(those)
    got, expected = fit_together(those), [one.alone() for one in others]
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one.best_loss, other.best_loss, rtol=1e-2)
