"""A branch with its CTC head as one function of tensors, which a tracer can follow.

`<sos/eos>` and `<unk>` are pushed below every other token, since the client would print them.

Letters: N streams, T feature frames, S encoder frames, V vocabulary.
"""

import torch
from torch import Tensor, nn

from dualasr_lib.export.states import layout_of
from dualasr_lib.model.heads.contract import Head
from dualasr_lib.model.joint import Branch
from dualasr_lib.model.zipformer.band import whole_blocks
from dualasr_lib.model.zipformer.layer import ZipformerLayer
from dualasr_lib.model.zipformer.stacks import Prepared
from dualasr_lib.model.zipformer.streaming import ChunkSpec
from dualasr_lib.recognition.trained_model import TrainedModel

__all__ = ["CtcScores", "FullCtc", "StreamingCtc"]

_NEVER = -1e4
"""Added to log-probabilities: finite, as graph decoders take sums of them."""


class CtcScores(nn.Module):
    """Encoder frames (N, S, C) -> log-probabilities (N, S, V), specials never the best.

    Raises:
        ValueError: the model has no such branch, or it no CTC head.
    """

    def __init__(self, trained: TrainedModel, branch: Branch) -> None:
        super().__init__()
        self.head: Head = trained.model.head("ctc", branch)
        tokenizer = trained.tokenizer
        never = torch.zeros(tokenizer.vocab_size)
        never[[tokenizer.sos_eos_id, tokenizer.unk_id]] = _NEVER
        self.register_buffer("never", never)

    def forward(self, h: Tensor) -> Tensor:
        log_probs = self.head.frames(h)
        assert log_probs is not None
        assert isinstance(self.never, Tensor)
        return log_probs + self.never


class StreamingCtc(nn.Module):
    """A chunk x (N, T, 80) and the states of sherpa-onnx's contract -> log-probabilities (N, S, V)
    and the next states.

    Raises:
        ValueError: no streaming branch, no CTC head, or a chunk that does not suit the model.
    """

    def __init__(self, trained: TrainedModel, chunk: ChunkSpec) -> None:
        super().__init__()
        self.encoder = trained.model.streaming
        self.scores = CtcScores(trained, "streaming")
        self.layout = layout_of(self.encoder, chunk)
        with torch.no_grad():
            self._prepared = self.encoder.prepare(chunk, torch.device("cpu"))

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        state, unused = self.layout.unpack(states)
        h, state = self.encoder.advance(x, state, self._constants())
        return (self.scores(h), *self.layout.pack(state, unused))

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


class FullCtc(nn.Module):
    """Whole utterances x (N, T, 80) of x_lens (N,) frames -> log-probabilities (N, S, V) of the
    full branch and their lengths (N,). Where it reads the streaming stacks, these hear in chunks,
    as they do in a stream.

    Raises:
        ValueError: no full branch, no CTC head, or a chunk that does not suit the model.
    """

    def __init__(self, trained: TrainedModel, chunk: ChunkSpec) -> None:
        super().__init__()
        trained.model.require("full")
        self.encoders = trained.model.encoders
        self.scores = CtcScores(trained, "full")
        self._chunk = chunk

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        multiple = whole_blocks(self._chunk)
        front = self.encoders.streaming.front(x, x_lens, multiple)
        encoded = self.encoders.states(front, self._chunk, ("full",))["full"]
        return self.scores(encoded.h), encoded.lens
