"""Lines corrected by what all channels did: solved a second way, kept only where folds say so, and never lost."""

import copy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import prismts
from prismts import Forecaster
from prismts.data.series import Collection, Series
from prismts.data.splits import Borders
from prismts.errors import PrismError, ShapeError
from prismts.estimators.adapting import adapt
from prismts.layers.coupled_line import PENALTIES, CoupledLine
from prismts.layers.individual_line import MAX_CHANNELS, IndividualLine
from prismts.layers.line import CUTS, NOTHING
from prismts.report.forecast import forecast_report
from prismts.tasks.forecast import Forecast, channel_groups
from prismts.windows import Windows

CONTEXT, HORIZON = 20, 3
SPANS = (1, 4, 16)
SMALL = {"patch_length": 4, "stride": 2, "width": 4, "feed_forward": 0, "kernel_sizes": (3,), "dropout": 0.0}

pytestmark = pytest.mark.usefixtures("networks_speak")


def led(n: int = 500, seed: int = 0, n_followers: int = 1, delay: int = 3) -> np.ndarray:
    """A leader [n] of noise that stays for a while, and channels that do what it did ``delay`` steps before."""
    rng = np.random.default_rng(seed)
    leader = np.convolve(rng.standard_normal(n + delay + 8), np.ones(4) / 2, "valid")[: n + delay]
    followers = [leader[:n] + 0.3 * rng.standard_normal(n) for _ in range(n_followers)]
    return np.stack([leader[delay:], *followers])


def apart(n: int = 500, seed: int = 0) -> np.ndarray:
    """Two channels [2, n] that know nothing of each other."""
    return np.stack([led(n, seed)[0], led(n, seed + 100)[0]])


def windows(values: np.ndarray, missing: float = 0.0, seed: int = 0) -> Windows:
    values = np.array(values, dtype=np.float32)
    values[np.random.default_rng(seed).random(values.shape) < missing] = np.nan
    return Windows(Collection.of(Series(values)), CONTEXT, HORIZON)


def solved(train: Windows, validation: Windows | None) -> tuple[CoupledLine, str]:
    line = CoupledLine(train.context_length, train.horizon)
    return line, line.solve(train, validation)


def penalty_of(said: str) -> float:
    return float(said.split("lately, penalty ")[1].split(",")[0])


