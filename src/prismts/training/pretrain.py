"""Pre-train an encoder on a corpus without labels: the one training loop, over windows drawn from many series.

    from prismts.data.corpus import Corpus, Generated
    corpus = Corpus.of("ETTm1", "Weather", Generated())
    result = pretrain(encoder, corpus, tasks={"masked": 1.0, "contrastive": 0.1}, folder="runs/pretrained")

An epoch is no pass over data, which may have no end, but ``steps_per_epoch`` steps, after which a checkpoint is written
and the held-out stretches are judged. A killed run loses the steps since the last one, and ends as if it had not been
killed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from prismts.data.corpus import Corpus
from prismts.errors import SettingsError
from prismts.models.contract import Encoder
from prismts.tasks.combined import make_pretrain_task
from prismts.tasks.pretraining import PretrainTask
from prismts.training.draws import CorpusDraws, DrawConfig
from prismts.training.fit import FitConfig, FitResult, fit

__all__ = ["PRETRAIN_FIT", "as_corpus", "pretrain"]

# 50 epochs of 200 steps; every epoch is made, since the rate falls until the last, and the best one on held-out data is
# kept
PRETRAIN_FIT = FitConfig(
    max_epochs=50, patience=1_000_000, batch_size=256, learning_rate=1e-3, weight_decay=0.01, schedule="one_cycle",
    gradient_clip=1.0,
)  # fmt: skip


def pretrain(
    encoder: Encoder,
    corpus: Any,
    *,
    tasks: str | PretrainTask | Sequence[str | PretrainTask] | Mapping[str, Any] = "masked",
    config: FitConfig | None = None,
    draws: DrawConfig | Mapping[str, Any] | None = None,
    seed: int = 0,
    folder: Path | str | None = None,
    progress: bool = True,
) -> FitResult:
    """Train ``encoder`` in place and leave it with the weights of its best epoch, in evaluation mode.

    Where a task's truth is learned too (``decoupled``), losses of two epochs cannot be compared, and the last epoch
    counts as the best.

    Args:
        encoder: any that meets the contract. One that reads channels apart learns from windows of any number of
            channels, one that is bound to C channels from those members that have exactly so many. Its head is left
            alone.
        corpus: a ``Corpus``, or whatever ``Corpus.of`` makes one from: a name, a path, series, or a list of these.
        tasks: what is learned: names of ``prismts.tasks.combined.PRETRAIN_TASKS``, with weights or settings, or tasks.
        config: how to train; None takes ``PRETRAIN_FIT``. Its ``batch_size`` counts channels of windows.
        draws: lengths, bundles, steps in an epoch; a ``DrawConfig``, or its settings by name.
        seed: of draws, masks, views, dropout and the tasks' own weights.
        folder: keeps checkpoints, so that a killed run resumes when it is called again.
        progress: whether to show a bar.

    Raises:
        DataError: no series of the corpus has room for a window.
        SettingsError: a task or a setting that there is not.
        SavedModelError: the folder holds a run of another corpus, encoder, task or setting.
        TrainingDiverged: the loss became infinite or no number.
    """
    config = PRETRAIN_FIT if config is None else config
    task, corpus = make_pretrain_task(tasks), as_corpus(corpus)
    given = _as_draws(draws).fitting(encoder)
    exact = encoder.n_channels is not None
    train = CorpusDraws(corpus, given, exact=exact)
    validation = CorpusDraws(corpus, given, validation=True, seed=seed, exact=exact) if corpus.held_out else None
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = task.build(encoder)
    shapes = [(name, tuple(value.shape)) for name, value in model.state_dict().items()]
    settings = repr(getattr(encoder, "config", ""))
    parts = {
        "corpus": corpus.fingerprint, "tasks": repr(task), "draws": given, "weights": shapes, "encoder": settings,
        "kind of encoder": type(encoder).__name__,
    }  # fmt: skip
    told = repr(tuple(parts.values()))
    return fit(
        model, task, train, validation, config=config, seed=seed, folder=folder,
        fingerprint=hashlib.sha256(told.encode()).hexdigest(), parts=parts, progress=progress,
        title="pre-training", keep="best" if task.comparable else "last",
    )  # fmt: skip


def as_corpus(source: Any) -> Corpus:
    """A corpus as it is, or made from one source or a list of them."""
    if isinstance(source, Corpus):
        return source
    several = isinstance(source, list | tuple) and not all(
        isinstance(one, np.ndarray) for one in cast("Sequence[Any]", source)
    )
    return Corpus.of(*cast("Sequence[Any]", source)) if several else Corpus.of(source)


def _as_draws(draws: DrawConfig | Mapping[str, Any] | None) -> DrawConfig:
    if draws is None or isinstance(draws, DrawConfig):
        return draws or DrawConfig()
    from prismts.models import make_settings

    try:
        return cast(DrawConfig, make_settings(DrawConfig, draws))
    except TypeError as error:
        raise SettingsError(f"A setting of the draws has a value of the wrong type: {error}.") from error
