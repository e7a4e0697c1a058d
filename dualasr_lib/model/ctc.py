"""CTC head of one branch, and its loss.

Letters: N batch, S encoder frames (25 Hz), U tokens, V vocabulary (blank = 0), C channels.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CtcHead", "CtcLoss", "min_ctc_frames", "torch_ctc_loss"]

CtcLoss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(log_probs (N, S, V), lens (N,), tokens (N, U), token_lens (N,)) -> negative log-likelihoods
(N,).
"""


class CtcHead(nn.Module):
    """(N, S, C) -> natural log-probabilities (N, S, V) in float32."""

    def __init__(self, dim: int, vocab_size: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(dim, vocab_size)

    def forward(self, h: Tensor) -> Tensor:
        return self.projection(self.dropout(h)).float().log_softmax(dim=2)


def torch_ctc_loss(log_probs: Tensor, lens: Tensor, tokens: Tensor, token_lens: Tensor) -> Tensor:
    """Negative log-likelihoods (N,); 0, without gradient, where no alignment exists."""
    return F.ctc_loss(
        log_probs.transpose(0, 1),
        tokens,
        lens,
        token_lens,
        blank=0,
        reduction="none",
        zero_infinity=True,
    )


def min_ctc_frames(tokens: Tensor, token_lens: Tensor) -> Tensor:
    """(N,) frames that an alignment needs: one per token, and a blank between equal neighbours."""
    if tokens.shape[1] < 2:
        return token_lens
    index = torch.arange(1, tokens.shape[1], device=tokens.device)
    repeats = (tokens[:, 1:] == tokens[:, :-1]) & (index[None, :] < token_lens[:, None])
    return token_lens + repeats.sum(dim=1)
