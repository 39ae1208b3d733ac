"""What reads the tokens of a series in the place of words: a pretrained language model, or one of the controls.

A backbone maps tokens [M, N, D] to tokens [M, N, D] and is told which of them each may read. The layers of a network of
``transformers`` are cut off behind the first k, its table of words is left out (no words are read), and its weights are
frozen but for a part: see ``TRAIN``.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Generator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from prismts.errors import MissingExtraError, SavedModelError, SettingsError, unknown_name
from prismts.layers.dropout import Dropout
from prismts.models.language_hub import from_hub, quiet, transformers
from prismts.ranges import expect_counts, expect_heads, expect_shares

__all__ = [
    "CONTROLS",
    "TRAIN",
    "Backbone",
    "BackboneConfig",
    "NoBackbone",
    "OneAttention",
    "PretrainedBackbone",
    "make_backbone",
    "n_trained",
    "rebuilt_from",
]

_WHO = "A language backbone"
TRAIN = ("frozen", "norms", "lora", "full")
CONTROLS = ("none", "attention")
_DROPOUTS = (
    "attn_pdrop", "embd_pdrop", "resid_pdrop", "attention_dropout", "hidden_dropout_prob", "dropout",
    "attention_probs_dropout_prob", "embedding_dropout", "mlp_dropout",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Which network reads the tokens, what of it is trained, and its sizes where no pretrained one tells them."""

    backbone: str = "gpt2"  # a name of the hub, a local folder, or a control: "none", "attention"
    weights: Literal["pretrained", "random"] = "pretrained"  # random: backbone names a kind ("gpt2", "bert", "llama")
    download: bool = False  # whether weights that this machine lacks may be fetched
    n_layers: int | None = 6  # the first so many; None: all
    train: Literal["frozen", "norms", "lora", "full"] = "norms"  # of the backbone; what stands around it always is
    lora_rank: int = 8  # R of the two factors beside every linear map, with train="lora"
    lora_alpha: float = 16.0  # their product counts alpha / R times
    dropout: float | None = None  # inside the backbone; None: as its authors set it
    # sizes of a random or absent backbone; those of GPT-2
    width: int = 768
    n_heads: int = 12
    feed_forward: int = 3072
    max_tokens: int = 1024  # positions
    n_words: int = 50257  # rows of the table of words, where a scheme reads it

    def __post_init__(self) -> None:
        if self.train not in TRAIN:
            raise unknown_name("part to train", self.train, TRAIN)
        if self.weights not in ("pretrained", "random"):
            raise unknown_name("weights", self.weights, ("pretrained", "random"))
        expect_counts(
            self, "lora_rank", "width", "n_heads", "feed_forward", "max_tokens", "n_words", or_none=("n_layers",)
        )
        expect_heads(self.width, self.n_heads)
        expect_shares(self, or_none=("dropout",))


class Backbone(nn.Module):
    """Tokens [M, N, D] to the same; ``table`` holds the embeddings of words [V, D] where a scheme asked for them."""

    width: int  # D
    max_tokens: int | None  # positions it knows; None: any number
    is_causal: bool  # whether a token reads none behind it, as the network was made
    table: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", None)

    def forward(self, x: Tensor, readable: Tensor) -> Tensor:
        """Tokens [M, N, D], and which of them each may read [M or 1, 1, N, N] bool, itself always, to [M, N, D]."""
        raise NotImplementedError

    def folded(self) -> Self:
        """A copy without adapters beside its maps, with the same answers."""
        return copy.deepcopy(self)


class NoBackbone(Backbone):
    """The control without a language model: tokens stay what the patches were embedded as."""

    max_tokens, is_causal = None, True

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor, readable: Tensor) -> Tensor:
        """[M, N, D] as it came."""
        return x


class OneAttention(Backbone):
    """The control with one layer of attention in the place of the language model; normalized behind the residual.

    It has no positions and looks ahead. Source: LLM2Attn of Tan et al., NeurIPS 2024, arXiv 2406.16964.
    """

    max_tokens, is_causal = None, False

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.width, self.n_heads = width, n_heads
        self.ask, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        nn.init.zeros_(self.ask.bias)
        self.norm = nn.LayerNorm(width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, readable: Tensor) -> Tensor:
        """[M, N, D] to the same."""
        q, k, v = self.ask(x).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)  # [M, heads, N, D/heads] each
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=readable)
        return self.norm(x + self.dropout(self.out(y.transpose(1, 2).flatten(2))))


