"""Whole-lattice rescoring: every path of a CTC lattice gets its language model score, and the best
path for any weight of that score can then be asked for.

Lattice and language model are composed on the fly: frame by frame, pairs (state of the lattice,
state of the language model) follow the arcs of the lattice, and the model is asked for the tokens
that stand there, once per frame for all pairs. Time and memory depend on the pairs, not on V. Every
path of the lattice is kept, with the score of each way to read it, unless a frame has more than
`max_active` pairs. As a check, the result is that of `k2.intersect` with the model written out as a
graph (tests, the slow reference).

S encoder frames, V tokens (blank 0), P pairs of a frame, R arcs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dualasr_lib.lattice.backend import k2
from dualasr_lib.lattice.best_path import emissions
from dualasr_lib.lattice.ctc_lattice import ctc_lattices
from dualasr_lib.lattice.fallback import Found, each_utterance
from dualasr_lib.lattice.graph_search import readable_text
from dualasr_lib.lattice.lm import Floats, Integers, LanguageModel
from dualasr_lib.lattice.options import LmLatticeConfig
from dualasr_lib.lattice.path import Path, SearchConfig
from dualasr_lib.lattice.topology import check_log_probs, fsa_of_arcs

__all__ = ["LmLattice", "lm_lattices"]

_Integers32 = npt.NDArray[np.int32]
_Floats32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LmLattice:
    """The lattice of one utterance with both scores on each arc."""

    fsa: Any
    """k2.Fsa; labels are emitted tokens (0: none), `ctc` and `lm` scores of each arc."""
    instead: Path | None = None
    """What is said where the model can read no text of what is kept: of all texts that it can
    read, the likeliest by CTC.
    """

    def best(self, lm_scale: float) -> Path:
        """The path whose CTC score plus `lm_scale` times its LM score is best; its score is
        that sum. If the model can read no text of what is kept, this is `instead`.
        """
        if self.instead is not None:
            return self.instead
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
    log_probs: Tensor, lens: Tensor, config: LmLatticeConfig, lm: LanguageModel
) -> Found[LmLattice | None]:
    """The lattice of each utterance; None for one without frames.

    Args and errors are those of `search.one_best`.
    """
    check_log_probs(log_probs, lens)

    def build(rows: Tensor, sizes: Tensor, options: SearchConfig) -> list[LmLattice]:
        lattices = ctc_lattices(rows.cpu(), sizes, options)
        found = []
        for index, size in enumerate(sizes.tolist()):
            lattice = _with_lm(lattices[index], lm, config.max_active)
            if lattice.instead is not None:
                lattice = replace(lattice, instead=readable_text(rows[index, :size], lm))
            found.append(lattice)
        return found

    return each_utterance(build, log_probs, lens, config.lattice)


class _Arcs(NamedTuple):
    """Arcs (R,) of an acceptor, in the order of their sources, as k2 has them."""

    source: _Integers32
    target: _Integers32
    label: _Integers32
    """The emitted token; 0 for none, -1 at the end."""
    ctc: _Floats32
    lm: _Floats32


class _Pairs(NamedTuple):
    """Pairs of one frame (P,)."""

    lattice: Integers
    lm: Integers
    score: Floats
    """The best CTC score that leads here."""


class _Moves(NamedTuple):
    """Ways from pairs over one frame (R,), in the order of the pairs."""

    pair: Integers
    """Where it begins."""
    arc: Integers
    """The arc of the lattice."""
    target: Integers
    """The state of the language model after it."""
    score: Floats
    """What the language model gives."""


class _Step(NamedTuple):
    """One frame."""

    moves: _Moves
    target: Integers
    """(R,) which of `pairs` each of `moves` leads to."""
    pairs: _Pairs
    """Those of the next frame."""


def _with_lm(lattice: Any, lm: LanguageModel, max_active: int) -> LmLattice:
    states = lattice.arcs.values().numpy()  # (R, 4) source, target and what is not needed
    arcs = _Arcs(
        source=states[:, 0],
        target=states[:, 1],
        label=lattice.aux_labels.numpy(),
        ctc=lattice.scores.contiguous().numpy(),
        lm=np.zeros(lattice.num_arcs, np.float32),
    )
    begins = lattice.arcs.row_splits(1).numpy().astype(np.int64)
    found = _joined(_compose(arcs, begins, lm, max_active))
    if not (found.label == -1).any():
        return LmLattice(_fsa(arcs), Path((), (), 0.0))  # no text can be read
    return LmLattice(k2.connect(_fsa(found)))


def _compose(arcs: _Arcs, begins: Integers, lm: LanguageModel, max_active: int) -> Iterator[_Arcs]:
    """Arcs of the composition, frame by frame, at last those to its final state; fewer frames if
    nothing can be read any further.

    Args:
        begins: the first of the arcs of each state of the lattice, and behind the last.
    """
    final = len(begins) - 2
    pairs = _Pairs(np.array([0]), np.array([lm.start], dtype=np.int64), np.zeros(1))
    number = 0  # of the first pair
    while pairs.lattice.size and pairs.lattice[0] != final:
        step = _step(pairs, _moves(pairs, arcs, begins, lm), arcs, max_active)
        moves = step.moves
        yield _Arcs(
            source=(number + moves.pair).astype(np.int32),
            target=(number + len(pairs.lattice) + step.target).astype(np.int32),
            label=arcs.label[moves.arc],
            ctc=arcs.ctc[moves.arc],
            lm=moves.score.astype(np.float32),
        )
        number += len(pairs.lattice)
        pairs = step.pairs


def _moves(pairs: _Pairs, arcs: _Arcs, begins: Integers, lm: LanguageModel) -> _Moves:
    """All that the lattice has and the language model can read."""
    first = begins[pairs.lattice]
    counts = begins[pairs.lattice + 1] - first
    pair = np.repeat(np.arange(len(counts)), counts)
    # a pair's n-th arc: its place among all, less the arcs of the pairs before
    arc = np.arange(len(pair)) + (first - (np.cumsum(counts) - counts))[pair]
    label, state = arcs.label[arc].astype(np.int64), pairs.lm[pair]
    says, ends, rests = (np.flatnonzero(which) for which in (label > 0, label < 0, label == 0))
    read = lm.advance(state[says], label[says])
    all_ends = np.zeros_like(ends)  # where texts end, the final state makes them one
    which = np.concatenate([rests, ends, says[read.source]])
    target = np.concatenate([state[rests], all_ends, read.target])
    score = np.concatenate([np.zeros(len(rests)), lm.final(state[ends]), read.score])
    possible = np.flatnonzero(np.isfinite(score))
    order = possible[np.argsort(which[possible], kind="stable")]
    which = which[order]
    return _Moves(pair[which], arc[which], target[order], score[order])


def _step(pairs: _Pairs, moves: _Moves, arcs: _Arcs, max_active: int) -> _Step:
    """Moves to the same pair meet there; the best pairs are kept."""
    # A state of the model may be a number beyond 1e13. Those that stand here are numbered anew, so
    # that one of them and a state of the lattice make one number.
    states, state = np.unique(moves.target, return_inverse=True)
    keys, place = np.unique(
        arcs.target[moves.arc].astype(np.int64) * len(states) + state, return_inverse=True
    )
    score = np.full(len(keys), -np.inf)
    np.maximum.at(score, place, pairs.score[moves.pair] + arcs.ctc[moves.arc])
    if len(keys) > max_active:
        kept = np.sort(np.argsort(-score, kind="stable")[:max_active])
        number = np.full(len(keys), -1)
        number[kept] = np.arange(max_active)
        inside = np.flatnonzero(number[place] >= 0)
        moves = _Moves(
            moves.pair[inside], moves.arc[inside], moves.target[inside], moves.score[inside]
        )
        keys, score, place = keys[kept], score[kept], number[place[inside]]
    lattice, state = np.divmod(keys, max(len(states), 1))
    return _Step(moves, place, _Pairs(lattice, states[state], score))


def _joined(parts: Iterator[_Arcs]) -> _Arcs:
    return _Arcs(*(np.concatenate(column) for column in zip(*parts)))


def _fsa(arcs: _Arcs) -> Any:
    source, target, label, ctc, lm = (torch.from_numpy(column) for column in arcs)
    fsa = fsa_of_arcs(source, target, label, ctc)
    fsa.ctc, fsa.lm = ctc, lm
    return fsa
