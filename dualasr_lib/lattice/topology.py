"""CTC topologies, whole or restricted to the tokens that matter, and log-probs in the form k2
wants.

The standard CTC topology of V tokens has V (V + 1) arcs: 10.7 million at CSJ's 3266 characters. An
utterance uses few of them. In a search without a language model the best path takes the best token
of each frame, so a path through token v at frame s scores at most best - (best_s - log_prob_s(v)).
A token that falls short of the best by more than the output beam at *every* frame is therefore on
no path of the lattice, and leaving it out changes nothing. `restrict` keeps the other tokens of
each utterance, renumbers them and remembers the way back. The modified topology is not offered: in
it "a" and "a a" tie, which doubles or swallows characters.

N utterances, S encoder frames, V tokens (blank 0), A active tokens.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dualasr_lib.lattice.backend import k2

__all__ = ["Restricted", "active_tokens", "check_log_probs", "dense", "full_topology", "restrict"]


class Restricted(NamedTuple):
    """Log-probs and topologies of a batch over each utterance's own active tokens."""

    graphs: Any
    """k2.Fsa with 3 axes: the standard CTC topology of each utterance over its A_i tokens."""
    log_probs: Tensor
    """(N, S, max A_i): columns gathered per utterance; columns beyond A_i are -inf and never read.
    """
    tokens: tuple[tuple[int, ...], ...]
    """Per utterance the vocabulary id of each column, rising, blank first."""


def full_topology(vocab_size: int) -> Any:
    """k2.Fsa: the standard CTC topology over `vocab_size` tokens, blank included; labels in,
    tokens out.
    """
    return k2.ctc_topo(vocab_size - 1, modified=False)


def active_tokens(log_probs: Tensor, threshold: float, max_tokens: int) -> Tensor:
    """Vocabulary ids worth searching in one utterance.

    Args:
        log_probs: (S, V) with S >= 1.
        threshold: a token stays if at some frame its posterior is at least `threshold` times that
            of the best.
        max_tokens: at most so many stay, those that come nearest to the best of some frame; tokens
            that are the best of a frame always stay, so this bound never changes the best path.

    Returns:
        (A,) int64, rising; the first is the blank.
    """
    shortfall = (log_probs.amax(dim=1, keepdim=True) - log_probs).amin(dim=0)  # (S, V) -> (V,)
    shortfall[0] = 0.0
    keep = shortfall <= -math.log(threshold)
    if int(keep.sum()) > max_tokens:
        nearest = torch.topk(shortfall, max_tokens, largest=False).indices
        keep = (shortfall == 0).index_fill(0, nearest, True)
    return keep.nonzero()[:, 0]


def restrict(log_probs: Tensor, lens: Tensor, threshold: float, max_tokens: int) -> Restricted:
    """Restricts each utterance of log_probs (N, S, V), lens (N,) >= 1, to its active tokens."""
    ids = [
        active_tokens(rows[:length], threshold, max_tokens)
        for rows, length in zip(log_probs, lens.tolist())
    ]
    width = max(len(tokens) for tokens in ids)
    narrow = log_probs.new_full((*log_probs.shape[:2], width), -math.inf)
    for rows, source, tokens in zip(narrow, log_probs, ids):
        rows[:, : len(tokens)] = source[:, tokens]
    graphs = k2.create_fsa_vec([full_topology(len(tokens)) for tokens in ids])
    return Restricted(
        graphs.to(log_probs.device), narrow, tuple(tuple(tokens.tolist()) for tokens in ids)
    )


def dense(log_probs: Tensor, lens: Tensor) -> Any:
    """k2.DenseFsaVec of log_probs (N, S, V) with lens (N,) >= 1, longest first."""
    num_utterances = len(lens)
    segments = torch.zeros(num_utterances, 3, dtype=torch.int32)  # (utterance, first frame, frames)
    segments[:, 0] = torch.arange(num_utterances)
    segments[:, 2] = lens.cpu()
    return k2.DenseFsaVec(log_probs, segments)


def check_log_probs(log_probs: Tensor, lens: Tensor) -> None:
    """Raises ValueError unless log_probs (N, S, V) and lens (N,) fit and each valid frame has a
    finite best.

    NaN, +inf, or a frame of -inf only would make k2 return an empty lattice or read nonsense
    without a word.
    """
    if log_probs.dim() != 3 or lens.shape != log_probs.shape[:1]:
        raise ValueError(
            "log_probs must be (N, S, V) and lens (N,), "
            f"but they are {tuple(log_probs.shape)} and {tuple(lens.shape)}"
        )
    num_frames = log_probs.shape[1]
    if lens.numel() and not 0 <= int(lens.min()) <= int(lens.max()) <= num_frames:
        raise ValueError(f"lens must lie in 0..{num_frames}, but are {lens.tolist()}")
    valid = torch.arange(num_frames, device=lens.device) < lens[:, None]  # (N, S)
    bad = valid.to(log_probs.device) & ~log_probs.amax(dim=2).isfinite()
    if bool(bad.any()):
        utterance, frame = bad.nonzero()[0].tolist()
        raise ValueError(
            f"log_probs must have a finite best token at each frame, but frame {frame} "
            f"of utterance {utterance} of the batch has NaN, +inf or only -inf"
        )
