"""Does a language model help on ETTh2? Arms that differ in one thing, one file per cell; a killed run resumes.

python benchmarks/language.py run                         # the small size, for a CPU: a check of the machinery
python benchmarks/language.py table                       # Markdown from the cells
python benchmarks/language.py run --size gpt2             # six layers of GPT-2's size, random weights, for a GPU
python benchmarks/language.py run --size gpt2 --backbone gpt2 --download     # with the weights of GPT-2
python benchmarks/language.py run --tiny                  # minutes: a short stretch, one seed; written elsewhere

Horizon 96, context 336, official borders, three seeds, every network with the same epochs, batches and rate, no line
beside it; validation chooses the epoch, and the test part is read once per cell. The arms:

- gpt4ts with LoRA, on uniform patches and on deformable ones (does DePatch make the better tokens?), and with norms and
  positions trained in place of LoRA, as its authors do;
- the controls: nothing in the place of the language model, one layer of attention, and, where the weights are
  pretrained, the same network with random ones;
- allm4ts with LoRA, with and without its first stage (next patch, on the training parts of ETTh1 and ETTh2);
- a ConvTimeNet that learns from that allm4ts beside the truth, and the same ConvTimeNet alone;
- the ridge, which costs nothing.

At the small size the language model has two layers of width 32 and random weights: there is no language in it, so the
table says what its machinery costs and whether tokens differ, and nothing about language.

Expected: small about half an hour on one core; gpt2 about 4 minutes a cell of a full network on an H100, two hours in
all (estimated from the operations, not timed).
"""

import argparse
import json
import platform
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import prismts
from prismts.data.corpus import Corpus
from prismts.evaluation.protocols import score
from prismts.models.language import LanguageConfig
from prismts.models.language_patchwise import PatchwiseEncoder, write_stage
from prismts.training.fit import FitConfig
from prismts.training.pretrain import pretrain
from prismts.writing import write_whole

RESULTS = Path(__file__).parent / "results" / "language"
RUNS = Path(__file__).parents[1] / "runs" / "language"  # what stage 1 taught, and the teacher: read by later cells
SEEDS = (0, 1, 2)
DATA, CONTEXT, HORIZON = "ETTh2", 336, 96

SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "weights": "random", "backbone": "gpt2", "width": 32, "n_heads": 4, "feed_forward": 128, "n_layers": 2,
        "max_tokens": 256, "n_words": 256, "patch_length": 16, "stride": 16, "dropout": 0.1,
    },
    "gpt2": {"weights": "random", "backbone": "gpt2", "n_layers": 6, "patch_length": 16, "stride": 8},
}  # fmt: skip
EPOCHS = {"small": 2, "gpt2": 10}
STAGE_EPOCHS = {"small": 2, "gpt2": 20}  # of 100 steps of 256 windows of one channel
LORA = {"train": "lora", "lora_rank": 8}
STUDENT = {"width": 32, "kernel_sizes": (7, 13, 19), "feed_forward": 0}
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt4ts, uniform patches": ("gpt4ts", LORA),
    "gpt4ts, deformable patches": ("gpt4ts", {**LORA, "patches": "deformable"}),
    "gpt4ts, norms and positions": ("gpt4ts", {"train": "norms"}),
    "nothing": ("gpt4ts", {"backbone": "none"}),
    "one attention layer": ("gpt4ts", {"backbone": "attention"}),
    "random weights": ("gpt4ts", {**LORA, "backbone": "gpt2", "weights": "random"}),
    "allm4ts, stage 2 alone": ("allm4ts", LORA),
    "allm4ts, both stages": ("allm4ts", LORA),
    "convtimenet alone": ("convtimenet", STUDENT),
    "convtimenet taught by allm4ts": ("convtimenet", STUDENT),
}
TEACHER = "allm4ts, both stages"


def specification(pretrained: bool, tiny: bool) -> list[dict]:
    """Every cell: arm and seed. Random weights are a control only beside pretrained ones."""
    arms = [arm for arm in ARMS if pretrained or arm != "random weights"]
    seeds = SEEDS[:1] if tiny else SEEDS
    return [{"arm": "ridge", "seed": 0}, *({"arm": arm, "seed": seed} for seed in seeds for arm in arms)]


