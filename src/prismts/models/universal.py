"""The universal encoder: one set of weights for windows of any length and any number of channels.

normalize -> patches of several lengths -> spectrum -> (channels exchange -> block) x L -> head. Every part can be
switched off, and each switch is an ablation:

- ``normalize``: each window in its own level and scale (``InstanceNorm``);
- ``patch_lengths``, ``patches``: one length or several, fused to one grid of tokens by a choice learned for every token
  (``MultiScalePatch``); deformable (``DePatch`` of ConvTimeNet) or uniform;
- ``n_bands``: the spectrum of the window, told to its tokens (``SpectrumBranch``); 0 leaves it out;
- ``exchange``: channels tell each other what they show at the same token, from behind the patches on and before every
  block (``ChannelExchange``). ConvTimeNet does not have this: its channels are either apart or, with weights for each,
  bound to their number. A single channel leaves exactly as it came;
- ``gaps``: "carried": bridged by straight lines, and tokens carry how much of them was observed; "bridged": as if it
  had been measured so; "masked": zero, the mean of the window, with the shares carried;
- ``backbone``: "convtimenet", its blocks of depthwise convolutions, or "transformer", those of PatchTST;
- ``norm`` behind each branch of a ConvTimeNet block: "layer", so that what a window becomes does not depend on the
  others of its batch, or "batch" as in the paper, whose remembered statistics are a mixture of all tasks that train
  together and fit none of them (docs/log.md).

No layer is bound to a number of steps or channels: only the head of a task may be. Positions of the transformer are
sines of the distance to the end of the window, not learned, so that windows of any length have them.

Times: ``encode(x, observed, times)`` reads measurements taken at any moment. Patches then cover spans of time, points
are interpolated between observed neighbors only, and the bias of every token's embedding counts by how much of it was
observed. With times 0, 1, 2 ... the tokens are those without times.

Channels that exchange: training and prediction read a wide table in groups of channels (``channels_at_once`` of
``FitConfig``). A group is what the encoder sees: channels exchange within it, and in prediction the groups are those of
training, so that a channel meets the same partners. Who wants all channels of a wide table to meet sets
``channels_at_once`` to their number.

Sources: Cheng et al., ConvTimeNet, arXiv 2403.01493; Nie et al., PatchTST, ICLR 2023; Liu et al., iTransformer, ICLR
2024 (attention over channels); Perez et al., FiLM, AAAI 2018. How they are joined is ours.

Parameters with width D, hidden width F, patches of P1 ... PS steps, K bands, L blocks: patches D * (P1 + ... + PS) +
2 * S * D (one length: without the second S * D of the choice), deformable ones 64 * (P + 3) + 2 each besides; spectrum
K * D + D + 2 * D * D + 2 * D; each exchange 4 * D * D + 2 * D; the blocks as in their papers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from prismts.errors import SettingsError, ShapeError, unknown_name
from prismts.layers.dropout import Dropout
from prismts.layers.exchange import ChannelExchange
from prismts.layers.features import Features
from prismts.layers.instants import read_at
from prismts.layers.missing import bridge
from prismts.layers.multiscale import MultiScalePatch, Points
from prismts.layers.normalize import InstanceNorm, Stats
from prismts.layers.patch import PatchBounds
from prismts.layers.spectral import SpectrumBranch
from prismts.models import convtimenet, patchtst
from prismts.models.contract import Encoder
from prismts.ranges import expect_counts, expect_heads, expect_numbers
from prismts.shapes import expect

__all__ = ["UniversalEncoder", "UniversalEncoderConfig"]

_CHOICES = {
    "patches": ("deformable", "uniform"), "gaps": ("carried", "bridged", "masked"),
    "backbone": ("convtimenet", "transformer"),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class UniversalEncoderConfig:
    """Settings of the encoder; lengths in time steps, kernels in tokens."""

    patch_lengths: tuple[int, ...] = (16, 32, 64)  # rising; tokens are those of the first
    stride: int = 16
    patches: Literal["deformable", "uniform"] = "deformable"
    normalize: bool = True
    n_bands: int = 8  # of frequency; 0 leaves the spectrum out
    exchange: bool = True  # between channels
    gaps: Literal["carried", "bridged", "masked"] = "carried"
    backbone: Literal["convtimenet", "transformer"] = "convtimenet"
    width: int = 64
    feed_forward: int = 128  # width inside the pointwise pair
    n_heads: int = 4  # of the attention over channels, and over tokens in the transformer
    kernel_sizes: tuple[int, ...] = (7, 13, 19)  # convtimenet: one large kernel per block
    small_kernel: int = 3  # convtimenet: beside each large one; 0 for none
    residual: float | None = 1e-8  # convtimenet: learned weight of each branch at the start; None fixes it at 1
    norm: Literal["batch", "layer"] = "layer"  # convtimenet: behind each branch; batches of several tasks differ
    n_layers: int = 3  # transformer
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known)
        lengths = tuple(self.patch_lengths)
        if not lengths or min(lengths) < 1 or list(lengths) != sorted(set(lengths)):
            raise SettingsError(
                f"patch_lengths names rising lengths in time steps, such as (16, 32), but got {lengths}."
            )
        if self.patches == "deformable" and lengths[0] < 2:
            raise SettingsError(f"A deformable patch has 2 steps or more, but patch_lengths is {lengths}.")
        expect_counts(self, "stride")
        if self.n_bands == 1 or self.n_bands < 0:
            raise SettingsError(f"n_bands shares the spectrum out among 2 bands or more, or 0, but got {self.n_bands}.")
        object.__setattr__(self, "patch_lengths", lengths)
        object.__setattr__(self, "kernel_sizes", tuple(self.kernel_sizes))
        expect_heads(self.width, self.n_heads)
        expect_numbers(self, or_none=("residual",))
        self.blocks()  # checks the rest

    @property
    def patch_length(self) -> int:
        """Steps that a token covers: those of the shortest patch."""
        return self.patch_lengths[0]

    def blocks(self) -> convtimenet.ConvTimeNetConfig | patchtst.PatchTSTConfig:
        """Settings of the backbone's blocks, in the words of their own paper."""
        if self.backbone == "convtimenet":
            return convtimenet.ConvTimeNetConfig(
                width=self.width, feed_forward=self.feed_forward, kernel_sizes=self.kernel_sizes,
                small_kernel=self.small_kernel, residual=self.residual, norm=self.norm, dropout=self.dropout,
            )  # fmt: skip
        return patchtst.PatchTSTConfig(
            width=self.width, feed_forward=self.feed_forward, n_heads=self.n_heads, n_layers=self.n_layers,
            dropout=self.dropout,
        )  # fmt: skip


