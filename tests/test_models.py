"""One contract for all models: they build, learn, forget nothing, remember nothing, merge, export and bear gaps."""

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prismts.errors import SettingsError, ShapeError
from prismts.models import MODELS, find_model, make_settings
from prismts.models.contract import Encoder
from prismts.models.convtimenet import ConvTimeNetConfig
from prismts.tasks.forecast import Forecast
from prismts.training.together import Stack
from prismts.windows import Batch

N_CHANNELS, CONTEXT, HORIZON = 3, 40, 6
QUANTILES = (0.1, 0.5, 0.9)
SMALL = {"patch_length": 8, "stride": 4, "width": 6, "feed_forward": 12, "kernel_sizes": (5, 7), "dropout": 0.2}

# every form of the trained architectures; the floors have but one form each
FORMS = {
    f"convtimenet {channels} {patches}": ("convtimenet", SMALL | {"channels": channels, "patches": patches})
    for channels, patches in itertools.product(("independent", "mixed"), ("deformable", "uniform", "points"))
}
FORMS |= {
    f"convtimenet {channels} {name}": ("convtimenet", SMALL | {"channels": channels} | changes)
    for channels in ("independent", "mixed")
    for name, changes in {
        "layer norm": {"norm": "layer"},
        "without feed-forward": {"feed_forward": 0},
        "without residual weights": {"residual": None},
        "without small kernels": {"small_kernel": 0},
        "even kernels": {"kernel_sizes": (4, 6), "small_kernel": 2},
        "gaps between patches": {"stride": 11},
        "layer norm on points": {"norm": "layer", "patches": "points", "feed_forward": 0, "small_kernel": 0},
    }.items()
}
CROSS = {"patch_length": 8, "width": 8, "n_blocks": 2, "dropout": 0.2}
FORMS |= {
    f"cross_learner {name}": ("cross_learner", CROSS | changes)
    for name, changes in {
        "both": {},
        "gru to cnn": {"exchange": "gru_to_cnn"},
        "cnn to gru": {"exchange": "cnn_to_gru"},
        "without exchange": {"exchange": "none"},
        "late": {"fusion": "late"},
        "without fusion": {"fusion": "none", "exchange": "none"},
        "static kernels": {"kernels": "static"},
        "moving average": {"kernels": "ema"},
        "full convolution": {"kernels": "standard"},
        "kernels per token": {"kernel_per": "token"},
        "lift": {"front": "lift"},
        "last patch filled up": {"patch_length": 12},
    }.items()
}
FORMS |= {
    f"lwconvtimenet {channels} {patches}": (
        "lwconvtimenet", {"patch_length": 8, "stride": 4, "width": 6, "channels": channels, "patches": patches}
    )
    for channels, patches in itertools.product(("independent", "mixed"), ("deformable", "points"))
}  # fmt: skip
FORMS |= {"lwconvtimenet layer norm": ("lwconvtimenet", {"patch_length": 8, "stride": 4, "width": 6, "norm": "layer"})}
TCN = {"widths": (6,), "kernel_sizes": (9,), "small_kernels": (3,)}
TWO_STAGES = {"widths": (6, 8), "n_blocks": (1, 2), "kernel_sizes": (9, 5), "small_kernels": (3, 3)}
FORMS |= {
    f"moderntcn {name}": ("moderntcn", TCN | changes)
    for name, changes in {
        "one stage": {},
        "two stages": TWO_STAGES,
        "three stages, thirds": {
            "widths": (4, 6, 8), "n_blocks": (1, 1, 1), "kernel_sizes": (9, 5, 3), "small_kernels": (3, 3, 3),
            "downsampling": 3, "stride": 2,
        },
        "without small kernels": {"small_kernels": (0,)},
        "level and scale kept": TWO_STAGES | {"normalize": False},
        "joined": TWO_STAGES | {"joined": True},
        "last patch filled up": {"patch_length": 10, "stride": 7, "expansion": 2},
    }.items()
}  # fmt: skip
PYRAMID = {
    "stem_ratio": 1, "widths": (8, 8), "n_blocks": (1, 2), "n_heads": (2, 4), "n_groups": (1, 2),
    "offset_kernels": (5, 3), "offset_strides": (4, 1),
}  # fmt: skip
FORMS |= {
    f"deformabletst {name}": ("deformabletst", PYRAMID | changes)
    for name, changes in {
        "every step": {},
        "stem": {"stem_ratio": 4, "dropout": 0.1},
        "last token filled up": {"stem_ratio": 6, "expansion": 2},
    }.items()
}
TWO_SCALES = {"width": 8, "n_heads": 2, "n_layers": (1, 2), "reductions": (2, 1), "residual": 0.5}
FORMS |= {
    f"formertime {name}": ("formertime", TWO_SCALES | changes)
    for name, changes in {
        "two scales": {"normalize": False},
        "last slices filled up": {"slices": (7, 3), "strides": (5, 2), "reductions": (3, 2)},
        "normalized": {"residual": None},
    }.items()
}
FORMS |= {
    f"timemae {name}": ("timemae", {"width": 8, "n_heads": 2, "n_layers": 2, "residual": 0.5} | changes)
    for name, changes in {
        "slices": {"normalize": False},
        "last slice filled up": {"slice_length": 7},
        "normalized": {},
    }.items()
}
PATCHES = {"patch_length": 8, "stride": 4, "width": 8, "n_heads": 2, "feed_forward": 12, "n_layers": 2, "dropout": 0.2}
FORMS |= {
    "patchtst": ("patchtst", PATCHES),
    "patchtst gaps between patches": ("patchtst", PATCHES | {"stride": 11}),
    "itransformer": ("itransformer", {"width": 8, "n_heads": 2, "feed_forward": 12, "dropout": 0.2}),
    "timesnet": ("timesnet", {"width": 6, "feed_forward": 8, "n_periods": 2, "n_kernels": 3, "dropout": 0.2}),
    "dlinear": ("dlinear", {}),
    "dlinear individual": ("dlinear", {"individual": True, "kernel_size": 5}),
    "cyclenet linear": ("cyclenet", {"cycle": 5}),
    "cyclenet mlp": ("cyclenet", {"cycle": 7, "backbone": "mlp", "width": 9}),
}
UNIVERSAL = {
    "patch_lengths": (8, 12), "stride": 4, "width": 8, "n_heads": 2, "feed_forward": 12, "kernel_sizes": (5, 7),
    "n_bands": 4, "n_layers": 2, "residual": 0.5, "dropout": 0.2,
}  # fmt: skip
FORMS |= {
    f"universal {name}": ("universal", UNIVERSAL | changes)
    for name, changes in {
        "exchange": {},
        "exchange transformer": {"backbone": "transformer"},
        "apart": {"exchange": False},
        "apart transformer": {"exchange": False, "backbone": "transformer"},
        "apart, all off": {"exchange": False, "n_bands": 0, "patch_lengths": (8,), "patches": "uniform"},
        "apart, gaps masked": {"exchange": False, "gaps": "masked"},
        "apart, gaps between patches": {"exchange": False, "stride": 11, "patches": "uniform"},
    }.items()
}
EXCHANGING = [form for form in FORMS if form.startswith("universal exchange")]  # channels read each other, any number
LANGUAGE = {
    "weights": "random", "width": 8, "n_heads": 2, "feed_forward": 12, "n_layers": 2, "max_tokens": 32, "n_words": 11,
    "patch_length": 8, "stride": 4,
}  # fmt: skip
FORMS |= {
    f"gpt4ts {name}": ("gpt4ts", LANGUAGE | changes)
    for name, changes in {
        "norms": {},
        "low rank": {"train": "lora", "lora_rank": 2, "dropout": 0.0},
        "moving patches of two sizes, both directions": {
            "backbone": "bert", "train": "full", "patches": "deformable", "scales": (1, 2),
        },
        "attention": {"backbone": "attention"},
        "without a language model": {"backbone": "none"},
    }.items()
}  # fmt: skip
FORMS |= {
    f"allm4ts {name}": ("allm4ts", LANGUAGE | changes)
    for name, changes in {
        "norms": {},
        "low rank, moving patches of two sizes": {
            "train": "lora", "lora_rank": 2, "patches": "deformable", "scales": (1, 2),
        },
        "without a language model": {"backbone": "none", "stride": 7},
    }.items()
}  # fmt: skip
WORDS = LANGUAGE | {
    "n_prototypes": 5, "patch_width": 6, "ask_width": 4, "ask_heads": 2, "token_width": 5, "n_prompt": 2,
}  # fmt: skip
FORMS |= {
    f"timellm {name}": ("timellm", WORDS | changes)
    for name, changes in {
        "mapped words": {},
        "drawn words, both directions, moving patches": {
            "prototypes": "drawn", "backbone": "bert", "train": "norms", "patches": "deformable",
        },
        "without a language model": {"backbone": "none", "prompt": "none"},
    }.items()
}  # fmt: skip
FORMS |= {
    "chosen_lines": ("chosen_lines", {}),
    "seasonal_lines": ("seasonal_lines", {}),
    "coupled_lines": ("coupled_lines", {}),
    "ridge": ("ridge", {}),
    "seasonal_naive": ("seasonal_naive", {"season": 5}),
    "last_value": ("last_value", {}),
}
TRAINED = [form for form, (name, _) in FORMS.items() if MODELS[name].is_trained]
# an encoder that forecasts in a form of its own has its tokens tested in test_rivals_forecast.py
TOKENS = [form for form in TRAINED if MODELS[FORMS[form][0]].is_encoder and not MODELS[FORMS[form][0]].forecaster]
BOUND = (
    "cross_learner",
    "moderntcn",
    "formertime",
    "timemae",
    "itransformer",
    "timesnet",
)  # to the channels they were built for, in every form
MIXED = [form for form, (name, options) in FORMS.items() if options.get("channels") == "mixed" or name in BOUND]
OWN = ["dlinear individual", "cyclenet linear", "cyclenet mlp"]  # weights for each channel, none for others
APART = [form for form in FORMS if form not in MIXED + OWN]


