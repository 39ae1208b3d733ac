"""Rows that come at any time: laid on a grid for what needs one, read where they were measured by what can."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import prismts
from prismts.data.irregular import on_grid
from prismts.data.series import Collection, Series
from prismts.data.synthetic import simulated_plant
from prismts.errors import DataError, SettingsError
from prismts.estimators.forecaster import Forecaster
from prismts.windows import Windows

START = np.datetime64("2024-01-01T00:00", "ns")
MINUTE = np.timedelta64(1, "m")


def rows_at(minutes, values=None, frequency: str | None = "h", name: str = "a") -> Series:
    minutes = np.asarray(minutes)
    values = np.arange(len(minutes), dtype=np.float32)[None] if values is None else np.asarray(values)
    return Series(values, (), START + minutes * MINUTE, frequency, name)


# ---- the grid


def test_each_step_takes_the_row_next_to_it():
    laid, measured = on_grid(Collection.of(rows_at([0, 55, 70, 200, 245])))
    np.testing.assert_array_equal(laid.values, [[0, 1, np.nan, 3, 4]])
    assert (laid.timestamps == START + np.arange(5) * 60 * MINUTE).all()
    np.testing.assert_allclose(measured.places, np.array([0, 55, 70, 200, 245]) / 60)
    assert measured.cells.tolist() == [0, 1, 1, 3, 4]


def test_of_two_rows_of_one_step_the_nearer_one_counts_and_of_equally_near_ones_the_first():
    laid, _ = on_grid(Collection.of(rows_at([0, 50, 65, 115, 125])))
    assert laid.values.tolist() == [[0, 2, 3]]


def test_rows_that_jitter_lie_on_the_steps_a_clock_would_show():
    laid, measured = on_grid(Collection.of(rows_at([3, 61, 118])))
    assert (laid.timestamps == START + np.arange(3) * 60 * MINUTE).all()
    np.testing.assert_allclose(measured.places * 60, [3, 61, 118])


@given(st.integers(0, 999), st.floats(0.05, 1.0))
@settings(deadline=None, max_examples=40)
def test_leaving_rows_of_a_regular_table_out_leaves_its_grid_as_the_reader_fills_it(seed, share):
    rng = np.random.default_rng(seed)
    kept = np.flatnonzero(rng.random(60) < share)
    if len(kept) < 4:
        return
    frame = pd.DataFrame({"when": START + kept * 60 * MINUTE, "x": rng.normal(size=len(kept)).astype(np.float32)})
    filled = prismts.read(frame, frequency="h")
    laid, measured = on_grid(Collection.of(prismts.read(frame, frequency="h", gaps="keep")))
    np.testing.assert_array_equal(laid.values, filled.values)
    assert (laid.timestamps == filled.timestamps).all()
    assert measured.cells.tolist() == (kept - kept[0]).tolist() == measured.places.tolist()


def test_several_series_each_begin_on_their_own_step():
    both = Collection.of([rows_at([0, 120], name="a"), rows_at([600, 660, 780], name="b")])
    laid, measured = on_grid(both)
    assert laid.offsets.tolist() == [0, 3, 7]
    assert measured.places.tolist() == [0, 2, 0, 1, 3]
    later = measured.since(np.array([1, 3]))
    assert later.places.tolist() == [1, 0]
    assert later.offsets.tolist() == [0, 1, 2]
    assert later.values.tolist() == [[1, 2]]


def test_months_lie_on_the_calendar_and_days_within_them_by_their_share():
    stamps = np.array(["2024-01-01", "2024-02-01", "2024-03-16T12", "2024-04-01"], dtype="datetime64[ns]")
    laid, measured = on_grid(Collection.of(Series(np.zeros((1, 4), np.float32), (), stamps, "MS")))
    np.testing.assert_allclose(measured.places, [0, 1, 2.5, 3])
    assert laid.frequency == "MS" and laid.values.shape == (1, 4)
    assert (laid.timestamps == pd.date_range("2024-01-01", periods=4, freq="MS").to_numpy()).all()


def test_a_series_without_times_lies_where_it_is():
    data = Collection.of(Series(np.zeros((1, 3), np.float32)))
    laid, measured = on_grid(data)
    assert laid is data and measured.places.tolist() == [0, 1, 2]


def test_what_cannot_be_laid_out_is_refused_in_words():
    with pytest.raises(DataError, match=r"spread over .* steps, nearly all of them empty\. Give the step"):
        on_grid(Collection.of(rows_at([0, 60, 6_000_000])))
    with pytest.raises(DataError, match="in order of time"):
        on_grid(Collection.of(rows_at([60, 0])))
    with pytest.raises(DataError, match="frequency of these series is not known"):
        on_grid(Collection.of(rows_at([0], frequency=None)))


# ---- windows


def test_the_measurements_of_a_regular_window_are_its_context_at_whole_steps():
    data = Collection.of(rows_at(60 * np.arange(30)))
    laid, measured = on_grid(data)
    batch = Windows(laid, 8, 2, measured=measured).batch(np.arange(21))
    assert torch.equal(batch.rows, batch.context) and batch.rows_observed is None
    assert torch.equal(batch.times, torch.arange(8.0).expand(21, -1))


def test_a_window_holds_the_measurements_of_its_context_and_none_of_its_future():
    minutes = [0, 60, 90, 125, 180, 240, 299, 360]
    laid, measured = on_grid(Collection.of(rows_at(minutes)))
    windows = Windows(laid, 3, 2, measured=measured)
    assert len(windows) == 3  # seven steps
    batch = windows.batch(np.array([0, 1, 2]))
    times, rows = (batch.times * 60).round(), batch.rows[:, 0]
    seen = torch.ones_like(rows, dtype=torch.bool) if batch.rows_observed is None else batch.rows_observed[:, 0]
    assert times[0][seen[0]].tolist() == [0, 60, 90, 125]
    assert rows[0][seen[0]].tolist() == [0, 1, 2, 3]
    assert times[1][seen[1]].tolist() == [0, 30, 65, 120]
    assert times[2][seen[2]].tolist() == [-30, 5, 60, 120]  # halfway between two steps belongs to the later one
    assert (times.diff(dim=1) >= 0).all()


def test_a_series_shorter_than_the_context_has_only_its_own_rows():
    both = Collection.of([rows_at([0, 60, 120], name="a"), rows_at([0, 60], name="b")])
    laid, measured = on_grid(both)
    batch = Windows.at_the_end(laid, 5, measured=measured).batch(np.array([0, 1]))
    assert batch.rows_observed[:, 0].sum(-1).tolist() == [3, 2]
    assert batch.times[1][batch.rows_observed[1, 0]].tolist() == [3, 4]


# ---- forecasting

TINY = {
    "model": "universal", "context_length": 48, "horizon": 12, "progress": False,
    "model_settings": {"patch_lengths": (8, 16), "stride": 8, "width": 8, "feed_forward": 16, "kernel_sizes": (3, 5)},
    "fit_settings": {"max_epochs": 1, "min_steps": 8, "batch_size": 64},
}  # fmt: skip


def table(n: int = 500) -> pd.DataFrame:
    plant = simulated_plant(n, seed=1)
    frame = pd.DataFrame(plant.values[:2].T, columns=["feeder_1", "feeder_2"])
    frame.insert(0, "when", plant.timestamps)
    return frame


@pytest.fixture(scope="module")
def thinned() -> pd.DataFrame:
    frame = table()
    return frame[np.random.default_rng(0).random(len(frame)) < 0.7].reset_index(drop=True)


@pytest.fixture(scope="module")
def jittered(thinned) -> pd.DataFrame:
    minutes = np.random.default_rng(1).integers(-12, 13, len(thinned))
    return thinned.assign(when=thinned["when"] + pd.to_timedelta(minutes, "min"))


@pytest.fixture(scope="module")
def real(jittered) -> Forecaster:
    return Forecaster(**TINY, times="real", frequency="h").fit(jittered)


@pytest.mark.long
def test_a_regular_series_gives_the_same_forecast_with_times_as_without():
    told = [Forecaster(**TINY, times=times).fit(table()).predict() for times in ("real", "grid")]
    assert (told[0]["when"] == told[1]["when"]).all()
    np.testing.assert_allclose(told[0][["feeder_1"]], told[1][["feeder_1"]], rtol=1e-4)


@pytest.mark.long
def test_leaving_rows_out_with_times_is_filling_them_as_not_observed(thinned):
    told = [Forecaster(**TINY, times=times, frequency="h").fit(thinned).predict() for times in ("real", "grid")]
    assert (told[0]["when"] == told[1]["when"]).all()
    np.testing.assert_allclose(told[0][["feeder_1"]], told[1][["feeder_1"]], rtol=1e-3)


def test_a_table_whose_rows_come_at_any_time_is_continued_on_the_steps_of_its_frequency(real, jittered):
    told = real.predict()
    last = jittered["when"].iloc[-1].round("h")
    assert (told["when"] == pd.date_range(last, periods=13, freq="h")[1:]).all()
    assert np.isfinite(told[["feeder_1", "feeder_2"]]).all(axis=None)
    pd.testing.assert_frame_equal(real.predict(jittered), told)
    pd.testing.assert_frame_equal(real.predict(jittered.iloc[-60:]), told)


def test_when_a_row_was_measured_matters_where_times_are_real(real, jittered):
    other = jittered.copy()
    other.loc[len(other) - 9, "when"] += pd.Timedelta(minutes=5)
    changed = np.abs(real.predict(other)["feeder_1"] - real.predict(jittered)["feeder_1"])
    assert changed.max() > 0


def test_a_forecaster_of_real_times_is_backtested_saved_and_loaded(real, jittered, tmp_path):
    scores = real.backtest(jittered, begin=400).scores
    assert np.isfinite(scores["mse"]) and scores.n_scored > 0
    real.save(tmp_path / "m")
    again = prismts.load(tmp_path / "m")
    pd.testing.assert_frame_equal(again.predict(), real.predict())
    assert again.backtest(jittered, begin=400).scores["mse"] == pytest.approx(scores["mse"], rel=1e-5)


def test_windows_of_rows_at_any_time_are_those_of_the_backtest(real, jittered):
    rows = prismts.read(jittered, gaps="keep", frequency="h")
    windows = real.scaled_windows_(Collection.of(rows), begin=400)
    assert len(windows) == real.backtest(jittered, begin=400).scores.n_scored
    assert windows.batch(np.array([0])).times is not None


@pytest.mark.long
def test_members_and_quantiles_read_times_too(jittered):
    both = Forecaster(**TINY, times="real", frequency="h", n_members=2, quantiles=(0.1, 0.5, 0.9)).fit(jittered)
    told = both.predict()
    assert (told["feeder_1_q0.1"] <= told["feeder_1_q0.9"]).all()


def test_a_model_that_reads_no_times_is_refused():
    with pytest.raises(SettingsError, match="times='real' needs a model that reads when each row was measured, such"):
        Forecaster(context_length=48, horizon=12, times="real").fit(table())
    with pytest.raises(SettingsError, match="lets the network read the last 336 steps of the grid"):
        Forecaster("universal", context_length=400, horizon=12, times="real", setting="long_line").fit(table())
    with pytest.raises(SettingsError, match="has a cross_learner among its networks, which reads steps of the grid"):
        Forecaster("universal", context_length=48, horizon=12, times="real", setting="two_encoders").fit(table())
    with pytest.raises(SettingsError, match=r"no way to read times named 'reall'\. Did you mean 'real'"):
        Forecaster("universal", times="reall").fit(table())
