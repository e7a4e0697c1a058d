"""What all layers of one stack share during one call, who sees whom; and how distances are encoded.

Letters: N batch, T frames, C channels; blocks of B frames with windows of W keys (band.py), R = W +
B - 1 distances between them. Compact relative positions as in Zipformer's public description.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from dualasr_lib.model.zipformer.band import MASKED, Window, band_mask, best_window
from dualasr_lib.model.zipformer.fused import tracing
from dualasr_lib.model.zipformer.streaming import ChunkSpec

__all__ = ["Context", "chunk_context", "full_context", "position_encoding", "step_context"]


class Context(NamedTuple):
    """What the layers of a stack are told about one call."""

    window: Window
    """How frames are cut into blocks for attention."""

    mask: Tensor
    """(N or 1, blocks, B or 1, W) float, added to scores: MASKED where a query may not look."""

    chunk: int | None
    """Chunk length in frames of this stack; None = full context."""

    padding: Tensor | None
    """(N, T, 1) bool, True at frames behind the end of an utterance; full context only."""


def chunk_context(num_frames: int, chunk: ChunkSpec, device: torch.device) -> Context:
    """Whole utterances of T frames under the chunk mask; T is a multiple of the chunk, which is
    counted in frames of this stack.
    """
    window = best_window(num_frames, chunk)
    return Context(window, band_mask(window, chunk, device), chunk.frames, None)


def full_context(padding: Tensor) -> Context:
    """Whole utterances that are heard in full; padding (N, T) bool, True behind their ends."""
    frames = padding.shape[1]
    window = Window(1, frames, frames)
    mask = (padding * MASKED)[:, None, None, :]
    return Context(window, mask, None, padding[:, :, None])


def step_context(empty: Tensor, num_frames: int) -> Context:
    """One chunk of T frames behind caches; empty (N, L) bool, True at slots not yet filled."""
    window = Window(1, num_frames, num_frames + empty.shape[1])
    mask = torch.nn.functional.pad(empty * MASKED, (0, num_frames))[:, None, None, :]
    return Context(window, mask, num_frames, None)


def position_encoding(window: Window, dim: int, device: torch.device) -> Tensor:
    """(R, D) encoding of the distance query - key, from W - 1 down to -(B - 1).

    The distance is compressed by a logarithm and mapped to an angle, so that near distances are
    told apart better than far ones; columns are cosines and sines of its multiples, the last column
    is 1.
    """
    # a graph of a runtime has no arc tangent of float64; float32 is 1e-6 off
    dtype = torch.float32 if tracing() else torch.float64
    distance = torch.arange(window.width - 1, -window.block, -1, device=device).to(dtype)
    width = math.sqrt(dim)
    squeezed = width * distance.sign() * ((distance.abs() + width).log() - math.log(width))
    angle = (squeezed * (2.0 * math.pi / dim)).atan()
    multiples = angle[:, None] * torch.arange(1, dim // 2 + 1, device=device)
    encoding = torch.stack([multiples.cos(), multiples.sin()], dim=2).flatten(1).float()
    return torch.cat([encoding[:, :-1], torch.ones_like(encoding[:, :1])], dim=1)
