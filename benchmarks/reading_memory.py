"""How far memory rises while a large Parquet file is read: run as ``python benchmarks/reading_memory.py FOLDER``.

Writes 1,000 channels x 100,000 rows in single and double precision, reads each file in a fresh process and prints the
growth of the resident peak (VmHWM) as a multiple of the values' size. Linux only.
"""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np

N_CHANNELS, N_ROWS = 1000, 100_000


def peak() -> int:
    """Bytes of the highest resident memory of this process so far."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def write(path: Path, dtype: str, rows_per_group: int) -> None:
    """A table of noise with a time column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    start = np.datetime64("2020-01-01", "ms")
    columns: dict[str, np.ndarray] = {"time": start + 60_000 * np.arange(N_ROWS)}
    columns |= {f"c{i}": rng.standard_normal(N_ROWS).astype(dtype) for i in range(N_CHANNELS)}
    pq.write_table(pa.table(columns), path, row_group_size=rows_per_group)


def measure(path: Path) -> None:
    """Read one file in this process."""
    from prismts.data.readers import read

    before, start = peak(), time.perf_counter()
    data = read(path)
    seconds, growth = time.perf_counter() - start, peak() - before
    print(f"{path.name}: {growth / 2**20:.0f} MiB, {growth / data.values.nbytes:.3f} x values, {seconds:.2f} s")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    if target.is_file():
        measure(target)
    else:
        for dtype in ("float32", "float64"):
            for rows_per_group in (N_ROWS, N_ROWS // 10):
                file = target / f"{dtype}_{rows_per_group}.parquet"
                if not file.exists():
                    write(file, dtype, rows_per_group)
                subprocess.run([sys.executable, __file__, str(file)], check=True)
