"""The chosen line: every candidate solved a second way, the best on validation kept, nothing broken by odd data."""

import re
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as Independent

from prismts.data.series import Collection, Series
from prismts.layers.line import PENALTIES, REVERSIONS, ChosenLine, _candidates, _trained
from prismts.layers.linear import RidgeMap, error_sums, rows
from prismts.tasks.forecast import Forecast
from prismts.windows import Windows

CONTEXT, HORIZON = 14, 3  # 4/7 of the context are 8 steps
SMALL = {"patch_length": 4, "stride": 2, "width": 4, "feed_forward": 0, "kernel_sizes": (3,), "dropout": 0.0}


def collection(values: np.ndarray, missing: float = 0.0, seed: int = 0) -> Collection:
    values = np.array(values, dtype=np.float32)
    values[np.random.default_rng(seed).random(values.shape) < missing] = np.nan
    return Collection.of(Series(values))


def waves(n: int = 200, seed: int = 0, noise: float = 0.3) -> np.ndarray:
    """Two channels that swing around 1 and -2, the second five times as wide."""
    rng, time = np.random.default_rng(seed), np.arange(n)
    swing = np.stack([1 + np.sin(time / 3), -2 + 5 * np.cos(time / 5)])
    return swing + noise * np.array([[1.0], [5.0]]) * rng.standard_normal((2, n))


def windows(values: np.ndarray, missing: float = 0.0, context_length: int = CONTEXT, horizon: int = HORIZON) -> Windows:
    return Windows(collection(values, missing), context_length, horizon)


