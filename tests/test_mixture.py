"""Several tasks at once: what is not labeled teaches nothing, and losses stand on one scale."""

import copy
from math import exp

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prismts.cases import CaseBatch, Cases, scaler_of_cases
from prismts.data.series import Collection, Series
from prismts.data.synthetic import labeled_motions, sine_mixture
from prismts.errors import SettingsError
from prismts.layers.decode import DecodeHead
from prismts.layers.heads import FlattenHead
from prismts.layers.token_heads import CaseHead
from prismts.models.convtimenet import ConvTimeNet, ConvTimeNetConfig
from prismts.models.multitask import MultiTask, WithHead
from prismts.tasks.classify import Classify
from prismts.tasks.forecast import Forecast
from prismts.tasks.mixture import Balanced, LossBalance, Mixture, labeled
from prismts.tasks.reconstruct import Reconstruct
from prismts.training.batches import Batches
from prismts.training.fit import FitConfig, fit
from prismts.training.mixed import MixedSource
from prismts.windows import Windows

TINY = ConvTimeNetConfig(width=8, feed_forward=0, kernel_sizes=(3,), patch_length=8, stride=4, dropout=0.0)


def series(n_channels: int = 3, n_timepoints: int = 200) -> Collection:
    return Collection.of(sine_mixture(n_timepoints, n_channels=n_channels, noise=0.1))


def cases(n: int = 12, labels: list[int] | None = None) -> Cases:
    data = labeled_motions(n, n_classes=2, n_channels=2, n_timepoints=24)
    known = np.asarray(data.labels if labels is None else labels)
    return Cases(data, known.astype(np.int64), scaler=scaler_of_cases(data))


def model() -> MultiTask:
    torch.manual_seed(0)
    encoder = ConvTimeNet(TINY, n_channels=1, context_length=32)
    return MultiTask(
        encoder,
        {
            "load": FlattenHead(8, encoder.n_tokens, 4),
            "class": CaseHead(8, 2, n_channels=2),
            "gap": DecodeHead(8, 8, 4),
        },
    )


def mixture(many: MultiTask, tasks: tuple[str, ...] = ("load", "class", "gap")) -> Mixture:
    known = {"load": Forecast(4, line=None), "class": Classify(2), "gap": Reconstruct("blocks")}
    return Mixture(
        {name: known[name] for name in tasks}, {name: WithHead(many.encoder, many[name]) for name in many.names}
    )


def sources() -> dict:
    windows = Windows(series(), 32, 4)
    return {"load": windows, "class": cases(), "gap": Windows(series(5), 32, 0)}


def gradients(module: nn.Module) -> dict[str, torch.Tensor | None]:
    return {name: None if p.grad is None else p.grad.clone() for name, p in module.named_parameters()}


# ---- batches of several sources


def test_a_batch_holds_a_part_of_each_source_with_its_own_channels_and_steps():
    mixed = MixedSource(sources())
    batch = mixed.batch(np.array([0, 1, 170, 200]))
    assert {name: tuple(part.context.shape) for name, part in batch.items()} == {
        "load": (2, 3, 32), "class": (1, 2, 24), "gap": (1, 5, 32),
    }  # fmt: skip
    assert mixed.n_channels == 5
    assert mixed.counts == {"load": 165, "class": 12, "gap": 169}


def test_an_epoch_reads_every_item_once():
    mixed, seen = MixedSource(sources()), {"load": 0, "class": 0, "gap": 0}
    for batch in Batches(mixed, 16, seed=0):
        for name, part in batch.items():
            seen[name] += len(part.context)
    assert seen == mixed.counts


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60))
def test_a_small_source_is_read_over_and_over_and_of_a_large_one_items_are_read_evenly(n, wanted):
    class Numbers:
        n_channels = 1

        def __len__(self) -> int:
            return n

        def batch(self, index, channels=slice(None)):
            return index.tolist()

    mixed = MixedSource({"a": Numbers()}, n_items=wanted)
    found = mixed.batch(np.arange(wanted))["a"]
    times = np.bincount(found, minlength=n)
    assert len(found) == wanted
    assert times.max() - times.min() <= 1
    if wanted <= n:
        assert max(np.diff(found), default=1) - min(np.diff(found), default=1) <= 1


def test_a_wide_source_gives_groups_of_channels_and_every_channel_in_turn():
    wide = Windows(Collection.of(Series(np.arange(7.0)[:, None] + np.zeros((7, 60)))), 32, 4)
    mixed = MixedSource({"wide": wide}, channels_at_once=3)
    seen = set()
    for batch in Batches(mixed, 2, seed=0):
        assert batch["wide"].context.shape[1] <= 3
        seen |= set(batch["wide"].context.unique().tolist())
    assert seen == set(range(7))
    whole = MixedSource({"wide": wide}, channels_at_once=3, apart=frozenset())
    assert whole.batch(np.array([0]))["wide"].context.shape[1] == 7


