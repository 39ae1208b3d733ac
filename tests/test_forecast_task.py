"""The forecasting task: losses that numpy confirms, sums that add up, quantiles that begin in order around the line."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from prismts.data.series import Collection, Series
from prismts.errors import SettingsError
from prismts.models import MODELS
from prismts.tasks.forecast import Forecast, SpreadAround, _sure_share, channel_groups
from prismts.training.batches import Batches
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


@pytest.mark.parametrize("masked", [False, True])
def test_relative_errors_are_squared_errors_over_the_variance_of_the_window_and_a_little(masked):
    rng = np.random.default_rng(0)
    context = 10.0 ** rng.uniform(-2, 2, (4, 3, 1)) * rng.standard_normal((4, 3, 10)) + 5
    target, forecast = 2 * rng.standard_normal((2, 4, 3, HORIZON))
    seen = rng.random(target.shape) < 0.6 if masked else np.ones(target.shape, dtype=bool)
    seen_context = rng.random(context.shape) < 0.7 if masked else np.ones(context.shape, dtype=bool)
    variance = np.nanvar(np.where(seen_context, context, np.nan), axis=-1, keepdims=True)
    expected = ((target - forecast) ** 2 / (variance + 0.3))[seen]
    batch = batch_of(np.where(seen, target, 0), seen if masked else None)._replace(
        context=torch.tensor(np.where(seen_context, context, 0), dtype=torch.float32),
        context_observed=torch.tensor(seen_context) if masked else None,
    )
    total, count = Forecast(HORIZON, loss="relative_mse").losses(Fixed(forecast), batch)
    assert float(total) == pytest.approx(expected.sum(), rel=1e-4)
    assert int(count) == seen.sum()


@pytest.mark.parametrize("name", ["mse", "mae", "huber", "relative_mse"])
@pytest.mark.parametrize("masked", [False, True])
def test_validation_judges_points_by_squared_errors_whatever_the_training_loss(name, masked):
    rng = np.random.default_rng(0)
    target, forecast = 2 * rng.standard_normal((2, 4, 3, HORIZON))
    seen = rng.random(target.shape) < 0.6 if masked else np.ones(target.shape, dtype=bool)
    batch = batch_of(np.where(seen, target, 0), seen if masked else None)
    total, count = Forecast(HORIZON, loss=name).errors(Fixed(forecast), batch)
    assert float(total) == pytest.approx(((target - forecast)[seen] ** 2).sum(), rel=1e-5)
    assert int(count) == seen.sum()


def test_validation_judges_quantiles_by_the_loss_they_are_trained_on():
    task, batch = Forecast(HORIZON, quantiles=LEVELS), batch_of(np.ones((2, 3, HORIZON)), None)
    model = Fixed(np.random.default_rng(0).standard_normal((2, 3, 3, HORIZON)))
    assert task.errors(model, batch) == task.losses(model, batch)


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


@pytest.mark.parametrize("line", ["ridge"])
@pytest.mark.parametrize("channels", ["independent", "mixed"])
@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("network_context", [None, 24, 9])
def test_before_training_the_network_forecasts_what_the_ridge_forecasts(line, channels, missing, network_context):
    data = drifting()
    data.values[np.random.default_rng(1).random(data.values.shape) < missing] = np.nan
    task, windows = Forecast(HORIZON, line=line, network_context=network_context), Windows(data, 40, HORIZON)
    models = []
    for name, options in (("ridge", {}), ("convtimenet", SMALL | {"channels": channels})):
        model = task.build(name, options, n_channels=3, context_length=40)
        task.prepare(model, windows, None)
        models.append(model.eval())
    batch = windows.batch(np.arange(50))
    ridge, network = (model(batch.context, batch.context_observed) for model in models)
    torch.testing.assert_close(network, ridge, rtol=1e-4, atol=1e-4 * float(ridge.detach().std()))


@pytest.mark.parametrize("name", ["convtimenet", "cross_learner", "universal"])
def test_a_network_that_reads_less_than_its_line_hears_nothing_of_what_came_before(name):
    task = Forecast(HORIZON, network_context=24)
    model = task.build(name, {}, n_channels=3, context_length=40).eval()
    nn.init.normal_(model.head.linear.weight)
    late = torch.randn(5, 3, 24)
    early, other = torch.randn(2, 5, 3, 16)
    one, two = (model.features(torch.cat([past, late], dim=-1)) for past in (early, other))
    torch.testing.assert_close(one.tokens, two.tokens)
    assert not torch.allclose(one.window, two.window)
    alone = Forecast(HORIZON, line=None).build(name, {}, n_channels=3, context_length=24).eval()
    alone.load_state_dict({key: value for key, value in model.state_dict().items() if "head.line." not in key})
    x = torch.cat([early, late], dim=-1)
    with torch.no_grad():
        model.head.line.weight.zero_()
        model.head.line.bias.zero_()
        # a line of zeros says the mean of the whole window; a network without a line, that of what it reads
        beside, network = model(x) - x.mean(-1, keepdim=True), alone(late) - alone.encode(late).stats.mean
    torch.testing.assert_close(beside, network)


def test_a_network_context_as_long_as_the_context_is_none():
    torch.manual_seed(0)
    whole = Forecast(HORIZON).build("convtimenet", SMALL, n_channels=3, context_length=40).eval()
    same = Forecast(HORIZON, network_context=64).build("convtimenet", SMALL, n_channels=3, context_length=40).eval()
    same.load_state_dict(whole.state_dict())
    x = torch.randn(4, 3, 40)
    torch.testing.assert_close(same(x), whole(x), rtol=0, atol=0)


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


# ---- where training ends


def learn(task: Forecast, model: nn.Module, batch: Batch) -> None:
    """Train the map of the tokens on a batch, so that all of its windows speak for the network."""
    optimizer = torch.optim.Adam(model.eval().head.linear.parameters(), 0.01)
    for _ in range(50):
        optimizer.zero_grad()
        task.loss(model, batch).backward()
        optimizer.step()


def with_a_line(
    validation: Windows, channels: str, wanted: float | None = None
) -> tuple[Forecast, nn.Module, np.ndarray, np.ndarray]:
    """A model whose network says something, and what its line and its network forecast for all windows [B, C, H].

    ``wanted`` is the least-squares share that the network is scaled to have.
    """
    task = Forecast(HORIZON, line="chosen")
    torch.manual_seed(0)
    model = task.build("convtimenet", SMALL | {"channels": channels}, n_channels=3, context_length=40)
    task.prepare(model, Windows(drifting(seed=1), 40, HORIZON), validation)
    batch, linear = validation.batch(np.arange(len(validation))), model.eval().head.linear
    with torch.no_grad():
        line = model(batch.context, batch.context_observed).double().numpy()
    learn(task, model, batch)
    with torch.no_grad():
        if wanted is not None:
            network = model(batch.context, batch.context_observed).double().numpy() - line
            factor = share_of(validation, line, network) / wanted
            linear.weight.mul_(factor)
            linear.bias.mul_(factor)
        network = model(batch.context, batch.context_observed).double().numpy() - line
    return task, model, line, network


def share_of(validation: Windows, line: np.ndarray, network: np.ndarray, without: np.ndarray | None = None) -> float:
    """The share of the network at which the squared error over all observed targets is least, by numpy.

    ``without`` are numbers of windows that do not count.
    """
    batch = validation.batch(np.arange(len(validation)))
    seen = np.ones(line.shape, dtype=bool) if batch.target_observed is None else batch.target_observed.numpy().copy()
    if without is not None:
        seen[without] = False
    return float(np.linalg.lstsq(network[seen][:, None], (batch.target.numpy() - line)[seen], rcond=None)[0][0])


def doubt_of(validation: Windows, line: np.ndarray, network: np.ndarray, n_stretches: int = 6) -> float:
    """The standard error of that share, by leaving out each stretch in turn: Tukey's jackknife, by numpy."""
    stretches = np.array_split(np.arange(len(validation)), min(n_stretches, len(validation)))
    others = [share_of(validation, line, network, without=stretch) for stretch in stretches]
    return float(np.std(others) * np.sqrt(len(others) - 1))


