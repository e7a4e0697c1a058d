"""An n-gram of tokens as a graph of k2 without epsilons, for searches that have none.

Backing off is no arc of its own: each arc leads to its state, and again to every state to which
that one backs off, the weights taken along. The graph has at most `order` times as many arcs as the
model has n-grams. A path may back off where the model lists the n-gram; the best path does so only
where that is likelier, as in every graph with back-off arcs.

A arcs, V vocabulary (blank 0).
"""

from typing import Any, NamedTuple

import numpy as np
import torch

from dualasr_lib.lattice.backend import k2
from dualasr_lib.lattice.lm import Floats, Integers
from dualasr_lib.lattice.ngram import NgramLm

__all__ = ["token_graph"]


class _Arcs(NamedTuple):
    source: Integers
    target: Integers
    word: Integers
    score: Floats


def token_graph(lm: NgramLm, vocab_size: int, scale: float) -> Any:
    """A k2.Fsa with 2 axes: tokens 1 .. V - 1, scores `scale` x natural log-probabilities."""
    listed = lm.listed()
    arcs = _spread(lm, _Arcs(listed.history, listed.target, listed.word, listed.score))
    nothing = np.zeros(1, np.int64)
    begin = _spread(lm, _Arcs(nothing, np.array([lm.start]), nothing, np.zeros(1)))
    first = [_from(arcs, state, score) for state, score in zip(begin.target, begin.score)]
    # state 0 of the graph is the start, s + 1 that of the model's state s, the last one the end
    whole = _Arcs(*(np.concatenate(x) for x in zip(*first, arcs._replace(source=arcs.source + 1))))
    final = lm.num_states + 1
    symbols: dict[int, list[int]] = {lm.end: [-1]}
    for token in range(1, vocab_size):
        symbols.setdefault(lm.word_of(token), []).append(token)
    rows, scores = [], []
    for source, target, word, score in zip(*(x.tolist() for x in whole)):
        for label in symbols.get(word, ()):
            rows.append((source, final if label < 0 else target + 1, label))
            scores.append(scale * score)
    table = torch.tensor(rows, dtype=torch.int32).view(-1, 3)
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