@pytest.mark.parametrize("n_items", [None, 32])
def test_every_channel_is_read_of_batches_in_order_and_of_items_that_lie_evenly_apart(n_items):
    wide = Windows(Collection.of(Series(np.arange(4.0)[:, None] + np.zeros((4, 99)))), 32, 4)
    assert len(wide) == 64
    mixed, seen = MixedSource({"wide": wide}, n_items=n_items, channels_at_once=2), set()
    for epoch in range(4):
        for batch in Batches(mixed, 4, seed=None if n_items is None else 0, epoch=epoch):
            seen |= set(batch["wide"].context.unique().tolist())
    assert seen == set(range(4))


def test_a_number_beyond_the_last_item_and_no_source_are_refused():
    mixed = MixedSource(sources())
    with pytest.raises(IndexError, match="numbered 0 to 345, but got 346"):
        mixed.batch(np.array([346]))
    with pytest.raises(SettingsError, match="at least one source"):
        MixedSource({})


# ---- labels


def test_a_case_without_a_label_moves_no_weight_of_the_head_for_classes():
    many = model().train()
    task = mixture(many)
    balanced = Balanced(many, LossBalance(tuple(task.tasks), balance="fixed"))
    batch = MixedSource({**sources(), "class": cases(labels=[-1] * 12)}).batch(np.array([0, 1, 165, 166, 180, 181]))
    assert set(batch) == {"load", "class", "gap"}
    task.loss(balanced, batch).backward()
    assert all(grad is None for grad in gradients(many["class"]).values())
    assert any(grad is not None and grad.abs().sum() > 0 for grad in gradients(many["load"]).values())
    before = copy.deepcopy(many["class"].state_dict())
    torch.optim.AdamW(balanced.parameters(), lr=0.1, weight_decay=0.5).step()
    assert all(torch.equal(value, before[name]) for name, value in many["class"].state_dict().items())


def test_beside_cases_without_a_label_the_gradient_is_that_of_the_labeled_ones_alone():
    def gradient(labels: list[int], index: list[int]) -> dict:
        many = model().train()
        task = mixture(many, ("class",))
        balanced = Balanced(many, LossBalance(("class",), balance="fixed"))
        task.loss(balanced, {"class": cases(labels=labels).batch(np.array(index))}).backward()
        return {name: grad for name, grad in gradients(many).items() if grad is not None}

    some = [0, 1, -1, -1, 1, 0, -1, 0, -1, -1, -1, -1]
    mixed, alone = gradient(some, list(range(12))), gradient(some, [0, 1, 4, 5, 7])
    assert mixed.keys() == alone.keys()
    for name, grad in alone.items():
        torch.testing.assert_close(mixed[name], grad)
    assert any(grad.abs().sum() > 0 for grad in alone.values())


def test_unlabeled_cases_do_not_move_the_statistics_of_the_encoder():
    many = model().train()
    task = mixture(many, ("class",))
    before = {name: value.clone() for name, value in many.encoder.named_buffers()}
    balanced = Balanced(many, LossBalance(("class",), balance="fixed"))
    loss = task.loss(balanced, {"class": cases(labels=[-1] * 12).batch(np.arange(12))})
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert all(torch.equal(value, before[name]) for name, value in many.encoder.named_buffers())
    assert all(grad is None or not grad.any() for grad in gradients(many).values())


def test_the_labeled_cases_of_a_batch_keep_their_masks():
    x, seen = torch.randn(3, 2, 5), torch.rand(3, 2, 5) < 0.5
    found = labeled(CaseBatch(x, seen, torch.tensor([-1, 1, -1])))
    torch.testing.assert_close(found.context, x[1:2])
    assert torch.equal(found.context_observed, seen[1:2])
    assert labeled(CaseBatch(x, None, torch.tensor([-1, -1, -1]))) is None


# ---- balances


def test_fixed_weights_are_factors_of_the_losses():
    balance = LossBalance(("a", "b"), weights={"b": 3.0}, balance="fixed")
    assert float(balance({"a": torch.tensor(2.0), "b": torch.tensor(0.5)})) == 2.0 + 3.0 * 0.5
    assert float(balance({"b": torch.tensor(0.5)})) == 1.5


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-3, 1e3), st.lists(st.floats(0.1, 10.0), min_size=1, max_size=8))
def test_with_scale_a_loss_in_other_units_counts_the_same(unit, losses):
    plain, other = (LossBalance(("a", "b"), balance="scale").train() for _ in range(2))
    for loss in losses:
        first = plain({"a": torch.tensor(loss), "b": torch.tensor(1.0)})
        second = other({"a": torch.tensor(unit * loss), "b": torch.tensor(1.0)})
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-5)


def test_the_running_magnitude_is_a_mean_first_and_forgets_later():
    balance = LossBalance(("a",), balance="scale", decay=0.9).train()
    values, mean = [4.0, 2.0, 3.0, *[1.0] * 12], 0.0
    for i, value in enumerate(values):
        balance({"a": torch.tensor(value)})
        mean += max(1 / (i + 1), 0.1) * (value - mean)
    assert float(balance.log_magnitude[0].exp()) == pytest.approx(mean, rel=1e-5)


