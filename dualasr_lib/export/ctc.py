"""Branches with their CTC heads as graphs that keep sherpa-onnx's contract.

Letters: N streams, T feature frames, V vocabulary.
"""

from collections.abc import Sequence

import onnx
import torch
from torch import Tensor

from dualasr_lib.export.contract import NUM_FEATURES, StateTensor, StreamingContract
from dualasr_lib.export.graph import Feeds, Signature, traced, with_fixed_sizes
from dualasr_lib.export.lint import check_full, check_streaming
from dualasr_lib.export.modules import FullCtc, StreamingCtc
from dualasr_lib.model.zipformer.streaming import ChunkSpec
from dualasr_lib.recognition.trained_model import TrainedModel

__all__ = ["full_ctc", "initial_states", "streaming_ctc"]

_SIZES = (2, 3)
"""Streams of the runs that show what depends on their number."""
_LENGTHS = (1, 9, 34, 83, 180, 377, 702, 1333, 2502)
"""Feature frames of the utterances that show what depends on their length: odd and even at every
frame rate, shorter and longer than whatever works on blocks. The last is traced."""


def streaming_ctc(trained: TrainedModel, chunk: ChunkSpec) -> onnx.ModelProto:
    """The streaming branch, one chunk a call: sherpa-onnx's online zipformer2 CTC.

    Raises:
        ValueError: no streaming branch, no CTC head, a chunk that does not suit the model, or
            features that the client does not compute.
    """
    module = StreamingCtc(trained, chunk).eval()
    contract = module.layout.contract
    states = contract.states()
    names = [state.name for state in states]
    free = {state.name: {state.batch_axis: "N"} for state in states}
    signature = Signature(
        inputs=("x", *names),
        outputs=("log_probs", *(f"new_{name}" for name in names)),
        axes={
            "x": {0: "N"},
            "log_probs": {0: "N"},
            **free,
            **{f"new_{name}": axes for name, axes in free.items()},
        },
    )
    metadata = {"model_type": "zipformer2", **contract.metadata()}
    model = traced(module, _example(contract, _SIZES[0]), signature, metadata)
    feeds = [_feeds(signature.inputs, _example(contract, size)) for size in _SIZES]
    model = with_fixed_sizes(model, feeds)
    check_streaming(model, trained.tokenizer.vocab_size)
    return model


def full_ctc(trained: TrainedModel, chunk: ChunkSpec) -> onnx.ModelProto:
    """The full branch on whole utterances: sherpa-onnx's offline zipformer CTC.

    Raises:
        ValueError: no full branch, no CTC head, or a chunk that does not suit the model.
    """
    module = FullCtc(trained, chunk).eval()
    signature = Signature(
        inputs=("x", "x_lens"),
        outputs=("log_probs", "log_probs_len"),
        axes={
            "x": {0: "N", 1: "T"},
            "x_lens": {0: "N"},
            "log_probs": {0: "N", 1: "S"},
            "log_probs_len": {0: "N"},
        },
    )
    model = traced(
        module, _utterances(2, _LENGTHS[-1]), signature, {"model_type": "zipformer2_ctc"}
    )
    feeds = [
        _feeds(signature.inputs, _utterances(2 + i % 3, frames))
        for i, frames in enumerate(_LENGTHS)
    ]
    model = with_fixed_sizes(model, feeds)
    check_full(model, trained.tokenizer.vocab_size)
    return model


def initial_states(contract: StreamingContract, batch: int) -> list[Tensor]:
    """What the client hands over with the first chunk."""
    return [_zeros(state, batch) for state in contract.states()]


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
