"""The forecasting task: losses that numpy confirms, sums that add up, quantiles that begin in order around the line."""

import numpy as np
import pytest
import torch
from torch import nn

from prismts.data.series import Collection, Series
from prismts.errors import SettingsError
from prismts.tasks.forecast import Forecast, SpreadAround
from prismts.windows import Batch, Windows

HORIZON, LEVELS = 6, (0.1, 0.5, 0.9)
SMALL = {"patch_length": 8, "stride": 4, "width": 4, "feed_forward": 8, "kernel_sizes": (5,), "dropout": 0.0}


class Fixed(nn.Module):
    """A model whose answer is given."""

    def __init__(self, answer: np.ndarray) -> None:
        super().__init__()
        self.answer = torch.tensor(answer, dtype=torch.float32)

    def forward(self, x: torch.Tensor, observed: torch.Tensor | None = None) -> torch.Tensor:
        return self.answer


def batch_of(target: np.ndarray, seen: np.ndarray | None) -> Batch:
    tensor = torch.tensor(target, dtype=torch.float32)
    mask = None if seen is None else torch.tensor(seen)
    return Batch(torch.zeros(*target.shape[:2], 10), tensor, None, mask, torch.zeros(len(target), dtype=torch.long))


def drifting(n: int = 400, n_channels: int = 3, seed: int = 0) -> Collection:
    """Random walks with a drift, on scales of 0.1, 1 and 10, so that offset, bias and scale all matter."""
    walk = np.random.default_rng(seed).standard_normal((n_channels, n)).cumsum(1) + 0.2 * np.arange(n)
    return Collection.of(Series((walk * 10.0 ** (np.arange(n_channels)[:, None] % 3 - 1)).astype(np.float32)))


def huber(error: np.ndarray) -> np.ndarray:
    return np.where(np.abs(error) <= 1, 0.5 * error**2, np.abs(error) - 0.5)


PLAIN = {"mse": np.square, "mae": np.abs, "huber": huber}


