"""A branch as one function of tensors, which a tracer can follow; what its head reads is an
argument.

Letters: N streams, T feature frames, S encoder frames, C channels, V vocabulary.
"""

import torch
from torch import Tensor, nn

from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.export.states import layout_of
from dualasr_lib.features.quiet import heard_silence
from dualasr_lib.model.heads.contract import Head
from dualasr_lib.model.joint import Branch
from dualasr_lib.model.zipformer.band import whole_blocks
from dualasr_lib.model.zipformer.layer import ZipformerLayer
from dualasr_lib.model.zipformer.stacks import Prepared
from dualasr_lib.model.zipformer.streaming import ChunkSpec
from dualasr_lib.recognition.trained_model import TrainedModel

__all__ = ["CtcScores", "FullBranch", "StreamingBranch", "never"]

_NEVER = -1e4
"""Added to scores: finite, as graph decoders and log-softmax take sums of them."""


def never(tokenizer: Tokenizer) -> Tensor:
    """(V,) to be added to scores: `<sos/eos>` and `<unk>` fall below every other token, since a
    client would print them.
    """
    added = torch.zeros(tokenizer.vocab_size)
    added[[tokenizer.sos_eos_id, tokenizer.unk_id]] = _NEVER
    return added


class CtcScores(nn.Module):
    """Encoder frames (N, S, C) -> log-probabilities (N, S, V), specials never the best.

    Raises:
        ValueError: the model has no such branch, or it no CTC head.
    """

    def __init__(self, trained: TrainedModel, branch: Branch) -> None:
        super().__init__()
        self.head: Head = trained.model.head("ctc", branch)
        self.register_buffer("never", never(trained.tokenizer))

    def forward(self, h: Tensor) -> Tensor:
        log_probs = self.head.frames(h)
        assert log_probs is not None
        assert isinstance(self.never, Tensor)
        return log_probs + self.never


class StreamingBranch(nn.Module):
    """A chunk x (N, T, 80) and the states of sherpa-onnx's contract -> what `reads` makes of the
    encoder frames (N, S, C), and the next states.

    Raises:
        ValueError: no streaming branch, or a chunk that does not suit the model.
    """

    def __init__(self, trained: TrainedModel, chunk: ChunkSpec, reads: nn.Module) -> None:
        super().__init__()
        self.encoder = trained.model.streaming
        self.reads = reads
        self.layout = layout_of(self.encoder, chunk)
        self.register_buffer("quiet", trained.quiet)
        with torch.no_grad():
            self._prepared = self.encoder.prepare(chunk, torch.device("cpu"))

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        assert isinstance(self.quiet, Tensor)
        x = heard_silence(x, torch.full_like(x[:, 0, 0], x.shape[1]), self.quiet)
        state, unused = self.layout.unpack(states)
        h, state = self.encoder.advance(x, state, self._constants())
        return (self.reads(h), *self.layout.pack(state, unused))

    def _constants(self) -> Prepared:
        """The matrices of convolutions are made here, so that a file holds the kernels they come
        from, which are a fraction of their size; a runtime computes them once when it loads.
        """
        renewed = []
        for stack, known in zip(self.encoder.stacks.stacks, self._prepared.constants):
            layers = [layer for layer in stack.layers if isinstance(layer, ZipformerLayer)]
            chunk = known[0].conv1.matrix.shape[1]
            renewed.append(tuple(
                constants._replace(
                    conv1=layer.conv1.constants(chunk), conv2=layer.conv2.constants(chunk)
                )
                for layer, constants in zip(layers, known)
            ))  # fmt: skip
        return Prepared(self._prepared.chunk, tuple(renewed))


class FullBranch(nn.Module):
    """Whole utterances x (N, T, 80) of x_lens (N,) frames -> what `reads` makes of the full
    branch's encoder frames (N, S, C), and their numbers (N,). Where it reads the streaming stacks,
    these hear in chunks, as they do in a stream.

    Raises:
        ValueError: no full branch, or a chunk that does not suit the model.
    """

    def __init__(self, trained: TrainedModel, chunk: ChunkSpec, reads: nn.Module) -> None:
        super().__init__()
        trained.model.require("full")
        self.encoders = trained.model.encoders
        self.reads = reads
        self.register_buffer("quiet", trained.quiet)
        self._chunk = chunk

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        assert isinstance(self.quiet, Tensor)
        x = heard_silence(x, x_lens, self.quiet)
        multiple = whole_blocks(self._chunk)
        front = self.encoders.streaming.front(x, x_lens, multiple)
        encoded = self.encoders.states(front, self._chunk, ("full",))["full"]
        return self.reads(encoded.h), encoded.lens
