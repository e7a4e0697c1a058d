"""The streaming law, and the length and reach of a chunk.

Law: a streaming module is a pure function `step(x, state) -> (y, state)`; concatenated steps
    equal `forward`. Here the law is structural: `forward` is a single `step` over all chunks with
    empty caches, under a mask (band.py).

Letters: N batch, T frames of the stack at hand, L cached frames, C channels. Frames without another
remark are 50 Hz frames (20 ms), the rate behind the convolutional front end.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dualasr_lib.core.rates import FRONT_END_MS

__all__ = ["ChunkSpec", "keep_last", "unfilled"]

_LONGEST_MS = 3_600_000


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
        """From milliseconds; the left context is rounded up to whole chunks.

        Raises:
            ValueError: no chunk of whole frames, or more than an hour of either.
        """
        if chunk_ms < 1 or chunk_ms % FRONT_END_MS:
            raise ValueError(
                f"chunk must be a positive multiple of {FRONT_END_MS} ms, but is {chunk_ms} ms"
            )
        if max(chunk_ms, left_ms) > _LONGEST_MS:
            raise ValueError(
                f"chunk and left context must be at most {_LONGEST_MS} ms, but are {chunk_ms} and "
                f"{left_ms} ms"
            )
        chunk = chunk_ms // FRONT_END_MS
        return ChunkSpec(frames=chunk, left=max(1, -(-left_ms // chunk_ms)) * chunk)

    @property
    def ms(self) -> int:
        """Chunk length in milliseconds."""
        return self.frames * FRONT_END_MS

    def downsampled(self, factor: int) -> "ChunkSpec":
        """The same chunk counted in frames of a stack that runs `factor` times slower."""
        if self.frames % factor:
            raise ValueError(
                "a chunk must be a multiple of each stack's downsampling, "
                f"but {self.frames} is not one of {factor}"
            )
        left = None if self.left is None else self.left // factor
        return ChunkSpec(frames=self.frames // factor, left=left)


def unfilled(processed: Tensor, cached: int, factor: int = 1) -> Tensor:
    """(N, L) bool, True at cache slots that a stream of `processed` (N,) frames has not filled.

    A slot holds `factor` of these frames.
    """
    age = torch.arange(cached * factor, 0, -factor, device=processed.device)
    return age[None, :] > processed[:, None]


def keep_last(cache: Tensor, x: Tensor) -> Tensor:
    """The last L frames of cache (N, L, C) followed by x (N, T, C): the next cache, (N, L, C)."""
    length = cache.shape[1]
    if x.shape[1] >= length:
        return x[:, x.shape[1] - length :].to(cache.dtype)
    return torch.cat([cache[:, x.shape[1] :], x.to(cache.dtype)], dim=1)
