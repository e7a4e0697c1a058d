"""The frame loop of streaming recognition: audio in chunks, partial texts as they come, many
streams at once.

Models and searches are Protocols (`contract` says what passes between them); the loop never sees a
feature or a layer. Window k of a stream is complete when min(k P + P + L, n) of its n samples are
there: that is its audio time. A text appears at that audio time (`realtime` off: deterministic,
compute time excluded), or at the wall time since the stream joined (`realtime` on: audio arrives
at its natural speed, so that compute time and waiting for other streams count, as a user would see
it).

What is done to a stream is `stream`'s; here are the clock, the coming and going, and the records.
The cost of a step of model and search does not depend on the age of a stream. That of its text
does: it is made anew of all tokens after each step. Utterances are short; of audio without end
`live` makes segments.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import torch

from dualasr_lib.decoding.contract import (
    ModelStep,
    OnlineSearch,
    Rewritten,
    SecondPass,
    StreamingModel,
    Utterance,
)
from dualasr_lib.decoding.hypothesis import Emission, Hypothesis
from dualasr_lib.decoding.offline import Detokenise
from dualasr_lib.decoding.samples import as_samples
from dualasr_lib.decoding.second_pass import rewrite
from dualasr_lib.decoding.segment import Parts
from dualasr_lib.decoding.stream import (
    Stream,
    advance,
    at_end,
    audio_seconds,
    close_at_end,
    ended,
    heard,
    open_stream,
)

__all__ = [
    "Clock",
    "ModelStep",
    "OnlineSearch",
    "StreamingConfig",
    "StreamingModel",
    "StreamingRun",
    "Utterance",
    "Watcher",
    "decode_streams",
]


class Clock(NamedTuple):
    """Wall time, replaceable in tests."""

    now: Callable[[], float] = time.perf_counter
    """Seconds from any origin."""
    sleep: Callable[[float], None] = time.sleep


def _ignore(*_: object) -> None: ...


class Watcher(NamedTuple):
    """Who is told what happens."""

    on_partial: Callable[[str, Emission], None] = _ignore
    """Called with the utterance's id whenever its partial text changed."""
    on_final: Callable[[Hypothesis], None] = _ignore
    """Called with each hypothesis when its stream has ended."""


@dataclass(frozen=True, kw_only=True)
class StreamingConfig:
    """Options of the loop."""

    num_streams: int = 8
    """Streams in parallel; the next utterance joins when one ends."""
    realtime: bool = False
    """Feed audio at its natural speed and measure on the wall clock."""
    budget_seconds: float = math.inf
    """Time that a second pass has (`events.LiveConfig`)."""

    def __post_init__(self) -> None:
        if not self.budget_seconds > 0:
            raise ValueError(f"`budget_seconds` must be positive, but is {self.budget_seconds}")
        if self.num_streams < 1:
            raise ValueError(f"`num_streams` must be at least 1, but is {self.num_streams}")


class StreamingRun(NamedTuple):
    """All streams, finished."""

    hypotheses: list[Hypothesis]
    """In the order of the utterances."""
    audio_seconds: float
    compute_seconds: float
    """Wall time of all steps: windows, model, search, text; without waiting and reading audio."""
    num_threads: int
    """Threads that torch used inside an operation."""
    config: StreamingConfig

    @property
    def rtf(self) -> float | None:
        """Compute time / audio time; None without audio."""
        return self.compute_seconds / self.audio_seconds if self.audio_seconds else None

    @property
    def clock(self) -> str:
        """What the times of the emissions mean: "audio" or "wall"."""
        return "wall" if self.config.realtime else "audio"


def decode_streams(
    utterances: Iterable[Utterance],
    model: StreamingModel,
    search: OnlineSearch,
    detokenise: Detokenise,
    config: StreamingConfig,
    second_pass: SecondPass | None = None,
    watcher: Watcher = Watcher(),  # noqa: B008  (a value of two functions)
    clock: Clock = Clock(),  # noqa: B008  (the same)
) -> StreamingRun:
    """Streams every utterance through `model` and `search`.

    Args:
        second_pass: rewrites each text when its audio has ended, from the model's hidden states.
        watcher: is told of each partial and final text.

    Raises:
        ValueError: audio that is not (n,) finite samples, or a model whose output does not fit its
            own declaration; the message names the utterance.
    """
    parts = Parts(model, search, detokenise, second_pass is not None, endpoint=None)
    loop = _Loop(parts, config, second_pass, watcher, clock)
    finished: dict[int, Hypothesis] = {}
    for index, hypothesis in loop.run(utterances):
        finished[index] = hypothesis
        watcher.on_final(hypothesis)
    hypotheses = [finished[index] for index in sorted(finished)]
    audio_seconds = sum(hypothesis.duration for hypothesis in hypotheses)
    return StreamingRun(
        hypotheses, audio_seconds, loop.compute_seconds, torch.get_num_threads(), config
    )


