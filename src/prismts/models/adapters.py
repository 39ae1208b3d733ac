"""Go on from a trained encoder with few new weights: LoRA, bottlenecks, a linear probe; or with all of its weights.

``adapt`` freezes an encoder and puts small trained parts into it; its head stays trainable. ``merge`` adds what was
learned into the weights, so that inference costs nothing more. The frozen weights stay as they were, bit for bit, and
so do the running statistics of their batch norms: these normalize as in evaluation while the adapter is trained.

Our layers read weights where they need them (``embed.weight`` in a product of its own, two kernels as one, the buffers
of ``layers.residual``), and do not call the modules that hold them. The library peft replaces modules: its LoRA on the
linear maps of a ConvTimeNet changes no output at all, and its ``target_parameters`` cannot be put on the kernels (peft
0.21.2). So LoRA here is a parametrization of the weight itself (``torch.nn.utils.parametrize``): whoever reads the
weight reads the adapted one, be it a product, a GRU, a depthwise kernel or a merged copy. A configuration of peft in
place of a name puts its LoRA, DoRA, LoHa or LoKr on encoders that call their layers, and is refused where a layer would
not be heard.

Sources: LoRA: Hu et al., ICLR 2022, arXiv 2106.09685; bottlenecks: Houlsby et al., ICML 2019, arXiv 1902.00751. Unlike
Hu et al., the rank of a weight is never so large that its factors outweigh it, single numbers (the residual weights of
a ConvTimeNet) get a difference of their own, and there is no dropout in front of the factors.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MethodType
from typing import Any, Literal, NamedTuple, TypeVar, cast, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]
from torch.nn.utils import parametrize

from prismts.errors import MissingExtraError, SavedModelError, SettingsError, unknown_name
from prismts.models import (
    convtimenet,
    cross_learner,
    deformabletst,
    formertime,
    itransformer,
    lwconvtimenet,
    moderntcn,
    patchtst,
    timesnet,
)
from prismts.models.contract import Encoder
from prismts.writing import recover, whole_folder

__all__ = [
    "HOW",
    "Adaptation",
    "Bottleneck",
    "Lineage",
    "LowRank",
    "TrainedShare",
    "adapt",
    "adapt_as",
    "adapter_state",
    "base_hash",
    "is_adapted",
    "load_adapter",
    "load_adapter_state",
    "merge",
    "read_adapter",
    "save_adapter",
    "trained_share",
    "write_adapter",
]

How = Literal["lora", "bottleneck", "probe", "full", "peft"]
HOW: tuple[str, ...] = get_args(How)[:-1]  # by name: "peft" is told by a configuration of that library
_PEFT = ("LORA", "LOHA", "LOKR")  # what of it is taken: differences of weights, which merge
_PEFT_PREFIXES = ("lora_", "hada_", "lokr_")

_LARGEST_RANK = 8
_SHARE = 0.01  # of the encoder's weights that LoRA may add where the rank is not given ...
_FEW = 10_000  # ... or so many weights, whichever is more: of a small encoder a hundredth is too little
_INSIDE = "adapted_block"  # what a block is called inside of what adapts it
_ADAPTER = "bottleneck"
_ORDER = "order_of_parameters"  # noted before weights are parametrized, so that they come back in their order
_FILES = ("adapter.safetensors", "adapter.json")
_FORMAT = "prismts-adapter"

# where the width stands in what a block gives; any other encoder gets one bottleneck, behind its tokens
_WIDTH_AXIS: dict[type[nn.Module], int] = {
    convtimenet.Block: 0, lwconvtimenet.PlainBlock: 0, moderntcn.Block: 1, deformabletst.Block: 1,
    cross_learner.Block: 1, patchtst.Block: -1, itransformer.Block: -1, formertime.AttentionBlock: -1,
    timesnet.TimesBlock: -1,
}  # fmt: skip

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """How an encoder was adapted: what ``adapt`` needs to put the same, untrained parts into the same base again."""

    how: How = "lora"
    rank: int | None = None  # of LoRA; None: the largest up to 8 with which it adds at most 1 % (or 10 000 weights)
    strength: float = 2.0  # what LoRA's product is multiplied by: alpha / rank in the paper
    width: int = 8  # inside a bottleneck
    targets: tuple[str, ...] = ()  # LoRA only on weights whose name holds one of these; empty: on all it fits
    free: tuple[str, ...] = ()  # parameters of the encoder that are trained as they are
    peft: dict[str, Any] | None = None  # a configuration of peft as plain values
    base: str = ""  # hash of the encoder it belongs to

    def __post_init__(self) -> None:
        if self.how not in get_args(How):
            raise unknown_name("way to adapt", self.how, HOW)
        if self.rank is not None and self.rank < 1:
            raise SettingsError(f"rank is at least 1, or None for a rank that fits, but got {self.rank}.")
        if self.width < 1:
            raise SettingsError(f"width counts the values inside a bottleneck, at least 1, but got {self.width}.")
        if not self.strength > 0:
            raise SettingsError(f"strength multiplies what LoRA adds and is above 0, but got {self.strength}.")
        object.__setattr__(self, "targets", tuple(self.targets))
        object.__setattr__(self, "free", tuple(self.free))


class TrainedShare(NamedTuple):
    """How much is trained."""

    n_trained: int  # weights of the encoder that are trained, those of the adapter among them
    n_encoder: int  # weights of the encoder without adapter and head
    n_head: int  # weights of the head, all of which are trained (but a solved line)

    @property
    def share(self) -> float:
        """Trained weights over those of the encoder."""
        return self.n_trained / max(self.n_encoder, 1)

    def __str__(self) -> str:
        return (
            f"{self.n_trained:,} trained weights beside {self.n_encoder:,} of the encoder ({self.share:.2%}), and "
            f"{self.n_head:,} of the head"
        )


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Of an adapted estimator: what it was adapted from, how, and how much was trained."""

    how: str
    base: tuple[str, ...]  # hashes of the encoders it began with, one for each network
    n_trained: int  # weights of one network, as in TrainedShare
    n_encoder: int
    n_head: int
    kept_head: bool  # whether training began with the head there was
    learned_before: str = ""  # hash of the data the base was trained on

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", tuple(self.base))

    @property
    def share(self) -> float:
        """Trained weights over those of the encoder."""
        return self.n_trained / max(self.n_encoder, 1)

    def __str__(self) -> str:
        head = "the head it had" if self.kept_head else "a new head"
        return f"adapted by {self.how} with {head}: {TrainedShare(self.n_trained, self.n_encoder, self.n_head)}"


