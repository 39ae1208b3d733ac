"""What one pre-trained encoder is worth: the evidence of docs/universal.md; one file per cell; a killed run resumes.

python benchmarks/universal.py pretrain                      # the encoders alone; run makes what it needs by itself
python benchmarks/universal.py run                           # what is missing; see --only, --seeds, --budget
python benchmarks/universal.py table                         # Markdown from the cells
python benchmarks/universal.py table --write                 # into docs/universal.md, between the marks

Parts: ``classify`` (a: frozen encoder and linear head), ``few`` (b: 5 % and 10 % of ETTh1 and ETTh2), ``zero`` (c: sets
never seen), ``detect`` (d: from the pre-trained reconstruction), ``joint`` (e: forecast, classify and detect together),
``tuned`` (the whole encoder trained on the classes, beside a). Ablations: the same encoder without its frequency
branch, with one scale, without exchange between channels, and pre-trained by contrast or by both; on ``classify`` and
``few``.

Rules. Pre-training reads training parts only: Weather, the training cases of the classification sets, the training
parts of the detection series, and generated series. No set of the ETT family is in it, nor Exchange, nor ILI: ETTh1 and
ETTh2 are ETTm1 and ETTm2 thinned, so all four are unseen, the few-shot sets too. (Few-shot on a set whose whole
training part was read without labels would be none: the labels of a forecast are the series.) Validation chooses the
epoch, no setting was chosen on a test part, and each cell reads its test part once. All ways of one part train with the
same settings and the same number of steps. Budgets: ``small`` is made for one CPU core (an encoder takes some minutes,
a cell one to three), ``large`` for a GPU, ``smoke`` proves that the script runs and is worth nothing else.

Few-shot: the first 5 % or 10 % of the training windows, as in Zhou et al. (GPT4TS, NeurIPS 2023); the validation part
is the official one and whole, as there. MSE is on values standardized by the whole training part, on every test window.
Zero-shot: a head for any channel is trained on the corpus alone, reads 256 steps of a series it has never seen, and is
judged by MASE (scaled by the seasonal naive error within the training part) on at most 800 evenly spaced test windows.
Detection: of each collection, the first two series by name of the evaluation part of benchmarks/detection.py that have
at most 20,000 steps; VUS-PR as there, but the detector may look back at the training part. Of a series of more than 8
channels an epoch holds fewer windows, so that it holds as many numbers as of one of 8.
"""

import argparse
import functools
import json
import os
import platform
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

import prismts
from prismts import ClassifyOn, Collection, DetectOn, ForecastOn, Series, UniversalModel
from prismts.data.calendar import season_length
from prismts.data.catalog import dataset
from prismts.data.corpus import Corpus, Generated, Member
from prismts.data.generator import GeneratorConfig
from prismts.errors import DataError
from prismts.estimators.match import season_scales
from prismts.evaluation.transfer import TransferReport
from prismts.writing import write_whole

