"""What is left of a series when the smooth part of its spectrum is taken away."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft
from scipy.ndimage import uniform_filter1d

from prismts.errors import SettingsError
from prismts.models.detect_windows import Array, ChannelWise, WindowConfig

__all__ = ["SpectralResidual", "SpectralResidualConfig"]


@dataclass(frozen=True, kw_only=True)
class SpectralResidualConfig(WindowConfig):
    """``smooth``: over how many frequencies the log amplitude is averaged, 100 as in TSB-AD (the paper: 3)."""

    window: int | None = 1  # the method has no windows
    smooth: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.smooth < 1 or self.window != 1:
            raise SettingsError(
                f"smooth must be at least 1 and window is 1, because the method reads the whole series, but got "
                f"smooth={self.smooth}, window={self.window}."
            )


class SpectralResidual(ChannelWise[SpectralResidualConfig, None]):
    """Spectral residual: keep the phases, divide each amplitude by the average around it, and look where it stands out.

    A channel's score is the saliency map: single spikes and sudden changes shine, repeated patterns fade. It reads the
    whole series it scores, so a step's score depends on what comes after; of the training part only the scale of
    scores is learned.

    Source: Ren et al., KDD 2019, in the form of TSB-AD's SR, which scores by the map itself. Ours differs at the ends
    of the spectrum, where the average repeats the outermost amplitude; TSB-AD puts values of the series there. A
    channel that does not vary scores 0.
    """

    def _fit_channel(self, x: Array) -> None:
        return None

    def _score_channel(self, state: None, x: Array) -> Array:
        spectrum = np.asarray(fft.rfft(x - x.mean()))
        amplitude = np.abs(spectrum)
        if amplitude.max() <= 1e-9 * len(x):
            return np.zeros(len(x))
        amplitude = np.maximum(amplitude, 1e-12 * amplitude.max())
        log = np.log(amplitude[1:])
        residual = np.zeros(len(amplitude))  # the mean is left as it is
        residual[1:] = np.exp(log - uniform_filter1d(log, min(self.config.smooth, len(log)), mode="nearest"))
        saliency = np.asarray(fft.irfft(residual * spectrum / amplitude, len(x)))
        return np.abs(saliency)
