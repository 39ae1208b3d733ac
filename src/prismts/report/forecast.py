"""The pages about a forecaster: a full report of how good it is and why, and a short one of what it says will come."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from prismts.data import synthetic
from prismts.data.series import Collection, Series
from prismts.data.splits import Borders
from prismts.errors import SettingsError
from prismts.estimators.forecaster import Forecaster
from prismts.evaluation.protocols import PROTOCOLS, data_hash
from prismts.evaluation.scores import Scores
from prismts.models.failure import signs_of_failure
from prismts.report import flags
from prismts.report.figures import (
    backtest_figure,
    error_by_channel_figure,
    error_by_step_figure,
    forecast_figure,
    patch_bounds_figure,
    residual_weights_figure,
    training_figure,
    with_menu,
)
from prismts.report.page import Block, Code, Drawing, Facts, Note, Section, Table, Text, Written, write_report
from prismts.training.fit import FitConfig

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["forecast_page", "forecast_report"]

_WINDOWS_LOOKED_AT = 200  # of the test part, evenly spaced, from which those to draw are chosen; fewer of wide tables
_PATCH_WINDOWS = 3
_PATCH_CHANNELS = 4
_MOST_SERIES = 12
_SIMULATED = (
    "These data are simulated, not measured: nothing on this page says how the model does on real data, and no number "
    "of it belongs beside published ones."
)
_DECIMALS = {"mse": 4, "mae": 4, "pinball": 4, "crps": 4, "width": 4, "coverage": 3, "mase": 3}
_TITLES = {
    "mse": "MSE", "mae": "MAE", "rmse_own": "RMSE, own units", "mae_own": "MAE, own units", "mase": "MASE",
    "smape": "sMAPE %", "crps": "CRPS",
}  # fmt: skip
_NOT_RANKED = ("coverage", "width")  # lower is not better


def forecast_report(
    path: str | Path,
    forecaster: Forecaster,
    series: Series,
    borders: Borders,
    scores: Mapping[str, Scores],
    *,
    rivals: Mapping[str, Forecaster] | None = None,
    part: str = "test",
    title: str = "",
    command: str = "",
    simulated: bool | None = None,
    notes: Sequence[str] = (),
    more: Sequence[Section] = (),
) -> Written:
    """Everything about a fitted forecaster on one page: how good, against what, where it fails, and why it works.

    Args:
        path: of the HTML file.
        forecaster: fitted on the training part of the series.
        series: the whole series, test part and all.
        borders: of train, validation and test.
        scores: by name; the forecaster's own first, floors and rivals after it. Their seeds and seconds are printed as
            they stand, so a fair table has the seconds of training in all of them or in none.
        rivals: other fitted forecasters, whose forecasts are drawn beside it, by the names their scores have.
        part: that the scores are of: "test", "validation" or "training".
        title: of the page.
        command: what was typed to make it.
        simulated: whether the data were made up; None takes the series of ``prismts.data.synthetic`` for simulated.
        notes: sentences that stand above the scores.
        more: sections on other matters, before the last one.
    """
    if not scores:
        raise SettingsError("A report needs the scores of the forecaster, but got none. Pass scores={name: Scores}.")
    name = next(iter(scores))
    series = _in_order(series, forecaster)
    forecasters = {name: forecaster, **(rivals or {})}
    scores = {each: _with_seed(score, forecasters.get(each)) for each, score in scores.items()}
    simulated = series.name in synthetic.__all__ if simulated is None else simulated
    sections = [
        Section("", [*(Note(text) for text in notes), *_summary(name, forecaster, scores, simulated, part)]),
        Section("Scores", _scores(scores)),
        Section("Forecast", [_continuation(name, forecaster, series)]),
        Section("Test windows", _test_windows(forecasters, series, borders)),
        Section("Errors", _errors(scores, part)),
        Section("Inside the model", _inside(forecaster, series, borders)),
        Section("Training", _training(forecaster)),
        Section("Data", _data(series, borders, forecaster, simulated)),
        *more,
        Section("How this was made", _made(forecaster, command)),
    ]
    shown = [section for section in sections if section.blocks]
    subtitle = f"{forecaster.horizon} steps ahead, read from {forecaster.context_length} steps of past"
    return write_report(path, title or f"{name} on {series.name}", shown, subtitle=subtitle)


def forecast_page(
    path: str | Path,
    forecaster: Forecaster,
    data: Any,
    *,
    title: str = "",
    command: str = "",
    simulated: bool | None = None,
) -> Written:
    """What a fitted forecaster says will come after the end of the data: any of the forms that ``predict`` takes.

    Of many series the first 12 are drawn, and the page says so.
    """
    whole, _ = forecaster._read_new(data)  # pyright: ignore[reportPrivateUsage], as predict reads it
    cases = [whole[i] for i in range(min(len(whole), _MOST_SERIES))]
    simulated = whole.name in synthetic.__all__ if simulated is None else simulated
    blocks: list[Block] = [Note(_SIMULATED, "alarm")] if simulated else []
    if len(whole) > len(cases):
        blocks.append(Note(f"Drawn are the first {len(cases)} of {len(whole):,} series.", "note"))
    figures = {case.name: _forecast_drawn(forecaster.model, forecaster, _in_order(case, forecaster)) for case in cases}
    caption = f"{_bands(forecaster)}The last {3 * forecaster.horizon} steps that are known come first."
    blocks.append(Drawing(with_menu(figures, "Series"), caption))
    facts = Facts([("model", forecaster.model), ("steps ahead", str(forecaster.horizon)), *_findings_told(whole)])
    sections = [Section("", blocks), Section("The data", [facts, *_findings(whole)])]
    if command:
        sections.append(Section("How this was made", [Code(command)]))
    return write_report(path, title or f"Forecast of {whole.name}", sections, subtitle=_subtitle(cases[0], forecaster))


# ---- sections


def _summary(
    name: str, forecaster: Forecaster, scores: Mapping[str, Scores], simulated: bool, part: str = "test"
) -> list[Block]:
    own = scores[name]
    blocks: list[Block] = [Note(_SIMULATED, "alarm")] if simulated else []
    told = [flags.different_windows(scores), flags.behind_a_floor(scores)]
    blocks += [Note(text) for text in told if text]
    others = {other: score["mse"] for other, score in scores.items() if other != name and "mse" in score}
    facts = [(_title(key), _number(key, own[key])) for key in ("mse", "mae") if key in own]
    if others and "mse" in own:
        best = min(others, key=lambda other: others[other])
        change = own["mse"] / others[best] - 1
        facts.append((f"MSE against {best}", f"{change:+.1%}".replace("-", "−")))
    facts += [(f"{part} windows", f"{own.n_scored:,}"), ("protocol", own.protocol or "not told")]
    blocks.append(Facts(facts, large=True))
    return blocks


def _scores(scores: Mapping[str, Scores]) -> list[Block]:
    keys = list(dict.fromkeys(key for score in scores.values() for key in score if key != "pinball"))  # half the CRPS
    best = {
        key: min((score[key] for score in scores.values() if np.isfinite(score.get(key, np.nan))), default=None)
        for key in keys if key not in _NOT_RANKED
    }  # fmt: skip
    rows, strong = [], set[tuple[int, int]]()
    for r, (name, score) in enumerate(scores.items()):
        strong |= {(r, c) for c, key in enumerate(keys, start=1) if key in score and score[key] == best.get(key)}
        numbers = [_number(key, score.get(key, np.nan)) for key in keys]
        seed = "" if score.seed is None else str(score.seed)
        rows.append([name, *numbers, f"{score.n_scored:,}", score.protocol, seed, f"{score.seconds:,.1f}"])
    columns = ["model", *(_title(key) for key in keys), "windows", "protocol", "seed", "seconds"]
    protocols = dict.fromkeys(score.protocol for score in scores.values() if score.protocol in PROTOCOLS)
    told = " ".join(f"Protocol {protocol}: {PROTOCOLS[protocol]}." for protocol in protocols)
    caption = f"MSE and MAE on values standardized by the training part; the best of each column stands out. {told}"
    return [Table(columns, rows, caption, frozenset(strong), lead=True)]


def _continuation(name: str, forecaster: Forecaster, series: Series) -> Drawing:
    return Drawing(
        _forecast_drawn(name, forecaster, series),
        f"{_bands(forecaster)}The {forecaster.horizon} steps after the last row of the data, in their own units; the "
        f"last {3 * forecaster.horizon} known steps come first.",
        "Beyond the end of the data",
    )


def _test_windows(forecasters: Mapping[str, Forecaster], series: Series, borders: Borders) -> list[Block]:
    begin, end = borders.test
    first = next(iter(forecasters.values()))
    n_windows = end - begin - first.horizon + 1
    if n_windows < 1:
        return []
    stride = max(1, -(-n_windows // max(24, min(_WINDOWS_LOOKED_AT, 20_000 // series.n_channels))))
    results = {
        name: each.backtest(series, begin=begin, end=end, stride=stride, keep_forecasts=True)
        for name, each in forecasters.items()
    }
    lead = next(iter(results.values()))
    assert lead.origins is not None
    forecasts = {
        # quantiles of the first alone are drawn as bands; of a rival with quantiles, the median
        name: _point(result.forecasts, each.quantiles) if each is not first else result.forecasts
        for (name, result), each in zip(results.items(), forecasters.values(), strict=True)
    }
    figure = backtest_figure(
        series, lead.origins, forecasts, n_context=min(first.context_length, 2 * first.horizon),  # type: ignore[arg-type]
        quantiles=first.quantiles,
    )  # fmt: skip
    caption = (
        f"The best, the median and the worst of {len(lead.origins)} test windows, {_every(stride)} of {n_windows:,}, "
        f"by the squared error of {next(iter(forecasters))} over all channels, each relative to its variance. The "
        f"dotted line is where the forecast begins.{' ' + _bands(first) if first.quantiles else ''}"
    )
    return [Drawing(figure, caption, "What was forecast, and what came")]


def _errors(scores: Mapping[str, Scores], part: str = "test") -> list[Block]:
    blocks: list[Block] = []
    by_step = {name: score for name, score in scores.items() if "mse" in score.per_step}
    if by_step:
        caption = f"Mean squared error at each step of the horizon, over all {part} windows and channels."
        blocks.append(Drawing(error_by_step_figure(by_step), caption, "Along the horizon"))
    by_channel = {name: score for name, score in scores.items() if "mse" in score.per_channel}
    if by_channel:
        caption = "Mean squared error of each channel, on values standardized by its own training part."
        blocks.append(Drawing(error_by_channel_figure(by_channel), caption, "Channel by channel"))
    return blocks


def _inside(forecaster: Forecaster, series: Series, borders: Borders) -> list[Block]:
    model: Any = forecaster.members_[0]
    blocks: list[Block] = [Note(told) for told in signs_of_failure(*forecaster.members_).values()]
    if forecaster.network_share_ is not None:
        blocks.append(
            Text(
                f"Beside the network runs a straight line ({forecaster.line_}). Of what the network adds to it, "
                f"{forecaster.network_share_:.0%} was kept: the share that lowers the validation error most, less its "
                "standard error over six stretches of validation."
            )
        )
    if hasattr(model, "bounds") and borders.test_end - borders.validation_end >= forecaster.horizon:
        blocks += _patches(forecaster, series, borders)
    if hasattr(model, "residual_weights"):
        weights = model.residual_weights()
        if not getattr(model.config, "skip", True):
            blocks.append(Text("The blocks of this model have no residual: each takes the place of what it read."))
        elif getattr(model.config, "residual", None) is None:
            blocks.append(Text("The residual weights of this model are fixed at 1, not learned."))
        else:
            caption = (
                "The weight alpha with which each branch is added to what it read. Training starts at "
                f"{model.config.residual:g}: the further from zero, the more a block contributes."
            )
            blocks.append(Drawing(residual_weights_figure(weights), caption, "Residual weights"))
    return blocks or [Text(f"{forecaster.model} has neither patches nor residual blocks to look into.")]


def _patches(forecaster: Forecaster, series: Series, borders: Borders) -> list[Block]:
    """Patch bounds over a few test windows, of the channels in which they moved most."""
    model: Any = forecaster.members_[0]
    config = model.config
    if config.patches != "deformable":
        return [Text(f"The patches of this model are {config.patches}: they lie where they lie, nothing was learned.")]
    windows = forecaster.scaled_windows_(Collection.of(series), begin=borders.test[0], end=borders.test[1])
    picks = np.unique(np.linspace(0, len(windows) - 1, 32).round().astype(np.int64))
    batch = windows.batch(picks, slice(0, None if model.n_channels else 64))
    place = next(model.parameters()).device
    with torch.inference_mode():
        n = model.context_length  # the steps that become tokens; a line beside them may read more
        observed = None if batch.context_observed is None else batch.context_observed[..., -n:].to(place)
        bounds = model.bounds(batch.context[..., -n:].to(place), observed)
        left, right = (bound.cpu().numpy() for bound in bounds)  # [W, G, N]
    center = np.arange(left.shape[-1]) * config.stride + (config.patch_length - 1) / 2
    shift, widened = (left + right) / 2 - center, (right - left) - (config.patch_length - 1)
    moved = np.maximum(np.abs(shift), np.abs(widened)).mean((0, 2))  # [G]
    groups = np.sort(np.argsort(-moved, kind="stable")[:_PATCH_CHANNELS])
    figures: dict[str, Figure] = {}
    origins = windows.locate(picks)[1]
    for w in np.unique(np.linspace(0, len(picks) - 1, _PATCH_WINDOWS).round().astype(int)):
        origin = int(origins[w])
        past = series.part(origin - n, origin)
        when = f"step {origin:,}" if past.timestamps is None else f"{pd.Timestamp(past.timestamps[-1]):%Y-%m-%d %H:%M}"
        for g in groups:
            what = "all channels, cut together; drawn is " if model.n_groups_of == "window" else ""
            figures[f"{series.channels[g]}, up to {when}"] = patch_bounds_figure(
                past.values[g], left[w, g], right[w, g], patch_length=config.patch_length, stride=config.stride,
                title=what + series.channels[g],
            )  # fmt: skip
    flag = flags.patches_stayed(shift, widened)
    told = (
        f"Over {len(picks)} test windows, patches of {config.patch_length} steps moved by {np.abs(shift).mean():.2g} "
        f"steps and were widened or narrowed by {np.abs(widened).mean():.2g} on average, by at most "
        f"{np.abs(shift).max():.2g} and {np.abs(widened).max():.2g}."
    )
    caption = (
        "Gray bars are the uniform patches that training began with, blue ones the patches as the model cuts this "
        "window. Behind the dotted line the window is padded."
    )
    if len(groups) < left.shape[1]:
        caption += f" The menu has the {len(groups)} channels in which patches moved most."
    drawing = Drawing(with_menu(figures, "Window"), caption, "Patches")
    return [Text(told), *([Note(flag)] if flag else []), drawing]


def _training(forecaster: Forecaster) -> list[Block]:
    result = forecaster.fit_result_
    if not result.history:
        return []
    told = [flags.never_improved(result.history), flags.hardly_trained(result.history)]
    caption = (
        f"Loss after each epoch; the weights of epoch {result.best_epoch} were kept (loss {result.best_loss:.4f}). The "
        "two are of different stretches of time, so one may lie below the other throughout."
    )
    drawing = Drawing(training_figure(result.history, result.best_epoch), caption)
    return [*(Note(text) for text in told if text), drawing]


def _data(series: Series, borders: Borders, forecaster: Forecaster, simulated: bool) -> list[Block]:
    facts = [("name", series.name + (" (simulated)" if simulated else "")), *_findings_told(series)]
    for part in ("train", "validation", "test"):
        begin, end = getattr(borders, part)
        facts.append((part, _span(series, begin, min(end, len(series)))))
    of = " of all series" if len(forecaster.series_names_) > 1 else ""
    facts += [(f"{part} windows{of}", f"{count:,}") for part, count in forecaster.n_windows_.items()]
    facts.append(("data hash", data_hash(series)))
    blocks: list[Block] = [Note(_SIMULATED, "alarm")] if simulated else []
    return [*blocks, Facts(facts), *_findings(series)]


def _made(forecaster: Forecaster, command: str) -> list[Block]:
    model: Any = forecaster.members_[0]
    result = forecaster.fit_result_
    facts = [
        ("parameters", f"{sum(p.numel() for p in forecaster.model_.parameters()):,}"),
        ("seed", str(forecaster.random_state)),
        ("seconds of training", f"{result.seconds:,.1f}"),
        ("python", platform.python_version()),
    ]
    facts += [(package, version(package)) for package in ("prismts", "torch", "lightning", "numpy", "plotly")]
    config = getattr(model, "config", None)
    arguments = forecaster.get_params(deep=False)
    settings = {
        "forecaster": {name: arguments[name] for name in arguments if name not in ("run_folder", "progress")},
        "model": asdict(config) if config is not None else {},
        "training": asdict(_training_settings(forecaster)) if result.history else {},
    }
    text = json.dumps({part: value for part, value in settings.items() if value}, indent=2, default=str)
    return [*([Code(command)] if command else []), Facts(facts), Code(text)]


# ---- parts of sections


def _forecast_drawn(name: str, forecaster: Forecaster, series: Series) -> Figure:
    return forecast_figure(series, {name: _predicted(forecaster, series)}, quantiles=forecaster.quantiles)


def _predicted(forecaster: Forecaster, series: Series) -> NDArray[np.floating]:
    """The continuation of a series: [C, H], or [Q, C, H]."""
    table = forecaster.predict(series)
    if forecaster.quantiles is None:
        return np.stack([table[channel].to_numpy() for channel in forecaster.channels_])
    return np.stack([
        [table[f"{channel}_q{float(level):g}"].to_numpy() for channel in forecaster.channels_]
        for level in forecaster.quantiles
    ])  # fmt: skip


def _point(forecasts: NDArray[np.floating] | None, quantiles: Sequence[float] | None) -> NDArray[np.floating]:
    assert forecasts is not None
    if quantiles is None:
        return forecasts
    return forecasts[:, int(np.argmin([abs(level - 0.5) for level in quantiles]))]


def _in_order(series: Series, forecaster: Forecaster) -> Series:
    """The series with its channels in the order, and by the names, of training, as ``predict`` puts them."""
    wanted = forecaster.channels_
    if series.channels == wanted:
        return series
    if not set(wanted) <= set(series.channels):
        # unnamed channels go by number; anything else is refused by predict, in better words than here
        return replace(series, channels=wanted) if series.n_channels == len(wanted) else series
    return replace(series, values=series.values[[series.channels.index(name) for name in wanted]], channels=wanted)


def _with_seed(scores: Scores, forecaster: Forecaster | None) -> Scores:
    """Scores that know their seed, where the forecaster that made them does."""
    return scores if forecaster is None or scores.seed is not None else replace(scores, seed=forecaster.random_state)


def _training_settings(forecaster: Forecaster) -> FitConfig:
    return forecaster._recipe_.fit  # pyright: ignore[reportPrivateUsage]


def _findings_told(data: Series | Collection) -> list[tuple[str, str]]:
    """Facts about the data that are known without a model."""
    total = data.values.size
    missing = sum(int(np.isnan(channel).sum()) for channel in data.values)
    facts = [("channels", f"{data.n_channels:,}")]
    n_series, n_rows = (len(data), int(data.lengths.sum())) if isinstance(data, Collection) else (1, len(data))
    facts += [("series", f"{n_series:,}")] if n_series > 1 else []
    facts.append(("rows", f"{n_rows:,}"))
    facts.append(("frequency", data.frequency or "not known"))
    if data.timestamps is not None:
        first, last = pd.Timestamp(data.timestamps.min()), pd.Timestamp(data.timestamps.max())
        facts.append(("time", f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}"))
    facts.append(("not observed", f"{missing / max(total, 1):.2%} ({missing:,} values)" if missing else "none"))
    return facts


def _findings(data: Series | Collection) -> list[Block]:
    return [Note(str(finding), "note") for finding in data.findings]


def _span(series: Series, begin: int, end: int) -> str:
    if end <= begin:
        return "none"
    steps = f"{end - begin:,} steps"
    if series.timestamps is None:
        return f"{steps}, from step {begin:,} up to {end - 1:,}"
    first, last = pd.Timestamp(series.timestamps[begin]), pd.Timestamp(series.timestamps[end - 1])
    return f"{steps}, {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}"


def _subtitle(series: Series, forecaster: Forecaster) -> str:
    future = series.future_timestamps(forecaster.horizon)
    if series.timestamps is None:
        return f"{forecaster.horizon} steps after step {len(series) - 1:,}"
    first, last = pd.Timestamp(future[0]), pd.Timestamp(future[-1])
    return f"{forecaster.horizon} steps, {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}"


def _bands(forecaster: Forecaster) -> str:
    if forecaster.quantiles is None or len(forecaster.quantiles) < 2:
        return ""
    low, high = float(forecaster.quantiles[0]), float(forecaster.quantiles[-1])
    return f"The widest band lies between the quantiles {low:g} and {high:g}. "


def _every(stride: int) -> str:
    return "all" if stride == 1 else f"one in {stride}"


def _title(key: str) -> str:
    return _TITLES.get(key, key)


def _number(key: str, value: float) -> str:
    if not np.isfinite(value):
        return "–"
    if key in _DECIMALS:
        return f"{value:.{_DECIMALS[key]}f}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:#.4g}"
