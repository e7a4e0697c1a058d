"""How the encoders of both branches are put together, and what is left of that for one alone.

                 streaming branch              full branch                      full branch alone
    cascaded     front end, masked stacks      own stacks (25 Hz) above h_s     same, nothing masked
    parallel     front end, masked stacks      front end, own stacks (50 Hz)    same
    shared       front end, masked stacks      front end, same stacks unmasked  same

Nothing of a full branch ever reaches a streaming one, which is the same network in every row:
`StreamingEncoder`, whose `step` runs it chunk by chunk. The parts of a branch alone have the names
they have in the joint model, so weights can go from one to the other.

Letters: N batch, T feature frames, S encoder frames, C channels.
"""

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor, nn

from dualasr_lib.core.rates import ENCODER_STRIDE
from dualasr_lib.model.encoder import (
    Encoded,
    Front,
    FrontEnd,
    FullEncoder,
    ParallelEncoder,
    StreamingEncoder,
)
from dualasr_lib.model.model_config import BRANCHES, Branch, IntegrationName, ModelConfig
from dualasr_lib.model.zipformer.streaming import ChunkSpec

__all__ = ["Integration", "build_integration"]

_States: TypeAlias = dict[Branch, Encoded]


class Integration(nn.Module):
    """The encoders of all branches; a subclass builds them and says what each of them hears."""

    streaming: FrontEnd
    """The front end, and all of the streaming encoder if anything uses it."""
    output_dims: dict[Branch, int]
    """Channels C of each branch."""
    chunked: tuple[Branch, ...] = ("streaming",)
    """Branches whose states depend on the chunk; it is the same to others."""

    def forward(
        self, features: Tensor, lens: Tensor, chunk: ChunkSpec, branches: tuple[Branch, ...]
    ) -> _States:
        """features (N, T, 80) of lens (N,) frames -> states of `branches`; no others are made."""
        multiple = chunk.frames if self.chunked else ENCODER_STRIDE
        return self.states(self.streaming.front(features, lens, multiple), chunk, branches)

    def states(self, front: Front, chunk: ChunkSpec, branches: tuple[Branch, ...]) -> _States:
        """50 Hz frames -> states of `branches`."""
        raise NotImplementedError

    def check_second_pass(self) -> None:
        """ValueError unless `second_pass` can run."""
        raise ValueError(
            "a second pass over streamed states needs a model with both branches and "
            'model.integration = "cascaded": only there full-context stacks read what streaming '
            "stacks have computed; `decode.py --branch full` hears the audio again"
        )

    def second_pass(self, streamed: Encoded) -> Encoded:
        """States of the full branch from those of the streaming one, without the audio."""
        self.check_second_pass()
        raise NotImplementedError


class _StreamingAlone(Integration):
    streaming: StreamingEncoder

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.streaming = _streaming_encoder(config)
        self.output_dims = {"streaming": self.streaming.output_dim}

    def states(self, front: Front, chunk: ChunkSpec, branches: tuple[Branch, ...]) -> _States:
        return {branch: self.streaming.masked(front, chunk) for branch in branches}


class _Cascaded(Integration):
    streaming: StreamingEncoder

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.streaming = _streaming_encoder(config)
        self.full = FullEncoder(config.full)
        self.output_dims = {
            "streaming": self.streaming.output_dim,
            "full": self.full.output_dim,
        }
        self.chunked = ("streaming", "full") if config.has("streaming") else ()

    def states(self, front: Front, chunk: ChunkSpec, branches: tuple[Branch, ...]) -> _States:
        encoder = self.streaming
        below = encoder.masked(front, chunk) if self.chunked else encoder.unmasked(front)
        return {b: below if b == "streaming" else self.full(below) for b in branches}

    def check_second_pass(self) -> None:
        if not self.chunked:
            super().check_second_pass()

    def second_pass(self, streamed: Encoded) -> Encoded:
        self.check_second_pass()
        states: Encoded = self.full(streamed)
        return states


class _Parallel(Integration):
    streaming: StreamingEncoder

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.streaming = _streaming_encoder(config)
        self.full = ParallelEncoder(config.full)
        self.output_dims = {
            "streaming": self.streaming.output_dim,
            "full": self.full.output_dim,
        }

    def states(self, front: Front, chunk: ChunkSpec, branches: tuple[Branch, ...]) -> _States:
        masked = self.streaming.masked
        return {b: masked(front, chunk) if b == "streaming" else self.full(front) for b in branches}


class _ParallelFullAlone(Integration):
    """The streaming stacks, which the full branch does not pass, are left out."""

    chunked = ()

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.streaming[0].layer.dim  # that of the front end in the joint model
        self.streaming = FrontEnd(config.subsampling, config.num_features, dim)
        self.full = ParallelEncoder(config.full)
        self.output_dims = {"full": self.full.output_dim}

    def states(self, front: Front, chunk: ChunkSpec, branches: tuple[Branch, ...]) -> _States:
        return {branch: self.full(front) for branch in branches}


class _Shared(Integration):
    streaming: StreamingEncoder

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.streaming = _streaming_encoder(config)
        self.output_dims = dict.fromkeys(BRANCHES, self.streaming.output_dim)
        self.chunked = ("streaming",) if config.has("streaming") else ()

    def states(self, front: Front, chunk: ChunkSpec, branches: tuple[Branch, ...]) -> _States:
        encoder = self.streaming
        return {
            b: encoder.masked(front, chunk) if b == "streaming" else encoder.unmasked(front)
            for b in branches
        }


_KINDS: dict[IntegrationName, Callable[[ModelConfig], Integration]]
_KINDS = {"cascaded": _Cascaded, "parallel": _Parallel, "shared": _Shared}


def build_integration(config: ModelConfig) -> Integration:
    """The encoders that `config.branches` need."""
    if not config.has("full"):
        return _StreamingAlone(config)
    if config.integration == "parallel" and not config.has("streaming"):
        return _ParallelFullAlone(config)
    return _KINDS[config.integration](config)


def _streaming_encoder(config: ModelConfig) -> StreamingEncoder:
    return StreamingEncoder(config.subsampling, config.streaming, config.num_features)
