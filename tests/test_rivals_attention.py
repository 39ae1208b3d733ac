"""DeformableTST, FormerTime and TimeMAE: the papers' counts, attention worked out again, gaps that change nothing."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import prismts
from prismts.data.synthetic import labeled_motions
from prismts.errors import SettingsError
from prismts.models.deformabletst import DeformableAttention, DeformableTST, DeformableTSTConfig, DropPath
from prismts.models.formertime import FormerTime, FormerTimeConfig, ReducedAttention
from prismts.models.timemae import TimeMAE, TimeMAEConfig
from prismts.tasks.classify import Classify
from prismts.tasks.forecast import Forecast
from prismts.tasks.reconstruct import Reconstruct

C = 3


def n_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def moved(model: nn.Module, seed: int = 0) -> nn.Module:
    """No parameter is where it began."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


# ---- counts and shapes of the papers' settings


@pytest.mark.parametrize(
    ("length", "ratio", "widths", "e", "horizon"),
    [
        (384, 4, (16, 32, 64, 128), 1, 96),  # the authors' scripts for ETTh2
        (96, 1, (32, 64, 128, 256), 4, 192),
        (768, 8, (32, 64, 128, 256), 2, 96),
    ],
)
def test_deformabletst_has_the_parameters_of_its_authors_scripts(length, ratio, widths, e, horizon):
    model = Forecast(horizon, line=None).build(
        "deformabletst", {"widths": widths, "expansion": e}, n_channels=7, context_length=length
    )
    d, n = widths[0], length // ratio
    expected = 4 * d if ratio == 1 else (3 + 1) * d // 2 + d + (d // 2 * ratio // 2 + 1) * d + 2 * d  # stem, norms
    for i, (d, heads, groups, k) in enumerate(zip(widths, (4, 8, 16, 32), (2, 4, 8, 16), (9, 7, 5, 3), strict=True)):
        if i:
            expected += (2 * widths[i - 1] + 1) * d + 2 * d
            n //= 2
        expected += 4 * d + 2 * 2 * d  # local perception, two norms
        expected += 4 * d * d + 3 * d  # query, key (without bias), value, out
        expected += d // groups * (k + 1 + 2 + 1) + heads * (2 * n - 1)  # the offset network, the table of distances
        expected += (d + 1) * e * d + 4 * e * d + (e * d + 1) * d  # the pair with its local kernel
    assert model.n_tokens == n == 12
    assert n_parameters(model) == expected + 2 * d + (d * n + 1) * horizon


def test_formertime_has_the_parameters_of_its_paper_on_articulary_word_recognition():
    """Nine channels of 144 steps, 25 classes: three stages of six layers, and one reduction in the first."""
    model = Classify(25).build("formertime", {}, n_channels=9, context_length=144)
    attention = 3 * (64 * 64 + 64) + 64 * 64  # the key has no bias
    layer = attention + (64 * 256 + 256) + (256 * 64 + 64) + 2 * 128 + 2
    reduction = 64 * 64 * 2 + 64 + 128
    position = 64 * 64 * 5 + 64
    slices = [9 * 16 * 64 + 64, 64 * 2 * 64 + 64, 64 * 2 * 64 + 64]
    expected = sum(slices) + 3 * (128 + position) + 18 * layer + 6 * reduction + 64 * 25 + 25
    assert n_parameters(model) == expected
    assert (model.n_tokens, model.stride, model.patch_length) == (5, 32, 40)  # 17, 9 and 5 tokens
    assert model.encode(torch.randn(2, 9, 144)).tokens.shape == (2, 1, 5, 64)


def test_timemae_has_the_parameters_of_its_paper_on_har():
    """Nine channels of 128 steps: 16 slices of 8 steps, eight layers."""
    model = TimeMAE(TimeMAEConfig(), n_channels=9, context_length=128)
    layer = 3 * (64 * 64 + 64) + 64 * 64 + (64 * 256 + 256) + (256 * 64 + 64) + 2 * 128 + 2
    assert n_parameters(model) == 9 * 8 * 64 + 64 + 16 * 64 + 8 * layer
    assert model.encode(torch.randn(2, 9, 128)).tokens.shape == (2, 1, 16, 64)


