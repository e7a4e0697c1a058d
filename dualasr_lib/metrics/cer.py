"""Character error rate: (insertions + deletions + substitutions) / reference characters.

Characters are Unicode code points of the text with all white space removed, because Japanese
writes none; nothing else is normalised here (`NORMALISATION` states it for reports). It leaves out
word error rates.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from dualasr_lib.metrics.alignment import Pair, align

__all__ = ["NORMALISATION", "ErrorCounts", "characters", "count_errors", "count_pairs"]

NORMALISATION = "white space removed; one Unicode code point = one character"


@dataclass(frozen=True)
class ErrorCounts:
    """Errors of one utterance, or their sum over many: `sum(counts, ErrorCounts())`."""

    insertions: int = 0
    deletions: int = 0
    substitutions: int = 0
    num_ref_chars: int = 0

    def __add__(self, other: "ErrorCounts") -> "ErrorCounts":
        return ErrorCounts(
            self.insertions + other.insertions,
            self.deletions + other.deletions,
            self.substitutions + other.substitutions,
            self.num_ref_chars + other.num_ref_chars,
        )

    @property
    def errors(self) -> int:
        """All errors together."""
        return self.insertions + self.deletions + self.substitutions

    @property
    def rate(self) -> float:
        """Character error rate as a fraction; NaN if there is no reference character."""
        return self.errors / self.num_ref_chars if self.num_ref_chars else math.nan


def characters(text: str) -> list[str]:
    """The characters of `text` that are counted."""
    return [char for char in text if not char.isspace()]


def count_errors(ref: str, hyp: str) -> ErrorCounts:
    """Errors of text `hyp` against text `ref`."""
    return count_pairs(align(characters(ref), characters(hyp)))


def count_pairs(pairs: Iterable[Pair]) -> ErrorCounts:
    """Errors of an alignment."""
    insertions = deletions = substitutions = num_ref_chars = 0
    for ref, hyp in pairs:
        num_ref_chars += ref is not None
        insertions += ref is None
        deletions += hyp is None
        substitutions += ref is not None and hyp is not None and ref != hyp
    return ErrorCounts(insertions, deletions, substitutions, num_ref_chars)
