"""A graph written as ONNX: torch's exporter, what it lacks, class labels, and everything the file says of itself."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import torch

from prismts.errors import MissingExtraError
from prismts.serving.graph import Graph

__all__ = ["dynamic_axes", "quiet", "write_onnx"]

OPSET = 20
LONGEST = 2**24  # steps and rows that an axis of any size may have


def write_onnx(graph: Graph, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a graph to this place, with ``metadata`` as the file's own properties."""
    try:
        import onnx
        import onnxscript
    except ImportError as error:
        raise MissingExtraError(
            f"Writing ONNX needs onnx, onnxscript and onnxruntime ({error}). Install them with: pip install "
            "'prismts[export]'."
        ) from error
    old = tuple(int(part) for part in onnxscript.__version__.split(".")[:3] if part.isdigit()) < (0, 7, 1)
    if old:
        raise MissingExtraError(
            f"onnxscript {onnxscript.__version__} writes a wrong GRU without a word; 0.7.1 and later are right. "
            "Upgrade it: pip install -U 'prismts[export]'."
        )
    with quiet():
        program = torch.onnx.export(
            graph.module, graph.example, dynamo=True, verbose=False, opset_version=OPSET,
            input_names=list(graph.inputs), output_names=list(graph.outputs),
            dynamic_shapes=dynamic_axes(graph), custom_translation_table=_translations(),
        )  # fmt: skip
    assert program is not None
    model: Any = program.model_proto
    for node in [*model.graph.node, *(node for function in model.functions for node in function.node)]:
        del node.metadata_props[:]  # lines of code, with the paths of this machine
        node.doc_string = ""
    labels = graph.facts.get("classes")
    if labels is not None:
        _add_labels(model, labels)
    for name, text in metadata.items():
        model.metadata_props.add(key=name, value=text)
    model.producer_name, model.producer_version = "prismts", json.loads(metadata["prismts_version"])
    model.doc_string = json.loads(metadata["name"])
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def dynamic_axes(graph: Graph) -> tuple[dict[int, Any], ...]:
    """Which axes of each input may have any size, in the words of ``torch.export``."""
    dims: dict[str, Any] = {
        "batch": torch.export.Dim("batch", min=1, max=LONGEST),
        "channel": torch.export.Dim("channel", min=1, max=LONGEST),
    }
    if not graph.time.exact:
        dims["time"] = torch.export.Dim("time", min=graph.time.min, max=graph.time.max or LONGEST)
    return tuple(
        {i: dims[axis] for i, axis in enumerate(port.axes) if isinstance(axis, str)} for port in graph.inputs.values()
    )


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """For the time of an export: without the exporters' remarks on themselves; whether it is right is measured."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _translations() -> dict[Any, Any]:
    """What torch's exporter has no words for: running maxima and minima over the last axis, of a length that is known.

    Neighbors at a distance of 1, 2, 4 ... steps are compared, so that all of T steps take the logarithm of T rounds.
    """
    from onnxscript import opset20

    op: Any = opset20  # its types know constants as tensors only

    def running(x: Any, dim: int, larger: Any) -> tuple[Any, Any]:
        axis, n = dim % len(x.shape), x.shape[dim]
        kind, x = x.dtype, op.Cast(x, to=1)  # places are exact in single precision, which is compared much faster
        assert isinstance(n, int), "the layers run over windows of a known length"
        step = 1
        while step < n:
            head = op.Slice(x, [0], [step], [axis])
            both = larger(op.Slice(x, [step], [n], [axis]), op.Slice(x, [0], [n - step], [axis]))
            x, step = op.Concat(head, both, axis=axis), 2 * step
        x = op.Cast(x, to=kind)
        return x, x  # the second would be places, which no layer asks for

    def running_maximum(self: Any, dim: int) -> tuple[Any, Any]:
        return running(self, dim, op.Max)

    def running_minimum(self: Any, dim: int) -> tuple[Any, Any]:
        return running(self, dim, op.Min)

    aten = torch.ops.aten
    return {aten.cummax.default: running_maximum, aten.cummin.default: running_minimum}


def _add_labels(model: Any, labels: list[Any]) -> None:
    """Let the graph name its class too: the output ``label`` is looked up by the output ``class``."""
    from onnx import TensorProto
    from onnx import helper as makes

    helper: Any = makes  # its types know numbers only, and not text

    kind = {bool: TensorProto.BOOL, int: TensorProto.INT64, float: TensorProto.DOUBLE}.get(
        type(labels[0]), TensorProto.STRING
    )
    known = [str(label).encode() for label in labels] if kind == TensorProto.STRING else labels
    model.graph.initializer.append(helper.make_tensor("labels", kind, [len(labels)], known))
    model.graph.node.append(helper.make_node("Gather", ["labels", "class"], ["label"], name="label_of_class"))
    model.graph.output.append(helper.make_tensor_value_info("label", kind, ["batch"]))
