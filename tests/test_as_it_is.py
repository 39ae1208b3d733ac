"""What comes in is read as what it is: each channel by its name, each value in its size, or it is refused."""

import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import prismts
from prismts import Forecaster, Imputer, Series
from prismts.data.corpus import Corpus, Member
from prismts.data.generator import write_generated
from prismts.data.series import Collection
from prismts.errors import DataError, PrismError, ShapeError

STEPS = np.arange(300)
X = np.stack([np.sin(STEPS / 4), 100 + np.cos(STEPS / 6)])
FEW = {"fit_settings": {"max_epochs": 1}, "progress": False}


def ridge(context_length: int = 48) -> Forecaster:
    return Forecaster("ridge", context_length=context_length, horizon=3, progress=False)


def test_channels_are_told_apart_by_name_also_where_the_names_are_numbers():
    model = Imputer(context_length=24, **FEW).fit(X)
    turned = Series(X[::-1].copy(), ("channel_1", "channel_0"))
    gappy = turned.values.copy()
    gappy[1, 50] = np.nan
    filled = model.transform(Series(gappy, turned.channels))
    assert filled.channels == turned.channels
    np.testing.assert_array_equal(filled.values[0], gappy[0])
    assert abs(filled.values[1, 50]) < 10  # about the sine, not about 100


def test_a_channel_beside_those_that_were_learned_moves_none_of_them():
    model = Imputer(context_length=24, **FEW).fit(Series(X, ("a", "b")))
    more = Collection.of([Series(np.stack([X[0] * 0 + 7, *X]), ("other", "a", "b"))])
    filled = model.transform(more)
    assert filled.channels == ("a", "b")
    np.testing.assert_array_equal(filled.values, X)


def test_exchanged_axes_are_refused_and_not_cut_to_the_channels_that_are_there():
    model = ridge().fit(X)
    with pytest.raises(ShapeError, match="learned 2 channels, but the data for predict have 300"):
        model.predict(X.T)


def test_a_case_of_an_array_that_stands_alone_is_scaled_by_itself():
    cases = np.stack([X[:1], 30 * X[:1] + 700])
    model = Forecaster("dlinear", context_length=48, horizon=3, **FEW).fit(cases)
    np.testing.assert_allclose(model.predict(cases[1:2])[0], model.predict(cases[1]), rtol=1e-5)
    assert model.predict(cases[1:2]).mean() > 600


def test_a_series_of_a_table_may_be_called_by_a_number_and_keeps_its_scale():
    times = pd.date_range("2024-01-01", periods=300, freq="h")
    frames = [pd.DataFrame({"id": i, "time": times, "a": (1 + 9 * i) * X[0] + 100 * i}) for i in range(3)]
    table = pd.concat(frames, ignore_index=True)
    model = Forecaster("dlinear", context_length=48, horizon=3, series="id", **FEW).fit(table)
    late = table[table["time"] >= times[200]]
    whole = model.predict(late)
    for ids in ([0, 1], [1, 0], [1, 2]):
        some = model.predict(pd.concat([late[late["id"] == i] for i in ids]))
        for i in ids:
            told, expected = (one.loc[one["id"] == i, "a"].to_numpy() for one in (some, whole))
            np.testing.assert_allclose(told, expected, rtol=1e-6)


def test_errors_of_the_cases_of_an_array_are_not_measured_by_the_seasons_of_others():
    cases = np.stack([X[:1], 30 * X[:1] + 700, X[:1] + 5])
    model = Forecaster("last_value", context_length=48, horizon=3, progress=False).fit(cases)
    assert model.backtest(cases, begin=250).scores["mase"] > 0
    assert np.isnan(model.backtest(cases[1:], begin=250).scores["mase"])
    one = Collection.of([Series(cases[1], ("channel_0",), name="1")])
    assert model.backtest(one, begin=250).scores["mase"] > 0


@pytest.mark.parametrize("unit", [1e-12, 1e-30, 1e12])
def test_the_unit_of_the_data_changes_no_answer(unit):
    np.testing.assert_allclose(ridge().fit(X * unit).predict() / unit, ridge().fit(X).predict(), rtol=1e-3, atol=1e-3)


def test_a_forecast_is_as_exact_as_data_that_need_double_precision():
    np.testing.assert_allclose(ridge().fit(X + 1e9).predict() - 1e9, ridge().fit(X).predict(), atol=1e-3)


