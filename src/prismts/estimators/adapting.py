"""Go on from a fitted estimator on new data: with few trained weights, with the head alone, or with all of them.

``adapt`` works on every estimator that trains an encoder. It fits a new estimator of the same kind to the new data, by
that estimator's own ``fit``, with one difference: every network begins with the encoder of a fitted one (and, where it
still fits, with its head), and is adapted before it is trained. All else is learned from the new data: scaler, lines
in closed form, weights between judges, thresholds, the calibration of quantiles. What comes back is an estimator like
any other, LoRA merged into its weights; the adapter alone can be saved beside it and put on the base again.
"""

# pyright: reportPrivateUsage=false
# the other half of Estimator._train_one
from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from prismts.errors import SavedModelError, SettingsError, unknown_name
from prismts.estimators.base import Estimator, as_json, from_json
from prismts.models import MODELS
from prismts.models.adapters import (
    HOW,
    Adaptation,
    Lineage,
    TrainedShare,
    adapt_as,
    adapter_state,
    base_hash,
    is_adapted,
    load_adapter_state,
    merge,
    read_adapter,
    trained_share,
    write_adapter,
)
from prismts.models.adapters import adapt as adapt_model
from prismts.models.contract import Borrower, Encoder
from prismts.models.ensemble import Ensemble
from prismts.tasks.decoupled_masking import DecoupledAutoencoder, start_from
from prismts.tasks.forecast import Forecast
from prismts.tasks.reconstruct import MaskReader
from prismts.training.fit import FitConfig, FitResult, fit

__all__ = ["adapt", "check_alone", "load_adapter", "save_adapter"]

E = TypeVar("E", bound=Estimator)

_CLOSED_FORM = ".line."  # of a head: solved anew for the new data


def adapt(
    estimator: E | str | Path,
    data: Any,
    y: Any = None,
    *,
    how: str | Any = "lora",
    rank: int | None = None,
    strength: float = 2.0,
    width: int = 8,
    targets: Sequence[str] = (),
    keep_head: bool = True,
    fit_settings: Mapping[str, Any] | None = None,
    changes: Mapping[str, Any] | None = None,
    progress: bool | None = None,
    run_folder: str | Path | None = None,
    **fit_arguments: Any,
) -> E:
    """A new estimator, fitted to ``data`` beginning with the networks of a fitted one, which is left as it is.

        base = prismts.Forecaster(context_length=96, horizon=24).fit(much)
        mine = prismts.adapt(base, little, how="lora", validation=0.2)
        print(mine.adaptation_)

    Args:
        estimator: fitted, or the folder of a saved one.
        data, y: as for its ``fit``. Classes, channels and steps may be others than before: layers that depend on them
            are then trained anew, whatever ``how`` says.
        how: "lora", "bottleneck", "probe" (the head alone), "full", or a configuration of peft: see
            ``prismts.models.adapters.adapt``, also for ``rank``, ``strength``, ``width`` and ``targets``.
        keep_head: whether training begins with the head there is, where it has the shape and the classes that are
            wanted; else with a new one.
        fit_settings: settings of ``FitConfig`` that replace those the estimator was fitted with.
        changes: arguments of the estimator that are to differ, such as ``{"horizon": 24}``.
        progress: whether to show a bar; as the estimator if None.
        run_folder: keeps checkpoints, so that a killed call resumes when it is made again.
        **fit_arguments: for ``fit``, such as ``validation``.

    Returns:
        The adapted estimator; ``adaptation_`` says what it began with and how many weights were trained.

    Raises:
        SettingsError: it has no trained encoder, or one of another form than the new settings ask for.
    """
    if isinstance(estimator, str | Path):
        from prismts.estimators.load import load

        estimator = cast(E, load(estimator))
    check_alone(estimator)
    estimator._check_learned()
    if isinstance(how, str) and how not in HOW:
        raise unknown_name("way to adapt", how, HOW)
    settings = {"rank": rank, "strength": strength, "width": width, "targets": tuple(targets)}
    plan = _Plan(estimator, how, settings, keep_head)
    adapted = _unfitted(estimator, fit_settings, {} if changes is None else changes, progress, run_folder)
    plan.learner = adapted
    with adapted._trained_by(plan.fit):
        fitted = adapted.fit(data, **fit_arguments) if y is None else adapted.fit(data, y, **fit_arguments)  # type: ignore[attr-defined]
    plan.note(fitted)
    return cast(E, fitted)


