"""Figures of the studio that no report has: a first look, and gaps that were filled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prismts.data.series import Collection, Series
from prismts.report.figures import thinned
from prismts.report.theme import OBSERVED, PALETTE, label
from prismts.serving.studio_source import Loaded

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["filled_figure", "preview"]

_MOST_POINTS = 2_000  # of a line; a longer one is drawn by the ends of each stretch
_MOST_PANELS = 6


def preview(loaded: Loaded) -> Figure:
    """The first channels of a series, or the first channel of a few cases."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    whole = loaded.collection
    if len(whole) > 1:
        picks = _spread_over(whole)
        figure = go.Figure(layout={"height": 320})
        for k, i in enumerate(picks):
            case = whole[i]
            name = case.name if whole.labels is None else f"{whole.labels[i]}: {case.name}"
            at, y = thinned(case.values[0], _MOST_POINTS)
            figure.add_trace(
                go.Scatter(x=at, y=y, mode="lines", name=label(name, 24), line={"color": PALETTE[k % len(PALETTE)]})
            )
        note = f"Channel {whole.channels[0]} of {len(picks)} of {len(whole):,}."
        figure.update_layout(showlegend=True, meta={"note": note})
        figure.update_xaxes(title_text="step")
        return figure
    series = whole[0]
    shown = list(range(min(_MOST_PANELS, series.n_channels)))
    figure = make_subplots(
        rows=len(shown), cols=1, shared_xaxes=True, subplot_titles=[label(series.channels[c]) for c in shown],
        vertical_spacing=0.16 / max(1, len(shown)) + 0.02,
    )  # fmt: skip
    figure.update_annotations(x=0, xanchor="left", font_size=13)
    for row, c in enumerate(shown, start=1):
        at, y = thinned(series.values[c], _MOST_POINTS)
        figure.add_trace(
            go.Scatter(
                x=_when(series, at), y=y, mode="lines", name=label(series.channels[c]), showlegend=False,
                line={"color": PALETTE[0], "width": 1.2},
            ),
            row=row, col=1,
        )  # fmt: skip
    note = f"The first {len(shown)} of {series.n_channels:,} channels." if len(shown) < series.n_channels else ""
    figure.update_layout(height=90 + 110 * max(2, len(shown)), meta={"note": note})
    return figure


def _spread_over(whole: Collection) -> list[int]:
    """A few series: one of each class, where there are classes."""
    if whole.labels is None:
        return list(range(min(_MOST_PANELS, len(whole))))
    _, first = np.unique(np.asarray(whole.labels), return_index=True)
    return sorted(first[:_MOST_PANELS].tolist())


def filled_figure(data: Collection, filled: Collection) -> Figure:
    """What was observed and what was put into the gaps, of the channels that had some."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    holes = np.isnan(data.values)
    channels = [int(c) for c in np.argsort(-holes.sum(1), kind="stable") if holes[c].any()][:_MOST_PANELS]
    figure = make_subplots(
        rows=len(channels), cols=1, subplot_titles=[label(data.channels[c]) for c in channels],
        vertical_spacing=0.3 / max(1, len(channels)),
    )  # fmt: skip
    figure.update_annotations(x=0, xanchor="left", font_size=13)
    for row, c in enumerate(channels, start=1):
        counts = [int(holes[c, lo:hi].sum()) for lo, hi in zip(data.offsets[:-1], data.offsets[1:], strict=True)]
        i = int(np.argmax(counts))
        case, missing = data[i], holes[c, data.offsets[i] : data.offsets[i + 1]]
        begin, end = _around_longest(missing)
        at = np.arange(begin, end)
        x = _when(case, at)
        seen = _plain(case.values[c, begin:end])
        # a line of what was filled joins what is observed on both sides
        near = missing | np.roll(missing, 1) | np.roll(missing, -1)
        values = filled.values[c, data.offsets[i] : data.offsets[i + 1]][begin:end]
        put_in = _plain(np.where(near[begin:end], values, np.nan))
        for name, y, color, mode in (
            ("filled", put_in, PALETTE[0], "lines+markers"), ("observed", seen, OBSERVED, "lines"),
        ):  # fmt: skip
            figure.add_trace(
                go.Scatter(
                    x=x, y=y, name=name, mode=mode, line={"color": color, "width": 1.6}, marker={"size": 4},
                    legendgroup=name, showlegend=row == 1,
                ),
                row=row, col=1,
            )  # fmt: skip
    return figure.update_layout(height=110 + 170 * len(channels))


def _around_longest(missing: NDArray[np.bool_]) -> tuple[int, int]:
    """A stretch of at most so many steps as are drawn, around the longest gap."""
    n = len(missing)
    if n <= _MOST_POINTS:
        return 0, n
    edges = np.flatnonzero(np.diff(np.concatenate([[0], missing.astype(np.int8), [0]])))
    starts, ends = edges[::2], edges[1::2]
    longest = int((ends - starts).argmax())
    begin = int(starts[longest] + ends[longest] - _MOST_POINTS // 4) // 2
    begin = min(max(0, begin), n - _MOST_POINTS // 4)
    return begin, begin + _MOST_POINTS // 4


def _when(series: Series, at: NDArray[np.int64]) -> list[Any]:
    if series.timestamps is None:
        return at.tolist()
    return np.datetime_as_string(series.timestamps[at].astype("datetime64[s]")).tolist()


def _plain(y: NDArray[np.floating]) -> list[float | None]:
    return [None if np.isnan(one) else float(one) for one in y]
