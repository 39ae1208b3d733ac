"""Figures of why a model works: plain arrays in, a plotly figure out; ``analysis`` makes the numbers.

Names that came with the data are escaped before they reach plotly, which reads labels as HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prismts.errors import DataError, SettingsError, ShapeError
from prismts.report.theme import BAND_OPACITY, OBSERVED, PALETTE, TEMPLATES, faded, label

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = [
    "coupling_figure",
    "gain_figure",
    "gradient_figure",
    "interaction_figure",
    "kernels_over_day_figure",
    "phase_wobble_figure",
    "win_rate_figure",
]


def gain_figure(gains: Mapping[str, Mapping[str, ArrayLike]]) -> Figure:
    """How the gains of each mode of exchange spread over runs, one group per data set; every run is a point.

    gains: percent [n_runs] by mode by data set, as ``analysis.interaction.gains`` gives them.
    """
    import plotly.graph_objects as go

    figure = _empty(height=380)
    for i, mode in enumerate(_inner_names(gains, "gains")):
        groups: list[NDArray[Any]] = []
        values: list[NDArray[np.float64]] = []
        for name, modes in gains.items():
            if mode in modes:
                values.append(np.atleast_1d(np.asarray(modes[mode], dtype=np.float64)))
                groups.append(np.repeat(label(name), len(values[-1])))
        color = PALETTE[i % len(PALETTE)]
        figure.add_trace(
            go.Box(
                x=np.concatenate(groups), y=np.concatenate(values), name=label(mode), boxpoints="all", jitter=0.4,
                pointpos=0, line={"color": color, "width": 1.6}, fillcolor=faded(color, BAND_OPACITY),
                marker={"color": color, "size": 5}, hovertemplate="%{y:+.2f} %",
            )
        )  # fmt: skip
    figure.update_layout(boxmode="group", showlegend=True)
    figure.update_xaxes(type="category")  # a name such as 96 is no number here
    figure.update_yaxes(title_text="less error than without exchange, %", zeroline=True)
    return figure


def interaction_figure(estimates: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> Figure:
    """The interaction b12 as bars with their intervals; below zero, both directions are worth more than their halves.

    estimates: value, low and high by data set (a group on the axis) by series of bars, such as a horizon:
    ``{"H = 96": {"ETTh1": (-0.02, -0.03, -0.01)}}``. Bars whose interval meets zero are faded.
    """
    import plotly.graph_objects as go

    if not estimates:
        raise SettingsError("A figure of interactions needs at least one estimate, but got none.")
    figure = _empty(height=360)
    for i, (name, by_group) in enumerate(estimates.items()):
        value, low, high = np.array(list(by_group.values()), dtype=np.float64).reshape(-1, 3).T
        if not ((low <= value) & (value <= high)).all():
            raise DataError(f"An estimate of {name!r} lies outside its own interval; pass (value, low, high).")
        color = PALETTE[i % len(PALETTE)]
        sure = (low > 0) | (high < 0)
        figure.add_trace(
            go.Bar(
                x=[label(group) for group in by_group], y=value, name=label(name),
                # opacity and not color, because the legend shows the color of the first bar
                marker={"color": color, "opacity": np.where(sure, 1.0, 0.4)},
                error_y={"type": "data", "symmetric": False, "array": high - value, "arrayminus": value - low,
                         "color": OBSERVED, "thickness": 1.5, "width": 4},
                customdata=np.stack([low, high], axis=1),
                hovertemplate="%{y:+.4g}, from %{customdata[0]:+.4g} to %{customdata[1]:+.4g}",
            )
        )  # fmt: skip
    figure.update_layout(barmode="group", bargap=0.35, showlegend=len(estimates) > 1)
    figure.update_xaxes(type="category")
    figure.update_yaxes(title_text="b12 (RMSE)", zeroline=True)
    return figure


def win_rate_figure(rates: ArrayLike, rows: Sequence[str], columns: Sequence[str]) -> Figure:
    """Share of seeds in which both directions beat each one-way mode, in percent: one cell per row and column.

    rates: 0 to 1, [row, column]; NaN where there was no run. rows: such as data sets. columns: such as horizons.
    """
    import plotly.graph_objects as go

    share = np.asarray(rates, dtype=np.float64)
    if share.shape != (len(rows), len(columns)):
        raise ShapeError(
            f"Win rates have shape {list(share.shape)}, but {len(rows)} rows and {len(columns)} columns are named."
        )
    told = [["" if np.isnan(one) else f"{100 * one:.0f} %" for one in line] for line in share]
    figure = _empty(height=120 + 40 * len(rows))
    figure.add_trace(
        go.Heatmap(
            z=100 * share, x=[label(name) for name in columns], y=[label(name) for name in rows], zmin=0, zmax=100,
            text=told, texttemplate="%{text}", xgap=2, ygap=2, colorbar={"ticksuffix": " %"},
            colorscale=[[0, PALETTE[1]], [0.5, faded(OBSERVED, 0.15)], [1, PALETTE[0]]],
            hovertemplate="%{y}, %{x}: %{z:.0f} %<extra></extra>",
        )
    )  # fmt: skip
    figure.update_xaxes(type="category")
    figure.update_yaxes(type="category", autorange="reversed")
    return figure


def gradient_figure(norms: Mapping[str, Mapping[str, ArrayLike]]) -> Figure:
    """The gradient norm of each path, layer by layer, one panel per arrangement of the model, all on one scale.

    norms: [n_layers] by path by arrangement, above 0; a layer that received nothing has no point on the logarithmic
    axis, and the figure's note says so.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    paths = _inner_names(norms, "gradient norms")
    n = len(norms)
    figure = make_subplots(rows=1, cols=n, shared_yaxes=True, subplot_titles=[label(name) for name in norms])
    starved: list[str] = []
    for column, (name, by_path) in enumerate(norms.items(), start=1):
        for i, path in enumerate(paths):
            if path not in by_path:
                continue
            norm = np.asarray(by_path[path], dtype=np.float64)
            starved += [f"{name}, {path}, layer {layer + 1}" for layer in np.flatnonzero(norm == 0)]
            figure.add_trace(
                go.Scatter(
                    x=np.arange(1, len(norm) + 1), y=np.where(norm > 0, norm, np.nan), name=label(path),
                    mode="lines+markers", line={"color": PALETTE[i % len(PALETTE)], "width": 2.2},
                    legendgroup=label(path), showlegend=column == 1, hovertemplate="%{y:.3g}",
                ),
                row=1, col=column,
            )  # fmt: skip
    note = f"No gradient at all reached: {'; '.join(starved)}." if starved else ""
    figure.update_layout(template=TEMPLATES["light"], height=360, meta={"note": note}, hovermode="x unified")
    figure.update_layout(legend={"y": 1.12}, margin={"t": 84})
    figure.update_xaxes(title_text="layer", dtick=1)
    figure.update_yaxes(type="log")
    figure.update_yaxes(title_text="gradient norm", row=1, col=1)
    return figure


