"""ModernTCN and LwConvTimeNet: their papers' counts, a second answer for a block, and gaps that change nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import prismts
from prismts.data.synthetic import sine_mixture
from prismts.errors import SettingsError
from prismts.models.convtimenet import ConvTimeNet, ConvTimeNetConfig
from prismts.models.lwconvtimenet import LwConvTimeNet, LwConvTimeNetConfig
from prismts.models.moderntcn import Block, LargeKernel, ModernTCN, ModernTCNConfig
from prismts.tasks.classify import Classify
from prismts.tasks.forecast import Forecast

C = 3
TWO_STAGES = {
    "patch_length": 6, "stride": 4, "widths": (6, 8), "n_blocks": (1, 2), "kernel_sizes": (9, 5),
    "small_kernels": (3, 3), "expansion": 2,
}  # fmt: skip


def n_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def trained(model: nn.Module, seed: int = 0) -> nn.Module:
    """No parameter and no running statistic is where it began."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.add_(torch.rand(buffer.shape, generator=generator))
    return model.eval()


# ---- counts and shapes of the papers' settings


def counted_by_hand(c, length, horizon, d, r, patch, stride, large, small):
    """ModernTCN of one stage and one block, as its paper says: every weight that its forward pass uses."""
    n = length // stride
    stem = patch * d + 2 * d
    depthwise = c * d * (large + 2) + c * d * (small + 2)  # each kernel with its batch norm
    over_features = c * ((d + 1) * r * d + (r * d + 1) * d)
    over_variables = d * ((c + 1) * r * c + (r * c + 1) * c)
    head = (d * n + 1) * horizon
    return stem + depthwise + 2 * d + over_features + over_variables + head


@pytest.mark.parametrize(
    ("c", "d", "r", "horizon", "large"),
    [(7, 64, 1, 96, 51), (7, 64, 8, 720, 51), (21, 64, 8, 192, 51), (8, 64, 1, 336, 31)],
)
def test_moderntcn_has_the_parameters_that_its_authors_scripts_compute_with(c, d, r, horizon, large):
    settings = {"widths": (d,), "expansion": r, "kernel_sizes": (large,)}
    model = Forecast(horizon, line=None).build("moderntcn", settings, n_channels=c, context_length=336)
    assert n_parameters(model) == counted_by_hand(c, 336, horizon, d, r, 8, 4, large, 5)


def test_moderntcn_on_etth2_by_the_number():
    """The authors' script for ETTh2 at 336 and 96 steps: 516,192 of 623,520 parameters belong to the head."""
    model = Forecast(96, line=None).build("moderntcn", {}, n_channels=7, context_length=336)
    assert n_parameters(model.head) == 64 * 84 * 96 + 96 == 516_192
    assert n_parameters(model) == 516_192 + 640 + 448 * 53 + 448 * 7 + 128 + 7 * 8_320 + 64 * 112


def test_merged_kernels_leave_one_kernel_and_bias():
    model = ModernTCN(ModernTCNConfig(), n_channels=7, context_length=336)
    fewer = 448 * (51 + 2 + 5 + 2) - 448 * (51 + 1)
    assert n_parameters(model) - n_parameters(model.merged()) == fewer


def test_stages_halve_the_tokens_and_a_token_knows_what_it_covers():
    model = ModernTCN(ModernTCNConfig(**TWO_STAGES | {"patch_length": 8}), n_channels=C, context_length=100)
    assert (model.n_tokens, model.stride, model.patch_length, model.width) == (13, 8, 12, 8)
    x = torch.randn(2, C, 100)
    assert model.encode(x).tokens.shape == (2, C, 13, 8)


def test_a_light_model_has_a_fifth_of_the_parameters_of_the_blocks_it_replaces():
    light = LwConvTimeNet(LwConvTimeNetConfig(), n_channels=7, context_length=336)
    full = ConvTimeNet(ConvTimeNetConfig(), n_channels=7, context_length=336)
    assert n_parameters(light.blocks) == 3 * (64 * 64 * 3 + 64 + 2 * 64)
    one = 2 * 64 * 256 + 256 + 64 + 2 * 128 + 2 + 64 * (3 + 2)  # pair, norms, residual weights, small kernel, biases
    assert n_parameters(full.blocks) == 6 * one + 64 * (9 + 11 + 15 + 21 + 29 + 39)
    assert n_parameters(light.blocks) / n_parameters(full.blocks) < 0.2
    assert n_parameters(light.patch) == n_parameters(full.patch)
    assert light.n_tokens == full.n_tokens == 21


