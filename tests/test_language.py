"""A language model in the place of an encoder: what it reads, what of it is trained, what takes its place, how it is
kept."""

import builtins
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import prismts
from prismts.data.synthetic import labeled_motions, sine_mixture
from prismts.errors import MissingExtraError, SavedModelError, SettingsError, ShapeError
from prismts.layers.patch import DePatch
from prismts.models.language import LanguageConfig, LanguageEncoder, PatchTokens, readable_by
from prismts.models.language_backbone import NoBackbone, OneAttention, PretrainedBackbone, make_backbone, n_trained
from prismts.tasks.forecast import Forecast

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")

TINY = {"width": 8, "n_heads": 2, "feed_forward": 12, "n_layers": 2, "max_tokens": 32, "n_words": 11}
RANDOM = {"weights": "random", "patch_length": 8, "stride": 4, **TINY}
ONE_EPOCH = {"max_epochs": 1, "batch_size": 64}


def build(seed: int = 0, **changes) -> LanguageEncoder:
    torch.manual_seed(seed)
    config = LanguageConfig(**{**RANDOM, **changes})
    return LanguageEncoder(config, n_channels=2, context_length=40)


def windows(n: int = 3, n_timepoints: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 2, n_timepoints, generator=torch.Generator().manual_seed(seed)).cumsum(-1)


def write_gpt2(folder: Path, seed: int = 0, **changes) -> Path:
    """A folder as save_pretrained writes it, of a GPT-2 with three small layers and random weights."""
    torch.manual_seed(seed)
    sizes = {"n_embd": 8, "n_head": 2, "n_layer": 3, "n_positions": 32, "vocab_size": 11, **changes}
    model = transformers.GPT2Model(transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory) -> Path:
    return write_gpt2(tmp_path_factory.mktemp("hub") / "gpt2")


# ---- what is read


def test_the_pretrained_layers_answer_as_the_library_has_them(gpt2):
    """A second way: patches embedded by hand, and read by the library's own model with its own causal mask."""
    model = build(backbone=str(gpt2), weights="pretrained", n_layers=3).eval()
    x = windows()
    whole = transformers.GPT2Model.from_pretrained(gpt2).eval()
    mean, scale = x.mean(-1, keepdim=True), (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    z = (x - mean) / scale
    z = torch.cat([z, z[..., -1:].expand(-1, -1, 4)], dim=-1)
    patches = torch.stack([z[..., i : i + 8] for i in range(0, 37, 4)], dim=2)  # [B, C, N, P]
    tokens = patches @ model.tokens.embed.weight.T + model.tokens.embed.bias
    with torch.no_grad():
        expected = whole(inputs_embeds=tokens.flatten(0, 1)).last_hidden_state.view(3, 2, 10, 8)
        torch.testing.assert_close(model.encode(x).tokens, expected, rtol=1e-4, atol=1e-5)


def test_weights_in_a_pickle_are_not_opened(gpt2, tmp_path, monkeypatch):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(gpt2 / name, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was opened"))
    with pytest.raises(SavedModelError, match=r"read from \.safetensors files alone, since a pickle"):
        build(backbone=str(tmp_path), weights="pretrained", n_layers=3)


def test_only_the_first_layers_are_taken(gpt2):
    first = make_backbone(LanguageConfig(backbone=str(gpt2), n_layers=1))
    every = make_backbone(LanguageConfig(backbone=str(gpt2), n_layers=None))
    assert len(first.network.h) == 1 and len(every.network.h) == 3
    assert torch.equal(first.network.h[0].mlp.c_fc.weight, every.network.h[0].mlp.c_fc.weight)


def test_the_table_of_words_is_left_out_unless_it_is_asked_for(gpt2):
    config = LanguageConfig(backbone=str(gpt2), n_layers=1)
    assert not any("wte" in name for name, _ in make_backbone(config).named_parameters())
    table = make_backbone(config, keep_table=True).table
    assert torch.equal(table, transformers.GPT2Model.from_pretrained(gpt2).wte.weight)
    assert make_backbone(LanguageConfig(**RANDOM, backbone="none"), keep_table=True).table.shape == (11, 8)


@pytest.mark.parametrize(("backbone", "looks_ahead"), [("gpt2", False), ("llama", False), ("bert", True)])
def test_a_decoder_reads_what_lies_before_a_token_and_an_encoder_reads_all(backbone, looks_ahead):
    model = build(backbone=backbone).eval()
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    tokens = torch.randn(1, 1, 6, 8)
    changed = tokens.clone()
    changed[:, :, 4:] = torch.randn(1, 1, 2, 8)
    before, after = model.read(tokens, None), model.read(changed, None)
    assert torch.allclose(before[:, :, :4], after[:, :, :4], atol=1e-6) != looks_ahead
    assert not torch.allclose(before[:, :, 4:], after[:, :, 4:])


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 7), st.booleans(), st.integers(0, 10_000))
def test_a_token_reads_itself_and_what_is_valid_and_not_behind_it_in_a_decoder(n, causal, seed):
    valid = torch.rand(3, n, generator=torch.Generator().manual_seed(seed)) < 0.5
    readable = readable_by(n, valid, causal=causal, device=valid.device)
    assert readable.shape == (3, 1, n, n)
    for row in range(3):
        for i in range(n):
            for j in range(n):
                told = bool(valid[row, j]) or not bool(valid[row].any())
                assert bool(readable[row, 0, i, j]) == (i == j or (told and (j <= i or not causal)))


