"""ConvTimeNet: deformable patches and a deep hierarchy of depthwise convolutions with growing kernels.

Source: Cheng, Yang, Pan, Liu, Li, Wang, "ConvTimeNet: A Deep Hierarchical Fully Convolutional Model for Multivariate
Time Series Analysis", arXiv 2403.01493, and the authors' code at commit 5132152. Where we differ from it:

- evaluation never changes weights: kernels merge once, on request, into a new model;
- a predicted patch can neither be NaN nor leave the window;
- windows whose padded length is no whole number of strides are sampled where the patches lie (the authors' bounds are
  then stretched by the ratio of two lengths);
- the deformable predictor starts at zero in its last layer only, so that it can learn (see ``DePatch``);
- unobserved points are bridged by straight lines and marked, instead of read as zeros;
- with mixed channels, a window ends with its last observed step: what lies behind changes no token before it.

Until August 2025 the authors' forecasting blocks computed the feed-forward pair and returned the state from before it,
so the published forecasting numbers belong to blocks without it: that form is ``feed_forward=0`` here.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from prismts.errors import SettingsError, unknown_name
from prismts.layers.batch_norm import BatchNorm
from prismts.layers.convolve import DepthwiseConv, TwoKernelConv, conv_depthwise
from prismts.layers.dropout import Dropout
from prismts.layers.features import Features
from prismts.layers.fused_conv import fused_conv_branch, worth_fusing
from prismts.layers.heads import FlattenHead, PoolHead
from prismts.layers.missing import bridge
from prismts.layers.normalize import InstanceNorm, Stats
from prismts.layers.patch import DePatch, PatchBounds, UniformPatch, n_patches_within, pad_end
from prismts.layers.paths import worth_slicing
from prismts.layers.residual import conv_branch, pair_branch
from prismts.models.contract import Encoder
from prismts.ranges import expect_numbers, expect_shares
from prismts.shapes import expect

__all__ = ["Block", "ConvTimeNet", "ConvTimeNetConfig", "from_reference"]

_CACHED = 2**18  # values that go through all blocks at once in evaluation
_CHOICES = {
    "patches": ("deformable", "uniform", "points"), "norm": ("batch", "layer"), "channels": ("independent", "mixed"),
    "zero_init": ("last", "all", "none"),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ConvTimeNetConfig:
    """Settings of the encoder; lengths in time steps, kernels in tokens."""

    patch_length: int = 32
    stride: int = 16
    patches: Literal["deformable", "uniform", "points"] = "deformable"  # points: every time step is a token
    width: int = 64
    feed_forward: int = 256  # width inside the pointwise pair; 0 leaves the pair out
    kernel_sizes: tuple[int, ...] = (9, 11, 15, 21, 29, 39)  # one large kernel per block
    small_kernel: int = 3  # beside each large one; 0 for none
    dropout: float = 0.1
    residual: float | None = 1e-8  # learned weight of each branch at the start; None fixes it at 1
    skip: bool = True  # a branch is added to what it read; False: it takes its place, and residual says nothing
    norm: Literal["batch", "layer"] = "batch"
    channels: Literal["independent", "mixed"] = "independent"
    zero_init: Literal["last", "all", "none"] = "last"  # of the patch predictor, see DePatch

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known)
        if not self.kernel_sizes or min(self.kernel_sizes) < 1:
            raise SettingsError(f"kernel_sizes names one large kernel per block, but got {self.kernel_sizes}.")
        if min(self.patch_length, self.stride, self.width) < 1 or min(self.feed_forward, self.small_kernel) < 0:
            raise SettingsError(
                "patch_length, stride and width are at least 1; feed_forward and small_kernel are not negative."
            )
        if self.patches == "deformable" and self.patch_length < 2:
            raise SettingsError("A deformable patch needs patch_length >= 2; use patches='points' for single points.")
        expect_shares(self, "dropout")
        expect_numbers(self, or_none=("residual",))
        object.__setattr__(self, "kernel_sizes", tuple(self.kernel_sizes))

    def n_padding(self, n_timepoints: int) -> int:
        """Steps added at the end: one stride where channels are independent, else what completes one more patch."""
        length, stride = self._patch()
        if self.patches == "points":
            return 0
        if self.channels == "independent":
            return stride
        whole = max(0, (n_timepoints - length) // stride + 1)
        return whole * stride + length - n_timepoints

    def n_tokens(self, n_timepoints: int) -> int:
        """N for windows of this length."""
        length, stride = self._patch()
        return n_patches_within(n_timepoints, length, stride, padding=self.n_padding(n_timepoints))

    def _patch(self) -> tuple[int, int]:
        return (1, 1) if self.patches == "points" else (self.patch_length, self.stride)


class LayerNorm(nn.LayerNorm):
    """Layer normalization of [D, M, N] over the width."""

    def forward(self, input: Tensor, kept: Tensor | None = None) -> Tensor:
        """[D, M, N] to the same; tokens that ``kept`` [M, N] leaves out become 0."""
        y = super().forward(input.permute(1, 2, 0)).permute(2, 0, 1)
        return y if kept is None else y.masked_fill(~kept, 0.0)


class Residual(nn.Module):
    """x + dropout(alpha * y), with alpha learned from almost nothing, so that a deep stack begins as the identity.

    Without ``skip`` it is dropout(y), the stack without residuals that the others are compared with.
    """

    def __init__(self, start: float | None, dropout: float, *, skip: bool = True) -> None:
        super().__init__()
        self.alpha = None if start is None or not skip else nn.Parameter(torch.tensor(start))
        self.skip = skip
        self.dropout = Dropout(dropout)

    @property
    def rate(self) -> float:
        """The share that is dropped now: none in evaluation."""
        return self.dropout.rate

    @property
    def weight(self) -> float:
        """Alpha as a number; 1 where it is not learned."""
        return 1.0 if self.alpha is None else float(self.alpha.detach())

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Two of the same shape to that shape."""
        branch = self.dropout(y if self.alpha is None else self.alpha * y)
        return x + branch if self.skip else branch


