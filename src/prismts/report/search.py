"""The page of a search: how it went, what mattered, what each setting did, and what a score costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prismts.benchmark.search_results import Found, TrialResult, pareto
from prismts.benchmark.search_space import Range
from prismts.report.page import Block, Code, Drawing, Facts, Note, Section, Table, Text, Written, write_report
from prismts.report.theme import OBSERVED, PALETTE, TEMPLATES, label

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["curves_figure", "history_figure", "importance_figure", "pareto_figure", "search_page", "slices_figure"]

_MOST_ROWS = 100  # trials in the table: the best ones
_MOST_TICKS = 12  # whole numbers on an axis that are all named


def search_page(
    path: str | Path, found: Found, importance: Mapping[str, float], *, best_yaml: str = "", command: str = ""
) -> Written:
    """Write one self-contained HTML page; figures without a scored trial are left out."""
    spec = found.spec
    sections = [Section("", _head(found, command))]
    if found.complete:
        drawn: list[Block] = [Drawing(history_figure(found), _history_told(found), title="History")]
        if any(trial.curve for trial in found.trials):
            drawn.append(Drawing(curves_figure(found), "Mean over the networks of a trial begun so far of the lowest "
                                 "loss of each; what pruning compares.", title="Validation curves"))  # fmt: skip
        sections.append(Section("How it went", drawn))
        if importance:
            sections.append(Section("What mattered", [Drawing(
                importance_figure(importance),
                f"Share in what sets good trials apart (PED-ANOVA) over {len(found.complete)} scored trials"
                + ("; with so few it is a hint." if len(found.complete) < 30 else "."),
            )]))  # fmt: skip
        sections.append(Section("What each setting did", [Drawing(
            slices_figure(found), f"One point per scored trial; {_better(found)} is better."
        )]))  # fmt: skip
        sections.append(Section("Score against cost", [Drawing(
            pareto_figure(found), "The line joins the trials that no other beats in both. Multiply-accumulates of one "
            "window, without the line beside the network.",
        )]))  # fmt: skip
    if best_yaml:
        sections.append(Section("Best settings", [Code(best_yaml)]))
    sections.append(Section("Trials", [_table(found)]))
    failed = [[str(one.number), one.error] for one in found.trials if one.state == "failed"]
    if failed:
        sections.append(Section("Trials that failed", [Table(("trial", "error"), failed)]))
    return write_report(path, f"Search: {spec.name}", sections, subtitle=f"{spec.task} {spec.data}")


def history_figure(found: Found) -> Figure:
    """The score of every trial in order, and the best so far."""
    import plotly.graph_objects as go

    done = found.complete
    minimize = found.spec.direction == "minimize"
    best: list[float] = []
    for trial in done:
        value = trial.value or 0.0
        best.append(value if not best else min(best[-1], value) if minimize else max(best[-1], value))
    figure = _empty(360)
    figure.add_trace(go.Scatter(
        x=[trial.number for trial in done], y=[trial.value for trial in done], mode="markers", name="trial",
        marker={"color": PALETTE[0], "size": 7}, hovertext=[_told(trial) for trial in done],
        hovertemplate="%{hovertext}<extra></extra>",
    ))  # fmt: skip
    figure.add_trace(go.Scatter(
        x=[trial.number for trial in done], y=best, mode="lines", name="best so far",
        line={"color": PALETTE[1], "shape": "hv", "width": 2}, hovertemplate="%{y:.5g}",
    ))  # fmt: skip
    rule = next((trial for trial in done if trial.is_rule), None)
    if rule is not None:
        figure.add_trace(go.Scatter(
            x=[rule.number], y=[rule.value], mode="markers", name="the rule's proposal",
            marker={"color": PALETTE[3], "size": 12, "symbol": "diamond-open", "line": {"width": 2}},
            hovertemplate="%{y:.5g}",
        ))  # fmt: skip
    figure.update_xaxes(title_text="trial")
    figure.update_yaxes(title_text=f"{found.spec.score} on validation")
    return figure


def curves_figure(found: Found) -> Figure:
    """The validation loss of every trial by epoch; pruned ones end early and are gray."""
    import plotly.graph_objects as go

    figure = _empty(360)
    shown: set[str] = set()
    for trial in found.trials:
        if not trial.curve:
            continue
        best = found.best is not None and trial.number == found.best.number
        kind = "best" if best else trial.state
        color = PALETTE[1] if best else OBSERVED if trial.state != "complete" else PALETTE[0]
        figure.add_trace(go.Scatter(
            x=list(trial.curve), y=list(trial.curve.values()), mode="lines+markers", name=kind, legendgroup=kind,
            showlegend=kind not in shown, line={"color": color, "width": 2.5 if best else 1}, marker={"size": 4},
            opacity=1.0 if best else 0.6, hovertemplate=f"trial {trial.number}: %{{y:.5g}}<extra></extra>",
        ))  # fmt: skip
        shown.add(kind)
    longest = max((len(trial.curve) for trial in found.trials), default=0)
    figure.update_xaxes(
        title_text="epoch, over all networks of a trial", dtick=1 if 0 < longest <= _MOST_TICKS else None
    )
    figure.update_yaxes(title_text="loss on validation")
    return figure


def importance_figure(importance: Mapping[str, float]) -> Figure:
    """The share of each dimension, largest on top."""
    import plotly.graph_objects as go

    names = list(importance)[::-1]
    figure = _empty(120 + 28 * len(names))
    figure.add_trace(go.Bar(
        x=[importance[name] for name in names], y=[label(name) for name in names], orientation="h",
        marker={"color": PALETTE[0]}, hovertemplate="%{x:.1%}<extra></extra>",
    ))  # fmt: skip
    figure.update_xaxes(title_text="importance", tickformat=".0%", rangemode="tozero")
    return figure


def slices_figure(found: Found) -> Figure:
    """The score against each dimension by itself, one panel each."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    names = list(found.spec.space)
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure: Figure = make_subplots(
        rows=rows, cols=columns, subplot_titles=[label(name) for name in names], shared_yaxes=True,
        vertical_spacing=0.28 / rows, horizontal_spacing=0.04,
    )  # fmt: skip
    figure.update_layout(template=TEMPLATES["light"], height=120 + 200 * rows, showlegend=False)
    for i, name in enumerate(names):
        row, column = i // columns + 1, i % columns + 1
        one = found.spec.space[name]
        own = [trial for trial in found.complete if name in trial.values]
        written = [_written(trial.values[name]) if not isinstance(one, Range) else trial.values[name] for trial in own]
        figure.add_trace(go.Scatter(
            x=written, y=[trial.value for trial in own], mode="markers",
            marker={"size": 7, "color": [trial.number for trial in own], "colorscale": [[0, "#c8d3e0"],
                                                                                        [1, PALETTE[0]]]},
            hovertext=[_told(trial) for trial in own], hovertemplate="%{hovertext}<extra></extra>",
        ), row=row, col=column)  # fmt: skip
        if isinstance(one, Range):
            if one.log:
                figure.update_xaxes(type="log", row=row, col=column)
            elif one.whole and one.high - one.low <= _MOST_TICKS:
                figure.update_xaxes(dtick=1, row=row, col=column)
        else:
            order = [_written(option) for option in one.options]
            figure.update_xaxes(
                type="category", categoryorder="array", categoryarray=order, range=[-0.5, len(order) - 0.5], row=row,
                col=column,
            )  # fmt: skip
    figure.update_yaxes(title_text=found.spec.score, col=1)
    return figure


