"""The report: figures show the numbers they were given, and the page is one file that loads nothing."""

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from prismts.data.series import Collection, Finding, Series
from prismts.data.splits import Borders
from prismts.data.synthetic import sine_mixture
from prismts.errors import SettingsError, ShapeError
from prismts.estimators.forecaster import Forecaster
from prismts.evaluation.protocols import score
from prismts.evaluation.scores import Scores
from prismts.report import figures, flags
from prismts.report.forecast import forecast_page, forecast_report
from prismts.report.page import Code, Drawing, Facts, Note, Section, Table, Text, write_report
from prismts.report.theme import TEMPLATES, label

HOURS = np.arange("2024-01-01", "2024-01-03", dtype="datetime64[h]")  # 48 hours
EVIL = '</script><img src="http://x.example/a.png" onerror=alert(1)>'


def ramp(n_channels=2, timed=True, names=()):
    values = np.arange(48.0) + 100 * np.arange(n_channels)[:, None]  # [C, 48]
    return Series(values, names, HOURS if timed else None, "h" if timed else None, name="ramp")


def traces(figure, name):
    return [trace for trace in figure.data if trace.name == name]


def scores_of(mse, n_scored=10):
    per_step = np.full(4, mse) + np.arange(4) / 10
    return Scores(
        {"mse": mse, "mae": mse / 2}, n_scored, 1.5, "honest", "ramp", "abcd", 0,
        per_step={"mse": per_step}, per_channel={"mse": np.array([mse, 2 * mse])}, channels=("a", "b"),
    )  # fmt: skip


class Page(HTMLParser):
    """What a browser would load or run, the data of the figures, and the text between the tags."""

    def __init__(self, path):
        super().__init__()
        self.loaded, self.tags, self.text, self.data, self.open = [], [], "", None, []
        self.scripts, self.styles, self.handlers = [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.tags.append((tag, named))
        self.open.append((tag, named))
        self.handlers += [name for name in named if name.startswith("on")]
        self.loaded += [named[name] for name in ("src", "srcset", "data", "poster", "action") if name in named]
        self.loaded += [named["href"]] if tag in ("link", "base", "image", "use") else []
        self.styles += [named["style"]] if "style" in named else []

    def handle_endtag(self, tag):
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        tag, named = self.open[-1] if self.open else ("", {})
        if tag == "script" and named.get("type") == "application/json":
            self.data = json.loads(data)
        elif tag == "script":
            self.scripts.append(data)
        elif tag == "style":
            self.styles.append(data)
        else:
            self.text += data


def assert_loads_nothing(page):
    assert all(address.startswith("data:") for address in page.loaded)
    assert not [style for style in page.styles if "url(" in style or "@import" in style]
    assert page.handlers == []
    assert not {"iframe", "img", "object", "embed", "audio", "video"} & {tag for tag, _ in page.tags}
    policy = next(named["content"] for tag, named in page.tags if named.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "http" not in policy


@pytest.fixture(scope="module")
def fitted():
    series = sine_mixture(420, periods=(12.0,), amplitudes=(1.0,), n_channels=2, seed=1)
    borders = Borders(280, 340, 420)
    forecaster = Forecaster(
        context_length=48, horizon=12, progress=False, quantiles=(0.1, 0.5, 0.9),
        model_settings={"kernel_sizes": (3, 5), "patch_length": 8, "stride": 4, "width": 8, "feed_forward": 8},
        fit_settings={"max_epochs": 2, "batch_size": 64},
    ).fit(series, validation=borders)  # fmt: skip
    floor = Forecaster("last_value", context_length=48, horizon=12).fit(series, validation=borders)
    return series, borders, forecaster, floor


# ---- figures


def test_a_forecast_is_drawn_at_the_times_after_the_end_with_the_values_it_was_given():
    forecast = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])  # [C, H]
    figure = figures.forecast_figure(ramp(), {"mine": forecast}, n_history=5)
    first, second = traces(figure, "mine")
    assert list(first.x) == [f"2024-01-03T0{hour}:00:00" for hour in range(3)]
    np.testing.assert_array_equal([first.y, second.y], forecast)
    np.testing.assert_array_equal(traces(figure, "observed")[1].y, [143, 144, 145, 146, 147])


