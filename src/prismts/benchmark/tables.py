"""Tables of a benchmark: means and spread over seeds, floors always there, protocols never mixed unseen.

    print(render(table(read_results("results/forecasting")), "markdown"))

Rows are what ``by`` names (data and horizon in forecasting), columns are configurations, then published numbers, each
marked with its source; these are set as a table of their own, below ours. Rows of two protocols are told apart by a
column. Where a configuration was run with several contexts, validation chooses one for each row before any test score
is looked at. A row covers what the specification names, done or not: a mean over a part of that is no mean of it.
"""

from __future__ import annotations

import difflib
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from prismts.benchmark.counted import (
    COSTS,
    Counted,
    Direction,
    check_measure,
    counted,
    direction,
    draws,
    lacking,
    state,
    unit,
)
from prismts.benchmark.published import Published, read_published
from prismts.benchmark.results import Results
from prismts.benchmark.spec import BenchSpec, Cell
from prismts.errors import DataError, PrismError, SettingsError, unknown_name

__all__ = ["BY", "Entry", "Format", "TableView", "render", "table"]

Format = Literal["terminal", "markdown", "latex", "html"]
BY = ("data", "collection", "horizon", "context", "share", "resample")
_DEFAULT_BY = {"forecast": ("data", "horizon"), "classify": ("data",), "detect": ("collection",)}
_WISHES: dict[Direction, str] = {
    "lower": "lower is better", "higher": "higher is better", "zero": "nearest to 0 is best",
    "nominal": "nearest to what is claimed is best",
}  # fmt: skip
_MARKS = "¹²³⁴⁵⁶⁷⁸⁹"
_THIN = "\u202f"  # between thousands


@dataclass(frozen=True)
class Entry:
    """One number of a table."""

    text: str
    value: float | None = None  # None where there is none, or not all of what the row covers
    best: bool = False
    below_floor: bool = False  # worse than the best floor of its row

    @property
    def whole(self) -> str:
        """With its marks, but for the best, which is set in bold."""
        return f"{self.text} ↓" if self.below_floor else self.text


@dataclass(frozen=True)
class TableView:
    """A table before it is set: names of columns, rows of keys and entries, and what must be said below it."""

    title: str
    keys: tuple[str, ...]  # names of the first columns, which say what a row is
    columns: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], tuple[Entry, ...]], ...]
    notes: tuple[str, ...] = field(default=())
    n_quoted: int = 0  # of the last columns, which hold published numbers

    def parts(self) -> list[TableView]:
        """Ours, and published numbers, where there are some, in a table with the notes of both."""
        if not self.n_quoted:
            return [self]
        n_ours = len(self.columns) - self.n_quoted
        ours = replace(self.some(0, n_ours), notes=(), n_quoted=0)
        return [ours, replace(self.some(n_ours, len(self.columns)), title="Published numbers").told()]

    def some(self, begin: int, end: int) -> TableView:
        """The columns from ``begin`` to before ``end``."""
        rows = tuple((key, entries[begin:end]) for key, entries in self.rows)
        return replace(self, columns=self.columns[begin:end], rows=rows)

    def told(self) -> TableView:
        """The rows that say something; those of published numbers are not all of a source's."""
        return replace(self, rows=tuple(row for row in self.rows if any(entry.text != "–" for entry in row[1])))


