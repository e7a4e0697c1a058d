"""The graph of a branch, whatever head reads it, in sherpa-onnx's contract.

Letters: N streams or utterances, T feature frames, S encoder frames.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dualasr_lib.core.rates import ENCODER_STRIDE, FEATURES_PER_ENCODER_FRAME, FRONT_END_STRIDE
from dualasr_lib.export.contract import NUM_FEATURES, StateTensor, StreamingContract
from dualasr_lib.export.graph import Feeds, Signature, traced, with_fixed_sizes
from dualasr_lib.export.modules import FullBranch, StreamingBranch
from dualasr_lib.export.probe import Graph, Noise, Probe
from dualasr_lib.model.zipformer.band import whole_blocks
from dualasr_lib.model.zipformer.convolution import BLOCK
from dualasr_lib.model.zipformer.streaming import ChunkSpec
from dualasr_lib.recognition.trained_model import TrainedModel

__all__ = ["full_encoder", "initial_states", "sizes_that_matter", "streaming_encoder"]

_BATCHES = (1, 2, 3)
"""Numbers of streams that show what depends on it."""
_LONG = (1333, 2502)
"""Feature frames beyond all blocks; the last is traced. It is no multiple of anything."""
_PROBED = ((1, 9), (10, 60), (64, 64), (60, 250), (250, 500), (500, 900), (900, 1300), (3000, 4000))
"""Between which lengths, in feature frames, utterances for the comparison with torch are drawn."""


def streaming_encoder(
    trained: TrainedModel, chunk: ChunkSpec, reads: nn.Module, output: str
) -> Graph:
    """The streaming branch, one chunk a call: inputs x and states; outputs `output`, as `reads`
    makes it of encoder frames, and states.

    Raises:
        ValueError: no streaming branch, or a chunk that does not suit the model.
    """
    module = StreamingBranch(trained, chunk, reads).eval()
    contract = module.layout.contract
    states = contract.states()
    names = [state.name for state in states]
    free = {state.name: {state.batch_axis: "N"} for state in states}
    signature = Signature(
        inputs=("x", *names),
        outputs=(output, *(f"new_{name}" for name in names)),
        axes={
            "x": {0: "N"},
            output: {0: "N"},
            **free,
            **{f"new_{name}": axes for name, axes in free.items()},
        },
    )
    metadata = {"model_type": "zipformer2", **contract.metadata()}
    model = traced(module, _example(contract, 2), signature, metadata)
    feeds = [_feeds(signature.inputs, _example(contract, batch)) for batch in _BATCHES]
    noise = Noise()
    assert chunk.left is not None
    chunks = 2 + chunk.left // chunk.frames  # until all caches are full
    probes = [
        Probe(
            tuple((noise.features(batch, contract.window),) for _ in range(chunks)),
            tuple(initial_states(contract, batch)),
        )
        for batch in _BATCHES
    ]
    return Graph(with_fixed_sizes(model, feeds), module, tuple(probes))


def full_encoder(trained: TrainedModel, chunk: ChunkSpec, reads: nn.Module, output: str) -> Graph:
    """The full branch on whole utterances: x and x_lens -> `output`, as `reads` makes it of encoder
    frames, and `output`_len.

    Raises:
        ValueError: no full branch, or a chunk that does not suit the model.
    """
    module = FullBranch(trained, chunk, reads).eval()
    signature = Signature(
        inputs=("x", "x_lens"),
        outputs=(output, f"{output}_len"),
        axes={
            "x": {0: "N", 1: "T"},
            "x_lens": {0: "N"},
            output: {0: "N", 1: "S"},
            f"{output}_len": {0: "N"},
        },
    )
    # `model_type` is what tools recognise this kind of encoder by; the client does not read it
    metadata = {"model_type": f"zipformer2{'_ctc' if output == 'log_probs' else ''}"}
    model = traced(module, _utterances(2, _LONG[-1]), signature, metadata)
    feeds = [
        _feeds(signature.inputs, _utterances(batch, frames))
        for batch, frames in sizes_that_matter(trained, chunk)
    ]
    noise = Noise()
    sizes = [(2 + i % 3, noise.length(*span)) for i, span in enumerate(_PROBED)]
    probes = [Probe((noise.utterances(batch, frames),)) for batch, frames in sizes]
    return Graph(with_fixed_sizes(model, feeds), module, tuple(probes))


def initial_states(contract: StreamingContract, batch: int) -> list[Tensor]:
    """What the client hands over with the first chunk."""
    return [_zeros(state, batch) for state in contract.states()]


def sizes_that_matter(trained: TrainedModel, chunk: ChunkSpec) -> list[tuple[int, int]]:
    """(utterances, feature frames) of the runs that show which sizes depend on them.

    Sizes are computed from lengths by sums, products, whole divisions, remainders, and the smaller
    or the larger of two. Remainders repeat after the length in which all blocks of a model fit, so
    that a full round of encoder frames shows each of them; what grows or shrinks does so between
    the shortest and the longest.
    """
    stacks = trained.config.model.full
    slowest = max(config.downsampling for config in stacks)
    at_50_hz = math.lcm(whole_blocks(chunk), ENCODER_STRIDE * slowest * BLOCK)
    round_ = FRONT_END_STRIDE * at_50_hz
    stride = FEATURES_PER_ENCODER_FRAME
    every = [*range(1, 2 * stride), *range(2 * stride, round_ + stride, stride)]
    odd = [frames + 1 + frames // stride % (stride - 1) for frames in every[2 * stride :: 4]]
    return [(1, frames) for frames in every + odd] + [
        (batch, frames) for batch in _BATCHES for frames in (every[-1] + 3, *_LONG)
    ]


def _zeros(state: StateTensor, batch: int) -> Tensor:
    shape = list(state.shape)
    shape[state.batch_axis] = batch
    dtype = torch.int64 if state.name == "processed_lens" else torch.float32
    return torch.zeros(shape, dtype=dtype)


def _example(contract: StreamingContract, batch: int) -> tuple[Tensor, ...]:
    return (torch.zeros(batch, contract.window, NUM_FEATURES), *initial_states(contract, batch))


def _utterances(batch: int, frames: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(batch, frames, NUM_FEATURES), torch.full((batch,), frames)


def _feeds(names: Sequence[str], tensors: Sequence[Tensor]) -> Feeds:
    return {name: tensor.numpy() for name, tensor in zip(names, tensors)}