CELLS = Path(__file__).parent / "results" / "universal"
ENCODERS = Path(__file__).parents[1] / "runs" / "universal"
PAGE = Path(__file__).parents[1] / "docs" / "universal.md"
SEEDS = (0, 1, 2)
CLASSES = ("AWR", "EP", "JV", "NATOPS", "Libras", "ERing", "BasicMotions")
FEW = ("ETTh1", "ETTh2")
UNSEEN = {"ETTh1": 96, "ETTh2": 96, "ETTm1": 96, "ETTm2": 96, "Exchange": 96, "ILI": 24}  # and the horizon
MOST_WINDOWS = 800
PER_COLLECTION, LONGEST = 2, 20_000
FULL_CHANNELS = 8  # up to which an epoch of detection holds all its windows
WAYS = {"frozen": "frozen", "tuned": "trained", "scratch": "from scratch", "random": "random, frozen"}
VARIANTS = {
    "full": {},
    "no_frequency": {"encoder": {"n_bands": 0}},
    "one_scale": {"encoder": {"patch_lengths": (16,)}},
    "no_exchange": {"encoder": {"exchange": False}},
    "contrastive": {"tasks": "contrastive"},
    "both": {"tasks": {"masked": 1.0, "contrastive": 0.1}},
}
TITLES = {
    "full": "all branches, masked", "no_frequency": "without the frequency branch", "one_scale": "one patch length",
    "no_exchange": "without exchange between channels", "contrastive": "contrastive", "both": "masked and contrastive",
    "none": "not pre-trained",
}  # fmt: skip
CPU = {"accelerator": "cpu"}
BUDGETS = {
    "small": {
        "context": 256, "encoder": {"width": 64}, "generated": 200,
        "pretrain": {"max_epochs": 10, "batch_size": 64, **CPU}, "draws": {"steps_per_epoch": 200},
        "fit": {"max_epochs": 8, "batch_size": 32, **CPU}, "items": 1024,
    },
    "large": {
        "context": 256, "encoder": {"width": 192, "feed_forward": 384, "kernel_sizes": (7, 7, 13, 13, 19, 19)},
        "generated": 2000,
        "pretrain": {"max_epochs": 100, "batch_size": 1024}, "draws": {"steps_per_epoch": 500},
        "fit": {"max_epochs": 20, "batch_size": 64}, "items": 4096,
    },
    "smoke": {
        "context": 64, "encoder": {"width": 8, "feed_forward": 8, "kernel_sizes": (3,), "n_heads": 2}, "generated": 5,
        "pretrain": {"max_epochs": 1, "batch_size": 16, **CPU}, "draws": {"steps_per_epoch": 3, "n_validation": 8},
        "fit": {"max_epochs": 1, "batch_size": 16, **CPU}, "items": 16,
    },
}  # fmt: skip


# ---- what is run


def specification(seeds: tuple[int, ...]) -> list[dict]:
    """Every cell, the cheapest evidence first, the ablations behind it, whole encoders trained on classes last."""
    cells: list[dict] = []

    def add(
        part: str, data: tuple[str, ...], ways: tuple[str, ...], variants: tuple[str, ...] = ("full",), **more: int
    ) -> None:
        for seed in seeds:
            for variant in variants:
                for way in ways:
                    own = "none" if way in ("scratch", "random") else variant
                    cells.extend(
                        {"part": part, "data": name, "variant": own, "way": way, "seed": seed, **more} for name in data
                    )

    add("classify", CLASSES, ("frozen", "random"))
    for share in (5, 10):
        add("few", FEW, ("tuned", "frozen", "scratch"), share=share)
    add("zero", ("unseen",), ("tuned", "frozen", "scratch"))
    add("joint", ("three",), ("joint", "separate", "frozen", "scratch"))
    add("detect", tuple(series_to_detect()), ("tuned", "frozen", "scratch"))
    others = tuple(name for name in VARIANTS if name != "full")
    add("classify", CLASSES, ("frozen",), others)
    add("few", FEW, ("tuned",), others, share=5)
    add("tuned", CLASSES, ("tuned", "scratch"))
    return cells


@functools.cache
def series_to_detect() -> list[str]:
    """Names of the series whose detection is judged."""
    from detection import parts  # the script beside this one

    found: list[str] = []
    for names in parts()["evaluation"].values():
        short = [name for name in names if dataset(name).n_timepoints <= LONGEST and _is_judged(name)]
        found += short[:PER_COLLECTION]
    return found


def _is_judged(name: str) -> bool:
    """Whether a series has a training part, and something to find behind it."""
    return dataset(name).borders not in ("none", "all for training")


def place_of(cell: dict, budget: str) -> Path:
    """The file of a cell, whose name says what it is."""
    share = f"-{cell['share']}" if "share" in cell else ""
    name = f"{cell['data'].replace('/', '~')}{share}-{cell['variant']}-{cell['way']}-{cell['seed']}.json"
    return CELLS / budget / cell["part"] / name


