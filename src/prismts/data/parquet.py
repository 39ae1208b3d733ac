"""Parquet files as columns, of which only a few are in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import narwhals as nw
import pyarrow as pa
import pyarrow.parquet as pq

from prismts.data.columns import Columns, Kind, kind_of
from prismts.errors import DataError

__all__ = ["columns_of_parquet"]

_SLICE = 4 * 2**20  # bytes of decoded columns to hold at once


def columns_of_parquet(path: Path) -> Columns:
    """The columns of a Parquet file, which stay on disk until they are asked for."""
    try:
        # Not mapped: the pages of a mapped file stay in memory once they were read, here all of them
        file = pq.ParquetFile(path, memory_map=False, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path.name} is no Parquet file, or a damaged one ({_reason(error)}).") from error
    n_rows = file.metadata.num_rows
    names = file.schema_arrow.names
    repeated = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if repeated is not None:
        raise DataError(f"{path.name} has two columns named {repeated!r}. Rename one.")
    schema = nw.from_native(file.schema_arrow.empty_table()).schema
    kinds: dict[str, Kind] = {name: kind_of(dtype) for name, dtype in schema.items()}
    n_together = max(1, _SLICE // (8 * max(1, n_rows)))

    def fetch(names: Sequence[str]) -> Iterator[pa.ChunkedArray]:
        """Several columns at once, as the pages of a row group lie behind each other."""
        for begin in range(0, len(names), n_together):
            wanted = list(names[begin : begin + n_together])
            try:
                part = file.read(columns=wanted, use_threads=False)
            except (pa.ArrowException, OSError) as error:
                raise DataError(
                    f"{path.name} is damaged: columns {wanted} cannot be read ({_reason(error)})."
                ) from error
            yield from (part.column(name) for name in wanted)
            del part
            pa.default_memory_pool().release_unused()

    return Columns(path.name, n_rows, kinds, fetch)


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
