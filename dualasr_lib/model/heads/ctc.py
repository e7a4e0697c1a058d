"""The CTC head, its loss, its score of given texts, and which utterances have none.

The loss of k2 is in `dualasr_lib.lattice.ctc_loss`, which this module does not know; a caller picks
one by `CtcLossConfig.implementation`.

Letters: N batch, S encoder frames (25 Hz), U tokens, V vocabulary (blank = 0), C channels,
P texts of all utterances.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dualasr_lib.core.ctc_frames import ctc_frames_of_batch
from dualasr_lib.model.encoder import Encoded
from dualasr_lib.model.heads.contract import Head, HeadSizes, NbestTexts, Targets

__all__ = [
    "CtcHead",
    "CtcHeadConfig",
    "CtcLoss",
    "CtcLossConfig",
    "CtcReading",
    "ctc_text_scores",
    "has_no_alignment",
    "torch_ctc_loss",
]

CtcLoss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(log_probs (N, S, V), lens (N,), tokens (N, U), token_lens (N,)) -> negative log-likelihoods
(N,); 0, without gradient, where `has_no_alignment`.
"""


@dataclass(frozen=True, kw_only=True)
class CtcHeadConfig:
    """Each CTC head."""

    dropout: float = 0.1
    """Dropout before the output layer."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must lie in [0, 1), but is {self.dropout}")


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


class CtcReading(NamedTuple):
    """What the head says of a batch."""

    log_probs: Tensor
    """(N, S, V) float32 natural log-probabilities."""
    lens: Tensor
    """(N,) valid frames."""
    targets: Targets
    impossible: Tensor
    """(N,) bool."""


class CtcHead(Head):
    """One linear layer; blank is token 0."""

    name: ClassVar[str] = "ctc"
    speaks_by_frame: ClassVar[bool] = True

    def __init__(self, options: CtcHeadConfig, sizes: HeadSizes) -> None:
        super().__init__(options, sizes)
        self.dropout = nn.Dropout(options.dropout)
        self.projection = nn.Linear(sizes.dim, sizes.vocab_size)

    def forward(self, states: Encoded, targets: Targets) -> CtcReading:
        log_probs = self.frames(states.h)
        impossible = has_no_alignment(states.lens, targets.tokens, targets.lens)
        return CtcReading(log_probs, states.lens, targets, impossible)

    def loss(self, reading: CtcReading, criterion: CtcLoss | None = None) -> Tensor:
        """The criterion is `torch_ctc_loss` unless another is given."""
        nll = (criterion or torch_ctc_loss)(reading.log_probs, reading.lens, *reading.targets)
        return nll.masked_fill(reading.impossible, 0.0).sum()

    def impossible(self, reading: CtcReading) -> Tensor:
        return reading.impossible

    def frame_log_probs(self, reading: CtcReading) -> Tensor:
        return reading.log_probs

    def frames(self, h: Tensor) -> Tensor:
        """(N, S, C) -> natural log-probabilities (N, S, V) in float32."""
        # Nothing but the log-probs outlives this line: the logits have no name here, and neither
        # the projection nor the softmax keeps them for its backward pass.
        return torch.log_softmax(self.projection(self.dropout(h)), dim=2, dtype=torch.float32)

    def texts(self, states: Encoded) -> list[tuple[int, ...]]:
        """The best token of each frame, repeats merged, blanks dropped."""
        best = self.frames(states.h).argmax(dim=2)
        rows = (row[:size] for row, size in zip(best.tolist(), states.lens.tolist()))
        return [tuple(token for token, _ in groupby(row) if token) for row in rows]

    def score(self, states: Encoded, texts: NbestTexts) -> Tensor:
        """Sums over all alignments; minus infinity where there is none."""
        return ctc_text_scores(self.frames(states.h), states.lens, texts)


def ctc_text_scores(log_probs: Tensor, lens: Tensor, texts: NbestTexts) -> Tensor:
    """(P,) log-probabilities of texts under log_probs (N, S, V) of lens (N,) frames.

    Of each text only the columns of blank and of its own tokens are read, (P, U + 1, S).
    """
    device = log_probs.device
    tokens, token_lens, owner = (part.to(device) for part in texts)
    if not log_probs.shape[1]:
        log_probs = log_probs.new_zeros(log_probs.shape[0], 1, log_probs.shape[2])
    inside = torch.arange(tokens.shape[1], device=device)[None, :] < token_lens[:, None]
    columns = F.pad(tokens.masked_fill(~inside, 0), (1, 0))  # (P, U + 1), blank first
    rows = log_probs.double()[owner[:, None], :, columns]  # (P, U + 1, S)
    # Equal tokens must share a column: the first of them.
    labels = (columns[:, 1:, None] == columns[:, None, :]).int().argmax(dim=2)
    own_lens = lens.to(device)[owner]
    nll = F.ctc_loss(
        rows.permute(2, 0, 1), labels, own_lens.clamp(min=1), token_lens, reduction="none"
    )
    without_frames = torch.zeros_like(nll).masked_fill(token_lens > 0, -torch.inf)
    return torch.where(own_lens > 0, -nll, without_frames).float()


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
    return ctc_frames_of_batch(tokens, token_lens) > lens
