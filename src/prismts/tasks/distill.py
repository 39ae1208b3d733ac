"""Distillation: a small student learns what a large teacher says, beside what is true.

The teacher answers once for every training window or case; its answers are kept on disk and read back like data
(``AnswerCache``), and a source hands them out beside each batch (``Taught``). The task ``Distill`` stands around a task
of forecasting or classification: validation judges the student as that task does, by the truth alone.

Losses, with w the weight of the teacher:

- forecasts: (1 - w) L(y, f) + w L(t, f), L the loss of the task and t what the teacher forecasts in place of the truth;
  it says something of every step, also where the truth was not observed;
- quantiles: (1 - w) times the pinball loss plus w times half the mean distance between the quantiles of both;
- classes: (1 - w) times the cross entropy plus w T^2 KL(p_T || q_T), where p_T and q_T are the softmax of the scores of
  teacher and student divided by the temperature T (Hinton, Vinyals, Dean, arXiv 1503.02531);
- features: plus v times the mean squared distance between the teacher's pooled tokens, standardized, and a linear
  projection of the student's, which is trained along and thrown away (FitNets, Romero et al., arXiv 1412.6550).
"""

# pyright: reportPrivateUsage=false
# Classify varies its cases in a step of its own, and the teacher's answers have to follow
from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from prismts.cases import CaseBatch
from prismts.errors import SavedModelError, SettingsError, ShapeError
from prismts.layers.heads import pooled
from prismts.models.contract import Encoder
from prismts.tasks.classify import Classify, by_length, scores_of
from prismts.tasks.forecast import Forecast, answer_batch
from prismts.windows import Batch
from prismts.writing import write_whole

__all__ = ["AnswerCache", "Distill", "Projecting", "Taught", "TaughtBatch", "soft_entropy"]

Answer = Callable[[NDArray[np.int64]], Mapping[str, NDArray[np.floating]]]


class TaughtBatch(NamedTuple):
    """A batch, and what the teacher says of it."""

    batch: Any  # Batch or CaseBatch
    said: Tensor  # [B, C, H], [B, Q, C, H] or scores [B, K], as the student answers
    features: Tensor | None  # [B, d] standardized


class Taught:
    """A source of batches with the teacher's answers beside them; a source for ``prismts.training.fit``.

    Args:
        source: windows or cases.
        said: the teacher's answers [n, ...]; may lie on disk.
        features: the teacher's features [n, d], or None.
        rows: which row belongs to each item of the source; None: its own number.
    """

    def __init__(
        self,
        source: Any,
        said: NDArray[np.floating],
        features: NDArray[np.floating] | None = None,
        *,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        self.source, self.said, self.features = source, said, features
        self.rows = np.arange(len(source)) if rows is None else rows
        if len(self.rows) != len(source) or (len(self.rows) and int(self.rows.max()) >= len(said)):
            raise ShapeError(
                f"{len(source)} items need an answer of the teacher each, but there are {len(said)}. Ask it for all."
            )

    @property
    def n_channels(self) -> int:
        """C."""
        return self.source.n_channels

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, index: NDArray[np.int64], channels: slice = slice(None)) -> TaughtBatch:
        """The items of these numbers [B], with the answers for the same channels."""
        batch = self.source.batch(index, channels)
        said = self.said[self.rows[index]]
        if said.ndim > 2:  # the answer is about channels
            said = said[..., channels, :]
        features = None if self.features is None else torch.from_numpy(np.array(self.features[self.rows[index]]))
        return TaughtBatch(batch, torch.from_numpy(np.array(said, dtype=np.float32)), features)


