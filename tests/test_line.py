"""The chosen line: every candidate solved a second way, the best over the folds kept, nothing broken by odd data."""

from itertools import product

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as Independent

from prismts.data.series import Collection, Series
from prismts.layers.line import (
    PENALTIES,
    REVERSIONS,
    ChosenLine,
    RevertingLine,
    _candidates,
    _judged,
    _moments,
    _stretches,
)
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


def chosen(train: Windows, validation: Windows | None, kind: type[ChosenLine] = ChosenLine) -> tuple[ChosenLine, str]:
    line = kind(train.context_length, train.horizon)
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
    x: np.ndarray, level: np.ndarray, y: np.ndarray, weighting: str, lengths: list[int], share: float, reversion: float
) -> np.ndarray:
    """What a candidate says of the rows it is solved on, by scikit-learn."""
    weight = 1 / (x.var(1) + 0.3) if weighting == "relative" else np.ones(len(x))
    each = []
    for length in lengths:
        recent = x[:, -length:]
        middle = recent.mean(1, keepdims=True)
        alpha = share * (weight[:, None] * (recent - middle) ** 2).sum(0).mean()
        fitted = Independent(alpha=alpha).fit(recent - middle, y - middle, sample_weight=weight)
        each.append(fitted.predict(recent - middle) + middle)
    said = np.mean(each, axis=0)
    slope = (weight[:, None] * level * (y - said)).sum(0) / (weight[:, None] * level**2).sum()
    return said + reversion * slope * level


def candidates(train: Windows) -> dict[str, torch.Tensor]:
    ridge = plain(train, None).double()
    found, lines = _candidates(_moments(train, np.arange(len(train)), ridge), ridge)
    return dict(zip(map(str, found), lines, strict=True))


@pytest.mark.parametrize(("context_length", "lengths"), [(2, (2, 2, 2)), (3, (3, 2, 2)), (CONTEXT, (14, 8, 4))])
def test_every_candidate_is_what_scikit_learn_makes_of_the_same_rows(context_length, lengths):
    train = windows(waves(), context_length=context_length)
    found, rows_of_train = candidates(train), table(train)
    assert len(found) == 48 if context_length == CONTEXT else 0 < len(found) <= 48
    for weighting, n, share, reversion in product(("plain", "relative"), (1, 2, 3), PENALTIES, REVERSIONS):
        reach = " and ".join(str(length) for length in lengths[:n])
        name = f"{weighting} rows, {reach} steps, penalty {share:g}" + (", with reversion" if reversion else "")
        expected = by_hand(*rows_of_train, weighting, list(lengths[:n]), share, reversion)
        np.testing.assert_allclose(says(found[name], *rows_of_train[:2]), expected, atol=2e-3, err_msg=name)


def test_an_unobserved_target_counts_as_what_the_ridge_says_of_it():
    train = windows(waves(), missing=0.2)
    ridge, (x, level, y) = plain(train, None), table(train)
    assert 0.1 < np.isnan(y).mean() < 0.3
    filled = np.where(np.isnan(y), says(ridge, x, 0 * level), y)
    found = candidates(train)
    for weighting, lengths, share, reversion in (("plain", [14], 0.1, 0.0), ("relative", [14, 8], 0.01, 1 / 3)):
        reach = " and ".join(str(length) for length in lengths)
        name = f"{weighting} rows, {reach} steps, penalty {share:g}" + (", with reversion" if reversion else "")
        expected = by_hand(x, level, filled, weighting, lengths, share, reversion)
        np.testing.assert_allclose(says(found[name], x, level), expected, atol=2e-3, err_msg=name)


# ---- folds


def test_windows_before_between_and_across_the_cuts_are_told_apart():
    """Futures of 2 steps begin at 2 to 8: 8 steps, cut at 2 + 4 and 2 + 6."""
    found = _stretches(Windows(collection(np.zeros((1, 10))), 2, 2), np.arange(7))
    assert found.tolist() == [0, 0, 0, 1, 2, 3, 4]


