"""Tables of a benchmark: means and spread over seeds, floors always there, protocols never mixed unseen.

    print(render(table(read_results("results/forecasting")), "markdown"))

Rows are what ``by`` names (data and horizon in forecasting), columns are configurations, then published numbers, each
marked with its source; these are set as a table of their own, below ours. Rows of two protocols are told apart by a
column. Where a configuration was run with several contexts, validation chooses one for each row before any test score
is looked at.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal, get_args

import numpy as np

from prismts.benchmark.published import Published, read_published
from prismts.benchmark.results import Results
from prismts.benchmark.spec import Cell
from prismts.errors import DataError, unknown_name

__all__ = ["BY", "HEADLINES", "Entry", "Format", "TableView", "chosen", "higher_is_better", "render", "table"]

Format = Literal["terminal", "markdown", "latex", "html"]
HEADLINES = {"forecast": "mse", "classify": "accuracy", "detect": "vus_pr"}
COSTS = ("seconds", "cpu_seconds", "fit_seconds", "n_parameters", "n_macs")
BY = ("data", "collection", "horizon", "context", "share", "resample")
_DEFAULT_BY = {"forecast": ("data", "horizon"), "classify": ("data",), "detect": ("collection",)}
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
        ours = tuple((key, entries[:n_ours]) for key, entries in self.rows)
        quoted = replace(self.some(n_ours, len(self.columns)), title="Published numbers", n_quoted=0)
        return [replace(self, columns=self.columns[:n_ours], rows=ours, notes=(), n_quoted=0), quoted]

    def some(self, begin: int, end: int) -> TableView:
        """The columns from ``begin`` to before ``end``, and the rows in which they say something."""
        rows = ((key, entries[begin:end]) for key, entries in self.rows)
        told = tuple((key, entries) for key, entries in rows if any(entry.text != "–" for entry in entries))
        return replace(self, columns=self.columns[begin:end], rows=told)


def higher_is_better(task: str, measure: str) -> bool:
    """Whether a larger number is the better one."""
    from prismts.evaluation.classification import CLASSIFICATION_METRICS
    from prismts.evaluation.detection import DETECTION_METRICS

    if measure in COSTS:
        return False
    if task == "classify":
        return "higher is better" in CLASSIFICATION_METRICS.get(measure, "")
    return task == "detect" and measure in DETECTION_METRICS


def value_of(content: Mapping[str, object], measure: str) -> float | None:
    """A measure, or a cost, of a finished cell; None where it has none."""
    measures, made = content["measures"], content["chosen"]
    assert isinstance(measures, Mapping) and isinstance(made, Mapping)
    found: object = measures.get(measure, content.get(measure) if measure in COSTS else None)
    if measure == "fit_seconds":
        found = made["fit_seconds"]
    return None if found is None else float(found)  # type: ignore[arg-type]


def measures_of(results: Results) -> list[str]:
    """Every measure that some cell has, the headline first, costs last."""
    names = dict.fromkeys([HEADLINES[results.spec.task]])
    for content in results.cells.values():
        names.update(dict.fromkeys(content["measures"]))
    return [*names, *COSTS]


def check_measure(results: Results, measure: str | None) -> str:
    """The measure asked for, or the headline of the task; an unknown one is an error that offers a neighbor."""
    if not results.cells:
        raise DataError(
            f"{results.folder} has no finished cell of its specification"
            + (f" ({len(results.failed)} failed)" if results.failed else "") + ". Run it first: prism bench run."
        )  # fmt: skip
    measure = measure or HEADLINES[results.spec.task]
    if measure not in measures_of(results):
        raise unknown_name("measure", measure, measures_of(results))
    return measure


def chosen(results: Results, measure: str) -> tuple[dict[Cell, float], str]:
    """The cells that count and their values: one context for each configuration, data set and horizon.

    Where several contexts were run, the one with the best mean validation score over seeds is taken, for every
    configuration by the same rule. Also returns what was done, in words; "" where there was nothing to choose.

    Raises:
        DataError: cells of several contexts have no validation score to choose by.
    """
    groups: dict[Cell, dict[int | None, list[Cell]]] = {}
    for cell in results.cells:
        alike = Cell(cell.data, cell.model, 0, cell.protocol, None, cell.horizon, cell.resample, cell.train_share)
        groups.setdefault(alike, {}).setdefault(cell.context_length, []).append(cell)
    upward = higher_is_better(results.spec.task, measure)
    counted: list[Cell] = []
    several: set[int] = set()
    for alike, contexts in groups.items():
        if len(contexts) == 1:
            counted += next(iter(contexts.values()))
            continue
        scores: dict[int | None, float] = {}
        for context, cells in contexts.items():
            found = [_validation(results.cells[cell], measure) for cell in cells]
            if any(value is None for value in found):
                raise DataError(
                    f"{alike.data} was run with several contexts, and no validation score tells which one "
                    f"{alike.model!r} should have. Show them all: --by {','.join(_DEFAULT_BY[results.spec.task])},"
                    "context."
                )
            scores[context] = float(np.mean([value for value in found if value is not None]))
            several.add(context or 0)
        best = max(scores, key=lambda c: scores[c] if upward else -scores[c])
        counted += contexts[best]
    values = {cell: value for cell in counted if (value := value_of(results.cells[cell], measure)) is not None}
    told = ""
    if several:
        told = (
            f"Context: of {', '.join(map(str, sorted(several)))} steps, validation chose one for each model, data set "
            "and horizon."
        )
    return values, told


def _validation(content: Mapping[str, object], measure: str) -> float | None:
    validation = content.get("validation")
    if not isinstance(validation, Mapping):
        return None
    found: object = validation.get(measure, validation.get("mse"))
    return None if found is None else float(found)  # type: ignore[arg-type]


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
        by: what a row is, of ``BY``; everything else is averaged. Rows of several horizons get one for their mean.
        published: columns beside ours; those kept in the folder if None.
        all_published: also show numbers made by another protocol than the row's, marked ‡.
        columns: names of configurations and published models to show; floors stay. All if None.
        digits: after the point.
    """
    task, measure = results.spec.task, check_measure(results, measure)
    by = tuple(by or _DEFAULT_BY[task])
    for name in by:
        if name not in BY:
            raise unknown_name("kind of row", name, BY)
    notes: list[str] = []
    if "context" in by:
        values = {cell: v for cell, content in results.cells.items() if (v := value_of(content, measure)) is not None}
    else:
        values, told = chosen(results, measure)
        notes += [told] if told else []
    if "share" not in by and any(cell.train_share < 1 for cell in values):
        values = {cell: value for cell, value in values.items() if cell.train_share == 1}
        notes.append("Only what learned from the whole training part is shown; --by data,share shows the rest.")
    digits = (0 if measure in ("n_parameters", "n_macs") else 3) if digits is None else digits
    protocols = list(dict.fromkeys(cell.protocol for cell in values))
    rows = _rows(list(values), by, results)
    planned = [cell for cell in results.spec.cells if "share" in by or cell.train_share == 1]
    covered = dict(_rows(planned, by, results))  # done or not: a mean over a part of a row is no mean of it
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
    unknown = [name for name in ours if name not in floors and all(cell.model != name for cell in values)]
    if unknown:
        ours = [name for name in ours if name not in unknown]
        notes.append(f"No result yet: {', '.join(unknown)}.")
    upward = higher_is_better(task, measure)
    made: list[tuple[tuple[str, ...], tuple[Entry, ...]]] = []
    n_draws: set[tuple[int, str]] = set()
    for key, cells in rows:
        row_protocol = next(iter(cells)).protocol
        units = {_unit(cell) for cell in covered[key]}
        entries = [_entry({c: values[c] for c in cells if c.model == name}, units, digits, n_draws) for name in ours]
        entries = _marked(entries, ours, floors if measure not in COSTS else [], upward, digits)
        entries += [
            _quoted(column, cells, measure, digits, same=column.protocol == row_protocol)
            if all_published or column.protocol == row_protocol
            else Entry("–")
            for column in beside
        ]
        shown = key if len(protocols) > 1 else key[:-1]
        made.append((shown, tuple(entries)))
    keys = (*by, "protocol") if len(protocols) > 1 else tuple(by)
    if len(protocols) > 1:
        notes.insert(0, "Rows are of two protocols; compare numbers only within rows of the same one.")
    notes += _remarks(results, made, n_draws, floors, measure, values)
    heads = [f"{name} (floor)" if name in floors else name for name in ours]
    sources = list(dict.fromkeys((one.protocol, one.source, one.told) for one in beside))
    marks = {source: _MARKS[n] if n < len(_MARKS) else f"[{n + 1}]" for n, source in enumerate(sources)}
    heads += [f"{one.model}{marks[one.protocol, one.source, one.told]}" for one in beside]
    notes += [f"{mark} Published, {protocol} protocol: {source}. {told[:1].upper()}{told[1:]}."
              for (protocol, source, told), mark in marks.items()]  # fmt: skip
    title = f"{results.spec.title or task}: {measure}, {'higher' if upward else 'lower'} is better"
    if len(protocols) == 1:
        title += f"; protocol {protocols[0]}"
    return TableView(title, keys, tuple(heads), tuple(made), tuple(notes), len(beside))


