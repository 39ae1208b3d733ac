"""Patches told in the words of a frozen language model, behind a prompt that describes the window."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import prismts
from prismts.data.synthetic import sine_mixture
from prismts.errors import SavedModelError, SettingsError, ShapeError
from prismts.models.language_reprogram import Reprogram, ReprogrammedEncoder, TimeLLMConfig, window_statistics

transformers = pytest.importorskip("transformers")

TINY = {
    "weights": "random", "width": 8, "n_heads": 2, "feed_forward": 12, "n_layers": 2, "max_tokens": 32, "n_words": 11,
    "patch_length": 8, "stride": 4, "n_prototypes": 5, "patch_width": 6, "ask_width": 4, "ask_heads": 2,
    "token_width": 5, "n_prompt": 2,
}  # fmt: skip
SIZES = {
    name: TINY[name] for name in ("patch_length", "stride", "n_prototypes", "patch_width", "ask_width", "ask_heads")
}


def build(seed: int = 0, **changes) -> ReprogrammedEncoder:
    torch.manual_seed(seed)
    return ReprogrammedEncoder(TimeLLMConfig(**{**TINY, **changes}), n_channels=2, context_length=40)


def windows(n: int = 3, n_timepoints: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 2, n_timepoints, generator=torch.Generator().manual_seed(seed)).cumsum(-1)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory) -> Path:
    """A small GPT-2 with a tokenizer of a few words and of every digit by itself."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("hub") / "gpt2"
    words = [
        "<?>",
        "min",
        "max",
        "median",
        "value",
        "trend",
        "upward",
        "downward",
        "lags",
        ".",
        "-",
        *map(str, range(10)),
    ]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<?>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)]
    )
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<?>").save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"n_embd": 8, "n_head": 2, "n_layer": 2, "n_positions": 256, "vocab_size": len(words)}
    transformers.GPT2Model(transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).save_pretrained(folder)
    return folder


# ---- statistics


def test_the_statistics_of_a_wave_are_its_ends_its_middle_its_way_and_its_period():
    wave = torch.sin(2 * math.pi * torch.arange(48) / 8) + 3
    low, high, median, trend, *lags = window_statistics(wave).tolist()
    assert low == pytest.approx(2, abs=1e-5) and high == pytest.approx(4, abs=1e-5)
    assert (
        median == pytest.approx(3, abs=1e-5) and trend == -1
    )  # the last value is the one before the wave begins again
    assert set(lags[:3]) == {8, 16, 24}


def test_the_way_of_a_window_is_up_down_or_level():
    rows = torch.tensor([[1.0, 5.0, 2.0], [2.0, 5.0, 1.0], [1.0, 5.0, 1.0]])
    assert window_statistics(rows)[:, 3].tolist() == [1, -1, 0]


@pytest.mark.parametrize("n_timepoints", [1, 2, 7, 8])
def test_the_middle_is_the_median_of_torch(n_timepoints):
    x = windows(5, n_timepoints)
    assert torch.equal(window_statistics(x)[..., 2], x.median(-1).values)


def test_lags_are_those_of_the_largest_circular_autocorrelation():
    """A second answer, by sums over every shift."""
    x = windows(4)[:, 0]
    told = window_statistics(x)[:, 4:]
    for row, lags in zip(x - x.mean(-1, keepdim=True), told, strict=True):
        sums = [float((row * row.roll(lag)).sum()) for lag in range(1, 21)]
        assert lags.tolist() == [i + 1 for i in np.argsort(sums)[::-1][:5]]


@pytest.mark.parametrize(("n_timepoints", "lags"), [(1, [0] * 5), (2, [1] * 5), (5, None)])
def test_a_short_window_has_its_last_lag_again(n_timepoints, lags):
    told = window_statistics(torch.arange(float(n_timepoints)))[4:].tolist()
    assert len(told) == 5 and (lags is None or told == lags)


