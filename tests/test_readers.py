import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from prismts.data.describe import describe
from prismts.data.readers import read, read_with_kind
from prismts.data.series import Collection, Series
from prismts.data.tables import TableKind, to_table
from prismts.errors import DataError, SettingsError, ShapeError


def hourly(n=6, **columns):
    """A table with times 2020-01-01 00:00, 01:00, ... and a column a = 0, 1, 2, ..."""
    return pd.DataFrame({"date": pd.date_range("2020-01-01", periods=n, freq="h"), "a": np.arange(float(n)), **columns})


def kinds(data):
    return [finding.kind for finding in data.findings]


def found(data, kind):
    return next(finding for finding in data.findings if finding.kind == kind)


def write(folder: Path, text: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


# --- tables ----------------------------------------------------------------------------------------------------------


def test_a_csv_becomes_a_series_of_its_numeric_columns(tmp_path):
    series = read(write(tmp_path, "date,a,b\n2020-01-01 00:00,1,2.5\n2020-01-01 01:00,3,4.5\n"))
    assert series.channels == ("a", "b")
    np.testing.assert_array_equal(series.values, [[1, 3], [2.5, 4.5]])
    assert series.values.dtype == np.float32
    assert (series.frequency, series.name, series.findings) == ("h", "t", ())
    assert list(series.timestamps) == [np.datetime64("2020-01-01T00"), np.datetime64("2020-01-01T01")]


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_line_ends_and_compression_make_no_difference(tmp_path, name, separator):
    text = "date,a\r\n2020-01-01,1\r\n2020-01-02,2\r\n2020-01-03,4\r\n".replace(",", separator)
    series = read(write(tmp_path, text, name))
    np.testing.assert_array_equal(series.values, [[1, 2, 4]])
    assert series.frequency == "D"


@pytest.mark.parametrize(
    ("header", "channels"),
    [
        ('date;"a,b";"c,d,e"', ("a,b", "c,d,e")),
        ("date;load, kW, avg;c", ("load, kW, avg", "c")),
        ('date;"load; kW; avg; max";c', ("load; kW; avg; max", "c")),
    ],
)
def test_marks_within_names_do_not_separate(tmp_path, header, channels):
    series = read(write(tmp_path, f"{header}\n2020-01-01;1,5;2\n2020-01-02;2,5;3\n"))
    assert series.channels == channels
    np.testing.assert_array_equal(series.values, [[1.5, 2.5], [2, 3]])


def test_a_decimal_comma_is_read_between_semicolons(tmp_path):
    np.testing.assert_array_equal(read(write(tmp_path, "x;y\n1,5;2\n-0,25;3\n")).values, [[1.5, -0.25], [2, 3]])


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (["998,5;1.010", "1.054,91;980", "1,5;-2.000.000"], [[998.5, 1054.91, 1.5], [1010, 980, -2e6]]),
        (["998;1.010", "1.054;", "15,0;980"], [[998, 1054, 15], [1010, np.nan, 980]]),  # the comma comes late
    ],
)
def test_points_stand_between_thousands_where_commas_are_decimal(tmp_path, cells, numbers):
    series = read(write(tmp_path, "x;y\n" + "\n".join(cells) + "\n"))
    np.testing.assert_array_equal(series.values, np.array(numbers, dtype=np.float32))
    assert "'1.010' was read as 1010" in " ".join(str(one) for one in series.findings)


def test_points_are_decimal_where_no_comma_is(tmp_path):
    np.testing.assert_array_equal(read(write(tmp_path, "x;y\n1.010;2\n3.5;980\n")).values[0], np.float32([1.01, 3.5]))


def test_numbers_with_commas_between_thousands_are_refused_with_how_to_write_them(tmp_path):
    with pytest.raises(DataError, match=r"'1,054\.5'.*write its numbers as 1234\.5"):
        read(write(tmp_path, "x;y\n1,054.5;2\n2,054.5;3\n"))


def test_latin_1_text_is_read_and_reported(tmp_path):
    series = read(write(tmp_path, "T (°C)\n1\n2\n".encode("latin-1")))
    assert series.channels == ("T (°C)",)
    assert "line 1" in str(found(series, "encoding"))


def test_a_column_whose_numbers_change_kind_far_down_is_read(tmp_path):
    n = 400_000  # several blocks of text
    series = read(write(tmp_path, "x\n" + "1\n" * n + "0.5\n"))
    assert (len(series), series.values[0, -1]) == (n + 1, 0.5)


def test_an_unnamed_column_that_counts_the_rows_is_left_out(tmp_path):
    hourly().to_csv(tmp_path / "t.csv")
    series = read(tmp_path / "t.csv")
    assert series.channels == ("a",)
    assert "counts the rows" in str(found(series, "index"))


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(3, 30), st.integers(1, 3)), elements=st.floats(-1e6, 1e6, width=32)),
    st.sampled_from(["s", "15min", "h", "D", "W-TUE", "MS", "QE-DEC", "B"]),
)
@settings(max_examples=40, deadline=None)
def test_a_table_written_as_csv_comes_back_as_it_was(tmp_path_factory, x, frequency):
    times = pd.date_range("2019-03-01", periods=len(x), freq=frequency)
    frame = pd.DataFrame(x, columns=[f"c{i}" for i in range(x.shape[1])]).assign(date=times)
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    frame.to_csv(path, index=False)
    series = read(path, missing_codes=(), frequency=frequency)
    np.testing.assert_array_equal(series.values.astype(np.float32), x.T)
    np.testing.assert_array_equal(series.timestamps, times.to_numpy())
    assert series.frequency == frequency


