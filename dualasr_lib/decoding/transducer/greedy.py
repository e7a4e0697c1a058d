"""Greedy search of a transducer: the best outcome at each frame. Whole utterances and streams.

Label looping: every stream goes on as far as cells are known, to its next token or to the end of
those that were computed ahead; then the next ones are computed for all of them, whatever their
places.

N streams, S encoder frames, D channels of the joiner.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dualasr_lib.core.trace import Trace, emitted, extended
from dualasr_lib.decoding.greedy import GreedyStep
from dualasr_lib.decoding.hypothesis import TokenPath
from dualasr_lib.decoding.transducer.cells import BestOutcome, Cells, Context, Place, best_outcome
from dualasr_lib.decoding.transducer.joiner import BLANK, Joiner, next_frames
from dualasr_lib.decoding.transducer.options import GreedyConfig

__all__ = ["GreedyStream", "TransducerGreedy"]

_FRAMES = 3
"""Frames to compute ahead that pay: half of those after a token are scored for nothing."""


class _Said(NamedTuple):
    """A text."""

    context: Context
    score: float
    """Natural log-probability of its path."""
    trace: Trace | None
    """What was emitted, and when."""


class _At(NamedTuple):
    """Where a stream is."""

    frame: int
    """Of those that it is fed."""
    spoken: int
    """Tokens that were said on it."""
    said: _Said


class GreedyStream(NamedTuple):
    """One stream between two calls."""

    said: _Said
    num_frames: int

    @property
    def trace(self) -> Trace | None:
        """What it has emitted."""
        return self.said.trace

    @property
    def path(self) -> TokenPath:
        """The path from the start of the stream; time grows with its length."""
        return TokenPath(*emitted(self.trace), self.said.score)


class TransducerGreedy:
    """Streams that join and leave at any time; any chunks give the same to the bit.

    Args:
        tables: of the head (`joiner.JoinerTables` by name).
    """

    def __init__(self, tables: Mapping[str, Tensor], config: GreedyConfig) -> None:
        self._joiner = Joiner(tables, config)
        self._max_symbols = config.max_symbols

    def open(self) -> GreedyStream:
        """A new stream."""
        return GreedyStream(_Said((BLANK,) * self._joiner.context, 0.0, None), 0)

    @torch.no_grad()
    def step(
        self,
        frames: Sequence[Tensor],
        states: Sequence[GreedyStream],
        kept: Sequence[Tensor] | None = None,
    ) -> list[GreedyStep[GreedyStream]]:
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
        cells = Cells(self._joiner, padded, lens.tolist(), best_outcome, _FRAMES)
        now = [_At(0, 0, state.said) for state in states]
        while going := [i for i, at in enumerate(now) if at.frame < len(times[i])]:
            cells.at([Place(i, now[i].frame, now[i].said.context) for i in going])
            for i in going:
                now[i] = self._gone_on(i, now[i], cells, times[i])
        return [
            GreedyStep(GreedyStream(at.said, state.num_frames + len(rows)))
            for at, state, rows in zip(now, states, frames)
        ]

    def finish(self, state: GreedyStream) -> TokenPath:
        """Final path of a stream."""
        return state.path

    def _gone_on(
        self, stream: int, at: _At, cells: Cells[BestOutcome], times: Sequence[int]
    ) -> _At:
        """From cell to cell until one is not known or the frames end."""
        frame, count, (context, score, trace) = at
        while frame < len(times) and (cell := cells.get(Place(stream, frame, context))) is not None:
            score += cell.score
            if cell.token != BLANK:
                trace = extended(trace, cell.token, times[frame])
                context = (*context[1:], cell.token)
                count += 1
            if cell.token == BLANK or count == self._max_symbols:
                frame, count = frame + 1, 0
        return _At(frame, count, _Said(context, score, trace))