def table(
    results: Results,
    *,
    measure: str | None = None,
    by: Sequence[str] | None = None,
    published: Sequence[Published] | None = None,
    all_published: bool = False,
    columns: Sequence[str] | None = None,
    digits: int | None = None,
) -> TableView:
    """The table of one measure.

    Args:
        results: what a folder holds.
        measure: of the scores, or a cost such as "seconds"; the headline of the task if None.
        by: what a row is, of ``BY``; everything else is averaged, over the horizons of each data set first, then over
            data sets. Rows of several horizons get one for their mean, rows of several data sets too.
        published: columns beside ours; those kept in the folder if None.
        all_published: also show numbers made by another protocol than the row's, marked ‡.
        columns: names of configurations and published models to show; floors stay. All if None.
        digits: after the point.
    """
    task, measure = results.spec.task, check_measure(results, measure)
    whole = any(cell.train_share == 1 for cell in results.spec.cells)
    by = tuple(by or (_DEFAULT_BY[task] if whole else (*_DEFAULT_BY[task], "share")))
    for name in by:
        if name not in BY:
            raise unknown_name("kind of row", name, BY)
    if len({*by}) < len(by):
        raise SettingsError(f"by names what a row is, each kind once, but got {','.join(by)}.")
    if digits is not None and not 0 <= digits <= 15:
        raise SettingsError(f"digits counts places after the point, from 0 to 15, but got {digits}.")
    digits = (0 if measure in ("n_parameters", "n_macs") else 3) if digits is None else digits
    found = counted(results, measure, every_context="context" in by)
    notes = list(found.notes)
    planned = _planned(results.spec, found, by, notes)
    values = {cell: value for cell in planned if (value := found.values.get(cell)) is not None}
    protocols = list(dict.fromkeys(cell.protocol for cell in planned))
    names = [one.name for one in results.spec.all_models]
    floors = [name for name in names if name in results.spec.floor_names]
    ours = [*(name for name in names if name not in floors), *floors]
    beside = _beside(results, published, measure, set(protocols), all_published, notes)
    if columns is not None:
        known = [*ours, *(one.model for one in beside)]
        for name in columns:
            if name not in known:
                raise unknown_name("column", name, known)
        ours = [name for name in ours if name in columns or name in floors]
        beside = [one for one in beside if one.model in columns]
    here, have = {cell.model for cell in planned}, {cell.model for cell in values}
    notes += lacking(results, found, planned, [name for name in ours if name not in have])
    ours = [name for name in ours if name in have or (name in floors and name in here)]
    best = direction(task, measure)
    rows = _rows(planned, by, results.spec)
    made: list[tuple[tuple[str, ...], tuple[Entry, ...]]] = []
    quoted = [[_quoted(column, cells, measure, digits, everything=all_published) for _, cells in rows]
              for column in beside]  # fmt: skip
    n_draws: set[tuple[int, str]] = set()
    for number, (key, cells) in enumerate(rows):
        entries = [_entry(name, cells, values, results, digits, n_draws) for name in ours]
        entries = _marked(entries, ours, floors if measure not in COSTS else [], best, digits)
        entries += [column[number] for column in quoted if _has_number(column)]
        made.append((key if len(protocols) > 1 else key[:-1], tuple(entries)))
    if empty := [one.model for one, column in zip(beside, quoted, strict=True) if not _has_number(column)]:
        notes.append(f"Published, but for no whole row of this table: {', '.join(empty)}.")
    beside = [one for one, column in zip(beside, quoted, strict=True) if _has_number(column)]
    if len(protocols) > 1:
        notes.insert(0, "Rows are of two protocols; compare numbers only within rows of the same one.")
    notes += _remarks(results.spec, by, rows, made, n_draws, measure, values)
    notes += state(results, found, values)
    heads = [f"{name} (floor)" if name in floors else name for name in ours]
    sources = list(dict.fromkeys((one.protocol, one.source, one.told) for one in beside))
    marks = {source: _MARKS[n] if n < len(_MARKS) else f"[{n + 1}]" for n, source in enumerate(sources)}
    heads += [f"{one.model}{marks[one.protocol, one.source, one.told]}" for one in beside]
    notes += [f"{mark} Published, {protocol} protocol: {source}. {told[:1].upper()}{told[1:]}."
              for (protocol, source, told), mark in marks.items()]  # fmt: skip
    title = f"{results.spec.title or task}: {measure}, {_WISHES[best]}"
    if len(protocols) == 1:
        title += f"; protocol {protocols[0]}"
    keys = (*by, "protocol") if len(protocols) > 1 else by
    return TableView(title, keys, tuple(heads), tuple(made), tuple(notes), len(beside))