@given(st.permutations(range(12)), st.booleans())
@settings(max_examples=40, deadline=None)
def test_shuffled_rows_change_nothing_but_a_finding(order, long):
    frame = hourly(12).assign(id=["x"] * 12 if long else 0.5)
    straight = read(frame, series="id" if long else None)
    shuffled = read(frame.iloc[list(order)], series="id" if long else None)
    np.testing.assert_array_equal(shuffled.values, straight.values)
    np.testing.assert_array_equal(shuffled.timestamps, straight.timestamps)
    assert ("order" in kinds(shuffled)) == (list(order) != sorted(order))


@given(
    hnp.arrays(np.float64, (7, 2), elements=st.floats(-100, 100) | st.just(float("nan"))).filter(
        lambda x: not np.isnan(x).all(axis=0).any()
    )
)
@settings(max_examples=30, deadline=None)
def test_pandas_polars_pyarrow_and_parquet_give_the_same_series(tmp_path_factory, x):
    frame = pd.DataFrame(x, columns=["u", "v"]).assign(
        date=pd.date_range("2020-01-01", periods=7, freq="D"), n=range(7)
    )
    table = pa.Table.from_pandas(frame)
    path = tmp_path_factory.mktemp("parquet") / "t.parquet"
    pq.write_table(table, path, row_group_size=3)
    first = read(frame)
    for other in (pl.from_arrow(table), pl.from_arrow(table).lazy(), table, path):
        series = read(other)
        np.testing.assert_array_equal(series.values, first.values)
        np.testing.assert_array_equal(series.timestamps, first.timestamps)
        assert series.channels == first.channels
        assert [f.message for f in series.findings] == [f.message for f in first.findings]


def test_a_pandas_index_of_times_is_the_time():
    frame = hourly().set_index("date")
    series, kind = read_with_kind(frame)
    assert (series.frequency, series.channels) == ("h", ("a",))
    assert kind == TableKind("pandas", "date", None, time_is_index=True)
    assert read(frame["a"]).channels == ("a",)
    assert (
        read(hourly().set_index(pd.PeriodIndex(pd.date_range("2020", periods=6, freq="MS"), freq="M"))[["a"]]).frequency
        == "MS"
    )


def test_a_long_table_becomes_one_series_per_name_in_order_of_appearance():
    frame = pd.DataFrame(
        {
            "who": ["b", "a", "b", "a", "b"],
            "day": pd.to_datetime(["2020-01-01", "2021-05-03", "2020-01-02", "2021-05-02", "2020-01-04"]),
            "x": [1.0, 20.0, 2.0, 10.0, 4.0],
        }
    )
    data = read(frame, series="who")
    assert isinstance(data, Collection)
    assert data.names == ("b", "a")
    np.testing.assert_array_equal(data[0].values, [[1, 2, np.nan, 4]])  # 2020-01-03 is missing
    np.testing.assert_array_equal(data[1].values, [[10, 20]])
    assert data.frequency == "D"
    assert list(data[1].timestamps) == [np.datetime64("2021-05-02"), np.datetime64("2021-05-03")]
    assert kinds(data) == ["order", "gap"]
    assert found(data, "order").row == 3


def stacked(**times):
    """A long table with a series for each name, a = 0, 1, 2, ... at its times."""
    return pd.concat([pd.DataFrame({"id": name, "date": at, "a": np.arange(len(at))}) for name, at in times.items()])


def test_series_of_different_steps_are_refused_by_name():
    hours, days = pd.date_range("2020-01-01", periods=720, freq="h"), pd.date_range("2020-01-01", periods=30, freq="D")
    with pytest.raises(DataError, match=r"series 'B' has a step of D, but the usual step of the table is h\. .*='h'"):
        read(stacked(A=hours, B=days), series="id")
    few = hours[:20]
    with pytest.raises(DataError, match=r"series 'A' has a step of h, but the usual step of the table is D\. .*='h'"):
        read(stacked(A=few, B=days), series="id")
    months, quarters = (pd.date_range("2000-01-01", periods=40, freq=step) for step in ("MS", "QS"))
    with pytest.raises(
        DataError, match=r"series 'C' has a step of QS-.* is MS \(2 of 3 series have others than most\)"
    ):
        read(stacked(B=months, C=quarters[:9], D=quarters[:9]), series="id")
    with pytest.raises(
        DataError, match=r"series 'B' has a step of 3, but the usual step of the table is 1\. .*before\.$"
    ):
        read(stacked(A=np.arange(9), B=np.arange(5) * 3), series="id", time="date")
    assert read(stacked(A=hours, B=days), series="id", frequency="h").lengths.tolist() == [720, 29 * 24 + 1]
    assert read(stacked(A=hours, B=days), series="id", gaps="keep").lengths.tolist() == [720, 30]


