"""Our anomaly detectors beside the baselines on every labeled series of the catalog; one file per cell; resumable.

python benchmarks/detection.py series                        which series were tuned on, and which are scored
python benchmarks/detection.py run --method default          one of ours, or a baseline; all of them without --method
python benchmarks/detection.py table                         Markdown: mean VUS-PR by collection, and the other measures

A quarter of the series of each collection (drawn by a seed, at least one) is the TUNING part: everything about our
settings (which judges, how they are scaled, smoothed and weighed, the context) was chosen by looking at its labels. The
other three quarters are the EVALUATION part, scored once with what was chosen; the table holds these alone, for the
baselines too. Every method is fitted on the training part of a series and scores the rest without what came before it;
a series without borders (MBA_ECG) is cut after its first tenth. A series without an anomaly, or without a normal step,
behind its training part cannot be measured, and its cell says so. A series that our detector refuses, since nothing
ever changes in its training part, counts for ours as a constant score (see ``REFUSED``); the baselines keep theirs.

Networks take at most 5,000 windows of an epoch, so a long series (AIOPS: 150,000 steps) is trained on at a stride.
VUS-PR and VUS-ROC are those of TSB-AD at every distinct score, the buffer is the dominant period of the training part.
Cells are written under runs/; ``table`` gathers them into benchmarks/results/detection.csv, which is kept.
"""

import argparse
import json
import os
import time
import warnings
import zlib
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd

import prismts
from prismts.data.catalog import dataset, list_datasets, load_dataset
from prismts.errors import DataError
from prismts.estimators.detector import AnomalyDetector
from prismts.evaluation.detection import detection_scores, vus_buffer
from prismts.models.detectors import DETECTORS, make_detector
from prismts.writing import write_whole

CELLS = Path(__file__).parents[1] / "runs" / "detection"
KEPT = Path(__file__).parent / "results" / "detection.csv"
TUNING_SHARE = 1 / 4
OURS = {"default": {}, "combined": {"setting": "combined"}, "network": {"setting": "network"}}
MEASURES = {"vus_pr": "VUS-PR", "auc_pr": "AUC-PR", "vus_roc": "VUS-ROC", "best_point_adjusted_f1": "point-adj. F1"}
WHY_NOT = (
    "Point-adjusted F1, at the threshold best for the labels, is here for comparison with older tables only: it counts "
    "a whole event as found for one alarm in it, so that random scores reach high numbers where events are long."
)

REFUSED = (
    "Ours refuses a series in whose training part nothing ever changes: {names}. Such a series counts for ours as a "
    "constant score, that of a detector that says nothing: its AUC-PR is the share of anomalous steps, and its VUS-PR "
    "is 0 by TSB-AD's definition, as for the baselines whose scores are constant there. The other methods keep what "
    "they scored."
)


def parts() -> dict[str, dict[str, list[str]]]:
    """Names of the series by collection, those tuned on and those evaluated."""
    names: dict[str, list[str]] = {}
    for entry in list_datasets("detect"):
        names.setdefault(entry.collection, []).append(entry.name)
    found: dict[str, dict[str, list[str]]] = {"tuning": {}, "evaluation": {}}
    for collection, all_names in sorted(names.items()):
        ordered = sorted(all_names)
        n = max(1, round(len(ordered) * TUNING_SHARE))
        drawn = set(np.random.default_rng([2026, len(ordered)]).permutation(len(ordered))[:n].tolist())
        found["tuning"][collection] = [name for i, name in enumerate(ordered) if i in drawn]
        found["evaluation"][collection] = [name for i, name in enumerate(ordered) if i not in drawn]
    return found


def folder(method: str) -> Path:
    return CELLS / (f"ours_{method}" if method in OURS else method)


def write(target: Path, cell: dict) -> None:
    """Write a cell atomically."""
    write_whole(target, json.dumps(cell, indent=1) + "\n")


def ours(method: str, train: np.ndarray, test: np.ndarray, began: float) -> tuple[np.ndarray, np.ndarray, dict]:
    """Scores and alarms of our detector, and what to write down of it."""
    try:
        detector = AnomalyDetector(progress=False, **OURS[method]).fit(train)
    except DataError as error:  # a training part in which nothing ever changes: the baselines do not refuse it
        n = test.shape[1]
        return np.zeros(n), np.zeros(n, dtype=bool), {"refused": str(error)}
    seconds = round(time.perf_counter() - began, 2)
    scores = detector.score_samples(test)
    return scores, detector.threshold_.alarms(scores), {
        "fit_seconds": seconds, "judges": detector.judges_, "period": detector.period_,
        "context_length": detector.context_length_, "calibrated_on": detector.calibrated_on_,
        "threshold": str(detector.threshold_),
    }  # fmt: skip


