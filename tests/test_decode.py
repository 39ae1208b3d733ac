"""The way from tokens back to steps: folding is the inverse of cutting, and before training the answer is a line."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prismts.errors import SettingsError, ShapeError
from prismts.layers.decode import DecodeHead, coverage, fold
from prismts.layers.features import Features
from prismts.layers.missing import bridge
from prismts.layers.normalize import InstanceNorm
from prismts.models.convtimenet import ConvTimeNet, ConvTimeNetConfig


def features(x: torch.Tensor, n_groups: int, n_tokens: int, width: int = 5) -> Features:
    """Random tokens for the windows x [B, C, T], as an encoder would give them."""
    window, stats = InstanceNorm()(x)
    tokens = torch.randn(len(x), n_groups, n_tokens, width, generator=torch.Generator().manual_seed(0))
    return Features(tokens, torch.ones(tokens.shape[:3], dtype=torch.bool), window, stats)


def woken(head: DecodeHead) -> DecodeHead:
    """Give the head's map some weights, as if it had been trained."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return head


def test_overlapping_patches_are_averaged_by_hand():
    patches = torch.tensor([[[[1.0, 2, 3, 4], [10, 20, 30, 40]]]])  # two tokens of four steps, two steps apart
    expected = torch.tensor([[[1.0, 2, (3 + 10) / 2, (4 + 20) / 2, 30]]])
    torch.testing.assert_close(fold(patches, 2, 5), expected)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 6))
def test_folding_the_patches_of_a_window_gives_the_window(length, stride, n):
    stride = min(stride, length)
    whole = (n - 1) * stride + length
    x = torch.arange(2.0 * 3 * whole).reshape(2, 3, whole)
    torch.testing.assert_close(fold(x.unfold(-1, length, stride), stride, whole), x)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 6), st.integers(1, 80))
def test_coverage_counts_the_tokens_over_each_step(length, stride, n, n_timepoints):
    counted = [sum(i * stride <= t < i * stride + length for i in range(n)) for t in range(n_timepoints)]
    assert coverage(n, length, stride, n_timepoints, torch.device("cpu")).tolist() == counted


@pytest.mark.parametrize("channels", ["independent", "mixed"])
@pytest.mark.parametrize("patches", ["uniform", "deformable", "points"])
@pytest.mark.parametrize("n_timepoints", [24, 25, 31, 37])
def test_every_step_of_a_window_of_any_length_is_covered(channels, patches, n_timepoints):
    config = ConvTimeNetConfig(
        patch_length=9, stride=4, patches=patches, width=6, feed_forward=0, kernel_sizes=(3,), channels=channels
    )
    model = ConvTimeNet(config, n_channels=2, context_length=24).eval()
    head = woken(DecodeHead(6, model.patch_length, model.stride, n_series=2 if model.mixed else 1))
    seen = model.encode(torch.randn(3, 2, n_timepoints))
    n_tokens = seen.tokens.shape[2]
    assert coverage(n_tokens, model.patch_length, model.stride, n_timepoints, torch.device("cpu")).min() >= 1
    y = head(seen)
    assert y.shape == (3, 2, n_timepoints)
    assert y.isfinite().all()


def test_before_training_the_reconstruction_is_linear_interpolation():
    x = torch.tensor([[[0.0, 0, 4, 0, 0, 10, 0]]])
    observed = torch.tensor([[[False, False, True, False, False, True, False]]])
    config = ConvTimeNetConfig(patch_length=4, stride=2, width=6, feed_forward=0, kernel_sizes=(3,))
    model = ConvTimeNet(config, n_channels=1, context_length=7).eval()
    model.head = DecodeHead(6, model.patch_length, model.stride)
    torch.testing.assert_close(model(x, observed), torch.tensor([[[4.0, 4, 4, 6, 8, 10, 10]]]))
    random = 5 + 3 * torch.randn(4, 3, 7)
    some = torch.rand(4, 3, 7) < 0.6
    some[..., 3] = True
    torch.testing.assert_close(model(random, some), bridge(random, some))


def test_each_channel_is_written_by_its_own_tokens_in_its_own_units():
    x = 100 + 7 * torch.randn(2, 3, 10)
    seen, head = features(x, 3, 4), woken(DecodeHead(5, 4, 2))
    written = head.linear(seen.tokens[1, 2])  # [N, P]
    total = torch.zeros(10)
    for i in range(4):
        total[2 * i : 2 * i + 4] += written[i]
    counts = torch.tensor([1.0, 1, 2, 2, 2, 2, 2, 2, 1, 1])
    expected = (seen.window[1, 2] + total / counts) * seen.stats.scale[1, 2] + seen.stats.mean[1, 2]
    torch.testing.assert_close(head(seen)[1, 2], expected)


def test_one_group_of_tokens_writes_all_channels():
    seen, head = features(torch.randn(2, 3, 8), 1, 2), woken(DecodeHead(5, 4, 4, n_series=3))
    written = head.linear(seen.tokens[0, 0]).view(2, 3, 4)  # [N, C, P]
    torch.testing.assert_close(head.network(seen)[0], written.transpose(0, 1).reshape(3, 8))


def test_every_weight_of_the_head_receives_a_gradient_from_the_start():
    seen, head = features(torch.randn(2, 3, 10), 3, 4), DecodeHead(5, 4, 2)
    head(seen).square().sum().backward()
    assert all((parameter.grad != 0).any() for parameter in head.parameters())


def test_tokens_with_gaps_between_them_are_refused():
    with pytest.raises(SettingsError, match=r"leave steps that no token covers.*stride to at most 4"):
        DecodeHead(5, 4, 6)


def test_tokens_that_end_before_the_window_are_refused():
    with pytest.raises(ShapeError, match=r"cover 10 steps, but the window has 12"):
        DecodeHead(5, 4, 2)(features(torch.randn(1, 1, 12), 1, 4))