# ---- tokens


def test_patches_of_one_size_are_the_window_cut_up():
    tokens = PatchTokens(5, 8, 4, patches="uniform", scales=(1,), causal=False)
    with torch.no_grad():
        tokens.embed.weight.copy_(torch.eye(5, 8))
        tokens.embed.bias.zero_()
    window = torch.arange(20.0)[None, None]
    assert tokens(window)[0, 0, :, 0].tolist() == [0, 4, 8, 12]
    assert tokens(window)[0, 0, 1].tolist() == [4, 5, 6, 7, 8]


def test_a_patch_of_twice_the_size_has_the_same_middle_and_ends_at_the_window():
    tokens = PatchTokens(4, 5, 4, patches="uniform", scales=(1, 2), causal=False)
    one, two = tokens.bounds(torch.zeros(1, 1, 13))
    assert one.left[0, 0].tolist() == [0, 4, 8] and one.right[0, 0].tolist() == [4, 8, 12]
    assert two.left[0, 0].tolist() == [0, 2, 6] and two.right[0, 0].tolist() == [6, 10, 12]


@pytest.mark.parametrize("patches", ["uniform", "deformable"])
@pytest.mark.parametrize("scales", [(1,), (1, 3), (0.5, 2)])
def test_a_causal_token_knows_nothing_of_what_comes_behind_its_patch(patches, scales):
    torch.manual_seed(0)
    tokens = PatchTokens(6, 8, 4, patches=patches, scales=scales, causal=True)
    if isinstance(tokens.patch, DePatch):
        torch.nn.init.normal_(tokens.patch.move.weight)  # as after some training: patches lie elsewhere
        torch.nn.init.constant_(tokens.patch.move.bias, 3.0)  # and reach ahead
    window = torch.randn(1, 1, 40)
    changed = window.clone()
    changed[..., 20:] = torch.randn(20)
    same = tokens(window)[0, 0] == tokens(changed)[0, 0]
    assert same[:4].all()  # patches of steps 0-7, 4-11, 8-15, 12-19
    assert not same[4:].all(-1).any()


# ---- what is trained


