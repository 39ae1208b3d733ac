"""Random kernels that compete: features of whole cases, and the closed-form classifier on them."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from prismts.layers.missing import bridge

__all__ = ["HydraMap"]

PENALTIES = tuple(10.0 ** np.arange(-6, 3))  # as shares of the mean square of a feature times the number of features
KERNEL_LENGTH = 9
MOST_CHANNELS = 8  # that one group of kernels reads


class HydraMap(nn.Module):
    """Cases to class scores in closed form: which of some random kernels fits best, how often, and a ridge on that.

    Kernels of nine random taps stand in groups of eight. At every step the kernels of a group compete: the best fitting
    one earns its response, the worst fitting one a point. Half of the groups read the series, half its differences, all
    at dilations 1, 2, 4 and so on up to the length; each reads a sum or difference of a few channels, drawn at random.
    Sums over time are the features; a ridge regression on one-hot labels is solved on them, with the penalty that
    leaves the smallest leave-one-out error.

    Source: Dempster, Schmidt, Webb, "Hydra: Competing Convolutional Kernels for Fast and Accurate Time Series
    Classification", DMKD 2023. Unlike it: sums are taken relative to the length of the case, so that cases of any
    length can be compared; a group reads from one to half of the channels, each with a random sign (theirs: half of
    them, drawn with replacement and added); scores are scaled to log odds by their leave-one-out likelihood, so that a
    softmax of them is a probability.
    """

    kernels: Tensor
    mixes: Tensor
    middle: Tensor
    spread: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(
        self, n_channels: int, n_timepoints: int, n_classes: int, *, n_groups: int = 64, n_kernels: int = 8
    ) -> None:
        super().__init__()
        self.n_channels, self.n_timepoints, self.n_classes = n_channels, n_timepoints, n_classes
        self.n_groups, self.n_kernels = n_groups, n_kernels
        longest = max(1, (n_timepoints - 1) // (KERNEL_LENGTH - 1))
        self.dilations = tuple(2**i for i in range(int(np.log2(longest)) + 1))
        most = int(np.clip(n_channels // 2, min(2, n_channels), MOST_CHANNELS))
        n_features = len(self.dilations) * n_groups * n_kernels * 2
        kernels = torch.randn(len(self.dilations), n_groups, n_kernels, KERNEL_LENGTH)
        kernels = kernels - kernels.mean(-1, keepdim=True)
        self.register_buffer("kernels", kernels / kernels.abs().sum(-1, keepdim=True))
        rows = len(self.dilations) * n_groups
        rank = torch.rand(rows, n_channels).argsort(1).argsort(1)  # a random order of the channels
        chosen = rank < torch.randint(1, most + 1, (rows, 1))
        sign = torch.randint(0, 2, (rows, n_channels)) * 2 - 1
        self.register_buffer("mixes", (chosen * sign).float().view(len(self.dilations), n_groups, n_channels))
        self.register_buffer("middle", torch.zeros(n_features))
        self.register_buffer("spread", torch.ones(n_features))
        self.register_buffer("weight", torch.zeros(n_classes, n_features))
        self.register_buffer("bias", torch.zeros(n_classes))

    def features(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """[B, C, T], the cases ending with their last step, to [B, F]."""
        x = bridge(x, observed)
        half = self.n_groups // 2
        change = F.pad(x.diff(dim=-1), (1, 0)) if x.shape[-1] > 1 else torch.zeros_like(x)
        found: list[Tensor] = []
        for d, dilation in enumerate(self.dilations):
            for source, groups in ((x, slice(0, half)), (change, slice(half, self.n_groups))):
                read = torch.einsum("gc,bct->bgt", self.mixes[d, groups].to(x.dtype), source)  # [B, G, T]
                kernels = self.kernels[d, groups].flatten(0, 1)[:, None]  # [G*k, 1, 9]
                padding = (KERNEL_LENGTH // 2) * dilation
                fit = F.conv1d(read, kernels.to(x.dtype), padding=padding, dilation=dilation, groups=read.shape[1])
                fit = fit.unflatten(1, (read.shape[1], self.n_kernels))  # [B, G, k, T]
                best, worst = fit.max(2), fit.min(2)
                won = torch.zeros_like(fit[..., 0]).scatter_add(2, best.indices, best.values)  # [B, G, k]
                lost = torch.zeros_like(won).scatter_add(2, worst.indices, torch.ones_like(worst.values))
                found += [won.flatten(1), lost.flatten(1)]
        return (torch.cat(found, dim=1) * (self.n_timepoints / x.shape[-1])).clamp(min=0).sqrt()

    def forward(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """[B, C, T] to class scores [B, K]."""
        return self.score(self.features(x, observed))

    def score(self, features: Tensor) -> Tensor:
        """[B, F] to class scores [B, K]."""
        return self._scaled(features) @ self.weight.T + self.bias

    def _scaled(self, features: Tensor) -> Tensor:
        return (features - self.middle) * (features != 0) / self.spread

    @torch.no_grad()
    def solve(
        self, features: Tensor, labels: NDArray[np.int64], case_weight: NDArray[np.floating] | None = None
    ) -> Tensor:
        """Set the weights from features [n, F] and class numbers [n]; the scores [n, K] each case would get without it.

        ``case_weight`` [n] lets cases count more or less.
        """
        n = len(labels)
        weight = torch.ones(n) if case_weight is None else torch.from_numpy(np.asarray(case_weight)).float()
        weight = (weight / weight.mean()).double()[:, None]  # [n, 1]
        self.middle.copy_(features.mean(0))
        empty = (features == 0).float().mean(0)  # share of cases in which a kernel never won: what is rare counts less
        self.spread.copy_(features.std(0, correction=0) + empty**4 + 1e-8)
        x = self._scaled(features).double()
        y = F.one_hot(torch.from_numpy(np.asarray(labels)).long(), self.n_classes).double()
        center, target = (weight * x).sum(0) / n, (weight * y).sum(0) / n
        root = weight.sqrt()
        u, s, v = torch.linalg.svd(root * (x - center), full_matrices=False)
        aim = u.T @ (root * (y - target))  # [r, K]
        mean_square = s.square().mean().clamp(min=1e-12)  # of cases that are all alike it is 0
        least, chosen, kept = float("inf"), PENALTIES[-1], torch.zeros(n, self.n_classes).double()
        for penalty in PENALTIES:
            shrink = s.square() / (s.square() + penalty * mean_square)
            fitted = u @ (shrink[:, None] * aim) / root + target
            lever = (u.square() @ shrink)[:, None] + weight / n  # [n, 1]
            without = y - (y - fitted) / (1 - lever).clamp(min=1e-6)
            error = float((weight * (y - without).square()).mean())
            if error < least:
                least, chosen, kept = error, penalty, without
        shrunk = s / (s.square() + chosen * mean_square)
        solution = v.T @ (shrunk[:, None] * aim)  # [F, K]
        sharpness = _sharpness(kept, labels, weight[:, 0])
        self.weight.copy_((solution * sharpness).T)
        self.bias.copy_((target - center @ solution) * sharpness)
        return (kept * sharpness).float()


def _sharpness(scores: Tensor, labels: NDArray[np.int64], weight: Tensor) -> float:
    """The factor of the scores [n, K] by which the softmax of them is likeliest, were one more case told wrongly.

    Without that case the factor would have no bound where all ``n`` are told rightly, and the first error of a new case
    would be one of certainty.
    """
    truth = torch.from_numpy(np.asarray(labels)).long()
    factors = torch.logspace(-1, 3, 81, base=10.0, dtype=scores.dtype)
    loss = partial(F.cross_entropy, target=truth, reduction="none", label_smoothing=1 / (len(truth) + 1))
    losses = [float((weight * loss(scores * factor)).mean()) for factor in factors]
    return float(factors[int(np.argmin(losses))])
