"""What the rule and a search are worth beside the authors' settings: one file per cell; a killed run resumes.

python benchmarks/search_rule.py run [--only ETTh2] [--trials 12] [--seeds 1]    # validation; see --dry-run
python benchmarks/search_rule.py table                                           # Markdown from the cells
python benchmarks/search_rule.py test                                            # the last step: reads test parts once

Four architectures, trained alike (``benchmarks/specs/search_*.yaml`` says how), so that what differs is the shape of
the network and what a search may change besides, its learning rate and dropout:

- ``authors``: patches, kernels, width, dropout and starting values of the ConvTimeNet authors' setting for the set;
- ``default``: this package's default;
- ``rule``: what ``model="auto"`` proposes, without any training;
- ``search``: the best of a short search that begins with the rule and the default, within the specification's budget.

A search is judged by the seed it searched with and flatters itself; so all four are trained again with seeds the search
has not seen. Whatever is compared is compared on validation; ``test`` scores each of the four once and nothing is
chosen after it.
"""

import argparse
import json
import os
import platform
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from prismts import __version__
from prismts.analysis.shape import macs_of, tap_use
from prismts.benchmark.search import run_search
from prismts.benchmark.search_results import read_found
from prismts.benchmark.search_space import Candidate, Place, rule_candidate
from prismts.benchmark.search_spec import SearchSpec, read_search
from prismts.benchmark.search_trial import Ground, ground
from prismts.estimators.case_recipes import CLASSIFY_SETTINGS
from prismts.estimators.recipes import FORECAST_SETTINGS
from prismts.models import make_settings
from prismts.models.convtimenet import ConvTimeNetConfig
from prismts.writing import write_whole

HERE = Path(__file__).parent
CELLS = HERE / "results" / "search_rule"
STUDIES = HERE.parent / "runs" / "search_rule"  # Optuna's databases, which a search resumes from
SETS = ("ETTh2", "ILI", "AWR", "EP")
CONTESTANTS = ("authors", "default", "rule", "search")
FIRST_SEED = 1  # the searches have seed 0


def specification(name: str, trials: int | None = None) -> SearchSpec:
    spec = read_search(HERE / "specs" / f"search_{name}.yaml")
    return spec if trials is None else replace(spec, trials=trials)


def contestant(kind: str, spec: SearchSpec, data: Ground) -> Candidate:
    """A candidate; the architecture of the authors is written out here."""
    place = data.place
    if kind == "rule":
        return rule_candidate(place)
    if kind == "search":
        best = read_found(spec, STUDIES / f"{spec.data}.search").best
        assert best is not None
        return of_arguments(best.arguments, spec, place)
    if kind == "authors":
        settings = FORECAST_SETTINGS if spec.task == "forecast" else CLASSIFY_SETTINGS
        return made({**place.base, "feed_forward": 256, **settings[f"published/{spec.data}"].model}, {}, place)
    return made(dict(place.own), {}, place)


def of_arguments(arguments: dict, spec: SearchSpec, place: Place) -> Candidate:
    """The candidate that an estimator with these arguments trains."""
    model = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments["model_settings"].items()}
    fit = {k: v for k, v in arguments["fit_settings"].items() if k not in spec.fit}
    return made({**place.base, **model}, fit, place)


def made(model: dict, fit: dict, place: Place) -> Candidate:
    config = make_settings(ConvTimeNetConfig, model)
    n = config.n_tokens(place.site.n_timepoints)
    return Candidate(
        model=model, fit=fit, n_tokens=n, macs=macs_of(config, place.site), taps=tap_use(config.kernel_sizes, n)
    )


def cell_file(name: str, kind: str, seed: int) -> Path:
    return CELLS / f"{name}-{kind}-{seed}.json"


def write(file: Path, content: dict) -> None:
    write_whole(file, json.dumps(content, indent=1) + "\n")


def read(file: Path) -> dict | None:
    return json.loads(file.read_text()) if file.exists() else None


