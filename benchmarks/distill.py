"""Students of at most a tenth of their teacher: taught and alone, one file per data set and seed; a killed run resumes.

python benchmarks/distill.py run            # what is missing; see --only
python benchmarks/distill.py table          # Markdown from the cells; --write puts it into docs/adapting.md
python benchmarks/distill.py run --tiny     # seconds instead of minutes, to see that it works; written elsewhere

A cell trains a teacher (the default forecaster with five networks, or the default classifier), then students of the
same model in small, without a line beside them, that hold at most a tenth of the teacher's numbers. Four students are
taught (two learning rates, two weights of the teacher) and four learn alone (four learning rates), so that both sides
have as many tries; validation chooses one of each, and the test part is read once, for these two and the teacher.

Skill is what a model takes off the error of the last value, 1 - MSE / MSE of the last value, or off what guessing
misses, (accuracy - 1 / K) / (1 - 1 / K). What a student keeps is its skill over that of its teacher. The goal: a taught
student keeps 97 % and is ahead of the same student alone.

Expected on one CPU core: about 15 minutes for a cell of ETTh1 or ETTh2, 5 for AWR and 4 for EP. The trainings of a cell
resume after their last epoch, and a teacher's answers are kept, in runs/distill/.
"""

import argparse
import json
import platform
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import prismts
from prismts.estimators.distilling import Measured, distill, measured, n_numbers, smaller
from prismts.writing import write_whole

RESULTS = Path(__file__).parent / "results" / "distill"
RUNS = Path(__file__).parents[1] / "runs"
PAGE = Path(__file__).parents[1] / "docs" / "adapting.md"
SEEDS = (0, 1, 2)
HORIZON, CONTEXT = 96, 512
SHARE = 0.1
TAUGHT = [(rate, weight) for rate in (5e-4, 2e-3) for weight in (0.5, 0.9)]
ALONE = (2.5e-4, 5e-4, 1e-3, 2e-3)


def specification() -> list[dict]:
    """Every cell: data set and seed."""
    return [{"data": name, "seed": seed} for seed in SEEDS for name in ("ETTh2", "ETTh1", "EP", "AWR")]


def name_of(cell: dict) -> str:
    """A file name that says what the cell is."""
    return f"{cell['data']}-{cell['seed']}.json"


