"""Adapters: they begin at nothing, train few weights, leave their base alone, merge, and know where they belong."""

import copy
import sys

import pytest
import torch
from torch import nn

from prismts.errors import MissingExtraError, SavedModelError, SettingsError
from prismts.layers import paths
from prismts.models import adapters, find_model, make_settings
from prismts.models.adapters import adapt, base_hash, load_adapter, merge, save_adapter, trained_share
from prismts.models.contract import Encoder
from prismts.tasks.classify import Classify
from prismts.tasks.forecast import Forecast
from prismts.training.fit import FitConfig, fit
from prismts.windows import Windows
from test_models import FORMS, SMALL, TOKENS

N_CHANNELS, CONTEXT, HORIZON = 3, 40, 6
ONE_OF_EACH = [
    "convtimenet independent deformable", "convtimenet mixed points", "convtimenet independent layer norm",
    "lwconvtimenet mixed deformable", "cross_learner both", "moderntcn two stages", "deformabletst stem",
    "formertime two scales", "timemae slices", "patchtst", "itransformer", "universal exchange",
]  # fmt: skip

FEW = ("convtimenet mixed points", "cross_learner both", "moderntcn two stages", "patchtst")


def quick(forms: list[str]) -> list:
    """All forms, those beside a few marked as slow."""
    return [form if form in FEW else pytest.param(form, marks=pytest.mark.slow) for form in forms]


def model_of(form: str = "convtimenet independent deformable", seed: int = 0) -> Encoder:
    """A forecaster whose batch norms have seen something, in training mode."""
    torch.manual_seed(seed)
    name, settings = FORMS[form]
    settings = {**settings, "residual": 0.5} if settings.get("residual", 0) is not None and "conv" in name else settings
    settings = {k: v for k, v in settings.items() if not (name == "lwconvtimenet" and k == "residual")}
    model = Forecast(HORIZON, line=None).build(name, settings, n_channels=N_CHANNELS, context_length=CONTEXT)
    assert isinstance(model, Encoder)
    model(torch.randn(4, N_CHANNELS, CONTEXT))
    return model


