"""One epoch of batches: numbers are drawn here, and the source gathers a whole batch at once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np

__all__ = ["Batches", "EpochBatches", "Source", "Stream", "batches_of"]


class Source(Protocol):
    """Anything that is numbered and gives many numbers at once, as ``Windows`` does."""

    @property
    def n_channels(self) -> int:
        """C."""
        ...

    def __len__(self) -> int: ...

    def batch(self, index: np.ndarray, channels: slice = ...) -> Any:
        """The items of these numbers [B] as one batch."""
        ...


class EpochBatches(Protocol):
    """The batches of one epoch that one process sees."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


@runtime_checkable
class Stream(Protocol):
    """Anything that puts its own batches together, where items are not numbered: a corpus without end, say."""

    @property
    def n_channels(self) -> int:
        """The most channels of a batch."""
        ...

    def epoch_batches(
        self, batch_size: int, *, seed: int | None, epoch: int, rank: int = 0, world: int = 1
    ) -> EpochBatches:
        """The batches of an epoch: determined by seed and epoch alone; the same in every epoch without a seed."""
        ...


class Batches:
    """The batches of one epoch, in the order that ``seed`` and ``epoch`` determine, or in order without a seed.

    Several processes see the same order; in training each takes its share of every batch, so that all make the same
    number of steps, and in validation every batch goes to one of them, so that every item counts once.

    Args:
        source: where batches come from.
        batch_size: items in a batch of all processes together.
        seed: shuffles; None keeps the order.
        epoch: another order for every epoch.
        drop_last: leave out the last, partial batch.
        channels_at_once: a batch holds a group of at most so many channels, in turn; for models that read channels
            apart, so that memory does not grow with the width of the table. None: all.
        rank, world: which of how many processes this is.
        whole: each batch goes to one process (validation) instead of being shared out (training).
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        *,
        seed: int | None = None,
        epoch: int = 0,
        drop_last: bool = False,
        channels_at_once: int | None = None,
        rank: int = 0,
        world: int = 1,
        whole: bool = False,
    ) -> None:
        self.source, self.batch_size, self.seed, self.epoch = source, batch_size, seed, epoch
        self.drop_last = drop_last and len(source) >= batch_size
        self.rank, self.world, self.whole = rank, world, whole
        n_channels = source.n_channels
        size = min(channels_at_once or n_channels, n_channels)
        n_groups = -(-n_channels // size)
        edges = np.linspace(0, n_channels, n_groups + 1).astype(int)
        self.groups = [slice(a, b) for a, b in pairwise(edges.tolist())]

    @property
    def n_batches(self) -> int:
        """Batches of all processes together."""
        n = len(self.source)
        whole, rest = divmod(n, self.batch_size)
        # a rest that cannot be shared out among the processes is left out of training, never out of validation
        kept = rest and not self.drop_last and (self.whole or rest >= self.world)
        per_group = whole + bool(kept)
        return per_group * len(self.groups)

    def __len__(self) -> int:
        """Batches of this process."""
        return len(range(self.rank, self.n_batches, self.world)) if self.whole else self.n_batches

    def __iter__(self) -> Iterator[Any]:
        n, size = len(self.source), self.batch_size
        n_parts = self.n_batches // len(self.groups)
        order, turns = np.arange(n), np.arange(self.n_batches)
        if self.seed is not None:
            generator = np.random.default_rng((self.seed, self.epoch))
            # every group of channels meets every window once an epoch, each group in its own order
            orders = [generator.permutation(n) for _ in self.groups]
            generator.shuffle(turns)
        else:
            orders = [order] * len(self.groups)
        for number, turn in enumerate(turns):
            if self.whole and number % self.world != self.rank:
                continue
            group, part = divmod(int(turn), n_parts)
            index = orders[group][part * size : (part + 1) * size]
            if not self.whole:
                index = np.array_split(index, self.world)[self.rank]
            yield self.source.batch(index, self.groups[group])


def batches_of(
    source: Source | Stream,
    batch_size: int,
    *,
    seed: int | None = None,
    epoch: int = 0,
    drop_last: bool = False,
    channels_at_once: int | None = None,
    rank: int = 0,
    world: int = 1,
    whole: bool = False,
) -> EpochBatches:
    """The batches of one epoch, as a stream puts them together or as ``Batches`` does; see there."""
    if isinstance(source, Stream):
        return source.epoch_batches(batch_size, seed=seed, epoch=epoch, rank=rank, world=world)
    return Batches(
        source, batch_size, seed=seed, epoch=epoch, drop_last=drop_last, channels_at_once=channels_at_once, rank=rank,
        world=world, whole=whole,
    )  # fmt: skip
