"""Lines of steps, days and weeks: each solved a second way, mixed only where folds say so, and never a wrong season."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge as Independent

from prismts import Forecaster
from prismts.data.calendar import season_lengths
from prismts.data.series import Collection, Series
from prismts.layers.individual_line import IndividualLine
from prismts.layers.line import Candidate, _moments, folds_of
from prismts.layers.linear import RidgeMap, error_sums
from prismts.layers.reading import last_steps, seasonal_readings
from prismts.layers.seasonal_line import MeanLine, SeasonalLine, _most_ways, _seasons
from prismts.windows import Windows

DAY, HORIZON = 4, 3
SMALL = {"patch_length": 4, "stride": 2, "width": 4, "feed_forward": 0, "kernel_sizes": (3,), "dropout": 0.0}
QUICK = {"model_settings": SMALL, "fit_settings": {"max_epochs": 1}, "progress": False}


def weekly(n: int = 1200, seed: int = 0, noise: float = 0.5, period: int = 7 * DAY) -> np.ndarray:
    """Two channels that repeat a pattern of a week, under noise that a long past averages away."""
    rng = np.random.default_rng(seed)
    pattern = np.random.default_rng(5).standard_normal((2, period))
    return np.tile(pattern, n // period + 1)[:, :n] + noise * rng.standard_normal((2, n))


def windows(values: np.ndarray, context_length: int, frequency: str | None = "6h", horizon: int = HORIZON) -> Windows:
    times = (
        None if frequency is None else pd.date_range("2020-01-01", periods=values.shape[1], freq=frequency).to_numpy()
    )
    series = Series(np.asarray(values, dtype=np.float32), timestamps=times, frequency=frequency)
    return Windows(Collection.of(series), context_length, horizon)


def table(data: Windows) -> tuple[np.ndarray, np.ndarray]:
    """Contexts [R, T] and targets [R, H] of complete windows, as they are."""
    cut = np.concatenate(
        [
            np.lib.stride_tricks.sliding_window_view(channel.astype(float), data.context_length + data.horizon)
            for channel in data.data.values
        ]
    )
    return cut[:, : data.context_length], cut[:, data.context_length :]


def error_of(line: RidgeMap, data: Windows) -> float:
    weights = torch.cat([line.weight, line.bias[:, None]], 1).detach()[None]
    return float(error_sums(weights, data)) / (len(data) * data.horizon * data.n_channels)


def solved(kind: type[RidgeMap], train: Windows, validation: Windows | None) -> tuple[RidgeMap, str]:
    line = kind(train.context_length, train.horizon)
    return line, line.solve(train, validation)


# ---- seasons


@pytest.mark.parametrize(
    ("frequency", "seasons"),
    [("h", (24, 168)), ("15min", (96, 672)), ("6h", (4, 28)), ("D", (7,)), ("MS", (12,)), ("W", (52,)), ("s", (60,)),
     ("7min", (206,)), ("2MS", (6,)), ("SMS-15", (24,)), ("2D", (4,)), ("YS", ()), (None, ())],
)  # fmt: skip
def test_seasons_of_a_frequency_are_its_day_and_week_or_the_one_season_it_has(frequency, seasons):
    assert season_lengths(frequency) == seasons


def test_where_the_frequency_is_unknown_the_season_is_the_period_of_the_training_part():
    values = np.tile(np.random.default_rng(0).standard_normal((1, 11)), 60)
    assert _seasons(windows(values, 44, None)) == (11,)
    noise = np.random.default_rng(0).standard_normal((1, 660))
    assert _seasons(windows(noise, 44, None)) == ()


def test_what_lies_behind_the_training_part_has_no_say_in_the_season():
    rng = np.random.default_rng(0)
    values = np.concatenate([np.tile(rng.standard_normal(11), 40), np.tile(rng.standard_normal(17), 400)])[None]
    data = windows(values, 44, None)
    assert _seasons(Windows(data.data, 44, HORIZON, end=440)) == (11,)


# ---- readings


def test_a_reading_of_a_season_holds_the_recent_steps_and_the_mean_of_each_step_of_the_season_before():
    """Ten steps, a season of two: the last four one by one, of the six before the means 0, 2, 4 and 1, 3, 5."""
    [reading, _] = seasonal_readings(10, (2,))[2]
    x = torch.arange(10, dtype=torch.float64)
    assert (x @ reading.inputs).tolist() == pytest.approx([6, 7, 8, 9, 2 * 3**0.5, 3 * 3**0.5])
    assert str(reading) == "4 steps and the mean of 3 seasons of 2 around the mean of 4"


def test_a_long_context_has_means_of_the_near_past_of_all_and_of_both():
    found = seasonal_readings(8 * 7 * DAY, (DAY, 7 * DAY))
    means = [[reading.means for reading in found[season]][::2] for season in (DAY, 7 * DAY)]
    assert means == [[((4, 12),), ((4, 54),), ((4, 12), (4, 54))], [((28, 1),), ((28, 7),), ((4, 12), (28, 7))]]


@given(st.integers(1, 300), st.lists(st.integers(1, 40), max_size=2).map(sorted))
def test_every_reading_fits_its_context_and_moves_along_with_a_shifted_one(context_length, seasons):
    for readings in seasonal_readings(context_length, seasons).values():
        for reading in readings:
            assert reading.inputs.shape[0] == context_length
            assert float(reading.middle.sum()) == pytest.approx(1)
            cut, middle = reading.relative()
            ones = torch.ones(context_length + 1, dtype=torch.float64)
            ones[-1] = 0  # a context of ones, without its one
            assert (ones @ cut).abs().max() < 1e-9 and float(ones @ middle) == pytest.approx(1)
            np.testing.assert_allclose(reading.inputs.square().sum(0), 1)  # penalized as equal weights on its steps


@pytest.mark.parametrize("context_length", [1, DAY, 2 * DAY, 4 * DAY - 1])
def test_a_context_of_less_than_four_seasons_is_read_step_by_step_alone(context_length):
    assert seasonal_readings(context_length, (DAY, 7 * DAY)) == {}


@pytest.mark.parametrize("weighting", ["plain", "relative"])
@pytest.mark.parametrize("k", range(6))
def test_a_line_of_a_reading_is_what_scikit_learn_makes_of_its_inputs(weighting, k):
    train = windows(weekly(), 8 * 7 * DAY)
    reading = [one for some in seasonal_readings(train.context_length, (DAY, 7 * DAY)).values() for one in some][2 * k]
    reference = torch.zeros(HORIZON, train.context_length + 2, dtype=torch.float64)
    line = Candidate(weighting, 0.1, (reading,)).line(_moments(train, np.arange(len(train)), reference), reference)
    x, y = table(train)
    middle = x @ reading.middle.numpy()[:, None]
    inputs = (x - middle) @ reading.inputs.numpy()
    weight = 1 / (x.var(1) + 0.3) if weighting == "relative" else np.ones(len(x))
    alpha = 0.1 * (weight[:, None] * inputs[:, : reading.n_steps] ** 2).sum(0).mean()
    fitted = Independent(alpha=alpha).fit(inputs, y - middle, sample_weight=weight)
    level = x.mean(1, keepdims=True)
    said = (x - level) @ line[:, :-2].numpy().T + line[:, -2].numpy() + level
    np.testing.assert_allclose(said, fitted.predict(inputs) + middle, atol=2e-3)


# ---- the choice


def test_of_means_level_with_the_best_the_one_of_most_ways_is_kept():
    """Three ways and their means; one way alone is best by .5 %, the mean of all three is level, that of two is not."""
    errors = torch.tensor([[1, 0.900, 0.99, 0.99, 0.95, 0.95, 0.99, 0.905]] * 2, dtype=torch.float64)
    n_ways = [1, 1, 1, 2, 2, 2, 3]
    assert _most_ways(n_ways, errors) == 6
    errors[1, 7] = 1.0  # not ahead in the second fold
    assert _most_ways(n_ways, errors) == 0
    assert _most_ways(n_ways, torch.ones(2, 8, dtype=torch.float64)) is None


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_week_under_noise_is_read_from_all_weeks_of_the_context(seed):
    values = weekly(1600, seed, noise=1.0)
    train, validation = windows(values[:, :1200], 8 * 7 * DAY), windows(values[:, 970:1400], 8 * 7 * DAY)
    after = windows(values[:, 1400 - 8 * 7 * DAY :], 8 * 7 * DAY)
    line, said = solved(SeasonalLine, train, validation)
    assert "seasons of 28" in said and said.endswith("ahead of the ridge over 3 folds, for all channels alike")
    assert error_of(line, after) < 0.97 * error_of(solved(RidgeMap, train, validation)[0], after)


def test_noise_has_no_season_and_what_is_said_of_it_is_as_good_as_the_ridge():
    values = np.random.default_rng(0).standard_normal((2, 1200))
    parts = windows(values[:, :800], 8 * DAY), windows(values[:, 800:], 8 * DAY)
    line, said = solved(SeasonalLine, *parts)
    assert "ridge" in said
    assert error_of(line, parts[1]) < 1.01 * error_of(solved(RidgeMap, *parts)[0], parts[1])


def test_what_is_kept_is_the_mean_of_the_lines_it_names():
    values = weekly()
    train, validation = windows(values[:, :900], 4 * 7 * DAY), windows(values[:, 900:], 4 * 7 * DAY)
    line, said = solved(SeasonalLine, train, validation)
    assert isinstance(line, SeasonalLine) and line._chosen is not None and str(line._chosen) in said
    reference = torch.zeros(HORIZON, train.context_length + 2, dtype=torch.float64)
    found = _moments(train, np.arange(len(train)), reference)
    again = line.learned_from(found, reference)
    torch.testing.assert_close(line.full().double(), again, atol=1e-4, rtol=0)


def test_solving_twice_gives_the_same_bits():
    values = weekly()
    parts = windows(values[:, :900], 4 * 7 * DAY), windows(values[:, 900:], 4 * 7 * DAY)
    one, two = solved(SeasonalLine, *parts)[0], solved(SeasonalLine, *parts)[0]
    assert torch.equal(one.weight, two.weight) and torch.equal(one.bias, two.bias)


# ---- channels of different kinds


def two_kinds(other: float, n: int = 1200) -> tuple[Windows, Windows]:
    """Train and validation of two channels: one is nine tenths of its step before and noise, one this share of it."""
    rng = np.random.default_rng(0)
    values = np.zeros((2, n))
    for t in range(1, n):
        values[:, t] = np.array([0.9, other]) * values[:, t - 1] + rng.standard_normal(2)
    return windows(values[:, :900], 4 * DAY), windows(values[:, 900 - 4 * DAY :], 4 * DAY)


def gain_of(said: str) -> float:
    return float(said.split("% ahead of one for all")[0].split(", ")[-1])


def test_channels_that_differ_by_less_than_five_percent_of_the_error_keep_one_line():
    parts = two_kinds(0.75)
    own, said = solved(IndividualLine, *parts)
    line, words = solved(SeasonalLine, *parts)
    assert own.n_channels == 2 and 1 < gain_of(said) < 5
    assert line.n_channels is None and words.endswith("for all channels alike")


def test_channels_of_different_kinds_bend_the_line_as_scikit_learn_bends_it():
    """The line of all channels, and ridge on what it misses of the channel's own rows."""
    train, validation = two_kinds(0.4)
    line, said = solved(SeasonalLine, train, validation)
    assert isinstance(line, SeasonalLine) and line.n_channels == 2 and gain_of(said) > 5
    share = float(said.split("own, penalty ")[1].split(",")[0])
    common, size = line.full().detach().double().numpy(), train.context_length
    for channel, own in enumerate(line.individual.detach().double().numpy()):
        cut = np.lib.stride_tricks.sliding_window_view(train.data.values[channel].astype(float), size + HORIZON)
        x, y = cut[:, :size], cut[:, size:]
        x, y = x - x.mean(1, keepdims=True), y - x.mean(1, keepdims=True)
        alike = x @ common[:, :size].T + common[:, size]
        bent = Independent(alpha=share * (x**2).sum(0).mean()).fit(x, y - alike)
        np.testing.assert_allclose(x @ own[:, :size].T + own[:, size], alike + bent.predict(x), atol=2e-3)


