"""Which texts a frame may go on with: a window of R neighbouring numbers of tokens per frame.

The windows come from the occupancies of a cheap joiner; only cells inside them are given to the
real one (arXiv 2206.13236).

N utterances, T frames, U tokens, W = U + 1 texts begun, R width of the windows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dualasr_lib.model.transducer.recursion import NEVER, Arcs

__all__ = ["from_windows", "in_windows", "prune_starts", "window_texts"]


def prune_starts(
    occupancies: Arcs, lens: Tensor, token_lens: Tensor, width: int, moves_on: bool
) -> Tensor:
    """First text of each frame's window, (N, T) int64.

    On each frame the window with the most blanks inside, less the symbol that would enter it from
    outside; the last frame's window ends with the whole text. From frame to frame a window never
    falls and rises by R - 1 at most (by 1 where a symbol moves on to the next frame), so that no
    path is cut off between two windows.

    Args:
        occupancies: probabilities of symbols (N, T, U) and blanks (N, T, W).
        width: R <= W.
        moves_on: whether a symbol moves on to the next frame.
    """
    frames = occupancies.blank.shape[1]
    inside = occupancies.blank.unfold(2, width, 1).sum(dim=3)  # (N, T, W - R + 1)
    entering = F.pad(occupancies.symbol, (1, 0))[:, :, : inside.shape[2]]
    best = (inside - entering).argmax(dim=2)
    time = torch.arange(frames, device=lens.device)[None, :]
    last = (token_lens - width + 1).clamp(min=0)[:, None]
    starts = torch.where(time < lens[:, None] - 1, best, last)
    if not frames:
        return starts
    # never falling: the least of all that follow
    starts = starts.flip(1).cummin(dim=1).values.flip(1)
    # rising slowly: `rise` t - start must not fall either, and start with 0 at t = 0
    rise = 1 if moves_on else width - 1
    behind = (rise * time - starts).flip(1).cummin(dim=1).values.flip(1).clamp(min=0)
    return rise * time - behind


def window_texts(starts: Tensor, width: int) -> Tensor:
    """(N, T) -> (N, T, R) numbers, below W, of the texts in each window; those of an utterance's
    own end may lie before the last.
    """
    return starts[:, :, None] + torch.arange(width, device=starts.device)


def in_windows(values: Tensor, texts: Tensor) -> Tensor:
    """Values (N, T, W) of all texts -> (N, T, R) of those in the windows."""
    return values.gather(2, texts)


def from_windows(values: Tensor, texts: Tensor, num_texts: int) -> Tensor:
    """(N, T, R) scores in the windows -> (N, T, W) scores, `NEVER` outside of them."""
    whole = values.new_full((*values.shape[:2], num_texts), NEVER)
    return whole.scatter(2, texts, values)
