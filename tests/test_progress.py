"""What long work says on standard error, and that it can be told to be silent."""

import io

import numpy as np
import pytest
from rich.console import Console

from prismts import DetectOn, Forecaster, ForecastOn, UniversalModel, distill
from prismts.training import progress
from prismts.training.progress import waiting


@pytest.fixture
def terminal(monkeypatch) -> io.StringIO:
    written = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda **_: Console(file=written, force_terminal=True))
    return written


@pytest.mark.parametrize("shown", [True, False])
def test_work_of_unknown_length_is_told_while_it_lasts_and_not_when_it_is_not_to_be_shown(terminal, shown):
    with waiting("solving", shown=shown):
        pass
    assert ("solving" in terminal.getvalue()) == shown


@pytest.mark.parametrize("shown", [True, False])
def test_a_forecaster_says_that_it_solves_its_line(terminal, shown):
    steps = np.sin(np.arange(400) / 5)[None]
    Forecaster(model="ridge", context_length=24, horizon=4, progress=shown).fit(steps)
    assert ("solving what needs no training" in terminal.getvalue()) == shown


def test_a_bar_counts_the_windows_of_all_tasks_and_not_the_fields_of_a_batch(terminal, monkeypatch):
    counted = []
    monkeypatch.setattr(progress.Bar, "move", lambda self, n, *, n_items=0, more="": counted.append(n_items))
    steps = np.sin(np.arange(200) / 5)[None]
    small = {"context_length": 24, "fit_settings": {"max_epochs": 1, "batch_size": 16}}
    sizes = {"width": 8, "feed_forward": 0, "patch_length": 8, "stride": 8}
    tasks = [ForecastOn(steps, horizon=4, line=None), DetectOn(steps)]
    UniversalModel("convtimenet", encoder_settings=sizes, items_per_epoch=32, **small).fit(tasks)
    together = list(counted)
    assert together and sum(together) >= 32
    counted.clear()
    teacher = Forecaster("ridge", context_length=24, horizon=4, progress=False).fit(steps)
    distill(teacher, Forecaster("dlinear", horizon=4, progress=True, **small), steps)
    assert counted and max(counted) == 16
