"""The baselines of anomaly detection: DETECTORS is the dictionary of them all.

    from prismts.models.detectors import make_detector
    scores = make_detector("sub_pca").fit(train).score(values)  # [C, T] to [T]

None is a network, and none sees a label.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prismts.errors import unknown_name
from prismts.models import make_settings
from prismts.models.detect_forest import Forest, ForestConfig
from prismts.models.detect_neighbors import KMeans, KMeansConfig, Neighbors, NeighborsConfig
from prismts.models.detect_pca import PCA, PCAConfig, SubPCA, SubPCAConfig
from prismts.models.detect_profile import MatrixProfile, MatrixProfileConfig
from prismts.models.detect_spectral import SpectralResidual, SpectralResidualConfig
from prismts.models.detect_windows import Detector, WindowConfig

__all__ = ["DETECTORS", "Baseline", "Detector", "make_detector"]


@dataclass(frozen=True)
class Baseline:
    """A name's class, the settings it has unless others are given, and what it is."""

    build: Callable[[Any], Detector]
    config: WindowConfig
    title: str


DETECTORS: dict[str, Baseline] = {
    "sub_pca": Baseline(SubPCA, SubPCAConfig(), "Sub-PCA, windows of one channel (TSB-AD's form)"),
    "sub_pca_mahalanobis": Baseline(
        SubPCA, SubPCAConfig(measure="mahalanobis"), "Sub-PCA, lengths in units of each direction's spread"
    ),
    "sub_pca_reconstruction": Baseline(
        SubPCA, SubPCAConfig(measure="reconstruction", n_components=0.9), "Sub-PCA, error beyond 90 % of the variance"
    ),
    "pca": Baseline(PCA, PCAConfig(window=1), "PCA over channels, step by step (TSB-AD's form)"),
    "window_pca": Baseline(
        PCA,
        PCAConfig(measure="reconstruction", n_components=0.9),
        "PCA over windows of all channels, reconstruction error",
    ),
    "iforest": Baseline(Forest, ForestConfig(), "isolation forest on windows"),
    "kmeans": Baseline(KMeans, KMeansConfig(), "distance to the nearest of 20 centers of windows"),
    "knn": Baseline(Neighbors, NeighborsConfig(), "distance to the tenth nearest window"),
    "spectral_residual": Baseline(SpectralResidual, SpectralResidualConfig(), "spectral residual"),
    "matrix_profile": Baseline(
        MatrixProfile, MatrixProfileConfig(), "distance to the most similar window of the training part"
    ),
}


def make_detector(name: str, **settings: Any) -> Detector:
    """A detector by its name, and settings other than its usual ones; an unknown name is an error that offers one."""
    if name not in DETECTORS:
        raise unknown_name("detector", name, DETECTORS)
    entry = DETECTORS[name]
    defaults = {field.name: getattr(entry.config, field.name) for field in dataclasses.fields(entry.config)}
    return entry.build(make_settings(type(entry.config), defaults | settings))
