"""Beam search of a transducer over streams that join and leave, and over whole utterances.

Feeding frames chunk by chunk or all at once, alone or in company, gives the same to the bit. A
stream's state is a value of fixed size, beside the chains of what its hypotheses have emitted:
these share their beginnings, and with `recombine = "context"` all but some tokens, so that neither
time nor memory per chunk grows with the stream.

N streams, S encoder frames, D channels of the joiner, H hypotheses.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dualasr_lib.core.trace import Trace, common_tokens, emitted, extended
from dualasr_lib.core.tree import map_tree, split, stack
from dualasr_lib.decoding.hypothesis import ScoredText, TokenPath
from dualasr_lib.decoding.transducer.beams import Beams, Language, Moves, move_on, open_beams
from dualasr_lib.decoding.transducer.joiner import BLANK, Joiner, next_frames
from dualasr_lib.decoding.transducer.options import BeamConfig

__all__ = ["BeamStep", "BeamStream", "TransducerBeam"]


class BeamStream(NamedTuple):
    """One stream between two calls."""

    beams: Beams
    """Of one stream: its hypotheses, the best first."""
    traces: tuple[Trace | None, ...]
    """What each of them has emitted; as many as have a score."""
    num_frames: int


class BeamStep(NamedTuple):
    """What a call returns for one stream."""

    state: BeamStream

    @property
    def partial(self) -> TokenPath:
        """Best path from the start of the stream."""
        return TokenPath(*emitted(self.state.traces[0]), float(self.state.beams.score[0, 0]))

    @property
    def num_committed(self) -> int:
        """Tokens that all hypotheses begin with; no later frame can change them."""
        return common_tokens(self.state.traces)


class TransducerBeam:
    """The search.

    Args:
        tables: of the head (`joiner.JoinerTables` by name).
        lm: a language model; None: without.
    """

    def __init__(
        self, tables: Mapping[str, Tensor], config: BeamConfig, lm: Language | None = None
    ) -> None:
        self._joiner, self._config, self._lm = Joiner(tables, config), config, lm

    def open(self) -> BeamStream:
        """A new stream."""
        return BeamStream(open_beams(1, self._joiner, self._config, self._lm), (None,), 0)

    @torch.no_grad()
    def step(
        self,
        frames: Sequence[Tensor],
        states: Sequence[BeamStream],
        kept: Sequence[Tensor] | None = None,
    ) -> list[BeamStep]:
        """Feeds each of some streams its next frames: per stream (S_i, D), S_i >= 0.

        Args:
            kept: per stream (S_i,) bool, the frames that are searched; None: all.

        Raises:
            ValueError: a count or a width that does not fit, or frames that are not finite.
        """
        if not frames and not states:
            return []
        begun = [state.num_frames for state in states]
        padded, lens, times = next_frames(frames, begun, self._joiner.dim, kept)
        beams = stack([state.beams for state in states])
        traces = [state.traces for state in states]
        for frame in range(padded.shape[1]):
            active = (lens > frame).nonzero()[:, 0]
            own = _taken(beams, active)
            rows = padded[:, frame] if own is beams else padded[active, frame]
            moves = move_on(rows, own, self._joiner, self._config, self._lm)
            beams = _put(beams, active, moves.beams)
            for stream, grown in zip(active.tolist(), _grown(moves)):
                now = times[stream][frame]
                traces[stream] = tuple(
                    _said(traces[stream][parent], said, now) for parent, said in grown
                )
        return [
            BeamStep(BeamStream(own, chains, state.num_frames + len(rows)))
            for own, chains, state, rows in zip(split(beams), traces, states, frames)
        ]

    def finish(self, state: BeamStream) -> TokenPath:
        """Final path of a stream; with a language model, the end of the text counts."""
        score, _ = self._ended(state)
        best = int(score.argmax())
        return TokenPath(*emitted(state.traces[best]), float(score[best]))

    def ranked(self, state: BeamStream) -> tuple[ScoredText, ...]:
        """The hypotheses of a stream that is over, the best first."""
        score, lm_score = self._ended(state)
        found = []
        for i in score.argsort(descending=True, stable=True).tolist():
            own, of_lm = float(score[i]), float(lm_score[i])
            scores = {"transducer": own}
            if self._lm is not None:
                scores = {"transducer": own - self._lm.scale * of_lm, "lm": of_lm}
            tokens, frames = emitted(state.traces[i])
            found.append(ScoredText(tokens, scores, frames))
        return tuple(found)

    def _ended(self, state: BeamStream) -> tuple[Tensor, Tensor]:
        """Scores of a stream's hypotheses and, of these, the language model's, its end included."""
        score, lm_score, lm = (x[0, : len(state.traces)] for x in state.beams[:3])
        if self._lm is None:
            return score, lm_score
        ending = self._lm.final(lm)
        return score + self._lm.scale * ending, lm_score + ending


def _grown(moves: Moves) -> list[list[tuple[int, list[int]]]]:
    """Of each stream its hypotheses: which one it was, and what it has said on the frame."""
    counts = moves.beams.score.isfinite().sum(dim=1).tolist()
    rows = zip(counts, moves.parent.tolist(), moves.said.tolist())
    return [list(zip(parents[:count], said[:count])) for count, parents, said in rows]


def _said(trace: Trace | None, said: Sequence[int], frame: int) -> Trace | None:
    for token in said:
        if token != BLANK:
            trace = extended(trace, token, frame)
    return trace


def _taken(beams: Beams, active: Tensor) -> Beams:
    """The beams of the active ones of N streams."""
    if len(active) == len(beams.score):
        return beams
    return map_tree(lambda x: x[active], beams)


def _put(beams: Beams, active: Tensor, new: Beams) -> Beams:
    """Beams of N streams with those of the active ones exchanged."""
    if len(active) == len(beams.score):
        return new
    return map_tree(lambda old, x: old.index_copy(0, active, x), beams, new)
