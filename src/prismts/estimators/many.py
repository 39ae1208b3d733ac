"""Fit many estimators at once: seeds, horizons, settings, members; on a GPU as one, on a CPU side by side.

    models = [Forecaster(random_state=seed) for seed in range(5)]
    prismts.fit_many(models, table)

On an accelerator one small network keeps a fraction of it busy, so the estimators run up to their training, and what
they would train is trained together (``training.together``): those of one form as one stack of weights. On a CPU
stacking is slower than one after another, since there a network keeps a core busy (``docs/performance.md``); there,
processes of one thread each do the work side by side.
"""

# pyright: reportPrivateUsage=false
# the other half of Estimator._fit_network
from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar, cast, get_args

import torch
from joblib import Parallel, cpu_count, delayed

from prismts.errors import SettingsError, unknown_name
from prismts.estimators.base import Estimator
from prismts.training.fit import FitResult
from prismts.training.progress import Bar
from prismts.training.together import Training, fit_together

__all__ = ["fit_many"]

How = Literal["auto", "stacked", "processes", "in turn"]
E = TypeVar("E", bound=Estimator)


def fit_many(
    estimators: Sequence[E],
    *data: Any,
    how: How = "auto",
    n_jobs: int | None = None,
    progress: bool = True,
    **fit_arguments: Any,
) -> list[E]:
    """Fit every estimator to the same data, as ``fit(*data, **fit_arguments)`` of each would, and return them.

    Args:
        estimators: of any kinds and settings; each is fitted in place, and no two may be the same object.
        data: what ``fit`` takes: a table, cases, cases and labels.
        how: "stacked" trains networks of one form as one, "processes" fits ``n_jobs`` at a time in processes of their
            own, "in turn" one after another; "auto" stacks on an accelerator and else uses processes. Stacked networks
            draw other dropout and other augmentation than alone, everything else is as alone.
        n_jobs: processes at a time; None for one per core.
        progress: whether to show one bar over all of them; bars of their own stay off.
        fit_arguments: such as ``validation``.

    An estimator with a ``run_folder`` of its own resumes there, as in ``fit``.
    """
    if isinstance(estimators, Estimator) or not isinstance(estimators, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise SettingsError(
            f"fit_many fits several estimators, such as [Forecaster(random_state=0), Forecaster(random_state=1)], but "
            f"got {estimators!r}."
        )
    estimators = list(estimators)
    if how not in get_args(How):
        raise unknown_name("way to fit many", how, get_args(How))
    if len({id(one) for one in estimators}) < len(estimators):
        raise SettingsError("fit_many fits every estimator in place, but one of them was given twice. Clone it first.")
    folders = [str(one.run_folder) for one in estimators if one.run_folder is not None]
    if len(set(folders)) < len(folders):
        raise SettingsError(f"Two estimators share the run_folder {folders[0]!r}. Give each a folder of its own.")
    if how == "auto":
        has_accelerator = torch.accelerator.current_accelerator(check_available=True) is not None
        how = "stacked" if has_accelerator else "processes"
    n_jobs = max(1, min(n_jobs or cpu_count(), len(estimators)))
    fitting = {"stacked": _stacked, "processes": _processes, "in turn": _in_turn}[how]
    if how == "processes" and n_jobs == 1:
        fitting = _in_turn
    with _quiet(estimators):
        fitting(estimators, data, fit_arguments, n_jobs, progress)
    return estimators


@contextlib.contextmanager
def _quiet(estimators: Sequence[Estimator]) -> Generator[None]:
    """Without bars of their own."""
    before = [one.progress for one in estimators]
    for one in estimators:
        one.progress = False
    try:
        yield
    finally:
        for one, shown in zip(estimators, before, strict=True):
            one.progress = shown
            if hasattr(one, "_arguments"):
                one._arguments["progress"] = shown


# ---- one after another


def _in_turn(
    estimators: Sequence[Estimator], data: Sequence[Any], arguments: dict[str, Any], n_jobs: int, progress: bool
) -> None:
    with Bar("fitting", len(estimators), shown=progress) as bar:
        for one in estimators:
            cast(Any, one).fit(*data, **arguments)
            bar.move(1, n_items=1)


# ---- side by side


def _processes(
    estimators: Sequence[Estimator], data: Sequence[Any], arguments: dict[str, Any], n_jobs: int, progress: bool
) -> None:
    threads = max(1, cpu_count() // n_jobs)
    tasks = (delayed(_fit_alone)(i, one, data, arguments, threads) for i, one in enumerate(estimators))
    with Bar("fitting", len(estimators), shown=progress) as bar:
        found: Any = Parallel(
            n_jobs=n_jobs,
            backend="loky",
            return_as="generator_unordered",
            max_nbytes=None,  # arrays that can be written
        )(tasks)
        for i, fitted in found:
            estimators[i].__dict__.update(fitted.__dict__)
            bar.move(1, n_items=1)


def _fit_alone(
    number: int, one: Estimator, data: Sequence[Any], arguments: dict[str, Any], threads: int
) -> tuple[int, Estimator]:
    """What a process does."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return number, cast(Any, one).fit(*data, **arguments)
    finally:
        torch.set_num_threads(before)


# ---- as one


class _Abandoned(BaseException):
    """Another estimator failed, so this one's ``fit`` ends where it waits."""


class _Fitting:
    """The ``fit`` of one estimator, which stops wherever it would train a network.

    It runs in a thread of its own, but never beside another one: the caller and the threads hand a single turn to each
    other, and torch's seed is that of whose turn it is.
    """

    def __init__(self, estimator: Estimator, data: Sequence[Any], arguments: dict[str, Any]) -> None:
        self.wanted: Training | None = None  # what it waits for
        self.result: FitResult | None = None
        self.error: BaseException | None = None
        self.is_done = False
        self._abandoned = False
        self._ours, self._theirs = threading.Semaphore(0), threading.Semaphore(0)
        self._seed_state = torch.get_rng_state()
        self._thread = threading.Thread(target=self._run, args=(estimator, data, arguments), daemon=True)
        self._thread.start()

    def go_on(self, result: FitResult | None = None) -> None:
        """Let it run, with what it waited for, until it waits again or is done; its errors are raised here."""
        self.result, self.wanted = result, None
        before = torch.get_rng_state()
        torch.set_rng_state(self._seed_state)
        self._ours.release()
        self._theirs.acquire()
        self._seed_state = torch.get_rng_state()
        torch.set_rng_state(before)
        if self.error is not None:
            raise self.error

    def abandon(self) -> None:
        """End it where it waits."""
        if not self.is_done:
            self._abandoned = True
            self._ours.release()
            self._thread.join()

    def _run(self, estimator: Estimator, data: Sequence[Any], arguments: dict[str, Any]) -> None:
        self._ours.acquire()
        try:
            if not self._abandoned:
                with estimator._trained_by(self._train):
                    cast(Any, estimator).fit(*data, **arguments)
        except BaseException as error:
            self.error = error
        finally:
            self.is_done = True
            self._theirs.release()

    def _train(self, model: Any, task: Any, train: Any, validation: Any = None, **how: Any) -> FitResult:
        self.wanted = Training(model=model, task=task, train=train, validation=validation, **how)
        self._theirs.release()
        self._ours.acquire()
        if self._abandoned:
            raise _Abandoned
        assert self.result is not None
        return self.result


def _stacked(
    estimators: Sequence[Estimator], data: Sequence[Any], arguments: dict[str, Any], n_jobs: int, progress: bool
) -> None:
    fittings = [_Fitting(one, data, arguments) for one in estimators]
    try:
        for one in fittings:
            one.go_on()
        while waiting := [one for one in fittings if one.wanted is not None]:
            wanted = [cast(Training, one.wanted) for one in waiting]
            results = fit_together([replace(one, progress=progress) for one in wanted])
            for one, result in zip(waiting, results, strict=True):
                one.go_on(result)
    finally:
        for one in fittings:
            one.abandon()