class FeedForward(nn.Module):
    """The pointwise pair over the width: D -> F -> D at every token."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.rise = nn.Linear(width, hidden)
        self.fall = nn.Linear(hidden, width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[D, M, N] to the same; with the width first, each map is one product over all tokens."""
        flat = x.flatten(1)  # [D, M*N]
        hidden = self.dropout(F.gelu(torch.addmm(self.rise.bias[:, None], self.rise.weight, flat)))  # [F, M*N]
        return torch.addmm(self.fall.bias[:, None], self.fall.weight, hidden).view_as(x)


class Block(nn.Module):
    """Depthwise over tokens, then pointwise over width, each with its learned residual weight and a norm."""

    def __init__(self, config: ConvTimeNetConfig, kernel_size: int) -> None:
        super().__init__()
        norm = BatchNorm if config.norm == "batch" else LayerNorm
        self.conv: TwoKernelConv | DepthwiseConv = (
            TwoKernelConv(config.width, kernel_size, config.small_kernel)
            if config.small_kernel
            else DepthwiseConv(config.width, kernel_size)
        )
        self.join_conv = Residual(config.residual, config.dropout, skip=config.skip)
        self.norm_conv = norm(config.width)
        if config.feed_forward:
            self.feed_forward = FeedForward(config.width, config.feed_forward, config.dropout)
            self.join_forward = Residual(config.residual, config.dropout, skip=config.skip)
            self.norm_forward = norm(config.width)
        else:
            self.feed_forward = None

    @property
    def alphas(self) -> dict[str, float]:
        """The learned residual weights, of the convolution and of the pointwise pair."""
        joins = {"convolution": self.join_conv, "feed-forward": getattr(self, "join_forward", None)}
        return {name: join.weight for name, join in joins.items() if join is not None}

    def merged(self) -> nn.Module:
        """The same block for inference; this one is left as it is."""
        if isinstance(self.norm_conv, nn.BatchNorm1d):
            return FoldedBlock(self).train(self.training)
        block = copy.deepcopy(self)
        if isinstance(self.conv, TwoKernelConv):
            block.conv = self.conv.merged()
        return block

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """[D, M, N] to [D, M, N]; tokens that ``kept`` [M, N] leaves out are 0 before and after."""
        norm, join = self.norm_conv, self.join_conv
        sliced = join.skip and worth_slicing(x)  # both fast forms add what they read
        if join.skip and worth_fusing(x):
            x = norm(fused_conv_branch(x, *self.conv.kernel(), join.alpha, join.rate), kept)
        elif sliced and isinstance(norm, BatchNorm) and norm.measures(x, kept):
            x = conv_branch(x, *self.conv.kernel(), join.alpha, join.rate, norm)
        elif sliced:
            x = norm(conv_branch(x, *self.conv.kernel(), join.alpha, join.rate), kept)
        else:
            x = norm(join(x, F.gelu(self.conv(x))), kept)
        if self.feed_forward is None:
            return x
        if sliced:
            pair, join = self.feed_forward, self.join_forward
            rise, fall = (pair.rise.weight, pair.rise.bias), (pair.fall.weight, pair.fall.bias)
            mixed = pair_branch(x.flatten(1), rise, fall, join.alpha, pair.dropout.rate, join.rate).view_as(x)
        else:
            mixed = self.join_forward(x, self.feed_forward(x))
        return self.norm_forward(mixed, kept)


