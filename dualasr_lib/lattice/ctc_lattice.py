"""CTC lattices in closed form: the arcs that k2 would find with the standard CTC topology, written
down.

The standard CTC topology of V tokens has V (V + 1) arcs: 10.7 million at CSJ's 3266 characters,
far too many to search. But any state of it can be followed by any token, so no search is needed.
With s_t(v) >= 0 the shortfall of token v at frame t (the best log-prob of that frame minus that of
v), the best path through the arc that goes from token u at frame t - 1 to token v at frame t scores

    best - s_{t-1}(u) - s_t(v)

and the lattice of beam B consists of the arcs with s_{t-1}(u) + s_t(v) <= B. Time and memory depend
on the tokens within the beam at each frame, not on V. tests/lattice/test_ctc_lattice.py compares
arcs, scores and states with `k2.intersect_dense_pruned` on the full topology. The modified topology
is not offered: in it "a" and "a a" tie, which doubles or swallows characters.

N utterances, S encoder frames, V tokens (blank 0), M lattice states (a frame and a token).
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dualasr_lib.lattice.backend import k2
from dualasr_lib.lattice.path import SearchConfig
from dualasr_lib.lattice.topology import fsa_of_arcs

__all__ = ["ctc_lattices"]


class _States(NamedTuple):
    """The tokens that are kept of one utterance, frame by frame, the likeliest of a frame first."""

    frame: Tensor
    """(M,) int64, rising."""
    token: Tensor
    """(M,) int64."""
    score: Tensor
    """(M,) float32 log-prob."""
    shortfall: Tensor
    """(M,) float64 >= 0, rising within a frame."""
    begins: Tensor
    """(S + 1,) int64 first state of each frame; the last entry is M."""


class _Pairs(NamedTuple):
    """Arcs between two states."""

    source: Tensor
    """(R,) int64, rising."""
    target: Tensor
    """(R,) int64."""


def ctc_lattices(log_probs: Tensor, lens: Tensor, config: SearchConfig) -> Any:
    """CTC lattices of a batch.

    Args:
        log_probs: (N, S, V) natural log, checked by `topology.check_log_probs`.
        lens: (N,) valid frames, each >= 1, in any order.

    Returns:
        k2.Fsa with 3 axes on the device of `log_probs`; labels and aux labels are vocabulary ids
        (aux label 0: nothing is emitted), scores are log-probs.
    """
    fsas = [
        _lattice(_states(rows[:size], config), config.output_beam)
        for rows, size in zip(log_probs.detach(), lens.tolist())
    ]
    return k2.create_fsa_vec(fsas)


def _states(log_probs: Tensor, config: SearchConfig) -> _States:
    """log_probs (S, V) -> the tokens within the beam of each frame's best."""
    best = log_probs.amax(dim=1, keepdim=True)
    reach = config.output_beam
    if config.active_threshold:
        reach = min(reach, -math.log(config.active_threshold))
    keep = log_probs >= best - reach
    crowded = (keep.sum(dim=1) > config.max_tokens).nonzero()[:, 0]
    if len(crowded):
        likeliest = torch.topk(log_probs[crowded], config.max_tokens, dim=1).indices
        keep[crowded] = torch.zeros_like(keep[crowded]).scatter_(1, likeliest, True)
    frame, token = keep.nonzero(as_tuple=True)
    score = log_probs[frame, token].float()
    shortfall = best[frame, 0].double() - score
    order = torch.argsort(_place(frame, shortfall, config.output_beam))
    begins = torch.searchsorted(frame, torch.arange(len(log_probs) + 1, device=frame.device))
    return _States(frame, token[order], score[order], shortfall[order], begins)


def _lattice(states: _States, beam: float) -> Any:
    """One k2.Fsa: state 0, then those of `states`, then the final one."""
    num_states = len(states.token)
    source, target = _pairs(states, beam)
    starts = torch.arange(int(states.begins[1]), device=source.device)
    ends = torch.arange(int(states.begins[-2]), num_states, device=source.device)
    token = states.token[target]
    emits = (token != states.token[source]) & (token != 0)
    final = torch.full_like(ends, -1)
    scores = [states.score[starts], states.score[target], torch.zeros_like(states.score[ends])]
    fsa = fsa_of_arcs(
        source=torch.cat([torch.zeros_like(starts), source + 1, ends + 1]),
        target=torch.cat([starts + 1, target + 1, torch.full_like(ends, num_states + 1)]),
        label=torch.cat([states.token[starts], token, final]),
        score=torch.cat(scores),
    )
    fsa.aux_labels = torch.cat([states.token[starts], token * emits, final]).to(torch.int32)
    return fsa


def _pairs(states: _States, beam: float) -> _Pairs:
    """Every state with those of the next frame that are near enough to it."""
    # Shortfalls rise within a frame: behind a state, the near ones are the first of the next
    # frame, as many as one binary search counts.
    places = _place(states.frame, states.shortfall, beam)
    reach = _place(states.frame + 1, beam - states.shortfall, beam)
    begins = states.begins[states.frame + 1]
    counts = torch.searchsorted(places, reach, right=True) - begins
    source = torch.arange(len(begins), device=begins.device).repeat_interleave(counts)
    number = torch.arange(len(source), device=source.device) - (counts.cumsum(0) - counts)[source]
    return _Pairs(source, begins[source] + number)


def _place(frame: Tensor, shortfall: Tensor, beam: float) -> Tensor:
    """One number that rises with the frame and, within it, with the shortfall (0 ... beam)."""
    return frame * (2.0 * beam) + shortfall
