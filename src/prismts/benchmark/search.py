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
import math
import multiprocessing
import shutil
import socket
import time
import uuid
import warnings
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prismts.analysis.proposal import propose
from prismts.analysis.shape import macs_of
from prismts.benchmark.locks import holding, is_held
from prismts.benchmark.search_space import Candidate, Range, candidate, candidate_of, first_points
from prismts.benchmark.search_spec import SearchSpec
from prismts.benchmark.search_trial import Ground, ground, latency
from prismts.errors import MissingExtraError, PrismError, SavedModelError, SettingsError
from prismts.training.watch import watching
from prismts.writing import write_whole

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

__all__ = ["Told", "count_trials", "open_study", "plan", "run_search", "shown", "storage_url"]

MOST_ATTEMPTS = 3  # of a trial whose process dies
SILENT = 3600.0  # seconds after which a trial of another machine that gives no sign is lost
NEWBORN = 60.0  # seconds in which a trial may not have told whose it is
_POLL = 0.3
_OTHER_NAME = ", and another name where both share a storage"


@dataclass(frozen=True)
class Told:
    """What became of a trial, and how the search stands."""

    number: int
    outcome: str  # "complete", "pruned", "failed" or "lost"
    value: float | None  # the score on validation
    told: str  # the error, where there is one
    best: float | None
    n_done: int


Tell = Callable[[Told], None]


def storage_url(spec: SearchSpec, folder: str | Path) -> str:
    """Where the trials lie."""
    return spec.storage or f"sqlite:///{Path(folder) / 'study.db'}"


def shown(url: str) -> str:
    """A storage without the user and password of a database."""
    kind, sign, place = url.rpartition("@")
    return f"{kind.partition('://')[0]}://{place}" if sign else url


def open_study(spec: SearchSpec, folder: str | Path, *, create: bool = True) -> Study:
    """The study of a search, made anew if there is none.

    Raises:
        MissingExtraError: optuna is not installed.
        SettingsError: the study was made by another specification, or there is none and ``create`` is false.
    """
    optuna = _optuna()
    folder = Path(folder)
    if spec.storage is None and not create and not (folder / "study.db").exists():
        raise SettingsError(f"{folder} holds no search. Run one: prism search SPEC.yaml --out {folder}.")
    folder.mkdir(parents=True, exist_ok=True)
    if create:
        _claim(spec, folder)
    pruner = (
        optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=spec.warmup_epochs + 1)
        if spec.prune == "median"
        else optuna.pruners.NopPruner()
    )
    storage = _storage(storage_url(spec, folder))
    if create:
        study = optuna.create_study(
            storage=storage, study_name=spec.name, direction=spec.direction, pruner=pruner, load_if_exists=True
        )
    else:
        try:
            study = optuna.load_study(storage=storage, study_name=spec.name, pruner=pruner)
        except KeyError as error:
            raise SettingsError(
                f"{shown(storage_url(spec, folder))} holds no search named {spec.name!r}. "
                "Run it: prism search SPEC.yaml."
            ) from error
    now = json.loads(json.dumps(spec.made_with(), default=list))
    before = study.user_attrs.get("made_with")
    if before is None:
        study.set_user_attr("made_with", now)
    elif before != now:
        name = next(name for name in now if before.get(name) != now[name])
        raise SettingsError(
            f"The study {spec.name!r} in {shown(storage_url(spec, folder))} was made with {name} {before.get(name)!r}, "
            f"but the search now says {now[name]!r}. Give it another folder (--out){_OTHER_NAME}."
        )
    return study


def _claim(spec: SearchSpec, folder: Path) -> None:
    """Write the search's name into its folder, so that another's best settings never replace its own there."""
    file = folder / "name"
    if not file.exists():
        write_whole(file, f"{spec.name}\n")
    elif (known := file.read_text(encoding="utf-8").strip()) != spec.name:
        raise SettingsError(
            f"{folder} belongs to the search {known!r}, but this one is called {spec.name!r}. Give it another folder "
            "(--out)."
        )