def step(model: nn.Module, rate: float = 0.05, n: int = 2) -> None:
    """Train for a few steps towards forecasts of 1."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    torch.manual_seed(1)
    x = torch.randn(4, N_CHANNELS, CONTEXT)
    for _ in range(n):
        loss = (model.train()(x) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()


@pytest.mark.parametrize(
    "form", [one if one in ONE_OF_EACH else pytest.param(one, marks=pytest.mark.slow) for one in TOKENS]
)
def test_lora_begins_at_nothing_moves_answers_leaves_its_base_and_merges_into_a_plain_encoder(form: str) -> None:
    model = model_of(form).eval()
    x = torch.randn(4, N_CHANNELS, CONTEXT)
    before, plain, mark = model(x), {k: v.clone() for k, v in model.state_dict().items()}, base_hash(model)
    adapt(model, "lora")
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-6)
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        assert parameter.requires_grad == (parts[0] == "head" or parts[-1] in ("down", "up", "shift")), name
    step(model)
    after = model(x)
    assert (after - before).abs().max() > 1e-3
    assert base_hash(model) == mark
    merged = merge(model)
    torch.testing.assert_close(merged(x), after, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(merged.merged()(x), after, rtol=1e-4, atol=1e-5)
    assert list(merged.state_dict()) == list(plain)
    assert all(parameter.requires_grad for parameter in merged.parameters())
    changed = [k for k in plain if not k.startswith("head.") and not torch.equal(merged.state_dict()[k], plain[k])]
    assert changed
    assert not any("running" in name or "num_batches" in name for name in changed)


@pytest.mark.parametrize("form", quick(ONE_OF_EACH))
def test_the_frozen_part_of_an_adapted_encoder_stays_bit_for_bit_what_it_was(form: str) -> None:
    for how in ("lora", "bottleneck", "probe"):
        model = model_of(form)
        base = {name: value.clone() for name, value in adapters._base_state(model)}  # pyright: ignore[reportPrivateUsage]
        adapt(model, how)
        step(model)
        now = dict(adapters._base_state(model))  # pyright: ignore[reportPrivateUsage]
        assert set(now) == set(base)
        assert all(torch.equal(now[name], base[name]) for name in base)


@pytest.mark.parametrize("form", quick(ONE_OF_EACH))
def test_bottlenecks_begin_at_nothing_and_every_one_of_them_is_trained(form: str) -> None:
    model = model_of(form).eval()
    x = torch.randn(4, N_CHANNELS, CONTEXT)
    before = model(x)
    adapt(model, "bottleneck", width=2)
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)
    step(model)
    after, parts = model(x), [m for m in model.modules() if isinstance(m, adapters.Bottleneck)]
    assert (after - before).abs().max() > 1e-3
    assert parts
    assert all(part.up.weight.abs().max() > 0 for part in parts)
    torch.testing.assert_close(merge(model).merged()(x), after, rtol=1e-4, atol=1e-5)


def test_a_bottleneck_of_an_encoder_with_unknown_blocks_stands_behind_its_tokens() -> None:
    class Plain(Encoder):
        n_channels, n_groups_of, n_tokens, width, context_length, patch_length, stride = None, "channels", 1, 4, 8, 8, 8

        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Linear(8, 4), nn.Identity()

        def encode(self, x, observed=None):
            from prismts.layers.features import Features
            from prismts.layers.normalize import InstanceNorm

            window, stats = InstanceNorm()(x)
            return Features(self.embed(window)[:, :, None], torch.ones(*x.shape[:2], 1).bool(), window, stats)

    model = adapt(Plain(), "bottleneck", width=2)
    x = torch.randn(2, 3, 8)
    before = model.encode(x).tokens
    nn.init.ones_(model.bottleneck.up.bias)
    torch.testing.assert_close(model.encode(x).tokens, before + 1)
    twin = copy.deepcopy(model)
    nn.init.zeros_(model.bottleneck.up.bias)
    torch.testing.assert_close(twin.encode(x).tokens, before + 1)  # a copy reads its own bottleneck


def test_low_rank_differences_are_the_product_that_can_be_done_by_hand() -> None:
    part = adapters.LowRank(torch.zeros(2, 3), rank=1, strength=2.0)
    part.up.data, part.down.data = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0, 0.0, -1.0]])
    torch.testing.assert_close(part(torch.ones(2, 3)), torch.tensor([[3.0, 1.0, -1.0], [5.0, 1.0, -3.0]]))


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_the_sliced_branches_read_the_adapted_weights_and_give_their_gradients(norm: str, monkeypatch) -> None:
    settings = SMALL | {"residual": 0.5, "dropout": 0.0, "norm": norm}
    torch.manual_seed(0)
    model = Forecast(HORIZON, line=None).build("convtimenet", settings, n_channels=3, context_length=CONTEXT)
    adapt(model, "lora", rank=2)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    x = torch.randn(4, 3, CONTEXT)
    found = []
    for smallest in (2**40, 1):  # the plain composition, then slices
        monkeypatch.setattr(paths, "SMALLEST", smallest)
        model.zero_grad()
        y = model.train()(x)
        y.square().mean().backward()
        found.append((y.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-5)
    assert set(found[0][1]) == {name for name, p in model.named_parameters() if p.requires_grad}
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], gradient, rtol=1e-3, atol=1e-5)


def test_grus_depthwise_kernels_and_single_numbers_are_reached() -> None:
    cross = adapt(model_of("cross_learner both"), "lora", targets=["gru.weight"])
    step(cross)
    assert all(p[0].up.abs().max() > 0 for m in cross.modules() if isinstance(m, nn.GRU) for p in
               m.parametrizations.values())  # fmt: skip
    conv = adapt(model_of(), "lora", targets=["conv.long.weight", "alpha"])
    step(conv)
    kernels = [m.parametrizations.weight[0] for n, m in conv.named_modules() if n.endswith("conv.long")]
    assert kernels
    assert all(kernel.up.abs().max() > 0 for kernel in kernels)
    alphas = [m.parametrizations.alpha[0].shift for n, m in conv.named_modules() if n.endswith("join_conv")]
    assert alphas
    assert all(shift != 0 for shift in alphas)


def test_an_adapted_gru_can_be_copied_and_merged_after_it_was_trained() -> None:
    model = adapt(model_of("cross_learner both"), "lora")
    step(model)
    x = torch.randn(2, N_CHANNELS, CONTEXT)
    after = model(x)  # with a graph, which cannot be copied
    for merged in (merge(model), merge(model, in_place=True)):
        torch.testing.assert_close(merged(x), after, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(copy.deepcopy(merged)(x), after, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("convtimenet", {"width": 256, "feed_forward": 1024, "kernel_sizes": (9, 11, 15, 21, 29, 39, 39, 39, 39)}),
        ("patchtst", {"width": 256, "feed_forward": 1024, "n_layers": 6, "n_heads": 8}),
        ("cross_learner", {"width": 256, "n_blocks": 7}),
    ],
)
def test_lora_trains_at_most_a_hundredth_of_an_encoder_of_five_million_weights(name: str, settings: dict) -> None:
    architecture = find_model(name)
    model = architecture.build(make_settings(architecture.config, settings), n_channels=7, context_length=336)
    n_encoder = sum(p.numel() for p in model.parameters())
    share = trained_share(adapt(model, "lora"))
    assert share.n_encoder == n_encoder > 4_500_000
    assert 0 < share.share <= 0.01
    assert share.n_trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert "% of" not in str(share)
    assert f"{share.n_trained:,} trained weights beside {n_encoder:,}" in str(share)


def test_factors_never_outweigh_their_weight() -> None:
    model = adapt(model_of(), "lora", rank=1000)
    for module in model.modules():
        for one in getattr(module, "parametrizations", {}).values():
            part = one[0]
            assert sum(p.numel() for p in part.parameters()) <= max(1, one.original.numel() - 1)


def test_a_probe_trains_the_head_alone_and_full_trains_everything() -> None:
    probe = trained_share(adapt(model_of(), "probe"))
    full = trained_share(adapt(model_of(), "full"))
    assert probe.n_trained == 0
    assert full.n_trained == full.n_encoder == probe.n_encoder


def test_the_training_loop_leaves_the_base_alone_and_keeps_the_adapter(tmp_path) -> None:
    import numpy as np

    from prismts.data.series import Collection, Series

    series = Series(np.random.default_rng(0).standard_normal((N_CHANNELS, 200)).astype(np.float32))
    windows = Windows(Collection.of(series), CONTEXT, HORIZON)
    model = model_of("convtimenet mixed deformable")
    mark = base_hash(model)
    adapt(model, "lora")
    config = FitConfig(max_epochs=2, batch_size=64, learning_rate=1e-2)
    fit(model, Forecast(HORIZON, line=None), windows, windows, config=config, progress=False)
    assert base_hash(model) == mark
    assert any(p.abs().max() > 0 for n, p in model.named_parameters() if n.endswith(".up"))
    assert not model.training
    assert all(not m.training for m in model.train().modules() if isinstance(m, nn.BatchNorm1d))


@pytest.mark.parametrize("how", ["lora", "bottleneck", "probe", "full"])
def test_an_adapter_is_saved_apart_and_comes_back_on_its_base(how: str, tmp_path) -> None:
    base, x = model_of().eval(), torch.randn(2, N_CHANNELS, CONTEXT)
    model = adapt(copy.deepcopy(base), how)
    step(model)
    save_adapter(model, tmp_path / "a")
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == ["adapter.json", "adapter.safetensors"]
    again = load_adapter(copy.deepcopy(base), tmp_path / "a").eval()
    torch.testing.assert_close(again(x), model(x), rtol=0, atol=0)
    save_adapter(model, tmp_path / "a")  # over an old one


def test_an_adapter_whose_writer_was_killed_between_two_renames_is_not_lost(tmp_path) -> None:
    base = model_of()
    save_adapter(adapt(copy.deepcopy(base), "lora"), tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / ".a.old")
    assert load_adapter(base, tmp_path / "a").adaptation is not None


def test_the_adapter_of_a_large_encoder_is_a_small_file(tmp_path) -> None:
    settings = {"width": 256, "feed_forward": 1024, "kernel_sizes": (9,) * 9}
    task = Classify(5, pooling="max")
    model = task.build("convtimenet", settings, n_channels=3, context_length=100)
    save_adapter(adapt(model, "lora"), tmp_path / "a")
    size = (tmp_path / "a" / "adapter.safetensors").stat().st_size
    assert size < 300_000 < 0.02 * 4 * sum(p.numel() for p in model.parameters())


def test_an_adapter_on_another_base_a_foreign_and_an_altered_one_are_refused_in_words(tmp_path) -> None:
    model = adapt(model_of(), "lora")
    save_adapter(model, tmp_path / "a")
    with pytest.raises(SavedModelError, match="belongs to another base"):
        load_adapter(model_of(seed=1), tmp_path / "a")
    with pytest.raises(SavedModelError, match="no adapter at"):
        load_adapter(model_of(), tmp_path / "b")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "mine.txt").write_text("mine")
    with pytest.raises(SavedModelError, match="no adapter of PrismTS"):
        save_adapter(model, tmp_path / "c")
    with (tmp_path / "a" / "adapter.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(SavedModelError, match="was altered"):
        load_adapter(model_of(), tmp_path / "a")


def test_an_adapter_for_another_head_is_refused_in_words(tmp_path) -> None:
    save_adapter(adapt(model_of(), "lora"), tmp_path / "a")
    other = model_of()
    other.head = nn.Identity()
    with pytest.raises(SavedModelError, match="does not fit this model"):
        load_adapter(other, tmp_path / "a")


def test_wrong_settings_are_told_in_words() -> None:
    with pytest.raises(SettingsError, match="Did you mean 'lora'"):
        adapt(model_of(), "lore")
    with pytest.raises(SettingsError, match="No weight of the encoder fits"):
        adapt(model_of(), "lora", targets=["nowhere"])
    with pytest.raises(SettingsError, match="adapted already"):
        adapt(adapt(model_of(), "lora"), "lora")
    with pytest.raises(SettingsError, match="rank is at least 1"):
        adapt(model_of(), "lora", rank=0)
    with pytest.raises(SettingsError, match=r"Did you mean 'embed.weight'"):
        adapt(model_of(), "lora", free=["embed.weigth"])
    with pytest.raises(SettingsError, match="nothing to freeze"):
        adapt(nn.Linear(2, 2), "lora")


def test_free_parameters_are_trained_as_they_are() -> None:
    model = adapt(model_of(), "probe", free=["embed.weight"])
    assert [n for n, p in model.named_parameters() if p.requires_grad and not n.startswith("head")] == ["embed.weight"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["LoraConfig", "LoHaConfig", "LoKrConfig"])
def test_a_configuration_of_peft_adapts_an_encoder_that_calls_its_layers(kind: str, tmp_path) -> None:
    peft = pytest.importorskip("peft")
    base = model_of("patchtst").eval()
    x, mark = torch.randn(2, N_CHANNELS, CONTEXT), base_hash(base)
    model = adapt(copy.deepcopy(base), getattr(peft, kind)(r=2, target_modules=["query", "rise"]))
    torch.testing.assert_close(model(x), base(x), rtol=0, atol=1e-6)
    step(model)
    assert base_hash(model) == mark
    merged = merge(model)
    torch.testing.assert_close(merged(x), model(x), rtol=1e-5, atol=1e-5)
    assert set(merged.state_dict()) == set(base.state_dict())
    save_adapter(model, tmp_path / "a")
    torch.testing.assert_close(load_adapter(copy.deepcopy(base), tmp_path / "a").eval()(x), model(x))


@pytest.mark.slow
def test_peft_is_refused_where_it_would_not_be_heard() -> None:
    peft = pytest.importorskip("peft")
    with pytest.raises(SettingsError, match=r"would not be heard. Use how='lora'"):
        adapt(model_of(), peft.LoraConfig(r=2, target_modules=["rise"]))
    with pytest.raises(SettingsError, match="LoraConfig, LoHaConfig or LoKrConfig"):
        adapt(model_of(), 3)


def test_without_peft_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'prismts\[adapt\]'"):
        adapt(model_of(), object())
