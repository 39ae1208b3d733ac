"""The tables of docs/results.md, from what ``prism bench run`` left in benchmarks/results.

python benchmarks/results_page.py

A table stands between two marks of the page, ``<!-- NAME begins -->`` and ``<!-- NAME ends -->``; what stands between
them is replaced, the text around them is written by hand. A benchmark without results yet says so there.
"""

import contextlib
from pathlib import Path

from prismts.benchmark.compare import compare
from prismts.benchmark.results import read_results
from prismts.benchmark.tables import render, table
from prismts.errors import DataError

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "results.md"
TABLES = {  # mark: folder of results, and how each of its tables is made
    "forecasting": ("forecasting", [{"by": ["data"]}, {"by": ["data", "horizon"]}, {"measure": "mae"}]),
    "costs": ("forecasting", [{"by": ["data"], "measure": "fit_seconds", "digits": 0}]),
    "contexts": ("contexts", [{"by": ["data"]}, {"by": ["data", "horizon"]}]),
    "wide": ("wide", [{"by": ["data"]}, {"by": ["data", "horizon"]}]),
    "ablations": ("ablations", [{}]),
    "shares": (
        "ablations",
        [{"by": ["data", "horizon", "share"], "measure": "mse_whole_scale", "columns": ["base_small", "ridge_small"]}],
    ),
    "classification": ("classification_cells", [{}, {"measure": "balanced_accuracy"}]),
    "detection": ("detection_cells", [{}, {"measure": "auc_pr"}, {"measure": "best_affiliation_f1"}]),
}


def tables(folder: Path, kinds: list[dict]) -> str:
    """Markdown of every table of a folder, or a word that there is none."""
    if not (folder / "spec.json").exists():
        return "Not run yet."
    results = read_results(folder)
    return "\n".join(render(table(results, **kind), "markdown") for kind in kinds)


def against(folder: Path, base: str) -> str:
    """What every other configuration does to the error of one: all blocks that both have, in percent, with interval."""
    if not (folder / "spec.json").exists():
        return "Not run yet."
    results = read_results(folder)
    rows = [f"| configuration | blocks | seeds | MSE against {base} | so |", "|---|---|---|---|---|"]
    for one in results.spec.models:
        with contextlib.suppress(DataError):  # nothing in common yet
            if one.name != base:
                found = compare(results, models=[one.name, base], over="data,horizon")
                counts = sorted({len(found.blocks.seeds[block, one.name]) for block in found.blocks.names})
                seeds = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
                change = found.differences[0]
                clear = change.low > 0 or change.high < 0
                said = ("worse" if change.mean > 0 else "better") if clear else "no clear difference"
                told = f"{change.mean:+.1f} % [{change.low:+.1f}, {change.high:+.1f}]"
                rows.append(f"| {one.name} | {', '.join(found.blocks.names)} | {seeds} | {told} | {said} |")
    return "\n".join(rows)


def put(page: Path, name: str, text: str) -> None:
    """Text in place of what stands between two marks of a page."""
    begin, end = f"<!-- {name} begins -->", f"<!-- {name} ends -->"
    before, rest = page.read_text(encoding="utf-8").split(begin)
    _, after = rest.split(end)
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    for name, (folder, kinds) in TABLES.items():
        put(PAGE, name, tables(RESULTS / folder, kinds))
    put(PAGE, "differences", against(RESULTS / "ablations", "base"))