def test_every_series_of_a_collection_is_cut_at_its_own_half_and_three_quarters():
    data = Windows(Collection.of([Series(np.zeros((1, n), dtype=np.float32)) for n in (10, 18, 4)]), 2, 2)
    found = _stretches(data, np.arange(len(data)))
    assert found.tolist() == [0, 0, 0, 1, 2, 3, 4, *[0] * 7, 1, 2, 2, 2, 3, 4, 4, 4, 1]


@pytest.mark.parametrize("horizon", [1, 3, 60])
@pytest.mark.parametrize("n", [80, 200])
def test_no_fold_learns_from_a_step_that_it_is_judged_by(horizon, n):
    train = windows(waves(n), horizon=horizon)
    index = np.arange(len(train))
    stretch, begin = _stretches(train, index), train.locate(index)[1]
    assert sorted(stretch) == list(stretch)
    for k in (0, 1):
        judged = begin[stretch == 2 * k + 2]
        if judged.size:
            assert (begin[stretch <= 2 * k] + horizon).max(initial=0) <= judged.min()
    if horizon < 10:
        assert all((stretch == k).any() for k in (0, 2, 4))


@pytest.mark.parametrize(("noise", "missing"), [(0.01, 0.0), (0.3, 0.0), (2.0, 0.0), (0.3, 0.2)])
def test_errors_from_sums_are_those_of_the_rows(noise, missing):
    """Against lines solved and judged row by row, each fold on its own windows."""
    train, validation = windows(waves(400, noise=noise), missing), windows(waves(90, seed=1, noise=noise), missing)
    first = RidgeMap(CONTEXT, HORIZON)
    first.solve(train, validation)
    ridge = plain(train, validation).double()
    names, lines, errors = _judged(train, validation, ridge, first.penalty)
    assert errors.shape == (3, 49) and len(names) == 48
    last = windows(waves(400, noise=noise), missing)
    part = [last.first_future[0] + round(share * (400 - CONTEXT)) for share in (0.5, 0.75)]
    ends, begins = [*part, 400], [*part, None]
    for k, (end, begin) in enumerate(zip(ends, begins, strict=True)):
        learned = Windows(last.data, CONTEXT, HORIZON, end=end)
        found = list(_candidates(_moments(learned, np.arange(len(learned)), ridge), ridge)[1])
        judge = validation if begin is None else Windows(last.data, CONTEXT, HORIZON, begin=begin, end=ends[k + 1])
        x, level, y = table_of(judge)
        y = np.where(np.isnan(y), says(ridge, x, level), y)
        expected = [((says(line, x, level) - y) ** 2).mean() for line in found]
        np.testing.assert_allclose(errors[k, 1:], expected, rtol=2e-3)
        xs, _, ys = table_of(learned)
        ys = np.where(np.isnan(ys), says(ridge, xs, 0), ys)
        solved = Independent(alpha=first.penalty * (xs**2).sum(0).mean()).fit(xs, ys)
        assert errors[k, 0] == pytest.approx(((solved.predict(x) - y) ** 2).mean(), rel=2e-3)
        if begin is None:  # what is kept in the end learned from all of train, and so did the last fold
            kept = np.stack([says(line, x, level) for line in lines])
            np.testing.assert_allclose(kept, np.stack([says(line, x, level) for line in found]), atol=2e-2)