def test_moments_by_the_weighting_of_a_mean_hold_all_that_its_parts_need():
    """One part counts rows alike, the other by the scale of their window."""
    rng = np.random.default_rng(1)
    pattern = np.tile(np.random.default_rng(5).standard_normal(7 * DAY), 60)[:1600] + rng.standard_normal(1600)
    walk = np.cumsum(rng.standard_normal(1600) * rng.choice([0.1, 2.0], 1600))
    values = np.stack([pattern, (walk - walk.mean()) / walk.std()])
    train, validation = windows(values[:, :1200], 8 * 7 * DAY), windows(values[:, 970:1400], 8 * 7 * DAY)
    line, _ = solved(SeasonalLine, train, validation)
    assert isinstance(line, SeasonalLine) and isinstance(line._chosen, MeanLine)
    assert {part.weighting for part in line._chosen.parts} == {"plain", "relative"}
    reference = torch.zeros(HORIZON, train.context_length + 2, dtype=torch.float64)
    known, _ = folds_of(train, validation, reference, [line.weighting])
    torch.testing.assert_close(line.learned_from(known, reference), line.full().double(), atol=1e-4, rtol=0)


# ---- odd data


def test_gaps_and_a_constant_channel_break_nothing():
    values = np.concatenate([weekly(), np.full((1, 1200), 3.0)])
    values[0, np.random.default_rng(0).random(1200) < 0.2] = np.nan
    line, _ = solved(SeasonalLine, windows(values[:, :900], 4 * 7 * DAY), windows(values[:, 900:], 4 * 7 * DAY))
    assert line.weight.isfinite().all() and line.bias.isfinite().all()