def kernels_over_day_figure(kernels: ArrayLike, timestamps: ArrayLike, *, n_bins: int = 24) -> Figure:
    """How each tap of a generated kernel moves through the day: its mean at each time of day, and one deviation around.

    Args:
        kernels: [n, k], or [n, D, k], of which the mean over the width D is shown.
        timestamps: [n], of the windows.
        n_bins: equal parts of the day; a part without a window is a hole in the line.
    """
    import plotly.graph_objects as go

    taps = np.asarray(kernels, dtype=np.float64)
    if taps.ndim == 3:
        taps = taps.mean(axis=1)  # [n, k]
    times = np.asarray(timestamps).astype("datetime64[ns]")
    if taps.ndim != 2 or len(taps) != len(times):
        raise ShapeError(
            f"kernels must be [window, tap] or [window, width, tap] with one time per window, but have shape "
            f"{list(np.shape(kernels))} with {len(times)} times."
        )
    if n_bins < 1:
        raise SettingsError(f"n_bins is a number of parts of the day, at least 1, but got {n_bins}.")
    day = 86_400_000_000_000  # nanoseconds
    part = (times - times.astype("datetime64[D]")).astype(np.int64) * n_bins // day  # [n]
    count = np.bincount(part, minlength=n_bins)
    hour = (np.arange(n_bins) + 0.5) * 24 / n_bins
    figure = _empty(height=360)
    for tap in range(taps.shape[1]):
        color, name = PALETTE[tap % len(PALETTE)], f"tap {tap + 1}"
        with np.errstate(invalid="ignore"):
            mean = np.bincount(part, taps[:, tap], n_bins) / count
            spread = np.sqrt(np.bincount(part, (taps[:, tap] - mean[part]) ** 2, n_bins) / count)
        for edge, fill in ((mean + spread, None), (mean - spread, "tonexty")):
            figure.add_trace(
                go.Scatter(x=hour, y=edge, name=f"{name}, one deviation", mode="lines", line={"width": 0}, fill=fill,
                           fillcolor=faded(color, BAND_OPACITY), legendgroup=name, showlegend=False, hoverinfo="skip")
            )  # fmt: skip
        figure.add_trace(
            go.Scatter(x=hour, y=mean, name=name, mode="lines+markers", line={"color": color, "width": 2.2},
                       legendgroup=name, hovertemplate="%{y:.4g}")
        )  # fmt: skip
    figure.update_layout(hovermode="x unified", showlegend=True)
    figure.update_xaxes(title_text="hour of day", range=[0, 24], dtick=3)
    figure.update_yaxes(title_text="coefficient")
    return figure


