"""What every call of aeon needs: an error that names the extra, and a process that is left as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

import numpy as np
import torch

from prismts.errors import MissingExtraError

__all__ = ["needs_aeon", "undisturbed"]


@contextlib.contextmanager
def needs_aeon(who: str) -> Generator[None]:
    """Around an import of aeon: where it is not installed, ``who`` needs it, and the error says how to get it."""
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(
            f"{who} needs aeon, which is not installed. Run: pip install 'prismts[bench]'"
        ) from error


@contextlib.contextmanager
def undisturbed() -> Generator[None]:
    """Give back what aeon's kernels set for the whole process: two random states and the number of threads.

    The first loop that numba runs in parallel, even on one thread, sets torch's threads to the number of cores where
    both use one OpenMP library; Hydra sets them itself.
    """
    state, n_threads = np.random.get_state(), torch.get_num_threads()  # noqa: NPY002 (aeon seeds the global one)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
        torch.set_num_threads(n_threads)