def table_of(data: Windows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As ``table``, of a part of the series, by the rows that the solver reads."""
    parts = [
        (x[:, :-1], level, y if seen is None else y.masked_fill(~seen, np.nan)) for x, level, y, seen in rows(data)
    ]
    x, level, y = (torch.cat(each).double().numpy() for each in zip(*parts, strict=True))
    return x, level, y


# ---- the choice


def test_the_line_that_is_ahead_in_every_fold_and_most_on_average_is_kept(monkeypatch):
    """Gains of the four lines: the third loses a fold, the second wins the most of the others."""
    ratios = torch.tensor([[1, 0.9, 0.8, 0.1], [1, 0.9, 0.7, 1.01], [1, 0.9, 0.9, 0.1]], dtype=torch.float64)
    lines = torch.arange(3.0).view(3, 1, 1).expand(3, HORIZON, CONTEXT + 2)
    monkeypatch.setattr("prismts.layers.line._judged", lambda *_: (["a", "b", "c"], lines, ratios))
    line, said = chosen(windows(waves()), windows(waves(60)))
    assert said == "b, 20.4% ahead of the ridge over 3 folds"  # 1 - (.8 * .7 * .9)^(1/3)
    assert (line.full() == 1).all()


def test_where_no_line_is_ahead_in_every_fold_it_is_the_plain_ridge(monkeypatch):
    ratios = torch.tensor([[1, 0.5, 1.0], [1, 1.1, 1.0]], dtype=torch.float64)
    lines = torch.ones(2, HORIZON, CONTEXT + 2)
    monkeypatch.setattr("prismts.layers.line._judged", lambda *_: (["a", "b"], lines, ratios))
    train, validation = windows(waves()), windows(waves(60))
    line, said = chosen(train, validation)
    assert torch.equal(line.full(), plain(train, validation))
    assert said.startswith("ridge, penalty") and said.endswith("(no other line was ahead of it in all of 2 folds)")


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_without_room_for_two_folds_it_is_the_plain_ridge_and_says_so(missing):
    train = windows(waves(CONTEXT + HORIZON + 1), missing)
    for validation in (None, windows(waves(60), missing)):
        line, said = chosen(train, validation)
        assert torch.equal(line.full(), plain(train, validation))
        assert said.startswith("ridge, penalty") and "too short for folds" in said


def test_without_validation_the_folds_inside_the_training_part_choose():
    train = windows(coming_back(0)[:, :1500], horizon=20)
    line, said = chosen(train, None)
    assert said.endswith("over 2 folds") and (line.full() != plain(train, None)).any()


def coming_back(seed: int, n: int = 2000) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((2, n))
    values = np.zeros_like(noise)
    for t in range(1, n):
        values[:, t] = 0.95 * values[:, t - 1] + noise[:, t]
    return values


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_series_that_comes_back_to_its_mean_asks_for_reversion(seed):
    values = coming_back(seed)
    parts = windows(values[:, :1500], horizon=20), windows(values[:, 1500:], horizon=20)
    line, said = chosen(*parts, RevertingLine)
    assert "with reversion" in said
    assert (line.reversion < 0).all()  # a window above the mean comes down
    line, said = chosen(*parts)
    assert "reversion" not in said and not line.reversion.any()  # which only one who asks for it gets


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_wild_rows_without_a_pattern_beside_calm_ones_with_one_ask_for_relative_weights(seed):
    rng, time = np.random.default_rng(seed), np.arange(900)
    calm = np.sin(time / 4) + 0.05 * rng.standard_normal(900)
    wild = np.where(time < 300, 30 * rng.standard_normal(900), 0.0)  # quiet wherever a fold judges
    values = np.stack([calm, wild])
    _, said = chosen(windows(values[:, :700]), windows(values[:, 700:]))
    assert said.startswith("relative rows")


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
    task, batch = Forecast(10, line="reverting"), validation.batch(np.arange(len(validation)))
    answers = []
    for channels in ("independent", "mixed"):
        model = task.build("convtimenet", SMALL | {"channels": channels}, n_channels=2, context_length=16)
        assert "with reversion" in task.prepare(model, train, validation)
        answers.append(model.eval()(batch.context, batch.context_observed).detach())
    torch.testing.assert_close(*answers, rtol=1e-4, atol=1e-3)
    x, level, _ = table(validation)
    expected = (says(model.head.line.full(), x, level) + level).reshape(-1, 2, 10)
    np.testing.assert_allclose(answers[1], expected, rtol=1e-4, atol=2e-3)