class LowRank(nn.Module):
    """W + strength * up @ down, for a weight of any shape read as [m, n] with its first axis as m."""

    def __init__(self, weight: Tensor, rank: int, strength: float) -> None:
        super().__init__()
        m, n = weight.shape[0], weight[0].numel()
        bound = 1 / math.sqrt(n)
        self.strength = strength
        self.down = nn.Parameter(torch.empty(rank, n, dtype=weight.dtype, device=weight.device))  # [r, n]
        self.up = nn.Parameter(torch.zeros(m, rank, dtype=weight.dtype, device=weight.device))  # [m, r]
        nn.init.uniform_(self.down, -bound, bound)

    def forward(self, weight: Tensor) -> Tensor:
        """The frozen weight to the adapted one, of the same shape."""
        return weight + self.strength * (self.up @ self.down).view_as(weight)


class Shift(nn.Module):
    """A single number plus a learned one."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros_like(weight))

    def forward(self, weight: Tensor) -> Tensor:
        """The frozen number to the adapted one."""
        return weight + self.shift


class Bottleneck(nn.Module):
    """y + up(gelu(down(norm(y)))) along one axis, and y itself before training: up begins at zero."""

    def __init__(self, size: int, width: int, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.norm = nn.LayerNorm(size)
        self.down = nn.Linear(size, width)
        self.up = nn.Linear(width, size)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, y: Tensor) -> Tensor:
        """Any shape to the same."""
        return y + self.up(F.gelu(self.down(self.norm(y.movedim(self.axis, -1))))).movedim(-1, self.axis)


class _WithBottleneck(nn.Module):
    """A block, and a bottleneck for each of the states it gives."""

    def __init__(self, block: nn.Module, sizes: Sequence[int], width: int, axis: int) -> None:
        super().__init__()
        self.add_module(_INSIDE, block)
        self.bottleneck = nn.ModuleList(Bottleneck(size, width, axis) for size in sizes)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the block gives, its states adapted."""
        given = self.get_submodule(_INSIDE)(*args, **kwargs)
        adapted = [part(y) for part, y in zip(self.bottleneck, _states(given), strict=True)]
        if isinstance(given, Tensor):
            return adapted[0]
        if hasattr(given, "_fields"):
            return given._replace(**dict(zip(_STATES, adapted, strict=True)))
        return (adapted[0], *given[1:])


