"""CTC head of one branch, its loss, and which utterances have none.

The loss of k2 is in `dualasr_lib.lattice.ctc_loss`, which this module does not know; a caller picks
one by `CtcLossConfig.implementation`.

Letters: N batch, S encoder frames (25 Hz), U tokens, V vocabulary (blank = 0), C channels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "CtcHead",
    "CtcLoss",
    "CtcLossConfig",
    "has_no_alignment",
    "min_ctc_frames",
    "torch_ctc_loss",
]

CtcLoss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(log_probs (N, S, V), lens (N,), tokens (N, U), token_lens (N,)) -> negative log-likelihoods
(N,); 0, without gradient, where `has_no_alignment`.
"""


@dataclass(frozen=True, kw_only=True)
class CtcLossConfig:
    """Which CTC loss, and what only the one of k2 can do."""

    implementation: Literal["torch", "k2"] = "torch"
    """Who computes it; without a delay penalty both give the same value and gradient."""
    delay_penalty: float = 0.0
    """Nats that each token loses per frame that it is emitted later (k2 only); 0 is plain CTC,
    published values for streaming are about 0.001 to 0.01 (arXiv 2211.00490)."""
    beam: float = 20.0
    """k2 only: alignments that are less likely than the best one by more nats are left out."""

    def __post_init__(self) -> None:
        if not self.delay_penalty >= 0:
            raise ValueError(f"delay_penalty must be >= 0, but is {self.delay_penalty}")
        if self.delay_penalty and self.implementation != "k2":
            raise ValueError(
                'delay_penalty must be 0 unless implementation = "k2", '
                f"but is {self.delay_penalty} with {self.implementation!r}"
            )
        if not self.beam > 0:
            raise ValueError(f"beam must be > 0, but is {self.beam}")


class CtcHead(nn.Module):
    """(N, S, C) -> natural log-probabilities (N, S, V) in float32."""

    def __init__(self, dim: int, vocab_size: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(dim, vocab_size)

    def forward(self, h: Tensor) -> Tensor:
        # Nothing but the log-probs outlives this line: the logits have no name here, and neither
        # the projection nor the softmax keeps them for its backward pass.
        return torch.log_softmax(self.projection(self.dropout(h)), dim=2, dtype=torch.float32)


def torch_ctc_loss(log_probs: Tensor, lens: Tensor, tokens: Tensor, token_lens: Tensor) -> Tensor:
    """Negative log-likelihoods (N,); 0, without gradient, where no alignment exists.

    The gradient is right only behind a log-softmax: torch's derivative by `log_probs` is what is to
    arrive at the logits.
    """
    if not log_probs.shape[1]:
        return 0.0 * log_probs.sum(dim=(1, 2))
    # torch wants lengths on the CPU: one transfer here instead of four of its own
    frames, texts = torch.stack([lens, token_lens]).cpu()
    losses = F.ctc_loss(
        log_probs.transpose(0, 1),
        tokens,
        frames.clamp(min=1),  # torch 1.13.1 reads outside of its memory where there is no frame
        texts,
        blank=0,
        reduction="none",
        zero_infinity=True,
    )
    return losses.masked_fill((lens == 0).to(losses.device), 0.0)


def has_no_alignment(lens: Tensor, tokens: Tensor, token_lens: Tensor) -> Tensor:
    """(N,) bool: True where the CTC loss is infinite, because the text needs more frames than
    there are.

    Args:
        lens: (N,) valid encoder frames.
        tokens: (N, U) padded with anything.
        token_lens: (N,) valid tokens; an empty text fits into any length, 0 too.
    """
    return min_ctc_frames(tokens, token_lens) > lens


def min_ctc_frames(tokens: Tensor, token_lens: Tensor) -> Tensor:
    """(N,) frames that an alignment needs: one per token, and a blank between equal neighbours."""
    if tokens.shape[1] < 2:
        return token_lens
    index = torch.arange(1, tokens.shape[1], device=tokens.device)
    repeats = (tokens[:, 1:] == tokens[:, :-1]) & (index[None, :] < token_lens[:, None])
    return token_lens + repeats.sum(dim=1)
