"""Slow references of lattice search: all label sequences of a few frames, small language models,
and language models written out as k2 graphs.

V tokens (blank 0), S frames, A tokens of a graph.
"""

from collections.abc import Iterator
from itertools import groupby, product
from pathlib import Path as File
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dualasr_lib.lattice.backend import k2
from dualasr_lib.lattice.lexicon import LexiconLm
from dualasr_lib.lattice.lm import Floats, Integers, LanguageModel, LmArcs
from dualasr_lib.lattice.ngram import NgramLm
from dualasr_lib.lattice.topology import fsa_of_arcs

__all__ = [
    "LMS",
    "Labelling",
    "TableLm",
    "intersected",
    "labellings",
    "lm_graph",
    "make_lm",
    "random_log_probs",
]

_ARPA = """\\data\\
ngram 1=5
ngram 2=5
ngram 3=2

\\1-grams:
-99\t<s>\t-0.4
-0.9\t</s>
-0.6\ta\t-0.3
-0.8\tb\t-0.2
-1.1\tc

\\2-grams:
-0.5\t<s> a\t-0.1
-0.7\ta b\t-0.3
-0.2\tb </s>
-1.5\tb a
-0.3\tc c

\\3-grams:
-0.1\t<s> a b
-0.9\ta b </s>

\\end\\
"""
_LEXICON = "a a b\nb a b c\nb c\nc b\n"  # the word `b` has two spellings
SYMBOLS = {"<blk>": 0, "a": 1, "b": 2, "c": 3}
LMS = ("table", "ngram", "lexicon")


class Labelling(NamedTuple):
    """One token or blank for each frame."""

    labels: tuple[int, ...]
    score: float

    @property
    def tokens(self) -> tuple[int, ...]:
        """Repeats merged, blanks dropped."""
        return tuple(label for label, _ in groupby(self.labels) if label)

    @property
    def frames(self) -> tuple[int, ...]:
        """Where each token begins."""
        before = (0, *self.labels)
        return tuple(i for i, label in enumerate(self.labels) if label not in (0, before[i]))


def labellings(log_probs: Tensor) -> Iterator[Labelling]:
    """All V ** S of them."""
    rows = log_probs.double().tolist()
    for labels in product(range(log_probs.shape[1]), repeat=len(rows)):
        yield Labelling(labels, sum(row[label] for row, label in zip(rows, labels)))


def random_log_probs(num_frames: int, vocab_size: int, seed: int, spread: float = 2.0) -> Tensor:
    """(S, V) without equal frames, so that no two paths tie."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_frames, vocab_size, generator=generator, dtype=torch.float64) * spread
    return logits.log_softmax(dim=1).float()


class TableLm:
    """A bigram with random scores; a state is the last token. Some tokens cannot follow some
    others (never after the start), and some texts cannot end.
    """

    def __init__(self, vocab_size: int, seed: int, forbidden: float = 0.2) -> None:
        rng = np.random.default_rng(seed)
        self.start = vocab_size
        self._table = -3 * rng.random((vocab_size + 1, vocab_size))
        self._table[rng.random(self._table.shape) < forbidden] = -np.inf
        self._table[vocab_size] = -rng.random(vocab_size)
        self._ends = -3 * rng.random(vocab_size + 1)
        self._ends[1] = -np.inf

    def advance(self, states: Integers, tokens: Integers) -> LmArcs:
        scores = self._table[states, tokens]
        source = np.flatnonzero(np.isfinite(scores))
        return LmArcs(source, tokens[source], scores[source])

    def final(self, states: Integers) -> Floats:
        return self._ends[states]


def make_lm(kind: str, folder: File, seed: int = 0) -> LanguageModel:
    """A model over tokens 1..3: a table, a trigram, or words of two or three tokens."""
    if kind == "table":
        return TableLm(4, seed)
    (folder / "lm.arpa").write_text(_ARPA)
    if kind == "ngram":
        return NgramLm.load(folder / "lm.arpa", SYMBOLS)
    (folder / "lexicon.txt").write_text(_LEXICON)
    return LexiconLm.load(folder / "lexicon.txt", folder / "lm.arpa", SYMBOLS)


def lm_graph(lm: LanguageModel, tokens: Integers) -> Any:
    """k2.Fsa acceptor of all sequences of `tokens` (A,), scored by `lm`; states are those that
    can be reached.
    """
    known = np.array([lm.start], dtype=np.int64)  # in the order in which they were found
    explored = 0
    parts: list[_Arcs] = []
    while explored < len(known):
        states = np.repeat(known[explored:], len(tokens))
        asked = np.tile(tokens, len(known) - explored)
        arcs = lm.advance(states, asked)
        source = explored + arcs.source // len(tokens)
        parts.append(_Arcs(source, arcs.target, asked[arcs.source], arcs.score))
        explored = len(known)
        known = np.concatenate([known, np.setdiff1d(arcs.target, known)])
    found = _Arcs(*(np.concatenate(column) for column in zip(*parts)))
    order = np.argsort(known)
    target = order[np.searchsorted(known, found.target, sorter=order)]
    places = np.arange(len(known))
    ends = _Arcs(places, np.full_like(places, len(known)), places * 0 - 1, lm.final(known))
    arcs_all = _Arcs(*(np.concatenate(pair) for pair in zip(found._replace(target=target), ends)))
    possible = np.flatnonzero(np.isfinite(arcs_all.score))
    rising = possible[np.argsort(arcs_all.source[possible], kind="stable")]
    columns = (torch.from_numpy(column[rising]) for column in arcs_all)
    graph = k2.arc_sort(fsa_of_arcs(*columns))
    graph.scores = graph.scores + 0.0  # a view of one arc has not the stride that k2 wants
    return graph


def intersected(lattice: Any, lm: LanguageModel) -> Any:
    """All paths of a CTC lattice that `lm` can read, by `k2.intersect` with its graph: labels are
    emitted tokens; `ctc` and `lm` scores of each arc.
    """
    emitted = lattice.aux_labels.unique().numpy()
    graph = lm_graph(lm, emitted[emitted > 0].astype(np.int64))
    texts = k2.Fsa(k2.invert(lattice).arcs)  # without the labels of the lattice as aux labels
    texts.ctc = texts.scores
    graph.lm = graph.scores
    return k2.connect(k2.intersect(k2.arc_sort(texts), graph, treat_epsilons_specially=True))


class _Arcs(NamedTuple):
    """Arcs of an acceptor."""

    source: Integers
    target: Integers
    label: Integers
    score: Floats
