"""Offline lattice search: `one_best` is the best path of the k2 CTC lattice of each utterance.

The lattice comes from `k2.intersect_dense_pruned` on the standard CTC topology over each
utterance's own active tokens (see `topology`), so that time and memory do not grow with the
vocabulary and one utterance never changes another. n-best lists and graphs with a language model
build on `lattices`.

N utterances, S encoder frames, V tokens (blank 0).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from dualasr_lib.lattice.backend import k2
from dualasr_lib.lattice.fallback import with_fallbacks
from dualasr_lib.lattice.path import Path, SearchConfig, SearchResult, best_paths
from dualasr_lib.lattice.topology import check_log_probs, dense, restrict

__all__ = ["Lattices", "Path", "SearchConfig", "SearchResult", "lattices", "one_best"]


class Lattices(NamedTuple):
    """CTC lattices of a batch."""

    fsa: Any
    """k2.Fsa with 3 axes; labels and aux labels count the utterance's active tokens."""
    tokens: tuple[tuple[int, ...], ...]
    """Per utterance the vocabulary id of each such label."""


def one_best(log_probs: Tensor, lens: Tensor, config: SearchConfig) -> SearchResult:
    """Best path of each utterance, with memory fall-backs counted.

    Args:
        log_probs: (N, S, V) natural log; frames from `lens` on may hold anything.
        lens: (N,) valid frames; 0 gives the empty path.

    Raises:
        ValueError: shapes do not fit, or a valid frame has no finite best token.
        MemoryError: a single utterance does not fit in memory with the narrowest beams.
    """
    check_log_probs(log_probs, lens)
    log_probs = log_probs.detach()
    paths = [Path((), (), 0.0)] * len(lens)
    order = torch.argsort(lens.cpu(), descending=True, stable=True)  # k2 wants the longest first
    order = order[lens.cpu()[order] > 0]
    if not len(order):
        return SearchResult(paths, 0)
    index = order.to(log_probs.device)
    found = with_fallbacks(_best, log_probs[index], lens.cpu()[order], config)
    for position, path in zip(order.tolist(), found.paths):
        paths[position] = path
    return SearchResult(paths, found.fallbacks)


def lattices(log_probs: Tensor, lens: Tensor, config: SearchConfig) -> Lattices:
    """CTC lattices of log_probs (N, S, V), lens (N,) >= 1 falling; no memory fall-back."""
    restricted = restrict(log_probs, lens, config.threshold, config.max_tokens)
    fsa = k2.intersect_dense_pruned(
        restricted.graphs,
        dense(restricted.log_probs, lens),
        search_beam=config.search_beam,
        output_beam=config.output_beam,
        min_active_states=config.min_active,
        max_active_states=config.max_active,
    )
    return Lattices(fsa, restricted.tokens)


def _best(log_probs: Tensor, lens: Tensor, config: SearchConfig) -> list[Path]:
    found = lattices(log_probs, lens, config)
    return [best.path for best in best_paths(found.fsa, found.tokens)]
