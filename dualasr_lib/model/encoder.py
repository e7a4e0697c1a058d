"""The two encoders: features -> streaming states h_s, and h_s -> full-context states h_f
(cascaded).

    features (N, T, 80) at 100 Hz -> front end, 50 Hz -> streaming Zipformer -> 25 Hz: h_s (N, S, C)
    h_s                                              -> full-context Zipformer: h_f (N, S, C')

S = ceil(ceil(T / 2) / 2). A stream's tail is padding features up to the end of its last
chunk, in `step` and in `forward` alike; nothing behind it, nor what a batch is padded with, is ever
read.

Letters: N batch, T feature frames, S encoder frames, C channels, E look-ahead feature frames.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dualasr_lib.model.streaming import ChunkSpec
from dualasr_lib.model.subsampling import ConvSubsampling, SubsamplingConfig, SubsamplingState
from dualasr_lib.model.zipformer import Downsample, StackConfig, Zipformer, ZipformerState

__all__ = ["Encoded", "EncoderState", "FullEncoder", "StreamingEncoder", "encoder_lens"]

PAD_VALUE = (
    -15.942385
)  # log(1.1920929e-07), Kaldi's energy floor: a feature frame of digital silence


class Encoded(NamedTuple):
    """Hidden states and their valid lengths."""

    h: Tensor
    """(N, S, C)."""
    lens: Tensor
    """(N,) int64 valid encoder frames."""


class EncoderState(NamedTuple):
    """What the streaming encoder keeps between chunks."""

    subsampling: SubsamplingState
    stacks: ZipformerState


def encoder_lens(feature_lens: Tensor) -> Tensor:
    """Feature frames T (100 Hz) -> encoder frames S (25 Hz): ceil(ceil(T / 2) / 2)."""
    return torch.div(feature_lens + 3, 4, rounding_mode="floor")


class StreamingEncoder(nn.Module):
    """Front end and chunk-masked stacks."""

    def __init__(
        self, subsampling: SubsamplingConfig, stacks: tuple[StackConfig, ...], num_features: int
    ) -> None:
        super().__init__()
        self.stacks = Zipformer(stacks, causal=True)
        self.subsampling = ConvSubsampling(subsampling, num_features, self.stacks.input_dim)
        self.downsample = Downsample(2)
        self.output_dim = self.stacks.output_dim

    @property
    def lookahead(self) -> int:
        """Feature frames (10 ms each) heard beyond the chunk."""
        return self.subsampling.lookahead

    def check(self, chunk: ChunkSpec) -> None:
        """ValueError unless `chunk` suits all frame rates of the stacks and the output."""
        for config in self.stacks.configs:
            chunk.downsampled(config.downsampling)
        chunk.downsampled(2)

    def forward(self, features: Tensor, lens: Tensor, chunk: ChunkSpec) -> Encoded:
        """features (N, T, 80) of lens (N,) frames -> h_s as `step` would give it chunk by chunk."""
        self.check(chunk)
        batch, frames, _ = features.shape
        surplus = -frames % (2 * chunk.frames) + self.lookahead
        x = F.pad(features, (0, 0, 0, surplus))
        x = _padded(x, lens)
        y, _ = self.subsampling.step(x, self.subsampling.init_state(batch, x.device))
        h = self.downsample(self.stacks.forward_chunks(y, chunk))
        return Encoded(h[:, : (frames + 3) // 4], encoder_lens(lens))

    def init_state(self, batch: int, chunk: ChunkSpec, device: torch.device) -> EncoderState:
        """State of streams that start now."""
        self.check(chunk)
        return EncoderState(
            self.subsampling.init_state(batch, device), self.stacks.init_state(batch, chunk, device)
        )

    def step(
        self, features: Tensor, frames_left: Tensor, state: EncoderState, chunk: ChunkSpec
    ) -> tuple[Tensor, EncoderState]:
        """One chunk: features (N, 2 chunk.frames + E, 80) -> h_s (N, chunk.frames / 2, C), next
        state.

        Args:
            frames_left: (N,) valid feature frames from the first one of this window on.
        """
        y, subsampling = self.subsampling.step(_padded(features, frames_left), state.subsampling)
        h, stacks = self.stacks.step(y, state.stacks, chunk)
        return self.downsample(h), EncoderState(subsampling, stacks)


class FullEncoder(nn.Module):
    """Full-context stacks on top of the streaming states."""

    def __init__(self, stacks: tuple[StackConfig, ...]) -> None:
        super().__init__()
        self.stacks = Zipformer(stacks, causal=False)
        self.output_dim = self.stacks.output_dim

    def forward(self, streaming: Encoded) -> Encoded:
        """h_s (N, S, C) -> h_f (N, S, C')."""
        return Encoded(self.stacks.forward_full(streaming.h, streaming.lens), streaming.lens)


def _padded(features: Tensor, lens: Tensor) -> Tensor:
    """features (N, T, F) with PAD_VALUE from frame lens on, whatever was there (NaN too)."""
    index = torch.arange(features.shape[1], device=features.device)
    return features.masked_fill((index[None, :] >= lens[:, None])[:, :, None], PAD_VALUE)
