"""Whether data, horizons, contexts and networks of a specification have room for each other, without training any."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

import numpy as np
import torch

from prismts.benchmark.build import build
from prismts.benchmark.data import Extent, extent_of
from prismts.benchmark.entries import Cell, Spec
from prismts.benchmark.known import architecture_of
from prismts.benchmark.lines import Lined
from prismts.data.series import Collection, Series
from prismts.data.splits import Borders
from prismts.errors import PrismError, SettingsError
from prismts.estimators.case_recipes import find_case_recipe, patched
from prismts.estimators.forecaster import SHORTEST_CONTEXT
from prismts.models.language_backbone import BackboneConfig
from prismts.tasks.classify import Classify

__all__ = ["check_room", "notes"]


def check_room(spec: Spec, read: Lined) -> None:
    """Refuse data that cannot be read, horizons that no part has room for, and networks that no window has room for.

    Floors that the file does not name are left to their cells: a season may be longer than a context.

    Raises:
        SettingsError: with the line, and what is possible.
    """
    extents = {one.name: _extent(spec, number, read) for number, one in enumerate(spec.data)}
    cells = spec.cells
    for cell in cells:
        _check_horizon(spec, cell, extents[cell.data], read)
    named = {one.name for one in spec.models}
    seen: set[str] = set()
    for cell in cells:
        made = spec.made_with(cell)
        extent = extents[cell.data]
        what = [made[name] for name in ("model", "setting", "model_settings", "n_members", "arguments")]
        mark = json.dumps([*what, cell.context_length, extent.n_channels, extent.frequency,
                           None if spec.task == "forecast" else extent.n_timepoints])  # fmt: skip
        if cell.model in named and mark not in seen:
            seen.add(mark)
            _check_network(spec, cell, extent, read)


def notes(spec: Spec) -> list[str]:
    """What runs, but may not be meant, in sentences: contexts that no training window has."""
    found: dict[tuple[str, int | None], str] = {}
    for cell in spec.cells:
        borders = extent_of(spec, cell.data).borders
        if cell.horizon is None or cell.context_length is None or borders is None:
            continue
        n_train = _train_end(borders, cell.train_share)
        if cell.context_length + cell.horizon > n_train:
            found[cell.data, cell.context_length] = (
                f"no training window of {cell.data} has a context of {cell.context_length} steps, as its training part "
                f"has {n_train}: what lies before its beginning counts as unobserved"
            )
    return list(found.values())


def _extent(spec: Spec, number: int, read: Lined) -> Extent:
    one = spec.data[number]
    try:
        return extent_of(spec, one.name)
    except PrismError as error:
        told = _as_entries(str(error))
        named = {"time": [one.time], "values": one.values or [], "frequency": [one.frequency]}
        field = [name for name, values in named.items() if any(repr(value) in told for value in values if value)]
        raise SettingsError(f"{read.at(('data', number, *field[:1]))}: {one.name}: {told}") from error


def _as_entries(told: str) -> str:
    """An error of the reader, whose arguments are entries here; a data set of a benchmark is one series."""
    told = re.sub(
        r"say series=('.*?') if it tells several series apart",
        r"write each series that \1 tells apart into a file of its own: a data set of a benchmark is one series", told,
    )  # fmt: skip
    return re.sub(r"\b(time|values|frequency)=", r"\1: ", told)


def _train_end(borders: Borders, train_share: float) -> int:
    """Steps that such a share of the training part has."""
    return borders.train_end - round((1 - train_share) * borders.train_end)


def _check_horizon(spec: Spec, cell: Cell, extent: Extent, read: Lined) -> None:
    """Every window's future lies in one part as a whole; that of training has a past besides."""
    if cell.horizon is None or cell.context_length is None or extent.borders is None:
        return
    borders = extent.borders
    part = {name: end - begin for name, (begin, end) in (("validation", borders.validation), ("test", borders.test))}
    part["training"] = _train_end(borders, cell.train_share) - min(SHORTEST_CONTEXT, cell.context_length)
    if not part["validation"]:  # which a series may lack
        part.pop("validation")
    least = min(part, key=lambda name: part[name])
    if cell.horizon > part[least]:
        remedy = "Give more data." if part[least] < 1 else (
            f"Name horizons of at most {part[least]}, for this set alone as {{name: {cell.data}, horizons: "
            f"[{part[least]}]}}."
        )  # fmt: skip
        raise SettingsError(
            f"{read.at(spec.place(cell, 'horizon'))}: {cell.data} has no room for horizon {cell.horizon}: a forecast "
            f"lies in one part as a whole, and its {least} part has room for {max(0, part[least])} steps. {remedy}"
        )


def _check_network(spec: Spec, cell: Cell, extent: Extent, read: Lined) -> None:
    """Build the network of a cell, without values and so in no time; one that looks at values is left to its cell."""
    one = spec.entry(cell.model)
    architecture = architecture_of(one.model)
    if architecture is None or issubclass(architecture.config, BackboneConfig):  # which may have to be downloaded
        return
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), contextlib.suppress(RuntimeError):
            _networks(spec, cell, extent, build(spec, cell))
    except PrismError as error:
        place = spec.place(cell, "model")
        for deeper in (("for_data", cell.data, "model_settings"), ("model_settings",), ("setting",)):
            if (*place, *deeper) in read.lines:
                place = (*place, *deeper)
                break
        of = "" if cell.context_length is None else f" at context {cell.context_length}"
        raise SettingsError(f"{read.at(place)}: {cell.model} on {cell.data}{of}: {error}") from error


def _networks(spec: Spec, cell: Cell, extent: Extent, one: Any) -> None:
    if spec.task == "forecast":
        assert extent.borders is not None
        empty = Series(np.zeros((extent.n_channels, extent.n_timepoints), np.float32), frequency=extent.frequency)
        one.untrained_(Collection.of(empty), np.array([extent.borders.train_end]))
    elif spec.task == "classify" and one.model != "auto":
        recipe = find_case_recipe(one.setting, one.model_settings, one.fit_settings)
        settings = one.model_settings or {}
        if one.model == "convtimenet":
            settings = patched(recipe.model, extent.n_timepoints)
        Classify(2, pooling=recipe.pooling).build(
            one.model, settings, n_channels=extent.n_channels, context_length=extent.n_timepoints
        )