def test_a_training_part_without_room_for_folds_has_the_plain_ridge():
    line, said = solved(SeasonalLine, windows(weekly()[:, :35], 28), None)
    assert said.startswith("ridge") and "too short for folds" in said
    assert torch.equal(line.weight, solved(RidgeMap, windows(weekly()[:, :35], 28), None)[0].weight)


@pytest.mark.parametrize("n", [6, 10, 60])
@pytest.mark.parametrize("context_length", [1, 2, 3, 24])
@pytest.mark.parametrize("frequency", ["6h", None])
def test_the_shortest_series_and_contexts_are_solved(n, context_length, frequency):
    values = weekly(n + context_length)
    validation = windows(weekly(40 + context_length, seed=1), context_length, frequency, 1)
    line, _ = solved(SeasonalLine, windows(values, context_length, frequency, 1), validation)
    assert line.weight.isfinite().all() and line.bias.isfinite().all()


def test_the_last_steps_alone_are_the_reading_of_the_ridge():
    reading = last_steps(5, 3)
    assert (torch.arange(5.0, dtype=torch.float64) @ reading.inputs).tolist() == [2, 3, 4]
    assert reading.middle.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 3, 1 / 3])


# ---- as a user meets it


@pytest.fixture(scope="module")
def hours() -> pd.DataFrame:
    index = pd.date_range("2020-01-01", periods=1200, freq="6h")
    return pd.DataFrame(weekly(1200).T, index=index, columns=["a", "b"])


