"""Pretrained forecasters whose answers others learn from: what a teacher is, and one of the Hugging Face hub.

A teacher only answers; nothing here trains it. How a student learns from one stands in ``prismts.tasks.distill``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from einops import rearrange
from torch import Tensor, nn

from prismts.errors import SettingsError
from prismts.layers.missing import bridge
from prismts.layers.normalize import InstanceNorm
from prismts.models.language_hub import digest, from_hub
from prismts.shapes import expect

__all__ = ["Teacher", "TeacherForecast", "TimesFMTeacher"]


class TeacherForecast(NamedTuple):
    """What a teacher says of the future, in the units and on the device of the context."""

    mean: Tensor  # [B, C, H] its best single answer
    quantiles: Tensor | None  # [B, Q, C, H] at the teacher's ``levels``, rising along Q; None where it has none


@runtime_checkable
class Teacher(Protocol):
    """Anything that continues windows it has never seen.

    ``predict`` takes windows in any units, NaN where nothing was observed, and answers in the same units: whatever a
    teacher normalizes, it undoes. It answers for every channel, also for one of which nothing was observed, and its
    answers are finite and carry no gradient.
    """

    @property
    def levels(self) -> tuple[float, ...]:
        """Rising levels of the quantiles it gives; empty where it gives points alone."""
        ...

    @property
    def fingerprint(self) -> str:
        """Differs wherever answers may differ: what a cache of answers is filed under."""
        ...

    def predict(self, context: Tensor, horizon: int) -> TeacherForecast:
        """Windows [B, C, T] and a number of steps to what follows them."""
        ...


class TimesFMTeacher:
    """TimesFM 2.5 as a teacher: a causal transformer over patches, trained by its authors on many series.

    Each channel is continued by itself. Normalization: every window is brought to mean 0 and scale 1 by its observed
    points, and the answer brought back (TimesFM normalizes once more inside). Missing values: straight lines between
    observed neighbors, and the first and last of them held to the ends, since TimesFM reads no mask of inner gaps; a
    channel of which nothing was observed is continued by zeros.

    ``mean`` is TimesFM's own point forecast, which is its median. Quantiles are sorted, so that they never cross. A
    horizon beyond what TimesFM writes at once (128 steps in the published weights) is reached in strides: its point
    forecast becomes context for the next one, and the quantiles of later strides say nothing of that forecast's error.

    Source: Das, Kong, Sen, Zhou, "A decoder-only foundation model for time-series forecasting", ICML 2024, arXiv
    2310.10688, as ``TimesFm2_5ModelForPrediction`` of ``transformers``. Where we differ from that class:

    - windows are normalized before their front is padded to whole patches, so that the padding is the mean and not 0;
    - answers are never cut at 0: there, whether a window's are depends on the other windows of its batch;
    - windows longer than its ``context_length`` are cut, as there.

    Args:
        model: a ``TimesFm2_5ModelForPrediction``; ``TimesFMTeacher.from_hub`` reads one.
        batch_size: channels that go through at once.
    """

    def __init__(self, model: nn.Module, *, batch_size: int = 256) -> None:
        if batch_size < 1:
            raise SettingsError(f"batch_size counts the channels that go through at once, but got {batch_size}.")
        config: Any = getattr(model, "config", None)
        if getattr(config, "model_type", None) != "timesfm2_5":
            raise SettingsError(
                f"TimesFMTeacher asks a TimesFm2_5ModelForPrediction of transformers, but got a {type(model).__name__}."
                " Read one with TimesFMTeacher.from_hub, or write a class with levels, fingerprint and predict."
            )
        self.model, self.batch_size = model.eval().requires_grad_(False), batch_size
        self._config = config
        self._fingerprint: str | None = None

    @classmethod
    def from_hub(
        cls, name: str | Path = "google/timesfm-2.5-200m-transformers", *, download: bool = False, batch_size: int = 256
    ) -> TimesFMTeacher:
        """The teacher with the weights of this name or local folder; nothing is fetched without ``download``."""
        model = from_hub(
            "TimesFm2_5ModelForPrediction", name, download=download, who="TimesFMTeacher", dtype=torch.float32
        )
        return cls(model, batch_size=batch_size)

    @property
    def levels(self) -> tuple[float, ...]:
        """The nine deciles, in the published weights."""
        return tuple(float(level) for level in self._config.quantiles)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights, worked out once."""
        if self._fingerprint is None:
            self._fingerprint = f"timesfm2_5-{digest(self.model)}"
        return self._fingerprint

    @torch.no_grad()
    def predict(self, context: Tensor, horizon: int) -> TeacherForecast:
        """Windows [B, C, T], NaN where unobserved, to mean [B, C, H] and quantiles [B, Q, C, H], in their units."""
        expect(context, "B C T", who="A teacher")
        if horizon < 1:
            raise SettingsError(f"horizon counts the steps to forecast and is at least 1, but got {horizon}.")
        observed = ~context.isnan()
        normal, stats = InstanceNorm()(context, observed)
        rows = rearrange(bridge(normal, observed), "b c t -> (b c) t")
        place = next(self.model.parameters())
        parts = [
            self._continue(part.to(place.device, place.dtype), horizon)
            for part in rows[:, -self._config.context_length :].split(self.batch_size)
        ]
        told = torch.cat(parts).to(context.device, context.dtype)  # [B*C, H, 1+Q]
        told = rearrange(told, "(b c) h q -> b q c h", c=context.shape[1])
        mean, scale = stats.mean[:, None], stats.scale[:, None]  # [B, 1, C, 1]
        told = told * scale + mean
        return TeacherForecast(told[:, 0], told[:, 1:].sort(dim=1).values)

    def _continue(self, rows: Tensor, horizon: int) -> Tensor:
        """Normalized rows [R, T] to the point forecast and the quantiles behind it: [R, H, 1+Q]."""
        patch, longest = self._config.patch_length, self._config.context_length
        parts: list[Tensor] = []
        n_told = 0
        while n_told < horizon:
            whole = min(-(-rows.shape[-1] // patch) * patch, longest)  # its padding stands in whole patches
            answer = self.model(list(rows), forecast_context_len=whole, truncate_negative=False)
            point = answer.mean_predictions  # [R, H']
            parts.append(torch.cat([point[..., None], answer.full_predictions[..., 1:]], dim=-1))
            n_told += point.shape[-1]
            rows = torch.cat([rows, point], dim=-1)[:, -longest:]
        return torch.cat(parts, dim=1)[:, :horizon]