def _rows(done: Sequence[Cell], by: Sequence[str], results: Results) -> list[tuple[tuple[str, ...], list[Cell]]]:
    """Keys and cells of every row, in the order of the specification; the mean over horizons follows them."""
    place = {one.name: number for number, one in enumerate(results.spec.data)}
    rows: dict[tuple[object, ...], list[Cell]] = {}
    for cell in done:
        key = tuple(_part(cell, name) for name in by)
        rows.setdefault((*key, cell.protocol), []).append(cell)
    means: dict[tuple[object, ...], list[Cell]] = {}
    if "horizon" in by:
        where = list(by).index("horizon")
        for key, cells in rows.items():
            means.setdefault((*key[:where], "avg", *key[where + 1 :]), []).extend(cells)
        n_horizons = {key: len({cell.horizon for cell in cells}) for key, cells in means.items()}
        rows |= {key: cells for key, cells in means.items() if n_horizons[key] > 1}
    if (
        by[0] in ("data", "collection")
        and len({key[0] for key in rows}) > 1
        and tuple(by) in (("data",), ("collection",))
    ):
        for protocol in dict.fromkeys(cell.protocol for cell in done):
            rows["mean", protocol] = [
                cell for cell in done if cell.protocol == protocol and results.spec.data_entry(cell.data).in_mean
            ]
        rows = {key: cells for key, cells in rows.items() if cells}

    def order(key: tuple[object, ...]) -> tuple[object, ...]:
        cells = rows[key]
        first = min(place[cell.data] for cell in cells)
        parts = [(1, 0.0) if part in ("avg", "mean") else (0, part if isinstance(part, int | float) else 0.0)
                 for part in key[:-1]]  # fmt: skip
        return (key[0] == "mean", first, results.spec.protocols.index(str(key[-1])), parts)

    return [(tuple(_told(part) for part in key), rows[key]) for key in sorted(rows, key=order)]