def check_alone(estimator: Any) -> None:
    """Refuse an estimator that shares its encoder with others: there is no network of its own to begin with."""
    from prismts.estimators.universal import UniversalModel

    if isinstance(estimator, UniversalModel) or hasattr(estimator, "slot"):
        raise SettingsError(
            "A universal model shares one encoder among its tasks, so a task of it is not adapted by itself. Call its "
            "fit or add_head with the new data."
        )


def save_adapter(estimator: Estimator, path: str | Path) -> None:
    """Write what ``adapt`` has learned without the encoder it began with: a few hundred kilobytes.

    The folder holds the adapters, the heads and what else belongs to the estimator (scaler, lines, thresholds), and the
    hashes of the encoders. ``load_adapter`` puts it on the base again.

    Raises:
        SettingsError: the estimator does not come from ``adapt`` in this process, or all weights were trained.
    """
    learned: list[_Learned] | None = getattr(estimator, "_learned", None)
    if not learned or estimator.adaptation_ is None:
        raise SettingsError(
            "Only what prismts.adapt has just returned knows its adapter apart from its base: merged weights cannot be "
            "taken apart again. Save the whole model: save(path)."
        )
    if learned[0].adaptation.how == "full":
        raise SettingsError("With how='full' all weights were trained and there is no adapter. Save it: save(path).")
    fitted, arrays = estimator._to_save()
    of_encoders = {
        f"{one.path}.{name}" if one.path else name
        for one in learned
        for name in _encoder_names(estimator.model_.get_submodule(one.path))
    }
    state: dict[str, Tensor] = {
        f"rest.{name}": value for name, value in estimator.model_.state_dict().items() if name not in of_encoders
    }
    for i, one in enumerate(learned):
        # heads are written once, as they were left after training
        state |= {f"{i}.{name}": value for name, value in one.state.items() if not name.startswith("head.")}
    state |= {f"array.{name}": torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}
    config = {
        "estimator": type(estimator).__name__,
        "params": {**estimator._arguments, "run_folder": None},
        "fitted": fitted,
        "adaptation": asdict(estimator.adaptation_),
        "networks": [{"path": one.path, "member": one.member, "adaptation": asdict(one.adaptation)} for one in learned],
    }
    write_adapter(path, config, state)


def load_adapter(path: str | Path, base: Estimator | str | Path) -> Any:
    """The adapted estimator, from a folder that ``save_adapter`` wrote and the base it was adapted from.

    Raises:
        SavedModelError: the folder is no adapter or was altered, or the base has other weights than the one it was
            trained on.
    """
    from prismts.estimators.load import ESTIMATORS, load

    config, state = read_adapter(path)
    if "estimator" not in config:
        raise SavedModelError(
            f"{path} holds the adapter of an encoder, not of an estimator: prismts.models.adapters.load_adapter."
        )
    start: Estimator = load(base) if isinstance(base, str | Path) else base
    lineage = Lineage(**config["adaptation"])
    members = _networks(start)
    for number, wanted in enumerate(lineage.base):
        found = base_hash(members[number]) if number < len(members) else ""
        if found != wanted:
            raise SavedModelError(
                f"The adapter in {path} belongs to another base: it was trained on an encoder with hash {wanted[:12]}, "
                f"but this one has {found[:12] or 'none'}. Load it on the model it was adapted from."
            )
    estimator = cast(Estimator, ESTIMATORS[config["estimator"]](**from_json(config["params"])))
    arrays = {name.removeprefix("array."): v.numpy() for name, v in state.items() if name.startswith("array.")}
    estimator._restore(config["fitted"], arrays)
    learned: list[_Learned] = []
    for i, one in enumerate(config["networks"]):
        network = estimator.model_.get_submodule(one["path"])
        start_from(cast(Encoder, network), members[one["member"]])
        adaptation = Adaptation(**one["adaptation"])
        adapt_as(network, adaptation)
        own = {name.removeprefix(f"{i}."): value for name, value in state.items() if name.startswith(f"{i}.")}
        own |= {name: value for name, value in network.state_dict().items() if name.startswith("head.")}
        load_adapter_state(network, own)
        learned.append(_Learned(one["path"], one["member"], adaptation, own))
        merge(network, in_place=True)
    rest = {name.removeprefix("rest."): value for name, value in state.items() if name.startswith("rest.")}
    estimator.model_.load_state_dict(rest, strict=False)
    estimator.model_.eval()
    estimator.adaptation_, estimator.taught_by_ = lineage, start.taught_by_
    estimator._learned = learned  # type: ignore[attr-defined]
    estimator._fitted()
    return estimator