def run_search(spec: SearchSpec, folder: str | Path, *, jobs: int = 1, tell: Tell = lambda told: None) -> Study:
    """Run the trials that are missing and return the study.

    Args:
        spec: what to search.
        folder: where the study lies, and where unfinished trials keep their checkpoints.
        jobs: processes that work at it at once on this machine; others may join through the same storage.
        tell: called after every trial.

    A trial that fails for a reason of its own is written down with the error and counts; Ctrl-C ends the search after
    putting the unfinished trial back.

    Raises:
        PrismError: every trial failed; the message is that of the last.
    """
    if jobs < 1:
        raise SettingsError(f"jobs counts processes, at least 1, but got {jobs}.")
    folder = Path(folder)
    study = open_study(spec, folder)
    _recover(study, folder)
    if len(_todo(study, spec)):
        if jobs == 1:
            _work(spec, folder, study, tell)
        else:
            _share_out(spec, folder, study, jobs, tell)
    if not [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "RUNNING"]:
        shutil.rmtree(folder / "unfinished", ignore_errors=True)
        with contextlib.suppress(OSError):  # somebody joins just now
            (folder / "workers").rmdir()
    counted = _counted(study)
    failed = [trial for trial in counted if trial.state.name == "FAIL"]
    if counted and len(failed) == len(counted):
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


def count_trials(study: Study) -> dict[str, int]:
    """How many trials ended in which way; those that were lost and put back are counted once."""
    names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}
    counts = dict.fromkeys(names.values(), 0)
    for trial in _counted(study):
        counts[names[trial.state.name]] += 1
    return counts


# ---- one process


def _work(spec: SearchSpec, folder: Path, study: Study, tell: Tell, tickets: Any = None, salt: str = "") -> None:
    """Run trials until none is left, in this process."""
    data = ground(spec)
    _same_data(study, data)
    if "://" in (spec.storage or "") and not str(spec.storage).startswith("sqlite"):
        salt = salt or uuid.uuid4().hex  # machines that share a server never draw the same
    with _alive(folder) as worker:
        _begin_with_what_is_known(study, spec, data)
        while True:
            if tickets is not None:
                with tickets.get_lock():
                    if tickets.value <= 0:
                        return
                    tickets.value -= 1
            if not (todo := _todo(study, spec)):
                return
            study.sampler = _sampler(spec, todo[0] if not salt else f"{salt}{todo[0]}")
            trial = study.ask()
            trial.set_user_attr("worker", worker)
            trial.set_user_attr("host", socket.gethostname())
            _run_one(spec, folder, study, trial, data, tell)


def _run_one(spec: SearchSpec, folder: Path, study: Study, trial: Trial, data: Ground, tell: Tell) -> None:
    optuna = _optuna()
    state, value, error = optuna.trial.TrialState.FAIL, None, ""
    run: Path | None = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            values = {name: one.suggest(trial, name) for name, one in spec.space.items()}
        one = _candidate(spec, values, data, trial)
        first = trial.user_attrs.get("first", trial.number)  # who was put back goes on where it was
        run = folder / "unfinished" / f"{first}-{_digest(data.arguments(one))}"
        watch = _Watch(trial, maximize=spec.direction == "maximize", prune=spec.prune != "none")
        with watching(watch):
            try:
                judged = data.judge(one, run_folder=run)
            except SavedModelError:  # a checkpoint of an earlier attempt that does not fit any more
                shutil.rmtree(run, ignore_errors=True)
                judged = data.judge(one, run_folder=run)
        value = float(judged.scores[spec.score])
        if not math.isfinite(value):
            raise SettingsError(f"The {spec.score} on validation is no number.")
        trial.set_user_attr("scores", {name: float(score) for name, score in judged.scores.items()})
        trial.set_user_attr("n_scored", judged.n_scored)
        trial.set_user_attr("counted", judged.counted)
        trial.set_user_attr("seconds", judged.seconds)
        trial.set_user_attr("best_epoch", judged.best_epoch)
        state = optuna.trial.TrialState.COMPLETE
    except optuna.TrialPruned:
        state = optuna.trial.TrialState.PRUNED
    except (PrismError, ArithmeticError, RuntimeError, TypeError, ValueError) as caught:
        value = None
        error = f"{type(caught).__name__}: {caught}"
        trial.set_user_attr("error", error)
    except BaseException:  # Ctrl-C, or an error of ours: the trial is not lost
        _put_back(study, trial.number)
        raise
    if run is not None:
        shutil.rmtree(run, ignore_errors=True)
    study.tell(trial.number, value if state.name == "COMPLETE" else None, state=state)
    outcome = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}[state.name]
    tell(_told(study, spec, trial.number, outcome, value, error))


