"""What a search runs: a YAML file as a frozen value, checked before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from prismts.benchmark.lines import read_lined
from prismts.benchmark.search_space import DEFAULT_SPACE, FILL, Dimension, check_space, dimension, follows_from
from prismts.data.catalog import dataset
from prismts.errors import SettingsError, unknown_name
from prismts.estimators.case_recipes import find_case_recipe
from prismts.estimators.recipes import find_recipe
from prismts.models import make_settings
from prismts.models.convtimenet import ConvTimeNetConfig
from prismts.ranges import expect_counts, expect_seed

__all__ = ["SCORES", "Budget", "SearchSpec", "read_search"]

SCORES: dict[str, dict[str, Literal["minimize", "maximize"]]] = {  # the first one of a task is its default
    "forecast": {"mse": "minimize", "mae": "minimize"},
    "classify": {
        "log_loss": "minimize", "accuracy": "maximize", "balanced_accuracy": "maximize", "f1_macro": "maximize",
    },
}  # fmt: skip
_FILE_ENDINGS = (".csv", ".csv.gz", ".parquet", ".npz", ".ts")
_FORECAST_ONLY = ("context_length", "horizon")
_CLASSIFY_ONLY = ("label", "test_data", "validation")
Prune = Literal["median", "none"]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The most that one window may cost; one of the two."""

    macs: float | None = None  # multiply-accumulates, without the line beside the network
    milliseconds: float | None = None  # on this machine, measured

    def __post_init__(self) -> None:
        given = [value for value in (self.macs, self.milliseconds) if value is not None]
        if len(given) != 1 or isinstance(given[0], bool | str) or not 0 < given[0] < math.inf:
            raise SettingsError(
                "A budget is one finite number above 0: {macs: 5.0e+6} or {milliseconds: 2.5}, but got "
                f"macs {self.macs!r}, milliseconds {self.milliseconds!r}."
            )

    @property
    def most(self) -> float:
        """The number, in the unit of the budget."""
        return float(self.macs if self.macs is not None else self.milliseconds or 0.0)

    @property
    def unit(self) -> str:
        """What is counted."""
        return "multiply-accumulates" if self.macs is not None else "milliseconds"