def test_a_series_without_times_is_drawn_over_step_numbers():
    figure = figures.forecast_figure(ramp(1, timed=False), {"mine": np.zeros((1, 2))}, n_history=1)
    assert [list(trace.x) for trace in figure.data] == [[47], [48, 49]]


def test_quantiles_become_bands_from_the_outside_in_around_the_median():
    levels = (0.05, 0.25, 0.5, 0.75, 0.95)
    forecast = np.array(levels)[:, None, None] * np.ones((5, 1, 3))  # [Q, C, H]
    figure = figures.forecast_figure(ramp(1), {"mine": forecast}, quantiles=levels)
    band, inner = traces(figure, "mine 0.05 to 0.95"), traces(figure, "mine 0.25 to 0.75")
    assert [trace.y[0] for trace in band] == [0.95, 0.05]
    assert [trace.fill for trace in inner] == [None, "tonexty"]
    assert traces(figure, "mine")[0].y[0] == 0.5


def test_quantiles_without_their_levels_are_refused():
    with pytest.raises(ShapeError, match="forecast of 3 quantiles came with none levels"):
        figures.forecast_figure(ramp(1), {"mine": np.zeros((3, 1, 2))})


def test_a_forecast_of_the_wrong_number_of_channels_is_refused():
    with pytest.raises(ShapeError, match=r"'mine' has shape .*3, 2.* but the series has 2 channels"):
        figures.forecast_figure(ramp(), {"mine": np.zeros((3, 2))})


def test_of_many_channels_twelve_are_shown_and_the_others_named():
    figure = figures.forecast_figure(ramp(15), {"mine": np.zeros((15, 2))})
    assert len(traces(figure, "mine")) == 12
    assert figure.layout.meta["note"] == (
        "Shown are 12 of 15 channels; left out: channel_12, channel_13, channel_14."
    )  # fmt: skip


def test_channels_are_shown_by_name_and_an_unknown_one_is_an_error():
    chosen = figures.forecast_figure(ramp(), {"mine": np.arange(4.0).reshape(2, 2)}, channels=["channel_1"])
    np.testing.assert_array_equal(traces(chosen, "mine")[0].y, [2, 3])
    with pytest.raises(SettingsError, match="no channel named 'channel_9'"):
        figures.forecast_figure(ramp(), {"mine": np.zeros((2, 2))}, channels=["channel_9"])


def test_the_best_the_median_and_the_worst_window_are_those_of_small_middle_and_large_error():
    series, origins = ramp(1), np.array([10, 20, 30, 40])
    off = np.array([3.0, 0.5, 9.0, 1.0])  # errors by window: the order is 1, 3, 0, 2
    forecast = np.stack([series.values[:, o : o + 4] + e for o, e in zip(origins, off, strict=True)])  # [W, C, H]
    chosen = figures.chosen_windows(series, origins, forecast)
    assert [(what, w) for (what, _), w in chosen] == [("best", 1), ("median", 3), ("worst", 2)]
    spread = np.var([o + h for o in origins for h in range(4)])
    assert chosen[0][0][1] == pytest.approx(0.25 / spread)


def test_a_window_in_which_nothing_was_observed_is_not_called_the_best():
    values = ramp(1).values.copy()
    values[:, 10:14] = np.nan
    series, origins = Series(values), np.array([10, 20, 30, 40])
    forecast = np.stack([np.nan_to_num(values[:, o : o + 4]) + 1 for o in origins])
    assert 0 not in [w for _, w in figures.chosen_windows(series, origins, forecast)]


def test_windows_can_be_chosen_evenly():
    forecast = np.zeros((5, 1, 4))
    chosen = figures.chosen_windows(ramp(1), np.arange(10, 15), forecast, choose="even", n_shown=3)
    assert [w for _, w in chosen] == [0, 2, 4]


