"""How the two joiners work through the vocabulary: in blocks of rows, in float32.

No tensor with V columns outlives its block; the backward pass computes the logits a second time.

V vocabulary.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["blocks", "full_precision", "zeros"]

_LOGITS = {"cpu": 1 << 20, "cuda": 1 << 27}  # elements of a block
_ROWS = 1024  # more make no product of a CPU faster


def blocks(rows: int, vocab_size: int, device: torch.device) -> Iterator[slice]:
    """The rows in order, as many at a time as a block may have."""
    size = max(1, _LOGITS.get(device.type, _LOGITS["cuda"]) // vocab_size)
    if device.type == "cpu":
        size = min(size, _ROWS)
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def full_precision(x: Tensor) -> torch.autocast:
    """The context in which everything is computed: without autocast."""
    return torch.autocast(x.device.type, enabled=False)


def zeros(x: Tensor) -> Tensor:
    """Zeros of x's shape, at least float32, to add up in."""
    return torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32))