def run(cell: dict, budget: str) -> None:
    """Begin with the encoder of the cell, learn, score the test part once, write."""
    target = place_of(cell, budget)
    if target.exists():
        return
    began = time.perf_counter()
    found = PARTS[cell["part"]](cell, budget)
    result = {
        **cell, "budget": budget, **found, "seconds": time.perf_counter() - began,
        "versions": {"prismts": prismts.__version__, "torch": torch.__version__, "python": platform.python_version()},
    }  # fmt: skip
    write_whole(target, json.dumps(result, indent=1) + "\n")
    print(target.relative_to(CELLS), found.get("scores", ""), f"{result['seconds']:.0f} s", flush=True)


# ---- encoders


@functools.cache
def corpus(budget: str) -> Corpus:
    """Training parts, and generated series; none of the sets on which forecasts are judged."""
    members: list = [Member.named("Weather"), *(Member.named(name) for name in CLASSES)]
    for name in series_to_detect():
        part = Member.named(name)
        if np.nanstd(part.data.values) > 0:
            members.append(part)
    found = Corpus.of(*members, generated(budget))
    assert not any(found.has_seen(name) for name in (*FEW, *UNSEEN))
    return found


def generated(budget: str) -> Generated:
    """As many new series in every epoch."""
    return Generated(
        seed=2026, per_epoch=BUDGETS[budget]["generated"], config=GeneratorConfig(n_timepoints=(512, 1024))
    )


def begin(variant: str, seed: int, budget: str) -> UniversalModel:
    """A model with the pre-trained encoder of this variant and seed, from its folder, or with a new one."""
    known = BUDGETS[budget]
    change = VARIANTS.get(variant, {})
    model = UniversalModel(
        context_length=known["context"], encoder_settings={**known["encoder"], **change.get("encoder", {})},
        fit_settings=known["fit"], items_per_epoch=known["items"], random_state=seed, progress=False,
    )  # fmt: skip
    if variant == "none":
        return model
    home = ENCODERS / budget / f"{variant}-{seed}"
    if not (home / "model").exists():
        model.run_folder = home / "run"
        began = time.perf_counter()
        model.pretrain(
            corpus(budget), tasks=change.get("tasks", "masked"), fit_settings=known["pretrain"], draws=known["draws"]
        )
        model.run_folder = None
        model.save(home / "model")
        best = model.pretrain_result_.best_loss
        print(f"pre-trained {variant}, seed {seed}: loss {best:.4f}, {time.perf_counter() - began:.0f} s", flush=True)
    loaded = prismts.load(home / "model")
    return loaded.set_params(fit_settings=known["fit"], items_per_epoch=known["items"], progress=False)


def told(model: UniversalModel) -> dict:
    """What to write down of a model."""
    result = model.pretrain_result_
    return {
        "pretrained": None if result is None else {"best_epoch": result.best_epoch, "loss": result.best_loss,
                                                   "seconds": result.seconds},
        "n_parameters": sum(p.numel() for p in model.encoder_.parameters()),
    }  # fmt: skip


# ---- parts


def classify(cell: dict, budget: str) -> dict:
    """Accuracy on the official test cases."""
    data = prismts.load_dataset(cell["data"])
    model = begin(cell["variant"], cell["seed"], budget)
    model.fit(ClassifyOn(data.train), freeze=cell["way"] in ("frozen", "random"))
    scores = model.evaluate(data.test, head="classify")
    return {"scores": {"accuracy": scores["accuracy"]}, "n_scored": scores.n_scored, **told(model)}


def few(cell: dict, budget: str) -> dict:
    """MSE and MAE of 96 steps on all test windows, on values standardized by the whole training part."""
    series = prismts.load_dataset(cell["data"])
    context, (train_end, valid_end, test_end) = BUDGETS[budget]["context"], series.borders.__dict__.values()
    end = (train_end - context) * cell["share"] // 100 + context
    model = begin(cell["variant"], cell["seed"], budget)
    task = ForecastOn(
        series.part(0, end), horizon=96, line=None, validation=series.part(train_end - context, valid_end)
    )
    model.fit(task, freeze=cell["way"] == "frozen")
    scores = model.evaluate(series, head="forecast", begin=valid_end, end=test_end, **_thin(budget))
    few_scale = model.estimators_["forecast"].scaler_.scale[0]
    factor = few_scale / series.values[:, :train_end].astype(np.float64).std(axis=1)
    found = {"mse": scores.per_channel["mse"] * factor**2, "mae": scores.per_channel["mae"] * factor}
    return {
        "scores": {name: float(value.mean()) for name, value in found.items()}, "n_scored": scores.n_scored,
        "n_train_steps": end, "best_epoch": model.fit_result_.best_epoch, **told(model),
    }  # fmt: skip


