"""A training step and an inference of ConvTimeNet, ours beside sktime's, alternating in one process.

python benchmarks/step.py --setting ETTh2                       float32, the allocator that ``fit`` asks for, both sides
python benchmarks/step.py --setting AWR --dtype bf16            under autocast
python benchmarks/step.py --setting ETTh2 --default-allocator   glibc as it comes: what a bare loop gets
python benchmarks/step.py --setting ETTh2 --memory ours         the peak of one side, in a process of its own
python benchmarks/step.py --setting ETTh2 --profile             where the time of a step goes, theirs and ours

Both networks begin at the same weights and read the same random walks; a step is forward, backward and AdamW:
on a CPU theirs as torch has it by default, which is how sktime builds its own, ours fused, as ``fit`` builds it, and
with oneDNN's products where ``fit`` has them (``PRISMTS_ONEDNN=0``: nowhere).
Every round times each side once, in an order that alternates; the ratio is the median over
rounds of theirs by ours, with its quartiles. The floor is the time that the products of our step (counted by torch, the
backward pass twice the forward one) would take at the speed of a large matrix product measured in the same rounds.
Equal work: both losses after 20 steps from the same weights; they differ by the draws of dropout alone.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

if "--default-allocator" in sys.argv:
    os.environ["PRISMTS_KEEP_PAGES"] = "0"

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from prismts.layers.products import quick_products
from prismts.models.convtimenet import from_reference
from prismts.training.memory import keep_pages

FORECAST = {
    "ETTh2": {"n_channels": 7}, "Weather": {"n_channels": 21}, "Electricity": {"n_channels": 321, "batch_size": 4},
    "Traffic": {"n_channels": 862, "batch_size": 2},
}  # fmt: skip
CLASSIFY = {  # of the authors: REFERENCES.md; long: 2,500 steps of 3 channels
    "AWR": {"n_channels": 9, "n_timepoints": 144, "n_classes": 25, "patch_length": 4, "stride": 2},
    "EP": {"n_channels": 3, "n_timepoints": 206, "n_classes": 4, "patch_length": 8, "stride": 4},
    "long": {"n_channels": 3, "n_timepoints": 2500, "n_classes": 5, "patch_length": 16, "stride": 8},
}
KERNELS = (9, 11, 15, 21, 29, 39)
CLASSIFY_KERNELS = (7, 7, 13, 13, 19, 19)


def forecast_pair(setting: dict) -> tuple[nn.Module, nn.Module]:
    """Theirs, and ours with their weights; both take [B, C, T] and answer [B, C, H]."""
    from sktime.networks.convtimenet.forecaster._convtimenet import Model

    settings = {
        "enc_in": setting["n_channels"], "seq_len": 336, "pred_len": 96, "e_layers": 6, "d_model": 64, "d_ff": 256,
        "dropout": 0.2, "head_dropout": 0.0, "deformable": True, "patch_ks": 32, "patch_sd": 16,
        "padding_patch": "end", "revin": True, "affine": False, "subtract_last": False, "dw_ks": KERNELS,
        "re_param": True, "re_param_kernel": 3, "enable_res_param": True, "device": setting["device"],
    }  # fmt: skip
    theirs = Model(settings).model
    config = {
        "n_channels": setting["n_channels"], "context_length": 336, "horizon": 96, "patch_length": 32, "stride": 16,
        "d_model": 64, "d_ff": 256, "kernel_sizes": KERNELS, "small_kernel": 3,
    }  # fmt: skip
    return theirs, from_reference(config, {k: v.numpy() for k, v in theirs.state_dict().items()})


def classify_pair(setting: dict) -> tuple[nn.Module, nn.Module]:
    """Theirs, and ours with their weights; both take [B, C, T] and answer [B, K]."""
    from sktime.networks.convtimenet._convtimenet import ConvTimeNet

    outer = ConvTimeNet(
        enc_in=setting["n_channels"], d_model=64, seq_len=setting["n_timepoints"], patch_size=setting["patch_length"],
        patch_stride=setting["stride"], n_classes=setting["n_classes"], dropout=0.2, d_ff=256, dw_ks=CLASSIFY_KERNELS,
        device=setting["device"],
    )  # fmt: skip
    theirs = outer._ConvTimeNet(**outer.params)
    config = {
        "n_channels": setting["n_channels"], "n_timepoints": setting["n_timepoints"],
        "n_classes": setting["n_classes"], "pooling": "max", "patch_length": setting["patch_length"],
        "stride": setting["stride"], "d_model": 64, "d_ff": 256, "kernel_sizes": CLASSIFY_KERNELS, "small_kernel": 3,
    }  # fmt: skip
    return theirs, from_reference(config, {k: v.numpy() for k, v in theirs.state_dict().items()})


def set_dropout(model: nn.Module, p: float) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = p


Around = Callable[[], AbstractContextManager[None]]


class Side:
    """One network with its optimizer, timed."""

    def __init__(
        self, model: nn.Module, classify: bool, bf16: bool, place: torch.device, fused: bool, around: Around
    ) -> None:
        self.model = model.to(place).train()
        self.loss = F.cross_entropy if classify else F.mse_loss
        self.bf16, self.place, self.around = bf16, place, around
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=fused or None)
        self.seconds: dict[str, list[float]] = {"step": [], "inference": []}

    def step(self, x: torch.Tensor, y: torch.Tensor) -> float:
        with self.around():
            with torch.autocast(self.place.type, torch.bfloat16, enabled=self.bf16):
                answer = self.model(x)
            loss = self.loss(answer.float(), y)
            loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    def timed(self, what: str, work: Callable[[], object]) -> float:
        """Seconds of one call, from quiet device to quiet device."""
        settle(self.place)
        began = time.perf_counter()
        work()
        settle(self.place)
        self.seconds[what].append(time.perf_counter() - began)
        return self.seconds[what][-1]


def settle(place: torch.device) -> None:
    if place.type == "cuda":
        torch.cuda.synchronize()


KINDS = {  # of operations, by what their names hold; the first that fits counts
    "matrix products": ("::mm", "::addmm", "::bmm", "::baddbmm"),
    "convolutions": ("conv",),
    "normalization": ("batch_norm", "layer_norm"),
    "GELU": ("gelu",),
    "dropout": ("dropout", "bernoulli"),
    "sampling of patches": ("grid_sampler",),
    "copies between layouts": ("copy_", "::cat", "index", "gather", "scatter"),
    "sums and element-wise passes": (
        "::add", "::mul", "::div", "::sum", "::sub", "::neg", "::sqrt", "::fill_", "::lerp", "_foreach", "_fused_adam",
    ),
}  # fmt: skip
REST = "rest: Python, random bytes of ours, allocation"


def profiled(step: Callable[[], object], place: torch.device, times: int = 5) -> dict[str, float]:
    """Milliseconds of a step by kind of operation, as torch's profiler counts them."""
    from torch.profiler import ProfilerActivity, profile

    cuda = place.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as told:
        for _ in range(times):
            step()
    found = dict.fromkeys([*KINDS, REST], 0.0)
    for one in told.key_averages():
        kind = next((kind for kind, parts in KINDS.items() if any(part in one.key for part in parts)), REST)
        spent = one.self_device_time_total if cuda else one.self_cpu_time_total
        found[kind] += spent / 1000 / times
    return found


