"""Several trainings at once: ``fit_many`` in its three ways, beside one after another, alternating.

python benchmarks/many.py                          # 4 seeds of the default forecaster on ETTh1, 4 classifiers on ERing
python benchmarks/many.py --n 8 --rounds 5         # more of them; on a GPU the stack is what is asked about

Each way fits fresh estimators with the same seeds on the same data. Seconds are of the whole call, medians over rounds
after a first one; the ratio is one after another by the way named. On a CPU "in turn" may use all cores, "processes"
give each fit its share of them.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable

import torch

import prismts
from prismts.estimators.base import Estimator
from prismts.estimators.many import fit_many

WAYS = ("in turn", "stacked", "processes")


def forecasters(n: int) -> list[Estimator]:
    settings = {"max_epochs": 1, "patience": 1}
    return [prismts.Forecaster(context_length=336, horizon=96, random_state=i, fit_settings=settings) for i in range(n)]


def classifiers(n: int) -> list[Estimator]:
    settings = {"max_epochs": 3}
    return [prismts.Classifier(setting="network", random_state=i, fit_settings=settings) for i in range(n)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=4, help="estimators at once")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="forecast or classify")
    args = parser.parse_args()
    series = prismts.load_dataset("ETTh1")
    kinds: dict[str, tuple[Callable[[int], list[Estimator]], object, dict]] = {
        "forecast, ETTh1": (forecasters, series, {"validation": series.borders}),
        "classify, ERing": (classifiers, prismts.load_dataset("ERing").train, {}),
    }
    for title, (make, data, arguments) in kinds.items():
        if args.only not in title:
            continue
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        for i in range(args.rounds + 1):
            for way in WAYS if i % 2 else WAYS[::-1]:
                several = make(args.n)
                began = time.perf_counter()
                fit_many(several, data, how=way, progress=False, **arguments)
                seconds[way].append(time.perf_counter() - began)
        turn = seconds["in turn"][1:]
        said = {
            "what": title, "estimators": args.n, "rounds": args.rounds, "threads": torch.get_num_threads(),
            "accelerator": str(torch.accelerator.current_accelerator(check_available=True)),
            "load": [round(v, 2) for v in os.getloadavg()],
            "seconds": {way: round(statistics.median(found[1:]), 2) for way, found in seconds.items()},
            "ratio": {
                way: round(statistics.median(t / s for t, s in zip(turn, seconds[way][1:], strict=True)), 2)
                for way in WAYS[1:]
            },
        }  # fmt: skip
        print(json.dumps(said, indent=1), flush=True)


if __name__ == "__main__":
    main()
