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
