"""Every example runs, and so does the Python of the README."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


LONG = ("13_adapt_and_distill",)


@pytest.mark.long
@pytest.mark.parametrize(
    "example",
    [
        pytest.param(path, marks=[pytest.mark.slow] if path.stem in LONG else [], id=path.stem)
        for path in sorted((ROOT / "examples").glob("*.py"))
    ],
)
def test_an_example_runs(example, capsys):
    runpy.run_path(str(example))
    assert capsys.readouterr().out


@pytest.mark.long
def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, data_root):
    from prismts.data.synthetic import simulated_plant

    plant = simulated_plant(700, seed=0)
    monkeypatch.chdir(tmp_path)
    for name in ("data.csv", "newer.csv"):
        lines = [",".join(["date", *plant.channels])]
        lines += [
            ",".join([str(time), *map(str, row)]) for time, row in zip(plant.timestamps, plant.values.T, strict=True)
        ]
        Path(name).write_text("\n".join(lines))
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) >= 2
    scope: dict = {}
    for block in blocks:
        # the README trains for minutes; the same lines on a small part of the same data take seconds
        quick = block.replace('load_dataset("ETTh2")', 'load_dataset("ETTh2").part(0, 2000)').replace(
            "Forecaster(", "Forecaster(progress=False, fit_settings={'max_epochs': 1}, "
        )
        quick = quick.replace(
            "UniversalModel(", "UniversalModel(progress=False, items_per_epoch=64, fit_settings={'max_epochs': 1}"
        ).replace(
            '["Weather", "data.csv"]', '["data.csv"], fit_settings={"max_epochs": 1}, draws={"steps_per_epoch": 2}'
        )
        exec(compile(quick, "README.md", "exec"), scope)
    assert scope["scores"].n_scored > 0 and len(scope["again"]) == 24 and Path("model/config.json").exists()