def run(args: argparse.Namespace) -> None:
    for name in SETS:
        if args.only not in name:
            continue
        spec = specification(name, args.trials)
        cells = [(kind, seed) for seed in range(FIRST_SEED, FIRST_SEED + args.seeds) for kind in CONTESTANTS]
        missing = [cell for cell in cells if not cell_file(name, *cell).exists()]
        print(f"{name}: search of {spec.trials} trials, {len(missing)} of {len(cells)} cells to run", flush=True)
        if args.dry_run:
            continue
        run_search(
            spec, STUDIES / f"{name}.search",
            tell=lambda told: print(f"  trial {told.number} {told.outcome} {told.value} {told.told}", flush=True),
        )  # fmt: skip
        best = read_found(spec, STUDIES / f"{name}.search").best
        assert best is not None
        for kind, seed in cells:
            known = read(cell_file(name, kind, seed))
            newer = kind == "search" and known is not None and known.get("best_trial") != best.number
            if known is not None and ("test" in known or not newer):  # what was tested is never made anew
                continue
            began = time.process_time()
            data = ground(replace(spec, seed=seed))
            one = contestant(kind, spec, data)
            judged = data.judge(one)
            write(cell_file(name, kind, seed), {
                "data": name, "contestant": kind, "seed": seed, "validation": dict(judged.scores),
                "n_scored": judged.n_scored, "counted": judged.counted, "score": spec.score, "macs": one.macs,
                "n_tokens": one.n_tokens, "taps": list(one.taps), "arguments": data.arguments(one),
                "cpu_seconds": time.process_time() - began, "data_hash": data.data_hash,
                "best_trial": best.number if kind == "search" else None,
                "trials": spec.trials if kind == "search" else None, "prismts": __version__,
                "python": platform.python_version(),
            })  # fmt: skip
            print(f"  {kind} seed {seed}: {spec.score} {judged.scores[spec.score]:.4f}", flush=True)


def test(args: argparse.Namespace) -> None:
    """Reads every test part once per cell; nothing is chosen after it."""
    for name in SETS:
        for file in sorted(CELLS.glob(f"{name}-*.json")):
            cell = read(file)
            if args.only not in name or "test" in cell:
                continue
            spec = specification(name)
            data = ground(replace(spec, seed=cell["seed"]))
            judged = data.test(of_arguments(cell["arguments"], spec, data.place))
            cell["test"] = {"scores": dict(judged.scores), "n_scored": judged.n_scored, "counted": judged.counted}
            write(file, cell)
            print(f"{file.stem}: {cell['test']['scores']}", flush=True)


def table(args: argparse.Namespace) -> None:
    measures = {"forecast": ("mse", "mae"), "classify": ("log_loss", "accuracy")}
    print("| data | contestant | seeds | MACs | tokens | taps used | validation | | test | |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in SETS:
        spec = specification(name)
        for kind in CONTESTANTS:
            cells = [read(file) for file in sorted(CELLS.glob(f"{name}-{kind}-*.json"))]
            if not cells:
                continue
            told = []
            for part in ("validation", "test"):
                for measure in measures[spec.task]:
                    scores = [cell[part] if part == "validation" else cell.get("test", {}).get("scores")
                              for cell in cells]  # fmt: skip
                    values = [one[measure] for one in scores if one]
                    told.append(f"{measure} {np.mean(values):.4f}" if values else "not read")
            one = cells[0]
            taps = f"{one['taps'][0]} of {one['taps'][1]}"
            print(f"| {name} | {kind} | {len(cells)} | {one['macs']:,} | {one['n_tokens']} | {taps} | "
                  f"{' | '.join(told)} |")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("step", choices=("run", "table", "test"))
    parser.add_argument("--only", default="", help="only data sets whose name contains this text")
    parser.add_argument("--trials", type=int, help="of each search, in place of the specification's")
    parser.add_argument("--seeds", type=int, default=1, help="seeds of every contestant, from 1")
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args()
    {"run": run, "table": table, "test": test}[arguments.step](arguments)