# ---- reprogramming


def test_patches_ask_as_in_the_attention_of_torch():
    torch.manual_seed(0)
    layer = Reprogram(6, 8, 4, 2, dropout=0.0)
    x, words = torch.randn(3, 5, 6), torch.randn(7, 8)
    q = layer.query(x).view(3, 5, 2, 4).transpose(1, 2)
    k, v = (f(words).view(7, 2, 4).transpose(0, 1).expand(3, 2, 7, 4) for f in (layer.key, layer.value))
    y = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(layer(x, words), layer.out(y))


def test_mapped_prototypes_are_sums_of_words_and_their_map_is_trained():
    model = build()
    words = model.backbone.table
    expected = torch.stack([sum(w * row for w, row in zip(line, words, strict=True)) for line in model.map.weight])
    torch.testing.assert_close(model.prototypes(), expected + model.map.bias[:, None])
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert "map.weight" in trained and not any(name.startswith("backbone") for name in trained)


def test_drawn_prototypes_are_different_words_of_the_table_and_nothing_more_of_it_is_kept():
    model = build(prototypes="drawn")
    torch.manual_seed(0)
    table = ReprogrammedEncoder(TimeLLMConfig(**TINY), n_channels=2, context_length=40).backbone.table
    places = [(row == table).all(-1).nonzero().item() for row in model.prototypes()]
    assert len(set(places)) == 5 and model.backbone.table is None
    assert not torch.equal(model.prototypes(), build(seed=1, prototypes="drawn").prototypes())


def test_of_what_the_language_model_gives_the_first_values_of_each_patch_are_kept():
    model = build().eval()
    whole = build(token_width=8).eval()
    assert model.width == 5 and whole.width == 8
    torch.testing.assert_close(model.encode(windows()).tokens, whole.encode(windows()).tokens[..., :5])
    assert build(token_width=100).width == 8


def test_a_prompt_of_numbers_is_read_before_the_patches_and_told_in_shares_of_the_window():
    model = build().eval()
    before, told = model.prompt(windows()[:, 0], None)
    assert before.shape == (3, 2, 8) and told is None
    statistics = window_statistics(windows()[:, 0])
    statistics[:, 4:] /= 40
    torch.testing.assert_close(before.flatten(1), model.prompt.linear(statistics))
    without = build(prompt="none").eval()
    assert without.n_prompt == 0
    without.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("prompt")})
    assert not torch.allclose(without.encode(windows()).tokens, model.encode(windows()).tokens)


# ---- a prompt of text


def with_text(gpt2: Path, **changes) -> ReprogrammedEncoder:
    torch.manual_seed(0)
    settings = {**SIZES, "backbone": str(gpt2), "n_layers": 2, "prompt": "text", "longest_text": 32, **changes}
    return ReprogrammedEncoder(TimeLLMConfig(**settings), n_channels=2, context_length=40).eval()


def test_the_text_tells_the_statistics_of_the_window(gpt2):
    model = with_text(gpt2, description="Oil and load.")
    text = model.prompt.texts(torch.tensor([[0.0, 1.0, 0.25, 2.0]]))[0]
    assert text.startswith("Oil and load. Input statistics of 4 steps: min value 0, max value 2, median value 0.25,")
    assert text.endswith("the trend of input is upward, top 5 lags are 2, 1, 1, 1, 1.")


def test_the_words_of_the_text_are_rows_of_the_table_and_stand_at_the_end_of_the_prompt(gpt2):
    model = with_text(gpt2, longest_text=200)
    table = transformers.GPT2Model.from_pretrained(gpt2).wte.weight
    window = windows(1)[:, 0]
    before, told = model.prompt(window, model.backbone.table)
    ids = transformers.AutoTokenizer.from_pretrained(gpt2)(model.prompt.texts(window)[0])["input_ids"]
    assert before.shape == (1, 200, 8)
    assert told[0].sum() == len(ids) and told[0, -len(ids) :].all()
    torch.testing.assert_close(before[0, -len(ids) :], table[ids])


