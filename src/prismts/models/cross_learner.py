"""The CNN-GRU cross learner: a path of local shapes and a path of context that correct each other after every block.

Source: the slides "1D CNN-GRU Cross Learning for Multivariate TSF" (Park, System Intelligence Lab, Yonsei University).
They fix the parts and their operation count; the rest is our reading:

- Every block is pre-norm and residual. Layer normalization works token by token, so no statistic of a batch or of other
  tokens enters, in training or after it.
- The message from path a to path b is ``DynamicDepthwise(h_a, kernel from the state of h_b)``: the receiver's state
  makes the kernel. The state of the GRU path is its last token, that of the CNN path the mean of its tokens; with
  ``kernel_per="token"`` it is the token itself. Both messages of a block are made from the states before either is
  heard, and are added with a learned weight alpha that begins small.
- ``fusion="late"`` exchanges once, after the last block, and keeps the attention: the paths meet only at the end.
- ``fusion="none"`` has neither exchange nor attention. The slides average the outputs of the two paths; as the
  forecasting head is linear and shared, the mean of the tokens, which is what this encoder gives, is the same thing.
- Tokens begin at the first step of the window. Where the length is no whole number of patches the last patch is filled
  by repeating the last value, so no observed step is lost and cases of unequal length agree where they overlap. A
  forecaster does best with a ``context_length`` that is a multiple of ``patch_length``.

Steps at the end of which nothing was observed in any channel (the padding of a shorter case) change nothing: the tokens
up to the last observed step are the same with and without them, however many there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prismts.errors import SettingsError, unknown_name
from prismts.layers.cross import AverageMessage, CrossModalAttention, DynamicMessage, FullMessage, StaticMessage
from prismts.layers.dropout import Dropout
from prismts.layers.features import Features
from prismts.layers.missing import bridge
from prismts.layers.normalize import InstanceNorm, Stats
from prismts.layers.patch import pad_end
from prismts.models.contract import Encoder
from prismts.ranges import expect_counts, expect_heads, expect_shares
from prismts.shapes import expect

__all__ = ["HP2", "HP2_CONTEXT_LENGTH", "BlockTrace", "CrossLearner", "CrossLearnerConfig"]

_CHOICES = {
    "exchange": ("both", "gru_to_cnn", "cnn_to_gru", "none"), "fusion": ("layerwise", "late", "none"),
    "kernels": ("dynamic", "static", "ema", "standard"), "kernel_per": ("window", "token"), "front": ("mixing", "lift"),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CrossLearnerConfig:
    """Settings of the encoder; lengths in time steps, kernels in tokens."""

    patch_length: int = 24  # kernel and stride of the mixing convolution; "lift" has no patches
    width: int = 64
    n_blocks: int = 3
    kernel_size: int = 3  # of the CNN path, of the messages and of the lift
    exchange: Literal["both", "gru_to_cnn", "cnn_to_gru", "none"] = "both"
    fusion: Literal["layerwise", "late", "none"] = "layerwise"  # exchange after every block, after the last, never
    kernels: Literal["dynamic", "static", "ema", "standard"] = "dynamic"  # what makes the messages
    kernel_per: Literal["window", "token"] = "window"  # how often dynamic kernels are made
    front: Literal["mixing", "lift"] = "mixing"  # lift: every step is a token, its channels lifted to the width
    n_heads: int = 4  # of the cross-modal attention; the slides do not say
    exchange_weight: float = 0.1  # alpha of every message at the start
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known)
        expect_counts(self, "patch_length", "width", "n_blocks", "kernel_size", "n_heads")
        if self.kernel_size % 2 == 0:
            raise SettingsError(
                f"kernel_size is odd, so that a token stands in the middle of its kernel, but got {self.kernel_size}. "
                f"Use {self.kernel_size - 1} or {self.kernel_size + 1}."
            )
        expect_heads(self.width, self.n_heads)
        if self.fusion == "none" and self.exchange != "none":
            raise SettingsError(
                f"fusion='none' keeps the paths apart, but exchange={self.exchange!r}. Set exchange='none' too."
            )
        if self.fusion == "late" and self.exchange == "none":
            raise SettingsError(
                "fusion='late' exchanges once, after the last block, but exchange='none'. Name a direction, such as "
                "exchange='both'; paths that meet in the attention alone are fusion='layerwise' with exchange='none'."
            )
        if self.kernel_per == "token" and self.kernels != "dynamic":
            raise SettingsError(
                f"kernel_per='token' says how often kernels are generated, but kernels={self.kernels!r} are not. "
                "Use kernels='dynamic' or kernel_per='window'."
            )
        expect_shares(self, "dropout")

    @property
    def token_length(self) -> int:
        """Steps in one token."""
        return self.patch_length if self.front == "mixing" else 1

    def n_tokens(self, n_timepoints: int) -> int:
        """N for windows of this length: the last patch may be filled up."""
        return -(-n_timepoints // self.token_length)


# the setting of the slides' tables; seven channels there (ETT)
HP2 = CrossLearnerConfig(width=256, n_blocks=7, kernel_size=3, patch_length=36)
HP2_CONTEXT_LENGTH = 720


class BlockTrace(NamedTuple):
    """Where the two paths stand after a block, and by what kernels they spoke. N tokens, k taps."""

    cnn: Tensor  # [B, D, N] after the exchange, as the next block reads it
    gru: Tensor  # [B, D, N]
    kernels_to_cnn: Tensor | None  # [B, D, k], or [B, D, N, k] per token; None where none was generated
    kernels_to_gru: Tensor | None


class CnnPath(nn.Module):
    """One step of the path of local shapes; the receptive field grows by k-1 tokens with every one."""

    def __init__(self, width: int, kernel_size: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv1d(width, width, kernel_size, padding="same")
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, alive: Tensor | None = None) -> Tensor:
        """[B, D, N] to the same; tokens that are not ``alive`` [B, N] are read as the zeros around the window."""
        y = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return x + self.dropout(F.gelu(self.conv(_only(y, alive))))

    @staticmethod
    def state(x: Tensor, alive: Tensor | None) -> Tensor:
        """[B, D]: the mean over the tokens that count."""
        if alive is None:
            return x.mean(-1)
        return _only(x, alive).sum(-1) / alive.sum(-1, keepdim=True)


class GruPath(nn.Module):
    """One step of the path of context: what is said of a token follows from it and what came before."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, D, N] to the same; being causal, it needs no mask for what stands at the end."""
        y, _ = self.gru(self.norm(x.transpose(1, 2)))  # [B, N, D]
        return x + self.dropout(y.transpose(1, 2))

    @staticmethod
    def state(x: Tensor, alive: Tensor | None) -> Tensor:
        """[B, D]: the last token that counts."""
        if alive is None:
            return x[..., -1]
        last = alive.sum(-1)[:, None, None] - 1  # [B, 1, 1]
        return x.gather(-1, last.expand(-1, x.shape[1], -1))[..., 0]


