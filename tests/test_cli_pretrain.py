"""``prism pretrain``: a file becomes a model folder, mistakes name their line, and a dry run only looks."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

import prismts
from prismts.benchmark.pretrain_spec import read_pretrain
from prismts.data.corpus import Generated, Member
from prismts.data.generator import GeneratorConfig, write_generated
from prismts.errors import SettingsError

ROOT = Path(__file__).parents[1]
TINY = {
    "context_length": 32,
    "encoder": "convtimenet",
    "encoder_settings": {"patch_length": 8, "stride": 4, "width": 8, "feed_forward": 8, "kernel_sizes": [3]},
    "corpus": [{"generated": {"n_timepoints": 80, "n_channels": [1, 2], "per_epoch": 4, "n_validation": 4}}],
    "tasks": {"masked": 1.0, "contrastive": 0.1},
    "draws": {"steps_per_epoch": 2, "n_validation": 8},
    "fit_settings": {"max_epochs": 2, "batch_size": 8, "learning_rate": "1e-3"},
}


def write(folder: Path, **changes) -> Path:
    content = {**TINY, **changes}
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}, sort_keys=False))
    return path


@pytest.mark.parametrize("name", ["pretrain", "pretrain_large"])
def test_the_ready_specifications_can_be_read(name):
    spec = read_pretrain(ROOT / "benchmarks" / "specs" / f"{name}.yaml")
    assert spec.encoder == "universal" and any(one.generated for one in spec.corpus)
    assert spec.fit.max_epochs * int(spec.draws["steps_per_epoch"]) >= 3000


def test_the_large_one_keeps_what_zero_shot_is_judged_on_out_of_the_corpus():
    names = {one.name for one in read_pretrain(ROOT / "benchmarks" / "specs" / "pretrain_large.yaml").corpus}
    assert not names & {"ETTh2", "ETTm2", "Exchange", "ILI", "EPF_NP"}


def test_a_file_becomes_a_folder_that_load_reads_and_embeds_with(tmp_path, run):
    out = tmp_path / "m"
    code, _, err = run("pretrain", write(tmp_path), "--out", out)
    assert code == 0, err
    assert "epoch 1 of 2: train" in err and "about 0 min to go" in err and "best epoch" in err
    model = prismts.load(out)
    vectors = model.embed(np.random.default_rng(0).standard_normal((5, 2, 32)))
    assert vectors.shape[0] == 5 and np.isfinite(vectors).all()
    assert len(model.pretrain_result_.history) == 2
    assert not (tmp_path / "m.run").exists()
    code, _, err = run("pretrain", write(tmp_path), "--out", out)
    assert code == 2 and "already holds a model" in err


def test_a_stopped_command_goes_on_where_it_was_and_ends_with_the_same_model(tmp_path, run):
    from prismts.training.watch import watching

    class Enough(Exception):
        pass

    def stop(entry):
        if entry["epoch"] == 2:
            raise Enough

    spec = write(tmp_path, fit_settings={"max_epochs": 3, "batch_size": 8})
    with pytest.raises(Enough), watching(stop):
        run("pretrain", spec, "--out", tmp_path / "broken", "-q")
    for name in ("broken", "whole"):
        run("pretrain", spec, "--out", tmp_path / name, "-q")
    broken, whole = (prismts.load(tmp_path / name) for name in ("broken", "whole"))
    assert broken.pretrain_result_.resumed_from == 1 and whole.pretrain_result_.resumed_from is None
    ours, theirs = (model.encoder_.state_dict() for model in (broken, whole))
    assert all(bool((ours[name] == theirs[name]).all()) for name in ours)


def test_a_dry_run_says_what_the_corpus_holds_and_trains_nothing(tmp_path, run):
    code, told, err = run("pretrain", write(tmp_path), "--out", tmp_path / "m", "--dry-run")
    assert code == 0, err
    for words in (
        "4 new series an epoch", "windows to learn from: of 16, 32 steps and 1, 2 channels", "windows held out",
        "encoder: convtimenet", "tasks: 1 * masked + 0.1 * contrastive", "steps: 4 of 8 channels each",
    ):  # fmt: skip
        assert words in told, told
    assert not (tmp_path / "m").exists() and not (tmp_path / "m.run").exists()


def test_files_beside_the_specification_are_members_one_for_each_width(tmp_path):
    write_generated(tmp_path / "made", 12, GeneratorConfig(n_timepoints=60, n_channels=(1, 2)), per_file=6)
    (tmp_path / "own.csv").write_text("time,a,b\n" + "\n".join(f"{i},{i % 7},{i % 5}" for i in range(90)))
    spec = read_pretrain(write(tmp_path, held_out=0.2, corpus=[
        {"file": "made/*.parquet", "name": "made", "series": "series", "time": "step", "weight": 2.0},
        {"file": "own.csv", "train": 0.5, "values": ["a"]},
        {"generated": {"n_timepoints": [50, 60], "seed": 7}, "name": "more"},
    ]))  # fmt: skip
    corpus = spec.make_corpus()
    assert [member.name for member in corpus.members] == ["made, 1 channels", "made, 2 channels", "own", "more"]
    one, two, own, more = corpus.members
    assert isinstance(one, Member) and isinstance(more, Generated)
    assert len(one.data) + len(two.data) == 12 and one.weight == 2.0 and two.data.n_channels == 2
    assert len(own.data[0]) == 45 and own.data.n_channels == 1
    assert more.seed == 7 and more.config.n_timepoints == (50, 60) and corpus.held_out == 0.2


def test_settings_reach_training_as_numbers(tmp_path):
    spec = read_pretrain(write(tmp_path))
    assert spec.fit.learning_rate == 1e-3 and spec.fit.schedule == "one_cycle"


@pytest.mark.parametrize(("text", "line", "words"), [
    ("encoder: convtimnet", 2, "no encoder named 'convtimnet'. Did you mean 'convtimenet'"),
    ("encoder: dlinear", 2, "no encoder named 'dlinear'"),
    ("encoder: patchtst\nencoder_settings:\n  widht: 8", 4, "no setting of 'patchtst' named 'widht'"),
    ("encoder: patchtst\nencoder_settings: {dropout: 2.0}", 3, "dropout is a share"),
    ("tasks: maskd", 2, "no pre-training task named 'maskd'. Did you mean 'masked'"),
    ("tasks:\n  masked: 1.0\n  contrastve: 1.0", 4, "Did you mean 'contrastive'"),
    ("tasks:\n  contrastive: {jiter: 1.0}", 3, "Did you mean 'jitter'"),
    ("draws: {step: 1}", 2, "no draw named 'step'"),
    ("draws: {lengths: [8, 8]}", 2, "lengths are different numbers"),
    ("fit_settings:\n  batch_size: 8\n  max_epoch: 1", 4, "no fit setting named 'max_epoch'. Did"),
    ("fit_settings: {schedule: cosine}", 2, "no schedule named 'cosine'"),
    ("seeds: 1", 2, "no entry named 'seeds'. Did you mean 'seed'"),
    ("context_length: 0", 2, "context_length: it should be greater than or equal to 1, but got 0"),
    ("title: 3", 2, "title: it should be a valid string, but got 3"),
])  # fmt: skip
def test_a_mistake_is_told_with_its_line_and_the_nearest_name(tmp_path, text, line, words):
    check_told(tmp_path, f"corpus: [ETTh1]\n{text}\n", line, words)


@pytest.mark.parametrize(("text", "line", "words"), [
    ("- ETTm1\n- ETTh3", 3, "no data set named 'ETTh3'. Did you mean 'ETTh"),
    ("- ETTm1\n- {file: no.csv}", 3, "there is no file 'no.csv' beside the specification"),
    ("- ETTh1\n- etth1", 3, "two members would be called 'ETTh1'"),
    ("- {name: ETTh1, time: date}", 2, "time belong to a file"),
    ("- {file: a.csv, generated: {}}", 2, "one of file and generated"),
    ("- {weight: 2.0}", 2, "a name, or have one of file and generated"),
    ("- generated:\n    n_chanels: 2", 3, "no entry named 'n_chanels'. Did you mean 'n_channels'"),
    ("- generated: {kinds: {regime: 1.0}}", 2, "Did you mean 'regimes'"),
    ("- generated: {n_channels: [3, 1]}", 2, "n_channels is at least 1, or a rising pair"),
    ("- name: ETTh1\n  weight: 0", 3, "greater than 0, but got 0"),
    ("- 3", 2, "a name, or names and values"),
])  # fmt: skip
def test_a_mistake_in_the_corpus_is_told_with_its_line(tmp_path, text, line, words):
    check_told(tmp_path, f"corpus:\n{text}\n", line, words)


def test_a_specification_without_a_corpus_says_so(tmp_path):
    check_told(tmp_path, "title: nothing to read\n", 1, "corpus is missing")


def check_told(folder: Path, text: str, line: int, words: str) -> None:
    path = folder / "spec.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        read_pretrain(path)
    assert words in str(caught.value)
    assert f"line {line}:" in str(caught.value), str(caught.value)


def test_a_file_that_is_no_specification_says_so(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(json.dumps([1, 2]))
    with pytest.raises(SettingsError, match="holds names and values"):
        read_pretrain(path)
