"""Channels tell each other what they show, whatever their number and order, and never themselves."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prismts.errors import SettingsError
from prismts.layers.exchange import ChannelExchange


def learned(width: int = 8) -> ChannelExchange:
    torch.manual_seed(0)
    layer = ChannelExchange(width, 2)
    torch.nn.init.normal_(layer.out.weight)
    return layer.eval()


def test_a_new_layer_says_nothing():
    x = torch.randn(2, 3, 4, 8)
    assert torch.equal(ChannelExchange(8, 2)(x), x)


def test_a_single_channel_leaves_exactly_as_it_came():
    x = torch.randn(2, 1, 4, 8)
    assert torch.equal(learned()(x), x)


def test_a_channel_among_unobserved_ones_leaves_exactly_as_it_came():
    x, valid = torch.randn(2, 3, 4, 8), torch.zeros(2, 3, 4, dtype=torch.bool)
    valid[:, 1] = True
    y = learned()(x, valid)
    assert torch.equal(y[:, 1], x[:, 1])
    assert not torch.equal(y[:, 0], x[:, 0])


def test_what_an_unobserved_token_holds_is_told_to_nobody():
    x, valid = torch.randn(1, 3, 4, 8), torch.ones(1, 3, 4, dtype=torch.bool)
    valid[0, 2, 1] = False
    changed = x.clone()
    changed[0, 2, 1] = 1e6
    torch.testing.assert_close(learned()(changed, valid)[:, :2], learned()(x, valid)[:, :2])


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 6), st.randoms(use_true_random=False))
def test_exchanged_channels_give_exchanged_tokens(n_channels, random):
    order = random.sample(range(n_channels), n_channels)
    x = torch.randn(2, n_channels, 3, 8)
    torch.testing.assert_close(learned()(x[:, order]), learned()(x)[:, order], rtol=1e-4, atol=1e-5)


def test_a_channel_of_two_hears_the_other_one_in_full():
    layer, x = learned(), torch.randn(1, 2, 1, 8)
    value = layer.ask(layer.norm(x))[..., 16:]  # queries, keys, values
    torch.testing.assert_close(layer(x)[:, 0], x[:, 0] + layer.out(value[:, 1]))


def test_tokens_of_other_places_are_not_read():
    x = torch.randn(1, 3, 4, 8)
    changed = x.clone()
    changed[:, 2, 3] = -changed[:, 2, 3]
    y, z = learned()(x), learned()(changed)
    assert torch.equal(y[:, :, :3], z[:, :, :3])
    assert not torch.allclose(y[:, 0, 3], z[:, 0, 3])


def test_heads_share_the_width_out_evenly():
    with pytest.raises(SettingsError, match="n_heads=3 heads share the width out evenly, but 8 is no multiple"):
        ChannelExchange(8, 3)
