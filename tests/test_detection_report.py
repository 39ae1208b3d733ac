"""The page about a detector shows the scores it was given, marks the events, and loads nothing."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from prismts.data.series import Collection, Series
from prismts.data.synthetic import planted_anomalies
from prismts.errors import ShapeError
from prismts.estimators.detector import AnomalyDetector
from prismts.evaluation.thresholds import Event, quantile_threshold
from prismts.report.detection import detection_figure, detection_page

PLANTED = planted_anomalies(1200, n_anomalies=4, length=30)
TEST = PLANTED.part(600, 1200)
LINE = quantile_threshold(np.arange(100.0), 0.1)


def ramp(n=60, n_channels=3, timed=False):
    times = np.arange("2024-01-01", n, dtype="datetime64[h]") if timed else None
    return Series(np.arange(float(n)) + 10 * np.arange(n_channels)[:, None], ("a", "b", "c")[:n_channels], times)


@pytest.fixture(scope="module")
def fitted():
    return AnomalyDetector(progress=False).fit(PLANTED.values[:, :600])


def test_a_figure_holds_channels_scores_threshold_and_one_mark_for_each_event():
    series, scores = ramp(), np.linspace(0, 5, 60)
    found = [Event(10, 20, 15, 1.2, ("c",)), Event(40, 41, 40, 3.4, ("c", "a"))]
    figure = detection_figure(series, scores, LINE, found, np.ones((3, 60)))
    by_name = {trace.name: trace for trace in figure.data}
    np.testing.assert_allclose(by_name["score"].y, scores)
    assert set(by_name["threshold"].y) == {LINE.value}
    np.testing.assert_allclose(by_name["b"].y, series.values[1])
    assert [a.text for a in figure.layout.annotations] == ["c", "a", "b", "score", "what each channel adds"]
    assert {(shape.x0, shape.x1) for shape in figure.layout.shapes} == {(10, 19), (40, 40)}


def test_missing_values_are_gaps_and_the_highest_value_of_a_long_series_stays_in_the_line():
    values = np.zeros((1, 50_000))
    values[0, 31_234], values[0, 100:40_00] = 7.0, np.nan
    figure = detection_figure(Series(values), np.zeros(50_000), LINE, [])
    line = figure.data[0].y
    assert len(line) < 5000 and max(one for one in line if one is not None) == 7.0 and None in line


def test_wide_tables_show_the_channels_to_blame_and_say_what_is_left_out():
    figure = detection_figure(ramp(), np.zeros(60), LINE, [Event(1, 2, 1, 1.0, ("c",))], most_channels=1)
    assert [trace.name for trace in figure.data][:2] == ["c", "score"]
    assert "1 of 3 channels" in figure.layout.meta["note"]


def test_scores_of_another_length_are_refused():
    with pytest.raises(ShapeError, match=r"one for each step"):
        detection_figure(ramp(), np.zeros(59), LINE, [])
    with pytest.raises(ShapeError, match=r"as the series is"):
        detection_figure(ramp(), np.zeros(60), LINE, [], np.zeros((2, 60)))


def test_a_page_lists_the_events_with_their_times_and_loads_nothing(fitted, tmp_path):
    times = pd.date_range("2024-03-01", periods=600, freq="h").to_numpy()
    series = Series(TEST.values, PLANTED.channels, times, "h", name="<plant>")
    written = detection_page(tmp_path / "page.html", fitted, series, command="prism predict m new.csv")
    page = written.path.read_text(encoding="utf-8")
    found = fitted.events(series)
    assert found
    for event in found:
        assert f"{pd.Timestamp(times[event.peak]):%Y-%m-%d %H:%M:%S}" in page
    assert "&lt;plant&gt;" in page and "prism predict m new.csv" in page and fitted.calibrated_on_ in page
    body = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert not re.search(r"(src|href)=[\"']?https?://", body)
    drawn = json.loads(re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', page, re.S).group(1))
    assert len(drawn["figures"]) == 1


def test_a_page_of_many_series_has_a_part_for_each_and_a_quiet_one_says_so(fitted, tmp_path):
    quiet = Series(PLANTED.values[:, 480:600], PLANTED.channels, name="quiet")
    both = Collection.of([Series(TEST.values, PLANTED.channels, name="wild"), quiet])
    page = detection_page(tmp_path / "page.html", fitted, both).path.read_text(encoding="utf-8")
    assert "wild" in page and "No step is above the threshold." in page


def test_the_page_reads_a_table_as_predict_does(tmp_path):
    """A channel may have no value today."""
    series = planted_anomalies()
    detector = AnomalyDetector(progress=False).fit(series.part(0, 1000))
    dead = pd.DataFrame(series.values.T, columns=list(series.channels)).assign(**{series.channels[0]: np.nan})
    detector.predict(dead)
    assert detection_page(tmp_path / "page.html", detector, dead).path.exists()
