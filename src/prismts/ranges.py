"""What numbers settings may be: counts from 1, shares below 1, finite ones, one per stage, heads that fit a width."""

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from prismts.errors import SettingsError

__all__ = ["expect_counts", "expect_heads", "expect_numbers", "expect_seed", "expect_shares", "expect_stages"]


def expect_counts(settings: object, *names: str, or_none: Sequence[str] = ()) -> None:
    """Raise a SettingsError unless these settings are whole numbers from 1; those of ``or_none`` may be left open."""
    for name in (*names, *_given(settings, or_none)):
        value = getattr(settings, name)
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise SettingsError(f"{name} is a whole number of at least 1, but got {value!r}.")
        if value < 1:
            raise SettingsError(f"{name} is at least 1, but got {value}.")


def expect_shares(settings: object, *names: str, or_none: Sequence[str] = ()) -> None:
    """Raise a SettingsError unless each of these settings is a share from 0 to below 1; ``or_none`` as above."""
    for name in (*names, *_given(settings, or_none)):
        value = getattr(settings, name)
        if not isinstance(value, Real) or not 0 <= float(value) < 1:
            raise SettingsError(f"{name} is a share from 0 to below 1, but got {value!r}.")


def expect_numbers(settings: object, *names: str, or_none: Sequence[str] = ()) -> None:
    """Turn these settings into floats; a SettingsError for what is no finite number. ``or_none`` as above."""
    for name in (*names, *_given(settings, or_none)):
        value = getattr(settings, name)
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise SettingsError(f"{name} is a finite number, but got {value!r}.")
        object.__setattr__(settings, name, float(value))


def expect_stages(settings: object, *names: str) -> None:
    """Turn these settings into tuples, and raise a SettingsError unless they hold equally many numbers, one or more."""
    for name in names:
        object.__setattr__(settings, name, tuple(getattr(settings, name)))  # settings are frozen
    found = ", ".join(f"{name}={getattr(settings, name)}" for name in names)
    lengths = {len(getattr(settings, name)) for name in names}
    if len(lengths) > 1:
        raise SettingsError(f"{', '.join(names)} hold one number per stage, but their lengths differ: {found}.")
    if 0 in lengths:
        raise SettingsError(f"{', '.join(names)} hold one number per stage, and at least one, but got {found}.")


def expect_heads(width: int, n_heads: int) -> None:
    """Raise a SettingsError unless the heads of an attention share its width out evenly."""
    if width % n_heads:
        raise SettingsError(
            f"n_heads={n_heads} heads share the width out evenly, but {width} is no multiple of it. "
            "Change width or n_heads."
        )


def expect_seed(seed: Any, name: str = "seed") -> int:
    """The seed as a number of Python, or a SettingsError that tells what it may be."""
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= int(seed) < 2**32:
        raise SettingsError(
            f"{name} is a whole number from 0 to {2**32 - 1}, so that what is drawn can be drawn again, but got "
            f"{seed!r}."
        )
    return int(seed)


def _given(settings: object, names: Sequence[str]) -> list[str]:
    return [name for name in names if getattr(settings, name) is not None]