def test_slices_are_shorter_where_windows_are():
    assert FormerTimeConfig().sized(1000).slices == (16, 2, 2) and FormerTimeConfig().sized(1000).strides == (8, 2, 2)
    assert FormerTimeConfig().sized(26).slices == (3, 2, 2) and FormerTimeConfig().sized(26).strides == (1, 2, 2)
    assert FormerTimeConfig(slices=(16, 2, 2)).sized(26).slices == (16, 2, 2)
    assert [TimeMAEConfig().sized(n).slice_length for n in (1000, 64, 26, 4)] == [8, 8, 3, 2]
    assert [DeformableTSTConfig().sized(n).stem_ratio for n in (96, 97, 384, 385)] == [1, 4, 4, 8]


# ---- attention worked out again


def test_attention_is_that_of_torch_with_a_key_without_bias():
    torch.manual_seed(0)
    ours = moved(ReducedAttention(8, 2, 0.0))
    theirs = nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, torch.zeros(8), ours.value.bias]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    x, source, n = torch.randn(3, 5, 8), torch.randn(3, 7, 8), torch.tensor([7, 1, 4])
    expected, _ = theirs(x, source, source, key_padding_mask=torch.arange(7) >= n[:, None])
    torch.testing.assert_close(ours(x, source, n), expected, rtol=1e-5, atol=1e-5)


