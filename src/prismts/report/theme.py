"""How figures look: one palette that can be read on white and on black, and a template for each of the two."""

from __future__ import annotations

import html
from typing import Any

__all__ = ["BAND_OPACITY", "OBSERVED", "PALETTE", "TEMPLATES", "faded", "label"]

# in the middle of the scale of lightness, so that one color serves on light and on dark paper
PALETTE = ("#2f7de1", "#e8793a", "#9566d6", "#17a08c", "#cf4d85", "#8f8b2c", "#5b9bb5", "#b5703c")
OBSERVED = "#7b8798"
BAND_OPACITY = 0.2
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_LONGEST_LABEL = 40


def _template(ink: str, soft: str, grid: str, paper: str) -> dict[str, Any]:
    axis = {
        "gridcolor": grid, "linecolor": grid, "zerolinecolor": grid, "zeroline": False, "automargin": True,
        "title": {"standoff": 8, "font": {"size": 13}}, "exponentformat": "e", "minexponent": 5,
    }  # fmt: skip
    return {
        "layout": {
            "font": {"family": _FONT, "size": 13, "color": ink},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "colorway": list(PALETTE),
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {"namelength": -1, "bgcolor": paper, "bordercolor": grid, "font": {"color": ink}},
            "margin": {"l": 48, "r": 12, "t": 48, "b": 44},
            "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"},
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": soft, "activecolor": ink},
        }
    }


TEMPLATES: dict[str, dict[str, Any]] = {
    "light": _template(ink="#303a47", soft="#9aa4b1", grid="#e1e5ea", paper="#ffffff"),
    "dark": _template(ink="#cdd5df", soft="#66717e", grid="#2d3640", paper="#1a2027"),
}


def faded(color: str, opacity: float) -> str:
    """A color such as ``#2f7de1`` with an opacity from 0 to 1."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def label(text: object, longest: int = _LONGEST_LABEL) -> str:
    """Text of a user's, harmless where plotly would read it as HTML, and short enough for a legend."""
    text = str(text)
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    return html.escape(text, quote=False)