def _planned(spec: BenchSpec, found: Counted, by: Sequence[str], notes: list[str]) -> list[Cell]:
    """The cells that rows are made of, done or not; rows over several data sets leave out those that no mean counts."""
    planned = list(found.planned)
    if "share" not in by:
        by_share = ",".join((*_DEFAULT_BY[spec.task], "share"))
        if any(cell.train_share < 1 for cell in planned):
            notes.append(f"Only what learned from the whole training part is shown; --by {by_share} shows the rest.")
        planned = [cell for cell in planned if cell.train_share == 1]
        if not planned:
            raise DataError(f"Nothing here learns from the whole training part. Show shares: --by {by_share}.")
    if "data" in by:
        return planned
    in_mean = {one.name for one in spec.data if one.in_mean or ("collection" in by and _is_single(spec, one.name))}
    planned = [cell for cell in planned if cell.data in in_mean]
    if not planned:
        raise DataError("No mean counts any of the data sets (in_mean: false). Show them one by one: --by data.")
    return planned


def _is_single(spec: BenchSpec, data: str) -> bool:
    """Whether a data set is the only one of its collection."""
    return sum(_collection(one.name) == _collection(data) for one in spec.data) == 1


def _rows(planned: Sequence[Cell], by: tuple[str, ...], spec: BenchSpec) -> list[tuple[tuple[str, ...], list[Cell]]]:
    """Keys and cells of every row, in the order of the specification; the mean over horizons follows them."""
    place = {one.name: number for number, one in enumerate(spec.data)}
    rows: dict[tuple[object, ...], list[Cell]] = {}
    for cell in planned:
        key = tuple(_part(cell, name) for name in by)
        rows.setdefault((*key, cell.protocol), []).append(cell)
    means: dict[tuple[object, ...], list[Cell]] = {}
    if "horizon" in by:
        where = by.index("horizon")
        for key, cells in rows.items():
            means.setdefault((*key[:where], "avg", *key[where + 1 :]), []).extend(cells)
        n_horizons = {key: len({cell.horizon for cell in cells}) for key, cells in means.items()}
        rows |= {key: cells for key, cells in means.items() if n_horizons[key] > 1}
    if by in (("data",), ("collection",)) and len({key[0] for key in rows}) > 1:
        for cell in planned:
            if spec.data_entry(cell.data).in_mean:
                rows.setdefault(("mean", cell.protocol), []).append(cell)

    def order(key: tuple[object, ...]) -> tuple[object, ...]:
        cells = rows[key]
        first = min(place[cell.data] for cell in cells)
        parts = [(1, 0.0) if part in ("avg", "mean") else (0, part if isinstance(part, int | float) else 0.0)
                 for part in key[:-1]]  # fmt: skip
        return (key[0] == "mean", first, spec.protocols.index(str(key[-1])), parts)

    return [(tuple(_told(part) for part in key), rows[key]) for key in sorted(rows, key=order)]


def _part(cell: Cell, name: str) -> object:
    return {
        "data": cell.data, "collection": _collection(cell.data), "horizon": cell.horizon or "-",
        "context": cell.context_length or "-", "share": cell.train_share, "resample": cell.resample,
    }[name]  # fmt: skip


def _collection(data: str) -> str:
    return data.partition("/")[0]


def _told(part: object) -> str:
    return f"{part * 100:g} %" if isinstance(part, float) else str(part)


def _entry(
    name: str,
    cells: Sequence[Cell],
    values: Mapping[Cell, float],
    results: Results,
    digits: int,
    n_draws: set[tuple[int, str]],
) -> Entry:
    """Mean and spread of a model in a row; a model that lacks some of what the row covers has no mean there."""
    own = {cell: values[cell] for cell in cells if cell.model == name and cell in values}
    if not own:
        failed = any(cell.model == name and cell in results.failed for cell in cells)
        return Entry("failed" if failed else "–")
    units = {unit(cell) for cell in cells}
    if (n := len({unit(cell) for cell in own})) < len(units):
        return Entry(f"{n} of {len(units)}")
    drawn, kind = draws(own)
    n_draws.add((len(drawn), kind))
    text = f"{np.mean(drawn):,.{digits}f}".replace(",", _THIN)
    if len(drawn) > 1:
        text += f" ± {np.std(drawn, ddof=1):.{digits}f}"
    return Entry(text, float(np.mean(drawn)))


