"""Error rates: (insertions + deletions + substitutions) / reference units.

Units are characters (CER) or words (WER), as `metrics.units` splits a text; all else is the same
for both.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from dualasr_lib.metrics.alignment import Pair, align
from dualasr_lib.metrics.units import CHARACTER, Unit

__all__ = ["ErrorCounts", "count_errors", "count_pairs"]


@dataclass(frozen=True)
class ErrorCounts:
    """Errors of one utterance, or their sum over many: `sum(counts, ErrorCounts())`."""

    insertions: int = 0
    deletions: int = 0
    substitutions: int = 0
    num_ref: int = 0

    def __add__(self, other: "ErrorCounts") -> "ErrorCounts":
        return ErrorCounts(
            self.insertions + other.insertions,
            self.deletions + other.deletions,
            self.substitutions + other.substitutions,
            self.num_ref + other.num_ref,
        )

    @property
    def errors(self) -> int:
        """All errors together."""
        return self.insertions + self.deletions + self.substitutions

    @property
    def rate(self) -> float:
        """Error rate as a fraction; NaN if there is no reference unit."""
        return self.errors / self.num_ref if self.num_ref else math.nan


def count_errors(ref: str, hyp: str, unit: Unit = CHARACTER) -> ErrorCounts:
    """Errors of text `hyp` against text `ref`, in units of `unit`."""
    return count_pairs(align(unit.split(ref), unit.split(hyp)))


def count_pairs(pairs: Iterable[Pair]) -> ErrorCounts:
    """Errors of an alignment."""
    insertions = deletions = substitutions = num_ref = 0
    for ref, hyp in pairs:
        num_ref += ref is not None
        insertions += ref is None
        deletions += hyp is None
        substitutions += ref is not None and hyp is not None and ref != hyp
    return ErrorCounts(insertions, deletions, substitutions, num_ref)
