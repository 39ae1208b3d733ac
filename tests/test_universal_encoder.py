"""The universal encoder reads windows of any length and number of channels; every part of it can be switched off."""

import numpy as np
import pytest
import torch

import prismts
from prismts.data.synthetic import simulated_plant
from prismts.errors import SettingsError, ShapeError
from prismts.layers.missing import bridge
from prismts.models.universal import UniversalEncoder, UniversalEncoderConfig
from prismts.serving.export import export
from prismts.serving.runtime import OnnxModel

SMALL = {
    "patch_lengths": (8, 16), "stride": 4, "width": 8, "n_heads": 2, "feed_forward": 12, "kernel_sizes": (3, 5),
    "n_bands": 4, "n_layers": 2, "residual": 0.5,
}  # fmt: skip
BACKBONES = ("convtimenet", "transformer")
both_backbones = pytest.mark.parametrize("backbone", BACKBONES)


def learned(context_length: int = 40, **changes) -> UniversalEncoder:
    """As after some training: nothing that begins at zero is there any more."""
    torch.manual_seed(0)
    config = UniversalEncoderConfig(**{**SMALL, **changes})
    model = UniversalEncoder(config, context_length=context_length)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model.eval()


def windows(n_channels: int = 3, n_timepoints: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, n_channels, n_timepoints, generator=torch.Generator().manual_seed(seed)).cumsum(-1)


# ---- channels


@both_backbones
def test_a_single_channel_leaves_exactly_as_without_exchange(backbone):
    model, x = learned(backbone=backbone), windows(1)
    with_it, without = model.encode(x), model.encode(x, exchange=False)
    assert torch.equal(with_it.tokens, without.tokens)
    assert not torch.allclose(model.encode(windows(2)).tokens, model.encode(windows(2), exchange=False).tokens)


@both_backbones
def test_without_exchange_a_channel_does_not_know_of_the_others(backbone):
    model, x = learned(backbone=backbone), windows(5)
    torch.testing.assert_close(model.encode(x, exchange=False).tokens[:, 3:4], model.encode(x[:, 3:4]).tokens)


def test_switching_the_exchange_off_for_a_call_is_building_without_it():
    model, x = learned(), windows()
    without = UniversalEncoder(UniversalEncoderConfig(**SMALL, exchange=False), context_length=40).eval()
    without.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("exchange.")})
    assert model.exchanges and not without.exchanges
    assert torch.equal(without.encode(x).tokens, model.encode(x, exchange=False).tokens)


@both_backbones
@pytest.mark.parametrize("n_channels", [2, 5, 11])
def test_any_number_of_channels_comes_and_exchanged_ones_give_exchanged_tokens(backbone, n_channels):
    model, x = learned(backbone=backbone), windows(n_channels)
    order = torch.randperm(n_channels, generator=torch.Generator().manual_seed(1))
    there, back = model.encode(x[:, order]).tokens, model.encode(x).tokens[:, order]
    torch.testing.assert_close(there, back, rtol=1e-4, atol=1e-4)


# ---- lengths


@both_backbones
@pytest.mark.parametrize("n_timepoints", [1, 7, 40, 41, 333])
def test_windows_of_any_length_are_read_without_retraining(backbone, n_timepoints):
    model = learned(backbone=backbone)
    features = model.encode(windows(3, n_timepoints))
    n = model.n_tokens_of(n_timepoints)
    assert features.tokens.shape == (2, 3, n, 8)
    assert features.tokens.isfinite().all()
    assert (n - 1) * model.stride + model.patch_length >= n_timepoints


def test_the_last_tokens_of_a_longer_window_are_those_of_its_end_but_for_what_lies_before():
    """Everything is told from the end: where nothing looks further back, the tokens agree."""
    near = {"kernel_sizes": (1,), "small_kernel": 0, "n_bands": 0, "normalize": False, "patches": "uniform"}
    model, x = learned(**near), windows(2, 80)
    long, short = model.encode(x).tokens, model.encode(x[..., 40:]).tokens
    torch.testing.assert_close(long[:, :, -5:], short[:, :, -5:])


# ---- switches


@pytest.mark.parametrize(
    "change",
    [
        {"exchange": False}, {"n_bands": 0}, {"normalize": False}, {"patches": "uniform"}, {"patch_lengths": (8,)},
        {"backbone": "transformer"}, {"gaps": "bridged"}, {"gaps": "masked"},
    ],
    ids=str,
)  # fmt: skip
def test_every_switch_leaves_an_encoder_that_reads_gaps(change):
    model, x = learned(**change), windows()
    observed = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.6
    tokens = model.encode(x, observed).tokens
    assert tokens.isfinite().all()
    assert torch.equal(tokens, model.encode(x.masked_fill(~observed, 1e9), observed).tokens)
    whole = learned()
    assert {name for name, _ in model.named_parameters()} != {name for name, _ in whole.named_parameters()} or (
        not torch.allclose(tokens, whole.encode(x, observed).tokens)
    )


