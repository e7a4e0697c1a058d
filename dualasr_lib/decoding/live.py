"""One endless stream of audio: partial texts as they come, final ones sentence by sentence.

    listener = Listener(Rules(model, search, detokenise, LiveConfig(), second_pass))
    for block in microphone:
        for event in listener.feed(block): ...
    for event in listener.finish(): ...

Audio comes in blocks of any size; the model steps as soon as a window is complete (`contract` says
what a window is), and `stream` says how segments begin and end. A segment that is one whole
utterance gets the windows, and so the text, that `decode_streams` gives it. Left out: many streams
at once (`pool`), audio files and devices.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from dualasr_lib.core.arrays import joined
from dualasr_lib.decoding.contract import OnlineSearch, SecondPass, StreamingModel
from dualasr_lib.decoding.events import Event, Final, LiveConfig
from dualasr_lib.decoding.offline import Detokenise
from dualasr_lib.decoding.samples import as_samples
from dualasr_lib.decoding.second_pass import (
    Pending,
    Submit,
    Waiting,
    final_of,
    rewrite,
    run_here,
    started,
)
from dualasr_lib.decoding.segment import Closed, Parts, first_texts, lead_frames
from dualasr_lib.decoding.stream import (
    Advanced,
    Stream,
    advance,
    at_end,
    backlog_samples,
    close_at_end,
    ended,
    heard,
    is_near_endpoint,
    is_ready,
    open_stream,
    silence_seconds,
)

__all__ = ["Listener", "Live", "News", "Rules", "listen"]


class _Early(NamedTuple):
    """A second pass that was started before the endpoint."""

    pending: Pending
    last_token_frame: int
    """Of the segment then: if speech has gone on since, the result is of no use."""

    def is_of(self, closed: Closed) -> bool:
        """Whether the segment that is over now has said nothing more."""
        return closed.reason in ("pause", "end") and closed.path.frames[-1:] == (
            self.last_token_frame,
        )


class Live(NamedTuple):
    """A stream, and its segments that wait for their final texts; a value."""

    stream: Stream
    waiting: tuple[Waiting, ...] = ()
    """In order."""
    early: _Early | None = None


class News(NamedTuple):
    """A stream after something happened, and what there is to say."""

    live: Live
    events: tuple[Event, ...]


@dataclass(frozen=True)
class Rules:
    """How streams are heard: what `Listener` and `ListenerPool` share. Holds no stream."""

    model: StreamingModel
    search: OnlineSearch
    detokenise: Detokenise
    config: LiveConfig = field(default_factory=LiveConfig)
    second_pass: SecondPass | None = None
    submit: Submit = run_here
    """Runs second passes; by default here, before the call that ended a segment returns."""
    now: Callable[[], float] = time.monotonic
    """Seconds on any clock, for deadlines."""

    @cached_property
    def parts(self) -> Parts:
        """What the steps of a stream read."""
        keep_hidden = self.second_pass is not None
        return Parts(self.model, self.search, self.detokenise, keep_hidden, self.config.endpoint)

    def open(self) -> Live:
        """A stream that has heard nothing."""
        return Live(open_stream(self.parts))

    def fed(self, live: Live, block: Any) -> Live:
        """The stream with a block more.

        Raises:
            ValueError: as `as_samples`; the stream is as it was.
        """
        if live.stream.is_ended:
            raise ValueError("the stream has been finished: it takes no more audio")
        rate = self.parts.model.sample_rate
        samples = as_samples(block, live.stream.num_samples / rate, rate)
        return live._replace(stream=heard(self.parts, live.stream, samples))

    def finished(self, live: Live) -> Live:
        """The stream when all its audio has come."""
        return live._replace(stream=ended(live.stream))

    def is_ready(self, live: Live) -> bool:
        """Whether `stepped` can take it."""
        return is_ready(self.parts, live.stream)

    def stepped(self, lives: list[Live]) -> list[News]:
        """One step for N >= 1 streams that are ready.

        Raises:
            ValueError: as `advance`; the streams are as they were.
        """
        steps = advance(self.parts, [live.stream for live in lives])
        return [self._stepped(live, step) for live, step in zip(lives, steps)]

    def closed(self, live: Live) -> Live:
        """The stream with its last segment waiting, if all has been heard; else as it was."""
        stream = live.stream
        if not at_end(self.parts, stream) or stream.segment.start >= stream.num_samples:
            return live
        last = close_at_end(self.parts, stream)
        # nothing is left: a segment that begins where the audio ends has no samples
        rest = stream.segment._replace(start=stream.num_samples, hidden=(), recent=())
        live = live._replace(stream=stream._replace(segment=rest))
        return self._close(live, last)

    def collected(self, live: Live, wait: bool = False) -> News:
        """Final texts that are there, in order; with `wait` all of them."""
        finals: list[Final] = []
        waiting = live.waiting
        while waiting and (wait or waiting[0].is_due(self.now())):
            finals.append(final_of(self.parts, waiting[0], self.now()))
            waiting = waiting[1:]
        return News(live._replace(waiting=waiting), tuple(finals))

    def is_over(self, live: Live) -> bool:
        """Whether all has been said."""
        stream = live.stream
        said = at_end(self.parts, stream) and stream.segment.start >= stream.num_samples
        return said and not live.waiting

    def audio_seconds(self, live: Live) -> float:
        """Audio that has come."""
        return live.stream.num_samples / self.parts.model.sample_rate

    def backlog_seconds(self, live: Live) -> float:
        """Audio that has come and was not heard yet."""
        return backlog_samples(self.parts, live.stream) / self.parts.model.sample_rate

    def settled(self, live: Live) -> Live:
        """The stream with a model state of its own, which keeps no other stream's in memory."""
        return live._replace(stream=live.stream._replace(row=live.stream.row.alone))

    def dropped(self, live: Live) -> None:
        """Nobody wants the stream any more."""
        for waiting in live.waiting:
            if waiting.pending is not None:
                waiting.pending.cancel()
        self._discard(live)

    def _stepped(self, live: Live, step: Advanced) -> News:
        live = live._replace(stream=step.stream)
        before = () if step.partial is None else (step.partial,)
        after = () if step.carried is None else (step.carried,)
        if step.closed is None:
            return News(self._speculated(live), before)
        live, finals = self.collected(self._close(live, step.closed))
        return News(live, (*before, *finals, *after))

    def _close(self, live: Live, closed: Closed) -> Live:
        """The segment begins to wait for its final text."""
        early, pending = live.early, None
        if self.second_pass is not None and _is_worth(closed):
            if early is not None and early.is_of(closed):
                pending, live = early.pending, live._replace(early=None)
            else:
                task = rewrite(
                    self.second_pass, closed.hidden, closed.proposed, self.config.budget_seconds
                )
                pending = started(self.submit, task)
        live = self._discard(live)
        deadline = self.now() + self.config.deadline_seconds if pending else math.inf
        waiting = (*live.waiting, Waiting(closed, pending, deadline))
        return live._replace(waiting=waiting)

    def _speculated(self, live: Live) -> Live:
        """The stream with a second pass begun, or thrown away, as its silence asks."""
        silent = silence_seconds(self.parts, live.stream)
        segment = live.stream.segment
        if live.early is not None and live.early.last_token_frame != segment.last_token_frame:
            live = self._discard(live)
        if self.second_pass is None or live.early is not None or silent is None:
            return live
        if silent < self.config.early_seconds or not is_near_endpoint(self.parts, live.stream):
            return live
        if segment.last_token_frame is None:
            return live
        hidden = joined(segment.hidden)
        hidden = hidden[: len(hidden) - lead_frames(self.parts, segment)]
        path = self.search.finish(segment.search_state)
        proposed = first_texts(self.parts, segment, path)
        pending = started(self.submit, rewrite(self.second_pass, (hidden,), proposed))
        return live._replace(early=_Early(pending, segment.last_token_frame))

    def _discard(self, live: Live) -> Live:
        """The stream without a second pass that was begun too early."""
        if live.early is not None:
            live.early.pending.cancel()
        return live._replace(early=None)


