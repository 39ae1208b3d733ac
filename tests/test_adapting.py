"""Estimators go on with new data: from the weights there are, few of them trained, and saved whole or apart."""

import contextlib
import copy
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import prismts
from prismts.cli import main
from prismts.data.synthetic import labeled_motions, simulated_plant
from prismts.errors import SavedModelError, SettingsError
from prismts.estimators.adapting import adapt, load_adapter, save_adapter
from prismts.estimators.case_recipes import CLASSIFY_SETTINGS
from prismts.models.adapters import Adaptation, Bottleneck, base_hash, is_adapted

SHORT = {"max_epochs": 1, "batch_size": 64}

pytestmark = pytest.mark.usefixtures("networks_speak")


@pytest.fixture(scope="module")
def plant():
    return simulated_plant(900)


@pytest.fixture(scope="module")
def forecaster(plant):
    return prismts.Forecaster(context_length=48, horizon=12, fit_settings=SHORT, progress=False).fit(plant)


@pytest.fixture(scope="module")
def classifier():
    return prismts.Classifier(fit_settings=SHORT, validation=2, progress=False).fit(labeled_motions().train)


def encoder_of(estimator) -> dict[str, torch.Tensor]:
    state = estimator.members_[0].state_dict()
    return {name: value for name, value in state.items() if not name.startswith("head.")}


@pytest.mark.parametrize("how", ["lora", "bottleneck", "probe", "full"])
def test_an_adapted_forecaster_answers_saves_and_comes_back_and_its_base_stays_as_it_was(
    how: str, forecaster, plant, tmp_path
) -> None:
    before = {name: value.clone() for name, value in forecaster.model_.state_dict().items()}
    adapted = adapt(forecaster, plant.part(0, 500), how=how, fit_settings={"learning_rate": 1e-2}, progress=False)
    after = forecaster.model_.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert adapted.adaptation_.how == how
    assert adapted.adaptation_.kept_head
    assert adapted.adaptation_.base == (base_hash(forecaster.members_[0]),)
    if how == "probe":
        assert all(torch.equal(value, before[name]) for name, value in encoder_of(adapted).items())
    adapted.save(tmp_path / "m")
    again = prismts.load(tmp_path / "m")
    pd.testing.assert_frame_equal(again.predict(), adapted.predict())
    assert again.adaptation_ == adapted.adaptation_
    assert any(isinstance(part, Bottleneck) for part in again.model_.modules()) == (how == "bottleneck")
    assert forecaster.adaptation_ is None


def test_lora_changes_the_encoder_by_differences_of_low_rank(forecaster, plant) -> None:
    settings = {"learning_rate": 1e-2}
    adapted = adapt(forecaster, plant.part(0, 500), rank=1, targets=["embed"], fit_settings=settings, progress=False)
    before, after = encoder_of(forecaster), encoder_of(adapted)
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed == ["embed.weight"]
    difference = torch.linalg.svdvals((after["embed.weight"] - before["embed.weight"]).double())
    assert difference[0] > 1e-4
    assert difference[1] < 1e-4 * difference[0] + 1e-7


@pytest.mark.parametrize("how", ["lora", "bottleneck", "probe"])
def test_an_adapter_apart_gives_the_same_answers_on_its_base_and_is_refused_on_another(
    how: str, forecaster, plant, tmp_path
) -> None:
    adapted = adapt(forecaster, plant.part(0, 500), how=how, progress=False)
    save_adapter(adapted, tmp_path / "a")
    forecaster.save(tmp_path / "base")
    for base in (forecaster, tmp_path / "base"):
        again = load_adapter(tmp_path / "a", base)
        pd.testing.assert_frame_equal(again.predict(), adapted.predict())
    other = copy.deepcopy(forecaster)
    with torch.no_grad():
        other.members_[0].embed.weight += 1e-3
    with pytest.raises(SavedModelError, match="belongs to another base"):
        load_adapter(tmp_path / "a", other)