# torch cannot stack a GRU, and each network of a stack would hold the language model once more
STACKING = [form for form in TRAINED if FORMS[form][0] not in ("cross_learner", "gpt4ts", "allm4ts", "timellm")]


def takes_level_away(form: str) -> bool:
    """Whether a form that mixes channels reads each window in its own level and scale."""
    name, options = FORMS[form]
    return name in ("cross_learner", "itransformer", "timesnet", "cyclenet") or options.get(
        "normalize", name in ("moderntcn", "formertime", "timemae")
    )


every_form = pytest.mark.parametrize("form", FORMS)
every_trained_form = pytest.mark.parametrize("form", TRAINED)


def build(form: str, *, quantiles=None, line: str | None = None, seed: int = 0, **changes) -> torch.nn.Module:
    name, options = FORMS[form]
    torch.manual_seed(seed)
    task = Forecast(HORIZON, quantiles=quantiles, line=line)
    return task.build(name, {**options, **changes}, n_channels=N_CHANNELS, context_length=CONTEXT)


def learned(form: str, **how) -> torch.nn.Module:
    """As after some training: no parameter and no running statistic is where it began."""
    model = build(form, **how)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    model.train()
    model(windows(8, seed=8))
    return model.eval()


def windows(n: int = 4, seed: int = 0) -> torch.Tensor:
    level = torch.tensor([0.0, 5.0, -20.0])[:, None]
    return level + torch.randn(n, N_CHANNELS, CONTEXT, generator=torch.Generator().manual_seed(seed)).cumsum(-1)