def test_light_patches_are_shorter_where_windows_are():
    for length, patch in ((336, 32), (100, 16), (26, 4), (5, 2)):
        model = LwConvTimeNet(LwConvTimeNetConfig(), n_channels=1, context_length=length)
        assert (model.patch_length, model.stride) == (patch, patch // 2)


# ---- a second answer


def test_a_block_is_the_grouped_convolutions_of_the_paper():
    """The same numbers through torch's own grouped convolutions, variables and features laid out as in the paper."""
    torch.manual_seed(0)
    d, n, batch = 4, 11, 5
    block = trained(Block(ModernTCNConfig(widths=(d,), kernel_sizes=(7,), small_kernels=(3,), expansion=2), 0, C))
    x = torch.randn(batch, C, d, n)

    def branch(part, y):
        y = F.conv1d(y, part.weight[:, None], padding=part.weight.shape[1] // 2, groups=C * d)
        norm = part.norm
        return F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias)

    def grouped(pair, y, groups):
        y = F.conv1d(y, pair.rise.flatten(0, 1)[..., None], pair.rise_bias.flatten(), groups=groups)
        return F.conv1d(F.gelu(y), pair.fall.flatten(0, 1)[..., None], pair.fall_bias.flatten(), groups=groups)

    y = x.reshape(batch, C * d, n)
    y = branch(block.conv.long, y) + branch(block.conv.short, y)
    norm = block.norm
    y = F.batch_norm(
        y.reshape(batch * C, d, n), norm.running_mean, norm.running_var, norm.weight, norm.bias
    ).reshape(batch, C * d, n)  # fmt: skip
    y = grouped(block.over_features, y, C).reshape(batch, C, d, n).transpose(1, 2).reshape(batch, d * C, n)
    y = grouped(block.over_channels, y, d).reshape(batch, d, C, n).transpose(1, 2)
    ours = block(x.permute(1, 2, 0, 3)).permute(2, 0, 1, 3)
    torch.testing.assert_close(ours, x + y, rtol=1e-4, atol=1e-5)


def test_a_block_that_takes_tokens_in_slices_gives_the_numbers_and_gradients_of_the_whole(monkeypatch):
    torch.manual_seed(0)
    block = Block(ModernTCNConfig(widths=(4,), kernel_sizes=(7,), small_kernels=(3,), dropout=0.0), 0, C).train()
    x = torch.randn(C, 4, 5, 11, requires_grad=True)
    found, asked = [], []
    block.over_features.register_forward_pre_hook(lambda _, given: asked.append(given[0].shape[2]))
    monkeypatch.setattr("prismts.models.moderntcn._SLICE", C * 4 * 14)
    for threshold, sizes in ((10**9, [55]), (1, [14, 14, 14, 13])):
        monkeypatch.setattr("prismts.layers.paths.SMALLEST", threshold)
        asked.clear()
        y = block(x)
        assert asked == sizes
        found.append([y, *torch.autograd.grad(y.square().sum(), [x, *block.parameters()])])
    for whole, sliced in zip(*found, strict=True):
        torch.testing.assert_close(sliced, whole, rtol=1e-4, atol=1e-4)


def test_merging_the_two_kernels_and_their_norms_leaves_every_output_unchanged():
    torch.manual_seed(0)
    conv = trained(LargeKernel(6, 9, 5))
    x = torch.randn(6, 4, 20)
    torch.testing.assert_close(conv.merged()(x), conv(x), rtol=1e-5, atol=1e-5)


def test_merging_draws_no_random_number():
    conv = LargeKernel(6, 9, 5)
    before = torch.get_rng_state()
    conv.merged()
    assert torch.equal(torch.get_rng_state(), before)


def test_variables_meet_in_the_second_pair_and_nowhere_else():
    torch.manual_seed(0)
    model = trained(ModernTCN(ModernTCNConfig(**TWO_STAGES), n_channels=C, context_length=40))
    with torch.no_grad():
        for block in (block for stage in model.stages for block in stage):
            block.over_channels.fall.zero_()
    x = torch.randn(2, C, 40)
    changed = x.clone()
    changed[:, 1] += torch.randn(40)
    differs = (model.encode(changed).tokens != model.encode(x).tokens).any(-1).any(-1).any(0)
    assert differs.tolist() == [False, True, False]
    model = trained(ModernTCN(ModernTCNConfig(**TWO_STAGES), n_channels=C, context_length=40))
    differs = (model.encode(changed).tokens != model.encode(x).tokens).any(-1).any(-1).any(0)
    assert differs.tolist() == [True, True, True]


def test_joined_variables_stand_side_by_side_in_one_token():
    torch.manual_seed(0)
    x = torch.randn(2, C, 40)
    seen = torch.rand(2, C, 40) < 0.5
    apart = trained(ModernTCN(ModernTCNConfig(**TWO_STAGES), n_channels=C, context_length=40))
    joined = trained(ModernTCN(ModernTCNConfig(**TWO_STAGES, joined=True), n_channels=C, context_length=40))
    apart.load_state_dict(joined.state_dict())
    one, many = joined.encode(x, seen), apart.encode(x, seen)
    assert joined.width == 3 * apart.width and one.tokens.shape == (2, 1, joined.n_tokens, 24)
    assert torch.equal(one.tokens[:, 0], many.tokens.permute(0, 2, 1, 3).flatten(2))
    assert torch.equal(one.valid[:, 0], many.valid.any(1))


def test_classification_joins_the_variables_and_keeps_their_level():
    model = Classify(4).build("moderntcn", {}, n_channels=C, context_length=40)
    assert model.normalize is None and model.head.linear.in_features == 3 * 64
    assert Classify(4).build("moderntcn", {"joined": False}, n_channels=C, context_length=40).width == 64


# ---- gaps


FORMS = {
    "moderntcn": lambda: ModernTCN(ModernTCNConfig(**TWO_STAGES), n_channels=C, context_length=64),
    "moderntcn, level kept": lambda: ModernTCN(
        ModernTCNConfig(**TWO_STAGES, normalize=False, downsampling=3), n_channels=C, context_length=64
    ),
    "lwconvtimenet, mixed": lambda: LwConvTimeNet(
        LwConvTimeNetConfig(patch_length=8, stride=4, width=6, channels="mixed"), n_channels=C, context_length=64
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("training", [False, True])
@settings(deadline=None, max_examples=15)
@given(st.integers(1, 50), st.integers(1, 30), st.floats(0.3, 1), st.integers(0, 999))
def test_what_lies_behind_the_last_observed_step_changes_no_token(form, training, length, n_padding, share, seed):
    """Whatever the amount of padding, whatever it holds, with holes before it, and in training too."""
    torch.manual_seed(seed)
    model = trained(FORMS[form](), seed).train(training).double()  # statistics of few values amplify rounding
    for part in model.modules():
        if hasattr(part, "p"):
            part.p = 0.0  # no dropout: its masks depend on the shape
    x = torch.randn(2, C, length, dtype=torch.float64)
    seen = torch.rand(2, C, length) < share
    seen[..., -1] = seen[..., 0] = True
    rest = torch.full((2, C, n_padding), 1e6, dtype=torch.float64)
    alone = model.encode(x, seen)
    padded = model.encode(torch.cat([x, rest], -1), torch.cat([seen, torch.zeros_like(rest, dtype=torch.bool)], -1))
    n = alone.tokens.shape[2]
    torch.testing.assert_close(padded.tokens[:, :, :n], alone.tokens, rtol=1e-4, atol=1e-4)
    assert torch.equal(padded.valid[:, :, :n], alone.valid)
    assert not padded.valid[:, :, n:].any() and not padded.tokens[:, :, n:].any()


def test_a_channel_that_was_never_seen_has_no_valid_token():
    model = trained(FORMS["moderntcn"]())
    seen = torch.ones(1, C, 40, dtype=torch.bool)
    seen[:, 1] = False
    features = model.encode(torch.randn(1, C, 40), seen)
    assert features.valid.all(-1).tolist() == [[True, False, True]] and not features.valid[:, 1].any()


# ---- settings


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"widths": (4, 8)}, r"one number per stage, but their lengths differ: widths=\(4, 8\)"),
        ({"kernel_sizes": (50,)}, "Kernels are odd.* but got 50 and 5"),
        ({"small_kernels": (53,)}, "no larger than the large one beside it .* but got 51 and 53"),
        ({"stride": 9}, "stride=9 leaves out steps between patches of 8"),
        ({"dropout": 1.0}, "dropout is a share from 0 to below 1, but got 1.0"),
        ({"expansion": 0}, "are at least 1"),
    ],
)
def test_settings_of_moderntcn_that_cannot_work_say_so(changes, words):
    with pytest.raises(SettingsError, match=words):
        ModernTCNConfig(**changes)


def test_settings_of_the_light_model_that_cannot_work_say_so():
    with pytest.raises(SettingsError, match=r"kernel_sizes are odd.*\(3, 4\)"):
        LwConvTimeNetConfig(kernel_sizes=(3, 4))
    with pytest.raises(SettingsError, match="no patches named 'deformabel'"):
        LwConvTimeNetConfig(patches="deformabel")
    with pytest.raises(SettingsError, match="one large kernel per block"):
        LwConvTimeNetConfig(kernel_sizes=())


# ---- through the estimators


@pytest.mark.parametrize(
    ("model", "settings"),
    [("moderntcn", {"widths": (8,), "kernel_sizes": (9,)}), ("lwconvtimenet", {"patch_length": 8, "stride": 4})],
)
def test_a_forecaster_learns_with_it_and_is_loaded_as_it_was_saved(model, settings, tmp_path):
    data = sine_mixture(300, n_channels=2)
    forecaster = prismts.Forecaster(
        model, context_length=48, horizon=8, model_settings=settings, fit_settings={"max_epochs": 1}, progress=False
    ).fit(data)
    forecaster.save(tmp_path / "saved")
    np.testing.assert_array_equal(prismts.load(tmp_path / "saved").predict(), forecaster.predict())