def _part(cell: Cell, name: str) -> object:
    return {
        "data": cell.data, "collection": cell.data.partition("/")[0], "horizon": cell.horizon or "-",
        "context": cell.context_length or "-", "share": cell.train_share, "resample": cell.resample,
    }[name]  # fmt: skip


def _told(part: object) -> str:
    return f"{part * 100:g} %" if isinstance(part, float) else str(part)


def _unit(cell: Cell) -> tuple[object, ...]:
    """What a row's mean is over; seeds are draws of the same unit."""
    return cell.data, cell.horizon, cell.resample, cell.train_share


def _entry(
    own: Mapping[Cell, float], units: set[tuple[object, ...]], digits: int, n_draws: set[tuple[int, str]]
) -> Entry:
    """Mean and spread of a model in a row; a model that lacks some of what the row covers has no mean there."""
    if not own:
        return Entry("–")
    by_unit: dict[tuple[object, ...], dict[int, float]] = {}
    for cell, value in own.items():
        by_unit.setdefault(_unit(cell), {})[cell.seed] = value
    if set(by_unit) != units:
        return Entry(f"{len(by_unit)} of {len(units)}")
    resamples = {unit[2] for unit in by_unit}
    if len(resamples) > 1:  # another draw of cases says more than another seed on the same
        draws = [float(np.mean([np.mean(list(seeds.values())) for unit, seeds in by_unit.items() if unit[2] == r]))
                 for r in resamples]  # fmt: skip
        kind = "resamples"
    else:
        common = sorted(set.intersection(*(set(seeds) for seeds in by_unit.values())))
        draws = [float(np.mean([seeds[seed] for seeds in by_unit.values()])) for seed in common]
        kind = "seeds"
    mean = float(np.mean([np.mean(list(seeds.values())) for seeds in by_unit.values()]))
    text = f"{mean:,.{digits}f}".replace(",", _THIN)
    if len(draws) > 1:
        text += f" ± {np.std(draws, ddof=1):.{digits}f}"
    n_draws.add((len(draws), kind))
    return Entry(text, mean)