def run(cell: dict, home: Path, *, tiny: bool) -> None:
    """Teacher, students, choice, test; written at once."""
    target = home / name_of(cell)
    if target.exists():
        return
    runs, began = RUNS / home.name / target.stem, time.perf_counter()
    data: Any = prismts.load_dataset(cell["data"])
    forecasts = hasattr(data, "borders")
    teacher = _teacher(data, cell, runs, forecasts=forecasts, tiny=tiny)
    source = data if forecasts else data.train
    arguments = {"validation": data.borders} if forecasts else {}
    epochs = {"max_epochs": 1} if tiny else {"max_epochs": 20, "patience": 4} if forecasts else {}
    tries: dict[str, list[dict]] = {"taught": [], "alone": []}
    best: dict[str, Any] = {}
    todo = [("taught", rate, weight) for rate, weight in TAUGHT] + [("alone", rate, 0.0) for rate in ALONE]
    for kind, rate, weight in todo[::4] if tiny else todo:
        mark = f"{kind}-{rate:g}-{weight:g}"
        more = {} if forecasts else {"refit": True}
        student: Any = smaller(
            teacher, share=SHARE, random_state=cell["seed"], run_folder=runs / mark, progress=False,
            fit_settings={"learning_rate": rate, **epochs}, **more,
        )  # fmt: skip
        if kind == "taught":
            distill(teacher, student, source, weight=weight, cache=runs / "answers", **arguments)
        else:
            student.fit(source, **arguments)
        found = student.fit_result_.best_loss if forecasts else student.validation_scores_["log_loss"]
        tries[kind].append({"learning_rate": rate, "weight": weight, "validation": found})
        if found == min(one["validation"] for one in tries[kind]):
            best[kind] = student
    where = {"begin": data.borders.validation_end, "end": data.borders.test_end} if forecasts else {}
    judge = data if forecasts else data.test
    if tiny:
        where = {"begin": data.borders.test_end - 300, "end": data.borders.test_end} if forecasts else {}
    scored = {name: measured(one, judge, **where) for name, one in {"teacher": teacher, **best}.items()}
    floor = _floor(data, where, forecasts=forecasts)
    assert n_numbers(best["taught"].model_) <= SHARE * n_numbers(teacher.model_)
    result = {
        **cell, "tries": tries, "floor": floor, "measured": {name: _plain(one) for name, one in scored.items()},
        "student": dict(best["taught"].model_settings), "seconds": time.perf_counter() - began, "tiny": tiny,
        "test": where or "the official test part",
        "versions": {"prismts": prismts.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    write_whole(target, json.dumps(result, indent=1) + "\n")
    shutil.rmtree(runs)
    told = {name: {k: round(v, 4) for k, v in one.scores.items() if k in ("mse", "accuracy")}
            for name, one in scored.items()}  # fmt: skip
    print(target.name, told, f"{result['seconds']:.0f} s", flush=True)


def _teacher(data: Any, cell: dict, runs: Path, *, forecasts: bool, tiny: bool) -> Any:
    """The teacher of a cell, trained or, where a killed run has saved it, loaded."""
    if (runs / "teacher").exists():
        return prismts.load(runs / "teacher")
    short = {"max_epochs": 1} if tiny else None
    common = {"random_state": cell["seed"], "run_folder": runs / "teaching", "fit_settings": short, "progress": False}
    if forecasts:
        members = 2 if tiny else 5
        teacher = prismts.Forecaster(
            setting="chosen_line", context_length=CONTEXT, horizon=HORIZON, n_members=members, **common
        )
        teacher.fit(data, validation=data.borders)
    else:
        teacher = prismts.Classifier(**common)
        teacher.fit(data.train)
    teacher.save(runs / "teacher")
    return teacher


def _floor(data: Any, where: dict, *, forecasts: bool) -> float:
    """The mean squared error of the last value on the same windows, or the share of wrong guesses."""
    if not forecasts:
        return 1 - 1 / len(np.unique(data.labels))
    last = prismts.Forecaster("last_value", context_length=CONTEXT, horizon=HORIZON)
    return last.fit(data, validation=data.borders).backtest(data, **where).scores["mse"]


def _plain(one: Measured) -> dict:
    return {"scores": dict(one.scores), "numbers": one.n_parameters, "latency": one.latency, "bytes": one.size}


def _error(one: dict) -> float:
    scores = one["scores"]
    return scores["mse"] if "mse" in scores else 1 - scores["accuracy"]


def table(home: Path) -> str:
    """One row per data set: errors, and what the students keep of the teacher's skill; mean and spread over seeds."""
    groups: dict[str, list[dict]] = {}
    for file in sorted(home.glob("*.json")):
        cell = json.loads(file.read_text())
        groups.setdefault(cell["data"], []).append(cell)
    lines = [
        "| data | seeds | measure | teacher | taught | alone | taught keeps | alone keeps | numbers: teacher / student "
        "| ms for one answer | kilobytes on disk |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for data, cells in sorted(groups.items()):
        kinds = ("teacher", "taught", "alone")
        error = {kind: np.array([_error(cell["measured"][kind]) for cell in cells]) for kind in kinds}
        skill = {kind: 1 - error[kind] / np.array([cell["floor"] for cell in cells]) for kind in kinds}
        forecasts = "mse" in cells[0]["measured"]["teacher"]["scores"]
        shown = error if forecasts else {kind: 1 - one for kind, one in error.items()}
        columns = [_spread(shown[kind], ".4f") for kind in kinds]
        columns += [_spread(skill[kind] / skill["teacher"], ".1%") for kind in kinds[1:]]
        for name, form, unit in (("numbers", ",.0f", 1.0), ("latency", ".1f", 1e-3), ("bytes", ",.0f", 1e3)):
            costs = [np.mean([cell["measured"][kind][name] for cell in cells]) / unit for kind in ("teacher", "taught")]
            columns.append(" / ".join(format(cost, form) for cost in costs))
        lines.append(f"| {data} | {len(cells)} | {'MSE' if forecasts else 'accuracy'} | {' | '.join(columns)} |")
    return "\n".join(lines)


def _spread(values: np.ndarray, form: str) -> str:
    mean = format(values.mean(), form)
    return f"{mean} ± {format(values.std(ddof=1), form)}" if len(values) > 1 else mean


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--only", default="", help="run only cells whose file name contains this text")
    parser.add_argument("--write", action="store_true", help="put the table into docs/adapting.md")
    parser.add_argument("--tiny", action="store_true", help="one epoch, few windows: only to see that it works")
    arguments = parser.parse_args()
    place = RESULTS.with_name("distill-tiny") if arguments.tiny else RESULTS
    place.mkdir(parents=True, exist_ok=True)
    if arguments.what == "run":
        for one in specification():
            if arguments.only in name_of(one):
                run(one, place, tiny=arguments.tiny)
    elif arguments.write:
        from results_page import put  # the script beside this one

        put(PAGE, "distilled", table(place))
    else:
        print(table(place))
