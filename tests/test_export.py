"""An exported file answers as its estimator does, in the user's own units, gaps and all."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import prismts
from prismts import cli
from prismts.data.arrays import of_array
from prismts.data.scaling import StandardScaler
from prismts.data.series import Collection, Series
from prismts.data.synthetic import labeled_motions, planted_anomalies, simulated_plant, sine_mixture
from prismts.data.tables import TableKind
from prismts.errors import DataError, SavedModelError, SettingsError, ShapeError
from prismts.layers.hydra import HydraMap
from prismts.layers.missing import bridge
from prismts.models import MODELS
from prismts.models.detect_windows import spread as spread_of_arrays
from prismts.models.detectors import DETECTORS
from prismts.serving import export as exporting
from prismts.serving import graph_parts
from prismts.serving.export import described, export, graph_of
from prismts.serving.graph_classify import PaddedHydra
from prismts.serving.graph_detect import refused_judges
from prismts.serving.runtime import OnnxModel
from prismts.serving.served import OnnxEngine, TorchEngine
from prismts.tasks.detect import box_mean

onnxruntime = pytest.importorskip("onnxruntime")
QUICK = {"progress": False, "fit_settings": {"max_epochs": 1, "min_steps": 4}}
TOLERANCE = 1e-4

pytestmark = pytest.mark.usefixtures("networks_speak")


def holes(x, share: float = 0.1, seed: int = 0):
    """Values with points missing, and a stretch of all channels."""
    x = np.array(x, dtype=np.float32)
    x[np.random.default_rng(seed).random(x.shape) < share] = np.nan
    x[..., x.shape[-1] // 3 : x.shape[-1] // 3 + x.shape[-1] // 8] = np.nan
    return x


def asked(estimator, *inputs: np.ndarray) -> dict[str, np.ndarray]:
    """What the graph of an estimator says, run by torch before any export."""
    graph = graph_of(estimator)
    with torch.no_grad():
        found = graph.module(*map(torch.from_numpy, inputs))
    found = found if isinstance(found, tuple) else (found,)
    return {name: one.numpy() for name, one in zip(graph.outputs, found, strict=False)}


# ---- parts of graphs


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(bool, st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 20))))
def test_gaps_are_bridged_as_the_layers_bridge_them_whatever_is_missing(seen):
    x = torch.from_numpy(np.random.default_rng(0).normal(size=seen.shape))
    mask = torch.from_numpy(seen)
    torch.testing.assert_close(graph_parts.bridged(x, mask), bridge(x, mask), rtol=0, atol=1e-14)


def test_a_gap_of_three_steps_is_crossed_by_a_straight_line():
    x = torch.tensor([[[torch.nan, 2.0, torch.nan, torch.nan, torch.nan, 10.0, torch.nan]]])
    bridged = graph_parts.bridged(x.nan_to_num(0.0), ~x.isnan())
    assert bridged.flatten().tolist() == [2.0, 2.0, 4.0, 6.0, 8.0, 10.0, 10.0]


@given(st.integers(1, 40), st.integers(1, 40))
@settings(deadline=None)
def test_sums_of_neighbors_are_the_sums_of_each_window(length, more):
    x = np.random.default_rng(length).normal(size=length + more - 1)
    sums = graph_parts.window_sums(torch.from_numpy(x)[None], length)[0]
    np.testing.assert_allclose(sums, np.lib.stride_tricks.sliding_window_view(x, length).sum(1), atol=1e-12)


@given(st.integers(1, 40), st.integers(1, 40))
@settings(deadline=None)
def test_the_largest_neighbor_is_the_largest_of_each_window(length, more):
    x = np.random.default_rng(length).normal(size=length + more - 1)
    largest = graph_parts.window_maxima(torch.from_numpy(x)[None], length)[0]
    np.testing.assert_array_equal(largest, np.lib.stride_tricks.sliding_window_view(x, length).max(1))


def test_small_values_behind_a_huge_one_keep_their_digits():
    x = torch.tensor([1e16, 0.0, 0.0, 0.25, 0.5, 0.25], dtype=torch.float64)
    assert graph_parts.window_sums(x, 3).tolist() == [1e16, 0.25, 0.75, 1.0]


@given(st.integers(1, 12), st.integers(1, 30))
@settings(deadline=None)
def test_scores_of_windows_are_spread_as_the_detectors_spread_them(window, n):
    scores = np.random.default_rng(n).random(n)
    np.testing.assert_allclose(graph_parts.spread(torch.from_numpy(scores), window), spread_of_arrays(scores, window))


@pytest.mark.parametrize("length", [1, 2, 5, 8])
def test_errors_are_averaged_around_each_step_as_the_detector_does_it(length):
    from prismts.serving.graph_detect import _box_mean

    x = np.random.default_rng(0).random((2, 30))
    x[0, :9] = x[1, 12:15] = x[1, 29] = np.nan
    np.testing.assert_allclose(_box_mean(torch.from_numpy(x)[None], length)[0], box_mean(x, length))


def test_a_series_is_scaled_by_itself_as_the_scaler_would():
    x = holes(np.random.default_rng(0).normal(5, 3, (4, 50)))
    x[1, ~np.isnan(x[1])] = 7.0  # never moves
    x[3] = np.nan
    values = torch.from_numpy(x[None]).double()
    mean, scale, some = graph_parts.own_statistics(values, ~values.isnan())
    fitted = StandardScaler.fit(Collection.of(Series(x[:3])))
    np.testing.assert_allclose(mean[0, :3, 0], fitted.mean[0], atol=1e-12)
    np.testing.assert_allclose(scale[0, :3, 0], fitted.scale[0], atol=1e-12)
    assert scale[0, 1] == 1 and some[0, :, 0].tolist() == [True, True, True, False]


def test_kernels_that_compete_count_no_step_behind_the_end_of_a_case():
    torch.manual_seed(0)
    line = HydraMap(3, 40, 2, n_groups=8)
    x = torch.randn(3, 3, 40)
    seen = torch.rand(x.shape) > 0.2
    lengths = (40, 23, 9)
    for row, length in enumerate(lengths):
        seen[row, :, length:], seen[row, 0, length - 1] = False, True
    padded = PaddedHydra(line).features(x.masked_fill(~seen, 0.0), seen)
    for row, length in enumerate(lengths):
        case, mask = x[row : row + 1, :, :length], seen[row : row + 1, :, :length]
        torch.testing.assert_close(padded[row : row + 1], line.features(case.masked_fill(~mask, 0.0), mask))


# ---- graphs answer as estimators do


@pytest.fixture(scope="module")
def plant():
    return simulated_plant(500, seed=0).values.astype(np.float32)[:3]


@pytest.fixture(scope="module")
def of_quantiles(plant):
    """A forecaster of one series, with calibrated quantiles and a straight line only: quick to fit and to export."""
    return prismts.Forecaster("ridge", context_length=24, horizon=6, quantiles=(0.1, 0.5, 0.9)).fit(plant)


@pytest.fixture(scope="module")
def exported(of_quantiles, tmp_path_factory):
    return export(of_quantiles, tmp_path_factory.mktemp("export") / "ridge.onnx")


@pytest.mark.parametrize("length", [24, 40, 9])
def test_a_forecast_is_that_of_the_forecaster_for_any_past(of_quantiles, plant, length):
    x = holes(plant[:, 100 : 100 + length])
    np.testing.assert_allclose(asked(of_quantiles, x[None])["quantiles"][0], of_quantiles.predict(x), rtol=1e-5)


@pytest.mark.long
def test_the_network_of_a_forecaster_and_its_chosen_line_are_in_the_graph(plant):
    forecaster = prismts.Forecaster(context_length=24, horizon=6, n_members=2, **QUICK).fit(plant)
    x = holes(plant[:, 50:74])
    np.testing.assert_allclose(asked(forecaster, x[None])["forecast"][0], forecaster.predict(x), rtol=1e-5)


@pytest.mark.long
def test_a_line_that_reads_more_than_its_network_is_in_the_graph(plant):
    forecaster = prismts.Forecaster(setting="long_line", context_length=350, horizon=6, **QUICK).fit(plant)
    x = holes(plant[:, 50:400])
    np.testing.assert_allclose(asked(forecaster, x[None])["forecast"][0], forecaster.predict(x), rtol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("setting", ["two_contexts", "two_encoders"])
def test_members_of_two_kinds_are_in_the_graph(plant, setting):
    forecaster = prismts.Forecaster(setting=setting, context_length=350, horizon=6, **QUICK).fit(plant)
    x = holes(plant[:, 50:400])
    np.testing.assert_allclose(asked(forecaster, x[None])["forecast"][0], forecaster.predict(x), rtol=1e-5)


def test_a_line_of_each_channels_own_is_in_the_graph():
    signs = np.array([0.9, -0.9, 0.3])
    values = np.zeros((3, 500))
    for t in range(1, 500):
        values[:, t] = signs * values[:, t - 1] + np.random.default_rng(t).standard_normal(3)
    forecaster = prismts.Forecaster(setting="individual_line", context_length=24, horizon=6, **QUICK).fit(values)
    assert "each channel its own" in forecaster.line_
    x = holes(values[:, 50:74])
    np.testing.assert_allclose(asked(forecaster, x[None])["forecast"][0], forecaster.predict(x), rtol=1e-5)


def test_what_all_channels_did_is_in_the_graph():
    noise = np.random.default_rng(0).standard_normal((2, 520))
    leader = np.convolve(noise[0], np.ones(8), "valid")
    values = np.stack([leader[3:503], leader[:500] + noise[1, :500]])  # the second does what the first did
    forecaster = prismts.Forecaster(setting="coupled_line", context_length=24, horizon=6, **QUICK).fit(values)
    assert "by what all did lately" in forecaster.line_
    x = holes(values[:, 50:74])
    np.testing.assert_allclose(asked(forecaster, x[None])["forecast"][0], forecaster.predict(x), rtol=1e-5)


def test_each_series_of_training_has_its_own_scale_and_others_are_scaled_by_themselves(plant):
    cases = [Series(plant[:, :300] * 10.0**i, name=name) for i, name in enumerate(("north", "south"))]
    forecaster = prismts.Forecaster("ridge", context_length=24, horizon=6).fit(Collection.of(cases))
    x = holes(plant[:, 400:430])
    for number, name in ((0, "north"), (1, "south"), (-1, "new")):
        live = forecaster.predict((Collection.of(Series(x, name=name)), TableKind("array")))
        np.testing.assert_allclose(asked(forecaster, x[None], np.array([number]))["forecast"], live, rtol=2e-5)


def served(forecaster, tmp_path) -> tuple[TorchEngine, OnnxEngine]:
    """The same forecaster behind both runtimes."""
    forecaster.save(tmp_path / "model")
    return TorchEngine("m", tmp_path / "model"), OnnxEngine("m", export(forecaster, tmp_path / "m.onnx"))


@pytest.mark.long
def test_cases_of_an_array_are_numbered_and_no_number_is_taken_for_a_series_of_training(plant, tmp_path):
    cases = np.stack([plant[:1, :300] * scale for scale in (1.0, 5.0, 20.0)])
    forecaster = prismts.Forecaster("ridge", context_length=24, horizon=2, progress=False).fit(cases)
    engines = served(forecaster, tmp_path)
    for n in (1, 2, 3):
        new = cases[:n, :, 100:124] + 7.0
        for engine in engines:
            (found,) = engine.compute([of_array(new)])
            np.testing.assert_allclose(found, forecaster.predict(new), rtol=1e-5)
    one = of_array(cases[:1, :, 100:124] + 7.0)
    for engine in engines:
        np.testing.assert_allclose(engine.compute([one, one])[1], engine.compute([one])[0], rtol=1e-6)
    assert np.isnan(forecaster.backtest(cases[:2, :, 100:]).scores["mase"])
    assert np.isfinite(forecaster.backtest(cases[:, :, 100:]).scores["mase"])


@pytest.mark.long
def test_a_series_that_was_not_in_training_is_scaled_by_all_its_steps_by_either_runtime(plant, tmp_path):
    cases = [Series(plant[:, :300] * 10.0**i, name=name) for i, name in enumerate(("north", "south"))]
    forecaster = prismts.Forecaster("ridge", context_length=24, horizon=6, progress=False).fit(Collection.of(cases))
    x = plant[:, 300:400] * np.linspace(50, 1, 100, dtype=np.float32)  # far wider than its last 24 steps
    new, longer = (Collection.of(Series(x[:, first:], name="new")) for first in (10, 0))
    known = Collection.of(Series(x, name="south"))
    torch_engine, onnx_engine = served(forecaster, tmp_path)
    for asked_for in (new, longer, known):
        (told,) = torch_engine.compute([asked_for])
        np.testing.assert_allclose(onnx_engine.compute([asked_for])[0], told, rtol=1e-4)
    assert onnx_engine.key(new) != onnx_engine.key(longer) and torch_engine.key(new) == torch_engine.key(longer)


@pytest.mark.parametrize("name", [name for name in DETECTORS if name not in refused_judges()])
def test_a_detector_of_one_baseline_scores_and_alarms_alike(name):
    series = planted_anomalies(900, n_anomalies=3, seed=1)
    detector = prismts.AnomalyDetector(name, progress=False).fit(series.part(0, 500))
    x = holes(series.values[:, 500:760], 0.02)
    found = asked(detector, x[None])
    score = detector.score_samples(x)
    np.testing.assert_allclose(found["score"][0], score, rtol=TOLERANCE, atol=TOLERANCE)
    assert (found["alarm"][0] == detector.predict(x)).all()
    np.testing.assert_allclose(found["contribution"][0], detector.contributions(x), rtol=TOLERANCE, atol=TOLERANCE)


def test_a_channel_that_stood_still_in_training_is_blamed_alike_when_it_moves():
    values = planted_anomalies(600, n_anomalies=2, seed=1).values.copy()
    values[0] = 5.0
    detector = prismts.AnomalyDetector("sub_pca", progress=False).fit(values[:, :400])
    values[0, 520:523] = 5.5
    for x in (values[:, 400:], holes(values[:, 400:], 0.02)):
        x = x.astype(np.float32)
        added = asked(detector, x[None])["contribution"][0]
        np.testing.assert_allclose(added, detector.contributions(x), rtol=TOLERANCE, atol=TOLERANCE)
    assert added[:, 121].argmax() == 0


slow = pytest.mark.slow


@pytest.mark.parametrize("setting", ["default", "combined", pytest.param("network", marks=slow)])
def test_a_detector_of_several_judges_scores_and_alarms_alike(setting):
    series = planted_anomalies(700, n_anomalies=3, seed=1)
    networks = {} if setting == "default" else {"context_length": 32, **QUICK}
    detector = prismts.AnomalyDetector(setting=setting, **{"progress": False, **networks}).fit(series.part(0, 400))
    for n in (detector.delay_ + 130, 300):
        x = holes(series.values[:, 400 : 400 + n], 0.02)
        found = asked(detector, x[None])
        np.testing.assert_allclose(found["score"][0], detector.score_samples(x), rtol=TOLERANCE, atol=TOLERANCE)
        np.testing.assert_allclose(found["contribution"][0], detector.contributions(x), rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("channels", ["mixed", pytest.param("independent", marks=slow)])
def test_gaps_are_filled_as_the_imputer_fills_them(plant, channels):
    imputer = prismts.Imputer(context_length=24, model_settings={"channels": channels}, **QUICK).fit(plant[:, :200])
    for n in (24, 31, 100):
        x = holes(plant[:, 200 : 200 + n])
        x[2] = np.nan
        filled = asked(imputer, x[None])["filled"][0]
        np.testing.assert_allclose(filled, imputer.transform(Series(x)).values, rtol=1e-5, atol=1e-5)
        assert (filled == x)[~np.isnan(x)].all()


@pytest.mark.parametrize(
    "changes",
    [{}, *(pytest.param(one, marks=slow) for one in ({"channels": "apart", "pooling": "max"}, {"pooling": "mean"}))],
)
def test_cases_are_embedded_as_the_embedder_does_it(changes):
    cases = labeled_motions(12, n_timepoints=60, seed=0)
    embedder = prismts.Embedder(context_length=20, **QUICK, **changes).fit(cases.train)
    for n in (20, 41, 60):
        x = np.stack([holes(case.values[:, :n]) for case in cases.test])
        np.testing.assert_allclose(asked(embedder, x)["vector"], embedder.transform(x), rtol=1e-4, atol=1e-4)


def test_cases_of_any_length_are_classified_in_one_batch():
    cases = labeled_motions(18, n_timepoints=40, seed=0)
    classifier = prismts.Classifier(validation=2, **QUICK).fit(cases.train)
    x = np.stack([holes(case.values) for case in cases.test])
    x[0, :, 21:] = np.nan  # a case that ends earlier
    found = asked(classifier, x)
    live = classifier.predict_proba([x[0, :, :21], *x[1:]])
    np.testing.assert_allclose(found["probability"], live, atol=1e-5)
    assert (classifier.classes_[found["class"]] == classifier.predict([x[0, :, :21], *x[1:]])).all()


def lifted(task: str, level: float):
    """An estimator of data that move by about 1 at this level, and values to ask it with."""
    if task == "forecast":
        plant = simulated_plant(300, seed=0).values[:3].astype(np.float64)
        x = np.stack([plant, 2 * plant]) + level
        return prismts.Forecaster("ridge", context_length=24, horizon=6).fit(x[..., :200]), x[..., 200:240]
    if task == "detect":
        values = planted_anomalies(600, n_anomalies=2, seed=1).values.astype(np.float64) + level
        return prismts.AnomalyDetector("sub_pca", progress=False).fit(values[:, :400]), values[None, :, 400:]
    if task == "impute":
        values = simulated_plant(300, seed=0).values[:3].astype(np.float64) + level
        values[:, 230:240] = np.nan
        return prismts.Imputer(context_length=24, **QUICK).fit(values[:, :200]), values[None, :, 200:]
    cases = labeled_motions(18, n_timepoints=40, seed=0)
    x, y = np.stack([case.values for case in cases.train]).astype(np.float64) + level, cases.train.labels
    if task == "classify":
        return prismts.Classifier(validation=2, **QUICK).fit(x, y), x
    return prismts.Embedder(context_length=20, **QUICK).fit(x), x


_ASKED = {"forecast": "predict", "detect": "score_samples", "impute": "transform", "classify": "predict_proba"}


@pytest.mark.long
@pytest.mark.parametrize("task", ["forecast", "detect", "impute", "classify", "embed"])
def test_data_that_move_by_ones_at_a_billion_are_exported_in_double_precision(task, tmp_path):
    estimator, x = lifted(task, 1e9)
    model = OnnxModel(export(estimator, tmp_path / "m.onnx"), n_threads=1)
    assert model.metadata["inputs"]["values"]["dtype"] == "float64"
    ask = _ASKED.get(task, "transform")
    together = task in ("classify", "embed")
    live = getattr(estimator, ask)(x) if together else np.stack([getattr(estimator, ask)(one) for one in x])
    told = getattr(model, ask)(x)
    assert np.ptp(live - live.mean()) > 0.01  # and no constant
    np.testing.assert_allclose(told - live.mean(), live - live.mean(), rtol=TOLERANCE, atol=TOLERANCE)


def test_a_table_of_pascals_is_forecast_alike_by_an_archive(tmp_path):
    values = 101325 + simulated_plant(300, seed=0).values[:1].astype(np.float64)
    forecaster = prismts.Forecaster("ridge", context_length=24, horizon=6).fit(values)
    program = torch.export.load(export(forecaster, tmp_path / "m.pt2")).module(check_guards=False)
    told = program(torch.from_numpy(values[None, :, -24:]))[0].numpy()
    np.testing.assert_allclose((told - forecaster.predict(values)) / forecaster.scaler_.scale[0][:, None], 0, atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("task", ["forecast", "impute"])
def test_a_graph_too_coarse_for_its_data_is_not_kept(task, tmp_path, monkeypatch):
    from prismts.serving import graph_forecast, graph_impute

    estimator, _ = lifted(task, 101325.0)
    for module in (graph_forecast, graph_impute):
        monkeypatch.setattr(module, "precision_for", lambda level, scale: "float32")
    with pytest.raises(DataError, match="does not answer as the"):
        export(estimator, tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("level", "scale", "reads"),
    [
        (0.0, 1.0, "float32"),
        (290.0, 8.0, "float32"),  # kelvins
        (1000.0, 1.0, "float32"),  # neighbors are 6.1e-5 apart
        (1100.0, 1.0, "float64"),  # and here 1.2e-4
        (-101325.0, 1.0, "float64"),
        (1e39, 1e38, "float64"),  # beyond the largest number
        (0.0, 1e-44, "float64"),  # and beside the smallest
    ],
)
def test_a_graph_reads_doubles_where_single_precision_would_round_by_more_than_is_allowed(level, scale, reads):
    assert graph_parts.precision_for(np.array([0.0, level]), np.array([1.0, scale])) == reads


@pytest.mark.long
def test_a_detector_reads_what_its_closed_forms_learned_in_double_precision(tmp_path):
    x = Series(300 + planted_anomalies(600, n_anomalies=2, seed=1).values.astype(np.float64))
    detector = prismts.AnomalyDetector("sub_pca", progress=False).fit(x.part(0, 400))
    model = OnnxModel(export(detector, tmp_path / "m.onnx"))
    np.testing.assert_allclose(model.score_samples(x.values), detector.score_samples(x), rtol=1e-6, atol=1e-6)


# ---- the file


def test_onnx_runtime_answers_as_the_forecaster(of_quantiles, exported, plant):
    model = OnnxModel(exported)
    for n in (1, 5):
        x = np.stack([holes(plant[:, 30 * i : 30 * i + 30], seed=i) for i in range(n)])
        live = np.stack([of_quantiles.predict(one) for one in x])
        np.testing.assert_allclose(model.predict(x), live, rtol=TOLERANCE)
    assert model.predict(x[0]).shape == (3, 3, 6)
    together = model.predict([x[0], x[1][:, :11]])  # of different lengths
    np.testing.assert_allclose(together[1], of_quantiles.predict(x[1][:, :11]), rtol=TOLERANCE)


def test_the_file_says_of_itself_what_it_reads_and_writes(exported, of_quantiles):
    said = OnnxModel(exported).metadata
    assert (said["kind"], said["estimator"], said["model"]) == ("forecast", "Forecaster", "ridge")
    assert (said["context_length"], said["horizon"], said["quantiles"]) == (24, 6, [0.1, 0.5, 0.9])
    assert said["channels"] == list(of_quantiles.channels_) and said["data_hash"] == of_quantiles.data_hash_
    assert said["prismts_version"] == prismts.__version__ and said["time"] == {"min": 1, "max": None, "exact": False}
    assert said["inputs"]["values"]["axes"] == ["batch", 3, "time"]
    assert said["outputs"]["quantiles"]["axes"] == ["batch", 3, 3, 6]
    assert "own" in said["outputs"]["quantiles"]["units"]
    assert described(exported) == said


def test_the_file_holds_no_paths_of_the_machine_that_wrote_it(exported):
    for word in (b"site-packages", b".py", prismts.__file__.rsplit("/", 1)[0].encode()):
        assert word not in exported.read_bytes()


def test_the_reader_never_imports_torch(exported):
    code = (
        "import sys, numpy as np; from prismts.serving.runtime import OnnxModel;"
        f"print(OnnxModel({str(exported)!r}).predict(np.ones((3, 30))).shape);"
        "print([m for m in ('torch', 'pandas', 'sklearn', 'lightning') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["(3, 3, 6)", "[]"]


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        (np.zeros((4, 30)), ShapeError, r"reads \[channel=3, time\], but number 0 has shape \[4, 30\]"),
        (np.zeros((30, 3)), ShapeError, "If time comes first, pass its transpose"),
        (np.zeros(30), ShapeError, r"One channel alone is x\[None, :\]"),
        (np.zeros((3, 0)), ShapeError, "reads at least 1 steps, but number 0 has 0"),
        ([np.ones((3, 30)), np.full((3, 9), np.inf)], DataError, "Number 1 holds an infinite value"),
        (np.full((3, 30), 1e300), DataError, "infinite value"),
        ("words", DataError, "cannot be read as such"),
        ([], ShapeError, "the list is empty"),
    ],
)
def test_values_that_cannot_be_read_are_refused_in_words(exported, values, error, words):
    with pytest.raises(error, match=words):
        OnnxModel(exported).predict(values)


def test_a_question_for_another_kind_of_model_is_refused(exported):
    with pytest.raises(SettingsError, match=r"transform cannot be asked here: ridge\.onnx holds a forecast model"):
        OnnxModel(exported).transform(np.zeros((3, 30)))
    with pytest.raises(SettingsError, match="A threshold belongs to a detector"):
        _ = OnnxModel(exported).threshold


def test_damaged_foreign_and_missing_files_are_refused_in_words(exported, tmp_path):
    onnx = pytest.importorskip("onnx")
    with pytest.raises(SavedModelError, match="it does not exist"):
        OnnxModel(tmp_path / "none.onnx")
    with pytest.raises(SavedModelError, match="it is a folder"):
        OnnxModel(tmp_path)
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(exported.read_bytes()[:500])
    with pytest.raises(SavedModelError, match="cannot be read as an ONNX model"):
        OnnxModel(cut)
    whole = onnx.load(exported)

    def altered(name: str, **changes: object) -> object:
        found = {prop.key: prop.value for prop in whole.metadata_props}
        found |= {key: json.dumps(value) for key, value in changes.items()}
        other = onnx.ModelProto()
        other.CopyFrom(whole)
        del other.metadata_props[:]
        for key, value in found.items():
            if value != "null" or key not in changes:
                other.metadata_props.add(key=key, value=value)
        onnx.save(other, tmp_path / name)
        return tmp_path / name

    with pytest.raises(SavedModelError, match="none that PrismTS exported"):
        OnnxModel(altered("foreign.onnx", format="other"))
    with pytest.raises(SavedModelError, match=r"written by a newer PrismTS \(format 99"):
        OnnxModel(altered("newer.onnx", format_version=99))
    with pytest.raises(SavedModelError, match="its metadata lack 'outputs'"):
        OnnxModel(altered("lacking.onnx", outputs=None))
    with pytest.raises(SavedModelError, match="unknown kind 'dream'"):
        OnnxModel(altered("kind.onnx", kind="dream"))


# ---- refusals


@pytest.mark.parametrize("name", ["iforest", "spectral_residual", "matrix_profile"])
def test_a_judge_that_no_graph_can_hold_is_named(name, tmp_path):
    series = sine_mixture(300, periods=(12.0,), amplitudes=(1.0,), n_channels=1, seed=0)
    settings = {"model_settings": {"n_trees": 2}} if name == "iforest" else {}
    detector = prismts.AnomalyDetector(name, progress=False, **settings).fit(series)
    with pytest.raises(SettingsError, match=f"a judge that cannot be written as a graph: '{name}'"):
        export(detector, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_what_is_no_fitted_estimator_and_no_known_format_is_refused(tmp_path, of_quantiles):
    with pytest.raises(SettingsError, match=r"does not end in \.onnx or \.pt2"):
        export(of_quantiles, tmp_path / "m.tflite")
    with pytest.raises(SettingsError, match="Did you mean 'onnx'"):
        export(of_quantiles, tmp_path / "m", format="onx")
    with pytest.raises(prismts.errors.NotFittedError, match="has not learned anything yet"):
        export(prismts.Forecaster(), tmp_path / "m.onnx")
    with pytest.raises(SavedModelError, match="no model folder"):
        export(tmp_path / "nothing", tmp_path / "m.onnx")


@pytest.mark.long
def test_a_graph_that_answers_otherwise_is_not_kept(of_quantiles, tmp_path, monkeypatch):
    place = tmp_path / "m.pt2"
    place.write_text("what was here before")
    true = exporting.graph_of

    def wrong(estimator):
        graph = true(estimator)
        graph.module.units.scale.mul_(1.01)
        return graph

    monkeypatch.setattr(exporting, "graph_of", wrong)
    with pytest.raises(DataError, match="does not answer as the Forecaster does: on 24 steps as they are they differ"):
        export(of_quantiles, place)
    assert place.read_text() == "what was here before" and len(list(tmp_path.iterdir())) == 1


# ---- the command


@pytest.mark.long
def test_a_folder_is_exported_by_the_command_line(of_quantiles, plant, tmp_path, monkeypatch, capsys):
    of_quantiles.save(tmp_path / "m")
    out = tmp_path / "new" / "m.pt2"
    monkeypatch.setattr(sys, "argv", ["prism", "export", str(tmp_path / "m"), "--out", str(out)])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    said = capsys.readouterr().err
    assert "values [batch, 3, time] float32: past, NaN: not observed" in said and "saved:" in said
    assert described(out)["horizon"] == 6
    values = torch.from_numpy(holes(plant[:, :40]))[None]
    with torch.no_grad():
        found = torch.export.load(out).module(check_guards=False)(values)
    np.testing.assert_allclose(found[0], of_quantiles.predict(values[0].numpy()), rtol=TOLERANCE)
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert "exists. Add --replace" in capsys.readouterr().err
    with pytest.raises(SavedModelError, match=r"no \.pt2 archive that PrismTS exported"):
        (tmp_path / "bad.pt2").write_bytes(b"PK not really")
        described(tmp_path / "bad.pt2")


# ---- every model


SMALL_LANGUAGE = {"weights": "random", "width": 8, "n_heads": 2, "feed_forward": 12, "n_layers": 1, "n_words": 11}
NEEDED = {name: {"model_settings": SMALL_LANGUAGE} for name in ("gpt4ts", "allm4ts", "timellm")}


@slow
@pytest.mark.parametrize("name", MODELS)
def test_a_forecaster_of_every_model_is_exported_and_checked(name, plant, tmp_path):
    fitting = {**(QUICK if MODELS[name].is_trained else {"progress": False}), **NEEDED.get(name, {})}
    forecaster = prismts.Forecaster(name, context_length=48, horizon=6, **fitting).fit(plant[:, :150])
    model = OnnxModel(export(forecaster, tmp_path / "m.onnx"))  # which compares both
    for n in (1, 5):
        x = np.stack([holes(plant[:, 9 * i : 9 * i + 48], seed=i) for i in range(n)])
        apart = (model.predict(x) - np.stack([forecaster.predict(one) for one in x])) / forecaster.scaler_.scale[0][
            :, None
        ]
        assert np.abs(apart).max() < TOLERANCE


# ---- real data, every estimator, through ONNX Runtime and through torch.export


def both(estimator, tmp_path):
    """The estimator as an .onnx file, and as a .pt2 archive that was loaded again."""
    model = OnnxModel(export(estimator, tmp_path / "m.onnx"), n_threads=1)
    program = torch.export.load(export(estimator, tmp_path / "m.pt2")).module(check_guards=False)
    names = list(graph_of(estimator).outputs)

    def archive(x: np.ndarray) -> dict[str, np.ndarray]:
        with torch.no_grad():
            found = program(torch.from_numpy(np.asarray(x, dtype=np.float32)))
        return dict(zip(names, found if isinstance(found, tuple) else (found,), strict=False))

    return model, archive


@slow
@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("convtimenet", {}),
        ("convtimenet", {"quantiles": (0.05, 0.5, 0.95), "n_members": 2}),
        ("convtimenet", {"model_settings": {"channels": "mixed"}, "setting": "ridge_line"}),
        ("cross_learner", {}),
        ("ridge", {}),
        ("seasonal_naive", {"quantiles": (0.1, 0.9)}),
        ("last_value", {}),
    ],
)
def test_test_windows_of_etth2_are_forecast_alike(model, changes, data_root, tmp_path):
    series = prismts.load_dataset("ETTh2")
    fitting = {"fit_settings": {"max_epochs": 1}} if model in ("convtimenet", "cross_learner") else {}
    forecaster = prismts.Forecaster(model, context_length=96, horizon=24, progress=False, **fitting, **changes)
    forecaster.fit(series.part(0, 2000))
    read, archive = both(forecaster, tmp_path)
    begin = series.borders.validation_end
    x = np.stack([series.values[:, begin + 11 * i : begin + 11 * i + 96] for i in range(5)]).astype(np.float32)
    scale = forecaster.scaler_.scale[0][:, None]
    for values in (x, holes(x), x[:1], holes(x[:1])):
        live = np.stack([forecaster.predict(one) for one in values])
        assert np.abs((read.predict(values) - live) / scale).max() < TOLERANCE
        assert np.abs((next(iter(archive(values).values())).numpy() - live) / scale).max() < TOLERANCE


@slow
@pytest.mark.parametrize(
    ("data", "changes"),
    [
        ("BasicMotions", {}),
        ("JapaneseVowels", {}),
        ("ArticularyWordRecognition", {}),
        ("BasicMotions", {"setting": "published", "fit_settings": {"max_epochs": 1}}),
        ("JapaneseVowels", {"model": "cross_learner", "model_settings": {"patch_length": 3}}),
        ("BasicMotions", {"model_settings": {"channels": "independent"}}),
    ],
)
def test_labeled_cases_are_classified_alike(data, changes, data_root, tmp_path):
    collection = prismts.load_dataset(data)
    train = collection.train.cases(0, 60) if data == "BasicMotions" else collection.train
    classifier = prismts.Classifier(**{**QUICK, "validation": 0.3, **changes}).fit(train)
    read, archive = both(classifier, tmp_path)
    cases = [case.values.astype(np.float32) for case in collection.test if len(case) <= classifier.n_timepoints_][:12]
    for values in (cases, [holes(case) for case in cases], cases[:1]):
        live = classifier.predict_proba(values)
        np.testing.assert_allclose(read.predict_proba(values), live, atol=TOLERANCE)
        clear = np.sort(live)[:, -1] - np.sort(live)[:, -2] > TOLERANCE
        assert (read.predict(values) == classifier.predict(values))[clear].all()
        padded = np.stack([
            np.pad(case, ((0, 0), (0, classifier.n_timepoints_ - case.shape[1])), constant_values=np.nan)
            for case in values
        ])  # fmt: skip
        if not read.metadata["time"]["exact"]:
            found = read.run(padded)
            np.testing.assert_allclose(found["probability"], live, atol=TOLERANCE)
            assert (found["label"] == classifier.classes_[found["class"]]).all()
            np.testing.assert_allclose(archive(padded)["probability"], live, atol=TOLERANCE)


@slow
@pytest.mark.parametrize("changes", [{"progress": False}, {"setting": "combined", "context_length": 32, **QUICK}])
def test_a_real_series_is_watched_alike(changes, data_root, tmp_path):
    series = prismts.load_dataset("UCR/PowerDemand1").part(0, 4000)
    detector = prismts.AnomalyDetector(**changes).fit(series.part(0, 2000))
    read, archive = both(detector, tmp_path)
    x = series.values[None, :, 2500:3100].astype(np.float32)
    for values in (x, holes(x, 0.02), np.concatenate([x] * 5)):
        live = np.stack([detector.score_samples(one) for one in values])
        np.testing.assert_allclose(read.score_samples(values), live, rtol=TOLERANCE, atol=TOLERANCE)
        np.testing.assert_allclose(archive(values)["score"], live, rtol=TOLERANCE, atol=TOLERANCE)
        away = np.abs(live - detector.threshold_.value) > TOLERANCE * abs(detector.threshold_.value)
        assert (read.predict(values) == np.stack([detector.predict(one) for one in values]))[away].all()
        added = np.stack([detector.contributions(one) for one in values])
        np.testing.assert_allclose(read.contributions(values), added, rtol=TOLERANCE, atol=TOLERANCE)
    assert read.threshold == detector.threshold_.value


@slow
def test_gaps_of_a_real_table_are_filled_alike(data_root, tmp_path):
    series = prismts.load_dataset("ETTh2")
    imputer = prismts.Imputer(context_length=48, **QUICK).fit(series.part(0, 1000))
    read, archive = both(imputer, tmp_path)
    scale = imputer.scaler_.scale[0][:, None]
    for n in (48, 100, 200):
        x = np.stack([holes(series.values[:, 2000 + 50 * i : 2000 + 50 * i + n], seed=i) for i in range(5)])
        live = np.stack([imputer.transform(one) for one in x])
        assert np.abs((read.transform(x) - live) / scale).max() < TOLERANCE
        assert np.abs((archive(x)["filled"].numpy() - live) / scale).max() < TOLERANCE
        assert (read.transform(x) == x)[~np.isnan(x)].all()
    short = holes(series.values[:, 2000:2020])
    assert np.abs((read.transform(short) - imputer.transform(short)) / scale).max() < TOLERANCE


@slow
def test_real_cases_are_embedded_alike(data_root, tmp_path):
    collection = prismts.load_dataset("BasicMotions")
    embedder = prismts.Embedder(context_length=50, **QUICK).fit(collection.train)
    read, archive = both(embedder, tmp_path)
    x = np.stack([holes(case.values) for case in collection.test.cases(0, 5)])
    for values in (x, x[:1], x[:, :4, :67], x[:1, :, :50]):  # other numbers of channels and steps
        live = embedder.transform(values)
        np.testing.assert_allclose(read.transform(values), live, rtol=TOLERANCE, atol=TOLERANCE)
        if values.shape[-1] > 50:  # an archive reads two windows at least
            np.testing.assert_allclose(archive(values)["vector"], live, rtol=TOLERANCE, atol=TOLERANCE)
    with pytest.raises(ShapeError, match="reads at least 50 steps, but number 0 has 20"):
        read.transform(x[0, :, :20])
