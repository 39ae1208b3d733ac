"""A rule that proposes the settings of a ConvTimeNet from the data alone: no network is trained, so it costs nothing.

- Patches: the stride divides the dominant period where one near enough does, so that tokens mean the same phase of
  every cycle, and is chosen for about 32 tokens of a window and 16 of a case (one per 32 steps where that is more);
  patches overlap by half.
- Kernels: they grow up to 0.6 of the tokens. That is the proportion of the kernels 7, 13, 19 over 32 tokens, which
  validation chose for this package's defaults. A kernel longer than 2N-1 has taps that never meet a token.
- Depth and width: by how many tokens there are to learn from, one block for every tenfold.
- A budget of multiply-accumulates: a proposal that exceeds it shrinks in all proportions together.

What the rule was worth, beside the authors' settings and a search: ``docs/search.md``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prismts.analysis.shape import Shape, Site, TapUse, fitted, macs_of, settings_of, tap_use
from prismts.data.calendar import season_length
from prismts.data.period import dominant_period
from prismts.data.series import Collection
from prismts.models import make_settings
from prismts.models.convtimenet import ConvTimeNetConfig

__all__ = [
    "MACS_PER_VALUE", "Proposal", "period_of", "period_of_cases", "proportions", "propose", "propose_cases",
    "propose_windows",
]  # fmt: skip

MACS_PER_VALUE, LEAST_BUDGET = 30_000, 1_000_000  # the budget where none is given: of a window's values; of a channel
TOKENS, LONG_WINDOW = 32, 1024  # tokens of a window up to this many steps; longer ones have one per 32 steps
CASE_TOKENS = 16  # of a case, where one per 32 steps are not more
MOST_TOKENS = 128  # past which a depthwise convolution is no product any more and slower per token
LEAST_DEPTH, MOST_DEPTH = 2, 6
_WIDTHS = {2: 32, 3: 64, 4: 64, 5: 128, 6: 128}  # by depth
_CASES_READ = 64
_NEAR = 0.05  # of a season, within which a period is that season
_SHORTEST_TO_LOOK = 12  # steps: two of the shortest period that is looked for


@dataclass(frozen=True)
class Proposal:
    """Settings of a ConvTimeNet, and why; ``print`` shows both."""

    settings: Mapping[str, Any]
    n_tokens: int
    macs: int  # of one window, without the line beside the network
    taps: TapUse  # of the large kernels
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        names = ("patch_length", "stride", "kernel_sizes", "width", "feed_forward")
        told = ", ".join(f"{name} {self.settings[name]}" for name in names if name in self.settings)
        return "\n".join([f"Proposed: {told}.", *(f"  {reason}" for reason in self.reasons)])

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON and YAML."""
        settings = {name: list(value) if isinstance(value, tuple) else value for name, value in self.settings.items()}
        return {
            "settings": settings, "n_tokens": self.n_tokens, "macs": self.macs, "taps": list(self.taps),
            "reasons": list(self.reasons),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, known: Mapping[str, Any]) -> Proposal:
        """What ``as_dict`` gave."""
        settings = {
            name: tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
            for name, value in known["settings"].items()
        }
        return cls(settings, known["n_tokens"], known["macs"], TapUse(*known["taps"]), tuple(known["reasons"]))


def propose(
    site: Site,
    n_values: int,
    *,
    period: int | None = None,
    base: Mapping[str, Any] | None = None,
    fixed: Mapping[str, Any] | None = None,
    max_macs: float | None = None,
) -> Proposal:
    """Settings for a window, from its length, its period and how much there is to learn from.

    Args:
        site: what is read and answered.
        n_values: observed values of the training part, over all channels.
        period: steps after which the series repeats itself; None or 0 if it does not.
        base: settings that the rule has no opinion on; its pointwise pair keeps its proportion
            to the width, and ``feed_forward=0`` leaves the pair out.
        fixed: settings that stay whatever the rule says; the rest is proposed around them.
        max_macs: of one window; None takes 30,000 for each value of it, which only very deep or wide ones reach.

    Raises:
        SettingsError: a setting is unknown, or even the smallest network exceeds ``max_macs``.
    """
    fixed = dict(fixed or {})
    base = dict(base or {})
    most = _budget(site) if max_macs is None else max_macs
    wanted = proportions(site, n_values, base=base)

    def build(shape: Shape) -> dict[str, Any]:
        return settings_of(shape, site, period=period, base=base, fixed=fixed)

    shape, scale = fitted(wanted, lambda one: macs_of(build(one), site), most, largest=0)
    settings = build(shape)
    n = make_settings(ConvTimeNetConfig, settings).n_tokens(site.n_timepoints)
    taps = tap_use(settings["kernel_sizes"], n)
    macs = macs_of(settings, site)
    reasons = (
        _about_patches(settings, site, n, period, fixed),
        _about_kernels(settings, n, taps, fixed),
        _about_size(settings, _tokens_to_learn_from(n_values, site, wanted.n_tokens)),
        f"{_short(macs)} multiply-accumulates a window, of {_short(most)} allowed"
        + ("." if not scale else f": everything was scaled down by {-scale:g} steps to fit."),
    )
    return Proposal(settings, n, macs, taps, reasons)


def propose_windows(
    data: Collection,
    train_ends: NDArray[np.integer],
    *,
    context_length: int,
    n_outputs: int,
    base: Mapping[str, Any] | None = None,
    fixed: Mapping[str, Any] | None = None,
) -> Proposal:
    """The rule for forecasts, from the steps of each series before ``train_ends`` alone.

    ``n_outputs`` is the horizon, times the quantiles where there are any; ``base`` and ``fixed`` as of :func:`propose`.
    """
    channels = {**(base or {}), **(fixed or {})}.get("channels", "independent")
    site = Site(n_timepoints=context_length, n_channels=data.n_channels, n_outputs=n_outputs, channels=channels)
    n_values = int(np.sum(train_ends)) * data.n_channels
    return propose(site, n_values, period=period_of(data, train_ends), base=base, fixed=fixed)