def name_of(cell: dict) -> str:
    """A file name that says what the cell is."""
    return f"{cell['arm'].replace(', ', '-').replace(' ', '_')}-{cell['seed']}.json"


class Bench:
    """One size and one set of weights: where its cells lie, and how one is made."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.size, self.tiny = arguments.size, arguments.tiny
        self.settings = dict(SIZES[self.size])
        if arguments.backbone:
            self.settings |= {"weights": "pretrained", "backbone": arguments.backbone, "download": arguments.download}
        self.pretrained = self.settings["weights"] == "pretrained"
        kind = f"{self.size}-{'pretrained' if self.pretrained else 'random'}"
        self.cells = RUNS / "tiny" / "cells" if self.tiny else RESULTS / kind
        self.runs = RUNS / ("tiny" if self.tiny else kind)
        self.fit = {
            "max_epochs": 1 if self.tiny else EPOCHS[self.size], "batch_size": 64, "learning_rate": 5e-4,
            "schedule": "one_cycle", "patience": 3, "gradient_clip": 1.0,
        }  # fmt: skip

    def series(self) -> tuple[Any, Any]:
        """The series and its borders; of the tiny run a short stretch, none of which is of the official test part."""
        whole = prismts.load_dataset(DATA)
        if not self.tiny:
            return whole, whole.borders
        from prismts.data.splits import Borders

        return whole.part(0, 2000), Borders(1200, 1600, 2000)

    def forecaster(self, arm: str, seed: int) -> Any:
        """An unfitted forecaster of an arm; the stage it begins with is run if it has not been."""
        if arm == "ridge":
            return prismts.Forecaster("ridge", context_length=CONTEXT, horizon=HORIZON, progress=False)
        model, changes = ARMS[arm]
        settings = {**self.settings, **changes} if model != "convtimenet" else changes
        if arm == TEACHER:
            settings |= {"weights": "pretrained", "backbone": str(self.stage(seed)), "download": False}
        how = {"setting": "published"} if model == "convtimenet" else {}  # without a line, as the others
        return prismts.Forecaster(
            model, context_length=CONTEXT, horizon=HORIZON, model_settings=settings, fit_settings=self.fit,
            random_state=seed, progress=False, run_folder=self.runs / f"{name_of({'arm': arm, 'seed': seed})}.run",
            **how,
        )  # fmt: skip

    def stage(self, seed: int) -> Path:
        """The folder of a language model that was taught patches; stage 1, where there is none yet."""
        folder = self.runs / f"stage-{seed}"
        if (folder / "stage.json").exists():
            return folder
        settings = {**self.settings, "train": "full", "stride": self.settings["patch_length"]}
        torch.manual_seed(seed)
        encoder = PatchwiseEncoder(LanguageConfig(**settings), n_channels=1, context_length=CONTEXT)
        tiny = Corpus.of(self.series()[0].part(0, 1200), held_out=0) if self.tiny else None
        corpus = tiny or Corpus.of("ETTh1", "ETTh2")
        epochs, steps = (1, 5) if self.tiny else (STAGE_EPOCHS[self.size], 100)
        began = time.perf_counter()
        result = pretrain(
            encoder, corpus, tasks="causal_patch", seed=seed, folder=self.runs / f"stage-{seed}.run", progress=False,
            config=FitConfig(
                max_epochs=epochs, patience=epochs, batch_size=256, learning_rate=1e-3, schedule="one_cycle",
                gradient_clip=1.0,
            ),
            draws={"lengths": (CONTEXT,), "bundles": (1,), "steps_per_epoch": steps},
        )  # fmt: skip
        write_stage(encoder, folder)
        _write(folder / "stage.json", {"seconds": time.perf_counter() - began, "history": result.history})
        return folder

    def run(self, cell: dict) -> None:
        """Fit, score, write."""
        target = self.cells / name_of(cell)
        if target.exists():
            return
        series, borders = self.series()
        forecaster = self.forecaster(cell["arm"], cell["seed"])
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        if "taught by" in cell["arm"]:
            teacher = self.runs / f"teacher-{cell['seed']}"
            if not teacher.exists():
                self.run({"arm": TEACHER, "seed": cell["seed"]})
            began = time.perf_counter()
            prismts.distill(prismts.load(teacher), forecaster, series, validation=borders, cache=self.runs / "answers")
        else:
            forecaster.fit(series, validation=borders)
        seconds = time.perf_counter() - began
        if cell["arm"] == TEACHER:
            forecaster.save(self.runs / f"teacher-{cell['seed']}")
        told = score(forecaster, series, borders, protocol="honest").as_dict()
        trained = [p.numel() for p in forecaster.model_.parameters() if p.requires_grad]
        result = {
            **cell, "data": DATA, "context_length": CONTEXT, "horizon": HORIZON, "size": self.size,
            "settings": self.settings, "fit": self.fit, "scores": told, "fit_seconds": seconds,
            "validation_loss": forecaster.fit_result_.best_loss, "history": forecaster.fit_result_.history,
            "n_trained": sum(trained), "n_parameters": sum(p.numel() for p in forecaster.model_.parameters()),
            "n_windows": forecaster.n_windows_, "data_hash": forecaster.data_hash_,
            "memory_gib": _memory(), "device": _device(), "threads": torch.get_num_threads(),
            "versions": {
                "prismts": prismts.__version__, "torch": torch.__version__, "python": platform.python_version(),
            },
        }  # fmt: skip
        if cell["arm"] == TEACHER:
            result["stage"] = json.loads((self.stage(cell["seed"]) / "stage.json").read_text())
        _write(target, result)
        print(target.name, round(told["measures"]["mse"], 4), f"{seconds:.0f} s", flush=True)

    def table(self) -> str:
        """One row per arm: MSE and MAE on standardized values of every test window, mean and spread over seeds."""
        groups: dict[str, list[dict]] = {}
        for file in sorted(self.cells.glob("*.json")):
            cell = json.loads(file.read_text())
            groups.setdefault(cell["arm"], []).append(cell)
        lines = [
            "| arm | seeds | validation MSE | test MSE | test MAE | trained weights | fit, s | memory, GiB |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for arm in ("ridge", *ARMS):
            cells = groups.get(arm, [])
            if not cells:
                continue
            n, share = cells[0]["n_trained"], cells[0]["n_trained"] / max(1, cells[0]["n_parameters"])
            columns = [
                _spread([c["validation_loss"] for c in cells]) if arm != "ridge" else "",
                _spread([c["scores"]["measures"]["mse"] for c in cells]),
                _spread([c["scores"]["measures"]["mae"] for c in cells]),
                f"{n:,} ({share:.0%})" if arm != "ridge" else "",
                f"{np.mean([c['fit_seconds'] for c in cells]):.0f}",
                f"{np.mean([c['memory_gib'] for c in cells]):.1f}",
            ]
            lines.append(f"| {arm} | {len(cells)} | {' | '.join(columns)} |")
        return "\n".join(lines)


def _spread(values: list[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{spread}"


def _memory() -> float:
    """Most memory that was held: of the accelerator, or of this process since it began."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu"


def _write(target: Path, result: dict) -> None:
    write_whole(target, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--size", choices=tuple(SIZES), default="small")
    parser.add_argument("--backbone", default="", help="pretrained weights: a name of the hub, or a folder")
    parser.add_argument("--download", action="store_true", help="fetch the weights if this machine lacks them")
    parser.add_argument("--tiny", action="store_true", help="a short stretch and one seed, to see that it works")
    parser.add_argument("--only", default="", help="run only cells whose file name contains this text")
    arguments = parser.parse_args()
    bench = Bench(arguments)
    if arguments.what == "run":
        for one in specification(bench.pretrained, arguments.tiny):
            if arguments.only in name_of(one):
                bench.run(one)
    else:
        print(bench.table())