def _marked(
    entries: Sequence[Entry], names: Sequence[str], floors: Sequence[str], best: Direction, digits: int
) -> list[Entry]:
    """The same with the best in bold, and with a mark where a floor is better, if one value is better than another."""
    known = [entry.value for entry in entries if entry.value is not None]
    if not known or best not in ("lower", "higher"):
        return list(entries)
    upward = best == "higher"
    better = max if upward else min
    first = round(better(known), digits)
    floor = [e.value for e, name in zip(entries, names, strict=True) if name in floors and e.value is not None]
    marked: list[Entry] = []
    for entry, name in zip(entries, names, strict=True):
        worse = False
        if entry.value is not None and floor and name not in floors:
            worse = entry.value < better(floor) if upward else entry.value > better(floor)
        is_best = entry.value is not None and round(entry.value, digits) == first
        marked.append(Entry(entry.text, entry.value, is_best, worse))
    return marked


def _beside(
    results: Results,
    published: Sequence[Published] | None,
    measure: str,
    protocols: set[str],
    everything: bool,
    notes: list[str],
) -> list[Published]:
    """Published columns that have something to say in this table."""
    if published is None:  # a folder may hold files that an earlier specification named
        files = dict.fromkeys(Path(name).name for name in results.spec.published)
        published = [one for file in files for one in read_published(results.folder / "published" / file)]
    data = {one.name for one in results.spec.data}
    notes += _strangers(published, data)
    fitting = [one for one in published if one.task == results.spec.task
               and any(key[0] in data and key[2] == measure for key in one.values)]  # fmt: skip
    shown = [one for one in fitting if everything or one.protocol in protocols]
    if len(shown) < len(fitting):
        left = [one.model for one in fitting if one not in shown]
        notes.append(
            f"{len(left)} published columns are of another protocol and left out ({', '.join(left)}); --all-published "
            "shows them, marked."
        )
    if everything and any(protocols - {one.protocol} for one in shown):
        notes.append("‡ made by another protocol than this row's: not comparable with it.")
    return shown


def _strangers(published: Sequence[Published], data: Iterable[str]) -> list[str]:
    """A word on names of data sets that look like a slip of the pen: in no catalog, and close to one of ours."""
    notes: list[str] = []
    for name in dict.fromkeys(key[0] for one in published for key in one.values):
        near = [] if name in data else difflib.get_close_matches(name, data, n=1)
        if near and not _in_catalog(name):
            models = [one.model for one in published if any(key[0] == name for key in one.values)]
            notes.append(
                f"Published numbers of {', '.join(models)} are for {name!r}, which is no data set here or in the "
                f"catalog. Is {near[0]!r} meant?"
            )
    return notes


def _in_catalog(name: str) -> bool:
    from prismts.data.catalog import dataset

    try:
        return bool(dataset(name))
    except PrismError:
        return False


def _quoted(column: Published, cells: Sequence[Cell], measure: str, digits: int, *, everything: bool) -> Entry:
    """A published number for all that a row covers, counted and averaged as ours are."""
    same = column.protocol == cells[0].protocol
    if not (same or everything) or any(cell.resample or cell.train_share < 1 for cell in cells):
        return Entry("–")
    horizons: dict[str, set[int | None]] = {}
    for cell in cells:
        horizons.setdefault(cell.data, set()).add(cell.horizon)
    found: list[float] = []
    n_known = 0
    for data, steps in horizons.items():
        if (value := column.value(data, sorted(steps, key=lambda step: step or 0), measure)) is not None:
            found.append(value)
            n_known += len(steps)
        else:
            n_known += sum(column.value(data, [step], measure) is not None for step in steps)
    n = sum(map(len, horizons.values()))
    if n_known < n:
        return Entry(f"{n_known} of {n}" if n_known else "–")
    return Entry(f"{np.mean(found):.{digits}f}{'' if same else ' ‡'}", float(np.mean(found)))