def test_a_series_with_many_gaps_has_the_step_of_the_others():
    hours = pd.date_range("2020-01-01", periods=720, freq="h")
    sparse = hours[np.random.default_rng(0).random(720) < 0.3]
    data = read(stacked(A=hours, B=sparse, C=hours[[0, 5, 10]]), series="id")
    assert (data.frequency, data[2].n_timepoints) == ("h", 11)


def test_a_long_table_needs_no_times():
    data = read(pa.table({"id": [7, 7, 3], "x": [1.0, 2.0, 3.0]}), series="id")
    assert (data.names, list(data.lengths), data.timestamps) == (("7", "3"), [2, 1], None)


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["007", "7", "0012"], None),
        (["1E5", "100000"], None),
        (["true", "True"], None),
        (["12345678901234567890", "12345678901234567891"], None),
        (["1.054", "1054"], None),
        (["7", "12", "-3"], "int64"),
        (["True", "False"], "bool"),
    ],
)
def test_series_of_a_csv_are_called_as_they_are_written_there(tmp_path, names, kind):
    rows = "".join(f'"{name}";{i},5;2020-01-0{i + 1}\n' for i, name in enumerate(names))
    path = write(tmp_path, " meter ;x;date\n" + rows)
    data, told = read_with_kind(path, series="meter")
    assert data.names == tuple(names)
    assert data.channels == ("x",)
    assert told.series_type == kind  # a number, where it is written as that number is


@pytest.mark.parametrize(
    "column",
    [
        np.array([0.0, 1, 0, 2, 0, 5], np.longdouble),
        pd.arrays.SparseArray([0.0, 1, 0, 2, 0, 5]),
        pd.arrays.SparseArray([0, 1, 0, 2, 0, 5]),
    ],
)
def test_sparse_and_very_long_numbers_are_numbers(column):
    assert read(hourly(b=column)).values[1].tolist() == [0, 1, 0, 2, 0, 5]


def test_columns_of_types_that_nobody_reads_are_refused_by_name(tmp_path):
    with pytest.raises(DataError, match="column 'b' holds complex128, which cannot be read"):
        read(hourly(b=np.arange(6) * 1j))
    with pytest.raises(DataError, match="column 'b' holds Int128, which cannot be read"):
        read(pl.DataFrame(hourly()).with_columns(pl.Series("b", range(6), dtype=pl.Int128)))
    assert read(hourly(b=np.arange(6) * 1j), values="a").channels == ("a",)
    pq.write_table(pa.table([pa.array([1, 2]), pa.array([3, 4])], names=["a", "a"]), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t.parquet has two columns named 'a'\. Rename one"):
        read(tmp_path / "t.parquet")


@pytest.mark.parametrize("backend", ["pandas", "polars", "pyarrow"])
def test_what_goes_out_is_the_kind_of_table_that_came_in(backend):
    frame = {"pandas": hourly(), "polars": pl.from_pandas(hourly()), "pyarrow": pa.Table.from_pandas(hourly())}[backend]
    series, kind = read_with_kind(frame)
    assert kind == TableKind(backend, "date")
    out = to_table(kind, {"date": series.timestamps, "a": series.values[0]})
    assert type(out) is type(frame)
    np.testing.assert_array_equal(read(out).values, series.values)
    np.testing.assert_array_equal(read(out).timestamps, series.timestamps)


def test_an_index_of_times_goes_out_as_an_index():
    series, kind = read_with_kind(hourly().set_index("date"))
    out = to_table(kind, {"date": series.timestamps, "a": series.values[0]})
    assert isinstance(out.index, pd.DatetimeIndex)
    assert out.index.name == "date"


def test_arrays_go_in_and_out_as_channel_by_time():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    series, kind = read_with_kind(x)
    assert np.shares_memory(series.values, x)
    np.testing.assert_array_equal(to_table(kind, dict(zip(series.channels, series.values, strict=True))), x)
    assert list(read(np.zeros((4, 2, 3)) + np.arange(3)).lengths) == [3] * 4
    assert list(read([np.ones((1, 5)), np.zeros((1, 2))]).lengths) == [5, 2]


def test_a_series_comes_back_as_it_is():
    series = Series(np.zeros((1, 3), np.float32))
    assert read(series) is series


# --- times -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "frequency", "first"),
    [
        (["1990/1/1 0:00", "1990/1/2 0:00", "1990/1/3 0:00"], "D", "1990-01-01"),
        (["2020-01-01 11:00 PM", "2020-01-02 12:00 AM", "2020-01-02 1:00 AM"], "h", "2020-01-01T23"),
        (["31.12.2020 23:00", "01.01.2021 00:00", "01.01.2021 01:00"], "h", "2020-12-31T23"),
        (["12/30/20", "12/31/20", "1/1/21"], "D", "2020-12-30"),
        (["1949-01", "1949-02", "1949-03"], "MS", "1949-01-01"),
        (["1956Q1", "1956Q2", "1956Q4"], "QS-JAN", "1956-01-01"),
        (["3 Jan 2020", "6 Jan 2020", "7 Jan 2020"], "B", "2020-01-03"),
        ([1577836800, 1577840400, 1577844000], "h", "2020-01-01"),
        ([1577836800000, 1577836800250, 1577836800500], "250ms", "2020-01-01"),
        ([20200229, 20200301, 20200302], "D", "2020-02-29"),
        ([201611, 201612, 201701], "MS", "2016-11-01"),
        ([2020022823, 2020022900, 2020022901], "h", "2020-02-28T23"),
        ([202002282345, 202002290000, 202002290015], "15min", "2020-02-28T23:45"),
        ([20200228235959, 20200229000000, 20200229000001], "s", "2020-02-28T23:59:59"),
        ([201551, 201552, 201553, 201601], "W-MON", "2015-12-14"),
        ([1990, 1991, 1993], "YS-JAN", "1990-01-01"),
        (["2020-01-31", "2020-02-29", "2020-03-31"], "ME", "2020-01-31"),
    ],
)
def test_times_are_read_as_they_are_usually_written(tmp_path, cells, frequency, first):
    series = read(write(tmp_path, "date,x\n" + "".join(f"{cell},{i}\n" for i, cell in enumerate(cells))))
    assert series.frequency == frequency
    assert series.timestamps[0] == np.datetime64(first)


