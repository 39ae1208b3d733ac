"""aLLM4TS: a language model that is taught patches first, and then decodes the future patch by patch.

Source: Bian, Ju, Li, Xu, Cheng, Xu, "Multi-Patch Prediction: Adapting LLMs for Time Series Representation Learning",
ICML 2024, arXiv 2402.04852, and the authors' code (yxbian23/aLLM4TS at 10b05be). Two stages:

1. ``prismts.tasks.causal_patch``: at every token of a window at once, tell the patch behind it, over many series;
   norms, positions, attention and feed-forward of the first 6 layers of GPT-2 are trained (``train="full"``).
2. ``PatchwiseForecaster``: a future patch begins as an anchor, the stretch of the past that lies one horizon before it;
   it reads all of the past and itself, and none of the other anchors; one linear map, the one of stage 1, turns each
   into its steps. Norms and positions are trained.

Where we differ from the authors' code:

- the past is cut so that its last patch ends with the window; theirs leaves out what does not fill a stride at the end;
- steps that several anchors write are averaged, and every step of the horizon is written and judged once; the authors
  score overlapping patches, and leave out the end of a horizon that is no whole number of strides;
- a horizon longer than the window begins from the window again and again; theirs reads a longer window for anchors;
- normalization learns no affine map, gaps are bridged by straight lines, and tokens that saw nothing are read by none;
- patches may be deformable or of several sizes, but never reach behind their own end: a token of stage 1 must not have
  seen what it tells;
- the loss counts every step of the horizon once (theirs weighs the first 96, 192, 336 and 720 steps alike);
- other tasks read the same tokens by the heads of every other model; the authors classify all channels at once.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Self

import torch
from einops import rearrange
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from prismts.errors import SavedModelError, SettingsError
from prismts.layers.decode import fold
from prismts.layers.missing import bridge
from prismts.layers.patch import n_patches_within
from prismts.models.language import LanguageConfig, LanguageEncoder, readable_by
from prismts.models.language_backbone import PretrainedBackbone
from prismts.shapes import expect

__all__ = ["PatchwiseEncoder", "PatchwiseForecaster", "anchors", "write_stage"]

_MAPS = "patches.safetensors"


class PatchwiseEncoder(LanguageEncoder):
    """The causal encoder of both stages.

    Its ``decode`` tells the patch behind a token, or the one an anchor stands for. A backbone that a stage wrote
    (``write_stage``) brings its maps into and out of the tokens along.
    """

    causal_tokens = True

    def __init__(self, config: LanguageConfig, *, n_channels: int, context_length: int) -> None:
        super().__init__(config, n_channels=n_channels, context_length=context_length)
        self.is_causal = True  # also of a backbone that would look ahead
        self.decode = nn.Linear(self.width, config.patch_length)
        self._take_maps()

    def of_stage(self, window: Tensor, observed: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Normalized windows without gaps [B, C, T] to the tokens of their whole patches [B, C, N, D], and the valid.

        Unlike in ``encode`` nothing is repeated at the end.
        """
        tokens = self.tokens(window)
        if observed is None:
            return tokens, None
        return tokens, observed.unfold(-1, self.patch_length, self.stride).any(-1)

    def _take_maps(self) -> None:
        file = Path(self.config.backbone).expanduser() / _MAPS
        if self.config.weights != "pretrained" or not file.is_file():
            return
        try:
            state = load_file(file)
        except (SafetensorError, OSError) as error:
            raise SavedModelError(f"{file} cannot be read ({error}). Write the stage again.") from error
        try:
            for name in ("tokens", "decode"):
                part = {key: value for key, value in state.items() if key.startswith(f"{name}.")}
                self.get_submodule(name).load_state_dict({key.removeprefix(f"{name}."): part[key] for key in part})
        except RuntimeError as error:
            raise SettingsError(
                f"{self.config.backbone!r} was taught patches of another form: {error}. Take its patch_length, patches "
                "and scales."
            ) from error


