"""ConvTimeNet: token counts by hand, parts against torch's own layers, masks that hide, settings that teach."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from prismts.errors import SettingsError, ShapeError
from prismts.layers import paths
from prismts.layers.batch_norm import BatchNorm
from prismts.layers.heads import PoolHead
from prismts.models.convtimenet import Block, ConvTimeNet, ConvTimeNetConfig, FeedForward, LayerNorm

SMALL = {"patch_length": 8, "stride": 4, "width": 6, "feed_forward": 12, "kernel_sizes": (5, 7)}


def small(n_channels: int = 3, context_length: int = 40, seed: int = 0, **changes) -> ConvTimeNet:
    torch.manual_seed(seed)
    return ConvTimeNet(ConvTimeNetConfig(**SMALL | changes), n_channels=n_channels, context_length=context_length)


# ---- tokens


@pytest.mark.parametrize(
    ("n_timepoints", "settings", "n_tokens"),
    [
        (336, {}, 21),  # (336 + 16 - 32) / 16 + 1, as in the authors' ETT runs
        (104, {}, 6),  # illness
        (336, {"patches": "points"}, 336),
        (144, {"channels": "mixed"}, 9),  # ArticularyWordRecognition
        (50, {"channels": "mixed", "patch_length": 64, "stride": 32}, 1),  # FingerMovements: one token
        (40, {"patch_length": 8, "stride": 4}, 10),
    ],
)
def test_the_number_of_tokens_by_hand(n_timepoints, settings, n_tokens):
    config = ConvTimeNetConfig(**settings)
    assert config.n_tokens(n_timepoints) == n_tokens
    model = ConvTimeNet(config, n_channels=2, context_length=n_timepoints).eval()
    n_groups = 1 if config.channels == "mixed" else 2
    assert model.encode(torch.randn(1, 2, n_timepoints)).tokens.shape == (1, n_groups, n_tokens, 64)


def test_points_have_no_padding_and_patches_one_stride():
    assert ConvTimeNetConfig(patches="points").n_padding(100) == 0
    assert ConvTimeNetConfig().n_padding(100) == 16
    assert ConvTimeNetConfig(channels="mixed", patch_length=8, stride=4).n_padding(61) == 3  # 14 patches end at 60


def test_one_padding_patch_lies_beyond_the_last_step():
    bounds = small(patches="uniform").bounds(torch.randn(2, 3, 40))
    assert bounds.left[0, 0].tolist() == [0, 4, 8, 12, 16, 20, 24, 28, 32, 36]
    assert bounds.right[0, 0, -1] == 43


# ---- parts


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("smallest", [1, 2**60])
def test_batch_normalization_over_rows_is_that_of_torch(training, smallest, monkeypatch):
    monkeypatch.setattr(paths, "SMALLEST", smallest)
    ours, theirs = BatchNorm(4).train(training), nn.BatchNorm1d(4).train(training)
    x, g = (2 + 3 * torch.randn(4, 6, 5)).requires_grad_(), torch.randn(4, 6, 5)  # [D, M, N]
    for _ in range(2):
        found = [(y, *torch.autograd.grad((y * g).sum(), [x, *norm.parameters()])) for y, norm in (
            (ours(x), ours), (theirs(x.transpose(0, 1)).transpose(0, 1), theirs))]  # fmt: skip
        torch.testing.assert_close(*found)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_batch_normalization_refuses_a_single_value_per_row_as_torch_does(monkeypatch):
    monkeypatch.setattr(paths, "SMALLEST", 1)
    with pytest.raises(ValueError, match="more than 1 value"):
        BatchNorm(4)(torch.zeros(4, 1, 1))


@pytest.mark.parametrize("order", [(5, 50), (50, 5), (50, 50), (5, 5)])
def test_one_backward_pass_may_follow_two_forward_passes_of_either_form(order, monkeypatch):
    """As where two tasks with batches of different size share an encoder."""
    monkeypatch.setattr(paths, "SMALLEST", 4 * 6 * 20)
    ours, theirs = BatchNorm(4).double(), nn.BatchNorm1d(4).double()
    parts = [torch.randn(4, 6, n, dtype=torch.float64) for n in order]
    sum(ours(x).pow(3).sum() for x in parts).backward()
    sum(theirs(x.transpose(0, 1)).pow(3).sum() for x in parts).backward()
    torch.testing.assert_close([p.grad for p in ours.parameters()], [p.grad for p in theirs.parameters()])
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    block = Block(ConvTimeNetConfig(**SMALL), 5)
    sum(block(torch.randn(6, 6, n)).square().sum() for n in order).backward()
    assert all(p.grad is not None for p in block.parameters())


def test_layer_normalization_is_over_the_width():
    x = torch.randn(4, 6, 5)
    torch.testing.assert_close(LayerNorm(4)(x), F.layer_norm(x.movedim(0, -1), (4,)).movedim(-1, 0))


def test_the_pointwise_pair_is_two_convolutions_of_kernel_one():
    torch.manual_seed(0)
    pair, x = FeedForward(4, 8, 0.0), torch.randn(4, 6, 5)
    hidden = F.gelu(F.conv1d(x.transpose(0, 1), pair.rise.weight[..., None], pair.rise.bias))
    expected = F.conv1d(hidden, pair.fall.weight[..., None], pair.fall.bias).transpose(0, 1)
    torch.testing.assert_close(pair(x), expected)


def test_a_block_begins_as_two_normalizations_since_its_residual_weights_begin_near_zero():
    torch.manual_seed(0)
    block, x = Block(ConvTimeNetConfig(**SMALL), 5), torch.randn(6, 4, 9)
    torch.testing.assert_close(block(x), BatchNorm(6)(BatchNorm(6)(x)))


def test_residual_weights_are_told_block_by_block():
    assert small(residual=0.5).residual_weights() == [{"convolution": 0.5, "feed-forward": 0.5}] * 2
    assert small(residual=None).residual_weights() == [{"convolution": 1.0, "feed-forward": 1.0}] * 2
    assert small(residual=0.5, feed_forward=0).residual_weights() == [{"convolution": 0.5}] * 2


def test_a_residual_weight_may_be_given_as_a_whole_number():
    assert small(residual=0).residual_weights() == [{"convolution": 0.0, "feed-forward": 0.0}] * 2
    with pytest.raises(SettingsError, match="residual is a finite number, but got True"):
        small(residual=True)


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_without_a_skip_a_branch_takes_the_place_of_what_it_read(norm, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr("prismts.layers.paths.SMALLEST", 1)  # also where the fast forms would be taken
    config = ConvTimeNetConfig(**{**SMALL, "dropout": 0.0, "norm": norm, "skip": False})
    block, x = Block(config, 5), torch.randn(6, 4, 9, requires_grad=True)
    u = block.norm_conv(F.gelu(block.conv(x)))
    torch.testing.assert_close(block(x), block.norm_forward(block.feed_forward(u)))
    assert "join_conv.alpha" not in dict(block.named_parameters())


def test_merging_changes_nothing_where_branches_are_not_added():
    torch.manual_seed(0)
    model, x = small(skip=False), torch.randn(2, 3, 40)
    model.encode(x)  # training, so that the norms have measured something
    model.eval()
    torch.testing.assert_close(model.merged().encode(x).tokens, model.encode(x).tokens, rtol=1e-4, atol=1e-5)


# ---- masks


@pytest.mark.parametrize("settings", [{}, {"channels": "mixed"}, {"stride": 8}, {"channels": "mixed", "stride": 8}])
def test_a_mask_that_hides_nothing_changes_nothing(settings):
    model, x = small(**settings).eval(), torch.randn(2, 3, 40)
    model.head = PoolHead(6, 4)
    bare, masked = model.encode(x), model.encode(x, torch.ones_like(x, dtype=torch.bool))
    torch.testing.assert_close(masked.tokens, bare.tokens, atol=1e-5, rtol=0)
    assert torch.equal(masked.valid, bare.valid)


def test_a_token_is_valid_if_its_patch_holds_an_observed_point():
    observed = torch.zeros(1, 2, 40, dtype=torch.bool)
    observed[0, 0, 5] = True  # lies in the patches from 0 and 4
    observed[0, 1, 39] = True  # lies in those from 32 and 36
    x = torch.randn(1, 2, 40)
    apart, mixed = small(2).encode(x, observed), small(2, channels="mixed").encode(x, observed)
    assert apart.valid[0].nonzero().tolist() == [[0, 0], [0, 1], [1, 8], [1, 9]]
    assert mixed.valid[0].nonzero()[:, 1].tolist() == [0, 1, 8, 9]


def test_a_classifier_of_a_case_of_which_nothing_was_observed_answers_with_a_number():
    model = small(channels="mixed").eval()
    model.head = PoolHead(6, 4)
    x = torch.full((2, 3, 40), torch.nan)
    assert model(x, torch.zeros_like(x, dtype=torch.bool)).isfinite().all()


# ---- settings


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"patches": "deformabel"}, "no patches named 'deformabel'. Did you mean 'deformable'?"),
        ({"norm": "bacth"}, "no norm named 'bacth'. Did you mean 'batch'?"),
        ({"channels": "mixd"}, "no channels named 'mixd'. Did you mean 'mixed'?"),
        ({"zero_init": "lst"}, "no zero_init named 'lst'. Did you mean 'last'?"),
        ({"kernel_sizes": ()}, "one large kernel per block"),
        ({"kernel_sizes": (5, 0)}, "one large kernel per block"),
        ({"width": 0}, "at least 1"),
        ({"small_kernel": -1}, "small_kernel"),
        ({"dropout": 1.0}, "a share from 0 to below 1, but got 1.0"),
        ({"patch_length": 1}, "patches='points'"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_a_hint(setting, message):
    with pytest.raises(SettingsError, match=message.replace("?", r"\?")):
        ConvTimeNetConfig(**setting)


def test_a_window_without_room_for_a_patch_is_explained():
    with pytest.raises(SettingsError, match="A window of 10 steps has no room for a patch of 32"):
        ConvTimeNet(ConvTimeNetConfig(), n_channels=1, context_length=10)


def test_a_mixed_model_refuses_exchanged_axes_in_the_callers_words():
    with pytest.raises(ShapeError, match=r"channel=3, time\], but got shape \[2, 40, 3\]\. The last two axes"):
        small(channels="mixed")(torch.randn(2, 40, 3))