@dataclass(eq=False)
class _Playing:
    """An utterance that is being streamed."""

    index: int
    utterance: Utterance
    started: float
    """Wall time at which it joined."""
    stream: Stream
    emissions: list[Emission] = field(default_factory=list)
    step_seconds: list[float] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The text shown now."""
        return self.emissions[-1].text if self.emissions else ""


class _Loop:
    """Steps the streams that are due until all have ended."""

    def __init__(
        self,
        parts: Parts,
        config: StreamingConfig,
        second_pass: SecondPass | None,
        watcher: Watcher,
        clock: Clock,
    ) -> None:
        self._parts = parts
        self._config = config
        self._second_pass = second_pass
        self._watcher = watcher
        self._clock = clock
        self.compute_seconds = 0.0

    def run(self, utterances: Iterable[Utterance]) -> Iterator[tuple[int, Hypothesis]]:
        """(place of the utterance, hypothesis) in the order in which streams end."""
        waiting = enumerate(utterances)
        active: list[_Playing] = []
        while True:
            room = self._config.num_streams - len(active)
            active += [self._join(index, item) for index, item in islice(waiting, room)]
            if not active:
                return
            over = [playing for playing in active if at_end(self._parts, playing.stream)]
            for playing in over:
                active.remove(playing)
                yield playing.index, self._finish(playing)
            if not over:
                self._advance(self._due(active))

    def _join(self, index: int, utterance: Utterance) -> _Playing:
        try:
            samples = as_samples(utterance.audio(), sample_rate=self._parts.model.sample_rate)
        except ValueError as error:
            raise ValueError(f"utterance {utterance.id!r}: {error}") from error
        started = self._clock.now()
        stream = ended(heard(self._parts, open_stream(self._parts), samples))
        return _Playing(index, utterance, started, stream)

    def _due(self, active: list[_Playing]) -> list[_Playing]:
        """Those whose next window is complete, after waiting for the first."""
        if not self._config.realtime:
            return active
        due_at = [item.started + audio_seconds(self._parts, item.stream) for item in active]
        wait = min(due_at) - self._clock.now()
        if wait > 0:
            self._clock.sleep(wait)
        now = max(self._clock.now(), min(due_at))
        return [item for item, time_due in zip(active, due_at) if time_due <= now]

    def _advance(self, due: list[_Playing]) -> None:
        """One step of model and search."""
        start = self._clock.now()
        steps = advance(self._parts, [playing.stream for playing in due])
        seconds = self._clock.now() - start
        self.compute_seconds += seconds
        for playing, step in zip(due, steps):
            playing.stream = step.stream
            playing.step_seconds.append(seconds)
            if step.partial is not None:
                self._show(playing, step.partial.text, step.audio_seconds, seconds)

    def _show(self, playing: _Playing, text: str, audio: float, seconds: float) -> None:
        """Records `text` if it differs from what is shown."""
        if text == playing.text:
            return
        wall = self._clock.now() - playing.started
        emission = Emission(text, audio, seconds, wall if self._config.realtime else audio)
        playing.emissions.append(emission)
        self._watcher.on_partial(playing.utterance.id, emission)

    def _finish(self, playing: _Playing) -> Hypothesis:
        """The final text; the first pass's is shown as a last emission if it changed at the end."""
        parts, utterance = self._parts, playing.utterance
        closed = close_at_end(parts, playing.stream)
        duration = closed.end / parts.model.sample_rate
        self._show(playing, parts.detokenise(closed.path.tokens), duration, 0.0)
        rewritten, finalise_seconds = Rewritten(closed.path), None
        if self._second_pass is not None and closed.hidden:
            begun = self._clock.now()
            limit = self._config.budget_seconds
            task = rewrite(self._second_pass, closed.hidden, closed.proposed, limit)
            rewritten = task().rewritten
            finalise_seconds = self._clock.now() - begun
            self.compute_seconds += finalise_seconds
        path = closed.path if rewritten.path is None else rewritten.path
        text = parts.detokenise(path.tokens)
        # Text that needs no sound may be there before the audio has ended: nobody waits for it.
        waited = max(0.0, self._clock.now() - playing.started - duration)
        return Hypothesis(
            id=utterance.id,
            text=text,
            ref=utterance.text,
            path=path,
            duration=duration,
            words=tuple(utterance.words),
            emissions=tuple(playing.emissions),
            step_seconds=tuple(playing.step_seconds),
            finalise_seconds=finalise_seconds,
            final_seconds=waited if self._config.realtime else None,
            fallbacks=rewritten.fallbacks,
            left_out=rewritten.left_out,
        )