def run(name: str, method: str) -> None:
    """Fit, score, measure, write."""
    file = f"{name.replace('/', '-')}.json"
    target = folder(method) / file
    if target.exists():
        return
    entry, series = dataset(name), load_dataset(name)
    n_train = series.borders.train_end if series.borders else len(series) // 10
    train, test = series.values[:, :n_train], series.values[:, n_train:]
    labels = series.labels[n_train:]
    cell = {
        "series": name, "collection": entry.collection, "method": method, "n_channels": len(train), "n_train": n_train,
        "n_scored": len(labels), "n_anomalous": int(labels.sum()), "seed": 0, "prismts": prismts.__version__,
        "part": next(part for part, found in parts().items() if name in found[entry.collection]),
    }  # fmt: skip
    if not 0 < labels.sum() < len(labels):
        cell["skipped"] = "the part behind the training part has no anomaly, or nothing else"
    else:
        began = time.perf_counter()
        if method in OURS:
            scores, alarms, told = ours(method, train, test, began)
            cell |= told
        else:
            alarms = None
            detector = make_detector(method).fit(train)
            cell["fit_seconds"] = round(time.perf_counter() - began, 2)
            scores = detector.score(test)
        cell["seconds"] = round(time.perf_counter() - began, 2)
        buffer = vus_buffer(train)
        cell |= {
            "vus_buffer": buffer, "vus": "tsb-ad, every distinct score",
            "scores_crc32": zlib.crc32(np.asarray(scores, dtype=np.float32).tobytes()),
            "measures": detection_scores(labels, scores, alarms, buffer),
        }  # fmt: skip
    write(target, cell)
    told = round(cell["measures"]["vus_pr"], 3) if "measures" in cell else cell["skipped"]
    print(method, name, told, cell.get("seconds", ""), flush=True)


def gather() -> pd.DataFrame:
    """Every cell as a row: those kept, those in runs/ in their place. Writes them back to the file that is kept."""
    rows = []
    for file in sorted(CELLS.glob("*/*.json")):
        cell = json.loads(file.read_text())
        plain = {key: value for key, value in cell.items() if not isinstance(value, dict | list)}
        rows.append(plain | cell.get("measures", {}))
    found = pd.DataFrame(rows)
    if KEPT.exists():
        kept = pd.read_csv(KEPT)
        found = pd.concat([kept, found]).drop_duplicates(["method", "series"], keep="last") if rows else kept
    found = found.sort_values(["method", "series"]).drop(columns=["threshold", "vus"], errors="ignore")
    write_whole(KEPT, found.round(5).to_csv(index=False))
    return found


def table(part: str = "evaluation") -> str:
    """One row per method: mean VUS-PR by collection and over collections; the other measures as means of collections.

    Only series for which every method shown has a cell count, so that all rows stand on the same series.
    """
    cells: dict[str, dict[str, dict]] = {}
    for row in gather().to_dict("records"):
        if row["part"] == part and row["vus_pr"] == row["vus_pr"]:
            cells.setdefault(row["method"], {})[row["series"]] = row | {"measures": row}
    if not cells:
        return "No cell yet: python benchmarks/detection.py run"
    common = sorted(set.intersection(*(set(own) for own in cells.values())))
    collections = sorted({cells[method][name]["collection"] for method in cells for name in common})
    counts = {c: sum(next(iter(cells.values()))[name]["collection"] == c for name in common) for c in collections}

    def by_collection(own: dict[str, dict], measure: str) -> list[float]:
        return [
            float(np.mean([own[name]["measures"][measure] for name in common if own[name]["collection"] == c]))
            for c in collections
        ]

    head = [f"{c} ({counts[c]})" for c in collections]
    lines = [
        f"| VUS-PR | {' | '.join(head)} | mean | {' | '.join(f'mean {MEASURES[m]}' for m in list(MEASURES)[1:])} |"
    ]
    lines.append("|---" * (len(collections) + 1 + len(MEASURES)) + "|")
    for method, own in sorted(cells.items(), key=lambda item: -np.mean(by_collection(item[1], "vus_pr"))):
        means = by_collection(own, "vus_pr")
        others = [np.mean(by_collection(own, m)) for m in list(MEASURES)[1:]]
        name = f"**ours: {method}**" if method in OURS else method
        lines.append(f"| {name} | " + " | ".join(f"{x:.3f}" for x in [*means, np.mean(means), *others]) + " |")
    wanted = [name for names in parts()[part].values() for name in names]
    unmeasured = sorted(name for name in wanted if not any(name in own for own in cells.values()))
    lacking = {method: sum(name not in own for name in wanted) - len(unmeasured) for method, own in cells.items()}
    told = [f"{len(common)} series of the {part} part, which every method above has scored."]
    if unmeasured:
        told.append(f"No method can be measured on {', '.join(unmeasured)}.")
    if any(lacking.values()):
        told.append(f"Further series that a method has not scored, and none is measured on: {lacking}.")
    refused = sorted({name for own in cells.values() for name in common if isinstance(own[name].get("refused"), str)})
    if refused:
        told.append(REFUSED.format(names=", ".join(refused)))
    lines += ["", " ".join([*told, WHY_NOT])]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("series", "run", "table"))
    parser.add_argument("--method", default="", help="one method; without it, all")
    parser.add_argument("--only", default="", help="only series whose name contains this text")
    parser.add_argument("--part", default="evaluation", choices=("evaluation", "tuning"))
    arguments = parser.parse_args()
    if arguments.what == "series":
        for part, found in parts().items():
            for collection, names in found.items():
                print(part, collection, len(names), *names)
    elif arguments.what == "table":
        print(table(arguments.part))
    else:
        warnings.filterwarnings("ignore", module="lightning")
        wanted = [name for names in parts()[arguments.part].values() for name in names if arguments.only in name]
        for one in [arguments.method] if arguments.method else [*OURS, *DETECTORS]:
            # short series first, so that a table fills up evenly
            for name in sorted(wanted, key=lambda name: load_dataset(name).values.size):
                run(name, one)
