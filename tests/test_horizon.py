"""A head that forecasts any horizon from a context of any length."""

import math

import pytest
import torch

from prismts.errors import SettingsError
from prismts.layers.features import Features
from prismts.layers.horizon import HorizonHead, moments, with_horizon
from prismts.layers.normalize import Stats
from prismts.models.universal import UniversalEncoder, UniversalEncoderConfig

QUANTILES = (0.1, 0.5, 0.9)


def head(horizon: int = 10, *, learned: bool = True, **how) -> HorizonHead:
    torch.manual_seed(0)
    one = HorizonHead(8, 4, 2, horizon, **how)
    if learned:
        with torch.no_grad():
            one.linear.weight.normal_()
            one.linear.bias.normal_()
    return one.eval()


def features(n_timepoints: int = 20, n_groups: int = 3, n_channels: int = 3, *, seed: int = 0) -> Features:
    generator = torch.Generator().manual_seed(seed)
    n = (n_timepoints - 4) // 2 + 1
    tokens = torch.randn(2, n_groups, n, 8, generator=generator)
    window = torch.randn(2, n_channels, n_timepoints, generator=generator)
    stats = Stats(torch.full((2, n_channels, 1), 5.0), torch.full((2, n_channels, 1), 2.0))
    return Features(tokens, torch.ones(2, n_groups, n, dtype=torch.bool), window, stats)


def test_the_clock_stands_at_zero_at_the_last_step_and_turns_once_in_each_period():
    hands = moments(torch.tensor([0.0, 1.0, 4.0, 4096.0]), 11)  # periods 4, 8, 16 ... 4096
    assert hands.shape == (4, 22)
    assert hands[0].tolist() == [0.0] * 11 + [1.0] * 11
    torch.testing.assert_close(hands[1, [0, 11]], torch.tensor([1.0, 0.0]), atol=1e-6, rtol=0)  # a quarter of 4 steps
    torch.testing.assert_close(hands[2, [1, 12]], torch.tensor([0.0, -1.0]), atol=1e-6, rtol=0)  # half of 8
    torch.testing.assert_close(hands[3, [10, 21]], torch.tensor([0.0, 1.0]), atol=1e-5, rtol=0)
    assert math.isclose(float(hands[2, 10]), math.sin(2 * math.pi * 4 / 4096), rel_tol=1e-4)


def test_before_training_the_forecast_is_the_mean_of_the_window():
    assert torch.equal(head(learned=False)(features()), torch.full((2, 3, 10), 5.0))


@pytest.mark.parametrize("horizon", [1, 3, 4, 10, 97])
def test_the_first_steps_of_a_long_forecast_are_the_short_forecast(horizon):
    one, seen = head(), features()
    whole = one(seen, 97)
    assert whole.shape == (2, 3, 97)
    torch.testing.assert_close(one(seen, horizon), whole[..., :horizon])


def test_a_copy_with_another_horizon_says_what_the_head_says_when_asked_for_it():
    one, seen = head(), features()
    longer = with_horizon(torch.nn.ModuleList([one]), 31)[0]
    assert torch.equal(longer(seen), one(seen, 31))
    assert one(seen).shape[-1] == 10


@pytest.mark.parametrize("n_timepoints", [4, 20, 200])
def test_contexts_of_any_length_are_read(n_timepoints):
    assert head()(features(n_timepoints)).isfinite().all()


def test_a_token_knows_how_long_ago_it_was_and_not_when_the_window_began():
    """Tokens before the others that nobody may read change nothing."""
    seen = features(20)
    nothing = torch.zeros(2, 3, 5, 8)
    longer = Features(
        torch.cat([nothing, seen.tokens], 2),
        torch.cat([torch.zeros(2, 3, 5, dtype=torch.bool), seen.valid], 2),
        torch.cat([torch.zeros(2, 3, 10), seen.window], -1),
        seen.stats,
    )
    torch.testing.assert_close(head()(longer), head()(seen))


def test_tokens_that_saw_nothing_are_not_read_unless_none_did():
    seen = features()
    seen.valid[:, :, 2] = False
    changed = seen._replace(tokens=seen.tokens.clone())
    changed.tokens[:, :, 2] = 99.0
    torch.testing.assert_close(head()(changed), head()(seen))
    assert head()(seen._replace(valid=torch.zeros_like(seen.valid))).isfinite().all()


def test_quantiles_and_channels_that_share_their_tokens_have_axes_of_their_own():
    y = head(n_quantiles=3)(features())
    assert y.shape == (2, 3, 3, 10)
    mixed = head(n_series=5)(features(n_groups=1, n_channels=5))
    assert mixed.shape == (2, 5, 10)
    assert head(n_series=5, n_quantiles=3)(features(n_groups=1, n_channels=5)).shape == (2, 3, 5, 10)


def test_every_parameter_receives_a_gradient():
    one = head().train()
    one(features()).square().mean().backward()
    assert not [name for name, p in one.named_parameters() if p.grad is None or not p.grad.any()]


def test_an_encoder_with_this_head_forecasts_from_contexts_it_was_not_built_for():
    config = UniversalEncoderConfig(patch_lengths=(4, 8), stride=2, width=8, n_heads=2, kernel_sizes=(3,), n_bands=4)
    model = UniversalEncoder(config, context_length=20).eval()
    model.head = head()
    for n_timepoints in (5, 20, 77):
        assert model(torch.randn(2, 3, n_timepoints)).shape == (2, 3, 10)


def test_a_horizon_of_no_steps_is_refused():
    with pytest.raises(SettingsError, match="at least 1, but got 0"):
        HorizonHead(8, 4, 2, 0)