def _marked(
    entries: Sequence[Entry], names: Sequence[str], floors: Sequence[str], upward: bool, digits: int
) -> list[Entry]:
    """The same with the best in bold, and with a mark where a floor is better."""
    known = [entry.value for entry in entries if entry.value is not None]
    if not known:
        return list(entries)
    better = max if upward else min
    best = round(better(known), digits)
    floor = [e.value for e, name in zip(entries, names, strict=True) if name in floors and e.value is not None]
    marked: list[Entry] = []
    for entry, name in zip(entries, names, strict=True):
        worse = False
        if entry.value is not None and floor and name not in floors:
            worse = entry.value < better(floor) if upward else entry.value > better(floor)
        is_best = entry.value is not None and round(entry.value, digits) == best
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
    if published is None:
        published = [
            one for file in sorted((results.folder / "published").glob("*.yaml")) for one in read_published(file)
        ]
    data = {one.name for one in results.spec.data}
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


def _quoted(column: Published, cells: Sequence[Cell], measure: str, digits: int, *, same: bool) -> Entry:
    """A published number for a row of one data set."""
    sets = {cell.data for cell in cells}
    horizons = sorted({cell.horizon for cell in cells}, key=lambda h: h or 0)
    if len({(cell.train_share, cell.resample) for cell in cells}) > 1 or any(cell.train_share < 1 for cell in cells):
        return Entry("–")
    found = [column.value(data, horizons, measure) for data in sorted(sets)]
    known = [value for value in found if value is not None]
    if not known or len(known) < len(found):
        return Entry("–")
    return Entry(f"{np.mean(known):.{digits}f}{'' if same else ' ‡'}")


def _remarks(
    results: Results,
    rows: Sequence[tuple[tuple[str, ...], tuple[Entry, ...]]],
    n_draws: set[tuple[int, str]],
    floors: Sequence[str],
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
    entries = [entry for _, row in rows for entry in row]
    if any(entry.below_floor for entry in entries):
        notes.append("↓ worse than the best floor of its row.")
    outside = [one.name for one in results.spec.data if not one.in_mean]
    if outside and any(key[0] == "mean" for key, _ in rows):
        notes.append(f"The mean leaves out {', '.join(outside)}, as the specification says.")
    lacking = [name for name in floors if not any(cell.model == name for cell in values)]
    if lacking:
        notes.append(f"The floors {', '.join(lacking)} have no result yet.")
    if any(" of " in entry.text for entry in entries):
        notes.append("'n of m' stands where a model has not been run on all that the row covers.")
    if measure == "mse" and any(cell.train_share < 1 for cell in values):
        notes.append(
            "Rows of different shares are standardized by what was learned from; mse_whole_scale compares them."
        )
    if "point_adjusted" in measure:
        notes.append("Point-adjusted F1 misleads: a random score reaches high numbers where events are long.")
    by_data: dict[str, set[str]] = {}
    for cell in values:
        by_data.setdefault(cell.data, set()).add(str(results.cells[cell]["data_hash"]))
    for name, hashes in by_data.items():
        if len(hashes) > 1:
            notes.append(f"Cells of {name} were made from different data: {', '.join(sorted(hashes))}.")
    states = {str(results.cells[cell]["versions"].get("prismts_files")) for cell in values}
    if len(states) > 1:
        notes.append(f"Cells were made by {len(states)} states of the package's files; results.parquet tells which.")
    n = len(results.spec.cells)
    if len(results.cells) < n:
        notes.append(
            f"{len(results.cells)} of {n} cells are done"
            + (f", {len(results.failed)} failed" if results.failed else "")
            + "."
        )
    if results.changed:
        notes.append(
            f"{len(results.changed)} cells were made with other settings and are left out (prism bench run --redo)."
        )
    if results.foreign:
        notes.append(f"{len(results.foreign)} cells in the folder are not of its specification and are left out.")
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
    return [view.some(begin, end) for begin, end in pairwise([*cuts, len(view.columns)])]


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
