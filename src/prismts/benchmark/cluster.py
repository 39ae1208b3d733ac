"""Run cells on a Ray cluster: nodes compute, this process writes, so that no folder has to be shared.

A node needs this package and the data sets (its cache, or the folder that PRISMTS_DATA names there). What a node loses
when it dies is computed again on another one.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prismts.benchmark.groups import Event, Group, Tell, at_work, scored
from prismts.benchmark.nodes import connected, n_cores
from prismts.benchmark.results import write_failed, write_records
from prismts.benchmark.spec import BenchSpec

__all__ = ["run_on_cluster"]

_RETRIES = 3  # by Ray itself, of a cell whose worker or node died


def run_on_cluster(spec: BenchSpec, groups: Sequence[Group], folder: Path, address: str, tell: Tell) -> None:
    """Run every group as a task of one CPU; ``address`` is that of the cluster, such as "auto" or "ray://host:10001".

    Raises:
        MissingExtraError: ray is not installed.
        SettingsError: no cluster answers at this address.
    """
    running: dict[Any, tuple[Group, float, contextlib.ExitStack]] = {}
    try:
        with connected(address) as ray:
            remote: Any = ray.remote(num_cpus=1, max_retries=_RETRIES)(_compute)
            shared = ray.put(spec)
            waiting = deque(groups)
            while waiting or running:
                for _ in range(min(2 * n_cores(ray) - len(running), len(waiting))):
                    group, held = waiting.popleft(), contextlib.ExitStack()
                    if event := held.enter_context(at_work(spec, group, folder)):
                        held.close()
                        tell(event)
                        continue
                    running[remote.remote(shared, group)] = group, time.time(), held
                    tell(Event(group, "started"))
                ready, _ = ray.wait(list(running), num_returns=1, timeout=1.0) if running else ([], [])
                for reference in ready:
                    group, began, held = running.pop(reference)
                    try:
                        records, told, trace = ray.get(reference)
                    except (
                        ray.exceptions.RayError
                    ) as error:  # its worker or node died, and again whenever Ray tried anew
                        records, told, trace = None, f"{type(error).__name__}: {' '.join(str(error).split())}", ""
                    seconds = time.time() - began
                    with held:
                        if records is None:
                            write_failed(folder, spec, group, told, trace)
                            event = Event(group, "failed", told, seconds)
                        else:
                            write_records(folder, records)
                            event = Event(group, "done", scored(records[0].content), seconds)
                    tell(event)
    finally:
        for _, _, held in running.values():
            held.close()


def _compute(spec: BenchSpec, group: Group) -> tuple[Any, str, str]:
    """On a node: the records of a group, or the error it ended with and where."""
    import torch

    from prismts.benchmark.cells import run_cells

    torch.set_num_threads(1)
    try:
        return run_cells(spec, group), "", ""
    except Exception as error:  # told to the process that writes
        return None, f"{type(error).__name__}: {error}", traceback.format_exc()
