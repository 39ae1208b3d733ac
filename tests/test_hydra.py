"""Competing kernels: what wins counts, any length can be compared, and the ridge on it is the textbook's."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneOut

from prismts.data.synthetic import labeled_motions
from prismts.layers import hydra
from prismts.layers.hydra import HydraMap


def small(**changes) -> HydraMap:
    torch.manual_seed(0)
    return HydraMap(**{"n_channels": 2, "n_timepoints": 33, "n_classes": 3, "n_groups": 4, "n_kernels": 3, **changes})


def test_the_best_kernel_earns_its_response_and_the_worst_a_point():
    line = small(n_channels=1, n_timepoints=9, n_groups=2, n_kernels=2)
    x = torch.randn(1, 1, 9)
    found = line.features(x)[0].square()  # [won by group 0, lost by group 0, won and lost by group 1]
    assert line.dilations == (1,)
    read = line.mixes[0, 0, 0] * x[0, 0]
    padded = torch.nn.functional.pad(read, (4, 4))
    fit = torch.stack([(padded[t : t + 9] * line.kernels[0, 0]).sum(-1) for t in range(9)])  # [T, k]
    for k in range(2):
        won = sum(float(row[k]) for row in fit if row.argmax() == k)
        lost = sum(1.0 for row in fit if row.argmin() == k)
        assert found[k] == pytest.approx(max(won, 0), abs=1e-5)
        assert found[2 + k] == pytest.approx(lost, abs=1e-5)


def test_dilations_double_up_to_the_length():
    assert small(n_timepoints=144).dilations == (1, 2, 4, 8, 16)
    assert small(n_timepoints=8).dilations == (1,)


def test_a_case_twice_as_long_of_the_same_rhythm_has_about_the_same_features():
    line = small(n_timepoints=128)
    t = torch.arange(256.0)
    x = torch.stack([torch.sin(t / 2), torch.cos(t / 3)])[None]
    short, long = line.features(x[..., :128]), line.features(x)
    assert (short - long).abs().mean() < 0.1 * short.abs().mean()


def test_a_gap_is_read_as_a_straight_line():
    line, x = small(), torch.randn(1, 2, 33)
    observed = torch.ones_like(x, dtype=torch.bool)
    observed[..., 10] = False
    straight = x.clone()
    straight[..., 10] = (x[..., 9] + x[..., 11]) / 2
    holed = x.masked_fill(~observed, 99.0)
    torch.testing.assert_close(line.features(holed, observed), line.features(straight))


@pytest.mark.parametrize("weighted", [False, True])
def test_the_leave_one_out_scores_are_those_of_models_that_never_saw_the_case(weighted, monkeypatch):
    monkeypatch.setattr(hydra, "PENALTIES", (0.3,))
    torch.manual_seed(1)
    labels = np.arange(14) % 3
    line = small(n_timepoints=9)
    features = torch.rand(14, line.weight.shape[1]) + 0.1
    weight = np.where(labels == 1, 3.0, 0.5) if weighted else np.ones(14)
    scores = line.solve(features, labels, weight if weighted else None)
    weight = weight / weight.mean()
    x = ((features - line.middle) / line.spread).double().numpy()
    truth = np.eye(3)[labels]
    s = np.linalg.svd(np.sqrt(weight)[:, None] * (x - np.average(x, axis=0, weights=weight)), compute_uv=False)
    alpha = 0.3 * float((s**2)[: min(x.shape)].mean())
    without = np.zeros_like(truth)
    for train, test in LeaveOneOut().split(x):
        # the penalty and the features' scale come from all cases: only the regression leaves one out
        model = Ridge(alpha=alpha).fit(x[train], truth[train], sample_weight=weight[train])
        without[test] = model.predict(x[test])
    ratio = scores.numpy() / without
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-3)  # equal up to the one factor that makes log odds


def test_the_scores_of_the_solved_map_are_its_forward_pass():
    line, x = small(), torch.randn(12, 2, 33)
    line.solve(line.features(x), np.arange(12) % 3)
    torch.testing.assert_close(line(x), line.score(line.features(x)))


def test_motions_of_different_rate_are_told_apart():
    cases = labeled_motions()
    x = torch.from_numpy(np.stack([case.values for case in cases]))
    line = small(n_channels=3, n_timepoints=100, n_groups=16, n_kernels=8)
    n = cases.n_train
    left_out = line.solve(line.features(x[:n]), cases.labels[:n])
    assert (left_out.argmax(1).numpy() == cases.labels[:n]).mean() > 0.9
    assert (line(x[n:]).argmax(1).numpy() == cases.labels[n:]).mean() > 0.9


def test_case_weights_of_two_are_cases_that_stand_there_twice(monkeypatch):
    """Each case stands there under two labels, so that the scale of features is the same whichever of them counts."""
    monkeypatch.setattr(hydra, "PENALTIES", (0.3,))
    x = torch.randn(16, 2, 9)
    one, two = np.arange(16) % 3, (np.arange(16) + 1) % 3

    def scores(times: int, weight: np.ndarray | None = None) -> torch.Tensor:
        line = small(n_timepoints=9)
        features = line.features(x)
        line.solve(features.repeat(times + 1, 1), np.concatenate([one] * times + [two]), weight)
        said = line(x)
        return said / said.norm()  # equal but for the factor that makes log odds, which other scores left out decide

    weighted = scores(1, np.repeat([2.0, 1.0], 16))
    torch.testing.assert_close(weighted, scores(2), rtol=1e-3, atol=1e-5)
    assert (weighted - scores(1)).abs().max() > 0.01


def test_cases_that_are_all_alike_are_given_the_shares_of_the_classes():
    line, x = small(), torch.zeros(9, 2, 33)
    left_out = line.solve(line.features(x), np.array([0, 1, 2] * 3))
    assert left_out.isfinite().all()
    torch.testing.assert_close(line(x).softmax(1), torch.full((9, 3), 1 / 3))


def test_a_map_that_tells_all_cases_rightly_is_not_certain_of_new_ones():
    torch.manual_seed(1)
    labels = np.arange(20) % 2
    features = torch.rand(20, small().weight.shape[1]) + 3 * torch.from_numpy(labels)[:, None]
    line = small(n_classes=2)
    line.weight = torch.zeros(2, features.shape[1])
    left_out = line.solve(features, labels).softmax(1)
    assert (left_out.argmax(1).numpy() == labels).all()
    assert 1 / 60 < left_out.min() < 1 / 15  # of 20 cases and one more, one told wrongly
