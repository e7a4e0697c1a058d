"""One stream of audio between two steps, as a value: what is shared by all that recognises running
audio, one stream (`live`), many (`pool`) or recordings (`streaming`).

    open_stream -> heard (a block) ... ended -> advance (one step of model and search, for all
    streams that are ready, whatever their age) ... -> close_at_end

Nothing here is changed in place: a step that fails leaves every stream as it was. A stream is cut
into segments (`segment`), which the model's states do not feel. Neither memory nor work per chunk
grows with the stream. n samples.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dualasr_lib.core.arrays import Array, as_numpy, joined, without_gradient
from dualasr_lib.decoding.contract import OnlineStep
from dualasr_lib.decoding.endpoint import is_near
from dualasr_lib.decoding.events import Partial
from dualasr_lib.decoding.segment import (
    Closed,
    Parts,
    Segment,
    divided,
    end_reason,
    first_texts,
    grown,
    shown,
)
from dualasr_lib.decoding.stepping import Row, Stepped, Turn, step_streams

__all__ = [
    "Advanced",
    "Stream",
    "advance",
    "at_end",
    "audio_seconds",
    "backlog_samples",
    "close_at_end",
    "ended",
    "heard",
    "is_near_endpoint",
    "is_ready",
    "open_stream",
    "silence_seconds",
]


class Stream(NamedTuple):
    """A stream between two steps."""

    samples: Array
    """(n,) the end of its audio: what windows still need."""
    samples_start: int
    """Position of the first of them."""
    is_ended: bool
    """No more audio will come."""
    steps_done: int
    row: Row
    segment: Segment

    @property
    def num_samples(self) -> int:
        """Samples that have come so far."""
        return self.samples_start + len(self.samples)


class Advanced(NamedTuple):
    """A stream after a step."""

    stream: Stream
    audio_seconds: float
    """Audio that had to be there for the step."""
    partial: Partial | None
    """If there is news."""
    closed: Closed | None
    """If a segment is over."""
    carried: Partial | None
    """What has been heard of the next segment already, if one is over."""


def open_stream(parts: Parts) -> Stream:
    """A stream that has heard nothing."""
    row = Row(parts.model.init_state(1))
    segment = Segment(0, 0, parts.search.open())
    return Stream(np.zeros(0, np.float32), 0, False, 0, row, segment)


def heard(parts: Parts, stream: Stream, samples: Array) -> Stream:
    """The stream with (n,) float32 samples more. What no window needs any more is forgotten."""
    # The reflection of an end inside the next window reaches back by less than a window.
    needed = _position(parts, stream) - _window(parts)
    start = min(max(needed, stream.samples_start), stream.num_samples)
    rest = stream.samples[start - stream.samples_start :]
    return stream._replace(samples=joined([rest, as_numpy(samples)]), samples_start=start)


def ended(stream: Stream) -> Stream:
    """The stream when its last sample has come: the last windows are completed by reflection."""
    return stream._replace(is_ended=True)


def is_ready(parts: Parts, stream: Stream) -> bool:
    """Whether the next step can be taken."""
    return _is_complete(parts, stream) or (stream.is_ended and _frames_left(parts, stream) > 0)


def at_end(parts: Parts, stream: Stream) -> bool:
    """Whether all has been heard and only `close_at_end` is left."""
    return stream.is_ended and not is_ready(parts, stream)


def audio_seconds(parts: Parts, stream: Stream) -> float:
    """Audio that has to be there for the next step, from the start of the stream."""
    return _needed(parts, stream) / parts.model.sample_rate


def backlog_samples(parts: Parts, stream: Stream) -> int:
    """Samples that have come and that no step has taken as new ones."""
    return max(0, stream.num_samples - _position(parts, stream))


def silence_seconds(parts: Parts, stream: Stream) -> float | None:
    """Time since the last token of the segment; None before the first."""
    segment = stream.segment
    if segment.last_token_frame is None:
        return None
    silent = segment.num_frames - 1 - segment.last_token_frame
    return round(silent * parts.frame_seconds, 6)


def is_near_endpoint(parts: Parts, stream: Stream) -> bool:
    """Whether the next step may bring the end of a sentence."""
    silent = silence_seconds(parts, stream)
    if silent is None or parts.endpoint is None:
        return False
    count, more = stream.segment.num_frames, parts.model.chunk_frames
    return is_near(count, silent, parts.endpoint, parts.frame_seconds, more)


def advance(parts: Parts, streams: Sequence[Stream]) -> list[Advanced]:
    """One step of model and search for N >= 1 streams that are ready.

    Raises:
        ValueError: a model that breaks its word or offers nothing to the second pass, or scores
            that the search refuses. No stream has changed.
    """
    with without_gradient():
        turns = [_turn(parts, stream) for stream in streams]
        rows = [stream.row for stream in streams]
        stepped = step_streams(parts.model, turns, rows, parts.keep_hidden)
        states = [stream.segment.search_state for stream in streams]
        steps = parts.search.step(stepped.frames, states)
        return [
            _advanced(parts, stream, stepped, index, step)
            for index, (stream, step) in enumerate(zip(streams, steps))
        ]


def close_at_end(parts: Parts, stream: Stream) -> Closed:
    """The last segment of a stream that is `at_end`; it may have no samples."""
    segment = stream.segment
    with without_gradient():
        path = parts.search.finish(segment.search_state)
    start, end = segment.start, max(segment.start, stream.num_samples)
    proposed = first_texts(parts, segment, path)
    return Closed(segment.number, start, end, path, "end", segment.hidden, proposed)


def _position(parts: Parts, stream: Stream) -> int:
    """Sample of the stream at which the next window begins."""
    return stream.steps_done * parts.model.chunk_samples


def _window(parts: Parts) -> int:
    """Samples of a window."""
    return parts.model.chunk_samples + parts.model.lookahead_samples


def _is_complete(parts: Parts, stream: Stream) -> bool:
    """Whether the samples of the next window are all there."""
    return _position(parts, stream) + _window(parts) <= stream.num_samples


def _frames_left(parts: Parts, stream: Stream) -> int:
    """Encoder frames of the audio that has come, without those that have been heard."""
    total = parts.model.num_output_frames(stream.num_samples)
    return total - stream.steps_done * parts.model.chunk_frames


def _turn(parts: Parts, stream: Stream) -> Turn:
    model = parts.model
    return Turn(
        samples=stream.samples,
        start=_position(parts, stream) - stream.samples_start,
        steps_done=stream.steps_done,
        num_features=model.num_feature_frames(stream.num_samples),
        num_wanted=_frames_left(parts, stream) if stream.is_ended else model.chunk_frames,
    )


def _needed(parts: Parts, stream: Stream) -> int:
    """Samples of the stream that have to be there for the next step."""
    return min(_position(parts, stream) + _window(parts), stream.num_samples)


def _advanced(
    parts: Parts, stream: Stream, stepped: Stepped, index: int, step: OnlineStep
) -> Advanced:
    """The stream after the step; a segment that is over makes room for the next one."""
    was_complete = _is_complete(parts, stream)
    seconds = audio_seconds(parts, stream)
    segment = grown(
        parts,
        stream.segment,
        stepped.frames[index],
        stepped.counts[index],
        stepped.hidden[index] if parts.keep_hidden else None,
    )
    segment, partial = shown(parts, segment, step, seconds)
    row, steps_done = stepped.rows[index], stream.steps_done + 1
    stream = stream._replace(row=row, steps_done=steps_done, segment=segment)
    # Windows that had to be completed belong to the segment that the end of the audio closes.
    reason = end_reason(parts, segment) if was_complete else None
    if reason is None:
        return Advanced(stream, seconds, partial, None, None)
    closed, following, carried = divided(parts, segment, reason, seconds)
    return Advanced(stream._replace(segment=following), seconds, partial, closed, carried)