def names_of_trained(model: torch.nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_norms_and_positions_alone_are_trained_in_gpt4ts():
    trained = names_of_trained(build().backbone.network)
    assert trained == {"wpe.weight", "ln_f.weight", "ln_f.bias"} | {
        f"h.{i}.ln_{j}.{what}" for i in (0, 1) for j in (1, 2) for what in ("weight", "bias")
    }


def test_gpt2_has_the_share_of_trained_weights_that_the_docstring_tells():
    model = LanguageEncoder(LanguageConfig(weights="random"), n_channels=1, context_length=336)
    assert n_trained(model.backbone) == (806_400, 43_315_200)
    assert model.trained_share == "819,456 of 43,328,256 weights are trained (1.89 %)"


@pytest.mark.parametrize(
    ("train", "n"), [("frozen", 0), ("full", 32 * 8 + 2 * (2 * 16 + 4 * 64 + 32 + 2 * 96 + 20) + 16)]
)
def test_nothing_or_all_of_the_backbone_is_trained(train, n):
    """Full: positions, and per layer two norms, attention (4 maps of 8 x 8 and biases), the pair (8 x 12), biases."""
    assert n_trained(build(train=train).backbone)[0] == n


def test_low_rank_factors_are_all_that_lora_trains_and_begin_without_a_word():
    plain, lora = build(train="frozen").eval(), build(train="lora", lora_rank=2).eval()
    assert all("lora_" in name for name in names_of_trained(lora.backbone))
    n_maps = [(8, 24), (8, 8), (8, 12), (12, 8)]  # of a layer
    assert n_trained(lora.backbone)[0] == 2 * sum(2 * (a + b) for a, b in n_maps)
    torch.testing.assert_close(
        lora.backbone.network.h[0].mlp.c_fc.base_layer.weight, plain.backbone.network.h[0].mlp.c_fc.weight
    )
    lora.tokens.load_state_dict(plain.tokens.state_dict())
    torch.testing.assert_close(lora.encode(windows()).tokens, plain.encode(windows()).tokens)


def test_folded_factors_are_gone_and_change_no_answer():
    model = build(train="lora", lora_rank=2).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    merged = model.merged()
    torch.testing.assert_close(merged.encode(windows()).tokens, model.encode(windows()).tokens, rtol=1e-4, atol=1e-5)
    assert not any("lora" in name for name in merged.state_dict())
    assert any("lora" in name for name in model.state_dict())


@pytest.mark.parametrize("train", ["frozen", "norms", "lora"])
def test_what_is_frozen_moves_by_no_step_even_where_somebody_frees_it(train):
    model = build(train=train)
    model.requires_grad_(True).train()  # as a warm start does
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model.encode(windows()).tokens.square().sum().backward()
        optimizer.step()
    after = dict(model.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in frozen.items())


def test_dropout_of_the_backbone_can_be_set():
    model = build(dropout=0.0).train()
    assert torch.equal(model.encode(windows()).tokens, model.encode(windows()).tokens)
    assert not torch.equal(build().train().encode(windows()).tokens, build().eval().encode(windows()).tokens)


def test_the_adapters_of_the_package_go_on_from_a_language_model_and_are_merged_again():
    from prismts.models.adapters import adapt, merge

    model = build(train="norms").eval()
    model.head = torch.nn.Identity()
    before = model.encode(windows()).tokens
    adapted = adapt(model, "lora", rank=2).train()
    trained = names_of_trained(adapted)
    assert trained and all(".parametrizations." in name for name in trained)  # the adapter alone
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if name in trained:
                parameter.add_(0.1 * torch.randn_like(parameter))
    after = adapted.eval().encode(windows()).tokens
    assert not torch.allclose(after, before)
    torch.testing.assert_close(merge(adapted).eval().encode(windows()).tokens, after, rtol=1e-4, atol=1e-5)


# ---- the controls


def test_without_a_backbone_tokens_are_the_embedded_patches():
    model = build(backbone="none")
    assert isinstance(model.backbone, NoBackbone) and n_trained(model.backbone) == (0, 0)
    tokens = torch.randn(2, 2, 5, 8)
    assert torch.equal(model.read(tokens, None), tokens)


def test_one_attention_layer_asks_every_token_and_is_all_there_is():
    model = build(backbone="attention", dropout=0.0)
    assert isinstance(model.backbone, OneAttention)
    twin = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        twin.in_proj_weight.copy_(model.backbone.ask.weight)
        twin.in_proj_bias.copy_(model.backbone.ask.bias)
        twin.out_proj.weight.copy_(model.backbone.out.weight)
        twin.out_proj.bias.copy_(model.backbone.out.bias)
    tokens = torch.randn(3, 5, 8)
    expected = torch.nn.functional.layer_norm(tokens + twin(tokens, tokens, tokens)[0], (8,))
    readable = readable_by(5, None, causal=False, device=tokens.device)
    torch.testing.assert_close(model.backbone(tokens, readable), expected)


def test_random_weights_are_those_of_the_seed_and_never_the_pretrained_ones(gpt2):
    one, same, other = (build(seed=seed).backbone.network.h[0].mlp.c_fc.weight for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert isinstance(build().backbone, PretrainedBackbone) and not build().backbone.borrowed()


# ---- every task, through the heads of every other model


@pytest.mark.long
def test_a_forecaster_a_classifier_an_imputer_a_detector_and_an_embedder_work_as_with_any_encoder():
    series = sine_mixture(300)
    how = {"model_settings": RANDOM, "fit_settings": ONE_EPOCH, "progress": False}
    forecaster = prismts.Forecaster("gpt4ts", context_length=40, horizon=6, quantiles=(0.1, 0.5, 0.9), **how)
    assert forecaster.fit(series.values).predict().shape == (3, series.n_channels, 6)
    gaps = series.values.copy()
    gaps[:, 50:60] = np.nan
    filled = prismts.Imputer("gpt4ts", context_length=40, **how).fit(gaps).transform(gaps)
    assert np.isfinite(filled).all() and np.array_equal(filled[:, :50], gaps[:, :50])
    detector = prismts.AnomalyDetector("gpt4ts", setting="network", context_length=40, **how).fit(series.values)
    assert len(detector.members_) == 2 and np.isfinite(detector.score_samples(series.values)).all()
    cases = labeled_motions()
    tokens = prismts.Embedder("gpt4ts", **how).fit(cases.train).transform(cases.test)
    assert len(tokens) == len(cases.test) and np.isfinite(tokens).all()
    classifier = prismts.Classifier("gpt4ts", **how).fit(cases.train)
    assert classifier.predict_proba(cases.test).shape[0] == len(cases.test)


# ---- saved and read


def forecaster_on(gpt2: Path, **changes) -> prismts.Forecaster:
    settings = {"backbone": str(gpt2), "n_layers": 1, "patch_length": 8, "stride": 4, **changes}
    return prismts.Forecaster(
        "gpt4ts", context_length=40, horizon=6, model_settings=settings, fit_settings=ONE_EPOCH, progress=False
    ).fit(sine_mixture(200).values)


@pytest.mark.parametrize("train", ["norms", "lora"])
def test_a_folder_holds_what_was_trained_and_answers_as_before(train, gpt2, tmp_path):
    forecaster = forecaster_on(gpt2, train=train)
    forecaster.save(tmp_path / "model")
    names = set(load_names(tmp_path / "model"))
    borrowed = {"backbone." + name for name in forecaster.model_.backbone.borrowed()}
    assert borrowed and not names & borrowed
    assert any(("ln_1" if train == "norms" else "lora_A") in name for name in names)
    read = prismts.load(tmp_path / "model")
    assert np.array_equal(read.predict(), forecaster.predict())
    read.save(tmp_path / "again")
    assert set(load_names(tmp_path / "again")) == names


def load_names(folder: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as file:
        return list(file.keys())


def test_a_folder_saved_whole_needs_no_other(gpt2, tmp_path):
    backbone = shutil.copytree(gpt2, tmp_path / "backbone")
    forecaster = forecaster_on(backbone)
    forecaster.save(tmp_path / "model", whole=True)
    shutil.rmtree(backbone)
    read = prismts.load(tmp_path / "model")
    assert np.array_equal(read.predict(), forecaster.predict())
    read.save(tmp_path / "again", whole=True)
    assert np.array_equal(prismts.load(tmp_path / "again").predict(), forecaster.predict())


def test_a_folder_whose_backbone_is_gone_says_so_and_what_helps(gpt2, tmp_path):
    backbone = shutil.copytree(gpt2, tmp_path / "backbone")
    forecaster_on(backbone).save(tmp_path / "model")
    shutil.rmtree(backbone)
    with pytest.raises(
        SavedModelError, match=r"saved without the weights that it borrows from '.*backbone'.*whole=True"
    ):
        prismts.load(tmp_path / "model")


def test_another_backbone_under_the_same_name_is_refused(gpt2, tmp_path):
    backbone = shutil.copytree(gpt2, tmp_path / "backbone")
    forecaster_on(backbone).save(tmp_path / "model")
    shutil.rmtree(backbone)
    write_gpt2(backbone, seed=1)
    with pytest.raises(
        SavedModelError, match=r"SHA-256 begins with \w{12}, but that of those here begins with \w{12}\."
    ):
        prismts.load(tmp_path / "model")


def test_a_backbone_of_other_sizes_under_the_same_name_is_refused(gpt2, tmp_path):
    backbone = shutil.copytree(gpt2, tmp_path / "backbone")
    forecaster_on(backbone).save(tmp_path / "model")
    shutil.rmtree(backbone)
    write_gpt2(backbone, n_embd=16)
    with pytest.raises(SavedModelError, match="Bring back the ones it was trained on"):
        prismts.load(tmp_path / "model")


def test_a_damaged_backbone_is_refused(gpt2, tmp_path):
    backbone = shutil.copytree(gpt2, tmp_path / "backbone")
    file = backbone / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(SavedModelError, match=r"A language backbone cannot read the pretrained '.*backbone'"):
        forecaster_on(backbone)


def test_a_damaged_folder_is_refused(gpt2, tmp_path):
    forecaster_on(gpt2).save(tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(SavedModelError, match="was altered after it was saved"):
        prismts.load(tmp_path / "model")


def test_a_model_with_random_weights_is_its_own_and_saved_with_all_of_them(tmp_path):
    how = {"model_settings": RANDOM, "fit_settings": ONE_EPOCH, "progress": False}
    forecaster = prismts.Forecaster("gpt4ts", context_length=40, horizon=6, **how).fit(sine_mixture(200).values)
    forecaster.save(tmp_path / "model")
    assert set(load_names(tmp_path / "model")) == set(forecaster.model_.state_dict())
    assert np.array_equal(prismts.load(tmp_path / "model").predict(), forecaster.predict())


# ---- errors


@pytest.mark.parametrize("download", [False, True])
def test_the_net_is_asked_only_where_that_was_allowed(download, gpt2, monkeypatch):
    local = []
    for kind in (transformers.AutoConfig, transformers.AutoModel):
        real = kind.from_pretrained

        def watched(*names, real=real, **how):
            local.append(how["local_files_only"])
            return real(*names, **how)

        monkeypatch.setattr(kind, "from_pretrained", watched)
    make_backbone(LanguageConfig(backbone=str(gpt2), n_layers=1, download=download))
    assert local == [not download, not download]


def test_weights_that_are_not_here_are_not_fetched_unasked():
    with pytest.raises(SavedModelError, match=r"cannot read the pretrained 'nobody/nothing'.*download=True"):
        make_backbone(LanguageConfig(backbone="nobody/nothing"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train": "norm"}, r"no part to train named 'norm'\. Did you mean 'norms'"),
        ({"weights": "untrained"}, "no weights named 'untrained'"),
        ({"patches": "moving"}, "no patches named 'moving'"),
        ({"scales": ()}, "scales are sizes above 0"),
        ({"scales": (1, 2), "patch_length": 1}, "need patch_length >= 2"),
        ({"width": 9}, "9 is no multiple of it"),
        ({"n_layers": 0}, "n_layers is at least 1"),
        ({"dropout": 1.0}, "dropout is a share"),
        ({"stride": 0}, "stride is at least 1, but got 0"),
        ({"patch_length": 60}, "no room for a patch of 60"),
        ({"backbone": "gtp2"}, "there is none named 'gtp2'"),
        ({"backbone": "t5"}, "has an encoder and a decoder"),
        ({"backbone": "opt"}, "does not read embeddings under a mask of four axes"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_words(changes, words):
    with pytest.raises(SettingsError, match=words):
        build(**changes)


def test_more_layers_than_there_are_is_an_error_that_tells_how_many(gpt2):
    with pytest.raises(SettingsError, match=r"n_layers=6 takes the first layers .* which has 3\. Set n_layers=3"):
        make_backbone(LanguageConfig(backbone=str(gpt2)))


def test_more_tokens_than_positions_is_an_error_that_says_what_to_change():
    with pytest.raises(ShapeError, match=r"'gpt2' knows 4 positions, but this window is cut into 10 tokens"):
        build(max_tokens=4)


@pytest.mark.parametrize(("library", "changes"), [("transformers", {}), ("peft", {"train": "lora"})])
def test_a_missing_library_is_named_with_its_extra(library, changes, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name == library:
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=rf"needs {library}, which is not installed.*prismts\[adapt\]"):
        build(**changes)


def test_the_task_builds_it_by_name():
    model = Forecast(6).build("gpt4ts", RANDOM, n_channels=2, context_length=40)
    assert model(windows()).shape == (3, 2, 6)
