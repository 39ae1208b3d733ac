"""Pre-training: what is drawn, that it teaches the encoder, and that a killed run ends like an unbroken one."""

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from prismts.data.corpus import Corpus, Generated, Member
from prismts.data.generator import GeneratorConfig
from prismts.data.series import Collection, Series
from prismts.data.synthetic import random_walk, sine_mixture
from prismts.errors import DataError, SavedModelError, SettingsError
from prismts.models import MODELS, make_settings
from prismts.tasks.combined import make_pretrain_task
from prismts.training.batches import Stream
from prismts.training.checkpoint import read_tree
from prismts.training.draws import CorpusDraws, DrawConfig
from prismts.training.pretrain import PRETRAIN_FIT, as_corpus, pretrain
from prismts.training.watch import watching

HERE = str(Path(__file__).parent)
SMALL = {"patch_length": 8, "stride": 4, "width": 8, "feed_forward": 16, "kernel_sizes": (3, 5), "dropout": 0.2}
QUICK = PRETRAIN_FIT.changed({"max_epochs": 3, "batch_size": 16})
DRAWS = {"steps_per_epoch": 4, "n_validation": 16}


def small_corpus(**more) -> Corpus:
    waves = Member("waves", Collection.of(Series(sine_mixture(900, periods=(12.0, 30.0), n_channels=3, seed=0).values)))
    made = Generated(config=GeneratorConfig(n_timepoints=(80, 160), n_channels=(1, 3)), per_epoch=8, n_validation=8)
    return Corpus([waves, made], **more)


def small_encoder(n_channels: int = 3, seed: int = 0, context_length: int = 48, **changes):
    torch.manual_seed(seed)
    config = make_settings(MODELS["convtimenet"].config, {**SMALL, **changes})
    return MODELS["convtimenet"].build(config, n_channels=n_channels, context_length=context_length)


def draws_of(corpus: Corpus, validation: bool = False, **settings) -> CorpusDraws:
    config = DrawConfig(**{"lengths": (16, 32), "bundles": (1, 2), "steps_per_epoch": 12, **settings})
    return CorpusDraws(corpus, config, validation=validation)


# ---- what is drawn


def test_batches_depend_on_seed_and_epoch_alone_and_have_one_length_and_width():
    first, again = draws_of(small_corpus()), draws_of(small_corpus())
    assert isinstance(first, Stream)
    list(again.epoch_batches(8, seed=5, epoch=0))  # whatever was drawn before
    seen = set()
    for one, two in zip(first.epoch_batches(8, seed=5, epoch=3), again.epoch_batches(8, seed=5, epoch=3), strict=True):
        torch.testing.assert_close(one.context, two.context, rtol=0, atol=0)
        n, width, length = one.context.shape
        assert n == 8 // width and one.target.shape == (n, width, 0)
        seen.add((length, width))
    assert len(seen) > 1 and seen <= {(16, 1), (16, 2), (32, 1), (32, 2)}
    other = next(iter(first.epoch_batches(8, seed=6, epoch=3)))
    third = next(iter(first.epoch_batches(8, seed=5, epoch=4)))
    same = next(iter(first.epoch_batches(8, seed=5, epoch=3)))
    assert not any(
        x.context.shape == same.context.shape and torch.equal(x.context, same.context) for x in (other, third)
    )


def test_every_channel_of_a_window_is_at_mean_zero_and_scale_one_and_a_flat_one_is_not_blown_up():
    for batch in draws_of(small_corpus()).epoch_batches(16, seed=0, epoch=0):
        assert batch.context.mean(-1).abs().max() < 1e-4
        assert batch.context.std(-1, correction=0).max() < 1 + 1e-4
    values = np.concatenate([np.zeros(500), np.array([100.0]), np.zeros(500)])[None]
    values[0, :500] += 1e-3 * np.random.default_rng(0).standard_normal(500)
    flat = Corpus([Member("flat", Collection.of(Series(values)))], held_out=0.0)
    for batch in draws_of(flat, bundles=(1,)).epoch_batches(16, seed=0, epoch=0):
        quiet = batch.context.abs().amax(-1)
        assert ((quiet < 0.1) | (quiet > 3)).all()  # noise stays noise beside the one spike


