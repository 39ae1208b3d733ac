"""Heads: tokens to forecasts and classes, by hand; the line beside the tokens is the line that was solved."""

import numpy as np
import pytest
import torch

from prismts.errors import SettingsError
from prismts.layers.features import Features
from prismts.layers.heads import FlattenHead, PoolHead
from prismts.layers.linear import RidgeMap
from prismts.layers.normalize import InstanceNorm, Stats


def features(x: torch.Tensor, n_groups: int, n_tokens: int = 4, width: int = 5, *, normalized: bool = True) -> Features:
    """Random tokens for the windows x [B, C, T], as an encoder would give them."""
    one = torch.ones_like(x[..., :1])
    window, stats = InstanceNorm()(x) if normalized else (x, Stats(0 * one, one))
    tokens = torch.randn(len(x), n_groups, n_tokens, width, generator=torch.Generator().manual_seed(0))
    return Features(tokens, torch.ones(tokens.shape[:3], dtype=torch.bool), window, stats)


def a_line(head: FlattenHead) -> FlattenHead:
    """Give the head's line some weights, as if it had been solved."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        head.line.weight.copy_(torch.randn(head.line.weight.shape, generator=generator) * 0.1)
        head.line.bias.copy_(torch.randn(head.line.bias.shape, generator=generator))
    return head


def test_the_tokens_of_each_channel_are_mapped_by_hand():
    x = 10 + 3 * torch.randn(2, 3, 20)
    seen, head = features(x, 3), FlattenHead(5, 4, 6)
    y = head(seen)
    assert y.shape == (2, 3, 6)
    flat = seen.tokens[1, 2].T.flatten()  # width first, then tokens
    expected = (head.linear.weight @ flat + head.linear.bias) * seen.stats.scale[1, 2] + seen.stats.mean[1, 2]
    torch.testing.assert_close(y[1, 2], expected)


def test_one_group_answers_for_all_channels():
    seen, head = features(torch.randn(2, 3, 20), 1, normalized=False), FlattenHead(5, 4, 6, n_series=3)
    y = head(seen)
    assert y.shape == (2, 3, 6)
    torch.testing.assert_close(y[0].flatten(), head.linear(seen.tokens[0, 0].T.flatten()))


@pytest.mark.parametrize(("n_groups", "n_series"), [(3, 1), (1, 3)])
def test_quantiles_stand_before_the_channels(n_groups, n_series):
    head = FlattenHead(5, 4, 6, n_series=n_series, n_quantiles=2)
    with torch.no_grad():
        head.linear.weight.zero_()
    head.spread(torch.stack([torch.full((6,), -1.0), torch.arange(6.0)]))
    y = head(features(torch.randn(2, 3, 20), n_groups, normalized=False))
    assert y.shape == (2, 2, 3, 6)
    assert (y[:, 0] == -1).all()
    assert (y[:, 1] == torch.arange(6.0)).all()


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize(("n_groups", "n_series"), [(3, 1), (1, 3)])
def test_before_training_the_answer_is_the_line_in_the_units_of_the_series(normalized, n_groups, n_series):
    x = torch.tensor([5.0, -40.0, 300.0])[:, None] + torch.tensor([1.0, 10.0, 0.1])[:, None] * torch.randn(2, 3, 20)
    head = a_line(FlattenHead(5, 4, 6, n_series=n_series, line=RidgeMap(20, 6)))
    level = x.mean(-1, keepdim=True)
    expected = (x - level) @ head.line.weight.T + head.line.bias + level
    torch.testing.assert_close(head(features(x, n_groups, normalized=normalized)), expected, rtol=1e-4, atol=1e-3)


def test_without_a_line_the_head_starts_at_random_and_says_so():
    plain, lined = FlattenHead(5, 4, 6), FlattenHead(5, 4, 6, line=RidgeMap(20, 6))
    assert not plain.starts_at_a_line and plain.linear.weight.abs().sum() > 0
    assert lined.starts_at_a_line and lined.linear.weight.abs().sum() == 0


# ---- classes


def pooled(pooling: str, valid: torch.Tensor) -> tuple[np.ndarray, torch.Tensor]:
    """What the head pooled, read off with the identity for a linear map, and the tokens."""
    head = PoolHead(5, 5, pooling=pooling)
    with torch.no_grad():
        head.linear.weight.copy_(torch.eye(5))
        head.linear.bias.zero_()
    seen = features(torch.randn(2, 3, 20), 3)._replace(valid=valid)
    return head(seen).detach().numpy(), seen.tokens


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_pooling_reads_only_the_tokens_that_saw_something(pooling):
    valid = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(2)) < 0.5
    answer, tokens = pooled(pooling, valid)
    for b in range(2):
        seen = tokens[b][valid[b]].numpy()  # [n, D]
        np.testing.assert_allclose(answer[b], getattr(seen, pooling)(0), atol=1e-6)


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_where_no_token_saw_anything_zero_is_pooled(pooling):
    answer, _ = pooled(pooling, torch.zeros(2, 3, 4, dtype=torch.bool))
    assert (answer == 0).all()


def test_an_unknown_pooling_offers_its_neighbor():
    with pytest.raises(SettingsError, match=r"no pooling named 'maxx'\. Did you mean 'max'\?"):
        PoolHead(5, 2, pooling="maxx")
