"""One encoder under several heads: light heads by hand, and heads that leave each other alone."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prismts.errors import SettingsError, ShapeError
from prismts.layers.decode import DecodeHead
from prismts.layers.features import Features
from prismts.layers.heads import FlattenHead
from prismts.layers.normalize import InstanceNorm
from prismts.layers.token_heads import CaseHead, RecentHead
from prismts.models.convtimenet import ConvTimeNet, ConvTimeNetConfig
from prismts.models.multitask import CaseReader, MultiTask, WithHead, n_tokens_of, stretched
from prismts.models.patchtst import PatchTST, PatchTSTConfig
from prismts.models.universal import UniversalEncoder, UniversalEncoderConfig
from prismts.tasks.classify import scores_of

TINY = ConvTimeNetConfig(width=8, feed_forward=8, kernel_sizes=(3,), patch_length=8, stride=4)


def features(n_channels: int = 2, n_tokens: int = 4, width: int = 3, seed: int = 0) -> Features:
    generator = torch.Generator().manual_seed(seed)
    x = 5 + 2 * torch.randn(2, n_channels, 16, generator=generator)
    window, stats = InstanceNorm()(x)
    tokens = torch.randn(2, n_channels, n_tokens, width, generator=generator)
    return Features(tokens, torch.ones(tokens.shape[:3], dtype=torch.bool), window, stats)


@pytest.fixture
def many() -> MultiTask:
    torch.manual_seed(0)
    encoder = ConvTimeNet(TINY, n_channels=1, context_length=32)
    heads = {
        "forecast": FlattenHead(8, encoder.n_tokens, 5),
        "classify": CaseHead(8, 3, n_channels=2),
        "impute": DecodeHead(8, 8, 4),
    }
    return MultiTask(encoder, heads)


# ---- the last tokens weighed by age


def test_the_last_tokens_count_by_their_age_as_computed_by_hand():
    seen, head = features(), RecentHead(3, 6, n_ages=2)
    with torch.no_grad():
        head.age.copy_(torch.tensor([2.0, 0.0]).log().nan_to_num(neginf=-50.0))  # the last one only
    flat = seen.tokens[1, 0, -1]
    expected = (head.linear.weight @ flat + head.linear.bias) * seen.stats.scale[1, 0] + seen.stats.mean[1, 0]
    torch.testing.assert_close(head(seen)[1, 0], expected)


def test_before_training_a_token_counts_e_times_as_much_as_the_one_before_and_all_together_one():
    weights = RecentHead(3, 6).weights(5).detach()
    torch.testing.assert_close(weights[1:] / weights[:-1], torch.full((4,), np.e, dtype=torch.float32))
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 40), st.integers(1, 6))
def test_any_number_of_tokens_gives_a_forecast_of_the_horizon(n_tokens, n_channels):
    head = RecentHead(3, 6, n_quantiles=2)
    assert head(features(n_channels, n_tokens)).shape == (2, 2, n_channels, 6)


def test_a_head_of_recent_tokens_has_a_fraction_of_the_weights_of_a_flatten_head():
    def count(head: torch.nn.Module) -> int:
        return sum(p.numel() for p in head.parameters())

    assert count(RecentHead(64, 96)) == 64 * 96 + 96 + 8
    assert count(FlattenHead(64, 42, 96)) == 42 * 64 * 96 + 96


def test_no_ages_are_refused():
    with pytest.raises(SettingsError, match="n_ages counts the tokens with a weight of their own, at least 1"):
        RecentHead(3, 6, n_ages=0)


# ---- classes from whole cases


def test_level_and_scale_stand_beside_the_pooled_tokens_of_each_channel():
    seen, head = features(), CaseHead(3, 4, n_channels=2, pooling="mean")
    found = head.embedding(seen)
    assert found.shape == (2, 2 * 5)
    by_hand = torch.cat([seen.tokens[1, 1].mean(0), seen.stats.mean[1, 1], seen.stats.scale[1, 1].log()])
    torch.testing.assert_close(found[1, 5:], by_hand)


def test_attention_begins_as_the_mean_and_can_choose_one_token():
    seen = features()
    head, mean = CaseHead(3, 4, n_channels=2, pooling="attention"), CaseHead(3, 4, n_channels=2, pooling="mean")
    torch.testing.assert_close(head.embedding(seen), mean.embedding(seen))
    with torch.no_grad():
        head.query.copy_(1000 * seen.tokens[0, 0, 2])
    best = (seen.tokens[0, 0] @ seen.tokens[0, 0, 2]).argmax()
    torch.testing.assert_close(head.embedding(seen)[0, :3], seen.tokens[0, 0, best])


@pytest.mark.parametrize("pooling", ["max", "mean", "both", "attention"])
def test_tokens_that_saw_nothing_do_not_count(pooling):
    seen, head = features(), CaseHead(3, 4, n_channels=2, pooling=pooling)
    if head.query is not None:
        torch.nn.init.normal_(head.query)
    valid = seen.valid.clone()
    valid[..., 2:] = False
    other = seen.tokens.clone()
    other[..., 2:, :] = 1e3
    torch.testing.assert_close(head(seen._replace(valid=valid)), head(seen._replace(valid=valid, tokens=other)))
    assert not torch.allclose(head(seen), head(seen._replace(tokens=other)))


def test_pooled_channels_may_come_in_any_number_and_order():
    head, seen = CaseHead(3, 4, n_channels=None), features(5)
    order = torch.tensor([3, 1, 0, 4, 2])
    turned = Features(
        seen.tokens[:, order], seen.valid[:, order], seen.window[:, order],
        type(seen.stats)(seen.stats.mean[:, order], seen.stats.scale[:, order]),
    )  # fmt: skip
    torch.testing.assert_close(head(turned), head(seen))
    assert head(features(2)).shape == (2, 4)


def test_channels_side_by_side_are_bound_to_their_number():
    with pytest.raises(ShapeError, match="tells classes by 2 channels, but got cases of 3"):
        CaseHead(3, 4, n_channels=2)(features(3))


def test_an_unknown_pooling_is_refused_with_the_nearest_one():
    with pytest.raises(SettingsError, match="Did you mean 'attention'"):
        CaseHead(3, 4, n_channels=2, pooling="atention")


# ---- heads beside each other


def test_each_head_says_what_it_says_alone_on_the_encoder(many):
    many.eval()
    x = torch.randn(3, 2, 32)
    for name in many.names:
        alone = copy.deepcopy(many.encoder)
        alone.head = copy.deepcopy(many[name])
        torch.testing.assert_close(many(x, head=name), alone(x))
        torch.testing.assert_close(WithHead(many.encoder, many[name])(x), alone(x))


def test_adding_a_head_leaves_every_weight_that_was_there_bit_for_bit(many):
    before = {name: value.clone() for name, value in many.state_dict().items()}
    many.add("another", CaseHead(8, 7, n_channels=4))
    after = many.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert set(after) - set(before) == {"_heads.another_head.linear.weight", "_heads.another_head.linear.bias"}


def test_what_is_held_neither_learns_nor_moves_its_statistics(many):
    many.add("another", CaseHead(8, 7, n_channels=2))
    many.hold(encoder=True, heads=["forecast", "classify", "impute"])
    before = {name: value.clone() for name, value in many.state_dict().items()}
    many.train()
    optimizer = torch.optim.AdamW(many.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        WithHead(many.encoder, many["another"])(torch.randn(4, 2, 32)).square().sum().backward()
        optimizer.step()
    changed = {name for name, value in many.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"_heads.another_head.linear.weight", "_heads.another_head.linear.bias"}


def test_what_is_let_go_again_learns_again(many):
    many.train()
    many.hold(encoder=True, heads=many.names)
    assert not many.encoder.training
    many.hold(encoder=False)
    assert many.encoder.training
    many(torch.randn(4, 2, 32), head="forecast").sum().backward()
    assert all(p.grad is not None for p in many.encoder.blocks.parameters())


def test_a_merged_view_answers_alike_and_leaves_the_model_as_it_is(many):
    many.eval()
    view, x = WithHead(many.encoder, many["forecast"]), torch.randn(3, 2, 32)
    before = {name: value.clone() for name, value in many.state_dict().items()}
    torch.testing.assert_close(view.merged()(x), view(x), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(many.state_dict()[name], value) for name, value in before.items())


def test_a_name_may_be_that_of_a_method_but_not_stand_twice_or_hold_a_dot(many):
    many.add("keys", CaseHead(8, 2, n_channels=2))
    assert many.names[-1] == "keys"
    with pytest.raises(SettingsError, match="a head named 'keys' already"):
        many.add("keys", CaseHead(8, 2, n_channels=2))
    with pytest.raises(SettingsError, match=r"letters, digits, spaces.*'a\.b'"):
        many.add("a.b", CaseHead(8, 2, n_channels=2))
    with pytest.raises(SettingsError, match="Did you mean 'classify'"):
        many(torch.randn(1, 2, 32), head="clasify")
    many.remove("keys")
    assert "keys" not in many


@pytest.mark.parametrize("n_timepoints", [20, 32, 70])
def test_the_number_of_tokens_of_another_length_is_that_of_its_encoding(many, n_timepoints):
    expected = many.encoder.encode(torch.zeros(1, 1, n_timepoints)).tokens.shape[2]
    assert n_tokens_of(many.encoder, n_timepoints) == expected
    assert WithHead(many.encoder, many["forecast"], context_length=n_timepoints).n_tokens == expected


def test_heads_stand_on_the_universal_encoder_too():
    torch.manual_seed(0)
    config = UniversalEncoderConfig(width=16, feed_forward=16, kernel_sizes=(3,), patch_lengths=(8, 16), stride=8)
    encoder = UniversalEncoder(config, context_length=48)
    many = MultiTask(encoder, {"recent": RecentHead(16, 5), "impute": DecodeHead(16, 8, 8)}).eval()
    x = torch.randn(2, 3, 48)
    assert many(x, head="recent").shape == (2, 3, 5)
    assert many(x, head="impute").shape == (2, 3, 48)
    assert many(x[..., :30], head="recent").shape == (2, 3, 5)


# ---- short cases, drawn out


def test_a_case_is_drawn_out_along_straight_lines():
    x = torch.tensor([[[0.0, 2.0, 6.0]]])
    y, observed = stretched(x, None, 2.0)
    torch.testing.assert_close(y, torch.tensor([[[0.0, 1.0, 2.0, 4.0, 6.0]]]))
    assert observed is None


def test_a_new_step_is_observed_where_both_its_neighbors_were():
    x = torch.tensor([[[0.0, 2.0, 9.0, 6.0]]])
    y, observed = stretched(x, torch.tensor([[[True, True, False, True]]]), 2.0)
    assert observed.tolist() == [[[True, True, True, False, False, False, True]]]
    torch.testing.assert_close(y[observed], torch.tensor([0.0, 1.0, 2.0, 6.0]))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 30), st.floats(1.0, 20.0))
def test_a_straight_line_stays_straight_however_far_it_is_drawn_out(n, factor):
    x = torch.arange(n, dtype=torch.float64).view(1, 1, n)
    y, _ = stretched(x, None, factor)
    torch.testing.assert_close(y[0, 0], torch.arange(y.shape[-1], dtype=torch.float64) / factor)
    assert n - 1 - 1 / factor - 1e-6 <= float(y[0, 0, -1]) <= n - 1 + 1e-6


ENCODERS = {
    "universal": UniversalEncoder(UniversalEncoderConfig(width=16, kernel_sizes=(3,)), context_length=64),
    "convtimenet": ConvTimeNet(TINY, n_channels=1, context_length=64),
    "patchtst": PatchTST(
        PatchTSTConfig(width=8, feed_forward=8, n_heads=2, n_layers=1), n_channels=1, context_length=64
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_what_is_said_of_a_case_does_not_depend_on_the_padding_behind_it(name, factor):
    torch.manual_seed(0)
    encoder = ENCODERS[name]
    for weight in encoder.parameters():  # near the identity nothing would be seen
        torch.nn.init.normal_(weight, std=0.3)
    head = CaseHead(encoder.width, 2, n_channels=2, pooling="both")
    reader = CaseReader(encoder, head, context_length=20, factor=factor).eval()
    lengths = torch.tensor([20, 13, 20, 30, 9])
    x, ends = torch.randn(5, 2, 30), torch.arange(30) < lengths[:, None]
    gap = torch.ones_like(x, dtype=torch.bool)
    gap[0, 1, 3:6] = False
    together = scores_of(reader, x, ends[:, None] & gap)
    alone = [reader(x[[i], :, :n], gap[[i], :, :n]) for i, n in enumerate(lengths.tolist())]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)
    assert reader.context_length == int(19 * factor) + 1