def test_the_parameters_are_those_of_the_formula():
    config = UniversalEncoderConfig(**SMALL)
    width, bands, lengths = config.width, config.n_bands, config.patch_lengths
    model = UniversalEncoder(config, context_length=40)
    patches = width * sum(lengths) + 2 * len(lengths) * width + sum(64 * (p + 3) + 2 for p in lengths)
    assert sum(p.numel() for p in model.patch.parameters()) == patches
    assert model.spectrum is not None and model.exchange is not None
    spectrum = bands * width + width + 2 * width * width + 2 * width
    assert sum(p.numel() for p in model.spectrum.parameters()) == spectrum
    assert sum(p.numel() for p in model.exchange[0].parameters()) == 4 * width * width + 2 * width


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"patch_lengths": (16, 8)}, r"rising lengths in time steps, such as \(16, 32\), but got \(16, 8\)"),
        ({"patch_lengths": ()}, "patch_lengths names rising lengths"),
        ({"patch_lengths": (1, 4)}, "A deformable patch has 2 steps or more"),
        ({"stride": 0}, "stride is at least 1, but got 0"),
        ({"n_bands": 1}, "2 bands or more, or 0, but got 1"),
        ({"n_heads": 3}, "n_heads=3 heads share the width out evenly"),
        ({"patches": "deformed"}, "Did you mean 'deformable'"),
        ({"backbone": "transformers"}, "Did you mean 'transformer'"),
        ({"dropout": 1.0}, "dropout is a share"),
    ],
)
def test_a_wrong_setting_says_what_it_should_be(change, words):
    with pytest.raises(SettingsError, match=words):
        UniversalEncoderConfig(**{**SMALL, **change})


def test_before_training_the_shortest_patches_lie_one_stride_apart():
    model = UniversalEncoder(UniversalEncoderConfig(**SMALL), context_length=40)
    left, right = model.bounds(windows())
    assert left[0, 0].tolist() == list(range(0, 36, 4))
    assert (right - left).unique().tolist() == [model.config.patch_length - 1]


# ---- times


@both_backbones
@pytest.mark.parametrize("patches", ["deformable", "uniform"])
def test_a_regular_series_gives_the_same_tokens_with_times_as_without(backbone, patches):
    model, x = learned(backbone=backbone, patches=patches), windows()
    observed = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.7
    times = torch.arange(40.0).expand(2, -1)
    for mask in (None, observed):
        timed, plain = model.encode(x, mask, times), model.encode(x, mask)
        torch.testing.assert_close(timed.tokens, plain.tokens, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(timed.window, plain.window, rtol=1e-5, atol=1e-6)
        assert torch.equal(timed.valid, plain.valid)


def test_leaving_rows_out_with_times_is_masking_them():
    model, x = learned(), windows()
    kept = torch.randperm(40, generator=torch.Generator().manual_seed(2))[:23].sort().values
    observed = torch.zeros(x.shape, dtype=torch.bool)
    observed[..., kept] = True
    timed = model.encode(x[..., kept], None, kept.float().expand(2, -1))
    masked = model.encode(x, observed)
    torch.testing.assert_close(timed.tokens, masked.tokens, rtol=1e-5, atol=1e-5)
    assert torch.equal(timed.valid, masked.valid)


def test_rows_marked_as_unobserved_count_for_nothing_wherever_they_stand():
    model, x = learned(), windows()
    times = torch.arange(40.0).expand(2, -1)
    more = torch.cat([torch.full((2, 3, 4), 1e9), x], dim=-1)
    observed = torch.ones(more.shape, dtype=torch.bool)
    observed[..., :4] = False
    early = torch.cat([torch.full((2, 4), -1.0), times], dim=-1)
    torch.testing.assert_close(model.encode(more, observed, early).tokens, model.encode(x, None, times).tokens)


def test_a_measurement_that_moves_in_time_moves_the_tokens():
    model, x = learned(), windows()
    times = torch.arange(40.0).expand(2, -1).clone()
    straight = model.encode(x, None, times).tokens
    times[:, 20] += 0.4
    assert not torch.allclose(model.encode(x, None, times).tokens, straight)


def test_gaps_that_count_as_measured_are_read_as_the_straight_lines_over_them():
    model, carried, x = learned(gaps="bridged"), learned(), windows()
    observed = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    torch.testing.assert_close(model.encode(x, observed).tokens, carried.encode(bridge(x, observed)).tokens)
    with pytest.raises(SettingsError, match="times are read with gaps='carried', but this encoder has gaps='bridged'"):
        model.encode(x, observed, torch.arange(40.0).expand(2, -1))


def test_times_of_another_number_of_rows_are_refused():
    with pytest.raises(ShapeError, match=r"\[batch=2, row=40\], but got shape \[2, 39\]"):
        learned().encode(windows(), None, torch.arange(39.0).expand(2, -1))


# ---- export


@pytest.mark.slow
@both_backbones
def test_a_forecaster_of_it_answers_from_an_onnx_file_as_from_torch(backbone, tmp_path):
    pytest.importorskip("onnxruntime")
    plant = simulated_plant(200).values
    settings = {**SMALL, "backbone": backbone}
    forecaster = prismts.Forecaster(
        "universal", context_length=48, horizon=6, model_settings=settings, progress=False,
        fit_settings={"max_epochs": 1, "min_steps": 4},
    ).fit(plant)  # fmt: skip
    gapped = plant[:, 100:148].copy()
    gapped[0, 3:9] = np.nan
    told = OnnxModel(export(forecaster, tmp_path / "m.onnx")).predict(gapped[None])[0]
    np.testing.assert_allclose(told, forecaster.predict(gapped), rtol=1e-3, atol=1e-3)
