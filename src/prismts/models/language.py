"""GPT4TS: patches of a series read by a pretrained language model; and the form that every such model here shares.

Source: Zhou, Niu, Wang, Sun, Jin, "One Fits All: Power General Time Series Analysis by Pretrained LM", NeurIPS 2023,
arXiv 2302.11939, and the authors' code (DAMO-DI-ML/NeurIPS2023-One-Fits-All at 9f3875d): each channel by itself is
normalized, cut into patches of 16 every 8 steps with one stride more at the end, mapped linearly to the width of GPT-2
and read by its first 6 layers, of which the norms and the positions are trained and attention and feed-forward are
not. All tokens go to the future in one linear map. That is the default here. Where we differ from the authors' code:

- gaps are bridged by straight lines, and tokens that saw nothing are read by no other;
- classes, hidden points and anomalies are told by the heads of every other model here, from the same tokens; the
  authors have a model for each task, and classify from patches of all channels at once;
- the rate of learning falls on a cosine over the epochs there are (theirs over 20 of which they run 10);
- the network is any transformer of ``transformers`` that reads embeddings, causal or not, and patches may be
  deformable (``DePatch``) or of several sizes.

**Does the language model help?** Tan, Merrill, Gupta, Althoff, Hartvigsen, "Are Language Models Actually Useful for
Time Series Forecasting?", NeurIPS 2024, arXiv 2406.16964, took it out of GPT4TS, Time-LLM and another, and found
forecasts no worse and mostly better. The controls are settings here: ``backbone="none"``,
``backbone="attention"`` and ``weights="random"``. See docs/language.md.

Parameters, besides the head: those of the backbone without its table of words (GPT-2, 6 layers: 43,315,200, of which
806,400 are trained by "norms") and P * D + D of the map into it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal, Self

import torch
from einops import rearrange
from torch import Tensor, nn

from prismts.errors import SettingsError, ShapeError, unknown_name
from prismts.layers.features import Features
from prismts.layers.missing import bridge
from prismts.layers.normalize import InstanceNorm
from prismts.layers.patch import DePatch, PatchBounds, UniformPatch, n_patches, n_patches_within, pad_end, sample_linear
from prismts.models.contract import Encoder
from prismts.models.language_backbone import Backbone, BackboneConfig, make_backbone, n_trained
from prismts.ranges import expect_counts
from prismts.shapes import expect

__all__ = ["LanguageConfig", "LanguageEncoder", "PatchTokens", "readable_by"]


@dataclass(frozen=True, kw_only=True)
class LanguageConfig(BackboneConfig):
    """Settings of GPT4TS; lengths in time steps. Those of the backbone stand in ``BackboneConfig``."""

    patch_length: int = 16
    stride: int = 8
    patches: Literal["uniform", "deformable"] = "uniform"
    scales: tuple[float, ...] = (1,)  # a token reads stretches so many times as long as its patch, side by side

    def __post_init__(self) -> None:
        super().__post_init__()
        expect_counts(self, "patch_length", "stride")
        if self.patches not in ("uniform", "deformable"):
            raise unknown_name("patches", self.patches, ("uniform", "deformable"))
        if (self.patches == "deformable" or tuple(self.scales) != (1,)) and self.patch_length < 2:
            raise SettingsError("Patches that move or are stretched need patch_length >= 2.")
        object.__setattr__(self, "scales", tuple(self.scales))
        if not self.scales or min(self.scales) <= 0:
            raise SettingsError(f"scales are sizes above 0 in multiples of a patch, such as (1, 2), got {self.scales}.")

    def n_tokens(self, n_timepoints: int) -> int:
        """N for windows of this length, with one stride more at the end."""
        return n_patches_within(n_timepoints, self.patch_length, self.stride, padding=self.stride)


class PatchTokens(nn.Module):
    """Windows to tokens: a patch at a fixed place or one the data choose, in one size or several, and one linear map.

    Of several sizes, each has the middle of the patch, is ``scales`` times as long, ends at the ends of the window, and
    is sampled at P places. With ``causal`` no patch reaches behind the step where a fixed one would end, so that tokens
    never know what comes after them.
    """

    def __init__(
        self, width: int, patch_length: int, stride: int, *, patches: str, scales: tuple[float, ...], causal: bool
    ) -> None:
        super().__init__()
        self.patch_length, self.stride, self.scales, self.causal = patch_length, stride, scales, causal
        self.patch: DePatch | UniformPatch = (
            DePatch(patch_length, stride) if patches == "deformable" else UniformPatch(patch_length, stride)
        )
        self.embed = nn.Linear(patch_length * len(scales), width)

    def forward(self, window: Tensor) -> Tensor:
        """[B, C, T] without gaps to [B, C, N, D]."""
        if self.scales == (1,):
            return self.embed(self.patch(window, self._ends(window)))
        return self.embed(torch.cat([self._sampled(window, bounds) for bounds in self.bounds(window)], dim=-1))

    def bounds(self, window: Tensor) -> list[PatchBounds]:
        """Where the patches of the windows [B, C, T] lie, in steps, for each size."""
        ends = self._ends(window)
        left, right = self.patch.bounds(window, ends)  # [B, C, N]
        middle, half = (left + right) / 2, (right - left) / 2
        edge = torch.full_like(right, window.shape[-1] - 1)
        edge = edge if ends is None else edge.minimum(ends)
        found: list[PatchBounds] = []
        for scale in self.scales:
            far = (middle + scale * half).minimum(edge)
            found.append(PatchBounds((middle - scale * half).clamp(min=0), far))
        return found

    def _ends(self, window: Tensor) -> Tensor | None:
        """The last step that each token may know [1, 1, N]; None: all of the window."""
        if not self.causal:
            return None
        n = n_patches(window.shape[-1], self.patch_length, self.stride)
        place = torch.arange(n, device=window.device, dtype=window.dtype)
        return (place * self.stride + self.patch_length - 1)[None, None]

    def _sampled(self, window: Tensor, bounds: PatchBounds) -> Tensor:
        """[B, C, N, P] values at places spread evenly between the bounds."""
        left, right = bounds
        along = torch.linspace(0, 1, self.patch_length, device=left.device, dtype=left.dtype)
        places = left[..., None] + (right - left)[..., None] * along  # [B, C, N, P]
        return sample_linear(window, places.flatten(2)).unflatten(-1, places.shape[2:])


class LanguageEncoder(Encoder):
    """normalize -> patch -> embed -> language model -> head; channels share all weights."""

    n_groups_of = "channels"
    causal_tokens = False  # whether patches must not reach behind their own end
    reads_words = False  # whether it needs the embeddings of words
    backbone: Backbone
    stacks = False  # each would hold the language model once more

    def __init__(self, config: LanguageConfig, *, n_channels: int, context_length: int) -> None:
        super().__init__()
        self.config, self.context_length = config, context_length
        self.patch_length, self.stride = config.patch_length, config.stride
        self.n_tokens = config.n_tokens(context_length)
        self.normalize = InstanceNorm()
        self.backbone = make_backbone(config, keep_table=self.reads_words)
        self.is_causal = self.backbone.is_causal
        self.width = self.backbone.width
        self.tokens = PatchTokens(
            self.token_width(config), config.patch_length, config.stride,
            patches=config.patches, scales=config.scales, causal=self.causal_tokens,
        )  # fmt: skip
        self.head = nn.Identity()
        self.check_room(self.n_tokens)

    @property
    def trained_share(self) -> str:
        """How many weights are trained, in words, such as "819,456 of 43,328,256 weights are trained (1.89 %)"."""
        trained, n = n_trained(self)
        return f"{trained:,} of {n:,} weights are trained ({100 * trained / max(n, 1):.3g} %)"

    def token_width(self, config: LanguageConfig) -> int:
        """What a patch is embedded to: the width of the backbone."""
        return self.width

    def encode(self, x: Tensor, observed: Tensor | None = None) -> Features:
        """[B, C, T] to tokens [B, C, N, D]."""
        expect(x, "B C T", who=type(self).__name__)
        x, stats = self.normalize(x, observed)
        window = bridge(x, observed)
        valid = None
        if observed is not None:
            valid = pad_end(observed, self.stride).unfold(-1, self.patch_length, self.stride).any(-1)  # [B, C, N]
        tokens = self.embed(window, valid)  # [B, C, N, D]
        if valid is None:
            valid = torch.ones(tokens.shape[:3], dtype=torch.bool, device=tokens.device)
        return Features(tokens, valid, window, stats)

    def embed(self, window: Tensor, valid: Tensor | None) -> Tensor:
        """Normalized windows without gaps [B, C, T], and which of their tokens are valid [B, C, N], to [B, C, N, D]."""
        return self.read(self.tokens(pad_end(window, self.stride)), valid)

    def read(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """Tokens [B, C, N, D] through the backbone; those that are not ``valid`` [B, C, N] are read by no other."""
        n_channels, n = tokens.shape[1:3]
        self.check_room(n)
        seen = None if valid is None else valid.flatten(0, 1)
        readable = readable_by(n, seen, causal=self.is_causal, device=tokens.device)
        y = self.backbone(rearrange(tokens, "b c n d -> (b c) n d"), readable)
        return rearrange(y, "(b c) n d -> b c n d", c=n_channels)

    def merged(self) -> Self:
        """A copy for inference, low-rank factors added to their maps; the trained model is untouched."""
        folded = copy.deepcopy(self, {id(self.backbone): self.backbone.folded()})
        return super(LanguageEncoder, folded).merged()

    def check_room(self, n_tokens: int) -> None:
        """Raise a ShapeError unless the backbone has a position for each of so many tokens."""
        most = self.backbone.max_tokens
        if most is not None and n_tokens > most:
            raise ShapeError(
                f"{self.config.backbone!r} knows {most} positions, but this window is cut into {n_tokens} tokens. "
                "Shorten the windows, or lengthen patch_length and stride."
            )


def readable_by(n: int, valid: Tensor | None, *, causal: bool, device: torch.device) -> Tensor:
    """Which tokens each of ``n`` may read: [M, 1, N, N] bool from ``valid`` [M, N], or [1, 1, N, N] without it.

    Every token reads itself. One that is not valid is read by no other, unless none of its window is.
    """
    readable = torch.ones(n, n, dtype=torch.bool, device=device)
    if causal:
        readable = readable.tril()
    if valid is None:
        return readable[None, None]
    kept = valid | ~valid.any(-1, keepdim=True)  # [M, N]
    itself = torch.eye(n, dtype=torch.bool, device=device)
    return ((readable & kept[:, None]) | itself)[:, None]