@dataclass
class _Learned:
    """The adapter of one network of an estimator."""

    path: str  # of the network in ``model_``
    member: int  # which network of the base it began with
    adaptation: Adaptation
    state: dict[str, Tensor] = field(repr=False)


class _Plan:
    """What happens around each training of one ``fit``: begin with a network of the base, adapt, train, merge."""

    learner: Estimator

    def __init__(self, base: Estimator, how: Any, settings: Mapping[str, Any], keep_head: bool) -> None:
        self.base, self.how, self.settings, self.keep_head = base, how, settings, keep_head
        self.members = _networks(base)
        architecture = MODELS.get(getattr(base, "_architecture", cast(Any, base).model))
        if not self.members or (architecture is not None and not architecture.is_trained):
            raise SettingsError(
                f"This {type(base).__name__} holds no trained network, only closed forms, so there is nothing to adapt."
                " Fit it anew with the new data, or one with networks, such as setting='combined' of a detector."
            )
        for member in self.members:
            _check_adaptable(member, how)
        self.hashes = tuple(base_hash(member) for member in self.members)
        self.trained: list[tuple[nn.Module, int, Adaptation, dict[str, Tensor]]] = []
        self.shares: list[TrainedShare] = []
        self.places: dict[tuple[str, int], int] = {}  # of each network that is trained, the one it begins with
        self.kept_head = False

    def fit(
        self, model: nn.Module, task: Any, train: Any, check: Any, *, fingerprint: str, parts: Any, **more: Any
    ) -> FitResult:
        """As ``prismts.training.fit.fit``, beginning with a network of the base."""
        if isinstance(model, DecoupledAutoencoder):  # what it learns the base has, and more
            return fit(model, task, train, check, fingerprint=fingerprint, parts=parts, **more)
        part, i = self.learner._trains
        place = ("member" if part == "gentle" else part, i)  # the same network once more
        number = self.places.setdefault(place, len(self.places)) % len(self.members)
        member = self.members[number]
        head = self._begin_with(model, member, task)
        free = head[1]
        adapt_model(model, self.how, free=free, **self.settings)
        model.adaptation = replace(model.adaptation, base=self.hashes[number])  # type: ignore[assignment]
        self.shares.append(trained_share(model))
        self.kept_head = head[0]
        adaptation = cast(Adaptation, model.adaptation)
        how = as_json(asdict(adaptation))
        mark = f"{fingerprint} adapted {how} {self.keep_head}"
        parts = {**parts, "what it is adapted from, and how": how, "keep_head": self.keep_head}
        result = fit(model, task, train, check, fingerprint=mark, parts=parts, **more)
        state = {name: value.clone() for name, value in adapter_state(model).items()}
        self.trained.append((model, number, adaptation, state))
        merge(model, in_place=True)
        return result

    def note(self, fitted: Estimator) -> None:
        """Tell the fitted estimator where it comes from."""
        paths = {id(module): name for name, module in fitted.model_.named_modules()}
        share = self.shares[0]
        fitted._learned = [  # type: ignore[attr-defined]
            _Learned(paths[id(model)], number, adaptation, state)
            for model, number, adaptation, state in self.trained
            if id(model) in paths
        ]
        fitted.adaptation_ = Lineage(
            how=self.how if isinstance(self.how, str) else f"peft's {type(self.how).__name__}", base=self.hashes,
            n_trained=share.n_trained, n_encoder=share.n_encoder, n_head=share.n_head, kept_head=self.kept_head,
            learned_before=str(getattr(self.base, "data_hash_", "")),
        )  # fmt: skip
        fitted.taught_by_ = self.base.taught_by_

    def _begin_with(self, model: nn.Module, member: nn.Module, task: Any) -> tuple[bool, tuple[str, ...]]:
        """Copy encoder and head; whether the head was kept, and the parameters that could not be taken over."""
        try:
            new = start_from(cast(Encoder, model), member)
        except SettingsError as error:
            raise SettingsError(
                f"The network to adapt is of another form than the new settings ask for ({error}) Leave the model's "
                "settings as they were."
            ) from error
        if isinstance(model, MaskReader):
            model.share.fill_(1.0)  # is weighed again after training
        parameters = {name for name, _ in model.named_parameters()}
        free = tuple(name for name in new if name in parameters)
        before = copy.deepcopy(member)
        if isinstance(task, Forecast):
            task.begin_again(before)
        theirs, ours = before.state_dict(), model.state_dict()
        of_head = [name for name in ours if name.startswith("head.") and _CLOSED_FORM not in name]
        fits = all(name in theirs and theirs[name].shape == ours[name].shape for name in of_head)
        old, now = getattr(self.base, "classes_", None), getattr(self.learner, "classes_", None)
        same = old is now or (old is not None and now is not None and np.array_equal(old, now))
        if not (self.keep_head and of_head and fits and same):
            return False, free
        model.load_state_dict({name: theirs[name] for name in of_head}, strict=False)
        return True, free


