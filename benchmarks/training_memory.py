"""How far memory rises while the default Forecaster learns from a large Parquet file.

Run as ``python benchmarks/training_memory.py FOLDER [N_STEPS]``. Writes 1,000 channels x 100,000 rows in single precision, then
reads the file and trains one epoch on it in a fresh process, of which no more than N_STEPS training and validation
steps are taken (30, or 0 for all), and prints the seconds of each part and the growth of the resident peak (VmHWM)
over what the imports took, as a multiple of the values' size. Linux only.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from reading_memory import N_CHANNELS, N_ROWS, peak, write

N_STEPS = 30


def resident() -> int:
    """Bytes of memory this process holds now."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


def measure(path: Path, n_steps: int) -> None:
    """Read and train in this process."""
    import lightning  # noqa: F401
    import torch  # noqa: F401

    import prismts  # noqa: F401
    from prismts.data import scaling
    from prismts.data.readers import read
    from prismts.estimators import forecaster as module
    from prismts.tasks.forecast import Forecast
    from prismts.training import fit as loop
    from prismts.training.batches import Batches

    before, start = resident(), time.perf_counter()
    size = N_CHANNELS * N_ROWS * 4

    def told(owner: Any, name: str, said: str) -> None:
        """Say how long every call of a function took, and how high memory has risen."""
        inner: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            result = inner(*args, **kwargs)
            seconds, growth = time.perf_counter() - began, (peak() - before) / size
            print(f"  {said:<28}{seconds:>8.1f} s   peak {growth:.3f} x values", flush=True)
            return result

        setattr(owner, name, timed)

    class Few(Batches):
        """The first few batches of an epoch."""

        def __len__(self) -> int:
            return min(n_steps, super().__len__())

        def __iter__(self) -> Iterator[Any]:
            return islice(super().__iter__(), n_steps)

    if n_steps:
        loop.Batches = Few  # type: ignore[misc]
    for owner, name, said in (
        (scaling.StandardScaler, "fit", "scaler"),
        (Forecast, "prepare", "line"),
        (module, "fit", f"{n_steps or 'all'} steps"),
        (Forecast, "finish", "weighing"),
        (module, "_season_scale", "season scale"),
        (module, "data_hash", "hash"),
    ):
        told(owner, name, said)
    read_now: dict[str, Any] = {"read": read}
    holder = type("Reader", (), read_now)
    told(holder, "read", "reading")
    table = holder.read(path)  # type: ignore[attr-defined]
    forecaster = module.Forecaster(fit_settings={"max_epochs": 1}, progress=False).fit(table, validation=0.2)
    told(forecaster, "predict", "forecast")
    forecaster.predict()
    seconds, growth = time.perf_counter() - start, peak() - before
    print(f"{path.name}: {growth / 2**20:.0f} MiB, {growth / size:.3f} x values, {seconds:.0f} s")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    n_steps = int(sys.argv[2]) if len(sys.argv) > 2 else N_STEPS
    if target.is_file():
        measure(target, n_steps)
    else:
        target.mkdir(parents=True, exist_ok=True)
        file = target / f"float32_{N_ROWS}.parquet"
        if not file.exists():
            write(file, "float32", N_ROWS)
        subprocess.run([sys.executable, __file__, str(file), str(n_steps)], check=True)
