"""Compute the trials of a search on a Ray cluster: nodes train, this process keeps the study, so nothing is shared.

Nodes tell every epoch to a mailbox, a small process on the cluster; this process reads it, reports the curves to Optuna
and leaves word there which trials need not go on: such a trial ends with its next epoch. A trial whose worker or node
dies is put back with the same values, and trained again from its beginning: checkpoints would be on the node that died.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prismts.benchmark.nodes import connected, n_cores
from prismts.benchmark.search_lost import alive, put_back
from prismts.benchmark.search_space import Candidate
from prismts.benchmark.search_spec import SearchSpec
from prismts.benchmark.search_study import import_optuna, salt_of, todo
from prismts.benchmark.search_trial import Ground, Judged, ground
from prismts.benchmark.search_work import FAILURES, Tell, Watch, ask, begin, drawn, told_of, write_down
from prismts.errors import PrismError, SettingsError
from prismts.training.watch import watching

if TYPE_CHECKING:
    from optuna import Study, Trial

__all__ = ["search_on_cluster"]

_POLL = 0.5  # seconds


@dataclass
class _Running:
    """A trial that a node computes."""

    trial: Trial
    watch: Watch
    held: contextlib.ExitStack  # the lock that tells other runs it is not lost
    is_pruned: bool = False


def search_on_cluster(spec: SearchSpec, folder: Path, study: Study, data: Ground, address: str, tell: Tell) -> None:
    """Run the trials that are missing, each as a task of one core; ``address`` is as of :func:`connected`.

    Raises:
        MissingExtraError: ray is not installed.
        SettingsError: no cluster answers at this address, or a node cannot read the data or has others.
    """
    begin(study, spec, data)
    with connected(address) as ray:
        _Desk(ray, spec, folder, study, data, tell).work()


class _Desk:
    """Where trials are given out and what comes back is written down."""

    def __init__(self, ray: Any, spec: SearchSpec, folder: Path, study: Study, data: Ground, tell: Tell) -> None:
        self.ray, self.spec, self.folder, self.study, self.data, self.tell = ray, spec, folder, study, data, tell
        moves = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}  # to another node if its own dies
        self.mailbox = ray.remote(_Mailbox).options(**moves).remote()
        self.judge: Any = ray.remote(num_cpus=1, max_retries=0)(_judge)
        self.shared, self.salt = ray.put(spec), salt_of(spec)
        self.running: dict[Any, _Running] = {}

    def work(self) -> None:
        """Until no trial is missing."""
        try:
            while self.give_out():
                ready, _ = self.ray.wait(list(self.running), num_returns=1, timeout=_POLL)
                self.report()  # after waiting: all that a trial told before it ended is there
                for reference in ready:
                    self.end(reference)
        finally:
            for reference, one in self.running.items():
                self.ray.cancel(reference, force=True)
                with one.held:
                    put_back(self.study, one.trial.number)

    def give_out(self) -> bool:
        """Give every free core a trial, as long as any is missing; whether one is computed now."""
        while len(self.running) < n_cores(self.ray) and todo(self.study, self.spec):
            with contextlib.ExitStack() as held:
                worker = held.enter_context(alive(self.folder))
                if (trial := ask(self.study, self.spec, worker, salt=self.salt)) is None:  # another run was quicker
                    break
                try:
                    one = drawn(self.spec, trial, self.data)
                    reference = self.judge.remote(self.shared, self.data.data_hash, one, trial.number, self.mailbox)
                except FAILURES as error:
                    self.tell(write_down(self.study, self.spec, trial, f"{type(error).__name__}: {error}"))
                    continue
                except BaseException:  # Ctrl-C: the trial is not lost
                    put_back(self.study, trial.number)
                    raise
                watch = Watch(trial, self.spec, resumes=False)
                self.running[reference] = _Running(trial, watch, held.pop_all())
        return bool(self.running)

    def report(self) -> None:
        """What nodes told of their epochs, to Optuna; what it prunes is ended there."""
        by_number = {one.trial.number: one for one in self.running.values()}
        for number, entry in self.ray.get(self.mailbox.take.remote()):
            one = by_number.get(number)
            if one is None or one.is_pruned:
                continue
            try:
                one.watch(entry)
            except import_optuna().TrialPruned:
                one.is_pruned = True
                self.mailbox.end.remote(number)

    def end(self, reference: Any) -> None:
        """Write down a trial whose task has ended, or put it back where its worker died."""
        one = self.running[reference]
        died = False
        try:
            outcome = None if one.is_pruned else self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:  # an error of ours
            told = f"{type(error.cause).__name__}: {error.cause}"
            raise SettingsError(f"A node of the cluster ended with an error: {told}") from error
        except self.ray.exceptions.RayError:
            outcome, died = None, True
        if isinstance(outcome, _Unfit):
            raise SettingsError(f"A node of the cluster cannot work at this search: {outcome.told}")
        del self.running[reference]
        with one.held:
            if died:
                put_back(self.study, one.trial.number)
                self.tell(told_of(self.study, self.spec, one.trial.number))
            else:
                self.tell(write_down(self.study, self.spec, one.trial, outcome))


class _Mailbox:
    """On the cluster: what nodes tell of their epochs, and which trials need not go on."""

    def __init__(self) -> None:
        self.letters: list[tuple[int, dict[str, float]]] = []
        self.ended: set[int] = set()

    def put(self, number: int, entry: dict[str, float]) -> bool:
        """Leave what an epoch of a trial was like; whether the trial has been ended."""
        self.letters.append((number, entry))
        return number in self.ended

    def take(self) -> list[tuple[int, dict[str, float]]]:
        """All letters since the last time."""
        letters, self.letters = self.letters, []
        return letters

    def end(self, number: int) -> None:
        """Leave word that a trial need not go on."""
        self.ended.add(number)


class _Ended(Exception):
    """Raised on a node in a training that need not go on."""


@dataclass(frozen=True)
class _Unfit:
    """What keeps a node from working at a search."""

    told: str


def _judge(spec: SearchSpec, data_hash: str, one: Candidate, number: int, mailbox: Any) -> Judged | _Unfit | str | None:
    """On a node: what validation says of a candidate, the error its training ended with, or None if it was pruned."""
    import ray
    import torch

    torch.set_num_threads(1)
    try:
        data = _ground(spec)
    except (PrismError, OSError) as error:
        return _Unfit(f"{type(error).__name__}: {error}")
    if data.data_hash != data_hash:
        return _Unfit("its data are not those that are here; give all nodes the same files")

    def told(entry: Mapping[str, float]) -> None:
        if ray.get(mailbox.put.remote(number, dict(entry))):
            raise _Ended

    try:
        with watching(told):
            return data.judge(one)
    except _Ended:
        return None
    except FAILURES as error:
        return f"{type(error).__name__}: {error}"


_grounds: dict[str, Ground] = {}  # by search, at most one


def _ground(spec: SearchSpec) -> Ground:
    """The data of a search, read once by each process of a node."""
    if repr(spec) not in _grounds:
        _grounds.clear()
        _grounds[repr(spec)] = ground(spec)
    return _grounds[repr(spec)]