def _thin(budget: str) -> dict:
    return {"stride": 500} if budget == "smoke" else {}


def zero(cell: dict, budget: str) -> dict:
    """MASE on sets never seen, beside the seasonal naive forecast and the last value on the same windows."""
    known = BUDGETS[budget]
    model = begin(cell["variant"], cell["seed"], budget)
    learned = [_each(prismts.load_dataset("Weather").part(0, prismts.load_dataset("Weather").borders.train_end))]
    made = [Series(x, name=f"generated {i}") for i, x in enumerate(generated(budget).train(0))]
    learned += [_each(one) for one in made if len(one) >= known["context"] + 96 + 32]
    task = ForecastOn(Collection.of([case for some in learned for case in some]), horizon=96, line=None, validation=0.2)
    model.fit(task, freeze=cell["way"] == "frozen")
    found: dict[str, dict[str, float]] = {}
    for name, horizon in UNSEEN.items():
        found[name] = _mase(model, prismts.load_dataset(name), horizon, known["context"], budget)
    mean = {key: float(np.mean([one[key] for one in found.values()])) for key in ("mase", "season", "last")}
    return {"scores": mean, "by_set": found, "n_series": len(task.data), **told(model)}


def _each(series: Series) -> list[Series]:
    """Every channel as a series of its own that knows nothing of time."""
    return [
        Series(x[None].astype(np.float32), ("value",), name=f"{series.name} {c}") for c, x in enumerate(series.values)
    ]


def _mase(model: UniversalModel, series: Series, horizon: int, context: int, budget: str) -> dict[str, float]:
    """Mean absolute errors of all channels and windows, each in units of the seasonal naive error in training."""
    begin, end = series.borders.test
    most = 4 if budget == "smoke" else MOST_WINDOWS
    origins = np.unique(np.linspace(begin, end - horizon, most).astype(int))
    season = season_length(series.frequency)
    scale = season_scales(Collection.of(series), np.array([series.borders.train_end]), season)[0]  # [C]
    x = np.stack([series.values[:, o - context : o] for o in origins]).astype(np.float64)  # [W, C, T]
    truth = np.stack([series.values[:, o : o + horizon] for o in origins]).astype(np.float64)
    cases = x.reshape(-1, 1, context).astype(np.float32)
    answer = np.concatenate([
        model.forecast(cases[i : i + 2000]) for i in range(0, len(cases), 2000)
    ])[..., :horizon].reshape(truth.shape)  # fmt: skip
    back = np.arange(horizon) % season - season  # where the season before stands, from the first step ahead
    before = np.stack([series.values[:, o + back] for o in origins]).astype(np.float64)
    answers = {"mase": answer, "season": before, "last": np.repeat(x[..., -1:], horizon, -1)}
    return {
        name: float(np.nanmean(np.abs(truth - one) / scale[:, None])) for name, one in answers.items()
    } | {"n_windows": len(origins)}  # fmt: skip


