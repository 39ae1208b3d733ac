"""YAML that knows its lines, so that a mistake in a file is reported where a reader can see it."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from prismts.errors import PrismError, SettingsError, unknown_name

if TYPE_CHECKING:
    import yaml
    from pydantic import BaseModel, ValidationError

__all__ = ["Lined", "in_words", "read_lined"]

_MOST_TOLD = 5  # mistakes of one file

_WITH_EXPONENT = re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$")


@dataclass(frozen=True)
class Lined:
    """The content of a YAML file, and where in the file each part of it stands."""

    path: Path
    content: Any
    lines: dict[tuple[str | int, ...], int]  # place -> line, counted from 1

    def line(self, place: Sequence[str | int]) -> int:
        """The line of a place such as ("models", 2, "fit_settings"), or of the nearest part around it."""
        for n in range(len(place), -1, -1):
            if (line := self.lines.get(tuple(place[:n]))) is not None:
                return line
        return 1

    def at(self, place: Sequence[str | int]) -> str:
        """Where that is, for a message: "spec.yaml, line 7"; the name alone of what was never a file."""
        if not self.lines:
            return self.path.name
        return f"{self.path.name}, line {self.line(place)}"

    @contextmanager
    def telling(self, *place: str | int) -> Generator[None]:
        """Begin errors with where a place is."""
        try:
            yield
        except PrismError as error:
            raise SettingsError(f"{self.at(place)}: {error}") from error


def read_lined(path: str | Path, what: str = "of a benchmark") -> Lined:
    """Read a YAML file with safe types only. ``what`` ends the sentence that says which file is missing.

    A number may be written as 1e-4, which YAML 1.1 takes for text where no point stands in it.

    Raises:
        SettingsError: there is no such file, it is no YAML, or a name stands twice in one mapping, where YAML would
            silently take the second.
    """
    import yaml

    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.load(text, Loader=_loader())
    except FileNotFoundError as error:
        raise SettingsError(f"There is no file {path}. Pass the YAML file {what}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    lines: dict[tuple[str | int, ...], int] = {}
    try:
        if root is not None:
            _walk(root, (), lines, path)
    except RecursionError as error:
        raise SettingsError(f"{path}: an alias (*name) stands inside what it names, without end.") from error
    return Lined(path, content, lines)


def in_words(
    error: ValidationError, read: Lined, whole: type[BaseModel], parts: Mapping[str, type[BaseModel]]
) -> SettingsError:
    """pydantic's findings in words: where, what came, what is expected; unknown names with their nearest neighbor.

    ``whole`` is the form of the file, ``parts`` those of the entries inside it, by the name that they stand under.
    """
    told: list[str] = []
    for one in error.errors(include_url=False):
        place = one["loc"]
        where = ".".join(str(part) for part in place)
        if one["type"] == "extra_forbidden":
            kind = whole
            for part in place[:-1]:
                kind = parts.get(str(part), kind)
            words = str(unknown_name("entry", place[-1], [name for name in kind.model_fields if name != "folder"]))
        elif one["type"] == "missing":
            words = f"{where} is missing."
        elif one["type"] == "too_short":
            left_out = (
                "" if where in whole.model_fields and whole.model_fields[where].is_required() else ", or leave it out"
            )
            words = f"{where} is an empty list. Name at least one{left_out}."
        else:
            said = one["msg"].removeprefix("Value error, ")
            for kind in parts.values():
                entry = f"valid dictionary or instance of {kind.__name__}"
                said = said.replace(entry, "name, or names and values")
            for theirs, ours in _WORDS.items():
                said = said.replace(theirs, ours)
            words = f"{where}: {said[0].lower()}{said[1:]}, but got {one['input']!r}."
        told.append(f"{read.at(place)}: {words}")
    more = f" And {len(told) - _MOST_TOLD} more." if len(told) > _MOST_TOLD else ""
    return SettingsError("  ".join(told[:_MOST_TOLD]) + more)


_WORDS = {  # pydantic speaks to programmers
    "'str' instances are not allowed as a Sequence value": "it should be a list", "an instance of Sequence": "a list",
    "a valid dictionary": "names and values (name: value)", "Input should": "it should",
}  # fmt: skip


@cache
def _loader() -> type[yaml.SafeLoader]:
    import yaml

    class Loader(yaml.SafeLoader):
        """Safe types, and numbers with an exponent."""

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _WITH_EXPONENT, list("-+.0123456789"))
    return Loader


def _walk(node: Any, place: tuple[str | int, ...], lines: dict[tuple[str | int, ...], int], path: Path) -> None:
    import yaml

    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in cast(list[tuple[Any, Any]], node.value):
            inner = (*place, str(key.value))
            if inner in lines:
                raise SettingsError(
                    f"{path.name}, line {key.start_mark.line + 1}: {key.value!r} stands twice, first in line "
                    f"{lines[inner]}. Keep one of them."
                )
            lines[inner] = key.start_mark.line + 1
            _walk(value, inner, lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(cast(list[Any], node.value)):
            _walk(value, (*place, number), lines, path)
