"""Each text's own vocabulary: the columns of log-probs that its alignments can pass.

All other columns are on no alignment of the text. Leaving them out is exact, and at V = 3266 most
of the time and memory.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Narrow", "narrow"]


class Narrow(NamedTuple):
    """P texts over their own tokens."""

    columns: Tensor
    """(P, A) int64 vocabulary ids: the blank, the tokens of the text rising, then blanks."""
    texts: list[list[int]]
    """The texts as numbers of columns."""


def narrow(texts: Sequence[Sequence[int]]) -> Narrow:
    """The columns that each of `texts` needs, and the texts in terms of them."""
    used = [[0, *sorted(set(text))] for text in texts]
    width = max(map(len, used))
    columns = torch.tensor([ids + [0] * (width - len(ids)) for ids in used])
    places = [{token: column for column, token in enumerate(ids)} for ids in used]
    return Narrow(columns, [[place[t] for t in text] for place, text in zip(places, texts)])
