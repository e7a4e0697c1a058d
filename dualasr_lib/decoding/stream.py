"""One stream of audio between two steps, as a value: what is shared by all that recognises running
audio, one stream (`live`), many (`pool`) or recordings (`streaming`).

    open_stream -> heard (a block) ... ended -> advance (one step of model and search, for all
    streams that are ready, whatever their age) ... -> close_at_end

Nothing here is changed in place: a step that fails leaves every stream as it was. A stream is cut
into segments by `endpoint`. After silence the next segment starts afresh, with new states at the
sample after the last whole chunk. Where speech goes on (reason "length") only the text is cut, in
the longest gap that is near: the model's states go on and the search hears the frames after the cut
again, so that no character is lost or doubled there. Neither memory nor work per chunk grows with
the stream.

P new samples of a step, S' encoder frames of it, n samples, S frames of a segment, V vocabulary,
C channels.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dualasr_lib.core.arrays import Array, as_numpy, copied, joined, without_gradient
from dualasr_lib.decoding.contract import Frames, OnlineSearch, OnlineStep, StreamingModel
from dualasr_lib.decoding.endpoint import EndpointConfig, EndReason, cut_frame, endpoint
from dualasr_lib.decoding.events import Partial
from dualasr_lib.decoding.hypothesis import PathLike, TokenPath
from dualasr_lib.decoding.offline import Detokenise
from dualasr_lib.decoding.stepping import Row, Stepped, Turn, step_streams

__all__ = [
    "Advanced",
    "Closed",
    "Parts",
    "Segment",
    "Stream",
    "advance",
    "at_end",
    "audio_seconds",
    "backlog_samples",
    "close_at_end",
    "ended",
    "heard",
    "is_ready",
    "open_stream",
    "silence_seconds",
]


class Parts(NamedTuple):
    """What turns samples into text."""

    model: StreamingModel
    search: OnlineSearch
    detokenise: Detokenise
    keep_hidden: bool
    """Whether a second pass will want the hidden states."""
    endpoint: EndpointConfig | None
    """None: a stream is one segment."""

    @property
    def frame_seconds(self) -> float:
        """Duration of an encoder frame."""
        model = self.model
        return model.chunk_samples / model.chunk_frames / model.sample_rate


class Segment(NamedTuple):
    """The segment that is being heard."""

    number: int
    start: int
    """Sample of the stream at which it begins."""
    search_state: Any
    num_frames: int = 0
    """Encoder frames that the search has heard."""
    text: str = ""
    committed_text: str = ""
    hidden: tuple[Array, ...] = ()
    """(S_i, C) of each step, for the second pass."""
    recent: tuple[Frames, ...] = ()
    """What heads said of the last steps, each (S_i, ...), once a cut by length is near."""
    token_frames: tuple[int, ...] = ()
    """When the tokens of `text` were emitted."""

    @property
    def last_token_frame(self) -> int | None:
        """When the last token was emitted; None before the first."""
        return self.token_frames[-1] if self.token_frames else None


class Stream(NamedTuple):
    """A stream between two steps."""

    samples: Array
    """(n,) the end of its audio: what windows still need."""
    samples_start: int
    """Position of the first of them."""
    is_ended: bool
    """No more audio will come."""
    origin: int
    """Sample at which the model started afresh."""
    steps_done: int
    """Since then."""
    row: Row
    segment: Segment

    @property
    def num_samples(self) -> int:
        """Samples that have come so far."""
        return self.samples_start + len(self.samples)


class Closed(NamedTuple):
    """A segment that is over, before any second pass."""

    number: int
    start: int
    """Samples of the stream."""
    end: int
    path: PathLike
    """Of the first pass; frames count from the start of the segment."""
    reason: EndReason
    hidden: tuple[Array, ...]
    """(S_i, C), as many frames as it has."""


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
    """What has been heard of the next segment already, if one was cut by length."""


def open_stream(parts: Parts) -> Stream:
    """A stream that has heard nothing."""
    row = Row(parts.model.init_state(1))
    segment = Segment(0, 0, parts.search.open())
    return Stream(np.zeros(0, np.float32), 0, False, 0, 0, row, segment)


def heard(parts: Parts, stream: Stream, samples: Array) -> Stream:
    """The stream with (n,) float32 samples more. What no window needs any more is forgotten."""
    # The reflection of an end inside the next window reaches back by less than a window.
    needed = _position(parts, stream) - _window(parts)
    start = min(max(stream.origin, needed, stream.samples_start), stream.num_samples)
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
    return Closed(segment.number, start, end, path, "end", segment.hidden)


def _position(parts: Parts, stream: Stream) -> int:
    """Sample of the stream at which the next window begins."""
    return stream.origin + stream.steps_done * parts.model.chunk_samples


def _window(parts: Parts) -> int:
    """Samples of a window."""
    return parts.model.chunk_samples + parts.model.lookahead_samples


def _is_complete(parts: Parts, stream: Stream) -> bool:
    """Whether the samples of the next window are all there."""
    return _position(parts, stream) + _window(parts) <= stream.num_samples


def _frames_left(parts: Parts, stream: Stream) -> int:
    """Encoder frames of the audio that has come, without those that have been heard."""
    total = parts.model.num_output_frames(stream.num_samples - stream.origin)
    return total - stream.steps_done * parts.model.chunk_frames


def _turn(parts: Parts, stream: Stream) -> Turn:
    model = parts.model
    origin = max(stream.origin, stream.samples_start)  # a reflection must not pass the origin
    return Turn(
        samples=stream.samples[origin - stream.samples_start :],
        start=_position(parts, stream) - origin,
        steps_done=stream.steps_done,
        num_features=model.num_feature_frames(stream.num_samples - stream.origin),
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
    segment, count = stream.segment, stepped.counts[index]
    segment = segment._replace(
        num_frames=segment.num_frames + count,
        hidden=(*segment.hidden, stepped.hidden[index]) if parts.keep_hidden else (),
        recent=_recent(parts, segment, stepped.frames[index], count),
    )
    segment, partial = _shown(parts, segment, step, seconds)
    row, steps_done = stepped.rows[index], stream.steps_done + 1
    stream = stream._replace(row=row, steps_done=steps_done, segment=segment)
    # Windows that had to be completed belong to the segment that the end of the audio closes.
    reason = _endpoint(parts, segment) if was_complete else None
    if reason is None:
        return Advanced(stream, seconds, partial, None, None)
    if reason != "length":
        closed, stream = _restarted(parts, stream, reason)
        return Advanced(stream, seconds, partial, closed, None)
    cut = _cut(parts, segment)
    following, carried = _carried(parts, segment, cut, seconds)
    closed = _first_part(parts, segment, cut)
    return Advanced(stream._replace(segment=following), seconds, partial, closed, carried)


def _recent(parts: Parts, segment: Segment, frames: Frames, count: int) -> tuple[Frames, ...]:
    """What was said of frames in which a cut by length will look for a gap."""
    if parts.endpoint is None:
        return ()
    longest = parts.endpoint.max_seconds
    begin = longest - min(parts.endpoint.cut_seconds, longest / 2)  # inf: never
    if (segment.num_frames + count) * parts.frame_seconds <= begin:
        return ()
    return (*segment.recent, {head: copied(said) for head, said in frames.items()})


def _shown(
    parts: Parts, segment: Segment, step: OnlineStep, seconds: float
) -> tuple[Segment, Partial | None]:
    """The segment with what the search has found, and a partial if that is news."""
    path = step.partial
    text = committed = parts.detokenise(path.tokens)
    if step.num_committed < len(path.tokens):
        committed = parts.detokenise(path.tokens[: step.num_committed])
    is_news = (text, committed) != (segment.text, segment.committed_text)
    segment = segment._replace(
        search_state=step.state,
        text=text,
        committed_text=committed,
        token_frames=tuple(path.frames),
    )
    start = segment.start / parts.model.sample_rate
    sure = tuple(path.confidences[: step.num_committed])
    partial = Partial(start, text, committed, seconds, segment.number, sure)
    return segment, partial if is_news else None


def _endpoint(parts: Parts, segment: Segment) -> EndReason | None:
    if parts.endpoint is None:
        return None
    last = segment.last_token_frame
    return endpoint(segment.num_frames, last, parts.endpoint, parts.frame_seconds)


def _restarted(parts: Parts, stream: Stream, reason: EndReason) -> tuple[Closed, Stream]:
    """The segment up to the next window, and the stream with fresh states there."""
    segment, end = stream.segment, _position(parts, stream)
    path = parts.search.finish(segment.search_state)
    closed = Closed(segment.number, segment.start, end, path, reason, segment.hidden)
    row = Row(parts.model.init_state(1))
    fresh = Segment(segment.number + 1, end, parts.search.open())
    return closed, stream._replace(origin=end, steps_done=0, row=row, segment=fresh)


def _cut(parts: Parts, segment: Segment) -> int:
    """The frame of the segment before which it is cut by length."""
    assert parts.endpoint is not None
    best = _best_tokens(segment)
    begin = segment.num_frames - len(best)
    # steps of several frames may have gone beyond the length by a few
    longest = max(begin + 1, int(parts.endpoint.max_seconds / parts.frame_seconds + 1e-6))
    return begin + cut_frame(best[: longest - begin])


def _best_tokens(segment: Segment) -> list[int]:
    """Of each recent frame, 0 for a blank: what CTC says, or else when tokens were emitted."""
    recent = _joined(segment.recent)
    if "ctc" in recent:
        return as_numpy(recent["ctc"]).argmax(axis=1).tolist()
    count = len(next(iter(recent.values())))
    emitting = set(segment.token_frames)
    return [int(f in emitting) for f in range(segment.num_frames - count, segment.num_frames)]


def _joined(parts: Sequence[Frames]) -> Frames:
    """Frames of several steps as those of one."""
    return {head: joined([frames[head] for frames in parts]) for head in parts[0]}


def _first_part(parts: Parts, segment: Segment, cut: int) -> Closed:
    """The segment up to frame `cut`."""
    path = parts.search.finish(segment.search_state)
    count = sum(frame < cut for frame in path.frames)
    kept = TokenPath(
        path.tokens[:count],
        path.frames[:count],
        path.score,
        path.posteriors[:count],
        path.confidences[:count],
    )
    hidden = (joined(segment.hidden)[:cut],) if segment.hidden else ()
    end = segment.start + cut * _frame_samples(parts)
    return Closed(segment.number, segment.start, end, kept, "length", hidden)


def _carried(
    parts: Parts, segment: Segment, cut: int, seconds: float
) -> tuple[Segment, Partial | None]:
    """The next segment, which begins at frame `cut`, and what has been heard of it already."""
    number, start = segment.number + 1, segment.start + cut * _frame_samples(parts)
    following = Segment(number, start, parts.search.open())
    count = segment.num_frames - cut
    if not count:
        return following, None
    frames = {head: said[-count:] for head, said in _joined(segment.recent).items()}
    hidden = (copied(joined(segment.hidden)[cut:]),) if segment.hidden else ()
    following = following._replace(num_frames=count, hidden=hidden)
    step = parts.search.step([frames], [following.search_state])[0]
    return _shown(parts, following, step, seconds)


def _frame_samples(parts: Parts) -> int:
    """Samples of an encoder frame."""
    return parts.model.chunk_samples // parts.model.chunk_frames
