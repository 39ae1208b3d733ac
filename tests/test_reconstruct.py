"""Masked reconstruction: nothing hidden leaks in, only what was hidden counts, and validation hides the same again."""

import numpy as np
import pytest
import torch

from prismts.data.series import Collection, Series
from prismts.errors import SettingsError
from prismts.layers.masking import Blocks, Points
from prismts.layers.missing import bridge
from prismts.tasks.reconstruct import MaskReader, Reconstruct, gap_distance
from prismts.training.fit import FitConfig, fit
from prismts.windows import Batch, Windows

SMALL = {"patch_length": 4, "stride": 2, "width": 8, "feed_forward": 0, "kernel_sizes": (3,), "dropout": 0.0}
CHANNELS = pytest.mark.parametrize("channels", ["independent", "mixed"])


def build(channels: str, task: Reconstruct | None = None, n_channels: int = 3, context_length: int = 24):
    torch.manual_seed(0)
    settings = {**SMALL, "channels": channels}
    return (task or Reconstruct()).build("convtimenet", settings, n_channels=n_channels, context_length=context_length)


def woken(model: torch.nn.Module) -> torch.nn.Module:
    """Give the head's map some weights, as if it had been trained."""
    torch.manual_seed(1)
    torch.nn.init.normal_(model.head.linear.weight)
    return model.eval()


def batch_of(x: torch.Tensor, observed: torch.Tensor | None = None) -> Batch:
    return Batch(x, x[..., :0], observed, None, torch.zeros(len(x), dtype=torch.long))


def waves(n: int = 400) -> Collection:
    """Three channels of which the third is the sum of the others."""
    t = np.arange(n)
    rng = np.random.default_rng(0)
    a, b = np.sin(t / 3) + 0.1 * rng.standard_normal(n), np.cos(t / 5)
    return Collection.of(Series(np.stack([a, b, a + b])))


@CHANNELS
@pytest.mark.parametrize("n_timepoints", [24, 25, 37])
def test_before_training_the_answer_is_linear_interpolation(channels, n_timepoints):
    model = build(channels).eval()
    x = 50 + 4 * torch.randn(5, 3, n_timepoints)
    hidden = Blocks(0.4, length=5)(torch.ones_like(x, dtype=torch.bool), torch.Generator().manual_seed(0))
    hidden[..., 0] = False  # a channel hidden whole has no line
    hidden[0, :, -4:] = True  # nothing at all is seen of the end
    torch.testing.assert_close(Reconstruct.reconstruct(model, x, None, hidden), bridge(x, ~hidden))


@CHANNELS
def test_hidden_and_unobserved_values_change_nothing(channels):
    model = woken(build(channels))
    x = torch.randn(4, 3, 24)
    observed = torch.rand(x.shape) < 0.8
    hidden = torch.rand(x.shape) < 0.3
    first = Reconstruct.reconstruct(model, x, observed, hidden)
    other = torch.where(hidden | ~observed, torch.full_like(x, 1e6), x)
    torch.testing.assert_close(Reconstruct.reconstruct(model, other, observed, hidden), first)
    assert not torch.allclose(first, bridge(x, observed & ~hidden))


@CHANNELS
def test_units_of_a_channel_pass_through(channels):
    model = woken(build(channels))
    x = torch.randn(4, 3, 24)
    hidden = torch.rand(x.shape) < 0.3
    shifted = Reconstruct.reconstruct(model, 1000 + 5 * x, None, hidden)
    torch.testing.assert_close(
        shifted, 1000 + 5 * Reconstruct.reconstruct(model, x, None, hidden), atol=1e-2, rtol=1e-4
    )


@pytest.mark.parametrize(("loss", "each"), [
    ("mse", lambda e: e**2), ("mae", abs), ("huber", lambda e: e**2 / 2 if abs(e) < 1 else abs(e) - 0.5),
])  # fmt: skip
def test_only_hidden_points_count_in_the_loss(loss, each):
    def hide(observed, generator=None):
        hidden = torch.zeros_like(observed)
        hidden[..., 1] = observed[..., 1]
        return hidden

    x = torch.tensor([[[0.0, 9.0, 2.0, 100.0]], [[0.0, 7.5, 14.0, -3.0]], [[1.0, 0.0, 1.0, 0.0]]])
    observed = torch.ones_like(x, dtype=torch.bool)
    observed[2, 0, 1] = False  # not observed, so it can be neither hidden nor judged
    task = Reconstruct(hide, loss=loss)
    model = build("independent", n_channels=1, context_length=4).eval()
    expected = (each(9.0 - 1.0) + each(7.5 - 7.0)) / 2  # the lines say 1 and 7
    assert task.loss(model, batch_of(x, observed)).item() == pytest.approx(expected, rel=1e-4)
    total, count = task.errors(model, batch_of(x, observed))
    assert count == 2
    assert total.item() == pytest.approx(8.0**2 + 0.5**2, rel=1e-4)


