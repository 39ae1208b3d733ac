"""A transfer report says of each task what sharing an encoder did to it."""

import json

import pytest

from prismts.errors import DataError, SettingsError
from prismts.evaluation.transfer import TransferReport, TransferRow


def row(task: str, way: str, seed: int, value: float, *, higher: bool = False) -> TransferRow:
    measure = "accuracy" if higher else "mse"
    return TransferRow(task=task, way=way, seed=seed, measure=measure, value=value, higher_is_better=higher)


REPORT = TransferReport((
    row("load", "joint", 0, 0.9), row("load", "separate", 0, 1.0), row("load", "joint", 1, 1.1),
    row("load", "separate", 1, 1.2), row("load", "scratch", 0, 2.2),
    row("class", "joint", 0, 0.5, higher=True), row("class", "separate", 0, 0.75, higher=True),
    row("class", "joint", 1, 0.6, higher=True), row("class", "separate", 1, 0.85, higher=True),
))  # fmt: skip


def test_mean_spread_and_gain_by_hand():
    found = {(entry["task"], entry["way"]): entry for entry in REPORT.summary()}
    joint = found["load", "joint"]
    assert joint["mean"] == pytest.approx(1.0)
    assert joint["spread"] == pytest.approx(0.1 * 2**0.5)
    assert joint["gain"] == pytest.approx(0.1 / 1.1)  # an error that falls is a gain
    assert (joint["n_better"], joint["n_compared"]) == (2, 2)
    scratch = found["load", "scratch"]  # compared with the seeds both have
    assert scratch["gain"] == pytest.approx(-1.2)
    assert (scratch["spread"], scratch["n_compared"]) == (None, 1)
    assert found["class", "joint"]["gain"] == pytest.approx(-0.25 / 0.8)
    assert found["load", "separate"]["gain"] is None


def test_harm_to_one_task_is_seen_beside_a_gain_of_another():
    assert REPORT.negative() == ["class"]
    assert "Negative transfer: class (worse together than alone in every seed)." in REPORT.table()
    fine = TransferReport(tuple(one for one in REPORT if one.task == "load"))
    assert fine.negative() == []
    assert "No task is worse together than alone in every seed." in fine.table()


def test_one_seed_proves_no_harm():
    one = TransferReport((row("a", "joint", 0, 9.0), row("a", "separate", 0, 1.0)))
    assert one.negative() == []
    assert "every seed" not in one.table()


def test_rows_go_through_a_file_and_come_back():
    assert TransferReport.from_rows(json.loads(json.dumps(REPORT.as_rows()))) == REPORT


def test_an_unknown_way_or_task_and_an_empty_table_are_refused():
    with pytest.raises(SettingsError, match="Did you mean 'frozen'"):
        row("a", "frosen", 0, 1.0)
    with pytest.raises(SettingsError, match="Did you mean 'load'"):
        REPORT.values("lod", "joint")
    with pytest.raises(DataError, match="at least one number"):
        TransferReport(()).table()
