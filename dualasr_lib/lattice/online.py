"""Online lattice search: many streams of any age, each fed some frames per call, best path so far
after each.

Two engines search the current *segment* of a stream, with the same result:

- `intersecter`: `k2.OnlineDenseIntersecter` on the full standard CTC topology. Its state is a
  value (DecodeStateInfo), so one intersecter of one stream serves all: streams join and leave at
  any time, which k2 forbids within a batch. A batch of 8 was measured to cost as much per stream
  as 8 calls (on a CPU k2 works through the streams one by one). Work per frame grows with V^2, so
  it is for V up to `max_topology_vocab`.
- `rerun`: keeps the segment's log-probs and repeats the one-shot search over its active tokens.
  Works for any V.

Measured on peaky synthetic posteriors, one thread, ms per stream and chunk of 8 frames (320 ms),
the same at the end of a stream as at its start: V = 150 `intersecter` 8, `rerun` 3.5; V = 3000
`rerun` 30, and 4 with `active_threshold` 0.01.

`auto` takes the first where V allows it. Either engine alone would cost more per call the longer
the stream. Therefore a segment ends, and its tokens are committed, when its best path ends in a
blank after at least `segment_frames`: the topology is back in its start state there, so the best
path of the stream is the committed part plus the best path of what follows, with the same score.
(This is exact for the CTC topology; a graph with a language model has to keep its state.)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from dualasr_lib.lattice.backend import k2, new_stream_state, supported
from dualasr_lib.lattice.path import BestPath, Path, SearchConfig, best_paths
from dualasr_lib.lattice.search import lattices
from dualasr_lib.lattice.topology import check_log_probs, dense, full_topology

__all__ = ["OnlineConfig", "OnlineSearch", "OnlineState", "OnlineStep"]

_EMPTY = Path((), (), 0.0)


@dataclass(frozen=True, kw_only=True)
class OnlineConfig:
    """Options of the online search."""

    beams: SearchConfig = field(default_factory=SearchConfig)
    """Beams; the active tokens apply to `rerun` only."""
    engine: Literal["auto", "intersecter", "rerun"] = "auto"
    """How a segment is searched."""
    max_topology_vocab: int = 512
    """Largest vocabulary for `intersecter`: 262 656 arcs, about 45 ms per stream and 320 ms chunk.
    """
    segment_frames: int = 25
    """Encoder frames before a segment may be committed (25 frames of 40 ms = 1 s)."""

    def __post_init__(self) -> None:
        if self.segment_frames < 1:
            raise ValueError(f"`segment_frames` must be at least 1, but is {self.segment_frames}")


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
    """State of the engine."""


class OnlineStep(NamedTuple):
    """What a call returns for one stream."""

    partial: Path
    """Best path from the start of the stream."""
    state: OnlineState
    num_committed: int
    """Tokens of `partial` that cannot change any more."""


class _Searched(NamedTuple):
    best: BestPath
    segment: Any


class _Engine(Protocol):
    def open(self) -> Any:
        """State of an empty segment."""

    def extend(self, log_probs: Tensor, segment: Any) -> _Searched:
        """Searches the segment with log_probs (S, V), S >= 1, appended."""


class OnlineSearch:
    """Best paths of many streams over one vocabulary.

    Args:
        vocab_size: V, blank included.

    Raises:
        ValueError: `intersecter` was asked for and V is above `max_topology_vocab`.
    """

    def __init__(self, vocab_size: int, config: OnlineConfig) -> None:
        self.vocab_size = vocab_size
        self._segment_frames = config.segment_frames
        self._engine = _engine(vocab_size, config)
        self.engine = "rerun" if isinstance(self._engine, _Rerun) else "intersecter"

    def open(self) -> OnlineState:
        """A new stream."""
        return OnlineState(_EMPTY, _EMPTY, 0, 0, self._engine.open())

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
        best, segment = self._engine.extend(log_probs.detach(), state.segment)
        partial = _append(state.committed, best.path, state.start)
        num_frames = state.num_frames + size
        state = OnlineState(state.committed, partial, state.start, num_frames, segment)
        if best.ends_in_blank and num_frames - state.start >= self._segment_frames:
            state = OnlineState(partial, partial, num_frames, num_frames, self._engine.open())
        return OnlineStep(partial, state, len(state.committed.tokens))


class _Intersecter:
    """Segments on `k2.OnlineDenseIntersecter`."""

    def __init__(self, vocab_size: int, beams: SearchConfig) -> None:
        self._tokens = range(vocab_size)
        self._intersecter = k2.OnlineDenseIntersecter(
            k2.create_fsa_vec([full_topology(vocab_size)]),
            num_streams=1,
            search_beam=beams.search_beam,
            output_beam=beams.output_beam,
            min_active_states=beams.min_active,
            max_active_states=beams.max_active,
            # Since 1.24.4; the states at a chunk's end count as final, as they always do in this
            # topology.
            **supported(k2.OnlineDenseIntersecter, allow_partial=True),
        )

    def open(self) -> Any:
        return new_stream_state()

    def extend(self, log_probs: Tensor, segment: Any) -> _Searched:
        frames = dense(log_probs.cpu()[None], torch.tensor([len(log_probs)]))
        lattice, states = self._intersecter.decode(frames, [segment])
        return _Searched(best_paths(lattice, [self._tokens])[0], states[0])


class _Rerun:
    """Segments by one-shot search over their active tokens."""

    def __init__(self, vocab_size: int, beams: SearchConfig) -> None:
        self._empty = torch.zeros(0, vocab_size)
        self._beams = beams

    def open(self) -> Tensor:
        return self._empty

    def extend(self, log_probs: Tensor, segment: Tensor) -> _Searched:
        whole = torch.cat([segment, log_probs.cpu()])
        found = lattices(whole[None], torch.tensor([len(whole)]), self._beams)
        return _Searched(best_paths(found.fsa, found.tokens)[0], whole)


def _engine(vocab_size: int, config: OnlineConfig) -> _Engine:
    fits = vocab_size <= config.max_topology_vocab
    if config.engine == "intersecter" and not fits:
        raise ValueError(
            "engine 'intersecter' needs the CTC topology of the whole vocabulary, so V must be at "
            f"most max_topology_vocab={config.max_topology_vocab}, but is {vocab_size}; "
            "use 'rerun' or 'auto'"
        )
    if config.engine == "rerun" or not fits:
        return _Rerun(vocab_size, config.beams)
    return _Intersecter(vocab_size, config.beams)


def _append(head: Path, tail: Path, offset: int) -> Path:
    """`tail`, whose frames count from `offset`, after `head`."""
    return Path(
        head.tokens + tail.tokens,
        head.frames + tuple(frame + offset for frame in tail.frames),
        head.score + tail.score,
    )
