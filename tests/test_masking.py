"""What is hidden: only what was observed, never everything, in the promised share, and each point once in parts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prismts.errors import SettingsError
from prismts.layers.masking import MASKS, Blocks, Channels, OneOf, Points, Stretches, complementary


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def everything(*shape: int) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.bool)


def runs(row: list[bool]) -> list[int]:
    """Lengths of the hidden spans that begin and end within the row."""
    found, length, open_at_the_start = [], 0, row[0]
    for hidden in row:
        if hidden:
            length += 1
        else:
            if length and not open_at_the_start:
                found.append(length)
            length, open_at_the_start = 0, False
    return found


@pytest.mark.parametrize("kind", [*MASKS.values(), lambda **_: OneOf((Points(0.9), Channels(0.9)))])
@given(seed=st.integers(0, 10_000), n_channels=st.integers(1, 3), n=st.integers(1, 9), seen=st.floats(0, 1))
def test_only_observed_points_are_hidden_and_one_stays_where_there_is_one(kind, seed, n_channels, n, seen):
    observed = torch.rand(5, n_channels, n, generator=generator(seed)) < seen
    hidden = kind(share=0.9)(observed, generator(seed))
    assert hidden.shape == observed.shape and hidden.dtype == torch.bool
    assert not (hidden & ~observed).any()
    left = (observed & ~hidden).flatten(1).any(1)
    assert torch.equal(left, observed.flatten(1).any(1))


@pytest.mark.parametrize(("kind", "share"), [
    (Points(0.3), 0.3), (Points((0.1, 0.5)), 0.3), (Blocks(0.3, length=6), 0.3), (Blocks((0.2, 0.4), length=3), 0.3),
    (Stretches(0.2, length=5), 0.2), (Channels(0.25), 0.25), (OneOf((Points(0.2), Channels(0.4))), 0.3),
])  # fmt: skip
def test_the_share_of_hidden_points_is_met_in_expectation(kind, share):
    hidden = kind(everything(3000, 12, 40), generator())
    assert abs(hidden.float().mean() - share) < 0.01
    per_step = hidden.float().mean((0, 1))  # neither the ends nor the middle of a window are hidden more often
    assert (per_step - share).abs().max() < 0.03


def test_hidden_spans_have_the_asked_mean_length_and_geometric_spread():
    hidden = Blocks(0.3, length=6)(everything(400, 1, 500), generator())
    lengths = torch.tensor([length for row in hidden[:, 0].tolist() for length in runs(row)], dtype=torch.float)
    assert abs(lengths.mean() - 6) < 0.2
    assert abs((lengths == 1).float().mean() - 1 / 6) < 0.02  # a geometric span ends at once with this chance


def test_blocks_of_one_channel_do_not_follow_those_of_another_but_stretches_do():
    apart = Blocks(0.3)(everything(200, 2, 50), generator()).float()
    assert abs(torch.corrcoef(apart.transpose(0, 1).flatten(1))[0, 1]) < 0.1
    together = Stretches(0.3)(everything(200, 2, 50), generator())
    differing = (together[:, 0] != together[:, 1]).sum(-1)
    assert (differing <= 1).all()  # the one point that stays where a stretch would take the whole window
    assert not differing[~together.all(1).any(-1) | ~together.any(1).all(-1)].any()


def test_a_hidden_channel_is_hidden_whole_and_another_one_stays():
    hidden = Channels(0.9)(everything(200, 3, 10), generator())
    assert ((hidden.sum(-1) == 0) | (hidden.sum(-1) == 10)).all()
    assert (hidden.all(-1).sum(1) <= 2).all()
    assert (hidden.all(-1).sum(1) == 2).any()


def test_a_range_of_shares_gives_every_window_its_own():
    shares = Points((0.1, 0.9))(everything(300, 4, 200), generator()).float().mean((1, 2))
    assert shares.min() < 0.2 and shares.max() > 0.8
    assert Points(0.5)(everything(300, 4, 200), generator()).float().mean((1, 2)).std() < 0.03


@pytest.mark.parametrize("kind", MASKS)
def test_equal_seeds_hide_equal_points(kind):
    observed = everything(4, 3, 20)
    assert torch.equal(MASKS[kind]()(observed, generator(3)), MASKS[kind]()(observed, generator(3)))
    torch.manual_seed(5)
    first = MASKS[kind]()(observed)
    torch.manual_seed(5)
    assert torch.equal(first, MASKS[kind]()(observed))
    assert not torch.equal(
        MASKS[kind](share=0.5)(observed, generator(3)), MASKS[kind](share=0.5)(observed, generator(4))
    )


def test_each_window_takes_one_of_several_kinds():
    hidden = OneOf((Channels(0.5), Points(0.5)))(everything(400, 4, 30), generator())
    whole = ((hidden.sum(-1) % 30) == 0).all(1)
    assert 0.4 < whole.float().mean() < 0.6


@given(st.integers(1, 4), st.integers(1, 50), st.integers(2, 5), st.integers(1, 9), st.booleans())
def test_complementary_masks_hide_every_point_exactly_once(n_channels, n, n_parts, length, together):
    masks = complementary(n_channels, n, n_parts=n_parts, length=length, together=together)
    assert masks.shape == (n_parts, n_channels, n)
    assert torch.equal(masks.sum(0), torch.ones(n_channels, n, dtype=torch.long))


def test_complementary_blocks_by_hand():
    masks = complementary(2, 8, n_parts=2, length=3, together=False).int().tolist()
    assert masks[0] == [[1, 1, 1, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1, 0, 0]]
    assert complementary(2, 8, n_parts=2, length=3)[1].int().tolist() == [[0, 0, 0, 1, 1, 1, 0, 0]] * 2


def test_a_share_beyond_its_range_is_refused():
    for share in (0, 1, 1.2, (0.5, 0.2)):
        with pytest.raises(SettingsError, match=r"above 0 and below 1, or a rising pair"):
            Points(share)
    with pytest.raises(SettingsError, match=r"at least 1, but got 0.5"):
        Blocks(0.2, length=0.5)
    with pytest.raises(SettingsError, match=r"would hide everything"):
        complementary(1, 10, n_parts=1)
    with pytest.raises(SettingsError, match=r"Give at least one"):
        OneOf(())
