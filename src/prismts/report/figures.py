"""Figures from plain arrays, series and scores; each can be shown by itself in a notebook.

What a figure leaves out stands in ``figure.layout.meta["note"]``, a sentence that the page prints below it. Names that
came with the data are escaped before they reach plotly, which reads labels as HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from prismts.data.series import Series
from prismts.errors import SettingsError, ShapeError, unknown_name
from prismts.evaluation.scores import Scores
from prismts.report.theme import BAND_OPACITY, OBSERVED, PALETTE, TEMPLATES, faded, label

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = [
    "backtest_figure",
    "chosen_windows",
    "error_by_channel_figure",
    "error_by_step_figure",
    "forecast_figure",
    "patch_bounds_figure",
    "residual_weights_figure",
    "thinned",
    "training_figure",
    "with_menu",
]

Floats = NDArray[np.floating]

MEASURE_TITLES = {
    "mse": "MSE (standardized)", "mae": "MAE (standardized)", "rmse_own": "RMSE (own units)",
    "mae_own": "MAE (own units)",
}  # fmt: skip


def forecast_figure(
    series: Series,
    forecasts: Mapping[str, Floats],
    *,
    quantiles: Sequence[float] | None = None,
    n_history: int | None = None,
    channels: Sequence[str] | None = None,
    most_channels: int = 12,
) -> Figure:
    """The end of a series and how it is continued, one panel per channel.

    Args:
        series: what is known; its times are on the axis, or step numbers where it has none.
        forecasts: by name, [C, H] each, or [Q, C, H] for quantile forecasts.
        quantiles: levels of the Q, rising; bands join the outermost, the next inner pair, and so on.
        n_history: steps of past to show; three horizons if None.
        channels: names of those to show; the first ``most_channels`` if None.
        most_channels: how many panels there are at most; the note of the figure names those left out.
    """
    horizon = _horizon(forecasts, series.n_channels)
    shown, note = _picked(series.channels, channels, most_channels)
    begin = max(0, len(series) - (3 * horizon if n_history is None else n_history))
    past, future = _times(series, begin, len(series)), _stamps(series.future_timestamps(horizon))
    titles, height = [label(series.channels[c]) for c in shown], 150 if len(shown) > 1 else 340
    figure = _panels(titles, height=height, note=note, shared=True)
    for row, c in enumerate(shown, start=1):
        _line(figure, row, past, series.values[c, begin:], "observed", OBSERVED, in_legend=row == 1)
        for (name, forecast), color in zip(forecasts.items(), _colors(forecasts), strict=True):
            _forecast(figure, row, future, forecast[..., c, :], quantiles, name, color, in_legend=row == 1)
    return figure


def backtest_figure(
    series: Series,
    origins: NDArray[np.int64],
    forecasts: Mapping[str, Floats],
    *,
    n_context: int,
    quantiles: Sequence[float] | None = None,
    choose: Literal["error", "even"] = "error",
    n_shown: int = 3,
    most_channels: int = 12,
) -> Figure:
    """Known stretches of a series, what several models said would come, and what came; a menu picks the channel.

    Args:
        series: the whole series, so that contexts and what came can be read off it.
        origins: [W] step at which the future of each window begins.
        forecasts: by name, [W, C, H] each, or [W, Q, C, H] for quantile forecasts.
        n_context: steps of past to show.
        quantiles: levels of the Q, rising.
        choose: "error" shows the best, the median and the worst window of the first model; "even" shows ``n_shown``
            windows spread evenly.
        n_shown: panels of ``choose="even"``.
        most_channels: entries of the menu at most; the note of the figure names those left out.
    """
    horizon = _horizon(forecasts, series.n_channels)
    for name, forecast in forecasts.items():
        if len(forecast) != len(origins):
            raise ShapeError(f"{len(origins)} origins came with {len(forecast)} forecasts of {name!r}.")
    shown, note = _picked(series.channels, None, most_channels)
    windows = chosen_windows(series, origins, next(iter(forecasts.values())), quantiles, choose=choose, n_shown=n_shown)
    titles: list[str] = []
    for (what, error), w in windows:
        when = _moment(series, int(origins[w]))
        titles.append(f"{what}: {when}" + ("" if error is None else f", error {error:.3g}"))
    by_channel: dict[str, Figure] = {}
    for c in shown:
        figure = _panels(titles, height=230, note=note)
        for row, (_, w) in enumerate(windows, start=1):
            origin, first = int(origins[w]), row == 1
            begin, end = max(0, origin - n_context), min(origin + horizon, len(series))
            _line(figure, row, _times(series, begin, end), series.values[c, begin:end], "observed", OBSERVED, first)
            ahead = _times(series, origin, end)
            for (name, forecast), color in zip(forecasts.items(), _colors(forecasts), strict=True):
                _forecast(figure, row, ahead, forecast[w][..., c, : end - origin], quantiles, name, color, first)
            _border(figure, row, _times(series, origin, origin + 1)[0])
        by_channel[series.channels[c]] = figure
    return with_menu(by_channel, "Channel")


def chosen_windows(
    series: Series,
    origins: NDArray[np.int64],
    forecast: Floats,
    quantiles: Sequence[float] | None = None,
    *,
    choose: Literal["error", "even"] = "error",
    n_shown: int = 3,
) -> list[tuple[tuple[str, float | None], int]]:
    """Which of the windows to show: what each is called, its error, and its number.

    The error is the mean squared error over all channels, each divided by the variance of what came in these windows,
    so that a channel of large numbers does not decide alone. Forecasts are [W, C, H] or [W, Q, C, H].
    """
    if choose == "even":
        numbers = np.unique(np.linspace(0, len(origins) - 1, n_shown).round().astype(int))
        return [((f"window {w + 1} of {len(origins)}", None), int(w)) for w in numbers]
    if choose != "error":
        raise unknown_name("way to choose windows", choose, ("error", "even"))
    point = forecast if forecast.ndim == 3 else forecast[:, _middle(quantiles, forecast.shape[1])]  # [W, C, H]
    came = np.full(point.shape, np.nan)
    for target, origin in zip(came, origins, strict=True):
        known = series.values[:, origin : origin + point.shape[-1]]
        target[:, : known.shape[1]] = known
    seen = ~np.isnan(came)
    n_seen = seen.sum((0, 2)).clip(min=1)[:, None]  # [C, 1]
    level = np.where(seen, came, 0.0).sum((0, 2))[:, None] / n_seen
    variance = np.where(seen, (came - level) ** 2, 0.0).sum((0, 2))[:, None] / n_seen
    off = np.where(seen, (point - came) ** 2 / np.where(variance > 0, variance, 1.0), 0.0)  # [W, C, H]
    error = off.sum((1, 2)) / seen.sum((1, 2)).clip(min=1)  # [W]
    n_known = max(1, int(seen.any((1, 2)).sum()))
    order = np.argsort(np.where(seen.any((1, 2)), error, np.inf), kind="stable")[:n_known]
    picks = {"best": order[0], "median": order[(len(order) - 1) // 2], "worst": order[-1]}
    if len(order) < 3:
        picks = {f"window {w + 1}": w for w in sorted(order)}
    return [((what, float(error[w])), int(w)) for what, w in picks.items()]


def error_by_step_figure(scores: Mapping[str, Scores], measure: str = "mse") -> Figure:
    """How the error of each model grows along the horizon; the first is drawn strongest, the others above it."""
    import plotly.graph_objects as go

    figure = _empty(height=360)
    for i, (name, score) in enumerate(scores.items()):
        errors = _measured(score.per_step, measure, name)  # [H]
        figure.add_trace(
            go.Scatter(
                x=np.arange(1, len(errors) + 1), y=errors, name=label(name), mode="lines",
                line={"color": PALETTE[i % len(PALETTE)], "width": 1.6 if i else 3},
                hovertemplate="%{y:.4f}", zorder=int(i > 0),
            )
        )  # fmt: skip
    figure.update_layout(hovermode="x unified")
    figure.update_xaxes(title_text="steps ahead")
    figure.update_yaxes(title_text=MEASURE_TITLES.get(measure, measure), rangemode="tozero")
    return figure


def error_by_channel_figure(scores: Mapping[str, Scores], measure: str = "mse", *, most_channels: int = 24) -> Figure:
    """The error of each model in each channel, one row per channel; of many, those with the largest errors."""
    import plotly.graph_objects as go

    first, leader = next(iter(scores.items()))
    errors = _measured(leader.per_channel, measure, first)  # [C]
    names = leader.channels or tuple(f"channel_{i}" for i in range(len(errors)))
    shown = np.arange(len(errors))
    note = ""
    if len(shown) > most_channels:
        shown = np.sort(np.argsort(-np.nan_to_num(errors), kind="stable")[:most_channels])
        note = f"Shown are the {most_channels} of {len(errors)} channels in which {first} is furthest off."
    figure = _empty(height=110 + 34 * len(shown), note=note)
    for i, (name, score) in enumerate(scores.items()):
        figure.add_trace(
            go.Scatter(
                x=_measured(score.per_channel, measure, name)[shown], y=np.arange(len(shown)), name=label(name),
                mode="markers", hovertemplate="%{x:.4f}", zorder=int(i > 0),
                cliponaxis=False,
                marker={"color": PALETTE[i % len(PALETTE)], "size": 9 if i else 13,
                        "symbol": ("circle", "diamond", "square", "triangle-up", "x")[i % 5]},
            )
        )  # fmt: skip
    figure.update_layout(hovermode="y unified")
    figure.update_xaxes(title_text=MEASURE_TITLES.get(measure, measure), rangemode="tozero")
    ticks = [label(names[c], longest=20) for c in shown]
    figure.update_yaxes(tickvals=np.arange(len(shown)), ticktext=ticks, range=[len(shown) - 0.5, -0.5])
    return figure


def patch_bounds_figure(
    values: Floats, left: Floats, right: Floats, *, patch_length: int, stride: int, title: str = ""
) -> Figure:
    """Where the deformable patches of one window lie, beside the uniform ones they started from.

    Three panels over one axis of steps: the window, the patches (first at the top), and how far each was moved and
    widened.

    Args:
        values: the window [T].
        left, right: first and last step of each patch [N], as a model's ``bounds`` gives them.
        patch_length, stride: of the uniform patches, in steps.
        title: of the uppermost panel.
    """
    import plotly.graph_objects as go

    if len(left) != len(right):
        raise ShapeError(f"Each patch has a left and a right bound, but {len(left)} and {len(right)} came.")
    left, right = np.asarray(left, dtype=float), np.asarray(right, dtype=float)
    number = np.arange(len(left))
    start, size = number * stride, patch_length - 1
    shift = (left + right) / 2 - (start + size / 2)
    widened = (right - left) - size
    figure = _panels(
        [label(title) or "the window", "patches: gray at the start, blue now", "moved and widened by"],
        heights=(1.0, min(2.0, max(0.9, 0.07 * len(left))), 0.7), height=170, shared=True,
    )  # fmt: skip
    figure.add_trace(
        go.Scatter(x=np.arange(len(values)), y=values, line={"color": OBSERVED, "width": 1.6}, mode="lines",
                   name="window", showlegend=False, hovertemplate="%{y:.4g}"),
        row=1, col=1,
    )  # fmt: skip
    spans = (
        ("uniform patch", start, np.full(len(left), size), OBSERVED, 0.28, 0.86),
        ("deformable patch", left, right - left, PALETTE[0], 0.85, 0.44),
    )
    for name, base, width, color, opacity, thickness in spans:
        figure.add_trace(
            go.Bar(
                base=base, x=width, y=number + 1, width=thickness, orientation="h", name=name, showlegend=False,
                marker={"color": faded(color, opacity), "line": {"width": 0}},
                customdata=np.stack([base, base + width, shift, widened], axis=1),
                hovertemplate="patch %{y}: %{customdata[0]:.2f} to %{customdata[1]:.2f}<br>moved by "
                "%{customdata[2]:+.2f}, widened by %{customdata[3]:+.2f} steps<extra>" + name + "</extra>",
            ),
            row=2, col=1,
        )  # fmt: skip
    for name, change, color in (("center moved", shift, PALETTE[0]), ("widened", widened, PALETTE[1])):
        figure.add_trace(
            go.Scatter(x=start + size / 2, y=change, name=name, mode="lines+markers",
                       line={"color": color, "width": 1.6}, marker={"size": 5}, hovertemplate="%{y:+.3f} steps"),
            row=3, col=1,
        )  # fmt: skip
    figure.update_layout(barmode="overlay", hovermode="closest")
    figure.update_yaxes(range=[len(left) + 0.7, 0.3], title_text="patch", row=2, col=1)
    reach = max(0.01, 1.15 * float(np.abs([shift, widened]).max(initial=0)))
    figure.update_yaxes(title_text="steps", range=[-reach, reach], zeroline=True, row=3, col=1)
    figure.update_xaxes(range=[-2, max(len(values), start[-1] + size + 1) + 1])
    figure.update_xaxes(title_text="step of the window", row=3, col=1)
    for row in (2, 3):
        _border(figure, row, len(values) - 0.5)
    return figure


def residual_weights_figure(weights: Sequence[Mapping[str, float]]) -> Figure:
    """The learned weight alpha of each branch of each block, as ``ConvTimeNet.residual_weights`` gives them."""
    import plotly.graph_objects as go

    figure = _empty(height=320)
    for i, branch in enumerate(dict.fromkeys(name for block in weights for name in block)):
        figure.add_trace(
            go.Bar(
                x=[f"block {b + 1}" for b, block in enumerate(weights) if branch in block],
                y=[block[branch] for block in weights if branch in block],
                name=branch, marker={"color": PALETTE[i % len(PALETTE)]}, hovertemplate="%{y:.3g}",
            )
        )  # fmt: skip
    figure.update_layout(barmode="group", bargap=0.35, hovermode="x unified", showlegend=True)
    figure.update_yaxes(title_text="alpha", zeroline=True)
    return figure


def training_figure(history: Sequence[Mapping[str, float]], best_epoch: int | None = None) -> Figure:
    """Training and validation loss by epoch, with the epoch whose weights were kept; counted from 1."""
    import plotly.graph_objects as go

    figure = _empty(height=320)
    epochs = np.array([int(entry.get("epoch", i + 1)) for i, entry in enumerate(history)])
    for name, title, color in (("train_loss", "training", OBSERVED), ("val_loss", "validation", PALETTE[0])):
        if not any(name in entry for entry in history):
            continue
        losses = np.array([entry.get(name, np.nan) for entry in history])
        figure.add_trace(
            go.Scatter(x=epochs, y=losses, name=title, mode="lines+markers", line={"color": color, "width": 2.2},
                       hovertemplate="%{y:.4f}")
        )  # fmt: skip
        kept = epochs == best_epoch
        if kept.any() and (name == "val_loss" or "val_loss" not in history[0]):
            figure.add_trace(
                go.Scatter(x=epochs[kept], y=losses[kept], name=f"kept: epoch {best_epoch}", mode="markers",
                           marker={"color": PALETTE[1], "size": 13, "symbol": "star"}, hovertemplate="%{y:.4f}")
            )  # fmt: skip
    figure.update_layout(hovermode="x unified", showlegend=True)
    figure.update_xaxes(title_text="epoch", dtick=max(1, len(epochs) // 10))
    figure.update_yaxes(title_text="loss")
    return figure


def with_menu(figures: Mapping[str, Figure], name: str) -> Figure:
    """Figures of the same panels as one, with a menu that shows one of them at a time; ``name`` says what is chosen."""
    import plotly.graph_objects as go

    if not figures:
        raise SettingsError("A menu needs at least one figure, but got none.")
    whole = go.Figure(layout=next(iter(figures.values())).layout)
    if len(figures) == 1:
        return whole.add_traces(next(iter(figures.values())).data)
    owner = [i for i, figure in enumerate(figures.values()) for _ in figure.data]
    axes = [axis for axis in whole.layout.to_plotly_json() if axis.startswith("yaxis")]
    buttons: list[dict[str, Any]] = []
    for i, (choice, figure) in enumerate(figures.items()):
        whole.add_traces([trace.update(visible=i == 0) for trace in figure.data])
        layout: dict[str, Any] = figure.layout.to_plotly_json()
        # an axis the reader has zoomed would hide what is chosen next
        ranges = {f"{axis}.range": layout[axis]["range"] for axis in axes if "range" in layout[axis]}
        ranges |= {f"{axis}.autorange": True for axis in axes if "range" not in layout[axis]}
        changes = {key: layout.get(key, []) for key in ("annotations", "shapes")} | ranges
        visible = [mine == i for mine in owner]
        buttons.append({"label": label(choice), "method": "update", "args": [{"visible": visible}, changes]})
    place = {"x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"}
    return whole.update_layout(updatemenus=[{"name": label(name), "buttons": buttons, **place}])


# ---- parts of figures


def thinned(y: Floats, most: int) -> tuple[NDArray[np.int64], list[float | None]]:
    """Steps to draw of y [T] and the values there, None where one is missing: all, or of a longer one of each stretch.

    A stretch is drawn by its lowest and its highest value, and by a gap where it has one.
    """
    at = np.arange(len(y))
    if len(y) > most:
        picks: list[int] = []
        for part in np.array_split(at, most // 2):
            inside = y[part]
            known = ~np.isnan(inside)
            ends = {int(part[np.nanargmin(inside)]), int(part[np.nanargmax(inside)])} if known.any() else set[int]()
            holes = {int(part[int((~known).argmax())])} if not known.all() else set[int]()
            picks += sorted(ends | holes)
        at = np.array(picks)
    return at, [None if np.isnan(one) else float(one) for one in y[at]]


def _empty(height: int, note: str = "") -> Figure:
    import plotly.graph_objects as go

    return go.Figure(layout={"template": TEMPLATES["light"], "height": height, "meta": {"note": note}})


def _panels(
    titles: Sequence[str], *, height: int, note: str = "", heights: Sequence[float] | None = None, shared: bool = False
) -> Figure:
    """Panels below each other; ``height`` is that of one (of relative height 1), in pixels."""
    from plotly.subplots import make_subplots

    n, heights = len(titles), heights or [1.0] * len(titles)
    between, margin = 34 if shared else 68, {"t": 70, "b": 44}  # a panel's own ticks take two lines
    inner = height * sum(heights) + between * (n - 1)
    figure = make_subplots(
        rows=n, cols=1, row_heights=list(heights), subplot_titles=list(titles), shared_xaxes=shared,
        vertical_spacing=between / inner if n > 1 else 0.0,
    )  # fmt: skip
    figure.update_annotations(x=0, xanchor="left", font_size=13)
    legend = {"y": 1 + 26 / inner}  # above the first title
    total = round(inner + margin["t"] + margin["b"])
    return figure.update_layout(
        template=TEMPLATES["light"], height=total, margin=margin, legend=legend, meta={"note": note},
        hovermode="x unified",
    )  # fmt: skip


def _line(
    figure: Figure, row: int, x: NDArray[Any], y: Floats, name: str, color: str, in_legend: bool, width: float = 1.6,
    above: int = 0,
) -> None:  # fmt: skip
    import plotly.graph_objects as go

    figure.add_trace(
        go.Scatter(
            x=x, y=y, name=label(name), mode="lines", line={"color": color, "width": width}, legendgroup=label(name),
            showlegend=in_legend, hovertemplate="%{y:.4g}", zorder=above,
        ),
        row=row, col=1,
    )  # fmt: skip


def _forecast(
    figure: Figure, row: int, x: NDArray[Any], forecast: Floats, quantiles: Sequence[float] | None, name: str,
    color: str, in_legend: bool,
) -> None:  # fmt: skip
    """One forecast [H], or [Q, H] with a band for each pair of levels from the outside in."""
    import plotly.graph_objects as go

    if forecast.ndim == 2:
        levels = _levels(quantiles, len(forecast))
        for low in range(len(levels) // 2):
            high = len(levels) - 1 - low
            told = f"{label(name)} {levels[low]:g} to {levels[high]:g}"
            for q, fill in ((high, None), (low, "tonexty")):
                figure.add_trace(
                    go.Scatter(
                        x=x, y=forecast[q], name=told, mode="lines", line={"width": 0, "color": color}, fill=fill,
                        fillcolor=faded(color, BAND_OPACITY), legendgroup=told,
                        showlegend=in_legend and fill is not None,
                        hovertemplate=f"%{{y:.4g}}<extra>{label(name)} {levels[q]:g}</extra>",
                    ),
                    row=row, col=1,
                )  # fmt: skip
        forecast = forecast[_middle(quantiles, len(forecast))]
    first = color == PALETTE[0]
    _line(figure, row, x, forecast, name, color, in_legend, width=2.4 if first else 1.6, above=int(first))


def _border(figure: Figure, row: int, x: Any) -> None:
    """A vertical line through one panel."""
    axis = "" if row == 1 else str(row)
    figure.add_shape(
        type="line", x0=x, x1=x, y0=0, y1=1, xref=f"x{axis}", yref=f"y{axis} domain",
        line={"color": OBSERVED, "width": 1, "dash": "dot"},
    )  # fmt: skip


def _colors(forecasts: Mapping[str, Any]) -> list[str]:
    return [PALETTE[i % len(PALETTE)] for i in range(len(forecasts))]


def _horizon(forecasts: Mapping[str, Floats], n_channels: int) -> int:
    if not forecasts:
        raise SettingsError("A figure of forecasts needs at least one forecast, but got none.")
    for name, forecast in forecasts.items():
        if forecast.ndim < 2 or forecast.shape[-2] != n_channels:
            raise ShapeError(
                f"The forecast of {name!r} has shape {list(forecast.shape)}, but the series has {n_channels} channels: "
                "expected [..., channel, time]."
            )
    return next(iter(forecasts.values())).shape[-1]


def _levels(quantiles: Sequence[float] | None, n: int) -> list[float]:
    if quantiles is None or len(quantiles) != n:
        given = "none" if quantiles is None else len(quantiles)
        raise ShapeError(f"A forecast of {n} quantiles came with {given} levels. Pass quantiles=(...), one per row.")
    return [float(level) for level in quantiles]


def _middle(quantiles: Sequence[float] | None, n: int) -> int:
    return int(np.argmin([abs(level - 0.5) for level in _levels(quantiles, n)]))


def _measured(errors: Mapping[str, NDArray[np.float64]], measure: str, name: str) -> NDArray[np.float64]:
    if measure not in errors:
        raise unknown_name(f"error of {name!r} by step and channel", measure, errors)
    return errors[measure]


def _picked(names: Sequence[str], wanted: Sequence[str] | None, most: int) -> tuple[list[int], str]:
    """Numbers of the channels to show, and a sentence about those left out."""
    if wanted is None:
        picks = list(range(min(most, len(names))))
    else:
        for name in wanted:
            if name not in names:
                raise unknown_name("channel", name, names)
        picks = [list(names).index(name) for name in wanted]
    left_out = [name for i, name in enumerate(names) if i not in set(picks)]
    if not left_out:
        return picks, ""
    told = ", ".join(left_out[:8]) + (f" and {len(left_out) - 8} more" if len(left_out) > 8 else "")
    return picks, f"Shown are {len(picks)} of {len(names)} channels; left out: {told}."


def _stamps(times: NDArray[Any]) -> NDArray[Any]:
    """Times as short texts that plotly reads as dates; step numbers stay numbers."""
    if not len(times) or not np.issubdtype(times.dtype, np.datetime64):
        return times
    whole = times.astype("datetime64[s]")
    return np.datetime_as_string(*((whole, "s") if (whole == times).all() else (times, "ms")))


def _times(series: Series, begin: int, end: int) -> NDArray[Any]:
    return np.arange(begin, end) if series.timestamps is None else _stamps(series.timestamps[begin:end])


def _moment(series: Series, step: int) -> str:
    if series.timestamps is None:
        return f"step {step:,}"
    moment = pd.Timestamp(series.timestamps[step])
    return f"{moment:%Y-%m-%d}" if moment == moment.normalize() else f"{moment:%Y-%m-%d %H:%M}"
