"""A training step of the cross learner beside its loop form: kernels applied case by case, alternating in one process.

python benchmarks/cross_step.py                 # ETTh2's shape: 7 channels, context 336, horizon 96, batch 32

The loop form is how such a layer reads on paper: for every case of the batch, one depthwise convolution with the
kernels that its state made. Ours applies the kernels of all cases as one grouped convolution. Both begin at the same
weights and read the same batches; a step is forward, backward and AdamW. Equal work: both losses after 20 steps.
"""

import argparse
import contextlib
import json
import os
import statistics
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from prismts.layers import cross
from prismts.tasks.forecast import Forecast
from prismts.training.memory import keep_pages


def by_case(x: Tensor, kernel: Tensor) -> Tensor:
    """``dynamic_depthwise`` for one kernel per case and width, case by case."""
    k = kernel.shape[-1]
    left = (k - 1) // 2
    padded = F.pad(x, (left, k - 1 - left))
    rows = [F.conv1d(one[None], own[:, None], groups=len(own)) for one, own in zip(padded, kernel, strict=True)]
    return torch.cat(rows)


@contextlib.contextmanager
def form(side: str) -> Iterator[None]:
    """The layer as it is, or as a loop."""
    ours = cross.dynamic_depthwise
    cross.dynamic_depthwise = ours if side == "ours" else by_case
    try:
        yield
    finally:
        cross.dynamic_depthwise = ours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    keep_pages()
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    task, models, optimizers, losses = Forecast(96, line=None), {}, {}, {}
    x = torch.randn(args.batch, 7, 336).cumsum(-1)
    y = torch.randn(args.batch, 7, 96) + x[..., -1:]
    seconds: dict[str, list[float]] = {"loop": [], "ours": []}
    for side in seconds:
        torch.manual_seed(0)
        models[side] = task.build("cross_learner", {"dropout": 0.0}, n_channels=7, context_length=336).train()
        optimizers[side] = torch.optim.AdamW(models[side].parameters(), lr=1e-4, fused=True)

    def step(side: str) -> float:
        with form(side):
            loss = F.mse_loss(models[side](x), y)
            loss.backward()
        optimizers[side].step()
        optimizers[side].zero_grad(set_to_none=True)
        return float(loss.detach())

    for side in seconds:
        losses[side] = [step(side) for _ in range(20)][-1]
    for i in range(args.rounds + 1):
        for side in list(seconds) if i % 2 else list(seconds)[::-1]:
            began = time.perf_counter()
            step(side)
            seconds[side].append(time.perf_counter() - began)
    ratios = [a / b for a, b in zip(seconds["loop"][1:], seconds["ours"][1:], strict=True)]
    low, high = np.quantile(ratios, [0.25, 0.75])
    print(json.dumps({
        "batch_size": args.batch, "rounds": args.rounds, "threads": torch.get_num_threads(),
        "load": [round(v, 2) for v in os.getloadavg()],
        "loss after 20 steps": {side: round(value, 6) for side, value in losses.items()},
        "step, seconds": {side: round(statistics.median(found[1:]), 4) for side, found in seconds.items()},
        "step, ratio": f"{statistics.median(ratios):.2f} [{low:.2f}, {high:.2f}]",
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
