"""How many steps make a season at a given frequency."""

from __future__ import annotations

import pandas as pd

__all__ = ["season_length", "season_lengths"]

_CALENDAR = {"YE": 1, "YS": 1, "QE": 4, "QS": 4, "ME": 12, "MS": 12, "SMS": 24, "SME": 24, "B": 5, "D": 7, "W": 52}
_DAY = pd.Timedelta("1D")


def season_length(frequency: str | None) -> int:
    """Steps of the season one expects first: a day below daily data, a week of days, a year of weeks or months.

    Data finer than a minute have a season of one minute; data without a known frequency have none, that is 1.
    """
    if frequency is None:
        return 1
    offset = pd.tseries.frequencies.to_offset(frequency)
    name = str(getattr(offset, "name", frequency)).split("-")[0]
    if name in _CALENDAR:
        return max(1, round(_CALENDAR[name] / getattr(offset, "n", 1)))
    step = _span(offset)
    if step is None:  # an anchored calendar offset of several units
        return 1
    if step >= 7 * _DAY:
        return max(1, round(52 * 7 * _DAY / step))
    if step >= _DAY:
        return max(1, round(7 * _DAY / step))
    span = _DAY if step >= pd.Timedelta("1min") else pd.Timedelta("1min")
    return max(1, round(span / step))


def season_lengths(frequency: str | None) -> tuple[int, ...]:
    """Steps of the seasons one expects: the day and the week of data below daily, else that of ``season_length`` alone.

    There are none where the frequency is unknown or has no season.
    """
    season = season_length(frequency)
    if season < 2:
        return ()
    step = _span(pd.tseries.frequencies.to_offset(frequency))
    return (season, 7 * season) if step is not None and season * step == _DAY else (season,)


def _span(offset: pd.tseries.offsets.BaseOffset | None) -> pd.Timedelta | None:
    """How long a step is, where all are equally long."""
    try:
        return pd.Timedelta(offset)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return None
