"""What a study of the cross learner runs: a YAML file as a frozen value, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from prismts.benchmark.lines import read_lined
from prismts.data.catalog import dataset
from prismts.errors import SettingsError, unknown_name
from prismts.models import MODELS, make_settings
from prismts.training.fit import FitConfig

__all__ = ["ARRANGEMENTS", "Arrangement", "Cell", "Grid", "StudySpec", "read_spec"]


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """One way to build a forecaster, under a name."""

    model: str = "cross_learner"
    settings: Mapping[str, Any] = field(default_factory=dict)  # beside those of the study
    context_length: int | None = None  # steps; None takes the study's
    fit: Mapping[str, Any] = field(default_factory=dict)  # beside those of the study
    stride: int | None = None  # of windows to learn from; None takes the study's


ARRANGEMENTS: dict[str, Arrangement] = {
    "both": Arrangement(),
    "gru_to_cnn": Arrangement(settings={"exchange": "gru_to_cnn"}),
    "cnn_to_gru": Arrangement(settings={"exchange": "cnn_to_gru"}),
    "none": Arrangement(settings={"exchange": "none"}),
    "late": Arrangement(settings={"fusion": "late"}),  # exchange after the last block only
    "no_fusion": Arrangement(settings={"fusion": "none", "exchange": "none"}),  # the mean of the two paths
    "static": Arrangement(settings={"kernels": "static"}),
    "ema": Arrangement(settings={"kernels": "ema"}),
    "standard": Arrangement(settings={"kernels": "standard"}),
    "per_token": Arrangement(settings={"kernel_per": "token"}),
    "lift": Arrangement(settings={"front": "lift"}),  # no mixing convolution: every step is a token
    "convtimenet": Arrangement(model="convtimenet"),
    "dlinear": Arrangement(model="dlinear"),
    "ridge": Arrangement(model="ridge"),
    "seasonal_naive": Arrangement(model="seasonal_naive"),  # its season is the day of the series
    "last_value": Arrangement(model="last_value"),
}


@dataclass(frozen=True)
class Cell:
    """One run: what, on what, how far ahead, and by which seed."""

    data: str
    horizon: int  # steps
    arrangement: str
    seed: int

    def __str__(self) -> str:
        return f"{self.data}-{self.horizon}-{self.arrangement}-{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Every combination of the four; a study runs its grids one after the other."""

    arrangements: tuple[str, ...]
    data: tuple[str, ...]
    horizons: tuple[int, ...]
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        for one in fields(self):
            values = getattr(self, one.name)
            if not isinstance(values, list | tuple) or not values:
                raise SettingsError(f"A grid names its {one.name} in a list such as [a, b], but got {values!r}.")
            object.__setattr__(self, one.name, tuple(cast(Sequence[Any], values)))
        for name, least in (("horizons", 1), ("seeds", 0)):
            for value in getattr(self, name):
                if not isinstance(value, int) or isinstance(value, bool) or value < least:
                    raise SettingsError(f"The {name} of a grid are whole numbers from {least}, but one is {value!r}.")

    def cells(self) -> list[Cell]:
        """Seed by seed, so that a run that is broken off has measured everything equally often."""
        return [
            Cell(data, horizon, arrangement, seed)
            for seed in self.seeds for horizon in self.horizons for data in self.data
            for arrangement in self.arrangements
        ]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class StudySpec:
    """All that decides the numbers of a study; :func:`read_spec` reads it from YAML."""

    context_length: int = 336  # steps
    grids: tuple[Grid, ...] = ()
    model: Mapping[str, Any] = field(default_factory=dict)  # settings of the cross learner
    fit: Mapping[str, Any] = field(default_factory=dict)  # how everything is trained, as in FitConfig
    strides: Mapping[str, Any] = field(default_factory=dict)  # by data set: steps between windows of train, validation
    also: Mapping[str, Arrangement] = field(default_factory=dict)  # further arrangements by name
    n_trace: int = 360  # test windows, evenly spread, whose states are looked at

    def __post_init__(self) -> None:
        if self.context_length < 1 or self.n_trace < 2:
            raise SettingsError(
                f"context_length is at least 1 and n_trace at least 2, but got {self.context_length}, {self.n_trace}."
            )
        if not self.grids:
            raise SettingsError(
                "A study needs grids of what to run, such as grids: [{arrangements: [both, none], data: [ETTh2], "
                "horizons: [96], seeds: [0, 1, 2]}]."
            )
        for name in self.also:
            if name in ARRANGEMENTS:
                raise SettingsError(f"{name!r} is an arrangement of its own. Give the one under `also` another name.")
        names = {**ARRANGEMENTS, **self.also}
        for name, stride in self.strides.items():
            if not isinstance(stride, int) or stride < 1:
                raise SettingsError(f"strides are whole numbers from 1, but that of {name} is {stride!r}.")
        for grid in self.grids:
            for name in grid.arrangements:
                if name not in names:
                    raise unknown_name("arrangement", name, names)
        for name in dict.fromkeys(name for grid in self.grids for name in grid.arrangements):
            one = self.arrangement(name)
            if one.model not in MODELS:
                raise unknown_name("model", one.model, MODELS)
            make_settings(MODELS[one.model].config, self.settings_of(name))
            FitConfig().changed(self.fit_of(name))

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell once, in the order in which they run."""
        return tuple(dict.fromkeys(cell for grid in self.grids for cell in grid.cells()))

    def arrangement(self, name: str) -> Arrangement:
        """The arrangement of this name."""
        return self.also[name] if name in self.also else ARRANGEMENTS[name]

    def settings_of(self, name: str) -> dict[str, Any]:
        """The settings of its model."""
        one = self.arrangement(name)
        return {**(self.model if one.model == "cross_learner" else {}), **one.settings}

    def fit_of(self, name: str) -> dict[str, Any]:
        """How it is trained."""
        return {**self.fit, **self.arrangement(name).fit}

    def made_with(self, cell: Cell) -> dict[str, Any]:
        """What besides its name decides the numbers of a cell: written into it, and compared when a study resumes."""
        one = self.arrangement(cell.arrangement)
        return {
            "model": one.model, "settings": self.settings_of(cell.arrangement),
            "context_length": one.context_length or self.context_length, "fit": self.fit_of(cell.arrangement),
            "stride": one.stride or self.strides.get(cell.data, 1), "n_trace": self.n_trace,
        }  # fmt: skip


def read_spec(path: str | Path) -> StudySpec:
    """The study that a YAML file describes; whatever in it cannot work is an error that names it."""
    known = _known(read_lined(path, "of a study").content, StudySpec, str(path))
    known["grids"] = tuple(Grid(**_complete(one, Grid)) for one in _listed(known.get("grids"), "grids"))
    also = known.get("also") or {}
    known["also"] = {str(name): Arrangement(**_known(one or {}, Arrangement, f"also: {name}"))
                     for name, one in _known_mapping(also, "also").items()}  # fmt: skip
    for name in ("model", "fit", "strides"):
        known[name] = _known_mapping(known.get(name) or {}, name)
    for name in ("context_length", "n_trace"):
        if name in known and (not isinstance(known[name], int) or isinstance(known[name], bool)):
            raise SettingsError(f"{name} is a whole number, but got {known[name]!r}.")
    for name in dict.fromkeys(name for grid in known["grids"] for name in grid.data):
        dataset(str(name))  # an unknown name is an error that offers the nearest one
    return StudySpec(**known)


def _known(content: Any, kind: type, where: str) -> dict[str, Any]:
    """A mapping whose keys are all fields of a dataclass."""
    names = [one.name for one in fields(kind)]
    mapping = _known_mapping(content, where)
    for name in mapping:
        if name not in names:
            raise unknown_name(f"entry of {where}", name, names)
    return mapping


def _complete(content: Any, kind: type) -> dict[str, Any]:
    """The same, with none left out."""
    mapping = _known(content, kind, "a grid")
    missing = [one.name for one in fields(kind) if one.name not in mapping]
    if missing:
        raise SettingsError(f"A grid lacks {', '.join(missing)}; it has {', '.join(mapping) or 'nothing'}.")
    return mapping


def _known_mapping(content: Any, where: str) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        raise SettingsError(f"{where} holds names and values (name: value), but got {type(content).__name__}.")
    return {str(name): value for name, value in cast(Mapping[Any, Any], content).items()}


def _listed(content: Any, where: str) -> list[Any]:
    if content is None:
        return []
    if not isinstance(content, list):
        raise SettingsError(f"{where} is a list, each entry after a dash, but got {type(content).__name__}.")
    return cast(list[Any], content)
