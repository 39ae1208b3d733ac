"""What an anomaly detector found: a figure of the series, its scores and its events, and one page with both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from prismts.data.series import Series
from prismts.errors import ShapeError
from prismts.estimators.detector import AnomalyDetector
from prismts.evaluation.thresholds import Event, Threshold
from prismts.models.failure import signs_of_failure
from prismts.report.figures import thinned
from prismts.report.page import Block, Code, Drawing, Facts, Note, Section, Table, Text, Written, write_report
from prismts.report.theme import OBSERVED, PALETTE, TEMPLATES, faded, label

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["detection_figure", "detection_page", "detection_sections"]

_MOST_POINTS = 4_000  # of a line; a longer one is drawn by the lowest and the highest value of each stretch
_MOST_EVENTS = 50  # in the table, the highest first
_MOST_BANDS = 200  # events marked in a figure, the highest first
_MOST_SERIES = 12
_ALARM = PALETTE[4]


def detection_figure(
    series: Series,
    scores: NDArray[np.floating],
    threshold: Threshold,
    found: Sequence[Event],
    contributions: NDArray[np.floating] | None = None,
    *,
    most_channels: int = 6,
) -> Figure:
    """Channels, scores with the threshold, and what each channel adds, above each other; events are marked throughout.

    Args:
        series: what was judged; its times are on the axis, or step numbers where it has none.
        scores: of each step [T].
        threshold: the line in the panel of the scores.
        found: the events to mark.
        contributions: of each channel [C, T], drawn as a map; None leaves the panel out.
        most_channels: those drawn, the most to blame for the events first; the map shows up to four times as many.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    n = len(series)
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != (n,):
        raise ShapeError(f"scores must be [time={n}], one for each step of the series, but have {list(scores.shape)}.")
    if contributions is not None and np.shape(contributions) != series.values.shape:
        raise ShapeError(
            f"contributions must be {list(series.values.shape)}, as the series is, but have shape "
            f"{list(np.shape(contributions))}."
        )
    order = _most_to_blame(series, found)
    shown = order[:most_channels]
    titles = [label(series.channels[c]) for c in shown] + ["score"]
    heights = [1.0] * len(shown) + [1.4]
    if contributions is not None and series.n_channels > 1:
        titles.append("what each channel adds")
        heights.append(1.4)
    figure = make_subplots(
        rows=len(titles), cols=1, shared_xaxes=True, subplot_titles=titles, row_heights=heights, vertical_spacing=0.04
    )
    figure.update_annotations(x=0, xanchor="left", font_size=13)
    x = np.arange(n) if series.timestamps is None else series.timestamps
    for row, c in enumerate(shown, start=1):
        at, y = thinned(series.values[c], _MOST_POINTS)
        line = {"color": OBSERVED, "width": 1.3}
        figure.add_trace(go.Scatter(x=_axis(x[at]), y=y, mode="lines", line=line, showlegend=False,
                                    name=label(series.channels[c])), row=row, col=1)  # fmt: skip
    row = len(shown) + 1
    at, y = thinned(scores, _MOST_POINTS)
    figure.add_trace(
        go.Scatter(x=_axis(x[at]), y=y, mode="lines", name="score", line={"color": PALETTE[0], "width": 1.4}),
        row=row, col=1,
    )  # fmt: skip
    ends = _axis(x[[0, n - 1]])
    figure.add_trace(
        go.Scatter(x=ends, y=[threshold.value] * 2, mode="lines", name="threshold",
                   line={"color": _ALARM, "width": 1.2, "dash": "dash"}), row=row, col=1,
    )  # fmt: skip
    if contributions is not None and series.n_channels > 1:
        rows = order[: 4 * most_channels]
        at = np.unique(np.linspace(0, n - 1, min(n, _MOST_POINTS // 4)).round().astype(np.int64))
        stretches = np.maximum.reduceat(np.asarray(contributions)[rows], at, axis=1)
        figure.add_trace(
            go.Heatmap(
                x=_axis(x[at]), y=[label(series.channels[c]) for c in rows], z=np.log1p(np.maximum(stretches, 0)),
                colorscale=[[0, "rgba(0,0,0,0)"], [1, _ALARM]], showscale=False, name="adds",
                hovertemplate="%{y}<br>%{x}<br>log(1 + added) %{z:.3g}<extra></extra>",
            ),
            row=row + 1, col=1,
        )  # fmt: skip
    marked = sorted(found, key=lambda event: -event.score)[:_MOST_BANDS]
    for event in marked:
        left, right = _axis(x[[event.start, event.end - 1]])
        figure.add_vrect(
            x0=left, x1=right, fillcolor=faded(_ALARM, 0.16), line={"color": faded(_ALARM, 0.5), "width": 1}
        )
    notes: list[str] = []
    if len(order) > len(shown):
        notes.append(f"Drawn are {len(shown)} of {len(order)} channels, those most to blame first.")
    if len(found) > len(marked):
        notes.append(f"Marked are the {len(marked)} highest of {len(found)} events.")
    inner = 130 * len(shown) + 290
    figure.update_layout(
        template=TEMPLATES["light"],
        height=inner + 114,
        margin={"t": 70, "b": 44},
        legend={"y": 1 + 26 / inner},  # above the first title
        meta={"note": " ".join(notes)},
        hovermode="closest",
    )
    return figure


def detection_page(
    path: str | Path, detector: AnomalyDetector, data: Any, *, title: str = "", command: str = ""
) -> Written:
    """What a fitted detector finds in data: any of the forms that ``predict`` takes. One self-contained HTML file.

    Of many series the first 12 are drawn, and the page says so.
    """
    many, _, _ = detector._read_like_training(data)  # pyright: ignore[reportPrivateUsage], as predict reads it
    cases = [many[i] for i in range(min(len(many), _MOST_SERIES))]
    sections = detection_sections(detector, cases, n_series=len(many))
    if command:
        sections.append(Section("How this was made", [Code(command)]))
    return write_report(path, title or f"Unusual steps of {many.name}", sections, subtitle=detector.recipe_.title)


def detection_sections(
    detector: AnomalyDetector, cases: Sequence[Series], *, title: str = "", n_series: int | None = None
) -> list[Section]:
    """The same as sections of a page, for these series."""
    sections: list[Section] = []
    n_events = n_alarms = n_steps = 0
    for case in cases:
        scores, found = detector.score_samples(case), detector.events(case)
        n_events, n_steps = n_events + len(found), n_steps + len(case)
        n_alarms += int(detector.threshold_.alarms(scores).sum())
        figure = detection_figure(case, scores, detector.threshold_, found, detector.contributions(case))
        caption = "Stretches of alarm are marked. The score is 0 where all is usual; above the dashed line is an alarm."
        blocks: list[Block] = [Drawing(figure, caption), _events(case, found)]
        sections.append(Section("What was found" if len(cases) == 1 else case.name, blocks))
    facts = [("events", f"{n_events:,}"), ("steps of alarm", f"{n_alarms:,} of {n_steps:,}"),
             ("threshold", f"{detector.threshold_.value:.4g}")]  # fmt: skip
    first: list[Block] = [Facts(facts, large=True)]
    if n_series is not None and n_series > len(cases):
        first.append(Note(f"Judged and drawn are the first {len(cases)} of {n_series:,} series.", "note"))
    judges = [(name, f"{weight:g}") for name, weight in detector.judges_.items()]
    told = Facts([
        ("threshold", str(detector.threshold_)), ("scales from", detector.calibrated_on_),
        ("period", f"{detector.period_} steps"), ("a score is final after", f"{detector.delay_:,} steps"),
    ])  # fmt: skip
    about: list[Block] = [told, Table(["judge", "weight"], judges, "The score is the weighted mean of these judges.")]
    about += [Note(sentence) for sentence in signs_of_failure(*detector.members_).values()]
    return [Section(title, first), *sections, Section("The detector", about)]


def _events(case: Series, found: Sequence[Event]) -> Block:
    if not found:
        return Text("No step is above the threshold.")
    highest = sorted(found, key=lambda event: -event.score)[:_MOST_EVENTS]
    rows = [
        [_when(case, e.start), _when(case, e.end - 1), f"{e.end - e.start:,}", _when(case, e.peak), f"{e.score:.4g}",
         ", ".join(e.channels[:4]) + (f" and {len(e.channels) - 4} more" if len(e.channels) > 4 else "")]
        for e in highest
    ]  # fmt: skip
    caption = "The highest first. Channels to blame: as few as hold 80 % of what was added."
    if len(found) > len(highest):
        caption += f" {len(highest)} of {len(found):,} events."
    return Table(["from", "to", "steps", "peak at", "score there", "channels to blame"], rows, caption)


def _when(case: Series, step: int) -> str:
    return f"step {step:,}" if case.timestamps is None else f"{pd.Timestamp(case.timestamps[step]):%Y-%m-%d %H:%M:%S}"


def _axis(x: NDArray[Any]) -> list[Any]:
    return [pd.Timestamp(one).isoformat() for one in x] if np.issubdtype(x.dtype, np.datetime64) else x.tolist()


def _most_to_blame(series: Series, found: Sequence[Event]) -> list[int]:
    """Numbers of all channels, those most often blamed first, then in their own order."""
    blamed = dict.fromkeys(series.channels, 0.0)
    for event in found:
        for place, name in enumerate(event.channels):
            blamed[name] = blamed.get(name, 0.0) + 1 / (1 + place)
    return sorted(range(series.n_channels), key=lambda c: -blamed[series.channels[c]])
