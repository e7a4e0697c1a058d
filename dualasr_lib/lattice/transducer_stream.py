"""k2's beam search of a transducer on running streams, in segments.

`k2.RnntDecodingStream` keeps every frame of a stream, so each chunk costs more than the one before
(7.7 ms at the start, 96 ms after five minutes). Here a stream is cut into segments: when one has
`segment_frames` frames, what its best path says up to the middle of the longest pause of its
second half is committed, and a new stream of k2 begins some frames before the cut, where the
last tokens of context were said (no earlier than in its first quarter), so that it has them
again when its own part begins. What that
costs in exactness: hypotheses other than the best one end at a cut, and a graph begins anew.
Within a segment any chunks give the same as all frames at once, to the bit.

k2's streams are changed in place and cannot be copied. A state keeps the frames of its segment,
from which a stream is made again if somebody has gone on from an older state: states are values.

N streams, S encoder frames, D channels of the joiner, K tokens of context, V vocabulary (blank 0).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dualasr_lib.core.trace import Trace, emitted, extended
from dualasr_lib.lattice.backend import k2
from dualasr_lib.lattice.options import FastBeamStreamConfig
from dualasr_lib.lattice.path import Path
from dualasr_lib.lattice.transducer_search import Join, Network, best_arcs

__all__ = ["FastBeamState", "FastBeamStep", "OnlineFastBeam"]

_BEFORE = 2  # frames heard again before the first token of context


class _Segment:
    """A stream of k2, and how many frames it has heard."""

    def __init__(self, graph: Any) -> None:
        self.stream, self.heard = k2.RnntDecodingStream(graph), 0


class _Said(NamedTuple):
    """A path that grows at no cost for what it has already."""

    trace: Trace | None
    score: float

    @property
    def path(self) -> Path:
        """The path from the start of the stream; time grows with its length."""
        return Path(*emitted(self.trace), self.score)


class FastBeamState(NamedTuple):
    """One stream between two calls."""

    committed: _Said
    """Best path of the finished segments."""
    start: int
    """First encoder frame that the segment has heard."""
    cut: int
    """First encoder frame of which it tells."""
    frames: Tensor
    """(S, D) what it has heard."""
    arcs: Sequence[tuple[int, float]]
    """Label and score of the best path at each of these, but the last."""
    segment: _Segment


class FastBeamStep(NamedTuple):
    """What a call returns for one stream."""

    state: FastBeamState

    @property
    def partial(self) -> Path:
        """Best path from the start of the stream, but for the last frame, of which k2 does not
        tell.
        """
        return _continued(self.state, self.state.arcs).path

    @property
    def num_committed(self) -> int:
        """Tokens of `partial` that cannot change any more."""
        trace = self.state.committed.trace
        return 0 if trace is None else trace.depth


class OnlineFastBeam:
    """The search.

    Args:
        join: outcomes of frames and contexts.
        dim: D.
        context: K.
        graph: as for `transducer_search.fast_beam_lattices`.

    Raises:
        ValueError: as `check_graph`.
    """

    def __init__(
        self, join: Join, dim: int, vocab_size: int, context: int,
        config: FastBeamStreamConfig, graph: Any = None,
    ) -> None:  # fmt: skip
        self._network = Network.of(join, vocab_size, context, config, graph)
        self._dim, self._context, self._longest = dim, context, config.segment_frames

    def open(self) -> FastBeamState:
        """A new stream."""
        return self._opened(_Said(None, 0.0), 0, 0)

    def _opened(self, committed: _Said, start: int, cut: int) -> FastBeamState:
        nothing = torch.zeros(0, self._dim)
        segment = _Segment(self._network.graph)
        return FastBeamState(committed, start, cut, nothing, (), segment)

    @torch.no_grad()
    def step(self, rows: Sequence[Tensor], states: Sequence[FastBeamState]) -> list[FastBeamStep]:
        """Feeds each of some streams its next frames: per stream (S_i, D), S_i >= 0.

        Raises:
            ValueError: frames of another width, or not finite.
        """
        for more in rows:
            if more.shape[1:] != (self._dim,) or not bool(more.isfinite().all()):
                raise ValueError(
                    f"what a transducer hears must be finite and (frames, {self._dim}), but "
                    f"{tuple(more.shape)} came, or NaN or infinity"
                )
        left, now = list(rows), list(states)
        while going := [index for index, more in enumerate(left) if len(more)]:
            room = [self._longest - len(now[index].frames) for index in going]
            count = min(*room, *(len(left[index]) for index in going))
            fed = self._fed([now[i] for i in going], [left[i][:count] for i in going])
            for index, state in zip(going, fed):
                now[index], left[index] = state, left[index][count:]
                if len(state.frames) == self._longest:
                    now[index], again = self._cut(state)
                    left[index] = torch.cat([again, left[index]])
        return [FastBeamStep(state) for state in now]

    @torch.no_grad()
    def finish(self, state: FastBeamState) -> Path:
        """Final path of a stream; with a graph its end counts, if it can be reached."""
        if not len(state.frames):
            return state.committed.path
        ended = state._replace(segment=self._current(state))
        search = self._network.opened([ended.segment.stream])
        for outcomes in self._network.closing():
            owner = search.get_contexts()[0].row_ids(1)
            search.advance(outcomes.expand(len(owner), -1).contiguous())
        ended.segment.heard = -1  # nobody can go on from it
        search.terminate_and_flush_to_streams()
        total = len(state.frames) + len(self._network.closing())
        arcs = best_arcs(self._network.formatted(search, [total]))[0]
        if arcs is None:
            arcs = best_arcs(self._network.formatted(search, [total], partial=True))[0]
        return _continued(state, state.arcs if arcs is None else arcs).path

    def _current(self, state: FastBeamState) -> _Segment:
        """k2's stream of the state, made again if it is that of another one."""
        if state.segment.heard == len(state.frames):
            return state.segment
        segment = _Segment(self._network.graph)
        self._network.fed([segment.stream], state.frames[None])
        segment.heard = len(state.frames)
        return segment

    def _fed(self, states: Sequence[FastBeamState], rows: Sequence[Tensor]) -> list[FastBeamState]:
        """Equally many frames for each stream."""
        segments = [self._current(state) for state in states]
        streams = [segment.stream for segment in segments]
        search = self._network.fed(streams, torch.stack(list(rows)))
        grown = []
        for state, segment, more in zip(states, segments, rows):
            segment.heard += len(more)
            heard = torch.cat([state.frames, more])
            grown.append(state._replace(frames=heard, segment=segment))
        counts = [len(state.frames) for state in grown]
        paths = best_arcs(self._network.formatted(search, counts, partial=True))
        return [state._replace(arcs=arcs or ()) for state, arcs in zip(grown, paths)]

    def _cut(self, state: FastBeamState) -> tuple[FastBeamState, Tensor]:
        """The next segment, and the frames (S, D) that it hears again."""
        middle, end = state.start + self._longest // 2, state.start + self._longest
        said = [state.start + at for at, (label, _) in enumerate(state.arcs) if label > 0]
        bounds = [max(middle, state.cut) - 1, *(f for f in said if f >= middle), end]
        _, last, following = max(
            (after - before, before, after) for before, after in pairwise(bounds)
        )
        cut = max(state.cut, (last + following + 1) // 2)
        context = [frame for frame in said if frame < cut][-self._context :]
        again = min([cut, *context]) - _BEFORE
        again = max(again, state.start + self._longest // 4)
        committed = _continued(state, state.arcs, cut)
        return self._opened(committed, again, cut), state.frames[again - state.start :]


def _continued(
    state: FastBeamState, arcs: Sequence[tuple[int, float]], end: int | None = None
) -> _Said:
    """The committed path, and after it the segment's from its cut up to frame `end`."""
    trace, score = state.committed
    for frame, (label, more) in enumerate(arcs, start=state.start):
        if frame >= state.cut and (end is None or frame < end):
            score += more
            trace = extended(trace, label, frame) if label > 0 else trace
    return _Said(trace, score)
