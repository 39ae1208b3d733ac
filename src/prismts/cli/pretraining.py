"""Pre-train the encoder of a universal model: a specification file becomes a model folder."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console

from prismts.cli.app import app
from prismts.cli.files import free_place, run_beside
from prismts.cli.options import Quiet, Replace, Whole

if TYPE_CHECKING:
    from prismts.benchmark.pretrain_spec import PretrainSpec
    from prismts.data.corpus import Corpus

__all__ = ["pretrain"]


@app.command
def pretrain(
    spec: Path,
    *,
    out: Path,
    epochs: Whole | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    replace: Replace = False,
    quiet: Quiet = False,
) -> None:
    """Train an encoder without labels on many series, and save it as a universal model without heads.

    A run that was killed goes on after its last checkpoint when the same command is given again, and ends as if it had
    not been killed. Where no bar can be drawn, a line is printed after every checkpoint.

    Args:
        spec: The YAML file that says what to read and to learn, such as benchmarks/specs/pretrain.yaml.
        out: The model folder to write, which prismts.load reads.
        epochs: As many checkpoints, in place of max_epochs in the file.
        dry_run: Print what the corpus holds and what would be trained, and train nothing.
    """
    from prismts.benchmark.pretrain_spec import read_pretrain
    from prismts.estimators.universal import UniversalModel
    from prismts.training.watch import watching

    specification = read_pretrain(spec)
    if not dry_run:
        out = free_place(out, replace)
    corpus = specification.make_corpus()
    config = specification.fit.changed(None if epochs is None else {"max_epochs": epochs})
    if dry_run:
        sys.stdout.write(f"{_plan(specification, corpus, config.max_epochs, config.batch_size)}\n")
        return
    console = Console(stderr=True, quiet=quiet)

    def tell(entry: Mapping[str, float]) -> None:
        if console.is_terminal:  # the bar says it
            return
        rest = entry["seconds"] * (config.max_epochs - entry["epoch"]) / 60
        held = f", held out {entry['val_loss']:.5g}" if "val_loss" in entry else ""
        console.print(
            f"epoch {entry['epoch']:.0f} of {config.max_epochs}: train {entry['train_loss']:.5g}{held}, "
            f"{entry['seconds']:.1f} s, about {rest:.0f} min to go"
        )

    with run_beside(out) as run, watching(tell):
        model = UniversalModel(
            specification.encoder, context_length=specification.context_length,
            encoder_settings=dict(specification.encoder_settings), random_state=specification.seed, progress=not quiet,
            run_folder=run,
        )  # fmt: skip
        model.pretrain(corpus, tasks=specification.tasks, config=config, draws=dict(specification.draws))
        model.save(out)
    result = model.pretrain_result_
    assert result is not None
    for note in corpus.notes:
        console.print(f"note: {note}")
    console.print(
        f"pre-trained {result.seconds / 60:.1f} min, best epoch {result.best_epoch} of {len(result.history)}, "
        f"loss {result.best_loss:.5g}   saved: {out}   next: prismts.load({str(out)!r}).fit(...)"
    )


def _plan(spec: PretrainSpec, corpus: Corpus, n_epochs: int, batch_size: int) -> str:
    """What a run would do, and on what."""
    from prismts.models import MODELS, make_settings
    from prismts.models.contract import Encoder
    from prismts.tasks.combined import make_pretrain_task
    from prismts.training.draws import CorpusDraws, DrawConfig

    architecture = MODELS[spec.encoder]
    encoder = architecture.build(
        make_settings(architecture.config, spec.encoder_settings), n_channels=1, context_length=spec.context_length
    )
    assert isinstance(encoder, Encoder)
    draws = make_settings(DrawConfig, spec.draws).fitting(encoder)
    lines = [str(corpus), ""]
    for validation in (False, True) if corpus.held_out else (False,):
        source = CorpusDraws(corpus, draws, validation=validation)
        buckets = source.buckets(source.part(0))
        lengths = sorted({bucket.length for bucket in buckets})
        bundles = sorted({bucket.bundle for bucket in buckets})
        lines.append(
            f"windows {'held out' if validation else 'to learn from'}: of {', '.join(map(str, lengths))} steps and "
            f"{', '.join(map(str, bundles))} channels"
        )
    n_weights = sum(parameter.numel() for parameter in encoder.parameters())
    n_steps = n_epochs * draws.steps_per_epoch
    lines += [
        f"encoder: {spec.encoder}, {n_weights:,} weights, tokens of {encoder.width} numbers, context "
        f"{spec.context_length}",
        f"tasks: {make_pretrain_task(spec.tasks)}",
        f"steps: {n_steps:,} of {batch_size} channels each, a checkpoint every {draws.steps_per_epoch}",
    ]
    return "\n".join(lines)