def cut(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Contexts [W, C, T] and targets [W, C, H], less the mean of the context."""
    window = np.lib.stride_tricks.sliding_window_view(values.astype(np.float64), CONTEXT + HORIZON, axis=-1)
    x, y = window[..., :CONTEXT], window[..., CONTEXT:]
    mean = x.mean(-1, keepdims=True)
    return (x - mean).swapaxes(0, 1), (y - mean).swapaxes(0, 1)


def lately(x: np.ndarray) -> np.ndarray:
    """[W, C*S+1]."""
    means = np.stack([x[..., -n:].mean(-1) for n in SPANS], -1).reshape(len(x), -1)
    return np.concatenate([means, np.ones((len(x), 1))], 1)


def along(lines: torch.Tensor, x: np.ndarray) -> np.ndarray:
    """What lines [C, H, T+1] say of contexts [W, C, T]: [W, C, H]."""
    lines = lines.detach().double().numpy()
    return np.einsum("wct,cht->wch", x, lines[..., :-1]) + lines[..., -1]


def correction(x: np.ndarray, missed: np.ndarray, share: float) -> np.ndarray:
    """Ridge of misses [W, C, H] on what channels did, the constant free, by stacking rows: [C*S+1, C*H]."""
    s = lately(x)
    roots = np.sqrt(share * (s**2).sum(0))
    roots[-1] = 0.0
    stacked = np.concatenate([s, np.diag(roots)])
    targets = np.concatenate([missed.reshape(len(missed), -1), np.zeros((s.shape[1], missed[0].size))])
    return np.linalg.lstsq(stacked, targets, rcond=None)[0]


# ---- the correction


def test_the_correction_is_the_penalized_regression_of_what_the_lines_miss():
    values = led()
    line, said = solved(windows(values), windows(led(120, seed=7)))
    assert penalty_of(said) in PENALTIES
    lines = IndividualLine(CONTEXT, HORIZON)
    lines.solve(windows(values), windows(led(120, seed=7)))
    x, y = cut(values.astype(np.float32))
    base = lines.individual if len(lines.individual) else lines.full()[None, :, :-1].expand(2, -1, -1)
    found = correction(x, y - along(base, x), penalty_of(said)).T.reshape(2, HORIZON, -1)
    helped = line.coupling.detach().abs().sum((1, 2)) > 0
    assert helped[1]
    for channel in range(2):
        if helped[channel]:
            np.testing.assert_allclose(line.coupling[channel].detach(), found[channel], atol=2e-4)


def test_a_follower_is_told_by_its_leader_what_its_own_past_does_not_say():
    line, _ = solved(windows(led()), windows(led(120, seed=7)))
    lines = IndividualLine(CONTEXT, HORIZON)
    lines.solve(windows(led()), windows(led(120, seed=7)))
    x, y = cut(led(400, seed=9).astype(np.float32))
    x, y = torch.from_numpy(x).float(), torch.from_numpy(y).float()
    error, alone = ((each(x) - y).square().mean((0, 2)) for each in (line, lines))
    assert error[1] < 0.75 * alone[1]
    assert error[0] < 1.02 * alone[0]


def test_the_gain_is_that_of_corrections_solved_and_judged_row_by_row():
    """Half of train to the next quarter, three quarters to the last one, train to validation; one line for all here."""
    values, held = led(n_followers=2), led(120, seed=7, n_followers=2)
    line, said = solved(windows(values), windows(held))
    assert line.n_channels == 3 and not len(line.individual)  # so that the ridge of each fold can be solved by rows
    share, penalty = penalty_of(said), line.penalty
    helped = (line.coupling.detach().abs().sum((1, 2)) > 0).numpy()
    cuts = [CONTEXT + round(part * (500 - CONTEXT)) for part in CUTS]
    ratios = []
    for end, judge in (
        (cuts[0], values[:, cuts[0] - CONTEXT : cuts[1]]),
        (cuts[1], values[:, cuts[1] - CONTEXT :]),
        (500, held),
    ):
        x, y = cut(values[:, :end].astype(np.float32))
        rows, targets = x.reshape(-1, CONTEXT), y.reshape(-1, HORIZON)
        rows = np.concatenate([rows, np.ones((len(rows), 1))], 1)
        shrink = np.eye(CONTEXT + 1) * penalty * (rows[:, :-1] ** 2).sum(0).mean()
        shrink[-1, -1] = 0.0
        ridge = np.linalg.solve(rows.T @ rows + shrink, rows.T @ targets)

        def misses(x, y, ridge=ridge):
            return y - x @ ridge[:-1] - ridge[-1]

        found = correction(x, misses(x, y), share)
        xj, yj = cut(judge.astype(np.float32))
        before = misses(xj, yj)
        after = before - (lately(xj) @ found).reshape(before.shape)
        each = np.where(helped, (after**2).mean((0, 2)), (before**2).mean((0, 2)))
        ratios.append((each.mean() + NOTHING) / ((before**2).mean() + NOTHING))
    gain = 1 - np.exp(np.mean(np.log(ratios)))
    assert gain > 0.05 and f"{gain:.1%} ahead of the lines alone over 3 folds" in said


def test_channels_that_know_nothing_of_each_other_are_left_alone():
    train, validation = windows(apart(3000)), windows(apart(500, seed=7))
    line, said = solved(train, validation)
    lines = IndividualLine(CONTEXT, HORIZON)
    words = lines.solve(train, validation)
    assert said == f"{words}; each channel by its own past alone" and not len(line.coupling)
    x = torch.randn(5, 2, CONTEXT)
    assert torch.equal(line(x, 2.0), lines(x, 2.0)) and line.n_channels == lines.n_channels


def test_channels_that_lose_by_it_are_left_as_they_were():
    """Beside a leader and its follower stands a channel of peaks, about which neither knows anything."""

    def with_peaks(n, seed):
        rng = np.random.default_rng(seed)
        return np.concatenate([led(n, seed), 3.0 * (rng.random((1, n)) < 0.1)])

    line, said = solved(windows(with_peaks(1500, 0)), windows(with_peaks(300, 7)))
    moved = line.coupling.detach().abs().sum((1, 2)) > 0
    assert moved[1] and not moved[2]
    assert f"; {int(moved.sum())} of 3 channels by what all did lately" in said


def test_channels_in_another_order_are_corrected_in_that_order():
    order = [2, 0, 1]
    values, held = led(n_followers=2), led(120, seed=7, n_followers=2)
    one, said = solved(windows(values), windows(held))
    other, words = solved(windows(values[order]), windows(held[order]))
    assert said == words
    x = torch.randn(5, 3, CONTEXT)
    torch.testing.assert_close(one(x)[:, order], other(x[:, order]), atol=2e-4, rtol=1e-3)


def test_shifted_channels_are_forecast_as_far_away():
    line, _ = solved(windows(led()), windows(led(120, seed=7)))
    task = Forecast(HORIZON, line="coupled")
    model = task.build("convtimenet", SMALL, n_channels=2, context_length=CONTEXT).eval()
    model.head.line.load_state_dict(line.state_dict())
    x, shift = torch.randn(4, 2, CONTEXT), torch.tensor([[5.0], [-300.0]])
    torch.testing.assert_close(model(x + shift), model(x) + shift, atol=1e-3, rtol=1e-4)


def test_a_line_in_other_units_of_each_window_says_the_same():
    line, _ = solved(windows(led()), windows(led(120, seed=7)))
    x, scale = torch.randn(4, 2, CONTEXT), torch.rand(4, 2, 1) + 0.5
    torch.testing.assert_close(line(x / scale, scale) * scale, line(x), atol=1e-4, rtol=1e-4)


def test_what_is_unobserved_speaks_neither_for_nor_against_a_correction():
    line, said = solved(windows(led(900), missing=0.1), windows(led(200, seed=7), missing=0.1, seed=1))
    assert "by what all did lately" in said and line.coupling.isfinite().all()


def test_a_constant_channel_beside_others_breaks_nothing():
    values, held = led(), led(120, seed=7)
    still = [np.concatenate([each, np.zeros((1, each.shape[1]))]) for each in (values, held)]
    line, said = solved(windows(still[0]), windows(still[1]))
    assert "by what all did lately" in said and line.coupling.isfinite().all()
    assert line(torch.zeros(4, 3, CONTEXT)).isfinite().all()


@pytest.mark.parametrize("n_channels", [1, MAX_CHANNELS + 1])
def test_one_channel_and_a_wide_table_are_not_corrected(n_channels):
    values, held = led(200, n_followers=n_channels), led(80, seed=7, n_followers=n_channels)
    line, said = solved(windows(values[1:]), windows(held[1:]))
    assert not len(line.coupling) and "lately" not in said and "alone" not in said


def test_a_correction_that_would_be_too_large_is_not_made(monkeypatch):
    monkeypatch.setattr("prismts.layers.coupled_line.MAX_WEIGHTS", 2 * HORIZON * (2 * len(SPANS) + 1) - 1)
    line, said = solved(windows(led()), windows(led(120, seed=7)))
    assert not len(line.coupling) and "lately" not in said


def test_a_context_of_one_step_has_no_mean_of_its_own_to_differ_from():
    train = Windows(Collection.of(Series(led().astype(np.float32))), 1, HORIZON)
    line = CoupledLine(1, HORIZON)
    line.solve(train, None)
    assert line.spans == () and line(torch.zeros(2, 2, 1)).shape == (2, 2, HORIZON)


def test_solving_again_on_channels_that_know_nothing_forgets_the_correction():
    line, _ = solved(windows(led()), windows(led(120, seed=7)))
    assert line.n_channels == 2
    line.solve(windows(apart(3000)), windows(apart(500, seed=7)))
    assert not len(line.coupling)


def test_windows_of_other_channels_are_refused_in_words():
    line, _ = solved(windows(led(n_followers=2)), windows(led(120, seed=7, n_followers=2)))
    for shape in ((4, 2, CONTEXT), (CONTEXT,)):
        with pytest.raises(ShapeError, match="3 channels"):
            line(torch.zeros(shape))


# ---- beside a network


TINY = {
    "context_length": 24, "horizon": 4, "setting": "coupled_line", "random_state": 0, "progress": False,
    "model_settings": SMALL, "fit_settings": {"max_epochs": 1, "batch_size": 16},
}  # fmt: skip


def frame(n: int = 600, seed: int = 0) -> pd.DataFrame:
    values = led(n, seed, n_followers=2)
    return pd.DataFrame(values.T, columns=["a", "b", "c"], index=pd.date_range("2024-01-01", periods=n, freq="h"))


@pytest.fixture(scope="module")
def fitted() -> Forecaster:
    return Forecaster(**TINY).fit(frame())


def test_a_forecaster_says_that_channels_speak_to_each_other_and_reads_them_together(fitted):
    assert "by what all did lately" in fitted.line_
    assert fitted.model_.n_channels == 3
    assert channel_groups(fitted.model_, 3, 1) == [slice(0, 3)]


def test_a_saved_forecaster_answers_as_before(fitted, tmp_path):
    fitted.save(tmp_path / "m")
    loaded = prismts.load(tmp_path / "m")
    pd.testing.assert_frame_equal(loaded.predict(), fitted.predict())
    assert loaded.model_.n_channels == 3 and loaded.line_ == fitted.line_


def test_a_file_with_a_correction_of_another_horizon_is_refused(fitted):
    weights = fitted.model_.state_dict()
    weights["head.line.coupling"] = weights["head.line.coupling"][:, :-1]
    with pytest.raises(RuntimeError, match=r"head\.line\.coupling"):
        copy.deepcopy(fitted.model_).load_state_dict(weights)


def test_several_forecasters_trained_as_one_have_the_line_of_one_trained_alone(fitted):
    seeds = [TINY | {"random_state": seed} for seed in (0, 1)]
    for one in prismts.fit_many([Forecaster(**each) for each in seeds], frame(), how="stacked", progress=False):
        assert one.line_ == fitted.line_
        assert torch.equal(one.model_.head.line.coupling, fitted.model_.head.line.coupling)


def test_coupled_lines_are_the_forecaster_without_its_network(fitted):
    lines = Forecaster("coupled_lines", context_length=24, horizon=4).fit(frame())
    alone = copy.deepcopy(fitted)
    alone.model_.head.weaken(0.0)
    assert lines.line_ == fitted.line_ and lines.model_.n_channels == 3
    pd.testing.assert_frame_equal(lines.predict(), alone.predict(), rtol=1e-4, atol=1e-5)


def test_a_table_without_one_of_the_channels_is_refused(fitted):
    with pytest.raises(PrismError):
        fitted.predict(frame().drop(columns="b"))


def test_quantiles_spread_around_the_corrected_lines():
    quantiles = Forecaster(**TINY | {"quantiles": (0.1, 0.5, 0.9)}).fit(frame())
    assert quantiles.model_.n_channels == 3
    assert np.isfinite(quantiles.predict().to_numpy()).all()


@pytest.mark.parametrize("how", ["lora", "probe"])
def test_an_adapted_forecaster_learns_anew_what_channels_say_of_each_other(how, fitted, tmp_path):
    adapted = adapt(fitted, frame(seed=3)[["c", "a", "b"]].set_axis(["a", "b", "c"], axis=1), how=how, progress=False)
    assert "by what all did lately" in adapted.line_
    theirs = fitted.model_.head.line.coupling.detach()
    assert (adapted.model_.head.line.coupling.detach() - theirs).abs().max() > 0.1
    adapted.save(tmp_path / "m")
    pd.testing.assert_frame_equal(prismts.load(tmp_path / "m").predict(), adapted.predict())


def test_the_report_says_that_channels_speak_to_each_other(fitted, tmp_path):
    series = Series(led(500, n_followers=2).astype(np.float32), channels=("a", "b", "c"))
    borders = Borders(400, 450, 500)
    forecaster = Forecaster(**TINY).fit(series, validation=borders)
    scores = {"mine": forecaster.backtest(series, begin=450).scores}
    text = Path(forecast_report(tmp_path / "r.html", forecaster, series, borders, scores).path).read_text()
    assert "by what all did lately" in text
