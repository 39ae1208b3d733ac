"""Hidden tokens: see some stretches of a window, and tell what a slow copy that sees all of it says of the others.

The decoupled masking of TimeMAE (Cheng et al., arXiv 2303.00320; its own form is ``tasks.decoupled_masking``) for any
encoder that meets the contract. The encoder spends nothing on learned mask tokens: what is asked of the hidden places
is asked by a regressor of its own, which is thrown away after pre-training.

Does the encoder see visible tokens alone? What it never sees is a hidden *value*: hidden points are masked as if they
had not been observed. Whether tokens over hidden points take part depends on the encoder. One whose attention heeds
what was observed (PatchTST) reads no such token. A convolution cannot skip tokens: it reads straight lines between the
visible points there, the same it would read over a gap in the data. In both cases the regressor asks visible tokens
alone. So the saving of time that TimeMAE has from short sequences is not had here, only what it learns.

What differs from TimeMAE besides: the copy answers for the hidden tokens from the whole window, as in data2vec (Baevski
et al., ICML 2022), and its answer is brought to mean 0 and variance 1 over the width, so that saying the same of all
windows cannot become right by shrinking; there is no code book.
"""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prismts.errors import SettingsError
from prismts.layers.masking import Blocks
from prismts.models.contract import Encoder
from prismts.tasks.pretraining import Pretraining, observed_of, window_marks

__all__ = ["HiddenTokens", "Regressor"]