def _has_number(entries: Sequence[Entry]) -> bool:
    return any(entry.value is not None for entry in entries)


def _remarks(
    spec: BenchSpec,
    by: tuple[str, ...],
    rows: Sequence[tuple[tuple[str, ...], Sequence[Cell]]],
    made: Sequence[tuple[tuple[str, ...], tuple[Entry, ...]]],
    n_draws: set[tuple[int, str]],
    measure: str,
    values: Mapping[Cell, float],
) -> list[str]:
    """What a reader must know besides the numbers."""
    notes: list[str] = []
    kinds: dict[str, list[int]] = {}
    for n, kind in sorted(n_draws):
        if n > 1:
            kinds.setdefault(kind, []).append(n)
    for kind, counts in kinds.items():
        number = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        notes.append(f"Mean ± standard deviation over {number} {kind}; without ± there is one.")
    entries = [entry for _, row in made for entry in row]
    if any(entry.below_floor for entry in entries):
        notes.append("↓ worse than the best floor of its row.")
    has_mean = any(key[0] == "mean" for key, _ in rows)
    outside = [one.name for one in spec.data if not one.in_mean]
    if outside and (has_mean or not {"data", "collection"} & {*by}):
        notes.append(f"The mean leaves out {', '.join(outside)}, as the specification says.")
    if has_mean and by == ("collection",) and not all(_is_single(spec, one.name) for one in spec.data):
        notes.append("The mean is over data sets: every series of a collection counts once.")
    if not {"data", "collection"} & {*by}:
        sets = {key: {cell.data for cell in cells} for key, cells in rows if "avg" not in key}
        if len({*map(frozenset, sets.values())}) > 1:
            told = ", ".join(f"{' '.join(key[: len(by)])}: {len(names)}" for key, names in sets.items())
            notes.append(f"Rows do not cover the same data sets ({told}); compare numbers within a row only.")
    if any(" of " in entry.text for entry in entries):
        notes.append("'n of m' stands where a model has no number for all that the row covers.")
    if measure == "mse" and any(cell.train_share < 1 for cell in values):
        notes.append(
            "Rows of different shares are standardized by what was learned from; mse_whole_scale compares them."
        )
    if "point_adjusted" in measure:
        notes.append("Point-adjusted F1 misleads: a random score reaches high numbers where events are long.")
    return notes


# ---- setting it


def render(view: TableView, form: Format = "terminal", *, width: int | None = None) -> str:
    """The table as text, Markdown, LaTeX (booktabs) or a page of HTML."""
    if form not in get_args(Format):
        raise unknown_name("format", form, get_args(Format))
    made = {"terminal": _terminal, "markdown": _markdown, "latex": _latex, "html": _html}[form]
    return made(view.parts(), width)


def _terminal(parts: list[TableView], width: int | None) -> str:
    import io

    from rich.console import Console
    from rich.markup import escape

    console = Console(file=io.StringIO(), force_terminal=width is None, width=width, no_color=width is not None)
    for view in parts:
        for number, few in enumerate(_fitting(view, console.width)):
            console.print(_grid(few, titled=number == 0))
    for note in parts[-1].notes:
        console.print(escape(note), highlight=False)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def _fitting(view: TableView, width: int) -> list[TableView]:
    """The table, or several with some of its columns each, so that each fits into a line."""
    own = [max(map(len, texts)) + 3 for texts in zip(view.keys, *(key for key, _ in view.rows), strict=True)]
    taken = [max(map(len, (name, *(row[i].whole for _, row in view.rows)))) + 3 for i, name in enumerate(view.columns)]
    cuts, room = [0], width - 1 - sum(own)
    for number, size in enumerate(taken):
        if sum(taken[cuts[-1] : number]) + size > room and number > cuts[-1]:
            cuts.append(number)
    strips = [view.some(begin, end) for begin, end in pairwise([*cuts, len(view.columns)])]
    return [strip.told() if view.n_quoted else strip for strip in strips]


