"""The frame loop of streaming recognition: audio in chunks, partial texts as they come, many
streams at once.

Models and searches are Protocols (`contract` says what passes between them); the loop never sees a
feature or a layer. Window k of a stream is complete when min(k P + P + L, n) of its n samples are
there: that is its audio time. A text appears at that audio time (`realtime` off: deterministic,
compute time excluded), or at the wall time since the stream joined (`realtime` on: audio arrives
at its natural speed, so that compute time and waiting for other streams count, as a user would see
it).

The cost of a step of model and search does not depend on the age of a stream. That of its text
does: it is made anew of all tokens after each step. Utterances are short; of audio without end
`live` makes segments.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dualasr_lib.core.tree import split, stack
from dualasr_lib.decoding.contract import (
    Frames,
    ModelStep,
    OnlineSearch,
    Rewritten,
    SecondPass,
    StreamingModel,
    Utterance,
)
from dualasr_lib.decoding.hypothesis import Emission, Hypothesis
from dualasr_lib.decoding.offline import Detokenise
from dualasr_lib.decoding.stepping import Turn, step_streams

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

    def __post_init__(self) -> None:
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
    loop = _Loop(model, search, detokenise, config, second_pass, watcher, clock)
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
class _Stream:
    """Book-keeping of one stream."""

    index: int
    utterance: Utterance
    samples: Tensor
    num_features: int
    num_outputs: int
    started: float
    """Wall time at which it joined."""
    model_state: Any
    search_state: Any
    steps_done: int = 0
    hidden: list[Tensor] = field(default_factory=list)
    """(S_i, C) of each step, for the second pass."""
    emissions: list[Emission] = field(default_factory=list)
    step_seconds: list[float] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The text shown now."""
        return self.emissions[-1].text if self.emissions else ""

    def turn(self, hop: int, frames: int) -> Turn:
        """Its next window, in steps of `hop` samples and `frames` encoder frames."""
        return Turn(
            samples=self.samples,
            start=self.steps_done * hop,
            steps_done=self.steps_done,
            num_features=self.num_features,
            num_wanted=self.num_outputs - self.steps_done * frames,
        )


class _States:
    """Model states of the streams, kept stacked as long as the same streams step together."""

    def __init__(self) -> None:
        self._streams: list[_Stream] = []
        self._stacked: Any = None

    def stacked(self, streams: list[_Stream]) -> Any:
        """The states of `streams` as one of batch N."""
        if streams != self._streams:
            if self._streams:
                for stream, state in zip(self._streams, split(self._stacked)):
                    stream.model_state = state
            self._stacked = stack([stream.model_state for stream in streams])
            self._streams = list(streams)
        return self._stacked

    def update(self, stacked: Any) -> None:
        """The states after a step of the same streams."""
        self._stacked = stacked


