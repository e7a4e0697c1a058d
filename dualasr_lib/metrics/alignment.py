"""Levenshtein alignment of two sequences, with a deterministic choice among the alignments of
equal cost.

Costs: insertion, deletion and substitution 1 each (the costs of NIST's and Kaldi's error rates
with unit weights). It leaves out weighted costs and alignments of time stamps.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Pair", "align", "distance"]


class Pair(NamedTuple):
    """One column of an alignment: equal items, a substitution, a deletion or an insertion."""

    ref: str | None
    """Reference item; None for an insertion."""
    hyp: str | None
    """Hypothesis item; None for a deletion."""


def align(ref: Sequence[str], hyp: Sequence[str]) -> list[Pair]:
    """A cheapest alignment of `ref` and `hyp`, in order.

    Where several are cheapest the one is taken that, read from the end, prefers a match or
    substitution, then a deletion, then an insertion.
    """
    table = _cost_table(ref, hyp)
    pairs: list[Pair] = []
    i, j = len(ref), len(hyp)
    while i or j:
        if i and j and table[i, j] == table[i - 1, j - 1] + (ref[i - 1] != hyp[j - 1]):
            i, j = i - 1, j - 1
            pairs.append(Pair(ref[i], hyp[j]))
        elif i and table[i, j] == table[i - 1, j] + 1:
            i -= 1
            pairs.append(Pair(ref[i], None))
        else:
            j -= 1
            pairs.append(Pair(None, hyp[j]))
    return pairs[::-1]


def distance(ref: Sequence[str], hyp: Sequence[str]) -> int:
    """Smallest number of insertions, deletions and substitutions that turn `ref` into `hyp`."""
    return int(_cost_table(ref, hyp)[len(ref), len(hyp)])


def _cost_table(ref: Sequence[str], hyp: Sequence[str]) -> npt.NDArray[np.int64]:
    """(len(ref) + 1, len(hyp) + 1): distance of each pair of prefixes."""
    codes: dict[str, int] = {}
    hyp_codes = np.array([codes.setdefault(item, len(codes)) for item in hyp], dtype=np.int64)
    steps = np.arange(len(hyp) + 1)
    table = np.empty((len(ref) + 1, len(hyp) + 1), dtype=np.int64)
    table[0] = steps
    for i, item in enumerate(ref, start=1):
        row = table[i]
        row[0] = i
        diagonal = table[i - 1, :-1] + (hyp_codes != codes.get(item, -1))
        row[1:] = np.minimum(diagonal, table[i - 1, 1:] + 1)
        # An insertion reads the same row: row[j] = min over k <= j of row[k] + (j - k).
        np.minimum.accumulate(row - steps, out=row)
        row += steps
    return table
