"""The CTC loss as a lattice computation of k2, with an optional penalty on late emission.

Plain: value and gradient equal `torch.nn.functional.ctc_loss` as long as the beam is wide (at 20
the value agrees to 1e-6 relative and the gradient to 3e-5; at 5 the gradient is off by 2 %).

Delay penalty L >= 0 (arXiv 2211.00490), as k2 defines it: an alignment that emits its tokens at
frames t_1 ... t_U (the first frame of each; frames count from 0) gets

    log p(alignment) + L * sum over u of (floor(S / 2) - t_u)

so early alignments weigh more, and the loss is minus the log-sum of that over the alignments. It is
no likelihood any more and may be negative. Alignments are pruned by `beam` before the penalty.

Of the V columns only those of an utterance's own tokens are handed to k2 (see `narrow`).

N utterances, S encoder frames, U tokens, V vocabulary (blank 0), A tokens of a text and the blank.
"""

import math

import torch
from torch import Tensor

from dualasr_lib.lattice.backend import k2
from dualasr_lib.lattice.narrow import narrow
from dualasr_lib.lattice.topology import dense

__all__ = ["k2_ctc_loss"]


def k2_ctc_loss(
    log_probs: Tensor,
    lens: Tensor,
    tokens: Tensor,
    token_lens: Tensor,
    delay_penalty: float = 0.0,
    beam: float = 20.0,
) -> Tensor:
    """Negative log-likelihood of each utterance.

    Args:
        log_probs: (N, S, V) natural log, any order of lengths.
        lens: (N,) valid frames.
        tokens: (N, U) padded with anything.
        token_lens: (N,) valid tokens; 0 is allowed.
        delay_penalty: >= 0, nats per token and frame.
        beam: arcs whose best path is further below the best alignment are left out.

    Returns:
        (N,) float32; 0, without gradient, where no alignment exists (too few frames); NaN where a
        valid frame has NaN, which k2 by itself would take for an impossible text.
    """
    if not (delay_penalty >= 0 and beam > 0):
        raise ValueError(
            f"`delay_penalty` must be >= 0 and `beam` > 0, but are {delay_penalty} and {beam}"
        )
    lens = lens.cpu()
    order = torch.argsort(lens, descending=True, stable=True)  # k2 wants the longest first
    order = order[lens[order] > 0]  # an empty utterance gives 0 with or without text
    losses = log_probs.new_zeros(len(lens), dtype=torch.float32)
    if not len(order):
        return losses + 0.0 * log_probs.sum()
    sizes = token_lens.tolist()
    columns, texts = narrow([row[:size] for row, size in zip(tokens.tolist(), sizes)])
    index = order.to(log_probs.device)
    # (N, S, V) -> (N, S, A)
    own = log_probs.gather(
        2, columns.to(log_probs.device)[:, None].expand(-1, log_probs.shape[1], -1)
    )[index]
    sorted_losses = k2.ctc_loss(
        k2.ctc_graph([texts[i] for i in order.tolist()], modified=False, device=log_probs.device),
        dense(own, lens[order]),
        output_beam=beam,
        delay_penalty=delay_penalty,
        reduction="none",
    )
    finite = torch.where(sorted_losses.isposinf(), losses[index], sorted_losses)
    broken = _has_nan(own.detach(), lens[order].to(log_probs.device))
    return losses.index_copy(0, index, finite.masked_fill(broken, math.nan))


def _has_nan(log_probs: Tensor, lens: Tensor) -> Tensor:
    """(N,) bool: whether a valid frame of log_probs (N, S, A) has NaN."""
    valid = torch.arange(log_probs.shape[1], device=lens.device)[None, :] < lens[:, None]
    return (log_probs.isnan().any(dim=2) & valid).any(dim=1)