def test_a_window_is_a_stretch_of_its_series_and_its_channels_are_different_ones_in_order():
    corpus = small_corpus()
    draws = draws_of(corpus, bundles=(2,))
    part = draws.part(0)
    for batch in draws.epoch_batches(8, seed=0, epoch=0):
        for x, series, start in zip(batch.context.numpy(), batch.series, batch.start, strict=True):
            begin, n, width = (int(a[series]) for a in (part.begin, part.n_timepoints, part.n_channels))
            whole = part.values[begin : begin + n * width].reshape(width, n)[:, start : start + x.shape[1]]
            whole = (whole - whole.mean(1, keepdims=True)) / np.maximum(whole.std(1, keepdims=True), 0.05)
            places = [int(np.argmin(np.abs(whole - row).max(1))) for row in x]
            assert places == sorted(set(places))
            np.testing.assert_allclose(whole[places], x, atol=1e-3)


def test_series_come_as_often_as_their_chances_say():
    corpus = Corpus([
        Member("a", Collection.of(Series(np.random.default_rng(0).standard_normal((1, 400)))), weight=3.0),
        Member("b", Collection.of(Series(np.random.default_rng(1).standard_normal((1, 100))))),
    ], held_out=0.0)  # fmt: skip
    draws = draws_of(corpus, bundles=(1,), steps_per_epoch=50)
    chances = corpus.chances(corpus.train())
    assert chances.tolist() == pytest.approx([60 / 70, 10 / 70])
    drawn = np.concatenate([batch.series for batch in draws.epoch_batches(64, seed=0, epoch=0)])
    assert np.bincount(drawn) / len(drawn) == pytest.approx(chances, abs=0.02)


def test_short_series_fill_the_shortest_windows_and_say_where_they_end():
    short = Collection.of([Series(np.random.default_rng(i).standard_normal((1, 10))) for i in range(4)])
    draws = draws_of(Corpus([Member("short", short)], held_out=0.0))
    batch = next(iter(draws.epoch_batches(8, seed=0, epoch=0)))
    assert batch.context.shape == (8, 1, 16)
    assert batch.context_observed[..., :10].all() and not batch.context_observed[..., 10:].any()
    assert batch.context[..., 10:].abs().max() == 0 and batch.context[..., :10].mean(-1).abs().max() < 1e-5


def test_validation_draws_the_same_windows_of_what_is_held_out_in_every_epoch():
    corpus = small_corpus()
    draws = draws_of(corpus, validation=True, n_validation=64)
    one, two = (list(draws.epoch_batches(16, seed=None, epoch=epoch)) for epoch in (0, 7))
    assert len(one) == 4
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a.context, b.context, rtol=0, atol=0)
    assert draws.part(0) is draws.part(7)
    assert not np.isin(draws.part(0).values, corpus.train(0).values).all()


def test_several_processes_share_out_every_batch_and_every_window_of_validation():
    draws = draws_of(small_corpus(), bundles=(1,))
    whole = list(draws.epoch_batches(9, seed=1, epoch=0))
    shares = [list(draws.epoch_batches(9, seed=1, epoch=0, rank=rank, world=2)) for rank in range(2)]
    for batch, a, b in zip(whole, *shares, strict=True):
        torch.testing.assert_close(torch.cat([a.context, b.context]), batch.context, rtol=0, atol=0)
    check = draws_of(small_corpus(), validation=True, n_validation=48)
    parts = [check.epoch_batches(16, seed=None, epoch=0, rank=rank, world=2) for rank in range(2)]
    assert [len(part) for part in parts] == [2, 1]
    assert sum(len(batch.series) * batch.context.shape[1] for part in parts for batch in part) == 48


def test_windows_of_which_little_was_observed_are_drawn_again():
    values = np.random.default_rng(0).standard_normal((1, 1000))
    values[:, 10:900] = np.nan
    draws = draws_of(Corpus([Member("gap", Collection.of(Series(values)))], held_out=0.0), bundles=(1,), lengths=(32,))
    seen = [batch.context_observed for batch in draws.epoch_batches(64, seed=0, epoch=0)]
    share = np.mean([1.0 if one is None else one.float().mean().item() for one in seen])
    assert share > 0.12  # of the steps 11 % were observed, and of windows drawn once about as much


@pytest.mark.slow
def test_series_that_other_processes_make_ahead_of_time_are_the_same():
    def drawn(n_jobs):
        config = GeneratorConfig(n_timepoints=(40, 60), n_channels=(1, 2))
        draws = draws_of(Corpus([Generated(config=config, per_epoch=4, n_validation=2, n_jobs=n_jobs)]))
        return [batch.context for epoch in (0, 1, 2, 1) for batch in draws.epoch_batches(8, seed=0, epoch=epoch)]

    for one, two in zip(drawn(1), drawn(2), strict=True):
        assert torch.equal(one, two)


def test_an_error_while_a_batch_is_made_reaches_who_asked_for_it(monkeypatch):
    draws = draws_of(small_corpus())

    def broken(*_):
        raise RuntimeError("no batch today")

    monkeypatch.setattr(draws, "batch", broken)
    with pytest.raises(RuntimeError, match="no batch today"):
        list(draws.epoch_batches(8, seed=0, epoch=0))


