"""How far the days of one channel look alike, and by how much they slide.

The formulas stand in ``prismts.data.alignment``, because the profile of a data set needs them and ``data`` imports
nothing to its right.
"""

from prismts.data.alignment import DayLags, FullDays, day_lags, full_days, phase_drift, spai

__all__ = ["DayLags", "FullDays", "day_lags", "full_days", "phase_drift", "spai"]