def test_dates_that_could_be_read_two_ways_are_resolved_by_regularity_or_refused(tmp_path):
    daily = read(
        write(
            tmp_path,
            "date,x\n01/02/2020,1\n02/02/2020,2\n03/02/2020,3\n04/02/2020,4\n05/02/2020,5\n06/02/2020,6\n"
            "08/02/2020,7\n07/02/2020,8\n",
        )
    )
    assert (daily.timestamps[0], daily.frequency) == (np.datetime64("2020-02-01"), "D")
    assert "day first" in str(found(daily, "time"))
    text = "date,x\n" + "".join(f"01/{month:02}/2020,{month}\n" for month in range(1, 13))
    with pytest.raises(DataError, match="day or month comes first"):
        read(write(tmp_path, text))


def test_time_zones_become_utc_and_are_reported(tmp_path):
    text = "time,x\n2020-03-29T01:00+01:00,1\n2020-03-29T03:00+02:00,2\n2020-03-29T04:00+02:00,3\n"
    zoned = pd.DataFrame(
        {"time": pd.date_range("2020-03-29 01:00", periods=3, freq="h", tz="Europe/Berlin"), "x": [1, 2, 3]}
    )
    for source in (write(tmp_path, text), zoned, pl.from_pandas(zoned)):
        series = read(source)
        assert series.timestamps[0] == np.datetime64("2020-03-29T00:00")
        assert (series.frequency, kinds(series)) == ("h", ["timezone"])


def test_numbers_that_are_no_times_only_order_the_rows():
    series = read(pd.DataFrame({"time": [3, 1, 2, 5], "x": [30.0, 10.0, 20.0, 50.0]}))
    np.testing.assert_array_equal(series.values, [[10, 20, 30, np.nan, 50]])
    assert series.timestamps is None
    assert kinds(series) == ["time", "order", "gap"]


def test_whole_numbers_that_are_no_dates_stay_what_they_were():
    def reading(*numbers):
        return found(read(pd.DataFrame({"time": numbers, "x": np.arange(float(len(numbers)))})), "time").message

    assert "numbers of steps" in reading(190099, 190100, 190101)  # no month, no week
    assert "seconds since 1970" in reading(2020010100, 2020010160, 2020010220)  # no hour 60
    with pytest.raises(DataError, match=r"looks like weeks written YYYYWW, but 2014 has no week 53 .*\(row 1\)"):
        reading(201452, 201453, 201501)


def test_numbers_too_large_for_a_time_are_refused():
    for numbers in ([0.0, 1.0, 1e25], [0.5, 1.0, 1e16]):
        with pytest.raises(DataError, match=r"column 'time' holds 1e\+\d\d, which is too large for a time"):
            read(pd.DataFrame({"time": numbers, "x": [1.0, 2, 3]}))


@pytest.mark.parametrize(("rate", "decimals"), [(256, 9), (256, 6), (30, 4), (44100, 6)])
def test_elapsed_time_that_was_rounded_is_as_regular_as_it_was(rate, decimals):
    moments = (np.arange(2000) / rate).round(decimals)
    series = read(pd.DataFrame({"time": moments, "x": np.arange(2000.0)}))
    assert (len(series), kinds(series)) == (2000, ["time"])
    gappy = read(pd.DataFrame({"time": moments, "x": np.arange(2000.0)}).drop(index=[700]))
    assert np.flatnonzero(np.isnan(gappy.values[0])).tolist() == [700]
    with pytest.raises(DataError, match="not a multiple of the usual step"):
        read(pd.DataFrame({"time": np.where(np.arange(2000) == 900, moments + 0.4 / rate, moments), "x": moments}))


def test_elapsed_time_shows_where_rows_are_missing():
    series = read(pd.DataFrame({"time": [0, 0.1, 0.2, 0.4], "x": [0.0, 1, 2, 4]}))
    np.testing.assert_array_equal(series.values, [[0, 1, 2, np.nan, 4]])
    assert "at a step of 0.1" in str(found(series, "gap"))


def test_a_separator_at_the_end_of_each_line_makes_no_channel(tmp_path):
    assert read(write(tmp_path, "a,b,\n1,2,\n3,4,\n")).channels == ("a", "b")


