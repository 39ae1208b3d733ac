"""The classification table, ours beside the floors: one file per cell; a killed run resumes.

python benchmarks/classification.py run            # what is missing; see --only
python benchmarks/classification.py table          # Markdown from the cells

Every floor runs with the settings of its authors, and ours with its defaults: what ours chooses, it chooses on training
cases that it leaves out. Three of ours: ``prismts`` is ``Classifier()``, ``prismts_network`` the same without the
closed-form classifier, ``published`` the authors' setting for the five of their sets that are here, trained for all of
its 100 epochs on all training cases (the last epoch, no validation).

The archive's split (resample 0) has three seeds, or one where a floor draws nothing at random. Sets of at most 700
cases have nine more resamples (``prismts.data.resample``, seeds 1 to 9), each with one seed. Left out for cost:
1-NN DTW
on the resamples of SRS2 (1152 steps) and HandMovementDirection (400 steps), all but one seed of the floors
on PenDigits, where the ridge classifier of 7494 cases takes minutes, and the resamples of ``prismts_network`` and
``published``. What takes minutes runs last.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch and numba load: seconds are of one core
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import numpy as np
from sklearn.metrics import accuracy_score, balanced_accuracy_score

import prismts
from prismts.data.resample import resampled
from prismts.estimators.classifier import Classifier
from prismts.evaluation.classification import classification_scores
from prismts.evaluation.protocols import data_hash
from prismts.models.case_floors import CASE_FLOORS, case_floor
from prismts.writing import write_whole

CELLS = Path(__file__).parent / "results" / "classification"
SETS = ("AWR", "EP", "FM", "JV", "SRS2", "BasicMotions", "NATOPS", "ERing", "Handwriting", "Libras", "PenDigits",
        "AtrialFibrillation", "HandMovementDirection")  # fmt: skip
SEEDS = (0, 1, 2)
N_RESAMPLES = 10  # the archive's split among them
SMALL = 700  # cases up to which a set is resampled
NO_RESAMPLES = {("nearest_dtw", "SRS2"), ("nearest_dtw", "HandMovementDirection")}
OURS = {
    "prismts": ("PrismTS", lambda name, seed: Classifier(random_state=seed, progress=False)),
    "prismts_network": (
        "PrismTS, network alone",
        lambda name, seed: Classifier(setting="network", random_state=seed, progress=False),
    ),
    "published": (
        "ConvTimeNet, published setting",
        lambda name, seed: Classifier(setting=f"published/{name}", validation=None, random_state=seed, progress=False),
    ),
}
PUBLISHED = ("AWR", "EP", "FM", "JV", "SRS2")
TITLES = {name: kind.title for name, kind in CASE_FLOORS.items()} | {name: title for name, (title, _) in OURS.items()}
SLOWEST = [("nearest_dtw", "PenDigits"), ("nearest_dtw", "SRS2"), ("minirocket", "PenDigits"), ("hydra", "PenDigits"),
           ("multirocket_hydra", "PenDigits")]  # fmt: skip
ONE_SEED = {"PenDigits"}
ONE_SPLIT = {"prismts_network", "published"}


def specification() -> list[dict]:
    """Every cell: the archive's split first, then the resamples, and what takes minutes at the end."""
    small = {name for name in SETS if len(prismts.load_dataset(name)) <= SMALL}
    cells = []
    for resample in range(N_RESAMPLES):
        for floor in TITLES:
            for name in SETS:
                if resample and (name not in small or (floor, name) in NO_RESAMPLES or floor in ONE_SPLIT):
                    continue
                if floor == "published" and name not in PUBLISHED:
                    continue
                draws = floor in OURS or CASE_FLOORS[floor].is_random
                one = name in ONE_SEED and floor not in OURS
                seeds = SEEDS if resample == 0 and draws and not one else (0,)
                cells += [{"floor": floor, "data": name, "resample": resample, "seed": seed} for seed in seeds]
    return sorted(cells, key=cost)  # stable: the rest stays in order


def cost(cell: dict) -> int:
    """0 for what takes seconds, else its place among what takes minutes."""
    key = (cell["floor"], cell["data"])
    return SLOWEST.index(key) + 1 if key in SLOWEST else 0


def place_of(cell: dict) -> Path:
    """The file of a cell, whose name says what it is."""
    return CELLS / cell["floor"] / f"{cell['data']}-{cell['resample']}-{cell['seed']}.json"


