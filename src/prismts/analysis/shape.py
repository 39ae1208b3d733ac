"""The shape of a ConvTimeNet in four numbers, what it costs, and how it grows and shrinks as a whole.

A shape says how many tokens a window becomes, how many blocks read them, how wide they are and how far the longest
kernel reaches. From it follow patches, strides and kernels for any window. Scaling changes all of them together, as
EfficientNet scales depth, width and resolution (Tan and Le, ICML 2019), with tokens in the place of resolution; so one
number finds the largest network of given proportions within a budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from prismts.errors import SettingsError
from prismts.layers.depthwise import MAX_TOEPLITZ_TOKENS
from prismts.layers.patch import DePatch
from prismts.models import make_settings
from prismts.models.convtimenet import ConvTimeNetConfig

__all__ = ["Shape", "Site", "TapUse", "fitted", "macs_of", "settings_of", "shape_of", "tap_use", "used_taps"]

DEEPER, WIDER, FINER = 1.2, 1.1, 1.15  # per step of scale: EfficientNet's depth, width and resolution
DEEPEST, WIDEST, MOST_TOKENS = 12, 256, MAX_TOEPLITZ_TOKENS  # past which scaling up stops
NARROWEST = 4
LARGEST_STEP, STEPS_PER_SCALE = 60, 4  # scale is searched from -60 to 60 in quarters
FIRST_KERNEL = 7 / 19  # of the longest one: the proportion of the kernels 7, 13, 19
ALIGNED = 1.5  # a stride may be changed by this factor to fit into the period
SHORTEST_PATCH = 4  # steps, where the window has as many


def used_taps(kernel_size: int, n_tokens: int) -> int:
    """How many taps of a same-padded kernel ever meet one of ``n_tokens`` tokens; the others only multiply padding.

    A tap d places from the middle is used if two tokens lie d apart, so at most 2N-1 are.
    """
    left = (kernel_size - 1) // 2  # as torch pads
    right = kernel_size - 1 - left
    return min(left, n_tokens - 1) + 1 + min(right, n_tokens - 1)


class TapUse(NamedTuple):
    """Taps that meet tokens, of how many."""

    used: int
    total: int

    def __str__(self) -> str:
        return f"{self.used} of {self.total} taps"


def tap_use(kernel_sizes: Sequence[int], n_tokens: int) -> TapUse:
    """The taps of all large kernels of a stack, per width.

    The authors' setting for FM (FingerMovements: patches of 64 on cases of 50 steps) makes one token, on which their
    kernels 7, 7, 13, 13, 19, 19 use 6 of 78 taps.
    """
    return TapUse(sum(used_taps(kernel, n_tokens) for kernel in kernel_sizes), sum(kernel_sizes))


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where a ConvTimeNet is to stand: what it reads, and what its head answers."""

    n_timepoints: int  # T, steps of a window or of the longest case
    n_channels: int  # C
    channels: Literal["independent", "mixed"] = "independent"
    n_outputs: int = 0  # horizon (times quantiles) of each channel, or classes; 0 for no head
    n_pooled: int = 0  # poolings of the tokens before a head for classes; 0 where it maps all tokens flattened

    def __post_init__(self) -> None:
        if min(self.n_timepoints, self.n_channels) < 1:
            raise SettingsError(
                f"A window has at least 1 step and 1 channel, but got {self.n_timepoints} and {self.n_channels}."
            )

    @property
    def n_rows(self) -> int:
        """G: rows of tokens that one window becomes."""
        return self.n_channels if self.channels == "independent" else 1


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Proportions of a ConvTimeNet; they need not be whole, ``settings_of`` rounds them."""

    n_tokens: float = 32.0  # about so many per window
    depth: float = 3.0  # blocks
    width: float = 64.0
    reach: float = 0.6  # of the longest kernel, in shares of the tokens
    expansion: float = 0.0  # of the width inside the pointwise pair; 0 leaves the pair out

    def __post_init__(self) -> None:
        if not min(self.n_tokens, self.depth, self.width, self.reach) > 0 or self.expansion < 0:
            raise SettingsError(f"A shape has numbers above 0, and an expansion of at least 0, but got {self}.")

    def scaled(self, scale: float) -> Shape:
        """The same proportions larger (above 0) or smaller: depth by 1.2, width by 1.1, tokens by 1.15 per step.

        The reach stays, so kernels grow with the tokens.
        """
        return replace(
            self, depth=self.depth * DEEPER**scale, width=self.width * WIDER**scale,
            n_tokens=self.n_tokens * FINER**scale,
        )  # fmt: skip


def shape_of(config: ConvTimeNetConfig, site: Site) -> Shape:
    """The proportions of a network that is there already."""
    n = config.n_tokens(site.n_timepoints)
    return Shape(
        n_tokens=n, depth=len(config.kernel_sizes), width=config.width, reach=max(config.kernel_sizes) / n,
        expansion=config.feed_forward / config.width,
    )  # fmt: skip


def settings_of(
    shape: Shape,
    site: Site,
    *,
    period: int | None = None,
    base: Mapping[str, Any] | None = None,
    fixed: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The settings of a ConvTimeNet of this shape: they build for every window of at least one step.

    Args:
        shape: what to build.
        site: where.
        period: steps after which the series repeats itself; the stride then divides it, where one near enough does.
        base: what the shape does not decide (dropout, residual, ...), and ``feed_forward=0`` where no pair is wanted.
        fixed: settings that stay as they are whatever the shape says.
    """
    fixed = dict(fixed or {})
    settings = {**(base or {}), "channels": site.channels, **fixed}
    points = settings.get("patches") == "points"
    if not points:
        stride = int(fixed.get("stride") or 0)
        if not stride:
            given = int(fixed.get("patch_length") or 0)
            stride = max(1, given // 2) if given else _stride(site.n_timepoints / max(1.0, shape.n_tokens), period)
            stride = min(stride, site.n_timepoints)
        longest = site.n_timepoints if site.channels == "mixed" else site.n_timepoints + stride
        patch = int(fixed.get("patch_length") or min(max(2 * stride, SHORTEST_PATCH), max(2, longest)))
        settings |= {"patch_length": patch, "stride": stride}
    kernels = fixed.get("kernel_sizes")
    settings["kernel_sizes"] = tuple(kernels) if kernels is not None else (1,)
    n_tokens = make_settings(ConvTimeNetConfig, settings).n_tokens(site.n_timepoints)
    if kernels is None:
        depth = min(DEEPEST, max(1, round(shape.depth))) if n_tokens > 1 else 1
        settings["kernel_sizes"] = _kernels(depth, shape.reach, n_tokens)
    width = int(fixed.get("width") or min(WIDEST, max(NARROWEST, 4 * round(shape.width / 4))))
    settings |= {
        "width": width, "feed_forward": round(shape.expansion * width), "small_kernel": 3 if n_tokens > 1 else 0,
        **{name: fixed[name] for name in ("feed_forward", "small_kernel") if name in fixed},
    }  # fmt: skip
    return settings


def macs_of(settings: Mapping[str, Any] | ConvTimeNetConfig, site: Site) -> int:
    """Multiply-accumulates of one window, without building anything; the line beside the network is not counted.

    ``prismts.analysis.macs.count`` gives the same number, but has to build the model and run it on shapes.
    """
    config = settings if isinstance(settings, ConvTimeNetConfig) else make_settings(ConvTimeNetConfig, settings)
    n, width = config.n_tokens(site.n_timepoints), config.width
    patch = 1 if config.patches == "points" else config.patch_length
    rows = site.n_rows
    values = site.n_channels * n * patch  # that all patches hold
    macs = values * width
    if config.patches == "deformable":
        macs += values * DePatch.width + rows * n * DePatch.width * 2
    for kernel in config.kernel_sizes:
        longest = max(kernel, config.small_kernel)
        macs += rows * width * n * (n if n <= MAX_TOEPLITZ_TOKENS else longest)
        macs += rows * n * 2 * width * config.feed_forward
    if site.n_pooled:
        return macs + rows * site.n_pooled * width * site.n_outputs
    return macs + site.n_channels * n * width * site.n_outputs


def fitted(
    shape: Shape,
    cost: Callable[[Shape], float],
    most: float,
    *,
    largest: float = LARGEST_STEP,
    unit: str = "multiply-accumulates",
) -> tuple[Shape, float]:
    """The largest network of these proportions whose ``cost`` is at most ``most``, and its scale.

    Args:
        shape: the proportions.
        cost: of a shape; it should rise with the scale, and where rounding makes it fall, the answer is still within
            the budget.
        most: the budget.
        largest: scale that is not exceeded however cheap it is; 0 shrinks only.
        unit: of the cost, for the error.

    Raises:
        SettingsError: even the smallest network costs more.
    """
    low, high = -LARGEST_STEP * STEPS_PER_SCALE, math.floor(largest * STEPS_PER_SCALE)

    def at(step: int) -> Shape:
        one = shape.scaled(step / STEPS_PER_SCALE)
        return replace(
            one, depth=min(max(one.depth, 1.0), max(DEEPEST, shape.depth)),
            width=min(max(one.width, NARROWEST), max(WIDEST, shape.width)),
            n_tokens=min(max(one.n_tokens, 1.0), max(MOST_TOKENS, shape.n_tokens)),
        )  # fmt: skip

    if cost(at(high)) > most:
        bottom = low
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if cost(at(middle)) <= most else (low, middle)
        while low > bottom and cost(at(low)) > most:  # rounding may cost a little at a smaller scale
            low -= 1
        if (least := cost(at(low))) > most:
            raise SettingsError(
                f"The budget of {most:,.6g} {unit} is too small: even the smallest network here costs {least:,.6g}. "
                "Raise it, or shorten the context."
            )
        high = low
    return at(high), high / STEPS_PER_SCALE


def _stride(wanted: float, period: int | None) -> int:
    """A whole stride near the wanted one: if it can be, one that divides the period, or that it divides."""
    plain = max(1, round(wanted))
    if not period or period < 2:
        return plain
    fitting = [k for k in range(1, period + 1) if period % k == 0]
    fitting += [period * k for k in range(2, max(2, math.ceil(2 * wanted / period)) + 1)]
    nearest = min(fitting, key=lambda stride: abs(math.log(stride / max(wanted, 1.0))))
    near_enough = abs(math.log(nearest / max(wanted, 1.0))) <= math.log(ALIGNED) + 1e-9
    return nearest if near_enough else plain


def _kernels(depth: int, reach: float, n_tokens: int) -> tuple[int, ...]:
    """Odd kernels that grow evenly up to ``reach`` of the tokens, none longer than 2N-1."""
    most = 2 * n_tokens - 1
    last = min(most, max(min(3, most), _odd(reach * n_tokens)))
    first = min(last, max(min(3, most), _odd(FIRST_KERNEL * last)))
    if depth == 1:
        return (last,)
    return tuple(min(last, _odd(first + (last - first) * i / (depth - 1))) for i in range(depth))


def _odd(x: float) -> int:
    """The odd number nearest to x, at least 1."""
    return max(1, math.floor(x + 1e-9) // 2 * 2 + 1)