class FoldedBlock(nn.Module):
    """A block for inference: one kernel; norms and residual weights are folded into what stands beside them.

    With the norms as s x + t, a block is u = s1 x + s1 alpha1 gelu(conv x) + t1, then s2 u + W gelu(rise u) + t, where
    W = s2 alpha2 fall; without residuals s1 x and s2 u are left out.
    """

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.alphas = block.alphas
        kernel, bias = block.conv.kernel()
        self.kernel, self.bias = _fixed(kernel), _fixed(bias)
        scale, shift = _affine(block.norm_conv)
        skip = float(block.join_conv.skip)
        self.keep = _fixed(scale[:, None] * skip)  # [D, 1], as the following
        self.take = _fixed(scale[:, None] * block.join_conv.weight)
        self.shift = _fixed(shift[:, None])
        self.has_pair = block.feed_forward is not None
        if block.feed_forward is not None:
            pair, weight = block.feed_forward, block.join_forward.weight
            scale, shift = _affine(block.norm_forward)
            self.rise, self.rise_bias = _fixed(pair.rise.weight), _fixed(pair.rise.bias[:, None])
            self.fall = _fixed(scale[:, None] * weight * pair.fall.weight)
            self.keep_pair = _fixed(scale[:, None] * skip)
            self.shift_pair = _fixed((scale * weight * pair.fall.bias + shift)[:, None])

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """As the block's in evaluation."""
        y = F.gelu(conv_depthwise(x, self.kernel, self.bias)).flatten(1)  # [D, M*N]
        u = torch.addcmul(torch.addcmul(self.shift, x.flatten(1), self.keep), y, self.take)
        if kept is not None:
            u = u.masked_fill(~kept.flatten(), 0.0)
        if self.has_pair:
            hidden = F.gelu(torch.addmm(self.rise_bias, self.rise, u))
            u = torch.addmm(torch.addcmul(self.shift_pair, u, self.keep_pair), self.fall, hidden)
            if kept is not None:
                u = u.masked_fill(~kept.flatten(), 0.0)
        return u.view_as(x)


def _fixed(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach().clone(), requires_grad=False)