def detect(cell: dict, budget: str) -> dict:
    """VUS-PR on the labeled steps after the training part."""
    series = prismts.load_dataset(cell["data"])
    labels = series.labels[series.borders.train_end :]
    if not 0 < labels.sum() < len(labels):
        return {"skipped": "the part behind the training part has no anomaly, or nothing else"}
    model = begin(cell["variant"], cell["seed"], budget)
    model.set_params(items_per_epoch=BUDGETS[budget]["items"] * FULL_CHANNELS // max(series.n_channels, FULL_CHANNELS))
    try:
        model.fit(DetectOn(series.part(0, series.borders.train_end)), freeze=cell["way"] == "frozen")
    except DataError as error:
        return {"skipped": str(error)}
    scores = model.evaluate(series, head="detect")
    return {
        "scores": {"vus_pr": scores["vus_pr"]}, "n_scored": scores.n_scored,
        "collection": dataset(cell["data"]).collection, **told(model),
    }  # fmt: skip


def joint(cell: dict, budget: str) -> dict:
    """One way of the transfer report on ETTh2 (96 steps), EP and one series of SMD."""
    loads, cases = prismts.load_dataset("ETTh2"), prismts.load_dataset("EP")
    sensors = prismts.load_dataset(next(name for name in series_to_detect() if dataset(name).collection == "ASD"))
    model = begin("none" if cell["way"] == "scratch" else "full", cell["seed"], budget)
    border = loads.borders
    tasks = [
        ForecastOn(loads, horizon=96, line=None, validation=border), ClassifyOn(cases.train),
        DetectOn(sensors.part(0, sensors.borders.train_end)),
    ]  # fmt: skip
    tests = {
        "forecast": {"data": loads, "begin": border.validation_end, "end": border.test_end, **_thin(budget)},
        "classify": cases.test, "detect": sensors,
    }  # fmt: skip
    way = "separate" if cell["way"] == "scratch" else cell["way"]
    report = model.transfer_report(tasks, tests, seeds=(cell["seed"],), ways=(way,))
    rows = [{**row, "way": cell["way"]} for row in report.as_rows()]
    return {"rows": rows, "scores": {row["task"]: round(row["value"], 4) for row in rows}, "sensors": sensors.name}


PARTS = {"classify": classify, "few": few, "zero": zero, "detect": detect, "joint": joint, "tuned": classify}


# ---- tables


def cells(budget: str, part: str) -> list[dict]:
    return [json.loads(file.read_text()) for file in sorted((CELLS / budget / part).glob("*.json"))]


def _mean(values: list[float], digits: int = 3) -> str:
    if not values:
        return "–"
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread} ({len(values)})"


