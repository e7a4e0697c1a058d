"""Branches with their transducer heads as graphs that keep sherpa-onnx's contract: three of a head.

The projections of frames and of contexts stand where they are computed once, in encoder and
decoder, so that the joiner, which is asked at each frame, is a tanh and one product.

Letters: N streams, utterances or hypotheses, S encoder frames, C channels, D of the joiner, K
tokens of context, V vocabulary.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dualasr_lib.export.encoders import full_encoder, streaming_encoder
from dualasr_lib.export.graph import Signature, traced
from dualasr_lib.export.lint import check_decoder, check_full, check_joiner, check_streaming
from dualasr_lib.export.modules import never
from dualasr_lib.export.probe import Graph, Probe
from dualasr_lib.model.heads.transducer import TransducerHead
from dualasr_lib.model.joint import Branch
from dualasr_lib.model.transducer.network import Transducer
from dualasr_lib.model.zipformer.streaming import ChunkSpec
from dualasr_lib.recognition.trained_model import TrainedModel

__all__ = ["TransducerGraphs", "full_transducer", "streaming_transducer"]

_ROWS = (1, 2, 7)
"""Hypotheses of the runs that are compared with torch."""


class TransducerGraphs(NamedTuple):
    """What the client loads of one head."""

    encoder: Graph
    decoder: Graph
    joiner: Graph


class _Frames(nn.Module):
    """Encoder frames (N, S, C) -> the joiner's part of each (N, S, D)."""

    def __init__(self, transducer: Transducer) -> None:
        super().__init__()
        self.projection = transducer.joiner.encoder

    def forward(self, h: Tensor) -> Tensor:
        projected: Tensor = self.projection(h)
        return projected


class _Decoder(nn.Module):
    """Contexts (N, K), the latest token last -> the joiner's part of each (N, D).

    The client starts with -1 in all places but the last, where it has blank; we start with blanks,
    as in training.
    """

    def __init__(self, transducer: Transducer) -> None:
        super().__init__()
        self.network, self.projection = transducer.prediction, transducer.joiner.prediction

    def forward(self, y: Tensor) -> Tensor:
        projected: Tensor = self.projection(self.network.of_contexts(y))
        return projected


class _Joiner(nn.Module):
    """Frames and contexts, each (N, D) -> logits (N, V), specials never the best."""

    def __init__(self, transducer: Transducer, added: Tensor) -> None:
        super().__init__()
        output = transducer.joiner.output
        self.register_buffer("weight", output.weight.detach())
        self.register_buffer("bias", output.bias.detach() + added)

    def forward(self, encoder_out: Tensor, decoder_out: Tensor) -> Tensor:
        assert isinstance(self.weight, Tensor)
        assert isinstance(self.bias, Tensor)
        return nn.functional.linear(torch.tanh(encoder_out + decoder_out), self.weight, self.bias)


def streaming_transducer(trained: TrainedModel, chunk: ChunkSpec) -> TransducerGraphs:
    """The streaming branch, one chunk a call: sherpa-onnx's online zipformer2 transducer.

    Raises:
        ValueError: no streaming branch, no transducer, or a chunk that does not suit the model.
    """
    transducer = _transducer(trained, "streaming")
    frames = _Frames(transducer)
    encoder = streaming_encoder(trained, chunk, frames, "encoder_out")
    check_streaming(encoder.model, transducer.config.joiner_dim)
    return TransducerGraphs(encoder, _decoder(trained, transducer), _joiner(trained, transducer))


def full_transducer(trained: TrainedModel, chunk: ChunkSpec) -> TransducerGraphs:
    """The full branch on whole utterances: sherpa-onnx's offline transducer.

    Raises:
        ValueError: no full branch, no transducer, or a chunk that does not suit the model.
    """
    transducer = _transducer(trained, "full")
    encoder = full_encoder(trained, chunk, _Frames(transducer), "encoder_out")
    check_full(encoder.model, transducer.config.joiner_dim)
    return TransducerGraphs(encoder, _decoder(trained, transducer), _joiner(trained, transducer))


def _transducer(trained: TrainedModel, branch: Branch) -> Transducer:
    head = trained.model.head("transducer", branch)
    assert isinstance(head, TransducerHead)
    return head.transducer


def _decoder(trained: TrainedModel, transducer: Transducer) -> Graph:
    module = _Decoder(transducer).eval()
    context, vocab_size = transducer.config.context, trained.tokenizer.vocab_size
    generator = torch.Generator().manual_seed(1)
    probes = [torch.randint(-1, vocab_size, (rows, context), generator=generator) for rows in _ROWS]
    signature = Signature(("y",), ("decoder_out",), {"y": {0: "N"}, "decoder_out": {0: "N"}})
    metadata = {"vocab_size": str(vocab_size), "context_size": str(context)}
    model = traced(module, (probes[1],), signature, metadata)
    check_decoder(model, transducer.config.joiner_dim)
    return Graph(model, module, tuple(Probe(((y,),)) for y in probes))


def _joiner(trained: TrainedModel, transducer: Transducer) -> Graph:
    module = _Joiner(transducer, never(trained.tokenizer)).eval()
    dim = transducer.config.joiner_dim
    generator = torch.Generator().manual_seed(1)
    probes = [
        (torch.randn(rows, dim, generator=generator), torch.randn(rows, dim, generator=generator))
        for rows in _ROWS
    ]
    names = ("encoder_out", "decoder_out")
    axes = {name: {0: "N"} for name in (*names, "logit")}
    model = traced(module, probes[1], Signature(names, ("logit",), axes), {"joiner_dim": str(dim)})
    check_joiner(model, dim, trained.tokenizer.vocab_size)
    return Graph(model, module, tuple(Probe((pair,)) for pair in probes))
