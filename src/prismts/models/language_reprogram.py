"""Time-LLM: patches told in the words of a frozen language model, behind a prompt that describes the window.

Source: Jin, Wang, Ma, Chu, Zhang, Shi, Chen, Liang, Li, Pan, Wen, "Time-LLM: Time Series Forecasting by Reprogramming
Large Language Models", ICLR 2024, arXiv 2310.01728, and the authors' code (KimMeen/Time-LLM at 0045cde). A linear map
over the table of words makes 1000 prototypes; every patch asks them by cross-attention, and what they answer is its
token. A prompt stands before the tokens, the whole language model is frozen, and of what it gives the first 128 values
of each patch are kept. Where we differ from the authors' code:

- the prompt is ``"numbers"`` unless a tokenizer is asked for: the statistics that the authors write out (smallest,
  largest, median, trend, the five lags of the largest autocorrelation) become a few tokens by a learned linear map. It
  needs no file of words, is read in any precision, and exports. ``"text"`` writes them out, in three digits, for the
  tokenizer of the backbone; a prompt has a fixed number of tokens, filled up before its beginning, so that a window
  is answered alone as in company (theirs pads behind it, and reads the padding);
- the text names no task and no horizon, since the same tokens serve every task; ``description`` says what the data are;
- lags are those up to half of the window (beyond, a circular autocorrelation repeats itself);
- the default network is GPT-2, theirs Llama-7B (``backbone``, ``n_layers=None``);
- patches are embedded one by one, theirs by a circular convolution over three neighbors, through which the first patch
  reads the last; they may be deformable or of several sizes;
- ``prototypes="drawn"`` takes words themselves, drawn at random, in the place of the learned map, which has as many
  weights as words times prototypes (50 million for GPT-2);
- gaps are bridged by straight lines (statistics are those of the bridged window), and tokens that saw nothing are read
  by no other.

Their scripts name a rate of 0.01, but the loop divides it by 25 before the first step and halves it after every epoch
from the second on: that is the recipe of ``Forecaster("timellm")``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from prismts.errors import SavedModelError, SettingsError, unknown_name
from prismts.layers.dropout import Dropout
from prismts.layers.patch import pad_end
from prismts.models.language import LanguageConfig, LanguageEncoder, readable_by
from prismts.models.language_backbone import Backbone, NoBackbone
from prismts.models.language_hub import from_hub
from prismts.ranges import expect_counts, expect_shares

__all__ = ["NumbersPrompt", "ReprogrammedEncoder", "Reprogram", "TextPrompt", "TimeLLMConfig", "window_statistics"]

_N_LAGS = 5


@dataclass(frozen=True, kw_only=True)
class TimeLLMConfig(LanguageConfig):
    """Settings of Time-LLM; those of the patches and the backbone stand in ``LanguageConfig``."""

    train: Literal["frozen", "norms", "lora", "full"] = "frozen"
    prototypes: Literal["mapped", "drawn"] = "mapped"  # a learned map over all words, or words drawn at random
    n_prototypes: int = 1000
    patch_width: int = 32  # of a patch before it asks the prototypes
    ask_width: int = 128  # of a question, for each head
    ask_heads: int = 8
    token_width: int = 128  # of what the backbone gives, so much is kept
    ask_dropout: float = 0.1
    prompt: Literal["numbers", "text", "none"] = "numbers"
    n_prompt: int = 4  # tokens of a prompt of numbers
    longest_text: int = 128  # tokens of a prompt of text
    description: str = ""  # what the data are, for a prompt of text

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("prototypes", ("mapped", "drawn")), ("prompt", ("numbers", "text", "none"))):
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known)
        expect_counts(
            self, "n_prototypes", "patch_width", "ask_width", "ask_heads", "token_width", "n_prompt", "longest_text"
        )
        expect_shares(self, "ask_dropout")
        if self.prompt == "text" and (self.backbone in ("none", "attention") or self.weights == "random"):
            raise SettingsError(
                "prompt='text' is read by the tokenizer that belongs to a pretrained backbone, and this one has none. "
                "Take prompt='numbers'."
            )


class Reprogram(nn.Module):
    """Patches ask prototypes of words by cross-attention: [M, N, E] and [S, D] to [M, N, D]."""

    def __init__(self, patch_width: int, width: int, ask_width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query = nn.Linear(patch_width, n_heads * ask_width)
        self.key, self.value = (nn.Linear(width, n_heads * ask_width) for _ in range(2))
        self.out = nn.Linear(n_heads * ask_width, width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, prototypes: Tensor) -> Tensor:
        """Every patch to the answer of the prototypes."""
        q = rearrange(self.query(x), "m n (h d) -> m h n d", h=self.n_heads)
        k, v = (rearrange(f(prototypes), "s (h d) -> h s d", h=self.n_heads) for f in (self.key, self.value))
        share = (q * q.shape[-1] ** -0.5 @ k.mT).softmax(-1)  # [M, heads, N, S]
        y = self.dropout(share).to(v.dtype) @ v
        return self.out(rearrange(y, "m h n d -> m n (h d)"))


def window_statistics(window: Tensor) -> Tensor:
    """What a prompt tells of windows [..., T]: [..., 9].

    Smallest, largest, median, whether the last value lies above the first (1), below (-1) or at it (0), and the five
    lags, of 1 to half of the window, at which the circular autocorrelation is largest, in steps, the largest first. A
    window too short for five lags has its last one again. Correlations that differ by less than 1e-4 count as equal,
    and the shorter lag comes first, so that rounding decides nothing: a window that stands still has lags 1 to 5.
    """
    n = window.shape[-1]
    rest = window - window.mean(-1, keepdim=True)
    spectrum = torch.fft.rfft(rest.float() if rest.dtype == torch.bfloat16 else rest)
    together = torch.fft.irfft(spectrum.abs().square(), n=n)[..., 1 : n // 2 + 1]  # lags 1 to n // 2
    energy = rest.square().sum(-1, keepdim=True).clamp(min=torch.finfo(together.dtype).tiny)
    shorter_first = 1e-6 * torch.arange(together.shape[-1], device=window.device) / n
    together = (together / energy).mul(1e4).round().div(1e4) - shorter_first
    found = together.topk(min(_N_LAGS, together.shape[-1])).indices + 1 if n > 1 else torch.zeros_like(window[..., :1])
    lags = torch.cat([found, found[..., -1:].expand(*found.shape[:-1], _N_LAGS - found.shape[-1])], dim=-1)
    rising = window.sort(-1).values  # its middle is what torch calls the median, for which ONNX has no function
    trend = (window[..., -1] - window[..., 0]).sign()
    parts = [rising[..., 0], rising[..., -1], rising[..., (n - 1) // 2], trend]
    return torch.cat([torch.stack(parts, dim=-1), lags.to(window.dtype)], dim=-1)


class NumbersPrompt(nn.Module):
    """The statistics of a window as a few tokens, by a learned linear map; lags count in shares of the window."""

    def __init__(self, n_tokens: int, width: int) -> None:
        super().__init__()
        self.n_tokens = n_tokens
        self.linear = nn.Linear(4 + _N_LAGS, n_tokens * width)

    def forward(self, window: Tensor, table: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Windows [M, T] to tokens [M, L, D], all of which count (None)."""
        told = window_statistics(window)
        told = torch.cat([told[..., :4], told[..., 4:] / window.shape[-1]], dim=-1)
        return self.linear(told).unflatten(-1, (self.n_tokens, -1)), None