def test_whole_numbers_keep_what_tells_them_apart_and_what_is_masked_was_not_observed():
    large = Series((10**9 + STEPS % 24)[None])
    assert float(np.diff(large.values[0, :24]).mean()) == 1.0
    masked = np.ma.masked_array(X[:1].copy(), mask=np.arange(300)[None] >= 250)
    masked.data[masked.mask] = 500.0
    assert np.isnan(Series(masked).values[:, 250:]).all()
    assert ridge().fit(masked).predict().max() < 10
    with pytest.raises(DataError, match="where numbers are expected"):
        Series(np.array([["2024-01-01", "2024-01-02"]], dtype="datetime64[D]"))


def test_zones_of_every_name_are_times():
    for zone in ("America/New_York", "Etc/GMT+5", "Europe/Berlin"):
        index = pd.date_range("2024-01-01", periods=300, freq="h", tz=zone)
        read = prismts.read(pd.DataFrame({"a": X[0]}, index=index))
        assert read.timestamps[0] == index[0].tz_convert("UTC").tz_localize(None).to_datetime64()


def as_pandas(table) -> pd.DataFrame:
    return table if isinstance(table, pd.DataFrame) else nw.from_native(table).to_pandas()


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame, lambda columns: pa.table(pd.DataFrame(columns))])
def test_answers_stand_in_the_zone_of_the_table_also_when_the_clocks_change(library):
    times = pd.date_range("2024-03-30 05:00", periods=32, freq="h", tz="Europe/Berlin")  # 02:00 of the 31st is left out
    learned = library({"time": times[:20], "a": np.arange(20.0)})
    model = Forecaster("last_value", context_length=4, horizon=12, progress=False).fit(learned, validation=None)
    answer = model.predict()
    told = as_pandas(answer)["time"]
    assert str(told.dt.tz) == "Europe/Berlin"
    assert told.tolist() == times[20:].tolist()
    assert [time.hour for time in told[:3]] == [1, 3, 4]


def test_a_time_index_and_a_file_keep_their_zone_and_a_saved_model_knows_it(tmp_path):
    times = pd.date_range("2024-03-30", periods=300, freq="h", tz="Europe/Berlin", name="when")
    table = pd.DataFrame({"a": X[0]}, index=times)
    model = ridge().fit(table)
    expected = pd.date_range(times[-1], periods=4, freq="h")[1:]
    assert model.predict().index.equals(expected.rename("when"))
    model.save(tmp_path / "m")
    assert prismts.load(tmp_path / "m").predict().index.equals(expected.rename("when"))
    table.reset_index().to_parquet(tmp_path / "t.parquet")
    assert ridge().fit(tmp_path / "t.parquet").predict()["when"].tolist() == expected.tolist()


def test_text_keeps_its_offset_where_it_is_one_and_is_in_utc_where_it_is_not(tmp_path):
    times = pd.date_range("2024-03-30", periods=300, freq="h", tz="Europe/Berlin")
    winter = pd.DataFrame({"time": times.tz_convert("+01:00").astype(str), "a": X[0]})
    both = winter.assign(time=times.astype(str))
    winter.to_csv(tmp_path / "t.csv", index=False)
    last = times[-1] + pd.Timedelta("1h")
    for source, offset in ((winter, "UTC+01:00"), (both, "UTC"), (tmp_path / "t.csv", "UTC+01:00")):
        first = ridge().fit(source).predict()["time"].iloc[0]
        assert (first, str(first.tz)) == (last, offset)
    assert str(ridge().fit(pl.DataFrame(winter)).predict()["time"].dtype.time_zone) == "UTC"  # has no zone of offsets


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/Berlin", "Asia/Tokyo", "Australia/Sydney"])
@pytest.mark.parametrize("frequency", ["D", "W-MON", "MS"])
def test_days_in_a_zone_are_days_also_where_its_clock_is_put_forward(zone, frequency, tmp_path):
    times = pd.date_range("2020-01-01", periods=180, freq=frequency, tz=zone)
    table = pd.DataFrame({"time": times[:-3], "a": X[0][:177]})
    series = prismts.read(table)
    assert (series.timestamps == times[:-3].tz_localize(None).to_numpy()).all()
    assert series.frequency == frequency and "by the clock there" in str(series.findings[0])
    model = ridge(context_length=12).fit(table)
    assert model.predict()["time"].tolist() == times[-3:].tolist()
    model.save(tmp_path / "m")
    assert prismts.load(tmp_path / "m").predict()["time"].tolist() == times[-3:].tolist()
    told = ridge(context_length=12).fit(pl.from_pandas(table)).predict()["time"].to_list()
    assert [pd.Timestamp(one) for one in told] == times[-3:].tolist()
    table.astype({"time": str}).to_csv(tmp_path / "t.csv", index=False)  # several offsets: days without any come back
    dates = times[-3:] if zone == "Asia/Tokyo" else times[-3:].tz_localize(None)
    assert ridge(context_length=12).fit(tmp_path / "t.csv").predict()["time"].tolist() == dates.tolist()


