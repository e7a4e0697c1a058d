"""Branches with their CTC heads as graphs that keep sherpa-onnx's contract."""

from dualasr_lib.export.encoders import full_encoder, streaming_encoder
from dualasr_lib.export.lint import check_full, check_streaming
from dualasr_lib.export.modules import CtcScores
from dualasr_lib.export.probe import Graph
from dualasr_lib.model.zipformer.streaming import ChunkSpec
from dualasr_lib.recognition.trained_model import TrainedModel

__all__ = ["full_ctc", "streaming_ctc"]


def streaming_ctc(trained: TrainedModel, chunk: ChunkSpec) -> Graph:
    """The streaming branch, one chunk a call: sherpa-onnx's online zipformer2 CTC.

    Raises:
        ValueError: no streaming branch, no CTC head, a chunk that does not suit the model, or
            features that the client does not compute.
    """
    graph = streaming_encoder(trained, chunk, CtcScores(trained, "streaming"), "log_probs")
    check_streaming(graph.model, trained.tokenizer.vocab_size)
    return graph


def full_ctc(trained: TrainedModel, chunk: ChunkSpec) -> Graph:
    """The full branch on whole utterances: sherpa-onnx's offline zipformer CTC.

    Raises:
        ValueError: no full branch, no CTC head, or a chunk that does not suit the model.
    """
    graph = full_encoder(trained, chunk, CtcScores(trained, "full"), "log_probs")
    check_full(graph.model, trained.tokenizer.vocab_size)
    return graph
