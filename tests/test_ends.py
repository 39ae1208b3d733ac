"""Where windows end: slices are counted with the last one filled up, and what lies behind repeats what is last."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from prismts.layers.ends import hold, n_slices, n_steps, seen_by_tokens, within


@given(st.integers(1, 200), st.integers(1, 40), st.data())
def test_slices_cover_every_place_and_none_begins_behind_the_last(n, length, data):
    stride = data.draw(st.integers(1, length))
    m = n_slices(n, length, stride)
    covered = {place for i in range(m) for place in range(i * stride, i * stride + length)}
    assert covered >= set(range(n))
    assert (m - 1) * stride < n
    assert n_slices(torch.tensor([n]), length, stride).item() == m


def test_slices_by_hand():
    assert n_slices(336, 4, 4) == 84 and n_slices(337, 4, 4) == 85
    assert n_slices(144, 16, 8) == 17 and n_slices(145, 16, 8) == 18
    assert n_slices(3, 16, 8) == 1


def test_a_window_ends_with_the_last_step_at_which_any_channel_was_observed():
    observed = torch.zeros(3, 2, 5, dtype=torch.bool)
    observed[0, 0, 1] = observed[0, 1, 3] = observed[1, 0, 4] = True
    assert n_steps(observed).tolist() == [4, 5, 1]  # where nothing was observed, the first step stands for all


def test_what_lies_behind_repeats_the_last_that_counts():
    x = torch.arange(8.0).view(2, 1, 4)
    assert hold(x, torch.tensor([[2], [4]])).tolist() == [[[0, 1, 1, 1]], [[4, 5, 6, 7]]]
    assert within(torch.tensor([2, 4]), 4).tolist() == [[True, True, False, False], [True] * 4]


def test_a_token_has_seen_what_it_covers():
    observed = torch.tensor([[False, True, False, False, False, True]])
    assert seen_by_tokens(observed, 3, 3, 2).tolist() == [[True, False, True]]  # 0..2, 2..4, 4..6