@dataclass(frozen=True, kw_only=True)
class SearchSpec:
    """All that decides what a search finds; :func:`read_search` reads it from YAML."""

    data: str  # a name of the catalog, or a file
    task: Literal["forecast", "classify"] = "forecast"
    name: str = ""  # of the study in its storage
    context_length: int = 336  # steps; forecasts only, as the horizon
    horizon: int = 96
    setting: str = "default"  # the recipe that the search starts from
    model: Mapping[str, Any] = field(default_factory=dict)  # settings of ConvTimeNet that stay fixed
    fit: Mapping[str, Any] = field(default_factory=dict)  # training settings that stay fixed
    space: Mapping[str, Dimension] = field(default_factory=dict)  # empty: DEFAULT_SPACE of the task
    budget: Budget | None = None
    score: str = ""  # on validation; the first of SCORES of the task if empty
    trials: int = 30
    prune: Prune = "median"
    warmup_epochs: int = 1  # of a trial before it may be pruned
    n_random: int = 8  # trials drawn at random before Optuna's model of the scores draws them
    seed: int = 0
    n_members: int | None = None  # networks per trial whose mean counts; the recipe's if None
    validation: Any = "auto"  # as of Classifier; forecasts have the borders of the data
    storage: str | None = None  # Optuna's: sqlite:///file.db, postgresql://..., or a .log file; a SQLite file if None
    time: str | None = None  # columns of a file, as of the estimators
    series: str | None = None
    values: tuple[str, ...] | None = None
    label: str | None = None
    test_data: str | None = None  # a file with labeled test cases, read by --test alone

    def __post_init__(self) -> None:
        if self.task not in SCORES:
            raise unknown_name("task of a search", self.task, SCORES)
        scores = SCORES[self.task]
        if not isinstance(self.score, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise SettingsError(f"score is one name, such as {next(iter(scores))}, but got {self.score!r}.")
        object.__setattr__(self, "score", self.score or next(iter(scores)))
        for name in ("name", "setting", "storage", "time", "series", "label", "test_data"):
            if (value := getattr(self, name)) is not None and not isinstance(value, str):
                raise SettingsError(f"{name} is text (a number in quotes), but got {value!r}.")
        for name in ("time", "series", "values", "label", "test_data"):
            if getattr(self, name) is not None and not self.is_file:
                raise SettingsError(
                    f"{name} tells how a file is read, and {self.data} is a data set of the catalog, which is read as "
                    "it is. Leave it out, or give a file."
                )
        if self.values is not None and not isinstance(self.values, str | list | tuple):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise SettingsError(f"values are names of columns, such as [load, price], but got {self.values!r}.")
        if self.score not in scores:
            raise unknown_name(f"score for {self.task}", self.score, scores)
        if self.prune not in get_args(Prune):
            raise unknown_name("way to prune", self.prune, get_args(Prune))
        expect_counts(self, "context_length", "horizon", "trials", "n_random", or_none=("n_members",))
        if type(self.warmup_epochs) is not int or self.warmup_epochs < 0:
            raise SettingsError(f"warmup_epochs is a whole number from 0, but got {self.warmup_epochs!r}.")
        expect_seed(self.seed)
        make_settings(ConvTimeNetConfig, self.model)
        recipe = find_recipe if self.task == "forecast" else find_case_recipe
        recipe(self.setting, dict(self.model), dict(self.fit)).fit.changed(self.fit)
        space = dict(self.space or DEFAULT_SPACE[self.task])
        if not self.space:  # what is fixed is not searched
            known = {*self.model, *self.fit, *follows_from(self.model)}
            space = {name: one for name, one in space.items() if name not in known}
        if self.budget is not None:
            space.setdefault("fill", FILL)
        check_space(space, model=self.model, fit=self.fit, budgeted=self.budget is not None)
        object.__setattr__(self, "space", space)
        object.__setattr__(self, "name", self.name or self._named())

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """Whether the score should be small or large."""
        return SCORES[self.task][self.score]

    @property
    def is_file(self) -> bool:
        """Whether the data are a file and not a name of the catalog."""
        return self.data.endswith(_FILE_ENDINGS)

    def made_with(self) -> dict[str, Any]:
        """What must be equal for a search to go on: everything but how many trials, and where they are kept."""
        from dataclasses import asdict

        whole = asdict(replace(self))
        for name in ("trials", "storage", "test_data"):
            whole.pop(name)
        if self.is_file:  # wherever it lies: a hash of the data is compared besides
            whole["data"] = Path(self.data).name
        return whole

    def _named(self) -> str:
        short = Path(self.data).name.partition(".")[0] if self.is_file else self.data
        return f"{short}-{self.horizon}" if self.task == "forecast" else short


def read_search(path: str | Path) -> SearchSpec:
    """The search that a YAML file describes; whatever in it cannot work is an error that names it and its line.

    Files are named relative to the file.
    """
    path = Path(path)
    read = read_lined(path, "of a search")
    known = _mapping(read.content, str(path))
    names = [one.name for one in fields(SearchSpec)]
    for name in known:
        with read.telling(name):
            if name not in names:
                raise unknown_name("entry of a search", name, names)
    if not isinstance(known.get("data"), str):
        raise SettingsError(f"{path} needs data: the name of a data set, such as ETTh2, or a file.")
    task = known.get("task", "forecast")
    for name in _CLASSIFY_ONLY if task == "forecast" else _FORECAST_ONLY:
        with read.telling(name):
            if name in known:
                raise SettingsError(f"{name} does not belong to task: {task}. Leave it out.")
    with read.telling("space"):
        space = _mapping(known.get("space") or {}, "space")
    known["space"] = {}
    for name, one in space.items():
        with read.telling("space", name):
            known["space"][name] = dimension(name, one)
    for name in ("model", "fit"):
        with read.telling(name):
            known[name] = _mapping(known.get(name) or {}, name)
    if known.get("budget") is not None:
        with read.telling("budget"):
            budget = _mapping(known["budget"], "budget")
            for name in budget:
                if name not in ("macs", "milliseconds"):
                    raise unknown_name("budget", name, ("macs", "milliseconds"))
            known["budget"] = Budget(**budget)
    if isinstance(known.get("values"), list):
        known["values"] = tuple(known["values"])
    try:
        spec = SearchSpec(**known)
    except SettingsError as error:
        raise SettingsError(f"{read.at(_place_of(str(error), known))}: {error}") from error
    if spec.is_file:
        beside = {"data": str(path.parent / spec.data)}
        if spec.test_data:
            beside["test_data"] = str(path.parent / spec.test_data)
        return replace(spec, **beside)  # type: ignore[arg-type]
    with read.telling("data"):
        entry = dataset(spec.data)  # an unknown name is an error that offers the nearest one
        if entry.task != spec.task:
            raise SettingsError(f"{spec.data} is a data set to {entry.task}, but the task is to {spec.task}.")
    return spec


def _place_of(message: str, known: Mapping[str, Any]) -> tuple[str, ...]:
    """The entry that a message begins with, or whose name is the unknown one; of several the file as a whole."""
    first = message.split()[0]
    if first in known:
        return (first,)
    if first in known["space"]:
        return ("space", first)
    named = [name for name in ("task", "score", "prune", "setting") if f"named {known.get(name)!r}" in message]
    return tuple(named[:1])


def _mapping(content: Any, where: str) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        raise SettingsError(f"{where} holds names and values (name: value), but got {type(content).__name__}.")
    return {str(name): value for name, value in cast(Mapping[Any, Any], content).items()}
