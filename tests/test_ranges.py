"""What numbers settings may be."""

from dataclasses import dataclass

import numpy as np
import pytest

from prismts.errors import SettingsError
from prismts.ranges import expect_counts, expect_heads, expect_seed, expect_shares, expect_stages


@dataclass(frozen=True)
class Settings:
    n_layers: int | None = 1
    dropout: float | None = 0.0
    widths: object = (8, 16)
    strides: object = (1, 2)


def test_counts_begin_at_one_and_may_be_left_open():
    expect_counts(Settings(), "n_layers")
    expect_counts(Settings(n_layers=None), or_none=("n_layers",))
    with pytest.raises(SettingsError, match=r"^n_layers is at least 1, but got 0\.$"):
        expect_counts(Settings(n_layers=0), "n_layers")


@pytest.mark.parametrize("value", [None, 2.5, "3", True])
def test_a_count_is_a_whole_number(value):
    with pytest.raises(SettingsError, match="n_layers is a whole number of at least 1, but got"):
        expect_counts(Settings(n_layers=value), "n_layers")


@pytest.mark.parametrize("value", [None, "0.5"])
def test_a_share_is_a_number(value):
    with pytest.raises(SettingsError, match="dropout is a share from 0 to below 1, but got"):
        expect_shares(Settings(dropout=value), "dropout")


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_lies_between_zero_and_below_one(share):
    expect_shares(Settings(dropout=0.999), "dropout")
    expect_shares(Settings(dropout=None), or_none=("dropout",))
    with pytest.raises(SettingsError, match=f"dropout is a share from 0 to below 1, but got {share}"):
        expect_shares(Settings(dropout=share), "dropout")


def test_settings_of_stages_become_tuples_of_one_length():
    settings = Settings(widths=[8, 16])
    expect_stages(settings, "widths", "strides")
    assert settings.widths == (8, 16)
    with pytest.raises(SettingsError, match=r"lengths differ: widths=\(8,\), strides=\(1, 2\)"):
        expect_stages(Settings(widths=[8]), "widths", "strides")


def test_stages_there_must_be():
    with pytest.raises(SettingsError, match="hold one number per stage, and at least one"):
        expect_stages(Settings(widths=[], strides=[]), "widths", "strides")


def test_heads_share_a_width_out_evenly():
    expect_heads(12, 4)
    with pytest.raises(SettingsError, match="n_heads=5 heads share the width out evenly, but 12 is no multiple of it"):
        expect_heads(12, 5)


@pytest.mark.parametrize("seed", [None, -1, 1.5, "a", True, 2**32])
def test_a_seed_is_a_whole_number_that_every_library_takes(seed):
    with pytest.raises(SettingsError, match=r"^seed is a whole number from 0 to 4294967295, .* but got"):
        expect_seed(seed)
    assert expect_seed(np.int64(3)) == 3
