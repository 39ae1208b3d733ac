"""Days in one column and times of day in another: read together, by name, or refused in words."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest

from prismts import Forecaster, read
from prismts.errors import DataError

HOURS = pd.date_range("2024-03-01 05:00", periods=60, freq="h")
WRITTEN = {
    "times": [one.time() for one in HOURS],
    "hours and minutes": HOURS.strftime("%H:%M"),
    "seconds": HOURS.strftime("%H:%M:%S"),
    "halves of the day": HOURS.strftime("%I:%M %p"),
    "points": HOURS.strftime("%H.%M.%S"),
    "categories": pd.Categorical(HOURS.strftime("%H:%M")),
}


def table(cells, days=None, **names):
    days = HOURS.strftime("%Y-%m-%d") if days is None else days
    frame = pd.DataFrame({"Date": days, "Time": cells, "load": np.arange(60.0)})
    return frame.rename(columns=names)


@pytest.mark.parametrize("days", ["text", "times", "dates"])
@pytest.mark.parametrize("how", WRITTEN)
def test_days_and_times_of_day_are_one_time(how, days):
    days = {"text": None, "times": HOURS.normalize(), "dates": [one.date() for one in HOURS]}[days]
    series = read(table(WRITTEN[how], days))
    assert list(pd.DatetimeIndex(series.timestamps)) == list(HOURS)
    assert series.frequency == "h" and series.channels == ("load",)
    assert "Column 'Time' holds times of day; it was read together with the days in column 'Date'." in [
        finding.message for finding in series.findings
    ]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_files_and_other_tables_are_read_alike(tmp_path, ending):
    frame = table(WRITTEN["times"])
    file = tmp_path / f"load.{ending}"
    frame.to_csv(file, index=False) if ending == "csv" else frame.to_parquet(file)
    for source in (file, pl.from_pandas(frame.astype({"Time": str}))):
        assert list(pd.DatetimeIndex(read(source).timestamps)) == list(HOURS)


def test_a_table_of_an_air_monitor_is_read_as_it_comes(tmp_path):
    """Days first, points in the clock, commas in the numbers."""
    rows = [f"{one:%d/%m/%Y;%H.%M.%S};{i},5" for i, one in enumerate(HOURS)]
    (tmp_path / "air.csv").write_text("\n".join(["Date;Time;CO(GT)", *rows]) + "\n")
    series = read(tmp_path / "air.csv")
    assert list(pd.DatetimeIndex(series.timestamps)) == list(HOURS)
    assert series.values[0, :2].tolist() == [0.5, 1.5]


@pytest.mark.parametrize(
    ("text", "hours"),
    [("0:00", 0), ("12:00 AM", 0), ("12:30 am", 0.5), ("12:00 PM", 12), ("1:15 p.m.", 13.25), ("24:00", 24),
     ("23:59:59.5", 23 + 3599.5 / 3600), (" 7:30 ", 7.5)],
)  # fmt: skip
def test_a_time_of_day_is_hours_after_midnight(text, hours):
    series = read(pd.DataFrame({"date": ["2024-03-01"], "time": [text], "load": [1.0]}))
    assert pd.Timestamp(series.timestamps[0]) == pd.Timestamp("2024-03-01") + pd.Timedelta(hours=hours)


def test_one_new_row_is_read_as_many_were():
    """The name tells what a column is: a single row has no days that repeat."""
    forecaster = Forecaster("ridge", context_length=24, horizon=3, progress=False).fit(table(WRITTEN["seconds"]))
    forecast = forecaster.predict(table(WRITTEN["seconds"]))
    assert list(forecast["Date"]) == list(pd.date_range(HOURS[-1] + pd.Timedelta("1h"), periods=3, freq="h"))
    one = read(table(WRITTEN["seconds"]).iloc[7:8], time="Date", values=["load"])
    assert list(pd.DatetimeIndex(one.timestamps)) == [HOURS[7]]


def test_times_that_have_a_time_of_day_already_take_no_other():
    frame = table(WRITTEN["seconds"], HOURS, Time="clock")
    assert list(pd.DatetimeIndex(read(frame, values=["load"]).timestamps)) == list(HOURS)


def test_a_column_of_another_name_is_no_part_of_the_time():
    """Such as the minute of the daily peak, which would make days irregular."""
    days = pd.date_range("2024-03-01", periods=60, freq="D")
    frame = table([datetime.time(18, i % 60) for i in range(60)], days, Time="peak")
    with pytest.raises(
        DataError, match=r"column 'peak' holds times of day. If they belong to the days in column 'Date'"
    ):
        read(frame)
    assert read(frame, values=["load"]).frequency == "D"


@pytest.mark.parametrize(
    ("cell", "words"),
    [("25:00", "'25:00' in row 30, which is no time of day"), (None, "row 30 has no time of day in column 'Time'")],
)
def test_a_cell_that_is_no_time_of_day_is_named(cell, words):
    cells = list(WRITTEN["seconds"])
    cells[30] = cell
    with pytest.raises(DataError, match=words):
        read(table(cells))