def test_new_classes_and_new_channels_get_new_layers_and_the_rest_goes_on(classifier) -> None:
    cases = labeled_motions().train
    fewer = prismts.Collection(
        cases.values[:2], cases.offsets, cases.names, cases.channels[:2],
        labels=np.array([f"class {label}" for label in cases.labels]),
    )  # fmt: skip
    same = adapt(classifier, cases, how="probe", progress=False)
    assert same.adaptation_.kept_head
    assert same.adaptation_.n_trained == 0
    other = adapt(classifier, fewer, how="probe", progress=False)
    assert not other.adaptation_.kept_head
    assert other.adaptation_.n_trained > 0
    old, new = encoder_of(classifier), encoder_of(other)
    assert old["embed.weight"].shape != new["embed.weight"].shape
    kernels = [name for name in old if "long.weight" in name]
    assert kernels
    assert all(torch.equal(old[name], new[name]) for name in kernels)
    assert set(other.predict(fewer)) <= set(fewer.labels)


@pytest.mark.long
def test_every_network_of_an_ensemble_begins_with_its_own(plant) -> None:
    base = prismts.Forecaster(context_length=48, horizon=12, fit_settings=SHORT, n_members=2, progress=False).fit(plant)
    adapted = adapt(base, plant.part(0, 500), how="probe", progress=False)
    for old, new in zip(base.members_, adapted.members_, strict=True):
        assert base_hash(old) == base_hash(new)
    assert len(set(adapted.adaptation_.base)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("how", ["lora", "bottleneck"])
def test_detectors_imputers_and_embedders_are_adapted_too(how: str, plant, tmp_path) -> None:
    cases = labeled_motions()
    fitted = [
        (prismts.AnomalyDetector(setting="combined", context_length=48, fit_settings=SHORT, progress=False), plant),
        (prismts.Imputer(context_length=48, fit_settings=SHORT, progress=False), plant),
        (prismts.Embedder(fit_settings=SHORT, progress=False), cases.train),
    ]
    for estimator, data in fitted:
        base = estimator.fit(data)
        new = plant.part(0, 500) if data is plant else cases.test
        adapted = adapt(base, new, how=how, progress=False)
        adapted.save(tmp_path / "m")
        save_adapter(adapted, tmp_path / "a")
        ask = "score_samples" if isinstance(base, prismts.AnomalyDetector) else "transform"
        answer = getattr(adapted, ask)(new)
        for again in (prismts.load(tmp_path / "m"), load_adapter(tmp_path / "a", base)):
            other = getattr(again, ask)(new)
            np.testing.assert_allclose(
                getattr(other, "values", other), getattr(answer, "values", answer), rtol=1e-4, atol=1e-5
            )


def test_what_cannot_be_adapted_is_told_in_words(forecaster, plant) -> None:
    with pytest.raises(SettingsError, match="only closed forms"):
        adapt(prismts.AnomalyDetector(progress=False).fit(plant), plant)
    ridge = prismts.Forecaster("ridge", context_length=48, horizon=12).fit(plant)
    for how in ("lora", "full"):
        with pytest.raises(SettingsError, match=r"only closed forms.* Fit it anew with the new data"):
            adapt(ridge, plant, how=how)
    with pytest.raises(SettingsError, match="Did you mean 'probe'"):
        adapt(forecaster, plant, how="probes")
    with pytest.raises(SettingsError, match="Did you mean 'horizon'"):
        adapt(forecaster, plant, changes={"horizons": 3})
    with pytest.raises(SettingsError, match="Did you mean 'learning_rate'"):
        adapt(forecaster, plant, fit_settings={"learning_rat": 1e-3})
    with pytest.raises(SettingsError, match="merged weights cannot be taken apart"):
        save_adapter(forecaster, "anywhere")
    full = adapt(forecaster, plant.part(0, 500), how="full", progress=False)
    with pytest.raises(SettingsError, match="there is no adapter"):
        save_adapter(full, "anywhere")
    line = prismts.Forecaster("dlinear", context_length=48, horizon=12, fit_settings=SHORT, progress=False).fit(plant)
    with pytest.raises(SettingsError, match=r"^This model has no encoder .*: how='full', or --how full on the"):
        adapt(line, plant)
    bottled = adapt(forecaster, plant.part(0, 500), how="bottleneck", progress=False)
    with pytest.raises(SettingsError, match="carries bottlenecks already"):
        adapt(bottled, plant)


def test_another_horizon_gets_a_new_head(forecaster, plant) -> None:
    adapted = adapt(forecaster, plant.part(0, 500), changes={"horizon": 6}, progress=False)
    assert len(adapted.predict()) == 6
    assert not adapted.adaptation_.kept_head


def test_fitting_an_adapted_estimator_anew_forgets_where_it_came_from(forecaster, plant) -> None:
    adapted = adapt(forecaster, plant.part(0, 500), how="probe", progress=False)
    assert adapted.fit(plant).adaptation_ is None
    assert not any(is_adapted(member) for member in adapted.members_)


def test_an_adaptation_says_what_it_is() -> None:
    with pytest.raises(SettingsError, match="strength multiplies"):
        Adaptation(strength=0.0)


@pytest.mark.long
def test_the_command_adapts_saves_the_adapter_and_puts_it_back(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for name, n in (("a", 900), ("b", 600)):
        series = simulated_plant(n)
        pd.DataFrame(series.values.T, columns=series.channels).to_csv(f"{name}.csv", index=False)

    def prism(command: str) -> str:
        monkeypatch.setattr(sys, "argv", ["prism", *command.split()])
        with contextlib.suppress(SystemExit):
            main()
        return " ".join("".join(capsys.readouterr()).split())

    prism("fit forecast a.csv --out m --horizon 12 --context-length 48 --epochs 1 -q")
    said = prism("adapt m b.csv --out m2 --save-adapter a --epochs 1")
    assert "adapted by lora with the head it had" in said
    assert "the adapter alone" in said
    assert "before it was adapted" in said
    prism("adapt m --with-adapter a --out m3")
    assert prism("predict m2 -q") == prism("predict m3 -q")
    for wrong, words in {
        "adapt m b.csv": "Say where to write to",
        "adapt m --out m4": "is adapted to data",
        "adapt m b.csv --with-adapter a --out m4": "without training",
        "adapt m b.csv --label x --out m4": "--label tells the classes",
    }.items():
        assert words in prism(wrong)


@pytest.mark.long
@pytest.mark.usefixtures("networks_are_judged")
def test_a_network_that_is_trained_once_more_begins_with_the_one_it_began_with() -> None:
    """On a random walk validation wants nothing of a network, which is then trained again, gently."""
    walk = np.random.default_rng(1).standard_normal((1, 700)).cumsum(1)
    few = {"max_epochs": 5, "min_steps": 20, "patience": 2, "batch_size": 64}
    base = prismts.Forecaster(
        setting="two_encoders", context_length=48, horizon=8, fit_settings=few, progress=False
    ).fit(walk)  # fmt: skip
    for seed in range(3):
        other = np.random.default_rng(seed + 5).standard_normal((1, 500)).cumsum(1)
        adapted = adapt(base, other, how="probe", progress=False)
        assert [base_hash(one) for one in adapted.members_] == [base_hash(one) for one in base.members_]


def test_a_classifier_that_was_pretrained_is_adapted_without_pretraining_it_again(monkeypatch) -> None:
    short = replace(CLASSIFY_SETTINGS["pretrained"].pretrain, max_epochs=1)
    monkeypatch.setitem(CLASSIFY_SETTINGS, "pretrained", replace(CLASSIFY_SETTINGS["pretrained"], pretrain=short))
    cases = labeled_motions(24, n_classes=2)
    base = prismts.Classifier(
        "timemae", setting="pretrained", fit_settings=SHORT, validation=None, progress=False,
        model_settings={"n_layers": 1, "width": 16},
    ).fit(cases)  # fmt: skip
    adapted = adapt(base, cases, how="probe", progress=False)
    assert [base_hash(one) for one in adapted.members_] == [base_hash(one) for one in base.members_]


def test_a_task_of_a_universal_model_is_not_adapted_by_itself(plant) -> None:
    sizes = {"width": 8, "feed_forward": 0, "patch_length": 8, "stride": 8}
    model = prismts.UniversalModel(
        "convtimenet", context_length=32, encoder_settings=sizes, items_per_epoch=32, progress=False, fit_settings=SHORT
    ).fit([prismts.ForecastOn(plant, horizon=4)])
    for one in (model, model.estimators_["forecast"]):
        with pytest.raises(SettingsError, match="shares one encoder among its tasks"):
            adapt(one, plant)
