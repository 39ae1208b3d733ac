"""The imputer: observed values stay as they are, every gap is filled in kind, and it beats a straight line."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.base import clone

from prismts.data.scaling import StandardScaler
from prismts.data.series import Collection, Series
from prismts.data.splits import Borders
from prismts.errors import DataError, NotFittedError, SettingsError
from prismts.estimators.imputer import Imputer
from prismts.tasks.reconstruct import MaskReader, Reconstruct
from prismts.windows import Windows

TINY = {"patch_length": 4, "stride": 2, "width": 8, "feed_forward": 0, "kernel_sizes": (3,), "dropout": 0.0}
QUICK = {"max_epochs": 1, "batch_size": 64, "learning_rate": 1e-2, "accelerator": "cpu"}


def imputer(**others) -> Imputer:
    settings = {"context_length": 24, "model_settings": TINY, "fit_settings": QUICK, "progress": False, **others}
    return Imputer(**settings)


def waves(n: int = 300) -> np.ndarray:
    """Three channels of which the third is the sum of the others: [3, n]."""
    t = np.arange(n)
    rng = np.random.default_rng(0)
    a, b = np.sin(t / 2) + 0.05 * rng.standard_normal(n), np.cos(t / 3)
    return np.stack([10 + a, 5 * b, 10 + a + 5 * b])


def with_gaps(x: np.ndarray, share: float = 0.2, seed: int = 1) -> np.ndarray:
    return np.where(np.random.default_rng(seed).random(x.shape) < share, np.nan, x)


def table(x: np.ndarray) -> pd.DataFrame:
    times = pd.date_range("2024-03-01", periods=x.shape[1], freq="h")
    return pd.DataFrame({"when": times, **dict(zip(("a", "b", "c"), x, strict=True))})


@pytest.fixture(scope="module")
def fitted() -> Imputer:
    return imputer().fit(table(with_gaps(waves())))


@pytest.mark.parametrize("channels", ["mixed", "independent"])
def test_gaps_are_filled_and_observed_values_are_exactly_unchanged(channels):
    x = with_gaps(waves())
    filled = imputer(model_settings={**TINY, "channels": channels}).fit_transform(x)
    assert filled.dtype == x.dtype and filled.shape == x.shape
    seen = ~np.isnan(x)
    assert np.array_equal(filled[seen], x[seen])
    assert np.isfinite(filled).all()
    assert np.abs(filled - waves())[~seen].mean() < 2


def test_an_array_of_cases_and_a_list_of_unequal_ones_come_back_as_they_came():
    cases = with_gaps(np.stack([waves(100), waves(100) + 1]))
    model = imputer().fit(cases)
    filled = model.transform(cases)
    seen = ~np.isnan(cases)
    assert filled.shape == cases.shape and np.isfinite(filled).all()
    assert np.array_equal(filled[seen], cases[seen])
    listed = model.transform([with_gaps(waves(10)), with_gaps(waves(70))])  # one shorter than the context
    assert [case.shape for case in listed] == [(3, 10), (3, 70)]
    assert all(np.isfinite(case).all() for case in listed)


def test_a_table_comes_back_as_its_kind_with_its_times_and_values(fitted):
    frame = table(with_gaps(waves()))
    for one in (frame, pl.from_pandas(frame)):
        filled = fitted.transform(one)
        assert type(filled) is type(one) and list(filled.columns) == ["when", "a", "b", "c"]
        assert (filled["when"].to_numpy() == frame["when"].to_numpy()).all()
        for name in "abc":
            old, new = frame[name].to_numpy(), filled[name].to_numpy()
            assert np.array_equal(old[~np.isnan(old)], new[~np.isnan(old)])
            assert np.isfinite(new).all()
    indexed = fitted.transform(frame.set_index("when"))
    assert isinstance(indexed.index, pd.DatetimeIndex) and not indexed.isna().any(axis=None)


def test_rows_missing_from_a_table_come_back_filled(fitted):
    frame = table(np.round(waves(), 2)).drop(index=range(50, 55))
    filled = fitted.transform(frame).set_index("when")
    assert len(filled) == 300 and not filled.isna().any(axis=None)
    kept = frame.set_index("when")
    assert (filled.loc[kept.index] == kept).all(axis=None)


def test_a_series_comes_back_as_a_series_with_its_times(fitted):
    times = pd.date_range("2024", periods=80, freq="h").to_numpy()
    series = Series(with_gaps(waves(80)).astype(np.float32), ("a", "b", "c"), times, "h")
    filled = fitted.transform(series)
    assert isinstance(filled, Series) and filled.timestamps is times and filled.observed.all()
    assert np.array_equal(filled.values[series.observed], series.values[series.observed])


def test_a_complete_table_comes_back_unchanged(fitted):
    frame = table(waves())
    pd.testing.assert_frame_equal(fitted.transform(frame), frame)


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_gap_that_no_finite_number_can_fill_is_refused(fitted):
    x = waves().astype(np.float64)
    x[0, 100], x[0, 102] = 1e200, np.nan
    with pytest.raises(DataError, match=r"no finite number. Their largest value is 1e\+200, in channel 'a'"):
        fitted.transform(x)


def test_steps_of_another_length_than_those_of_training_are_refused(tmp_path):
    hours = table(waves())
    days = hours.assign(**{hours.columns[0]: pd.date_range("2024", periods=len(hours))})
    found = imputer().fit(hours)
    found.save(tmp_path / "model")
    for ask in (
        found.transform,
        found.evaluate_removed,
        found.evaluate_windows,
        Imputer.load(tmp_path / "model").transform,
    ):
        with pytest.raises(DataError, match="learned steps of h, but these data have steps of D"):
            ask(days)
    with pytest.raises(DataError, match=r"steps of D\. Validate on data"):
        imputer().fit(hours, validation=days)


def test_columns_in_another_order_keep_it(fitted):
    frame = table(with_gaps(waves()))
    turned = fitted.transform(frame[["when", "c", "a", "b"]])
    assert list(turned.columns) == ["when", "c", "a", "b"]
    pd.testing.assert_frame_equal(turned[["when", "a", "b", "c"]], fitted.transform(frame))


def untrained(channels: str) -> Imputer:
    """An imputer whose head is still zero, so that it answers with straight lines."""
    model = imputer(model_settings={**TINY, "channels": channels}).fit(waves())
    for member in model.members_:
        torch.nn.init.zeros_(member.head.linear.weight)
        torch.nn.init.zeros_(member.head.linear.bias)
    model._inference = None
    return model


@pytest.mark.parametrize("channels", ["mixed", "independent"])
def test_before_training_short_gaps_are_crossed_by_straight_lines(channels):
    x = waves()
    x[1, 100:104] = np.nan
    filled = untrained(channels).transform(x)
    expected = np.interp(np.arange(100, 104), [99, 104], [x[1, 99], x[1, 104]])
    # a window that ends within the gap continues its last value, so those windows pull the line a little flatter
    np.testing.assert_allclose(filled[1, 100:104], expected, atol=0.6 * abs(x[1, 104] - x[1, 99]))


def test_a_gap_that_no_window_reaches_across_is_crossed_by_a_straight_line():
    x = waves()
    x[:, 100:200] = np.nan  # more than four contexts in which nothing at all is seen
    filled = untrained("mixed").transform(x)
    assert np.isfinite(filled).all()
    middle = slice(130, 170)
    for c in range(3):
        line = np.interp(np.arange(300), [99, 200], [x[c, 99], x[c, 200]])
        np.testing.assert_allclose(filled[c, middle], line[middle], rtol=1e-4, atol=1e-4)


def test_a_channel_that_is_empty_takes_its_mean_in_training_where_channels_are_read_apart():
    model = imputer(model_settings={**TINY, "channels": "independent"}).fit(waves())
    x = waves(60)
    x[1] = np.nan
    np.testing.assert_allclose(model.transform(Series(x)).values[1], model.scaler_.mean[0, 1], rtol=1e-4)


def test_a_channel_that_is_empty_in_training_is_refused():
    x = waves()
    x[2] = np.nan
    with warnings.catch_warnings(), pytest.raises(DataError, match=r"'channel_2' has no observed value.*values="):
        warnings.simplefilter("ignore")
        imputer().fit(x)


def test_training_beats_the_straight_line_on_removed_points():
    settings = {**QUICK, "max_epochs": 8, "batch_size": 32}
    model = imputer(fit_settings=settings).fit(waves(500), validation=0.2)
    scores = model.evaluate_removed(waves(500), 0.3, "blocks", length=6)
    assert scores["mse"] < 0.8 * scores["mse_line"] < scores["mse_last"]
    again = model.evaluate_removed(waves(500), 0.3, "blocks", length=6)
    assert dict(again) == dict(scores) and again.n_scored == scores.n_scored
    windows = model.evaluate_windows(waves(500), 0.3, "blocks", length=6, begin=400)
    assert windows["mse"] < windows["mse_line"]


def test_the_floors_of_removed_points_by_hand():
    model = imputer().fit(waves())
    x = np.tile(np.arange(40.0) ** 2, (3, 1))
    scores = model.evaluate_removed(x, 0.25, "points", seed=4)
    generator = torch.Generator().manual_seed(4)
    from prismts.layers.masking import Points

    hidden = Points(0.25)(torch.ones(1, 3, 40, dtype=torch.bool), generator)[0].numpy()
    left = pd.DataFrame(np.where(hidden, np.nan, x).T)
    assert scores.n_scored == hidden.sum()
    for name, filled in (("line", left.interpolate().bfill()), ("last", left.ffill().bfill())):
        error = ((filled.to_numpy().T - x) / model.scaler_.scale[0][:, None])[hidden]
        assert scores[f"mse_{name}"] == pytest.approx(np.mean(error**2), rel=1e-5)
        assert scores[f"mae_{name}"] == pytest.approx(np.mean(np.abs(error)), rel=1e-5)


def test_a_saved_imputer_fills_alike(fitted, tmp_path):
    fitted.save(tmp_path / "m")
    loaded = Imputer.load(tmp_path / "m")
    frame = table(with_gaps(waves(), seed=3))
    pd.testing.assert_frame_equal(loaded.transform(frame), fitted.transform(frame))
    assert loaded.get_params()["context_length"] == 24 and loaded.fit_result_.best_epoch == 1


def test_equal_seeds_fill_alike_and_members_are_averaged():
    x = with_gaps(waves())
    first = imputer(n_members=2).fit(x)
    assert len(first.members_) == 2
    np.testing.assert_array_equal(first.transform(x), imputer(n_members=2).fit(x).transform(x))


def test_validation_may_be_borders_or_none(tmp_path):
    x = with_gaps(waves())
    model = imputer().fit(x, validation=Borders(150, 200, 300))
    assert model.n_windows_ == {"train": 150 - 24 + 1, "validation": 50}  # none of train alone
    changed = x.copy()
    changed[:, 200:] = 1e3
    np.testing.assert_array_equal(
        imputer().fit(changed, validation=Borders(150, 200, 300)).scaler_.mean, model.scaler_.mean
    )
    assert imputer().fit(x, validation=None).n_windows_["validation"] == 0


def test_a_clone_has_the_same_arguments_and_has_learned_nothing(fitted):
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError, match="This Imputer has not learned anything yet"):
        copy.transform(waves())


def test_what_cannot_work_is_told():
    with pytest.raises(SettingsError, match="has no tokens to fill gaps from"):
        imputer(model="ridge").fit(waves())
    with pytest.raises(SettingsError, match=r"no setting named 'defualt'. Did you mean 'default'"):
        imputer(setting="defualt").fit(waves())
    with pytest.raises(SettingsError, match="context_length is a whole number"):
        imputer(context_length=0).fit(waves())
    with pytest.raises(SettingsError, match="no mask named 'point'"):
        imputer().fit(waves()).evaluate_removed(waves(), kind="point")


def test_a_collection_comes_back_as_a_collection(fitted):
    cases = Collection.of([Series(with_gaps(waves(50)), ("a", "b", "c"), name=str(i)) for i in range(2)])
    filled = fitted.transform(cases)
    assert isinstance(filled, Collection) and np.isfinite(filled.values).all() and filled.names == cases.names


def test_a_file_comes_back_as_a_table_with_the_numbers_it_holds(fitted, tmp_path):
    frame = table(np.round(with_gaps(waves()), 3))
    frame.to_csv(tmp_path / "data.csv", index=False)
    filled = fitted.transform(tmp_path / "data.csv")
    for name in "abc":
        seen = frame[name].notna()
        assert (filled.loc[seen, name] == frame.loc[seen, name]).all()
    assert not filled.isna().any(axis=None)


@pytest.mark.parametrize("kind", ["csv", "parquet", "txt"])
def test_a_file_comes_back_with_every_digit_that_it_holds(kind, tmp_path):
    steps = np.arange(200)
    frame = pd.DataFrame({"value": np.round(12251460.44 + 1e6 * np.sin(steps / 9), 2), "small": np.sin(steps / 7)})
    frame.loc[50:52, "value"] = np.nan
    frame = frame[["value"]] if kind == "txt" else frame
    file = tmp_path / f"data.{kind}"
    if kind == "parquet":
        frame.to_parquet(file)
    else:
        frame.to_csv(file, index=False, header=kind == "csv", na_rep="nan" if kind == "txt" else "")
    filled = imputer().fit_transform(file)
    for name in frame:
        seen = frame[name].notna()
        np.testing.assert_array_equal(filled.loc[seen, name], frame.loc[seen, name])
    assert 11e6 < filled.loc[51, "value"] < 13.5e6
    assert filled[list(frame)].notna().all(axis=None)


def test_rows_that_are_added_leave_the_others_with_every_digit(fitted):
    frame = table(waves() + 1e-9)
    filled = fitted.transform(frame.drop(index=[50, 51]))
    seen = [i for i in range(300) if i not in (50, 51)]
    np.testing.assert_array_equal(filled.iloc[seen][list("abc")], frame.iloc[seen][list("abc")])


def of_many_types() -> pd.DataFrame:
    """Columns of every type that a table may have, some with gaps."""
    a = np.sin(np.arange(120) / 3)
    gap = np.arange(120) % 11 == 5
    return pd.DataFrame({
        "f32": np.where(gap, np.nan, a).astype(np.float32), "f64": np.where(gap, np.nan, a),
        "whole": (100 * a).astype(np.int16), "flag": a > 0, "I64": pd.array((100 * a).astype(int), dtype="Int64"),
        "holed": pd.array([None if g else round(100 * v) for g, v in zip(gap, a, strict=True)], dtype="Int64"),
    })  # fmt: skip


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow"])
def test_a_column_keeps_its_type_where_that_can_hold_its_values(kind):
    import pyarrow as pa

    given = of_many_types()
    make = {"pandas": lambda t: t, "polars": pl.from_pandas, "pyarrow": pa.Table.from_pandas}[kind]
    native = make(given)
    filled = imputer().fit(native).transform(native)
    assert type(filled) is type(native)
    found = filled if kind == "pandas" else filled.to_pandas()
    expected = {
        "f32": "float32",
        "f64": "float64",
        "whole": "int16",
        "flag": "bool",
        "I64": "int64",
        "holed": "float64",
    }
    assert {name: str(dtype).lower() for name, dtype in found.dtypes.items()} == expected
    for name in given:
        seen = given[name].notna().to_numpy()
        assert (np.asarray(found[name], float)[seen] == np.asarray(given[name][seen], float)).all(), name
    assert not found.isna().any(axis=None)


def test_a_column_of_single_precision_keeps_it_where_rows_are_added_too():
    given = table(waves(100)).astype({"a": np.float32}).drop(index=[40, 41])
    filled = imputer().fit(given).transform(given)
    assert len(filled) == 100 and filled["a"].dtype == np.float32 and filled["b"].dtype == np.float64


@pytest.mark.parametrize("kind", [lambda t: t, lambda t: t.drop(columns="when").to_numpy().T])
def test_a_table_or_array_of_which_a_channel_is_dead_is_filled_as_a_series_is(fitted, kind):
    given = table(waves(100))
    given["c"] = np.nan
    series = Series(given[["a", "b", "c"]].to_numpy().T, ("a", "b", "c"))
    filled = fitted.transform(kind(given))
    values = filled if isinstance(filled, np.ndarray) else filled[["a", "b", "c"]].to_numpy().T
    np.testing.assert_allclose(values, fitted.transform(series).values, rtol=1e-5)


def test_an_imputer_cannot_read_windows_of_another_length_than_it_was_fitted_with():
    found = imputer().fit(waves(100)).set_params(context_length=48)
    with pytest.raises(SettingsError, match="context_length was 24 when this Imputer was fitted, and is 48 now"):
        found.transform(with_gaps(waves(100)))


def test_what_an_imputer_adds_near_observed_points_counts_no_more_than_validation_says():
    data = Collection.of(Series(waves().astype(np.float32)))
    windows = Windows(data, 24, 0, scaler=StandardScaler.fit(data), stride=5)
    task = Reconstruct(["points", "blocks"])
    model = task.build("convtimenet", {**TINY, "channels": "mixed"}, n_channels=3, context_length=24)
    assert isinstance(model, MaskReader)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.head.linear.weight, std=0.3)  # it says much, and nothing of it is learned

    def error() -> float:
        with torch.no_grad():
            sums = [task.errors(model.eval(), batch) for batch in windows.in_order(64)]
        return float(sum(s for s, _ in sums) / sum(n for _, n in sums))

    weights, before = model.weight.detach().clone(), error()
    shares = task.finish(model, windows)
    after = error()
    assert after < before and shares.shape == (3,) and shares.min() >= 0 and shares.min() < 1
    torch.testing.assert_close(model.weight.detach(), weights)  # what was learned stays as it was
    torch.testing.assert_close(task.finish(model, windows), shares)
    for channel, by in [(c, by) for c in range(3) for by in (-0.02, 0.02)]:  # and no other share is better
        model.share.copy_(shares)
        model.share[channel] += by
        assert error() > after - 1e-7 or not 0 <= model.share[channel] <= 1
    assert task.finish(model, None) is None


def test_weights_that_were_saved_before_there_were_shares_still_load():
    task = Reconstruct("points")
    model = task.build("convtimenet", {**TINY, "channels": "mixed"}, n_channels=3, context_length=24)
    old = {name: value for name, value in model.state_dict().items() if name != "share"}
    model.share.fill_(0.5)
    model.load_state_dict(old)
    assert (model.share == 1).all()


def test_an_encoder_that_reads_channels_apart_has_nothing_to_weigh():
    data = Collection.of(Series(waves()))
    task = Reconstruct("points")
    model = task.build("convtimenet", {**TINY, "channels": "independent"}, n_channels=3, context_length=24)
    assert task.finish(model, Windows(data, 24, 0)) is None