class Projecting(nn.Module):
    """A student in training: itself, and the projection from its features to the teacher's."""

    def __init__(self, student: Encoder, n_features: int) -> None:
        super().__init__()
        self.student = student
        self.projection = nn.Linear(student.width, n_features)

    @property
    def n_channels(self) -> int | None:
        """C the student is bound to, or None where any number will do."""
        return self.student.n_channels

    @property
    def heeds_end(self) -> bool:
        """As of the student."""
        return self.student.heeds_end

    def forward(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """What the student says."""
        return self.student(x, observed)

    def both(self, x: Tensor, observed: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the student says, and its projected features [B, d], in one pass."""
        features = self.student.features(x, observed)
        return self.student.head(features), self.projection(pooled(features, "mean"))


class Distill:
    """The task of learning from a teacher and from the truth; its training batches are those of ``Taught``.

    Args:
        task: what the student is to do: forecast or classify.
        weight: of the teacher beside the truth, from 0 to 1.
        temperature: of class scores.
        features: weight v of the features; above 0 the model is a ``Projecting`` one.
    """

    def __init__(
        self, task: Forecast | Classify, *, weight: float = 0.5, temperature: float = 2.0, features: float = 0.0
    ) -> None:
        if not 0 <= weight <= 1:
            raise SettingsError(f"weight is the teacher's share of the loss, from 0 to 1, but got {weight}.")
        if not temperature > 0:
            raise SettingsError(f"temperature divides class scores and is above 0, but got {temperature}.")
        if features < 0:
            raise SettingsError(f"features weighs the distance of features and is not negative, but got {features}.")
        self.task, self.weight, self.temperature, self.features = task, weight, temperature, features

    def loss(self, model: nn.Module, batch: TaughtBatch) -> Tensor:
        """Mean loss of a batch of ``Taught``, to follow downhill."""
        if isinstance(self.task, Forecast):
            return self._forecast_loss(model, self.task, batch)
        return self._class_loss(model, self.task, batch)

    def errors(self, model: nn.Module, batch: Batch | CaseBatch) -> tuple[Tensor, Tensor]:
        """What validation judges by: the errors of the student's own task, on plain batches."""
        return self.task.errors(model, cast(Any, batch))

    def _forecast_loss(self, model: nn.Module, task: Forecast, taught: TaughtBatch) -> Tensor:
        batch: Batch = taught.batch
        if self.features:
            told, distance = self._with_features(model, batch.context, batch.context_observed, taught.features)
        else:
            told, distance = answer_batch(model, batch), batch.context.new_zeros(())
        said = taught.said
        if said.shape != told.shape:
            raise ShapeError(f"The student says {list(told.shape)}, but the teacher said {list(said.shape)}.")

        def repeats(*_: Any) -> Tensor:
            return told

        hard = task.loss(cast(nn.Module, repeats), batch)
        if task.quantiles is None:
            soft = task.loss(cast(nn.Module, repeats), batch._replace(target=said, target_observed=None))
        else:
            soft = (told - said).abs().mean() / 2
        return (1 - self.weight) * hard + self.weight * soft + self.features * distance

    def _class_loss(self, model: nn.Module, task: Classify, taught: TaughtBatch) -> Tensor:
        batch: CaseBatch = taught.batch
        x, other, share = task._varied(batch)
        if self.features:
            features = taught.features
            if share is not None and features is not None:
                features = share * features + (1 - share) * features[other]
            told, distance = self._with_features(model, x, batch.context_observed, features, cases=True)
        else:
            told, distance = scores_of(model, x, batch.context_observed), x.new_zeros(())
        hard = task._entropy(told, batch.label, task.label_smoothing)
        said = (taught.said / self.temperature).softmax(1)
        if share is not None:  # mixed cases have a mixed truth, and a mixed answer
            hard = share * hard + (1 - share) * task._entropy(told, batch.label[other], task.label_smoothing)
            said = share * said + (1 - share) * said[other]
        soft = soft_entropy(said, told / self.temperature) * self.temperature**2
        return (1 - self.weight) * hard + self.weight * soft + self.features * distance

    @staticmethod
    def _with_features(
        model: nn.Module, x: Tensor, observed: Tensor | None, features: Tensor | None, *, cases: bool = False
    ) -> tuple[Tensor, Tensor]:
        """What the student says, and how far its features are from the teacher's."""
        if not isinstance(model, Projecting) or features is None:
            raise SettingsError("Features are compared of a Projecting student with a teacher that gives features.")
        apart = cases and not model.heeds_end
        told, own = by_length(model.both, x, observed) if apart else model.both(x, observed)
        return told, (own - features).square().mean()


def soft_entropy(said: Tensor, scores: Tensor) -> Tensor:
    """KL divergence of softmax(scores) [B, K] from the probabilities ``said`` [B, K], mean over B: 0 where equal."""
    return F.kl_div(scores.log_softmax(1), said, reduction="batchmean")


class AnswerCache:
    """A teacher's answers on disk, so that it runs once: memory-mapped arrays, filed under a key.

    Answers are written block by block. A run that was killed goes on after the last block it finished, and another one
    with an equal key reads what is there. Without a folder, answers are held in memory.

    Args:
        folder: where keys have their folders; None for memory.
        key: all that answers depend on, such as the hashes of teacher and data: plain values.
    """

    def __init__(self, folder: str | Path | None, key: Mapping[str, Any]) -> None:
        self.key: dict[str, Any] = json.loads(json.dumps(dict(key), sort_keys=True))
        mark = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()[:24]
        self.folder = None if folder is None else Path(folder) / mark

    def arrays(
        self, n: int, ask: Answer, *, block: int = 256, told: Callable[[int, int], None] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """The answers [n, ...] by name; ``ask`` gives those of some numbers, and is called only for what is lacking.

        ``told(done, n)`` is called after every block.
        """
        if self.folder is None:
            return self._in_memory(n, ask, block, told)
        done, names = self._begun(n)
        found = {name: open_memmap(self.folder / f"{name}.npy", mode="r+") for name in names} if done < n else {}
        while done < n:
            index = np.arange(done, min(done + block, n))
            parts = {name: np.asarray(part, dtype=np.float32) for name, part in ask(index).items()}
            if not done:
                self.folder.mkdir(parents=True, exist_ok=True)
                found = {
                    name: open_memmap(self.folder / f"{name}.npy", mode="w+", dtype=np.float32,
                                      shape=(n, *part.shape[1:]))
                    for name, part in parts.items()
                }  # fmt: skip
            for name, part in parts.items():
                found[name][index] = part
                found[name].flush()
            done = int(index[-1]) + 1
            self._note(n, done, list(found))
            if told is not None:
                told(done, n)
        names = names or list(found)
        return {name: np.load(self.folder / f"{name}.npy", mmap_mode="r") for name in names}

    def _in_memory(
        self, n: int, ask: Answer, block: int, told: Callable[[int, int], None] | None
    ) -> dict[str, NDArray[np.float32]]:
        parts: list[Mapping[str, NDArray[np.floating]]] = []
        for begin in range(0, n, block):
            parts.append(ask(np.arange(begin, min(begin + block, n))))
            if told is not None:
                told(min(begin + block, n), n)
        return {name: np.concatenate([part[name] for part in parts]).astype(np.float32) for name in parts[0]}

    def _begun(self, n: int) -> tuple[int, list[str]]:
        """How many answers are there, and the names of the arrays."""
        assert self.folder is not None
        note = self.folder / "note.json"
        if not note.exists():
            return 0, []
        try:
            known = json.loads(note.read_text(encoding="utf-8"))
            same, done, names = known["key"] == self.key and known["n"] == n, int(known["done"]), list(known["arrays"])
        except (ValueError, KeyError) as error:
            raise SavedModelError(
                f"{note} is damaged. Delete the folder {self.folder} to ask the teacher anew."
            ) from error
        lacking = [name for name in names if not (self.folder / f"{name}.npy").is_file()]
        if not same or lacking:
            raise SavedModelError(
                f"{self.folder} holds other answers than those asked for. Delete it to ask the teacher anew."
            )
        return done, names

    def _note(self, n: int, done: int, names: list[str]) -> None:
        assert self.folder is not None
        text = json.dumps({"key": self.key, "n": n, "done": done, "arrays": names}, indent=1, sort_keys=True)
        write_whole(self.folder / "note.json", text + "\n")