@pytest.mark.long
@pytest.mark.parametrize("channels", ["independent", "mixed"])
@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize(("wanted", "expected"), [(0.4, None), (90.0, 1.0), (-1.0, 0.0)])
def test_in_the_end_as_much_of_the_network_counts_as_validation_is_sure_of(channels, missing, wanted, expected):
    data = drifting(120)
    data.values[np.random.default_rng(1).random(data.values.shape) < missing] = np.nan
    validation = Windows(data, 40, HORIZON)
    task, model, line, network = with_a_line(validation, channels, wanted)
    share = task.finish(model, validation)
    sure = share_of(validation, line, network) - doubt_of(validation, line, network)
    assert share == pytest.approx(np.clip(sure, 0, 1), abs=1e-3)
    assert expected is None or share == expected
    batch = validation.batch(np.arange(len(validation)))
    forecast = model(batch.context, batch.context_observed).detach().numpy()
    np.testing.assert_allclose(forecast, line + share * network, rtol=1e-3, atol=1e-3 * line.std())


@pytest.mark.parametrize(
    ("stretches", "expected"), [([0.5] * 6, 0.5), ([1.0, 0.0] * 3, 0.5 - 0.5 / np.sqrt(5)), ([0.8], 0.4)]
)
def test_stretches_of_validation_that_disagree_about_the_network_let_less_of_it_count(stretches, expected):
    """By hand: of six shares of equal weight the standard error of the mean is their deviation over the root of 5."""
    shares = np.array(stretches)
    assert _sure_share(shares, np.ones(len(shares))) == pytest.approx(expected)


