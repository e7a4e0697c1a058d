"""Offline lattice search: `one_best` is the best path of the CTC lattice of each utterance.

N utterances, S encoder frames, V tokens (blank 0).
"""

from torch import Tensor

from dualasr_lib.lattice.best_path import best_paths
from dualasr_lib.lattice.ctc_lattice import ctc_lattices
from dualasr_lib.lattice.fallback import each_utterance
from dualasr_lib.lattice.path import Path, SearchConfig, SearchResult
from dualasr_lib.lattice.topology import check_log_probs

__all__ = ["Path", "SearchConfig", "SearchResult", "one_best"]


def one_best(log_probs: Tensor, lens: Tensor, config: SearchConfig) -> SearchResult:
    """Best path of each utterance, with memory fall-backs counted.

    Args:
        log_probs: (N, S, V) natural log; frames from `lens` on may hold anything.
        lens: (N,) valid frames; 0 gives the empty path.

    Raises:
        ValueError: shapes do not fit, or a valid frame has no finite best token.
        MemoryError: a single utterance does not fit in memory with the smallest lattice.
    """
    check_log_probs(log_probs, lens)
    found = each_utterance(_best, log_probs, lens, config)
    paths = [Path((), (), 0.0) if path is None else path for path in found.results]
    return SearchResult(paths, found.fallbacks)


def _best(log_probs: Tensor, lens: Tensor, config: SearchConfig) -> list[Path]:
    lattice = ctc_lattices(log_probs, lens, config)
    return [best.path for best in best_paths(lattice)]
