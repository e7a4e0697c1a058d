"""The streaming law, and the masks that let a whole utterance be computed as its chunks would be.

Law: a streaming module is a pure function `step(x, state) -> (y, state)`; concatenated steps
    equal `forward`. Here the law is structural: `forward` is a single `step` over all chunks with
    empty caches, under a mask.

Letters: N batch, T frames of the stack at hand, L cached frames, C channels. Frames without another
remark are 50 Hz frames (20 ms), the rate behind the convolutional front end.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

__all__ = ["ChunkSpec", "Context", "Streamable", "cache_mask", "chunk_mask", "keep_last"]

S = TypeVar("S")


class Streamable(Protocol[S]):
    """What tests/model/streaming_contract.py checks of every streaming module."""

    def init_state(self, batch: int, device: torch.device) -> S:
        """A NamedTuple of tensors, batch axis first, whose shapes never change."""

    def step(self, x: Tensor, state: S) -> tuple[Tensor, S]:
        """One or more whole chunks (N, T, C) -> (N, T', C'); `state` is left as it was."""


@dataclass(frozen=True, kw_only=True)
class ChunkSpec:
    """How far a streaming stack hears: chunks of `frames`, and `left` frames before the current
    chunk.
    """

    frames: int = 16
    """Chunk length in 50 Hz frames: 16 = 320 ms."""

    left: int | None = 128
    """Left context in 50 Hz frames, a multiple of `frames`; None = everything before (forward
    only).
    """

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ValueError(f"chunk frames must be at least 1, but are {self.frames}")
        if self.left is not None and (self.left < self.frames or self.left % self.frames):
            raise ValueError(
                "left context must be a positive multiple of the chunk "
                f"({self.frames} frames), but is {self.left}"
            )

    @staticmethod
    def from_ms(chunk_ms: int, left_ms: int) -> "ChunkSpec":
        """From milliseconds; the left context is rounded up to whole chunks."""
        if chunk_ms < 20 or chunk_ms % 20:
            raise ValueError(f"chunk must be a positive multiple of 20 ms, but is {chunk_ms} ms")
        chunk = chunk_ms // 20
        return ChunkSpec(frames=chunk, left=max(1, -(-left_ms // chunk_ms)) * chunk)

    @property
    def ms(self) -> int:
        """Chunk length in milliseconds."""
        return self.frames * 20

    def downsampled(self, factor: int) -> "ChunkSpec":
        """The same chunk counted in frames of a stack that runs `factor` times slower."""
        if self.frames % factor:
            raise ValueError(
                "a chunk must be a multiple of each stack's downsampling, "
                f"but {self.frames} is not one of {factor}"
            )
        left = None if self.left is None else self.left // factor
        return ChunkSpec(frames=self.frames // factor, left=left)


class Context(NamedTuple):
    """What all layers of one stack share during one call."""

    mask: Tensor
    """(N or 1, 1, T or 1, L + T) bool, True where a query may not look."""

    positions: Tensor
    """(L + 2 T - 1, D) relative position encoding, from the farthest past to the farthest future.
    """

    chunk: int | None
    """Chunk length in frames of this stack; None = full context."""

    padding: Tensor | None
    """(N, T, 1) bool, True at frames behind the end of an utterance; full context only."""


def chunk_mask(num_frames: int, chunk: ChunkSpec, device: torch.device) -> Tensor:
    """(1, 1, T, T) bool, True where frame t (row) may not see frame k: later chunks, and too early
    ones.
    """
    index = torch.arange(num_frames, device=device) // chunk.frames
    behind = index[:, None] - index[None, :]
    masked = behind < 0
    if chunk.left is not None:
        masked = masked | (behind > chunk.left // chunk.frames)
    return masked[None, None]


def cache_mask(processed: Tensor, cached: int, num_frames: int) -> Tensor:
    """(N, 1, 1, L + T) bool, True at cache slots that a young stream has not filled yet.

    Args:
        processed: (N,) frames of each stream before this chunk.
        cached: L, length of the caches. num_frames: T, length of the chunk, all of it visible.
    """
    age = torch.arange(cached, 0, -1, device=processed.device)
    empty = age[None, :] > processed[:, None]
    return torch.nn.functional.pad(empty, (0, num_frames))[:, None, None, :]


def keep_last(cache: Tensor, x: Tensor) -> Tensor:
    """The last L frames of cache (N, L, C) followed by x (N, T, C): the next cache, (N, L, C)."""
    length = cache.shape[1]
    if x.shape[1] >= length:
        return x[:, x.shape[1] - length :]
    return torch.cat([cache[:, x.shape[1] :], x], dim=1)
