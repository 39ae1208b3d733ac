"""Parity: the authors' weights in our model give what the authors' code gave."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from prismts.errors import SettingsError
from prismts.models.convtimenet import from_reference


def reference(name: str) -> dict[str, np.ndarray]:
    """The tensors of one form: x, what the authors' code made of it, and ``state/...``."""
    data = os.environ.get("PRISMTS_DATA")
    folder = os.environ.get("PRISMTS_REFERENCE") or (Path(data).parent / "reference" if data else None)
    path = Path(folder or "reference") / f"convtimenet_{name}.npz"
    if not path.is_file():
        pytest.skip(f"no reference file at {path}; set PRISMTS_REFERENCE to its folder")
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def weights(file: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {key.removeprefix("state/"): value for key, value in file.items() if key.startswith("state/")}


def relative(ours: torch.Tensor, theirs: np.ndarray) -> float:
    """The largest difference, as a share of the largest value."""
    return float(np.abs(ours.numpy() - theirs).max() / np.abs(theirs).max())


@pytest.fixture
def forecast():
    file = reference("forecast")
    return file, from_reference(str(file["config"]), weights(file)), torch.from_numpy(file["x"])


@pytest.fixture
def classify():
    file = reference("classify")
    return file, from_reference(str(file["config"]), weights(file)), torch.from_numpy(file["x"])


@torch.no_grad()
def test_the_forecasting_form_normalizes_places_samples_and_forecasts_as_the_authors_do(forecast):
    file, model, x = forecast
    features = model.encode(x)
    np.testing.assert_allclose(features.window, file["normalized"], rtol=1e-5, atol=1e-5)
    bounds = torch.stack(model.bounds(x), dim=-1)  # [B, C, N, 2]
    np.testing.assert_allclose(bounds.transpose(1, 2) / 103, file["bound"], rtol=1e-5, atol=1e-5)  # of 96 + 8 steps
    padded = torch.cat([features.window, features.window[..., -1:].expand(-1, -1, 8)], dim=-1)
    np.testing.assert_allclose(model.patch(padded), file["patches"], rtol=1e-5, atol=1e-5)
    assert relative(model(x), file["y_eval"]) < 1e-5


@torch.no_grad()
def test_the_classification_form_places_embeds_and_scores_as_the_authors_do(classify):
    file, model, x = classify
    bounds = torch.stack(model.bounds(x), dim=-1)[:, 0]  # [B, N, 2]
    np.testing.assert_allclose(bounds / 63, file["bound"], rtol=1e-5, atol=1e-5)  # of 60 + 4 steps
    embedded = []
    handle = model.norm_embed.register_forward_hook(lambda module, inputs, output: embedded.append(output))
    y = model(x)
    handle.remove()
    assert relative(embedded[0].transpose(0, 1), file["tokens"]) < 1e-5  # [B, D, N]
    assert relative(y, file["y_eval"]) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("form", ["forecast", "classify"])
def test_the_merged_model_still_agrees_with_the_authors(form, request):
    file, model, x = request.getfixturevalue(form)
    assert relative(model.merged()(x), file["y_eval"]) < 1e-5


@pytest.mark.parametrize("form", ["forecast", "classify"])
def test_a_missing_weight_is_named(form, request):
    file, _, _ = request.getfixturevalue(form)
    state = {name: value for name, value in weights(file).items() if "layers.1.DW_conv_small" not in name}
    with pytest.raises(SettingsError, match=r"lack what becomes 'blocks.1.conv.short.bias' here \(2 in all\)"):
        from_reference(str(file["config"]), state)


def test_a_config_may_be_a_mapping_as_well_as_its_text(forecast):
    file, model, x = forecast
    again = from_reference(json.loads(str(file["config"])), weights(file))
    assert torch.equal(again(x), model(x))