def _grid(title: str, rows: dict[str, dict[str, list[float]]], columns: list[str], digits: int = 3) -> list[str]:
    """Markdown: a row per name, mean ± standard deviation over seeds (how many) in each column."""
    lines = ["", title, "", "| | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for name, found in rows.items():
        lines.append(f"| {name} | " + " | ".join(_mean(found.get(column, []), digits) for column in columns) + " |")
    return lines


def _known(floor: str, name: str) -> list[float]:
    """Accuracies on the official split from benchmarks/classification.py, by seed."""
    folder = CELLS.parent / "classification" / floor
    return [json.loads(file.read_text())["accuracy"] for file in sorted(folder.glob(f"{name}-0-*.json"))]


def table(budget: str) -> str:
    """All tables of this budget, as Markdown."""
    lines = [f"Budget `{budget}`; mean ± standard deviation over seeds (how many)."]
    rows: dict[str, dict[str, list[float]]] = {}
    names = {"frozen": "pre-trained, frozen", "random": "random, frozen", "tuned": "pre-trained, trained",
             "scratch": "trained from scratch"}  # fmt: skip
    for cell in [*cells(budget, "classify"), *cells(budget, "tuned")]:
        if cell["variant"] in ("full", "none"):
            rows.setdefault(cell["data"], {}).setdefault(names[cell["way"]], []).append(cell["scores"]["accuracy"])
    floors = {"ConvTimeNet, supervised": "prismts_network", "MiniRocket": "minirocket"}
    for name, found in rows.items():
        found |= {title: _known(floor, name) for title, floor in floors.items()}
    rows = _with_mean(rows)
    lines += _grid(
        "**(a) Classification**: accuracy on the official test cases. A frozen encoder under logistic regression; the "
        "last two columns are from `benchmarks/classification.py`.", rows, [*names.values(), *floors],
    )  # fmt: skip
    rows = {}
    for cell in cells(budget, "few"):
        if cell["variant"] in ("full", "none"):
            key = f"{cell['data']}, {cell['share']} % ({cell['n_train_steps']} steps)"
            rows.setdefault(key, {}).setdefault(names[cell["way"]], []).append(cell["scores"]["mse"])
    lines += _grid(
        "**(b) Few-shot forecasting**: MSE of 96 steps, all test windows; no straight line beside the network.",
        rows, [names["tuned"], names["frozen"], names["scratch"]], 4,
    )  # fmt: skip
    rows = {}
    for cell in cells(budget, "zero"):
        for name, found in cell["by_set"].items():
            row = rows.setdefault(name, {})
            row.setdefault(names[cell["way"]], []).append(found["mase"])
            row["seasonal naive"], row["last value"] = [found["season"]], [found["last"]]
    columns = [names["tuned"], names["frozen"], names["scratch"], "seasonal naive", "last value"]
    lines += _grid(
        "**(c) Zero-shot forecasting**: MASE on sets that neither pre-training nor the head has seen (ILI: 24 steps, "
        "else 96).", _with_mean(rows), columns,
    )  # fmt: skip
    rows = {}
    for cell in cells(budget, "detect"):
        if "scores" in cell:
            key = f"{cell['data']}"
            rows.setdefault(key, {}).setdefault(names[cell["way"]], []).append(cell["scores"]["vus_pr"])
    lines += _grid(
        f"**(d) Detection**: VUS-PR by what the model makes of hidden steps. An epoch holds {BUDGETS[budget]['items']} "
        f"windows of a series of up to {FULL_CHANNELS} channels and fewer of wider ones; in (e) it holds all.",
        _with_mean(rows),
        [names["tuned"], names["frozen"], names["scratch"]],
    )  # fmt: skip
    found = [row for cell in cells(budget, "joint") for row in cell["rows"]]
    if found:
        lines += ["", "**(e) Joint training** of a forecast (ETTh2, 96 steps), classes (EP) and detection (ASD).", ""]
        lines.append(TransferReport.from_rows(found).table())
    rows = {}
    for part in ("classify", "few"):
        for cell in cells(budget, part):
            if cell["way"] == {"classify": "frozen", "few": "tuned"}[part] and cell.get("share", 5) == 5:
                measure = cell["scores"]["accuracy" if part == "classify" else "mse"]
                rows.setdefault(TITLES[cell["variant"]], {}).setdefault(cell["data"], []).append(measure)
    for part, data, digits in (("accuracy, frozen", CLASSES, 3), ("MSE with 5 %, trained", FEW, 4)):
        lines += _grid(f"**Ablations**: {part}.", {TITLES[name]: rows[TITLES[name]] for name in VARIANTS
                                                  if TITLES[name] in rows}, list(data), digits)  # fmt: skip
    return "\n".join(lines)


def _with_mean(rows: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, list[float]]]:
    """A last row with the mean over those rows that have every column, one number for each seed that all have."""
    columns = sorted({column for row in rows.values() for column in row})
    whole = [row for row in rows.values() if all(row.get(column) for column in columns)]
    if len(whole) < 2:
        return rows
    mean = {}
    for column in columns:
        n = min(len(row[column]) for row in whole)
        mean[column] = [float(np.mean([row[column][i] for row in whole])) for i in range(n)]
    return {**rows, f"mean of {len(whole)}": mean}


def write(text: str) -> None:
    """Put the tables into the page, between its marks."""
    from results_page import put  # the script beside this one

    put(PAGE, "evidence", text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pretrain", "run", "table"))
    parser.add_argument("--only", default="", help="run only cells whose path contains this text")
    parser.add_argument("--seeds", default="0,1,2", help="with commas between them")
    parser.add_argument("--budget", choices=tuple(BUDGETS), default="small")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/universal.md")
    arguments = parser.parse_args()
    chosen = tuple(int(seed) for seed in arguments.seeds.split(","))
    if arguments.what == "table":
        tables = table(arguments.budget)
        write(tables) if arguments.write else print(tables)
    elif arguments.what == "pretrain":
        for number in chosen:
            for which in VARIANTS:
                if arguments.only in which:
                    begin(which, number, arguments.budget)
    else:
        for one in specification(chosen):
            if arguments.only in str(place_of(one, arguments.budget).relative_to(CELLS)):
                run(one, arguments.budget)
