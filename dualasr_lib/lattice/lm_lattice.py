"""Whole-lattice rescoring: every path of a CTC lattice gets its language model score, and the best
path for any weight of that score can then be asked for.

The language model is written out as a k2 graph over the tokens of the lattice (`lm_graph`), exact
and without epsilon arcs, and intersected with the lattice. Nothing else is pruned.

S encoder frames, V tokens (blank 0), A tokens of a lattice.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dualasr_lib.lattice.backend import k2
from dualasr_lib.lattice.best_path import emissions
from dualasr_lib.lattice.ctc_lattice import ctc_lattices
from dualasr_lib.lattice.fallback import Found, each_utterance
from dualasr_lib.lattice.lm import Floats, Integers, LanguageModel
from dualasr_lib.lattice.path import Path, SearchConfig
from dualasr_lib.lattice.topology import check_log_probs, fsa_of_arcs

__all__ = ["LmLattice", "lm_graph", "lm_lattices"]


@dataclass(frozen=True)
class LmLattice:
    """The lattice of one utterance with both scores on each arc."""

    fsa: Any
    """k2.Fsa; labels are emitted tokens (0: none), `ctc` and `lm` scores of each arc."""

    def best(self, lm_scale: float) -> Path:
        """The path whose CTC score plus `lm_scale` times its LM score is best; its score is
        that sum. If the model can read no text of the lattice, it has no say.
        """
        weighted = self.fsa.clone()
        weighted.scores = self.fsa.ctc + lm_scale * self.fsa.lm
        best = k2.shortest_path(k2.create_fsa_vec([weighted]), use_double_scores=True)[0]
        emitted = emissions(best.labels.tolist())
        return Path(
            tokens=tuple(token for _, token in emitted),
            frames=tuple(frame for frame, _ in emitted),
            score=float(best.scores.double().sum()),
        )


def lm_lattices(
    log_probs: Tensor, lens: Tensor, config: SearchConfig, lm: LanguageModel
) -> Found[LmLattice | None]:
    """The lattice of each utterance; None for one without frames.

    Args and errors are those of `search.one_best`.
    """
    check_log_probs(log_probs, lens)

    def build(rows: Tensor, sizes: Tensor, options: SearchConfig) -> list[LmLattice]:
        lattices = ctc_lattices(rows.cpu(), sizes, options)
        return [_with_lm(lattices[index], lm) for index in range(len(rows))]

    return each_utterance(build, log_probs, lens, config)


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


class _Arcs(NamedTuple):
    """Arcs of an acceptor."""

    source: Integers
    target: Integers
    label: Integers
    score: Floats


def _with_lm(lattice: Any, lm: LanguageModel) -> LmLattice:
    emitted = lattice.aux_labels.unique().numpy()
    graph = lm_graph(lm, emitted[emitted > 0].astype(np.int64))
    texts = k2.Fsa(k2.invert(lattice).arcs)  # labels: what is emitted; aux labels are not needed
    texts.ctc = texts.scores
    graph.lm = graph.scores
    both = k2.connect(k2.intersect(k2.arc_sort(texts), graph, treat_epsilons_specially=True))
    if not both.num_arcs:
        texts.lm = torch.zeros_like(texts.scores)
        return LmLattice(texts)
    return LmLattice(both)
