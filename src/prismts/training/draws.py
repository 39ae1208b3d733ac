"""Windows of a corpus, drawn at random, whole batches at a time: what pre-training reads.

All windows of a batch have one length and one number of channels, so that nothing is padded and a batch is one gather
over all series of all members; both change from batch to batch. Step k of epoch e depends on the seed, e and k alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from prismts.data.corpus import Corpus, Generated
from prismts.data.packing import Packed
from prismts.errors import DataError, SettingsError
from prismts.models.contract import Encoder
from prismts.windows import Batch

__all__ = ["CorpusDraws", "DrawConfig"]

_AHEAD = 2  # batches that are made while the last one is learned from
_FLAT = 0.05  # of the scale of its series: a window that moves less is not blown up beyond
_CHECKED = 64  # channels at most in a batch of validation, so that it meets many lengths and bundles
_SEEN = 0.5  # share of its points at least that a window should have, or it is drawn once more


@dataclass(frozen=True, kw_only=True)
class DrawConfig:
    """Which windows of a corpus are read. Lengths are in time steps."""

    lengths: tuple[int, ...] | None = None  # None: the encoder's context length, its half and its quarter
    bundles: tuple[int, ...] | None = None  # channels of a window; None: 1, 2, 4, 8, as the corpus has them
    steps_per_epoch: int = 200  # a checkpoint and a validation come after so many
    n_validation: int = 1024  # windows of one channel, or as many points in wider ones

    def __post_init__(self) -> None:
        for name in ("lengths", "bundles"):
            given = getattr(self, name)
            if given is None:
                continue
            numbers = tuple(given) if isinstance(given, list | tuple) else (given,)
            if not numbers or min(numbers) < 1 or len(set(numbers)) < len(numbers):
                raise SettingsError(f"{name} are different numbers of at least 1, but got {given}.")
            object.__setattr__(self, name, tuple(sorted(numbers)))
        if min(self.steps_per_epoch, self.n_validation) < 1:
            raise SettingsError(
                f"steps_per_epoch and n_validation are at least 1, but got {self.steps_per_epoch} and "
                f"{self.n_validation}."
            )

    def fitting(self, encoder: Encoder) -> DrawConfig:
        """The same with what it leaves open filled in for an encoder; one bound to C channels gets windows of C."""
        lengths, bundles = self.lengths, self.bundles
        if lengths is None:
            least = min(encoder.context_length, 2 * encoder.patch_length)
            halves = (encoder.context_length // part for part in (1, 2, 4))
            lengths = tuple(sorted({n for n in halves if n >= least}))
        if encoder.n_channels is not None:
            if bundles not in (None, (encoder.n_channels,)):
                raise SettingsError(
                    f"This encoder is bound to {encoder.n_channels} channels, so bundles can only be "
                    f"({encoder.n_channels},), but got {bundles}."
                )
            bundles = (encoder.n_channels,)
        return DrawConfig(
            lengths=lengths, bundles=bundles or (1, 2, 4, 8), steps_per_epoch=self.steps_per_epoch,
            n_validation=self.n_validation,
        )  # fmt: skip


class CorpusDraws:
    """A stream of windows [B, W, T] from a corpus, each channel at mean 0 and scale 1 within its window.

    A batch draws its length (longer ones more often, by their length) and its bundle W, then for every window a series
    that has both (see ``Corpus.chances``), a place in it, and W of its channels. ``batch_size`` counts channels, so a
    batch has about ``batch_size / W`` windows. A series shorter than the shortest length, but of half of it at least,
    gives windows that end early, marked as unobserved; shorter ones give none.

    A window that moves less than a twentieth as much as its series does is scaled by that twentieth, so that a flat one
    is not made of rounding errors. One of which less than half was observed is drawn once more.

    Args:
        corpus: where series come from.
        config: lengths and bundles, none left open (see ``DrawConfig.fitting``).
        validation: draws from what is held out, and the same windows in every epoch.
        seed: of the windows of validation.
        exact: every window has all channels of its series, in their order; for encoders that are bound to them.

    Raises:
        DataError: no series has room for a window.
    """

    def __init__(
        self, corpus: Corpus, config: DrawConfig, *, validation: bool = False, seed: int = 0, exact: bool = False
    ) -> None:
        if config.lengths is None or config.bundles is None:
            raise SettingsError(
                "Say which lengths and bundles to draw, or fill them in by DrawConfig.fitting(encoder)."
            )
        self.corpus, self.config, self.for_validation, self.seed = corpus, config, validation, seed
        self.exact, self.lengths, self.bundles = exact, config.lengths, config.bundles
        self._latest: tuple[int, Packed] | None = None
        self._next: tuple[int, Future[Packed]] | None = None
        if not any(self.buckets(self.part(0))):
            part = self.part(0)
            longest = int(part.n_timepoints.max(initial=0))
            widths = sorted(set(part.n_channels.tolist()))
            asked = f"{self.lengths[0]} steps or more and {' or '.join(map(str, self.bundles))} channels"
            held = " that is held out to validate" if validation else ""
            less = ", or Corpus(..., held_out=0) to validate on nothing" if validation else ""
            raise DataError(
                f"No window fits: they have {asked}, but the longest series{held} has {longest} steps, and series have "
                f"{', '.join(map(str, widths)) or 'no'} channels. Take shorter lengths, or more data{less}."
            )

    @property
    def n_channels(self) -> int:
        """The most channels of a window."""
        return max(self.bundles)

    def part(self, epoch: int) -> Packed:
        """The series an epoch draws from; those of the latest epoch are kept."""
        epoch = 0 if self.for_validation else epoch
        if self._latest is None or self._latest[0] != epoch:
            if self._next is not None and self._next[0] == epoch:
                self._latest, self._next = (epoch, self._next[1].result()), None
            else:
                self._latest = (epoch, self.corpus.validation() if self.for_validation else self.corpus.train(epoch))
        return self._latest[1]

    def prepare(self, epoch: int) -> None:
        """Let the series of an epoch be made while the one before is learned from, where other processes make them."""
        others = any(isinstance(member, Generated) and member.n_jobs != 1 for member in self.corpus.members)
        if others and not self.for_validation:
            pool = ThreadPoolExecutor(1)
            self._next = (epoch, pool.submit(self.corpus.train, epoch))
            pool.shutdown(wait=False)

    def buckets(self, part: Packed) -> list[_Bucket]:
        """Every length with every bundle that some series has room for."""
        chances = self.corpus.chances(part) if len(part) else np.empty(0)
        found: list[_Bucket] = []
        for length in self.lengths:
            least = length if length > self.lengths[0] else -(-length // 2)
            long = part.n_timepoints >= least
            for bundle in self.bundles:
                wide = part.n_channels == bundle if self.exact else part.n_channels >= bundle
                series = np.flatnonzero(long & wide)
                if len(series):
                    found.append(_Bucket(length, bundle, series, chances[series]))
        return found

    def epoch_batches(self, batch_size: int, *, seed: int | None, epoch: int, rank: int = 0, world: int = 1) -> _Drawn:
        """The batches of an epoch; in validation the same windows in every epoch, shared out among processes."""
        if not self.for_validation:
            return _Drawn(self, batch_size, seed or 0, epoch, rank, world, self.config.steps_per_epoch, apart=False)
        size = min(batch_size, _CHECKED)
        n = -(-self.config.n_validation // size)
        return _Drawn(self, size, self.seed, 0, rank, world, n, apart=True)

    def batch(self, part: Packed, bucket: _Bucket, n: int, rng: Generator) -> Batch:
        """``n`` windows of one length and width."""
        series, channels, first = self._places(part, bucket, n, rng)
        x = part.gather(series, channels, first, bucket.length)  # [B, W, T]
        empty = np.isnan(x).mean((1, 2)) > 1 - _SEEN
        others = self._places(
            part, bucket, n, rng
        )  # drawn in any case, so that batches of other windows stay as they are
        if empty.any():
            for mine, other in zip((series, channels, first), others, strict=True):
                mine[empty] = other[empty]
            x[empty] = part.gather(series[empty], channels[empty], first[empty], bucket.length)
        values = torch.from_numpy(x)
        observed = ~values.isnan()
        complete = bool(observed.all())
        values = values if complete else values.masked_fill(~observed, 0.0)
        count = observed.sum(-1, keepdim=True).clamp(min=1)
        values = values - values.sum(-1, keepdim=True) / count
        values = values if complete else values.masked_fill(~observed, 0.0)
        scale = (values.square().sum(-1, keepdim=True) / count).sqrt().clamp(min=_FLAT)
        values = values / scale
        return Batch(
            values, values[..., :0], None if complete else observed, None, torch.from_numpy(series),
            torch.from_numpy(first),
        )  # fmt: skip

    def _places(
        self, part: Packed, bucket: _Bucket, n: int, rng: Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Series [B], channels [B, W] and first steps [B] of windows."""
        series = bucket.series[np.searchsorted(bucket.cumulative, rng.random(n), side="right")]
        room = np.maximum(part.n_timepoints[series] - bucket.length, 0)
        first = (rng.random(n) * (room + 1)).astype(np.int64)
        n_channels = part.n_channels[series]
        key = rng.random((n, int(part.n_channels[bucket.series].max())))
        key[np.arange(key.shape[1]) >= n_channels[:, None]] = 2.0  # no such channel
        channels = np.sort(np.argsort(key, axis=1)[:, : bucket.bundle], axis=1)
        return series, channels, first


