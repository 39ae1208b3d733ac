"""Look before anything is learned: tables, known data sets, what a model costs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from prismts.cli.app import app
from prismts.cli.options import Count, Duplicates, SeriesColumn, TimeColumn, Values

__all__ = ["check", "datasets", "macs"]


@app.command
def check(
    file: Path,
    *,
    time: TimeColumn = None,
    series: SeriesColumn = None,
    values: Values = None,
    frequency: str | None = None,
    duplicates: Duplicates = "refuse",
) -> None:
    """Read a table and print what was found, what the data are like, and what that suggests.

    Found are channels, times, gaps, duplicates, sentinel values and constant channels.

    Args:
        file: The table to read.
        frequency: The step of the table, such as h or 15min; found by itself if not given.
    """
    from prismts.data.describe import describe
    from prismts.data.profile import profile
    from prismts.data.readers import read

    data = read(file, time=time, series=series, values=values, frequency=frequency, duplicates=duplicates)
    sys.stdout.write(f"{describe(data)}\n\n{profile(data)}\n")


@app.command
def datasets(*, task: str | None = None, names: Annotated[bool, Parameter(negative="")] = False) -> None:
    """List the data sets known by name, and where each would come from on this machine.

    Args:
        task: Only those for this task: forecast, classify, detect or other.
        names: Print only the names, one a line.
    """
    from prismts.data.catalog import list_datasets, where

    found = list_datasets(task)  # type: ignore[arg-type]
    if names:
        sys.stdout.write("".join(f"{entry.name}\n" for entry in found))
        return
    table = Table("name", "task", "found in", "what it is", box=None)
    for entry in found:
        table.add_row(escape(entry.name), entry.task, where(entry.name), escape(entry.description))
    Console().print(table)


@app.command
def macs(model: str, *, n_channels: Count = 7, context_length: Count = 720, horizon: Count = 96) -> None:
    """Count the multiply-accumulates of a model's forward pass, part by part, on the model itself.

    For the cross learner also the three arrangements of its slides, in their setting (720 steps, patches of 36).

    Args:
        model: Its name, such as convtimenet or cross_learner.
        n_channels: Channels of the window.
        context_length: Steps of past it reads.
        horizon: Steps of future it writes.
    """
    import torch

    from prismts.analysis.macs import count, cross_learner_arrangements
    from prismts.tasks.forecast import Forecast

    task = Forecast(horizon, line=None)
    built = task.build(model, {}, n_channels=n_channels, context_length=context_length)
    counted = count(built, torch.empty(1, n_channels, context_length))
    parts = Table("part", "multiply-accumulates", box=None, title=f"{model}, one window of {context_length} steps")
    parts.columns[1].justify = "right"
    for name, cost in counted.modules.items():
        if name.count(".") < 2:
            parts.add_row(name, f"{cost:,}")
    parts.add_row("total", f"{counted.total:,}")
    Console().print(parts)
    if model == "cross_learner":
        table = Table("arrangement", "front", "exchange", "total", box=None, title="Front and exchange, slides' HP2")
        for column in table.columns[1:]:
            column.justify = "right"
        for row in cross_learner_arrangements(n_channels):
            table.add_row(row.name, *(f"{cost:,}" for cost in (row.front, row.exchange, row.total)))
        Console().print(table)
