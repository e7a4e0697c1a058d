"""Greedy CTC search: the best token of each frame, repeats merged, blanks dropped. Needs no k2.

Without a language model it is also the best path of the CTC lattice. Offline for batches, online
for streams.

N utterances, S encoder frames, V tokens (blank 0).
"""

from collections.abc import Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from dualasr_lib.core.arrays import Array, as_numpy
from dualasr_lib.core.trace import Trace, emitted, extended
from dualasr_lib.decoding.hypothesis import TokenPath
from dualasr_lib.decoding.offline import Heard, Searched

__all__ = [
    "GreedyState",
    "GreedyStep",
    "OnlineGreedy",
    "Walked",
    "greedy",
    "greedy_search",
]

_BLANK = 0


class GreedyState(NamedTuple):
    """One stream between two calls."""

    trace: Trace | None
    """What it has emitted."""
    score: float
    """Sum of the best log-prob of each frame."""
    last: int
    """Best token of the last frame; the blank before the first."""
    num_frames: int

    @property
    def path(self) -> TokenPath:
        """The path from the start of the stream; time grows with its length."""
        return TokenPath(*emitted(self.trace), self.score)


class Walked(Protocol):
    """The state of a greedy stream."""

    @property
    def trace(self) -> Trace | None:
        """What it has emitted."""

    @property
    def path(self) -> TokenPath:
        """The path from the start of the stream."""


S = TypeVar("S", bound=Walked)


class GreedyStep(NamedTuple, Generic[S]):
    """What a call of a greedy search, of any head, returns for one stream."""

    state: S

    @property
    def partial(self) -> TokenPath:
        """Path from the start of the stream."""
        return self.state.path

    @property
    def num_committed(self) -> int:
        """Tokens of `partial` that cannot change any more: all of them."""
        return 0 if self.state.trace is None else self.state.trace.depth


def greedy(log_probs: Array, lens: Array) -> list[TokenPath]:
    """Greedy path of each utterance of log_probs (N, S, V) with lens (N,); 0 frames give no
    tokens.
    """
    return [_extended(_START, rows[:length]).path for rows, length in zip(log_probs, lens.tolist())]


def greedy_search(heard: Heard) -> Searched:
    """`greedy` in the form of an offline search.

    Raises:
        ValueError: a valid frame has no finite best token.
    """
    for rows, length in zip(heard.log_probs, heard.lens.tolist()):
        _check(rows[:length], 0)
    return Searched(greedy(heard.log_probs, heard.lens))


class OnlineGreedy:
    """Greedy search on streams that join and leave at any time, at a cost per frame that does not
    depend on their age.

    It is the online search of CTC without a language model: in the CTC topology any token may
    follow any other, so the best path of the lattice is that of the best token of each frame, and
    no later frame changes it.
    """

    def open(self) -> GreedyState:
        """A new stream."""
        return _START

    def step(
        self, log_probs: Sequence[Array], states: Sequence[GreedyState]
    ) -> list[GreedyStep[GreedyState]]:
        """Feeds each of some streams its next frames: per stream (S_i, V), S_i >= 0.

        Raises:
            ValueError: a count that does not fit, or a frame without a finite best token.
        """
        if len(log_probs) != len(states):
            raise ValueError(
                f"each stream needs its log_probs, but there are {len(log_probs)} for {len(states)}"
            )
        for rows, state in zip(log_probs, states):
            _check(rows, state.num_frames)
        return [GreedyStep(_extended(state, rows)) for rows, state in zip(log_probs, states)]

    def finish(self, state: GreedyState) -> TokenPath:
        """Final path of a stream."""
        return state.path


_START = GreedyState(None, 0.0, _BLANK, 0)


def _extended(state: GreedyState, log_probs: Array) -> GreedyState:
    """`state` after frames (S, V)."""
    log_probs = as_numpy(log_probs)
    best = log_probs.argmax(axis=1)
    scores = log_probs.max(axis=1)
    trace, last = state.trace, state.last
    for frame, token in enumerate(best.tolist(), start=state.num_frames):
        if token not in (last, _BLANK):
            trace = extended(trace, token, frame)
        last = token
    score = state.score + float(scores.sum(dtype=np.float64))
    return GreedyState(trace, score, last, state.num_frames + len(log_probs))


def _check(log_probs: Array, first_frame: int) -> None:
    """ValueError unless every frame of (S, V) has a finite best token."""
    (bad,) = (~np.isfinite(as_numpy(log_probs).max(axis=1))).nonzero()
    if len(bad):
        raise ValueError(
            "log_probs must have a finite best token at each frame, "
            f"but frame {first_frame + int(bad[0])} has NaN, +inf or only -inf"
        )
