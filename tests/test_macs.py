"""Multiply-accumulates: of small modules by hand, of the slides' arrangements to the last digit, of every model."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from prismts.analysis.macs import count, cross_learner_arrangements
from prismts.errors import SettingsError
from prismts.models import MODELS
from prismts.models.convtimenet import ConvTimeNetConfig
from prismts.models.cross_learner import CrossLearner, CrossLearnerConfig
from prismts.tasks.forecast import Forecast


class Function(nn.Module):
    """A function of tensors as a module."""

    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, *inputs):
        return self.f(*inputs)


def test_a_linear_map_costs_rows_times_in_times_out():
    assert count(nn.Linear(3, 4), torch.ones(2, 5, 3)).total == 2 * 5 * 3 * 4
    assert count(nn.Linear(3, 4), torch.ones(3)).total == 3 * 4


def test_a_convolution_costs_taps_times_channels_for_every_output_padding_included():
    x = torch.ones(2, 4, 7)
    assert count(nn.Conv1d(4, 6, 3, padding="same"), x).total == 2 * 7 * 6 * 4 * 3
    assert count(nn.Conv1d(4, 6, 3), x).total == 2 * 5 * 6 * 4 * 3
    assert count(nn.Conv1d(4, 6, 7, stride=7), x).total == 2 * 1 * 6 * 4 * 7


def test_groups_see_their_own_channels_only():
    x = torch.ones(2, 4, 7)
    assert count(nn.Conv1d(4, 4, 3, padding="same", groups=4), x).total == 2 * 7 * 4 * 3
    assert count(nn.Conv1d(4, 8, 3, padding="same", groups=2), x).total == 2 * 7 * 8 * 2 * 3


def test_a_gru_costs_three_gates_of_input_and_state_at_every_step():
    per_step = 3 * 5 * 4 + 3 * 5 * 5  # 135
    assert count(nn.GRU(4, 5, batch_first=True), torch.ones(2, 7, 4)).total == 2 * 7 * per_step
    two = count(nn.GRU(4, 5, num_layers=2, bidirectional=True), torch.ones(7, 2, 4)).total
    assert two == 2 * 7 * (2 * per_step + 2 * (3 * 5 * 10 + 3 * 5 * 5))


def test_attention_costs_four_maps_and_two_products_of_tokens_with_tokens():
    x = torch.ones(2, 5, 8)
    model = nn.MultiheadAttention(8, 2, batch_first=True)
    assert count(model, x, x, x).total == 2 * (4 * 5 * 8 * 8 + 2 * 5 * 5 * 8)  # 3360


@pytest.mark.parametrize("masked", [False, True])
def test_fused_attention_is_seen(masked):
    mask = torch.ones(2, 1, 1, 7, dtype=torch.bool) if masked else None
    f = Function(lambda q: F.scaled_dot_product_attention(q, q, q, attn_mask=mask if mask is None else mask.to(q)))
    assert count(f, torch.ones(2, 3, 7, 4)).total == 2 * (2 * 3 * 7 * 7 * 4)


def test_products_with_a_single_vector_are_seen():
    a, v, one = torch.ones(3, 4), torch.ones(4), torch.ones(3)
    assert count(Function(lambda a, v: a @ v), a, v).total == 12
    assert count(Function(lambda a, v: v @ v), a, v).total == 4
    assert count(Function(torch.addmv), one, a, v).total == 12
    assert count(Function(lambda a, v: torch.einsum("mn,n->m", a, v)), a, v).total == 12


def test_sums_and_activations_cost_nothing():
    model = nn.Sequential(nn.LayerNorm(4), nn.GELU(), Function(lambda x: (3 * x).sum()))
    macs = count(model, torch.ones(2, 4))
    assert (macs.total, dict(macs.modules)) == (0, {})


def test_a_module_includes_what_lies_inside_it_and_a_sum_counts_nothing_twice():
    model = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)))
    macs = count(model, torch.ones(1, 2))
    assert dict(macs.modules) == {"0": 6, "1": 16, "1.0": 12, "1.2": 4}
    assert macs.total == 22
    assert macs.of("1") == macs.of("1*") == macs.of("1.*") == 16
    assert macs.of("0", "1.2") == 10
    with pytest.raises(SettingsError, match=r"No module that multiplies matches '1\.1'\. There are: 0, 1, 1\.0, 1\.2"):
        macs.of("0", "1.1")


def test_a_module_that_is_used_twice_costs_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x):
            return self.linear(self.linear(x))

    macs = count(Twice(), torch.ones(1, 3))
    assert (macs.total, macs.of("linear")) == (18, 18)


# ---- whole models


def test_the_slides_arrangements_cost_what_the_slides_say():
    state = torch.get_rng_state()
    rows = {row.name: row for row in cross_learner_arrangements(n_channels=7)}
    assert [(row.front, row.exchange, row.total) for row in rows.values()] == [
        (1_290_240, 2_967_552, 4_257_792),
        (1_290_240, 55_050_240, 56_340_480),
        (3_870_720, 1_981_808_640, 1_985_679_360),
    ]
    assert list(rows) == [
        "mixing convolution + dynamic depthwise",
        "mixing convolution + standard Conv1d",
        "per-step channel lift + standard Conv1d",
    ]
    assert torch.equal(torch.get_rng_state(), state)


def test_the_arrangements_are_those_of_a_whole_model():
    config = CrossLearnerConfig(patch_length=8, width=8, n_blocks=2, kernels="standard", front="lift")
    macs = count(CrossLearner(config, n_channels=3, context_length=16), torch.ones(1, 3, 16))
    lift = cross_learner_arrangements(3, config=replace(config, kernels="dynamic", front="mixing"), context_length=16)[
        2
    ]
    assert (lift.front, lift.exchange) == (macs.of("front"), macs.of("blocks.*.to_cnn", "blocks.*.to_gru"))


def test_one_direction_costs_half_the_exchange_and_none_nothing():
    x = torch.ones(1, 3, 48)

    def macs(**changes):
        config = CrossLearnerConfig(patch_length=8, width=8, n_blocks=2, **changes)
        return count(CrossLearner(config, n_channels=3, context_length=48), x)

    both = macs().of("blocks.*.to_cnn", "blocks.*.to_gru")
    assert both == 2 * 2 * (8 * 8 * 3 + 6 * 8 * 3)
    assert macs(exchange="gru_to_cnn").of("blocks.*.to_cnn") == both // 2
    assert macs().total - macs(exchange="none").total == both
    late = macs(fusion="late")
    assert late.of("blocks.1.to_cnn", "blocks.1.to_gru") == both // 2
    # a kernel for each of six tokens: six times the generation, the same convolution
    assert macs(kernel_per="token").of("blocks.*.to_cnn", "blocks.*.to_gru") == 2 * 2 * 6 * (8 * 8 * 3 + 8 * 3)


def test_every_part_of_a_cross_learner_by_hand():
    config = CrossLearnerConfig(patch_length=8, width=8, n_blocks=1, n_heads=2)
    model = CrossLearner(config, n_channels=3, context_length=48)  # six tokens
    macs = count(model, torch.ones(2, 3, 48))
    assert macs.of("front") == 2 * 6 * 8 * 3 * 8
    assert macs.of("blocks.0.cnn") == 2 * 6 * 8 * 8 * 3
    assert macs.of("blocks.0.gru") == 2 * 6 * (3 * 8 * 8 + 3 * 8 * 8)
    assert macs.of("attention") == 2 * (4 * 6 * 8 * 8 + 2 * 6 * 6 * 8)
    assert macs.total == macs.of("front", "blocks.0", "attention")


def test_convtimenet_costs_its_patches_its_banded_products_and_its_head():
    config = {"patches": "uniform", "patch_length": 8, "stride": 4, "width": 6, "feed_forward": 12}
    config["kernel_sizes"] = (5, 7)
    assert ConvTimeNetConfig(**config).n_tokens(40) == 10
    model = Forecast(5, line=None).build("convtimenet", config, n_channels=3, context_length=40)
    macs = count(model, torch.ones(2, 3, 40))
    rows = 2 * 3
    per_block = 6 * 10 * 10 + 2 * 10 * 6 * 12  # banded products, then the pointwise pair
    assert macs.total == rows * (10 * 8 * 6 + 2 * per_block + 6 * 10 * 5)
    assert macs.of("head") == rows * 6 * 10 * 5
    assert macs.of("blocks.0.conv") == rows * 6 * 10 * 10
    assert macs.of("blocks.*.feed_forward") == macs.of("blocks.*") - macs.of("blocks.*.conv")


SMALL_LANGUAGE = {"weights": "random", "width": 8, "n_heads": 2, "feed_forward": 12, "n_layers": 1, "n_words": 11}
NEEDED = {"seasonal_naive": {"season": 5}} | dict.fromkeys(("gpt4ts", "allm4ts", "timellm"), SMALL_LANGUAGE)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_can_be_counted_and_is_left_as_it_was(name):
    model = Forecast(6).build(name, NEEDED.get(name, {}), n_channels=3, context_length=96)
    before = copy.deepcopy(model.state_dict())
    x = torch.randn(2, 3, 96)
    one, two = count(model, x[:1]).total, count(model, x).total
    if name == "timellm":  # the words are drawn together once, whatever the batch
        assert one < two < 2 * one
    else:
        assert two == 2 * one
    assert (two > 0) == MODELS[name].is_trained or name in ("ridge", "chosen_lines", "seasonal_lines", "coupled_lines")
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert count(model, x, torch.ones_like(x, dtype=torch.bool)).total >= two