class TextPrompt(nn.Module):
    """The statistics of a window in words of the backbone: ``n_tokens`` embeddings from its table, the last ones told.

    Text is written window by window, on the CPU, at every step: it is slow, and cannot be exported.
    """

    def __init__(self, tokenizer: Any, n_tokens: int, description: str) -> None:
        super().__init__()
        self.tokenizer, self.n_tokens, self.description = tokenizer, n_tokens, description

    def forward(self, window: Tensor, table: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Windows [M, T] to tokens [M, L, D], and which of them are words [M, L]; the others fill up the beginning."""
        assert table is not None
        ids = torch.zeros(len(window), self.n_tokens, dtype=torch.long)
        told = torch.zeros(len(window), self.n_tokens, dtype=torch.bool)
        for row, text in enumerate(self.texts(window)):
            words = self.tokenizer(text, add_special_tokens=False)["input_ids"][-self.n_tokens :]
            if words:
                ids[row, -len(words) :] = torch.tensor(words)
                told[row, -len(words) :] = True
        return table[ids.to(table.device)], told.to(window.device)

    def texts(self, window: Tensor) -> list[str]:
        """What is said of each window [M, T]."""
        found: list[str] = []
        for low, high, median, trend, *lags in window_statistics(window).tolist():
            way = "upward" if trend > 0 else "downward" if trend < 0 else "level"
            listed = ", ".join(str(int(lag)) for lag in lags)
            found.append(
                f"{self.description} Input statistics of {window.shape[-1]} steps: min value {low:.3g}, max value "
                f"{high:.3g}, median value {median:.3g}, the trend of input is {way}, top {_N_LAGS} lags are {listed}."
            )
        return found


class ReprogrammedEncoder(LanguageEncoder):
    """normalize -> patch -> ask the prototypes -> prompt and language model -> head; channels share all weights."""

    reads_words = True
    config: TimeLLMConfig
    drawn: Tensor | None

    def __init__(self, config: TimeLLMConfig, *, n_channels: int, context_length: int) -> None:
        super().__init__(config, n_channels=n_channels, context_length=context_length)
        inside = self.width
        table = self.backbone.table
        assert table is not None
        self.reprogram = Reprogram(config.patch_width, inside, config.ask_width, config.ask_heads, config.ask_dropout)
        self.map = nn.Linear(len(table), config.n_prototypes) if config.prototypes == "mapped" else None
        drawn = None
        if self.map is None:
            if config.n_prototypes > len(table):
                raise SettingsError(
                    f"n_prototypes={config.n_prototypes} words are drawn without repetition, but the backbone has "
                    f"{len(table)}. Lower n_prototypes."
                )
            drawn = table[torch.randperm(len(table))[: config.n_prototypes]].clone()
        self.register_buffer("drawn", drawn)
        self.prompt = _make_prompt(config, self.backbone)
        if self.map is None and config.prompt != "text":
            self.backbone.table = None  # what was drawn is all that is read of it
        self.check_room(self.n_tokens + self.n_prompt)
        self.width = min(config.token_width, inside)

    @property
    def n_prompt(self) -> int:
        """Tokens that stand before the patches."""
        return 0 if self.prompt is None else self.prompt.n_tokens

    def token_width(self, config: LanguageConfig) -> int:
        """What a patch is embedded to, before it asks the prototypes."""
        assert isinstance(config, TimeLLMConfig)
        return config.patch_width

    def prototypes(self) -> Tensor:
        """The words that patches ask: [S, D]."""
        if self.map is None:
            assert self.drawn is not None
            return self.drawn
        assert self.backbone.table is not None
        return self.map.weight @ self.backbone.table + self.map.bias[:, None]

    def embed(self, window: Tensor, valid: Tensor | None) -> Tensor:
        """Normalized windows without gaps [B, C, T], and which of their tokens are valid [B, C, N], to [B, C, N, D]."""
        patches = self.tokens(pad_end(window, self.stride))  # [B, C, N, E]
        n_channels, n = patches.shape[1:3]
        self.check_room(n + self.n_prompt)
        tokens = self.reprogram(rearrange(patches, "b c n e -> (b c) n e"), self.prototypes())  # [B*C, N, D]
        seen = None if valid is None else valid.flatten(0, 1)
        if self.prompt is not None:
            before, told = self.prompt(window.flatten(0, 1), self.backbone.table)
            tokens = torch.cat([before.to(tokens.dtype), tokens], dim=1)
            seen = _joined(told, seen, before, n)
        readable = readable_by(tokens.shape[1], seen, causal=self.is_causal, device=tokens.device)
        y = self.backbone(tokens, readable)[:, self.n_prompt :, : self.width]
        return rearrange(y, "(b c) n d -> b c n d", c=n_channels)


def _joined(told: Tensor | None, seen: Tensor | None, before: Tensor, n: int) -> Tensor | None:
    """Which tokens of prompt [M, L] and patches [M, N] may be read: [M, L+N]; None where all may."""
    if told is None and seen is None:
        return None
    rows, n_prompt = before.shape[:2]
    if told is None:
        told = torch.ones(rows, n_prompt, dtype=torch.bool, device=before.device)
    if seen is None:
        seen = torch.ones(rows, n, dtype=torch.bool, device=before.device)
    return torch.cat([told, seen], dim=1)


def _make_prompt(config: TimeLLMConfig, backbone: Backbone) -> NumbersPrompt | TextPrompt | None:
    if config.prompt == "none" or isinstance(backbone, NoBackbone):  # nothing would read it
        return None
    if config.prompt == "numbers":
        return NumbersPrompt(config.n_prompt, backbone.width)
    tokenizer = from_hub("AutoTokenizer", config.backbone, download=config.download, who="A prompt of text")
    words = tokenizer("min value 0.5", add_special_tokens=False)["input_ids"]
    assert backbone.table is not None
    if not words or max(words) >= len(backbone.table):  # the library makes an empty tokenizer where there is no file
        raise SavedModelError(
            f"{config.backbone!r} has no tokenizer, or that of another network, so nothing can be written for it. Add "
            "its tokenizer to the folder, or take prompt='numbers'."
        )
    return TextPrompt(tokenizer, config.longest_text, config.description)
