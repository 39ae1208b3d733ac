"""What several test files share."""

import os

# two test processes on two cores: one thread each, or they wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # it must be known before anything imports Triton


@pytest.fixture
def data_root() -> Path:
    """The folder of real data that PRISMTS_DATA names; tests that need it are skipped where there is none."""
    folder = os.environ.get("PRISMTS_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("PRISMTS_DATA names no folder of data sets")
    return Path(folder)


@pytest.fixture
def run(monkeypatch, capsys):
    """The command line: its words to the exit status, what was printed, and what was told beside it."""
    from prismts import cli

    def prism(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["prism", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return prism


@pytest.fixture(scope="module")
def networks_speak():
    """Half of each network counts beside its line, for a whole file; hands out the judgment that it stands in for.

    After an epoch on little data validation wants none of a network, and what is forecast is its line's: no test of
    forecasts would see that a network was broken.
    """
    from prismts.tasks import forecast

    judge = forecast._sure_share
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forecast, "_sure_share", lambda *_: 0.5)
        yield judge


@pytest.fixture
def networks_are_judged(networks_speak, monkeypatch):
    """For a test of how much of a network validation wants, in a file where all of them speak."""
    monkeypatch.setattr("prismts.tasks.forecast._sure_share", networks_speak)
