"""Online search by k2.OnlineDenseIntersecter: streams of any age, best path so far after each.

k2 forbids streams to join or leave a batch. Its state is a value (DecodeStateInfo), so here one
intersecter of one stream serves all of them (a batch of 8 was measured to cost as much per stream:
on a CPU k2 works through the streams one by one). And k2 formats the whole lattice at each call, so
its cost would grow with the stream. Therefore a segment ends, and its tokens are committed, when
its best path ends in a blank after at least `segment_frames`: the topology is back in its start
state there, so the best path of the stream is the committed part plus the best path of what
follows, with the same score. This is exact for the CTC topology; a graph with a language model
would have to keep its state (and on k2 1.23.4 its partial lattices are wrong): see `graph_search`.

Work per frame grows with V^2 (about 8 ms per stream and chunk of 320 ms at V = 150), while the best
path of CTC alone is that of the best token of each frame. `decoding.greedy.OnlineGreedy` gives the
same paths, scores and times for next to nothing; this engine is k2's own word on it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dualasr_lib.lattice.backend import k2, new_stream_state, supported
from dualasr_lib.lattice.best_path import best_paths
from dualasr_lib.lattice.options import IntersecterConfig
from dualasr_lib.lattice.path import Path
from dualasr_lib.lattice.topology import check_log_probs, dense, full_topology

__all__ = ["OnlineIntersecter", "OnlineState", "OnlineStep"]

_EMPTY = Path((), (), 0.0)


class OnlineState(NamedTuple):
    """One stream between two calls."""

    committed: Path
    """Best path of the finished segments; cannot change any more."""
    partial: Path
    """Best path of everything so far."""
    start: int
    """First encoder frame of the current segment."""
    num_frames: int
    """Encoder frames so far."""
    segment: Any
    """k2's state of the current segment."""


class OnlineStep(NamedTuple):
    """What a call returns for one stream."""

    partial: Path
    """Best path from the start of the stream."""
    state: OnlineState
    num_committed: int
    """Tokens of `partial` that cannot change any more."""


class OnlineIntersecter:
    """Best paths of many streams over one vocabulary.

    Args:
        vocab_size: V, blank included.

    Raises:
        ValueError: V is above `max_vocab`.
    """

    def __init__(self, vocab_size: int, config: IntersecterConfig) -> None:
        if vocab_size > config.max_vocab:
            raise ValueError(
                "the intersecter needs the CTC topology of the whole vocabulary, so V must be at "
                f"most max_vocab={config.max_vocab}, but is {vocab_size}"
            )
        self.vocab_size = vocab_size
        self._segment_frames = config.segment_frames
        self._intersecter = k2.OnlineDenseIntersecter(
            k2.create_fsa_vec([full_topology(vocab_size)]),
            num_streams=1,
            search_beam=config.search_beam,
            output_beam=config.output_beam,
            min_active_states=config.min_active,
            max_active_states=config.max_active,
            # Since 1.24.4; the states at a chunk's end count as final, as they always do in this
            # topology.
            **supported(k2.OnlineDenseIntersecter, allow_partial=True),
        )

    def open(self) -> OnlineState:
        """A new stream."""
        return OnlineState(_EMPTY, _EMPTY, 0, 0, new_stream_state())

    def step(self, log_probs: Sequence[Tensor], states: Sequence[OnlineState]) -> list[OnlineStep]:
        """Feeds each of some streams its next frames.

        Args:
            log_probs: per stream (S_i, V) natural log; S_i may be 0 and differ between streams.
            states: the streams, in the same order; other streams simply wait.

        Raises:
            ValueError: a count, shape or value that does not fit.
        """
        if len(log_probs) != len(states):
            raise ValueError(
                f"each stream needs its log_probs, but there are {len(log_probs)} for {len(states)}"
            )
        return [self._step_one(frames, state) for frames, state in zip(log_probs, states)]

    def finish(self, state: OnlineState) -> Path:
        """Final path of a stream."""
        return state.partial

    def _step_one(self, log_probs: Tensor, state: OnlineState) -> OnlineStep:
        if log_probs.dim() != 2 or log_probs.shape[1] != self.vocab_size:
            raise ValueError(
                f"log_probs of a stream must be (S, {self.vocab_size}), "
                f"but are {tuple(log_probs.shape)}"
            )
        size = log_probs.shape[0]
        if size == 0:
            return OnlineStep(state.partial, state, len(state.committed.tokens))
        check_log_probs(log_probs[None], torch.tensor([size]))
        frames = dense(log_probs.detach().cpu()[None], torch.tensor([size]))
        lattice, segments = self._intersecter.decode(frames, [state.segment])
        best = best_paths(lattice)[0]
        partial = _append(state.committed, best.path, state.start)
        num_frames = state.num_frames + size
        state = OnlineState(state.committed, partial, state.start, num_frames, segments[0])
        if best.ends_in_blank and num_frames - state.start >= self._segment_frames:
            state = OnlineState(partial, partial, num_frames, num_frames, new_stream_state())
        return OnlineStep(partial, state, len(state.committed.tokens))


def _append(head: Path, tail: Path, offset: int) -> Path:
    """`tail`, whose frames count from `offset`, after `head`."""
    return Path(
        head.tokens + tail.tokens,
        head.frames + tuple(frame + offset for frame in tail.frames),
        head.score + tail.score,
    )
