"""Borders in time: three numbers, checked by hand."""

import pytest

from prismts.data.splits import Borders, by_fraction, ett_borders
from prismts.errors import SettingsError


def test_each_step_belongs_to_exactly_one_part():
    borders = Borders(6, 8, 10)
    parts = [range(*borders.train), range(*borders.validation), range(*borders.test)]
    assert [i for part in parts for i in part] == list(range(10))


def test_ten_steps_at_70_10_20_are_cut_after_seven_and_eight():
    assert by_fraction(10) == Borders(7, 8, 10)


def test_train_and_test_are_rounded_down_and_validation_takes_the_rest():
    assert by_fraction(966) == Borders(676, 773, 966)  # 0.7 * 966 = 676.2; 966 - 193 = 773, as 0.2 * 966 = 193.2


def test_a_split_may_have_no_test_part():
    assert by_fraction(10, train=0.8, test=0) == Borders(8, 10, 10)


def test_hourly_ett_is_cut_after_12_16_and_20_months_of_720_hours():
    assert ett_borders() == Borders(8640, 11520, 14400)


def test_quarter_hourly_ett_has_four_times_as_many_steps_in_each_part():
    hourly, finer = ett_borders(), ett_borders(4)
    assert (finer.train_end, finer.validation_end, finer.test_end) == (
        4 * hourly.train_end, 4 * hourly.validation_end, 4 * hourly.test_end,
    )  # fmt: skip


def test_borders_print_as_three_half_open_intervals():
    assert str(Borders(6, 8, 10)) == "train [0, 6), validation [6, 8), test [8, 10)"


@pytest.mark.parametrize("ends", [(0, 1, 2), (5, 4, 6), (5, 6, 5)])
def test_borders_out_of_order_are_refused(ends):
    with pytest.raises(SettingsError, match=rf"0 < train_end <= .* but got {ends[0]}, {ends[1]}, {ends[2]}"):
        Borders(*ends)


def test_a_series_too_short_for_a_training_part_is_refused_in_words():
    with pytest.raises(SettingsError, match=r"A series of 1 step cannot be cut: the 70% of it .* Give more data"):
        by_fraction(1)


@pytest.mark.parametrize("fractions", [(0.9, 0.2), (0.0, 0.2), (0.7, -0.1)])
def test_fractions_that_are_none_are_refused(fractions):
    with pytest.raises(SettingsError, match="sum to at most 1"):
        by_fraction(100, *fractions)
