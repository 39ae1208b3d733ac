"""Teachers continue what they have never seen, in its own units, past gaps, alone as in company."""

import builtins

import pytest
import torch

from prismts.errors import MissingExtraError, SavedModelError, SettingsError, ShapeError
from prismts.models.language_hub import digest
from prismts.models.teachers import Teacher, TeacherForecast, TimesFMTeacher

transformers = pytest.importorskip("transformers")

LEVELS = (0.1, 0.5, 0.9)
SMALL = {
    "patch_length": 8, "context_length": 64, "horizon_length": 16, "num_hidden_layers": 1, "hidden_size": 16,
    "intermediate_size": 16, "head_dim": 8, "num_attention_heads": 2, "num_key_value_heads": 2,
    "output_quantile_len": 16, "quantiles": LEVELS, "decode_index": 2,
}  # fmt: skip


def timesfm(seed: int = 0) -> torch.nn.Module:
    """A tiny TimesFM 2.5 with weights drawn at random, far enough from zero to say something."""
    torch.manual_seed(seed)
    model = transformers.TimesFm2_5ModelForPrediction(transformers.TimesFm2_5Config(**SMALL))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def teacher() -> TimesFMTeacher:
    return TimesFMTeacher(timesfm())


def windows(n: int = 3, n_timepoints: int = 50, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 2, n_timepoints, generator=generator).cumsum(-1)


class LastValue:
    """The smallest teacher there can be: three lines that meet the protocol."""

    levels: tuple[float, ...] = ()
    fingerprint = "last value"

    def predict(self, context: torch.Tensor, horizon: int) -> TeacherForecast:
        return TeacherForecast(context[..., -1:].expand(-1, -1, horizon), None)


def test_whatever_has_levels_a_fingerprint_and_predict_is_a_teacher(teacher):
    assert isinstance(teacher, Teacher) and isinstance(LastValue(), Teacher)
    assert not isinstance(timesfm(), Teacher)


@pytest.mark.parametrize("horizon", [1, 16, 40])  # 16 are written at once
def test_a_teacher_answers_for_every_channel_step_and_level(teacher, horizon):
    told = teacher.predict(windows(), horizon)
    assert told.mean.shape == (3, 2, horizon) and told.quantiles.shape == (3, 3, 2, horizon)
    assert teacher.levels == LEVELS
    assert told.mean.isfinite().all() and told.quantiles.isfinite().all() and not told.mean.requires_grad


def test_quantiles_never_cross(teacher):
    assert (teacher.predict(windows(20), 40).quantiles.diff(dim=1) >= 0).all()


