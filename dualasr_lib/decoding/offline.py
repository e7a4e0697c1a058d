"""Offline decoding: batches -> what heads say -> search -> hypotheses, timed.

The model and the search come in as functions; this module knows neither features nor k2. The
real-time factor counts what both take (wall time), not the reading of features, on as many threads
as torch uses.

N utterances, S encoder frames, V tokens.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol, TypeVar

from dualasr_lib.core.arrays import Array, without_gradient
from dualasr_lib.decoding.budget import Budget
from dualasr_lib.decoding.contract import Frames, frames_of
from dualasr_lib.decoding.hypothesis import Hypothesis, PathLike, ScoredText

__all__ = [
    "Decoded",
    "Detokenise",
    "Heard",
    "OfflineBatch",
    "OfflineSearch",
    "ScoreTexts",
    "Searched",
    "decode_batches",
    "token_texts",
]

Detokenise = Callable[[Sequence[int]], str]
"""Vocabulary ids -> text."""


def token_texts(detokenise: Detokenise, tokens: Sequence[int]) -> list[str]:
    """Of each token what it adds to the text of those before; joined they are the whole text."""
    texts = [detokenise(tokens[:count]) for count in range(len(tokens) + 1)]
    return [after[len(before) :] for before, after in pairwise(texts)]


ScoreTexts = Callable[[Sequence[Sequence[Sequence[int]]]], list[list[float]]]
"""Texts (token ids) of each utterance of a batch -> natural log-probability of each."""


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


class Heard(NamedTuple):
    """What the model makes of a batch, and what a search may ask it."""

    frames: Frames
    """By head name each (N, S, ...)."""
    lens: Array
    """(N,) valid frames."""
    score: Mapping[str, ScoreTexts] = {}
    """By head name: what that head thinks of given texts."""
    texts: Sequence[str] = ()
    """Reference texts; only the oracle reads them."""
    proposed: Sequence[Sequence[ScoredText]] = ()
    """Texts of each utterance that a first pass has listed; only a second pass has them."""
    budget: Budget | None = None
    """Time that the search has; None: as long as it takes."""

    @property
    def log_probs(self) -> Array:
        """(N, S, V) of the CTC head.

        Raises:
            ValueError: the branch has none.
        """
        return frames_of(self.frames, "ctc")

    def rows(self, head: str) -> list[Array]:
        """What one head says of each utterance, (S_i, ...) without padding.

        Raises:
            ValueError: the branch has no such head.
        """
        said = frames_of(self.frames, head)
        return [rows[:size] for rows, size in zip(said, self.lens.tolist())]

    def each(self) -> list[Frames]:
        """What all heads say of each utterance, without padding."""
        sizes = enumerate(self.lens.tolist())
        return [{head: said[i, :size] for head, said in self.frames.items()} for i, size in sizes]

    def scorer(self, head: str) -> ScoreTexts:
        """What one head thinks of given texts.

        Raises:
            ValueError: the branch has no such head.
        """
        if head not in self.score:
            raise ValueError(
                f"rescoring by the {head} head needs a branch that has one, but this one has "
                f"{', '.join(self.score) or 'none that scores texts'}"
            )
        return self.score[head]


class Searched(NamedTuple):
    """Result of a search on a batch."""

    paths: Sequence[PathLike]
    """One per utterance, in order."""
    fallbacks: int = 0
    """Times that memory ran out and less was searched, or that a beam was empty and was widened."""
    nbest: Sequence[tuple[ScoredText, ...]] = ()
    """One list per utterance, the best first; empty for searches that have none."""


OfflineSearch = Callable[[Heard], Searched]
"""A search with its options bound (`greedy.greedy_search`, `rescoring.rescored`)."""

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
    hear: Callable[[B], Heard],
    search: OfflineSearch,
    detokenise: Detokenise,
    on_batch: Callable[[Sequence[Hypothesis]], None] | None = None,
) -> Decoded:
    """Decodes every batch.

    Args:
        hear: the model.
        search: the search, its options bound.
        on_batch: called with the hypotheses of each batch when they are ready (progress, examples).
    """
    hypotheses: list[Hypothesis] = []
    compute_seconds = 0.0
    fallbacks = 0
    for batch in batches:
        start = time.perf_counter()
        with without_gradient():
            found = search(hear(batch))
        compute_seconds += time.perf_counter() - start
        fallbacks += found.fallbacks
        new = _hypotheses(batch, found, detokenise)
        hypotheses += new
        if on_batch is not None:
            on_batch(new)
    audio_seconds = sum(hypothesis.duration for hypothesis in hypotheses)
    import torch  # a batch has come out of a model: it is there

    threads = torch.get_num_threads()
    return Decoded(hypotheses, audio_seconds, compute_seconds, fallbacks, threads)


def _hypotheses(batch: OfflineBatch, found: Searched, detokenise: Detokenise) -> list[Hypothesis]:
    if len(found.paths) != len(batch.ids):
        raise ValueError(
            f"the search gave {len(found.paths)} paths for {len(batch.ids)} utterances"
        )
    nbest = found.nbest or [()] * len(batch.ids)
    return [
        Hypothesis(id_, detokenise(path.tokens), ref, path, duration, nbest=texts)
        for id_, ref, duration, path, texts in zip(
            batch.ids, batch.texts, batch.durations, found.paths, nbest
        )
    ]
