"""The machines of a Ray cluster, as those that share out work see them."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Generator
from typing import Any

from prismts.benchmark.groups import ONE_THREAD
from prismts.errors import MissingExtraError, SettingsError

__all__ = ["connected", "n_cores"]

_PATIENCE = 10  # seconds that a cluster may take to answer


@contextlib.contextmanager
def connected(address: str) -> Generator[Any]:
    """Ray, connected while the block runs; ``address`` is "auto", "host:6379" or "ray://host:10001".

    Processes on the nodes compute on one thread each, and look for data sets where PRISMTS_DATA says, if it is set
    here. A connection that was there before stays.

    Raises:
        MissingExtraError: ray is not installed.
        SettingsError: no cluster answers at this address.
    """
    try:
        import ray
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
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


def n_cores(ray: Any) -> int:
    """How many tasks of one core the cluster computes at once now: nodes may come and go."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _reach(address: str) -> None:
    """Raise at once where nothing listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
