"""Weights of many scores, found one at a time: coordinate search in place of a full grid.

With four scores of a dozen weights each a grid has 20 000 points; here each sweep tries a dozen
per score. The lists of all utterances are kept, texts and scores only, and searched again at each
point, which costs a maximum over some texts. Tune on validation data only.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import torch

from dualasr_lib.decoding.hypothesis import ScoredText
from dualasr_lib.decoding.offline import Detokenise, Heard, OfflineBatch
from dualasr_lib.decoding.rescoring import GridPoint, Propose, Scales, TextErrors, Tuned, best_point
from dualasr_lib.metrics.error_rate import ErrorCounts
from dualasr_lib.metrics.units import CHARACTER, Unit

__all__ = ["any_weight", "descend", "tune_by_coordinates"]

B = TypeVar("B", bound=OfflineBatch)
Axes = Mapping[str, Sequence[float]]
"""Score -> the weights that are tried for it, at least one."""


class _Listed(NamedTuple):
    """What may have been said in one utterance."""

    texts: tuple[ScoredText, ...]
    errors: TextErrors


def tune_by_coordinates(
    batches: Iterable[B],
    hear: Callable[[B], Heard],
    propose: Propose,
    axes: Axes,
    detokenise: Detokenise,
    unit: Unit = CHARACTER,
) -> Tuned:
    """Tries the weights of one score after the other; each batch is heard and searched once.

    Args:
        propose: lists texts (`Candidates.ranked`).
        unit: what errors are counted in.

    Raises:
        ValueError: no axis, or no reference unit to count errors by.
    """
    lists: list[_Listed] = []
    fallbacks = 0
    for batch in batches:
        with torch.no_grad():
            proposals = propose(hear(batch))
        for candidates, ref in zip(proposals.candidates, batch.texts):
            texts = candidates.ranked(Scales())
            lists.append(_Listed(texts, TextErrors(ref, detokenise, unit)))
        fallbacks += proposals.fallbacks + proposals.later()

    def rate(scales: Scales) -> float:
        counts = (item.errors.of(max(item.texts, key=scales.total).tokens) for item in lists)
        return sum(counts, ErrorCounts()).rate

    if not any(item.errors.has_reference for item in lists):
        raise ValueError(
            "scales cannot be tuned: the data have no reference text; give them (--scales, for a"
            " second pass --second-scales)"
        )
    points = descend(rate, axes)
    return Tuned(best_point(points).scales, points, fallbacks)


def descend(rate: Callable[[Scales], float], axes: Axes) -> list[GridPoint]:
    """Every point that was tried, each once, on the ways down from two starts: the weights that go
    without saying, and all scores alike. A way goes on while a sweep over all axes finds a point
    that is better, or as good and smaller.

    Raises:
        ValueError: no axis.
    """
    if not axes:
        raise ValueError("scales are tuned along at least one axis, but there is none")
    tried: dict[Scales, GridPoint] = {}

    def at(scales: Scales) -> GridPoint:
        if scales not in tried:
            tried[scales] = GridPoint(scales, rate(scales))
        return tried[scales]

    alike = dict.fromkeys(axes, 1.0)
    for start in (Scales(), Scales(**alike)):
        here, before = at(start), None
        while here != before:
            before = here
            for name, values in axes.items():
                others = {n: here.scales.weight(n) for n in axes if n != name}
                line = [Scales(**others, **{name: value}) for value in values]
                here = best_point(
                    [here, *(at(scales) for scales in line if any_weight(scales, axes))]
                )
    return list(tried.values())


def any_weight(scales: Scales, names: Iterable[str]) -> bool:
    """Whether one of the scores counts at all; without any, all texts would be equal."""
    return any(scales.weight(name) > 0 for name in (*names, "ctc"))
