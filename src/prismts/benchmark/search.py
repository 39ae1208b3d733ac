"""Search for the settings of a ConvTimeNet with Optuna: resumable, over several processes, judged on validation alone.

Trials live in Optuna's storage: a SQLite file beside the results by default, a database server for many machines. Who
works at a search holds a lock in its folder for as long as the process lives; the trial of a process that was killed is
therefore known to be lost, is put back at the head of the queue with the same values, and goes on after the last epoch
it had finished. Samplers are seeded anew for every trial, so that a search of one process that was killed and resumed
finds what an unbroken one finds.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import shutil
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prismts.analysis.proposal import propose
from prismts.benchmark.search_cluster import search_on_cluster
from prismts.benchmark.search_lost import MOST_ATTEMPTS, alive, put_back, recover
from prismts.benchmark.search_space import Range
from prismts.benchmark.search_spec import SearchSpec
from prismts.benchmark.search_study import counted, import_optuna, open_study, salt_of, todo
from prismts.benchmark.search_trial import Ground, ground
from prismts.benchmark.search_work import FAILURES, Tell, Watch, ask, begin, drawn, told_of, write_down
from prismts.errors import SavedModelError, SettingsError
from prismts.training.watch import watching

if TYPE_CHECKING:
    from optuna import Study, Trial

__all__ = ["plan", "run_search"]

_POLL = 0.3


def run_search(
    spec: SearchSpec, folder: str | Path, *, jobs: int = 1, cluster: str | None = None, tell: Tell = lambda told: None
) -> Study:
    """Run the trials that are missing and return the study.

    Args:
        spec: what to search.
        folder: where the study lies, and where unfinished trials keep their checkpoints.
        jobs: processes that work at it at once on this machine; others may join through the same storage.
        cluster: the address of a Ray cluster that computes trials, in place of processes here.
        tell: called after every trial.

    A trial that fails for a reason of its own is written down with the error and counts; Ctrl-C ends the search after
    putting the unfinished trial back.

    Raises:
        PrismError: every trial failed; the message is that of the last.
        MissingExtraError: optuna, or ray for a cluster, is not installed.
        SettingsError: the study was made by another specification, or no cluster answers.
    """
    if jobs < 1:
        raise SettingsError(f"jobs counts processes, at least 1, but got {jobs}.")
    if cluster is not None and jobs > 1:
        raise SettingsError("Trials run in processes here (jobs) or on a cluster, which has its own: give one of both.")
    folder = Path(folder)
    data = ground(spec)  # before anything is written: what cannot work leaves nothing behind
    study = open_study(spec, folder)
    recover(study, folder)
    if todo(study, spec):
        if cluster is not None:
            search_on_cluster(spec, folder, study, data, cluster, tell)
        elif jobs == 1:
            _work(spec, folder, study, data, tell)
        else:
            _share_out(spec, folder, study, data, jobs, tell)
    if not [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "RUNNING"]:
        shutil.rmtree(folder / "unfinished", ignore_errors=True)
        with contextlib.suppress(OSError):  # somebody joins just now
            (folder / "workers").rmdir()
    begun = counted(study)
    failed = [trial for trial in begun if trial.state.name == "FAIL"]
    if begun and len(failed) == len(begun):
        raise SettingsError(
            f"All {len(failed)} trials failed; the last one said: {failed[-1].user_attrs.get('error', 'nothing')}"
        )
    return study


def plan(spec: SearchSpec) -> str:
    """What a search would do, and what the rule proposes: the data are read, nothing is trained."""
    place = ground(spec).place
    lines = [f"{spec.trials} trials on {spec.data}, judged by {spec.score} on validation ({spec.direction}d)"]
    for name, one in spec.space.items():
        if isinstance(one, Range):
            told = f"{one.low:g} to {one.high:g}{', by magnitude' if one.log else ''}"
        else:
            told = ", ".join(json.dumps(option) for option in one.options)
        lines.append(f"  {name}: {told}")
    if spec.budget is not None:
        lines.append(f"budget of a window: {spec.budget.most:,g} {spec.budget.unit}")
    proposed = propose(place.site, place.n_values, period=place.period, base=place.base, fixed=place.fixed)
    return "\n".join([*lines, str(proposed)])


# ---- one process


def _work(
    spec: SearchSpec, folder: Path, study: Study, data: Ground, tell: Tell, tickets: Any = None, salt: str = ""
) -> None:
    """Run trials until none is left, in this process."""
    salt = salt or salt_of(spec)
    with alive(folder) as worker:
        begin(study, spec, data)
        while True:
            if tickets is not None:
                with tickets.get_lock():
                    if tickets.value <= 0:
                        return
                    tickets.value -= 1
            if (trial := ask(study, spec, worker, salt=salt)) is None:
                return
            _run_one(spec, folder, study, trial, data, tell)


def _run_one(spec: SearchSpec, folder: Path, study: Study, trial: Trial, data: Ground, tell: Tell) -> None:
    run: Path | None = None
    try:
        one = drawn(spec, trial, data)
        first = trial.user_attrs.get("first", trial.number)  # who was put back goes on where it was
        run = folder / "unfinished" / f"{first}-{_digest(data.arguments(one))}"
        with watching(Watch(trial, spec)):
            try:
                outcome = data.judge(one, run_folder=run)
            except SavedModelError:  # a checkpoint of an earlier attempt that does not fit any more
                shutil.rmtree(run, ignore_errors=True)
                outcome = data.judge(one, run_folder=run)
    except import_optuna().TrialPruned:
        outcome = None
    except FAILURES as error:
        outcome = f"{type(error).__name__}: {error}"
    except BaseException:  # Ctrl-C, or an error of ours: the trial is not lost
        put_back(study, trial.number)
        raise
    if run is not None:
        shutil.rmtree(run, ignore_errors=True)
    tell(write_down(study, spec, trial, outcome))


# ---- several processes


def _share_out(spec: SearchSpec, folder: Path, study: Study, data: Ground, jobs: int, tell: Tell) -> None:
    """Work in several processes; a trial whose process dies is put back, and another process takes it up."""
    context = multiprocessing.get_context("spawn")
    begin(study, spec, data)
    tickets = context.Value("i", len(todo(study, spec)))
    errors = context.SimpleQueue()

    def start() -> Any:
        process = context.Process(target=_child, args=(spec, folder, jobs, tickets, errors), daemon=True)
        process.start()
        return process

    processes = [start() for _ in range(min(jobs, tickets.value))]
    known = {trial.number for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()}
    n_deaths = 0
    try:
        while processes:
            time.sleep(_POLL)
            _tell_new(study, spec, known, tell)
            for process in [one for one in processes if not one.is_alive()]:
                processes.remove(process)
                if process.exitcode == 0:
                    continue
                if not errors.empty():
                    raise SettingsError(f"A process of the search ended with an error: {errors.get()}")
                n_deaths += 1
                if recover(study, folder):
                    with tickets.get_lock():
                        tickets.value = len(todo(study, spec))
                if n_deaths <= MOST_ATTEMPTS * jobs and len(todo(study, spec)):
                    processes.append(start())
        _tell_new(study, spec, known, tell)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
        recover(study, folder)


def _child(spec: SearchSpec, folder: Path, jobs: int, tickets: Any, errors: Any) -> None:
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // jobs))
    try:
        _work(spec, folder, open_study(spec, folder), ground(spec), lambda told: None, tickets, uuid.uuid4().hex)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        errors.put(f"{type(error).__name__}: {error}")
        raise


def _tell_new(study: Study, spec: SearchSpec, known: set[int], tell: Tell) -> None:
    for trial in study.get_trials(deepcopy=False):
        if trial.number not in known and trial.state.is_finished():
            known.add(trial.number)
            tell(told_of(study, spec, trial.number))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