def test_a_backtest_shows_context_what_came_and_each_forecast_and_its_menu_shows_one_channel_at_a_time():
    series, origins = ramp(), np.array([10, 20, 30])
    forecasts = {"mine": np.random.default_rng(0).normal(size=(3, 2, 4)), "floor": np.zeros((3, 2, 4))}
    figure = figures.backtest_figure(series, origins, forecasts, n_context=6, choose="even")
    mine = traces(figure, "mine")  # channel by channel, in each window by window
    np.testing.assert_array_equal([t.y for t in mine], forecasts["mine"].transpose(1, 0, 2).reshape(6, 4))
    np.testing.assert_array_equal(
        traces(figure, "observed")[4].y, np.arange(114, 124)
    )  # 6 before 120 and 4 of what came
    assert list(mine[0].x) == [f"2024-01-01T{hour}:00:00" for hour in range(10, 14)]
    (menu,) = figure.layout.updatemenus
    assert [button.label for button in menu.buttons] == ["channel_0", "channel_1"]
    for c, button in enumerate(menu.buttons):
        shown = [trace for trace, visible in zip(figure.data, button.args[0]["visible"], strict=True) if visible]
        np.testing.assert_array_equal([t.y for t in shown if t.name == "mine"], forecasts["mine"][:, c])
    assert [trace.visible for trace in figure.data] == menu.buttons[0].args[0]["visible"]


def test_errors_along_the_horizon_and_by_channel_are_those_of_the_scores():
    scores = {"mine": scores_of(0.3), "floor": scores_of(0.5)}
    by_step = figures.error_by_step_figure(scores)
    np.testing.assert_allclose(traces(by_step, "floor")[0].y, [0.5, 0.6, 0.7, 0.8])
    assert list(by_step.data[0].x) == [1, 2, 3, 4]
    by_channel = figures.error_by_channel_figure(scores)
    np.testing.assert_allclose(traces(by_channel, "mine")[0].x, [0.3, 0.6])
    assert list(by_channel.layout.yaxis.ticktext) == ["a", "b"]


def test_of_many_channels_those_with_the_largest_errors_are_shown():
    figure = figures.error_by_channel_figure({"mine": scores_of(0.3)}, most_channels=1)
    assert list(figure.layout.yaxis.ticktext) == ["b"]
    assert "1 of 2 channels" in figure.layout.meta["note"]


def test_an_unknown_error_is_refused_with_the_nearest_known():
    with pytest.raises(SettingsError, match="Did you mean 'mse'"):
        figures.error_by_step_figure({"mine": scores_of(0.3)}, "mse2")


def test_patches_are_drawn_beside_the_uniform_ones_with_their_shift_and_width():
    # uniform patches of 4 steps, 2 apart: [0, 3], [2, 5]; the first one moved by 1, the second widened by 2
    figure = figures.patch_bounds_figure(np.arange(6.0), np.array([1, 1]), np.array([4, 6]), patch_length=4, stride=2)
    uniform, moved = traces(figure, "uniform patch")[0], traces(figure, "deformable patch")[0]
    assert (list(uniform.base), list(uniform.x)) == ([0, 2], [3, 3])
    assert (list(moved.base), list(moved.x)) == ([1, 1], [3, 5])
    assert list(traces(figure, "center moved")[0].y) == [1, 0]
    assert list(traces(figure, "widened")[0].y) == [0, 2]


def test_residual_weights_are_bars_of_each_branch():
    weights = [{"convolution": 0.1, "feed-forward": -0.2}, {"convolution": 0.3}]
    figure = figures.residual_weights_figure(weights)
    assert list(traces(figure, "convolution")[0].y) == [0.1, 0.3]
    assert list(traces(figure, "feed-forward")[0].x) == ["block 1"]