def table(data: Windows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By numpy: contexts [R, T] less their mean, bridged; the means [R, 1]; targets [R, H] less them, NaN if unseen."""
    x, y = [], []
    for start in range(len(data)):
        for channel in data.data.values.astype(np.float64):
            past = channel[start : start + data.context_length]
            seen = np.flatnonzero(~np.isnan(past))
            x.append(np.interp(np.arange(len(past)), seen, past[seen]) if seen.size else np.zeros(len(past)))
            y.append(channel[start + data.context_length :][: data.horizon])
    level = np.mean(x, axis=1, keepdims=True)
    return np.array(x) - level, level, np.array(y) - level


def says(line: np.ndarray | torch.Tensor, x: np.ndarray, level: np.ndarray) -> np.ndarray:
    """What weights, bias and reversion [H, T+2] say of each row, less its level."""
    line = np.asarray(line.detach() if isinstance(line, torch.Tensor) else line, dtype=np.float64)
    return x @ line[:, :-2].T + line[:, -2] + level * line[:, -1]


def error_of(line: torch.Tensor, data: Windows) -> float:
    """Mean squared error over the observed targets, by numpy."""
    x, level, y = table(data)
    return float(np.nanmean((says(line, x, level) - y) ** 2))


def plain(train: Windows, validation: Windows | None) -> torch.Tensor:
    ridge = RidgeMap(train.context_length, train.horizon)
    ridge.solve(train, validation)
    return torch.cat([ridge.weight, ridge.bias[:, None], torch.zeros(train.horizon, 1)], dim=1).detach()


def chosen(train: Windows, validation: Windows | None) -> tuple[ChosenLine, str]:
    line = ChosenLine(train.context_length, train.horizon)
    return line, line.solve(train, validation)


# ---- rows and their errors


def test_rows_are_windows_less_their_mean_with_a_one_the_mean_and_the_mask():
    data = Windows(Collection.of(Series(np.array([[1, 2, 6, 7], [0, np.nan, 4, np.nan]], dtype=np.float32))), 3, 1)
    (x, level, y, seen), *more = rows(data)
    assert not more
    assert x.tolist() == [[-2, -1, 3, 1], [-2, 0, 2, 1]] and level.tolist() == [[3], [2]]
    assert y[0].tolist() == [4] and seen.tolist() == [[True], [False]]


def test_rows_of_some_windows_are_those_rows_of_all():
    data, index = windows(waves()), np.array([5, 2, 77])
    every = torch.cat([x for x, *_ in rows(data)])
    some = torch.cat([x for x, *_ in rows(data, index)])
    assert torch.equal(some, every.unflatten(0, (-1, 2))[index].flatten(0, 1))


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_error_sums_are_those_of_numpy_with_and_without_a_slope_on_the_level(missing):
    data = windows(waves(), missing)
    lines = torch.randn(4, HORIZON, CONTEXT + 2, generator=torch.Generator().manual_seed(0))
    x, level, y = table(data)
    expected = [np.nansum((says(line, x, level) - y) ** 2) for line in lines]
    np.testing.assert_allclose(error_sums(lines, data), expected, rtol=1e-4)
    flat = lines.clone()
    flat[..., -1] = 0
    np.testing.assert_allclose(error_sums(lines[..., :-1], data), error_sums(flat, data), rtol=1e-6)


# ---- candidates


def by_hand(
    x: np.ndarray, level: np.ndarray, y: np.ndarray, weighting: str, short: int | None, share: float, reversion: float
) -> np.ndarray:
    """What a candidate says of the rows it is solved on, by scikit-learn."""
    weight = 1 / (x.var(1) + 0.3) if weighting == "relative" else np.ones(len(x))

    def ridge(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        alpha = share * (weight[:, None] * x**2).sum(0).mean()
        return Independent(alpha=alpha).fit(x, y, sample_weight=weight).predict(x)

    said = ridge(x, y)
    if short is not None:
        recent = x[:, -short:]
        middle = recent.mean(1, keepdims=True)
        said = (said + ridge(recent - middle, y - middle) + middle) / 2
    slope = (weight[:, None] * level * (y - said)).sum(0) / (weight[:, None] * level**2).sum()
    return said + reversion * slope * level


@pytest.mark.parametrize("context_length", [2, 3, CONTEXT])
def test_every_candidate_is_what_scikit_learn_makes_of_the_same_rows(context_length):
    train = windows(waves(), context_length=context_length)
    short = {2: 2, 3: 2, CONTEXT: 8}[context_length]
    reaches = {f"{context_length} steps": None, f"{short} and {context_length} steps": short}
    names, lines = _candidates(train, plain(train, None))
    found, rows_of_train = dict(zip(names, lines, strict=True)), table(train)
    assert len(found) == 32
    for weighting, reach, share, reversion in product(("plain", "relative"), reaches, PENALTIES, REVERSIONS):
        name = f"{weighting} rows, {reach}, penalty {share:g}" + (", with reversion" if reversion else "")
        expected = by_hand(*rows_of_train, weighting, reaches[reach], share, reversion)
        np.testing.assert_allclose(says(found[name], *rows_of_train[:2]), expected, atol=2e-3, err_msg=name)


def test_an_unobserved_target_counts_as_what_the_ridge_says_of_it():
    train = windows(waves(), missing=0.2)
    ridge, (x, level, y) = plain(train, None), table(train)
    assert 0.1 < np.isnan(y).mean() < 0.3
    filled = np.where(np.isnan(y), says(ridge, x, 0 * level), y)
    names, lines = _candidates(train, ridge)
    for name in ("plain rows, 14 steps, penalty 0.1", "relative rows, 8 and 14 steps, penalty 0.01, with reversion"):
        weighting, short = name.split()[0], 8 if "8 and" in name else None
        share, reversion = (0.1, 0.0) if short is None else (0.01, 1 / 3)
        expected = by_hand(x, level, filled, weighting, short, share, reversion)
        np.testing.assert_allclose(says(lines[names.index(name)], x, level), expected, atol=2e-3, err_msg=name)


# ---- the choice


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_without_validation_it_is_the_plain_ridge(missing):
    train = windows(waves(), missing)
    line, said = chosen(train, None)
    assert torch.equal(line.full(), plain(train, None))
    assert said == "ridge, penalty 0.001"


@pytest.mark.parametrize(("noise", "missing"), [(0.01, 0.0), (0.3, 0.0), (2.0, 0.0), (0.3, 0.3)])
def test_what_is_kept_has_the_least_validation_error_of_all_the_trained_ones_too(noise, missing):
    train, validation = windows(waves(noise=noise), missing), windows(waves(90, seed=1, noise=noise), missing)
    ridge = plain(train, validation)
    names, lines = _candidates(train, ridge)
    names, lines = ["ridge", *names], [ridge, *lines.float()]
    errors = [error_of(line, validation) for line in lines]
    best = int(np.argmin(errors))
    for loss in ("absolute", "Huber"):
        trained, sum_of_squares = _trained(lines[best], train, validation, loss)
        assert sum_of_squares == pytest.approx(float(error_sums(trained[None], validation)[0]))
        names.append(f"{names[best]}, trained on {loss} loss")
        lines.append(trained)
        errors.append(error_of(trained, validation))
    line, said = chosen(train, validation)
    kept = names.index(re.sub(r"^ridge, penalty [^,]*", "ridge", said))
    assert error_of(line.full(), validation) == pytest.approx(errors[kept])
    torch.testing.assert_close(line.full(), lines[kept].detach())
    assert errors[kept] <= min(errors) * (1 + 1e-6)  # sums in single precision cannot tell closer ones apart


@pytest.mark.parametrize("n_channels", [1, 7, 300])
def test_the_rate_of_the_passes_falls_from_step_to_step_to_the_end(n_channels, monkeypatch):
    """Rows come in blocks, and each block is a step: the schedule has to count them all."""
    rates, step = [], torch.optim.Adam.step

    def noted(optimizer, *args):
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *args)

    monkeypatch.setattr(torch.optim.Adam, "step", noted)
    train = windows(np.random.default_rng(0).standard_normal((n_channels, 700)), context_length=4)
    _trained(plain(train, None), train, windows(waves(40), context_length=4), "absolute")
    assert len(rates) >= 8 and rates[0] == 1e-4
    assert all(after < before for before, after in pairwise(rates))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_wild_outliers_ask_for_training_on_a_loss_that_forgives_them(seed):
    rng, n = np.random.default_rng(seed), 1000
    values = np.sin(rng.uniform(0, 2 * np.pi, (n, 1)) + np.arange(CONTEXT + HORIZON) / 3)
    spikes = 5 * rng.pareto(1.5, (n, HORIZON))  # in the future of each one-window case, one step in ten
    values[:, CONTEXT:] += np.where(rng.random((n, HORIZON)) < 0.1, spikes, 0.0)
    train = Windows(Collection.of([Series(case[None].astype(np.float32)) for case in values]), CONTEXT, HORIZON)
    _, said = chosen(train, windows(np.sin(np.arange(200) / 3)[None]))
    assert said.endswith(("trained on absolute loss", "trained on Huber loss"))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_series_that_comes_back_to_its_mean_asks_for_reversion(seed):
    noise = np.random.default_rng(seed).standard_normal((2, 2000))
    values = np.zeros_like(noise)
    for t in range(1, noise.shape[1]):
        values[:, t] = 0.95 * values[:, t - 1] + noise[:, t]
    line, said = chosen(windows(values[:, :1500], horizon=20), windows(values[:, 1500:], horizon=20))
    assert "with reversion" in said
    assert (line.reversion < 0).all()  # a window above the mean comes down


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_wild_rows_without_a_pattern_beside_calm_ones_with_one_ask_for_relative_weights(seed):
    rng, time = np.random.default_rng(seed), np.arange(700)
    calm = np.sin(time / 4) + 0.05 * rng.standard_normal(700)
    wild = np.where(time < 500, 30 * rng.standard_normal(700), 0.0)
    values = np.stack([calm, wild])
    _, said = chosen(windows(values[:, :500]), windows(values[:, 500:]))
    assert said.startswith("relative rows")


@pytest.mark.parametrize("missing", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("noise", [0.0, 0.3, 3.0])
def test_it_is_never_worse_on_validation_than_the_plain_ridge(noise, missing):
    for seed in range(3):
        train = windows(waves(120, seed, noise), missing)
        validation = windows(waves(60, seed + 10, noise), missing)
        line, _ = chosen(train, validation)
        mine, ridge = error_sums(torch.stack([line.full(), plain(train, validation)]).detach(), validation)
        assert mine <= ridge


def test_missing_values_change_the_forecasts_a_little_only():
    train, validation = waves(1000), windows(waves(300, seed=1))
    whole, _ = chosen(windows(train), validation)
    holey, _ = chosen(windows(train, missing=0.2), validation)
    assert error_of(holey.full(), validation) < 1.1 * error_of(whole.full(), validation)


def test_solving_twice_gives_the_same_bits_whatever_was_drawn_before():
    train, validation = windows(waves(), 0.1), windows(waves(90, seed=1), 0.1)
    lines = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        lines.append(chosen(train, validation)[0].full())
    assert torch.equal(*lines)


# ---- odd data


@pytest.mark.parametrize("context_length", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("horizon", [1, 5])
def test_the_shortest_contexts_and_horizons_are_solved(context_length, horizon):
    sizes = {"context_length": context_length, "horizon": horizon}
    line, _ = chosen(windows(waves(), 0.1, **sizes), windows(waves(60, seed=1), **sizes))
    assert line.full().isfinite().all()
    assert line(torch.zeros(2, 7, context_length), 1.0, torch.zeros(2, 7, 1)).shape == (2, 7, horizon)


@pytest.mark.parametrize("n_channels", [1, 1000, 3000])
def test_two_windows_of_a_narrow_or_a_very_wide_table_are_enough(n_channels):
    values = np.random.default_rng(0).standard_normal((n_channels, 10 + 2 + 1)).cumsum(1)
    train = windows(values, context_length=10, horizon=2)
    assert len(train) == 2
    line, _ = chosen(train, train)
    assert line.full().isfinite().all()


def odd(name: str) -> np.ndarray:
    values = waves()
    return {
        "all channels constant": np.full_like(values, 3.3),
        "one channel constant": np.stack([values[0], np.full_like(values[1], -7.7)]),
        "one channel never observed": np.stack([values[0], np.full_like(values[1], np.nan)]),
        "nothing observed in the second half": np.where(np.arange(200) < 100, values, np.nan),
        "nothing observed at all": np.full_like(values, np.nan),
        "tiny": 1e-6 * values,
        "huge": 1e6 * values,
    }[name]


ODD = (
    "all channels constant", "one channel constant", "one channel never observed",
    "nothing observed in the second half", "nothing observed at all", "tiny", "huge",
)  # fmt: skip


@pytest.mark.parametrize("of_train", [True, False])
@pytest.mark.parametrize("of_validation", [True, False])
@pytest.mark.parametrize("name", ODD)
def test_odd_data_give_a_line_of_numbers(name, of_train, of_validation):
    train, validation = windows(odd(name) if of_train else waves()), windows(odd(name) if of_validation else waves())
    line, _ = chosen(train, validation)
    assert line.full().isfinite().all()
    assert np.isfinite(float(error_sums(line.full()[None].detach(), validation)[0]))


# ---- beside a network


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_with_and_without_instance_norm_the_network_begins_at_the_same_line(missing):
    noise = np.random.default_rng(0).standard_normal((2, 1200))
    values = np.zeros_like(noise)
    for t in range(1, noise.shape[1]):
        values[:, t] = 0.95 * values[:, t - 1] + noise[:, t]
    values *= np.array([[1.0], [20.0]])
    sizes = {"context_length": 16, "horizon": 10}
    train, validation = windows(values[:, :900], missing, **sizes), windows(values[:, 900:], missing, **sizes)
    task, batch = Forecast(10, line="chosen"), validation.batch(np.arange(len(validation)))
    answers = []
    for channels in ("independent", "mixed"):
        model = task.build("convtimenet", SMALL | {"channels": channels}, n_channels=2, context_length=16)
        assert "with reversion" in task.prepare(model, train, validation)
        answers.append(model.eval()(batch.context, batch.context_observed).detach())
    torch.testing.assert_close(*answers, rtol=1e-4, atol=1e-3)
    x, level, _ = table(validation)
    expected = (says(model.head.line.full(), x, level) + level).reshape(-1, 2, 10)
    np.testing.assert_allclose(answers[1], expected, rtol=1e-4, atol=2e-3)
