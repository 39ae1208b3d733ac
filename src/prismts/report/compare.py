"""The critical-difference diagram: average ranks on a line, and bars over models that cannot be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from prismts.errors import ShapeError
from prismts.evaluation.compare import indistinguishable
from prismts.report.theme import OBSERVED, PALETTE, TEMPLATES, label

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["critical_difference_figure"]

_STEP = 1.0  # height of a label
_BAR = 0.35  # height between bars


def critical_difference_figure(
    names: Sequence[str], average: ArrayLike, difference: float | None, *, n_blocks: int, level: float = 0.05
) -> Figure:
    """Average ranks [k] of the named models, the best on the left; models under one bar do not differ.

    ``difference`` is that of ``evaluation.compare.critical_difference``; None draws no bars. The better half is labeled
    on the left and the other on the right, as in the diagrams of Demsar (JMLR 2006).
    """
    from plotly.graph_objects import Figure, Scatter

    ranks = np.asarray(average, dtype=float)
    if ranks.ndim != 1 or len(ranks) != len(names) or len(ranks) < 2:
        raise ShapeError(f"{len(names)} names need as many average ranks, at least 2, but got {list(ranks.shape)}.")
    order = np.argsort(ranks, kind="stable")
    k, n_left = len(order), (len(order) + 1) // 2
    groups = [] if difference is None else indistinguishable(ranks, difference)
    lowest = -_BAR * (len(groups) + 1)
    figure = Figure()
    figure.add_trace(Scatter(
        x=[1, k], y=[0, 0], mode="lines", line={"color": OBSERVED, "width": 1.5}, hoverinfo="skip", showlegend=False
    ))  # fmt: skip
    for tick in range(1, k + 1):
        figure.add_trace(Scatter(
            x=[tick, tick], y=[0, 0.18], mode="lines", line={"color": OBSERVED, "width": 1.5}, hoverinfo="skip",
            showlegend=False,
        ))  # fmt: skip
        figure.add_annotation(x=tick, y=0.2, text=str(tick), showarrow=False, yanchor="bottom")
    for place, model in enumerate(order.tolist()):
        left = place < n_left
        row = place if left else k - 1 - place
        height, side = lowest - _STEP * (row + 1), 0.6 if left else k + 0.4
        color = PALETTE[place % len(PALETTE)]
        figure.add_trace(Scatter(
            x=[float(ranks[model]), float(ranks[model]), side], y=[0, height, height], mode="lines",
            line={"color": color, "width": 1.5}, name=label(names[model]), showlegend=False,
            hovertemplate=f"{label(names[model])}: {ranks[model]:.3f}<extra></extra>",
        ))  # fmt: skip
        figure.add_annotation(
            x=side,
            y=height,
            text=label(names[model]),
            showarrow=False,
            xanchor="right" if left else "left",
            xshift=-4 if left else 4,
        )
    for number, group in enumerate(groups):
        y = -_BAR * (number + 1)
        figure.add_trace(Scatter(
            x=[float(ranks[group[0]]) - 0.04, float(ranks[group[-1]]) + 0.04], y=[y, y], mode="lines",
            line={"color": OBSERVED, "width": 6}, showlegend=False, name="no clear difference",
            hovertemplate=f"no clear difference: {', '.join(label(names[i]) for i in group)}<extra></extra>",
        ))  # fmt: skip
    top = 0.9
    if difference is not None:
        top = 1.6
        figure.add_trace(Scatter(
            x=[1, 1 + difference], y=[1.05, 1.05], mode="lines+markers", marker={"symbol": "line-ns-open", "size": 8},
            line={"color": OBSERVED, "width": 2}, hoverinfo="skip", showlegend=False, name="critical difference",
        ))  # fmt: skip
        figure.add_annotation(
            x=1 + difference / 2, y=1.1, yanchor="bottom", showarrow=False, text=f"critical difference {difference:.2f}"
        )
    wide = max(k + 0.4, 1 + (difference or 0))
    beside = 16 + 7 * max(len(label(name)) for name in names)  # pixels for a label, on narrow screens too
    figure.update_xaxes(visible=False, range=[0.6, wide])
    figure.update_yaxes(visible=False, range=[lowest - _STEP * (n_left + 0.6), top])
    note = f"Average ranks over {n_blocks} blocks; 1 is best."
    if difference is not None:
        note += f" Bars join models that Nemenyi's test cannot tell apart at {level:g}."
    height = int(150 + 34 * (n_left + 1) + 16 * len(groups))
    figure.update_layout(
        template=TEMPLATES["light"], height=height, meta={"note": note}, margin={"l": beside, "r": beside}
    )
    return figure
