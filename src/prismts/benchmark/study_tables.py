"""The tables of the slides from the cells of a study, ours beside theirs.

Gains and changes are in percent of RMSE on standardized values, paired seed by seed; "a [b, c]" is a mean over seeds
and its 95 % interval (Student's t over the seeds, which says nothing of other data). What cannot be told yet is a dash.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from scipy.stats import t as student

from prismts.analysis.coupling import rank_correlation
from prismts.analysis.interaction import MODES, Interaction, gains, interaction, seed_win_rate
from prismts.benchmark.study import Study

__all__ = ["StudyTable", "interactions", "markdown", "mode_gains", "published", "tables", "win_rates"]

DASH = "–"
WAYS = MODES[1:]  # cnn_to_gru, gru_to_cnn, both
VARIANTS = ("late", "no_fusion", "static", "ema", "standard", "per_token", "lift")


@dataclass(frozen=True)
class StudyTable:
    """Rows of texts below column names."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def markdown(self) -> str:
        """The table as Markdown, its title as a heading."""
        lines = [f"### {self.title}", ""]
        if self.note:
            lines += [self.note, ""]
        lines += [f"| {' | '.join(self.columns)} |", f"|{'---|' * len(self.columns)}"]
        return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in self.rows)])


@cache
def published() -> Mapping[str, Any]:
    """The slides' numbers: measure, arrangement and data set, as ``published_cross_learner.yaml`` has them."""
    import yaml

    text = resources.files("prismts.benchmark").joinpath("published_cross_learner.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def tables(study: Study) -> tuple[StudyTable, ...]:
    """Every table that has a row."""
    makers: tuple[Callable[[Study], StudyTable], ...] = (
        _gain_table, _halves_table, _interaction_table, _variant_table, _clock_table, _path_table, _gradient_table,
        _score_table, _profile_table,
    )  # fmt: skip
    return tuple(table for make in makers if (table := make(study)).rows)


def markdown(study: Study) -> str:
    """All tables, one below the other, and what is missing."""
    n = len(study.spec.cells)
    head = f"{len(study.cells)} of {n} cells are done" + (f", {len(study.failed)} failed" if study.failed else "") + "."
    failed = [f"- {cell}: {told}" for cell, told in study.failed.items()]
    return (
        "\n\n".join([head, *(["\n".join(failed)] if failed else []), *(one.markdown() for one in tables(study))]) + "\n"
    )


# ---- numbers that tables and figures share


def mode_gains(study: Study, data: str, horizon: int) -> dict[str, list[float]]:
    """Percent by which each way of exchange lowers RMSE, by seed; ways that share no seed with none are left out."""
    found: dict[str, list[float]] = {}
    for way in WAYS:
        errors = study.seeds_of_all(data, horizon, ("none", way))
        if errors[way]:
            found[way] = gains(errors)[way].tolist()
    return found


def interactions(study: Study, data: str, horizon: int) -> Interaction | None:
    """The regression over the seeds that all four modes have; None with fewer than two."""
    errors = study.seeds_of_all(data, horizon, MODES)
    return interaction(errors) if len(errors["both"]) > 1 else None


def win_rates(study: Study, data: str, horizon: int) -> tuple[float, int]:
    """Share of seeds in which both directions beat each one, and of how many seeds; NaN of none."""
    errors = study.seeds_of_all(data, horizon, WAYS)
    n = len(errors["both"])
    return (seed_win_rate(errors), n) if n else (float("nan"), 0)


# ---- tables


def _gain_table(study: Study) -> StudyTable:
    rows: list[tuple[str, ...]] = []
    means: dict[str, list[float]] = {way: [] for way in WAYS}
    for data, horizon in _places(study):
        found = mode_gains(study, data, horizon)
        if not found:
            continue
        for way, values in found.items():
            means[way].append(float(np.mean(values)))
        told = [
            cell for way in WAYS for cell in (_interval(found.get(way, ())), _theirs("gain", way, data, form="+.1f"))
        ]
        counts = sorted({len(values) for values in found.values()})
        rows.append((data, str(horizon), "-".join(str(n) for n in dict.fromkeys((counts[0], counts[-1]))), *told))
    if len(rows) > 1:
        told = [cell for way in WAYS for cell in (_interval(means[way]), DASH)]
        rows.append((f"mean of the {len(rows)} rows", "", "", *told))
    columns = ("data", "horizon", "seeds", *(c for way in WAYS for c in (f"{way}, ours", "slides")))
    return StudyTable(
        "Gain of the modes over none, percent of RMSE", columns, tuple(rows),
        "Above 0 the exchange helps. The interval of the last row is over rows, not over seeds. The slides do not tell "
        "over which horizons theirs are.",
    )  # fmt: skip


def _halves_table(study: Study) -> StudyTable:
    """Both directions against each one: what the gain table does not pair."""
    rows: list[tuple[str, ...]] = []
    means: dict[str, list[float]] = {way: [] for way in WAYS[:2]}
    for data, horizon in _places(study):
        told: list[str] = []
        for way in means:
            errors = study.seeds_of_all(data, horizon, ("both", way))
            change = [100 * (b - a) / b for a, b in zip(errors["both"], errors[way], strict=True)]
            told += [_interval(change), _verdict(*_bounds(change))]
            if change:
                means[way].append(float(np.mean(change)))
        if told[0] != DASH or told[2] != DASH:
            rows.append((data, str(horizon), *told))
    if len(rows) > 1:
        told = [text for way in means for text in (_interval(means[way]), _verdict(*_bounds(means[way])))]
        rows.append((f"mean of the {len(rows)} rows", "", *told))
    return StudyTable(
        "Both directions against each one, percent of RMSE",
        ("data", "horizon", "against cnn_to_gru", "is", "against gru_to_cnn", "is"), tuple(rows),
        "Above 0 both are better than the half. The interval of the last row is over rows, not over seeds.",
    )  # fmt: skip


def _interaction_table(study: Study) -> StudyTable:
    rows: list[tuple[str, ...]] = []
    shares: list[float] = []
    for data, horizon in _places(study):
        rate, n = win_rates(study, data, horizon)
        found = interactions(study, data, horizon)
        if not n and found is None:
            continue
        if found is not None:
            shares.append(100 * found.b12.value / found.b0.value)
        told = [DASH] * 3 if found is None else [str(one) for one in (found.b1, found.b2, found.b12)]
        verdict = DASH if found is None else _verdict(found.b12.low, found.b12.high)
        rows.append((data, str(horizon), *told, verdict, f"{rate:.0%} of {n}" if n else DASH))
    if len(shares) > 1:
        told = [f"mean of the {len(shares)} b12", "in percent of b0", DASH, DASH, _interval(shares)]
        rows.append((*told, _verdict(*_bounds(shares)), DASH))
    return StudyTable(
        "Interaction: RMSE = b0 + b1 [CNN->GRU] + b2 [GRU->CNN] + b12 [both]",
        ("data", "horizon", "b1", "b2", "b12", "b12 is", "seeds in which both beats each half"), tuple(rows),
        "b12 below 0: both directions are worth more than their halves together. The slides show b12 < 0 everywhere "
        "but on Weather at 336 and 720.",
    )  # fmt: skip


def _variant_table(study: Study) -> StudyTable:
    rows: list[tuple[str, ...]] = []
    for data, horizon in _places(study):
        for name in VARIANTS:
            errors = study.seeds_of_all(data, horizon, ("both", name))
            if not errors[name]:
                continue
            change = [100 * (b - a) / a for a, b in zip(errors["both"], errors[name], strict=True)]
            low, high = _bounds(change)
            theirs = _theirs("change_at_720", name, data, form="+.1f") if horizon == 720 else DASH
            rows.append((data, str(horizon), name, str(len(change)), _interval(change), _verdict(low, high), theirs))
    return StudyTable(
        "Taking parts away: change of RMSE against the full model (both), percent",
        ("data", "horizon", "instead", "seeds", "ours", "is", "slides, horizon 720"), tuple(rows),
        "Above 0 the part that was taken away had helped.",
    )  # fmt: skip


def _clock_table(study: Study) -> StudyTable:
    rows: list[tuple[str, ...]] = []
    closer: list[float] = []  # to the time of day, both beyond gru_to_cnn
    extra: list[float] = []  # gain, both beyond cnn_to_gru
    for data, horizon in _places(study):
        dcor = [
            [*study.values(data, horizon, way, "diagnostics", "dcor", "kernels_to_cnn").values()]
            for way in ("both", "gru_to_cnn")
        ]
        found = mode_gains(study, data, horizon)
        if all(dcor) and {"both", "cnn_to_gru"} <= set(found):
            closer.append(float(np.mean(dcor[0]) - np.mean(dcor[1])))
            extra.append(float(np.mean(found["both"]) - np.mean(found["cnn_to_gru"])))
        for way in ("gru_to_cnn", "both"):
            at = (data, horizon, way, "diagnostics")
            kernels, change = ([*study.values(*at, "dcor", name).values()] for name in ("kernels_to_cnn", "cnn_change"))
            if not kernels and not change:
                continue
            chance = [
                [*study.values(*at, "dcor_by_chance", name).values()] for name in ("kernels_to_cnn", "cnn_change")
            ]
            rows.append((
                data, str(horizon), way, _mean(kernels), _mean(chance[0]), _theirs("dcor_kernels", way, data),
                _mean(change), _mean(chance[1]), _theirs("dcor_change", way, data),
            ))  # fmt: skip
    return StudyTable(
        "Distance correlation with the time of day",
        ("data", "horizon", "mode", "kernels to the CNN, ours", "by chance", "slides", "change of the CNN output, ours",
         "by chance", "slides"), tuple(rows),
        "By chance: the same with the times shuffled; this measure is above 0 even where nothing depends on anything."
        + _told_together("how much more the kernels of both depend than those of gru_to_cnn", closer,
                         "how much more both gain than cnn_to_gru", extra),
    )  # fmt: skip


def _path_table(study: Study) -> StudyTable:
    rows: list[tuple[str, ...]] = []
    sooner: list[float] = []  # lead of both
    extra: list[float] = []  # gain, both beyond gru_to_cnn
    for data, horizon in _places(study):
        leads = [[*study.values(data, horizon, way, "diagnostics", "lead").values()] for way in ("both", "none")]
        found = mode_gains(study, data, horizon)
        if all(leads) and {"both", "gru_to_cnn"} <= set(found):
            sooner.append(float(np.mean(leads[0]) - np.mean(leads[1])))
            extra.append(float(np.mean(found["both"]) - np.mean(found["gru_to_cnn"])))
        for way in ("cnn_to_gru", "both"):
            told: list[str] = []
            for measure, place, form in (
                ("spearman_rise", "rank_correlation", "+.2f"), ("peak_response", "peak", "+.1f"),
                ("", "peak_relative", "+.1f"), ("lead_gain", "lead", "+.2f"),
            ):  # fmt: skip
                ours = study.values(data, horizon, way, "diagnostics", place)
                none = study.values(data, horizon, "none", "diagnostics", place)
                seeds = [seed for seed in ours if seed in none]
                ratio = place.startswith("peak")
                values = [100 * (ours[s] / none[s] - 1) if ratio else ours[s] - none[s] for s in seeds]
                told.append(_interval(values, form))
                if measure:
                    told.append(_theirs(measure, way, data, form=form))
            if told[0] != DASH:
                rows.append((data, str(horizon), way, *told))
    return StudyTable(
        "How the two paths move together, against none",
        ("data", "horizon", "mode", "Spearman rise, ours", "slides", "peak response %, ours", "slides",
         "relative to all steps", "lead (tokens), ours", "slides (steps)"), tuple(rows),
        "Of the last block, token by token. Our steps are tokens of the mixing convolution; the slides call theirs "
        "steps of the series." + _told_together("the lead of both", sooner, "how much more both gain than gru_to_cnn",
                                                extra),
    )  # fmt: skip


def _gradient_table(study: Study) -> StudyTable:
    rows: list[tuple[str, ...]] = []
    for data, horizon in _places(study):
        for name in ("both", "none", "late", "no_fusion"):
            norms = {when: path_norms(study, data, horizon, name, when) for when in ("start", "end")}
            if not norms["start"]:
                continue
            told: list[str] = []
            for when in ("start", "end"):
                cnn, gru = norms[when]["cnn"], norms[when]["gru"]
                told += [_layers(cnn), _layers(gru), f"{_total(gru) / _total(cnn):.2f}" if _total(cnn) else DASH]
            rows.append((data, str(horizon), name, *told))
    return StudyTable(
        "Gradient per parameter (rms, times 10,000) that reaches each path, layer by layer",
        ("data", "horizon", "arrangement", "CNN at the start", "GRU at the start", "GRU : CNN", "CNN after training",
         "GRU after training", "GRU : CNN"), tuple(rows),
        "Of the training loss on 128 training windows without dropout, mean over seeds. GRU : CNN is the ratio over "
        "all layers (root mean square); far from 1, one path starves.",
    )  # fmt: skip


def _score_table(study: Study) -> StudyTable:
    rows: list[tuple[str, ...]] = []
    names = tuple(dict.fromkeys(cell.arrangement for cell in study.spec.cells))
    for data, horizon in _places(study):
        for name in names:
            found = {m: [*study.values(data, horizon, name, "test", m).values()] for m in ("mse", "mae", "rmse")}
            if not found["mse"]:
                continue
            n = int(next(iter(study.values(data, horizon, name, "test", "n_windows").values())))
            spread = f" ± {np.std(found['mse'], ddof=1):.4f}" if len(found["mse"]) > 1 else ""
            size = next(iter(study.values(data, horizon, name, "n_parameters").values()))
            seconds = study.values(data, horizon, name, "seconds").values()
            rows.append((
                data, str(horizon), name, str(len(found["mse"])), f"{np.mean(found['mse']):.4f}{spread}",
                f"{np.mean(found['mae']):.4f}", f"{np.mean(found['rmse']):.4f}", f"{n:,}", f"{size:,.0f}",
                f"{np.mean([*seconds]):.0f}",
            ))  # fmt: skip
    return StudyTable(
        "Scores on standardized values, all test windows",
        ("data", "horizon", "arrangement", "seeds", "MSE", "MAE", "RMSE", "windows", "parameters", "seconds a cell"),
        tuple(rows),
    )  # fmt: skip


def _profile_table(study: Study) -> StudyTable:
    rows: list[tuple[str, ...]] = []
    held: list[int] = []
    mean_gains: list[float] = []
    theirs: list[float] = []
    for data in study.names:
        about = study.data.get(data)
        if about is None:
            continue
        conditions: Mapping[str, Any] = about["conditions"]
        n = sum(value is True for value in conditions.values())
        found = [g for horizon in study.horizons for g in mode_gains(study, data, horizon).get("both", [])]
        alignment: Any = about.get("alignment")
        measured = [DASH, DASH]
        if isinstance(alignment, Mapping):
            measured = [f"{alignment['phase_drift']:.4f}", f"{alignment['spai']:.4f}"]
        rows.append((
            data, f"{n} of {len(conditions)}", measured[0], _theirs("phase_drift", data, form=".4f"), measured[1],
            _theirs("spai", data, form=".4f"), _interval(found), _theirs("gain", "both", data, form="+.1f"),
        ))  # fmt: skip
        if found:
            held.append(n)
            mean_gains.append(float(np.mean(found)))
            theirs.append(float(published()["gain"]["both"].get(data, np.nan)))
    note = "Gain of both over none in percent, over all horizons and seeds."
    if len(set(held)) > 1 and len(held) > 2:
        with_ours = rank_correlation(held, mean_gains)
        note += f" Rank correlation of the number of conditions with our gains: {with_ours:+.2f}"
        if np.isfinite(theirs).all():
            note += f", with the slides': {rank_correlation(held, theirs):+.2f}"
        note += f", over {len(held)} data sets, which is few."
    return StudyTable(
        "What the profile of the data says, and what was gained",
        ("data", "conditions that hold", "Phase-Drift", "slides", "SPAI", "slides", "gain of both, ours", "slides"),
        tuple(rows), note,
    )  # fmt: skip


def path_norms(study: Study, data: str, horizon: int, arrangement: str, when: str) -> dict[str, list[float]]:
    """Gradient per parameter of each path, layer by layer, mean over seeds; empty where no cell has any."""
    found: dict[str, list[list[float]]] = {}
    for cell, result in study.cells.items():
        if (cell.data, cell.horizon, cell.arrangement) == (data, horizon, arrangement) and "gradients" in result:
            for path, layers in result["gradients"][when].items():
                found.setdefault(path, []).append([layer["rms"] for layer in layers])
    return {path: np.mean(runs, axis=0).tolist() for path, runs in found.items()}


# ---- texts


def _places(study: Study) -> list[tuple[str, int]]:
    return [(data, horizon) for data in study.names for horizon in study.horizons]


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a mean."""
    n = len(values)
    if n < 2:
        return float("nan"), float("nan")
    half = float(student.ppf(0.975, n - 1)) * float(np.std(values, ddof=1)) / n**0.5
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def _interval(values: Sequence[float], form: str = "+.2f") -> str:
    if not len(values):
        return DASH
    low, high = _bounds(values)
    return f"{np.mean(values):{form}}" + (f" [{low:{form}}, {high:{form}}]" if len(values) > 1 else "")


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.2f}" if len(values) else DASH


def _verdict(low: float, high: float) -> str:
    if np.isnan(low):
        return DASH
    return "above 0" if low > 0 else "below 0" if high < 0 else "not told from 0"


def _theirs(measure: str, *place: str, form: str = ".2f") -> str:
    value: Any = published()[measure]
    for name in place:
        value = value.get(name) if isinstance(value, Mapping) else None
    return DASH if value is None else f"{value:{form}}"


def _told_together(one: str, x: Sequence[float], other: str, y: Sequence[float]) -> str:
    """A sentence on what the slides plot against each other; empty with fewer than four rows."""
    if len(x) < 4:
        return ""
    return f" Over {len(x)} rows, {one} and {other} have a rank correlation of {rank_correlation(x, y):+.2f}."


def _layers(norms: Sequence[float]) -> str:
    return ", ".join(f"{1e4 * norm:.2f}" for norm in norms)


def _total(norms: Sequence[float]) -> float:
    return float(np.sqrt(np.mean(np.square(norms))))