@pytest.mark.parametrize(("settings", "words"), [
    ({"lengths": (8, 8)}, "lengths are different numbers"),
    ({"bundles": (0,)}, "bundles are different numbers of at least 1"),
    ({"steps_per_epoch": 0}, "at least 1, but got 0"),
])  # fmt: skip
def test_draws_that_cannot_be_are_refused_in_words(settings, words):
    with pytest.raises(SettingsError, match=words):
        DrawConfig(**settings)


def test_a_corpus_without_room_for_a_window_says_so_before_anything_is_trained():
    with pytest.raises(DataError, match=r"400 steps or more and 1 or 2 channels.*that is held out to validate has"):
        draws_of(small_corpus(), validation=True, lengths=(400,))
    with pytest.raises(DataError, match="4000 steps or more"):
        draws_of(small_corpus(), lengths=(4000,))


def test_what_is_left_open_follows_the_encoder():
    config = DrawConfig().fitting(small_encoder(context_length=48))
    assert config.lengths == (24, 48) and config.bundles == (1, 2, 4, 8)  # a quarter would be less than two patches
    bound = DrawConfig().fitting(small_encoder(channels="mixed"))
    assert bound.bundles == (3,)
    with pytest.raises(SettingsError, match="bound to 3 channels, so bundles can only be"):
        DrawConfig(bundles=(1, 3)).fitting(small_encoder(channels="mixed"))


# ---- the run


def test_pretraining_changes_the_encoder_leaves_its_head_and_lowers_the_held_out_loss():
    encoder = small_encoder(residual=0.1, dropout=0.0)
    encoder.head = torch.nn.Linear(2, 2)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    result = pretrain(
        encoder, Corpus(small_corpus().members[:1]), tasks="next_patch",
        config=QUICK.changed({"max_epochs": 6, "learning_rate": 5e-3, "batch_size": 64}),
        draws={"steps_per_epoch": 15, "n_validation": 128}, progress=False,
    )  # fmt: skip
    assert result.best_loss < 0.7 * result.history[0]["val_loss"]
    assert not encoder.training and len(result.history) == 6
    after = encoder.state_dict()
    assert torch.equal(after["head.weight"], before["head.weight"])
    assert not torch.equal(after["embed.weight"], before["embed.weight"])


