"""The page of a study of the cross learner: every table and figure, from what its cells hold."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from prismts.benchmark.study import Study
from prismts.benchmark.study_tables import StudyTable, interactions, mode_gains, path_norms, tables, win_rates
from prismts.report.diagnostics import (
    coupling_figure,
    gain_figure,
    gradient_figure,
    interaction_figure,
    kernels_over_day_figure,
    phase_wobble_figure,
    win_rate_figure,
)
from prismts.report.page import Block, Drawing, Facts, Note, Section, Table, Text, Written, write_report

__all__ = ["study_page"]

_MIDNIGHT = np.datetime64("2000-01-01", "s")


def study_page(path: str | Path, study: Study, *, command: str = "") -> Written:
    """Write one self-contained HTML page; sections without a finished cell are left out."""
    found = {one.title: one for one in tables(study)}
    sections = [Section("", _head(study, command))]
    drawn: list[tuple[str, list[Block]]] = [
        ("Gains", _gains(study)), ("Interaction", _interactions(study)), ("Kernels over the day", _kernels(study)),
        ("Paths", _paths(study)), ("Gradient flow", _gradients(study)), ("Phase wobble", _wobble(study)),
    ]  # fmt: skip
    sections += [Section(title, blocks) for title, blocks in drawn if blocks]
    sections.append(Section("Tables", [_table(one) for one in found.values()]))
    if study.failed:
        rows = [[str(cell), told] for cell, told in study.failed.items()]
        sections.append(Section("Cells that failed", [Table(("cell", "error"), rows)]))
    return write_report(path, "Study of the cross learner", sections, subtitle=", ".join(study.names))


def _head(study: Study, command: str) -> list[Block]:
    seconds = sum(float(result["seconds"]) for result in study.cells.values())
    blocks: list[Block] = [
        Facts([
            ("cells done", f"{len(study.cells)} of {len(study.spec.cells)}"),
            ("seeds", str(len({cell.seed for cell in study.cells}))),
            ("computing", str(timedelta(seconds=round(seconds)))),
        ], large=True),
        Text(
            "Modes of exchange, ablations and rivals on the same windows. The scaler and the weights see the training "
            "part, validation chooses the epoch, and every test window is scored once. Numbers of the slides stand "
            "beside ours; they are one author's, on splits and settings the slides do not tell."
        ),
    ]  # fmt: skip
    if study.missing:
        blocks.append(Note(f"{len(study.missing)} cells are missing: the page is of an unfinished study.", "flag"))
    if command:
        blocks.append(Facts([("made by", command)]))
    return blocks


def _gains(study: Study) -> list[Block]:
    by_place = {
        f"{data} {horizon}": found
        for data in study.names for horizon in study.horizons if (found := mode_gains(study, data, horizon))
    }  # fmt: skip
    if not by_place:
        return []
    return [Drawing(gain_figure(by_place), "One point per seed; above zero the exchange lowers the error.")]


def _interactions(study: Study) -> list[Block]:
    estimates: dict[str, dict[str, tuple[float, float, float]]] = {}
    rates = np.full((len(study.names), len(study.horizons)), np.nan)
    for column, horizon in enumerate(study.horizons):
        for row, data in enumerate(study.names):
            rates[row, column] = win_rates(study, data, horizon)[0]
            if (found := interactions(study, data, horizon)) is not None:
                b12 = found.b12
                estimates.setdefault(f"H = {horizon}", {})[data] = (b12.value, b12.low, b12.high)
    blocks: list[Block] = []
    if estimates:
        blocks.append(Drawing(
            interaction_figure(estimates), "b12 with 95 % intervals over seeds; below zero both directions are worth "
            "more than their halves together. Faded: the interval meets zero.",
        ))  # fmt: skip
    if np.isfinite(rates).any():
        figure = win_rate_figure(rates, study.names, [f"H = {horizon}" for horizon in study.horizons])
        blocks.append(Drawing(figure, "Share of seeds in which both directions beat each one-way mode."))
    return blocks


def _kernels(study: Study) -> list[Block]:
    """Of the longest horizon that has any, one figure per data set: both directions, all seeds joined."""
    blocks: list[Block] = []
    for data in study.names:
        for horizon in sorted(study.horizons, reverse=True):
            runs = [
                over for cell, result in study.cells.items()
                if (cell.data, cell.horizon, cell.arrangement) == (data, horizon, "both")
                and (over := result["diagnostics"].get("over_day", {}).get("kernels_to_cnn"))
            ]  # fmt: skip
            if runs:
                kernels, times = _two_points(runs[0])
                blocks.append(Drawing(
                    kernels_over_day_figure(kernels, times, n_bins=len(runs[0]["mean"])),
                    "Kernels of the last block's message to the CNN path, mean over the width, by the time of day of "
                    "the window's last step; the first seed.", title=f"{data}, H = {horizon}",
                ))  # fmt: skip
                break
    return blocks


def _two_points(over: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Two kernels per part of the day that have the mean and deviation that were kept: [2n, k] and their times."""
    kernels: list[np.ndarray] = []
    times: list[np.datetime64] = []
    n = len(over["mean"])
    for part, (mean, deviation) in enumerate(zip(over["mean"], over["deviation"], strict=True)):
        if mean is not None:
            kernels += [np.subtract(mean, deviation), np.add(mean, deviation)]
            times += [_MIDNIGHT + np.timedelta64(round((part + 0.5) * 86_400 / n), "s")] * 2
    return np.array(kernels), np.array(times)