@CHANNELS
def test_validation_hides_the_same_points_whatever_the_batch_and_the_epoch(channels):
    windows = Windows(waves(100), 24, 0)
    task, model = Reconstruct(), woken(build(channels))
    alone = torch.cat([task.fixed_masks(windows.batch(np.array([i]))) for i in range(20)])
    torch.manual_seed(99)
    assert torch.equal(task.fixed_masks(windows.batch(np.arange(20))), alone)
    sums = []
    for size in (7, 64):
        parts = [task.errors(model, batch) for batch in windows.in_order(size)]
        sums.append((sum(t.item() for t, _ in parts), sum(c.item() for _, c in parts)))
    assert sums[0][1] == sums[1][1]
    assert sums[0][0] == pytest.approx(sums[1][0], rel=1e-4)
    assert not torch.equal(Reconstruct(seed=1).fixed_masks(windows.batch(np.arange(20))), alone)


def test_training_hides_other_points_each_time_and_follows_torch_seed():
    batch, task = Windows(waves(), 24, 0).batch(np.arange(30)), Reconstruct(Points(0.4))
    model = build("independent").eval()
    torch.manual_seed(3)
    first, second = task.loss(model, batch), task.loss(model, batch)
    torch.manual_seed(3)
    assert first != second
    assert task.loss(model, batch) == first


@CHANNELS
def test_training_beats_the_line(channels):
    windows, task = Windows(waves(), 24, 0, end=300), Reconstruct(["points", Blocks(0.3, length=6)])
    check = Windows(waves(), 24, 0, begin=300)
    model = build(channels, task)
    before = task.errors(model.eval(), check.batch(np.arange(len(check))))
    config = FitConfig(max_epochs=12, patience=12, batch_size=32, learning_rate=1e-2, schedule="one_cycle")
    fit(model, task, windows, check, config=config, progress=False)
    after = task.errors(model, check.batch(np.arange(len(check))))
    assert after[1] == before[1]
    assert after[0] < 0.95 * before[0]


@CHANNELS
def test_every_parameter_learns_once_the_head_has_moved(channels):
    task = Reconstruct()
    model = woken(build(channels, task)).train()
    task.loss(model, Windows(waves(), 24, 0).batch(np.arange(64))).backward()
    lacking = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # the patch predictor begins at zero in its last layer, behind which its first one learns nothing yet
    assert [name for name in lacking if ".look." not in f".{name}"] == []


def test_a_point_is_judged_while_it_is_hidden():
    model = woken(build("mixed"))
    x = torch.randn(2, 3, 24)
    told = Reconstruct.judge(model, x, n_parts=3, length=4)
    changed = x.clone()
    changed[:, :, 4:8] = 77.0  # a whole block of the second part
    torch.testing.assert_close(Reconstruct.judge(model, changed, n_parts=3, length=4)[..., 4:8], told[..., 4:8])
    assert not torch.allclose(Reconstruct.judge(model, changed, n_parts=3, length=4)[..., 8:12], told[..., 8:12])


def test_the_distance_to_the_nearest_observed_point_by_hand():
    observed = torch.tensor([[[0, 1, 0, 0, 0, 1, 0, 0], [0] * 8]], dtype=torch.bool)
    assert gap_distance(observed).tolist() == [[[1, 0, 1, 2, 1, 0, 1, 2], [8] * 8]]


def test_merged_kernels_give_the_same_reconstruction():
    model = woken(build("mixed"))
    assert isinstance(model, MaskReader)
    x, observed = torch.randn(2, 3, 24), torch.rand(2, 3, 24) < 0.7
    torch.testing.assert_close(model.merged()(x, observed), model(x, observed), atol=1e-5, rtol=1e-4)


def test_a_floor_cannot_reconstruct_and_the_error_names_what_can():
    with pytest.raises(SettingsError, match=r"'ridge' maps a past straight to a future.*convtimenet"):
        Reconstruct().build("ridge", {}, n_channels=2, context_length=24)


def test_unknown_names_are_told_their_neighbors():
    with pytest.raises(SettingsError, match=r"no mask named 'point'. Did you mean 'points'"):
        Reconstruct("point")
    with pytest.raises(SettingsError, match=r"no loss named 'mea'. Did you mean"):
        Reconstruct(loss="mea")
