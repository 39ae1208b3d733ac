"""How far memory rises while the default Forecaster learns from a large Parquet file.

Run as ``python benchmarks/training_memory.py FOLDER [N_STEPS]``. Writes 1,000 channels x 100,000 rows in single
precision, then reads the file and trains one epoch on it in a fresh process. Of training and validation no more than
N_STEPS steps are taken (30, or 0 for all), and validation is one hundredth of the rows, as a whole epoch takes hours on
a CPU. Prints the seconds of each part, and the growth of the resident peak (VmHWM) as a multiple of the
values' size: over what the process held once the package was imported, and, in brackets, over what it held with torch
and Lightning alone. Linux only.
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
SIZE = N_CHANNELS * N_ROWS * 4


def resident() -> int:
    """Bytes of memory this process holds now."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


def measure(path: Path, n_steps: int) -> None:
    """Read and train in this process."""
    import lightning  # noqa: F401
    import torch  # noqa: F401

    import prismts  # noqa: F401

    bare = resident()
    from prismts.data import scaling
    from prismts.data.readers import read
    from prismts.estimators import forecaster as estimator
    from prismts.tasks.forecast import Forecast
    from prismts.training import fit as training
    from prismts.training.batches import Batches

    before, start = resident(), time.perf_counter()

    def told(owner: Any, name: str, said: str) -> Callable[..., Any]:
        """Let a function say how long each call took, and how high memory has risen."""
        inner: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            result = inner(*args, **kwargs)
            growth, more = (peak() - before) / SIZE, (before - bare) / SIZE
            seconds = time.perf_counter() - began
            print(f"  {said:<14}{seconds:>7.1f} s   peak {growth:.2f} x values ({growth + more:.2f})", flush=True)
            return result

        setattr(owner, name, timed)
        return timed

    class Few(Batches):
        """The first few batches of an epoch."""

        def __len__(self) -> int:
            return min(n_steps, super().__len__())

        def __iter__(self) -> Iterator[Any]:
            return islice(super().__iter__(), n_steps)

    if n_steps:
        training.Batches = Few  # type: ignore[misc]
    told(scaling.StandardScaler, "fit", "scaler")
    told(Forecast, "prepare", "line")
    told(estimator, "data_hash", "hash")
    told(estimator, "fit", f"{n_steps or 'all'} steps")
    told(Forecast, "finish", "weighing")
    told(estimator, "season_scales", "season scale")
    told(estimator.Forecaster, "predict", "forecast")
    table = told(sys.modules[read.__module__], "read", "reading")(path)
    forecaster = estimator.Forecaster(fit_settings={"max_epochs": 1}, progress=False)
    forecaster.fit(table, validation=0.01).predict()
    print(f"{path.name}: peak {(peak() - before) / SIZE:.2f} x values, {time.perf_counter() - start:.0f} s")


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