class PretrainedBackbone(Backbone):
    """A transformer of ``transformers`` that reads embeddings in the place of words.

    What is frozen stays so while it trains, whatever is asked of its parameters from outside.
    """

    def __init__(self, network: nn.Module, config: BackboneConfig, *, keep_table: bool) -> None:
        super().__init__()
        form: Any = network.config
        self.source, self.is_borrowed = config.backbone, config.weights == "pretrained"
        self.form: dict[str, Any] = form.to_dict()  # what the network can be built from, without its weights
        self.width = int(form.hidden_size)
        self.max_tokens = getattr(form, "max_position_embeddings", None)
        self.is_causal = any(getattr(module, "is_causal", False) for module in network.modules())
        words: Tensor = network.get_input_embeddings().weight.detach()  # type: ignore[operator]
        self.table = words.clone() if keep_table else None
        network.set_input_embeddings(nn.Identity())  # type: ignore[operator]
        if getattr(network, "pooler", None) is not None:
            network.pooler = None  # type: ignore[assignment]
        if config.train == "lora":
            _add_lora(network, config)
        self.network = network
        trained = _trained(network, config.train)
        self.frozen = frozenset(name for name, _ in network.named_parameters() if name not in trained)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in trained)

    def forward(self, x: Tensor, readable: Tensor) -> Tensor:
        """[M, N, D] to the same."""
        return self.network(inputs_embeds=x, attention_mask=readable, use_cache=False).last_hidden_state

    def train(self, mode: bool = True) -> Self:
        """Training mode; the frozen weights stay frozen."""
        super().train(mode)
        if mode:
            for name, parameter in self.network.named_parameters():
                if name in self.frozen:
                    parameter.requires_grad_(False)
        return self

    def borrowed(self) -> list[str]:
        """The names of the weights that are those of the pretrained network, as they stand in ``state_dict``."""
        if not self.is_borrowed:
            return []
        buffers = {name for name, _ in self.network.named_buffers()}
        lent = {"table", *(f"network.{name}" for name in self.frozen | buffers)}
        return [name for name in self.state_dict() if name in lent]

    def write(self, folder: str | Path) -> None:
        """Write the network as the library does, for ``backbone=folder``; without its table of words."""
        with quiet():
            network: Any = self.network
            network.save_pretrained(folder)

    def folded(self) -> Self:
        """A copy in which each pair of low-rank factors is added to the map beside it."""
        model = copy.deepcopy(self)
        for module in list(model.network.modules()):
            for name, child in list(module.named_children()):
                if hasattr(child, "lora_A"):
                    layer: Any = child
                    layer.merge()
                    setattr(module, name, layer.get_base_layer())
        model.frozen = frozenset(name.replace(".base_layer.", ".") for name in model.frozen)
        return model


_forms: ContextVar[Mapping[str, Mapping[str, Any]] | None] = ContextVar("forms", default=None)


@contextlib.contextmanager
def rebuilt_from(forms: Mapping[str, Mapping[str, Any]]) -> Generator[None]:
    """Within, backbones of these sources are built by their form (``PretrainedBackbone.form``), without weights.

    For models that were saved whole: what they are built with is replaced by what was saved.
    """
    token = _forms.set(forms)
    try:
        yield
    finally:
        _forms.reset(token)


def make_backbone(config: BackboneConfig, *, keep_table: bool = False) -> Backbone:
    """The backbone of these settings; random weights are drawn by torch's own generator.

    Args:
        config: which, and what of it is trained.
        keep_table: whether its embeddings of words are kept beside it; a control gets such a table drawn at random.

    Raises:
        MissingExtraError: ``transformers``, or ``peft`` for LoRA, is not installed.
        SavedModelError: the pretrained weights are not on this machine, and may not be fetched.
        SettingsError: the network cannot read tokens of series.
    """
    if config.backbone in CONTROLS:
        control: Backbone = (
            NoBackbone(config.width)
            if config.backbone == "none"
            else OneAttention(config.width, config.n_heads, 0.1 if config.dropout is None else config.dropout)
        )
        if keep_table:
            control.table = 0.02 * torch.randn(config.n_words, config.width)
        return control
    library = transformers(_WHO)
    network: Any
    known = (_forms.get() or {}).get(config.backbone)
    with quiet():
        if config.weights == "random":
            network = _from_form(library, _random_form(library, config))
        elif known is not None:
            kind = {name: value for name, value in known.items() if name not in ("transformers_version",)}
            network = _from_form(library, library.AutoConfig.for_model(**kind))
        else:
            form = _shortened(from_hub("AutoConfig", config.backbone, download=config.download, who=_WHO), config)
            network, told = from_hub(
                "AutoModel", config.backbone, download=config.download, who=_WHO,
                config=form, dtype=torch.float32, attn_implementation="sdpa", output_loading_info=True,
            )  # fmt: skip
            _check_all_there(network, told, config.backbone, keep_table=keep_table)
    backbone = PretrainedBackbone(network, config, keep_table=keep_table)
    _try(backbone, config.backbone)
    return backbone.train()


def n_trained(model: nn.Module) -> tuple[int, int]:
    """How many weights of a model are trained, and how many it has."""
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(n for n, trained in counts if trained), sum(n for n, _ in counts)


# ---- inside


