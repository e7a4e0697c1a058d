"""The encoders that integration.py puts together: features -> 50 Hz frames -> 25 Hz states.

    FrontEnd           features (N, T, 80) at 100 Hz -> 50 Hz frames
    StreamingEncoder   ... -> 50 Hz frames -> stacks under the chunk mask, or unmasked -> 25 Hz
    ParallelEncoder    50 Hz frames -> full-context stacks -> 25 Hz
    FullEncoder        25 Hz states -> full-context stacks -> 25 Hz

S = ceil(ceil(T / 2) / 2). A stream's tail is padding features up to the end of its last
chunk, in `step` and in `forward` alike; nothing behind it, nor what a batch is padded with, is ever
read. Unmasked stacks hear two whole 50 Hz frames for each valid 25 Hz frame.

Letters: N batch, T feature frames, S encoder frames, C channels, E look-ahead feature frames.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dualasr_lib.core.rates import (
    ENCODER_STRIDE,
    FEATURES_PER_ENCODER_FRAME,
    FRONT_END_STRIDE,
    encoder_frames,
)
from dualasr_lib.core.silence import LOG_MEL_SILENCE
from dualasr_lib.model.zipformer.stacks import (
    Downsample,
    Prepared,
    StackConfig,
    Zipformer,
    ZipformerState,
)
from dualasr_lib.model.zipformer.streaming import ChunkSpec
from dualasr_lib.model.zipformer.subsampling import (
    ConvSubsampling,
    SubsamplingConfig,
    SubsamplingState,
)

__all__ = [
    "Encoded",
    "EncoderState",
    "Front",
    "FrontEnd",
    "FullEncoder",
    "ParallelEncoder",
    "StreamingEncoder",
    "encoder_lens",
]


class Encoded(NamedTuple):
    """Hidden states and their valid lengths."""

    h: Tensor
    """(N, S, C)."""
    lens: Tensor
    """(N,) int64 valid encoder frames."""


class Front(NamedTuple):
    """What the front end gives: 50 Hz frames, whole chunks of them."""

    x: Tensor
    """(N, T', C), T' >= 2 S."""
    lens: Tensor
    """(N,) int64 valid encoder frames (25 Hz)."""
    size: int
    """S, encoder frames of the longest utterance."""


class EncoderState(NamedTuple):
    """What the streaming encoder keeps between chunks."""

    subsampling: SubsamplingState
    stacks: ZipformerState


def encoder_lens(feature_lens: Tensor) -> Tensor:
    """Feature frames T (100 Hz) -> encoder frames S (25 Hz): ceil(ceil(T / 2) / 2)."""
    stride = FEATURES_PER_ENCODER_FRAME
    return torch.div(feature_lens + stride - 1, stride, rounding_mode="floor")


class FrontEnd(nn.Module):
    """Features -> 50 Hz frames."""

    def __init__(self, config: SubsamplingConfig, num_features: int, dim: int) -> None:
        super().__init__()
        self.subsampling = ConvSubsampling(config, num_features, dim)

    @property
    def lookahead(self) -> int:
        """Feature frames (10 ms each) heard beyond the chunk."""
        return self.subsampling.lookahead

    def front(self, features: Tensor, lens: Tensor, multiple: int = ENCODER_STRIDE) -> Front:
        """features (N, T, F) of lens (N,) frames -> 50 Hz frames, a multiple of `multiple`, which
        must hold whole encoder frames.
        """
        batch, frames, _ = features.shape
        surplus = -frames % (FRONT_END_STRIDE * multiple) + self.lookahead
        x = _padded(F.pad(features, (0, 0, 0, surplus)), lens)
        y, _ = self.subsampling.step(x, self.subsampling.init_state(batch, x.device))
        return Front(y, encoder_lens(lens), encoder_frames(frames))


class StreamingEncoder(FrontEnd):
    """Front end and stacks that hear in chunks or, with the same weights, whole utterances."""

    def __init__(
        self, subsampling: SubsamplingConfig, stacks: tuple[StackConfig, ...], num_features: int
    ) -> None:
        zipformer = Zipformer(stacks, causal=True)
        super().__init__(subsampling, num_features, zipformer.input_dim)
        self.stacks = zipformer
        self.downsample = Downsample(ENCODER_STRIDE)
        self.output_dim = zipformer.output_dim

    def check(self, chunk: ChunkSpec) -> None:
        """ValueError unless `chunk` suits all frame rates of the stacks and the output."""
        for config in self.stacks.configs:
            chunk.downsampled(config.downsampling)
        chunk.downsampled(ENCODER_STRIDE)

    def forward(self, features: Tensor, lens: Tensor, chunk: ChunkSpec) -> Encoded:
        """features (N, T, 80) of lens (N,) frames -> h_s as `step` would give it chunk by chunk."""
        return self.masked(self.front(features, lens, chunk.frames), chunk)

    def masked(self, front: Front, chunk: ChunkSpec) -> Encoded:
        """50 Hz frames, whole chunks of them -> h_s (N, S, C) under the chunk mask."""
        self.check(chunk)
        h = self.downsample(self.stacks.forward_chunks(front.x, chunk))
        return Encoded(h[:, : front.size], front.lens)

    def unmasked(self, front: Front) -> Encoded:
        """50 Hz frames -> (N, S, C); each frame hears the whole utterance."""
        return _whole(self.stacks, self.downsample, front)

    def prepare(self, chunk: ChunkSpec, device: torch.device) -> Prepared:
        """What `step` needs beside its state; good until the weights change."""
        self.check(chunk)
        return self.stacks.prepare(chunk, device)

    def init_state(self, batch: int, chunk: ChunkSpec, device: torch.device) -> EncoderState:
        """State of streams that start now."""
        self.check(chunk)
        return EncoderState(
            self.subsampling.init_state(batch, device), self.stacks.init_state(batch, chunk, device)
        )

    def step(
        self, features: Tensor, frames_left: Tensor, state: EncoderState, prepared: Prepared
    ) -> tuple[Tensor, EncoderState]:
        """One chunk: features (N, 2 chunk.frames + E, 80) -> h_s (N, chunk.frames / 2, C), next
        state.

        Args:
            frames_left: (N,) valid feature frames from the first one of this window on.
        """
        return self.advance(_padded(features, frames_left), state, prepared)

    def advance(
        self, features: Tensor, state: EncoderState, prepared: Prepared
    ) -> tuple[Tensor, EncoderState]:
        """`step` of streams that do not end in this window."""
        y, subsampling = self.subsampling.step(features, state.subsampling)
        h, stacks = self.stacks.step(y, state.stacks, prepared)
        return self.downsample(h), EncoderState(subsampling, stacks)


class FullEncoder(nn.Module):
    """Full-context stacks at 25 Hz, on top of other states."""

    def __init__(self, stacks: tuple[StackConfig, ...]) -> None:
        super().__init__()
        self.stacks = Zipformer(stacks, causal=False)
        self.output_dim = self.stacks.output_dim

    def forward(self, below: Encoded) -> Encoded:
        """(N, S, C) -> h_f (N, S, C')."""
        return Encoded(self.stacks.forward_full(below.h, below.lens), below.lens)


class ParallelEncoder(nn.Module):
    """Full-context stacks at 50 Hz, beside the streaming ones."""

    def __init__(self, stacks: tuple[StackConfig, ...]) -> None:
        super().__init__()
        self.stacks = Zipformer(stacks, causal=False)
        self.downsample = Downsample(ENCODER_STRIDE)
        self.output_dim = self.stacks.output_dim

    def forward(self, front: Front) -> Encoded:
        """50 Hz frames -> h_f (N, S, C')."""
        return _whole(self.stacks, self.downsample, front)


def _whole(stacks: Zipformer, downsample: Downsample, front: Front) -> Encoded:
    """Both 50 Hz frames of a valid 25 Hz frame are valid: the second may be one of padding
    features, which the front end makes the same for every batch.
    """
    h = stacks.forward_full(front.x[:, : ENCODER_STRIDE * front.size], ENCODER_STRIDE * front.lens)
    return Encoded(downsample(h), front.lens)


def _padded(features: Tensor, lens: Tensor) -> Tensor:
    """features (N, T, F) with LOG_MEL_SILENCE from frame lens on, whatever was there (NaN too)."""
    index = torch.arange(features.shape[1], device=features.device)
    return features.masked_fill((index[None, :] >= lens[:, None])[:, :, None], LOG_MEL_SILENCE)