def run(cell: dict) -> None:
    """Fit on train, score every test case once, write."""
    target = place_of(cell)
    if target.exists():
        return
    official = prismts.load_dataset(cell["data"])
    data = resampled(official, cell["resample"])
    began = time.process_time()
    answers, train_seconds, extra = (ours if cell["floor"] in OURS else floor)(cell, data)
    done = time.process_time()
    truth = data.test.labels
    result = {
        **cell,
        "accuracy": float(accuracy_score(truth, answers)),
        "balanced_accuracy": float(balanced_accuracy_score(truth, answers)),
        "n_scored": len(truth), "n_train": len(data.train), "n_classes": len(np.unique(data.labels)),
        "fit_cpu_seconds": train_seconds, "cpu_seconds": done - began,
        **extra,
        "data_hash": data_hash(official),  # of the official order, whatever the resample
        "versions": versions(),
    }  # fmt: skip
    write_whole(target, json.dumps(result, indent=1) + "\n")
    print(target.relative_to(CELLS), f"{result['accuracy']:.4f}", f"{result['cpu_seconds']:.1f} s", flush=True)


def floor(cell: dict, data: prismts.Collection) -> tuple[np.ndarray, float, dict]:
    """The classes a floor says, the CPU seconds of its fit, and how it had to prepare the cases."""
    train, test = ([series.values for series in part] for part in (data.train, data.test))
    classes, y = np.unique(data.labels, return_inverse=True)
    model = case_floor(cell["floor"], random_state=cell["seed"])
    began = time.process_time()
    model.fit(train, y[: len(train)])
    seconds = time.process_time() - began
    said = classes[model.classes_[model.predict_proba(test).argmax(axis=1)]]
    return said, seconds, {"prepared": {"train": model.prepared, "test": model.preparation(test)}}


def ours(cell: dict, data: prismts.Collection) -> tuple[np.ndarray, float, dict]:
    """The classes that ours says, the CPU seconds of its fit, and what it found on the cases it left out."""
    model = OURS[cell["floor"]][1](cell["data"], cell["seed"])
    began = time.process_time()
    model.fit(data.train)
    seconds = time.process_time() - began
    probabilities = model.predict_proba(data.test)
    scores = classification_scores(data.test.labels, probabilities, model.classes_)
    found = {
        "log_loss": scores["log_loss"], "calibration_error": scores["calibration_error"],
        "weights": model.weights_, "validation": model.validation_scores_,
        "best_epochs": [result.best_epoch for result in model.fit_results_],
    }  # fmt: skip
    return model.classes_[probabilities.argmax(1)], seconds, found


def versions() -> dict[str, str]:
    """What a second run would have to install."""
    import aeon

    return {"prismts": prismts.__version__, "aeon": aeon.__version__, "python": platform.python_version()}


def warm_up() -> None:
    """Let numba compile before anything is timed."""
    generator = np.random.default_rng(0)
    for n_channels in (2, 3):
        for lengths in ((20, 20), (20, 25)):
            cases = [generator.normal(size=(n_channels, lengths[i % 2])) for i in range(8)]
            for name in CASE_FLOORS:
                case_floor(name).fit(cases, np.arange(8) % 2).predict_proba(cases)


def table() -> str:
    """One row per data set: accuracy on the archive's split (mean over seeds) and over the resamples, mean ± spread."""
    found: dict[tuple[str, str], list[dict]] = {}
    for file in sorted(CELLS.glob("*/*.json")):
        cell = json.loads(file.read_text())
        found.setdefault((cell["data"], cell["floor"]), []).append(cell)
    lines = ["| data | " + " | ".join(TITLES.values()) + " |", "|---|" + "---|" * len(TITLES)]
    for name in SETS:
        columns = []
        for floor in TITLES:
            cells = found.get((name, floor), [])
            official = [cell["accuracy"] for cell in cells if cell["resample"] == 0]
            # one number per resample: seeds of the same split are no further draws
            draws = ([np.mean(official)] if official else []) + [c["accuracy"] for c in cells if c["resample"]]
            column = f"{np.mean(official):.3f} ({len(official)})" if official else "–"
            if len(draws) > 1:
                column += f", {np.mean(draws):.3f} ± {np.std(draws, ddof=1):.3f} ({len(draws)})"
            columns.append(column)
        lines.append(f"| {name} | " + " | ".join(columns) + " |")
    lines.append("\nArchive's split: mean accuracy (seeds); then mean ± standard deviation over resamples (how many).")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--only", default="", help="run only cells whose path contains this text")
    arguments = parser.parse_args()
    if arguments.what == "run":
        if arguments.only.split("/")[0] not in OURS:
            warm_up()
        for one in specification():
            if arguments.only in str(place_of(one).relative_to(CELLS)):
                run(one)
    else:
        print(table())
