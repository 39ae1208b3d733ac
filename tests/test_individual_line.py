"""Lines of each channel's own: solved a second way, kept only where folds say that channels differ, and never lost."""

import copy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import Ridge as Independent

import prismts
from prismts import Forecaster
from prismts.data.series import Collection, Series
from prismts.data.splits import Borders
from prismts.errors import PrismError, ShapeError
from prismts.estimators.adapting import adapt
from prismts.estimators.universal import ForecastOn, UniversalModel
from prismts.layers.individual_line import MAX_CHANNELS, PENALTIES, IndividualLine
from prismts.layers.line import ChosenLine
from prismts.report.forecast import forecast_report
from prismts.tasks.forecast import Forecast, channel_groups
from prismts.windows import Windows

CONTEXT, HORIZON = 12, 3
SMALL = {"patch_length": 4, "stride": 2, "width": 4, "feed_forward": 0, "kernel_sizes": (3,), "dropout": 0.0}


def walks(signs=(0.9, -0.9), n: int = 400, seed: int = 0) -> np.ndarray:
    """Channels [C, n] that are each this share of their step before, and noise."""
    rng = np.random.default_rng(seed)
    values = np.zeros((len(signs), n))
    for t in range(1, n):
        values[:, t] = np.array(signs) * values[:, t - 1] + rng.standard_normal(len(signs))
    return values


def windows(values: np.ndarray, missing: float = 0.0, seed: int = 0) -> Windows:
    values = np.array(values, dtype=np.float32)
    values[np.random.default_rng(seed).random(values.shape) < missing] = np.nan
    return Windows(Collection.of(Series(values)), CONTEXT, HORIZON)


def solved(
    train: Windows, validation: Windows | None, kind: type[ChosenLine] = IndividualLine
) -> tuple[ChosenLine, str]:
    line = kind(train.context_length, train.horizon)
    return line, line.solve(train, validation)


