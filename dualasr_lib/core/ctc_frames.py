"""How many frames CTC needs for a text: one per token, and a blank between equal neighbours.

Letters: N batch, U tokens.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

__all__ = ["ctc_frames", "ctc_frames_of_batch"]


def ctc_frames(tokens: Sequence[int]) -> int:
    """Frames that the shortest alignment of a text has."""
    return len(tokens) + sum(a == b for a, b in pairwise(tokens))


def ctc_frames_of_batch(tokens: Tensor, token_lens: Tensor) -> Tensor:
    """(N,) the same for texts (N, U), padded with anything, of (N,) tokens."""
    if tokens.shape[1] < 2:
        return token_lens
    index = torch.arange(1, tokens.shape[1], device=tokens.device)
    repeats = (tokens[:, 1:] == tokens[:, :-1]) & (index[None, :] < token_lens[:, None])
    return token_lens + repeats.sum(dim=1)
