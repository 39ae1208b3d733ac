"""What a student keeps of its teacher, and what it costs less: a table, and one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prismts.errors import SettingsError
from prismts.estimators.distilling import Measured
from prismts.report.page import Code, Drawing, Facts, Section, Table, Text, Written, write_report
from prismts.report.theme import PALETTE, label

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["cost_figure", "distill_report", "distill_rows", "distill_sections"]

_MEASURES = {"mse": "MSE", "mae": "MAE", "pinball": "pinball", "accuracy": "accuracy", "log_loss": "log loss"}
_HIGHER_IS_BETTER = ("accuracy",)


def distill_rows(found: Mapping[str, Measured]) -> tuple[list[str], list[list[str]]]:
    """Column names and rows of texts: errors, numbers held, latency and size on disk of each model; the teacher first.

    Costs of the others are told as shares of the teacher's, too.
    """
    if not found:
        raise SettingsError("There is nothing to compare: give the teacher and its students by name.")
    first = next(iter(found.values()))
    shown = [name for name in _MEASURES if name in first.scores]
    columns = ["model", *(_MEASURES[name] for name in shown), "numbers", "latency", "size"]
    rows: list[list[str]] = []
    for i, (name, one) in enumerate(found.items()):
        costs = (
            (f"{one.n_parameters:,}", one.n_parameters / max(first.n_parameters, 1)),
            (f"{1e3 * one.latency:.2f} ms", one.latency / max(first.latency, 1e-12)),
            (f"{one.size / 1e6:.2f} MB", one.size / max(first.size, 1)),
        )
        told = [text if not i else f"{text} ({share:.1%})" for text, share in costs]
        rows.append([name, *(f"{one.scores[m]:.4f}" if m in one.scores else "" for m in shown), *told])
    return columns, rows


def cost_figure(found: Mapping[str, Measured]) -> Figure:
    """Error over the numbers that a model holds, which are drawn on a logarithmic axis: down and left is better."""
    from plotly.graph_objects import Figure, Scatter

    first = next(iter(found.values()))
    measure = next(name for name in _MEASURES if name in first.scores)
    figure = Figure()
    for i, (name, one) in enumerate(found.items()):
        figure.add_trace(Scatter(
            x=[one.n_parameters], y=[one.scores[measure]], mode="markers+text", text=[label(name)],
            textposition="top center", name=label(name), showlegend=False,
            marker={"size": 12, "color": PALETTE[i % len(PALETTE)]},
            hovertemplate=f"{label(name)}: %{{y:.4f}}, %{{x:,}} numbers<extra></extra>",
        ))  # fmt: skip
    better = "higher is better" if measure in _HIGHER_IS_BETTER else "lower is better"
    figure.update_layout(
        xaxis={"title": "numbers the model holds", "type": "log"}, yaxis={"title": f"{_MEASURES[measure]} ({better})"}
    )
    return figure


def distill_sections(found: Mapping[str, Measured], *, part: str = "", command: str = "") -> list[Section]:
    """Sections of a page about a teacher, which comes first, and its students; ``part`` says what was scored."""
    columns, rows = distill_rows(found)
    first = next(iter(found.values()))
    facts = [
        (f"{name}: of the teacher's numbers", f"{one.n_parameters / max(first.n_parameters, 1):.1%}")
        for name, one in list(found.items())[1:]
    ]
    where = f"Scores on {part}. " if part else ""
    said = Text(
        f"{where}Numbers are all that networks and lines hold, trained or solved; latency is the median of 20 answers "
        "for one window on this machine; size is the saved folder. Shares are of the teacher's."
    )
    blocks = [*([Facts(facts, large=True)] if facts else []), Table(columns, rows, lead=True), said]
    sections = [
        Section("What is kept, and what it costs", blocks),
        Section("Error over size", [Drawing(cost_figure(found), "Each model by its size and its error.")]),
    ]
    return [*sections, *([Section("How", [Code(command)])] if command else [])]


def distill_report(
    path: str | Path, found: Mapping[str, Measured], *, title: str = "Distillation", part: str = "", command: str = ""
) -> Written:
    """Write one page about a teacher and its students, by name; the teacher comes first."""
    sections: Sequence[Section] = distill_sections(found, part=part, command=command)
    return write_report(path, title, sections, subtitle=part)