def test_the_time_column_is_found_by_its_type_if_not_by_its_name():
    assert read(hourly().rename(columns={"date": "Month"})).frequency == "h"
    text = hourly().rename(columns={"date": "when"}).assign(when=lambda t: t.when.astype(str))
    assert read(text).frequency == "h"
    with pytest.raises(DataError, match=r"several columns that could be the time: 'date', 'time'.*time='date'"):
        read(hourly().assign(time=lambda t: t.date))
    assert "left out" in str(found(read(hourly().assign(other=lambda t: t.date), time="date"), "time"))


@pytest.mark.parametrize("write_out", [lambda times: times, lambda times: times.astype(str)])
def test_a_duration_that_is_called_time_does_not_stand_for_the_time(write_out):
    times = write_out(pd.date_range("2020-01-01", periods=6, freq="h"))
    trips = pd.DataFrame({"when": times, "time": [30, 12, 45, 12, 7, 60], "y": np.arange(6.0)})
    assert (read(trips).frequency, read(trips).channels) == ("h", ("time", "y"))
    counted = trips.assign(time=[0, 1, 2, 0, 1, 2], id=list("aaabbb")).drop(columns="y")
    counted["y"] = np.arange(6.0)
    assert read(counted, series="id", values=["y"]).timestamps is None  # which rises in each series
    dated = trips.assign(time=[20200103, 20200101, 20200102, 20200105, 20200104, 20200106])
    assert read(dated, values=["y"]).frequency == "D"


def test_a_cell_that_is_no_time_is_named(tmp_path):
    with pytest.raises(
        DataError, match=r"t.csv: column 'date' holds 'soon' in row 2, which is not a time written like '2020-01-01'"
    ):
        read(write(tmp_path, "date,x\n2020-01-01,1\n2020-01-02,1\nsoon,1\n2020-01-04,1\n"))
    with pytest.raises(DataError, match="row 1 has no time in column 'date'"):
        read(write(tmp_path, "date,x\n2020-01-01,1\n,1\n2020-01-04,1\n"))


def test_missing_rows_are_filled_kept_or_refused():
    frame = hourly().drop([2, 3])  # 00:00 01:00 04:00 05:00
    filled = read(frame)
    np.testing.assert_array_equal(filled.values, [[0, 1, np.nan, np.nan, 4, 5]])
    gap = found(filled, "gap")
    assert gap.row == 2
    assert "2 rows missing in one gap at a step of h" in str(gap)
    kept = read(frame, gaps="keep")
    np.testing.assert_array_equal(kept.values, [[0, 1, 4, 5]])
    assert (kept.frequency, kept.timestamps[2]) == (None, np.datetime64("2020-01-01T04"))
    assert read(frame, gaps="keep", frequency="h").frequency == "h"
    assert read(hourly(), gaps="keep").frequency == "h"
    with pytest.raises(
        DataError, match=r"2 rows missing at a step of h \(first: 2 between 2020-01-01 01:00:00 and row 2"
    ):
        read(frame, gaps="refuse")


def test_business_days_have_no_gaps_at_weekends_but_at_holidays():
    days = pd.bdate_range("2020-01-01", periods=10).delete(4)  # without Tuesday 2020-01-07
    series = read(pd.DataFrame({"date": days, "x": np.arange(9.0)}))
    assert (series.frequency, len(series), np.flatnonzero(~series.observed[0]).tolist()) == ("B", 10, [4])


MONTHS = pd.date_range("2010-01-01", periods=60, freq="MS")


@pytest.mark.parametrize(
    ("days", "frequency", "first"),
    [
        (MONTHS + pd.Timedelta("14D"), "MS", "2010-01-01"),
        ([day.replace(day=min(30, day.days_in_month)) for day in MONTHS], "MS", "2010-01-01"),
        (MONTHS[::3] + pd.Timedelta("14D"), "QS-JAN", "2010-01-01"),
        ([f"{year}-02-28" for year in range(1980, 2020)], "YS-FEB", "1980-02-01"),
    ],
)
def test_months_on_any_day_are_read_as_months(days, frequency, first):
    for named in (None, frequency):
        series = read(pd.DataFrame({"date": pd.DatetimeIndex(days), "x": np.arange(float(len(days)))}), frequency=named)
        assert (series.frequency, len(series), series.timestamps[0]) == (frequency, len(days), np.datetime64(first))
        assert "whose times are the first days of these months" in str(found(series, "frequency"))


@pytest.mark.parametrize("frequency", ["2MS", "2ME", "4MS", "6MS", "6ME", "SMS-15", "SME-15", "14D"])
def test_steps_of_several_months_and_of_half_a_month_are_found(frequency):
    days = pd.date_range("2010-01-01", periods=60, freq=frequency)
    series = read(pd.DataFrame({"date": days[:50].delete(20), "x": np.arange(49.0)}))
    assert (series.frequency, len(series), np.flatnonzero(~series.observed[0]).tolist()) == (frequency, 50, [20])
    np.testing.assert_array_equal(series.future_timestamps(10), days[50:].to_numpy())


def test_no_frequency_is_proposed_that_cannot_work():
    times = {
        "usual step, 31D. To take": [*MONTHS[:30], *(MONTHS[31:] + pd.Timedelta("3D"))],
        "usual step, D. To take": pd.to_datetime(
            ["2020-01-01", "2020-01-02", "2020-01-03", "2020-01-03T09"], format="ISO8601"
        ),
        "usual step, D. Pass": pd.to_datetime(
            ["2020-01-01", "2020-01-02", "2020-01-03", "2020-01-04T09"], format="ISO8601"
        ),
    }
    for words, days in times.items():
        with pytest.raises(DataError, match=words):
            read(pd.DataFrame({"date": days, "x": np.arange(float(len(days)))}))


