"""Which series are alike: distances between two series, between all of a collection, and the nearest of them.

Names, values and further options are aeon's (``prismts[bench]``): ``DISTANCES`` lists them with their units. So
``dtw`` is the least *sum of squared differences* over all warping paths; ``evaluation.warping.dtw``, which scores
forecasts, is its root, in units of the series. The order of neighbors is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prismts.data.series import Collection, Series
from prismts.errors import DataError, SettingsError, ShapeError, unknown_name
from prismts.models.aeon_calls import needs_aeon, undisturbed

__all__ = ["DISTANCES", "Distance", "Neighbors", "WarpingPath", "distance", "nearest", "pairwise", "path"]

Cases = NDArray[np.floating] | Sequence[NDArray[np.floating]] | Collection
_Case = Series | ArrayLike

_SQUARED = "squared units of the series"
_PLAIN = "units of the series"
_SHARE = "a share from 0 to 1"


@dataclass(frozen=True)
class Distance:
    """What is to be known of a distance before it is used."""

    unit: str
    title: str
    warps: bool = False  # finds a path, and takes ``window``
    unequal_length: str | None = "whole"  # reads "whole" series, the "common" beginning of both, or None: refuses
    symmetric: bool = True
    reads_words: bool = False  # of a symbolic transform, [L], in place of series; needs its ``breakpoints``


DISTANCES: dict[str, Distance] = {
    "euclidean": Distance(_PLAIN, "root of the summed squared differences", unequal_length="common"),
    "squared": Distance(_SQUARED, "summed squared differences", unequal_length="common"),
    "manhattan": Distance(_PLAIN, "summed differences", unequal_length="common"),
    "minkowski": Distance(_PLAIN, "p-th root of summed p-th powers (p=2)", unequal_length="common"),
    "dtw": Distance(_SQUARED, "dynamic time warping", warps=True),
    "dtw_gi": Distance(_SQUARED, "DTW after the best rotation of the channels", warps=True, symmetric=False),
    "ddtw": Distance("squared units of the slopes", "DTW of the slopes", warps=True),
    "wdtw": Distance(_SQUARED, "DTW that weighs shifts (g=0.05)", warps=True),
    "wddtw": Distance("squared units of the slopes", "DTW of the slopes that weighs shifts (g=0.05)", warps=True),
    "lcss": Distance(_SHARE, "1 - longest common subsequence (epsilon=1)", warps=True),
    "erp": Distance(_PLAIN, "edit distance with real penalty (g=0)", warps=True),
    "edr": Distance(_SHARE, "edit distance on real sequences (epsilon from the spread)", warps=True),
    "twe": Distance(_PLAIN, "time warp edit (nu=0.001, lmbda=1)", warps=True),
    "msm": Distance(_PLAIN, "move, split, merge (c=1)", warps=True),
    "adtw": Distance(_SQUARED, "DTW with a fee for each shift (warp_penalty=1)", warps=True),
    "shape_dtw": Distance(_SQUARED, "DTW of the neighborhoods of steps (reach=15)", warps=True),
    "soft_dtw": Distance(_SQUARED, "soft-DTW (gamma=1), its absolute value; plain DTW for equal series", warps=True),
    "sbd": Distance("from 0 to 2", "1 - largest cross-correlation of the standardized series"),
    "shift_scale": Distance(
        "a share per channel, added up", "what the best shift and scale leave", unequal_length=None, symmetric=False
    ),
    "dft_sfa": Distance("of the words", "Fourier values to an SFA word", symmetric=False, reads_words=True),
    "paa_sax": Distance("of the words", "segment means to a SAX word", symmetric=False, reads_words=True),
    "sax": Distance("of the words", "SAX words", reads_words=True),
    "sfa": Distance("of the words", "SFA words", reads_words=True),
}


class WarpingPath(NamedTuple):
    """Which step of the one series meets which of the other."""

    steps: NDArray[np.int64]  # [L, 2], rising in both columns
    distance: float


class Neighbors(NamedTuple):
    """The nearest cases, nearest first, the one that stands first in X where several are as near."""

    indices: NDArray[np.int64]  # [k], or [n, k] for several queries
    distances: NDArray[np.float64]  # as indices


def distance(a: _Case, b: _Case, method: str = "dtw", window: float | None = None, **options: Any) -> float:
    """The distance of two series, [C, T] and [C, T2] (or [T] and [T2] of one channel), in the unit of the method.

    Args:
        a: the one series; a ``Series`` is read as its values.
        b: the other, with the same channels and any length the method reads.
        method: a key of ``DISTANCES``. "squared" and its kin compare unequal lengths up to the shorter one.
        window: of a warping method: the largest shift, as a fraction of the shorter series; None for no limit.
        options: further ones of aeon's, such as ``gamma`` of "soft_dtw".
    """
    kind, options = _options(method, window, options)
    one, other = _case(a, kind, "a"), _case(b, kind, "b")
    _agree([one], [other], method, kind)
    with needs_aeon("Similarity"):
        from aeon.distances import distance as measure
    return float(_call(measure, one, other, method=method, **options))


def path(a: _Case, b: _Case, method: str = "dtw", window: float | None = None, **options: Any) -> WarpingPath:
    """The warping path between two series [C, T] and [C, T2], and the distance along it; arguments as ``distance``."""
    kind, options = _options(method, window, options)
    if not kind.warps:
        known = ", ".join(name for name, other in DISTANCES.items() if other.warps)
        raise SettingsError(f"{method!r} compares without warping and has no path. These have one: {known}.")
    one, other = _case(a, kind, "a"), _case(b, kind, "b")
    _agree([one], [other], method, kind)
    with needs_aeon("Similarity"):
        from aeon.distances import alignment_path
    steps, length = _call(alignment_path, one, other, method=method, **options)
    return WarpingPath(np.asarray(steps, dtype=np.int64).reshape(-1, 2), float(length))


def pairwise(
    X: Cases,
    Y: Cases | None = None,
    method: str = "dtw",
    window: float | None = None,
    *,
    n_jobs: int = 1,
    **options: Any,
) -> NDArray[np.float64]:
    """Distances [n, m] of all cases of X from all cases of Y, or from each other.

    X and Y are arrays [n, C, T], lists of [C, T_i], or collections. A distance that is not symmetric is computed in
    both directions (aeon mirrors one of them where Y is not given). Other arguments as ``distance``.
    """
    kind, options = _options(method, window, options)
    ones = _cases(X, kind, "X")
    others = None if Y is None else _cases(Y, kind, "Y")
    _agree(ones, ones if others is None else others, method, kind)
    if others is None and not kind.symmetric:
        others = ones
    with needs_aeon("Similarity"):
        from aeon.distances import pairwise_distance
    there = None if others is None else _together(others)
    return np.asarray(_call(pairwise_distance, _together(ones), there, method=method, n_jobs=n_jobs, **options))


def nearest(
    query: Series | Cases,
    X: Cases,
    k: int = 1,
    method: str = "dtw",
    window: float | None = None,
    *,
    n_jobs: int = 1,
    **options: Any,
) -> Neighbors:
    """The k cases of X that are nearest to a query [C, T], or to each of several queries.

    One query, an array [C, T] or a ``Series``, gives [k]; several, [n, C, T], a list of [C, T_i] or a collection, give
    [n, k]. Other arguments as ``pairwise``.
    """
    if k < 1 or k > len(X):
        raise SettingsError(f"k counts neighbors, from 1 to the {len(X)} cases of X, but got {k}.")
    alone = isinstance(query, Series) or (isinstance(query, np.ndarray) and query.ndim < 3)
    asked: Any = [query.values if isinstance(query, Series) else query] if alone else query
    distances = pairwise(asked, X, method, window, n_jobs=n_jobs, **options)
    indices = np.argsort(distances, axis=1, kind="stable")[:, :k]
    distances = np.take_along_axis(distances, indices, axis=1)
    return Neighbors(indices[0], distances[0]) if alone else Neighbors(indices, distances)


def _options(method: str, window: float | None, options: dict[str, Any]) -> tuple[Distance, dict[str, Any]]:
    if method not in DISTANCES:
        raise unknown_name("distance", method, DISTANCES)
    kind = DISTANCES[method]
    if window is None:
        return kind, options
    if not kind.warps:
        raise SettingsError(f"window limits how far a series is warped, but {method!r} does not warp. Leave it out.")
    if not 0 <= window <= 1:
        raise SettingsError(f"window is a fraction of the series from 0 to 1, or None for no limit, but got {window}.")
    return kind, {"window": float(window), **options}


def _case(case: _Case, kind: Distance, name: str) -> NDArray[Any]:
    values = np.asarray(case.values if isinstance(case, Series) else case)
    if kind.reads_words:
        if values.ndim != 1:
            raise ShapeError(
                f"This distance compares words of a symbolic transform, [letter], but {name} has shape "
                f"{list(values.shape)}. Transform the series first (aeon's SAX or SFA), one channel at a time."
            )
        return values
    values = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if values.ndim != 2 or values.shape[1] == 0:
        raise ShapeError(
            f"A series is [channel, time] with at least one step, but {name} has shape {list(values.shape)}. "
            "For many series at once see pairwise and nearest."
        )
    wrong = np.argwhere(~np.isfinite(values))  # aeon's fast arithmetic would answer with any number
    if len(wrong):
        channel, step = (int(i) for i in wrong[0])
        raise DataError(
            f"{name} holds {values[channel, step]} in channel {channel} at step {step}, and a distance is defined for "
            "numbers only. Fill what was not observed first (prismts.layers.missing.bridge joins the neighbors by a "
            "straight line), or leave these steps out."
        )
    return np.ascontiguousarray(values)  # one layout, so that numba compiles once


def _cases(X: Cases, kind: Distance, name: str) -> list[NDArray[Any]]:
    if isinstance(X, np.ndarray) and X.ndim != (2 if kind.reads_words else 3):
        raise ShapeError(
            f"Many series are [case, channel, time], a list of [channel, time] or a collection, but {name} has shape "
            f"{list(X.shape)}. Series of one channel are {name}[:, None, :]."
        )
    if len(X) == 0:
        raise DataError(f"{name} holds no series. Pass at least one.")
    return [_case(case, kind, f"{name}[{i}]") for i, case in enumerate(X)]


def _agree(ones: list[NDArray[Any]], others: list[NDArray[Any]], method: str, kind: Distance) -> None:
    """Refuse what aeon would answer with numbers that mean nothing."""
    if kind.reads_words:
        return
    channels = {len(case) for case in (*ones, *others)}
    if len(channels) > 1 and method != "dtw_gi":  # which maps the channels of one onto those of the other
        raise ShapeError(
            f"Series are compared channel by channel, but these have {' and '.join(map(str, sorted(channels)))} "
            "channels. Pass [channel, time] with the same channels."
        )
    lengths = {case.shape[1] for case in (*ones, *others)}
    if len(lengths) > 1 and kind.unequal_length is None:
        raise ShapeError(
            f"{method!r} compares series of one length, but these have {min(lengths)} to {max(lengths)} steps. "
            "Resample them, or take a method that warps, such as 'dtw'."
        )


def _together(cases: list[NDArray[Any]]) -> Any:
    """One array where all have one shape, else the list: what aeon reads."""
    return np.stack(cases) if len({case.shape for case in cases}) == 1 else cases


def _call(function: Any, *arrays: Any, method: str, **options: Any) -> Any:
    try:
        with undisturbed():
            return function(*arrays, method=method, **options)
    except TypeError as error:
        given = ", ".join(options) or "none"
        raise SettingsError(
            f"aeon's {method!r} does not take these options (given: {given}), or lacks one. It said: {error}. "
            "The documentation of aeon.distances lists the options of each."
        ) from error