@pytest.mark.parametrize(("levels", "judged"), [(LEVELS, 1), ((0.05, 0.1, 0.4), 2), ((0.6, 0.7, 0.9), 0), ((0.9,), 0)])
def test_of_quantiles_the_one_nearest_to_the_median_is_weighed_and_the_spread_stays(levels, judged):
    windows, task = Windows(drifting(120), 40, HORIZON), Forecast(HORIZON, quantiles=levels, line="chosen")
    torch.manual_seed(0)
    model = task.build("convtimenet", SMALL, n_channels=3, context_length=40)
    task.prepare(model, windows, windows)
    batch = windows.batch(np.arange(len(windows)))
    learn(task, model, batch)
    silent, bare = copy.deepcopy(model), copy.deepcopy(model)
    nn.init.zeros_(silent.head.linear.weight)  # what is left is the line and its spread
    for weights in bare.head.linear.parameters():
        nn.init.zeros_(weights)  # and here the line
    with torch.no_grad():
        line, spread, whole = (
            one(batch.context, batch.context_observed).numpy() for one in (bare, silent, model)
        )  # [B, Q, C, H]
    share = task.finish(model, windows)
    alone, said = line[:, judged], (whole - spread)[:, judged]
    sure = share_of(windows, alone, said) - doubt_of(windows, alone, said)
    assert share == pytest.approx(np.clip(sure, 0, 1), abs=1e-3)
    forecast = model(batch.context, batch.context_observed).detach().numpy()
    np.testing.assert_allclose(forecast, spread + share * (whole - spread), rtol=1e-3, atol=1e-3 * line.std())


def test_the_share_of_the_network_does_not_depend_on_how_the_windows_are_batched(monkeypatch):
    data = drifting(120)
    data.values[:, ::9] = np.nan
    windows, shares = Windows(data, 40, HORIZON), []
    for rows in (256, 7):
        monkeypatch.setattr("prismts.tasks.forecast._ROWS_PER_PASS", rows)
        task, model, *_ = with_a_line(windows, "independent", 0.4)
        shares.append(task.finish(model, windows))
    assert shares[0] == pytest.approx(shares[1], rel=1e-4)


@pytest.mark.parametrize(
    ("name", "how", "validated"),
    [("convtimenet", {}, False), ("convtimenet", {"line": None}, True), ("ridge", {}, True), ("last_value", {}, True)],
)
def test_where_there_is_nothing_to_weigh_every_weight_stays(name, how, validated):
    task, windows = Forecast(HORIZON, **how), Windows(drifting(120), 40, HORIZON)
    model = task.build(name, SMALL if name == "convtimenet" else {}, n_channels=3, context_length=40)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert task.finish(model, windows if validated else None) is None
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


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
    with pytest.raises(SettingsError, match=r"no line named 'rigde'\. Did you mean 'ridge'\?"):
        Forecast(HORIZON, line="rigde")
    task = Forecast(HORIZON)
    with pytest.raises(SettingsError, match=r"no model named 'convtime'\. Did you mean 'convtimenet'\?"):
        task.build("convtime", {}, n_channels=1, context_length=40)
    with pytest.raises(SettingsError, match=r"no setting 'patchlength'\. Did you mean 'patch_length'\?"):
        task.build("convtimenet", {"patchlength": 8}, n_channels=1, context_length=40)


# ---- soft-DTW as a loss


