"""A module as an ONNX graph: traced, its arithmetic on sizes computed once, made int8.

A tracer follows every size that the model's code asks for: nine tenths of the nodes of a fresh
graph compute lengths that never change. `with_fixed_sizes` runs the graph at some sizes of its free
axes and writes what was the same each time into the file.
"""

import inspect
import logging
import tempfile
import warnings
from collections.abc import Collection, Mapping, Sequence
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
Shape = tuple[int, ...]


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


def session(model: onnx.ModelProto | bytes, optimise: bool = True) -> onnxruntime.InferenceSession:
    """Something that runs a graph, or what a file of it holds, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what fails is raised
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = model if isinstance(model, bytes) else model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def with_fixed_sizes(model: onnx.ModelProto, feeds: Sequence[Feeds]) -> onnx.ModelProto:
    """`model` without arithmetic on sizes that `feeds`, inputs of different sizes, agree on.

    A reshape whose results differ in one place gets -1 there; what differs otherwise stays as it
    is. The outputs' sizes are declared in the same way.
    """
    graph = model.graph
    sizes = _of_sizes(graph)
    reshapes = [node for node in graph.node if node.op_type == "Reshape" and node.input[1] in sizes]
    others = _read_by_others(graph, sizes)
    outputs = [output.name for output in graph.output]
    shaped = [*outputs, *(name for node in reshapes for name in (node.input[0], node.output[0]))]
    values, shapes = _seen(model, feeds, others, shaped)
    known = {name: found[0] for name, found in values.items() if _same(found)}
    targets = {}
    for node in reshapes:
        shape = _one_free(shapes[node.output[0]])
        if shape is not None:
            targets[node.output[0]] = np.array(shape, dtype=np.int64)
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    _replace(fixed.graph, known, targets)
    _drop_idle_reshapes(fixed.graph, shapes, targets)
    _drop_unread(fixed.graph)
    for output in fixed.graph.output:
        _declare(output, shapes[output.name])
    onnx.checker.check_model(fixed)
    return fixed


def _seen(
    model: onnx.ModelProto, feeds: Sequence[Feeds], values: Sequence[str], shaped: Sequence[str]
) -> tuple[dict[str, list["np.ndarray[Any, Any]"]], dict[str, list[Shape]]]:
    """Of each run the values called `values`, and the shapes of those called `shaped`."""
    inputs = {port.name for port in model.graph.input}
    outputs = [output.name for output in model.graph.output]
    names = list(dict.fromkeys((*outputs, *values, *shaped)))
    names = [name for name in names if name not in inputs]
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in names if name not in outputs
    )
    running = session(probe, optimise=False)
    wanted = set(values)
    found: dict[str, list[np.ndarray[Any, Any]]] = {name: [] for name in values}
    shapes: dict[str, list[Shape]] = {name: [] for name in (*names, *inputs)}
    for feed in feeds:
        for name, value in (*zip(names, running.run(names, dict(feed))), *feed.items()):
            shapes[name].append(value.shape)
            if name in wanted:
                found[name].append(value)
    return found, shapes


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
                source,
                target,
                op_types_to_quantize=["MatMul"],
                weight_type=QuantType.QInt8,
                per_channel=True,
                nodes_to_exclude=_small_products(model.graph),
            )
        finally:
            logging.disable(logging.NOTSET)
        return onnx.load(target)


def _small_products(graph: onnx.GraphProto) -> list[str]:
    """Names of products with many small matrices, which are not worth it: of convolutions and
    positions, not of linear layers.
    """
    many = {init.name for init in graph.initializer if len(init.dims) > 2}
    return [node.name for node in graph.node if node.op_type == "MatMul" and many & set(node.input)]


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


def _read_by_others(graph: onnx.GraphProto, sizes: set[str]) -> list[str]:
    """Those of `sizes` that other values are computed from, shapes of reshapes apart."""
    uses: dict[str, None] = {}
    for node in graph.node:
        if all(name in sizes for name in node.output):
            continue
        for place, name in enumerate(node.input):
            if name in sizes and (node.op_type, place) != ("Reshape", 1):
                uses[name] = None
    return list(uses)


def _same(values: Sequence["np.ndarray[Any, Any]"]) -> bool:
    return all(np.array_equal(value, values[0]) for value in values)


def _one_free(shapes: Sequence[Shape]) -> Shape | None:
    """The shape that all are, -1 in the one place where they differ; None if there are more."""
    if any(0 in shape or len(shape) != len(shapes[0]) for shape in shapes):
        return None
    shape = tuple(sizes[0] if len(set(sizes)) == 1 else -1 for sizes in zip(*shapes))
    return shape if shape.count(-1) < 2 else None


def _declare(output: onnx.ValueInfoProto, shapes: Sequence[Shape]) -> None:
    """The sizes of an output that were the same in all runs; the tracer loses some of them."""
    for place, sizes in enumerate(zip(*shapes)):
        if len(set(sizes)) == 1:
            output.type.tensor_type.shape.dim[place].dim_value = sizes[0]


def _replace(
    graph: onnx.GraphProto,
    known: Mapping[str, "np.ndarray[Any, Any]"],
    shapes: Mapping[str, "np.ndarray[Any, Any]"],
) -> None:
    """Constants for `known` and for the shapes of reshapes, by what these give."""
    constants = {f"{name}_fixed": value for name, value in known.items()}
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name in known:
                node.input[place] = f"{name}_fixed"
        if node.op_type == "Reshape" and node.output[0] in shapes:
            node.input[1] = f"{node.output[0]}_shape"
            constants[node.input[1]] = shapes[node.output[0]]
    graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(value), name)
        for name, value in constants.items()
    )


def _drop_idle_reshapes(
    graph: onnx.GraphProto, shapes: Mapping[str, Sequence[Shape]], targets: Collection[str]
) -> None:
    """A reshape of a reshape reads what that one read; one that gives what it read is left out.

    Args:
        targets: outputs of reshapes whose shape is a constant without 0, which depends on nothing
            but the number of values.
    """
    made = {name: node for node in graph.node for name in node.output}
    outputs = {output.name for output in graph.output}
    same: dict[str, str] = {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = same.get(name, name)
        if node.op_type != "Reshape" or node.output[0] not in targets:
            continue
        before = made.get(node.input[0])
        if before is not None and before.op_type == "Reshape":
            node.input[0] = before.input[0]
        source = shapes.get(node.input[0])
        if source == shapes[node.output[0]] and node.output[0] not in outputs:
            same[node.output[0]] = node.input[0]


def _drop_unread(graph: onnx.GraphProto) -> None:
    """What is computed in vain."""
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
