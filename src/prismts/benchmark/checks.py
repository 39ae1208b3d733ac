"""What can be wrong in a specification: names that do not exist, entries that do not fit together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from prismts.benchmark.entries import Cell, Change, ModelEntry, Spec
from prismts.benchmark.known import (
    AXES,
    architecture_of,
    arguments_of,
    config_of,
    estimator_of,
    fields_of,
    models_of,
    settings_of,
)
from prismts.benchmark.lines import Lined
from prismts.benchmark.published import read_published
from prismts.errors import DataError, PrismError, SettingsError, unknown_name

__all__ = ["Check"]

_LONGEST_NAME = 100  # of a data set, whose name becomes a file's
_LONGEST_CELL = 200  # bytes; systems allow 255, and endings of files are added


@dataclass(frozen=True)
class Check:
    """What pydantic cannot know: whether names exist, and fit together."""

    read: Lined

    def whole(self, spec: Spec) -> None:
        """Refuse a specification that cannot work.

        Raises:
            SettingsError: the first thing that cannot be, with its line, and what is nearest to an unknown name.
        """
        self._protocols(spec)
        self._axes(spec)
        self._twice(spec)
        self._data(spec)
        self._models(spec)
        self._published(spec)
        for number, name in enumerate(spec.floors or ()):
            if name not in {one.name for one in spec.models}:
                self._known(("floors", number), "model", name, models_of(spec.task))

    def cells(self, spec: Spec, cells: Sequence[Cell]) -> None:
        """Refuse cells whose names cannot be those of files, and configurations that no cell has.

        Raises:
            SettingsError: with the line of what gives the name.
        """
        first: dict[str, Cell] = {}
        for cell in cells:
            if (other := first.setdefault(cell.name, cell)) != cell:
                axis = next(a for a in ("data", "train_share", "model") if getattr(cell, a) != getattr(other, a))
                raise self._fail(
                    spec.place(cell, axis), f"two cells would be called {cell.name!r}, as {getattr(other, axis)!r} and "
                    f"{getattr(cell, axis)!r} look alike in the name of a file. Write one of them otherwise."
                )  # fmt: skip
            if len(cell.name.encode()) > _LONGEST_CELL:
                raise self._fail(
                    spec.place(cell, "data"), f"a cell's name becomes a file's, of at most {_LONGEST_CELL} "
                    f"bytes, but one would be called {cell.name[:60]!r} and so on. Give the data set or the model a "
                    "shorter name."
                )  # fmt: skip
        for number, one in enumerate(spec.models):
            by_data = {cell.data: cell for cell in cells if cell.model == one.name}
            if not by_data:
                raise self._fail(("models", number), f"{one.name} shares no horizon with any data set.")
            for cell in by_data.values():
                try:
                    spec.made_with(cell)
                except DataError as error:
                    raise self._fail(("models", number), f"{one.name}: {error}") from error

    def _fail(self, place: Sequence[str | int], told: object) -> SettingsError:
        return SettingsError(f"{self.read.at(place)}: {told}")

    def _known(self, place: Sequence[str | int], kind: str, name: object, known: Iterable[str]) -> None:
        known = list(known)
        if name not in known:
            raise self._fail(place, unknown_name(kind, name, known))

    def _protocols(self, spec: Spec) -> None:
        from prismts.evaluation.protocols import PROTOCOLS

        for number, name in enumerate(spec.protocols):
            self._known(("protocols", number), "protocol", name, PROTOCOLS)
            if spec.task == "detect" and name != "honest":
                raise self._fail(("protocols", number), "detection has one protocol, 'honest'.")

    def _axes(self, spec: Spec) -> None:
        for place, entry in _entries(spec):
            for name in ("context_lengths", "horizons", "resamples"):
                if name in entry.model_fields_set and name not in AXES[spec.task]:
                    raise self._fail((*place, name), f"{name} means nothing to the task {spec.task!r}. Leave it out.")
        for number, one in enumerate(spec.data):
            if spec.task == "forecast" and not (one.horizons or spec.horizons):
                raise self._fail(("data", number), f"{one.name} has no horizons. Name them here or for all, as [96].")

    def _twice(self, spec: Spec) -> None:
        """Data, models and published files have words of their own."""
        for place, entry in _entries(spec):
            for name in type(entry).model_fields:
                if not place and name in ("data", "models", "published"):
                    continue
                values: Any = getattr(entry, name)
                for number, value in enumerate(values if isinstance(values, list | tuple) else ()):
                    if values.index(value) != number:
                        raise self._fail((*place, name, number), f"{name} names {value!r} twice. Keep one of them.")

    def _data(self, spec: Spec) -> None:
        from prismts.data.catalog import dataset

        names = [one.name for one in spec.data]
        for number, one in enumerate(spec.data):
            place = ("data", number)
            if not one.name.strip() or len(one.name) > _LONGEST_NAME or not one.name.isprintable():
                raise self._fail(
                    place, f"a data set is called something of at most {_LONGEST_NAME} letters in one line, but got "
                    f"{one.name!r}."
                )  # fmt: skip
            if names.index(one.name) != number:
                raise self._fail(place, f"{one.name!r} stands among the data twice. Keep one of them.")
            if one.without:
                raise self._fail(
                    place, f"without leaves out series of a collection, and {one.name} is a single data set."
                )  # fmt: skip
            if one.file is None:
                for name in ("time", "values", "frequency", "test_file"):
                    if getattr(one, name) is not None:
                        raise self._fail(
                            place, f"{name} tells how a file is read, and {one.name} is a data set of the catalog, "
                            "which is read as it is. Leave it out, or give a file."
                        )  # fmt: skip
                entry = dataset(one.name)
                series = {"classify": entry.task == "classify", "detect": entry.task == "detect"}
                if not series.get(spec.task, entry.task in ("forecast", "other")):
                    raise self._fail(
                        place, f"{one.name} is a data set of the task {entry.task!r}, but the file says {spec.task!r}."
                    )
            else:
                for file in (one.file, one.test_file):
                    if file is not None and not (Path(spec.folder) / file).is_file():
                        raise self._fail(place, f"there is no file {file!r} beside the specification.")
                if (one.test_file is not None) != (spec.task == "classify"):
                    raise self._fail(place, "test_file is needed by the task 'classify', and only there.")

    def _published(self, spec: Spec) -> None:
        names = [Path(name).name for name in spec.published]
        for number, name in enumerate(spec.published):
            if not (Path(spec.folder) / name).is_file():
                raise self._fail(
                    ("published", number), f"there is no file {name!r} of published numbers beside the specification."
                )
            own = [one.name for one in spec.data]
            for column in read_published(Path(spec.folder) / name, own):  # read now: not after hours of training
                if column.task != spec.task:
                    raise self._fail(
                        ("published", number), f"{name!r} holds numbers of the task {column.task!r}, but the file says "
                        f"{spec.task!r}."
                    )  # fmt: skip
            if names.index(names[number]) != number:
                raise self._fail(
                    ("published", number), f"two files of published numbers are called {names[number]!r}. Rename one."
                )

    def _models(self, spec: Spec) -> None:
        names = [one.name for one in spec.models]
        data = [one.name for one in spec.data]
        self._fit_settings(("fit_settings",), spec.fit_settings)
        for number, one in enumerate(spec.models):
            place: tuple[str | int, ...] = ("models", number)
            if names.index(one.name) != number:
                raise self._fail(place, f"two configurations are called {one.name!r}. Give one another name.")
            if not one.name or not all(c.isalnum() or c in "_.+" for c in one.name):
                raise self._fail(
                    place, f"names of configurations are files' names: letters, digits, _ . +, but got {one.name!r}."
                )
            self._known((*place, "model" if (*place, "model") in self.read.lines else "name"), "model", one.model,
                        models_of(spec.task))  # fmt: skip
            if one.name in spec.floor_names and one.name != one.model and one.name in models_of(spec.task):
                raise self._fail(
                    place, f"{one.name!r} is the name of a floor, but this one is of the model {one.model!r}. Give it "
                    "another name."
                )  # fmt: skip
            for n, name in enumerate(one.data or ()):
                self._known((*place, "data", n), "data set in this file", name, data)
            self._change(place, spec, one.model, one, one)
            for name, change in one.for_data.items():
                self._known((*place, "for_data", name), "data set in this file", name, data)
                self._change((*place, "for_data", name), spec, one.model, change, one)

    def _change(self, place: tuple[str | int, ...], spec: Spec, model: str, change: Change, whole: ModelEntry) -> None:
        from prismts.estimators.forecast_arguments import check_forecaster
        from prismts.models import make_settings

        trained = spec.is_trained(model)
        if not trained:
            for name in ("setting", "fit_settings", "n_members"):
                if getattr(change, name):
                    raise self._fail(
                        (*place, name), f"{name} tells how networks are trained, and {model!r} is none. Leave it out."
                    )
        if change.setting is not None:
            self._known((*place, "setting"), "setting", change.setting, settings_of(spec.task))
        self._fit_settings((*place, "fit_settings"), change.fit_settings)
        known = fields_of(config_of(spec.task, model))
        for name in change.model_settings:
            self._known((*place, "model_settings", name), f"setting of {model!r}", name, known)
        settings = {**whole.model_settings, **change.model_settings}
        try:
            make_settings(config_of(spec.task, model), settings)
        except PrismError as error:
            raise self._fail((*place, "model_settings"), error) from error
        except TypeError as error:  # a mandatory setting that the estimator or the recipe fills in
            if "required" not in str(error):
                raise self._fail((*place, "model_settings"), error) from error
        allowed = arguments_of(spec.task, model)
        for name in change.arguments:
            self._known((*place, "arguments", name), "argument", name, allowed)
        if spec.task == "forecast" and (arguments := {**whole.arguments, **change.arguments}):
            architecture = architecture_of(model)
            assert architecture is not None
            with self.read.telling(*place, "arguments"):
                check_forecaster(estimator_of(spec.task)(model, **arguments), architecture)

    def _fit_settings(self, place: tuple[str | int, ...], settings: Mapping[str, Any]) -> None:
        from prismts.training.fit import FitConfig

        for name in settings:
            self._known((*place, name), "training setting", name, fields_of(FitConfig))
        try:
            FitConfig().changed(settings)
        except (PrismError, TypeError) as error:
            raise self._fail(place, error) from error


def _entries(spec: Spec) -> list[tuple[tuple[str | int, ...], BaseModel]]:
    """The specification, its data sets and its configurations, each with its place."""
    return [
        ((), spec),
        *((("data", number), one) for number, one in enumerate(spec.data)),
        *((("models", number), one) for number, one in enumerate(spec.models)),
    ]