_STATES = ("cnn", "gru")  # of a cross learner's block, which gives more than its states


def _states(given: Any) -> list[Tensor]:
    """The states among what a block gives: the next block's input."""
    if isinstance(given, Tensor):
        return [given]
    return [getattr(given, name) for name in _STATES] if hasattr(given, "_fields") else [given[0]]


def adapt(
    model: Model,
    how: str | Any = "lora",
    *,
    rank: int | None = None,
    strength: float = 2.0,
    width: int = 8,
    targets: Sequence[str] = (),
    free: Sequence[str] = (),
) -> Model:
    """Make an encoder ready to go on with few trained weights, in place, and return it.

    Its answers are the same before and after: what is added begins at nothing. The head stays trainable; ``merge``
    gives a plain encoder back. Train it as any other model.

    Args:
        model: an encoder with the head of a task; ``model.adaptation`` then says how it was adapted.
        how: "lora" (low-rank differences of all weights), "bottleneck" (a small network behind every block; behind the
            tokens of an encoder without known blocks), "probe" (the head alone is trained), or "full" (everything is).
            Or a configuration of the library peft (``LoraConfig``, ``LoHaConfig``, ``LoKrConfig``), with its own rank
            and targets; this needs the extra ``adapt``.
        rank: of LoRA's factors, never so large that they outweigh their weight; None takes the largest up to 8 with
            which LoRA adds at most 1 % of the encoder's weights, or 10 000.
        strength: what LoRA's product is multiplied by.
        width: inside a bottleneck.
        targets: parts of names; LoRA is put on weights whose name holds one of them. Empty: on all it fits.
        free: names of parameters that are trained as they are (layers that are new, as for another number of channels).

    Raises:
        SettingsError: it is adapted already, has no head to go on with, no weight fits ``targets``, or it would not
            hear what peft puts into it.
        MissingExtraError: peft is asked for and not there.
    """
    if is_adapted(model):
        raise SettingsError("This encoder is adapted already. Merge it first: prismts.models.adapters.merge(model).")
    peft = None if isinstance(how, str) else _peft_values(how)
    how = how if isinstance(how, str) else "peft"
    config = Adaptation(
        how=how, rank=rank, strength=strength, width=width, targets=tuple(targets), free=tuple(free), peft=peft,  # type: ignore[arg-type]
        base=base_hash(model),
    )  # fmt: skip
    if how != "full" and not isinstance(model, Encoder):
        raise SettingsError(
            f"A {type(model).__name__} has no encoder beside a head, so there is nothing to freeze. Use how='full'."
        )
    names = {name for name, _ in model.named_parameters()}
    unknown = [name for name in free if name not in names]
    if unknown:
        raise unknown_name("parameter", unknown[0], names)
    if how != "full":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(_of_head(model, name) or name in free)
        for name, module in model.named_modules():
            if isinstance(module, _BatchNorm) and not _of_head(model, f"{name}."):
                module.train = MethodType(_stay, module)  # type: ignore[method-assign]
                module.train()
    if how == "lora":
        _put_lora(model, config)
    elif how == "bottleneck":
        assert isinstance(model, Encoder)
        _put_bottlenecks(model, config.width)
    elif peft is not None:
        assert isinstance(model, Encoder)
        _put_peft(model, peft, config.free)
    model.adaptation = config  # type: ignore[assignment]
    return model