def test_keys_are_made_of_every_few_neighbors():
    torch.manual_seed(0)
    attention = moved(ReducedAttention(4, 1, 0.0, reduction=3))
    x = torch.randn(2, 7, 4)
    held = torch.cat([x, x[:, -1:], x[:, -1:]], 1).unflatten(1, (3, 3))  # [B, 3 groups, 3, D]
    short = attention.norm(torch.einsum("bgrd,edr->bge", held, attention.shorten.weight) + attention.shorten.bias)
    weights = (attention.query(x) @ attention.key(short).mT / 2).softmax(-1)  # the root of 4
    torch.testing.assert_close(attention(x, x), attention.out(weights @ attention.value(short)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("built_for", [11, 7, 16])  # tokens; distances beyond its table take the outermost bias
def test_deformable_attention_interpolates_tokens_and_distances(stride, built_for):
    """Every head and token by itself, with numpy's interpolation."""
    torch.manual_seed(stride)
    d, heads, groups, n = 8, 4, 2, 11
    attention = moved(DeformableAttention(d, heads, groups, built_for, 5, stride, 0.0))
    x = torch.randn(1, d, n)
    with torch.no_grad():
        places = attention.places(attention.query(x))[0].numpy()  # [G, K]
        assert places.shape == (groups, math.ceil(n / stride)) and places.min() >= 0 and places.max() <= n - 1
        token = np.arange(n)
        sampled = np.stack([np.interp(places[c // (d // groups)], token, x[0, c].numpy()) for c in range(d)])
        sampled = torch.from_numpy(sampled).float()[None]
        query, key, value = attention.query(x)[0], attention.key(sampled)[0], attention.value(sampled)[0]
        found = torch.zeros(d, n)
        for h in range(heads):
            rows, near = slice(2 * h, 2 * h + 2), attention.near[h].numpy()
            distance = token[:, None] - places[h // (heads // groups)]
            bias = torch.from_numpy(np.interp(distance, np.arange(-(built_for - 1), built_for), near)).float()
            found[rows] = value[rows] @ (query[rows].T @ key[rows] / math.sqrt(2) + bias).softmax(-1).T
        torch.testing.assert_close(attention(x), attention.out(found[None]), rtol=1e-4, atol=1e-5)


def test_places_that_nothing_moves_lie_in_the_middle_of_equal_parts():
    attention = DeformableAttention(4, 2, 1, 12, 5, 4, 0.0)
    nn.init.zeros_(attention.shift.weight)
    assert attention.places(torch.randn(1, 4, 12))[0, 0].tolist() == [1.5, 5.5, 9.5]
    assert attention.places(torch.randn(1, 4, 1))[0, 0].tolist() == [0]  # a single token has one place


def test_places_move_with_the_window_and_learn():
    torch.manual_seed(0)
    attention = DeformableAttention(4, 2, 1, 12, 5, 4, 0.0)
    x = torch.randn(2, 4, 12)
    places = attention.places(attention.query(x))
    assert not torch.equal(places[0], places[1])
    attention(x).square().sum().backward()
    assert attention.shift.weight.grad.abs().sum() > 0


def test_a_dropped_path_leaves_a_row_out_or_counts_it_more():
    torch.manual_seed(0)
    path, x = DropPath(0.75), torch.ones(4000, 1, 1)
    y = path(x)
    assert set(y.flatten().tolist()) == {0.0, 4.0}
    assert abs(float(y.mean()) - 1) < 0.1
    assert torch.equal(path.eval()(x), x)


# ---- gaps, shorter and longer windows


FORMS = {
    "formertime": lambda: FormerTime(
        FormerTimeConfig(
            slices=(5, 2), strides=(3, 2), n_layers=(1, 2), reductions=(3, 2), width=8, n_heads=2, residual=0.5,
            normalize=False,
        ),
        n_channels=C, context_length=64,
    ),
    "formertime, normalized": lambda: FormerTime(
        FormerTimeConfig(n_layers=(1, 1, 1), width=8, n_heads=2, residual=None, normalize=True),
        n_channels=C, context_length=64,
    ),
    "timemae": lambda: TimeMAE(
        TimeMAEConfig(slice_length=4, width=8, n_heads=2, n_layers=2, residual=0.5), n_channels=C, context_length=64
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=15)
@given(st.integers(1, 50), st.integers(1, 40), st.floats(0.3, 1), st.integers(0, 999))
def test_what_lies_behind_the_last_observed_step_changes_no_token(form, length, n_padding, share, seed):
    """Whatever the amount of padding, whatever it holds, with holes before it."""
    torch.manual_seed(seed)
    model = moved(FORMS[form](), seed)
    x = torch.randn(2, C, length)
    seen = torch.rand(2, C, length) < share
    seen[..., -1] = True
    rest = torch.full((2, C, n_padding), 1e6)
    alone = model.encode(x, seen)
    padded = model.encode(torch.cat([x, rest], -1), torch.cat([seen, torch.zeros_like(rest, dtype=torch.bool)], -1))
    n = alone.tokens.shape[2]
    torch.testing.assert_close(padded.tokens[:, :, :n], alone.tokens, rtol=1e-4, atol=1e-4)
    assert torch.equal(padded.valid[:, :, :n], alone.valid)
    assert not padded.valid[:, :, n:].any() and not padded.tokens[:, :, n:].any()


@pytest.mark.parametrize("length", [1, 7, 40, 64, 100])
@pytest.mark.parametrize("name", ["deformabletst", "formertime", "timemae"])
def test_windows_of_any_length_are_classified(name, length):
    model = Classify(4).build(name, {}, n_channels=C, context_length=40).eval()
    assert model(torch.randn(2, C, length)).isfinite().all()


def test_a_slice_behind_the_last_position_takes_it():
    model = TimeMAE(TimeMAEConfig(slice_length=4), n_channels=C, context_length=12)
    assert torch.equal(model.positions(5)[2:], model.position[2].expand(3, -1))


def test_the_pyramid_reads_channels_apart():
    torch.manual_seed(0)
    model = moved(DeformableTST(DeformableTSTConfig(), n_channels=C, context_length=96))
    x = torch.randn(2, C, 96)
    torch.testing.assert_close(model.encode(x[:, 1:2]).tokens, model.encode(x).tokens[:, 1:2])


# ---- other tasks


@pytest.mark.parametrize("name", ["lwconvtimenet", "moderntcn", "deformabletst", "formertime", "timemae"])
@pytest.mark.parametrize("length", [40, 37])
def test_hidden_points_are_told_by_straight_lines_before_training_and_by_every_token_after(name, length):
    torch.manual_seed(0)
    model = Reconstruct().build(name, {}, n_channels=C, context_length=length).eval()
    x = torch.linspace(0, 1, length).expand(2, C, length) * torch.tensor([1.0, -2.0, 5.0])[:, None]
    seen = torch.ones_like(x, dtype=torch.bool)
    seen[..., 10:13] = False
    torch.testing.assert_close(model(x.masked_fill(~seen, 0.0), seen), x, rtol=1e-4, atol=1e-4)
    assert (moved(model)(x, seen) != x).all()


# ---- settings


@pytest.mark.parametrize(
    ("config", "changes", "words"),
    [
        (DeformableTSTConfig, {"widths": (16, 32)}, "one number per stage, but their lengths differ"),
        (DeformableTSTConfig, {"n_groups": (3, 4, 8, 16)}, "A width of 16 cannot be shared out among 4 heads in 3"),
        (DeformableTSTConfig, {"stem_ratio": 3}, "stem_ratio is 1 or even.* but got 3"),
        (DeformableTSTConfig, {"offset_kernels": (9, 7, 5, 2)}, "offset_kernels are odd"),
        (DeformableTSTConfig, {"drop_path": 1.0}, "drop_path is a share from 0 to below 1"),
        (FormerTimeConfig, {"slices": (16, 2)}, "one number per stage, but their lengths differ"),
        (FormerTimeConfig, {"strides": (8, 2, 2)}, "strides are named, but not slices"),
        (FormerTimeConfig, {"slices": (4, 2, 2), "strides": (8, 2, 2)}, "leave out what lies between slices"),
        (FormerTimeConfig, {"n_heads": 5}, "64 is no multiple"),
        (FormerTimeConfig, {"reductions": (0, 1, 1)}, "at least 1"),
        (TimeMAEConfig, {"slice_length": 0}, "slice_length is at least 1, but got 0"),
        (TimeMAEConfig, {"width": 30}, "30 is no multiple"),
        (TimeMAEConfig, {"dropout": -0.1}, "dropout is a share"),
    ],
)
def test_settings_that_cannot_work_say_so(config, changes, words):
    with pytest.raises(SettingsError, match=words):
        config(**changes)


# ---- through the estimators


@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "model_settings", "max_epochs"),
    [
        ("formertime", {"width": 8, "n_layers": (1, 1, 1)}, 8),
        ("timemae", {"width": 8, "n_layers": 1}, 12),
        ("moderntcn", {"widths": (8,), "kernel_sizes": (9,)}, 8),
    ],
)
def test_a_classifier_learns_with_it_and_is_loaded_as_it_was_saved(model, model_settings, max_epochs, tmp_path):
    """Alone: the closed-form classifier that stands beside it by default tells these motions apart without it."""
    motions = labeled_motions(45, n_channels=2, n_timepoints=40)
    classifier = prismts.Classifier(
        model, setting="network", model_settings=model_settings, validation=None, progress=False,
        fit_settings={"max_epochs": max_epochs, "batch_size": 16, "learning_rate": 1e-2},
    ).fit(motions.train)  # fmt: skip
    classifier.save(tmp_path / "saved")
    answer = classifier.predict_proba(motions.test)
    np.testing.assert_array_equal(prismts.load(tmp_path / "saved").predict_proba(motions.test), answer)
    assert (classifier.predict(motions.test) == np.asarray(motions.test.labels)).mean() > 0.7  # of three classes


@pytest.mark.long
def test_a_forecaster_learns_with_deformable_attention():
    """Without a line, which would continue a sine by itself."""
    series = np.sin(np.arange(400) / 4)[None] + np.zeros((2, 1))
    forecaster = prismts.Forecaster(
        "deformabletst", setting="network", context_length=32, horizon=8, progress=False,
        fit_settings={"max_epochs": 6, "learning_rate": 1e-2},
    ).fit(series)  # fmt: skip
    np.testing.assert_allclose(forecaster.predict()[0], np.sin(np.arange(400, 408) / 4), atol=0.3)