def test_a_window_behind_a_text_is_read_alone_as_in_company_and_in_any_units(gpt2):
    model = with_text(gpt2)
    x = windows()
    torch.testing.assert_close(model.encode(x[1:2]).tokens, model.encode(x).tokens[1:2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.encode(9 + 4 * x).tokens, model.encode(x).tokens, rtol=1e-3, atol=1e-3)
    observed = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.7
    assert model.encode(torch.where(observed, x, torch.nan), observed).tokens.isfinite().all()


def test_what_fills_up_a_short_text_is_read_by_no_token(gpt2):
    model = with_text(gpt2, longest_text=200)
    x = windows()
    before = model.encode(x).tokens
    write = model.prompt.forward

    def garbled(window, table):
        tokens, told = write(window, table)
        assert not told.all()
        return torch.where(told[..., None], tokens, torch.randn_like(tokens)), told

    model.prompt.forward = garbled
    torch.testing.assert_close(model.encode(x).tokens, before)


def test_a_forecaster_behind_a_text_learns_and_is_kept(gpt2, tmp_path):
    settings = {**SIZES, "backbone": str(gpt2), "n_layers": 1, "prompt": "text", "longest_text": 32}
    forecaster = prismts.Forecaster(
        "timellm", context_length=40, horizon=6, model_settings=settings, progress=False,
        fit_settings={"max_epochs": 1, "batch_size": 64},
    ).fit(sine_mixture(150).values)  # fmt: skip
    forecaster.save(tmp_path / "model")
    assert np.array_equal(prismts.load(tmp_path / "model").predict(), forecaster.predict())


# ---- errors


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prototypes": "draw"}, r"no prototypes named 'draw'\. Did you mean 'drawn'"),
        ({"prompt": "words"}, "no prompt named 'words'"),
        ({"n_prompt": 0}, "n_prompt is at least 1"),
        ({"ask_dropout": 1.5}, "ask_dropout is a share"),
        ({"prompt": "text"}, "read by the tokenizer that belongs to a pretrained backbone"),
        ({"prototypes": "drawn", "n_prototypes": 12}, "drawn without repetition, but the backbone has 11"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_words(changes, words):
    with pytest.raises(SettingsError, match=words):
        build(**changes)


def test_patches_and_prompt_together_need_positions():
    with pytest.raises(ShapeError, match="knows 11 positions, but this window is cut into 12 tokens"):
        build(max_tokens=11)


def test_a_backbone_without_a_tokenizer_is_named(gpt2, tmp_path):
    transformers.GPT2Model.from_pretrained(gpt2).save_pretrained(tmp_path / "silent")
    with pytest.raises(SavedModelError, match=r"'.*silent' has no tokenizer, or that of another network"):
        with_text(tmp_path / "silent")


# ---- export


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "changes"),
    [("gpt4ts", {"train": "lora"}), ("allm4ts", {"patches": "deformable"}), ("timellm", {"n_prototypes": 5})],
)
def test_each_of_them_is_written_as_onnx_and_answers_as_before(model, changes, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from prismts.serving.export import export
    from prismts.serving.runtime import OnnxModel

    sizes = ("n_prototypes", "patch_width", "ask_width", "ask_heads", "token_width", "n_prompt")
    settings = {name: value for name, value in TINY.items() if name not in sizes} | changes
    series = sine_mixture(200)
    fitted = prismts.Forecaster(
        model, context_length=40, horizon=6, model_settings=settings, progress=False,
        fit_settings={"max_epochs": 1, "batch_size": 64},
    ).fit(series.values)  # fmt: skip
    read = OnnxModel(export(fitted, tmp_path / "model.onnx"))
    np.testing.assert_allclose(read.predict(series.values), fitted.predict(series.values), rtol=1e-3, atol=1e-3)
