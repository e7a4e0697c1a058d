"""N-grams with Kneser-Ney's smoothing, as an ARPA file: back-off, not interpolated, as SRILM's
`ngram-count -ukndiscount -gt1min 0 -gt2min 0 ... -kn-modify-counts-at-end`, nothing cut off.

An n-gram has a number among those of its order: the place of (number of its first words, last
word) in sorted order. So counts are sorts of integers, some 100 bytes of memory for each token of
the text, where dictionaries of strings need 20 times as much; the text may be that of CSJ (12
million characters) or of a corpus ten times as large.
"""

import math
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["write_ngram"]

_BOS, _EOS = 0, 1
_CHUNK = 200_000  # lines of the ARPA file that are made at a time
_ALL = 1 - 1e-10  # sums of probabilities that are 1 come out as nearly that
_NEVER = 1e-99  # the probability of what has none: <s>


class _Text(NamedTuple):
    words: list[str]
    """By number; <s> and </s> are the first."""
    tokens: npt.NDArray[Any]
    """(T,) int32: their numbers, each line between <s> and </s>."""


class _Order(NamedTuple):
    """The different n-grams of one length, sorted; those with the same history are neighbours."""

    history: npt.NDArray[Any]
    """Number of the n-gram without its last word, in the order below; 0 below unigrams."""
    last: npt.NDArray[Any]
    """Number of the last word."""
    tail: npt.NDArray[Any]
    """Number of the n-gram without its first word, in the order below."""
    counts: npt.NDArray[Any]
    """How often each is there."""


def write_ngram(text: Path, order: int, arpa: Path) -> None:
    """Trains on a text of tokens between spaces (an utterance a line), and writes the ARPA file.

    Raises:
        ValueError: the text is empty, or has <s> or </s> as words.
    """
    words, tokens = _read(text)
    orders = _count(tokens, len(words), order)
    probabilities = [_probabilities(orders, n) for n in range(order)]
    backoffs = [_backoffs(orders, probabilities, n) for n in range(order - 1)]
    backoffs.append(np.full(len(orders[-1].last), np.nan))
    with open(arpa, "w", encoding="utf-8", newline="\n") as file:
        file.write("\\data\\\n")
        file.writelines(f"ngram {n}={len(each.last)}\n" for n, each in enumerate(orders, start=1))
        for n in range(order):
            file.write(f"\n\\{n + 1}-grams:\n")
            file.writelines(_lines(words, orders[: n + 1], probabilities[n], backoffs[n]))
        file.write("\n\\end\\\n")


def _read(path: Path) -> _Text:
    known = {"<s>": _BOS, "</s>": _EOS}
    tokens = array("i")
    with open(path, encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, start=1):
            words = [word for word in line.strip("\r\n").replace("\t", " ").split(" ") if word]
            if "<s>" in words or "</s>" in words:
                raise ValueError(f"{path}:{number}: words must not be <s> or </s>, but one is")
            tokens.append(_BOS)
            tokens.extend([known.setdefault(word, len(known)) for word in words])
            tokens.append(_EOS)
    if not tokens:
        raise ValueError(f"'{path}' must have text to train an n-gram on, but is empty")
    return _Text(list(known), np.frombuffer(tokens, dtype=np.int32))


def _count(tokens: npt.NDArray[Any], size: int, order: int) -> list[_Order]:
    """All n-grams of lengths 1 to `order`."""
    starts = np.arange(len(tokens))
    numbers = np.zeros(len(tokens) + 1, dtype=np.int32)  # of the n-gram that begins here
    orders: list[_Order] = []
    for n in range(order):
        keys = numbers[starts].astype(np.int64) * size + tokens[starts + n]
        different, where, counts = np.unique(keys, return_inverse=True, return_counts=True)
        history, last = np.divmod(different, size)
        tail = np.zeros(len(different), dtype=np.int32)
        tail[where] = numbers[starts + 1]
        numbers[starts] = where
        orders.append(_Order(history.astype(np.int32), last.astype(np.int32), tail, counts))
        starts = starts[last[where] != _EOS]  # nothing goes on after the end of a line
    return orders


def _probabilities(orders: list[_Order], n: int) -> npt.NDArray[Any]:
    """Of the n-grams of length n + 1. Those that are no longest ones count by how many different
    words stand before them; what begins with <s> has none before it, and counts as often as it is
    there."""
    this = orders[n]
    counts = this.counts
    if n + 1 < len(orders):
        before = np.bincount(orders[n + 1].tail, minlength=len(this.last))
        known = np.bincount(this.history, weights=before)[this.history] > 0
        counts = np.where(known, before, counts)
    totals = np.bincount(this.history, weights=counts)[this.history]
    return np.maximum(counts - _discount(this, n), 0.0) / totals


def _discount(this: _Order, n: int) -> float:
    """By the n-grams that are there once and twice; unigrams have none."""
    once, twice = (int(np.count_nonzero(this.counts == count)) for count in (1, 2))
    if n == 0:
        return 0.0
    return max(0.1, once) / (once + 2 * twice) if once or twice else 0.1


def _backoffs(
    orders: list[_Order], probabilities: list[npt.NDArray[Any]], n: int
) -> npt.NDArray[Any]:
    """What is left for words that never follow, over what they have without the first word of the
    n-gram; nan where nothing follows, or nothing is left."""
    longer = orders[n + 1]
    size = len(orders[n].last)
    follows = np.bincount(longer.history, minlength=size) > 0
    taken = np.bincount(longer.history, weights=probabilities[n + 1], minlength=size)
    shorter = np.bincount(longer.history, weights=probabilities[n][longer.tail], minlength=size)
    known = follows & (shorter < _ALL)
    found = np.full(size, np.nan)
    found[known] = (1.0 - taken[known]) / (1.0 - shorter[known])
    return found


def _lines(
    words: list[str],
    orders: list[_Order],
    probabilities: npt.NDArray[Any],
    backoffs: npt.NDArray[Any],
) -> Iterator[str]:
    for start in range(0, len(probabilities), _CHUNK):
        numbers = np.arange(start, min(start + _CHUNK, len(probabilities)))
        scores = np.log10(np.where(probabilities[numbers] > 0, probabilities[numbers], _NEVER))
        left = backoffs[numbers]
        columns: list[list[str]] = []
        for each in reversed(orders):
            columns.insert(0, [words[last] for last in each.last[numbers]])
            numbers = each.history[numbers]
        for score, ngram, backoff in zip(
            scores.tolist(), zip(*columns), left.tolist(), strict=True
        ):
            line = f"{score:.7f}\t{' '.join(ngram)}"
            yield f"{line}\n" if math.isnan(backoff) else f"{line}\t{math.log10(backoff):.7f}\n"
