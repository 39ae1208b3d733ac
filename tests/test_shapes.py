"""Shapes: what fits passes in silence, and what does not is told in the caller's words."""

import numpy as np
import pytest
import torch

from prismts.errors import DataError, ShapeError
from prismts.shapes import expect


def test_fitting_shapes_pass_in_silence():
    expect(torch.zeros(2, 7, 96), "B C T", C=7)
    expect(np.zeros((2, 7, 96)), "B C T")
    expect(torch.zeros(2, 7, 96), "B C T", C=None, T=96)


def test_a_wrong_size_is_told_by_the_name_of_its_axis():
    with pytest.raises(ShapeError) as error:
        expect(torch.zeros(2, 5, 96), "B C T", who="Forecaster", C=7)
    assert str(error.value) == "Forecaster reads [batch, channel=7, time], but got shape [2, 5, 96]."


def test_exchanged_axes_are_recognized():
    with pytest.raises(ShapeError, match=r"look exchanged: pass x.swapaxes\(-1, -2\)"):
        expect(torch.zeros(2, 96, 7), "B C T", C=7)


def test_a_missing_axis_is_not_taken_for_an_exchange():
    with pytest.raises(ShapeError, match=r"but got shape \[96, 7\].$"):
        expect(torch.zeros(96, 7), "B C T", C=7)


def test_a_shape_error_is_a_data_error_and_a_value_error():
    assert issubclass(ShapeError, DataError)
    assert issubclass(ShapeError, ValueError)
