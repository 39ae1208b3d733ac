"""Students of a chosen size, what they cost beside their teacher, and the command that makes them."""

import contextlib
import sys

import pandas as pd
import pytest
import torch

import prismts
from prismts.cli import main
from prismts.data.synthetic import labeled_motions, simulated_plant
from prismts.errors import SettingsError
from prismts.estimators.distilling import Measured, measured, n_numbers, smaller
from prismts.report.distill import cost_figure, distill_report, distill_rows

SHORT = {"max_epochs": 1, "batch_size": 64}


@pytest.fixture(scope="module")
def plant():
    return simulated_plant(600)


@pytest.fixture(scope="module")
def teacher(plant):
    return prismts.Forecaster(
        context_length=96, horizon=12, setting="published", model_settings={"kernel_sizes": (9, 11, 15, 21)},
        fit_settings=SHORT, progress=False,
    ).fit(plant)  # fmt: skip


@pytest.mark.parametrize("share", [0.5, 0.1, 0.05])
def test_a_smaller_model_holds_at_most_the_share_that_was_asked_for(share: float, teacher, plant) -> None:
    student = smaller(teacher, share=share, fit_settings=SHORT).fit(plant)
    held = n_numbers(student.model_) / n_numbers(teacher.model_)
    assert 0.4 * share < held <= share
    assert len(student.members_[0].blocks) < len(teacher.members_[0].blocks)


def test_a_smaller_classifier_is_a_network_alone_and_small_enough() -> None:
    cases = labeled_motions().train
    teacher = prismts.Classifier(fit_settings=SHORT, validation=2, progress=False).fit(cases)
    student = smaller(teacher, share=0.1, fit_settings=SHORT).fit(cases)
    assert n_numbers(student.model_) <= 0.1 * n_numbers(teacher.model_)
    assert len(student.members_) == 1


def test_a_share_that_nothing_fits_is_told_so(teacher) -> None:
    with pytest.raises(SettingsError, match="The smallest student of this kind holds"):
        smaller(teacher, share=0.0001)
    with pytest.raises(SettingsError, match="between 0 and 1"):
        smaller(teacher, share=2)


def test_numbers_are_counted_with_solved_lines_and_running_statistics() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    assert n_numbers(model) == 2 * 3 + 3 + 4 * 3


def test_measured_tells_what_backtest_tells_and_what_lies_on_disk(teacher, plant, tmp_path) -> None:
    found = measured(teacher, plant, begin=500)
    assert found.scores == dict(teacher.backtest(plant, begin=500).scores)
    assert found.latency > 0
    teacher.save(tmp_path / "m")
    assert found.size == sum(file.stat().st_size for file in (tmp_path / "m").iterdir())


FOUND = {
    "teacher": Measured({"mse": 0.5, "mae": 0.4}, 1_000_000, 0.02, 4_000_000),
    "student": Measured({"mse": 0.55, "mae": 0.45}, 50_000, 0.005, 200_000),
}


def test_the_table_tells_costs_as_shares_of_the_teacher() -> None:
    columns, rows = distill_rows(FOUND)
    assert columns == ["model", "MSE", "MAE", "numbers", "latency", "size"]
    assert rows[0] == ["teacher", "0.5000", "0.4000", "1,000,000", "20.00 ms", "4.00 MB"]
    assert rows[1] == ["student", "0.5500", "0.4500", "50,000 (5.0%)", "5.00 ms (25.0%)", "0.20 MB (5.0%)"]
    with pytest.raises(SettingsError, match="nothing to compare"):
        distill_rows({})


def test_the_page_holds_the_table_and_the_figure_its_numbers(tmp_path) -> None:
    figure = cost_figure(FOUND)
    assert [(trace.x[0], trace.y[0]) for trace in figure.data] == [(1_000_000, 0.5), (50_000, 0.55)]
    distill_report(tmp_path / "d.html", FOUND, part="a part", command="prism distill")
    page = (tmp_path / "d.html").read_text(encoding="utf-8")
    assert "50,000 (5.0%)" in page
    assert "prism distill" in page


def test_the_command_teaches_scores_and_cleans_up(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    series = simulated_plant(700)
    pd.DataFrame(series.values.T[:, :3], columns=series.channels[:3]).to_csv("a.csv", index=False)

    def prism(command: str) -> str:
        monkeypatch.setattr(sys, "argv", ["prism", *command.split()])
        with contextlib.suppress(SystemExit):
            main()
        return " ".join("".join(capsys.readouterr()).split())

    prism("fit forecast a.csv --out t --horizon 12 --context-length 48 --setting published --epochs 1 -q")
    said = prism("distill t a.csv --out s --epochs 1 --share 0.2 --alone --report d.html")
    assert "a, test: steps (560, 700)" in said
    for word in ("teacher", "student alone", "saved: s", "d.html"):
        assert word in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "d.html", "s", "t"]
    assert prism("predict s -q").startswith("step,")
    prism("distill t a.csv --out s2 --epochs 1 --share 0.2 --cache kept -q")
    assert list((tmp_path / "kept").glob("*/said.npy"))
    assert "a forecaster is scored on the end" in prism("distill t a.csv --out s3 --test b.ts")
    assert "already holds a model" in prism("distill t a.csv --out s")