def test_the_training_figure_marks_the_epoch_that_was_kept():
    history = [{"epoch": 1, "train_loss": 3.0, "val_loss": 2.0}, {"epoch": 2, "train_loss": 2.0, "val_loss": 1.5}]
    figure = figures.training_figure(history, best_epoch=2)
    assert list(traces(figure, "validation")[0].y) == [2.0, 1.5]
    kept = traces(figure, "kept: epoch 2")[0]
    assert (list(kept.x), list(kept.y)) == ([2], [1.5])


def test_labels_are_escaped_where_plotly_would_read_html_and_shortened():
    assert label("<b>a & b</b>") == "&lt;b&gt;a &amp; b&lt;/b&gt;"
    assert len(label("x" * 90)) == 40


# ---- what must not be overlooked


def test_patches_that_did_not_move_are_flagged_and_those_that_did_are_not():
    still = np.zeros((2, 3))
    assert "did not move" in (flags.patches_stayed(still, still) or "")
    assert "hardly moved, by at most 0.3 steps" in (flags.patches_stayed(still + 0.3, still) or "")
    assert flags.patches_stayed(still, still - 4) is None


def test_a_validation_loss_that_never_improved_is_flagged():
    assert "never improved" in (flags.never_improved([{"val_loss": 1.0}, {"val_loss": 1.0}]) or "")
    assert flags.never_improved([{"val_loss": 1.0}, {"val_loss": 0.9}]) is None
    assert flags.never_improved([{"val_loss": 1.0}]) is None  # one epoch tells nothing


def test_a_model_behind_a_floor_is_flagged_with_both_numbers():
    flag = flags.behind_a_floor({"mine": scores_of(0.5), "ridge": scores_of(0.3), "last": scores_of(0.9)})
    assert flag == "mine is behind ridge: MSE 0.5000 against 0.3000. On these data ridge is the better choice."
    assert flags.behind_a_floor({"mine": scores_of(0.2), "ridge": scores_of(0.3)}) is None
    level = flags.behind_a_floor({"mine": scores_of(0.302), "ridge": scores_of(0.3)})
    assert level is not None and level.endswith("it earns nothing over ridge, which is simpler.")


def test_scores_of_different_windows_are_flagged():
    assert flags.different_windows({"a": scores_of(0.1), "b": scores_of(0.2)}) is None
    assert "cannot be compared" in (
        flags.different_windows({"a": scores_of(0.1), "b": scores_of(0.2, n_scored=9)}) or ""
    )


# ---- the page


def test_every_text_is_escaped_wherever_it_stands(tmp_path):
    figure = figures.forecast_figure(ramp(names=(EVIL, "b")), {EVIL: np.zeros((2, 3))})
    blocks = [
        Text(EVIL), Note(EVIL), Facts([(EVIL, EVIL)]), Table([EVIL], [[EVIL]], EVIL), Code(EVIL),
        Drawing(figures.with_menu({EVIL: figure, "b": figure}, EVIL), EVIL, EVIL),
    ]  # fmt: skip
    written = write_report(tmp_path / "page.html", EVIL, [Section(EVIL, blocks)], subtitle=EVIL)
    page = Page(written.path)
    assert_loads_nothing(page)
    assert page.text.count(EVIL) == 14  # each of the arguments above once, and the title also in the tab
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 3  # data, plotly, ours
    assert page.data["figures"][0]["data"][1]["name"] == label(EVIL)


def test_every_section_has_a_place_of_its_own_whatever_its_title(tmp_path):
    titles = ["Scores", "数据", "北京", "plant 1", "plant-1", "plant 1-2"]
    page = tmp_path / "page.html"
    write_report(page, "places", [Section(title, [Text(title)]) for title in titles])
    text = page.read_text()
    places = re.findall(r'<section id="([^"]+)"', text)
    assert len(places) == len(set(places)) == len(titles) and places[0] == "scores"
    assert re.findall(r'<a href="#([^"]+)"', text) == places


