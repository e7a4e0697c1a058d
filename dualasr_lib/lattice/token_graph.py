"""An n-gram of tokens, or a lexicon and an n-gram of words, as a graph of k2 without epsilons.

Backing off is no arc of its own: each arc leads to its state, and again to every state to which
that one backs off, the weights taken along. The graph has at most `order` times as many arcs as the
model has n-grams. A path may back off where the model lists the n-gram; the best path does so only
where that is likelier, as in every graph with back-off arcs.

A word is the chain of its tokens, whose last one has its weight: LG, with the weights of G at the
ends of words. Words that follow one history share the beginnings of their chains.

A arcs, V vocabulary (blank 0).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from dualasr_lib.lattice.backend import k2
from dualasr_lib.lattice.lexicon import LexiconLm
from dualasr_lib.lattice.lm import Floats, Integers
from dualasr_lib.lattice.ngram import NgramLm

__all__ = ["token_graph"]

Spelling = tuple[int, ...]
"""Tokens of a unit, at least one."""


class _Arcs(NamedTuple):
    source: Integers
    target: Integers
    word: Integers
    score: Floats


def token_graph(lm: NgramLm | LexiconLm, vocab_size: int, scale: float) -> Any:
    """A k2.Fsa with 2 axes: tokens 1 .. V - 1, scores `scale` x natural log-probabilities.

    Raises:
        ValueError: a lexicon with tokens of V or more, or the blank.
    """
    if isinstance(lm, NgramLm):
        return _spelled(lm, [(token, (token,)) for token in range(1, vocab_size)], scale)
    tokens = {token for _, spelling in lm.entries for token in spelling}
    if not 0 < min(tokens) <= max(tokens) < vocab_size:
        raise ValueError(
            f"tokens of a lexicon must be 1 to {vocab_size - 1}, but reach from {min(tokens)} to "
            f"{max(tokens)}: it was made for another vocabulary"
        )
    return _spelled(lm.words, lm.entries, scale)


def _spelled(lm: NgramLm, entries: Sequence[tuple[int, Spelling]], scale: float) -> Any:
    """The graph of an n-gram of units, each spelt in tokens."""
    listed = lm.listed()
    arcs = _spread(lm, _Arcs(listed.history, listed.target, listed.word, listed.score))
    nothing = np.zeros(1, np.int64)
    begin = _spread(lm, _Arcs(nothing, np.array([lm.start]), nothing, np.zeros(1)))
    first = [_from(arcs, state, score) for state, score in zip(begin.target, begin.score)]
    # state 0 of the graph is the start, s + 1 that of the model's state s; then those inside words
    whole = _Arcs(*(np.concatenate(x) for x in zip(*first, arcs._replace(source=arcs.source + 1))))
    spellings: dict[int, list[Spelling]] = {lm.end: [(-1,)]}
    for symbol, spelling in entries:
        spellings.setdefault(lm.word_of(symbol), []).append(spelling)
    inside: dict[tuple[int, Spelling], int] = {}
    rows, scores = [], []
    for source, target, word, score in zip(*(x.tolist() for x in whole)):
        for spelling in spellings.get(word, ()):
            state = source
            for size in range(1, len(spelling)):
                begun = source, spelling[:size]
                if begun not in inside:
                    inside[begun] = lm.num_states + 1 + len(inside)
                    rows.append((state, inside[begun], spelling[size - 1]))
                    scores.append(0.0)
                state = inside[begun]
            rows.append((state, target + 1, spelling[-1]))
            scores.append(scale * score)
    table = torch.tensor(rows, dtype=torch.int32).view(-1, 3)
    table[table[:, 2] < 0, 1] = lm.num_states + 1 + len(inside)  # the end
    weights = torch.tensor(scores, dtype=torch.float32).view(torch.int32)
    order = torch.from_numpy(np.lexsort((table[:, 2].numpy(), table[:, 0].numpy())))
    packed = torch.cat([table, weights[:, None]], dim=1)[order].contiguous()
    return k2.connect(k2.Fsa(packed))


def _spread(lm: NgramLm, arcs: _Arcs) -> _Arcs:
    """The arcs, each also to the states to which its own backs off."""
    found = [arcs]
    while len(arcs.source):
        shorter, weight = lm.shorter(arcs.target)
        longer = np.flatnonzero(arcs.target)  # the empty text backs off to nothing
        arcs = _Arcs(
            arcs.source[longer],
            shorter[longer],
            arcs.word[longer],
            (arcs.score + weight)[longer],
        )
        found.append(arcs)
    return _Arcs(*(np.concatenate(x) for x in zip(*found)))


def _from(arcs: _Arcs, state: int, score: float) -> _Arcs:
    """The arcs of a state as those of the start."""
    own = np.flatnonzero(arcs.source == state)
    start = np.zeros(len(own), np.int64)
    return _Arcs(start, arcs.target[own], arcs.word[own], arcs.score[own] + score)