def test_a_row_off_the_grid_is_refused_unless_the_frequency_is_given():
    times = pd.to_datetime(["2020-01-01 00:00:01", "2020-01-01 00:05:02", "2020-01-01 00:10:02", "2020-01-01 00:14:58"])
    frame = pd.DataFrame({"date": times, "x": [1.0, 2, 3, 4]})
    with pytest.raises(
        DataError, match=r"row 1 \(2020-01-01 00:05:02\) comes 00:05:01 after the row before it.*gaps='keep'"
    ):
        read(frame)
    moved = read(frame, frequency="5min")
    assert list(moved.timestamps) == list(pd.date_range("2020-01-01", periods=4, freq="5min").to_numpy())
    assert "4 rows lay between two steps of '5min'" in str(found(moved, "frequency"))
    with pytest.raises(DataError, match=r"row 0 .* and row 1 .* fall on the same step of frequency='h'"):
        read(frame, frequency="h")
    assert read(frame, gaps="keep").frequency is None


def test_a_wrong_year_does_not_make_a_table_of_millions_of_rows():
    frame = hourly(50)
    frame.loc[49, "date"] = pd.Timestamp("2200-01-01")
    with pytest.raises(DataError, match="50 rows would become 1,577,"):
        read(frame)


def test_equal_rows_are_dropped_and_conflicting_ones_settled_as_asked():
    frame = hourly(4, b=[5.0, 6, 7, np.nan])
    equal = pd.concat([frame, frame.iloc[[3]]])
    assert len(read(equal)) == 4
    assert "1 row equal to another one in time and values: dropped (first: row 4, 2020-01-01 03:00:00)" in str(
        found(read(equal), "duplicate")
    )
    other = pd.concat([frame, frame.iloc[[1]].assign(b=16.0)])  # 01:00 again, with b = 16 and not 6
    with pytest.raises(
        DataError, match=r"rows 1 and 4 have the same time \(2020-01-01 01:00:00\) but differ, first in column 'b'"
    ):
        read(other)
    for way, b in (("first", 6), ("last", 16), ("mean", 11)):
        series = read(other, duplicates=way)
        np.testing.assert_array_equal(series.values, [[0, 1, 2, 3], [5, b, 7, np.nan]])
        assert series.frequency == "h"
    kept = read(other, duplicates="keep")
    np.testing.assert_array_equal(kept.values[1], [5, 6, 16, 7, np.nan])
    assert kept.frequency is None
    assert len(read(equal, duplicates="keep")) == 5


def test_unknown_ways_and_names_are_met_with_the_nearest():
    with pytest.raises(SettingsError, match="Did you mean 'first'"):
        read(hourly(), duplicates="frist")
    with pytest.raises(SettingsError, match="'15min', 'h', 'D'"):
        read(hourly(), frequency="hourly-ish")
    for times in (hourly(), hourly().assign(date=lambda t: t.date.dt.tz_localize("Europe/Berlin"))):
        with pytest.raises(SettingsError, match=r"frequency=60 is not a pandas offset alias. Examples: 's', '15min'"):
            read(times, frequency=60)
    with pytest.raises(DataError, match=r"no column 'dat'. Did you mean 'date'"):
        read(hourly(), time="dat")
    with pytest.raises(DataError, match="no time column"):
        read(hourly()[["a"]], frequency="h")


# --- cells -----------------------------------------------------------------------------------------------------------


def test_usual_spellings_of_missing_become_nan_and_are_reported(tmp_path):
    series = read(write(tmp_path, "x,y\n1,1\n?,\n3,2\nn/a,5\n"))
    np.testing.assert_array_equal(series.values, [[1, np.nan, 3, np.nan], [1, np.nan, 2, 5]])
    text = found(series, "text")
    assert (text.channel, text.row) == ("x", 1)
    assert "2 cells such as '?'" in str(text)


def test_stray_text_is_refused_with_its_place(tmp_path):
    with pytest.raises(DataError, match=r"t.csv: column 'x' holds 'error' in row 2, where a number is expected"):
        read(write(tmp_path, "x,y\n1,1\n2,1\nerror,1\n4,2\n"))
    with pytest.raises(DataError, match=r"column 'wind' holds text \('NW' in row 0\).*values=\[...\].*series='wind'"):
        read(write(tmp_path, "wind,y\nNW,1\nSE,2\n"))
    assert read(tmp_path / "t.csv", values=["y"]).channels == ("y",)
    with pytest.raises(DataError, match="column 'x' holds 'word' in row 1"):
        read(pd.DataFrame({"x": [1.5, "word", 2.5]}))


def test_codes_for_missing_are_found_where_they_stand_apart():
    x = np.array([5.0, 6, 7, 5, -9999, 6, 7, 8, 5, 6, -9999, 7])
    series = read(pd.DataFrame({"x": x}))
    assert np.flatnonzero(~series.observed[0]).tolist() == [4, 10]
    finding = found(series, "sentinel")
    assert (finding.channel, finding.row) == ("x", 4)
    assert "2 values -9999" in str(finding)
    assert read(pd.DataFrame({"x": x}), missing_codes=()).observed.all()
    assert (~read(pd.DataFrame({"x": x}), missing_codes=[5, -9999]).observed).sum() == 5
    again = read(x[None, :])
    assert np.isnan(again.values[0, 4])
    assert x[4] == -9999  # the caller's array stays as it was