def test_a_long_line_is_drawn_by_the_ends_of_each_stretch_and_by_its_gaps():
    y = np.zeros(1000)
    y[301], y[302], y[303] = 5.0, np.nan, -5.0
    at, values = figures.thinned(y, 100)
    found = dict(zip(at.tolist(), values, strict=True))
    assert (found[301], found[302], found[303]) == (5.0, None, -5.0) and len(at) < 110
    assert figures.thinned(y[:100], 100)[0].tolist() == list(range(100))


def test_data_of_figures_cannot_end_the_script_they_stand_in(tmp_path):
    figure = figures.residual_weights_figure([{"</SCRIPT><!--<script>": 1.0}])
    written = write_report(tmp_path / "page.html", "t", [Section("s", [Drawing(figure, "c")])])
    source = written.path.read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="figures">(.*?)</script>', source, re.DOTALL)
    assert data is not None
    assert not set("<>&") & set(data[1])
    assert json.loads(data[1])["figures"][0]["data"][0]["name"] == "</SCRIPT><!--<script>"


def test_plotly_is_inlined_once_and_the_size_of_the_file_is_told(tmp_path):
    drawing = Drawing(figures.residual_weights_figure([{"convolution": 1.0}]), "c")
    written = write_report(tmp_path / "deep" / "page.html", "t", [Section("s", [drawing, drawing])])
    page = Page(written.path)
    assert sum("plotly.js v" in script for script in page.scripts) == 1
    assert written.n_bytes == written.path.stat().st_size
    assert str(written).endswith("MB)")


def test_plotly_itself_cannot_end_the_script_it_stands_in():
    from plotly.offline import get_plotlyjs

    assert not re.search("</script|<!--", get_plotlyjs(), re.IGNORECASE)


def test_figures_leave_their_colors_to_the_page_which_has_one_template_for_light_and_one_for_dark(tmp_path):
    drawing = Drawing(figures.residual_weights_figure([{"convolution": 1.0}]), "c")
    page = Page(write_report(tmp_path / "page.html", "t", [Section("s", [drawing])]).path)
    assert "template" not in page.data["figures"][0]["layout"]
    assert page.data["templates"] == TEMPLATES
    assert "prefers-color-scheme: dark" in page.styles[0]