class PatchwiseForecaster(nn.Module):
    """The past and anchors of the future through a causal language model: [B, C, T] to [B, C, H]."""

    n_channels = None

    def __init__(self, config: LanguageConfig, *, n_channels: int, context_length: int, horizon: int) -> None:
        super().__init__()
        self.context_length, self.horizon = context_length, horizon
        self.encoder = PatchwiseEncoder(config, n_channels=n_channels, context_length=context_length)
        length, stride = config.patch_length, config.stride
        n = n_patches_within(context_length, length, stride)
        if stride > length:
            raise SettingsError(
                f"Patches of {length} steps that begin every {stride} leave steps of the future that none writes. Set "
                f"stride to at most {length}."
            )
        self.n_anchors = -(-max(0, horizon - length) // stride) + 1
        self.encoder.check_room(n + self.n_anchors)

    @property
    def trained_share(self) -> str:
        """How many weights are trained, in words."""
        return self.encoder.trained_share

    def forward(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """[B, C, T] to [B, C, H]; windows of any length that the positions have room for."""
        expect(x, "B C T", who="PatchwiseForecaster")
        encoder, n_channels = self.encoder, x.shape[1]
        x, stats = encoder.normalize(x, observed)
        window = bridge(x, observed)
        first = (x.shape[-1] - encoder.patch_length) % encoder.stride  # the oldest steps, which fill no stride
        past, valid = encoder.of_stage(window[..., first:], None if observed is None else observed[..., first:])
        covered = (self.n_anchors - 1) * encoder.stride + encoder.patch_length
        future = encoder.tokens(anchors(window, covered))  # [B, C, A, D]
        n_past, n = past.shape[2], past.shape[2] + self.n_anchors
        seen = None if valid is None else torch.cat([valid, torch.ones_like(future[..., 0], dtype=torch.bool)], -1)
        readable = readable_by(n, None if seen is None else seen.flatten(0, 1), causal=True, device=x.device)
        place = torch.arange(n, device=x.device)
        readable = readable & ((place < n_past) | (place == place[:, None]))  # no token reads another's anchor
        tokens = rearrange(torch.cat([past, future], dim=2), "b c n d -> (b c) n d")
        told = encoder.decode(encoder.backbone(tokens, readable)[:, n_past:])  # [B*C, A, P]
        y = fold(rearrange(told, "(b c) a p -> b c a p", c=n_channels), encoder.stride, self.horizon)
        return encoder.normalize.inverse(y, stats)  # [B, C, H]

    def merged(self) -> Self:
        """A copy for inference, low-rank factors added to their maps."""
        return copy.deepcopy(self, {id(self.encoder): self.encoder.merged()}).eval().requires_grad_(False)


def anchors(window: Tensor, n_steps: int) -> Tensor:
    """What a future of ``n_steps`` begins as [B, C, n]: the last so many steps of the window [B, C, T], in a circle.

    Of a shorter window, step h is the one h - n steps from its end, counted on from the end where it begins.
    """
    n = window.shape[-1]
    place = (torch.arange(n_steps, device=window.device) - n_steps) % n
    return window[..., place]


def write_stage(encoder: PatchwiseEncoder, folder: str | Path) -> Path:
    """Write what stage 1 taught as a folder that stage 2 takes for its ``backbone``.

    It holds the network as ``save_pretrained`` of ``transformers`` writes it (low-rank factors added to their maps, no
    table of words), and beside it the maps of patches into and out of the tokens.

    Raises:
        SettingsError: the encoder has a control in the place of a language model.
        SavedModelError: the folder cannot be written.
    """
    backbone = encoder.backbone
    if not isinstance(backbone, PretrainedBackbone):
        raise SettingsError(f"backbone={encoder.config.backbone!r} is a control and no network that a folder can hold.")
    folder = Path(folder)
    maps = {
        f"{name}.{key}": value.detach().cpu().contiguous()
        for name in ("tokens", "decode")
        for key, value in encoder.get_submodule(name).state_dict().items()
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        backbone.folded().write(folder)
        save_file(maps, folder / _MAPS)
    except OSError as error:
        raise SavedModelError(f"{folder} cannot be written: {error}") from error
    return folder
