"""A universal model at the command line: ``--head`` says which of its tasks is meant."""

import numpy as np
import pandas as pd
import pytest

import prismts
from prismts.data.synthetic import labeled_motions, planted_anomalies
from prismts.errors import SettingsError
from prismts.estimators.universal import ClassifyOn, DetectOn, ForecastOn, ImputeOn, UniversalModel

NETWORK = {"width": 8, "feed_forward": 0, "kernel_sizes": (3,), "patch_length": 8, "stride": 4}


def make() -> UniversalModel:
    return UniversalModel(
        "convtimenet", context_length=32, encoder_settings=NETWORK, items_per_epoch=32, progress=False,
        fit_settings={"max_epochs": 1, "accelerator": "cpu"},
    )  # fmt: skip


def table() -> pd.DataFrame:
    t = np.arange(240)
    noise = 0.05 * np.random.default_rng(0).standard_normal(240)
    return pd.DataFrame({"time": pd.date_range("2026-01-01", periods=240, freq="h"), "load": 3 + np.sin(t / 3) + noise})


def motions(n_cases: int) -> tuple[np.ndarray, np.ndarray]:
    cases = labeled_motions(n_cases, n_classes=2)
    return np.stack([case.values for case in cases]), np.where(cases.labels == 0, "slow", "fast")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved model of four tasks, its plants as a table, and labeled cases as a long one."""
    home = tmp_path_factory.mktemp("universal")
    plant = table()
    plant.to_csv(home / "plant.csv", index=False)
    gappy = plant.assign(load=plant["load"].where((plant.index < 60) | (plant.index > 66)))
    gappy.to_csv(home / "gappy.csv", index=False)
    model = make().fit([
        ForecastOn(plant, horizon=4, line=None), ClassifyOn(*motions(24)), DetectOn(plant),
        ImputeOn(gappy), ForecastOn(plant, horizon=4, line=None, name="any", channels="apart"),
    ])  # fmt: skip
    model.save(home / "model")
    return home


def test_each_task_answers_at_the_command_line_as_in_python(folder, tmp_path, run):
    model = prismts.load(folder / "model")
    files = {"forecast": "plant.csv", "detect": "plant.csv", "impute": "gappy.csv"}
    found = {}
    for head, file in files.items():
        words = ("predict", folder / "model", folder / file, "--head", head, "--out", tmp_path / f"{head}.csv", "-q")
        code, _, error = run(*words)
        assert code == 0, error
        found[head] = pd.read_csv(tmp_path / f"{head}.csv")
    np.testing.assert_allclose(found["forecast"]["load"], model.forecast(table(), head="forecast")["load"], rtol=1e-6)
    np.testing.assert_allclose(found["detect"]["score"], model.detect_scores(table()), rtol=1e-6)
    assert found["impute"]["load"].notna().all()


def test_classes_and_their_score_come_from_the_head_that_is_named(folder, tmp_path, run):
    cases, labels = motions(6)
    lines = ["@problemName motions", f"@dimensions {cases.shape[1]}", "@classLabel true slow fast", "@data"]
    for case, label in zip(cases, labels, strict=True):
        lines.append(":".join(",".join(map(str, channel)) for channel in case) + f":{label}")
    (tmp_path / "cases.ts").write_text("\n".join(lines) + "\n")
    words = ("predict", folder / "model", tmp_path / "cases.ts", "--head", "classify", "--out", tmp_path / "a.csv")
    code, _, error = run(*words)
    assert code == 0, error
    said = prismts.load(folder / "model").classify(cases)
    assert pd.read_csv(tmp_path / "a.csv")["class"].tolist() == said.tolist()
    code, out, error = run("evaluate", folder / "model", tmp_path / "cases.ts", "--head", "classify")
    assert code == 0 and "accuracy" in out, error


def test_vectors_come_from_the_encoder_with_and_without_heads(folder, tmp_path, run):
    home = tmp_path / "bare"
    bare = make()
    bare.pretrain([table()], fit_settings={"max_epochs": 1}, draws={"steps_per_epoch": 2})
    bare.save(home)
    for model, more in ((home, ()), (folder / "model", ("--head", "embed"))):
        words = ("embed", folder / "plant.csv", "--model", model, *more, "--window", 48, "--out", tmp_path / "v.csv")
        code, _, error = run(*words)
        assert code == 0, error
        vectors = pd.read_csv(tmp_path / "v.csv")
        assert len(vectors) == (240 - 48) // 24 + 1
        np.testing.assert_allclose(
            vectors.filter(regex=r"^e\d").iloc[0], prismts.load(model).embed(table().head(48))[0], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "Name one with --head"),
        (("--head", "forcast"), "Did you mean 'forecast'"),
        (("--head", "any"), "which only Python asks for"),
    ],
)
def test_a_task_that_is_not_named_or_not_there_is_told(folder, run, words, told):
    code, out, error = run("predict", folder / "model", folder / "plant.csv", *words)
    assert code != 0 and told in " ".join((out + error).split())


def test_a_head_is_asked_of_universal_models_only(folder, tmp_path, run):
    detector = prismts.AnomalyDetector(progress=False).fit(planted_anomalies(600).part(0, 300))
    detector.save(tmp_path / "one")
    words = ("predict", tmp_path / "one", folder / "plant.csv", "--head", "detect")
    code, out, error = run(*words)
    assert code != 0 and "--head is for universal models" in " ".join((out + error).split())


def test_the_encoder_of_a_universal_model_is_saved_with_it_alone(folder, tmp_path):
    with pytest.raises(SettingsError, match="Save that model"):
        prismts.load(folder / "model").embedder().save(tmp_path / "vectors")


def test_a_model_of_several_tasks_is_not_served_and_not_adapted_and_says_so(folder, tmp_path, run):
    code, _, error = run("serve", folder / "model")
    assert code == 2 and "answers more than one task" in error
    code, _, error = run("adapt", folder / "model", folder / "plant.csv", "--out", tmp_path / "adapted")
    assert code == 2 and "shares one encoder among its tasks" in error and not (tmp_path / "adapted").exists()


def test_a_forecast_of_a_universal_model_is_scored_beside_floors_that_are_not_itself(folder, run):
    code, out, error = run("evaluate", folder / "model", folder / "plant.csv", "--head", "forecast")
    assert code == 0, error
    rows = [line.split()[-5:] for line in out.splitlines() if line.strip().startswith(("convtimenet", "last", "ridge"))]
    assert len(rows) == 4 and len({tuple(one) for one in rows}) == 4
