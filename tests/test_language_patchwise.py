"""A language model that is taught patches, and decodes the future patch by patch."""

import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import prismts
from prismts.data.synthetic import sine_mixture
from prismts.errors import SavedModelError, SettingsError, ShapeError
from prismts.models import MODELS, make_settings
from prismts.models.language import LanguageConfig
from prismts.models.language_patchwise import PatchwiseEncoder, PatchwiseForecaster, anchors, write_stage
from prismts.models.patchtst import PatchTST, PatchTSTConfig
from prismts.tasks.causal_patch import CausalPatch
from prismts.tasks.pretraining import Pretraining
from prismts.windows import Batch

pytest.importorskip("transformers")
pytest.importorskip("peft")

TINY = {
    "weights": "random", "width": 8, "n_heads": 2, "feed_forward": 12, "n_layers": 2, "max_tokens": 32, "n_words": 11,
    "patch_length": 8, "stride": 4,
}  # fmt: skip


def encoder(seed: int = 0, **changes) -> PatchwiseEncoder:
    torch.manual_seed(seed)
    return PatchwiseEncoder(LanguageConfig(**{**TINY, **changes}), n_channels=2, context_length=40)


def forecaster(horizon: int = 20, seed: int = 0, **changes) -> PatchwiseForecaster:
    torch.manual_seed(seed)
    config = LanguageConfig(**{**TINY, **changes})
    model = PatchwiseForecaster(config, n_channels=2, context_length=40, horizon=horizon)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def windows(n: int = 3, n_timepoints: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 2, n_timepoints, generator=torch.Generator().manual_seed(seed)).cumsum(-1)


def batch_of(x: torch.Tensor, observed: torch.Tensor | None = None) -> Batch:
    return Batch(x, torch.zeros(len(x), x.shape[1], 0), observed, None, torch.zeros(len(x), dtype=torch.long))


# ---- anchors


def test_an_anchor_lies_one_horizon_before_the_future_it_stands_for():
    window = torch.arange(10.0)[None, None]
    assert anchors(window, 4)[0, 0].tolist() == [6, 7, 8, 9]


def test_anchors_of_a_future_longer_than_the_window_go_round_and_end_with_it():
    window = torch.arange(3.0)[None, None]
    assert anchors(window, 7)[0, 0].tolist() == [2, 0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(("horizon", "n"), [(1, 1), (8, 1), (9, 2), (12, 2), (13, 3), (96, 23)])
def test_as_many_anchors_as_cover_the_horizon(horizon, n):
    assert forecaster(horizon, max_tokens=64).n_anchors == n


def test_each_future_patch_reads_the_past_and_itself_and_no_other():
    model = forecaster(horizon=16, dropout=0.0)  # anchors of steps 0-7, 4-11, 8-15 behind the window
    read: list[torch.Tensor] = []
    model.encoder.backbone.register_forward_hook(lambda _, given, __: read.append(given[1]))
    model(windows())
    readable = read[0][0, 0]
    past = 9  # tokens of 40 steps
    assert readable.shape == (12, 12)
    assert torch.equal(readable[:past, :past], torch.ones(9, 9).tril().bool()) and not readable[:past, past:].any()
    assert readable[past:, :past].all() and torch.equal(readable[past:, past:], torch.eye(3).bool())


def test_a_step_is_the_mean_of_the_patches_that_write_it():
    model = forecaster(horizon=12)  # patches of steps 0-7 and 4-11
    told: list[torch.Tensor] = []
    model.encoder.decode.register_forward_hook(lambda _, __, out: told.append(out))
    x = windows(1)
    y = model(x)
    stats = model.encoder.normalize(x)[1]
    first, second = told[0][:, 0], told[0][:, 1]  # [C, P]
    expected = torch.cat([first[:, :4], (first[:, 4:] + second[:, :4]) / 2, second[:, 4:]], dim=-1)
    torch.testing.assert_close(y[0], expected * stats.scale[0] + stats.mean[0])


def test_the_last_patch_of_the_past_ends_with_the_window_whatever_its_length():
    model = forecaster()
    x = windows(n_timepoints=39)
    changed = x.clone()
    changed[..., :3] = changed[..., 3:6].flip(-1)  # 39 - 8 leaves 3 steps over, the oldest
    a, b = (model.encoder.of_stage(z[..., (39 - 8) % 4 :])[0] for z in (x, changed))
    assert torch.equal(a, b) and a.shape[2] == 8
    assert model(x).shape == (3, 2, 20)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 40), st.integers(8, 60), st.integers(0, 99))
