"""Whether a graph keeps sherpa-onnx's contract. The client itself does not say: what does not fit
ends its process, or is read as something else.

N streams, utterances or hypotheses; D numbers per frame: a CTC head's vocabulary, or the channels
of a transducer's joiner; K tokens of context, V vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple

import onnx

from dualasr_lib.export.contract import NUM_FEATURES, contract_of

__all__ = ["check_decoder", "check_full", "check_joiner", "check_streaming"]

_FLOAT, _INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
_NEWEST_OPSET = 17

Shape = tuple[int | None, ...]
"""None: an axis that is free."""


class _Port(NamedTuple):
    name: str
    dtype: int
    shape: Shape


def check_streaming(model: onnx.ModelProto, width: int) -> None:
    """Of a streaming CTC model or encoder, D = `width`: order, types and shapes of all tensors, and
    the metadata.

    Raises:
        ValueError: what must hold, and what came.
    """
    _check_opset(model)
    contract = contract_of({entry.key: entry.value for entry in model.metadata_props})
    if contract.shift % 4 or not 0 < contract.shift <= contract.window:
        raise ValueError(
            "`decode_chunk_len` must be a multiple of 4 and at most `T`, but they are "
            f"{contract.shift} and {contract.window}"
        )
    states = []
    for state in contract.states():
        shape: list[int | None] = list(state.shape)
        shape[state.batch_axis] = None
        dtype = _INT64 if state.name == "processed_lens" else _FLOAT
        states.append(_Port(state.name, dtype, tuple(shape)))
    x = _Port("x", _FLOAT, (None, contract.window, NUM_FEATURES))
    scores = _Port("frames", _FLOAT, (None, contract.output_frames, width))
    _compare("input", model.graph.input, [x, *states])
    _compare("output", model.graph.output, [scores, *states])


def check_full(model: onnx.ModelProto, width: int) -> None:
    """Of an offline CTC model or encoder, D = `width`: order, types and shapes.

    Raises:
        ValueError: what must hold, and what came.
    """
    _check_opset(model)
    x, lens = _Port("x", _FLOAT, (None, None, NUM_FEATURES)), _Port("x_lens", _INT64, (None,))
    scores = _Port("frames", _FLOAT, (None, None, width))
    _compare("input", model.graph.input, [x, lens])
    _compare("output", model.graph.output, [scores, _Port("frames_len", _INT64, (None,))])


def check_decoder(model: onnx.ModelProto, width: int) -> None:
    """Of a transducer's decoder, D = `width`; `check_joiner` compares the vocabulary.

    Raises:
        ValueError: what must hold, and what came.
    """
    _check_opset(model)
    context = _whole_number(model, "context_size")
    _whole_number(model, "vocab_size")
    _compare("input", model.graph.input, [_Port("y", _INT64, (None, context))])
    _compare("output", model.graph.output, [_Port("decoder_out", _FLOAT, (None, width))])


def check_joiner(model: onnx.ModelProto, width: int, vocab_size: int) -> None:
    """Of a transducer's joiner, D = `width`.

    Raises:
        ValueError: what must hold, and what came.
    """
    _check_opset(model)
    parts = [_Port(name, _FLOAT, (None, width)) for name in ("encoder_out", "decoder_out")]
    _compare("input", model.graph.input, parts)
    _compare("output", model.graph.output, [_Port("logit", _FLOAT, (None, vocab_size))])


def _whole_number(model: onnx.ModelProto, key: str) -> int:
    found = {entry.key: entry.value for entry in model.metadata_props}.get(key, "nothing")
    if not found.isdecimal() or int(found) < 1:
        raise ValueError(f"the metadata must have a whole number `{key}`, but have {found}")
    return int(found)


def _check_opset(model: onnx.ModelProto) -> None:
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if max(versions) > _NEWEST_OPSET:
        raise ValueError(f"the opset must be at most {_NEWEST_OPSET}, but is {max(versions)}")


def _compare(kind: str, found: Sequence[onnx.ValueInfoProto], wanted: Sequence[_Port]) -> None:
    """By order, as the client does; names are free."""
    if len(found) != len(wanted):
        raise ValueError(f"there must be {len(wanted)} {kind}s, but there are {len(found)}")
    for number, (value, port) in enumerate(zip(found, wanted)):
        tensor = value.type.tensor_type
        shape = tuple(
            axis.dim_value if axis.HasField("dim_value") else None for axis in tensor.shape.dim
        )
        if (tensor.elem_type, shape) != (port.dtype, port.shape):
            raise ValueError(
                f"{kind} {number} must be {port.name}, {_said(port.dtype, port.shape)}, but is "
                f"{value.name}, {_said(tensor.elem_type, shape)}"
            )


def _said(dtype: int, shape: Shape) -> str:
    sizes = ", ".join("N" if size is None else str(size) for size in shape)
    return f"{onnx.TensorProto.DataType.Name(dtype).lower()} ({sizes})"