def of_channel(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Contexts [R, T] and targets [R, H] of one channel, less the mean of the context."""
    cut = np.lib.stride_tricks.sliding_window_view(values, CONTEXT + HORIZON)
    x, y = cut[:, :CONTEXT], cut[:, CONTEXT:]
    return x - x.mean(1, keepdims=True), y - x.mean(1, keepdims=True)


def says(line: torch.Tensor, x: np.ndarray) -> np.ndarray:
    line = line.detach().double().numpy()
    return x @ line[:, :CONTEXT].T + line[:, CONTEXT]


# ---- the lines


def test_each_channel_has_the_line_that_scikit_learn_makes_of_what_the_common_one_misses():
    """Ridge on the residuals of the channel's own rows; the penalty is a share of the mean square of its inputs."""
    values, later = walks(seed=2), windows(walks(n=90, seed=12))
    line, said = solved(windows(values), later)
    common, _ = solved(windows(values), later, ChosenLine)
    share = float(said.split("own, penalty ")[1].split(",")[0])
    assert share in PENALTIES and common.weighting == "plain"
    for channel, own in zip(values.astype(np.float32).astype(np.float64), line.individual, strict=True):
        x, y = of_channel(channel)
        bent = Independent(alpha=share * (x**2).sum(0).mean()).fit(x, y - says(common.full(), x))
        np.testing.assert_allclose(says(own, x), says(common.full(), x) + bent.predict(x), atol=2e-3)


def test_the_gain_is_that_of_lines_solved_and_judged_row_by_row():
    """Half of train to the next quarter, three quarters to the last one, train to validation."""
    values, held = walks(seed=2), walks(n=90, seed=12)  # where the plain ridge is the best line for all
    train, validation = windows(values), windows(held)
    line, said = solved(train, validation)
    common, _ = solved(train, validation, ChosenLine)
    share = float(said.split("own, penalty ")[1].split(",")[0])
    cuts = [CONTEXT + round(part * (400 - CONTEXT)) for part in (0.5, 0.75)]
    ratios = []
    for end, judge in (
        (cuts[0], values[:, cuts[0] - CONTEXT : cuts[1]]),
        (cuts[1], values[:, cuts[1] - CONTEXT :]),
        (400, held),
    ):
        rows_ = [of_channel(channel[:end]) for channel in values]
        x, y = (np.concatenate(each) for each in zip(*rows_, strict=True))
        all_ = Independent(alpha=common.penalty * (x**2).sum(0).mean()).fit(x, y)
        alike, own = [], []
        for (xs, ys), channel in zip(rows_, judge, strict=True):
            bent = Independent(alpha=share * (xs**2).sum(0).mean()).fit(xs, ys - all_.predict(xs))
            xj, yj = of_channel(channel)
            alike.append((all_.predict(xj) - yj) ** 2)
            own.append((all_.predict(xj) + bent.predict(xj) - yj) ** 2)
        ratios.append(np.mean(own) / np.mean(alike))
    gain = 1 - np.exp(np.mean(np.log(ratios)))
    assert gain > 0.1 and said.endswith(f", {gain:.1%} ahead of one for all over 3 folds")
    assert line.n_channels == 2


def test_channels_of_one_kind_keep_one_line_for_all():
    alike = np.repeat(walks((0.8,)), 3, axis=0)
    train, validation = windows(alike), windows(np.repeat(walks((0.8,), n=90, seed=1), 3, axis=0))
    line, said = solved(train, validation)
    common, words = solved(train, validation, ChosenLine)
    assert said == f"{words}, for all channels alike" and line.n_channels is None
    assert torch.equal(line.full(), common.full())
    x = torch.randn(5, 3, CONTEXT)
    assert torch.equal(line(x, 2.0), common(x, 2.0))


def test_channels_in_another_order_have_their_lines_in_that_order():
    signs, order = (0.9, -0.9, 0.2), [2, 0, 1]
    values, held = walks(signs), walks(signs, n=90, seed=1)
    one, said = solved(windows(values), windows(held))
    other, words = solved(windows(values[order]), windows(held[order]))
    assert said == words
    assert isinstance(one, IndividualLine) and isinstance(other, IndividualLine)
    torch.testing.assert_close(one.individual[order], other.individual, atol=1e-4, rtol=1e-3)


def test_what_is_unobserved_speaks_neither_for_nor_against_a_line_of_ones_own():
    train, validation = windows(walks(), missing=0.1), windows(walks(n=120, seed=1), missing=0.1, seed=1)
    line, said = solved(train, validation)
    assert line.n_channels == 2 and "each channel its own" in said
    x, y = of_channel(walks(n=300, seed=2)[1])
    assert ((says(line.individual[1], x) - y) ** 2).mean() < 0.9 * ((says(line.full(), x) - y) ** 2).mean()


def test_a_constant_channel_beside_others_breaks_nothing():
    values = np.concatenate([walks(), np.zeros((1, 400))])
    line, said = solved(windows(values), windows(np.concatenate([walks(n=90, seed=1), np.zeros((1, 90))])))
    assert "each channel its own" in said and line.individual.isfinite().all()
    assert line(torch.zeros(4, 3, CONTEXT)).isfinite().all()


@pytest.mark.parametrize("signs", [(0.9,), (0.9, -0.9) * (MAX_CHANNELS // 2 + 1)])
def test_one_channel_and_a_wide_table_have_one_line(signs):
    train, validation = windows(walks(signs)), windows(walks(signs, n=60, seed=1))
    line, said = solved(train, validation)
    assert line.n_channels is None and said == solved(train, validation, ChosenLine)[1]


def test_lines_that_would_be_too_large_are_not_made(monkeypatch):
    monkeypatch.setattr("prismts.layers.individual_line.MAX_WEIGHTS", 2 * HORIZON * (CONTEXT + 1) - 1)
    line, said = solved(windows(walks()), windows(walks(n=60, seed=1)))
    assert line.n_channels is None and "each channel" not in said


def test_solving_again_on_channels_that_are_alike_forgets_the_lines():
    line, _ = solved(windows(walks()), windows(walks(n=90, seed=1)))
    assert line.n_channels == 2
    alike = np.repeat(walks((0.8,)), 2, axis=0)
    line.solve(windows(alike), windows(np.repeat(walks((0.8,), n=90, seed=1), 2, axis=0)))
    assert line.n_channels is None


def test_windows_of_other_channels_are_refused_in_words():
    line, _ = solved(windows(walks()), windows(walks(n=90, seed=1)))
    for shape in ((4, 3, CONTEXT), (CONTEXT,)):
        with pytest.raises(ShapeError, match="a line for each of 2 channels"):
            line(torch.zeros(shape))


# ---- beside a network


TINY = {
    "context_length": 24, "horizon": 4, "setting": "individual_line", "random_state": 0, "progress": False,
    "model_settings": SMALL, "fit_settings": {"max_epochs": 1, "batch_size": 16},
}  # fmt: skip


def frame(n: int = 500, signs=(0.9, -0.9, 0.3)) -> pd.DataFrame:
    columns = [f"c{i}" for i in range(len(signs))]
    return pd.DataFrame(walks(signs, n).T, columns=columns, index=pd.date_range("2024-01-01", periods=n, freq="h"))


@pytest.fixture(scope="module")
def fitted() -> Forecaster:
    return Forecaster(**TINY).fit(frame())


def test_a_forecaster_says_whose_the_lines_are_and_reads_its_channels_together(fitted):
    assert "each channel its own" in fitted.line_
    assert fitted.model_.n_channels == 3
    assert channel_groups(fitted.model_, 3, 1) == [slice(0, 3)]


def test_a_saved_forecaster_answers_as_before(fitted, tmp_path):
    fitted.save(tmp_path / "m")
    loaded = prismts.load(tmp_path / "m")
    pd.testing.assert_frame_equal(loaded.predict(), fitted.predict())
    assert loaded.model_.n_channels == 3 and loaded.line_ == fitted.line_


def test_an_untrained_copy_takes_the_lines_with_the_weights(fitted):
    model = copy.deepcopy(fitted.model_)
    task = Forecast(4, line="individual")
    fresh = task.build("convtimenet", SMALL, n_channels=3, context_length=24)
    fresh.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 24)
    assert torch.equal(fresh.eval()(x), model.eval()(x))


def test_a_file_with_lines_of_another_length_is_refused(fitted):
    weights = fitted.model_.state_dict()
    weights["head.line.individual"] = weights["head.line.individual"][..., :-1]
    with pytest.raises(RuntimeError, match=r"head\.line\.individual"):
        copy.deepcopy(fitted.model_).load_state_dict(weights)


def test_few_channels_at_once_change_nothing_where_each_has_its_line(fitted):
    few = Forecaster(**TINY | {"fit_settings": {**TINY["fit_settings"], "channels_at_once": 1}}).fit(frame())
    pd.testing.assert_frame_equal(few.predict(), fitted.predict())


def test_members_share_the_lines():
    several = Forecaster(**TINY | {"n_members": 2}).fit(frame())
    first, second = (member.head.line.individual for member in several.members_)
    assert len(first) == 3 and torch.equal(first, second)


def test_several_forecasters_trained_as_one_are_those_trained_one_by_one():
    seeds = [TINY | {"random_state": seed} for seed in (0, 1)]
    alone = [Forecaster(**each).fit(frame()).predict() for each in seeds]
    together = prismts.fit_many([Forecaster(**each) for each in seeds], frame(), how="stacked", progress=False)
    for one, other in zip(alone, together, strict=True):
        pd.testing.assert_frame_equal(one, other.predict(), rtol=1e-3, atol=1e-3)


def test_chosen_lines_are_the_forecaster_without_its_network(fitted):
    lines = Forecaster("chosen_lines", context_length=24, horizon=4).fit(frame())
    alone = copy.deepcopy(fitted)
    alone.model_.head.weaken(0.0)
    assert lines.line_ == fitted.line_ and lines.model_.n_channels == 3
    pd.testing.assert_frame_equal(lines.predict(), alone.predict(), rtol=1e-4, atol=1e-5)


def test_a_table_without_one_of_the_channels_is_refused(fitted):
    with pytest.raises(PrismError):
        fitted.predict(frame().drop(columns="c1"))


def test_quantiles_spread_around_the_lines():
    quantiles = Forecaster(**TINY | {"quantiles": (0.1, 0.5, 0.9)}).fit(frame())
    assert quantiles.model_.n_channels == 3
    spread = quantiles.predict()
    assert np.isfinite(spread.to_numpy()).all()


def test_a_shared_encoder_takes_lines_of_each_channels_own_too(tmp_path):
    """Channels come together where each has its line, however few were to be read at once."""
    fit = {**TINY["fit_settings"], "channels_at_once": 1}
    model = UniversalModel(
        "convtimenet", context_length=24, encoder_settings=SMALL, fit_settings=fit, progress=False, random_state=0
    ).fit(ForecastOn(frame(), horizon=4, line="individual"))
    assert "each channel its own" in model.estimators_["forecast"].line_
    model.save(tmp_path / "m")
    pd.testing.assert_frame_equal(prismts.load(tmp_path / "m").forecast(), model.forecast())


@pytest.mark.parametrize("how", ["lora", "probe"])
def test_an_adapted_forecaster_has_the_lines_of_its_new_data(how, fitted, tmp_path):
    other = frame(signs=(-0.9, 0.9, 0.3))
    adapted = adapt(fitted, other, how=how, progress=False)
    assert "each channel its own" in adapted.line_
    apart = np.abs(
        adapted.model_.head.line.individual.detach().numpy() - fitted.model_.head.line.individual.detach().numpy()
    )
    assert apart.max() > 0.1
    adapted.save(tmp_path / "m")
    pd.testing.assert_frame_equal(prismts.load(tmp_path / "m").predict(), adapted.predict())


def test_the_report_says_whose_the_lines_are_and_draws_patches_of_single_channels(fitted, tmp_path):
    series = Series(walks((0.9, -0.9, 0.3), 500).astype(np.float32), channels=("c0", "c1", "c2"))
    borders = Borders(400, 450, 500)
    forecaster = Forecaster(**TINY).fit(series, validation=borders)
    scores = {"mine": forecaster.backtest(series, begin=450).scores}
    text = Path(forecast_report(tmp_path / "r.html", forecaster, series, borders, scores).path).read_text()
    assert "each channel its own" in text and "cut together" not in text
