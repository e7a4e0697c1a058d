"""What all layers of one stack share during one call: who sees whom, and how far apart they are.

Letters: N batch, T frames, C channels; blocks of B frames with windows of W keys (band.py), R = W +
B - 1 distances between them. Compact relative positions as in Zipformer's public description.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from dualasr_lib.model.band import MASKED, Window, band_mask, best_window
from dualasr_lib.model.streaming import ChunkSpec

__all__ = ["Context", "chunk_context", "full_context", "position_encoding", "step_context"]


class Context(NamedTuple):
    """What the layers of a stack are told about one call."""

    window: Window
    """How frames are cut into blocks for attention."""

    mask: Tensor
    """(N or 1, blocks, B or 1, W) float, added to scores: MASKED where a query may not look."""

    positions: Tensor
    """(R, D) relative position encoding, from the farthest past to the farthest future."""

    chunk: int | None
    """Chunk length in frames of this stack; None = full context."""

    padding: Tensor | None
    """(N, T, 1) bool, True at frames behind the end of an utterance; full context only."""


def chunk_context(num_frames: int, chunk: ChunkSpec, dim: int, device: torch.device) -> Context:
    """Whole utterances of T frames (a multiple of the chunk) under the chunk mask.

    Args:
        chunk: counted in frames of this stack. dim: D of the position encoding.
    """
    window = best_window(num_frames, chunk)
    mask = band_mask(window, chunk, device)
    return Context(window, mask, position_encoding(window, dim, device), chunk.frames, None)


def full_context(padding: Tensor, dim: int) -> Context:
    """Whole utterances that are heard in full; padding (N, T) bool, True behind their ends."""
    frames = padding.shape[1]
    window = Window(1, frames, frames)
    mask = (padding * MASKED)[:, None, None, :]
    positions = position_encoding(window, dim, padding.device)
    return Context(window, mask, positions, None, padding[:, :, None])


def step_context(empty: Tensor, num_frames: int, dim: int) -> Context:
    """One chunk of T frames behind caches; empty (N, L) bool, True at slots not yet filled."""
    window = Window(1, num_frames, num_frames + empty.shape[1])
    mask = torch.nn.functional.pad(empty * MASKED, (0, num_frames))[:, None, None, :]
    positions = position_encoding(window, dim, empty.device)
    return Context(window, mask, positions, num_frames, None)


def position_encoding(window: Window, dim: int, device: torch.device) -> Tensor:
    """(R, D) encoding of the distance query - key, from W - 1 down to -(B - 1).

    The distance is compressed by a logarithm and mapped to an angle, so that near distances are
    told apart better than far ones; columns are cosines and sines of its multiples, the last column
    is 1.
    """
    distance = torch.arange(window.width - 1, -window.block, -1, device=device, dtype=torch.float64)
    width = math.sqrt(dim)
    squeezed = width * distance.sign() * ((distance.abs() + width).log() - math.log(width))
    angle = (squeezed * (2.0 * math.pi / dim)).atan()
    multiples = angle[:, None] * torch.arange(1, dim // 2 + 1, device=device)
    encoding = torch.stack([multiples.cos(), multiples.sin()], dim=2).flatten(1)
    encoding[:, -1] = 1.0
    return encoding.float()