def test_rows_are_days_by_their_clock_or_by_a_frequency_that_is_given():
    def read(times, **how):
        return prismts.read(pd.DataFrame({"time": times, "a": np.arange(float(len(times)))}), **how)

    one = pd.DatetimeIndex(["2024-07-01"], tz="Europe/Berlin")
    assert str(read(one).timestamps[0])[:13] == "2024-06-30T22"  # a row alone may be of any frequency
    assert str(read(one, frequency="D").timestamps[0])[:13] == "2024-07-01T00"
    assert str(read(one, frequency="h").timestamps[0])[:13] == "2024-06-30T22"
    every_24_hours = pd.date_range("2024-03-20 01:00", periods=30, freq="24h", tz="UTC").tz_convert("Europe/Berlin")
    steady = read(every_24_hours)  # at 2 o'clock, and at 3 in summer: instants
    assert steady.frequency == "D" and str(steady.timestamps[-1])[:13] == "2024-04-18T01"
    noon = pd.date_range("2024-03-20 12:00", periods=30, freq="D", tz="Europe/Berlin")
    assert str(read(noon).timestamps[-1])[:13] == "2024-04-18T12"
    with pytest.raises(DataError, match="which is not a multiple of the usual step"):
        read(noon.delete(10).insert(10, noon[10] + pd.Timedelta("1h")))


def test_a_midnight_that_a_clock_leaves_out_is_told_as_the_first_time_after_it():
    days = pd.date_range("2024-04-14", periods=14, freq="D").tz_localize("Africa/Cairo", nonexistent="shift_forward")
    assert days[12].hour == 1  # on 26 April the clock there goes from 0 to 1 o'clock
    table = pd.DataFrame({"time": days[:11], "a": np.arange(11.0)})
    model = Forecaster("last_value", context_length=4, horizon=3, progress=False).fit(table, validation=None)
    assert model.predict()["time"].tolist() == days[11:].tolist()
    known = prismts.read(pd.DataFrame({"time": days, "a": np.arange(14.0)}), frequency="D")
    assert [str(time)[:13] for time in known.timestamps[11:]] == ["2024-04-25T00", "2024-04-26T00", "2024-04-27T00"]


def test_scores_and_filled_rows_stand_in_the_zone_too():
    times = pd.date_range("2024-03-30", periods=300, freq="h", tz="Europe/Berlin")
    table = pd.DataFrame({"time": times, "a": X[0]})
    scored = prismts.AnomalyDetector(progress=False).fit(table).predict(table)
    assert scored["time"].tolist() == times.tolist()
    filled = Imputer(context_length=24, **FEW).fit_transform(table.drop(index=[50, 51]))
    assert filled["time"].tolist() == times.tolist()


@pytest.mark.parametrize("names", [[7, 3], [0.5, 2.0], [True, False], ["7", "3"]])
def test_names_of_series_come_back_in_the_type_they_came_in(names, tmp_path):
    times = pd.date_range("2024-01-01", periods=300, freq="h")
    table = pd.concat([pd.DataFrame({"id": name, "time": times, "a": X[0]}) for name in names], ignore_index=True)
    model = Forecaster("ridge", context_length=48, horizon=3, series="id", progress=False).fit(table)
    model.save(tmp_path / "m")
    for answer in (model.predict(), prismts.load(tmp_path / "m").predict()):
        assert answer["id"].dtype == table["id"].dtype
        assert answer["id"].tolist() == [names[0]] * 3 + [names[1]] * 3
    assert model.predict(pl.DataFrame(table))["id"].dtype == pl.DataFrame(table)["id"].dtype
    scored = prismts.AnomalyDetector(series="id", progress=False).fit(table).predict(table)
    filled = Imputer(context_length=24, series="id", **FEW).fit_transform(table.drop(index=[50]))
    assert scored["id"].tolist() == filled["id"].tolist() == table["id"].tolist()


