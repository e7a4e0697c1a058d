"""The standard CTC topology, arcs and log-probs in the form k2 wants, refused log-probs.

N utterances, S encoder frames, V tokens (blank 0).
"""

from typing import Any

import torch
from torch import Tensor

from dualasr_lib.lattice.backend import k2

__all__ = ["check_log_probs", "dense", "fsa_of_arcs", "full_topology"]


def full_topology(vocab_size: int) -> Any:
    """k2.Fsa: the standard CTC topology over `vocab_size` tokens, blank included; labels in,
    tokens out.
    """
    return k2.ctc_topo(vocab_size - 1, modified=False)


def fsa_of_arcs(source: Tensor, target: Tensor, label: Tensor, score: Tensor) -> Any:
    """k2.Fsa of R arcs, in the order of their sources; state 0 is the start, the highest state the
    final one, to which arcs of label -1 go.
    """
    bits = score.float().view(torch.int32)  # k2 keeps the bits of the float in an int column
    columns = [source, target, label, bits]
    return k2.Fsa(torch.stack([column.to(torch.int32) for column in columns], dim=1))


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
