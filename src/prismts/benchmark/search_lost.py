"""Trials of a search that were lost: whose process is gone, and how they are put back."""

from __future__ import annotations

import contextlib
import socket
import time
import uuid
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prismts.benchmark.locks import holding, is_held
from prismts.benchmark.search_study import import_optuna

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

__all__ = ["MOST_ATTEMPTS", "alive", "put_back", "recover"]

MOST_ATTEMPTS = 3  # of a trial whose process dies
_SILENT = 3600.0  # seconds after which a trial of another machine that gives no sign is lost
_NEWBORN = 60.0  # seconds in which a trial may not have told whose it is


def recover(study: Study, folder: Path) -> int:
    """Put back the trials of processes that are gone: how many."""
    lost = [trial.number for trial in study.get_trials(deepcopy=False)
            if trial.state.name == "RUNNING" and _is_lost(trial, folder)]  # fmt: skip
    for number in lost:
        put_back(study, number)
    return len(lost)


def put_back(study: Study, number: int) -> None:
    """End a trial as lost, and queue its values again; a third loss is a failure of the trial itself."""
    optuna = import_optuna()
    frozen = study.get_trials(deepcopy=False)[number]
    attempt = int(frozen.user_attrs.get("attempt", 1))
    trial = optuna.trial.Trial(study, frozen._trial_id)  # pyright: ignore[reportPrivateUsage]
    if attempt >= MOST_ATTEMPTS:
        trial.set_user_attr("error", f"Its process died in each of {attempt} attempts, perhaps for lack of memory.")
    else:
        if not any(other.user_attrs.get("again") == number for other in study.get_trials(deepcopy=False)):
            kept = {name: frozen.user_attrs[name] for name in ("from", "begins_as") if name in frozen.user_attrs}
            kept["first"] = frozen.user_attrs.get("first", number)
            if progress := frozen.user_attrs.get("progress"):
                kept["watched"] = {**progress, "curve": sorted(frozen.intermediate_values.items())}
            study.enqueue_trial(_as_asked(frozen), user_attrs={**kept, "again": number, "attempt": attempt + 1})
        trial.set_user_attr("lost", True)
    with contextlib.suppress(ValueError):  # another process was quicker
        study.tell(number, state=optuna.trial.TrialState.FAIL)


def _as_asked(frozen: FrozenTrial) -> dict[str, Any]:
    """The values of a trial: those drawn, and those that were fixed when it was queued."""
    return {**frozen.system_attrs.get("fixed_params", {}), **frozen.params}


def _is_lost(trial: FrozenTrial, folder: Path) -> bool:
    worker, host = trial.user_attrs.get("worker"), trial.user_attrs.get("host")
    begun = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
    if worker is None:
        return time.time() - begun > _NEWBORN
    if host == socket.gethostname() and (lock := folder / "workers" / f"{worker}.lock").exists():
        return not is_held(lock)
    return time.time() - float(trial.user_attrs.get("sign_of_life", begun)) > _SILENT


@contextlib.contextmanager
def alive(folder: Path) -> Generator[str]:
    """Hold a lock for as long as this process works: the name of the worker."""
    name = uuid.uuid4().hex[:12]
    with holding(folder / "workers" / f"{name}.lock"):
        yield name
