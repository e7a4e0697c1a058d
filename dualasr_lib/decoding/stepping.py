"""One step of the model for some streams: windows cut and completed, states gathered, what comes
back checked. `contract` says what a window is; searches and texts are `stream`'s.

N streams of a step, n samples of a stream, P new ones of a window, L look-ahead; S' encoder frames
of a step, S <= S' of them wanted; C channels.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dualasr_lib.core.arrays import Array, as_kind, as_numpy, copied
from dualasr_lib.core.tree import leaves, map_tree, stack
from dualasr_lib.decoding.contract import Frames, StreamingModel

__all__ = ["Row", "Stepped", "Turn", "gather", "step_streams", "window"]


class Row(NamedTuple):
    """The model state of one stream: its place in the stacked state of a batch.

    Streams that step together again find their states stacked as they were left.
    """

    stacked: Any
    """NamedTuple tree of `size` streams."""
    place: int = 0
    size: int = 1

    @property
    def alone(self) -> "Row":
        """The same state as a batch of one, which keeps no other stream's in memory."""
        if self.size == 1:
            return self
        place = self.place
        return Row(map_tree(lambda leaf: copied(leaf[place : place + 1]), self.stacked))


def gather(rows: Sequence[Row]) -> Any:
    """The states of N >= 1 streams, stacked in this order."""
    whole, _, size = rows[0]
    together = all(row.stacked is whole for row in rows)
    if together and [row.place for row in rows] == list(range(size)):
        return whole
    return stack([row.alone.stacked for row in rows])


class Turn(NamedTuple):
    """What one stream brings to a step."""

    samples: Array
    """(n,) its audio so far; what lies more than a window before `start` may be missing."""
    start: int
    """Index of the window's first sample in `samples`."""
    steps_done: int
    num_features: int
    """Feature frames of all its audio so far."""
    num_wanted: int
    """Encoder frames that its search is still to hear; S = min(this, S')."""


class Stepped(NamedTuple):
    """What a step brings, without the frames that nobody wants."""

    frames: list[Frames]
    """Per stream, by head name, each (S, ...)."""
    counts: list[int]
    """Per stream S."""
    hidden: list[Array]
    """Per stream (S, C) for a second pass; empty if there is none."""
    rows: list[Row]
    """Per stream its state after the step."""


def step_streams(
    model: StreamingModel, turns: Sequence[Turn], rows: Sequence[Row], keep_hidden: bool
) -> Stepped:
    """One step of `model` for N >= 1 streams and their states.

    Raises:
        ValueError: the model returns other frames than it has declared, or no hidden states
            although they are asked for.
    """
    length = model.chunk_samples + model.lookahead_samples
    shift = model.chunk_samples // model.frame_shift_samples
    windows = [window(turn.samples, turn.start, length) for turn in turns]
    left = [turn.num_features - turn.steps_done * shift for turn in turns]
    state = gather(rows)
    _, like = next(leaves(state), ("", None))  # a model without state is handed numpy's
    samples = as_kind(np.stack([as_numpy(each) for each in windows]), like)
    result = model.step(samples, as_kind(np.array(left), like), state)
    expected = (len(turns), model.chunk_frames)
    for head, said in result.frames.items():
        if said.shape[:2] != expected:
            raise ValueError(
                f"a step must return (streams, `chunk_frames`) = {expected} frames, "
                f"but returned {tuple(said.shape[:2])} of head {head}"
            )
    after = [Row(result.state, index, len(turns)) for index in range(len(turns))]
    counts = [min(turn.num_wanted, model.chunk_frames) for turn in turns]
    frames: list[Frames] = [
        {head: said[i, :count] for head, said in result.frames.items()}
        for i, count in enumerate(counts)
    ]
    if not keep_hidden:
        return Stepped(frames, counts, [], after)
    if result.hidden is None:
        raise ValueError("a second pass needs hidden states, but the model returns none")
    hidden = [copied(rows[:count]) for rows, count in zip(result.hidden, counts)]
    return Stepped(frames, counts, hidden, after)


def window(samples: Array, start: int, length: int) -> Array:
    """samples[start : start + length] of samples (n,), n >= 1, completed by reflecting the end."""
    size = samples.shape[0]
    if start + length <= size:
        return samples[start : start + length]
    index = np.arange(start, start + length) % (2 * size)
    return samples[np.where(index < size, index, 2 * size - 1 - index)]
