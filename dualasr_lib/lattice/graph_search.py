"""Beam search with a language model, frame by frame: whole utterances and running streams alike.

Time-synchronous Viterbi search in the composition of the standard CTC topology with the language
model, made on the fly. A hypothesis is a state of that composition, (state of the language model,
last token or blank), with the best score that leads there:

    score = sum of log-probs + lm_scale * (language model's log-probs of the tokens)

Nothing is built in advance, so time and memory do not depend on V. A stream's state is a value
whose size is bounded by `max_active`: cost per chunk stays flat for hours, streams join and leave
at any time, and feeding frames chunk by chunk or all at once gives the same result to the bit.
k2's online intersection does neither for graphs with a language model. As a check, with wide beams
the result is that of `k2.intersect_dense_pruned` on the composed graph (tests, the slow reference).

V tokens (blank 0), H hypotheses, K tokens tried at a frame, M = H K pairs, R ways to read them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from dualasr_lib.core.trace import Trace, common_depth, emitted, extended
from dualasr_lib.lattice.lm import Floats, Integers, LanguageModel
from dualasr_lib.lattice.options import GraphConfig
from dualasr_lib.lattice.path import Path

__all__ = ["GraphSearch", "GraphState", "GraphStep", "readable_text"]


class GraphState(NamedTuple):
    """One stream between two calls: H hypotheses, the best first."""

    lm: Integers
    """(H,) states of the language model."""
    last: Integers
    """(H,) token of the last frame, 0 for a blank."""
    score: Floats
    """(H,)."""
    traces: tuple[Trace | None, ...]
    """What each has emitted."""
    num_frames: int


class GraphStep(NamedTuple):
    """What a call returns for one stream."""

    state: GraphState

    @property
    def partial(self) -> Path:
        """Best path from the start of the stream, whether or not a text may end there."""
        return _path(self.state, 0, float(self.state.score[0]))

    @property
    def num_committed(self) -> int:
        """Tokens that all hypotheses begin with; no later frame can change them."""
        return common_depth(self.state.traces)


class _Moves(NamedTuple):
    """Ways to go on from hypotheses over one frame."""

    parent: Integers
    lm: Integers
    token: Integers
    """What is said at the frame; 0 for a blank."""
    emits: Integers
    """1 where the token is a new one."""
    score: Floats


_LISTED = 10  # texts of a stream that a second pass may choose from


class GraphSearch:
    """Search over streams that join and leave at any time, and over whole utterances.

    Args:
        lm_scale: weight of the language model's log-probabilities, >= 0.
    """

    def __init__(self, lm: LanguageModel, config: GraphConfig, lm_scale: float = 0.3) -> None:
        if not lm_scale >= 0:
            raise ValueError(f"`lm_scale` must not be negative, but is {lm_scale}")
        self._lm = lm
        self._config = config
        self._lm_scale = lm_scale

    def open(self) -> GraphState:
        """A new stream."""
        return GraphState(_ints([self._lm.start]), _ints([0]), np.zeros(1), (None,), 0)

    def step(self, log_probs: Sequence[Tensor], states: Sequence[GraphState]) -> list[GraphStep]:
        """Feeds each of some streams its next frames: per stream (S_i, V), S_i >= 0.

        Raises:
            ValueError: a count that does not fit, or a frame without a finite best token.
        """
        if len(log_probs) != len(states):
            raise ValueError(
                f"each stream needs its log_probs, but there are {len(log_probs)} for {len(states)}"
            )
        return [self._step_one(rows, state) for rows, state in zip(log_probs, states)]

    def finish(self, state: GraphState) -> Path:
        """Final path of a stream: the best whose text may end here; if none may, the best, which
        begins with all that was committed (with a lexicon its last word is not whole).
        """
        ending = self._lm.final(state.lm)
        possible = np.flatnonzero(np.isfinite(ending))  # a scale of 0 allows no more than others
        if not len(possible):
            return _path(state, 0, float(state.score[0]))
        ended = state.score[possible] + self._lm_scale * ending[possible]
        best = int(ended.argmax())
        return _path(state, int(possible[best]), float(ended[best]))

    def ranked(self, state: GraphState) -> tuple[Path, ...]:
        """Final paths of different texts that may end here, the best first, `_LISTED` at most."""
        ending = self._lm.final(state.lm)
        possible = np.isfinite(ending)  # a scale of 0 allows no more than others
        ended = np.full_like(state.score, -np.inf)
        ended[possible] = state.score[possible] + self._lm_scale * ending[possible]
        found: dict[tuple[int, ...], Path] = {}
        for place in np.argsort(-ended, kind="stable").tolist():
            if len(found) == _LISTED or not np.isfinite(ended[place]):
                break
            path = _path(state, place, float(ended[place]))
            found.setdefault(path.tokens, path)
        return tuple(found.values())

    def whole(self, log_probs: Tensor) -> Path:
        """Best path of a whole utterance (S, V)."""
        return self.finish(self._step_one(log_probs, self.open()).state)

    def _step_one(self, log_probs: Tensor, state: GraphState) -> GraphStep:
        for frame in log_probs.detach().cpu().double().numpy():
            state = self._frame(frame, state)
        return GraphStep(state)

    def _frame(self, frame: Floats, state: GraphState) -> GraphState:
        """`state` after one frame (V,)."""
        tokens = self._tokens(frame, state.num_frames)
        stay = _stay(frame, state)
        floor = stay.score.max() - self._config.beam
        new = self._extend(frame, tokens, state, floor)
        moves = _Moves(*(np.concatenate(pair) for pair in zip(stay, new)))
        chosen = self._choose(moves)
        parents, emits = moves.parent[chosen].tolist(), moves.emits[chosen].tolist()
        said = moves.token[chosen]
        traces = tuple(
            extended(state.traces[parent], token, state.num_frames) if new else state.traces[parent]
            for parent, token, new in zip(parents, said.tolist(), emits)
        )
        return GraphState(moves.lm[chosen], said, moves.score[chosen], traces, state.num_frames + 1)

    def _tokens(self, frame: Floats, number: int) -> Integers:
        """(K,) tokens to try, without the blank."""
        best = frame.max()
        if not np.isfinite(best):
            raise ValueError(
                "log_probs must have a finite best token at each frame, "
                f"but frame {number} has NaN, +inf or only -inf"
            )
        near = np.flatnonzero(frame >= best - self._config.token_beam)
        if len(near) > self._config.max_tokens:
            most = np.argpartition(frame[near], -self._config.max_tokens)
            near = near[most[-self._config.max_tokens :]]
        return near[near > 0]

    def _extend(self, frame: Floats, tokens: Integers, state: GraphState, floor: float) -> _Moves:
        """A new token after each hypothesis, where that can still reach `floor`."""
        # (H, K); a language model only takes away, so the sum without it is a bound
        bound = state.score[:, None] + frame[tokens]
        possible = (bound >= floor) & (tokens != state.last[:, None])
        parent, column = possible.nonzero()
        token = tokens[column]
        arcs = self._lm.advance(state.lm[parent], token)
        source = arcs.source
        score = bound[parent, column][source] + self._lm_scale * arcs.score
        return _Moves(parent[source], arcs.target, token[source], np.ones_like(source), score)

    def _choose(self, moves: _Moves) -> Integers:
        """The best way to each state, within the beam; the best first."""
        near = np.flatnonzero(moves.score >= moves.score.max() - self._config.beam)
        order = near[np.argsort(-moves.score[near], kind="stable")]
        seen: set[tuple[int, int]] = set()
        chosen = []
        for place, key in zip(
            order.tolist(), zip(moves.lm[order].tolist(), moves.token[order].tolist())
        ):
            if key not in seen:
                seen.add(key)
                chosen.append(place)
                if len(chosen) == self._config.max_active:
                    break
        return _ints(chosen)


def _stay(frame: Floats, state: GraphState) -> _Moves:
    """A blank after each hypothesis; and the same token again, where there is one."""
    parent = np.arange(len(state.lm))
    again = np.flatnonzero(state.last)
    nothing = np.zeros_like(parent)
    return _Moves(
        np.concatenate([parent, again]),
        np.concatenate([state.lm, state.lm[again]]),
        np.concatenate([nothing, state.last[again]]),
        np.concatenate([nothing, nothing[again]]),
        np.concatenate([state.score + frame[0], state.score[again] + frame[state.last[again]]]),
    )


def readable_text(log_probs: Tensor, lm: LanguageModel) -> Path:
    """The likeliest text by log_probs (S, V) alone that the model can read to its end.

    For a model that cannot read every text, such as a lexicon: what is left to say where a list or
    a lattice has nothing that it can read.
    """
    wide = GraphConfig(beam=60.0, max_active=500, token_beam=60.0, max_tokens=200)
    return _ended(lm, GraphSearch(lm, wide, lm_scale=0.0).whole(log_probs))


def _ended(lm: LanguageModel, path: Path) -> Path:
    """The longest beginning of a path at which a text may end."""
    states, size = _ints([lm.start]), 0
    for i, token in enumerate(path.tokens, start=1):
        states = lm.advance(states, np.full_like(states, token)).target
        if len(states) and np.isfinite(lm.final(states)).any():
            size = i
    return Path(path.tokens[:size], path.frames[:size], path.score)


def _path(state: GraphState, index: int, score: float) -> Path:
    return Path(*emitted(state.traces[index]), score)


def _ints(values: Sequence[int]) -> Integers:
    return np.array(values, dtype=np.int64)
