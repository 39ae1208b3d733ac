"""What stands in the file of a benchmark, as frozen values, and the cells that follow from them."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from prismts.benchmark.known import FLOORS, Task, architecture_of, fields_of
from prismts.errors import DataError

__all__ = ["Cell", "Change", "DataEntry", "ModelEntry", "Spec"]

Count = Annotated[int, Field(ge=1)]
Number = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # as random_state
Share = Annotated[float, Field(gt=0, le=1)]
Some = Field(default=None, min_length=1)  # a list of at least one, or left out

DEFAULT_CONTEXT = 336  # steps, of forecasting: the context most papers share


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Change(_Entry):
    """How an estimator is built; what is left out stays as it is."""

    setting: str | None = None  # a named recipe of the estimator
    model_settings: Mapping[str, Any] = Field(default_factory=dict)
    fit_settings: Mapping[str, Any] = Field(default_factory=dict)
    n_members: Count | None = None
    arguments: Mapping[str, Any] = Field(default_factory=dict)  # further arguments of the estimator, such as loss


class ModelEntry(Change):
    """One configuration under a name; several may be of the same model."""

    name: str
    model: str = ""  # of the task's models; the name itself, if left out
    for_data: Mapping[str, Change] = Field(default_factory=dict)  # what differs on single data sets
    data: Sequence[str] | None = Some  # the sets it is run on; None: all
    horizons: Sequence[Count] | None = Some  # of those of the data; None: all
    context_lengths: Sequence[Count] | None = Some  # in place of those of the data
    train_shares: Sequence[Share] | None = Some  # in place of those of the file
    seeds: Sequence[Seed] | None = Some  # in place of those of the file

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if isinstance(value, dict) and "model" not in value and "name" in value:
            return {**cast(dict[str, Any], value), "model": value["name"]}
        return cast(Any, value)


class DataEntry(_Entry):
    """One data set: a name of the catalog, or a file of one's own under a name."""

    name: str
    file: str | None = None  # a table or .npz (forecast, detect), or a .ts file of training cases (classify)
    test_file: str | None = None  # the .ts file of test cases
    time: str | None = None
    values: Sequence[str] | None = None
    frequency: str | None = None
    horizons: Sequence[Count] | None = Some  # in place of those of the file
    context_lengths: Sequence[Count] | None = Some
    without: Sequence[str] = ()  # where the name is that of a collection: its series that are left out
    in_mean: bool = True  # whether means and ranks over data sets count it; a set that cannot rank models should not


@dataclass(frozen=True)
class Cell:
    """One run: which configuration, on what, by which seed, scored how."""

    data: str
    model: str  # the name of the configuration
    seed: int
    protocol: str
    context_length: int | None = None  # steps; None where the estimator chooses
    horizon: int | None = None  # steps, of forecasting
    resample: int = 0  # of cases; 0 is the archive's split
    train_share: float = 1.0  # the last part of the training data, or so many of the training cases

    @property
    def name(self) -> str:
        """What its file is called, and what ``--only`` looks into."""
        parts = [self.data.replace("/", "_"), self.model]
        parts += [] if self.context_length is None else [f"c{self.context_length}"]
        parts += [] if self.horizon is None else [f"h{self.horizon}"]
        parts += [] if self.train_share == 1 else [f"t{self.train_share * 100:g}"]
        parts += [] if self.resample == 0 else [f"r{self.resample}"]
        return "-".join([*parts, f"s{self.seed}", self.protocol])

    def __str__(self) -> str:
        return self.name

    @property
    def training(self) -> Cell:
        """The same for all protocols that score one training."""
        return dataclasses.replace(self, protocol="")