def test_the_point_forecast_within_one_stride_is_the_middle_level_of_the_model_itself(teacher):
    """A second way through the library: its own call on windows normalized by hand, of whole patches."""
    x = windows(2, 48)[:, 0]  # [B, T]
    mean, scale = x.mean(-1, keepdim=True), (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    with torch.no_grad():
        out = teacher.model(list((x - mean) / scale), forecast_context_len=48, truncate_negative=False)
    torch.testing.assert_close(
        teacher.predict(x[:, None], 16).mean[:, 0], out.full_predictions[..., 2] * scale + mean, rtol=1e-4, atol=1e-4
    )


def test_other_units_give_the_same_forecast_in_those_units(teacher):
    told, other = teacher.predict(windows(), 20), teacher.predict(1000 + 7 * windows(), 20)
    torch.testing.assert_close(other.mean, 1000 + 7 * told.mean, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(other.quantiles, 1000 + 7 * told.quantiles, rtol=1e-3, atol=1e-2)


def test_a_window_of_positive_values_is_forecast_alone_as_beside_one_of_negative_values(teacher):
    positive, negative = windows(1).abs() + 0.1, -windows(1, seed=1).abs()
    together = teacher.predict(torch.cat([positive, negative]), 16)
    torch.testing.assert_close(teacher.predict(positive, 16).mean, together.mean[:1], rtol=1e-5, atol=1e-5)


def test_batches_of_any_size_give_the_same_answers(teacher):
    one_by_one = TimesFMTeacher(teacher.model, batch_size=1).predict(windows(), 20)
    torch.testing.assert_close(one_by_one.mean, teacher.predict(windows(), 20).mean, rtol=1e-4, atol=1e-4)


def test_a_horizon_beyond_one_stride_begins_with_the_answer_within_it(teacher):
    assert torch.equal(teacher.predict(windows(), 40).mean[..., :16], teacher.predict(windows(), 16).mean)


def test_only_the_last_steps_of_a_window_longer_than_the_context_are_read_beside_its_level_and_scale(teacher):
    x = windows(1, 100)
    exchanged = torch.cat([x[..., :36].flip(-1), x[..., 36:]], dim=-1)  # the same mean and variance
    torch.testing.assert_close(teacher.predict(exchanged, 9).mean, teacher.predict(x, 9).mean, rtol=1e-4, atol=1e-4)


def test_a_gap_on_a_straight_line_costs_nothing(teacher):
    line = torch.arange(48.0)[None, None]
    gap = line.clone()
    gap[..., 10:30:2] = torch.nan
    told, same = teacher.predict(gap, 5), teacher.predict(line, 5)
    # the level and the scale of what was observed differ a little, so the answers do, too: by less than a step
    assert (told.mean - same.mean).abs().max() < 1.0


def test_values_are_read_at_the_places_where_they_were_observed(teacher):
    x = windows(1)
    gap = x.clone()
    gap[..., 20:23] = torch.nan
    assert not torch.allclose(teacher.predict(gap, 5).mean, teacher.predict(x, 5).mean)
    assert teacher.predict(gap, 5).mean.isfinite().all()


def test_a_channel_of_which_nothing_was_observed_is_continued_by_zeros_and_disturbs_no_other(teacher):
    x = windows()
    x[0, 1] = torch.nan
    told = teacher.predict(x, 5)
    assert not told.mean[0, 1].any() and told.quantiles.isfinite().all()
    torch.testing.assert_close(told.mean[1:], teacher.predict(windows(), 5).mean[1:])


def test_answers_come_in_the_precision_of_the_windows(teacher):
    assert teacher.predict(windows().double(), 5).mean.dtype == torch.float64


def test_fingerprints_tell_weights_apart_and_nothing_else(teacher):
    assert teacher.fingerprint == TimesFMTeacher(timesfm(0), batch_size=3).fingerprint
    assert teacher.fingerprint != TimesFMTeacher(timesfm(1)).fingerprint


def test_a_digest_sees_one_changed_bit_in_any_precision():
    layer = torch.nn.Linear(2, 2).to(torch.bfloat16)
    before = digest(layer)
    with torch.no_grad():
        layer.bias[1] += 1
    assert digest(layer) != before


def test_asking_leaves_the_teacher_without_gradients_and_as_it_was(teacher):
    before = digest(teacher.model)
    teacher.predict(windows().requires_grad_(), 5)
    assert digest(teacher.model) == before and not any(p.requires_grad for p in teacher.model.parameters())


# ---- reading one from a folder


def test_a_teacher_saved_by_the_library_is_read_from_its_folder(teacher, tmp_path):
    teacher.model.save_pretrained(tmp_path / "timesfm")
    read = TimesFMTeacher.from_hub(tmp_path / "timesfm")
    assert read.fingerprint == teacher.fingerprint
    torch.testing.assert_close(read.predict(windows(), 9).mean, teacher.predict(windows(), 9).mean)


def test_weights_that_are_not_on_this_machine_are_not_fetched_unless_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(SavedModelError, match=r"cannot read the pretrained '.*absent'.*download=True"):
        TimesFMTeacher.from_hub(tmp_path / "absent")


def test_without_the_library_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name == "transformers":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"TimesFMTeacher needs transformers.*pip install 'prismts\[adapt\]'"):
        TimesFMTeacher.from_hub("anything")


# ---- errors


def test_another_kind_of_network_is_refused_with_what_a_teacher_is():
    with pytest.raises(SettingsError, match=r"asks a TimesFm2_5ModelForPrediction.*but got a Linear.*or write a class"):
        TimesFMTeacher(torch.nn.Linear(1, 1))


def test_what_cannot_be_asked_is_refused_in_words(teacher):
    with pytest.raises(SettingsError, match="at least 1, but got 0"):
        teacher.predict(windows(), 0)
    with pytest.raises(ShapeError, match=r"A teacher reads \[batch, channel, time\]"):
        teacher.predict(windows()[0], 3)
    with pytest.raises(SettingsError, match="channels that go through at once, but got 0"):
        TimesFMTeacher(teacher.model, batch_size=0)
