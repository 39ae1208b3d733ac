"""Sections of text, tables and figures become one HTML file that loads nothing: mail it, open it offline."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from prismts.errors import SettingsError
from prismts.report.theme import TEMPLATES
from prismts.writing import write_whole

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["Block", "Code", "Drawing", "Facts", "Note", "Section", "Table", "Text", "Written", "write_report"]


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Note:
    """A sentence in a box: "flag" for what must not be overlooked, "alarm" for what changes the meaning of all else."""

    kind: ClassVar[str] = "note"
    text: str
    level: Literal["note", "flag", "alarm"] = "flag"


@dataclass(frozen=True)
class Facts:
    """Names and values; ``large`` for the few numbers that come first."""

    kind: ClassVar[str] = "facts"
    items: Sequence[tuple[str, str]]
    large: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of texts below column names; the first column is text, the others are set as numbers.

    ``strong`` holds (row, column) of cells to stand out; row 0 is marked as the one the page is about if ``lead``.
    """

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    strong: frozenset[tuple[int, int]] = frozenset()
    lead: bool = False


@dataclass(frozen=True)
class Drawing:
    """A plotly figure and what it shows; its menus become choices above it, its note is printed below."""

    kind: ClassVar[str] = "drawing"
    figure: Figure
    caption: str
    title: str = ""


@dataclass(frozen=True)
class Code:
    """Text as it would be typed."""

    kind: ClassVar[str] = "code"
    text: str


Block = Text | Note | Facts | Table | Drawing | Code


@dataclass(frozen=True)
class Section:
    """A part of the page, with an entry in its list of contents if it has a title."""

    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)


class Written(NamedTuple):
    """A file that was written, and its size."""

    path: Path
    n_bytes: int

    def __str__(self) -> str:
        return f"{self.path} ({self.n_bytes / 1e6:.1f} MB)"


def write_report(path: str | Path, title: str, sections: Sequence[Section], *, subtitle: str = "") -> Written:
    """Write one self-contained HTML file; an old file at this place is replaced whole, or stays whole.

    plotly's script is taken from the installed package and inlined once. Every text is escaped. The page forbids itself
    to load anything from anywhere (its content security policy), so opening it tells nobody.
    """
    from importlib.metadata import version

    import jinja2
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    path = Path(path)
    if path.is_dir():
        raise SettingsError(f"{path} is a folder. Name a file in it, such as {path / 'report.html'}.")
    numbered: dict[int, int] = {}
    drawings: list[Mapping[str, Any]] = []
    for section in sections:
        for block in section.blocks:
            if isinstance(block, Drawing):
                numbered[id(block)] = len(drawings)
                drawings.append(_drawn(block.figure))
    loader = jinja2.PackageLoader("prismts.report", "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    # what is marked as safe is ours and plotly's; everything else on the page is escaped
    sources = {name: Markup(loader.get_source(environment, name)[0]) for name in ("page.css", "page.js")}
    places = _places([section.title for section in sections])
    page = environment.get_template("page.html.jinja").render(
        title=title,
        subtitle=subtitle,
        sections=list(zip(sections, places, strict=True)),
        number=lambda block: numbered[id(block)],
        note=lambda block: (block.figure.layout.meta or {}).get("note", ""),
        data=Markup(_json_for_script({"templates": TEMPLATES, "figures": drawings})),
        plotly=Markup(get_plotlyjs()),
        css=sources["page.css"],
        script=sources["page.js"],
        version=version("prismts"),
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )
    encoded = page.encode("utf-8", errors="replace")
    write_whole(path, encoded)
    return Written(path, len(encoded))


def _places(titles: Sequence[str]) -> list[str]:
    """The titles as names of places in the page, each of its own, whatever signs the titles are written in."""
    found: list[str] = []
    for title in titles:
        name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        others = (f"{name}-{number}" for number in itertools.count(2))
        found.append(next(place for place in itertools.chain([name], others) if place not in found))
    return found


def _drawn(figure: Figure) -> dict[str, Any]:
    """What plotly needs to draw a figure; the page brings the template, light or dark."""
    whole = json.loads(str(figure.to_json(engine="json")))
    whole["layout"].pop("template", None)
    whole["layout"].pop("meta", None)
    return {"data": whole["data"], "layout": whole["layout"]}


def _json_for_script(value: Any) -> str:
    """JSON that cannot end the script element it stands in, nor open a comment there."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
