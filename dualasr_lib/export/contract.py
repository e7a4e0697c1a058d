"""What sherpa-onnx asks of a streaming Zipformer2 model: of a CTC model and of a transducer's
encoder alike.

It makes the states of a stream itself, as zeros, from the metadata alone, and hands them over by
order: x, six tensors for each layer, the front end's state, the frames processed. Stated here once,
for whoever writes a model and for whoever checks one. Source: sherpa-onnx 2.0.1,
online-zipformer2-ctc-model.cc (Apache-2.0; read, not copied).

Letters: N streams, L cached frames, C channels of a layer, K its kernel, H heads, V vocabulary.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

__all__ = [
    "EMBED_SHAPE",
    "EMBED_SIZE",
    "LAYER_STATES",
    "NUM_FEATURES",
    "StackShape",
    "StateTensor",
    "StreamingContract",
    "contract_of",
]

NUM_FEATURES = 80
EMBED_SHAPE = (128, 3, 19)
"""Of the front end's state, whatever the front end: written into the client."""
EMBED_SIZE = math.prod(EMBED_SHAPE)
LAYER_STATES = 6
"""State tensors of a layer."""


class StackShape(NamedTuple):
    """Sizes of the layers of one stack, as the client wants to know them."""

    layers: int
    dim: int
    """C."""
    heads: int
    query_head_dim: int
    value_head_dim: int
    kernel: int
    """K; K // 2 frames are cached."""
    left: int
    """L, at the stack's own frame rate."""


class StateTensor(NamedTuple):
    """One input beside x, and the output that follows from it."""

    name: str
    shape: tuple[int, ...]
    """For one stream."""
    batch_axis: int


class StreamingContract(NamedTuple):
    """All that the client reads of a streaming model."""

    window: int
    """Feature frames of a call."""
    shift: int
    """Feature frames by which the next call begins later; four make an output frame."""
    stacks: tuple[StackShape, ...]

    @property
    def output_frames(self) -> int:
        """Frames of log-probabilities of a call: the client counts 40 ms for each."""
        return self.shift // 4

    @property
    def first_result_ms(self) -> int:
        """Audio before the first call: the client waits for one frame more than a window, and the
        last frame's analysis window reaches 15 ms beyond it.
        """
        return 10 * (self.window + 3)

    @property
    def tail_ms(self) -> int:
        """Silence to feed at the end: it brings out the last frame that was spoken and a whole
        chunk behind it, as a token is often said a little later than it is heard, and the client
        leaves an incomplete chunk undecoded.
        """
        return self.first_result_ms + 10 * self.shift

    def states(self) -> list[StateTensor]:
        """The state tensors in the order of the client."""
        layers = [stack for stack in self.stacks for _ in range(stack.layers)]
        found = [state for number, stack in enumerate(layers) for state in _layer(number, stack)]
        found.append(StateTensor("embed_states", (1, *EMBED_SHAPE), 0))
        found.append(StateTensor("processed_lens", (1,), 0))
        return found

    def metadata(self) -> dict[str, str]:
        """What a file must say; a key that is missing ends the client's process."""

        def row(name: str) -> str:
            return ",".join(str(getattr(stack, name)) for stack in self.stacks)

        named = {key: row(field) for key, field in _KEYS.items()}
        return {"T": str(self.window), "decode_chunk_len": str(self.shift), **named}


_KEYS = {
    "num_encoder_layers": "layers",
    "encoder_dims": "dim",
    "num_heads": "heads",
    "query_head_dims": "query_head_dim",
    "value_head_dims": "value_head_dim",
    "cnn_module_kernels": "kernel",
    "left_context_len": "left",
}


def contract_of(metadata: Mapping[str, str]) -> StreamingContract:
    """What metadata say.

    Raises:
        ValueError: a key is missing, no list of whole numbers, or a list of another length.
    """

    def numbers(key: str) -> list[int]:
        if key not in metadata:
            raise ValueError(f"the metadata must have `{key}`, but have not")
        try:
            found = [int(part) for part in metadata[key].split(",")]
        except ValueError:
            raise ValueError(f"`{key}` must be whole numbers, but is {metadata[key]!r}") from None
        if min(found) < 0:
            raise ValueError(f"`{key}` must not be negative, but is {metadata[key]!r}")
        return found

    columns = {field: numbers(key) for key, field in _KEYS.items()}
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise ValueError(f"lists must have a number for each stack, but have {sorted(lengths)}")
    rows: Sequence[tuple[int, ...]] = list(zip(*columns.values()))
    stacks = tuple(StackShape(**dict(zip(columns, row))) for row in rows)
    return StreamingContract(numbers("T")[0], numbers("decode_chunk_len")[0], stacks)


def _layer(number: int, stack: StackShape) -> list[StateTensor]:
    left, values = stack.left, stack.heads * stack.value_head_dim
    convolution = (1, stack.dim, stack.kernel // 2)
    shapes = {
        "cached_key": ((left, 1, stack.heads * stack.query_head_dim), 1),
        "cached_nonlin_attn": ((1, 1, left, 3 * stack.dim // 4), 1),
        "cached_val1": ((left, 1, values), 1),
        "cached_val2": ((left, 1, values), 1),
        "cached_conv1": (convolution, 0),
        "cached_conv2": (convolution, 0),
    }
    return [StateTensor(f"{name}_{number}", *shape) for name, shape in shapes.items()]