@pytest.mark.parametrize("code", [9.999e20, 1e35, 1e36, -1.07374182e9])
@pytest.mark.parametrize("stored", [np.float64, np.float32])
def test_codes_of_weather_models_are_found_also_where_single_precision_has_rounded_them(code, stored):
    x = np.array([[5.0, 6, 7, 5, code, 6, 7, 8, 5, 6, code, 7]], dtype=stored)
    for kept in (stored, np.float64):  # a table widens what an archive has rounded
        assert np.flatnonzero(~read(x.astype(kept)).observed[0]).tolist() == [4, 10]


def test_genuine_values_that_look_like_codes_stay():
    wide = np.linspace(-20000, 20000, 41)
    wide[3] = -9999.0
    assert read(wide[None, :]).observed.all()
    once = np.array([[1.0, 2, 3, 2, 1, 2, 3, 2, 1, 9999]])  # a single 9999 may be real
    assert read(once).observed.all()
    assert (~read(np.append(once, [[9999]], axis=1)).observed).sum() == 2


def test_an_infinite_value_and_a_channel_without_values_are_refused():
    with pytest.raises(DataError, match="column 'a' holds an infinite value in row 3"):
        read(hourly(a=[0, 1, 2, np.inf, 4, 5]))
    with pytest.raises(DataError, match="column 'b' has no observed value in 6 rows"):
        read(hourly(b=np.nan))


def test_a_constant_channel_is_kept_and_reported():
    series = read(hourly(b=2.0))
    assert series.channels == ("a", "b")
    assert found(series, "constant").channel == "b"


def test_a_price_far_from_zero_keeps_double_precision():
    series = read(hourly(b=1e9 + np.arange(6), c=np.arange(6)))
    assert series.values.dtype == np.float64
    np.testing.assert_array_equal(series.values[1] - 1e9, np.arange(6))
    assert found(series, "precision").channel == "b"


def test_the_given_table_is_never_written_to():
    frame = hourly(20, b=np.where(np.arange(20) == 3, -9999.0, 1.0 * np.arange(20)))
    before = frame.copy()
    read(frame)
    pd.testing.assert_frame_equal(frame, before)


# --- other files -----------------------------------------------------------------------------------------------------


def test_train_and_test_of_an_npz_become_one_series_with_borders_and_labels(tmp_path):
    np.savez(tmp_path / "m.npz", train=np.zeros((4, 2)) + np.arange(2), test=np.ones((3, 2)), test_label=[0, 1, 0])
    series = read(tmp_path / "m.npz")
    np.testing.assert_array_equal(series.values, [[0, 0, 0, 0, 1, 1, 1], [1] * 7])
    assert (series.borders.train_end, series.borders.validation_end, series.borders.test_end) == (4, 4, 7)
    assert series.labels.tolist() == [0, 0, 0, 0, 0, 1, 0]


def test_generic_arrays_of_an_npz_are_found_by_name(tmp_path):
    np.savez(tmp_path / "v.npz", values=np.arange(6).reshape(2, 3))
    assert read(tmp_path / "v.npz").values.tolist() == [[0, 1, 2], [3, 4, 5]]
    np.savez(tmp_path / "x.npz", X=np.arange(12.0).reshape(3, 2, 2), y=np.array(["a", "b", "a"]))
    cases = read(tmp_path / "x.npz")
    assert cases[1].values.tolist() == [[4, 5], [6, 7]]
    assert cases.labels.tolist() == ["a", "b", "a"]
    np.savez(tmp_path / "w.npz", speed=np.zeros((3, 2)))
    with pytest.raises(DataError, match=r"w.npz holds speed \[3, 2\]. Expected train and test"):
        read(tmp_path / "w.npz")
    np.savez(tmp_path / "p.npz", values=np.array([{}], dtype=object))
    with pytest.raises(DataError, match=r"p.npz is no .npz file of plain arrays"):
        read(tmp_path / "p.npz")


