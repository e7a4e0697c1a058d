"""What a lattice search does when memory runs out: halve the batch, then the beams, and count each
such step.

Only errors that are about memory are caught; anything else is a bug and goes through. Halving the
batch changes no result; narrower beams may, which is why the count is part of every result and
summary.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from dualasr_lib.lattice.path import Path, SearchConfig, SearchResult

__all__ = ["is_memory_error", "with_fallbacks"]

Search = Callable[[Tensor, Tensor, SearchConfig], list[Path]]
"""(log_probs (N, S, V), lens (N,), config) -> N paths."""

_MIN_SEARCH_BEAM = 1.0
_MEMORY_WORDS = (  # of CUDA's and the CPU's allocators in torch 1.13 and 2.x, and of C++
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "bad_alloc",
)


def with_fallbacks(
    search: Search, log_probs: Tensor, lens: Tensor, config: SearchConfig
) -> SearchResult:
    """Runs `search`, falling back as said above.

    Raises:
        MemoryError: one utterance does not fit with the narrowest beams.
    """
    try:
        return SearchResult(search(log_probs, lens, config), 0)
    except (MemoryError, RuntimeError) as error:
        if not is_memory_error(error):
            raise
        reason = str(error)
    # Outside the handler: a live traceback would keep the failed attempt's tensors in memory.
    if log_probs.is_cuda:
        torch.cuda.empty_cache()
    return _fall_back(search, log_probs, lens, config, reason)


def is_memory_error(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, on the host or on a GPU."""
    if isinstance(error, MemoryError):
        return True
    return any(words in str(error).lower() for words in _MEMORY_WORDS)


def _fall_back(
    search: Search, log_probs: Tensor, lens: Tensor, config: SearchConfig, reason: str
) -> SearchResult:
    num_utterances = len(lens)
    if num_utterances > 1:
        half = num_utterances // 2
        first = with_fallbacks(search, log_probs[:half], lens[:half], config)
        second = with_fallbacks(search, log_probs[half:], lens[half:], config)
        return SearchResult(first.paths + second.paths, 1 + first.fallbacks + second.fallbacks)
    if config.search_beam / 2 < _MIN_SEARCH_BEAM:
        raise MemoryError(
            f"lattice search of one utterance of {int(lens[0])} frames ran out of memory "
            f"at search_beam {config.search_beam}: {reason}"
        )
    result = with_fallbacks(search, log_probs, lens, _narrower(config))
    return SearchResult(result.paths, 1 + result.fallbacks)


def _narrower(config: SearchConfig) -> SearchConfig:
    """Half of every beam; fewer active tokens follow from the output beam."""
    return replace(
        config,
        search_beam=config.search_beam / 2,
        output_beam=config.output_beam / 2,
        max_active=max(1, config.max_active // 2),
        min_active=config.min_active // 2,
    )