# ---- losses


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("masked", [False, True])
def test_a_point_loss_is_the_mean_over_observed_values_as_numpy_has_it(name, masked):
    rng = np.random.default_rng(0)
    target, forecast = 2 * rng.standard_normal((2, 4, 3, HORIZON))
    seen = rng.random(target.shape) < 0.6 if masked else np.ones(target.shape, dtype=bool)
    expected = PLAIN[name](target - forecast)[seen]
    batch = batch_of(np.where(seen, target, 0), seen if masked else None)
    total, count = Forecast(HORIZON, loss=name).losses(Fixed(forecast), batch)
    assert float(total) == pytest.approx(expected.sum(), rel=1e-5)
    assert int(count) == seen.sum()
    assert float(Forecast(HORIZON, loss=name).loss(Fixed(forecast), batch)) == pytest.approx(expected.mean(), rel=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_the_pinball_loss_is_the_mean_over_levels_as_numpy_has_it(masked):
    rng = np.random.default_rng(0)
    target, forecast = rng.standard_normal((4, 3, HORIZON)), rng.standard_normal((4, 3, 3, HORIZON))  # [B, Q, C, H]
    seen = rng.random(target.shape) < 0.6 if masked else np.ones(target.shape, dtype=bool)
    each = []
    for level, at_level in zip(LEVELS, np.moveaxis(forecast, 1, 0), strict=True):
        error = (target - at_level)[seen]
        each.append(np.where(error > 0, level * error, (1 - level) * -error))
    task, batch = Forecast(HORIZON, quantiles=LEVELS), batch_of(np.where(seen, target, 0), seen if masked else None)
    assert float(task.loss(Fixed(forecast), batch)) == pytest.approx(np.mean(each), rel=1e-5)
    assert int(task.losses(Fixed(forecast), batch)[1]) == 3 * seen.sum()


def test_forecasting_one_too_low_costs_nine_times_as_much_at_the_level_of_nine_tenths():
    task, zero = Forecast(1, quantiles=(0.9,)), np.zeros((1, 1, 1, 1))
    low = task.loss(Fixed(zero - 1), batch_of(np.zeros((1, 1, 1)), None))
    high = task.loss(Fixed(zero + 1), batch_of(np.zeros((1, 1, 1)), None))
    assert (float(low), float(high)) == (pytest.approx(0.9), pytest.approx(0.1))


@pytest.mark.parametrize("quantiles", [None, LEVELS])
def test_sums_over_batches_add_up_to_the_sum_over_all(quantiles):
    data = drifting(120)
    data.values[:, ::9] = np.nan
    windows, task = Windows(data, 40, HORIZON), Forecast(HORIZON, quantiles=quantiles)
    torch.manual_seed(0)
    model = task.build("convtimenet", SMALL, n_channels=3, context_length=40).eval()
    with torch.no_grad():
        whole = task.losses(model, windows.batch(np.arange(len(windows))))
        parts = [task.losses(model, batch) for batch in windows.in_order(17)]
    assert float(sum(total for total, _ in parts)) == pytest.approx(float(whole[0]), rel=1e-4)
    assert sum(int(count) for _, count in parts) == int(whole[1])


def test_a_future_of_which_nothing_was_observed_costs_nothing_and_moves_nothing():
    task, data = Forecast(HORIZON), drifting(60)
    data.values[:, 40:] = np.nan
    model = task.build("convtimenet", SMALL, n_channels=3, context_length=40)
    loss = task.loss(model, Windows(data, 40, HORIZON).batch(np.array([0, 1])))
    loss.backward()
    assert float(loss.detach()) == 0
    assert all((p.grad == 0).all() for p in model.parameters() if p.grad is not None)


# ---- where training begins


@pytest.mark.parametrize("channels", ["independent", "mixed"])
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_before_training_the_network_forecasts_what_the_ridge_forecasts(channels, missing):
    data = drifting()
    data.values[np.random.default_rng(1).random(data.values.shape) < missing] = np.nan
    task, windows = Forecast(HORIZON), Windows(data, 40, HORIZON)
    models = []
    for name, options in (("ridge", {}), ("convtimenet", SMALL | {"channels": channels})):
        model = task.build(name, options, n_channels=3, context_length=40)
        task.prepare(model, windows, None)
        models.append(model.eval())
    batch = windows.batch(np.arange(50))
    ridge, network = (model(batch.context, batch.context_observed) for model in models)
    torch.testing.assert_close(network, ridge, rtol=1e-4, atol=1e-4 * float(ridge.detach().std()))


@pytest.mark.parametrize(
    ("name", "options"),
    [("convtimenet", SMALL), ("convtimenet", SMALL | {"channels": "mixed"}), ("ridge", {}), ("last_value", {})],
)
def test_quantiles_begin_in_order_and_cover_what_they_promise_on_the_training_windows(name, options):
    data = drifting()
    task, windows = Forecast(HORIZON, quantiles=LEVELS), Windows(data, 40, HORIZON)
    model = task.build(name, options, n_channels=3, context_length=40)
    task.prepare(model, windows, None)
    batch = windows.batch(np.arange(len(windows)))
    y = model.eval()(batch.context)  # [B, Q, C, H]
    assert (y.diff(dim=1) >= 0).all()
    below = (batch.target[:, None] <= y).float().mean((0, 2))  # [Q, H], over windows and channels
    torch.testing.assert_close(below, torch.tensor(LEVELS)[:, None].expand(3, HORIZON), atol=0.02, rtol=0)


def test_quantiles_of_a_very_wide_table_begin_without_holding_every_residual():
    wide = Collection.of(Series(np.random.default_rng(0).standard_normal((9000, 40)).astype(np.float32)))
    task, windows = Forecast(2, quantiles=LEVELS), Windows(wide, 8, 2)
    model = SpreadAround(Forecast(2).build("last_value", {}, n_channels=9000, context_length=8), 3, 2)
    sizes = []
    model.center.register_forward_hook(lambda module, inputs, output: sizes.append(output.shape[0] * output.shape[1]))
    task.prepare(model, windows, None)
    assert sum(sizes) <= 200_000
    assert (model.offsets.diff(dim=0) > 0).all()


# ---- settings


@pytest.mark.parametrize("quantiles", [(), (0.5, 0.1), (0.1, 0.1), (0.0, 0.5), (0.5, 1.0), (float("nan"),)])
def test_levels_that_do_not_rise_between_zero_and_one_are_refused(quantiles):
    with pytest.raises(SettingsError, match="rising levels between 0 and 1"):
        Forecast(HORIZON, quantiles=quantiles)


def test_a_horizon_of_zero_is_refused():
    with pytest.raises(SettingsError, match="horizon counts the steps to forecast and is at least 1, but got 0"):
        Forecast(0)


def test_unknown_names_offer_their_neighbors():
    with pytest.raises(SettingsError, match=r"no loss named 'hubr'\. Did you mean 'huber'\?"):
        Forecast(HORIZON, loss="hubr")
    task = Forecast(HORIZON)
    with pytest.raises(SettingsError, match=r"no model named 'convtime'\. Did you mean 'convtimenet'\?"):
        task.build("convtime", {}, n_channels=1, context_length=40)
    with pytest.raises(SettingsError, match=r"no setting 'patchlength'\. Did you mean 'patch_length'\?"):
        task.build("convtimenet", {"patchlength": 8}, n_channels=1, context_length=40)
