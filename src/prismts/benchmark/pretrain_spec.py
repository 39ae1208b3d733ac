"""What a pre-training reads and learns: one YAML file as a value, checked before anything is read or trained.

    spec = read_pretrain("benchmarks/specs/pretrain.yaml")
    corpus = spec.make_corpus()

A slip of the pen is an error with its line and the nearest name that exists.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from prismts.benchmark.lines import Lined, in_words, read_lined
from prismts.data.corpus import Corpus, Generated, Member
from prismts.errors import PrismError, SettingsError, unknown_name
from prismts.training.draws import DrawConfig
from prismts.training.fit import FitConfig

__all__ = ["CorpusEntry", "GeneratedEntry", "PretrainSpec", "read_pretrain"]

Count = Annotated[int, Field(ge=1)]
Range = Count | Annotated[list[Count], Field(min_length=2, max_length=2)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class GeneratedEntry(_Entry):
    """Generated series; see ``prismts.data.generator.GeneratorConfig`` and ``prismts.data.corpus.Generated``."""

    n_timepoints: Range | None = None
    n_channels: Range | None = None
    kinds: Mapping[str, Annotated[float, Field(ge=0)]] | None = None
    spikes: Annotated[float, Field(ge=0, le=1)] | None = None
    steps: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    per_epoch: Count = 512
    n_series: Count | None = None
    n_validation: Count = 64
    n_jobs: int = 1


class CorpusEntry(_Entry):
    """One member: a data set by name, files of one's own, or generated series."""

    name: str | None = None  # of the catalog, or what a file or generated series are called
    file: str | None = None  # beside the specification; may hold * for many files
    generated: GeneratedEntry | None = None
    weight: Annotated[float, Field(gt=0)] = 1.0
    train: Annotated[float, Field(gt=0, le=1)] | None = None  # of a file: the first share of every series
    time: str | None = None  # columns of a file, as of the estimators
    series: str | None = None
    values: list[str] | None = None
    frequency: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_source(self) -> CorpusEntry:
        if self.file is not None and self.generated is not None:
            raise ValueError("it should be a name, or have one of file and generated")
        if self.file is None and self.generated is None and self.name is None:
            raise ValueError("it should be a name, or have one of file and generated")
        reading = {"train", "time", "series", "values", "frequency"} & self.model_fields_set
        if self.file is None and reading:
            raise ValueError(f"{', '.join(sorted(reading))} belong to a file")
        return self


class PretrainSpec(_Entry):
    """All that decides what a pre-training ends with; :func:`read_pretrain` reads it from YAML."""

    title: str = ""
    encoder: str = "universal"
    context_length: Count = 256
    encoder_settings: Mapping[str, Any] = Field(default_factory=dict)
    corpus: Annotated[list[CorpusEntry], Field(min_length=1)]
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.1
    tasks: str | list[str] | Mapping[str, Any] = "masked"
    draws: Mapping[str, Any] = Field(default_factory=dict)
    fit_settings: Mapping[str, Any] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0)] = 0
    folder: str = ""  # the folder of the file, which `file` entries start from; set by read_pretrain

    @field_validator("fit_settings", "draws", mode="before")
    @classmethod
    def _tuples(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: tuple(cast(list[Any], one)) if isinstance(one, list) else one
                for name, one in cast(dict[str, Any], value).items()}  # fmt: skip

    @property
    def fit(self) -> FitConfig:
        """How it is trained."""
        from prismts.training.pretrain import PRETRAIN_FIT

        return PRETRAIN_FIT.changed(self.fit_settings)

    def make_corpus(self) -> Corpus:
        """Read and cut all members."""
        members: list[Member | Generated] = []
        for one in self.corpus:
            if one.generated is not None:
                members.append(_generated(one))
            elif one.file is not None:
                members += _files(one, Path(self.folder))
            else:
                members.append(Member.named(str(one.name), weight=one.weight))
        return Corpus(members, held_out=self.held_out)


def read_pretrain(path: str | Path) -> PretrainSpec:
    """The pre-training that a YAML file describes; files are named relative to it.

    Raises:
        SettingsError: for whatever in it cannot work, with the line and what stands nearest to a name that is unknown.
    """
    read = read_lined(path, "of a pre-training")
    if not isinstance(read.content, dict):
        raise SettingsError(f"{read.path.name} holds names and values (name: value), such as corpus: [ETTh2].")
    try:
        spec = PretrainSpec.model_validate({**cast(dict[str, Any], read.content), "folder": str(read.path.parent)})
    except ValidationError as error:
        parts = {"corpus": CorpusEntry, "generated": GeneratedEntry}
        raise in_words(error, read, PretrainSpec, parts) from None
    _check(spec, read)
    return spec