def _candidate(spec: SearchSpec, values: Mapping[str, Any], data: Ground, trial: Trial) -> Candidate:
    """What the values of a trial mean, written into it."""
    budget = spec.budget
    measured = budget is not None and budget.milliseconds is not None

    def price(settings: Mapping[str, Any]) -> float:
        return latency(settings, data.place.site) if measured else float(macs_of(settings, data.place.site))

    known: Mapping[str, Any] | None = trial.user_attrs.get("begins_as")
    cost = None if known is None or budget is None else price(known)
    if known is not None and (budget is None or (cost is not None and cost <= budget.most)):
        one = candidate_of(known, values, data.place, cost)
    else:
        one = candidate(
            values, data.place, budget=None if budget is None else budget.most, cost=price,
            unit="" if budget is None else budget.unit,
        )  # fmt: skip
    model = {name: list(value) if isinstance(value, tuple) else value for name, value in one.model.items()}
    for name, told in (
        ("model", model), ("fit", dict(one.fit)), ("macs", one.macs), ("n_tokens", one.n_tokens),
        ("taps", list(one.taps)), ("cost", one.cost), ("arguments", data.arguments(one)),
    ):  # fmt: skip
        trial.set_user_attr(name, told)
    return one


class _Watch:
    """Report the validation loss after every epoch, and end a trial that is worse than the median of those before it.

    A trial may train several networks (folds, members). What is reported is the mean, over those begun so far, of the
    lowest loss of each, so that trials are compared at the same place of the same sequence. A trial that was lost and
    put back brings what had been reported of it, and goes on from there.
    """

    def __init__(self, trial: Trial, *, maximize: bool, prune: bool) -> None:
        self.trial, self.sign, self.prune = trial, -1.0 if maximize else 1.0, prune
        self.lowest: list[float] = []
        self.last_epoch, self.epochs_before = 0, 0  # of this network; of those before it
        if known := trial.user_attrs.get("watched"):
            self.lowest, self.last_epoch, self.epochs_before = list(known["lowest"]), *known["epochs"]
            for step, value in known["curve"]:
                trial.report(value, step)

    def __call__(self, entry: Mapping[str, float]) -> None:
        loss = entry.get("val_loss")
        if loss is None:
            return
        epoch = int(entry["epoch"])
        if not self.lowest or epoch == 1:  # one that was resumed begins later than with its first
            self.epochs_before += self.last_epoch
            self.lowest.append(math.inf)
        self.last_epoch = epoch
        self.lowest[-1] = min(self.lowest[-1], loss)
        self.trial.report(self.sign * sum(self.lowest) / len(self.lowest), self.epochs_before + epoch)
        self.trial.set_user_attr("progress", {"lowest": self.lowest, "epochs": [epoch, self.epochs_before]})
        self.trial.set_user_attr("sign_of_life", time.time())
        if self.prune and self.trial.should_prune():
            raise _optuna().TrialPruned


def _begin_with_what_is_known(study: Study, spec: SearchSpec, data: Ground) -> None:
    """The first trials are the points of the space nearest to the rule's proposal and to the recipe's own network."""
    if "begun" in study.user_attrs:
        return
    macs = spec.budget.macs if spec.budget is not None else None
    for name, (point, model) in first_points(spec.space, data.place, macs).items():
        study.enqueue_trial(point, user_attrs={"from": name, "begins_as": model}, skip_if_exists=True)
    study.set_user_attr("begun", True)


def _same_data(study: Study, data: Ground) -> None:
    before = study.user_attrs.get("data_hash")
    if before is None:
        study.set_user_attr("data_hash", data.data_hash)
        study.set_user_attr("period", data.place.period)
    elif before != data.data_hash:
        raise SettingsError(
            "The data changed since this search began, so its scores cannot be compared with new ones. Give it another "
            f"folder (--out){_OTHER_NAME}."
        )


# ---- several processes


def _share_out(spec: SearchSpec, folder: Path, study: Study, jobs: int, tell: Tell) -> None:
    """Work in several processes; a trial whose process dies is put back, and another process takes it up."""
    context = multiprocessing.get_context("spawn")
    data = ground(spec)  # once here, so that mistakes are told before anything starts
    _same_data(study, data)
    _begin_with_what_is_known(study, spec, data)
    tickets = context.Value("i", len(_todo(study, spec)))
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
                if _recover(study, folder):
                    with tickets.get_lock():
                        tickets.value = len(_todo(study, spec))
                if n_deaths <= MOST_ATTEMPTS * jobs and len(_todo(study, spec)):
                    processes.append(start())
        _tell_new(study, spec, known, tell)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
        _recover(study, folder)