def pareto_figure(found: Found) -> Figure:
    """The score against the multiply-accumulates of a window, and the trials that nothing beats in both."""
    import plotly.graph_objects as go

    front = pareto(found)
    figure = _empty(400)
    figure.add_trace(go.Scatter(
        x=[trial.macs for trial in found.complete], y=[trial.value for trial in found.complete], mode="markers",
        name="trial", marker={"color": PALETTE[0], "size": 7}, hovertext=[_told(trial) for trial in found.complete],
        hovertemplate="%{hovertext}<extra></extra>",
    ))  # fmt: skip
    figure.add_trace(go.Scatter(
        x=[trial.macs for trial in front], y=[trial.value for trial in front], mode="lines+markers", name="front",
        line={"color": PALETTE[1], "shape": "hv"}, marker={"size": 9, "symbol": "circle-open"}, hoverinfo="skip",
    ))  # fmt: skip
    budget = found.spec.budget
    if budget is not None and budget.macs is not None:
        figure.add_vline(x=budget.macs, line={"color": OBSERVED, "dash": "dash"}, annotation_text="budget")
    figure.update_xaxes(title_text="multiply-accumulates of a window", type="log", tickformat="~s")
    figure.update_yaxes(title_text=f"{found.spec.score} on validation")
    return figure


