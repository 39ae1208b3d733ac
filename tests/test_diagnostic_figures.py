"""Figures of diagnostics show the numbers they were given."""

import numpy as np
import pytest

from prismts.errors import DataError, SettingsError, ShapeError
from prismts.report import diagnostics as d
from prismts.report.theme import PALETTE, TEMPLATES

EVIL = '<img src="x">'


def named(figure, name):
    return [trace for trace in figure.data if trace.name == name]


def test_every_gain_is_a_point_of_its_mode_and_data_set():
    figure = d.gain_figure({"ETTh1": {"both": [1.0, 2], "gru_to_cnn": [0.5]}, "ETTh2": {"both": [8.0]}})
    (both,), (one_way,) = named(figure, "both"), named(figure, "gru_to_cnn")
    assert list(both.x) == ["ETTh1", "ETTh1", "ETTh2"]
    assert list(both.y) == [1, 2, 8]
    assert list(one_way.y) == [0.5]
    assert both.boxpoints == "all"


def test_interaction_bars_carry_their_intervals_and_fade_where_zero_is_inside():
    estimates = {"H = 96": {"ETTh1": (-0.2, -0.5, -0.1), "ETTh2": (0.1, -0.2, 0.3)}, "H = 720": {"ETTh1": (1, 0.5, 2)}}
    figure = d.interaction_figure(estimates)
    (short,) = named(figure, "H = 96")
    assert list(short.x) == ["ETTh1", "ETTh2"]
    assert list(short.y) == [-0.2, 0.1]
    np.testing.assert_allclose(short.error_y.array, [0.1, 0.2])
    np.testing.assert_allclose(short.error_y.arrayminus, [0.3, 0.3])
    assert short.marker.color == PALETTE[0]
    assert list(short.marker.opacity) == [1, 0.4]
    assert len(figure.data) == 2


def test_an_interval_that_misses_its_own_estimate_is_refused():
    with pytest.raises(DataError, match=r"'H = 96' lies outside its own interval; pass \(value, low, high\)"):
        d.interaction_figure({"H = 96": {"ETTh1": (-0.5, -0.2, -0.1)}})


def test_the_heat_map_shows_percent_and_leaves_missing_cells_empty():
    figure = d.win_rate_figure([[0.3, 1.0], [np.nan, 0.0]], ["ETTh1", "ETTh2"], ["96", "720"])
    (heat,) = figure.data
    np.testing.assert_allclose(heat.z, [[30, 100], [np.nan, 0]])
    assert [list(line) for line in heat.text] == [["30 %", "100 %"], ["", "0 %"]]
    assert (heat.zmin, heat.zmax) == (0, 100)
    assert (list(heat.x), list(heat.y)) == (["96", "720"], ["ETTh1", "ETTh2"])


def test_a_heat_map_of_another_shape_is_refused():
    with pytest.raises(ShapeError, match=r"shape \[1, 2\], but 2 rows and 1 columns are named"):
        d.win_rate_figure([[0.3, 1.0]], ["a", "b"], ["c"])


def test_gradients_stand_in_one_panel_per_arrangement_on_one_scale():
    figure = d.gradient_figure({"both": {"cnn": [1.0, 2], "gru": [3.0, 4]}, "late fusion": {"cnn": [0.1, 0.0]}})
    first, second = named(figure, "cnn")
    assert list(first.x) == [1, 2] and list(first.y) == [1, 2]
    assert (first.xaxis, second.xaxis) == ("x", "x2")
    assert second.y[0] == 0.1 and np.isnan(second.y[1])
    assert figure.layout.meta["note"] == "No gradient at all reached: late fusion, cnn, layer 2."
    assert figure.layout.yaxis.type == "log"
    assert [note.text for note in figure.layout.annotations] == ["both", "late fusion"]
    assert [trace.showlegend for trace in (first, second)] == [True, False]


def test_kernels_are_averaged_at_each_time_of_day():
    times = np.array(["2024-01-01T00:10", "2024-01-02T00:50", "2024-01-01T13:00"], "datetime64[m]")
    figure = d.kernels_over_day_figure([[1.0, 10], [3.0, 10], [5.0, 20]], times)
    (tap,) = named(figure, "tap 1")
    assert tap.y[0] == 2 and tap.y[13] == 5
    assert np.isnan(tap.y[1])
    assert (tap.x[0], tap.x[13]) == (0.5, 13.5)
    high, low = named(figure, "tap 1, one deviation")
    assert (high.y[0], low.y[0]) == (3, 1)
    assert named(figure, "tap 2")[0].y[13] == 20


def test_kernels_of_many_widths_are_averaged_over_them():
    times = np.array(["2024-01-01T12:00"], "datetime64[m]")
    figure = d.kernels_over_day_figure(np.array([[[1.0, 2], [3.0, 6]]]), times, n_bins=2)
    assert [named(figure, f"tap {i}")[0].y[1] for i in (1, 2)] == [2, 4]


def test_kernels_without_a_time_each_are_refused():
    with pytest.raises(ShapeError, match=r"have shape \[2, 3\] with 1 times"):
        d.kernels_over_day_figure(np.zeros((2, 3)), np.array(["2024-01-01"], "datetime64[D]"))


def test_the_wobble_of_the_phase_is_told_in_hours():
    dates = np.datetime64("2024-01-02") + np.arange(3)
    figure = d.phase_wobble_figure(dates, [4, -8, 0], 96, title=EVIL)
    (lag,) = figure.data
    assert list(lag.y) == [1, -2, 0]
    assert list(lag.x) == ["2024-01-02", "2024-01-03", "2024-01-04"]
    assert {line.y0 for line in figure.layout.shapes} == {1, -1}
    assert figure.layout.title.text == '&lt;img src="x"&gt;: median size 1.00 h, Phase-Drift 0.0417'


def test_each_measure_of_coupling_has_a_panel_with_a_bar_per_set_and_mode():
    figure = d.coupling_figure(
        {
            "lead (steps)": {"both": {"ETTh1": 1.3, "ETTh2": 1.5}, "cnn_to_gru": {"ETTh1": 0.9}},
            "dCor": {"both": {"ETTh1": 0.7}},
        }
    )
    lead, dcor = named(figure, "both")
    assert list(lead.x) == ["ETTh1", "ETTh2"] and list(lead.y) == [1.3, 1.5]
    assert list(dcor.y) == [0.7] and dcor.yaxis == "y2"
    assert len(figure.data) == 3


@pytest.mark.parametrize("draw", [d.gain_figure, d.interaction_figure, d.gradient_figure, d.coupling_figure])
def test_a_figure_of_nothing_is_refused(draw):
    with pytest.raises(SettingsError, match=r"needs at least one .* but got none"):
        draw({})


def test_names_are_escaped_and_the_house_template_is_used():
    figures = [
        d.gain_figure({EVIL: {EVIL: [1.0]}}),
        d.interaction_figure({EVIL: {EVIL: (1, 0, 2)}}),
        d.win_rate_figure([[1.0]], [EVIL], [EVIL]),
        d.gradient_figure({EVIL: {EVIL: [1.0]}}),
        d.coupling_figure({EVIL: {EVIL: {EVIL: 1.0}}}),
    ]
    for figure in figures:
        assert "<img" not in figure.to_json().replace("\\u003c", "<")
        assert figure.layout.template.layout.colorway == tuple(TEMPLATES["light"]["layout"]["colorway"])