@dataclass(frozen=True, eq=False)
class _Bucket:
    """Series that have room for windows of one length and one number of channels."""

    length: int
    bundle: int
    series: NDArray[np.int64]  # [S]
    chance: NDArray[np.float64]  # [S]

    @cached_property
    def cumulative(self) -> NDArray[np.float64]:
        """Sums of chances up to each series, the last one 1."""
        total = np.cumsum(self.chance)
        return np.append(total[:-1] / total[-1], 1.0)

    @property
    def weight(self) -> float:
        """How often such windows are drawn: by what the series in it count, and by their length."""
        return self.length * float(self.chance.sum())


class _Drawn:
    """The batches of one epoch."""

    def __init__(
        self, draws: CorpusDraws, batch_size: int, seed: int, epoch: int, rank: int, world: int, n: int, *, apart: bool
    ) -> None:
        self.draws, self.batch_size, self.seed, self.epoch = draws, batch_size, seed, epoch
        self.rank, self.world, self.n_steps, self.apart = rank, world, n, apart

    def __len__(self) -> int:
        return len(range(self.rank, self.n_steps, self.world)) if self.apart else self.n_steps

    def __iter__(self) -> Iterator[Batch]:
        part = self.draws.part(self.epoch)
        buckets = self.draws.buckets(part)
        weights = np.array([bucket.weight for bucket in buckets])

        def make(step: int) -> Batch:
            rng = np.random.default_rng((int(self.apart), self.seed, self.epoch, step))
            bucket = buckets[int(rng.choice(len(buckets), p=weights / weights.sum()))]
            rows = self.batch_size if self.draws.exact else max(1, self.batch_size // bucket.bundle)
            batch = self.draws.batch(part, bucket, max(rows, self.world), rng)
            if not self.apart and self.world > 1:
                mine = torch.from_numpy(np.array_split(np.arange(len(batch.context)), self.world)[self.rank])
                batch = Batch(*(None if one is None else one[mine] for one in batch))  # type: ignore[arg-type]
            return batch

        self.draws.prepare(self.epoch + 1)
        first, every = (self.rank, self.world) if self.apart else (0, 1)
        return _made_ahead(make, range(first, self.n_steps, every))


def _made_ahead(make: Callable[[int], Batch], steps: Iterable[int]) -> Iterator[Batch]:
    """Batches in the order of the steps, made by another thread a few steps before they are asked for."""
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[Batch]] = deque()
        for step in steps:
            waiting.append(pool.submit(make, step))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