def test_equal_seeds_give_equal_weights_and_other_seeds_other_ones():
    found = []
    for seed in (0, 0, 1):
        encoder = small_encoder()
        pretrain(encoder, small_corpus(), tasks=["masked", "decoupled"], config=QUICK, draws=DRAWS, seed=seed,
                 progress=False)  # fmt: skip
        found.append(encoder.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert any(not torch.equal(found[0][name], found[2][name]) for name in found[0])


class Enough(Exception):
    pass


def test_a_run_that_was_broken_off_ends_as_one_that_was_not(tmp_path):
    tasks = {"masked": 1.0, "decoupled": 0.5, "contrastive": 0.1, "next_patch": 0.5}

    def run(folder):
        encoder = small_encoder()
        result = pretrain(encoder, small_corpus(), tasks=tasks, config=QUICK, draws=DRAWS, folder=folder,
                          progress=False)  # fmt: skip
        return encoder.state_dict(), result

    def stop(entry):
        if entry["epoch"] == 2:
            raise Enough

    with pytest.raises(Enough), watching(stop):
        run(tmp_path / "broken")
    broken, again = run(tmp_path / "broken")
    whole, result = run(tmp_path / "whole")
    assert again.resumed_from in (1, 2) and result.resumed_from is None
    assert [h["val_loss"] for h in again.history] == [h["val_loss"] for h in result.history]
    assert all(torch.equal(broken[name], whole[name]) for name in whole)


def test_a_folder_of_another_corpus_task_or_encoder_is_refused(tmp_path):
    def run(corpus=None, **changes):
        pretrain(changes.pop("encoder", None) or small_encoder(), corpus or small_corpus(), config=QUICK, draws=DRAWS,
                 folder=tmp_path, progress=False, **changes)  # fmt: skip

    run()
    for name, other in (
        ("corpus", {"corpus": small_corpus(held_out=0.2)}),
        ("tasks", {"tasks": {"masked": {"masks": "points"}}}),
        ("weights; encoder", {"encoder": small_encoder(kernel_sizes=(3, 7))}),
        ("seed", {"seed": 1}),
    ):
        with pytest.raises(SavedModelError, match=rf"other settings or other data \({name}\b"):
            run(**other)
    run()  # a finished run is read, not trained again


def test_an_encoder_bound_to_its_channels_learns_from_those_that_have_them():
    corpus = small_corpus()
    encoder = small_encoder(3, channels="mixed")
    pretrain(encoder, corpus, tasks=["masked", "next_patch"], config=QUICK, draws=DRAWS, progress=False)
    assert not encoder.training
    with pytest.raises(DataError, match="and 5 channels, but the longest series has 8"):
        pretrain(small_encoder(5, channels="mixed"), corpus, config=QUICK, draws=DRAWS, progress=False)


def test_without_anything_held_out_the_last_weights_are_kept():
    encoder = small_encoder()
    result = pretrain(encoder, small_corpus(held_out=0.0), config=QUICK, draws=DRAWS, progress=False)
    assert result.best_epoch == 3 and "val_loss" not in result.history[0]


def test_the_best_epoch_is_kept_but_the_last_where_the_truth_is_learned_too():
    for tasks, which in (("masked", "best"), (["masked", "decoupled"], "last")):
        result = pretrain(small_encoder(), small_corpus(), tasks=tasks, progress=False, draws=DRAWS,
                          config=QUICK.changed({"max_epochs": 5, "learning_rate": 0.1}))  # fmt: skip
        losses = [entry["val_loss"] for entry in result.history]
        assert len(losses) == 5 and result.best_epoch == (5 if which == "last" else 1 + int(np.argmin(losses)))
        assert result.best_loss == losses[result.best_epoch - 1]


def test_a_corpus_may_be_given_as_what_it_is_made_from():
    walk = random_walk(200)
    assert [m.name for m in as_corpus(walk).members] == ["random_walk"]
    assert [m.name for m in as_corpus([Member.of(walk), Generated()]).members] == ["random_walk", "generated"]
    corpus = small_corpus()
    assert as_corpus(corpus) is corpus
    with pytest.raises(SettingsError, match=r"no setting 'length'. Did you mean 'lengths'"):
        pretrain(small_encoder(), corpus, draws={"length": 3})


RUN = textwrap.dedent(
    """
    import sys, time
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    import torch
    from test_pretrain import DRAWS, QUICK, small_corpus, small_encoder
    from prismts.tasks.reconstruct import Reconstruct
    from prismts.training.checkpoint import write_tree
    from prismts.training.pretrain import pretrain

    torch.set_num_threads(1)
    folder, out, pause = sys.argv[1], sys.argv[2], float(sys.argv[3])
    loss = Reconstruct.loss

    def slowly(self, model, batch):
        time.sleep(pause)
        return loss(self, model, batch)

    Reconstruct.loss = slowly
    encoder = small_encoder()
    result = pretrain(encoder, small_corpus(), tasks=["masked", "contrastive"], folder=folder, progress=False,
                      config=QUICK.changed({{"max_epochs": 15}}), draws=DRAWS)
    write_tree({{"weights": encoder.state_dict(), "resumed": result.resumed_from,
                "losses": [[h["epoch"], h["train_loss"], h["val_loss"]] for h in result.history]}}, Path(out))
    """
)


@pytest.mark.slow
def test_a_run_killed_with_sigkill_resumes_to_the_result_of_the_unbroken_run_bit_for_bit(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(RUN.format(tests=HERE))

    def start(folder, out, pause):
        return subprocess.Popen([sys.executable, str(script), str(tmp_path / folder), str(tmp_path / out), str(pause)])

    broken = start("broken", "broken.safetensors", 0.2)
    last = tmp_path / "broken" / "last.safetensors"
    deadline = time.monotonic() + 240
    while not (last.exists() and read_tree(last)["epoch"] >= 1):
        assert broken.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    broken.send_signal(signal.SIGKILL)
    broken.wait()
    assert not (tmp_path / "broken.safetensors").exists()
    assert start("broken", "broken.safetensors", 0).wait(240) == 0
    assert start("whole", "whole.safetensors", 0).wait(240) == 0
    one, two = read_tree(tmp_path / "whole.safetensors"), read_tree(tmp_path / "broken.safetensors")
    assert one["resumed"] is None and two["resumed"] >= 2 and one["losses"] == two["losses"]
    for name, value in one["weights"].items():
        assert torch.equal(value, two["weights"][name]), name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pretraining_runs_on_a_gpu():
    encoder = small_encoder()
    tasks = make_pretrain_task(["masked", "decoupled", "contrastive", "next_patch"])
    result = pretrain(encoder, small_corpus(), tasks=tasks, config=QUICK.changed({"accelerator": "gpu"}), draws=DRAWS,
                      progress=False)  # fmt: skip
    assert np.isfinite(result.best_loss)
