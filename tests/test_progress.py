"""What long work says on standard error, and that it can be told to be silent."""

import io

import numpy as np
import pytest
from rich.console import Console

from prismts import Forecaster
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
