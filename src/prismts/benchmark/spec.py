"""What a benchmark runs: one YAML file as a frozen value, and the cells that follow from it.

    spec = read_spec("benchmarks/specs/forecasting.yaml")
    for cell in spec.cells:
        print(cell, spec.made_with(cell))

Names of data sets, models and settings are looked up when the file is read, so a slip of the pen is an error with its
line and the nearest name that exists, before anything is computed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

from pydantic import ValidationError

from prismts.benchmark.checks import Check
from prismts.benchmark.entries import Cell, Change, DataEntry, ModelEntry, Spec
from prismts.benchmark.known import FLOORS, Task
from prismts.benchmark.lines import Lined, in_words, read_lined
from prismts.errors import PrismError, SettingsError, unknown_name

__all__ = ["FLOORS", "BenchSpec", "Cell", "Change", "DataEntry", "ModelEntry", "Task", "read_spec"]


class BenchSpec(Spec):
    """A specification that was checked; :func:`read_spec` reads it from YAML."""

    @classmethod
    def of(cls, **content: Any) -> Self:
        """A specification from plain values, as they would stand in the file; mistakes are told like those of one."""
        return cls._checked(Lined(Path("specification"), content, {}), "")

    @classmethod
    def _checked(cls, read: Lined, folder: str) -> Self:
        content: Any = read.content
        if not isinstance(content, dict):
            raise SettingsError(f"{read.path.name} holds names and values (name: value), such as task: forecast.")
        if "folder" in content:  # not an entry: it is where the file lies
            names = [name for name in cls.model_fields if name != "folder"]
            raise SettingsError(f"{read.at(('folder',))}: {unknown_name('entry', 'folder', names)}")
        read = _with_collections(cast(dict[str, Any], content), read)
        try:
            spec = cls.model_validate({**read.content, "folder": folder})
        except ValidationError as error:
            parts = {"data": DataEntry, "models": ModelEntry, "for_data": Change}
            raise in_words(error, read, BenchSpec, parts) from None
        Check(read).whole(spec)
        Check(read).cells(spec, spec.cells)
        from prismts.benchmark.room import check_room

        check_room(spec, read)
        return spec


def read_spec(path: str | Path) -> BenchSpec:
    """The benchmark that a YAML file describes.

    Raises:
        SettingsError: for whatever in it cannot work, with the line and what stands nearest to a name that is unknown.
    """
    read = read_lined(path)
    return BenchSpec._checked(read, str(read.path.parent))  # pyright: ignore[reportPrivateUsage]


def _with_collections(content: dict[str, Any], read: Lined) -> Lined:
    """The same with every collection among the data replaced by its series, and names as the catalog writes them."""
    from prismts.data.catalog import dataset, list_datasets

    listed: Any = content.get("data")
    if not isinstance(listed, list):
        return read
    collections = {str(entry.collection).casefold(): str(entry.collection) for entry in list_datasets("detect")}
    found: list[Any] = []
    places: list[int] = []  # which entry of the file each found one is of
    meant: dict[str, list[str]] = {}  # what a name of the file stands for
    for number, one in enumerate(cast(list[Any], listed)):
        entry: Any = {"name": one} if isinstance(one, str) else one
        name: Any = cast(dict[str, Any], entry).get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or cast(dict[str, Any], entry).get("file") is not None:
            found.append(entry)
            places.append(number)
            continue
        entry = dict(cast(dict[str, Any], entry))
        if (collection := collections.get(name.casefold())) is not None:
            series = [one.name for one in list_datasets(collection=collection)]
            meant[name] = _left(series, entry.pop("without", []), f"{read.at(('data', number))}: {collection}")
        else:
            with read.telling("data", number):
                meant[name] = [dataset(name).name]
        found += [{**entry, "name": official} for official in meant[name]]
        places += [number] * len(meant[name])
    models: Any = content.get("models")
    if isinstance(models, list):
        models = [_renamed(one, meant, read, n) for n, one in enumerate(cast(list[Any], models))]
    lines = {place: line for place, line in read.lines.items() if place[:1] != ("data",) or len(place) == 1}
    for place, line in read.lines.items():
        if place[:1] == ("data",) and len(place) > 1:
            lines |= {("data", n, *place[2:]): line for n, old in enumerate(places) if old == place[1]}
    return Lined(read.path, {**content, "data": found, **({} if models is None else {"models": models})}, lines)


def _left(series: list[str], without: Any, where: str) -> list[str]:
    """The series of a collection that are not left out."""
    if not isinstance(without, list):
        raise SettingsError(f"{where}: without is a list of series, such as [{series[0]}], but got {without!r}.")
    for name in cast(list[Any], without):
        if name not in series:
            raise SettingsError(f"{where}: {unknown_name('series of the collection', name, series)}")
    if not (left := [name for name in series if name not in without]):
        raise SettingsError(f"{where}: without leaves out all of its series. Leave out the collection.")
    return left


def _renamed(model: Any, meant: Mapping[str, Sequence[str]], read: Lined, number: int) -> Any:
    """A model's entry with the names of data sets replaced by what they stand for."""
    if not isinstance(model, dict):
        return model
    entry = cast(dict[str, Any], model)
    changed: dict[str, Any] = {}
    if isinstance(entry.get("data"), list):
        changed["data"] = [official for name in entry["data"] for official in _sets(str(name), meant)]
    if isinstance(entry.get("for_data"), dict):
        changed["for_data"] = {}
        for name, change in entry["for_data"].items():
            for official in _sets(str(name), meant):
                if official in changed["for_data"]:
                    where = read.at(("models", number, "for_data", str(name)))
                    raise SettingsError(f"{where}: for_data names {official!r} twice. Keep one of them.")
                changed["for_data"][official] = change
    return {**entry, **changed}


def _sets(name: str, meant: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """The data sets that a model's entry means by a name, however it is capitalized; itself, if the data have none."""
    from prismts.data.catalog import dataset

    folded = {one.casefold(): sets for one, sets in meant.items()}
    if name.casefold() in folded:
        return folded[name.casefold()]
    with contextlib.suppress(PrismError):
        if (official := dataset(name).name) in {one for sets in meant.values() for one in sets}:
            return [official]
    return [name]