class Exchange(nn.Module):
    """What one path hears from the other after a block: h + alpha * message."""

    def __init__(self, config: CrossLearnerConfig) -> None:
        super().__init__()
        width, k = config.width, config.kernel_size
        self.message = {
            "dynamic": lambda: DynamicMessage(width, k),
            "static": lambda: StaticMessage(width, k),
            "ema": AverageMessage,
            "standard": lambda: FullMessage(width, k),
        }[config.kernels]()
        self.alpha = nn.Parameter(torch.tensor(float(config.exchange_weight)))

    def forward(self, receiver: Tensor, sender: Tensor, state: Tensor) -> tuple[Tensor, Tensor | None]:
        """Two [B, D, N] and the receiver's state [B, D] or [B, D, N] to the receiver's next state and the kernels."""
        if isinstance(self.message, DynamicMessage):
            message, kernels = self.message(sender, state)
        else:
            message, kernels = self.message(sender), None
        return receiver + self.alpha * message, kernels


class Block(nn.Module):
    """One step of each path, then what they say to each other; a direction that is switched off has no parameters."""

    def __init__(self, config: CrossLearnerConfig, *, exchanges: bool) -> None:
        super().__init__()
        self.per_token = config.kernel_per == "token"
        self.cnn = CnnPath(config.width, config.kernel_size, config.dropout)
        self.gru = GruPath(config.width, config.dropout)
        self.to_cnn = Exchange(config) if exchanges and config.exchange in ("both", "gru_to_cnn") else None
        self.to_gru = Exchange(config) if exchanges and config.exchange in ("both", "cnn_to_gru") else None

    def forward(self, cnn: Tensor, gru: Tensor, alive: Tensor | None = None) -> BlockTrace:
        """Both paths [B, D, N] to both after this block; messages are made from the states before either is heard."""
        cnn, gru = self.cnn(cnn, alive), self.gru(gru)
        next_cnn, next_gru, kernels_to_cnn, kernels_to_gru = cnn, gru, None, None
        if self.to_cnn is not None:
            state = cnn if self.per_token else CnnPath.state(cnn, alive)
            next_cnn, kernels_to_cnn = self.to_cnn(cnn, _only(gru, alive), state)
        if self.to_gru is not None:
            state = gru if self.per_token else GruPath.state(gru, alive)
            next_gru, kernels_to_gru = self.to_gru(gru, _only(cnn, alive), state)
        return BlockTrace(next_cnn, next_gru, kernels_to_cnn, kernels_to_gru)


