"""Offline decoding: batches -> log-probs -> search -> hypotheses, timed.

The model and the search come in as functions; this module knows neither features nor k2. The
real-time factor counts what both take (wall time), not the reading of features, on as many threads
as torch uses.

N utterances, S encoder frames, V tokens.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from dualasr_lib.decoding.hypothesis import Hypothesis, PathLike

__all__ = ["Decoded", "Detokenise", "OfflineBatch", "OfflineSearch", "Searched", "decode_batches"]

Detokenise = Callable[[Sequence[int]], str]
"""Vocabulary ids -> text."""


class OfflineBatch(Protocol):
    """What decoding needs to know of a batch (`data.batch.Batch` has it)."""

    @property
    def ids(self) -> Sequence[str]:
        """Utterance ids."""

    @property
    def texts(self) -> Sequence[str]:
        """Reference texts."""

    @property
    def durations(self) -> Sequence[float]:
        """Audio of each utterance, seconds."""


class Searched(Protocol):
    """Result of a search on a batch."""

    @property
    def paths(self) -> Sequence[PathLike]:
        """One per utterance, in order."""

    @property
    def fallbacks(self) -> int:
        """Times that memory ran out and less was searched."""


OfflineSearch = Callable[[Tensor, Tensor], Searched]
"""(log_probs (N, S, V), lens (N,)) -> paths: `greedy_search`, or `lattice.search.one_best` with
its options.
"""

B = TypeVar("B", bound=OfflineBatch)


class Decoded(NamedTuple):
    """A decoded split."""

    hypotheses: list[Hypothesis]
    audio_seconds: float
    compute_seconds: float
    """Wall time of model and search."""
    fallbacks: int
    num_threads: int
    """Threads that torch used inside an operation."""

    @property
    def rtf(self) -> float | None:
        """Compute time / audio time; None without audio."""
        return self.compute_seconds / self.audio_seconds if self.audio_seconds else None


def decode_batches(
    batches: Iterable[B],
    log_probs: Callable[[B], tuple[Tensor, Tensor]],
    search: OfflineSearch,
    detokenise: Detokenise,
    on_batch: Callable[[Sequence[Hypothesis]], None] | None = None,
) -> Decoded:
    """Decodes every batch.

    Args:
        log_probs: batch -> (N, S, V) natural log, and lens (N,).
        search: the search, its options bound.
        on_batch: called with the hypotheses of each batch when they are ready (progress, examples).
    """
    hypotheses: list[Hypothesis] = []
    compute_seconds = 0.0
    fallbacks = 0
    for batch in batches:
        start = time.perf_counter()
        with torch.no_grad():
            found = search(*log_probs(batch))
        compute_seconds += time.perf_counter() - start
        fallbacks += found.fallbacks
        new = _hypotheses(batch, found.paths, detokenise)
        hypotheses += new
        if on_batch is not None:
            on_batch(new)
    audio_seconds = sum(hypothesis.duration for hypothesis in hypotheses)
    return Decoded(hypotheses, audio_seconds, compute_seconds, fallbacks, torch.get_num_threads())


def _hypotheses(
    batch: OfflineBatch, paths: Sequence[PathLike], detokenise: Detokenise
) -> list[Hypothesis]:
    if len(paths) != len(batch.ids):
        raise ValueError(f"the search gave {len(paths)} paths for {len(batch.ids)} utterances")
    return [
        Hypothesis(id_, detokenise(path.tokens), ref, path, duration)
        for id_, ref, duration, path in zip(batch.ids, batch.texts, batch.durations, paths)
    ]