def is_adapted(model: nn.Module) -> bool:
    """Whether this encoder carries an adapter, or was frozen for one, and was not merged since."""
    return isinstance(getattr(model, "adaptation", None), Adaptation)


def merge(model: Model, *, in_place: bool = False) -> Model:
    """The encoder with LoRA's differences added into its weights: plain, trainable, and as quick as its base.

    A copy, unless ``in_place``. Bottlenecks cannot be added into weights and stay as they are: such an encoder is still
    adapted.
    """
    if not is_adapted(model):
        return model if in_place else copy.deepcopy(model)
    _settle(model)
    model = model if in_place else copy.deepcopy(model)
    if cast(Adaptation, model.adaptation).how == "bottleneck":
        return model
    with torch.no_grad():
        for module in list(model.modules()):
            if hasattr(module, "parametrizations"):
                _take_lora_out(module)
        if cast(Adaptation, model.adaptation).peft is not None:
            _take_peft_out(model)
    _settle(model)
    for module in model.modules():
        module.__dict__.pop("train", None)
    for name, parameter in model.named_parameters():
        if not _of_head(model, name):
            parameter.requires_grad_(True)
    del model.adaptation
    return model.train(model.training)


def trained_share(model: nn.Module) -> TrainedShare:
    """How many weights are trained, of how many."""
    n_trained = n_encoder = n_head = 0
    for name, parameter in model.named_parameters():
        if _of_head(model, name):
            n_head += parameter.numel()
            continue
        n_encoder += 0 if _is_new(name) else parameter.numel()
        n_trained += parameter.numel() if parameter.requires_grad else 0
    return TrainedShare(n_trained, n_encoder, n_head)


def base_hash(model: nn.Module) -> str:
    """A hash of the encoder without head and adapter: equal before and after it was adapted and trained."""
    free = getattr(model, "adaptation", Adaptation()).free
    if free and is_adapted(model):  # they have moved since
        return cast(Adaptation, model.adaptation).base
    digest = hashlib.sha256()
    for name, value in sorted(_base_state(model)):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


# ---- apart from its base


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """What was trained: the adapter, free parameters, and the head."""
    if not is_adapted(model):
        raise SettingsError("This encoder carries no adapter. Call adapt first, and do not merge before saving.")
    config = cast(Adaptation, model.adaptation)
    whole = config.how == "full"
    return {
        name: value.detach()
        for name, value in model.state_dict().items()
        if whole or _of_head(model, name) or _is_new(name) or name in config.free
    }


