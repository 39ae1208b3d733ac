"""Embed cases of any length and any number of channels: learn from unlabeled series, then one vector per case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, Self, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from torch import Tensor

from prismts.cases import Cases
from prismts.data.layout import Duplicates
from prismts.data.readers import read
from prismts.data.scaling import StandardScaler
from prismts.data.series import Collection, Series
from prismts.errors import DataError, SettingsError, ShapeError, unknown_name
from prismts.estimators.answer import check_finite
from prismts.estimators.base import Estimator, joined, on_device
from prismts.estimators.match import reordered
from prismts.evaluation.protocols import data_hash
from prismts.layers.heads import POOLINGS, pooled
from prismts.layers.products import quick_products
from prismts.models.contract import Encoder
from prismts.tasks.reconstruct import Reconstruct
from prismts.training.fit import FitConfig, FitResult
from prismts.windows import Windows

__all__ = ["Embedder"]

_MOST_WINDOWS = 6_000  # that one epoch of training reads; of more, every k-th
_SHORTEST = 4  # steps of a case
_VALUES = 2**20  # values of windows that go through the encoder at once
_DEFAULT_FIT = FitConfig(
    max_epochs=3, min_steps=250, patience=50, batch_size=64, learning_rate=1e-3, schedule="one_cycle"
)
_DEFAULT_MODEL = {"kernel_sizes": (7, 13, 19), "dropout": 0.1, "residual": 0.5}
Channels = Literal["pooled", "apart"]


class Embedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """Turns each case into one vector, learned without labels by telling hidden points from those around them.

    Cases may be an array [n_cases, n_channels, n_timepoints] (or [n_cases, n_timepoints] of one channel), a list of
    arrays [n_channels, n_timepoints], a ``Collection``, a ``Series`` (one case), a long table with ``series``, or a
    path. NaN means not observed. The encoder reads channels apart, so what was learned from three channels embeds
    seven, of any length.

    A vector holds the pooled tokens of a case, over time and, with ``channels="pooled"``, over its channels, so that
    its length d never changes; ``"apart"`` sets the channels side by side [n, C * d] and is bound to their number.
    The encoder does not see level and scale of a case; they stand in the last numbers of the vector, as mean and
    logarithm of the deviation, in units of the training series.

    Args:
        model: a name of ``prismts.models.MODELS`` whose encoder reads channels apart.
        context_length: steps of a window; longer cases are read in overlapping windows. None takes the length of the
            shortest training case, from 16 to 192 steps.
        pooling: of tokens over time: "max", "mean" or "both".
        channels: "pooled" or "apart".
        model_settings, fit_settings: replace those of the default.
        time, series, values, frequency: as for ``prismts.read``, of tables.
        random_state: seed of everything random.
        progress: whether to show a bar.
        run_folder: keeps checkpoints, so that a killed ``fit`` resumes when it is called again.

    Attributes:
        model_: the encoder with the head it was trained with.
        fit_result_: best epoch and losses by epoch.
        n_channels_: what was learned from; 0 where no cases were, and any number will do.
        n_features_: d.
    """

    _bound = ("model", "context_length", "pooling", "channels", "model_settings")

    def __init__(
        self,
        model: str = "convtimenet",
        *,
        context_length: int | None = None,
        pooling: str = "both",
        channels: Channels = "pooled",
        model_settings: Mapping[str, Any] | None = None,
        fit_settings: Mapping[str, Any] | None = None,
        time: str | None = None,
        series: str | None = None,
        values: Sequence[str] | None = None,
        frequency: str | None = None,
        random_state: int = 0,
        progress: bool = True,
        run_folder: str | Path | None = None,
    ) -> None:
        self.model = model
        self.context_length = context_length
        self.pooling = pooling
        self.channels = channels
        self.model_settings = model_settings
        self.fit_settings = fit_settings
        self.time = time
        self.series = series
        self.values = values
        self.frequency = frequency
        self.random_state = random_state
        self.progress = progress
        self.run_folder = run_folder

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from unlabeled cases; labels ``y`` are not looked at."""
        self._encoder_only("embed")
        self._check_choices()
        data = self._read(X)
        scaler = StandardScaler.fit(data)
        self.level_ = _statistics(scaler).mean((0, 1))  # [2]
        spread, unit = _statistics(scaler).std((0, 1)), np.array([np.exp(self.level_[1]), 1.0])
        self.spread_ = np.where(spread > 1e-9 * unit, spread, unit)  # of a single case, or of cases all on one scale
        self.channels_, self.n_channels_ = data.channels, data.n_channels
        shortest = int(data.lengths.min())
        self.context_length_ = min(192, max(16, shortest)) if self.context_length is None else self.context_length
        if not isinstance(self.context_length_, Integral) or self.context_length_ < _SHORTEST:
            raise SettingsError(
                f"context_length is a whole number of steps, at least {_SHORTEST}, but got {self.context_length_!r}."
            )
        settings: dict[str, Any] = dict(self.model_settings or {})
        if self.model == "convtimenet":
            length = max(2, min(16, self.context_length_ // 6))
            settings = {**_DEFAULT_MODEL, "patch_length": length, "stride": max(1, length // 2), **settings}
        self.settings_ = settings
        task = Reconstruct()
        train = self._windows(data, scaler)
        self.data_hash_ = data_hash(data)
        members, results = self._train(
            self._network, task, train, None, _DEFAULT_FIT.changed(self.fit_settings), mark=self.data_hash_,
            title=f"{self.model} on {data.name}",
        )  # fmt: skip
        self.model_, self.fit_result_ = joined(members), results[0]
        if cast(Encoder, self.model_).n_channels is not None:
            raise SettingsError(
                f"An embedder's encoder reads channels apart, but {self.model!r} is bound to {data.n_channels} "
                "channels. Choose model='convtimenet' without channels='mixed'."
            )
        self._inference: Any = None
        self._fitted()
        self.n_features_ = self._vectors(data.cases(0, 1)).shape[1]
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """One vector for each case: [n, d]; a table of such rows after sklearn's ``set_output``."""
        return self._vectors(X)

    def _vectors(self, X: Any) -> NDArray[np.float32]:
        self._check_fitted()
        data = self.read_(X)
        if self.channels == "apart" and self.n_channels_ not in (data.n_channels, 0):
            raise ShapeError(
                f"With channels='apart' this embedder is bound to {self.n_channels_} channels, but these cases have "
                f"{data.n_channels}. Fit with channels='pooled' to embed any number."
            )
        if self.channels == "apart" and set(data.channels) == set(self.channels_):
            data = reordered(data, self.channels_, "transform")
        scaler = self._by_case(data)
        if self._inference is None:
            self._inference = on_device(self.model_)
        model = self._inference
        place = next(p.device for p in model.parameters())
        identity = StandardScaler.identity(data.n_channels)
        each = np.repeat(np.arange(len(data)), data.lengths)  # scaled in the precision in which the data are stored
        scaled = replace(data, values=(data.values - scaler.mean.T[:, each]) / scaler.scale.T[:, each])
        size = max(1, _VALUES // (data.n_channels * int(data.lengths.max())))
        answers: list[Tensor] = []
        numbers: list[NDArray[np.int64]] = []
        with torch.inference_mode(), quick_products():
            for index, batch in Cases(scaled, scaler=identity).by_length(size):
                x = batch.context.to(place)
                seen = batch.context_observed
                if seen is not None:
                    seen = seen.to(place)
                    x = x.masked_fill(~seen, 0.0)
                answers.append(self._embedded(model, x, seen).cpu())
                numbers.append(index)
        order = np.argsort(np.concatenate(numbers))
        tokens = torch.cat(answers).numpy()[order]  # [n, C, d]
        levels = (_statistics(scaler) - self.level_) / self.spread_  # [n, C, 2]
        vectors = np.concatenate([tokens, levels], axis=2).astype(np.float32)
        check_finite(vectors, data)
        if self.channels == "apart":
            return vectors.reshape(len(vectors), -1)
        return np.concatenate([vectors.mean(1), vectors.max(1)], axis=1)

    def transform_windows(
        self, X: Any, *, length: int | None = None, stride: int | None = None
    ) -> tuple[NDArray, NDArray]:
        """Vectors along each series: where every window of ``length`` steps begins [m, 2] (series, step), and [m, d].

        ``length`` is the context length if None, and ``stride`` half of it. Windows in which hardly anything was
        observed (fewer than 4 steps up to the last observed value) are left out.
        """
        self._check_fitted()
        data = self.read_(X)
        size: int = self.context_length_ if length is None else length
        if not isinstance(size, Integral) or size is True:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise SettingsError(f"length is a whole number of steps, but got {length!r}.")
        windows = Windows(data, size, 0, stride=max(1, size // 2) if stride is None else stride)
        series, ends = windows.locate(np.arange(len(windows)))
        begins = ends - size
        steps = (data.offsets[series] + begins)[:, None] + np.arange(size)  # [W, T]
        x = data.values[:, steps].swapaxes(0, 1)  # [W, C, T], in the precision in which the data are stored
        if not windows.complete:
            known = ~np.isnan(x).all(axis=1)  # [W, T]
            told = (known * np.arange(1, size + 1)).max(axis=1) >= _SHORTEST
            if not told.any():
                raise DataError(f"No window of {size} steps holds {_SHORTEST} steps up to its last observed value.")
            x, series, begins = x[told], series[told], begins[told]
        cases = replace(Collection.from_array(x), channels=data.channels)
        return np.stack([series, begins], axis=1), self._vectors(cases)

    @property
    def _n_features_out(self) -> int:
        """d, from which sklearn makes the names embedder0, embedder1 ... of the columns."""
        return self.n_features_

    # ---- keeping

    def _to_save(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        fitted = {
            "context_length": self.context_length_, "n_channels": self.n_channels_, "settings": self.settings_,
            "channels": list(self.channels_), "n_features": self.n_features_, "fit_result": asdict(self.fit_result_),
            "data_hash": self.data_hash_,
        }  # fmt: skip
        return fitted, {"level": self.level_, "spread": self.spread_}

    def _restore(self, fitted: dict[str, Any], arrays: dict[str, NDArray]) -> None:
        self.context_length_, self.n_channels_ = fitted["context_length"], fitted["n_channels"]
        self.channels_ = tuple(fitted.get("channels", ()))  # older folders have none
        self.settings_, self.n_features_ = fitted["settings"], fitted["n_features"]
        self.fit_result_, self.data_hash_ = FitResult(**fitted["fit_result"]), fitted["data_hash"]
        self.level_, self.spread_ = arrays["level"], arrays["spread"]
        with torch.random.fork_rng():  # what is drawn here is replaced at once
            self.model_ = self._network()
        self._inference = None

    # ---- inside

    def _check_choices(self) -> None:
        if self.pooling not in POOLINGS:
            raise unknown_name("pooling", self.pooling, POOLINGS)
        if self.channels not in get_args(Channels):
            raise unknown_name("way with channels", self.channels, get_args(Channels))

    def _by_case(self, data: Collection) -> StandardScaler:
        """Each case by itself; a channel without any value stands at the level and scale of training."""
        mean = np.full((len(data), data.n_channels), self.level_[0])
        scale = np.full_like(mean, np.exp(self.level_[1]))
        for i, case in enumerate(data):
            seen = case.observed.any(1)
            if seen.any():
                known = StandardScaler.fit(Collection.of(replace(case, values=case.values[seen], channels=())))
                mean[i, seen], scale[i, seen] = known.mean[0], known.scale[0]
        return StandardScaler(mean, scale)

    def _network(self) -> Any:
        return Reconstruct().build(
            self.model, self.settings_, n_channels=self.n_channels_, context_length=self.context_length_
        )

    def read_(self, X: Any, *, duplicates: Duplicates = "refuse") -> Collection:
        """Cases of any form as this embedder reads them.

        ``duplicates`` says what becomes of rows of a table with equal times but other values (see ``prismts.read``).
        """
        reading = self._read_new if hasattr(self, "model_") else self._read
        return reading(X, duplicates=duplicates)

    def _read(self, data: Any, *, empty_channels: bool = True, duplicates: Duplicates = "refuse") -> Collection:
        if isinstance(data, np.ndarray) and data.ndim == 2:
            return self._read(data[:, None])  # cases of one channel, as everywhere among embedders
        found = read(
            data, time=self.time, series=self.series, values=self.values, frequency=self.frequency,
            duplicates=duplicates, empty_channels="keep" if empty_channels else "refuse",
        )  # fmt: skip
        cases = Collection.of(found) if isinstance(found, Series) else found
        lengths = Cases(cases, scaler=StandardScaler.identity(cases.n_channels)).lengths  # without what pads the end
        if int(lengths.min()) < _SHORTEST:
            short = int(lengths.argmin())
            steps = f"{int(lengths[short])} step{'s' * int(lengths[short] != 1)}"
            behind = "" if lengths[short] == cases.lengths[short] else " up to its last observed value"
            raise DataError(
                f"Case {cases.names[short]!r} has {steps}{behind}, too few to embed; at least "
                f"{_SHORTEST} are needed. Leave it out."
            )
        return cases

    def _windows(self, data: Collection, scaler: StandardScaler) -> Windows:
        def cut(stride: int) -> Windows:
            return Windows(
                data,
                self.context_length_,
                0,
                scaler=scaler,
                stride=stride,
                min_context=min(_SHORTEST, self.context_length_),
            )

        windows = cut(1)
        return windows if len(windows) <= _MOST_WINDOWS else cut(-(-len(windows) // _MOST_WINDOWS))

    def _embedded(self, model: Any, x: Tensor, observed: Tensor | None) -> Tensor:
        """Scaled cases [B, C, T] of one length to [B, C, d], in windows that overlap by half where they are long."""
        size = self.context_length_
        found: list[Tensor] = []
        if x.shape[-1] <= size:
            starts = [0]
            size = x.shape[-1]
        else:
            starts = sorted({*range(0, x.shape[-1] - size, max(1, size // 2)), x.shape[-1] - size})
        for start in starts:
            part = slice(start, start + size)
            features = model.encode(x[..., part], None if observed is None else observed[..., part])
            b, g, n, d = features.tokens.shape
            alone = features._replace(
                tokens=features.tokens.reshape(b * g, 1, n, d), valid=features.valid.reshape(b * g, 1, n)
            )
            found.append(pooled(alone, self.pooling).unflatten(0, (b, g)))  # [B, C, d]
        width = model.width
        together = torch.stack(found)  # [W, B, C, d]
        if self.pooling == "max":
            return together.amax(0)
        if self.pooling == "mean":
            return together.mean(0)
        return torch.cat([together[..., :width].amax(0), together[..., width:].mean(0)], dim=-1)


def _statistics(scaler: StandardScaler) -> NDArray[np.float64]:
    """Level and logarithm of the scale of each channel of each case: [n, C, 2]."""
    return np.stack([scaler.mean, np.log(scaler.scale)], axis=-1)