def _child(spec: SearchSpec, folder: Path, jobs: int, tickets: Any, errors: Any) -> None:
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // jobs))
    try:
        _work(spec, folder, open_study(spec, folder), lambda told: None, tickets, uuid.uuid4().hex)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        errors.put(f"{type(error).__name__}: {error}")
        raise


def _tell_new(study: Study, spec: SearchSpec, known: set[int], tell: Tell) -> None:
    for trial in study.get_trials(deepcopy=False):
        if trial.number not in known and trial.state.is_finished():
            known.add(trial.number)
            outcome = {"COMPLETE": "complete", "PRUNED": "pruned"}.get(trial.state.name, "failed")
            outcome = "lost" if trial.user_attrs.get("lost") else outcome
            value = trial.value if trial.state.name == "COMPLETE" else None
            tell(_told(study, spec, trial.number, outcome, value, str(trial.user_attrs.get("error", ""))))


# ---- trials that were lost


def _recover(study: Study, folder: Path) -> int:
    """Put back the trials of processes that are gone: how many."""
    lost = [trial.number for trial in study.get_trials(deepcopy=False)
            if trial.state.name == "RUNNING" and _is_lost(trial, folder)]  # fmt: skip
    for number in lost:
        _put_back(study, number)
    return len(lost)


def _put_back(study: Study, number: int) -> None:
    """End a trial as lost, and queue its values again; a third loss is a failure of the trial itself."""
    optuna = _optuna()
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
        return time.time() - begun > NEWBORN
    if host == socket.gethostname() and (lock := folder / "workers" / f"{worker}.lock").exists():
        return not is_held(lock)
    return time.time() - float(trial.user_attrs.get("sign_of_life", begun)) > SILENT


@contextlib.contextmanager
def _alive(folder: Path) -> Generator[str]:
    """Hold a lock for as long as this process works: the name of the worker."""
    name = uuid.uuid4().hex[:12]
    with holding(folder / "workers" / f"{name}.lock"):
        yield name


# ---- small parts


def _counted(study: Study) -> list[FrozenTrial]:
    """Trials that were begun, without those that were lost and put back."""
    return [
        trial for trial in study.get_trials(deepcopy=False)
        if trial.state.name != "WAITING" and not trial.user_attrs.get("lost")
    ]  # fmt: skip


def _todo(study: Study, spec: SearchSpec) -> range:
    """Numbers of the trials that are missing, counted from 0."""
    return range(len(_counted(study)), spec.trials)


def _told(study: Study, spec: SearchSpec, number: int, outcome: str, value: float | None, error: str) -> Told:
    counted = [trial for trial in _counted(study) if trial.state.is_finished()]
    values = [trial.value for trial in counted if trial.state.name == "COMPLETE" and trial.value is not None]
    best = None if not values else min(values) if spec.direction == "minimize" else max(values)
    return Told(number, outcome, value, error, best, len(counted))


def _sampler(spec: SearchSpec, number: int | str) -> Any:
    optuna = _optuna()
    seed = int.from_bytes(hashlib.blake2b(f"{spec.seed}-{number}".encode(), digest_size=4).digest(), "big")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=spec.n_random, multivariate=True)


def _storage(url: str) -> Any:
    optuna = _optuna()
    try:
        if url.endswith(".log") and "://" not in url:
            return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(url))
        wait = {"connect_args": {"timeout": 100}} if url.startswith("sqlite") else {}
        return optuna.storages.RDBStorage(url, engine_kwargs=wait)
    except ImportError as error:  # the driver of a database
        raise MissingExtraError(f"The storage {shown(url)} needs a database driver: {error}.") from error
    except Exception as error:
        told = str(error).splitlines()[0]
        raise SettingsError(
            f"The storage cannot be opened ({told}). It is a URL such as sqlite:///study.db or "
            "postgresql://user@host/name, or a file that ends with .log."
        ) from error


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError("A search needs Optuna. Install the extra: pip install 'prismts[search]'.") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
