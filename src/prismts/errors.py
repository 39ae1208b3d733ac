"""The few errors a user meets. Each message says what was expected, what came, and what to do."""

import difflib
from collections.abc import Iterable

__all__ = [
    "PrismError",
    "DataError",
    "ShapeError",
    "SettingsError",
    "NotFittedError",
    "SavedModelError",
    "MissingExtraError",
    "a_or_an",
    "unknown_name",
]


class PrismError(Exception):
    """Base of every error this package raises on purpose: catch it to catch them all."""


class DataError(PrismError, ValueError):
    """The data cannot be used as they are: the message names the place (file, row, column) and the remedy."""


class ShapeError(DataError):
    """An array has the wrong axes or the wrong size along one."""


class SettingsError(PrismError, ValueError):
    """A setting is unknown, or has a value that cannot work."""


class NotFittedError(PrismError, AttributeError):
    """An estimator was asked for something it only knows after ``fit``."""


class SavedModelError(PrismError, OSError):
    """A model folder is missing, foreign, altered, incomplete or written by a newer version."""


class MissingExtraError(PrismError, ImportError):
    """A feature needs an optional package: the message names the extra to install."""


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> list[str]:
    """The one of some names that is nearest to a name, capitals aside; none where all are further than ``cutoff``."""
    folded = {one.casefold(): one for one in known}
    return [folded[one] for one in difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=cutoff)]


def a_or_an(name: str) -> str:
    """A name of ours with its article: "an AnomalyDetector", "a UniversalModel"."""
    return f"{'an' if name[0] in 'AEIOaeio' else 'a'} {name}"


def unknown_name(kind: str, name: object, known: Iterable[str]) -> SettingsError:
    """An error for a name that is not in a list, which offers the nearest one that is, however it is capitalized."""
    options = sorted(known)
    near = nearest(str(name), options)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(options) or 'none'}."
    return SettingsError(f"There is no {kind} named {name!r}. {hint}")
