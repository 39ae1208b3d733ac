"""Other splits of the same cases: as many for training, of the same classes, drawn anew.

The official split of a small data set is one draw; ten more say how much of a result was luck.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prismts.data.series import Collection
from prismts.errors import DataError, SettingsError, ShapeError

__all__ = ["resampled", "stratified_resample"]


def stratified_resample(y: ArrayLike, n_train: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which cases train and which test: two index arrays, rising, that together hold every case once.

    Args:
        y: class of each case [n], the official training cases first.
        n_train: how many of them train.
        seed: 0 gives the official split back; every other one gives another draw, the same on every machine.

    Each class keeps its number of training cases and its number of test cases. Class after class (in sorted order),
    numpy's default generator shuffles the class's cases, and the first of them train.
    Source: the resamples of the UEA and UCR archives (Bagnall et al., DMKD 2017) are drawn by this rule; the numbers
    drawn are not theirs.
    """
    labels = np.asarray(y)
    if labels.ndim != 1:
        raise ShapeError(f"y holds one class per case, [n], but got shape {list(labels.shape)}.")
    if not 0 < n_train < len(labels):
        raise SettingsError(f"n_train is at least 1 and leaves a test case of {len(labels)} cases, but got {n_train}.")
    if seed < 0:
        raise SettingsError(f"seed counts the resamples from 0, the official split, but got {seed}.")
    order = np.arange(len(labels))
    if seed == 0:
        return order[:n_train], order[n_train:]
    generator = np.random.default_rng(seed)
    trains = np.zeros(len(labels), dtype=bool)
    for value in np.unique(labels):
        members = np.flatnonzero(labels == value)
        trains[generator.permutation(members)[: np.count_nonzero(members < n_train)]] = True
    return order[trains], order[~trains]


def resampled(collection: Collection, seed: int) -> Collection:
    """The collection with its cases in another order, so that ``.train`` and ``.test`` are resample number ``seed``."""
    if collection.labels is None or collection.n_train is None:
        raise DataError(
            f"Collection {collection.name!r} has no labels or no official training part to draw again. A resample "
            "keeps the number of training cases of each class; give the collection labels and n_train."
        )
    if seed == 0:
        return collection
    order = np.concatenate(stratified_resample(collection.labels, collection.n_train, seed))
    steps = np.concatenate([np.arange(collection.offsets[i], collection.offsets[i + 1]) for i in order])
    return replace(
        collection,
        values=collection.values[:, steps],
        offsets=np.concatenate([[0], np.cumsum(collection.lengths[order])]),
        names=tuple(collection.names[i] for i in order),
        timestamps=None if collection.timestamps is None else collection.timestamps[steps],
        labels=collection.labels[order],
    )