def test_the_soft_dtw_loss_forgives_a_shift_that_squared_error_does_not():
    target = torch.sin(torch.arange(24.0) / 2)[None, None]
    shifted, flat = target.roll(1, -1), torch.zeros_like(target)
    batch = Batch(torch.zeros(1, 1, 30), target, None, None, torch.zeros(1))

    def loss(name, forecast):
        return float(Forecast(24, loss=name, line=None).loss(lambda *_: forecast, batch))

    assert loss("soft_dtw", shifted) / loss("soft_dtw", flat) < 0.5 * loss("mse", shifted) / loss("mse", flat)
    assert loss("soft_dtw", target) == pytest.approx(0, abs=1e-4)


def test_the_soft_dtw_loss_does_not_look_at_what_was_not_observed():
    torch.manual_seed(0)
    forecast, target = torch.randn(2, 3, 12, requires_grad=True), torch.randn(2, 3, 12)
    seen = torch.ones(2, 3, 12, dtype=torch.bool)
    seen[0, 1, 4:7] = False
    losses = []
    for filler in (0.0, 99.0):
        batch = Batch(torch.zeros(2, 3, 30), target.masked_fill(~seen, filler), None, seen, torch.zeros(2))
        losses.append(Forecast(12, loss="soft_dtw", line=None).loss(lambda *_: forecast, batch))
    assert float(losses[0].detach()) == pytest.approx(float(losses[1].detach()), rel=1e-6)
    right = torch.where(seen, target, forecast)
    batch = Batch(torch.zeros(2, 3, 30), target, None, seen, torch.zeros(2))
    assert float(Forecast(12, loss="soft_dtw", line=None).loss(lambda *_: right, batch).detach()) == pytest.approx(
        0, abs=1e-4
    )


def test_validation_judges_by_squared_errors_whatever_the_training_loss():
    forecast, target = torch.zeros(1, 1, 4), torch.tensor([[[1.0, 2.0, 0.0, 0.0]]])
    batch = Batch(torch.zeros(1, 1, 30), target, None, None, torch.zeros(1))
    total, count = Forecast(4, loss="soft_dtw", line=None).errors(lambda *_: forecast, batch)
    assert (float(total), float(count)) == (5.0, 4.0)


# ---- heads and groups


def test_a_line_has_the_length_of_one_horizon():
    with pytest.raises(SettingsError, match=r"A line from 'ridge' has the length of one horizon.*Set line=None"):
        Forecast(6, head="any_horizon")


SMALL_LANGUAGE = {"weights": "random", "width": 8, "n_heads": 2, "feed_forward": 12, "n_layers": 1, "n_words": 11}
TOKENS = [name for name, model in MODELS.items() if model.is_encoder and model.forecaster is None]


@pytest.mark.parametrize("name", TOKENS)
def test_every_encoder_can_carry_the_head_of_any_horizon(name):
    options: dict[str, object] = {}
    if name in ("gpt4ts", "timellm"):
        pytest.importorskip("transformers")
        options = SMALL_LANGUAGE
    task = Forecast(6, line=None, head="any_horizon")
    model = task.build(name, options, n_channels=3, context_length=48).eval()
    assert model(torch.randn(2, 3, 48)).shape == (2, 3, 6)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in TOKENS])
def test_a_model_that_forecasts_in_a_form_of_its_own_refuses_that_head(name):
    """Direct forecasters, and the encoders whose papers forecast without a head on their tokens."""
    with pytest.raises(
        SettingsError, match=f"head='any_horizon' asks the tokens of an encoder, and '{name}' forecasts"
    ):
        Forecast(6, line=None, head="any_horizon").build(name, {}, n_channels=3, context_length=48)


def test_the_encoders_that_forecast_in_a_form_of_their_own_are_two():
    assert {name for name, model in MODELS.items() if model.is_encoder} - set(TOKENS) == {"timesnet", "allm4ts"}


@pytest.mark.parametrize(
    ("name", "options", "slices"),
    [
        ("universal", {}, [(0, 3), (3, 6), (6, 10)]),  # as even as in training
        ("universal", {"exchange": False}, [(0, 7), (7, 10)]),
        ("convtimenet", {}, [(0, 7), (7, 10)]),
        ("itransformer", {}, [(0, 10)]),
    ],
)
def test_which_channels_are_read_together(name, options, slices):
    model = Forecast(6, line=None).build(name, options, n_channels=10, context_length=48)
    found = channel_groups(model, 10, 4, apart=7)
    assert [(group.start, group.stop) for group in found] == slices
    if options == {} and name == "universal":
        assert found == Batches(Windows(drifting(n_channels=10), 48, 6), 8, channels_at_once=4).groups