def load_adapter_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give an adapted encoder the adapter and head that ``adapter_state`` returned."""
    lacking = sorted(set(adapter_state(model)) ^ set(state))
    shapes = model.state_dict()
    lacking = lacking or [name for name in state if shapes[name].shape != state[name].shape]
    if lacking:
        raise SavedModelError(
            f"The adapter does not fit this model: {lacking[0]!r} differs ({len(lacking)} in all). Build the model "
            "with the settings, the head and the sizes it was adapted with."
        )
    model.load_state_dict(dict(state), strict=False)


def save_adapter(model: nn.Module, path: str | Path) -> None:
    """Write adapter and head of an encoder to a folder of two files: safetensors and JSON."""
    share = trained_share(model)
    config = {"adaptation": asdict(cast(Adaptation, getattr(model, "adaptation", None) or Adaptation())),
              "n_trained": share.n_trained, "n_encoder": share.n_encoder}  # fmt: skip
    write_adapter(path, config, adapter_state(model))


def load_adapter(model: Model, path: str | Path) -> Model:
    """Put a saved adapter and its head on the encoder it belongs to, in place.

    Raises:
        SavedModelError: the encoder has other weights than the one the adapter was trained on.
    """
    config, state = read_adapter(path)
    adaptation = Adaptation(**config["adaptation"])
    check_base(model, adaptation, path)
    with torch.random.fork_rng(devices=[]):  # what is drawn here is replaced at once
        adapt_as(model, adaptation)
    load_adapter_state(model, state)
    return model


def adapt_as(model: Model, config: Adaptation) -> Model:
    """Adapt a model as it was done once."""
    settings = {name: value for name, value in asdict(config).items() if name != "base"}
    peft, how = settings.pop("peft"), settings.pop("how")
    adapted = adapt(model, how if peft is None else _peft_config(peft), **settings)
    adapted.adaptation = config  # type: ignore[assignment]
    return adapted


def check_base(model: nn.Module, config: Adaptation, path: str | Path) -> None:
    """Whether an adapter belongs to this encoder; free parameters were new, and so the base cannot tell."""
    found = base_hash(model)
    if not config.free and found != config.base:
        raise SavedModelError(
            f"The adapter in {path} belongs to another base: it was trained on an encoder with hash "
            f"{config.base[:12]}, but this one has {found[:12]}. Load it on the model it was adapted from."
        )


def write_adapter(path: str | Path, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write the two files of an adapter folder at once; an old one at this place is replaced."""
    path = Path(path)
    if path.exists() and (path.is_file() or (any(path.iterdir()) and not (path / _FILES[1]).is_file())):
        raise SavedModelError(f"{path} exists and is no adapter of PrismTS. Save to another place.")
    with whole_folder(path) as partial:
        weights, text = (partial / name for name in _FILES)
        save_file({name: value.cpu().contiguous().clone() for name, value in state.items()}, weights)
        whole = {"format": _FORMAT, "format_version": 1, **config, "sha256": _sha256(weights)}
        text.write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_adapter(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The JSON and the weights of an adapter folder.

    Raises:
        SavedModelError: the folder is missing, foreign or altered.
    """
    recover(path)
    weights, text = (Path(path) / name for name in _FILES)
    if not text.is_file():
        raise SavedModelError(f"There is no adapter at {path}: it has no {_FILES[1]}.")
    try:
        config: Any = json.loads(text.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise SavedModelError(f"{text} cannot be read as JSON ({error}). Save the adapter again.") from error
    if not isinstance(config, dict) or cast(Any, config).get("format") != _FORMAT:
        raise SavedModelError(f"{path} is no adapter of PrismTS: its {_FILES[1]} does not say so.")
    if not weights.is_file() or _sha256(weights) != config["sha256"]:
        raise SavedModelError(f"{weights} is missing or was altered after it was saved. Copy the whole folder again.")
    try:
        return cast(dict[str, Any], config), load_file(weights)
    except (SafetensorError, OSError, ValueError) as error:
        raise SavedModelError(f"{weights} cannot be read ({error}).") from error


# ---- inside


def _put_lora(model: nn.Module, config: Adaptation) -> None:
    """Parametrize every weight that the targets name by a low-rank difference, and every single number by a shift."""
    found = [
        (module, short, parameter)
        for prefix, module in model.named_modules()
        for short, parameter in module.named_parameters(recurse=False)
        if not _of_head(model, name := f"{prefix}.{short}" if prefix else short)
        and name not in config.free
        and (not config.targets or any(part in name for part in config.targets))
        and (parameter.numel() == 1 or _most_rank(parameter) > 0)
    ]
    if not found:
        raise SettingsError(
            f"No weight of the encoder fits targets={config.targets}. Its weights are called, for example, "
            f"{', '.join(name for name, p in list(model.named_parameters())[:8] if p.ndim > 1)}."
        )
    n_encoder = sum(p.numel() for name, p in model.named_parameters() if not _of_head(model, name))
    rank = config.rank
    if rank is None:
        budget = max(_SHARE * n_encoder, _FEW)
        fitting = [r for r in range(1, _LARGEST_RANK + 1) if sum(_cost(p, r) for _, _, p in found) <= budget]
        rank = max(fitting, default=1)
    for module, short, parameter in found:
        part = (
            Shift(parameter.detach())
            if parameter.numel() == 1
            else LowRank(parameter.detach(), min(rank, _most_rank(parameter)), config.strength)
        )
        module.__dict__.setdefault(_ORDER, list(module._parameters))  # pyright: ignore[reportPrivateUsage]
        parametrize.register_parametrization(module, short, part)


def _take_lora_out(module: nn.Module) -> None:
    """Give a module its own class and weights back, the differences added; call without gradients.

    Not torch's ``remove_parametrizations``: a copy shares the class that was made for the adapted module, and that
    function would take the property off this class, so that the module it was copied from lost its weights.
    """
    values = {name: getattr(module, name) for name in cast(nn.ModuleDict, module.parametrizations)}
    order = cast(list[str], module.__dict__.pop(_ORDER))
    rest = {**module._parameters}  # pyright: ignore[reportPrivateUsage]
    del module.parametrizations
    module.__class__ = type(module).__bases__[0]
    module._parameters.clear()  # pyright: ignore[reportPrivateUsage]
    for name in order:
        module.register_parameter(name, nn.Parameter(values[name].clone()) if name in values else rest[name])


def _most_rank(weight: Tensor) -> int:
    """The largest rank at which two factors are smaller than the weight; 0 where there is none."""
    if weight.ndim < 2:
        return 0
    m, n = weight.shape[0], weight[0].numel()
    return (m * n - 1) // (m + n)


def _cost(weight: Tensor, rank: int) -> int:
    """Weights that a difference of this rank adds."""
    if weight.numel() == 1:
        return 1
    return min(rank, _most_rank(weight)) * (weight.shape[0] + weight[0].numel())


def _put_bottlenecks(model: Encoder, width: int) -> None:
    """Wrap every block in one that adapts what it gives; the tokens, where the blocks of an encoder are not known."""
    found = list(_blocks(model))
    if not found:
        model.bottleneck = Bottleneck(model.width, width, -1)  # type: ignore[assignment]
        model.encode = MethodType(_encode_adapted, model)  # type: ignore[method-assign]
        return
    place, was = next(model.parameters()), model.training
    sizes: dict[str, list[int]] = {}
    hooks = [
        block.register_forward_hook(
            lambda _module, _given, given, name=name, axis=axis: sizes.update(
                {name: [y.shape[axis] for y in _states(given)]}
            )
        )
        for name, block, axis in found
    ]
    _look_through(model)
    for hook in hooks:
        hook.remove()
    for name, block, axis in found:
        parent, _, last = name.rpartition(".")
        wrapped = _WithBottleneck(block, sizes[name], width, axis).to(place.device, place.dtype)
        setattr(model.get_submodule(parent), last, wrapped.train(was))


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError(
            "This way to adapt needs the library peft. Install it: pip install 'prismts[adapt]'."
        ) from error
    return peft


def _peft_values(config: Any) -> dict[str, Any]:
    """A configuration of peft as plain values."""
    peft = _peft()
    if not isinstance(config, peft.PeftConfig) or config.peft_type.value not in _PEFT:
        raise SettingsError(
            f"how is one of {', '.join(HOW)}, or a LoraConfig, LoHaConfig or LoKrConfig of peft, but got {config!r}."
        )
    values = json.loads(
        json.dumps(config.to_dict(), default=lambda value: sorted(value) if isinstance(value, set) else str(value))
    )
    return cast(dict[str, Any], values)


def _peft_config(values: Mapping[str, Any]) -> Any:
    peft = _peft()
    kinds: dict[str, Any] = dict(zip(_PEFT, (peft.LoraConfig, peft.LoHaConfig, peft.LoKrConfig), strict=True))
    kind = kinds[str(values["peft_type"]).rpartition(".")[2]]
    known = set(inspect.signature(kind).parameters)
    return kind(**{name: value for name, value in values.items() if name in known and name != "peft_type"})


def _put_peft(model: Encoder, values: Mapping[str, Any], free: Sequence[str]) -> None:
    """Let peft replace the modules it is told to, and make sure that the encoder calls every one of them."""
    _peft().inject_adapter_in_model(_peft_config(values), model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_of_head(model, name) or name in free or _is_new(name))
    called: set[str] = set()
    put = {name: module for name, module in model.named_modules() if _is_peft(module)}
    hooks = [module.register_forward_hook(lambda *_, name=name: called.add(name)) for name, module in put.items()]
    _look_through(model)
    for hook in hooks:
        hook.remove()
    unheard = sorted(name for name in put if name not in called and not _of_head(model, f"{name}."))
    if unheard:
        raise SettingsError(
            f"A {type(model).__name__} reads the weights of {unheard[0]!r} without calling it ({len(unheard)} such "
            "layers), so what peft puts there would not be heard. Use how='lora', which reaches every weight, or "
            "narrow target_modules, and build the encoder anew: this one is changed."
        )


def _take_peft_out(model: nn.Module) -> None:
    """Add what peft's layers have learned into their base layers, and put these back."""
    put = [(name, cast(Any, module)) for name, module in model.named_modules() if _is_peft(module)]
    for _, module in put:
        module.merge(safe_merge=True)
    for name, module in put:
        if not any(name.startswith(f"{other}.") for other, _ in put):  # several may stand around one layer
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, module.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config


def _is_peft(module: nn.Module) -> bool:
    return hasattr(module, "base_layer") and hasattr(module, "active_adapters")


def _look_through(model: Encoder) -> None:
    """Let the encoder read a window, and be left as it was."""
    place, was = next(model.parameters()), model.training
    with torch.no_grad():
        model.eval()
        model.encode(
            torch.zeros(1, model.n_channels or 1, model.context_length, device=place.device, dtype=place.dtype)
        )
        model.train(was)


def _blocks(model: nn.Module) -> Iterator[tuple[str, nn.Module, int]]:
    """The blocks of known encoders in a model, by name, and the axis along which their width stands."""
    for name, module in model.named_modules():
        for kind, axis in _WIDTH_AXIS.items():
            if isinstance(module, kind) and not _of_head(model, f"{name}."):
                yield name, module, axis


def _encode_adapted(model: Any, *args: Any, **kwargs: Any) -> Any:
    """As the encoder's own ``encode``, its tokens adapted."""
    features = type(model).encode(model, *args, **kwargs)
    return features._replace(tokens=model.bottleneck(features.tokens))


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    """In evaluation, whatever its model is put into: a frozen batch norm keeps its statistics."""
    return nn.Module.train(module, False)


def _settle(model: nn.Module) -> None:
    """Let recurrent layers read their weights anew without a graph, which cannot be copied."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.RNNBase) and (hasattr(module, "parametrizations") or is_adapted(model)):
                module._init_flat_weights()  # pyright: ignore[reportPrivateUsage]
                module.__dict__.pop("_flat_weight_refs", None)
                module._init_flat_weights()  # pyright: ignore[reportPrivateUsage]


def _of_head(model: nn.Module, name: str) -> bool:
    """Whether a parameter is of the head, or stands around an encoder inside of the model."""
    inner = isinstance(getattr(model, "encoder", None), Encoder)
    return name.startswith("head.") or (inner and not name.startswith("encoder.") and not _is_new(name))


def _is_new(name: str) -> bool:
    """Whether this parameter came with the adapter."""
    parts = name.split(".")
    if _ADAPTER in parts or any(part.startswith(_PEFT_PREFIXES) for part in parts):
        return True
    return "parametrizations" in parts and parts[-1] in ("down", "up", "shift")


def _base_state(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The encoder's parameters and buffers by the names they have without an adapter."""
    for name, value in model.state_dict().items():
        if _of_head(model, name) or _is_new(name):
            continue
        parts = [part for part in name.split(".") if part not in (_INSIDE, "parametrizations", "base_layer")]
        if parts[-1] == "original":
            parts.pop()
        yield ".".join(parts), value


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
