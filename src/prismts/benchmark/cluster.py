"""Run cells on a Ray cluster: nodes compute, this process writes, so that no folder has to be shared.

A node needs this package and the data sets (its cache, or the folder that PRISMTS_DATA names there). What a node loses
when it dies is computed again on another one.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
import traceback
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prismts.benchmark.groups import ONE_THREAD, Event, Group, Tell, at_work, scored
from prismts.benchmark.results import write_failed, write_records
from prismts.benchmark.spec import BenchSpec
from prismts.errors import MissingExtraError, SettingsError

__all__ = ["run_on_cluster"]

_RETRIES = 3  # by Ray itself, of a cell whose worker or node died
_PATIENCE = 10  # seconds that a cluster may take to answer


def run_on_cluster(spec: BenchSpec, groups: Sequence[Group], folder: Path, address: str, tell: Tell) -> None:
    """Run every group as a task of one CPU; ``address`` is that of the cluster, such as "auto" or "ray://host:10001".

    Raises:
        MissingExtraError: ray is not installed.
        SettingsError: no cluster answers at this address.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]
        from ray.exceptions import RayError  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingExtraError(
            "Running on a cluster needs ray, which is not installed. Run: pip install 'prismts[cluster]'"
        ) from error
    ours = not ray.is_initialized()
    if ours:
        environment = dict(ONE_THREAD)
        if "PRISMTS_DATA" in os.environ:
            environment["PRISMTS_DATA"] = os.environ["PRISMTS_DATA"]
        try:
            _reach(address)
            ray.init(
                address=address, log_to_driver=False, configure_logging=False, runtime_env={"env_vars": environment}
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise SettingsError(
                f"No Ray cluster answers at {address!r} ({error}). Start one with: ray start --head, and pass the "
                "address it prints."
            ) from error
    running: dict[Any, tuple[Group, float, contextlib.ExitStack]] = {}
    try:
        remote: Any = ray.remote(num_cpus=1, max_retries=_RETRIES)(_compute)
        shared = ray.put(spec)
        waiting = deque(groups)
        while waiting or running:
            # nodes may come and go: look every time how much there is to do at once
            room = max(1, int(ray.cluster_resources().get("CPU", 1))) * 2 - len(running)
            for _ in range(min(room, len(waiting))):
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
                except RayError as error:  # the worker or its node died, and again whenever Ray tried it anew
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
        if ours:
            ray.shutdown()


def _reach(address: str) -> None:
    """Raise at once where nothing listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()


def _compute(spec: BenchSpec, group: Group) -> tuple[Any, str, str]:
    """On a node: the records of a group, or the error it ended with and where."""
    import torch

    from prismts.benchmark.cells import run_cells

    torch.set_num_threads(1)
    try:
        return run_cells(spec, group), "", ""
    except Exception as error:  # told to the process that writes
        return None, f"{type(error).__name__}: {error}", traceback.format_exc()
