"""Several networks whose mean is the forecast."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import prismts
from prismts.data.splits import Borders
from prismts.data.synthetic import simulated_plant
from prismts.errors import SettingsError
from prismts.estimators.forecaster import Forecaster
from prismts.models.ensemble import Ensemble
from prismts.models.stacked import Stacked
from prismts.tasks.forecast import Forecast

TINY = {
    "context_length": 48,
    "horizon": 12,
    "setting": "published",
    "model_settings": {
        "patch_length": 8, "stride": 4, "width": 8, "feed_forward": 16, "kernel_sizes": (3, 5), "zero_init": "last",
    },
    "fit_settings": {"max_epochs": 2, "batch_size": 64},
    "progress": False,
}  # fmt: skip


def members(n: int = 3) -> list[torch.nn.Module]:
    settings = TINY["model_settings"]
    models = []
    for seed in range(n):
        torch.manual_seed(seed)
        models.append(Forecast(12, line=None).build("convtimenet", settings, n_channels=2, context_length=48).eval())
    return models


def test_the_answer_is_the_mean_of_the_members_merged_or_not():
    models, x = members(), torch.randn(4, 2, 48)
    ensemble = Ensemble(models)
    mean = sum(model(x) for model in models) / 3
    torch.testing.assert_close(ensemble(x), mean)
    before = {name: value.clone() for name, value in ensemble.state_dict().items()}
    torch.testing.assert_close(ensemble.merged()(x), mean, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in ensemble.state_dict().items())


class LastSteps(torch.nn.Module):
    """Says what it was given: the sum of its window, how much of it was seen, and the number of its first step."""

    reads_start = True

    def forward(self, x, observed, start):
        return torch.stack([x.sum(-1), observed.float().sum(-1), start[:, None] + 0.0 * x.sum(-1)], dim=-1)


def test_members_are_given_as_many_of_the_last_steps_as_each_reads():
    x = torch.arange(10.0).expand(2, 3, 10)
    seen = torch.ones(2, 3, 10, dtype=torch.bool)
    seen[..., 0] = False
    ensemble, start = Ensemble([LastSteps(), LastSteps(), LastSteps()], (4, None, 99)), torch.tensor([5, 50])
    expected = torch.tensor([(30 + 45 + 45) / 3, (4 + 9 + 9) / 3, 2.0])
    for given in (ensemble, ensemble.merged()):
        torch.testing.assert_close(given(x, seen, start)[0], (expected + torch.tensor([0, 0, 5.0])).expand(3, 3))
        torch.testing.assert_close(given(x, seen, start)[1], (expected + torch.tensor([0, 0, 50.0])).expand(3, 3))


class Total(torch.nn.Module):
    """Counts no steps."""

    def forward(self, x, observed):
        return torch.stack([x.sum(-1)] * 3, dim=-1)


def test_a_member_that_reads_no_numbers_stands_beside_one_that_does():
    x, seen = torch.ones(1, 2, 8), torch.ones(1, 2, 8, dtype=torch.bool)
    y = Ensemble([Total(), LastSteps()], (4, 2))(x, seen, torch.tensor([10]))
    torch.testing.assert_close(y[0, 0], torch.tensor([(4 + 2) / 2, (4 + 2) / 2, (4 + 16) / 2]))


def test_its_squared_error_is_never_larger_than_the_mean_of_its_members():
    models, x, y = members(), torch.randn(50, 2, 48), torch.randn(50, 2, 12)
    own = [(model(x) - y).square().mean() for model in models]
    assert (Ensemble(models)(x) - y).square().mean() < sum(own) / 3


@pytest.mark.long
def test_a_forecaster_of_several_members_trains_saves_and_loads(tmp_path):
    series = simulated_plant(700, seed=1)
    borders = Borders(400, 500, 700)
    three = Forecaster(**TINY, n_members=3).fit(series, validation=borders)
    assert isinstance(three.model_, Ensemble) and len(three.members_) == 3
    one = Forecaster(**TINY, n_members=1).fit(series, validation=borders)
    for name, value in one.model_.state_dict().items():
        assert torch.equal(value, three.members_[0].state_dict()[name]), name  # the first member is the single one
    errors = []
    for member in three.members_:
        one.model_, one._inference = member, None
        errors.append(one.backtest(series, begin=500).scores["mse"])
    assert len(set(errors)) == 3
    assert three.backtest(series, begin=500).scores["mse"] < np.mean(errors)
    three.save(tmp_path / "m")
    again = prismts.load(tmp_path / "m")
    np.testing.assert_array_equal(again.predict().iloc[:, 1:], three.predict().iloc[:, 1:])


def test_without_a_word_there_is_one_member_and_none_is_refused():
    series = simulated_plant(400, seed=1)
    assert len(Forecaster(**TINY).fit(series).members_) == 1
    with pytest.raises(SettingsError, match="n_members"):
        Forecaster(**TINY, n_members=0).fit(series)


@pytest.mark.long
def test_members_beside_a_line_share_the_one_that_was_solved():
    forecaster = Forecaster(**{**TINY, "setting": "default"}, n_members=2).fit(simulated_plant(400, seed=1))
    one, two = (member.head.line.weight for member in forecaster.members_)
    assert torch.equal(one, two) and one.abs().max() > 0 and forecaster.line_


@pytest.mark.long
def test_a_killed_run_of_several_members_goes_on_where_it_was(tmp_path):
    series = simulated_plant(700, seed=1)
    settings = {**TINY, "n_members": 2}
    whole = Forecaster(**settings).fit(series)
    broken = Forecaster(**settings, run_folder=tmp_path / "run")
    train = Forecaster._train_one

    def stop_at_the_second(self, model, task, *rest):
        if rest[-2] == 1:
            raise KeyboardInterrupt
        return train(self, model, task, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Forecaster, "_train_one", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            broken.fit(series)
    again = Forecaster(**settings, run_folder=tmp_path / "run").fit(series)
    assert again.fit_result_.resumed_from == 2
    for name, value in whole.model_.state_dict().items():
        assert torch.equal(value, again.model_.state_dict()[name]), name


@pytest.mark.parametrize("value", ["0", "1"])
def test_the_allocator_is_left_alone_when_told_so(value):
    code = "from prismts.training.memory import keep_pages; print(keep_pages())"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")} | {"PRISMTS_KEEP_PAGES": value}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == str(value == "1" and sys.platform.startswith("linux"))


def test_what_is_merged_is_a_copy_also_of_members_without_kernels_to_merge():
    plain = torch.nn.Linear(3, 2)
    for model in (Ensemble([plain, plain]), Stacked(plain, None)):
        copy = model.merged()
        assert not {id(part) for part in copy.modules()} & {id(part) for part in model.modules()}
