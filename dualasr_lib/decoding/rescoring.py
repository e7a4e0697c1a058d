"""Choosing among what a lattice offers, by a weighted sum of scores; and finding the weights.

    score(text) = ctc + scales.lm * lm + scales.attention * attention          (natural logs)

A search first proposes `Candidates` for each utterance (an n-best list, a lattice with a language
model, a search that takes the weight as an option), which cost most of the time and do not depend
on the scales. Trying another pair of scales is then cheap, and that is how `tune` finds the pair
with the fewest errors. Tune on validation data only.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, Protocol, TypeVar

import torch

from dualasr_lib.decoding.hypothesis import PathLike, ScoredText, TokenPath
from dualasr_lib.decoding.offline import Detokenise, Heard, OfflineBatch, OfflineSearch, Searched
from dualasr_lib.metrics.error_rate import ErrorCounts, count_errors

__all__ = [
    "Align",
    "Candidates",
    "GridPoint",
    "NbestCandidates",
    "Proposals",
    "Propose",
    "Scales",
    "Tuned",
    "rescored",
    "tune",
]


@dataclass(frozen=True, kw_only=True)
class Scales:
    """Weights of the scores beside that of CTC, which has 1."""

    lm: float = 0.0
    """Of the language model."""
    attention: float = 0.0
    """Of the attention decoder."""

    def __post_init__(self) -> None:
        if not (0 <= self.lm < math.inf and 0 <= self.attention < math.inf):
            raise ValueError(
                f"scales must be finite and not negative, but are lm={self.lm}, "
                f"attention={self.attention}"
            )

    def total(self, text: ScoredText) -> float:
        """The weighted sum; a score that is not there counts 0, as does one of weight 0, be it
        minus infinity.
        """
        lm = self.lm * (text.lm or 0.0) if self.lm else 0.0
        attention = self.attention * (text.attention or 0.0) if self.attention else 0.0
        return text.ctc + lm + attention


class Candidates(Protocol):
    """What may have been said in one utterance."""

    def best(self, scales: Scales) -> PathLike:
        """The best path for these weights; its score is the weighted sum."""

    def ranked(self, scales: Scales) -> tuple[ScoredText, ...]:
        """All texts, the best first; empty if they are not listed."""


class Proposals(NamedTuple):
    """Candidates of a batch, in its order."""

    candidates: Sequence[Candidates]
    fallbacks: int
    """Times that memory ran out and less was searched."""


Propose = Callable[[Heard], Proposals]

Align = Callable[[tuple[int, ...]], tuple[int, ...]]
"""Tokens -> the frame of each."""

B = TypeVar("B", bound=OfflineBatch)


class NbestCandidates:
    """An n-best list.

    Args:
        texts: at least one.
        align: tokens -> the frames at which they were said; asked for a text that wins, once.
    """

    def __init__(self, texts: Sequence[ScoredText], align: Align) -> None:
        self._texts = tuple(texts)
        self._align = cache(align)

    def best(self, scales: Scales) -> TokenPath:
        """The text with the highest sum; the first of equals."""
        text = max(self._texts, key=scales.total)
        return TokenPath(text.tokens, self._align(text.tokens), scales.total(text))

    def ranked(self, scales: Scales) -> tuple[ScoredText, ...]:
        """All texts, the best first."""
        return tuple(sorted(self._texts, key=scales.total, reverse=True))


def rescored(propose: Propose, scales: Scales) -> OfflineSearch:
    """The search that proposes and chooses with `scales`."""

    def search(heard: Heard) -> Searched:
        candidates, fallbacks = propose(heard)
        return Searched(
            [item.best(scales) for item in candidates],
            fallbacks,
            [item.ranked(scales) for item in candidates],
        )

    return search


class GridPoint(NamedTuple):
    """What a pair of scales gives on the tuning data."""

    scales: Scales
    cer: float


class Tuned(NamedTuple):
    """The result of `tune`."""

    scales: Scales
    """Those of the lowest error rate; of equals the smallest (they rely on CTC most)."""
    grid: list[GridPoint]
    """All that were tried."""
    fallbacks: int


def tune(
    batches: Iterable[B],
    hear: Callable[[B], Heard],
    propose: Propose,
    grid: Sequence[Scales],
    detokenise: Detokenise,
) -> Tuned:
    """Tries each point of `grid` on every batch; each batch is heard and searched once.

    Raises:
        ValueError: no grid, or no reference character to count errors by.
    """
    if not grid:
        raise ValueError("a grid of scales must have at least one point, but has none")
    totals = [ErrorCounts()] * len(grid)
    fallbacks = 0
    for batch in batches:
        with torch.no_grad():
            proposals = propose(hear(batch))
        fallbacks += proposals.fallbacks
        for candidates, ref in zip(proposals.candidates, batch.texts):
            errors = _Errors(ref, detokenise)
            counts = [errors.of(candidates.best(scales).tokens) for scales in grid]
            totals = [total + count for total, count in zip(totals, counts)]
    if not totals[0].num_ref:
        raise ValueError(
            "scales cannot be tuned: the data have no reference text; give them (--scales, for a"
            " second pass --second-scales)"
        )
    points = [GridPoint(scales, total.rate) for scales, total in zip(grid, totals)]
    best = min(points, key=lambda p: (p.cer, p.scales.lm + p.scales.attention))
    return Tuned(best.scales, points, fallbacks)


class _Errors:
    """Errors of texts of one utterance; many grid points choose the same one."""

    def __init__(self, ref: str, detokenise: Detokenise) -> None:
        self._ref = ref
        self._detokenise = detokenise
        self._known: dict[tuple[int, ...], ErrorCounts] = {}

    def of(self, tokens: tuple[int, ...]) -> ErrorCounts:
        if tokens not in self._known:
            self._known[tokens] = count_errors(self._ref, self._detokenise(tokens))
        return self._known[tokens]
