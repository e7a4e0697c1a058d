"""Banded attention: queries in blocks, each block with the window of keys that it can see.

A chunk sees itself and a limited left context, so a whole utterance needs a band of the T x T
attention map only. Neighbouring chunks are taken together in blocks of B frames; block b sees the
window of W = left + B frames that ends with it, and a mask inside the window says which chunk sees
what. Time and memory grow with T, not with its square, and products stay large enough to be fast.

A streaming chunk (one block, its caches in front) and full context (one block of all frames) are
the same thing, so there is one attention for all of them.

Letters: N batch, T frames, L cached frames in front of them, B block, W window, M blocks of a
batch, H heads, D channels per head.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dualasr_lib.model.zipformer.fused import run, tracing, windows_by_slices
from dualasr_lib.model.zipformer.streaming import ChunkSpec

__all__ = [
    "MASKED",
    "Window",
    "band_mask",
    "best_window",
    "merge",
    "split_keys",
    "split_queries",
    "whole_blocks",
]

MASKED = -10000.0
"""Added to masked scores: e^(MASKED - max) = 0, yet a row masked throughout is no NaN."""

_OVERHEAD = 64  # keys: what a block costs beside its window (measured: small products are slow)


class Window(NamedTuple):
    """How T frames are cut: `blocks` blocks of `block` frames, each with `width` keys."""

    blocks: int
    block: int
    width: int

    @property
    def left(self) -> int:
        """L, keys before a block; as many cached frames (or zeros) stand before the first."""
        return self.width - self.block


def best_window(num_frames: int, chunk: ChunkSpec) -> Window:
    """The cheapest cut of T frames (a multiple of the chunk): all at once, or in blocks. While a
    model is traced T, a multiple of `whole_blocks`, may be a symbol: blocks of that length.
    """
    if chunk.left is None:
        return Window(1, num_frames, num_frames)
    if tracing():
        block = whole_blocks(chunk)
        return Window(num_frames // block, block, block + chunk.left)
    chunks = -(-num_frames // chunk.frames)
    sizes = {-(-chunks // count) for count in range(1, chunks + 1)}  # chunks per block
    cuts = [Window(-(-chunks // n), n * chunk.frames, n * chunk.frames + chunk.left) for n in sizes]
    best = min(cuts, key=lambda cut: (cut.blocks * cut.block * (cut.width + _OVERHEAD), cut.block))
    whole = num_frames * (num_frames + _OVERHEAD)
    if whole <= best.blocks * best.block * (best.width + _OVERHEAD):
        return Window(1, num_frames, num_frames)
    return best


def whole_blocks(chunk: ChunkSpec) -> int:
    """Frames of the blocks of a traced model: whole chunks, about half of the left context."""
    if chunk.left is None:
        raise ValueError("a traced model needs a finite left context, but left is None")
    return max(1, chunk.left // (2 * chunk.frames)) * chunk.frames


def band_mask(window: Window, chunk: ChunkSpec, device: torch.device) -> Tensor:
    """(1, blocks, B, W) float, MASKED where a query may not look, else 0.

    Later chunks, chunks before the left context, and what lies before the first frame.
    """
    query = torch.arange(window.block, device=device)
    key = torch.arange(-window.left, window.block, device=device)
    behind = _chunk_of(query, chunk)[:, None] - _chunk_of(key, chunk)[None, :]
    hidden = behind < 0
    if chunk.left is not None:
        hidden = hidden | (behind > chunk.left // chunk.frames)
    first = torch.arange(window.blocks, device=device) * window.block
    missing = first[:, None] + key[None, :] < 0  # (blocks, W)
    masked = hidden[None] | missing[:, None, :]
    return (masked * MASKED)[None]


def _chunk_of(frame: Tensor, chunk: ChunkSpec) -> Tensor:
    return torch.div(frame, chunk.frames, rounding_mode="floor")


def split_queries(x: Tensor, heads: int, window: Window) -> Tensor:
    """(N, T, H*D) -> (H, M, B, D), M = N * blocks; frames missing in the last block are zero."""
    batch, frames, channels = x.shape
    missing = window.blocks * window.block - frames
    x = F.pad(x, (0, 0, 0, missing)) if missing else x
    blocks = x.reshape(batch * window.blocks, window.block, heads, channels // heads)
    return blocks.permute(2, 0, 1, 3).contiguous()


def split_keys(x: Tensor, cache: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """Frames x (N, T, H*D), their cache (N, L, H, D) in front -> windows (H, M, W, D), next cache.

    The next cache is a view of what was joined here, so that a step copies its caches once.
    """
    batch, frames, _ = x.shape
    _, left, heads, width = cache.shape
    missing = window.blocks * window.block - frames
    parts = [x.reshape(batch, frames, heads, width)]
    if left:
        parts.insert(0, cache.to(x.dtype))
    if missing:
        parts.append(x.new_zeros(batch, missing, heads, width))
    if window.blocks == 1:  # joined in the order that products need
        joined = torch.cat([part.permute(2, 0, 1, 3) for part in parts], dim=2)
        keys, joined = joined, joined.permute(1, 2, 0, 3)
    else:
        joined = torch.cat(parts, dim=1)
        keys = run(_Windows, joined.flatten(2), heads, window)
    return keys, joined[:, frames : frames + left].to(cache.dtype)


def merge(x: Tensor, num_frames: int, window: Window) -> Tensor:
    """(H, M, B, D) -> (N, T, H*D): undoes `split_queries`."""
    heads, total, _, channels = x.shape
    frames = x.permute(1, 2, 0, 3).reshape(total // window.blocks, -1, heads * channels)
    return frames if frames.shape[1] == num_frames else frames[:, :num_frames]


class _Windows(torch.autograd.Function):
    """(N, L + blocks B, H*D) -> (H, M, W, D): one copy forward, a sum per part backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, heads: int, window: Window) -> Tensor:
        ctx.heads, ctx.window, ctx.shape = heads, window, x.shape
        views = _views(x.contiguous(), heads, window, 0, window.width)
        return views.reshape(heads, -1, window.width, x.shape[2] // heads)

    @staticmethod
    def plain(x: Tensor, heads: int, window: Window) -> Tensor:
        batch, _, channels = x.shape
        parts = windows_by_slices(x, window.block, window.width)  # (N, blocks, W, H*D)
        parts = parts.reshape(batch, -1, window.width, heads, channels // heads)
        return parts.permute(3, 0, 1, 2, 4).flatten(1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        heads, window = ctx.heads, ctx.window
        batch, _, channels = ctx.shape
        gradient = grads[0].reshape(heads, batch, window.blocks, window.width, channels // heads)
        total = grads[0].new_zeros(ctx.shape)
        for start in range(0, window.width, window.block):  # parts of this size do not overlap
            size = min(window.block, window.width - start)
            part = gradient[:, :, :, start : start + size]
            _views(total, heads, window, start, size).add_(part)
        return total, None, None


def _views(x: Tensor, heads: int, window: Window, start: int, size: int) -> Tensor:
    """(H, N, blocks, size, D) view: frames [start, start + size) of each window."""
    batch, frames, channels = x.shape
    width = channels // heads
    shape = (heads, batch, window.blocks, size, width)
    strides = (width, frames * channels, window.block * channels, channels, 1)
    return x.as_strided(shape, strides, x.storage_offset() + start * channels)