class Spec(_Entry):
    """All that decides the numbers of a benchmark."""

    title: str = ""
    task: Task
    data: Sequence[DataEntry] = Field(min_length=1)
    models: Sequence[ModelEntry] = Field(min_length=1)
    horizons: Sequence[Count] = ()
    context_lengths: Sequence[Count] | None = Some
    seeds: Sequence[Seed] = Field(default=(0, 1, 2), min_length=1)
    protocols: Sequence[str] = Field(default=("honest",), min_length=1)
    resamples: Sequence[Number] = Field(default=(0,), min_length=1)  # of cases
    train_shares: Sequence[Share] = Field(default=(1.0,), min_length=1)
    fit_settings: Mapping[str, Any] = Field(default_factory=dict)  # of everything that is trained
    floors: Sequence[str] | None = None  # None: those of FLOORS; they need not be named among the models
    keep_predictions: bool = False
    published: Sequence[str] = ()  # files of published numbers, beside this one
    folder: str = ""  # the folder of the file, which `file` entries start from; set by read_spec

    @field_validator("data", "models", mode="before")
    @classmethod
    def _entries(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return [{"name": one} if isinstance(one, str) else one for one in cast(list[Any], value)]

    @property
    def floor_names(self) -> tuple[str, ...]:
        """Names of the configurations that are floors, in the order of a table."""
        return FLOORS[self.task] if self.floors is None else tuple(self.floors)

    @property
    def all_models(self) -> tuple[ModelEntry, ...]:
        """Those of the file, and the floors that it does not name itself."""
        named = {one.name for one in self.models}
        beside = [ModelEntry(name=name, model=name) for name in self.floor_names if name not in named]
        return (*self.models, *beside)

    def entry(self, name: str) -> ModelEntry:
        """The configuration of this name."""
        return next(one for one in self.all_models if one.name == name)

    def data_entry(self, name: str) -> DataEntry:
        """The data set of this name."""
        return next(one for one in self.data if one.name == name)

    def place(self, cell: Cell, axis: str) -> tuple[str | int, ...]:
        """Where in the file that stands which a cell has on an axis, such as ("data", 1, "horizons", 0)."""
        d = next(n for n, one in enumerate(self.data) if one.name == cell.data)
        if axis == "data":
            return ("data", d)
        m = next((n for n, one in enumerate(self.models) if one.name == cell.model), None)
        if axis == "model":
            return () if m is None else ("models", m)
        holders: list[tuple[tuple[str | int, ...], Any]] = [(("data", d), self.data[d]), ((), self)]
        if m is not None and axis != "horizon":  # a model picks horizons among those of the data
            holders.insert(0, (("models", m), self.models[m]))
        for place, holder in holders:
            if values := getattr(holder, f"{axis}s", None):
                return (*place, f"{axis}s", list(values).index(getattr(cell, axis)))
        return ()

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell once, in the order in which they run.

        Seed by seed, so that a run that is broken off has measured everything equally often. A configuration that
        draws nothing at random is run with its first seed alone.
        """
        resamples = list(self.resamples) if self.task == "classify" else [0]
        found: list[tuple[tuple[int, ...], Cell]] = []
        for place, one in enumerate(self.all_models):
            for d, data in enumerate(self.data):
                if one.data is not None and data.name not in one.data:
                    continue
                seeds = list(self.seeds if one.seeds is None else one.seeds)
                for s, seed in enumerate(seeds if self._draws(one, data.name) else seeds[:1]):
                    for r in resamples:
                        if r and s:  # resamples are draws of their own: one seed each
                            continue
                        for share in one.train_shares or self.train_shares:
                            for context in self._contexts(one, data):
                                for horizon in self._horizons(one, data):
                                    for p, protocol in enumerate(self.protocols):
                                        cell = Cell(data.name, one.name, seed, protocol, context, horizon, r, share)
                                        found.append(((s, r, d, horizon or 0, context or 0, place, p), cell))
        found.sort(key=lambda pair: pair[0])
        return tuple(dict.fromkeys(cell for _, cell in found))

    def made_with(self, cell: Cell) -> dict[str, Any]:
        """Everything besides its name that decides the numbers of a cell, as plain values.

        It is written into the cell, and compared when a benchmark is resumed.
        """
        one, data = self.entry(cell.model), self.data_entry(cell.data)
        changed = one.for_data.get(cell.data, Change())
        trained = self.is_trained(one.model)
        fit = {**(self.fit_settings if trained else {}), **one.fit_settings, **changed.fit_settings}
        return _plain({
            "task": self.task, "model": one.model, "setting": changed.setting or one.setting,
            "model_settings": {**one.model_settings, **changed.model_settings}, "fit_settings": fit,
            "n_members": changed.n_members or one.n_members, "arguments": {**one.arguments, **changed.arguments},
            "context_length": cell.context_length, "horizon": cell.horizon, "resample": cell.resample,
            "train_share": cell.train_share, "seed": cell.seed, "protocol": cell.protocol,
            "file": data.file, "test_file": data.test_file, "time": data.time, "values": data.values,
            "frequency": data.frequency,
        }) | self.digests(data)  # fmt: skip

    def digests(self, data: DataEntry) -> dict[str, str]:
        """Of the files of a data set; empty for the catalog, and where they are not at hand, as for a bare table."""
        files = {"file_digest": data.file, "test_file_digest": data.test_file}
        there = {name: Path(self.folder) / file for name, file in files.items() if file is not None and self.folder}
        return {name: _digest(file, file.stat().st_mtime_ns) for name, file in there.items() if file.exists()}

    def _contexts(self, one: ModelEntry, data: DataEntry) -> Sequence[int | None]:
        if self.task == "classify":
            return (None,)
        default: Sequence[int | None] = (DEFAULT_CONTEXT,) if self.task == "forecast" else (None,)
        return one.context_lengths or data.context_lengths or self.context_lengths or default

    def _horizons(self, one: ModelEntry, data: DataEntry) -> Sequence[int | None]:
        if self.task != "forecast":
            return (None,)
        return [h for h in data.horizons or self.horizons if one.horizons is None or h in one.horizons]

    def is_trained(self, model: str) -> bool:
        """Whether ``fit_settings`` mean anything to a model."""
        architecture = architecture_of(model)
        return architecture is not None and architecture.is_trained

    def _draws(self, one: ModelEntry, data: str) -> bool:
        """Whether seeds make a difference."""
        from prismts.estimators.detect_recipes import DETECT_SETTINGS
        from prismts.models.case_floors import CASE_FLOORS
        from prismts.models.detectors import DETECTORS

        if self.task == "classify" and one.model in CASE_FLOORS:
            return CASE_FLOORS[one.model].is_random
        if self.task == "detect":
            setting = one.for_data.get(data, Change()).setting or one.setting or "default"
            recipe = DETECT_SETTINGS[setting]
            names = [one.model] if one.model in DETECTORS else list(recipe.beside)
            seeded = [name for name in names if "random_state" in fields_of(type(DETECTORS[name].config))]
            return bool(seeded) or (one.model not in DETECTORS and recipe.networks)
        return self.is_trained(one.model)


def _plain(value: Any) -> Any:
    """Tuples and mappings as JSON gives them back."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in cast(Sequence[Any], value)]
    if value is not None and not isinstance(value, str | int | float | bool):
        raise DataError(f"A setting is text, a number, a truth value, or a list of such, but got {value!r}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"A setting is a finite number, but got {value}. Leave it out, or write null for none.")
    return value


@cache
def _digest(file: Path, changed: int) -> str:
    """Twelve hexadecimal digits of a file's bytes, read once for as long as it does not change."""
    with file.open("rb") as bytes_:
        return hashlib.file_digest(bytes_, "sha256").hexdigest()[:12]
