"""Greedy CTC search: the best token of each frame, repeats merged, blanks dropped. Needs no k2.

Without a language model it is also the best path of the CTC lattice. Offline for batches, online
for streams.

N utterances, S encoder frames, V tokens (blank 0).
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

__all__ = [
    "GreedyPath",
    "GreedyResult",
    "GreedyState",
    "GreedyStep",
    "OnlineGreedy",
    "greedy",
    "greedy_search",
]

_BLANK = 0


class GreedyPath(NamedTuple):
    """The best path and the tokens it emits."""

    tokens: tuple[int, ...]
    """Vocabulary ids, no blanks, repeats merged."""
    frames: tuple[int, ...]
    """Encoder frame at which each token is first emitted."""
    score: float
    """Sum of the best log-prob of each frame."""


class GreedyResult(NamedTuple):
    """Paths of a batch, in the form that every offline search returns."""

    paths: list[GreedyPath]
    fallbacks: int = 0
    """Always 0."""


class GreedyState(NamedTuple):
    """One stream between two calls."""

    path: GreedyPath
    last: int
    """Best token of the last frame; the blank before the first."""
    num_frames: int


class GreedyStep(NamedTuple):
    """What a call returns for one stream."""

    partial: GreedyPath
    """Path from the start of the stream."""
    state: GreedyState
    num_committed: int
    """Tokens of `partial` that cannot change any more: all of them."""


def greedy(log_probs: Tensor, lens: Tensor) -> list[GreedyPath]:
    """Greedy path of each utterance of log_probs (N, S, V) with lens (N,); 0 frames give no
    tokens.
    """
    scores, tokens = log_probs.detach().max(dim=2)
    rows = zip(scores.double().cpu(), tokens.cpu(), lens.tolist())
    return [
        _extend(_START, best[:length].tolist(), float(score[:length].sum())).path
        for score, best, length in rows
    ]


def greedy_search(log_probs: Tensor, lens: Tensor) -> GreedyResult:
    """`greedy` in the form of an offline search."""
    return GreedyResult(greedy(log_probs, lens))


class OnlineGreedy:
    """Greedy search on streams that join and leave at any time."""

    def open(self) -> GreedyState:
        """A new stream."""
        return _START

    def step(self, log_probs: Sequence[Tensor], states: Sequence[GreedyState]) -> list[GreedyStep]:
        """Feeds each of some streams its next frames: per stream (S_i, V), S_i >= 0."""
        if len(log_probs) != len(states):
            raise ValueError(
                f"each stream needs its log_probs, but there are {len(log_probs)} for {len(states)}"
            )
        return [self._step_one(frames, state) for frames, state in zip(log_probs, states)]

    def finish(self, state: GreedyState) -> GreedyPath:
        """Final path of a stream."""
        return state.path

    def _step_one(self, log_probs: Tensor, state: GreedyState) -> GreedyStep:
        scores, tokens = log_probs.detach().max(dim=1)
        state = _extend(state, tokens.tolist(), float(scores.double().sum()))
        return GreedyStep(state.path, state, len(state.path.tokens))


_START = GreedyState(GreedyPath((), (), 0.0), _BLANK, 0)


def _extend(state: GreedyState, best: list[int], score: float) -> GreedyState:
    """`state` after frames with these best tokens, whose log-probs sum to `score`."""
    before = [state.last, *best]
    emitted = [
        (token, state.num_frames + frame)
        for frame, (last, token) in enumerate(zip(before, best))
        if token not in (last, _BLANK)
    ]
    path = GreedyPath(
        state.path.tokens + tuple(token for token, _ in emitted),
        state.path.frames + tuple(frame for _, frame in emitted),
        state.path.score + score,
    )
    return GreedyState(path, before[-1], state.num_frames + len(best))