def _paths(study: Study) -> list[Block]:
    blocks: list[Block] = []
    for horizon in study.horizons:
        measures: dict[str, dict[str, dict[str, float]]] = {}
        for title, place in (
            ("rank correlation of the changes", "rank_correlation"), ("lead of the GRU path (tokens)", "lead"),
            ("response at peaks, relative to all steps", "peak_relative"),
        ):  # fmt: skip
            by_mode: dict[str, dict[str, float]] = {}
            for mode in ("none", "cnn_to_gru", "gru_to_cnn", "both"):
                for data in study.names:
                    values = study.values(data, horizon, mode, "diagnostics", place)
                    if values:
                        by_mode.setdefault(mode, {})[data] = float(np.mean([*values.values()]))
            if by_mode:
                measures[title] = by_mode
        if measures:
            blocks.append(Drawing(
                coupling_figure(measures), "Of the last block, on test windows; mean over seeds.",
                title=f"H = {horizon}",
            ))  # fmt: skip
    return blocks


def _gradients(study: Study) -> list[Block]:
    blocks: list[Block] = []
    for data in study.names:
        for horizon in study.horizons:
            for when, told in (("start", "before the first step"), ("end", "after training")):
                norms = {
                    name: found for name in ("both", "late", "no_fusion")
                    if (found := path_norms(study, data, horizon, name, when))
                }  # fmt: skip
                if len(norms) > 1:
                    blocks.append(Drawing(
                        gradient_figure(norms), "Gradient per parameter (rms) that reaches each layer of each path, "
                        "mean over seeds.", title=f"{data}, H = {horizon}, {told}",
                    ))  # fmt: skip
    return blocks


def _wobble(study: Study) -> list[Block]:
    blocks: list[Block] = []
    for data, about in study.data.items():
        alignment = about.get("alignment")
        if isinstance(alignment, Mapping):
            figure = phase_wobble_figure(
                alignment["dates"], alignment["lags"], alignment["samples_per_day"],
                title=f"{data}, {about['channel']}",
            )  # fmt: skip
            blocks.append(Drawing(figure, "How much later each day comes than the day before it.", title=data))
    return blocks


def _table(one: StudyTable) -> Table:
    return Table(one.columns, one.rows, caption=f"{one.title}. {one.note}".strip())