def _unfitted(
    estimator: E, fit_settings: Mapping[str, Any] | None, changes: Mapping[str, Any], progress: bool | None, run: Any
) -> E:
    """An estimator that will build networks of the same form as those of a fitted one."""
    params: dict[str, Any] = {**estimator.get_params(deep=False), "run_folder": run}
    recipe: Any = getattr(estimator, "_recipe_", None) or getattr(estimator, "recipe_", None)
    settings = dict(recipe.model) if recipe is not None else dict(getattr(estimator, "settings_", {}))
    params["model"] = "convtimenet" if params["model"] == "auto" else params["model"]
    params["model_settings"] = settings
    if "context_length" in params:
        params["context_length"] = getattr(estimator, "context_length_", params["context_length"])
    if "warm_start" in params:
        params["warm_start"] = False
    if progress is not None:
        params["progress"] = progress
    for name in (*changes, *(() if fit_settings is None else ("fit_settings",))):
        if name not in params:
            raise unknown_name("argument", name, params)
    params["fit_settings"] = {**(params["fit_settings"] or {}), **(fit_settings or {})} or None
    for name in fit_settings or {}:
        if name not in FitConfig.__dataclass_fields__:
            raise unknown_name("training setting", name, FitConfig.__dataclass_fields__)
    return type(estimator)(**{**params, **changes})


def _networks(estimator: Estimator) -> list[nn.Module]:
    """The trained networks, in the order in which ``fit`` trains them."""
    members: list[nn.Module] = []
    for network in estimator.members_:
        members += list(network.members) if isinstance(network, Ensemble) else [network]
    return members


def _check_adaptable(member: nn.Module, how: Any) -> None:
    if is_adapted(member):
        raise SettingsError(
            "This estimator carries bottlenecks already, which cannot be merged. Adapt the one it was adapted from."
        )
    if how != "full" and not isinstance(member, Encoder):
        raise SettingsError(
            "This model has no encoder beside a head, so there is nothing to freeze. Train all of its "
            "weights: how='full', or --how full on the command line."
        )
    if how not in ("probe", "bottleneck") and any(isinstance(part, Borrower) for part in member.modules()):
        raise SettingsError(
            "This network borrows weights of a pretrained one, which are not saved with it, so they cannot be changed. "
            "Use how='probe' or how='bottleneck', or the low-rank settings of the model itself."
        )


def _encoder_names(network: nn.Module) -> set[str]:
    """Of the state of a network, what belongs to its encoder, be it as it was or merged."""
    inner = isinstance(getattr(network, "encoder", None), Encoder)
    return {
        name
        for name in network.state_dict()
        if not name.startswith("head.") and (not inner or name.startswith("encoder."))
    }