class UniversalEncoder(Encoder):
    """normalize -> patches of several lengths -> spectrum -> (exchange -> block) x L -> head; see the file's head."""

    n_groups_of = "channels"
    reads_times = True  # encode and forward take the times of the measurements

    def __init__(self, config: UniversalEncoderConfig, *, n_channels: int = 1, context_length: int) -> None:
        super().__init__()
        self.config, self.context_length, self.width = config, context_length, config.width
        self.patch_length, self.stride = config.patch_lengths[0], config.stride
        self.normalize = InstanceNorm() if config.normalize else None
        self.patch = MultiScalePatch(
            config.patch_lengths, config.stride, config.width, deformable=config.patches == "deformable"
        )
        self.n_tokens = self.patch.n_tokens(context_length)
        self.spectrum = SpectrumBranch(config.n_bands, config.width) if config.n_bands else None
        inner = config.blocks()
        if isinstance(inner, convtimenet.ConvTimeNetConfig):
            self.place = None
            self.blocks = nn.ModuleList(convtimenet.Block(inner, size) for size in inner.kernel_sizes)
        else:
            self.place = nn.Parameter(torch.tensor(0.1))  # loudness of the positions
            self.blocks = nn.ModuleList(patchtst.Block(inner) for _ in range(inner.n_layers))
        self.exchange = (
            nn.ModuleList(ChannelExchange(config.width, config.n_heads) for _ in self.blocks)
            if config.exchange
            else None
        )
        self.dropout = Dropout(config.dropout)
        self.head = nn.Identity()

    @property
    def exchanges(self) -> bool:
        """Whether what is said of a channel depends on the channels beside it."""
        return self.exchange is not None

    def encode(
        self, x: Tensor, observed: Tensor | None = None, times: Tensor | None = None, *, exchange: bool = True
    ) -> Features:
        """[B, C, T] to tokens [B, C, N, D]; any T, any C.

        ``times`` [B, R] are the moments of the rows of x [B, C, R], in steps since the first step of the window, which
        then has ``context_length`` steps however many rows there are; rows outside of it must be marked as unobserved.
        ``exchange=False`` keeps channels apart in this call, as ``exchange=False`` of the settings does in all.
        """
        expect(x, "B C T", who="UniversalEncoder")
        window, stats, seen, points = self._read(x, observed, times)
        tokens = self.patch(window, seen, points)  # [B, C, N, D]
        if self.spectrum is not None:
            tokens = self.spectrum(tokens, window)
        valid = None if seen is None else self._valid(seen)
        tokens = self.dropout(tokens)
        tokens = self._through(tokens, valid, self.exchange if exchange else None)
        if valid is None:
            valid = torch.ones(tokens.shape[:3], dtype=torch.bool, device=tokens.device)
        return Features(tokens, valid, window, stats)

    def forward(self, x: Tensor, observed: Tensor | None = None, times: Tensor | None = None) -> Tensor:
        """What the head says about the windows x [B, C, T], or about rows at ``times``."""
        return super().forward(x, observed) if times is None else self.head(self.encode(x, observed, times))

    def bounds(self, x: Tensor, observed: Tensor | None = None) -> PatchBounds:
        """Where the shortest patches lie in the windows x [B, C, T], in steps; ``patch.bounds`` tells it of all."""
        return self.patch.bounds(self._read(x, observed, None)[0])[0]

    def _read(
        self, x: Tensor, observed: Tensor | None, times: Tensor | None
    ) -> tuple[Tensor, Stats, Tensor | None, Points | None]:
        """The window on its grid without gaps [B, C, T], what normalization took, the mask, and the measurements."""
        if self.config.gaps != "carried" and times is not None:
            raise SettingsError(f"times are read with gaps='carried', but this encoder has gaps={self.config.gaps!r}.")
        if self.config.gaps == "bridged":
            x, observed = bridge(x, observed), None
        if self.normalize is not None:
            x, stats = self.normalize(x, observed)
        else:
            one = torch.ones_like(x[..., :1])
            stats = Stats(torch.zeros_like(one), one)
        if times is None and self.config.gaps == "masked":
            return x if observed is None else x.masked_fill(~observed, 0.0), stats, observed, None
        if times is None:
            return bridge(x, observed), stats, observed, None
        if times.shape != (x.shape[0], x.shape[2]):
            raise ShapeError(
                f"times say when each row of a window was measured, [batch={x.shape[0]}, row={x.shape[2]}], but got "
                f"shape {list(times.shape)}."
            )
        grid = torch.arange(self.context_length, device=x.device, dtype=x.dtype).expand(*x.shape[:2], -1)
        window, seen = read_at(x, observed, times, grid)
        return window, stats, seen, Points(x, observed, times)

    def _valid(self, seen: Tensor) -> Tensor:
        """Which tokens saw anything of [B, C, T]: [B, C, N]; what fills up the last patch repeats the last step."""
        cut = (self.n_tokens_of(seen.shape[-1]) - 1) * self.stride + self.patch_length - seen.shape[-1]
        last = seen[..., -1:].expand(*seen.shape[:-1], cut)
        return torch.cat([seen, last], dim=-1).unfold(-1, self.patch_length, self.stride).any(-1)

    def n_tokens_of(self, n_timepoints: int) -> int:
        """N for windows of this length."""
        return self.patch.n_tokens(n_timepoints)

    def _through(self, tokens: Tensor, valid: Tensor | None, exchange: nn.ModuleList | None) -> Tensor:
        """[B, C, N, D] through the blocks, channels meeting before each of them."""
        n_channels = tokens.shape[1]
        seen = None if valid is None else valid.flatten(0, 1)  # [B*C, N]
        if self.place is not None:
            tokens = tokens + self.place * _sines(tokens)
        scores: Tensor | None = None
        for i, block in enumerate(self.blocks):
            if exchange is not None:
                tokens = exchange[i](tokens, valid)
            if self.place is None:
                x = block(rearrange(tokens, "b c n d -> d (b c) n"))
                tokens = rearrange(x, "d (b c) n -> b c n d", c=n_channels)
            else:
                x, scores = block(tokens.flatten(0, 1), scores, seen)
                tokens = rearrange(x, "(b c) n d -> b c n d", c=n_channels)
        return tokens


def _sines(tokens: Tensor) -> Tensor:
    """Sines and cosines of the distance of each token to the last one: [N, D], as Vaswani et al., 2017."""
    n, width = tokens.shape[-2:]
    distance = torch.arange(n - 1, -1, -1, device=tokens.device, dtype=tokens.dtype)
    rate = torch.arange((width + 1) // 2, device=tokens.device, dtype=tokens.dtype) * (2 / width)
    angle = distance[:, None] / 10_000**rate  # [N, D/2]
    return torch.cat([angle.sin(), angle.cos()], dim=-1)[:, :width]