def propose_cases(
    data: Collection,
    n_timepoints: int,
    *,
    n_classes: int,
    n_pooled: int,
    base: Mapping[str, Any] | None = None,
    fixed: Mapping[str, Any] | None = None,
) -> Proposal:
    """The rule for cases of up to ``n_timepoints`` steps whose tokens are pooled in ``n_pooled`` ways."""
    channels = {**(base or {}), **(fixed or {})}.get("channels", "independent")
    site = Site(
        n_timepoints=n_timepoints, n_channels=data.n_channels, channels=channels, n_outputs=n_classes,
        n_pooled=n_pooled,
    )  # fmt: skip
    n_values = int(data.lengths.sum()) * data.n_channels
    return propose(site, n_values, period=period_of_cases(data), base=base, fixed=fixed)


def proportions(site: Site, n_values: int, *, base: Mapping[str, Any] | None = None) -> Shape:
    """The shape that the rule begins with, before a budget; arguments as of :func:`propose`."""
    of_long = min(MOST_TOKENS, site.n_timepoints * TOKENS // LONG_WINDOW)
    n_tokens = max(CASE_TOKENS if site.n_pooled else TOKENS, of_long)
    n_learned = _tokens_to_learn_from(n_values, site, max(TOKENS, of_long))  # in tokens of one size for both tasks
    depth = min(MOST_DEPTH, max(LEAST_DEPTH, math.floor(math.log10(max(n_learned, 1)) - 0.5)))
    like = make_settings(ConvTimeNetConfig, base or {})
    return Shape(n_tokens=n_tokens, depth=depth, width=_WIDTHS[depth], expansion=like.feed_forward / like.width)


def period_of(data: Collection, ends: NDArray[np.integer]) -> int | None:
    """The dominant period, in steps, of the training part of the longest series; None where none shows itself.

    A period within 5 % of a multiple of the calendar's season (24 of hourly data) is taken for that season.
    """
    longest = int(np.argmax(ends))
    n_steps = int(ends[longest])
    if n_steps < _SHORTEST_TO_LOOK:
        return None
    period = dominant_period(data[longest].part(0, n_steps).values, fallback=0)
    season = season_length(data.frequency)
    if period and season > 1 and abs(period / (season * max(1, round(period / season))) - 1) <= _NEAR:
        return season
    return period or None


def period_of_cases(data: Collection) -> int | None:
    """The period that cases have in common: of up to 64 of them, as far as the shortest of these goes."""
    step = max(1, len(data) // _CASES_READ)
    cases = [data[i].values for i in range(0, len(data), step)][:_CASES_READ]
    shortest = min(case.shape[1] for case in cases)
    if shortest < _SHORTEST_TO_LOOK:
        return None
    return dominant_period(np.concatenate([case[:, :shortest] for case in cases]), fallback=0) or None


def _tokens_to_learn_from(n_values: int, site: Site, n_tokens: float) -> int:
    """How many tokens the training values make, were they cut once: the channels of a row share theirs."""
    steps = n_values / max(1, site.n_channels // site.n_rows)
    return round(steps / max(1.0, site.n_timepoints / n_tokens))


def _budget(site: Site) -> float:
    return site.n_channels * max(LEAST_BUDGET, MACS_PER_VALUE * site.n_timepoints)


def _about_patches(
    settings: Mapping[str, Any], site: Site, n: int, period: int | None, fixed: Mapping[str, Any]
) -> str:
    if settings.get("patches") == "points":
        return f"Every step is a token, as was asked for: {n} tokens."
    length, stride = settings["patch_length"], settings["stride"]
    head = (
        f"Patches of {length} steps, one every {stride}: {n} token{'s' if n > 1 else ''} of {site.n_timepoints} steps"
    )
    if "stride" in fixed or "patch_length" in fixed:
        return f"{head}, as was asked for."
    if not period:
        return f"{head}; no period shows itself that they should follow."
    if period % stride == 0 or stride % period == 0:
        fits = f"{period // stride} strides" if period >= stride else f"a stride of {stride // period} periods"
        return f"{head}; the series repeats itself every {period} steps, which are {fits}."
    return f"{head}; the period of {period} steps has no whole part near this stride."


def _about_kernels(settings: Mapping[str, Any], n: int, taps: TapUse, fixed: Mapping[str, Any]) -> str:
    told = ", ".join(map(str, settings["kernel_sizes"]))
    if n == 1:
        head = f"Kernel{'s' if len(settings['kernel_sizes']) > 1 else ''} {told}: a single token has no neighbors"
    else:
        share = max(settings["kernel_sizes"]) / n
        head = f"Kernels {told}: the longest spans {share:.2g} of the tokens, and past {2 * n - 1} taps meet no token"
    asked = ", as was asked for" if "kernel_sizes" in fixed else ""
    return f"{head}; {taps} are used{asked}."


def _about_size(settings: Mapping[str, Any], n_learned: int) -> str:
    depth, width, hidden = len(settings["kernel_sizes"]), settings["width"], settings["feed_forward"]
    pair = f", {hidden} inside the pointwise pair" if hidden else ", without a pointwise pair"
    blocks = f"{depth} block{'s' if depth > 1 else ''}"
    return f"{blocks} of width {width}{pair}: there are about {n_learned:,} tokens to learn from."


def _short(number: float) -> str:
    return f"{number / 1e6:.3g} million" if number >= 1e5 else f"{number:,.0f}"
