"""What a lattice search does when memory runs out: halve the batch, then the beam, then search the
best token of each frame only (the greedy path), and count each such step.

Only errors that are about memory are caught; anything else is a bug and goes through. Halving the
batch changes no result; a smaller lattice may, which is why the count is part of every result and
summary.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from dualasr_lib.core.memory import is_memory_error
from dualasr_lib.lattice.path import SearchConfig

__all__ = ["Found", "each_utterance", "with_fallbacks"]

T = TypeVar("T")

Search = Callable[[Tensor, Tensor, SearchConfig], list[T]]
"""(log_probs (N, S, V), lens (N,) >= 1, config) -> a result per utterance."""

_MIN_BEAM = 1.0


class Found(NamedTuple, Generic[T]):
    """Results of a batch, in its order."""

    results: list[T]
    fallbacks: int
    """Times that memory ran out and less was searched, or that a beam was empty and was widened."""


def each_utterance(
    search: Search[T], log_probs: Tensor, lens: Tensor, config: SearchConfig
) -> Found[T | None]:
    """`with_fallbacks` for lens (N,) of which some may be 0: those utterances get None."""
    index = lens.cpu().nonzero()[:, 0]
    results: list[T | None] = [None] * len(lens)
    if not len(index):
        return Found(results, 0)
    rows = log_probs.detach()[index.to(log_probs.device)]
    found = with_fallbacks(search, rows, lens.cpu()[index], config)
    for position, result in zip(index.tolist(), found.results):
        results[position] = result
    return Found(results, found.fallbacks)


def with_fallbacks(
    search: Search[T], log_probs: Tensor, lens: Tensor, config: SearchConfig
) -> Found[T]:
    """Runs `search`, falling back as said above.

    Raises:
        MemoryError: one utterance does not fit with one token per frame.
    """
    try:
        return Found(search(log_probs, lens, config), 0)
    except (MemoryError, RuntimeError) as error:
        if not is_memory_error(error):
            raise
        reason = str(error)
    # Outside the handler: a live traceback would keep the failed attempt's tensors in memory.
    if log_probs.is_cuda:
        torch.cuda.empty_cache()
    return _fall_back(search, log_probs, lens, config, reason)


def _fall_back(
    search: Search[T], log_probs: Tensor, lens: Tensor, config: SearchConfig, reason: str
) -> Found[T]:
    num_utterances = len(lens)
    if num_utterances > 1:
        half = num_utterances // 2
        first = with_fallbacks(search, log_probs[:half], lens[:half], config)
        second = with_fallbacks(search, log_probs[half:], lens[half:], config)
        return Found(first.results + second.results, 1 + first.fallbacks + second.fallbacks)
    if config.max_tokens == 1:
        raise MemoryError(
            f"lattice search of one utterance of {int(lens[0])} frames ran out of memory "
            f"with one token per frame: {reason}"
        )
    found = with_fallbacks(search, log_probs, lens, _smaller(config))
    return Found(found.results, 1 + found.fallbacks)


def _smaller(config: SearchConfig) -> SearchConfig:
    """Half the beam; in the end one token per frame."""
    if config.output_beam / 2 < _MIN_BEAM:
        return replace(config, max_tokens=1)
    return replace(config, output_beam=config.output_beam / 2)
