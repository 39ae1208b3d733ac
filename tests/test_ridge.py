"""The closed-form line: scikit-learn's ridge on the same rows, chosen on validation, honest on real data."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as Independent

from prismts.data.catalog import load_dataset
from prismts.data.scaling import StandardScaler
from prismts.data.series import Collection, Series
from prismts.layers.linear import PENALTIES, RidgeMap
from prismts.models import MODELS
from prismts.windows import Windows

CONTEXT, HORIZON = 12, 4


def waves(n: int = 300, seed: int = 0, noise: float = 0.3, missing: float = 0.0) -> Collection:
    rng = np.random.default_rng(seed)
    time = np.arange(n)
    values = np.stack([np.sin(time / 3) + 0.01 * time, np.cos(time / 5) * 2]) + noise * rng.standard_normal((2, n))
    values[rng.random(values.shape) < missing] = np.nan
    return Collection.of(Series(values.astype(np.float32)))


def rows(data: Collection, context_length: int = CONTEXT, horizon: int = HORIZON) -> tuple[np.ndarray, np.ndarray]:
    """Contexts [R, T], bridged by numpy, and targets [R, H], NaN where unobserved, both less the context's mean."""
    x, y = [], []
    for channel in data.values.astype(np.float64):
        for i in range(len(channel) - context_length - horizon + 1):
            past, future = channel[i : i + context_length], channel[i + context_length : i + context_length + horizon]
            seen = np.flatnonzero(~np.isnan(past))
            past = np.interp(np.arange(context_length), seen, past[seen]) if seen.size else np.zeros(context_length)
            x.append(past - past.mean())
            y.append(future - past.mean())
    return np.array(x), np.array(y)


def solved(train: Collection, validation: Collection | None = None) -> tuple[RidgeMap, float]:
    """The line, and its penalty as the number that scikit-learn calls alpha."""
    line = RidgeMap(CONTEXT, HORIZON)
    other = None if validation is None else Windows(validation, CONTEXT, HORIZON)
    said = line.solve(Windows(train, CONTEXT, HORIZON), other)
    names = [f"ridge, penalty {share:g}" for share in PENALTIES]
    return line, penalties_of(train)[names.index(said)]


def penalties_of(data: Collection) -> np.ndarray:
    """The five penalties: shares of the sum of squares of a mean input step."""
    return np.array(PENALTIES) * (rows(data)[0] ** 2).sum(0).mean()


def test_a_line_that_goes_on_is_learned_from_one():
    slopes = np.outer([1.0, -2.0, 0.5], np.arange(60.0)).astype(np.float32)
    data = Collection.of([Series(slope[None]) for slope in slopes])
    line, _ = solved(data)
    x = np.arange(CONTEXT) - (CONTEXT - 1) / 2
    forecast = line(torch.tensor(x, dtype=torch.float32))
    np.testing.assert_allclose(forecast.detach(), np.arange(CONTEXT, CONTEXT + HORIZON) - (CONTEXT - 1) / 2, rtol=0.01)


def test_the_weights_are_those_of_scikit_learn_and_the_constant_is_not_shrunk():
    data = waves()
    line, penalty = solved(data)
    theirs = Independent(alpha=penalty).fit(*rows(data))
    np.testing.assert_allclose(line.weight.detach(), theirs.coef_, atol=1e-4)
    np.testing.assert_allclose(line.bias.detach(), theirs.intercept_, atol=1e-4)
    assert np.abs(theirs.intercept_).min() > 0.005  # a shrunken constant would show


def test_without_validation_the_middle_penalty_is_taken():
    data = waves()
    assert solved(data)[1] == pytest.approx(penalties_of(data)[2], rel=1e-5)


@pytest.mark.parametrize("noise", [0.01, 0.3, 2.0])
def test_the_penalty_is_the_one_with_the_least_validation_error(noise):
    train, validation = waves(60, noise=noise), waves(120, seed=1, noise=noise)
    x, y = rows(validation)
    penalties = penalties_of(train)
    errors = [((Independent(alpha=p).fit(*rows(train)).predict(x) - y) ** 2).mean() for p in penalties]
    assert solved(train, validation)[1] == pytest.approx(penalties[np.argmin(errors)], rel=1e-5)


def test_noise_asks_for_a_larger_penalty():
    calm = solved(waves(60, noise=0.01), waves(120, seed=1, noise=0.01))[1] / penalties_of(waves(60, noise=0.01))[0]
    loud = solved(waves(60, noise=2), waves(120, seed=1, noise=2))[1] / penalties_of(waves(60, noise=2))[0]
    assert loud > calm


@pytest.mark.parametrize("missing", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("noise", [0.01, 2.0])
def test_with_missing_values_every_step_is_the_ridge_over_the_rows_in_which_it_was_observed(missing, noise):
    data = waves(600, noise=noise, missing=missing)
    line, penalty = solved(data, waves(100, seed=1, noise=noise))
    x, y = rows(data)
    for step in range(HORIZON):
        seen = ~np.isnan(y[:, step])
        theirs = Independent(alpha=penalty).fit(x[seen], y[seen, step])
        forecast = line(torch.tensor(x, dtype=torch.float32))[:, step].detach()
        np.testing.assert_allclose(forecast, theirs.predict(x), atol=1e-3 * y[seen, step].std())


def test_a_step_that_was_never_observed_is_forecast_as_the_level():
    values = waves(200).values.copy()
    cases = [values[:, i : i + CONTEXT + HORIZON] for i in range(0, 180, 3)]
    for case in cases:
        case[:, -1] = np.nan  # of each case only, since each is copied into the collection below
    line, _ = solved(Collection.of([Series(case.copy()) for case in cases]))
    assert (line.weight[-1] == 0).all() and line.bias[-1] == 0
    assert all(weight.abs().max() > 0.01 for weight in line.weight[:-1])


def test_a_series_that_never_moves_gives_a_line_that_repeats_it():
    line, _ = solved(Collection.of(Series(np.full((1, 50), 3.0, dtype=np.float32))))
    assert line.weight.abs().max() == 0
    assert line.bias.abs().max() == 0


def test_solving_twice_gives_the_same_bits():
    first, second = solved(waves(missing=0.1))[0], solved(waves(missing=0.1))[0]
    assert torch.equal(first.weight, second.weight)


@pytest.mark.usefixtures("data_root")
@pytest.mark.parametrize(
    ("name", "context_length", "mse"),
    [("ETTh1", 336, 0.370), ("ETTh2", 336, 0.271), ("ETTh1", 512, 0.367), ("ETTh2", 512, 0.267)],
)
def test_the_floor_of_real_data_over_all_test_windows(name, context_length, mse):
    series = load_dataset(name)
    data, borders = Collection.of(series), series.borders
    scaler = StandardScaler.fit(data, np.array([borders.train_end]))
    train, validation, test = (
        Windows(data, context_length, 96, scaler=scaler, begin=begin, end=end)
        for begin, end in (borders.train, borders.validation, borders.test)
    )
    ridge = MODELS["ridge"]
    model = ridge.build(ridge.config(), n_channels=7, context_length=context_length, horizon=96)
    model.line.solve(train, validation)
    with torch.no_grad():
        errors = [(model(batch.context) - batch.target).square().sum() for batch in test.in_order(256)]
    assert len(test) == 2785
    assert float(sum(errors)) / (2785 * 7 * 96) == pytest.approx(mse, abs=0.0015)
