"""Batches of several tasks at once, from data of different channels and lengths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prismts.errors import SettingsError
from prismts.training.batches import Source

__all__ = ["MixedSource"]


class MixedSource:
    """Several sources as one: a batch is a mapping from the name of a source to a batch of its own.

    Arrays of different channel counts and lengths do not fit into one tensor, so the parts of a batch stay apart; one
    step of training reads them all. Items of all sources are shuffled together, so a batch holds about as much of each
    as its share, and now and then nothing of a small one.

    Args:
        sources: by name; each numbered from 0.
        n_items: how many items of each source an epoch reads: a source with fewer is read over and over, of one with
            more, every k-th item is read. None reads every item once.
        channels_at_once: a source named in ``apart`` with more channels gives a group of at most so many to a batch,
            drawn by the number of its first item in it.
        apart: names of the sources whose channels the model reads apart.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        *,
        n_items: int | Mapping[str, int] | None = None,
        channels_at_once: int | None = None,
        apart: frozenset[str] | None = None,
    ) -> None:
        if not sources:
            raise SettingsError("A mixed source needs at least one source, but got none.")
        self.sources = dict(sources)
        self.channels_at_once = channels_at_once
        self.apart = frozenset(self.sources) if apart is None else apart
        counts: list[int] = []
        for name, source in self.sources.items():
            wanted = n_items[name] if isinstance(n_items, Mapping) else n_items
            counts.append(len(source) if wanted is None else int(wanted))
            if counts[-1] < 1 or not len(source):
                raise SettingsError(f"Source {name!r} gives no items: it has {len(source)}, {counts[-1]} are wanted.")
        self.edges = np.concatenate([[0], np.cumsum(counts)])  # where the numbers of each source begin

    @property
    def n_channels(self) -> int:
        """C of the widest source."""
        return max(source.n_channels for source in self.sources.values())

    @property
    def counts(self) -> dict[str, int]:
        """How many items of each source an epoch reads."""
        return dict(zip(self.sources, np.diff(self.edges).tolist(), strict=True))

    def __len__(self) -> int:
        return int(self.edges[-1])

    def batch(self, index: NDArray[np.int64], channels: slice = slice(None)) -> dict[str, Any]:
        """The items of these numbers [B], by the name of their source; a source without an item is left out."""
        index = np.asarray(index)
        if index.size and not (index.min() >= 0 and index.max() < len(self)):
            raise IndexError(f"Items are numbered 0 to {len(self) - 1}, but got {index.min()} to {index.max()}.")
        which = np.searchsorted(self.edges, index, side="right") - 1
        found: dict[str, Any] = {}
        for s, (name, source) in enumerate(self.sources.items()):
            number = index[which == s] - self.edges[s]
            if not number.size:
                continue
            wanted, n = int(self.edges[s + 1] - self.edges[s]), len(source)
            item = number % n if wanted >= n else number * n // wanted
            found[name] = source.batch(item, self._group(name, source, int(item[0])))
        return found

    def _group(self, name: str, source: Source, item: int) -> slice:
        """All channels, or a group of them, drawn by the number of an item.

        Not its remainder: of items that lie evenly apart, as the first ones of batches in order and every k-th one do,
        remainders can leave a group out for good.
        """
        n, most = source.n_channels, self.channels_at_once
        if most is None or n <= most or name not in self.apart:
            return slice(None)
        n_groups = -(-n // most)
        edges = np.linspace(0, n, n_groups + 1).astype(int)
        group = int(np.random.default_rng(item).integers(n_groups))
        return slice(int(edges[group]), int(edges[group + 1]))
