"""One endless stream of audio: partial texts as they come, final ones sentence by sentence.

Audio comes in blocks of any size. The model steps as soon as a window is complete (`contract` says
what a window is), and `endpoint` cuts the stream into segments: the next one starts with fresh
states at the sample after the last whole chunk, so that neither memory nor work per chunk grows
with the stream. Times count from the start of the stream. Left out: many streams at once
(`streaming`), audio files and devices.

A segment that is one whole utterance gets the windows, and so the text, that `decode_streams`
gives it.

P new samples of a step, L look-ahead, S' encoder frames of a step, n samples of a block.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dualasr_lib.decoding.contract import (
    OnlineSearch,
    OnlineStep,
    Rewritten,
    SecondPass,
    StreamingModel,
)
from dualasr_lib.decoding.endpoint import EndpointConfig, EndReason, endpoint
from dualasr_lib.decoding.hypothesis import PathLike
from dualasr_lib.decoding.offline import Detokenise
from dualasr_lib.decoding.stepping import Stepped, Turn, step_streams

__all__ = ["Event", "Final", "LiveConfig", "Partial", "TimedToken", "listen"]


class Partial(NamedTuple):
    """The text of the current segment has changed, or more of it is certain."""

    start_seconds: float
    """Where the segment begins."""
    text: str
    committed_text: str
    """The beginning of `text` that the first pass cannot change any more."""
    audio_seconds: float
    """Audio that had to be there for it."""


class TimedToken(NamedTuple):
    """A token of a final text; the texts of all tokens joined are the segment's."""

    text: str
    seconds: float
    """When it was emitted: start of its encoder frame, from the start of the stream."""


class Final(NamedTuple):
    """A segment has ended. Segments without text are reported too."""

    start_seconds: float
    end_seconds: float
    text: str
    tokens: tuple[TimedToken, ...]
    reason: EndReason
    first_pass_text: str
    """What the streaming search made of it; equals `text` without a second pass."""
    finalise_seconds: float
    """Wall time of the second pass; 0 without one."""
    fallbacks: int = 0
    """Times that memory ran out in the second pass and less was searched."""


Event = Partial | Final


@dataclass(frozen=True, kw_only=True)
class LiveConfig:
    """Options of `listen`."""

    endpoint: EndpointConfig = field(default_factory=EndpointConfig)
    """When a segment ends."""


def listen(
    blocks: Iterable[Tensor],
    model: StreamingModel,
    search: OnlineSearch,
    detokenise: Detokenise,
    config: LiveConfig,
    second_pass: SecondPass | None = None,
) -> Iterator[Event]:
    """Recognises the joined blocks, (n,) float samples in [-1, 1] each, n >= 0.

    Partials appear as soon as the blocks that they need have come. Every sample belongs to exactly
    one segment. Segments without a first-pass token are silence and get no second pass, which would
    invent words for some; only audio that is one segment as a whole always gets one.

    Raises:
        ValueError: a block of another shape, NaN or infinite samples (the message says at which
            second), a model that breaks its word or offers nothing to the second pass.
    """
    listener = _Listener(model, search, detokenise, config, second_pass)
    for block in blocks:
        yield from listener.feed(block)
    yield from listener.finish()


@dataclass(eq=False)
class _Segment:
    """Book-keeping of the current segment."""

    start: int
    """Sample of the stream at which it begins."""
    model_state: Any
    search_state: Any
    steps_done: int = 0
    num_frames: int = 0
    """Encoder frames that the search has heard."""
    text: str = ""
    committed: str = ""
    last_token_frame: int | None = None
    hidden: list[Tensor] = field(default_factory=list)
    """(S_i, C) of each step, for the second pass."""


class _Tail:
    """The end of the stream: what windows still need, at most a few chunks."""

    def __init__(self) -> None:
        self.samples = torch.zeros(0)
        self.start = 0
        """Position of the first of them in the stream."""

    @property
    def end(self) -> int:
        """Samples that have come so far."""
        return self.start + len(self.samples)

    def append(self, block: Tensor) -> None:
        self.samples = torch.cat([self.samples, block])

    def forget(self, before: int) -> None:
        """Drops the samples before a position of the stream."""
        if before > self.start:
            self.samples = self.samples[before - self.start :].clone()
            self.start = before


