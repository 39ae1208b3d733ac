"""The study of a search in Optuna's storage: opened, claimed for its folder, and counted."""

from __future__ import annotations

import hashlib
import json
import uuid
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prismts.benchmark.search_spec import SearchSpec
from prismts.errors import MissingExtraError, SettingsError
from prismts.writing import write_whole

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

__all__ = [
    "OTHER_NAME", "count_trials", "counted", "import_optuna", "open_study", "salt_of", "sampler", "shown",
    "storage_url", "todo",
]  # fmt: skip

OTHER_NAME = ", and another name where both share a storage"


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
    optuna = import_optuna()
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
            f"but the search now says {now[name]!r}. Give it another folder (--out){OTHER_NAME}."
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


def count_trials(study: Study) -> dict[str, int]:
    """How many trials ended in which way; those that were lost and put back are counted once."""
    names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}
    counts = dict.fromkeys(names.values(), 0)
    for trial in counted(study):
        counts[names[trial.state.name]] += 1
    return counts


def counted(study: Study) -> list[FrozenTrial]:
    """Trials that were begun, without those that were lost and put back."""
    return [
        trial for trial in study.get_trials(deepcopy=False)
        if trial.state.name != "WAITING" and not trial.user_attrs.get("lost")
    ]  # fmt: skip


def todo(study: Study, spec: SearchSpec) -> range:
    """Numbers of the trials that are missing, counted from 0."""
    return range(len(counted(study)), spec.trials)


def salt_of(spec: SearchSpec) -> str:
    """What keeps machines that share a server from drawing the same trials: nothing, where a search has one machine."""
    is_shared = spec.storage is not None and "://" in spec.storage and not spec.storage.startswith("sqlite")
    return uuid.uuid4().hex if is_shared else ""


def sampler(spec: SearchSpec, number: int | str) -> Any:
    """Optuna's sampler for one trial, seeded by its number: a search that goes on draws as an unbroken one."""
    optuna = import_optuna()
    seed = int.from_bytes(hashlib.blake2b(f"{spec.seed}-{number}".encode(), digest_size=4).digest(), "big")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=spec.n_random, multivariate=True)


def _storage(url: str) -> Any:
    optuna = import_optuna()
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


def import_optuna() -> Any:
    """Optuna, without its messages.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError("A search needs Optuna. Install the extra: pip install 'prismts[search]'.") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