def test_a_page_that_cannot_be_written_leaves_the_old_one_and_no_fragments(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        write_report(path, "t", [])
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_no_place_for_a_page(tmp_path):
    with pytest.raises(SettingsError, match=r"is a folder\. Name a file in it"):
        write_report(tmp_path, "t", [])


# ---- pages about a forecaster


def test_the_report_of_a_forecaster_tells_scores_data_settings_and_loads_nothing(fitted, tmp_path):
    series, borders, forecaster, floor = fitted
    scores = {"mine": score(forecaster, series, borders), "last value": score(floor, series, borders)}
    path = tmp_path / "report.html"
    forecast_report(path, forecaster, series, borders, scores, rivals={"last value": floor}, command="prism demo")
    page = Page(path)
    assert_loads_nothing(page)
    assert "simulated, not measured" in page.text  # a sine mixture was never measured
    for told in (
        f"{scores['mine']['mse']:.4f}", f"{scores['last value']['mse']:.4f}", scores["mine"].data_hash, "69", "honest",
        "420", "prism demo", "60 steps", '"kernel_sizes": [', "torch", "alpha", "Patches", "protocol",
    ):  # fmt: skip
        assert told in page.text, told
    assert len(page.data["figures"]) == 7  # forecast, windows, by step, by channel, patches, alpha, training


def test_the_forecast_in_the_report_is_that_of_predict(fitted, tmp_path):
    series, _, forecaster, _ = fitted
    page = Page(forecast_page(tmp_path / "page.html", forecaster, series).path)
    table = forecaster.predict(series)
    drawn = [trace for trace in page.data["figures"][0]["data"] if trace["name"] == "convtimenet"]
    for trace, channel in zip(drawn, series.channels, strict=True):
        np.testing.assert_array_equal(decoded(trace["y"]), table[channel].to_numpy())


def test_a_model_without_patches_or_blocks_is_reported_without_them(fitted, tmp_path):
    series, borders, _, floor = fitted
    scores = {"last value": score(floor, series, borders)}
    page = Page(forecast_report(tmp_path / "r.html", floor, series, borders, scores, simulated=False).path)
    assert "has neither patches nor residual blocks" in page.text
    assert "simulated" not in page.text
    assert len(page.data["figures"]) == 4


def test_patches_are_drawn_over_the_steps_that_they_are_cut_from(tmp_path):
    series = sine_mixture(900, periods=(12.0,), amplitudes=(1.0,), seed=1)
    borders = Borders(700, 800, 900)
    forecaster = Forecaster(
        setting="long_line", context_length=360, horizon=12, progress=False, fit_settings={"max_epochs": 1},
        model_settings={"kernel_sizes": (3,), "width": 8, "feed_forward": 8},
    ).fit(series, validation=borders)  # fmt: skip
    scores = {"mine": scores_of(0.3)}
    page = Page(forecast_report(tmp_path / "r.html", forecaster, series, borders, scores).path)
    (drawn,) = [one for one in page.data["figures"] if "uniform patch" in json.dumps(one)]
    assert max(len(decoded(trace["y"])) for trace in drawn["data"]) == 336


def test_uniform_patches_are_told_instead_of_drawn(tmp_path):
    series, borders = sine_mixture(150, periods=(12.0,), amplitudes=(1.0,), seed=1), Borders(90, 120, 150)
    forecaster = Forecaster(
        context_length=24, horizon=6, progress=False, fit_settings={"max_epochs": 1},
        model_settings={"kernel_sizes": (3,), "patch_length": 8, "stride": 4, "width": 8, "patches": "uniform"},
    ).fit(series, validation=borders)  # fmt: skip
    page = Page(
        forecast_report(tmp_path / "r.html", forecaster, series, borders, {"mine": scores_of(0.3)}).path
    )  # fmt: skip
    assert "The patches of this model are uniform" in page.text
    assert "One epoch was trained" in page.text


def test_a_report_without_scores_is_refused(fitted, tmp_path):
    series, borders, forecaster, _ = fitted
    with pytest.raises(SettingsError, match="needs the scores of the forecaster"):
        forecast_report(tmp_path / "r.html", forecaster, series, borders, {})


def test_of_many_series_twelve_are_drawn_and_the_page_says_so(tmp_path):
    cases = [Series(np.arange(40.0)[None] + i, ("load",), name=f"house {i}") for i in range(14)]
    homes = Collection.of(cases, name="homes")
    forecaster = Forecaster("last_value", context_length=10, horizon=3).fit(homes)
    page = Page(forecast_page(tmp_path / "page.html", forecaster, homes).path)
    assert "Drawn are the first 12 of 14 series" in page.text
    assert len(page.data["figures"][0]["layout"]["updatemenus"][0]["buttons"]) == 12


def test_findings_about_the_data_stand_on_the_page(tmp_path):
    found = Finding("gap", "2 rows are missing after row 7 of <plant>.")
    series = Series(np.arange(40.0)[None], ("load",), name="plant", findings=(found,))
    forecaster = Forecaster("last_value", context_length=10, horizon=3).fit(series)
    assert found.message in Page(forecast_page(tmp_path / "page.html", forecaster, series).path).text


def test_the_page_reads_a_table_as_predict_does(tmp_path):
    """A channel may have no value today, and a column of words beside the channels is none of them."""
    frame = pd.DataFrame({"load": np.arange(40.0), "heat": np.arange(40.0) % 7})
    forecaster = Forecaster("last_value", context_length=10, horizon=3).fit(frame)
    for new in (frame.assign(heat=np.nan), frame.assign(remark="as usual")):
        forecaster.predict(new)
        assert "Forecast" in Page(forecast_page(tmp_path / "page.html", forecaster, new).path).text


def decoded(values):
    """An array as plotly writes it: base64 of its bytes, or a list."""
    if isinstance(values, dict):
        return np.frombuffer(base64.b64decode(values["bdata"]), dtype=f"<{values['dtype']}")
    return np.array(values)
