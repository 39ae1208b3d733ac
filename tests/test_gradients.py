"""Gradient norms per layer and path: by hand, and without a trace on the model."""

import pytest
import torch
from torch import nn

from prismts.analysis.gradients import gradient_norms
from prismts.errors import DataError, SettingsError


class TwoPaths(nn.Module):
    """Two blocks of two paths; the second block's GRU path is built but never asked."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.ModuleDict({"cnn": nn.Linear(2, 1), "gru": nn.Linear(2, 1)}) for _ in range(2))
        self.norm = nn.BatchNorm1d(2)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(1, 1, bias=False)

    def forward(self, x):
        x = self.drop(self.norm(x))
        return self.head(self.blocks[0]["cnn"](x) + 3 * self.blocks[0]["gru"](x) + self.blocks[1]["cnn"](x))


PATHS = {"cnn": "blocks.*.cnn.*", "gru": "blocks.*.gru.*"}


def a_model():
    torch.manual_seed(0)
    return TwoPaths(), torch.randn(8, 2)


def rows(model, *args, paths=None):
    return {(row.path, row.layer): row for row in gradient_norms(model, *args, paths=paths)}


def test_the_norm_of_each_layer_and_path_is_that_of_its_parameters():
    model, x = a_model()
    model.eval()(x).square().mean().backward()
    found = rows(model, paths=PATHS)
    linear = model.blocks[0]["cnn"]
    expected = torch.cat([linear.weight.grad.flatten(), linear.bias.grad]).norm().item()
    assert found["cnn", 0].norm == pytest.approx(expected)
    assert found["gru", 0].norm == pytest.approx(3 * expected, rel=1e-5)  # planted: thrice the weight in the sum
    assert found["cnn", 0].rms == pytest.approx(expected / 3**0.5)
    assert [*found] == [("cnn", 0), ("cnn", 1), ("gru", 0), ("gru", 1), ("other", None)]
    assert found["other", None].n_parameters == 4 + 1


def test_a_layer_that_receives_nothing_is_shown_with_zero():
    model, x = a_model()
    assert rows(model, lambda: model(x).sum(), paths=PATHS)["gru", 1].norm == 0


def test_a_loss_gives_what_a_backward_pass_leaves():
    model, x = a_model()
    model.eval()
    taken = gradient_norms(model, lambda: model(x).square().mean(), paths=PATHS)
    model(x).square().mean().backward()
    assert taken == gradient_norms(model, paths=PATHS)


def test_gradients_buffers_and_random_state_are_left_as_they_were():
    model, x = a_model()
    model(x).sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    state = torch.get_rng_state()
    with torch.no_grad():
        gradient_norms(model, lambda: 100 * model(x).square().sum(), paths=PATHS)
    assert {name: p.grad is None for name, p in model.named_parameters()} == {
        name: name not in gradients for name, _ in model.named_parameters()
    }
    for name, gradient in gradients.items():
        assert torch.equal(model.get_parameter(name).grad, gradient)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, buffers[name]), name
    assert torch.equal(torch.get_rng_state(), state)


def test_without_patterns_the_first_part_of_a_name_is_the_path():
    model, x = a_model()
    found = rows(model, lambda: model(x).sum())
    assert [*found] == [("blocks", 0), ("blocks", 1), ("norm", None), ("head", None)]


def test_a_path_may_have_several_patterns():
    model, x = a_model()
    paths = {"ends": ["norm.*", "head.weight"], "blocks": "blocks.*"}
    found = rows(model, lambda: model(x).sum(), paths=paths)
    assert [*found] == [("ends", None), ("blocks", 0), ("blocks", 1)]
    assert found["ends", None].n_parameters == 5


def test_frozen_parameters_are_not_counted():
    model, x = a_model()
    model.head.requires_grad_(False)
    assert ("head", None) not in rows(model, lambda: model(x).sum())


def test_a_pattern_that_meets_nothing_shows_what_names_look_like():
    model, _ = a_model()
    with pytest.raises(SettingsError, match=r"'layers\.\*' of path 'cnn' meets no parameter.*blocks\.0\.cnn\.weight"):
        gradient_norms(model, paths={"cnn": "layers.*"})


def test_paths_that_share_a_parameter_are_refused():
    model, _ = a_model()
    with pytest.raises(SettingsError, match=r"'blocks\.0\.cnn\.weight' is met by the patterns of 'all' and of 'cnn'"):
        gradient_norms(model, paths={"all": "blocks.*", "cnn": "blocks.*.cnn.*"})


def test_a_model_without_gradients_says_what_to_do():
    model, _ = a_model()
    with pytest.raises(DataError, match=r"holds no gradients\. Call loss\.backward\(\) first"):
        gradient_norms(model)


def test_a_loss_that_is_no_scalar_and_a_gradient_that_is_not_finite_are_refused():
    model, x = a_model()
    with pytest.raises(DataError, match=r"a scalar that depends on the model, but gave shape \[8, 1\]"):
        gradient_norms(model, lambda: model(x))
    with pytest.raises(DataError, match="is not finite"):
        gradient_norms(model, lambda: (model(x) * float("nan")).sum())