def test_an_index_of_text_that_reads_as_times_is_the_time():
    frame = pd.DataFrame({"a": X[0]}, index=pd.date_range("2024-01-01", periods=300, freq="h"))
    read = prismts.read(frame)
    frame.index = frame.index.astype(str)
    np.testing.assert_array_equal(prismts.read(frame.sample(frac=1, random_state=0)).timestamps, read.timestamps)


def test_a_series_whose_times_are_not_its_steps_is_refused():
    times = np.datetime64("2024-01-01", "h") + STEPS
    for wrong in (times[::-1], np.repeat(times[:150], 2)):
        with pytest.raises(DataError, match="not one step of it apart"):
            ridge().fit(Series(X, ("a", "b"), wrong, "h"))


def test_a_fit_that_fails_leaves_the_one_before_it():
    labels = np.array(["cat", "dog"] * 12)
    cases = np.random.default_rng(0).standard_normal((24, 1, 40))
    model = prismts.Classifier(**FEW).fit(cases, labels)
    said = model.predict_proba(cases)
    with pytest.raises(PrismError):
        model.fit(cases * np.nan, np.where(labels == "cat", "no", "yes"))
    np.testing.assert_array_equal(model.predict_proba(cases), said)
    assert set(model.predict(cases)) <= {"cat", "dog"}


@pytest.mark.parametrize(
    "text",
    [
        "2020-01-01,2\n2020-01-02,4\n2020-01-03,6\n",
        "1.5,2\n3,4\n5,6\n",
        "1.5;2\n3.5;4\n",
        "2020-01-01,NA,NA\n2020-01-02,4,1\n",
        "?,0.5\n1,2\n",
    ],
)
def test_a_table_without_names_is_refused_instead_of_losing_its_first_row(text, tmp_path):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=r"line 1 .* holds values, where names of columns are expected"):
        prismts.read(tmp_path / "t.csv")


def test_columns_may_be_called_by_whole_numbers(tmp_path):
    pd.DataFrame(X.T).to_csv(tmp_path / "t.csv", index=False)
    assert prismts.read(tmp_path / "t.csv").channels == ("0", "1")
    pd.DataFrame(X.T, columns=[0.5, 1.5]).to_csv(tmp_path / "t.csv")  # beside a column without a name
    assert prismts.read(tmp_path / "t.csv").channels == ("0.5", "1.5")


def test_a_share_of_a_set_with_borders_is_of_its_training_part():
    values = np.arange(1000.0)[None]
    whole = Series(values, borders=prismts.Borders(600, 800, 1000))
    for share, n in ((1.0, 600), (0.9, 540)):
        (member,) = Corpus.of(Member.of(whole, train=share)).members
        assert int(member.data.lengths.sum()) == n


def test_generated_series_are_as_many_as_were_asked_for_whatever_was_written_before(tmp_path):
    for n in (25, 22, 25, 20):
        files = write_generated(tmp_path, n, per_file=10)
        names = pd.concat([pd.read_parquet(file, columns=["series"]) for file in files])["series"].unique()
        assert sorted(names) == list(range(n))


def test_numbers_that_were_counts_in_training_are_not_read_as_years_later(tmp_path):
    counted = pd.DataFrame({"time": np.arange(2300), "load": np.sin(np.arange(2300) / 4)})
    ridge().fit(counted).save(tmp_path / "m")
    model = prismts.load(tmp_path / "m")
    with pytest.raises(DataError, match=r"were read as counts of steps, but those of these data as times\. .*as years"):
        model.predict(counted[1800:2000])
    assert len(model.predict(counted[1500:1700])) == len(model.predict(counted[["load"]][1800:2000])) == 3


def test_steps_of_a_table_whose_time_counts_from_elsewhere_have_a_column_of_their_own():
    counted = pd.DataFrame({"time": 1000 + STEPS, "load": X[0]})
    assert list(ridge().fit(counted).predict(counted)["step"]) == [300, 301, 302]  # not 300 in a column that holds 1299
    counted["time"] = STEPS
    assert list(ridge().fit(counted).predict(counted)["time"]) == [300, 301, 302]