def _affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Batch normalization in evaluation as scale and shift, both [D]; computed in double precision."""
    assert isinstance(norm, BatchNorm) and norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() - scale * norm.running_mean.double()
    return scale.to(norm.weight.dtype), shift.to(norm.weight.dtype)


class ConvTimeNet(Encoder):
    """normalize -> pad -> patch -> embed -> blocks -> head."""

    def __init__(self, config: ConvTimeNetConfig, *, n_channels: int, context_length: int) -> None:
        super().__init__()
        self.config, self.context_length, self.width = config, context_length, config.width
        self.mixed = config.channels == "mixed"
        self.n_channels = n_channels if self.mixed else None
        self.n_groups_of = "window" if self.mixed else "channels"
        self.heeds_end = self.mixed
        self.n_tokens = config.n_tokens(context_length)
        together = n_channels if self.mixed else 1
        length, stride = (1, 1) if config.patches == "points" else (config.patch_length, config.stride)
        self.patch_length, self.stride = length, stride
        self.normalize = None if self.mixed else InstanceNorm()
        self.patch: UniformPatch | DePatch = (
            DePatch(length, stride, n_channels=together, zero_init=config.zero_init)
            if config.patches == "deformable"
            else UniformPatch(length, stride)
        )
        self.embed = nn.Linear(together * length, config.width)
        self.norm_embed = BatchNorm(config.width) if self.mixed else None
        self.blocks = nn.ModuleList(Block(config, kernel_size) for kernel_size in config.kernel_sizes)
        self.head = nn.Identity()

    def encode(self, x: Tensor, observed: Tensor | None = None) -> Features:
        """[B, C, T] to tokens [B, G, N, D]."""
        expect(x, "B C T", who="ConvTimeNet", C=self.n_channels)
        batch = x.shape[0]  # not len(x), which would fix the batch size of an exported model
        window, stats, end = self._read(x, observed)
        x = self.patch(self._padded(window, end), None if end is None else end.last)  # [B, C, N, P]
        n_tokens = x.shape[2]
        rows = rearrange(x, "b c n p -> (b n) (c p)" if self.mixed else "b c n p -> (b c n) p")
        x = torch.addmm(self.embed.bias[:, None], self.embed.weight, rows.T)  # [D, B*G*N], written as it is read next
        x = x.unflatten(1, (-1, n_tokens))  # [D, B*G, N]
        kept = None if end is None else end.kept
        if self.norm_embed is not None:
            x = self.norm_embed(F.gelu(x), kept)
        x = self._through_blocks(x, kept)
        tokens = rearrange(x, "d (b g) n -> b g n d", b=batch)
        return Features(tokens, self._valid(tokens, observed, end), window, stats)

    def _through_blocks(self, x: Tensor, kept: Tensor | None) -> Tensor:
        """[D, M, N] to the same; in evaluation on a CPU some rows after the others, so that they stay in its cache."""
        n_rows = max(1, _CACHED // (x.shape[-1] * self.width))
        if self.training or torch.is_grad_enabled() or torch.compiler.is_compiling() or x.device.type != "cpu":
            n_rows = x.shape[1]
        if n_rows >= x.shape[1]:
            for block in self.blocks:
                x = block(x, kept)
            return x
        parts: list[Tensor] = []
        for begin in range(0, x.shape[1], n_rows):
            part, rows = x[:, begin : begin + n_rows], None if kept is None else kept[begin : begin + n_rows]
            for block in self.blocks:
                part = block(part, rows)
            parts.append(part)
        return torch.cat(parts, dim=1)

    def bounds(self, x: Tensor, observed: Tensor | None = None) -> PatchBounds:
        """Where the patches of the windows x [B, C, T] lie, in steps; what the report draws."""
        window, _, end = self._read(x, observed)
        return self.patch.bounds(self._padded(window, end), None if end is None else end.last)

    def residual_weights(self) -> list[dict[str, float]]:
        """The learned residual weights alpha of each block: of its convolution and of its pointwise pair."""
        return [block.alphas for block in self.blocks if isinstance(block, Block | FoldedBlock)]

    def _read(self, x: Tensor, observed: Tensor | None) -> tuple[Tensor, Stats, _End | None]:
        """The normalized window without gaps [B, C, T], what normalization took away, and where the window ends."""
        if self.normalize is not None:
            x, stats = self.normalize(x, observed)
            return bridge(x, observed), stats, None
        one = torch.ones_like(x[..., :1])
        stats = Stats(torch.zeros_like(one), one)
        if observed is None:
            return x, stats, None
        step = torch.arange(1, x.shape[-1] + 1, device=x.device)
        end = (observed.any(1) * step).amax(-1, keepdim=True)  # [B, 1] steps up to the last observed one
        # the tokens of the window without what lies behind its end, as n_tokens counts them
        n_tokens = ((end - self.patch_length) // self.stride + 1).clamp(min=0) + 1  # [B, 1]
        token = torch.arange(self.config.n_tokens(x.shape[-1]), device=x.device)
        window = bridge(x.masked_fill(~observed, 0.0), observed)
        last = (n_tokens - 1) * self.stride + self.patch_length - 1  # last step of the last token, padding included
        if self.config.patches == "points":
            n_tokens, last = end, end - 1
        return window, stats, _End(end, token < n_tokens, last[..., None])

    def _padded(self, window: Tensor, end: _End | None) -> Tensor:
        padding = self.config.n_padding(window.shape[-1])
        if not self.mixed:
            return pad_end(window, padding)
        if end is not None:
            step = torch.arange(window.shape[-1], device=window.device)
            window = window.masked_fill((step >= end.n_steps)[:, None], 0.0)  # as the padding behind it
        return F.pad(window, (0, padding))

    def _valid(self, tokens: Tensor, observed: Tensor | None, end: _End | None) -> Tensor:
        if observed is None:
            return torch.ones(tokens.shape[:3], dtype=torch.bool, device=tokens.device)
        padding = self.config.n_padding(observed.shape[-1])
        if end is None:
            seen = pad_end(observed, padding)  # what repeats an observed point counts as observed, as without a mask
            return seen.unfold(-1, self.patch_length, self.stride).any(-1)  # [B, G, N]
        seen = pad_end(observed.any(1), padding)  # [B, T]
        step = torch.arange(seen.shape[-1], device=seen.device)
        seen = (seen | (step >= end.n_steps)) & (end.n_steps > 0)  # the same for the padding behind the end
        seen = seen.unfold(-1, self.patch_length, self.stride).any(-1)
        return (seen & end.kept)[:, None]  # [B, 1, N]


class _End(NamedTuple):
    """Where each window of a batch ends."""

    n_steps: Tensor  # [B, 1] up to the last observed one
    kept: Tensor  # [B, N] tokens that begin before the end, or complete the last patch
    last: Tensor  # [B, 1, 1] last step that those tokens cover


def from_reference(config: Mapping[str, Any] | str, state: Mapping[str, NDArray[Any]]) -> nn.Module:
    """Our model with the authors' weights: ``state`` maps their parameter names to arrays.

    ``config`` (a mapping, or its JSON text) holds n_channels, patch_length, stride, d_model, d_ff, kernel_sizes,
    small_kernel, and either context_length and horizon (the forecasting form) or n_timepoints, n_classes and pooling
    (the classification form). The model is returned in evaluation mode and answers [B, C, H] or [B, K].
    """
    config = cast(Mapping[str, Any], json.loads(config) if isinstance(config, str) else config)
    classify = "n_classes" in config
    prefix = "main_net." if classify else "backbone."
    settings = ConvTimeNetConfig(
        patch_length=config["patch_length"],
        stride=config["stride"],
        width=config["d_model"],
        feed_forward=config["d_ff"],
        kernel_sizes=tuple(config["kernel_sizes"]),
        small_kernel=config["small_kernel"],
        channels="mixed" if classify else "independent",
    )
    length = config["n_timepoints" if classify else "context_length"]
    model = ConvTimeNet(settings, n_channels=config["n_channels"], context_length=length)
    patch = "depatchEmbedding." if classify else "deformable_sampling."
    names = {
        f"{patch}offset_predictor.offset_predictor.0.": "patch.look.",
        f"{patch}offset_predictor.offset_predictor.2.": "patch.move.",
    }
    if classify:
        names |= {"depatchEmbedding.output_conv.": "embed.", "depatchEmbedding.norm.": "norm_embed."}
        names |= {"main_net.head.2.": "head.linear."}
        model.head = PoolHead(model.width, config["n_classes"], pooling=config["pooling"])
    else:
        names |= {"backbone.W_P.": "embed.", "head.linear.": "head.linear."}
        model.head = FlattenHead(model.width, model.n_tokens, config["horizon"])
    inside = {
        "DW_conv_large.": "conv.long.", "DW_conv_small.": "conv.short.", "sublayerconnect1.a": "join_conv.alpha",
        "dw_norm.": "norm_conv.", "ff.0.": "feed_forward.rise.", "ff.3.": "feed_forward.fall.",
        "sublayerconnect2.a": "join_forward.alpha", "norm_ffn.": "norm_forward.",
    }  # fmt: skip
    for i in range(len(settings.kernel_sizes)):
        names |= {f"{prefix}encoder.layers.{i}.{theirs}": f"blocks.{i}.{ours}" for theirs, ours in inside.items()}
    ours = model.state_dict()
    loaded: dict[str, Tensor] = {}
    for name, array in state.items():
        match = next((theirs for theirs in names if name.startswith(theirs)), None)
        if match is None:
            # the anchors are computed; the classification form's W_P is allocated but never used by the authors
            continue
        target = names[match] + name[len(match) :]
        value = torch.from_numpy(np.array(array))
        if classify and target == "embed.weight":
            # their patches reach this layer step by step, not channel by channel, though its shape says otherwise
            value = rearrange(value.flatten(1), "d (p c) -> d (c p)", c=config["n_channels"])
        loaded[target] = value.reshape(ours[target].shape)
    missing = sorted(set(ours) - set(loaded))
    if missing:
        raise SettingsError(f"The authors' weights lack what becomes {missing[0]!r} here ({len(missing)} in all).")
    model.load_state_dict(loaded)
    return model.eval()