def _head(found: Found, command: str) -> list[Block]:
    spec = found.spec
    seconds = sum(trial.seconds or 0.0 for trial in found.trials)
    facts = [("trials", f"{sum(found.counts.values())} of {spec.trials}")]
    if found.best is not None:
        facts.insert(0, (f"best {spec.score} on validation", f"{found.best.value:.5g}"))
        rule = next((trial for trial in found.complete if trial.is_rule), None)
        if rule is not None:
            facts.insert(1, ("the rule's proposal", f"{rule.value:.5g}"))
    facts += [("pruned", str(found.counts["pruned"])), ("computing", str(timedelta(seconds=round(seconds))))]
    blocks: list[Block] = [Facts(facts, large=True)]
    blocks.append(Text(
        "Every trial learns from the training part and is judged on validation; the search never reads the test part. "
        "The best of many scores on validation flatters itself: only a part that nothing was chosen on says what it is "
        "worth."
    ))  # fmt: skip
    if found.counts["running"]:
        blocks.append(Note(f"{found.counts['running']} trials are still running.", "note"))
    for one in found.tests:
        told = ", ".join(f"{name} {value:.5g}" for name, value in one["scores"].items())
        blocks.append(Note(
            f"Test, read for trial {one['trial']} at {one['at']}: {told}; {one['n_scored']} {one['counted']}.", "note"
        ))  # fmt: skip
    if len(found.tests) > 1:
        blocks.append(Note(
            f"The test part was read {len(found.tests)} times: its scores are no longer those of a single reading.",
            "alarm",
        ))  # fmt: skip
    about = [("data", spec.data), ("setting it starts from", spec.setting), ("seed", str(spec.seed))]
    about.append(("dominant period", f"{found.period} steps" if found.period else "none"))
    if spec.budget is not None:
        about.append(("budget", f"{spec.budget.most:g} {spec.budget.unit}"))
    if command:
        about.append(("made by", command))
    blocks.append(Facts(about))
    return blocks


def _table(found: Found) -> Table:
    spec = found.spec
    sign = 1.0 if spec.direction == "minimize" else -1.0
    ranked = sorted(found.trials, key=lambda one: (one.value is None, sign * (one.value or 0.0), one.number))
    names = list(spec.space)
    columns = ["trial", spec.score, "state", "tokens made", "taps used", "MACs", "seconds", *names]
    rows = [
        [
            f"{one.number}{' (rule)' if one.is_rule else ''}", "" if one.value is None else f"{one.value:.5g}",
            one.state,
            "" if one.n_tokens is None else str(one.n_tokens),
            "" if one.taps is None else f"{one.taps.used} of {one.taps.total}",
            "" if one.macs is None else f"{one.macs:,}", "" if one.seconds is None else f"{one.seconds:.0f}",
            *(_written(one.values[name]) if name in one.values else "" for name in names),
        ]
        for one in ranked[:_MOST_ROWS]
    ]  # fmt: skip
    cut = f" The best {_MOST_ROWS} of {len(ranked)}." if len(ranked) > _MOST_ROWS else ""
    return Table(columns, rows, caption=f"Best first.{cut}", lead=found.best is not None)


def _history_told(found: Found) -> str:
    n_pruned = found.counts["pruned"]
    told = f" {n_pruned} more were pruned before their end." if n_pruned else ""
    return f"{_better(found).capitalize()} is better.{told}"


def _better(found: Found) -> str:
    return "lower" if found.spec.direction == "minimize" else "higher"


def _told(trial: TrialResult) -> str:
    values = "<br>".join(f"{label(name)} {label(_written(value))}" for name, value in trial.values.items())
    cost = "" if trial.macs is None else f"<br>{trial.macs / 1e6:.3g} million MACs, {trial.n_tokens} tokens"
    return f"trial {trial.number}: {trial.value:.5g}{cost}<br>{values}"


def _written(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value)


def _empty(height: int) -> Figure:
    import plotly.graph_objects as go

    return go.Figure(layout={"template": TEMPLATES["light"], "height": height})