def test_a_forecaster_says_what_seasons_its_line_reads_and_answers_as_before_when_loaded(hours, tmp_path):
    forecaster = Forecaster(setting="seasonal_line", context_length=8 * 7 * DAY, horizon=HORIZON, **QUICK).fit(hours)
    assert forecaster.line_ is not None and "seasons of 28" in forecaster.line_
    forecaster.save(tmp_path / "model")
    pd.testing.assert_frame_equal(Forecaster.load(tmp_path / "model").predict(hours), forecaster.predict(hours))


def test_a_longer_context_than_the_network_reads_reaches_the_line(hours):
    sizes = {"context_length": 400, "horizon": HORIZON, **QUICK}
    forecaster = Forecaster(setting="seasonal_line", **sizes).fit(hours)
    assert forecaster.model_.reads_last == 336
    old = hours.copy()
    old.iloc[-390:-340] += 3.0  # steps that only the line reads
    assert np.abs(forecaster.predict(old).to_numpy() - forecaster.predict(hours).to_numpy()).max() > 1e-3


def test_quantiles_stand_around_the_seasonal_line(hours):
    forecaster = Forecaster(line="seasonal", context_length=56, horizon=HORIZON, quantiles=(0.1, 0.5, 0.9), **QUICK)
    table = forecaster.fit(hours).predict()
    assert np.isfinite(table.select_dtypes("number").to_numpy()).all()


def test_seasonal_lines_are_the_line_of_the_forecaster_without_its_network(hours):
    sizes = {"context_length": 8 * 7 * DAY, "horizon": HORIZON, "progress": False}
    alone = Forecaster(model="seasonal_lines", **sizes).fit(hours)
    beside = Forecaster(setting="seasonal_line", **sizes, model_settings=SMALL, fit_settings={"max_epochs": 1}).fit(
        hours
    )
    torch.testing.assert_close(alone.model_.line.weight, beside.model_.head.line.weight, atol=1e-5, rtol=1e-4)
