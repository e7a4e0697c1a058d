"""A module as an ONNX graph: traced, its arithmetic on sizes computed once, made int8.

A tracer follows every size that the model's code asks for: nine tenths of the nodes of a fresh
graph compute lengths that never change. `with_fixed_sizes` runs the graph at some sizes of its free
axes and writes what was the same each time into the file.
"""

import inspect
import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from torch import Tensor, nn

__all__ = ["OPSET", "Feeds", "Signature", "quantised", "session", "traced", "with_fixed_sizes"]

OPSET = 17
"""What sherpa-onnx and both lanes' exporters have in common."""

Feeds = Mapping[str, "np.ndarray[Any, Any]"]


class Signature(NamedTuple):
    """Names of a graph's inputs and outputs, and which of their axes are free."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    axes: Mapping[str, Mapping[int, str]]
    """Input or output -> free axis -> its name."""


def traced(
    module: nn.Module, example: Sequence[Tensor], signature: Signature, metadata: Mapping[str, str]
) -> onnx.ModelProto:
    """The graph of `module`, with metadata."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.onnx")
        options: dict[str, Any] = {}
        if "dynamo" in inspect.signature(torch.onnx.export).parameters:
            options["dynamo"] = False  # the other exporter writes opset 18 and later
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # sizes that it takes for constants: they are
            torch.onnx.export(
                module,
                tuple(example),
                path,
                input_names=list(signature.inputs),
                output_names=list(signature.outputs),
                dynamic_axes={name: dict(axes) for name, axes in signature.axes.items()},
                opset_version=OPSET,
                **options,
            )
        model = onnx.load(path)
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    return model


def session(model: onnx.ModelProto, optimise: bool = True) -> onnxruntime.InferenceSession:
    """Something that runs a graph, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def with_fixed_sizes(model: onnx.ModelProto, feeds: Sequence[Feeds]) -> onnx.ModelProto:
    """`model` without arithmetic on sizes that `feeds`, inputs of different sizes, agree on.

    A shape that differs in one place becomes -1 there. What differs otherwise stays as it is. The
    outputs' sizes are declared in the same way.
    """
    graph = model.graph
    wanted = _read_by_others(graph, _of_sizes(graph))
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    running = session(probe, optimise=False)
    outputs = [output.name for output in graph.output]
    seen = [running.run([*outputs, *wanted], dict(feed)) for feed in feeds]
    runs = list(zip(*seen))  # a value of each run, for each name
    known = {}
    for name, values in zip(wanted, runs[len(outputs) :]):
        value = _agreed(values, wanted[name])
        if value is not None:
            known[name] = value
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    _replace(fixed.graph, known)
    for output, values in zip(fixed.graph.output, runs):
        _declare(output, [value.shape for value in values])
    onnx.checker.check_model(fixed)
    return fixed


def quantised(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with the weights of its matrix products as int8; what they are multiplied with is
    rounded when it is known.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        logging.disable(logging.WARNING)  # it tells, node by node, what stays as it is
        try:
            quantize_dynamic(
                source, target, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8
            )
        finally:
            logging.disable(logging.NOTSET)
        return onnx.load(target)


def _of_sizes(graph: onnx.GraphProto) -> set[str]:
    """Names of values that depend on sizes and constants only: whole numbers, or made of them."""
    whole = (onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL)
    known = {init.name for init in graph.initializer if init.data_type in whole}
    constants = set(known)
    found: set[str] = set()
    for node in graph.node:
        if node.op_type == "Constant":
            constants.update(node.output)
        elif node.op_type == "Shape":
            found.update(node.output)
        elif node.input and all(name in constants or name in found for name in node.input if name):
            fresh = found if any(name in found for name in node.input) else constants
            fresh.update(node.output)
    return found | (constants - known - _constant_outputs(graph))


def _constant_outputs(graph: onnx.GraphProto) -> set[str]:
    return {name for node in graph.node if node.op_type == "Constant" for name in node.output}


def _read_by_others(graph: onnx.GraphProto, sizes: set[str]) -> dict[str, list[tuple[str, int]]]:
    """Those of `sizes` that other values are computed from -> (operation, place) of each use."""
    uses: dict[str, list[tuple[str, int]]] = {}
    for node in graph.node:
        if all(name in sizes for name in node.output):
            continue
        for place, name in enumerate(node.input):
            if name in sizes:
                uses.setdefault(name, []).append((node.op_type, place))
    return uses


def _agreed(
    values: Sequence["np.ndarray[Any, Any]"], uses: Sequence[tuple[str, int]]
) -> "np.ndarray[Any, Any] | None":
    """What all values are, -1 in the one place of a shape where they differ; None otherwise."""
    first = values[0]
    if any(value.shape != first.shape for value in values):
        return None
    differ = np.any([value != first for value in values], axis=0)
    if not differ.any():
        return first
    is_shape = all(use == ("Reshape", 1) for use in uses)
    if not is_shape or differ.sum() > 1 or (first == -1).any():
        return None
    return np.where(differ, -1, first)


def _declare(output: onnx.ValueInfoProto, shapes: Sequence[tuple[int, ...]]) -> None:
    """The sizes of an output that were the same in all runs; the tracer loses some of them."""
    for place, sizes in enumerate(zip(*shapes)):
        if len(set(sizes)) == 1:
            output.type.tensor_type.shape.dim[place].dim_value = sizes[0]


def _replace(graph: onnx.GraphProto, known: Mapping[str, "np.ndarray[Any, Any]"]) -> None:
    """Constants for `known`, and nothing that then is computed in vain."""
    rename = {name: f"{name}_fixed" for name in known}
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name in rename:
                node.input[place] = rename[name]
    graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(value), rename[name])
        for name, value in known.items()
    )
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if any(name in needed for name in node.output):
            needed.update(node.input)
            kept.append(node)
    used = [init for init in graph.initializer if init.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(used)
    del graph.value_info[:]