def _is_worth(closed: Closed) -> bool:
    """Whether a segment deserves a second pass."""
    whole = closed.reason == "end" and closed.start == 0
    return bool(closed.hidden) and (whole or bool(closed.path.tokens))


class Listener:
    """One stream of audio that is pushed.

    Partials appear as soon as the blocks that they need have come. Every sample belongs to exactly
    one segment. Segments without a first-pass token are silence and get no second pass, which would
    invent words for some; only audio that is one segment as a whole always gets one.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._live = rules.open()

    def feed(self, block: Any) -> tuple[Event, ...]:
        """What a block brings: (n,) float samples in [-1, 1], or int16, torch or numpy, n >= 0.

        Raises:
            ValueError: a block that is none, or NaN, infinite or far too loud samples (the message
                says at which second): the listener is as it was. A model that breaks its word.
        """
        self._live = self._rules.fed(self._live, block)
        return self._heard(wait=False)

    def finish(self) -> tuple[Event, ...]:
        """What the rest of the audio brings, its last windows completed by reflection. Waits for
        second passes that run elsewhere.
        """
        if not self._live.stream.is_ended:
            self._live = self._rules.finished(self._live)
        return self._heard(wait=True)

    def _heard(self, wait: bool) -> tuple[Event, ...]:
        rules, events = self._rules, list[Event]()
        self._live, finals = rules.collected(self._live)
        events += finals
        while rules.is_ready(self._live):
            ((self._live, news),) = rules.stepped([self._live])
            events += news
        self._live, finals = rules.collected(rules.closed(self._live), wait)
        return (*events, *finals)


def listen(blocks: Iterable[Any], rules: Rules) -> Iterator[Event]:
    """The events of a `Listener` that is fed these blocks.

    Raises:
        ValueError: as `Listener.feed`.
    """
    listener = Listener(rules)
    for block in blocks:
        yield from listener.feed(block)
    yield from listener.finish()