def test_a_magnitude_has_no_gradient_and_stands_still_in_evaluation():
    balance = LossBalance(("a",), balance="scale").train()
    loss = torch.tensor(5.0, requires_grad=True)
    balance({"a": loss}).backward()
    assert float(loss.grad) == pytest.approx(0.2)  # one over the magnitude
    balance.eval()
    before = balance.log_magnitude.clone()
    balance({"a": torch.tensor(100.0)})
    assert torch.equal(balance.log_magnitude, before)


def test_the_learned_variance_of_a_task_goes_to_its_loss():
    balance = LossBalance(("a",), balance="uncertainty")
    optimizer = torch.optim.SGD(balance.parameters(), lr=0.5)
    for _ in range(300):
        optimizer.zero_grad()
        balance({"a": torch.tensor(4.0)}).backward()
        optimizer.step()
    # exp(-s) * 4 / 2 + s / 2 is least where exp(s) = 4
    assert exp(float(balance.log_variance.detach()[0])) == pytest.approx(4.0, rel=1e-3)
    assert float(balance({"a": torch.tensor(4.0)}).detach()) == pytest.approx(0.5 + np.log(4) / 2, rel=1e-3)


def test_a_class_counts_twice_what_a_squared_error_counts_under_uncertainty():
    balance = LossBalance(("a", "k"), balance="uncertainty", likelihoods=frozenset({"k"}))
    assert float(balance({"a": torch.tensor(3.0)}).detach()) == 1.5
    assert float(balance({"k": torch.tensor(3.0)}).detach()) == 3.0


def test_an_unknown_balance_task_or_weight_is_refused():
    with pytest.raises(SettingsError, match="Did you mean 'uncertainty'"):
        LossBalance(("a",), balance="uncertain")
    with pytest.raises(SettingsError, match="Did you mean 'load'"):
        LossBalance(("load",), weights={"laod": 1.0})
    with pytest.raises(SettingsError, match="weights of tasks are 0 or more"):
        LossBalance(("a",), weights={"a": -1.0})


# ---- training


def test_validation_judges_by_the_mean_over_tasks_of_the_error_relative_to_that_before_training():
    many = model()
    task = mixture(many)
    check = MixedSource(sources())
    balanced = Balanced(many, LossBalance(tuple(task.tasks), weights={"class": 2.0}))
    task.prepare(iter(Batches(check, 50)))
    before = task.judged(iter(Batches(check, 7)))
    for name, value in before.items():
        assert value == pytest.approx(task.before[name], rel=1e-4)
    with torch.no_grad():
        for p in many.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    after = task.judged(iter(Batches(check, 50)))
    expected = sum(w * after[n] / before[n] for n, w in {"load": 0.25, "class": 0.5, "gap": 0.25}.items())
    for size in (7, 50):  # whatever the batch size
        total, count = torch.stack([torch.stack(task.errors(balanced, b)) for b in Batches(check, size)]).sum(0)
        assert float(count) == pytest.approx(1.0)
        assert float(total / count) == pytest.approx(expected, rel=1e-4)


class Breaking(MixedSource):
    """Breaks after so many batches."""

    n_left = 10**9

    def batch(self, index, channels=slice(None)):
        self.n_left -= 1
        if self.n_left < 0:
            raise ConnectionError("the power went")
        return super().batch(index, channels)


def train(folder, *, n_batches: int | None = None) -> tuple[Balanced, dict[str, float]]:
    """Everything a joint training moved, and the error of each task relative to that before."""
    many = model()
    task, items = mixture(many), Breaking(sources(), n_items=60)
    task.prepare(iter(Batches(items, 32)))
    balanced = Balanced(many, LossBalance(tuple(task.tasks))).train()
    config = FitConfig(max_epochs=6, batch_size=16, learning_rate=3e-3, schedule="constant", accelerator="cpu")
    if n_batches is not None:
        items.n_left = n_batches
    fit(balanced, task, items, config=config, folder=folder, progress=False)
    errors = task.judged(iter(Batches(items, 32)))
    return balanced, {name: errors[name] / task.before[name] for name in errors}


def test_joint_training_lowers_the_error_of_every_task():
    _, errors = train(None)
    assert set(errors) == {"load", "class", "gap"}
    assert all(error < 0.98 for error in errors.values()), errors


@pytest.mark.long
def test_a_broken_run_that_goes_on_ends_as_a_whole_one_magnitudes_and_all(tmp_path):
    whole, _ = train(None)
    with pytest.raises(ConnectionError, match="the power went"):
        train(tmp_path, n_batches=40)  # 12 batches an epoch
    again, _ = train(tmp_path)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value)
    assert whole.balance.n_seen.min() > 60


def test_a_mixture_of_nothing_or_without_a_view_is_refused():
    with pytest.raises(SettingsError, match="at least one task"):
        Mixture({}, {})
    with pytest.raises(SettingsError, match="no view named 'load'"):
        Mixture({"load": Forecast(4)}, {})
    many = model()
    with pytest.raises(SettingsError, match="errors before training"):
        mixture(many).errors(Balanced(many, LossBalance(("load",))), {})
