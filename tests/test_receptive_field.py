"""Receptive fields: the formula and the measurement agree, with and without dilation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prismts.analysis.receptive_field import Convolution, chained, convolutions_of, measured, undilated
from prismts.errors import SettingsError, ShapeError
from prismts.layers.convolve import DepthwiseConv, TwoKernelConv
from prismts.layers.normalize import InstanceNorm
from prismts.layers.patch import DePatch, UniformPatch


def dilated_stack():
    """Kernels of 3 at dilations 1, 2, 4: 1 + 2 * 7 = 15 steps; without dilation 7."""
    torch.manual_seed(0)
    layers = [(nn.Conv1d(8, 8, 3, padding=d, dilation=d), nn.ReLU()) for d in (1, 2, 4)]
    return nn.Sequential(*[module for pair in layers for module in pair])


def test_a_dilated_stack_by_hand_by_formula_and_measured():
    model = dilated_stack()
    assert chained(convolutions_of(model)) == 15
    reach = measured(model, (1, 8, 41), 20)
    assert (reach.size, reach.first, reach.last, reach.n_seen) == (15, 13, 27, 15)


def test_without_dilation_the_same_stack_sees_seven_steps():
    model = dilated_stack()
    plain = undilated(model)
    assert chained(convolutions_of(model), dilated=False) == chained(convolutions_of(plain)) == 7
    assert measured(plain, (1, 8, 41), 20).size == 7
    assert plain(torch.zeros(1, 8, 41)).shape == (1, 8, 41)
    assert [conv.dilation for conv in convolutions_of(model)] == [1, 2, 4]  # the model itself is untouched


def test_a_single_dilated_kernel_leaves_holes():
    reach = measured(nn.Conv1d(1, 1, 3, dilation=4), (1, 1, 20), 0)
    assert reach.steps.nonzero()[0].tolist() == [0, 4, 8]
    assert (reach.size, reach.n_seen) == (9, 3)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=3))
def test_formula_and_measurement_agree_for_any_chain(sizes):
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Conv1d(1, 1, k, stride=s, dilation=d) for k, s, d in sizes])
    expected = chained([Convolution(*size) for size in sizes])
    assert chained(convolutions_of(model)) == expected
    assert measured(model, (1, 1, expected), 0).size == expected  # exactly as long as one output step needs
    plain = undilated(model)
    assert measured(plain, (1, 1, expected), 0).size == chained(convolutions_of(model), dilated=False)


@pytest.mark.parametrize("padding_mode", ["zeros", "replicate"])
def test_same_padding_survives_the_loss_of_dilation(padding_mode):
    model = nn.Conv1d(1, 1, 3, padding="same", dilation=3, padding_mode=padding_mode)
    plain = undilated(model)
    assert plain(torch.zeros(1, 1, 20)).shape == (1, 1, 20)
    assert measured(model, (1, 1, 20), 10).steps.nonzero()[0].tolist() == [7, 10, 13]
    assert measured(plain, (1, 1, 20), 10).steps.nonzero()[0].tolist() == [9, 10, 11]
    assert torch.equal(plain.weight, model.weight)


class Residual(nn.Module):
    """Depthwise blocks of this package, each added to what it read: [D, M, N]."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([TwoKernelConv(3, 7, 3), DepthwiseConv(3, 5)])

    def forward(self, x):
        for block in self.blocks:
            x = x + torch.nn.functional.gelu(block(x))
        return x


def test_the_blocks_of_this_package_agree_with_the_formula_residuals_and_all():
    model = Residual()
    assert [conv.kernel_size for conv in convolutions_of(model)] == [7, 5]
    assert chained(convolutions_of(model)) == 11
    assert measured(model, (3, 2, 40), 20).size == 11


def test_patches_and_poolings_count_as_convolutions():
    model = nn.Sequential(UniformPatch(8, 4), nn.Flatten(1, 2), nn.MaxPool1d(2), nn.AvgPool1d(3, stride=1))
    assert convolutions_of(model) == (Convolution(8, 4), Convolution(2, 2), Convolution(3))
    assert chained(convolutions_of(model)[:1]) == 8


def test_steps_at_the_ends_see_less():
    reach = measured(nn.Conv1d(1, 1, 5, padding=2), (1, 1, 20), -1)
    assert (reach.first, reach.last) == (17, 19)


def test_normalization_over_the_window_lets_every_step_see_all():
    norm, conv = InstanceNorm(), nn.Conv1d(2, 2, 3, padding=1)
    assert measured(lambda x: conv(norm(x)[0]), (1, 2, 30), 15).size == 30


def test_an_output_that_reads_nothing_sees_nothing():
    weight = nn.Parameter(torch.ones(1, 1, 4))
    assert measured(lambda x: weight + 0 * x.detach().sum(), (1, 1, 6), 0).size == 0


def test_measuring_leaves_the_model_and_the_random_numbers_as_they_were():
    model = nn.Sequential(nn.BatchNorm1d(1), nn.Conv1d(1, 1, 3), nn.Dropout(0.5)).train()
    model[2].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    measured(model, (2, 1, 9), 0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model] == [True, True, False]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters())


def test_a_step_that_is_not_there_is_refused():
    with pytest.raises(ShapeError, match="output_step=9 does not exist: the output has 7 steps"):
        measured(nn.Conv1d(1, 1, 3), (1, 1, 9), 9)


def test_a_model_without_convolutions_has_no_formula():
    with pytest.raises(SettingsError, match="Linear holds no one-dimensional convolution"):
        convolutions_of(nn.Linear(3, 3))


def test_patches_that_move_have_no_formula():
    with pytest.raises(SettingsError, match="places that the data choose"):
        convolutions_of(nn.Sequential(DePatch(8, 4)))


def test_a_kernel_of_no_steps_is_refused():
    with pytest.raises(SettingsError, match="at least 1 step"):
        Convolution(0)