def _check_all_there(network: Any, told: Mapping[str, Any], name: str, *, keep_table: bool) -> None:
    """Whether the file held every weight that is used: the library draws those at random that it lacks."""
    words = next(path for path, one in network.named_modules() if one is network.get_input_embeddings())
    lacking = sorted(key for key in told["missing_keys"] if not key.startswith("pooler."))
    unread = [key for key in lacking if key.rpartition(".")[0] == words]
    if keep_table and unread:
        raise SettingsError(
            f"{name!r} has no table of words (what a stage of patches wrote has none), and this scheme reads it. Take "
            "the network from before that stage."
        )
    lacking = [key for key in lacking if key not in unread]
    if lacking:
        raise SavedModelError(
            f"The pretrained {name!r} lacks {len(lacking)} weights of its kind, such as {lacking[0]!r}. Fetch or write "
            "it again."
        )


@torch.no_grad()
def _try(backbone: PretrainedBackbone, name: str) -> None:
    """Whether the network reads embeddings under a mask of ours: that a token does not read what it must not."""
    two = torch.zeros(2, 2, backbone.width)
    two[1, 1, 0] = 1.0
    try:
        first = backbone.eval()(two, torch.ones(1, 1, 2, 2, dtype=torch.bool).tril())[:, 0]
    except Exception as error:  # whatever a network of others raises that is not made for this
        raise SettingsError(
            f"{name!r} does not read embeddings under a mask of four axes ({type(error).__name__}: {error}). Take "
            "another network, such as 'gpt2', 'bert', or a Llama or Qwen."
        ) from error
    if not torch.allclose(first[0], first[1]):
        raise SettingsError(f"{name!r} lets tokens read what its mask hides. Take another network, such as 'gpt2'.")


def _from_form(library: Any, form: Any) -> Any:
    try:
        return library.AutoModel.from_config(form, attn_implementation="sdpa")
    except (ValueError, TypeError, AssertionError) as error:
        raise SettingsError(f"{_WHO} of the kind {form.model_type!r} cannot be built: {error}") from error


def _random_form(library: Any, config: BackboneConfig) -> Any:
    """The form of a network of this kind in the sizes of the settings."""
    try:
        form = library.AutoConfig.for_model(
            config.backbone,
            hidden_size=config.width,
            num_hidden_layers=config.n_layers or 6,
            num_attention_heads=config.n_heads,
            intermediate_size=config.feed_forward,
            max_position_embeddings=config.max_tokens,
            vocab_size=config.n_words,
        )
    except ValueError as error:
        raise SettingsError(
            f"weights='random' builds a network by its kind, such as 'gpt2', 'bert', 'llama' or 'qwen2', but there is "
            f"none named {config.backbone!r}. Name a kind, or set weights='pretrained'."
        ) from error
    if hasattr(form, "n_inner"):
        form.n_inner = config.feed_forward
    if hasattr(form, "num_key_value_heads"):
        form.num_key_value_heads = config.n_heads
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"):
        if hasattr(form, name):
            setattr(form, name, None if name != "pad_token_id" else 0)
    return _shortened(form, config)


def _shortened(form: Any, config: BackboneConfig) -> Any:
    """A form with the first layers only, and another dropout where one is set."""
    if getattr(form, "is_encoder_decoder", False):
        raise SettingsError(
            f"{config.backbone!r} has an encoder and a decoder, and tokens of a series go through one of them. Take a "
            "network of one part, such as 'gpt2', 'bert', or a Llama or Qwen."
        )
    there = int(form.num_hidden_layers)
    if config.n_layers is not None and config.n_layers > there:
        raise SettingsError(
            f"n_layers={config.n_layers} takes the first layers of {config.backbone!r}, which has {there}. Set "
            f"n_layers={there}, or None for all."
        )
    form.num_hidden_layers = config.n_layers or there
    if isinstance(getattr(form, "layer_types", None), list):
        form.layer_types = form.layer_types[: form.num_hidden_layers]
    for name in _DROPOUTS if config.dropout is not None else ():
        if hasattr(form, name):
            setattr(form, name, config.dropout)
    return form


def _trained(network: nn.Module, train: str) -> frozenset[str]:
    """The names of the parameters that are trained."""
    names = [name for name, _ in network.named_parameters()]
    if train == "full":
        return frozenset(names)
    if train == "lora":
        return frozenset(name for name in names if ".lora_" in name)
    if train == "frozen":
        return frozenset()
    norms = [name for name, one in network.named_modules() if "norm" in type(one).__name__.lower()]
    places = [name for name, one in network.named_modules() if isinstance(one, nn.Embedding) and _tells_place(name)]
    return frozenset(name for name in names if name.rpartition(".")[0] in {*norms, *places})


def _tells_place(name: str) -> bool:
    last = name.rpartition(".")[2]
    return last == "wpe" or "position" in last


def _add_lora(network: nn.Module, config: BackboneConfig) -> None:
    """Put a pair of low-rank factors beside every linear map, in place: Hu et al., LoRA, arXiv 2106.09685."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingExtraError(
            "train='lora' needs peft, which is not installed. Run: pip install 'prismts[adapt]'"
        ) from error
    maps = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
    ]
    turned = any(type(module).__name__ == "Conv1D" for module in network.modules())  # GPT-2 stores its maps transposed
    lora = LoraConfig(
        r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules=maps, fan_in_fan_out=turned  # type: ignore[arg-type]
    )  # fmt: skip
    inject_adapter_in_model(lora, network)
