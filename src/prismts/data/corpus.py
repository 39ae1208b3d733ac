"""A corpus: many series of different length, rate and width, of which each gives its training part only.

    from prismts.data.corpus import Corpus, Generated
    corpus = Corpus.of("ETTh2", "Weather", "my_plant.csv", Generated(seed=1))
    print(corpus)

Of a set with official borders, what lies behind the border of the training part is never read into the corpus, neither
its validation nor its test part. The end of every training part is held out once more, to validate the pre-training.

Borders keep test parts apart, but a set may be the twin of another: each row of ETTh1 is a row of ETTm1, each of ETTh2
one of ETTm2. Their training parts end on the same day, so no test part leaks; but a model that was pre-trained on one
of them has *seen* the other, and a zero-shot number on it would be none. ``Corpus.has_seen`` knows.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prismts.data.generator import GeneratorConfig, generate_many
from prismts.data.packing import Packed
from prismts.data.series import Collection, Series
from prismts.errors import DataError, PrismError, SettingsError, unknown_name

__all__ = ["TWINS", "Corpus", "Generated", "Member"]

# sets that hold the same measurements at two rates
TWINS = (("ETTh1", "ETTm1"), ("ETTh2", "ETTm2"))
_CASES = 10  # from so many series on, whole series are held out instead of the ends of all
_VALIDATION = 2**32  # generated series from this number on validate


@dataclass(frozen=True, eq=False)
class Member:
    """One set of series in a corpus: its training part, and how often it is drawn."""

    name: str
    data: Collection  # the training part alone
    weight: float = 1.0  # of the chance to be drawn, beside what the size gives
    origin: str = "given"  # "data set", "file" or "given"
    note: str = ""  # what part of the source this is

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise SettingsError(f"The weight of {self.name!r} is above 0, but got {self.weight}. Leave it out instead.")
        if not len(self.data) or not self.data.lengths.any():
            raise DataError(f"The training part of {self.name!r} is empty.")

    @classmethod
    def named(cls, name: str, *, weight: float = 1.0) -> Member:
        """The training part of a data set of the catalog."""
        from prismts.data.catalog import load_dataset

        loaded = load_dataset(name)
        if isinstance(loaded, Collection):
            if loaded.n_train is None:
                return cls(loaded.name, loaded, weight, "data set", "all cases")
            return cls(loaded.name, loaded.train, weight, "data set", f"{loaded.n_train} official training cases")
        if loaded.borders is None:
            raise DataError(
                f"{loaded.name} has no official training part, so nothing says what of it is test. Pass a part of it "
                "as a series of your own: Member.of(load_dataset(name).part(0, end), name=...)."
            )
        end = loaded.borders.train_end
        part = Collection.of(loaded.part(0, end), name=loaded.name)
        return cls(loaded.name, part, weight, "data set", f"steps 0 to {end} of {len(loaded)}")

    @classmethod
    def of(
        cls, data: Any, *, name: str | None = None, weight: float = 1.0, train: float = 1.0, **reading: Any
    ) -> Member:
        """A path, a table, arrays or series; ``train`` is the first share of every series that may be learned from.

        Further arguments are those of :func:`prismts.data.readers.read`. A series that brings borders of its own gives
        its training part.
        """
        from prismts.data.readers import read

        if not 0 < train <= 1:
            raise SettingsError(f"train is the first share of each series, above 0 and at most 1, but got {train}.")
        found = read(data, **reading)
        note, origin = "", "file" if isinstance(data, str | Path) else "given"
        if isinstance(found, Series) and found.borders is not None:
            note = f"steps 0 to {found.borders.train_end} of {len(found)}"
            found = found.part(0, found.borders.train_end)
        if isinstance(found, Collection) and found.n_train is not None:
            note, found = f"{found.n_train} official training cases", found.train
        whole = Collection.of(found) if isinstance(found, Series) else found
        if whole.borders:
            ends = [len(one) if one.borders is None else one.borders.train_end for one in whole]
            whole = Collection.of([one.part(0, end) for one, end in zip(whole, ends, strict=True)], name=whole.name)
            note = "the official training part of each series"
        if train < 1.0:
            whole = Collection.of([one.part(0, int(len(one) * train)) for one in whole], name=whole.name)
            note = f"the first {train:.0%} of {note or 'each series'}"
        return cls(name or whole.name, whole, weight, origin, note)

    def parts(self, held_out: float) -> tuple[list[NDArray[np.floating]], list[NDArray[np.floating]]]:
        """Values [C, T] to train on and those held out: some series of many, the end of each of few."""
        values = [self.data.values[:, a:b] for a, b in zip(self.data.offsets[:-1], self.data.offsets[1:], strict=True)]
        if held_out == 0:
            return values, []
        if len(values) >= _CASES:
            every = max(2, round(1 / held_out))
            last = [i % every == every - 1 for i in range(len(values))]
            return (
                [one for one, out in zip(values, last, strict=True) if not out],
                [one for one, out in zip(values, last, strict=True) if out],
            )
        cuts = [int(one.shape[1] * (1 - held_out)) for one in values]
        pairs = list(zip(values, cuts, strict=True))
        return [one[:, :cut] for one, cut in pairs], [one[:, cut:] for one, cut in pairs]


@dataclass(frozen=True, kw_only=True)
class Generated:
    """Generated series, made while training goes on: other ones in every epoch, so that none has to be kept.

    Series number i of ``seed`` is what :func:`prismts.data.generator.generate` makes. In epoch e they are the numbers
    from e * ``per_epoch`` on; with ``n_series``, they begin again behind the last one.
    """

    config: GeneratorConfig = field(default_factory=GeneratorConfig)
    seed: int = 0
    per_epoch: int = 512  # series that an epoch sees
    n_series: int | None = None  # None: new ones without end
    n_validation: int = 64  # series that validate, which are never trained on
    weight: float = 1.0
    n_jobs: int = 1  # processes that make them
    name: str = "generated"

    def __post_init__(self) -> None:
        if min(self.per_epoch, self.n_validation) < 1 or (self.n_series is not None and self.n_series < 1):
            raise SettingsError(
                f"per_epoch, n_validation and n_series are at least 1, but got {self.per_epoch}, {self.n_validation}, "
                f"{self.n_series}."
            )
        if not self.weight > 0:
            raise SettingsError(f"The weight of {self.name!r} is above 0, but got {self.weight}. Leave it out instead.")

    def numbers(self, epoch: int) -> list[int]:
        """Which series an epoch sees."""
        first = epoch * self.per_epoch
        numbers = range(first, first + self.per_epoch)
        return list(numbers) if self.n_series is None else sorted({i % self.n_series for i in numbers})

    def train(self, epoch: int) -> list[NDArray[np.floating]]:
        """Values [C, T] of the series of an epoch."""
        return self._made(self.numbers(epoch))

    def validation(self) -> list[NDArray[np.floating]]:
        """Values [C, T] of the series that validate."""
        return self._made([_VALIDATION + i for i in range(self.n_validation)])

    def _made(self, numbers: list[int]) -> list[NDArray[np.floating]]:
        return [one.values for one in generate_many(numbers, self.config, seed=self.seed, n_jobs=self.n_jobs)]


class Corpus:
    """Several members as one, each drawn by its weight times the root of its number of values.

    The root lets a small set be heard beside a large one without being learned by heart; generated series count as
    many values as an epoch sees of them.

    Args:
        members: real ones and generated ones, each with its own name.
        held_out: share of every training part, at its end, that validates. A member of ten series or more holds out
            whole series instead, evenly spread.
    """

    def __init__(self, members: Sequence[Member | Generated], *, held_out: float = 0.1) -> None:
        if not members:
            raise DataError('A corpus needs at least one member. Name a data set, such as Corpus.of("ETTh2").')
        if not 0 <= held_out < 1:
            raise SettingsError(f"held_out is a share of every training part, from 0 to below 1, but got {held_out}.")
        names = [member.name for member in members]
        for name in names:
            if names.count(name) > 1:
                raise SettingsError(f"Two members of the corpus are called {name!r}. Give one another name.")
        self.members, self.held_out = tuple(members), held_out
        self._real: dict[str, Packed] = {}

    @classmethod
    def of(cls, *sources: Any, held_out: float = 0.1) -> Corpus:
        """Members from names of data sets, paths, series, tables, arrays, or as they are."""
        return cls([_member(source) for source in sources], held_out=held_out)

    def train(self, epoch: int = 0) -> Packed:
        """All that an epoch may draw from."""
        blocks = [self._packed("train")]
        for number, member in enumerate(self.members):
            if isinstance(member, Generated):
                blocks.append(Packed.of(member.train(epoch), number))
        return Packed.joined(blocks)

    def validation(self) -> Packed:
        """All that validates, the same in every epoch; without a series where nothing is held out."""
        blocks = [self._packed("validation")]
        if self.held_out:
            for number, member in enumerate(self.members):
                if isinstance(member, Generated):
                    blocks.append(Packed.of(member.validation(), number))
        return Packed.joined(blocks)

    def chances(self, packed: Packed) -> NDArray[np.float64]:
        """How often each series [S] of a part is drawn: weight and root of the size of its member, shared by size."""
        size = (packed.n_channels * packed.n_timepoints).astype(np.float64)
        whole = np.bincount(packed.member, weights=size, minlength=len(self.members))
        weight = np.array([member.weight for member in self.members])
        share = weight * np.sqrt(whole)  # [M]
        chance = share[packed.member] * size / whole[packed.member]
        return chance / chance.sum()

    def has_seen(self, name: str) -> bool:
        """Whether a data set, or its twin at another rate, is among the members: then no number on it is zero-shot.

        A set is known by its name: that of the member, of the file, or of the series or collection that was given.
        """
        from prismts.data.catalog import dataset

        official = dataset(name).name
        real = [member for member in self.members if isinstance(member, Member)]
        told = {one.lower() for member in real for one in (member.name, member.data.name, *member.data.names)}
        seen = {one for one in (official, *itertools.chain(*TWINS)) if one.lower() in told}
        return official in seen or any(official in pair and seen & set(pair) for pair in TWINS)

    @property
    def notes(self) -> list[str]:
        """What one has to know before a number made with this corpus is believed."""
        names = {member.name for member in self.members}
        return [
            f"{one} is every fourth row of {four}: a model that was trained on either has seen both."
            for one, four in TWINS
            if {one, four} & names
        ]

    @property
    def fingerprint(self) -> str:
        """Differs where the series, the weights or what is held out differ."""
        found = hashlib.sha256()
        for member in self.members:
            if isinstance(member, Generated):
                told = {k: v for k, v in asdict(member).items() if k not in ("n_jobs",)}
                found.update(json.dumps(told, sort_keys=True).encode())
            else:
                found.update(json.dumps([member.name, member.weight, member.data.offsets.tolist()]).encode())
                found.update(np.ascontiguousarray(member.data.values).ravel().data)
        found.update(str(self.held_out).encode())
        return found.hexdigest()

    def describe(self) -> list[dict[str, Any]]:
        """One row for each member: name, series, channels, steps, values, share of the draws, and where it is from."""
        trained, checked = self.train(), self.validation()
        chance = self.chances(trained)
        rows: list[dict[str, Any]] = []
        for number, member in enumerate(self.members):
            mine = trained.member == number
            generated = isinstance(member, Generated)
            widths, lengths = trained.n_channels[mine], trained.n_timepoints[mine]
            rows.append({
                "member": member.name,
                "series": int(mine.sum()),
                "channels": _range(widths),
                "steps": _range(lengths),
                "values": int((widths * lengths).sum()),
                "share": float(chance[mine].sum()),
                "held_out": int((checked.n_channels * checked.n_timepoints)[checked.member == number].sum()),
                "frequency": "" if generated else member.data.frequency or "",
                "note": f"{member.per_epoch} new series an epoch" if generated and member.n_series is None
                else f"{member.n_series} series" if generated else member.note,
            })  # fmt: skip
        return rows

    def __str__(self) -> str:
        rows = self.describe()
        names = ("member", "series", "channels", "steps", "values", "share", "held_out", "frequency", "note")
        cells = [[name.replace("_", " ") for name in names]] + [
            [f"{row[name]:.1%}" if name == "share" else f"{row[name]:,}" if isinstance(row[name], int) else row[name]
             for name in names] for row in rows
        ]  # fmt: skip
        widths = [max(len(line[c]) for line in cells) for c in range(len(names))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
        return "\n".join([*(line.rstrip() for line in lines), *self.notes])

    def _packed(self, part: str) -> Packed:
        """The real members, packed once."""
        if not self._real:
            blocks: Mapping[str, list[Packed]] = {"train": [], "validation": []}
            for number, member in enumerate(self.members):
                if isinstance(member, Member):
                    for name, values in zip(blocks, member.parts(self.held_out), strict=True):
                        blocks[name].append(Packed.of(values, number))
            self._real = {name: Packed.joined(some) for name, some in blocks.items()}
        return self._real[part]


def _member(source: Any) -> Member | Generated:
    if isinstance(source, Member | Generated):
        return source
    if isinstance(source, str) and not Path(source).suffix and not Path(source).exists():
        from prismts.data.catalog import dataset, list_datasets

        try:
            dataset(source)
        except PrismError as error:
            names = [entry.name for entry in list_datasets() if entry.collection is None]
            raise error if "collection" in str(error) else unknown_name("data set", source, names) from None
        return Member.named(source)
    return Member.of(source)


def _range(numbers: NDArray[np.int64]) -> str:
    low, high = int(numbers.min()), int(numbers.max())
    return f"{low:,}" if low == high else f"{low:,}-{high:,}"
