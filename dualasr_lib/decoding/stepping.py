"""One step of the model for some streams: windows cut and completed, what comes back checked.

What the loops of `streaming` and `live` share; `contract` says what a window is. Clocks, searches
and texts are theirs.

N streams of a step, n samples of a stream, P new ones of a window, L look-ahead; S' encoder frames
of a step, S <= S' of them wanted; C channels.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dualasr_lib.decoding.contract import Frames, StreamingModel

__all__ = ["Stepped", "Turn", "step_streams", "window"]


class Turn(NamedTuple):
    """What one stream brings to a step."""

    samples: Tensor
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
    hidden: list[Tensor]
    """Per stream (S, C) for a second pass; empty if there is none."""
    state: Any
    """Of the N streams after the step."""


def step_streams(
    model: StreamingModel, turns: Sequence[Turn], state: Any, keep_hidden: bool
) -> Stepped:
    """One step of `model` for N streams, whose states come stacked.

    Raises:
        ValueError: the model returns other frames than it has declared, or no hidden states
            although they are asked for.
    """
    length = model.chunk_samples + model.lookahead_samples
    shift = model.chunk_samples // model.frame_shift_samples
    windows = [window(turn.samples, turn.start, length) for turn in turns]
    left = [turn.num_features - turn.steps_done * shift for turn in turns]
    result = model.step(torch.stack(windows), torch.tensor(left), state)
    expected = (len(turns), model.chunk_frames)
    for head, said in result.frames.items():
        if said.shape[:2] != expected:
            raise ValueError(
                f"a step must return (streams, `chunk_frames`) = {expected} frames, "
                f"but returned {tuple(said.shape[:2])} of head {head}"
            )
    counts = [min(turn.num_wanted, model.chunk_frames) for turn in turns]
    frames: list[Frames] = [
        {head: said[i, :count] for head, said in result.frames.items()}
        for i, count in enumerate(counts)
    ]
    if not keep_hidden:
        return Stepped(frames, counts, [], result.state)
    if result.hidden is None:
        raise ValueError("a second pass needs hidden states, but the model returns none")
    hidden = [rows[:count].clone() for rows, count in zip(result.hidden, counts)]
    return Stepped(frames, counts, hidden, result.state)


def window(samples: Tensor, start: int, length: int) -> Tensor:
    """samples[start : start + length] of samples (n,), n >= 1, completed by reflecting the end."""
    size = samples.shape[0]
    if start + length <= size:
        return samples[start : start + length]
    index = torch.arange(start, start + length) % (2 * size)
    return samples[torch.where(index < size, index, 2 * size - 1 - index)]