def test_a_forecast_has_the_horizon_whatever_the_window(horizon, n_timepoints, seed):
    assert forecaster(horizon, max_tokens=64)(windows(2, n_timepoints, seed)).shape == (2, 2, horizon)


def test_a_network_that_looks_ahead_is_kept_from_it():
    model = encoder(backbone="bert").eval()
    tokens = torch.randn(1, 1, 6, 8)
    changed = tokens.clone()
    changed[:, :, 4:] = torch.randn(1, 1, 2, 8)
    torch.testing.assert_close(model.read(tokens, None)[:, :, :4], model.read(changed, None)[:, :, :4])


# ---- stage 1


@pytest.mark.parametrize("patches", ["uniform", "deformable"])
@pytest.mark.parametrize("backbone", ["gpt2", "bert", "attention", "none"])
def test_what_a_token_tells_depends_on_nothing_it_has_to_tell(patches, backbone):
    model = encoder(patches=patches, backbone=backbone, scales=(1, 2)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    window = torch.randn(1, 1, 40)
    changed = window.clone()
    changed[..., 16:] = torch.randn(24)
    a, b = (model.decode(model.read(model.of_stage(z)[0], None)) for z in (window, changed))
    assert torch.equal(a[:, :, :3], b[:, :, :3])  # tokens of steps 0-7, 4-11, 8-15
    assert not torch.isclose(a[:, :, 3:], b[:, :, 3:]).all(-1).any()


def test_the_error_is_that_of_the_patch_behind_every_token():
    """By hand: each token and the eight steps behind it, one after the other."""
    model = encoder().eval()
    task, x = CausalPatch(), windows()
    total, count = task.errors(Pretraining(model, [task]), batch_of(x))
    z, stats = model.normalize(x)
    told = model.decode(model.read(model.of_stage(z)[0], None))
    found, n = 0.0, 0
    for i in range(7):  # tokens that begin at 0, 4 ... 24 have eight whole steps behind them
        answer = told[:, :, i] * stats.scale + stats.mean
        behind = x[..., 4 * i + 8 : 4 * i + 16]
        found, n = found + float((answer - behind).detach().square().sum()), n + behind.numel()
    assert int(count) == n and float(total.detach()) == pytest.approx(found, rel=1e-4)


def test_steps_that_were_not_observed_and_tokens_that_saw_nothing_do_not_count():
    model, task, x = encoder().eval(), CausalPatch(), windows(1)
    observed = torch.ones_like(x, dtype=torch.bool)
    observed[..., 16:24] = False
    pretraining = Pretraining(model, [task])
    total, count = task.errors(pretraining, batch_of(torch.where(observed, x, torch.nan), observed))
    same, _ = task.errors(pretraining, batch_of(torch.where(observed, x, 1e6), observed))
    assert torch.isfinite(total) and torch.equal(total, same)
    # of 7 targets of 8 steps from 8, 12 ... 32 on: 16-23 hides 4, 8 and 4 of those of tokens 1, 2, 3 - and token 4,
    # which reads 16-23 alone, saw nothing
    assert int(count) == 2 * (7 * 8 - 16 - 8)


def test_stage_one_learns_a_wave_and_validation_repeats_itself():
    model, task = encoder(train="full", dropout=0.0), CausalPatch()
    pretraining = Pretraining(model, [task])
    x = torch.sin(torch.arange(40) / 3 + torch.arange(64)[:, None, None]).expand(64, 2, 40)
    optimizer = torch.optim.Adam(pretraining.parameters(), lr=0.01)
    before = float(task.loss(pretraining, batch_of(x)).detach())
    for _ in range(60):
        optimizer.zero_grad()
        loss = task.loss(pretraining, batch_of(x))
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.25 * before
    assert torch.equal(*(task.errors(pretraining, batch_of(x))[0] for _ in range(2)))


def test_encoders_that_look_ahead_and_windows_without_a_next_patch_are_refused():
    ahead = PatchTST(PatchTSTConfig(patch_length=8, stride=4), n_channels=2, context_length=40)
    with pytest.raises(SettingsError, match="The tokens of PatchTST have seen the steps behind them"):
        Pretraining(ahead, [CausalPatch()])
    with pytest.raises(ShapeError, match="at least 16 steps"):
        CausalPatch().loss(Pretraining(encoder(), [CausalPatch()]), batch_of(windows(n_timepoints=15)))


# ---- from stage 1 to stage 2


@pytest.mark.parametrize("train", ["full", "lora"])
def test_what_stage_one_taught_is_what_stage_two_begins_with(train, tmp_path):
    taught = encoder(train=train).eval()
    with torch.no_grad():
        for parameter in taught.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    folder = write_stage(taught, tmp_path / "taught")
    settings = {"backbone": str(folder), "n_layers": 2, "patch_length": 8, "stride": 4}
    config = make_settings(MODELS["allm4ts"].config, settings)
    begun = PatchwiseForecaster(config, n_channels=2, context_length=40, horizon=8).encoder.eval()
    torch.testing.assert_close(begun.encode(windows()).tokens, taught.encode(windows()).tokens)
    torch.testing.assert_close(begun.decode.weight, taught.decode.weight)
    with pytest.raises(SettingsError, match="was taught patches of another form"):
        PatchwiseEncoder(LanguageConfig(**{**settings, "patch_length": 12}), n_channels=2, context_length=40)
    with pytest.raises(SettingsError, match="has no table of words"):
        from prismts.models.language_backbone import make_backbone

        make_backbone(config, keep_table=True)


def test_a_control_has_no_network_to_write(tmp_path):
    with pytest.raises(SettingsError, match="backbone='none' is a control"):
        write_stage(encoder(backbone="none"), tmp_path)


def test_a_stage_that_lacks_weights_or_is_damaged_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = write_stage(encoder(), tmp_path / "taught")
    config = LanguageConfig(backbone=str(folder), n_layers=2, patch_length=8, stride=4)
    shutil.copytree(folder, tmp_path / "short")
    state = load_file(folder / "model.safetensors")
    del state["h.1.mlp.c_fc.weight"]
    save_file(state, tmp_path / "short" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SavedModelError, match=r"lacks 1 weights of its kind, such as 'h\.1\.mlp\.c_fc\.weight'"):
        PatchwiseEncoder(
            LanguageConfig(**{**vars(config), "backbone": str(tmp_path / "short")}), n_channels=2, context_length=40
        )
    (folder / "patches.safetensors").write_bytes(b"nothing")
    with pytest.raises(SavedModelError, match=r"patches\.safetensors cannot be read"):
        PatchwiseEncoder(config, n_channels=2, context_length=40)


def test_both_stages_by_the_package_and_the_forecaster_is_kept(tmp_path):
    from prismts.training.fit import FitConfig
    from prismts.training.pretrain import pretrain

    values = sine_mixture(400).values
    taught = encoder(train="full")
    before = taught.decode.weight.detach().clone()
    pretrain(
        taught, values, tasks=CausalPatch(), progress=False,
        config=FitConfig(max_epochs=1, batch_size=8), draws={"steps_per_epoch": 2, "lengths": (40,)},
    )  # fmt: skip
    assert not torch.equal(taught.decode.weight, before)
    folder = write_stage(taught, tmp_path / "taught")
    fitted = prismts.Forecaster(
        "allm4ts", context_length=40, horizon=12, quantiles=(0.1, 0.5, 0.9), progress=False,
        model_settings={"backbone": str(folder), "n_layers": 2, "patch_length": 8, "stride": 4},
        fit_settings={"max_epochs": 1, "batch_size": 64},
    ).fit(values)  # fmt: skip
    fitted.save(tmp_path / "model")
    assert np.array_equal(prismts.load(tmp_path / "model").predict(), fitted.predict())
    assert not any("attn" in name for name in _names(tmp_path / "model"))  # frozen, so they stay in the stage's folder
    fitted.save(tmp_path / "whole", whole=True)
    shutil.rmtree(folder)
    assert np.array_equal(prismts.load(tmp_path / "whole").predict(), fitted.predict())


def _names(folder) -> list[str]:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as file:
        return list(file.keys())


# ---- errors and folding


def test_folded_factors_change_no_forecast():
    model = forecaster(train="lora", lora_rank=2)
    merged = model.merged()
    torch.testing.assert_close(merged(windows()), model(windows()), rtol=1e-4, atol=1e-4)
    assert not any("lora" in name for name in merged.state_dict())
    assert any("lora" in name for name in model.state_dict())


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"stride": 9}, SettingsError, "leave steps of the future that none writes"),
        ({"patch_length": 41, "stride": 8}, SettingsError, "no room for a patch of 41"),
        ({"max_tokens": 12}, ShapeError, "knows 12 positions, but this window is cut into 13 tokens"),
    ],
)
def test_forms_that_cannot_forecast_are_refused_in_words(changes, error, words):
    with pytest.raises(error, match=words):
        forecaster(**changes)