class _Listener:
    """The stream between two blocks."""

    def __init__(
        self,
        model: StreamingModel,
        search: OnlineSearch,
        detokenise: Detokenise,
        config: LiveConfig,
        second_pass: SecondPass | None,
    ) -> None:
        self._model = model
        self._search = search
        self._detokenise = detokenise
        self._config = config
        self._second_pass = second_pass
        self._window = model.chunk_samples + model.lookahead_samples
        self._frame_seconds = model.chunk_samples / model.chunk_frames / model.sample_rate
        self._tail = _Tail()
        self._segment = self._open(0)

    def feed(self, block: Tensor) -> Iterator[Event]:
        """What the windows that `block` completes bring."""
        self._check(block)
        self._tail.append(block.detach().to("cpu", torch.float32))
        while self._position + self._window <= self._tail.end:
            yield from self._step(self._model.chunk_frames)
            segment = self._segment
            reason = endpoint(
                segment.num_frames,
                segment.last_token_frame,
                self._config.endpoint,
                self._frame_seconds,
            )
            if reason is not None:
                yield self._close(self._position, reason)
                self._segment = self._open(self._position)
        # The reflection of an end inside the next window reaches back by less than a window.
        self._tail.forget(max(self._segment.start, self._position - self._window))

    def finish(self) -> Iterator[Event]:
        """What the rest of the audio brings, its last windows completed by reflection."""
        num_samples = self._tail.end - self._segment.start
        total = self._model.num_output_frames(num_samples)
        while self._segment.num_frames < total:
            yield from self._step(total - self._segment.num_frames)
        if num_samples:
            yield self._close(self._tail.end, "end")

    @property
    def _position(self) -> int:
        """Sample of the stream at which the next window begins."""
        return self._segment.start + self._segment.steps_done * self._model.chunk_samples

    def _open(self, start: int) -> _Segment:
        return _Segment(start, self._model.init_state(1), self._search.open())

    def _check(self, block: Tensor) -> None:
        if block.dim() != 1 or not block.is_floating_point():
            raise ValueError(
                "a block of audio must be (n,) floating point samples, but is "
                f"{tuple(block.shape)} {block.dtype}"
            )
        bad = (~block.isfinite()).nonzero()
        if len(bad):
            seconds = (self._tail.end + int(bad[0])) / self._model.sample_rate
            raise ValueError(
                f"samples must be finite numbers, but there is NaN or infinity at {seconds:.3f} s"
            )

    def _step(self, frames_wanted: int) -> Iterator[Partial]:
        """One step of model and search; the search hears at most `frames_wanted` frames of it."""
        segment = self._segment
        needed = min(self._position + self._window, self._tail.end)
        with torch.no_grad():
            stepped = self._stepped(frames_wanted)
            step = self._search.step(stepped.frames, [segment.search_state])[0]
        segment.search_state = step.state
        segment.steps_done += 1
        segment.num_frames += stepped.counts[0]
        yield from self._show(step, needed)

    def _stepped(self, frames_wanted: int) -> Stepped:
        """The next frames of the segment; their hidden states are kept."""
        segment, tail = self._segment, self._tail
        origin = max(segment.start, tail.start)  # a reflection must not leave the segment
        turn = Turn(
            samples=tail.samples[origin - tail.start :],
            start=self._position - origin,
            steps_done=segment.steps_done,
            num_features=self._model.num_feature_frames(tail.end - segment.start),
            num_wanted=frames_wanted,
        )
        keep_hidden = self._second_pass is not None
        stepped = step_streams(self._model, [turn], segment.model_state, keep_hidden)
        segment.model_state = stepped.state
        segment.hidden += stepped.hidden
        return stepped

    def _show(self, step: OnlineStep, needed: int) -> Iterator[Partial]:
        """A partial if there is news; `needed` samples of the stream had to be there for it."""
        segment, rate = self._segment, self._model.sample_rate
        path = step.partial
        text = self._detokenise(path.tokens)
        committed = self._detokenise(path.tokens[: step.num_committed])
        segment.last_token_frame = path.frames[-1] if path.frames else None
        if (text, committed) != (segment.text, segment.committed):
            segment.text, segment.committed = text, committed
            yield Partial(segment.start / rate, text, committed, needed / rate)

    def _close(self, end: int, reason: EndReason) -> Final:
        """The segment up to sample `end` of the stream."""
        segment, rate = self._segment, self._model.sample_rate
        seconds = 0.0
        with torch.no_grad():
            first = self._search.finish(segment.search_state)
            path, fallbacks = Rewritten(first)
            if self._second_pass is not None and self._worth(first, reason):
                begun = time.perf_counter()
                path, fallbacks = self._second_pass(torch.cat(segment.hidden))
                seconds = time.perf_counter() - begun
        start = segment.start / rate
        tokens = self._timed(path, start)
        text, first_text = self._detokenise(path.tokens), self._detokenise(first.tokens)
        return Final(start, end / rate, text, tokens, reason, first_text, seconds, fallbacks)

    def _worth(self, first: PathLike, reason: EndReason) -> bool:
        """Whether the segment deserves a second pass."""
        whole = reason == "end" and self._segment.start == 0
        return bool(self._segment.hidden) and (whole or bool(first.tokens))

    def _timed(self, path: PathLike, start: float) -> tuple[TimedToken, ...]:
        """Each token's text is what it adds to the text of those before."""
        timed, before = [], ""
        for count, frame in enumerate(path.frames, start=1):
            text = self._detokenise(path.tokens[:count])
            timed.append(TimedToken(text[len(before) :], start + frame * self._frame_seconds))
            before = text
        return tuple(timed)