class CrossBlock(nn.Module):
    """Questions read the tokens that may be read, then a pointwise pair; both are added to what came in."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm_question, self.norm_token, self.norm_forward = (nn.LayerNorm(width) for _ in range(3))
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.rise, self.fall = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, asked: Tensor, tokens: Tensor, readable: Tensor) -> Tensor:
        """Questions [M, N, D] and tokens [M, N, D], of which ``readable`` [M, N], to questions."""

        def heads(x: Tensor) -> Tensor:
            return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)  # [M, heads, N, D/heads]

        seen = self.norm_token(tokens)
        q, k, v = heads(self.query(self.norm_question(asked))), heads(self.key(seen)), heads(self.value(seen))
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=readable[:, None, None])
        asked = asked + self.out(read.transpose(1, 2).flatten(2))
        return asked + self.fall(F.gelu(self.rise(self.norm_forward(asked))))


class Regressor(nn.Module):
    """A slow copy of the encoder, which gives the truth, and what asks visible tokens about hidden ones."""

    def __init__(self, encoder: Encoder, n_layers: int) -> None:
        super().__init__()
        self.copy = deepcopy(encoder)
        self.copy.head = nn.Identity()
        self.copy.requires_grad_(False).eval()
        width = encoder.width
        n_heads = next(n for n in (4, 2, 1) if width % n == 0)
        self.question = nn.Parameter(torch.randn(width) / math.sqrt(width))  # what stands at a hidden place
        self.blocks = nn.ModuleList(CrossBlock(width, n_heads) for _ in range(n_layers))
        self.out = nn.Linear(width, width)

    def train(self, mode: bool = True) -> Self:
        """As ever, but the copy never drops anything out and keeps its statistics."""
        super().train(mode)
        self.copy.eval()
        return self

    @torch.no_grad()
    def follow(self, encoder: Encoder, momentum: float) -> None:
        """Draw the copy towards the encoder: momentum * copy + (1 - momentum) * encoder, running statistics too."""
        leaders = {name: value for name, value in encoder.state_dict().items() if not name.startswith("head.")}
        for name, value in self.copy.state_dict().items():
            if value.is_floating_point():
                value.lerp_(leaders[name].to(value.dtype), 1 - momentum)
            else:
                value.copy_(leaders[name])

    def forward(self, tokens: Tensor, readable: Tensor) -> Tensor:
        """What is told of every place [M, N, D] from the ``readable`` [M, N] of the tokens [M, N, D]."""
        positions = _positions(tokens.shape[1], tokens.shape[2], tokens)
        asked = (self.question + positions).expand_as(tokens)
        placed = tokens + positions
        for block in self.blocks:
            asked = block(asked, placed, readable)
        return self.out(asked)


def _positions(n: int, width: int, like: Tensor) -> Tensor:
    """Sines and cosines of the place [N, D]: no table, so windows may have any length."""
    place = torch.arange(n, device=like.device, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange((width + 1) // 2, device=like.device) * (-math.log(10_000.0) * 2 / max(width, 2)))
    angle = place * rate
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :width].to(like.dtype)


class HiddenTokens:
    """The task of telling the tokens of hidden stretches, as a slow copy of the encoder sees them.

    The truth is learned too, and becomes harder to tell as it comes to say more: a validation error that rises is no
    sign of failure, and epochs cannot be compared by it.

    Args:
        share: of the points that are hidden, or two between which every window draws.
        length: mean length of a hidden stretch, in patches of the encoder. Tokens count as hidden where no point of
            theirs is visible, so stretches shorter than a patch hide nothing.
        n_layers: of the regressor.
        momentum: how slowly the copy follows the encoder, per step.
        seed: of what validation hides.
    """

    name = "decoupled"
    comparable = False

    def __init__(
        self,
        *,
        share: float | tuple[float, float] = (0.4, 0.7),
        length: float = 3.0,
        n_layers: int = 2,
        momentum: float = 0.99,
        seed: int = 0,
    ) -> None:
        if not 0 <= momentum <= 1:
            raise SettingsError(f"momentum is a share from 0 (the copy is the encoder) to 1, but got {momentum}.")
        if length < 1 or n_layers < 1:
            raise SettingsError(
                f"length counts patches and n_layers layers, both at least 1, but got {length}, {n_layers}."
            )
        Blocks(share)  # refuses a share that cannot be
        self.share, self.length, self.n_layers, self.momentum, self.seed = share, length, n_layers, momentum, seed

    def part(self, encoder: Encoder) -> Regressor:
        """The slow copy and the regressor."""
        return Regressor(encoder, self.n_layers)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Mean distance over the hidden tokens of a batch; in training, the copy follows first."""
        assert isinstance(model, Pretraining)
        part = model.parts[self.name]
        assert isinstance(part, Regressor)
        if model.training:
            part.follow(model.encoder, self.momentum)
        total, count = self._sums(model, batch, self._hide(model.encoder, observed_of(batch), None))
        return total / count.clamp(min=1)

    def errors(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Sum of distances over hidden tokens, and how many there are; the same tokens in every epoch."""
        assert isinstance(model, Pretraining)
        observed = observed_of(batch).cpu()
        generator = torch.Generator()
        masks: list[Tensor] = []
        for mark, seen in zip(window_marks(batch.context), observed, strict=True):
            generator.manual_seed((self.seed + 1) * 2_147_483_647 + mark)
            masks.append(self._hide(model.encoder, seen[None], generator))
        return self._sums(model, batch, torch.cat(masks).to(batch.context.device))

    def _hide(self, encoder: Encoder, observed: Tensor, generator: torch.Generator | None) -> Tensor:
        """Points to hide [B, C, T]: of each channel, or of all at once where the encoder mixes them."""
        together = encoder.n_groups_of == "window"
        return Blocks(self.share, self.length * encoder.patch_length, together)(observed, generator)

    def _sums(self, model: Pretraining, batch: Any, hidden: Tensor) -> tuple[Tensor, Tensor]:
        part = model.parts[self.name]
        assert isinstance(part, Regressor)
        x, seen = batch.context, observed_of(batch)
        visible = seen & ~hidden
        tokens, readable, _, _ = model.encoder.encode(x.masked_fill(~visible, 0.0), visible)  # [B, G, N, D]
        with torch.no_grad():
            whole = part.copy.encode(x, None if bool(seen.all()) else seen)
            truth = F.layer_norm(whole.tokens.float(), whole.tokens.shape[-1:])  # [B, G, N, D]
        asked = whole.valid & ~readable & readable.any(-1, keepdim=True)  # [B, G, N]
        flat, may = tokens.flatten(0, 1), readable.flatten(0, 1)
        may = may | ~may.any(-1, keepdim=True)  # a row without a visible token is not counted, and must not be NaN
        told = part(flat, may).view_as(tokens).float()
        each = (told - truth).square().mean(-1)
        return each.masked_fill(~asked, 0.0).sum(), asked.sum()