class _Loop:
    """Steps the streams that are due until all have ended."""

    def __init__(
        self,
        model: StreamingModel,
        search: OnlineSearch,
        detokenise: Detokenise,
        config: StreamingConfig,
        second_pass: SecondPass | None,
        watcher: Watcher,
        clock: Clock,
    ) -> None:
        self._model = model
        self._search = search
        self._detokenise = detokenise
        self._config = config
        self._second_pass = second_pass
        self._watcher = watcher
        self._clock = clock
        self._states = _States()
        self.compute_seconds = 0.0

    def run(self, utterances: Iterable[Utterance]) -> Iterator[tuple[int, Hypothesis]]:
        """(place of the utterance, hypothesis) in the order in which streams end."""
        waiting = enumerate(utterances)
        active: list[_Stream] = []
        while True:
            room = self._config.num_streams - len(active)
            active += [self._join(index, item) for index, item in islice(waiting, room)]
            if not active:
                return
            ended = [s for s in active if s.steps_done * self._model.chunk_frames >= s.num_outputs]
            for stream in ended:
                active.remove(stream)
                yield stream.index, self._finish(stream)
            if not ended:
                self._advance(self._due(active))

    def _join(self, index: int, utterance: Utterance) -> _Stream:
        samples = utterance.audio()
        if samples.dim() != 1 or not bool(samples.isfinite().all()):
            raise ValueError(
                f"audio must be (n,) finite samples, but utterance {utterance.id!r} has "
                f"shape {tuple(samples.shape)} or NaN/inf in it"
            )
        return _Stream(
            index=index,
            utterance=utterance,
            samples=samples.float(),
            num_features=self._model.num_feature_frames(len(samples)),
            num_outputs=self._model.num_output_frames(len(samples)),
            started=self._clock.now(),
            model_state=self._model.init_state(1),
            search_state=self._search.open(),
        )

    def _audio_seconds(self, stream: _Stream) -> float:
        """Audio that has to be there for the stream's next step."""
        model = self._model
        needed = (stream.steps_done + 1) * model.chunk_samples + model.lookahead_samples
        return min(needed, len(stream.samples)) / model.sample_rate

    def _due(self, streams: list[_Stream]) -> list[_Stream]:
        """Streams whose next window is complete, after waiting for the first."""
        if not self._config.realtime:
            return streams
        due_at = [stream.started + self._audio_seconds(stream) for stream in streams]
        wait = min(due_at) - self._clock.now()
        if wait > 0:
            self._clock.sleep(wait)
        now = max(self._clock.now(), min(due_at))
        return [stream for stream, time_due in zip(streams, due_at) if time_due <= now]

    def _advance(self, streams: list[_Stream]) -> None:
        """One step of model and search for `streams`."""
        start = self._clock.now()
        with torch.no_grad():
            steps = self._search.step(
                self._frames(streams), [stream.search_state for stream in streams]
            )
        texts = [self._detokenise(step.partial.tokens) for step in steps]
        seconds = self._clock.now() - start
        self.compute_seconds += seconds
        for stream, step, text in zip(streams, steps, texts):
            audio_seconds = self._audio_seconds(stream)
            stream.search_state = step.state
            stream.steps_done += 1
            stream.step_seconds.append(seconds)
            self._show(stream, text, audio_seconds, seconds)

    def _frames(self, streams: list[_Stream]) -> list[Frames]:
        """Per stream each (S_i, ...): the new encoder frames that lie inside its audio; their
        hidden states are kept.
        """
        model = self._model
        turns = [stream.turn(model.chunk_samples, model.chunk_frames) for stream in streams]
        keep_hidden = self._second_pass is not None
        stepped = step_streams(model, turns, self._states.stacked(streams), keep_hidden)
        self._states.update(stepped.state)
        for stream, hidden in zip(streams, stepped.hidden):
            stream.hidden.append(hidden)
        return stepped.frames

    def _show(self, stream: _Stream, text: str, audio_seconds: float, seconds: float) -> None:
        """Records `text` if it differs from what is shown."""
        if text == stream.text:
            return
        wall = self._clock.now() - stream.started
        shown_seconds = wall if self._config.realtime else audio_seconds
        emission = Emission(text, audio_seconds, seconds, shown_seconds)
        stream.emissions.append(emission)
        self._watcher.on_partial(stream.utterance.id, emission)

    def _finish(self, stream: _Stream) -> Hypothesis:
        """The final text; the first pass's is shown as a last emission if it changed at the end."""
        first = self._search.finish(stream.search_state)
        duration = len(stream.samples) / self._model.sample_rate
        self._show(stream, self._detokenise(first.tokens), duration, 0.0)
        (path, fallbacks), finalise_seconds = Rewritten(first), None
        if self._second_pass is not None and stream.hidden:
            begun = self._clock.now()
            with torch.no_grad():
                path, fallbacks = self._second_pass(torch.cat(stream.hidden))
            finalise_seconds = self._clock.now() - begun
            self.compute_seconds += finalise_seconds
        text = self._detokenise(path.tokens)
        # Text that needs no sound may be there before the audio has ended: nobody waits for it.
        waited = max(0.0, self._clock.now() - stream.started - duration)
        return Hypothesis(
            id=stream.utterance.id,
            text=text,
            ref=stream.utterance.text,
            path=path,
            duration=duration,
            words=tuple(stream.utterance.words),
            emissions=tuple(stream.emissions),
            step_seconds=tuple(stream.step_seconds),
            finalise_seconds=finalise_seconds,
            final_seconds=waited if self._config.realtime else None,
            fallbacks=fallbacks,
        )
