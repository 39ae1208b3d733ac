"""What a table is like: what was read of it, what was noticed, and sizes to begin with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from prismts.data import synthetic
from prismts.data.calendar import season_length
from prismts.data.describe import describe
from prismts.data.profile import Profile, profile
from prismts.data.readers import TABLE_FILES
from prismts.data.series import Collection, Series
from prismts.errors import PrismError
from prismts.report.page import Block, Drawing, Facts, Note, Section, Table, Text
from prismts.serving.jobs import Tell
from prismts.serving.studio_figures import preview
from prismts.serving.studio_source import Loaded, load_source
from prismts.serving.studio_values import as_values
from prismts.serving.uploads import looked_through

__all__ = ["look"]

_MOST_CHANNELS_TOLD = 40


def look(request: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """Read a source, and answer with what is to be seen of it and what the form begins with."""
    source, options = request["source"], request.get("options") or {}
    if "file" in source:
        tell({"stage": "looking through the file"})
        table = looked_through(Path(source["file"]))
        if table.ending in TABLE_FILES:  # told before it is read as a series: who must choose, sees what there is
            columns = TABLE_FILES[table.ending](table.path, ())
            tell({"columns": [{"name": name, "kind": kind} for name, kind in list(columns.kinds.items())[:500]]})
    tell({"stage": "reading"})
    loaded = load_source(source, options)
    data = loaded.data
    tell({"stage": "measuring gaps and cycles"})
    try:
        measured, why = profile(data), ""
    except PrismError as error:
        measured, why = None, str(error)
    sections = _look(loaded, measured, why)
    return {
        "name": data.name, "sections": as_values(sections), "proposal": _proposal(loaded, measured),
        "findings": [str(finding) for finding in data.findings],
    }  # fmt: skip


def _look(loaded: Loaded, measured: Profile | None, why: str) -> list[Section]:
    """What was read, as sections: sizes and a picture, what was noticed, each channel, the profile."""
    data, whole = loaded.data, loaded.collection
    told = describe(data)
    missing = sum(int(np.isnan(channel).sum()) for channel in whole.values)
    shortest, longest = told.n_timepoints
    facts = [
        ("time steps", f"{longest:,}" if shortest == longest else f"{shortest:,} to {longest:,}"),
        ("channels", f"{len(told.channels):,}"),
        *([("series" if whole.labels is None else "cases", f"{told.n_series:,}")] if told.n_series > 1 else []),
        ("not observed", f"{missing / max(1, whole.values.size):.2%}" if missing else "none"),
    ]
    more = [("frequency", told.frequency or "none: steps are counted" if told.span is None else told.frequency or "?")]
    if told.span:
        more.append(("time", f"{told.span[0]} to {told.span[1]}"))
    if told.classes:
        more.append(("classes", ", ".join(f"{name} ({n})" for name, n in told.classes[:20])))
    if loaded.borders is not None:
        more.append(("official borders", str(loaded.borders)))
    blocks: list[Block] = [Facts(facts, large=True), Facts(more)]
    if data.name in synthetic.__all__:
        blocks.insert(0, Note("These data are simulated, not measured.", "alarm"))
    blocks.append(Drawing(preview(loaded), "", "A first look"))
    findings: list[Block] = [Note(str(finding), "flag") for finding in told.findings[:50]]
    if len(told.findings) > len(findings):
        findings.append(Text(f"and {len(told.findings) - len(findings)} more findings."))
    if not findings:
        findings.append(Text("Nothing to report: no gaps, no doubled rows, no odd values, no constant channels."))
    rows = [
        [c.name, f"{c.observed:.2%}", *(f"{x:.5g}" for x in (c.minimum, c.median, c.maximum))]
        for c in told.channels[:_MOST_CHANNELS_TOLD]
    ]
    caption = ""
    if len(told.channels) > len(rows):
        caption = f"The first {len(rows)} of {len(told.channels):,} channels."
    channels = Table(["channel", "observed", "minimum", "median", "maximum"], rows, caption)
    sections = [Section("", blocks), Section("Findings", findings)]
    sections.append(Section("What the data are like", _profiled(measured, why)))
    sections.append(Section("Channels", [channels]))
    return sections


def _profiled(measured: Profile | None, why: str) -> list[Block]:
    if measured is None:
        return [Text(f"The profile could not be measured: {why}")]
    gaps, cycle = measured.gaps, measured.cycle
    gap_words = f"{gaps.n_gaps:,} ({gaps.share:.2%} of the values), the longest {gaps.longest:,} steps"
    facts = Facts([
        ("gaps", gap_words if gaps.n_gaps else "none"),
        ("cycle", f"{cycle.season} steps, {cycle.strength:.0%} of the energy" if cycle else "none stands out"),
    ])  # fmt: skip
    words = {True: "yes", False: "no", None: "not measurable"}
    rows = [[c.name, words[c.holds], c.sentence] for c in measured.conditions]
    conditions = Table(
        ["condition", "holds", "measured"], rows,
        "The four conditions under which the slides of the cross learner expect it to gain; the test part is not read.",
    )  # fmt: skip
    told: list[Block] = [Text(line) for line in (*measured.notes, *measured.suggestion)]
    return [facts, *told, conditions]


def _proposal(loaded: Loaded, measured: Profile | None) -> dict[str, Any]:
    """What the form begins with: a task that suits, and sizes that fit into the series."""
    whole = loaded.collection
    longest = int(whole.lengths.max())
    usable = loaded.borders.train_end if loaded.borders is not None else int(0.7 * longest)
    season = measured.cycle.season if measured is not None and measured.cycle is not None else 0
    season = season or season_length(whole.frequency)
    horizon = season if 6 <= season <= 168 else 24
    horizon = max(1, min(horizon, usable // 10, int(0.1 * longest)))
    context = min(512, max(3 * horizon, 2 * season if season <= 256 else 0, 96), max(8, usable // 3))
    anomalies = isinstance(loaded.data, Series) and loaded.data.labels is not None
    labeled = isinstance(loaded.data, Collection) and loaded.data.labels is not None
    missing = any(bool(np.isnan(channel).any()) for channel in whole.values)
    return {
        "task": "classify" if labeled else "detect" if anomalies else "forecast",
        "labeled": labeled, "missing": missing, "n_series": len(whole), "n_steps": longest,
        "n_channels": whole.n_channels, "horizon": horizon, "context_length": context,
        "official": loaded.borders is not None or (labeled and cast(Collection, loaded.data).n_train is not None),
    }  # fmt: skip