class CrossLearner(Encoder):
    """normalize -> mixing convolution -> blocks of two paths -> cross-modal attention -> head.

    The tokens it gives are the GRU path after the last block plus what its queries find in the CNN path; with
    ``fusion="none"``, the mean of the two paths. All channels share them (G = 1).
    """

    heeds_end = True

    n_groups_of = "window"
    stacks = False  # torch cannot stack the weights of a GRU

    def __init__(self, config: CrossLearnerConfig, *, n_channels: int, context_length: int) -> None:
        super().__init__()
        if config.front == "mixing" and context_length < config.patch_length:
            raise SettingsError(
                f"A window of {context_length} steps is shorter than a patch of {config.patch_length}. Shorten "
                "patch_length, or lengthen context_length."
            )
        self.config, self.context_length, self.width = config, context_length, config.width
        self.n_channels = n_channels
        self.n_tokens = config.n_tokens(context_length)
        self.patch_length = self.stride = config.token_length
        self.normalize = InstanceNorm()
        self.front = (
            nn.Conv1d(n_channels, config.width, config.patch_length, stride=config.patch_length)
            if config.front == "mixing"
            else nn.Conv1d(n_channels, config.width, config.kernel_size, padding="same")
        )
        last = config.n_blocks - 1
        self.blocks = nn.ModuleList(
            Block(config, exchanges=config.fusion == "layerwise" or (config.fusion == "late" and i == last))
            for i in range(config.n_blocks)
        )
        self.attention = None if config.fusion == "none" else CrossModalAttention(config.width, config.n_heads)
        self.dropout = Dropout(config.dropout)
        self.head = nn.Identity()

    def encode(self, x: Tensor, observed: Tensor | None = None) -> Features:
        """[B, C, T] to tokens [B, 1, N, D]; tokens after the last observed step are zero, and not valid."""
        window, stats = self._window(x, observed)
        seen, alive = self._seen(observed)
        last = self._through(window, alive)[-1]
        if self.attention is None:
            tokens = (last.cnn + last.gru) / 2
        else:
            tokens = last.gru + self.dropout(self.attention(last.gru, last.cnn, alive))
        tokens = _only(tokens, alive).transpose(1, 2)[:, None]  # [B, 1, N, D]
        if seen is None:
            seen = torch.ones(tokens.shape[0], tokens.shape[2], dtype=torch.bool, device=tokens.device)
        return Features(tokens, seen[:, None], window, stats)

    def trace(self, x: Tensor, observed: Tensor | None = None) -> list[BlockTrace]:
        """Both paths after every block, and the kernels by which they spoke, for the windows x [B, C, T]."""
        return self._through(self._window(x, observed)[0], self._seen(observed)[1])

    def _window(self, x: Tensor, observed: Tensor | None) -> tuple[Tensor, Stats]:
        expect(x, "B C T", who="CrossLearner", C=self.n_channels)
        x, stats = self.normalize(x, observed)
        return bridge(x, observed), stats

    def _through(self, window: Tensor, alive: Tensor | None) -> list[BlockTrace]:
        """Both paths after every block: the last is what the encoder goes on with."""
        length = self.config.token_length
        x = pad_end(window, self.config.n_tokens(window.shape[-1]) * length - window.shape[-1])
        if self.config.front == "lift":
            x = _only(x, alive)  # its kernel reads over the edge of a token, a patch's does not
        cnn = gru = self.front(x)  # [B, D, N]
        traces: list[BlockTrace] = []
        for block in self.blocks:
            traces.append(cast(BlockTrace, block(cnn, gru, alive)))
            cnn, gru = traces[-1].cnn, traces[-1].gru
        return traces

    def _seen(self, observed: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Which tokens saw anything, and which stand at or before the last that did, each [B, N]; None for all.

        A hole in the middle is bridged and read on like measured values. In a window that saw nothing the first token
        stands for all.
        """
        if observed is None:
            return None, None
        length, n_timepoints = self.config.token_length, observed.shape[-1]
        seen = F.pad(observed.any(1), (0, self.config.n_tokens(n_timepoints) * length - n_timepoints))
        seen = seen.unflatten(-1, (-1, length)).any(-1)  # [B, N]
        to_come = seen.flip(-1).cumsum(-1).flip(-1)
        first = torch.arange(seen.shape[-1], device=seen.device) == 0
        return seen, (to_come > 0) | first


def _only(x: Tensor, alive: Tensor | None) -> Tensor:
    """X [B, D, N] with zeros where a token is not alive [B, N]."""
    return x if alive is None else x.masked_fill(~alive[:, None], 0.0)
