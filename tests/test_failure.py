"""Networks that failed quietly are told from those that are well, on weights that are made to fail."""

import copy

import pytest
import torch
from torch import nn

from prismts.models.convtimenet import ConvTimeNet, ConvTimeNetConfig
from prismts.models.failure import ALMOST_ZERO, HUGE, signs_of_failure


def learned(**changes):
    """A small network whose residual weights have been learned."""
    torch.manual_seed(0)
    settings = {"patch_length": 8, "stride": 4, "width": 8, "feed_forward": 8, "kernel_sizes": (3, 5), **changes}
    return with_alpha(ConvTimeNet(ConvTimeNetConfig(**settings), n_channels=2, context_length=32), 0.1)


@pytest.fixture
def network():
    return learned()


def with_alpha(network, value):
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("alpha"):
                parameter.fill_(value)
    return network


def norm_of(network):
    return next(module for module in network.modules() if isinstance(module, nn.BatchNorm1d))


def test_a_network_that_is_well_shows_no_sign(network):
    assert signs_of_failure(network) == {}
    assert signs_of_failure(network, nn.Linear(2, 2)) == {}


def test_offsets_that_are_no_numbers_are_told_though_the_answer_is_one(network):
    """They count as zero, so that nothing else would tell."""
    network.eval()
    with torch.no_grad():
        network.patch.move.weight[0, 0] = float("nan")
        features = network(torch.randn(3, 2, 32))
        assert torch.isfinite(features.tokens).all()
    assert list(signs_of_failure(network)) == ["patch offsets are no numbers"]


def test_uniform_patches_have_no_offsets_that_could_fail():
    assert signs_of_failure(learned(patches="uniform")) == {}


@pytest.mark.parametrize("value", [2 * HUGE, float("inf"), float("nan")])
def test_statistics_that_exploded_or_are_no_numbers_are_told(network, value):
    norm_of(network).running_var[3] = value
    assert list(signs_of_failure(network)) == ["batch statistics exploded"]


def test_large_statistics_within_the_bound_are_not(network):
    norm_of(network).running_var[3] = HUGE / 2
    assert signs_of_failure(network) == {}


def test_blocks_that_add_nothing_are_told_and_one_that_adds_is_enough(network):
    with_alpha(network, -ALMOST_ZERO / 2)
    assert list(signs_of_failure(network)) == ["residual weights stayed at zero"]
    for value in (-0.1, float("nan")):
        with torch.no_grad():
            network.blocks[1].join_conv.alpha.fill_(value)
        assert signs_of_failure(network) == {}


def test_weights_fixed_at_one_are_no_sign():
    assert signs_of_failure(learned(residual=None)) == {}


def test_of_several_networks_the_first_that_shows_a_sign_tells_it(network):
    other = with_alpha(copy.deepcopy(network), 2e-5)
    told = signs_of_failure(network, other, with_alpha(copy.deepcopy(network), 0.0))
    assert "is 2e-05" in told["residual weights stayed at zero"]