def ratio(theirs: list[float], ours: list[float]) -> str:
    found = sorted(t / o for t, o in zip(theirs, ours, strict=True))
    low, high = np.quantile(found, [0.25, 0.75])
    return f"{statistics.median(found):.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", default="ETTh2", choices=[*FORECAST, *CLASSIFY])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bf16"])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch", type=int)
    parser.add_argument("--compile", action="store_true", help="torch.compile on both sides")
    parser.add_argument("--default-allocator", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--memory", choices=["theirs", "ours"], help="only the peak memory of five steps of one side")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)  # as fit does; both sides
    keep_pages()
    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    classify = args.setting in CLASSIFY
    setting = {"device": place, "batch_size": 64 if classify else 256, **(CLASSIFY | FORECAST)[args.setting]}
    if args.setting == "Weather":
        setting["batch_size"] = 64
    batch_size = args.batch or setting["batch_size"]
    theirs_net, ours_net = (classify_pair if classify else forecast_pair)(setting)
    set_dropout(ours_net.blocks, 0.2)  # as in theirs: none at the head
    bf16 = args.dtype == "bf16"
    n = setting.get("n_timepoints", 336)
    x = torch.randn(batch_size, setting["n_channels"], n).cumsum(-1).to(place)
    if classify:
        y = torch.randint(setting["n_classes"], (batch_size,)).to(place)
        feed = {"theirs": x.mT.contiguous() if _time_first(theirs_net, x) else x, "ours": x}
    else:
        y = torch.randn(batch_size, setting["n_channels"], 96).to(place) + x[..., -1:]
        feed = {"theirs": x, "ours": x}
    if args.compile:
        theirs_net, ours_net = torch.compile(theirs_net), torch.compile(ours_net)
    alike = place.type == "cuda"  # where theirs would be given the fused optimizer too
    # fit and predict have our products made by oneDNN where that is quicker
    nets = {"theirs": (theirs_net, alike, nullcontext), "ours": (ours_net, True, quick_products)}
    sides = {name: Side(net, classify, bf16, place, *more) for name, (net, *more) in nets.items()}

    if args.memory:
        begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(5):
            sides[args.memory].step(feed[args.memory], y)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begun
        print(json.dumps({"setting": args.setting, "side": args.memory, "MiB above the start": round(grown / 1024)}))
        return
    losses = {}
    for name, side in sides.items():
        torch.manual_seed(1)
        losses[name] = [side.step(feed[name], y) for _ in range(20)][-1]

    if args.profile:
        spent = {name: profiled(lambda side=side, name=name: side.step(feed[name], y), place)
                 for name, side in sides.items()}  # fmt: skip
        total = {name: sum(found.values()) for name, found in spent.items()}
        print(f"| milliseconds of a step, {args.setting} | theirs | share | ours | share |\n|---|---|---|---|---|")
        for kind in [*KINDS, REST]:
            cells = [f"{spent[name][kind]:.1f} | {spent[name][kind] / total[name]:.0%}" for name in sides]
            print(f"| {kind} | {' | '.join(cells)} |")
        print(f"| sum | {total['theirs']:.1f} | | {total['ours']:.1f} | |")
        return

    with FlopCounterMode(display=False) as counter, torch.no_grad():  # without gradients every product is counted
        sides["ours"].model(feed["ours"])
    forward_flop = counter.get_total_flops()
    flop = 3 * forward_flop
    a, b = (torch.randn(2048, 2048, device=place) for _ in range(2))
    if bf16:
        a, b = a.bfloat16(), b.bfloat16()
    speed = []
    for i in range(args.rounds + 1):
        order = list(sides) if i % 2 else list(sides)[::-1]
        for name in order:
            sides[name].timed("step", lambda name=name: sides[name].step(feed[name], y))
        settle(place)
        began = time.perf_counter()
        with quick_products():
            for _ in range(3):
                a @ b
        settle(place)
        speed.append(3 * 2 * 2048**3 / (time.perf_counter() - began))
    quick = {"theirs": sides["theirs"].model.eval(), "ours": sides["ours"].model.eval()}
    if not args.compile:
        quick["ours"] = quick["ours"].merged()
    with torch.no_grad(), torch.autocast(place.type, torch.bfloat16, enabled=bf16):
        for i in range(args.rounds + 1):
            order = list(sides) if i % 2 else list(sides)[::-1]
            for name in order:
                with sides[name].around():
                    sides[name].timed("inference", lambda name=name: quick[name](feed[name]))
    for side in sides.values():
        for found in side.seconds.values():
            del found[0]  # the first round warms up
    floor = flop / statistics.median(speed)
    ours, theirs = sides["ours"].seconds, sides["theirs"].seconds
    said = {
        "setting": args.setting, "dtype": args.dtype, "device": place.type, "threads": args.threads,
        "batch_size": batch_size, "rounds": args.rounds, "compiled": args.compile,
        "allocator": "default" if args.default_allocator else "keep_pages, both sides",
        "load": [round(v, 2) for v in os.getloadavg()],
        "loss after 20 steps": {name: round(value, 5) for name, value in losses.items()},
        "step, seconds": {name: round(statistics.median(side.seconds["step"]), 4) for name, side in sides.items()},
        "step, ratio": ratio(theirs["step"], ours["step"]),
        "inference, seconds": {n: round(statistics.median(s.seconds["inference"]), 5) for n, s in sides.items()},
        "inference, ratio": ratio(theirs["inference"], ours["inference"]),
        "products, GFLOP": round(flop / 1e9, 2), "matrix products, GFLOP/s": round(statistics.median(speed) / 1e9, 1),
        "floor, seconds": round(floor, 4), "share of the floor": round(floor / statistics.median(ours["step"]), 3),
        "peak MiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }  # fmt: skip
    print(json.dumps(said, indent=1))


def _time_first(model: nn.Module, x: torch.Tensor) -> bool:
    """Whether a network wants [B, T, C]."""
    try:
        with torch.no_grad():
            model.eval()(x[:2])
    except RuntimeError:
        return True
    return False


if __name__ == "__main__":
    main()