def test_every_model_of_the_dictionary_is_under_contract():
    assert {name for name, _ in FORMS.values()} == set(MODELS)


# ---- shapes


@every_form
@pytest.mark.parametrize("quantiles", [None, QUANTILES, (0.5,)])
@pytest.mark.parametrize("line", ["chosen", "ridge", None])
def test_a_forecast_has_a_value_for_every_level_channel_and_step(form, quantiles, line):
    y = build(form, quantiles=quantiles, line=line).eval()(windows(2))
    levels = () if quantiles is None else (len(quantiles),)
    assert y.shape == (2, *levels, N_CHANNELS, HORIZON)
    assert y.isfinite().all()


@pytest.mark.parametrize("form", TOKENS)
def test_an_encoder_keeps_the_sizes_it_promises(form):
    model, x = build(form).eval(), windows(2)
    features = model.encode(x)
    n_groups = N_CHANNELS if model.n_groups_of == "channels" else 1
    assert features.tokens.shape == (2, n_groups, model.n_tokens, model.width)
    assert features.valid.shape == features.tokens.shape[:3]
    assert features.valid.dtype == torch.bool
    assert features.window.shape == x.shape
    assert model.n_channels == (N_CHANNELS if form in MIXED else None)


# ---- learning


@every_trained_form
@pytest.mark.parametrize("line", ["chosen", None])
def test_every_parameter_receives_a_gradient(form, line):
    name, options = FORMS[form]
    changes = {"residual": options.get("residual", 0.5)} if name == "convtimenet" else {}
    model, x = build(form, line=line, **changes).train(), windows(8)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(3):  # a head and a predictor that start at zero hold back the gradient of what lies before them
        optimizer.zero_grad()
        (model(x) - torch.arange(HORIZON)).square().mean().backward()
        optimizer.step()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert not [name for name, grad in gradients.items() if grad is None or not grad.isfinite().all() or not grad.any()]


