"""Choosing among what a lattice offers, by a weighted sum of scores; and finding the weights.

    score(text) = sum over names of scales[name] * text.scores[name]           (natural logs)

A search first proposes `Candidates` for each utterance (an n-best list, a lattice with a language
model, a search that takes the weight as an option), which cost most of the time and do not depend
on the scales. Trying other scales is then cheap, and that is how `tune` finds those
with the fewest errors. Tune on validation data only.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple, Protocol, TypeVar

from dualasr_lib.core.arrays import without_gradient
from dualasr_lib.decoding.hypothesis import PathLike, ScoredText, TokenPath
from dualasr_lib.decoding.offline import Detokenise, Heard, OfflineBatch, OfflineSearch, Searched
from dualasr_lib.metrics.error_rate import ErrorCounts, count_errors
from dualasr_lib.metrics.units import CHARACTER, Unit

__all__ = [
    "Align",
    "Candidates",
    "GridPoint",
    "NbestCandidates",
    "Proposals",
    "Propose",
    "Scales",
    "TextErrors",
    "Tuned",
    "best_point",
    "rescored",
    "tune",
]


class Scales(Mapping[str, float]):
    """Weights of scores by name, see `ScoredText.scores`: `Scales(lm=0.3, attention=1.0)`.

    A score that is not named has weight 0; that of CTC, the unit in which the others are given, has
    1. A weight that equals this default is the same as none, and is not listed. Of texts without a
    score of CTC the first score is the unit.
    """

    def __init__(self, **weights: float) -> None:
        if not all(0 <= weight < math.inf for weight in weights.values()):
            named = ", ".join(f"{name}={weight}" for name, weight in weights.items())
            raise ValueError(f"scales must be finite and not negative, but are {named}")
        self._weights = {n: float(w) for n, w in weights.items() if w != _default(n)}

    def __getitem__(self, name: str) -> float:
        return self._weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    def __hash__(self) -> int:
        return hash(frozenset(self._weights.items()))

    def __repr__(self) -> str:
        return f"Scales({', '.join(f'{name}={weight:g}' for name, weight in self.items())})"

    def weight(self, name: str) -> float:
        """Of any score, whether it is listed or not."""
        return self._weights.get(name, _default(name))

    @property
    def trust(self) -> float:
        """Sum of all weights but that of CTC."""
        return sum(weight for name, weight in self.items() if name != _UNIT)

    def total(self, text: ScoredText) -> float:
        """The weighted sum; a score that is not there counts 0, as does one of weight 0, be it
        minus infinity.
        """
        total, unit = 0.0, next(iter(text.scores), _UNIT)
        for name, score in text.scores.items():
            weight = self.weight(name)
            if name == unit and _UNIT not in text.scores:
                weight = self._weights.get(name, 1.0)
            total += weight * score if weight else 0.0
        return total


def _default(name: str) -> float:
    return 1.0 if name == _UNIT else 0.0


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
    """Times that memory ran out and less was searched, or that a beam was empty and was widened."""


Propose = Callable[[Heard], Proposals]

Align = Callable[[tuple[int, ...]], tuple[int, ...]]
"""Tokens -> the frame of each."""

B = TypeVar("B", bound=OfflineBatch)

_UNIT = "ctc"  # the score whose weight is 1 unless somebody says otherwise


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
    """What some scales give on the tuning data."""

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
    unit: Unit = CHARACTER,
) -> Tuned:
    """Tries each point of `grid` on every batch; each batch is heard and searched once.

    Args:
        unit: what errors are counted in.

    Raises:
        ValueError: no grid, or no reference unit to count errors by.
    """
    if not grid:
        raise ValueError("a grid of scales must have at least one point, but has none")
    totals = [ErrorCounts()] * len(grid)
    fallbacks = 0
    for batch in batches:
        with without_gradient():
            proposals = propose(hear(batch))
        fallbacks += proposals.fallbacks
        for candidates, ref in zip(proposals.candidates, batch.texts):
            errors = TextErrors(ref, detokenise, unit)
            counts = [errors.of(candidates.best(scales).tokens) for scales in grid]
            totals = [total + count for total, count in zip(totals, counts)]
    if not totals[0].num_ref:
        raise ValueError(
            "scales cannot be tuned: the data have no reference text; give them (--scales, for a"
            " second pass --second-scales)"
        )
    points = [GridPoint(scales, total.rate) for scales, total in zip(grid, totals)]
    return Tuned(best_point(points).scales, points, fallbacks)


def best_point(points: Iterable[GridPoint]) -> GridPoint:
    """The one of the lowest error rate; of equals the smallest, and the first of these."""
    return min(points, key=lambda point: (point.cer, point.scales.trust))


class TextErrors:
    """Errors of texts of one utterance; many points choose the same one."""

    def __init__(self, ref: str, detokenise: Detokenise, unit: Unit) -> None:
        self._ref = ref
        self._unit = unit
        self._detokenise = detokenise
        self._known: dict[tuple[int, ...], ErrorCounts] = {}

    @property
    def has_reference(self) -> bool:
        """Whether there is a unit to count errors by."""
        return bool(self._unit.split(self._ref))

    def of(self, tokens: tuple[int, ...]) -> ErrorCounts:
        """Of one text."""
        if tokens not in self._known:
            self._known[tokens] = count_errors(self._ref, self._detokenise(tokens), self._unit)
        return self._known[tokens]