def phase_wobble_figure(dates: ArrayLike, lags: ArrayLike, samples_per_day: int, *, title: str = "") -> Figure:
    """By how many hours each day comes later (above 0) or sooner than the day before, with the median size.

    Args:
        dates: [n], of the later day of each pair.
        lags: [n] in steps, as ``analysis.alignment.day_lags`` gives them.
        samples_per_day: steps of a day.
        title: such as the data set and the channel.
    """
    import plotly.graph_objects as go

    hours = np.asarray(lags, dtype=np.float64) * 24 / samples_per_day
    days = np.datetime_as_string(np.asarray(dates).astype("datetime64[D]"))
    if len(days) != len(hours):
        raise ShapeError(f"{len(days)} dates came with {len(hours)} lags.")
    median = float(np.median(np.abs(hours)))
    figure = _empty(height=300)
    figure.add_trace(
        go.Scatter(x=days, y=hours, name="lag", mode="markers", hovertemplate="%{x}: %{y:+.2f} h<extra></extra>",
                   marker={"color": PALETTE[0], "size": 5})
    )  # fmt: skip
    for y in dict.fromkeys((median, -median)):
        figure.add_hline(y=y, line={"color": PALETTE[1], "width": 1.4, "dash": "dot"})
    told = f"median size {median:.2f} h, Phase-Drift {median / 24:.4f}"
    figure.update_layout(title={"text": f"{label(title)}: {told}" if title else told, "font": {"size": 13}})
    figure.update_yaxes(title_text="later than the day before, h", range=[-12.5, 12.5], dtick=6, zeroline=True)
    return figure


def coupling_figure(measures: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Figure:
    """How the two paths and the time of day hang together: one panel per measure, one bar per data set and mode.

    measures: value by data set by mode by measure, such as ``{"lead (steps)": {"both": {"ETTh1": 1.3}}}``.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    modes = _inner_names(measures, "measures of coupling")
    n = len(measures)
    figure = make_subplots(rows=n, cols=1, subplot_titles=[label(name) for name in measures], shared_xaxes=True)
    for row, by_mode in enumerate(measures.values(), start=1):
        for i, mode in enumerate(modes):
            if mode in by_mode:
                figure.add_trace(
                    go.Bar(
                        x=[label(name) for name in by_mode[mode]], y=list(by_mode[mode].values()), name=label(mode),
                        marker={"color": PALETTE[i % len(PALETTE)]}, legendgroup=label(mode), showlegend=row == 1,
                        hovertemplate="%{y:+.3g}",
                    ),
                    row=row, col=1,
                )  # fmt: skip
    figure.update_annotations(x=0, xanchor="left", font_size=13)
    figure.update_layout(template=TEMPLATES["light"], height=110 + 170 * n, meta={"note": ""}, barmode="group")
    figure.update_layout(legend={"y": 1 + 0.2 / n}, margin={"t": 84})
    figure.update_xaxes(type="category")
    figure.update_yaxes(zeroline=True)
    return figure


def _empty(height: int) -> Figure:
    import plotly.graph_objects as go

    return go.Figure(layout={"template": TEMPLATES["light"], "height": height, "meta": {"note": ""}})


def _inner_names(table: Mapping[str, Mapping[str, Any]], what: str) -> list[str]:
    """The names of the inner level, each once, in the order of their first appearance."""
    names = list(dict.fromkeys(name for inner in table.values() for name in inner))
    if not names:
        raise SettingsError(f"A figure of {what} needs at least one number, but got none.")
    return names
