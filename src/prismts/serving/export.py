"""Write a fitted estimator as one file that answers by itself, and keep it only if it answers as the estimator does."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from prismts import __version__
from prismts.errors import DataError, SavedModelError, SettingsError, unknown_name
from prismts.estimators.base import Estimator
from prismts.estimators.classifier import Classifier
from prismts.estimators.detector import AnomalyDetector
from prismts.estimators.embedder import Embedder
from prismts.estimators.forecaster import Forecaster
from prismts.estimators.imputer import Imputer
from prismts.estimators.load import load
from prismts.models import MODELS
from prismts.models.detectors import DETECTORS
from prismts.serving.graph import TOLERANCE, Graph, TimeRange
from prismts.serving.graph_classify import classify_graph
from prismts.serving.graph_detect import detect_graph
from prismts.serving.graph_embed import embed_graph
from prismts.serving.graph_forecast import forecast_graph
from prismts.serving.graph_impute import impute_graph
from prismts.serving.onnx_file import dynamic_axes, quiet, write_onnx
from prismts.serving.parity import Answer, differences
from prismts.serving.runtime import FORMAT, FORMAT_VERSION
from prismts.writing import whole

__all__ = ["Format", "TOLERANCE", "described", "export", "graph_of"]

Format = Literal["onnx", "pt2"]
_PT2_METADATA = "prismts.json"
_GRAPHS: dict[type[Estimator], Callable[[Any], Graph]] = {
    Forecaster: forecast_graph, Classifier: classify_graph, AnomalyDetector: detect_graph, Imputer: impute_graph,
    Embedder: embed_graph,
}  # fmt: skip


def export(estimator: Estimator | str | Path, path: str | Path, *, format: Format | None = None) -> Path:
    """Write a fitted estimator, or the one in a model folder, to a file, and return the path.

    Everything a caller would otherwise redo is inside the graph: scaling, missing values, normalization and its
    inverse, the straight line beside the network, calibration of quantiles and probabilities, class labels, the scale
    of scores, the threshold. It reads ``values`` [batch, channel, time] in the user's own units, NaN where nothing was
    observed: in single precision, or in double where the data need it, and so come forecasts and filled values.
    Kernels are merged; ``prismts.serving.runtime.OnnxModel`` answers from an .onnx file.

    The file says of itself what it is: names, units and layout of every input and output, channels, lengths, classes,
    threshold, levels, the hash of the training data and versions, as JSON in ``metadata_props`` of an ONNX model and in
    ``prismts.json`` of a .pt2 archive.

    Before the file is kept, it answers for a few windows, gaps among them, and is compared with the estimator: see
    ``TOLERANCE``. It is written beside its place and moved there whole.

    Args:
        estimator: a fitted estimator, or a folder that it was saved in.
        path: of the file to write; its folder is made.
        format: "onnx", or "pt2" for ``torch.export.load``; None takes the ending of the path.

    Raises:
        SettingsError: the format is unknown, or a judge of a detector cannot be written as a graph.
        DataError: the file would not have answered as the estimator does; nothing was written.
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
    """
    path = Path(path)
    format = _format(path, format)
    one = load(estimator) if isinstance(estimator, str | Path) else estimator
    graph = graph_of(one)
    if format == "pt2" and graph.kind == "embed":  # torch.export takes a number of windows of 1 for a constant
        graph = replace(graph, time=TimeRange(graph.time.min + 1))
    metadata = {name: json.dumps(value, ensure_ascii=False) for name, value in _metadata(one, graph).items()}
    with whole(path) as partial:
        if format == "onnx":
            write_onnx(graph, partial, metadata)
            answer = _onnx_answer(partial)
        else:
            _write_pt2(graph, partial, metadata)
            answer = _pt2_answer(partial, graph)
        _check(one, graph, answer)
    return path


def described(path: str | Path) -> dict[str, Any]:
    """What an exported file says of itself: an .onnx file, or a .pt2 archive.

    Raises:
        SavedModelError: the file is missing, damaged, or not one of ours.
    """
    path = Path(path)
    if path.suffix.lower() != ".pt2":
        from prismts.serving.runtime import OnnxModel

        return OnnxModel(path).metadata
    extra = {_PT2_METADATA: ""}
    try:
        with quiet():
            torch.export.load(path, extra_files=extra)
        found = json.loads(extra[_PT2_METADATA])
    except (OSError, RuntimeError, ValueError, zipfile.BadZipFile) as error:
        said = str(error).strip().splitlines()[0].rstrip(".")
        raise SavedModelError(
            f"{path} is no .pt2 archive that PrismTS exported ({said}). Export the model anew."
        ) from error
    return dict(found)


def graph_of(estimator: Estimator) -> Graph:
    """The module that answers for a fitted estimator, and what it says of itself."""
    for kind, graph in _GRAPHS.items():
        if isinstance(estimator, kind):
            estimator._check_fitted()  # pyright: ignore[reportPrivateUsage]
            with torch.no_grad():
                return graph(estimator)
    known = ", ".join(kind.__name__ for kind in _GRAPHS)
    raise SettingsError(f"A {type(estimator).__name__} cannot be exported. These can: {known}.")


def _format(path: Path, format: str | None) -> Format:
    if format is None:
        format = path.suffix.lstrip(".").lower()
        if format not in get_args(Format):
            raise SettingsError(
                f"{path} does not end in .onnx or .pt2, so its format is not known. Give it one of these endings, or "
                "set format."
            )
    if format not in get_args(Format):
        raise unknown_name("format", format, get_args(Format))
    return format  # type: ignore[return-value]


def _metadata(estimator: Any, graph: Graph) -> dict[str, Any]:
    """Everything a reader of the file has to know, as plain values; what a kind does not have is None."""
    title = (MODELS.get(getattr(estimator, "_architecture", estimator.model)) or DETECTORS[estimator.model]).title
    empty = dict.fromkeys(("context_length", "horizon", "quantiles", "classes", "threshold"))
    trained_on = getattr(estimator, "channels_", None)
    n_channels = graph.inputs["values"].axes[1]
    numbered = [f"channel_{i}" for i in range(n_channels)] if isinstance(n_channels, int) else []
    return {
        "format": FORMAT, "format_version": FORMAT_VERSION, "prismts_version": __version__,
        "torch_version": torch.__version__, "name": f"{type(estimator).__name__}: {title}",
        "estimator": type(estimator).__name__, "model": estimator.model, "setting": getattr(estimator, "setting", None),
        "channels": numbered if trained_on is None else list(trained_on),
        "frequency": getattr(estimator, "frequency_", None), "data_hash": getattr(estimator, "data_hash_", None),
        "series_names": [], **empty, **graph.described(),
    }  # fmt: skip


def _write_pt2(graph: Graph, path: Path, metadata: dict[str, str]) -> None:
    with quiet():
        program = torch.export.export(graph.module, graph.example, dynamic_shapes=dynamic_axes(graph))
        whole = {name: json.loads(text) for name, text in metadata.items()}
        text = json.dumps(whole, ensure_ascii=False, indent=1)
        torch.export.save(program, path, extra_files={_PT2_METADATA: text})


def _onnx_answer(path: Path) -> Answer:
    from prismts.serving.runtime import OnnxModel

    model = OnnxModel(path, n_threads=1)

    def answer(values: NDArray[np.floating], series: NDArray[np.int64] | None) -> dict[str, NDArray[Any]]:
        return model.run(values) if series is None else model.run(values, series=series)

    return answer


def _pt2_answer(path: Path, graph: Graph) -> Answer:
    with quiet():
        # guards hold back a batch of one, which answers rightly, as the check sees
        module = torch.export.load(path).module(check_guards=False)

    def answer(values: NDArray[np.floating], series: NDArray[np.int64] | None) -> dict[str, NDArray[Any]]:
        inputs = [torch.from_numpy(values).to(graph.example[0].dtype)]
        inputs += [] if series is None else [torch.from_numpy(series)]
        with torch.no_grad():
            found: Any = module(*inputs)
        found = found if isinstance(found, tuple) else (found,)
        return {name: one.numpy() for name, one in zip(graph.outputs, found, strict=False)}

    return answer


def _check(estimator: Any, graph: Graph, answer: Answer) -> None:
    """Raise unless the file answers as the estimator does, on windows with and without gaps."""
    for what, difference in differences(estimator, graph, answer):
        if not difference <= TOLERANCE:
            raise DataError(
                f"The exported graph does not answer as the {type(estimator).__name__} does: on {what} they differ by "
                f"{difference:.2g} of the answer's scale, and {TOLERANCE:g} is allowed. Nothing was written. Please "
                "report this with the model folder."
            )
