"""What the training loop costs around the steps: ``fit`` beside a bare loop over the same batches, alternating.

python benchmarks/loop.py                      # ETTh2, the authors' sizes, batch 256, one epoch of 33 steps

The bare loop gathers all batches first and then does nothing but forward, backward, clipping and AdamW; ``fit`` also
gathers each batch from the series, counts losses, keeps the schedule, and writes a checkpoint at the end. Both begin at
the same weights and make the same number of steps; the ratio is fit by bare loop, median and range over rounds.
"""

import argparse
import copy
import json
import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "2")

import torch

import prismts
from prismts.data.scaling import StandardScaler
from prismts.estimators.recipes import FORECAST_SETTINGS
from prismts.tasks.forecast import Forecast
from prismts.training.batches import Batches
from prismts.training.fit import FitConfig, fit
from prismts.training.memory import keep_pages
from prismts.windows import Windows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    keep_pages()
    torch.set_flush_denormal(True)  # as fit does
    series = prismts.load_dataset("ETTh2")
    part = series.part(0, series.borders.train_end)
    train = Windows(prismts.Collection.of(part), 336, 96, scaler=StandardScaler.fit(prismts.Collection.of(part)))
    task = Forecast(horizon=96)
    model = task.build("convtimenet", FORECAST_SETTINGS["published/ETTh2"].model, n_channels=7, context_length=336)
    config = FitConfig(max_epochs=1, batch_size=256, learning_rate=1e-4, schedule="constant", accelerator="cpu")
    ready = list(Batches(train, 256, seed=0))

    def bare() -> float:
        mine = copy.deepcopy(model).train()
        optimizer = torch.optim.AdamW(mine.parameters(), lr=1e-4, weight_decay=0.0, fused=True)
        began = time.perf_counter()
        for batch in ready:
            task.loss(mine, batch).backward()
            torch.nn.utils.clip_grad_norm_(mine.parameters(), 4.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - began

    def whole() -> tuple[float, float]:
        mine = copy.deepcopy(model)
        began = time.perf_counter()
        result = fit(mine, task, train, config=config, progress=False)
        return time.perf_counter() - began, result.history[0]["seconds"]

    bare_seconds, fit_seconds, epoch_seconds = [], [], []
    for i in range(args.rounds + 1):
        for side in (0, 1) if i % 2 else (1, 0):
            if side:
                total, epoch = whole()
                fit_seconds.append(total)
                epoch_seconds.append(epoch)
            else:
                bare_seconds.append(bare())
    bare_seconds, fit_seconds, epoch_seconds = bare_seconds[1:], fit_seconds[1:], epoch_seconds[1:]
    ratios = sorted(e / b for e, b in zip(epoch_seconds, bare_seconds, strict=True))
    totals = sorted(f / b for f, b in zip(fit_seconds, bare_seconds, strict=True))
    print(json.dumps({
        "steps": len(ready), "threads": torch.get_num_threads(), "load": [round(v, 2) for v in os.getloadavg()],
        "bare loop, seconds": round(statistics.median(bare_seconds), 2),
        "epoch inside fit, seconds": round(statistics.median(epoch_seconds), 2),
        "fit with set-up and checkpoint, seconds": round(statistics.median(fit_seconds), 2),
        "epoch by bare loop": [round(v, 3) for v in (statistics.median(ratios), ratios[0], ratios[-1])],
        "fit by bare loop": [round(v, 3) for v in (statistics.median(totals), totals[0], totals[-1])],
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
