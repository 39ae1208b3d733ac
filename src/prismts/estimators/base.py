"""What every estimator with a trained network shares: members that differ in their seed, inference, and saving."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import asdict
from numbers import Integral
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from torch import nn

from prismts.errors import DataError, NotFittedError, SavedModelError, SettingsError, a_or_an
from prismts.estimators.learned import Learned
from prismts.estimators.loans import borrowing, split_loans, with_loans
from prismts.estimators.saved import read_folder, write_folder
from prismts.models import find_model
from prismts.models.adapters import Adaptation, Lineage, adapt_as, is_adapted
from prismts.models.contract import Encoder
from prismts.models.ensemble import Ensemble
from prismts.models.stacked import Stacked
from prismts.ranges import expect_seed
from prismts.training.batches import Source
from prismts.training.fit import FitConfig, FitResult, Task, fit

__all__ = ["Estimator", "as_json", "from_json", "joined", "on_device", "weights_hash"]


class Estimator(BaseEstimator):
    """Arguments are stored as given, ``fit`` returns self, and what was learned ends in an underscore.

    Subclasses have ``model``, ``random_state``, ``progress`` and ``run_folder`` among their arguments, set ``model_``
    and call ``_fitted`` when they are fitted, and write ``_to_save`` and ``_restore``. Arguments named in ``_bound``
    shape every answer: one that was set to something else since ``fit`` is an error, and never a wrong answer.
    """

    def __init_subclass__(cls, **how: Any) -> None:
        """Let every ``fit`` that fails leave all as it was."""
        super().__init_subclass__(**how)  # pyright: ignore[reportUnknownMemberType]
        if "fit" in cls.__dict__:
            setattr(cls, "fit", _or_as_before(cls.__dict__["fit"]))  # noqa: B010, a declared fit would bind subclasses

    _bound: tuple[str, ...] = ()
    _arguments: dict[str, Any]  # as they were in ``fit``, in the form of JSON
    _trains: tuple[str, int] = "", 0  # which network is being trained, see ``_train_one``
    # replaced for one ``fit`` by ``_trained_by``
    _fit_network: Callable[..., FitResult] = staticmethod(fit)
    adaptation_: Lineage | None = None  # how it was adapted from another one, see ``prismts.adapt``
    # what its teachers had learned from (see ``prismts.distill``), and it itself before a warm start
    taught_by_: tuple[Learned, ...] = ()

    model: str
    values: Sequence[str] | None
    channels_: tuple[str, ...]
    random_state: int
    progress: bool
    run_folder: str | Path | None
    model_: nn.Module

    @property
    def members_(self) -> Sequence[nn.Module]:
        """The trained networks whose mean is the answer; one, unless there are more members."""
        return list(self.model_.members) if isinstance(self.model_, Ensemble) else [self.model_]

    def save(self, path: str | Path, *, whole: bool = False) -> None:
        """Write a model folder; an old one at this place is replaced as a whole.

        It holds what was fitted: an argument that was set to something else since then is kept as it was in ``fit``.
        Of weights that belong to a pretrained network (a language backbone), only the name and the hash are written,
        unless ``whole``: then the folder needs nothing else.
        """
        self._check_learned()
        fitted, arrays = self._to_save()
        params = {**self._arguments, "run_folder": None}
        weights, loans = split_loans(self.model_, whole=whole)
        config: dict[str, Any] = {"estimator": type(self).__name__, "params": params, "fitted": fitted}
        if loans:
            config["loans"] = loans
        if self.adaptation_ is not None:
            config["adaptation"] = asdict(self.adaptation_)
        if self.taught_by_:
            config["taught_by"] = [asdict(one) for one in self.taught_by_]
        kept = {name: asdict(part.adaptation) for name, part in self.model_.named_modules() if is_adapted(part)}  # type: ignore[call-overload]
        if kept:
            config["adapters"] = kept
        write_folder(path, config, weights, arrays)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The estimator that was saved in this folder."""
        config, weights, arrays = read_folder(path)
        if config.get("estimator") != cls.__name__:
            raise SavedModelError(
                f"{path} holds a {config.get('estimator')}, not {a_or_an(cls.__name__)}. Load it with "
                "prismts.load(path)."
            )
        self = cls(**from_json(config["params"]))
        loans = config.get("loans", [])
        with borrowing(loans, path):
            self._restore(config["fitted"], arrays)
        for name, adapter in config.get("adapters", {}).items():
            adapt_as(self.model_.get_submodule(name), Adaptation(**adapter))
        if config.get("adaptation") is not None:
            self.adaptation_ = Lineage(**config["adaptation"])
        self.taught_by_ = tuple(Learned.from_dict(one) for one in config.get("taught_by", ()))
        self._fitted()
        self.model_.load_state_dict(with_loans(self.model_, weights, loans, path))
        self.model_.eval()
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Without the copy for inference, which the first answer makes anew: it doubles a copy, and has a device."""
        state = cast(dict[str, Any], super().__getstate__()).copy()
        if "_inference" in state:
            state["_inference"] = None
        return state

    def _to_save(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """What ``_restore`` needs besides the weights: plain values for JSON, and arrays."""
        raise NotImplementedError

    def _restore(self, fitted: dict[str, Any], arrays: dict[str, NDArray]) -> None:
        """Set the fitted attributes, and an untrained ``model_`` of the form that was saved."""
        raise NotImplementedError

    def _fitted(self) -> None:
        """Note the arguments that belong to what was just learned."""
        self._arguments = as_json(self.get_params(deep=False))

    def _check_learned(self) -> None:
        if not hasattr(self, "model_"):
            raise NotFittedError(
                f"This {type(self).__name__} has not learned anything yet. Call fit first, or prismts.load(path)."
            )

    def _check_fitted(self) -> None:
        """Whether it can answer: something was learned, and with the arguments that are set now."""
        self._check_learned()
        for name in self._bound:
            now, then = getattr(self, name), self._arguments[name]
            if as_json(now) != then:
                raise SettingsError(
                    f"{name} was {from_json(then)!r} when this {type(self).__name__} was fitted, and is {now!r} now. "
                    "Call fit again, or set it back."
                )

    def _read(self, data: Any, *, empty_channels: bool = False) -> Any:
        """Data of any form as this estimator reads them; ``empty_channels`` may have no value at all."""
        raise NotImplementedError

    def _read_new(self, data: Any, *, empty_channels: bool = True, **how: Any) -> Any:
        """Data for what was learned: where a column beside its channels cannot be read, the channels alone."""
        try:
            return self._read(data, empty_channels=empty_channels, **how)
        except DataError:
            if self.values is not None or not self.channels_:
                raise
            with contextlib.suppress(DataError):
                reader = copy(self).set_params(values=list(self.channels_))
                return reader._read(data, empty_channels=empty_channels, **how)
            raise

    def _encoder_only(self, what: str) -> None:
        if not find_model(self.model).is_encoder:
            raise SettingsError(
                f"{self.model!r} is a direct forecaster and has no tokens to {what}. Choose a model with an encoder, "
                "such as 'convtimenet'."
            )

    def _check_members(self) -> None:
        """Refuse a number of networks that cannot be one, also where this ``fit`` will train none."""
        n: Any = getattr(self, "n_members", None)
        if n is not None and (not isinstance(n, Integral) or n is True or n < 1):
            raise SettingsError(f"n_members counts the networks whose mean is the answer, at least 1, but got {n!r}.")

    def _check_places(self) -> None:
        """Refuse settings that are no names with values, and a place for checkpoints that is a file."""
        for name in ("model_settings", "fit_settings"):
            value: Any = getattr(self, name, None)
            if value is not None and not isinstance(value, Mapping):
                raise SettingsError(f"{name} are names with values, such as {{'name': 3}}, but got {value!r}.")
        if self.run_folder is not None and Path(self.run_folder).is_file():
            raise SettingsError(f"run_folder={str(self.run_folder)!r} is a file. Name a folder to keep checkpoints in.")

    def _seed(self, member: int) -> int:
        return expect_seed(self.random_state, "random_state") + 10_007 * member

    def _train(
        self,
        build: Callable[[], nn.Module],
        task: Task,
        train: Source,
        check: Source | None,
        config: FitConfig,
        *,
        n_members: int = 1,
        mark: str = "",
        title: str = "",
        part: str = "member",
    ) -> tuple[list[nn.Module], list[FitResult]]:
        """Networks that differ in their seed, each trained from the start; a killed run goes on in ``run_folder``.

        ``mark`` names the data, so that a folder is never gone on with for other ones; ``part`` tells several trainings
        of one ``fit`` apart in that folder.
        """
        members: list[nn.Module] = []
        results: list[FitResult] = []
        for i in range(n_members):
            with torch.random.fork_rng():
                torch.manual_seed(self._seed(i))
                model = build()
                results.append(self._train_one(model, task, train, check, config, mark, title, part, i, n_members))
            members.append(model)
        return members, results

    def _train_one(
        self,
        model: nn.Module,
        task: Task,
        train: Source,
        check: Source | None,
        config: FitConfig,
        mark: str,
        title: str,
        part: str,
        member: int,
        n_members: int,
    ) -> FitResult:
        """Train network ``member`` of ``n_members`` in place, in a folder of its own: see ``_train``."""
        which = f", {member + 1} of {n_members}" if n_members > 1 else ""
        self.adaptation_ = None  # learned anew: ``prismts.adapt`` notes afterwards what it began with
        self.taught_by_ = ()
        self._trains = part, member
        return self._fit_network(
            model, task, train, check, config=config, seed=self._seed(member),
            folder=None if self.run_folder is None else Path(self.run_folder) / f"{part}-{member}",
            **self._fingerprint(mark), progress=self.progress, title=f"{title}{which}",
        )  # fmt: skip

    @contextlib.contextmanager
    def _trained_by(self, fit_network: Callable[..., FitResult]) -> Generator[None]:
        """Let another function train the networks of one ``fit``."""
        self._fit_network = fit_network
        try:
            yield
        finally:
            del self._fit_network

    def _fingerprint(self, mark: str) -> dict[str, Any]:
        """What must be equal for a killed run to go on, and the parts of it by name: arguments of ``fit_network``."""
        params: dict[str, Any] = as_json({
            name: value for name, value in self.get_params(deep=False).items() if name not in ("run_folder", "progress")
        })  # fmt: skip
        parts = {"the data or how they are cut": hashlib.sha256(mark.encode()).hexdigest(), **params}
        for name in ("fit_settings", "random_state"):  # of which the training tells by itself
            parts.pop(name, None)
        return {"fingerprint": json.dumps([mark, params], sort_keys=True), "parts": parts}


def _or_as_before(fit: Callable[..., Any]) -> Callable[..., Any]:
    """The same method, after whose failure the estimator is what it was: half of a new fit would answer wrongly."""

    @functools.wraps(fit)
    def whole(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._seed(0)  # whatever it is drawn for later, a seed that cannot be one is told before all else
        self._check_members()
        self._check_places()
        before = self.__dict__.copy()
        try:
            return fit(self, *args, **kwargs)
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    return whole


def joined(members: Sequence[nn.Module], contexts: Sequence[int | None] | None = None) -> nn.Module:
    """One network as it is, several as the ensemble whose answer is their mean; in evaluation mode."""
    return (members[0] if len(members) == 1 else Ensemble(members, contexts)).eval()


def on_device(model: nn.Module) -> nn.Module:
    """A copy for inference, kernels merged, on the accelerator where there is one."""
    device = torch.accelerator.current_accelerator(check_available=True)
    merged = model.merged() if isinstance(model, Encoder | Ensemble | Stacked) else deepcopy(model)
    return merged if device is None else merged.to(device)


def refuse_given(arguments: Mapping[str, Any], reason: str, instead: str) -> None:
    """An error for the first of these arguments that is not None: what is wrong with it, and what to do instead."""
    for name, value in arguments.items():
        if value is not None:
            raise SettingsError(f"{name}={value!r} {reason}. Leave {name} out, or {instead}.")


def weights_hash(model: nn.Module) -> str:
    """Tells two states of a network apart."""
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


_PAIRS = "pairs of key and value"  # marks a mapping whose keys are no text, as JSON has none


def as_json(value: Any) -> Any:
    """An argument in the form of JSON: what json does not know of numpy, mappings and settings.

    A mapping whose keys are no text, such as the weights of classes 0 and 1, becomes a list of pairs, so that its keys
    come back as what they were. What JSON cannot hold at all becomes text.
    """
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, FitConfig):
        value = asdict(value)
    if isinstance(value, Mapping):
        pairs = [(as_json(key), as_json(one)) for key, one in cast(Mapping[Any, Any], value).items()]
        if all(isinstance(key, str) for key, _ in pairs) and _PAIRS not in value:
            return dict(pairs)
        return {_PAIRS: sorted(([key, one] for key, one in pairs), key=repr)}
    if isinstance(value, list | tuple):
        return [as_json(one) for one in cast(Sequence[Any], value)]
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)


def from_json(value: Any) -> Any:
    """The twin of ``as_json``."""
    if isinstance(value, dict):
        known = cast(dict[str, Any], value)
        if _PAIRS in known:
            return {tuple(key) if isinstance(key, list) else key: from_json(one) for key, one in known[_PAIRS]}
        return {key: from_json(one) for key, one in known.items()}
    return [from_json(one) for one in cast(list[Any], value)] if isinstance(value, list) else value