def test_text_with_one_number_a_line_is_one_channel(tmp_path):
    np.testing.assert_array_equal(read(write(tmp_path, "1.5\n -2e0\n\n3\n", "u.txt.gz")).values, [[1.5, -2, 3]])
    with pytest.raises(DataError, match=r"u.txt: row 1 holds 'two'"):
        read(write(tmp_path, "1\ntwo\n3\n", "u.txt"))
    with pytest.raises(DataError, match="one number a line"):
        read(write(tmp_path, "1 2\n3 4\n", "u.txt"))


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("t.csv", b"", "t.csv is empty"),
        ("t.csv", b"a,b\n", r"t.csv has a header \(a, b\) but no rows"),
        ("t.csv", b"a,b\n1,2\n3\n4,5\n", "line 3 has 1 cell, but the header names 2 columns: '3'"),
        ("t.csv", b"a,b\n1,2\n3,\0\n", "line 3 holds a NUL byte"),
        ("t.csv", b"a,a\n1,2\n", "two columns named 'a'"),
        ("t.csv.gz", b"a,b\n1,2\n", "t.csv.gz is no gzip file"),
        ("t.csv.gz", _cut(gzip.compress(b"a,b\n" + b"1,2\n" * 99, mtime=0)), "no gzip file, or a truncated one"),
        ("t.parquet", b"PAR1 but not really", "t.parquet is no Parquet file"),
        ("t.parquet", b"", "t.parquet is no Parquet file"),
        ("t.npz", b"PK\x03\x04 but not really", r"t.npz is no .npz file"),
        ("t.xlsx", b"a", "t.xlsx: the ending tells no format that is read. Known: .csv"),
    ],
)  # fmt: skip
def test_a_broken_file_is_one_clear_sentence(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=words) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_missing_path_a_folder_and_a_foreign_object_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"There is no file .*x.csv"):
        read(tmp_path / "x.csv")
    with pytest.raises(DataError, match="is a folder"):
        read(tmp_path)
    with pytest.raises(DataError, match="Cannot read a dict"):
        read({"a": [1]})
    with pytest.raises(ShapeError, match=r"shape \[2, 0\], that is, no values"):
        read(np.zeros((2, 0)))
    with pytest.raises(ShapeError, match=r"One channel alone is x\[None, :\]"):
        read(np.zeros(5))


def test_a_parquet_file_cut_in_the_middle_is_refused(tmp_path):
    pq.write_table(pa.table({"a": np.random.default_rng(0).random(50_000)}), tmp_path / "t.parquet")
    data = bytearray((tmp_path / "t.parquet").read_bytes())
    data[1000:200_000] = bytes(199_000)
    (tmp_path / "t.parquet").write_bytes(data)
    with pytest.raises(DataError, match=r"t.parquet is damaged"):
        read(tmp_path / "t.parquet")


def test_a_large_parquet_file_is_never_held_twice(tmp_path):
    rng = np.random.default_rng(0)
    columns = {f"c{i}": rng.random(20_000) for i in range(400)}  # 32 MB as float32, 64 MB in the file
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    program = (
        "import resource, sys; from prismts.data.readers import read\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "data = read(sys.argv[1])\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / data.values.nbytes)"
    )
    out = subprocess.run([sys.executable, "-c", program, str(tmp_path / "t.parquet")], capture_output=True, check=True)
    assert float(out.stdout) < 1.75  # 1.1 at 400 MB; here fixed costs weigh more


# --- describe --------------------------------------------------------------------------------------------------------


def test_whole_numbers_too_large_to_be_told_apart_are_no_constant_without_a_word():
    rows = 2**60 + np.arange(20)
    for source in (pd.DataFrame({"c": rows}), rows[None]):
        (finding,) = read(source).findings
        assert finding.kind == "constant" and "if it moves, subtract its first value before" in finding.message
    assert "subtract" not in str(read(pd.DataFrame({"c": [7] * 20})).findings)


def test_describe_tells_sizes_times_channels_and_findings():
    description = describe(read(hourly(4, b=[1.0, np.nan, 3, 5], c=7.0)))
    assert (description.n_series, description.n_timepoints, description.frequency) == (1, (4, 4), "h")
    assert description.span == ("2020-01-01 00:00:00", "2020-01-01 03:00:00")
    b, c = description.channels[1:]
    assert (b.observed, b.minimum, b.median, b.maximum, b.constant) == (0.75, 1, 3, 5, False)
    assert c.constant
    assert "75.00%" in str(description)
    assert "Column 'c' is constant (7); it was kept." in str(description)


# --- real data -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "n_channels", "n_timepoints", "frequency"),
    [
        ("ETTh1", 7, 17420, "h"),
        ("ETTh2", 7, 17420, "h"),
        ("ETTm1", 7, 69680, "15min"),
        ("ETTm2", 7, 69680, "15min"),
        ("exchange_rate", 8, 7588, "D"),
        ("national_illness", 7, 966, "W-TUE"),
        ("weather", 21, 52696 - 1 + 9, "10min"),
    ],
)
def test_the_usual_forecasting_sets_are_read(data_root, name, n_channels, n_timepoints, frequency):
    series = read(data_root / "forecasting" / f"{name}.csv.gz")
    assert (series.n_channels, len(series), series.frequency) == (n_channels, n_timepoints, frequency)


def test_what_is_wrong_with_weather_is_found(data_root):
    series = read(data_root / "forecasting" / "weather.csv.gz")
    assert kinds(series).count("sentinel") == 3
    assert {f.channel for f in series.findings if f.kind == "sentinel"} == {"wv (m/s)", series.channels[18], "OT"}
    assert "2020-05-12 06:00:00" in str(found(series, "duplicate"))
    assert "9 rows missing in one gap" in str(found(series, "gap"))
    missing = (~series.observed).sum(axis=1)
    assert missing[series.channels.index("OT")] == 50 + 9
    assert len(read(data_root / "forecasting" / "weather.csv.gz", duplicates="keep", gaps="keep")) == 52696


def test_a_set_for_detection_keeps_its_labels_and_times(data_root):
    series = read(data_root / "anomaly" / "WSD" / "10.npz")
    assert series.borders.train_end == 18235
    assert len(series.labels) == len(series.timestamps) == len(series) == 18235 + 18236