def _grid(view: TableView, *, titled: bool) -> object:
    from rich.markup import escape
    from rich.table import Table

    grid = Table(title=escape(view.title) if titled else None, title_justify="left")
    for name in view.keys:
        grid.add_column(escape(name), no_wrap=True)
    for name in view.columns:
        grid.add_column(escape(name), justify="right")
    for number, (key, entries) in enumerate(view.rows):
        told = [f"[bold]{escape(e.whole)}[/bold]" if e.best else escape(e.whole) for e in entries]
        following = view.rows[number + 1][0] if number + 1 < len(view.rows) else key
        grid.add_row(*(escape(part) for part in key), *told, end_section="avg" in key or following[0] == "mean")
    return grid


def _markdown(parts: list[TableView], width: int | None) -> str:
    def cell(text: str) -> str:
        return text.replace("|", "\\|")

    lines: list[str] = []
    for view in parts:
        lines += [f"**{cell(view.title)}**", "", "| " + " | ".join(map(cell, (*view.keys, *view.columns))) + " |",
                  "|" + "---|" * len(view.keys) + "---:|" * len(view.columns)]  # fmt: skip
        for key, entries in view.rows:
            told = [f"**{cell(e.whole)}**" if e.best else cell(e.whole) for e in entries]
            lines.append("| " + " | ".join([*map(cell, key), *told]) + " |")
        lines += [""]
    lines += [f"- {cell(note)}" for note in parts[-1].notes]
    return "\n".join(lines).rstrip("\n") + "\n"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "↓": r"$\downarrow$", "‡": r"$\ddagger$",
    "–": "--", _THIN: r"\,", **{mark: f"$^{n}$" for n, mark in enumerate(_MARKS, 1)},
}  # fmt: skip


def _latex(parts: list[TableView], width: int | None) -> str:
    return "% needs \\usepackage{booktabs}\n" + "".join(map(_latex_table, parts))


def _latex_table(view: TableView) -> str:
    def cell(text: str) -> str:
        return "".join(_LATEX.get(letter, letter) for letter in text)

    head = " & ".join(map(cell, (*view.keys, *view.columns)))
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{cell(view.title)}}}",
             rf"\begin{{tabular}}{{{'l' * len(view.keys)}{'r' * len(view.columns)}}}", r"\toprule", rf"{head} \\",
             r"\midrule"]  # fmt: skip
    for number, (key, entries) in enumerate(view.rows):
        told = [rf"\textbf{{{cell(e.whole)}}}" if e.best else cell(e.whole) for e in entries]
        lines.append(" & ".join([*map(cell, key), *told]) + r" \\")
        if number + 1 < len(view.rows) and ("avg" in key or view.rows[number + 1][0][0] == "mean"):
            lines.append(r"\midrule")
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\footnotesize {cell(note)}" for note in view.notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


_CSS = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem;color-scheme:light dark}table{border-collapse:collapse}"
    "th,td{padding:.25rem .6rem;border-bottom:1px solid #8884;text-align:right;white-space:nowrap}"
    "th.key,td.key{text-align:left}.wide{overflow-x:auto}li{max-width:60rem}"
)


def _html(parts: list[TableView], width: int | None) -> str:
    cell, body = html.escape, ""
    for view in parts:
        head = "".join(f'<th class="key">{cell(name)}</th>' for name in view.keys)
        head += "".join(f"<th>{cell(name)}</th>" for name in view.columns)
        rows = ""
        for key, entries in view.rows:
            told = "".join(f"<td>{f'<b>{cell(e.whole)}</b>' if e.best else cell(e.whole)}</td>" for e in entries)
            rows += "<tr>" + "".join(f'<td class="key">{cell(part)}</td>' for part in key) + told + "</tr>\n"
        body += (
            f'<h1>{cell(view.title)}</h1>\n<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n'
            f"<tbody>\n{rows}</tbody></table></div>\n"
        )
    notes = "".join(f"<li>{cell(note)}</li>\n" for note in parts[-1].notes)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{cell(parts[0].title)}</title><style>{_CSS}</style></head>\n<body>{body}<ul>\n{notes}</ul></body></html>\n"
    )
