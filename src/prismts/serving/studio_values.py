"""Sections of a report as plain values, which the page of the studio shows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prismts.report.page import Block, Drawing, Facts, Note, Section, Table

__all__ = ["as_values", "write_sections"]


def as_values(sections: Sequence[Section]) -> list[dict[str, Any]]:
    """Sections as plain values: texts as they are, figures as plotly takes them."""
    return [{"title": section.title, "blocks": [_block(block) for block in section.blocks]} for section in sections]


def _block(block: Block) -> dict[str, Any]:
    if isinstance(block, Drawing):
        figure = json.loads(str(block.figure.to_json(engine="json")))
        layout: dict[str, Any] = figure["layout"]
        layout.pop("template", None)  # the page brings its own, light or dark
        note = (layout.pop("meta", None) or {}).get("note", "")
        return {
            "kind": "drawing", "title": block.title, "caption": block.caption, "note": note, "data": figure["data"],
            "layout": layout,
        }  # fmt: skip
    if isinstance(block, Table):
        return {
            "kind": "table", "columns": list(block.columns), "rows": [list(map(str, row)) for row in block.rows],
            "caption": block.caption, "strong": sorted(map(list, block.strong)), "lead": block.lead,
        }  # fmt: skip
    if isinstance(block, Facts):
        return {"kind": "facts", "items": [list(map(str, item)) for item in block.items], "large": block.large}
    if isinstance(block, Note):
        return {"kind": "note", "text": block.text, "level": block.level}
    return {"kind": block.kind, "text": block.text}


def write_sections(path: Path, sections: Sequence[Section]) -> None:
    """Keep sections in a file, as plain values."""
    path.write_text(json.dumps(as_values(sections), allow_nan=False), encoding="utf-8")