@every_form
def test_training_draws_on_nothing_but_the_seed(form):
    answers = []
    for _ in range(2):
        model = build(form, seed=3).train()
        answers.append((model(windows()), model.state_dict()))
    torch.testing.assert_close(*answers, rtol=0, atol=0)


@every_trained_form
def test_another_seed_is_another_model(form):
    assert not torch.equal(build(form, seed=0).eval()(windows()), build(form, seed=1).eval()(windows()))


# ---- evaluation


@every_form
def test_evaluation_leaves_every_weight_and_the_random_numbers_as_they_were(form):
    model = learned(form)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    model(windows(seed=1))
    model(windows(seed=2), torch.rand(4, N_CHANNELS, CONTEXT, generator=torch.Generator().manual_seed(0)) < 0.7)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


@every_form
def test_interleaved_batches_do_not_disturb_each_other(form):
    model, a, b = learned(form), windows(4, seed=1), 100 * windows(3, seed=2)
    first = model(a)
    model(b)
    assert torch.equal(model(a), first)


@every_form
def test_a_window_is_forecast_alone_as_in_company(form):
    model, x = learned(form), windows(5)
    torch.testing.assert_close(model(x[2:3]), model(x)[2:3], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", APART)
def test_exchanged_channels_give_exchanged_forecasts_where_channels_stay_apart(form):
    model, x, order = learned(form, line="chosen"), windows(), [2, 0, 1]
    torch.testing.assert_close(model(x[:, order]), model(x)[:, order], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", [form for form in APART if form not in EXCHANGING])
def test_a_model_of_channels_apart_forecasts_any_number_of_them(form):
    model, x = learned(form), windows()
    torch.testing.assert_close(model(x[:, :1]), model(x)[:, :1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", OWN)
def test_a_model_with_weights_for_each_channel_is_bound_to_them_and_says_so(form):
    model, x = learned(form), windows()
    assert model.n_channels == N_CHANNELS
    with pytest.raises(ShapeError, match=r"channel=3, time=40\].*look exchanged: pass x.swapaxes\(-1, -2\)"):
        model(x.swapaxes(-1, -2))


@pytest.mark.parametrize("form", MIXED)
def test_a_mixed_model_reads_all_channels_and_says_so_when_the_axes_are_exchanged(form):
    model, x = learned(form), windows()
    changed = x.clone()
    changed[:, 2] += torch.randn(CONTEXT)
    assert not torch.allclose(model(changed)[:, 0], model(x)[:, 0])
    with pytest.raises(ShapeError, match=r"channel=3, time(=40)?\].*look exchanged: pass x.swapaxes\(-1, -2\)"):
        model(x.swapaxes(-1, -2))


@pytest.mark.parametrize("form", [f for f in TRAINED if (f in APART and f != "dlinear") or takes_level_away(f)])
def test_a_shifted_and_stretched_window_gives_the_shifted_and_stretched_forecast(form):
    model, x = learned(form), windows()
    torch.testing.assert_close(model(50 + 7 * x), 50 + 7 * model(x), rtol=1e-3, atol=1e-2)


# ---- merging and export


@pytest.mark.parametrize("form", TOKENS)
def test_a_merged_model_gives_the_same_answers_and_leaves_the_trained_one_untouched(form):
    model, x = learned(form, line="chosen"), windows()
    before, trainable = copy.deepcopy(model.state_dict()), [p.requires_grad for p in model.parameters()]
    merged = model.merged()
    expected = model(x)
    torch.testing.assert_close(merged(x), expected, rtol=1e-5, atol=1e-5 * float(expected.detach().abs().max()))
    with torch.no_grad():
        for parameter in merged.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == trainable
    assert not any(".short." in name for name in merged.state_dict())


@pytest.mark.parametrize("form", TOKENS)
def test_merging_in_the_middle_of_training_leaves_the_training_as_it_was(form):
    model, state = build(form).train(), torch.get_rng_state()
    assert not model.merged().training
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)


def check_export(form: str, *, dynamic: bool, **how) -> None:
    model, x = learned(form, **how), windows(3)
    merged = model.merged() if isinstance(model, Encoder) else model
    shapes = ({0: torch.export.Dim("batch", min=1, max=512)},) if dynamic else None
    exported = torch.export.export(merged, (x,), dynamic_shapes=shapes).module()
    for batch in (x, windows(1, seed=5), windows(9, seed=6)) if dynamic else (x,):
        torch.testing.assert_close(exported(batch), merged(batch), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "form",
    [
        "convtimenet independent deformable",
        "convtimenet mixed deformable",
        "cross_learner both",
        "ridge",
        "chosen_lines",
        "seasonal_lines",
        "coupled_lines",
    ],
)
def test_a_merged_model_is_exported_for_any_batch_size(form):
    check_export(form, dynamic=True, line="chosen")


@pytest.mark.slow
@every_form
@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("quantiles", [None, QUANTILES])
def test_every_form_is_exported(form, dynamic, quantiles):
    check_export(form, dynamic=dynamic, quantiles=quantiles)


# ---- gaps


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(sorted(FORMS)),
    st.sampled_from(["chosen", "ridge", None]),
    st.floats(0, 1),
    st.sampled_from([float("nan"), float("inf"), -1e30, 12345.0]),
    st.integers(0, 999),
)
def test_values_behind_the_mask_do_not_matter(form, line, share, hidden, seed):
    model, x = learned(form, line=line), windows(3, seed)
    observed = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < share
    observed[0] = False  # a window of which nothing was observed
    y = model(torch.where(observed, x, hidden), observed)
    assert y.isfinite().all()
    assert torch.equal(y, model(torch.where(observed, x, 0.0), observed))


@every_form
def test_a_mask_that_hides_nothing_changes_nothing(form):
    model, x = learned(form, line="chosen"), windows()
    torch.testing.assert_close(model(x, torch.ones_like(x, dtype=torch.bool)), model(x), rtol=1e-4, atol=1e-4)


# ---- precision and device


@every_trained_form
def test_bfloat16_autocast_runs_forward_and_backward_near_the_full_precision(form):
    model, x = learned(form, quantiles=QUANTILES, line="chosen"), windows()
    with torch.autocast("cpu", torch.bfloat16):
        y = model(x)
    assert y.dtype == torch.float32
    expected = model(x)
    assert (y - expected).norm() < 0.05 * expected.norm()
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(x).square().mean()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@every_form
def test_a_model_in_double_precision_stays_in_it(form):
    y = learned(form, line="chosen").double()(windows().double())
    assert y.dtype == torch.float64


@pytest.mark.long
def test_a_model_asks_its_input_for_the_device():
    """Every tensor made on the way must follow the input: the device "meta" shows those that do not."""
    for form in FORMS:
        model = build(form, quantiles=QUANTILES, line="chosen").eval().to("meta")
        x = windows().to("meta")
        assert model(x, torch.ones_like(x, dtype=torch.bool)).device.type == "meta"


# ---- several as one


def test_every_form_says_whether_it_can_be_stacked():
    assert [form for form in TRAINED if getattr(build(form), "stacks", False)] == STACKING


@pytest.mark.parametrize("form", STACKING)
@pytest.mark.parametrize("masked", [False, True])
def test_stacked_networks_have_the_losses_the_gradients_and_the_statistics_of_each_alone(form, masked):
    task = Forecast(HORIZON)
    settings = MODELS[FORMS[form][0]].config.__dataclass_fields__
    quiet = {name: 0.0 for name in ("dropout", "drop_path", "attention_dropout") if name in settings}
    models = [learned(form, seed=seed, **quiet).double().train() for seed in range(2)]
    alone = copy.deepcopy(models)
    batches = []
    for seed in range(2):
        x, y = windows(8, seed=seed).double(), windows(8, seed=seed + 5)[..., :HORIZON].double()
        seen = (torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < 0.8) if masked else None
        batches.append(Batch(x, y, seen, None, torch.zeros(8), torch.arange(8)))
    expected = torch.stack([task.loss(model, batch) for model, batch in zip(alone, batches, strict=True)])
    expected.sum().backward()
    stack = Stack(models, task)
    losses = stack(batches)
    losses.sum().backward()
    stack.scatter_buffers()
    torch.testing.assert_close(losses, expected, rtol=1e-9, atol=1e-9)
    for model, twin in zip(models, alone, strict=True):
        got = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        want = {name: p.grad for name, p in twin.named_parameters() if p.requires_grad}
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(dict(model.named_buffers()), dict(twin.named_buffers()), rtol=1e-9, atol=1e-9)


@pytest.mark.gpu
@every_form
def test_cuda_gives_the_answers_of_the_cpu(form):
    model, x = learned(form, quantiles=QUANTILES, line="chosen"), windows()
    observed = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.8
    expected = model(x), model(x, observed)
    model.to("cuda")
    got = model(x.to("cuda")).cpu(), model(x.to("cuda"), observed.to("cuda")).cpu()
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)
    if isinstance(model, Encoder):
        torch.testing.assert_close(model.merged()(x.to("cuda")).cpu(), expected[0], rtol=1e-3, atol=1e-3)


# ---- floors by hand


def test_the_last_value_is_repeated():
    x = torch.tensor([[[1.0, 2.0, 3.0, torch.nan]]])
    config = MODELS["last_value"].config()
    model = MODELS["last_value"].build(config, n_channels=1, context_length=4, horizon=3)
    assert model(x, ~x.isnan()).flatten().tolist() == [3, 3, 3]


def test_the_last_season_is_repeated():
    config = MODELS["seasonal_naive"].config(season=3)
    model = MODELS["seasonal_naive"].build(config, n_channels=1, context_length=5, horizon=7)
    assert model(torch.tensor([[[9.0, 9, 1, 2, 3]]])).flatten().tolist() == [1, 2, 3, 1, 2, 3, 1]


def test_a_season_longer_than_the_context_is_refused():
    with pytest.raises(SettingsError, match="repeats a season of 24 steps, but context_length is 20"):
        Forecast(3).build("seasonal_naive", {"season": 24}, n_channels=1, context_length=20)


# ---- names and settings


def test_an_unknown_model_offers_its_neighbor():
    with pytest.raises(SettingsError, match=r"no model named 'convtimenett'\. Did you mean 'convtimenet'\?"):
        find_model("convtimenett")


def test_an_unknown_setting_offers_its_neighbor():
    with pytest.raises(SettingsError, match=r"no setting 'kernel_size'\. Did you mean 'kernel_sizes'\?"):
        make_settings(ConvTimeNetConfig, {"kernel_size": (3,)})


def test_a_model_without_settings_says_so():
    with pytest.raises(SettingsError, match="It has: none"):
        make_settings(MODELS["ridge"].config, {"alpha": 1})


def test_lists_become_tuples_so_that_settings_read_from_a_file_are_those_that_were_written():
    assert make_settings(ConvTimeNetConfig, {"kernel_sizes": [3, 5]}) == ConvTimeNetConfig(kernel_sizes=(3, 5))
