"""One segment of a stream: how it grows, when it is over, and where it is cut from the next one.

The model's states go on over every cut and the search hears the frames after it again, so that no
character is lost or doubled there. A segment that became too long is cut in the longest gap of its
last seconds. One that ended in silence is cut in that silence, not at its end: who speaks again may
have begun already, as a streaming head writes a character a few hundred milliseconds behind, and
the second pass of the next segment must hear that beginning. Left out: windows, steps and the
coming of audio (`stream`).

S frames of a segment, S_i of a step, C channels.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from dualasr_lib.core.arrays import Array, as_numpy, copied, joined
from dualasr_lib.decoding.contract import (
    Frames,
    OnlineSearch,
    OnlineStep,
    StreamingModel,
    listed,
)
from dualasr_lib.decoding.endpoint import EndpointConfig, EndReason, cut_frame, endpoint
from dualasr_lib.decoding.events import Partial
from dualasr_lib.decoding.hypothesis import PathLike, ScoredText, TokenPath
from dualasr_lib.decoding.offline import Detokenise

__all__ = [
    "Closed",
    "Divided",
    "Parts",
    "Segment",
    "divided",
    "end_reason",
    "first_texts",
    "grown",
    "lead_frames",
    "shown",
]

_LONGEST_LEAD = 2.0
"""Seconds; what a segment begins with is kept in memory."""


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
    """What heads said of the last steps, each (S_i, ...): all that a cut may look back for."""
    token_frames: tuple[int, ...] = ()
    """When the tokens of `text` were emitted."""

    @property
    def last_token_frame(self) -> int | None:
        """When the last token was emitted; None before the first."""
        return self.token_frames[-1] if self.token_frames else None


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
    proposed: tuple[ScoredText, ...] = ()
    """Texts that the first pass lists, for the second one."""


class Divided(NamedTuple):
    """A segment that is over, and what comes after it."""

    closed: Closed
    following: Segment
    carried: Partial | None
    """What has been heard of the following one already."""


def grown(
    parts: Parts, segment: Segment, frames: Frames, count: int, hidden: Array | None
) -> Segment:
    """The segment with `count` frames more, before the search has heard them."""
    num_frames = segment.num_frames + count
    return segment._replace(
        num_frames=num_frames,
        hidden=() if hidden is None else (*segment.hidden, hidden),
        recent=_recent(parts, segment, frames, num_frames),
    )


def shown(
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


def end_reason(parts: Parts, segment: Segment) -> EndReason | None:
    """Why the segment is over now, or None while it goes on."""
    if parts.endpoint is None:
        return None
    last = segment.last_token_frame
    reason = endpoint(segment.num_frames, last, parts.endpoint, parts.frame_seconds)
    if reason in ("pause", "silence") and any(_best_tokens(segment, 1)):
        # a token that is still being said would be said again after the cut: no silence
        last = segment.num_frames - 1
        reason = endpoint(segment.num_frames, last, parts.endpoint, parts.frame_seconds)
    return reason


def lead_frames(parts: Parts, segment: Segment) -> int:
    """Frames of the silence at the end of the segment that the next one would begin with."""
    if parts.endpoint is None or not segment.recent:
        return 0
    last = -1 if segment.last_token_frame is None else segment.last_token_frame
    lead = min((segment.num_frames - 1 - last) // 2, _lead(parts.endpoint, parts))
    blanks = itertools.takewhile(lambda token: token == 0, reversed(_best_tokens(segment, lead)))
    return len(list(blanks))


def first_texts(parts: Parts, segment: Segment, path: PathLike) -> tuple[ScoredText, ...]:
    """What the first pass proposes to the second one: its list, or else its text."""
    if not parts.keep_hidden:
        return ()
    texts = listed(parts.search, segment.search_state) or (path,)
    return tuple(ScoredText(text.tokens, {}, text.frames) for text in texts)


def divided(parts: Parts, segment: Segment, reason: EndReason, seconds: float) -> Divided:
    """A segment that is over for this reason, once `seconds` of audio had to be there."""
    cut = segment.num_frames - lead_frames(parts, segment)
    if reason == "length":
        cut = _cut(parts, segment)
    following, carried = _carried(parts, segment, cut, seconds)
    return Divided(_first_part(parts, segment, cut, reason), following, carried)


def _recent(parts: Parts, segment: Segment, frames: Frames, num_frames: int) -> tuple[Frames, ...]:
    """What was said of the frames that a cut of the segment, `num_frames` long now, would look back
    for: its gap is looked for in the last seconds, its silence is shared.
    """
    if parts.endpoint is None:
        return ()
    recent = (*segment.recent, {head: copied(said) for head, said in frames.items()})
    wanted = max(num_frames - _search_begin(parts.endpoint, parts), _lead(parts.endpoint, parts))
    sizes = [_size(said) for said in recent]
    return tuple(said for i, said in enumerate(recent) if sum(sizes[i + 1 :]) < wanted)


def _search_begin(config: EndpointConfig, parts: Parts) -> float:
    """Frame of a segment from which on a gap is looked for; inf: never."""
    longest = config.max_seconds
    return _frames(parts, longest - min(config.cut_seconds, longest / 2))


def _lead(config: EndpointConfig, parts: Parts) -> int:
    """The most frames of a silence that go to the next segment."""
    return int(_frames(parts, min(config.lead_seconds, _LONGEST_LEAD)))


def _frames(parts: Parts, seconds: float) -> float:
    """Whole frames in some seconds."""
    frames = seconds / parts.frame_seconds
    return math.floor(frames + 1e-6) if frames < math.inf else math.inf


def _size(frames: Frames) -> int:
    """S of what heads said."""
    return len(next(iter(frames.values()), ()))


def _cut(parts: Parts, segment: Segment) -> int:
    """The frame of the segment before which it is cut by length."""
    assert parts.endpoint is not None
    begin = min(int(_search_begin(parts.endpoint, parts)), segment.num_frames - 1)
    # steps of several frames may have gone beyond the length by a few
    longest = max(begin + 1, int(_frames(parts, parts.endpoint.max_seconds)))
    best = _best_tokens(segment, segment.num_frames - begin)
    return begin + cut_frame(best[: longest - begin])


def _best_tokens(segment: Segment, count: int) -> list[int]:
    """Of each of the last `count` recent frames, 0 for a blank: what CTC says, or else when tokens
    were emitted.
    """
    recent = _joined(segment.recent)
    if "ctc" in recent:
        return as_numpy(recent["ctc"])[-count:].argmax(axis=1).tolist()
    emitting = set(segment.token_frames)
    return [int(f in emitting) for f in range(segment.num_frames - count, segment.num_frames)]


def _joined(parts: Sequence[Frames]) -> Frames:
    """Frames of several steps as those of one."""
    return {head: joined([frames[head] for frames in parts]) for head in parts[0]}


def _first_part(parts: Parts, segment: Segment, cut: int, reason: EndReason) -> Closed:
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
    proposed: tuple[ScoredText, ...] = (ScoredText(kept.tokens, {}, kept.frames),)
    if count == len(path.tokens):
        proposed = first_texts(parts, segment, path)
    hidden = (joined(segment.hidden)[:cut],) if segment.hidden else ()
    end = segment.start + cut * _frame_samples(parts)
    return Closed(segment.number, segment.start, end, kept, reason, hidden, proposed)


def _carried(
    parts: Parts, segment: Segment, cut: int, seconds: float
) -> tuple[Segment, Partial | None]:
    """The next segment, which begins at frame `cut`, and what has been heard of it already."""
    number, start = segment.number + 1, segment.start + cut * _frame_samples(parts)
    following = Segment(number, start, parts.search.open())
    count = segment.num_frames - cut
    if not count:
        return following, None
    frames = {head: copied(said[-count:]) for head, said in _joined(segment.recent).items()}
    hidden = (copied(joined(segment.hidden)[cut:]),) if segment.hidden else ()
    following = following._replace(num_frames=count, hidden=hidden, recent=(frames,))
    step = parts.search.step([frames], [following.search_state])[0]
    return shown(parts, following, step, seconds)


def _frame_samples(parts: Parts) -> int:
    """Samples of an encoder frame."""
    return parts.model.chunk_samples // parts.model.chunk_frames
