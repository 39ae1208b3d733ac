"""Look on while something trains, however deep inside an estimator the training is.

    with watching(lambda entry: print(entry["epoch"], entry["val_loss"])):
        Forecaster().fit(table)

A watcher sees every epoch as it ends, and ends the training by raising an exception of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["Watcher", "tell_watchers", "watching"]

Watcher = Callable[[Mapping[str, float]], None]  # epoch (from 1), train_loss, val_loss where validated, seconds

_watchers: ContextVar[tuple[Watcher, ...]] = ContextVar("watchers", default=())


@contextmanager
def watching(watcher: Watcher) -> Generator[None]:
    """Call ``watcher`` after every epoch of every training that runs inside, in this thread."""
    token = _watchers.set((*_watchers.get(), watcher))
    try:
        yield
    finally:
        _watchers.reset(token)


def tell_watchers(entry: Mapping[str, float]) -> None:
    """What a training says at the end of an epoch; what a watcher raises goes on to the caller of ``fit``."""
    for watcher in _watchers.get():
        watcher(dict(entry))
