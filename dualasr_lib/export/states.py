"""Our streaming state <-> the state tensors of sherpa-onnx's contract.

A layer's six tensors are the client's own six in another order of axes. The front end has no such
luck: the client keeps 128 x 3 x 19 numbers for it, which is what the published one needs (future
2, 1, 2, 3). One that hears less of the future remembers more of the past: its numbers are laid end
to end, the first 7,296 go where the client expects them, and the others are the keys of one more
layer that only the metadata know: one head, one cached frame, as many channels as it takes. Its
five other tensors are as small as the client lets them be and pass through.

Letters: N streams, L cached frames, C channels, K kernel.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dualasr_lib.core.rates import FRONT_END_STRIDE
from dualasr_lib.core.tree import leaves, unflatten
from dualasr_lib.export.contract import (
    EMBED_SHAPE,
    EMBED_SIZE,
    LAYER_STATES,
    StackShape,
    StreamingContract,
)
from dualasr_lib.model.encoder import EncoderState, StreamingEncoder
from dualasr_lib.model.zipformer.layer import LayerState
from dualasr_lib.model.zipformer.stacks import StackConfig, ZipformerState
from dualasr_lib.model.zipformer.streaming import ChunkSpec
from dualasr_lib.model.zipformer.subsampling import SubsamplingState

__all__ = ["Layout", "layout_of"]


class Layout(NamedTuple):
    """Where the parts of a stream's state are."""

    contract: StreamingContract
    configs: tuple[StackConfig, ...]
    front: SubsamplingState
    """Of one stream, for its shapes; a convolution that hears all of its future keeps nothing."""

    @property
    def front_size(self) -> int:
        """Numbers in the front end's state."""
        return _size(self.front)

    def pack(self, state: EncoderState, unused: Sequence[Tensor]) -> list[Tensor]:
        """The client's state tensors; `unused` are those that pass through."""
        packed = [
            tensor for stack in state.stacks.layers for layer in stack for tensor in _packed(layer)
        ]
        front = zip(leaves(self.front), leaves(state.subsampling))
        flat = torch.cat([leaf.flatten(1) for (_, like), (_, leaf) in front if like.numel()], dim=1)
        surplus = self.front_size - EMBED_SIZE
        if surplus > 0:
            packed += [flat[None, :, EMBED_SIZE:], *(tensor * 1.0 for tensor in unused)]
        else:
            flat = torch.nn.functional.pad(flat, (0, -surplus))
        embed = flat[:, :EMBED_SIZE].reshape(-1, *EMBED_SHAPE)
        return [*packed, embed, state.stacks.processed]

    def unpack(self, tensors: Sequence[Tensor]) -> tuple[EncoderState, list[Tensor]]:
        """(our state, what passes through) of the client's state tensors."""
        *layers, embed, processed = tensors
        stacks, taken = [], 0
        for config in self.configs:
            count = config.layers * LAYER_STATES
            mine = layers[taken : taken + count]
            groups = [mine[i : i + LAYER_STATES] for i in range(0, count, LAYER_STATES)]
            stacks.append(tuple(_unpacked(group, config) for group in groups))
            taken += count
        flat, unused = embed.flatten(1), layers[taken:]
        if unused:
            flat, unused = torch.cat([flat, unused[0][0]], dim=1), unused[1:]
        pieces, begin = [], 0
        for _, leaf in leaves(self.front):
            size = leaf.numel()
            piece = flat[:, begin : begin + size].reshape(-1, *leaf.shape[1:]) if size else leaf
            pieces.append(piece)
            begin += size
        front = unflatten(self.front, pieces)
        return EncoderState(front, ZipformerState(tuple(stacks), processed)), unused


def layout_of(encoder: StreamingEncoder, chunk: ChunkSpec) -> Layout:
    """The layout of `encoder`'s state at this chunk.

    Raises:
        ValueError: the chunk does not suit the encoder.
    """
    encoder.check(chunk)
    configs = encoder.stacks.configs
    stacks = [_shape(config, chunk) for config in configs]
    front = encoder.subsampling.init_state(1, torch.device("cpu"))
    surplus = _size(front) - EMBED_SIZE
    if surplus > 0:
        stacks.append(StackShape(1, 4, 1, surplus, 1, 3, 1))
    shift = FRONT_END_STRIDE * chunk.frames
    contract = StreamingContract(shift + encoder.lookahead, shift, tuple(stacks))
    return Layout(contract, configs, front)


def _size(front: SubsamplingState) -> int:
    return sum(leaf.numel() for _, leaf in leaves(front))


def _shape(config: StackConfig, chunk: ChunkSpec) -> StackShape:
    layer, left = config.layer, chunk.downsampled(config.downsampling).left
    attention = layer.attention
    return StackShape(
        config.layers, layer.dim, attention.heads, attention.query_head_dim,
        attention.value_head_dim, layer.kernel, left or 0,
    )  # fmt: skip


def _packed(state: LayerState) -> list[Tensor]:
    """In the client's order; ours is the same."""
    key, value1, value2 = (
        cache.flatten(2).transpose(0, 1) for cache in (state.key, state.value1, state.value2)
    )
    nonlinear = state.nonlinear.permute(2, 0, 1, 3)
    return [
        key,
        nonlinear,
        value1,
        value2,
        *(c.transpose(1, 2) for c in (state.conv1, state.conv2)),
    ]


def _unpacked(tensors: Sequence[Tensor], config: StackConfig) -> LayerState:
    key, nonlinear, value1, value2, conv1, conv2 = tensors
    heads = config.layer.attention.heads

    def cache(x: Tensor) -> Tensor:
        return x.transpose(0, 1).reshape(-1, x.shape[0], heads, x.shape[2] // heads)

    return LayerState(
        cache(key),
        nonlinear.permute(1, 2, 0, 3),
        cache(value1),
        cache(value2),
        conv1.transpose(1, 2),
        conv2.transpose(1, 2),
    )
