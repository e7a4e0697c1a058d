"""Beam search of a transducer over streams that join and leave, and over whole utterances.

Feeding frames chunk by chunk or all at once, alone or in company, gives the same to the bit. A
stream's state is a value: a few hypotheses, and the chains of what they have emitted. These share
their beginnings, and with `recombine = "context"` all but some tokens, so that neither time nor
memory per chunk grows with the stream.

N streams, S encoder frames, D channels of the joiner.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from dualasr_lib.core.trace import common_tokens, emitted
from dualasr_lib.decoding.hypothesis import ScoredText, TokenPath
from dualasr_lib.decoding.transducer.beams import Beam, Hypothesis, Language, Now, move_on
from dualasr_lib.decoding.transducer.cells import Cells, best_tokens
from dualasr_lib.decoding.transducer.joiner import BLANK, Joiner, next_frames
from dualasr_lib.decoding.transducer.options import BeamConfig

__all__ = ["BeamStep", "BeamStream", "TransducerBeam"]


class BeamStream(NamedTuple):
    """One stream between two calls."""

    beam: Beam
    num_frames: int


class BeamStep(NamedTuple):
    """What a call returns for one stream."""

    state: BeamStream

    @property
    def partial(self) -> TokenPath:
        """Best path from the start of the stream."""
        best = self.state.beam[0]
        return TokenPath(*emitted(best.trace), best.score)

    @property
    def num_committed(self) -> int:
        """Tokens that all hypotheses begin with; no later frame can change them."""
        return common_tokens([hypothesis.trace for hypothesis in self.state.beam])


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
        """A new stream: one hypothesis, the empty text."""
        context = (BLANK,) * self._joiner.context
        start = 0 if self._lm is None else self._lm.start
        return BeamStream((Hypothesis(0.0, 0.0, start, context, 0, None),), 0)

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
        read = partial(best_tokens, 2 * self._config.beam)
        cells = Cells(self._joiner, padded, lens.tolist(), read)
        beams = [state.beam for state in states]
        for frame in range(padded.shape[1]):
            nows = [Now(i, frame, own[frame]) for i, own in enumerate(times) if frame < len(own)]
            active = [beams[now.stream] for now in nows]
            for now, beam in zip(nows, move_on(active, nows, cells, self._config, self._lm)):
                beams[now.stream] = beam
        return [
            BeamStep(BeamStream(beam, state.num_frames + len(rows)))
            for beam, state, rows in zip(beams, states, frames)
        ]

    def finish(self, state: BeamStream) -> TokenPath:
        """Final path of a stream; with a language model, the end of the text counts."""
        best = max(self._ended(state), key=lambda hypothesis: hypothesis.score)
        return TokenPath(*emitted(best.trace), best.score)

    def ranked(self, state: BeamStream) -> tuple[ScoredText, ...]:
        """The hypotheses of a stream that is over, the best first."""
        return tuple(
            self._listed(hypothesis)
            for hypothesis in sorted(self._ended(state), key=lambda hypothesis: -hypothesis.score)
        )

    def _listed(self, ended: Hypothesis) -> ScoredText:
        scores = {"transducer": ended.score}
        if self._lm is not None:
            own = ended.score - self._lm.scale * ended.lm_score
            scores = {"transducer": own, "lm": ended.lm_score}
        tokens, frames = emitted(ended.trace)
        return ScoredText(tokens, scores, frames)

    def _ended(self, state: BeamStream) -> Beam:
        """A stream's hypotheses, their scores with the language model's of the text's end."""
        if self._lm is None:
            return state.beam
        ending = self._lm.final([hypothesis.lm for hypothesis in state.beam])
        return [
            h._replace(score=h.score + self._lm.scale * more, lm_score=h.lm_score + more)
            for h, more in zip(state.beam, ending)
        ]