# ---- members


def _generated(one: CorpusEntry) -> Generated:
    from prismts.data.generator import GeneratorConfig

    assert one.generated is not None
    given = one.generated.model_dump(exclude_none=True)
    names = [field.name for field in dataclasses.fields(GeneratorConfig)]
    config = {name: given.pop(name) for name in names if name in given}
    for name in ("n_timepoints", "n_channels"):
        if isinstance(config.get(name), list):
            config[name] = tuple(config[name])
    return Generated(config=GeneratorConfig(**config), weight=one.weight, name=one.name or "generated", **given)


def _files(one: CorpusEntry, folder: Path) -> list[Member]:
    """A member for each number of channels that the files have; a single file is one member."""
    from prismts.data.readers import read
    from prismts.data.series import Collection, Series

    paths = _paths(one, folder)
    reading: dict[str, Any] = {
        name: getattr(one, name) for name in ("time", "series", "values", "frequency") if getattr(one, name) is not None
    }
    name = one.name or paths[0].name.partition(".")[0]
    if len(paths) == 1:
        return [Member.of(paths[0], name=name, weight=one.weight, train=one.train or 1.0, **reading)]
    by_width: dict[int, list[Series]] = {}
    for path in paths:
        found = read(path, **reading)
        some = [found] if isinstance(found, Series) else list(found)
        by_width.setdefault(found.n_channels, []).extend(some)
    members: list[Member] = []
    for width, series in sorted(by_width.items()):
        alike = [dataclasses.replace(case, channels=series[0].channels, borders=None) for case in series]
        called = name if len(by_width) == 1 else f"{name}, {width} channels"
        members.append(Member.of(Collection.of(alike, name=called), name=called, weight=one.weight,
                                 train=one.train or 1.0))  # fmt: skip
    return members


def _paths(one: CorpusEntry, folder: Path) -> list[Path]:
    given = Path(str(one.file))
    whole = given if given.is_absolute() else folder / given
    if "*" not in whole.name:
        return [whole] if whole.exists() else []
    return sorted(whole.parent.glob(whole.name))


# ---- what pydantic cannot know


def _check(spec: PretrainSpec, read: Lined) -> None:
    from prismts.data.catalog import dataset
    from prismts.models import MODELS, make_settings
    from prismts.tasks.combined import PRETRAIN_TASKS, make_pretrain_task

    def tried(place: Sequence[str | int], work: Any) -> None:
        try:
            work()
        except (PrismError, TypeError) as error:
            raise SettingsError(f"{read.at(place)}: {error}") from error

    def known(place: Sequence[str | int], kind: str, name: object, names: Iterable[str]) -> None:
        names = list(names)
        if name not in names:
            raise SettingsError(f"{read.at(place)}: {unknown_name(kind, name, names)}")

    encoders = {name: one for name, one in MODELS.items() if one.is_encoder}
    known(("encoder",), "encoder", spec.encoder, encoders)
    config = encoders[spec.encoder].config
    for name in spec.encoder_settings:
        fields = [field.name for field in dataclasses.fields(config)]
        known(("encoder_settings", name), f"setting of {spec.encoder!r}", name, fields)
    tried(("encoder_settings",), lambda: make_settings(config, spec.encoder_settings))
    for name in spec.tasks if isinstance(spec.tasks, Mapping) else ():
        known(("tasks", name), "pre-training task", name, PRETRAIN_TASKS)
        tried(("tasks", name), lambda name=name: make_pretrain_task({name: cast(Any, spec.tasks)[name]}))
    tried(("tasks",), lambda: make_pretrain_task(cast(Any, spec.tasks)))
    for key, kind in (("fit_settings", FitConfig), ("draws", DrawConfig)):
        for name in getattr(spec, key):
            known(
                (key, name), key.replace("_", " ").rstrip("s"), name, [field.name for field in dataclasses.fields(kind)]
            )
    tried(("fit_settings",), lambda: spec.fit)
    tried(("draws",), lambda: make_settings(DrawConfig, spec.draws))
    names: list[str] = []
    for number, one in enumerate(spec.corpus):
        place = ("corpus", number)
        if one.generated is not None:
            tried(place, lambda one=one: _generated(one))
            name = one.name or "generated"
        elif one.file is not None:
            if not _paths(one, Path(spec.folder)):
                raise SettingsError(f"{read.at(place)}: there is no file {one.file!r} beside the specification.")
            name = one.name or _paths(one, Path(spec.folder))[0].name.partition(".")[0]
        else:
            tried(place, lambda one=one: dataset(str(one.name)))
            name = dataset(str(one.name)).name
        if name in names:
            raise SettingsError(f"{read.at(place)}: two members would be called {name!r}. Give one another name.")
        names.append(name)
